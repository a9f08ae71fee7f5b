//! Opens a database or export for verification, in whatever state it was left, without
//! modifying anything.
//!
//! - Database of a running gateway: opened as an ordinary reader.
//! - Database of a stopped gateway, or a backup: opened as immutable. SQLite would otherwise
//!   create a log and an index beside it.
//! - Database of a killed gateway: its log holds part of the evidence. The guard decides
//!   whether the log belongs to the file. If so, both are read in place, with the log's index
//!   in memory, or from a copy if permissions do not allow that.
//! - Anything doubtful: rejected, because a verdict would be a guess.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::Connection;

use crate::entropy;
use crate::store::error::{Error, Refusal};
use crate::store::guard::header::MAGIC;
use crate::store::guard::{self, Layout, Lock, LockState, LogPlan, WalChoice};
use crate::store::{connection, files, migrate, schema};

use super::database::{self, Extent};
use super::witness::{self, Witnesses};
use super::{Observer, Summary, manifest, parallel};

/// What a path holds.
#[derive(Debug)]
pub enum Source {
    /// A gateway database.
    Database(Box<Database>),
    /// Anything else; read as JSON.
    Export(File),
}

/// A database, open for reading.
#[derive(Debug)]
pub struct Database {
    /// The connection.
    pub connection: Connection,
    /// A note for the user.
    pub note: Option<String>,
    /// Whether it is in the state `VACUUM INTO` leaves: no gateway has run on it.
    pub is_backup: bool,
    /// Keeps a gateway from starting while this is open.
    _lock: Option<Lock>,
    _copy: Option<TemporaryFolder>,
    /// The file's state when it was opened; `None` if others may write to it.
    as_found: Option<(PathBuf, PathBuf, Fingerprint)>,
    /// The file, if it is to be read alone, without a log.
    alone: Option<PathBuf>,
}

/// Why no verdict is possible.
#[derive(Debug)]
pub enum SourceError {
    /// It cannot be read, or is not a gateway database.
    Unreadable(String),
    /// It can be read, but its meaning is in doubt.
    Undecidable(String),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Unreadable(what) | SourceError::Undecidable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for SourceError {}

impl SourceError {
    /// Prefixes the message with the path.
    fn of(self, path: &Path) -> Self {
        let line = format!("{}: {self}", path.display());
        match self {
            SourceError::Unreadable(_) => SourceError::Unreadable(line),
            SourceError::Undecidable(_) => SourceError::Undecidable(line),
        }
    }
}

/// What to do with a log that the guard cannot attribute to the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WalPolicy {
    /// Reject the database as undecidable.
    #[default]
    Judge,
    /// Include its rows.
    Replay,
    /// Ignore it.
    Ignore,
}

type Fingerprint = (u64, SystemTime, bool);

/// Opens `path`.
pub fn open(path: &Path, policy: WalPolicy) -> Result<Source, SourceError> {
    let shown = path.display();
    let unreadable = |error: io::Error| SourceError::Unreadable(format!("cannot read {shown}: {error}"));
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        let line = format!("{shown} is a folder; name a database, a backup or an export in it");
        return Err(SourceError::Unreadable(line));
    }
    if !metadata.is_file() {
        // A pipe, for example; it cannot be a database.
        return Ok(Source::Export(file));
    }
    let mut beginning = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut beginning).map_err(unreadable)?;
    if beginning != MAGIC {
        return match why_not_export(path, &beginning) {
            Some(line) => Err(SourceError::Unreadable(line)),
            None => Ok(Source::Export(File::open(path).map_err(unreadable)?)),
        };
    }
    drop(file);
    let mut database = open_database(path, policy, Reading::Whole)?;
    let difference = check_schema(&database.connection).map_err(|error| error.of(path))?;
    let notes: Vec<String> = [database.note.take(), difference].into_iter().flatten().collect();
    database.note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Source::Database(Box::new(database)))
}

/// Why a file that starts with these bytes is not read as JSON: most of its first bytes, its
/// name or a manifest beside it mark it as a database, or JSON cannot start like this.
fn why_not_export(path: &Path, beginning: &[u8]) -> Option<String> {
    let shown = path.display();
    let no_database = |why| Some(format!("{shown} is not a whole SQLite database: {why}"));
    let others = "its first bytes are not those of one";
    let alike = beginning.iter().zip(MAGIC).filter(|(found, expected)| found == expected).count();
    let is_named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("db"));
    let is_meant = is_named || files::with_suffix(path, manifest::SUFFIX).is_file();
    match beginning.iter().find(|byte| !byte.is_ascii_whitespace()) {
        _ if alike > MAGIC.len() / 2 => no_database(others),
        Some(b'[' | b'{') => None,
        Some(_) if is_meant => no_database(others),
        Some(_) => Some(format!("{shown} is neither a whole SQLite database nor receipts as JSON")),
        None if !is_meant => None,
        None if beginning.is_empty() => no_database("it is empty"),
        None => no_database(others),
    }
}

/// Opens a database to read a few of its rows.
pub(crate) fn open_witness(path: &Path) -> Result<Database, SourceError> {
    let database = open_database(path, WalPolicy::Judge, Reading::Part)?;
    migrate::check(&database.connection).map_err(undecidable)?;
    Ok(database)
}

/// How much of a database will be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Whole,
    Part,
}

fn open_database(path: &Path, policy: WalPolicy, reading: Reading) -> Result<Database, SourceError> {
    let layout = Layout::of(path).map_err(undecidable)?;
    let unreadable =
        |error: io::Error| SourceError::Unreadable(format!("cannot lock {}: {error}", layout.lock.display()));
    let lock = match Lock::shared(&layout.lock).map_err(unreadable)? {
        LockState::HeldByGateway => {
            let connection = connection::reader(&layout.database).map_err(cannot_open(path))?;
            let note = Some("a gateway is running on this database".to_owned());
            return Ok(Database {
                connection,
                note,
                is_backup: false,
                _lock: None,
                _copy: None,
                as_found: None,
                alone: None,
            });
        }
        LockState::Shared(lock) => Some(lock),
        LockState::Absent => None,
    };
    let plan = plan(&layout, policy).map_err(|refusal| undecidable(ways_out(&layout, refusal, reading)))?;
    let found = fingerprint(&layout).map_err(unreadable)?;
    let as_found = Some((layout.database.clone(), layout.wal.clone(), found));
    let ((connection, copy), alone) = match plan {
        LogPlan::Replay => (open_with_log(&layout)?, None),
        LogPlan::Nothing | LogPlan::SetAside => {
            if reading == Reading::Whole {
                read_ahead(&layout.database);
            }
            let connection = connection::immutable(&layout.database).map_err(cannot_open(path))?;
            ((connection, None), Some(layout.database.clone()))
        }
    };
    let note = (plan == LogPlan::SetAside)
        .then(|| format!("{} does not belong to the database and was not counted", layout.wal.display()));
    let cannot_read = |error: io::Error| {
        SourceError::Unreadable(format!("cannot read {}: {error}", layout.database.display()))
    };
    let is_backup = plan != LogPlan::Replay && is_rollback(&layout.database).map_err(cannot_read)?;
    Ok(Database { connection, note, is_backup, _lock: lock, _copy: copy, as_found, alone })
}

fn is_rollback(path: &Path) -> io::Result<bool> {
    let mut header = [0; guard::header::HEADER_BYTES];
    File::open(path)?.read_exact(&mut header)?;
    Ok(guard::header::DatabaseHeader::parse(&header).is_rollback())
}

fn plan(layout: &Layout, policy: WalPolicy) -> Result<LogPlan, Refusal> {
    let judged = guard::judge(layout, None).map(|judgement| judgement.log);
    match (judged, policy) {
        (Ok(LogPlan::Nothing), _) => Ok(LogPlan::Nothing),
        (Ok(_) | Err(_), WalPolicy::Replay) => Ok(LogPlan::Replay),
        (Ok(_) | Err(_), WalPolicy::Ignore) => Ok(LogPlan::SetAside),
        (judged, WalPolicy::Judge) => judged,
    }
}

/// Replaces the remedy where the guard cannot attribute the log: it suggests startup settings,
/// but the verifier has command-line options. A refusal has this cause if a [`WalChoice`] would
/// have resolved it.
fn ways_out(layout: &Layout, refusal: Refusal, reading: Reading) -> Refusal {
    let log = guard::wal::read(&layout.wal).ok().flatten();
    let choice = log.map(|log| WalChoice { replay: true, log_id: log.id });
    if choice.is_none() || guard::judge(layout, choice).is_err() {
        return refusal;
    }
    refusal.with_remedy(match reading {
        Reading::Whole => {
            "put the right file back, or use --wal replay to count the log or --wal ignore to leave it out"
        }
        Reading::Part => "put the right file back, or take its log away",
    })
}

fn open_with_log(layout: &Layout) -> Result<(Connection, Option<TemporaryFolder>), SourceError> {
    if let Ok(connection) = connection::with_log(&layout.database) {
        return Ok((connection, None));
    }
    let cannot = |error: io::Error| {
        let database = layout.database.display();
        SourceError::Unreadable(format!("cannot copy {database} to read its log: {error}"))
    };
    let folder = TemporaryFolder::create().map_err(cannot)?;
    let copy = folder.0.join("copy.db");
    copy_content(&layout.database, &copy).map_err(cannot)?;
    copy_content(&layout.wal, &files::with_suffix(&copy, "-wal")).map_err(cannot)?;
    let connection = connection::with_log(&copy).map_err(cannot_open(&layout.database))?;
    Ok((connection, Some(folder)))
}

/// Not `fs::copy`, which also copies the mode: SQLite cannot recover the log of a read-only
/// copy.
fn copy_content(from: &Path, to: &Path) -> io::Result<u64> {
    io::copy(&mut File::open(from)?, &mut files::create_private_file(to)?)
}

/// Reads the file once from front to back. SQLite reads page by page, which takes ten times as
/// long on a cold disk. This is only an optimization, so SQLite is left to report failures.
fn read_ahead(path: &Path) {
    if let Ok(mut file) = File::open(path)
        && let Err(error) = io::copy(&mut file, &mut io::sink())
    {
        log::debug!("cannot read ahead: {error}");
    }
}

/// A note on a readable schema that differs from the program's. Without its triggers, a
/// database proves as much as any other, but has been tampered with. If an evidence table is
/// not the program's, its rows come from whoever replaced it and are not evidence.
fn check_schema(connection: &Connection) -> Result<Option<String>, SourceError> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
    let foreign = application.is_ok_and(|id| id != migrate::APPLICATION_ID);
    let version = migrate::check(connection).map_err(|refusal| {
        if foreign { SourceError::Unreadable(refusal.to_string()) } else { undecidable(refusal) }
    })?;
    let Some(difference) = schema::difference(connection, version).map_err(undecidable)? else {
        return Ok(None);
    };
    let line = format!("the database's schema is not the program's: {difference}");
    if difference.of_evidence { Err(SourceError::Undecidable(line)) } else { Ok(Some(line)) }
}

impl Database {
    /// Verifies the whole database, on several threads if the file cannot change.
    pub fn verify(&self, observer: &mut dyn Observer) -> Result<Summary, Error> {
        match &self.alone {
            Some(path) if !observer.wants_each() => {
                let another = |_| connection::immutable(path).map_err(Error::cannot("open the database"));
                let others = (1..parallel::threads()).map(another).collect::<Result<_, _>>()?;
                parallel::verify(&self.connection, others, observer)
            }
            _ => database::verify(&self.connection, Extent::Whole, observer),
        }
    }

    /// Verifies the whole database and judges it against witnesses.
    pub fn verify_against<'w>(
        &self,
        witnesses: &'w Witnesses,
        observer: &mut dyn Observer,
    ) -> Result<(Summary, witness::Report<'w>), Error> {
        if self.alone.is_none() {
            // Others may write, so both must use one view.
            return witness::verify(&self.connection, witnesses, observer);
        }
        Ok((self.verify(observer)?, witness::judge(&self.connection, witnesses)?))
    }

    /// Whether the file is unchanged since it was opened. A verdict on a file that changed
    /// during verification would be meaningless.
    pub fn is_as_found(&self) -> bool {
        self.as_found
            .as_ref()
            .is_none_or(|(database, wal, found)| measure(database, wal).is_ok_and(|now| now == *found))
    }
}

fn fingerprint(layout: &Layout) -> io::Result<Fingerprint> {
    measure(&layout.database, &layout.wal)
}

fn measure(database: &Path, wal: &Path) -> io::Result<Fingerprint> {
    let metadata = fs::metadata(database)?;
    Ok((metadata.len(), metadata.modified()?, files::is_taken(wal)?))
}

fn undecidable(refusal: Refusal) -> SourceError {
    SourceError::Undecidable(refusal.to_string())
}

fn cannot_open(path: &Path) -> impl Fn(rusqlite::Error) -> SourceError {
    move |error| SourceError::Unreadable(format!("cannot open {}: {error}", path.display()))
}

/// A private folder that is removed on drop.
#[derive(Debug)]
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("aegis-verify-{}", entropy::hex::<8>()?));
        files::create_private_folder(&path)?;
        Ok(TemporaryFolder(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}
