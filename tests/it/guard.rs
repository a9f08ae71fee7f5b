//! Files at the database's path are checked before SQLite opens them: those that belong are
//! used completely, others are set aside or refused, and a refusal changes nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use aegis_gateway::store::guard::{self, Found, Layout};

use crate::support::{
    Agent, Gateway, Home, decide, decision_ids, dump, dump_before_restore, try_request, verified, verify,
    wait_until,
};

const ROWS: usize = 40;

/// A home whose gateway was stopped cleanly, and a backup of it.
struct Stopped {
    _home: Home,
    database: PathBuf,
    backup: PathBuf,
    decisions: usize,
}

fn stopped() -> &'static Stopped {
    static STOPPED: OnceLock<Stopped> = OnceLock::new();
    STOPPED.get_or_init(|| {
        let home = Home::new();
        let gateway = home.start();
        decide(&gateway.agent("a"), ROWS);
        let backup = gateway.backup(&home, "b.db");
        assert_eq!(gateway.stop(), 0);
        Stopped { database: home.database(), backup, _home: home, decisions: ROWS }
    })
}

/// A new home with `database` copied into place, as on another machine.
fn home_with(database: &Path) -> Home {
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    fs::copy(database, home.database()).expect("copied");
    home
}

/// A home whose gateway was killed with commits in its log.
struct Killed {
    home: Home,
    /// The decisions in the backup.
    backed_up: Vec<String>,
    after: Vec<String>,
    backup: PathBuf,
    /// The state of the file and the log together.
    whole: String,
}

impl Killed {
    fn all(&self) -> usize {
        self.backed_up.len() + self.after.len()
    }
}

fn killed() -> Killed {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let backed_up = decide(&agent, 10);
    let backup = gateway.backup(&home, "b.db");
    let after = decide(&agent, 15);
    gateway.kill();
    let whole = dump(&home.database());
    assert!(wal_bytes(&home) > 0, "the log is hot");
    Killed { home, backed_up, after, backup, whole }
}

fn wal_bytes(home: &Home) -> u64 {
    fs::metadata(home.beside("-wal")).map_or(0, |metadata| metadata.len())
}

fn stale_logs(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, _) in home.snapshot("db") {
        if path.to_string_lossy().contains(".stale-") {
            found.push(path);
        }
    }
    found
}

/// A new agent of a restarted gateway.
fn again(gateway: &Gateway) -> Agent {
    gateway.agent("another")
}

fn edit(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).expect("readable");
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).expect("written");
}

fn change(database: &Path, sql: &str) {
    let connection = Connection::open(database).expect("it opens");
    connection.execute_batch(sql).expect("changed");
}

/// The two choices that a refusal offers: replay and set aside.
fn choices(line: &str) -> (String, String) {
    let choice = |kind: &str| {
        let rest = line.split_once(&format!("AEGIS_WAL_CHOICE={kind}:")).expect("a way out").1;
        format!("{kind}:{}", &rest[..16])
    };
    (choice("replay"), choice("set-aside"))
}

// The runbook.

/// Restores the backup with `restore`, starts, and expects exactly the backup.
fn restores_exactly(restore: impl FnOnce(&Killed, &Path)) {
    let killed = killed();
    let log = fs::read(killed.home.beside("-wal")).expect("a log");
    restore(&killed, &killed.home.database());
    let gateway = killed.home.start();
    let aside = stale_logs(&killed.home);
    assert_eq!(aside.len(), 1, "set aside: {aside:?}");
    assert!(fs::read(&aside[0]).expect("readable") == log, "the log that was set aside is whole");
    let name = aside[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(
        gateway.log().lines().any(|line| line.contains("set aside") && line.contains(&name)),
        "{}",
        gateway.log()
    );
    assert_eq!(verified(&killed.home.database()), killed.backed_up.len() as u64 + 1);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(dump_before_restore(&killed.home.database()), dump(&killed.backup));

    // It continues from there, even after a kill.
    let gateway = killed.home.start();
    let later = decide(&again(&gateway), 3);
    gateway.kill();
    let gateway = killed.home.start();
    assert_eq!(gateway.stop(), 0);
    let expected = killed.backed_up.iter().chain(&later).cloned().collect();
    assert_eq!(decision_ids(&killed.home.database()), expected);
    assert_eq!(stale_logs(&killed.home), aside, "its own log is not set aside");
}

#[test]
fn mv_and_cp_after_a_kill_restore_exactly_the_backup() {
    restores_exactly(|killed, database| {
        fs::rename(database, killed.home.path("db/aegisagent.db.bad-1")).expect("mv");
        fs::copy(&killed.backup, database).expect("cp");
    });
}

#[test]
fn rm_and_cp_after_a_kill_restore_exactly_the_backup() {
    restores_exactly(|killed, database| {
        fs::remove_file(database).expect("rm");
        fs::copy(&killed.backup, database).expect("cp");
    });
}

#[test]
fn cp_over_the_database_after_a_kill_restores_exactly_the_backup() {
    restores_exactly(|killed, database| {
        fs::copy(&killed.backup, database).expect("cp");
    });
}

#[test]
fn a_restore_without_the_logs_index_is_exactly_the_backup() {
    restores_exactly(|killed, database| {
        fs::remove_file(killed.home.beside("-shm")).expect("rm");
        fs::rename(database, killed.home.path("db/aegisagent.db.bad-1")).expect("mv");
        fs::copy(&killed.backup, database).expect("cp");
    });
}

#[test]
fn a_restore_after_a_clean_stop_is_exactly_the_backup_and_sets_nothing_aside() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    decide(&agent, 3);
    let backup = gateway.backup(&home, "b.db");
    decide(&agent, 3);
    assert_eq!(gateway.stop(), 0);
    fs::rename(home.database(), home.path("db/bad")).expect("mv");
    fs::copy(&backup, home.database()).expect("cp");
    let gateway = home.start();
    assert_eq!(gateway.stop(), 0);
    assert_eq!(dump_before_restore(&home.database()), dump(&backup));
    assert_eq!(stale_logs(&home), Vec::<PathBuf>::new());
}

#[test]
fn two_restores_within_a_second_keep_both_logs() {
    let mut killed = killed();
    for round in 1..=2 {
        fs::copy(&killed.backup, killed.home.database()).expect("cp");
        let gateway = killed.home.start();
        assert_eq!(stale_logs(&killed.home).len(), round);
        killed.after = decide(&again(&gateway), 1);
        gateway.kill();
    }
}

#[test]
fn a_restored_database_is_writable_and_private() {
    let stopped = stopped();
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&stopped.backup), 0o600, "cp keeps the mode");
    let home = home_with(&stopped.backup);
    fs::set_permissions(home.database(), fs::Permissions::from_mode(0o644)).expect("chmod");
    let gateway = home.start();
    assert_eq!(mode(&home.database()), 0o600);
    decide(&again(&gateway), 1);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_database_of_the_first_schema_is_migrated_when_restored() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema_0001.db");
    let before = decision_ids(&golden);
    assert!(before.len() >= 5, "the golden file has decisions");
    let killed = killed();
    fs::rename(killed.home.database(), killed.home.path("db/bad")).expect("mv");
    fs::copy(&golden, killed.home.database()).expect("cp");
    let gateway = killed.home.start();
    gateway.logs("applied schema step 2");
    assert_eq!(verified(&killed.home.database()), before.len() as u64 + 1);
    let later = decide(&again(&gateway), 2);
    assert_eq!(gateway.stop(), 0);
    let expected = before.into_iter().chain(later).collect();
    assert_eq!(decision_ids(&killed.home.database()), expected);
    assert_eq!(verified(&killed.home.database()), expected.len() as u64 + 1);
}

// The six rules.

#[test]
fn rule_1_a_kill_amid_the_switch_to_the_log_is_rolled_back() {
    let stopped = stopped();
    let home = home_with(&stopped.backup);
    write_switch_journal(&home.database(), &home.beside("-journal"));
    let content = fs::read(home.database()).expect("readable");
    assert_eq!(content[18..20], [2, 2], "the switch has reached the file");
    let gateway = home.start();
    assert!(!home.beside("-journal").exists());
    assert_eq!(verified(&home.database()), stopped.decisions as u64);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(dump(&home.database()), dump(&stopped.backup));
}

#[test]
fn rule_1_the_journal_made_for_these_tests_is_one_that_sqlite_rolls_back() {
    let home = home_with(&stopped().backup);
    let before = fs::read(home.database()).expect("readable");
    write_switch_journal(&home.database(), &home.beside("-journal"));
    let connection = Connection::open(home.database()).expect("it opens");
    connection.query_row("SELECT count(*) FROM receipts", [], |_| Ok(())).expect("read");
    drop(connection);
    assert!(fs::read(home.database()).expect("readable") == before, "rolled back");
}

#[test]
fn rule_1_a_journal_of_another_file_is_refused() {
    let database = &stopped().backup;
    type Spoil = fn(&mut Vec<u8>);
    let spoil: [(&str, Spoil); 5] = [
        ("another length", |journal| journal[16..20].copy_from_slice(&1u32.to_be_bytes())),
        ("another page", |journal| journal[512..516].copy_from_slice(&2u32.to_be_bytes())),
        ("another content", |journal| journal[516 + 300] ^= 1),
        ("another identity", |journal| journal[516 + 68] ^= 1),
        ("two pages", |journal| journal.extend_from_within(512..)),
    ];
    for (what, spoil) in spoil {
        let home = home_with(database);
        write_switch_journal(&home.database(), &home.beside("-journal"));
        let mut journal = fs::read(home.beside("-journal")).expect("readable");
        spoil(&mut journal);
        fs::write(home.beside("-journal"), journal).expect("written");
        let line = home.refused();
        assert!(line.contains("rollback journal"), "{what}: {line}");
    }
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    fs::write(home.beside("-journal"), "anything").expect("written");
    assert!(home.refused().contains("rollback journal"), "a journal without its database");
}

/// Leaves the database as a kill during `PRAGMA journal_mode = WAL` does: page 1 is written,
/// and the journal with the old page is not yet removed.
fn write_switch_journal(database: &Path, journal: &Path) {
    let mut content = fs::read(database).expect("readable");
    let page_size = usize::from(u16::from_be_bytes([content[16], content[17]]));
    let pages = u32::try_from(content.len() / page_size).expect("few pages");
    let nonce = 7u32;
    let mut bytes = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    for word in [1, nonce, pages, 512, u32::try_from(page_size).expect("small")] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.resize(512, 0);
    bytes.extend_from_slice(&1u32.to_be_bytes());
    bytes.extend_from_slice(&content[..page_size]);
    let mut sum = nonce;
    let mut at = page_size - 200;
    while at > 0 {
        sum = sum.wrapping_add(u32::from(content[at]));
        at = at.saturating_sub(200);
    }
    bytes.extend_from_slice(&sum.to_be_bytes());
    fs::write(journal, bytes).expect("written");
    let counter = u32::from_be_bytes([content[24], content[25], content[26], content[27]]) + 1;
    content[18..20].copy_from_slice(&[2, 2]);
    content[24..28].copy_from_slice(&counter.to_be_bytes());
    content[92..96].copy_from_slice(&counter.to_be_bytes());
    fs::write(database, content).expect("written");
}

#[test]
fn rule_2_a_log_whose_database_was_moved_away_or_emptied_is_kept() {
    let killed = killed();
    let (database, away) = (killed.home.database(), killed.home.path("away.db"));
    fs::rename(&database, &away).expect("mv");
    let line = killed.home.refused();
    assert!(line.contains("missing or empty") && line.contains("-wal"), "{line}");
    fs::write(&database, "").expect("an empty file");
    let line = killed.home.refused();
    assert!(line.contains("missing or empty"), "{line}");
    fs::rename(&away, &database).expect("mv back");
    let gateway = killed.home.start();
    assert_eq!(gateway.stop(), 0);
    assert_eq!(dump(&killed.home.database()), killed.whole);
    assert_eq!(stale_logs(&killed.home), Vec::<PathBuf>::new());
}

#[test]
fn rule_3_writes_on_a_restored_file_beside_a_junk_log_survive_a_kill() {
    for junk in [&b"junk"[..], &[0x37; 9000], &[0; 5000]] {
        let home = home_with(&stopped().backup);
        fs::write(home.beside("-wal"), junk).expect("written");
        let gateway = home.start();
        let aside = stale_logs(&home);
        assert_eq!(aside.len(), 1);
        assert_eq!(fs::read(&aside[0]).expect("readable"), junk);
        let later = decide(&again(&gateway), 3);
        gateway.kill();
        let gateway = home.start();
        assert_eq!(gateway.stop(), 0);
        assert!(later.iter().all(|id| decision_ids(&home.database()).contains(id)));
        assert_eq!(stale_logs(&home), aside);
    }
}

#[test]
fn rule_4_a_log_that_says_rollback_mode_too_is_the_operators_choice() {
    // A file in rollback mode that is opened next to a junk log enters log mode without its
    // header being rewritten.
    let mut home = home_with(&stopped().backup);
    fs::write(home.beside("-wal"), [0; 64]).expect("written");
    let connection = Connection::open(home.database()).expect("it opens");
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("configured");
    connection
        .execute_batch(&format!(
            "PRAGMA user_version = {}; UPDATE agents SET name = 'in the log'",
            aegis_gateway::store::migrate::latest()
        ))
        .expect("written");
    drop(connection);
    assert_eq!(fs::read(home.database()).expect("readable")[18..20], [1, 1]);
    let line = home.refused();
    assert!(line.contains("both it and the database are in rollback mode"), "{line}");
    let whole = dump(&home.database());
    assert!(whole.contains("in the log"));
    home.set("AEGIS_WAL_CHOICE", &choices(&line).0);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(dump(&home.database()), whole);
}

#[test]
fn rule_5_a_log_of_another_page_size_is_set_aside() {
    let home = home_with(&stopped().database);
    let other = home.path("other.db");
    let connection = Connection::open(&other).expect("it opens");
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("configured");
    connection
        .execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .expect("written");
    drop(connection);
    fs::copy(home.path("other.db-wal"), home.beside("-wal")).expect("copied");
    assert!(wal_bytes(&home) > 8192);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(stale_logs(&home).len(), 1);
    assert_eq!(dump(&home.database()), dump(&stopped().database));
}

#[test]
fn rule_5_an_older_copy_over_the_database_beside_a_hot_log_is_refused() {
    let home = Home::new();
    let run = |count| {
        let gateway = home.start();
        decide(&again(&gateway), count);
        gateway
    };
    assert_eq!(run(2).stop(), 0);
    let older = fs::read(home.database()).expect("readable");
    assert_eq!(run(2).stop(), 0);
    run(2).kill();
    let (whole, newer) = (dump(&home.database()), fs::read(home.database()).expect("readable"));
    fs::write(home.database(), older).expect("cp over");
    let line = home.refused();
    assert!(line.contains("change counter"), "{line}");
    choices(&line);
    fs::write(home.database(), newer).expect("put back");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(dump(&home.database()), whole);
}

#[test]
fn rule_5_an_older_log_beside_the_database_is_refused() {
    let killed = killed();
    let older = fs::read(killed.home.beside("-wal")).expect("readable");
    let gateway = killed.home.start();
    decide(&again(&gateway), 2);
    assert_eq!(gateway.stop(), 0);
    fs::write(killed.home.beside("-wal"), older).expect("written");
    let line = killed.home.refused();
    assert!(line.contains("change counter"), "{line}");
}

#[test]
fn rule_5_a_schema_newer_than_the_logs_is_refused() {
    let killed = killed();
    let cookie = fs::read(killed.home.database()).expect("readable")[40..44].to_vec();
    let cookie = u32::from_be_bytes(cookie.try_into().expect("four bytes"));
    edit(&killed.home.database(), 40, &(cookie + 100).to_be_bytes());
    let line = killed.home.refused();
    assert!(line.contains("schema is newer"), "{line}");
}

/// A home killed with a hot log, whose database was replaced by an older, cleanly stopped copy.
fn replaced_by_a_stopped_copy(put: impl FnOnce(&Path, &Path)) -> (Home, String, String) {
    let home = Home::new();
    let gateway = home.start();
    decide(&gateway.agent("a"), 2);
    assert_eq!(gateway.stop(), 0);
    let copy = home.path("copy.db");
    fs::copy(home.database(), &copy).expect("copied");
    let state = dump(&copy);
    let gateway = home.start();
    decide(&again(&gateway), 4);
    gateway.kill();
    let whole = dump(&home.database());
    put(&copy, &home.database());
    (home, state, whole)
}

#[test]
fn rule_6_a_stopped_copy_beside_a_hot_log_is_refused_and_the_own_file_replayed() {
    let (home, _, whole) = replaced_by_a_stopped_copy(|copy, database| {
        fs::rename(database, database.with_extension("away")).expect("mv");
        fs::copy(copy, database).expect("cp");
    });
    let line = home.refused();
    assert!(line.contains("not the file that the gateway ran on last"), "{line}");
    assert!(line.contains("copy of the whole folder"), "{line}");
    choices(&line);
    fs::rename(home.path("db/aegisagent.away"), home.database()).expect("mv back");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(dump(&home.database()), whole);
}

#[test]
fn rule_6_a_stopped_copy_that_took_the_inode_of_the_removed_file_is_refused() {
    let (home, _, _) = replaced_by_a_stopped_copy(|copy, database| {
        fs::remove_file(database).expect("rm");
        fs::copy(copy, database).expect("cp");
    });
    let line = home.refused();
    assert!(line.contains("not the file that the gateway ran on last"), "{line}");
}

#[test]
fn the_choice_to_set_aside_goes_on_with_the_copy_and_keeps_the_log() {
    let (mut home, state, _) = replaced_by_a_stopped_copy(|copy, database| {
        fs::remove_file(database).expect("rm");
        fs::copy(copy, database).expect("cp");
    });
    let log = fs::read(home.beside("-wal")).expect("readable");
    let (_, set_aside) = choices(&home.refused());
    home.set("AEGIS_WAL_CHOICE", "set-aside:0123456789abcdef");
    assert!(home.refused().contains("AEGIS_WAL_CHOICE"), "a choice about another log does not count");
    home.set("AEGIS_WAL_CHOICE", &set_aside);
    assert_eq!(home.start().stop(), 0);
    assert_eq!(dump(&home.database()), state);
    let aside = stale_logs(&home);
    assert_eq!(aside.len(), 1);
    assert!(fs::read(&aside[0]).expect("readable") == log);

    // From now on the copy is the database, and its logs are replayed without asking. The
    // choice left in the settings matches no other log.
    let gateway = home.start();
    let later = decide(&again(&gateway), 2);
    gateway.kill();
    assert_eq!(home.start().stop(), 0);
    assert!(later.iter().all(|id| decision_ids(&home.database()).contains(id)));
    assert_eq!(stale_logs(&home), aside);
}

#[test]
fn a_copy_of_the_whole_folder_is_replayed_by_choice() {
    let killed = killed();
    let mut home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    for (path, content) in killed.home.database_files() {
        fs::write(home.path("db").join(path.file_name().expect("a name")), content).expect("copied");
    }
    let (replay, _) = choices(&home.refused());
    home.set("AEGIS_WAL_CHOICE", &replay);
    let gateway = home.start();
    assert_eq!(verified(&home.database()), killed.all() as u64);
    gateway.kill();
    home.unset("AEGIS_WAL_CHOICE");
    assert_eq!(home.start().stop(), 0, "the identity was recorded before the kill");
    assert_eq!(dump(&home.database()), killed.whole);
    assert_eq!(stale_logs(&home), Vec::<PathBuf>::new());
}

#[test]
fn a_hot_log_without_a_readable_record_is_the_operators_choice() {
    for spoil in
        [|record: &Path| fs::remove_file(record), |record: &Path| fs::write(record, "{\"identity\":")]
    {
        let mut killed = killed();
        spoil(&killed.home.beside(".identity")).expect("spoiled");
        let (replay, _) = choices(&killed.home.refused());
        killed.home.set("AEGIS_WAL_CHOICE", &replay);
        assert_eq!(killed.home.start().stop(), 0);
        assert_eq!(dump(&killed.home.database()), killed.whole);
    }
}

#[test]
fn the_identity_is_recorded_before_sqlite_opens_the_file() {
    let home = home_with(&stopped().database);
    let gateway = home.start();
    let record = fs::read_to_string(home.beside(".identity")).expect("a record");
    let inode = fs::metadata(home.database()).expect("there").ino();
    assert!(record.contains(&format!("\"inode\":{inode}")), "{record}");
    assert!(record.contains("\"stopped\":null"), "{record}");
    assert_eq!(gateway.stop(), 0);
    let record = fs::read_to_string(home.beside(".identity")).expect("a record");
    assert!(!record.contains("\"stopped\":null"), "{record}");
}

/// Whether a start would take the file for one that nobody else wrote to. Larger ones are
/// checked whole only if not, so this is what there is to see on a small one.
fn is_as_left(home: &Home) -> bool {
    let layout = Layout::of(&home.database()).expect("names");
    match guard::judge(&layout, None).expect("a judgement").found {
        Found::Database { as_left, .. } => as_left,
        Found::Missing { .. } => panic!("it is there"),
    }
}

#[test]
fn a_killed_gateway_s_file_is_as_it_was_left_until_somebody_else_has_closed_it() {
    let home = Home::new();
    let gateway = home.start();
    assert!(wal_bytes(&home) > 0, "there is a commit before anything is asked");
    gateway.kill();
    assert!(is_as_left(&home));
    change(&home.database(), "DROP TRIGGER decisions_are_never_updated; UPDATE decisions SET reason = 'x'");
    assert_eq!(wal_bytes(&home), 0, "the last to close it has taken the log away");
    assert!(!is_as_left(&home));
    home.sql(
        "CREATE TRIGGER decisions_are_never_updated BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are evidence: they are never updated'); END",
    );
    assert_eq!(home.start().stop(), 0);
    assert!(is_as_left(&home), "a clean stop has recorded it");
}

// Files that are not the gateway's databases.

#[test]
fn every_damaged_page_is_refused() {
    let content = fs::read(&stopped().database).expect("readable");
    let pages = content.len() / 4096;
    assert!(pages > 20);
    let home = home_with(&stopped().database);
    for page in 1..pages {
        let mut damaged = content.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xaa);
        fs::write(home.database(), damaged).expect("written");
        home.refused();
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let content = fs::read(&stopped().database).expect("readable");
    let home = home_with(&stopped().database);
    for bytes in
        [1, 99, 100, 511, 512, 4095, 4096, 4097, content.len() / 2, content.len() - 4096, content.len() - 1]
    {
        fs::write(home.database(), &content[..bytes]).expect("written");
        home.refused();
    }
}

#[test]
fn a_backup_that_was_emptied_is_refused() {
    let home = home_with(&stopped().backup);
    fs::write(home.database(), "").expect("emptied");
    assert!(home.refused().contains("is empty"));
}

#[test]
fn what_is_not_the_gateways_database_is_refused() {
    type Spoil = fn(&Path);
    let edits: [(&str, Spoil); 13] = [
        ("is not a SQLite database", |path| fs::write(path, "x".repeat(9000)).expect("written")),
        ("is not a SQLite database", |path| edit(path, 0, b"SQLite format 2")),
        ("is not a SQLite database", |path| edit(path, 16, &[3, 3])),
        ("unknown format versions", |path| edit(path, 18, &[3, 3])),
        ("application_id 77", |path| change(path, "PRAGMA application_id = 77")),
        ("application_id 0", |path| change(path, "PRAGMA application_id = 0")),
        ("schema version 99, newer", |path| change(path, "PRAGMA user_version = 99")),
        ("version does not match", |path| change(path, "PRAGMA user_version = 1")),
        ("version does not match", |path| change(path, "DELETE FROM schema_migrations WHERE n = 1")),
        ("schema step 1", |path| {
            change(path, "UPDATE schema_migrations SET sha256 = lower(hex(zeroblob(32))) WHERE n = 1");
        }),
        ("does not verify", |path| {
            change(
                path,
                "DROP TRIGGER receipts_are_never_updated; UPDATE receipts SET decision = 'deny' WHERE seq = 7",
            );
        }),
        ("does not verify", |path| {
            change(
                path,
                "DROP TRIGGER receipts_are_never_deleted; PRAGMA foreign_keys = OFF; DELETE FROM receipts WHERE seq > 30",
            );
        }),
        ("", |path| change(path, "DROP TABLE chain")),
    ];
    for (says, spoil) in edits {
        // In log mode, as a gateway leaves it, and in rollback mode, like a backup.
        for database in [&stopped().database, &stopped().backup] {
            let home = home_with(database);
            spoil(&home.database());
            let line = home.refused();
            assert!(line.contains(says), "{says}: {line}");
        }
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let home = Home::new();
    fs::create_dir_all(home.path("db")).expect("a folder");
    std::os::unix::fs::symlink(home.path("nowhere.db"), home.database()).expect("a link");
    assert!(home.refused().contains("leads nowhere"));
    assert!(!home.path("nowhere.db").exists());
    fs::remove_file(home.database()).expect("removed");
    fs::create_dir(home.database()).expect("a folder");
    let (code, text) = home.run_to_end(home.command(&[]));
    assert_eq!((code, text.lines().count()), (Some(2), 1), "a bad setting: {text}");
    assert_eq!(fs::read_dir(home.path("db")).expect("a folder").count(), 1);
}

#[test]
fn a_link_to_a_database_keeps_its_files_beside_the_database() {
    let home = Home::new();
    fs::create_dir_all(home.path("db")).expect("a folder");
    fs::create_dir_all(home.path("disk")).expect("a folder");
    fs::copy(&stopped().backup, home.path("disk/real.db")).expect("cp");
    std::os::unix::fs::symlink(home.path("disk/real.db"), home.database()).expect("a link");
    let gateway = home.start();
    let later = decide(&again(&gateway), 2);
    assert!(home.path("disk/real.db-wal").exists());
    gateway.kill();
    assert_eq!(home.start().stop(), 0);
    assert!(later.iter().all(|id| decision_ids(&home.path("disk/real.db")).contains(id)));
}

#[test]
fn a_second_gateway_is_refused_while_the_first_serves_on() {
    let home = Home::new();
    let first = home.start();
    let agent = first.agent("a");
    decide(&agent, 1);
    let (code, line) = home.start_refused();
    assert_eq!(code, 3);
    assert!(line.contains("another gateway runs"), "{line}");
    // Even under another name of the same file.
    std::os::unix::fs::symlink(home.database(), home.path("link.db")).expect("a link");
    let mut other = home.command(&[]);
    other.env("AEGIS_DB_PATH", home.path("link.db"));
    assert_eq!(home.run_to_end(other).0, Some(3));
    decide(&agent, 2);
    first.kill();
    let gateway = home.start();
    assert_eq!(verified(&home.database()), 3);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn of_many_gateways_started_at_once_one_serves() {
    let home = home_with(&stopped().backup);
    let mut children = Vec::new();
    for _ in 0..4 {
        let child = home.command(&[]).stderr(std::process::Stdio::null()).spawn().expect("it runs");
        children.push(KilledAtLast(child));
    }
    let mut codes = Vec::new();
    wait_until("all but one have ended", || {
        codes = children.iter_mut().filter_map(|child| child.0.try_wait().expect("a child")).collect();
        codes.len() == 3
    });
    assert!(codes.iter().all(|status| status.code() == Some(3)), "{codes:?}");
    drop(children);
    assert_eq!(home.start().stop(), 0);
}

/// A gateway that is killed when the test ends, even if it fails.
struct KilledAtLast(std::process::Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        if self.0.try_wait().expect("a child").is_none() {
            self.0.kill().expect("killed");
            self.0.wait().expect("ended");
        }
    }
}

#[test]
fn gateways_that_waited_for_a_verifier_are_one_that_serves_and_one_that_is_refused() {
    let home = killed().home;
    let lock = fs::File::open(home.beside(".lock")).expect("left by the kill");
    lock.try_lock_shared().expect("as a verifier does");
    let mut children = Vec::new();
    let log = |n: usize| home.path(&format!("log{n}"));
    for n in 0..2 {
        let file = fs::File::create(log(n)).expect("a log");
        children.push(KilledAtLast(home.command(&[]).stderr(file).spawn().expect("it runs")));
    }
    let says = |n, what: &str| fs::read_to_string(log(n)).expect("a log").contains(what);
    wait_until("both wait", || (0..2).all(|n| says(n, "waiting for a verifier")));
    drop(lock);
    wait_until("one serves", || (0..2).any(|n| says(n, " listens on ")));
    let serves = usize::from(says(1, " listens on "));
    let mut code = None;
    wait_until("the other is refused", || {
        code = children[1 - serves].0.try_wait().expect("a child");
        code.is_some()
    });
    assert_eq!(code.and_then(|status| status.code()), Some(3));
    assert!(says(1 - serves, "another gateway runs"));
    assert!(children[serves].0.try_wait().expect("a child").is_none(), "it serves on");
}

#[test]
fn a_name_that_means_something_to_sqlite_is_only_a_name() {
    for name in
        ["db/file:a.db", "db/:memory:", "a?mode=memory", "db/a b#%41?immutable=1&x.db", "-", "a'\"b.db"]
    {
        let home = Home::new().with("AEGIS_DB_PATH", name).with("AEGIS_ADMIN_TOKEN", "0123456789abcdef01");
        let mut expected = Vec::new();
        for stop in [false, true] {
            let gateway = home.start();
            expected.extend(decide(&again(&gateway), 2));
            gateway.backup(&home, &format!("{stop}.db"));
            if stop { assert_eq!(gateway.stop(), 0) } else { gateway.kill() }
        }
        assert_eq!(decision_ids(&home.path(name)), expected.into_iter().collect(), "{name}");
    }
}

// File modes. Root can write every file, so the gateway runs as another user.

const NOBODY: u32 = 65_534;

/// Runs the gateway as an unprivileged user who owns the home.
fn run_unprivileged(home: &Home) -> (Option<i32>, String) {
    use std::os::unix::process::CommandExt;
    let root = fs::metadata(home.path("db")).expect("there").uid() == 0;
    let program = home.path("gateway");
    if fs::hard_link(crate::support::GATEWAY, &program).is_err() {
        fs::copy(crate::support::GATEWAY, &program).expect("copied");
    }
    let mut command = std::process::Command::new(&program);
    command.current_dir(home.path(".")).env_clear().env("AEGIS_BIND_ADDR", "127.0.0.1:0");
    if root {
        let mut paths: Vec<PathBuf> = home.database_files().into_iter().map(|(path, _)| path).collect();
        paths.extend([home.path("db"), home.path(".")]);
        for path in paths {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    home.run_to_end(command)
}

#[test]
fn a_database_that_cannot_be_written_is_refused() {
    for (what, mode, folder_mode) in
        [("file", 0o400, 0o700), ("folder", 0o600, 0o500), ("unreadable", 0o000, 0o700)]
    {
        for database in [&stopped().database, &stopped().backup] {
            let home = home_with(database);
            let before = fs::read(home.database()).expect("readable");
            fs::set_permissions(home.database(), fs::Permissions::from_mode(mode)).expect("chmod");
            fs::set_permissions(home.path("db"), fs::Permissions::from_mode(folder_mode)).expect("chmod");
            let (code, text) = run_unprivileged(&home);
            assert_eq!(code, Some(3), "{what}: {text}");
            assert_eq!(
                text.lines().filter(|line| line.starts_with("aegis-gateway: ")).count(),
                1,
                "{what}: {text}"
            );
            fs::set_permissions(home.path("db"), fs::Permissions::from_mode(0o700)).expect("chmod");
            fs::set_permissions(home.database(), fs::Permissions::from_mode(0o600)).expect("chmod");
            assert!(fs::read(home.database()).expect("readable") == before, "{what}: unchanged");
            let names: Vec<PathBuf> = home.database_files().into_iter().map(|(path, _)| path).collect();
            assert_eq!(names, [home.database()], "{what}: {text}");
        }
    }
}

// Under a running gateway.

fn is_unready_with_a_reason(gateway: &Gateway) -> bool {
    let answer = try_request(gateway.address(), "GET", "/readyz", None, None).expect("an answer");
    answer.status == 503
        && answer.body["reason"].as_str().is_some_and(|reason| reason.contains("moved or replaced"))
}

#[test]
fn a_database_moved_away_under_the_gateway_takes_no_writes_until_it_is_back() {
    for suffix in ["", "-wal"] {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        let mut acknowledged = decide(&agent, 3);
        fs::rename(home.beside(suffix), home.path("away")).expect("mv");
        assert_eq!(agent.ask("read", "trusted_internal_signed").status, 503, "{suffix}");
        assert!(is_unready_with_a_reason(&gateway), "{suffix}");
        let backup = serde_json::json!({"filename": "x.db"});
        assert!(gateway.operator("POST", "/v1/admin/backup", Some(&backup)).status >= 500);
        fs::rename(home.path("away"), home.beside(suffix)).expect("mv back");
        acknowledged.extend(decide(&agent, 3));
        assert_eq!(gateway.request("GET", "/readyz", None, None).status, 200);
        gateway.kill();
        assert_eq!(home.start().stop(), 0);
        assert_eq!(decision_ids(&home.database()), acknowledged.into_iter().collect());
    }
}

#[test]
fn a_database_replaced_under_the_gateway_takes_no_writes_and_is_what_runs_next() {
    for clean in [false, true] {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        decide(&agent, 3);
        let backup = gateway.backup(&home, "b.db");
        decide(&agent, 2);
        fs::rename(home.database(), home.path("away.db")).expect("mv");
        fs::copy(&backup, home.database()).expect("cp");
        assert_eq!(agent.ask("read", "trusted_internal_signed").status, 503);
        assert!(is_unready_with_a_reason(&gateway));
        if clean {
            gateway.stop();
            assert_eq!(
                verified(&home.path("away.db")),
                5,
                "what was acknowledged is in the file that was moved"
            );
        } else {
            gateway.kill();
        }
        let gateway = home.start();
        assert_eq!(verified(&home.database()), 4);
        assert_eq!(gateway.stop(), 0);
        assert_eq!(dump_before_restore(&home.database()), dump(&backup));
    }
}

// Offline verification.

#[test]
fn offline_verification_counts_the_logs_rows_and_leaves_the_folder_as_it_was() {
    for with_index in [true, false] {
        let killed = killed();
        if !with_index {
            fs::remove_file(killed.home.beside("-shm")).expect("rm");
        }
        let before = killed.home.snapshot("db");
        assert_eq!(verified(&killed.home.database()), killed.all() as u64);
        assert!(killed.home.snapshot("db") == before, "byte-identical");
    }
    let home = home_with(&stopped().database);
    let before = home.snapshot("db");
    assert_eq!(verified(&home.database()), stopped().decisions as u64);
    assert!(home.snapshot("db") == before, "byte-identical");
}

#[test]
fn offline_verification_of_a_restored_file_does_not_count_the_stale_log() {
    let killed = killed();
    fs::remove_file(killed.home.database()).expect("rm");
    fs::copy(&killed.backup, killed.home.database()).expect("cp");
    let before = killed.home.snapshot("db");
    assert_eq!(verified(&killed.home.database()), killed.backed_up.len() as u64);
    assert!(killed.home.snapshot("db") == before, "byte-identical");
}

#[test]
fn offline_verification_of_a_doubtful_log_gives_no_verdict() {
    let killed = killed();
    fs::remove_file(killed.home.beside(".identity")).expect("rm");
    let before = killed.home.snapshot("db");
    let path = killed.home.database();
    let path = path.to_str().expect("text");
    assert_eq!(verify(&[path]).status.code(), Some(3));
    assert_eq!(verify(&["--wal", "replay", path]).status.code(), Some(0));
    assert!(killed.home.snapshot("db") == before, "byte-identical");
}

#[test]
fn a_database_whose_protections_were_changed_is_refused_and_still_verifies() {
    for (change, named) in [
        ("DROP TRIGGER receipts_are_never_deleted", "receipts_are_never_deleted is missing"),
        ("CREATE TRIGGER mine BEFORE INSERT ON decisions BEGIN SELECT RAISE(IGNORE); END", "mine is not"),
        ("DROP INDEX decisions_by_agent", "decisions_by_agent is missing"),
        ("CREATE INDEX own ON Decisions (tool)", "own of a table of evidence is not"),
    ] {
        let home = Home::new();
        let gateway = home.start();
        assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
        assert_eq!(gateway.stop(), 0);
        home.sql(change);
        let line = home.refused();
        assert!(line.contains(named), "{line}");
        let output = verify(&[home.database().to_str().expect("UTF-8")]);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{output:?}");
    }
    let home = Home::new();
    assert_eq!(home.start().stop(), 0);
    home.sql("CREATE TABLE notes (x); CREATE INDEX own ON agents (name); CREATE VIEW denied AS SELECT 1");
    assert_eq!(home.start().stop(), 0, "what the operator adds is the operator's business");
}

#[test]
fn a_shell_that_stays_open_over_a_crash_does_not_keep_the_gateway_from_starting() {
    let home = Home::new();
    let gateway = home.start();
    let answer = gateway.agent("a").ask("read", "unknown");
    let shell = rusqlite::Connection::open(home.database()).expect("it opens");
    let count = || -> i64 {
        shell.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0)).expect("a count")
    };
    assert_eq!(count(), 1);
    gateway.kill();
    let gateway = home.start();
    let id = answer.body["decision_id"].as_str().expect("an id");
    assert_eq!(gateway.operator("GET", &format!("/v1/decisions/{id}"), None).status, 200);
    assert_eq!(gateway.agent("b").ask("read", "unknown").status, 200);
    assert_eq!(count(), 2);
    drop(shell);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_folder_reached_by_a_link_is_as_good_as_any() {
    let home = Home::new();
    std::fs::create_dir(home.path("real")).expect("a folder");
    std::os::unix::fs::symlink(home.path("real"), home.path("db")).expect("a link");
    let gateway = home.start();
    assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
    gateway.kill();
    assert_eq!(home.start().stop(), 0);
    assert!(home.path("real/aegisagent.db").exists());
}

#[test]
fn a_stop_that_cannot_empty_its_log_says_so() {
    let home = Home::new();
    let gateway = home.start();
    assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
    let shell = rusqlite::Connection::open(home.database()).expect("it opens");
    shell.execute_batch("BEGIN; SELECT count(*) FROM receipts").expect("it reads");
    assert_eq!(gateway.agent("a").ask("read", "unknown").status, 200);
    assert_eq!(gateway.stop(), 1);
    drop(shell);
    let gateway = home.start();
    assert_eq!(gateway.operator("GET", "/v1/decisions", None).body.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_database_cut_under_the_gateway_takes_no_writes() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    std::fs::File::options().write(true).open(home.database()).expect("it opens").set_len(0).expect("cut");
    assert_eq!(agent.ask("read", "unknown").status, 503);
    wait_until("it is not ready", || gateway.request("GET", "/readyz", None, None).status == 503);
}
