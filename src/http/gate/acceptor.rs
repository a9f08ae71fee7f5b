//! Accepting connections, and turning away those there is no room for.
//!
//! Never ends on an accept error: only the stop flag ends it. The invariant: it holds a spare
//! descriptor, so that a process without any left can still accept, say 503, and go on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::Context;
use super::connection;
use super::limits::{ACCEPT_QUEUE, EVICTION_WAIT, SHED_LINGER, SMALL_BYTES, STACK_BYTES};
use super::refusal::Refusal;
use super::registry::shut_quietly;

/// `EMFILE` and `ENFILE`: this process or the system has no descriptor left. std has no kind
/// for them; both numbers are the same on every Linux.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];
/// Most reads from a refused connection before it is dropped.
const SHED_READS: usize = 16;

/// The accept loop's own state.
#[derive(Debug)]
pub(super) struct Acceptor {
    context: Arc<Context>,
    listener: TcpListener,
    spare: Option<File>,
    shed: SyncSender<TcpStream>,
    connections_max: usize,
}

impl Acceptor {
    /// Prepares the loop; starts the thread that lets refused connections linger.
    pub(super) fn new(
        context: Arc<Context>,
        listener: TcpListener,
        connections_max: usize,
        shed_queue: usize,
    ) -> io::Result<Self> {
        let (shed, refused) = sync_channel(shed_queue);
        std::thread::Builder::new()
            .name("gate-shed".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || linger_each(&refused))?;
        Ok(Self { context, listener, spare: Some(open_spare()?), shed, connections_max })
    }

    /// Accepts until the stop.
    pub(super) fn run(mut self) {
        while !self.context.registry.is_stopping() {
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_no_descriptor(&error) => self.accept_with_spare(),
                // `accept` inherits the idle timeout; the rest are clients that did not wait.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    if !self.context.registry.is_stopping() {
                        log::warn!("gate: cannot accept a connection: {error}");
                        // No memory or no buffers: a connection that leaves gives some back.
                        self.context.registry.wait_for_change(EVICTION_WAIT);
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        if self.context.registry.is_stopping() {
            return;
        }
        self.context.counters.accepted();
        if !self.make_room() {
            return self.turn_away(stream);
        }
        let slot = self.context.registry.enter(stream, peer);
        let link = slot.link();
        let context = Arc::clone(&self.context);
        let spawned = std::thread::Builder::new()
            .name("gate".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || connection::serve(&context, slot));
        if let Err(error) = spawned {
            log::warn!("gate: cannot start a thread: {error}");
            self.context.counters.shed();
            say_busy(&self.context, &link.stream);
        }
    }

    /// Whether one more connection fits, after evicting the oldest without a request.
    fn make_room(&self) -> bool {
        let registry = &self.context.registry;
        if registry.len() < self.connections_max {
            return true;
        }
        if !registry.evict_oldest() {
            return false;
        }
        self.context.counters.evicted();
        registry.wait_below(self.connections_max, Instant::now() + EVICTION_WAIT)
    }

    /// Says 503, then leaves the lingering to another thread, or drops the connection when
    /// too many linger: the accept loop waits for no client.
    fn turn_away(&self, stream: TcpStream) {
        self.context.counters.shed();
        say_busy(&self.context, &stream);
        drop(self.shed.try_send(stream));
    }

    /// Uses the spare descriptor to take one connection off the queue.
    fn accept_with_spare(&mut self) {
        drop(self.spare.take());
        let accepted = self.listener.accept();
        // If a descriptor has become free meanwhile, this connection is served like any other.
        self.spare = open_spare().ok();
        match accepted {
            Ok((stream, peer)) if self.spare.is_some() => self.admit(stream, peer),
            Ok((stream, _)) => {
                self.context.counters.shed();
                // There is no descriptor to linger with: what has arrived is read away, without
                // waiting, because unread input turns the close into a reset.
                say_busy(&self.context, &stream);
                read_away(&stream);
            }
            Err(_) => {}
        }
        if self.spare.is_none() {
            self.regain_spare();
        }
    }

    fn regain_spare(&mut self) {
        self.spare = open_spare().ok();
        if self.spare.is_none() {
            if self.context.registry.evict_oldest() {
                self.context.counters.evicted();
            }
            self.context.registry.wait_for_change(EVICTION_WAIT);
            self.spare = open_spare().ok();
        }
    }
}

fn open_spare() -> io::Result<File> {
    File::open("/dev/null")
}

/// Writes 503. A fresh socket takes it at once; one that does not is not waited for.
fn say_busy(context: &Context, mut stream: &TcpStream) {
    let answer = Refusal::CONNECTIONS.answer(context.render_error, false);
    let said = stream.set_nonblocking(true).and_then(|()| stream.write_all(&answer));
    if let Err(error) = said {
        log::trace!("gate: a refused client was gone: {error}");
    }
    shut_quietly(stream, Shutdown::Write);
}

/// Briefly drains what refused clients still send, lest a reset overtake their 503.
fn linger_each(refused: &Receiver<TcpStream>) {
    let mut bytes = vec![0; SMALL_BYTES];
    for mut stream in refused {
        let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(SHED_LINGER)));
        if ready.is_err() {
            continue;
        }
        let deadline = Instant::now() + SHED_LINGER;
        for _ in 0..SHED_READS {
            let more = matches!(stream.read(&mut bytes), Ok(count) if count > 0);
            if !more || Instant::now() >= deadline {
                break;
            }
        }
    }
}

/// Discards what a non-blocking socket already holds, up to a bound.
fn read_away(mut stream: &TcpStream) {
    let mut bytes = [0; 1024];
    for _ in 0..SHED_READS {
        if !matches!(stream.read(&mut bytes), Ok(count) if count > 0) {
            return;
        }
    }
}

fn is_no_descriptor(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| NO_DESCRIPTOR.contains(&number))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Lengthens the queue of connections not yet accepted: where std's 128 overflow, the kernel
/// drops what comes, and the client tries again after a second. Linux takes a second `listen`
/// for that, and cuts the number to its own limit (listen(2)).
pub(super) fn lengthen_queue(listener: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(listener, ACCEPT_QUEUE)?)
}

/// Makes accepted sockets inherit what every connection needs: no delayed small writes, and
/// the timeouts of a waiting connection. Linux copies these options on accept, which saves
/// three system calls a connection; the listener is only typed as a stream to set them.
pub(super) fn set_inherited(listener: &TcpStream, idle: Duration, stall: Duration) -> io::Result<()> {
    listener.set_nodelay(true)?;
    listener.set_read_timeout(Some(idle))?;
    listener.set_write_timeout(Some(stall))
}
