//! Opening SQLite connections: the only place with open flags, and with what a connection is
//! set to for good. A PRAGMA elsewhere belongs to one task: a checkpoint, a step of the
//! schema, a look at what a database says of itself.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Result};

use super::migrate;

/// How long a connection waits for a lock that another program holds: a request that
/// came amid one such wait and sits through the next is still answered within 5 s.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a look at a database waits to be alone with it.
const ALONE_TIMEOUT: Duration = Duration::from_millis(100);
/// The log is cut back to this size when it restarts.
pub(crate) const JOURNAL_BYTES_MAX: i64 = 64 << 20;
/// Prepared statements kept by each connection.
const STATEMENTS_KEPT: usize = 64;

/// No URI file names: a name is a name. No mutex: a connection is used by one
/// thread at a time, which the borrow checker sees to.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

/// The one connection that writes.
pub(crate) fn writer(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection)?;
    use_log(&connection)?;
    // The answer goes out after the sync: FULL syncs the log at every commit.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // What is taken out, as an approval's frozen call is, leaves the file: its place is
    // written over with zeros. Evidence is only ever added, so it costs requests nothing.
    connection.pragma_update(None, "secure_delete", true)?;
    // Checkpoints run away from the answer's path; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_MAX)?;
    Ok(connection)
}

/// A database in the making: nobody's until it has its name, and synced by who gives it.
pub(crate) fn creator(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// Ends the making: the file says that it has a log, as no copy of a database does.
pub(crate) fn finish(creator: Connection) -> Result<()> {
    use_log(&creator)?;
    // Closing removes the log, which is empty.
    creator.close().map_err(|(_, error)| error)
}

/// A connection that moves the log's pages into the database.
pub(crate) fn checkpointer(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_MAX)?;
    Ok(connection)
}

/// A connection that reads the live database. Also the source of a backup: a
/// source opened read-only is enough for `VACUUM INTO`, and NOFOLLOW keeps it from
/// writing through a symbolic link at the output's name.
pub(crate) fn reader(path: &Path) -> Result<Connection> {
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Reads a file that nobody writes to, and touches nothing beside it. Ignores a
/// write-ahead log: for files that have none.
pub(crate) fn immutable(path: &Path) -> Result<Connection> {
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Reads a database that no gateway runs on together with its log, and leaves both
/// as they are.
///
/// An exclusive connection keeps the log's index in memory, and does not checkpoint
/// when it closes. Where another program has the database open, a shell for example,
/// there is an index already, and an ordinary reader changes nothing either.
pub(crate) fn with_log(path: &Path) -> Result<Connection> {
    match with_log_alone(path) {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => reader(path),
        other => other,
    }
}

fn with_log_alone(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    prepare(&connection)?;
    connection.busy_timeout(ALONE_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    // The lock is taken by the first read.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Lets a connection that was opened to read be the source of a copy: `VACUUM INTO` counts
/// as a write of the connection, though not of the database.
pub(crate) fn may_copy(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "query_only", false)
}

/// A write that reaches the disk and changes no content. SQLite leaves a row that is
/// set to what it is alone, but always writes the header when the version is set.
pub(crate) fn touch(connection: &Connection) -> Result<()> {
    let set = format!("PRAGMA user_version = {}", migrate::latest());
    connection.prepare_cached(&set)?.execute([]).map(|_| ())
}

/// Changes by a change that another connection committed, by none of our own.
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Switches to the write-ahead log: before any other pragma that writes to the
/// header, so that a kill leaves a journal of one known shape.
fn use_log(connection: &Connection) -> Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })
}

fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A schema from elsewhere may not run functions with side effects, and a
    // damaged page is an error instead of a wrong answer.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// The path as a URI: everything but unreserved characters percent-encoded.
fn immutable_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    uri
}
