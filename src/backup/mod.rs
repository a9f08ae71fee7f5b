//! A backup, from the request to the file under its final name.
//!
//! 1. a private, hidden, partial file in the backup folder;
//! 2. `VACUUM INTO` it, on a connection of its own, so that nobody waits;
//! 3. opened as nobody's file: every page, the schema and the whole chain checked;
//! 4. its manifest and its digest, beside it, get their names first;
//! 5. synced, linked to its final name (never over another), the folder synced.
//!
//! # Invariant
//! A file under its final name is whole, verified and synced. Whatever fails before
//! removes the partial files and their journal; what a kill leaves is swept at the
//! next start, but for a manifest that had its name already. Nothing here ever opens or
//! follows what already has a name.

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

/// Partial files: hidden, so that no backup can have such a name.
const PARTIAL_PREFIX: &str = ".partial-";
/// How much is written to see whether a disk is full.
const PROBE_BYTES: usize = 64 << 10;

/// The backup folder, and the one backup that may run.
#[derive(Debug)]
pub struct Backups {
    folder: PathBuf,
    /// The database that SQLite has open, which may lie in the folder.
    live: Option<FileId>,
    running: Mutex<Option<Running>>,
    fetching: Fetching,
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The folder as configured, and the name.
    pub path: PathBuf,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// How long it took, checks and sync included.
    pub duration: Duration,
    /// How long each step took.
    pub steps: Steps,
    /// The chain as found in the finished file.
    pub chain: Summary,
    /// The file's schema version.
    pub schema_version: u32,
    /// Its manifest, in the same folder.
    pub manifest: PathBuf,
    /// UUID of the backup.
    pub backup_id: String,
    /// The chain it holds.
    pub chain_id: String,
}

/// Why there is no backup.
#[derive(Debug)]
pub enum Error {
    /// Something has this name already.
    Taken,
    /// Another backup runs.
    Busy,
    /// The gateway is stopping.
    Stopping,
    /// Not enough room on the disk.
    DiskFull(String),
    /// The copy is not what it should be.
    Unsound(String),
    /// The system refused.
    Io {
        /// What could not be done.
        doing: &'static str,
        /// The system's own words.
        source: io::Error,
    },
    /// SQLite refused.
    Store(StoreError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Taken => f.write_str("a file of this name, or one that stands beside it, exists"),
            Error::Busy => f.write_str("another backup is running"),
            Error::Stopping => f.write_str("the gateway is stopping"),
            Error::DiskFull(what) => write!(f, "not enough room for the backup: {what}"),
            Error::Unsound(what) => write!(f, "the copy did not pass its checks: {what}"),
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

/// For `map_err` on system calls.
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
    /// The backups in `folder`, which is made if it is missing; sweeps what a killed
    /// gateway left half done. A folder that cannot be used fails the backups, not
    /// the gateway.
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

    /// From now on SQLite has the file `database` open. It is no backup, whatever name it is
    /// given, and must never be opened beside SQLite: closing it would drop SQLite's locks,
    /// and the next shell to look at the database would delete its log.
    pub fn beside(self, database: &Path) -> io::Result<Self> {
        Ok(Backups { live: FileId::at(database)?, ..self })
    }

    /// Opens a file of the folder for reading; `None` where no file has this name, or the live
    /// database does.
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

    /// The first name of `stem`, `stem-2`, `stem-3` and so on that is not taken: a start
    /// that is killed and tried again within a second must not stand in its own way.
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

    /// The same of whatever database `source` shows.
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

    /// `VACUUM INTO` the partial file, which is empty and private already.
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
                failed @ Error::Store(_) => self.want_of_room().unwrap_or(failed),
                other => other,
            }
        })?;
        Ok(())
    }

    /// SQLite tells a journal that finds no room, and a sync that fails for want of it,
    /// like any other failure: writing a little oneself shows which it was.
    fn want_of_room(&self) -> Option<Error> {
        let tried = manifest::write_partial(&self.folder, &[0; PROBE_BYTES]);
        tried.err().filter(|error| matches!(error, Error::DiskFull(_)))
    }
}

/// A partial file, removed with its journal when it is dropped.
struct Partial {
    path: PathBuf,
    /// Locked, so that nobody who shares the folder takes it for a leftover.
    file: fs::File,
}

impl Partial {
    /// Between the making and the lock, whoever shares the folder may sweep it away; SQLite
    /// would then make a file of its own at the name, with a mode that others may read.
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

/// Never another's; after a failure it is as free as before.
fn give_name(partial: &Path, path: &Path) -> Result<(), Error> {
    files::publish(partial, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Taken,
        _ => cannot("give the backup its name")(error),
    })
}

/// The path from the root: its folder resolved, the name itself never followed.
fn absolute(path: &Path) -> io::Result<String> {
    let folder = fs::canonicalize(files::folder_of(path))?;
    let path = path.file_name().map_or_else(|| folder.clone(), |name| folder.join(name));
    let not_utf8 = || io::Error::new(io::ErrorKind::InvalidInput, "the path of the folder is not UTF-8");
    path.into_os_string().into_string().map_err(|_| not_utf8())
}

/// Removes the partial files of a gateway that was killed; what another gateway that
/// shares the folder is writing is locked, and stays. A journal goes with its file.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PARTIAL_PREFIX) || !entry.file_type()?.is_file() {
            continue;
        }
        let partial = folder.join(name.trim_end_matches("-journal"));
        // None is a journal whose file is gone.
        let file = files::open_regular(&partial)?;
        if file.as_ref().is_some_and(|file| file.try_lock().is_err()) {
            continue;
        }
        for path in [files::with_suffix(&partial, "-journal"), partial] {
            // What is no file was not left by a backup.
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
