//! All limits of the gate in one place, each with its unit in its name.
//!
//! Deployments change `body_bytes_max`; tests shorten the deadlines. Invariant: whatever a
//! client can make the gate hold (bytes, a thread, a descriptor, a worker) is bounded by a
//! number and by a deadline in [`Limits`].

use std::time::Duration;

/// The limits a gate enforces. Deployments run with [`Limits::default`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request head in bytes, including request line and blank line; beyond it 431
    /// (414 if the request line itself is too long).
    pub head_bytes_max: usize,
    /// Longest request target in bytes; beyond it 414.
    pub target_bytes_max: usize,
    /// Most header lines in a request; beyond it 431.
    pub header_lines_max: usize,
    /// Longest request body in bytes, after decoding; beyond it 413.
    pub body_bytes_max: usize,
    /// Most bytes of bodies and buffered answers held by all connections; beyond it 503.
    pub memory_bytes_max: usize,
    /// How much of an answer is buffered for a slow client in order to free its worker.
    pub answer_buffer_bytes_max: usize,
    /// Most answers larger than that buffer that may be read slowly at once. Each pins a
    /// worker, so this stays below the number of workers; one more is cut.
    pub slow_streams_max: usize,

    /// How long a connection may be silent between requests before it is closed.
    pub idle: Duration,
    /// Time from the first byte of a head to its last; beyond it 408.
    pub head: Duration,
    /// Time from the last byte of the head to the last byte of the body; beyond it 408.
    pub body: Duration,
    /// How long a request waits for a free connection to the service; beyond it 503.
    pub upstream_wait: Duration,
    /// Time from handing over a request to the last byte of the answer's head; beyond it 504.
    pub answer: Duration,
    /// How long the service may pause within the body of a large answer before it is cut.
    /// Stalling is the only way the service can abort an answer it has begun.
    pub answer_pause: Duration,
    /// How long a client may read nothing of its answer before it is cut.
    pub stall: Duration,
    /// The slowest a client may read its answer, in bytes per second, after `stall`.
    pub answer_rate_min: u64,
    /// How long input is discarded after an early error answer, so that a reset does not
    /// destroy the answer.
    pub linger: Duration,

    /// Most connections at once; reduced if the descriptor limit requires it.
    pub connections_max: usize,
    /// Connections to the service, which bound the requests in flight; reduced likewise.
    pub upstreams: usize,
    /// Connections to the service's probe lane; reduced likewise.
    pub probe_upstreams: usize,
    /// Threads on which the service handles requests.
    pub workers: usize,
    /// Descriptors reserved per worker: a list has the database and its log open.
    pub files_per_worker: usize,
    /// Descriptors reserved for the rest of the process, such as a backup.
    pub spare_descriptors: usize,
    /// Whether the descriptor limit reduces the counts above. Only tests turn this off.
    pub fit_to_descriptors: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            header_lines_max: 100,
            body_bytes_max: 1024 * 1024,
            memory_bytes_max: 64 * 1024 * 1024,
            answer_buffer_bytes_max: 1024 * 1024,
            slow_streams_max: 2,
            idle: Duration::from_secs(15),
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            upstream_wait: Duration::from_secs(1),
            answer: Duration::from_secs(30),
            answer_pause: Duration::from_secs(10),
            stall: Duration::from_secs(5),
            answer_rate_min: 32 * 1024,
            linger: Duration::from_secs(1),
            connections_max: 1024,
            upstreams: 64,
            probe_upstreams: 4,
            workers: 16,
            files_per_worker: 2,
            spare_descriptors: 32,
            fit_to_descriptors: true,
        }
    }
}

/// Bodies and answers up to this size are not counted against the memory budget.
pub(super) const FREE_BYTES: usize = 16 * 1024;
/// Most bytes requested by one read of a body or an answer.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Initial size of a connection's buffers.
pub(super) const SMALL_BYTES: usize = 4 * 1024;
/// Longest head of an answer; the service's are a few hundred bytes.
pub(super) const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Stack of a connection's thread. Only touched pages are resident.
pub(super) const STACK_BYTES: usize = 192 * 1024;
/// Refused connections that may wait for a lingering close; any more are dropped at once.
pub(super) const SHED_QUEUE: usize = 16;
/// Length of the accept backlog.
pub(super) const ACCEPT_QUEUE: i32 = 4096;
/// How long one refused connection may linger.
pub(super) const SHED_LINGER: Duration = Duration::from_millis(50);
/// How long the acceptor waits for an evicted connection to close.
pub(super) const EVICTION_WAIT: Duration = Duration::from_millis(100);
/// A connection sending a body may be evicted after this time; a well-behaved one is faster.
pub(super) const BODY_EVICTABLE: Duration = Duration::from_secs(1);
/// How often a blocked write to the service checks whether it answered early.
pub(super) const WRITE_GRANULE: Duration = Duration::from_millis(200);
/// How long the service may take to answer the proof request on a new connection.
pub(super) const PROOF: Duration = Duration::from_secs(5);
/// How long to wait before retrying to open a connection to the service; the wait grows by
/// this much with each failure, up to the maximum.
pub(super) const REOPEN_WAIT: Duration = Duration::from_millis(50);
pub(super) const REOPEN_WAIT_MAX: Duration = Duration::from_secs(1);
