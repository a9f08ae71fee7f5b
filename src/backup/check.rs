//! Checks a finished copy, opened on its own and immutable.
//!
//! The checks run in parallel, on threads that pause while there is traffic: they take as
//! long as the copy, and no request may wait for them.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::domain::canon::Hash;
use crate::evidence::{FirstBreak, Summary, database, parallel};
use crate::store::error::Error as StoreError;
use crate::store::{Background, Turn, connection, migrate};

use super::{Error, cannot};

/// Threads besides those that verify the chain: one for the pages, one for the digest.
const OTHER_CHECKS: usize = 2;

/// Duration of each step of a backup. The last three are the cost of verifying the copy;
/// they run in parallel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// `VACUUM INTO`, including syncs.
    pub copy: Duration,
    /// Checking every page and index.
    pub pages: Duration,
    /// Verifying the chain and every decision.
    pub chain: Duration,
    /// SHA-256 of the file.
    pub digest: Duration,
}

/// The results for a copy that passed.
pub(super) struct Checked {
    pub(super) chain: Summary,
    pub(super) schema_version: u32,
    pub(super) size_bytes: u64,
    pub(super) sha256: Hash,
    pub(super) steps: Steps,
}

/// Syncs the copy, then checks its schema, every page and the whole chain.
pub(super) fn check(path: &Path, background: &Background) -> Result<Checked, Error> {
    let background = &background.shared_by(OTHER_CHECKS + parallel::threads());
    sync(path)?;
    let schema_version =
        migrate::check(&open(path, background)?).map_err(|refusal| Error::Unsound(refusal.to_string()))?;
    thread::scope(|scope| {
        let pages = aside(scope, || check_pages(&open(path, background)?))?;
        let digest = aside(scope, || measure(path, background))?;
        let chain = aside(scope, || check_chain(path, background))?;
        let ((), pages) = ended(pages)?;
        let ((size_bytes, sha256), digest) = ended(digest)?;
        let (chain, chain_time) = ended(chain)?;
        let steps = Steps { copy: Duration::ZERO, pages, chain: chain_time, digest };
        Ok(Checked { chain, schema_version, size_bytes, sha256, steps })
    })
}

/// A running check, which returns its result and how long it took.
type Task<'scope, T> = ScopedJoinHandle<'scope, Result<(T, Duration), Error>>;

/// Runs `task` on its own thread and times it.
fn aside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    task: impl FnOnce() -> Result<T, Error> + Send + 'scope,
) -> Result<Task<'scope, T>, Error> {
    let run = move || {
        let started = Instant::now();
        task().map(|done| (done, started.elapsed()))
    };
    thread::Builder::new()
        .name("backup-check".to_owned())
        .spawn_scoped(scope, run)
        .map_err(cannot("start a thread for the checks"))
}

fn ended<T>(task: Task<'_, T>) -> Result<(T, Duration), Error> {
    task.join().unwrap_or(Err(Error::Store(StoreError::Panicked)))
}

fn open(path: &Path, background: &Background) -> Result<Connection, Error> {
    let mut copy = connection::immutable(path).map_err(StoreError::cannot("open the copy"))?;
    background.paces(&mut copy)?;
    Ok(copy)
}

fn check_pages(copy: &Connection) -> Result<(), Error> {
    match database::check_integrity(copy)?.into_iter().next() {
        Some(problem) => Err(Error::Unsound(problem)),
        None => Ok(()),
    }
}

fn check_chain(path: &Path, background: &Background) -> Result<Summary, Error> {
    let first = open(path, background)?;
    let others = (1..parallel::threads()).map(|_| open(path, background)).collect::<Result<_, _>>()?;
    let mut broken = FirstBreak::default();
    let chain = parallel::verify(&first, others, &mut broken)?;
    match broken.0 {
        Some(broken) => Err(Error::Unsound(broken.to_string())),
        None => Ok(chain),
    }
}

fn sync(path: &Path) -> Result<(), Error> {
    let copy = fs::File::open(path).map_err(cannot("open the copy"))?;
    copy.sync_all().map_err(cannot("sync the copy"))
}

/// The size and digest of the file.
fn measure(path: &Path, background: &Background) -> Result<(u64, Hash), Error> {
    let file = fs::File::open(path).map_err(cannot("open the copy"))?;
    match Hash::of_reader(Paced { file, turn: background.turn() }) {
        Ok((sha256, bytes)) => Ok((bytes, sha256)),
        Err(_) if background.stopping().is_set() => Err(Error::Stopping),
        Err(error) => Err(cannot("read the copy")(error)),
    }
}

/// A file that is read at the pace of background work.
struct Paced {
    file: fs::File,
    turn: Turn,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.turn.is_over() {
            return Err(io::Error::other("the gateway is stopping"));
        }
        self.file.read(buffer)
    }
}
