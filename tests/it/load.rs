//! A load generator: keep-alive clients that authorize at a given rate or as fast as they can.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

/// How often to check whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to send.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub address: SocketAddr,
    pub token: &'a str,
    pub action: &'a str,
    pub mutates_state: bool,
    pub clients: usize,
    /// Requests per second of all clients together; `None` for as fast as possible.
    pub rate: Option<f64>,
}

/// The results.
pub struct Measured {
    /// For each request: when it was due or sent, since the start, and its latency.
    pub requests: Vec<(Duration, Duration)>,
    pub failed: usize,
    pub elapsed: Duration,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.requests.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// A latency quantile, in milliseconds, of the answers between two moments.
    pub fn percentile(&self, share: f64, from: Duration, to: Duration) -> f64 {
        let within = self.requests.iter().filter(|(at, _)| (from..to).contains(at));
        let mut latencies: Vec<Duration> = within.map(|(_, latency)| *latency).collect();
        latencies.sort_unstable();
        let Some(last) = latencies.len().checked_sub(1) else { return 0.0 };
        let index = (last as f64 * share).round() as usize;
        latencies[index].as_secs_f64() * 1000.0
    }

    pub fn p(&self, share: f64) -> f64 {
        self.percentile(share, Duration::ZERO, Duration::MAX)
    }
}

impl Load<'_> {
    /// Sends until `stop` is set, from one thread: a thread per client would take processor
    /// time from the server under test. With a rate, latency counts from when a request was
    /// due, so that a stalled server is charged for the requests it delayed.
    pub fn run_until(&self, stop: &AtomicBool) -> Measured {
        let (begin, mut poll, mut events) =
            (Instant::now(), Poll::new().expect("a poll"), Events::with_capacity(self.clients));
        let request = self.request();
        let mut clients: Vec<Client> =
            (0..self.clients).map(|number| self.client(number, begin, &poll)).collect();
        let mut measured = Measured { requests: Vec::new(), failed: 0, elapsed: Duration::ZERO };
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let next = clients.iter_mut().filter_map(|client| client.send_if_due(now, &request)).min();
            let wait = next.map_or(LOOK_EVERY, |due| due.saturating_duration_since(now).min(LOOK_EVERY));
            poll.poll(&mut events, Some(wait)).expect("polled");
            for event in &events {
                let client = &mut clients[event.token().0];
                let Some(status) = client.receive() else { continue };
                measured.failed += usize::from(status != 200);
                measured.requests.push((client.since - begin, client.since.elapsed()));
                // Without a rate the next request is due at once; do not wait for the poll.
                if self.rate.is_none() {
                    client.send_if_due(Instant::now(), &request);
                }
            }
        }
        measured.elapsed = begin.elapsed();
        measured
    }

    pub fn run_for(&self, duration: Duration) -> Measured {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| self.run_until(&stop));
            let (_sender, receiver) = std::sync::mpsc::channel::<()>();
            assert!(receiver.recv_timeout(duration).is_err());
            stop.store(true, Ordering::Relaxed);
            running.join().expect("the load")
        })
    }

    fn client(&self, number: usize, begin: Instant, poll: &Poll) -> Client {
        let stream = std::net::TcpStream::connect(self.address).expect("connected");
        stream.set_nodelay(true).expect("configured");
        stream.set_nonblocking(true).expect("configured");
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE).expect("registered");
        let interval = self.rate.map(|rate| Duration::from_secs_f64(self.clients as f64 / rate));
        let due = interval.map(|interval| begin + interval.mul_f64(number as f64 / self.clients as f64));
        Client { stream, waiting: false, since: begin, due, interval, answer: Vec::new() }
    }

    fn request(&self) -> Vec<u8> {
        let body = json!({
            "agent": {"id": "load", "environment": "production"},
            "tool_call": {"tool": "t", "action": self.action, "resource": "payments#1",
                          "mutates_state": self.mutates_state, "parameters": {"base_branch": "dev", "n": 42}},
            "context": {"source_trust": "trusted_internal_signed", "contains_sensitive_data": false},
            "trace": {"run_id": "r", "trace_id": "t"},
        })
        .to_string();
        let (address, token) = (self.address, self.token);
        format!(
            "POST /v1/authorize HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// One keep-alive connection with at most one request in flight.
struct Client {
    stream: TcpStream,
    waiting: bool,
    /// When its request was sent, or was due.
    since: Instant,
    /// When the next request is due, if there is a rate.
    due: Option<Instant>,
    interval: Option<Duration>,
    answer: Vec<u8>,
}

impl Client {
    /// Sends the next request if it is due; otherwise returns when it will be.
    fn send_if_due(&mut self, now: Instant, request: &[u8]) -> Option<Instant> {
        if self.waiting {
            return None;
        }
        if let Some(due) = self.due.filter(|due| *due > now) {
            return Some(due);
        }
        self.since = self.due.unwrap_or(now);
        self.due = self.due.zip(self.interval).map(|(due, interval)| due + interval);
        self.stream.write_all(request).expect("sent at once: it is small");
        self.waiting = true;
        None
    }

    /// Reads what is available; returns the status once the answer is complete.
    fn receive(&mut self) -> Option<u16> {
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => panic!("the connection was closed"),
                Ok(count) => self.answer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        let end = self.answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.answer[..end]);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        if self.answer.len() < end + 4 + length {
            return None;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        self.answer.clear();
        self.waiting = false;
        Some(status)
    }
}
