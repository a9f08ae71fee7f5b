//! Counts active readers, so that the write-ahead log can be restarted.
//!
//! SQLite restarts the log only at a moment without readers. Readers that overlap leave no
//! such moment, and the log would grow for as long as they keep coming. So every view is
//! counted, and when the log has grown too long the checkpointer asks for a pause: new views
//! wait until the running ones have ended and the log has been restarted.
//!
//! Long views, such as a backup's, are not waited for. While one runs, the log grows; the next
//! one waits until the log has been restarted in between.
//!
//! # Locking
//! `state` is held only briefly. The checkpointer holds no other lock while it waits here.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sync::unpoisoned;

/// How long a new view waits for a pause to end before it begins anyway.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the checkpointer waits for short views to end.
const DRAIN_MAX: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(crate) struct Views {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    short: usize,
    long: usize,
    /// The log must be restarted before another long view begins.
    wanted: bool,
    /// The log is being restarted.
    pausing: bool,
}

/// How long a view lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// A list: well under a second.
    Short,
    /// A backup or a verification: grows with the history.
    Long,
}

/// A view, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct View<'a> {
    views: &'a Views,
    length: Length,
}

impl Views {
    /// Counts a view that is about to begin.
    pub(crate) fn begin(&self, length: Length) -> View<'_> {
        let must_wait = |state: &mut State| state.pausing || (state.wanted && length == Length::Long);
        let mut state = self.wait(unpoisoned(&self.state), PAUSE_MAX, must_wait);
        *state.count(length) += 1;
        View { views: self, length }
    }

    /// Runs `restart` with no active readers; `None` if a long view is running or the short ones
    /// do not drain in time. No long view begins until a restart has succeeded.
    pub(crate) fn pause<E>(&self, restart: impl FnOnce() -> Result<bool, E>) -> Option<Result<bool, E>> {
        let mut state = unpoisoned(&self.state);
        state.wanted = true;
        if state.long > 0 {
            return None;
        }
        state.pausing = true;
        let state = self.wait(state, DRAIN_MAX, |state| state.short > 0);
        let is_alone = state.short == 0;
        drop(state);
        let restarted = is_alone.then(restart);
        let mut state = unpoisoned(&self.state);
        state.pausing = false;
        state.wanted = !matches!(restarted, Some(Ok(true)));
        self.changed.notify_all();
        restarted
    }

    /// The log is short: no view has to wait any more.
    pub(crate) fn need_no_pause(&self) {
        if std::mem::take(&mut unpoisoned(&self.state).wanted) {
            self.changed.notify_all();
        }
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        at_most: Duration,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'s, State> {
        self.changed.wait_timeout_while(state, at_most, condition).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl State {
    fn count(&mut self, length: Length) -> &mut usize {
        match length {
            Length::Short => &mut self.short,
            Length::Long => &mut self.long,
        }
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        let mut state = unpoisoned(&self.views.state);
        *state.count(self.length) -= 1;
        if state.pausing {
            self.views.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn restarted() -> Result<bool, ()> {
        Ok(true)
    }

    #[test]
    fn a_pause_waits_for_short_views_and_keeps_new_ones_waiting() {
        let views = &Views::default();
        let running = views.begin(Length::Short);
        let (paused, in_pause) = channel();
        let (resume, resumed) = channel();
        thread::scope(|scope| {
            let pausing = scope.spawn(move || {
                views.pause(|| {
                    paused.send(()).expect("somebody waits");
                    resumed.recv().map_err(|_| ()).map(|()| true)
                })
            });
            while !unpoisoned(&views.state).pausing {
                thread::yield_now();
            }
            drop(running);
            in_pause.recv().expect("nobody reads any more");
            let next = scope.spawn(|| drop(views.begin(Length::Short)));
            resume.send(()).expect("it pauses");
            assert_eq!(pausing.join().expect("no panic"), Some(Ok(true)));
            next.join().expect("it began after the pause");
        });
        let state = unpoisoned(&views.state);
        assert!(state.short == 0 && !state.pausing && !state.wanted, "{state:?}");
    }

    #[test]
    fn nobody_waits_for_a_long_view_but_the_next_one() {
        let views = Views::default();
        let backup = views.begin(Length::Long);
        assert_eq!(views.pause(restarted), None);
        drop(views.begin(Length::Short));
        drop(backup);
        let (began, begins) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(views.begin(Length::Long));
                began.send(()).expect("somebody waits");
            });
            assert!(begins.try_recv().is_err(), "it waits for the log");
            assert_eq!(views.pause(restarted), Some(Ok(true)));
            begins.recv().expect("it began");
        });
    }

    #[test]
    fn a_view_that_does_not_end_is_given_up_and_holds_nobody_up() {
        let views = Views::default();
        let slow = views.begin(Length::Short);
        assert_eq!(views.pause(restarted), None);
        drop(views.begin(Length::Short));
        drop(slow);
        assert_eq!(views.pause(restarted), Some(Ok(true)));
    }
}
