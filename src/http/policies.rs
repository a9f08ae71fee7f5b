//! `/v1/policies`

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::canon;
use crate::domain::json::Json;
use crate::domain::policy::trial::Comparison;
use crate::domain::policy::{BUILTIN_KEY, BUILTIN_VERSION, LANGUAGE, builtin};
use crate::domain::time::Timestamp;
use crate::service::trials::{self, CALLS_MAX, DECISIONS_MAX, Draft, Sample, Subject, TrialResult};
use crate::service::{Error, Page, authorize, policies};
use crate::store::policies::Version;

use super::authorize::decode;
use super::body::{checked, checked_optional, from_json, members, typed};
use super::message::{Request, Response};
use super::query::Query;
use super::router::Call;

const NAME_CHARS_MAX: usize = 256;
const REASON_CHARS_MAX: usize = 1024;

/// Number of decisions that a trial examines if no limit is given.
const DECISIONS_DEFAULT: u32 = 1_000;

/// The key of a draft that names none.
const DRAFT_KEY: &str = "draft";

#[derive(Serialize)]
struct PolicyBody<'a> {
    id: &'a str,
    policy_key: &'a str,
    name: &'a str,
    body: &'a str,
    language: &'a str,
    version: Value,
    status: &'a str,
    reason: Option<&'a str>,
    created_by: &'a str,
    created_at: Option<&'a str>,
}

fn shown(version: &Version) -> PolicyBody<'_> {
    PolicyBody {
        id: &version.id,
        policy_key: &version.policy_key,
        name: &version.name,
        body: &version.body,
        language: &version.language,
        version: version.version.into(),
        status: version.status.as_str(),
        reason: version.reason.as_deref(),
        created_by: &version.created_by,
        created_at: Some(&version.created_at),
    }
}

/// The built-in pack: versioned with the program, and without a creation time.
fn pack() -> PolicyBody<'static> {
    PolicyBody {
        id: BUILTIN_KEY,
        policy_key: BUILTIN_KEY,
        name: "The built-in pack",
        body: builtin::BODY,
        language: LANGUAGE,
        version: BUILTIN_VERSION.into(),
        status: "active",
        reason: None,
        created_by: "aegis-gateway",
        created_at: None,
    }
}

/// `GET /v1/policies`: the built-in pack, then the others, most recently changed first.
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let page = Query::parse(&call.request.query, Query::PAGE)?.page()?;
    let stored = match page.offset {
        0 => Page { limit: page.limit - 1, offset: 0 },
        offset => Page { offset: offset - 1, ..page },
    };
    let versions = policies::list(call.gateway, stored)?;
    let pack = (page.offset == 0).then(pack);
    Ok(Response::of(200, &pack.into_iter().chain(versions.iter().map(shown)).collect::<Vec<_>>()))
}

/// `GET /v1/policies/{key}/versions`
pub(crate) fn versions(call: &Call<'_>) -> Result<Response, Error> {
    let page = Query::parse(&call.request.query, Query::PAGE)?.page()?;
    if call.id == BUILTIN_KEY {
        return Ok(Response::of(200, &[pack()]));
    }
    let versions = policies::versions(call.gateway, &call.id, page)?;
    Ok(Response::of(200, &versions.iter().map(shown).collect::<Vec<_>>()))
}

/// The request's body, with its rules as text. They may also be sent as an object, because
/// JSON inside a JSON string is awkward in a shell; its canonical form then becomes the text.
fn with_rules_as_text(request: &Request) -> Result<Json, Error> {
    let mut members = members(request)?;
    if let Some((_, rules @ Json::Object(_))) = members.iter_mut().find(|(name, _)| name == "body") {
        *rules = Json::String(String::from_utf8_lossy(&canon::to_vec(rules)).into_owned());
    }
    Ok(Json::Object(members))
}

#[derive(Deserialize)]
struct CreateBody {
    policy_key: String,
    name: String,
    body: String,
}

/// `POST /v1/policies`
pub(crate) fn create(call: &Call<'_>) -> Result<Response, Error> {
    let CreateBody { policy_key, name, body } = from_json(&with_rules_as_text(call.request)?)?;
    checked("name", &name, 1, NAME_CHARS_MAX)?;
    let version = policies::create(call.gateway, call.actor()?, policy_key, name, body)?;
    Ok(Response::of(201, &shown(&version)))
}

#[derive(Deserialize, Default)]
struct DisableBody {
    reason: Option<String>,
}

/// `POST /v1/policies/{key}/disable`
pub(crate) fn disable(call: &Call<'_>) -> Result<Response, Error> {
    let body: DisableBody =
        if call.request.body.is_empty() { DisableBody::default() } else { typed(call.request)? };
    checked_optional("reason", body.reason.as_ref(), REASON_CHARS_MAX)?;
    let version = policies::disable(call.gateway, call.actor()?, &call.id, body.reason)?;
    Ok(Response::of(200, &shown(&version)))
}

#[derive(Deserialize)]
struct TestBody {
    policy_key: Option<String>,
    body: String,
    decisions: Option<DecisionsPart>,
}

#[derive(Deserialize)]
struct DecisionsPart {
    limit: Option<u32>,
    from: Option<String>,
    to: Option<String>,
}

/// `POST /v1/policies/test`
pub(crate) fn test(call: &Call<'_>) -> Result<Response, Error> {
    let value = with_rules_as_text(call.request)?;
    let TestBody { policy_key, body, decisions } = from_json(&value)?;
    let calls = value.get("calls").filter(|calls| **calls != Json::Null);
    let sample = match (calls, decisions) {
        (Some(calls), None) => Sample::Calls(requests(calls)?),
        (None, Some(part)) => recorded(part)?,
        (None, None) | (Some(_), Some(_)) => {
            return Err(Error::BadRequest("the body must have either calls or decisions".to_owned()));
        }
    };
    let policy_key = policy_key.unwrap_or_else(|| DRAFT_KEY.to_owned());
    let report = trials::run(call.gateway, &Draft { policy_key, body }, sample)?;
    Ok(Response::of(200, &answer(&report)))
}

/// Calls as `/v1/authorize` takes them; in the flat form, `agent` may be the agent's id or key.
fn requests(calls: &Json) -> Result<Vec<authorize::Request>, Error> {
    let Json::Array(calls) = calls else {
        return Err(Error::BadRequest("calls must be an array".to_owned()));
    };
    if calls.len() > CALLS_MAX {
        return Err(Error::BadRequest(format!("calls must have at most {CALLS_MAX}")));
    }
    let request = |(index, call): (usize, &Json)| {
        let placed = |error: Error| match error {
            Error::BadRequest(what) | Error::Invalid(what) => {
                Error::BadRequest(format!("calls[{index}]: {what}"))
            }
            other => other,
        };
        let (call, agent) = without_named_agent(call);
        let request = decode(call).map_err(placed)?;
        Ok(authorize::Request { agent: agent.or(request.agent), ..request })
    };
    calls.iter().enumerate().map(request).collect()
}

/// Splits off the agent that a flat call names by a string, which is allowed only here.
fn without_named_agent(call: &Json) -> (Json, Option<String>) {
    let agent = call.get("agent").and_then(Json::as_str).map(str::to_owned);
    let mut call = call.clone();
    if let Json::Object(members) = &mut call {
        members.retain(|(name, value)| name != "agent" || value.as_str().is_none());
    }
    (call, agent)
}

fn recorded(part: DecisionsPart) -> Result<Sample, Error> {
    let time = |name: &str, text: Option<String>| {
        let parse = |text: String| {
            Timestamp::parse(&text)
                .ok_or_else(|| Error::BadRequest(format!("decisions.{name} must be an RFC 3339 time")))
        };
        text.map(parse).transpose()
    };
    let limit = part.limit.unwrap_or(DECISIONS_DEFAULT);
    if !(1..=DECISIONS_MAX).contains(&limit) {
        return Err(Error::BadRequest(format!("decisions.limit must be 1 to {DECISIONS_MAX}")));
    }
    Ok(Sample::Decisions { limit, from: time("from", part.from)?, to: time("to", part.to)? })
}

fn answer(report: &trials::Report) -> Value {
    let (mut changes, mut cannot_tell) = (Vec::new(), Vec::new());
    for result in &report.results {
        match &result.comparison {
            Comparison::Same => {}
            Comparison::Changed { now, then } => changes.push(entry(
                result,
                json!({
                    "now": now,
                    "then": then.outcome,
                    "rules": then.matched_policies,
                    "reason": then.reason,
                    "approver_group": then.approver_group,
                    "redacted_fields": then.redacted_fields,
                }),
            )),
            Comparison::CannotTell { rules } => cannot_tell.push(entry(result, json!({ "rules": rules }))),
        }
    }
    json!({
        "policy_version": report.policy_version,
        "counts": {
            "examined": report.results.len(),
            "changed": changes.len(),
            "cannot_tell": cannot_tell.len(),
            "unchanged": report.results.len() - changes.len() - cannot_tell.len(),
        },
        "changes": changes,
        "cannot_tell": cannot_tell,
    })
}

fn entry(result: &TrialResult, mut members: Value) -> Value {
    match &result.subject {
        Subject::Index(index) => members["index"] = json!(index),
        Subject::Decision(id, recorded) => {
            members["decision_id"] = json!(id);
            members["recorded"] = json!(recorded);
        }
    }
    members
}
