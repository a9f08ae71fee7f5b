//! The way of a start: from the files as they lie there to an open store.
//!
//! Everything that can refuse comes before anything that writes: the lock, the
//! guard's rules on the bytes, then the content, read without touching it. Only
//! then is a log set aside, the file's identity recorded, and SQLite let in.

use std::fs;
use std::path::Path;
use std::thread;

use rusqlite::Connection;

use crate::domain::time::Timestamp;
use crate::evidence::database::{self, Extent};
use crate::evidence::{FirstBreak, Summary, parallel};
use crate::store::error::{Error, Refusal};
use crate::store::guard::{Found, Guard, Judgement, Layout, LogPlan, WalChoice};
use crate::store::receipts::Head;
use crate::store::{Store, connection, files, migrate};

/// Databases up to this size are checked whole at every start; larger ones only
/// when somebody else may have touched them, so that a start stays quick.
const ALWAYS_CHECKED_BYTES_MAX: u64 = 64 << 20;
/// How many of the last receipts are checked in any case.
const TAIL_RECEIPTS: i64 = 1000;

/// An open store, and the lock that makes it the only one.
#[derive(Debug)]
pub struct Started {
    /// The store.
    pub store: Store,
    /// The lock; to be released after the store is closed.
    pub guard: Guard,
}

/// Opens the database at `path`, or says why not and leaves everything as it was.
pub fn start(path: &Path, choice: Option<WalChoice>, now: Timestamp) -> Result<Started, Refusal> {
    let mut guard = Guard::lock(path)?;
    let judgement = guard.judge(choice)?;
    guard.check_writable()?;
    if let Found::Database { restored, as_left, .. } = judgement.found {
        inspect(guard.layout(), &judgement, restored || !as_left)?;
    }
    if let Some(aside) = guard.clear_the_way(&judgement, now)? {
        log::warn!(
            "set aside a write-ahead log that does not belong to {}: it is kept as {}",
            guard.layout().database.display(),
            aside.display()
        );
    }
    // A kill amid `create` leaves its name, also once the database has its own.
    remove_partial(&guard.layout().partial)?;
    match judgement.found {
        Found::Missing { ran_before } => {
            create(guard.layout(), now)?;
            if ran_before {
                log::warn!("the database of the last run is gone; began a new, empty one in its place");
            } else {
                log::info!("made a new database");
            }
        }
        Found::Database { restored: true, .. } => {
            log::info!("the database is a restored copy; it was checked whole")
        }
        Found::Database { restored: false, .. } => {}
    }
    guard.admit(None)?;
    let store = Store::open(guard.layout(), now)?;
    Ok(Started { store, guard })
}

/// Reads the content without changing a byte, and refuses what is not ours, not
/// known, or not whole.
fn inspect(layout: &Layout, judgement: &Judgement, doubtful: bool) -> Result<(), Refusal> {
    let path = &layout.database;
    let open = Refusal::sqlite("open the database");
    let (content, others) = match judgement.log {
        LogPlan::Replay => (connection::with_log(path).map_err(&open)?, Vec::new()),
        LogPlan::Nothing | LogPlan::SetAside => {
            let another = |_| connection::immutable(path).map_err(&open);
            (another(0)?, (1..=parallel::threads()).map(another).collect::<Result<_, _>>()?)
        }
    };
    let version = migrate::check(&content)?;
    let bytes = fs::metadata(path).map_err(Refusal::io("look at", path))?.len();
    if doubtful || bytes <= ALWAYS_CHECKED_BYTES_MAX {
        check_whole(&content, others)?;
    } else {
        check_tail(&content)?;
    }
    check_schema(&content, version)
}

/// Without its triggers and unique indexes the evidence is not defended.
fn check_schema(content: &Connection, version: u32) -> Result<(), Refusal> {
    match migrate::schema_difference(content, version)? {
        None => Ok(()),
        Some(difference) => Err(Refusal::new(
            format!("the database's schema is not the program's: {difference}"),
            "see with aegis-verify-receipts whether the evidence is whole, and restore a backup in its place",
        )),
    }
}

/// Every page and the whole chain; side by side where several connections see the same.
fn check_whole(content: &Connection, mut others: Vec<Connection>) -> Result<(), Refusal> {
    let Some(aside) = others.pop() else {
        check_pages(content)?;
        return check_chain(|first| database::verify(content, Extent::Whole, first));
    };
    thread::scope(|scope| {
        let pages = scope.spawn(move || check_pages(&aside));
        let chain = check_chain(|first| parallel::verify(content, others, first));
        // A damaged page is the cause of what it breaks in the chain.
        pages.join().map_err(|_| Error::Panicked)??;
        chain
    })
}

fn check_pages(content: &Connection) -> Result<(), Refusal> {
    match database::check_integrity(content)?.first() {
        Some(problem) => Err(Refusal::damaged(format!("the database is damaged: {problem}"))),
        None => Ok(()),
    }
}

fn check_tail(content: &Connection) -> Result<(), Refusal> {
    let head = Head::load(content)?;
    let extent = Extent::Part((head.seq - TAIL_RECEIPTS).max(1), head.seq);
    check_chain(|first| database::verify(content, extent, first))
}

fn check_chain(verify: impl FnOnce(&mut FirstBreak) -> Result<Summary, Error>) -> Result<(), Refusal> {
    let mut first = FirstBreak::default();
    verify(&mut first)?;
    match first.0 {
        None => Ok(()),
        Some(broken) => Err(Refusal::new(
            format!("the evidence does not verify: {broken}"),
            "run aegis-verify-receipts on it for every break, and restore a backup in its place",
        )),
    }
}

/// Makes a new database under another name and gives it its own when it is whole.
fn create(layout: &Layout, now: Timestamp) -> Result<(), Refusal> {
    let partial = &layout.partial;
    let made = create_partial(partial, now).and_then(|()| {
        files::sync_file(partial).map_err(Refusal::io("sync", partial))?;
        files::publish(partial, &layout.database).map_err(Refusal::io("name", &layout.database))
    });
    remove_partial(partial)?;
    made?;
    let folder = files::folder_of(&layout.database);
    files::sync_folder(folder).map_err(Refusal::io("sync the folder", folder))
}

fn create_partial(partial: &Path, now: Timestamp) -> Result<(), Refusal> {
    files::create_private_file(partial).map_err(Refusal::io("create", partial))?;
    let cannot = Refusal::sqlite("make a new database");
    let mut database = connection::creator(partial).map_err(&cannot)?;
    migrate::create(&mut database, now)?;
    // Closing moves the log into the file and removes it.
    database.close().map_err(|(_, error)| cannot(error))
}

fn remove_partial(partial: &Path) -> Result<(), Refusal> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = files::with_suffix(partial, suffix);
        files::remove_if_there(&path).map_err(Refusal::io("remove", &path))?;
    }
    Ok(())
}
