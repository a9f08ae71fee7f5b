//! Deciding.
//!
//! [`decide`] is the whole of the judgement: a pure function of the call, the agent
//! and what the operator registered. The result is the most restrictive outcome of
//! every rule that applies; nothing that a caller sends can loosen what the
//! operator registered.

use super::action::ToolCall;
use super::agent::{Agent, AgentStatus};
use super::policy::{BUILTIN, Outcome, Question, SECURITY_REVIEWERS};
use super::tool::{DefaultDecision, Risk, ToolAction};
use super::trust::TrustLevel;

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
    /// Every rule that asked for this outcome.
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
    let trust = TrustLevel::of(facts.effective_trust);
    let mutating = call.mutates_state || facts.registered.is_some_and(|action| action.mutates_state);
    let mut found = Findings::default();
    let risk = if facts.agent.status != AgentStatus::Active {
        let status = facts.agent.status;
        found.add(&format!("agent_{status}"), Outcome::Deny, &format!("the agent is {status}"));
        Risk::Critical
    } else if let Some(action) = facts.registered {
        found.apply_environment(facts);
        found.apply_pack(&Question {
            call,
            tool_key: facts.tool_key,
            action_key: facts.action_key,
            mutating,
            trust,
            tier: facts.agent.risk_tier,
        });
        found.apply_registration(action);
        if facts.agent.force_approval {
            found.require_approval("agent_force_approval", "every call of this agent needs an approval");
        }
        action.risk
    } else {
        found.apply_environment(facts);
        found.add("mcp_unknown_tool", Outcome::Deny, "the tool and action are not registered");
        Risk::Low
    };
    let risk_score = if facts.agent.status == AgentStatus::Active { risk.score() } else { 100 };
    let composite = risk_score + if mutating { 15 } else { 0 } + trust.risk_penalty();
    Verdict { mutating, ..found.into_verdict(risk_score, risk, composite.clamp(0, 100)) }
}

/// What the rules said so far.
#[derive(Default)]
struct Findings {
    all: Vec<(String, Outcome, String)>,
    approver_group: Option<&'static str>,
    redacted_fields: Vec<String>,
}

impl Findings {
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

    fn apply_pack(&mut self, question: &Question<'_>) {
        for rule in BUILTIN.iter().filter(|rule| (rule.applies)(question)) {
            self.add(rule.id, rule.outcome, rule.reason);
            self.approver_group = rule.approver_group.or(self.approver_group);
            self.redacted_fields.extend(rule.redacted_fields.iter().map(|&field| field.to_owned()));
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

    /// The most restrictive outcome, with the rules that asked for it.
    fn into_verdict(self, risk_score: i64, risk_level: Risk, composite_risk_score: i64) -> Verdict {
        // No rule at all is no permission.
        let outcome = self.all.iter().map(|(_, outcome, _)| *outcome).max().unwrap_or(Outcome::Deny);
        let deciding = || self.all.iter().filter(|(_, of, _)| *of == outcome);
        let reason = deciding().next_back().map_or("no rule applies", |(_, _, reason)| reason);
        let needs_approval = outcome == Outcome::RequireApproval;
        let group = self.approver_group.filter(|_| needs_approval);
        Verdict {
            outcome,
            mutating: false,
            reason: reason.to_owned(),
            matched_policies: deciding().map(|(id, _, _)| id.clone()).collect(),
            approver_group: group.map(str::to_owned),
            redacted_fields: if outcome == Outcome::Redact { self.redacted_fields } else { Vec::new() },
            risk_score,
            risk_level,
            composite_risk_score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::{Profile, RiskTier};
    use crate::domain::identifier::normalize;
    use crate::domain::json::Json;

    fn agent(tier: RiskTier) -> Agent {
        Agent {
            id: "a".into(),
            agent_key: "k".into(),
            name: "n".into(),
            environment: "production".into(),
            risk_tier: tier,
            status: AgentStatus::Active,
            profile: Profile::default(),
            frozen_reason: None,
            quarantined_at: None,
            force_approval: false,
            allowed_environments: Vec::new(),
            signing_key: None,
            created_at: String::new(),
            updated_at: String::new(),
        }
    }

    fn call(tool: &str, action: &str, mutates_state: bool) -> ToolCall {
        let parameters = Json::Object(vec![("base_branch".into(), Json::String("main".into()))]);
        ToolCall { tool: tool.into(), action: action.into(), resource: None, mutates_state, parameters }
    }

    fn registered(mutates_state: bool) -> ToolAction {
        ToolAction {
            action_key: "x".into(),
            description: None,
            risk: Risk::Low,
            mutates_state,
            approval_required: false,
            default_decision: DefaultDecision::Policy,
            data_access: None,
        }
    }

    fn judge(call: &ToolCall, agent: &Agent, registered: Option<&ToolAction>, trust: &str) -> Verdict {
        let facts = Facts {
            agent,
            registered,
            environment: "production",
            effective_trust: trust,
            tool_key: &normalize(&call.tool),
            action_key: &normalize(&call.action),
        };
        decide(call, &facts)
    }

    const LEVELS: [&str; 7] = [
        "trusted_internal_signed",
        "trusted_internal_unsigned",
        "semi_trusted_customer",
        "untrusted_external",
        "malicious_suspected",
        "unknown",
        "something else",
    ];

    #[test]
    fn the_table_of_the_contract_holds() {
        use Outcome::{Allow, Deny, RequireApproval};
        let rows = [
            (RiskTier::Low, true, [Allow, Allow, RequireApproval, Deny, Deny, Deny, Deny]),
            (RiskTier::Medium, true, [Allow, Allow, RequireApproval, Deny, Deny, Deny, Deny]),
            (
                RiskTier::High,
                true,
                [RequireApproval, RequireApproval, RequireApproval, Deny, Deny, Deny, Deny],
            ),
            (
                RiskTier::Critical,
                true,
                [RequireApproval, RequireApproval, RequireApproval, Deny, Deny, Deny, Deny],
            ),
            (RiskTier::Low, false, [Allow; 7]),
            (RiskTier::High, false, [Allow; 7]),
        ];
        for (tier, mutating, outcomes) in rows {
            for (trust, outcome) in LEVELS.iter().zip(outcomes) {
                // The caller's word and the operator's count the same.
                for (declared, known) in [(mutating, false), (false, mutating), (mutating, mutating)] {
                    let action = registered(known);
                    let verdict = judge(&call("t", "x", declared), &agent(tier), Some(&action), trust);
                    assert_eq!(verdict.outcome, outcome, "{tier} {mutating} {trust}");
                }
            }
        }
    }

    #[test]
    fn an_unregistered_tool_is_denied_even_for_reads() {
        let verdict = judge(&call("t", "x", false), &agent(RiskTier::Low), None, LEVELS[0]);
        assert_eq!(verdict.outcome, Outcome::Deny);
        assert_eq!(verdict.matched_policies, ["mcp_unknown_tool"]);
    }

    #[test]
    fn an_agent_that_is_not_active_is_denied_by_its_status() {
        for status in
            [AgentStatus::Frozen, AgentStatus::Revoked, AgentStatus::Quarantined, AgentStatus::Deleted]
        {
            let agent = Agent { status, ..agent(RiskTier::Low) };
            let verdict = judge(&call("t", "x", false), &agent, Some(&registered(false)), LEVELS[0]);
            assert_eq!(verdict.outcome, Outcome::Deny);
            assert_eq!(verdict.matched_policies, [format!("agent_{status}")]);
            assert_eq!((verdict.risk_score, verdict.risk_level), (100, Risk::Critical));
        }
    }

    #[test]
    fn registration_tightens_and_nothing_loosens_it() {
        let low = agent(RiskTier::Low);
        type Flag = fn(&mut ToolAction);
        let flags: [(Flag, Outcome); 5] = [
            (|action| action.default_decision = DefaultDecision::Deny, Outcome::Deny),
            (|action| action.default_decision = DefaultDecision::RequireApproval, Outcome::RequireApproval),
            (|action| action.approval_required = true, Outcome::RequireApproval),
            (|action| action.risk = Risk::Critical, Outcome::RequireApproval),
            (|action| action.default_decision = DefaultDecision::Allow, Outcome::Allow),
        ];
        for (set, least) in flags {
            let mut action = registered(false);
            set(&mut action);
            for trust in LEVELS {
                for declared in [false, true] {
                    let verdict = judge(&call("t", "x", declared), &low, Some(&action), trust);
                    let plain = judge(&call("t", "x", declared), &low, Some(&registered(false)), trust);
                    assert_eq!(verdict.outcome, least.max(plain.outcome), "{trust} {declared}");
                    let approval = verdict.outcome == Outcome::RequireApproval;
                    assert_eq!(verdict.approver_group.is_some(), approval);
                }
            }
        }
    }

    #[test]
    fn named_rules_ask_for_their_own_group_and_fields() {
        let low = agent(RiskTier::Low);
        let merge = call("GitHub", "merge_pull_request", true);
        let verdict = judge(&merge, &low, Some(&registered(true)), LEVELS[0]);
        assert_eq!(verdict.approver_group.as_deref(), Some("platform-leads"));
        let verdict = judge(&merge, &low, Some(&registered(true)), "untrusted_external");
        assert_eq!(verdict.outcome, Outcome::Deny);

        let rotate = call("secrets", "rotate_credential", false);
        let verdict = judge(&rotate, &low, Some(&registered(false)), "unknown");
        assert_eq!(verdict.outcome, Outcome::Redact);
        assert_eq!(verdict.redacted_fields, ["api_key", "password", "secret", "token"]);
    }

    #[test]
    fn an_environment_outside_the_list_is_denied() {
        let low = Agent { allowed_environments: vec!["staging".into()], ..agent(RiskTier::Low) };
        let verdict = judge(&call("t", "x", false), &low, Some(&registered(false)), LEVELS[0]);
        assert_eq!(verdict.matched_policies, ["environment_not_allowed"]);
    }

    #[test]
    fn the_composite_score_is_clamped() {
        let mut action = registered(true);
        action.risk = Risk::Critical;
        let verdict =
            judge(&call("t", "x", true), &agent(RiskTier::Low), Some(&action), "malicious_suspected");
        assert_eq!((verdict.risk_score, verdict.composite_risk_score), (95, 100));
        let verdict = judge(&call("t", "x", true), &agent(RiskTier::Low), Some(&registered(true)), LEVELS[0]);
        assert_eq!((verdict.risk_score, verdict.composite_risk_score), (10, 25));
    }
}
