//! Relays the service's answer to the client.
//!
//! A small answer is read whole, its upstream returned, and then sent in one write. A large
//! answer is streamed. If the client is slow, the answer is first buffered within the shared
//! budget to free the worker; only what exceeds that pins a worker, and few answers may.
//! Invariant: no buffer is unbounded, and an upstream is returned only if exactly the framed
//! bytes were read from it.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Context;
use super::answer::{AnswerHead, parse_answer};
use super::budget::Share;
use super::buffer::Buffer;
use super::limits::{ANSWER_HEAD_BYTES_MAX, CHUNK_BYTES, Limits, SMALL_BYTES};
use super::refusal::Refusal;
use super::upstream::{Lease, Sent, is_timeout};

/// How the answer must be adapted to the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    /// The request was HEAD, so no body follows.
    pub(super) to_head: bool,
    /// The answer holds no worker, however slowly it is read.
    pub(super) download: bool,
    /// The client speaks HTTP/1.0, which must be told explicitly that a connection stays open.
    pub(super) old_client: bool,
    /// Whether the connection is to stay open.
    pub(super) keep_alive: bool,
}

impl Reply {
    fn connection_line(self) -> &'static str {
        match (self.keep_alive, self.old_client) {
            (false, _) => "Connection: close\r\n",
            (true, true) => "Connection: keep-alive\r\n",
            (true, false) => "",
        }
    }
}

/// Why the client did not get a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing was sent yet: the client can still get an error.
    Refuse(Refusal),
    /// The answer had begun, or the client is gone: the connection is just closed.
    Cut,
}

/// Reads the answer from `lease` and writes it to `client`; returns whether the connection
/// stays open.
pub(super) fn relay(
    context: &Context,
    lease: Lease,
    sent: Sent,
    client: &TcpStream,
    answer: &mut Buffer,
    mut reply: Reply,
) -> Result<bool, Failure> {
    let head = read_answer_head(&lease, answer, reply.to_head)?;
    // Checked only now, so that a request in flight at shutdown also gets `Connection: close`.
    reply.keep_alive &= !context.registry.is_stopping();
    let whole = (head.bytes as u64).saturating_add(head.body);
    match usize::try_from(whole) {
        Ok(whole) if whole <= CHUNK_BYTES => {
            read_whole(lease, sent, answer, whole)?;
            send_whole(&context.limits, client, answer, &head, whole, reply)?;
        }
        _ => Stream::begin(context, lease, sent, client, answer, &head, reply).run()?,
    }
    Ok(reply.keep_alive)
}

fn read_answer_head(lease: &Lease, answer: &mut Buffer, to_head: bool) -> Result<AnswerHead, Failure> {
    let mut capacity = SMALL_BYTES;
    loop {
        match parse_answer(answer.filled(), to_head) {
            Err(_) => {
                log::error!("gate: the service sent an answer without exactly one valid length");
                return Err(Failure::Refuse(Refusal::ANSWER));
            }
            Ok(Some(head)) => return Ok(head),
            Ok(None) if answer.len() >= ANSWER_HEAD_BYTES_MAX => {
                return Err(Failure::Refuse(Refusal::ANSWER));
            }
            Ok(None) => {}
        }
        if answer.len() == capacity {
            capacity *= 2;
        }
        answer.reserve(capacity);
        match lease.read(answer, CHUNK_BYTES) {
            Ok(0) => return Err(Failure::Refuse(Refusal::LOST)),
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {
                return Err(Failure::Refuse(Refusal::ANSWER_TIMEOUT));
            }
            Err(_) => return Err(Failure::Refuse(Refusal::LOST)),
        }
    }
}

/// Reads the rest of a small answer and frees its upstream before writing to the client.
fn read_whole(lease: Lease, sent: Sent, answer: &mut Buffer, whole: usize) -> Result<(), Failure> {
    answer.reserve(whole);
    while answer.len() < whole {
        match lease.read(answer, CHUNK_BYTES) {
            Ok(count) if count > 0 => {}
            _ => return Err(Failure::Refuse(Refusal::ANSWER)),
        }
    }
    // If more arrived than was framed, the connection is out of sync and the lease is dropped.
    if sent == Sent::Whole && answer.len() == whole {
        lease.give_back();
    }
    Ok(())
}

fn send_whole(
    limits: &Limits,
    client: &TcpStream,
    answer: &mut Buffer,
    head: &AnswerHead,
    whole: usize,
    reply: Reply,
) -> Result<(), Failure> {
    let bytes = &answer.filled()[..whole];
    let line = reply.connection_line();
    let mut pace = Pace::default();
    if line.is_empty() && head.cut.is_none() {
        pace.write_all(client, &mut [IoSlice::new(bytes)], limits)?;
    } else {
        let cut = head.cut.clone().unwrap_or(head.bytes - 2..head.bytes - 2);
        let mut parts = [
            IoSlice::new(&bytes[..cut.start]),
            IoSlice::new(&bytes[cut.end..head.bytes - 2]),
            IoSlice::new(line.as_bytes()),
            IoSlice::new(&bytes[head.bytes - 2..]),
        ];
        pace.write_all(client, &mut parts, limits)?;
    }
    answer.clear();
    Ok(())
}

/// An answer too large to hold in memory at once.
struct Stream<'a> {
    context: &'a Context,
    lease: Option<Lease>,
    sent: Sent,
    client: &'a TcpStream,
    answer: &'a mut Buffer,
    /// Bytes of the answer still to be read from the service.
    unread: u64,
    download: bool,
    pace: Pace,
    memory: Share,
}

impl<'a> Stream<'a> {
    fn begin(
        context: &'a Context,
        lease: Lease,
        sent: Sent,
        client: &'a TcpStream,
        answer: &'a mut Buffer,
        head: &AnswerHead,
        reply: Reply,
    ) -> Self {
        let read = answer.len() - head.bytes;
        let mut first = answer.filled()[..head.bytes - 2].to_vec();
        first.extend_from_slice(reply.connection_line().as_bytes());
        first.extend_from_slice(b"\r\n");
        first.extend_from_slice(&answer.filled()[head.bytes..]);
        answer.replace(first);
        Self {
            context,
            lease: Some(lease),
            sent,
            client,
            answer,
            unread: head.body.saturating_sub(read as u64),
            download: reply.download,
            pace: Pace::default(),
            memory: Share::of(&context.memory),
        }
    }

    fn run(mut self) -> Result<(), Failure> {
        let pause = self.context.limits.answer_pause;
        self.lease.as_mut().ok_or(Failure::Cut)?.limit_pauses(pause).map_err(|_| Failure::Cut)?;
        self.set_nonblocking(true)?;
        self.stream_freely()?;
        self.set_nonblocking(false)?;
        self.stream_slowly()
    }

    /// Streams as fast as the client reads; when it stops reading, buffers within the budget.
    fn stream_freely(&mut self) -> Result<(), Failure> {
        loop {
            let blocked = self.write_what_fits()?;
            self.free_the_worker();
            if self.unread == 0 || (blocked && !self.grow()) {
                return Ok(());
            }
            if !blocked {
                self.answer.reserve(CHUNK_BYTES);
            }
            self.read_more()?;
        }
    }

    /// Makes room for one more chunk if the limits allow it.
    fn grow(&mut self) -> bool {
        let wanted = self.answer.len() + CHUNK_BYTES;
        let allowed =
            wanted <= self.context.limits.answer_buffer_bytes_max + CHUNK_BYTES && self.memory.hold(wanted);
        if allowed {
            self.answer.reserve(wanted);
        }
        allowed
    }

    /// Sends the rest as fast as the client reads, and cuts it off if it is too slow.
    fn stream_slowly(&mut self) -> Result<(), Failure> {
        let mut permit = Share::of(&self.context.slow_streams);
        if self.unread > 0 && !self.download && !permit.hold(1) {
            log::debug!("gate: cut an answer: too many slow readers");
            return Err(Failure::Cut);
        }
        while !self.answer.is_empty() || self.unread > 0 {
            let chunk = self.answer.len().min(CHUNK_BYTES);
            let piece = &self.answer.filled()[..chunk];
            self.pace.write_all(self.client, &mut [IoSlice::new(piece)], &self.context.limits)?;
            self.answer.consume(chunk);
            if self.unread > 0 {
                self.answer.reserve(self.answer.len() + CHUNK_BYTES);
                self.read_more()?;
            }
            self.free_the_worker();
        }
        Ok(())
    }

    /// Writes without blocking; returns whether the client stopped reading.
    fn write_what_fits(&mut self) -> Result<bool, Failure> {
        while !self.answer.is_empty() {
            match self.client.write(self.answer.filled()) {
                Ok(count) if count > 0 => {
                    self.answer.consume(count);
                    self.pace.sent += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Ok(true),
                _ => return Err(Failure::Cut),
            }
        }
        Ok(false)
    }

    fn read_more(&mut self) -> Result<(), Failure> {
        let lease = self.lease.as_ref().ok_or(Failure::Cut)?;
        let most = usize::try_from(self.unread).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        match lease.read(self.answer, most) {
            Ok(count) if count > 0 => {
                self.unread -= count as u64;
                Ok(())
            }
            Err(error) if is_timeout(&error) => {
                log::warn!("gate: cut an answer: the service stopped sending it");
                Err(Failure::Cut)
            }
            _ => Err(Failure::Cut),
        }
    }

    fn free_the_worker(&mut self) {
        if self.unread > 0 {
            return;
        }
        match (self.lease.take(), self.sent) {
            (Some(lease), Sent::Whole) => lease.give_back(),
            (spent, _) => drop(spent),
        }
    }

    fn set_nonblocking(&self, on: bool) -> Result<(), Failure> {
        self.client.set_nonblocking(on).map_err(|_| Failure::Cut)
    }
}

/// How fast a client reads its answer, counting only time spent waiting for the client.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: u64,
    waited: Duration,
}

impl Pace {
    /// Writes everything, in one call if the socket has room; cuts off a client that is too slow.
    pub(super) fn write_all(
        &mut self,
        mut client: &TcpStream,
        mut parts: &mut [IoSlice<'_>],
        limits: &Limits,
    ) -> Result<(), Failure> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let began = Instant::now();
            let count = match client.write_vectored(parts) {
                Ok(0) => return Err(Failure::Cut),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Usually the socket's write timeout: not a byte was taken within `stall`.
                Err(_) => return Err(Failure::Cut),
            };
            self.sent += count as u64;
            IoSlice::advance_slices(&mut parts, count);
            self.waited += began.elapsed();
            let paid = Duration::from_millis(self.sent.saturating_mul(1000) / limits.answer_rate_min.max(1));
            if self.waited > limits.stall + paid {
                return Err(Failure::Cut);
            }
        }
        Ok(())
    }
}
