//! Reads a write-ahead log without SQLite: whether it holds commits, and its images of
//! page 1.
//!
//! The layout and the checksum follow section 4 of SQLite's "Database File Format". Only
//! frames up to the last valid commit count, as in SQLite's own recovery. This module never
//! writes, and trusts nothing without a valid checksum.

use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::store::files;

use super::header::{DatabaseHeader, HEADER_BYTES};

const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC_LITTLE_ENDIAN: u32 = 0x377f_0682;
const MAGIC_BIG_ENDIAN: u32 = 0x377f_0683;
const FORMAT_VERSION: u32 = 3_007_000;

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// The two salts, which identify this generation of the log.
    pub(crate) id: u64,
    /// Page size of its frames.
    pub(crate) page_size: u32,
    /// The first and last committed images of page 1, if there are any.
    pub(crate) page_one: Option<PageOne>,
}

/// The span of the committed images of page 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageOne {
    /// Change counter of the first image.
    pub(crate) first_counter: u32,
    /// The last image.
    pub(crate) last: DatabaseHeader,
}

/// The log at `path`; `None` if it is missing, empty, or has no valid commit.
pub(crate) fn read(path: &Path) -> io::Result<Option<Log>> {
    match files::open_file(path) {
        Ok(file) => scan(BufReader::with_capacity(1 << 20, file)),
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn scan(mut input: impl Read) -> io::Result<Option<Log>> {
    let mut header = [0; LOG_HEADER_BYTES];
    if !fill(&mut input, &mut header)? {
        return Ok(None);
    }
    let little_endian = match be32(&header, 0) {
        MAGIC_LITTLE_ENDIAN => true,
        MAGIC_BIG_ENDIAN => false,
        _ => return Ok(None),
    };
    let page_size = be32(&header, 8);
    let valid_size = page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
    let mut sum = checksum(little_endian, (0, 0), &header[..24]);
    if be32(&header, 4) != FORMAT_VERSION || !valid_size || sum != (be32(&header, 24), be32(&header, 28)) {
        return Ok(None);
    }
    let mut log = Log {
        id: u64::from(be32(&header, 16)) << 32 | u64::from(be32(&header, 20)),
        page_size,
        page_one: None,
    };
    let mut committed = false;
    let mut uncommitted = log.page_one;
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_size as usize];
    while fill(&mut input, &mut frame)? {
        sum = checksum(little_endian, sum, &frame[..8]);
        sum = checksum(little_endian, sum, &frame[FRAME_HEADER_BYTES..]);
        let page = be32(&frame, 0);
        if page == 0 || frame[8..16] != header[16..24] || sum != (be32(&frame, 16), be32(&frame, 20)) {
            break;
        }
        if page == 1 {
            uncommitted = follow(uncommitted, &frame[FRAME_HEADER_BYTES..]);
        }
        if be32(&frame, 4) != 0 {
            committed = true;
            log.page_one = uncommitted;
        }
    }
    Ok(committed.then_some(log))
}

fn follow(before: Option<PageOne>, image: &[u8]) -> Option<PageOne> {
    let last = DatabaseHeader::parse(image.first_chunk::<HEADER_BYTES>()?);
    let first_counter = before.map_or(last.change_counter, |before| before.first_counter);
    Some(PageOne { first_counter, last })
}

/// Fills `buffer`; returns false at the end of the file, even within a frame.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(little_endian: bool, from: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    };
    bytes.chunks_exact(8).fold(from, |(first, second), pair| {
        let first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        (first, second.wrapping_add(word(&pair[4..])).wrapping_add(first))
    })
}

/// The big-endian number at `at`.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use rusqlite::config::DbConfig;

    /// Creates a database whose log is left behind, as after a SIGKILL.
    fn hot_log(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("a.db");
        let connection = Connection::open(&path).expect("open");
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("configure");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);
                 CREATE TABLE u (x); INSERT INTO u VALUES (randomblob(9000));",
            )
            .expect("write");
        drop(connection);
        folder.join("a.db-wal")
    }

    #[test]
    fn commits_and_page_one_are_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = read(&hot_log(folder.path())).expect("read").expect("commits");
        let page_one = log.page_one.expect("page 1 was written");
        assert_eq!(log.page_size, 4096);
        assert!(page_one.first_counter <= page_one.last.change_counter);
        assert!(page_one.last.is_wal());
    }

    #[test]
    fn only_whole_commits_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = hot_log(folder.path());
        let whole = std::fs::read(&path).expect("read");
        let frame = FRAME_HEADER_BYTES + 4096;
        assert_eq!(scan(&whole[..LOG_HEADER_BYTES + frame - 1]).expect("scan"), None);
        assert_eq!(scan(&whole[..LOG_HEADER_BYTES]).expect("scan"), None);
        assert_eq!(scan(&[][..]).expect("scan"), None);
        let mut junk = whole.clone();
        junk[LOG_HEADER_BYTES + 40] ^= 1;
        assert_eq!(scan(&junk[..]).expect("scan"), None, "a wrong checksum ends the log");
        let mut foreign = whole;
        foreign[0] ^= 1;
        assert_eq!(scan(&foreign[..]).expect("scan"), None);
    }
}
