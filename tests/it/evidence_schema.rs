//! What stands between whoever reads and the rows: tables that are none, indexes that hold
//! other rows than their tables do.

use std::path::Path;

use rusqlite::Connection;

use crate::evidence::{Bench, breaks, kinds_at, stopped};
use crate::support::{Home, verified, verify};

/// Exit 3, nothing on standard output, and the line.
fn no_verdict(what: &str, database: &Path) -> String {
    let output = verify(&["--json", database.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3), "{what}: {output:?}");
    assert!(output.stdout.is_empty(), "{what}: half a report: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn what_is_shown_in_the_place_of_a_table_of_evidence_is_no_verdict() {
    let home = stopped();
    let bench = Bench::new(&home);
    for table in ["receipts", "decisions", "chain"] {
        let renamed = format!("PRAGMA legacy_alter_table = ON; ALTER TABLE {table} RENAME TO kept;");
        let upper = format!("{}{}", table[..1].to_uppercase(), &table[1..]);
        for (what, sql) in [
            ("a view", format!("{renamed} CREATE VIEW {table} AS SELECT * FROM kept")),
            ("a view in capitals", format!("{renamed} CREATE VIEW {upper} AS SELECT * FROM kept")),
            ("another table", format!("{renamed} CREATE TABLE {table} AS SELECT * FROM kept")),
            ("a further column", format!("ALTER TABLE {table} ADD COLUMN note TEXT")),
            ("nothing", format!("DROP TABLE {table}")),
        ] {
            let said = no_verdict(what, &bench.after(&sql));
            assert!(said.contains(&format!("the table {table} is missing or changed")), "{what}: {said}");
        }
    }
}

/// Makes indexes that hold every column as it is now, has `edit` done behind their backs, and
/// lets the planner prefer them.
fn with_honest_copies(database: &Connection, edit: &str) {
    let run = |sql: &str| database.execute_batch(sql).expect(sql);
    for table in ["receipts", "decisions"] {
        let columns: String = database
            .query_row("SELECT group_concat(name) FROM pragma_table_info(?1)", [table], |row| row.get(0))
            .expect("columns");
        run(&format!("CREATE INDEX copy_of_{table} ON {table} ({columns})"));
    }
    run("ANALYZE; UPDATE sqlite_stat1 SET stat = '1000000 1000000 sz=4000' WHERE idx NOT LIKE 'copy_of_%';
         UPDATE sqlite_stat1 SET stat = '1000000 1 sz=1' WHERE idx LIKE 'copy_of_%';
         CREATE TEMP TABLE hidden AS SELECT * FROM sqlite_schema WHERE name LIKE 'copy_of_%';
         PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name LIKE 'copy_of_%';
         PRAGMA writable_schema = RESET");
    run(edit);
    run("PRAGMA writable_schema = ON; INSERT INTO sqlite_schema SELECT * FROM hidden;
         PRAGMA writable_schema = RESET");
}

#[test]
fn an_index_with_honest_copies_hides_no_edit() {
    let bench = Bench::new(&stopped());
    for (edit, kind) in [
        ("UPDATE receipts SET decision = 'allow' WHERE seq = 2", "hash_mismatch"),
        ("UPDATE receipts SET prev_receipt_hash = 'x' WHERE seq = 2", "link_mismatch"),
        ("UPDATE decisions SET reason = 'all is well' WHERE seq = 2", "decision_differs"),
    ] {
        let path = bench.edited(|database| with_honest_copies(database, edit));
        let found = breaks(edit, &path);
        assert!(kinds_at(&found, 2).contains(&kind), "{edit}: {found:?}");
    }
    // The same of a receipt that was taken away.
    let path = bench.edited(|database| with_honest_copies(database, "DELETE FROM receipts WHERE seq = 2"));
    assert!(!breaks("deleted", &path).is_empty());
}

/// The chain is whole, and what the gateway would answer is not.
#[test]
fn a_decision_that_was_taken_out_of_an_index_is_no_verdict_and_no_start() {
    let home = stopped();
    home.sql(
        "CREATE INDEX fewer ON decisions (agent_id) WHERE seq <> 2;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'fewer')
             WHERE name = 'decisions_by_agent';
         DELETE FROM sqlite_schema WHERE name = 'fewer'",
    );
    let said = no_verdict("an index", &home.database());
    assert!(said.contains("the chain verifies, but the database is damaged: "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(home.refused().contains("is damaged"));
}

#[test]
fn an_index_that_the_operator_adds_to_other_tables_is_the_operator_s_business() {
    let home = Home::new();
    assert_eq!(home.start().stop(), 0);
    home.sql("CREATE TABLE notes (x); CREATE INDEX own ON notes (x); CREATE INDEX by_name ON agents (name)");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 0);
}
