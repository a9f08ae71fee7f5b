//! Which calls a rule applies to.
//!
//! Every given member of `when` must hold; if a member lists alternatives, one of them must.
//! Tools and actions are compared in normalised form, everything else exactly as received.

use super::PolicyInput;
use super::glob::Glob;
use crate::domain::agent::RiskTier;
use crate::domain::json::Json;
use crate::domain::trust::TrustLevel;

/// When a rule applies. `None` and an empty list require nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// The agent's key.
    pub agent: Option<Vec<Glob>>,
    /// The tool's normalised name.
    pub tool: Option<Vec<Glob>>,
    /// The action's normalised name.
    pub action: Option<Vec<Glob>>,
    /// What is acted on; a call without a resource counts as the empty string.
    pub resource: Option<Vec<Glob>>,
    /// Where the call would run.
    pub environment: Option<Vec<Glob>>,
    /// Whether the call mutates, as declared by the caller or registered by the operator.
    pub mutates_state: Option<bool>,
    /// The effective trust.
    pub source_trust: Option<Vec<TrustLevel>>,
    /// The agent's risk tier.
    pub risk_tier: Option<Vec<RiskTier>>,
    /// Parameters that must be present and equal in canonical form.
    pub parameters: Vec<Parameter>,
}

/// A parameter that must have a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The member names and array indexes that lead to it.
    pub path: Vec<String>,
    /// What it must be.
    pub value: Json,
}

impl Conditions {
    /// Every glob in these conditions.
    pub fn globs(&self) -> impl Iterator<Item = &Glob> {
        [&self.agent, &self.tool, &self.action, &self.resource, &self.environment]
            .into_iter()
            .flatten()
            .flatten()
    }

    /// Whether they hold only for calls that are denied in any case.
    pub(super) fn only_untrusted_mutations(&self) -> bool {
        let untrusted = |levels: &Vec<TrustLevel>| levels.iter().all(|level| *level > TrustLevel::Customer);
        self.mutates_state == Some(true) && self.source_trust.as_ref().is_some_and(untrusted)
    }

    /// Whether all of them hold.
    pub fn matches(&self, input: &PolicyInput<'_>) -> bool {
        self.matches_but_for_parameters(input)
            && self.parameters.iter().all(|parameter| parameter.matches(&input.call.parameters))
    }

    /// Whether all of them hold, those on parameters aside. Cheap checks come first.
    pub fn matches_but_for_parameters(&self, input: &PolicyInput<'_>) -> bool {
        let resource = input.call.resource.as_deref().unwrap_or("");
        self.mutates_state.is_none_or(|mutating| mutating == input.mutating)
            && self.source_trust.as_ref().is_none_or(|levels| levels.contains(&input.trust))
            && self.risk_tier.as_ref().is_none_or(|tiers| tiers.contains(&input.tier))
            && any(self.tool.as_ref(), input.tool_key)
            && any(self.action.as_ref(), input.action_key)
            && any(self.agent.as_ref(), input.agent_key)
            && any(self.environment.as_ref(), input.environment)
            && any(self.resource.as_ref(), resource)
    }
}

fn any(globs: Option<&Vec<Glob>>, text: &str) -> bool {
    globs.is_none_or(|globs| globs.iter().any(|glob| glob.matches(text)))
}

impl Parameter {
    fn matches(&self, parameters: &Json) -> bool {
        at(parameters, &self.path) == Some(&self.value)
    }
}

/// The value at a path. A [`Json`] holds numbers as canonical text and members in canonical
/// order, so values are equal exactly if their canonical forms are.
pub(super) fn at<'a>(value: &'a Json, path: &[String]) -> Option<&'a Json> {
    path.iter().try_fold(value, |value, step| match value {
        Json::Object(_) => value.get(step),
        Json::Array(items) => index(step).and_then(|index| items.get(index)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    })
}

/// An array index as RFC 6901 writes it: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let digits = step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    digits.then(|| step.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::ToolCall;
    use crate::domain::json::parse;
    use crate::domain::policy::document;

    fn conditions(when: &str) -> Conditions {
        let text = format!(r#"{{"rules":[{{"id":"r","effect":"deny","when":{when}}}]}}"#);
        let mut document = document::parse(&text).unwrap_or_else(|error| panic!("{when}: {error}"));
        document.rules.remove(0).when
    }

    const PARAMETERS: &str = r#"{"amount":1.50,"count":1,"a/b":null,"a":{"b":[10,{"c":"x"}],"~":true},
        "list":[1,2],"01":"zero","":"nameless","o":{"y":1,"x":2}}"#;

    fn call(resource: Option<&str>) -> ToolCall {
        ToolCall {
            tool: "Pay Ments".into(),
            action: "Refund".into(),
            resource: resource.map(str::to_owned),
            mutates_state: true,
            parameters: parse(PARAMETERS.as_bytes()).expect("JSON"),
        }
    }

    fn input(call: &ToolCall) -> PolicyInput<'_> {
        PolicyInput {
            call,
            tool_key: "pay ments",
            action_key: "refund",
            agent_key: "Bot-1",
            mutating: true,
            trust: TrustLevel::Customer,
            tier: RiskTier::High,
            environment: "production",
        }
    }

    fn holds(when: &str) -> bool {
        conditions(when).matches(&input(&call(Some("acct/7"))))
    }

    #[test]
    fn every_member_of_when_applies_and_does_not() {
        for (when, expected) in [
            ("{}", true),
            (r#"{"agent":"Bot-1"}"#, true),
            (r#"{"agent":"bot-1"}"#, false),
            (r#"{"agent":["x","Bot-*"]}"#, true),
            (r#"{"tool":"PAY%20ments"}"#, true),
            (r#"{"tool":"pay*"}"#, true),
            (r#"{"tool":" Pay?Ments "}"#, true),
            (r#"{"tool":"pay"}"#, false),
            (r#"{"action":"REFUND"}"#, true),
            (r#"{"action":["list","re?und"]}"#, true),
            (r#"{"action":["list","get"]}"#, false),
            (r#"{"resource":"acct/*"}"#, true),
            (r#"{"resource":"ACCT/*"}"#, false),
            (r#"{"resource":"acct/%37"}"#, false),
            (r#"{"mutates_state":true}"#, true),
            (r#"{"mutates_state":false}"#, false),
            (r#"{"source_trust":"semi_trusted_customer"}"#, true),
            (r#"{"source_trust":["unknown","trusted_internal_signed"]}"#, false),
            (r#"{"risk_tier":["high","critical"]}"#, true),
            (r#"{"risk_tier":"low"}"#, false),
            (r#"{"environment":"prod*"}"#, true),
            (r#"{"environment":"staging"}"#, false),
            (r#"{"tool":"pay*","action":"refund","environment":"staging"}"#, false),
        ] {
            assert_eq!(holds(when), expected, "{when}");
        }
    }

    #[test]
    fn a_parameter_is_found_by_name_or_pointer_and_equal_in_canonical_form() {
        for (parameters, expected) in [
            (r#"{"amount":1.5}"#, true),
            (r#"{"amount":15e-1}"#, true),
            (r#"{"amount":"1.5"}"#, false),
            (r#"{"count":1}"#, true),
            (r#"{"count":1.0}"#, false),
            (r#"{"missing":null}"#, false),
            (r#"{"a/b":null}"#, true),
            (r#"{"/a~1b":null}"#, true),
            (r#"{"/a/~0":true}"#, true),
            (r#"{"/a/b/0":10,"/a/b/1/c":"x"}"#, true),
            (r#"{"/a/b/1":{"c":"x"}}"#, true),
            (r#"{"/a/b/00":10}"#, false),
            (r#"{"/a/b/+0":10}"#, false),
            (r#"{"/a/b/2":10}"#, false),
            (r#"{"/a/b/99999999999999999999":10}"#, false),
            (r#"{"a.b":10}"#, false),
            (r#"{"/01":"zero"}"#, true),
            (r#"{"/":"nameless"}"#, true),
            (r#"{"list":[1,2]}"#, true),
            (r#"{"list":[2,1]}"#, false),
            (r#"{"o":{"x":2,"y":1}}"#, true),
            (r#"{"o":{"x":2}}"#, false),
            (r#"{"count":1,"amount":2}"#, false),
        ] {
            let when = format!(r#"{{"parameters":{parameters}}}"#);
            assert_eq!(holds(&when), expected, "{parameters}");
        }
    }

    #[test]
    fn what_nobody_knows_counts_as_unknown() {
        let call = call(None);
        for (word, expected) in [("unknown", true), ("malicious_suspected", false)] {
            let when = conditions(&format!(r#"{{"source_trust":"{word}"}}"#));
            let input = PolicyInput { trust: TrustLevel::Unrecognized, ..input(&call) };
            assert_eq!(when.matches(&input), expected, "{word}");
        }
    }

    #[test]
    fn a_call_without_a_resource_has_the_empty_one() {
        let call = call(None);
        for (when, expected) in [(r#"{"resource":"*"}"#, true), (r#"{"resource":"?*"}"#, false)] {
            assert_eq!(conditions(when).matches(&input(&call)), expected, "{when}");
        }
    }
}
