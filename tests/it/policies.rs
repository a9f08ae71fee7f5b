//! Policies: an operator's rules tighten the built-in pack's decisions from the next request
//! on, and every version of them stays provable.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::policy::document as policy_document;
use aegis_gateway::domain::policy::set::Policy;
use aegis_gateway::service::operators::Actor;
use aegis_gateway::service::{self, policies};
use aegis_gateway::startup::{self, Options};
use aegis_gateway::store;
use aegis_gateway::store::guard::Guard;

use crate::support::{
    Agent, Answer, Gateway, Home, assert_failure, decide, dump, sha256, try_request, verified, verify,
    wait_until,
};

const POLICIES: &str = "/v1/policies";
const SIGNED: &str = "trusted_internal_signed";

fn rule(id: &str, effect: &str, when: Value) -> Value {
    json!({"id": id, "effect": effect, "when": when})
}

fn document(rules: &[Value]) -> String {
    json!({ "rules": rules }).to_string()
}

fn post(gateway: &Gateway, key: &str, body: &str) -> Answer {
    let body = json!({"policy_key": key, "name": format!("the policy {key}"), "body": body});
    gateway.operator("POST", POLICIES, Some(&body))
}

fn put(gateway: &Gateway, key: &str, rules: &[Value]) -> Value {
    let answer = post(gateway, key, &document(rules));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body
}

fn disable(gateway: &Gateway, key: &str, body: Option<&Value>) -> Answer {
    gateway.operator("POST", &format!("{POLICIES}/{key}/disable"), body)
}

fn test(gateway: &Gateway, body: &Value) -> Value {
    let answer = gateway.operator("POST", &format!("{POLICIES}/test"), Some(body));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn outcome(answer: &Answer) -> &str {
    answer.body["decision"].as_str().unwrap_or_else(|| panic!("{answer:?}"))
}

/// The policy version named by an answer's receipt.
fn tag(gateway: &Gateway, answer: &Answer) -> String {
    let id = answer.body["receipt"]["receipt_id"].as_str().unwrap_or_else(|| panic!("{answer:?}"));
    gateway.get(&format!("/v1/receipts/{id}"))["policy_version"].as_str().expect("a version").to_owned()
}

fn ask(agent: &Agent, more: &Value) -> Answer {
    let mut body = json!({"tool": "t", "action": "write", "resource": "r", "mutates_state": true,
                          "parameters": {}, "source_trust": SIGNED});
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    try_request(agent.address, "POST", "/v1/authorize", Some(&agent.token), Some(&body.to_string()))
        .expect("an answer")
}

/// The documents behind a tag, read from a copy of the database: (key, version, body).
fn documents_of(database: &Path, tag: &str) -> Vec<(String, i64, String)> {
    let folder = tempfile::TempDir::new().expect("a folder");
    let copy = folder.path().join("copy.db");
    fs::copy(database, &copy).expect("a copy");
    let connection = rusqlite::Connection::open(&copy).expect("it opens");
    let list: String = connection
        .query_row("SELECT list FROM policy_sets WHERE tag = ?1", [tag], |row| row.get(0))
        .expect("the tag is known");
    assert_eq!(tag, format!("builtin-1+{}", &sha256(list.as_bytes())[..12]));
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let document = |member: &Value| {
        let (key, version) = (member["policy_key"].as_str().expect("a key"), member["version"].as_i64());
        let body: String = connection
            .query_row(
                "SELECT body FROM policy_versions WHERE policy_key = ?1 AND version = ?2",
                (key, version),
                |row| row.get(0),
            )
            .expect("the version is there");
        // These documents are written without whitespace and with sorted members.
        assert_eq!(member["sha256"], sha256(body.as_bytes()));
        (key.to_owned(), version.expect("a number"), body)
    };
    list.as_array().expect("an array").iter().map(document).collect()
}

#[test]
fn rules_may_be_sent_as_the_object_that_they_are() {
    let home = Home::new();
    let gateway = home.start();
    let rules = json!({"rules": [rule("a", "deny", json!({"tool": "t", "parameters": {"n": 1}}))]});
    gateway.agent("k");
    let call = json!({"agent": "k", "tool": "t", "action": "write", "resource": "r", "mutates_state": true,
                      "parameters": {"n": 1}, "source_trust": SIGNED});
    let report = test(&gateway, &json!({"body": rules, "calls": [call]}));
    assert_eq!(report["counts"]["changed"], 1, "{report}");
    let body = json!({"policy_key": "k", "name": "n", "body": rules});
    let answer = gateway.operator("POST", POLICIES, Some(&body));
    assert_eq!(answer.status, 201, "{answer:?}");
    // Stored in canonical form, and the same policy as the original text.
    let text = answer.body["body"].as_str().expect("text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), rules);
    assert_eq!(post(&gateway, "other", text).status, 201);
    for wrong in [json!([]), json!({}), json!({"rules": []}), json!(1), Value::Null] {
        let body = json!({"policy_key": "k", "name": "n", "body": wrong});
        assert_failure(&gateway.operator("POST", POLICIES, Some(&body)), 400, "BadRequest");
    }
}

#[test]
fn a_policy_counts_from_the_very_next_request_and_until_it_is_disabled() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for round in 1..=10 {
        assert_eq!(outcome(&agent.ask("read", SIGNED)), "allow", "round {round}");
        put(&gateway, "stop", &[rule("all", "deny", json!({}))]);
        let denied = agent.ask("read", SIGNED);
        assert_eq!(outcome(&denied), "deny", "round {round}");
        assert_eq!(denied.body["matched_policies"], json!(["stop/all"]));
        assert_eq!(denied.body["reason"], "rule stop/all applies");
        let disabled = disable(&gateway, "stop", None);
        assert_eq!((disabled.status, &disabled.body["version"]), (200, &json!(2 * round)), "{disabled:?}");
    }
    let dry = ask(&agent, &json!({"dry_run": true}));
    assert_eq!(outcome(&dry), "allow");
    put(&gateway, "stop", &[rule("all", "deny", json!({}))]);
    assert_eq!(outcome(&ask(&agent, &json!({"dry_run": true}))), "deny");
}

/// A decision made ahead of the transaction with outdated policies is made again on the full call.
#[test]
fn every_decision_is_what_the_policies_that_it_names_say_of_its_parameters() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let rules = [rule("no_ones", "deny", json!({"parameters": {"n": 1}}))];
    let (changing, mixed) = (AtomicBool::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while changing.load(Ordering::Relaxed) {
                    let answer = ask(&agent, &json!({"parameters": {"n": 1}}));
                    let denied = tag(&gateway, &answer) != "builtin-1";
                    assert_eq!(outcome(&answer), if denied { "deny" } else { "allow" }, "{answer:?}");
                    mixed.fetch_add(usize::from(denied), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..40 {
            put(&gateway, "p", &rules);
            assert_eq!(disable(&gateway, "p", None).status, 200);
        }
        changing.store(false, Ordering::Relaxed);
    });
    assert!(mixed.into_inner() > 0, "no request met the rule");
}

#[test]
fn a_policy_is_shown_with_all_its_versions() {
    let home = Home::new();
    let gateway = home.start();
    let first = put(&gateway, "pay", &[rule("r", "deny", json!({"tool": "x"}))]);
    let mut members: Vec<&str> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    let expected = [
        "body",
        "created_at",
        "created_by",
        "id",
        "language",
        "name",
        "policy_key",
        "reason",
        "status",
        "version",
    ];
    assert_eq!(members, expected);
    assert_eq!((&first["version"], &first["status"]), (&json!(1), &json!("active")));
    assert_eq!((&first["language"], &first["created_by"]), (&json!("aegis-rules-1"), &json!("operator")));
    let second = put(&gateway, "pay", &[rule("r", "deny", json!({"tool": "y"}))]);
    put(&gateway, "other", &[rule("r", "deny", json!({"tool": "z"}))]);
    assert_eq!(disable(&gateway, "other", Some(&json!({"reason": "too strict"}))).status, 200);

    let shown = |path: &str| -> Vec<(String, Value, String)> {
        let list = gateway.get(path);
        let one = |policy: &Value| {
            let text = |name: &str| policy[name].as_str().expect(name).to_owned();
            (text("policy_key"), policy["version"].clone(), text("status"))
        };
        list.as_array().expect("an array").iter().map(one).collect()
    };
    let entry = |key: &str, version: Value, status: &str| (key.to_owned(), version, status.to_owned());
    let builtin = entry("builtin", json!("builtin-1"), "active");
    let (other, pay) = (entry("other", json!(2), "disabled"), entry("pay", json!(2), "active"));
    assert_eq!(shown(POLICIES), [builtin.clone(), other.clone(), pay.clone()]);
    assert_eq!(shown("/v1/policies?limit=1"), std::slice::from_ref(&builtin));
    assert_eq!(shown("/v1/policies?limit=1&offset=1"), [other]);
    assert_eq!(shown("/v1/policies?offset=2"), std::slice::from_ref(&pay));
    assert_eq!(shown("/v1/policies/pay/versions"), [pay, entry("pay", json!(1), "superseded")]);
    assert_eq!(shown("/v1/policies/builtin/versions"), [builtin]);
    let versions = gateway.get("/v1/policies/pay/versions");
    assert_eq!((&versions[0]["body"], &versions[1]["body"]), (&second["body"], &first["body"]));
    let other = gateway.get("/v1/policies/other/versions");
    assert_eq!((&other[0]["reason"], &other[1]["reason"]), (&json!("too strict"), &Value::Null));
    assert_failure(&gateway.operator("GET", "/v1/policies/none/versions", None), 404, "NotFound");
    assert_failure(&disable(&gateway, "none", None), 404, "NotFound");
    assert_failure(&disable(&gateway, "builtin", None), 400, "BadRequest");
    let again = disable(&gateway, "other", None);
    assert_eq!((again.status, &again.body["version"]), (200, &json!(2)), "disabled once");
}

#[test]
fn the_built_in_pack_is_shown_as_the_rules_that_decide() {
    let home = Home::new();
    let gateway = home.start();
    let builtin = gateway.get(POLICIES)[0].clone();
    let body: Value = serde_json::from_str(builtin["body"].as_str().expect("text")).expect("JSON");
    let ids: Vec<&str> =
        body["rules"].as_array().expect("rules").iter().map(|r| r["id"].as_str().expect("an id")).collect();
    for (id, action, trust) in [
        ("untrusted_mutation_denied", "write", "unknown"),
        ("customer_mutation_needs_approval", "write", "semi_trusted_customer"),
        ("read_allowed", "read", "unknown"),
    ] {
        assert!(ids.contains(&id), "{ids:?}");
        assert_eq!(gateway.agent("a").ask(action, trust).body["matched_policies"], json!([id]));
    }
    // Putting it in force again, as an operator's policy, changes no outcome.
    let agent = gateway.agent("a");
    assert_eq!(post(&gateway, "copy", &body.to_string()).status, 201);
    assert_eq!(outcome(&agent.ask("write", "unknown")), "deny");
    assert_eq!(outcome(&agent.ask("write", SIGNED)), "allow");
}

#[test]
fn an_allow_never_loosens_over_the_wire() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    put(
        &gateway,
        "open",
        &[rule("all", "allow", json!({})), rule("w", "allow", json!({"mutates_state": true}))],
    );
    for trust in ["untrusted_external", "malicious_suspected", "unknown", "whatever", ""] {
        assert_eq!(outcome(&agent.ask("write", trust)), "deny", "{trust}");
    }
    assert_eq!(outcome(&agent.ask("write", "semi_trusted_customer")), "require_approval");
    assert_eq!(outcome(&ask(&agent, &json!({"tool": "never registered"}))), "deny");
    let allowed = agent.ask("write", SIGNED);
    assert_eq!(allowed.body["matched_policies"], json!(["trusted_mutation_allowed", "open/all", "open/w"]));
}

#[test]
fn what_a_document_gets_wrong_is_said_with_its_place_and_leaves_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let good = document(&[rule("r", "deny", json!({}))]);
    let bad =
        document(&[rule("a", "deny", json!({})), rule("b", "deny", json!({"source_trust": "trusted"}))]);
    for (key, body, says) in [
        ("p", bad.as_str(), "rules[1].when.source_trust: expected one of"),
        ("p", "{", "not JSON"),
        ("builtin", good.as_str(), "policy_key"),
        ("Builtin", good.as_str(), "policy_key"),
        ("", good.as_str(), "policy_key"),
        ("a/b", good.as_str(), "policy_key"),
        ("a,b", good.as_str(), "policy_key"),
    ] {
        let answer = post(&gateway, key, body);
        assert_failure(&answer, 400, "BadRequest");
        let message = answer.body["message"].as_str().expect("text");
        assert!(message.contains(says), "{key} {body}: {message}");
    }
    let no_text = json!({"policy_key": "p", "name": "n", "body": {"rules": []}});
    assert_eq!(gateway.operator("POST", POLICIES, Some(&no_text)).status, 400);
    assert_eq!(gateway.get(POLICIES).as_array().map(Vec::len), Some(1), "the built-in pack alone");
    assert_eq!(gateway.get("/v1/audit/events"), json!([]));
}

#[test]
fn every_change_of_a_policy_is_audited() {
    let home = Home::new();
    let gateway = home.start();
    let made = put(&gateway, "pay", &[rule("r", "deny", json!({}))]);
    assert_eq!(disable(&gateway, "pay", Some(&json!({"reason": "why"}))).status, 200);
    let events = gateway.get("/v1/audit/events?event_type=admin_action");
    let actions: Vec<&str> =
        events.as_array().expect("events").iter().map(|e| e["action"].as_str().expect("text")).collect();
    assert_eq!(actions, ["policy_disabled", "policy_created"]);
    let details = |at: usize| -> Value {
        serde_json::from_str(events[at]["event_json"].as_str().expect("text")).expect("JSON")
    };
    let created = details(1);
    assert_eq!(events[1]["resource"], "policy:pay");
    assert_eq!((&created["by"]["name"], &created["policy"]["version"]), (&json!("operator"), &json!(1)));
    let body = made["body"].as_str().expect("text");
    assert_eq!(created["policy"]["body_sha256"], sha256(body.as_bytes()));
    assert_eq!(created["policy_version"]["before"], "builtin-1");
    let disabled = details(0);
    assert_eq!((&disabled["reason"], &disabled["policy"]["version"]), (&json!("why"), &json!(2)));
    assert_eq!(disabled["policy_version"]["before"], created["policy_version"]["after"]);
    assert_eq!(disabled["policy_version"]["after"], "builtin-1");
}

#[test]
fn each_receipt_names_the_policies_that_decided_and_the_chain_verifies() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let before = agent.ask("read", SIGNED);
    put(&gateway, "b", &[rule("r", "deny", json!({"tool": "other"}))]);
    let first = agent.ask("read", SIGNED);
    put(&gateway, "a", &[rule("r", "require_approval", json!({"tool": "t"}))]);
    let second = agent.ask("read", SIGNED);
    put(&gateway, "b", &[rule("r", "deny", json!({"action": "read"}))]);
    let third = agent.ask("read", SIGNED);
    for key in ["a", "b"] {
        assert_eq!(disable(&gateway, key, None).status, 200);
    }
    let after = agent.ask("read", SIGNED);
    let outcomes = [&before, &first, &second, &third, &after].map(outcome);
    assert_eq!(outcomes, ["allow", "allow", "require_approval", "deny", "allow"]);
    let tags = [&before, &first, &second, &third, &after].map(|answer| tag(&gateway, answer));
    assert_eq!((tags[0].as_str(), tags[4].as_str()), ("builtin-1", "builtin-1"));
    let verdict = gateway.operator("POST", "/v1/receipts/verify-range", None);
    assert_eq!((&verdict.body["verified"], &verdict.body["count"]), (&json!(true), &json!(5)));
    let decision =
        gateway.get(&format!("/v1/decisions/{}", third.body["decision_id"].as_str().expect("an id")));
    assert_eq!(
        (&decision["policy_version"], &decision["matched_policy_ids"]),
        (&json!(tags[3]), &json!("b/r"))
    );
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&home.database()), 5);
    let keys = |tag: &str| -> Vec<(String, i64)> {
        documents_of(&home.database(), tag).into_iter().map(|(key, version, _)| (key, version)).collect()
    };
    assert_eq!(keys(&tags[1]), [("b".to_owned(), 1)]);
    assert_eq!(keys(&tags[2]), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(keys(&tags[3]), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
}

#[test]
fn a_receipt_with_another_version_of_the_policies_is_found() {
    let home = Home::new();
    let gateway = home.start();
    put(&gateway, "p", &[rule("r", "deny", json!({}))]);
    decide_denied(&gateway);
    assert_eq!(gateway.stop(), 0);
    tamper(&home, "receipts_are_never_updated", "UPDATE receipts SET policy_version = 'builtin-1'");
    let output = verify(&["--json", home.database().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"hash_mismatch\""), "{said}");
}

/// Changes rows that a trigger protects, and restores the trigger.
fn tamper(home: &Home, trigger: &str, statement: &str) {
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    let find = "SELECT sql FROM sqlite_schema WHERE name = ?1";
    let again: String = database.query_row(find, [trigger], |row| row.get(0)).expect("a trigger");
    let all = format!("DROP TRIGGER {trigger}; {statement}; {again};");
    database.execute_batch(&all).expect("changed");
}

fn decide_denied(gateway: &Gateway) {
    assert_eq!(outcome(&gateway.agent("a").ask("read", SIGNED)), "deny");
}

#[test]
fn versions_and_what_is_in_force_survive_a_restart_a_kill_and_a_restore() {
    let home = Home::new();
    let gateway = home.start();
    put(&gateway, "p", &[rule("old", "require_approval", json!({}))]);
    put(&gateway, "p", &[rule("new", "deny", json!({"action": "read"}))]);
    put(&gateway, "q", &[rule("gone", "deny", json!({}))]);
    assert_eq!(disable(&gateway, "q", None).status, 200);
    let (policies, versions) = (gateway.get(POLICIES), gateway.get("/v1/policies/p/versions"));
    let denied = gateway.agent("a").ask("read", SIGNED);
    let in_force = tag(&gateway, &denied);
    let backup = gateway.backup(&home, "b.db");
    let check = |gateway: &Gateway| {
        assert_eq!(gateway.get(POLICIES), policies);
        assert_eq!(gateway.get("/v1/policies/p/versions"), versions);
        let denied = gateway.agent("a").ask("read", SIGNED);
        assert_eq!(denied.body["matched_policies"], json!(["p/new"]));
        assert_eq!(tag(gateway, &denied), in_force);
    };
    gateway.kill();
    let gateway = home.start();
    check(&gateway);
    // Changes after the backup are not in it.
    put(&gateway, "p", &[rule("newest", "allow", json!({}))]);
    assert_eq!(outcome(&gateway.agent("a").ask("read", SIGNED)), "allow");
    assert_eq!(gateway.stop(), 0);
    fs::rename(home.database(), home.path("db/damaged.db")).expect("moved");
    fs::copy(backup, home.database()).expect("copied");
    let gateway = home.start();
    check(&gateway);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&home.database()), 3);
}

#[test]
fn versions_and_sets_are_never_changed_or_removed() {
    let home = Home::new();
    let gateway = home.start();
    put(&gateway, "p", &[rule("r", "deny", json!({}))]);
    assert_eq!(gateway.stop(), 0);
    let before = dump(&home.database());
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    for statement in [
        "UPDATE policy_versions SET body = '{}'",
        "UPDATE policy_versions SET disabled = 1",
        "DELETE FROM policy_versions",
        "UPDATE policy_sets SET list = '[]'",
        "DELETE FROM policy_sets",
        "INSERT INTO policy_versions SELECT NULL, 'x', policy_key, version, name, language, disabled, body, \
         reason, created_by, created_at FROM policy_versions",
        "INSERT INTO policy_sets SELECT NULL, tag, '[{}]', created_at FROM policy_sets",
    ] {
        assert!(database.execute(statement, []).is_err(), "{statement}");
    }
    drop(database);
    assert_eq!(dump(&home.database()), before);
}

#[test]
fn rules_that_were_changed_in_the_database_decide_nothing() {
    let home = Home::new();
    let gateway = home.start();
    put(&gateway, "p", &[rule("r", "deny", json!({}))]);
    let agent = gateway.agent("a");
    assert_eq!(gateway.stop(), 0);
    let loosened = document(&[rule("r", "allow", json!({}))]);
    let statement = format!("UPDATE policy_versions SET body = '{loosened}'");
    tamper(&home, "policy_versions_are_never_updated", &statement);
    let gateway = home.start();
    let answer = gateway.authorize(
        &agent.token,
        r#"{"tool":"t","action":"read","mutates_state":false,"parameters":{},"source_trust":"unknown"}"#,
    );
    assert_failure(&answer, 503, "ServiceUnavailable");
    assert_eq!(gateway.get("/v1/decisions"), json!([]));
    gateway.logs("is not the one that was put in force");
}

#[test]
fn rules_see_what_they_name_and_nothing_else() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let other = gateway.register("other", &json!({"environment": "staging", "risk_tier": "medium"}));
    for (when, asked, by_other) in [
        (json!({"agent": "a"}), true, false),
        (json!({"tool": "T"}), true, true),
        (json!({"tool": "t?"}), false, false),
        (json!({"action": "wri*"}), true, true),
        (json!({"resource": ["q", "r"]}), true, true),
        (json!({"resource": "R"}), false, false),
        (json!({"mutates_state": false}), false, false),
        (json!({"source_trust": SIGNED}), true, true),
        (json!({"source_trust": "unknown"}), false, false),
        (json!({"risk_tier": "medium"}), false, true),
        (json!({"environment": "stag*"}), false, true),
        (json!({"parameters": {"amount": 7}}), true, true),
        (json!({"parameters": {"/nested/0": "x"}}), true, true),
        (json!({"parameters": {"amount": 8}}), false, false),
    ] {
        put(&gateway, "p", &[rule("r", "deny", when.clone())]);
        let call = json!({"parameters": {"amount": 7, "nested": ["x"]}});
        for (agent, applies) in [(&agent, asked), (&other, by_other)] {
            let expected = if applies { "deny" } else { "allow" };
            assert_eq!(outcome(&ask(agent, &call)), expected, "{when}");
        }
    }
}

#[test]
fn a_redaction_is_answered_again_by_the_rules_that_decided_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let redact = |fields: Value| json!({"id": "r", "effect": "redact", "when": {}, "redact_fields": fields});
    put(&gateway, "p", &[redact(json!(["iban", "pin"]))]);
    let first = ask(&agent, &json!({"request_id": "one"}));
    assert_eq!((outcome(&first), &first.body["redacted_fields"]), ("redact", &json!(["iban", "pin"])));
    put(&gateway, "p", &[redact(json!(["other"]))]);
    for _ in 0..2 {
        let again = ask(&agent, &json!({"request_id": "one"}));
        assert_eq!(again.body["decision_id"], first.body["decision_id"]);
        assert_eq!(again.body["redacted_fields"], json!(["iban", "pin"]));
    }
    assert_eq!(ask(&agent, &json!({"request_id": "two"})).body["redacted_fields"], json!(["other"]));
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start();
    let agent = Agent { address: gateway.address(), ..agent };
    let again = ask(&agent, &json!({"request_id": "one"}));
    assert_eq!(again.body["redacted_fields"], json!(["iban", "pin"]), "also after a restart");
}

#[test]
fn an_approval_goes_to_the_group_that_the_rule_names() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("cautious", &json!({"risk_tier": "high"}));
    gateway.agent("a");
    let rule = json!({"id": "r", "effect": "require_approval", "when": {"tool": "t"}, "approver_group": "finance",
                      "reason": "money moves"});
    put(&gateway, "p", &[rule]);
    let answer = ask(&agent, &json!({}));
    assert_eq!(answer.body["approval"]["approver_group"], "finance");
    assert_eq!(answer.body["reason"], "money moves");
    assert_eq!(answer.body["matched_policies"], json!(["high_risk_agent_needs_approval", "p/r"]));
}

#[test]
fn trying_a_draft_lists_exactly_what_it_would_change_and_writes_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    put(&gateway, "p", &[rule("old", "deny", json!({"resource": "secret/*"}))]);
    let record = |more: Value| ask(&agent, &more).body["decision_id"].clone();
    let plain = record(json!({}));
    let secret = record(json!({"resource": "secret/1"}));
    let big = record(json!({"resource": "big", "parameters": {"amount": 1000}}));
    let untrusted = record(json!({"resource": "big", "source_trust": "unknown"}));
    let draft = document(&[
        rule("r", "require_approval", json!({"resource": "r"})),
        rule("big", "deny", json!({"resource": "big", "parameters": {"amount": 1000}})),
    ]);
    let before = dump(&home.database());
    let body = json!({"policy_key": "p", "body": draft, "decisions": {"limit": 100}});
    let report = test(&gateway, &body);
    let counts = json!({"examined": 4, "changed": 2, "cannot_tell": 1, "unchanged": 1});
    assert_eq!(report["counts"], counts, "{report}");
    let change = |at: usize| {
        let change = &report["changes"][at];
        (
            change["decision_id"].clone(),
            change["now"].clone(),
            change["then"].clone(),
            change["rules"].clone(),
        )
    };
    // Newest first. Untrusted calls are denied either way, whatever their parameters.
    assert_eq!(change(0), (secret, json!("deny"), json!("allow"), json!(["trusted_mutation_allowed"])));
    assert_eq!(change(1), (plain, json!("allow"), json!("require_approval"), json!(["p/r"])));
    assert_eq!(report["cannot_tell"], json!([{"decision_id": big, "recorded": "allow", "rules": ["p/big"]}]));
    assert!(!report.to_string().contains(untrusted.as_str().expect("an id")));

    let beside = test(&gateway, &json!({"body": draft, "decisions": {"limit": 2}}));
    assert_eq!(beside["counts"], json!({"examined": 2, "changed": 0, "cannot_tell": 1, "unchanged": 1}));
    let later = test(&gateway, &json!({"body": draft, "decisions": {"from": "2999-01-01T00:00:00Z"}}));
    assert_eq!(later["counts"]["examined"], 0);

    let call = |resource: &str, amount: i64| {
        json!({"agent": "a", "tool": "t", "action": "write", "resource": resource, "mutates_state": true,
               "parameters": {"amount": amount}, "source_trust": SIGNED})
    };
    let nested = json!({"agent": {"id": "a", "environment": "production"},
        "tool_call": {"tool": "t", "action": "write", "resource": "r", "mutates_state": true, "parameters": {}},
        "context": {"source_trust": SIGNED}});
    let calls = json!([call("big", 1000), call("big", 1), call("secret/1", 1), nested]);
    let report = test(&gateway, &json!({"policy_key": "p", "body": draft, "calls": calls}));
    let changes = report["changes"].as_array().expect("changes");
    let changed: Vec<(&Value, &Value, &Value)> =
        changes.iter().map(|change| (&change["index"], &change["now"], &change["then"])).collect();
    assert_eq!(
        changed,
        [
            (&json!(0), &json!("allow"), &json!("deny")),
            (&json!(2), &json!("deny"), &json!("allow")),
            (&json!(3), &json!("allow"), &json!("require_approval")),
        ]
    );
    assert_eq!(dump(&home.database()), before);
    assert_eq!(outcome(&agent.ask("write", SIGNED)), "allow", "the draft is not in force");
}

#[test]
fn the_same_rules_as_a_draft_change_nothing_and_are_no_riddle() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let rules = [rule("r", "deny", json!({"parameters": {"amount": 1000}}))];
    put(&gateway, "p", &rules);
    decide(&agent, 3);
    let body = json!({"policy_key": "p", "body": document(&rules), "decisions": {}});
    let counts = json!({"examined": 3, "changed": 0, "cannot_tell": 0, "unchanged": 3});
    assert_eq!(test(&gateway, &body)["counts"], counts);
}

#[test]
fn a_trial_that_does_not_fit_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("a");
    let draft = document(&[rule("r", "deny", json!({}))]);
    let call =
        json!({"agent": "nobody", "tool": "t", "action": "read", "mutates_state": false, "parameters": {}});
    for (more, says) in [
        (json!({}), "either calls or decisions"),
        (json!({"calls": [], "decisions": {}}), "either calls or decisions"),
        (json!({"calls": {}}), "calls must be an array"),
        (json!({"calls": [{"tool": "t"}]}), "calls[0]: "),
        (json!({"calls": [call]}), "calls[0]: there is no agent"),
        (json!({"decisions": {"limit": 0}}), "decisions.limit"),
        (json!({"decisions": {"limit": 10_001}}), "decisions.limit"),
        (json!({"decisions": {"from": "yesterday"}}), "decisions.from"),
        (json!({"decisions": {}, "policy_key": "builtin"}), "policy_key"),
        (json!({"decisions": {}, "body": "{}"}), "rules: "),
    ] {
        let mut body = json!({"body": draft});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = gateway.operator("POST", "/v1/policies/test", Some(&body));
        assert_failure(&answer, 400, "BadRequest");
        let message = answer.body["message"].as_str().expect("text");
        assert!(message.contains(says), "{more}: {message}");
    }
}

#[test]
fn a_stop_ends_a_trial_which_holds_no_view_while_it_decides() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let long = "a".repeat(8192);
    for _ in 0..400 {
        assert_eq!(ask(&agent, &json!({"resource": long})).status, 200);
    }
    // Each glob nearly matches every decision's resource, so that matching takes long.
    let globs: Vec<String> = (0..100).map(|number| format!("*aaaaaaaa?b*{number}*")).collect();
    let slow = |number: usize| {
        rule(&format!("r{number}"), "deny", json!({"resource": globs, "parameters": {"n": number}}))
    };
    let draft = json!({"body": document(&[slow(0), slow(1), slow(2)]), "decisions": {"limit": 400}});
    let answer = std::thread::scope(|scope| {
        let attempt = |body: &Value| gateway.operator("POST", "/v1/policies/test", Some(body));
        let is_busy = |answer: &Answer| answer.body["message"] == "another trial is running";
        let trial = scope.spawn(move || {
            // The probe below is a trial as well and may be running at first.
            std::iter::repeat_with(|| attempt(&draft)).find(|answer| !is_busy(answer)).expect("endless")
        });
        let short = json!({"body": document(&[rule("r", "deny", json!({}))]), "decisions": {"limit": 1}});
        wait_until("the trial runs", || is_busy(&attempt(&short)));
        let database = rusqlite::Connection::open(home.database()).expect("a database");
        wait_until("the log can begin anew beside it", || {
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy: bool = database.query_row(checkpoint, [], |row| row.get(0)).expect("a checkpoint");
            !busy
        });
        assert!(!trial.is_finished(), "it must outlast what is tried beside it");
        gateway.signal("TERM");
        trial.join().expect("an answer")
    });
    assert_failure(&answer, 503, "ServiceUnavailable");
    assert_eq!(answer.body["message"], "the gateway is stopping");
    assert_eq!(gateway.wait(), 0, "stopped cleanly");
    assert!(!home.beside("-wal").exists());
}

#[test]
fn two_thousand_rules_are_accepted_and_more_than_may_be_in_force_are_not() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let rules = |count: usize| -> Vec<Value> {
        let one =
            |number: usize| rule(&format!("r{number}"), "deny", json!({"tool": format!("tool-{number}")}));
        (0..count).map(one).collect()
    };
    put(&gateway, "first", &rules(2000));
    assert_eq!(outcome(&agent.ask("read", SIGNED)), "allow");
    gateway.tool("tool-1999", "read", &json!({}));
    let denied = ask(&agent, &json!({"tool": "Tool-1999", "action": "read"}));
    assert_eq!(denied.body["matched_policies"], json!(["first/r1999"]));
    put(&gateway, "second", &rules(3000));
    let answer = post(&gateway, "third", &document(&rules(1)));
    assert_failure(&answer, 400, "BadRequest");
    assert!(answer.body["message"].as_str().is_some_and(|says| says.contains("5001 rules")), "{answer:?}");
    put(&gateway, "second", &rules(2999));
    put(&gateway, "third", &rules(1));
}

#[test]
fn globs_that_every_call_is_tried_on_are_limited() {
    let home = Home::new();
    let gateway = home.start();
    let globs = |glob: &str, count: usize| -> Vec<Value> {
        let all: Vec<String> = (0..count).map(|number| format!("{glob}{number}")).collect();
        let one = |(number, some): (usize, &[String])| {
            rule(&format!("r{number}"), "deny", json!({"resource": some}))
        };
        all.chunks(100).enumerate().map(one).collect()
    };
    for (glob, max) in [("*x", 5000), ("?x", 1000)] {
        put(&gateway, "p", &globs(glob, max));
        let answer = post(&gateway, "q", &document(&globs(glob, 1)));
        assert_failure(&answer, 400, "BadRequest");
        let told = answer.body["message"].as_str().expect("a message");
        assert!(told.contains(&format!("{} globs", max + 1)), "{told}");
    }
    put(&gateway, "q", &globs("x", 6000));
}

#[test]
fn fields_to_redact_are_limited_so_that_every_answer_stays_small() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    // Characters of four bytes here; quotation marks, which take two bytes in the answer.
    let redacting = |rules: usize, field: &dyn Fn(usize) -> String| -> Vec<Value> {
        let one = |number: usize| {
            let fields: Vec<String> = (0..100).map(|at| field(100 * number + at)).collect();
            json!({"id": format!("r{number}"), "effect": "redact", "when": {}, "redact_fields": fields,
                   "reason": "\u{1f600}".repeat(1024)})
        };
        (0..rules).map(one).collect()
    };
    let longest = |number: usize| format!("{}{number:03}", "\"".repeat(13));
    put(&gateway, "p", &redacting(10, &longest));
    let trust = "\u{1}".repeat(512);
    let call = json!({"mutates_state": false, "action": "read", "source_trust": trust, "request_id": "1"});
    for answer in [ask(&agent, &call), ask(&agent, &call)] {
        assert_eq!(outcome(&answer), "redact");
        assert_eq!(answer.body["redacted_fields"].as_array().map(Vec::len), Some(1000));
        assert!((32 << 10..48 << 10).contains(&answer.raw.len()), "{}", answer.raw.len());
    }
    let one_more = json!({"id": "r", "effect": "redact", "when": {}, "redact_fields": ["f"]});
    let too_long = |number: usize| format!("{}{number:03}", "x".repeat(14));
    for (key, rules, says) in [
        ("q", vec![one_more], "1001 fields to redact"),
        ("p", redacting(10, &too_long), "bytes of redact rules' names and fields"),
    ] {
        let answer = post(&gateway, key, &document(&rules));
        assert_failure(&answer, 400, "BadRequest");
        assert!(answer.body["message"].as_str().is_some_and(|message| message.contains(says)), "{answer:?}");
    }
}

#[test]
fn a_policy_can_be_disabled_although_more_is_left_in_force_than_may_be_added() {
    let home = Home::new();
    let (gateway, guard) = in_process(&home);
    let redact = |key: &str| {
        let fields: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let rule = |number: usize| json!({"id": format!("{key}{number}"), "effect": "redact", "when": {}, "redact_fields": fields});
        document(&(0..11).map(rule).collect::<Vec<_>>())
    };
    // As a program version with other limits may have left it.
    let left = gateway.store.write(move |tx| {
        let mut set = store::policies::known(tx)?.with("none", None);
        for key in ["p", "q"] {
            let body = redact(key);
            let parsed = policy_document::parse(&body).expect("a document");
            set = set.with(key, Some(Policy::new(key, 1, parsed, body.len())));
            store::policies::insert(tx, &version(key, body))?;
        }
        store::policies::append_set(tx, set, SystemClock.now())
    });
    left.expect("written");
    let refused = policies::create(
        &gateway,
        Actor::configured(),
        "r".to_owned(),
        "n".to_owned(),
        document(&[rule("r", "deny", json!({}))]),
    );
    assert!(matches!(refused, Err(service::Error::BadRequest(_))), "{refused:?}");
    policies::disable(&gateway, Actor::configured(), "p", None).expect("disabled");
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}

fn version(key: &str, body: String) -> store::policies::Version {
    store::policies::Version {
        id: key.to_owned(),
        policy_key: key.to_owned(),
        version: 1,
        name: key.to_owned(),
        language: "aegis-rules-1".to_owned(),
        status: store::policies::Status::Active,
        body,
        reason: None,
        created_by: "operator".to_owned(),
        created_at: SystemClock.now().to_string(),
    }
}

/// A gateway without a server.
fn in_process(home: &Home) -> (service::Gateway, Guard) {
    let clock = std::sync::Arc::new(SystemClock);
    let started = startup::start(&Options::new(&home.path("a.db"), &home.path("backups")), &*clock)
        .expect("a new database");
    let gateway = service::Gateway::new(started.store, clock, started.backups, Hash::of(b"configured"));
    (gateway, started.guard)
}

#[test]
fn a_decision_names_fifty_rules_and_how_many_more() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let rules = |effect: &str, count: usize| -> Vec<Value> {
        (0..count).map(|number| rule(&format!("r{number}"), effect, json!({}))).collect()
    };
    put(&gateway, "p", &rules("deny", 50));
    let named = |answer: Answer| answer.body["matched_policies"].as_array().expect("names").clone();
    assert_eq!(named(agent.ask("read", SIGNED)).len(), 50);
    put(&gateway, "p", &rules("deny", 60));
    let names = named(agent.ask("read", SIGNED));
    assert_eq!((names.len(), &names[49], &names[50]), (51, &json!("p/r49"), &json!("+10")));
}

#[test]
fn changes_at_once_make_versions_without_gaps_and_one_set_each() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| put(&gateway, "p", &[rule("r", "deny", json!({"resource": "x"}))]));
            scope.spawn(|| assert_eq!(outcome(&agent.ask("read", SIGNED)), "allow"));
        }
    });
    let versions = gateway.get("/v1/policies/p/versions");
    let numbers: Vec<i64> =
        versions.as_array().expect("versions").iter().filter_map(|one| one["version"].as_i64()).collect();
    assert_eq!(numbers, [8, 7, 6, 5, 4, 3, 2, 1]);
    let last = agent.ask("read", SIGNED);
    let tag = tag(&gateway, &last);
    assert_eq!(gateway.stop(), 0);
    let in_force = documents_of(&home.database(), &tag);
    assert_eq!((in_force.len(), in_force[0].1), (1, 8));
    assert_eq!(verified(&home.database()), 9);
}

#[test]
fn a_reader_whose_view_is_old_does_not_bring_old_policies_back() {
    let home = Home::new();
    let (gateway, guard) = in_process(&home);
    let create = |rules: &[Value]| {
        let (key, name) = ("p".to_owned(), "n".to_owned());
        policies::create(&gateway, Actor::configured(), key, name, document(rules)).expect("created");
    };
    let tag = || -> String {
        let policies = gateway.store.read(|view| gateway.store.policies(view));
        policies.expect("read").tag().to_owned()
    };
    create(&[rule("first", "deny", json!({}))]);
    let first = tag();
    let read: Result<(), store::Error> = gateway.store.read(|view| {
        store::policies::find_last(view, "p")?;
        create(&[rule("second", "deny", json!({}))]);
        assert_eq!(gateway.store.policies(view)?.tag(), first, "what this view shows");
        Ok(())
    });
    read.expect("read");
    let second = tag();
    assert_ne!(second, first);
    let deciding = gateway.store.write(|tx| store::policies::known(tx).map(|set| set.tag().to_owned()));
    assert_eq!(deciding.expect("read"), second);
    gateway.store.close().expect("closed");
    guard.release().expect("released");
}
