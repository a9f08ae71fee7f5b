//! One client connection, from its first byte to its close.
//!
//! Reads one whole request, gets it answered, and only then turns to the next, so a client
//! that pipelines without reading is throttled by its own socket. Never forwards a partial
//! request. Invariant: after a request that was refused, or whose framing is in doubt,
//! nothing more on the connection is read as a request.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Context;
use super::budget::Share;
use super::buffer::Buffer;
use super::chunked::ChunkDecoder;
use super::forward;
use super::framing::{Framing, Head, HeadScan, parse_head};
use super::limits::{CHUNK_BYTES, FREE_BYTES, SMALL_BYTES};
use super::refusal::Refusal;
use super::registry::{Link, Phase, Slot, shut_quietly};
use super::relay::{self, Failure, Pace, Reply};
use super::upstream::is_timeout;

/// Serves one connection until it ends.
pub(super) fn serve(context: &Arc<Context>, slot: Slot) {
    let mut connection = Connection::new(context, slot);
    loop {
        match connection.exchange() {
            Ok(true) => {}
            Ok(false) => return connection.close(),
            Err(End::Gone) => return,
            Err(End::Refuse(refusal)) => return connection.refuse(refusal),
        }
    }
}

/// Why a connection ends without answering its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client is gone, or there is nothing to say to it.
    Gone,
    /// The client gets an error.
    Refuse(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What is still needed of a request after its head has been rendered for the service.
#[derive(Debug, Clone, Copy)]
struct Plan {
    framing: Framing,
    expects_continue: bool,
    probe: bool,
    download: bool,
    to_head: bool,
    old_client: bool,
    keep_alive: bool,
}

/// Both `link` and `slot` hold the socket. `link` is declared first, so it is dropped first
/// and the descriptor is closed by the time the slot is seen as free.
struct Connection<'a> {
    context: &'a Arc<Context>,
    link: Arc<Link>,
    slot: Slot,
    peer_line: String,
    input: Buffer,
    forward: Vec<u8>,
    body: Vec<u8>,
    answer: Buffer,
    memory: Share,
    /// The socket's current read timeout; initially the one inherited from the listener.
    timeout: Duration,
    to_head: bool,
}

impl<'a> Connection<'a> {
    fn new(context: &'a Arc<Context>, slot: Slot) -> Self {
        let link = slot.link();
        Self {
            context,
            peer_line: format!("X-Peer: {}\r\n", link.peer),
            link,
            slot,
            input: Buffer::with_capacity(SMALL_BYTES),
            forward: Vec::new(),
            body: Vec::new(),
            answer: Buffer::with_capacity(0),
            memory: Share::of(&context.memory),
            timeout: context.limits.idle,
            to_head: false,
        }
    }

    /// Handles one request; returns whether the connection stays open.
    fn exchange(&mut self) -> Result<bool, End> {
        self.to_head = false;
        let length = self.read_head()?;
        let plan = self.plan(length)?;
        self.input.consume(length);
        self.read_body(&plan)?;
        self.enter(Phase::Busy)?;
        let keep_alive = self.answer(&plan)?;
        self.tidy();
        Ok(keep_alive)
    }

    /// Reads until the input starts with a whole head; returns the length of that head.
    fn read_head(&mut self) -> Result<usize, End> {
        let limits = &self.context.limits;
        let mut scan = HeadScan::default();
        let mut deadline = None;
        if self.input.is_empty() {
            self.enter(Phase::Idle)?;
            // Checked after entering the phase: either this sees the stop, or the stop sees
            // the phase.
            if self.context.registry.is_stopping() {
                return Err(End::Gone);
            }
        }
        loop {
            if let Some(length) = scan.advance(self.input.filled(), limits)? {
                return Ok(length);
            }
            if self.input.is_empty() {
                self.set_timeout(limits.idle)?;
            } else {
                if deadline.is_none() {
                    self.enter(Phase::Head)?;
                }
                let until = *deadline.get_or_insert_with(|| Instant::now() + limits.head);
                self.set_timeout_until(until, Refusal::HEAD_TIMEOUT)?;
            }
            self.fill_head(deadline.is_some())?;
        }
    }

    /// Reads once into the input. The capacity is limited to one byte more than the longest
    /// head, which is enough to detect that a head is too long.
    fn fill_head(&mut self, begun: bool) -> Result<(), End> {
        if self.input.len() == self.input.capacity() {
            let most = self.context.limits.head_bytes_max + 1;
            self.input.reserve((self.input.capacity() * 2).min(most).max(SMALL_BYTES));
        } else {
            self.input.reserve(SMALL_BYTES);
        }
        match self.input.fill(&self.link.stream, CHUNK_BYTES) {
            Ok(0) if begun => Err(Refusal::TRUNCATED.into()),
            Ok(0) => Err(End::Gone),
            Ok(_) => Ok(()),
            Err(error) if is_timeout(&error) && begun => Err(Refusal::HEAD_TIMEOUT.into()),
            Err(_) => Err(End::Gone),
        }
    }

    /// Parses the head and renders it for the service.
    fn plan(&mut self, length: usize) -> Result<Plan, End> {
        let limits = &self.context.limits;
        let head = parse_head(&self.input.filled()[..length], limits)?;
        self.to_head = head.method == "HEAD";
        if let Framing::Length(length) = head.framing
            && length > limits.body_bytes_max as u64
        {
            return Err(Refusal::BODY.into());
        }
        forward::begin_head(&head, &self.peer_line, &mut self.forward);
        Ok(Plan {
            framing: head.framing,
            expects_continue: head.expects_continue,
            probe: (self.context.is_probe)(head.method, path(&head)),
            download: (self.context.is_download)(head.method, path(&head)),
            to_head: self.to_head,
            old_client: head.minor == 0,
            keep_alive: head.keep_alive,
        })
    }

    /// Reads and decodes the body, and completes the forwarded head with its length.
    fn read_body(&mut self, plan: &Plan) -> Result<(), End> {
        let deadline = Instant::now() + self.context.limits.body;
        let framed = match plan.framing {
            Framing::None => None,
            Framing::Length(length) => {
                let length = usize::try_from(length).map_err(|_| Refusal::BODY)?;
                self.read_sized(length, plan, deadline)?;
                Some(length)
            }
            Framing::Chunked => {
                self.read_chunked(plan, deadline)?;
                Some(self.body.len())
            }
        };
        forward::end_head(framed, &mut self.forward);
        Ok(())
    }

    fn read_sized(&mut self, length: usize, plan: &Plan, deadline: Instant) -> Result<(), End> {
        let here = length.min(self.input.len());
        self.body.extend_from_slice(&self.input.filled()[..here]);
        self.input.consume(here);
        if self.body.len() < length {
            self.await_body(plan)?;
        }
        while self.body.len() < length {
            let step = (length - self.body.len()).min(CHUNK_BYTES);
            self.hold(self.body.len() + step)?;
            self.set_timeout_until(deadline, Refusal::BODY_TIMEOUT)?;
            let had = self.body.len();
            self.body.resize(had + step, 0);
            let read = (&self.link.stream).read(&mut self.body[had..]);
            self.body.truncate(had + read.as_ref().copied().unwrap_or(0));
            check_body_read(read)?;
        }
        Ok(())
    }

    fn read_chunked(&mut self, plan: &Plan, deadline: Instant) -> Result<(), End> {
        let mut decoder = ChunkDecoder::new(self.context.limits.body_bytes_max);
        let mut waiting = false;
        loop {
            self.hold(self.body.len() + self.input.len())?;
            let taken = decoder.push(self.input.filled(), &mut self.body)?;
            self.input.consume(taken);
            if decoder.is_done() {
                return Ok(());
            }
            if !std::mem::replace(&mut waiting, true) {
                self.await_body(plan)?;
            }
            self.set_timeout_until(deadline, Refusal::BODY_TIMEOUT)?;
            self.input.reserve(FREE_BYTES);
            let read = self.input.fill(&self.link.stream, FREE_BYTES);
            check_body_read(read)?;
        }
    }

    /// Must be called before waiting for the rest of a body.
    fn await_body(&mut self, plan: &Plan) -> Result<(), End> {
        self.enter(Phase::Body)?;
        // RFC 9110 section 10.1.1: unnecessary once part of the body has arrived.
        if plan.expects_continue && self.body.is_empty() && self.input.is_empty() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }

    /// Reserves memory from the shared budget for a body that has grown to this size.
    fn hold(&mut self, bytes: usize) -> Result<(), End> {
        if bytes <= FREE_BYTES || self.memory.hold(bytes) { Ok(()) } else { Err(Refusal::MEMORY.into()) }
    }

    /// Sends the request to the service and relays its answer; returns whether the connection
    /// stays open.
    fn answer(&mut self, plan: &Plan) -> Result<bool, End> {
        let context = self.context;
        let lane = if plan.probe { &context.probes } else { &context.main };
        let lease = lane.take(context.limits.upstream_wait).ok_or(Refusal::UPSTREAM)?;
        let deadline = Instant::now() + context.limits.answer;
        self.answer.clear();
        let sent = lease
            .send(&self.forward, &self.body, &mut self.answer, deadline)
            .map_err(|error| if is_timeout(&error) { Refusal::ANSWER_TIMEOUT } else { Refusal::LOST })?;
        // The service has the request; a slow reader need not keep its bytes in memory too.
        self.body.clear();
        let reply = Reply {
            to_head: plan.to_head,
            download: plan.download,
            old_client: plan.old_client,
            keep_alive: plan.keep_alive,
        };
        match relay::relay(context, lease, sent, &self.link.stream, &mut self.answer, reply) {
            Ok(keep_alive) => Ok(keep_alive),
            Err(Failure::Refuse(refusal)) => Err(refusal.into()),
            Err(Failure::Cut) => Err(End::Gone),
        }
    }

    /// Frees the memory of a large request or answer.
    fn tidy(&mut self) {
        self.answer.clear();
        self.answer.shrink(FREE_BYTES);
        self.input.shrink(FREE_BYTES);
        self.body.clear();
        self.body.shrink_to(FREE_BYTES);
        self.forward.shrink_to(FREE_BYTES);
        self.memory.release();
    }

    fn enter(&mut self, phase: Phase) -> Result<(), End> {
        if self.slot.enter(phase) { Ok(()) } else { Err(End::Gone) }
    }

    fn write(&self, bytes: &[u8]) -> Result<(), End> {
        Pace::default()
            .write_all(&self.link.stream, &mut [IoSlice::new(bytes)], &self.context.limits)
            .map_err(|_| End::Gone)
    }

    /// Answers with an error and closes.
    fn refuse(mut self, refusal: Refusal) {
        self.context.counters.refused(refusal);
        // The service never sees this request, so it is logged here.
        log::info!("gate: refused {refusal}, peer {}", self.link.peer);
        let answer = refusal.answer(self.context.render_error, self.to_head);
        if self.write(&answer).is_ok() {
            self.memory.release();
            self.close();
        }
    }

    /// Shuts down writing, then discards further input: closing a socket with unread input
    /// resets it, and the reset would overtake the answer (RFC 9112 section 9.6).
    fn close(mut self) {
        shut_quietly(&self.link.stream, Shutdown::Write);
        if self.enter(Phase::Linger).is_err() {
            return;
        }
        let deadline = Instant::now() + self.context.limits.linger;
        self.input.clear();
        self.input.reserve(FREE_BYTES);
        while self.set_timeout_until(deadline, Refusal::BODY_TIMEOUT).is_ok() {
            self.input.clear();
            match self.input.fill(&self.link.stream, FREE_BYTES) {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
    }

    /// Sets the read timeout, skipping the system call if it is unchanged.
    fn set_timeout(&mut self, timeout: Duration) -> Result<(), End> {
        if self.timeout != timeout {
            self.link.stream.set_read_timeout(Some(timeout)).map_err(|_| End::Gone)?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Sets the read timeout to the time left until `deadline`, or refuses if it has passed:
    /// trickling bytes does not extend the deadline.
    fn set_timeout_until(&mut self, deadline: Instant, late: Refusal) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        // The kernel would round less than a millisecond to "forever" or "immediately".
        if left < Duration::from_millis(1) {
            return Err(late.into());
        }
        self.set_timeout(left)
    }
}

/// The target without its query.
fn path<'h>(head: &Head<'h>) -> &'h str {
    head.origin.split_once('?').map_or(head.origin, |(path, _)| path)
}

fn check_body_read(read: io::Result<usize>) -> Result<(), End> {
    match read {
        Ok(0) => Err(Refusal::TRUNCATED.into()),
        Ok(_) => Ok(()),
        Err(error) if is_timeout(&error) => Err(Refusal::BODY_TIMEOUT.into()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(_) => Err(End::Gone),
    }
}
