//! Startup: from the files on disk to an open store.
//!
//! Every check that can reject the database runs before anything is written: the lock, the
//! guard's rules on the raw bytes, the content, read without modifying it, and what the
//! backups have seen of its chain. A schema migration is preceded by a backup. Only then is a
//! log set aside, the file's identity recorded, and the database opened with SQLite. Last, if
//! the chain continues from a restored or earlier head, it records that.

mod history;
mod inspect;

use std::path::Path;

use crate::backup::{self, Backups};
use crate::clock::Clock;
use crate::domain::receipt::EMPTY_HEAD;
use crate::domain::time::Timestamp;
use crate::store::error::Refusal;
use crate::store::guard::{Found, Guard, Judgement, Layout, WalChoice};
use crate::store::{Background, Store, connection, files, migrate, schema};

use history::Return;
use inspect::Content;

/// Startup options.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// The database.
    pub database: &'a Path,
    /// The folder of the backups and their manifests.
    pub backups: &'a Path,
    /// The operator's decision, for a log that the guard cannot judge.
    pub wal_choice: Option<WalChoice>,
    /// Hash of the head from which the operator accepts to continue although a witness knows
    /// a later one; [`EMPTY_HEAD`] if the chain is empty or there is no database.
    pub accept_rollback: Option<&'a str>,
    /// Whether to take a backup before a schema migration.
    pub pre_migration_backup: bool,
}

impl<'a> Options<'a> {
    /// The defaults.
    pub fn new(database: &'a Path, backups: &'a Path) -> Self {
        Options { database, backups, wal_choice: None, accept_rollback: None, pre_migration_backup: true }
    }
}

/// An open store, and the lock that excludes other gateways.
#[derive(Debug)]
pub struct Started {
    /// The store.
    pub store: Store,
    /// The lock. Release it after closing the store.
    pub guard: Guard,
    /// The backups.
    pub backups: Backups,
}

/// Locks a database, or returns the refusal: another gateway runs on it.
pub fn lock(database: &Path) -> Result<Guard, Refusal> {
    Guard::lock(database)
}

/// Locks and opens a database; see [`open`].
pub fn start(options: &Options<'_>, clock: &dyn Clock) -> Result<Started, Refusal> {
    open(lock(options.database)?, options, clock)
}

/// Opens a database that is locked, or returns the reason for rejecting it. A check that
/// rejects it changes nothing.
pub fn open(mut guard: Guard, options: &Options<'_>, clock: &dyn Clock) -> Result<Started, Refusal> {
    let now = clock.now();
    let judgement = guard.judge(options.wal_choice)?;
    guard.check_writable()?;
    let Past { content, going_on } = look_back(options, guard.layout(), &judgement)?;
    let backups = Backups::new(options.backups);
    if let Some(content) = content
        && options.pre_migration_backup
    {
        back_up_before_migration(&backups, content, clock)?;
    }
    if options.accept_rollback == Some(EMPTY_HEAD) && going_on.is_none() {
        log::warn!(
            "AEGIS_ACCEPT_ROLLBACK={EMPTY_HEAD} is still set: unset it, or the next loss of the database \
             will be accepted unasked"
        );
    }
    clear_the_way(&guard, &judgement, now)?;
    let going_on = match judgement.found {
        Found::Missing { .. } => {
            create(guard.layout(), going_on, now)?;
            log::info!("made a new database");
            None
        }
        Found::Database { restored: true, .. } => {
            log::info!("the database is a restored copy; it was checked whole");
            going_on
        }
        Found::Database { restored: false, .. } => going_on,
    };
    guard.admit(going_on.as_ref().and_then(Return::restored_head))?;
    let store = Store::open(guard.layout(), now)?;
    if let Some(going_on) = going_on {
        going_on.record(&store, now)?;
        guard.restore_is_recorded()?;
    }
    let database = &guard.layout().database;
    let backups = backups.beside(database).map_err(Refusal::io("look at", database))?;
    Ok(Started { store, guard, backups })
}

/// What was found before anything is written.
struct Past {
    /// The content; `None` if the database is missing.
    content: Option<Content>,
    /// Set if the chain continues from a head that may not be its newest.
    going_on: Option<Return>,
}

fn look_back(options: &Options<'_>, layout: &Layout, judgement: &Judgement) -> Result<Past, Refusal> {
    match &judgement.found {
        Found::Missing { ran_before } => {
            let going_on = history::judge_missing(&layout.database, *ran_before, options)?;
            Ok(Past { content: None, going_on })
        }
        Found::Database { restored, restored_head, as_left } => {
            let content = inspect::inspect(layout, judgement, *restored || !as_left)?;
            let restored = history::Restored { fresh: *restored, head: restored_head.as_deref() };
            let going_on = history::judge(&content.connection, options, restored)?;
            Ok(Past { content: Some(content), going_on })
        }
    }
}

fn clear_the_way(guard: &Guard, judgement: &Judgement, now: Timestamp) -> Result<(), Refusal> {
    if let Some(aside) = guard.clear_the_way(judgement, now)? {
        log::warn!(
            "set aside a write-ahead log that does not belong to {}: it is kept as {}",
            guard.layout().database.display(),
            aside.display()
        );
    }
    // A kill during `create` leaves the partial name, even after the database got its own.
    remove_partial(&guard.layout().partial)
}

/// A migration cannot be undone, so the previous state is kept.
fn back_up_before_migration(backups: &Backups, content: Content, clock: &dyn Clock) -> Result<(), Refusal> {
    let Content { connection, version } = content;
    let latest = migrate::latest();
    if version == latest || !schema::holds_data(&connection)? {
        return Ok(());
    }
    let cannot = |error: backup::Error| {
        let folder = backups.folder().display();
        Refusal::new(
            format!(
                "cannot take the backup that precedes the step from schema {version} to {latest} in {folder}: \
                 {error}"
            ),
            "remedy that, or set AEGIS_PRE_MIGRATION_BACKUP=off to go on without it",
        )
    };
    let stem = format!("pre-migration-{version}-to-{latest}-{}", clock.now().compact());
    let name = backups.free_name(&stem, ".db").map_err(cannot)?;
    connection::may_copy(&connection).map_err(Refusal::sqlite("prepare a copy of the database"))?;
    let source = || Ok(Box::new(connection));
    let written = backups.write_from(source, &Background::default(), clock, &name);
    let finished = written.map_err(cannot)?;
    log::info!("took the backup {} before the schema changes", finished.path.display());
    Ok(())
}

/// Creates a new database under a partial name and publishes it once complete. If it follows
/// an accepted loss, it already holds the receipt that records it, which a kill must not lose.
fn create(layout: &Layout, following: Option<Return>, now: Timestamp) -> Result<(), Refusal> {
    let partial = &layout.partial;
    let made = create_partial(partial, following, now).and_then(|()| {
        files::sync(partial).map_err(Refusal::io("sync", partial))?;
        files::publish(partial, &layout.database).map_err(Refusal::io("name", &layout.database))
    });
    remove_partial(partial)?;
    made?;
    let folder = files::folder_of(&layout.database);
    files::sync(folder).map_err(Refusal::io("sync the folder", folder))
}

fn create_partial(partial: &Path, following: Option<Return>, now: Timestamp) -> Result<(), Refusal> {
    files::create_private_file(partial).map_err(Refusal::io("create", partial))?;
    let cannot = Refusal::sqlite("make a new database");
    let mut database = connection::creator(partial).map_err(&cannot)?;
    migrate::create(&mut database, now)?;
    connection::finish(database).map_err(cannot)?;
    let Some(following) = following else { return Ok(()) };
    let store = Store::open(&Layout::of(partial)?, now)?;
    following.record(&store, now)?;
    Ok(store.close()?)
}

fn remove_partial(partial: &Path) -> Result<(), Refusal> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = files::with_suffix(partial, suffix);
        files::remove_if_there(&path).map_err(Refusal::io("remove", &path))?;
    }
    Ok(())
}
