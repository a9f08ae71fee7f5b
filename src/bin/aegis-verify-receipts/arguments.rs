//! What the command is asked to do.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;

use aegis_gateway::domain::canon::Hash;
use aegis_gateway::evidence::source::WalPolicy;

pub(crate) const HELP: &str = "\
aegis-verify-receipts: proves that the evidence is whole, or names what breaks it

Usage: aegis-verify-receipts [OPTIONS] PATH [--against WITNESS...]

PATH is a database (of a running, stopped or killed gateway, or a backup), or
receipts as JSON: an array, {\"receipts\": [...]}, or one a line; oldest or newest
first. It is only read, and nothing is left beside it. '-' reads JSON from standard
input. Of a database whose chain is whole, every page and index is checked as well.

  --against WITNESS... the database must hold the history that each witness of its
                       chain saw: manifests of backups, backups, or folders of them.
                       Every word up to the next option is a witness, so PATH stands
                       before it, or after --
  --require-witness    fail where none of the witnesses is of this chain
  --path-only          leave out whether the other backups that manifests describe
                       still have their sizes
  --expect-head HASH   the newest receipt must have this receipt_hash
  --json               report as one JSON object
  --table              print every receipt, a line each
  --wal replay|ignore  count, or leave out, a write-ahead log of which it cannot be
                       told whether it belongs to the database
  --help, --version

With --against, the verdict is one of
  verified     the chain is whole, and holds what its witnesses saw, but for branches
               that it left by a restore it records
  broken       the chain does not verify by itself (TAMPERED without --against)
  rewritten    a witnessed receipt, or the first one, has another hash
  forked       another receipt stands where a witness ends, and no restore says why
  truncated    the chain ends before a witness does
  altered      a manifest is not what the one after it says, PATH not what the manifest
               beside it says (size, SHA-256, counts), or another backup of this chain
               not of the size that its manifest says; sha256sum -c reads its content
  unwitnessed  no witness is of this chain

Exit status: 0 verified, or unwitnessed where no witness is required; 1 tampered, or any
other of these verdicts, every break and every offending witness listed; 2 usage, or
unreadable; 3 it cannot be told: a log in doubt, a table of evidence that is not the
program's, a damaged page or index.
";

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) path: PathBuf,
    /// `None` where the option is not given.
    pub(crate) against: Option<Vec<PathBuf>>,
    pub(crate) require_witness: bool,
    pub(crate) path_only: bool,
    pub(crate) expect_head: Option<String>,
    pub(crate) json: bool,
    pub(crate) table: bool,
    pub(crate) wal: WalPolicy,
}

/// What words outside options are taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Path,
    Witnesses,
    /// After `--`.
    PathAlone,
}

/// `None` after `--help` or `--version`, which leave nothing to do. A path may have any bytes;
/// an option is text.
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
        (_, _, None) => return Err("exactly one PATH is needed".to_owned()),
        (_, _, Some(_)) => return Err("exactly one PATH is needed, before --against or after --".to_owned()),
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
            return Err("--json and --table exclude each other".to_owned());
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
