//! Compares the chain with what its backups have seen, before it is served again.
//!
//! A chain that was truncated or replaced by an earlier copy still verifies on its own; only
//! the manifests of its backups reveal the loss. A restored copy may be behind them, and its
//! chain then records the restore permanently. Any other chain that is behind is rejected.

use std::path::Path;

use rusqlite::Connection;

use crate::domain::audit::{Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::receipt::EMPTY_HEAD;
use crate::domain::restore::{Cause, Departure, Position, TOOL};
use crate::domain::time::Timestamp;
use crate::entropy;
use crate::evidence::witness::verdict::{Pin, Verdict};
use crate::evidence::witness::{self, Judged, Witness, Witnesses};
use crate::store::chain::{self, State};
use crate::store::error::Refusal;
use crate::store::receipts::{self, Entry};
use crate::store::{Store, audit};

use super::Options;

/// What the guard knows about a restored copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restored<'a> {
    /// No gateway has run on it yet.
    pub(super) fresh: bool,
    /// A gateway has started on it: hash of the head that the copy came with.
    pub(super) head: Option<&'a str>,
}

/// A continuation from a restored or earlier head, which the chain must record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Return {
    cause: Cause,
    departure: Departure,
}

/// Whether the chain in `content` continues from such a head. Rejects a chain that is behind
/// its witnesses for no accepted reason.
pub(super) fn judge(
    content: &Connection,
    options: &Options<'_>,
    restored: Restored<'_>,
) -> Result<Option<Return>, Refusal> {
    let state = State::load(content)?;
    let witnesses = Witnesses::of_folder(options.backups, &state.chain_id, options.database)
        .map_err(Refusal::io("read the manifests in", options.backups))?;
    let report = witness::judge(content, &witnesses)?;
    for unreadable in report.unreadable {
        log::warn!("passing over {}: {}", unreadable.path.display(), unreadable.reason);
    }
    let head = Position { seq: state.head.seq, receipt_hash: state.head.receipt_hash };
    let behind: Vec<&Judged<'_>> = report.judged.iter().filter(|one| one.verdict.is_offence()).collect();
    let departure = departure(&head, &behind);
    let is_restored = restored.fresh || restored.head == Some(head.receipt_hash.as_str());
    let foreign = foreign(content, &head, &behind)?;
    let unexplained = if is_restored { foreign } else { newest(&behind) };
    match unexplained {
        None if is_restored => Ok(Some(Return { cause: Cause::Restore, departure })),
        None => Ok(None),
        Some(_) if accepts(options, &head) => Ok(Some(Return { cause: Cause::AcceptedRollback, departure })),
        Some(worst) => Err(refusal(&head, worst)),
    }
}

/// Where the database is missing, decides whether there was one. A new database in its place
/// would lack the agents and the history, and its backups would eventually displace the real
/// ones.
pub(super) fn judge_missing(
    database: &Path,
    ran_before: bool,
    options: &Options<'_>,
) -> Result<Option<Return>, Refusal> {
    let witnesses = Witnesses::of_folder(options.backups, "", database)
        .map_err(Refusal::io("read the manifests in", options.backups))?;
    let known = witnesses.latest();
    if !ran_before && known.is_none() {
        return Ok(None);
    }
    let head = Position { seq: 0, receipt_hash: String::new() };
    if !accepts(options, &head) {
        return Err(missing(database, known));
    }
    let known = known.map(|witness| witness.pin.position());
    let departure = Departure { head, known, left: Vec::new() };
    Ok(Some(Return { cause: Cause::AcceptedRollback, departure }))
}

fn missing(database: &Path, known: Option<&Witness>) -> Refusal {
    let seen = match known {
        Some(witness) => {
            let Pin { seq, receipt_hash, .. } = &witness.pin;
            format!("{} has seen seq {seq} ({receipt_hash})", witness.path.display())
        }
        None => "a gateway ran on it".to_owned(),
    };
    Refusal::new(
        format!("{} is missing, but {seen}", database.display()),
        format!(
            "put the database back or copy a backup into its place; or start once with \
             AEGIS_ACCEPT_ROLLBACK={EMPTY_HEAD} to begin a new chain, which will record that"
        ),
    )
}

fn accepts(options: &Options<'_>, head: &Position) -> bool {
    let name = if head.seq == 0 { EMPTY_HEAD } else { &head.receipt_hash };
    options.accept_rollback == Some(name)
}

/// What the chain leaves behind when it continues from `head`.
fn departure(head: &Position, behind: &[&Judged<'_>]) -> Departure {
    let position = |one: &&Judged<'_>| one.witness.pin.position();
    let is_later = |one: &&&Judged<'_>| one.witness.pin.seq > head.seq;
    let known = newest(behind).filter(|one| is_later(&one)).map(|one| position(&one));
    let mut left: Vec<Position> = behind.iter().filter(|one| !is_later(one)).map(position).collect();
    left.sort_by(|a, b| (a.seq, &a.receipt_hash).cmp(&(b.seq, &b.receipt_hash)));
    left.dedup();
    Departure { head: head.clone(), known, left }
}

fn newest<'a, 'w>(behind: &[&'a Judged<'w>]) -> Option<&'a Judged<'w>> {
    behind.iter().copied().max_by_key(|one| (one.witness.pin.seq, one.witness.created_at))
}

/// A witness that no restore explains: one within the restored history that is not on a branch
/// begun by an earlier restore.
fn foreign<'a, 'w>(
    content: &Connection,
    head: &Position,
    behind: &[&'a Judged<'w>],
) -> Result<Option<&'a Judged<'w>>, Refusal> {
    let within: Vec<&Judged<'_>> =
        behind.iter().copied().filter(|one| one.witness.pin.seq <= head.seq).collect();
    if within.is_empty() {
        return Ok(None);
    }
    let own = chain::restores(content, u32::MAX)?;
    let is_own = |at: &Position| own.iter().any(|own| own.at == *at);
    Ok(within.into_iter().find(|one| !one.left_by_restore(is_own)))
}

fn refusal(head: &Position, worst: &Judged<'_>) -> Refusal {
    let (pin, name) = (&worst.witness.pin, if head.seq == 0 { EMPTY_HEAD } else { &head.receipt_hash });
    let what = match worst.verdict {
        Verdict::Truncated => "is behind its own backups",
        Verdict::Rewritten => "holds another history than its own backups",
        Verdict::Forked | Verdict::Matched | Verdict::Acknowledged { .. } | Verdict::Later => {
            "is on another branch than its own backups"
        }
    };
    Refusal::new(
        format!(
            "the database {what}: its head is seq {} ({name}), but {} has seen seq {} ({}): a disk was rolled \
             back, or another file put in its place",
            head.seq,
            worst.witness.path.display(),
            pin.seq,
            pin.receipt_hash
        ),
        format!(
            "put the right file back or restore the newest backup; or start once with \
             AEGIS_ACCEPT_ROLLBACK={name} to go on from this head, which the chain will record"
        ),
    )
}

impl Return {
    /// The head of a restored copy, which is remembered until the chain records it.
    pub(super) fn restored_head(&self) -> Option<String> {
        (self.cause == Cause::Restore).then(|| self.departure.head.receipt_hash.clone())
    }

    /// Appends the restore receipt to the chain, together with its audit event.
    pub(super) fn record(self, store: &Store, now: Timestamp) -> Result<(), Refusal> {
        let random = Refusal::io("draw random bits for", store.path());
        let (nonce, id) = (entropy::hex::<8>().map_err(&random)?, entropy::uuid(now).map_err(&random)?);
        let (action, resource) = (self.cause.action(), self.departure.to_string());
        log::warn!("the chain goes on from another head, and records it as {action}: {resource}");
        let details = serde_json::to_value(&self.departure).expect("numbers and text");
        store.write(move |tx| {
            let at = receipts::next_time(tx, now);
            let mut event = Event::new(id, EventType::Restore, &details, at);
            let event_hash = Hash::of(event.event_json.as_bytes()).to_string();
            let receipt = receipts::append(tx, &self.entry(&nonce, &resource, &event_hash), at)?;
            event.action = Some(action.to_owned());
            event.resource = Some(receipt.event_id);
            event.output_hash = Some(event_hash);
            audit::insert(tx, &event)
        })?;
        Ok(())
    }

    /// The receipt's fields. Its `action_hash` is the hash of the audit event's text.
    fn entry<'a>(&self, nonce: &'a str, resource: &'a str, event_hash: &'a str) -> Entry<'a> {
        Entry {
            nonce,
            agent_id: None,
            user_id: None,
            run_id: None,
            trace_id: None,
            tool: TOOL,
            action: self.cause.action(),
            resource: Some(resource),
            source_trust: "unknown",
            decision: self.cause.decision(),
            approver: None,
            action_hash: Some(event_hash),
            decision_id: None,
            decision_hash: None,
            policy_version: None,
        }
    }
}
