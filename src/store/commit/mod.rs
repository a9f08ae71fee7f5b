//! Group commit: one transaction and one sync for all queued operations.
//!
//! A caller queues its operation with a callback. One thread drains the queue, runs each
//! operation in a savepoint of a single transaction, commits, and then calls every callback.
//! Operations that arrive meanwhile wait for the next batch; a lone operation is committed
//! at once. There is no timer, and no thread blocks on a request's sync: the committing
//! thread sends the answer.
//!
//! # Invariants
//! - A caller learns of success only after COMMIT has returned, which with
//!   `synchronous=FULL` is after the sync.
//! - An operation that fails or panics is rolled back alone; its neighbours commit.
//! - If COMMIT fails, every operation of the batch fails, none of them is in the database,
//!   and all cached state is dropped. A panic of the committing thread itself counts as such
//!   a failure.
//! - No caller waits for a thread that has ended: its end closes the queue.
//!
//! # Locking
//! `queue` is held only briefly; `writer` is held by the committing thread for one batch, and
//! by a checkpoint between batches. `writer` is never taken while holding `queue`. Answers
//! are sent and logged with neither held. A standard error that nobody reads blocks this
//! thread once, for a tenth of a second: see [`crate::stderr`].

mod batch;
mod job;
mod tx;

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::sync::{join, unpoisoned};

use super::error::Error;
use super::known::Known;
use super::receipts::Head;
use super::watch::Watch;
use batch::Writer;
use job::{Job, Operation, settle};

pub use tx::Tx;

/// Maximum operations per transaction: bounds how long the first one waits.
const BATCH_MAX: usize = 256;

/// The write side of the store.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State shared by callers, the committing thread and the checkpointer.
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Operation>>,
    /// The committing thread is waiting for work.
    idle: bool,
    closed: bool,
}

impl Committer {
    pub(crate) fn start(
        connection: Connection,
        head: Head,
        watch: Arc<Watch>,
        known: Arc<Known>,
    ) -> io::Result<Self> {
        let writer = Mutex::new(Writer::new(connection, head, watch, known));
        let shared = Arc::new(Shared { queue: Mutex::default(), arrived: Condvar::new(), writer });
        let committing = Arc::clone(&shared);
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || committing.run())?;
        Ok(Committer { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `operation` in a write transaction, then `done` once it is on disk or has failed.
    /// `done` runs on the committing thread, so it must be short.
    pub(crate) fn write_then<T, E, F, D>(&self, operation: F, done: D)
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let job = Job::new(operation, done);
        if let Some(refused) = self.shared.enqueue(Box::new(job)) {
            refused.settle(Err(Error::Closed));
        }
    }

    /// Like [`Committer::write_then`], but waits for the result.
    pub(crate) fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.write_then(operation, move |result| {
            sender.send(result).unwrap_or_else(|_| log::error!("the caller of a write is gone"));
        });
        receiver.recv().unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    /// Runs `task` on the write connection between two batches.
    pub(crate) fn between_batches<R>(&self, task: impl FnOnce(&Connection) -> R) -> Option<R> {
        unpoisoned(&self.shared.writer).connection.as_ref().map(task)
    }

    /// Rejects further operations, finishes the queued ones, and returns the connection.
    pub(crate) fn close(&self) -> Option<Connection> {
        unpoisoned(&self.shared.queue).closed = true;
        self.shared.arrived.notify_one();
        join(&self.thread);
        unpoisoned(&self.shared.writer).connection.take()
    }
}

impl Shared {
    /// Queues the job, or returns it if the store is closing.
    fn enqueue(&self, job: Box<dyn Operation>) -> Option<Box<dyn Operation>> {
        let mut queue = unpoisoned(&self.queue);
        if queue.closed {
            return Some(job);
        }
        queue.waiting.push_back(job);
        if std::mem::take(&mut queue.idle) {
            self.arrived.notify_one();
        }
        None
    }

    /// The committing thread: runs batches until the store is closed and the queue is empty.
    fn run(&self) {
        let _closer = QueueCloser(self);
        while self.wait_for_work() {
            let (batch, outcome) = {
                let mut writer = unpoisoned(&self.writer);
                let mut batch = self.take_batch();
                let outcome = writer.commit(&mut batch);
                (batch, outcome)
            };
            settle(batch, &outcome);
        }
    }

    /// False if the queue is empty and closed.
    fn wait_for_work(&self) -> bool {
        let mut queue = unpoisoned(&self.queue);
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            queue.idle = true;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.idle = false;
        true
    }

    fn take_batch(&self) -> Vec<Box<dyn Operation>> {
        let mut queue = unpoisoned(&self.queue);
        let count = queue.waiting.len().min(BATCH_MAX);
        queue.waiting.drain(..count).collect()
    }
}

/// Closes the queue when the committing thread ends, even by an uncaught panic: waiting callers
/// get an error, later ones are rejected, and readiness reports it.
struct QueueCloser<'a>(&'a Shared);

impl Drop for QueueCloser<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = unpoisoned(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        if thread::panicking() {
            log::error!("the committing thread panicked: nothing can be written until a restart");
            unpoisoned(&self.0.writer).watch.write_failed(&Error::Panicked);
        }
        settle(waiting, &Err(Error::Closed));
    }
}

#[cfg(test)]
pub(super) mod tests;
