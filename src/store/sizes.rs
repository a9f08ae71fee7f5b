//! The size of the database and the number of rows in its tables. Never scans a table that
//! grows with the history.

use rusqlite::Connection;

use super::error::Error;

/// How a table's rows are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Rows are numbered from 1 without gaps and never deleted: the last number.
    Last(&'static str),
    /// The sum of the decision counts.
    Decisions,
    /// One by one: the rows are few or short-lived.
    Rows,
}

/// Every table of the schema.
const TABLES: &[(&str, Count)] = &[
    ("agent_signing_keys", Count::Rows),
    ("agents", Count::Last("seq")),
    ("approvals", Count::Last("seq")),
    ("audit_events", Count::Last("seq")),
    ("chain", Count::Rows),
    ("decision_counts", Count::Rows),
    ("decisions", Count::Decisions),
    ("operator_tokens", Count::Last("seq")),
    ("policy_sets", Count::Rows),
    ("policy_versions", Count::Rows),
    ("receipts", Count::Last("seq")),
    // Only the last minutes' rows, which SQLite counts page by page.
    ("request_nonces", Count::Rows),
    ("schema_migrations", Count::Last("n")),
    ("tool_actions", Count::Rows),
    ("tools", Count::Last("seq")),
];

/// Each table's name and number of rows.
pub fn rows(connection: &Connection) -> Result<Vec<(&'static str, i64)>, Error> {
    let count = |(table, count): &(&'static str, Count)| {
        let sql = match count {
            Count::Last(column) => format!("SELECT coalesce(max({column}), 0) FROM {table}"),
            Count::Decisions => "SELECT coalesce(sum(count), 0) FROM decision_counts".to_owned(),
            Count::Rows => format!("SELECT count(*) FROM {table}"),
        };
        Ok((*table, connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?))
    };
    let counted: rusqlite::Result<_> = TABLES.iter().map(count).collect();
    counted.map_err(Error::cannot("count the tables' rows"))
}

/// The size of the database in bytes, including what is still in its log.
pub fn bytes(connection: &Connection) -> Result<i64, Error> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    pragma("page_count")
        .and_then(|pages| Ok(pages * pragma("page_size")?))
        .map_err(Error::cannot("read the database's size"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;
    use crate::store::migrate;

    #[test]
    fn every_table_of_the_schema_is_listed_and_counted() {
        let mut connection = Connection::open_in_memory().expect("it opens");
        migrate::create(&mut connection, Timestamp::from_micros(0)).expect("made");
        let mut tables = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            .expect("a schema");
        let tables: Vec<String> =
            tables.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("names");
        assert_eq!(tables, TABLES.iter().map(|(table, _)| *table).collect::<Vec<_>>());
        for (table, rows) in rows(&connection).expect("counted") {
            let sql = format!("SELECT count(*) FROM {table}");
            assert_eq!(connection.query_row(&sql, [], |row| row.get(0)), Ok(rows), "{table}");
        }
    }
}
