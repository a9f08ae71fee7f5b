//! Verifies the chain in a database, and the decisions stored with it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::domain::chain::{Break, BreakKind, ChainVerifier, Link};
use crate::domain::receipt::{FORMAT_VERSION, GENESIS, Receipt};
use crate::domain::record::Recorded;
use crate::store::error::Error;
use crate::store::{decisions, receipts};

use super::{Checked, Observer, Summary};

const PROGRESS_EVERY: u64 = 16_384;

/// Which part of the chain to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// From the first receipt to the recorded head, and every decision.
    Whole,
    /// The positions from the first to the second, inclusive, and the link to what follows
    /// them.
    Part(i64, i64),
}

/// A range of consecutive receipts and their decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// The first position.
    pub(super) first: i64,
    /// The last position, inclusive.
    pub(super) last: i64,
}

impl Stretch {
    /// Everything that is stored, including positions that no receipt may have.
    pub(super) const WHOLE: Stretch = Stretch { first: i64::MIN, last: i64::MAX };
}

/// Verifies on one consistent view of `connection`.
pub fn verify(
    connection: &Connection,
    extent: Extent,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let view = connection.unchecked_transaction().map_err(Error::cannot("begin to read"))?;
    let result = verify_view(&view, extent, observer);
    view.finish().map_err(Error::cannot("end a read"))?;
    result
}

/// Verifies on a view that the caller has opened.
pub(crate) fn verify_view(
    view: &Connection,
    extent: Extent,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    match extent {
        Extent::Whole => {
            let mut summary = verify_stretch(view, Stretch::WHOLE, observer)?;
            verify_ends(view, &mut summary, observer)?;
            Ok(summary)
        }
        Extent::Part(first, last) => verify_part(view, Stretch { first, last }, observer),
    }
}

/// Verifies a stretch and the link to what follows it, without which rows removed from its end,
/// or all of them, would go unnoticed.
fn verify_part(view: &Connection, part: Stretch, observer: &mut dyn Observer) -> Result<Summary, Error> {
    let mut summary = verify_stretch(view, part, observer)?;
    let (seq, hash) = match summary.head_seq {
        Some(seq) => (seq, summary.head_hash.clone()),
        None => (part.first.saturating_sub(1), summary.proven_from.clone()),
    };
    // Crossed bounds enclose nothing, so nothing between them may be skipped.
    let next = part.last.saturating_add(1).max(part.first);
    let link = receipts::find_at(view, next, |receipt, _| {
        (receipt.event_id.to_owned(), receipt.prev_receipt_hash.to_owned())
    })?;
    let chain = ChainVerifier::after(seq, hash.clone());
    let found = Summary { head_seq: Some(seq), head_hash: hash.clone(), ..Summary::default() };
    let mut ends = Verification { connection: view, observer, chain, summary: found, buffer: Vec::new() };
    match link {
        Some((id, previous)) if previous != hash => {
            ends.report(BreakKind::Link, Some(next), Some(&id), &hash, previous);
        }
        Some(_) => {}
        None => ends.check_head()?,
    }
    summary.breaks += ends.summary.breaks;
    Ok(summary)
}

/// Verifies every receipt of a stretch, starting from the hash stored before it.
pub(super) fn verify_stretch(
    connection: &Connection,
    stretch: Stretch,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let (before, proven_from) = match stretch.first {
        i64::MIN..=1 => (0, GENESIS.to_owned()),
        first => {
            let hash = receipts::find_at(connection, first - 1, |_, hash| hash.to_owned())?;
            (first - 1, hash.unwrap_or_default())
        }
    };
    let chain = ChainVerifier::after(before, proven_from.clone());
    let summary = Summary { proven_from, decisions: Some(0), ..Summary::default() };
    Verification { connection, observer, chain, summary, buffer: Vec::new() }.run(stretch)
}

/// Checks the recorded head, and for decisions without a receipt, after every receipt has been
/// verified.
pub(super) fn verify_ends(
    connection: &Connection,
    summary: &mut Summary,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let chain = ChainVerifier::after(0, GENESIS.to_owned());
    let mut ends =
        Verification { connection, observer, chain, summary: std::mem::take(summary), buffer: Vec::new() };
    ends.check_head()?;
    ends.check_decisions_without_receipt()?;
    *summary = ends.summary;
    Ok(())
}

struct Verification<'a> {
    connection: &'a Connection,
    observer: &'a mut dyn Observer,
    chain: ChainVerifier,
    summary: Summary,
    buffer: Vec<u8>,
}

impl Verification<'_> {
    fn run(mut self, stretch: Stretch) -> Result<Summary, Error> {
        let read = Error::cannot("read the chain");
        let mut statement = receipts::scan_with_decisions(self.connection).map_err(&read)?;
        let mut rows = receipts::rows(&mut statement, stretch.first, stretch.last).map_err(&read)?;
        while let Some(row) = rows.next().map_err(&read)? {
            self.check_row(row).map_err(&read)?;
        }
        if self.summary.receipts > 0
            && let Some((seq, hash)) = self.chain.last()
        {
            self.summary.head_seq = seq;
            self.summary.head_hash = hash.to_owned();
        }
        Ok(self.summary)
    }

    fn check_row(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        self.summary.receipts += 1;
        if self.summary.receipts.is_multiple_of(PROGRESS_EVERY) {
            self.observer.progress(self.summary.receipts);
        }
        let before = self.summary.breaks;
        let (receipt, stored) = match receipts::from_row(row, 0) {
            Ok(found) => found,
            Err(error) => {
                let seq = row.get(0).ok();
                self.report(BreakKind::Malformed, seq, None, "a receipt's columns", error.to_string());
                return Ok(());
            }
        };
        if receipt.format_version != FORMAT_VERSION {
            let found = receipt.format_version.to_string();
            let expected = FORMAT_VERSION.to_string();
            self.report(BreakKind::Malformed, Some(receipt.seq), Some(receipt.event_id), &expected, found);
        }
        let link = Link {
            seq: Some(receipt.seq),
            id: receipt.event_id,
            recomputed: receipt.hash(&mut self.buffer),
            receipt_hash: stored,
            prev_receipt_hash: receipt.prev_receipt_hash,
        };
        let (summary, observer) = (&mut self.summary, &mut self.observer);
        self.chain.push(&link, &mut |broken| {
            summary.breaks += 1;
            observer.found(&broken);
        });
        self.check_decision(&receipt, row)?;
        self.observer.checked(&Checked {
            seq: Some(receipt.seq),
            id: receipt.event_id,
            ts: receipt.ts,
            decision: receipt.decision,
            tool: receipt.tool,
            action: receipt.action,
            whole: self.summary.breaks == before,
        });
        Ok(())
    }

    /// Checks that the decision at a receipt's position is the one it names, agrees with it, and
    /// has the hash it states.
    fn check_decision(&mut self, receipt: &Receipt<'_>, row: &Row<'_>) -> rusqlite::Result<()> {
        let has_decision = row.get_ref(receipts::COLUMN_COUNT)? != ValueRef::Null;
        let (seq, id) = (Some(receipt.seq), Some(receipt.event_id));
        let Some(decision_id) = receipt.decision_id else {
            if has_decision {
                let found = format!("{:?}", row.get_ref(receipts::COLUMN_COUNT + 1)?);
                self.report(BreakKind::DecisionDiffers, seq, id, "no decision", found);
            }
            return Ok(());
        };
        if !has_decision {
            self.report(BreakKind::DecisionMissing, seq, id, decision_id, "nothing".to_owned());
            return Ok(());
        }
        match decisions::recorded_from_row(row, receipts::COLUMN_COUNT) {
            Ok(decision) => {
                *self.summary.decisions.get_or_insert(0) += 1;
                if let Some((expected, found)) = difference(receipt, &decision, &mut self.buffer) {
                    self.report(BreakKind::DecisionDiffers, seq, id, &expected, found);
                }
            }
            Err(error) => self.report(BreakKind::DecisionDiffers, seq, id, decision_id, error.to_string()),
        }
        Ok(())
    }

    fn check_head(&mut self) -> Result<(), Error> {
        let last = format!("{} {}", self.summary.head_seq.unwrap_or(0), self.summary.head_hash);
        // Reads values of any type and any number of rows, including none.
        let recorded = self.connection.query_row(
            "SELECT group_concat(head_seq || ' ' || head_hash, ', ') FROM chain NOT INDEXED",
            [],
            |row| row.get::<_, Option<String>>(0),
        );
        let recorded = match recorded {
            Ok(recorded) => recorded.unwrap_or_else(|| "none".to_owned()),
            Err(error) if self.connection.table_exists(None, "chain").unwrap_or(true) => {
                return Err(Error::cannot("read the chain's head")(error));
            }
            Err(_) => "none".to_owned(),
        };
        if recorded != last {
            let seq = Some(self.summary.head_seq.unwrap_or(0));
            self.report(BreakKind::Head, seq, None, &recorded, last);
        }
        Ok(())
    }

    fn check_decisions_without_receipt(&mut self) -> Result<(), Error> {
        decisions::without_receipt(self.connection, &mut |seq, id| {
            self.report(BreakKind::ReceiptMissing, Some(seq), Some(&id), "a receipt", "nothing".to_owned());
        })
        .map_err(Error::cannot("read the decisions"))
    }

    fn report(&mut self, kind: BreakKind, seq: Option<i64>, id: Option<&str>, expected: &str, found: String) {
        self.summary.breaks += 1;
        let (id, expected) = (id.map(str::to_owned), expected.to_owned());
        self.observer.found(&Break { kind, seq, id, expected, found });
    }
}

/// The first field in which a decision differs from its receipt.
fn difference(
    receipt: &Receipt<'_>,
    decision: &Recorded<'_>,
    buffer: &mut Vec<u8>,
) -> Option<(String, String)> {
    let hash = decision.hash(buffer).to_hex();
    let pairs = [
        ("id", receipt.decision_id, Some(decision.id)),
        ("agent_id", receipt.agent_id, Some(decision.agent_id)),
        ("user_id", receipt.user_id, decision.user_id),
        ("run_id", receipt.run_id, decision.run_id),
        ("trace_id", receipt.trace_id, decision.trace_id),
        ("tool", Some(receipt.tool), Some(decision.tool)),
        ("action", Some(receipt.action), Some(decision.action)),
        ("resource", receipt.resource, decision.resource),
        ("source_trust", Some(receipt.source_trust), Some(decision.source_trust)),
        ("decision", Some(receipt.decision), Some(decision.outcome)),
        ("policy_version", receipt.policy_version, Some(decision.policy_version)),
        ("created_at", Some(receipt.ts), Some(decision.created_at)),
        ("action_hash", receipt.action_hash, Some(decision.action_hash)),
        ("decision_hash", receipt.decision_hash, Some(hash.as_str())),
    ];
    let (name, expected, found) = pairs.into_iter().find(|(_, expected, found)| expected != found)?;
    let show = |value: Option<&str>| format!("{name} {}", value.unwrap_or("null"));
    Some((show(expected), show(found)))
}

/// SQLite's own check of every page, row and index. Returns the problems it reports, if any.
pub fn check_integrity(connection: &Connection) -> Result<Vec<String>, Error> {
    let check = || -> rusqlite::Result<Vec<String>> {
        let mut lines = connection.prepare("PRAGMA integrity_check(10)")?;
        let lines: Vec<String> = lines.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(if lines == ["ok"] { Vec::new() } else { lines })
    };
    check().map_err(Error::cannot("check the database's integrity"))
}
