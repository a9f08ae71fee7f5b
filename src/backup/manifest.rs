//! The side files of a backup: its manifest, and its digest for `sha256sum -c`.
//!
//! # Invariant
//! Both are published and synced before the backup is, so a visible backup always has its
//! witness. If publishing the backup fails, both are removed. A kill in between leaves a
//! manifest without a backup, which is harmless: the history it pins did exist.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::evidence::Summary;
use crate::evidence::manifest::{
    self, BackupFile, Check, FORMAT_VERSION, Head, Previous, Program, RESTORES_MAX,
};
use crate::store::error::Error as StoreError;
use crate::store::{Stopping, chain, connection, files, schema};

use super::name::BackupName;
use super::{Error, Partial, Steps, cannot};

pub use crate::evidence::manifest::{BYTES_MAX, Manifest, SUFFIX};

/// Appended to a backup's name to form that of its digest.
pub const DIGEST_SUFFIX: &str = ".sha256";

/// The facts about a copy that passed its checks.
pub(super) struct Copied<'a> {
    pub(super) name: &'a BackupName,
    pub(super) bytes: u64,
    pub(super) sha256: Hash,
    pub(super) chain: &'a Summary,
    pub(super) schema_version: u32,
    pub(super) steps: Steps,
}

/// Describes the finished copy at `path` from its own content.
pub(super) fn describe(
    path: &Path,
    folder: &Path,
    copied: &Copied<'_>,
    clock: &dyn Clock,
    stopping: &Stopping,
) -> Result<Manifest, Error> {
    let mut copy = connection::immutable(path).map_err(StoreError::cannot("open the copy"))?;
    stopping.ends(&mut copy)?;
    let started = Instant::now();
    check_schema(&copy, copied.schema_version)?;
    let schema = started.elapsed();
    let state = chain::State::load(&copy)?;
    let restores = chain::restores(&copy, RESTORES_MAX)?;
    let now = clock.now();
    let previous_manifest = newest_of(folder, &state.chain_id).map_err(cannot("read the backup folder"))?;
    Ok(Manifest {
        format_version: FORMAT_VERSION,
        backup_id: entropy::uuid(now).map_err(cannot("draw a backup's id"))?,
        chain_id: state.chain_id,
        created_at: now.to_string(),
        program: Program {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        schema_version: copied.schema_version,
        file: BackupFile {
            name: copied.name.as_str().to_owned(),
            bytes: copied.bytes,
            sha256: copied.sha256.to_string(),
        },
        receipts: copied.chain.receipts,
        decisions: copied.chain.decisions.unwrap_or(0),
        genesis_hash: state.genesis_hash,
        head: Head {
            seq: state.head.seq,
            receipt_id: state.receipt_id,
            receipt_hash: state.head.receipt_hash,
            ts: state.head.ts.map(|ts| ts.to_string()),
        },
        restores: restores.into_iter().map(|recorded| recorded.at).collect(),
        previous_manifest,
        checks: checks(schema, copied.steps),
    })
}

/// Startup would reject a restored file that lacks the program's triggers and indexes.
fn check_schema(copy: &rusqlite::Connection, version: u32) -> Result<(), Error> {
    let unsound = |what: String| Error::Unsound(what);
    match schema::difference(copy, version).map_err(|refusal| unsound(refusal.to_string()))? {
        None => Ok(()),
        Some(difference) => Err(unsound(format!("the schema is not the program's: {difference}"))),
    }
}

/// The checks that passed. The chain and the decisions are checked in one pass.
fn checks(schema: Duration, steps: Steps) -> Vec<Check> {
    let passed = [
        ("schema", schema),
        ("integrity_check", steps.pages),
        ("chain", steps.chain),
        ("decisions", steps.chain),
        ("digest", steps.digest),
    ];
    let check = |(name, duration): (&str, Duration)| Check {
        name: name.to_owned(),
        result: "ok".to_owned(),
        ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    passed.map(check).into()
}

/// The part of a manifest that orders it among those of its chain.
struct Link {
    age: (i64, Option<Timestamp>),
    this: Previous,
    follows: Option<String>,
}

/// The manifest that the next one names as its predecessor: the newest of those in the chain
/// that no other manifest names. The one with the highest seq will not do: after a restore it
/// belongs to the abandoned branch, and the manifests that follow the restore would go
/// unnamed. Nor will the latest by time: clocks get set back.
fn newest_of(folder: &Path, chain_id: &str) -> io::Result<Option<Previous>> {
    let links = links_of(folder, chain_id)?;
    let named: BTreeSet<&str> = links.iter().filter_map(|link| link.follows.as_deref()).collect();
    let last = links.iter().filter(|link| !named.contains(link.this.sha256.as_str()));
    Ok(last.max_by_key(|link| link.age).map(|link| link.this.clone()))
}

/// The links of the chain's manifests. An unreadable manifest is skipped: it must not fail
/// the backup.
fn links_of(folder: &Path, chain_id: &str) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.ends_with(SUFFIX) || name.starts_with('.') || !entry.file_type()?.is_file() {
            continue;
        }
        match read_manifest(&entry.path()) {
            Ok((manifest, _)) if manifest.chain_id != chain_id => {}
            Ok((manifest, sha256)) => links.push(Link {
                age: (manifest.head.seq, Timestamp::parse(&manifest.created_at)),
                this: Previous { name, sha256: sha256.to_string() },
                follows: manifest.previous_manifest.map(|previous| previous.sha256),
            }),
            Err(error) => log::warn!("passing over {}: {error}", entry.path().display()),
        }
    }
    Ok(links)
}

fn read_manifest(path: &Path) -> Result<(Manifest, Hash), String> {
    let bytes = manifest::read(path).map_err(|error| error.to_string())?;
    let manifest = Manifest::parse(&bytes).map_err(|error| error.to_string())?;
    Ok((manifest, Hash::of(&bytes)))
}

/// The published side files of a backup. Dropping this removes them, unless the backup
/// itself has been published.
pub(super) struct Beside {
    folder: PathBuf,
    named: Vec<PathBuf>,
}

impl Beside {
    /// Writes both files, syncs them, and links them to their final names.
    pub(super) fn publish(folder: &Path, backup: &Path, manifest: &Manifest) -> Result<Self, Error> {
        let text = manifest.render().map_err(cannot("write the manifest"))?;
        let line = digest_line(&manifest.file);
        let texts = [(SUFFIX, text), (DIGEST_SUFFIX, line.into_bytes())];
        // Both are on disk before either has its name.
        let write = |(suffix, text): (&str, Vec<u8>)| {
            write_partial(folder, &text).map(|partial| (files::with_suffix(backup, suffix), partial))
        };
        let partials = texts.into_iter().map(write).collect::<Result<Vec<_>, _>>()?;
        let mut beside = Beside { folder: folder.to_owned(), named: Vec::new() };
        for (path, partial) in partials {
            super::give_name(partial.path(), &path)?;
            beside.named.push(path);
        }
        Ok(beside)
    }

    /// Keeps the files, because the backup has been published.
    pub(super) fn keep(mut self) {
        self.named.clear();
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.named.is_empty() {
            return;
        }
        for path in &self.named {
            if let Err(error) = files::remove_if_there(path) {
                log::error!("cannot remove {}: {error}", path.display());
            }
        }
        if let Err(error) = files::sync(&self.folder) {
            log::error!("cannot sync {}: {error}", self.folder.display());
        }
    }
}

pub(super) fn write_partial(folder: &Path, text: &[u8]) -> Result<Partial, Error> {
    let partial = Partial::create(folder)?;
    let mut file = &partial.file;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(cannot("write the manifest"))?;
    Ok(partial)
}

/// A line for `sha256sum -c`. A backslash or line break in the name is escaped, and a
/// leading backslash marks the line as escaped (GNU Coreutils, "md5sum invocation").
fn digest_line(file: &BackupFile) -> String {
    let escaped = file.name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    let mark = if escaped == file.name { "" } else { "\\" };
    format!("{mark}{}  {escaped}\n", file.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_backslash_or_a_line_end_is_escaped_as_sha256sum_does() {
        for (name, line) in [
            ("b.db", "00  b.db\n"),
            ("a b*.db", "00  a b*.db\n"),
            ("a\\b", "\\00  a\\\\b\n"),
            ("a\nb", "\\00  a\\nb\n"),
            ("a\rb", "\\00  a\\rb\n"),
        ] {
            let file = BackupFile { name: name.to_owned(), bytes: 0, sha256: "00".to_owned() };
            assert_eq!(digest_line(&file), line, "{name:?}");
        }
    }
}
