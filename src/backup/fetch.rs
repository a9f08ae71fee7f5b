//! Fetches a backup: its bytes as they were when it was opened, or an error.
//!
//! Never follows a link, never leaves the folder, and never opens the live database. Never
//! pads: if the file changes while it is read, the read fails before the last byte, so that
//! the client cannot mistake a mixture for the backup.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::domain::canon::Hash;
use crate::store::guard::header;

use super::Backups;
use super::list::{Kind, names, stated_digest};
use super::manifest::Manifest;

/// Maximum number of concurrent fetches; each takes a thread and a connection.
const AT_ONCE_MAX: usize = 4;

/// The number of fetches in progress.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetching(Arc<AtomicUsize>);

impl Fetching {
    fn begin(&self) -> Option<Turn> {
        let more = |count| (count < AT_ONCE_MAX).then_some(count + 1);
        let begun = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        begun.is_ok().then(|| Turn(Arc::clone(&self.0)))
    }
}

#[derive(Debug)]
struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The outcome of a fetch request.
#[derive(Debug)]
pub enum Fetch {
    /// There is no such file.
    Missing,
    /// Too many fetches are in progress.
    Busy,
    /// The file.
    Opened(Opened),
}

/// An open file.
#[derive(Debug)]
pub struct Opened {
    /// What it is.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// The digest that its manifest states, if the manifest fits the file.
    pub sha256: Option<Hash>,
    /// Its content.
    pub content: Content,
}

/// A file's bytes, exactly as many as the file had when it was opened.
#[derive(Debug)]
pub struct Content {
    file: File,
    /// Size and modification time when it was opened.
    opened: (u64, SystemTime),
    left: u64,
    _turn: Turn,
}

impl Backups {
    /// Opens a backup or one of its side files.
    pub fn fetch(&self, name: &str) -> io::Result<Fetch> {
        let Some(kind) = Kind::of(name) else { return Ok(Fetch::Missing) };
        let Some(file) = self.open(name)? else { return Ok(Fetch::Missing) };
        let Some(turn) = self.fetching.begin() else { return Ok(Fetch::Busy) };
        let opened = measure(&file)?;
        let bytes = opened.0;
        let sha256 = match kind {
            Kind::Backup => {
                let manifest = self.manifest_of(name)?.and_then(|text| Manifest::parse(&text).ok());
                let named = manifest.as_ref().is_some_and(|manifest| names(manifest, name));
                if !named && !header::is_database(&file)? {
                    return Ok(Fetch::Missing);
                }
                stated_digest(manifest, name, bytes)
            }
            Kind::Manifest | Kind::Digest => None,
        };
        let content = Content { file, opened, left: bytes, _turn: turn };
        Ok(Fetch::Opened(Opened { kind, bytes, sha256, content }))
    }
}

fn measure(file: &File) -> io::Result<(u64, SystemTime)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified()?))
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.file.read(&mut buffer[..most])?;
        self.left -= count as u64;
        if count == 0 || (self.left == 0 && measure(&self.file)? != self.opened) {
            return Err(io::Error::other("the file changed while it was read"));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn opened(backups: &Backups, name: &str) -> Opened {
        match backups.fetch(name).expect("read") {
            Fetch::Opened(opened) => opened,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_ends_in_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let (backups, path) = (Backups::new(folder.path()), folder.path().join("a.db"));
        type Change = fn(&mut File);
        let changes: [(&str, Change); 3] = [
            ("shorter", |file| file.set_len(3000).expect("cut")),
            ("longer", |file| file.set_len(5000).expect("grown")),
            ("other", |file| {
                file.write_all(b"other").expect("written");
                let later = SystemTime::now() + std::time::Duration::from_secs(5);
                file.set_modified(later).expect("set");
            }),
        ];
        for (what, change) in changes {
            fs::write(&path, [&header::MAGIC[..], &[7; 4000 - 16]].concat()).expect("written");
            let mut content = opened(&backups, "a.db").content;
            content.read_exact(&mut [0; 1000]).expect("the beginning");
            change(&mut File::options().write(true).open(&path).expect("it opens"));
            let mut rest = Vec::new();
            content.read_to_end(&mut rest).expect_err(what);
            assert!(rest.len() < 3000, "{what}: the last bytes are held back");
        }
    }

    #[test]
    fn no_more_than_a_few_are_fetched_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.db"), header::MAGIC).expect("written");
        let backups = Backups::new(folder.path());
        let all: Vec<Opened> = (0..AT_ONCE_MAX).map(|_| opened(&backups, "a.db")).collect();
        assert!(matches!(backups.fetch("a.db").expect("read"), Fetch::Busy));
        drop(all);
        opened(&backups, "a.db");
    }
}
