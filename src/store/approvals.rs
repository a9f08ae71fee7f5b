//! Approvals, pending and decided.
//!
//! Each change is one UPDATE whose WHERE repeats every precondition, in the transaction in
//! which they were checked: an UPDATE that changes no row is an error, never a success.

use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::domain::approval::{Approval, NewApproval, Status, UNDECIDED_CALL_KEPT_SECONDS};
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;

use super::column;
use super::commit::Tx;
use super::error::Error;

/// The columns, in the order of [`from_row`].
const COLUMNS: &str = "id, decision_id, agent_id, status, original_action_hash, action_hash, approver_group, \
     approver_user_id, reason, created_at, expires_at, edited_at, decided_at, consumed_at";

/// Records a pending approval.
pub fn insert(tx: &Tx<'_>, approval: &NewApproval) -> Result<(), Error> {
    let tool_call = std::str::from_utf8(&approval.tool_call).expect("canonical bytes are UTF-8");
    tx.connection()
        .prepare_cached(
            "INSERT INTO approvals (id, decision_id, agent_id, status, original_action_hash, action_hash, \
             tool_call, approver_group, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9)",
        )
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                approval.id,
                approval.decision_id,
                approval.agent_id,
                Status::Created.as_str(),
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

/// Finds an approval.
pub fn find(connection: &Connection, id: &str) -> Result<Option<Approval>, Error> {
    find_where(connection, "id = ?1", id)
}

/// Finds the approval that a decision requested.
pub fn find_by_decision(connection: &Connection, decision_id: &str) -> Result<Option<Approval>, Error> {
    find_where(connection, "decision_id = ?1", decision_id)
}

fn find_where(connection: &Connection, condition: &str, value: &str) -> Result<Option<Approval>, Error> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM approvals WHERE {condition}"))
        .and_then(|mut row| row.query_row([value], from_row).optional())
        .map_err(Error::cannot("find an approval"))
}

/// The canonical bytes of an approval's frozen call; `None` once it is blanked.
pub fn find_call(connection: &Connection, id: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT tool_call FROM approvals WHERE id = ?1")
        .and_then(|mut row| row.query_row([id], |row| row.get(0)))
        .map_err(Error::cannot("read an approval's call"))
}

/// Approvals that can still be decided, newest first.
pub fn list_waiting(
    connection: &Connection,
    now: Timestamp,
    limit: u32,
    offset: u32,
) -> Result<Vec<Approval>, Error> {
    // The index alone answers the inner query, however many approvals have expired.
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM approvals WHERE seq IN (SELECT seq FROM approvals INDEXED BY \
             approvals_waiting WHERE status = 'created' AND tool_call IS NOT NULL AND expires_at > ?1 \
             ORDER BY seq DESC LIMIT ?2 OFFSET ?3) ORDER BY seq DESC"
        ))
        .and_then(|mut rows| rows.query_map((now.to_string(), limit, offset), from_row)?.collect())
        .map_err(Error::cannot("list approvals"))
}

/// A person's decision.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// `APPROVED` or `REJECTED`.
    pub status: Status,
    /// Who decided.
    pub approver_user_id: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
}

/// Records the decision on an approval that is pending and has not expired.
pub fn set_decided(tx: &Tx<'_>, id: &str, decided: &Decided<'_>, now: Timestamp) -> Result<(), Error> {
    change(
        tx,
        "record the decision on an approval",
        "UPDATE approvals SET status = ?2, approver_user_id = ?3, reason = ?4, decided_at = ?5 \
         WHERE id = ?1 AND status = 'created' AND expires_at > ?5",
        (id, decided.status.as_str(), decided.approver_user_id, decided.reason, now.to_string()),
    )
}

/// Replaces the call of an approval that is pending and has not expired.
pub fn set_call(
    tx: &Tx<'_>,
    id: &str,
    tool_call: &str,
    action_hash: Hash,
    now: Timestamp,
) -> Result<(), Error> {
    change(
        tx,
        "edit an approval",
        "UPDATE approvals SET tool_call = ?2, action_hash = ?3, edited_at = ?4 \
         WHERE id = ?1 AND status = 'created' AND expires_at > ?4",
        (id, tool_call, action_hash.to_hex().as_str(), now.to_string()),
    )
}

/// Uses an approval that is granted, unexpired, unused and for the claimed call, and whose
/// agent is active.
pub fn set_consumed(tx: &Tx<'_>, id: &str, claim: Option<Hash>, now: Timestamp) -> Result<(), Error> {
    change(
        tx,
        "consume an approval",
        "UPDATE approvals SET consumed_at = ?2 WHERE id = ?1 AND status = 'APPROVED' \
         AND consumed_at IS NULL AND expires_at > ?2 AND (?3 IS NULL OR action_hash = ?3) \
         AND EXISTS (SELECT 1 FROM agents WHERE agents.id = approvals.agent_id AND agents.status = 'active')",
        (id, now.to_string(), claim.map(|claim| claim.to_string())),
    )
}

fn change(tx: &Tx<'_>, doing: &'static str, sql: &str, values: impl Params) -> Result<(), Error> {
    tx.connection()
        .prepare_cached(sql)
        .and_then(|mut update| update.execute(values))
        .map_err(Error::cannot(doing))
        .and_then(Error::unless_one(doing))
}

/// The calls that need not be kept any longer: those of expired approvals that were decided,
/// or that have been expired long enough for a late approver to have seen what was asked.
///
/// Two halves, each a range of the index, so that pending approvals are not scanned.
const BLANKABLE: &str = "SELECT seq FROM approvals INDEXED BY approvals_with_call \
     WHERE tool_call IS NOT NULL AND status IN ('APPROVED', 'REJECTED') AND expires_at <= ?1 \
     UNION ALL SELECT seq FROM approvals INDEXED BY approvals_with_call \
     WHERE tool_call IS NOT NULL AND status = 'created' AND expires_at <= ?2";

/// Whether any call need not be kept any longer.
pub fn has_blankable(connection: &Connection, now: Timestamp) -> Result<bool, Error> {
    connection
        .prepare_cached(&format!("SELECT EXISTS ({BLANKABLE})"))
        .and_then(|mut row| row.query_row(ends(now), |row| row.get(0)))
        .map_err(Error::cannot("look for calls to blank"))
}

/// Removes up to `limit` calls that need not be kept any longer; returns how many. The
/// connection overwrites them with zeros.
pub fn blank(tx: &Tx<'_>, now: Timestamp, limit: u32) -> Result<usize, Error> {
    let (decided, undecided) = ends(now);
    tx.connection()
        .prepare_cached(&format!("UPDATE approvals SET tool_call = NULL WHERE seq IN ({BLANKABLE} LIMIT ?3)"))
        .and_then(|mut update| update.execute((decided, undecided, limit)))
        .map_err(Error::cannot("blank calls"))
}

/// The latest expiries at which calls may be removed: of decided and of undecided approvals.
fn ends(now: Timestamp) -> (String, String) {
    (now.to_string(), now.plus_seconds(-UNDECIDED_CALL_KEPT_SECONDS).to_string())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        id: row.get(0)?,
        decision_id: row.get(1)?,
        agent_id: row.get(2)?,
        recorded: column::word(row, 3, Status::parse)?,
        original_action_hash: column::hash(row, 4)?,
        action_hash: column::hash(row, 5)?,
        approver_group: row.get(6)?,
        approver_user_id: row.get(7)?,
        reason: row.get(8)?,
        created_at: column::time(row, 9)?,
        expires_at: column::time(row, 10)?,
        edited_at: column::optional_time(row, 11)?,
        decided_at: column::optional_time(row, 12)?,
        consumed_at: column::optional_time(row, 13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::commit::Committer;
    use crate::store::commit::tests::made;

    type Attempt = fn(&Tx<'_>) -> Result<(), Error>;

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);

    /// Creates an approval with `columns` set, tries `change` on it, and rolls both back.
    fn tried(committer: &Committer, columns: &'static str, change: Attempt) -> bool {
        let attempt = committer.write(move |tx| -> Result<(), Error> {
            let hash = Hash::of(b"call");
            tx.connection()
                .execute_batch(&format!(
                    "INSERT INTO agents (id, agent_key, token_sha256, name, environment, risk_tier, created_at, \
                     updated_at) VALUES ('a', 'k', '{hash}', 'n', 'e', 'low', 't', 't');
                     INSERT INTO approvals (id, decision_id, agent_id, status, original_action_hash, action_hash, \
                     tool_call, approver_group, created_at, expires_at) VALUES ('i', 'd', 'a', 'created', '{hash}', \
                     '{hash}', '{{}}', 'g', '{NOW}', '{}');
                     UPDATE approvals SET {columns};",
                    NOW.next()
                ))
                .map_err(Error::cannot("make a case"))?;
            change(tx)?;
            Err(Error::RolledBack)
        });
        match attempt {
            Err(Error::RolledBack) => true,
            Err(Error::Corrupt(_)) => false,
            other => panic!("{columns}: {other:?}"),
        }
    }

    fn decide(tx: &Tx<'_>) -> Result<(), Error> {
        let decided = Decided { status: Status::Rejected, approver_user_id: "u", reason: None };
        set_decided(tx, "i", &decided, NOW)
    }

    fn edit(tx: &Tx<'_>) -> Result<(), Error> {
        set_call(tx, "i", "{}", Hash::of(b"another"), NOW)
    }

    fn consume(tx: &Tx<'_>) -> Result<(), Error> {
        set_consumed(tx, "i", Some(Hash::of(b"call")), NOW)
    }

    fn consume_another(tx: &Tx<'_>) -> Result<(), Error> {
        set_consumed(tx, "i", Some(Hash::of(b"another")), NOW)
    }

    fn consume_of_a_frozen_agent(tx: &Tx<'_>) -> Result<(), Error> {
        tx.connection()
            .execute("UPDATE agents SET status = 'frozen'", [])
            .map_err(Error::cannot("make a case"))?;
        set_consumed(tx, "i", None, NOW)
    }

    #[test]
    fn each_change_asks_by_itself_for_everything_it_depends_on() {
        let made = made();
        const GIVEN: &str = "status = 'APPROVED', approver_user_id = 'u', decided_at = 't'";
        const ENDED: &str = "status = 'APPROVED', approver_user_id = 'u', decided_at = 't', \
             expires_at = '2026-01-01T00:00:00.000000Z'";
        const USED: &str = "status = 'APPROVED', approver_user_id = 'u', decided_at = 't', consumed_at = 't'";
        const REFUSED: &str = "status = 'REJECTED', approver_user_id = 'u', decided_at = 't'";
        for (columns, expected) in [
            ("status = 'created'", [true, true, false, false, false]),
            ("expires_at = '2026-01-01T00:00:00.000000Z'", [false; 5]),
            (GIVEN, [false, false, true, false, false]),
            (ENDED, [false; 5]),
            (USED, [false; 5]),
            (REFUSED, [false; 5]),
        ] {
            let changes: [Attempt; 5] = [decide, edit, consume, consume_another, consume_of_a_frozen_agent];
            assert_eq!(changes.map(|change| tried(&made.committer, columns, change)), expected, "{columns}");
        }
    }
}
