//! SQLite: one connection writes, one reads, one keeps the write-ahead log short, and what
//! may take long reads on a connection of its own. Nothing else opens the file.
//!
//! [`Store::write`] runs an operation in a transaction that is on disk when it returns;
//! [`Store::read`] and [`Store::read_aside`] run one on a consistent view. The functions that
//! take a [`Tx`] or a `Connection` are in one file per table.

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

/// How far the clock may be behind the last receipt without a word about it.
const CLOCK_BEHIND_SECONDS_TOLD: i64 = 300;

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
        if let Some(last) = head.time_ahead(now, CLOCK_BEHIND_SECONDS_TOLD) {
            log::warn!(
                "the clock says {now}, but the last receipt is of {last}: receipts will carry that time until \
                 the clock has reached it; see that the clock is right"
            );
        }
        connection::touch(&writer).map_err(Error::cannot("write to the database"))?;
        let reader = connection::reader(path).map_err(&open)?;
        Head::load(&reader)?;
        let checkpoints = connection::checkpointer(path).map_err(&open)?;
        let watch = Watch::new(path, &layout.wal).map_err(Error::cannot_io("look at the database"))?;
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

    /// Runs `operation` in a write transaction; when this returns `Ok`, it is on disk.
    ///
    /// Several callers' operations share a transaction, each in a savepoint of its
    /// own: one that fails is taken back alone.
    pub fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.committer.write(operation)
    }

    /// The same without waiting: `done` gets the result once it is on disk or has
    /// failed. It runs between two commits, so it must be short.
    pub fn write_then<T, E, F, D>(&self, operation: F, done: D)
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.committer.write_then(operation, done);
    }

    /// Runs `query` on one consistent view of what is committed. Short work only:
    /// the reader is one, and guarded by a mutex.
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

    /// The same on a connection of its own, for what may take long: nobody waits for it,
    /// and a stop waits for two seconds of it at most.
    pub fn read_aside<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E>,
        E: From<Error>,
    {
        self.read_for(Length::Short, query)
    }

    /// The same for what takes as long as the history is: a verification. While it runs, the
    /// write-ahead log cannot be restarted.
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

    /// The agent whose token hashes to this. From memory where it is known; whoever
    /// acts on it looks again inside the transaction.
    pub fn agent_by_token(&self, token: Hash) -> Result<Option<Arc<Agent>>, Error> {
        self.known.agent_or(token, || self.read(|connection| agents::find_by_token(connection, token)))
    }

    /// The operator whose token hashes to this; whether it is live is for the caller to
    /// ask. From memory where it is known; whoever changes anything by it looks again
    /// inside the transaction.
    pub fn operator_by_token(&self, token: Hash) -> Result<Option<Arc<Operator>>, Error> {
        self.known.operator_or(token, || self.read(|connection| operators::find_by_token(connection, token)))
    }

    /// What a decision would rest on, if all of it is in memory: for judging ahead of the
    /// transaction, which compares it with what it finds then.
    pub fn basis(&self, token: Hash, names: &(String, String)) -> Option<Basis> {
        self.known.basis(token, names)
    }

    /// The policies in force, on a view of [`Store::read`]. From memory where they are known.
    pub fn policies(&self, view: &Connection) -> Result<Arc<PolicySet>, Error> {
        policies::known_or_loaded(&self.known, view)
    }

    /// The source of a copy: `VACUUM INTO` is one statement, and refuses to run inside a
    /// transaction. Whatever reads in more than one is [`Store::read_aside`]'s. It ends with
    /// the gateway's stop.
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

    /// Ends backups and verifications, and lets none begin: the gateway is stopping.
    pub fn end_long_work(&self) {
        self.stopping.set();
    }

    /// What long work goes by that is done beside the database.
    pub fn background(&self) -> Background {
        Background::beside(&self.stopping, &self.watch)
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A write that changes nothing: it shows that the writer writes and syncs.
    pub fn prove_writer(&self) -> Result<(), Error> {
        self.write(|tx| connection::touch(tx.connection()).map_err(Error::cannot("write to the database")))
    }

    /// Fails when the files were moved or replaced under the gateway.
    pub fn check_files(&self) -> Result<(), Error> {
        self.watch.check_files()
    }

    /// How long ago the writer last committed, and what has failed since.
    pub fn last_write(&self) -> (Duration, Option<String>) {
        self.watch.last_write()
    }

    /// Commits what waits, moves the whole log into the database, and closes: no
    /// log stays beside it. Operations that come later fail with [`Error::Closed`].
    ///
    /// Fails with [`Error::Replaced`] when another file has taken the database's place:
    /// what was written is in the file that was moved away.
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

/// A connection to copy from. As long as it lives, the write-ahead log cannot be restarted.
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

/// Runs `query` in a read transaction: all its statements see one state.
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
