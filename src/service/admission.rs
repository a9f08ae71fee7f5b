//! Checks before a decision: the request comes from its agent, is within the agent's rate
//! limit, and is not a replay.

use std::time::Instant;

use rusqlite::Connection;

use crate::domain::agent::Agent;
use crate::domain::canon::Hash;
use crate::domain::replay;
use crate::domain::signature::SigningKey;
use crate::domain::time::Timestamp;
use crate::store::{Tx, nonces};

use super::{Error, Gateway, agents};

/// What a caller may send so that its request is accepted only once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// SHA-256 of the nonce.
    pub nonce: Option<Hash>,
    /// When the request was made.
    pub timestamp: Option<Timestamp>,
}

impl Freshness {
    /// Accepts the request and uses up its nonce when the transaction commits.
    pub(super) fn take(self, tx: &Tx<'_>, agent: &Agent, now: Timestamp) -> Result<(), Error> {
        self.check_timestamp(now)?;
        let Some(nonce) = self.nonce else { return Ok(()) };
        if nonces::take(tx, &agent.id, nonce, now)? { Ok(()) } else { Err(nonce_reused()) }
    }

    /// Whether the request would be accepted; does not use up its nonce.
    pub(super) fn check(self, connection: &Connection, agent: &Agent, now: Timestamp) -> Result<(), Error> {
        self.check_timestamp(now)?;
        let Some(nonce) = self.nonce else { return Ok(()) };
        if nonces::is_taken(connection, &agent.id, nonce)? { Err(nonce_reused()) } else { Ok(()) }
    }

    fn check_timestamp(self, now: Timestamp) -> Result<(), Error> {
        if self.timestamp.is_none_or(|timestamp| replay::is_current(timestamp, now)) {
            return Ok(());
        }
        let most = replay::TIMESTAMP_SECONDS_MAX;
        Err(Error::Conflict {
            message: format!("timestamp is more than {most} seconds off the gateway's clock, {now}"),
            reason: "replay_timestamp_expired",
        })
    }
}

fn nonce_reused() -> Error {
    let message = "this agent has already used this nonce".to_owned();
    Error::Conflict { message, reason: "replay_nonce_reused" }
}

/// An admitted request: its agent's token, and the key it was signed with.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// The hash of its agent's token.
    pub token: Hash,
    /// The agent's signing key at that time; the transaction checks that it has not changed.
    pub signed_with: Option<SigningKey>,
}

/// Admits a request of the agent whose token hashes to `token`. If the agent has a signing
/// key, the raw body must be signed, which is checked before any of it is parsed; otherwise
/// signatures are ignored. Requests that fail this do not count against the agent's rate:
/// otherwise someone with only the token could exhaust it.
pub fn admit(
    gateway: &Gateway,
    token: Hash,
    signature: Option<&str>,
    body: &[u8],
    now: Instant,
) -> Result<Admitted, Error> {
    let agent = agents::find_by_token(gateway, token)?.ok_or(Error::Unauthorized)?;
    if let Some(key) = &agent.signing_key {
        key.check(signature, body).map_err(Error::Unsigned)?;
    }
    gateway.limits.authorize(&agent.id, now)?;
    Ok(Admitted { token, signed_with: agent.signing_key })
}

/// Counts a request that is not an authorization but leaves evidence.
pub fn limit(gateway: &Gateway, token: Hash, now: Instant) -> Result<(), Error> {
    let agent = agents::find_by_token(gateway, token)?.ok_or(Error::Unauthorized)?;
    gateway.limits.authorize(&agent.id, now)
}
