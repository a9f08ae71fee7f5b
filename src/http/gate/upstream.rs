//! One lane of connections to the service, over its Unix socket.
//!
//! Never opens two at once, and never lends one that has not answered yet: `tiny_http`'s task
//! pool can lose a wake-up when connections arrive together, and such a connection accepts
//! bytes forever without answering. Waiting is first come, first served. Invariant: a stream
//! in `idle` is in sync, with no request unanswered; a lease that is dropped instead of given
//! back is replaced by a fresh connection, so answers can never be mixed up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::parse_answer;
use super::buffer::Buffer;
use super::descriptors::PER_UPSTREAM;
use super::limits::{ANSWER_HEAD_BYTES_MAX, PROOF, REOPEN_WAIT, REOPEN_WAIT_MAX, SMALL_BYTES, WRITE_GRANULE};

/// A pool of proven connections.
#[derive(Debug)]
pub(super) struct Lane {
    socket: PathBuf,
    proof: String,
    answer: Duration,
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<UnixStream>,
    waiters: VecDeque<(u64, SyncSender<UnixStream>)>,
    next_ticket: u64,
    missing: usize,
    replaced: u64,
    outage: Option<Outage>,
    closed: bool,
}

/// A run of failures to replace a missing connection.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    failures: u32,
}

impl Lane {
    /// Opens `count` connections and maintains that number; fails if the service does not
    /// answer `GET target` on each within 5 s.
    pub(super) fn open(
        socket: PathBuf,
        target: &str,
        count: usize,
        answer: Duration,
    ) -> io::Result<Arc<Self>> {
        let proof = format!("GET {target} HTTP/1.1\r\nHost: gate\r\nX-Gate-Proof: 1\r\n\r\n");
        let state = Mutex::default();
        let lane = Arc::new(Self { socket, proof, answer, state, wanted: Condvar::new() });
        for _ in 0..count {
            let stream = lane.open_proven()?;
            lane.offer(stream);
        }
        let opener = Arc::clone(&lane);
        std::thread::Builder::new()
            .name("gate-opener".to_owned())
            .spawn(move || opener.reopen_until_closed())?;
        Ok(lane)
    }

    /// Takes a connection, waiting in line for at most `wait`.
    pub(super) fn take(self: &Arc<Self>, wait: Duration) -> Option<Lease> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        // There is never both a free connection and a waiter: see `offer`.
        if let Some(stream) = state.idle.pop() {
            drop(state);
            return Some(self.lease(stream));
        }
        let (sender, receiver) = sync_channel(1);
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiters.push_back((ticket, sender));
        drop(state);
        if let Ok(stream) = receiver.recv_timeout(wait) {
            return Some(self.lease(stream));
        }
        // A stream may have been handed over since the timeout. It is ours if and only if the
        // ticket is gone, because streams are handed over under the lock.
        let mut state = self.lock();
        state.waiters.retain(|(waiting, _)| *waiting != ticket);
        drop(state);
        receiver.try_recv().ok().map(|stream| self.lease(stream))
    }

    /// Stops lending: waiters get nothing, and lent connections are closed on return.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
        state.waiters.clear();
        self.wanted.notify_all();
    }

    /// Number of connections replaced so far.
    pub(super) fn replaced(&self) -> u64 {
        self.lock().replaced
    }

    /// How long no connection could be opened, if none is free either.
    pub(super) fn out_for(&self) -> Option<Duration> {
        let state = self.lock();
        let outage = state.outage.filter(|_| state.idle.is_empty() && !state.closed)?;
        Some(outage.since.elapsed())
    }

    fn lease(self: &Arc<Self>, stream: UnixStream) -> Lease {
        Lease { lane: Arc::clone(self), stream: Some(stream), limited: false }
    }

    /// Hands a stream to the first waiter, or keeps it.
    fn offer(&self, mut stream: UnixStream) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        while let Some((_, sender)) = state.waiters.pop_front() {
            stream = match sender.try_send(stream) {
                Ok(()) => return,
                Err(TrySendError::Full(stream) | TrySendError::Disconnected(stream)) => stream,
            };
        }
        state.idle.push(stream);
    }

    fn want_another(&self) {
        let mut state = self.lock();
        state.missing += 1;
        state.replaced += 1;
        self.wanted.notify_all();
    }

    fn reopen_until_closed(&self) {
        let mut state = self.lock();
        while !state.closed {
            if state.missing == 0 {
                state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let pause = match self.open_proven() {
                Ok(stream) => self.reopened(stream),
                Err(error) => self.not_reopened(&error),
            };
            state = self.lock();
            if !pause.is_zero() && !state.closed {
                state = self.wanted.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn reopened(&self, stream: UnixStream) -> Duration {
        self.offer(stream);
        let mut state = self.lock();
        state.missing -= 1;
        let outage = state.outage.take();
        drop(state);
        if let Some(outage) = outage {
            let seconds = outage.since.elapsed().as_secs();
            log::info!("gate: a connection to the service is open again, after {seconds} s");
        }
        Duration::ZERO
    }

    /// Records a failure, logging it at a decreasing rate; returns how long to wait before the
    /// next attempt.
    fn not_reopened(&self, error: &io::Error) -> Duration {
        let mut state = self.lock();
        let outage = state.outage.get_or_insert(Outage { since: Instant::now(), failures: 0 });
        outage.failures = outage.failures.saturating_add(1);
        let (Outage { since, failures }, missing) = (*outage, state.missing);
        drop(state);
        if failures.is_power_of_two() {
            let seconds = since.elapsed().as_secs();
            log::warn!(
                "gate: {missing} connections to the service cannot be reopened, for {seconds} s: {error}"
            );
        }
        (REOPEN_WAIT * failures).min(REOPEN_WAIT_MAX)
    }

    fn open_proven(&self) -> io::Result<UnixStream> {
        look_for_descriptors()?;
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PROOF))?;
        stream.set_write_timeout(Some(WRITE_GRANULE))?;
        stream.write_all(self.proof.as_bytes())?;
        read_proof(&mut stream)?;
        stream.set_read_timeout(Some(self.answer))?;
        Ok(stream)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails unless there are enough free descriptors for both ends of a connection. If one is
/// missing, `tiny_http` ends its accept thread, and with it the lane, for good; the gate can
/// wait.
fn look_for_descriptors() -> io::Result<()> {
    let first = File::open("/dev/null")?;
    let others: Vec<File> = (1..PER_UPSTREAM).map(|_| first.try_clone()).collect::<io::Result<_>>()?;
    drop((first, others));
    Ok(())
}

/// Reads one small answer, whatever its status: its arrival is the proof.
fn read_proof(stream: &mut UnixStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; SMALL_BYTES];
    let deadline = Instant::now() + PROOF;
    while bytes.len() <= ANSWER_HEAD_BYTES_MAX && Instant::now() < deadline {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..count]);
        match parse_answer(&bytes, false) {
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(Some(head)) if (bytes.len() - head.bytes) as u64 >= head.body => return Ok(()),
            Ok(_) => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// A connection lent for one request.
#[derive(Debug)]
pub(super) struct Lease {
    lane: Arc<Lane>,
    stream: Option<UnixStream>,
    /// Whether the read timeout differs from the lane's.
    limited: bool,
}

/// How much of a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it.
    Whole,
    /// The service answered early and the rest was not sent, so the connection is unusable.
    Early,
}

impl Lease {
    /// Returns the connection, in sync, to the lane.
    pub(super) fn give_back(mut self) {
        if self.limited && self.set_read_timeout(self.lane.answer).is_err() {
            return;
        }
        if let Some(stream) = self.stream.take() {
            self.lane.offer(stream);
        }
    }

    /// Sends head and body. The service may answer a large body without reading it all. If we
    /// kept writing while its answer fills the other direction, both sides would block forever.
    pub(super) fn send(
        &self,
        head: &[u8],
        body: &[u8],
        answer: &mut Buffer,
        deadline: Instant,
    ) -> io::Result<Sent> {
        let mut stream = self.stream()?;
        let mut parts = [IoSlice::new(head), IoSlice::new(body)];
        let mut parts = &mut parts[..];
        // Skips empty parts, so that an empty body does not cause a zero-length write.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match stream.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => IoSlice::advance_slices(&mut parts, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {
                    if self.answered_early(answer)? {
                        return Ok(Sent::Early);
                    }
                    if Instant::now() >= deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Sent::Whole)
    }

    /// Reads more of the answer; returns 0 if the service closed the connection.
    pub(super) fn read(&self, answer: &mut Buffer, most: usize) -> io::Result<usize> {
        answer.fill(self.stream()?, most)
    }

    /// Limits how long each further read may wait.
    pub(super) fn limit_pauses(&mut self, pause: Duration) -> io::Result<()> {
        self.limited = true;
        self.set_read_timeout(pause)
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream()?.set_read_timeout(Some(timeout))
    }

    fn answered_early(&self, answer: &mut Buffer) -> io::Result<bool> {
        let stream = self.stream()?;
        answer.reserve(SMALL_BYTES);
        stream.set_nonblocking(true)?;
        let read = answer.fill(stream, SMALL_BYTES);
        stream.set_nonblocking(false)?;
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if is_timeout(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            // Closed first, so that the replacement does not need an extra descriptor.
            drop(stream);
            self.lane.want_another();
        }
    }
}

/// A socket timeout is reported as either kind (socket(7), `SO_RCVTIMEO`).
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// Answers one request on each of `connections` connections, which stay open, then accepts
    /// no more.
    fn serve(socket: &Path, connections: usize) -> JoinHandle<Vec<UnixStream>> {
        let listener = UnixListener::bind(socket).expect("bound");
        thread::spawn(move || {
            let answer = |_| {
                let (mut stream, _) = listener.accept().expect("a connection");
                assert!(stream.read(&mut [0; 1024]).expect("a request") > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("sent");
                stream
            };
            (0..connections).map(answer).collect()
        })
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain");
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_lane_is_out_while_nothing_is_free_and_nothing_can_be_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("main");
        let service = serve(&socket, 2);
        let lane = Lane::open(socket.clone(), "/livez", 2, PROOF).expect("a lane");
        let held = service.join().expect("two connections were proven");

        let take = || lane.take(Duration::ZERO).expect("a free connection");
        drop(take());
        wait_until(|| lane.lock().outage.is_some());
        assert_eq!(lane.out_for(), None, "one is free");
        let last = take();
        wait_until(|| lane.out_for().is_some_and(|out| out > Duration::from_millis(20)));
        last.give_back();
        assert_eq!(lane.out_for(), None, "it is free again");
        drop(take());
        assert!(lane.out_for().is_some() && lane.take(Duration::ZERO).is_none());

        std::fs::remove_file(&socket).expect("removed");
        let service = serve(&socket, 2);
        wait_until(|| lane.lock().idle.len() == 2);
        assert_eq!(lane.out_for(), None, "it is well again");
        lane.close();
        drop((held, service.join().expect("two more")));
    }
}
