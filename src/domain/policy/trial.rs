//! What a draft would change: one call, decided by two sets of policies.
//!
//! A recorded decision does not keep its parameters. If rules that look at parameters could
//! make a difference, the result is [`Comparison::CannotTell`]: an outcome is never guessed.

use std::collections::BTreeSet;

use super::Outcome;
use super::rules::NamedRule;
use super::set::PolicySet;
use crate::domain::action::ToolCall;
use crate::domain::decision::{Facts, Verdict, decide, shortened};

/// What is in force and what would be, to be compared call by call.
#[derive(Debug)]
pub struct PolicyPair {
    now: Bounds,
    then: Bounds,
}

/// A set, and the same set assuming that no condition on parameters holds, or that every one
/// does.
#[derive(Debug)]
struct Bounds {
    set: PolicySet,
    none: PolicySet,
    every: PolicySet,
}

/// What a set may decide about a call whose parameters are unknown.
struct Range<'a> {
    /// The verdict if no condition on parameters holds.
    least: Verdict,
    /// The rules whose conditions on parameters may or may not hold.
    undecided: Vec<&'a NamedRule>,
    /// Of these, the ones whose group would replace the one in `least`.
    approvers: Vec<&'a NamedRule>,
    /// Whether the verdict is the same whichever of them hold.
    is_certain: bool,
}

impl Bounds {
    fn new(set: PolicySet) -> Self {
        Bounds { none: set.assuming(false), every: set.assuming(true), set }
    }

    /// Outcome and fields grow monotonically with the rules that hold, so they are certain if
    /// none and all of them give the same result. The group does not: the first rule that
    /// holds names it, and that may be any undecided rule ahead of the first certain one.
    fn range(&self, call: &ToolCall, facts: &Facts<'_>) -> Range<'_> {
        let input = facts.policy_input(call);
        let least = decide_by(&self.none, call, facts);
        let undecided = self.set.undecided(&input);
        if undecided.is_empty() {
            return Range { least, undecided, approvers: Vec::new(), is_certain: true };
        }
        let approvers = self.set.approvers(&input).into_iter();
        let approvers: Vec<_> =
            approvers.take_while(|named| !named.rule.when.parameters.is_empty()).collect();
        let names_least = |named: &&NamedRule| named.rule.approver_group == least.approver_group;
        let is_certain = is_same(&least, &decide_by(&self.every, call, facts))
            && (least.approver_group.is_none() || approvers.iter().all(names_least));
        Range { least, undecided, approvers, is_certain }
    }
}

/// What the draft would do to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// The decision is the same.
    Same,
    /// The decision differs.
    Changed {
        /// The outcome under the policies in force.
        now: Outcome,
        /// The verdict with the draft.
        then: Box<Verdict>,
    },
    /// It depends on parameters that are unknown.
    CannotTell {
        /// The rules that look at them, truncated as in a decision.
        rules: Vec<String>,
    },
}

impl PolicyPair {
    /// What is in force, and what would be.
    pub fn new(now: PolicySet, then: PolicySet) -> Self {
        PolicyPair { now: Bounds::new(now), then: Bounds::new(then) }
    }

    /// What is in force.
    pub fn now(&self) -> &PolicySet {
        &self.now.set
    }

    /// Compares the verdicts on a complete call. The policies in `facts` are ignored.
    pub fn compare(&self, call: &ToolCall, facts: &Facts<'_>) -> Comparison {
        compared(&decide_by(&self.now.set, call, facts), decide_by(&self.then.set, call, facts))
    }

    /// Compares the verdicts on a call whose parameters are unknown.
    pub fn compare_without_parameters(&self, call: &ToolCall, facts: &Facts<'_>) -> Comparison {
        let (now, then) = (self.now.range(call, facts), self.then.range(call, facts));
        // If both sets have the same rules on parameters, each of these holds in both sets or
        // in neither, and adds the same to verdicts that are equal without them.
        let differ_alike = now.undecided == then.undecided
            && now.approvers == then.approvers
            && is_same(&now.least, &then.least);
        if differ_alike || (now.is_certain && then.is_certain) {
            return compared(&now.least, then.least);
        }
        Comparison::CannotTell { rules: names(&now.undecided, &then.undecided) }
    }
}

/// Truncated as in a decision, since a trial may have ten thousand results.
fn names(now: &[&NamedRule], then: &[&NamedRule]) -> Vec<String> {
    let names: BTreeSet<&str> = now.iter().chain(then).map(|named| named.name.as_str()).collect();
    shortened(names.into_iter())
}

fn decide_by(policies: &PolicySet, call: &ToolCall, facts: &Facts<'_>) -> Verdict {
    decide(call, &Facts { policies, ..*facts })
}

fn compared(now: &Verdict, then: Verdict) -> Comparison {
    if is_same(now, &then) {
        return Comparison::Same;
    }
    Comparison::Changed { now: now.outcome, then: Box::new(then) }
}

/// Compares what a caller acts on. Which rules required it, their reasons, and the order of
/// the fields do not count.
fn is_same(one: &Verdict, other: &Verdict) -> bool {
    one.outcome == other.outcome && one.approver_group == other.approver_group && fields(one) == fields(other)
}

fn fields(verdict: &Verdict) -> BTreeSet<&str> {
    verdict.redacted_fields.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::Agent;
    use crate::domain::json::{Json, parse};
    use crate::domain::policy::document;
    use crate::domain::policy::set::Policy;
    use crate::domain::tool::{DefaultDecision, Risk, ToolAction};

    fn read() -> ToolAction {
        ToolAction {
            action_key: "a".into(),
            description: None,
            risk: Risk::Low,
            mutates_state: false,
            approval_required: false,
            default_decision: DefaultDecision::Policy,
            data_access: None,
        }
    }

    /// A policy `p` beside another one; no `p` if `rules` is empty.
    fn set(rules: &str) -> PolicySet {
        const OTHER: &str = r#"{"id":"o","effect":"deny","when":{"parameters":{"danger":true}}}"#;
        let policy = |key: &str, rules: &str| {
            let document = document::parse(&format!(r#"{{"rules":[{rules}]}}"#)).expect(rules);
            Policy::new(key, 1, document, 0)
        };
        let own = (!rules.is_empty()).then(|| policy("p", rules));
        PolicySet::new(std::iter::once(policy("other", OTHER)).chain(own).collect())
    }

    fn call(parameters: Json) -> ToolCall {
        ToolCall { tool: "t".into(), action: "a".into(), resource: None, mutates_state: false, parameters }
    }

    fn with_facts<T>(run: impl FnOnce(&Facts<'_>) -> T) -> T {
        with_facts_of(["t", "a"], run)
    }

    fn with_facts_of<T>([tool_key, action_key]: [&str; 2], run: impl FnOnce(&Facts<'_>) -> T) -> T {
        let (agent, action, policies) = (Agent::sample(), read(), PolicySet::default());
        run(&Facts {
            agent: &agent,
            registered: Some(&action),
            environment: "production",
            effective_trust: "unknown",
            tool_key,
            action_key,
            policies: &policies,
        })
    }

    const DENY: &str = r#"{"id":"r","effect":"deny","when":{}}"#;
    const DENY_ELSEWHERE: &str = r#"{"id":"r","effect":"deny","when":{"tool":"u"}}"#;
    const DENY_ONE: &str = r#"{"id":"r","effect":"deny","when":{"parameters":{"n":1}}}"#;
    const DENY_TWO: &str = r#"{"id":"r","effect":"deny","when":{"parameters":{"n":2}}}"#;
    const ALLOW_ONE: &str = r#"{"id":"r","effect":"allow","when":{"parameters":{"n":1}}}"#;

    const FINANCE_ONE: &str =
        r#"{"id":"f","effect":"require_approval","when":{"parameters":{"n":1}},"approver_group":"finance"}"#;
    const OPS_ONE: &str =
        r#"{"id":"x","effect":"require_approval","when":{"parameters":{"m":1}},"approver_group":"ops"}"#;
    const FINANCE: &str = r#"{"id":"u","effect":"require_approval","when":{},"approver_group":"finance"}"#;
    const SOMEBODY: &str = r#"{"id":"v","effect":"require_approval","when":{}}"#;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Said {
        Same,
        Changed,
        CannotTell,
    }

    fn said(comparison: &Comparison) -> Said {
        match comparison {
            Comparison::Same => Said::Same,
            Comparison::Changed { .. } => Said::Changed,
            Comparison::CannotTell { .. } => Said::CannotTell,
        }
    }

    #[test]
    fn without_parameters_it_is_said_what_is_certain_and_nothing_else() {
        for (now, then, expected) in [
            ("", "", Said::Same),
            ("", DENY_ELSEWHERE, Said::Same),
            // Another policy may have denied it already.
            ("", DENY, Said::CannotTell),
            (DENY, "", Said::CannotTell),
            (DENY, DENY, Said::Same),
            ("", DENY_ONE, Said::CannotTell),
            (DENY_ONE, DENY_ONE, Said::Same),
            (DENY_ONE, DENY_TWO, Said::CannotTell),
            (DENY_ONE, DENY, Said::CannotTell),
            (DENY_ONE, DENY_ELSEWHERE, Said::CannotTell),
            ("", ALLOW_ONE, Said::Same),
        ] {
            let pair = PolicyPair::new(set(now), set(then));
            let found = with_facts(|facts| pair.compare_without_parameters(&call(Json::Null), facts));
            assert_eq!(said(&found), expected, "{now} {then}");
        }
        let alone = PolicyPair::new(PolicySet::default(), set(DENY).with("other", None));
        let found = with_facts(|facts| alone.compare_without_parameters(&call(Json::Null), facts));
        assert_eq!(said(&found), Said::Changed);
    }

    /// Every document of up to three of these rules, in every order, including the empty one.
    fn documents_of(rules: &[&str]) -> Vec<String> {
        let mut all = vec![Vec::new()];
        let mut begin = 0;
        for _ in 0..3 {
            let end = all.len();
            for at in begin..end {
                for rule in rules.iter().filter(|rule| !all[at].contains(*rule)).collect::<Vec<_>>() {
                    all.push([&all[at][..], &[*rule]].concat());
                }
            }
            begin = end;
        }
        all.iter().map(|document| document.join(",")).collect()
    }

    #[test]
    fn what_is_said_of_a_record_is_true_of_every_call_that_it_may_have_been() {
        let approving = documents_of(&[FINANCE_ONE, OPS_ONE, FINANCE, SOMEBODY]);
        let few = documents_of(&[OPS_ONE, FINANCE]);
        let redacting = documents_of(&[
            r#"{"id":"a","effect":"redact","when":{},"redact_fields":["iban","pin"]}"#,
            r#"{"id":"b","effect":"redact","when":{},"redact_fields":["pin","iban"]}"#,
            r#"{"id":"c","effect":"redact","when":{"parameters":{"n":1}},"redact_fields":["token"]}"#,
        ]);
        let denying = [DENY, DENY_ELSEWHERE, DENY_ONE, DENY_TWO, ALLOW_ONE].map(str::to_owned);
        // For the second, the pack has a rule that looks at parameters and names a group.
        let names = [["t", "a"], ["github", "merge_pull_request"]];
        let mut counts = [0, 0, 0];
        for (documents, names) in [(approving, names[0]), (few, names[1]), (redacting, names[0])] {
            let all: Vec<&String> = documents.iter().chain(&denying).collect();
            for (now, then) in all.iter().flat_map(|now| all.iter().map(move |then| (now, then))) {
                let pair = PolicyPair::new(set(now), set(then));
                counts[assert_true(&pair, names, &format!("{now} -> {then}")) as usize] += 1;
                let alone = PolicyPair::new(set(now).with("other", None), set(then).with("other", None));
                counts[assert_true(&alone, names, &format!("{now} -> {then}, alone")) as usize] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 200), "each result occurs often: {counts:?}");
    }

    /// Compares a record, and every call that could have been recorded this way.
    fn assert_true(pair: &PolicyPair, names: [&str; 2], what: &str) -> Said {
        let record = call(Json::Null);
        let recorded = said(&with_facts_of(names, |facts| pair.compare_without_parameters(&record, facts)));
        for parameters in [
            "{}",
            r#"{"n":1}"#,
            r#"{"n":2}"#,
            r#"{"m":1}"#,
            r#"{"n":1,"m":1}"#,
            r#"{"danger":true}"#,
            r#"{"n":1,"danger":true}"#,
            r#"{"base_branch":"main"}"#,
            r#"{"m":1,"base_branch":"main"}"#,
        ] {
            let whole = call(parse(parameters.as_bytes()).expect("JSON"));
            let found = said(&with_facts_of(names, |facts| pair.compare(&whole, facts)));
            let is_true = recorded == Said::CannotTell || recorded == found;
            assert!(is_true, "{recorded:?}, and {found:?} for {parameters}: {names:?} {what}");
        }
        recorded
    }

    #[test]
    fn a_rule_that_may_hold_names_the_group_only_where_it_stands_first() {
        for (then, expected) in [
            (vec![FINANCE_ONE, OPS_ONE, FINANCE], Said::CannotTell),
            (vec![OPS_ONE, FINANCE], Said::CannotTell),
            (vec![FINANCE_ONE, FINANCE, OPS_ONE], Said::Same),
            (vec![FINANCE, OPS_ONE], Said::Same),
            (vec![SOMEBODY, OPS_ONE, FINANCE], Said::CannotTell),
        ] {
            let alone = |rules: &str| set(rules).with("other", None);
            let pair = PolicyPair::new(alone(FINANCE), alone(&then.join(",")));
            let found = with_facts(|facts| pair.compare_without_parameters(&call(Json::Null), facts));
            assert_eq!(said(&found), expected, "{then:?}");
        }
    }

    #[test]
    fn of_many_rules_as_many_are_named_as_by_a_decision() {
        let rule =
            |n: usize| format!(r#"{{"id":"r{n:02}","effect":"deny","when":{{"parameters":{{"n":{n}}}}}}}"#);
        let rules: Vec<String> = (0..60).map(rule).collect();
        let pair = PolicyPair::new(PolicySet::default(), set(&rules.join(",")).with("other", None));
        let found = with_facts(|facts| pair.compare_without_parameters(&call(Json::Null), facts));
        let Comparison::CannotTell { rules } = found else { panic!("{found:?}") };
        assert_eq!((rules.len(), &*rules[49], &*rules[50]), (51, "p/r49", "+10"));
    }

    #[test]
    fn fields_in_another_order_are_the_same_fields() {
        let redact = |fields: &str| {
            format!(r#"{{"id":"r","effect":"redact","when":{{}},"redact_fields":[{fields}]}}"#)
        };
        let pair = PolicyPair::new(set(&redact(r#""iban","pin""#)), set(&redact(r#""pin","iban""#)));
        assert_eq!(with_facts(|facts| pair.compare(&call(Json::Null), facts)), Comparison::Same);
        let pair = PolicyPair::new(set(&redact(r#""iban","pin""#)), set(&redact(r#""iban""#)));
        assert_eq!(said(&with_facts(|facts| pair.compare(&call(Json::Null), facts))), Said::Changed);
    }
}
