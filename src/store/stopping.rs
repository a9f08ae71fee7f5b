//! The gateway's shutdown, as seen by long-running work: a shutdown must not wait for a
//! backup or a verification.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::Error;

/// How often a connection checks whether to stop, in instructions of SQLite's virtual
/// machine: well under a millisecond apart.
const CHECK_EVERY_OPERATIONS: i32 = 1000;

/// Work that has run for less than this when the gateway stops may go on until it reaches
/// it: a request in flight finishes.
const SHORT: Duration = Duration::from_secs(2);

/// Set once, when the gateway stops.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Whether the gateway is stopping.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Interrupts statements on `connection` when the gateway stops.
    pub fn ends(&self, connection: &mut Connection) -> Result<(), Error> {
        let stopping = self.clone();
        look_often(connection, move || stopping.is_set())
    }

    /// The same, except that work is left alone for the first two seconds from now.
    pub(super) fn ends_long(&self, connection: &mut Connection) -> Result<(), Error> {
        let (stopping, began) = (self.clone(), Instant::now());
        look_often(connection, move || stopping.is_set() && began.elapsed() >= SHORT)
    }
}

/// Calls `is_over` often while statements run on `connection`, and interrupts them once it
/// returns true.
pub(super) fn look_often(
    connection: &mut Connection,
    is_over: impl FnMut() -> bool + Send + 'static,
) -> Result<(), Error> {
    connection
        .progress_handler(CHECK_EVERY_OPERATIONS, Some(is_over))
        .map_err(Error::cannot("watch a connection"))
}
