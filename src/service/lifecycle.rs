//! What operators do to agents: stop them, let them act again, and give them new tokens.
//! Takes effect with the very next request, since cached agents are invalidated before the
//! answer is sent.

use serde_json::json;

use crate::domain::agent::{Agent, AgentStatus, Change, TOKEN_PREFIX};
use crate::domain::audit::{Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::lifecycle::{Operation, Refused};
use crate::domain::operator::Permission;
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::store::{Tx, agents, audit};

use super::operators::Actor;
use super::{Error, Gateway};

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// UUID.
    pub agent_id: String,
    /// The agent's status now.
    pub status: AgentStatus,
    /// Whether an event with the given reason was recorded.
    pub reason_recorded: bool,
}

/// Applies an operation to the agent with this id, or else this key. If there is nothing to
/// do, nothing is written: a retry records no second event.
pub fn apply(
    gateway: &Gateway,
    actor: Actor,
    id_or_key: &str,
    operation: Operation,
    reason: Option<String>,
) -> Result<Applied, Error> {
    let (now, id_or_key) = (gateway.now(), id_or_key.to_owned());
    gateway.store.write(move |tx| {
        actor.require_in(tx, Permission::Administer, now)?;
        let agent = find(tx, &id_or_key)?;
        let status = operation.next(agent.status).map_err(|refused| refusal(operation, refused))?;
        let another_reason =
            status == AgentStatus::Frozen && reason.is_some() && reason != agent.frozen_reason;
        let changes = status != agent.status || another_reason;
        if changes {
            set_status(tx, &actor, &agent, operation, status, reason.as_deref(), now)?;
        }
        Ok(Applied { agent_id: agent.id, status, reason_recorded: changes && reason.is_some() })
    })
}

fn set_status(
    tx: &mut Tx<'_>,
    actor: &Actor,
    agent: &Agent,
    operation: Operation,
    status: AgentStatus,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let frozen_reason = reason.filter(|_| status == AgentStatus::Frozen);
    agents::set_status(tx, &agent.id, status, frozen_reason, now)?;
    let details =
        json!({ "agent_key": agent.agent_key, "from": agent.status, "to": status, "reason": reason });
    let action = (operation == Operation::Delete).then_some("agent_deleted");
    let event = actor.event(operation.event_type(), action, details, now)?;
    Ok(audit::insert(tx, &Event { agent_id: Some(agent.id.clone()), ..event })?)
}

fn refusal(operation: Operation, refused: Refused) -> Error {
    match refused {
        Refused::Deleted => no_such_agent(),
        Refused::Revoked => revoked(),
        Refused::NotFrom(status) => Error::Conflict {
            message: format!("cannot {} an agent that is {status}", operation.verb()),
            reason: "agent_status",
        },
    }
}

/// Updates an agent's settings and returns the agent. A revoked one cannot be changed.
pub fn update(
    gateway: &Gateway,
    actor: Actor,
    id_or_key: &str,
    changes: Vec<Change>,
) -> Result<super::agents::Seen, Error> {
    let (now, id_or_key) = (gateway.now(), id_or_key.to_owned());
    let id = gateway.store.write(move |tx| -> Result<_, Error> {
        actor.require_in(tx, Permission::Administer, now)?;
        let before = find(tx, &id_or_key)?;
        if before.status == AgentStatus::Revoked {
            return Err(revoked());
        }
        let mut after = before.clone();
        changes.into_iter().for_each(|change| after.change(change));
        if after != before {
            record_update(tx, &actor, &before, &after, now)?;
        }
        Ok(after.id)
    })?;
    super::agents::get(gateway, &id)
}

fn record_update(
    tx: &mut Tx<'_>,
    actor: &Actor,
    before: &Agent,
    after: &Agent,
    now: Timestamp,
) -> Result<(), Error> {
    agents::update(tx, after, now)?;
    if after.signing_key != before.signing_key {
        agents::set_signing_key(tx, &after.id, after.signing_key.as_ref(), now)?;
    }
    let details = json!({ "agent_key": after.agent_key, "changed": differences(before, after) });
    let event = actor.event(EventType::AgentUpdated, None, details, now)?;
    Ok(audit::insert(tx, &Event { agent_id: Some(after.id.clone()), ..event })?)
}

/// Each changed member, before and after; for the signing key, only whether it was set or
/// removed.
fn differences(before: &Agent, after: &Agent) -> serde_json::Value {
    let members = |agent: &Agent| {
        let profile = &agent.profile;
        [
            ("name", json!(agent.name)),
            ("environment", json!(agent.environment)),
            ("risk_tier", json!(agent.risk_tier)),
            ("owner_team", json!(profile.owner_team)),
            ("owner_email", json!(profile.owner_email)),
            ("framework", json!(profile.framework)),
            ("model_provider", json!(profile.model_provider)),
            ("model_name", json!(profile.model_name)),
            ("purpose", json!(profile.purpose)),
            ("force_approval", json!(agent.force_approval)),
        ]
    };
    let pairs = members(before).into_iter().zip(members(after));
    let changed = pairs.filter(|((_, from), (_, to))| from != to);
    let mut changed: serde_json::Map<_, _> =
        changed.map(|((name, from), (_, to))| (name.to_owned(), json!({ "from": from, "to": to }))).collect();
    if before.signing_key != after.signing_key {
        let what = if after.signing_key.is_some() { "set" } else { "removed" };
        changed.insert("signing_key".to_owned(), json!(what));
    }
    changed.into()
}

/// An agent's new token, which is shown only here.
#[derive(Clone, PartialEq, Eq)]
pub struct Rotated {
    /// UUID.
    pub agent_id: String,
    /// The token.
    pub agent_token: String,
}

impl std::fmt::Debug for Rotated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rotated").field("agent_id", &self.agent_id).finish_non_exhaustive()
    }
}

/// Gives an agent a new token; the old one stops working at once. The agent's status does not
/// matter and does not change: a stopped agent's token may have leaked too.
pub fn rotate_token(
    gateway: &Gateway,
    actor: Actor,
    id_or_key: &str,
    reason: Option<String>,
) -> Result<Rotated, Error> {
    let (now, id_or_key) = (gateway.now(), id_or_key.to_owned());
    let agent_token = new_token()?;
    let token = Hash::of(agent_token.as_bytes());
    let agent_id = gateway.store.write(move |tx| -> Result<_, Error> {
        actor.require_in(tx, Permission::Administer, now)?;
        let agent = find(tx, &id_or_key)?;
        agents::set_token(tx, &agent.id, token, now)?;
        let details = json!({ "agent_key": agent.agent_key, "reason": reason });
        let event = actor.event(EventType::AgentTokenRotated, None, details, now)?;
        audit::insert(tx, &Event { agent_id: Some(agent.id.clone()), ..event })?;
        Ok(agent.id)
    })?;
    Ok(Rotated { agent_id, agent_token })
}

/// A new, unique token: 128 bits from the system's random source.
pub(super) fn new_token() -> Result<String, Error> {
    Ok(format!("{TOKEN_PREFIX}{}", entropy::hex::<16>().map_err(Error::Entropy)?))
}

fn find(tx: &Tx<'_>, id_or_key: &str) -> Result<Agent, Error> {
    let found = agents::find_by_id_or_key(tx.connection(), id_or_key)?;
    found.filter(|agent| agent.status != AgentStatus::Deleted).ok_or_else(no_such_agent)
}

pub(super) fn no_such_agent() -> Error {
    Error::NotFound("there is no such agent".to_owned())
}

fn revoked() -> Error {
    Error::Conflict {
        message: "the agent is permanently revoked; register a new one".to_owned(),
        reason: "agent_revoked",
    }
}
