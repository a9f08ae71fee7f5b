//! Background cleanup: blanks the calls of approvals that are no longer needed.
//!
//! A thread runs periodically and blanks a few at a time, so that no request waits long
//! behind it. A failure is retried later; nothing depends on it.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::store::{Error, approvals};
use crate::sync::{StopSignal, join, unpoisoned};

use super::Gateway;

/// How often it runs.
const PERIOD: Duration = Duration::from_secs(2);
/// How long it waits after a failure.
const PERIOD_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Calls per transaction; each may be as large as a request body.
const CALLS_AT_ONCE: u32 = 8;

/// The thread and its stop signal.
#[derive(Debug, Default)]
pub struct Housekeeping {
    stop: StopSignal,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the thread; [`stop`] ends it.
pub fn start(gateway: &Arc<Gateway>) -> std::io::Result<()> {
    let keeping = Arc::clone(gateway);
    let thread = thread::Builder::new().name("housekeeping".to_owned()).spawn(move || run(&keeping))?;
    *unpoisoned(&gateway.housekeeping.thread) = Some(thread);
    Ok(())
}

/// Stops the thread and joins it: what it began is written before the store closes.
pub fn stop(gateway: &Gateway) {
    gateway.housekeeping.stop.set();
    join(&gateway.housekeeping.thread);
}

fn run(gateway: &Gateway) {
    let mut period = PERIOD;
    while !gateway.housekeeping.stop.wait(period) {
        period = match tidy(gateway) {
            Err(error) if !error.is_stop() => {
                log::warn!("cannot blank calls of old approvals, will retry: {error}");
                PERIOD_AFTER_FAILURE
            }
            Ok(()) | Err(_) => PERIOD,
        };
    }
}

/// Blanks every call that need not be kept, a few at a time.
pub fn tidy(gateway: &Gateway) -> Result<(), Error> {
    let now = gateway.now();
    while !gateway.housekeeping.stop.is_set()
        && gateway.store.read(|connection| approvals::has_blankable(connection, now))?
    {
        if gateway.store.write(move |tx| approvals::blank(tx, now, CALLS_AT_ONCE))? == 0 {
            let kept = "cannot blank calls: the database took it and kept them";
            return Err(Error::Corrupt(kept.to_owned()));
        }
    }
    Ok(())
}
