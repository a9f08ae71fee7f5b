//! Trying a draft of a policy on given calls or on recorded decisions. Writes nothing.
//!
//! Everything that the calls rest on is read first, on one view that ends before any of them
//! is decided. Deciding ten thousand calls can take an hour, and for as long as a view
//! stands the write-ahead log cannot begin anew. Each call is a step of long work: it rests
//! beside traffic, and is the last one when the gateway stops.

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

/// Most decisions that one trial looks at.
pub const DECISIONS_MAX: u32 = 10_000;
/// Most calls of one trial.
pub const CALLS_MAX: usize = 1_000;

/// The draft: in the place of its key's active version, or beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The key that it is meant for.
    pub policy_key: String,
    /// The document.
    pub body: String,
}

/// What the draft is tried on.
#[derive(Debug, Clone, PartialEq)]
pub enum Sample {
    /// Calls as `/v1/authorize` takes them, each with its agent.
    Calls(Vec<Request>),
    /// The newest recorded decisions.
    Decisions {
        /// At most so many.
        limit: u32,
        /// Not before this time.
        from: Option<Timestamp>,
        /// Not after this time.
        to: Option<Timestamp>,
    },
}

/// One call of the sample, tried.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialResult {
    /// Which call.
    pub subject: Subject,
    /// What would change.
    pub comparison: Comparison,
}

/// Which call of the sample it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Its place in the request.
    Index(usize),
    /// The decision that recorded it, and what was decided then.
    Decision(String, Outcome),
}

/// The whole trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What names the policies in force.
    pub policy_version: String,
    /// One for each call, in the sample's order.
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

/// Reads everything on one view, and ends it.
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
