//! The paths that belong to one database.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::Refusal;
use crate::store::files;

/// The paths that belong to one database.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The database itself, with symbolic links resolved as SQLite does.
    pub database: PathBuf,
    /// Its write-ahead log.
    pub wal: PathBuf,
    /// The index of the log.
    pub shm: PathBuf,
    /// Its rollback journal.
    pub journal: PathBuf,
    /// The gateway's lock.
    pub lock: PathBuf,
    /// The record of the file the gateway last ran on.
    pub record: PathBuf,
    /// A database being created. The name is hidden, which no backup's may be, because any
    /// file found there is removed.
    pub partial: PathBuf,
}

impl Layout {
    /// The paths for the database at `path`. Rejects a dangling symbolic link: following it
    /// would create a database in an unexpected place.
    pub fn of(path: &Path) -> Result<Self, Refusal> {
        let database = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if files::is_taken(path).map_err(Refusal::io("look at", path))? {
                    return Err(Refusal::new(
                        format!("{} is a symbolic link that leads nowhere", path.display()),
                        "remove the link or put its target back",
                    ));
                }
                // Resolves the folder's links now, as they will be once the file exists.
                let folder = files::folder_of(path);
                let folder = fs::canonicalize(folder).map_err(Refusal::io("find", folder))?;
                path.file_name().map_or_else(|| path.to_owned(), |name| folder.join(name))
            }
            Err(error) => return Err(Refusal::io("find", path)(error)),
        };
        let with = |suffix| files::with_suffix(&database, suffix);
        let mut partial = OsString::from(".");
        partial.push(database.file_name().unwrap_or_default());
        partial.push(".new");
        Ok(Layout {
            wal: with("-wal"),
            shm: with("-shm"),
            journal: with("-journal"),
            lock: with(".lock"),
            record: with(".identity"),
            partial: database.with_file_name(partial),
            database,
        })
    }
}
