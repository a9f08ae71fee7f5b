//! Which backups there are. Looks at names, sizes and manifests, and of what has no manifest
//! at its first bytes; never follows a link, and never opens the live database.

use std::fs::{self, DirEntry};
use std::io::{self, Read};

use crate::clock;
use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::store::files::FileId;
use crate::store::guard::header;

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

/// A backup is what a manifest beside it names, or what begins as a database does: the folder
/// may hold more than backups, a token for example.
pub(super) fn names(manifest: &Manifest, name: &str) -> bool {
    manifest.file.name == name
}

fn fits(manifest: &Manifest, name: &str, bytes: u64) -> bool {
    names(manifest, name) && manifest.file.bytes == bytes
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
        let mut listed = self.list_folder()?;
        listed.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.name.cmp(&a.name)));
        if let Some(running) = running.filter(|running| listed.iter().all(|file| file.name != running.name)) {
            listed.insert(0, running);
        }
        Ok(listed)
    }

    fn list_folder(&self) -> io::Result<Vec<Listed>> {
        let entries = match fs::read_dir(&self.folder) {
            // It is made with the first backup.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            listed.extend(self.list_entry(&entry?)?);
        }
        Ok(listed)
    }

    fn list_entry(&self, entry: &DirEntry) -> io::Result<Option<Listed>> {
        let Ok(name) = entry.file_name().into_string() else { return Ok(None) };
        if Kind::of(&name) != Some(Kind::Backup) || !entry.file_type()?.is_file() {
            return Ok(None);
        }
        let metadata = match entry.metadata() {
            // Removed since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let content = self.manifest_of(&name)?;
        let manifest = content.as_deref().and_then(|content| Manifest::parse(content).ok());
        // What its manifest names need not be opened.
        let is_backup = match &manifest {
            Some(manifest) if names(manifest, &name) => Some(FileId::of(&metadata)) != self.live,
            Some(_) | None => self.is_database(&name)?,
        };
        if !is_backup {
            return Ok(None);
        }
        let bytes = metadata.len();
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
            manifest: content.is_some().then(|| format!("{name}{SUFFIX}")),
            progress: None,
            name,
        }))
    }

    /// What may not be read is none.
    fn is_database(&self, name: &str) -> io::Result<bool> {
        match self.open(name) {
            Ok(Some(file)) => header::is_database(&file),
            Ok(None) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the manifest beside a backup; `None` where there is none. Of one that is
    /// too large, the beginning, which parses as nothing.
    pub(super) fn manifest_of(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(&format!("{name}{SUFFIX}"))? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    }
}

/// The digest that the manifest beside a backup states for it.
pub(super) fn stated_digest(manifest: Option<Manifest>, name: &str, bytes: u64) -> Option<Hash> {
    let manifest = manifest.filter(|manifest| fits(manifest, name, bytes))?;
    Hash::parse(&manifest.file.sha256)
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
