//! A batch: one transaction for all queued operations, each in its own savepoint.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;

use crate::store::connection;
use crate::store::error::Error;
use crate::store::known::Known;
use crate::store::receipts::Head;
use crate::store::watch::Watch;
use crate::throttle::Throttle;

use super::job::Operation;
use super::tx::Tx;

/// Throttled because a full disk fails one batch after another.
static FAILURES: Throttle = Throttle::new(module_path!());

/// The state that batches run on.
pub(super) struct Writer {
    /// `None` once the store is closed.
    pub(super) connection: Option<Connection>,
    /// The head on disk, if known; never ahead of it.
    head: Option<Head>,
    pub(super) watch: Arc<Watch>,
    known: Arc<Known>,
    /// The last seen `PRAGMA data_version`, which changes when others write to the database.
    data_version: i64,
    /// A commit failed, and its frames may still be in the log.
    has_stale_frames: bool,
}

impl Writer {
    pub(super) fn new(connection: Connection, head: Head, watch: Arc<Watch>, known: Arc<Known>) -> Self {
        Writer {
            connection: Some(connection),
            head: Some(head),
            watch,
            known,
            data_version: 0,
            has_stale_frames: false,
        }
    }

    /// Runs and commits a batch; a failure leaves no trace of it.
    pub(super) fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<(), Error> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_commit(batch)));
        let outcome = outcome.unwrap_or(Err(Error::Panicked));
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

    /// Returns whether anything was written.
    fn try_commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
        self.watch.check_files()?;
        self.overwrite_stale_frames()?;
        self.run_batch(batch)
    }

    fn run_batch(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
        let connection = self.connection.as_ref().ok_or(Error::Closed)?;
        execute(connection, "BEGIN IMMEDIATE").map_err(Error::cannot("begin a write transaction"))?;
        let data_version = connection::data_version(connection)
            .map_err(Error::cannot("check for changes by other programs"))?;
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
            // Nothing to keep: rejected operations cost no sync.
            execute(connection, "ROLLBACK").map_err(Error::cannot("roll back"))?;
            self.head = Some(before);
            return Ok(false);
        }
        if head.seq != before.seq {
            head.store(connection)?;
        }
        // The guard recognizes the database's own log by its images of page 1. SQLite may
        // restart the log with any transaction, so every transaction writes one.
        connection::touch(connection).map_err(Error::cannot("write to the database"))?;
        self.has_stale_frames = true;
        execute(connection, "COMMIT").map_err(Error::cannot("commit"))?;
        self.has_stale_frames = false;
        if registry_changed {
            self.known.forget();
        }
        self.head = Some(head);
        Ok(true)
    }

    /// Cleans up after a failure: closes the transaction and drops all cached state.
    fn clean_up(&mut self) {
        self.head = None;
        self.known.forget();
        let Some(connection) = &self.connection else { return };
        if !connection.is_autocommit()
            && let Err(error) = execute(connection, "ROLLBACK")
        {
            FAILURES.error(format_args!("cannot roll back: {error}"));
        }
        if let Err(error) = self.overwrite_stale_frames() {
            FAILURES.error(error);
        }
    }

    /// Overwrites the frames of a failed commit in the log.
    ///
    /// A commit whose sync failed has already written its frames, checksums included. After
    /// a kill they would be replayed: operations reported as failed would be in the database.
    /// The next transaction's frames go to the same place, so one is written at once, and
    /// nothing else is until it has succeeded.
    fn overwrite_stale_frames(&mut self) -> Result<(), Error> {
        if self.has_stale_frames {
            let connection = self.connection.as_ref().ok_or(Error::Closed)?;
            connection::touch(connection).map_err(Error::cannot("overwrite a failed transaction"))?;
            self.has_stale_frames = false;
        }
        Ok(())
    }
}

/// Runs every operation; returns whether anything is to be kept.
fn run_all(tx: &mut Tx<'_>, batch: &mut [Box<dyn Operation>]) -> Result<bool, Error> {
    let alone = batch.len() == 1;
    let mut kept = false;
    for job in batch {
        kept |= run_one(tx, job, alone, kept)?;
    }
    Ok(kept)
}

/// Runs one operation; if it fails, rolls it back alone. A single operation needs no
/// savepoint: it has the transaction to itself.
fn run_one(tx: &mut Tx<'_>, job: &mut Box<dyn Operation>, alone: bool, kept: bool) -> Result<bool, Error> {
    let connection = tx.connection;
    let savepoint = |sql| execute(connection, sql).map_err(Error::cannot("set a savepoint"));
    if !alone {
        savepoint("SAVEPOINT operation")?;
    }
    let before = tx.head.clone();
    let keep = job.run(tx, kept);
    if connection.is_autocommit() {
        // SQLite rolls back the whole transaction when the disk is full or fails, so earlier
        // operations of this batch are gone too.
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

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
