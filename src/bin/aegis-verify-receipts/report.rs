//! The command's report: as text, or as one JSON object.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use serde_json::{Value, json};

use aegis_gateway::domain::chain::{Break, BreakKind};
use aegis_gateway::evidence::witness::verdict::{Overall, Verdict};
use aegis_gateway::evidence::witness::{self, Judged};
use aegis_gateway::evidence::{Checked, Observer, Summary};

use crate::arguments::Arguments;
use crate::{TAMPERED, complain};

/// Written with the first break or at the end, so that an earlier failure leaves no partial
/// report.
const OPENING: &str = "{\"breaks\":[";

/// Streams findings, so that memory stays small however many there are.
pub(crate) struct Report<'a> {
    arguments: &'a Arguments,
    out: BufWriter<io::Stdout>,
    pub(crate) note: Option<String>,
    pub(crate) breaks: u64,
    failed: Option<io::Error>,
    progress: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(arguments: &'a Arguments) -> Self {
        let mut report = Report {
            arguments,
            out: BufWriter::new(io::stdout()),
            note: None,
            breaks: 0,
            failed: None,
            progress: io::stderr().is_terminal() && !arguments.table,
        };
        if arguments.table {
            report.write(&row(["seq", "ts", "decision", "tool", "action", "receipt", "state"]));
        }
        report
    }

    fn write(&mut self, text: &str) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(text.as_bytes()).err();
        }
    }

    /// Writes the rest of the report; returns the exit status.
    pub(crate) fn finish(
        mut self,
        mut summary: Summary,
        witnessed: Option<&witness::Report<'_>>,
    ) -> io::Result<u8> {
        if self.progress {
            complain("\r\x1b[K");
        }
        if let Some(expected) = self.arguments.expect_head.clone()
            && summary.head_hash != expected
        {
            summary.breaks += 1;
            let found = summary.head_hash.clone();
            self.found(&Break { kind: BreakKind::Head, seq: summary.head_seq, id: None, expected, found });
        }
        let overall = witnessed.map(|witnessed| witnessed.overall(!summary.is_whole()));
        let passed = match overall {
            None => summary.is_whole(),
            Some(Overall::Verified) => true,
            Some(Overall::Unwitnessed) => !self.arguments.require_witness,
            Some(
                Overall::Broken
                | Overall::Rewritten
                | Overall::Forked
                | Overall::Truncated
                | Overall::Altered,
            ) => false,
        };
        if self.arguments.json {
            self.write_json(&summary, overall, passed, witnessed);
        } else {
            self.write_text(&summary, overall, witnessed);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.out.flush()?;
        Ok(if passed { 0 } else { TAMPERED })
    }

    fn write_json(
        &mut self,
        summary: &Summary,
        overall: Option<Overall>,
        passed: bool,
        witnessed: Option<&witness::Report<'_>>,
    ) {
        let mut rest = json!({
            "verdict": overall.map_or_else(|| alone(summary), Overall::as_str),
            "verified": passed,
            "receipts": summary.receipts,
            "decisions": summary.decisions,
            "head_seq": summary.head_seq,
            "head_hash": summary.head_hash,
            "proven_from": summary.proven_from,
            "break_count": summary.breaks,
            "note": self.note,
        });
        if let Some(witnessed) = witnessed {
            rest["witnesses"] = witnesses(witnessed);
        }
        // If there were breaks, their list is still open; the rest of the object closes it.
        if self.breaks == 0 {
            self.write(OPENING);
        }
        self.write("],");
        self.write(&rest.to_string()[1..]);
        self.write("\n");
    }

    fn write_text(
        &mut self,
        summary: &Summary,
        overall: Option<Overall>,
        witnessed: Option<&witness::Report<'_>>,
    ) {
        // On standard error: a note is neither a verdict nor a break.
        if let Some(note) = self.note.take() {
            complain(&format!("note: {note}\n"));
        }
        if let Some(witnessed) = witnessed {
            self.write_offenders(witnessed);
        }
        let verdict = match overall {
            None => alone(summary),
            Some(Overall::Broken) => "TAMPERED (broken)",
            Some(other) => other.as_str(),
        };
        let decisions = summary.decisions.map_or(String::new(), |count| format!(" and {count} decisions"));
        let from = match summary.proven_from.as_str() {
            "" => "from the first".to_owned(),
            hash => format!("after {}", hash.escape_debug()),
        };
        let head = match summary.head_hash.as_str() {
            "" => "empty".to_owned(),
            hash => {
                let hash = hash.escape_debug();
                summary.head_seq.map_or(hash.to_string(), |seq| format!("seq {seq}, {hash}"))
            }
        };
        let count = summary.receipts;
        self.write(&format!("{verdict}: {count} receipts{decisions}, {from}; head {head}\n"));
        if !summary.is_whole() {
            self.write(&format!("{} breaks\n", summary.breaks));
        }
        if let Some(witnessed) = witnessed {
            self.write(&counts(witnessed));
        }
    }

    fn write_offenders(&mut self, witnessed: &witness::Report<'_>) {
        for judged in &witnessed.judged {
            let (seq, path) = (judged.witness.pin.seq, shown(&judged.witness.path));
            match judged.verdict {
                Verdict::Matched | Verdict::Later => {}
                Verdict::Acknowledged { restored_at } => self.write(&format!(
                    "fork acknowledged at seq {seq}, witness {path}: the chain records a restore at seq {restored_at}\n"
                )),
                Verdict::Rewritten | Verdict::Forked | Verdict::Truncated => {
                    let verdict = judged.verdict.as_str();
                    let (expected, found) = difference(judged);
                    self.write(&format!(
                        "{verdict} at seq {seq}, witness {path}: expected {expected:?}, found {found:?}\n"
                    ));
                }
            }
        }
        for altered in &witnessed.altered {
            let what = altered.kind.replace('_', " ");
            let (path, witness) = (shown(&altered.path), shown(&altered.witness));
            let (expected, found) = (&altered.expected, &altered.found);
            self.write(&format!("{what}: {path}, by {witness}: expected {expected:?}, found {found:?}\n"));
        }
        for unreadable in witnessed.unreadable {
            let reason = unreadable.reason.escape_debug();
            self.write(&format!("unreadable: {}: {reason}\n", shown(&unreadable.path)));
        }
    }
}

impl Observer for Report<'_> {
    fn found(&mut self, broken: &Break) {
        if self.arguments.json {
            let comma = if self.breaks > 0 { "," } else { OPENING };
            let one = json!({
                "kind": broken.kind.as_str(), "seq": broken.seq, "id": broken.id,
                "expected": broken.expected, "found": broken.found,
            });
            self.write(&format!("{comma}{one}"));
        } else {
            self.write(&format!("{broken}\n"));
        }
        self.breaks += 1;
    }

    fn wants_each(&self) -> bool {
        self.arguments.table
    }

    fn checked(&mut self, receipt: &Checked<'_>) {
        if self.arguments.table {
            let seq = receipt.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
            let state = if receipt.whole { "ok" } else { "BROKEN" };
            let Checked { ts, decision, tool, action, id, .. } = *receipt;
            self.write(&row([&seq, ts, decision, tool, action, id, state]));
        }
    }

    fn progress(&mut self, receipts: u64) {
        if self.progress {
            complain(&format!("\r{receipts} receipts checked"));
        }
    }
}

/// The verdict on a chain without witnesses.
fn alone(summary: &Summary) -> &'static str {
    if summary.is_whole() { "verified" } else { "TAMPERED" }
}

/// What the witness saw, and what is there now.
fn difference(judged: &Judged<'_>) -> (String, String) {
    let pin = &judged.witness.pin;
    let expected = match &pin.receipt_id {
        Some(id) => format!("{id} {}", pin.receipt_hash),
        None => pin.receipt_hash.clone(),
    };
    let found = match &judged.found {
        // This receipt is the same, but the first one or the chain's id is not.
        Some(found) if found.receipt_hash == pin.receipt_hash => "a different start of the chain".to_owned(),
        Some(found) => format!("{} {}", found.receipt_id, found.receipt_hash),
        None => "nothing".to_owned(),
    };
    (expected, found)
}

/// A path, escaped to stay on one line.
fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn unseen(witnessed: &witness::Report<'_>) -> i64 {
    witnessed.head_seq - witnessed.seen_seq().unwrap_or(0)
}

fn counts(witnessed: &witness::Report<'_>) -> String {
    let count = |is: fn(Verdict) -> bool| witnessed.count(is);
    let matched = count(|verdict| verdict == Verdict::Matched);
    let (other, unreadable) = (witnessed.other_chains, witnessed.unreadable.len());
    let offending = count(Verdict::is_offence) + witnessed.altered.len();
    let acknowledged = count(|verdict| matches!(verdict, Verdict::Acknowledged { .. }));
    let later = count(|verdict| verdict == Verdict::Later);
    let unseen = unseen(witnessed);
    let since = match witnessed.seen_seq() {
        Some(seq) => format!("{unseen} receipts since the newest witness (seq {seq})"),
        None => format!("{unseen} receipts that no witness has seen"),
    };
    format!(
        "witnesses: {matched} matched, {offending} offending, {acknowledged} on acknowledged forks, \
         {later} later than this backup, {other} of other chains, {unreadable} unreadable; {since}\n"
    )
}

fn witnesses(witnessed: &witness::Report<'_>) -> Value {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let offending = witnessed.judged.iter().filter(|judged| judged.verdict.is_offence()).map(|judged| {
        let (expected, found) = difference(judged);
        json!({
            "kind": judged.verdict.as_str(), "witness": text(&judged.witness.path),
            "seq": judged.witness.pin.seq, "expected": expected, "found": found,
        })
    });
    let altered = witnessed.altered.iter().map(|altered| {
        json!({
            "kind": altered.kind, "path": text(&altered.path), "witness": text(&altered.witness),
            "expected": altered.expected, "found": altered.found,
        })
    });
    let acknowledged = witnessed.judged.iter().filter_map(|judged| match judged.verdict {
        Verdict::Acknowledged { restored_at } => {
            let (witness, seq) = (text(&judged.witness.path), judged.witness.pin.seq);
            Some(json!({"witness": witness, "seq": seq, "restored_at": restored_at}))
        }
        Verdict::Matched | Verdict::Rewritten | Verdict::Forked | Verdict::Truncated | Verdict::Later => None,
    });
    let unreadable = witnessed
        .unreadable
        .iter()
        .map(|unreadable| json!({"path": text(&unreadable.path), "reason": unreadable.reason}));
    json!({
        "matched": witnessed.count(|verdict| verdict == Verdict::Matched),
        "other_chains": witnessed.other_chains,
        "unreadable": witnessed.unreadable.len(),
        "unreadable_files": unreadable.collect::<Vec<_>>(),
        "offenders": offending.chain(altered).collect::<Vec<_>>(),
        "acknowledged_forks": acknowledged.collect::<Vec<_>>(),
        "later_than_backup": witnessed.count(|verdict| verdict == Verdict::Later),
        "unseen_receipts": unseen(witnessed),
        "newest_seq": witnessed.seen_seq(),
    })
}

/// A line of the table. Control characters, in a tool's name for example, must not reach the
/// terminal.
fn row(cells: [&str; 7]) -> String {
    let clean = |cell: &str| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let [seq, ts, decision, tool, action, id, state] = cells.map(clean);
    format!("{seq:>8}  {ts:<27}  {decision:<16}  {tool:<16}  {action:<24}  {id:<32}  {state}\n")
}
