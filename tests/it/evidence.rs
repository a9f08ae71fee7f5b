//! The verifier, through the real command: what it must report, what it must not, and that it
//! changes nothing. Every kind of damage is tried at every place and must be found.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Gateway, Home, VERIFIER, sha256, verify};

pub const RECEIPTS: usize = 6;

/// A gateway with receipts of every outcome, each optional field both set and null.
fn gateway_with_receipts(home: &Home) -> Gateway {
    let gateway = home.start();
    let agent = gateway.agent("a");
    gateway.tool("secrets", "rotate_credential", &json!({}));
    let call = |tool: &str, action: &str, resource: Value, mutates: bool| json!({"tool": tool, "action": action, "resource": resource, "mutates_state": mutates, "parameters": {"n": 1.5}});
    let context = |trust: &str| json!({"source_trust": trust});
    let who = json!({"id": "a", "environment": "production"});
    let trace = json!({"run_id": "run 1", "trace_id": "träce", "parent_run_id": "up"});
    for body in [
        json!({"agent": who, "tool_call": call("t", "read", json!("r"), false), "context": context("unknown"),
               "user": {"id": "u"}, "trace": trace, "request_id": "q1"}),
        json!({"agent": who, "tool_call": call("t", "write", Value::Null, true), "context": context("unknown")}),
        json!({"agent": who, "tool_call": call("t", "write", json!("é\"\\"), true), "context": context("semi_trusted_customer"),
               "user": {"id": "u"}, "trace": trace, "request_id": "q3"}),
        json!({"agent": who, "tool_call": call("secrets", "rotate_credential", json!(""), false), "context": context("unknown")}),
        json!({"agent": who, "tool_call": call("none", "none", json!("r"), false), "context": context("trusted_internal_signed")}),
        json!({"agent": who, "tool_call": call("t", "write", json!("r"), true), "context": context("trusted_internal_signed"),
               "user": {"id": "u"}, "trace": trace, "request_id": "q6"}),
    ] {
        let answer = gateway.authorize(&agent.token, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    gateway
}

/// The folder of a stopped gateway with the receipts.
pub fn stopped() -> Home {
    let home = Home::new();
    assert_eq!(gateway_with_receipts(&home).stop(), 0);
    home
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn report(path: &Path, options: &[&str]) -> (i32, Value) {
    let arguments: Vec<&str> = ["--json"].iter().chain(options).copied().chain([text(path)]).collect();
    let output = verify(&arguments);
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (code(&output), said)
}

fn assert_whole(path: &Path, receipts: usize) -> Value {
    let (code, said) = report(path, &[]);
    assert_eq!((code, &said["verdict"], &said["verified"]), (0, &json!("verified"), &json!(true)), "{said}");
    assert_eq!((&said["receipts"], &said["breaks"]), (&json!(receipts), &json!([])), "{said}");
    said
}

/// What is found wrong: exit 1, and every break with its place and what differs.
pub fn breaks(what: &str, path: &Path) -> Vec<Value> {
    let (code, said) = report(path, &[]);
    assert_eq!(
        (code, &said["verdict"], &said["verified"]),
        (1, &json!("TAMPERED"), &json!(false)),
        "{what}: {said}"
    );
    let breaks = said["breaks"].as_array().expect("a list").clone();
    assert!(!breaks.is_empty(), "{what}: {said}");
    assert_eq!(said["break_count"], breaks.len(), "{what}: {said}");
    for one in &breaks {
        assert!(one["seq"].is_i64() && one["kind"].is_string(), "{what}: {one}");
        assert!(one.get("id").is_some() && one["expected"] != one["found"], "{what}: {one}");
    }
    // The same as text.
    let output = verify(&[text(path)]);
    let words = String::from_utf8(output.stdout).expect("text");
    assert!(words.contains("TAMPERED") && words.lines().count() == breaks.len() + 2, "{what}: {words}");
    for one in &breaks {
        let kind = one["kind"].as_str().expect("a kind");
        assert!(words.contains(&format!("{kind} at seq {}", one["seq"])), "{what}: {words}");
    }
    breaks
}

pub fn kinds_at(breaks: &[Value], seq: i64) -> Vec<&str> {
    breaks.iter().filter(|one| one["seq"] == seq).filter_map(|one| one["kind"].as_str()).collect()
}

/// A copy of a database, tampered with by somebody who has write access to the file.
pub struct Bench {
    folder: TempDir,
    original: PathBuf,
}

impl Bench {
    pub fn new(home: &Home) -> Self {
        let folder = TempDir::new().expect("a folder");
        let original = folder.path().join("original.db");
        fs::copy(home.database(), &original).expect("copied");
        Bench { folder, original }
    }

    /// A fresh copy after running `statements` on it with every safeguard off.
    pub fn after(&self, statements: &str) -> PathBuf {
        self.edited(|database| database.execute_batch(statements).expect(statements))
    }

    pub fn edited(&self, edit: impl FnOnce(&Connection)) -> PathBuf {
        let path = self.folder.path().join("copy.db");
        fs::copy(&self.original, &path).expect("copied");
        let database = Connection::open(&path).expect("a database");
        let defences = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
            DROP TRIGGER receipts_are_never_updated; DROP TRIGGER receipts_are_never_deleted;
            DROP TRIGGER decisions_are_never_updated; DROP TRIGGER decisions_are_never_deleted;
            DROP TRIGGER receipts_follow_one_another;";
        database.execute_batch(defences).expect("the triggers are there");
        edit(&database);
        database.close().expect("closed");
        path
    }

    fn columns(&self, table: &str) -> Vec<(String, bool)> {
        let database = Connection::open(&self.original).expect("a database");
        let mut rows =
            database.prepare("SELECT name, type = 'INTEGER' FROM pragma_table_info(?1)").expect("a table");
        let rows = rows.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).expect("columns");
        rows.map(|row| row.expect("a column")).collect()
    }
}

// --- States a database may be in

#[test]
fn a_stopped_database_and_a_backup_verify_and_nothing_is_left_beside_them() {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
    assert_eq!(answer.status, 200, "{answer:?}");
    let head = gateway.get("/v1/receipts/chain-head")["head"]["receipt_hash"].clone();
    assert_eq!(gateway.stop(), 0);
    for path in ["db/aegisagent.db", "backups/b.db"] {
        let before = (home.snapshot("db"), home.snapshot("backups"));
        let said = assert_whole(&home.path(path), RECEIPTS);
        assert_eq!((&said["decisions"], &said["head_seq"]), (&json!(RECEIPTS), &json!(RECEIPTS)), "{said}");
        assert_eq!((&said["head_hash"], &said["proven_from"]), (&head, &json!("")), "{said}");
        assert!((home.snapshot("db"), home.snapshot("backups")) == before, "{path}: something was touched");
    }
}

#[test]
fn a_running_gateway_s_database_verifies_while_it_goes_on() {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    let names =
        |home: &Home| -> Vec<PathBuf> { home.snapshot("db").into_iter().map(|(path, _)| path).collect() };
    let before = names(&home);
    let said = assert_whole(&home.database(), RECEIPTS);
    assert!(said["note"].as_str().is_some_and(|note| note.contains("running")), "{said}");
    assert_eq!(names(&home), before);
    let agent = gateway.agent("a");
    assert_eq!(agent.ask("read", "unknown").status, 200);
    assert_whole(&home.database(), RECEIPTS + 1);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_database_that_is_being_written_to_verifies_at_any_moment() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let path = home.database();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    assert_eq!(agent.ask("write", "semi_trusted_customer").status, 200);
                }
            });
        }
        let mut last = 0;
        for _ in 0..25 {
            let (code, said) = report(&path, &[]);
            if code != 0 {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert_eq!(code, 0, "{said}");
            let count = said["receipts"].as_u64().expect("a count");
            assert!(count >= last && said["decisions"] == count, "{said}");
            last = count;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_killed_gateway_s_log_is_counted_and_every_file_stays_as_it_was() {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    gateway.kill();
    let before = home.snapshot("db");
    let log = before.iter().find(|(path, _)| path.ends_with("aegisagent.db-wal")).expect("a hot log");
    assert!(!log.1.is_empty());
    let said = assert_whole(&home.database(), RECEIPTS);
    assert_eq!(said["decisions"], RECEIPTS);
    assert!(home.snapshot("db") == before, "something was touched");
    // A gateway that starts afterwards sees the same rows.
    let gateway = home.start();
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], RECEIPTS);
    assert_eq!(gateway.stop(), 0);
    assert_whole(&home.database(), RECEIPTS);
}

#[test]
fn what_is_edited_only_in_a_killed_gateway_s_log_is_found() {
    let home = Home::new();
    gateway_with_receipts(&home).kill();
    // Written to the log by another program, which leaves the log behind.
    let database = Connection::open(home.database()).expect("a database");
    let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    database.set_db_config(keep, true).expect("kept");
    database
        .execute_batch(
            "DROP TRIGGER receipts_are_never_updated; UPDATE receipts SET decision = 'allow' WHERE seq = 2;",
        )
        .expect("edited");
    database.close().expect("closed");
    assert!(fs::metadata(home.path("db/aegisagent.db-wal")).is_ok_and(|log| log.len() > 0));
    assert!(kinds_at(&breaks("log", &home.database()), 2).contains(&"hash_mismatch"));
}

#[test]
fn a_read_only_folder_is_enough_even_for_a_killed_gateway_s_database() {
    for killed in [false, true] {
        let home = Home::new();
        let gateway = gateway_with_receipts(&home);
        if killed {
            gateway.kill()
        } else {
            assert_eq!(gateway.stop(), 0)
        }
        let temporary = TempDir::new().expect("a folder");
        let verifier = temporary.path().join("verifier");
        fs::copy(VERIFIER, &verifier).expect("copied");
        let mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        let before = home.snapshot("db");
        for (path, _) in &before {
            mode(path, 0o444);
        }
        mode(&home.path("db"), 0o555);
        mode(&home.path(""), 0o755);
        let scratch = temporary.path().join("scratch");
        fs::create_dir(&scratch).expect("a folder");
        for (path, bits) in [(temporary.path(), 0o755), (&verifier, 0o755), (&scratch, 0o777)] {
            mode(path, bits);
        }
        let mut command = Command::new(&verifier);
        command.arg(home.database()).env_clear().env("TMPDIR", &scratch);
        if rustix_is_root() {
            // Root may write anywhere; other users may not.
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().expect("the verifier runs");
        let words = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code(&output), 0, "killed: {killed}: {output:?}");
        assert!(
            words.contains(&format!("verified: {RECEIPTS} receipts and {RECEIPTS} decisions")),
            "{words}"
        );
        assert!(home.snapshot("db") == before, "something was touched");
        assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 0, "a copy was left behind");
        mode(&home.path("db"), 0o755);
    }
}

fn rustix_is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

#[test]
fn a_log_that_does_not_belong_is_not_counted_and_one_in_doubt_is_not_guessed_at() {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
    gateway.kill();
    assert_whole(&home.database(), RECEIPTS + 1);

    // A restored backup next to the old log: exactly the backup.
    fs::rename(home.database(), home.path("db/bad")).expect("moved");
    fs::copy(home.path("backups/b.db"), home.database()).expect("copied");
    let before = home.snapshot("db");
    let said = assert_whole(&home.database(), RECEIPTS);
    assert!(said["note"].as_str().is_some_and(|note| note.contains("-wal")), "{said}");

    // Another gateway's database next to it: undecidable.
    let other = stopped();
    fs::remove_file(home.database()).expect("removed");
    fs::copy(other.database(), home.database()).expect("copied");
    let output = verify(&["--json", text(&home.database())]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    assert!(output.stdout.is_empty(), "half a report: {output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--wal replay") && said.contains("--wal ignore"), "its own options: {said}");
    assert!(!said.contains("AEGIS_"), "no setting of a start: {said}");
    // Unless the option says which.
    assert_eq!(code(&verify(&["--wal", "ignore", text(&home.database())])), 0);

    // And back again: none of this has changed the log.
    fs::remove_file(home.database()).expect("removed");
    fs::copy(home.path("backups/b.db"), home.database()).expect("copied");
    assert!(home.snapshot("db") == before, "something was touched");

    // The bad file with its log moved back next to it.
    let (bad, log) = (home.path("db/bad"), home.path("db/bad-wal"));
    fs::rename(home.beside("-wal"), &log).expect("moved");
    let output = verify(&[text(&bad)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 3 && said.contains(text(&log)) && said.contains("--wal replay"), "{said}");
    let (status, said) = report(&bad, &["--wal", "replay"]);
    assert_eq!((status, &said["receipts"]), (0, &json!(RECEIPTS + 1)), "{said}");
}

#[test]
fn a_newer_schema_and_a_damaged_file_are_no_verdict() {
    let bench = Bench::new(&stopped());
    let newer = bench.after("PRAGMA user_version = 999");
    let output = verify(&[text(&newer)]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("999"), "{output:?}");

    let whole = fs::read(&bench.original).expect("readable");
    for (what, bytes) in [
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("cut inside a page", whole[..whole.len() - 100].to_vec()),
        ("its header alone", whole[..100].to_vec()),
        ("its magic alone", whole[..16].to_vec()),
        ("zeros", [&whole[..100], &vec![0; whole.len() - 100][..]].concat()),
    ] {
        let path = bench.folder.path().join("damaged.db");
        fs::write(&path, bytes).expect("written");
        let output = verify(&[text(&path)]);
        assert!(matches!(code(&output), 1..=3), "{what}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{what}: {output:?}");
    }
}

// --- Tampering with a database

#[test]
fn an_edit_of_any_column_of_any_receipt_is_found() {
    let bench = Bench::new(&stopped());
    let columns = bench.columns("receipts");
    assert_eq!(columns.len(), 21);
    for (column, integer) in columns {
        for seq in [1, 3, RECEIPTS as i64] {
            let edits: &[&str] = if integer {
                &["{} + 100", "-{}"]
            } else {
                &[
                    "coalesce({}, '') || 'x'",
                    "upper(coalesce({}, '') || 'a')",
                    "'0000000000000000000000000000000000000000000000000000000000000000'",
                ]
            };
            for edit in edits {
                let value = edit.replace("{}", &column);
                let statement = format!("UPDATE receipts SET {column} = {value} WHERE seq = {seq}");
                let found = breaks(&statement, &bench.after(&statement));
                let moved = column == "seq" || !kinds_at(&found, seq).is_empty();
                assert!(moved, "{statement}: named elsewhere: {found:?}");
            }
            let nullable = "agent_id user_id run_id trace_id resource approver action_hash decision_id decision_hash policy_version";
            if nullable.split(' ').any(|name| name == column) {
                let statement = format!(
                    "UPDATE receipts SET {column} = iif({column} IS NULL, '', NULL) WHERE seq = {seq}"
                );
                breaks(&statement, &bench.after(&statement));
            }
        }
    }
}

#[test]
fn an_edit_of_any_column_of_any_decision_is_found() {
    let bench = Bench::new(&stopped());
    let columns = bench.columns("decisions");
    assert_eq!(columns.len(), 24);
    for (column, integer) in columns {
        for seq in [1, 3, RECEIPTS as i64] {
            let mut edits = if integer {
                vec!["{} + 1", "{} + 100", "-1 - {}"]
            } else {
                vec!["coalesce({}, '') || 'x'", "upper(coalesce({}, '') || 'a')", "''"]
            };
            match column.as_str() {
                "decision" => edits.extend(["iif({} = 'allow', 'deny', 'allow')"]),
                // The same instant, spelled differently.
                "created_at" => {
                    edits.extend(["replace({}, 'Z', '+00:00')", "replace({}, 'T', ' ')", "lower({})"])
                }
                "mutates_state" => edits.extend(["1 - {}", "3"]),
                "action_hash" => edits.extend(["upper({})"]),
                "seq" => edits.extend(["1000", "0"]),
                _ => {}
            }
            for edit in edits {
                let value = edit.replace("{}", &column);
                let statement = format!(
                    "UPDATE OR REPLACE decisions SET {column} = {value} WHERE seq = {seq} AND {column} IS NOT {value}"
                );
                let mut changed = 0;
                let path =
                    bench.edited(|database| changed = database.execute(&statement, []).expect(&statement));
                if changed == 0 {
                    // An all-digit hash has no upper case, and a resource may already be empty.
                    assert!(edit == "''" || edit.starts_with("upper"), "{statement}: nothing was edited");
                    continue;
                }
                let found = breaks(&statement, &path);
                assert!(!kinds_at(&found, seq).is_empty(), "{statement}: named elsewhere: {found:?}");
            }
            let nullable = "user_id run_id trace_id parent_run_id resource request_id";
            if nullable.split(' ').any(|name| name == column) {
                let statement = format!(
                    "UPDATE decisions SET {column} = iif({column} IS NULL, '', NULL) WHERE seq = {seq}"
                );
                let found = breaks(&statement, &bench.after(&statement));
                assert_eq!(kinds_at(&found, seq), ["decision_differs"], "{statement}");
            }
        }
    }
}

#[test]
fn a_receipt_that_was_deleted_is_missed_wherever_it_stood() {
    let bench = Bench::new(&stopped());
    let last = RECEIPTS as i64;
    for seq in [1, 3, last] {
        let receipt = format!("DELETE FROM receipts WHERE seq = {seq};");
        let decision = format!("DELETE FROM decisions WHERE seq = {seq};");
        let found = breaks("receipt", &bench.after(&receipt));
        assert!(kinds_at(&found, seq).contains(&"receipt_missing"), "{seq}: {found:?}");
        let both = breaks("both", &bench.after(&format!("{receipt}{decision}")));
        if seq == last {
            assert_eq!(kinds_at(&both, last - 1), ["head_mismatch"], "{both:?}");
        } else {
            assert_eq!(kinds_at(&both, seq + 1), ["link_mismatch", "sequence_gap"], "{both:?}");
        }
        let found = breaks("decision", &bench.after(&decision));
        assert_eq!(kinds_at(&found, seq), ["decision_missing"], "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
        // Closing the gap does not help.
        let closed = format!(
            "{receipt}{decision}UPDATE receipts SET seq = seq - 1 WHERE seq > {seq};
             UPDATE decisions SET seq = seq - 1 WHERE seq > {seq};
             UPDATE chain SET head_seq = head_seq - 1;"
        );
        breaks("closed", &bench.after(&closed));
    }
    breaks("all receipts", &bench.after("DELETE FROM receipts"));
    breaks("all of both", &bench.after("DELETE FROM receipts; DELETE FROM decisions"));
    breaks("the head", &bench.after("UPDATE chain SET head_hash = '', head_seq = 0"));
    breaks("the head's number", &bench.after("UPDATE chain SET head_seq = head_seq + 1"));
}

#[test]
fn the_gateway_s_own_triggers_refuse_what_the_bench_does() {
    let home = stopped();
    let database = Connection::open(home.database()).expect("a database");
    for statement in [
        "DELETE FROM receipts WHERE seq = 6",
        "UPDATE receipts SET tool = tool",
        "DELETE FROM decisions",
        "UPDATE decisions SET decision = 'allow'",
        "INSERT OR REPLACE INTO receipts SELECT * FROM receipts WHERE seq = 2",
        "UPDATE OR IGNORE receipts SET tool = 'x'",
    ] {
        database.execute_batch("PRAGMA recursive_triggers = ON").expect("set");
        assert!(database.execute(statement, []).is_err(), "{statement}");
    }
    drop(database);
    assert_whole(&home.database(), RECEIPTS);
}

#[test]
fn two_receipts_that_changed_places_are_found() {
    let bench = Bench::new(&stopped());
    for (a, b) in [(1, 2), (2, 5), (5, 6)] {
        let swap = |table: &str| {
            format!(
                "UPDATE {table} SET seq = -1 WHERE seq = {a}; UPDATE {table} SET seq = {a} WHERE seq = {b};
                 UPDATE {table} SET seq = {b} WHERE seq = -1;"
            )
        };
        for statement in [swap("receipts"), swap("decisions"), swap("receipts") + &swap("decisions")] {
            let found = breaks(&statement, &bench.after(&statement));
            assert!(!kinds_at(&found, a).is_empty() && !kinds_at(&found, b).is_empty(), "{found:?}");
        }
    }
}

/// A row's hashed members; a decision's `seq` is not one of them.
fn members(database: &Connection, table: &str, seq: i64) -> serde_json::Map<String, Value> {
    let mut row = database.prepare(&format!("SELECT * FROM {table} WHERE seq = {seq}")).expect("a table");
    let names: Vec<String> = row.column_names().map(str::to_owned).collect();
    let read = |row: &rusqlite::Row<'_>| {
        let value = |index: usize| match row.get_ref(index).expect("a value") {
            rusqlite::types::ValueRef::Null => Value::Null,
            rusqlite::types::ValueRef::Integer(number) => json!(number),
            other => json!(other.as_str().expect("text")),
        };
        Ok(names.iter().cloned().enumerate().map(|(index, name)| (name, value(index))).collect())
    };
    row.query_row([], read).expect("a row")
}

/// The hash of a decision by the rule: all columns except its position.
fn decision_hash(database: &Connection, seq: i64) -> String {
    let mut members = members(database, "decisions", seq);
    members.remove("seq");
    let mutates = members["mutates_state"] == 1;
    members.insert("mutates_state".to_owned(), json!(mutates));
    sha256(Value::Object(members).to_string().as_bytes())
}

/// Rehashes the chain from `first` on, as anybody who owns the file can; returns the new
/// head's hash.
pub fn rehash(database: &Connection, first: i64) -> String {
    let mut previous: String = database
        .query_row(
            "SELECT coalesce(max(receipt_hash), '') FROM receipts WHERE seq = ?1",
            [first - 1],
            |row| row.get(0),
        )
        .expect("a hash");
    let last: i64 =
        database.query_row("SELECT max(seq) FROM receipts", [], |row| row.get(0)).expect("a number");
    for seq in first..=last {
        let set = "UPDATE receipts SET decision_hash = ?2, prev_receipt_hash = ?3 WHERE seq = ?1";
        database.execute(set, (seq, decision_hash(database, seq), &previous)).expect("set");
        let mut members = members(database, "receipts", seq);
        members.remove("receipt_hash");
        previous = sha256(Value::Object(members).to_string().as_bytes());
        database
            .execute("UPDATE receipts SET receipt_hash = ?2 WHERE seq = ?1", (seq, &previous))
            .expect("set");
    }
    previous
}

pub const LIE: &str = "UPDATE receipts SET decision = 'allow' WHERE seq = 2;
    UPDATE decisions SET decision = 'allow', reason = 'all is well' WHERE seq = 2;";

#[test]
fn a_tail_that_was_hashed_again_is_found_by_the_head_that_is_kept_beside_it() {
    let bench = Bench::new(&stopped());
    let path = bench.edited(|database| {
        database.execute_batch(LIE).expect("edited");
        rehash(database, 2);
    });
    let found = breaks("hashed again", &path);
    assert_eq!(kinds_at(&found, RECEIPTS as i64), ["head_mismatch"]);
    // Rehashed from there, but not to the end.
    let path = bench.edited(|database| {
        database.execute_batch(LIE).expect("edited");
        let last = members(database, "receipts", 3);
        rehash(database, 2);
        let set = "UPDATE receipts SET prev_receipt_hash = ?1, receipt_hash = ?2 WHERE seq = 3";
        database
            .execute(set, (last["prev_receipt_hash"].as_str(), last["receipt_hash"].as_str()))
            .expect("set");
    });
    assert!(kinds_at(&breaks("in part", &path), 3).contains(&"link_mismatch"));
}

#[test]
fn a_database_whose_every_row_was_rewritten_to_agree_is_seen_only_through_a_head_kept_elsewhere() {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    let kept =
        gateway.get("/v1/receipts/chain-head")["head"]["receipt_hash"].as_str().expect("a hash").to_owned();
    assert_eq!(gateway.stop(), 0);
    let bench = Bench::new(&home);
    assert_eq!(report(&home.database(), &["--expect-head", &kept]).0, 0);
    let mut forged = String::new();
    let path = bench.edited(|database| {
        database.execute_batch(LIE).expect("edited");
        forged = rehash(database, 2);
        database.execute("UPDATE chain SET head_hash = ?1", [&forged]).expect("set");
    });
    assert_ne!(forged, kept);
    assert_whole(&path, RECEIPTS);
    let (code, said) = report(&path, &["--expect-head", &kept]);
    assert_eq!((code, &said["verified"]), (1, &json!(false)), "{said}");
    let only = &said["breaks"][0];
    assert_eq!((&only["kind"], &only["seq"]), (&json!("head_mismatch"), &json!(RECEIPTS)), "{said}");
    assert_eq!((&only["expected"], &only["found"]), (&json!(kept), &json!(forged)), "{said}");
    assert_eq!(said["break_count"], 1);
}

#[test]
fn a_forged_receipt_is_found_wherever_it_is_put_in() {
    let bench = Bench::new(&stopped());
    let columns: Vec<String> = bench.columns("receipts").into_iter().map(|(name, _)| name).collect();
    let copied = |from: i64, to: i64| {
        let chosen = columns.iter().map(|name| match name.as_str() {
            "seq" => to.to_string(),
            "prev_receipt_hash" => format!("'forged {to}'"),
            _ => name.clone(),
        });
        let chosen = chosen.collect::<Vec<_>>().join(", ");
        format!("INSERT INTO receipts SELECT {chosen} FROM receipts WHERE seq = {from};")
    };
    let end = RECEIPTS as i64 + 1;
    breaks("a copy at the end", &bench.after(&copied(3, end)));
    breaks("a copy far away", &bench.after(&copied(3, 1000)));
    breaks("a copy before the first", &bench.after(&copied(3, 0)));
    breaks("a copy long before the first", &bench.after(&copied(3, -5)));
    let decision = format!("INSERT INTO decisions SELECT {end}, 'forged', agent_id, user_id, run_id, trace_id,
        parent_run_id, tool, action, resource, mutates_state, environment, source_trust, root_trust_level, decision,
        reason, matched_policy_ids, policy_version, risk_score, composite_risk_score, NULL, action_hash, latency_ms,
        created_at FROM decisions WHERE seq = 1;");
    let found = breaks("a decision without a receipt", &bench.after(&decision));
    assert_eq!((kinds_at(&found, end), found.len()), (vec!["receipt_missing"], 1));
    // A self-consistent receipt, linked to the last one, with its own decision.
    let path = bench.edited(|database| {
        database.execute_batch(&(copied(1, end) + &decision)).expect("inserted");
        database.execute("UPDATE receipts SET decision_id = 'forged' WHERE seq = ?1", [end]).expect("set");
        rehash(database, end);
    });
    let found = breaks("appended", &path);
    assert_eq!((kinds_at(&found, end), found.len()), (vec!["head_mismatch"], 1), "{found:?}");
    // One decision claimed by two receipts.
    let path = bench.edited(|database| {
        database.execute_batch(&copied(1, end)).expect("inserted");
        let hash = {
            let mut members = members(database, "receipts", end);
            members.remove("receipt_hash");
            let last = members_of_last(database, end - 1);
            members.insert("prev_receipt_hash".to_owned(), json!(last));
            database
                .execute("UPDATE receipts SET prev_receipt_hash = ?2 WHERE seq = ?1", (end, last))
                .expect("set");
            sha256(Value::Object(members).to_string().as_bytes())
        };
        database.execute("UPDATE receipts SET receipt_hash = ?2 WHERE seq = ?1", (end, &hash)).expect("set");
        database.execute("UPDATE chain SET head_seq = ?1, head_hash = ?2", (end, &hash)).expect("set");
    });
    let found = breaks("claimed twice", &path);
    assert_eq!((kinds_at(&found, end), found.len()), (vec!["decision_missing"], 1), "{found:?}");
}

fn members_of_last(database: &Connection, seq: i64) -> String {
    members(database, "receipts", seq)["receipt_hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn every_break_is_listed_not_only_the_first() {
    let bench = Bench::new(&stopped());
    let path = bench.after(
        "UPDATE receipts SET tool = 'x' WHERE seq IN (1, 4); UPDATE decisions SET reason = 'x' WHERE seq = 6",
    );
    let found = breaks("three", &path);
    for seq in [1, 4, 6] {
        assert!(!kinds_at(&found, seq).is_empty(), "{seq}: {found:?}");
    }
    for seq in [2, 3, 5] {
        assert!(kinds_at(&found, seq).is_empty(), "{seq}: {found:?}");
    }
    let ids: Vec<&str> = found.iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(ids.len(), found.len());
    let output = verify(&["--table", text(&path)]);
    assert_eq!(code(&output), 1);
    let table = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<&str> = table.lines().filter(|line| line.contains("rcpt_") && line.contains("T")).collect();
    let broken = rows.iter().filter(|row| row.ends_with("BROKEN")).count();
    let fine = rows.iter().filter(|row| row.ends_with(" ok")).count();
    assert_eq!((broken, fine), (3, 3), "{table}");
}

// --- Exports

/// Every form of an export, each in both orders.
fn forms(receipts: &[Value]) -> Vec<(String, String)> {
    let mut forms = Vec::new();
    let newest_first: Vec<Value> = receipts.iter().rev().cloned().collect();
    for (order, receipts) in [("oldest first", receipts), ("newest first", &newest_first)] {
        let array = json!(receipts).to_string();
        let lines: Vec<String> = receipts.iter().map(Value::to_string).collect();
        let pretty = serde_json::to_string_pretty(receipts).expect("JSON");
        forms.extend([
            (format!("array, {order}"), array.clone()),
            (format!("printed array, {order}"), pretty),
            (format!("object, {order}"), format!("{{\"receipts\": {array}}}\n")),
            (
                format!("object with more, {order}"),
                format!("{{\"a\":{{\"receipts\":1}},\"receipts\":{array},\"z\":[]}}"),
            ),
            (format!("lines, {order}"), lines.join("\n")),
            (format!("lines ended, {order}"), lines.join("\r\n\r\n") + "\n"),
        ]);
    }
    forms
}

fn exported() -> (Vec<Value>, TempDir) {
    let home = Home::new();
    let gateway = gateway_with_receipts(&home);
    let receipts = gateway.get("/v1/receipts?order=asc");
    let folder = TempDir::new().expect("a folder");
    (receipts.as_array().expect("a list").clone(), folder)
}

#[test]
fn an_export_verifies_in_every_form_and_both_orders() {
    let (receipts, folder) = exported();
    let path = folder.path().join("export");
    let hash = |n: usize| receipts[n - 1]["receipt_hash"].as_str().expect("a hash");
    let head = hash(RECEIPTS);
    for (form, content) in forms(&receipts) {
        fs::write(&path, content).expect("written");
        let said = assert_whole(&path, RECEIPTS);
        assert_eq!((&said["head_hash"], &said["proven_from"]), (&json!(head), &json!("")), "{form}");
        assert_eq!(said["decisions"], Value::Null, "{form}");
        assert_eq!(report(&path, &["--expect-head", head]).0, 0, "{form}");
        for other in [hash(1), &"0".repeat(64)] {
            let (code, said) = report(&path, &["--expect-head", other]);
            assert_eq!((code, &said["breaks"][0]["kind"]), (1, &json!("head_mismatch")), "{form}");
        }
    }
    for (form, content) in forms(&receipts[2..5]) {
        fs::write(&path, content).expect("written");
        let said = assert_whole(&path, 3);
        assert_eq!((&said["head_hash"], &said["proven_from"]), (&json!(hash(5)), &json!(hash(2))), "{form}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    // Standard input, and a single receipt.
    let mut child = verifier_on_input(&["--json", "-"]);
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(receipts[3].to_string().as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0, "{output:?}");
}

fn verifier_on_input(arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(VERIFIER);
    command.args(arguments).env_clear();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the verifier runs")
}

#[test]
fn a_tampered_export_is_found_in_every_form_and_both_orders() {
    let (receipts, folder) = exported();
    let path = folder.path().join("export");
    let edit = |at: usize, name: &str, value: Value| {
        let mut receipts = receipts.clone();
        receipts[at][name] = value;
        receipts
    };
    let mut damaged = vec![
        ("dropped", [&receipts[..2], &receipts[3..]].concat()),
        ("twice", [&receipts[..3], &receipts[2..]].concat()),
        ("rotated", [&receipts[3..], &receipts[..3]].concat()),
        ("swapped", [&receipts[..1], &receipts[2..3], &receipts[1..2], &receipts[3..]].concat()),
        ("foreign", [&receipts[..3], &[json!({"event_id": "x"})], &receipts[3..]].concat()),
    ];
    for at in [0, 3, 5] {
        for name in [
            "ts",
            "decision",
            "resource",
            "receipt_hash",
            "prev_receipt_hash",
            "decision_id",
            "canon_version",
        ] {
            damaged.push((name, edit(at, name, json!("forged"))));
        }
        damaged.push(("seq", edit(at, "seq", json!(99))));
        damaged.push(("null", edit(at, "receipt_hash", Value::Null)));
        damaged.push(("an addition", edit(at, "signature", json!("x"))));
    }
    for (what, receipts) in damaged {
        for (form, content) in forms(&receipts) {
            fs::write(&path, content).expect("written");
            breaks(&format!("{what}, {form}"), &path);
        }
    }
}

#[test]
fn an_object_that_names_its_receipts_twice_cannot_hide_the_second_list() {
    let (receipts, folder) = exported();
    let path = folder.path().join("export");
    let mut forged = receipts.clone();
    forged[2]["decision"] = json!("allow");
    let (good, bad) = (json!(receipts), json!(forged));
    for content in [
        format!("{{\"receipts\":{good},\"receipts\":{bad}}}"),
        format!("{{\"receipts\":{bad},\"receipts\":{good}}}"),
        format!("{{\"receipts\":{good},\"r\\u0065ceipts\":{bad}}}"),
        format!("{{\"r\\u0065ceipts\":{bad},\"receipts\":{good}}}"),
        format!("{{\"receipts\":5,\"receipts\":{good}}}"),
        format!("[{good}]{bad}"),
        format!("{{\"receipts\":{good}}}{bad}"),
    ] {
        fs::write(&path, &content).expect("written");
        let output = verify(&[text(&path)]);
        assert!(matches!(code(&output), 1 | 2), "{output:?}: {content}");
    }
}

#[test]
fn what_cannot_be_read_is_no_verdict_and_exits_two() {
    let (receipts, folder) = exported();
    let path = folder.path().join("export");
    let whole = json!(receipts).to_string();
    let line = receipts[0].to_string();
    for content in [
        "".to_owned(),
        "  \n".to_owned(),
        "nonsense".to_owned(),
        "5".to_owned(),
        "<html></html>".to_owned(),
        "event_id,receipt_hash\n1,2\n".to_owned(),
        whole[..whole.len() - 1].to_owned(),
        whole[..whole.len() / 2].to_owned(),
        format!("{whole}]"),
        format!("{whole}{whole}"),
        whole.replacen("},{", "}{", 1),
        whole.replacen("},{", "},,{", 1),
        whole.replace("]", ",]"),
        format!("{{\"receipts\":{whole}"),
        format!("{line}\n{}", &line[..line.len() - 10]),
        line.replacen("\"seq\":1", "\"seq\":NaN", 1),
        line.replacen("\"seq\":1", "\"seq\":1,\"seq\":1", 1),
        format!("\u{feff}{whole}"),
    ] {
        fs::write(&path, &content).expect("written");
        let output = verify(&[text(&path)]);
        assert_eq!(code(&output), 2, "{content}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.starts_with("aegis-verify-receipts: ") && said.lines().count() == 1, "{said}");
    }
    fs::write(&path, "SQLite format 4").expect("written");
    assert_eq!(code(&verify(&[text(&path)])), 2);

    let missing = folder.path().join("missing");
    for arguments in [
        vec![text(&missing)],
        vec![text(folder.path())],
        vec![],
        vec![text(&path), text(&path)],
        vec!["--wrong", text(&path)],
        vec!["--expect-head"],
        vec!["--expect-head", "abc", text(&path)],
        vec!["--wal", "maybe", text(&path)],
        vec!["--json", "--table", text(&path)],
    ] {
        let output = verify(&arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{arguments:?}");
    }
    assert!(!missing.exists());
}

#[test]
fn what_was_meant_as_a_database_is_called_one_and_every_message_names_the_file() {
    let bench = Bench::new(&stopped());
    let (whole, folder) = (fs::read(&bench.original).expect("readable"), bench.folder.path());
    let flipped = |at: usize, bit: u8| {
        let mut bytes = whole.clone();
        bytes[at] ^= bit;
        bytes
    };
    let (export, _exported_to) = exported();
    let export = json!(export).to_string();
    fs::write(folder.join("a.copy.manifest.json"), "{}").expect("written");
    for (name, content, said) in [
        ("a.db", vec![], "a.db is not a whole SQLite database: it is empty"),
        ("a.DB", b" \n".to_vec(), "a.DB is not a whole SQLite database: "),
        ("a.copy", vec![], "a.copy is not a whole SQLite database: it is empty"),
        ("a.db", flipped(3, 1), "a.db is not a whole SQLite database: its first bytes"),
        ("other", flipped(15, 4), "other is not a whole SQLite database: its first bytes"),
        // The bit that separates an S from the start of a list.
        ("a.db", flipped(0, 8), "a.db is not a whole SQLite database: its first bytes"),
        ("a.db", vec![0; 4096], "a.db is not a whole SQLite database: its first bytes"),
        ("notes.txt", b"hello".to_vec(), "notes.txt is neither a whole SQLite database nor receipts"),
        ("export", vec![], "export: not an export of receipts: it is empty"),
        ("export.json", b"[5".to_vec(), "export.json: not an export of receipts: "),
        ("a.db", whole[..300].to_vec(), "a.db is not a SQLite database"),
        ("a.db", whole[..5000].to_vec(), "a.db is 5000 bytes long, but its header says"),
        ("a.db", flipped(110, 255), "a.db"),
        ("a.db", [&whole[..4096], &vec![0; whole.len() - 4096][..]].concat(), "a.db"),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).expect("written");
        for arguments in [vec![text(&path)], vec![text(&path), "--against", text(folder)]] {
            let output = verify(&arguments);
            let line = String::from_utf8_lossy(&output.stderr).into_owned();
            let needs_database = arguments.len() > 1 && line.contains("--against needs a database");
            assert!(matches!(code(&output), 2 | 3), "{name}: {output:?}");
            assert!(line.contains(said) || needs_database, "{said}: {line}");
            assert!(line.lines().count() == 1 && line.contains(text(&path)), "{said}: {line}");
        }
        fs::remove_file(&path).expect("removed");
    }
    let output = verify(&[text(folder)]);
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 2 && line.contains(&format!("{} is a folder", text(folder))), "{line}");
    // The content takes precedence over the name.
    fs::write(folder.join("export.db"), export).expect("written");
    assert_eq!(code(&verify(&[text(&folder.join("export.db"))])), 0);
    let child = verifier_on_input(&["-"]);
    let output = child.wait_with_output().expect("it ends");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 2 && line.contains("standard input: not an export"), "{line}");
}

#[test]
fn another_program_s_database_is_not_the_verifier_s_to_read() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("other.db");
    let database = Connection::open(&path).expect("a database");
    database
        .execute_batch("CREATE TABLE receipts (seq INTEGER PRIMARY KEY, receipt_hash TEXT)")
        .expect("made");
    database.close().expect("closed");
    let before = fs::read(&path).expect("readable");
    let output = verify(&[text(&path)]);
    assert_eq!(code(&output), 2, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another program"), "{output:?}");
    assert!(fs::read(&path).expect("readable") == before);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

#[test]
fn the_help_says_what_every_exit_status_means() {
    let output = verify(&["--help"]);
    let help = String::from_utf8(output.stdout.clone()).expect("text");
    assert_eq!(code(&output), 0);
    for word in [
        "--expect-head",
        "--json",
        "--table",
        "--path-only",
        "--wal",
        "--help",
        "--version",
        "0 verified",
        "1 tampered",
        "2 usage",
        "3 inconclusive",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let output = verify(&["--version"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("aegis-verify-receipts "));
}

#[test]
fn the_exit_status_holds_where_nothing_can_be_said() {
    let bench = Bench::new(&stopped());
    let run = |arguments: &[&str], standard_error: bool| {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("the full device");
        let mut command = Command::new(VERIFIER);
        command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if standard_error {
            command.stderr(full)
        } else {
            command.stdout(full)
        };
        command.status().expect("the verifier runs").code()
    };
    let tampered = bench.after("DELETE FROM receipts WHERE seq = 3");
    let tampered = text(&tampered);
    for arguments in [&["--wrong"][..], &["missing"], &[]] {
        assert_eq!(run(arguments, true), Some(2), "{arguments:?}");
    }
    assert_eq!(run(&[tampered], true), Some(1));
    // A verdict that cannot be written is not a verdict.
    for arguments in [&[tampered][..], &["--json", tampered], &[text(&bench.original)]] {
        assert_eq!(run(arguments, false), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_name_with_control_characters_does_not_reach_the_terminal() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert_eq!(agent.ask("read", "unknown").status, 200);
    assert_eq!(gateway.stop(), 0);
    let bench = Bench::new(&home);
    let path = bench.after("UPDATE receipts SET tool = char(27) || '[2J', event_id = 'x' || char(10) || char(27) || 'verified: 9 receipts'");
    for arguments in [vec![text(&path)], vec!["--table", text(&path)], vec!["--json", text(&path)]] {
        let output = verify(&arguments);
        assert_eq!(code(&output), 1);
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(!said.contains('\u{1b}'), "{arguments:?}: {said:?}");
        assert!(!said.contains("\nverified"), "{arguments:?}: {said:?}");
    }
}

/// Receipts in the long export: enough that keeping even just their hashes would show.
const LONG: usize = 200_000;
/// The verifier's memory limit for it, in KiB; 200,000 pairs of hashes alone take more.
const MEMORY_KIB_MAX: u64 = 16 * 1024;

#[test]
fn memory_stays_small_however_long_the_export_is() {
    let mut child = verifier_on_input(&["--json", "-"]);
    let mut input = child.stdin.take().expect("a pipe");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut previous = String::new();
    let mut batch = String::new();
    for seq in 1..=LONG {
        // Written in canonical form: sorted, without spaces.
        let (before, after) = (
            format!("{{\"event_id\":\"r\",\"prev_receipt_hash\":\"{previous}\","),
            format!("\"seq\":{seq}}}"),
        );
        let hash = sha256(format!("{before}{after}").as_bytes());
        batch.push_str(&format!("{before}\"receipt_hash\":\"{hash}\",{after}\n"));
        previous = hash;
        if seq % 1000 == 0 {
            input.write_all(batch.as_bytes()).expect("it reads");
            batch.clear();
        }
    }
    // A pipe holds 64 KiB, so all but the last few hundred have been read by now.
    let peak = BufReader::new(fs::File::open(status).expect("it runs"))
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(code(&output), 0, "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&said["receipts"], &said["head_hash"]), (&json!(LONG), &json!(previous)));
    let peak = peak.expect("a peak");
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB");
}

#[test]
fn a_head_that_was_removed_or_overwritten_is_a_break_not_an_excuse() {
    for change in [
        "DELETE FROM chain",
        "UPDATE chain SET head_seq = 0, head_hash = ''",
        "UPDATE chain SET head_hash = 'none'",
    ] {
        let home = Home::new();
        let gateway = home.start();
        assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
        assert_eq!(gateway.stop(), 0);
        home.sql(change);
        let found = breaks(change, &home.database());
        assert_eq!(found[0]["kind"], "head_mismatch", "{change}");
    }
}
