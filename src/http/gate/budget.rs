//! A count of bytes (or of permits) that many connections share.
//!
//! Never waits: a share that does not fit is refused at once. The invariant: what is taken
//! never exceeds the maximum, and a dropped [`Share`] has given everything back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What may be held at once over all connections.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    fn take(&self, count: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(count).filter(|&sum| sum <= self.max)
            })
            .is_ok()
    }
}

/// One connection's part of a budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), held: 0 }
    }

    /// Holds at least `count` from now on; false, and nothing changed, where that does not fit.
    pub(super) fn hold(&mut self, count: usize) -> bool {
        let more = count.saturating_sub(self.held);
        if more > 0 && !self.budget.take(more) {
            return false;
        }
        self.held += more;
        true
    }

    pub(super) fn release(&mut self) {
        if self.held > 0 {
            self.budget.used.fetch_sub(self.held, Ordering::AcqRel);
            self.held = 0;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}
