//! What the hot path looks up with every request, kept in memory and never stale:
//! agents by their token, and registered actions by their names.
//!
//! # Why it cannot be stale
//! - Every committed change to either table, and every change that somebody else made
//!   to the database (`PRAGMA data_version`), forgets everything before the next
//!   transaction decides anything.
//! - Inside a transaction that changes either table nothing is looked up or kept here.
//! - What a reader found is kept only if nothing was forgotten since it began to read.
//!
//! Only what is there is kept, so guesses cost the guesser a query and take no memory.

use std::collections::HashMap;
use std::hash::Hash as StdHash;
use std::sync::{Arc, Mutex};

use crate::domain::agent::Agent;
use crate::domain::canon::Hash;
use crate::domain::tool::ToolAction;

use super::commit::unpoisoned;

/// Entries of either kind; beyond it everything is forgotten, which is always right.
const ENTRIES_MAX: usize = 10_000;

/// The memory, shared by the writer and whoever authenticates.
#[derive(Debug, Default)]
pub(crate) struct Known {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// Counts how often everything was forgotten.
    generation: u64,
    agents: HashMap<Hash, Arc<Agent>>,
    actions: HashMap<(String, String), Arc<ToolAction>>,
}

/// When a look at the database began, in generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Known {
    /// To be taken before the database is read.
    pub(crate) fn generation(&self) -> Generation {
        Generation(unpoisoned(&self.tables).generation)
    }

    pub(crate) fn agent(&self, token: Hash) -> Option<Arc<Agent>> {
        unpoisoned(&self.tables).agents.get(&token).map(Arc::clone)
    }

    pub(crate) fn keep_agent(&self, since: Generation, token: Hash, agent: &Arc<Agent>) {
        let mut tables = unpoisoned(&self.tables);
        if tables.generation == since.0 {
            keep(&mut tables.agents, token, Arc::clone(agent));
        }
    }

    pub(crate) fn action(&self, names: &(String, String)) -> Option<Arc<ToolAction>> {
        unpoisoned(&self.tables).actions.get(names).map(Arc::clone)
    }

    pub(crate) fn keep_action(&self, since: Generation, names: &(String, String), action: &Arc<ToolAction>) {
        let mut tables = unpoisoned(&self.tables);
        if tables.generation == since.0 {
            keep(&mut tables.actions, names.clone(), Arc::clone(action));
        }
    }

    pub(crate) fn forget(&self) {
        let mut tables = unpoisoned(&self.tables);
        tables.generation += 1;
        tables.agents.clear();
        tables.actions.clear();
    }
}

fn keep<K: Eq + StdHash, V>(table: &mut HashMap<K, V>, key: K, value: V) {
    if table.len() >= ENTRIES_MAX {
        table.clear();
    }
    table.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tool::{DefaultDecision, Risk};

    fn action() -> Arc<ToolAction> {
        Arc::new(ToolAction {
            action_key: "a".into(),
            description: None,
            risk: Risk::Low,
            mutates_state: false,
            approval_required: false,
            default_decision: DefaultDecision::Policy,
            data_access: None,
        })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let (known, names) = (Known::default(), ("t".to_owned(), "a".to_owned()));
        let since = known.generation();
        known.forget();
        known.keep_action(since, &names, &action());
        assert_eq!(known.action(&names), None);
        known.keep_action(known.generation(), &names, &action());
        assert!(known.action(&names).is_some());
        known.forget();
        assert_eq!(known.action(&names), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let known = Known::default();
        for number in 0..=ENTRIES_MAX {
            known.keep_action(known.generation(), &("t".to_owned(), number.to_string()), &action());
        }
        assert!(unpoisoned(&known.tables).actions.len() <= ENTRIES_MAX);
    }
}
