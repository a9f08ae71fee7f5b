//! The errors a use case can return.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::backup;
use crate::domain::approval::Status;
use crate::domain::signature;
use crate::store::error::Error as StoreError;

/// Why there is no result. `http::error` maps each variant to one status.
#[derive(Debug)]
pub enum Error {
    /// The request is malformed.
    BadRequest(String),
    /// The request is well-formed, but a value in it is not acceptable.
    Invalid(String),
    /// No valid credential.
    Unauthorized,
    /// A valid credential, but not the signature that the agent's requests require.
    Unsigned(signature::Fault),
    /// A rate limit was exceeded.
    TooManyRequests {
        /// Human-readable message.
        message: &'static str,
        /// How long to wait before trying again.
        retry_after_seconds: u64,
    },
    /// A valid credential that may not do this.
    Forbidden(String),
    /// The request names an agent other than the token's.
    AnotherAgent,
    /// The agent may not act in the requested environment.
    Elsewhere {
        /// The recorded denial; none for a dry run.
        decision_id: Option<String>,
    },
    /// It does not exist.
    NotFound(String),
    /// It already exists.
    AlreadyExists(String),
    /// It conflicts with what is recorded.
    Conflict {
        /// Human-readable message.
        message: String,
        /// Machine-readable reason.
        reason: &'static str,
    },
    /// The approval's status does not permit this.
    ApprovalStands {
        /// Human-readable message.
        message: &'static str,
        /// The approval's status.
        status: Status,
        /// Machine-readable reason.
        reason: &'static str,
    },
    /// Another operation of the same kind is running.
    Busy(String),
    /// Not enough disk space for a backup.
    NoRoom(String),
    /// The gateway is stopping.
    Stopping,
    /// The database failed.
    Store(StoreError),
    /// The backup folder cannot be read.
    BackupFolder {
        /// The folder as configured: for the log alone.
        folder: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// A backup failed.
    Backup {
        /// The folder as configured: for the log alone.
        folder: PathBuf,
        /// Why.
        source: backup::Error,
    },
    /// The system's random source failed.
    Entropy(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::BadRequest(message)
            | Error::Invalid(message)
            | Error::Forbidden(message)
            | Error::NotFound(message)
            | Error::AlreadyExists(message)
            | Error::Conflict { message, .. }
            | Error::Busy(message)
            | Error::NoRoom(message) => f.write_str(message),
            Error::ApprovalStands { message, .. } => f.write_str(message),
            Error::AnotherAgent => f.write_str("agent.id does not match this token's agent"),
            Error::Elsewhere { .. } => f.write_str("the agent may not act in this environment"),
            Error::Unauthorized => f.write_str("a valid bearer token is required"),
            Error::Unsigned(signature::Fault::Missing) => {
                f.write_str("one X-Aegis-Request-Signature header is required: this agent has a signing key")
            }
            Error::Unsigned(signature::Fault::Invalid) => {
                f.write_str("X-Aegis-Request-Signature does not match this body and the agent's signing key")
            }
            Error::TooManyRequests { message, .. } => f.write_str(message),
            Error::Stopping => f.write_str("the gateway is stopping"),
            Error::Store(error) => error.fmt(f),
            Error::Backup { folder, source } => write!(f, "no backup in {}: {source}", folder.display()),
            Error::BackupFolder { folder, source } => {
                write!(f, "cannot read the backup folder {}: {source}", folder.display())
            }
            Error::Entropy(error) => write!(f, "cannot get random bytes: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Store(error) => Some(error),
            Error::Backup { source, .. } => Some(source),
            Error::Entropy(error) | Error::BackupFolder { source: error, .. } => Some(error),
            Error::BadRequest(_)
            | Error::Invalid(_)
            | Error::Unauthorized
            | Error::Unsigned(_)
            | Error::TooManyRequests { .. }
            | Error::Forbidden(_)
            | Error::AnotherAgent
            | Error::Elsewhere { .. }
            | Error::NotFound(_)
            | Error::AlreadyExists(_)
            | Error::Conflict { .. }
            | Error::ApprovalStands { .. }
            | Error::Busy(_)
            | Error::NoRoom(_)
            | Error::Stopping => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Store(error)
    }
}

impl Error {
    /// What the failure of a backup into `folder` means for whoever asked for it.
    pub(super) fn of_backup(error: backup::Error, folder: &Path) -> Self {
        match error {
            backup::Error::Taken => Error::AlreadyExists(error.to_string()),
            backup::Error::Busy => Error::Busy(error.to_string()),
            backup::Error::Stopping => Error::Stopping,
            backup::Error::DiskFull(_) => Error::NoRoom(error.to_string()),
            backup::Error::Unsound(_) | backup::Error::Io { .. } | backup::Error::Store(_) => {
                Error::Backup { folder: folder.to_owned(), source: error }
            }
        }
    }
}
