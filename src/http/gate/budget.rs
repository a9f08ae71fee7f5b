//! A budget of bytes (or permits) shared by all connections.
//!
//! Never waits: a claim that does not fit fails immediately. Invariant: the amount in use
//! never exceeds the maximum, and dropping a [`Share`] returns all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum that all connections together may hold.
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

/// One connection's part of a budget, returned when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    pub(super) fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), held: 0 }
    }

    /// Grows the share to at least `count`; returns false, changing nothing, if it does not fit.
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
