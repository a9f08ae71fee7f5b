//! What a draft would change: one call, decided by two sets of policies.
//!
//! Of a recorded decision the parameters are not kept. Where the rules that look at them
//! could make a difference, the answer is [`Trial::CannotTell`]: an outcome is never
//! guessed.

use super::Outcome;
use super::set::{Named, PolicySet};
use crate::domain::action::ToolCall;
use crate::domain::decision::{Facts, Verdict, decide};

/// Two sets, and what of them is needed where parameters are not known.
#[derive(Debug)]
pub struct Sets {
    now: Bounds,
    then: Bounds,
}

/// A set, and what it would be if no condition on parameters held, or every one.
#[derive(Debug)]
struct Bounds {
    set: PolicySet,
    none: PolicySet,
    every: PolicySet,
}

impl Bounds {
    fn new(set: PolicySet) -> Self {
        Bounds { none: set.assuming(false), every: set.assuming(true), set }
    }

    /// Whether the parameters of a call could matter.
    fn depends(&self, call: &ToolCall, facts: &Facts<'_>) -> bool {
        !is_same(&decide_by(&self.none, call, facts), &decide_by(&self.every, call, facts))
    }
}

/// What the draft would do to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Trial {
    /// The same is decided.
    Same,
    /// Something else is decided.
    Changed {
        /// By what is in force.
        now: Outcome,
        /// With the draft.
        then: Box<Verdict>,
    },
    /// It depends on parameters that are not known.
    CannotTell {
        /// The rules that look at them.
        rules: Vec<String>,
    },
}

impl Sets {
    /// What is in force, and what would be.
    pub fn new(now: PolicySet, then: PolicySet) -> Self {
        Sets { now: Bounds::new(now), then: Bounds::new(then) }
    }

    /// What is in force.
    pub fn now(&self) -> &PolicySet {
        &self.now.set
    }

    /// Compares for a whole call. The policies of `facts` do not count.
    pub fn compare(&self, call: &ToolCall, facts: &Facts<'_>) -> Trial {
        compare_by(&self.now.set, &self.then.set, call, facts)
    }

    /// Compares for a call whose parameters are not known.
    pub fn compare_without_parameters(&self, call: &ToolCall, facts: &Facts<'_>) -> Trial {
        let none = compare_by(&self.now.none, &self.then.none, call, facts);
        let question = facts.question(call);
        let asked = facts.registered.is_some();
        let (now, then) = (self.now.set.undecided(&question), self.then.set.undecided(&question));
        if !asked || (now.is_empty() && then.is_empty()) {
            return none;
        }
        let every = compare_by(&self.now.every, &self.then.every, call, facts);
        if !self.now.depends(call, facts) && !self.then.depends(call, facts) {
            return none;
        }
        // Where both sets ask the same of the parameters, each such rule holds in both or
        // in neither: an outcome that is the same without any of them is so with some.
        if now == then && (&none, &every) == (&Trial::Same, &Trial::Same) {
            return Trial::Same;
        }
        Trial::CannotTell { rules: names(&now, &then) }
    }
}

fn names(now: &[&Named], then: &[&Named]) -> Vec<String> {
    let mut names: Vec<String> = now.iter().chain(then).map(|named| named.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn decide_by(policies: &PolicySet, call: &ToolCall, facts: &Facts<'_>) -> Verdict {
    decide(call, &Facts { policies, ..*facts })
}

fn compare_by(now: &PolicySet, then: &PolicySet, call: &ToolCall, facts: &Facts<'_>) -> Trial {
    let (now, then) = (decide_by(now, call, facts), decide_by(then, call, facts));
    if is_same(&now, &then) {
        return Trial::Same;
    }
    Trial::Changed { now: now.outcome, then: Box::new(then) }
}

/// What a caller would see of it. Which rules asked for it, and why, is not a change.
fn is_same(one: &Verdict, other: &Verdict) -> bool {
    one.outcome == other.outcome
        && one.approver_group == other.approver_group
        && one.redacted_fields == other.redacted_fields
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

    /// A policy `p` beside another; without rules there is none.
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
        let (agent, action, policies) = (Agent::sample(), read(), PolicySet::default());
        run(&Facts {
            agent: &agent,
            registered: Some(&action),
            environment: "production",
            effective_trust: "unknown",
            tool_key: "t",
            action_key: "a",
            policies: &policies,
        })
    }

    const DENY: &str = r#"{"id":"r","effect":"deny","when":{}}"#;
    const DENY_ELSEWHERE: &str = r#"{"id":"r","effect":"deny","when":{"tool":"u"}}"#;
    const DENY_ONE: &str = r#"{"id":"r","effect":"deny","when":{"parameters":{"n":1}}}"#;
    const DENY_TWO: &str = r#"{"id":"r","effect":"deny","when":{"parameters":{"n":2}}}"#;
    const ALLOW_ONE: &str = r#"{"id":"r","effect":"allow","when":{"parameters":{"n":1}}}"#;

    #[derive(Debug, PartialEq)]
    enum Said {
        Same,
        Changed,
        CannotTell,
    }

    fn said(trial: &Trial) -> Said {
        match trial {
            Trial::Same => Said::Same,
            Trial::Changed { .. } => Said::Changed,
            Trial::CannotTell { .. } => Said::CannotTell,
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
            let sets = Sets::new(set(now), set(then));
            let trial = with_facts(|facts| sets.compare_without_parameters(&call(Json::Null), facts));
            assert_eq!(said(&trial), expected, "{now} {then}");
        }
        let alone = Sets::new(PolicySet::default(), set(DENY).with("other", None));
        let trial = with_facts(|facts| alone.compare_without_parameters(&call(Json::Null), facts));
        assert_eq!(said(&trial), Said::Changed);
    }

    #[test]
    fn what_is_said_of_a_record_is_true_of_every_call_that_it_may_have_been() {
        let documents = ["", DENY, DENY_ELSEWHERE, DENY_ONE, DENY_TWO, ALLOW_ONE];
        for (now, then) in documents.iter().flat_map(|now| documents.iter().map(move |then| (now, then))) {
            let sets = Sets::new(set(now), set(then));
            let recorded = with_facts(|facts| sets.compare_without_parameters(&call(Json::Null), facts));
            for parameters in
                ["{}", r#"{"n":1}"#, r#"{"n":2}"#, r#"{"danger":true}"#, r#"{"n":1,"danger":true}"#]
            {
                let whole = call(parse(parameters.as_bytes()).expect("JSON"));
                let trial = with_facts(|facts| sets.compare(&whole, facts));
                let certain = said(&recorded) != Said::CannotTell;
                assert!(!certain || said(&recorded) == said(&trial), "{now} {then} {parameters}");
            }
        }
    }
}
