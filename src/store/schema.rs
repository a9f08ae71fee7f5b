//! Compares a database's schema with the expected one. Changes nothing.

use std::fmt;

use rusqlite::{Connection, Row};

use crate::domain::time::Timestamp;

use super::error::Refusal;
use super::migrate;

/// The tables that prove what was decided.
const EVIDENCE: [&str; 3] = ["chain", "decisions", "receipts"];

/// What in a schema is not as the program made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    what: String,
    /// Whether a table of evidence is missing or replaced: what is read in its place proves
    /// nothing.
    pub of_evidence: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The first thing in the schema that is not as the migrations up to `version` made it, tables
/// of evidence before others. Additional tables and views are the operator's own business, and
/// so are indexes on anything but evidence; a trigger on one of our tables is not.
pub fn difference(connection: &Connection, version: u32) -> Result<Option<Difference>, Refusal> {
    let cannot = Refusal::sqlite("compare the database's schema");
    let mut fresh = Connection::open_in_memory().map_err(&cannot)?;
    migrate::create_at(&mut fresh, version, Timestamp::from_micros(0))?;
    let expected = Schema::of(&fresh).map_err(&cannot)?;
    let found = Schema::of(connection).map_err(&cannot)?;
    Ok(expected.missing_in(&found).or_else(|| expected.foreign_in(&found)))
}

struct Schema {
    objects: Vec<Object>,
    /// The indexes of the tables of evidence.
    indexes: Vec<String>,
}

impl Schema {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Schema { objects: objects(connection)?, indexes: evidence_indexes(connection)? })
    }

    fn missing_in(&self, found: &Schema) -> Option<Difference> {
        let missing = self.objects.iter().filter(|object| !found.objects.contains(object));
        let object = missing.min_by_key(|object| !object.is_evidence())?;
        let what = format!("the {} {} is missing or changed", object.kind, object.name);
        Some(Difference { what, of_evidence: object.is_evidence() })
    }

    fn foreign_in(&self, found: &Schema) -> Option<Difference> {
        let is_table = |known: &Object, name: &str| known.kind == "table" && known.name == name;
        let on_ours = |trigger: &&Object| self.objects.iter().any(|known| is_table(known, &trigger.table));
        let mut triggers = found.objects.iter().filter(|object| object.kind == "trigger").filter(on_ours);
        let trigger = triggers.find(|trigger| !self.objects.contains(trigger));
        let index = || found.indexes.iter().find(|index| !self.indexes.contains(index));
        let what = match trigger {
            Some(trigger) => format!("the trigger {} is not the program's", trigger.name),
            None => format!("the index {} of a table of evidence is not the program's", index()?),
        };
        Some(Difference { what, of_evidence: false })
    }
}

/// A table, an index, a view or a trigger.
#[derive(PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

impl Object {
    fn is_evidence(&self) -> bool {
        self.kind == "table" && EVIDENCE.contains(&self.name.as_str())
    }
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut rows = connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")?;
    let object = |row: &Row<'_>| {
        Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    };
    rows.query_map([], object)?.collect()
}

/// The indexes that SQLite uses on the tables of evidence, whatever `sqlite_schema` says about
/// whose they are.
fn evidence_indexes(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut names = Vec::new();
    for table in EVIDENCE {
        let mut rows = connection.prepare("SELECT name FROM pragma_index_list(?1)")?;
        names.extend(rows.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?);
    }
    Ok(names)
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
