//! Statistics: exact whatever happens, without scanning the history.

use std::fs;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Gateway, Home, try_request};

const TRUSTED: &str = "trusted_internal_signed";

/// The result of counting every row, read while the gateway runs.
fn recounted(home: &Home) -> Value {
    let database = Connection::open(home.database()).expect("a database");
    let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let of = |outcome: &str| number(&format!("SELECT count(*) FROM decisions WHERE decision = '{outcome}'"));
    let known = "('trusted_internal_signed', 'trusted_internal_unsigned', 'semi_trusted_customer', \
                 'untrusted_external', 'malicious_suspected', 'unknown')";
    let mut levels = database
        .prepare(&format!(
            "SELECT iif(root_trust_level IN {known}, root_trust_level, 'unrecognized') AS level, count(*) \
             FROM decisions GROUP BY level ORDER BY level"
        ))
        .expect("a table");
    let level = |row: &rusqlite::Row<'_>| {
        Ok(json!({"trust_level": row.get::<_, String>(0)?, "count": row.get::<_, i64>(1)?}))
    };
    let levels: Vec<Value> =
        levels.query_map([], level).expect("rows").map(|row| row.expect("a row")).collect();
    json!({
        "total_decisions": number("SELECT count(*) FROM decisions"),
        "decisions_allow": of("allow"),
        "decisions_deny": of("deny"),
        "decisions_require_approval": of("require_approval"),
        "decisions_redact": of("redact"),
        "total_agents": number("SELECT count(*) FROM agents WHERE status <> 'deleted'"),
        "total_receipts": number("SELECT count(*) FROM receipts"),
        "trust_level_breakdown": levels,
    })
}

/// Concurrent decisions of every kind, and requests that make none.
fn ask_for_everything(gateway: &Gateway) {
    let agent = gateway.agent("a");
    let stopped = gateway.agent("stopped");
    gateway.tool("secrets", "rotate_credential", &json!({}));
    gateway.operator("POST", "/v1/agents/stopped/freeze", None);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (agent, stopped) = (&agent, &stopped);
            scope.spawn(move || {
                let levels = [TRUSTED, "semi_trusted_customer", "untrusted_external", "unknown", "made up", ""];
                for trust in levels {
                    assert_eq!(agent.ask("read", trust).status, 200);
                    assert_eq!(agent.ask("write", trust).status, 200);
                }
                stopped.ask("read", TRUSTED);
                let own = json!({"tool": "secrets", "action": "rotate_credential", "mutates_state": false,
                                 "parameters": {}, "source_trust": TRUSTED, "request_id": format!("r{thread}")});
                for _ in 0..3 {
                    // The second and the third get the first one's answer.
                    assert_eq!(gateway.authorize(&agent.token, &own.to_string()).body["decision"], "redact");
                }
                let reused = own.to_string().replace(TRUSTED, "unknown");
                assert_eq!(gateway.authorize(&agent.token, &reused).status, 409);
                let dry = own.to_string().replacen('{', "{\"dry_run\":true,", 1);
                assert_eq!(gateway.authorize(&agent.token, &dry).status, 200);
                assert_eq!(gateway.authorize(&agent.token, "{").status, 400);
            });
        }
    });
}

#[test]
fn the_numbers_are_those_of_a_recount() {
    let home = Home::new();
    let gateway = home.start();
    assert_eq!(gateway.get("/v1/stats"), recounted(&home), "of nothing");
    ask_for_everything(&gateway);
    let stats = gateway.get("/v1/stats");
    assert_eq!(stats, recounted(&home));
    assert_eq!(stats["total_decisions"], 4 * (12 + 1 + 1));
    assert_eq!(stats["decisions_redact"], 4);
    assert_eq!(stats["total_agents"], 2);
    gateway.operator("DELETE", "/v1/agents/stopped", None);
    assert_eq!(gateway.get("/v1/stats")["total_agents"], 1);
    gateway.kill();
    let gateway = home.start();
    assert_eq!(gateway.get("/v1/stats"), recounted(&home), "after a kill");
}

#[test]
fn decisions_from_before_they_were_counted_are_counted() {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("made");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schema_0002.db");
    fs::copy(golden, home.database()).expect("copied");
    let gateway = home.start();
    let stats = gateway.get("/v1/stats");
    assert_eq!(stats["total_decisions"], 10, "{stats}");
    assert_eq!(stats, recounted(&home));
    ask_for_everything(&gateway);
    assert_eq!(gateway.get("/v1/stats"), recounted(&home));
}

#[test]
fn the_tables_have_the_rows_that_are_said() {
    let home = Home::new();
    let gateway = home.start();
    ask_for_everything(&gateway);
    gateway.tool("t", "read", &json!({"risk": "high"}));
    gateway.register("signs", &json!({"signing_key": "k"}));
    gateway.operator("POST", "/v1/admin/tokens", Some(&json!({"name": "n", "scope": "read"})));
    let shown = gateway.get("/v1/admin/db-stats");
    let database = Connection::open(home.database()).expect("a database");
    let tables = shown["tables"].as_array().expect("an array");
    let mut names = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .expect("a schema");
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).expect("rows").map(|n| n.expect("text")).collect();
    assert_eq!(tables.iter().map(|table| table["table"].as_str().expect("text")).collect::<Vec<_>>(), names);
    for table in tables {
        let sql = format!("SELECT count(*) FROM {}", table["table"].as_str().expect("a name"));
        let rows: i64 = database.query_row(&sql, [], |row| row.get(0)).expect("counted");
        assert_eq!(table["row_count"], rows, "{table}");
    }
    let bytes: i64 = database
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
            row.get(0)
        })
        .expect("a size");
    assert_eq!(shown["size_bytes"], bytes);
}

#[test]
fn the_version_is_told_to_anyone() {
    let home = Home::new();
    let gateway = home.start();
    let answer = try_request(gateway.address(), "GET", "/v1/version", None, None).expect("an answer");
    let hash = option_env!("AEGIS_BUILD_HASH").unwrap_or("unknown");
    let expected = json!({"version": env!("CARGO_PKG_VERSION"), "build_hash": hash, "name": "aegis-gateway"});
    assert_eq!((answer.status, answer.body), (200, expected));
    for path in ["/v1/stats", "/v1/admin/db-stats"] {
        assert_eq!(try_request(gateway.address(), "GET", path, None, None).expect("an answer").status, 401);
    }
}

/// The value on a metric's line; `name` includes its labels.
fn metric(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {page}"))
}

#[test]
fn the_metrics_are_what_was_recorded_and_answered() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    (0..5).for_each(|_| assert_eq!(agent.ask("read", TRUSTED).status, 200));
    assert_eq!(agent.ask("write", "unknown").body["decision"], "deny");
    gateway.backup(&home, "b.db");
    let answer = gateway.operator("GET", "/metrics", None);
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/plain; version=0.0.4")));
    let page = String::from_utf8(answer.raw).expect("text");
    for (name, value) in [
        ("aegis_decisions_total{decision=\"allow\"}", 5.0),
        ("aegis_decisions_total{decision=\"deny\"}", 1.0),
        ("aegis_receipts_total", 6.0),
        ("aegis_agents", 1.0),
        ("aegis_authorize_duration_seconds_bucket{le=\"+Inf\"}", 6.0),
        ("aegis_authorize_duration_seconds_count", 6.0),
    ] {
        assert!((metric(&page, name) - value).abs() < 1e-9, "{name} {value} in {page}");
    }
    assert!(metric(&page, "aegis_http_requests_total{code=\"200\"}") >= 7.0, "{page}");
    assert!(metric(&page, "aegis_database_bytes") >= 4096.0, "{page}");
    assert!(metric(&page, "aegis_last_backup_timestamp_seconds") > 1.7e9, "{page}");
    // Cumulative, as Prometheus requires.
    let buckets: Vec<f64> = page
        .lines()
        .filter(|line| line.starts_with("aegis_authorize_duration_seconds_bucket"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    assert!(buckets.len() > 5 && buckets.is_sorted(), "{buckets:?}");
    // Every family is described exactly once.
    let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let distinct: std::collections::BTreeSet<&&str> = types.iter().collect();
    assert_eq!(types.len(), distinct.len(), "{types:?}");
}
