//! What each operation answers by itself, area by area.

use serde_json::{Value, json};

use super::walk::{Case, Walk, case};
use crate::support::{Agent, Answer, Gateway, sha256};

/// A trust by whose word a mutation needs an approval.
const CUSTOMER: &str = "semi_trusted_customer";
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.body[name].as_str().unwrap_or_else(|| panic!("no {name}: {answer:?}"))
}

/// A body for `/v1/authorize`, of the tool that `Gateway::agent` registers.
fn call(action: &str, trust: &str) -> Value {
    json!({"tool": "t", "action": action, "resource": "r", "mutates_state": action == "write",
           "parameters": {"amount": 1.5}, "source_trust": trust})
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

pub fn about(walk: &Walk, gateway: &Gateway) {
    walk.take_all(
        gateway,
        [
            case("GET /v1/openapi.json", 200),
            case("GET /v1/version", 200).header("X-Request-ID: mine"),
            case("GET /metrics", 200),
            case("GET /v1/stats", 200),
            case("GET /v1/admin/db-stats", 200),
            case("GET /health", 200),
            case("GET /readyz", 200),
            case("GET /livez", 200),
            case("GET /startupz", 200),
        ],
    );
}

pub fn tools(walk: &Walk, gateway: &Gateway) {
    const REGISTER: &str = "POST /v1/tools";
    let action = json!({"action_key": "a", "description": "d", "risk": "low", "mutates_state": false,
                        "approval_required": false, "default_decision": "policy", "data_access": null});
    let tool = |action: &Value| {
        json!({"skill_key": "s", "name": "n", "type": "t", "auth_type": "none",
                                       "actions": [action]})
    };
    walk.take_all(
        gateway,
        [
            case(REGISTER, 200).body(&tool(&action)),
            case(REGISTER, 400).body(&json!({"skill_key": "s"})),
            case(REGISTER, 422).body(&tool(&with(action, "risk", json!("banana")))),
            case("GET /v1/tools", 200).query("limit=1"),
            case("GET /v1/tools", 400).query("limit=1&limit=1"),
        ],
    );
}

/// `set_apart` is the key of a quarantined agent.
pub fn agents(walk: &Walk, gateway: &Gateway, set_apart: &str) {
    const REGISTER: &str = "POST /v1/agents/register";
    let body = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low", "more": 1,
                      "owner_team": null, "signing_key": "s", "allowed_environments": ["e"]});
    walk.take_all(
        gateway,
        [
            case(REGISTER, 201).body(&body),
            case(REGISTER, 200).body(&body),
            case(REGISTER, 409).body(&with(body.clone(), "signing_key", json!("another"))),
            case(REGISTER, 422).body(&with(body.clone(), "risk_tier", json!("none"))),
            case(REGISTER, 400).body(&with(body, "name", json!("a\nb"))),
            case("GET /v1/agents", 200),
            case("GET /v1/agents", 200).query("status=quarantined&offset=0"),
            case("GET /v1/agents", 400).query("status=asleep"),
            case("GET /v1/agents/{id}", 200).id("k"),
            case("GET /v1/agents/{id}", 404).id("nobody"),
            case("GET /v1/agents/{id}", 400).id("%zz"),
        ],
    );
    changed(walk, gateway);
    moved(walk, gateway, set_apart);
}

fn changed(walk: &Walk, gateway: &Gateway) {
    const UPDATE: &str = "PATCH /v1/agents/{id}";
    const ROTATE: &str = "POST /v1/agents/{id}/rotate-token";
    walk.take_all(
        gateway,
        [
            case(UPDATE, 200).id("k").body(&json!({"purpose": "p", "owner_team": null, "more": 1})),
            case(UPDATE, 400).id("k").body(&json!({"purpose": 5})),
            case(UPDATE, 422).id("k").body(&json!({"status": "active"})),
            case(UPDATE, 404).id("nobody").body(&json!({"name": "n"})),
            case(ROTATE, 200).id("k").body(&json!({"reason": "leaked"})),
            case(ROTATE, 200).id("k"),
            case(ROTATE, 404).id("nobody"),
        ],
    );
}

/// Through every state, and what is refused there.
fn moved(walk: &Walk, gateway: &Gateway, set_apart: &str) {
    const FREEZE: &str = "POST /v1/agents/{id}/freeze";
    const UNFREEZE: &str = "POST /v1/agents/{id}/unfreeze";
    const RESTORE: &str = "POST /v1/agents/{id}/restore";
    const REVOKE: &str = "POST /v1/agents/{id}/revoke";
    const DELETE: &str = "DELETE /v1/agents/{id}";
    walk.take_all(
        gateway,
        [
            case(FREEZE, 200).id("k").body(&json!({"reason": "r", "comment": null})),
            case(FREEZE, 400).id("k").body(&json!({"reason": "r".repeat(1025)})),
            case("GET /v1/agents/{id}", 200).id("k"),
            case(UNFREEZE, 200).id("k").text(""),
            case(UNFREEZE, 409).id(set_apart),
            case(RESTORE, 409).id("k"),
            case(RESTORE, 200).id(set_apart),
            case(REVOKE, 200).id("k"),
        ],
    );
    let body = json!({"name": "n"});
    let after = [FREEZE, UNFREEZE, RESTORE].map(|operation| case(operation, 409).id("k"));
    let nobody =
        [FREEZE, UNFREEZE, RESTORE, REVOKE, DELETE].map(|operation| case(operation, 404).id("nobody"));
    walk.take_all(gateway, after);
    walk.take_all(gateway, nobody);
    walk.take(gateway, case("PATCH /v1/agents/{id}", 409).id("k").body(&body));
    walk.take(gateway, case(DELETE, 200).id("k").body(&json!({"reason": "gone"})));
}

pub fn authorize(walk: &Walk, gateway: &Gateway, agent: &Agent) {
    const ASK: &str = "POST /v1/authorize";
    let ask = |status: u16, body: &Value| case(ASK, status).by(&agent.token).body(body);
    let read = call("read", CUSTOMER);
    let nested = |environment: &str, id: &str| {
        json!({"agent": {"id": id, "environment": environment}, "context": {"source_trust": CUSTOMER},
               "tool_call": {"tool": "t", "action": "read", "mutates_state": false, "parameters": [null]}})
    };
    gateway.tool("secrets", "rotate_credential", &json!({}));
    let secret =
        json!({"tool": "secrets", "action": "rotate_credential", "mutates_state": false, "parameters": {}});
    let traced =
        with(nested("production", &agent.id), "trace", json!({"run_id": "r", "root_trust_level": null}));
    let named = with(read.clone(), "request_id", json!("one"));
    let once = with(with(read.clone(), "nonce", json!("once")), "user", json!({"id": "u"}));
    walk.take_all(
        gateway,
        [
            ask(200, &read),
            ask(200, &traced),
            ask(200, &secret),
            ask(200, &call("write", CUSTOMER)),
            ask(200, &call("write", "whoever")),
            ask(200, &with(read.clone(), "dry_run", json!(true))),
            ask(200, &named),
            ask(200, &named),
            ask(200, &once),
            ask(400, &with(read.clone(), "tool_call", Value::Null)),
            ask(400, &json!({"tool": "t"})),
            ask(403, &nested("production", "another")),
            ask(409, &once),
            ask(409, &with(named, "resource", json!("other"))),
            ask(409, &with(read.clone(), "timestamp", json!("2020-01-01T00:00:00Z"))),
        ],
    );
    let fenced = gateway.register("fenced", &json!({"allowed_environments": ["staging"]}));
    walk.take(gateway, ask(403, &read).by(&fenced.token));
    signed(walk, gateway, &read);
}

fn signed(walk: &Walk, gateway: &Gateway, read: &Value) {
    let agent = gateway.register("signing", &json!({"signing_key": "k"}));
    let ask = |status: u16| case("POST /v1/authorize", status).by(&agent.token).body(read);
    let key = aegis_gateway::domain::signature::SigningKey::new(b"k");
    let signature = key.sign(read.to_string().as_bytes());
    walk.take_all(
        gateway,
        [
            ask(401),
            ask(401).header(&format!("X-Aegis-Request-Signature: sha256={NO_HASH}")),
            ask(200).header(&format!("X-Aegis-Request-Signature: sha256={signature}")),
        ],
    );
}

/// An approval that the agent waits for, and the hash of its call.
pub fn approval(gateway: &Gateway, agent: &Agent) -> (String, String) {
    let answer = gateway.authorize(&agent.token, &call("write", CUSTOMER).to_string());
    let approval = &answer.body["approval"];
    let member = |name: &str| approval[name].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    (member("approval_id"), member("action_hash"))
}

const APPROVE: &str = "POST /v1/approvals/{id}/approve";
const REJECT: &str = "POST /v1/approvals/{id}/reject";
const EDIT: &str = "POST /v1/approvals/{id}/edit";
const CONSUME: &str = "POST /v1/approvals/{id}/consume";

/// A decision's body, or an edit's.
fn decision(operation: &'static str, status: u16) -> Case {
    case(operation, status).body(&decision_body(operation))
}

fn decision_body(operation: &str) -> Value {
    let who = json!({"approver_user_id": "kim", "reason": "several\nlines"});
    let edited =
        json!({"tool": "t", "action": "read", "resource": null, "mutates_state": false, "parameters": 1});
    if operation == EDIT { with(who, "edited_tool_call", edited) } else { who }
}

pub fn approvals(walk: &Walk, gateway: &Gateway, agent: &Agent) {
    let unknown = json!({"approver_user_id": "kim", "edited_tool_call":
                         {"tool": "no", "action": "no", "mutates_state": true, "parameters": {}}});
    let ((first, hash), (second, _)) = (approval(gateway, agent), approval(gateway, agent));
    for operation in [APPROVE, REJECT, EDIT] {
        let nobody = json!({"approver_user_id": " "});
        walk.take(gateway, case(operation, 400).id(&first).body(&nobody));
        walk.take(gateway, decision(operation, 404).id("nobody"));
        let mut another = decision_body(operation);
        another["claimed_action_hash"] = json!(NO_HASH);
        walk.take(gateway, case(operation, 409).id(&first).body(&another));
    }
    walk.take_all(
        gateway,
        [
            case("GET /v1/approvals", 200),
            case(EDIT, 422).id(&first).body(&unknown),
            case(CONSUME, 409).id(&first),
            decision(APPROVE, 200).id(&first),
            decision(EDIT, 200).id(&second),
            case("GET /v1/approvals/{id}", 200).id(&second),
            decision(REJECT, 200).id(&second),
            case("GET /v1/approvals/{id}", 200).id(&second).by(&agent.token),
            case("GET /v1/approvals/{id}", 404).id("nobody"),
            case(CONSUME, 400).id(&first).body(&json!({"claimed_hash": hash})),
            case(CONSUME, 404).id("nobody").by(&agent.token),
            case(CONSUME, 409).id(&first).body(&json!({"claimed_action_hash": NO_HASH})),
            case(CONSUME, 200).id(&first).by(&agent.token).body(&json!({"claimed_action_hash": hash})),
            case("GET /v1/approvals/{id}", 200).id(&first),
        ],
    );
    walk.take_all(gateway, [APPROVE, REJECT, EDIT].map(|operation| decision(operation, 409).id(&first)));
}

/// What is answered of an approval that nobody decided in time.
pub fn expired(walk: &Walk, gateway: &Gateway, id: &str) {
    walk.take_all(gateway, [APPROVE, REJECT, EDIT].map(|operation| decision(operation, 409).id(id)));
}

pub fn decisions(walk: &Walk, gateway: &Gateway) {
    let listed = walk.take(gateway, case("GET /v1/decisions", 200).query("limit=2&decision=allow&q=t"));
    assert!(listed.header("X-Next-Cursor").is_some(), "{listed:?}");
    let id = listed.body[0]["id"].as_str().expect("a decision");
    walk.take_all(
        gateway,
        [
            case("GET /v1/decisions", 200),
            case("GET /v1/decisions", 400).query("from=yesterday"),
            case("GET /v1/decisions", 400).query("before=1&cursor=1"),
            case("GET /v1/decisions/{id}", 200).id(id),
            case("GET /v1/decisions/{id}", 404).id("nobody"),
        ],
    );
}

pub fn receipts(walk: &Walk, gateway: &Gateway) {
    const CHAIN: &str = "POST /v1/receipts/verify-chain";
    const RANGE: &str = "POST /v1/receipts/verify-range";
    let listed = walk.take(gateway, case("GET /v1/receipts", 200).query("order=asc"));
    let id = listed.body[0]["event_id"].as_str().expect("a receipt");
    walk.take_all(
        gateway,
        [
            case("GET /v1/receipts", 200).query("limit=200"),
            case("GET /v1/receipts", 400).query("order=random"),
            case("GET /v1/receipts/{id}", 200).id(id),
            case("GET /v1/receipts/{id}", 404).id("nobody"),
            case("GET /v1/receipts/{id}/verify", 200).id(id),
            case("GET /v1/receipts/{id}/verify", 404).id("nobody"),
            case("GET /v1/receipts/chain-head", 200),
            case(CHAIN, 200).body(&listed.body),
            case(CHAIN, 200).body(&json!({"receipts": [5]})),
            case(CHAIN, 400).body(&json!({"receipts": 5})),
            case(RANGE, 200),
            case(RANGE, 200).body(&json!({"from": "2020-01-01T00:00:00Z", "to": null})),
            case(RANGE, 400).body(&json!({"from": "yesterday"})),
        ],
    );
}

pub fn policies(walk: &Walk, gateway: &Gateway, agent: &Agent) {
    const CREATE: &str = "POST /v1/policies";
    const TEST: &str = "POST /v1/policies/test";
    const VERSIONS: &str = "GET /v1/policies/{id}/versions";
    const DISABLE: &str = "POST /v1/policies/{id}/disable";
    let rule = json!({"id": "r", "effect": "deny", "when": {"tool": "t", "parameters": {"amount": 1.5}}});
    let document = json!({"rules": [rule]}).to_string();
    let draft = json!({"policy_key": "p", "name": "n", "body": document});
    let calls = json!([with(call("read", CUSTOMER), "agent", json!(agent.id))]);
    walk.take_all(
        gateway,
        [
            case(TEST, 200).body(&json!({"body": document, "decisions": {"limit": 10}})),
            case(TEST, 200).body(&json!({"body": document, "calls": calls, "policy_key": null})),
            case(TEST, 400).body(&json!({"body": document})),
            case(CREATE, 201).body(&draft),
            case(CREATE, 400).body(&with(draft, "body", json!("{}"))),
            case("GET /v1/policies", 200),
            case("GET /v1/policies", 400).query("limit=%zz"),
            case(VERSIONS, 200).id("p"),
            case(VERSIONS, 200).id("builtin"),
            case(VERSIONS, 404).id("nobody"),
            case(DISABLE, 200).id("p").body(&json!({"reason": "no longer"})),
            case(DISABLE, 200).id("p"),
            case(DISABLE, 400).id("builtin"),
            case(DISABLE, 404).id("nobody"),
        ],
    );
}

pub fn operators(walk: &Walk, gateway: &Gateway) {
    const CREATE: &str = "POST /v1/admin/tokens";
    const REVOKE: &str = "POST /v1/admin/tokens/{id}/revoke";
    let body = json!({"name": "n", "scope": "read", "expires_at": "2126-01-01T00:00:00Z"});
    let made = walk.take(gateway, case(CREATE, 201).body(&body));
    walk.take_all(
        gateway,
        [
            case(CREATE, 400).body(&json!({"name": "m"})),
            case(CREATE, 409).body(&body),
            case(CREATE, 422).body(&json!({"name": "m", "scope": "root"})),
            case("GET /v1/admin/tokens", 200),
            case(REVOKE, 200).id(text(&made, "id")),
            case(REVOKE, 404).id("nobody"),
            case("GET /v1/audit/events", 200).query("limit=200"),
            case("GET /v1/audit/events", 400).query("event_type=rain"),
        ],
    );
}

pub fn backups(walk: &Walk, gateway: &Gateway) {
    const TAKE: &str = "POST /v1/admin/backup";
    const FETCH: &str = "GET /v1/admin/backups/{id}";
    let body = json!({"filename": "b.db"});
    let taken = walk.take(gateway, case(TAKE, 200).body(&body));
    walk.take_all(
        gateway,
        [
            case(TAKE, 400).body(&json!({"filename": "../b.db"})),
            case(TAKE, 409).body(&body),
            case("GET /v1/admin/backups", 200),
            case(FETCH, 200).id("b.db.manifest.json"),
            case(FETCH, 200).id("b.db.sha256"),
            case(FETCH, 404).id("nobody"),
        ],
    );
    let fetched = walk.take(gateway, case(FETCH, 200).id("b.db"));
    assert_eq!(sha256(&fetched.raw), text(&taken, "sha256"));
}
