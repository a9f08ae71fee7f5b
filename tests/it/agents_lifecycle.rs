//! Agent lifecycle: each operation leads to the status the contract says, is recorded with its
//! reason, and takes effect with the very next request.

use serde_json::{Value, json};

use crate::support::{Agent, Answer, Gateway, Home, assert_failure, try_request};

const TRUSTED: &str = "trusted_internal_signed";
const STATUSES: [&str; 5] = ["active", "frozen", "quarantined", "revoked", "deleted"];

/// An operation by name; `PATCH` and `DELETE` are methods, everything else is a POST.
fn operate(gateway: &Gateway, agent: &str, operation: &str, body: Option<&Value>) -> Answer {
    match operation {
        "PATCH" | "DELETE" => gateway.operator(operation, &format!("/v1/agents/{agent}"), body),
        _ => gateway.operator("POST", &format!("/v1/agents/{agent}/{operation}"), body),
    }
}

fn done(gateway: &Gateway, agent: &str, operation: &str) -> Value {
    let answer = operate(gateway, agent, operation, None);
    assert_eq!(answer.status, 200, "{operation} {agent}: {answer:?}");
    answer.body
}

fn status_of(gateway: &Gateway, agent_id: &str) -> String {
    let in_list = |status: &&&str| {
        let list = gateway.get(&format!("/v1/agents?limit=200&status={status}"));
        list.as_array().expect("an array").iter().any(|agent| agent["id"] == agent_id)
    };
    STATUSES.iter().find(in_list).expect("it is in a list").to_string()
}

fn events_of(gateway: &Gateway, agent_id: &str) -> Vec<Value> {
    gateway.get(&format!("/v1/audit/events?agent_id={agent_id}")).as_array().expect("an array").clone()
}

fn details(event: &Value) -> Value {
    serde_json::from_str(event["event_json"].as_str().expect("a string")).expect("JSON")
}

/// Percent-encodes everything but unreserved characters.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The HTTP status, and the agent's new status if the operation changes anything.
type Step = (u16, Option<&'static str>);

/// The effect of each operation in each of [`STATUSES`].
const TABLE: [(&str, [Step; 5]); 7] = {
    const fn to(status: &'static str) -> Step {
        (200, Some(status))
    }
    const NOTHING: Step = (200, None);
    const NO: Step = (409, None);
    const GONE: Step = (404, None);
    [
        ("freeze", [to("frozen"), to("frozen"), to("frozen"), NO, GONE]),
        ("unfreeze", [NOTHING, to("active"), NO, NO, GONE]),
        ("revoke", [to("revoked"), to("revoked"), to("revoked"), NOTHING, GONE]),
        ("restore", [NO, to("active"), to("active"), NO, GONE]),
        ("DELETE", [to("deleted"), to("deleted"), to("deleted"), to("deleted"), GONE]),
        ("PATCH", [to("active"), to("frozen"), to("quarantined"), NO, GONE]),
        ("rotate-token", [to("active"), to("frozen"), to("quarantined"), to("revoked"), GONE]),
    ]
};

/// The agent for a cell of the table, as listed.
fn cell(gateway: &Gateway, operation: &str, status: &str) -> Value {
    let listed = gateway.get(&format!("/v1/agents?limit=200&status={status}"));
    let key = format!("cell.{operation}");
    let found = listed.as_array().expect("an array").iter().find(|agent| {
        agent["agent_key"].as_str().is_some_and(|found| found.split_once('.').expect("a cell").1 == key)
    });
    found.expect("it is listed").clone()
}

#[test]
fn every_operation_leads_from_every_status_where_the_contract_says_and_is_on_record() {
    let home = Home::new();
    let gateway = home.start();
    for (operation, status) in
        TABLE.iter().flat_map(|(operation, _)| STATUSES.map(|status| (operation, status)))
    {
        gateway.register(&format!("{status}.cell.{operation}"), &json!({}));
    }
    assert_eq!(gateway.stop(), 0);
    home.sql("UPDATE agents SET status = substr(agent_key, 1, instr(agent_key, '.') - 1)");
    let gateway = home.start();
    // Read all lists before any agent moves between them.
    let cells = TABLE.map(|(operation, _)| STATUSES.map(|status| cell(&gateway, operation, status)));
    for ((operation, steps), agents) in TABLE.into_iter().zip(&cells) {
        for ((answered, leads_to), before) in steps.into_iter().zip(agents) {
            let (id, from) =
                (before["id"].as_str().expect("an id"), before["status"].as_str().expect("a status"));
            let about = format!("{operation} of a {from} agent");
            let body = json!({"reason": about, "purpose": "another"});
            let key = escaped(before["agent_key"].as_str().expect("a key"));
            let answer = operate(&gateway, &key, operation, Some(&body));
            assert_eq!(answer.status, answered, "{about}: {answer:?}");
            assert_eq!(status_of(&gateway, id), leads_to.unwrap_or(from), "{about}");
            match leads_to {
                Some(to) => assert_recorded(&gateway, operation, before, to, &answer),
                None => assert_nothing_done(&gateway, before, &answer),
            }
        }
    }
}

/// Rejected, or nothing to do: nothing is changed and nothing is recorded.
fn assert_nothing_done(gateway: &Gateway, before: &Value, answer: &Answer) {
    let (id, status) = (before["id"].as_str().expect("an id"), before["status"].as_str().expect("a status"));
    assert_eq!(events_of(gateway, id).len(), 1, "{answer:?}");
    let kept = gateway.get(&format!("/v1/agents?limit=200&status={status}"));
    assert!(kept.as_array().expect("an array").contains(before), "{answer:?}");
    match answer.status {
        200 => assert_eq!(answer.body["reason_recorded"], false, "{answer:?}"),
        404 => assert_failure(answer, 404, "NotFound"),
        other => assert_failure(answer, other, "Conflict"),
    }
}

/// Exactly one event was added, with all details.
fn assert_recorded(gateway: &Gateway, operation: &str, before: &Value, to: &str, answer: &Answer) {
    let (id, from) = (before["id"].as_str().expect("an id"), before["status"].as_str().expect("a status"));
    let events = events_of(gateway, id);
    assert_eq!(events.len(), 2, "{events:?}");
    let (event, told) = (&events[0], details(&events[0]));
    let (event_type, action) = match operation {
        "freeze" => ("agent_frozen", None),
        "unfreeze" => ("agent_unfrozen", None),
        "revoke" => ("agent_revoked", None),
        "restore" => ("agent_restored", None),
        "DELETE" => ("admin_action", Some("agent_deleted")),
        "PATCH" => ("agent_updated", None),
        _ => ("agent_token_rotated", None),
    };
    assert_eq!((&event["event_type"], event["action"].as_str()), (&json!(event_type), action));
    assert_eq!((&told["agent_key"], &told["by"]["name"]), (&before["agent_key"], &json!("operator")));
    if operation == "PATCH" {
        assert_eq!(told["changed"], json!({"purpose": {"from": null, "to": "another"}}));
        return;
    }
    let reason = json!(format!("{operation} of a {from} agent"));
    assert_eq!(told["reason"], reason);
    if matches!(operation, "rotate-token" | "DELETE") {
        return;
    }
    assert_eq!((&told["from"], &told["to"]), (&json!(from), &json!(to)));
    let body = json!({"status": to, "action": event_type, "reason_recorded": true, "agent_id": id});
    assert_eq!(answer.body, body);
    let shown = gateway.get(&format!("/v1/agents/{id}"));
    let frozen_reason = if to == "frozen" { reason } else { Value::Null };
    assert_eq!((&shown["frozen_reason"], &shown["quarantined_at"]), (&frozen_reason, &Value::Null));
}

#[test]
fn a_stop_holds_from_the_very_next_request_on() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let denied = |why: &str| {
        let answer = agent.ask("read", TRUSTED);
        assert_eq!((answer.status, &answer.body["decision"]), (200, &json!("deny")), "{answer:?}");
        assert_eq!(answer.body["matched_policies"], json!([why]));
        assert!(answer.body["receipt"]["receipt_id"].is_string(), "{answer:?}");
        let decision = answer.body["decision_id"].as_str().expect("an id");
        assert_eq!(gateway.get(&format!("/v1/decisions/{decision}"))["decision"], "deny");
        let tried = gateway.get(&format!("/v1/audit/events?decision_id={decision}"));
        assert_eq!(tried[0]["event_type"], "tool_call_intercepted", "{tried}");
        assert_eq!(tried[0]["input_hash"], answer.body["action_hash"]);
    };
    for _ in 0..10 {
        assert_eq!(agent.ask("read", TRUSTED).body["decision"], "allow");
        done(&gateway, "a", "freeze");
        denied("agent_frozen");
        done(&gateway, "a", "unfreeze");
    }
    assert_eq!(agent.ask("read", TRUSTED).body["decision"], "allow");
    done(&gateway, "a", "revoke");
    denied("agent_revoked");
    assert_eq!(operate(&gateway, "a", "restore", None).status, 409);
    denied("agent_revoked");
    done(&gateway, "a", "DELETE");
    assert_failure(&agent.ask("read", TRUSTED), 401, "Unauthorized");
    // Its token is no longer a credential: 401, not 403.
    let other = gateway.request("GET", "/v1/receipts", Some(&agent.token), None);
    assert_failure(&other, 401, "Unauthorized");
    let verified = gateway.operator("POST", "/v1/receipts/verify-range", None);
    assert_eq!(verified.body["verified"], true, "{verified:?}");
}

#[test]
fn a_rotated_token_is_dead_at_once_and_the_new_one_lives() {
    let home = Home::new();
    let gateway = home.start();
    let mut agent = gateway.agent("a");
    for round in 0..10 {
        assert_eq!(agent.ask("read", TRUSTED).status, 200);
        let body = (round % 2 == 0).then(|| json!({"reason": "leaked"}));
        let answer = operate(&gateway, "a", "rotate-token", body.as_ref());
        assert_eq!((answer.status, answer.body["agent_id"].as_str()), (200, Some(agent.id.as_str())));
        assert_failure(&agent.ask("read", TRUSTED), 401, "Unauthorized");
        let token = answer.body["agent_token"].as_str().expect("a token").to_owned();
        let digits = token.strip_prefix("agent_tok_").expect("the prefix");
        assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
        agent = Agent { token, ..agent };
    }
    assert_eq!(agent.ask("read", TRUSTED).status, 200);
    let all = gateway.operator("GET", "/v1/audit/events", None).raw;
    assert!(!String::from_utf8_lossy(&all).contains("agent_tok_"));
    assert!(!gateway.log().contains("agent_tok_"));
}

#[test]
fn an_id_wins_over_a_key_on_every_route() {
    let home = Home::new();
    let gateway = home.start();
    let first = gateway.register("first", &json!({}));
    let second = gateway.register(&first.id, &json!({}));
    for operation in ["freeze", "unfreeze", "rotate-token", "revoke", "DELETE"] {
        done(&gateway, &first.id, operation);
    }
    assert_eq!(events_of(&gateway, &second.id).len(), 1);
    assert_eq!(status_of(&gateway, &first.id), "deleted");
    // Even if the id belongs to a deleted agent: no operation reaches another agent.
    assert_failure(&operate(&gateway, &first.id, "freeze", None), 404, "NotFound");
    assert_eq!(status_of(&gateway, &second.id), "active");
    assert_eq!(done(&gateway, &second.id, "freeze")["agent_id"], second.id.as_str());
}

#[test]
fn a_key_of_any_characters_is_reached_on_every_route() {
    let home = Home::new();
    let gateway = home.start();
    for key in ["a b", "a/b", "50%", "%41", "é☂", "..", "freeze"] {
        let agent = gateway.register(key, &json!({}));
        let path = escaped(key);
        for (operation, status) in [("freeze", "frozen"), ("restore", "active"), ("revoke", "revoked")] {
            assert_eq!(done(&gateway, &path, operation)["agent_id"], agent.id.as_str(), "{key}");
            assert_eq!(status_of(&gateway, &agent.id), status, "{key}");
        }
        assert_eq!(done(&gateway, &path, "rotate-token")["agent_id"], agent.id.as_str());
        assert_eq!(done(&gateway, &path, "DELETE"), json!({"message": "the agent is deleted"}));
        assert_failure(&gateway.operator("GET", &format!("/v1/agents/{path}"), None), 404, "NotFound");
    }
    for operation in ["freeze", "unfreeze", "revoke", "restore", "rotate-token", "DELETE"] {
        assert_failure(&operate(&gateway, "nobody", operation, None), 404, "NotFound");
        assert_failure(&operate(&gateway, "%zz", operation, None), 400, "BadRequest");
    }
}

#[test]
fn a_reason_is_trimmed_bounded_and_may_be_left_out() {
    let home = Home::new();
    let gateway = home.start();
    let freeze = |body: &str| {
        let path = "/v1/agents/a/freeze";
        try_request(gateway.address(), "POST", path, Some(&gateway.token), Some(body)).expect("an answer")
    };
    let longest = "é".repeat(1024);
    for (body, reason) in [
        (String::new(), None),
        ("{}".to_owned(), None),
        (r#"{"reason": null, "comment": null, "other": 1}"#.to_owned(), None),
        (r#"{"reason": " \n "}"#.to_owned(), None),
        (r#"{"reason": " two\nlines\t"}"#.to_owned(), Some("two\nlines")),
        (r#"{"comment": "why"}"#.to_owned(), Some("why")),
        (r#"{"reason": "first", "comment": "second"}"#.to_owned(), Some("first")),
        (r#"{"reason": "", "comment": "second"}"#.to_owned(), Some("second")),
        (json!({"reason": format!(" {longest} ")}).to_string(), Some(longest.as_str())),
    ] {
        gateway.register("a", &json!({}));
        let answer = freeze(&body);
        assert_eq!(
            (answer.status, &answer.body["reason_recorded"]),
            (200, &json!(reason.is_some())),
            "{body}"
        );
        assert_eq!(gateway.get("/v1/agents/a")["frozen_reason"], json!(reason), "{body}");
        let event = &gateway.get("/v1/audit/events?event_type=agent_frozen")[0];
        assert_eq!(details(event)["reason"], json!(reason), "{body}");
        done(&gateway, "a", "unfreeze");
        assert_eq!(gateway.get("/v1/agents/a")["frozen_reason"], Value::Null);
    }
    let too_long = json!({"comment": format!("{longest}x")}).to_string();
    let beside = json!({"reason": "first", "comment": format!("{longest}x")}).to_string();
    for body in ["{", "[]", "null", "\"why\"", r#"{"reason": 5}"#, r#"{"reason": ["x"]}"#, &too_long, &beside]
    {
        assert_failure(&freeze(body), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/agents/a")["status"], "active");
}

#[test]
fn a_repeated_freeze_keeps_the_first_reason_until_another_is_given() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    let freeze = |body: &Value| operate(&gateway, "a", "freeze", Some(body)).body["reason_recorded"].clone();
    assert_eq!(freeze(&json!({"reason": "one"})), true);
    assert_eq!(freeze(&json!({})), false);
    assert_eq!(freeze(&json!({"reason": "one"})), false);
    assert_eq!(gateway.get("/v1/agents/a")["frozen_reason"], "one");
    assert_eq!(freeze(&json!({"reason": "two"})), true);
    assert_eq!(gateway.get("/v1/agents/a")["frozen_reason"], "two");
    let kinds: Vec<Value> =
        events_of(&gateway, &agent.id).iter().map(|event| event["event_type"].clone()).collect();
    assert_eq!(kinds, ["agent_frozen", "agent_frozen", "agent_registered"]);
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let patch = |body: &Value| operate(&gateway, "a", "PATCH", Some(body));
    let mut expected = gateway.get("/v1/agents/a");
    for (name, value) in [
        ("name", json!("Näme ☂")),
        ("environment", json!("staging")),
        ("risk_tier", json!("high")),
        ("owner_team", json!("team")),
        ("owner_email", json!("a@b")),
        ("framework", json!("f")),
        ("model_provider", json!("p")),
        ("model_name", json!("m")),
        ("purpose", json!("why")),
        ("owner_team", Value::Null),
    ] {
        let from = std::mem::replace(&mut expected[name], value.clone());
        let mut body = json!({"unknown_member": {"x": 1}});
        body[name] = value.clone();
        let answer = patch(&body);
        assert_eq!(answer.status, 200, "{answer:?}");
        expected["updated_at"] = answer.body["updated_at"].clone();
        assert_eq!(answer.body, expected, "{name}");
        assert_eq!(gateway.get("/v1/agents/a"), expected, "{name}");
        let event = &events_of(&gateway, &agent.id)[0];
        assert_eq!(details(event)["changed"], json!({name: {"from": from, "to": value}}));
    }
    // A setting that affects decisions applies to the next request.
    assert_eq!(agent.ask("write", TRUSTED).body["decision"], "require_approval");
    let events = events_of(&gateway, &agent.id);
    for nothing in [json!({}), json!({"name": "Näme ☂"}), json!({"unknown": 5})] {
        assert_eq!(patch(&nothing).status, 200);
    }
    assert_eq!(events_of(&gateway, &agent.id), events, "nothing changed, nothing said");
}

#[test]
fn a_patch_that_does_not_fit_is_refused_whole() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({"owner_team": "team"}));
    let (before, events) = (gateway.get("/v1/agents/a"), events_of(&gateway, &agent.id));
    for (name, value, status) in [
        ("name", Value::Null, 400),
        ("name", json!(5), 400),
        ("name", json!("a\nb"), 400),
        ("environment", Value::Null, 400),
        ("risk_tier", json!("banana"), 422),
        ("risk_tier", Value::Null, 400),
        ("owner_team", json!(["x"]), 400),
        ("purpose", json!("x".repeat(257)), 400),
        ("signing_key", json!(""), 400),
        ("signing_key", json!(5), 400),
        ("status", json!("active"), 422),
        ("status", json!("revoked"), 422),
        ("agent_key", json!("b"), 422),
        ("id", json!("b"), 422),
        ("force_approval", Value::Null, 400),
        ("force_approval", json!("yes"), 400),
        ("allowed_environments", json!([]), 422),
        ("mtls_cn", json!("x"), 422),
    ] {
        let mut body = json!({"owner_team": "another", "zz": 1});
        body[name] = value;
        let answer = operate(&gateway, "a", "PATCH", Some(&body));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    for body in ["", "[]", "null", "{"] {
        let path = "/v1/agents/a";
        let answer = try_request(gateway.address(), "PATCH", path, Some(&gateway.token), Some(body));
        assert_failure(&answer.expect("an answer"), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/agents/a"), before);
    assert_eq!(events_of(&gateway, &agent.id), events);
}

#[test]
fn a_revoked_or_deleted_agent_does_not_come_back_by_registering_its_key() {
    let home = Home::new();
    let gateway = home.start();
    let revoked = gateway.agent("revoked");
    let deleted = gateway.agent("deleted");
    done(&gateway, "revoked", "revoke");
    done(&gateway, "deleted", "DELETE");
    let again = gateway.agent("revoked");
    assert_eq!(again.id, revoked.id);
    assert_eq!(again.ask("read", TRUSTED).body["decision"], "deny");
    assert_failure(&revoked.ask("read", TRUSTED), 401, "Unauthorized");
    let again = gateway.agent("deleted");
    assert_eq!(again.id, deleted.id);
    assert_failure(&again.ask("read", TRUSTED), 401, "Unauthorized");
    assert_eq!(status_of(&gateway, &deleted.id), "deleted");
    let shown: Vec<Value> = gateway
        .get("/v1/agents")
        .as_array()
        .expect("an array")
        .iter()
        .map(|agent| agent["agent_key"].clone())
        .collect();
    assert_eq!(shown, ["revoked"], "a deleted agent is in no list that does not ask for it");
}

#[test]
fn an_acknowledged_stop_holds_after_a_kill() {
    let home = Home::new();
    let gateway = home.start();
    let (frozen, rotated) = (gateway.agent("frozen"), gateway.agent("rotated"));
    done(&gateway, "frozen", "freeze");
    done(&gateway, "rotated", "rotate-token");
    gateway.kill();
    let gateway = home.start();
    let at = |agent: Agent| Agent { address: gateway.address(), ..agent };
    assert_eq!(at(frozen.clone()).ask("read", TRUSTED).body["decision"], "deny");
    assert_failure(&at(rotated).ask("read", TRUSTED), 401, "Unauthorized");
    assert_eq!(events_of(&gateway, &frozen.id)[1]["event_type"], "agent_frozen");
}
