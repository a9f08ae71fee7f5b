//! Standard error that never blocks.
//!
//! A pipe that nobody reads, or a stopped terminal, holds up whoever writes to it; with the
//! log, that would be every decision and the shutdown as well. So a line that is not taken
//! within 100 ms is dropped, and so is every later one until there is room again; then the
//! log says how many are missing.

use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long one line may wait for its reader; the lines after it do not wait.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What a pipe takes at once when it says that it takes anything (`PIPE_BUF`, pipe(7)).
const CHUNK_BYTES: usize = 4096;

/// The log's end of standard error. One line a call.
#[derive(Debug, Default)]
pub struct Log {
    /// Lines that were not taken since the last one that was.
    left_out: u64,
    /// The last one was taken in part.
    is_amid_line: bool,
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let wait = if self.left_out == 0 { WAIT_MAX } else { Duration::ZERO };
        let mut text = Vec::new();
        if self.is_amid_line {
            text.push(b'\n');
        }
        if self.left_out > 0 {
            writeln!(text, "{} lines of the log are missing: nobody read them", self.left_out)?;
        }
        text.extend_from_slice(line);
        let taken = write(&text, wait);
        if taken == text.len() {
            (self.left_out, self.is_amid_line) = (0, false);
        } else {
            self.left_out += 1;
            self.is_amid_line |= taken > 0;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a last line, if it is taken in time: the exit status must hold in any case.
pub fn say(line: &str) -> bool {
    let text = format!("{line}\n");
    write(text.as_bytes(), 10 * WAIT_MAX) == text.len()
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
