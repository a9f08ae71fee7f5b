//! `POST /v1/authorize`: what is checked in which order, what counts as a replay, and what
//! the scores are.

mod order;
mod replay;
mod rules;

use aegis_gateway::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::support::{Agent, Answer, assert_failure, try_request};

pub const TRUSTED: &str = "trusted_internal_signed";

/// A read, or a mutation if its action is `write`, of the tool that `Gateway::agent`
/// registers, in the flat form.
pub fn flat(action: &str, trust: &str) -> Value {
    json!({"tool": "t", "action": action, "resource": "r", "mutates_state": action == "write",
           "parameters": {}, "source_trust": trust})
}

/// The same in the nested form.
pub fn nested(agent: &str, action: &str, trust: &str) -> Value {
    let mut call = flat(action, trust);
    call.as_object_mut().and_then(|call| call.remove("source_trust")).expect("a trust");
    json!({"agent": {"id": agent, "environment": "production"}, "tool_call": call,
           "context": {"source_trust": trust, "contains_sensitive_data": false}})
}

/// The body with these members at its top.
pub fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

pub fn ask(agent: &Agent, body: &Value) -> Answer {
    let body = body.to_string();
    try_request(agent.address, "POST", "/v1/authorize", Some(&agent.token), Some(&body)).expect("an answer")
}

pub fn decision(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["decision"].as_str().expect("a decision")
}

pub fn assert_conflict(answer: &Answer, reason: &str) {
    assert_failure(answer, 409, "Conflict");
    assert_eq!(answer.body["details"]["reason"], reason, "{answer:?}");
}

/// So many seconds from now.
pub fn time(seconds: i64) -> String {
    SystemClock.now().plus_seconds(seconds).to_string()
}
