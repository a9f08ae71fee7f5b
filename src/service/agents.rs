//! Registering agents, and looking them up.

use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json;

use crate::domain::agent::{Agent, AgentStatus, Registration};
use crate::domain::audit::{Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::operator::Permission;
use crate::entropy;
use crate::store::{Tx, agents, audit, decisions};

use super::lifecycle::{new_token, no_such_agent};
use super::operators::Actor;
use super::{Error, Gateway, Page};

/// An agent and its token, which is shown only here.
#[derive(Debug, Clone)]
pub struct Registered {
    /// UUID.
    pub id: String,
    /// Name, as given by the operator.
    pub agent_key: String,
    /// The token. It cannot be read again: only its SHA-256 is stored.
    pub agent_token: String,
    /// Whether the agent is new.
    pub created: bool,
}

/// Registers an agent. An agent that is already known gets a new token, and its old one
/// stops working at once; nothing else changes. This does not bring back a revoked or deleted
/// agent: its new token grants no more than the old one.
pub fn register(gateway: &Gateway, actor: Actor, registration: Registration) -> Result<Registered, Error> {
    let agent_token = new_token()?;
    let new_id = entropy::uuid(registration.at).map_err(Error::Entropy)?;
    let token = Hash::of(agent_token.as_bytes());
    let agent_key = registration.agent_key.clone();
    let (id, created) = gateway.store.write(move |tx| -> Result<_, Error> {
        actor.require_in(tx, Permission::RegisterAgent, registration.at)?;
        let known = agents::find_by_key(tx.connection(), &registration.agent_key)?;
        let created = known.is_none();
        let id = match known {
            Some(known) => {
                check_signing_key(&known, &registration)?;
                agents::set_token(tx, &known.id, token, registration.at)?;
                known.id
            }
            None => {
                agents::insert(tx, &new_id, &registration, token)?;
                new_id
            }
        };
        record_event(tx, &actor, &id, created, &registration)?;
        Ok((id, created))
    })?;
    Ok(Registered { id, agent_key, agent_token, created })
}

/// A known agent keeps its signing key. Silently ignoring a different one would let the
/// caller rely on protection that does not exist.
fn check_signing_key(known: &Agent, registration: &Registration) -> Result<(), Error> {
    if registration.signing_key.is_none() || registration.signing_key == known.signing_key {
        return Ok(());
    }
    Err(Error::Conflict {
        message: "the agent is registered with a different signing_key, or none; PATCH it to change that"
            .to_owned(),
        reason: "signing_key_differs",
    })
}

fn record_event(
    tx: &Tx<'_>,
    actor: &Actor,
    id: &str,
    created: bool,
    registration: &Registration,
) -> Result<(), Error> {
    let (event_type, details) = if created {
        let details = json!({
            "agent_key": registration.agent_key,
            "environment": registration.environment,
            "risk_tier": registration.risk_tier,
            "allowed_environments": registration.allowed_environments,
            "force_approval": registration.force_approval,
            "has_signing_key": registration.signing_key.is_some(),
        });
        (EventType::AgentRegistered, details)
    } else {
        (EventType::AgentTokenRotated, json!({ "agent_key": registration.agent_key }))
    };
    let event = actor.event(event_type, None, details, registration.at)?;
    Ok(audit::insert(tx, &Event { agent_id: Some(id.to_owned()), ..event })?)
}

/// The agent whose token hashes to `token`, even if it is revoked or deleted and may not act.
pub fn find_by_token(gateway: &Gateway, token: Hash) -> Result<Option<Arc<Agent>>, Error> {
    Ok(gateway.store.agent_by_token(token)?)
}

/// An agent and when it last asked.
pub type Seen = (Agent, Option<String>);

/// Agents, newest first.
pub fn list(gateway: &Gateway, status: Option<AgentStatus>, page: Page) -> Result<Vec<Seen>, Error> {
    gateway.store.read(|connection| {
        let agents = agents::list(connection, status, page.limit, page.offset)?;
        let with_last = |agent: Agent| {
            let seen = decisions::last_of_agent(connection, &agent.id)?;
            Ok((agent, seen))
        };
        agents.into_iter().map(with_last).collect()
    })
}

/// One agent, by its id or else by its key. A deleted one is not found.
pub fn get(gateway: &Gateway, id_or_key: &str) -> Result<Seen, Error> {
    gateway.store.read(|connection| {
        let agent = agents::find_by_id_or_key(connection, id_or_key)?
            .filter(|agent| agent.status != AgentStatus::Deleted)
            .ok_or_else(no_such_agent)?;
        let seen = decisions::last_of_agent(connection, &agent.id)?;
        Ok((agent, seen))
    })
}

/// The id by which records name an agent, given its id or key. Any other text is returned
/// unchanged and matches no record.
pub(super) fn recorded_id(connection: &Connection, id_or_key: &str) -> Result<String, Error> {
    let found = agents::find_by_id_or_key(connection, id_or_key)?;
    Ok(found.map_or_else(|| id_or_key.to_owned(), |agent| agent.id))
}
