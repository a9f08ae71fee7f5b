//! Of two things that are wrong with a request, which one is told.

use serde_json::{Value, json};

use super::{TRUSTED, ask, assert_conflict, decision, flat, nested, time, with};
use crate::support::{Agent, Answer, Gateway, Home, assert_failure};

/// An agent of one environment that has used the nonce and the request id `used`.
fn agent(gateway: &Gateway, key: &str) -> Agent {
    let agent = gateway.register(key, &json!({"allowed_environments": ["production"]}));
    let first = with(flat("read", TRUSTED), &json!({"nonce": "used", "request_id": "used"}));
    assert_eq!(decision(&ask(&agent, &first)), "allow");
    agent
}

/// What an answer says, in one word.
fn told(answer: &Answer) -> String {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    match answer.status {
        200 => word(&answer.body["matched_policies"][0]).expect("a rule"),
        status => word(&answer.body["details"]["reason"]).unwrap_or_else(|| status.to_string()),
    }
}

#[test]
fn the_first_check_that_fails_is_the_one_that_is_told() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let active = agent(&gateway, "active");
    let frozen = agent(&gateway, "frozen");
    assert_eq!(gateway.operator("POST", "/v1/agents/frozen/freeze", None).status, 200);

    let unreadable = json!({"mutates_state": "yes"});
    let no_time = json!({"timestamp": "yesterday"});
    let old = json!({"timestamp": time(-400)});
    let used = json!({"nonce": "used"});
    let unregistered = json!({"action": "nothing"});
    let repeated = json!({"request_id": "used"});
    let reused = json!({"request_id": "used", "parameters": {"another": "call"}});
    let rows: [(&Agent, &[&Value], &str); 18] = [
        (&frozen, &[&unreadable], "400"),
        (&frozen, &[&no_time, &used], "400"),
        (&active, &[&unreadable, &old, &used, &reused], "400"),
        (&active, &[&no_time, &used, &reused], "400"),
        (&frozen, &[&old], "agent_frozen"),
        (&frozen, &[&used], "agent_frozen"),
        (&frozen, &[&repeated], "agent_frozen"),
        (&frozen, &[&reused], "agent_frozen"),
        (&frozen, &[&unregistered], "agent_frozen"),
        (&active, &[&old, &used], "replay_timestamp_expired"),
        (&active, &[&old, &repeated], "replay_timestamp_expired"),
        (&active, &[&old, &reused], "replay_timestamp_expired"),
        (&active, &[&old, &unregistered], "replay_timestamp_expired"),
        (&active, &[&used, &repeated], "replay_nonce_reused"),
        (&active, &[&used, &reused], "replay_nonce_reused"),
        (&active, &[&used, &unregistered], "replay_nonce_reused"),
        (&active, &[&reused], "request_id_reused"),
        (&active, &[&repeated, &unregistered], "request_id_reused"),
    ];
    for (agent, wrong, expected) in rows {
        let body = wrong.iter().fold(flat("read", TRUSTED), |body, more| with(body, more));
        assert_eq!(told(&ask(agent, &body)), expected, "{body}");
    }
    assert_eq!(told(&ask(&active, &flat("nothing", TRUSTED))), "mcp_unknown_tool");
}

#[test]
fn who_asks_is_checked_before_what_it_asks() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let signing = gateway.register("signing", &json!({"signing_key": "correct-horse-battery-staple"}));
    let stranger =
        Agent { token: "agent_tok_0123456789abcdef0123456789abcdef".to_owned(), ..signing.clone() };
    let broken = |agent: &Agent| gateway.authorize(&agent.token, "{");
    assert_eq!(told(&broken(&signing)), "missing_request_signature");
    assert_eq!(told(&broken(&stranger)), "401");
    // Of a stopped agent too: a denial is for who is known.
    assert_eq!(gateway.operator("POST", "/v1/agents/signing/freeze", None).status, 200);
    assert_eq!(told(&ask(&signing, &flat("read", TRUSTED))), "missing_request_signature");
    assert_eq!(gateway.get("/v1/decisions"), json!([]));
}

#[test]
fn an_environment_that_is_not_allowed_is_refused_in_both_forms_and_on_record() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let production = agent(&gateway, "production");
    // The flat form asks about the environment that is registered.
    let nowhere = gateway.register("nowhere", &json!({"allowed_environments": ["staging"]}));
    let elsewhere = with(
        nested("production", "read", TRUSTED),
        &json!({"agent": {"id": "production", "environment": "staging"}}),
    );
    let mut recorded = 1;
    for (agent, body) in [(&production, elsewhere), (&nowhere, flat("read", TRUSTED))] {
        let unregistered = {
            let mut body = body.clone();
            let call = if body.get("tool_call").is_some() { &mut body["tool_call"] } else { &mut body };
            call["action"] = json!("nothing");
            body
        };
        let late = json!({"timestamp": time(-400), "nonce": "used", "request_id": "used"});
        for body in [body.clone(), with(body.clone(), &late), unregistered] {
            let dry = with(body.clone(), &json!({"dry_run": true}));
            assert_failure(&ask(agent, &dry), 403, "Forbidden");
            assert_failure(&ask(agent, &body), 403, "Forbidden");
            recorded += 1;
            let decisions = gateway.get("/v1/decisions");
            let newest = &decisions[0];
            assert_eq!(decisions.as_array().map(Vec::len), Some(recorded));
            assert_eq!((&newest["decision"], &newest["request_id"]), (&json!("deny"), &Value::Null));
            let rules = newest["matched_policy_ids"].as_str().expect("rules");
            assert!(rules.split(',').any(|id| id == "environment_not_allowed"), "{rules}");
        }
    }
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], recorded);
    // A stopped agent is stopped wherever it asks.
    assert_eq!(gateway.operator("POST", "/v1/agents/nowhere/freeze", None).status, 200);
    assert_eq!(told(&ask(&nowhere, &flat("read", TRUSTED))), "agent_frozen");
    // An agent without a list may ask about any.
    let anywhere = gateway.register("anywhere", &json!({"allowed_environments": []}));
    let there =
        with(nested("anywhere", "read", TRUSTED), &json!({"agent": {"id": "anywhere", "environment": "x"}}));
    assert_eq!(decision(&ask(&anywhere, &there)), "allow");
}

#[test]
fn a_name_for_a_request_is_not_used_by_a_refusal() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let agent = agent(&gateway, "production");
    let named = json!({"request_id": "r", "agent": {"id": "production", "environment": "staging"}});
    let body = with(nested("production", "write", TRUSTED), &named);
    assert_failure(&ask(&agent, &body), 403, "Forbidden");
    let body = with(flat("read", TRUSTED), &json!({"request_id": "r", "timestamp": time(-400)}));
    assert_conflict(&ask(&agent, &body), "replay_timestamp_expired");
    let answer = ask(&agent, &with(flat("read", TRUSTED), &json!({"request_id": "r"})));
    assert!(answer.body["receipt"].is_object(), "{answer:?}");
}
