//! The store's observations of its own health.
//!
//! Readiness relies on them: when the writer last wrote, what failed since, and whether the
//! files are still the ones that were opened. Long work paces itself by the time of the last
//! answer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::error::Error;
use crate::sync::unpoisoned;

/// The observations.
#[derive(Debug)]
pub(crate) struct Watch {
    database: OpenFile,
    log: OpenFile,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    wrote: Instant,
    read: Instant,
    write_failure: Option<String>,
}

/// A file that SQLite has open, and the path it was opened at.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Minimum size: a database never shrinks, a log may.
    bytes_min: u64,
}

impl OpenFile {
    fn at(path: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(OpenFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino(), bytes_min: 0 })
    }

    fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|now| {
            (now.dev(), now.ino()) == (self.device, self.inode) && now.len() >= self.bytes_min
        })
    }
}

impl Watch {
    /// Must be created after the writer and the reader have been opened and used.
    pub(crate) fn new(database: &Path, log: &Path) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Watch {
            database: OpenFile { bytes_min: fs::metadata(database)?.len(), ..OpenFile::at(database)? },
            log: OpenFile::at(log)?,
            seen: Mutex::new(Seen { wrote: now, read: now, write_failure: None }),
        })
    }

    /// Fails if the database or its log is no longer where it was opened, or the database was
    /// truncated: writes would be lost, or end up in a file that was moved away.
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        if self.database.is_in_place() && self.log.is_in_place() { Ok(()) } else { Err(Error::Replaced) }
    }

    pub(crate) fn wrote(&self) {
        let mut seen = unpoisoned(&self.seen);
        seen.wrote = Instant::now();
        seen.write_failure = None;
    }

    pub(crate) fn write_failed(&self, error: &Error) {
        unpoisoned(&self.seen).write_failure = Some(error.to_string());
    }

    pub(crate) fn read(&self) {
        unpoisoned(&self.seen).read = Instant::now();
    }

    /// How long ago the writer last committed, and the write failure since then, if any.
    pub(crate) fn last_write(&self) -> (Duration, Option<String>) {
        let seen = unpoisoned(&self.seen);
        (seen.wrote.elapsed(), seen.write_failure.clone())
    }

    /// How long ago the database last served a read or a write.
    pub(crate) fn last_use(&self) -> Duration {
        let seen = unpoisoned(&self.seen);
        seen.wrote.max(seen.read).elapsed()
    }
}
