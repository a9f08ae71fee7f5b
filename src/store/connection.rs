//! Opening SQLite connections: the only place with open flags and permanent connection
//! settings. A PRAGMA anywhere else belongs to a single task: a checkpoint, a schema step, an
//! inspection.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Result};

use super::migrate;

/// How long a connection waits for a lock held by another program. A request that arrives
/// during one such wait and sits through the next is still answered within 5 s.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an inspection waits for exclusive access to a database.
const ALONE_TIMEOUT: Duration = Duration::from_millis(100);
/// The log is truncated to this size when it restarts.
pub(crate) const JOURNAL_BYTES_MAX: i64 = 64 << 20;
/// Prepared statements cached by each connection.
const STATEMENTS_KEPT: usize = 64;

/// No URI file names: paths are taken literally. No mutex: a connection is used by one thread
/// at a time, which the borrow checker enforces.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

/// The one connection that writes.
pub(crate) fn writer(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection)?;
    use_log(&connection)?;
    // Answers are sent after the sync: FULL syncs the log at every commit.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Removed content, such as an approval's frozen call, must leave the file: it is
    // overwritten with zeros. Evidence is only ever added, so this costs requests nothing.
    connection.pragma_update(None, "secure_delete", true)?;
    // Checkpoints run off the request path; see `checkpoint`.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES_MAX)?;
    Ok(connection)
}

/// A database under construction: unused until it gets its final name, and synced by whoever
/// names it.
pub(crate) fn creator(path: &Path) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

/// Finishes construction: switches the file to log mode, which no copy of a database is in.
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

/// A connection that reads the live database. Also the source of a backup: `VACUUM INTO`
/// works from a read-only source, and NOFOLLOW keeps it from writing through a symbolic link
/// at the output path.
pub(crate) fn reader(path: &Path) -> Result<Connection> {
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Reads a file that nobody writes to, without touching any side file. Ignores a write-ahead
/// log, so the file must not have one.
pub(crate) fn immutable(path: &Path) -> Result<Connection> {
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)?;
    prepare(&connection)?;
    Ok(connection)
}

/// Reads a database that no gateway is running on, together with its log, and leaves both
/// unchanged.
///
/// An exclusive connection keeps the log's index in memory, and this one does not checkpoint
/// on close. If another program, such as a shell, has the database open, an index already
/// exists and an ordinary reader changes nothing either.
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
    // The first read takes the lock.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Lets a reading connection be the source of a copy: `VACUUM INTO` counts as a write by the
/// connection, though not to the database.
pub(crate) fn may_copy(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "query_only", false)
}

/// A write that reaches the disk without changing content. SQLite skips rows that are set to
/// their current value, but always writes the header when the version is set.
pub(crate) fn touch(connection: &Connection) -> Result<()> {
    let set = format!("PRAGMA user_version = {}", migrate::latest());
    connection.prepare_cached(&set)?.execute([]).map(|_| ())
}

/// A value that changes when another connection commits, but not when this one does.
pub(crate) fn data_version(connection: &Connection) -> Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Switches to the write-ahead log. Must precede any other pragma that writes the header, so
/// that a kill leaves a journal of one known shape.
fn use_log(connection: &Connection) -> Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })
}

fn prepare(connection: &Connection) -> Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A foreign schema must not run functions with side effects, and a damaged page must be an
    // error instead of a wrong answer.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// The path as a URI, percent-encoding everything but unreserved characters.
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
