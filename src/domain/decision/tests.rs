//! The contract's decision table, and what rules add to it.

use super::*;
use crate::domain::agent::RiskTier;
use crate::domain::identifier::normalize;
use crate::domain::json::Json;
use crate::domain::policy::document;
use crate::domain::policy::set::Policy;

fn agent(tier: RiskTier) -> Agent {
    Agent { risk_tier: tier, ..Agent::sample() }
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
    judge_by(&PolicySet::default(), call, agent, registered, trust)
}

fn judge_by(
    policies: &PolicySet,
    call: &ToolCall,
    agent: &Agent,
    registered: Option<&ToolAction>,
    trust: &str,
) -> Verdict {
    let facts = Facts {
        agent,
        registered,
        environment: "production",
        effective_trust: trust,
        tool_key: &normalize(&call.tool),
        action_key: &normalize(&call.action),
        policies,
    };
    decide(call, &facts)
}

/// The six levels, and a text that is none of them.
const LEVELS: [&str; 7] = {
    let [signed, unsigned, customer, external, malicious, unknown] = TrustLevel::WORDS;
    [signed, unsigned, customer, external, malicious, unknown, "something else"]
};

#[test]
fn the_table_of_the_contract_holds() {
    use Outcome::{Allow, Deny, RequireApproval};
    let rows = [
        (RiskTier::Low, true, [Allow, Allow, RequireApproval, Deny, Deny, Deny, Deny]),
        (RiskTier::Medium, true, [Allow, Allow, RequireApproval, Deny, Deny, Deny, Deny]),
        (RiskTier::High, true, [RequireApproval, RequireApproval, RequireApproval, Deny, Deny, Deny, Deny]),
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
            // Declared by the caller or registered by the operator: the effect is the same.
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
    for status in [AgentStatus::Frozen, AgentStatus::Revoked, AgentStatus::Quarantined, AgentStatus::Deleted]
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
    let verdict = judge(&call("t", "x", true), &agent(RiskTier::Low), Some(&action), "malicious_suspected");
    assert_eq!((verdict.risk_score, verdict.composite_risk_score), (95, 100));
    let verdict = judge(&call("t", "x", true), &agent(RiskTier::Low), Some(&registered(true)), LEVELS[0]);
    assert_eq!((verdict.risk_score, verdict.composite_risk_score), (10, 25));
}

/// Policies `a`, `b`, … with these rules.
fn set(documents: &[&str]) -> PolicySet {
    let policy = |(number, rules): (usize, &&str)| {
        let text = format!(r#"{{"rules":[{rules}]}}"#);
        let document = document::parse(&text).unwrap_or_else(|error| panic!("{rules}: {error}"));
        Policy::new(["a", "b", "c"][number], 1, document, text.len())
    };
    PolicySet::new(documents.iter().enumerate().map(policy).collect())
}

#[test]
fn the_most_restrictive_rule_decides_and_the_first_of_its_kind_says_why() {
    let policies = set(&[
        r#"{"id":"1","effect":"allow","when":{},"reason":"fine"},
           {"id":"2","effect":"require_approval","when":{"tool":"t"},"approver_group":"finance"},
           {"id":"3","effect":"require_approval","when":{"action":"x"},"approver_group":"ops","reason":"3rd"}"#,
        r#"{"id":"1","effect":"require_approval","when":{"resource":"*"}},
           {"id":"2","effect":"deny","when":{"tool":"u"},"reason":"not u"}"#,
    ]);
    let low = agent(RiskTier::Low);
    let judge = |call: &ToolCall| judge_by(&policies, call, &low, Some(&registered(false)), LEVELS[0]);
    let verdict = judge(&call("t", "x", true));
    assert_eq!(verdict.outcome, Outcome::RequireApproval);
    assert_eq!(verdict.matched_policies, ["a/2", "a/3", "b/1"]);
    assert_eq!(verdict.reason, "rule a/2 applies");
    assert_eq!(verdict.approver_group.as_deref(), Some("finance"));
    let verdict = judge(&call("other", "x", true));
    assert_eq!((verdict.reason.as_str(), verdict.approver_group.as_deref()), ("3rd", Some("ops")));
    let verdict = judge(&call("other", "y", true));
    assert_eq!(verdict.matched_policies, ["b/1"]);
    assert_eq!(verdict.approver_group.as_deref(), Some(SECURITY_REVIEWERS));
    let verdict = judge(&call("u", "x", true));
    assert_eq!((verdict.outcome, verdict.approver_group), (Outcome::Deny, None));
    assert_eq!((verdict.matched_policies, verdict.reason.as_str()), (vec!["b/2".to_owned()], "not u"));
}

#[test]
fn an_allow_names_itself_and_takes_nothing_back() {
    let policies = set(&[r#"{"id":"all","effect":"allow","when":{},"reason":"anything goes"}"#]);
    for (trust, mutating) in LEVELS.iter().flat_map(|trust| [(trust, false), (trust, true)]) {
        for tier in [RiskTier::Low, RiskTier::High] {
            let (call, agent, action) = (call("t", "x", mutating), agent(tier), registered(false));
            let plain = judge(&call, &agent, Some(&action), trust);
            let mut expected = plain.clone();
            if plain.outcome == Outcome::Allow {
                expected.matched_policies.push("a/all".to_owned());
                expected.reason = "anything goes".to_owned();
            }
            assert_eq!(judge_by(&policies, &call, &agent, Some(&action), trust), expected, "{trust}");
        }
    }
}

#[test]
fn redacted_fields_are_united_and_named_once() {
    let policies = set(&[r#"{"id":"1","effect":"redact","when":{},"redact_fields":["iban","token"]},
           {"id":"2","effect":"redact","when":{"tool":"secrets"},"redact_fields":["iban","pin"]}"#]);
    let (low, action) = (agent(RiskTier::Low), registered(false));
    let rotate = call("secrets", "rotate_credential", false);
    let verdict = judge_by(&policies, &rotate, &low, Some(&action), LEVELS[0]);
    assert_eq!(verdict.redacted_fields, ["api_key", "password", "secret", "token", "iban", "pin"]);
    assert_eq!(verdict.matched_policies, ["credential_read_redacted", "a/1", "a/2"]);
    let names = verdict.matched_policies.iter().map(String::as_str);
    assert_eq!(policies.fields_of(names), verdict.redacted_fields);
}

#[test]
fn no_rule_is_asked_for_a_stopped_agent_or_an_unregistered_call() {
    let policies = set(&[r#"{"id":"1","effect":"allow","when":{}},{"id":"2","effect":"deny","when":{}}"#]);
    let (low, call) = (agent(RiskTier::Low), call("t", "x", false));
    assert_eq!(judge_by(&policies, &call, &low, None, LEVELS[0]), judge(&call, &low, None, LEVELS[0]));
    let frozen = Agent { status: AgentStatus::Frozen, ..low };
    let action = registered(false);
    assert_eq!(
        judge_by(&policies, &call, &frozen, Some(&action), LEVELS[0]),
        judge(&call, &frozen, Some(&action), LEVELS[0])
    );
}

/// A reproducible pseudo-random generator (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }

    fn one_of<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn rule(&mut self, id: usize) -> String {
        let effect = self.one_of(&["allow", "allow", "redact", "require_approval", "deny"]);
        let fields = if effect == "redact" { r#","redact_fields":["f"]"# } else { "" };
        let choices: [&[&str]; 8] = [
            &[r#""tool":"t""#, r#""tool":"*""#, r#""tool":"git*""#, r#""tool":["t","secrets"]"#],
            &[r#""action":"x""#, r#""action":"?""#, r#""action":"merge_*""#],
            &[r#""mutates_state":true"#, r#""mutates_state":false"#],
            &[r#""source_trust":"unknown""#, r#""source_trust":["trusted_internal_signed","unknown"]"#],
            &[r#""risk_tier":"low""#, r#""risk_tier":["high","low"]"#],
            &[r#""environment":"prod*""#, r#""environment":"staging""#],
            &[r#""agent":"k""#, r#""agent":"?x*""#],
            &[r#""parameters":{"base_branch":"main"}"#, r#""parameters":{"/base_branch":"dev"}"#],
        ];
        let chosen: Vec<&&[&str]> = choices.iter().filter(|_| self.below(4) == 0).collect();
        let when: Vec<&str> = chosen.into_iter().map(|members| self.one_of(members)).collect();
        let when = when.join(",");
        format!(r#"{{"id":"r{id}","effect":"{effect}","when":{{{when}}}{fields}}}"#)
    }
}

#[test]
fn no_document_loosens_what_is_decided_without_it() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut tightened = 0;
    for _ in 0..400 {
        let rules: Vec<String> = (0..=numbers.below(8)).map(|id| numbers.rule(id)).collect();
        // A rule that could never apply is rejected, which another test covers.
        let Ok(document) = document::parse(&format!(r#"{{"rules":[{}]}}"#, rules.join(","))) else {
            continue;
        };
        let policies = PolicySet::new(vec![Policy::new("a", 1, document, 0)]);
        for trust in LEVELS {
            for (tool, action) in [("t", "x"), ("github", "merge_pull_request"), ("secrets", "y")] {
                for (tier, mutating) in
                    [(RiskTier::Low, true), (RiskTier::High, true), (RiskTier::Low, false)]
                {
                    let (call, agent) = (call(tool, action, mutating), agent(tier));
                    let plain = judge(&call, &agent, Some(&registered(false)), trust);
                    let verdict = judge_by(&policies, &call, &agent, Some(&registered(false)), trust);
                    assert!(verdict.outcome >= plain.outcome, "{rules:?} {call:?} {trust}");
                    let untrusted = mutating && TrustLevel::of(trust) > TrustLevel::Customer;
                    assert!(!untrusted || verdict.outcome == Outcome::Deny, "{rules:?} {trust}");
                    tightened += usize::from(verdict.outcome > plain.outcome);
                }
            }
        }
    }
    assert!(tightened > 1000, "the documents do something: {tightened}");
}
