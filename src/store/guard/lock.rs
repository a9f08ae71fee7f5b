//! The lock that limits a database to one gateway.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::store::error::Refusal;
use crate::store::files;

/// How often a start checks whether a verifier has finished: flock(2) has no timeout.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    /// Whether dropping the lock removes the file, which it does if the file is the holder's
    /// own. A file that a killed gateway left stays until its database is accepted again.
    removes_file: bool,
}

/// The result of a reader's attempt to lock.
#[derive(Debug)]
pub(crate) enum LockState {
    /// There is no lock file: it was never created, or its last holder removed it.
    Absent,
    /// No gateway held it; this reader does now.
    Shared(Lock),
    /// A gateway is running.
    HeldByGateway,
}

impl Lock {
    /// The gateway's lock. Waits for readers of the stopped database to finish.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, Refusal> {
        let cannot = Refusal::io("lock", path);
        let mut waiting = false;
        loop {
            let (file, created) = open_or_create(path).map_err(&cannot)?;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(cannot(error)),
                }
                // A verifier's lock is shared, and it will finish; a gateway's is exclusive.
                match file.try_lock_shared() {
                    Ok(()) => {
                        if !std::mem::replace(&mut waiting, true) {
                            log::info!("waiting for a verifier that reads the database");
                        }
                        file.unlock().map_err(&cannot)?;
                    }
                    Err(TryLockError::WouldBlock) => return Err(held(path)),
                    Err(TryLockError::Error(error)) => return Err(cannot(error)),
                }
                thread::park_timeout(RETRY_INTERVAL);
            }
            if files::has_name(&file, path).map_err(&cannot)? {
                return Ok(Lock { file, path: path.to_owned(), removes_file: created });
            }
        }
    }

    /// A reader's lock on a database whose gateway should be stopped. Creates no file.
    pub(crate) fn shared(path: &Path) -> io::Result<LockState> {
        loop {
            let file = match files::open_file(path) {
                Ok(file) => file,
                Err(error) if files::is_absent(&error) => return Ok(LockState::Absent),
                Err(error) => return Err(error),
            };
            match file.try_lock_shared() {
                Ok(()) if files::has_name(&file, path)? => {
                    return Ok(LockState::Shared(Lock { file, path: path.to_owned(), removes_file: false }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(LockState::HeldByGateway),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Takes ownership of the file, so that dropping the lock removes it.
    pub(crate) fn adopt_file(&mut self) {
        self.removes_file = true;
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
        if !self.removes_file {
            return;
        }
        let removed = files::has_name(&self.file, &self.path)
            .and_then(|ours| if ours { fs::remove_file(&self.path) } else { Ok(()) });
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The file, and whether it was created.
fn open_or_create(path: &Path) -> io::Result<(File, bool)> {
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match options.clone().create_new(true).open(path) {
            Ok(file) => return Ok((file, true)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
        }
        match options.open(path) {
            Ok(file) if file.metadata()?.is_file() => return Ok((file, false)),
            Ok(_) => return Err(files::no_regular_file()),
            // Its holder has just removed it.
            Err(error) if files::is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn held(path: &Path) -> Refusal {
    Refusal::new(
        format!("another gateway runs on this database (it holds {})", path.display()),
        "stop it first, or set AEGIS_DB_PATH to a database of its own",
    )
}
