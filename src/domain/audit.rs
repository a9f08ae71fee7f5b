//! Audit events: everything that happens besides decisions, which are their own record.
//!
//! An event refers to things by id and hash. It never holds a call's parameters or a secret.

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
        /// An agent's settings or its signing key were changed.
        AgentUpdated = "agent_updated",
        /// An agent got a new token.
        AgentTokenRotated = "agent_token_rotated",
        /// An agent was stopped temporarily.
        AgentFrozen = "agent_frozen",
        /// A frozen agent may act again.
        AgentUnfrozen = "agent_unfrozen",
        /// An agent was stopped permanently.
        AgentRevoked = "agent_revoked",
        /// A quarantined or frozen agent may act again.
        AgentRestored = "agent_restored",
        /// The chain continues from a restored or earlier head.
        Restore = "restore",
        /// An operator did something else.
        AdminAction = "admin_action",
        /// A call by a stopped agent was denied.
        ToolCallIntercepted = "tool_call_intercepted",
        /// A call is awaiting approval.
        ApprovalCreated = "approval_created",
        /// A person approved or rejected a call.
        ApprovalDecided = "approval_decided",
        /// A person changed a call awaiting approval.
        ApprovalEdited = "approval_edited",
        /// A granted approval was used.
        ApprovalConsumed = "approval_consumed",
        /// Someone attempted to misuse an approval.
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
    /// What was acted on.
    pub resource: Option<String>,
    /// Everything else: a JSON object as text.
    pub event_json: String,
    /// Hash of the input.
    pub input_hash: Option<String>,
    /// Hash of the output.
    pub output_hash: Option<String>,
    /// The decision it belongs to.
    pub decision_id: Option<String>,
    /// The approval it belongs to.
    pub approval_id: Option<String>,
    /// When it happened.
    pub created_at: Timestamp,
}

impl Event {
    /// An event with no other fields set.
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

    /// An event about a decision, at the decision's time. It identifies the call by its hash,
    /// never by its parameters.
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

/// How an event names the token behind it.
pub fn by(operator: &Operator) -> Value {
    json!({ "name": operator.name, "id": operator.id })
}
