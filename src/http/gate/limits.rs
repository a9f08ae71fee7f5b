//! Every limit of the gate, in one place, with its unit in its name.
//!
//! Nothing here acts. A deployment changes `body_bytes_max`; tests shorten the
//! deadlines. The invariant: whatever a client can make the gate hold (bytes, a
//! thread, a descriptor, a worker) is bounded by a number in this struct and by a
//! deadline in this struct.

use std::time::Duration;

/// The limits a gate keeps. [`Limits::default`] is what a deployment runs with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest request head in bytes, request line and blank line included: 431 (414 while
    /// the request line itself is what is too long).
    pub head_bytes_max: usize,
    /// Longest request target in bytes: 414.
    pub target_bytes_max: usize,
    /// Most header lines in a request: 431.
    pub header_lines_max: usize,
    /// Longest request body in bytes, after decoding: 413.
    pub body_bytes_max: usize,
    /// Bytes of bodies and of buffered answers held at once over all connections: 503.
    pub memory_bytes_max: usize,
    /// How much of one answer is kept for a slow client, so that its worker is free again.
    pub answer_buffer_bytes_max: usize,
    /// Answers larger than that buffer, being read slowly, at once. Each pins a worker, so
    /// this stays below their number; one more is cut.
    pub slow_streams_max: usize,

    /// How long a connection may be silent between requests; then it is closed.
    pub idle: Duration,
    /// From the first byte of a head to its last: 408.
    pub head: Duration,
    /// From the last byte of the head to the last of the body: 408.
    pub body: Duration,
    /// How long a request waits for a free connection to the service: 503.
    pub upstream_wait: Duration,
    /// From handing a request over to the last byte of the answer's head: 504.
    pub answer: Duration,
    /// How long the service may pause amid the body of a large answer; then it is cut. It
    /// has no other way to take back an answer that it has begun.
    pub answer_pause: Duration,
    /// How long a client may take nothing of its answer; then it is cut.
    pub stall: Duration,
    /// The slowest a client may take its answer, in bytes a second, once `stall` has passed.
    pub answer_rate_min: u64,
    /// How long input is discarded after an early error answer, lest a reset eat the answer.
    pub linger: Duration,

    /// Most connections at once; the descriptor limit may lower it.
    pub connections_max: usize,
    /// Connections to the service, which bound what is in flight; the descriptor limit may
    /// lower it.
    pub upstreams: usize,
    /// Connections to the service's probe lane; likewise.
    pub probe_upstreams: usize,
    /// Threads that the service handles requests on.
    pub workers: usize,
    /// Descriptors left to each of them: a list has the database and its log open.
    pub files_per_worker: usize,
    /// Descriptors left to the rest of the process: a backup, for one.
    pub spare_descriptors: usize,
    /// Whether the descriptor limit lowers the counts above. Only a test says no.
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

/// Bodies and answers up to this size need no share of the common memory budget.
pub(super) const FREE_BYTES: usize = 16 * 1024;
/// What one read of a body or of an answer asks for at most.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// Where a connection's buffers start, and what they shrink back to.
pub(super) const SMALL_BYTES: usize = 4 * 1024;
/// Longest head of an answer; ours are a few hundred bytes.
pub(super) const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Stack of a connection's thread. Only what is touched is resident.
pub(super) const STACK_BYTES: usize = 192 * 1024;
/// Refused connections waiting for their lingering close; beyond it they are dropped at once.
pub(super) const SHED_QUEUE: usize = 16;
/// Connections that may wait to be accepted.
pub(super) const ACCEPT_QUEUE: i32 = 4096;
/// How long one refused connection may linger.
pub(super) const SHED_LINGER: Duration = Duration::from_millis(50);
/// How long the acceptor waits for an evicted connection to leave.
pub(super) const EVICTION_WAIT: Duration = Duration::from_millis(100);
/// A connection sending a body may be evicted after this long; an honest one takes less.
pub(super) const BODY_EVICTABLE: Duration = Duration::from_secs(1);
/// A blocked write to the service looks this often whether the service answered early.
pub(super) const WRITE_GRANULE: Duration = Duration::from_millis(200);
/// How long a newly opened connection to the service may take to answer its proof.
pub(super) const PROOF: Duration = Duration::from_secs(5);
/// How long to wait before trying again to open a connection to the service; after each
/// failure so much longer, up to the maximum.
pub(super) const REOPEN_WAIT: Duration = Duration::from_millis(50);
pub(super) const REOPEN_WAIT_MAX: Duration = Duration::from_secs(1);
