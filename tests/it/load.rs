//! A load generator: keep-alive clients that authorize, at a rate or as fast as they can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

/// What to send.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    pub address: SocketAddr,
    pub token: &'a str,
    pub action: &'a str,
    pub mutates_state: bool,
    pub clients: usize,
    /// Requests a second of all clients together; `None`: as fast as they can.
    pub rate: Option<f64>,
}

/// What came back.
pub struct Measured {
    /// When each request was due or sent, since the start, and how long its answer took.
    pub requests: Vec<(Duration, Duration)>,
    pub failed: usize,
    pub elapsed: Duration,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.requests.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds below which a share of the answers between two moments stayed.
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
    /// Sends until `stop` is set. With a rate, latency counts from when a request was
    /// due, so that a stalled server is not spared the requests it held up.
    pub fn run_until(&self, stop: &AtomicBool) -> Measured {
        let (begin, all, failed) = (Instant::now(), Mutex::new(Vec::new()), Mutex::new(0));
        thread::scope(|scope| {
            for client in 0..self.clients {
                let (all, failed) = (&all, &failed);
                scope.spawn(move || {
                    let (own, own_failed) = self.client(client, begin, stop);
                    all.lock().expect("lock").extend(own);
                    *failed.lock().expect("lock") += own_failed;
                });
            }
        });
        Measured {
            requests: all.into_inner().expect("lock"),
            failed: failed.into_inner().expect("lock"),
            elapsed: begin.elapsed(),
        }
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

    fn client(&self, number: usize, begin: Instant, stop: &AtomicBool) -> (Vec<(Duration, Duration)>, usize) {
        let request = self.request();
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_nodelay(true).expect("configured");
        let interval = self.rate.map(|rate| Duration::from_secs_f64(self.clients as f64 / rate));
        let mut due = interval.map(|interval| begin + interval.mul_f64(number as f64 / self.clients as f64));
        let (mut done, mut failed, mut buffer) = (Vec::new(), 0, vec![0; 16 * 1024]);
        while !stop.load(Ordering::Relaxed) {
            let sent = match due {
                Some(due) => {
                    if let Some(wait) = due.checked_duration_since(Instant::now()) {
                        thread::sleep(wait);
                    }
                    due
                }
                None => Instant::now(),
            };
            due = due.zip(interval).map(|(due, interval)| due + interval);
            stream.write_all(&request).expect("sent");
            if !is_ok(&mut stream, &mut buffer) {
                failed += 1;
            }
            done.push((sent - begin, sent.elapsed()));
        }
        (done, failed)
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

/// Reads one answer; whether it was a 200.
fn is_ok(stream: &mut TcpStream, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).expect("an answer");
        assert!(read > 0, "the connection was closed");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        if filled == end + 4 + length {
            return head.starts_with("HTTP/1.1 200 ");
        }
    }
}
