//! The private folder for the lanes' Unix sockets.
//!
//! Removes only sockets with its own names, and the folder once it is empty. If anything else
//! is in its place, that is left alone and the sockets go to the system's temporary folder.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::entropy;
use crate::store::files;

/// The socket of the lane for everything except probes.
const MAIN: &str = "main";
/// The socket of the probe lane.
const PROBES: &str = "probes";
/// Tests whether the file system supports sockets.
const TRIAL: &str = "trial";
/// Longest Unix socket path that every system accepts, in bytes.
const PATH_BYTES_MAX: usize = 100;

/// The folder, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFolder(PathBuf);

impl SocketFolder {
    /// Creates it at `wanted`, or in the system's temporary folder if that fails or the path is
    /// too long for a socket.
    pub(super) fn create(wanted: &Path) -> io::Result<Self> {
        let wanted = std::path::absolute(wanted)?;
        if wanted.join(PROBES).as_os_str().len() <= PATH_BYTES_MAX {
            match Self::create_at(&wanted) {
                Ok(folder) => return Ok(folder),
                Err(error) => {
                    log::warn!("cannot create the workers' sockets in {}: {error}", wanted.display())
                }
            }
        }
        let other = std::env::temp_dir().join(format!("aegis-gateway-{}", entropy::hex::<8>()?));
        files::create_private_folder(&other)?;
        Ok(SocketFolder(other))
    }

    fn create_at(wanted: &Path) -> io::Result<Self> {
        if files::is_taken(wanted)? {
            // Left by a gateway that was killed; its lock is ours now.
            remove(wanted)?;
        }
        files::create_private_folder(wanted)?;
        let folder = SocketFolder(wanted.to_owned());
        let trial = wanted.join(TRIAL);
        UnixListener::bind(&trial).and_then(|_| fs::remove_file(&trial))?;
        Ok(folder)
    }

    pub(super) fn main(&self) -> PathBuf {
        self.0.join(MAIN)
    }

    pub(super) fn probes(&self) -> PathBuf {
        self.0.join(PROBES)
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Removes the folder; fails if it contains anything but our sockets.
fn remove(folder: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    for name in [MAIN, PROBES, TRIAL] {
        let path = folder.join(name);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_gateway_left_is_replaced() {
        let home = tempfile::tempdir().expect("a folder");
        let wanted = home.path().join("x.sockets");
        fs::create_dir(&wanted).expect("made");
        for name in [MAIN, PROBES, TRIAL] {
            drop(UnixListener::bind(wanted.join(name)).expect("bound"));
        }
        let folder = SocketFolder::create(&wanted).expect("a folder");
        assert_eq!(folder.main(), wanted.join(MAIN));
        drop(UnixListener::bind(folder.main()).expect("bound"));
        drop(folder);
        assert!(!wanted.exists());
    }

    #[test]
    fn what_is_not_the_gateway_s_is_left_alone() {
        let home = tempfile::tempdir().expect("a folder");
        let (file, folder, link) = (home.path().join("a"), home.path().join("b"), home.path().join("c"));
        fs::write(&file, "mine").expect("written");
        fs::create_dir_all(folder.join("probes")).expect("made");
        fs::write(folder.join(MAIN), "mine").expect("written");
        std::os::unix::fs::symlink(&folder, &link).expect("linked");
        for wanted in [&file, &folder, &link] {
            let elsewhere = SocketFolder::create(wanted).expect("a folder");
            assert!(!elsewhere.main().starts_with(home.path()), "{elsewhere:?}");
            UnixListener::bind(elsewhere.main()).expect("bound");
        }
        assert_eq!(fs::read(file).expect("there"), b"mine");
        assert_eq!(fs::read(link.join(MAIN)).expect("there"), b"mine");
        assert!(folder.join("probes").is_dir());
    }

    #[test]
    fn what_came_later_is_left_alone_as_well() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = SocketFolder::create(&home.path().join("x")).expect("a folder");
        fs::write(home.path().join("x/later"), "mine").expect("written");
        drop(folder);
        assert_eq!(fs::read(home.path().join("x/later")).expect("there"), b"mine");
    }
}
