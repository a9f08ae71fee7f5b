//! Odd contents of a backup folder: files that are not manifests, another gateway's backups,
//! and a thousand of the gateway's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backup::{MANY, backup, begin_backup, home_with_many, names, partials, with_witness};
use crate::support::{Gateway, Home, VERIFIER, decide, sha256, verify, wait_until};

/// Far longer than a start or a backup takes, and far shorter than a hang.
const SOON: Duration = Duration::from_secs(15);

fn manifest(folder: &Path, name: &str) -> Value {
    let text = fs::read(folder.join(format!("{name}.manifest.json"))).expect("a manifest");
    serde_json::from_slice(&text).expect("JSON")
}

fn digest(folder: &Path, name: &str) -> String {
    sha256(&fs::read(folder.join(format!("{name}.manifest.json"))).expect("a manifest"))
}

fn previous(manifest: &Value) -> Option<&str> {
    manifest["previous_manifest"]["sha256"].as_str()
}

fn verified_against(home: &Home, folder: &Path) -> Value {
    let (database, folder) = (home.database(), folder.to_str().expect("text").to_owned());
    let output = verify(&["--json", database.to_str().expect("text"), "--against", &folder]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(said["verdict"], "verified", "{said}");
    said
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

#[test]
fn nothing_in_the_folder_hangs_a_start_a_backup_or_a_verification() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&home, "a.db");
    assert_eq!(gateway.stop(), 0);
    let folder = home.path("backups");
    let huge = fs::File::create(folder.join("huge.manifest.json")).expect("made");
    huge.set_len(1 << 30).expect("grown");
    fs::write(folder.join("deep.manifest.json"), "[".repeat(900_000)).expect("written");
    fs::create_dir(folder.join("folder.manifest.json")).expect("made");
    for name in ["pipe.manifest.json", "pipe.db", "pipe.db.sha256", ".partial-00", ".partial-01-journal"] {
        fifo(&folder.join(name));
    }
    // Journals whose databases would be a pipe and a folder.
    fs::write(folder.join(".partial-00-journal"), "").expect("written");
    fs::write(folder.join(".partial-02-journal"), "").expect("written");
    fs::create_dir(folder.join(".partial-02")).expect("made");
    symlink("/dev/zero", folder.join("zero.manifest.json")).expect("linked");
    symlink("loop.manifest.json", folder.join("loop.manifest.json")).expect("linked");
    symlink("pipe.manifest.json", folder.join("link.manifest.json")).expect("linked");

    let begin = Instant::now();
    let gateway = home.start();
    decide(&gateway.agent("a"), 1);
    gateway.backup(&home, "b.db");
    assert_eq!(previous(&manifest(&folder, "b.db")), Some(digest(&folder, "a.db").as_str()));
    let listed = gateway.get("/v1/admin/backups");
    let listed: Vec<_> = listed.as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(listed, ["b.db", "a.db"]);
    let log = gateway.log();
    assert!(!log.contains("cannot be used"), "{log}");
    assert_eq!(gateway.stop(), 0);
    let said = verified_against(&home, &folder);
    assert_eq!(said["witnesses"]["matched"], 2, "{said}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(folder.join(".partial-00").exists() && folder.join(".partial-02").exists(), "not ours");
    assert!(!folder.join(".partial-02-journal").exists(), "swept");
}

#[test]
fn what_is_no_file_where_a_file_should_be_refuses_the_start_at_once() {
    for name in [
        "aegisagent.db-wal",
        "aegisagent.db-journal",
        "aegisagent.db.lock",
        "aegisagent.db.identity",
        "aegisagent.db",
        "admin.token",
    ] {
        let home = Home::new();
        let gateway = home.start();
        decide(&gateway.agent("a"), 1);
        assert_eq!(gateway.stop(), 0);
        let path = home.path("db").join(name);
        for make in [
            fifo,
            |path: &Path| symlink("/dev/zero", path).expect("linked"),
            |path: &Path| {
                fs::create_dir(path).expect("made");
            },
        ] {
            let kept = home.path("kept");
            let was_there = fs::rename(&path, &kept).is_ok();
            make(&path);
            let (status, told) = home.run_to_end(home.command(&[]));
            assert!(matches!(status, Some(2 | 3)), "{name}: {status:?} {told}");
            assert!(told.contains(name) || told.contains("/dev/zero"), "{told}");
            // A pipe given as the input may deliver an export, so the verifier waits for it.
            let verified = if name == "aegisagent.db" {
                0
            } else {
                verify_ends(&home, &[home.database().to_str().expect("text")])
            };
            assert!(matches!(verified, 0 | 2 | 3), "{name}: {verified}");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).expect("removed");
            if was_there {
                fs::rename(&kept, &path).expect("put back");
            }
        }
        assert_eq!(home.start().stop(), 0, "{name}");
    }
}

/// The verifier's exit status; it must not block.
fn verify_ends(home: &Home, arguments: &[&str]) -> i32 {
    let mut command = Command::new(VERIFIER);
    command.args(arguments).stdout(std::process::Stdio::null());
    home.run_to_end(command).0.expect("a status")
}

#[test]
fn a_thousand_manifests_delay_neither_a_start_nor_a_backup() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&home, "a.db");
    assert_eq!(gateway.stop(), 0);
    let folder = home.path("backups");
    let mut before = (manifest(&folder, "a.db"), digest(&folder, "a.db"));
    for count in 0..1000 {
        let name = format!("m{count}.db");
        before.0["previous_manifest"] = json!({"name": "x.manifest.json", "sha256": before.1});
        before.0["file"]["name"] = name.clone().into();
        let text = before.0.to_string();
        fs::write(folder.join(format!("{name}.manifest.json")), &text).expect("written");
        before.1 = sha256(text.as_bytes());
    }
    let begin = Instant::now();
    let gateway = home.start();
    let started = begin.elapsed();
    gateway.backup(&home, "b.db");
    assert!(begin.elapsed() < SOON, "start {started:?}, both {:?}", begin.elapsed());
    assert_eq!(previous(&manifest(&folder, "b.db")), Some(before.1.as_str()), "the end of a thousand");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified_against(&home, &folder)["witnesses"]["matched"], 1002);
}

#[test]
fn two_gateways_may_share_a_folder() {
    let (first, second) = (home_with_many(), Home::new());
    let folder = first.path("backups");
    let second = second.with("AEGIS_BACKUP_DIR", folder.to_str().expect("text"));
    let one = first.start();
    let running = begin_backup(&one, "one.db");
    wait_until("a backup runs", || !partials(&folder).is_empty());
    // Its start sweeps the folder, but leaves the other gateway's partial files alone.
    let two = second.start();
    assert!(!partials(&folder).is_empty(), "the backup was over too soon for this test to say anything");
    assert_eq!(running.join().expect("no panic").expect("an answer").status, 200);
    decide(&two.agent("a"), 2);
    assert_eq!(backup(&two, "one.db").status, 409);
    assert_eq!(backup(&two, "two.db").status, 200);
    assert_eq!(backup(&one, "three.db").status, 200);
    assert_eq!(names(&folder), with_witness(["one.db", "two.db", "three.db"]));
    assert_eq!(previous(&manifest(&folder, "two.db")), None, "the first of its chain");
    assert_eq!(previous(&manifest(&folder, "three.db")), Some(digest(&folder, "one.db").as_str()));
    for (home, gateway, matched) in [(&first, one, 2), (&second, two, 1)] {
        assert_eq!(gateway.stop(), 0);
        let said = verified_against(home, &folder);
        assert_eq!(said["witnesses"]["matched"], matched, "{said}");
        assert_eq!(said["witnesses"]["other_chains"], 3 - matched, "{said}");
        assert_eq!(home.start().stop(), 0, "the other's are no rollback");
    }
    assert_eq!(manifest(&folder, "one.db")["receipts"], MANY);
}

/// Takes a backup and expects its manifest to name the manifest of `before`.
fn backup_after(home: &Home, gateway: &Gateway, name: &str, before: &str) {
    gateway.backup(home, name);
    let folder = home.path("backups");
    let named = manifest(&folder, name);
    assert_eq!(previous(&named), Some(digest(&folder, before).as_str()), "{name} follows {before}: {named}");
}

#[test]
fn a_manifest_names_the_last_one_also_after_a_restore_of_an_older_head() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&home, "b3.db");
    decide(&gateway.agent("a"), 5);
    backup_after(&home, &gateway, "b8.db", "b3.db");
    assert_eq!(gateway.stop(), 0);
    fs::remove_file(home.database()).expect("lost");
    fs::copy(home.path("backups/b3.db"), home.database()).expect("cp");
    let gateway = home.start();
    backup_after(&home, &gateway, "c4.db", "b8.db");
    decide(&gateway.agent("a"), 1);
    backup_after(&home, &gateway, "c5.db", "c4.db");
    backup_after(&home, &gateway, "c5-again.db", "c5.db");
}

#[test]
fn a_manifest_names_the_last_one_also_after_the_clock_was_set_back() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    gateway.backup(&home, "a.db");
    // As written while the clock was ahead.
    let folder = home.path("backups");
    let mut ahead = manifest(&folder, "a.db");
    ahead["created_at"] = "2199-01-01T00:00:00.000000Z".into();
    fs::write(folder.join("a.db.manifest.json"), ahead.to_string()).expect("written");
    backup_after(&home, &gateway, "b.db", "a.db");
    backup_after(&home, &gateway, "c.db", "b.db");
    assert_eq!(gateway.stop(), 0);
    verified_against(&home, &folder);
    assert_eq!(home.start().stop(), 0);
}
