//! Registered agents. Of a token the database knows the SHA-256 alone.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::agent::{Agent, AgentStatus, Profile, Registration, RiskTier};
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;

use super::commit::Tx;
use super::error::Error;

const COLUMNS: &str = "id, agent_key, name, environment, risk_tier, status, owner_team, owner_email, framework, \
     model_provider, model_name, purpose, frozen_reason, quarantined_at, force_approval, \
     allowed_environments, created_at, updated_at";

/// Records a new agent.
pub fn insert(tx: &mut Tx<'_>, id: &str, registration: &Registration, token: Hash) -> Result<(), Error> {
    tx.changes_registry();
    let at = registration.at.to_string();
    let environments = serde_json::Value::from(registration.allowed_environments.clone()).to_string();
    let profile = &registration.profile;
    tx.connection()
        .prepare_cached(
            "INSERT INTO agents (id, agent_key, token_sha256, name, environment, risk_tier, owner_team, \
             owner_email, framework, model_provider, model_name, purpose, allowed_environments, created_at, \
             updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14)",
        )
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                id,
                registration.agent_key,
                token.to_string(),
                registration.name,
                registration.environment,
                registration.risk_tier.as_str(),
                profile.owner_team,
                profile.owner_email,
                profile.framework,
                profile.model_provider,
                profile.model_name,
                profile.purpose,
                environments,
                at,
            ])
        })
        .map(|_| ())
        .map_err(Error::cannot("register an agent"))
}

/// Gives an agent another token; the old one is dead when this is committed.
pub fn set_token(tx: &mut Tx<'_>, id: &str, token: Hash, now: Timestamp) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached("UPDATE agents SET token_sha256 = ?2, updated_at = ?3 WHERE id = ?1")
        .and_then(|mut update| update.execute((id, token.to_string(), now.to_string())))
        .map(|_| ())
        .map_err(Error::cannot("rotate an agent's token"))
}

/// Finds an agent by the SHA-256 of its token, from memory where it is known.
pub fn known_by_token(tx: &Tx<'_>, token: Hash) -> Result<Option<Arc<Agent>>, Error> {
    let find = || find_by_token(tx.connection(), token);
    match tx.known() {
        Some(known) => known.agent_or(token, find),
        None => Ok(find()?.map(Arc::new)),
    }
}

/// Finds an agent by the SHA-256 of its token.
pub fn find_by_token(connection: &Connection, token: Hash) -> Result<Option<Agent>, Error> {
    find_where(connection, "token_sha256 = ?1", token.to_hex().as_str())
}

/// Finds an agent by its id.
pub fn find(connection: &Connection, id: &str) -> Result<Option<Agent>, Error> {
    find_where(connection, "id = ?1", id)
}

/// Finds an agent by the name the operator gave it.
pub fn find_by_key(connection: &Connection, agent_key: &str) -> Result<Option<Agent>, Error> {
    find_where(connection, "agent_key = ?1", agent_key)
}

fn find_where(connection: &Connection, condition: &str, value: &str) -> Result<Option<Agent>, Error> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE {condition}"))
        .and_then(|mut row| row.query_row([value], from_row).optional())
        .map_err(Error::cannot("find an agent"))
}

/// Agents, newest first; without a status, all but the deleted ones.
pub fn list(
    connection: &Connection,
    status: Option<AgentStatus>,
    limit: u32,
    offset: u32,
) -> Result<Vec<Agent>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM agents WHERE CASE WHEN ?1 IS NULL THEN status <> 'deleted' \
             ELSE status = ?1 END ORDER BY seq DESC LIMIT ?2 OFFSET ?3"
        ))
        .and_then(|mut rows| {
            rows.query_map((status.map(AgentStatus::as_str), limit, offset), from_row)?.collect()
        })
        .map_err(Error::cannot("list agents"))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Agent> {
    let word = |column: usize| row.get_ref(column).and_then(|value| Ok(value.as_str()?));
    let unknown = |column: usize| {
        move || {
            rusqlite::Error::FromSqlConversionFailure(
                column,
                rusqlite::types::Type::Text,
                "unknown word".into(),
            )
        }
    };
    Ok(Agent {
        id: row.get(0)?,
        agent_key: row.get(1)?,
        name: row.get(2)?,
        environment: row.get(3)?,
        risk_tier: RiskTier::parse(word(4)?).ok_or_else(unknown(4))?,
        status: AgentStatus::parse(word(5)?).ok_or_else(unknown(5))?,
        profile: Profile {
            owner_team: row.get(6)?,
            owner_email: row.get(7)?,
            framework: row.get(8)?,
            model_provider: row.get(9)?,
            model_name: row.get(10)?,
            purpose: row.get(11)?,
        },
        frozen_reason: row.get(12)?,
        quarantined_at: row.get(13)?,
        force_approval: row.get(14)?,
        allowed_environments: serde_json::from_str(word(15)?).map_err(|_| unknown(15)())?,
        created_at: row.get(16)?,
        updated_at: row.get(17)?,
    })
}
