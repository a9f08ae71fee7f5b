//! The disk space that a backup takes, and what it must leave free.
//!
//! The live write-ahead log cannot restart while the copy reads, and once the copy has filled
//! the disk, the gateway's own commits fail until the copy is removed. So a backup that would
//! come close to that does not start, and one that comes close is abandoned.

use std::fs::File;

use rusqlite::Connection;

use crate::store::connection::JOURNAL_BYTES_MAX;
use crate::store::error::Error as StoreError;
use crate::store::files::Disk;

use super::{Error, cannot};

/// The reserve is the size the log keeps when it restarts, but at most the disk's size divided
/// by this.
const LEFT_OF_SMALL_DISK: u64 = 16;
/// The log grows with the duration of the copy, and so with its size: by the copy's size
/// divided by this.
const LOG_SHARE_OF_COPY: u64 = 8;

/// The space a backup may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Maximum size of the copy.
    pub(super) copy_bytes: u64,
    /// The copy is abandoned if free space falls below this.
    pub(super) left_bytes: u64,
}

impl Room {
    fn on(disk: Disk, copy_bytes: u64) -> Self {
        let left_bytes = (disk.bytes / LEFT_OF_SMALL_DISK).min(JOURNAL_BYTES_MAX.unsigned_abs());
        Room { copy_bytes, left_bytes }
    }

    fn needed_bytes(&self) -> u64 {
        let log_bytes = self.left_bytes.saturating_add(self.copy_bytes / LOG_SHARE_OF_COPY);
        self.copy_bytes.saturating_add(log_bytes)
    }

    /// Fails if the growing copy has to be abandoned.
    pub(super) fn check_left(&self, partial: &File) -> Result<(), Error> {
        let free = Disk::under(partial).map_err(cannot("read the free space"))?.free_bytes;
        let left = self.left_bytes;
        if free < left {
            let what = format!("{free} bytes are free, and {left} are reserved for the gateway's own log");
            return Err(Error::DiskFull(what));
        }
        Ok(())
    }
}

/// Checks that there is room for a copy of `source` on the disk that holds `partial`.
pub(super) fn check(source: &Connection, partial: &File) -> Result<Room, Error> {
    let pragma = |name| source.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used = || -> rusqlite::Result<i64> {
        let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
        Ok(pages.saturating_mul(pragma("page_size")?))
    };
    let copy_bytes = used().map_err(StoreError::cannot("read the database's size"))?.unsigned_abs();
    let disk = Disk::under(partial).map_err(cannot("read the free space"))?;
    let room = Room::on(disk, copy_bytes);
    let (needed, free) = (room.needed_bytes(), disk.free_bytes);
    if free < needed {
        return Err(Error::DiskFull(format!(
            "{needed} bytes are needed, including those for the gateway's own log, and {free} are free"
        )));
    }
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_log_may_need_and_of_a_small_disk_a_part() {
        const MIB: u64 = 1 << 20;
        for (disk, copy, left, needed) in [
            (64, 8, 4, 8 + 4 + 1),
            (1024, 8, 64, 8 + 64 + 1),
            (1 << 20, 1024, 64, 1024 + 64 + 128),
            (64, 0, 4, 4),
        ] {
            let room = Room::on(Disk { free_bytes: 0, bytes: disk * MIB }, copy * MIB);
            assert_eq!((room.left_bytes / MIB, room.needed_bytes() / MIB), (left, needed), "{disk} MiB");
        }
        let room = Room::on(Disk { free_bytes: 0, bytes: u64::MAX }, u64::MAX);
        assert_eq!(room.needed_bytes(), u64::MAX);
    }
}
