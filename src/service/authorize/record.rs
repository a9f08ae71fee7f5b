//! What one authorization writes: the decision, its receipt, the approval it requires, and
//! their events.

use serde_json::json;

use crate::domain::agent::Agent;
use crate::domain::approval::{NewApproval, Status};
use crate::domain::audit::{Event, EventType};
use crate::domain::decision::Verdict;
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::store::receipts::{self, Appended, Entry};
use crate::store::{Tx, approvals, audit, decisions};

use super::answer::Asked;
use super::{Error, Prepared, Standing};

impl Prepared {
    /// The decision as recorded.
    pub(super) fn record_of(
        &self,
        agent: &Agent,
        standing: Standing,
        verdict: &Verdict,
        policy_version: &str,
        at: Timestamp,
    ) -> Decision {
        let request = &self.request;
        let call = &request.call;
        Decision {
            id: self.ids.decision.clone(),
            agent_id: agent.id.clone(),
            user_id: request.user_id.clone(),
            run_id: request.run_id.clone(),
            trace_id: request.trace_id.clone(),
            parent_run_id: request.parent_run_id.clone(),
            tool: call.tool.clone(),
            action: call.action.clone(),
            resource: call.resource.clone(),
            mutates_state: verdict.mutating,
            environment: self.environment(agent).to_owned(),
            source_trust: request.source_trust.clone(),
            root_trust_level: self.effective_trust().to_owned(),
            outcome: verdict.outcome,
            reason: verdict.reason.clone(),
            matched_policy_ids: verdict.matched_policies.join(","),
            policy_version: policy_version.to_owned(),
            risk_score: verdict.risk_score,
            composite_risk_score: verdict.composite_risk_score,
            // The id stays free for reuse if the agent may not act.
            request_id: request.request_id.clone().filter(|_| standing == Standing::Admitted),
            action_hash: self.action_hash,
            latency_ms: i64::try_from(self.received.elapsed().as_millis()).unwrap_or(i64::MAX),
            created_at: at,
        }
    }

    /// Appends the decision's receipt, and records the decision at its position.
    pub(super) fn record(&self, tx: &mut Tx<'_>, decision: &Decision) -> Result<Appended, Error> {
        let (action_hash, decision_hash) = (decision.action_hash.to_hex(), decision.hash().to_hex());
        let entry = Entry {
            nonce: &self.ids.receipt,
            agent_id: Some(&decision.agent_id),
            user_id: decision.user_id.as_deref(),
            run_id: decision.run_id.as_deref(),
            trace_id: decision.trace_id.as_deref(),
            tool: &decision.tool,
            action: &decision.action,
            resource: decision.resource.as_deref(),
            source_trust: &decision.source_trust,
            decision: decision.outcome.as_str(),
            approver: None,
            action_hash: Some(action_hash.as_str()),
            decision_id: Some(&decision.id),
            decision_hash: Some(decision_hash.as_str()),
            policy_version: Some(&decision.policy_version),
        };
        let receipt = receipts::append(tx, &entry, decision.created_at)?;
        decisions::insert(tx, receipt.seq, decision)?;
        Ok(receipt)
    }

    /// Freezes the call and creates an approval for it, if the verdict requires one.
    pub(super) fn ask_for_approval(
        &self,
        tx: &Tx<'_>,
        verdict: &Verdict,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<Option<Asked>, Error> {
        let Some(approver_group) = verdict.approver_group.clone() else { return Ok(None) };
        let approval = NewApproval {
            id: self.ids.approval.clone(),
            decision_id: decision.id.clone(),
            agent_id: decision.agent_id.clone(),
            action_hash: self.action_hash,
            tool_call: self.canonical_call.clone(),
            approver_group,
            created_at: now,
            expires_at: now.plus_seconds(self.approval_ttl_seconds.into()),
        };
        approvals::insert(tx, &approval)?;
        audit::insert(tx, &approval_event(&approval, decision)?)?;
        Ok(Some(Asked {
            id: approval.id,
            status: Status::Created,
            action_hash: approval.action_hash,
            approver_group: approval.approver_group,
            expires_at: approval.expires_at,
        }))
    }
}

/// The event that a stopped agent made a request, which its decision denies.
pub(super) fn attempt_event(agent: &Agent, decision: &Decision) -> Result<Event, Error> {
    let id = entropy::uuid(decision.created_at).map_err(Error::Entropy)?;
    let details = json!({ "agent_status": agent.status, "decision": decision.outcome.as_str() });
    Ok(Event::of(decision, id, EventType::ToolCallIntercepted, &details))
}

/// Identifies the call by its hash, never by its parameters.
fn approval_event(approval: &NewApproval, decision: &Decision) -> Result<Event, Error> {
    let id = entropy::uuid(decision.created_at).map_err(Error::Entropy)?;
    let details = json!({
        "id": approval.id,
        "action_hash": approval.action_hash.to_string(),
        "approver_group": approval.approver_group,
        "expires_at": approval.expires_at,
    });
    let event = Event::of(decision, id, EventType::ApprovalCreated, &details);
    Ok(Event { approval_id: Some(approval.id.clone()), ..event })
}
