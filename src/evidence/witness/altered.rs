//! Files that are not what was written: manifests, by the one after them, and backups, by
//! their manifests.
//!
//! One file is read whole, the one that is verified. Of the others that manifests describe
//! the sizes are compared, which finds one that was cut or emptied; a witness that is gone,
//! or a backup that was pruned, accuses nobody.

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

/// How much is read at a time for a digest.
const DIGEST_BYTES: usize = 1 << 20;

/// A file that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// `manifest_altered`, `digest_mismatch` or `count_mismatch`.
    pub kind: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The manifest that says what it was.
    pub witness: PathBuf,
    /// Its SHA-256, its size, or how many of what it held, then.
    pub expected: String,
    /// And now.
    pub found: String,
}

impl Witnesses {
    /// Manifests that are not what the one after them says they were. A name is looked
    /// for in the same folder first; elsewhere, any file of that name and digest will do.
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

    /// Whether the file at `path`, in which `found` was found, is the one that a manifest
    /// beside it describes; reads the file whole where there is one.
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
    /// Which of the other files that manifests of the chain describe, as far as they are
    /// still there, have another size.
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

/// Where a file is, however its folder was named.
struct Place<'a> {
    folder: PathBuf,
    name: Option<&'a OsStr>,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path) -> io::Result<Self> {
        Ok(Place { folder: fs::canonicalize(files::folder_of(path))?, name: path.file_name() })
    }

    /// Whether this is where the file lies that the witness describes.
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
