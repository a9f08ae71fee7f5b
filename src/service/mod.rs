//! Use cases: one function, one transaction.
//!
//! A service takes typed values and the [`Gateway`]; it knows no HTTP, and SQL only
//! through the functions of `store` that it calls inside a transaction.

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

/// Everything that a use case may need.
#[derive(Debug)]
pub struct Gateway {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The backup folder.
    pub backups: Backups,
    /// SHA-256 of the configured operator's token.
    pub operator: Hash,
    /// When operators' tokens were last used.
    pub uses: operators::Uses,
    /// One long verification at a time.
    pub verifying: Mutex<()>,
    /// One long trial of a policy at a time.
    pub trying: Mutex<()>,
    /// What readiness watches.
    pub health: health::Health,
    /// What was answered.
    pub requests: Arc<metrics::Requests>,
    /// How often is too often.
    pub limits: limits::Limits,
    /// How long an approval can be given and used, in seconds.
    pub approval_ttl_seconds: u32,
    /// The thread that tidies up.
    pub housekeeping: housekeeping::Housekeeping,
}

impl Gateway {
    /// Puts the parts together.
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

    /// The same with limits; without, there are none.
    pub fn with_limits(self, limits: limits::Limits) -> Self {
        Gateway { limits, ..self }
    }

    /// The same with another time to live for new approvals.
    pub fn with_approval_ttl(self, seconds: u32) -> Self {
        Gateway { approval_ttl_seconds: seconds, ..self }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Which part of a list is asked for, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Only what is older than this: a position, or the id of an entry.
    pub before: Option<String>,
    /// Only what is newer than this.
    pub after: Option<String>,
}

impl Keys {
    /// The positions, where `find` knows an entry's.
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
            position.map(Some).ok_or_else(|| Error::BadRequest(format!("{key:?} is no entry of this list")))
        };
        Ok((resolve(&self.before)?, resolve(&self.after)?))
    }
}

/// Which part of a list is asked for, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// At most so many, 1 to [`Page::LIMIT_MAX`].
    pub limit: u32,
    /// After leaving out so many.
    pub offset: u32,
}

impl Page {
    /// Entries where no limit is given.
    pub const LIMIT_DEFAULT: u32 = 50;
    /// Most entries of one answer.
    pub const LIMIT_MAX: u32 = 200;
}
