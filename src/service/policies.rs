//! Policies: putting versions in force, looking at them, and trying a draft.
//!
//! A document is read before the transaction; inside it stand the new version, the set
//! that it makes, and the audit event. The next decision is made by that set.

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

/// Active policies.
pub const POLICIES_MAX: usize = 500;
/// Bytes of all active documents together.
const ACTIVE_BYTES_MAX: usize = 4 * BYTES_MAX;
/// Globs whose one wildcard is `*`, of all active documents together, and those with a `?`.
/// A call with the longest resource, made to nearly match each of them, takes some 60 ms
/// for either number (`tests/benches/micro.rs`).
const SEARCHED_MAX: usize = 5_000;
const WALKED_MAX: usize = 1_000;
/// Fields of all redact rules together, and the bytes of these fields and of their rules'
/// names. A call to which all of them apply is answered with each, and the thread that
/// commits for everybody writes that answer: it stays below 48 KiB, escapes and all, which
/// a socket takes at once.
const REDACTED_FIELDS_MAX: usize = 1_000;
const REDACTION_BYTES_MAX: usize = 16 * 1024;

/// What a version that disables a policy has for a document.
const NO_RULES: &str = r#"{"rules":[]}"#;

/// Puts a document in force: as the first version of its key, or as the next one.
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

/// Takes a policy out of force, by a version of its own; one that is disabled already
/// stays as it is.
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
    // Not when rules are taken back: what is left may be more than may be added today.
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

/// What is in force together stays within bounds, as each of its documents does.
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

/// Refuses what can name no policy of an operator's.
pub(super) fn check_key(policy_key: &str) -> Result<(), Error> {
    if policy_key.eq_ignore_ascii_case(BUILTIN_KEY) {
        return Err(Error::BadRequest(format!("policy_key: {BUILTIN_KEY} is the pack that never changes")));
    }
    if !is_name(policy_key) {
        return Err(Error::BadRequest(format!("policy_key: {NAME_EXPECTED}")));
    }
    Ok(())
}

/// Reads a document, or says where it is wrong.
pub(super) fn read(body: &str) -> Result<Document, Error> {
    document::parse(body).map_err(|refused| Error::BadRequest(format!("the policy is refused: {refused}")))
}

/// The last version of each policy, the one that changed last first.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Version>, Error> {
    gateway.store.read_aside(|view| Ok(policies::list(view, page.limit, page.offset)?))
}

/// Every version of a policy, newest first. Documents are large, and nobody else should
/// wait for them.
pub fn versions(gateway: &Gateway, policy_key: &str, page: Page) -> Result<Vec<Version>, Error> {
    gateway.store.read_aside(|view| {
        policies::find_last(view, policy_key)?.ok_or_else(no_such_policy)?;
        Ok(policies::versions(view, policy_key, page.limit, page.offset)?)
    })
}

fn no_such_policy() -> Error {
    Error::NotFound("there is no such policy".to_owned())
}
