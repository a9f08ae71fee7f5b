//! The lock that makes one gateway a database's only one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::store::error::Refusal;

/// How soon a gateway tries again while a verifier reads the database.
const RETRY: Duration = Duration::from_millis(50);

/// A lock held until it is dropped. An exclusive one takes its file with it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    exclusive: bool,
}

/// What a look at somebody else's lock shows.
#[derive(Debug)]
pub(crate) enum LockState {
    /// Nobody has ever locked it, or the holder has gone and taken the file along.
    Absent,
    /// Nobody holds it; now this reader does.
    Shared(Lock),
    /// A gateway runs.
    HeldByGateway,
}

impl Lock {
    /// The gateway's lock. Waits for readers of the stopped database to finish.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, Refusal> {
        let cannot = Refusal::io("lock", path);
        let mut waits = false;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(&cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if file.try_lock_shared().is_err() {
                        return Err(held(path));
                    }
                    if !waits {
                        log::info!("waiting for a verifier that reads the database");
                        waits = true;
                    }
                    // Tried again, not queued for: behind another gateway that
                    // waits, this one would start whenever that one stops.
                    drop(file);
                    thread::sleep(RETRY);
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            if has_name(&file, path).map_err(&cannot)? {
                return Ok(Lock { file, path: path.to_owned(), exclusive: true });
            }
        }
    }

    /// A reader's lock on a database that should be stopped. Makes no file.
    pub(crate) fn shared(path: &Path) -> io::Result<LockState> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockState::Absent),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(LockState::Shared(Lock { file, path: path.to_owned(), exclusive: false })),
            Err(TryLockError::WouldBlock) => Ok(LockState::HeldByGateway),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Replaces the file's content.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.exclusive {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Whether the locked file is still the one of this name.
fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    let locked = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (locked.dev(), locked.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn held(path: &Path) -> Refusal {
    Refusal::new(
        format!("another gateway runs on this database (it holds {})", path.display()),
        "stop it first, or set AEGIS_DB_PATH to a database of its own",
    )
}
