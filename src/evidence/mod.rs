//! The verifier: is the evidence whole, and if not, what breaks it?
//!
//! One way of checking serves everybody: the command `aegis-verify-receipts`, the
//! check of a finished backup, the check of a restored file at start, and the
//! endpoints. It reads, never writes, and its memory does not grow with the chain. It goes
//! by the tables of evidence themselves, never by an index: see [`crate::store::receipts`].

pub mod database;
pub mod export;
pub mod manifest;
pub mod parallel;
pub mod source;
pub mod witness;

use crate::domain::receipt::Break;

/// What a verification found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many receipts were checked.
    pub receipts: u64,
    /// How many decisions were compared with their receipts; `None` for an export.
    pub decisions: Option<u64>,
    /// Position of the newest receipt.
    pub head_seq: Option<i64>,
    /// Hash of the newest receipt, empty when there is none.
    pub head_hash: String,
    /// The hash from which on the chain is proven; empty when from its beginning.
    pub proven_from: String,
    /// How many breaks were reported.
    pub breaks: u64,
}

impl Summary {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.breaks == 0
    }

    /// Adds what was found of the stretch that follows.
    fn extend(&mut self, next: Summary) {
        self.receipts += next.receipts;
        self.decisions = self.decisions.zip(next.decisions).map(|(own, next)| own + next);
        self.breaks += next.breaks;
        if next.receipts > 0 {
            self.head_seq = next.head_seq;
            self.head_hash = next.head_hash;
        }
    }
}

/// Who listens while a chain is verified.
pub trait Observer {
    /// Something is wrong.
    fn found(&mut self, broken: &Break);

    /// Whether [`checked`](Observer::checked) is of use: it is called for every receipt, in
    /// the order of the chain.
    fn wants_each(&self) -> bool {
        false
    }

    /// A receipt was looked at.
    fn checked(&mut self, receipt: &Checked<'_>) {
        let _unused = receipt;
    }

    /// So many receipts were checked so far; called every few thousand.
    fn progress(&mut self, receipts: u64) {
        let _unused = receipts;
    }
}

/// One receipt, for a table.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// Its position.
    pub seq: Option<i64>,
    /// Its id.
    pub id: &'a str,
    /// When it was made.
    pub ts: &'a str,
    /// Its outcome.
    pub decision: &'a str,
    /// Its tool.
    pub tool: &'a str,
    /// Its action.
    pub action: &'a str,
    /// Whether nothing was found wrong with it.
    pub whole: bool,
}

/// Keeps the first break only: enough to name what is wrong in a line.
#[derive(Debug, Default)]
pub struct FirstBreak(pub Option<Break>);

impl Observer for FirstBreak {
    fn found(&mut self, broken: &Break) {
        self.0.get_or_insert_with(|| broken.clone());
    }
}
