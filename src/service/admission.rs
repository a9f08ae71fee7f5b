//! Before a decision: whether a request is its agent's own, not one too many, and not one
//! that was taken before.

use std::time::Instant;

use rusqlite::Connection;

use crate::domain::agent::Agent;
use crate::domain::canon::Hash;
use crate::domain::replay;
use crate::domain::signature::SigningKey;
use crate::domain::time::Timestamp;
use crate::store::{Tx, nonces};

use super::{Error, Gateway, agents};

/// What a caller may send so that its request is taken once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freshness {
    /// SHA-256 of the nonce.
    pub nonce: Option<Hash>,
    /// When the request was made.
    pub timestamp: Option<Timestamp>,
}

impl Freshness {
    /// Takes the request, once and for all when the transaction is committed.
    pub(super) fn take(self, tx: &Tx<'_>, agent: &Agent, now: Timestamp) -> Result<(), Error> {
        self.check_timestamp(now)?;
        let Some(nonce) = self.nonce else { return Ok(()) };
        if nonces::take(tx, &agent.id, nonce, now)? { Ok(()) } else { Err(nonce_reused()) }
    }

    /// Whether the request could be taken; leaves its nonce to be used.
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
            message: format!("timestamp is more than {most} seconds from the gateway's clock, {now}"),
            reason: "replay_timestamp_expired",
        })
    }
}

fn nonce_reused() -> Error {
    let message = "this agent has used this nonce before".to_owned();
    Error::Conflict { message, reason: "replay_nonce_reused" }
}

/// A request that was admitted: whose it is, and with which key it was signed.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// The hash of its agent's token.
    pub token: Hash,
    /// The agent's signing key at that time; the transaction looks whether it still is.
    pub signed_with: Option<SigningKey>,
}

/// Admits a request of the agent whose token hashes to `token`. An agent with a signing key
/// must have signed the body as it was sent, before anything of it is read; for one
/// without, no signature is looked at. What is not signed does not count against an agent's
/// rate: otherwise someone with only the token could use it up.
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

/// Counts a request that is no authorization and leaves evidence all the same.
pub fn limit(gateway: &Gateway, token: Hash, now: Instant) -> Result<(), Error> {
    let agent = agents::find_by_token(gateway, token)?.ok_or(Error::Unauthorized)?;
    gateway.limits.authorize(&agent.id, now)
}
