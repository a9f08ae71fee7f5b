//! Lists of decisions, newest first, by position. The cost of a list does not grow with the
//! history: either an index serves it, or it stops early and says where to continue.

use rusqlite::Connection;

use crate::domain::policy::Outcome;
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::store::conditions::Conditions;
use crate::store::error::Error;
use crate::store::receipts;

use super::{COLUMNS, from_row};

/// Which decisions a list contains: all given conditions must hold.
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
    /// What it acted on.
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

/// The requested part of a list, by position.
#[derive(Debug, Clone, Copy, Default)]
pub struct Window {
    /// Only decisions before this position.
    pub before: Option<i64>,
    /// Only decisions after this position.
    pub after: Option<i64>,
    /// Maximum number of decisions.
    pub limit: u32,
    /// Number of decisions to skip.
    pub offset: u32,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The decisions, newest first.
    pub decisions: Vec<Decision>,
    /// Where to continue: the `before` of the next part. `None` at the end of the list.
    pub next: Option<i64>,
}

/// Maximum decisions scanned by a list without a suitable index, so that its time does not
/// grow with the history; the list then says where to continue.
const SCANNED_MAX: i64 = 100_000;

/// The decisions that match `filter`, newest first.
pub fn list(connection: &Connection, filter: &Filter, window: Window) -> Result<Listed, Error> {
    let Some((oldest, newest)) = bounds(connection, filter, window)? else {
        return Ok(Listed { decisions: Vec::new(), next: None });
    };
    let mut conditions = filter.conditions();
    // If every decision matches, skipping is arithmetic on positions.
    let (newest, offset) = if conditions.is_empty() {
        (position_after(connection, newest, window.offset)?, 0)
    } else {
        (newest, window.offset)
    };
    let from = if filter.has_index() { oldest } else { oldest.max(newest - SCANNED_MAX + 1) };
    let (first, last) = (conditions.bind(from), conditions.bind(newest));
    let (limit, offset) = (conditions.bind(window.limit), conditions.bind(offset));
    let condition = conditions.sql();
    let rows = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM decisions WHERE {condition} AND seq BETWEEN {first} AND {last} \
             ORDER BY seq DESC LIMIT {limit} OFFSET {offset}"
        ))
        .and_then(|mut rows| {
            rows.query_map(conditions.values(), |row| Ok((row.get(0)?, from_row(row, 0)?)))?.collect()
        })
        .map_err(Error::cannot("list decisions"))?;
    let rows: Vec<(i64, Decision)> = rows;
    let is_full = u32::try_from(rows.len()).is_ok_and(|count| count == window.limit);
    let last_scanned = if is_full { rows.last().map_or(from, |(seq, _)| *seq) } else { from };
    let next = (last_scanned > oldest).then_some(last_scanned);
    Ok(Listed { decisions: rows.into_iter().map(|(_, decision)| decision).collect(), next })
}

/// The position reached from `newest` after skipping `offset` decisions.
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

/// The range of positions that can match; `None` if it is empty.
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

impl Filter {
    /// Whether an index serves the filter, or everything matches.
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

    fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::new();
        conditions.and("agent_id = ?", self.agent_id.as_deref());
        // The second half makes the partial index applicable.
        let rare = self.decision.is_some_and(|outcome| outcome != Outcome::Allow);
        let decision = if rare { "decision = ? AND decision <> 'allow'" } else { "decision = ?" };
        conditions.and(decision, self.decision.map(Outcome::as_str));
        conditions.and("tool = ?", self.tool.as_deref());
        conditions.and("action = ?", self.action.as_deref());
        conditions.and("resource = ?", self.resource.as_deref());
        conditions.and("run_id = ?", self.run_id.as_deref());
        conditions.and("trace_id = ?", self.trace_id.as_deref());
        conditions.and("source_trust = ?", self.source_trust.as_deref());
        conditions.and("action_hash = ?", self.action_hash.as_deref());
        let receipt_hash = "(SELECT receipt_hash FROM receipts WHERE receipts.seq = decisions.seq) = ?";
        conditions.and(receipt_hash, self.receipt_hash.as_deref());
        let anywhere = "(instr(tool, ?) OR instr(action, ?) OR instr(resource, ?) OR instr(reason, ?))";
        conditions.and(anywhere, self.text.as_deref());
        conditions
    }
}
