//! Backup manifests: a manifest is accurate, is written before its backup gets its name, and is
//! removed if the backup fails.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Gateway, Home, SmallDisk, assert_failure, decide, faults, sha256, try_request, verified, verify,
};

const PATH: &str = "/v1/admin/backup";

fn backup(gateway: &Gateway, name: &str) -> Value {
    let answer = gateway.operator("POST", PATH, Some(&json!({"filename": name})));
    assert_eq!(answer.status, 200, "{name}: {answer:?}");
    answer.body
}

fn manifest(home: &Home, name: &str) -> Value {
    let text = fs::read_to_string(home.path(&format!("backups/{name}.manifest.json"))).expect("a manifest");
    assert!(text.ends_with("}\n"), "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
}

/// The row that a query returns from a stopped database or a backup, as text.
fn row(database: &Path, sql: &str) -> String {
    let database = rusqlite::Connection::open(database).expect("a database");
    database.query_row(sql, [], |row| row.get(0)).expect(sql)
}

#[test]
fn every_member_of_a_manifest_is_true_of_the_finished_copy() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 7);
    let told = backup(&gateway, "b.db");
    decide(&gateway.agent("a"), 2);
    assert_eq!(gateway.stop(), 0);

    let said = manifest(&home, "b.db");
    let path = home.path("backups/b.db");
    let bytes = fs::read(&path).expect("a file");
    assert_eq!(said["file"], json!({"name": "b.db", "bytes": bytes.len(), "sha256": sha256(&bytes)}));
    let head = "FROM receipts ORDER BY seq DESC LIMIT 1";
    assert_eq!(
        said["head"],
        json!({
            "seq": 7,
            "receipt_id": row(&path, &format!("SELECT event_id {head}")),
            "receipt_hash": row(&path, &format!("SELECT receipt_hash {head}")),
            "ts": row(&path, &format!("SELECT ts {head}")),
        })
    );
    assert_eq!(said["genesis_hash"], row(&path, "SELECT receipt_hash FROM receipts WHERE seq = 1"));
    assert_eq!(said["chain_id"], row(&path, "SELECT chain_id FROM chain"));
    assert_eq!((&said["receipts"], &said["decisions"]), (&json!(7), &json!(7)));
    assert_eq!((&said["format_version"], &said["previous_manifest"]), (&json!(1), &Value::Null));
    assert_eq!(said["program"], json!({"name": "aegis-gateway", "version": env!("CARGO_PKG_VERSION")}));
    assert!(said["created_at"].as_str() >= said["head"]["ts"].as_str(), "{said}");
    let checks = said["checks"].as_array().expect("a list");
    let checks: Vec<_> =
        checks.iter().map(|check| (check["name"].as_str(), check["result"].as_str())).collect();
    let expected = ["schema", "integrity_check", "chain", "decisions", "digest"];
    assert_eq!(checks, expected.map(|name| (Some(name), Some("ok"))));

    // The answer says the same.
    assert_eq!(told["manifest"], "backups/b.db.manifest.json");
    for (answered, written) in [
        ("backup_id", "/backup_id"),
        ("chain_id", "/chain_id"),
        ("head_hash", "/head/receipt_hash"),
        ("head_seq", "/head/seq"),
        ("sha256", "/file/sha256"),
        ("schema_version", "/schema_version"),
    ] {
        assert_eq!(Some(&told[answered]), said.pointer(written), "{answered}");
    }
}

#[test]
fn both_files_are_private_and_sha256sum_accepts_the_digest() {
    let home = Home::new();
    let gateway = home.start();
    for name in ["b.db", "nightly 1*.db", "Köln備份.db"] {
        backup(&gateway, name);
        for suffix in [".manifest.json", ".sha256"] {
            let metadata = fs::metadata(home.path(&format!("backups/{name}{suffix}"))).expect("a file");
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{name}{suffix}");
        }
        let check = || {
            let mut command = Command::new("sha256sum");
            let command = command.args(["-c", "--strict", "--status", &format!("{name}.sha256")]);
            command.current_dir(home.path("backups")).status().expect("sha256sum runs").success()
        };
        assert!(check(), "{name}");
        let mut bytes = fs::read(home.path("backups").join(name)).expect("a file");
        bytes[200] ^= 1;
        fs::write(home.path("backups").join(name), bytes).expect("written");
        assert!(!check(), "{name}: it says something");
    }
}

#[test]
fn a_manifest_names_the_newest_one_of_its_chain_and_passes_over_what_it_cannot_read() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let folder = home.path("backups");
    let link = |name: &str| {
        let bytes = fs::read(folder.join(format!("{name}.manifest.json"))).expect("a manifest");
        json!({"name": format!("{name}.manifest.json"), "sha256": sha256(&bytes)})
    };
    backup(&gateway, "z.db");
    backup(&gateway, "same-head.db");
    assert_eq!(manifest(&home, "same-head.db")["previous_manifest"], link("z.db"));
    decide(&agent, 1);
    backup(&gateway, "a.db");
    assert_eq!(manifest(&home, "a.db")["previous_manifest"], link("same-head.db"), "the later of two alike");

    let other = Home::new();
    let stranger = other.start();
    decide(&stranger.agent("a"), 9);
    backup(&stranger, "other.db");
    let foreign = "other.db.manifest.json";
    fs::copy(other.path("backups").join(foreign), folder.join(foreign)).expect("copied");
    fs::write(folder.join("broken.manifest.json"), "{").expect("written");
    fs::create_dir(folder.join("folder.manifest.json")).expect("made");
    decide(&agent, 1);
    backup(&gateway, "b.db");
    assert_eq!(manifest(&home, "b.db")["previous_manifest"], link("a.db"));
    gateway.logs("POST /v1/admin/backup 200");
    let log = gateway.log();
    assert!(log.lines().any(|line| line.contains("warn") && line.contains("broken.manifest.json")), "{log}");
    assert!(!log.contains(foreign), "{log}");
}

#[test]
fn the_manifest_of_an_empty_chain_says_so() {
    let home = Home::new();
    let gateway = home.start();
    backup(&gateway, "b.db");
    let said = manifest(&home, "b.db");
    assert_eq!(said["head"], json!({"seq": 0, "receipt_id": null, "receipt_hash": "", "ts": null}));
    assert_eq!((&said["genesis_hash"], &said["receipts"]), (&Value::Null, &json!(0)));
}

/// A disk with room for its root only, then for one more name each time, fills up at every step
/// in turn: the copy, SQLite's journal of it, and each side file.
#[test]
fn a_disk_that_fills_at_any_step_fails_the_backup_and_leaves_nothing() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(home.path("backups"), "size=64m,nr_inodes=1,mode=700") else { return };
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    let mut failed = 0;
    loop {
        let answer = gateway.operator("POST", PATH, Some(&json!({"filename": "b.db"})));
        if answer.status == 200 {
            break;
        }
        assert_failure(&answer, 507, "InsufficientStorage");
        assert!(names(disk.path()).is_empty(), "{failed}: {:?}", names(disk.path()));
        failed += 1;
        disk.remount(&format!("nr_inodes={}", 1 + failed));
    }
    assert!(failed >= 4, "only {failed} steps failed");
    assert_eq!(names(disk.path()).len(), 3);
    assert_eq!(verified(&disk.path().join("b.db")), 3);
}

#[test]
fn a_kill_before_each_change_of_a_backup_leaves_no_backup_without_its_manifest() {
    let mut home = Home::new();
    let (library, backing_up) = (faults(&home), home.path("backing-up"));
    let folder = home.path("backups");
    decide(&home.start().agent("a"), 3);
    home.set("LD_PRELOAD", &library);
    home.set("KILL_ONCE_THERE", backing_up.to_str().expect("text"));
    let (mut call, mut alone, mut last) = (0, 0, None);
    loop {
        call += 1;
        let name = format!("b{call}.db");
        home.set("KILL_AT", &call.to_string());
        let gateway = home.start();
        fs::write(&backing_up, "").expect("written");
        let (address, token) = (gateway.address(), gateway.token.clone());
        let body = json!({"filename": name}).to_string();
        let answer = try_request(address, "POST", PATH, Some(&token), Some(&body));
        let acknowledged = answer.is_ok_and(|answer| answer.status == 200);
        if acknowledged {
            gateway.kill();
        } else {
            assert_eq!(gateway.ended(), None, "killed");
        }
        fs::remove_file(&backing_up).expect("removed");
        let left: BTreeSet<String> =
            names(&folder).into_iter().filter(|left| left.starts_with(&name)).collect();
        assert!(!acknowledged || left.len() == 3, "killed at {call}: {left:?}");
        if left.contains(&name) {
            assert_eq!(left.len(), 3, "killed at {call}: {left:?}");
            assert_eq!(verified(&folder.join(&name)), 3, "killed at {call}");
        }
        if left.contains(&format!("{name}.manifest.json")) {
            let said = manifest(&home, &name);
            assert_eq!(said["head"]["seq"], 3, "killed at {call}: whole under its name");
            assert_eq!(said["previous_manifest"]["name"].as_str(), last.as_deref(), "killed at {call}");
            last = Some(format!("{name}.manifest.json"));
            alone += usize::from(!left.contains(&name));
        }
        if acknowledged {
            break;
        }
    }
    assert!(alone > 0, "no kill came between the names");
    home.unset("LD_PRELOAD");
    let gateway = home.start();
    assert!(names(&folder).iter().all(|name| !name.starts_with(".partial-")), "swept");
    backup(&gateway, "b.db");
    assert_eq!(manifest(&home, "b.db")["previous_manifest"]["name"].as_str(), last.as_deref());
    assert_eq!(gateway.stop(), 0);
    let (database, folder) = (home.database(), folder.to_str().expect("text").to_owned());
    let output = verify(&[database.to_str().expect("text"), "--against", &folder, "--require-witness"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_copy_whose_schema_a_start_would_refuse_is_no_backup() {
    let home = Home::new();
    let gateway = home.start();
    backup(&gateway, "b.db");
    let before = names(&home.path("backups"));
    let database = rusqlite::Connection::open(home.database()).expect("a database");
    database.execute_batch("DROP TRIGGER receipts_are_never_deleted").expect("dropped");
    let answer = gateway.operator("POST", PATH, Some(&json!({"filename": "c.db"})));
    assert_failure(&answer, 500, "InternalError");
    gateway.logs("receipts_are_never_deleted is missing");
    assert_eq!(names(&home.path("backups")), before);
}
