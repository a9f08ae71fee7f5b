//! Work that takes long beside live traffic: it ends when the gateway stops, and rests
//! while others wait for answers.
//!
//! A low priority does not help: the scheduler lets whoever runs finish a slice of some
//! milliseconds first, and an answer passes through five threads. Measured on two
//! processors at niceness 10, the checks of a backup of 1 GB made the 99th percentile of
//! 1,500 authorizations a second nine to fifteen times as long.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::Error;
use super::stopping::{Stopping, look_often};
use super::watch::Watch;

/// How long a thread works before it looks whether to rest: what an answer may have to
/// wait for it.
const BURST: Duration = Duration::from_micros(500);
/// An answer this long ago is no traffic any more.
const QUIET: Duration = Duration::from_millis(50);

/// What long work goes by.
#[derive(Debug, Clone, Default)]
pub struct Background {
    stopping: Stopping,
    /// Who sees the traffic; nobody before the gateway serves.
    watch: Option<Arc<Watch>>,
    /// How many threads do the work, beside the one.
    others: u32,
}

impl Background {
    pub(super) fn beside(stopping: &Stopping, watch: &Arc<Watch>) -> Self {
        Background { stopping: stopping.clone(), watch: Some(Arc::clone(watch)), others: 0 }
    }

    /// The same for work that so many threads do side by side. While there is traffic, one
    /// alone rests as long as it works; of `n` each rests `n` times as long, so that together
    /// they keep less than one processor busy, however many they are.
    pub fn shared_by(&self, threads: usize) -> Self {
        let others = u32::try_from(threads.saturating_sub(1)).unwrap_or(u32::MAX);
        Background { others, ..self.clone() }
    }

    /// Whether the gateway stops.
    pub fn stopping(&self) -> &Stopping {
        &self.stopping
    }

    /// Begins a turn of one thread's work.
    pub fn turn(&self) -> Turn {
        Turn { background: self.clone(), began: Instant::now() }
    }

    /// Makes whatever runs on `connection` rest, and end when the gateway stops.
    pub fn paces(&self, connection: &mut Connection) -> Result<(), Error> {
        let mut turn = self.turn();
        look_often(connection, move || turn.is_over())
    }

    fn sees_traffic(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.last_use() < QUIET)
    }
}

/// One thread's work, to be interrupted often.
#[derive(Debug)]
pub struct Turn {
    background: Background,
    began: Instant,
}

impl Turn {
    /// Rests if it is time to; true when the work is to end.
    pub fn is_over(&mut self) -> bool {
        if self.background.stopping.is_set() {
            return true;
        }
        if self.began.elapsed() >= BURST {
            if self.background.sees_traffic() {
                // As long as the work itself, and as that of each of the others.
                thread::sleep(BURST * (1 + self.background.others));
            }
            self.began = Instant::now();
        }
        false
    }
}
