//! `/v1/approvals`

use serde::Deserialize;
use serde_json::json;

use crate::domain::canon::{Hash, ObjectWriter};
use crate::domain::json::Json;
use crate::domain::time::Timestamp;
use crate::service::admission;
use crate::service::approvals::{self, Approver, Seen, Who};
use crate::service::operators::Actor;
use crate::service::{Error, Gateway};

use super::auth::Caller;
use super::authorize::ID_CHARS_MAX;
use super::body::{checked, from_json, object, typed};
use super::call_part::CallPart;
use super::message::Response;
use super::query::Query;
use super::router::Call;

const REASON_CHARS_MAX: usize = 4096;

/// `GET /v1/approvals`: lists approvals that can still be decided.
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let page = Query::parse(&call.request.query, Query::PAGE)?.page()?;
    let mut body = vec![b'['];
    for seen in approvals::list(call.gateway, &call.actor()?, page)? {
        if body.len() > 1 {
            body.push(b',');
        }
        write(&mut body, &seen);
    }
    body.push(b']');
    Ok(Response::json(200, body))
}

/// `GET /v1/approvals/{id}`
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Error> {
    let mut body = Vec::with_capacity(1024);
    write(&mut body, &approvals::get(call.gateway, &who(call)?, &call.id)?);
    Ok(Response::json(200, body))
}

/// Writes the call as it is stored: canonical JSON, byte for byte what was hashed.
fn write(out: &mut Vec<u8>, Seen { approval, status, tool_call }: &Seen) {
    let (action_hash, original) = (approval.action_hash.to_hex(), approval.original_action_hash.to_hex());
    let is_edited = approval.edited_at.is_some();
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let mut object = ObjectWriter::new(out);
    object.string("action_hash", action_hash.as_str());
    object.string("agent_id", &approval.agent_id);
    object.string("approval_id", &approval.id);
    object.string("approver_group", &approval.approver_group);
    object.optional("approver_user_id", approval.approver_user_id.as_deref());
    object.boolean("consumed", approval.consumed_at.is_some());
    object.optional("consumed_at", time(approval.consumed_at).as_deref());
    object.string("created_at", &approval.created_at.to_string());
    object.optional("decided_at", time(approval.decided_at).as_deref());
    object.string("decision_id", &approval.decision_id);
    object.optional("edited_action_hash", is_edited.then_some(action_hash.as_str()));
    // Always null: existing clients would run an edited call without consuming the approval.
    object.optional("edited_tool_call", None);
    object.string("effective_action_hash", action_hash.as_str());
    object.string("expires_at", &approval.expires_at.to_string());
    object.boolean("is_edited", is_edited);
    object.string("original_action_hash", original.as_str());
    object.optional("reason", approval.reason.as_deref());
    object.string("status", status.as_str());
    object.member("tool_call").extend_from_slice(tool_call.as_deref().unwrap_or("null").as_bytes());
    object.end();
}

#[derive(Deserialize)]
struct ApproverBody {
    approver_user_id: String,
    reason: Option<String>,
    claimed_action_hash: Option<String>,
}

/// `POST /v1/approvals/{id}/approve`
pub(crate) fn approve(call: &Call<'_>) -> Result<Response, Error> {
    decide(call, approvals::approve)
}

/// `POST /v1/approvals/{id}/reject`
pub(crate) fn reject(call: &Call<'_>) -> Result<Response, Error> {
    decide(call, approvals::reject)
}

type Decide = fn(&Gateway, Actor, &str, Approver) -> Result<(), Error>;

fn decide(call: &Call<'_>, decide: Decide) -> Result<Response, Error> {
    let approver = approver(typed(call.request)?)?;
    decide(call.gateway, call.actor()?, &call.id, approver)?;
    Ok(Response::of(200, &json!({ "status": "success", "approval_id": call.id })))
}

fn approver(body: ApproverBody) -> Result<Approver, Error> {
    checked("approver_user_id", &body.approver_user_id, 1, ID_CHARS_MAX)?;
    if body.approver_user_id.trim().is_empty() {
        return Err(Error::BadRequest("approver_user_id must not be blank".to_owned()));
    }
    // Any characters are allowed: a reason may have several lines.
    if body.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
        return Err(Error::BadRequest(format!("reason must have at most {REASON_CHARS_MAX} characters")));
    }
    let claim = body.claimed_action_hash.as_deref().map(claimed).transpose()?;
    Ok(Approver { user_id: body.approver_user_id, reason: body.reason, claim })
}

#[derive(Deserialize)]
struct EditBody {
    #[serde(flatten)]
    approver: ApproverBody,
    edited_tool_call: CallPart,
}

/// `POST /v1/approvals/{id}/edit`
pub(crate) fn edit(call: &Call<'_>) -> Result<Response, Error> {
    let mut tree = object(call.request)?;
    let body: EditBody = from_json(&tree)?;
    let edited = body.edited_tool_call.into_call(tree.take("edited_tool_call").unwrap_or(Json::Null));
    let edited = edited.map_err(|what| Error::BadRequest(format!("edited_tool_call: {what}")))?;
    let edited = approvals::edit(call.gateway, call.actor()?, &call.id, edited, approver(body.approver)?)?;
    let answer = json!({
        "status": "success",
        "approval_id": call.id,
        "effective_action_hash": edited.effective.to_string(),
        "original_action_hash": edited.original.to_string(),
    });
    Ok(Response::of(200, &answer))
}

/// Unknown members are rejected, not ignored: one may be a misspelt `claimed_action_hash`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsumeBody {
    claimed_action_hash: Option<String>,
}

/// `POST /v1/approvals/{id}/consume`
pub(crate) fn consume(call: &Call<'_>) -> Result<Response, Error> {
    if let Caller::Agent(token) = &call.caller {
        admission::limit(call.gateway, *token, call.request.received)?;
    }
    let claim = claim(call)?;
    let action_hash = approvals::consume(call.gateway, who(call)?, &call.id, claim)?;
    let answer = json!({
        "status": "consumed",
        "approval_id": call.id,
        "action_hash": action_hash.to_string(),
    });
    Ok(Response::of(200, &answer))
}

/// An empty body makes no claim; an invalid one is an error.
fn claim(call: &Call<'_>) -> Result<Option<Hash>, Error> {
    if call.request.body.is_empty() {
        return Ok(None);
    }
    let body: ConsumeBody = typed(call.request)?;
    body.claimed_action_hash.as_deref().map(claimed).transpose()
}

fn claimed(text: &str) -> Result<Hash, Error> {
    Hash::parse(text).ok_or_else(|| {
        Error::BadRequest("claimed_action_hash must have 64 lowercase hexadecimal digits".to_owned())
    })
}

fn who(call: &Call<'_>) -> Result<Who, Error> {
    match &call.caller {
        Caller::Operator(actor) => Ok(Who::Operator(actor.clone())),
        Caller::Agent(token) => Ok(Who::Agent(*token)),
        Caller::Anyone => Err(Error::Unauthorized),
    }
}
