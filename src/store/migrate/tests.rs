use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use super::*;
use crate::evidence::FirstBreak;
use crate::evidence::database::{self, Extent};
use crate::store::decision_counts::{self, DecisionCount};
use crate::store::receipts::Head;
use crate::store::{connection, files, schema};

const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
const FIRST: Migration =
    Migration { name: "first", sql: "CREATE TABLE t (id INTEGER PRIMARY KEY);\nINSERT INTO t VALUES (1);\n" };
const SECOND: Migration =
    Migration { name: "second", sql: "CREATE TABLE u (t_id INTEGER REFERENCES t (id))" };

struct Made {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn made(migrations: &[Migration]) -> Made {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    files::create_private_file(&path).expect("created");
    let mut connection = connection::creator(&path).expect("it opens");
    create_with(&mut connection, migrations, NOW).expect("made");
    connection::finish(connection).expect("finished");
    Made { folder, path }
}

impl Made {
    fn open(&self) -> Connection {
        connection::writer(&self.path).expect("it opens")
    }

    fn changed(self, sql: &str) -> Self {
        self.open().execute_batch(sql).expect("changed");
        self
    }
}

/// Version, steps and tables.
type State = (i64, Vec<(i64, String)>, Vec<String>);

fn state(connection: &Connection) -> State {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").expect("a schema");
    let tables =
        tables.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("names");
    (version, recorded(connection).expect("records"), tables)
}

fn step(sql: &'static str) -> Migration {
    Migration { name: "tried", sql }
}

#[test]
fn a_fresh_database_is_at_the_latest_version_and_stays_there() {
    let made = made(MIGRATIONS);
    let mut connection = made.open();
    let before = state(&connection);
    assert_eq!((before.0, before.1.len()), (i64::from(latest()), MIGRATIONS.len()));
    assert_eq!(check(&connection), Ok(latest()));
    assert_eq!(migrate(&mut connection, NOW), Ok(latest()));
    assert_eq!(state(&connection), before, "again changes nothing");
}

#[test]
fn an_upgrade_applies_what_is_missing() {
    let made = made(&[FIRST]);
    let mut connection = made.open();
    assert_eq!(check_against(&connection, &[FIRST, SECOND]), Ok(1));
    assert_eq!(migrate_to(&mut connection, &[FIRST, SECOND], NOW), Ok(1));
    assert_eq!(check_against(&connection, &[FIRST, SECOND]), Ok(2));
    let keys: i64 = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).expect("a setting");
    assert_eq!(keys, 1, "foreign keys are checked again");
}

#[test]
fn line_ends_do_not_make_another_step() {
    let crlf = step("CREATE TABLE t (id INTEGER PRIMARY KEY);\r\nINSERT INTO t VALUES (1);\r\n");
    let made = made(&[FIRST]);
    assert_eq!(check_against(&made.open(), &[crlf]), Ok(1));
}

#[test]
fn what_this_program_does_not_know_is_refused_and_left_alone() {
    let both = &[FIRST, SECOND];
    let changed = step("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    for (made, known, says) in [
        (made(both), vec![FIRST], "newer than this program's 1"),
        (made(both), vec![changed, SECOND], "schema step 1"),
        (made(both), vec![FIRST, changed], "schema step 2"),
        (made(&[FIRST]).changed("PRAGMA application_id = 5"), both.to_vec(), "another program"),
        (made(&[FIRST]).changed("PRAGMA application_id = 0"), both.to_vec(), "another program"),
        (made(both).changed("DELETE FROM schema_migrations WHERE n = 1"), both.to_vec(), "does not match"),
        (made(both).changed("DELETE FROM schema_migrations WHERE n = 2"), both.to_vec(), "does not match"),
        (made(both).changed("DROP TABLE schema_migrations"), both.to_vec(), "does not match"),
        (made(both).changed("PRAGMA user_version = 0"), both.to_vec(), "does not match"),
        (made(both).changed("PRAGMA user_version = 1"), both.to_vec(), "does not match"),
        (made(both).changed("PRAGMA user_version = -1"), both.to_vec(), "does not match"),
        (made(&[FIRST]).changed("PRAGMA user_version = 2"), both.to_vec(), "does not match"),
        (
            made(both).changed("UPDATE schema_migrations SET n = 7 WHERE n = 2"),
            both.to_vec(),
            "schema step 2",
        ),
    ] {
        let mut connection = made.open();
        let before = state_or_none(&connection);
        let line = check_against(&connection, &known).expect_err(says).to_string();
        assert!(line.contains(says), "{line}");
        migrate_to(&mut connection, &known, NOW).expect_err(says);
        assert_eq!(state_or_none(&connection), before, "{says}");
    }
}

fn state_or_none(connection: &Connection) -> Option<State> {
    connection.table_exists(None, "schema_migrations").expect("a schema").then(|| state(connection))
}

#[test]
fn a_step_that_fails_or_ends_the_transaction_leaves_nothing() {
    for sql in [
        "CREATE TABLE half (x); INSERT INTO missing VALUES (1)",
        "CREATE TABLE half (x); SELECT",
        "CREATE TABLE half (x); COMMIT; INSERT INTO missing VALUES (1)",
        "CREATE TABLE half (x); COMMIT",
        "CREATE TABLE half (x); END",
        "CREATE TABLE half (x); ROLLBACK",
        "CREATE TABLE half (x); BEGIN",
        "CREATE TABLE half (x); SAVEPOINT s",
        "CREATE TABLE half (x); RELEASE s",
        "CREATE TABLE half (x); INSERT INTO t VALUES (2); INSERT OR ROLLBACK INTO t VALUES (2)",
        // A reference to a missing row.
        "CREATE TABLE half (t_id INTEGER REFERENCES t (id)); INSERT INTO half VALUES (99)",
    ] {
        let made = made(&[FIRST]);
        let mut connection = made.open();
        let before = state(&connection);
        let line = migrate_to(&mut connection, &[FIRST, step(sql)], NOW).expect_err(sql).to_string();
        assert!(line.contains("cannot apply schema step 2 (tried)"), "{line}");
        assert_eq!(state(&connection), before, "{sql}");
        assert!(connection.is_autocommit(), "{sql}");
        assert_eq!(migrate_to(&mut connection, &[FIRST, SECOND], NOW), Ok(1), "{sql}");
    }
}

#[test]
fn six_at_once_apply_each_step_once() {
    for _ in 0..8 {
        let made = made(&[FIRST]);
        let ready = Barrier::new(6);
        std::thread::scope(|scope| {
            for mut connection in (0..6).map(|_| made.open()).collect::<Vec<_>>() {
                let (ready, migrations) = (&ready, [FIRST, SECOND, step("CREATE TABLE v (x)")]);
                scope.spawn(move || {
                    ready.wait();
                    migrate_to(&mut connection, &migrations, NOW).expect("migrated");
                });
            }
        });
        let (version, steps, tables) = state(&made.open());
        assert_eq!((version, steps.len()), (3, 3));
        assert_eq!(tables, ["schema_migrations", "t", "u", "v"]);
    }
}

#[test]
fn a_check_amid_a_migration_sees_one_state() {
    let made = made(&[FIRST]);
    let mut other = made.open();
    let mut migrated = false;
    let mut reader = connection::reader(&made.path).expect("it opens");
    // The other connection migrates just before this one reads the records.
    let migrate_meanwhile = move |context: AuthContext<'_>| {
        if let AuthAction::Read { table_name: "schema_migrations", .. } = context.action
            && !std::mem::replace(&mut migrated, true)
        {
            migrate_to(&mut other, &[FIRST, SECOND], NOW).expect("migrated");
        }
        Authorization::Allow
    };
    reader.authorizer(Some(migrate_meanwhile)).expect("watched");
    assert_eq!(check_against(&reader, &[FIRST, SECOND]), Ok(1));
    assert_eq!(check_against(&reader, &[FIRST, SECOND]), Ok(2));
}

#[test]
fn a_read_only_connection_is_checked_and_not_migrated() {
    let made = made(&[FIRST]);
    let _keeps_the_log = made.open();
    let mut connection = connection::reader(&made.path).expect("it opens");
    assert_eq!(check_against(&connection, &[FIRST, SECOND]), Ok(1));
    migrate_to(&mut connection, &[FIRST, SECOND], NOW).expect_err("it cannot write");
    assert_eq!(check_against(&connection, &[FIRST, SECOND]), Ok(1));
}

#[test]
fn a_kill_before_the_commit_leaves_the_version_before() {
    const LARGE: Migration = Migration {
        name: "large",
        sql: "CREATE TABLE large (x); INSERT INTO large WITH RECURSIVE n (i) AS \
              (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT randomblob(4000) FROM n",
    };
    let made = made(&[FIRST]);
    let copy = made.folder.path().join("killed.db");
    let mut connection = made.open();
    // A small cache, so that pages spill to the log before the commit.
    connection.pragma_update(None, "cache_size", 5).expect("configured");
    let (from, to) = (made.path.clone(), copy.clone());
    let as_killed = move || {
        for suffix in ["", "-wal"] {
            fs::copy(files::with_suffix(&from, suffix), files::with_suffix(&to, suffix)).expect("copied");
        }
        false
    };
    connection.commit_hook(Some(as_killed)).expect("hooked");
    migrate_to(&mut connection, &[FIRST, LARGE], NOW).expect("migrated");
    let log = fs::metadata(files::with_suffix(&copy, "-wal")).expect("a log").len();
    assert!(log > 400_000, "the step was in the log: {log} bytes");
    let mut killed = connection::writer(&copy).expect("it opens");
    assert_eq!(check_against(&killed, &[FIRST, LARGE]), Ok(1));
    assert_eq!(state(&killed).2, ["schema_migrations", "t"]);
    assert_eq!(migrate_to(&mut killed, &[FIRST, LARGE], NOW), Ok(1));
}

#[test]
fn a_vacuumed_copy_is_the_same_schema() {
    let made = made(&[FIRST]);
    let copy = made.folder.path().join("copy.db");
    made.open().execute("VACUUM INTO ?1", [copy.to_str().expect("text")]).expect("copied");
    let mut copy = connection::writer(&copy).expect("it opens");
    assert_eq!(migrate_to(&mut copy, &[FIRST, SECOND], NOW), Ok(1));
}

#[test]
fn a_corrupt_page_is_an_error_and_nothing_is_written() {
    let made = made(&[FIRST]);
    let whole = fs::read(&made.path).expect("readable");
    for page in 0..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096 + if page == 0 { 100 } else { 0 }..(page + 1) * 4096].fill(0xaa);
        fs::write(&made.path, &bytes).expect("written");
        let connection = connection::immutable(&made.path).expect("it opens");
        let checked = check_against(&connection, &[FIRST]);
        // The second page holds the records; the last one only the rows of `t`.
        assert_eq!(checked.is_err(), page < 2, "page {page}: {checked:?}");
        drop(connection);
        assert!(fs::read(&made.path).expect("readable") == bytes);
    }
}

fn golden_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema_0001.db")
}

#[test]
fn a_database_of_any_earlier_schema_becomes_the_same_as_a_new_one() {
    for version in 1..MIGRATIONS.len() {
        let made = made(&MIGRATIONS[..version]).changed(
            "INSERT INTO agents (id, agent_key, token_sha256, name, environment, risk_tier, created_at, \
             updated_at) VALUES ('i', 'k', lower(hex(zeroblob(32))), 'n', 'e', 'low', 't', 't')",
        );
        let mut connection = made.open();
        assert_eq!(migrate(&mut connection, NOW).map(|before| before as usize), Ok(version));
        assert_eq!(check(&connection), Ok(latest()));
        assert_eq!(schema::difference(&connection, latest()), Ok(None), "from {version}");
        let agents = connection.query_row("SELECT count(*) FROM agents", [], |row| row.get::<_, i64>(0));
        assert_eq!(agents, Ok(1), "existing rows are kept");
    }
}

#[test]
fn an_approval_that_waits_goes_on_waiting_after_a_migration() {
    let made = made(&MIGRATIONS[..2]).changed(
        "INSERT INTO approvals VALUES (7, 'i', 'd', 'a', 'created', lower(hex(zeroblob(32))), '{}', 'g', \
         't', 'u')",
    );
    let mut connection = made.open();
    assert_eq!(migrate(&mut connection, NOW), Ok(2));
    let kept: (i64, String, String, String, bool) = connection
        .query_row(
            "SELECT seq, status, tool_call, expires_at, original_action_hash = action_hash FROM approvals",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .expect("the approval");
    assert_eq!(kept, (7, "created".to_owned(), "{}".to_owned(), "u".to_owned(), true));
}

#[test]
fn an_audit_event_is_never_changed_and_never_deleted() {
    let made = made(MIGRATIONS).changed(
        "INSERT INTO audit_events (id, event_type, event_json, created_at) VALUES ('i', 't', '{}', 'n')",
    );
    let connection = made.open();
    for sql in ["UPDATE audit_events SET event_json = '{\"a\":1}'", "DELETE FROM audit_events"] {
        let error = connection.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains("audit events are evidence"), "{error}");
    }
    let not_json =
        "INSERT INTO audit_events (id, event_type, event_json, created_at) VALUES ('j', 't', '1', 'n')";
    connection.execute(not_json, []).expect_err("an event is an object");
}

#[test]
fn a_receipt_that_does_not_follow_the_last_is_refused_by_the_schema_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    fs::copy(golden_path(), &path).expect("copied");
    let mut connection = connection::writer(&path).expect("it opens");
    migrate(&mut connection, NOW).expect("migrated");
    let next = Head::load(&connection).expect("a head").seq + 1;
    let copy_of = |from: i64, verb: &str, seq: &str, prev: &str| {
        let statement = connection.prepare("SELECT * FROM receipts").expect("a table");
        let columns = statement.column_names().collect::<Vec<_>>().join(", ");
        let values = columns.replacen("seq", seq, 1).replace("prev_receipt_hash", prev);
        let sql = format!(
            "INSERT {verb} INTO receipts ({columns}) SELECT {values} FROM receipts WHERE seq = {from}"
        );
        connection.execute(&sql, [])
    };
    let (fork, last) = ("prev_receipt_hash", format!("{}", next - 1));
    for (what, verb, seq, prev) in [
        ("a fork", "", format!("{next}"), fork),
        ("a gap", "", format!("{}", next + 1), "receipt_hash"),
        ("a second first receipt", "", format!("{next}"), "''"),
        ("another receipt in a place that is taken", "OR REPLACE", last, fork),
        ("a place of SQLite's choice", "", "NULL".to_owned(), "receipt_hash"),
    ] {
        let error = copy_of(next - 1, verb, &seq, prev).expect_err(what).to_string();
        assert!(error.contains("this one does not follow the last"), "{what}: {error}");
    }
    copy_of(next - 1, "", &next.to_string(), "receipt_hash").expect("what follows is taken");
}

#[test]
fn the_golden_database_of_the_first_schema_is_migrated_and_verifies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    fs::copy(golden_path(), &path).expect("copied");
    let mut connection = connection::writer(&path).expect("it opens");
    assert_eq!(check(&connection), Ok(1));
    assert_eq!(migrate(&mut connection, NOW), Ok(1));
    let mut first = FirstBreak::default();
    let summary = database::verify(&connection, Extent::Whole, &mut first).expect("read");
    assert_eq!((first.0, summary.receipts, summary.decisions), (None, 12, Some(12)));
    let count = |outcome: &str, count| DecisionCount {
        outcome: outcome.to_owned(),
        trust_level: "trusted_internal_signed".to_owned(),
        count,
    };
    let counts = decision_counts::list(&connection);
    assert_eq!(counts.expect("counted"), [count("allow", 8), count("deny", 4)]);
}
