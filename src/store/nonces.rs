//! Nonces that requests have used.
//!
//! # Size
//! Taking a nonce deletes up to `DELETED_AT_ONCE` expired ones, more than it adds: the table
//! shrinks to the nonces of the last few minutes, without ever deleting many rows at once.

use rusqlite::{Connection, OptionalExtension};

use crate::domain::canon::Hash;
use crate::domain::replay;
use crate::domain::time::Timestamp;

use super::commit::Tx;
use super::error::Error;

/// Maximum rows deleted per nonce taken.
const DELETED_AT_ONCE: u32 = 4;

/// Whether an agent has used this nonce before.
pub fn is_taken(connection: &Connection, agent_id: &str, nonce: Hash) -> Result<bool, Error> {
    connection
        .prepare_cached("SELECT 1 FROM request_nonces WHERE agent_id = ?1 AND nonce_sha256 = ?2")
        .and_then(|mut row| row.query_row((agent_id, nonce.to_hex().as_str()), |_| Ok(())).optional())
        .map(|found| found.is_some())
        .map_err(Error::cannot("look for a nonce"))
}

/// Takes an agent's nonce and deletes some expired ones; `false` if it was already taken.
pub fn take(tx: &Tx<'_>, agent_id: &str, nonce: Hash, now: Timestamp) -> Result<bool, Error> {
    let inserted = tx
        .connection()
        .prepare_cached(
            "INSERT INTO request_nonces (agent_id, nonce_sha256, seen_at) VALUES (?1, ?2, ?3) \
             ON CONFLICT (agent_id, nonce_sha256) DO NOTHING",
        )
        .and_then(|mut insert| insert.execute((agent_id, nonce.to_hex().as_str(), now.to_string())))
        .map_err(Error::cannot("take a nonce"))?;
    delete_some(tx, replay::forgotten_before(now))?;
    Ok(inserted == 1)
}

fn delete_some(tx: &Tx<'_>, before: Timestamp) -> Result<(), Error> {
    tx.connection()
        .prepare_cached(
            "DELETE FROM request_nonces WHERE (agent_id, nonce_sha256) IN \
             (SELECT agent_id, nonce_sha256 FROM request_nonces WHERE seen_at < ?1 \
              ORDER BY seen_at LIMIT ?2)",
        )
        .and_then(|mut delete| delete.execute((before.to_string(), DELETED_AT_ONCE)))
        .map(|_| ())
        .map_err(Error::cannot("delete expired nonces"))
}
