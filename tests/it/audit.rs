//! Audit events: operators' changes and pending approvals are recorded by name, in the
//! transaction of the change, and never with a call's parameters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Gateway, Home, assert_failure};

const EVENTS: &str = "/v1/audit/events";

fn events(gateway: &Gateway, query: &str) -> Vec<Value> {
    gateway.get(&format!("{EVENTS}{query}")).as_array().expect("an array").clone()
}

/// The parsed `event_json`.
fn details(event: &Value) -> Value {
    serde_json::from_str(event["event_json"].as_str().expect("a string")).expect("JSON")
}

fn token(gateway: &Gateway, name: &str, scope: &str) -> (String, String) {
    let body = json!({"name": name, "scope": scope});
    let made = gateway.operator("POST", "/v1/admin/tokens", Some(&body));
    assert_eq!(made.status, 201, "{made:?}");
    let text = |member: &str| made.body[member].as_str().expect(member).to_owned();
    (text("id"), text("token"))
}

#[test]
fn whatever_an_operator_changes_is_on_record_with_the_token_s_name_and_id() {
    let home = Home::new();
    let gateway = home.start();
    let (id, secret) = token(&gateway, "second", "admin");
    let as_second = |path: &str, body: &Value| {
        let answer = gateway.request("POST", path, Some(&secret), Some(body));
        assert!(matches!(answer.status, 200 | 201), "{path}: {answer:?}");
        answer.body
    };
    let agent = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"});
    let registered = as_second("/v1/agents/register", &agent);
    as_second("/v1/agents/register", &agent);
    let tool = json!({"skill_key": "T", "name": "t", "type": "test", "actions": [
        {"action_key": "a", "risk": "low", "mutates_state": false, "approval_required": true, "default_decision": "policy"}]});
    let skill = as_second("/v1/tools", &tool)["skill_id"].clone();
    let third = as_second("/v1/admin/tokens", &json!({"name": "third", "scope": "read"}));
    as_second("/v1/admin/tokens/third/revoke", &json!({}));
    let backup = as_second("/v1/admin/backup", &json!({"filename": "b.db"}));

    let found = events(&gateway, "");
    let kinds: Vec<(&str, Option<&str>)> = found
        .iter()
        .rev()
        .map(|event| (event["event_type"].as_str().expect("a kind"), event["action"].as_str()))
        .collect();
    let expected = [
        ("admin_action", Some("token_created")),
        ("agent_registered", None),
        ("agent_token_rotated", None),
        ("admin_action", Some("tool_registered")),
        ("admin_action", Some("token_created")),
        ("admin_action", Some("token_revoked")),
        ("admin_action", Some("backup")),
    ];
    assert_eq!(kinds, expected);
    let mut by: Vec<Value> = found.iter().rev().map(|event| details(event)["by"].clone()).collect();
    assert_eq!(by.remove(0), json!({"name": "operator", "id": null}));
    assert_eq!(by, vec![json!({"name": "second", "id": id}); 6]);

    let [taken, revoked, _, registered_tool, rotated, made, _] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&made["agent_id"], &rotated["agent_id"]), (&registered["id"], &registered["id"]));
    assert_eq!(registered_tool["skill"], "t");
    let told = details(registered_tool);
    assert_eq!((&told["skill_id"], &told["actions"][0]["approval_required"]), (&skill, &json!(true)));
    assert_eq!(details(revoked)["token"], json!({"id": third["id"], "name": "third", "scope": "read"}));
    let told = details(taken);
    assert_eq!((&told["filename"], &told["sha256"]), (&json!("b.db"), &backup["sha256"]));
    assert_eq!(told["head"]["receipt_hash"], backup["head_hash"]);
}

#[test]
fn what_fails_leaves_no_event() {
    let home = Home::new();
    let gateway = home.start();
    let (_, backup) = token(&gateway, "b", "backup");
    let before = events(&gateway, "");
    let refused = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"});
    assert_eq!(gateway.request("POST", "/v1/agents/register", Some(&backup), Some(&refused)).status, 403);
    assert_eq!(gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "../x"}))).status, 400);
    assert_eq!(gateway.operator("POST", "/v1/tools", Some(&json!({}))).status, 400);
    let taken = json!({"name": "b", "scope": "read"});
    assert_eq!(gateway.operator("POST", "/v1/admin/tokens", Some(&taken)).status, 409);
    assert_eq!(events(&gateway, ""), before);
}

#[test]
fn an_approval_is_on_record_with_its_decision_and_without_parameters() {
    let home = Home::new();
    let gateway = home.start();
    gateway.tool("t", "pay", &json!({"mutates_state": true, "approval_required": true}));
    let agent = gateway.register("k", &json!({}));
    let secret = "parameter-that-nobody-may-see";
    let body = json!({
        "agent": {"id": agent.id, "environment": "production"}, "user": {"id": "u"},
        "tool_call": {"tool": "t", "action": "pay", "resource": "r", "mutates_state": true, "parameters": {"x": secret}},
        "context": {"source_trust": "trusted_internal_signed"}, "trace": {"run_id": "run", "trace_id": "trace"},
        "request_id": "once",
    });
    let asked = gateway.authorize(&agent.token, &body.to_string());
    assert_eq!(asked.body["decision"], "require_approval", "{asked:?}");
    // Repeating the request creates no second approval, and so no second event.
    assert_eq!(gateway.authorize(&agent.token, &body.to_string()).body["approval"], asked.body["approval"]);
    let found = events(&gateway, "?event_type=approval_created");
    let [event] = &found[..] else { panic!("{found:?}") };
    let approval = &asked.body["approval"];
    for (member, value) in [
        ("agent_id", &json!(agent.id)),
        ("user_id", &json!("u")),
        ("run_id", &json!("run")),
        ("trace_id", &json!("trace")),
        ("skill", &json!("t")),
        ("action", &json!("pay")),
        ("resource", &json!("r")),
        ("decision_id", &asked.body["decision_id"]),
        ("approval_id", &approval["approval_id"]),
        ("input_hash", &approval["action_hash"]),
    ] {
        assert_eq!(&event[member], value, "{member}: {event}");
    }
    let told = details(event);
    assert_eq!(told["id"], approval["approval_id"]);
    assert_eq!(
        (&told["action_hash"], &told["expires_at"]),
        (&approval["action_hash"], &approval["expires_at"])
    );
    let all = gateway.operator("GET", EVENTS, None).raw;
    assert!(!String::from_utf8_lossy(&all).contains(secret));

    // An allowed call and a dry run create none.
    agent.ask("pay", "malicious_suspected");
    let mut dry = body.clone();
    (dry["request_id"], dry["dry_run"]) = (Value::Null, json!(true));
    assert_eq!(gateway.authorize(&agent.token, &dry.to_string()).body["decision"], "require_approval");
    assert_eq!(events(&gateway, "?event_type=approval_created").len(), 1);
}

#[test]
fn an_event_has_the_members_of_the_contract() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("a");
    let found = events(&gateway, "?limit=1");
    let members: BTreeSet<&str> =
        found[0].as_object().expect("an object").keys().map(String::as_str).collect();
    let expected = [
        "id",
        "event_type",
        "agent_id",
        "user_id",
        "run_id",
        "trace_id",
        "span_id",
        "skill",
        "action",
        "resource",
        "event_json",
        "input_hash",
        "output_hash",
        "decision_id",
        "approval_id",
        "created_at",
    ];
    assert_eq!(members, BTreeSet::from(expected));
}

#[test]
fn events_are_filtered_by_all_that_is_asked_for_and_paged_newest_first() {
    let home = Home::new();
    let gateway = home.start();
    let agents: Vec<String> =
        (0..3).map(|number| gateway.register(&format!("a{number}"), &json!({})).id).collect();
    gateway.register("a1", &json!({}));
    gateway.tool("t", "pay", &json!({"approval_required": true}));
    let asker = gateway.register("asker", &json!({}));
    let call = json!({"tool": "t", "action": "pay", "mutates_state": false, "parameters": {},
                      "source_trust": "trusted_internal_signed"});
    let decision = gateway.authorize(&asker.token, &call.to_string()).body["decision_id"].clone();
    let decision = decision.as_str().expect("an id");
    let kinds = |query: &str| -> Vec<String> {
        let kind = |event: &Value| event["event_type"].as_str().expect("a kind").to_owned();
        events(&gateway, query).iter().map(kind).collect()
    };
    assert_eq!(kinds(&format!("?agent_id={}", agents[1])), ["agent_token_rotated", "agent_registered"]);
    assert_eq!(kinds(&format!("?agent_id={}&event_type=agent_registered", agents[1])), ["agent_registered"]);
    assert_eq!(kinds("?event_type=agent_registered").len(), 4);
    assert_eq!(kinds(&format!("?decision_id={decision}")), ["approval_created"]);
    assert!(kinds(&format!("?decision_id={decision}&agent_id={}", agents[0])).is_empty());
    assert!(kinds("?agent_id=nobody").is_empty());
    assert!(kinds("?agent_id=").is_empty(), "an empty value is no missing filter");
    let all = events(&gateway, "");
    let pages: Vec<Value> =
        (0..all.len()).flat_map(|at| events(&gateway, &format!("?limit=1&offset={at}"))).collect();
    assert_eq!(pages, all);
    assert_failure(
        &gateway.operator("GET", &format!("{EVENTS}?event_type=nonsense"), None),
        400,
        "BadRequest",
    );
}

#[test]
fn a_list_has_a_hundred_and_never_more_than_two_hundred() {
    let home = Home::new();
    let gateway = home.start();
    for number in 0..210 {
        gateway.tool(&format!("t{number}"), "a", &json!({}));
    }
    assert_eq!(events(&gateway, "").len(), 100);
    assert_eq!(events(&gateway, "?limit=1000").len(), 200);
    assert_eq!(events(&gateway, "?limit=1000&offset=200").len(), 10);
    assert_eq!(events(&gateway, "?limit=1000&offset=20000").len(), 0);
}

#[test]
fn an_acknowledged_change_has_its_event_after_a_kill() {
    let home = Home::new();
    let gateway = home.start();
    let (id, _) = token(&gateway, "n", "read");
    gateway.kill();
    let gateway = home.start();
    let found = events(&gateway, "");
    assert_eq!(found.len(), 1);
    assert_eq!(details(&found[0])["token"]["id"], json!(id));
}
