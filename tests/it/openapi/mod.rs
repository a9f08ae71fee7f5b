//! `GET /v1/openapi.json`: the contract is true. Every answer that it names is provoked from
//! a running gateway and judged by it, and no answer is one that it does not name.

mod cases;
mod document;
mod refusals;
mod walk;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use self::document::{Document, Key, members};
use self::walk::{Walk, case};
use crate::support::{Gateway, Home, wait_until};

/// A status that cannot be provoked here, and the test that provokes it elsewhere.
struct Elsewhere {
    status: u16,
    why: &'static str,
    source: &'static str,
    test: &'static str,
}

const ELSEWHERE: [Elsewhere; 2] = [
    Elsewhere {
        status: 504,
        why: "a backup may take long, so the gate waits six hours for an answer",
        source: include_str!("../gate/limits.rs"),
        test: "an_answer_that_does_not_come_meets_504_and_its_upstream_is_replaced",
    },
    Elsewhere {
        status: 500,
        why: "no handler fails on demand, but those that read the backups' folder",
        source: include_str!("../gate/relay.rs"),
        test: "a_panic_in_a_handler_is_a_500_and_the_worker_lives",
    },
];

fn served(gateway: &Gateway) -> Document {
    Document::new(gateway.get("/v1/openapi.json"))
}

/// The key of an agent that is quarantined.
const SET_APART: &str = "set-apart";

/// A gateway that has one: no request quarantines an agent.
fn with_agent_set_apart(home: &Home) -> Gateway {
    let gateway = home.start();
    gateway.agent(SET_APART);
    assert_eq!(gateway.stop(), 0);
    home.sql("UPDATE agents SET status = 'quarantined', quarantined_at = updated_at");
    home.start()
}

fn backup_token(gateway: &Gateway) -> String {
    let body = json!({"name": "cron", "scope": "backup"});
    let made = gateway.operator("POST", "/v1/admin/tokens", Some(&body));
    made.body["token"].as_str().unwrap_or_else(|| panic!("{made:?}")).to_owned()
}

/// What a gateway that is well answers.
fn walk_a_sound_one(walk: &Walk, gateway: &Gateway) {
    let agent = gateway.agent("walker");
    refusals::malformed(walk, gateway);
    refusals::unauthorized(walk, gateway, &agent.token, &backup_token(gateway));
    cases::about(walk, gateway);
    cases::tools(walk, gateway);
    cases::agents(walk, gateway, SET_APART);
    cases::authorize(walk, gateway, &agent);
    cases::approvals(walk, gateway, &agent);
    cases::decisions(walk, gateway);
    cases::receipts(walk, gateway);
    cases::policies(walk, gateway, &agent);
    cases::operators(walk, gateway);
    cases::backups(walk, gateway);
}

/// What one answers that has too much to do, and loses its folders.
fn walk_an_ailing_one(walk: &Walk) {
    let home = Home::new()
        .with("AEGIS_AUTH_FAILURES_PER_MINUTE", "1")
        .with("AEGIS_APPROVAL_TTL_SECS", "1")
        .with("AEGIS_MAX_BODY_BYTES", "67108864");
    let gateway = home.start();
    let (approval, _) = cases::approval(&gateway, &gateway.agent("walker"));
    refusals::too_many(walk, &gateway);
    refusals::overloaded(walk, &gateway);
    let path = format!("/v1/approvals/{approval}");
    wait_until("the approval has expired", || gateway.get(&path)["status"] == "EXPIRED");
    cases::expired(walk, &gateway, &approval);

    let folder = home.path("backups");
    fs::remove_dir_all(&folder).expect("removed");
    fs::write(&folder, "a file").expect("written");
    walk.take_all(
        &gateway,
        [
            case("POST /v1/admin/backup", 500).body(&json!({"filename": "b.db"})),
            case("GET /v1/admin/backups", 500),
            case("GET /v1/admin/backups/{id}", 500).id("b.db"),
        ],
    );
    fs::rename(home.database(), home.path("db/elsewhere")).expect("moved");
    walk.take_all(
        &gateway,
        [
            case("POST /v1/agents/register", 503).body(&json!({"agent_key": "k", "name": "n",
                                                               "environment": "e", "risk_tier": "low"})),
            case("GET /health", 503),
            case("GET /readyz", 503),
        ],
    );
}

/// What one answers that may not write more than a few hundred kilobytes to a file.
fn walk_a_full_one(walk: &Walk) {
    let home = Home::new();
    let rule = json!({"id": "r", "effect": "deny", "when": {"tool": "no"}, "reason": "x"});
    let mut body = json!({"rules": [rule]}).to_string();
    body.push_str(&" ".repeat(500_000));
    let policy = |key: &str| json!({"policy_key": key, "name": "n", "body": body});
    let gateway = home.start();
    for key in ["a", "b", "c"] {
        assert_eq!(gateway.operator("POST", "/v1/policies", Some(&policy(key))).status, 201);
    }
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start_after("ulimit -f 1200");
    walk.take(&gateway, case("POST /v1/admin/backup", 507).body(&json!({"filename": "b.db"})));
    let put = |key: &str| gateway.operator("POST", "/v1/policies", Some(&policy(key)));
    let refused = ["a", "b", "c", "a"].map(put).into_iter().find(|answer| answer.status != 201);
    walk.note("POST /v1/policies", 503, &refused.expect("the limit is reached"));
}

#[test]
fn every_answer_of_every_operation_is_provoked_and_is_as_the_contract_says() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "0");
    let gateway = with_agent_set_apart(&home);
    let walk = Walk::new(served(&gateway));
    let dribbled = refusals::Dribbled::begin(&walk, &gateway);
    walk_a_sound_one(&walk, &gateway);
    walk_an_ailing_one(&walk);
    walk_a_full_one(&walk);
    dribbled.end(&walk);
    let (said, seen) = (walk.document.keys(), walk.seen());
    assert_eq!(seen.difference(&said).collect::<Vec<_>>(), Vec::<&Key>::new());
    let mut missing: BTreeSet<&Key> = said.difference(&seen).collect();
    for Elsewhere { status, why, source, test } in ELSEWHERE {
        assert!(source.contains(&format!("fn {test}()")), "{status}: there is no test {test}");
        let before = missing.len();
        missing.retain(|(_, missed, _)| *missed != status);
        assert!(missing.len() < before, "{status} is provoked here, whatever is said: {why}");
    }
    assert_eq!(missing, BTreeSet::new(), "said to be answered, and not provoked");
    assert_eq!(walk.codes(), texts(&walk.document.root["components"]["schemas"]["Code"]["enum"]));
}

fn texts(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_contract_is_for_anyone_and_names_the_version_that_runs() {
    let home = Home::new();
    let gateway = home.start();
    let get = || gateway.request("GET", "/v1/openapi.json", None, None);
    let answer = get();
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(answer.raw, get().raw);
    assert_eq!(answer.body["info"]["version"], gateway.get("/v1/version")["version"]);
    let length = answer.raw.len().to_string();
    assert_eq!(gateway.head("/v1/openapi.json", "none").header("Content-Length"), Some(length.as_str()));
}

#[test]
fn the_contract_is_openapi_and_each_of_its_schemas_is_one() {
    let home = Home::new();
    let document = served(&home.start());
    let shape = serde_json::from_str(include_str!("shape.json")).expect("JSON");
    document.check(&shape, &document.root).unwrap_or_else(|why| panic!("{why}"));
    let operations = document.operations();
    let names = |member: &str| -> BTreeSet<&str> {
        operations.iter().filter_map(|(_, operation)| operation[member].as_str()).collect()
    };
    assert_eq!(names("operationId").len(), operations.len(), "each name once");
    let used: BTreeSet<String> = operations.iter().flat_map(|(_, one)| texts(&one["tags"])).collect();
    let tags = document.root["tags"].as_array().expect("tags");
    assert_eq!(used, texts(&tags.iter().map(|tag| tag["name"].clone()).collect()));
    for (name, operation) in &operations {
        let (_, path) = name.split_once(' ').expect("a path");
        let on_path = document.root["paths"][path]["parameters"].as_array();
        let all = on_path.into_iter().chain(operation["parameters"].as_array()).flatten();
        let in_path = all.filter(|parameter| document.resolved(parameter)["in"] == "path").count();
        assert_eq!(in_path, path.matches("{id}").count(), "{name}");
    }
}

/// Every schema that has examples, and its examples.
fn examples<'a>(value: &'a Value, found: &mut Vec<(&'a Value, &'a Value)>) {
    match value {
        Value::Object(members) => {
            let own = members.get("examples").and_then(Value::as_array);
            found.extend(own.into_iter().flatten().map(|example| (value, example)));
            members.values().for_each(|member| examples(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| examples(item, found)),
        _ => {}
    }
}

#[test]
fn every_example_is_valid_and_so_is_the_built_in_pack() {
    let home = Home::new();
    let gateway = home.start();
    let document = served(&gateway);
    let mut found = Vec::new();
    examples(&document.root, &mut found);
    assert!(found.len() > 10, "{found:?}");
    let pack = gateway.get("/v1/policies")[0]["body"].clone();
    found.push((&document.root["components"]["schemas"]["PolicyBody"], &pack));
    for (schema, example) in found {
        document.check(schema, example).unwrap_or_else(|why| panic!("{why}\n{example}"));
    }
    let no_document = json!("{\"rules\":[{\"id\":\"r\",\"effect\":\"deny\"}]}");
    assert!(document.check(&document.root["components"]["schemas"]["PolicyBody"], &no_document).is_err());
}

/// Bodies that are taken, and whose texts may be as long as the contract says.
fn bodies() -> [(&'static str, u16, Value); 4] {
    let agent = json!({"agent_key": "", "name": "", "environment": "", "risk_tier": "low", "owner_team": "",
                       "owner_email": "", "framework": "", "model_provider": "", "model_name": "",
                       "purpose": "", "signing_key": ""});
    let tool = json!({"skill_key": "", "name": "", "type": "", "auth_type": "", "owner_team": "",
                      "default_risk": "", "actions": []});
    let token = json!({"name": "", "scope": "read"});
    let call = json!({"tool": "", "action": "", "resource": "", "mutates_state": false, "parameters": 1,
                      "source_trust": "", "request_id": "", "nonce": ""});
    [
        ("POST /v1/agents/register", 201, agent),
        ("POST /v1/tools", 200, tool),
        ("POST /v1/admin/tokens", 201, token),
        ("POST /v1/authorize", 200, call),
    ]
}

/// The longest text that a member may be by the contract: what is one longer is refused.
fn longest(document: &Document, operation: &str, body: &Value, member: &str) -> usize {
    let schema = &document.request_schema(operation);
    let fits = |length: usize| {
        let mut body = body.clone();
        body[member] = json!("a".repeat(length));
        document.check(schema, &body).is_ok()
    };
    let (mut low, mut high) = (1, 1 << 16);
    assert!(fits(low) && !fits(high), "{operation}: {member} has no limit");
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn a_text_may_be_as_long_as_the_contract_says_and_not_a_character_longer() {
    let home = Home::new();
    let gateway = home.start();
    let (document, agent) = (served(&gateway), gateway.agent("walker"));
    for (operation, taken, empty) in bodies() {
        let (method, path) = operation.split_once(' ').expect("a path");
        let texts = members(&empty).iter().filter(|(_, value)| **value == "");
        let texts: Vec<&String> = texts.map(|(name, _)| name).collect();
        let mut body = empty.clone();
        texts.iter().for_each(|name| body[name.as_str()] = json!("x"));
        let token = if path == "/v1/authorize" { &agent.token } else { &gateway.token };
        for (number, name) in texts.into_iter().enumerate() {
            let longest = longest(&document, operation, &body, name);
            for (length, status) in [(longest, taken), (longest + 1, 400)] {
                let mut body = body.clone();
                // What has to be unique is.
                for unique in ["agent_key", "request_id", "nonce"] {
                    if body.get(unique).is_some() {
                        body[unique] = json!(format!("u{number}{length}"));
                    }
                }
                body[name.as_str()] = json!(char::from(b'a' + number as u8).to_string().repeat(length));
                let answer = gateway.request(method, path, Some(token), Some(&body));
                assert_eq!(answer.status, status, "{operation}: {name} of {length}: {answer:?}");
            }
        }
    }
}
