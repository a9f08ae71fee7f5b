//! Policies: putting versions in force and listing them.
//!
//! A document is parsed before the transaction, which then writes the new version, the
//! resulting set and the audit event. The next decision uses that set.

use serde_json::json;

use crate::domain::audit::{Event, EventType};
use crate::domain::operator::Permission;
use crate::domain::policy::document::{self, BYTES_MAX, Document, NAME_EXPECTED, RULES_MAX, is_name};
use crate::domain::policy::glob::Cost;
use crate::domain::policy::set::Policy;
use crate::domain::policy::{BUILTIN_KEY, LANGUAGE, Outcome, PolicySet};
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::store::policies::{Status, Version};
use crate::store::{Tx, audit, policies};

use super::operators::Actor;
use super::{Error, Gateway, Page};

/// Maximum number of active policies.
pub const POLICIES_MAX: usize = 500;
/// Maximum size of all active documents together, in bytes.
const ACTIVE_BYTES_MAX: usize = 4 * BYTES_MAX;
/// Maximum number of globs in all active documents together: those whose only wildcard is
/// `*`, and those with a `?`. At either limit, a call with the longest resource, crafted to
/// nearly match every glob, takes some 60 ms (`tests/benches/micro.rs`).
const SEARCHED_MAX: usize = 5_000;
const WALKED_MAX: usize = 1_000;
/// Maximum number of fields in all redact rules together, and of bytes in these fields and
/// the rules' names. The answer to a call that they all apply to lists each of them, and the
/// committing thread writes it. Escapes included, it stays below 48 KiB, which a socket
/// accepts in one write.
const REDACTED_FIELDS_MAX: usize = 1_000;
const REDACTION_BYTES_MAX: usize = 16 * 1024;

/// The document of a version that disables a policy.
const NO_RULES: &str = r#"{"rules":[]}"#;

/// Puts a document in force, as the first or the next version of its key.
pub fn create(
    gateway: &Gateway,
    actor: Actor,
    policy_key: String,
    name: String,
    body: String,
) -> Result<Version, Error> {
    check_key(&policy_key)?;
    let document = read(&body)?;
    let now = gateway.now();
    let id = entropy::uuid(now).map_err(Error::Entropy)?;
    gateway.store.write(move |tx| {
        actor.require_in(tx, Permission::Administer, now)?;
        let last = policies::find_last(tx.connection(), &policy_key)?;
        let version = Version {
            id,
            version: last.map_or(1, |last| last.version + 1),
            policy_key,
            name,
            language: LANGUAGE.to_owned(),
            status: Status::Active,
            body,
            reason: None,
            created_by: actor.name().to_owned(),
            created_at: now.to_string(),
        };
        put_in_force(tx, &actor, &version, Some(document), now)?;
        Ok(version)
    })
}

/// Disables a policy with a new version. Disabling it again changes nothing.
pub fn disable(
    gateway: &Gateway,
    actor: Actor,
    policy_key: &str,
    reason: Option<String>,
) -> Result<Version, Error> {
    check_key(policy_key)?;
    let (now, policy_key) = (gateway.now(), policy_key.to_owned());
    let id = entropy::uuid(now).map_err(Error::Entropy)?;
    gateway.store.write(move |tx| {
        actor.require_in(tx, Permission::Administer, now)?;
        let last = policies::find_last(tx.connection(), &policy_key)?.ok_or_else(no_such_policy)?;
        if last.status == Status::Disabled {
            return Ok(last);
        }
        let version = Version {
            id,
            version: last.version + 1,
            status: Status::Disabled,
            body: NO_RULES.to_owned(),
            reason,
            created_by: actor.name().to_owned(),
            created_at: now.to_string(),
            ..last
        };
        put_in_force(tx, &actor, &version, None, now)?;
        Ok(version)
    })
}

fn put_in_force(
    tx: &mut Tx<'_>,
    actor: &Actor,
    version: &Version,
    document: Option<Document>,
    now: Timestamp,
) -> Result<(), Error> {
    let before = policies::known(tx)?;
    let key = version.policy_key.as_str();
    let policy = document.map(|document| Policy::new(key, version.version, document, version.body.len()));
    let after = before.with(key, policy);
    // Not when disabling: what remains may exceed today's limits.
    if version.status == Status::Active {
        check_limits(&after)?;
    }
    policies::insert(tx, version)?;
    let event = event(actor, version, before.tag(), after.tag(), now)?;
    policies::append_set(tx, after, now)?;
    Ok(audit::insert(tx, &event)?)
}

fn event(
    actor: &Actor,
    version: &Version,
    before: &str,
    after: &str,
    now: Timestamp,
) -> Result<Event, Error> {
    let action = match version.status {
        Status::Active | Status::Superseded => "policy_created",
        Status::Disabled => "policy_disabled",
    };
    let details = json!({
        "policy": {
            "policy_key": version.policy_key,
            "version": version.version,
            "name": version.name,
            "body_sha256": crate::domain::canon::Hash::of(version.body.as_bytes()).to_string(),
        },
        "reason": version.reason,
        "policy_version": { "before": before, "after": after },
    });
    let event = actor.event(EventType::AdminAction, Some(action), details, now)?;
    Ok(Event { resource: Some(format!("policy:{}", version.policy_key)), ..event })
}

/// Checks the limits on everything in force together.
pub(super) fn check_limits(set: &PolicySet) -> Result<(), Error> {
    let policies = set.policies();
    let rules = || policies.iter().flat_map(|policy| &policy.rules);
    let bytes: usize = policies.iter().map(|policy| policy.bytes).sum();
    let globs = || rules().flat_map(|rule| rule.when.globs());
    let of = |cost: Cost| globs().filter(|glob| glob.cost() == cost).count();
    let redacting = || set.rules().iter().filter(|named| named.rule.effect == Outcome::Redact);
    let fields = || redacting().flat_map(|named| &named.rule.redact_fields);
    let named: usize = redacting().map(|named| &named.name).chain(fields()).map(String::len).sum();
    for (what, count, max) in [
        ("active policies", policies.len(), POLICIES_MAX),
        ("rules", rules().count(), RULES_MAX),
        ("bytes of documents", bytes, ACTIVE_BYTES_MAX),
        ("globs with no wildcard but *", of(Cost::Searched), SEARCHED_MAX),
        ("globs with a ?", of(Cost::Walked), WALKED_MAX),
        ("fields to redact", fields().count(), REDACTED_FIELDS_MAX),
        ("bytes of redact rules' names and fields", named, REDACTION_BYTES_MAX),
    ] {
        if count > max {
            let message = format!("this would put {count} {what} in force; the limit is {max}");
            return Err(Error::BadRequest(message));
        }
    }
    Ok(())
}

/// Rejects a key that an operator's policy may not have.
pub(super) fn check_key(policy_key: &str) -> Result<(), Error> {
    if policy_key.eq_ignore_ascii_case(BUILTIN_KEY) {
        return Err(Error::BadRequest(format!(
            "policy_key: {BUILTIN_KEY} is reserved for the built-in pack"
        )));
    }
    if !is_name(policy_key) {
        return Err(Error::BadRequest(format!("policy_key: {NAME_EXPECTED}")));
    }
    Ok(())
}

/// Parses a document, or says where it is wrong.
pub(super) fn read(body: &str) -> Result<Document, Error> {
    document::parse(body).map_err(|refused| Error::BadRequest(format!("invalid policy: {refused}")))
}

/// The latest version of each policy, most recently changed first.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Version>, Error> {
    gateway.store.read_aside(|view| Ok(policies::list(view, page.limit, page.offset)?))
}

/// Every version of a policy, newest first. Read on a separate connection: documents are
/// large, and should not make other requests wait.
pub fn versions(gateway: &Gateway, policy_key: &str, page: Page) -> Result<Vec<Version>, Error> {
    gateway.store.read_aside(|view| {
        policies::find_last(view, policy_key)?.ok_or_else(no_such_policy)?;
        Ok(policies::versions(view, policy_key, page.limit, page.offset)?)
    })
}

fn no_such_policy() -> Error {
    Error::NotFound("there is no such policy".to_owned())
}
