//! Recorded decisions.

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::canon::Hash;
use crate::domain::policy::Outcome;
use crate::domain::record::{Decision, Recorded};
use crate::domain::time::Timestamp;

use super::commit::Tx;
use super::error::Error;
use super::{decision_counts, receipts};

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

/// The same without copying, and without judging: for the verifier, which compares
/// what is stored with what was hashed.
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
        mutates_state: exact_flag(row.get(from + 10)?)
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(from + 10, 2))?,
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

/// Which part of a list is wanted, by position.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Only decisions before this position.
    pub before: Option<i64>,
    /// Only decisions after this position.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: u32,
    /// After leaving out so many.
    pub offset: u32,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The decisions, newest first.
    pub decisions: Vec<Decision>,
    /// Where to go on: the `before` of the next part. `None` at the end of the list.
    pub next: Option<i64>,
}

/// How many decisions a list without a fitting index looks through, so that its time
/// does not grow with the history; it then says where to go on.
pub const LOOKED_THROUGH_MAX: i64 = 100_000;

/// The decisions that pass `filter`, newest first.
pub fn list(connection: &Connection, filter: &Filter, window: Window) -> Result<Listed, Error> {
    let Some((oldest, newest)) = bounds(connection, filter, window)? else {
        return Ok(Listed { decisions: Vec::new(), next: None });
    };
    let (condition, mut values) = filter.condition();
    // Where every decision passes, leaving out is counting positions.
    let (newest, offset) = if values.is_empty() {
        (position_after(connection, newest, window.offset)?, 0)
    } else {
        (newest, window.offset)
    };
    let from = if filter.has_index() { oldest } else { oldest.max(newest - LOOKED_THROUGH_MAX + 1) };
    values.extend([from, newest, i64::from(window.limit), i64::from(offset)].map(boxed));
    let first = values.len() - 3;
    let sql = format!(
        "SELECT {COLUMNS} FROM decisions WHERE {condition} AND seq BETWEEN ?{first} AND ?{} \
         ORDER BY seq DESC LIMIT ?{} OFFSET ?{}",
        first + 1,
        first + 2,
        first + 3
    );
    let rows = connection
        .prepare_cached(&sql)
        .and_then(|mut rows| {
            let values = rusqlite::params_from_iter(values.iter().map(|value| &**value));
            rows.query_map(values, |row| Ok((row.get::<_, i64>(0)?, from_row(row, 0)?)))?.collect()
        })
        .map_err(Error::cannot("list decisions"))?;
    let rows: Vec<(i64, Decision)> = rows;
    let is_full = u32::try_from(rows.len()).is_ok_and(|count| count == window.limit);
    let last_looked_at = if is_full { rows.last().map_or(from, |(seq, _)| *seq) } else { from };
    let next = (last_looked_at > oldest).then_some(last_looked_at);
    Ok(Listed { decisions: rows.into_iter().map(|(_, decision)| decision).collect(), next })
}

/// The position that is reached from `newest` when so many decisions are left out.
fn position_after(connection: &Connection, newest: i64, offset: u32) -> Result<i64, Error> {
    if offset == 0 {
        return Ok(newest);
    }
    let walk = || -> rusqlite::Result<i64> {
        let mut without = connection.prepare_cached(
            "SELECT seq FROM receipts INDEXED BY receipts_without_decision \
             WHERE decision_hash IS NULL AND seq <= ?1 ORDER BY seq DESC",
        )?;
        let (mut without, mut position) =
            (without.query([newest])?, newest.saturating_sub(i64::from(offset)));
        while let Some(row) = without.next()?
            && row.get::<_, i64>(0)? >= position
        {
            position -= 1;
        }
        Ok(position)
    };
    walk().map_err(Error::cannot("list decisions"))
}

/// The positions that can hold what is asked for; `None` when none can.
fn bounds(connection: &Connection, filter: &Filter, window: Window) -> Result<Option<(i64, i64)>, Error> {
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached("SELECT (SELECT min(seq) FROM decisions), (SELECT max(seq) FROM decisions)")
        .and_then(|mut row| row.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(Error::cannot("list decisions"))?;
    let (Some(mut oldest), Some(mut newest)) = (first, last) else { return Ok(None) };
    if let Some(after) = window.after {
        oldest = oldest.max(after.saturating_add(1));
    }
    if let Some(before) = window.before {
        newest = newest.min(before.saturating_sub(1));
    }
    // A decision has its receipt's position and time.
    if let Some(from) = filter.from {
        oldest = oldest.max(receipts::first_at_or_after(connection, from)?);
    }
    if let Some(to) = filter.to {
        newest = newest.min(receipts::first_at_or_after(connection, to.next())? - 1);
    }
    Ok((oldest <= newest).then_some((oldest, newest)))
}

type Value = Box<dyn ToSql>;

fn boxed(value: i64) -> Value {
    Box::new(value)
}

impl Filter {
    /// Whether an index leads to what passes, or everything does.
    fn has_index(&self) -> bool {
        let others = [
            &self.tool,
            &self.action,
            &self.resource,
            &self.run_id,
            &self.trace_id,
            &self.source_trust,
            &self.action_hash,
            &self.receipt_hash,
            &self.text,
        ];
        let one_of_two = self.agent_id.is_none() || self.decision.is_none();
        others.iter().all(|filter| filter.is_none()) && one_of_two && self.decision != Some(Outcome::Allow)
    }

    fn condition(&self) -> (String, Vec<Value>) {
        let (mut sql, mut values) = ("1".to_owned(), Vec::<Value>::new());
        let mut and = |condition: &str, value: Option<&str>| {
            if let Some(value) = value {
                values.push(Box::new(value.to_owned()));
                sql.push_str(&format!(" AND {}", condition.replace('?', &format!("?{}", values.len()))));
            }
        };
        and("agent_id = ?", self.agent_id.as_deref());
        // The second half is what the partial index asks for.
        let rare = self.decision.is_some_and(|outcome| outcome != Outcome::Allow);
        let decision = if rare { "decision = ? AND decision <> 'allow'" } else { "decision = ?" };
        and(decision, self.decision.map(Outcome::as_str));
        and("tool = ?", self.tool.as_deref());
        and("action = ?", self.action.as_deref());
        and("resource = ?", self.resource.as_deref());
        and("run_id = ?", self.run_id.as_deref());
        and("trace_id = ?", self.trace_id.as_deref());
        and("source_trust = ?", self.source_trust.as_deref());
        and("action_hash = ?", self.action_hash.as_deref());
        let receipt_hash = "(SELECT receipt_hash FROM receipts WHERE receipts.seq = decisions.seq) = ?";
        and(receipt_hash, self.receipt_hash.as_deref());
        let anywhere = "(instr(tool, ?) OR instr(action, ?) OR instr(resource, ?) OR instr(reason, ?))";
        and(anywhere, self.text.as_deref());
        (sql, values)
    }
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
