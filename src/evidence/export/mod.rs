//! Verifies receipts exported as JSON: an array, an object with a `receipts` array, or one
//! receipt per line; oldest or newest first.
//!
//! The input is split into receipts as it is read, so an export of any length needs only the
//! memory of its largest receipt.

mod pieces;

use std::fmt;
use std::io::{self, BufReader, Read};

use crate::domain::chain::{Break, BreakKind, ChainVerifier, Link, Order};
use crate::domain::json::{self, Json};
use crate::domain::receipt::{GENESIS, hash_of_json};

use super::{Checked, Observer, Summary};
use pieces::Pieces;

/// Maximum size of a single receipt, in bytes.
pub const RECEIPT_BYTES_MAX: usize = 4 << 20;
const PROGRESS_EVERY: u64 = 16_384;

/// Why an export could not be read.
#[derive(Debug)]
pub enum ExportError {
    /// Reading failed.
    Io(io::Error),
    /// It is not in a form that this module reads.
    Syntax(String),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Io(error) => write!(f, "cannot read the export: {error}"),
            ExportError::Syntax(what) => write!(f, "not an export of receipts: {what}"),
        }
    }
}

impl std::error::Error for ExportError {}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        ExportError::Io(error)
    }
}

/// Verifies every receipt of `input`.
pub fn verify(input: impl Read, observer: &mut dyn Observer) -> Result<Summary, ExportError> {
    let mut pieces = Pieces::new(BufReader::with_capacity(1 << 16, input));
    let mut verification = Export::new(observer);
    while let Some(piece) = pieces.next_receipt()? {
        let value = json::parse(piece).map_err(|error| ExportError::Syntax(error.to_string()))?;
        verification.push(&value);
    }
    Ok(verification.finish())
}

/// Verifies receipts that have already been parsed.
pub fn verify_values(receipts: &[Json], observer: &mut dyn Observer) -> Summary {
    let mut verification = Export::new(observer);
    for value in receipts {
        verification.push(value);
    }
    verification.finish()
}

/// The parts of one receipt that verification needs.
struct Parts {
    seq: Option<i64>,
    id: String,
    ts: String,
    decision: String,
    tool: String,
    action: String,
    receipt_hash: String,
    prev_receipt_hash: String,
    recomputed: crate::domain::canon::Hash,
}

struct Export<'a> {
    observer: &'a mut dyn Observer,
    summary: Summary,
    /// The first receipt, held until the second one shows the order.
    first: Option<Parts>,
    chain: Option<ChainVerifier>,
    order: Order,
    newest: Option<(Option<i64>, String)>,
    oldest_prev: String,
}

impl<'a> Export<'a> {
    fn new(observer: &'a mut dyn Observer) -> Self {
        Export {
            observer,
            summary: Summary::default(),
            first: None,
            chain: None,
            order: Order::OldestFirst,
            newest: None,
            oldest_prev: GENESIS.to_owned(),
        }
    }

    fn push(&mut self, value: &Json) {
        self.summary.receipts += 1;
        if self.summary.receipts.is_multiple_of(PROGRESS_EVERY) {
            self.observer.progress(self.summary.receipts);
        }
        let parts = match parts(value) {
            Ok(parts) => parts,
            Err(what) => {
                let position = i64::try_from(self.summary.receipts).ok();
                self.report(&Break {
                    kind: BreakKind::Malformed,
                    seq: position,
                    id: None,
                    expected: "a receipt".to_owned(),
                    found: what.to_owned(),
                });
                return;
            }
        };
        if self.chain.is_some() {
            self.check(&parts);
        } else if let Some(first) = self.first.take() {
            self.order = order_of(&first, &parts);
            self.chain = Some(ChainVerifier::new(self.order));
            self.check(&first);
            self.check(&parts);
        } else {
            self.first = Some(parts);
        }
    }

    fn check(&mut self, parts: &Parts) {
        let before = self.summary.breaks;
        let link = Link {
            seq: parts.seq,
            id: &parts.id,
            recomputed: parts.recomputed,
            receipt_hash: &parts.receipt_hash,
            prev_receipt_hash: &parts.prev_receipt_hash,
        };
        let (summary, observer) = (&mut self.summary, &mut self.observer);
        let chain = self.chain.get_or_insert_with(|| ChainVerifier::new(self.order));
        chain.push(&link, &mut |broken| {
            summary.breaks += 1;
            observer.found(&broken);
        });
        self.observer.checked(&Checked {
            seq: parts.seq,
            id: &parts.id,
            ts: &parts.ts,
            decision: &parts.decision,
            tool: &parts.tool,
            action: &parts.action,
            whole: self.summary.breaks == before,
        });
        let hash = || Some((parts.seq, parts.receipt_hash.clone()));
        match self.order {
            Order::OldestFirst => {
                if self.newest.is_none() {
                    self.oldest_prev.clone_from(&parts.prev_receipt_hash);
                }
                self.newest = hash();
            }
            Order::NewestFirst => {
                if self.newest.is_none() {
                    self.newest = hash();
                }
                self.oldest_prev.clone_from(&parts.prev_receipt_hash);
            }
        }
    }

    fn report(&mut self, broken: &Break) {
        self.summary.breaks += 1;
        self.observer.found(broken);
    }

    fn finish(mut self) -> Summary {
        if let Some(only) = self.first.take() {
            self.check(&only);
        }
        if let Some((seq, hash)) = self.newest {
            self.summary.head_seq = seq;
            self.summary.head_hash = hash;
        }
        self.summary.proven_from = self.oldest_prev;
        self.summary
    }
}

/// The links determine the order or, if they are broken, the positions.
fn order_of(first: &Parts, second: &Parts) -> Order {
    if second.prev_receipt_hash == first.receipt_hash {
        return Order::OldestFirst;
    }
    if first.prev_receipt_hash == second.receipt_hash {
        return Order::NewestFirst;
    }
    match (first.seq, second.seq) {
        (Some(first), Some(second)) if first > second => Order::NewestFirst,
        _ => Order::OldestFirst,
    }
}

fn parts(value: &Json) -> Result<Parts, &'static str> {
    let Json::Object(members) = value else { return Err("not an object") };
    let text = |name: &str| value.get(name).and_then(Json::as_str);
    let shown = |name: &str| text(name).unwrap_or("-").to_owned();
    let seq = match value.get("seq") {
        Some(Json::Number(number)) => number.as_str().parse().ok(),
        _ => None,
    };
    Ok(Parts {
        seq,
        id: shown("event_id"),
        ts: shown("ts"),
        decision: shown("decision"),
        tool: shown("tool"),
        action: shown("action"),
        receipt_hash: text("receipt_hash").ok_or("no receipt_hash")?.to_owned(),
        prev_receipt_hash: text("prev_receipt_hash").ok_or("no prev_receipt_hash")?.to_owned(),
        recomputed: hash_of_json(members),
    })
}

fn syntax(what: &str) -> ExportError {
    ExportError::Syntax(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::FirstBreak;

    fn golden() -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/receipt_chain_vectors.json");
        let text = std::fs::read_to_string(path).expect("the golden file");
        let golden: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let receipts = golden["receipts"].as_array().expect("receipts");
        receipts.iter().map(ToString::to_string).collect()
    }

    fn outcome(text: &str) -> Result<(u64, Option<BreakKind>), String> {
        let mut first = FirstBreak::default();
        let summary = verify(text.as_bytes(), &mut first).map_err(|error| error.to_string())?;
        Ok((summary.receipts, first.0.map(|broken| broken.kind)))
    }

    #[test]
    fn every_form_in_both_orders_verifies() {
        let forward = golden();
        let backward: Vec<_> = forward.iter().rev().cloned().collect();
        for receipts in [forward, backward] {
            let array = format!("[{}]", receipts.join(" ,\n"));
            for text in [
                array.clone(),
                format!(" {{\"count\": 3, \"receipts\": {array}, \"more\": [{{}}, \"]}}\"]}}\n"),
                receipts.join("\n"),
                format!("{}\n\n", receipts.join("\n")),
            ] {
                assert_eq!(outcome(&text), Ok((3, None)), "{text}");
            }
        }
        assert_eq!(outcome(&golden()[0]), Ok((1, None)));
        assert_eq!(outcome("[]"), Ok((0, None)));
    }

    #[test]
    fn a_slice_says_from_which_hash_it_is_proven() {
        let receipts = golden();
        let text = format!("[{},{}]", receipts[2], receipts[1]);
        let summary = verify(text.as_bytes(), &mut FirstBreak::default()).expect("readable");
        assert!(summary.is_whole());
        assert_eq!(summary.proven_from, "a84bcc5881e29fe1da822f50fe7458e7e942f2dd3c6df2b9ce1ca85d716dc603");
        assert_eq!(summary.head_hash, "31d22b32c6440e68f50e1bdd925c63b53d57592d4ae088af5436a003a45021e4");
    }

    #[test]
    fn what_is_no_receipt_is_a_break_and_what_is_no_json_is_an_error() {
        assert_eq!(outcome("[5]"), Ok((1, Some(BreakKind::Malformed))));
        assert_eq!(outcome("[{}]"), Ok((1, Some(BreakKind::Malformed))));
        for text in
            ["", " ", "x", "[1 2]", "[{]", "[{}", "{\"receipts\":[]", "[] []", "[{\"a\":1,\"a\":2}]", "[,]"]
        {
            assert!(outcome(text).is_err(), "{text}: {:?}", outcome(text));
        }
    }
}
