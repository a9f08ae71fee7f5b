//! The scores, and the members of a request that decide nothing.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::{TRUSTED, ask, decision, flat, nested, with};
use crate::support::{Home, assert_failure};

const PENALTIES: [(&str, i64); 7] = [
    ("trusted_internal_signed", 0),
    ("trusted_internal_unsigned", 5),
    ("semi_trusted_customer", 15),
    ("untrusted_external", 30),
    ("malicious_suspected", 50),
    ("unknown", 20),
    ("no such level", 20),
];

#[test]
fn the_scores_are_the_contract_s_for_every_risk_trust_and_mutation() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    let risks = [("low", 10), ("medium", 40), ("high", 75), ("critical", 95)];
    for (risk, _) in risks {
        gateway.tool("scored", risk, &json!({"risk": risk}));
    }
    for (action, level, risk) in
        risks.map(|(risk, score)| (risk, risk, score)).into_iter().chain([("none", "low", 10)])
    {
        for (trust, penalty) in PENALTIES {
            for mutates in [false, true] {
                // The root's trust counts like the source's.
                for (source, root) in [(trust, TRUSTED), (TRUSTED, trust)] {
                    let body = json!({"tool": "scored", "action": action, "mutates_state": mutates,
                        "parameters": {}, "source_trust": source, "trace": {"root_trust_level": root},
                        "dry_run": true});
                    let answer = ask(&agent, &body).body;
                    let composite = (risk + if mutates { 15 } else { 0 } + penalty).min(100);
                    assert_eq!(
                        (&answer["risk_level"], &answer["risk_score"], &answer["composite_risk_score"]),
                        (&json!(level), &json!(risk), &json!(composite)),
                        "{body}"
                    );
                    assert_eq!(answer["root_trust_level"], trust);
                }
            }
        }
    }
}

#[test]
fn who_it_is_for_and_which_run_it_belongs_to_is_on_record_in_both_forms() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let more = json!({"user": {"id": "someone", "role": "admin"},
        "trace": {"run_id": "run", "trace_id": "trace", "parent_run_id": "up", "root_trust_level": TRUSTED}});
    for body in [flat("read", TRUSTED), nested("a", "read", TRUSTED)] {
        let answer = ask(&agent, &with(body, &more));
        let id = answer.body["decision_id"].as_str().expect("an id");
        let recorded = gateway.get(&format!("/v1/decisions/{id}"));
        for (name, value) in
            [("user_id", "someone"), ("run_id", "run"), ("trace_id", "trace"), ("parent_run_id", "up")]
        {
            assert_eq!(recorded[name], value, "{name}");
        }
    }
    // A role loosens nothing, and who it is for may be left out.
    let mutation = with(flat("write", "unknown"), &more);
    assert_eq!(decision(&ask(&agent, &mutation)), "deny");
    for user in [Value::Null, json!({}), json!({"id": null, "role": null})] {
        assert_eq!(decision(&ask(&agent, &with(flat("read", TRUSTED), &json!({"user": user})))), "allow");
    }
}

#[test]
fn a_body_of_both_forms_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let mixed = |body: &Value, name: &str, value: &Value| with(body.clone(), &json!({name: value}));
    let (flat, nested) = (flat("read", TRUSTED), nested("a", "read", TRUSTED));
    for (name, value) in flat.as_object().expect("an object") {
        assert_failure(&ask(&agent, &mixed(&nested, name, value)), 400, "BadRequest");
    }
    for name in ["tool_call", "agent", "context"] {
        assert_failure(&ask(&agent, &mixed(&flat, name, &nested[name])), 400, "BadRequest");
    }
    // Where these belong is another place of the body; here they would be passed over.
    for name in ["environment", "root_trust_level"] {
        assert_failure(&ask(&agent, &mixed(&flat, name, &json!("unknown"))), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"], Value::Null);
}

#[test]
fn a_callback_is_never_called() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let callback = json!({"callback": {"url": url, "secret": "s"}});
    for trust in [TRUSTED, "semi_trusted_customer", "unknown"] {
        for body in [flat("write", trust), nested("a", "write", trust)] {
            assert_eq!(ask(&agent, &with(body, &callback)).status, 200);
        }
    }
    // Whatever it had still to do is done when it has stopped; a call would wait here.
    assert_eq!(gateway.stop(), 0);
    listener.set_nonblocking(true).expect("a socket");
    let called = listener.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(called, Err(std::io::ErrorKind::WouldBlock));
}
