//! Lists the backups. Reads names, sizes and manifests, and the first bytes of files without
//! a manifest. Never follows a link, and never opens the live database.

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

/// A backup in the folder, or the one in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Name of the file.
    pub name: String,
    /// Size of the file, so far.
    pub bytes: u64,
    /// When it was taken, according to its manifest, or else the file's modification time.
    pub created_at: Timestamp,
    /// Where its chain ends, according to its manifest.
    pub head: Option<Head>,
    /// Whether it has a manifest, which is written only after the checks have passed, that
    /// states its name and current size. Changes to its content since are not detected.
    pub verified: bool,
    /// The manifest's name.
    pub manifest: Option<String>,
    /// Progress from 0 to 1, if it is the one in progress.
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

/// A file is a backup if its manifest names it or if it starts with a database header. The
/// folder may hold other files, such as a token.
pub(super) fn names(manifest: &Manifest, name: &str) -> bool {
    manifest.file.name == name
}

fn fits(manifest: &Manifest, name: &str, bytes: u64) -> bool {
    names(manifest, name) && manifest.file.bytes == bytes
}

/// What kind of file a name denotes.
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
    /// The kind of file with this name; `None` if neither a backup nor one of its side files
    /// can have it.
    pub fn of(name: &str) -> Option<Self> {
        for (suffix, kind) in [(SUFFIX, Kind::Manifest), (DIGEST_SUFFIX, Kind::Digest)] {
            if let Some(stem) = stem(name, suffix) {
                return BackupName::parse(stem).is_ok().then_some(kind);
            }
        }
        BackupName::parse(name).is_ok().then_some(Kind::Backup)
    }
}

/// `name` without `suffix`, ignoring ASCII case.
fn stem<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (stem, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(stem)
}

impl Backups {
    /// The backup in progress, if any, then every finished one, newest first.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        // Read before the folder: a backup that finishes in between is then in the folder.
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
            // The first backup creates it.
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
            // Removed after the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let content = self.manifest_of(&name)?;
        let manifest = content.as_deref().and_then(|content| Manifest::parse(content).ok());
        // A file that its manifest names need not be opened.
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

    /// Whether the file has a database header. A file without read permission does not count.
    fn is_database(&self, name: &str) -> io::Result<bool> {
        match self.open(name) {
            Ok(Some(file)) => header::is_database(&file),
            Ok(None) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a backup's manifest; `None` if it has none. An oversized manifest is cut
    /// off, and then does not parse.
    pub(super) fn manifest_of(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(&format!("{name}{SUFFIX}"))? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut content)?;
        Ok(Some(content))
    }
}

/// The digest that a backup's manifest states, if the manifest fits the file.
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
