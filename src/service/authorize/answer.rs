//! The answer to an authorization: a new one, or that of an earlier request.

use crate::domain::approval::{Approval, Status};
use crate::domain::canon::Hash;
use crate::domain::decision::Verdict;
use crate::domain::policy::Outcome;
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::domain::tool::Risk;
use crate::store::receipts::Appended;
use crate::store::{Tx, approvals, policies};

use super::Error;

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// The decision, recorded unless it was a dry run.
    pub decision: Decision,
    /// Risk of the action, as a word.
    pub risk_level: Risk,
    /// The fields to leave out, for `redact`.
    pub redacted_fields: Vec<String>,
    /// The approval to wait for, for `require_approval`.
    pub approval: Option<Asked>,
    /// The receipt; none for a dry run or a repeated request.
    pub receipt: Option<Appended>,
    /// Whether this was a dry run, which records nothing.
    pub dry_run: bool,
}

/// An approval as shown in the answer that required it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// UUID.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Hash of the call to be approved, edits included.
    pub action_hash: Hash,
    /// Who should decide.
    pub approver_group: String,
    /// When it can no longer be approved or used.
    pub expires_at: Timestamp,
}

impl Asked {
    fn of(approval: Approval, now: Timestamp) -> Self {
        Asked {
            status: approval.status_at(now),
            id: approval.id,
            action_hash: approval.action_hash,
            approver_group: approval.approver_group,
            expires_at: approval.expires_at,
        }
    }
}

impl Authorization {
    /// A dry run's answer. A recorded one adds its approval and receipt.
    pub(super) fn of(decision: Decision, verdict: Verdict) -> Self {
        Authorization {
            decision,
            risk_level: verdict.risk_level,
            redacted_fields: verdict.redacted_fields,
            approval: None,
            receipt: None,
            dry_run: true,
        }
    }

    /// The earlier answer, with the current status of its approval. Writes nothing.
    pub(super) fn again(tx: &Tx<'_>, prior: Decision, now: Timestamp) -> Result<Self, Error> {
        let approval = approvals::find_by_decision(tx.connection(), &prior.id)?;
        let redacted_fields = match prior.outcome {
            // From the rules that decided then, whatever is in force now.
            Outcome::Redact => {
                policies::find_set(tx, &prior.policy_version)?.fields_of(prior.matched_policy_ids.split(','))
            }
            Outcome::Allow | Outcome::RequireApproval | Outcome::Deny => Vec::new(),
        };
        Ok(Authorization {
            risk_level: Risk::of_score(prior.risk_score),
            redacted_fields,
            decision: prior,
            approval: approval.map(|approval| Asked::of(approval, now)),
            receipt: None,
            dry_run: false,
        })
    }
}
