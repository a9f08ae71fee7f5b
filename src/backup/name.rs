//! Names of backups: bare file names that are safe to write, copy and open.

use std::fmt;
use std::io;
use std::path::Path;

use crate::store::files;

use super::manifest::{DIGEST_SUFFIX, SUFFIX};

/// Maximum length of a name, in bytes. Common file systems allow 255, and the longest side
/// file name, the manifest's, must fit.
pub const NAME_BYTES_MAX: usize = 255 - SUFFIX.len();
/// SQLite would treat a file with such a suffix as part of another database, and delete it.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A validated name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupName(String);

/// Why a name is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadName(&'static str);

impl BackupName {
    /// Validates a name. Inner spaces and letters of any script are allowed.
    pub fn parse(name: &str) -> Result<Self, BadName> {
        if name.trim().is_empty() {
            return Err(BadName("it is empty"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(BadName("it is longer than 241 bytes, and its manifest's name could not be written"));
        }
        if name.contains(['/', '\\']) {
            return Err(BadName("it has a path separator"));
        }
        if name.contains("..") {
            return Err(BadName("it has '..'"));
        }
        if name.starts_with('.') {
            return Err(BadName("it begins with a dot"));
        }
        if name.chars().any(char::is_control) {
            return Err(BadName("it has a control character"));
        }
        let lower = name.to_lowercase();
        if SIDE_FILES.iter().any(|ending| lower.ends_with(ending)) {
            return Err(BadName("it ends as one of SQLite's own side files does"));
        }
        if [SUFFIX, DIGEST_SUFFIX].iter().any(|ending| lower.ends_with(ending)) {
            return Err(BadName("it ends as what is written beside a backup does"));
        }
        Ok(BackupName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filename must be a bare file name: {}", self.0)
    }
}

impl std::error::Error for BadName {}

/// Whether a name is in use: by any file of that name, by a side file that SQLite would apply
/// to it, or by one of the backup's own side files.
pub(super) fn is_taken(path: &Path) -> io::Result<bool> {
    for suffix in ["", SUFFIX, DIGEST_SUFFIX].into_iter().chain(SIDE_FILES) {
        if files::is_taken(&files::with_suffix(path, suffix))? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_pass() {
        for name in [
            "a",
            "pre-migration-2026-06-17.db",
            "nightly 1.db",
            "Sicherung-für-Köln.db",
            "備份.db",
            "a.b.c",
            "-wal.db",
            "x-wall",
            "file:x.db",
            "100%.db",
            "x.sha256.db",
            "manifest.json",
            &"a".repeat(241),
        ] {
            assert!(BackupName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn every_name_beside_the_longest_one_can_be_written_and_the_refusal_says_the_limit() {
        for suffix in [SUFFIX, DIGEST_SUFFIX, "-wal", "-shm", "-journal"] {
            assert!(NAME_BYTES_MAX + suffix.len() <= 255, "{suffix}");
        }
        let refused = BackupName::parse(&"a".repeat(NAME_BYTES_MAX + 1)).expect_err("too long");
        assert!(refused.to_string().contains(&NAME_BYTES_MAX.to_string()), "{refused}");
    }

    #[test]
    fn everything_else_is_refused() {
        for name in [
            "",
            " ",
            "   ",
            "\t",
            ".",
            "..",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "..\\a",
            "a..b",
            "a..",
            ".hidden",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}b",
            "x.db-wal",
            "x.db-shm",
            "x.db-journal",
            "X.DB-WAL",
            "x.db.manifest.json",
            "X.Manifest.JSON",
            "x.db.sha256",
            "x.SHA256",
            "\u{3000}",
            &"a".repeat(242),
            &"é".repeat(121),
        ] {
            assert!(BackupName::parse(name).is_err(), "{name:?}");
        }
    }
}
