//! What is checked before SQLite opens the database.
//!
//! SQLite replays any write-ahead log that lies beside a database, whatever file
//! that is: after a SIGKILL and a restore by `mv` and `cp`, the old log would be
//! replayed onto the restored file. And it deletes a log whose database is missing.
//! So, under the gateway's lock and before SQLite sees the file, [`judge`] decides
//! from the bytes alone whether the log belongs to it:
//!
//! 1. A rollback journal is accepted only if it is the trace of our own switch to
//!    the write-ahead log (module `journal`).
//! 2. A log with commits whose database is missing or empty: refused.
//! 3. A log without a valid commit beside a file in rollback mode: set aside.
//! 4. A log with commits beside a file in rollback mode (what a backup is): set
//!    aside; but refused when the log too says rollback mode, since it may then
//!    belong to the file.
//! 5. Another page size: set aside. A change counter outside the log's, or a schema
//!    newer than the log's: refused.
//! 6. A file in log mode that is not the file the gateway ran on last: refused,
//!    with both ways out named.
//!
//! Everything else is opened, and a log that belongs is replayed. Rules 2 to 6
//! concern a non-empty log alone. [`judge`] changes nothing; [`Guard::admit`] does
//! what it decided, after the content was found good as well.
//!
//! # Locking
//! The gateway holds an exclusive `flock` on `DATABASE.lock` for its life; whoever
//! reads a stopped database holds a shared one. The file is removed by its holder
//! alone, and a lock counts only while its file still has the name. A lock goes by a path,
//! so a database with a second path is refused (module `links`); whoever only reads it may
//! come by any.

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
    /// The log this choice is about: its salts, so that the choice fits no other.
    pub log_id: u64,
}

/// What to do with the log that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPlan {
    /// There is none, or one without commits that SQLite will ignore.
    Nothing,
    /// It belongs to the file.
    Replay,
    /// It belongs to another file.
    SetAside,
}

/// What was found at the database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: a new database may be made, where none is missed.
    Missing {
        /// A gateway ran on a file of this name before.
        ran_before: bool,
    },
    /// A database.
    Database {
        /// In rollback mode: a copy that no gateway has run on yet.
        restored: bool,
        /// A gateway began on a restored copy and may have been killed before the chain
        /// said so: the hash of the head that the copy came with.
        restored_head: Option<String>,
        /// Exactly as a clean stop of the gateway left it, or as a crash of the
        /// gateway did; nobody else has put it there or written to it since.
        as_left: bool,
    },
}

/// The judgement on the files as they lie there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What is there.
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
    /// Takes the lock, or says who has it.
    pub fn lock(path: &Path) -> Result<Self, Refusal> {
        let folder = files::folder_of(path);
        files::create_private_folder(folder).map_err(Refusal::io("create the folder", folder))?;
        let layout = Layout::of(path)?;
        let lock = Lock::exclusive(&layout.lock)?;
        Ok(Guard { layout, lock })
    }

    /// The names around the database.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Applies the six rules, and refuses a database of two names. Changes nothing.
    pub fn judge(&self, choice: Option<WalChoice>) -> Result<Judgement, Refusal> {
        let judgement = judge(&self.layout, choice)?;
        links::check(&self.layout, judgement.log)?;
        Ok(judgement)
    }

    /// Fails when a file that SQLite is to write to cannot be written. SQLite would
    /// fall back to reading, and fail only after it has made files beside it.
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

    /// Sets aside what the judgement says, and returns the name it was given.
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

    /// Records which file SQLite is about to open, and makes it private. Of a restored
    /// copy, also the hash of its head: what follows is not one step, and a kill must not
    /// lose that it was restored.
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

    /// Records that the chain says what there was to say of a restored copy.
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

    /// Notes in the lock file where the gateway listens, for the health check.
    pub fn publish_address(&self, address: &str) -> io::Result<()> {
        self.lock.write(address)
    }

    /// After SQLite has closed the file: records how it was left, and unlocks.
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
