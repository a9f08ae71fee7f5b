//! A decision as recorded, and the hash its receipt carries.

use super::canon::{Hash, ObjectWriter};
use super::policy::Outcome;
use super::time::Timestamp;

/// A decision as recorded. It holds no parameters: the hash identifies the call.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// UUID.
    pub id: String,
    /// UUID of the agent.
    pub agent_id: String,
    /// On whose behalf, as stated by the caller.
    pub user_id: Option<String>,
    /// The caller's run.
    pub run_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The run that started the caller's run.
    pub parent_run_id: Option<String>,
    /// Name of the tool, as the caller wrote it.
    pub tool: String,
    /// Name of the action, as the caller wrote it.
    pub action: String,
    /// What it acts on.
    pub resource: Option<String>,
    /// Whether it was judged to be a mutation.
    pub mutates_state: bool,
    /// Where the call would run.
    pub environment: String,
    /// The source's trust, as the caller wrote it.
    pub source_trust: String,
    /// The effective trust.
    pub root_trust_level: String,
    /// What may happen.
    pub outcome: Outcome,
    /// Human-readable reason.
    pub reason: String,
    /// The rules that required the outcome, joined by commas.
    pub matched_policy_ids: String,
    /// The version of the rules that produced it.
    pub policy_version: String,
    /// 0 to 100.
    pub risk_score: i64,
    /// 0 to 100.
    pub composite_risk_score: i64,
    /// The caller's idempotency key: repeating the call with it returns the same answer.
    pub request_id: Option<String>,
    /// SHA-256 of the canonical call.
    pub action_hash: Hash,
    /// Milliseconds from arrival of the request to the decision.
    pub latency_ms: i64,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Decision {
    /// See [`Recorded::hash`].
    pub fn hash(&self) -> Hash {
        let created_at = self.created_at.to_string();
        let action_hash = self.action_hash.to_hex();
        let recorded = Recorded {
            id: &self.id,
            agent_id: &self.agent_id,
            user_id: self.user_id.as_deref(),
            run_id: self.run_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
            parent_run_id: self.parent_run_id.as_deref(),
            tool: &self.tool,
            action: &self.action,
            resource: self.resource.as_deref(),
            mutates_state: self.mutates_state,
            environment: &self.environment,
            source_trust: &self.source_trust,
            root_trust_level: &self.root_trust_level,
            outcome: self.outcome.as_str(),
            reason: &self.reason,
            matched_policy_ids: &self.matched_policy_ids,
            policy_version: &self.policy_version,
            risk_score: self.risk_score,
            composite_risk_score: self.composite_risk_score,
            request_id: self.request_id.as_deref(),
            action_hash: action_hash.as_str(),
            latency_ms: self.latency_ms,
            created_at: &created_at,
        };
        recorded.hash(&mut Vec::with_capacity(1024))
    }
}

/// A decision as stored, borrowed from wherever it is held. The stored text itself is
/// hashed, so no other spelling of a value verifies.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of `Decision`")]
pub struct Recorded<'a> {
    pub id: &'a str,
    pub agent_id: &'a str,
    pub user_id: Option<&'a str>,
    pub run_id: Option<&'a str>,
    pub trace_id: Option<&'a str>,
    pub parent_run_id: Option<&'a str>,
    pub tool: &'a str,
    pub action: &'a str,
    pub resource: Option<&'a str>,
    pub mutates_state: bool,
    pub environment: &'a str,
    pub source_trust: &'a str,
    pub root_trust_level: &'a str,
    pub outcome: &'a str,
    pub reason: &'a str,
    pub matched_policy_ids: &'a str,
    pub policy_version: &'a str,
    pub risk_score: i64,
    pub composite_risk_score: i64,
    pub request_id: Option<&'a str>,
    pub action_hash: &'a str,
    pub latency_ms: i64,
    pub created_at: &'a str,
}

impl Recorded<'_> {
    /// SHA-256 over every field. The receipt carries it, so no column of a recorded decision
    /// can change without its receipt disagreeing.
    pub fn hash(&self, buffer: &mut Vec<u8>) -> Hash {
        buffer.clear();
        let mut object = ObjectWriter::new(buffer);
        object.string("action", self.action);
        object.string("action_hash", self.action_hash);
        object.string("agent_id", self.agent_id);
        object.integer("composite_risk_score", self.composite_risk_score);
        object.string("created_at", self.created_at);
        object.string("decision", self.outcome);
        object.string("environment", self.environment);
        object.string("id", self.id);
        object.integer("latency_ms", self.latency_ms);
        object.string("matched_policy_ids", self.matched_policy_ids);
        object.boolean("mutates_state", self.mutates_state);
        object.optional("parent_run_id", self.parent_run_id);
        object.string("policy_version", self.policy_version);
        object.string("reason", self.reason);
        object.optional("request_id", self.request_id);
        object.optional("resource", self.resource);
        object.integer("risk_score", self.risk_score);
        object.string("root_trust_level", self.root_trust_level);
        object.optional("run_id", self.run_id);
        object.string("source_trust", self.source_trust);
        object.string("tool", self.tool);
        object.optional("trace_id", self.trace_id);
        object.optional("user_id", self.user_id);
        object.end();
        Hash::of(buffer)
    }
}
