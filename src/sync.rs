//! Locks that a panic does not poison, and threads that end when they are told to.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Locks `mutex`, ignoring poison. No state behind these locks is left half updated by a
/// panic: code that can panic is caught before it unwinds through them.
pub(crate) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a thread to end, also while it waits for its next turn.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    pub(crate) fn set(&self) {
        *unpoisoned(&self.set) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *unpoisoned(&self.set)
    }

    /// Waits until it is set, and for `period` at most; returns whether it is.
    pub(crate) fn wait(&self, period: Duration) -> bool {
        let set = unpoisoned(&self.set);
        let waited = self.changed.wait_timeout_while(set, period, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Waits for the end of a thread that was told to; for the first who asks.
pub(crate) fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    let Some(thread) = unpoisoned(thread).take() else { return };
    let name = thread.thread().name().unwrap_or("unnamed").to_owned();
    if thread.join().is_err() {
        log::error!("the thread {name} panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn whoever_waits_is_told_at_once_and_otherwise_goes_on_in_time() {
        let (signal, begin) = (StopSignal::default(), Instant::now());
        assert!(!signal.wait(Duration::from_millis(1)));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| signal.wait(LONG));
            signal.set();
            assert!(waiting.join().expect("no panic"));
        });
        assert!(signal.is_set() && signal.wait(LONG), "and so is whoever comes later");
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn a_thread_is_joined_once_whether_or_not_it_panicked() {
        for task in [|| {}, || panic!("in a test")] {
            let thread = Mutex::new(Some(thread::spawn(task)));
            join(&thread);
            join(&thread);
            assert!(unpoisoned(&thread).is_none());
        }
    }
}
