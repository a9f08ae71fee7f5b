//! Deciding.
//!
//! [`decide`] is the whole of the judgement: a pure function of the call, the agent,
//! what the operator registered, and the policies in force. The result is the most
//! restrictive outcome of every rule that applies; nothing that a caller sends can loosen
//! what the operator registered, and no policy what the built-in pack asks for.

use super::action::ToolCall;
use super::agent::{Agent, AgentStatus};
use super::policy::rules::{NamedRule, united};
use super::policy::{Outcome, PolicyInput, PolicySet, SECURITY_REVIEWERS};
use super::tool::{DefaultDecision, Risk, ToolAction};
use super::trust::TrustLevel;

/// The operator's rules that a verdict names.
pub const NAMED_MAX: usize = 50;

/// What is known when a call is decided.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks.
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

/// The judgement on one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What may happen.
    pub outcome: Outcome,
    /// Declared by the caller, or registered by the operator.
    pub mutating: bool,
    /// Why, for people.
    pub reason: String,
    /// The rules that asked for this outcome. Of an operator's, the first [`NAMED_MAX`] and
    /// how many more; for `redact` each, since a repeated answer leaves out what they name.
    pub matched_policies: Vec<String>,
    /// Who should approve, for `require_approval`.
    pub approver_group: Option<String>,
    /// What to leave out, for `redact`.
    pub redacted_fields: Vec<String>,
    /// Risk of the registered action, 0 to 100.
    pub risk_score: i64,
    /// The same as a word.
    pub risk_level: Risk,
    /// Risk, mutation and trust together, 0 to 100; advisory.
    pub composite_risk_score: i64,
}

/// Judges `call`.
pub fn decide(call: &ToolCall, facts: &Facts<'_>) -> Verdict {
    let input = facts.policy_input(call);
    let mutating = input.mutating;
    let mut found = Evaluation::default();
    let risk = if facts.agent.status != AgentStatus::Active {
        let status = facts.agent.status;
        found.add(&format!("agent_{status}"), Outcome::Deny, &format!("the agent is {status}"));
        Risk::Critical
    } else if let Some(action) = facts.registered {
        found.apply_environment(facts);
        found.apply_pack(facts.policies.pack().applying(&input));
        found.apply_registration(action);
        if facts.agent.force_approval {
            found.require_approval("agent_force_approval", "every call of this agent needs an approval");
        }
        found.own = facts.policies.rules().applying(&input);
        action.risk
    } else {
        found.apply_environment(facts);
        found.add("mcp_unknown_tool", Outcome::Deny, "the tool and action are not registered");
        Risk::Low
    };
    let risk_score = if facts.agent.status == AgentStatus::Active { risk.score() } else { 100 };
    let composite = risk_score + if mutating { 15 } else { 0 } + input.trust.risk_penalty();
    Verdict { mutating, ..found.into_verdict(risk_score, risk, composite.clamp(0, 100)) }
}

/// What the rules said so far.
#[derive(Default)]
struct Evaluation<'a> {
    all: Vec<(String, Outcome, String)>,
    approver_group: Option<&'a str>,
    redacting: Vec<&'a NamedRule>,
    /// The operator's rules that apply, in the order of their policies and documents.
    own: Vec<&'a NamedRule>,
}

impl<'a> Evaluation<'a> {
    fn add(&mut self, id: &str, outcome: Outcome, reason: &str) {
        self.all.push((id.to_owned(), outcome, reason.to_owned()));
    }

    fn require_approval(&mut self, id: &str, reason: &str) {
        self.add(id, Outcome::RequireApproval, reason);
        self.approver_group.get_or_insert(SECURITY_REVIEWERS);
    }

    fn apply_environment(&mut self, facts: &Facts<'_>) {
        if !facts.agent.may_act_in(facts.environment) {
            self.add("environment_not_allowed", Outcome::Deny, "the agent may not act in this environment");
        }
    }

    fn apply_pack(&mut self, applying: Vec<&'a NamedRule>) {
        for named in applying {
            self.add(&named.name, named.rule.effect, &named.reason());
            self.approver_group = named.rule.approver_group.as_deref().or(self.approver_group);
            self.redacting.push(named);
        }
    }

    fn apply_registration(&mut self, action: &ToolAction) {
        match action.default_decision {
            DefaultDecision::Policy | DefaultDecision::Allow => {}
            DefaultDecision::Deny => {
                self.add("tool_default_deny", Outcome::Deny, "the action is registered as denied");
            }
            DefaultDecision::RequireApproval => {
                self.require_approval("tool_default_approval", "the action is registered to need an approval")
            }
        }
        if action.approval_required {
            self.require_approval("tool_approval_required", "the action is registered to need an approval");
        }
        if action.risk == Risk::Critical {
            self.require_approval("tool_critical_risk", "an action of critical risk needs an approval");
        }
    }

    /// The most restrictive outcome, with the rules that asked for it. Among those, the
    /// operator's first rule gives the reason and the group: it knows the case best.
    fn into_verdict(self, risk_score: i64, risk_level: Risk, composite_risk_score: i64) -> Verdict {
        let own = self.own.iter().map(|named| named.rule.effect);
        // No rule at all is no permission; one of the operator's alone is none either.
        let least = self.all.iter().map(|(_, outcome, _)| *outcome).max().unwrap_or(Outcome::Deny);
        let outcome = own.fold(least, Outcome::max);
        let deciding = || self.all.iter().filter(|(_, of, _)| *of == outcome);
        let own = || self.own.iter().filter(|named| named.rule.effect == outcome);
        let builtin = || deciding().next_back().map_or("no rule applies", |(_, _, reason)| reason).to_owned();
        let group = own().find_map(|named| named.rule.approver_group.as_deref()).or(self.approver_group);
        let group = (outcome == Outcome::RequireApproval).then(|| group.unwrap_or(SECURITY_REVIEWERS));
        let redacting = self.redacting.iter().chain(&self.own).map(|named| &*named.rule);
        Verdict {
            outcome,
            mutating: false,
            reason: own().next().map_or_else(builtin, |named| named.reason()),
            matched_policies: deciding().map(|(id, _, _)| id.clone()).chain(names(own(), outcome)).collect(),
            approver_group: group.map(str::to_owned),
            redacted_fields: if outcome == Outcome::Redact { united(redacting) } else { Vec::new() },
            risk_score,
            risk_level,
            composite_risk_score,
        }
    }
}

fn names<'a>(rules: impl Iterator<Item = &'a &'a NamedRule>, outcome: Outcome) -> Vec<String> {
    let mut names: Vec<String> = rules.map(|named| named.name.clone()).collect();
    if outcome != Outcome::Redact && names.len() > NAMED_MAX {
        let more = names.len() - NAMED_MAX;
        names.truncate(NAMED_MAX);
        names.push(format!("+{more}"));
    }
    names
}

#[cfg(test)]
mod tests;
