//! Judges a rollback journal found beside the database.
//!
//! The gateway uses one only to switch a restored file to the write-ahead log, in a
//! transaction that changes only a few bytes of page 1. A journal of that shape was left by a
//! kill during the switch, and rolling it back is correct. Any other journal could replay
//! pages of a different file, so it is rejected.

use std::io;
use std::ops::Range;

use crate::store::files;

use super::wal::be32;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const HEADER_BYTES: usize = 28;
/// Maximum size of the switch's journal: one header sector and one page.
const BYTES_MAX: usize = 2 * 65_536 + 16;
/// Format versions; change counter; version-valid-for and SQLite version number.
const CHANGED_BY_THE_SWITCH: [Range<usize>; 3] = [18..20, 24..28, 92..100];

/// Whether SQLite may roll this journal back onto the database with this first page and
/// length.
pub(crate) fn is_ours(journal: &[u8], first_page: &[u8], file_bytes: u64) -> bool {
    // Never hot: SQLite ignores a journal whose first byte is zero. The header gets its magic
    // only once the records are synced, and PERSIST mode clears it again.
    if journal.first() == Some(&0) {
        return true;
    }
    if journal.len() < HEADER_BYTES || journal.len() > BYTES_MAX || !journal.starts_with(&MAGIC) {
        return false;
    }
    let (pages, sector, page_size) = (be32(journal, 16), be32(journal, 20), be32(journal, 24));
    if page_size as usize != first_page.len() || u64::from(pages) * u64::from(page_size) != file_bytes {
        return false;
    }
    let Some(records) = journal.get(sector as usize..) else {
        return journal.len() <= sector as usize;
    };
    let record_bytes = 4 + page_size as usize + 4;
    if records.len() < record_bytes {
        return true;
    }
    if records.len() >= 2 * record_bytes || be32(records, 0) != 1 {
        return false;
    }
    differs_as_by_the_switch(&records[4..4 + page_size as usize], first_page)
}

fn differs_as_by_the_switch(original: &[u8], current: &[u8]) -> bool {
    let may_differ = |at: usize| CHANGED_BY_THE_SWITCH.iter().any(|range| range.contains(&at));
    original.iter().zip(current).enumerate().all(|(at, (a, b))| a == b || may_differ(at))
}

/// Reads the whole journal, or just enough to show that it is too long. `None` if it is missing
/// or empty.
pub(crate) fn read(path: &std::path::Path) -> io::Result<Option<Vec<u8>>> {
    use io::Read;
    let file = match files::open_file(path) {
        Ok(file) => file,
        Err(error) if files::is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 512;

    fn journal(pages: u32, records: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for word in [u32::MAX, 7, pages, 512, 512] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.resize(512, 0);
        for (page, image) in records {
            bytes.extend_from_slice(&page.to_be_bytes());
            bytes.extend_from_slice(image);
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes
    }

    #[test]
    fn the_switch_alone_is_accepted() {
        let page = vec![5; PAGE];
        let mut switched = page.clone();
        switched[18] = 2;
        switched[95] = 9;
        let mut edited = page.clone();
        edited[200] = 6;
        let bytes = 3 * PAGE as u64;
        let mut not_synced = journal(3, &[(1, &page)]);
        not_synced[..12].fill(0);
        for (journal, first_page, ours) in [
            (journal(3, &[(1, &page)]), &switched, true),
            (journal(3, &[]), &switched, true),
            (vec![0; 600], &switched, true),
            (not_synced[..512].to_vec(), &page, true),
            (not_synced, &page, true),
            (journal(3, &[(1, &page)])[..700].to_vec(), &switched, true),
            (journal(3, &[(1, &page)]), &edited, false),
            (journal(2, &[(1, &page)]), &switched, false),
            (journal(3, &[(2, &page)]), &switched, false),
            (journal(3, &[(1, &page), (2, &page)]), &switched, false),
            (b"not a journal".to_vec(), &switched, false),
        ] {
            assert_eq!(is_ours(&journal, first_page, bytes), ours, "{} bytes", journal.len());
        }
    }
}
