//! How many decisions there are of each kind. Written by a trigger, in the transaction that
//! records the decision; never by hand.

use rusqlite::Connection;

use super::error::Error;

/// The decisions of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionCount {
    /// The outcome's word.
    pub outcome: String,
    /// The effective trust; `unrecognized` for every word that is no level.
    pub trust_level: String,
    /// How many.
    pub count: i64,
}

/// Every kind that there is: a few dozen rows, however many decisions.
pub fn list(connection: &Connection) -> Result<Vec<DecisionCount>, Error> {
    connection
        .prepare_cached(
            "SELECT outcome, trust_level, count FROM decision_counts ORDER BY outcome, trust_level",
        )
        .and_then(|mut rows| {
            let count = |row: &rusqlite::Row<'_>| {
                Ok(DecisionCount { outcome: row.get(0)?, trust_level: row.get(1)?, count: row.get(2)? })
            };
            rows.query_map([], count)?.collect()
        })
        .map_err(Error::cannot("read the decisions' counts"))
}
