//! The room that a backup takes on its disk, and what it leaves.
//!
//! The live log cannot begin again as long as the copy reads, and a disk that the copy has
//! filled fails the gateway's own commits until the copy is gone. So a backup that would come
//! close does not begin, and one that comes close is given up.

use std::fs::File;

use rusqlite::Connection;

use crate::store::connection::JOURNAL_BYTES_MAX;
use crate::store::error::Error as StoreError;
use crate::store::files::Disk;

use super::{Error, cannot};

/// What is left in any case is as much as the log keeps when it begins again, but of a small
/// disk no more than this part.
const LEFT_OF_SMALL_DISK: u64 = 16;
/// The log grows with the time that the copy takes, and so with its size.
const LOG_SHARE_OF_COPY: u64 = 8;

/// What a backup may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// How large the copy may become.
    pub(super) copy_bytes: u64,
    /// With less than this on the disk the copy is given up.
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

    /// Fails when the growing copy has to be given up.
    pub(super) fn check_left(&self, partial: &File) -> Result<(), Error> {
        let free = Disk::under(partial).map_err(cannot("read the free space"))?.free_bytes;
        let left = self.left_bytes;
        if free < left {
            let what = format!("{free} bytes are free, and {left} are left for the gateway's own log");
            return Err(Error::DiskFull(what));
        }
        Ok(())
    }
}

/// Whether there is room for a copy of `source` beside `partial`.
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
            "{needed} bytes are needed, with those for the gateway's own log, and {free} are free"
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
