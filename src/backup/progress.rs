//! The backup in progress, of which there is at most one, and how far it has got.

use std::fs;
use std::path::{Path, PathBuf};

use crate::domain::time::Timestamp;
use crate::sync::unpoisoned;

use super::list::Listed;
use super::name::BackupName;
use super::{Backups, Error};

/// The backup in progress.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: BackupName,
    pub(super) stage: Stage,
    started_at: Timestamp,
    /// Path of the copy, and its maximum size.
    copy: Option<(PathBuf, u64)>,
}

/// Its current stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Copying,
    Checking,
    Naming,
}

impl Stage {
    /// Overall progress when the stage begins and when it ends, as measured on a large
    /// database.
    fn share(self) -> (f64, f64) {
        match self {
            Stage::Copying => (0.0, 0.5),
            Stage::Checking => (0.5, 0.99),
            Stage::Naming => (0.99, 1.0),
        }
    }
}

impl Running {
    pub(super) fn begin(name: &BackupName, started_at: Timestamp) -> Self {
        Running { name: name.clone(), stage: Stage::Copying, started_at, copy: None }
    }

    pub(super) fn copy_to(&mut self, partial: &Path, bytes_expected: u64) {
        self.copy = Some((partial.to_owned(), bytes_expected));
    }

    fn listed(&self) -> Listed {
        // The copy may just have been renamed or removed.
        let size = |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        let (bytes, expected) = self.copy.as_ref().map_or((0, 0), |(path, expected)| (size(path), *expected));
        Listed {
            name: self.name.as_str().to_owned(),
            bytes,
            created_at: self.started_at,
            head: None,
            verified: false,
            manifest: None,
            progress: Some(progress(self.stage, bytes, expected)),
        }
    }
}

fn progress(stage: Stage, bytes: u64, expected: u64) -> f64 {
    let (from, to) = stage.share();
    if stage != Stage::Copying || expected == 0 {
        return from;
    }
    from + (to - from) * (bytes as f64 / expected as f64).min(1.0)
}

/// The right to be the running backup, until it is dropped.
pub(super) struct Turn<'a>(&'a Backups);

impl Turn<'_> {
    pub(super) fn copy_to(&self, partial: &Path, bytes_expected: u64) {
        if let Some(running) = unpoisoned(&self.0.running).as_mut() {
            running.copy_to(partial, bytes_expected);
        }
    }

    pub(super) fn reach(&self, stage: Stage) {
        if let Some(running) = unpoisoned(&self.0.running).as_mut() {
            running.stage = stage;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *unpoisoned(&self.0.running) = None;
    }
}

impl Backups {
    pub(super) fn take_turn(&self, name: &BackupName, now: Timestamp) -> Result<Turn<'_>, Error> {
        let mut running = unpoisoned(&self.running);
        match running.as_ref() {
            // Concurrent requests for one name: all but the first find it taken.
            Some(other) if other.name == *name => return Err(Error::Taken),
            Some(_) => return Err(Error::Busy),
            None => *running = Some(Running::begin(name, now)),
        }
        Ok(Turn(self))
    }

    pub(super) fn running_now(&self) -> Option<Listed> {
        unpoisoned(&self.running).as_ref().map(Running::listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_grows_with_the_copy_and_with_each_stage() {
        let course = [
            progress(Stage::Copying, 0, 0),
            progress(Stage::Copying, 50, 100),
            progress(Stage::Copying, 100, 100),
            progress(Stage::Checking, 100, 100),
            progress(Stage::Naming, 100, 100),
        ];
        assert!(course.is_sorted() && course[1] > course[0] && course[4] > course[3], "{course:?}");
        assert_eq!(progress(Stage::Copying, 300, 100), progress(Stage::Copying, 100, 100));
        assert!(course.iter().all(|part| (0.0..1.0).contains(part)), "{course:?}");
    }
}
