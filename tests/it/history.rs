//! How a start uses the manifests: a restore is recorded, a rollback is refused, and the schema
//! changes only after a backup.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::evidence::rehash;
use crate::support::{Gateway, Home, SmallDisk, decide, verified, verify};

/// A stopped gateway's folder: 8 receipts, and backups that end at 3 and at 6.
fn history() -> Home {
    let home = Home::new();
    go_on(&home, 3, "b3.db");
    go_on(&home, 3, "b6.db");
    go_on(&home, 2, "");
    fs::remove_file(home.path("backups/b6.db")).expect("pruned; its manifest is kept");
    home
}

/// Starts, decides, takes a backup if a name is given, and stops.
fn go_on(home: &Home, count: usize, backup: &str) {
    let gateway = home.start();
    decide(&gateway.agent("a"), count);
    if !backup.is_empty() {
        gateway.backup(home, backup);
    }
    assert_eq!(gateway.stop(), 0);
}

fn restore(home: &Home, backup: &Path) {
    fs::rename(home.database(), home.path("db/aegisagent.db.bad")).expect("mv");
    fs::copy(backup, home.database()).expect("cp");
}

fn newest_receipt(gateway: &Gateway) -> Value {
    gateway.get("/v1/receipts?limit=1")[0].clone()
}

fn head_in(home: &Home, manifest: &str) -> (i64, String) {
    let text = fs::read(home.path("backups").join(manifest)).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    let head = &manifest["head"];
    (head["seq"].as_i64().expect("a number"), head["receipt_hash"].as_str().expect("a hash").to_owned())
}

fn against_backups(home: &Home) -> (Option<i32>, Value) {
    let (database, backups) = (home.database(), home.path("backups"));
    let paths = [&database, &backups].map(|path| path.to_str().expect("text").to_owned());
    let output = verify(&["--json", &paths[0], "--against", &paths[1], "--require-witness"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn head_of(database: &Path) -> (i64, String) {
    let connection = Connection::open(database).expect("it opens");
    let row = connection
        .query_row("SELECT head_seq, head_hash FROM chain", [], |row| Ok((row.get(0)?, row.get(1)?)));
    row.expect("a head")
}

fn cut_at(database: &Path, seq: i64) {
    let connection = Connection::open(database).expect("it opens");
    connection
        .execute_batch(&format!(
            "DROP TRIGGER receipts_are_never_deleted; DROP TRIGGER decisions_are_never_deleted;
             PRAGMA foreign_keys = OFF; PRAGMA wal_checkpoint(TRUNCATE);
             DELETE FROM decisions WHERE seq > {seq}; DELETE FROM receipts WHERE seq > {seq};
             UPDATE chain SET head_seq = {seq},
                 head_hash = (SELECT receipt_hash FROM receipts WHERE seq = {seq});
             CREATE TRIGGER receipts_are_never_deleted BEFORE DELETE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never deleted'); END;
             CREATE TRIGGER decisions_are_never_deleted BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are evidence: they are never deleted'); END;
             PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .expect("cut");
}

#[test]
fn a_restore_is_in_the_record_with_the_head_that_was_restored_and_the_later_one_that_was_known() {
    let home = history();
    restore(&home, &home.path("backups/b3.db"));
    let (three, six) = (head_in(&home, "b3.db.manifest.json"), head_in(&home, "b6.db.manifest.json"));
    let gateway = home.start();
    let receipt = newest_receipt(&gateway);
    assert_eq!((&receipt["seq"], &receipt["tool"]), (&4.into(), &"restore".into()), "{receipt}");
    assert_eq!((&receipt["action"], &receipt["decision"]), (&"restore".into(), &"restored".into()));
    assert_eq!(receipt["prev_receipt_hash"], three.1);
    assert_eq!(receipt["resource"], format!("head:3:{} known:6:{}", three.1, six.1));
    let events = gateway.get("/v1/audit/events?event_type=restore");
    assert_eq!(events.as_array().map(Vec::len), Some(1), "{events}");
    assert_eq!(events[0]["resource"], receipt["event_id"]);
    let details: Value = serde_json::from_str(events[0]["event_json"].as_str().expect("text")).expect("JSON");
    assert_eq!((&details["known"]["seq"], &details["head"]["seq"]), (&6.into(), &3.into()), "{details}");
    assert_eq!(gateway.stop(), 0);
    let (status, report) = against_backups(&home);
    assert_eq!(status, Some(0), "the fork is acknowledged: {report}");
    assert_eq!(report["witnesses"]["acknowledged_forks"].as_array().map(Vec::len), Some(1), "{report}");
}

#[test]
fn a_restore_is_recorded_once_and_the_new_branch_may_outgrow_the_old_one() {
    let home = history();
    restore(&home, &home.path("backups/b3.db"));
    go_on(&home, 1, "");
    go_on(&home, 5, "c10.db");
    go_on(&home, 1, "");
    assert_eq!(verified(&home.database()), 3 + 1 + 7);
    assert_eq!(against_backups(&home).0, Some(0));
}

#[test]
fn a_backup_of_the_newest_head_is_restored_with_no_later_one_known() {
    let home = Home::new();
    go_on(&home, 2, "b2.db");
    restore(&home, &home.path("backups/b2.db"));
    let gateway = home.start();
    let resource = newest_receipt(&gateway)["resource"].as_str().expect("text").to_owned();
    assert!(resource.ends_with(" known:none"), "{resource}");
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn the_backup_of_an_empty_chain_is_restored_and_recorded() {
    let home = Home::new();
    let gateway = home.start();
    gateway.backup(&home, "empty.db");
    decide(&gateway.agent("a"), 2);
    assert_eq!(gateway.stop(), 0);
    restore(&home, &home.path("backups/empty.db"));
    let gateway = home.start();
    assert_eq!(newest_receipt(&gateway)["resource"], "head:0: known:none");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&home.database()), 1);
}

/// First an old backup by mistake, then the newer one: the branch in between is abandoned, and
/// its witness lies within the restored history.
#[test]
fn a_second_restore_of_a_newer_backup_leaves_the_branch_between() {
    let home = Home::new();
    go_on(&home, 3, "b3.db");
    go_on(&home, 5, "b8.db");
    restore(&home, &home.path("backups/b3.db"));
    go_on(&home, 2, "c6.db");
    let left = head_in(&home, "c6.db.manifest.json");
    restore(&home, &home.path("backups/b8.db"));
    let gateway = home.start();
    let resource = newest_receipt(&gateway)["resource"].as_str().expect("text").to_owned();
    assert!(resource.ends_with(&format!(" known:none left:6:{}", left.1)), "{resource}");
    assert_eq!(gateway.stop(), 0);
    go_on(&home, 1, "");
    let (status, report) = against_backups(&home);
    assert_eq!(status, Some(0), "{report}");
}

#[test]
fn a_database_behind_its_own_backups_is_refused_with_both_heads_and_left_as_it_was() {
    let home = history();
    cut_at(&home.database(), 5);
    let six = head_in(&home, "b6.db.manifest.json");
    let five = head_of(&home.database());
    let line = home.refused();
    for part in ["seq 5", &five.1, "seq 6", &six.1, "b6.db.manifest.json", "AEGIS_ACCEPT_ROLLBACK="] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn an_older_copy_in_the_database_s_place_is_refused() {
    let home = Home::new();
    go_on(&home, 3, "");
    fs::copy(home.database(), home.path("older.db")).expect("copied");
    go_on(&home, 3, "b6.db");
    fs::copy(home.path("older.db"), home.database()).expect("a disk rolled back");
    assert!(home.refused().contains("is behind its own backups"));
    // Even after it has grown past the witness elsewhere.
    let elsewhere = Home::new();
    fs::create_dir(elsewhere.path("db")).expect("made");
    fs::copy(home.path("older.db"), elsewhere.database()).expect("copied");
    go_on(&elsewhere, 6, "");
    fs::copy(elsewhere.database(), home.database()).expect("swapped");
    assert!(home.refused().contains("is on another branch than its own backups"));
}

#[test]
fn a_rollback_goes_on_when_it_is_accepted_by_its_head_and_is_recorded() {
    let mut home = history();
    cut_at(&home.database(), 5);
    let head = head_of(&home.database()).1;
    home.set("AEGIS_ACCEPT_ROLLBACK", &head_in(&home, "b6.db.manifest.json").1);
    assert!(home.refused().contains("seq 6"), "another head is no consent");
    home.set("AEGIS_ACCEPT_ROLLBACK", &head);
    let gateway = home.start();
    let receipt = newest_receipt(&gateway);
    assert_eq!(
        (&receipt["action"], &receipt["decision"]),
        (&"accept_rollback".into(), &"rollback_accepted".into())
    );
    assert_eq!(gateway.stop(), 0);
    home.unset("AEGIS_ACCEPT_ROLLBACK");
    go_on(&home, 1, "");
    assert_eq!(against_backups(&home).0, Some(0));
    assert_eq!(verified(&home.database()), 7);
}

#[test]
fn a_consent_that_is_left_set_accepts_no_other_rollback_and_is_recorded_once() {
    let mut home = history();
    cut_at(&home.database(), 5);
    home.set("AEGIS_ACCEPT_ROLLBACK", &head_of(&home.database()).1);
    let recorded = |home: &Home| {
        let connection = Connection::open(home.database()).expect("it opens");
        let count = "SELECT count(*) FROM receipts WHERE action = 'accept_rollback'";
        connection.query_row(count, [], |row| row.get::<_, i64>(0)).expect("a count")
    };
    go_on(&home, 2, "c8.db");
    go_on(&home, 2, "c10.db");
    assert_eq!(recorded(&home), 1);
    cut_at(&home.database(), 9);
    assert!(home.refused().contains("is behind its own backups"));
}

#[test]
fn a_database_that_is_gone_is_not_replaced_by_an_empty_one() {
    let home = history();
    let away = home.path("away.db");
    fs::rename(home.database(), &away).expect("mv");
    let six = head_in(&home, "b6.db.manifest.json");
    for spoil in [|_: &Home| (), |home: &Home| fs::remove_dir_all(home.path("db")).expect("a lost disk")] {
        spoil(&home);
        fs::create_dir_all(home.path("db")).expect("a folder");
        let line = home.refused();
        for part in
            ["is missing", "b6.db.manifest.json has seen seq 6", &six.1, "AEGIS_ACCEPT_ROLLBACK=empty"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    fs::copy(home.path("backups/b3.db"), home.database()).expect("cp");
    assert_eq!(home.start().stop(), 0, "one way out: a restore");
    fs::rename(&away, home.database()).expect("mv back");
    assert_eq!(home.start().stop(), 0, "and the other");
}

#[test]
fn a_database_that_a_gateway_ran_on_is_missed_also_without_a_backup() {
    let mut home = Home::new();
    assert_eq!(home.start().stop(), 0);
    fs::remove_file(home.database()).expect("removed");
    let line = home.refused();
    assert!(line.contains("is missing, but a gateway ran on it"), "{line}");
    home.set("AEGIS_ACCEPT_ROLLBACK", &"0".repeat(64));
    assert!(home.refused().contains("is missing"), "a head is no consent to none");
    home.set("AEGIS_ACCEPT_ROLLBACK", "empty");
    let gateway = home.start();
    assert_eq!(newest_receipt(&gateway)["resource"], "head:0: known:none");
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_new_chain_in_the_place_of_a_lost_one_begins_with_a_receipt_that_says_so() {
    let mut home = history();
    fs::remove_file(home.database()).expect("removed");
    let six = head_in(&home, "b6.db.manifest.json");
    home.set("AEGIS_ACCEPT_ROLLBACK", "empty");
    let gateway = home.start();
    let receipt = newest_receipt(&gateway);
    assert_eq!((&receipt["seq"], &receipt["action"]), (&1.into(), &"accept_rollback".into()), "{receipt}");
    assert_eq!(receipt["resource"], format!("head:0: known:6:{}", six.1));
    let events = gateway.get("/v1/audit/events?event_type=restore");
    assert_eq!(events[0]["resource"], receipt["event_id"], "{events}");
    assert!(!gateway.log().contains("is still set"), "{}", gateway.log());
    decide(&gateway.agent("a"), 2);
    gateway.backup(&home, "new.db");
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start();
    assert!(gateway.log().contains("AEGIS_ACCEPT_ROLLBACK=empty is still set"), "{}", gateway.log());
    assert_eq!(gateway.stop(), 0);
    home.unset("AEGIS_ACCEPT_ROLLBACK");
    go_on(&home, 1, "");
    assert_eq!(verified(&home.database()), 4);
    let (status, report) = against_backups(&home);
    assert_eq!((status, &report["witnesses"]["other_chains"]), (Some(0), &2.into()), "{report}");
}

#[test]
fn a_first_start_takes_one_command_also_beside_the_backup_of_an_empty_chain() {
    let (home, other) = (Home::new(), Home::new());
    let gateway = other.start();
    gateway.backup(&other, "empty.db");
    assert_eq!(gateway.stop(), 0);
    fs::rename(other.path("backups"), home.path("backups")).expect("moved");
    assert_eq!(home.start().stop(), 0);
}

#[test]
fn an_agent_s_call_of_a_tool_named_restore_is_no_restore() {
    let (home, elsewhere) = (Home::new(), Home::new());
    go_on(&home, 3, "b3.db");
    fs::create_dir(elsewhere.path("db")).expect("made");
    fs::copy(home.database(), elsewhere.database()).expect("copied");
    go_on(&home, 3, "b6.db");
    let (three, six) = (head_in(&home, "b3.db.manifest.json"), head_in(&home, "b6.db.manifest.json"));
    let gateway = elsewhere.start();
    gateway.tool("restore", "restore", &json!({}));
    let resource = format!("head:3:{} known:6:{} left:6:{}", three.1, six.1, six.1);
    let body = json!({"tool": "restore", "action": "restore", "resource": resource, "mutates_state": false,
                      "parameters": {}, "source_trust": "trusted_internal_signed"});
    let agent = gateway.agent("a");
    assert_eq!(gateway.authorize(&agent.token, &body.to_string()).status, 200);
    let receipt = newest_receipt(&gateway);
    assert_eq!((&receipt["tool"], &receipt["resource"]), (&"restore".into(), &resource.into()), "{receipt}");
    decide(&agent, 4);
    gateway.backup(&elsewhere, "forged.db");
    assert_eq!(gateway.stop(), 0);
    let text = fs::read(elsewhere.path("backups/forged.db.manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(manifest["restores"], json!([]));
    fs::copy(elsewhere.database(), home.database()).expect("swapped");
    let (status, report) = against_backups(&home);
    assert_eq!((status, &report["verdict"]), (Some(1), &"forked".into()), "{report}");
    assert!(home.refused().contains("is on another branch than its own backups"));
}

#[test]
fn a_restored_file_that_is_older_than_its_manifest_says_is_recorded_with_what_was_known() {
    let home = history();
    let gateway = home.start();
    gateway.backup(&home, "b8.db");
    assert_eq!(gateway.stop(), 0);
    // The older file under the newer file's name.
    fs::copy(home.path("backups/b3.db"), home.path("backups/b8.db")).expect("copied");
    restore(&home, &home.path("backups/b8.db"));
    let gateway = home.start();
    let resource = newest_receipt(&gateway)["resource"].as_str().expect("text").to_owned();
    assert!(resource.starts_with("head:3:") && resource.contains(" known:8:"), "{resource}");
    assert_eq!(gateway.stop(), 0);
}

/// The gateway's command as an unprivileged user who owns the home.
fn as_nobody(home: &Home) -> Command {
    const NOBODY: u32 = 65534;
    let mut command = home.command(&[]);
    if fs::metadata(home.path("")).expect("it is there").uid() == 0 {
        for path in ["", "db", "backups", "db/aegisagent.db", "db/aegisagent.db.identity", "db/admin.token"] {
            chown(home.path(path), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Without them, the gateway cannot tell whether the database is behind its backups.
#[test]
fn a_folder_of_backups_that_cannot_be_read_refuses_the_start() {
    let home = history();
    fs::set_permissions(home.path("backups"), fs::Permissions::from_mode(0o000)).expect("a mode");
    let before = home.database_files();
    let (code, text) = home.run_to_end(as_nobody(&home));
    assert_eq!(code, Some(3), "{text}");
    let line = text.lines().last().expect("a line");
    assert!(line.contains("cannot read the manifests in backups: Permission denied"), "{text}");
    assert!(home.database_files() == before);
    fs::set_permissions(home.path("backups"), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_eq!(home.start().stop(), 0);
}

#[test]
fn a_backup_whose_history_was_rewritten_is_not_restored() {
    let home = history();
    let forged = home.path("forged.db");
    fs::copy(home.path("backups/b3.db"), &forged).expect("copied");
    let connection = Connection::open(&forged).expect("it opens");
    connection
        .execute_batch(
            "DROP TRIGGER receipts_are_never_updated; DROP TRIGGER decisions_are_never_updated;
             UPDATE receipts SET user_id = 'other' WHERE seq = 2;
             UPDATE decisions SET user_id = 'other' WHERE seq = 2;",
        )
        .expect("changed");
    let last = rehash(&connection, 2);
    connection.execute("UPDATE chain SET head_hash = ?1", [last]).expect("changed");
    connection
        .execute_batch(
            "CREATE TRIGGER receipts_are_never_updated BEFORE UPDATE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never updated'); END;
             CREATE TRIGGER decisions_are_never_updated BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are evidence: they are never updated'); END;",
        )
        .expect("as it was");
    drop(connection);
    restore(&home, &forged);
    assert!(home.refused().contains("holds another history than its own backups"));
}

#[test]
fn a_damaged_manifest_does_not_hide_a_rollback_as_long_as_its_backup_is_there() {
    let home = Home::new();
    go_on(&home, 3, "b3.db");
    go_on(&home, 3, "b6.db");
    cut_at(&home.database(), 4);
    for content in ["{", "", "{\"format_version\": 2}"] {
        fs::write(home.path("backups/b6.db.manifest.json"), content).expect("written");
        let (code, line) = home.start_refused();
        assert_eq!(code, 3, "{line}");
        assert!(
            line.contains("is behind its own backups") && line.contains("b6.db has seen seq 6"),
            "{line}"
        );
        let (status, report) = against_backups(&home);
        assert_eq!((status, &report["verdict"]), (Some(1), &"truncated".into()), "{report}");
        assert_eq!(report["witnesses"]["unreadable"], 1, "{report}");
    }
}

#[test]
fn backups_may_lie_beside_the_database_and_none_is_taken_for_a_file_of_its_own() {
    let home = Home::new().with("AEGIS_BACKUP_DIR", "db");
    let names = ["a.db", "aegisagent.db.new", "aegisagent.db.partial"];
    let gateway = home.start();
    decide(&gateway.agent("a"), 1);
    for name in names {
        let body = json!({ "filename": name });
        assert_eq!(gateway.operator("POST", "/v1/admin/backup", Some(&body)).status, 200, "{name}");
    }
    for taken in ["aegisagent.db", "aegisagent.db.lock", "aegisagent.db.identity", "admin.token"] {
        let body = json!({ "filename": taken });
        assert_eq!(gateway.operator("POST", "/v1/admin/backup", Some(&body)).status, 409, "{taken}");
    }
    assert_eq!(gateway.stop(), 0);
    // A database is not its own witness.
    fs::write(home.path("db/aegisagent.db.manifest.json"), "{").expect("written");
    assert_eq!(home.start().stop(), 0);
    for name in names {
        verified(&home.path("db").join(name));
    }
}

#[test]
fn manifests_of_other_chains_and_files_that_are_none_stop_no_start() {
    let (home, other) = (history(), history());
    let folder = home.path("backups");
    fs::copy(other.path("backups/b6.db.manifest.json"), folder.join("x.manifest.json")).expect("copied");
    fs::write(folder.join("y.manifest.json"), "{").expect("written");
    fs::write(folder.join("z.manifest.json"), "{\"format_version\": 2}").expect("written");
    let gateway = home.start();
    let log = gateway.log();
    assert!(log.contains("passing over") && log.contains("format 2 is newer"), "{log}");
    assert_eq!(gateway.stop(), 0);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema_0001.db")
}

fn home_with_golden() -> Home {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("made");
    fs::copy(golden(), home.database()).expect("copied");
    home
}

fn pre_migration_backups(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path("backups")).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "db"));
    paths
}

#[test]
fn a_verified_backup_precedes_a_step_of_the_schema() {
    let home = home_with_golden();
    let before = head_of(&golden());
    assert_eq!(home.start().stop(), 0);
    let found = pre_migration_backups(&home);
    let [backup] = found.as_slice() else { panic!("{found:?}") };
    let name = backup.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("pre-migration-1-to-"), "{name}");
    assert_eq!(fs::metadata(backup).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(head_of(backup), before);
    let manifest = fs::read(home.path(&format!("backups/{name}.manifest.json"))).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!((&manifest["schema_version"], &manifest["head"]["seq"]), (&1.into(), &before.0.into()));
    // Its purpose: the state before the step can be restored.
    restore(&home, backup);
    assert_eq!(home.start().stop(), 0);
}

#[test]
fn every_released_schema_is_brought_up_to_date_and_keeps_its_evidence() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut versions = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(version) = name.strip_prefix("schema_").and_then(|rest| rest.strip_suffix(".db")) else {
            continue;
        };
        let home = Home::new();
        fs::create_dir(home.path("db")).expect("made");
        fs::copy(&path, home.database()).expect("copied");
        let before = head_of(&path).0.unsigned_abs();
        go_on(&home, 2, "");
        assert_eq!(verified(&home.database()), before + 1 + 2, "{name}: the restore and two decisions");
        versions.push(version.parse::<u32>().expect("a number"));
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 7], "a golden database for each released schema");
}

#[test]
fn no_backup_is_taken_where_there_is_no_step_or_no_data_or_it_is_turned_off() {
    let home = Home::new();
    assert_eq!(home.start().stop(), 0);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(pre_migration_backups(&home), Vec::<PathBuf>::new());
    let mut home = home_with_golden();
    home.set("AEGIS_PRE_MIGRATION_BACKUP", "off");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(pre_migration_backups(&home), Vec::<PathBuf>::new());
}

#[test]
fn a_schema_does_not_change_when_the_backup_before_it_fails() {
    let mut home = home_with_golden();
    let Some(disk) = SmallDisk::mount(home.path("small"), "size=64k") else { return };
    home.set("AEGIS_BACKUP_DIR", disk.path().to_str().expect("text"));
    let line = home.refused();
    assert!(line.contains("cannot take the backup that precedes the step"), "{line}");
    assert!(line.contains(disk.path().to_str().expect("text")), "{line}");
    assert!(line.contains("AEGIS_PRE_MIGRATION_BACKUP=off"), "{line}");
    assert_eq!(fs::read_dir(disk.path()).expect("a folder").count(), 0, "nothing is left");
}
