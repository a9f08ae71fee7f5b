//! `/v1/decisions`

use serde::Serialize;

use crate::domain::policy::Outcome;
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::service::{Error, decisions};
use crate::store::decisions::Filter;

use super::message::Response;
use super::query::Query;
use super::router::Call;

#[derive(Serialize)]
struct DecisionBody<'a> {
    id: &'a str,
    agent_id: &'a str,
    user_id: Option<&'a str>,
    run_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    parent_run_id: Option<&'a str>,
    skill: &'a str,
    action: &'a str,
    resource: Option<&'a str>,
    mutates_state: bool,
    environment: &'a str,
    source_trust: &'a str,
    root_trust_level: &'a str,
    decision: Outcome,
    reason: &'a str,
    matched_policy_ids: &'a str,
    policy_version: &'a str,
    risk_score: i64,
    composite_risk_score: i64,
    request_id: Option<&'a str>,
    action_hash: String,
    latency_ms: i64,
    created_at: Timestamp,
}

fn shown(decision: &Decision) -> DecisionBody<'_> {
    DecisionBody {
        id: &decision.id,
        agent_id: &decision.agent_id,
        user_id: decision.user_id.as_deref(),
        run_id: decision.run_id.as_deref(),
        trace_id: decision.trace_id.as_deref(),
        parent_run_id: decision.parent_run_id.as_deref(),
        skill: &decision.tool,
        action: &decision.action,
        resource: decision.resource.as_deref(),
        mutates_state: decision.mutates_state,
        environment: &decision.environment,
        source_trust: &decision.source_trust,
        root_trust_level: &decision.root_trust_level,
        decision: decision.outcome,
        reason: &decision.reason,
        matched_policy_ids: &decision.matched_policy_ids,
        policy_version: &decision.policy_version,
        risk_score: decision.risk_score,
        composite_risk_score: decision.composite_risk_score,
        request_id: decision.request_id.as_deref(),
        action_hash: decision.action_hash.to_string(),
        latency_ms: decision.latency_ms,
        created_at: decision.created_at,
    }
}

/// Query parameters of the list.
const NAMES: &[&str] = &[
    "agent_id",
    "decision",
    "skill",
    "action",
    "resource",
    "run_id",
    "trace_id",
    "source_trust",
    "action_hash",
    "receipt_hash",
    "from",
    "to",
    "q",
    "before",
    "cursor",
    "after",
    "limit",
    "offset",
];

/// `GET /v1/decisions`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let query = Query::parse(&call.request.query, NAMES)?;
    let filter = Filter {
        agent_id: query.text("agent_id")?,
        decision: query.parsed("decision", &Outcome::WORDS.join(", "), Outcome::parse)?,
        tool: query.text("skill")?,
        action: query.text("action")?,
        resource: query.text("resource")?,
        run_id: query.text("run_id")?,
        trace_id: query.text("trace_id")?,
        source_trust: query.text("source_trust")?,
        action_hash: query.text("action_hash")?,
        receipt_hash: query.text("receipt_hash")?,
        from: query.time("from")?,
        to: query.time("to")?,
        text: query.text("q")?,
    };
    let listed = decisions::list(call.gateway, &filter, &query.keys()?, query.page()?)?;
    let response = Response::of(200, &listed.decisions.iter().map(shown).collect::<Vec<_>>());
    Ok(match listed.next {
        Some(next) => response.with("X-Next-Cursor", next.to_string()),
        None => response,
    })
}

/// `GET /v1/decisions/{id}`
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &shown(&decisions::get(call.gateway, &call.id)?)))
}
