//! Standard error that never blocks the caller.
//!
//! Writing to a pipe that nobody reads, or to a stopped terminal, blocks; logging directly
//! would stall every decision and even the shutdown. Instead, lines are queued in memory and
//! one thread writes them. Lines that do not fit are dropped, and once the reader catches up
//! the log says how many are missing.

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sync::unpoisoned;

/// Maximum size of the queue.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// How long the program waits for the reader before it exits.
const LAST_WAIT_MAX: Duration = Duration::from_secs(1);
/// What a pipe that is ready for writing accepts without blocking (`PIPE_BUF`, pipe(7)).
const CHUNK_BYTES: usize = 4096;

/// The one log of the program.
static LOG: Queue = Queue::new();

/// Lines waiting to be written to standard error.
struct Queue {
    lines: Mutex<Lines>,
    arrived: Condvar,
    written: Condvar,
}

struct Lines {
    /// Whole lines, concatenated.
    waiting: Vec<u8>,
    /// Number of lines dropped since this was last reported.
    dropped: u64,
    /// Whether the thread is writing.
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        let lines = Lines { waiting: Vec::new(), dropped: 0, is_writing: false };
        Queue { lines: Mutex::new(lines), arrived: Condvar::new(), written: Condvar::new() }
    }

    fn add(&self, line: &[u8]) {
        let mut lines = unpoisoned(&self.lines);
        if lines.waiting.len() + line.len() > WAITING_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        lines.waiting.extend_from_slice(line);
        drop(lines);
        self.arrived.notify_one();
    }

    /// Waits until the queue is not empty, and takes everything.
    fn take(&self) -> Vec<u8> {
        let lines = unpoisoned(&self.lines);
        let lines = self.arrived.wait_while(lines, |lines| lines.waiting.is_empty() && lines.dropped == 0);
        let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.is_writing = true;
        let mut text = mem::take(&mut lines.waiting);
        let missing = mem::take(&mut lines.dropped);
        if missing > 0 {
            let note = format!("{missing} lines of the log are missing: nobody read them\n");
            text.extend_from_slice(note.as_bytes());
        }
        text
    }

    fn mark_written(&self) {
        unpoisoned(&self.lines).is_writing = false;
        self.written.notify_all();
    }

    fn wait_until_written(&self) {
        let lines = unpoisoned(&self.lines);
        let unwritten = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.written.wait_timeout_while(lines, LAST_WAIT_MAX, unwritten));
    }
}

/// The log's handle to standard error. Each call writes one line.
#[derive(Debug)]
pub struct Log(());

impl Log {
    /// Starts the writing thread.
    pub fn start() -> io::Result<Self> {
        thread::Builder::new().name("log".to_owned()).spawn(|| {
            loop {
                let text = LOG.take();
                // If standard error fails, there is nowhere to report it.
                drop(io::stderr().write_all(&text));
                LOG.mark_written();
            }
        })?;
        Ok(Log(()))
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the log is written, for a limited time in case nobody reads it.
pub fn finish() {
    LOG.wait_until_written();
}

/// Writes a last line; returns whether it was written in time. Never blocks for long, so that
/// the program exits with the right status in any case.
pub fn say(line: &str) -> bool {
    finish();
    let text = format!("{line}\n");
    write(text.as_bytes(), LAST_WAIT_MAX) == text.len()
}

/// Writes as much as is accepted, waiting up to `wait` for each chunk; returns how much.
fn write(text: &[u8], wait: Duration) -> usize {
    let mut written = 0;
    while written < text.len() {
        let chunk = &text[written..text.len().min(written + CHUNK_BYTES)];
        match is_writable(wait).and_then(|writable| if writable { io::stderr().write(chunk) } else { Ok(0) })
        {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

/// Whether standard error becomes writable (or fails) within `wait`.
fn is_writable(wait: Duration) -> io::Result<bool> {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    Ok(poll(&mut ready, Some(&wait))? > 0)
}
