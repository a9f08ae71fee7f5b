//! Audit events. Written in the transaction of the change they record, and never changed.

use rusqlite::{Connection, Row};

use crate::domain::audit::{Event, EventType};

use super::column;
use super::commit::Tx;
use super::conditions::Conditions;
use super::error::Error;

const COLUMNS: &str = "id, event_type, agent_id, user_id, run_id, trace_id, span_id, skill, action, resource, \
     event_json, input_hash, output_hash, decision_id, approval_id, created_at";

/// Records an event.
pub fn insert(tx: &Tx<'_>, event: &Event) -> Result<(), Error> {
    tx.connection()
        .prepare_cached(&format!(
            "INSERT INTO audit_events ({COLUMNS}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
        ))
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                event.id,
                event.event_type.as_str(),
                event.agent_id,
                event.user_id,
                event.run_id,
                event.trace_id,
                event.span_id,
                event.skill,
                event.action,
                event.resource,
                event.event_json,
                event.input_hash,
                event.output_hash,
                event.decision_id,
                event.approval_id,
                event.created_at.to_string(),
            ])
        })
        .map_err(Error::cannot("record an audit event"))
        .and_then(Error::unless_one("record an audit event"))
}

/// Which events a list contains: all given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// UUID of the decision.
    pub decision_id: Option<String>,
    /// UUID of the agent.
    pub agent_id: Option<String>,
    /// What happened.
    pub event_type: Option<EventType>,
}

/// Events that match `filter`, newest first.
pub fn list(connection: &Connection, filter: &Filter, limit: u32, offset: u32) -> Result<Vec<Event>, Error> {
    let mut conditions = Conditions::new();
    conditions.and("decision_id = ?", filter.decision_id.as_deref());
    conditions.and("agent_id = ?", filter.agent_id.as_deref());
    conditions.and("event_type = ?", filter.event_type.map(EventType::as_str));
    let (limit, offset) = (conditions.bind(limit), conditions.bind(offset));
    let condition = conditions.sql();
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM audit_events WHERE {condition} ORDER BY seq DESC LIMIT {limit} OFFSET {offset}"
        ))
        .and_then(|mut rows| rows.query_map(conditions.values(), from_row)?.collect())
        .map_err(Error::cannot("list audit events"))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: row.get(0)?,
        event_type: column::word(row, 1, EventType::parse)?,
        agent_id: row.get(2)?,
        user_id: row.get(3)?,
        run_id: row.get(4)?,
        trace_id: row.get(5)?,
        span_id: row.get(6)?,
        skill: row.get(7)?,
        action: row.get(8)?,
        resource: row.get(9)?,
        event_json: row.get(10)?,
        input_hash: row.get(11)?,
        output_hash: row.get(12)?,
        decision_id: row.get(13)?,
        approval_id: row.get(14)?,
        created_at: column::time(row, 15)?,
    })
}
