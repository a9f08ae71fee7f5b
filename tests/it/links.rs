//! One database, one gateway, whatever the file is called: a database with a second name is
//! refused, since a gateway on each would fork the chain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Home, decide, sha256, verified, verify};

fn stopped(count: usize) -> Home {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), count);
    gateway.backup(&home, "b.db");
    assert_eq!(gateway.stop(), 0);
    home
}

/// `cp -al`: every file under a second name.
fn link_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::hard_link(&path, to.join(path.file_name().expect("a name"))).expect("linked");
        }
    }
}

/// Runs the command that a refusal names.
fn do_as_told(line: &str) {
    let command = line.split_once("of its own: ").expect("a way out").1;
    assert!(Command::new("sh").args(["-c", command]).status().expect("sh runs").success(), "{command}");
}

#[test]
fn a_database_of_two_names_is_served_under_neither_until_each_has_a_file_of_its_own() {
    let mut home = stopped(3);
    link_folder(&home.path("db"), &home.path("snap"));
    assert!(home.refused().contains("aegisagent.db has 2 names"));
    home.set("AEGIS_DB_PATH", home.path("snap/aegisagent.db").to_str().expect("text"));
    let line = home.refused();
    assert!(line.contains("snap/aegisagent.db has 2 names"), "{line}");
    assert_eq!(verified(&home.database()), 3, "whoever only reads may come by either");
    do_as_told(&line);
    let copy = home.start();
    home.unset("AEGIS_DB_PATH");
    let own = home.start();
    decide(&own.agent("a"), 2);
    decide(&copy.agent("a"), 1);
    assert_eq!((own.stop(), copy.stop()), (0, 0));
    assert_eq!((verified(&home.database()), verified(&home.path("snap/aegisagent.db"))), (5, 4));
}

#[test]
fn a_log_of_two_names_is_refused_as_well() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 2);
    gateway.kill();
    link_folder(&home.path("db"), &home.path("snap"));
    assert!(home.refused().contains("aegisagent.db has 2 names"));
    fs::remove_file(home.path("snap/aegisagent.db")).expect("removed");
    for side in ["-wal", "-shm"] {
        let line = home.refused();
        assert!(line.contains(&format!("aegisagent.db{side} has 2 names")), "{line}");
        do_as_told(&line);
    }
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 2);
}

#[test]
fn a_backup_that_was_linked_into_the_database_s_place_is_never_written_to() {
    let home = stopped(3);
    let backup = home.path("backups/b.db");
    let before = sha256(&fs::read(&backup).expect("readable"));
    fs::remove_file(home.database()).expect("removed");
    fs::hard_link(&backup, home.database()).expect("linked");
    do_as_told(&home.refused());
    let gateway = home.start();
    decide(&gateway.agent("a"), 1);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(sha256(&fs::read(&backup).expect("readable")), before);
    let paths = [&backup, &home.path("backups")].map(|path| path.to_str().expect("text").to_owned());
    assert!(verify(&[&paths[0], "--against", &paths[1], "--require-witness"]).status.success());
}

/// A file mounted onto a name; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where mounting is not permitted.
    fn over(file: &Path, at: PathBuf) -> Option<Self> {
        let mounted = Command::new("mount").arg("--bind").args([file, &at]).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Mounted(at)),
            other => {
                println!("not tested, a file cannot be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.0).status();
        let unmounted = status.is_ok_and(|status| status.success());
        assert!(unmounted || std::thread::panicking(), "{} is still mounted", self.0.display());
    }
}

#[test]
fn a_database_that_is_mounted_by_itself_is_refused_and_one_in_a_mounted_folder_is_not() {
    let mut home = stopped(3);
    fs::create_dir(home.path("other")).expect("a folder");
    let at = home.path("other/aegisagent.db");
    fs::write(&at, "").expect("written");
    home.set("AEGIS_DB_PATH", at.to_str().expect("text"));
    let Some(mounted) = Mounted::over(&home.database(), at) else { return };
    let line = home.refused();
    assert!(line.contains("mounted by itself") && line.contains("mount its folder"), "{line}");
    drop(mounted);
    let mounted = Mounted::over(&home.path("db"), home.path("other"));
    let gateway = home.start();
    home.unset("AEGIS_DB_PATH");
    assert!(home.refused().contains("another gateway runs"), "it is the same folder");
    assert_eq!(gateway.stop(), 0);
    drop(mounted);
}
