//! Takes a backup, from the request to the file under its final name.
//!
//! 1. Create a private, hidden partial file in the backup folder.
//! 2. `VACUUM INTO` it, on a separate connection, so that no request waits.
//! 3. Open it read-only and immutable; check every page, the schema and the whole chain.
//! 4. Publish its manifest and digest under their final names.
//! 5. Sync the file, link it to its final name (never replacing a file), sync the folder.
//!
//! # Invariant
//! A file under its final name is complete, verified and synced. A failure before that
//! removes the partial files and their journals. Leftovers of a killed process are swept at
//! the next start, except a manifest that already has its name. Writing a backup never opens
//! a backup that already exists, and never follows a link.

mod check;
pub mod fetch;
pub mod list;
pub mod manifest;
pub mod name;
mod pace;
mod progress;
mod room;

use std::fmt;
use std::fs;
use std::io;
use std::ops::DerefMut;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::clock::Clock;
use crate::domain::canon::Hash;
use crate::evidence::Summary;
use crate::store::error::{Error as StoreError, is_disk_full};
use crate::store::files::{self, FileId};
use crate::store::{Background, Store};

use check::Checked;
pub use check::Steps;
use fetch::Fetching;
use manifest::{Beside, Copied, SUFFIX};
use name::BackupName;
use progress::{Running, Stage, Turn};

/// Prefix of partial files. The leading dot keeps it out of the names a backup may have.
const PARTIAL_PREFIX: &str = ".partial-";
/// How many bytes are written to find out whether the disk is full.
const PROBE_BYTES: usize = 64 << 10;

/// The backup folder, and the backup in progress, of which there is at most one.
#[derive(Debug)]
pub struct Backups {
    folder: PathBuf,
    /// The database that SQLite has open, which may be in the same folder.
    live: Option<FileId>,
    running: Mutex<Option<Running>>,
    fetching: Fetching,
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its path: the folder as configured, and the name.
    pub path: PathBuf,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// Total time, including checks and syncs.
    pub duration: Duration,
    /// How long each step took.
    pub steps: Steps,
    /// The chain as verified in the finished file.
    pub chain: Summary,
    /// The file's schema version.
    pub schema_version: u32,
    /// Path of its manifest, in the same folder.
    pub manifest: PathBuf,
    /// UUID of the backup.
    pub backup_id: String,
    /// ID of the chain it holds.
    pub chain_id: String,
}

/// Why a backup failed.
#[derive(Debug)]
pub enum Error {
    /// The name is already in use.
    Taken,
    /// Another backup is running.
    Busy,
    /// The gateway is stopping.
    Stopping,
    /// Not enough room on the disk.
    DiskFull(String),
    /// The copy failed its checks.
    Unsound(String),
    /// A system call failed.
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
    /// SQLite failed.
    Store(StoreError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Taken => f.write_str("a file with this name, or one of its side files, already exists"),
            Error::Busy => f.write_str("another backup is running"),
            Error::Stopping => f.write_str("the gateway is stopping"),
            Error::DiskFull(what) => write!(f, "not enough room for the backup: {what}"),
            Error::Unsound(what) => write!(f, "the copy failed its checks: {what}"),
            Error::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Error::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Store(error) => Some(error),
            Error::Taken | Error::Busy | Error::Stopping | Error::DiskFull(_) | Error::Unsound(_) => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        if error.is_disk_full() || error.is_write_refused() {
            Error::DiskFull(error.to_string())
        } else if error.is_stop() {
            Error::Stopping
        } else {
            Error::Store(error)
        }
    }
}

/// An error mapper for system calls.
fn cannot(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| {
        if is_disk_full(&source) {
            Error::DiskFull(format!("cannot {doing}: {source}"))
        } else {
            Error::Io { doing, source }
        }
    }
}

impl Backups {
    /// The backups in `folder`, which is created if missing. Sweeps the partial files of a
    /// killed gateway. An unusable folder fails the backups, not the gateway.
    pub fn new(folder: &Path) -> Self {
        if let Err(error) = files::create_private_folder(folder).and_then(|()| sweep(folder)) {
            log::error!("the backup folder {} cannot be used: {error}", folder.display());
        }
        Backups {
            folder: folder.to_owned(),
            live: None,
            running: Mutex::default(),
            fetching: Fetching::default(),
        }
    }

    /// Excludes `database`, which SQLite has open from now on. It is never a backup, whatever
    /// its name, and must not be opened a second time in this process: closing that file would
    /// drop SQLite's locks, and the next shell to open the database would delete its log.
    pub fn beside(self, database: &Path) -> io::Result<Self> {
        Ok(Backups { live: FileId::at(database)?, ..self })
    }

    /// Opens a file in the folder for reading. `None` if there is no such file, or if it is the
    /// live database.
    fn open(&self, name: &str) -> io::Result<Option<fs::File>> {
        let path = self.folder.join(name);
        if self.live.is_some() && FileId::at(&path)? == self.live {
            return Ok(None);
        }
        files::open_regular(&path)
    }

    /// The folder, as configured.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first free name among `stem`, `stem-2`, `stem-3` and so on, so that a start that is
    /// killed and retried within the same second does not collide with itself.
    pub fn free_name(&self, stem: &str, extension: &str) -> Result<BackupName, Error> {
        for number in 1.. {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let name = BackupName::parse(&format!("{stem}{suffix}{extension}"))
                .map_err(|error| Error::Unsound(error.to_string()))?;
            if !name::is_taken(&self.folder.join(name.as_str()))
                .map_err(cannot("look at the backup's name"))?
            {
                return Ok(name);
            }
        }
        Err(Error::Taken)
    }

    /// Writes a backup of `store` under `name`.
    pub fn write(&self, store: &Store, clock: &dyn Clock, name: &BackupName) -> Result<Finished, Error> {
        self.write_from(|| store.copy_source(), &store.background(), clock, name)
    }

    /// Writes a backup of the database that `source` opens under `name`.
    pub fn write_from<S: DerefMut<Target = Connection>>(
        &self,
        source: impl FnOnce() -> Result<S, StoreError>,
        background: &Background,
        clock: &dyn Clock,
        name: &BackupName,
    ) -> Result<Finished, Error> {
        let started = Instant::now();
        let turn = self.take_turn(name, clock.now())?;
        files::create_private_folder(&self.folder).map_err(cannot("create the backup folder"))?;
        let path = self.folder.join(name.as_str());
        if name::is_taken(&path).map_err(cannot("look at the backup's name"))? {
            return Err(Error::Taken);
        }
        let partial = Partial::create(&self.folder)?;
        let copying = Instant::now();
        self.copy(&mut *source()?, background, &partial, &turn)?;
        let copy = copying.elapsed();
        turn.reach(Stage::Checking);
        let Checked { chain, schema_version, size_bytes, sha256, steps } =
            check::check(partial.path(), background)?;
        turn.reach(Stage::Naming);
        let steps = Steps { copy, ..steps };
        let copied = Copied { name, bytes: size_bytes, sha256, chain: &chain, schema_version, steps };
        let described =
            manifest::describe(partial.path(), &self.folder, &copied, clock, background.stopping())?;
        let beside = Beside::publish(&self.folder, &path, &described)?;
        give_name(partial.path(), &path)?;
        beside.keep();
        drop(partial);
        Ok(Finished {
            manifest: files::with_suffix(&path, SUFFIX),
            path,
            size_bytes,
            sha256,
            duration: started.elapsed(),
            steps,
            chain,
            schema_version,
            backup_id: described.backup_id,
            chain_id: described.chain_id,
        })
    }

    /// Runs `VACUUM INTO` on the partial file, which already exists, empty and private.
    fn copy(
        &self,
        source: &mut Connection,
        background: &Background,
        partial: &Partial,
        turn: &Turn<'_>,
    ) -> Result<(), Error> {
        let room = room::check(source, &partial.file)?;
        turn.copy_to(partial.path(), room.copy_bytes);
        let target = absolute(partial.path()).map_err(cannot("find the backup folder"))?;
        let copied = pace::keep(source, partial.path(), &room, background, |source| {
            source.execute("VACUUM INTO ?1", [target])
        })?;
        copied.map_err(StoreError::cannot("copy the database")).map_err(|error| {
            match Error::from(error) {
                failed @ Error::Store(_) => self.probe_disk_full().unwrap_or(failed),
                other => other,
            }
        })?;
        Ok(())
    }

    /// SQLite reports a journal write or a sync that fails on a full disk like any other
    /// failure. A small write of our own tells them apart.
    fn probe_disk_full(&self) -> Option<Error> {
        let tried = manifest::write_partial(&self.folder, &[0; PROBE_BYTES]);
        tried.err().filter(|error| matches!(error, Error::DiskFull(_)))
    }
}

/// A partial file. Dropping it removes the file and its journal.
struct Partial {
    path: PathBuf,
    /// Locked, so that another gateway sharing the folder does not sweep it as a leftover.
    file: fs::File,
}

impl Partial {
    /// Retries if another gateway swept the file between its creation and the lock. SQLite
    /// would otherwise create its own file under the name, with a mode that others may read.
    fn create(folder: &Path) -> Result<Self, Error> {
        loop {
            let partial = Partial::make(folder)?;
            partial.file.lock().map_err(cannot("lock a file in the backup folder"))?;
            if files::has_name(&partial.file, &partial.path).map_err(cannot("look at the backup's name"))? {
                return Ok(partial);
            }
        }
    }

    fn make(folder: &Path) -> Result<Self, Error> {
        let random = crate::entropy::hex::<8>().map_err(cannot("draw a random name"))?;
        let path = folder.join(format!("{PARTIAL_PREFIX}{random}"));
        let file = files::create_private_file(&path).map_err(cannot("create a file in the backup folder"))?;
        Ok(Partial { path, file })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        for path in [&self.path, &files::with_suffix(&self.path, "-journal")] {
            if let Err(error) = files::remove_if_there(path) {
                log::error!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// Links the file to its final name. Never replaces a file; a failure leaves the name free.
fn give_name(partial: &Path, path: &Path) -> Result<(), Error> {
    files::publish(partial, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Taken,
        _ => cannot("give the backup its name")(error),
    })
}

/// The absolute path: the folder is resolved, the last component is not followed.
fn absolute(path: &Path) -> io::Result<String> {
    let folder = fs::canonicalize(files::folder_of(path))?;
    let path = path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name));
    let not_utf8 = || io::Error::new(io::ErrorKind::InvalidInput, "the path of the folder is not UTF-8");
    path.into_os_string().into_string().map_err(|_| not_utf8())
}

/// Removes the partial files of a killed gateway, and their journals. Files that another
/// gateway sharing the folder is writing are locked, and are left alone.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PARTIAL_PREFIX) || !entry.file_type()?.is_file() {
            continue;
        }
        let partial = folder.join(name.trim_end_matches("-journal"));
        // `None`: a journal whose file is gone.
        let file = files::open_regular(&partial)?;
        if file.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            continue;
        }
        for path in [files::with_suffix(&partial, "-journal"), partial] {
            // A backup leaves only regular files.
            if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                log::info!("removing {}, which a killed backup left", path.display());
                files::remove_if_there(&path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_partial_file_keeps_its_name_while_others_sweep() {
        let folder = tempfile::tempdir().expect("a folder");
        let done = AtomicBool::new(false);
        let keeps_name = |_| {
            let partial = Partial::create(folder.path());
            partial.is_ok_and(|partial| files::has_name(&partial.file, partial.path()).is_ok_and(|kept| kept))
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        sweep(folder.path()).expect("swept");
                    }
                });
            }
            let kept = (0..3000).all(keeps_name);
            done.store(true, Ordering::Relaxed);
            assert!(kept);
        });
    }
}
