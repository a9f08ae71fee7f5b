//! Approvals: granted by people, bound to one call, used once before they expire, and recorded.

use std::fs;
use std::sync::Barrier;

use aegis_gateway::clock::Clock;
use aegis_gateway::startup::{self, Options};
use aegis_gateway::store::receipts::{self, Entry};
use serde_json::{Value, json};

use crate::support::{
    Agent, Answer, Gateway, Hand, Home, assert_failure, dump, sha256, try_request, verified, wait_until,
};

const LONG_AGO: &str = "2020-01-01T00:00:00.000000Z";

/// Requests a call that needs an approval; returns the approval from the answer.
fn asked(gateway: &Gateway, agent: &Agent, parameters: &Value) -> Value {
    let body = json!({"tool": "t", "action": "write", "resource": "r", "mutates_state": true,
                      "parameters": parameters, "source_trust": "semi_trusted_customer"});
    let answer = gateway.authorize(&agent.token, &body.to_string());
    assert_eq!(answer.body["decision"], "require_approval", "{answer:?}");
    answer.body["approval"].clone()
}

fn id(gateway: &Gateway, agent: &Agent) -> String {
    text(&asked(gateway, agent, &json!({}))["approval_id"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn path(id: &str, verb: &str) -> String {
    format!("/v1/approvals/{id}/{verb}")
}

/// A change by the operator, with the required body.
fn change(gateway: &Gateway, id: &str, verb: &str) -> Answer {
    let body = match verb {
        "edit" => json!({"approver_user_id": "alice", "edited_tool_call": edited_call(&json!({"n": 2}))}),
        "consume" => json!({}),
        _ => json!({"approver_user_id": "alice", "reason": "why"}),
    };
    gateway.operator("POST", &path(id, verb), Some(&body))
}

fn done(gateway: &Gateway, id: &str, verb: &str) {
    let answer = change(gateway, id, verb);
    assert_eq!(answer.status, 200, "{verb}: {answer:?}");
}

fn edited_call(parameters: &Value) -> Value {
    json!({"tool": "t", "action": "write", "resource": "other", "mutates_state": true, "parameters": parameters})
}

fn seen(gateway: &Gateway, id: &str) -> Value {
    gateway.get(&format!("/v1/approvals/{id}"))
}

fn token(gateway: &Gateway, scope: &str) -> String {
    let answer = gateway.operator("POST", "/v1/admin/tokens", Some(&json!({"name": scope, "scope": scope})));
    text(&answer.body["token"]).to_owned()
}

fn assert_conflict(answer: &Answer, status: &str, reason: &str) {
    assert_failure(answer, 409, "Conflict");
    assert_eq!(answer.body["details"], json!({"status": status, "reason": reason}), "{answer:?}");
}

/// Receipts, newest first.
fn receipts(gateway: &Gateway) -> Vec<Value> {
    gateway.get("/v1/receipts?limit=200").as_array().expect("a list").clone()
}

fn count(receipts: &[Value], member: &str, value: &str) -> usize {
    receipts.iter().filter(|receipt| receipt[member] == value).count()
}

/// Audit events of one kind about an approval, newest first.
fn events(gateway: &Gateway, kind: &str, approval: &str) -> Vec<Value> {
    let all = gateway.get(&format!("/v1/audit/events?event_type={kind}&limit=200"));
    let all = all.as_array().expect("a list");
    all.iter().filter(|event| event["approval_id"] == approval).cloned().collect()
}

#[test]
fn an_approval_is_shown_with_every_member_that_clients_poll() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let parameters = json!({"amount": 1.5, "ids": [1, null]});
    let asked = asked(&gateway, &agent, &parameters);
    let (id, hash) = (text(&asked["approval_id"]), &asked["action_hash"]);
    let found = seen(&gateway, id);
    for (member, value) in [
        ("approval_id", &asked["approval_id"]),
        ("status", &json!("created")),
        ("action_hash", hash),
        ("original_action_hash", hash),
        ("effective_action_hash", hash),
        ("edited_action_hash", &Value::Null),
        ("is_edited", &json!(false)),
        ("expires_at", &asked["expires_at"]),
        ("approver_group", &json!("security-reviewers")),
        ("approver_user_id", &Value::Null),
        ("reason", &Value::Null),
        ("decided_at", &Value::Null),
        ("consumed", &json!(false)),
        ("agent_id", &json!(agent.id)),
    ] {
        assert_eq!(&found[member], value, "{member}: {found}");
    }
    let call = json!({"tool": "t", "action": "write", "resource": "r", "mutates_state": true,
                      "parameters": parameters});
    assert_eq!(found["tool_call"], call);
    assert_eq!(gateway.get("/v1/approvals"), json!([found]));
    for unknown in ["00000000-0000-7000-8000-000000000000", "no-uuid", "%2e%2e", &format!("{id}0")] {
        assert_failure(&gateway.operator("GET", &format!("/v1/approvals/{unknown}"), None), 404, "NotFound");
        for verb in ["approve", "reject", "edit", "consume"] {
            assert_failure(&change(&gateway, unknown, verb), 404, "NotFound");
        }
    }
    assert_eq!(receipts(&gateway).len(), 1, "an unknown approval leaves no receipt");
}

#[test]
fn the_call_that_is_shown_is_the_call_that_was_hashed() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = r#"{"tool":"t","action":"write","mutates_state":true,"source_trust":"semi_trusted_customer",
                   "parameters":{"z":1e5,"big":123456789012345678901234567890,"é":"\u00e9\n","a":-0}}"#;
    let answer = gateway.authorize(&agent.token, body);
    let raw = gateway
        .operator("GET", &format!("/v1/approvals/{}", text(&answer.body["approval"]["approval_id"])), None)
        .raw;
    let raw = String::from_utf8(raw).expect("text");
    let from = raw.find("\"tool_call\":").expect("a call") + "\"tool_call\":".len();
    let call = &raw[from..raw.len() - 1];
    assert_eq!(sha256(call.as_bytes()), text(&answer.body["action_hash"]), "{call}");
}

#[test]
fn parameters_are_shown_to_who_may_decide_and_to_nobody_else() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = id(&gateway, &agent);
    let one = format!("/v1/approvals/{id}");
    let whole = seen(&gateway, &id);
    assert!(whole["tool_call"].is_object(), "{whole}");
    let mut without = whole.clone();
    without["tool_call"] = Value::Null;
    let (admin, read, runner) =
        (token(&gateway, "admin"), token(&gateway, "read"), token(&gateway, "runner"));
    for (token, expected) in
        [(&admin, &whole), (&read, &without), (&runner, &without), (&agent.token, &without)]
    {
        let answer = gateway.request("GET", &one, Some(token), None);
        assert_eq!((answer.status, &answer.body), (200, expected));
        if token != &agent.token {
            let answer = gateway.request("GET", "/v1/approvals", Some(token), None);
            assert_eq!((answer.status, &answer.body), (200, &json!([expected])));
        }
    }
}

#[test]
fn a_list_of_decisions_counts_decisions_alone_whatever_receipts_stand_between_them() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for verbs in [&["edit", "approve", "consume"][..], &[], &["reject"], &["approve"], &[]] {
        let id = id(&gateway, &agent);
        verbs.iter().for_each(|verb| done(&gateway, &id, verb));
    }
    let decisions = |query: &str| -> Vec<Value> {
        gateway.get(&format!("/v1/decisions?{query}")).as_array().expect("a list").clone()
    };
    let all = decisions("limit=200");
    assert_eq!((all.len(), receipts(&gateway).len()), (5, 10));
    for offset in 0..7 {
        assert_eq!(decisions(&format!("offset={offset}")), all[offset.min(5)..], "{offset}");
        let page = &all[offset.min(5)..(offset + 2).min(5)];
        assert_eq!(decisions(&format!("limit=2&offset={offset}")), page, "{offset}");
        let after_first = &all[(offset + 1).min(5)..];
        // The newest decision is the tenth receipt.
        assert_eq!(decisions(&format!("before=10&offset={offset}")), after_first, "{offset}");
    }
}

#[test]
fn only_what_can_still_be_decided_is_listed_newest_first() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let ids: Vec<String> = (0..8).map(|_| id(&gateway, &agent)).collect();
    done(&gateway, &ids[1], "approve");
    done(&gateway, &ids[3], "reject");
    done(&gateway, &ids[4], "edit");
    assert_eq!(gateway.stop(), 0);
    home.sql(&format!("UPDATE approvals SET expires_at = '{LONG_AGO}' WHERE id = '{}'", ids[6]));
    let gateway = home.start();
    let listed = |query: &str| -> Vec<String> {
        let all = gateway.get(&format!("/v1/approvals{query}"));
        let all = all.as_array().expect("a list");
        all.iter().map(|approval| text(&approval["approval_id"]).to_owned()).collect()
    };
    let of = |numbers: &[usize]| numbers.iter().map(|number| ids[*number].clone()).collect::<Vec<_>>();
    assert_eq!(listed(""), of(&[7, 5, 4, 2, 0]));
    assert_eq!(listed("?limit=2&offset=1"), of(&[5, 4]));
    assert_eq!(listed("?offset=5"), of(&[]));
    assert_eq!(listed("?offset=20000"), of(&[]));
}

#[test]
fn a_list_of_large_calls_is_bounded_and_each_is_seen_by_itself() {
    const CALLS: usize = 20;
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let large = json!({"text": "x".repeat(1_000_000)});
    for _ in 0..CALLS {
        asked(&gateway, &agent, &large);
    }
    let answer = gateway.operator("GET", "/v1/approvals", None);
    let listed = answer.body.as_array().expect("a list");
    assert_eq!(listed.len(), CALLS);
    assert!(answer.raw.len() < 18 << 20, "{} bytes", answer.raw.len());
    let shown = listed.iter().filter(|approval| approval["tool_call"].is_object()).count();
    assert!(
        listed[..shown].iter().all(|approval| approval["tool_call"].is_object()),
        "the newest have theirs"
    );
    let last = listed.last().expect("one");
    assert!(last["tool_call"].is_null());
    assert_eq!(seen(&gateway, text(&last["approval_id"]))["tool_call"]["parameters"], large);
}

/// Creates an approval in the given state.
fn in_state(gateway: &Gateway, agent: &Agent, state: &str) -> String {
    let id = id(gateway, agent);
    for verb in match state {
        "created" => &[][..],
        "edited" => &["edit"],
        "APPROVED" => &["approve"],
        "REJECTED" => &["reject"],
        "consumed" => &["approve", "consume"],
        other => panic!("{other}"),
    } {
        done(gateway, &id, verb);
    }
    id
}

/// The result of a change: HTTP status, reason, and what is recorded.
fn expected(state: &str, expired: bool, verb: &str) -> (u16, &'static str, &'static str) {
    let undecided = matches!(state, "created" | "edited");
    match (verb, undecided, expired) {
        ("consume", ..) if state == "APPROVED" && !expired => (200, "", "consumed"),
        ("consume", ..) => (409, "consume_not_consumable", "consume_not_consumable"),
        (_, false, _) => (409, "approval_already_decided", ""),
        ("approve", true, false) => (200, "", "approved"),
        ("reject", true, false) => (200, "", "rejected"),
        ("edit", true, false) => (200, "", "edited"),
        ("approve", true, true) => (409, "approval_expired", "approve_expired"),
        ("reject", true, true) => (409, "approval_expired", "reject_expired"),
        _ => (409, "approval_expired", "edit_expired"),
    }
}

#[test]
fn every_change_in_every_state_in_time_and_late_is_answered_and_recorded() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let mut cases = Vec::new();
    for state in ["created", "edited", "APPROVED", "REJECTED", "consumed"] {
        for expired in [false, true] {
            for verb in ["approve", "reject", "edit", "consume"] {
                cases.push((in_state(&gateway, &agent, state), state, expired, verb));
            }
        }
    }
    assert_eq!(gateway.stop(), 0);
    for (id, ..) in cases.iter().filter(|(_, _, expired, _)| *expired) {
        home.sql(&format!("UPDATE approvals SET expires_at = '{LONG_AGO}' WHERE id = '{id}'"));
    }
    let gateway = home.start();
    for (id, state, expired, verb) in &cases {
        let what = format!("{verb} of {state}, expired: {expired}");
        let before = receipts(&gateway);
        let was = seen(&gateway, id);
        let answer = change(&gateway, id, verb);
        let (status, reason, recorded) = expected(state, *expired, verb);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        let now = seen(&gateway, id);
        if status == 409 {
            assert_conflict(&answer, text(&was["status"]), reason);
            let unchanged = ["status", "consumed", "action_hash", "decided_at", "approver_user_id"];
            assert!(unchanged.iter().all(|member| was[member] == now[member]), "{what}: {now}");
        }
        let newest = &receipts(&gateway)[0];
        if recorded.is_empty() {
            assert_eq!(newest, &before[0], "{what}");
            continue;
        }
        let head = gateway.get("/v1/receipts/chain-head");
        assert_eq!(head["head"]["prev_receipt_hash"], before[0]["receipt_hash"], "one receipt: {what}");
        if status == 409 {
            assert_tamper(&gateway, newest, &now, recorded);
        } else {
            assert_eq!(newest["decision"], recorded, "{what}");
        }
    }
    assert_eq!(gateway.stop(), 0);
    verified(&home.database());
}

fn assert_tamper(gateway: &Gateway, receipt: &Value, approval: &Value, kind: &str) {
    let resource = format!("approval:{}", text(&approval["approval_id"]));
    for (member, value) in [
        ("tool", json!(kind)),
        ("action", json!("tamper_attempt")),
        ("decision", json!("tamper_attempt")),
        ("resource", json!(resource)),
        ("source_trust", json!("malicious_suspected")),
        ("action_hash", approval["original_action_hash"].clone()),
        ("agent_id", Value::Null),
        ("user_id", Value::Null),
        ("run_id", Value::Null),
        ("trace_id", Value::Null),
        ("approver", Value::Null),
        ("decision_id", Value::Null),
    ] {
        assert_eq!(receipt[member], value, "{member}: {receipt}");
    }
    let event = &events(gateway, "tamper_attempt", text(&approval["approval_id"]))[0];
    assert_eq!((&event["action"], &event["decision_id"]), (&json!(kind), &approval["decision_id"]));
    let told: Value = serde_json::from_str(text(&event["event_json"])).expect("JSON");
    assert_eq!(told["receipt_id"], receipt["event_id"]);
}

#[test]
fn what_is_decided_and_used_is_on_record_with_who_did_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = json!({
        "agent": {"id": "a", "environment": "production"}, "user": {"id": "bob"},
        "tool_call": {"tool": "T", "action": "write", "resource": "r", "mutates_state": true, "parameters": {}},
        "context": {"source_trust": "semi_trusted_customer"}, "trace": {"run_id": "run", "trace_id": "trace"},
    });
    let answer = gateway.authorize(&agent.token, &body.to_string());
    let (id, decision) = (text(&answer.body["approval"]["approval_id"]), &answer.body["decision_id"]);
    done(&gateway, id, "edit");
    let approve = change(&gateway, id, "approve");
    assert_eq!((approve.status, approve.body), (200, json!({"status": "success", "approval_id": id})));
    let consume = gateway.request("POST", &path(id, "consume"), Some(&agent.token), None);
    let hash = seen(&gateway, id)["action_hash"].clone();
    assert_eq!(
        (consume.status, consume.body),
        (200, json!({"status": "consumed", "approval_id": id, "action_hash": hash}))
    );
    let found = seen(&gateway, id);
    assert_eq!((&found["status"], &found["consumed"]), (&json!("APPROVED"), &json!(true)));
    assert_eq!((&found["approver_user_id"], &found["reason"]), (&json!("alice"), &json!("why")));

    let newest = receipts(&gateway);
    for (receipt, word, approver) in [
        (&newest[2], "edited", json!("alice")),
        (&newest[1], "approved", json!("alice")),
        (&newest[0], "consumed", Value::Null),
    ] {
        for (member, value) in [
            ("decision", json!(word)),
            ("approver", approver.clone()),
            ("action_hash", hash.clone()),
            ("tool", json!("t")),
            ("action", json!("write")),
            ("resource", json!("other")),
            ("agent_id", json!(agent.id)),
            ("user_id", json!("bob")),
            ("run_id", json!("run")),
            ("trace_id", json!("trace")),
            ("source_trust", json!("semi_trusted_customer")),
            ("decision_id", Value::Null),
            ("decision_hash", Value::Null),
        ] {
            assert_eq!(receipt[member], value, "{word} {member}: {receipt}");
        }
    }
    let by_operator = json!({"name": "operator", "id": null});
    let by_agent = json!({"agent_id": agent.id});
    for (kind, user, by) in [
        ("approval_edited", "alice", &by_operator),
        ("approval_decided", "alice", &by_operator),
        ("approval_consumed", "bob", &by_agent),
    ] {
        let found = events(&gateway, kind, id);
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert_eq!((&found[0]["user_id"], &found[0]["decision_id"]), (&json!(user), decision), "{kind}");
        let told: Value = serde_json::from_str(text(&found[0]["event_json"])).expect("JSON");
        assert_eq!(&told["by"], by, "{kind}");
        assert!(newest.iter().any(|receipt| receipt["event_id"] == told["receipt_id"]), "{kind}: {told}");
    }
}

#[test]
fn of_sixty_four_at_once_one_consumes_and_the_rest_are_on_record() {
    const THREADS: usize = 64;
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = in_state(&gateway, &agent, "APPROVED");
    let (ready, path) = (Barrier::new(THREADS), path(&id, "consume"));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let consume = || {
            ready.wait();
            try_request(agent.address, "POST", &path, Some(&agent.token), Some("")).expect("an answer").status
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(consume)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let of = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((of(200), of(409)), (1, THREADS - 1), "{statuses:?}");
    let found = receipts(&gateway);
    assert_eq!(count(&found, "decision", "consumed"), 1);
    assert_eq!(count(&found, "tool", "consume_not_consumable"), THREADS - 1);
    assert_eq!(events(&gateway, "tamper_attempt", &id).len(), THREADS - 1);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&home.database()), 2 + THREADS as u64);
}

#[test]
fn of_an_approval_and_a_rejection_at_once_one_wins() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for _ in 0..10 {
        let id = id(&gateway, &agent);
        let ready = Barrier::new(2);
        let answers = std::thread::scope(|scope| {
            let threads = ["approve", "reject"].map(|verb| {
                let (gateway, id, ready) = (&gateway, &id, &ready);
                scope.spawn(move || {
                    ready.wait();
                    change(gateway, id, verb)
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        let status = if answers[0].status == 200 { "APPROVED" } else { "REJECTED" };
        let loser = if status == "APPROVED" { &answers[1] } else { &answers[0] };
        assert_eq!(answers[0].status + answers[1].status, 200 + 409, "{answers:?}");
        assert_conflict(loser, status, "approval_already_decided");
        assert_eq!(seen(&gateway, &id)["status"], status);
    }
    let found = receipts(&gateway);
    assert_eq!(count(&found, "decision", "approved") + count(&found, "decision", "rejected"), 10);
}

#[test]
fn an_agent_decides_nothing_and_touches_only_its_own() {
    let home = Home::new();
    let gateway = home.start();
    let (agent, other) = (gateway.agent("a"), gateway.agent("b"));
    let runner = token(&gateway, "runner");
    let read = token(&gateway, "read");
    let id = id(&gateway, &agent);
    for token in [&agent.token, &other.token, &runner, &read] {
        for verb in ["approve", "reject", "edit"] {
            let body = json!({"approver_user_id": "me", "edited_tool_call": edited_call(&json!({}))});
            let answer = gateway.request("POST", &path(&id, verb), Some(token), Some(&body));
            assert_failure(&answer, 403, "Forbidden");
        }
    }
    assert_eq!(seen(&gateway, &id)["status"], "created");
    done(&gateway, &id, "approve");
    let before = receipts(&gateway).len();
    let one = format!("/v1/approvals/{id}");
    assert_failure(&gateway.request("GET", &one, Some(&other.token), None), 404, "NotFound");
    let consume = path(&id, "consume");
    assert_failure(&gateway.request("POST", &consume, Some(&other.token), None), 404, "NotFound");
    assert_failure(&gateway.request("POST", &consume, Some(&read), None), 403, "Forbidden");
    assert_eq!(receipts(&gateway).len(), before, "what is not found leaves no receipt");
    assert_eq!(gateway.request("POST", &consume, Some(&agent.token), None).status, 200);
    let more = in_state(&gateway, &agent, "APPROVED");
    assert_eq!(gateway.request("POST", &path(&more, "consume"), Some(&runner), None).status, 200);
}

#[test]
fn a_wrong_claim_does_not_burn_the_approval() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = in_state(&gateway, &agent, "APPROVED");
    let consume = |claim: &str| {
        gateway.operator("POST", &path(&id, "consume"), Some(&json!({"claimed_action_hash": claim})))
    };
    let answer = consume(&"0".repeat(64));
    assert_conflict(&answer, "APPROVED", "consume_hash_mismatch");
    let found = seen(&gateway, &id);
    assert_eq!(found["consumed"], false);
    assert_tamper(&gateway, &receipts(&gateway)[0], &found, "consume_hash_mismatch");
    let right = text(&found["action_hash"]).to_owned();
    assert_eq!(consume(&right).status, 200);
    assert_conflict(&consume(&right), "APPROVED", "consume_not_consumable");
}

#[test]
fn a_claim_that_cannot_be_read_consumes_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = in_state(&gateway, &agent, "APPROVED");
    let hash = text(&seen(&gateway, &id)["action_hash"]).to_owned();
    let before = receipts(&gateway).len();
    let consume = |body: &str| {
        let path = path(&id, "consume");
        try_request(agent.address, "POST", &path, Some(&agent.token), Some(body)).expect("an answer")
    };
    let upper = format!(r#"{{"claimed_action_hash":"{}"}}"#, hash.to_uppercase());
    let prefixed = format!(r#"{{"claimed_action_hash":"sha256:{hash}"}}"#);
    let misspelt = format!(r#"{{"claimed_hash":"{hash}"}}"#);
    let twice = format!(r#"{{"claimed_action_hash":"{hash}","claimed_action_hash":null}}"#);
    for body in [
        "{",
        "[]",
        "7",
        " ",
        r#"{"claimed_action_hash":5}"#,
        r#"{"claimed_action_hash":""}"#,
        &upper,
        &prefixed,
        &misspelt,
        &twice,
    ] {
        assert_failure(&consume(body), 400, "BadRequest");
    }
    assert_eq!(seen(&gateway, &id)["consumed"], false);
    assert_eq!(receipts(&gateway).len(), before);
    assert_eq!(consume(r#"{"claimed_action_hash":null}"#).status, 200);
}

#[test]
fn an_edit_binds_the_approval_to_the_edited_call() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let asked = asked(&gateway, &agent, &json!({"n": 1}));
    let (id, original) = (text(&asked["approval_id"]), text(&asked["action_hash"]));
    let canonical = |n: u8| {
        format!(
            r#"{{"action":"write","mutates_state":true,"parameters":{{"n":{n}}},"resource":"other","tool":"t"}}"#
        )
    };
    for n in [2, 3] {
        let body = json!({"approver_user_id": "alice", "edited_tool_call": edited_call(&json!({"n": n})),
                          "reason": "smaller"});
        let answer = gateway.operator("POST", &path(id, "edit"), Some(&body));
        let effective = sha256(canonical(n).as_bytes());
        let expected = json!({"status": "success", "approval_id": id, "effective_action_hash": effective,
                              "original_action_hash": original});
        assert_eq!((answer.status, answer.body), (200, expected));
        let found = seen(&gateway, id);
        assert_eq!((&found["status"], &found["is_edited"]), (&json!("created"), &json!(true)));
        for member in ["action_hash", "effective_action_hash", "edited_action_hash"] {
            assert_eq!(found[member], json!(effective), "{member}");
        }
        assert_eq!(found["original_action_hash"], original);
        assert_eq!(found["tool_call"], edited_call(&json!({"n": n})));
        assert_eq!(gateway.get("/v1/approvals"), json!([found]), "it still waits");
    }
    done(&gateway, id, "approve");
    let claim = json!({"claimed_action_hash": original});
    let answer = gateway.operator("POST", &path(id, "consume"), Some(&claim));
    assert_conflict(&answer, "APPROVED", "consume_hash_mismatch");
    let effective = sha256(canonical(3).as_bytes());
    let answer = gateway.request("POST", &path(id, "consume"), Some(&agent.token), None);
    assert_eq!((answer.status, &answer.body["action_hash"]), (200, &json!(effective)));
}

#[test]
fn who_says_which_call_they_have_seen_decides_about_no_other() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let asked = asked(&gateway, &agent, &json!({"n": 1}));
    let (id, seen_hash) = (text(&asked["approval_id"]), text(&asked["action_hash"]).to_owned());
    // Another operator edits it in the meantime.
    done(&gateway, id, "edit");
    let receipts_before = receipts(&gateway).len();
    let decide = |verb: &str, claim: &Value| {
        let mut body = json!({"approver_user_id": "alice", "claimed_action_hash": claim});
        body["edited_tool_call"] = edited_call(&json!({"n": 9}));
        gateway.operator("POST", &path(id, verb), Some(&body))
    };
    for verb in ["approve", "reject", "edit"] {
        let answer = decide(verb, &json!(seen_hash));
        assert_failure(&answer, 409, "Conflict");
        assert_eq!(answer.body["details"]["reason"], "approval_hash_mismatch");
        for claim in [json!("x"), json!(5), json!(seen_hash.to_uppercase())] {
            assert_failure(&decide(verb, &claim), 400, "BadRequest");
        }
    }
    assert_eq!(seen(&gateway, id)["status"], "created");
    assert_eq!(receipts(&gateway).len(), receipts_before, "a race is no tampering");
    let now = seen(&gateway, id)["action_hash"].clone();
    assert_eq!(decide("approve", &now).status, 200);
}

#[test]
fn an_edit_to_what_is_not_registered_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = id(&gateway, &agent);
    let before = seen(&gateway, &id);
    let edit = |call: &Value| {
        let body = json!({"approver_user_id": "alice", "edited_tool_call": call});
        gateway.operator("POST", &path(&id, "edit"), Some(&body))
    };
    for (member, value) in [("tool", "unknown"), ("action", "unknown")] {
        let mut call = edited_call(&json!({}));
        call[member] = json!(value);
        assert_failure(&edit(&call), 422, "Invalid");
    }
    for member in ["tool", "action", "mutates_state", "parameters"] {
        let mut call = edited_call(&json!({}));
        call.as_object_mut().expect("an object").remove(member);
        assert_failure(&edit(&call), 400, "BadRequest");
    }
    assert_failure(&edit(&Value::Null), 400, "BadRequest");
    assert_eq!(seen(&gateway, &id), before);
    assert_eq!(receipts(&gateway).len(), 1);
}

#[test]
fn whoever_decides_is_named() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = id(&gateway, &agent);
    let long = "x".repeat(5000);
    for verb in ["approve", "reject", "edit"] {
        for (name, reason) in [
            (Value::Null, Value::Null),
            (json!(""), Value::Null),
            (json!("  "), Value::Null),
            (json!(7), Value::Null),
            (json!("a\nb"), Value::Null),
            (json!("alice"), json!(7)),
            (json!("alice"), json!(long)),
        ] {
            let body = json!({"approver_user_id": name, "reason": reason, "edited_tool_call": edited_call(&json!({}))});
            assert_failure(&gateway.operator("POST", &path(&id, verb), Some(&body)), 400, "BadRequest");
        }
        let body = json!({"edited_tool_call": edited_call(&json!({}))});
        assert_failure(&gateway.operator("POST", &path(&id, verb), Some(&body)), 400, "BadRequest");
    }
    assert_eq!(seen(&gateway, &id)["status"], "created");
    assert_eq!(seen(&gateway, &id)["is_edited"], false);
}

#[test]
fn what_was_consumed_stays_consumed_after_a_kill() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let used = in_state(&gateway, &agent, "consumed");
    let given = in_state(&gateway, &agent, "APPROVED");
    gateway.kill();
    let gateway = home.start();
    assert_conflict(&change(&gateway, &used, "consume"), "APPROVED", "consume_not_consumable");
    assert_eq!(seen(&gateway, &used)["consumed"], true);
    done(&gateway, &given, "consume");
    assert_eq!(gateway.stop(), 0);
    verified(&home.database());
}

#[test]
fn the_approval_of_an_agent_that_may_not_act_is_not_consumed() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = in_state(&gateway, &agent, "APPROVED");
    assert_eq!(gateway.stop(), 0);
    let one = format!("/v1/approvals/{id}");
    for (status, own) in [("frozen", 409), ("revoked", 409), ("quarantined", 401), ("deleted", 401)] {
        home.sql(&format!("UPDATE agents SET status = '{status}'"));
        let gateway = home.start();
        assert_conflict(&change(&gateway, &id, "consume"), "APPROVED", "consume_not_consumable");
        let answer = gateway.request("POST", &path(&id, "consume"), Some(&agent.token), None);
        assert_eq!(answer.status, own, "{status}: {answer:?}");
        let looked = gateway.request("GET", &one, Some(&agent.token), None).status;
        assert_eq!(looked, if own == 401 { 401 } else { 200 }, "{status}");
        assert_eq!(seen(&gateway, &id)["consumed"], false, "{status}");
        assert_eq!(gateway.stop(), 0);
    }
    home.sql("UPDATE agents SET status = 'active'");
    let gateway = home.start();
    done(&gateway, &id, "consume");
}

#[test]
fn parameters_are_in_the_frozen_call_and_nowhere_else() {
    let home = Home::new().with("RUST_LOG", "trace");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let (first, second) = ("MARK-OF-THE-ASKED", "MARK-OF-THE-EDITED");
    let id = text(&asked(&gateway, &agent, &json!({"secret": first}))["approval_id"]).to_owned();
    let edit =
        json!({"approver_user_id": "alice", "edited_tool_call": edited_call(&json!({"secret": second}))});
    assert_eq!(gateway.operator("POST", &path(&id, "edit"), Some(&edit)).status, 200);
    done(&gateway, &id, "approve");
    let wrong = json!({"claimed_action_hash": "0".repeat(64)});
    assert_eq!(gateway.operator("POST", &path(&id, "consume"), Some(&wrong)).status, 409);
    done(&gateway, &id, "consume");
    let log = gateway.log();
    assert_eq!(gateway.stop(), 0);
    assert!(!log.contains("MARK-OF"), "{log}");
    let all = dump(&home.database());
    assert_eq!((all.matches(first).count(), all.matches(second).count()), (0, 1));
    let file = fs::read(home.database()).expect("the database");
    assert!(!contains(&file, first), "the call that was replaced is gone from the file");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The clock was briefly far ahead, and the call of a live approval was removed.
#[test]
fn an_approval_whose_call_is_gone_is_a_conflict_and_not_a_failure_to_try_again() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let (waiting, approved) = (id(&gateway, &agent), in_state(&gateway, &agent, "APPROVED"));
    assert_eq!(gateway.stop(), 0);
    home.sql("UPDATE approvals SET tool_call = NULL");
    let gateway = home.start();
    for (id, verb, reason) in
        [(&waiting, "approve", "approval_expired"), (&approved, "consume", "consume_not_consumable")]
    {
        let answer = change(&gateway, id, verb);
        assert_failure(&answer, 409, "Conflict");
        assert_eq!(answer.body["details"]["reason"], reason, "{answer:?}");
    }
}

#[test]
fn a_call_that_nobody_needs_any_more_leaves_the_file() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let marks = ["MARK-APPROVED", "MARK-REJECTED", "MARK-CONSUMED", "MARK-MISSED", "MARK-LONG-MISSED"];
    let states: [&[&str]; 5] = [&["approve"], &["reject"], &["edit", "approve", "consume"], &[], &[]];
    let mut ids = Vec::new();
    for (mark, verbs) in marks.iter().zip(states) {
        // Also large enough to need overflow pages.
        let parameters = json!({"secret": mark, "more": format!("{mark}{}", "x".repeat(20_000)), "z": mark});
        let id = text(&asked(&gateway, &agent, &parameters)["approval_id"]).to_owned();
        verbs.iter().for_each(|verb| done(&gateway, &id, verb));
        ids.push(id);
    }
    let kept = in_state(&gateway, &agent, "APPROVED");
    assert_eq!(gateway.stop(), 0);
    let file = fs::read(home.database()).expect("the database");
    assert!(contains(&file, "MARK-APPROVED") && contains(&file, "MARK-LONG-MISSED"), "they were there");
    home.sql(
        "UPDATE approvals SET expires_at = strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-1 hour') \
         WHERE consumed_at IS NOT NULL OR tool_call LIKE '%MARK-%'",
    );
    home.sql(&format!("UPDATE approvals SET expires_at = '{LONG_AGO}' WHERE id = '{}'", ids[4]));

    let gateway = home.start();
    let is_blank = |id: &String| seen(&gateway, id)["tool_call"].is_null();
    let (missed, gone) = (&ids[3], [&ids[0], &ids[1], &ids[2], &ids[4]]);
    wait_until("the calls are gone", || gone.iter().all(|id| is_blank(id)));
    assert!(!is_blank(missed), "who comes too late can see for a day what was asked");
    assert!(!is_blank(&kept), "what can still be used is shown");
    assert_eq!(seen(&gateway, &ids[0])["status"], "APPROVED");
    assert_eq!(seen(&gateway, missed)["status"], "EXPIRED");
    assert_conflict(&change(&gateway, &ids[0], "approve"), "APPROVED", "approval_already_decided");
    assert_conflict(&change(&gateway, &ids[4], "approve"), "EXPIRED", "approval_expired");
    assert_eq!(gateway.stop(), 0);
    let file = fs::read(home.database()).expect("the database");
    for mark in marks {
        assert_eq!(contains(&file, mark), mark == "MARK-MISSED", "{mark}");
    }
    verified(&home.database());
}

/// A growing row makes others move between pages.
#[test]
fn no_copy_of_a_call_stays_behind_where_its_row_once_stood() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let of = |number: usize| json!({"secret": format!("MARK-{}", "y".repeat(number * 37 % 1500))});
    let ids: Vec<String> =
        (0..60).map(|number| text(&asked(&gateway, &agent, &of(number))["approval_id"]).to_owned()).collect();
    for (number, id) in ids.iter().enumerate() {
        let edit = json!({"approver_user_id": "alice", "edited_tool_call": edited_call(&of(number + 29))});
        assert_eq!(gateway.operator("POST", &path(id, "edit"), Some(&edit)).status, 200);
        done(&gateway, id, if number % 2 == 0 { "approve" } else { "reject" });
    }
    assert_eq!(gateway.stop(), 0);
    assert!(contains(&fs::read(home.database()).expect("the database"), "MARK-y"), "they were there");
    home.sql(&format!("UPDATE approvals SET expires_at = '{LONG_AGO}'"));
    let gateway = home.start();
    wait_until("the calls are gone", || ids.iter().all(|id| seen(&gateway, id)["tool_call"].is_null()));
    assert_eq!(gateway.stop(), 0);
    assert!(!contains(&fs::read(home.database()).expect("the database"), "MARK-"), "a copy stayed");
}

#[test]
fn a_repeated_request_shows_where_its_approval_stands() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let ask = |request_id: &str| {
        let body = json!({"tool": "t", "action": "write", "mutates_state": true, "parameters": {},
                          "source_trust": "semi_trusted_customer", "request_id": request_id});
        gateway.authorize(&agent.token, &body.to_string()).body["approval"].clone()
    };
    for (verb, status) in [("approve", "APPROVED"), ("reject", "REJECTED"), ("edit", "created")] {
        let first = ask(verb);
        assert_eq!(first["status"], "created");
        done(&gateway, text(&first["approval_id"]), verb);
        let now = seen(&gateway, text(&first["approval_id"]));
        let again = ask(verb);
        assert_eq!(again["approval_id"], first["approval_id"]);
        assert_eq!((&again["status"], &again["action_hash"]), (&json!(status), &now["action_hash"]));
    }
    let missed = ask("missed");
    assert_eq!(gateway.stop(), 0);
    home.sql(&format!("UPDATE approvals SET expires_at = '{LONG_AGO}'"));
    let gateway = home.start();
    let body = json!({"tool": "t", "action": "write", "mutates_state": true, "parameters": {},
                      "source_trust": "semi_trusted_customer", "request_id": "missed"});
    let again = gateway.authorize(&agent.token, &body.to_string()).body["approval"].clone();
    assert_eq!((&again["approval_id"], &again["status"]), (&missed["approval_id"], &json!("EXPIRED")));
}

#[test]
fn an_approval_ends_when_the_setting_says() {
    let home = Home::new().with("AEGIS_APPROVAL_TTL_SECS", "1");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = in_state(&gateway, &agent, "APPROVED");
    let waiting = self::id(&gateway, &agent);
    wait_until("it has ended", || seen(&gateway, &waiting)["status"] == "EXPIRED");
    assert_conflict(&change(&gateway, &waiting, "approve"), "EXPIRED", "approval_expired");
    assert_conflict(&change(&gateway, &id, "consume"), "APPROVED", "consume_not_consumable");
    assert_eq!(gateway.get("/v1/approvals"), json!([]));
}

/// Creates a chain whose last receipt is from the year 2100: the clock was wrong for a while.
fn after_an_excursion_of_the_clock(home: &Home) {
    let clock = Hand::default();
    clock.set(4_102_444_800);
    let started = startup::start(&Options::new(&home.database(), &home.path("backups")), &clock)
        .expect("a new database");
    let entry = Entry {
        nonce: "0123456789abcdef",
        agent_id: None,
        user_id: None,
        run_id: None,
        trace_id: None,
        tool: "consume_not_consumable",
        action: "tamper_attempt",
        resource: None,
        source_trust: "malicious_suspected",
        decision: "tamper_attempt",
        approver: None,
        action_hash: None,
        decision_id: None,
        decision_hash: None,
        policy_version: None,
    };
    let appended = started.store.write(move |tx| receipts::append(tx, &entry, clock.now()));
    assert_eq!(appended.expect("appended").seq, 1);
    started.store.close().expect("closed");
    started.guard.release().expect("released");
}

#[test]
fn approvals_end_by_the_clock_also_where_the_chain_s_time_is_ahead_of_it() {
    let home = Home::new().with("AEGIS_APPROVAL_TTL_SECS", "3");
    fs::create_dir(home.path("db")).expect("a folder");
    after_an_excursion_of_the_clock(&home);
    let gateway = home.start();
    gateway.logs("the last receipt is of 2100-01-01");
    let agent = gateway.agent("a");
    let (used, late) = (id(&gateway, &agent), id(&gateway, &agent));
    done(&gateway, &used, "approve");
    done(&gateway, &used, "consume");
    assert_eq!(gateway.get("/v1/decisions")[0]["created_at"], "2100-01-01T00:00:00.000000Z");
    wait_until("it ends", || seen(&gateway, &late)["status"] == "EXPIRED");
    assert_conflict(&change(&gateway, &late, "approve"), "EXPIRED", "approval_expired");
    assert_eq!(gateway.get("/v1/approvals"), json!([]));
    assert_eq!(gateway.stop(), 0);
    verified(&home.database());
}

fn after_a_change_of_the_file(home: &Home, change_of_file: &str) -> (Gateway, String, String) {
    let gateway = home.start();
    let agent = gateway.agent("a");
    let (waiting, given) = (id(&gateway, &agent), in_state(&gateway, &agent, "APPROVED"));
    assert_eq!(gateway.stop(), 0);
    home.sql(&format!("UPDATE approvals SET {change_of_file}"));
    (home.start(), waiting, given)
}

const EVIL: &str =
    r#"{"action":"write","mutates_state":true,"parameters":{"evil":1},"resource":"r","tool":"t"}"#;

#[test]
fn a_frozen_call_that_was_changed_in_the_file_is_neither_shown_nor_approved_nor_used() {
    let home = Home::new();
    let (gateway, waiting, given) = after_a_change_of_the_file(&home, &format!("tool_call = '{EVIL}'"));
    let before = receipts(&gateway);
    for path in [&format!("/v1/approvals/{waiting}"), "/v1/approvals"] {
        assert_failure(&gateway.operator("GET", path, None), 503, "ServiceUnavailable");
    }
    for (id, verb) in [(&waiting, "approve"), (&waiting, "reject"), (&given, "consume")] {
        assert_failure(&change(&gateway, id, verb), 503, "ServiceUnavailable");
    }
    assert_eq!(receipts(&gateway), before);
}

#[test]
fn an_approval_that_is_not_what_its_decision_asked_for_is_not_changed() {
    let home = Home::new();
    let hash = sha256(EVIL.as_bytes());
    let bound = format!("tool_call = '{EVIL}', action_hash = '{hash}', original_action_hash = '{hash}'");
    let (gateway, waiting, given) = after_a_change_of_the_file(&home, &bound);
    let before = receipts(&gateway);
    for (id, verb) in [(&waiting, "approve"), (&waiting, "reject"), (&waiting, "edit"), (&given, "consume")] {
        assert_failure(&change(&gateway, id, verb), 503, "ServiceUnavailable");
    }
    assert_eq!(receipts(&gateway), before);
}
