//! Who was stopped stays stopped: hole 4, and what hole 2 says of it.

use serde_json::json;

use super::{approved, operate};
use crate::authorize::{TRUSTED, ask, decision, flat, with};
use crate::support::{Agent, Home, assert_failure};

#[test]
fn hole_2_a_request_id_fetches_no_old_allow_for_an_agent_that_was_stopped() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("read", TRUSTED), &json!({"request_id": "r"}));
    let allowed = ask(&agent, &body);
    assert_eq!(decision(&allowed), "allow");
    operate(&gateway, &agent, "freeze");
    let denied = ask(&agent, &body);
    assert_eq!(decision(&denied), "deny");
    assert_ne!(denied.body["decision_id"], allowed.body["decision_id"]);
    operate(&gateway, &agent, "unfreeze");
    assert_eq!(ask(&agent, &body).body["decision_id"], allowed.body["decision_id"]);
    operate(&gateway, &agent, "revoke");
    assert_eq!(decision(&ask(&agent, &body)), "deny");
}

#[test]
fn hole_4_nothing_revives_an_agent_that_was_revoked_or_deleted() {
    let home = Home::new();
    let gateway = home.start();
    let (revoked, deleted) = (gateway.agent("revoked"), gateway.agent("deleted"));
    operate(&gateway, &revoked, "revoke");
    let path = |agent: &Agent| format!("/v1/agents/{}", agent.id);
    assert_eq!(gateway.operator("DELETE", &path(&deleted), None).status, 200);

    for (agent, status, reason) in [(&revoked, 409, "Conflict"), (&deleted, 404, "NotFound")] {
        for operation in ["freeze", "unfreeze", "restore"] {
            let answer = gateway.operator("POST", &format!("{}/{operation}", path(agent)), None);
            assert_failure(&answer, status, reason);
        }
        let name = json!({"name": "again"});
        assert_failure(&gateway.operator("PATCH", &path(agent), Some(&name)), status, reason);
        let active = json!({"status": "active"});
        let answer = gateway.operator("PATCH", &path(agent), Some(&active));
        assert!(matches!(answer.status, 404 | 409 | 422), "{answer:?}");
    }
    assert_eq!(gateway.get(&path(&revoked))["status"], "revoked");
    assert_eq!(decision(&ask(&revoked, &flat("read", TRUSTED))), "deny");
    assert_failure(&ask(&deleted, &flat("read", TRUSTED)), 401, "Unauthorized");
    // A new token does not make it another agent.
    let revoked = gateway.agent("revoked");
    assert_eq!(decision(&ask(&revoked, &flat("read", TRUSTED))), "deny");
}

#[test]
fn hole_4_the_approval_of_an_agent_that_was_frozen_or_revoked_is_not_consumable() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let given = approved(&gateway, &agent, &json!({}));
    let path = format!("/v1/approvals/{given}/consume");
    let consume = |token: &str| gateway.request("POST", &path, Some(token), None);
    let refused = |token: &str| {
        let answer = consume(token);
        assert_failure(&answer, 409, "Conflict");
        assert_eq!(answer.body["details"]["reason"], "consume_not_consumable", "{answer:?}");
        assert_eq!(gateway.get(&format!("/v1/approvals/{given}"))["consumed"], false);
    };
    for operation in ["freeze", "revoke"] {
        operate(&gateway, &agent, operation);
        refused(&agent.token);
        refused(&gateway.token);
    }
    // What was refused while it was frozen is good again when it is not.
    let other = gateway.register("b", &json!({}));
    let given = approved(&gateway, &other, &json!({}));
    let path = format!("/v1/approvals/{given}/consume");
    operate(&gateway, &other, "freeze");
    assert_eq!(gateway.request("POST", &path, Some(&other.token), None).status, 409);
    operate(&gateway, &other, "unfreeze");
    assert_eq!(gateway.request("POST", &path, Some(&other.token), None).status, 200);
}
