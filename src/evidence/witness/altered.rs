//! Detects files that have changed since they were written: manifests, by their successors,
//! and backups, by their manifests.
//!
//! Only the file being verified is read in full. Of the other files that manifests describe,
//! only the sizes are compared, which finds those that were truncated or emptied. A missing
//! witness or a pruned backup is not an offence.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::domain::canon::Hash;
use crate::evidence::Summary;
use crate::store::files;

use super::{Described, Report, Witness, Witnesses};

/// Buffer size for computing a digest.
const DIGEST_BYTES: usize = 1 << 20;

/// A file that has changed since it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// `manifest_altered`, `digest_mismatch` or `count_mismatch`.
    pub kind: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The manifest that describes its original state.
    pub witness: PathBuf,
    /// Its original SHA-256, size, or number of receipts or decisions.
    pub expected: String,
    /// The current value.
    pub found: String,
}

impl Witnesses {
    /// Manifests that differ from what their successors state. A name is looked up in the same
    /// folder first; failing that, any file with that name and digest will do.
    pub(super) fn altered_manifests(&self) -> Vec<Altered> {
        let mut by_name: BTreeMap<_, Vec<&(PathBuf, Hash)>> = BTreeMap::new();
        for manifest in &self.manifests {
            by_name.entry(manifest.0.file_name().unwrap_or_default()).or_default().push(manifest);
        }
        let mut altered = Vec::new();
        for witness in &self.all {
            let Some(previous) = &witness.previous else { continue };
            let Some(named) = by_name.get(OsStr::new(&previous.name)) else { continue };
            let beside: Vec<_> =
                named.iter().filter(|(path, _)| path.parent() == witness.path.parent()).collect();
            let candidates = if beside.is_empty() { named.iter().collect() } else { beside };
            if candidates.iter().any(|(_, sha256)| sha256.to_string() == previous.sha256) {
                continue;
            }
            altered.extend(candidates.into_iter().map(|(path, sha256)| Altered {
                kind: "manifest_altered",
                path: path.clone(),
                witness: witness.path.clone(),
                expected: previous.sha256.clone(),
                found: sha256.to_string(),
            }));
        }
        altered
    }

    /// Compares the file at `path`, whose verification returned `found`, with the manifests
    /// beside it that describe it. Reads the whole file if there is one.
    pub fn check_file(&self, path: &Path, found: &Summary) -> io::Result<Vec<Altered>> {
        let place = Place::of(path)?;
        let beside = self.all.iter().filter_map(|witness| {
            let described = witness.described.as_ref().filter(|described| place.is_of(witness, described))?;
            Some((witness, described))
        });
        let beside: Vec<(&Witness, &Described)> = beside.collect();
        if beside.is_empty() {
            return Ok(Vec::new());
        }
        let (bytes, sha256) = measure(path)?;
        let decisions = found.decisions.unwrap_or(0);
        let check = |(witness, Described { file, receipts, decisions: decided }): (&Witness, &Described)| {
            let differences = [
                ("digest_mismatch", in_bytes(file.bytes), in_bytes(bytes)),
                ("digest_mismatch", file.sha256.clone(), sha256.to_string()),
                ("count_mismatch", format!("{receipts} receipts"), format!("{} receipts", found.receipts)),
                ("count_mismatch", format!("{decided} decisions"), format!("{decisions} decisions")),
            ];
            let (kind, expected, found) =
                differences.into_iter().find(|(_, expected, found)| expected != found)?;
            Some(Altered { kind, path: path.to_owned(), witness: witness.path.clone(), expected, found })
        };
        Ok(beside.into_iter().filter_map(check).collect())
    }
}

impl Report<'_> {
    /// The other files described by manifests of the chain that still exist and have a
    /// different size.
    pub fn check_others(&self, path: &Path) -> io::Result<Vec<Altered>> {
        let place = Place::of(path)?;
        let check = |witness: &Witness| {
            let described =
                witness.described.as_ref().filter(|described| !place.is_of(witness, described))?;
            let path = witness.path.with_file_name(&described.file.name);
            let expected = in_bytes(described.file.bytes);
            let found = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => in_bytes(metadata.len()),
                Ok(_) => files::no_regular_file().to_string(),
                Err(error) if files::is_absent(&error) => return None,
                Err(error) => error.to_string(),
            };
            let witness = witness.path.clone();
            (expected != found).then_some(Altered { kind: "digest_mismatch", path, witness, expected, found })
        };
        Ok(self.judged.iter().filter_map(|judged| check(judged.witness)).collect())
    }
}

/// A file's location, independent of how its folder was spelled.
struct Place<'a> {
    folder: PathBuf,
    name: Option<&'a OsStr>,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path) -> io::Result<Self> {
        Ok(Place { folder: fs::canonicalize(files::folder_of(path))?, name: path.file_name() })
    }

    /// Whether the file that the witness describes is at this location.
    fn is_of(&self, witness: &Witness, described: &Described) -> bool {
        self.name == Some(OsStr::new(&described.file.name))
            && fs::canonicalize(files::folder_of(&witness.path)).is_ok_and(|folder| folder == self.folder)
    }
}

fn in_bytes(bytes: u64) -> String {
    format!("{bytes} bytes")
}

fn measure(path: &Path) -> io::Result<(u64, Hash)> {
    let mut file = File::open(path)?;
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; DIGEST_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, Hash::from_bytes(digest.finalize().into())));
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
}
