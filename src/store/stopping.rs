//! The gateway's stop, as work that takes long sees it: a stop must not wait for a backup
//! or a verification.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::Error;

/// How often a connection looks whether its work is over, in operations of SQLite's virtual
/// machine: well under a millisecond.
const LOOK_EVERY_OPERATIONS: i32 = 1000;

/// What has taken no longer when the gateway stops may finish: a request in flight does.
const SHORT: Duration = Duration::from_secs(2);

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
        look_often(connection, move || stopping.is_set())
    }

    /// The same, except for what is done within two seconds of now.
    pub(super) fn ends_long(&self, connection: &mut Connection) -> Result<(), Error> {
        let (stopping, began) = (self.clone(), Instant::now());
        look_often(connection, move || stopping.is_set() && began.elapsed() >= SHORT)
    }
}

/// Makes whatever runs on `connection` ask often whether it is over, and fail with an
/// interrupt when it is.
pub(super) fn look_often(
    connection: &mut Connection,
    is_over: impl FnMut() -> bool + Send + 'static,
) -> Result<(), Error> {
    connection
        .progress_handler(LOOK_EVERY_OPERATIONS, Some(is_over))
        .map_err(Error::cannot("watch a connection"))
}
