//! The guard's six rules, applied to the raw bytes of the files. This module never writes.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::Path;

use crate::store::error::Refusal;
use crate::store::files;

use super::header::{DatabaseHeader, HEADER_BYTES, MAGIC};
use super::identity::{Identity, Record, Stamp};
use super::wal::{Log, PageOne};
use super::{Found, Judgement, Layout, LogPlan, WalChoice, journal, wal};

/// Judges a database and the files beside it by their bytes. Changes nothing.
pub fn judge(layout: &Layout, choice: Option<WalChoice>) -> Result<Judgement, Refusal> {
    let log = wal::read(&layout.wal).map_err(Refusal::io("read", &layout.wal))?;
    let log_bytes = length(&layout.wal)?;
    let record = Record::read(&layout.record).map_err(Refusal::io("read", &layout.record))?;
    let Some((metadata, first_page)) = read_first_page(&layout.database)? else {
        return judge_without_database(layout, log.as_ref(), log_bytes, record.as_ref());
    };
    let header = parse_header(&layout.database, &first_page, log.as_ref())?;
    judge_journal(layout, &first_page, metadata.len())?;
    let plan = match &log {
        Some(log) => {
            let identity = Identity::of(&metadata);
            let known = record.as_ref().is_some_and(|record| record.identity.is_same_file(&identity));
            judge_log(layout, &header, log, known, choice)?
        }
        None if log_bytes > 0 && header.is_rollback() => LogPlan::SetAside,
        None => LogPlan::Nothing,
    };
    if plan != LogPlan::Replay {
        check_length(&layout.database, &header, metadata.len())?;
    }
    let record = record.filter(|record| record.identity.is_same_file(&Identity::of(&metadata)));
    let chosen = log.as_ref().zip(choice).is_some_and(|(log, choice)| log.id == choice.log_id);
    // A killed gateway leaves a log with commits, except in the moments before the first commit
    // of a start and after the last one of a stop. Without a log, something else has closed the
    // database since, and may have changed it.
    let as_left = record.as_ref().is_some_and(|record| match record.stopped {
        Some(stamp) => stamp == Stamp::of(&metadata),
        None => plan == LogPlan::Replay && !chosen,
    });
    let restored = header.is_rollback() && plan != LogPlan::Replay;
    let restored_head = record.and_then(|record| record.restored_head);
    Ok(Judgement { found: Found::Database { restored, restored_head, as_left }, log: plan })
}

fn judge_without_database(
    layout: &Layout,
    log: Option<&Log>,
    log_bytes: u64,
    record: Option<&Record>,
) -> Result<Judgement, Refusal> {
    // Rule 2.
    if log.is_some() {
        return Err(Refusal::new(
            format!(
                "{} is missing or empty, but its write-ahead log {} holds commits",
                layout.database.display(),
                layout.wal.display()
            ),
            "put the database back, or copy a backup into its place, and start again",
        ));
    }
    if journal::read(&layout.journal).map_err(Refusal::io("read", &layout.journal))?.is_some() {
        return Err(foreign_journal(layout));
    }
    if files::is_taken(&layout.database).map_err(Refusal::io("look at", &layout.database))? {
        return Err(Refusal::new(
            format!("{} is empty", layout.database.display()),
            "copy a backup into its place, or remove the empty file to begin a new database",
        ));
    }
    let plan = if log_bytes > 0 { LogPlan::SetAside } else { LogPlan::Nothing };
    Ok(Judgement { found: Found::Missing { ran_before: record.is_some() }, log: plan })
}

/// Rules 4 to 6.
fn judge_log(
    layout: &Layout,
    header: &DatabaseHeader,
    log: &Log,
    known: bool,
    choice: Option<WalChoice>,
) -> Result<LogPlan, Refusal> {
    if log.page_size != header.page_size {
        return Ok(LogPlan::SetAside);
    }
    let doubt = if header.is_rollback() {
        if !log.page_one.is_some_and(|page_one| page_one.last.is_rollback()) {
            return Ok(LogPlan::SetAside);
        }
        "both it and the database are in rollback mode"
    } else if !known {
        "the database is not the file that the gateway ran on last \
         (a copy of the whole folder looks the same)"
    } else if log.page_one.is_some_and(|page_one| !is_counted_in(&page_one, header.change_counter)) {
        "the database's change counter is outside the log's"
    } else if log.page_one.is_some_and(|page_one| header.schema_cookie > page_one.last.schema_cookie) {
        "the database's schema is newer than the log's"
    } else {
        return Ok(LogPlan::Replay);
    };
    match choice {
        Some(choice) if choice.log_id == log.id && choice.replay => Ok(LogPlan::Replay),
        Some(choice) if choice.log_id == log.id => Ok(LogPlan::SetAside),
        _ => Err(undecided(layout, log, doubt)),
    }
}

/// Whether a file with this change counter is one that the log continues from or has been
/// partly checkpointed into. The counter wraps around after 2^32 changes.
fn is_counted_in(log: &PageOne, counter: u32) -> bool {
    let before = log.first_counter.wrapping_sub(1);
    counter.wrapping_sub(before) <= log.last.change_counter.wrapping_sub(before)
}

fn undecided(layout: &Layout, log: &Log, doubt: &str) -> Refusal {
    let id = log.id;
    Refusal::new(
        format!("the write-ahead log {} may not belong to its database: {doubt}", layout.wal.display()),
        format!(
            "put the right file back, or start once with AEGIS_WAL_CHOICE=replay:{id:016x} to apply the log \
             or AEGIS_WAL_CHOICE=set-aside:{id:016x} to go on without it"
        ),
    )
}

/// The file's metadata and first page; `None` if it is missing or empty.
fn read_first_page(path: &Path) -> Result<Option<(Metadata, Vec<u8>)>, Refusal> {
    let cannot = Refusal::io("read", path);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if files::is_absent(&error) => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    if !metadata.is_file() {
        return Err(Refusal::new(
            format!("{} is no regular file", path.display()),
            "set AEGIS_DB_PATH to the path of the database",
        ));
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    let mut page = vec![0; HEADER_BYTES];
    let mut file = File::open(path).map_err(&cannot)?;
    if metadata.len() < 512 {
        return Err(no_database(path));
    }
    file.read_exact(&mut page).map_err(&cannot)?;
    let header = page.first_chunk::<HEADER_BYTES>().map(DatabaseHeader::parse);
    let page_size = header.map_or(0, |header| header.page_size);
    if !page.starts_with(MAGIC) || !page_size.is_power_of_two() || page_size < 512 {
        return Err(no_database(path));
    }
    page.resize(page_size as usize, 0);
    if metadata.len() < u64::from(page_size) {
        return Err(Refusal::damaged(format!("{} is cut off within its first page", path.display())));
    }
    file.read_exact(&mut page[HEADER_BYTES..]).map_err(&cannot)?;
    Ok(Some((metadata, page)))
}

fn parse_header(path: &Path, page: &[u8], log: Option<&Log>) -> Result<DatabaseHeader, Refusal> {
    let header =
        page.first_chunk::<HEADER_BYTES>().map(DatabaseHeader::parse).ok_or_else(|| no_database(path))?;
    if !header.is_wal() && !header.is_rollback() && log.is_none() {
        return Err(Refusal::damaged(format!(
            "{} has the unknown format versions {} and {}",
            path.display(),
            header.write_version,
            header.read_version
        )));
    }
    Ok(header)
}

fn check_length(path: &Path, header: &DatabaseHeader, bytes: u64) -> Result<(), Refusal> {
    let expected = match header.valid_page_count() {
        Some(pages) => u64::from(pages) * u64::from(header.page_size),
        None => bytes.next_multiple_of(u64::from(header.page_size)),
    };
    if bytes != expected {
        return Err(Refusal::damaged(format!(
            "{} is {bytes} bytes long, but its header says {expected}",
            path.display()
        )));
    }
    Ok(())
}

/// Rule 1.
fn judge_journal(layout: &Layout, first_page: &[u8], file_bytes: u64) -> Result<(), Refusal> {
    match journal::read(&layout.journal).map_err(Refusal::io("read", &layout.journal))? {
        Some(bytes) if !journal::is_ours(&bytes, first_page, file_bytes) => Err(foreign_journal(layout)),
        _ => Ok(()),
    }
}

fn foreign_journal(layout: &Layout) -> Refusal {
    Refusal::new(
        format!("the rollback journal {} does not belong to the database", layout.journal.display()),
        "move it away if the database is a restored one, or put its own database back",
    )
}

fn no_database(path: &Path) -> Refusal {
    Refusal::new(
        format!("{} is not a SQLite database", path.display()),
        "set AEGIS_DB_PATH to the gateway's database, or restore a backup in its place",
    )
}

fn length(path: &Path) -> Result<u64, Refusal> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if files::is_absent(&error) => Ok(0),
        Err(error) => Err(Refusal::io("look at", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counter_is_within_the_log_s_also_where_it_begins_again() {
        const MAX: u32 = u32::MAX;
        for (first, last, counter, expected) in [
            (5, 9, 3, false),
            (5, 9, 4, true),
            (5, 9, 9, true),
            (5, 9, 10, false),
            (0, 2, MAX, true),
            (0, 2, MAX - 1, false),
            (MAX - 1, 1, MAX - 3, false),
            (MAX - 1, 1, MAX - 2, true),
            (MAX - 1, 1, 0, true),
            (MAX - 1, 1, 1, true),
            (MAX - 1, 1, 2, false),
        ] {
            let mut page = [0; HEADER_BYTES];
            page[24..28].copy_from_slice(&u32::to_be_bytes(last));
            let log = PageOne { first_counter: first, last: DatabaseHeader::parse(&page) };
            assert_eq!(is_counted_in(&log, counter), expected, "{counter} in {first} to {last}");
        }
    }
}
