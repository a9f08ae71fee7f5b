//! One caller's operation, and what is to be done with its result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::store::error::Error;

use super::tx::Tx;

/// An operation, without its caller's types.
pub(super) trait Operation: Send {
    /// Runs it, after others of its batch whose work is `kept` or not; says whether its
    /// savepoint is kept.
    fn run(&mut self, tx: &mut Tx<'_>, kept: bool) -> bool;
    /// Tells its caller the result, or the failure of the batch.
    fn settle(self: Box<Self>, batch: Result<(), Error>);
}

/// An operation, with them.
pub(super) struct Job<F, D, T, E> {
    /// `None` once it has run.
    operation: Option<F>,
    result: Option<Result<T, E>>,
    /// It ran after others of its batch, and may have seen what they wrote.
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
            // Its own error tells more, unless it rests on rows that were never committed.
            (Err(_), Some(Err(own))) if !saw_others => Err(own),
            (Err(error), _) => Err(error.into()),
        });
    }
}

/// Tells each caller; none of them can keep the others from being told.
pub(super) fn settle(jobs: impl IntoIterator<Item = Box<dyn Operation>>, outcome: &Result<(), Error>) {
    for job in jobs {
        if catch_unwind(AssertUnwindSafe(|| job.settle(outcome.clone()))).is_err() {
            log::error!("a caller panicked when it was told its result");
        }
    }
}
