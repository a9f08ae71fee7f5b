//! Recorded decisions.

mod list;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::policy::Outcome;
use crate::domain::record::{Decision, Recorded};

use super::commit::Tx;
use super::error::Error;
use super::{column, decision_counts};

pub use list::{Filter, Listed, Window, list};

/// The columns, in the order of [`from_row`].
pub(crate) const COLUMNS: &str = "seq, id, agent_id, user_id, run_id, trace_id, parent_run_id, tool, action, \
     resource, mutates_state, environment, source_trust, root_trust_level, decision, reason, \
     matched_policy_ids, policy_version, risk_score, composite_risk_score, request_id, action_hash, \
     latency_ms, created_at";

/// Records a decision at the position of its receipt, and counts it.
pub fn insert(tx: &Tx<'_>, seq: i64, decision: &Decision) -> Result<(), Error> {
    const INSERT: &str = "INSERT INTO decisions (seq, id, agent_id, user_id, run_id, trace_id, \
         parent_run_id, tool, action, resource, mutates_state, environment, source_trust, root_trust_level, \
         decision, reason, matched_policy_ids, policy_version, risk_score, composite_risk_score, request_id, \
         action_hash, latency_ms, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
         ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24)";
    tx.connection()
        .prepare_cached(INSERT)
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                seq,
                decision.id,
                decision.agent_id,
                decision.user_id,
                decision.run_id,
                decision.trace_id,
                decision.parent_run_id,
                decision.tool,
                decision.action,
                decision.resource,
                decision.mutates_state,
                decision.environment,
                decision.source_trust,
                decision.root_trust_level,
                decision.outcome.as_str(),
                decision.reason,
                decision.matched_policy_ids,
                decision.policy_version,
                decision.risk_score,
                decision.composite_risk_score,
                decision.request_id,
                decision.action_hash.to_hex().as_str(),
                decision.latency_ms,
                decision.created_at.to_string(),
            ])
        })
        .map_err(Error::cannot("record a decision"))
        .and_then(Error::unless_one("record a decision"))?;
    decision_counts::add(tx, decision)
}

/// Reads a decision; `from` is its `seq` column. A value the gateway would never have written
/// is an error.
pub(crate) fn from_row(row: &Row<'_>, from: usize) -> rusqlite::Result<Decision> {
    Ok(Decision {
        id: row.get(from + 1)?,
        agent_id: row.get(from + 2)?,
        user_id: row.get(from + 3)?,
        run_id: row.get(from + 4)?,
        trace_id: row.get(from + 5)?,
        parent_run_id: row.get(from + 6)?,
        tool: row.get(from + 7)?,
        action: row.get(from + 8)?,
        resource: row.get(from + 9)?,
        mutates_state: column::exact_flag(row, from + 10)?,
        environment: row.get(from + 11)?,
        source_trust: row.get(from + 12)?,
        root_trust_level: row.get(from + 13)?,
        outcome: column::word(row, from + 14, Outcome::parse)?,
        reason: row.get(from + 15)?,
        matched_policy_ids: row.get(from + 16)?,
        policy_version: row.get(from + 17)?,
        risk_score: row.get(from + 18)?,
        composite_risk_score: row.get(from + 19)?,
        request_id: row.get(from + 20)?,
        action_hash: column::hash(row, from + 21)?,
        latency_ms: row.get(from + 22)?,
        created_at: column::exact_time(row, from + 23)?,
    })
}

/// The same without copying or validating: for the verifier, which compares what is stored
/// with what was hashed.
pub(crate) fn recorded_from_row<'a>(row: &'a Row<'_>, from: usize) -> rusqlite::Result<Recorded<'a>> {
    let text = |column: usize| -> rusqlite::Result<&'a str> { Ok(row.get_ref(from + column)?.as_str()?) };
    let optional = |column: usize| -> rusqlite::Result<Option<&'a str>> {
        Ok(row.get_ref(from + column)?.as_str_or_null()?)
    };
    Ok(Recorded {
        id: text(1)?,
        agent_id: text(2)?,
        user_id: optional(3)?,
        run_id: optional(4)?,
        trace_id: optional(5)?,
        parent_run_id: optional(6)?,
        tool: text(7)?,
        action: text(8)?,
        resource: optional(9)?,
        mutates_state: column::exact_flag(row, from + 10)?,
        environment: text(11)?,
        source_trust: text(12)?,
        root_trust_level: text(13)?,
        outcome: text(14)?,
        reason: text(15)?,
        matched_policy_ids: text(16)?,
        policy_version: text(17)?,
        risk_score: row.get(from + 18)?,
        composite_risk_score: row.get(from + 19)?,
        request_id: optional(20)?,
        action_hash: text(21)?,
        latency_ms: row.get(from + 22)?,
        created_at: text(23)?,
    })
}

/// Finds a decision by its id.
pub fn find(connection: &Connection, id: &str) -> Result<Option<Decision>, Error> {
    find_where(connection, "id = ?1", [id])
}

/// Finds the earlier decision on an agent's repeated request.
pub fn find_by_request(
    connection: &Connection,
    agent_id: &str,
    request_id: &str,
) -> Result<Option<Decision>, Error> {
    find_where(connection, "agent_id = ?1 AND request_id = ?2", [agent_id, request_id])
}

fn find_where<P: rusqlite::Params>(
    connection: &Connection,
    condition: &str,
    parameters: P,
) -> Result<Option<Decision>, Error> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM decisions WHERE {condition}"))
        .and_then(|mut row| row.query_row(parameters, |row| from_row(row, 0)).optional())
        .map_err(Error::cannot("find a decision"))
}

/// The time of an agent's last decision.
pub fn last_of_agent(connection: &Connection, agent_id: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT created_at FROM decisions WHERE agent_id = ?1 ORDER BY seq DESC LIMIT 1")
        .and_then(|mut row| row.query_row([agent_id], |row| row.get(0)).optional())
        .map_err(Error::cannot("find an agent's last decision"))
}

/// The position of a decision.
pub fn find_seq(connection: &Connection, id: &str) -> Result<Option<i64>, Error> {
    connection
        .prepare_cached("SELECT seq FROM decisions WHERE id = ?1")
        .and_then(|mut row| row.query_row([id], |row| row.get(0)).optional())
        .map_err(Error::cannot("find a decision"))
}

/// Decisions at positions where the chain has no receipt.
pub(crate) fn without_receipt(
    connection: &Connection,
    visit: &mut dyn FnMut(i64, String),
) -> rusqlite::Result<()> {
    let mut rows = connection.prepare(
        "SELECT d.seq, d.id FROM decisions d NOT INDEXED \
         WHERE NOT EXISTS (SELECT 1 FROM receipts r NOT INDEXED WHERE r.seq = d.seq) ORDER BY d.seq",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?, row.get(1)?);
    }
    Ok(())
}
