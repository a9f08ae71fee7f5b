//! The transaction, as the operations of a batch see it.

use rusqlite::Connection;

use crate::store::known::{Compiled, Known};
use crate::store::receipts::Head;

/// The transaction that an operation runs in.
pub struct Tx<'a> {
    pub(super) connection: &'a Connection,
    /// The chain's, with what this transaction has appended.
    pub(in crate::store) head: &'a mut Head,
    pub(super) known: &'a Known,
    pub(super) registry_changed: &'a mut bool,
}

impl Tx<'_> {
    /// For the functions of `store` that take the transaction.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Policies by their content, which is right whatever changed.
    pub(in crate::store) fn compiled(&self) -> &Compiled {
        self.known.compiled()
    }

    /// What is known of agents, operators, tools and policies; `None` once this transaction
    /// has changed them, since nobody may learn of a change before it is committed.
    pub(in crate::store) fn known(&self) -> Option<&Known> {
        (!*self.registry_changed).then_some(self.known)
    }

    /// To be called by whoever changes agents, operators, tools or policies.
    pub(in crate::store) fn changes_registry(&mut self) {
        *self.registry_changed = true;
    }
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}
