//! Use cases: one function, one transaction.
//!
//! A service takes typed values and the [`Gateway`]. It knows nothing of HTTP, and uses SQL
//! only through functions of `store` called inside a transaction.

pub mod admission;
pub mod agents;
pub mod approvals;
pub mod audit;
pub mod authorize;
pub mod backups;
pub mod decisions;
pub mod error;
pub mod health;
pub mod housekeeping;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod operators;
pub mod policies;
pub mod receipts;
pub mod stats;
pub mod tools;
pub mod trials;

use std::sync::{Arc, Mutex};

use crate::backup::Backups;
use crate::clock::Clock;
use crate::domain::approval;
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::store::Store;

pub use error::Error;

/// Everything a use case may need.
#[derive(Debug)]
pub struct Gateway {
    /// The database.
    pub store: Store,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The backup folder.
    pub backups: Backups,
    /// SHA-256 of the configured operator's token.
    pub operator: Hash,
    /// When the use of each operator token was last recorded.
    pub uses: operators::Uses,
    /// Held during a verification of the stored chain: only one runs at a time.
    pub verifying: Mutex<()>,
    /// Held during a policy trial: only one runs at a time.
    pub trying: Mutex<()>,
    /// State of the readiness check.
    pub health: health::Health,
    /// Counts of answered requests.
    pub requests: Arc<metrics::Requests>,
    /// Rate limits.
    pub limits: limits::Limits,
    /// Time to live of new approvals, in seconds.
    pub approval_ttl_seconds: u32,
    /// The housekeeping thread.
    pub housekeeping: housekeeping::Housekeeping,
}

impl Gateway {
    /// A gateway with no rate limits and the default approval TTL.
    pub fn new(store: Store, clock: Arc<dyn Clock>, backups: Backups, operator: Hash) -> Self {
        Gateway {
            store,
            clock,
            backups,
            operator,
            uses: operators::Uses::default(),
            verifying: Mutex::default(),
            trying: Mutex::default(),
            health: health::Health::default(),
            requests: Arc::default(),
            limits: limits::Limits::default(),
            approval_ttl_seconds: approval::TTL_SECONDS_DEFAULT,
            housekeeping: housekeeping::Housekeeping::default(),
        }
    }

    /// Sets the rate limits.
    pub fn with_limits(self, limits: limits::Limits) -> Self {
        Gateway { limits, ..self }
    }

    /// Sets the time to live of new approvals.
    pub fn with_approval_ttl(self, seconds: u32) -> Self {
        Gateway { approval_ttl_seconds: seconds, ..self }
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The requested part of a list, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Only entries older than this one: a position, or an entry's id.
    pub before: Option<String>,
    /// Only entries newer than this one.
    pub after: Option<String>,
}

impl Keys {
    /// The positions; `find` looks up an entry's position by its id.
    fn resolve(
        &self,
        find: impl Fn(&str) -> Result<Option<i64>, Error>,
    ) -> Result<(Option<i64>, Option<i64>), Error> {
        let resolve = |key: &Option<String>| {
            let Some(key) = key else { return Ok(None) };
            let position = match key.parse() {
                Ok(position) => Some(position),
                Err(_) => find(key)?,
            };
            position
                .map(Some)
                .ok_or_else(|| Error::BadRequest(format!("{key:?} is not an entry of this list")))
        };
        Ok((resolve(&self.before)?, resolve(&self.after)?))
    }
}

/// The requested part of a list, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Maximum number of entries to return, 1 to [`Page::LIMIT_MAX`].
    pub limit: u32,
    /// Number of entries to skip.
    pub offset: u32,
}

impl Page {
    /// Limit if none is given.
    pub const LIMIT_DEFAULT: u32 = 50;
    /// Highest limit.
    pub const LIMIT_MAX: u32 = 200;
}
