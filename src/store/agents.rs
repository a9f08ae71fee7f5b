//! Registered agents and their signing keys. The database stores only the SHA-256 of a token,
//! and only the HMAC states derived from a signing key.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::agent::{Agent, AgentStatus, Profile, Registration, RiskTier};
use crate::domain::canon::Hash;
use crate::domain::signature::{KEY_BYTES, SigningKey};
use crate::domain::time::Timestamp;

use super::column;
use super::commit::Tx;
use super::error::Error;

const COLUMNS: &str = "id, agent_key, name, environment, risk_tier, status, owner_team, owner_email, framework, \
     model_provider, model_name, purpose, frozen_reason, quarantined_at, force_approval, \
     allowed_environments, created_at, updated_at, \
     (SELECT hmac_states FROM agent_signing_keys WHERE agent_id = agents.id)";

/// Records a new agent.
pub fn insert(tx: &mut Tx<'_>, id: &str, registration: &Registration, token: Hash) -> Result<(), Error> {
    tx.changes_registry();
    let at = registration.at.to_string();
    let environments = serde_json::Value::from(registration.allowed_environments.clone()).to_string();
    let profile = &registration.profile;
    tx.connection()
        .prepare_cached(
            "INSERT INTO agents (id, agent_key, token_sha256, name, environment, risk_tier, owner_team, \
             owner_email, framework, model_provider, model_name, purpose, allowed_environments, force_approval, \
             created_at, updated_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?15)",
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
                registration.force_approval,
                at,
            ])
        })
        .map_err(Error::cannot("register an agent"))
        .and_then(Error::unless_one("register an agent"))?;
    match &registration.signing_key {
        Some(key) => set_signing_key(tx, id, Some(key), registration.at),
        None => Ok(()),
    }
}

/// Sets or removes an agent's signing key, replacing any previous one.
pub fn set_signing_key(
    tx: &mut Tx<'_>,
    id: &str,
    key: Option<&SigningKey>,
    now: Timestamp,
) -> Result<(), Error> {
    tx.changes_registry();
    let doing = "set an agent's signing key";
    match key {
        Some(key) => tx
            .connection()
            .prepare_cached(
                "INSERT OR REPLACE INTO agent_signing_keys (agent_id, hmac_states, set_at) VALUES (?1, ?2, ?3)",
            )
            .and_then(|mut insert| insert.execute((id, key.to_bytes(), now.to_string())))
            .map_err(Error::cannot(doing))
            .and_then(Error::unless_one(doing)),
        // The agent may not have had one.
        None => tx
            .connection()
            .prepare_cached("DELETE FROM agent_signing_keys WHERE agent_id = ?1")
            .and_then(|mut delete| delete.execute([id]))
            .map(|_| ())
            .map_err(Error::cannot(doing)),
    }
}

/// Writes an agent's current settings, except its signing key.
pub fn update(tx: &mut Tx<'_>, agent: &Agent, now: Timestamp) -> Result<(), Error> {
    tx.changes_registry();
    let profile = &agent.profile;
    tx.connection()
        .prepare_cached(
            "UPDATE agents SET name = ?2, environment = ?3, risk_tier = ?4, owner_team = ?5, owner_email = ?6, \
             framework = ?7, model_provider = ?8, model_name = ?9, purpose = ?10, force_approval = ?11, \
             updated_at = ?12 WHERE id = ?1",
        )
        .and_then(|mut update| {
            update.execute(rusqlite::params![
                agent.id,
                agent.name,
                agent.environment,
                agent.risk_tier.as_str(),
                profile.owner_team,
                profile.owner_email,
                profile.framework,
                profile.model_provider,
                profile.model_name,
                profile.purpose,
                agent.force_approval,
                now.to_string(),
            ])
        })
        .map_err(Error::cannot("update an agent"))
        .and_then(Error::unless_one("update an agent"))
}

/// Sets an agent's status. This never quarantines an agent, so it clears the quarantine time.
pub fn set_status(
    tx: &mut Tx<'_>,
    id: &str,
    status: AgentStatus,
    frozen_reason: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached(
            "UPDATE agents SET status = ?2, frozen_reason = ?3, quarantined_at = NULL, updated_at = ?4 \
             WHERE id = ?1",
        )
        .and_then(|mut update| update.execute((id, status.as_str(), frozen_reason, now.to_string())))
        .map_err(Error::cannot("set an agent's status"))
        .and_then(Error::unless_one("set an agent's status"))
}

/// Replaces an agent's token; the old one is invalid once this is committed.
pub fn set_token(tx: &mut Tx<'_>, id: &str, token: Hash, now: Timestamp) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached("UPDATE agents SET token_sha256 = ?2, updated_at = ?3 WHERE id = ?1")
        .and_then(|mut update| update.execute((id, token.to_string(), now.to_string())))
        .map_err(Error::cannot("rotate an agent's token"))
        .and_then(Error::unless_one("rotate an agent's token"))
}

/// Finds an agent by the SHA-256 of its token, from the cache if possible.
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

/// Finds an agent by the key that the operator gave it.
pub fn find_by_key(connection: &Connection, agent_key: &str) -> Result<Option<Agent>, Error> {
    find_where(connection, "agent_key = ?1", agent_key)
}

/// Finds an agent by its id, or else by its key: an agent whose key equals another's id never
/// shadows that agent.
pub fn find_by_id_or_key(connection: &Connection, id_or_key: &str) -> Result<Option<Agent>, Error> {
    match find(connection, id_or_key)? {
        Some(agent) => Ok(Some(agent)),
        None => find_by_key(connection, id_or_key),
    }
}

/// Number of agents, not counting deleted ones.
pub fn count(connection: &Connection) -> Result<i64, Error> {
    connection
        .prepare_cached("SELECT count(*) FROM agents WHERE status <> 'deleted'")
        .and_then(|mut row| row.query_row([], |row| row.get(0)))
        .map_err(Error::cannot("count agents"))
}

fn find_where(connection: &Connection, condition: &str, value: &str) -> Result<Option<Agent>, Error> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM agents WHERE {condition}"))
        .and_then(|mut row| row.query_row([value], from_row).optional())
        .map_err(Error::cannot("find an agent"))
}

/// Agents, newest first; all but deleted ones if no status is given.
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
    Ok(Agent {
        id: row.get(0)?,
        agent_key: row.get(1)?,
        name: row.get(2)?,
        environment: row.get(3)?,
        risk_tier: column::word(row, 4, RiskTier::parse)?,
        status: column::word(row, 5, AgentStatus::parse)?,
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
        allowed_environments: column::parsed(
            row,
            15,
            |text| serde_json::from_str(text).ok(),
            "not a list of names",
        )?,
        signing_key: row.get::<_, Option<[u8; KEY_BYTES]>>(18)?.map(|bytes| SigningKey::from_bytes(&bytes)),
        created_at: row.get(16)?,
        updated_at: row.get(17)?,
    })
}
