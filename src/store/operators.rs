//! Operator tokens. The database stores only the SHA-256 of a token.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::canon::Hash;
use crate::domain::operator::{NewToken, Operator, Scope};
use crate::domain::time::Timestamp;

use super::column;
use super::commit::Tx;
use super::error::Error;

/// A token as shown in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// UUID.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// What it permits.
    pub scope: Scope,
    /// When it was created.
    pub created_at: String,
    /// The name of the token that created it.
    pub created_by: String,
    /// When it expires.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// When it was last used, to within a minute.
    pub last_used_at: Option<String>,
}

const COLUMNS: &str = "id, name, scope, created_at, created_by, expires_at, revoked_at, last_used_at";

/// Records a new token.
pub fn insert(tx: &mut Tx<'_>, token: &NewToken, sha256: Hash) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached(
            "INSERT INTO operator_tokens (id, name, scope, token_sha256, created_at, created_by, expires_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                token.id,
                token.name,
                token.scope.as_str(),
                sha256.to_hex().as_str(),
                token.created_at.to_string(),
                token.created_by,
                token.expires_at.map(|at| at.to_string()),
            ])
        })
        .map_err(Error::cannot("record an operator's token"))
        .and_then(Error::unless_one("record an operator's token"))
}

/// Revokes a token; it is invalid once this is committed.
pub fn set_revoked(tx: &mut Tx<'_>, id: &str, now: Timestamp) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached("UPDATE operator_tokens SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")
        .and_then(|mut update| update.execute((id, now.to_string())))
        .map_err(Error::cannot("revoke an operator's token"))
        .and_then(Error::unless_one("revoke an operator's token"))
}

/// Records that a token was used, unless a use after `since` is already recorded. No decision
/// depends on it, so the cache stays valid.
pub fn set_used(tx: &Tx<'_>, id: &str, now: Timestamp, since: Timestamp) -> Result<(), Error> {
    tx.connection()
        .prepare_cached(
            "UPDATE operator_tokens SET last_used_at = ?2 \
             WHERE id = ?1 AND (last_used_at IS NULL OR last_used_at <= ?3)",
        )
        .and_then(|mut update| update.execute((id, now.to_string(), since.to_string())))
        .map(|_| ())
        .map_err(Error::cannot("record the use of an operator's token"))
}

/// Finds a token by its SHA-256, from the cache if possible.
pub fn known_by_token(tx: &Tx<'_>, sha256: Hash) -> Result<Option<Arc<Operator>>, Error> {
    let find = || find_by_token(tx.connection(), sha256);
    match tx.known() {
        Some(known) => known.operator_or(sha256, find),
        None => Ok(find()?.map(Arc::new)),
    }
}

/// Finds a token by its SHA-256, including expired and revoked ones.
pub fn find_by_token(connection: &Connection, sha256: Hash) -> Result<Option<Operator>, Error> {
    connection
        .prepare_cached(
            "SELECT id, name, scope, expires_at, revoked_at IS NOT NULL FROM operator_tokens \
             WHERE token_sha256 = ?1",
        )
        .and_then(|mut row| row.query_row([sha256.to_hex().as_str()], operator_from_row).optional())
        .map_err(Error::cannot("find an operator's token"))
}

/// Finds a token by its id, or else by its name.
pub fn find(connection: &Connection, id_or_name: &str) -> Result<Option<Token>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM operator_tokens WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1"
        ))
        .and_then(|mut row| row.query_row([id_or_name], from_row).optional())
        .map_err(Error::cannot("find an operator's token"))
}

/// Tokens, newest first, including revoked and expired ones.
pub fn list(connection: &Connection, limit: u32, offset: u32) -> Result<Vec<Token>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM operator_tokens ORDER BY seq DESC LIMIT ?1 OFFSET ?2"
        ))
        .and_then(|mut rows| rows.query_map((limit, offset), from_row)?.collect())
        .map_err(Error::cannot("list operators' tokens"))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: column::word(row, 2, Scope::parse)?,
        created_at: row.get(3)?,
        created_by: row.get(4)?,
        expires_at: row.get(5)?,
        revoked_at: row.get(6)?,
        last_used_at: row.get(7)?,
    })
}

/// An unreadable expiry is an error: read as none, the token would never expire.
fn operator_from_row(row: &Row<'_>) -> rusqlite::Result<Operator> {
    Ok(Operator {
        id: row.get(0)?,
        name: row.get(1)?,
        scope: column::word(row, 2, Scope::parse)?,
        expires_at: column::optional_time(row, 3)?,
        revoked: row.get(4)?,
    })
}
