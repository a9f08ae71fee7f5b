//! What the hot path looks up with every request, kept in memory and never stale:
//! agents and operators by their token, registered actions by their names, and the
//! policies in force.
//!
//! # Why it cannot be stale
//! - Every committed change to one of the tables, and every change that somebody else made
//!   to the database (`PRAGMA data_version`), forgets everything before the next
//!   transaction decides anything.
//! - Inside a transaction that changes one of them nothing is looked up or kept here.
//! - What a reader found is kept only if nothing was forgotten since it began to read.
//!
//! Only what is there is kept, so guesses cost the guesser a query and take no memory.

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

/// Entries of each kind; beyond it everything is forgotten, which is always right.
const ENTRIES_MAX: usize = 10_000;

/// Compiled sets of policies that are kept: the one in force, and the last before it, by
/// which requests that come again were decided.
const COMPILED_MAX: usize = 4;

/// The memory, shared by the writer and whoever authenticates.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tables: Mutex<Tables>,
    compiled: Compiled,
}

/// Sets of policies by what they are made of. A set names every document by its hash, so
/// what is here is never stale, committed or not: it is only not in force.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<Vec<Arc<PolicySet>>>);

impl Compiled {
    /// The set of this pack and these versions; `load` makes it where it is not kept.
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

    /// Keeps a set that was just made.
    pub(crate) fn keep(&self, set: Arc<PolicySet>) {
        let mut kept = unpoisoned(&self.0);
        kept.insert(0, set);
        kept.truncate(COMPILED_MAX);
    }
}

#[derive(Debug, Default)]
struct Tables {
    /// Counts how often everything was forgotten.
    generation: u64,
    agents: HashMap<Hash, Arc<Agent>>,
    operators: HashMap<Hash, Arc<Operator>>,
    actions: HashMap<(String, String), Arc<ToolAction>>,
    policies: Option<Arc<PolicySet>>,
}

/// What a decision rests on, beside the call itself.
#[derive(Debug, Clone)]
pub struct Basis {
    /// Who asks.
    pub agent: Arc<Agent>,
    /// What is registered for the action.
    pub action: Arc<ToolAction>,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
}

impl Basis {
    /// Whether a decision on these would be the same. Another set of policies counts as
    /// another one even where its rules are the same.
    pub fn is(&self, agent: &Agent, action: Option<&ToolAction>, policies: &Arc<PolicySet>) -> bool {
        Arc::ptr_eq(&self.policies, policies) && *self.agent == *agent && Some(&*self.action) == action
    }
}

impl Known {
    /// What a decision will most likely rest on; `None` where a part of it is not known.
    pub(crate) fn basis(&self, token: Hash, names: &(String, String)) -> Option<Basis> {
        let tables = unpoisoned(&self.tables);
        Some(Basis {
            agent: tables.agents.get(&token).cloned()?,
            action: tables.actions.get(names).cloned()?,
            policies: tables.policies.clone()?,
        })
    }

    /// The agent of a token; `find` looks it up where it is not known.
    pub(crate) fn agent_or<E>(
        &self,
        token: Hash,
        find: impl FnOnce() -> Result<Option<Agent>, E>,
    ) -> Result<Option<Arc<Agent>>, E> {
        self.known_or(|tables| &mut tables.agents, &token, find)
    }

    /// The operator of a token; `find` looks it up where it is not known.
    pub(crate) fn operator_or<E>(
        &self,
        token: Hash,
        find: impl FnOnce() -> Result<Option<Operator>, E>,
    ) -> Result<Option<Arc<Operator>>, E> {
        self.known_or(|tables| &mut tables.operators, &token, find)
    }

    /// The action of these names; `find` looks it up where it is not known.
    pub(crate) fn action_or<E>(
        &self,
        names: &(String, String),
        find: impl FnOnce() -> Result<Option<ToolAction>, E>,
    ) -> Result<Option<Arc<ToolAction>>, E> {
        self.known_or(|tables| &mut tables.actions, names, find)
    }

    /// The policies in force, where they are known.
    pub(crate) fn policies(&self) -> Option<Arc<PolicySet>> {
        unpoisoned(&self.tables).policies.clone()
    }

    /// The same; `find` looks them up where they are not known, on a view that must not
    /// begin before this is called.
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

    /// Policies by their content.
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
