//! A cache, never stale, of what every request looks up: agents and operators by token,
//! registered actions by name, and the policies in force.
//!
//! # Why it cannot be stale
//! - Every committed change to one of these tables, and every change another program made to
//!   the database (`PRAGMA data_version`), clears the cache before the next transaction
//!   decides anything.
//! - A transaction that changes one of these tables bypasses the cache from then on.
//! - A reader's result is cached only if the cache was not cleared since it began to read.
//!
//! Misses are not cached, so a guessed token costs a query and no memory.

use std::collections::HashMap;
use std::hash::Hash as StdHash;
use std::sync::{Arc, Mutex};

use crate::domain::agent::Agent;
use crate::domain::canon::Hash;
use crate::domain::operator::Operator;
use crate::domain::policy::PolicySet;
use crate::domain::policy::builtin::Pack;
use crate::domain::policy::set::Member;
use crate::domain::tool::ToolAction;

use crate::sync::unpoisoned;

/// Maximum entries per table; a full table is cleared, which is always correct.
const ENTRIES_MAX: usize = 10_000;

/// Compiled policy sets to keep: the one in force and the ones before it, by which repeated
/// requests were decided.
const COMPILED_MAX: usize = 4;

/// The cache, shared by the writer and by authentication.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tables: Mutex<Tables>,
    compiled: Compiled,
}

/// Policy sets by content. A set names every document by its hash, so an entry is never
/// stale, committed or not: at worst it is not in force.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<Vec<Arc<PolicySet>>>);

impl Compiled {
    /// The set of this pack and these versions; calls `load` on a miss.
    pub(crate) fn set_or<E>(
        &self,
        pack: &Pack,
        members: &[Member],
        load: impl FnOnce() -> Result<PolicySet, E>,
    ) -> Result<Arc<PolicySet>, E> {
        let kept = unpoisoned(&self.0).iter().find(|set| set.is_of(pack, members)).cloned();
        if let Some(set) = kept {
            return Ok(set);
        }
        let set = Arc::new(load()?);
        self.keep(Arc::clone(&set));
        Ok(set)
    }

    /// Adds a set.
    pub(crate) fn keep(&self, set: Arc<PolicySet>) {
        let mut kept = unpoisoned(&self.0);
        kept.insert(0, set);
        kept.truncate(COMPILED_MAX);
    }
}

#[derive(Debug, Default)]
struct Tables {
    /// How many times everything was cleared.
    generation: u64,
    agents: HashMap<Hash, Arc<Agent>>,
    operators: HashMap<Hash, Arc<Operator>>,
    actions: HashMap<(String, String), Arc<ToolAction>>,
    policies: Option<Arc<PolicySet>>,
}

/// The inputs of a decision, apart from the call itself.
#[derive(Debug, Clone)]
pub struct Basis {
    /// The calling agent.
    pub agent: Arc<Agent>,
    /// The registered action.
    pub action: Arc<ToolAction>,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
}

impl Basis {
    /// Whether a decision on these inputs would be the same. A different policy set counts as
    /// different even if its rules are equal.
    pub fn is(&self, agent: &Agent, action: Option<&ToolAction>, policies: &Arc<PolicySet>) -> bool {
        Arc::ptr_eq(&self.policies, policies) && *self.agent == *agent && Some(&*self.action) == action
    }
}

impl Known {
    /// The likely inputs of a decision; `None` unless all are cached.
    pub(crate) fn basis(&self, token: Hash, names: &(String, String)) -> Option<Basis> {
        let tables = unpoisoned(&self.tables);
        Some(Basis {
            agent: tables.agents.get(&token).cloned()?,
            action: tables.actions.get(names).cloned()?,
            policies: tables.policies.clone()?,
        })
    }

    /// The agent of a token; calls `find` on a miss.
    pub(crate) fn agent_or<E>(
        &self,
        token: Hash,
        find: impl FnOnce() -> Result<Option<Agent>, E>,
    ) -> Result<Option<Arc<Agent>>, E> {
        self.known_or(|tables| &mut tables.agents, &token, find)
    }

    /// The operator of a token; calls `find` on a miss.
    pub(crate) fn operator_or<E>(
        &self,
        token: Hash,
        find: impl FnOnce() -> Result<Option<Operator>, E>,
    ) -> Result<Option<Arc<Operator>>, E> {
        self.known_or(|tables| &mut tables.operators, &token, find)
    }

    /// The action of these names; calls `find` on a miss.
    pub(crate) fn action_or<E>(
        &self,
        names: &(String, String),
        find: impl FnOnce() -> Result<Option<ToolAction>, E>,
    ) -> Result<Option<Arc<ToolAction>>, E> {
        self.known_or(|tables| &mut tables.actions, names, find)
    }

    /// The policies in force, if cached.
    pub(crate) fn policies(&self) -> Option<Arc<PolicySet>> {
        unpoisoned(&self.tables).policies.clone()
    }

    /// The policies in force; calls `find` on a miss, whose view of the database must not have
    /// begun before this call.
    pub(crate) fn policies_or<E>(
        &self,
        find: impl FnOnce() -> Result<Arc<PolicySet>, E>,
    ) -> Result<Arc<PolicySet>, E> {
        let since = {
            let tables = unpoisoned(&self.tables);
            if let Some(known) = &tables.policies {
                return Ok(Arc::clone(known));
            }
            tables.generation
        };
        let found = find()?;
        let mut tables = unpoisoned(&self.tables);
        if tables.generation == since {
            tables.policies = Some(Arc::clone(&found));
        }
        Ok(found)
    }

    /// Policy sets by content.
    pub(crate) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    fn known_or<K: Eq + StdHash + Clone, V, E>(
        &self,
        table: fn(&mut Tables) -> &mut HashMap<K, Arc<V>>,
        key: &K,
        find: impl FnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<Arc<V>>, E> {
        let since = {
            let mut tables = unpoisoned(&self.tables);
            if let Some(known) = table(&mut tables).get(key) {
                return Ok(Some(Arc::clone(known)));
            }
            tables.generation
        };
        let Some(found) = find()?.map(Arc::new) else { return Ok(None) };
        let mut tables = unpoisoned(&self.tables);
        if tables.generation == since {
            let table = table(&mut tables);
            if table.len() >= ENTRIES_MAX {
                table.clear();
            }
            table.insert(key.clone(), Arc::clone(&found));
        }
        Ok(Some(found))
    }

    pub(crate) fn forget(&self) {
        let mut tables = unpoisoned(&self.tables);
        tables.generation += 1;
        tables.agents.clear();
        tables.operators.clear();
        tables.actions.clear();
        tables.policies = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::agent::AgentStatus;
    use crate::domain::policy::set::Policy;
    use crate::domain::policy::{builtin, document};
    use crate::domain::tool::{DefaultDecision, Risk};

    fn action() -> ToolAction {
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

    type Found = Result<Option<ToolAction>, ()>;

    fn is_known(known: &Known, names: &(String, String)) -> bool {
        known.action_or(names, || Found::Ok(None)).expect("no failure").is_some()
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let (known, names) = (Known::default(), ("t".to_owned(), "a".to_owned()));
        let find_while_it_changes = || {
            known.forget();
            Found::Ok(Some(action()))
        };
        assert!(known.action_or(&names, find_while_it_changes).expect("found").is_some());
        assert!(!is_known(&known, &names));
        assert!(known.action_or(&names, || Found::Ok(Some(action()))).expect("found").is_some());
        assert!(is_known(&known, &names));
        known.forget();
        assert!(!is_known(&known, &names));
    }

    #[test]
    fn a_basis_is_the_same_only_while_all_of_it_is() {
        let (known, names, token) = (Known::default(), ("t".to_owned(), "a".to_owned()), Hash::of(b"token"));
        let agent = Agent::sample();
        known.agent_or(token, || Ok::<_, ()>(Some(agent.clone()))).expect("found");
        known.action_or(&names, || Found::Ok(Some(action()))).expect("found");
        assert!(known.basis(token, &names).is_none(), "the policies are not known");
        let policies = known.policies_or(|| Ok::<_, ()>(Arc::new(set(1)))).expect("found");
        let basis = known.basis(token, &names).expect("all is known");
        assert!(basis.is(&agent, Some(&action()), &policies));
        assert!(!basis.is(&agent, None, &policies));
        assert!(!basis.is(&agent, Some(&action()), &Arc::new(set(2))));
        let riskier = ToolAction { risk: Risk::High, ..action() };
        assert!(!basis.is(&agent, Some(&riskier), &policies));
        let frozen = Agent { status: AgentStatus::Frozen, ..agent };
        assert!(!basis.is(&frozen, Some(&action()), &policies));
    }

    #[test]
    fn what_is_not_there_and_what_fails_is_not_kept() {
        let (known, names) = (Known::default(), ("t".to_owned(), "a".to_owned()));
        assert_eq!(known.action_or(&names, || Found::Ok(None)), Ok(None));
        assert_eq!(known.action_or(&names, || Found::Err(())), Err(()));
        assert!(unpoisoned(&known.tables).actions.is_empty());
    }

    fn set(version: i64) -> PolicySet {
        let text = r#"{"rules":[{"id":"r","effect":"deny","when":{}}]}"#;
        let document = document::parse(text).expect("a document");
        PolicySet::new(vec![Policy::new("p", version, document, text.len())])
    }

    #[test]
    fn policies_are_in_force_until_they_are_forgotten() {
        let known = Known::default();
        let find = |version| known.policies_or(|| Ok::<_, ()>(Arc::new(set(version)))).expect("found");
        let first = find(1).tag().to_owned();
        assert_eq!(find(2).tag(), first);
        assert_eq!(known.policies().expect("known").tag(), first);
        known.forget();
        assert!(known.policies().is_none());
        assert_ne!(find(2).tag(), first);
        let changes_meanwhile = || {
            known.forget();
            Ok::<_, ()>(Arc::new(set(3)))
        };
        known.forget();
        known.policies_or(changes_meanwhile).expect("found");
        assert!(known.policies().is_none());
    }

    #[test]
    fn a_compiled_set_is_found_by_its_content_and_only_a_few_are_kept() {
        let compiled = Compiled::default();
        let get = |version: i64, loaded: &mut bool| {
            let members: Vec<Member> = set(version).policies().iter().map(|one| one.member.clone()).collect();
            let load = || {
                *loaded = true;
                Ok::<_, ()>(set(version))
            };
            compiled.set_or(builtin::in_force(), &members, load).expect("loaded")
        };
        for (version, expected) in [(1, true), (1, false), (2, true), (1, false), (2, false)] {
            let mut loaded = false;
            assert_eq!(get(version, &mut loaded).tag(), set(version).tag());
            assert_eq!(loaded, expected, "{version}");
        }
        for version in 3..20 {
            get(version, &mut false);
        }
        assert_eq!(unpoisoned(&compiled.0).len(), COMPILED_MAX);
    }

    #[test]
    fn the_memory_is_bounded() {
        let known = Known::default();
        for number in 0..=ENTRIES_MAX {
            let names = ("t".to_owned(), number.to_string());
            assert!(known.action_or(&names, || Found::Ok(Some(action()))).expect("found").is_some());
        }
        assert!(unpoisoned(&known.tables).actions.len() <= ENTRIES_MAX);
    }
}
