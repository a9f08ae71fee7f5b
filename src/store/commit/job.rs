//! A caller's operation, and the callback for its result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::error::Error;

use super::tx::Tx;

/// An operation with its caller's types erased.
pub(super) trait Operation: Send {
    /// Runs it; `kept` says whether any work of earlier operations in its batch is kept.
    /// Returns whether to keep its savepoint.
    fn run(&mut self, tx: &mut Tx<'_>, kept: bool) -> bool;
    /// Delivers its result, or the batch's failure, to the caller.
    fn settle(self: Box<Self>, batch: Result<(), Error>);
}

/// An operation with its caller's types.
pub(super) struct Job<F, D, T, E> {
    /// `None` once it has run.
    operation: Option<F>,
    result: Option<Result<T, E>>,
    /// It ran after others of its batch and may have seen their writes.
    saw_others: bool,
    done: D,
}

impl<F, D, T, E> Job<F, D, T, E> {
    pub(super) fn new(operation: F, done: D) -> Self {
        Job { operation: Some(operation), result: None, saw_others: false, done }
    }
}

impl<F, D, T, E> Operation for Job<F, D, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    D: FnOnce(Result<T, E>) + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>, kept: bool) -> bool {
        self.saw_others = kept;
        let operation = self.operation.take().expect("an operation runs once");
        let ran = catch_unwind(AssertUnwindSafe(|| operation(tx)));
        let result = ran.unwrap_or_else(|_| Err(Error::Panicked.into()));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn settle(self: Box<Self>, batch: Result<(), Error>) {
        let Job { result, saw_others, done, .. } = *self;
        done(match (batch, result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Closed.into()),
            // Its own error is more specific, unless it is based on rows never committed.
            (Err(_), Some(Err(own))) if !saw_others => Err(own),
            (Err(error), _) => Err(error.into()),
        });
    }
}

/// Delivers every result; a caller that panics does not affect the others.
pub(super) fn settle(jobs: impl IntoIterator<Item = Box<dyn Operation>>, outcome: &Result<(), Error>) {
    for job in jobs {
        if catch_unwind(AssertUnwindSafe(|| job.settle(outcome.clone()))).is_err() {
            log::error!("a caller panicked on receiving its result");
        }
    }
}
