//! What gateways of this kind were found to let through, each as a promise that this one
//! does not, driven through the real binary. The numbers are the contract's.

mod asking;
mod credentials;
mod evidence;
mod stopped;
mod used_once;

use serde_json::{Value, json};

use crate::authorize::{ask, decision, flat, with};
use crate::support::{Agent, Gateway, sha256};

const CUSTOMER: &str = "semi_trusted_customer";

/// The hash of a call of `t`/`write` on `r` with these parameters, given in canonical form.
fn hash_of(parameters: &str) -> String {
    let canonical = format!(
        r#"{{"action":"write","mutates_state":true,"parameters":{parameters},"resource":"r","tool":"t"}}"#
    );
    sha256(canonical.as_bytes())
}

/// The id of an approval that an agent was told to wait for.
fn waiting(agent: &Agent, parameters: &Value) -> String {
    let answer = ask(agent, &with(flat("write", CUSTOMER), &json!({ "parameters": parameters })));
    assert_eq!(decision(&answer), "require_approval");
    answer.body["approval"]["approval_id"].as_str().expect("an id").to_owned()
}

/// The same, approved.
fn approved(gateway: &Gateway, agent: &Agent, parameters: &Value) -> String {
    let id = waiting(agent, parameters);
    let path = format!("/v1/approvals/{id}/approve");
    let answer = gateway.operator("POST", &path, Some(&json!({"approver_user_id": "alice"})));
    assert_eq!(answer.status, 200, "{answer:?}");
    id
}

/// Does something to an agent as the operator, which must succeed.
fn operate(gateway: &Gateway, agent: &Agent, operation: &str) {
    let answer = gateway.operator("POST", &format!("/v1/agents/{}/{operation}", agent.id), None);
    assert_eq!(answer.status, 200, "{operation}: {answer:?}");
}

/// The position of the newest receipt.
fn head(gateway: &Gateway) -> i64 {
    gateway.get("/v1/receipts/chain-head")["head"]["seq"].as_i64().unwrap_or(0)
}
