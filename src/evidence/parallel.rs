//! Verifies the whole chain on several connections in parallel, one stretch each. Only for
//! files that do not change.
//!
//! A stretch starts from the stored hash of the receipt before it, which the previous stretch
//! proves, so the result is as strong as that of a sequential walk. Breaks are reported in
//! chain order. Memory is bounded: a stretch that runs ahead blocks once `BREAKS_AHEAD` of its
//! breaks are queued.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

use crate::domain::chain::Break;
use crate::store::error::Error;
use crate::store::receipts;

use super::database::{self, Stretch};
use super::{Observer, Summary};

/// Maximum number of queued breaks per stretch.
const BREAKS_AHEAD: usize = 1024;
/// A shorter stretch is not worth a thread.
const STRETCH_RECEIPTS_MIN: i64 = 16_384;
/// More threads would only contend for the same pages.
const THREADS_MAX: usize = 4;

/// How many connections are useful on this machine.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Verifies the database that `first` has open, with the help of `others`, which have the same
/// file open.
pub fn verify(
    first: &Connection,
    others: Vec<Connection>,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let stretches = stretches(first, others.len() + 1, STRETCH_RECEIPTS_MIN)?;
    verify_stretches(stretches, first, others, observer)
}

fn verify_stretches(
    stretches: Vec<Stretch>,
    first: &Connection,
    others: Vec<Connection>,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let mut stretches = stretches.into_iter();
    let leading = stretches.next().unwrap_or(Stretch::WHOLE);
    let ahead = AtomicU64::new(0);
    let mut summary = thread::scope(|scope| {
        let begin = |(stretch, connection): (Stretch, Connection)| {
            let (sender, breaks) = sync_channel(BREAKS_AHEAD);
            let mut forwarding = Forwarding { sender, ahead: &ahead, reported: 0 };
            (breaks, scope.spawn(move || database::verify_stretch(&connection, stretch, &mut forwarding)))
        };
        let running: Vec<_> = stretches.zip(others).map(begin).collect();
        let mut counting = Counting { observer, ahead: &ahead };
        let mut summary = database::verify_stretch(first, leading, &mut counting)?;
        for (breaks, stretch) in running {
            breaks.iter().for_each(|broken| counting.found(&broken));
            let verified = stretch.join().map_err(|_| Error::Panicked)??;
            summary.extend(verified);
        }
        Ok::<_, Error>(summary)
    })?;
    database::verify_ends(first, &mut summary, observer)?;
    Ok(summary)
}

/// Splits the chain into roughly equal parts, each ending with an existing receipt.
fn stretches(connection: &Connection, count: usize, receipts_min: i64) -> Result<Vec<Stretch>, Error> {
    let last = receipts::last_up_to(connection, i64::MAX)?.unwrap_or(0);
    let length = last / i64::try_from(count).unwrap_or(i64::MAX);
    if length < receipts_min {
        return Ok(vec![Stretch::WHOLE]);
    }
    let (mut stretches, mut first) = (Vec::with_capacity(count), i64::MIN);
    for middle in (1..).map(|number| number * length).take(count - 1) {
        let Some(seq) = receipts::last_up_to(connection, middle)? else { continue };
        // The next stretch cannot start after an unreadable receipt.
        let is_readable = receipts::find_at(connection, seq, |_, _| ()).is_ok();
        if seq >= first && is_readable {
            stretches.push(Stretch { first, last: seq });
            first = seq + 1;
        }
    }
    stretches.push(Stretch { first, last: i64::MAX });
    Ok(stretches)
}

/// Forwards the breaks and the progress of one stretch.
struct Forwarding<'a> {
    sender: SyncSender<Break>,
    ahead: &'a AtomicU64,
    reported: u64,
}

impl Observer for Forwarding<'_> {
    fn found(&mut self, broken: &Break) {
        // The receiver is gone if an earlier stretch could not be read.
        if self.sender.send(broken.clone()).is_err() {
            log::debug!("a break was found after the verification had failed");
        }
    }

    fn progress(&mut self, receipts: u64) {
        self.ahead.fetch_add(receipts - self.reported, Ordering::Relaxed);
        self.reported = receipts;
    }
}

/// Adds the progress of the other stretches to that of the first.
struct Counting<'a> {
    observer: &'a mut dyn Observer,
    ahead: &'a AtomicU64,
}

impl Observer for Counting<'_> {
    fn found(&mut self, broken: &Break) {
        self.observer.found(broken);
    }

    fn progress(&mut self, receipts: u64) {
        self.observer.progress(receipts + self.ahead.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use crate::evidence::database::Extent;

    use super::*;

    #[derive(Default)]
    struct Found(Vec<Break>);

    impl Observer for Found {
        fn found(&mut self, broken: &Break) {
            self.0.push(broken.clone());
        }
    }

    /// A copy of a database of twelve receipts, changed by `sql`.
    fn changed(folder: &Path, sql: &str) -> PathBuf {
        let path = folder.join("changed.db");
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schema_0001.db");
        std::fs::copy(golden, &path).expect("copied");
        let connection = Connection::open(&path).expect("it opens");
        let triggers = "DROP TRIGGER receipts_are_never_updated; DROP TRIGGER receipts_are_never_deleted;
                        DROP TRIGGER decisions_are_never_updated; DROP TRIGGER decisions_are_never_deleted;";
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {triggers} {sql}")).expect("changed");
        path
    }

    #[test]
    fn stretches_find_what_one_walk_finds_in_the_same_order() {
        for (what, sql) in [
            ("nothing", ""),
            ("a member", "UPDATE receipts SET tool = 'other' WHERE seq IN (2, 4, 5, 9, 12)"),
            ("a link", "UPDATE receipts SET prev_receipt_hash = 'x' WHERE seq = 5"),
            ("a hash", "UPDATE receipts SET receipt_hash = upper(receipt_hash) WHERE seq IN (4, 8)"),
            ("rows", "DELETE FROM receipts WHERE seq IN (4, 5, 8)"),
            ("the first rows", "DELETE FROM receipts WHERE seq < 6"),
            ("the last rows", "DELETE FROM receipts WHERE seq > 6"),
            ("every row", "DELETE FROM receipts"),
            ("decisions", "UPDATE decisions SET reason = 'other' WHERE seq IN (1, 4, 7, 10)"),
            ("the head", "UPDATE chain SET head_seq = 3"),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = changed(folder.path(), sql);
            let open = || Connection::open(&path).expect("it opens");
            let mut walked = Found::default();
            let whole = database::verify(&open(), Extent::Whole, &mut walked).expect("read");
            for threads in 1..=5 {
                let stretches = stretches(&open(), threads, 1).expect("read");
                assert!(what != "nothing" || stretches.len() == threads, "{stretches:?}");
                let others = (1..threads).map(|_| open()).collect();
                let mut found = Found::default();
                let summary = verify_stretches(stretches, &open(), others, &mut found).expect("read");
                assert_eq!(found.0, walked.0, "{what}, {threads} threads");
                assert_eq!(summary, whole, "{what}, {threads} threads");
            }
        }
    }
}
