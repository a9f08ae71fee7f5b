//! Numbers about what is recorded. None of them counts the history.

use crate::store::decision_counts::{self, DecisionCount};
use crate::store::receipts::Head;
use crate::store::{agents, sizes};

use super::{Error, Gateway};

/// What there is, on one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Decisions by outcome and effective trust.
    pub decisions: Vec<DecisionCount>,
    /// Agents that are not deleted.
    pub agents: i64,
    /// The length of the chain.
    pub receipts: i64,
}

/// What there is.
pub fn stats(gateway: &Gateway) -> Result<Stats, Error> {
    gateway.store.read(|connection| {
        Ok(Stats {
            decisions: decision_counts::list(connection)?,
            agents: agents::count(connection)?,
            receipts: Head::load(connection)?.seq,
        })
    })
}

/// How large the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// Of the database, in bytes.
    pub bytes: i64,
    /// Each table and its number of rows.
    pub tables: Vec<(&'static str, i64)>,
}

/// How large the database is.
pub fn sizes(gateway: &Gateway) -> Result<Sizes, Error> {
    gateway
        .store
        .read(|connection| Ok(Sizes { bytes: sizes::bytes(connection)?, tables: sizes::rows(connection)? }))
}
