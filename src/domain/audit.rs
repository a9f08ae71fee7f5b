//! Audit events: what happened beside the decisions, which are their own record.
//!
//! An event names things by their ids and hashes. It never holds a parameter of a call,
//! and never a secret.

use serde_json::{Value, json};

use super::operator::Operator;
use super::record::Decision;
use super::time::Timestamp;
use super::words;

words! {
    /// What happened.
    EventType {
        /// An agent was registered.
        AgentRegistered = "agent_registered",
        /// What describes an agent was changed, or its signing key.
        AgentUpdated = "agent_updated",
        /// An agent got another token.
        AgentTokenRotated = "agent_token_rotated",
        /// An agent was stopped for now.
        AgentFrozen = "agent_frozen",
        /// A frozen agent may act again.
        AgentUnfrozen = "agent_unfrozen",
        /// An agent was stopped for good.
        AgentRevoked = "agent_revoked",
        /// A quarantined agent may act again.
        AgentRestored = "agent_restored",
        /// The chain goes on from a restored or an earlier head.
        Restore = "restore",
        /// An operator did something else.
        AdminAction = "admin_action",
        /// A call was decided.
        ToolCallIntercepted = "tool_call_intercepted",
        /// A call waits for a person.
        ApprovalCreated = "approval_created",
        /// A person decided.
        ApprovalDecided = "approval_decided",
        /// A person changed the call.
        ApprovalEdited = "approval_edited",
        /// An approval that was given was used.
        ApprovalConsumed = "approval_consumed",
        /// An approval was used as it must not be.
        TamperAttempt = "tamper_attempt",
        /// An agent became riskier.
        AgentRiskEscalated = "agent_risk_escalated",
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// UUID.
    pub id: String,
    /// What happened.
    pub event_type: EventType,
    /// The agent it is about.
    pub agent_id: Option<String>,
    /// On whose behalf, or who decided.
    pub user_id: Option<String>,
    /// The caller's run.
    pub run_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The caller's span.
    pub span_id: Option<String>,
    /// The tool.
    pub skill: Option<String>,
    /// The tool's action, or the operator's.
    pub action: Option<String>,
    /// What was acted upon.
    pub resource: Option<String>,
    /// Everything else: a JSON object as text.
    pub event_json: String,
    /// Hash of what went in.
    pub input_hash: Option<String>,
    /// Hash of what came out.
    pub output_hash: Option<String>,
    /// The decision it belongs to.
    pub decision_id: Option<String>,
    /// The approval it belongs to.
    pub approval_id: Option<String>,
    /// When it happened.
    pub created_at: Timestamp,
}

impl Event {
    /// An event that says no more than this.
    pub fn new(id: String, event_type: EventType, details: &Value, created_at: Timestamp) -> Self {
        Event {
            id,
            event_type,
            agent_id: None,
            user_id: None,
            run_id: None,
            trace_id: None,
            span_id: None,
            skill: None,
            action: None,
            resource: None,
            event_json: details.to_string(),
            input_hash: None,
            output_hash: None,
            decision_id: None,
            approval_id: None,
            created_at,
        }
    }

    /// An event of a decision, at its time. Its call is named by the hash, never by its
    /// parameters.
    pub fn of(decision: &Decision, id: String, event_type: EventType, details: &Value) -> Self {
        Event {
            agent_id: Some(decision.agent_id.clone()),
            user_id: decision.user_id.clone(),
            run_id: decision.run_id.clone(),
            trace_id: decision.trace_id.clone(),
            skill: Some(decision.tool.clone()),
            action: Some(decision.action.clone()),
            resource: decision.resource.clone(),
            input_hash: Some(decision.action_hash.to_string()),
            decision_id: Some(decision.id.clone()),
            ..Event::new(id, event_type, details, decision.created_at)
        }
    }
}

/// How an event names the token that did it.
pub fn by(operator: &Operator) -> Value {
    json!({ "name": operator.name, "id": operator.id })
}
