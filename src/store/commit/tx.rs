//! The transaction as seen by the operations of a batch.

use rusqlite::Connection;

use crate::store::known::{Compiled, Known};
use crate::store::receipts::Head;

/// The transaction that an operation runs in.
pub struct Tx<'a> {
    pub(super) connection: &'a Connection,
    /// The chain's head, including what this transaction has appended.
    pub(in crate::store) head: &'a mut Head,
    pub(super) known: &'a Known,
    pub(super) registry_changed: &'a mut bool,
}

impl Tx<'_> {
    /// For the functions of `store` that take the transaction.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection
    }

    /// Policy sets by content, which are valid whatever has changed.
    pub(in crate::store) fn compiled(&self) -> &Compiled {
        self.known.compiled()
    }

    /// The cache of agents, operators, tools and policies; `None` once this transaction has
    /// changed any of them, so that no uncommitted change gets into the cache.
    pub(in crate::store) fn known(&self) -> Option<&Known> {
        (!*self.registry_changed).then_some(self.known)
    }

    /// Must be called by every change to agents, operators, tools or policies.
    pub(in crate::store) fn changes_registry(&mut self) {
        *self.registry_changed = true;
    }
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").finish_non_exhaustive()
    }
}
