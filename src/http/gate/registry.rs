//! The open connections: how many, what each is doing, and which to close to make room.
//!
//! Never reads or writes a request. One mutex owns the table. Each connection's phase is an
//! atomic word of its own, so the hot path takes no lock. Invariant: a connection is evicted
//! or shut only by a compare-and-swap out of a phase that holds no complete request, so an
//! admitted request is never cut to make room.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::limits::BODY_EVICTABLE;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests: no byte of the next one has been read.
    Idle = 0,
    /// Part of a request head has been read.
    Head = 1,
    /// The head is complete, the body is not.
    Body = 2,
    /// A whole request is being answered.
    Busy = 3,
    /// An early error answer was sent; further input is discarded.
    Linger = 4,
    /// Shut by the gate, to make room or at shutdown.
    Shut = 5,
}

/// One connection, as other threads see it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// The phase in the low byte; above it, when the phase began, in milliseconds since the
    /// registry was created.
    word: AtomicU64,
}

impl Link {
    fn phase_is(word: u64, phase: Phase) -> bool {
        word & 0xff == phase as u64
    }

    fn is_busy(word: u64) -> bool {
        Link::phase_is(word, Phase::Body) || Link::phase_is(word, Phase::Busy)
    }
}

#[derive(Debug, Default)]
struct Table {
    links: HashMap<u64, Arc<Link>>,
    next_id: u64,
}

/// The table of open connections.
#[derive(Debug)]
pub(super) struct Registry {
    table: Mutex<Table>,
    left: Condvar,
    stopping: AtomicBool,
    started: Instant,
}

impl Registry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::new(Table::default()),
            left: Condvar::new(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().links.len()
    }

    /// Number of connections with a request in progress: past its head and not yet answered.
    pub(super) fn busy(&self) -> usize {
        self.lock().links.values().filter(|link| Link::is_busy(link.word.load(Ordering::SeqCst))).count()
    }

    /// Adds a new connection; dropping its slot removes it.
    pub(super) fn enter(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Slot {
        let word = self.word(Phase::Idle);
        let link = Arc::new(Link { stream, peer, word: AtomicU64::new(word) });
        let mut table = self.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.links.insert(id, Arc::clone(&link));
        Slot { registry: Arc::clone(self), id, link: Some(link), word }
    }

    /// Shuts the connection that has gone longest without a whole request, and returns whether
    /// there was one. Idle, partial-head and lingering connections go first, then slow bodies.
    pub(super) fn evict_oldest(&self) -> bool {
        let table = self.lock();
        let waiting = [Phase::Idle, Phase::Head, Phase::Linger];
        let old_body = self.millis().saturating_sub(millis_of(BODY_EVICTABLE));
        self.evict(&table, |word| waiting.iter().any(|&p| Link::phase_is(word, p)))
            || self.evict(&table, |word| Link::phase_is(word, Phase::Body) && word >> 8 <= old_body)
    }

    fn evict(&self, table: &Table, fits: impl Fn(u64) -> bool) -> bool {
        let oldest = table
            .links
            .values()
            .map(|link| (link.word.load(Ordering::SeqCst), link))
            .filter(|(word, _)| fits(*word))
            .min_by_key(|(word, _)| word >> 8);
        oldest.is_some_and(|(word, link)| self.shut(link, word, Shutdown::Both))
    }

    /// Marks a connection as shut if its word is still `word`, then shuts its socket.
    fn shut(&self, link: &Link, word: u64, how: Shutdown) -> bool {
        let shut = self.word(Phase::Shut);
        let won = link.word.compare_exchange(word, shut, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if won {
            shut_quietly(&link.stream, how);
        }
        won
    }

    /// Waits until fewer than `count` connections are open; returns false at the deadline.
    pub(super) fn wait_below(&self, count: usize, deadline: Instant) -> bool {
        let mut table = self.lock();
        while table.links.len() >= count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            table = self.wait(table, left);
        }
        true
    }

    /// Waits until a connection closes, for at most `at_most`.
    pub(super) fn wait_for_change(&self, at_most: Duration) {
        drop(self.wait(self.lock(), at_most));
    }

    /// Refuses new requests from now on and closes connections without a request; returns how
    /// many still have one.
    pub(super) fn stop(&self) -> usize {
        self.stopping.store(true, Ordering::SeqCst);
        let table = self.lock();
        let mut busy = 0;
        for link in table.links.values() {
            let word = link.word.load(Ordering::SeqCst);
            if Link::phase_is(word, Phase::Idle) || Link::phase_is(word, Phase::Head) {
                // Shut only reading, and keep the phase: a request that has already arrived
                // is still answered, then the thread sees the end of the stream.
                shut_quietly(&link.stream, Shutdown::Read);
            } else if Link::is_busy(word) {
                busy += 1;
            }
        }
        self.left.notify_all();
        busy
    }

    /// Shuts everything still open and returns how many connections that were.
    pub(super) fn cut_all(&self) -> usize {
        let table = self.lock();
        for link in table.links.values() {
            link.word.store(self.word(Phase::Shut), Ordering::SeqCst);
            shut_quietly(&link.stream, Shutdown::Both);
        }
        table.links.len()
    }

    fn word(&self, phase: Phase) -> u64 {
        self.millis() << 8 | phase as u64
    }

    fn millis(&self) -> u64 {
        millis_of(self.started.elapsed())
    }

    fn wait<'a>(&self, table: MutexGuard<'a, Table>, at_most: Duration) -> MutexGuard<'a, Table> {
        self.left.wait_timeout(table, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // The table is consistent after every statement, so a panic cannot have corrupted it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry in the table, owned by its thread.
#[derive(Debug)]
pub(super) struct Slot {
    registry: Arc<Registry>,
    id: u64,
    link: Option<Arc<Link>>,
    /// What this thread last wrote; any other value in the link means it was shut.
    word: u64,
}

impl Slot {
    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(self.link.as_ref().expect("the link is only taken in drop"))
    }

    /// Moves to another phase; returns false if the gate has shut the connection.
    pub(super) fn enter(&mut self, phase: Phase) -> bool {
        let next = self.registry.word(phase);
        let Some(link) = &self.link else { return false };
        let moved = link.word.compare_exchange(self.word, next, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if moved {
            self.word = next;
        }
        moved
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.registry.lock();
        // Drop both handles before the count visibly falls, so the descriptor is free by then.
        drop(self.link.take());
        drop(table.links.remove(&self.id));
        drop(table);
        self.registry.left.notify_all();
    }
}

/// Ignores failure: it means that the other side has already reset the socket.
pub(super) fn shut_quietly(stream: &TcpStream, how: Shutdown) {
    if let Err(error) = stream.shutdown(how) {
        log::trace!("gate: a socket was already gone: {error}");
    }
}

fn millis_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
