//! Nonces and timestamps: a request is taken once, and not long after it was made.

use serde_json::{Value, json};

use super::{TRUSTED, ask, assert_conflict, decision, flat, nested, time, with};
use crate::support::{Agent, Answer, Gateway, Home, assert_failure, sha256};

/// One row's number from the database of a stopped gateway.
fn count(home: &Home, condition: &str) -> i64 {
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    let sql = format!("SELECT count(*) FROM request_nonces WHERE {condition}");
    database.query_row(&sql, [], |row| row.get(0)).expect("a count")
}

fn decisions(gateway: &Gateway) -> usize {
    gateway.get("/v1/decisions").as_array().expect("a list").len()
}

#[test]
fn a_timestamp_over_five_minutes_off_is_refused_with_a_nonce_and_without() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (index, (seconds, taken)) in
        [(0, true), (-290, true), (290, true), (-302, false), (310, false), (-86_400, false)]
            .into_iter()
            .enumerate()
    {
        for (form, body) in [flat("read", TRUSTED), nested("a", "read", TRUSTED)].into_iter().enumerate() {
            let stamped = with(body, &json!({"timestamp": time(seconds)}));
            let nonced = with(stamped.clone(), &json!({"nonce": format!("{index} {form}")}));
            for body in [stamped, nonced] {
                let answer = ask(&agent, &body);
                if taken {
                    assert_eq!(decision(&answer), "allow", "{seconds}");
                } else {
                    assert_conflict(&answer, "replay_timestamp_expired");
                }
            }
        }
    }
    // An offset names the same instant.
    let now = time(0);
    let offset = format!("{}+00:00", now.trim_end_matches('Z'));
    assert_eq!(decision(&ask(&agent, &with(flat("read", TRUSTED), &json!({"timestamp": offset})))), "allow");
    assert_eq!(decisions(&gateway), 3 * 4 + 1);
}

#[test]
fn a_nonce_or_a_timestamp_that_is_none_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for more in [
        json!({"timestamp": ""}),
        json!({"timestamp": "yesterday"}),
        json!({"timestamp": "2026-02-30T00:00:00Z"}),
        json!({"timestamp": 1_780_000_000}),
        json!({"nonce": ""}),
        json!({"nonce": "n".repeat(257)}),
        json!({"nonce": 7}),
        json!({"nonce": ["n"]}),
    ] {
        for body in [flat("read", TRUSTED), nested("a", "read", TRUSTED)] {
            assert_failure(&ask(&agent, &with(body, &more)), 400, "BadRequest");
        }
    }
    for more in
        [json!({"nonce": null, "timestamp": null}), json!({"nonce": "é".repeat(256)}), json!({"nonce": "n"})]
    {
        assert_eq!(decision(&ask(&agent, &with(flat("read", TRUSTED), &more))), "allow", "{more}");
    }
}

#[test]
fn an_empty_request_id_is_refused_and_null_is_none() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for body in [flat("read", TRUSTED), nested("a", "read", TRUSTED)] {
        let of = |id: Value| ask(&agent, &with(body.clone(), &json!({"request_id": id})));
        assert_failure(&of(json!("")), 400, "BadRequest");
        assert_ne!(of(Value::Null).body["decision_id"], of(Value::Null).body["decision_id"]);
    }
    assert_eq!(decisions(&gateway), 4);
}

#[test]
fn a_repeated_request_is_the_same_where_the_agent_s_own_environment_changed_since() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("read", TRUSTED), &json!({"request_id": "r"}));
    let first = ask(&agent, &body);
    let moved = gateway.operator("PATCH", "/v1/agents/a", Some(&json!({"environment": "staging"})));
    assert_eq!(moved.status, 200, "{moved:?}");
    assert_eq!(ask(&agent, &body).body["decision_id"], first.body["decision_id"]);
    // One that states where it would run means that.
    let nested = with(nested("a", "read", TRUSTED), &json!({"request_id": "n"}));
    let elsewhere = with(nested.clone(), &json!({"agent": {"id": "a", "environment": "staging"}}));
    assert_eq!(decision(&ask(&agent, &nested)), "allow");
    assert_conflict(&ask(&agent, &elsewhere), "request_id_reused");
}

#[test]
fn a_nonce_counts_once_for_each_agent_whatever_the_call_and_after_a_kill() {
    let home = Home::new();
    let gateway = home.start();
    let (agent, other) = (gateway.agent("a"), gateway.register("b", &json!({})));
    let once = json!({"nonce": "once"});
    assert_eq!(decision(&ask(&agent, &with(flat("read", TRUSTED), &once))), "allow");
    let bodies = [flat("read", TRUSTED), flat("write", TRUSTED), nested("a", "read", TRUSTED)];
    for body in &bodies {
        assert_conflict(&ask(&agent, &with(body.clone(), &once)), "replay_nonce_reused");
    }
    // Another spelling is another nonce, and another agent's are its own.
    assert_eq!(decision(&ask(&agent, &with(flat("read", TRUSTED), &json!({"nonce": "ONCE"})))), "allow");
    assert_eq!(decision(&ask(&other, &with(flat("read", TRUSTED), &once))), "allow");
    gateway.kill();
    let gateway = home.start();
    for (agent, bodies) in [(agent, &bodies[..]), (other, &bodies[..2])] {
        let agent = Agent { address: gateway.address(), ..agent };
        for body in bodies {
            assert_conflict(&ask(&agent, &with(body.clone(), &once)), "replay_nonce_reused");
        }
    }
    assert_eq!(decisions(&gateway), 3);
}

#[test]
fn of_many_requests_with_one_nonce_at_once_one_is_taken() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("read", TRUSTED), &json!({"nonce": "n", "timestamp": time(0)}));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&agent, &body))).collect();
        askers.into_iter().map(|asker| asker.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_conflict(refused, "replay_nonce_reused");
    }
    assert_eq!(decisions(&gateway), 1);
}

#[test]
fn a_request_that_is_refused_does_not_use_its_nonce() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let agent = gateway.register(
        "a",
        &json!({"allowed_environments": ["production"], "signing_key": "correct-horse-battery-staple"}),
    );
    let good = with(flat("read", TRUSTED), &json!({"nonce": "n"}));
    assert_failure(&ask(&agent, &good), 401, "Unauthorized");
    let removed = gateway.operator("PATCH", "/v1/agents/a", Some(&json!({"signing_key": null})));
    assert_eq!(removed.status, 200, "{removed:?}");

    assert_failure(&ask(&agent, &with(good.clone(), &json!({"mutates_state": 1}))), 400, "BadRequest");
    let elsewhere = json!({"nonce": "n", "agent": {"id": "a", "environment": "staging"}});
    assert_failure(&ask(&agent, &with(nested("a", "read", TRUSTED), &elsewhere)), 403, "Forbidden");
    let old = with(good.clone(), &json!({"timestamp": time(-400)}));
    assert_conflict(&ask(&agent, &old), "replay_timestamp_expired");
    let frozen = |operation: &str| {
        let path = format!("/v1/agents/a/{operation}");
        assert_eq!(gateway.operator("POST", &path, None).status, 200);
    };
    frozen("freeze");
    assert_eq!(decision(&ask(&agent, &good)), "deny");
    frozen("unfreeze");

    assert_eq!(decision(&ask(&agent, &good)), "allow");
    assert_conflict(&ask(&agent, &good), "replay_nonce_reused");
}

#[test]
fn a_dry_run_tells_of_a_replay_and_uses_no_nonce() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let real = with(flat("read", TRUSTED), &json!({"nonce": "n", "timestamp": time(0)}));
    let dry = with(real.clone(), &json!({"dry_run": true}));
    for _ in 0..2 {
        assert_eq!(decision(&ask(&agent, &dry)), "allow");
    }
    assert_eq!(decision(&ask(&agent, &real)), "allow");
    assert_conflict(&ask(&agent, &dry), "replay_nonce_reused");
    let old = with(dry, &json!({"nonce": "other", "timestamp": time(-400)}));
    assert_conflict(&ask(&agent, &old), "replay_timestamp_expired");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(count(&home, "1"), 1);
}

#[test]
fn a_repeated_request_with_a_fresh_nonce_gets_its_answer_and_uses_the_nonce() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let request = |nonce: &str| with(flat("read", TRUSTED), &json!({"request_id": "r", "nonce": nonce}));
    let first = ask(&agent, &request("1"));
    assert_conflict(&ask(&agent, &request("1")), "replay_nonce_reused");
    let again = ask(&agent, &request("2"));
    assert_eq!(decision(&again), "allow");
    assert_eq!(again.body["decision_id"], first.body["decision_id"]);
    assert_eq!(again.body.get("receipt"), None);
    assert_conflict(&ask(&agent, &request("2")), "replay_nonce_reused");
    assert_eq!(decisions(&gateway), 1);
}

#[test]
fn nonces_are_kept_for_ten_minutes_and_then_forgotten_a_few_at_a_time() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let nonced = |nonce: Value| with(flat("read", TRUSTED), &json!({"nonce": nonce}));
    for number in 0..11 {
        assert_eq!(decision(&ask(&agent, &nonced(json!(format!("secret {number}"))))), "allow");
    }
    assert_eq!(gateway.stop(), 0);
    let bytes = std::fs::read(home.database()).expect("a database");
    assert!(!bytes.windows(7).any(|seven| seven == b"secret "), "a nonce is kept as its hash alone");
    // All but one as if taken long ago, and that one just within the time.
    let kept = sha256(b"secret 0");
    home.sql(&format!(
        "UPDATE request_nonces SET seen_at = iif(nonce_sha256 = '{kept}', '{}', '{}')",
        time(-600),
        time(-1000),
    ));
    let mut old = 10;
    for round in 0..4 {
        let gateway = home.start();
        assert_conflict(
            &gateway.authorize(&agent.token, &nonced(json!("secret 0")).to_string()),
            "replay_nonce_reused",
        );
        let fresh = gateway.authorize(&agent.token, &nonced(json!(format!("fresh {round}"))).to_string());
        assert_eq!(decision(&fresh), "allow");
        assert_eq!(gateway.stop(), 0);
        let left = count(&home, &format!("seen_at < '{}'", time(-900)));
        assert!(left == 0 || left < old && old - left <= 4, "{old} {left}");
        old = left;
    }
    assert_eq!((old, count(&home, "1")), (0, 1 + 4));
}
