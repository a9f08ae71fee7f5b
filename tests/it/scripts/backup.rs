//! `backup.sh`: silent when all is well, and nothing is pruned that was not replaced by
//! a proven backup.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{self, JoinHandle};

use super::super::support::{Gateway, Home, verified};
use super::{Fault, Faults, decide, names, run, script};

/// A running gateway with some history.
struct Office {
    home: Home,
    gateway: Gateway,
}

impl Office {
    fn new() -> Self {
        let home = Home::new();
        let gateway = home.start();
        decide(&gateway, "one", 2);
        Office { home, gateway }
    }

    fn backup(&self, arguments: &[&str]) -> Command {
        let mut command = script(&self.home, "backup.sh", arguments);
        command.env("AEGIS_URL", format!("http://{}", self.gateway.address()));
        command
    }

    /// Backups of the script's naming, oldest first.
    fn backups(&self) -> Vec<String> {
        let all = names(&self.home.path("backups")).into_iter();
        all.filter(|name| name.starts_with("auto-") && name.ends_with(".db")).collect()
    }

    fn touch(&self, name: &str) {
        for suffix in ["", ".sha256", ".manifest.json"] {
            let path = self.home.path(&format!("backups/{name}{suffix}"));
            fs::write(path, "{}").expect("written");
        }
    }

    fn has(&self, name: &str) -> bool {
        self.home.path(&format!("backups/{name}")).exists()
    }
}

#[test]
fn a_backup_is_taken_proven_and_silent() {
    let office = Office::new();
    let ran = run(&mut office.backup(&[]));
    ran.assert_status(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "cron mails nothing");
    let [name] = office.backups().try_into().expect("one backup");
    assert_eq!(verified(&office.home.path(&format!("backups/{name}"))), 2);
    assert!(office.has(&format!("{name}.manifest.json")) && office.has(&format!("{name}.sha256")));
    assert!(!office.has(".backup.work"), "nothing else is left but the lock");
}

#[test]
fn an_address_may_end_with_a_slash() {
    let office = Office::new();
    let url = format!("http://{}/", office.gateway.address());
    run(&mut office.backup(&["--url", &url])).assert_status(0);
    assert_eq!(office.backups().len(), 1);
}

#[test]
fn two_backups_within_a_second_get_two_names() {
    let office = Office::new();
    run(&mut office.backup(&["--verbose"])).assert_status(0).assert_says("took ");
    run(&mut office.backup(&[])).assert_status(0);
    assert_eq!(office.backups().len(), 2);
}

#[test]
fn a_gateway_that_is_not_there_or_refuses_is_status_1() {
    let office = Office::new();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
    run(&mut office.backup(&["--url", &format!("http://{closed}")]))
        .assert_status(1)
        .assert_says("no backup");
    run(office.backup(&[]).env("AEGIS_TOKEN", "not-the-operator-s-token"))
        .assert_status(1)
        .assert_says("answers 401");
    assert!(office.backups().is_empty());
}

#[test]
fn a_full_disk_of_the_gateway_is_status_7() {
    let office = Office::new();
    let (url, server) = stub(vec!["507 x\r\n"; 1]);
    run(&mut office.backup(&["--url", &url])).assert_status(7).assert_says("because");
    assert_eq!(server.join().expect("served"), 1);
}

/// A gateway that gives these answers, each a status line's rest and headers, and then no
/// more; ends with how many were asked for.
fn stub(answers: Vec<&'static str>) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    let serve = move || {
        for answer in &answers {
            let (mut stream, _) = listener.accept().expect("a client");
            assert!(stream.read(&mut [0; 4096]).expect("a request") > 0);
            let body = "{\"message\":\"because\"}";
            let length = body.len();
            let head = format!("HTTP/1.1 {answer}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        }
        answers.len()
    };
    (url, thread::spawn(serve))
}

/// A folder of programs in front of the others: `sleep` writes down how long, and does not.
fn with_patient_sleep(office: &Office, mut backup: Command) -> Command {
    let tools = office.home.path("tools");
    fs::create_dir_all(&tools).expect("a folder");
    fs::write(tools.join("sleep"), "#!/bin/sh\necho \"$1\" >>\"${0%/*}/slept\"\n").expect("written");
    fs::set_permissions(tools.join("sleep"), fs::Permissions::from_mode(0o755)).expect("a mode");
    backup.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display()));
    backup
}

#[test]
fn a_busy_gateway_is_asked_again_when_it_says_and_no_more_than_six_times() {
    for (answers, status, slept) in [
        (vec!["503 x\r\nRetry-After: 5\r\n", "503 x\r\nretry-after: 0\r\n", "507 x\r\n"], 7, "5 0"),
        (vec!["503 x\r\nRetry-After: 3\r\n"; 7], 1, "3 3 3 3 3 3"),
        (vec!["409 x\r\n", "503 x\r\nRetry-After: 08\r\n", "409 x\r\n", "409 x\r\n"], 1, "1 8 1"),
        // Not said, too long, or a date.
        (vec!["503 x\r\n"], 1, ""),
        (vec!["503 x\r\nRetry-After: 100\r\n"], 1, ""),
        (vec!["503 x\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n"], 1, ""),
    ] {
        let office = Office::new();
        let asked = answers.len();
        let (url, server) = stub(answers);
        run(&mut with_patient_sleep(&office, office.backup(&["--url", &url])))
            .assert_status(status)
            .assert_says("because");
        assert_eq!(server.join().expect("served"), asked);
        let written = fs::read_to_string(office.home.path("tools/slept")).unwrap_or_default();
        assert_eq!(written.lines().collect::<Vec<_>>().join(" "), slept);
    }
}

#[test]
fn bad_usage_is_status_2_and_takes_no_backup() {
    let office = Office::new();
    fs::write(office.home.path("open.token"), "x").expect("written");
    fs::set_permissions(office.home.path("open.token"), fs::Permissions::from_mode(0o644)).expect("a mode");
    for words in [
        &["--frobnicate"][..],
        &["--frobnicate", "x"],
        &["--keep-last"],
        &["--prune", "--keep-last", "some"],
        &["--prune", "--keep-last", "-1"],
        &["--timeout", "1h"],
        &["--keep-last", "3"],
        &["--token-file", "none"],
        &["--token-file", "open.token"],
        &["--backup-dir", "none"],
        &["--verifier", "/does/not/exist"],
    ] {
        let ran = run(&mut office.backup(words));
        assert_eq!(ran.status, 2, "{words:?}: {}{}", ran.out, ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{words:?}: {}", ran.err);
    }
    assert!(office.backups().is_empty());
}

#[test]
fn of_a_link_to_a_token_the_mode_of_its_target_counts() {
    let office = Office::new();
    let (token, link) = (office.home.path("db/admin.token"), office.home.path("token"));
    std::os::unix::fs::symlink(&token, &link).expect("linked");
    run(&mut office.backup(&["--token-file", "token"])).assert_status(0);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("a mode");
    run(&mut office.backup(&["--token-file", "token"]))
        .assert_status(2)
        .assert_says("token can be read by everybody");
    assert_eq!(office.backups().len(), 1);
}

#[test]
fn an_empty_policy_is_refused() {
    let office = Office::new();
    office.touch("auto-20200101T000000Z.db");
    for words in [&["--prune"][..], &["--dry-run"], &["--prune", "--keep-last", "0", "--keep-daily", "00"]] {
        run(&mut office.backup(words)).assert_status(2).assert_says("--keep");
    }
    assert_eq!(office.backups(), ["auto-20200101T000000Z.db"]);
}

#[test]
fn an_unproven_backup_is_status_3_and_nothing_is_pruned() {
    let office = Office::new();
    office.gateway.backup(&office.home, "mine.db");
    // A witness of another history: the gateway's is not the one that was seen before.
    let other = Office::new();
    other.gateway.backup(&other.home, "other.db");
    fs::remove_file(office.home.path("backups/mine.db.manifest.json")).expect("removed");
    let witness = fs::read_to_string(other.home.path("backups/other.db.manifest.json")).expect("text");
    let chain = |home: &Home, name: &str| {
        let text = fs::read_to_string(home.path(name)).expect("text");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value["chain_id"].as_str().expect("an id").to_owned()
    };
    run(&mut office.backup(&[])).assert_status(0);
    let [first] = office.backups().try_into().expect("one");
    let own = chain(&office.home, &format!("backups/{first}.manifest.json"));
    let forged = witness.replace(&chain(&other.home, "backups/other.db.manifest.json"), &own);
    fs::write(office.home.path("backups/mine.db.manifest.json"), forged).expect("written");
    run(&mut office.backup(&["--prune", "--keep-last", "1"])).assert_status(3).assert_says("not proven");
    assert!(office.has(&first), "nothing was pruned");
}

#[test]
fn a_damaged_backup_beside_the_new_one_is_status_8_and_nothing_is_pruned() {
    let office = Office::new();
    office.gateway.backup(&office.home, "older.db");
    office.touch_old();
    fs::write(office.home.path("backups/older.db"), "").expect("emptied");
    let words = ["--copy-off", "touch copied", "--prune", "--keep-last", "1"];
    run(&mut office.backup(&words))
        .assert_status(8)
        .assert_says("is proven")
        .assert_says("older.db.manifest.json: expected")
        .assert_says("found \"0 bytes\"");
    assert!(office.home.path("copied").exists() && office.backups().len() == 2);
    fs::remove_file(office.home.path("backups/older.db")).expect("moved away");
    run(&mut office.backup(&words)).assert_status(0);
    assert_eq!(office.backups().len(), 1);
}

#[test]
fn a_backup_that_lies_elsewhere_is_status_3() {
    let office = Office::new();
    fs::create_dir(office.home.path("elsewhere")).expect("a folder");
    run(&mut office.backup(&["--backup-dir", "elsewhere"])).assert_status(3).assert_says("another folder");
}

#[test]
fn the_copy_off_gets_the_three_files_and_no_token() {
    let office = Office::new();
    let token = office.gateway.token.clone();
    let command = "for f; do test -f \"$f\"; echo \"$f\"; done >seen; env >>seen; echo noise";
    let mut backup = office.backup(&["--copy-off", command]);
    let ran = run(backup.env("AEGIS_TOKEN", &token));
    ran.assert_status(0);
    assert_eq!(ran.out, "", "what it prints is no trouble");
    let seen = fs::read_to_string(office.home.path("seen")).expect("it ran");
    let [name] = office.backups().try_into().expect("one backup");
    for suffix in ["", ".manifest.json", ".sha256"] {
        assert_eq!(seen.matches(&format!("/backups/{name}{suffix}\n")).count(), 2, "{seen}");
    }
    assert!(!seen.contains(&token), "{seen}");
}

#[test]
fn a_failed_copy_off_is_status_4_and_nothing_is_pruned() {
    let office = Office::new();
    office.touch_old();
    let words = ["--copy-off", "echo no route; exit 9", "--prune", "--keep-last", "1"];
    run(&mut office.backup(&words)).assert_status(4).assert_says("failed with 9").assert_says("no route");
    assert_eq!(office.backups().len(), 2);
}

impl Office {
    /// An older backup of this chain, without a witness that would speak against it.
    fn touch_old(&self) {
        for suffix in ["", ".sha256"] {
            fs::write(self.home.path(&format!("backups/auto-20200101T000000Z.db{suffix}")), "old")
                .expect("written");
        }
    }
}

#[test]
fn a_backup_that_cannot_be_removed_is_status_5() {
    let office = Office::new();
    office.touch_old();
    let tools = office.home.path("tools");
    fs::create_dir(&tools).expect("a folder");
    let rm = "#!/bin/sh\ncase \"$*\" in *auto-2020*) exit 1 ;; esac\nexec /bin/rm \"$@\"\n";
    fs::write(tools.join("rm"), rm).expect("written");
    fs::set_permissions(tools.join("rm"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut backup = office.backup(&["--prune", "--keep-last", "1"]);
    let path = format!("{}:/usr/bin:/bin", tools.display());
    run(backup.env("PATH", path)).assert_status(5).assert_says("cannot be removed");
}

#[test]
fn a_second_run_is_status_6() {
    let office = Office::new();
    let lock = File::create(office.home.path("backups/.backup.lock")).expect("a lock");
    lock.lock().expect("locked");
    run(&mut office.backup(&[])).assert_status(6).assert_says("another run");
    assert!(office.backups().is_empty());
    lock.unlock().expect("unlocked");
    run(&mut office.backup(&[])).assert_status(0);
}

#[test]
fn without_flock_a_second_run_is_status_6_too() {
    let office = Office::new();
    let tools = office.home.path("tools");
    fs::create_dir(&tools).expect("a folder");
    for program in ["awk", "cat", "curl", "date", "dirname", "find", "mkdir", "rm", "rmdir", "sed", "sleep"] {
        std::os::unix::fs::symlink(format!("/usr/bin/{program}"), tools.join(program)).expect("linked");
    }
    let lock = office.home.path("backups/.backup.lock.d");
    fs::create_dir(&lock).expect("a lock");
    run(office.backup(&[]).env("PATH", &tools)).assert_status(6).assert_says("rmdir");
    assert!(lock.exists(), "the other run's lock stays");
    fs::remove_dir(&lock).expect("unlocked");
    run(office.backup(&[]).env("PATH", &tools)).assert_status(0);
    assert!(!lock.exists());
}

#[test]
fn the_token_is_on_no_command_line() {
    let office = Office::new();
    let tools = office.home.path("tools");
    fs::create_dir(&tools).expect("a folder");
    let curl = "#!/bin/sh\ncat \"/proc/$$/cmdline\" \"/proc/$$/environ\" >>\"$HOME/seen\"\nexec /usr/bin/curl \"$@\"\n";
    fs::write(tools.join("curl"), curl).expect("written");
    fs::set_permissions(tools.join("curl"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut backup = office.backup(&[]);
    backup.env("PATH", format!("{}:/usr/bin:/bin", tools.display())).env("HOME", office.home.path(""));
    run(backup.env("AEGIS_TOKEN", &office.gateway.token)).assert_status(0);
    let seen = String::from_utf8_lossy(&fs::read(office.home.path("seen")).expect("it ran")).into_owned();
    assert!(seen.contains("/v1/admin/backup") && !seen.contains(&office.gateway.token), "{seen}");
}

#[test]
fn pruning_keeps_what_a_rule_keeps_and_says_why() {
    let office = Office::new();
    let all = [
        "20261123T050000",
        "20261123T040000",
        "20261122T230000",
        "20261122T010000",
        "20261116T000000",
        "20261115T235959",
        "20261031T010101",
        "20260228T000000",
        "20260101T000000",
        "20241230T000000",
        "20240229T120000",
    ];
    for time in all {
        office.touch(&format!("auto-{time}Z.db"));
    }
    for (rules, kept) in [
        (&["--keep-last", "1"][..], &[0][..]),
        (&["--keep-last", "3"], &[0, 1, 2]),
        (&["--keep-last", "08"], &[0, 1, 2, 3, 4, 5, 6, 7]),
        (&["--keep-last", "0010"], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (&["--keep-daily", "2"], &[0, 2]),
        (&["--keep-daily", "4"], &[0, 2, 4, 5]),
        (&["--keep-weekly", "3"], &[0, 2, 5]),
        (&["--keep-monthly", "3"], &[0, 6, 7]),
        (&["--keep-monthly", "99"], &[0, 6, 7, 8, 9, 10]),
        (&["--keep-last", "2", "--keep-daily", "2", "--keep-monthly", "2"], &[0, 1, 2, 6]),
    ] {
        let ran = run(&mut office.backup(&[&["--dry-run"], rules].concat()));
        ran.assert_status(0);
        for (position, time) in all.iter().enumerate() {
            let verb = if kept.contains(&position) { "keep" } else { "prune" };
            ran.assert_says(&format!("auto-{time}Z.db  {verb}: "));
        }
    }
    let ran = run(&mut office.backup(&["--dry-run", "--keep-daily", "1", "--keep-weekly", "9"]));
    ran.assert_says("auto-20261123T050000Z.db  keep: the newest, daily 2026-11-23, weekly 2026-W48");
    ran.assert_says("auto-20260101T000000Z.db  keep: weekly 2026-W01");
    ran.assert_says("auto-20241230T000000Z.db  keep: weekly 2025-W01");
    assert_eq!(office.backups().len(), all.len(), "a dry run removes nothing, and takes no backup");
}

#[test]
fn pruning_touches_only_its_own_files_and_keeps_every_manifest() {
    let office = Office::new();
    run(&mut office.backup(&[])).assert_status(0);
    let [first] = office.backups().try_into().expect("one");
    office.gateway.backup(&office.home, "pre-migration-2026-06-17.db");
    let others = [
        "auto-2020.db",
        "auto-20209999T000000Z.db",
        "auto-20200101T000000Z.db.bak",
        "Auto-20200101T000000Z.db",
    ];
    for name in others {
        fs::write(office.home.path(&format!("backups/{name}")), "x").expect("written");
    }
    run(&mut office.backup(&["--prune", "--keep-last", "1"])).assert_status(0);
    assert!(!office.has(&first) && !office.has(&format!("{first}.sha256")));
    assert!(office.has(&format!("{first}.manifest.json")), "the history stays pinned");
    for name in others.iter().chain(&["pre-migration-2026-06-17.db"]) {
        assert!(office.has(name), "{name}");
    }
    assert_eq!(run(&mut office.backup(&[])).status, 0, "the manifest without its file is still a witness");
}

#[test]
fn backups_of_another_chain_are_never_pruned_and_take_no_place_of_a_rule() {
    let office = Office::new();
    let other = Office::new();
    let others = ["auto-20200101T000000Z.db", "auto-29990101T000000Z.db"];
    for (name, source) in others.iter().zip(["one.db", "two.db"]) {
        other.gateway.backup(&other.home, source);
        for suffix in ["", ".sha256", ".manifest.json"] {
            let from = other.home.path(&format!("backups/{source}{suffix}"));
            fs::copy(from, office.home.path(&format!("backups/{name}{suffix}"))).expect("copied");
        }
    }
    run(&mut office.backup(&[])).assert_status(0);
    let own = |office: &Office| {
        office.backups().into_iter().filter(|name| !others.contains(&name.as_str())).collect::<Vec<_>>()
    };
    let first = own(&office);
    let ran = run(&mut office.backup(&["--prune", "--keep-last", "1", "--verbose"]));
    ran.assert_status(0).assert_says("auto-20200101T000000Z.db  keep: of another chain");
    assert!(others.iter().all(|name| office.has(name)));
    let [second] = own(&office).try_into().expect("the newest of its own");
    assert!(!first.contains(&second));
    // Nothing is made in a dry run: there, the newest is the measure.
    fs::remove_file(office.home.path("backups/auto-29990101T000000Z.db")).expect("removed");
    let ran = run(&mut office.backup(&["--dry-run", "--keep-last", "1"]));
    ran.assert_status(0).assert_says(&format!("{second}  keep: the newest, last 1"));
    ran.assert_says("auto-20200101T000000Z.db  keep: of another chain");
}

#[test]
fn the_newest_and_the_one_just_made_are_never_pruned() {
    let office = Office::new();
    // The clock was wrong once: a file of the far future is the newest by its name.
    for suffix in ["", ".sha256"] {
        fs::write(office.home.path(&format!("backups/auto-29990101T000000Z.db{suffix}")), "x")
            .expect("written");
    }
    run(&mut office.backup(&["--prune", "--keep-monthly", "1"])).assert_status(0);
    assert_eq!(office.backups().len(), 2);
    assert!(office.has("auto-29990101T000000Z.db"));
}

#[test]
fn killed_at_any_step_a_backup_leaves_whole_backups_and_the_next_run_goes_on() {
    let office = Office::new();
    let faults = Faults::new(&office.home);
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        for step in 1.. {
            office.touch_old();
            let mut backup = office.backup(&["--prune", "--keep-last", "1"]);
            let Some(ran) = faults.run_with(fault, step, &mut backup) else { break };
            assert_eq!(ran.status, -1, "{fault:?} {step}");
            let whole: Vec<PathBuf> =
                office.backups().iter().map(|name| office.home.path(&format!("backups/{name}"))).collect();
            let taken = whole.iter().filter(|path| !path.ends_with("auto-20200101T000000Z.db"));
            assert!(taken.map(|path| verified(path)).all(|receipts| receipts == 2), "{fault:?} {step}");
        }
    }
    run(&mut office.backup(&["--prune", "--keep-last", "1"])).assert_status(0);
    assert_eq!(office.backups().len(), 1);
    assert!(!office.has(".backup.work") && !office.has("auto-20200101T000000Z.db.sha256"));
}
