//! Checks that run before SQLite opens the database.
//!
//! SQLite replays any write-ahead log it finds beside a database, whether or not it belongs:
//! after a SIGKILL and a restore by `mv` and `cp`, it would replay the old log onto the
//! restored file. It also deletes a log whose database is missing. So, under the gateway's
//! lock and before SQLite sees the file, [`judge`] decides from the raw bytes whether the log
//! belongs to it:
//!
//! 1. A rollback journal is accepted only if our own switch to the write-ahead log left it
//!    (module `journal`).
//! 2. A log with commits whose database is missing or empty is rejected.
//! 3. A log without a valid commit beside a file in rollback mode is set aside.
//! 4. A log with commits beside a file in rollback mode (a backup, for example) is set aside,
//!    unless the log also says rollback mode: it may then belong to the file, and is rejected.
//! 5. A log with a different page size is set aside. If the database's change counter is
//!    outside the log's range, or its schema is newer than the log's, the log is rejected.
//! 6. A file in log mode that is not the one the gateway last ran on is rejected, and the
//!    message names both ways out.
//!
//! Everything else is opened, and a log that belongs is replayed. Rules 2 to 6 apply only to
//! a non-empty log. [`judge`] changes nothing; its decision is carried out only after the
//! content has passed its checks too.
//!
//! # Locking
//! The gateway holds an exclusive `flock` on `DATABASE.lock` for its lifetime; readers of a
//! stopped database hold a shared one. Only the holder removes the lock file, and a lock
//! counts only while its file still has that name. The lock is tied to a path, so the gateway
//! rejects a database with a second path (module `links`); readers may use any path.

pub(crate) mod header;
mod identity;
mod journal;
mod layout;
mod links;
mod lock;
mod rules;
pub(crate) mod wal;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::time::Timestamp;
use crate::store::error::Refusal;
use crate::store::files;

use identity::{Identity, Record, Stamp};
pub use layout::Layout;
pub(crate) use lock::{Lock, LockState};
pub use rules::judge;

/// What to do with one write-ahead log that may not belong to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalChoice {
    /// Replay it, or set it aside.
    pub replay: bool,
    /// The salts of the log this choice is about, so that it applies to no other log.
    pub log_id: u64,
}

/// What to do with the log that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPlan {
    /// There is no log, or one without commits, which SQLite ignores.
    Nothing,
    /// It belongs to the file.
    Replay,
    /// It belongs to another file.
    SetAside,
}

/// What was found at the database's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing. A new database may be created, unless an earlier one has been lost.
    Missing {
        /// A gateway has run on a file of this name before.
        ran_before: bool,
    },
    /// A database.
    Database {
        /// In rollback mode: a copy that no gateway has run on yet.
        restored: bool,
        /// The hash of the head that a restored copy came with, if a gateway has started on it
        /// and may have been killed before the chain recorded the restore.
        restored_head: Option<String>,
        /// Exactly as the gateway left it, by a clean stop or a crash; not replaced or
        /// written to by anything else since.
        as_left: bool,
    },
}

/// The judgement on the files as they are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What was found.
    pub found: Found,
    /// What to do with the log.
    pub log: LogPlan,
}

/// The holder of the gateway's lock on one database.
#[derive(Debug)]
pub struct Guard {
    layout: Layout,
    lock: Lock,
}

impl Guard {
    /// Takes the lock, or returns an error that names the lock file if a gateway holds it.
    pub fn lock(path: &Path) -> Result<Self, Refusal> {
        let folder = files::folder_of(path);
        files::create_private_folder(folder).map_err(Refusal::io("create the folder", folder))?;
        let layout = Layout::of(path)?;
        let lock = Lock::exclusive(&layout.lock)?;
        Ok(Guard { layout, lock })
    }

    /// The paths that belong to the database.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Applies the six rules, and rejects a database with a second name. Changes nothing.
    pub fn judge(&self, choice: Option<WalChoice>) -> Result<Judgement, Refusal> {
        let judgement = judge(&self.layout, choice)?;
        links::check(&self.layout, judgement.log)?;
        Ok(judgement)
    }

    /// Fails if a file that SQLite must write to is not writable. SQLite would fall back to
    /// reading, and fail only after creating files beside it.
    pub fn check_writable(&self) -> Result<(), Refusal> {
        for path in [&self.layout.database, &self.layout.wal, &self.layout.shm] {
            match File::options().write(true).open(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Refusal::io("write to", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the log aside if the judgement says so, and returns its new path.
    pub fn clear_the_way(&self, judgement: &Judgement, now: Timestamp) -> Result<Option<PathBuf>, Refusal> {
        if judgement.log != LogPlan::SetAside {
            return Ok(None);
        }
        let mut aside = files::with_suffix(&self.layout.wal, &format!(".stale-{}", now.compact()));
        let mut count = 1;
        while files::is_taken(&aside).map_err(Refusal::io("look at", &aside))? {
            count += 1;
            aside = files::with_suffix(&self.layout.wal, &format!(".stale-{}-{count}", now.compact()));
        }
        fs::rename(&self.layout.wal, &aside).map_err(Refusal::io("set aside", &self.layout.wal))?;
        files::remove_if_there(&self.layout.shm).map_err(Refusal::io("remove", &self.layout.shm))?;
        self.sync_folder()?;
        Ok(Some(aside))
    }

    /// Records which file SQLite is about to open, and makes it private. For a restored copy,
    /// it also records the hash of its head: the steps that follow are not atomic, and a kill
    /// must not lose the fact that it was restored.
    pub fn admit(&mut self, restored_head: Option<String>) -> Result<(), Refusal> {
        self.lock.adopt_file();
        let path = &self.layout.database;
        let metadata = fs::metadata(path).map_err(Refusal::io("look at", path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(Refusal::io("make private", path))?;
            log::info!("{} was readable by others; its mode is now 0600", path.display());
        }
        self.record(&metadata, None, restored_head)
    }

    /// Records that the chain now holds the receipt of the restore.
    pub fn restore_is_recorded(&self) -> Result<(), Refusal> {
        let path = &self.layout.database;
        let metadata = fs::metadata(path).map_err(Refusal::io("look at", path))?;
        self.record(&metadata, None, None)
    }

    fn record(
        &self,
        metadata: &fs::Metadata,
        stopped: Option<Stamp>,
        restored_head: Option<String>,
    ) -> Result<(), Refusal> {
        let record = Record { identity: Identity::of(metadata), stopped, restored_head };
        record.write(&self.layout.record).map_err(Refusal::io("write", &self.layout.record))
    }

    /// Writes the gateway's listening address to the lock file, for the health check.
    pub fn publish_address(&self, address: &str) -> io::Result<()> {
        self.lock.write(address)
    }

    /// Records the state of the file and unlocks. Call it after SQLite has closed the file.
    pub fn release(self) -> io::Result<()> {
        let metadata = fs::metadata(&self.layout.database)?;
        let stopped = Some(Stamp::of(&metadata));
        Record { identity: Identity::of(&metadata), stopped, restored_head: None }.write(&self.layout.record)
    }

    fn sync_folder(&self) -> Result<(), Refusal> {
        let folder = files::folder_of(&self.layout.database);
        files::sync(folder).map_err(Refusal::io("sync the folder", folder))
    }
}
