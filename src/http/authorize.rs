//! `POST /v1/authorize`: two forms of one question.

use serde::{Deserialize, Serialize};

use crate::domain::approval::Status;
use crate::domain::canon::{self, Hash};
use crate::domain::json::Json;
use crate::domain::policy::Outcome;
use crate::domain::time::Timestamp;
use crate::domain::tool::Risk;
use crate::service::Error;
use crate::service::admission::{self, Admitted, Freshness};
use crate::service::authorize::{self as service, Authorization};

use super::auth::Caller;
use super::body::{from_json, object};
use super::call_part::{CallPart, NAME_CHARS_MAX};
use super::error;
use super::message::{Reply, Request, Response};
use super::router::Call;

/// Most characters in an identifier chosen by the caller.
pub(super) const ID_CHARS_MAX: usize = 512;
/// Most characters in a nonce.
const NONCE_CHARS_MAX: usize = 256;

/// Top-level members that only the flat form has.
const FLAT_MEMBERS: [&str; 6] = ["tool", "action", "resource", "mutates_state", "parameters", "source_trust"];

/// Top-level members that only the nested form has.
const NESTED_MEMBERS: [&str; 4] = ["agent", "context", "environment", "root_trust_level"];

/// The nested form.
#[derive(Deserialize)]
struct Nested {
    agent: AgentPart,
    tool_call: CallPart,
    context: ContextPart,
    trace: Option<TracePart>,
}

#[derive(Deserialize)]
struct AgentPart {
    id: String,
    environment: String,
}

#[derive(Deserialize)]
struct UserPart {
    id: Option<String>,
}

#[derive(Deserialize)]
struct ContextPart {
    source_trust: String,
}

#[derive(Deserialize)]
struct TracePart {
    run_id: Option<String>,
    trace_id: Option<String>,
    parent_run_id: Option<String>,
    root_trust_level: Option<String>,
}

/// The flat form, without the members of the call.
#[derive(Deserialize)]
struct Flat {
    source_trust: Option<String>,
    trace: Option<TracePart>,
}

/// Top-level members of both forms.
#[derive(Deserialize)]
struct Top {
    user: Option<UserPart>,
    request_id: Option<String>,
    dry_run: Option<bool>,
    nonce: Option<String>,
    timestamp: Option<String>,
}

/// Decodes the question and asks the service, which replies once the decision is on disk.
pub(crate) fn authorize(call: &Call<'_>, reply: Reply) {
    match question(call) {
        Ok((admitted, request)) => {
            service::authorize(call.gateway, admitted, request, call.request.received, move |answer| {
                reply.send(answer.map_or_else(|error| error::response(&error), |answer| shown(&answer)));
            });
        }
        Err(error) => reply.send(error::response(&error)),
    }
}

fn question(call: &Call<'_>) -> Result<(Admitted, service::Request), Error> {
    let Caller::Agent(token) = call.caller else { return Err(Error::Unauthorized) };
    let Request { signature, body, received, .. } = call.request;
    let admitted = admission::admit(call.gateway, token, signature.as_deref(), body, *received)?;
    Ok((admitted, decode(object(call.request)?)?))
}

/// Decodes a question in either form.
pub(crate) fn decode(body: Json) -> Result<service::Request, Error> {
    let top: Top = from_json(&body)?;
    let nested = body.get("tool_call").is_some();
    // Ignoring such a member could lose the less trusted of two `source_trust` values, or an
    // environment in which the agent may not act.
    let others = if nested { &FLAT_MEMBERS[..] } else { &NESTED_MEMBERS[..] };
    if let Some(name) = others.iter().find(|name| body.get(name).is_some()) {
        return Err(Error::BadRequest(if nested {
            format!("{name} belongs to the flat form and cannot be combined with tool_call")
        } else {
            format!("{name} belongs to the nested form and needs tool_call")
        }));
    }
    let mut request = if nested { decode_nested(body)? } else { decode_flat(body)? };
    request.freshness = freshness(top.nonce.as_deref(), top.timestamp.as_deref())?;
    request.user_id = top.user.and_then(|user| user.id);
    request.request_id = top.request_id;
    request.dry_run = top.dry_run.unwrap_or(false);
    check(&request)?;
    Ok(request)
}

fn freshness(nonce: Option<&str>, timestamp: Option<&str>) -> Result<Freshness, Error> {
    if nonce.is_some_and(|nonce| !(1..=NONCE_CHARS_MAX).contains(&nonce.chars().count())) {
        return Err(Error::BadRequest(format!("nonce must have 1 to {NONCE_CHARS_MAX} characters")));
    }
    let no_time = || Error::BadRequest("timestamp must be an RFC 3339 date and time".to_owned());
    Ok(Freshness {
        nonce: nonce.map(|nonce| Hash::of(nonce.as_bytes())),
        timestamp: timestamp.map(|text| Timestamp::parse(text).ok_or_else(no_time)).transpose()?,
    })
}

fn decode_nested(mut body: Json) -> Result<service::Request, Error> {
    let Nested { agent, tool_call, context, trace } = from_json(&body)?;
    let tree = body.take("tool_call").unwrap_or(Json::Null);
    let mut request = request(tool_call, tree, context.source_trust, trace)?;
    request.agent = Some(agent.id);
    request.environment = Some(agent.environment);
    Ok(request)
}

fn decode_flat(body: Json) -> Result<service::Request, Error> {
    let call = from_json(&body)?;
    let Flat { source_trust, trace } = from_json(&body)?;
    request(call, body, source_trust.unwrap_or_else(|| "unknown".to_owned()), trace)
}

fn request(
    call: CallPart,
    tree: Json,
    source_trust: String,
    trace: Option<TracePart>,
) -> Result<service::Request, Error> {
    let trace = trace.unwrap_or(TracePart {
        run_id: None,
        trace_id: None,
        parent_run_id: None,
        root_trust_level: None,
    });
    Ok(service::Request {
        call: call
            .into_call(tree)
            .map_err(|what| Error::BadRequest(format!("the body does not fit: {what}")))?,
        agent: None,
        environment: None,
        source_trust,
        root_trust: trace.root_trust_level,
        user_id: None,
        run_id: trace.run_id,
        trace_id: trace.trace_id,
        parent_run_id: trace.parent_run_id,
        request_id: None,
        freshness: Freshness::default(),
        dry_run: false,
    })
}

fn check(request: &service::Request) -> Result<(), Error> {
    for (name, text, max) in [
        ("source_trust", Some(&request.source_trust), NAME_CHARS_MAX),
        ("environment", request.environment.as_ref(), ID_CHARS_MAX),
        ("root_trust_level", request.root_trust.as_ref(), NAME_CHARS_MAX),
        ("user.id", request.user_id.as_ref(), ID_CHARS_MAX),
        ("run_id", request.run_id.as_ref(), ID_CHARS_MAX),
        ("trace_id", request.trace_id.as_ref(), ID_CHARS_MAX),
        ("parent_run_id", request.parent_run_id.as_ref(), ID_CHARS_MAX),
        ("request_id", request.request_id.as_ref(), ID_CHARS_MAX),
    ] {
        // Any characters are allowed: the caller chooses these.
        if text.is_some_and(|text| text.chars().count() > max) {
            return Err(Error::BadRequest(format!("{name} must have at most {max} characters")));
        }
    }
    // Usually an unset shell variable: all requests would share one id.
    if request.request_id.as_deref() == Some("") {
        return Err(Error::BadRequest("request_id must not be empty; omit it instead".to_owned()));
    }
    Ok(())
}

#[derive(Serialize)]
struct Answer<'a> {
    decision: Outcome,
    reason: &'a str,
    decision_id: &'a str,
    action_hash: &'a str,
    approval: Option<ApprovalPart<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    redacted_fields: &'a [String],
    risk_score: i64,
    risk_level: Risk,
    composite_risk_score: i64,
    matched_policies: Vec<&'a str>,
    root_trust_level: &'a str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<ReceiptPart<'a>>,
}

#[derive(Serialize)]
struct ApprovalPart<'a> {
    approval_id: &'a str,
    action_hash: String,
    expires_at: Timestamp,
    approver_group: &'a str,
    status: Status,
}

#[derive(Serialize)]
struct ReceiptPart<'a> {
    receipt_id: &'a str,
    receipt_hash: &'a str,
    prev_receipt_hash: &'a str,
    canon_version: &'a str,
}

fn shown(answer: &Authorization) -> Response {
    let decision = &answer.decision;
    let action_hash = decision.action_hash.to_hex();
    let body = Answer {
        decision: decision.outcome,
        reason: &decision.reason,
        decision_id: &decision.id,
        action_hash: action_hash.as_str(),
        approval: answer.approval.as_ref().map(|approval| ApprovalPart {
            approval_id: &approval.id,
            action_hash: approval.action_hash.to_string(),
            expires_at: approval.expires_at,
            approver_group: &approval.approver_group,
            status: approval.status,
        }),
        redacted_fields: &answer.redacted_fields,
        risk_score: decision.risk_score,
        risk_level: answer.risk_level,
        composite_risk_score: decision.composite_risk_score,
        matched_policies: decision.matched_policy_ids.split(',').filter(|id| !id.is_empty()).collect(),
        root_trust_level: &decision.root_trust_level,
        dry_run: answer.dry_run,
        receipt: answer.receipt.as_ref().map(|receipt| ReceiptPart {
            receipt_id: &receipt.event_id,
            receipt_hash: &receipt.receipt_hash,
            prev_receipt_hash: &receipt.prev_receipt_hash,
            canon_version: canon::VERSION,
        }),
    };
    Response::of(200, &body)
}
