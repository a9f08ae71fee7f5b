//! `restore.sh`: a proven backup in the database's place, or everything as it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::support::{GATEWAY, Gateway, Home, decision_ids, verified, wait_until};
use super::{Fault, Faults, Ran, decide, mode, names, run, script, source_of};

const BACKUP: &str = "backups/before.db";
/// A step before the new database has its name; the ones before are the same whether a
/// gateway is to be started or not.
const PREPARED: u32 = 15;

/// A folder with a backup, and a database that went on after it and was killed: its last
/// decisions are in the log alone.
struct Disaster {
    home: Home,
    /// Decisions that the backup holds.
    before: Vec<String>,
    /// Decisions that came after it.
    after: Vec<String>,
}

impl Disaster {
    fn new() -> Self {
        let home = Home::new();
        let gateway = home.start();
        let before = decide(&gateway, "before", 3);
        gateway.backup(&home, "before.db");
        let after = decide(&gateway, "after", 3);
        gateway.kill();
        assert!(fs::metadata(home.beside("-wal")).expect("a log").len() > 0);
        Disaster { home, before, after }
    }

    fn restore(&self, more: &[&str]) -> Command {
        script(&self.home, "restore.sh", &[&[BACKUP], more].concat())
    }

    /// Everything beside the database, without what a test put elsewhere.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.home.database_files()
    }

    /// The folders beside the database whose name has this in it.
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        let folder = self.home.path("db");
        let of_kind = names(&folder).into_iter().filter(|name| name.contains(kind));
        of_kind.map(|name| folder.join(name)).collect()
    }

    fn assert_old_is_whole(&self) {
        let held = decision_ids(&self.home.database());
        assert!(self.before.iter().chain(&self.after).all(|id| held.contains(id)), "the old database");
    }
}

/// The gateway that a script left running; asked to end when dropped.
struct Left(u32);

impl Left {
    fn behind(home: &Home) -> Self {
        Left(fs::read_to_string(home.path("pid")).expect("a number").trim().parse().expect("a number"))
    }

    fn is_running(&self) -> bool {
        Path::new(&format!("/proc/{}/environ", self.0)).exists()
            && fs::read(format!("/proc/{}/environ", self.0)).is_ok_and(|bytes| !bytes.is_empty())
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.is_running() {
            let ended = Command::new("kill").arg(self.0.to_string()).status();
            assert!(ended.is_ok(), "kill runs");
            wait_until("the gateway ends", || !self.is_running());
        }
    }
}

/// The words after `--start`: a gateway in the foreground that writes its number down.
fn start(prelude: &str) -> Vec<String> {
    let line = format!("{prelude} echo $$ >pid; exec env AEGIS_BIND_ADDR=127.0.0.1:0 {GATEWAY} >log 2>&1");
    ["--start", "sh", "-c"].map(str::to_owned).into_iter().chain([line]).collect()
}

fn restore_and_start(disaster: &Disaster, prelude: &str) -> Ran {
    let words = start(prelude);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(&mut disaster.restore(&words))
}

#[test]
fn a_restore_starts_the_gateway_on_what_the_backup_held() {
    let disaster = Disaster::new();
    restore_and_start(&disaster, "").assert_status(0).assert_says("ready on 127.0.0.1:");
    let left = Left::behind(&disaster.home);
    assert!(left.is_running());
    let held = decision_ids(&disaster.home.database());
    assert!(disaster.before.iter().all(|id| held.contains(id)));
    assert!(!disaster.after.iter().any(|id| held.contains(id)));
    assert_eq!(mode(&disaster.home.database()), 0o600);
    assert!(disaster.folders("restoring").is_empty());
    assert!(disaster.home.beside(".lock").exists(), "the running gateway's lock stays");
}

#[test]
fn the_scripts_own_settings_do_not_reach_the_gateway_that_is_started() {
    let disaster = Disaster::new();
    let help = disaster.home.command(&["--help"]).output().expect("help").stdout;
    let help = String::from_utf8(help).expect("text");
    let words = start("");
    let mut restore = disaster.restore(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let mut set = 0;
    for name in ["backup.sh", "drill.sh", "restore.sh"] {
        let text = fs::read_to_string(source_of(name)).expect("a script");
        for setting in text.split("${").filter_map(|rest| rest.split_once(":-")).map(|(name, _)| name) {
            // The two programs are set already, and needed.
            let is_own = setting.starts_with("AEGIS_") && !help.contains(setting);
            if is_own && !matches!(setting, "AEGIS_VERIFIER" | "AEGIS_GATEWAY") {
                restore.env(setting, "x");
                set += 1;
            }
        }
    }
    assert!(set >= 10, "{set}");
    run(&mut restore).assert_status(0);
    let _left = Left::behind(&disaster.home);
    let log = fs::read_to_string(disaster.home.path("log")).expect("a log");
    assert!(!log.contains("is not a setting"), "{log}");
}

#[test]
fn the_old_database_is_kept_whole_and_private_with_its_log() {
    let disaster = Disaster::new();
    run(&mut disaster.restore(&[])).assert_status(0).assert_says("start the gateway");
    assert!(!disaster.home.beside("-wal").exists(), "the old log does not stay beside the new database");
    let [bad] = disaster.folders(".bad-").try_into().expect("one folder");
    assert_eq!(mode(&bad), 0o700);
    // Moved back, it is as it was: its log is still known to be its own.
    for name in names(&bad) {
        fs::rename(bad.join(&name), disaster.home.path("db").join(&name)).expect("moved");
    }
    let gateway = disaster.home.start();
    assert!(!gateway.log().contains("set aside"), "{}", gateway.log());
    assert_eq!(gateway.stop(), 0);
    disaster.assert_old_is_whole();
}

#[test]
fn a_restore_where_no_database_is_makes_it() {
    let disaster = Disaster::new();
    fs::remove_dir_all(disaster.home.path("db")).expect("lost");
    run(&mut disaster.restore(&[])).assert_status(0);
    assert_eq!(names(&disaster.home.path("db")), ["aegisagent.db"]);
    assert_eq!(mode(&disaster.home.path("db")), 0o700);
    assert_eq!(disaster.home.start().stop(), 0);
}

#[test]
fn where_no_digest_can_be_made_the_copy_is_compared() {
    for stub in ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho sha256sum: cannot >&2\n"] {
        let disaster = Disaster::new();
        let tools = disaster.home.path("tools");
        fs::create_dir(&tools).expect("a folder");
        fs::write(tools.join("sha256sum"), stub).expect("written");
        fs::set_permissions(tools.join("sha256sum"), fs::Permissions::from_mode(0o755)).expect("a mode");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display());
        run(disaster.restore(&[]).env("PATH", &path)).assert_status(0);
        // A copy that is not what was proven is found all the same.
        let copying = "#!/bin/sh\n/bin/cp \"$@\" && for to in \"$@\"; do :; done && echo more >>\"$to\"\n";
        fs::write(tools.join("cp"), copying).expect("written");
        fs::set_permissions(tools.join("cp"), fs::Permissions::from_mode(0o755)).expect("a mode");
        run(disaster.restore(&[]).env("PATH", &path))
            .assert_status(3)
            .assert_says("changed while it was copied");
    }
}

#[test]
fn a_restore_is_refused_while_a_gateway_runs() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway, "one", 2);
    gateway.backup(&home, "before.db");
    let before = names(&home.path("db"));
    run(&mut script(&home, "restore.sh", &[BACKUP])).assert_status(4).assert_says("stop it first");
    assert_eq!(names(&home.path("db")), before);
    assert_eq!(gateway.request("GET", "/readyz", None, None).status, 200);
    decide(&gateway, "two", 1);
}

#[test]
fn a_restore_is_refused_while_a_gateway_runs_also_without_flock() {
    let home = Home::new();
    let gateway = home.start();
    gateway.backup(&home, "before.db");
    let tools = home.path("tools");
    fs::create_dir(&tools).expect("a folder");
    for program in ["dirname", "basename", "mkdir", "sed", "awk", "ls", "id", "rm", "cat", "readlink"] {
        std::os::unix::fs::symlink(format!("/usr/bin/{program}"), tools.join(program)).expect("linked");
    }
    let mut restore = script(&home, "restore.sh", &[BACKUP]);
    run(restore.env("PATH", &tools)).assert_status(4).assert_says("stop it first");
    drop(gateway);
}

#[test]
fn a_gateway_that_does_not_start_puts_everything_back() {
    let disaster = Disaster::new();
    let before = disaster.files();
    run(&mut disaster.restore(&["--ready-max", "09", "--start", "false"]))
        .assert_status(1)
        .assert_says("'false' ended with 1")
        .assert_says("all is as before");
    let lock = disaster.home.beside(".lock");
    let without_lock = |files: Vec<(PathBuf, Vec<u8>)>| {
        files.into_iter().filter(|(path, _)| *path != lock).collect::<Vec<_>>()
    };
    assert!(without_lock(before) == without_lock(disaster.files()));
    assert_eq!(disaster.home.start().stop(), 0);
    disaster.assert_old_is_whole();
}

#[test]
fn a_gateway_that_is_not_ready_in_time_is_stopped_and_everything_put_back() {
    let disaster = Disaster::new();
    let slow = ["--ready-max", "1", "--start", "sh", "-c", "echo $$ >pid; exec sleep 60 >log 2>&1"];
    run(&mut disaster.restore(&slow)).assert_status(1).assert_says("not ready within 1 seconds");
    assert!(!Left::behind(&disaster.home).is_running());
    assert_eq!(disaster.home.start().stop(), 0);
    disaster.assert_old_is_whole();
}

#[test]
fn a_gateway_without_the_backup_s_history_is_stopped_and_everything_put_back() {
    let disaster = Disaster::new();
    let ran = restore_and_start(&disaster, "rm \"$AEGIS_DB_PATH\"; export AEGIS_ACCEPT_ROLLBACK=empty;");
    ran.assert_status(1).assert_says("does not hold the backup's history").assert_says("all is as before");
    assert!(!Left::behind(&disaster.home).is_running());
    assert_eq!(disaster.folders(".failed-").len(), 1, "what was served meanwhile is kept");
    assert_eq!(disaster.home.start().stop(), 0);
    disaster.assert_old_is_whole();
}

#[test]
fn a_link_to_the_database_is_followed_as_the_gateway_does() {
    let disaster = Disaster::new();
    std::os::unix::fs::symlink(disaster.home.database(), disaster.home.path("link.db")).expect("linked");
    run(&mut disaster.restore(&["--db", "link.db"])).assert_status(0);
    assert!(disaster.home.path("link.db").is_symlink());
    assert!(fs::read(disaster.home.database()).ok() == fs::read(disaster.home.path(BACKUP)).ok());
}

#[test]
fn a_restore_in_folders_with_spaces_and_quotes_is_a_restore() {
    let disaster = Disaster::new();
    let (home, db) = (&disaster.home, "the db's  \"own\"/a b $HOME.db");
    fs::rename(home.path("backups"), home.path("the backups' own")).expect("renamed");
    fs::create_dir(home.path("the db's  \"own\"")).expect("made");
    fs::copy(home.path("the backups' own/before.db"), home.path(db)).expect("copied");
    fs::write(home.path(&format!("{db}-wal")), "").expect("written");
    let arguments = ["the backups' own/before.db", "--db", db];
    run(&mut script(home, "restore.sh", &arguments)).assert_status(0);
    let held = decision_ids(&home.path(db));
    assert_eq!(held, disaster.before.iter().cloned().collect());
    assert_eq!(verified(&home.path(db)), 3);
    run(&mut script(home, "restore.sh", &arguments)).assert_status(0);
    run(&mut script(home, "restore.sh", &["--repair", "--db", db])).assert_status(0);
}

#[test]
fn bad_usage_touches_nothing() {
    let disaster = Disaster::new();
    let before = disaster.files();
    for words in [
        &[][..],
        &["backups/none.db"],
        &["db/aegisagent.db"],
        &[BACKUP, BACKUP],
        &[BACKUP, "--db"],
        &[BACKUP, "--db", "backups"],
        &[BACKUP, "--ready-max", "soon"],
        &[BACKUP, "--start"],
        &[BACKUP, "--frobnicate"],
    ] {
        let ran = run(&mut script(&disaster.home, "restore.sh", words));
        assert_eq!(ran.status, 2, "{words:?}: {}{}", ran.out, ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{words:?}: {}", ran.err);
    }
    assert!(before == disaster.files());
}

// ---- damage of the backup ----

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

fn cut(path: &Path, bytes: u64) {
    fs::File::options().write(true).open(path).expect("a file").set_len(bytes).expect("cut");
}

/// One way to spoil a backup or its manifest.
type Damage = fn(&Path, &Path);

const DAMAGES: [(&str, Damage); 12] = [
    ("cut to half", |backup, _| cut(backup, fs::metadata(backup).expect("it").len() / 2)),
    ("cut by one byte", |backup, _| cut(backup, fs::metadata(backup).expect("it").len() - 1)),
    ("emptied", |backup, _| cut(backup, 0)),
    ("a bit of the header", |backup, _| flip(backup, 27)),
    ("a bit of the first page's free space", |backup, _| flip(backup, 3000)),
    ("a bit of page 3", |backup, _| flip(backup, 2 * 4096 + 4000)),
    ("a bit of the last page", |backup, _| {
        flip(backup, usize::try_from(fs::metadata(backup).expect("it").len()).expect("small") - 5);
    }),
    ("the manifest's digest", |_, manifest| {
        let text = fs::read_to_string(manifest).expect("text");
        let at = text.find("\"sha256\"").expect("a digest") + 12;
        flip_hex(manifest, at);
    }),
    ("the manifest's head", |_, manifest| {
        let text = fs::read_to_string(manifest).expect("text");
        let at = text.find("\"receipt_hash\"").expect("a head") + 18;
        flip_hex(manifest, at);
    }),
    ("the manifest emptied", |_, manifest| cut(manifest, 0)),
    ("no manifest", |_, manifest| fs::remove_file(manifest).expect("removed")),
    ("the digest beside it", |backup, _| {
        flip_hex(&PathBuf::from(format!("{}.sha256", backup.display())), 3);
    }),
];

/// Another hexadecimal digit in the place of one.
fn flip_hex(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(path, bytes).expect("written");
}

#[test]
fn every_damage_of_a_backup_is_found_before_anything_is_touched() {
    let disaster = Disaster::new();
    let (backup, before) = (disaster.home.path(BACKUP), disaster.files());
    let manifest = disaster.home.path(&format!("{BACKUP}.manifest.json"));
    let whole = disaster.home.snapshot("backups");
    for (what, damage) in DAMAGES {
        damage(&backup, &manifest);
        let ran = run(&mut disaster.restore(&[]));
        assert_eq!(ran.status, 3, "{what}: {}{}", ran.out, ran.err);
        assert!(before == disaster.files(), "{what}");
        for (path, content) in &whole {
            fs::write(path, content).expect("mended");
        }
    }
    run(&mut disaster.restore(&[])).assert_status(0);
}

#[test]
fn the_manifest_of_another_chain_is_found() {
    let disaster = Disaster::new();
    let other = Disaster::new();
    let manifest = format!("{BACKUP}.manifest.json");
    fs::copy(other.home.path(&manifest), disaster.home.path(&manifest)).expect("copied");
    let before = disaster.files();
    run(&mut disaster.restore(&[])).assert_status(3);
    assert!(before == disaster.files());
}

#[test]
fn a_backup_of_another_chain_in_the_folder_s_place_is_found() {
    let disaster = Disaster::new();
    let other = Disaster::new();
    fs::copy(other.home.path(BACKUP), disaster.home.path(BACKUP)).expect("copied");
    run(&mut disaster.restore(&[])).assert_status(3);
}

#[test]
fn a_backup_without_its_manifest_is_restored_only_on_demand() {
    let disaster = Disaster::new();
    fs::remove_file(disaster.home.path(&format!("{BACKUP}.manifest.json"))).expect("removed");
    run(&mut disaster.restore(&[])).assert_status(3).assert_says("--without-manifest");
    run(&mut disaster.restore(&["--without-manifest"])).assert_status(0);
    assert_eq!(verified(&disaster.home.database()), 3);
}

/// First an older one by mistake, and a backup was taken on that branch meanwhile.
#[test]
fn the_newer_backup_is_restored_after_the_older_one_was_by_mistake() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway, "a", 3);
    gateway.backup(&home, "older.db");
    decide(&gateway, "a", 5);
    gateway.backup(&home, "newer.db");
    assert_eq!(gateway.stop(), 0);
    run(&mut script(&home, "restore.sh", &["backups/older.db"])).assert_status(0);
    let gateway = home.start();
    decide(&gateway, "a", 1);
    gateway.backup(&home, "mistake.db");
    assert_eq!(gateway.stop(), 0);
    run(&mut script(&home, "restore.sh", &["backups/newer.db"])).assert_status(0);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 9);
    run(&mut script(&home, "restore.sh", &["backups/mistake.db"])).assert_status(0);
}

#[test]
fn an_older_backup_is_restored_as_well_as_the_newest() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway, "one", 2);
    gateway.backup(&home, "before.db");
    decide(&gateway, "two", 2);
    gateway.backup(&home, "later.db");
    assert_eq!(gateway.stop(), 0);
    // Also when the newest one is damaged: it is a witness by its manifest all the same.
    fs::write(home.path("backups/later.db"), "").expect("emptied");
    run(&mut script(&home, "restore.sh", &[BACKUP])).assert_status(0).assert_says("1 later than this backup");
    assert_eq!(verified(&home.database()), 2);
}

// ---- faults at every step ----

/// The files of a disaster by name, to begin every fault from the same state. What the
/// gateway makes of such files is in the guard's tests; here, they are compared.
struct Ground {
    home: Home,
    old: Vec<(String, Vec<u8>)>,
    new: Vec<u8>,
    faults: Faults,
}

impl Ground {
    fn new() -> Self {
        let Disaster { home, .. } = Disaster::new();
        fs::remove_file(home.beside(".lock")).expect("a lock");
        fs::remove_dir_all(home.beside(".sockets")).expect("sockets");
        let read = |name: String| (name.clone(), fs::read(home.path("db").join(&name)).expect("readable"));
        let old = names(&home.path("db")).into_iter().map(read).collect();
        let new = fs::read(home.path(BACKUP)).expect("readable");
        let faults = Faults::new(&home);
        Ground { home, old, new, faults }
    }

    fn reset(&self) {
        fs::remove_dir_all(self.home.path("db")).expect("removed");
        fs::create_dir(self.home.path("db")).expect("a folder");
        for (name, content) in &self.old {
            fs::write(self.home.path("db").join(name), content).expect("written");
        }
    }

    fn restore(&self, more: &[&str]) -> Command {
        script(&self.home, "restore.sh", &[&[BACKUP], more].concat())
    }

    fn is_old(&self) -> bool {
        self.old
            .iter()
            .all(|(name, content)| fs::read(self.home.path("db").join(name)).ok().as_ref() == Some(content))
    }

    /// The old database, and nothing that was not there; a killed run leaves the lock's
    /// file, unlocked, as a killed gateway does.
    fn is_as_before(&self) -> bool {
        let others = names(&self.home.path("db")).into_iter().filter(|name| !name.ends_with(".lock"));
        self.is_old() && others.count() == self.old.len()
    }

    /// The new database; beside it no log, or the old one's, which the gateway sets aside.
    fn is_new(&self) -> bool {
        let log = fs::read(self.home.beside("-wal")).ok();
        let log_of_old = self.old.iter().find(|(name, _)| name.ends_with("-wal")).map(|(_, content)| content);
        fs::read(self.home.database()).ok().as_ref() == Some(&self.new)
            && (log.is_none() || log.as_ref() == log_of_old)
    }

    /// No gateway starts on it.
    fn is_blocked(&self) -> bool {
        fs::metadata(self.home.database()).is_ok_and(|metadata| metadata.len() == 0)
    }

    fn has_finished(&self) -> bool {
        let kept = names(&self.home.path("db")).iter().filter(|name| name.contains(".bad-")).count();
        self.is_new() && !self.home.beside("-wal").exists() && kept > 0
    }

    /// Does the fault at every step in turn; returns how many there are.
    fn at_every_step(&self, fault: Fault, more: &[&str], check: impl FnMut(u32, &Ran)) -> u32 {
        self.at_every_step_from(1, fault, more, check)
    }

    fn at_every_step_from(
        &self,
        first: u32,
        fault: Fault,
        more: &[&str],
        mut check: impl FnMut(u32, &Ran),
    ) -> u32 {
        for step in first.. {
            self.reset();
            let Some(ran) = self.faults.run_with(fault, step, &mut self.restore(more)) else {
                return step - 1;
            };
            check(step, &ran);
        }
        unreachable!("a script has an end")
    }
}

#[test]
fn killed_at_any_step_a_restore_leaves_the_old_or_the_new_and_the_next_run_finishes() {
    let ground = Ground::new();
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let steps = ground.at_every_step(fault, &[], |step, ran| {
            assert_eq!(ran.status, -1, "{fault:?} {step}: {}{}", ran.out, ran.err);
            assert!(ground.is_old() || ground.is_new(), "{fault:?} {step}");
            run(&mut ground.restore(&[])).assert_status(0);
            assert!(ground.has_finished(), "{fault:?} {step}: {:?}", names(&ground.home.path("db")));
            assert!(!names(&ground.home.path("db")).iter().any(|name| name.contains("restoring")));
        });
        assert!(steps >= 10, "{steps}");
    }
}

#[test]
fn killed_at_any_step_of_putting_back_a_restore_is_repaired_by_one_command() {
    let ground = Ground::new();
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let steps = ground.at_every_step_from(PREPARED, fault, &["--start", "false"], |step, ran| {
            assert_eq!(ran.status, -1, "{fault:?} {step}: {}{}", ran.out, ran.err);
            assert!(ground.is_old() || ground.is_new() || ground.is_blocked(), "{fault:?} {step}");
            run(&mut script(&ground.home, "restore.sh", &["--repair"])).assert_status(0);
            assert!(
                ground.is_as_before() || ground.has_finished(),
                "{fault:?} {step}: {:?}",
                names(&ground.home.path("db"))
            );
        });
        assert!(steps >= 20, "{steps}");
    }
}

#[test]
fn whoever_finishes_a_killed_restore_says_where_the_old_database_is() {
    let ground = Ground::new();
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        let mut finished = 0;
        ground.at_every_step_from(PREPARED, fault, &[], |step, ran| {
            let repaired = run(&mut script(&ground.home, "restore.sh", &["--repair"]));
            let said = format!("{}{}", ran.out, repaired.assert_status(0).out);
            let bad = names(&ground.home.path("db")).into_iter().find(|name| name.contains(".bad-"));
            if let Some(bad) = bad {
                let bad = ground.home.path("db").join(bad);
                let words = format!("the old database is in {};", bad.display());
                assert!(said.contains(&words), "{fault:?} {step}: {said}");
                finished += 1;
            }
        });
        assert!(finished >= 5, "{finished}");
    }
}

#[test]
fn a_step_that_fails_puts_everything_back_or_the_restore_is_done() {
    let ground = Ground::new();
    let steps = ground.at_every_step(Fault::Fail, &[], |step, ran| match ran.status {
        0 => assert!(ground.has_finished(), "{step}: {}{}", ran.out, ran.err),
        1 | 2 => assert!(ground.is_as_before(), "{step}: {}{}", ran.out, ran.err),
        status => panic!("{step}: {status}: {}{}", ran.out, ran.err),
    });
    assert!(steps >= 10, "{steps}");
}

#[test]
fn a_signal_at_any_step_puts_everything_back_or_the_restore_is_done() {
    let ground = Ground::new();
    let steps = ground.at_every_step(Fault::Terminate, &[], |step, ran| match ran.status {
        0 => assert!(ground.has_finished(), "{step}: {}{}", ran.out, ran.err),
        143 => assert!(ground.is_as_before(), "{step}: {}{}", ran.out, ran.err),
        status => panic!("{step}: {status}: {}{}", ran.out, ran.err),
    });
    assert!(steps >= 10, "{steps}");
}

#[test]
fn a_start_amid_a_killed_restore_never_serves_an_empty_database() {
    let ground = Ground::new();
    // Killed right after the new database has its name, while the old log is still there.
    let swap = (1..).find(|&step| {
        ground.reset();
        let ran = ground.faults.run_with(Fault::KillAfter, step, &mut ground.restore(&[]));
        assert!(ran.is_some(), "there is such a step");
        ground.is_new()
    });
    assert!(swap.is_some() && ground.home.beside("-wal").exists());
    let gateway: Gateway = ground.home.start();
    gateway.logs("set aside a write-ahead log");
    assert_eq!(gateway.stop(), 0);
    run(&mut script(&ground.home, "restore.sh", &["--repair"])).assert_status(0).assert_says("was finished");
    assert_eq!(decision_ids(&ground.home.database()).len(), 3);
}

#[test]
fn a_start_amid_a_killed_restore_that_keeps_the_old_database_names_the_repair() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway, "before", 3);
    gateway.backup(&home, "before.db");
    assert_eq!(gateway.stop(), 0);
    let faults = Faults::new(&home);
    let has_two_names = (1..).find(|&step| {
        let killed =
            faults.run_with(Fault::KillAfter, step, &mut script(&home, "restore.sh", &[BACKUP])).is_some();
        assert!(killed, "there is such a step");
        let two = fs::metadata(home.database()).expect("it is there").nlink() == 2;
        if !two {
            run(&mut script(&home, "restore.sh", &["--repair"])).assert_status(0);
        }
        two
    });
    assert!(has_two_names.is_some());
    assert!(home.refused().contains("restore.sh --repair --db "));
    run(&mut script(&home, "restore.sh", &["--repair"])).assert_status(0).assert_says("cleared away");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 3);
}
