//! Verifying receipts that were exported as JSON: an array, an object with a
//! `receipts` array, or one receipt a line; oldest or newest first.
//!
//! The text is cut into receipts as it is read, so a dump of any length takes the
//! memory of its largest receipt.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use crate::domain::json::{self, Json};
use crate::domain::receipt::{Break, BreakKind, ChainVerifier, GENESIS, Link, Order, hash_of_json};

use super::{Checked, Observer, Summary};

/// Largest single receipt that is read, in bytes.
pub const RECEIPT_BYTES_MAX: usize = 4 << 20;
const PROGRESS_EVERY: u64 = 16_384;
const TWICE: &str = "the receipts are given twice";

/// Why an export could not be read.
#[derive(Debug)]
pub enum ExportError {
    /// The system refused.
    Io(io::Error),
    /// It is not what this module reads.
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

/// Verifies receipts that have been read already.
pub fn verify_values(receipts: &[Json], observer: &mut dyn Observer) -> Summary {
    let mut verification = Export::new(observer);
    for value in receipts {
        verification.push(value);
    }
    verification.finish()
}

/// What is taken out of one receipt.
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
    /// The first receipt waits for the second, which shows the order.
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

/// The links show the order; where they are broken, the positions do.
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

/// Cuts a stream into the JSON texts of its receipts.
struct Pieces<R> {
    input: R,
    piece: Vec<u8>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    /// Inside the array, before an element.
    Array {
        first: bool,
        wrapped: bool,
    },
    Lines,
    Ended,
}

impl<R: BufRead> Pieces<R> {
    fn new(input: R) -> Self {
        Pieces { input, piece: Vec::new(), form: Form::Unknown }
    }

    fn next_receipt(&mut self) -> Result<Option<&[u8]>, ExportError> {
        if self.form == Form::Unknown && self.begin()? {
            return Ok(Some(&self.piece));
        }
        match self.form {
            Form::Unknown | Form::Ended => Ok(None),
            Form::Lines => {
                if self.skip_space()?.is_none() {
                    return Ok(None);
                }
                self.take_value()?;
                Ok(Some(&self.piece))
            }
            Form::Array { first, wrapped } => self.next_element(first, wrapped),
        }
    }

    fn next_element(&mut self, first: bool, wrapped: bool) -> Result<Option<&[u8]>, ExportError> {
        match (self.skip_space()?, first) {
            (Some(b']'), _) => {
                self.input.consume(1);
                self.form = Form::Ended;
                self.end(wrapped)?;
                return Ok(None);
            }
            (Some(b','), false) => self.input.consume(1),
            (Some(_), true) => {}
            _ => return Err(syntax("expected ',' or ']' after a receipt")),
        }
        self.form = Form::Array { first: false, wrapped };
        self.skip_space()?;
        self.take_value()?;
        Ok(Some(&self.piece))
    }

    /// Finds out the form; true when the first receipt has been read on the way.
    fn begin(&mut self) -> Result<bool, ExportError> {
        match self.skip_space()? {
            Some(b'[') => {
                self.input.consume(1);
                self.form = Form::Array { first: true, wrapped: false };
                Ok(false)
            }
            Some(b'{') => self.begin_object(),
            Some(_) => Err(syntax("expected '[' or '{'")),
            None => Err(syntax("it is empty")),
        }
    }

    /// An object is the wrapper of an array if it has the member `receipts`, else
    /// it is the first receipt of lines.
    fn begin_object(&mut self) -> Result<bool, ExportError> {
        self.input.consume(1);
        let mut object = vec![b'{'];
        let mut named = false;
        loop {
            match self.skip_space()? {
                Some(b'}') => {
                    self.input.consume(1);
                    object.push(b'}');
                    self.piece = object;
                    self.form = Form::Lines;
                    return Ok(true);
                }
                Some(b',') if object.len() > 1 => {
                    self.input.consume(1);
                    object.push(b',');
                    self.skip_space()?;
                }
                _ if object.len() > 1 => return Err(syntax("expected ',' or '}'")),
                _ => {}
            }
            let is_receipts = self.take_name()? == "receipts";
            if is_receipts && named {
                return Err(syntax(TWICE));
            }
            named |= is_receipts;
            object.append(&mut self.piece);
            object.push(b':');
            if is_receipts && self.skip_space()? == Some(b'[') {
                self.input.consume(1);
                self.form = Form::Array { first: true, wrapped: true };
                return Ok(false);
            }
            self.skip_space()?;
            self.take_value()?;
            object.append(&mut self.piece);
            if object.len() > RECEIPT_BYTES_MAX {
                return Err(syntax("a receipt is too large"));
            }
        }
    }

    /// A member's name and the colon after it; the name as written stays in `piece`.
    fn take_name(&mut self) -> Result<String, ExportError> {
        self.take_value()?;
        let Ok(Json::String(name)) = json::parse(&self.piece) else {
            return Err(syntax("expected a member's name"));
        };
        if self.skip_space()? != Some(b':') {
            return Err(syntax("expected ':'"));
        }
        self.input.consume(1);
        Ok(name)
    }

    /// Nothing but the rest of the wrapper may follow the array, and no second one in
    /// it: another reader would take that, and this one would have verified the first.
    fn end(&mut self, wrapped: bool) -> Result<(), ExportError> {
        let mut open = wrapped;
        loop {
            match self.skip_space()? {
                None if open => return Err(syntax("it is cut off")),
                None => return Ok(()),
                Some(b'}') if open => {
                    self.input.consume(1);
                    open = false;
                }
                Some(b',') if open => {
                    self.input.consume(1);
                    self.skip_space()?;
                    if self.take_name()? == "receipts" {
                        return Err(syntax(TWICE));
                    }
                    self.skip_space()?;
                    self.take_value()?;
                    json::parse(&self.piece).map_err(|error| syntax(&error.to_string()))?;
                }
                Some(_) => return Err(syntax("unexpected data after the receipts")),
            }
        }
    }

    fn skip_space(&mut self) -> Result<Option<u8>, ExportError> {
        loop {
            let buffer = self.input.fill_buf()?;
            let Some(&byte) = buffer.first() else { return Ok(None) };
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(Some(byte));
            }
            let spaces =
                buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
            self.input.consume(spaces);
        }
    }

    /// Takes one JSON value, whatever it is, by its brackets and quotes; the parser
    /// judges it afterwards.
    fn take_value(&mut self) -> Result<(), ExportError> {
        self.piece.clear();
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return if depth == 0 && !in_string && !self.piece.is_empty() {
                    Ok(())
                } else {
                    Err(syntax("it is cut off"))
                };
            }
            let (mut used, mut done) = (0, false);
            for &byte in buffer {
                if in_string {
                    in_string = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    done = !in_string && depth == 0;
                } else {
                    match byte {
                        b'"' => in_string = true,
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => {
                            // The end of a bare literal; not part of it.
                            done = true;
                            break;
                        }
                        b'}' | b']' => {
                            depth -= 1;
                            done = depth == 0;
                        }
                        _ => {}
                    }
                }
                used += 1;
                if done {
                    break;
                }
            }
            self.piece.extend_from_slice(&buffer[..used]);
            self.input.consume(used);
            if self.piece.len() > RECEIPT_BYTES_MAX {
                return Err(syntax("a receipt is too large"));
            }
            if done {
                return if self.piece.is_empty() { Err(syntax("expected a JSON value")) } else { Ok(()) };
            }
        }
    }
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
