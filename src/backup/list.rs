//! Which backups there are. Looks at names, sizes and manifests; never opens a backup's
//! content, and never follows a link.

use std::fs::{self, DirEntry};
use std::io::{self, Read};
use std::path::Path;

use crate::clock;
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::store::files;

use super::Backups;
use super::manifest::{BYTES_MAX, DIGEST_SUFFIX, Manifest, SUFFIX};
use super::name::BackupName;

/// A backup in the folder, or the one that is being taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Name of the file.
    pub name: String,
    /// Size of the file, so far.
    pub bytes: u64,
    /// When it was taken: as its manifest says, else as the file system does.
    pub created_at: Timestamp,
    /// Where its chain ends, as its manifest says.
    pub head: Option<Head>,
    /// Whether it was checked when it was taken, and still fits that: a manifest, which is
    /// written once the checks have passed, stands beside it and names it and its size. What
    /// became of its content since is not looked at.
    pub verified: bool,
    /// The manifest's name.
    pub manifest: Option<String>,
    /// How far it is, 0 to 1, where it is being taken.
    pub progress: Option<f64>,
}

/// The end of a backup's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Position of the newest receipt.
    pub seq: i64,
    /// Its hash.
    pub receipt_hash: String,
}

fn fits(manifest: &Manifest, name: &str, bytes: u64) -> bool {
    manifest.file.name == name && manifest.file.bytes == bytes
}

/// What a file's name says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A backup.
    Backup,
    /// A backup's manifest.
    Manifest,
    /// A backup's digest.
    Digest,
}

impl Kind {
    /// What the file of this name would be; `None` for a name that no backup and no side
    /// file of one can have.
    pub fn of(name: &str) -> Option<Self> {
        for (suffix, kind) in [(SUFFIX, Kind::Manifest), (DIGEST_SUFFIX, Kind::Digest)] {
            if let Some(stem) = stem(name, suffix) {
                return BackupName::parse(stem).is_ok().then_some(kind);
            }
        }
        BackupName::parse(name).is_ok().then_some(Kind::Backup)
    }
}

/// `name` without `suffix`, whose case does not matter.
fn stem<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (stem, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(stem)
}

impl Backups {
    /// Every backup, newest first, and before them the one that is being taken.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        // Looked at first: a backup that ends meanwhile is in the folder by then.
        let running = self.running_now();
        let mut listed = list_folder(&self.folder)?;
        listed.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.name.cmp(&a.name)));
        if let Some(running) = running.filter(|running| listed.iter().all(|file| file.name != running.name)) {
            listed.insert(0, running);
        }
        Ok(listed)
    }
}

fn list_folder(folder: &Path) -> io::Result<Vec<Listed>> {
    let entries = match fs::read_dir(folder) {
        // It is made with the first backup.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut listed = Vec::new();
    for entry in entries {
        listed.extend(list_entry(folder, &entry?)?);
    }
    Ok(listed)
}

fn list_entry(folder: &Path, entry: &DirEntry) -> io::Result<Option<Listed>> {
    let Ok(name) = entry.file_name().into_string() else { return Ok(None) };
    if Kind::of(&name) != Some(Kind::Backup) || !entry.file_type()?.is_file() {
        return Ok(None);
    }
    let metadata = match entry.metadata() {
        // Removed since the folder was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    let bytes = metadata.len();
    let manifest_name = format!("{name}{SUFFIX}");
    let content = read_small(&folder.join(&manifest_name))?;
    let manifest = content.as_deref().and_then(|content| Manifest::parse(content).ok());
    let created_at = manifest.as_ref().and_then(|manifest| Timestamp::parse(&manifest.created_at));
    Ok(Some(Listed {
        bytes,
        created_at: match created_at {
            Some(at) => at,
            None => clock::timestamp_of(metadata.modified()?),
        },
        verified: manifest.as_ref().is_some_and(|manifest| fits(manifest, &name, bytes)),
        head: manifest
            .map(|manifest| Head { seq: manifest.head.seq, receipt_hash: manifest.head.receipt_hash }),
        manifest: content.is_some().then_some(manifest_name),
        progress: None,
        name,
    }))
}

/// The digest that the manifest beside a backup states for it.
pub(super) fn stated_digest(folder: &Path, name: &str, bytes: u64) -> io::Result<Option<Hash>> {
    let content = read_small(&folder.join(format!("{name}{SUFFIX}")))?;
    let manifest = content.and_then(|content| Manifest::parse(&content).ok());
    let manifest = manifest.filter(|manifest| fits(manifest, name, bytes));
    Ok(manifest.and_then(|manifest| Hash::parse(&manifest.file.sha256)))
}

/// A manifest's bytes; `None` where there is none. Of one that is too large, the beginning,
/// which parses as nothing.
fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = files::open_regular(path)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_file_is() {
        for (name, kind) in [
            ("a.db", Some(Kind::Backup)),
            ("Köln 1.db", Some(Kind::Backup)),
            ("a.db.manifest.json", Some(Kind::Manifest)),
            ("a.db.MANIFEST.json", Some(Kind::Manifest)),
            ("a.db.sha256", Some(Kind::Digest)),
            ("é.sha256", Some(Kind::Digest)),
            (".manifest.json", None),
            (".sha256", None),
            (".partial-0011", None),
            ("../a.db", None),
            ("../a.db.sha256", None),
            ("a/b.manifest.json", None),
            ("a.db-wal", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
