//! The registry of tools and their actions.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::time::Timestamp;
use crate::domain::tool::{DefaultDecision, Risk, Tool, ToolAction};

use super::column;
use super::commit::Tx;
use super::error::Error;

const ACTION_COLUMNS: &str =
    "action_key, description, risk, mutates_state, approval_required, default_decision, data_access";

/// Records a tool: replaces its fields and the listed actions, and keeps its other actions.
/// Returns its id: the given one if the tool is new, else the existing one.
pub fn upsert(tx: &mut Tx<'_>, tool: &Tool, now: Timestamp) -> Result<String, Error> {
    tx.changes_registry();
    let (connection, now) = (tx.connection(), now.to_string());
    let (seq, id) = upsert_tool(connection, tool, &now).map_err(Error::cannot("register a tool"))?;
    for action in &tool.actions {
        replace_action(connection, seq, action, &now)
            .map_err(Error::cannot("register a tool's action"))
            .and_then(Error::unless_one("register a tool's action"))?;
    }
    Ok(id)
}

fn upsert_tool(connection: &Connection, tool: &Tool, now: &str) -> rusqlite::Result<(i64, String)> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO tools (id, skill_key, name, type, auth_type, owner_team, default_risk, created_at, \
         updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) \
         ON CONFLICT (skill_key) DO UPDATE SET name = excluded.name, type = excluded.type, \
         auth_type = excluded.auth_type, owner_team = excluded.owner_team, \
         default_risk = excluded.default_risk, updated_at = excluded.updated_at \
         RETURNING seq, id",
    )?;
    let values = rusqlite::params![
        tool.id,
        tool.skill_key,
        tool.name,
        tool.kind,
        tool.auth_type,
        tool.owner_team,
        tool.default_risk,
        now
    ];
    upsert.query_row(values, |row| Ok((row.get(0)?, row.get(1)?)))
}

fn replace_action(
    connection: &Connection,
    tool_seq: i64,
    action: &ToolAction,
    now: &str,
) -> rusqlite::Result<usize> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO tool_actions (tool_seq, action_key, description, risk, mutates_state, \
         approval_required, default_decision, data_access, updated_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(rusqlite::params![
        tool_seq,
        action.action_key,
        action.description,
        action.risk.as_str(),
        action.mutates_state,
        action.approval_required,
        action.default_decision.as_str(),
        action.data_access,
        now
    ])
}

/// Finds an action of a tool by their normalised names, from the cache if possible.
pub fn known_action(tx: &Tx<'_>, names: &(String, String)) -> Result<Option<Arc<ToolAction>>, Error> {
    let find = || find_action(tx.connection(), &names.0, &names.1);
    match tx.known() {
        Some(known) => known.action_or(names, find),
        None => Ok(find()?.map(Arc::new)),
    }
}

/// Finds an action of a tool by their normalised names.
pub fn find_action(
    connection: &Connection,
    skill_key: &str,
    action_key: &str,
) -> Result<Option<ToolAction>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {ACTION_COLUMNS} FROM tool_actions \
             WHERE tool_seq = (SELECT seq FROM tools WHERE skill_key = ?1) AND action_key = ?2"
        ))
        .and_then(|mut row| row.query_row([skill_key, action_key], action_from_row).optional())
        .map_err(Error::cannot("find a tool's action"))
}

/// Tools with all their actions, newest first.
pub fn list(connection: &Connection, limit: u32, offset: u32) -> Result<Vec<Tool>, Error> {
    list_rows(connection, limit, offset).map_err(Error::cannot("list tools"))
}

fn list_rows(connection: &Connection, limit: u32, offset: u32) -> rusqlite::Result<Vec<Tool>> {
    let mut tools = connection.prepare_cached(
        "SELECT seq, id, skill_key, name, type, auth_type, owner_team, default_risk FROM tools \
         ORDER BY seq DESC LIMIT ?1 OFFSET ?2",
    )?;
    let mut actions = connection.prepare_cached(&format!(
        "SELECT {ACTION_COLUMNS} FROM tool_actions WHERE tool_seq = ?1 ORDER BY action_key"
    ))?;
    let tools = tools.query_map((limit, offset), |row| {
        let seq: i64 = row.get(0)?;
        Ok(Tool {
            id: row.get(1)?,
            skill_key: row.get(2)?,
            name: row.get(3)?,
            kind: row.get(4)?,
            auth_type: row.get(5)?,
            owner_team: row.get(6)?,
            default_risk: row.get(7)?,
            actions: actions.query_map([seq], action_from_row)?.collect::<Result<_, _>>()?,
        })
    })?;
    tools.collect()
}

fn action_from_row(row: &Row<'_>) -> rusqlite::Result<ToolAction> {
    Ok(ToolAction {
        action_key: row.get(0)?,
        description: row.get(1)?,
        risk: column::word(row, 2, Risk::parse)?,
        mutates_state: row.get(3)?,
        approval_required: row.get(4)?,
        default_decision: column::word(row, 5, DefaultDecision::parse)?,
        data_access: row.get(6)?,
    })
}
