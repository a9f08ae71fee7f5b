//! What is in force: the built-in pack and the active version of every policy, under one
//! tag that each decision's receipt names.
//!
//! # The tag
//! `builtin-1` where no policy is active; else `builtin-1+` and the first 12 digits of the
//! SHA-256 of the set's canonical list: for each active policy, by key, its key, its
//! version and the SHA-256 of its document's canonical form. The list is stored under the
//! tag and the documents under key and version, so that whoever holds a receipt can read
//! every rule that decided it.
//!
//! # Performance
//! Rules that name their tools, or else their actions, without a wildcard are found by
//! that name; only the others are looked at with every call.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use super::document::Document;
use super::glob::Glob;
use super::{BUILTIN_VERSION, Outcome, Question, Rule, builtin};
use crate::domain::canon::{self, Hash};
use crate::domain::json::{Json, Number};

/// A version of a policy, by what tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The policy's key.
    pub policy_key: String,
    /// Which version of it.
    pub version: i64,
    /// SHA-256 of its document's canonical form.
    pub sha256: Hash,
}

/// A version with its rules.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Which it is.
    pub member: Member,
    /// Its rules, in their order.
    pub rules: Vec<Arc<Rule>>,
    /// The size of its document.
    pub bytes: usize,
}

impl Policy {
    /// A version of a document.
    pub fn new(policy_key: &str, version: i64, document: Document, bytes: usize) -> Self {
        let member = Member { policy_key: policy_key.to_owned(), version, sha256: document.sha256 };
        Policy { member, rules: document.rules.into_iter().map(Arc::new).collect(), bytes }
    }
}

/// A rule under the name that decisions record.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The rule's id, after its policy's key and a slash where it is not built in.
    pub name: String,
    /// The rule.
    pub rule: Arc<Rule>,
}

impl Named {
    /// Why, for people.
    pub fn reason(&self) -> String {
        self.rule.reason.clone().unwrap_or_else(|| format!("rule {} applies", self.name))
    }
}

/// Rules in their order, with an index.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    all: Vec<Named>,
    by_tool: HashMap<String, Vec<usize>>,
    by_action: HashMap<String, Vec<usize>>,
    unindexed: Vec<usize>,
}

impl Rules {
    fn new(all: Vec<Named>) -> Self {
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

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Named> {
        self.all.iter()
    }

    /// The rules that apply, in their order.
    pub fn applying(&self, question: &Question<'_>) -> Vec<&Named> {
        self.filtered(question, |rule| rule.when.hold(question))
    }

    fn filtered(&self, question: &Question<'_>, applies: impl Fn(&Rule) -> bool) -> Vec<&Named> {
        let by_tool = self.by_tool.get(question.tool_key);
        let by_action = self.by_action.get(question.action_key);
        let candidates = by_tool.into_iter().chain(by_action).flatten().chain(&self.unindexed);
        let mut found: Vec<usize> = candidates.copied().filter(|&at| applies(&self.all[at].rule)).collect();
        found.sort_unstable();
        found.into_iter().map(|at| &self.all[at]).collect()
    }

    /// The rules of these names.
    pub fn named<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<&Named> {
        let names: HashSet<&str> = names.collect();
        self.all.iter().filter(|rule| names.contains(rule.name.as_str())).collect()
    }

    /// The same rules where every condition on parameters holds, or none does.
    fn assuming(&self, parameters_hold: bool) -> Self {
        let assume = |named: &Named| {
            if named.rule.when.parameters.is_empty() {
                return Some(named.clone());
            }
            let mut rule = Rule::clone(&named.rule);
            rule.when.parameters.clear();
            parameters_hold.then(|| Named { name: named.name.clone(), rule: Arc::new(rule) })
        };
        Rules::new(self.all.iter().filter_map(assume).collect())
    }
}

/// The texts, where all globs are without a wildcard.
fn exact(globs: Option<&Vec<Glob>>) -> Option<impl Iterator<Item = String>> {
    let names: Vec<String> =
        globs?.iter().map(|glob| glob.exact().map(str::to_owned)).collect::<Option<_>>()?;
    Some(names.into_iter())
}

static PACK: LazyLock<Arc<Rules>> = LazyLock::new(|| {
    let named = |rule: &Rule| Named { name: rule.id.clone(), rule: Arc::new(rule.clone()) };
    Arc::new(Rules::new(builtin::document().rules.iter().map(named).collect()))
});

/// Everything that is in force.
#[derive(Debug, Clone)]
pub struct PolicySet {
    tag: String,
    pack: Arc<Rules>,
    policies: Vec<Policy>,
    rules: Rules,
}

impl Default for PolicySet {
    /// The built-in pack alone.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PolicySet {
    /// The built-in pack and these policies; their order is that of their keys.
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.member.policy_key.cmp(&b.member.policy_key));
        let named = |policy: &Policy| {
            let key = policy.member.policy_key.clone();
            let named =
                move |rule: &Arc<Rule>| Named { name: format!("{key}/{}", rule.id), rule: Arc::clone(rule) };
            policy.rules.iter().map(named).collect::<Vec<_>>()
        };
        let rules = Rules::new(policies.iter().flat_map(named).collect());
        let tag = tag(&list(policies.iter().map(|policy| &policy.member)));
        PolicySet { tag, pack: Arc::clone(&PACK), policies, rules }
    }

    /// The same with another version of a policy, or without it.
    pub fn with(&self, policy_key: &str, policy: Option<Policy>) -> Self {
        let others = self.policies.iter().filter(|other| other.member.policy_key != policy_key);
        PolicySet::new(others.cloned().chain(policy).collect())
    }

    /// What names it in receipts.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The built-in pack's rules.
    pub fn pack(&self) -> &Rules {
        &self.pack
    }

    /// The operator's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The active policies, by key.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The canonical list that the tag stands for.
    pub fn list(&self) -> String {
        list(self.policies.iter().map(|policy| &policy.member))
    }

    /// Whether it is made of exactly these.
    pub fn is_of(&self, members: &[Member]) -> bool {
        self.policies.iter().map(|policy| &policy.member).eq(members)
    }

    /// Every rule, built in or not, that may apply and matter for all that is known without
    /// the call's parameters. An `allow` never matters.
    pub fn undecided(&self, question: &Question<'_>) -> Vec<&Named> {
        let undecided = |rule: &Rule| {
            rule.effect > Outcome::Allow
                && !rule.when.parameters.is_empty()
                && rule.when.hold_but_for_parameters(question)
        };
        let mut found = self.pack.filtered(question, undecided);
        found.extend(self.rules.filtered(question, undecided));
        found
    }

    /// Every rule, built in or not, that names a group and may apply for all that is known
    /// without the call's parameters. Of those that do, the first one's group is to approve.
    pub fn approvers(&self, question: &Question<'_>) -> Vec<&Named> {
        let names_group =
            |rule: &Rule| rule.approver_group.is_some() && rule.when.hold_but_for_parameters(question);
        let mut found = self.rules.filtered(question, names_group);
        found.extend(self.pack.filtered(question, names_group).into_iter().rev());
        found
    }

    /// The same set where every condition on parameters holds, or none does. It decides
    /// nothing that is recorded.
    pub fn assuming(&self, parameters_hold: bool) -> Self {
        PolicySet {
            tag: self.tag.clone(),
            pack: Arc::new(self.pack.assuming(parameters_hold)),
            policies: self.policies.clone(),
            rules: self.rules.assuming(parameters_hold),
        }
    }

    /// What the redact rules of these names leave out, each field once.
    pub fn fields_of<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let rules = self.pack.named(names.clone()).into_iter().chain(self.rules.named(names));
        united(rules.map(|named| &*named.rule))
    }
}

/// What these rules leave out, each field once.
pub fn united<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<String> {
    let mut seen = HashSet::new();
    rules.flat_map(|rule| &rule.redact_fields).filter(|field| seen.insert(*field)).cloned().collect()
}

fn list<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    let item = |member: &Member| {
        Json::Object(vec![
            ("policy_key".to_owned(), Json::String(member.policy_key.clone())),
            ("sha256".to_owned(), Json::String(member.sha256.to_string())),
            ("version".to_owned(), Json::Number(Number::from(member.version))),
        ])
    };
    let bytes = canon::to_vec(&Json::Array(members.map(item).collect()));
    String::from_utf8(bytes).expect("canonical form is UTF-8")
}

fn tag(list: &str) -> String {
    match list {
        "[]" => BUILTIN_VERSION.to_owned(),
        list => format!("{BUILTIN_VERSION}+{}", &Hash::of(list.as_bytes()).to_string()[..12]),
    }
}

/// Reads a list that [`PolicySet::list`] wrote; `None` when it is not one.
pub fn read_list(text: &str) -> Option<Vec<Member>> {
    let Ok(Json::Array(items)) = crate::domain::json::parse(text.as_bytes()) else { return None };
    let member = |item: &Json| {
        let text = |name: &str| item.get(name).and_then(Json::as_str);
        let Some(Json::Number(version)) = item.get("version") else { return None };
        Some(Member {
            policy_key: text("policy_key")?.to_owned(),
            version: version.as_str().parse().ok()?,
            sha256: Hash::parse(text("sha256")?)?,
        })
    };
    items.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::action::ToolCall;
    use crate::domain::agent::RiskTier;
    use crate::domain::policy::document;
    use crate::domain::trust::TrustLevel;

    fn policy(key: &str, version: i64, rules: &str) -> Policy {
        let document = document::parse(&format!(r#"{{"rules":[{rules}]}}"#)).expect(rules);
        Policy::new(key, version, document, 0)
    }

    const DENY: &str = r#"{"id":"r","effect":"deny","when":{}}"#;

    #[test]
    fn the_tag_names_exactly_what_is_in_force() {
        assert_eq!(PolicySet::default().tag(), "builtin-1");
        let one = PolicySet::new(vec![policy("b", 1, DENY), policy("a", 2, DENY)]);
        let again = PolicySet::new(vec![policy("a", 2, DENY), policy("b", 1, DENY)]);
        assert_eq!((one.tag(), one.list()), (again.tag(), again.list()));
        let digits = one.tag().strip_prefix("builtin-1+").expect("more than the pack");
        assert_eq!(digits, &Hash::of(one.list().as_bytes()).to_string()[..12]);
        let changed = r#"{"id":"r","effect":"deny","when":{"tool":"t"}}"#;
        for other in [policy("b", 2, DENY), policy("b", 1, changed), policy("c", 1, DENY)] {
            assert_ne!(one.with("b", Some(other)).tag(), one.tag());
        }
        assert_eq!(one.with("a", None).with("b", None).tag(), "builtin-1");
        let members = read_list(&one.list()).expect("its own list");
        assert!(one.is_of(&members));
        assert!(!one.is_of(&members[..1]));
        assert_eq!(read_list(r#"[{"policy_key":"a","version":1}]"#), None);
    }

    #[test]
    fn the_index_finds_each_rule_that_applies_once_and_in_order() {
        let rules = r#"{"id":"glob","effect":"deny","when":{"tool":"t*"}},
            {"id":"by-action","effect":"deny","when":{"action":["x","y"]}},
            {"id":"by-tool","effect":"deny","when":{"tool":["t","u"],"action":"x"}},
            {"id":"other","effect":"deny","when":{"tool":"v"}},
            {"id":"any","effect":"deny","when":{}},
            {"id":"half","effect":"deny","when":{"tool":["t","w*"]}}"#;
        let set = PolicySet::new(vec![policy("a", 1, rules)]);
        let call = ToolCall {
            tool: "T".into(),
            action: "X".into(),
            resource: None,
            mutates_state: false,
            parameters: Json::Null,
        };
        let question = Question {
            call: &call,
            tool_key: "t",
            action_key: "x",
            agent_key: "k",
            mutating: false,
            trust: TrustLevel::Unknown,
            tier: RiskTier::Low,
            environment: "e",
        };
        let names = |question: &Question<'_>| {
            let applying = set.rules().applying(question);
            applying.iter().map(|named| named.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&question), ["a/glob", "a/by-action", "a/by-tool", "a/any", "a/half"]);
        assert_eq!(names(&Question { tool_key: "v", action_key: "z", ..question }), ["a/other", "a/any"]);
    }
}
