//! What identifies a chain and one history of it: its id, its first and last receipts, and
//! the restores it records.

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::restore::{Cause, Position, TOOL};

use super::error::Error;
use super::receipts::{self, Head};

/// A chain at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The chain's unique 128-bit id, in hexadecimal.
    pub chain_id: String,
    /// Hash of the first receipt; `None` while the chain is empty.
    pub genesis_hash: Option<String>,
    /// The last link.
    pub head: Head,
    /// The id of the last receipt; `None` while the chain is empty.
    pub receipt_id: Option<String>,
}

impl State {
    /// Reads it; the recorded head and the last receipt must agree. Needs a read transaction
    /// if others may write.
    pub fn load(connection: &Connection) -> Result<Self, Error> {
        let chain_id = find_id(connection)?
            .ok_or_else(|| Error::Corrupt("the chain's id is missing from the database".to_owned()))?;
        let head = Head::load(connection)?;
        let receipt_id = receipts::find_at(connection, head.seq, |receipt, _| receipt.event_id.to_owned())?;
        let genesis_hash = standing(connection, 1)?.map(|(_, hash)| hash);
        Ok(State { chain_id, genesis_hash, head, receipt_id })
    }
}

/// The chain's id; `None` if its row or its table is missing.
pub fn find_id(connection: &Connection) -> Result<Option<String>, Error> {
    let find = || -> rusqlite::Result<Option<String>> {
        if !connection.table_exists(None, "chain")? {
            return Ok(None);
        }
        let id =
            connection.query_row("SELECT chain_id FROM chain NOT INDEXED WHERE only_row = 1", [], |row| {
                text(row, 0)
            });
        id.optional()
    };
    find().map_err(Error::cannot("read the chain's id"))
}

/// Id and hash of the receipt at a position, even if the receipt is otherwise damaged.
pub fn standing(connection: &Connection, seq: i64) -> Result<Option<(String, String)>, Error> {
    connection
        .prepare_cached("SELECT event_id, receipt_hash FROM receipts NOT INDEXED WHERE seq = ?1")
        .and_then(|mut row| row.query_row([seq], |row| Ok((text(row, 0)?, text(row, 1)?))).optional())
        .map_err(Error::cannot("find a receipt"))
}

/// The stored text; an empty string, which equals no id or hash, if there is none.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(column)?.as_bytes_or_null();
    Ok(String::from_utf8_lossy(bytes.ok().flatten().unwrap_or_default()).into_owned())
}

/// Position of the last receipt, regardless of the recorded head; 0 if there is none.
pub fn last_seq(connection: &Connection) -> Result<i64, Error> {
    connection
        .query_row("SELECT coalesce(max(seq), 0) FROM receipts NOT INDEXED", [], |row| row.get(0))
        .map_err(Error::cannot("find the last receipt"))
}

/// A receipt that records a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The receipt.
    pub at: Position,
    /// What was restored, and what was known of the chain at the time.
    pub resource: String,
}

/// The newest `limit` receipts that record a restore, newest first. They have no decision,
/// so no agent's call can forge one.
pub fn restores(connection: &Connection, limit: u32) -> Result<Vec<Recorded>, Error> {
    let causes = Cause::ALL.map(|cause| format!("('{}', '{}')", cause.action(), cause.decision()));
    let select = format!(
        "SELECT seq, receipt_hash, resource FROM receipts WHERE tool = '{TOOL}' AND decision_id IS NULL \
         AND (action, decision) IN (VALUES {}) ORDER BY seq DESC LIMIT ?1",
        causes.join(", ")
    );
    connection
        .prepare_cached(&select)
        .and_then(|mut rows| {
            let recorded = |row: &Row<'_>| {
                let at = Position { seq: row.get(0)?, receipt_hash: text(row, 1)? };
                Ok(Recorded { at, resource: text(row, 2)? })
            };
            rows.query_map([limit], recorded)?.collect()
        })
        .map_err(Error::cannot("find the chain's restores"))
}
