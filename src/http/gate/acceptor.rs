//! Accepts connections, and turns away those there is no room for.
//!
//! Only the stop flag ends the loop; accept errors never do. Invariant: it holds a spare
//! descriptor, so a process that has run out can still accept, answer 503, and continue.

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

/// `EMFILE` and `ENFILE`: the process or the system is out of descriptors. std has no
/// `ErrorKind` for them; both numbers are the same on every Linux.
const NO_DESCRIPTOR: [i32; 2] = [24, 23];
/// Maximum reads from a refused connection before it is dropped.
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
    /// Prepares the loop and starts the thread that drains refused connections.
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

    /// Accepts connections until the registry is stopping.
    pub(super) fn run(mut self) {
        while !self.context.registry.is_stopping() {
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if is_no_descriptor(&error) => self.accept_with_spare(),
                // `accept` times out with the idle timeout set on the listener; the others are
                // clients that gave up.
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    if !self.context.registry.is_stopping() {
                        log::warn!("gate: cannot accept a connection: {error}");
                        // Out of memory or buffers: a closing connection frees some.
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

    /// Returns whether one more connection fits, if need be after evicting the oldest one
    /// that has no whole request.
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

    /// Answers 503, then hands the connection to the draining thread, or drops it if that
    /// thread's queue is full: the accept loop never waits for a client.
    fn turn_away(&self, stream: TcpStream) {
        self.context.counters.shed();
        say_busy(&self.context, &stream);
        drop(self.shed.try_send(stream));
    }

    /// Releases the spare descriptor to accept one connection from the queue.
    fn accept_with_spare(&mut self) {
        drop(self.spare.take());
        let accepted = self.listener.accept();
        // If a descriptor was freed in the meantime, this connection is served normally.
        self.spare = open_spare().ok();
        match accepted {
            Ok((stream, peer)) if self.spare.is_some() => self.admit(stream, peer),
            Ok((stream, _)) => {
                self.context.counters.shed();
                // No descriptor can be spared to linger. Discard what has already arrived,
                // without waiting: closing with unread input would send a reset.
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

/// Writes 503. A fresh socket has room for it; if this one does not, it is skipped.
fn say_busy(context: &Context, mut stream: &TcpStream) {
    let answer = Refusal::CONNECTIONS.answer(context.render_error, false);
    let said = stream.set_nonblocking(true).and_then(|()| stream.write_all(&answer));
    if let Err(error) = said {
        log::trace!("gate: a refused client had disconnected: {error}");
    }
    shut_quietly(stream, Shutdown::Write);
}

/// Briefly drains what refused clients still send, so that a reset does not overtake the 503.
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

/// Discards what a non-blocking socket has already received, up to a limit.
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

/// Enlarges the accept backlog. When std's 128 overflow, the kernel drops new connections and
/// clients retry only after a second. Linux allows calling `listen` again for this, and caps
/// the backlog at its own limit (listen(2)).
pub(super) fn lengthen_queue(listener: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(listener, ACCEPT_QUEUE)?)
}

/// Sets the options every connection needs on the listener: no delay for small writes, and
/// the timeouts of an idle connection. Linux copies them to accepted sockets, which saves
/// three system calls per connection. The listener is a `TcpStream` only to set them.
pub(super) fn set_inherited(listener: &TcpStream, idle: Duration, stall: Duration) -> io::Result<()> {
    listener.set_nodelay(true)?;
    listener.set_read_timeout(Some(idle))?;
    listener.set_write_timeout(Some(stall))
}
