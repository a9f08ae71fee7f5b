//! Who may do what: holes 1 and 16.

use aegis_gateway::http::router::{self, Access};
use serde_json::{Value, json};

use super::{approved, head, waiting};
use crate::support::{Gateway, Home, assert_failure};

#[test]
fn hole_1_a_tenant_s_name_is_no_credential_and_nothing_is_open_on_loopback() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "0");
    let gateway = home.start();
    gateway.agent("a");
    let body = json!({"filename": "open.db"});
    for (method, pattern, _) in router::table().filter(|(_, _, access)| *access != Access::Anyone) {
        let path = pattern.replace("{id}", "a");
        for token in [None, Some("tenant_123"), Some("tenant_default"), Some("tenant_")] {
            let answer = gateway.request(method, &path, token, (method == "POST").then_some(&body));
            assert_failure(&answer, 401, "Unauthorized");
        }
    }
    // Nobody makes a tenant: there are none. Nor is there anything for debugging.
    for path in ["/v1/tenants", "/debug", "/debug/pprof", "/v1/admin"] {
        let answer = gateway.request("POST", path, None, Some(&json!({"name": "x"})));
        assert_failure(&answer, 404, "NotFound");
    }
    assert!(!home.path("backups").join("open.db").exists());
}

/// A token for the process that runs agents, which client libraries take as `api_key`.
fn runner(gateway: &Gateway) -> String {
    let body = json!({"name": "agents", "scope": "runner"});
    let answer = gateway.operator("POST", "/v1/admin/tokens", Some(&body));
    answer.body["token"].as_str().expect("a token").to_owned()
}

#[test]
fn hole_16_who_runs_agents_can_use_approvals_and_not_give_them() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let runner = runner(&gateway);
    let register = json!({"agent_key": "b", "name": "b", "environment": "production", "risk_tier": "high"});
    let registered = gateway.request("POST", "/v1/agents/register", Some(&runner), Some(&register));
    assert_eq!(registered.status, 201, "{registered:?}");

    let waits = waiting(&agent, &json!({}));
    let edited = json!({"tool": "t", "action": "write", "mutates_state": true, "parameters": {}});
    let decided = json!({"approver_user_id": "me", "edited_tool_call": edited});
    let before = head(&gateway);
    for token in [&runner, &agent.token] {
        for verb in ["approve", "reject", "edit"] {
            let path = format!("/v1/approvals/{waits}/{verb}");
            assert_failure(&gateway.request("POST", &path, Some(token), Some(&decided)), 403, "Forbidden");
        }
    }
    assert_eq!(head(&gateway), before);
    let seen = gateway.request("GET", &format!("/v1/approvals/{waits}"), Some(&runner), None);
    assert_eq!((&seen.body["status"], &seen.body["is_edited"]), (&json!("created"), &json!(false)));
    assert_eq!(seen.body["tool_call"], Value::Null, "what is to be decided is for who decides");

    let given = approved(&gateway, &agent, &json!({}));
    let used =
        gateway.request("POST", &format!("/v1/approvals/{given}/consume"), Some(&runner), Some(&json!({})));
    assert_eq!(used.status, 200, "{used:?}");
}

#[test]
fn hole_16_who_runs_agents_changes_nothing_else() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("a");
    let runner = runner(&gateway);
    let allowed = [
        ("POST", "/v1/agents/register"),
        ("POST", "/v1/approvals/{id}/consume"),
        ("POST", "/v1/receipts/verify-chain"),
    ];
    let changes = router::table().filter(|(method, path, access)| {
        *method != "GET" && *access != Access::Anyone && !allowed.contains(&(*method, *path))
    });
    let mut refused = 0;
    for (method, pattern, _) in changes {
        let path = pattern.replace("{id}", "a");
        assert_failure(&gateway.request(method, &path, Some(&runner), Some(&json!({}))), 403, "Forbidden");
        refused += 1;
    }
    assert!(refused > 10, "the table is the router's own: {refused}");
    assert_eq!(gateway.get("/v1/agents/a")["status"], "active");
}
