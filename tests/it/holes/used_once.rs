//! What may be used once, and by whom: holes 5, 10 and 14.

use serde_json::{Value, json};

use super::{approved, hash_of, head};
use crate::authorize::{TRUSTED, ask, assert_conflict, decision, flat, time, with};
use crate::support::{Agent, Home, assert_failure, try_request};

#[test]
fn hole_5_a_malformed_consume_body_is_400_and_consumes_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = approved(&gateway, &agent, &json!({}));
    let path = format!("/v1/approvals/{id}/consume");
    let hash = hash_of("{}");
    let (misspelt, cut) = (json!({"claimed_hash": hash}).to_string(), r#"{"claimed_action_hash""#);
    let short = json!({"claimed_action_hash": hash[1..]}).to_string();
    let bodies = ["{", "5", "[]", "null", cut, &misspelt, &short, r#"{"claimed_action_hash":5}"#];
    let before = head(&gateway);
    for token in [&agent.token, &gateway.token] {
        for body in bodies {
            let answer = try_request(gateway.address(), "POST", &path, Some(token), Some(body));
            assert_failure(&answer.expect("an answer"), 400, "BadRequest");
        }
    }
    let seen = gateway.get(&format!("/v1/approvals/{id}"));
    assert_eq!((&seen["status"], &seen["consumed"]), (&json!("APPROVED"), &json!(false)));
    assert_eq!(head(&gateway), before);
    let claim = json!({"claimed_action_hash": hash});
    assert_eq!(gateway.request("POST", &path, Some(&agent.token), Some(&claim)).status, 200);
}

#[test]
fn hole_10_a_nonce_outlives_a_restart_and_a_dry_run_does_not_use_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("read", TRUSTED), &json!({"nonce": "n", "timestamp": time(0)}));
    assert_eq!(decision(&ask(&agent, &with(body.clone(), &json!({"dry_run": true})))), "allow");
    assert_eq!(decision(&ask(&agent, &body)), "allow");
    gateway.kill();
    let gateway = home.start();
    let agent = Agent { address: gateway.address(), ..agent };
    assert_conflict(&ask(&agent, &body), "replay_nonce_reused");
}

#[test]
fn hole_14_a_call_that_was_swapped_after_its_approval_is_refused_and_one_that_was_not_is_used() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let id = approved(&gateway, &agent, &json!({"amount": 10}));
    let consume = |hash: &str| {
        let path = format!("/v1/approvals/{id}/consume");
        gateway.request("POST", &path, Some(&agent.token), Some(&json!({"claimed_action_hash": hash})))
    };
    let (asked, swapped) = (hash_of(r#"{"amount":10}"#), hash_of(r#"{"amount":1000000}"#));
    let approval = gateway.get(&format!("/v1/approvals/{id}"));
    assert_eq!(approval["action_hash"], asked, "bare digits, as every client computes them");

    let refused = consume(&swapped);
    assert_failure(&refused, 409, "Conflict");
    assert_eq!(refused.body["details"]["reason"], "consume_hash_mismatch");
    let receipt = gateway.get("/v1/receipts?limit=1")[0].clone();
    assert_eq!((&receipt["tool"], &receipt["action_hash"]), (&json!("consume_hash_mismatch"), &json!(asked)));
    // Another spelling of the right hash is no swap, nor is it taken for one.
    let before = head(&gateway);
    assert_failure(&consume(&format!("sha256:{asked}")), 400, "BadRequest");
    assert_eq!(head(&gateway), before);

    let used = consume(&asked);
    assert_eq!((used.status, &used.body["action_hash"]), (200, &json!(asked)), "{used:?}");
    let again: Value = consume(&asked).body;
    assert_eq!(again["details"]["reason"], "consume_not_consumable");
}
