//! Backups: a file under its final name is complete and private, and nothing else is ever
//! touched, whatever happens in the meantime.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{
    Agent, Answer, Gateway, Home, SmallDisk, assert_failure, decide, decision_ids, sha256, try_request,
    verified, verify, wait_until,
};

const PATH: &str = "/v1/admin/backup";
const TRUST: &str = "trusted_internal_signed";
/// Enough decisions for a backup to take a while.
pub const MANY: u64 = 8_000;

pub fn backup(gateway: &Gateway, name: &str) -> Answer {
    gateway.operator("POST", PATH, Some(&json!({"filename": name})))
}

/// The same in a separate thread, for when the gateway may die in the meantime.
pub fn begin_backup(gateway: &Gateway, name: &str) -> JoinHandle<std::io::Result<Answer>> {
    let (address, token) = (gateway.address(), gateway.token.clone());
    let body = json!({"filename": name}).to_string();
    thread::spawn(move || try_request(address, "POST", PATH, Some(&token), Some(&body)))
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// The names of complete backups, each with its witness.
pub fn with_witness<'a>(backups: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let three = |name: &str| ["", ".manifest.json", ".sha256"].map(|suffix| format!("{name}{suffix}"));
    let mut names: Vec<String> = backups.into_iter().flat_map(three).collect();
    names.sort();
    names
}

pub fn partials(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.starts_with(".partial-")).collect()
}

/// The size of the file being written, if any.
pub fn partial_size(folder: &Path) -> Option<u64> {
    let name = partials(folder).into_iter().find(|name| !name.ends_with("-journal"))?;
    // It may have been renamed to its final name by now.
    fs::metadata(folder.join(name)).ok().map(|metadata| metadata.len())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o7777
}

pub fn assert_ready(gateway: &Gateway) {
    let answer = gateway.operator("GET", "/readyz", None);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The bytes of a database with many decisions.
fn many() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let home = Home::new();
        fs::create_dir(home.path("db")).expect("a folder");
        super::scale::generate(&home.database(), MANY);
        fs::read(home.database()).expect("readable")
    })
}

pub fn home_with_many() -> Home {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    fs::write(home.database(), many()).expect("written");
    home
}

#[test]
fn the_answer_describes_a_private_whole_file_that_ends_at_the_chain_s_head() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 7);
    let answer = backup(&gateway, "b.db");
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.body;
    assert_eq!(told["path"], "backups/b.db");
    let path = home.path("backups/b.db");
    let bytes = fs::read(&path).expect("a file");
    assert_eq!(told["size_bytes"], bytes.len());
    assert_eq!(told["sha256"], sha256(&bytes));
    assert_eq!(&bytes[..16], b"SQLite format 3\0");
    assert_eq!(bytes[18..20], [1, 1], "rollback mode: the file is all there is");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&home.path("backups")), 0o700);
    assert_eq!(names(&home.path("backups")), with_witness(["b.db"]));
    assert_eq!(told["receipts"], 7);
    assert_eq!(verified(&path), 7);
    let head = told["head_hash"].as_str().expect("a hash").to_owned();
    let output = verify(&["--expect-head", &head, path.to_str().expect("text")]);
    assert!(output.status.success(), "{output:?}");

    assert_eq!(gateway.stop(), 0);
    let database = Connection::open(home.database()).expect("a database");
    let newest = "SELECT seq, receipt_hash FROM receipts ORDER BY seq DESC LIMIT 1";
    let newest = database.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (seq, hash): (i64, String) = newest.expect("a receipt");
    assert_eq!((told["head_seq"].as_i64(), head), (Some(seq), hash));
}

#[test]
fn a_folder_of_one_s_own_is_used_and_told() {
    let home = Home::new().with("AEGIS_BACKUP_DIR", "elsewhere/deep");
    let gateway = home.start();
    let answer = backup(&gateway, "b.db");
    assert_eq!((answer.status, &answer.body["path"]), (200, &json!("elsewhere/deep/b.db")), "{answer:?}");
    assert_eq!(verified(&home.path("elsewhere/deep/b.db")), 0);
    assert!(!home.path("backups").exists());
}

#[test]
fn a_hostile_name_is_refused_and_nothing_is_made() {
    let home = Home::new();
    let gateway = home.start();
    let long = "a".repeat(242);
    let hostile = [
        "",
        "   ",
        ".",
        "..",
        "a/b",
        "/etc/x",
        "a\\b",
        "a..b",
        ".hidden",
        "a\0b",
        "a\nb",
        &long,
        "x-wal",
        "x-shm",
        "x-journal",
        "x.manifest.json",
        "x.SHA256",
    ];
    let mut bodies: Vec<String> = hostile.iter().map(|name| json!({"filename": name}).to_string()).collect();
    let others = [r#"{"filename":5}"#, r#"{"filename":null}"#, r#"{"filename":["a"]}"#, "{}", "[]", "{", ""];
    bodies.extend(others.map(str::to_owned));
    let around = (names(&home.path("")), names(&home.path("db")));
    for body in bodies {
        let answer = try_request(gateway.address(), "POST", PATH, Some(&gateway.token), Some(&body));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        assert_failure(&answer, 400, "BadRequest");
        assert!(names(&home.path("backups")).is_empty(), "{body:?}");
        assert_eq!((names(&home.path("")), names(&home.path("db"))), around, "{body:?}");
    }
    assert!(!Path::new("/etc/x").exists());
}

#[test]
fn an_unusual_name_is_the_name_of_a_whole_file() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 3);
    let longest = "l".repeat(241);
    let wanted = [
        "nightly 1.db",
        "Sicherung-für-Köln-備份.db",
        &longest,
        "file:x.db",
        "100%.db",
        "a?mode=memory",
        "x.db",
    ];
    for name in &wanted {
        let answer = backup(&gateway, name);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(answer.body["path"], format!("backups/{name}"));
        let path = home.path("backups").join(name);
        assert_eq!(answer.body["sha256"], sha256(&fs::read(&path).expect("a file")), "{name}");
        assert_eq!(verified(&path), 3, "{name}");
    }
    assert_eq!(names(&home.path("backups")), with_witness(wanted.iter().copied()));
}

#[test]
fn what_has_the_name_is_never_touched() {
    let home = Home::new();
    let gateway = home.start();
    let folder = home.path("backups");
    fs::write(folder.join("file"), "precious").expect("written");
    fs::write(folder.join("empty"), "").expect("written");
    fs::create_dir(folder.join("folder")).expect("made");
    fs::write(folder.join("folder/inside"), "precious too").expect("written");
    fs::write(home.path("target"), "the target").expect("written");
    symlink(home.path("target"), folder.join("link")).expect("linked");
    symlink(home.path("nowhere"), folder.join("dangling")).expect("linked");
    for side in ["wal", "shm", "journal"] {
        fs::write(folder.join(format!("{side}.db-{side}")), side).expect("written");
    }
    for beside in ["manifest.json", "sha256"] {
        fs::write(folder.join(format!("beside.{beside}.db.{beside}")), beside).expect("written");
    }
    let before = (names(&folder), home.snapshot("backups"));
    let taken = [
        "file",
        "empty",
        "folder",
        "link",
        "dangling",
        "wal.db",
        "shm.db",
        "journal.db",
        "beside.manifest.json.db",
        "beside.sha256.db",
    ];
    for name in taken {
        let answer = backup(&gateway, name);
        assert_eq!(answer.status, 409, "{name}: {answer:?}");
        assert_failure(&answer, 409, "AlreadyExists");
        assert!((names(&folder), home.snapshot("backups")) == before, "{name}: something was touched");
    }
    assert_eq!(fs::read_link(folder.join("link")).expect("a link"), home.path("target"));
    assert_eq!(fs::read_link(folder.join("dangling")).expect("a link"), home.path("nowhere"));
    assert_eq!(fs::read(home.path("target")).expect("a file"), b"the target");
    assert!(!home.path("nowhere").exists());
}

#[test]
fn a_name_that_is_taken_while_the_copy_is_made_fails_the_backup_which_takes_its_witness_back() {
    let home = home_with_many();
    let gateway = home.start();
    let folder = home.path("backups");
    for taken in ["b.db", "b.db.manifest.json", "b.db.sha256"] {
        let running = begin_backup(&gateway, "b.db");
        wait_until("the copy is made", || !partials(&folder).is_empty());
        fs::write(folder.join(taken), "precious").expect("written");
        let answer = running.join().expect("no panic").expect("an answer");
        assert_failure(&answer, 409, "AlreadyExists");
        assert_eq!(names(&folder), [taken]);
        assert_eq!(fs::read(folder.join(taken)).expect("a file"), b"precious");
        fs::remove_file(folder.join(taken)).expect("removed");
    }
    assert_eq!(backup(&gateway, "b.db").status, 200);
}

#[test]
fn of_eight_at_once_on_one_name_exactly_one_succeeds() {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 5);
    let barrier = Barrier::new(8);
    let ask = || {
        barrier.wait();
        backup(&gateway, "one.db").status
    };
    let mut statuses: Vec<u16> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(names(&home.path("backups")), with_witness(["one.db"]));
    assert_eq!(verified(&home.path("backups/one.db")), 5);
}

#[test]
fn only_the_operator_makes_backups() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let body = json!({"filename": "b.db"});
    let cases = [
        (None, 401, "Unauthorized"),
        (Some("wrong"), 401, "Unauthorized"),
        (Some(agent.token.as_str()), 403, "Forbidden"),
    ];
    for (token, status, reason) in cases {
        assert_failure(&gateway.request("POST", PATH, token, Some(&body)), status, reason);
        assert!(names(&home.path("backups")).is_empty());
    }
    assert_eq!(backup(&gateway, "b.db").status, 200, "the same body from the operator");
}

#[test]
fn while_one_runs_another_name_is_told_to_come_later_and_agents_are_served() {
    let home = home_with_many();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let folder = home.path("backups");
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let first = thread::scope(|scope| {
        let load = || {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(agent.ask("read", TRUST).status, 200);
                served.fetch_add(1, Ordering::SeqCst);
            }
        };
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        let first = begin_backup(&gateway, "first.db");
        wait_until("a backup runs", || !partials(&folder).is_empty());
        let before = served.load(Ordering::SeqCst);
        let second = backup(&gateway, "second.db");
        wait_until("agents are served", || served.load(Ordering::SeqCst) >= before + 8);
        let ran_throughout = !partials(&folder).is_empty();
        let first = first.join().expect("no panic");
        over.store(true, Ordering::SeqCst);
        for load in loads {
            load.join().expect("no authorization failed");
        }
        assert!(ran_throughout, "the first was over too soon for this test to say anything");
        assert_failure(&second, 503, "ServiceUnavailable");
        let later = second.header("Retry-After").and_then(|seconds| seconds.parse::<u32>().ok());
        assert!(later.is_some_and(|seconds| seconds > 0), "{second:?}");
        first.expect("an answer")
    });
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(names(&folder), with_witness(["first.db"]));
    assert_eq!(first.body["receipts"], verified(&folder.join("first.db")));
    assert_eq!(verified(&home.database()), MANY + served.load(Ordering::SeqCst) as u64);
    assert_eq!(backup(&gateway, "second.db").status, 200);
}

#[test]
fn a_backup_folder_that_was_deleted_is_made_again() {
    let home = Home::new();
    let gateway = home.start();
    fs::remove_dir(home.path("backups")).expect("removed");
    assert_eq!(backup(&gateway, "b.db").status, 200);
    assert_eq!(mode(&home.path("backups")), 0o700);
    assert_eq!(verified(&home.path("backups/b.db")), 0);
}

#[test]
fn a_file_in_the_folder_s_place_fails_the_backup_and_nothing_else() {
    let home = Home::new();
    let gateway = home.start();
    fs::remove_dir(home.path("backups")).expect("removed");
    fs::write(home.path("backups"), "a file").expect("written");
    let answer = backup(&gateway, "b.db");
    assert_failure(&answer, 500, "InternalError");
    let why = "no backup in backups: cannot create the backup folder: File exists";
    wait_until("the log names the folder", || gateway.log().contains(why));
    assert!(!String::from_utf8_lossy(&answer.raw).contains("backups"), "{answer:?}");
    assert_failure(&gateway.operator("GET", "/v1/admin/backups", None), 500, "InternalError");
    wait_until("and here", || gateway.log().contains("cannot read the backup folder backups: Not a dir"));
    assert_eq!(fs::read(home.path("backups")).expect("a file"), b"a file");
    assert_ready(&gateway);
    decide(&gateway.agent("a"), 1);
}

#[test]
fn a_full_disk_fails_the_backup_and_nothing_else() {
    let home = home_with_many();
    assert!(many().len() > 4 << 20, "larger than the disk");
    let Some(disk) = SmallDisk::mount(home.path("backups"), "size=4m,mode=700") else { return };
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert_failure(&backup(&gateway, "b.db"), 507, "InsufficientStorage");
    assert!(names(disk.path()).is_empty(), "{:?}", names(disk.path()));
    assert_ready(&gateway);
    decide(&agent, 3);
    disk.remount("size=64m");
    let answer = backup(&gateway, "b.db");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(verified(&disk.path().join("b.db")), MANY + 3);
}

#[test]
fn a_file_size_limit_fails_the_backup_and_leaves_nothing() {
    let home = home_with_many();
    // Blocks are 512 or 1024 bytes: either way, the limit is less than the copy needs.
    let gateway = home.start_after("ulimit -f 4096");
    assert!(many().len() > 4096 * 1024);
    assert_failure(&backup(&gateway, "b.db"), 507, "InsufficientStorage");
    assert!(names(&home.path("backups")).is_empty());
    assert_eq!(gateway.operator("GET", "/livez", None).status, 200);
    gateway.logs(" listens on ");
}

#[test]
fn a_kill_at_any_moment_of_a_backup_leaves_the_whole_file_or_none() {
    const ROUNDS: u64 = 12;
    let home = home_with_many();
    let folder = home.path("backups");
    let step = many().len() as u64 / (ROUNDS - 2);
    let mut swept = 0;
    for round in 0..ROUNDS {
        let gateway = home.start();
        let name = format!("b{round}.db");
        let path = folder.join(&name);
        let running = begin_backup(&gateway, &name);
        let last = round == ROUNDS - 1;
        let moment = || !last && partial_size(&folder).is_some_and(|size| size >= round * step);
        wait_until("the moment has come", || moment() || path.exists() || running.is_finished());
        gateway.kill();
        let acknowledged = running.join().expect("no panic").is_ok_and(|answer| answer.status == 200);
        assert!(path.exists() || !acknowledged, "round {round}: acknowledged, and lost");
        if path.exists() {
            assert_eq!(verified(&path), MANY, "round {round}");
        }
        let left = partials(&folder);
        swept += left.len();
        let gateway = home.start();
        let log = gateway.log();
        for partial in left {
            let said =
                log.lines().any(|line| line.contains(&partial) && line.contains("a killed backup left"));
            assert!(said, "round {round}: {partial}: {log}");
        }
        assert!(partials(&folder).is_empty(), "round {round}");
        if path.exists() {
            assert_eq!(verified(&path), MANY, "round {round}: the sweep is not for finished backups");
            fs::remove_file(&path).expect("removed");
        }
        gateway.kill();
    }
    assert!(swept >= 6, "only {swept} partial files: the kills came too late");
}

#[test]
fn a_stop_ends_a_running_backup_and_leaves_nothing_half_done() {
    let home = home_with_many();
    let gateway = home.start();
    let folder = home.path("backups");
    let running = begin_backup(&gateway, "b.db");
    wait_until("the copy grows", || partial_size(&folder).is_some_and(|size| size > 1 << 20));
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(partials(&folder).is_empty(), "{:?}", names(&folder));
    let answer = running.join().expect("no panic");
    let path = folder.join("b.db");
    assert_eq!(path.exists(), answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
    if path.exists() {
        assert_eq!(verified(&path), MANY);
    }
}

#[test]
fn a_backup_of_a_restored_backup_restores_both_generations() {
    let told = |answer: Answer| -> Value {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let restored = |from: PathBuf| {
        let home = Home::new();
        fs::create_dir(home.path("db")).expect("a folder");
        fs::copy(from, home.database()).expect("cp");
        home
    };
    let first = Home::new();
    let gateway = first.start();
    let agent = gateway.agent("a");
    let mut ids = decide(&agent, 5);
    told(backup(&gateway, "b.db"));

    let second = restored(first.path("backups/b.db"));
    let gateway = second.start();
    ids.extend(decide(&Agent { address: gateway.address(), ..agent.clone() }, 3));
    let made = told(backup(&gateway, "b.db"));

    let third = restored(second.path("backups/b.db"));
    let gateway = third.start();
    let again = told(backup(&gateway, "b.db"));
    // Each restore adds a receipt: one in the second home's chain, two in the third's.
    assert_eq!((&made["head_seq"], &again["head_seq"]), (&json!(9), &json!(10)));
    assert_eq!(decision_ids(&third.database()), ids.iter().cloned().collect());
    decide(&Agent { address: gateway.address(), ..agent }, 1);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verified(&third.database()), 11);
}
