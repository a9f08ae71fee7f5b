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
//!   database, and what memory knew of it is forgotten.
//!
//! # Locking
//! `queue` is held for moments; `writer` by the committing thread for one batch, and
//! between batches by a checkpoint. Nobody takes `writer` while holding `queue`. Answers
//! are sent, and their lines logged, holding neither; whoever does not read the log from
//! its pipe holds up this thread as any other.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::sync::unpoisoned;
use crate::throttle::Throttle;

use super::error::Error;
use super::known::{Compiled, Known};
use super::migrate;
use super::receipts::Head;
use super::watch::Watch;

/// Most operations in one transaction: bounds how long the first one waits.
const BATCH_MAX: usize = 256;
/// A disk that is full fails one batch after the other.
static FAILURES: Throttle = Throttle::new(module_path!());

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

/// What a batch needs.
struct Writer {
    /// `None` once the store is closed.
    connection: Option<Connection>,
    /// The head on disk, as far as it is known; never ahead of it.
    head: Option<Head>,
    watch: Arc<Watch>,
    known: Arc<Known>,
    /// SQLite's count of the changes that others made to the database.
    data_version: i64,
    /// A commit has failed, and its frames may still stand in the log.
    has_traces: bool,
}

/// The transaction that an operation runs in.
pub struct Tx<'a> {
    connection: &'a Connection,
    pub(super) head: &'a mut Head,
    known: &'a Known,
    registry_changed: &'a mut bool,
}

impl Tx<'_> {
    /// For the functions of `store` that take the transaction.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Policies by their content, which is right whatever changed.
    pub(super) fn compiled(&self) -> &Compiled {
        self.known.compiled()
    }

    /// What is known of agents, operators, tools and policies; `None` once this transaction has changed
    /// them, since nobody may learn of a change before it is committed.
    pub(super) fn known(&self) -> Option<&Known> {
        (!*self.registry_changed).then_some(self.known)
    }

    /// To be called by whoever changes agents, operators, tools or policies.
    pub(super) fn changes_registry(&mut self) {
        *self.registry_changed = true;
    }
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}

/// One caller's operation, without its types.
trait Operation: Send {
    /// Runs it; says whether its savepoint is kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Tells its caller the result, or the failure of the batch.
    fn settle(self: Box<Self>, batch: Result<(), Error>);
}

struct Job<F, D, T, E> {
    operation: Option<F>,
    result: Option<Result<T, E>>,
    done: D,
}

impl<F, D, T, E> Operation for Job<F, D, T, E>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send,
    D: FnOnce(Result<T, E>) + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let operation = self.operation.take().expect("an operation runs once");
        let ran = catch_unwind(AssertUnwindSafe(|| operation(tx)));
        let result = ran.unwrap_or_else(|_| Err(Error::Panicked.into()));
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn settle(self: Box<Self>, batch: Result<(), Error>) {
        let Job { result, done, .. } = *self;
        done(match (batch, result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Closed.into()),
            // What failed by itself keeps its own, more telling error.
            (Err(_), Some(Err(own))) => Err(own),
            (Err(error), _) => Err(error.into()),
        });
    }
}

impl Committer {
    pub(crate) fn start(
        connection: Connection,
        head: Head,
        watch: Arc<Watch>,
        known: Arc<Known>,
    ) -> io::Result<Self> {
        let writer = Writer {
            connection: Some(connection),
            head: Some(head),
            watch,
            known,
            data_version: 0,
            has_traces: false,
        };
        let shared =
            Arc::new(Shared { queue: Mutex::default(), arrived: Condvar::new(), writer: Mutex::new(writer) });
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
        let job = Box::new(Job { operation: Some(operation), result: None, done });
        if let Some(refused) = self.shared.enqueue(job) {
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
        if let Some(thread) = unpoisoned(&self.thread).take()
            && thread.join().is_err()
        {
            log::error!("the committing thread panicked");
        }
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
        while self.wait_for_work() {
            let (batch, outcome) = {
                let mut writer = unpoisoned(&self.writer);
                let mut batch = self.take_batch();
                let outcome = writer.commit(&mut batch);
                (batch, outcome)
            };
            for job in batch {
                let outcome = outcome.clone();
                if catch_unwind(AssertUnwindSafe(|| job.settle(outcome))).is_err() {
                    log::error!("a caller panicked when it was told its result");
                }
            }
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

impl Writer {
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), Error> {
        let outcome = self.try_commit(batch);
        match &outcome {
            Ok(true) => self.watch.wrote(),
            Ok(false) => {}
            Err(error) => {
                FAILURES.error(format_args!("a write transaction failed: {error}"));
                self.watch.write_failed(error);
                self.clean_up();
            }
        }
        outcome.map(|_| ())
    }

    /// Whether anything was written.
    fn try_commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
        self.watch.check_files()?;
        self.cover_traces()?;
        self.run_batch(batch)
    }

    fn run_batch(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
        let connection = self.connection.as_ref().ok_or(Error::Closed)?;
        execute(connection, "BEGIN IMMEDIATE").map_err(Error::cannot("begin a write transaction"))?;
        let data_version = data_version(connection).map_err(Error::cannot("see what others changed"))?;
        if data_version != self.data_version {
            self.data_version = data_version;
            self.head = None;
            self.known.forget();
        }
        let before = match self.head.take() {
            Some(head) => head,
            None => Head::load(connection)?,
        };
        let (mut head, mut registry_changed) = (before.clone(), false);
        let mut tx =
            Tx { connection, head: &mut head, known: &self.known, registry_changed: &mut registry_changed };
        if !run_all(&mut tx, batch)? {
            // Nothing to keep: no sync for operations that were refused.
            execute(connection, "ROLLBACK").map_err(Error::cannot("roll back"))?;
            self.head = Some(before);
            return Ok(false);
        }
        if head.seq != before.seq {
            head.store(connection)?;
        }
        // The guard tells a log that belongs by its images of page 1. SQLite begins the log
        // anew with any transaction, unasked, so each of them holds one.
        touch(connection).map_err(Error::cannot("write to the database"))?;
        self.has_traces = true;
        execute(connection, "COMMIT").map_err(Error::cannot("commit"))?;
        self.has_traces = false;
        if registry_changed {
            self.known.forget();
        }
        self.head = Some(head);
        Ok(true)
    }

    /// After a failure: no transaction is open, and what memory knew is forgotten.
    fn clean_up(&mut self) {
        self.head = None;
        self.known.forget();
        let Some(connection) = &self.connection else { return };
        if !connection.is_autocommit()
            && let Err(error) = execute(connection, "ROLLBACK")
        {
            FAILURES.error(format_args!("cannot roll back: {error}"));
        }
        if let Err(error) = self.cover_traces() {
            FAILURES.error(error);
        }
    }

    /// Leaves no trace of a failed commit in the log.
    ///
    /// A commit whose sync failed has written its frames, checksums and all; a kill
    /// before the next commit would replay them: done, without having been said. The
    /// next transaction's frames take the same place, so one is written at once, and
    /// nothing else is until that has succeeded.
    fn cover_traces(&mut self) -> Result<(), Error> {
        if self.has_traces {
            let connection = self.connection.as_ref().ok_or(Error::Closed)?;
            touch(connection).map_err(Error::cannot("write over a failed transaction"))?;
            self.has_traces = false;
        }
        Ok(())
    }
}

/// Runs every operation; says whether anything is to be kept.
fn run_all(tx: &mut Tx<'_>, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
    let alone = batch.len() == 1;
    let mut kept = false;
    for job in batch {
        kept |= run_one(tx, job, alone)?;
    }
    Ok(kept)
}

/// Changes by a change that another connection committed, by none of our own.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Runs one operation; one that fails is taken back alone. An operation without
/// neighbours needs no savepoint: the transaction is its own.
fn run_one(tx: &mut Tx<'_>, job: &mut Box<dyn Operation>, alone: bool) -> Result<bool, Error> {
    let connection = tx.connection;
    let savepoint = |sql| execute(connection, sql).map_err(Error::cannot("set a savepoint"));
    if !alone {
        savepoint("SAVEPOINT operation")?;
    }
    let before = tx.head.clone();
    let keep = job.run(tx);
    if connection.is_autocommit() {
        // SQLite rolls the whole transaction back by itself when the disk is full
        // or fails; what ran before in this batch is gone too.
        return Err(Error::RolledBack);
    }
    if !keep {
        *tx.head = before;
    }
    match (alone, keep) {
        (true, _) => {}
        (false, true) => savepoint("RELEASE operation")?,
        (false, false) => {
            savepoint("ROLLBACK TO operation")?;
            savepoint("RELEASE operation")?;
        }
    }
    Ok(keep)
}

/// A write that reaches the disk and changes no content. SQLite leaves a row that is
/// set to what it is alone, but always writes the header when the version is set.
pub(crate) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, &format!("PRAGMA user_version = {}", migrate::latest()))
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
    use std::thread::{self, JoinHandle};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::domain::time::Timestamp;
    use crate::evidence::FirstBreak;
    use crate::evidence::database::{self, Extent};
    use crate::store::receipts::{self, Entry};
    use crate::store::{connection, files};

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A committer on a new database, whose next `failures` commits fail.
    struct Made {
        _folder: tempfile::TempDir,
        path: PathBuf,
        committer: Arc<Committer>,
        failures: Arc<AtomicI64>,
    }

    fn made() -> Made {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        files::create_private_file(&path).expect("created");
        let mut creator = connection::creator(&path).expect("it opens");
        migrate::create(&mut creator, NOW).expect("made");
        drop(creator);
        let mut writer = connection::writer(&path).expect("it opens");
        touch(&writer).expect("written");
        let head = Head::load(&writer).expect("a head");
        let failures = Arc::new(AtomicI64::new(0));
        let left = Arc::clone(&failures);
        let fails =
            move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n > 0).then(|| n - 1)).is_ok();
        writer.commit_hook(Some(fails)).expect("hooked");
        let watch = Watch::new(&path, &files::with_suffix(&path, "-wal")).expect("watched");
        let committer =
            Arc::new(Committer::start(writer, head, Arc::new(watch), Arc::default()).expect("a thread"));
        Made { _folder: folder, path, committer, failures }
    }

    type Ran = Result<i64, Error>;

    impl Made {
        fn append(&self, tool: &'static str) -> Ran {
            self.committer.write(move |tx| append(tx, tool))
        }

        /// Runs the operations in one batch: they queue up while the writer is held.
        fn in_one_batch(&self, operations: Vec<fn(&mut Tx<'_>) -> Ran>) -> Vec<Ran> {
            let count = operations.len();
            let threads = self.committer.between_batches(|_| {
                let mut threads: Vec<JoinHandle<Ran>> = Vec::new();
                for (before, operation) in operations.into_iter().enumerate() {
                    let committer = Arc::clone(&self.committer);
                    threads.push(thread::spawn(move || committer.write(operation)));
                    let deadline = Instant::now() + PATIENCE;
                    while unpoisoned(&self.committer.shared.queue).waiting.len() != before + 1 {
                        assert!(Instant::now() < deadline, "it queues up");
                        thread::yield_now();
                    }
                }
                threads
            });
            let threads = threads.expect("it is open");
            assert_eq!(threads.len(), count);
            threads.into_iter().map(|thread| thread.join().expect("no panic gets out")).collect()
        }

        /// The tools of the receipts on disk, in order; the chain must be whole.
        fn chain(&self) -> Vec<String> {
            let reader = connection::reader(&self.path).expect("it opens");
            let mut first = FirstBreak::default();
            let summary = database::verify(&reader, Extent::Whole, &mut first).expect("read");
            assert_eq!(first.0, None);
            let mut tools = reader.prepare("SELECT tool FROM receipts ORDER BY seq").expect("a table");
            let tools: Vec<String> =
                tools.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("text");
            assert_eq!(tools.len() as u64, summary.receipts);
            tools
        }
    }

    fn append(tx: &mut Tx<'_>, tool: &str) -> Ran {
        let entry = Entry {
            nonce: "0",
            agent_id: None,
            user_id: None,
            run_id: None,
            trace_id: None,
            tool,
            action: "read",
            resource: None,
            source_trust: "unknown",
            decision: "allow",
            approver: None,
            action_hash: None,
            decision_id: None,
            decision_hash: None,
            policy_version: None,
        };
        receipts::append(tx, &entry, NOW).map(|appended| appended.seq)
    }

    fn append_and_fail(tx: &mut Tx<'_>) -> Ran {
        append(tx, "fails")?;
        Err(Error::Corrupt("its own error".to_owned()))
    }

    fn append_and_panic(tx: &mut Tx<'_>) -> Ran {
        append(tx, "panics")?;
        panic!("in a test");
    }

    #[test]
    fn an_operation_that_fails_or_panics_is_taken_back_alone() {
        let made = made();
        let results = made.in_one_batch(vec![
            |tx| append(tx, "a"),
            append_and_fail,
            |tx| append(tx, "b"),
            append_and_panic,
            |tx| append(tx, "c"),
        ]);
        assert!(matches!(results[0], Ok(1)) && matches!(results[2], Ok(2)) && matches!(results[4], Ok(3)));
        assert!(matches!(&results[1], Err(Error::Corrupt(own)) if own == "its own error"));
        assert!(matches!(results[3], Err(Error::Panicked)));
        assert_eq!(made.chain(), ["a", "b", "c"]);
        assert_eq!(made.append("d").expect("written"), 4);
        assert_eq!(made.chain(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn an_operation_alone_that_fails_or_panics_leaves_nothing() {
        let made = made();
        made.append("a").expect("written");
        for operation in [append_and_fail, append_and_panic] {
            made.committer.write(operation).expect_err("it fails");
            assert_eq!(made.chain(), ["a"]);
        }
        assert_eq!(made.append("b").expect("written"), 2);
        assert_eq!(made.chain(), ["a", "b"]);
    }

    #[test]
    fn a_batch_in_which_all_fail_leaves_nothing() {
        let made = made();
        let results = made.in_one_batch(vec![append_and_fail, append_and_panic, append_and_fail]);
        assert!(results.iter().all(Result::is_err));
        assert_eq!(made.append("a").expect("written"), 1);
        assert_eq!(made.chain(), ["a"]);
    }

    #[test]
    fn a_failed_commit_fails_every_operation_and_keeps_the_head() {
        // The commit alone, or also the write that is to cover its traces.
        for failures in [1, 2] {
            let made = made();
            made.append("a").expect("written");
            made.failures.store(failures, Ordering::SeqCst);
            let results =
                made.in_one_batch(vec![|tx| append(tx, "b"), append_and_fail, |tx| append(tx, "c")]);
            assert_eq!(made.failures.load(Ordering::SeqCst), 0, "the commits failed");
            assert!(matches!(&results[0], Err(Error::Sqlite { doing: "commit", .. })), "{:?}", results[0]);
            assert!(matches!(&results[1], Err(Error::Corrupt(_))), "its own error is more telling");
            assert!(matches!(&results[2], Err(Error::Sqlite { doing: "commit", .. })));
            assert_eq!(made.chain(), ["a"]);
            assert_eq!(made.append("d").expect("written"), 2);
            assert_eq!(made.chain(), ["a", "d"]);
        }
    }

    #[test]
    fn a_failed_commit_of_one_operation_alone_keeps_the_head() {
        let made = made();
        made.failures.store(1, Ordering::SeqCst);
        made.append("a").expect_err("it fails");
        assert_eq!(made.append("b").expect("written"), 1);
        assert_eq!(made.chain(), ["b"]);
    }

    #[test]
    fn a_transaction_that_sqlite_took_back_fails_the_batch() {
        let made = made();
        let results = made.in_one_batch(vec![
            |tx| append(tx, "a"),
            |tx| {
                tx.connection().execute_batch("ROLLBACK").expect("as SQLite does when the disk is full");
                Err(Error::Corrupt("its own error".to_owned()))
            },
            |tx| append(tx, "b"),
        ]);
        assert!(results.iter().all(Result::is_err), "{results:?}");
        assert_eq!(made.append("c").expect("written"), 1);
        assert_eq!(made.chain(), ["c"]);
    }

    #[test]
    fn many_threads_keep_their_order_and_one_chain() {
        const THREADS: usize = 64;
        const EACH: usize = 12;
        let made = made();
        let failed = AtomicUsize::new(0);
        let mut seqs = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (made, failed) = (&made, &failed);
                    scope.spawn(move || {
                        let mut own = Vec::new();
                        for n in 0..EACH {
                            if (thread + n) % 7 == 0 {
                                made.committer.write(append_and_fail).expect_err("it fails");
                                failed.fetch_add(1, Ordering::Relaxed);
                            } else {
                                own.push(made.append("t").expect("written"));
                            }
                        }
                        assert!(own.is_sorted_by(|a, b| a < b), "a caller's own order: {own:?}");
                        own
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        seqs.sort_unstable();
        let count = THREADS * EACH - failed.load(Ordering::Relaxed);
        assert_eq!(seqs, (1..=i64::try_from(count).expect("few")).collect::<Vec<_>>());
        assert_eq!(made.chain().len(), count);
    }

    #[test]
    fn closing_finishes_what_waits_and_refuses_what_comes() {
        let made = made();
        let threads = made.committer.between_batches(|_| {
            let queue = || unpoisoned(&made.committer.shared.queue);
            let mut threads = Vec::new();
            let deadline = Instant::now() + PATIENCE;
            for before in 0..3 {
                let committer = Arc::clone(&made.committer);
                threads.push(thread::spawn(move || committer.write(|tx| append(tx, "a"))));
                while queue().waiting.len() != before + 1 {
                    assert!(Instant::now() < deadline, "it queues up");
                    thread::yield_now();
                }
            }
            let committer = Arc::clone(&made.committer);
            let closing = thread::spawn(move || committer.close().is_some());
            while !queue().closed {
                assert!(Instant::now() < deadline, "it closes");
                thread::yield_now();
            }
            (threads, closing)
        });
        let (threads, closing) = threads.expect("it is open");
        assert!(threads.into_iter().all(|thread| thread.join().expect("no panic").is_ok()));
        assert!(closing.join().expect("no panic"));
        assert!(matches!(made.append("c"), Err(Error::Closed)));
        assert!(made.committer.close().is_none(), "it closes once");
        assert_eq!(made.chain(), ["a"; 3]);
    }

    /// Without it the guard could not tell an older copy of the database from its own.
    #[test]
    fn a_log_that_began_anew_holds_an_image_of_page_one() {
        let made = made();
        let log = files::with_suffix(&made.path, "-wal");
        for _ in 0..3 {
            made.append("a").expect("committed");
            made.committer.between_batches(|writer| {
                writer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("moved");
            });
            made.append("b").expect("committed");
            let found = crate::store::guard::wal::read(&log).expect("readable").expect("a log with commits");
            assert!(found.page_one.is_some());
        }
    }
}
