//! `aegis-verify-receipts`: proves that the evidence is intact, or lists every break.
//!
//! Parses arguments, runs the library's verifier, writes a report, and sets the exit status.

mod arguments;
mod report;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use aegis_gateway::evidence::database::check_integrity;
use aegis_gateway::evidence::source::{self, Database, Source, SourceError};
use aegis_gateway::evidence::witness::{self, Witnesses};
use aegis_gateway::evidence::{Summary, export};
use aegis_gateway::store::chain;
use aegis_gateway::store::error::Error;

use arguments::Arguments;
use report::Report;

const TAMPERED: u8 = 1;
const UNREADABLE: u8 = 2;
const UNDECIDABLE: u8 = 3;

/// An exit status and the line that explains it.
type Failure = (u8, String);

fn main() -> ExitCode {
    match arguments::parse(std::env::args_os().skip(1)) {
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

/// Not `eprint!`, which panics if standard error cannot be written: the exit status must not
/// change.
fn complain(text: &str) {
    if io::stderr().write_all(text.as_bytes()).is_err() {
        log::debug!("standard error cannot be written");
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let path = &arguments.path;
    let mut report = Report::new(arguments);
    let status = match open(path, arguments)? {
        Opened::Export(input) => {
            let verified = export::verify(input, &mut report);
            let summary = verified.map_err(|error| (UNREADABLE, format!("{}: {error}", shown(path))))?;
            report.finish(summary, None)
        }
        Opened::Database(database) => match &arguments.against {
            None => verify(&database, path, report)?,
            Some(paths) => {
                let witnesses = load(&database, paths, path)?;
                verify_against(&database, &witnesses, arguments, report)?
            }
        },
    };
    status.map(ExitCode::from).map_err(|error| (UNREADABLE, format!("cannot write the report: {error}")))
}

enum Opened {
    Export(Box<dyn io::Read>),
    Database(Box<Database>),
}

fn open(path: &Path, arguments: &Arguments) -> Result<Opened, Failure> {
    let opened = if is_standard_input(path) {
        Opened::Export(Box::new(io::stdin()))
    } else {
        match source::open(path, arguments.wal).map_err(source_failure)? {
            Source::Export(file) => Opened::Export(Box::new(file)),
            Source::Database(database) => Opened::Database(database),
        }
    };
    if arguments.against.is_some() && matches!(opened, Opened::Export(_)) {
        let path = shown(path);
        let line = format!("--against needs a database: {path} is an export, which does not name its chain");
        return Err((UNREADABLE, line));
    }
    Ok(opened)
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name of the input in messages.
fn shown(path: &Path) -> String {
    if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn verify(database: &Database, path: &Path, mut report: Report<'_>) -> Result<io::Result<u8>, Failure> {
    report.note.clone_from(&database.note);
    let verified = database.verify(&mut report);
    let summary = verified.map_err(failure_after(&report, path))?;
    check_pages(database, path, &summary)?;
    check_as_found(database, path)?;
    Ok(report.finish(summary, None))
}

fn load(database: &Database, paths: &[std::path::PathBuf], path: &Path) -> Result<Witnesses, Failure> {
    let cannot = |error: Error| (UNREADABLE, format!("{}: {error}", path.display()));
    let chain_id = chain::find_id(&database.connection).map_err(cannot)?;
    // If the id is missing, the first receipt still identifies the chain's witnesses.
    Witnesses::of_paths(paths, &chain_id.unwrap_or_default(), path).map_err(source_failure)
}

fn verify_against(
    database: &Database,
    witnesses: &Witnesses,
    arguments: &Arguments,
    mut report: Report<'_>,
) -> Result<io::Result<u8>, Failure> {
    let path = &arguments.path;
    report.note.clone_from(&database.note);
    let verified: Result<(Summary, witness::Report<'_>), Error> =
        database.verify_against(witnesses, &mut report);
    let (summary, mut witnessed) = verified.map_err(failure_after(&report, path))?;
    if database.is_backup {
        witnessed = witnessed.of_backup();
    }
    let cannot = |error: io::Error| (UNREADABLE, format!("cannot read {}: {error}", path.display()));
    witnessed.altered.extend(witnesses.check_file(path, &summary).map_err(cannot)?);
    if !arguments.path_only {
        let others = witnessed.check_others(path).map_err(cannot)?;
        witnessed.altered.extend(others);
    }
    check_pages(database, path, &summary)?;
    check_as_found(database, path)?;
    Ok(report.finish(summary, Some(&witnessed)))
}

/// Breaks found before the rest became unreadable still count.
fn failure_after(report: &Report<'_>, path: &Path) -> impl Fn(Error) -> Failure + use<> {
    let status = if report.breaks > 0 { TAMPERED } else { UNREADABLE };
    let path = path.display().to_string();
    move |error| (status, format!("{path}: {error}"))
}

/// A whole chain does not mean a whole file: an index may disagree with its table, and the
/// gateway answers by indexes. If the chain is broken, that says enough.
fn check_pages(database: &Database, path: &Path, summary: &Summary) -> Result<(), Failure> {
    if !summary.is_whole() {
        return Ok(());
    }
    let problems = check_integrity(&database.connection)
        .map_err(|error| (UNREADABLE, format!("{}: {error}", path.display())))?;
    match problems.first() {
        None => Ok(()),
        Some(problem) => {
            let line =
                format!("{}: the chain verifies, but the database is damaged: {problem}", path.display());
            Err((UNDECIDABLE, line.replace('\n', " ")))
        }
    }
}

fn check_as_found(database: &Database, path: &Path) -> Result<(), Failure> {
    if database.is_as_found() {
        return Ok(());
    }
    Err((UNDECIDABLE, format!("{} was written to while being read; try again", path.display())))
}

fn source_failure(error: SourceError) -> Failure {
    match error {
        SourceError::Unreadable(line) => (UNREADABLE, line),
        SourceError::Undecidable(line) => (UNDECIDABLE, line),
    }
}
