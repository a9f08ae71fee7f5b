//! What is recorded, and what it proves: holes 6, 7, 11, 12 and 15.

use serde_json::{Value, json};

use super::{CUSTOMER, approved, head, operate, waiting};
use crate::authorize::{TRUSTED, ask, decision, flat, with};
use crate::support::{Gateway, Home, assert_failure, dump, try_request, verified, verify};

fn post(gateway: &Gateway, path: &str, body: &Value) -> Value {
    let answer = gateway.operator("POST", path, Some(body));
    assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
    answer.body
}

#[test]
fn hole_6_receipts_verify_as_they_are_served_by_the_endpoint_and_by_the_command() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for trust in [TRUSTED, "unknown"] {
        ask(&agent, &flat("write", trust));
    }
    let id = approved(&gateway, &agent, &json!({"é": 1.5}));
    let consume = format!("/v1/approvals/{id}/consume");
    assert_eq!(gateway.request("POST", &consume, Some(&agent.token), None).status, 200);
    assert_eq!(gateway.request("POST", &consume, Some(&agent.token), None).status, 409);
    let count = head(&gateway);
    assert_eq!(count, 6, "decisions, an approval, its use, and an attempt to use it again");
    for order in ["desc", "asc"] {
        let served = gateway.operator("GET", &format!("/v1/receipts?order={order}"), None);
        let answer = post(&gateway, "/v1/receipts/verify-chain", &json!({ "receipts": served.body }));
        assert_eq!((&answer["verified"], &answer["count"]), (&json!(true), &json!(count)), "{order}");
        let export = home.path(order);
        std::fs::write(&export, &served.raw).expect("written");
        let output = verify(&[export.to_str().expect("text")]);
        assert!(output.status.success(), "{order}: {output:?}");
    }
    for receipt in gateway.get("/v1/receipts").as_array().expect("a list") {
        let id = receipt["event_id"].as_str().expect("an id");
        assert_eq!(gateway.get(&format!("/v1/receipts/{id}/verify"))["verified"], true, "{id}");
    }
}

#[test]
fn hole_7_a_verification_says_of_how_many_receipts_it_speaks() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let range = |body: &Value| {
        let answer = post(&gateway, "/v1/receipts/verify-range", body);
        assert_eq!((&answer["verified"], &answer["error"]), (&json!(true), &Value::Null), "{body}");
        answer["count"].as_u64().expect("a count")
    };
    assert_eq!(range(&json!({})), 0);
    for _ in 0..3 {
        ask(&agent, &flat("read", TRUSTED));
    }
    let first = gateway.get("/v1/receipts?order=asc")[0]["ts"].as_str().expect("a time").to_owned();
    let (today, now) = (format!("{}T00:00:00+00:00", &first[..10]), first.replace('Z', "+00:00"));
    for from in [today, now] {
        assert_eq!(range(&json!({ "from": from })), 3, "a window that begins today: {from}");
    }
    assert_eq!(range(&json!({"from": "2099-01-01T00:00:00Z"})), 0);

    // Nothing is wrong with nothing: what was said to be true is told beside it.
    let nothing = post(&gateway, "/v1/receipts/verify-chain", &json!({"receipts": []}));
    assert_eq!((&nothing["count"], &nothing["head_hash"]), (&json!(0), &json!("")), "{nothing}");
    for body in [json!({}), json!({"receipts": null}), json!({"receipts": {}})] {
        let answer = gateway.operator("POST", "/v1/receipts/verify-chain", Some(&body));
        assert_failure(&answer, 400, "BadRequest");
    }
    for receipts in [json!([{}]), json!([null]), json!([[]])] {
        let answer = post(&gateway, "/v1/receipts/verify-chain", &json!({ "receipts": receipts }));
        assert_eq!((&answer["verified"], &answer["count"]), (&json!(false), &json!(1)), "{receipts}");
    }
}

#[test]
fn hole_7_a_window_out_of_which_receipts_were_taken_is_not_true_of_the_rest() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for _ in 0..8 {
        ask(&agent, &flat("read", TRUSTED));
    }
    let times: Vec<String> = gateway
        .get("/v1/receipts?order=asc")
        .as_array()
        .expect("a list")
        .iter()
        .map(|receipt| receipt["ts"].as_str().expect("a time").to_owned())
        .collect();
    let is_whole = |from: usize, to: Option<usize>| {
        let body = json!({"from": times[from - 1], "to": to.map(|to| &times[to - 1])});
        let answer = post(&gateway, "/v1/receipts/verify-range", &body);
        assert_eq!(answer["verified"], answer["error"].is_null(), "{answer}");
        answer["verified"] == true
    };
    let windows =
        [(1, Some(2)), (1, Some(3)), (4, Some(5)), (4, Some(6)), (6, Some(7)), (7, None), (8, None)];
    assert!(windows.iter().all(|(from, to)| is_whole(*from, *to)));
    home.sql(
        "DROP TRIGGER receipts_are_never_deleted; DROP TRIGGER decisions_are_never_deleted;
         DELETE FROM decisions WHERE seq IN (4, 5, 8); DELETE FROM receipts WHERE seq IN (4, 5, 8);",
    );
    let whole: Vec<bool> = windows.iter().map(|(from, to)| is_whole(*from, *to)).collect();
    assert_eq!(whole, [true, false, false, false, false, false, false], "{windows:?}");
}

#[test]
fn hole_11_raw_parameters_are_in_the_approval_alone_and_for_an_admin_alone() {
    const SECRET: &str = "s3cr3t-parameter";
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (action, trust) in [("read", TRUSTED), ("write", TRUSTED), ("write", "unknown")] {
        ask(&agent, &with(flat(action, trust), &json!({"parameters": {"password": SECRET}})));
    }
    operate(&gateway, &agent, "freeze");
    ask(&agent, &with(flat("write", TRUSTED), &json!({"parameters": {"password": SECRET}})));
    operate(&gateway, &agent, "unfreeze");
    let id = waiting(&agent, &json!({"password": SECRET}));

    let token = |scope: &str| {
        let body = json!({"name": scope, "scope": scope});
        let made = gateway.operator("POST", "/v1/admin/tokens", Some(&body));
        made.body["token"].as_str().expect("a token").to_owned()
    };
    let (read, runner) = (token("read"), token("runner"));
    let approval = format!("/v1/approvals/{id}");
    let tells = |path: &str, token: &str| {
        let answer = gateway.request("GET", path, Some(token), None);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        String::from_utf8_lossy(&answer.raw).contains(SECRET)
    };
    for path in ["/v1/decisions", "/v1/audit/events", "/v1/receipts", "/v1/agents", "/v1/stats"] {
        assert!(!tells(path, &gateway.token), "{path}");
    }
    assert!(!tells(&approval, &read) && !tells(&approval, &runner) && !tells(&approval, &agent.token));
    assert!(tells(&approval, &gateway.token), "who approves must see what");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(dump(&home.database()).matches(SECRET).count(), 1, "the frozen call of the approval");
}

#[test]
fn hole_12_a_decision_its_receipt_its_approval_and_its_event_are_on_record_together_or_not_at_all() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let numbers = || {
        let stats = gateway.get("/v1/stats");
        let events = gateway.get("/v1/audit/events?event_type=approval_created");
        let waiting = gateway.get("/v1/approvals");
        let count = |list: &Value| list.as_array().map(Vec::len);
        (stats["total_decisions"].clone(), head(&gateway), count(&waiting), count(&events))
    };
    let body = with(flat("write", CUSTOMER), &json!({"request_id": "r", "nonce": "n"}));
    for table in ["decisions", "receipts", "approvals", "audit_events"] {
        let before = numbers();
        home.sql(&format!(
            "CREATE TRIGGER no_room BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no room'); END"
        ));
        assert_failure(&ask(&agent, &body), 503, "ServiceUnavailable");
        home.sql("DROP TRIGGER no_room");
        gateway.logs("no room");
        assert_eq!(numbers(), before, "{table}");
    }
    // Neither its name nor its nonce was used by what failed.
    let answer = ask(&agent, &body);
    assert_eq!(decision(&answer), "require_approval");
    assert_eq!(numbers(), (json!(1), 1, Some(1), Some(1)));
    let receipt = gateway.get("/v1/receipts?limit=1")[0].clone();
    assert_eq!(receipt["decision_id"], answer.body["decision_id"]);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&home.database()), 1);
}

#[test]
fn hole_12_the_denial_of_a_frozen_agent_has_its_receipt_and_its_event() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    operate(&gateway, &agent, "freeze");
    let denied = ask(&agent, &flat("read", TRUSTED));
    assert_eq!(decision(&denied), "deny");
    let id = denied.body["decision_id"].as_str().expect("an id");
    let receipt = gateway.get("/v1/receipts?limit=1")[0].clone();
    assert_eq!((&receipt["decision_id"], &receipt["decision"]), (&json!(id), &json!("deny")));
    assert_eq!(receipt["receipt_hash"], denied.body["receipt"]["receipt_hash"]);
    let events = gateway.get(&format!("/v1/audit/events?decision_id={id}"));
    assert_eq!(events[0]["event_type"], "tool_call_intercepted", "{events}");
}

#[test]
fn hole_15_no_member_of_a_receipt_is_outside_its_hash() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert_eq!(decision(&ask(&agent, &flat("read", TRUSTED))), "allow");
    let receipt = gateway.get("/v1/receipts")[0].clone();
    let verified = |receipt: &Value| {
        let body = json!({ "receipts": [receipt] }).to_string();
        let path = "/v1/receipts/verify-chain";
        let answer = try_request(gateway.address(), "POST", path, Some(&gateway.token), Some(&body));
        answer.expect("an answer").body["verified"].clone()
    };
    assert_eq!(verified(&receipt), true);
    for name in receipt.as_object().expect("an object").keys() {
        assert_eq!(verified(&with(receipt.clone(), &json!({ name: "another" }))), false, "{name}");
    }
    for name in ["decision_latency", "created_at", "signature", "signer_key_id", "tenant_id", "note"] {
        assert_eq!(verified(&with(receipt.clone(), &json!({ name: null }))), false, "{name}");
    }
}
