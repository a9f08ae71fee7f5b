//! Errors of the storage layer.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A failed operation on the open store. Cloned when one failure affects several callers.
#[derive(Debug, Clone)]
pub enum Error {
    /// SQLite failed.
    Sqlite {
        /// What could not be done.
        doing: &'static str,
        /// SQLite's error.
        source: Arc<rusqlite::Error>,
    },
    /// A system call failed.
    Io {
        /// What could not be done.
        doing: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The database holds what it must never hold.
    Corrupt(String),
    /// The database file was moved or replaced under the running gateway.
    Replaced,
    /// Another operation's failed write rolled back the whole transaction.
    RolledBack,
    /// Another program, or work of the gateway that did not end in time, still has the
    /// database open.
    InUse,
    /// The operation panicked; it was rolled back.
    Panicked,
    /// The store is closed or closing.
    Closed,
}

impl Error {
    /// For `map_err`: names what could not be done.
    pub fn cannot(doing: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        move |source| Error::Sqlite { doing, source: Arc::new(source) }
    }

    /// For `and_then` on the row count of a statement: a foreign trigger may make it succeed
    /// without writing anything.
    pub fn unless_one(doing: &'static str) -> impl Fn(usize) -> Result<(), Error> {
        move |count| match count {
            1 => Ok(()),
            _ => {
                Err(Error::Corrupt(format!("cannot {doing}: SQLite reported success but kept {count} rows")))
            }
        }
    }

    /// For `map_err` on system calls.
    pub fn cannot_io(doing: &'static str) -> impl Fn(io::Error) -> Error {
        move |source| Error::Io { doing, source: Arc::new(source) }
    }

    /// Whether the cause is the gateway's own shutdown.
    pub fn is_stop(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
            }
            Error::Closed => true,
            Error::Io { .. }
            | Error::Corrupt(_)
            | Error::Replaced
            | Error::RolledBack
            | Error::InUse
            | Error::Panicked => false,
        }
    }

    /// Whether space ran out: SQLite's FULL, or the system's ENOSPC, EDQUOT or EFBIG.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Error::Io { source, .. } => is_disk_full(source),
            Error::Corrupt(_)
            | Error::Replaced
            | Error::RolledBack
            | Error::InUse
            | Error::Panicked
            | Error::Closed => false,
        }
    }

    /// Whether SQLite could not write and does not say why (IOERR_WRITE): a quota or file size
    /// limit was reached, or the disk is failing or read-only.
    pub fn is_write_refused(&self) -> bool {
        match self {
            Error::Sqlite { source, .. } => source
                .sqlite_error()
                .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE),
            Error::Io { .. }
            | Error::Corrupt(_)
            | Error::Replaced
            | Error::RolledBack
            | Error::InUse
            | Error::Panicked
            | Error::Closed => false,
        }
    }
}

/// Whether a system call failed for lack of space.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Sqlite { doing, source } => write!(f, "cannot {doing}: {source}"),
            Error::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Error::Corrupt(what) => f.write_str(what),
            Error::Replaced => {
                f.write_str("the database file was moved or replaced under the running gateway; restart it")
            }
            Error::RolledBack => f.write_str("the transaction was rolled back by a failed write"),
            Error::InUse => f.write_str(
                "the database is still being read, by another program or by work of the gateway that did \
                 not end in time, so its log could not be merged into it",
            ),
            Error::Panicked => f.write_str("the operation panicked and was rolled back"),
            Error::Closed => f.write_str("the store is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Sqlite { source, .. } => Some(source.as_ref()),
            Error::Io { source, .. } => Some(source.as_ref()),
            Error::Corrupt(_)
            | Error::Replaced
            | Error::RolledBack
            | Error::InUse
            | Error::Panicked
            | Error::Closed => None,
        }
    }
}

const FREE_DISK_SPACE: &str = "free some disk space and start again";

/// Why the gateway refuses to start on a database: one line that says what is wrong and what
/// to do. Returning it implies that every file is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    what: String,
    remedy: String,
}

impl Refusal {
    /// What is wrong, and what to do about it.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Refusal { what: what.into(), remedy: remedy.into() }
    }

    /// For `map_err` on system calls: names the operation and the file.
    pub fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Refusal {
        let path = path.display().to_string();
        move |error| {
            let remedy =
                if is_disk_full(&error) { FREE_DISK_SPACE } else { "check the path, its owner and its disk" };
            Refusal::new(format!("cannot {doing} {path}: {error}"), remedy)
        }
    }

    /// For `map_err` on SQLite's errors.
    pub fn sqlite(doing: &'static str) -> impl Fn(rusqlite::Error) -> Refusal {
        move |error| Refusal::of_sqlite(doing, &error)
    }

    /// A database that is locked or on a failing disk must not be called damaged.
    fn of_sqlite(doing: &'static str, error: &rusqlite::Error) -> Refusal {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
        let what = format!("cannot {doing}: {error}");
        match error.sqlite_error_code() {
            Some(DatabaseBusy | DatabaseLocked) => {
                Refusal::new(what, "another program has it open: close that program and start again")
            }
            Some(DiskFull) => Refusal::new(what, FREE_DISK_SPACE),
            Some(DatabaseCorrupt | NotADatabase) | None => Refusal::damaged(what),
            Some(_) => Refusal::new(what, "check the disk, its free space, and the files' owner and modes"),
        }
    }

    /// The same with another remedy, for commands that do not start a gateway.
    pub(crate) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Refusal { remedy: remedy.into(), ..self }
    }

    /// The database is damaged.
    pub fn damaged(what: impl Into<String>) -> Self {
        Refusal::new(what, "move the damaged file away and restore a backup in its place")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        write!(f, "{}; {}", one_line(&self.what), one_line(&self.remedy))
    }
}

impl std::error::Error for Refusal {}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Sqlite { doing, source } => Refusal::of_sqlite(doing, &source),
            Error::Corrupt(what) => Refusal::damaged(what),
            Error::Io { .. }
            | Error::Replaced
            | Error::RolledBack
            | Error::InUse
            | Error::Panicked
            | Error::Closed => Refusal::new(error.to_string(), "check the disk and the log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_database_is_not_called_damaged_whoever_else_has_the_error() {
        let busy =
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
        let error = Error::cannot("read the chain's head")(busy);
        let told = Refusal::from(error.clone()).to_string();
        assert!(told.contains("another program has it open"), "{told}");
        drop(error);
    }
}
