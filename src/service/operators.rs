//! Operator tokens: creating, revoking and authenticating them.
//!
//! An operator who changes anything is looked up again inside the transaction that does so:
//! no change is committed under a token whose revocation has already been acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::domain::audit::{self, Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::operator::{CONFIGURED_NAME, NewToken, Operator, Permission, Scope, TOKEN_PREFIX};
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::store::operators::{self, Token};
use crate::store::{Tx, audit as events};
use crate::sync::unpoisoned;

use super::{Error, Gateway, Page};

/// Minimum interval between records of a token's use.
const USE_NOTED_EVERY_SECONDS: i64 = 60;

/// The operator behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    operator: Arc<Operator>,
    /// SHA-256 of the token; `None` for the configured one, which cannot be revoked.
    token: Option<Hash>,
}

impl Actor {
    /// The holder of the configured token.
    pub fn configured() -> Self {
        Actor { operator: Arc::new(Operator::configured()), token: None }
    }

    /// The token's name.
    pub fn name(&self) -> &str {
        &self.operator.name
    }

    /// Requires a scope that grants `permission`.
    pub fn require(&self, permission: Permission) -> Result<(), Error> {
        if self.operator.scope.may(permission) {
            return Ok(());
        }
        let scopes = permission.scopes_in_words();
        Err(Error::Forbidden(format!("this requires an operator token with scope {scopes}")))
    }

    /// Like [`Actor::require`], but inside a transaction, where a token revoked in the
    /// meantime is rejected.
    pub(super) fn require_in(
        &self,
        tx: &Tx<'_>,
        permission: Permission,
        now: Timestamp,
    ) -> Result<(), Error> {
        if let Some(token) = self.token {
            let operator = operators::known_by_token(tx, token)?;
            operator.filter(|operator| operator.is_live(now)).ok_or(Error::Unauthorized)?;
        }
        self.require(permission)
    }

    /// An event about what this operator did. Adds the operator to `details`, an object.
    pub(super) fn event(
        &self,
        event_type: EventType,
        action: Option<&str>,
        mut details: serde_json::Value,
        now: Timestamp,
    ) -> Result<Event, Error> {
        details["by"] = audit::by(&self.operator);
        let id = entropy::uuid(now).map_err(Error::Entropy)?;
        Ok(Event { action: action.map(str::to_owned), ..Event::new(id, event_type, &details, now) })
    }
}

/// When each token's use was last recorded.
#[derive(Debug, Default)]
pub struct Uses(Mutex<HashMap<String, Timestamp>>);

impl Uses {
    /// Whether a use is due to be recorded; if so, marks it as recorded.
    fn is_due(&self, id: &str, now: Timestamp) -> bool {
        let mut noted = unpoisoned(&self.0);
        let since = now.plus_seconds(-USE_NOTED_EVERY_SECONDS);
        // Otherwise, after the clock was set back, no use would be recorded until it caught up.
        if noted.get(id).is_some_and(|at| *at > since && *at <= now) {
            return false;
        }
        noted.insert(id.to_owned(), now);
        true
    }
}

/// The operator whose token hashes to `token`, if the token is valid.
pub fn authenticate(gateway: &Gateway, token: Hash) -> Result<Option<Actor>, Error> {
    let now = gateway.now();
    let operator = gateway.store.operator_by_token(token)?;
    let Some(operator) = operator.filter(|operator| operator.is_live(now)) else { return Ok(None) };
    note_use(gateway, &operator, now);
    Ok(Some(Actor { operator, token: Some(token) }))
}

/// Records a use in the background: a read must not wait for a sync.
fn note_use(gateway: &Gateway, operator: &Operator, now: Timestamp) {
    let Some(id) = operator.id.clone().filter(|id| gateway.uses.is_due(id, now)) else { return };
    let since = now.plus_seconds(-USE_NOTED_EVERY_SECONDS);
    gateway.store.write_then(
        move |tx| operators::set_used(tx, &id, now, since),
        |noted| {
            if let Err(error) = noted {
                log::warn!("cannot record the use of an operator token: {error}");
            }
        },
    );
}

/// A new token and its text, which is shown only here.
#[derive(Clone, PartialEq, Eq)]
pub struct Made {
    /// Everything but the text.
    pub token: NewToken,
    /// The text. It cannot be read again: only its SHA-256 is stored.
    pub text: String,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Creates a token. A name that any token ever had is rejected.
pub fn create(
    gateway: &Gateway,
    actor: Actor,
    name: String,
    scope: Scope,
    expires_at: Option<Timestamp>,
) -> Result<Made, Error> {
    let now = gateway.now();
    if expires_at.is_some_and(|end| end <= now) {
        return Err(Error::Invalid("expires_at must be in the future".to_owned()));
    }
    let text = format!("{TOKEN_PREFIX}{}", entropy::hex::<32>().map_err(Error::Entropy)?);
    let id = entropy::uuid(now).map_err(Error::Entropy)?;
    let created_by = actor.name().to_owned();
    let token = NewToken { id, name, scope, created_at: now, created_by, expires_at };
    let sha256 = Hash::of(text.as_bytes());
    let recorded = token.clone();
    gateway.store.write(move |tx| record_new(tx, &actor, &recorded, sha256))?;
    Ok(Made { token, text })
}

fn record_new(tx: &mut Tx<'_>, actor: &Actor, token: &NewToken, sha256: Hash) -> Result<(), Error> {
    actor.require_in(tx, Permission::Administer, token.created_at)?;
    // Also rejects a name that is another token's id, since lookups accept either.
    let is_taken = operators::find(tx.connection(), &token.name)?.is_some();
    if is_taken || token.name.eq_ignore_ascii_case(CONFIGURED_NAME) {
        return Err(Error::AlreadyExists(format!(
            "a token named {:?} exists or existed; names are never reused",
            token.name
        )));
    }
    operators::insert(tx, token, sha256)?;
    let details = json!({ "token": {
        "id": token.id, "name": token.name, "scope": token.scope, "expires_at": token.expires_at,
    }});
    let event = token_event(actor, "token_created", &token.id, details, token.created_at)?;
    Ok(events::insert(tx, &event)?)
}

/// Revokes a token, by its id or else by its name. Revoking it again changes nothing.
pub fn revoke(gateway: &Gateway, actor: Actor, id_or_name: &str) -> Result<Token, Error> {
    let (now, id_or_name) = (gateway.now(), id_or_name.to_owned());
    gateway.store.write(move |tx| {
        actor.require_in(tx, Permission::Administer, now)?;
        let found = operators::find(tx.connection(), &id_or_name)?;
        let token = found.ok_or_else(|| Error::NotFound("there is no such token".to_owned()))?;
        if token.revoked_at.is_some() {
            return Ok(token);
        }
        operators::set_revoked(tx, &token.id, now)?;
        let details = json!({ "token": { "id": token.id, "name": token.name, "scope": token.scope } });
        events::insert(tx, &token_event(&actor, "token_revoked", &token.id, details, now)?)?;
        Ok(Token { revoked_at: Some(now.to_string()), ..token })
    })
}

fn token_event(
    actor: &Actor,
    action: &str,
    id: &str,
    details: serde_json::Value,
    now: Timestamp,
) -> Result<Event, Error> {
    let event = actor.event(EventType::AdminAction, Some(action), details, now)?;
    Ok(Event { resource: Some(format!("operator_token:{id}")), ..event })
}

/// Tokens without their text, newest first, including revoked and expired ones.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Token>, Error> {
    gateway.store.read(|connection| Ok(operators::list(connection, page.limit, page.offset)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_once_a_minute_and_again_when_the_clock_was_set_back() {
        let (uses, start) = (Uses::default(), Timestamp::from_micros(1_000_000_000));
        for (id, seconds, due) in [
            ("a", 0, true),
            ("a", 59, false),
            ("b", 59, true),
            ("a", 60, true),
            ("a", 61, false),
            ("a", -600, true),
            ("a", -599, false),
        ] {
            assert_eq!(uses.is_due(id, start.plus_seconds(seconds)), due, "{id} {seconds}");
        }
    }
}
