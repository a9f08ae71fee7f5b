//! The receipt chain and its head.
//!
//! Whatever proves the evidence reads the tables themselves, by position (`NOT INDEXED`): an
//! index that somebody added may hold honest copies of rows that were edited, and the query
//! planner would use it as soon as its statistics are forged too.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Rows};

use crate::domain::canon::{self, Hash};
use crate::domain::receipt::{FORMAT_VERSION, GENESIS, Receipt};
use crate::domain::time::Timestamp;

use super::commit::Tx;
use super::error::Error;

/// The last link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its position; 0 while the chain is empty.
    pub seq: i64,
    /// Its hash, [`GENESIS`] while the chain is empty.
    pub receipt_hash: String,
    /// Its time; the next receipt's is not earlier.
    pub ts: Option<Timestamp>,
}

impl Head {
    /// Reads the recorded head and the last receipt, which must agree.
    pub fn load(connection: &Connection) -> Result<Self, Error> {
        let read = Error::cannot("read the chain's head");
        let (seq, receipt_hash): (i64, String) = connection
            .prepare_cached("SELECT head_seq, head_hash FROM chain NOT INDEXED WHERE only_row = 1")
            .and_then(|mut row| row.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(&read)?;
        let last = connection
            .prepare_cached(
                "SELECT seq, receipt_hash, ts FROM receipts NOT INDEXED ORDER BY seq DESC LIMIT 1",
            )
            .and_then(|mut last| {
                last.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))).optional()
            })
            .map_err(&read)?;
        let (last_seq, last_hash, ts) = match last {
            Some((seq, hash, ts)) => (seq, hash, Timestamp::parse(&ts)),
            None => (0, GENESIS.to_owned(), None),
        };
        if (last_seq, &last_hash) != (seq, &receipt_hash) {
            return Err(Error::Corrupt(format!(
                "the recorded head of the chain is receipt {seq} ({receipt_hash}), but the last receipt is \
                 {last_seq} ({last_hash}): receipts were removed or added behind the gateway's back"
            )));
        }
        Ok(Head { seq, receipt_hash, ts })
    }

    /// The time of the last receipt, if it is more than `seconds` after `now`.
    pub(super) fn time_ahead(&self, now: Timestamp, seconds: i64) -> Option<Timestamp> {
        self.ts.filter(|ts| *ts > now.plus_seconds(seconds))
    }

    fn next_time(&self, now: Timestamp) -> Timestamp {
        self.ts.map_or(now, |last| last.max(now))
    }

    /// Records the head beside the chain.
    pub(super) fn store(&self, connection: &Connection) -> Result<(), Error> {
        connection
            .prepare_cached("UPDATE chain SET head_seq = ?1, head_hash = ?2 WHERE only_row = 1")
            .and_then(|mut update| update.execute((self.seq, &self.receipt_hash)))
            .map_err(Error::cannot("record the chain's head"))
            .and_then(Error::unless_one("record the chain's head"))
    }
}

/// The content of a new receipt; the chain assigns position, time and links.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Random part of the receipt's id.
    pub nonce: &'a str,
    /// UUID of the agent.
    pub agent_id: Option<&'a str>,
    /// The user on whose behalf the agent acts.
    pub user_id: Option<&'a str>,
    /// The caller's run.
    pub run_id: Option<&'a str>,
    /// The caller's trace.
    pub trace_id: Option<&'a str>,
    /// Name of the tool.
    pub tool: &'a str,
    /// Name of the action.
    pub action: &'a str,
    /// What it acts on.
    pub resource: Option<&'a str>,
    /// The source's trust.
    pub source_trust: &'a str,
    /// The outcome.
    pub decision: &'a str,
    /// Who approved.
    pub approver: Option<&'a str>,
    /// SHA-256 of the canonical call.
    pub action_hash: Option<&'a str>,
    /// The decision this receipt records.
    pub decision_id: Option<&'a str>,
    /// SHA-256 of the recorded decision.
    pub decision_hash: Option<&'a str>,
    /// The rules that decided.
    pub policy_version: Option<&'a str>,
}

/// A receipt that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its position.
    pub seq: i64,
    /// Its id.
    pub event_id: String,
    /// Its hash.
    pub receipt_hash: String,
    /// The hash of the one before.
    pub prev_receipt_hash: String,
}

/// The time of the next receipt: now, but never before the last one's.
pub fn next_time(tx: &Tx<'_>, now: Timestamp) -> Timestamp {
    tx.head.next_time(now)
}

/// Appends a receipt to the chain.
pub fn append(tx: &mut Tx<'_>, entry: &Entry<'_>, now: Timestamp) -> Result<Appended, Error> {
    let head = &*tx.head;
    let (seq, at) = (head.seq + 1, head.next_time(now));
    let event_id = format!("rcpt_{seq}_{}", entry.nonce);
    let ts = at.to_string();
    let receipt = Receipt {
        seq,
        format_version: FORMAT_VERSION,
        canon_version: canon::VERSION,
        event_id: &event_id,
        ts: &ts,
        agent_id: entry.agent_id,
        user_id: entry.user_id,
        run_id: entry.run_id,
        trace_id: entry.trace_id,
        tool: entry.tool,
        action: entry.action,
        resource: entry.resource,
        source_trust: entry.source_trust,
        decision: entry.decision,
        approver: entry.approver,
        action_hash: entry.action_hash,
        decision_id: entry.decision_id,
        decision_hash: entry.decision_hash,
        policy_version: entry.policy_version,
        prev_receipt_hash: &head.receipt_hash,
    };
    let hash = receipt.hash(&mut Vec::with_capacity(1024));
    insert(tx.connection(), &receipt, hash)
        .map_err(Error::cannot("append a receipt"))
        .and_then(Error::unless_one("append a receipt"))?;
    let appended = Appended {
        seq,
        receipt_hash: hash.to_string(),
        prev_receipt_hash: head.receipt_hash.clone(),
        event_id,
    };
    *tx.head = Head { seq, receipt_hash: appended.receipt_hash.clone(), ts: Some(at) };
    Ok(appended)
}

/// The columns, in the order of [`from_row`].
const COLUMNS: &str = "seq, format_version, canon_version, event_id, ts, agent_id, user_id, run_id, \
     trace_id, tool, action, resource, source_trust, decision, approver, action_hash, decision_id, \
     decision_hash, policy_version, prev_receipt_hash, receipt_hash";
/// Number of columns.
pub(crate) const COLUMN_COUNT: usize = 21;

fn insert(connection: &Connection, receipt: &Receipt<'_>, hash: Hash) -> rusqlite::Result<usize> {
    const INSERT: &str = "INSERT INTO receipts (seq, format_version, canon_version, event_id, ts, \
         agent_id, user_id, run_id, trace_id, tool, action, resource, source_trust, decision, approver, \
         action_hash, decision_id, decision_hash, policy_version, prev_receipt_hash, receipt_hash) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
         ?20, ?21)";
    connection.prepare_cached(INSERT)?.execute(rusqlite::params![
        receipt.seq,
        receipt.format_version,
        receipt.canon_version,
        receipt.event_id,
        receipt.ts,
        receipt.agent_id,
        receipt.user_id,
        receipt.run_id,
        receipt.trace_id,
        receipt.tool,
        receipt.action,
        receipt.resource,
        receipt.source_trust,
        receipt.decision,
        receipt.approver,
        receipt.action_hash,
        receipt.decision_id,
        receipt.decision_hash,
        receipt.policy_version,
        receipt.prev_receipt_hash,
        hash.to_hex().as_str(),
    ])
}

/// Reads a receipt and its stored hash without copying; `from` is the first column.
pub(crate) fn from_row<'a>(row: &'a Row<'_>, from: usize) -> rusqlite::Result<(Receipt<'a>, &'a str)> {
    let text = |column: usize| -> rusqlite::Result<&'a str> { Ok(row.get_ref(from + column)?.as_str()?) };
    let optional = |column: usize| -> rusqlite::Result<Option<&'a str>> {
        Ok(row.get_ref(from + column)?.as_str_or_null()?)
    };
    let receipt = Receipt {
        seq: row.get(from)?,
        format_version: row.get(from + 1)?,
        canon_version: text(2)?,
        event_id: text(3)?,
        ts: text(4)?,
        agent_id: optional(5)?,
        user_id: optional(6)?,
        run_id: optional(7)?,
        trace_id: optional(8)?,
        tool: text(9)?,
        action: text(10)?,
        resource: optional(11)?,
        source_trust: text(12)?,
        decision: text(13)?,
        approver: optional(14)?,
        action_hash: optional(15)?,
        decision_id: optional(16)?,
        decision_hash: optional(17)?,
        policy_version: optional(18)?,
        prev_receipt_hash: text(19)?,
    };
    Ok((receipt, text(20)?))
}

/// Which receipts a list contains.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only receipts before this position.
    pub before: Option<i64>,
    /// Only receipts after this position.
    pub after: Option<i64>,
    /// Maximum number of receipts.
    pub limit: u32,
    /// Number of receipts to skip.
    pub offset: u32,
    /// Chain order instead of newest first.
    pub oldest_first: bool,
}

/// Visits a page of the chain. Positions have no gaps, so skipping is arithmetic: the last
/// page costs the same as the first.
pub fn list(
    connection: &Connection,
    page: Page,
    visit: &mut dyn FnMut(&Receipt<'_>, &str),
) -> Result<(), Error> {
    let last = Head::load(connection)?.seq;
    let mut oldest = page.after.map_or(1, |after| after.saturating_add(1).max(1));
    let mut newest = page.before.map_or(last, |before| before.saturating_sub(1).min(last));
    if page.oldest_first {
        oldest = oldest.saturating_add(i64::from(page.offset));
    } else {
        newest = newest.saturating_sub(page.offset.into());
    }
    let order = if page.oldest_first { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM receipts NOT INDEXED WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq {order} LIMIT ?3"
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut rows| {
            let mut rows = rows.query((oldest, newest, page.limit))?;
            while let Some(row) = rows.next()? {
                let (receipt, hash) = from_row(row, 0)?;
                visit(&receipt, hash);
            }
            Ok(())
        })
        .map_err(Error::cannot("list receipts"))
}

/// Finds a receipt by its id and passes it to `visit`. The id contains the position, so this
/// needs no index.
pub fn find<T>(
    connection: &Connection,
    event_id: &str,
    visit: impl FnOnce(&Receipt<'_>, &str) -> T,
) -> Result<Option<T>, Error> {
    let Some(seq) = seq_of(event_id) else { return Ok(None) };
    let found = find_at(connection, seq, |receipt, hash| {
        (receipt.event_id == event_id).then(|| visit(receipt, hash))
    })?;
    Ok(found.flatten())
}

/// Finds the receipt at a position and passes it to `visit`.
pub fn find_at<T>(
    connection: &Connection,
    seq: i64,
    visit: impl FnOnce(&Receipt<'_>, &str) -> T,
) -> Result<Option<T>, Error> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM receipts NOT INDEXED WHERE seq = ?1"))
        .and_then(|mut row| {
            row.query_row([seq], |row| {
                let (receipt, hash) = from_row(row, 0)?;
                Ok(visit(&receipt, hash))
            })
            .optional()
        })
        .map_err(Error::cannot("find a receipt"))
}

/// The last position up to `seq`.
pub(crate) fn last_up_to(connection: &Connection, seq: i64) -> Result<Option<i64>, Error> {
    connection
        .query_row("SELECT max(seq) FROM receipts NOT INDEXED WHERE seq <= ?1", [seq], |row| row.get(0))
        .map_err(Error::cannot("find the last receipt"))
}

/// The position in a receipt's id.
pub fn seq_of(event_id: &str) -> Option<i64> {
    event_id.strip_prefix("rcpt_")?.split_once('_')?.0.parse().ok()
}

/// A statement that reads a range of the chain in order, each receipt with its decision (the
/// columns of `decisions` follow those of `receipts`, all null if there is none).
pub(crate) fn scan_with_decisions<'c>(connection: &'c Connection) -> rusqlite::Result<CachedStatement<'c>> {
    let prefixed = |columns: &str, table: &str| {
        columns.split(", ").map(|column| format!("{table}.{}", column.trim())).collect::<Vec<_>>().join(", ")
    };
    connection.prepare_cached(&format!(
        "SELECT {}, {} FROM receipts r NOT INDEXED \
         LEFT JOIN decisions d NOT INDEXED ON d.seq = r.seq \
         WHERE r.seq BETWEEN ?1 AND ?2 ORDER BY r.seq",
        prefixed(COLUMNS, "r"),
        prefixed(super::decisions::COLUMNS, "d"),
    ))
}

/// Starts the scan.
pub(crate) fn rows<'s>(
    statement: &'s mut CachedStatement<'_>,
    first: i64,
    last: i64,
) -> rusqlite::Result<Rows<'s>> {
    statement.query((first, last))
}

/// The first position whose time is not before `at`. Times never decrease along the chain, so
/// this is a binary search.
pub fn first_at_or_after(connection: &Connection, at: Timestamp) -> Result<i64, Error> {
    let find = Error::cannot("find a receipt by time");
    // Two subqueries: SQLite looks up a single minimum or maximum, but scans for both at once.
    let (mut low, mut high): (i64, i64) = connection
        .query_row(
            "SELECT coalesce((SELECT min(seq) FROM receipts NOT INDEXED), 1), \
             coalesce((SELECT max(seq) FROM receipts NOT INDEXED), 0) + 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(&find)?;
    while low < high {
        let middle = low + (high - low) / 2;
        // A gap left by tampering is skipped here; the verifier reports it.
        let ts: Option<(i64, String)> = connection
            .prepare_cached(
                "SELECT seq, ts FROM receipts NOT INDEXED WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT 1",
            )
            .and_then(|mut row| {
                row.query_row([middle, high], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(&find)?;
        match ts {
            Some((seq, ts)) if Timestamp::parse(&ts).is_some_and(|ts| ts < at) => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
