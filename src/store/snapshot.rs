//! Read-only connections for work that takes long, and a way to end them all: a stop
//! must not wait for a backup or a verification.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, InterruptHandle};

use super::commit::unpoisoned;
use super::connection;
use super::error::Error;

/// The snapshots that are open.
#[derive(Default)]
pub(crate) struct Snapshots(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    ended: bool,
    opened: u64,
    handles: HashMap<u64, InterruptHandle>,
}

/// A connection that reads one consistent view, beside live traffic.
pub struct Snapshot {
    connection: Connection,
    number: u64,
    all: Arc<Mutex<Open>>,
}

impl Snapshots {
    pub(crate) fn open(&self, path: &Path) -> Result<Snapshot, Error> {
        let cannot = Error::cannot("open the database for reading");
        let connection = connection::reader(path).map_err(cannot)?;
        let mut open = unpoisoned(&self.0);
        if open.ended {
            return Err(Error::Closed);
        }
        open.opened += 1;
        let number = open.opened;
        open.handles.insert(number, connection.get_interrupt_handle());
        Ok(Snapshot { connection, number, all: Arc::clone(&self.0) })
    }

    /// Interrupts every snapshot, and lets none begin.
    pub(crate) fn end(&self) {
        let mut open = unpoisoned(&self.0);
        open.ended = true;
        open.handles.values().for_each(InterruptHandle::interrupt);
    }
}

impl Deref for Snapshot {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Snapshot {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        unpoisoned(&self.all).handles.remove(&self.number);
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("number", &self.number).finish_non_exhaustive()
    }
}
