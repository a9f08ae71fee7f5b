//! Approvals: decisions that wait for a person.
//!
//! An approval is bound to one call by its hash, can be used at most once, and expires. It
//! is `created`, then permanently `APPROVED` or `REJECTED`, or `EXPIRED` if nobody decides in
//! time. Edited and consumed are deliberately not states: a polling client would keep
//! waiting on a word it does not know.

use super::canon::Hash;
use super::time::Timestamp;
use super::words;

/// Default time to live of an approval, in seconds from the decision: it must be granted and
/// used within it.
pub const TTL_SECONDS_DEFAULT: u32 = 1800;
/// Shortest configurable time to live.
pub const TTL_SECONDS_MIN: u32 = 1;
/// Longest configurable time to live: 30 days.
pub const TTL_SECONDS_MAX: u32 = 2_592_000;

/// How long the call of an undecided approval is kept after it expires, in seconds, so that a
/// late approver can still see what was asked.
pub const UNDECIDED_CALL_KEPT_SECONDS: i64 = 86_400;

/// How far the clock may be set back after an approval was requested, in seconds. Beyond
/// that, the approval's age is unknown and it counts as expired.
pub const CLOCK_BACK_SECONDS_MAX: i64 = 300;

words! {
    /// Status of an approval.
    Status {
        /// Nobody has decided yet.
        Created = "created",
        /// May be used once, before it expires.
        Approved = "APPROVED",
        /// May not be used.
        Rejected = "REJECTED",
        /// Nobody decided in time. Never stored: derived from the time.
        Expired = "EXPIRED",
    }
}

words! {
    /// An attempted misuse of an approval.
    TamperKind {
        /// Consuming it with the hash of another call.
        ConsumeHashMismatch = "consume_hash_mismatch",
        /// Consuming it although it is used, expired or not granted, or its agent is not active.
        ConsumeNotConsumable = "consume_not_consumable",
        /// Approving it after it expired.
        ApproveExpired = "approve_expired",
        /// Rejecting it after it expired.
        RejectExpired = "reject_expired",
        /// Editing it after it expired.
        EditExpired = "edit_expired",
    }
}

/// A new approval, bound to one call by its hash.
#[derive(Debug, Clone, PartialEq)]
pub struct NewApproval {
    /// UUID.
    pub id: String,
    /// The decision that requested it.
    pub decision_id: String,
    /// The agent that asked.
    pub agent_id: String,
    /// Hash of the frozen call.
    pub action_hash: Hash,
    /// The frozen call: the canonical bytes that were hashed, to show to the approver.
    pub tool_call: Vec<u8>,
    /// Who should decide.
    pub approver_group: String,
    /// When it was requested, by the clock. The decision's time is the chain's, which stays
    /// ahead after the clock was set back.
    pub created_at: Timestamp,
    /// When it can no longer be approved or used.
    pub expires_at: Timestamp,
}

/// An approval as recorded, without its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// UUID.
    pub id: String,
    /// The decision that requested it.
    pub decision_id: String,
    /// The agent that asked.
    pub agent_id: String,
    /// The stored status, regardless of the time; see [`Approval::status_at`].
    pub recorded: Status,
    /// Hash of the call as the agent requested it.
    pub original_action_hash: Hash,
    /// Hash of the call to be approved and used, edits included.
    pub action_hash: Hash,
    /// Who should decide.
    pub approver_group: String,
    /// Who decided.
    pub approver_user_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When it was requested, by the clock.
    pub created_at: Timestamp,
    /// When it can no longer be approved or used.
    pub expires_at: Timestamp,
    /// When its call was last changed.
    pub edited_at: Option<Timestamp>,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// When it was used.
    pub consumed_at: Option<Timestamp>,
}

/// A requested change of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Grant it.
    Approve,
    /// Reject it.
    Reject,
    /// Replace its call.
    Edit,
    /// Use it.
    Consume {
        /// The hash of the call that is about to run, if the caller states it.
        claim: Option<Hash>,
        /// Whether the agent that asked for it may act.
        agent_is_active: bool,
    },
}

/// Why a change of an approval is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Machine-readable reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: &'static str,
    /// The tamper attempt to record, if it is one.
    pub tamper: Option<TamperKind>,
}

impl Approval {
    /// Its status at a time.
    pub fn status_at(&self, now: Timestamp) -> Status {
        match self.recorded {
            Status::Created if self.has_ended(now) => Status::Expired,
            recorded => recorded,
        }
    }

    /// Whether it is too late to grant or use it.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        now >= self.expires_at || now.plus_seconds(CLOCK_BACK_SECONDS_MAX) < self.created_at
    }

    /// Whether the change is permitted at a time.
    pub fn check(&self, change: Change, now: Timestamp) -> Result<(), Refusal> {
        match change {
            Change::Approve => self.check_undecided(now, TamperKind::ApproveExpired),
            Change::Reject => self.check_undecided(now, TamperKind::RejectExpired),
            Change::Edit => self.check_undecided(now, TamperKind::EditExpired),
            Change::Consume { claim, agent_is_active } => self.check_usable(now, claim, agent_is_active),
        }
    }

    fn check_undecided(&self, now: Timestamp, tamper: TamperKind) -> Result<(), Refusal> {
        match self.status_at(now) {
            Status::Created => Ok(()),
            Status::Approved | Status::Rejected => Err(Refusal {
                reason: "approval_already_decided",
                message: "the approval has already been decided",
                tamper: None,
            }),
            Status::Expired => Err(Refusal {
                reason: "approval_expired",
                message: "the approval has expired",
                tamper: Some(tamper),
            }),
        }
    }

    fn check_usable(
        &self,
        now: Timestamp,
        claim: Option<Hash>,
        agent_is_active: bool,
    ) -> Result<(), Refusal> {
        let refused =
            |kind: TamperKind, message| Err(Refusal { reason: kind.as_str(), message, tamper: Some(kind) });
        let unusable = |message| refused(TamperKind::ConsumeNotConsumable, message);
        match self.status_at(now) {
            Status::Created => return unusable("the approval is still awaiting a decision"),
            Status::Rejected => return unusable("the approval was rejected"),
            Status::Expired => return unusable("the approval has expired"),
            Status::Approved => {}
        }
        if self.consumed_at.is_some() {
            return unusable("the approval has already been used");
        }
        if self.has_ended(now) {
            return unusable("the approval has expired");
        }
        if !agent_is_active {
            return unusable("the agent that asked for the approval is not active");
        }
        if claim.is_some_and(|claim| claim != self.action_hash) {
            let message =
                "claimed_action_hash is not the hash of the approved call; the approval is unchanged";
            return refused(TamperKind::ConsumeHashMismatch, message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp::from_micros(1_000_000_000_000);
    const END: Timestamp = BEGIN.plus_seconds(1000);
    const IN_TIME: Timestamp = BEGIN.plus_seconds(999);

    fn approval(recorded: Status, is_consumed: bool) -> Approval {
        let hash = Hash::of(b"the call");
        Approval {
            id: "i".to_owned(),
            decision_id: "d".to_owned(),
            agent_id: "a".to_owned(),
            recorded,
            original_action_hash: hash,
            action_hash: hash,
            approver_group: "g".to_owned(),
            approver_user_id: None,
            reason: None,
            created_at: BEGIN,
            expires_at: END,
            edited_at: None,
            decided_at: None,
            consumed_at: is_consumed.then_some(IN_TIME),
        }
    }

    #[test]
    fn an_approval_expires_at_its_end_unless_it_was_decided() {
        use Status::{Approved, Created, Expired, Rejected};
        for (recorded, at, shown) in [
            (Created, IN_TIME, Created),
            (Created, END, Expired),
            // The clock was set back: within tolerance, and beyond it.
            (Created, BEGIN.plus_seconds(-CLOCK_BACK_SECONDS_MAX), Created),
            (Created, BEGIN.plus_seconds(-CLOCK_BACK_SECONDS_MAX - 1), Expired),
            (Approved, END, Approved),
            (Rejected, END, Rejected),
        ] {
            assert_eq!(approval(recorded, false).status_at(at), shown, "{recorded} {at}");
        }
    }

    /// Results of approve, reject, edit and consume: `+` done, `d` already decided,
    /// `x` expired, `n` not consumable.
    #[test]
    fn every_change_in_every_state_is_done_or_refused_as_listed() {
        let consume = Change::Consume { claim: None, agent_is_active: true };
        let changes = [Change::Approve, Change::Reject, Change::Edit, consume];
        for (recorded, is_consumed, at, expected) in [
            (Status::Created, false, IN_TIME, "+++n"),
            (Status::Created, false, END, "xxxn"),
            (Status::Created, false, BEGIN.plus_seconds(-1000), "xxxn"),
            (Status::Approved, false, BEGIN.plus_seconds(-1000), "dddn"),
            (Status::Approved, false, IN_TIME, "ddd+"),
            (Status::Approved, false, END, "dddn"),
            (Status::Approved, true, IN_TIME, "dddn"),
            (Status::Approved, true, END, "dddn"),
            (Status::Rejected, false, IN_TIME, "dddn"),
            (Status::Rejected, false, END, "dddn"),
        ] {
            let found: String = changes
                .iter()
                .map(|change| match approval(recorded, is_consumed).check(*change, at) {
                    Ok(()) => '+',
                    Err(refusal) => match (refusal.reason, refusal.tamper) {
                        ("approval_already_decided", None) => 'd',
                        ("approval_expired", Some(_)) => 'x',
                        ("consume_not_consumable", Some(TamperKind::ConsumeNotConsumable)) => 'n',
                        _ => '?',
                    },
                })
                .collect();
            assert_eq!(found, expected, "{recorded} {is_consumed} {at}");
        }
    }

    #[test]
    fn what_is_tried_after_the_end_goes_on_record_by_its_kind() {
        for (change, kind) in [
            (Change::Approve, TamperKind::ApproveExpired),
            (Change::Reject, TamperKind::RejectExpired),
            (Change::Edit, TamperKind::EditExpired),
        ] {
            let refusal = approval(Status::Created, false).check(change, END).expect_err("expired");
            assert_eq!(refusal.tamper, Some(kind));
        }
    }

    #[test]
    fn only_the_hash_of_the_call_uses_it_and_only_for_an_active_agent() {
        use TamperKind::{ConsumeHashMismatch, ConsumeNotConsumable};
        let (right, wrong) = (Some(Hash::of(b"the call")), Some(Hash::of(b"another")));
        for (claim, agent_is_active, tamper) in [
            (None, true, None),
            (right, true, None),
            (wrong, true, Some(ConsumeHashMismatch)),
            (None, false, Some(ConsumeNotConsumable)),
            (right, false, Some(ConsumeNotConsumable)),
            // An approval that could not be used anyway is not a mismatch.
            (wrong, false, Some(ConsumeNotConsumable)),
        ] {
            let change = Change::Consume { claim, agent_is_active };
            let found = approval(Status::Approved, false).check(change, IN_TIME);
            assert_eq!(found.err().and_then(|refusal| refusal.tamper), tamper, "{claim:?} {agent_is_active}");
        }
        let consume = Change::Consume { claim: wrong, agent_is_active: true };
        let waiting = approval(Status::Created, false).check(consume, IN_TIME).expect_err("waiting");
        assert_eq!(waiting.tamper, Some(ConsumeNotConsumable));
    }
}
