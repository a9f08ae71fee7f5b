//! Group commit: one transaction and one sync for every operation that waits.
//!
//! A caller puts its operation into the queue, with what is to be done afterwards. One
//! thread takes all that waits, runs each operation in a savepoint of one transaction,
//! commits, and then tells every caller. What comes meanwhile waits for the next
//! batch; an operation that is alone is committed at once. No timer is involved, and
//! no thread waits for a request's sync: its answer is sent by who committed it.
//!
//! # Invariants
//! - A caller hears of success only after COMMIT has returned, which with
//!   `synchronous=FULL` is after the sync.
//! - An operation that fails or panics is rolled back alone; its neighbours commit.
//! - When COMMIT fails, every operation of the batch fails, none is in the
//!   database, and what memory knew of it is forgotten. A panic of the committing thread's
//!   own is such a failure.
//! - Nobody waits for a thread that has ended: with it the queue is closed.
//!
//! # Locking
//! `queue` is held for moments; `writer` by the committing thread for one batch, and
//! between batches by a checkpoint. Nobody takes `writer` while holding `queue`. Answers
//! are sent, and their lines logged, holding neither. A log that nobody reads holds this
//! thread up once, for a tenth of a second: see [`crate::stderr`].

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

/// Most operations in one transaction: bounds how long the first one waits.
const BATCH_MAX: usize = 256;

/// The write side of the store.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers, the committing thread and the checkpointer share.
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Operation>>,
    /// The committing thread waits for work.
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

    /// Runs `operation` in a write transaction, and `done` once it is on disk or has
    /// failed. `done` runs on the committing thread: short work only.
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

    /// The same, waiting for the result.
    pub(crate) fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        self.write_then(operation, move |result| {
            sender.send(result).unwrap_or_else(|_| log::error!("nobody waits for a written operation"));
        });
        receiver.recv().unwrap_or_else(|_| Err(Error::Panicked.into()))
    }

    /// Runs `task` on the write connection between two batches.
    pub(crate) fn between_batches<R>(&self, task: impl FnOnce(&Connection) -> R) -> Option<R> {
        unpoisoned(&self.shared.writer).connection.as_ref().map(task)
    }

    /// Refuses further operations, lets those that wait finish, and gives up the connection.
    pub(crate) fn close(&self) -> Option<Connection> {
        unpoisoned(&self.shared.queue).closed = true;
        self.shared.arrived.notify_one();
        join(&self.thread);
        unpoisoned(&self.shared.writer).connection.take()
    }
}

impl Shared {
    /// Adds to the queue, or gives the job back when the store is closing.
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

    /// The committing thread: batch after batch, until the store is closed and
    /// nothing waits.
    fn run(&self) {
        let _closes_the_queue = End(self);
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

    /// False when there is none and there will be none.
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

/// The committing thread's end, also by a panic that nothing has caught: whoever waits is
/// told, whoever comes is refused, and readiness knows.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = unpoisoned(&self.0.queue);
            queue.closed = true;
            std::mem::take(&mut queue.waiting)
        };
        if thread::panicking() {
            log::error!("the committing thread has panicked: nothing is written until a restart");
            unpoisoned(&self.0.writer).watch.write_failed(&Error::Panicked);
        }
        settle(waiting, &Err(Error::Closed));
    }
}

#[cfg(test)]
pub(super) mod tests;
