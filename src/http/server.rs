//! The server: two lanes of `tiny_http` workers behind the [`gate`](super::gate).
//!
//! The gate owns the public listener and hands over whole, bounded requests on Unix sockets.
//! Probes have their own lane and workers, so they are answered even while all other workers
//! are busy. The only file that uses `tiny_http`.

use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tiny_http::{Header, Request as TinyRequest, Response as TinyResponse};

use crate::entropy;
use crate::service::metrics::Requests;
use crate::service::{Gateway, health};

use super::auth::bearer;
use super::error;
use super::gate::{Gate, GateConfig, Limits, ShutdownReport};
use super::message::{Reply, Request, Response, Stream};
use super::router;
use super::sockets::SocketFolder;

/// Workers of the probe lane.
const PROBE_WORKERS: usize = 2;
/// Minimum number of requests in flight.
const UPSTREAMS_MIN: usize = 64;
/// Requests in flight per worker.
const UPSTREAMS_PER_WORKER: usize = 4;
/// Most answers that may be read slowly at once.
const SLOW_STREAMS_MAX: usize = 2;
/// How long requests may fail to reach the workers before the gateway counts as not ready.
const OUTAGE_MAX: Duration = Duration::from_secs(5);
/// Long enough for any backup or verification, which answers only once it is done.
const ANSWER_MAX: Duration = Duration::from_secs(6 * 3600);
/// Most characters of a path that are logged.
const LOGGED_PATH_CHARS: usize = 200;
/// Longest path segment that is logged in full, in characters.
const LOGGED_SEGMENT_CHARS: usize = 40;

/// Configuration of the server.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig<'a> {
    /// How many threads handle requests.
    pub workers: usize,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Where to create the folder for the lanes' sockets.
    pub sockets: &'a Path,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    gate: Gate,
    lanes: [Lane; 2],
    sockets: SocketFolder,
}

impl Server {
    /// Starts serving on `listener`.
    pub fn start(
        gateway: &Arc<Gateway>,
        listener: TcpListener,
        config: ServerConfig<'_>,
    ) -> io::Result<Self> {
        let sockets = SocketFolder::create(config.sockets)?;
        let names = Arc::new(RequestNames::new()?);
        let lane = |socket: PathBuf, workers| Lane::start(&socket, workers, gateway, &names);
        let lanes = [lane(sockets.main(), config.workers)?, lane(sockets.probes(), PROBE_WORKERS)?];
        let limits = Limits {
            body_bytes_max: config.body_bytes_max,
            answer: ANSWER_MAX,
            // Many more than workers: a decision frees its worker before it is committed.
            upstreams: UPSTREAMS_MIN.max(config.workers * UPSTREAMS_PER_WORKER),
            workers: config.workers,
            // A slow reader may hold a worker, but never all of them.
            slow_streams_max: SLOW_STREAMS_MAX.min(config.workers.saturating_sub(1)),
            ..Limits::default()
        };
        let gate = Gate::start(
            listener,
            GateConfig {
                socket: sockets.main(),
                probe_socket: sockets.probes(),
                is_probe: |_, path| router::is_probe(path),
                is_download: |_, path| router::is_download(path),
                proof_target: "/livez".to_owned(),
                render_error: error::failure_body,
                limits,
            },
        )?;
        let outage = gate.outage();
        health::watch_server(gateway, move || outage().map_or(Ok(()), check_outage));
        Ok(Server { gate, lanes, sockets })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.gate.local_addr()
    }

    /// Stops accepting, lets requests in flight finish until the deadline, and stops the workers.
    pub fn shutdown(self, deadline: Instant) -> ShutdownReport {
        let report = self.gate.shutdown(deadline);
        for lane in self.lanes {
            lane.stop(deadline);
        }
        drop(self.sockets);
        report
    }
}

/// Short outages are normal: all connections are in use while a lost one is being replaced.
fn check_outage(outage: Duration) -> Result<(), String> {
    if outage < OUTAGE_MAX {
        return Ok(());
    }
    let seconds = outage.as_secs();
    Err(format!("requests do not get through: no connection to the workers could be opened for {seconds} s"))
}

/// A `tiny_http` server on one socket, and its workers.
struct Lane {
    server: Arc<tiny_http::Server>,
    workers: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Lane {
    fn start(
        socket: &Path,
        workers: usize,
        gateway: &Arc<Gateway>,
        names: &Arc<RequestNames>,
    ) -> io::Result<Self> {
        let listener = tiny_http::Listener::Unix(UnixListener::bind(socket)?);
        let server = Arc::new(tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = |number| {
            let (server, stopping) = (Arc::clone(&server), Arc::clone(&stopping));
            let (gateway, names) = (Arc::clone(gateway), Arc::clone(names));
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&server, &stopping, &gateway, &names))
        };
        let workers = (0..workers).map(worker).collect::<io::Result<_>>()?;
        Ok(Lane { server, workers, stopping })
    }

    /// Each `unblock` wakes one worker. A worker still stuck in a system call at the deadline
    /// is abandoned, since the process is about to exit.
    fn stop(self, deadline: Instant) {
        self.stopping.store(true, Ordering::SeqCst);
        for _ in &self.workers {
            self.server.unblock();
        }
        for worker in self.workers {
            if !ends_by(&worker, deadline) {
                log::warn!("a worker is still busy; not waiting for it");
            } else if worker.join().is_err() {
                log::error!("a worker panicked");
            }
        }
    }
}

/// Waits until a thread has ended, polling at growing intervals.
fn ends_by(worker: &JoinHandle<()>, deadline: Instant) -> bool {
    let mut pause = Duration::from_micros(100);
    while !worker.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    true
}

/// Generates names for requests that have none: a random part per run, and a counter.
#[derive(Debug)]
struct RequestNames {
    run: String,
    count: AtomicU64,
}

impl RequestNames {
    fn new() -> io::Result<Self> {
        Ok(RequestNames { run: entropy::hex::<4>()?, count: AtomicU64::new(1) })
    }

    /// The client's own name if it is safe in a log line, else a new one.
    fn name(&self, given: Option<&str>) -> String {
        let harmless = |text: &&str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        match given.filter(harmless) {
            Some(given) => given.to_owned(),
            None => format!("{}-{}", self.run, self.count.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Serves until stopped. Any other error from `recv` means that `tiny_http`'s accept thread
/// has ended; connections that are already open still deliver requests.
fn work(server: &tiny_http::Server, stopping: &AtomicBool, gateway: &Gateway, names: &RequestNames) {
    loop {
        match server.recv() {
            Ok(request) => serve(request, gateway, names),
            Err(_) if stopping.load(Ordering::SeqCst) => return,
            Err(error) => log::error!("no more connections to the workers can be opened: {error}"),
        }
    }
}

fn serve(mut tiny: TinyRequest, gateway: &Gateway, names: &RequestNames) {
    let received = Instant::now();
    let read = read(&mut tiny, received);
    let reply = reply_to(tiny, received, names, Arc::clone(&gateway.requests));
    let request = match read {
        Ok(request) => request,
        Err(error) => return reply.send(error::failure(400, &format!("cannot read the body: {error}"))),
    };
    // Unwinding drops the reply, which answers 500.
    if catch_unwind(AssertUnwindSafe(|| router::respond(gateway, &request, reply))).is_err() {
        log::error!("a handler panicked");
    }
}

/// Creates the reply to a request: it sends the response and logs the request.
fn reply_to(tiny: TinyRequest, received: Instant, names: &RequestNames, requests: Arc<Requests>) -> Reply {
    let name = names.name(header(&tiny, "X-Request-ID").as_deref());
    Reply::new(move |response, by| {
        // The gate's own requests, which test connections.
        let is_proof = header(&tiny, "X-Gate-Proof").is_some();
        let path = tiny.url().split(['?', '#']).next().unwrap_or_default();
        let (method, path) = (tiny.method().as_str().to_owned(), loggable(path));
        let status = response.status;
        let is_stream = response.stream.is_some();
        match respond(tiny, response, &name) {
            Ok(()) => {}
            Err(error) if is_stream => log::warn!("request {name}: the answer was cut off: {error}"),
            Err(error) => log::debug!("request {name}: the answer could not be sent: {error}"),
        }
        if !is_proof {
            let took = received.elapsed();
            requests.answered(status);
            if path == "/v1/authorize" {
                requests.authorized(took);
            }
            let millis = took.as_secs_f64() * 1000.0;
            match by {
                // Escaped, because a name may contain characters that would forge log lines.
                Some(by) => {
                    log::info!("{method} {path} {status} {millis:.1} ms {name} by {}", by.escape_debug())
                }
                None => log::info!("{method} {path} {status} {millis:.1} ms {name}"),
            }
        }
    })
}

fn read(tiny: &mut TinyRequest, received: Instant) -> io::Result<Request> {
    let mut body = Vec::with_capacity(tiny.body_length().unwrap_or(0));
    tiny.as_reader().read_to_end(&mut body)?;
    let (path, query) = tiny.url().split_once('?').unwrap_or((tiny.url(), ""));
    Ok(Request {
        method: tiny.method().as_str().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        bearer: header(tiny, "Authorization").as_deref().and_then(bearer),
        framed: tiny.body_length().is_some(),
        signature: header(tiny, "X-Aegis-Request-Signature"),
        peer: header(tiny, "X-Peer").and_then(|peer| peer.parse().ok()).map(|peer: SocketAddr| peer.ip()),
        body,
        received,
    })
}

/// The value of a header that occurs exactly once; with two, neither can be trusted.
fn header(tiny: &TinyRequest, name: &'static str) -> Option<String> {
    let mut values = tiny.headers().iter().filter(|header| header.field.equiv(name));
    let value = values.next()?.value.as_str().to_owned();
    values.next().is_none().then_some(value)
}

fn respond(tiny: TinyRequest, response: Response, name: &str) -> io::Result<()> {
    let Response { status, body, stream, headers } = response;
    let headers = tiny_headers(&headers, name);
    match stream {
        None => {
            let length = body.len();
            tiny.respond(tiny_response(status, headers, Cursor::new(body), length))
        }
        Some(Stream { bytes, reader }) => {
            let length = usize::try_from(bytes).map_err(io::Error::other)?;
            tiny.respond(tiny_response(status, headers, reader, length))
        }
    }
}

fn tiny_response<R: io::Read>(status: u16, headers: Vec<Header>, body: R, length: usize) -> TinyResponse<R> {
    TinyResponse::new(status.into(), headers, body, Some(length), None).with_chunked_threshold(usize::MAX)
}

/// Adds the default headers, unless the handler has set its own.
fn tiny_headers(own: &[(&'static str, String)], name: &str) -> Vec<Header> {
    let usual = [("Content-Type", "application/json"), ("X-Request-ID", name), ("Cache-Control", "no-store")];
    let usual = usual.into_iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
    let all = usual.chain(own.iter().map(|(name, value)| (*name, value.as_str())));
    let header = |(name, value): (&str, &str)| match Header::from_bytes(name, value) {
        Ok(header) => Some(header),
        Err(()) => {
            log::error!("the header {name} cannot be sent");
            None
        }
    };
    all.filter_map(header).collect()
}

/// A path in loggable form. No id of ours is longer than a logged segment; a longer one may
/// be a token pasted into the URL.
fn loggable(path: &str) -> String {
    let segment = |segment: &str| match segment.char_indices().nth(LOGGED_SEGMENT_CHARS) {
        Some(_) => segment.chars().take(8).chain("…".chars()).collect(),
        None => segment.to_owned(),
    };
    let shown: Vec<String> = path.split('/').map(segment).collect();
    let escape = |c: char| if c == '…' { vec![c] } else { c.escape_default().collect() };
    shown.join("/").chars().take(LOGGED_PATH_CHARS).flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_path_is_not_logged() {
        let token = format!("agent_tok_{}", "0".repeat(32));
        assert_eq!(loggable(&format!("/v1/{token}/x")), "/v1/agent_to…/x");
        assert_eq!(
            loggable("/v1/receipts/rcpt_1000000_0123456789abcdef"),
            "/v1/receipts/rcpt_1000000_0123456789abcdef"
        );
        assert_eq!(loggable("/a\u{1b}[2J"), "/a\\u{1b}[2J");
    }
}
