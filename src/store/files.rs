//! File-system helpers: private files, synced folders, atomic replacement.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `path` with `suffix` appended to its file name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that contains `path`.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Creates a folder and its missing parents, accessible only to the owner; each created
/// folder survives a power cut.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder_of(path) != path => {
            create_private_folder(folder_of(path))?;
            create_private_folder(path)
        }
        Err(error) => Err(error),
        Ok(()) => sync(folder_of(path)),
    }
}

/// Creates a file, accessible only to the owner; fails if it exists.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a regular file for reading; `None` if there is none: nothing, or a link, folder,
/// pipe or device. Never blocks on a pipe.
pub fn open_regular(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        // LOOP: a link. NXIO: a socket, or a missing device.
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) if is_absent(&error.into()) => return Ok(None),
        opened => File::from(opened?),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Opens a regular file for reading, following links; a pipe or a device is an immediate
/// error instead of blocking until somebody writes to it.
pub fn open_file(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_regular_file()) }
}

/// The error for a pipe, folder or device where a file is expected.
pub fn no_regular_file() -> io::Error {
    io::Error::other("not a regular file")
}

/// The content of a small file; more than `bytes_max` bytes are an error.
pub fn read_small(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("it is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Syncs a file, so that its content survives a power cut, or a folder, so that names
/// created or removed in it do.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives a finished, synced file its final name without ever replacing another file, and
/// syncs the folder. A hard link fails if the name is taken; file systems without hard links
/// get a non-replacing rename instead. After a failure the name is as free as before.
pub fn publish(partial: &Path, path: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    match fs::hard_link(partial, path) {
        Err(error) if has_no_hard_links(&error) => {
            rustix::fs::renameat_with(here, partial, here, path, rustix::fs::RenameFlags::NOREPLACE)?;
        }
        other => other?,
    }
    if let Err(error) = sync(folder_of(path)) {
        fs::remove_file(path)?;
        return Err(error);
    }
    Ok(())
}

fn has_no_hard_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks
    )
}

/// Replaces a small file atomically: after a power cut it has the old content or the new.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = with_suffix(path, ".partial");
    remove_if_there(&partial)?;
    let mut file = create_private_file(&partial)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&partial, path)) {
        remove_if_there(&partial)?;
        return Err(error);
    }
    sync(folder_of(path))
}

/// Removes a file; a missing file is not an error.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error means that there is no such file. A side file whose name is too long
/// cannot exist either.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename)
}

/// Whether anything has this name, including a folder or a dangling link.
pub fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Identifies a file among all that exist now, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that this is the metadata of.
    pub fn of(metadata: &Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The file of this name, links followed; `None` if there is none.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(FileId::of(&metadata))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an open file still has the name by which it was opened.
pub fn has_name(file: &File, path: &Path) -> io::Result<bool> {
    Ok(FileId::at(path)? == Some(FileId::of(&file.metadata()?)))
}

/// Free space on the disk of `path` that this user may write, in bytes.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    Ok(Disk::of(rustix::fs::statvfs(path)?).free_bytes)
}

/// A disk's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Its size.
    pub bytes: u64,
}

impl Disk {
    /// The disk of an open file.
    pub fn under(file: &File) -> io::Result<Self> {
        Ok(Disk::of(rustix::fs::fstatvfs(file)?))
    }

    fn of(disk: rustix::fs::StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Disk { free_bytes: bytes(disk.f_bavail), bytes: bytes(disk.f_blocks) }
    }
}
