//! Checks that the database and the files beside it have only one name each.
//!
//! The lock, the log and the log's index are found by name. Two gateways using two names of
//! one file would each hold their own lock and write their own log, and both logs would end up
//! in the file: the chain would fork. The path does not reveal this, but the file's link count
//! does or, for a file that is itself a mount point, the mount.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::error::Refusal;
use crate::store::files::{self, FileId};

use super::{Layout, LogPlan};

/// Rejects a database that has a second name, or whose journal, log or index has one.
pub(super) fn check(layout: &Layout, plan: LogPlan) -> Result<(), Refusal> {
    let mut paths = vec![&layout.database, &layout.journal];
    // A log that is set aside is not written to, nor is its index.
    if plan != LogPlan::SetAside {
        paths.extend([&layout.wal, &layout.shm]);
    }
    for path in paths {
        let Some(metadata) = look_at(path)? else { continue };
        // A kill while a database is created may leave its partial name.
        let own = if is_at(&layout.partial, &metadata)? { 2 } else { 1 };
        if metadata.nlink() > own {
            return Err(linked(layout, path, &metadata)?);
        }
    }
    if is_mount_point(&layout.database).map_err(Refusal::io("look at", &layout.database))? {
        return Err(Refusal::new(
            format!("{} is mounted by itself, under a name of its own", layout.database.display()),
            "mount its folder instead: the log has to lie beside it for whoever opens it",
        ));
    }
    Ok(())
}

fn linked(layout: &Layout, path: &Path, metadata: &Metadata) -> Result<Refusal, Refusal> {
    let (shown, names) = (path.display(), metadata.nlink());
    let remedy = if is_at(&kept_by_restore(layout, path), metadata)? {
        format!("a restore was interrupted: restore.sh --repair --db {}", layout.database.display())
    } else {
        format!(
            "remove the other names, or give this one a file of its own: \
             cp {shown} {shown}.own && mv {shown}.own {shown}"
        )
    };
    let what = format!("{shown} has {names} names (hard links): a gateway on each would fork the chain");
    Ok(Refusal::new(what, remedy))
}

/// Where `scripts/restore.sh` keeps a file until the restore is complete.
fn kept_by_restore(layout: &Layout, path: &Path) -> PathBuf {
    let old = files::with_suffix(&layout.database, ".restoring").join("old");
    old.join(path.file_name().unwrap_or_default())
}

fn look_at(path: &Path) -> Result<Option<Metadata>, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(error) => Err(Refusal::io("look at", path)(error)),
    }
}

/// Whether `path` is a name of this file.
fn is_at(path: &Path, metadata: &Metadata) -> Result<bool, Refusal> {
    let found = FileId::at(path).map_err(Refusal::io("look at", path))?;
    Ok(found == Some(FileId::of(metadata)))
}

/// Whether the file is itself a mount point. Not detectable before Linux 5.8 or on other
/// systems; returns false there.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
    match rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty()) {
        Ok(found) => {
            let known = found.stx_attributes & found.stx_attributes_mask;
            Ok(known.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_: &Path) -> io::Result<bool> {
    Ok(false)
}
