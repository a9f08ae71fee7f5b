//! The sample service as a process of its own, for tests that need one with few
//! descriptors, or one to look at from outside.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use aegis_gateway::http::gate::{Gate, Limits};
use tempfile::TempDir;

use super::service::{Service, gate_config, sockets};

/// The service in another process, which ends when its input closes.
pub(super) struct Demo {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
}

impl Demo {
    /// With so many descriptors; `fits` says whether the gate may know.
    pub(super) fn start(descriptors: usize, fits: bool) -> Self {
        let script =
            format!("ulimit -n {descriptors}; exec \"$0\" --ignored --exact gate::demo::serves --nocapture");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().expect("this binary"))
            .env("DEMO_FITS", fits.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let address = said(&mut output, "listens on ").parse().expect("an address");
        let input = child.stdin.take();
        Self { child, input, output, address }
    }

    pub(super) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(super) fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("alive").count()
    }

    pub(super) fn has_descriptor(&self, number: usize) -> bool {
        std::fs::symlink_metadata(format!("/proc/{}/fd/{number}", self.child.id())).is_ok()
    }

    /// Lets it open nothing with a number from `limit` on; false where there is no prlimit(1).
    pub(super) fn limit_descriptors(&self, limit: usize) -> bool {
        let of = format!("--pid={}", self.child.id());
        let limited = Command::new("prlimit").args([of, format!("--nofile={limit}:")]).status();
        limited.is_ok_and(|status| status.success())
    }

    /// How often its threads of that name have waited so far.
    pub(super) fn naps_of(&self, thread: &str) -> usize {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("alive").map(|task| task.expect("a thread").path());
        let named = tasks.filter(|task| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread)
        });
        let naps = |task: PathBuf| {
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.and_then(|count| count.trim().parse::<usize>().ok()).unwrap_or(0)
        };
        named.map(naps).sum()
    }

    /// How many of its connections have a request in progress.
    pub(super) fn busy(&mut self) -> u64 {
        writeln!(self.input.as_mut().expect("running"), "busy?").expect("asked");
        said(&mut self.output, "busy ").parse().expect("a number")
    }

    /// Asks it to end; what it said, and whether it ended well.
    pub(super) fn end(mut self) -> (String, bool) {
        drop(self.input.take());
        (said(&mut self.output, "finished "), self.child.wait().expect("an end").success())
    }
}

/// The rest of the first line that has these words; the test harness says other things.
fn said(output: &mut impl BufRead, words: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).expect("a line") > 0, "it ended without {words:?}");
        if let Some((_, rest)) = line.split_once(words) {
            return rest.trim().to_owned();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

#[test]
#[ignore = "the process that other tests start"]
fn serves() {
    let folder = TempDir::new().expect("a folder");
    let (main, probe) = sockets(folder.path());
    let lanes = [
        Service::on_socket(&main, 4).expect("the main lane"),
        Service::on_socket(&probe, 2).expect("the probes' lane"),
    ];
    let mut limits = Limits { workers: 4, files_per_worker: 0, ..Limits::default() };
    if std::env::var("DEMO_FITS").as_deref() == Ok("false") {
        limits.fit_to_descriptors = false;
        limits.upstreams = 4;
        limits.slow_streams_max = 4;
        limits.probe_upstreams = 2;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let gate = Gate::start(listener, gate_config(folder.path(), limits)).expect("the gate");
    say(&format!("listens on {}", gate.local_addr()));
    for question in std::io::stdin().lines() {
        assert_eq!(question.expect("a line"), "busy?");
        say(&format!("busy {}", gate.counts().busy));
    }
    let report = gate.shutdown(Instant::now() + Duration::from_secs(8));
    say(&format!("finished {} cut {}", report.finished, report.cut));
    lanes.into_iter().for_each(Service::stop);
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("said");
}
