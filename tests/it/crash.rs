//! SIGKILL at any moment, and failing syncs: nothing acknowledged is lost, and nothing rejected
//! is found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::support::{
    Agent, Gateway, Home, decide, decision_ids, dump, dump_before_restore, faults, verified, wait_until,
};

/// Reproducible pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

const TRUST: &str = "trusted_internal_signed";

/// Starts a gateway and kills it after `micros`, whatever it is doing.
fn start_and_kill(home: &Home, micros: u64) {
    let mut command = home.command(&[]);
    let log = fs::File::create(home.path("killed.log")).expect("a log");
    let mut child = command.stdin(Stdio::null()).stderr(log).spawn().expect("it runs");
    let moment = Instant::now() + Duration::from_micros(micros);
    while Instant::now() < moment {
        thread::park_timeout(moment - Instant::now());
    }
    let ended = child.try_wait().expect("a child");
    assert!(
        ended.is_none(),
        "it ended by itself: {}",
        fs::read_to_string(home.path("killed.log")).expect("a log")
    );
    end(&mut child);
}

fn end(child: &mut Child) {
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// How long a start takes on this machine, in microseconds.
fn start_micros(home: &Home) -> u64 {
    let begin = Instant::now();
    let gateway = home.start();
    let micros = u64::try_from(begin.elapsed().as_micros()).expect("short");
    gateway.kill();
    micros
}

fn names(home: &Home) -> BTreeSet<String> {
    let files = home.database_files().into_iter();
    files.map(|(path, _)| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

/// Sends requests from several threads until the gateway dies; counts the acknowledged ones.
fn load(agent: &Agent, threads: usize, count: &AtomicUsize, during: impl FnOnce()) -> Vec<String> {
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Ok(answer) = agent.try_ask("read", TRUST) {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let id = answer.body["decision_id"].as_str().expect("an id").to_owned();
                    acknowledged.lock().expect("no panic").push(id);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        during();
    });
    acknowledged.into_inner().expect("no panic")
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    const ROUNDS: usize = 24;
    let home = Home::new();
    let mut random = Random(1);
    let start = start_micros(&home);
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        for _ in 0..random.below(3) {
            start_and_kill(&home, random.below(start * 3 / 2));
        }
        let gateway = home.start();
        let agent = gateway.agent("a");
        let (count, enough) = (AtomicUsize::new(0), 1 + usize::try_from(random.below(120)).expect("few"));
        let new = load(&agent, 4, &count, || {
            wait_until("enough was acknowledged", || count.load(Ordering::SeqCst) >= enough);
            gateway.kill();
        });
        acknowledged.extend(new);
        if round % 6 == 0 {
            verified(&home.database());
        }
    }
    let gateway = home.start();
    assert_eq!(gateway.stop(), 0);
    let found = decision_ids(&home.database());
    let lost: Vec<&String> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    assert!(acknowledged.len() >= ROUNDS);
    assert_eq!(verified(&home.database()), found.len() as u64);
    assert_eq!(names(&home), clean());
}

#[test]
fn a_kill_at_any_moment_of_the_first_start_leaves_one_that_starts() {
    let home = Home::new();
    let start = start_micros(&home);
    let mut random = Random(2);
    for _ in 0..10 {
        let home = Home::new();
        start_and_kill(&home, random.below(start));
        start_and_kill(&home, random.below(start));
        let gateway = home.start();
        let ids = decide(&gateway.agent("a"), 1);
        assert_eq!(gateway.stop(), 0);
        assert_eq!(decision_ids(&home.database()), ids.into_iter().collect());
        assert_eq!(names(&home), clean(), "no leftovers");
    }
}

#[test]
fn kills_amid_the_start_on_a_restored_file_beside_a_hot_log_leave_exactly_the_backup() {
    let mut random = Random(3);
    for round in 0..8 {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        decide(&agent, 5);
        let backup = gateway.backup(&home, "b.db");
        decide(&agent, 5);
        gateway.kill();
        let log = fs::read(home.beside("-wal")).expect("a log");
        let start = start_micros_of_restored(&backup);
        if round % 2 == 0 {
            fs::rename(home.database(), home.path("bad")).expect("mv");
        }
        fs::copy(&backup, home.database()).expect("cp");
        for _ in 0..4 {
            start_and_kill(&home, random.below(start));
        }
        let gateway = home.start();
        assert_eq!(gateway.stop(), 0);
        assert_eq!(dump_before_restore(&home.database()), dump(&backup));
        let kept =
            home.snapshot("db").into_iter().filter(|(path, _)| path.to_string_lossy().contains(".stale-"));
        let kept: Vec<_> = kept.collect();
        assert_eq!(kept.len(), 1, "only the stale log was set aside");
        assert!(kept[0].1 == log, "and it is whole");
    }
}

fn start_micros_of_restored(backup: &Path) -> u64 {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    fs::copy(backup, home.database()).expect("cp");
    start_micros(&home)
}

#[test]
fn a_shell_that_opens_and_closes_the_database_amid_traffic_and_a_backup_costs_nothing() {
    let home = Home::new();
    let mut acknowledged = BTreeSet::new();
    for round in 0..4 {
        let gateway = home.start();
        let agent = gateway.agent("a");
        let count = AtomicUsize::new(0);
        let new = load(&agent, 3, &count, || {
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        open_and_close(&home.database());
                    }
                });
                gateway.backup(&home, &format!("b{round}.db"));
                wait_until("enough was acknowledged", || count.load(Ordering::SeqCst) >= 150);
                done.store(true, Ordering::SeqCst);
            });
            open_and_close(&home.database());
            gateway.kill();
        });
        acknowledged.extend(new);
    }
    assert_eq!(home.start().stop(), 0);
    let found = decision_ids(&home.database());
    assert!(acknowledged.is_subset(&found), "lost {:?}", acknowledged.difference(&found));
    assert_eq!(verified(&home.database()), found.len() as u64);
}

/// Does what `sqlite3 FILE 'SELECT ...'` does, outside the gateway's process.
fn open_and_close(database: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).expect("it opens");
    connection.busy_timeout(Duration::from_secs(5)).expect("configured");
    connection.query_row("SELECT count(*) FROM receipts", [], |_| Ok(())).expect("read");
    connection.close().expect("closed");
}

/// Starts a gateway that is killed before its `call`th change to a file or a name.
/// Returns false if it got to listening first; it is then killed in any case.
fn killed_at(home: &Home, library: &str, call: usize) -> bool {
    let log = home.path("killed.log");
    let mut command = home.command(&[]);
    command.env("LD_PRELOAD", library).env("KILL_AT", call.to_string());
    let file = fs::File::create(&log).expect("a log");
    let mut child = command.stdin(Stdio::null()).stderr(file).spawn().expect("it runs");
    let (mut ended, mut listens) = (false, false);
    wait_until("it is killed, or listens", || {
        listens = fs::read_to_string(&log).expect("a log").contains(" listens on ");
        ended = child.try_wait().expect("a child").is_some_and(|status| {
            assert_eq!(status.code(), None, "killed: {}", fs::read_to_string(&log).expect("a log"));
            true
        });
        ended || listens
    });
    if !ended {
        end(&mut child);
    }
    !listens
}

/// For each change that a start makes, kills a start right before it, in a home created by
/// `prepare`, and passes the home to `check`.
fn kill_at_each_change(prepare: impl Fn() -> Home, check: impl Fn(&Home, usize)) {
    let tools = Home::new();
    let library = faults(&tools);
    let mut call = 1;
    loop {
        let home = prepare();
        let killed = killed_at(&home, &library, call);
        check(&home, call);
        if !killed {
            break;
        }
        call += 1;
    }
    assert!(call > 20, "a start makes more than {call} changes");
}

/// The files left by a clean stop of a gateway with default file names.
fn clean() -> BTreeSet<String> {
    BTreeSet::from(["admin.token", "aegisagent.db", "aegisagent.db.identity"].map(String::from))
}

#[test]
fn a_kill_before_each_change_of_the_first_start_leaves_one_that_starts() {
    kill_at_each_change(Home::new, |home, call| {
        let gateway = home.start();
        let ids = decide(&gateway.agent("a"), 1);
        assert_eq!(gateway.stop(), 0);
        assert_eq!(decision_ids(&home.database()), ids.into_iter().collect(), "killed at {call}");
        assert_eq!(names(home), clean(), "killed at {call}: no leftovers");
    });
}

#[test]
fn a_kill_before_each_change_of_the_start_on_a_restored_file_leaves_exactly_the_backup() {
    let origin = Home::new();
    let gateway = origin.start();
    let agent = gateway.agent("a");
    decide(&agent, 5);
    let backup = gateway.backup(&origin, "b.db");
    decide(&agent, 5);
    gateway.kill();
    let (log, expected) = (fs::read(origin.beside("-wal")).expect("a log"), dump(&backup));
    let prepare = || {
        let home = Home::new();
        fs::create_dir(home.path("db")).expect("a folder");
        for suffix in ["-wal", "-shm", ".identity"] {
            fs::copy(origin.beside(suffix), home.beside(suffix)).expect("copied");
        }
        fs::copy(&backup, home.database()).expect("cp");
        home
    };
    kill_at_each_change(prepare, |home, call| {
        let gateway = home.start();
        assert_eq!(gateway.stop(), 0);
        assert_eq!(dump_before_restore(&home.database()), expected, "killed at {call}");
        let mut kept = home.snapshot("db");
        kept.retain(|(path, _)| path.to_string_lossy().contains(".stale-"));
        assert_eq!(kept.len(), 1, "killed at {call}: only the stale log was set aside");
        assert!(kept[0].1 == log, "killed at {call}: and it is whole");
    });
}

/// A stopped gateway's folder with 5 receipts in the backup `b.db`, and a witness of 8.
fn home_with_witness() -> Home {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    decide(&agent, 5);
    gateway.backup(&home, "b.db");
    decide(&agent, 3);
    gateway.backup(&home, "later.db");
    assert_eq!(gateway.stop(), 0);
    home
}

fn copy_of(origin: &Home, database: &Path) -> Home {
    let home = Home::new();
    for folder in ["db", "backups"] {
        fs::create_dir(home.path(folder)).expect("a folder");
    }
    for name in ["b.db.manifest.json", "later.db.manifest.json"] {
        let name = format!("backups/{name}");
        fs::copy(origin.path(&name), home.path(&name)).expect("copied");
    }
    fs::copy(database, home.database()).expect("cp");
    home
}

fn last_resources(home: &Home, tool: &str) -> Vec<String> {
    let database = Connection::open(home.database()).expect("it opens");
    let mut rows = database.prepare("SELECT resource FROM receipts WHERE tool = ?1").expect("a table");
    let rows = rows.query_map([tool], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("text")
}

#[test]
fn a_kill_before_each_change_of_a_restore_s_start_records_it_once_with_the_later_head() {
    let origin = home_with_witness();
    let prepare = || copy_of(&origin, &origin.path("backups/b.db"));
    kill_at_each_change(prepare, |home, call| {
        assert_eq!(home.start().stop(), 0);
        assert_eq!(home.start().stop(), 0);
        let recorded = last_resources(home, "restore");
        assert_eq!(recorded.len(), 1, "killed at {call}: {recorded:?}");
        assert!(recorded[0].contains(" known:8:"), "killed at {call}: {recorded:?}");
        assert_eq!(verified(&home.database()), 6, "killed at {call}");
    });
}

#[test]
fn a_kill_before_each_change_of_an_accepted_rollback_s_start_records_it_once() {
    let origin = home_with_witness();
    // As if the disk was rolled back: not a fresh copy, but a file that a gateway ran on.
    let before = Home::new();
    fs::create_dir(before.path("db")).expect("a folder");
    fs::copy(origin.path("backups/b.db"), before.database()).expect("cp");
    assert_eq!(before.start().stop(), 0);
    let head = Connection::open(before.database()).expect("it opens");
    let head: String = head.query_row("SELECT head_hash FROM chain", [], |row| row.get(0)).expect("a head");
    let prepare = || {
        let mut home = copy_of(&origin, &before.database());
        home.set("AEGIS_ACCEPT_ROLLBACK", &head);
        home
    };
    kill_at_each_change(prepare, |home, call| {
        assert_eq!(home.start().stop(), 0);
        assert_eq!(home.start().stop(), 0);
        let recorded = last_resources(home, "restore");
        assert_eq!(recorded.len(), 2, "killed at {call}: the restore before, and the consent: {recorded:?}");
        assert_eq!(verified(&home.database()), 7, "killed at {call}");
    });
}

#[test]
fn a_kill_before_each_change_of_a_start_without_the_lost_database_records_it_once() {
    let origin = home_with_witness();
    let prepare = || {
        let mut home = copy_of(&origin, &origin.path("backups/b.db"));
        fs::remove_file(home.database()).expect("lost");
        home.set("AEGIS_ACCEPT_ROLLBACK", "empty");
        home
    };
    kill_at_each_change(prepare, |home, call| {
        assert_eq!(home.start().stop(), 0);
        assert_eq!(home.start().stop(), 0);
        let recorded = last_resources(home, "restore");
        assert_eq!(recorded.len(), 1, "killed at {call}: {recorded:?}");
        assert!(recorded[0].starts_with("head:0: known:8:"), "killed at {call}: {recorded:?}");
        assert_eq!(verified(&home.database()), 1, "killed at {call}");
        assert_eq!(names(home), clean(), "killed at {call}: no leftovers");
    });
}

#[test]
fn a_kill_before_each_change_of_an_upgrade_leaves_one_that_is_upgraded() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema_0007.db");
    let (expected, receipts) = (decision_ids(&golden), verified(&golden));
    let prepare = || {
        let home = Home::new();
        fs::create_dir(home.path("db")).expect("a folder");
        fs::copy(&golden, home.database()).expect("cp");
        home
    };
    kill_at_each_change(prepare, |home, call| {
        assert_eq!(home.start().stop(), 0);
        assert_eq!(verified(&home.database()), receipts + 1, "killed at {call}");
        assert_eq!(decision_ids(&home.database()), expected, "killed at {call}");
        assert_eq!(names(home), clean(), "killed at {call}");
        let mut before = home.snapshot("backups");
        let is_partial = |path: &Path| path.to_string_lossy().contains(".partial-");
        assert!(before.iter().all(|(path, _)| !is_partial(path)), "killed at {call}: swept");
        before.retain(|(path, _)| path.extension().is_some_and(|extension| extension == "db"));
        assert!(!before.is_empty(), "killed at {call}: no step without its backup");
        for (path, _) in before {
            assert_eq!(verified(&path), receipts, "killed at {call}");
        }
    });
}

#[test]
fn a_kill_before_each_change_of_a_write_keeps_what_was_acknowledged() {
    let mut home = Home::new();
    let (library, writing) = (faults(&home), home.path("writing"));
    home.set("LD_PRELOAD", &library);
    home.set("KILL_ONCE_THERE", writing.to_str().expect("text"));
    let mut found = BTreeSet::new();
    for call in 1..=30 {
        home.set("KILL_AT", &call.to_string());
        let gateway = home.start();
        let agent = gateway.agent("a");
        fs::write(&writing, "").expect("written");
        let (mut acknowledged, count) = (found.clone(), AtomicUsize::new(0));
        acknowledged.extend(load(&agent, 1, &count, || {}));
        assert_eq!(gateway.ended(), None, "killed");
        fs::remove_file(&writing).expect("removed");
        found = decision_ids(&home.database());
        assert!(found.is_superset(&acknowledged), "killed at {call}");
        assert!(found.len() <= acknowledged.len() + 1, "killed at {call}: at most the one in flight besides");
    }
    home.unset("LD_PRELOAD");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), found.len() as u64);
}

#[test]
fn a_kill_before_each_change_of_a_start_replays_the_log_that_belongs() {
    let home = Home::new();
    let library = faults(&home);
    let gateway = home.start();
    let mut acknowledged: BTreeSet<String> = decide(&gateway.agent("a"), 5).into_iter().collect();
    gateway.kill();
    let mut call = 1;
    while killed_at(&home, &library, call) {
        assert_eq!(decision_ids(&home.database()), acknowledged, "killed at {call}");
        call += 1;
    }
    assert!(call > 5, "a start makes more than {call} changes");
    let gateway = home.start();
    acknowledged.extend(decide(&gateway.agent("a"), 1));
    assert_eq!(gateway.stop(), 0);
    assert_eq!(decision_ids(&home.database()), acknowledged);
    assert_eq!(names(&home), clean());
}

#[test]
fn a_kill_before_each_change_of_a_stop_loses_nothing() {
    let mut home = Home::new();
    let mut acknowledged = BTreeSet::new();
    let (library, stopping) = (faults(&home), home.path("stopping"));
    home.set("LD_PRELOAD", &library);
    home.set("KILL_ONCE_THERE", stopping.to_str().expect("text"));
    let mut call = 0;
    let mut stopped = false;
    while !stopped {
        call += 1;
        home.set("KILL_AT", &call.to_string());
        let gateway = home.start();
        acknowledged.extend(decide(&gateway.agent("a"), 2));
        fs::write(&stopping, "").expect("written");
        gateway.signal("TERM");
        stopped = gateway.ended() == Some(0);
        fs::remove_file(&stopping).expect("removed");
        assert_eq!(decision_ids(&home.database()), acknowledged, "killed at {call}");
    }
    assert!(call > 10, "a stop makes more than {call} changes");
    assert_eq!(verified(&home.database()), acknowledged.len() as u64);
    assert_eq!(names(&home), clean());
}

/// A gateway on a disk that fails to sync the log on demand.
struct FailingDisk {
    home: Home,
    always: PathBuf,
    once: PathBuf,
}

impl FailingDisk {
    fn new() -> Self {
        let mut home = Home::new();
        let (library, always, once) = (faults(&home), home.path("always"), home.path("once"));
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        home.set("LD_PRELOAD", &library);
        home.set("FAIL_SYNC_ALWAYS", &text(&always));
        home.set("FAIL_SYNC_ONCE", &text(&once));
        FailingDisk { home, always, once }
    }

    fn heal(&mut self) {
        self.home.unset("LD_PRELOAD");
    }
}

/// Sends one request; the decision id, or `None` if the gateway answered with an error.
fn ask(agent: &Agent) -> Option<String> {
    let answer = agent.ask("read", TRUST);
    assert!(matches!(answer.status, 200 | 503), "{answer:?}");
    (answer.status == 200).then(|| answer.body["decision_id"].as_str().expect("an id").to_owned())
}

/// After SIGKILL and a restart, the database holds exactly what was acknowledged.
fn holds_exactly(home: &Home, gateway: Gateway, acknowledged: &BTreeSet<String>) {
    gateway.kill();
    assert_eq!(&decision_ids(&home.database()), acknowledged, "as the kill left it");
    let gateway = home.start();
    assert_eq!(verified(&home.database()), acknowledged.len() as u64);
    let mut expected = acknowledged.clone();
    expected.extend(decide(&gateway.agent("later"), 2));
    assert_eq!(gateway.stop(), 0);
    assert_eq!(decision_ids(&home.database()), expected);
}

#[test]
fn a_decision_whose_sync_failed_is_refused_and_not_found_after_a_kill() {
    let mut disk = FailingDisk::new();
    let gateway = disk.home.start();
    let agent = gateway.agent("a");
    let acknowledged = decide(&agent, 3).into_iter().collect();
    fs::write(&disk.always, "").expect("written");
    for _ in 0..3 {
        assert_eq!(ask(&agent), None);
    }
    assert_eq!(gateway.request("GET", "/readyz", None, None).status, 503);
    disk.heal();
    holds_exactly(&disk.home, gateway, &acknowledged);
}

#[test]
fn a_sync_that_fails_once_fails_one_decision_and_later_ones_are_kept() {
    for later in [0, 3] {
        let mut disk = FailingDisk::new();
        let gateway = disk.home.start();
        let agent = gateway.agent("a");
        let mut acknowledged: BTreeSet<String> = decide(&agent, 3).into_iter().collect();
        // The failing sync may be a checkpoint's.
        loop {
            fs::write(&disk.once, "").expect("written");
            match ask(&agent) {
                Some(id) => acknowledged.insert(id),
                None => break,
            };
        }
        assert!(!disk.once.exists());
        acknowledged.extend(decide(&agent, later));
        if later > 0 {
            assert_eq!(gateway.request("GET", "/readyz", None, None).status, 200, "it recovers");
        }
        disk.heal();
        holds_exactly(&disk.home, gateway, &acknowledged);
    }
}

#[test]
fn syncs_that_fail_now_and_then_under_load_keep_exactly_what_was_acknowledged() {
    let mut disk = FailingDisk::new();
    let gateway = disk.home.start();
    let agent = gateway.agent("a");
    let (acknowledged, refused) = (Mutex::new(BTreeSet::new()), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    match ask(&agent) {
                        Some(id) => {
                            acknowledged.lock().expect("no panic").insert(id);
                        }
                        None => {
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
        for round in 1..=15 {
            let before = acknowledged.lock().expect("no panic").len();
            wait_until("some are acknowledged", || {
                acknowledged.lock().expect("no panic").len() >= before + 5
            });
            let flag = if round % 2 == 0 { &disk.once } else { &disk.always };
            let before = refused.load(Ordering::SeqCst);
            wait_until("some are refused", || {
                fs::write(flag, "").expect("written");
                refused.load(Ordering::SeqCst) > before
            });
            for flag in [&disk.once, &disk.always] {
                if flag.exists() {
                    fs::remove_file(flag).unwrap_or_default();
                }
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    disk.heal();
    holds_exactly(&disk.home, gateway, &acknowledged.into_inner().expect("no panic"));
}
