//! A gate with its service, and a client that says exactly the bytes it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::service::{Service, gate_config, sockets};
use aegis_gateway::http::gate::{Counts, Gate, Limits, ShutdownReport};
use tempfile::TempDir;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Limits short enough to be met within a test.
pub(crate) fn short() -> Limits {
    Limits {
        idle: Duration::from_millis(400),
        head: Duration::from_millis(300),
        body: Duration::from_millis(400),
        upstream_wait: Duration::from_millis(200),
        answer: Duration::from_secs(3),
        stall: Duration::from_millis(400),
        linger: Duration::from_millis(200),
        upstreams: 8,
        ..Limits::default()
    }
}

/// A gate in front of a service of `workers`; ends with its scope.
pub(crate) struct Rig {
    pub(crate) gate: Option<Gate>,
    lanes: Vec<Service>,
    _folder: TempDir,
}

impl Rig {
    pub(crate) fn new(limits: Limits, workers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (main, probe) = sockets(folder.path());
        let lanes = vec![
            Service::on_socket(&main, workers).expect("main lane"),
            Service::on_socket(&probe, 2).expect("probe lane"),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let gate = Gate::start(listener, gate_config(folder.path(), limits)).expect("gate");
        Self { gate: Some(gate), lanes, _folder: folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gate.as_ref().expect("running").local_addr()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.gate.as_ref().expect("running").counts()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// One request on a connection of its own, written whole; what came back until its end.
    pub(crate) fn say(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        // The gate may refuse, or evict, before all of it is sent.
        client.try_send(bytes);
        client.finish()
    }

    pub(crate) fn is_alive(&self) -> bool {
        let mut client = self.connect();
        client.get("/livez").status == 200
    }

    pub(crate) fn shutdown(&mut self, within: Duration) -> ShutdownReport {
        self.gate.take().expect("running").shutdown(Instant::now() + within)
    }

    /// Waits for a condition on the counters.
    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn(Counts) -> bool) {
        wait_until(what, || condition(self.counts()));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.gate.take());
        for lane in self.lanes.drain(..) {
            lane.stop();
        }
    }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

/// A client's end of one connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, pending: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    /// Sends where the gate may already have closed.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(get(target).as_bytes());
        self.answer()
    }

    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> Answer {
        let head = format!("POST {target} HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    pub(crate) fn answer_to(&mut self, head_only: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.pending.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "closed before an answer: {:?}", self.pending_text());
        };
        let head = String::from_utf8(self.pending.drain(..end).collect()).expect("a text");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let bodiless = head_only || matches!(status, 100..=199 | 204 | 304);
        let length = answer.header("Content-Length").map_or(0, |v| v.parse::<usize>().expect("a length"));
        if !bodiless {
            while self.pending.len() < length {
                assert!(self.more(), "closed within an answer's body");
            }
            answer.body = self.pending.drain(..length).collect();
        }
        answer
    }

    /// Waits for the first byte of an answer; whether one came.
    pub(crate) fn begins(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok_and(|count| count == 1)
    }

    /// Waits for a byte of an answer, but not for long.
    pub(crate) fn wait_a_little(&mut self) {
        self.stream.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
        let mut byte = [0];
        drop(self.stream.peek(&mut byte));
    }

    /// Everything until the end of the stream.
    pub(crate) fn finish(&mut self) -> String {
        while self.more() {}
        self.pending_text()
    }

    /// Whether the gate ends the connection within the patience of a test.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn end_input(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    fn pending_text(&self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 8192];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.pending.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// How many answers begin in these bytes.
pub(crate) fn answers_in(text: &str) -> usize {
    let begins = |(at, _)| text[at + 9..].starts_with(|c: char| c.is_ascii_digit());
    text.match_indices("HTTP/1.1 ").map(begins).filter(|&begins| begins).count()
}

pub(crate) fn status_of(text: &str) -> u16 {
    text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// A number from `/proc/<pid>/status`, such as `VmRSS` in KiB or `Threads`.
pub(crate) fn process_number(pid: &str, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("that line");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}
