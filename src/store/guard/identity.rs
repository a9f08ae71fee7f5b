//! Records, beside the database, which file the gateway last ran on.
//!
//! A file put in the database's place has a different identity, whatever its content. The
//! record is written and synced before SQLite opens the file, so a log is never older than the
//! record it is judged by.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::store::files;

/// Distinguishes a file from every other that ever had its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    /// Birth time in nanoseconds since the epoch, if the file system stores it.
    born_ns: Option<u64>,
}

/// The state in which a clean stop left a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

/// The content of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) identity: Identity,
    /// Absent while a gateway runs, and after it was killed.
    pub(crate) stopped: Option<Stamp>,
    /// For a restored copy, the hash of the head it came with, until the chain records the
    /// restore.
    #[serde(default)]
    pub(crate) restored_head: Option<String>,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            born_ns: born.and_then(|born| u64::try_from(born.as_nanos()).ok()),
        }
    }

    /// Whether both are the same file. The inode number is not enough: many file systems reuse
    /// it immediately. The device number is compared only if a birth time is missing: it may
    /// change on reboot, and the same inode number with the same birth time in nanoseconds does
    /// not occur on another device.
    pub(crate) fn is_same_file(&self, other: &Identity) -> bool {
        self.inode == other.inode
            && match (self.born_ns, other.born_ns) {
                (Some(a), Some(b)) => a == b,
                (None, _) | (_, None) => self.device == other.device,
            }
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Stamp { bytes: metadata.len(), modified_s: metadata.mtime(), modified_ns: metadata.mtime_nsec() }
    }
}

/// Maximum size of a record file; no real one comes close.
const BYTES_MAX: u64 = 1 << 16;

impl Record {
    /// The record at `path`; `None` if it is missing or malformed.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match files::read_small(path, BYTES_MAX) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) if files::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the record atomically and durably.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        files::replace(path, &text)
    }
}
