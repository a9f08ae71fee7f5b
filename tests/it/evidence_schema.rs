//! What stands between whoever reads and the rows: tables that are none, indexes that hold
//! other rows than their tables do.

use std::path::Path;

use crate::evidence::{Bench, stopped};
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

#[test]
fn an_index_that_the_operator_adds_to_other_tables_is_the_operator_s_business() {
    let home = Home::new();
    assert_eq!(home.start().stop(), 0);
    home.sql("CREATE TABLE notes (x); CREATE INDEX own ON notes (x); CREATE INDEX by_name ON agents (name)");
    assert_eq!(home.start().stop(), 0);
    assert_eq!(verified(&home.database()), 0);
}
