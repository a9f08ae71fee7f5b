//! The number of decisions of each kind, updated in the transaction that records a decision.
//!
//! # Performance
//! A separate statement, not a trigger: a statement whose trigger changes a second table
//! needs its own journal, which made the whole insertion take half as long again.

use rusqlite::Connection;

use crate::domain::record::Decision;
use crate::domain::trust::TrustLevel;

use super::commit::Tx;
use super::error::Error;

/// The bucket for trust words that are not a level: callers may invent any number of them.
const UNRECOGNIZED: &str = "unrecognized";

/// Counts a decision recorded in this transaction.
pub(super) fn add(tx: &Tx<'_>, decision: &Decision) -> Result<(), Error> {
    let trust = decision.root_trust_level.as_str();
    let level = if TrustLevel::of(trust) == TrustLevel::Unrecognized { UNRECOGNIZED } else { trust };
    tx.connection()
        .prepare_cached(
            "INSERT INTO decision_counts (outcome, trust_level, count) VALUES (?1, ?2, 1) \
             ON CONFLICT (outcome, trust_level) DO UPDATE SET count = count + 1",
        )
        .and_then(|mut add| add.execute((decision.outcome.as_str(), level)))
        .map_err(Error::cannot("count a decision"))
        .and_then(Error::unless_one("count a decision"))
}

/// The decisions of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionCount {
    /// The outcome.
    pub outcome: String,
    /// The effective trust; `unrecognized` for every word that is not a level.
    pub trust_level: String,
    /// The number of decisions.
    pub count: i64,
}

/// Every kind: a few dozen rows, however many decisions there are.
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
