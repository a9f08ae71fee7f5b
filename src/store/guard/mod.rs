//! What is checked before SQLite opens the database.
//!
//! SQLite replays any write-ahead log that lies beside a database, whatever file
//! that is: after a SIGKILL and a restore by `mv` and `cp`, the old log would be
//! replayed onto the restored file. And it deletes a log whose database is missing.
//! So, under the gateway's lock and before SQLite sees the file, [`judge`] decides
//! from the bytes alone whether the log belongs to it:
//!
//! 1. A rollback journal is accepted only if it is the trace of our own switch to
//!    the write-ahead log ([`journal`]).
//! 2. A log with commits whose database is missing or empty: refused.
//! 3. A log without a valid commit beside a file in rollback mode: set aside.
//! 4. A log with commits beside a file in rollback mode (what a backup is): set
//!    aside; but refused when the log too says rollback mode, since it may then
//!    belong to the file.
//! 5. Another page size: set aside. A change counter outside the log's, or a schema
//!    newer than the log's: refused.
//! 6. A file in log mode that is not the file the gateway ran on last: refused,
//!    with both ways out named.
//!
//! Everything else is opened, and a log that belongs is replayed. Rules 2 to 6
//! concern a non-empty log alone. [`judge`] changes nothing; [`Guard::admit`] does
//! what it decided, after the content was found good as well.
//!
//! # Locking
//! The gateway holds an exclusive `flock` on `DATABASE.lock` for its life; whoever
//! reads a stopped database holds a shared one. The file is removed by its holder
//! alone, and a lock counts only while its file still has the name.

pub(crate) mod header;
mod identity;
mod journal;
mod lock;
pub(crate) mod wal;

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::WalChoice;
use crate::domain::time::Timestamp;
use crate::store::error::Refusal;
use crate::store::files;

use header::{DatabaseHeader, HEADER_BYTES, MAGIC};
use identity::{Identity, Record, Stamp};
pub(crate) use lock::{Lock, LockState};
use wal::Log;

/// The names that belong to one database.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The database itself, symbolic links resolved as SQLite does.
    pub database: PathBuf,
    /// Its write-ahead log.
    pub wal: PathBuf,
    /// The index of the log.
    pub shm: PathBuf,
    /// Its rollback journal.
    pub journal: PathBuf,
    /// The gateway's lock.
    pub lock: PathBuf,
    /// The record of the file the gateway ran on last.
    pub record: PathBuf,
    /// A database in the making.
    pub partial: PathBuf,
}

impl Layout {
    /// The names around `path`. A link that leads nowhere is refused: following it
    /// would make a database where nobody looks for one.
    pub fn of(path: &Path) -> Result<Self, Refusal> {
        let database = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if files::is_taken(path).map_err(Refusal::io("look at", path))? {
                    return Err(Refusal::new(
                        format!("{} is a symbolic link that leads nowhere", path.display()),
                        "remove the link or put its target back",
                    ));
                }
                path.to_owned()
            }
            Err(error) => return Err(Refusal::io("find", path)(error)),
        };
        let with = |suffix| files::with_suffix(&database, suffix);
        Ok(Layout {
            wal: with("-wal"),
            shm: with("-shm"),
            journal: with("-journal"),
            lock: with(".lock"),
            record: with(".identity"),
            partial: with(".new"),
            database,
        })
    }
}

/// What to do with the log that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPlan {
    /// There is none, or one without commits that SQLite will ignore.
    Nothing,
    /// It belongs to the file.
    Replay,
    /// It belongs to another file.
    SetAside,
}

/// What was found at the database's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: a new database may be made.
    Missing {
        /// A gateway ran on a file of this name before.
        ran_before: bool,
    },
    /// A database.
    Database {
        /// In rollback mode: a copy that no gateway has run on yet.
        restored: bool,
        /// Exactly as a clean stop of the gateway left it, or as a crash of the
        /// gateway did; nobody else has put it there or written to it since.
        as_left: bool,
    },
}

/// The judgement on the files as they lie there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What is there.
    pub found: Found,
    /// What to do with the log.
    pub log: LogPlan,
}

/// The holder of the gateway's lock on one database.
#[derive(Debug)]
pub struct Guard {
    layout: Layout,
    lock: Lock,
}

impl Guard {
    /// Takes the lock, or says who has it.
    pub fn lock(path: &Path) -> Result<Self, Refusal> {
        let folder = files::folder_of(path);
        files::create_private_folder(folder).map_err(Refusal::io("create the folder", folder))?;
        let layout = Layout::of(path)?;
        let lock = Lock::exclusive(&layout.lock)?;
        Ok(Guard { layout, lock })
    }

    /// The names around the database.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Applies the six rules. Changes nothing.
    pub fn judge(&self, choice: Option<WalChoice>) -> Result<Judgement, Refusal> {
        judge(&self.layout, choice)
    }

    /// Fails when a file that SQLite is to write to cannot be written. SQLite would
    /// fall back to reading, and fail only after it has made files beside it.
    pub fn check_writable(&self) -> Result<(), Refusal> {
        for path in [&self.layout.database, &self.layout.wal, &self.layout.shm] {
            match File::options().write(true).open(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Refusal::io("write to", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets aside what the judgement says, and returns the name it was given.
    pub fn clear_the_way(&self, judgement: &Judgement, now: Timestamp) -> Result<Option<PathBuf>, Refusal> {
        if judgement.log != LogPlan::SetAside {
            return Ok(None);
        }
        let mut aside = files::with_suffix(&self.layout.wal, &format!(".stale-{}", now.compact()));
        let mut count = 1;
        while files::is_taken(&aside).map_err(Refusal::io("look at", &aside))? {
            count += 1;
            aside = files::with_suffix(&self.layout.wal, &format!(".stale-{}-{count}", now.compact()));
        }
        fs::rename(&self.layout.wal, &aside).map_err(Refusal::io("set aside", &self.layout.wal))?;
        files::remove_if_there(&self.layout.shm).map_err(Refusal::io("remove", &self.layout.shm))?;
        self.sync_folder()?;
        Ok(Some(aside))
    }

    /// Records which file SQLite is about to open, and makes it private.
    pub fn admit(&mut self) -> Result<(), Refusal> {
        self.lock.adopt_file();
        let path = &self.layout.database;
        let metadata = fs::metadata(path).map_err(Refusal::io("look at", path))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                .map_err(Refusal::io("make private", path))?;
            log::info!("{} was readable by others; its mode is now 0600", path.display());
        }
        let record = Record { identity: Identity::of(&metadata), stopped: None };
        record.write(&self.layout.record).map_err(Refusal::io("write", &self.layout.record))
    }

    /// Notes in the lock file where the gateway listens, for the health check.
    pub fn publish_address(&self, address: &str) -> io::Result<()> {
        self.lock.write(address)
    }

    /// After SQLite has closed the file: records how it was left, and unlocks.
    pub fn release(self) -> io::Result<()> {
        let metadata = fs::metadata(&self.layout.database)?;
        let stopped = Some(Stamp::of(&metadata));
        Record { identity: Identity::of(&metadata), stopped }.write(&self.layout.record)
    }

    fn sync_folder(&self) -> Result<(), Refusal> {
        let folder = files::folder_of(&self.layout.database);
        files::sync_folder(folder).map_err(Refusal::io("sync the folder", folder))
    }
}

/// Judges the files around one database by their bytes. Changes nothing.
pub fn judge(layout: &Layout, choice: Option<WalChoice>) -> Result<Judgement, Refusal> {
    let log = wal::read(&layout.wal).map_err(Refusal::io("read", &layout.wal))?;
    let log_bytes = length(&layout.wal)?;
    let record = Record::read(&layout.record).map_err(Refusal::io("read", &layout.record))?;
    let Some((metadata, first_page)) = read_first_page(&layout.database)? else {
        return judge_without_database(layout, log.as_ref(), log_bytes, record.as_ref());
    };
    let header = parse_header(&layout.database, &first_page, log.as_ref())?;
    judge_journal(layout, &first_page, metadata.len())?;
    let plan = match &log {
        Some(log) => {
            let identity = Identity::of(&metadata);
            let known = record.as_ref().is_some_and(|record| record.identity.is_same_file(&identity));
            judge_log(layout, &header, log, known, choice)?
        }
        None if log_bytes > 0 && header.is_rollback() => LogPlan::SetAside,
        None => LogPlan::Nothing,
    };
    if plan != LogPlan::Replay {
        check_length(&layout.database, &header, metadata.len())?;
    }
    let as_left = record.is_some_and(|record| {
        record.identity.is_same_file(&Identity::of(&metadata))
            && record.stopped.is_none_or(|stamp| stamp == Stamp::of(&metadata))
    });
    let restored = header.is_rollback() && plan != LogPlan::Replay;
    Ok(Judgement { found: Found::Database { restored, as_left }, log: plan })
}

fn judge_without_database(
    layout: &Layout,
    log: Option<&Log>,
    log_bytes: u64,
    record: Option<&Record>,
) -> Result<Judgement, Refusal> {
    // Rule 2.
    if log.is_some() {
        return Err(Refusal::new(
            format!(
                "{} is missing or empty, but its write-ahead log {} holds commits",
                layout.database.display(),
                layout.wal.display()
            ),
            "put the database back, or copy a backup into its place, and start again",
        ));
    }
    if journal::read(&layout.journal).map_err(Refusal::io("read", &layout.journal))?.is_some() {
        return Err(foreign_journal(layout));
    }
    if files::is_taken(&layout.database).map_err(Refusal::io("look at", &layout.database))? {
        return Err(Refusal::new(
            format!("{} is empty", layout.database.display()),
            "copy a backup into its place, or remove the empty file to begin a new database",
        ));
    }
    let plan = if log_bytes > 0 { LogPlan::SetAside } else { LogPlan::Nothing };
    Ok(Judgement { found: Found::Missing { ran_before: record.is_some() }, log: plan })
}

/// Rules 4 to 6.
fn judge_log(
    layout: &Layout,
    header: &DatabaseHeader,
    log: &Log,
    known: bool,
    choice: Option<WalChoice>,
) -> Result<LogPlan, Refusal> {
    if log.page_size != header.page_size {
        return Ok(LogPlan::SetAside);
    }
    let doubt = if header.is_rollback() {
        if !log.page_one.is_some_and(|page_one| page_one.last.is_rollback()) {
            return Ok(LogPlan::SetAside);
        }
        "both it and the database are in rollback mode"
    } else if !known {
        "the database is not the file that the gateway ran on last \
         (a copy of the whole folder looks the same)"
    } else if log.page_one.is_some_and(|page_one| {
        let (first, last) = (page_one.first_counter, page_one.last.change_counter);
        !(first.saturating_sub(1)..=last).contains(&header.change_counter)
    }) {
        "the database's change counter is outside the log's"
    } else if log.page_one.is_some_and(|page_one| header.schema_cookie > page_one.last.schema_cookie) {
        "the database's schema is newer than the log's"
    } else {
        return Ok(LogPlan::Replay);
    };
    match choice {
        Some(choice) if choice.log_id == log.id && choice.replay => Ok(LogPlan::Replay),
        Some(choice) if choice.log_id == log.id => Ok(LogPlan::SetAside),
        _ => Err(undecided(layout, log, doubt)),
    }
}

fn undecided(layout: &Layout, log: &Log, doubt: &str) -> Refusal {
    let id = log.id;
    Refusal::new(
        format!("the write-ahead log {} may not belong to its database: {doubt}", layout.wal.display()),
        format!(
            "put the right file back, or start once with AEGIS_WAL_CHOICE=replay:{id:016x} to apply the log \
             or AEGIS_WAL_CHOICE=set-aside:{id:016x} to go on without it"
        ),
    )
}

/// The file's metadata and first page; `None` when it is missing or empty.
fn read_first_page(path: &Path) -> Result<Option<(Metadata, Vec<u8>)>, Refusal> {
    let cannot = Refusal::io("read", path);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    if !metadata.is_file() {
        return Err(Refusal::new(
            format!("{} is no regular file", path.display()),
            "set AEGIS_DB_PATH to the path of the database",
        ));
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    let mut page = vec![0; HEADER_BYTES];
    let mut file = File::open(path).map_err(&cannot)?;
    if metadata.len() < 512 {
        return Err(no_database(path));
    }
    file.read_exact(&mut page).map_err(&cannot)?;
    let header = page.first_chunk::<HEADER_BYTES>().map(DatabaseHeader::parse);
    let page_size = header.map_or(0, |header| header.page_size);
    if !page.starts_with(MAGIC) || !page_size.is_power_of_two() || page_size < 512 {
        return Err(no_database(path));
    }
    page.resize(page_size as usize, 0);
    if metadata.len() < u64::from(page_size) {
        return Err(Refusal::damaged(format!("{} is cut off within its first page", path.display())));
    }
    file.read_exact(&mut page[HEADER_BYTES..]).map_err(&cannot)?;
    Ok(Some((metadata, page)))
}

fn parse_header(path: &Path, page: &[u8], log: Option<&Log>) -> Result<DatabaseHeader, Refusal> {
    let header =
        page.first_chunk::<HEADER_BYTES>().map(DatabaseHeader::parse).ok_or_else(|| no_database(path))?;
    if !header.is_wal() && !header.is_rollback() && log.is_none() {
        return Err(Refusal::damaged(format!(
            "{} has the unknown format versions {} and {}",
            path.display(),
            header.write_version,
            header.read_version
        )));
    }
    Ok(header)
}

fn check_length(path: &Path, header: &DatabaseHeader, bytes: u64) -> Result<(), Refusal> {
    let expected = match header.valid_page_count() {
        Some(pages) => u64::from(pages) * u64::from(header.page_size),
        None => bytes.next_multiple_of(u64::from(header.page_size)),
    };
    if bytes != expected {
        return Err(Refusal::damaged(format!(
            "{} is {bytes} bytes long, but its header says {expected}",
            path.display()
        )));
    }
    Ok(())
}

/// Rule 1.
fn judge_journal(layout: &Layout, first_page: &[u8], file_bytes: u64) -> Result<(), Refusal> {
    match journal::read(&layout.journal).map_err(Refusal::io("read", &layout.journal))? {
        Some(bytes) if !journal::is_ours(&bytes, first_page, file_bytes) => Err(foreign_journal(layout)),
        _ => Ok(()),
    }
}

fn foreign_journal(layout: &Layout) -> Refusal {
    Refusal::new(
        format!("the rollback journal {} does not belong to the database", layout.journal.display()),
        "move it away if the database is a restored one, or put its own database back",
    )
}

fn no_database(path: &Path) -> Refusal {
    Refusal::new(
        format!("{} is not a SQLite database", path.display()),
        "set AEGIS_DB_PATH to the gateway's database, or restore a backup in its place",
    )
}

fn length(path: &Path) -> Result<u64, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Refusal::io("look at", path)(error)),
    }
}
