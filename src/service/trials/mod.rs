//! Trying a draft policy on given calls or on recorded decisions. Writes nothing.
//!
//! Everything the decisions depend on is read first, in one snapshot that is closed before
//! the first call is decided: deciding ten thousand calls can take an hour, and the
//! write-ahead log cannot be reset while a snapshot is open. Each call is one step of
//! background work: the trial yields to traffic between calls, and ends after the current
//! one when the gateway stops.

mod cases;

use std::sync::TryLockError;

use crate::domain::policy::set::Policy;
use crate::domain::policy::trial::{Comparison, PolicyPair};
use crate::domain::policy::{Outcome, PolicySet};
use crate::domain::time::Timestamp;
use crate::store::Store;

use super::authorize::Request;
use super::policies::{check_key, check_limits, read};
use super::{Error, Gateway};

use cases::{Case, Loader};

/// Maximum number of recorded decisions in one trial.
pub const DECISIONS_MAX: u32 = 10_000;
/// Maximum number of given calls in one trial.
pub const CALLS_MAX: usize = 1_000;

/// The draft, which replaces its key's active version or is added to the active policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The key it is meant for.
    pub policy_key: String,
    /// The document.
    pub body: String,
}

/// What the draft is tried on.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// Calls as sent to `/v1/authorize`, each with its agent.
    Calls(Vec<Request>),
    /// The newest recorded decisions.
    Decisions {
        /// Maximum number of decisions.
        limit: u32,
        /// Earliest time, inclusive.
        from: Option<Timestamp>,
        /// Latest time, inclusive.
        to: Option<Timestamp>,
    },
}

/// The result for one call of the sample.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialResult {
    /// Which call.
    pub subject: Subject,
    /// What would change.
    pub comparison: Comparison,
}

/// Identifies a call of the sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Its index in the request.
    Index(usize),
    /// The decision that recorded it, and the outcome at that time.
    Decision(String, Outcome),
}

/// The result of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The tag of the policies in force.
    pub policy_version: String,
    /// One result per call, in the sample's order.
    pub results: Vec<TrialResult>,
}

/// Tries `draft` on `sample`.
pub fn run(gateway: &Gateway, draft: &Draft, sample: Sample) -> Result<Report, Error> {
    check_key(&draft.policy_key)?;
    let document = read(&draft.body)?;
    let _running = match gateway.trying.try_lock() {
        Ok(running) => running,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(Error::Busy("another trial is running".to_owned())),
    };
    let policy = Policy::new(&draft.policy_key, 0, document, draft.body.len());
    let (pair, cases) = prepare(&gateway.store, policy, sample)?;
    let mut turn = gateway.store.background().turn();
    let results = cases.into_iter().map(|case| {
        if turn.is_over() {
            return Err(Error::Stopping);
        }
        Ok(TrialResult { comparison: case.compare(&pair), subject: case.subject })
    });
    Ok(Report { results: results.collect::<Result<_, _>>()?, policy_version: pair.now().tag().to_owned() })
}

/// Reads everything in one snapshot, and closes it.
fn prepare(store: &Store, draft: Policy, sample: Sample) -> Result<(PolicyPair, Vec<Case>), Error> {
    store.read_aside(|view| {
        let now = store.policies(view)?;
        let key = draft.member.policy_key.clone();
        let then = now.with(&key, Some(draft));
        check_limits(&then)?;
        let cases = Loader::new(view).read(sample)?;
        Ok((PolicyPair::new(PolicySet::clone(&now), then), cases))
    })
}
