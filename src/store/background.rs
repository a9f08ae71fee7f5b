//! Pacing of long work beside live traffic: it ends when the gateway stops, and yields while
//! requests are being served.
//!
//! A low priority does not help: the scheduler lets a running thread finish its slice of a
//! few milliseconds, and an answer passes through five threads. Measured on two processors
//! at niceness 10, the checks of a 1 GB backup multiplied the 99th percentile latency of
//! 1,500 authorizations a second by nine to fifteen.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::Error;
use super::stopping::{Stopping, look_often};
use super::watch::Watch;

/// How long a thread works before it checks whether to rest: the delay it may add to an
/// answer.
const BURST: Duration = Duration::from_micros(500);
/// Traffic has stopped if the last answer is this long ago.
const QUIET: Duration = Duration::from_millis(50);

/// Tells long work when to rest and when to end.
#[derive(Debug, Clone, Default)]
pub struct Background {
    stopping: Stopping,
    /// Observes the traffic; `None` before the gateway serves.
    watch: Option<Arc<Watch>>,
    /// Number of additional threads that share the work.
    others: u32,
}

impl Background {
    pub(super) fn beside(stopping: &Stopping, watch: &Arc<Watch>) -> Self {
        Background { stopping: stopping.clone(), watch: Some(Arc::clone(watch)), others: 0 }
    }

    /// The same for work shared by `threads` threads. While there is traffic, a single thread
    /// rests as long as it works; each of `n` rests `n` times as long, so that together they
    /// keep less than one processor busy, however many they are.
    pub fn shared_by(&self, threads: usize) -> Self {
        let others = u32::try_from(threads.saturating_sub(1)).unwrap_or(u32::MAX);
        Background { others, ..self.clone() }
    }

    /// Whether the gateway is stopping.
    pub fn stopping(&self) -> &Stopping {
        &self.stopping
    }

    /// Begins a turn of one thread's work.
    pub fn turn(&self) -> Turn {
        Turn { background: self.clone(), began: Instant::now() }
    }

    /// Paces statements on `connection`, and interrupts them when the gateway stops.
    pub fn paces(&self, connection: &mut Connection) -> Result<(), Error> {
        let mut turn = self.turn();
        look_often(connection, move || turn.is_over())
    }

    fn sees_traffic(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.last_use() < QUIET)
    }
}

/// One thread's share of the work.
#[derive(Debug)]
pub struct Turn {
    background: Background,
    began: Instant,
}

impl Turn {
    /// Rests if due; true if the work must end. To be called often.
    pub fn is_over(&mut self) -> bool {
        if self.background.stopping.is_set() {
            return true;
        }
        if self.began.elapsed() >= BURST {
            if self.background.sees_traffic() {
                // Once for this thread's own burst, and once for each other thread's.
                thread::sleep(BURST * (1 + self.background.others));
            }
            self.began = Instant::now();
        }
        false
    }
}
