//! Statistics on what is recorded. None of them scans the history.

use crate::store::decision_counts::{self, DecisionCount};
use crate::store::receipts::Head;
use crate::store::{agents, sizes};

use super::{Error, Gateway};

/// Statistics from one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Decisions by outcome and effective trust.
    pub decisions: Vec<DecisionCount>,
    /// Agents that are not deleted.
    pub agents: i64,
    /// The length of the chain.
    pub receipts: i64,
}

/// Reads the statistics.
pub fn stats(gateway: &Gateway) -> Result<Stats, Error> {
    gateway.store.read(|connection| {
        Ok(Stats {
            decisions: decision_counts::list(connection)?,
            agents: agents::count(connection)?,
            receipts: Head::load(connection)?.seq,
        })
    })
}

/// Size of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// Size in bytes.
    pub bytes: i64,
    /// Each table and its number of rows.
    pub tables: Vec<(&'static str, i64)>,
}

/// Reads the size of the database.
pub fn sizes(gateway: &Gateway) -> Result<Sizes, Error> {
    gateway
        .store
        .read(|connection| Ok(Sizes { bytes: sizes::bytes(connection)?, tables: sizes::rows(connection)? }))
}
