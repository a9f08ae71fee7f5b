//! A disk that fills up or fails during a backup: no backup and no leftovers, the gateway keeps
//! serving, and once the disk has recovered, the same name can be used.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use aegis_gateway::store::files;

use crate::backup::{
    MANY, assert_ready, backup, begin_backup, home_with_many, names, partial_size, partials, with_witness,
};
use crate::support::{
    Answer, Gateway, Home, SmallDisk, assert_failure, decide, faults, verified, wait_until,
};

const EPERM: &str = "1";
const EIO: &str = "5";
const ENOSPC: &str = "28";

/// A gateway's folder whose backup disk fails on demand.
struct FailingDisk {
    home: Home,
    failing: PathBuf,
    told: PathBuf,
}

impl FailingDisk {
    fn of(mut home: Home, error: &str, settings: &[(&str, &str)]) -> Self {
        let (library, failing, told) = (faults(&home), home.path("failing"), home.path("told"));
        let text = |path: &PathBuf| path.to_str().expect("text").to_owned();
        home.set("LD_PRELOAD", &library);
        home.set("FAIL_IN", "backups");
        home.set("FAIL_ONCE_THERE", &text(&failing));
        home.set("FAIL_TOLD", &text(&told));
        home.set("FAIL_WITH", error);
        home.set("FAIL_FROM", "1");
        settings.iter().for_each(|(name, value)| home.set(name, value));
        FailingDisk { home, failing, told }
    }

    /// Makes a backup fail at each of its system calls in turn; returns how many made it fail.
    fn at_each_call(&mut self, statuses: &[u16]) -> usize {
        decide(&self.home.start().agent("a"), 3);
        let mut failed = 0;
        for call in 1.. {
            self.home.set("FAIL_FROM", &call.to_string());
            let gateway = self.home.start();
            fs::write(&self.failing, "").expect("written");
            failed += usize::from(self.backup_fails(&gateway, call, statuses));
            fs::remove_file(&self.failing).expect("removed");
            if fs::remove_dir(&self.told).is_err() {
                break;
            }
            assert_eq!(backup(&gateway, "b.db").status, 200, "well again after {call}");
            self.remove_backup();
        }
        failed
    }

    fn backup_fails(&self, gateway: &Gateway, call: usize, statuses: &[u16]) -> bool {
        let folder = self.home.path("backups");
        let answer = backup(gateway, "b.db");
        assert_ready(gateway);
        decide(&gateway.agent("a"), 1);
        if answer.status == 200 {
            // SQLite ignores a failed sync of its journal's folder.
            assert_eq!(names(&folder), with_witness(["b.db"]), "at {call}");
            verified(&folder.join("b.db"));
            self.remove_backup();
            return false;
        }
        assert!(self.told.exists(), "at {call}: {answer:?}");
        assert!(statuses.contains(&answer.status), "at {call}: {answer:?}: {}", gateway.log());
        assert!(names(&folder).is_empty(), "at {call}: {:?}", names(&folder));
        true
    }

    fn remove_backup(&self) {
        for name in with_witness(["b.db"]) {
            fs::remove_file(self.home.path("backups").join(name)).expect("removed");
        }
    }
}

#[test]
fn a_disk_that_is_full_from_any_call_on_is_507_and_leaves_nothing() {
    let failed = FailingDisk::of(Home::new(), ENOSPC, &[]).at_each_call(&[507]);
    assert!(failed > 15, "only {failed} calls failed");
}

/// A single failed write is reported as lack of space: a file size limit looks the same.
#[test]
fn a_disk_that_fails_at_any_call_is_an_error_and_leaves_nothing() {
    let failed = FailingDisk::of(Home::new(), EIO, &[("FAIL_ALONE", "yes")]).at_each_call(&[500, 507]);
    assert!(failed > 15, "only {failed} calls failed");
}

#[test]
fn a_sync_that_fails_is_no_backup_and_no_want_of_room() {
    for call in ["fsync", "fdatasync"] {
        let mut disk = FailingDisk::of(home_with_many(), EIO, &[("FAIL_CALL", call)]);
        disk.home.set("FAIL_FROM", "1");
        let gateway = disk.home.start();
        fs::write(&disk.failing, "").expect("written");
        assert_failure(&backup(&gateway, "b.db"), 500, "InternalError");
        assert!(disk.told.exists(), "{call}");
        assert!(names(&disk.home.path("backups")).is_empty(), "{call}");
        assert_ready(&gateway);
        decide(&gateway.agent("a"), 1);
    }
}

/// Suspends the gateway while less than `most` bytes of a copy have been written.
fn stopped_amid_a_copy(gateway: &Gateway, folder: &Path, most: u64) -> JoinHandle<std::io::Result<Answer>> {
    for _ in 0..50 {
        let running = begin_backup(gateway, "b.db");
        wait_until("the copy grows", || {
            partial_size(folder).is_some_and(|size| size > 64 << 10) || running.is_finished()
        });
        gateway.signal("STOP");
        if partial_size(folder).is_some_and(|copied| copied < most) {
            return running;
        }
        // Too late: try again with another backup.
        gateway.signal("CONT");
        assert_eq!(running.join().expect("no panic").expect("an answer").status, 200);
        for name in names(folder) {
            fs::remove_file(folder.join(name)).expect("removed");
        }
    }
    panic!("every copy was over too soon for this test to say anything");
}

#[test]
fn a_disk_that_another_fills_amid_the_copy_is_507_and_is_given_back() {
    let home = home_with_many();
    let bytes = fs::metadata(home.database()).expect("it is there").len();
    let Some(disk) = SmallDisk::mount(home.path("backups"), "size=64m,mode=700") else { return };
    let gateway = home.start();
    let agent = gateway.agent("a");
    let running = stopped_amid_a_copy(&gateway, disk.path(), bytes / 2);
    let other = disk.path().join("other");
    let mut filler = File::create(&other).expect("made");
    while filler.write_all(&[7; 64 << 10]).is_ok() {}
    assert!(files::free_bytes(disk.path()).expect("it is there") < 64 << 10);
    gateway.signal("CONT");
    assert_failure(&running.join().expect("no panic").expect("an answer"), 507, "InsufficientStorage");
    assert_eq!(names(disk.path()), ["other"]);
    assert_ready(&gateway);
    decide(&agent, 1);
    drop(filler);
    fs::remove_file(other).expect("removed");
    assert_eq!(backup(&gateway, "b.db").status, 200);
    assert_eq!(verified(&disk.path().join("b.db")), MANY + 1);
}

/// Writes a file that leaves so much on its disk.
fn fill(disk: &Path, left: u64) -> PathBuf {
    let path = disk.join("other");
    let mut filler = File::create(&path).expect("made");
    while files::free_bytes(disk).expect("it is there") > left {
        filler.write_all(&[7; 64 << 10]).expect("there is room");
    }
    path
}

/// The log of a gateway under load may need it, and cannot begin again while the copy reads.
#[test]
fn a_backup_that_would_leave_the_log_no_room_is_507_before_and_amid_the_copy() {
    const MIB: u64 = 1 << 20;
    let home = home_with_many();
    let bytes = fs::metadata(home.database()).expect("it is there").len();
    assert!(bytes < 11 * MIB, "the copy itself would have room: {bytes}");
    let Some(disk) = SmallDisk::mount(home.path("backups"), "size=192m,mode=700") else { return };
    let gateway = home.start();
    let other = fill(disk.path(), bytes + 11 * MIB);
    let answer = backup(&gateway, "b.db");
    assert_failure(&answer, 507, "InsufficientStorage");
    assert!(answer.body["message"].as_str().is_some_and(|said| said.contains("the gateway's own log")));
    fs::remove_file(other).expect("removed");
    let running = stopped_amid_a_copy(&gateway, disk.path(), bytes / 2);
    let other = fill(disk.path(), 11 * MIB);
    gateway.signal("CONT");
    let answer = running.join().expect("no panic").expect("an answer");
    assert_failure(&answer, 507, "InsufficientStorage");
    assert!(answer.body["message"].as_str().is_some_and(|said| said.contains("the gateway's own log")));
    assert_eq!(names(disk.path()), ["other"], "what it had taken is given back");
    assert_ready(&gateway);
    fs::remove_file(other).expect("removed");
    assert_eq!(backup(&gateway, "b.db").status, 200);
}

#[test]
fn without_hard_links_a_backup_gets_its_name_all_the_same_and_never_another_s() {
    let disk = FailingDisk::of(home_with_many(), EPERM, &[("FAIL_CALL", "linkat")]);
    let folder = disk.home.path("backups");
    let gateway = disk.home.start();
    fs::write(&disk.failing, "").expect("written");
    assert_eq!(backup(&gateway, "a.db").status, 200);
    assert!(disk.told.exists());
    assert_eq!(names(&folder), with_witness(["a.db"]));
    assert_eq!(verified(&folder.join("a.db")), MANY);
    for taken in with_witness(["b.db"]) {
        let running = begin_backup(&gateway, "b.db");
        wait_until("the copy is made", || !partials(&folder).is_empty());
        fs::write(folder.join(&taken), "precious").expect("written");
        let answer = running.join().expect("no panic").expect("an answer");
        assert_failure(&answer, 409, "AlreadyExists");
        assert_eq!(fs::read(folder.join(&taken)).expect("a file"), b"precious");
        fs::remove_file(folder.join(taken)).expect("removed");
        assert_eq!(names(&folder), with_witness(["a.db"]));
    }
}

#[test]
fn a_read_only_folder_fails_the_backup_and_neither_a_start_nor_anything_else() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(home.path("backups"), "size=64m,mode=700") else { return };
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    assert_eq!(backup(&gateway, "b.db").status, 200);
    assert_eq!(gateway.stop(), 0);
    disk.remount("ro");
    let gateway = home.start();
    assert_failure(&backup(&gateway, "c.db"), 500, "InternalError");
    assert_ready(&gateway);
    decide(&gateway.agent("a"), 1);
    assert_eq!(gateway.get("/v1/admin/backups").as_array().map(Vec::len), Some(1));
    disk.remount("rw");
    assert_eq!(backup(&gateway, "c.db").status, 200);
    assert_eq!(verified(&disk.path().join("c.db")), 4);
}

#[test]
fn a_restored_file_on_a_full_disk_is_recorded_once_when_there_is_room() {
    let (origin, home) = (Home::new(), Home::new());
    let gateway = origin.start();
    decide(&gateway.agent("a"), 3);
    let copy = gateway.backup(&origin, "b.db");
    assert_eq!(gateway.stop(), 0);
    let Some(disk) = SmallDisk::mount(home.path("db"), "size=8m,mode=700") else { return };
    fs::copy(copy, home.database()).expect("cp");
    let other = disk.path().join("other");
    let mut filler = File::create(&other).expect("made");
    while filler.write_all(&[7; 4096]).is_ok() {}
    drop(filler);
    let (code, said) = home.run_to_end(home.command(&[]));
    assert_eq!(code, Some(3), "{said}");
    let last = said.lines().last().expect("a line");
    assert!(last.starts_with("aegis-gateway: ") && last.contains("free some disk space"), "{said}");
    assert_eq!(names(disk.path()), ["aegisagent.db", "other"]);
    fs::remove_file(other).expect("removed");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 4);
}
