//! Request signatures: an agent with a signing key must sign the exact bytes it sends, and the
//! key cannot be read anywhere.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::action::ToolCall;
use aegis_gateway::domain::agent::{Change, Profile, Registration, RiskTier};
use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::json::Json;
use aegis_gateway::domain::policy::Outcome;
use aegis_gateway::domain::signature::SigningKey;
use aegis_gateway::service::operators::Actor;
use aegis_gateway::service::{self, admission, agents, authorize, lifecycle};
use aegis_gateway::startup::{self, Options};

use crate::support::{Agent, Answer, Gateway, Home, assert_failure, raw_request};

const KEY: &str = "correct-horse-battery-staple";
const BODY: &str = r#"{"tool": "t",  "action":"read","resource":"r","mutates_state":false,"parameters":{"a":1.50},"source_trust":"trusted_internal_signed"}"#;

/// `sha256=<HMAC>`, computed as specified.
fn signature(key: &str, body: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key.as_bytes());
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(body).finalize();
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Sends a request with these signature headers.
fn ask(agent: &Agent, body: &str, headers: &[String]) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "POST /v1/authorize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         {headers}Content-Length: {}\r\n\r\n{body}",
        agent.token,
        body.len()
    );
    raw_request(agent.address, request.as_bytes()).expect("an answer")
}

fn signed(agent: &Agent, key: &str, body: &str) -> Answer {
    ask(agent, body, &[format!("X-Aegis-Request-Signature: {}", signature(key, body.as_bytes()))])
}

fn refused(answer: &Answer, reason: &str) {
    assert_failure(answer, 401, "Unauthorized");
    assert_eq!(answer.body["details"]["reason"], reason, "{answer:?}");
}

fn agent_with_key(gateway: &Gateway, name: &str) -> Agent {
    gateway.agent("who-registers-the-tool");
    gateway.register(name, &json!({"signing_key": KEY}))
}

#[test]
fn only_the_signature_of_the_bytes_that_were_sent_is_taken() {
    let home = Home::new();
    let gateway = home.start();
    let agent = agent_with_key(&gateway, "a");
    let header = |value: &str| vec![format!("X-Aegis-Request-Signature: {value}")];
    let good = signature(KEY, BODY.as_bytes());
    assert_eq!(ask(&agent, BODY, &header(&good)).body["decision"], "allow");
    assert_eq!(ask(&agent, BODY, &[format!("x-aegis-request-SIGNATURE:{good}")]).status, 200);
    let digits = good.strip_prefix("sha256=").expect("the scheme");
    for wrong in [
        digits.to_owned(),
        format!("sha512={digits}"),
        format!("SHA256={digits}"),
        format!("sha256={}", digits.to_uppercase()),
        format!("sha256={}", &digits[1..]),
        format!("{good}0"),
        format!("{good},{good}"),
        "sha256=".to_owned(),
        format!("sha256={}", "0".repeat(64)),
        signature("another-key", BODY.as_bytes()),
        signature(KEY, BODY.replace("  ", " ").as_bytes()),
        signature(KEY, b""),
    ] {
        refused(&ask(&agent, BODY, &header(&wrong)), "invalid_request_signature");
    }
    refused(&ask(&agent, BODY, &[]), "missing_request_signature");
    // Two signatures are ambiguous.
    refused(&ask(&agent, BODY, &[header(&good), header(&good)].concat()), "missing_request_signature");
    assert_eq!(gateway.get("/v1/stats")["total_decisions"], 2, "what is refused is not decided");
}

#[test]
fn the_signature_is_checked_before_anything_is_read() {
    let home = Home::new();
    let gateway = home.start();
    let agent = agent_with_key(&gateway, "a");
    for body in ["", "{", "nonsense", "{\"tool\":5}"] {
        refused(&ask(&agent, body, &[]), "missing_request_signature");
        refused(&signed(&agent, "another-key", body), "invalid_request_signature");
        assert_failure(&signed(&agent, KEY, body), 400, "BadRequest");
    }
    let dry = BODY.replacen('{', "{\"dry_run\":true,", 1);
    refused(&ask(&agent, &dry, &[]), "missing_request_signature");
    assert_eq!(signed(&agent, KEY, &dry).body["dry_run"], true);
    // A correct signature does not make up for a wrong token.
    let stranger = Agent { token: format!("agent_tok_{}", "0".repeat(32)), ..agent };
    let answer = signed(&stranger, KEY, BODY);
    assert_failure(&answer, 401, "Unauthorized");
    assert_eq!(answer.body["details"], Value::Null);
}

#[test]
fn a_body_in_chunks_is_signed_as_what_it_holds() {
    let home = Home::new();
    let gateway = home.start();
    let agent = agent_with_key(&gateway, "a");
    for size in [1, 7, 63, 64, 4096] {
        let chunks: String = BODY
            .as_bytes()
            .chunks(size)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
            .collect();
        let send = |signature: &str| {
            let request = format!(
                "POST /v1/authorize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                 X-Aegis-Request-Signature: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n",
                agent.token
            );
            raw_request(agent.address, request.as_bytes()).expect("an answer")
        };
        assert_eq!(send(&signature(KEY, BODY.as_bytes())).body["decision"], "allow", "{size}");
        refused(&send(&signature(KEY, chunks.as_bytes())), "invalid_request_signature");
    }
}

#[test]
fn an_agent_without_a_key_needs_no_signature_and_none_is_looked_at() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("who-registers-the-tool");
    let agent = gateway.register("plain", &json!({"signing_key": null}));
    assert_eq!(ask(&agent, BODY, &[]).body["decision"], "allow");
    let nonsense = ["X-Aegis-Request-Signature: nonsense".to_owned()];
    assert_eq!(ask(&agent, BODY, &nonsense).body["decision"], "allow");
    // An empty key is rejected: it would come from an unset variable and protect nothing.
    let empty =
        json!({"agent_key": "b", "name": "b", "environment": "e", "risk_tier": "low", "signing_key": ""});
    let answer = gateway.operator("POST", "/v1/agents/register", Some(&empty));
    assert_failure(&answer, 400, "BadRequest");
    let unsigned = agent_with_key(&gateway, "signs");
    refused(&ask(&unsigned, BODY, &[]), "missing_request_signature");
}

#[test]
fn registering_again_neither_changes_nor_drops_the_key() {
    let home = Home::new();
    let gateway = home.start();
    agent_with_key(&gateway, "a");
    for same in [json!({}), json!({"signing_key": null}), json!({"signing_key": KEY})] {
        let agent = gateway.register("a", &same);
        refused(&ask(&agent, BODY, &[]), "missing_request_signature");
        assert_eq!(signed(&agent, KEY, BODY).status, 200, "{same}");
    }
    let plain = gateway.register("plain", &json!({}));
    let agent = gateway.register("a", &json!({}));
    for (name, key) in [("a", "another-key"), ("plain", KEY)] {
        let body = json!({"agent_key": name, "name": name, "environment": "production", "risk_tier": "low",
                          "signing_key": key});
        let answer = gateway.operator("POST", "/v1/agents/register", Some(&body));
        assert_failure(&answer, 409, "Conflict");
        assert_eq!(answer.body["details"]["reason"], "signing_key_differs");
    }
    assert_eq!(signed(&agent, KEY, BODY).status, 200, "and its token lives");
    assert_eq!(ask(&plain, BODY, &[]).status, 200);
}

#[test]
fn a_key_is_set_replaced_and_removed_for_the_very_next_request() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let patch = |key: Value| {
        let answer = gateway.operator("PATCH", "/v1/agents/a", Some(&json!({"signing_key": key})));
        assert_eq!(answer.status, 200, "{answer:?}");
        let event = &gateway.get("/v1/audit/events?event_type=agent_updated")[0];
        let told: Value = serde_json::from_str(event["event_json"].as_str().expect("text")).expect("JSON");
        told["changed"]["signing_key"].clone()
    };
    for _ in 0..5 {
        assert_eq!(ask(&agent, BODY, &[]).status, 200);
        assert_eq!(patch(json!(KEY)), "set");
        refused(&ask(&agent, BODY, &[]), "missing_request_signature");
        assert_eq!(signed(&agent, KEY, BODY).status, 200);
        assert_eq!(patch(json!("another-key")), "set");
        refused(&signed(&agent, KEY, BODY), "invalid_request_signature");
        assert_eq!(signed(&agent, "another-key", BODY).status, 200);
        assert_eq!(patch(Value::Null), "removed");
    }
    assert_eq!(patch(json!(KEY)), "set");
    gateway.kill();
    let gateway = home.start();
    let agent = Agent { address: gateway.address(), ..agent };
    refused(&ask(&agent, BODY, &[]), "missing_request_signature");
    assert_eq!(signed(&agent, KEY, BODY).status, 200, "after a kill");
}

#[test]
fn the_key_is_never_served_never_logged_and_not_kept() {
    let home = Home::new().with("RUST_LOG", "trace");
    let gateway = home.start();
    let agent = agent_with_key(&gateway, "a");
    assert_eq!(signed(&agent, KEY, BODY).status, 200);
    refused(&ask(&agent, BODY, &[]), "missing_request_signature");
    let taken = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
    assert_eq!(taken.status, 200, "{taken:?}");
    for path in ["/v1/agents", "/v1/agents/a", "/v1/audit/events", "/v1/decisions", "/v1/admin/db-stats"] {
        let text = String::from_utf8(gateway.operator("GET", path, None).raw).expect("text");
        assert!(!text.contains(KEY) && !text.contains("hmac"), "{path}: {text}");
    }
    gateway.logs("GET /v1/admin/db-stats 200");
    let log = gateway.log();
    assert!(log.contains("POST /v1/authorize 200") && !log.contains(KEY), "{log}");
    assert_eq!(gateway.stop(), 0);
    for folder in ["db", "backups"] {
        for (path, content) in home.snapshot(folder) {
            let has = content.windows(KEY.len()).any(|window| window == KEY.as_bytes());
            assert!(!has, "{} holds the key", path.display());
        }
    }
}

/// The window between the signature check and the transaction is short but real.
#[test]
fn a_request_that_was_signed_with_a_key_that_was_replaced_since_is_refused() {
    let home = Home::new();
    let clock = Arc::new(SystemClock);
    let started = startup::start(&Options::new(&home.path("a.db"), &home.path("backups")), &*clock)
        .expect("a new database");
    let gateway =
        service::Gateway::new(started.store, clock.clone(), started.backups, Hash::of(b"configured"));
    let registration = Registration {
        agent_key: "a".to_owned(),
        name: "a".to_owned(),
        environment: "production".to_owned(),
        risk_tier: RiskTier::Low,
        profile: Profile::default(),
        force_approval: false,
        allowed_environments: Vec::new(),
        signing_key: Some(SigningKey::new(b"old")),
        at: clock.now(),
    };
    let agent = agents::register(&gateway, Actor::configured(), registration).expect("registered");
    let token = Hash::of(agent.agent_token.as_bytes());
    let signature = format!("sha256={}", SigningKey::new(b"old").sign(b"body"));
    let admit = || admission::admit(&gateway, token, Some(&signature), b"body", Instant::now());
    let authorize = |admitted| {
        let (sender, receiver) = channel();
        authorize::authorize(&gateway, admitted, request(), Instant::now(), move |answer| {
            sender.send(answer.map(|answer| answer.decision.outcome)).expect("somebody waits");
        });
        receiver.recv().expect("an answer")
    };
    let admitted = admit().expect("signed");
    assert_eq!(authorize(admitted).expect("a decision"), Outcome::Deny, "no tool is registered");
    let change = vec![Change::SigningKey(Some(SigningKey::new(b"new")))];
    lifecycle::update(&gateway, Actor::configured(), "a", change).expect("changed");
    let refused = authorize(admitted);
    assert!(matches!(refused, Err(service::Error::Unsigned(_))), "{refused:?}");
    // Without a key, nothing needs to be signed.
    let change = vec![Change::SigningKey(None)];
    lifecycle::update(&gateway, Actor::configured(), "a", change).expect("changed");
    assert_eq!(authorize(admitted).expect("a decision"), Outcome::Deny);
}

fn request() -> authorize::Request {
    authorize::Request {
        call: ToolCall {
            tool: "t".to_owned(),
            action: "a".to_owned(),
            resource: None,
            mutates_state: false,
            parameters: Json::Null,
        },
        agent: None,
        environment: None,
        source_trust: "unknown".to_owned(),
        root_trust: None,
        user_id: None,
        run_id: None,
        trace_id: None,
        parent_run_id: None,
        request_id: None,
        freshness: admission::Freshness::default(),
        dry_run: false,
    }
}
