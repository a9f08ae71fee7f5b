//! Recorded decisions.

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::canon::Hash;
use crate::domain::decision::Decision;
use crate::domain::policy::Outcome;
use crate::domain::time::Timestamp;

use super::commit::Tx;
use super::error::Error;

/// The columns, in the order of [`from_row`].
pub(crate) const COLUMNS: &str = "seq, id, agent_id, user_id, run_id, trace_id, parent_run_id, tool, action, \
     resource, mutates_state, environment, source_trust, root_trust_level, decision, reason, \
     matched_policy_ids, policy_version, risk_score, composite_risk_score, request_id, action_hash, \
     latency_ms, created_at";

/// Records a decision at the position of its receipt.
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
        .map(|_| ())
        .map_err(Error::cannot("record a decision"))
}

/// Reads a decision; `from` is its `seq` column. A column that no decision of ours
/// can hold is an error.
pub(crate) fn from_row(row: &Row<'_>, from: usize) -> rusqlite::Result<Decision> {
    let parsed = |column: usize, what: &'static str| {
        move || {
            rusqlite::Error::FromSqlConversionFailure(from + column, rusqlite::types::Type::Text, what.into())
        }
    };
    let text = |column: usize| row.get_ref(from + column).and_then(|value| Ok(value.as_str()?));
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
        mutates_state: exact_flag(row.get(from + 10)?).ok_or_else(parsed(10, "neither 0 nor 1"))?,
        environment: row.get(from + 11)?,
        source_trust: row.get(from + 12)?,
        root_trust_level: row.get(from + 13)?,
        outcome: Outcome::parse(text(14)?).ok_or_else(parsed(14, "not an outcome"))?,
        reason: row.get(from + 15)?,
        matched_policy_ids: row.get(from + 16)?,
        policy_version: row.get(from + 17)?,
        risk_score: row.get(from + 18)?,
        composite_risk_score: row.get(from + 19)?,
        request_id: row.get(from + 20)?,
        action_hash: Hash::parse(text(21)?).ok_or_else(parsed(21, "not a hash"))?,
        latency_ms: row.get(from + 22)?,
        created_at: exact_time(text(23)?).ok_or_else(parsed(23, "not a time as the gateway writes it"))?,
    })
}

/// Another number that reads as true would be an edit that no hash shows.
fn exact_flag(number: i64) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Another spelling of the same instant would be an edit that no hash shows.
fn exact_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).filter(|at| at.to_string() == text)
}

/// Finds a decision by its id.
pub fn find(connection: &Connection, id: &str) -> Result<Option<Decision>, Error> {
    find_where(connection, "id = ?1", [id])
}

/// Finds what an agent's request was answered before.
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

/// When an agent last asked.
pub fn last_of_agent(connection: &Connection, agent_id: &str) -> Result<Option<String>, Error> {
    connection
        .prepare_cached("SELECT created_at FROM decisions WHERE agent_id = ?1 ORDER BY seq DESC LIMIT 1")
        .and_then(|mut row| row.query_row([agent_id], |row| row.get(0)).optional())
        .map_err(Error::cannot("find an agent's last decision"))
}

/// Which decisions a list holds: every condition that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// UUID of the agent.
    pub agent_id: Option<String>,
    /// The outcome.
    pub decision: Option<Outcome>,
    /// Name of the tool.
    pub tool: Option<String>,
    /// Name of the action.
    pub action: Option<String>,
    /// What it acted upon.
    pub resource: Option<String>,
    /// The caller's run.
    pub run_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The source's trust.
    pub source_trust: Option<String>,
    /// SHA-256 of the call.
    pub action_hash: Option<String>,
    /// Hash of the decision's receipt.
    pub receipt_hash: Option<String>,
    /// Not before this time.
    pub from: Option<Timestamp>,
    /// Not after this time.
    pub to: Option<Timestamp>,
    /// A text that occurs in the tool, the action, the resource or the reason.
    pub text: Option<String>,
}

/// The decisions that pass `filter`, newest first.
pub fn list(
    connection: &Connection,
    filter: &Filter,
    limit: u32,
    offset: u32,
) -> Result<Vec<Decision>, Error> {
    let (mut sql, mut values) = (format!("SELECT {COLUMNS} FROM decisions WHERE 1"), Vec::new());
    let mut and = |condition: &str, value: Option<Box<dyn ToSql>>| {
        if let Some(value) = value {
            values.push(value);
            sql.push_str(&format!(" AND {}", condition.replace('?', &format!("?{}", values.len()))));
        }
    };
    let text = |value: &Option<String>| value.clone().map(|value| Box::new(value) as Box<dyn ToSql>);
    let time = |value: Option<Timestamp>| value.map(|at| Box::new(at.to_string()) as Box<dyn ToSql>);
    and("agent_id = ?", text(&filter.agent_id));
    and("decision = ?", filter.decision.map(|outcome| Box::new(outcome.as_str()) as Box<dyn ToSql>));
    and("tool = ?", text(&filter.tool));
    and("action = ?", text(&filter.action));
    and("resource = ?", text(&filter.resource));
    and("run_id = ?", text(&filter.run_id));
    and("trace_id = ?", text(&filter.trace_id));
    and("source_trust = ?", text(&filter.source_trust));
    and("action_hash = ?", text(&filter.action_hash));
    and("seq IN (SELECT seq FROM receipts WHERE receipt_hash = ?)", text(&filter.receipt_hash));
    and("created_at >= ?", time(filter.from));
    and("created_at <= ?", time(filter.to));
    and("(instr(tool, ?) OR instr(action, ?) OR instr(resource, ?) OR instr(reason, ?))", text(&filter.text));
    values.push(Box::new(limit));
    values.push(Box::new(offset));
    sql.push_str(&format!(" ORDER BY seq DESC LIMIT ?{} OFFSET ?{}", values.len() - 1, values.len()));
    connection
        .prepare_cached(&sql)
        .and_then(|mut rows| {
            let values = rusqlite::params_from_iter(values.iter().map(|value| &**value));
            rows.query_map(values, |row| from_row(row, 0))?.collect()
        })
        .map_err(Error::cannot("list decisions"))
}

/// Decisions at positions where the chain has no receipt.
pub(crate) fn without_receipt(
    connection: &Connection,
    visit: &mut dyn FnMut(i64, String),
) -> rusqlite::Result<()> {
    let mut rows = connection.prepare(
        "SELECT d.seq, d.id FROM decisions d WHERE NOT EXISTS (SELECT 1 FROM receipts r WHERE r.seq = d.seq) \
         ORDER BY d.seq",
    )?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?, row.get(1)?);
    }
    Ok(())
}
