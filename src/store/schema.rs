//! Compares a database's schema with the expected one. Changes nothing.

use rusqlite::{Connection, Row};

use crate::domain::time::Timestamp;

use super::error::Refusal;
use super::migrate;

/// The first difference from the schema that the steps up to `version` create. Additional
/// tables, indexes and views are the operator's business; a trigger on our tables is not.
pub fn difference(connection: &Connection, version: u32) -> Result<Option<String>, Refusal> {
    let cannot = Refusal::sqlite("compare the database's schema");
    let mut fresh = Connection::open_in_memory().map_err(&cannot)?;
    migrate::create_at(&mut fresh, version, Timestamp::from_micros(0))?;
    let expected = objects(&fresh).map_err(&cannot)?;
    let found = objects(connection).map_err(&cannot)?;
    if let Some(object) = expected.iter().find(|object| !found.contains(object)) {
        return Ok(Some(format!("the {} {} is missing or changed", object.kind, object.name)));
    }
    let ours =
        |object: &&Object| expected.iter().any(|known| known.kind == "table" && known.name == object.table);
    let foreign = found.iter().filter(|object| object.kind == "trigger").filter(ours);
    let foreign = foreign.filter(|object| !expected.contains(object)).map(|object| &object.name).next();
    Ok(foreign.map(|name| format!("the trigger {name} is not the program's")))
}

/// A table, an index, a view or a trigger.
#[derive(PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut rows = connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")?;
    let object = |row: &Row<'_>| {
        Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    };
    rows.query_map([], object)?.collect()
}

/// Whether the database holds anything that a failed step could lose.
pub fn holds_data(connection: &Connection) -> Result<bool, Refusal> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM receipts) OR EXISTS (SELECT 1 FROM agents) \
             OR EXISTS (SELECT 1 FROM tools)",
            [],
            |row| row.get(0),
        )
        .map_err(Refusal::sqlite("check whether the database holds data"))
}
