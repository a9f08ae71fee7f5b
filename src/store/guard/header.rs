//! Parses the first 100 bytes of a database file without SQLite.
//!
//! See section 1.3 of SQLite's "Database File Format".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::wal::be32;

pub(crate) const HEADER_BYTES: usize = 100;
pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether a file starts with SQLite's magic. Does not move the file's cursor.
pub(crate) fn is_database(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(magic == *MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The header fields that the guard uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatabaseHeader {
    pub(crate) page_size: u32,
    pub(crate) write_version: u8,
    pub(crate) read_version: u8,
    pub(crate) change_counter: u32,
    pub(crate) page_count: u32,
    pub(crate) schema_cookie: u32,
    version_valid_for: u32,
}

impl DatabaseHeader {
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let page_size = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        DatabaseHeader {
            page_size: if page_size == 1 { 65_536 } else { page_size },
            write_version: bytes[18],
            read_version: bytes[19],
            change_counter: be32(bytes, 24),
            page_count: be32(bytes, 28),
            schema_cookie: be32(bytes, 40),
            version_valid_for: be32(bytes, 92),
        }
    }

    /// Whether it was last used with a write-ahead log, as by a gateway.
    pub(crate) fn is_wal(&self) -> bool {
        (self.write_version, self.read_version) == (2, 2)
    }

    /// Whether it was last used with a rollback journal, as `VACUUM INTO` writes it.
    pub(crate) fn is_rollback(&self) -> bool {
        (self.write_version, self.read_version) == (1, 1)
    }

    /// How many pages the file should have; `None` if the header's count is not valid.
    pub(crate) fn valid_page_count(&self) -> Option<u32> {
        (self.version_valid_for == self.change_counter && self.page_count > 0).then_some(self.page_count)
    }
}
