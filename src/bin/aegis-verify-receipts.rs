//! `aegis-verify-receipts`: proves that the evidence is whole, or names what breaks it.
//!
//! Arguments, the library's verifier, a report, an exit code.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::receipt::{Break, BreakKind};
use aegis_gateway::evidence::source::{self, Source, SourceError, WalPolicy};
use aegis_gateway::evidence::{Checked, Observer, Summary, export};

const HELP: &str = "\
aegis-verify-receipts: proves that the evidence is whole, or names what breaks it

Usage: aegis-verify-receipts [OPTIONS] PATH

PATH is a database (of a running, stopped or killed gateway, or a backup), or
receipts as JSON: an array, {\"receipts\": [...]}, or one a line; oldest or newest
first. It is only read, and nothing is left beside it. '-' reads JSON from standard
input.

  --expect-head HASH   the newest receipt must have this receipt_hash
  --json               report as one JSON object
  --table              print every receipt, a line each
  --wal replay|ignore  count, or leave out, a write-ahead log of which it cannot be
                       told whether it belongs to the database
  --help, --version

Exit status: 0 verified; 1 tampered, every break listed; 2 usage, or unreadable;
3 it cannot be told.
";

/// Written with the first break or at the end: a failure before leaves no half report.
const OPENING: &str = "{\"breaks\":[";

const TAMPERED: u8 = 1;
const UNREADABLE: u8 = 2;
const UNDECIDABLE: u8 = 3;

#[derive(Debug)]
struct Arguments {
    path: PathBuf,
    expect_head: Option<String>,
    json: bool,
    table: bool,
    wal: WalPolicy,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => run(&arguments).unwrap_or_else(|(status, line)| {
            complain(&format!("aegis-verify-receipts: {line}\n"));
            ExitCode::from(status)
        }),
        Ok(None) => ExitCode::SUCCESS,
        Err(line) => {
            complain(&format!("aegis-verify-receipts: {line}; see --help\n"));
            ExitCode::from(UNREADABLE)
        }
    }
}

/// Not `eprint!`, which panics where standard error is full: the status must hold.
fn complain(text: &str) {
    if io::stderr().write_all(text.as_bytes()).is_err() {
        log::debug!("standard error cannot be written");
    }
}

/// `None` when everything was said already.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        path: PathBuf::new(),
        expect_head: None,
        json: false,
        table: false,
        wal: WalPolicy::Judge,
    };
    let mut paths = Vec::new();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--help" | "-h" => return say(HELP),
            "--version" | "-V" => {
                return say(concat!("aegis-verify-receipts ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            "--json" => arguments.json = true,
            "--table" => arguments.table = true,
            "--expect-head" => {
                let hash = value()?;
                Hash::parse(&hash).ok_or("--expect-head needs 64 lowercase hexadecimal digits")?;
                arguments.expect_head = Some(hash);
            }
            "--wal" => {
                arguments.wal = match value()?.as_str() {
                    "replay" => WalPolicy::Replay,
                    "ignore" => WalPolicy::Ignore,
                    _ => return Err("--wal needs replay or ignore".to_owned()),
                };
            }
            option if option.starts_with("--") => return Err(format!("unknown option {option}")),
            _ => paths.push(PathBuf::from(word)),
        }
    }
    if arguments.json && arguments.table {
        return Err("--json and --table exclude each other".to_owned());
    }
    arguments.path = match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => path,
        _ => return Err("exactly one PATH is needed".to_owned()),
    };
    Ok(Some(arguments))
}

fn say<T>(text: &str) -> Result<Option<T>, String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(None)
}

type Failure = (u8, String);

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut report = Report::new(arguments);
    let summary = if arguments.path.as_os_str() == "-" {
        verify_export(io::stdin(), &mut report)?
    } else {
        match source::open(&arguments.path, arguments.wal).map_err(source_failure)? {
            Source::Export(file) => verify_export(file, &mut report)?,
            Source::Database(database) => {
                report.note.clone_from(&database.note);
                let verified = database.verify(&mut report);
                // What was found broken before the rest became unreadable stays found.
                let status = if report.breaks > 0 { TAMPERED } else { UNREADABLE };
                let verified = verified.map_err(|error| (status, error.to_string()))?;
                if !database.is_as_found() {
                    let line = "the database was written to while it was read; try again";
                    return Err((UNDECIDABLE, line.to_owned()));
                }
                verified
            }
        }
    };
    let status =
        report.finish(summary).map_err(|error| (UNREADABLE, format!("cannot write the report: {error}")))?;
    Ok(ExitCode::from(status))
}

fn verify_export(input: impl io::Read, report: &mut Report<'_>) -> Result<Summary, Failure> {
    export::verify(input, report).map_err(|error| (UNREADABLE, error.to_string()))
}

fn source_failure(error: SourceError) -> Failure {
    match error {
        SourceError::Unreadable(line) => (UNREADABLE, line),
        SourceError::Undecidable(line) => (UNDECIDABLE, line),
    }
}

/// Writes what is found as it is found, so that memory stays small however much it is.
struct Report<'a> {
    arguments: &'a Arguments,
    out: BufWriter<io::Stdout>,
    note: Option<String>,
    breaks: u64,
    failed: Option<io::Error>,
    progress: bool,
}

impl<'a> Report<'a> {
    fn new(arguments: &'a Arguments) -> Self {
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

    fn finish(mut self, mut summary: Summary) -> io::Result<u8> {
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
        if self.arguments.json {
            self.write_json(&summary)
        } else {
            self.write_text(&summary)
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.out.flush()?;
        Ok(if summary.is_whole() { 0 } else { TAMPERED })
    }

    fn write_json(&mut self, summary: &Summary) {
        let rest = json!({
            "verdict": verdict(summary),
            "verified": summary.is_whole(),
            "receipts": summary.receipts,
            "decisions": summary.decisions,
            "head_seq": summary.head_seq,
            "head_hash": summary.head_hash,
            "proven_from": summary.proven_from,
            "break_count": summary.breaks,
            "note": self.note,
        });
        // The list of breaks is open if there are any; the rest of the object closes it.
        if self.breaks == 0 {
            self.write(OPENING);
        }
        self.write("],");
        self.write(&rest.to_string()[1..]);
        self.write("\n");
    }

    fn write_text(&mut self, summary: &Summary) {
        // Beside the report, not in it: a note is neither a verdict nor a break.
        if let Some(note) = self.note.take() {
            complain(&format!("note: {note}\n"));
        }
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
        self.write(&format!("{}: {count} receipts{decisions}, {from}; head {head}\n", verdict(summary)));
        if !summary.is_whole() {
            self.write(&format!("{} breaks\n", summary.breaks));
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

fn verdict(summary: &Summary) -> &'static str {
    if summary.is_whole() { "verified" } else { "TAMPERED" }
}

/// A line of the table; control characters of a tool's name do not reach the terminal.
fn row(cells: [&str; 7]) -> String {
    let clean = |cell: &str| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let [seq, ts, decision, tool, action, id, state] = cells.map(clean);
    format!("{seq:>8}  {ts:<27}  {decision:<16}  {tool:<16}  {action:<24}  {id:<32}  {state}\n")
}
