//! `aegis-verify-receipts`: proves that the evidence is whole, or names what breaks it.
//!
//! Arguments, the library's verifier, a report, an exit code.

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

/// An exit status, and the line that says why.
type Failure = (u8, String);

fn main() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
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

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut report = Report::new(arguments);
    let status = match open(&arguments.path, arguments)? {
        Opened::Export(input) => {
            let summary =
                export::verify(input, &mut report).map_err(|error| (UNREADABLE, error.to_string()))?;
            report.finish(summary, None)
        }
        Opened::Database(database) => match &arguments.against {
            None => verify(&database, report)?,
            Some(paths) => {
                let witnesses = load(&database, paths, &arguments.path)?;
                verify_against(&database, &witnesses, &arguments.path, report)?
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
    let opened = if path.as_os_str() == "-" {
        Opened::Export(Box::new(io::stdin()))
    } else {
        match source::open(path, arguments.wal).map_err(source_failure)? {
            Source::Export(file) => Opened::Export(Box::new(file)),
            Source::Database(database) => Opened::Database(database),
        }
    };
    if arguments.against.is_some() && matches!(opened, Opened::Export(_)) {
        let line = "--against needs a database: an export does not say of which chain it is";
        return Err((UNREADABLE, line.to_owned()));
    }
    Ok(opened)
}

fn verify(database: &Database, mut report: Report<'_>) -> Result<io::Result<u8>, Failure> {
    report.note.clone_from(&database.note);
    let verified = database.verify(&mut report);
    let summary = verified.map_err(failure_after(&report))?;
    check_pages(database, &summary)?;
    check_as_found(database)?;
    Ok(report.finish(summary, None))
}

fn load(database: &Database, paths: &[std::path::PathBuf], path: &Path) -> Result<Witnesses, Failure> {
    let chain_id = chain::find_id(&database.connection).map_err(|error| (UNREADABLE, error.to_string()))?;
    // Where the id is gone, the first receipt still tells whose witnesses they are.
    Witnesses::of_paths(paths, &chain_id.unwrap_or_default(), path).map_err(source_failure)
}

fn verify_against(
    database: &Database,
    witnesses: &Witnesses,
    path: &Path,
    mut report: Report<'_>,
) -> Result<io::Result<u8>, Failure> {
    report.note.clone_from(&database.note);
    let verified: Result<(Summary, witness::Report<'_>), Error> =
        database.verify_against(witnesses, &mut report);
    let (summary, mut witnessed) = verified.map_err(failure_after(&report))?;
    if database.is_backup {
        witnessed = witnessed.of_backup();
    }
    let mismatched = witnesses.check_file(path);
    let cannot = |error: io::Error| (UNREADABLE, format!("cannot read {}: {error}", path.display()));
    witnessed.altered.extend(mismatched.map_err(cannot)?);
    check_pages(database, &summary)?;
    check_as_found(database)?;
    Ok(report.finish(summary, Some(&witnessed)))
}

/// What was found broken before the rest became unreadable stays found.
fn failure_after(report: &Report<'_>) -> impl Fn(Error) -> Failure + use<> {
    let status = if report.breaks > 0 { TAMPERED } else { UNREADABLE };
    move |error| (status, error.to_string())
}

/// A whole chain is not the whole file: an index may show other rows than its table holds,
/// and the gateway answers by indexes. Where the chain is broken, that says enough.
fn check_pages(database: &Database, summary: &Summary) -> Result<(), Failure> {
    if !summary.is_whole() {
        return Ok(());
    }
    let problems = check_integrity(&database.connection).map_err(|error| (UNREADABLE, error.to_string()))?;
    match problems.first() {
        None => Ok(()),
        Some(problem) => {
            let line = format!("the chain verifies, but the database is damaged: {problem}");
            Err((UNDECIDABLE, line.replace('\n', " ")))
        }
    }
}

fn check_as_found(database: &Database) -> Result<(), Failure> {
    if database.is_as_found() {
        return Ok(());
    }
    Err((UNDECIDABLE, "the database was written to while it was read; try again".to_owned()))
}

fn source_failure(error: SourceError) -> Failure {
    match error {
        SourceError::Unreadable(line) => (UNREADABLE, line),
        SourceError::Undecidable(line) => (UNDECIDABLE, line),
    }
}
