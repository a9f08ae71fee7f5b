//! Rate limits: failed attempts are throttled, and valid callers are never locked out by others.

use std::time::Instant;

use serde_json::json;

use crate::support::{Answer, Gateway, Home, assert_failure, try_request, wait_until};

const TRUSTED: &str = "trusted_internal_signed";

fn with_token(gateway: &Gateway, token: Option<&str>) -> Answer {
    try_request(gateway.address(), "GET", "/v1/receipts", token, None).expect("an answer")
}

fn assert_limited(answer: &Answer) {
    assert_failure(answer, 429, "TooManyRequests");
    let seconds: u64 = answer.header("Retry-After").and_then(|text| text.parse().ok()).expect("a number");
    assert!((1..=60).contains(&seconds), "{answer:?}");
}

#[test]
fn of_too_many_wrong_credentials_the_later_ones_are_told_to_wait() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "3");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let stale = agent.token.clone();
    let agent = gateway.agent("a");
    let guess = format!("aegis_op_{}", "0".repeat(64));
    let started = Instant::now();
    let wrong = [None, Some("wrong"), Some(guess.as_str()), Some(stale.as_str())];
    let mut refused = 0;
    for token in wrong.into_iter().cycle().take(40) {
        let answer = with_token(&gateway, token);
        if answer.status == 401 {
            refused += 1;
            continue;
        }
        assert_limited(&answer);
        // Meanwhile, a valid token is accepted from the same address.
        assert_eq!(with_token(&gateway, Some(&gateway.token)).status, 200);
        assert_eq!(agent.ask("read", TRUSTED).body["decision"], "allow");
        // And a valid token with too few permissions gets its 403.
        assert_eq!(with_token(&gateway, Some(&agent.token)).status, 403);
    }
    let refilled = started.elapsed().as_secs() / 20 + 1;
    assert!((3..=3 + refilled).contains(&refused), "{refused} of 40 got 401");
    // A client cannot forge its address.
    let request = format!(
        "GET /v1/receipts HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Peer: 10.0.0.1:5\r\n\
         X-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer {guess}\r\n\r\n"
    );
    let answers: Vec<u16> = (0..10)
        .map(|_| {
            crate::support::raw_request(gateway.address(), request.as_bytes()).expect("an answer").status
        })
        .collect();
    assert!(answers.contains(&429), "{answers:?}");
}

#[test]
fn without_a_limit_every_wrong_credential_is_refused_alike() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "0");
    let gateway = home.start();
    assert!((0..200).all(|_| with_token(&gateway, Some("wrong")).status == 401));
}

#[test]
fn an_agent_that_asks_too_often_is_told_to_wait_and_nothing_is_recorded() {
    let home = Home::new().with("AEGIS_AUTHORIZE_PER_SECOND", "1");
    let gateway = home.start();
    let (busy, other) = (gateway.agent("busy"), gateway.agent("other"));
    let busy = crate::support::Agent { token: gateway.agent("busy").token, ..busy };
    let started = Instant::now();
    let mut decided = 0;
    let limited = loop {
        let answer = busy.ask("read", TRUSTED);
        if answer.status != 200 {
            break answer;
        }
        decided += 1;
        assert!(decided <= 6 + started.elapsed().as_secs(), "no limit after {decided}");
    };
    assert_limited(&limited);
    assert!(decided >= 5, "a burst of five seconds' worth: {decided}");
    assert_eq!(gateway.get("/v1/stats")["total_decisions"], decided);
    // Another agent and the operator are not affected.
    assert_eq!(other.ask("read", TRUSTED).status, 200);
    assert!((0..20).all(|_| gateway.operator("GET", "/v1/stats", None).status == 200));
    wait_until("it may ask again", || busy.ask("read", TRUSTED).status == 200);
}

/// Each rejected attempt adds a receipt.
#[test]
fn an_agent_that_tries_too_often_to_use_an_approval_is_told_to_wait() {
    let home = Home::new().with("AEGIS_AUTHORIZE_PER_SECOND", "1");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let asked = agent.ask("write", "semi_trusted_customer");
    let path =
        format!("/v1/approvals/{}/consume", asked.body["approval"]["approval_id"].as_str().expect("an id"));
    let started = Instant::now();
    let mut tried = 0;
    let limited = loop {
        let answer = gateway.request("POST", &path, Some(&agent.token), None);
        if answer.status != 409 {
            break answer;
        }
        tried += 1;
        assert!(tried <= 6 + started.elapsed().as_secs(), "no limit after {tried}");
    };
    assert_limited(&limited);
    assert_eq!(gateway.get("/v1/stats")["total_receipts"], tried + 1);
}

#[test]
fn who_has_the_token_without_the_key_cannot_use_up_an_agent_s_rate() {
    let home = Home::new().with("AEGIS_AUTHORIZE_PER_SECOND", "1");
    let gateway = home.start();
    let agent = gateway.register("a", &json!({"signing_key": "k"}));
    for _ in 0..20 {
        assert_failure(&agent.ask("read", TRUSTED), 401, "Unauthorized");
    }
}

#[test]
fn by_default_an_agent_may_ask_as_often_as_it_likes() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert!((0..300).all(|_| agent.ask("read", TRUSTED).status == 200));
}
