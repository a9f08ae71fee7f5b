use std::panic::panic_any;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::*;
use crate::domain::signature::SigningKey;
use crate::domain::time::Timestamp;
use crate::domain::tool::{DefaultDecision, Risk, Tool, ToolAction};
use crate::evidence::FirstBreak;
use crate::evidence::database::{self, Extent};
use crate::store::receipts::{self, Entry};
use crate::store::{agents, connection, files, migrate, tools};

const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
const PATIENCE: Duration = Duration::from_secs(20);

/// A committer on a new database; its next `failures` commits fail.
pub(in crate::store) struct Made {
    _folder: tempfile::TempDir,
    path: PathBuf,
    pub(in crate::store) committer: Arc<Committer>,
    failures: Arc<AtomicI64>,
}

pub(in crate::store) fn made() -> Made {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    files::create_private_file(&path).expect("created");
    let mut creator = connection::creator(&path).expect("it opens");
    migrate::create(&mut creator, NOW).expect("made");
    drop(creator);
    let mut writer = connection::writer(&path).expect("it opens");
    connection::touch(&writer).expect("written");
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
type Run = fn(&mut Tx<'_>) -> Ran;

impl Made {
    fn append(&self, tool: &'static str) -> Ran {
        self.committer.write(move |tx| append(tx, tool))
    }

    /// Runs the operations in one batch, queueing them while the writer is held.
    fn in_one_batch(&self, operations: Vec<Run>) -> Vec<Ran> {
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
    // Only the commit, or also the write that overwrites its frames.
    for failures in [1, 2] {
        let made = made();
        made.append("a").expect("written");
        made.failures.store(failures, Ordering::SeqCst);
        let results = made
            .in_one_batch(vec![append_and_fail, |tx| append(tx, "b"), append_and_fail, |tx| append(tx, "c")]);
        assert_eq!(made.failures.load(Ordering::SeqCst), 0, "the commits failed");
        assert!(matches!(&results[0], Err(Error::Corrupt(_))), "its own error is more specific");
        for result in &results[1..] {
            // The third one saw the second one's row, which was never committed.
            assert!(matches!(result, Err(Error::Sqlite { doing: "commit", .. })), "{result:?}");
        }
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
fn a_write_that_the_database_takes_and_does_not_keep_is_an_error() {
    let cases: [(&str, Run); 3] = [
        ("UPDATE ON chain", |tx| append(tx, "a")),
        ("INSERT ON agent_signing_keys", |tx| {
            agents::set_signing_key(tx, "a", Some(&SigningKey::new(b"key")), NOW).map(|()| 0)
        }),
        ("INSERT ON tool_actions", |tx| tools::upsert(tx, &tool(), NOW).map(|_| 0)),
    ];
    for (write, operation) in cases {
        let made = made();
        let swallow = format!("CREATE TRIGGER mine BEFORE {write} BEGIN SELECT RAISE(IGNORE); END");
        let changed = made.committer.between_batches(|writer| writer.execute_batch(&swallow));
        changed.expect("it is open").expect("a trigger");
        let error = made.committer.write(operation).expect_err(write);
        assert!(matches!(&error, Error::Corrupt(what) if what.ends_with("kept 0 rows")), "{error}");
        assert!(made.chain().is_empty());
    }
}

fn tool() -> Tool {
    let action = ToolAction {
        action_key: "a".to_owned(),
        description: None,
        risk: Risk::Low,
        mutates_state: false,
        approval_required: false,
        default_decision: DefaultDecision::Policy,
        data_access: None,
    };
    Tool {
        id: "i".to_owned(),
        skill_key: "t".to_owned(),
        name: "n".to_owned(),
        kind: "k".to_owned(),
        auth_type: None,
        owner_team: None,
        default_risk: None,
        actions: vec![action],
    }
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

/// Panics outside any caller's code, after queueing another operation.
struct Bomb<P> {
    made: Arc<Committer>,
    payload: fn() -> P,
    other: SyncSender<Ran>,
}

impl<P: Send + 'static> Operation for Bomb<P> {
    fn run(&mut self, _: &mut Tx<'_>, _: bool) -> bool {
        let other = self.other.clone();
        self.made.write_then(|tx| append(tx, "b"), move |result| other.send(result).expect("awaited"));
        panic_any((self.payload)())
    }

    fn settle(self: Box<Self>, _: Result<(), Error>) {}
}

impl Made {
    /// The results of an operation in the bomb's batch, of one queued meanwhile, and of a
    /// later one.
    fn blown_up<P: Send + 'static>(&self, payload: fn() -> P) -> [Ran; 3] {
        let told = || sync_channel(1);
        let ((same, in_batch), (other, waiting), (later, afterwards)) = (told(), told(), told());
        let send = |to: SyncSender<Ran>| move |result| to.send(result).expect("awaited");
        let made = Arc::clone(&self.committer);
        let open = self.committer.between_batches(|_| {
            self.committer.write_then(|tx| append(tx, "a"), send(same));
            self.committer.shared.enqueue(Box::new(Bomb { made, payload, other })).is_none()
        });
        assert_eq!(open, Some(true));
        let result = |from: Receiver<Ran>| match from.recv_timeout(PATIENCE) {
            Ok(result) => result,
            // As `write` treats a dropped sender.
            Err(RecvTimeoutError::Disconnected) => Err(Error::Panicked),
            Err(RecvTimeoutError::Timeout) => panic!("a caller never gets its result"),
        };
        let [in_batch, waiting] = [in_batch, waiting].map(result);
        self.committer.write_then(|tx| append(tx, "c"), send(later));
        [in_batch, waiting, result(afterwards)]
    }
}

#[test]
fn a_panic_of_the_thread_s_own_fails_the_batch_and_nothing_else() {
    let made = made();
    let [same, waiting, later] = made.blown_up(|| "in a test");
    assert!(matches!(same, Err(Error::Panicked)), "{same:?}");
    assert_eq!((waiting.expect("written"), later.expect("written")), (1, 2));
    assert_eq!(made.chain(), ["b", "c"]);
}

/// A panic payload that panics again when dropped, which nothing catches.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        panic!("in a test");
    }
}

#[test]
fn when_the_thread_has_ended_nobody_waits_and_it_is_known() {
    let made = made();
    let [same, waiting, later] = made.blown_up(|| Fuse);
    assert!(matches!(same, Err(Error::Panicked)), "{same:?}");
    assert!(matches!(waiting, Err(Error::Closed)), "{waiting:?}");
    assert!(matches!(later, Err(Error::Closed)), "{later:?}");
    let (_, failure) = unpoisoned(&made.committer.shared.writer).watch.last_write();
    assert_eq!(failure, Some(Error::Panicked.to_string()));
    drop(made.committer.close().expect("a connection"));
    assert!(made.chain().is_empty());
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

/// Without it, the guard could not tell an older copy of the database from the log's own.
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
