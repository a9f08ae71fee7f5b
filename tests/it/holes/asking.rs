//! What an agent may ask, and how it is read: holes 2, 3, 8, 9, 13 and 15.

use std::process::Command;

use serde_json::{Value, json};

use super::{CUSTOMER, hash_of};
use crate::authorize::{TRUSTED, ask, assert_conflict, decision, flat, with};
use crate::support::{Gateway, Home, assert_failure, sha256};

#[test]
fn hole_2_a_request_id_fetches_no_allow_for_another_call() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let named =
        |action: &str, more: &Value| with(with(flat(action, TRUSTED), &json!({"request_id": "r"})), more);
    let allowed = ask(&agent, &named("read", &json!({})));
    assert_eq!(decision(&allowed), "allow");
    for another in [
        named("write", &json!({})),
        named("read", &json!({"parameters": {"all": true}})),
        named("read", &json!({"resource": "another"})),
        named("read", &json!({"tool": "other"})),
        named("read", &json!({"source_trust": "unknown"})),
        named("read", &json!({"mutates_state": true})),
    ] {
        assert_conflict(&ask(&agent, &another), "request_id_reused");
    }
    let again = ask(&agent, &named("read", &json!({})));
    assert_eq!(again.body["decision_id"], allowed.body["decision_id"]);
}

#[test]
fn hole_2_an_approval_is_bound_to_its_own_agent_s_own_call_whatever_name_the_request_has() {
    let home = Home::new();
    let gateway = home.start();
    let (good, evil) = (gateway.agent("good"), gateway.register("evil", &json!({})));
    let call = |parameters: &str| {
        let parameters: Value = serde_json::from_str(parameters).expect("JSON");
        with(flat("write", CUSTOMER), &json!({"request_id": "same", "parameters": parameters}))
    };
    for (agent, parameters) in [(&good, r#"{"amount":1}"#), (&evil, r#"{"amount":1000000}"#)] {
        let answer = ask(agent, &call(parameters));
        assert_eq!(decision(&answer), "require_approval");
        let hash = json!(hash_of(parameters));
        assert_eq!((&answer.body["action_hash"], &answer.body["approval"]["action_hash"]), (&hash, &hash));
        let id = answer.body["approval"]["approval_id"].as_str().expect("an id");
        let seen = gateway.get(&format!("/v1/approvals/{id}"));
        assert_eq!(seen["tool_call"]["parameters"].to_string(), parameters, "and so it is shown");
    }
    assert_conflict(&ask(&good, &call(r#"{"amount":1000000}"#)), "request_id_reused");
}

#[test]
fn hole_3_a_caller_cannot_declare_away_that_a_call_mutates() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (trust, expected) in [("untrusted_external", "deny"), (CUSTOMER, "require_approval")] {
        let body = with(flat("write", trust), &json!({"mutates_state": false}));
        let answer = ask(&agent, &body);
        assert_eq!(decision(&answer), expected, "{trust}");
        // The hash is of what the caller said all the same: its own must be the same.
        let said = r#"{"action":"write","mutates_state":false,"parameters":{},"resource":"r","tool":"t"}"#;
        assert_eq!(answer.body["action_hash"], sha256(said.as_bytes()));
    }
    let read = with(flat("read", "unknown"), &json!({"mutates_state": true}));
    assert_eq!(decision(&ask(&agent, &read)), "deny", "nor what it declares itself");
}

#[test]
fn hole_3_an_unrecognised_trust_is_denied_in_every_tier_and_being_denied_loosens_nothing() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    for tier in ["low", "high", "critical"] {
        let agent = gateway.register(tier, &json!({"risk_tier": tier}));
        for trust in ["no such level", "TRUSTED_INTERNAL_SIGNED", "", "unknown"] {
            // Over five denials are where it happened.
            for _ in 0..7 {
                assert_eq!(decision(&ask(&agent, &flat("write", trust))), "deny", "{tier} {trust}");
            }
        }
        assert_eq!(gateway.get(&format!("/v1/agents/{tier}"))["risk_tier"], tier);
    }
}

#[test]
fn hole_8_a_flat_body_and_an_agent_s_own_token_are_enough_from_asking_to_using() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    // With what the libraries add: a tenant, a type, an empty body where there is none.
    let send = |method: &str, path: &str, body: Option<&str>| {
        let body = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             X-Aegis-Tenant-ID: tenant_123\r\nAuthorization: Bearer {}\r\n{}",
            agent.token,
            if body.is_empty() { "\r\n" } else { &body }
        );
        crate::support::raw_request(gateway.address(), request.as_bytes()).expect("an answer")
    };
    let call = r#"{"tool":"t","action":"write","resource":"r","mutates_state":true,"parameters":{}}"#;
    let unknown = send("POST", "/v1/authorize", Some(call));
    assert_eq!(decision(&unknown), "deny", "no source_trust is the trust `unknown`");
    let asked = send("POST", "/v1/authorize", Some(&flat("write", CUSTOMER).to_string()));
    assert_eq!(asked.body["action_hash"], hash_of("{}"));
    let path = format!("/v1/approvals/{}", asked.body["approval"]["approval_id"].as_str().expect("an id"));
    assert_eq!(send("GET", &path, None).body["status"], "created");
    let given = json!({"approver_user_id": "alice"});
    assert_eq!(gateway.operator("POST", &format!("{path}/approve"), Some(&given)).status, 200);
    assert_eq!(send("GET", &path, None).body["status"], "APPROVED");
    let used = send("POST", &format!("{path}/consume"), Some(""));
    assert_eq!((used.status, &used.body["action_hash"]), (200, &json!(hash_of("{}"))), "{used:?}");
}

/// curl as a person types it: with `-d` it says that it sends a form.
fn curl(gateway: &Gateway, arguments: &str) -> Value {
    let script = format!(
        "curl -sS -X POST -H 'Authorization: Bearer {}' http://{}{arguments}",
        gateway.token,
        gateway.address()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}: {text}"))
}

#[test]
fn hole_9_curl_s_own_content_type_is_as_good_as_any() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert_eq!(decision(&ask(&agent, &flat("read", TRUSTED))), "allow");
    let taken = curl(&gateway, r#"/v1/admin/backup -d '{"filename":"by-hand.db"}'"#);
    assert_eq!(taken["path"], "backups/by-hand.db");
    let rotated = curl(&gateway, r#"/v1/agents/a/rotate-token -d '{"reason":"leaked"}'"#);
    assert!(rotated["agent_token"].is_string(), "{rotated}");
    assert!(curl(&gateway, "/v1/agents/a/rotate-token")["agent_token"].is_string());
    let receipts = gateway.get("/v1/receipts");
    let chain = curl(&gateway, &format!("/v1/receipts/verify-chain -d '{{\"receipts\":{receipts}}}'"));
    assert_eq!((&chain["verified"], &chain["count"]), (&json!(true), &json!(1)));
    for typed in ["text/plain", "application/xml", "nonsense"] {
        let range =
            curl(&gateway, &format!("/v1/receipts/verify-range -H 'Content-Type: {typed}' -d '{{}}'"));
        assert_eq!(range["verified"], true, "{typed}");
    }
}

/// The golden file of the canonical form's hard cases.
fn golden(list: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/canonical_corner_cases.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).expect("the golden file")).expect("JSON");
    golden[list].as_array().expect("cases").clone()
}

/// A call with these parameters, as bytes: some are no text.
fn with_parameters(parameters: &[u8]) -> Vec<u8> {
    let (before, after) =
        (br#"{"tool":"t","action":"write","resource":"r","mutates_state":true,"parameters":"#, b"}");
    [&before[..], parameters, after].concat()
}

fn bytes_of(case: &Value) -> Vec<u8> {
    let hex = case["input_hex"].as_str().expect("hex");
    // A long input is abbreviated in both members; what stands for it is made here.
    if let Some((shown, _)) = case["input"].as_str().and_then(|input| input.split_once("...(")) {
        return shown[..1].repeat(5000).into_bytes();
    }
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn hole_13_a_hash_is_that_of_the_reference_for_every_hard_case() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let authorize = |body: &[u8]| {
        let head = format!(
            "POST /v1/authorize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\n\r\n",
            agent.token,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        crate::support::raw_request(gateway.address(), &request).expect("an answer")
    };
    // What is nested as deeply as a value may be cannot also be a parameter.
    let accepted = golden("canonical").into_iter().filter(|case| case["name"] != "struct_depth_127");
    let mut hashes = Vec::new();
    for case in accepted {
        let answer = authorize(&with_parameters(&bytes_of(&case)));
        let expected = hash_of(case["canonical"].as_str().expect("text"));
        assert_eq!(answer.body["action_hash"], expected, "{}: {answer:?}", case["name"]);
        hashes.push(expected);
    }
    assert!(hashes.len() > 75, "{}", hashes.len());
    // A name that means something to a JSON library means nothing here.
    let magic = authorize(&with_parameters(br#"{"$serde_json::private::RawValue":"{\"x\":1}"}"#));
    assert_eq!(magic.body["action_hash"], hash_of(r#"{"$serde_json::private::RawValue":"{\"x\":1}"}"#));
    assert_ne!(magic.body["action_hash"], hash_of(r#"{"x":1}"#));
    let recorded = gateway.get("/v1/stats")["total_decisions"].clone();
    for case in golden("reject") {
        assert_failure(&authorize(&with_parameters(&bytes_of(&case))), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/stats")["total_decisions"], recorded, "what is refused is not decided");
}

#[test]
fn hole_15_the_words_of_an_answer_are_those_that_clients_know() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    gateway.tool("secrets", "rotate_credential", &json!({}));
    // A mutation of unknown trust is denied; it does not wait for a person.
    assert_eq!(decision(&ask(&agent, &flat("write", "unknown"))), "deny");
    // `redact` is a decision of its own, on record as such.
    let redacted = with(flat("rotate_credential", TRUSTED), &json!({"tool": "secrets"}));
    let answer = ask(&agent, &redacted);
    assert_eq!(decision(&answer), "redact");
    assert_eq!(answer.body["redacted_fields"], json!(["api_key", "password", "secret", "token"]));
    assert_eq!(gateway.get("/v1/decisions?decision=redact").as_array().map(Vec::len), Some(1));
    assert_eq!(gateway.get("/v1/receipts?limit=1")[0]["decision"], "redact");
    // An approval is `created`, and then `APPROVED` or `REJECTED`.
    for (verb, status) in [("approve", "APPROVED"), ("reject", "REJECTED")] {
        let asked = ask(&agent, &flat("write", CUSTOMER)).body["approval"].clone();
        assert_eq!(asked["status"], "created");
        let path = format!("/v1/approvals/{}", asked["approval_id"].as_str().expect("an id"));
        assert_eq!(gateway.get(&path)["status"], "created");
        let body = json!({"approver_user_id": "alice"});
        assert_eq!(gateway.operator("POST", &format!("{path}/{verb}"), Some(&body)).status, 200);
        assert_eq!(gateway.get(&path)["status"], status);
    }
}
