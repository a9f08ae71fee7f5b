//! The wire contract, through the real binary: who may register, ask and read; what is decided
//! and recorded; what error answers look like.

use serde_json::{Value, json};

use crate::support::{
    Agent, Answer, Gateway, Home, assert_failure, raw_bytes, raw_request, sha256, try_request,
};

const TRUSTS: [&str; 7] = [
    "trusted_internal_signed",
    "trusted_internal_unsigned",
    "semi_trusted_customer",
    "untrusted_external",
    "malicious_suspected",
    "unknown",
    "no such level",
];
const TRUSTED: &str = TRUSTS[0];
const CUSTOMER: &str = TRUSTS[2];
const UNTRUSTED: &str = TRUSTS[3];

/// A flat body, for a mutation or a read of the tool that `Gateway::agent` registers.
fn flat(action: &str, mutates: bool, trust: &str) -> Value {
    json!({"tool": "t", "action": action, "resource": "r", "mutates_state": mutates,
           "parameters": {}, "source_trust": trust})
}

/// The nested form of a flat body.
fn nested(agent: &str, flat: &Value) -> Value {
    let mut call = flat.clone();
    let trust = call.as_object_mut().and_then(|call| call.remove("source_trust")).expect("a trust");
    json!({"agent": {"id": agent, "environment": "production"}, "tool_call": call,
           "context": {"source_trust": trust, "contains_sensitive_data": false}})
}

fn decision(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["decision"].as_str().expect("a decision")
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn list_of(answer: &Value) -> &Vec<Value> {
    answer.as_array().expect("a bare array")
}

fn texts<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list_of(list).iter().map(|one| one[name].as_str().expect("text")).collect()
}

// --- Agents

#[test]
fn registering_again_keeps_the_id_and_kills_the_old_token_at_once() {
    let home = Home::new();
    let gateway = home.start();
    let body = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"});
    let first = gateway.operator("POST", "/v1/agents/register", Some(&body));
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.body.as_object().expect("an object").len(), 3, "{first:?}");
    assert_eq!(first.body["agent_key"], "k");
    let token = |answer: &Answer| answer.body["agent_token"].as_str().expect("a token").to_owned();
    let digits = token(&first).strip_prefix("agent_tok_").expect("its prefix").to_owned();
    assert_eq!(digits.len(), 32);
    assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{digits}");

    let changed = json!({"agent_key": "k", "name": "other", "environment": "f", "risk_tier": "high"});
    let again = gateway.operator("POST", "/v1/agents/register", Some(&changed));
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.body["id"], first.body["id"]);
    assert_ne!(token(&again), token(&first));
    let ask = |token: &str| gateway.authorize(token, &flat("read", false, TRUSTED).to_string());
    assert_failure(&ask(&token(&first)), 401, "Unauthorized");
    assert_eq!(ask(&token(&again)).status, 200);
    let kept = gateway.get("/v1/agents/k");
    assert_eq!(
        (&kept["name"], &kept["environment"], &kept["risk_tier"]),
        (&json!("n"), &json!("e"), &json!("low"))
    );
}

#[test]
fn of_many_registrations_at_once_one_makes_the_agent_and_one_token_lives() {
    let home = Home::new();
    let gateway = home.start();
    let body = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"});
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let register = || gateway.operator("POST", "/v1/agents/register", Some(&body));
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(register)).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(200)), (1, 7));
    assert!(answers.iter().all(|answer| answer.body["id"] == answers[0].body["id"]));
    let ask = |answer: &&Answer| {
        let token = answer.body["agent_token"].as_str().expect("a token");
        gateway.authorize(token, &flat("read", false, TRUSTED).to_string()).status == 200
    };
    assert_eq!(answers.iter().filter(ask).count(), 1);
    assert_eq!(list_of(&gateway.get("/v1/agents")).len(), 1);
}

#[test]
fn a_registration_is_shown_whole_and_without_any_secret() {
    let home = Home::new();
    let gateway = home.start();
    let body = json!({
        "agent_key": "k", "name": "Näme ☂", "environment": "production", "risk_tier": "critical",
        "owner_team": "team", "owner_email": "a@b", "framework": "f", "model_provider": "p",
        "model_name": "m", "purpose": "why", "allowed_environments": ["production", "staging"],
        "signing_key": null, "unknown_member": {"x": 1},
    });
    let answer = gateway.operator("POST", "/v1/agents/register", Some(&body));
    assert_eq!(answer.status, 201, "{answer:?}");
    let shown = gateway.get("/v1/agents/k");
    for name in ["agent_key", "name", "environment", "risk_tier", "owner_team", "owner_email", "framework"] {
        assert_eq!(shown[name], body[name], "{name}");
    }
    for name in ["model_provider", "model_name", "purpose", "allowed_environments"] {
        assert_eq!(shown[name], body[name], "{name}");
    }
    let mut names: Vec<&str> = shown.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = "agent_key allowed_environments created_at environment force_approval framework \
         frozen_reason id last_seen_at model_name model_provider mtls_cn name owner_email owner_team purpose \
         quarantined_at risk_tier status updated_at";
    assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!((&shown["status"], &shown["last_seen_at"]), (&json!("active"), &Value::Null));
    assert_eq!(list_of(&gateway.get("/v1/agents"))[0], shown);

    let token = answer.body["agent_token"].as_str().expect("a token");
    gateway.authorize(token, &flat("read", false, TRUSTED).to_string());
    let seen = gateway.get("/v1/agents/k");
    assert!(seen["last_seen_at"].is_string(), "{seen}");
    let list = gateway.operator("GET", "/v1/agents", None);
    let text = String::from_utf8(list.raw).expect("text");
    assert!(!text.contains(token) && !text.contains(&sha256(token.as_bytes())), "{text}");
}

#[test]
fn a_registration_that_does_not_fit_is_refused_and_leaves_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let good = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"});
    let register = |body: &Value| gateway.operator("POST", "/v1/agents/register", Some(body));
    for name in ["agent_key", "name", "environment", "risk_tier"] {
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(name);
        assert_failure(&register(&missing), 400, "BadRequest");
        for wrong in [json!(null), json!(1), json!(["k"]), json!({})] {
            assert_failure(&register(&with(good.clone(), name, wrong)), 400, "BadRequest");
        }
    }
    for (name, value) in [
        ("agent_key", json!("")),
        ("agent_key", json!("x".repeat(129))),
        ("agent_key", json!("a\u{0}b")),
        ("agent_key", json!("a\nb")),
        ("name", json!("a\u{1b}[2J")),
        ("owner_team", json!(5)),
        ("allowed_environments", json!("production")),
        ("allowed_environments", json!([1])),
        ("allowed_environments", json!([""])),
    ] {
        assert_failure(&register(&with(good.clone(), name, value)), 400, "BadRequest");
    }
    for tier in ["", "LOW", "banana", " low", "low\u{0}"] {
        let answer = register(&with(good.clone(), "risk_tier", json!(tier)));
        assert_failure(&answer, 422, "Invalid");
    }
    for body in ["", "[]", "null", "\"x\"", "{", "{\"agent_key\":\"k\"", "nonsense"] {
        let answer =
            try_request(gateway.address(), "POST", "/v1/agents/register", Some(&gateway.token), Some(body));
        assert_failure(&answer.expect("an answer"), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/agents"), json!([]));
    // The longest allowed key, counted in characters, not bytes.
    let longest = "é".repeat(128);
    assert_eq!(register(&with(good, "agent_key", json!(longest))).status, 201);
}

/// Percent-encodes everything but unreserved characters.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[test]
fn an_agent_is_found_by_its_id_and_by_its_key_whatever_characters_that_has() {
    let home = Home::new();
    let gateway = home.start();
    for key in ["plain", "a b", "a/b", "a?b#c", "50%", "%41", "a+b", "é☂", "cafe\u{301}", "..", "a&b=c;d"]
    {
        let agent = gateway.register(key, &json!({}));
        let by_key = gateway.get(&format!("/v1/agents/{}", escaped(key)));
        assert_eq!(by_key["agent_key"], key);
        assert_eq!(by_key["id"], agent.id.as_str());
        assert_eq!(gateway.get(&format!("/v1/agents/{}", agent.id)), by_key);
    }
    // Unescaped where a path allows it, as client libraries send it.
    assert_eq!(gateway.get("/v1/agents/a+b")["agent_key"], "a+b");
    // A key equal to the last segment of a route is reachable by escaping it.
    gateway.register("register", &json!({}));
    assert_eq!(gateway.get("/v1/agents/%72egister")["agent_key"], "register");
    // Composed and decomposed forms are different keys.
    assert_failure(&gateway.operator("GET", "/v1/agents/caf%C3%A9", None), 404, "NotFound");
    assert_failure(&gateway.operator("GET", "/v1/agents/nobody", None), 404, "NotFound");
    for malformed in ["/v1/agents/%zz", "/v1/agents/%", "/v1/agents/%ff"] {
        assert_failure(&gateway.operator("GET", malformed, None), 400, "BadRequest");
    }
    // An agent's key may equal another agent's id; the id wins.
    let first = gateway.register("first", &json!({}));
    gateway.register(&first.id, &json!({}));
    assert_eq!(gateway.get(&format!("/v1/agents/{}", first.id))["agent_key"], "first");
}

#[test]
fn agents_are_listed_newest_first_by_page_and_by_status() {
    let home = Home::new();
    let gateway = home.start();
    for key in ["a", "b", "c", "d", "e"] {
        gateway.register(key, &json!({}));
    }
    assert_eq!(gateway.stop(), 0);
    home.sql("UPDATE agents SET status = 'deleted' WHERE agent_key = 'b'");
    home.sql("UPDATE agents SET status = 'frozen' WHERE agent_key = 'c'");
    let gateway = home.start();
    let keys = |query: &str| {
        let list = gateway.get(&format!("/v1/agents{query}"));
        texts(&list, "agent_key").concat()
    };
    for (query, expected) in [
        ("", "edca"),
        ("?limit=2", "ed"),
        ("?limit=2&offset=2", "ca"),
        ("?limit=0", "e"),
        ("?limit=-5", "e"),
        ("?limit=banana&offset=banana", "edca"),
        ("?offset=4", ""),
        ("?offset=99999999999999999999", "edca"),
        ("?status=frozen", "c"),
        ("?status=deleted", "b"),
        ("?status=active&limit=1", "e"),
        ("?status=quarantined", ""),
    ] {
        assert_eq!(keys(query), expected, "{query}");
    }
    for query in
        ["?status=Frozen", "?status=frozen%00", "?status=x", "?status=frozen&status=active", "?status=%ff"]
    {
        let answer = gateway.operator("GET", &format!("/v1/agents{query}"), None);
        assert_failure(&answer, 400, "BadRequest");
    }
    assert_failure(&gateway.operator("GET", "/v1/agents/b", None), 404, "NotFound");
}

// --- Tools

#[test]
fn a_tool_is_registered_action_by_action_and_counts_from_the_next_question_on() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    let action = |key: &str, risk: &str| {
        json!({"action_key": key, "risk": risk, "mutates_state": false, "approval_required": false,
               "default_decision": "policy"})
    };
    let tool = |actions: Value| json!({"skill_key": "t", "name": "n", "type": "x", "actions": actions});
    let register = |body: &Value| gateway.operator("POST", "/v1/tools", Some(body));
    let ask = |action: &str| {
        let answer = gateway.authorize(&agent.token, &flat(action, false, TRUSTED).to_string());
        decision(&answer).to_owned()
    };
    assert_eq!(ask("one"), "deny");
    let first = register(&tool(json!([action("one", "low"), action("two", "low")])));
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.body["status"], "success");
    assert_eq!((ask("one"), ask("two"), ask("three")), ("allow".into(), "allow".into(), "deny".into()));
    let second = register(&tool(json!([action("two", "critical"), action("three", "low")])));
    assert_eq!(second.body["skill_id"], first.body["skill_id"]);
    assert_eq!(
        (ask("one"), ask("two"), ask("three")),
        ("allow".into(), "require_approval".into(), "allow".into())
    );
    let tools = gateway.get("/v1/tools");
    assert_eq!(list_of(&tools).len(), 1);
    let mut actions = texts(&tools[0]["actions"], "action_key");
    actions.sort_unstable();
    assert_eq!(actions, ["one", "three", "two"]);
}

#[test]
fn a_tool_with_an_unknown_word_is_refused_whole() {
    let home = Home::new();
    let gateway = home.start();
    let good = json!({"action_key": "a", "risk": "low", "mutates_state": true, "approval_required": false,
                      "default_decision": "policy"});
    let register = |action: Value| {
        let fine = with(good.clone(), "action_key", json!("fine"));
        let body = json!({"skill_key": "t", "name": "t", "type": "x", "actions": [fine, action]});
        gateway.operator("POST", "/v1/tools", Some(&body))
    };
    for (name, value) in [
        ("risk", "banana"),
        ("risk", "LOW"),
        ("risk", ""),
        ("default_decision", "banana"),
        ("default_decision", "Allow"),
        ("default_decision", "redact"),
    ] {
        assert_failure(&register(with(good.clone(), name, json!(value))), 422, "Invalid");
    }
    for (name, value) in [
        ("mutates_state", json!("true")),
        ("mutates_state", json!(1)),
        ("approval_required", Value::Null),
        ("risk", json!(3)),
        ("action_key", json!("")),
        ("action_key", json!("  ")),
        ("action_key", json!("%20")),
    ] {
        assert_failure(&register(with(good.clone(), name, value)), 400, "BadRequest");
    }
    for name in ["action_key", "risk", "mutates_state", "approval_required", "default_decision"] {
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(name);
        assert_failure(&register(missing), 400, "BadRequest");
    }
    // Otherwise one action with two spellings could be registered twice.
    assert_failure(&register(with(good.clone(), "action_key", json!("F%49NE"))), 422, "Invalid");
    assert_eq!(gateway.get("/v1/tools"), json!([]));
}

#[test]
fn a_tool_has_one_name_at_registration_and_at_lookup_and_the_hash_keeps_the_caller_s() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    for (registered, asked, others) in [
        ("UpperTool", vec!["uppertool", "UPPERTOOL", " UpperTool\u{a0}", "Upper%54ool"], vec!["upper tool"]),
        ("Cafe\u{301}", vec!["caf\u{e9}", "CAFÉ", "caf%C3%A9", "cafe%CC%81", "caf%c3%a9 "], vec!["cafe"]),
        ("caf%C3%A9-2", vec!["cafe\u{301}-2", "CAF\u{c9}-2"], vec!["caf%25C3%25A9-2"]),
        // Decoded exactly once, on both sides.
        ("a%2541", vec!["a%2541", "A%2541"], vec!["a%41", "aa"]),
        ("100%", vec!["100%", "100%25"], vec!["100"]),
        ("plus+sign", vec!["plus+sign", "plus%2Bsign"], vec!["plus sign"]),
    ] {
        gateway.tool(registered, registered, &json!({}));
        let ask = |name: &str| {
            let body = json!({"tool": name, "action": name, "mutates_state": false, "parameters": {}});
            gateway.authorize(&agent.token, &body.to_string())
        };
        for name in asked {
            let answer = ask(name);
            assert_eq!(decision(&answer), "allow", "{name:?} for {registered:?}");
            let canonical = format!(
                "{{\"action\":\"{name}\",\"mutates_state\":false,\"parameters\":{{}},\"resource\":null,\"tool\":\"{name}\"}}"
            );
            assert_eq!(answer.body["action_hash"], sha256(canonical.as_bytes()), "{name:?}");
        }
        for name in others {
            assert_eq!(decision(&ask(name)), "deny", "{name:?} for {registered:?}");
        }
    }
}

// --- The decision

#[test]
fn every_row_of_the_table_holds_in_both_forms() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let low = ["allow", "allow", "require_approval", "deny", "deny", "deny", "deny"];
    let high = ["require_approval", "require_approval", "require_approval", "deny", "deny", "deny", "deny"];
    for (tier, mutation) in [("low", low), ("medium", low), ("high", high), ("critical", high)] {
        let agent = gateway.register(tier, &json!({"risk_tier": tier}));
        for (trust, expected) in TRUSTS.into_iter().zip(mutation) {
            // Either being declared or being registered as one makes it a mutation.
            for (action, declared, expected) in [
                ("read", false, "allow"),
                ("read", true, expected),
                ("write", false, expected),
                ("write", true, expected),
            ] {
                let body = flat(action, declared, trust);
                for body in [nested(&agent.id, &body), nested(tier, &body), body] {
                    let answer = gateway.authorize(&agent.token, &body.to_string());
                    assert_eq!(decision(&answer), expected, "{tier} {trust} {action} {declared}");
                    assert!(answer.body["receipt"]["receipt_hash"].is_string(), "{answer:?}");
                    assert_eq!(answer.body["approval"].is_object(), expected == "require_approval");
                }
            }
        }
    }
    // Unstated trust counts as no trust.
    let agent = gateway.register("unstated", &json!({}));
    let mut body = flat("write", true, TRUSTED);
    body.as_object_mut().expect("an object").remove("source_trust");
    assert_eq!(decision(&gateway.authorize(&agent.token, &body.to_string())), "deny");
}

#[test]
fn the_rules_for_single_tools_hold() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    gateway.tool("GitHub", "merge_pull_request", &json!({"mutates_state": true}));
    gateway.tool("secrets", "rotate_credential", &json!({}));
    let ask = |tool: &str, action: &str, mutates: bool, parameters: Value, trust: &str| {
        let body = json!({"tool": tool, "action": action, "mutates_state": mutates, "parameters": parameters,
                          "source_trust": trust});
        let answer = gateway.authorize(&agent.token, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let merge = |branch: Value, trust: &str| {
        ask("github", "merge_pull_request", true, json!({"base_branch": branch}), trust)
    };
    let main = merge(json!("main"), TRUSTED);
    assert_eq!(main["decision"], "require_approval");
    assert_eq!(main["approval"]["approver_group"], "platform-leads");
    assert_eq!(merge(json!("dev"), TRUSTED)["decision"], "allow");
    assert_eq!(merge(json!(["main"]), TRUSTED)["decision"], "allow");
    assert_eq!(merge(json!("main"), UNTRUSTED)["decision"], "deny");
    let upper = ask("GITHUB", " Merge_Pull_Request", true, json!({"base_branch": "main"}), TRUSTED);
    assert_eq!(upper["decision"], "require_approval");

    let redacted = ask("secrets", "rotate_credential", false, json!({}), UNTRUSTED);
    assert_eq!(redacted["decision"], "redact");
    assert_eq!(redacted["redacted_fields"], json!(["api_key", "password", "secret", "token"]));
    assert!(redacted["receipt"].is_object());
    let mutating = ask("secrets", "rotate_credential", true, json!({}), TRUSTED);
    assert_eq!(mutating["decision"], "allow");
    assert_eq!(mutating.get("redacted_fields"), None);

    // Unregistered actions are denied, even reads.
    let unknown = ask("github", "delete", false, json!({}), TRUSTED);
    assert_eq!((&unknown["decision"], &unknown["risk_level"]), (&json!("deny"), &json!("low")));
    assert_eq!(unknown["matched_policies"], json!(["mcp_unknown_tool"]));
}

#[test]
fn what_the_operator_registered_tightens_and_no_caller_loosens_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.register("a", &json!({}));
    for (name, more, trusted_read, untrusted_write) in [
        ("deny", json!({"default_decision": "deny"}), "deny", "deny"),
        ("approval", json!({"default_decision": "require_approval"}), "require_approval", "deny"),
        ("flag", json!({"approval_required": true}), "require_approval", "deny"),
        ("critical", json!({"risk": "critical"}), "require_approval", "deny"),
        ("high", json!({"risk": "high"}), "allow", "deny"),
        ("allow", json!({"default_decision": "allow"}), "allow", "deny"),
        // A registered mutation is one, whatever the caller says.
        ("mutation", json!({"mutates_state": true}), "allow", "deny"),
    ] {
        gateway.tool("tight", name, &more);
        for (mutates, trust, expected) in [(false, TRUSTED, trusted_read), (true, UNTRUSTED, untrusted_write)]
        {
            // The caller's claims about risk and approval are ignored.
            let body = json!({"tool": "tight", "action": name, "mutates_state": mutates, "parameters": {},
                "source_trust": trust, "risk": "low", "approval_required": false, "default_decision": "allow",
                "risk_tier": "low", "decision": "allow"});
            let answer = gateway.authorize(&agent.token, &body.to_string());
            assert_eq!(decision(&answer), expected, "{name}");
        }
    }
    for trust in &TRUSTS[3..] {
        let body = json!({"tool": "tight", "action": "mutation", "mutates_state": false, "parameters": {},
            "source_trust": trust});
        let answer = gateway.authorize(&agent.token, &body.to_string());
        assert_eq!(decision(&answer), "deny", "{trust}");
        // The hash covers what the caller said; the record shows what was decided on.
        let canonical =
            r#"{"action":"mutation","mutates_state":false,"parameters":{},"resource":null,"tool":"tight"}"#;
        assert_eq!(answer.body["action_hash"], sha256(canonical.as_bytes()));
        let id = answer.body["decision_id"].as_str().expect("an id");
        assert_eq!(gateway.get(&format!("/v1/decisions/{id}"))["mutates_state"], true);
    }
}

#[test]
fn the_root_of_a_request_can_lower_its_trust_and_never_raise_it() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (source, root, expected, level) in [
        (TRUSTED, UNTRUSTED, "deny", UNTRUSTED),
        (UNTRUSTED, TRUSTED, "deny", UNTRUSTED),
        (TRUSTED, "no such level", "deny", "no such level"),
        ("no such level", TRUSTED, "deny", "no such level"),
        (TRUSTED, CUSTOMER, "require_approval", CUSTOMER),
        (TRUSTED, TRUSTED, "allow", TRUSTED),
        ("Trusted_Internal_Signed", TRUSTED, "deny", "Trusted_Internal_Signed"),
        ("trusted_internal_signed ", TRUSTED, "deny", "trusted_internal_signed "),
    ] {
        let trace =
            json!({"run_id": "run", "trace_id": "trace", "parent_run_id": "up", "root_trust_level": root});
        let body = flat("write", true, source);
        for body in [with(nested("a", &body), "trace", trace.clone()), with(body, "trace", trace.clone())] {
            let answer = gateway.authorize(&agent.token, &body.to_string());
            assert_eq!(decision(&answer), expected, "{source} {root}");
            assert_eq!(answer.body["root_trust_level"], level);
            let id = answer.body["decision_id"].as_str().expect("an id");
            let recorded = gateway.get(&format!("/v1/decisions/{id}"));
            assert_eq!(
                (&recorded["run_id"], &recorded["trace_id"], &recorded["parent_run_id"]),
                (&json!("run"), &json!("trace"), &json!("up"))
            );
        }
    }
}

#[test]
fn an_agent_may_ask_for_itself_and_its_environments_alone() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let agent = gateway.register("a", &json!({"allowed_environments": ["production"]}));
    let other = gateway.register("b", &json!({}));
    let ask = |id: &str, environment: &str| {
        let mut body = nested(id, &flat("read", false, TRUSTED));
        body["agent"]["environment"] = json!(environment);
        gateway.authorize(&agent.token, &body.to_string())
    };
    assert_eq!(decision(&ask("a", "production")), "allow");
    assert_eq!(decision(&ask(&agent.id, "production")), "allow");
    for id in ["b", &other.id, "", "A", "a\" OR 1=1"] {
        assert_failure(&ask(id, "production"), 403, "Forbidden");
    }
    let elsewhere = ask("a", "staging");
    assert!(elsewhere.status == 403 || decision(&elsewhere) == "deny", "{elsewhere:?}");
    assert_eq!(list_of(&gateway.get("/v1/decisions")).len(), 3);
}

#[test]
fn an_answer_has_every_field_of_the_contract() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    gateway.tool("risky", "go", &json!({"risk": "high", "mutates_state": true}));
    let ask = |body: &Value| gateway.authorize(&agent.token, &body.to_string()).body;
    let names = |body: &Value| {
        let mut names: Vec<String> = body.as_object().expect("an object").keys().cloned().collect();
        names.sort_unstable();
        names.join(" ")
    };
    let fields = "action_hash approval composite_risk_score decision decision_id dry_run matched_policies reason \
                  receipt risk_level risk_score root_trust_level";
    let allow = ask(&flat("read", false, TRUSTED));
    let deny = ask(&flat("write", true, UNTRUSTED));
    let approval = ask(&flat("write", true, CUSTOMER));
    let (mut previous, mut count) = (String::new(), 0);
    for answer in [&allow, &deny, &approval] {
        assert_eq!(names(answer), fields, "{answer}");
        assert_eq!(answer["dry_run"], false);
        assert!(answer["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
        assert!(answer["matched_policies"].as_array().is_some_and(|ids| !ids.is_empty()), "{answer}");
        assert_uuid(&answer["decision_id"]);
        let receipt = &answer["receipt"];
        assert_eq!(names(receipt), "canon_version prev_receipt_hash receipt_hash receipt_id");
        assert_eq!(receipt["canon_version"], "aegis-jcs-1");
        assert_eq!(receipt["prev_receipt_hash"], previous);
        previous = receipt["receipt_hash"].as_str().expect("a hash").to_owned();
        count += 1;
        let stored = gateway.get(&format!("/v1/receipts/{}", receipt["receipt_id"].as_str().expect("an id")));
        assert_eq!(
            (&stored["seq"], &stored["decision"], &stored["decision_id"], &stored["agent_id"]),
            (&json!(count), &answer["decision"], &answer["decision_id"], &json!(agent.id))
        );
        assert_eq!(stored["action_hash"], answer["action_hash"]);
    }
    assert_eq!((&allow["approval"], &deny["approval"]), (&Value::Null, &Value::Null));
    let asked = &approval["approval"];
    assert_eq!(names(asked), "action_hash approval_id approver_group expires_at status");
    assert_uuid(&asked["approval_id"]);
    assert_eq!(
        (&asked["status"], &asked["approver_group"]),
        (&json!("created"), &json!("security-reviewers"))
    );
    assert_eq!(asked["action_hash"], approval["action_hash"]);
    let id = approval["decision_id"].as_str().expect("an id");
    let made = gateway.get(&format!("/v1/decisions/{id}"))["created_at"].as_str().expect("a time").to_owned();
    let time = |text: &str| {
        assert!(text.len() == 27 && text.ends_with('Z'), "{text}");
        aegis_gateway::domain::time::Timestamp::parse(text).expect("a time").as_micros()
    };
    let expires = asked["expires_at"].as_str().expect("a time");
    assert_eq!(time(expires) - time(&made), 1800 * 1_000_000);

    // Risk alone, and risk combined with mutation and trust, both from 0 to 100.
    let scores = |answer: &Value| {
        (answer["risk_score"].as_i64(), answer["composite_risk_score"].as_i64(), answer["risk_level"].clone())
    };
    assert_eq!(scores(&allow), (Some(10), Some(10), json!("low")));
    assert_eq!(scores(&deny), (Some(10), Some(10 + 15 + 30), json!("low")));
    let risky = json!({"tool": "risky", "action": "go", "mutates_state": false, "parameters": null,
                       "source_trust": "malicious_suspected"});
    assert_eq!(scores(&ask(&risky)), (Some(75), Some(100), json!("high")));
}

fn assert_uuid(value: &Value) {
    let text = value.as_str().expect("a UUID");
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
    assert!(text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()), "{text}");
}

// --- What is hashed

/// Pairs of `parameters` as a caller may write them and their canonical form, derived by hand
/// from the rule.
const PARAMETERS: &[(&str, &str)] = &[
    ("{}", "{}"),
    ("null", "null"),
    (" [ 1 , 2 ] ", "[1,2]"),
    (r#"{"b":1,"a":{"d":2,"c":3}}"#, r#"{"a":{"c":3,"d":2},"b":1}"#),
    // Sorted by code point, not by UTF-16 unit, without normalisation.
    (r#"{"\ud83d\ude00":1,"\uff5e":2}"#, "{\"\u{ff5e}\":2,\"\u{1f600}\":1}"),
    (r#"{"\u00e9":1,"e\u0301":2}"#, "{\"e\u{301}\":2,\"\u{e9}\":1}"),
    (r#""\/\u0041\u007f\u2028<&>""#, "\"/A\u{7f}\u{2028}<&>\""),
    (r#""\b\f\n\r\t\u0001\u001F\"\\""#, r#""\b\f\n\r\t\u0001\u001f\"\\""#),
    ("[0,-0,-1,1]", "[0,0,-1,1]"),
    ("18446744073709551616", "18446744073709551616"),
    ("-9223372036854775809", "-9223372036854775809"),
    (
        "123456789012345678901234567890123456789012345678901234567890",
        "123456789012345678901234567890123456789012345678901234567890",
    ),
    ("[1.0,-0.0,1e5,1e15,1e16,1e21]", "[1.0,-0.0,100000.0,1000000000000000.0,1e+16,1e+21]"),
    ("[0.0001,1e-5,1E-07,1.5e300]", "[0.0001,1e-05,1e-07,1.5e+300]"),
    ("9007199254740993.0", "9007199254740992.0"),
    (
        "[269104963418610.62,5e-324,1.7976931348623157e308,1e-400]",
        "[269104963418610.62,5e-324,1.7976931348623157e+308,0.0]",
    ),
    ("[2.2250738585072011e-308,0.1,123456.789e3]", "[2.225073858507201e-308,0.1,123456789.0]"),
    // A name special to a JSON library is an ordinary name here.
    (
        r#"{"$serde_json::private::RawValue":"{\"x\":1}"}"#,
        r#"{"$serde_json::private::RawValue":"{\"x\":1}"}"#,
    ),
    (r#"{"$serde_json::private::Number":"1"}"#, r#"{"$serde_json::private::Number":"1"}"#),
];

#[test]
fn the_action_hash_is_the_canonical_form_s_whatever_the_numbers_and_strings() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (text, canonical) in PARAMETERS {
        let expected = sha256(
            format!(
                r#"{{"action":"read","mutates_state":false,"parameters":{canonical},"resource":"r/é","tool":"t"}}"#
            )
            .as_bytes(),
        );
        let flat = format!(
            r#"{{"parameters":{text},"tool":"t","resource":"r\/\u00e9","action":"\u0072ead","mutates_state":false,"more":1}}"#
        );
        let nested = format!(
            r#"{{"agent":{{"id":"a","environment":"production"}},"context":{{"source_trust":"unknown"}},
                "tool_call":{{"x":[],"parameters":{text},"tool":"t","resource":"r/é","action":"read","mutates_state":false}}}}"#
        );
        for body in [flat, nested] {
            let answer = gateway.authorize(&agent.token, &body);
            assert_eq!(decision(&answer), "allow", "{text}");
            assert_eq!(answer.body["action_hash"], expected, "{text}");
        }
    }
    // An absent resource is null.
    for resource in ["", r#","resource":null"#] {
        let body =
            format!(r#"{{"tool":"t","action":"read","mutates_state":false,"parameters":{{}}{resource}}}"#);
        let canonical =
            r#"{"action":"read","mutates_state":false,"parameters":{},"resource":null,"tool":"t"}"#;
        let answer = gateway.authorize(&agent.token, &body);
        assert_eq!(answer.body["action_hash"], sha256(canonical.as_bytes()));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_body_that_two_programs_could_read_differently_is_refused_and_leaves_no_trace() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let many_digits = "9".repeat(4301);
    let (too_deep, way_too_deep) = (deep(127), deep(100_000));
    let parameters: Vec<&[u8]> = vec![
        br#"{"a":1,"a":1}"#,
        br#"{"a":1,"\u0061":2}"#,
        br#"[{"x":{"b":1,"b":2}}]"#,
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        br#""\ud800""#,
        br#"{"\udc00":1}"#,
        br#""\ud800\u0041""#,
        b"\"\x01\"",
        b"\"tab\there\"",
        b"\"\xff\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\xaf\"",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x1",
        b"1_000",
        b"'x'",
        b"[1,]",
        b"{\"a\":1,}",
        b"{a:1}",
        b"/**/1",
        b"tru",
        b"True",
        br#""\x41""#,
        br#""\u00g0""#,
        b"",
        b"1 2",
        many_digits.as_bytes(),
        too_deep.as_bytes(),
        way_too_deep.as_bytes(),
    ];
    let send = |body: &[u8]| {
        let mut request = format!(
            "POST /v1/authorize HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            agent.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        raw_request(gateway.address(), &request).expect("an answer")
    };
    let around = |parameters: &[u8]| {
        let mut body = br#"{"tool":"t","action":"read","mutates_state":false,"parameters":"#.to_vec();
        body.extend_from_slice(parameters);
        body.push(b'}');
        body
    };
    for text in parameters {
        let answer = send(&around(text));
        assert_failure(&answer, 400, "BadRequest");
    }
    let good = around(b"{}");
    for (before, after) in
        [(&b"\xef\xbb\xbf"[..], &b""[..]), (b"", b"}"), (b"", b"{}"), (b"", b"\0"), (b"[", b"]")]
    {
        assert_failure(&send(&[before, &good, after].concat()), 400, "BadRequest");
    }
    for twice in [
        r#"{"tool":"t","tool":"t","action":"read","mutates_state":false,"parameters":{}}"#,
        r#"{"tool":"t","action":"write","act\u0069on":"read","mutates_state":false,"parameters":{}}"#,
        r#"{"tool":"t","action":"read","mutates_state":false,"parameters":{},"source_trust":"unknown","source_trust":"trusted_internal_signed"}"#,
    ] {
        assert_failure(&send(twice.as_bytes()), 400, "BadRequest");
    }
    assert_eq!(gateway.get("/v1/decisions"), json!([]));
    assert_eq!(gateway.get("/v1/receipts/chain-head"), json!({"head": null}));
    // The deepest nesting allowed, and the same bytes with the defect removed.
    assert_eq!(decision(&send(&around(deep(126).as_bytes()))), "allow");
    assert_eq!(decision(&send(&around("9".repeat(4300).as_bytes()))), "allow");
}

#[test]
fn a_question_of_both_forms_or_of_neither_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let good = flat("read", false, TRUSTED);
    let both = nested("a", &good);
    let ask = |body: &Value| gateway.authorize(&agent.token, &body.to_string());
    for name in ["tool", "action", "mutates_state", "parameters", "resource", "source_trust"] {
        assert_failure(&ask(&with(both.clone(), name, good[name].clone())), 400, "BadRequest");
    }
    for name in ["tool", "action", "mutates_state", "parameters"] {
        let (mut in_flat, mut in_nested) = (good.clone(), both.clone());
        in_flat.as_object_mut().expect("an object").remove(name);
        in_nested["tool_call"].as_object_mut().expect("an object").remove(name);
        for body in [in_flat, in_nested] {
            let answer = ask(&body);
            assert!(matches!(answer.status, 400 | 422), "{name} {answer:?}");
        }
    }
    for (name, wrong) in [
        ("tool", json!(1)),
        ("tool", json!("")),
        ("action", Value::Null),
        ("resource", json!({})),
        ("mutates_state", json!("true")),
        ("mutates_state", json!(1)),
        ("mutates_state", Value::Null),
        ("source_trust", json!(["trusted_internal_signed"])),
        ("request_id", json!(1)),
        ("dry_run", json!("true")),
        ("trace", json!("x")),
        ("user", json!("x")),
        ("tool_call", Value::Null),
        ("tool_call", json!("x")),
    ] {
        let answer = ask(&with(good.clone(), name, wrong.clone()));
        // A flat body has no user member and may ignore one.
        let ignored = name == "user" && answer.status == 200;
        assert!(ignored || matches!(answer.status, 400 | 422), "{name} {wrong} {answer:?}");
    }
    for part in ["agent", "context"] {
        let mut missing = both.clone();
        missing.as_object_mut().expect("an object").remove(part);
        assert!(matches!(ask(&missing).status, 400 | 422), "{part}");
    }
    assert_eq!(decision(&ask(&both)), "allow");
    assert_eq!(decision(&ask(&good)), "allow");
}

// --- Status, repetition, trial

#[test]
fn an_agent_that_is_not_active_is_denied_with_a_receipt_and_gets_no_old_answer() {
    let home = Home::new();
    let gateway = home.start();
    let agents: Vec<(&str, Agent)> =
        ["frozen", "revoked", "quarantined", "deleted"].map(|status| (status, gateway.agent(status))).into();
    let body = with(flat("read", false, TRUSTED), "request_id", json!("once")).to_string();
    for (_, agent) in &agents {
        assert_eq!(decision(&gateway.authorize(&agent.token, &body)), "allow");
    }
    assert_eq!(gateway.stop(), 0);
    home.sql("UPDATE agents SET status = agent_key");
    let gateway = home.start();
    let mut head = gateway.get("/v1/receipts/chain-head")["head"]["seq"].as_i64().expect("a head");
    for (status, agent) in &agents {
        let answer = gateway.authorize(&agent.token, &body);
        if matches!(*status, "quarantined" | "deleted") {
            assert_failure(&answer, 401, "Unauthorized");
            continue;
        }
        assert_eq!(decision(&answer), "deny", "{status}");
        assert_eq!(answer.body["matched_policies"], json!([format!("agent_{status}")]));
        assert_eq!(
            (&answer.body["risk_score"], &answer.body["risk_level"]),
            (&json!(100), &json!("critical"))
        );
        head += 1;
        let receipt = answer.body["receipt"]["receipt_id"].as_str().expect("a receipt");
        let stored = gateway.get(&format!("/v1/receipts/{receipt}"));
        assert_eq!((&stored["seq"], &stored["decision"]), (&json!(head), &json!("deny")));
        let again = gateway.authorize(&agent.token, &body);
        assert_eq!(decision(&again), "deny");
        assert_ne!(again.body["decision_id"], answer.body["decision_id"]);
        head += 1;
    }
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], head);
}

#[test]
fn an_agent_whose_every_call_needs_approval_gets_none_without() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("tools");
    let forced = gateway.register("forced", &json!({"force_approval": true}));
    let ask = |agent: &Agent, action, trust| {
        decision(&gateway.authorize(&agent.token, &flat(action, action == "write", trust).to_string()))
            .to_owned()
    };
    assert_eq!(ask(&forced, "read", TRUSTED), "require_approval");
    assert_eq!(ask(&forced, "write", UNTRUSTED), "deny");
    // The same after a change, with the very next request.
    let later = gateway.register("later", &json!({}));
    for (force, expected) in [(false, "allow"), (true, "require_approval"), (false, "allow")] {
        let body = json!({"force_approval": force});
        let changed = gateway.operator("PATCH", "/v1/agents/later", Some(&body));
        assert_eq!((changed.status, &changed.body["force_approval"]), (200, &json!(force)));
        assert_eq!(ask(&later, "read", TRUSTED), expected);
    }
}

#[test]
fn the_same_request_gets_the_same_answer_and_another_under_its_name_is_a_conflict() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let good = with(flat("write", true, CUSTOMER), "request_id", json!("r-1"));
    let ask = |body: &Value| gateway.authorize(&agent.token, &body.to_string());
    let first = ask(&good);
    assert_eq!(decision(&first), "require_approval");
    for body in [good.clone(), with(nested("a", &good), "request_id", json!("r-1"))] {
        let mut again = ask(&body);
        let replayed = again.body.as_object_mut().expect("an object");
        assert_eq!(replayed.remove("receipt"), None);
        let mut expected = first.body.clone();
        expected.as_object_mut().expect("an object").remove("receipt");
        assert_eq!(again.body, expected);
    }
    let mut others = vec![
        with(good.clone(), "action", json!("read")),
        with(good.clone(), "resource", json!("R")),
        with(good.clone(), "mutates_state", json!(false)),
        with(good.clone(), "parameters", json!({"x": 1})),
        with(good.clone(), "source_trust", json!(TRUSTED)),
        with(good.clone(), "trace", json!({"root_trust_level": "unknown"})),
    ];
    let mut elsewhere = with(nested("a", &good), "request_id", json!("r-1"));
    elsewhere["agent"]["environment"] = json!("staging");
    others.push(elsewhere);
    for other in others {
        let answer = ask(&other);
        assert_failure(&answer, 409, "Conflict");
        assert_eq!(answer.body["details"]["reason"], "request_id_reused");
    }
    assert_eq!(list_of(&gateway.get("/v1/decisions")).len(), 1);
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], 1);
    // Another source trust makes it another request, even if the root's trust makes both equal.
    let rooted = with(good.clone(), "trace", json!({"root_trust_level": "unknown"}));
    assert_eq!(ask(&with(rooted, "request_id", json!("r-2"))).status, 200);
    let unknown = with(with(good.clone(), "source_trust", json!("unknown")), "request_id", json!("r-2"));
    assert_failure(&ask(&unknown), 409, "Conflict");
    // Request ids are scoped to an agent.
    let other = gateway.register("b", &json!({}));
    let theirs = gateway.authorize(&other.token, &good.to_string());
    assert_eq!(decision(&theirs), "require_approval");
    assert_ne!(theirs.body["decision_id"], first.body["decision_id"]);
}

#[test]
fn of_many_equal_requests_at_once_one_is_recorded() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = with(flat("write", true, CUSTOMER), "request_id", json!("r")).to_string();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| gateway.authorize(&agent.token, &body))).collect();
        askers.into_iter().map(|asker| asker.join().expect("an answer")).collect()
    });
    let with_receipt = answers.iter().filter(|answer| answer.body.get("receipt").is_some()).count();
    assert_eq!(with_receipt, 1);
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["decision_id"], answers[0].body["decision_id"]);
        assert_eq!(answer.body["approval"]["approval_id"], answers[0].body["approval"]["approval_id"]);
    }
    assert_eq!(list_of(&gateway.get("/v1/decisions")).len(), 1);
}

#[test]
fn a_dry_run_is_judged_in_full_and_writes_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let real = with(flat("write", true, CUSTOMER), "request_id", json!("r"));
    let dry = with(real.clone(), "dry_run", json!(true));
    for body in
        [dry.clone(), with(with(nested("a", &real), "request_id", json!("r")), "dry_run", json!(true))]
    {
        let answer = gateway.authorize(&agent.token, &body.to_string());
        assert_eq!(decision(&answer), "require_approval");
        assert_eq!((&answer.body["dry_run"], &answer.body["approval"]), (&json!(true), &Value::Null));
        assert_eq!(answer.body.get("receipt"), None);
        assert!(answer.body["action_hash"].is_string());
    }
    assert_eq!(gateway.get("/v1/decisions"), json!([]));
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"], Value::Null);
    assert_eq!(gateway.get("/v1/agents/a")["last_seen_at"], Value::Null);
    // It did not use up the request id either.
    let answer = gateway.authorize(&agent.token, &real.to_string());
    assert!(answer.body["receipt"].is_object(), "{answer:?}");
    assert_eq!(gateway.stop(), 0);
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    let count = |table: &str| {
        let count = database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
        count.expect("a count")
    };
    assert_eq!((count("decisions"), count("receipts"), count("approvals")), (1_i64, 1_i64, 1_i64));
}

// --- Reading back

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn decisions_are_filtered_by_what_is_asked_for_and_by_all_of_it() {
    let home = Home::new();
    let gateway = home.start();
    let (a, b) = (gateway.agent("a"), gateway.agent("b"));
    gateway.tool("other tool", "séarch", &json!({}));
    let trace = json!({"run_id": "run 1", "trace_id": "t&1"});
    let first =
        gateway.authorize(&a.token, &with(flat("read", false, TRUSTED), "trace", trace).to_string()).body;
    let odd = json!({"tool": "Other Tool", "action": "séarch", "resource": "a&b=c d+e%41", "mutates_state": false,
                     "parameters": {}, "source_trust": CUSTOMER});
    let second = gateway.authorize(&b.token, &odd.to_string()).body;
    let third = gateway.authorize(&a.token, &flat("write", true, UNTRUSTED).to_string()).body;
    let fourth = gateway.authorize(&b.token, &flat("write", true, CUSTOMER).to_string()).body;
    let all = [&first, &second, &third, &fourth];
    let time = |answer: &Value| {
        let id = answer["decision_id"].as_str().expect("an id");
        gateway.get(&format!("/v1/decisions/{id}"))["created_at"].as_str().expect("a time").to_owned()
    };
    let (at_second, at_third) = (time(&second), time(&third));
    // The same instant, spelled differently.
    let spelled = escaped(&at_second.replace('T', " ").replace('Z', "+00:00"));
    let hash = |answer: &Value, name: &str| answer[name].as_str().expect("a hash").to_owned();
    let second_receipt = second["receipt"]["receipt_hash"].as_str().expect("a hash");
    let uuid = &a.id;
    for (query, expected) in [
        (String::new(), vec![4, 3, 2, 1]),
        (format!("agent_id={uuid}"), vec![3, 1]),
        ("agent_id=nobody".to_owned(), vec![]),
        ("decision=allow".to_owned(), vec![2, 1]),
        ("decision=require_approval".to_owned(), vec![4]),
        ("decision=redact".to_owned(), vec![]),
        (format!("decision=allow&agent_id={uuid}"), vec![1]),
        ("skill=t".to_owned(), vec![4, 3, 1]),
        ("skill=Other+Tool".to_owned(), vec![2]),
        ("sk%69ll=Other%20Tool".to_owned(), vec![2]),
        ("action=s%C3%A9arch".to_owned(), vec![2]),
        ("resource=a%26b%3Dc+d%2Be%2541".to_owned(), vec![2]),
        ("resource=r&action=write".to_owned(), vec![4, 3]),
        ("run_id=run+1".to_owned(), vec![1]),
        ("trace_id=t%261".to_owned(), vec![1]),
        (format!("source_trust={CUSTOMER}"), vec![4, 2]),
        (format!("action_hash={}", hash(&second, "action_hash")), vec![2]),
        (format!("receipt_hash={second_receipt}"), vec![2]),
        (format!("from={}", escaped(&at_second)), vec![4, 3, 2]),
        (format!("from={spelled}&to={}", escaped(&at_third)), vec![3, 2]),
        (format!("to={spelled}"), vec![2, 1]),
        ("from=2099-01-01T00%3A00%3A00Z".to_owned(), vec![]),
        ("to=1999-12-31T23:59:59-05:00".to_owned(), vec![]),
        ("q=Other".to_owned(), vec![2]),
        ("q=%25".to_owned(), vec![2]),
        ("limit=2".to_owned(), vec![4, 3]),
        ("limit=2&offset=1".to_owned(), vec![3, 2]),
        ("limit=1&offset=1&decision=allow".to_owned(), vec![1]),
        ("limit=0".to_owned(), vec![4]),
        ("limit=-1&offset=-1".to_owned(), vec![4]),
        ("limit=x&offset=x".to_owned(), vec![4, 3, 2, 1]),
        ("offset=4".to_owned(), vec![]),
        ("&&decision=deny&".to_owned(), vec![3]),
    ] {
        let list = gateway.get(&format!("/v1/decisions?{query}"));
        let ids: Vec<&str> =
            expected.iter().map(|&n: &usize| all[n - 1]["decision_id"].as_str().expect("an id")).collect();
        assert_eq!(texts(&list, "id"), ids, "{query}");
    }
    for query in [
        "from=yesterday",
        "from=",
        "to=",
        "to=2026-13-01T00:00:00Z",
        "to=2026-01-01",
        "from=1700000000",
        "from=2026-01-01T00:00:00+01:00",
        "status=deny",
        "agent=a",
        "decision=",
        "decision=ALLOW",
        "decision=banana",
        "decision=allow&decision=deny",
        "agent_id=a&agent_id=b",
        "agent_id=%zz",
        "agent_id=%ff",
        "q=%",
    ] {
        let answer = gateway.operator("GET", &format!("/v1/decisions?{query}"), None);
        assert_failure(&answer, 400, "BadRequest");
    }
    // An empty filter value still filters: no agent has that id.
    assert_eq!(gateway.get("/v1/decisions?agent_id="), json!([]));
}

#[test]
fn a_page_has_fifty_and_never_more_than_two_hundred() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..35).for_each(|_| assert_eq!(agent.ask("read", TRUSTED).status, 200)));
        }
    });
    for path in ["/v1/decisions", "/v1/receipts"] {
        for (query, expected) in
            [("", 50), ("?limit=200", 200), ("?limit=201", 200), ("?limit=99999999999999999999", 50)]
        {
            assert_eq!(list_of(&gateway.get(&format!("{path}{query}"))).len(), expected, "{path}{query}");
        }
        assert_eq!(list_of(&gateway.get(&format!("{path}?limit=200&offset=200"))).len(), 10);
    }
    // Six concurrent clients, one order: lists follow the chain.
    let seqs: Vec<i64> = list_of(&gateway.get("/v1/receipts?limit=200"))
        .iter()
        .filter_map(|one| one["seq"].as_i64())
        .collect();
    assert_eq!(seqs, (11..=210).rev().collect::<Vec<_>>());
}

#[test]
fn a_decision_is_shown_without_parameters_and_an_unknown_one_is_not_found() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let mut body = nested("a", &flat("read", false, TRUSTED));
    body["user"] = json!({"id": "u-7", "role": "clerk"});
    let answer = gateway.authorize(&agent.token, &body.to_string()).body;
    let shown = gateway.get(&format!("/v1/decisions/{}", answer["decision_id"].as_str().expect("an id")));
    for (name, value) in [
        ("agent_id", json!(agent.id)),
        ("user_id", json!("u-7")),
        ("skill", json!("t")),
        ("action", json!("read")),
        ("resource", json!("r")),
        ("decision", json!("allow")),
        ("action_hash", answer["action_hash"].clone()),
        ("request_id", Value::Null),
        ("risk_score", json!(10)),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    for name in [
        "reason",
        "matched_policy_ids",
        "latency_ms",
        "composite_risk_score",
        "root_trust_level",
        "created_at",
    ] {
        assert!(!shown[name].is_null(), "{name}");
    }
    for name in ["input_json", "parameters", "tool_call"] {
        assert_eq!(shown.get(name), None);
    }
    for id in ["nobody", "00000000-0000-7000-8000-000000000000", "%00", "a%2Fb"] {
        assert_failure(&gateway.operator("GET", &format!("/v1/decisions/{id}"), None), 404, "NotFound");
    }
}

/// A gateway with seven receipts, of every kind but one.
fn seven_receipts(home: &Home) -> Gateway {
    let gateway = home.start();
    let agent = gateway.agent("a");
    for (action, trust) in [
        ("read", TRUSTED),
        ("write", TRUSTED),
        ("write", CUSTOMER),
        ("write", UNTRUSTED),
        ("read", UNTRUSTED),
        ("none", TRUSTED),
        ("write", CUSTOMER),
    ] {
        assert_eq!(agent.ask(action, trust).status, 200);
    }
    gateway
}

fn verify_chain(gateway: &Gateway, receipts: &str) -> Value {
    let body = format!("{{\"receipts\":{receipts}}}");
    let token = Some(gateway.token.as_str());
    let answer = try_request(gateway.address(), "POST", "/v1/receipts/verify-chain", token, Some(&body));
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

#[test]
fn the_receipts_that_are_listed_verify_as_they_came_in_both_orders_and_from_the_middle() {
    let home = Home::new();
    let gateway = seven_receipts(&home);
    let head = gateway.get("/v1/receipts/chain-head")["head"].clone();
    let token = Some(gateway.token.as_str());
    for (query, count, first) in [
        ("", 7, 1),
        ("?order=desc", 7, 1),
        ("?order=asc", 7, 1),
        ("?limit=3&offset=2", 3, 3),
        ("?order=asc&limit=3&offset=2", 3, 3),
        ("?limit=1", 1, 7),
        ("?offset=7", 0, 0),
    ] {
        let page = gateway.operator("GET", &format!("/v1/receipts{query}"), None);
        assert_eq!(list_of(&page.body).len(), count, "{query}");
        let text = String::from_utf8(page.raw).expect("text");
        let verdict = verify_chain(&gateway, &text);
        assert_eq!((&verdict["verified"], &verdict["error"]), (&json!(true), &Value::Null), "{query}");
        assert_eq!(verdict["count"], count);
        let oldest = list_of(&page.body).iter().find(|receipt| receipt["seq"] == first);
        let proven_from = oldest.map_or(json!(""), |receipt| receipt["prev_receipt_hash"].clone());
        assert_eq!(verdict["proven_from"], proven_from, "{query}");
        assert_eq!(proven_from == "", first <= 1, "{query}");
        if first + count == 8 && count > 0 {
            assert_eq!(verdict["head_hash"], head["receipt_hash"], "{query}");
        }
        // The bare list is accepted as well.
        let bare = try_request(gateway.address(), "POST", "/v1/receipts/verify-chain", token, Some(&text));
        assert_eq!(bare.expect("an answer").body, verdict, "{query}");
    }
    let answer = gateway.operator("GET", "/v1/receipts?order=sideways", None);
    assert_failure(&answer, 400, "BadRequest");
    for body in ["{}", r#"{"receipts":{}}"#, r#"{"receipts":null}"#, "5", "", "{"] {
        let answer = try_request(gateway.address(), "POST", "/v1/receipts/verify-chain", token, Some(body));
        let answer = answer.expect("an answer");
        assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
    }
}

#[test]
fn a_receipt_is_its_hashed_body_and_the_hash_and_nothing_else() {
    let home = Home::new();
    let gateway = seven_receipts(&home);
    let receipts = gateway.get("/v1/receipts?order=asc");
    let mut previous = String::new();
    for receipt in list_of(&receipts) {
        let mut body = receipt.clone();
        let members = body.as_object_mut().expect("an object");
        let hash = members.remove("receipt_hash").expect("a hash");
        for name in "event_id ts agent_id user_id run_id trace_id tool action resource source_trust decision approver \
                     action_hash prev_receipt_hash"
            .split_whitespace()
        {
            assert!(members.contains_key(name), "{name}");
        }
        assert!(members.values().all(|value| value.is_string() || value.is_i64() || value.is_null()));
        // serde_json writes maps sorted and without spaces: canonical for such plain values.
        assert_eq!(hash, sha256(body.to_string().as_bytes()));
        assert_eq!(receipt["prev_receipt_hash"], previous);
        previous = hash.as_str().expect("a hash").to_owned();
        let id = receipt["event_id"].as_str().expect("an id");
        assert_eq!(gateway.get(&format!("/v1/receipts/{id}")), *receipt);
        let verified = gateway.get(&format!("/v1/receipts/{id}/verify"));
        assert_eq!((&verified["verified"], &verified["receipt_id"]), (&json!(true), &json!(id)));
        assert_eq!((&verified["receipt_hash"], &verified["recomputed_hash"]), (&hash, &hash));
        assert_eq!((&verified["signed"], &verified["signature_verified"]), (&json!(false), &Value::Null));
    }
    let newest = &receipts[6];
    let head = gateway.get("/v1/receipts/chain-head")["head"].clone();
    for (name, member) in [
        ("receipt_id", "event_id"),
        ("receipt_hash", "receipt_hash"),
        ("prev_receipt_hash", "prev_receipt_hash"),
        ("ts", "ts"),
    ] {
        assert_eq!(head[name], newest[member], "{name}");
    }
    assert_eq!(head["canon_version"], "aegis-jcs-1");
    for id in
        ["nobody", "rcpt_1", "rcpt_1_0000000000000000", "rcpt_99999999999999999999_0", "rcpt_-1_0", "%00"]
    {
        for path in [format!("/v1/receipts/{id}"), format!("/v1/receipts/{id}/verify")] {
            assert_failure(&gateway.operator("GET", &path, None), 404, "NotFound");
        }
    }
}

#[test]
fn a_page_of_receipts_that_was_tampered_with_does_not_verify() {
    let home = Home::new();
    let gateway = seven_receipts(&home);
    for order in ["asc", "desc"] {
        let receipts = gateway.get(&format!("/v1/receipts?order={order}"));
        let broken = |what: &str, receipts: &Value| {
            let verdict = verify_chain(&gateway, &receipts.to_string());
            assert_eq!(verdict["verified"], false, "{order} {what}");
            assert!(verdict["error"].as_str().is_some_and(|error| !error.is_empty()), "{order} {what}");
        };
        for place in [0, 3, 6] {
            for name in receipts[place].as_object().expect("an object").keys() {
                for value in [json!("x"), json!(77), json!({"$serde_json::private::Number": "1"})] {
                    let mut edited = receipts.clone();
                    edited[place][name] = value;
                    broken(name, &edited);
                }
                let mut cut = receipts.clone();
                cut[place].as_object_mut().expect("an object").remove(name);
                broken(name, &cut);
            }
            for name in ["signature", "signer_public_key", "signer_key_id", "created_at", "tenant_id"] {
                let mut added = receipts.clone();
                added[place][name] = json!("forged");
                broken(name, &added);
            }
            for other in [json!(null), json!("x"), json!([]), json!({})] {
                let mut replaced = receipts.clone();
                replaced[place] = other;
                broken("replaced", &replaced);
            }
        }
        let elements = list_of(&receipts);
        for place in 1..6 {
            let mut dropped = elements.clone();
            dropped.remove(place);
            broken("dropped", &json!(dropped));
            let mut swapped = elements.clone();
            swapped.swap(place, place - 1);
            broken("swapped", &json!(swapped));
            let mut twice = elements.clone();
            twice.insert(place, elements[place].clone());
            broken("twice", &json!(twice));
        }
        let rotated: Vec<Value> = elements[3..].iter().chain(&elements[..3]).cloned().collect();
        broken("rotated", &json!(rotated));
    }
    // Tampering with a single receipt is found as well.
    let mut one = gateway.get("/v1/receipts?limit=1");
    one[0]["resource"] = json!("x");
    assert_eq!(verify_chain(&gateway, &one.to_string())["verified"], false);
}

#[test]
fn a_range_is_verified_by_instants() {
    let home = Home::new();
    let gateway = seven_receipts(&home);
    let receipts = gateway.get("/v1/receipts?order=asc");
    let ts = |n: usize| receipts[n - 1]["ts"].as_str().expect("a time");
    let hash = |n: usize| receipts[n - 1]["receipt_hash"].clone();
    let elsewhere = |n: usize| ts(n).replace('T', " ").replace('Z', "+00:00");
    let range = |body: Value| {
        let answer = gateway.operator("POST", "/v1/receipts/verify-range", Some(&body));
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!((&answer.body["verified"], &answer.body["error"]), (&json!(true), &Value::Null), "{body}");
        (answer.body["count"].as_u64().expect("a count"), answer.body["proven_from"].clone())
    };
    let whole = (7, json!(""));
    for body in [json!({}), json!({"from": null, "to": null}), json!({"other": 1})] {
        assert_eq!(range(body.clone()), whole, "{body}");
    }
    let today = format!("{}T00:00:00Z", &ts(1)[..10]);
    assert_eq!(range(json!({"from": today})), whole);
    assert_eq!(range(json!({"from": ts(1), "to": ts(7)})), whole);
    assert_eq!(range(json!({"from": ts(3), "to": ts(5)})), (3, hash(2)));
    assert_eq!(range(json!({"from": elsewhere(3), "to": elsewhere(5)})), (3, hash(2)));
    assert_eq!(range(json!({"from": ts(4)})), (4, hash(3)));
    assert_eq!(range(json!({"to": ts(2)})), (2, json!("")));
    assert_eq!(range(json!({"from": "2099-01-01T00:00:00Z"})).0, 0);
    assert_eq!(range(json!({"to": "2001-01-01T00:00:00+14:00"})).0, 0);
    // No body, with or without a Content-Length.
    for body in [Some(""), None] {
        let answer =
            try_request(gateway.address(), "POST", "/v1/receipts/verify-range", Some(&gateway.token), body);
        assert_eq!(answer.expect("an answer").body["count"], 7, "{body:?}");
    }
    for body in [
        json!({"from": "yesterday"}),
        json!({"to": 5}),
        json!({"from": ""}),
        json!({"to": "2026-02-30T00:00:00Z"}),
        // An empty range; verifying nothing must not look like an intact chain.
        json!({"from": ts(5), "to": ts(3)}),
    ] {
        let answer = gateway.operator("POST", "/v1/receipts/verify-range", Some(&body));
        assert_failure(&answer, 400, "BadRequest");
    }
}

#[test]
fn no_parameter_is_ever_shown_again_or_logged() {
    let home = Home::new().with("RUST_LOG", "trace");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let secret = "s3cr3t-parameter-value";
    let parameters = json!({"password": secret, secret: 1});
    let bodies = [
        with(flat("read", false, TRUSTED), "parameters", parameters.clone()),
        with(flat("write", true, UNTRUSTED), "parameters", parameters.clone()),
        with(with(flat("write", true, CUSTOMER), "parameters", parameters.clone()), "request_id", json!("r")),
        with(with(flat("write", true, CUSTOMER), "parameters", parameters.clone()), "request_id", json!("r")),
        with(with(flat("write", true, TRUSTED), "parameters", parameters.clone()), "request_id", json!("r")),
        with(with(flat("read", false, TRUSTED), "parameters", parameters.clone()), "dry_run", json!(true)),
        with(
            with(flat("read", false, TRUSTED), "parameters", parameters.clone()),
            "mutates_state",
            json!(secret),
        ),
        nested("somebody else", &with(flat("read", false, TRUSTED), "parameters", parameters)),
    ];
    for body in bodies {
        let text = body.to_string();
        let answers = [
            gateway.authorize(&agent.token, &text),
            gateway.authorize(&agent.token, &text[..text.len() - 1]),
            gateway.authorize("wrong-token", &text),
        ];
        for answer in answers {
            if answer.status == 200 {
                assert!(!String::from_utf8_lossy(&answer.raw).contains(secret), "{answer:?}");
            }
        }
    }
    for path in ["/v1/decisions", "/v1/receipts", "/v1/agents", "/v1/tools"] {
        let answer = gateway.operator("GET", &format!("{path}?limit=200"), None);
        assert!(!String::from_utf8_lossy(&answer.raw).contains(secret), "{path}");
    }
    gateway.logs("GET /v1/tools 200");
    let log = gateway.log();
    assert!(log.contains("POST /v1/authorize 200"), "{log}");
    for never in [secret, &agent.token, &gateway.token, "wrong-token"] {
        assert!(!log.contains(never), "{log}");
    }
    assert_eq!(gateway.stop(), 0);
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    for table in ["decisions", "receipts", "agents"] {
        let mut rows = database.prepare(&format!("SELECT * FROM {table}")).expect("a table");
        let columns = rows.column_count();
        let mut rows = rows.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            for column in 0..columns {
                let value = format!("{:?}", row.get_ref(column).expect("a value"));
                let bytes =
                    row.get_ref(column).ok().and_then(|value| value.as_bytes().ok().map(<[u8]>::to_vec));
                let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
                assert!(!text.contains(secret) && !text.contains(&agent.token), "{table}: {value}");
            }
        }
    }
}

// --- What is wrong with a request

/// A request with exactly these header lines besides Host and Connection.
fn send(gateway: &Gateway, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    raw_request(gateway.address(), &request_bytes(method, path, headers, body)).expect("an answer")
}

fn request_bytes(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        request.push_str(header);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

#[test]
fn every_error_has_the_one_body() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for path in [
        "/",
        "/v1",
        "/v2/agents",
        "/v1/nothing",
        "/v1/agents/",
        "/v1/agents//",
        "/v1/agents/a/b/c",
        "//health",
    ] {
        assert_failure(&gateway.operator("GET", path, None), 404, "NotFound");
        assert_failure(&gateway.request("GET", path, None, None), 404, "NotFound");
    }
    // There is no restore endpoint for anyone.
    for token in [Some(gateway.token.as_str()), Some(agent.token.as_str()), None] {
        let answer = gateway.request("POST", "/v1/admin/restore", token, Some(&json!({"filename": "x.db"})));
        assert_failure(&answer, 404, "NotFound");
    }
    for (method, path, allowed) in [
        ("GET", "/v1/authorize", "POST"),
        ("GET", "/v1/agents/register", "POST"),
        ("DELETE", "/v1/agents", "GET, HEAD"),
        ("POST", "/v1/agents", "GET, HEAD"),
        ("PUT", "/v1/tools", "POST, GET, HEAD"),
        ("PATCH", "/v1/receipts/chain-head", "GET, HEAD"),
        ("GET", "/v1/receipts/verify-chain", "POST"),
        ("POST", "/v1/receipts/some-id", "GET, HEAD"),
        ("GET", "/v1/admin/backup", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/decisions", "GET, HEAD"),
        ("get", "/v1/decisions", "GET, HEAD"),
    ] {
        let answer = send(&gateway, method, path, &["Content-Length: 0"], b"");
        assert_failure(&answer, 405, "MethodNotAllowed");
        assert_eq!(answer.header("Allow"), Some(allowed), "{method} {path}");
    }
    let operator = format!("Authorization: Bearer {}", gateway.token);
    for path in ["/v1/agents/register", "/v1/tools", "/v1/receipts/verify-chain", "/v1/admin/backup"] {
        assert_failure(&send(&gateway, "POST", path, &[&operator], b""), 411, "LengthRequired");
    }
    let too_large = format!("Content-Length: {}", (1 << 20) + 1);
    let answer = send(&gateway, "POST", "/v1/tools", &[&operator, &too_large], b"");
    assert_failure(&answer, 413, "PayloadTooLarge");
    let chunk = format!("{:x}\r\n{}", 1 << 20, "x".repeat(1 << 20));
    let chunked = [chunk.as_bytes(), b"\r\n1\r\nx\r\n0\r\n\r\n"].concat();
    let answer = send(&gateway, "POST", "/v1/tools", &[&operator, "Transfer-Encoding: chunked"], &chunked);
    assert_failure(&answer, 413, "PayloadTooLarge");
    let answer = send(&gateway, "GET", &format!("/{}", "x".repeat(9000)), &[], b"");
    assert_failure(&answer, 414, "UriTooLong");
    let answer = send(&gateway, "GET", "/health", &[&format!("X: {}", "x".repeat(17_000))], b"");
    assert_failure(&answer, 431, "RequestHeaderFieldsTooLarge");
    // A body of exactly the maximum size is read and processed.
    let padded = format!("{{\"skill_key\":\"{}\"}}", "x".repeat((1 << 20) - 16));
    assert_eq!(padded.len(), 1 << 20);
    let length = format!("Content-Length: {}", padded.len());
    let answer = send(&gateway, "POST", "/v1/tools", &[&operator, &length], padded.as_bytes());
    assert_failure(&answer, 400, "BadRequest");
}

#[test]
fn who_has_no_right_token_is_turned_away_before_the_body_is_looked_at() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "0");
    let gateway = home.start();
    let agent = gateway.agent("a");
    let operator_routes = [
        ("POST", "/v1/agents/register"),
        ("GET", "/v1/agents"),
        ("GET", "/v1/agents/a"),
        ("GET", "/v1/agents/%zz"),
        ("POST", "/v1/tools"),
        ("GET", "/v1/tools"),
        ("GET", "/v1/decisions"),
        ("GET", "/v1/decisions?from=rubbish"),
        ("GET", "/v1/decisions/x"),
        ("GET", "/v1/receipts"),
        ("GET", "/v1/receipts/x"),
        ("GET", "/v1/receipts/x/verify"),
        ("GET", "/v1/receipts/chain-head"),
        ("POST", "/v1/receipts/verify-chain"),
        ("POST", "/v1/receipts/verify-range"),
        ("POST", "/v1/admin/backup"),
    ];
    let upper = gateway.token.to_uppercase();
    let longer = format!("{}x", gateway.token);
    let shorter = &gateway.token[..gateway.token.len() - 1];
    for (method, path) in operator_routes.into_iter().chain([("POST", "/v1/authorize")]) {
        let try_with =
            |header: &str| send(&gateway, method, path, &[header, "Content-Length: 8"], b"not json");
        let mut bad: Vec<String> = vec![
            "X-Other: 1".to_owned(),
            "Authorization: Bearer".to_owned(),
            "Authorization:".to_owned(),
            format!("Authorization: Basic {}", gateway.token),
            format!("Authorization: {}", gateway.token),
            format!("X-Aegis-Admin-Key: {}", gateway.token),
            "Authorization: Bearer agent_tok_00000000000000000000000000000000".to_owned(),
            "Authorization: Bearer tenant_default".to_owned(),
        ];
        bad.extend([&*upper, &longer, shorter].map(|token| format!("Authorization: Bearer {token}")));
        for header in bad {
            let answer = try_with(&header);
            assert_failure(&answer, 401, "Unauthorized");
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{method} {path}");
        }
        // It does not learn of other defects either, such as a missing body.
        assert_failure(&send(&gateway, method, path, &[], b""), 401, "Unauthorized");
        let wrong_kind = if path == "/v1/authorize" { &gateway.token } else { &agent.token };
        assert_failure(&try_with(&format!("Authorization: Bearer {wrong_kind}")), 403, "Forbidden");
    }
    // Neither the scheme's case nor a tenant header matters.
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let header = format!("Authorization: {scheme} {}", gateway.token);
        let answer = send(&gateway, "GET", "/v1/agents", &[&header, "X-Aegis-Tenant-ID: other"], b"");
        assert_eq!(answer.status, 200, "{scheme}");
    }
    // Two credentials are rejected.
    let twice = format!("Authorization: Bearer {}\r\nAuthorization: Bearer wrong", gateway.token);
    let other = format!("Authorization: Bearer wrong\r\nAuthorization: Bearer {}", gateway.token);
    let statuses = [twice, other].map(|header| send(&gateway, "GET", "/v1/agents", &[&header], b"").status);
    assert!(statuses.contains(&401) || statuses.contains(&400), "{statuses:?}");
    assert_eq!(list_of(&gateway.get("/v1/agents")).len(), 1);
    assert_eq!(gateway.get("/v1/decisions"), json!([]));
}

#[test]
fn a_body_is_json_whatever_its_type_says_and_however_it_is_framed() {
    let home = Home::new();
    let gateway = home.start();
    let operator = format!("Authorization: Bearer {}", gateway.token);
    let body = json!({"agent_key": "k", "name": "n", "environment": "e", "risk_tier": "low"}).to_string();
    let length = format!("Content-Length: {}", body.len());
    for kind in [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: application/json; charset=utf-8",
        "Content-Type: text/plain",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: ",
        "X-None: 1",
    ] {
        let answer =
            send(&gateway, "POST", "/v1/agents/register", &[&operator, kind, &length], body.as_bytes());
        assert!(matches!(answer.status, 200 | 201), "{kind}: {answer:?}");
    }
    let chunked: String = body
        .as_bytes()
        .chunks(7)
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
        .collect();
    let answer = send(
        &gateway,
        "POST",
        "/v1/agents/register",
        &[&operator, "Transfer-Encoding: chunked"],
        format!("{chunked}0\r\n\r\n").as_bytes(),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    // What client libraries send without a body.
    let headers = [&operator, "Content-Type: application/json", "Content-Length: 0"];
    assert_eq!(send(&gateway, "POST", "/v1/receipts/verify-range", &headers, b"").status, 200);
    let answer = send(&gateway, "POST", "/v1/receipts/verify-range", &[&operator, "Content-Length: 1"], b"{");
    assert_failure(&answer, 400, "BadRequest");
}

#[test]
fn a_head_is_a_get_without_its_body() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("a");
    let operator = format!("Authorization: Bearer {}", gateway.token);
    for (path, headers) in [
        ("/livez", vec![]),
        ("/v1/agents", vec![operator.as_str()]),
        ("/v1/agents", vec![]),
        ("/v1/nothing", vec![operator.as_str()]),
        ("/v1/authorize", vec![operator.as_str()]),
    ] {
        let get = send(&gateway, "GET", path, &headers, b"");
        let head = raw_bytes(gateway.address(), &request_bytes("HEAD", path, &headers, b""));
        let head = String::from_utf8(head).expect("text");
        assert!(head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", get.status)), "{path}: {head}");
        let length = format!("Content-Length: {}\r\n", get.raw.len());
        assert!(head.contains(&length), "{path}: {head} {length}");
    }
}

#[test]
fn one_connection_serves_many_requests_and_a_refused_one_ends_it() {
    let home = Home::new();
    let gateway = home.start();
    let operator = format!("Authorization: Bearer {}", gateway.token);
    let keep = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{operator}\r\n\r\n");
    let mut bytes = keep("/v1/agents") + &keep("/v1/nothing");
    bytes.push_str(&keep("/livez").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let answers = String::from_utf8(raw_bytes(gateway.address(), bytes.as_bytes())).expect("text");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 3, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    // Bytes after a body of ambiguous length are never treated as a second request.
    let smuggled = format!(
        "POST /v1/receipts/verify-range HTTP/1.1\r\nHost: x\r\n{operator}\r\nContent-Length: 0\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}",
        keep("/v1/agents")
    );
    let answers = String::from_utf8(raw_bytes(gateway.address(), smuggled.as_bytes())).expect("text");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
}

#[test]
fn of_two_credentials_none_counts() {
    let home = Home::new();
    let gateway = home.start();
    for (first, second) in [(gateway.token.as_str(), "wrong"), ("wrong", gateway.token.as_str())] {
        let request = format!(
            "GET /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {first}\r\n\
             Authorization: Bearer {second}\r\n\r\n"
        );
        let answer = raw_request(gateway.address(), request.as_bytes()).expect("an answer");
        assert!(matches!(answer.status, 400 | 401), "{answer:?}");
    }
}

#[test]
fn a_list_goes_on_by_key_where_the_last_page_ended() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    for _ in 0..7 {
        assert_eq!(agent.ask("read", "unknown").status, 200);
    }
    let mut seen = Vec::new();
    let mut path = "/v1/decisions?limit=3".to_owned();
    loop {
        let page = gateway.operator("GET", &path, None);
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(page.body.as_array().expect("a list").iter().map(|one| one["id"].clone()));
        match page.header("X-Next-Cursor") {
            Some(cursor) => path = format!("/v1/decisions?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    let whole = gateway.operator("GET", "/v1/decisions", None).body;
    let all: Vec<_> = whole.as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!((seen.len(), &seen), (7, &all));

    let third = all[2].as_str().expect("an id");
    let ids = |query: &str| {
        let page = gateway.operator("GET", &format!("/v1/decisions?{query}"), None).body;
        page.as_array().expect("a list").iter().map(|one| one["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&format!("before={third}")), all[3..]);
    assert_eq!(ids(&format!("after={third}")), all[..2]);
    let receipts = gateway.operator("GET", "/v1/receipts", None).body;
    let third = receipts[2]["event_id"].as_str().expect("an id");
    let before = gateway.operator("GET", &format!("/v1/receipts?before={third}"), None).body;
    assert_eq!(before.as_array(), receipts.as_array().map(|all| all[3..].to_vec()).as_ref());
    for path in [
        "/v1/decisions?before=nothing",
        "/v1/receipts?after=nothing",
        "/v1/receipts?before=rcpt_2_0000000000000000",
        "/v1/decisions?before=1&cursor=1",
    ] {
        assert_eq!(gateway.operator("GET", path, None).status, 400, "{path}");
    }
}

#[test]
fn a_key_beyond_every_entry_finds_nothing_and_fails_nothing() {
    let home = Home::new();
    let gateway = home.start();
    assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
    for list in ["decisions", "receipts", "receipts?order=asc"] {
        for key in [format!("before={}", i64::MIN), format!("after={}", i64::MAX)] {
            for offset in [0, 1, u32::MAX] {
                let and = if list.contains('?') { '&' } else { '?' };
                let path = format!("/v1/{list}{and}{key}&offset={offset}");
                assert_eq!(gateway.get(&path), json!([]), "{path}");
            }
        }
    }
}
