//! Command-line arguments.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;

use aegis_gateway::domain::canon::Hash;
use aegis_gateway::evidence::source::WalPolicy;

pub(crate) const HELP: &str = "\
aegis-verify-receipts: proves that the evidence is intact, or lists every break

Usage: aegis-verify-receipts [OPTIONS] PATH [--against WITNESS...]

PATH is a database (of a running, stopped or killed gateway, or a backup), or
receipts as JSON: an array, {\"receipts\": [...]}, or one per line; oldest or newest
first. It is only read, and no files are left behind. '-' reads JSON from standard
input. If the chain of a database is whole, every page and index is checked as well.

  --against WITNESS... the database must contain the history that each witness of its
                       chain saw. Witnesses are backup manifests, backups, or folders
                       of them: all words up to the next option, so give PATH first,
                       or after --
  --require-witness    fail if no witness belongs to this chain
  --path-only          do not check the sizes of the other backups that manifests
                       describe
  --expect-head HASH   the newest receipt must have this receipt_hash
  --json               report as one JSON object
  --table              print every receipt, one per line
  --wal replay|ignore  include or ignore a write-ahead log if it is unclear whether it
                       belongs to the database
  --help, --version

With --against, the verdict is one of
  verified     the chain is intact and contains what its witnesses saw, except for
               branches abandoned by a restore that it records
  broken       the chain itself does not verify (TAMPERED without --against)
  rewritten    a witnessed receipt, or the first one, has a different hash
  forked       a different receipt is where a witness ends, and no restore explains it
  truncated    the chain ends before a witness does
  altered      a manifest differs from what the next one says of it, PATH from its own
               manifest (size, SHA-256, counts), or another backup of this chain from
               the size in its manifest; sha256sum -c checks its content
  unwitnessed  no witness belongs to this chain

Exit status: 0 verified, or unwitnessed without --require-witness; 1 tampered, or any
other verdict, with every break and every offending witness listed; 2 usage error, or
unreadable; 3 inconclusive: a log in doubt, a table of evidence that is not the
program's, a damaged page or index.
";

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) path: PathBuf,
    /// `None` if the option is not given.
    pub(crate) against: Option<Vec<PathBuf>>,
    pub(crate) require_witness: bool,
    pub(crate) path_only: bool,
    pub(crate) expect_head: Option<String>,
    pub(crate) json: bool,
    pub(crate) table: bool,
    pub(crate) wal: WalPolicy,
}

/// How to interpret words that are not options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Path,
    Witnesses,
    /// After `--`.
    PathAlone,
}

/// `None` after `--help` or `--version`, which leave nothing to do. Paths may be any bytes;
/// options must be UTF-8.
pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments::default();
    let (mut paths, mut mode) = (Vec::new(), Words::Path);
    while let Some(word) = words.next() {
        if mode == Words::PathAlone || !is_option(&word) {
            match (&mut arguments.against, mode) {
                (Some(witnesses), Words::Witnesses) => witnesses.push(PathBuf::from(word)),
                _ => paths.push(PathBuf::from(word)),
            }
            continue;
        }
        mode = match text(word)?.as_str() {
            "--help" | "-h" => return say(HELP),
            "--version" | "-V" => {
                return say(concat!("aegis-verify-receipts ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            "--" => Words::PathAlone,
            "--against" => {
                arguments.against.get_or_insert_default();
                Words::Witnesses
            }
            option => {
                arguments.set(option, &mut words)?;
                Words::Path
            }
        };
    }
    arguments.check()?;
    arguments.path = match (paths.pop(), paths.is_empty(), &arguments.against) {
        (Some(path), true, _) => path,
        (_, _, None) => return Err("exactly one PATH is required".to_owned()),
        (_, _, Some(_)) => {
            return Err("exactly one PATH is required, before --against or after --".to_owned());
        }
    };
    Ok(Some(arguments))
}

fn is_option(word: &OsStr) -> bool {
    word.as_encoded_bytes().starts_with(b"--") || word == "-h" || word == "-V"
}

fn text(word: OsString) -> Result<String, String> {
    word.into_string().map_err(|word| format!("{word:?} is not UTF-8"))
}

impl Arguments {
    fn set(&mut self, option: &str, words: &mut impl Iterator<Item = OsString>) -> Result<(), String> {
        let mut value = || words.next().ok_or_else(|| format!("{option} needs a value")).and_then(text);
        match option {
            "--json" => self.json = true,
            "--table" => self.table = true,
            "--require-witness" => self.require_witness = true,
            "--path-only" => self.path_only = true,
            "--expect-head" => {
                let hash = value()?;
                Hash::parse(&hash).ok_or("--expect-head needs 64 lowercase hexadecimal digits")?;
                self.expect_head = Some(hash);
            }
            "--wal" => {
                self.wal = match value()?.as_str() {
                    "replay" => WalPolicy::Replay,
                    "ignore" => WalPolicy::Ignore,
                    _ => return Err("--wal needs replay or ignore".to_owned()),
                };
            }
            _ => return Err(format!("unknown option {option}")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.json && self.table {
            return Err("--json and --table are mutually exclusive".to_owned());
        }
        if self.against.as_ref().is_some_and(Vec::is_empty) {
            return Err("--against needs a witness".to_owned());
        }
        for (given, option) in [(self.require_witness, "--require-witness"), (self.path_only, "--path-only")]
        {
            if given && self.against.is_none() {
                return Err(format!("{option} needs --against"));
            }
        }
        Ok(())
    }
}

fn say<T>(text: &str) -> Result<Option<T>, String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(None)
}
