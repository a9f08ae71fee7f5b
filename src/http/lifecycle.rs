//! `/v1/agents/{id}/…`: what operators do to agents. All bodies are optional.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::agent::AgentStatus;
use crate::domain::audit::EventType;
use crate::domain::lifecycle::Operation;
use crate::service::{Error, lifecycle};

use super::body::typed;
use super::message::{Request, Response};
use super::router::Call;

const REASON_CHARS_MAX: usize = 1024;

#[derive(Deserialize)]
struct ReasonBody {
    reason: Option<String>,
    comment: Option<String>,
}

#[derive(Serialize)]
struct AppliedBody<'a> {
    status: AgentStatus,
    action: EventType,
    reason_recorded: bool,
    agent_id: &'a str,
}

/// `POST /v1/agents/{id}/freeze`
pub(crate) fn freeze(call: &Call<'_>) -> Result<Response, Error> {
    apply(call, Operation::Freeze)
}

/// `POST /v1/agents/{id}/unfreeze`
pub(crate) fn unfreeze(call: &Call<'_>) -> Result<Response, Error> {
    apply(call, Operation::Unfreeze)
}

/// `POST /v1/agents/{id}/revoke`
pub(crate) fn revoke(call: &Call<'_>) -> Result<Response, Error> {
    apply(call, Operation::Revoke)
}

/// `POST /v1/agents/{id}/restore`
pub(crate) fn restore(call: &Call<'_>) -> Result<Response, Error> {
    apply(call, Operation::Restore)
}

fn apply(call: &Call<'_>, operation: Operation) -> Result<Response, Error> {
    let reason = reason(call.request)?;
    let applied = lifecycle::apply(call.gateway, call.actor()?, &call.id, operation, reason)?;
    let body = AppliedBody {
        status: applied.status,
        action: operation.event_type(),
        reason_recorded: applied.reason_recorded,
        agent_id: &applied.agent_id,
    };
    Ok(Response::of(200, &body))
}

/// `DELETE /v1/agents/{id}`
pub(crate) fn delete(call: &Call<'_>) -> Result<Response, Error> {
    let reason = reason(call.request)?;
    lifecycle::apply(call.gateway, call.actor()?, &call.id, Operation::Delete, reason)?;
    Ok(Response::of(200, &json!({ "message": "the agent is deleted" })))
}

/// `POST /v1/agents/{id}/rotate-token`
pub(crate) fn rotate_token(call: &Call<'_>) -> Result<Response, Error> {
    let reason = reason(call.request)?;
    let rotated = lifecycle::rotate_token(call.gateway, call.actor()?, &call.id, reason)?;
    let body = json!({ "agent_id": rotated.agent_id, "agent_token": rotated.agent_token });
    Ok(Response::of(200, &body))
}

/// The trimmed reason, if one is given. Any characters are allowed: people write several
/// lines.
fn reason(request: &Request) -> Result<Option<String>, Error> {
    if request.body.is_empty() {
        return Ok(None);
    }
    let body: ReasonBody = typed(request)?;
    let (reason, comment) = (trimmed("reason", body.reason)?, trimmed("comment", body.comment)?);
    Ok(reason.or(comment))
}

/// Trims one of the two and checks its length even if the other one is used; an empty one is
/// treated as absent.
fn trimmed(name: &str, text: Option<String>) -> Result<Option<String>, Error> {
    let text = text.as_deref().map(str::trim).unwrap_or_default();
    if text.chars().count() > REASON_CHARS_MAX {
        return Err(Error::BadRequest(format!("{name} must have at most {REASON_CHARS_MAX} characters")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}
