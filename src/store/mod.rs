//! The SQLite store. One connection writes, one serves short reads, one checkpoints the
//! write-ahead log, and every potentially long read opens its own. Nothing else opens the file.
//!
//! [`Store::write`] runs an operation in a transaction that is on disk when it returns;
//! [`Store::read`] and [`Store::read_aside`] run a query on a consistent view. The functions
//! that take a [`Tx`] or a `Connection` are in one file per table.

pub mod agents;
pub mod approvals;
pub mod audit;
mod background;
pub mod chain;
mod checkpoint;
mod column;
pub(crate) mod commit;
mod conditions;
pub(crate) mod connection;
pub mod decision_counts;
pub mod decisions;
pub mod error;
pub mod files;
pub mod guard;
mod known;
pub mod migrate;
pub mod nonces;
pub mod operators;
pub mod policies;
pub mod receipts;
pub mod schema;
pub mod sizes;
mod stopping;
pub mod tools;
mod views;
mod watch;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;

use crate::domain::time::Timestamp;

use crate::domain::agent::Agent;
use crate::domain::canon::Hash;
use crate::domain::operator::Operator;
use crate::domain::policy::PolicySet;

use crate::sync::unpoisoned;
use checkpoint::Checkpointer;
use commit::Committer;
use known::Known;
use receipts::Head;
use views::{Length, View, Views};
use watch::Watch;

pub use background::{Background, Turn};
pub use commit::Tx;
pub use error::{Error, Refusal};
pub use known::Basis;
pub use stopping::Stopping;

/// How far the clock may be behind the last receipt before a warning is logged.
const CLOCK_BEHIND_SECONDS_MAX: i64 = 300;

/// The open database.
pub struct Store {
    path: PathBuf,
    committer: Arc<Committer>,
    reader: Mutex<Option<Connection>>,
    checkpointer: Checkpointer,
    views: Arc<Views>,
    watch: Arc<Watch>,
    known: Arc<Known>,
    stopping: Stopping,
    closed: AtomicBool,
}

impl Store {
    /// Opens a database that the guard has admitted, and brings its schema up to date.
    pub fn open(layout: &guard::Layout, now: Timestamp) -> Result<Self, Refusal> {
        let path = &layout.database;
        let cannot = Refusal::sqlite("open the database");
        let mut writer = connection::writer(path).map_err(&cannot)?;
        migrate::migrate(&mut writer, now)?;
        Self::start(path, layout, writer, now).map_err(Refusal::from)
    }

    fn start(path: &Path, layout: &guard::Layout, writer: Connection, now: Timestamp) -> Result<Self, Error> {
        let open = Error::cannot("open the database");
        let head = Head::load(&writer)?;
        if let Some(last) = head.time_ahead(now, CLOCK_BEHIND_SECONDS_MAX) {
            log::warn!(
                "the clock says {now}, but the last receipt is of {last}: receipts will carry that time until \
                 the clock catches up; check the clock"
            );
        }
        connection::touch(&writer).map_err(Error::cannot("write to the database"))?;
        let reader = connection::reader(path).map_err(&open)?;
        Head::load(&reader)?;
        let checkpoints = connection::checkpointer(path).map_err(&open)?;
        let watch = Watch::new(path, &layout.wal).map_err(Error::cannot_io("stat the database files"))?;
        let watch = Arc::new(watch);
        let known = Arc::new(Known::default());
        let committer = Committer::start(writer, head, Arc::clone(&watch), Arc::clone(&known))
            .map_err(Error::cannot_io("start the committing thread"))?;
        let committer = Arc::new(committer);
        let views = Arc::<Views>::default();
        let checkpointer = Checkpointer::start(checkpoints, Arc::clone(&committer), Arc::clone(&views))
            .map_err(Error::cannot_io("start the checkpoint thread"))?;
        Ok(Store {
            path: path.to_owned(),
            committer,
            reader: Mutex::new(Some(reader)),
            checkpointer,
            views,
            watch,
            known,
            stopping: Stopping::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Runs `operation` in a write transaction; once this returns `Ok`, it is on disk.
    ///
    /// Concurrent operations share a transaction, each in its own savepoint: one that fails
    /// is rolled back alone.
    pub fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.committer.write(operation)
    }

    /// Like [`Store::write`], without blocking: `done` gets the result once it is on disk or
    /// has failed. `done` runs between two commits, so it must be short.
    pub fn write_then<T, E, F, D>(&self, operation: F, done: D)
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.committer.write_then(operation, done);
    }

    /// Runs `query` on one consistent view of the committed state. Short queries only: there
    /// is a single shared reader, behind a mutex.
    pub fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        let reader = unpoisoned(&self.reader);
        let connection = reader.as_ref().ok_or(Error::Closed)?;
        let _view = self.views.begin(Length::Short);
        let result = on_one_view(connection, query);
        if result.is_ok() {
            self.watch.read();
        }
        result
    }

    /// Like [`Store::read`], on a separate connection, for queries that may take long: they
    /// block no other reader, and a shutdown waits at most two seconds for them.
    pub fn read_aside<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        self.read_for(Length::Short, query)
    }

    /// Like [`Store::read_aside`], for work that grows with the history, such as a
    /// verification. While it runs, the write-ahead log cannot be restarted.
    pub fn read_long<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        self.read_for(Length::Long, query)
    }

    fn read_for<T, E: From<Error>>(
        &self,
        length: Length,
        query: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connect_aside()?;
        self.stopping.ends_long(&mut connection)?;
        let _view = self.views.begin(length);
        on_one_view(&connection, query)
    }

    /// The agent whose token has this hash, from the cache if possible. A caller that acts on
    /// it must look it up again inside the transaction.
    pub fn agent_by_token(&self, token: Hash) -> Result<Option<Arc<Agent>>, Error> {
        self.known.agent_or(token, || self.read(|connection| agents::find_by_token(connection, token)))
    }

    /// The operator whose token has this hash, from the cache if possible; the caller must
    /// check that the token is live. A caller that changes anything must look it up again
    /// inside the transaction.
    pub fn operator_by_token(&self, token: Hash) -> Result<Option<Arc<Operator>>, Error> {
        self.known.operator_or(token, || self.read(|connection| operators::find_by_token(connection, token)))
    }

    /// The inputs of a decision, if all of them are cached: for deciding ahead of the
    /// transaction, which compares them with the current ones.
    pub fn basis(&self, token: Hash, names: &(String, String)) -> Option<Basis> {
        self.known.basis(token, names)
    }

    /// The policies in force, on a view of [`Store::read`], from the cache if possible.
    pub fn policies(&self, view: &Connection) -> Result<Arc<PolicySet>, Error> {
        policies::known_or_loaded(&self.known, view)
    }

    /// The source of a copy. Not a read transaction: `VACUUM INTO` is a single statement and
    /// refuses to run inside one. Multi-statement reads belong in [`Store::read_aside`].
    /// A shutdown interrupts the copy.
    pub fn copy_source(&self) -> Result<CopySource<'_>, Error> {
        if self.stopping.is_set() {
            return Err(Error::Closed);
        }
        let mut connection = self.connect_aside()?;
        self.stopping.ends(&mut connection)?;
        Ok(CopySource { connection, _view: self.views.begin(Length::Long) })
    }

    fn connect_aside(&self) -> Result<Connection, Error> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        self.watch.check_files()?;
        connection::reader(&self.path).map_err(Error::cannot("open the database for reading"))
    }

    /// Interrupts backups and verifications and prevents new ones: the gateway is stopping.
    pub fn end_long_work(&self) {
        self.stopping.set();
    }

    /// Pacing for long work done outside the database.
    pub fn background(&self) -> Background {
        Background::beside(&self.stopping, &self.watch)
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A write that changes nothing: it proves that the writer can write and sync.
    pub fn prove_writer(&self) -> Result<(), Error> {
        self.write(|tx| connection::touch(tx.connection()).map_err(Error::cannot("write to the database")))
    }

    /// Fails if the files were moved or replaced under the running gateway.
    pub fn check_files(&self) -> Result<(), Error> {
        self.watch.check_files()
    }

    /// How long ago the writer last committed, and the write failure since then, if any.
    pub fn last_write(&self) -> (Duration, Option<String>) {
        self.watch.last_write()
    }

    /// Commits what is queued, checkpoints the whole log into the database, and closes; no
    /// log file remains. Later operations fail with [`Error::Closed`].
    ///
    /// Fails with [`Error::Replaced`] if another file has taken the database's place: the
    /// committed data is in the file that was moved away.
    pub fn close(&self) -> Result<(), Error> {
        let in_place = self.check_files();
        self.end_long_work();
        self.closed.store(true, Ordering::Relaxed);
        self.checkpointer.stop();
        drop(unpoisoned(&self.reader).take());
        let Some(writer) = self.committer.close() else { return Ok(()) };
        let busy: bool = writer
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(Error::cannot("checkpoint the write-ahead log"))?;
        if busy {
            return Err(Error::InUse);
        }
        writer.close().map_err(|(_, error)| Error::cannot("close the database")(error))?;
        in_place
    }
}

/// A connection to copy from. While it exists, the write-ahead log cannot be restarted.
#[derive(Debug)]
pub struct CopySource<'a> {
    connection: Connection,
    _view: View<'a>,
}

impl Deref for CopySource<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for CopySource<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Runs `query` in a read transaction: all its statements see the same state.
fn on_one_view<T, E: From<Error>>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let view = connection.unchecked_transaction().map_err(Error::cannot("begin to read"))?;
    let result = query(&view);
    view.finish().map_err(Error::cannot("end a read"))?;
    result
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}
