//! Background cleanup: blanks the calls of approvals that are no longer needed.
//!
//! A thread runs periodically and blanks a few at a time, so that no request waits long
//! behind it. A failure is retried later; nothing depends on it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::store::{Error, approvals};
use crate::sync::unpoisoned;

use super::Gateway;

/// How often it runs.
const PERIOD: Duration = Duration::from_secs(2);
/// How long it waits after a failure.
const PERIOD_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Calls per transaction; each may be as large as a request body.
const CALLS_AT_ONCE: u32 = 8;

/// Stop signal for the thread.
#[derive(Debug, Default)]
pub struct Housekeeping {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// Starts the thread; it ends after [`stop`].
pub fn start(gateway: Arc<Gateway>) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("housekeeping".to_owned()).spawn(move || {
        let mut period = PERIOD;
        while gateway.housekeeping.waits(period) {
            period = match tidy(&gateway) {
                Err(error) if !error.is_stop() => {
                    log::warn!("cannot blank calls of old approvals, will retry: {error}");
                    PERIOD_AFTER_FAILURE
                }
                Ok(()) | Err(_) => PERIOD,
            };
        }
    })
}

/// Ends the thread.
pub fn stop(gateway: &Gateway) {
    *unpoisoned(&gateway.housekeeping.stopped) = true;
    gateway.housekeeping.changed.notify_all();
}

/// Blanks every call that need not be kept, a few at a time.
pub fn tidy(gateway: &Gateway) -> Result<(), Error> {
    let now = gateway.now();
    while !gateway.housekeeping.is_stopped()
        && gateway.store.read(|connection| approvals::has_blankable(connection, now))?
    {
        gateway.store.write(move |tx| approvals::blank(tx, now, CALLS_AT_ONCE))?;
    }
    Ok(())
}

impl Housekeeping {
    fn is_stopped(&self) -> bool {
        *unpoisoned(&self.stopped)
    }

    /// Waits for `period`; false if the thread should end.
    fn waits(&self, period: Duration) -> bool {
        let stopped = unpoisoned(&self.stopped);
        let waited = self.changed.wait_timeout_while(stopped, period, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
