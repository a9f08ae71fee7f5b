//! `GET /v1/audit/events`

use serde::Serialize;

use crate::domain::audit::{Event, EventType};
use crate::domain::time::Timestamp;
use crate::service::{Error, audit};
use crate::store::audit::Filter;

use super::message::Response;
use super::query::Query;
use super::router::Call;

/// Number of entries if no limit is given.
const LIMIT_DEFAULT: u32 = 100;

#[derive(Serialize)]
struct EventBody<'a> {
    id: &'a str,
    event_type: EventType,
    agent_id: Option<&'a str>,
    user_id: Option<&'a str>,
    run_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    span_id: Option<&'a str>,
    skill: Option<&'a str>,
    action: Option<&'a str>,
    resource: Option<&'a str>,
    /// JSON in a string: existing clients parse it.
    event_json: &'a str,
    input_hash: Option<&'a str>,
    output_hash: Option<&'a str>,
    decision_id: Option<&'a str>,
    approval_id: Option<&'a str>,
    created_at: Timestamp,
}

fn shown(event: &Event) -> EventBody<'_> {
    EventBody {
        id: &event.id,
        event_type: event.event_type,
        agent_id: event.agent_id.as_deref(),
        user_id: event.user_id.as_deref(),
        run_id: event.run_id.as_deref(),
        trace_id: event.trace_id.as_deref(),
        span_id: event.span_id.as_deref(),
        skill: event.skill.as_deref(),
        action: event.action.as_deref(),
        resource: event.resource.as_deref(),
        event_json: &event.event_json,
        input_hash: event.input_hash.as_deref(),
        output_hash: event.output_hash.as_deref(),
        decision_id: event.decision_id.as_deref(),
        approval_id: event.approval_id.as_deref(),
        created_at: event.created_at,
    }
}

/// Lists events, newest first.
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let names = &["decision_id", "agent_id", "event_type", "limit", "offset"];
    let query = Query::parse(&call.request.query, names)?;
    let filter = Filter {
        decision_id: query.text("decision_id")?,
        agent_id: query.text("agent_id")?,
        event_type: query.parsed("event_type", &EventType::WORDS.join(", "), EventType::parse)?,
    };
    let events = audit::list(call.gateway, &filter, query.page_of(LIMIT_DEFAULT)?)?;
    Ok(Response::of(200, &events.iter().map(shown).collect::<Vec<_>>()))
}
