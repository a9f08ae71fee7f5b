//! Standard error that never holds anybody up.
//!
//! A pipe that nobody reads, or a terminal that was stopped, blocks whoever writes to it,
//! and with the log that would be every decision and the stop as well. So lines wait in
//! memory, and one thread writes them. Lines that find no room are left out, and the log
//! says how many are missing as soon as somebody reads again.

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sync::unpoisoned;

/// How much may wait for a reader.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// How long the end of the program waits for whoever reads.
const LAST_WAIT_MAX: Duration = Duration::from_secs(1);
/// What a pipe takes at once when it says that it takes anything (`PIPE_BUF`, pipe(7)).
const CHUNK_BYTES: usize = 4096;

/// The one log of the program.
static LOG: Queue = Queue::new();

/// Lines on their way to standard error.
struct Queue {
    lines: Mutex<Lines>,
    arrived: Condvar,
    written: Condvar,
}

struct Lines {
    /// Whole lines, one after the other.
    waiting: Vec<u8>,
    /// Lines that found no room since this was last said.
    left_out: u64,
    /// The thread is writing what it took.
    is_writing: bool,
}

impl Queue {
    const fn new() -> Self {
        let lines = Lines { waiting: Vec::new(), left_out: 0, is_writing: false };
        Queue { lines: Mutex::new(lines), arrived: Condvar::new(), written: Condvar::new() }
    }

    fn add(&self, line: &[u8]) {
        let mut lines = unpoisoned(&self.lines);
        if lines.waiting.len() + line.len() > WAITING_BYTES_MAX {
            lines.left_out += 1;
            return;
        }
        lines.waiting.extend_from_slice(line);
        drop(lines);
        self.arrived.notify_one();
    }

    /// All that waits, once anything does.
    fn take(&self) -> Vec<u8> {
        let lines = unpoisoned(&self.lines);
        let lines = self.arrived.wait_while(lines, |lines| lines.waiting.is_empty() && lines.left_out == 0);
        let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
        lines.is_writing = true;
        let mut text = mem::take(&mut lines.waiting);
        let missing = mem::take(&mut lines.left_out);
        if missing > 0 {
            let note = format!("{missing} lines of the log are missing: nobody read them\n");
            text.extend_from_slice(note.as_bytes());
        }
        text
    }

    fn took(&self) {
        unpoisoned(&self.lines).is_writing = false;
        self.written.notify_all();
    }

    fn wait_until_written(&self) {
        let lines = unpoisoned(&self.lines);
        let unwritten = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.written.wait_timeout_while(lines, LAST_WAIT_MAX, unwritten));
    }
}

/// The log's end of standard error. One line a call.
#[derive(Debug)]
pub struct Log(());

impl Log {
    /// Starts the thread that writes.
    pub fn start() -> io::Result<Self> {
        thread::Builder::new().name("log".to_owned()).spawn(|| {
            loop {
                let text = LOG.take();
                // Where standard error fails there is nobody to tell.
                drop(io::stderr().write_all(&text));
                LOG.took();
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

/// Waits until the log is written, but not for a reader that does not read.
pub fn finish() {
    LOG.wait_until_written();
}

/// Writes a last line, if it is taken in time: the exit status must hold in any case.
pub fn say(line: &str) -> bool {
    finish();
    let text = format!("{line}\n");
    write(text.as_bytes(), LAST_WAIT_MAX) == text.len()
}

/// Writes what is taken, each part of it within `wait`; returns how much that was.
fn write(text: &[u8], wait: Duration) -> usize {
    let mut written = 0;
    while written < text.len() {
        let chunk = &text[written..text.len().min(written + CHUNK_BYTES)];
        match takes(wait).and_then(|takes| if takes { io::stderr().write(chunk) } else { Ok(0) }) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

/// Whether standard error takes something within `wait`, or fails at once.
fn takes(wait: Duration) -> io::Result<bool> {
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
    Ok(poll(&mut ready, Some(&wait))? > 0)
}
