//! Schema migrations: ordered steps, embedded in the program.
//!
//! # Compatibility
//! A released step is never edited. Each is recorded with the SHA-256 of its text, and a
//! database whose records differ is refused, as is one newer than the program.
//! `user_version` holds the number of applied steps.
//!
//! # Atomicity
//! A step, its record and the version are one transaction. A step that fails, or tries to
//! end the transaction itself, leaves the database unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::store::error::Refusal;

/// The `PRAGMA application_id` of the gateway's databases: "AEGS".
pub const APPLICATION_ID: i32 = 0x4145_4753;

/// One step.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// A descriptive name.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

/// Every step, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "initial", sql: include_str!("../../../migrations/0001_initial.sql") },
    Migration { name: "approvals", sql: include_str!("../../../migrations/0002_approvals.sql") },
    Migration { name: "operators", sql: include_str!("../../../migrations/0003_operators.sql") },
    Migration {
        name: "agents_and_counts",
        sql: include_str!("../../../migrations/0004_agents_and_counts.sql"),
    },
    Migration {
        name: "approval_decisions",
        sql: include_str!("../../../migrations/0005_approval_decisions.sql"),
    },
    Migration { name: "policies", sql: include_str!("../../../migrations/0006_policies.sql") },
    Migration { name: "request_nonces", sql: include_str!("../../../migrations/0007_request_nonces.sql") },
    Migration {
        name: "receipts_follow_one_another",
        sql: include_str!("../../../migrations/0008_receipts_follow_one_another.sql"),
    },
];

/// The schema version of this program.
pub fn latest() -> u32 {
    number_of(MIGRATIONS)
}

fn number_of(migrations: &[Migration]) -> u32 {
    u32::try_from(migrations.len()).expect("a handful of steps")
}

impl Migration {
    /// The recorded checksum. It ignores the line-ending style, so that a checkout on another
    /// system is the same step.
    fn sha256(&self) -> String {
        Hash::of(self.sql.replace("\r\n", "\n").as_bytes()).to_string()
    }
}

/// Checks that `connection` is a database of this program, at a known version and with an
/// unchanged history; returns that version. Changes nothing.
pub fn check(connection: &Connection) -> Result<u32, Refusal> {
    check_against(connection, MIGRATIONS)
}

/// Applies all missing steps; returns the version before.
pub fn migrate(connection: &mut Connection, now: Timestamp) -> Result<u32, Refusal> {
    migrate_to(connection, MIGRATIONS, now)
}

/// Reads in one transaction: another program may apply a step between two reads.
fn check_against(connection: &Connection, migrations: &[Migration]) -> Result<u32, Refusal> {
    let cannot_read = Refusal::sqlite("read the database's schema");
    let view = connection.is_autocommit().then(|| connection.unchecked_transaction()).transpose();
    let view = view.map_err(&cannot_read)?;
    let version = check_view(connection, migrations)?;
    if let Some(view) = view {
        view.finish().map_err(&cannot_read)?;
    }
    Ok(version)
}

fn check_view(connection: &Connection, migrations: &[Migration]) -> Result<u32, Refusal> {
    let cannot_read = Refusal::sqlite("read the database's schema");
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) =
        (pragma("application_id").map_err(&cannot_read)?, pragma("user_version").map_err(&cannot_read)?);
    if application != i64::from(APPLICATION_ID) {
        return Err(Refusal::new(
            format!("the database belongs to another program (application_id {application})"),
            "set AEGIS_DB_PATH to a database of the gateway, or restore a backup in its place",
        ));
    }
    let latest = number_of(migrations);
    if version > i64::from(latest) {
        return Err(Refusal::new(
            format!("the database has schema version {version}, newer than this program's {latest}"),
            "start the program version that wrote it, or restore a backup that this one can read",
        ));
    }
    let recorded = recorded(connection).map_err(&cannot_read)?;
    let version = u32::try_from(version).ok().filter(|version| *version as usize == recorded.len());
    let Some(version) = version.filter(|version| *version > 0) else {
        return Err(Refusal::damaged(format!(
            "the database records {} schema steps, but its version does not match",
            recorded.len()
        )));
    };
    for (index, (found, step)) in recorded.iter().zip(migrations).enumerate() {
        if *found != (index as i64 + 1, step.sha256()) {
            return Err(Refusal::new(
                format!("schema step {} ({}) of the database is not this program's", index + 1, step.name),
                "start the program version that wrote it",
            ));
        }
    }
    Ok(version)
}

fn recorded(connection: &Connection) -> rusqlite::Result<Vec<(i64, String)>> {
    if !connection.table_exists(None, "schema_migrations")? {
        return Ok(Vec::new());
    }
    let mut rows = connection.prepare("SELECT n, sha256 FROM schema_migrations ORDER BY n")?;
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Creates the schema in an empty database.
pub fn create(connection: &mut Connection, now: Timestamp) -> Result<(), Refusal> {
    create_with(connection, MIGRATIONS, now)
}

/// Creates the schema as of `version`.
pub(super) fn create_at(connection: &mut Connection, version: u32, now: Timestamp) -> Result<(), Refusal> {
    create_with(connection, &MIGRATIONS[..version as usize], now)
}

fn create_with(connection: &mut Connection, migrations: &[Migration], now: Timestamp) -> Result<(), Refusal> {
    let cannot = Refusal::sqlite("create a new database");
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(&cannot)?;
    connection
        .execute_batch(
            "CREATE TABLE schema_migrations (
                 n INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at TEXT NOT NULL
             ) STRICT",
        )
        .map_err(&cannot)?;
    for index in 0..migrations.len() {
        apply(connection, migrations, index, now)?;
    }
    Ok(())
}

fn migrate_to(connection: &mut Connection, migrations: &[Migration], now: Timestamp) -> Result<u32, Refusal> {
    let before = check_against(connection, migrations)?;
    for index in before as usize..migrations.len() {
        apply(connection, migrations, index, now)?;
        log::info!("applied schema step {} ({})", index + 1, migrations[index].name);
    }
    Ok(before)
}

/// Applies one step, unless another program has just done so.
fn apply(
    connection: &mut Connection,
    migrations: &[Migration],
    index: usize,
    now: Timestamp,
) -> Result<(), Refusal> {
    let step = &migrations[index];
    // This pragma has no effect inside a transaction, so it comes first.
    let foreign_keys = |connection: &Connection, on: bool| {
        connection
            .pragma_update(None, "foreign_keys", on)
            .map_err(Refusal::sqlite("configure the connection"))
    };
    foreign_keys(connection, false)?;
    let applied = apply_in_transaction(connection, step, index as i64 + 1, now);
    connection
        .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        .map_err(Refusal::sqlite("configure the connection"))?;
    foreign_keys(connection, true)?;
    applied.map_err(|error| {
        Refusal::new(
            format!("cannot apply schema step {} ({}): {error}", index + 1, step.name),
            "the database is unchanged; start the previous program version and report this",
        )
    })
}

fn apply_in_transaction(
    connection: &mut Connection,
    step: &Migration,
    n: i64,
    now: Timestamp,
) -> Result<(), Box<dyn std::error::Error>> {
    let in_step = Arc::new(AtomicBool::new(false));
    connection.authorizer(Some(deny_transaction_statements(Arc::clone(&in_step))))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let already_applied =
        transaction.query_row("SELECT 1 FROM schema_migrations WHERE n = ?1", [n], |_| Ok(())).optional()?;
    if already_applied.is_some() {
        return Ok(());
    }
    in_step.store(true, Ordering::Relaxed);
    let ran = transaction.execute_batch(step.sql);
    in_step.store(false, Ordering::Relaxed);
    ran?;
    transaction.execute(
        "INSERT INTO schema_migrations (n, name, sha256, applied_at) VALUES (?1, ?2, ?3, ?4)",
        (n, step.name, step.sha256(), now.to_string()),
    )?;
    transaction.pragma_update(None, "user_version", n)?;
    let dangling = transaction.query_row("PRAGMA foreign_key_check", [], |_| Ok(())).optional()?;
    if dangling.is_some() {
        return Err("it leaves a reference to a missing row".into());
    }
    Ok(transaction.commit()?)
}

/// A step that could commit halfway would not be atomic.
fn deny_transaction_statements(
    in_step: Arc<AtomicBool>,
) -> impl FnMut(AuthContext<'_>) -> Authorization + Send + 'static {
    move |context| match context.action {
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } if in_step.load(Ordering::Relaxed) => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }
}

#[cfg(test)]
mod tests;
