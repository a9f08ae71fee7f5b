//! Approvals that wait for a person.

use rusqlite::{Connection, OptionalExtension};

use crate::domain::approval::{NewApproval, STATUS_CREATED};

use super::commit::Tx;
use super::error::Error;

/// An approval as its decision's answer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// UUID.
    pub id: String,
    /// Where it stands.
    pub status: String,
    /// Hash of the frozen call.
    pub action_hash: String,
    /// Who should decide.
    pub approver_group: String,
    /// When it can no longer be approved or used.
    pub expires_at: String,
}

/// Records an approval that waits.
pub fn insert(tx: &Tx<'_>, approval: &NewApproval) -> Result<(), Error> {
    let tool_call = std::str::from_utf8(&approval.tool_call).expect("canonical bytes are UTF-8");
    tx.connection()
        .prepare_cached(
            "INSERT INTO approvals (id, decision_id, agent_id, status, action_hash, tool_call, \
             approver_group, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                approval.id,
                approval.decision_id,
                approval.agent_id,
                STATUS_CREATED,
                approval.action_hash.to_hex().as_str(),
                tool_call,
                approval.approver_group,
                approval.created_at.to_string(),
                approval.expires_at.to_string(),
            ])
        })
        .map_err(Error::cannot("record an approval"))
        .and_then(Error::unless_one("record an approval"))
}

/// Finds the approval that a decision asked for.
pub fn find_by_decision(connection: &Connection, decision_id: &str) -> Result<Option<Approval>, Error> {
    connection
        .prepare_cached(
            "SELECT id, status, action_hash, approver_group, expires_at FROM approvals WHERE decision_id = ?1",
        )
        .and_then(|mut row| {
            row.query_row([decision_id], |row| {
                Ok(Approval {
                    id: row.get(0)?,
                    status: row.get(1)?,
                    action_hash: row.get(2)?,
                    approver_group: row.get(3)?,
                    expires_at: row.get(4)?,
                })
            })
            .optional()
        })
        .map_err(Error::cannot("find an approval"))
}
