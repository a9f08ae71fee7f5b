//! Receipts: the links of the chain.
//!
//! A receipt is a flat object of strings, integers and nulls. Its hash covers every
//! member except the hash itself, including the hash of the previous receipt, so the
//! last hash commits to the whole history. What is served is exactly what is hashed,
//! plus `receipt_hash`: both come from the single list of members below.

use std::fmt;

use super::canon::{self, Hash, ObjectWriter};
use super::json::Json;

/// The version of the member list. A new list gets a higher number; receipts of this one
/// keep verifying.
pub const FORMAT_VERSION: i64 = 1;

/// `prev_receipt_hash` of the first receipt.
pub const GENESIS: &str = "";

/// Stands for the head of an empty chain where a hash is expected.
pub const EMPTY_HEAD: &str = "empty";

/// One receipt, borrowed from wherever it is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Receipt<'a> {
    /// Position in the chain, starting at 1, without gaps.
    pub seq: i64,
    /// See [`FORMAT_VERSION`].
    pub format_version: i64,
    /// See [`canon::VERSION`].
    pub canon_version: &'a str,
    /// Unique id of the receipt.
    pub event_id: &'a str,
    /// When it was made; never earlier than the previous receipt.
    pub ts: &'a str,
    /// UUID of the agent.
    pub agent_id: Option<&'a str>,
    /// On whose behalf.
    pub user_id: Option<&'a str>,
    /// The caller's run.
    pub run_id: Option<&'a str>,
    /// The caller's trace.
    pub trace_id: Option<&'a str>,
    /// Name of the tool.
    pub tool: &'a str,
    /// Name of the action.
    pub action: &'a str,
    /// What it acts on.
    pub resource: Option<&'a str>,
    /// The source's trust.
    pub source_trust: &'a str,
    /// The outcome.
    pub decision: &'a str,
    /// Who approved, if anyone did.
    pub approver: Option<&'a str>,
    /// SHA-256 of the canonical call.
    pub action_hash: Option<&'a str>,
    /// The decision this receipt is for.
    pub decision_id: Option<&'a str>,
    /// SHA-256 of the whole recorded decision.
    pub decision_hash: Option<&'a str>,
    /// The version of the rules that decided.
    pub policy_version: Option<&'a str>,
    /// `receipt_hash` of the previous receipt, [`GENESIS`] for the first.
    pub prev_receipt_hash: &'a str,
}

impl Receipt<'_> {
    /// The SHA-256 of every member.
    pub fn hash(&self, buffer: &mut Vec<u8>) -> Hash {
        buffer.clear();
        self.write(buffer, None);
        Hash::of(buffer)
    }

    /// Appends the object that clients receive: the hashed members and `receipt_hash`.
    pub fn write_served(&self, out: &mut Vec<u8>, receipt_hash: &str) {
        self.write(out, Some(receipt_hash));
    }

    /// The only list of members, in canonical order.
    fn write(&self, out: &mut Vec<u8>, receipt_hash: Option<&str>) {
        let mut object = ObjectWriter::new(out);
        object.string("action", self.action);
        object.optional("action_hash", self.action_hash);
        object.optional("agent_id", self.agent_id);
        object.optional("approver", self.approver);
        object.string("canon_version", self.canon_version);
        object.string("decision", self.decision);
        object.optional("decision_hash", self.decision_hash);
        object.optional("decision_id", self.decision_id);
        object.string("event_id", self.event_id);
        object.integer("format_version", self.format_version);
        object.optional("policy_version", self.policy_version);
        object.string("prev_receipt_hash", self.prev_receipt_hash);
        if let Some(receipt_hash) = receipt_hash {
            object.string("receipt_hash", receipt_hash);
        }
        object.optional("resource", self.resource);
        object.optional("run_id", self.run_id);
        object.integer("seq", self.seq);
        object.string("source_trust", self.source_trust);
        object.string("tool", self.tool);
        object.optional("trace_id", self.trace_id);
        object.string("ts", self.ts);
        object.optional("user_id", self.user_id);
        object.end();
    }
}

/// The hash of a receipt given as JSON: every member except `receipt_hash` counts,
/// whatever its name, so an export of any version verifies.
pub fn hash_of_json(members: &[(String, Json)]) -> Hash {
    let mut out = Vec::with_capacity(1024);
    let mut object = ObjectWriter::new(&mut out);
    for (name, value) in members.iter().filter(|(name, _)| name != "receipt_hash") {
        canon::write(object.member(name), value);
    }
    object.end();
    Hash::of(&out)
}

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
    use crate::domain::json::parse;

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

    fn sample() -> Receipt<'static> {
        Receipt {
            seq: 7,
            format_version: FORMAT_VERSION,
            canon_version: canon::VERSION,
            event_id: "rcpt_7_00",
            ts: "2026-11-23T00:00:00.000000Z",
            agent_id: Some("a"),
            user_id: None,
            run_id: Some("r\u{e9}\n"),
            trace_id: None,
            tool: "t",
            action: "x",
            resource: None,
            source_trust: "unknown",
            decision: "deny",
            approver: None,
            action_hash: None,
            decision_id: None,
            decision_hash: None,
            policy_version: None,
            prev_receipt_hash: GENESIS,
        }
    }

    #[test]
    fn the_served_object_is_the_hashed_one_and_its_hash() {
        let mut buffer = Vec::new();
        let hash = sample().hash(&mut buffer);
        let hashed = buffer.clone();
        let mut served = Vec::new();
        sample().write_served(&mut served, &hash.to_string());
        let Ok(Json::Object(members)) = parse(&served) else { panic!("not an object") };
        assert_eq!(hash_of_json(&members), hash);
        assert_eq!(canon::to_vec(&parse(&hashed).expect("JSON")), hashed, "not canonical");
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "event_id",
            "ts",
            "agent_id",
            "user_id",
            "run_id",
            "trace_id",
            "tool",
            "action",
            "resource",
            "source_trust",
            "decision",
            "approver",
            "action_hash",
            "prev_receipt_hash",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
