//! Operator tokens: each permits what its scope says and nothing else, until it expires or is
//! revoked; and what it did is recorded under its name.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aegis_gateway::clock::timestamp_of;
use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::operator::Scope;
use aegis_gateway::domain::time::Timestamp;
use aegis_gateway::domain::tool::Tool;
use aegis_gateway::http::router::{self, Access};
use aegis_gateway::service::operators::{self, Actor, Made};
use aegis_gateway::service::{self, Error, Page, tools};
use aegis_gateway::startup::{self, Options};
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Hand, Home, assert_failure, wait_until};

const TOKENS: &str = "/v1/admin/tokens";

fn create(gateway: &Gateway, body: &Value) -> Answer {
    gateway.operator("POST", TOKENS, Some(body))
}

/// Creates a token; returns its text.
fn token(gateway: &Gateway, name: &str, scope: &str) -> String {
    let answer = create(gateway, &json!({"name": name, "scope": scope}));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["token"].as_str().expect("a token").to_owned()
}

fn revoke(gateway: &Gateway, id_or_name: &str) -> Answer {
    gateway.operator("POST", &format!("{TOKENS}/{id_or_name}/revoke"), None)
}

fn status(gateway: &Gateway, token: &str, path: &str) -> u16 {
    gateway.request("GET", path, Some(token), None).status
}

fn in_seconds(seconds: u64) -> String {
    timestamp_of(SystemTime::now() + Duration::from_secs(seconds)).to_string()
}

/// The permissions of each scope, stated independently; everything else is refused.
fn may(scope: &str, method: &str, path: &str) -> bool {
    let listed = matches!((method, path), ("GET", "/v1/admin/backups"));
    match scope {
        "admin" => path != "/v1/authorize",
        "backup" => listed || (method, path) == ("POST", "/v1/admin/backup"),
        "read" => {
            let verifies = matches!(path, "/v1/receipts/verify-chain" | "/v1/receipts/verify-range");
            let secret = matches!(path, TOKENS | "/v1/admin/backups/{id}");
            listed || verifies || (method == "GET" && !secret)
        }
        "runner" => {
            let lists = [
                "/v1/agents",
                "/v1/approvals",
                "/v1/tools",
                "/v1/decisions",
                "/v1/policies",
                "/v1/receipts",
                "/v1/stats",
            ];
            let looks = method == "GET" && lists.iter().any(|list| path.starts_with(list));
            let posts = ["/v1/agents/register", "/v1/approvals/{id}/consume", "/v1/receipts/verify-chain"];
            looks || (method == "POST" && posts.contains(&path))
        }
        _ => false,
    }
}

/// The scopes that a refusal must name.
fn needed(method: &str, path: &str) -> Vec<&'static str> {
    ["read", "runner", "backup", "admin"].into_iter().filter(|scope| may(scope, method, path)).collect()
}

#[test]
fn every_scope_opens_its_routes_and_no_other() {
    let home = Home::new().with("AEGIS_AUTH_FAILURES_PER_MINUTE", "0");
    let gateway = home.start();
    let scopes = ["admin", "backup", "read", "runner"];
    let tokens = scopes.map(|scope| (scope, token(&gateway, &format!("my-{scope}"), scope)));
    let agent = gateway.agent("a");
    let mut routes = 0;
    for (method, pattern, access) in router::table().filter(|(_, _, access)| *access != Access::Anyone) {
        routes += 1;
        let path = pattern.replace("{id}", "no-such-thing");
        let body = (method == "POST").then(|| json!({}));
        for (scope, token) in &tokens {
            let answer = gateway.request(method, &path, Some(token), body.as_ref());
            if may(scope, method, pattern) {
                assert!(!matches!(answer.status, 401 | 403), "{scope} {method} {path}: {answer:?}");
                continue;
            }
            assert_failure(&answer, 403, "Forbidden");
            let message = answer.body["message"].as_str().expect("text");
            let named = needed(method, pattern).iter().all(|scope| message.contains(scope));
            assert!(named, "{scope} {method} {path}: {message}");
        }
        if matches!(access, Access::Operator(_)) {
            let answer = gateway.request(method, &path, Some(&agent.token), body.as_ref());
            assert_failure(&answer, 403, "Forbidden");
        }
        assert_failure(&gateway.request(method, &path, None, body.as_ref()), 401, "Unauthorized");
    }
    assert!(routes > 15, "the table is the router's own: {routes}");
}

#[test]
fn a_head_needs_what_its_get_needs() {
    let home = Home::new();
    let gateway = home.start();
    let (read, backup) = (token(&gateway, "r", "read"), token(&gateway, "b", "backup"));
    assert_eq!(gateway.head("/v1/receipts", &read).status, 200);
    assert_eq!(gateway.head("/v1/receipts", &backup).status, 403);
    assert_eq!(gateway.head(TOKENS, &read).status, 403);
}

#[test]
fn a_scoped_token_does_what_it_is_for() {
    let home = Home::new();
    let gateway = home.start();
    let backup = token(&gateway, "cron", "backup");
    let taken =
        gateway.request("POST", "/v1/admin/backup", Some(&backup), Some(&json!({"filename": "b.db"})));
    assert_eq!(taken.status, 200, "{taken:?}");
    let listed = gateway.request("GET", "/v1/admin/backups", Some(&backup), None);
    assert_eq!(listed.body[0]["name"], "b.db", "{listed:?}");
    let admin = token(&gateway, "second", "admin");
    let made = gateway.request("POST", TOKENS, Some(&admin), Some(&json!({"name": "x", "scope": "read"})));
    assert_eq!(made.status, 201, "{made:?}");
    let read = made.body["token"].as_str().expect("a token");
    let verified = gateway.request("POST", "/v1/receipts/verify-range", Some(read), None);
    assert_eq!(verified.body["verified"], true, "{verified:?}");
    assert_eq!(gateway.get(TOKENS)[0]["created_by"], "second");
}

/// What client libraries do with their token.
#[test]
fn a_runner_s_token_registers_and_lists_and_neither_decides_nor_stops_anyone() {
    let home = Home::new();
    let gateway = home.start();
    gateway.agent("who-registers-the-tool");
    let runner = token(&gateway, "my-runner", "runner");
    let body = json!({"agent_key": "a", "name": "a", "environment": "production", "risk_tier": "low"});
    let register = || gateway.request("POST", "/v1/agents/register", Some(&runner), Some(&body));
    assert_eq!(register().status, 201);
    let again = register();
    assert_eq!(again.status, 200, "at every start of the process");
    let agent = again.body["agent_token"].as_str().expect("a token").to_owned();
    let call = json!({"tool": "t", "action": "read", "mutates_state": false, "parameters": {},
                      "source_trust": "trusted_internal_signed"});
    assert_eq!(gateway.authorize(&agent, &call.to_string()).body["decision"], "allow");
    let receipts = gateway.request("GET", "/v1/receipts", Some(&runner), None);
    assert_eq!(receipts.body.as_array().map(Vec::len), Some(1));
    let body = json!({"receipts": receipts.body});
    let verified = gateway.request("POST", "/v1/receipts/verify-chain", Some(&runner), Some(&body));
    assert_eq!(verified.body["verified"], true, "{verified:?}");
    let event = &gateway.get("/v1/audit/events?event_type=agent_token_rotated")[0];
    assert!(event["event_json"].as_str().expect("text").contains("my-runner"), "{event}");
    for (method, path) in [
        ("POST", "/v1/agents/a/freeze"),
        ("POST", "/v1/agents/a/unfreeze"),
        ("POST", "/v1/agents/a/rotate-token"),
        ("DELETE", "/v1/agents/a"),
        ("GET", "/v1/audit/events"),
        ("GET", TOKENS),
    ] {
        assert_failure(&gateway.request(method, path, Some(&runner), None), 403, "Forbidden");
    }
    // It is not an agent's token either.
    assert_failure(&gateway.authorize(&runner, &call.to_string()), 403, "Forbidden");
}

#[test]
fn a_token_is_shown_once_and_is_nowhere_else() {
    let home = Home::new().with("RUST_LOG", "trace");
    let gateway = home.start();
    let answer = create(&gateway, &json!({"name": "cron", "scope": "backup", "expires_at": null}));
    assert_eq!(answer.status, 201, "{answer:?}");
    let names = ["created_at", "expires_at", "id", "name", "scope", "token"];
    let mut found: Vec<&str> =
        answer.body.as_object().expect("an object").keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    let secret = answer.body["token"].as_str().expect("a token").to_owned();
    let digits = secret.strip_prefix("aegis_op_").expect("the prefix");
    assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "256 bits");

    assert_eq!(status(&gateway, &secret, "/v1/admin/backups"), 200);
    let taken = json!({"filename": "b.db"});
    assert_eq!(gateway.request("POST", "/v1/admin/backup", Some(&secret), Some(&taken)).status, 200);
    let mut answers = vec![
        gateway.operator("GET", TOKENS, None),
        gateway.operator("GET", "/v1/audit/events", None),
        create(&gateway, &json!({"name": "cron", "scope": "backup"})),
        revoke(&gateway, "cron"),
    ];
    answers.push(gateway.request("GET", "/v1/admin/backups", Some(&secret), None));
    for answer in answers {
        assert!(!String::from_utf8_lossy(&answer.raw).contains(digits), "{answer:?}");
    }
    gateway.logs("GET /v1/admin/backups 401");
    let log = gateway.log();
    assert!(log.contains("POST /v1/admin/tokens 201") && !log.contains(digits), "{log}");
    assert_eq!(gateway.stop(), 0);
    for folder in ["db", "backups"] {
        for (path, content) in home.snapshot(folder) {
            let has = content.windows(digits.len()).any(|window| window == digits.as_bytes());
            assert!(!has, "{} holds the token", path.display());
        }
    }
}

#[test]
fn tokens_are_listed_newest_first_by_page_and_without_secrets() {
    let home = Home::new();
    let gateway = home.start();
    for name in ["first", "second", "third"] {
        token(&gateway, name, "read");
    }
    let names = |path: &str| -> Vec<String> {
        let list = gateway.get(path);
        let name = |token: &Value| token["name"].as_str().expect("a name").to_owned();
        list.as_array().expect("an array").iter().map(name).collect()
    };
    assert_eq!(names(TOKENS), ["third", "second", "first"]);
    assert_eq!(names(&format!("{TOKENS}?limit=1&offset=1")), ["second"]);
    assert!(names(&format!("{TOKENS}?offset=3")).is_empty());
    let listed = gateway.get(TOKENS)[0].clone();
    let mut members: Vec<&str> = listed.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    let expected =
        ["created_at", "created_by", "expires_at", "id", "last_used_at", "name", "revoked_at", "scope"];
    assert_eq!(members, expected);
    assert_eq!((&listed["created_by"], &listed["revoked_at"]), (&json!("operator"), &Value::Null));
}

#[test]
fn a_token_that_does_not_fit_is_refused_and_leaves_nothing() {
    let home = Home::new();
    let gateway = home.start();
    let long = "x".repeat(129);
    for (body, status) in [
        (json!({"name": "", "scope": "read"}), 400),
        (json!({"name": long, "scope": "read"}), 400),
        (json!({"name": "a\nb", "scope": "read"}), 400),
        (json!({"name": "a\u{7f}", "scope": "read"}), 400),
        (json!({"name": 5, "scope": "read"}), 400),
        (json!({"scope": "read"}), 400),
        (json!({"name": "n"}), 400),
        (json!({"name": "n", "scope": "root"}), 422),
        (json!({"name": "n", "scope": "Admin"}), 422),
        (json!({"name": "n", "scope": "read", "expires_at": "tomorrow"}), 422),
        (json!({"name": "n", "scope": "read", "expires_at": ""}), 422),
        // In UTC, the year 10000. Formerly accepted; the token then failed with 503 for ever.
        (json!({"name": "n", "scope": "read", "expires_at": "9999-12-31T23:59:59-01:00"}), 422),
        (json!({"name": "n", "scope": "read", "expires_at": "2020-01-01T00:00:00Z"}), 422),
        (json!({"name": "n", "scope": "read", "expires_at": 5}), 400),
        (json!({"name": "operator", "scope": "read"}), 409),
        (json!({"name": "Operator", "scope": "read"}), 409),
    ] {
        assert_eq!(create(&gateway, &body).status, status, "{body}");
    }
    assert_eq!(gateway.get(TOKENS), json!([]));
    assert_eq!(gateway.get("/v1/audit/events"), json!([]));
    let longest = "é".repeat(128);
    assert_eq!(create(&gateway, &json!({"name": longest, "scope": "read"})).status, 201);
}

#[test]
fn a_name_is_never_used_again() {
    let home = Home::new();
    let gateway = home.start();
    let made = create(&gateway, &json!({"name": "cron", "scope": "backup"}));
    let id = made.body["id"].as_str().expect("an id").to_owned();
    let again = json!({"name": "cron", "scope": "read"});
    assert_failure(&create(&gateway, &again), 409, "AlreadyExists");
    assert_eq!(revoke(&gateway, "cron").status, 200);
    assert_failure(&create(&gateway, &again), 409, "AlreadyExists");
    // A name must not be another token's id: revoking by either must be unambiguous.
    assert_failure(&create(&gateway, &json!({"name": id, "scope": "read"})), 409, "AlreadyExists");
    // Otherwise a token without the intended expiry would go unnoticed.
    let misspelt = json!({"name": "c", "scope": "read", "expires": "2030-01-01T00:00:00Z"});
    assert_failure(&create(&gateway, &misspelt), 400, "BadRequest");
}

#[test]
fn a_revoked_token_is_refused_from_the_next_request_on() {
    let home = Home::new();
    let gateway = home.start();
    for round in 0..20 {
        let name = format!("n{round}");
        let secret = token(&gateway, &name, "read");
        // Used, and therefore cached.
        assert_eq!(status(&gateway, &secret, "/v1/receipts"), 200);
        assert_eq!(revoke(&gateway, &name).status, 200);
        assert_eq!(status(&gateway, &secret, "/v1/receipts"), 401, "round {round}");
    }
    let secret = token(&gateway, "kept", "read");
    assert_eq!(revoke(&gateway, "kept").status, 200);
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start();
    assert_eq!(status(&gateway, &secret, "/v1/receipts"), 401, "also after a restart");
}

#[test]
fn revoking_again_changes_nothing_and_an_unknown_token_is_not_found() {
    let home = Home::new();
    let gateway = home.start();
    let made = create(&gateway, &json!({"name": "two words/é", "scope": "read"}));
    let id = made.body["id"].as_str().expect("an id");
    let first = revoke(&gateway, "two%20words%2F%C3%A9");
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.body["revoked_at"].is_string(), "{first:?}");
    let again = revoke(&gateway, id);
    assert_eq!((again.status, &again.body["revoked_at"]), (200, &first.body["revoked_at"]));
    assert_failure(&revoke(&gateway, "nobody"), 404, "NotFound");
    let revoked = gateway.get("/v1/audit/events");
    let count = revoked.as_array().expect("events").iter().filter(|event| event["action"] == "token_revoked");
    assert_eq!(count.count(), 1, "{revoked}");
}

#[test]
fn an_expired_token_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let ends = in_seconds(2);
    let made = create(&gateway, &json!({"name": "short", "scope": "read", "expires_at": ends}));
    assert_eq!((made.status, made.body["expires_at"].as_str()), (201, Some(ends.as_str())), "{made:?}");
    let secret = made.body["token"].as_str().expect("a token").to_owned();
    assert_eq!(status(&gateway, &secret, "/v1/receipts"), 200);
    wait_until("the token has expired", || status(&gateway, &secret, "/v1/receipts") == 401);
    assert!(timestamp_of(SystemTime::now()).to_string() >= ends, "not before its time");
    let later = create(&gateway, &json!({"name": "long", "scope": "read", "expires_at": in_seconds(3600)}));
    let later = later.body["token"].as_str().expect("a token").to_owned();
    assert_eq!(status(&gateway, &later, "/v1/receipts"), 200);
}

#[test]
fn a_guess_is_refused() {
    let home = Home::new();
    let gateway = home.start();
    let secret = token(&gateway, "n", "admin");
    let zeros = format!("aegis_op_{}", "0".repeat(64));
    for guess in ["aegis_op_", &zeros, &secret[..secret.len() - 1], &format!("{secret}0"), "operator"] {
        assert_eq!(status(&gateway, guess, "/v1/receipts"), 401, "{guess}");
    }
}

#[test]
fn the_log_says_who_called() {
    let home = Home::new();
    let gateway = home.start();
    let cron = token(&gateway, "cron", "backup");
    let odd = token(&gateway, "caf\u{e9} \u{202e}x", "read");
    let taken = json!({"filename": "b.db"});
    assert_eq!(gateway.request("POST", "/v1/admin/backup", Some(&cron), Some(&taken)).status, 200);
    assert_eq!(status(&gateway, &cron, "/v1/receipts"), 403);
    assert_eq!(status(&gateway, &odd, "/v1/tools"), 200);
    gateway.get("/v1/decisions");
    gateway.agent("a").ask("read", "trusted_internal_signed");
    let line = |start: &str| {
        let log = gateway.log();
        let found = log.lines().find(|line| line.contains(start)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("{start}: {log}"))
    };
    // An answer may arrive before its log line.
    wait_until("the last line is there", || gateway.log().contains("POST /v1/authorize 200"));
    assert!(line("POST /v1/admin/backup 200").ends_with(" by cron"));
    assert!(line("GET /v1/receipts 403").ends_with(" by cron"), "also who was refused");
    assert!(line("GET /v1/tools 200").ends_with(" by caf\u{e9} \\u{202e}x"));
    assert!(line("GET /v1/decisions 200").ends_with(" by operator"));
    assert!(!line("POST /v1/authorize 200").contains(" by "));
}

#[test]
fn the_last_use_is_noted_once_a_minute_and_no_read_writes_more() {
    let home = Home::new();
    let gateway = home.start();
    let secret = token(&gateway, "n", "read");
    assert_eq!(gateway.get(TOKENS)[0]["last_used_at"], Value::Null);
    assert_eq!(status(&gateway, &secret, "/v1/receipts"), 200);
    let mut noted = Value::Null;
    wait_until("the use is noted", || {
        noted = gateway.get(TOKENS)[0]["last_used_at"].clone();
        noted.is_string()
    });
    let log = home.beside("-wal");
    let before = fs::metadata(&log).expect("a log").modified().expect("a time");
    for _ in 0..50 {
        assert_eq!(status(&gateway, &secret, "/v1/receipts"), 200);
    }
    assert_eq!(gateway.get(TOKENS)[0]["last_used_at"], noted);
    let after = fs::metadata(&log).expect("a log").modified().expect("a time");
    assert_eq!(before, after, "fifty reads wrote nothing");
}

#[test]
fn of_many_at_once_one_gets_the_name() {
    let home = Home::new();
    let gateway = home.start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let create = || create(&gateway, &json!({"name": "one", "scope": "read"})).status;
        let all: Vec<_> = (0..16).map(|_| scope.spawn(create)).collect();
        all.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 15, "{statuses:?}");
    assert_eq!(gateway.get(TOKENS).as_array().map(Vec::len), Some(1));
}

fn tool() -> Tool {
    Tool {
        id: String::new(),
        skill_key: "t".to_owned(),
        name: "t".to_owned(),
        kind: "test".to_owned(),
        auth_type: None,
        owner_team: None,
        default_risk: None,
        actions: Vec::new(),
    }
}

#[test]
fn a_token_that_ends_after_it_was_admitted_changes_nothing_any_more() {
    let home = Home::new();
    let clock = Arc::new(Hand::default());
    let started = startup::start(&Options::new(&home.path("a.db"), &home.path("backups")), &*clock)
        .expect("a new database");
    let gateway =
        service::Gateway::new(started.store, clock.clone(), started.backups, Hash::of(b"configured"));
    let make = |name: &str, ends: i64| -> Made {
        let ends = Some(Timestamp::from_micros(0).plus_seconds(ends));
        operators::create(&gateway, Actor::configured(), name.to_owned(), Scope::Admin, ends).expect("made")
    };
    let admitted = |made: &Made| operators::authenticate(&gateway, Hash::of(made.text.as_bytes()));
    let (revoked, expired) = (make("revoked", 100), make("expired", 50));
    let actors = [&revoked, &expired].map(|made| admitted(made).expect("read").expect("live"));
    tools::register(&gateway, actors[0].clone(), tool()).expect("while it lives");

    operators::revoke(&gateway, Actor::configured(), "revoked").expect("revoked");
    clock.set(50);
    for (made, actor) in [&revoked, &expired].into_iter().zip(actors) {
        assert_eq!(admitted(made).expect("read"), None, "{made:?}");
        let refused = tools::register(&gateway, actor.clone(), Tool { skill_key: "u".to_owned(), ..tool() });
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
        let refused = operators::create(&gateway, actor, "more".to_owned(), Scope::Admin, None);
        assert!(matches!(refused, Err(Error::Unauthorized)), "{refused:?}");
    }
    let page = Page { limit: 10, offset: 0 };
    assert_eq!(tools::list(&gateway, page).expect("listed").len(), 1);
    assert_eq!(operators::list(&gateway, page).expect("listed").len(), 2);
    gateway.store.close().expect("closed");
    started.guard.release().expect("released");
}
