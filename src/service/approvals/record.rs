//! Receipts and events of approvals. Neither holds parameters: the hash identifies the call.

use serde_json::{Value, json};

use crate::domain::action::ToolCall;
use crate::domain::approval::TamperKind;
use crate::domain::audit::{Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::store::receipts::{Appended, Entry};
use crate::store::{Tx, audit, decisions, receipts};

use super::super::Error;
use super::{Approver, Case, Who, disagrees};

/// The source trust in a tamper attempt's receipt.
const TAMPER_TRUST: &str = "malicious_suspected";

/// What was done to an approval.
pub(super) struct Done<'a> {
    pub(super) event_type: EventType,
    /// The receipt's word for it.
    pub(super) word: &'static str,
    /// The call, after the change.
    pub(super) call: &'a ToolCall,
    /// Its hash.
    pub(super) action_hash: Hash,
    /// Who did it, if a person decided.
    pub(super) approver: Option<&'a Approver>,
}

/// Appends the receipt and the event of what was done.
pub(super) fn append(tx: &mut Tx<'_>, case: &Case, done: &Done<'_>) -> Result<(), Error> {
    let decision = decision_of(tx, case)?;
    let (nonce, action_hash) = (nonce()?, done.action_hash.to_hex());
    let entry = Entry {
        nonce: &nonce,
        agent_id: Some(&case.approval.agent_id),
        user_id: decision.user_id.as_deref(),
        run_id: decision.run_id.as_deref(),
        trace_id: decision.trace_id.as_deref(),
        tool: &done.call.tool,
        action: &done.call.action,
        resource: done.call.resource.as_deref(),
        source_trust: &decision.source_trust,
        decision: done.word,
        approver: done.approver.map(|approver| approver.user_id.as_str()),
        action_hash: Some(action_hash.as_str()),
        decision_id: None,
        decision_hash: None,
        policy_version: None,
    };
    let receipt = receipts::append(tx, &entry, case.at)?;
    Ok(audit::insert(tx, &event_of(case, done, decision, &receipt)?)?)
}

/// The decision that required the approval, checked against its agent and call.
fn decision_of(tx: &Tx<'_>, case: &Case) -> Result<Decision, Error> {
    let approval = &case.approval;
    let decision = decisions::find(tx.connection(), &approval.decision_id)?;
    let decision = decision.filter(|decision| {
        decision.agent_id == approval.agent_id && decision.action_hash == approval.original_action_hash
    });
    decision.ok_or_else(|| disagrees(approval, "does not match its decision"))
}

fn event_of(case: &Case, done: &Done<'_>, decision: Decision, receipt: &Appended) -> Result<Event, Error> {
    let approval = &case.approval;
    let details = json!({
        "id": approval.id,
        "decision": done.word,
        "original_action_hash": approval.original_action_hash.to_string(),
        "action_hash": done.action_hash.to_string(),
        "reason": done.approver.and_then(|approver| approver.reason.as_deref()),
        "receipt_id": receipt.event_id,
    });
    let user_id = match done.approver {
        Some(approver) => Some(approver.user_id.clone()),
        None => decision.user_id,
    };
    let event = case.event(done.event_type, &done.call.action, details)?;
    Ok(Event {
        agent_id: Some(approval.agent_id.clone()),
        user_id,
        run_id: decision.run_id,
        trace_id: decision.trace_id,
        skill: Some(done.call.tool.clone()),
        resource: done.call.resource.clone(),
        input_hash: Some(approval.action_hash.to_string()),
        output_hash: (done.event_type == EventType::ApprovalEdited).then(|| done.action_hash.to_string()),
        ..event
    })
}

/// Appends the receipt and the event of a tamper attempt.
pub(super) fn append_tamper(
    tx: &mut Tx<'_>,
    case: &Case,
    kind: TamperKind,
    claim: Option<Hash>,
) -> Result<(), Error> {
    const WORD: &str = "tamper_attempt";
    let approval = &case.approval;
    let (nonce, original) = (nonce()?, approval.original_action_hash.to_hex());
    let resource = format!("approval:{}", approval.id);
    let entry = Entry {
        nonce: &nonce,
        agent_id: None,
        user_id: None,
        run_id: None,
        trace_id: None,
        tool: kind.as_str(),
        action: WORD,
        resource: Some(&resource),
        source_trust: TAMPER_TRUST,
        decision: WORD,
        approver: None,
        action_hash: Some(original.as_str()),
        decision_id: None,
        decision_hash: None,
        policy_version: None,
    };
    let receipt = receipts::append(tx, &entry, case.at)?;
    let details = json!({
        "id": approval.id,
        "status": approval.status_at(case.now),
        "action_hash": approval.action_hash.to_string(),
        "claimed_action_hash": claim.map(|claim| claim.to_string()),
        "receipt_id": receipt.event_id,
    });
    let event = case.event(EventType::TamperAttempt, kind.as_str(), details)?;
    let agent_id = case.agent_id.clone();
    Ok(audit::insert(tx, &Event { agent_id, resource: Some(resource), ..event })?)
}

impl Case {
    /// An event of this approval. Adds to `details` who did it.
    fn event(&self, event_type: EventType, action: &str, mut details: Value) -> Result<Event, Error> {
        let event = match &self.who {
            Who::Operator(actor) => actor.event(event_type, Some(action), details, self.at)?,
            Who::Agent(_) => {
                details["by"] = json!({ "agent_id": self.agent_id });
                let event = Event::new(uuid(self.at)?, event_type, &details, self.at);
                Event { action: Some(action.to_owned()), ..event }
            }
        };
        Ok(Event {
            decision_id: Some(self.approval.decision_id.clone()),
            approval_id: Some(self.approval.id.clone()),
            ..event
        })
    }
}

fn nonce() -> Result<String, Error> {
    entropy::hex::<8>().map_err(Error::Entropy)
}

fn uuid(at: Timestamp) -> Result<String, Error> {
    entropy::uuid(at).map_err(Error::Entropy)
}
