//! Verifies receipts as links of a chain: each by itself, and against the one before it.

use std::fmt;

use super::canon::Hash;

/// What is wrong with one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakKind {
    /// The stored hash is not the hash of the members.
    Hash,
    /// The previous hash is not the hash of the previous receipt.
    Link,
    /// The sequence number does not follow.
    Sequence,
    /// Not a receipt: a member is missing or has the wrong type.
    Malformed,
    /// The last receipt is not the recorded or expected head.
    Head,
    /// A receipt names a decision that does not exist.
    DecisionMissing,
    /// A decision does not match its receipt.
    DecisionDiffers,
    /// A decision has no receipt.
    ReceiptMissing,
}

impl BreakKind {
    /// Stable name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakKind::Hash => "hash_mismatch",
            BreakKind::Link => "link_mismatch",
            BreakKind::Sequence => "sequence_gap",
            BreakKind::Malformed => "malformed",
            BreakKind::Head => "head_mismatch",
            BreakKind::DecisionMissing => "decision_missing",
            BreakKind::DecisionDiffers => "decision_differs",
            BreakKind::ReceiptMissing => "receipt_missing",
        }
    }
}

/// One defect, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// What is wrong.
    pub kind: BreakKind,
    /// Position in the chain, or in the export if the receipt has none.
    pub seq: Option<i64>,
    /// The receipt's or decision's id.
    pub id: Option<String>,
    /// The expected value.
    pub expected: String,
    /// The value found.
    pub found: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = self.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        // The id comes from the file: escaped, so that it cannot control a terminal or forge
        // a line.
        let id = self.id.as_deref().unwrap_or("-").escape_debug();
        let (kind, expected, found) = (self.kind.as_str(), &self.expected, &self.found);
        write!(f, "{kind} at seq {seq}, id {id}: expected {expected:?}, found {found:?}")
    }
}

/// The parts of a receipt that chain verification needs.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Position in the chain, if known.
    pub seq: Option<i64>,
    /// The receipt's id.
    pub id: &'a str,
    /// The hash of its members, recomputed.
    pub recomputed: Hash,
    /// Its `receipt_hash`.
    pub receipt_hash: &'a str,
    /// Its `prev_receipt_hash`.
    pub prev_receipt_hash: &'a str,
}

/// The order of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each receipt follows the one before it.
    OldestFirst,
    /// Each receipt precedes the one before it.
    NewestFirst,
}

/// Verifies a chain link by link, in bounded memory.
///
/// After a break it continues from what is stored, so one bad receipt is one break
/// and everything after it is still checked.
#[derive(Debug)]
pub struct ChainVerifier {
    order: Order,
    last: Option<Seen>,
    /// Number of links checked.
    pub count: u64,
}

#[derive(Debug)]
struct Seen {
    seq: Option<i64>,
    id: String,
    receipt_hash: String,
    prev_receipt_hash: String,
}

impl ChainVerifier {
    /// A verifier that accepts any receipt as the first.
    pub fn new(order: Order) -> Self {
        ChainVerifier { order, last: None, count: 0 }
    }

    /// A verifier whose next receipt must follow the given one.
    pub fn after(seq: i64, receipt_hash: String) -> Self {
        let last = Seen { seq: Some(seq), id: String::new(), receipt_hash, prev_receipt_hash: String::new() };
        ChainVerifier { order: Order::OldestFirst, last: Some(last), count: 0 }
    }

    /// Checks one receipt on its own and against the previous one.
    pub fn push(&mut self, link: &Link<'_>, report: &mut dyn FnMut(Break)) {
        self.count += 1;
        let recomputed = link.recomputed.to_hex();
        if recomputed.as_str() != link.receipt_hash {
            report(Break {
                kind: BreakKind::Hash,
                seq: link.seq,
                id: Some(link.id.to_owned()),
                expected: recomputed.as_str().to_owned(),
                found: link.receipt_hash.to_owned(),
            });
        }
        match (&self.last, self.order) {
            (None, _) => {}
            (Some(last), Order::OldestFirst) => {
                check_link(link.seq, link.id, link.prev_receipt_hash, &last.receipt_hash, report);
                check_seq(link.seq, link.id, last.seq.map(|seq| i128::from(seq) + 1), report);
            }
            (Some(last), Order::NewestFirst) => {
                check_link(last.seq, &last.id, &last.prev_receipt_hash, link.receipt_hash, report);
                check_seq(link.seq, link.id, last.seq.map(|seq| i128::from(seq) - 1), report);
            }
        }
        self.remember(link);
    }

    fn remember(&mut self, link: &Link<'_>) {
        let last = self.last.get_or_insert_with(|| Seen {
            seq: None,
            id: String::new(),
            receipt_hash: String::new(),
            prev_receipt_hash: String::new(),
        });
        last.seq = link.seq;
        link.id.clone_into(&mut last.id);
        link.receipt_hash.clone_into(&mut last.receipt_hash);
        link.prev_receipt_hash.clone_into(&mut last.prev_receipt_hash);
    }

    /// Position and hash of the last receipt checked.
    pub fn last(&self) -> Option<(Option<i64>, &str)> {
        self.last.as_ref().map(|last| (last.seq, last.receipt_hash.as_str()))
    }
}

fn check_link(seq: Option<i64>, id: &str, prev: &str, expected: &str, report: &mut dyn FnMut(Break)) {
    if prev != expected {
        report(Break {
            kind: BreakKind::Link,
            seq,
            id: Some(id.to_owned()),
            expected: expected.to_owned(),
            found: prev.to_owned(),
        });
    }
}

/// `expected` is wider than a position, since an export may claim the highest one there is.
fn check_seq(seq: Option<i64>, id: &str, expected: Option<i128>, report: &mut dyn FnMut(Break)) {
    if let (Some(seq), Some(expected)) = (seq, expected)
        && i128::from(seq) != expected
    {
        report(Break {
            kind: BreakKind::Sequence,
            seq: Some(seq),
            id: Some(id.to_owned()),
            expected: expected.to_string(),
            found: seq.to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::{Json, parse};
    use crate::domain::receipt::hash_of_json;

    fn golden() -> Vec<Vec<(String, Json)>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/receipt_chain_vectors.json");
        let golden = parse(&std::fs::read(path).expect("the golden file")).expect("JSON");
        let Some(Json::Array(receipts)) = golden.get("receipts") else { panic!("no receipts") };
        let members = |json: &Json| match json {
            Json::Object(members) => members.clone(),
            other => panic!("{other:?}"),
        };
        receipts.iter().map(members).collect()
    }

    fn text(members: &[(String, Json)], name: &str) -> String {
        let found = members.iter().find(|(key, _)| key == name);
        found.and_then(|(_, value)| value.as_str()).expect(name).to_owned()
    }

    fn breaks(receipts: &[Vec<(String, Json)>], order: Order) -> Vec<BreakKind> {
        let mut verifier = ChainVerifier::new(order);
        let mut kinds = Vec::new();
        for members in receipts {
            let (id, hash) = (text(members, "event_id"), text(members, "receipt_hash"));
            let prev = text(members, "prev_receipt_hash");
            let link = Link {
                seq: None,
                id: &id,
                recomputed: hash_of_json(members),
                receipt_hash: &hash,
                prev_receipt_hash: &prev,
            };
            verifier.push(&link, &mut |found| kinds.push(found.kind));
        }
        kinds
    }

    #[test]
    fn every_golden_receipt_has_its_hash_and_its_link() {
        let mut receipts = golden();
        assert_eq!(receipts.len(), 3);
        assert_eq!(breaks(&receipts, Order::OldestFirst), []);
        receipts.reverse();
        assert_eq!(breaks(&receipts, Order::NewestFirst), []);
    }

    #[test]
    fn a_dropped_swapped_or_edited_golden_receipt_is_found() {
        let mut dropped = golden();
        dropped.remove(1);
        assert_eq!(breaks(&dropped, Order::OldestFirst), [BreakKind::Link]);

        let mut swapped = golden();
        swapped.swap(1, 2);
        assert_eq!(breaks(&swapped, Order::OldestFirst), [BreakKind::Link, BreakKind::Link]);

        for receipt in 0..3 {
            for member in 0..golden()[receipt].len() {
                let mut edited = golden();
                edited[receipt][member].1 = Json::String("edited".into());
                assert!(!breaks(&edited, Order::OldestFirst).is_empty(), "{receipt} {member}");
            }
        }
    }

    #[test]
    fn nothing_follows_the_last_position_that_can_be_written() {
        for (order, last) in [(Order::OldestFirst, i64::MAX), (Order::NewestFirst, i64::MIN)] {
            for next in [last, 1] {
                let mut verifier = ChainVerifier::new(order);
                let mut kinds = Vec::new();
                for seq in [last, next] {
                    let recomputed = Hash::of(b"");
                    let (receipt_hash, prev_receipt_hash) =
                        (&*recomputed.to_string(), &*recomputed.to_string());
                    let link = Link { seq: Some(seq), id: "r", recomputed, receipt_hash, prev_receipt_hash };
                    verifier.push(&link, &mut |found| kinds.push(found.kind));
                }
                assert_eq!(kinds, [BreakKind::Sequence], "{last} {next}");
            }
        }
    }
}
