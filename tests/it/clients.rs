//! What client libraries need of the gateway.

use serde_json::{Value, json};

use crate::support::{Home, decide};

/// The Python library forgets the id that a registration tells it.
#[test]
fn what_an_agent_did_is_found_by_its_key_too() {
    let home = Home::new();
    let gateway = home.start();
    let (agent, other) = (gateway.agent("a key/1"), gateway.agent("other"));
    // Who is called like another's id is not taken for that one.
    let named = gateway.register(&agent.id, &json!({}));
    for (asks, times) in [(&agent, 2), (&other, 1), (&named, 3)] {
        decide(asks, times);
    }
    let count = |path: &str, agent: &str| {
        let found = gateway.get(&format!("/v1/{path}?agent_id={}", agent.replace(' ', "%20")));
        found.as_array().map(Vec::len).unwrap_or_else(|| panic!("{found}"))
    };
    for (name, decisions) in
        [("a key/1", 2), (agent.id.as_str(), 2), ("other", 1), (&named.id, 3), ("nobody", 0)]
    {
        assert_eq!(count("decisions", name), decisions, "{name}");
        assert_eq!(count("audit/events", name), usize::from(decisions > 0), "its registration: {name}");
    }
    assert_eq!(gateway.operator("DELETE", "/v1/agents/other", None).status, 200);
    assert_eq!(count("decisions", "other"), 1, "what was done stays on record");
    let found: Value = gateway.get("/v1/decisions?agent_id=other&decision=allow&limit=1");
    assert_eq!(found[0]["agent_id"], other.id);
}
