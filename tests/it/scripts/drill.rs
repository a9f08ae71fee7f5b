//! `drill.sh`: a disaster in a temporary folder, and nothing left of it.

use std::fs;
use std::path::Path;

use super::super::support::{Home, wait_until};
use super::{Fault, Faults, decide, names, run, script};

/// Two backups of a gateway that has stopped since.
fn office() -> Home {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway, "one", 2);
    gateway.backup(&home, "older.db");
    decide(&gateway, "two", 2);
    gateway.backup(&home, "newest.db");
    assert_eq!(gateway.stop(), 0);
    home
}

/// No drill's gateway runs: each has its database below this folder.
fn no_gateway_is_left(home: &Home) -> bool {
    let below = format!("AEGIS_DB_PATH={}", home.path("tmp").display());
    let processes = fs::read_dir("/proc").expect("processes");
    !processes.flatten().any(|process| {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&below)
    })
}

fn assert_nothing_is_left(home: &Home) {
    assert_eq!(names(&home.path("tmp")), [""; 0]);
    assert!(no_gateway_is_left(home));
}

#[test]
fn a_drill_recovers_the_newest_backup_and_leaves_nothing() {
    let home = office();
    let (database, backups) = (home.database_files(), home.snapshot("backups"));
    let ran = run(&mut script(&home, "drill.sh", &[]));
    ran.assert_status(0).assert_says("newest.db").assert_says("time to recover").assert_says("4 receipts");
    ran.assert_says("result             passed");
    assert_eq!(ran.err, "");
    assert_nothing_is_left(&home);
    assert!(database == home.database_files() && backups == home.snapshot("backups"), "nothing was touched");
    assert_eq!(run(&mut script(&home, "drill.sh", &["--quiet"])).out, "");
}

#[test]
fn a_drill_beside_the_live_gateway_does_not_touch_it() {
    let home = office();
    let gateway = home.start();
    let head = gateway.get("/v1/receipts/chain-head");
    run(&mut script(&home, "drill.sh", &["backups/older.db"])).assert_status(0).assert_says("2 receipts");
    assert_eq!(gateway.get("/v1/receipts/chain-head"), head);
    assert_eq!(gateway.get("/v1/agents").as_array().map(Vec::len), Some(2), "no drill's agent");
    assert_nothing_is_left(&home);
}

#[test]
fn a_drill_on_a_damaged_backup_is_status_3() {
    let home = office();
    let path = home.path("backups/newest.db");
    let mut bytes = fs::read(&path).expect("readable");
    bytes[9000] ^= 1;
    fs::write(&path, bytes).expect("written");
    run(&mut script(&home, "drill.sh", &[])).assert_status(3).assert_says("the drill FAILED");
    assert_nothing_is_left(&home);
    run(&mut script(&home, "drill.sh", &["backups/older.db"])).assert_status(0);
}

#[test]
fn a_drill_whose_gateway_does_not_start_fails_and_leaves_nothing() {
    let home = office();
    run(script(&home, "drill.sh", &[]).env("AEGIS_GATEWAY", "/bin/false")).assert_status(1);
    assert_nothing_is_left(&home);
}

#[test]
fn a_drill_in_folders_with_spaces_and_quotes_passes_and_leaves_nothing() {
    let home = office();
    fs::rename(home.path("backups"), home.path("the backups' \"own\" $HOME")).expect("renamed");
    let temporary = home.path("tmp/a  b'c");
    fs::create_dir_all(&temporary).expect("a folder");
    let mut drill = script(&home, "drill.sh", &["--backup-dir", "the backups' \"own\" $HOME"]);
    run(drill.env("TMPDIR", &temporary)).assert_status(0).assert_says("newest.db").assert_says("4 receipts");
    assert_eq!(names(&temporary), [""; 0]);
    assert!(no_gateway_is_left(&home));
}

#[test]
fn a_backup_that_is_called_like_a_member_of_its_manifest_is_drilled() {
    let home = office();
    let gateway = home.start();
    gateway.backup(&home, "seq");
    assert_eq!(gateway.stop(), 0);
    run(&mut script(&home, "drill.sh", &["backups/seq"])).assert_status(0).assert_says("4 receipts");
}

#[test]
fn a_drill_sweeps_nothing_but_what_a_drill_left() {
    let home = office();
    let mine = home.path("tmp");
    // No process has this number: it is above what the kernel gives.
    for (folder, file) in [("aegis-drill.notes", "db"), ("aegis-drill.99999999", "diary")] {
        fs::create_dir_all(mine.join(folder)).expect("a folder");
        fs::write(mine.join(folder).join(file), "mine").expect("written");
    }
    run(&mut script(&home, "drill.sh", &[])).assert_status(0);
    assert_eq!(names(&mine), ["aegis-drill.99999999", "aegis-drill.notes"]);
    fs::remove_file(mine.join("aegis-drill.99999999/diary")).expect("removed");
    run(&mut script(&home, "drill.sh", &[])).assert_status(0);
    assert_eq!(names(&mine), ["aegis-drill.notes"]);
}

#[test]
fn a_drill_without_a_backup_is_status_2() {
    let home = Home::new();
    run(&mut script(&home, "drill.sh", &[])).assert_status(2).assert_says("holds no backup");
    run(&mut script(&home, "drill.sh", &["none.db"])).assert_status(2).assert_says("cannot be read");
    run(&mut script(&home, "drill.sh", &["--frobnicate"])).assert_status(2);
}

#[test]
fn a_time_that_is_no_number_is_status_2_before_anything_is_made() {
    let home = office();
    for seconds in ["x", "", "-1", "1.5"] {
        let ran = run(&mut script(&home, "drill.sh", &["--recover-max", seconds]));
        ran.assert_status(2).assert_says("--recover-max");
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{seconds}");
    }
    run(&mut script(&home, "drill.sh", &["--recover-max", "0090"])).assert_status(0);
}

#[test]
fn killed_at_any_step_a_drill_touches_nothing_and_the_next_one_sweeps() {
    let home = office();
    let (database, backups) = (home.database_files(), home.snapshot("backups"));
    let faults = Faults::new(&home);
    for step in 1.. {
        let Some(_) = faults.run_with(Fault::KillAfter, step, &mut script(&home, "drill.sh", &[])) else {
            break;
        };
        assert!(database == home.database_files() && backups == home.snapshot("backups"), "{step}");
    }
    // A restore whose drill was killed comes to its own end.
    wait_until("no restore is at work", || !is_at_work(&home.path("tmp")));
    run(&mut script(&home, "drill.sh", &[])).assert_status(0);
    assert_nothing_is_left(&home);
}

/// Whether a `restore.sh` still runs on a database below the folder.
fn is_at_work(folder: &Path) -> bool {
    let below = folder.display().to_string();
    fs::read_dir("/proc").expect("processes").flatten().any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("restore.sh") && line.contains(&below)
    })
}
