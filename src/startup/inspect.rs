//! Reads a database's content without changing a byte. A foreign, unknown or damaged database
//! is rejected before SQLite may write to it.

use std::fs;
use std::thread;

use rusqlite::Connection;

use crate::evidence::database::{self, Extent};
use crate::evidence::{FirstBreak, Summary, parallel};
use crate::store::error::{Error, Refusal};
use crate::store::guard::{Judgement, Layout, LogPlan};
use crate::store::receipts::Head;
use crate::store::{connection, migrate, schema};

/// Databases up to this size are fully checked at every start. Larger ones are fully checked
/// only if something else may have modified them, which keeps startup fast.
const ALWAYS_CHECKED_BYTES_MAX: u64 = 64 << 20;
/// How many of the newest receipts are checked otherwise.
const TAIL_RECEIPTS: i64 = 1000;

/// A database that passed its checks, still unmodified.
pub(super) struct Content {
    /// Reads the database, together with its log if that belongs to it.
    pub(super) connection: Connection,
    /// Its schema version.
    pub(super) version: u32,
}

/// Checks the database; fully if it is `doubtful` or small.
pub(super) fn inspect(layout: &Layout, judgement: &Judgement, doubtful: bool) -> Result<Content, Refusal> {
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
    check_schema(&content, version)?;
    Ok(Content { connection: content, version })
}

/// Without its triggers and unique indexes, the evidence is unprotected.
fn check_schema(content: &Connection, version: u32) -> Result<(), Refusal> {
    match schema::difference(content, version)? {
        None => Ok(()),
        Some(difference) => Err(Refusal::new(
            format!("the database's schema is not the program's: {difference}"),
            "see with aegis-verify-receipts whether the evidence is whole; drop what was added, or restore a \
             backup in its place",
        )),
    }
}

/// Checks every page and the whole chain, in parallel if several connections can share the
/// same unchanging view.
fn check_whole(content: &Connection, mut others: Vec<Connection>) -> Result<(), Refusal> {
    let Some(aside) = others.pop() else {
        check_pages(content)?;
        return check_chain(|first| database::verify(content, Extent::Whole, first));
    };
    thread::scope(|scope| {
        let pages = scope.spawn(move || check_pages(&aside));
        let chain = check_chain(|first| parallel::verify(content, others, first));
        // Reported first: a damaged page is the cause of the breaks it makes in the chain.
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
