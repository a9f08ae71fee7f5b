//! What gateways of this kind were found to let through, each as a promise that this one
//! does not. Holes that another test closes by its own name are not repeated here.

use serde_json::{Value, json};

use crate::authorize::{TRUSTED, ask, assert_conflict, decision, flat, time, with};
use crate::support::{Agent, Home, assert_failure, sha256};

#[test]
fn a_tenant_s_name_is_no_credential_and_nothing_is_open_on_loopback() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("a");
    for (method, path) in [
        ("GET", "/v1/agents"),
        ("GET", "/v1/decisions"),
        ("POST", "/v1/agents/register"),
        ("POST", "/v1/tools"),
        ("POST", "/v1/authorize"),
        ("POST", "/v1/admin/backup"),
    ] {
        for token in [None, Some("tenant_123"), Some("tenant_default"), Some("tenant_")] {
            let answer = gateway.request(method, path, token, Some(&json!({"filename": "open.db"})));
            assert_failure(&answer, 401, "Unauthorized");
        }
    }
    // Nobody makes a tenant: there are none.
    let tenant = json!({"name": "x"});
    assert!(matches!(gateway.request("POST", "/v1/tenants", None, Some(&tenant)).status, 401 | 404));
    assert_failure(&gateway.operator("POST", "/v1/tenants", Some(&tenant)), 404, "NotFound");
    assert!(!home.path("backups/open.db").exists());
}

#[test]
fn an_approval_is_bound_to_its_own_agent_s_own_call_whatever_name_the_request_has() {
    let home = Home::new();
    let gateway = home.start();
    let (good, evil) = (gateway.agent("good"), gateway.register("evil", &json!({})));
    let call = |parameters: &str| {
        let parameters: Value = serde_json::from_str(parameters).expect("JSON");
        with(flat("write", "semi_trusted_customer"), &json!({"request_id": "same", "parameters": parameters}))
    };
    for (agent, parameters) in [(&good, r#"{"amount":1}"#), (&evil, r#"{"amount":1000000}"#)] {
        let answer = ask(agent, &call(parameters));
        assert_eq!(decision(&answer), "require_approval");
        let canonical = format!(
            r#"{{"action":"write","mutates_state":true,"parameters":{parameters},"resource":"r","tool":"t"}}"#
        );
        let hash = json!(sha256(canonical.as_bytes()));
        assert_eq!((&answer.body["action_hash"], &answer.body["approval"]["action_hash"]), (&hash, &hash));
    }
    assert_conflict(&ask(&good, &call(r#"{"amount":1000000}"#)), "request_id_reused");
}

#[test]
fn being_denied_again_and_again_loosens_nothing() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    for tier in ["low", "high"] {
        let agent = gateway.register(tier, &json!({"risk_tier": tier}));
        for trust in ["no such level", "unknown"] {
            // Over five denials are where it happened.
            for _ in 0..12 {
                assert_eq!(decision(&ask(&agent, &flat("write", trust))), "deny", "{tier} {trust}");
            }
        }
    }
}

#[test]
fn a_nonce_outlives_a_restart_and_a_dry_run_does_not_use_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("read", TRUSTED), &json!({"nonce": "n", "timestamp": time(0)}));
    assert_eq!(decision(&ask(&agent, &with(body.clone(), &json!({"dry_run": true})))), "allow");
    assert_eq!(decision(&ask(&agent, &body)), "allow");
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start();
    let agent = Agent { address: gateway.address(), ..agent };
    assert_conflict(&ask(&agent, &body), "replay_nonce_reused");
}
