//! Benchmarks of the real gateway, run by `scripts/bench.sh`, which prints their lines as a
//! table. Every figure is reported next to its baseline from the same run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::load::{Load, Measured};
use super::scale::generate;
use super::support::{Gateway, Home, verify};

const SECONDS: Duration = Duration::from_secs(6);

fn line(what: &str, value: String) {
    println!("| {what:<58} | {value:<58} |");
}

/// The median of three runs, because these machines are noisy.
fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut all = [measure(), measure(), measure()];
    all.sort_by(f64::total_cmp);
    all[1]
}

fn seconds(task: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    task();
    begin.elapsed().as_secs_f64()
}

fn load<'a>(gateway: &Gateway, token: &'a str, clients: usize, rate: Option<f64>, mutates: bool) -> Load<'a> {
    let action = if mutates { "write" } else { "read" };
    Load { address: gateway.address(), token, action, mutates_state: mutates, clients, rate }
}

/// One commit per request with `synchronous=FULL`, from 32 threads on one connection: the upper
/// bound for a gateway without group commit.
fn commits_per_second_one_by_one(folder: &Path) -> f64 {
    let connection = Connection::open(folder.join("plain.db")).expect("a database");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b TEXT);",
        )
        .expect("a schema");
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < Duration::from_secs(3) {
        let mut insert =
            connection.prepare_cached("INSERT INTO t (a, b) VALUES (?1, ?2)").expect("a statement");
        insert.execute((format!("{count:064}"), "x".repeat(700))).expect("inserted");
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

/// Sleeps: the measurement covers what happens in the meantime.
fn pass(duration: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    assert!(receiver.recv_timeout(duration).is_err());
}

#[test]
#[ignore = "a benchmark; run by scripts/bench.sh"]
fn throughput() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("load");
    let plain = commits_per_second_one_by_one(&home.path(""));
    line("one commit a request, synchronous=FULL, no HTTP", format!("{plain:.0}/s"));
    for mutates in [false, true] {
        for clients in [1, 32, 64, 256] {
            let run = load(&gateway, &agent.token, clients, None, mutates).run_for(SECONDS);
            assert_eq!(run.failed, 0, "no request fails");
            let kind = if mutates { "mutating" } else { "reading" };
            let rate = run.per_second();
            line(
                &format!("{kind} authorizations, {clients} clients"),
                format!(
                    "{rate:.0}/s = {:.1} x, p50 {:.1}, p99 {:.1} ms",
                    rate / plain,
                    run.p(0.5),
                    run.p(0.99)
                ),
            );
        }
    }
    let report = gateway.operator("POST", "/v1/receipts/verify-range", None);
    assert_eq!(report.body["verified"], true, "{report:?}");
}

#[test]
#[ignore = "a benchmark; run by scripts/bench.sh"]
fn rules() {
    let by_tool = |number| json!({"tool": format!("tool-{number}*"), "mutates_state": true});
    let by_resource = |number| json!({"resource": format!("*/secret-{number}/*")});
    let mut without = None;
    for count in [0, 10, 200, 2000] {
        rules_of("tools", count, &by_tool, &mut without);
    }
    for count in [10, 200, 2000] {
        rules_of("resources", count, &by_resource, &mut without);
    }
}

/// Loads a gateway whose only policy has `count` rules; reports its rate next to `without` rules.
fn rules_of(what: &str, count: usize, when: &dyn Fn(usize) -> Value, without: &mut Option<f64>) {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("load");
    if count > 0 {
        let rule = |number| json!({"id": format!("r{number}"), "effect": "deny", "when": when(number)});
        let rules: Vec<Value> = (0..count).map(rule).collect();
        let policy = json!({"policy_key": "k", "name": "n", "body": {"rules": rules}});
        assert_eq!(gateway.operator("POST", "/v1/policies", Some(&policy)).status, 201);
    }
    let run = load(&gateway, &agent.token, 32, None, true).run_for(SECONDS);
    assert_eq!(run.failed, 0, "no request fails");
    let rate = run.per_second();
    line(
        &format!("mutating, 32 clients, {count} rules by globs of {what}"),
        format!("{rate:.0}/s = {:.2} x, p99 {:.1} ms", rate / *without.get_or_insert(rate), run.p(0.99)),
    );
}

/// Receipt counts of the large databases, from `AEGIS_BENCH_RECEIPTS` (comma-separated).
fn sizes() -> Vec<u64> {
    let told = std::env::var("AEGIS_BENCH_RECEIPTS").unwrap_or_else(|_| "10000,1000000".to_owned());
    told.split(',').map(|size| size.trim().parse().expect("numbers, separated by commas")).collect()
}

fn large_home(receipts: u64) -> Home {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    generate(&home.database(), receipts);
    home
}

#[test]
#[ignore = "a benchmark; run by scripts/bench.sh"]
fn scale() {
    for receipts in sizes() {
        let home = large_home(receipts);
        let size = fs::metadata(home.database()).expect("a database").len();
        line(&format!("-- {receipts} receipts"), format!("{} MB", size >> 20));
        let mut gateway = None;
        let start = seconds(|| gateway = Some(home.start()));
        let gateway = gateway.expect("started");
        line("start-up", format!("{:.0} ms", start * 1000.0));
        let agent = gateway.agent("load");
        let run = load(&gateway, &agent.token, 32, None, true).run_for(SECONDS);
        line("authorize, 32 clients", format!("{:.0}/s, p99 {:.1} ms", run.per_second(), run.p(0.99)));
        lists(&gateway, receipts);
        checks(&home, gateway);
    }
}

fn lists(gateway: &Gateway, receipts: u64) {
    let deep = receipts * 9 / 10;
    for path in [
        "/readyz".to_owned(),
        "/v1/decisions?limit=50".to_owned(),
        "/v1/decisions?limit=50&decision=redact".to_owned(),
        "/v1/decisions?limit=50&run_id=none".to_owned(),
        format!("/v1/decisions?limit=50&offset={deep}"),
        format!("/v1/decisions?limit=50&before={}", receipts - deep),
        "/v1/decisions?limit=50&from=2026-05-28T20:26:40Z&to=2026-05-28T20:26:50Z".to_owned(),
        format!("/v1/receipts?limit=50&offset={deep}"),
        format!("/v1/receipts?limit=50&before={}", receipts - deep),
        "/v1/agents".to_owned(),
    ] {
        let time =
            median(|| seconds(|| assert_eq!(gateway.operator("GET", &path, None).status, 200, "{path}")));
        line(&format!("GET {path}"), format!("{:.1} ms", time * 1000.0));
    }
}

/// Backup and verification, compared with the sqlite3 shell's `VACUUM INTO`, `cp`, and SHA-256
/// of the same bytes.
fn checks(home: &Home, gateway: Gateway) {
    let begin = Instant::now();
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
    let backup = begin.elapsed().as_secs_f64();
    assert_eq!(answer.status, 200, "{answer:?}");
    let shell = |command: &str| {
        seconds(|| {
            let status = Command::new("sh").args(["-euc", command]).current_dir(home.path("")).status();
            assert!(status.expect("sh").success(), "{command}");
        })
    };
    let vacuum = shell("sqlite3 db/aegisagent.db \"VACUUM INTO 'shell.db'\" && sync shell.db");
    let copy = shell("cp --reflink=never shell.db copy.db && sync copy.db");
    line(
        "backup, checks included",
        format!("{backup:.2} s = {:.2} x sqlite3, {:.1} x cp", backup / vacuum, backup / copy),
    );
    line("  copy / pages / chain / digest, s", format!("{}", answer.body["steps_ms"]));
    assert_eq!(gateway.stop(), 0);
    let receipts = answer.body["receipts"].as_f64().expect("a count");
    let database = home.database();
    let path = database.to_str().expect("UTF-8");
    let time = seconds(|| assert!(verify(&[path]).status.success()));
    let hashing = hash_file(&database);
    line(
        "aegis-verify-receipts",
        format!(
            "{time:.2} s, {:.0} receipts/s, {:.1} x SHA-256 of the file",
            receipts / time,
            time / hashing
        ),
    );
}

/// SHA-256 of a file, with the library the gateway uses.
fn hash_file(path: &PathBuf) -> f64 {
    use sha2::Digest;
    let bytes = fs::read(path).expect("readable");
    seconds(|| {
        std::hint::black_box(sha2::Sha256::digest(&bytes));
    })
}

#[test]
#[ignore = "a benchmark; run by scripts/bench.sh"]
fn backup_under_load() {
    let receipts = sizes().into_iter().max().expect("a size").min(1_000_000);
    let home = large_home(receipts);
    let gateway = home.start();
    let agent = gateway.agent("load");
    for rate in [150.0, 1500.0] {
        let stop = AtomicBool::new(false);
        let load = load(&gateway, &agent.token, 32, Some(rate), true);
        let (run, moments) = thread::scope(|scope| {
            let running = scope.spawn(|| load.run_until(&stop));
            let begin = Instant::now();
            pass(Duration::from_secs(10));
            let from = begin.elapsed();
            let name = json!({"filename": format!("at-{rate}.db")});
            let answer = gateway.operator("POST", "/v1/admin/backup", Some(&name));
            assert_eq!(answer.status, 200, "{answer:?}");
            let copied =
                from + Duration::from_millis(answer.body["steps_ms"]["copy"].as_u64().expect("a time"));
            let to = begin.elapsed();
            pass(Duration::from_secs(10));
            stop.store(true, Ordering::Relaxed);
            (running.join().expect("the load"), Moments { from, copied, to })
        });
        report_backup(&home, rate, &run, moments);
    }
}

/// When a backup began, when it was copied, and when it was verified and answered.
#[derive(Clone, Copy)]
struct Moments {
    from: Duration,
    copied: Duration,
    to: Duration,
}

fn report_backup(home: &Home, rate: f64, run: &Measured, moments: Moments) {
    let Moments { from, copied, to } = moments;
    assert_eq!(run.failed, 0, "no request fails");
    let second = Duration::from_secs(1);
    let before = |share| run.percentile(share, second, from);
    let during = |share| run.percentile(share, from, to);
    let after = |share| run.percentile(share, to, Duration::MAX);
    line(
        &format!("-- backup under {rate} authorizations a second"),
        format!("{:.1} s", (to - from).as_secs_f64()),
    );
    line(
        "p99 before / during / after",
        format!(
            "{:.1} / {:.1} = {:.1} x / {:.1} ms",
            before(0.99),
            during(0.99),
            during(0.99) / before(0.99),
            after(0.99)
        ),
    );
    line(
        "worst before / during / after",
        format!("{:.0} / {:.0} / {:.0} ms", before(1.0), during(1.0), after(1.0)),
    );
    for (phase, from, to) in [("copy", from, copied), ("checks", copied, to)] {
        line(
            &format!("  {phase}: p99, worst"),
            format!("{:.1}, {:.0} ms", run.percentile(0.99, from, to), run.percentile(1.0, from, to)),
        );
    }
    let log = fs::metadata(home.path("db/aegisagent.db-wal")).map_or(0, |log| log.len());
    line("write-ahead log afterwards", format!("{} MB", log >> 20));
}
