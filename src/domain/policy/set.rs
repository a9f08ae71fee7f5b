//! What is in force: the built-in pack and the active version of every policy, under one
//! tag that each decision's receipt names.
//!
//! # The tag
//! `builtin-1` if no policy is active; otherwise `builtin-1+` and the first 12 hex digits of
//! the SHA-256 of the set's canonical list: for each active policy, ordered by key, its key,
//! its version and the SHA-256 of its document's canonical form. The list is stored under the
//! tag and the documents under key and version, so the holder of a receipt can read every
//! rule behind it. A program with a later pack gives the same list a different tag, but with
//! the same digits, which lead to the list.

use std::sync::Arc;

use super::builtin::Pack;
use super::document::Document;
use super::rules::{NamedRule, Rules, united};
use super::{Outcome, PolicyInput, Rule, builtin};
use crate::domain::canon::{self, Hash};
use crate::domain::json::{Json, Number};

/// What identifies one version of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The policy's key.
    pub policy_key: String,
    /// The version.
    pub version: i64,
    /// SHA-256 of its document's canonical form.
    pub sha256: Hash,
}

/// A version of a policy with its rules.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What identifies it.
    pub member: Member,
    /// Its rules, in document order.
    pub rules: Vec<Arc<Rule>>,
    /// Size of its document.
    pub bytes: usize,
}

impl Policy {
    /// A version of a policy, from its document.
    pub fn new(policy_key: &str, version: i64, document: Document, bytes: usize) -> Self {
        let member = Member { policy_key: policy_key.to_owned(), version, sha256: document.sha256 };
        Policy { member, rules: document.rules.into_iter().map(Arc::new).collect(), bytes }
    }
}

/// Everything that is in force.
#[derive(Debug, Clone)]
pub struct PolicySet {
    tag: String,
    pack: Arc<Pack>,
    policies: Vec<Policy>,
    rules: Rules,
}

impl Default for PolicySet {
    /// Only the built-in pack.
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PolicySet {
    /// The built-in pack and these policies, ordered by key.
    pub fn new(policies: Vec<Policy>) -> Self {
        Self::beside(builtin::in_force(), policies)
    }

    /// Like [`PolicySet::new`], with a pack that may be an earlier one.
    pub fn beside(pack: &Arc<Pack>, mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.member.policy_key.cmp(&b.member.policy_key));
        let named = |policy: &Policy| {
            let key = policy.member.policy_key.clone();
            let named = move |rule: &Arc<Rule>| NamedRule {
                name: format!("{key}/{}", rule.id),
                rule: Arc::clone(rule),
            };
            policy.rules.iter().map(named).collect::<Vec<_>>()
        };
        let rules = Rules::new(policies.iter().flat_map(named).collect());
        let tag = tag(pack.version, &list(policies.iter().map(|policy| &policy.member)));
        PolicySet { tag, pack: Arc::clone(pack), policies, rules }
    }

    /// This set with another version of a policy, or without that policy.
    pub fn with(&self, policy_key: &str, policy: Option<Policy>) -> Self {
        let others = self.policies.iter().filter(|other| other.member.policy_key != policy_key);
        PolicySet::beside(&self.pack, others.cloned().chain(policy).collect())
    }

    /// Its name in receipts.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The built-in pack's rules.
    pub fn pack(&self) -> &Rules {
        &self.pack.rules
    }

    /// The operator's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The active policies, by key.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The canonical list that the tag identifies.
    pub fn list(&self) -> String {
        list(self.policies.iter().map(|policy| &policy.member))
    }

    /// Whether it consists of exactly these.
    pub fn is_of(&self, pack: &Pack, members: &[Member]) -> bool {
        self.pack.version == pack.version && self.policies.iter().map(|policy| &policy.member).eq(members)
    }

    /// Every rule, built in or not, whose result depends on the call's parameters and could
    /// affect the outcome. An `allow` rule never does.
    pub fn undecided(&self, input: &PolicyInput<'_>) -> Vec<&NamedRule> {
        let undecided = |rule: &Rule| {
            rule.effect > Outcome::Allow
                && !rule.when.parameters.is_empty()
                && rule.when.matches_but_for_parameters(input)
        };
        let mut found = self.pack.rules.filtered(input, undecided);
        found.extend(self.rules.filtered(input, undecided));
        found
    }

    /// Every rule, built in or not, that names a group and could apply, judging by all but
    /// the call's parameters. The first of them that does apply names the approvers.
    pub fn approvers(&self, input: &PolicyInput<'_>) -> Vec<&NamedRule> {
        let names_group =
            |rule: &Rule| rule.approver_group.is_some() && rule.when.matches_but_for_parameters(input);
        let mut found = self.rules.filtered(input, names_group);
        found.extend(self.pack.rules.filtered(input, names_group).into_iter().rev());
        found
    }

    /// This set, assuming that every condition on parameters holds, or that none does. Never
    /// used for a decision that is recorded.
    pub fn assuming(&self, parameters_hold: bool) -> Self {
        let pack = Pack { version: self.pack.version, rules: self.pack.rules.assuming(parameters_hold) };
        PolicySet {
            tag: self.tag.clone(),
            pack: Arc::new(pack),
            policies: self.policies.clone(),
            rules: self.rules.assuming(parameters_hold),
        }
    }

    /// The fields redacted by the rules with these names, each once.
    pub fn fields_of<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let rules = self.pack.rules.named(names.clone()).into_iter().chain(self.rules.named(names));
        united(rules.map(|named| &*named.rule))
    }
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

/// Hex digits of the list's SHA-256 in a tag.
const TAG_DIGITS: usize = 12;

fn tag(pack: &str, list: &str) -> String {
    match list {
        "[]" => pack.to_owned(),
        list => format!("{pack}+{}", &Hash::of(list.as_bytes()).to_string()[..TAG_DIGITS]),
    }
}

/// The version of the pack in a tag, and the list's digits if it has any.
pub fn split_tag(tag: &str) -> (&str, Option<&str>) {
    match tag.split_once('+') {
        Some((pack, digits)) => (pack, Some(digits)),
        None => (tag, None),
    }
}

/// Reads a list that [`PolicySet::list`] wrote; `None` if it is not one.
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
    use crate::domain::policy::document;

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
        let [earlier, pack] =
            ["builtin-0", "builtin-1"].map(|version| builtin::find(version).expect("a pack"));
        assert!(one.is_of(pack, &members));
        assert!(!one.is_of(pack, &members[..1]));
        assert!(!one.is_of(earlier, &members));
        assert_eq!(read_list(r#"[{"policy_key":"a","version":1}]"#), None);
    }
}
