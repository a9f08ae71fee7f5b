//! Deciding.
//!
//! [`decide`] makes the whole decision: a pure function of the call, the agent, what the
//! operator registered, and the policies in force. The result is the most restrictive
//! outcome among the rules that apply. Nothing a caller sends can loosen what the operator
//! registered, and no policy can loosen what the built-in pack requires.

use std::borrow::Cow;

use super::action::ToolCall;
use super::agent::{Agent, AgentStatus};
use super::policy::rules::{NamedRule, united};
use super::policy::{Outcome, PolicyInput, PolicySet, SECURITY_REVIEWERS};
use super::tool::{DefaultDecision, Risk, ToolAction};
use super::trust::TrustLevel;

/// Maximum number of the operator's rules that a verdict names.
pub const NAMED_MAX: usize = 50;

/// What a decision is based on, besides the call.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The agent that asks.
    pub agent: &'a Agent,
    /// What the operator registered for this tool and action.
    pub registered: Option<&'a ToolAction>,
    /// Where the call would run.
    pub environment: &'a str,
    /// The less trusted of the source and the root of the request.
    pub effective_trust: &'a str,
    /// Normalised name of the tool.
    pub tool_key: &'a str,
    /// Normalised name of the action.
    pub action_key: &'a str,
    /// The policies in force.
    pub policies: &'a PolicySet,
}

impl<'a> Facts<'a> {
    /// What the rules may look at.
    pub fn policy_input(&self, call: &'a ToolCall) -> PolicyInput<'a> {
        PolicyInput {
            call,
            tool_key: self.tool_key,
            action_key: self.action_key,
            agent_key: &self.agent.agent_key,
            mutating: call.mutates_state || self.registered.is_some_and(|action| action.mutates_state),
            trust: TrustLevel::of(self.effective_trust),
            tier: self.agent.risk_tier,
            environment: self.environment,
        }
    }
}

/// The decision on one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What may happen.
    pub outcome: Outcome,
    /// Declared by the caller, or registered by the operator.
    pub mutating: bool,
    /// Human-readable reason.
    pub reason: String,
    /// The rules that required this outcome. Of the operator's rules, the first [`NAMED_MAX`]
    /// and the number of the rest; for `redact` all of them, since the answer to a repeated
    /// request takes the fields from them.
    pub matched_policies: Vec<String>,
    /// Who should approve, for `require_approval`.
    pub approver_group: Option<String>,
    /// The fields to leave out, for `redact`.
    pub redacted_fields: Vec<String>,
    /// Risk of the registered action, 0 to 100.
    pub risk_score: i64,
    /// That risk as a word.
    pub risk_level: Risk,
    /// Risk, mutation and trust combined, 0 to 100; advisory.
    pub composite_risk_score: i64,
}

/// Decides `call`.
pub fn decide(call: &ToolCall, facts: &Facts<'_>) -> Verdict {
    let input = facts.policy_input(call);
    let found = Evaluation::of(facts, &input);
    let outcome = found.outcome();
    let (risk_level, risk_score) = risk(facts);
    let mutation = if input.mutating { 15 } else { 0 };
    Verdict {
        outcome,
        mutating: input.mutating,
        reason: found.reason(outcome),
        matched_policies: found.names(outcome),
        approver_group: found.approver_group(outcome),
        redacted_fields: found.redacted_fields(outcome),
        risk_score,
        risk_level,
        composite_risk_score: (risk_score + mutation + input.trust.risk_penalty()).clamp(0, 100),
    }
}

/// The action's risk, whatever the outcome; a stopped agent scores above critical.
fn risk(facts: &Facts<'_>) -> (Risk, i64) {
    if facts.agent.status != AgentStatus::Active {
        return (Risk::Critical, 100);
    }
    let level = facts.registered.map_or(Risk::Low, |action| action.risk);
    (level, level.score())
}

/// An outcome required by the program itself, the pack or the registration.
struct Finding<'a> {
    id: Cow<'a, str>,
    outcome: Outcome,
    reason: Cow<'a, str>,
}

/// Everything that affects the outcome.
#[derive(Default)]
struct Evaluation<'a> {
    findings: Vec<Finding<'a>>,
    /// Who approves, if none of the operator's rules names a group.
    approver_group: Option<&'a str>,
    /// The pack's rules that apply.
    pack: Vec<&'a NamedRule>,
    /// The operator's rules that apply, in the order of their policies and documents.
    own: Vec<&'a NamedRule>,
}

impl<'a> Evaluation<'a> {
    /// Evaluates no rules for a stopped agent or an unregistered call.
    fn of(facts: &Facts<'a>, input: &PolicyInput<'_>) -> Self {
        let mut found = Evaluation::default();
        let status = facts.agent.status;
        if status != AgentStatus::Active {
            found.add(format!("agent_{status}"), Outcome::Deny, format!("the agent is {status}"));
            return found;
        }
        found.apply_environment(facts);
        let Some(action) = facts.registered else {
            found.add("mcp_unknown_tool", Outcome::Deny, "the tool and action are not registered");
            return found;
        };
        found.apply_pack(facts.policies.pack().applying(input));
        found.apply_registration(action);
        if facts.agent.force_approval {
            found.require_approval("agent_force_approval", "every call by this agent requires approval");
        }
        found.own = facts.policies.rules().applying(input);
        found
    }

    fn add(&mut self, id: impl Into<Cow<'a, str>>, outcome: Outcome, reason: impl Into<Cow<'a, str>>) {
        self.findings.push(Finding { id: id.into(), outcome, reason: reason.into() });
    }

    fn require_approval(&mut self, id: &'static str, reason: &'static str) {
        self.add(id, Outcome::RequireApproval, reason);
        self.approver_group.get_or_insert(SECURITY_REVIEWERS);
    }

    fn apply_environment(&mut self, facts: &Facts<'_>) {
        if !facts.agent.may_act_in(facts.environment) {
            self.add("environment_not_allowed", Outcome::Deny, "the agent may not act in this environment");
        }
    }

    fn apply_pack(&mut self, applying: Vec<&'a NamedRule>) {
        for named in &applying {
            self.add(&named.name, named.rule.effect, named.reason());
            self.approver_group = named.rule.approver_group.as_deref().or(self.approver_group);
        }
        self.pack = applying;
    }

    fn apply_registration(&mut self, action: &ToolAction) {
        match action.default_decision {
            DefaultDecision::Policy | DefaultDecision::Allow => {}
            DefaultDecision::Deny => {
                self.add("tool_default_deny", Outcome::Deny, "the action is registered as denied");
            }
            DefaultDecision::RequireApproval => {
                self.require_approval("tool_default_approval", "the action is registered to require approval")
            }
        }
        if action.approval_required {
            self.require_approval("tool_approval_required", "the action is registered to require approval");
        }
        if action.risk == Risk::Critical {
            self.require_approval("tool_critical_risk", "an action of critical risk requires approval");
        }
    }

    /// The most restrictive outcome. Without any finding it is a denial; an operator's `allow`
    /// alone does not change that.
    fn outcome(&self) -> Outcome {
        let least = self.findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Deny);
        self.own.iter().map(|named| named.rule.effect).fold(least, Outcome::max)
    }

    /// The findings that required `outcome`, without the operator's rules.
    fn findings_of(&self, outcome: Outcome) -> impl DoubleEndedIterator<Item = &Finding<'a>> {
        self.findings.iter().filter(move |finding| finding.outcome == outcome)
    }

    /// The operator's rules that required `outcome`. The first one provides the reason and
    /// the group, since it is the most specific.
    fn own_of(&self, outcome: Outcome) -> impl Iterator<Item = &'a NamedRule> {
        self.own.iter().copied().filter(move |named| named.rule.effect == outcome)
    }

    fn reason(&self, outcome: Outcome) -> String {
        if let Some(named) = self.own_of(outcome).next() {
            return named.reason();
        }
        let last = self.findings_of(outcome).next_back();
        last.map_or_else(|| "no rule applies".to_owned(), |finding| finding.reason.clone().into_owned())
    }

    /// The names of everything that required `outcome`; the operator's rules are truncated
    /// except for `redact`.
    fn names(&self, outcome: Outcome) -> Vec<String> {
        let own = self.own_of(outcome).map(|named| named.name.as_str());
        let own = if outcome == Outcome::Redact { own.map(str::to_owned).collect() } else { shortened(own) };
        self.findings_of(outcome).map(|finding| finding.id.clone().into_owned()).chain(own).collect()
    }

    fn approver_group(&self, outcome: Outcome) -> Option<String> {
        let own = || self.own_of(outcome).find_map(|named| named.rule.approver_group.as_deref());
        let group = || own().or(self.approver_group).unwrap_or(SECURITY_REVIEWERS);
        (outcome == Outcome::RequireApproval).then(|| group().to_owned())
    }

    fn redacted_fields(&self, outcome: Outcome) -> Vec<String> {
        match outcome {
            Outcome::Redact => united(self.pack.iter().chain(&self.own).map(|named| &*named.rule)),
            Outcome::Allow | Outcome::RequireApproval | Outcome::Deny => Vec::new(),
        }
    }
}

/// The first [`NAMED_MAX`] names, and the number of the rest as `+N`.
pub(super) fn shortened<'a>(mut names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut first: Vec<String> = names.by_ref().take(NAMED_MAX).map(str::to_owned).collect();
    match names.count() {
        0 => {}
        more => first.push(format!("+{more}")),
    }
    first
}

#[cfg(test)]
mod tests;
