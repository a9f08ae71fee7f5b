//! The tool registry.

use serde_json::{Value, json};

use crate::domain::audit::{Event, EventType};
use crate::domain::operator::Permission;
use crate::domain::tool::{Tool, ToolAction};
use crate::entropy;
use crate::store::{audit, tools};

use super::operators::Actor;
use super::{Error, Gateway, Page};

/// Registers a tool, or replaces its fields and the listed actions. Takes effect with
/// the next authorization. Returns the tool's id.
pub fn register(gateway: &Gateway, actor: Actor, mut tool: Tool) -> Result<String, Error> {
    let now = gateway.now();
    tool.id = entropy::uuid(now).map_err(Error::Entropy)?;
    gateway.store.write(move |tx| {
        actor.require_in(tx, Permission::Administer, now)?;
        tool.id = tools::upsert(tx, &tool, now)?;
        let event = actor.event(EventType::AdminAction, Some("tool_registered"), details(&tool), now)?;
        audit::insert(tx, &Event { skill: Some(tool.skill_key), ..event })?;
        Ok(tool.id)
    })
}

/// The fields that affect decisions: it must be visible who loosened one.
fn details(tool: &Tool) -> Value {
    let action = |action: &ToolAction| {
        json!({
            "action_key": action.action_key,
            "risk": action.risk,
            "mutates_state": action.mutates_state,
            "approval_required": action.approval_required,
            "default_decision": action.default_decision,
        })
    };
    let actions: Vec<Value> = tool.actions.iter().map(action).collect();
    json!({ "skill_id": tool.id, "skill_key": tool.skill_key, "actions": actions })
}

/// Registered tools with their actions, newest first.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Tool>, Error> {
    gateway.store.read(|connection| Ok(tools::list(connection, page.limit, page.offset)?))
}
