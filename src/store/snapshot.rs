//! Read-only connections for work that takes long, and a way to end them all: a stop
//! must not wait for a backup or a verification.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::connection;
use super::error::Error;

/// How often long work looks whether it is to end, in operations of SQLite's virtual
/// machine: well under a millisecond.
const LOOK_EVERY_OPERATIONS: i32 = 1000;

/// Set once, when the gateway stops.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Whether the gateway stops.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Makes whatever runs on `connection` fail with an interrupt when the gateway stops.
    pub fn ends(&self, connection: &mut Connection) -> Result<(), Error> {
        let stopping = self.clone();
        connection
            .progress_handler(LOOK_EVERY_OPERATIONS, Some(move || stopping.is_set()))
            .map_err(Error::cannot("watch a connection"))
    }
}

/// A connection that reads one consistent view, beside live traffic.
pub struct Snapshot(Connection);

impl Snapshot {
    pub(crate) fn open(path: &Path, stopping: &Stopping) -> Result<Self, Error> {
        if stopping.is_set() {
            return Err(Error::Closed);
        }
        let mut connection =
            connection::reader(path).map_err(Error::cannot("open the database for reading"))?;
        stopping.ends(&mut connection)?;
        Ok(Snapshot(connection))
    }
}

impl Deref for Snapshot {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}
