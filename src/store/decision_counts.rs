//! How many decisions there are of each kind. Counted by whoever records a decision, in the
//! same transaction.
//!
//! # Performance
//! A statement of its own and no trigger: one that a trigger makes change two tables keeps
//! a journal of its own, which took half as long again as the whole insertion.

use rusqlite::Connection;

use crate::domain::record::Decision;
use crate::domain::trust::TrustLevel;

use super::commit::Tx;
use super::error::Error;

/// How decisions are counted whose trust is no level's word: the callers' own words are
/// without number.
const UNRECOGNIZED: &str = "unrecognized";

/// Counts a decision that is recorded in this transaction.
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
