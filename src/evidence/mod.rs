//! The verifier: is the evidence intact, and if not, where does it break?
//!
//! All callers share one implementation: the command `aegis-verify-receipts`, the check of a
//! finished backup, the check of a restored file at startup, and the endpoints. It never
//! writes, and its memory use does not grow with the chain. It reads the evidence tables
//! themselves, never an index: see [`crate::store::receipts`].

pub mod database;
pub mod export;
pub mod manifest;
pub mod parallel;
pub mod source;
pub mod witness;

use crate::domain::chain::Break;

/// The result of a verification.
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
    /// The hash from which the chain is proven onward; empty if from its beginning.
    pub proven_from: String,
    /// How many breaks were reported.
    pub breaks: u64,
}

impl Summary {
    /// Whether no break was found.
    pub fn is_whole(&self) -> bool {
        self.breaks == 0
    }

    /// Adds the result for the stretch that follows.
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

/// Receives events while a chain is verified.
pub trait Observer {
    /// A break was found.
    fn found(&mut self, broken: &Break);

    /// Whether the observer needs [`checked`](Observer::checked) to be called for every receipt,
    /// in chain order.
    fn wants_each(&self) -> bool {
        false
    }

    /// A receipt was checked.
    fn checked(&mut self, receipt: &Checked<'_>) {
        let _unused = receipt;
    }

    /// The number of receipts checked so far; called every few thousand.
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
    /// Whether no break was found at it.
    pub whole: bool,
}

/// Keeps only the first break, which is enough for a one-line diagnosis.
#[derive(Debug, Default)]
pub struct FirstBreak(pub Option<Break>);

impl Observer for FirstBreak {
    fn found(&mut self, broken: &Break) {
        self.0.get_or_insert_with(|| broken.clone());
    }
}
