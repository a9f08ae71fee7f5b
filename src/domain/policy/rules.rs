//! Ordered rules, under the names that decisions record.
//!
//! # Performance
//! Rules that name their tools, or else their actions, without wildcards are indexed by
//! those names; only the others are tested on every call.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::glob::Glob;
use super::{PolicyInput, Rule};

/// A rule under the name that decisions record.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedRule {
    /// The rule's id, prefixed with its policy's key and a slash unless it is built in.
    pub name: String,
    /// The rule.
    pub rule: Arc<Rule>,
}

impl NamedRule {
    /// Human-readable reason.
    pub fn reason(&self) -> String {
        self.rule.reason.clone().unwrap_or_else(|| format!("rule {} applies", self.name))
    }
}

/// Ordered rules with an index.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    all: Vec<NamedRule>,
    by_tool: HashMap<String, Vec<usize>>,
    by_action: HashMap<String, Vec<usize>>,
    unindexed: Vec<usize>,
}

impl Rules {
    /// Indexes these rules, keeping their order.
    pub(super) fn new(all: Vec<NamedRule>) -> Self {
        let mut rules = Rules { all: Vec::new(), ..Rules::default() };
        for (at, named) in all.iter().enumerate() {
            let when = &named.rule.when;
            if let Some(names) = exact(when.tool.as_ref()) {
                names.for_each(|name| rules.by_tool.entry(name).or_default().push(at));
            } else if let Some(names) = exact(when.action.as_ref()) {
                names.for_each(|name| rules.by_action.entry(name).or_default().push(at));
            } else {
                rules.unindexed.push(at);
            }
        }
        Rules { all, ..rules }
    }

    /// All rules, in order.
    pub fn iter(&self) -> impl Iterator<Item = &NamedRule> {
        self.all.iter()
    }

    /// The rules that apply, in order.
    pub fn applying(&self, input: &PolicyInput<'_>) -> Vec<&NamedRule> {
        self.filtered(input, |rule| rule.when.matches(input))
    }

    /// The rules indexed under this tool or action, or not indexed, for which `applies` is
    /// true, in order.
    pub(super) fn filtered(
        &self,
        input: &PolicyInput<'_>,
        applies: impl Fn(&Rule) -> bool,
    ) -> Vec<&NamedRule> {
        let by_tool = self.by_tool.get(input.tool_key);
        let by_action = self.by_action.get(input.action_key);
        let candidates = by_tool.into_iter().chain(by_action).flatten().chain(&self.unindexed);
        let mut found: Vec<usize> = candidates.copied().filter(|&at| applies(&self.all[at].rule)).collect();
        found.sort_unstable();
        found.into_iter().map(|at| &self.all[at]).collect()
    }

    /// The rules with these names.
    pub fn named<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<&NamedRule> {
        let names: HashSet<&str> = names.collect();
        self.all.iter().filter(|rule| names.contains(rule.name.as_str())).collect()
    }

    /// The same rules, assuming that every condition on parameters holds, or that none does.
    pub(super) fn assuming(&self, parameters_hold: bool) -> Self {
        let assume = |named: &NamedRule| {
            if named.rule.when.parameters.is_empty() {
                return Some(named.clone());
            }
            parameters_hold.then(|| {
                let mut rule = Rule::clone(&named.rule);
                rule.when.parameters.clear();
                NamedRule { name: named.name.clone(), rule: Arc::new(rule) }
            })
        };
        Rules::new(self.all.iter().filter_map(assume).collect())
    }
}

/// The globs' texts, if none of them has a wildcard.
fn exact(globs: Option<&Vec<Glob>>) -> Option<impl Iterator<Item = String>> {
    let names: Vec<String> =
        globs?.iter().map(|glob| glob.exact().map(str::to_owned)).collect::<Option<_>>()?;
    Some(names.into_iter())
}

/// The fields that these rules redact, each once.
pub fn united<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<String> {
    let mut seen = HashSet::new();
    rules.flat_map(|rule| &rule.redact_fields).filter(|field| seen.insert(*field)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::ToolCall;
    use crate::domain::agent::RiskTier;
    use crate::domain::json::Json;
    use crate::domain::policy::document;
    use crate::domain::trust::TrustLevel;

    #[test]
    fn the_index_finds_each_rule_that_applies_once_and_in_order() {
        let rules = r#"{"id":"glob","effect":"deny","when":{"tool":"t*"}},
            {"id":"by-action","effect":"deny","when":{"action":["x","y"]}},
            {"id":"by-tool","effect":"deny","when":{"tool":["t","u"],"action":"x"}},
            {"id":"other","effect":"deny","when":{"tool":"v"}},
            {"id":"any","effect":"deny","when":{}},
            {"id":"half","effect":"deny","when":{"tool":["t","w*"]}}"#;
        let document = document::parse(&format!(r#"{{"rules":[{rules}]}}"#)).expect(rules);
        let named = |rule: Rule| NamedRule { name: rule.id.clone(), rule: Arc::new(rule) };
        let rules = Rules::new(document.rules.into_iter().map(named).collect());
        let call = ToolCall {
            tool: "T".into(),
            action: "X".into(),
            resource: None,
            mutates_state: false,
            parameters: Json::Null,
        };
        let input = PolicyInput {
            call: &call,
            tool_key: "t",
            action_key: "x",
            agent_key: "k",
            mutating: false,
            trust: TrustLevel::Unknown,
            tier: RiskTier::Low,
            environment: "e",
        };
        let names = |input: &PolicyInput<'_>| {
            let applying = rules.applying(input);
            applying.iter().map(|named| named.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&input), ["glob", "by-action", "by-tool", "any", "half"]);
        assert_eq!(names(&PolicyInput { tool_key: "v", action_key: "z", ..input }), ["other", "any"]);
    }
}
