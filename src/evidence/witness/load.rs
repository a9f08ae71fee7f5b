//! Loads witnesses: manifests, backups, and folders of both.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;
use crate::evidence::manifest::{self, Manifest, RESTORES_MAX, SUFFIX};
use crate::evidence::source::{self, SourceError};
use crate::store::chain::{self, State};
use crate::store::error::Error;
use crate::store::files::{self, FileId};
use crate::store::guard::header;

use super::verdict::Pin;
use super::{Described, Unreadable, Witness, Witnesses};

impl Witnesses {
    /// The manifests in a folder, for the chain `chain_id`. For an unreadable manifest, which is
    /// listed as such, the backup beside it serves as the witness. No other database is opened,
    /// and never `live`, the one to be judged. A missing folder has no manifests.
    pub fn of_folder(path: &Path, chain_id: &str, live: &Path) -> io::Result<Self> {
        let mut found = Witnesses { chain_id: chain_id.to_owned(), ..Witnesses::default() };
        let entries = match entries(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let own = FileId::at(live)?;
        for path in entries.iter().filter(|path| is_manifest(path)) {
            found.keep_manifest(path, own);
        }
        Ok(found)
    }

    /// The witnesses at `paths`, for judging the file `judged`. Each path is a manifest, a
    /// backup, or a folder, which supplies its manifests and its databases without one. Any
    /// other path is an error; an unusable file in a folder is listed as unreadable.
    pub fn of_paths(paths: &[PathBuf], chain_id: &str, judged: &Path) -> Result<Self, SourceError> {
        let mut found = Witnesses { chain_id: chain_id.to_owned(), ..Witnesses::default() };
        let own = FileId::of(&fs::metadata(judged).map_err(unreadable(judged))?);
        for path in paths {
            let metadata = fs::metadata(path).map_err(unreadable(path))?;
            if metadata.is_dir() {
                found.add_folder(path, own).map_err(unreadable(path))?;
            } else if FileId::of(&metadata) == own {
                let line = format!("{} is what is verified: it is no witness of itself", path.display());
                return Err(SourceError::Unreadable(line));
            } else if metadata.is_file() && is_database(path).map_err(unreadable(path))? {
                let witness = of_database(path)
                    .map_err(|what| SourceError::Unreadable(format!("{}: {what}", path.display())))?;
                found.all.push(witness);
            } else {
                found.add_manifest(path).map_err(|unreadable| {
                    let path = path.display();
                    SourceError::Unreadable(format!("{path} is no witness: {}", unreadable.reason))
                })?;
            }
        }
        Ok(found)
    }

    fn add_folder(&mut self, folder: &Path, own: FileId) -> io::Result<()> {
        for path in entries(folder)? {
            if is_manifest(&path) {
                self.keep_manifest(&path, Some(own));
                continue;
            }
            let is_own = fs::metadata(&path).is_ok_and(|metadata| FileId::of(&metadata) == own);
            if is_own || fs::exists(files::with_suffix(&path, SUFFIX)).unwrap_or(false) {
                continue;
            }
            self.keep_database(path);
        }
        Ok(())
    }

    /// Adds a manifest or, if it is unreadable, the backup beside it: a damaged manifest must
    /// not hide a head.
    fn keep_manifest(&mut self, path: &Path, own: Option<FileId>) {
        let Err(unreadable) = self.add_manifest(path) else { return };
        self.unreadable.push(unreadable);
        let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(SUFFIX));
        let Some(backup) = name.map(|name| path.with_file_name(name)) else { return };
        let found = fs::metadata(&backup).ok().filter(Metadata::is_file);
        if found.is_some_and(|metadata| own != Some(FileId::of(&metadata))) {
            self.keep_database(backup);
        }
    }

    fn keep_database(&mut self, path: PathBuf) {
        match is_database(&path) {
            Ok(false) => {}
            Ok(true) => match of_database(&path) {
                Ok(witness) => self.all.push(witness),
                Err(reason) => self.unreadable.push(Unreadable { path, reason }),
            },
            Err(error) => self.unreadable.push(Unreadable { path, reason: error.to_string() }),
        }
    }

    fn add_manifest(&mut self, path: &Path) -> Result<(), Unreadable> {
        let unreadable = |reason: String| Unreadable { path: path.to_owned(), reason };
        let bytes = manifest::read(path).map_err(|error| unreadable(error.to_string()))?;
        // Kept even if it does not parse: its successor states its digest.
        self.manifests.push((path.to_owned(), Hash::of(&bytes)));
        let manifest = Manifest::parse(&bytes).map_err(|error| unreadable(error.to_string()))?;
        self.all.push(Witness {
            path: path.to_owned(),
            pin: Pin {
                chain_id: manifest.chain_id,
                genesis_hash: manifest.genesis_hash,
                seq: manifest.head.seq,
                receipt_id: manifest.head.receipt_id,
                receipt_hash: manifest.head.receipt_hash,
                restores: manifest.restores,
            },
            created_at: Timestamp::parse(&manifest.created_at),
            described: Some(Described {
                file: manifest.file,
                receipts: manifest.receipts,
                decisions: manifest.decisions,
            }),
            previous: manifest.previous_manifest,
        });
        Ok(())
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> SourceError {
    move |error| SourceError::Unreadable(format!("cannot read {}: {error}", path.display()))
}

/// The files in a folder, sorted by name. Hidden files are incomplete and are skipped.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    path.file_name().map(OsStr::as_encoded_bytes).is_some_and(|name| name.ends_with(SUFFIX.as_bytes()))
}

fn is_database(path: &Path) -> io::Result<bool> {
    header::is_database(&files::open_file(path)?)
}

/// A database as a witness, by its head alone. Its earlier history is neither verified nor
/// relied on.
fn of_database(path: &Path) -> Result<Witness, String> {
    let database = source::open_witness(path).map_err(|error| error.to_string())?;
    let pin = pin(&database.connection).map_err(|error| error.to_string())?;
    Ok(Witness { path: path.to_owned(), pin, created_at: None, described: None, previous: None })
}

fn pin(connection: &Connection) -> Result<Pin, Error> {
    let view = connection.unchecked_transaction().map_err(Error::cannot("begin to read"))?;
    let state = State::load(&view)?;
    let restores = chain::restores(&view, RESTORES_MAX)?;
    view.finish().map_err(Error::cannot("end a read"))?;
    let restores = restores.into_iter().map(|recorded| recorded.at).collect();
    Ok(Pin {
        chain_id: state.chain_id,
        genesis_hash: state.genesis_hash,
        seq: state.head.seq,
        receipt_id: state.receipt_id,
        receipt_hash: state.head.receipt_hash,
        restores,
    })
}
