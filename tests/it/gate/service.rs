//! A service to try the gate with: handlers over `tiny_http`, a fixed pool of workers.
//!
//! Not part of the gate. It shows what the server's side owes it: a socket per lane in a
//! private folder, every answer with its length, every handler's panic caught.

use std::io::{self, Cursor};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tiny_http::{Header, Request, Response, Server};

use aegis_gateway::http::error::failure_body;
use aegis_gateway::http::gate::{GateConfig, Limits};

type Answer = Response<Cursor<Vec<u8>>>;

/// A server and its workers.
pub struct Service {
    server: Arc<Server>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Service {
    /// Serves on a Unix socket.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn on_socket(path: &Path, workers: usize) -> io::Result<Self> {
        Self::start(tiny_http::Listener::Unix(UnixListener::bind(path)?), workers)
    }

    fn start(listener: tiny_http::Listener, workers: usize) -> io::Result<Self> {
        let server = Arc::new(Server::from_listener(listener, None).map_err(io::Error::other)?);
        let workers = (0..workers)
            .map(|_| {
                let server = Arc::clone(&server);
                std::thread::spawn(move || work(&server))
            })
            .collect();
        Ok(Self { server, workers })
    }

    /// Stops the workers; `unblock` wakes one each.
    pub fn stop(self) {
        for _ in &self.workers {
            self.server.unblock();
        }
        for worker in self.workers {
            if worker.join().is_err() {
                log::error!("a worker had panicked");
            }
        }
    }
}

/// A gate's configuration for two sockets in `folder`, as this crate's tests use it.
pub fn gate_config(folder: &Path, limits: Limits) -> GateConfig {
    let (socket, probe_socket) = sockets(folder);
    GateConfig {
        socket,
        probe_socket,
        is_probe: |_, path| path == "/livez",
        is_download: |_, path| path == "/download",
        proof_target: "/livez".to_owned(),
        render_error: failure_body,
        limits,
    }
}

/// The two lanes' sockets in `folder`.
pub fn sockets(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("main.sock"), folder.join("probe.sock"))
}

fn work(server: &Server) {
    while let Ok(mut request) = server.recv() {
        let answer = catch_unwind(AssertUnwindSafe(|| handle(&mut request)))
            .unwrap_or_else(|_| text(failure_body(500, "internal error"), 500));
        if let Err(error) = request.respond(answer.with_chunked_threshold(usize::MAX)) {
            log::debug!("an answer was not taken: {error}");
        }
    }
}

fn handle(request: &mut Request) -> Answer {
    let url = request.url().to_owned();
    let (path, query) = url.split_once('?').unwrap_or((&url, ""));
    match path {
        "/livez" => text(b"ok".to_vec(), 200),
        "/slow" => {
            wait(Duration::from_millis(number(query)));
            text(b"slow".to_vec(), 200)
        }
        "/panic" => panic!("asked to"),
        "/large" => text(vec![b'x'; usize::try_from(number(query)).unwrap_or(0)], 200),
        "/empty" => text(Vec::new(), 204),
        "/head" => text(described(request).into_bytes(), 200),
        "/echo" => {
            let mut body = Vec::new();
            match request.as_reader().read_to_end(&mut body) {
                Ok(_) => text(body, 200),
                Err(_) => text(Vec::new(), 400),
            }
        }
        _ => text(failure_body(404, "no such path"), 404),
    }
}

/// The request as the service sees it.
fn described(request: &Request) -> String {
    let mut out = format!("{} {}\n", request.method(), request.url());
    for header in request.headers() {
        out.push_str(&format!("{}: {}\n", header.field, header.value));
    }
    out
}

fn text(body: Vec<u8>, status: u16) -> Answer {
    let header = Header::from_bytes(&b"Content-Type"[..], &b"text/plain"[..]);
    let answer = Response::from_data(body).with_status_code(status);
    match header {
        Ok(header) => answer.with_header(header),
        Err(()) => answer,
    }
}

fn number(query: &str) -> u64 {
    query.split_once('=').and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// Work that takes this long.
fn wait(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}
