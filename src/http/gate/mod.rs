//! An admission gate in front of `tiny_http`.
//!
//! ```text
//! client ── TCP ──> acceptor ──> connection (a thread each, small stack)
//!                   cap, evict     head: HeadScan, parse_head     400 408 414 417 431 501 505
//!                   shed 503       body: sized or ChunkDecoder    400 408 413 503
//!                                  lane: take, wait in line       503
//!                                  forward ── Unix socket ──> tiny_http ──> workers
//!        <── relay, in one write or streamed <── answer ──────────┘
//! ```
//!
//! `tiny_http` never sees a client. It sees only whole, unambiguous requests, one at a time,
//! on connections that the gate opened and proved to work. The gate never interprets a request
//! beyond its framing, and never answers for the service except with an error of its own.
//! Invariant: everything a client can make this process hold is bounded by [`Limits`] and
//! released at one of its deadlines.
//!
//! # What the server must do
//! Bind one Unix socket per lane, by path, in a folder of mode 0700; pass each to
//! `tiny_http::Server::from_listener`; start the workers before [`Gate::start`], which tests
//! every connection; send every answer `with_chunked_threshold(usize::MAX)` and a known
//! length; catch panics around each handler.

mod acceptor;
mod answer;
mod budget;
mod buffer;
pub mod chunked;
mod connection;
mod counters;
mod descriptors;
mod forward;
pub mod framing;
pub mod limits;
pub mod refusal;
mod registry;
mod relay;
mod upstream;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acceptor::Acceptor;
use budget::Budget;
use counters::Counters;
use registry::Registry;
use upstream::Lane;

pub use counters::Counts;
pub use limits::Limits;
pub use refusal::RenderError;

/// Decides by method and path (without query) whether a request goes to the probe lane.
pub type IsProbe = fn(method: &str, path: &str) -> bool;

/// Decides by method and path (without query) whether the service sends the answer without
/// holding a worker. The service then limits how many such answers there are.
pub type IsDownload = fn(method: &str, path: &str) -> bool;

/// How long threads may take to exit after the connections left at a shutdown's deadline are
/// cut.
const CUT_WAIT: Duration = Duration::from_millis(250);

/// What a gate is started with.
#[derive(Clone)]
pub struct GateConfig {
    /// The Unix socket of the service.
    pub socket: PathBuf,
    /// The Unix socket of the service's probe lane, which has its own server and workers.
    pub probe_socket: PathBuf,
    /// Which requests go to the probe lane.
    pub is_probe: IsProbe,
    /// Which answers may be read slowly without counting as slow streams.
    pub is_download: IsDownload,
    /// A target for which both lanes answer a plain GET quickly, with any status. It is
    /// requested on each new connection to the service to prove that it works (with
    /// `X-Gate-Proof: 1`, which no client can send).
    pub proof_target: String,
    /// Renders the body of the gate's own errors.
    pub render_error: RenderError,
    /// The limits.
    pub limits: Limits,
}

impl fmt::Debug for GateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateConfig")
            .field("socket", &self.socket)
            .field("probe_socket", &self.probe_socket)
            .field("proof_target", &self.proof_target)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Requests in progress at the start of the shutdown that were finished.
    pub finished: usize,
    /// Connections still open at the deadline, which were cut.
    pub cut: usize,
}

/// State shared by all connections of a gate.
#[derive(Debug)]
struct Context {
    limits: Limits,
    render_error: RenderError,
    is_probe: IsProbe,
    is_download: IsDownload,
    registry: Arc<Registry>,
    main: Arc<Lane>,
    probes: Arc<Lane>,
    memory: Arc<Budget>,
    slow_streams: Arc<Budget>,
    counters: Counters,
}

/// A running gate. Dropping it cuts all connections; [`Gate::shutdown`] lets requests finish.
#[derive(Debug)]
pub struct Gate {
    context: Arc<Context>,
    address: SocketAddr,
    /// A second handle to the listener: shutting it down wakes `accept` (Linux).
    listener: TcpStream,
    acceptor: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens the lanes to the service, then starts accepting on `listener`.
    ///
    /// # Errors
    /// If a lane's service does not answer the proof request within 5 s, or the system has no
    /// thread or descriptor to spare.
    pub fn start(listener: TcpListener, config: GateConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        acceptor::lengthen_queue(&listener)?;
        let handle = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        acceptor::set_inherited(&handle, config.limits.idle, config.limits.stall)?;
        let plan = descriptors::plan(&config.limits);
        let context = Arc::new(open_lanes(config, plan)?);
        let acceptor = Acceptor::new(Arc::clone(&context), listener, plan.connections, plan.shed_queue);
        let acceptor = acceptor.and_then(|acceptor| {
            std::thread::Builder::new().name("gate-accept".to_owned()).spawn(|| acceptor.run())
        });
        let acceptor = acceptor.inspect_err(|_| close_lanes(&context))?;
        log::info!(
            "gate: {address}: {} connections, {} upstreams, {} for probes",
            plan.connections,
            plan.upstreams,
            plan.probe_upstreams
        );
        Ok(Self { context, address, listener: handle, acceptor: Some(acceptor) })
    }

    /// The public address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A snapshot of the counters.
    pub fn counts(&self) -> Counts {
        Counts {
            open: self.context.registry.len() as u64,
            busy: self.context.registry.busy() as u64,
            upstreams_replaced: self.context.main.replaced() + self.context.probes.replaced(),
            ..self.context.counters.read()
        }
    }

    /// Returns a function that tells how long requests have been cut off from the service:
    /// no connection can be opened, and none is free.
    pub fn outage(&self) -> impl Fn() -> Option<Duration> + Send + Sync + use<> {
        let lane = Arc::clone(&self.context.main);
        move || lane.out_for()
    }

    /// Stops accepting, closes idle connections, lets requests in progress finish (with
    /// `Connection: close`) until `deadline`, then cuts the rest.
    pub fn shutdown(mut self, deadline: Instant) -> ShutdownReport {
        let busy = self.stop_accepting();
        let left = if self.context.registry.wait_below(1, deadline) { 0 } else { self.cut_all() };
        close_lanes(&self.context);
        ShutdownReport { finished: busy.saturating_sub(left), cut: left }
    }

    /// Sets the stop flag, then shuts the listener, then visits the connections: none can be
    /// admitted after that.
    fn stop_accepting(&mut self) -> usize {
        self.context.registry.stop();
        registry::shut_quietly(&self.listener, Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            log::error!("gate: the accept thread panicked");
        }
        self.context.registry.stop()
    }

    fn cut_all(&self) -> usize {
        let cut = self.context.registry.cut_all();
        close_lanes(&self.context);
        self.context.registry.wait_below(1, Instant::now() + CUT_WAIT);
        cut
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.acceptor.is_some() {
            self.stop_accepting();
            self.cut_all();
        }
    }
}

fn open_lanes(config: GateConfig, plan: descriptors::Plan) -> io::Result<Context> {
    let GateConfig { socket, probe_socket, is_probe, is_download, proof_target, render_error, limits } =
        config;
    let probes = Lane::open(probe_socket, &proof_target, plan.probe_upstreams, limits.answer)?;
    let main =
        Lane::open(socket, &proof_target, plan.upstreams, limits.answer).inspect_err(|_| probes.close())?;
    Ok(Context {
        memory: Budget::new(limits.memory_bytes_max),
        slow_streams: Budget::new(limits.slow_streams_max),
        registry: Registry::new(),
        counters: Counters::default(),
        limits,
        render_error,
        is_probe,
        is_download,
        main,
        probes,
    })
}

fn close_lanes(context: &Context) {
    context.main.close();
    context.probes.close();
}
