//! Approvals: a decision that waits for a person.

use super::canon::Hash;
use super::time::Timestamp;

/// How long an approval can be given and used, in seconds, counted from the decision.
pub const TTL_SECONDS: i64 = 1800;

/// The status of an approval that nobody has decided yet.
pub const STATUS_CREATED: &str = "created";

/// A new approval, bound to one call by its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct NewApproval {
    /// UUID.
    pub id: String,
    /// The decision that asked for it.
    pub decision_id: String,
    /// The agent that asked.
    pub agent_id: String,
    /// Hash of the frozen call.
    pub action_hash: Hash,
    /// The frozen call: the canonical bytes that were hashed, for the approver's eyes.
    pub tool_call: Vec<u8>,
    /// Who should decide.
    pub approver_group: String,
    /// When the decision was made.
    pub created_at: Timestamp,
    /// When it can no longer be approved or used.
    pub expires_at: Timestamp,
}
