//! Witnesses: what was kept of a chain elsewhere, and what it says of the chain now.
//!
//! A chain that was cut off, rewritten or continued from an old copy is whole by
//! itself; only somebody who saw the lost part can tell. A manifest of a backup is
//! such a witness, and so is a backup. Judging looks up the receipts at the witnesses'
//! positions and nothing else; that the chain between them is whole is the verifier's
//! to say.

mod altered;
mod load;
pub mod verdict;

use std::path::PathBuf;

use rusqlite::Connection;

use crate::domain::canon::Hash;
use crate::domain::restore::{Position, Restore};
use crate::domain::time::Timestamp;
use crate::store::chain;
use crate::store::error::Error;

use super::database::{self, Extent};
use super::manifest::{BackupFile, Previous};
use super::{Observer, Summary};
pub use altered::Altered;
use verdict::{Chain, Overall, Pin, Standing, Verdict};

/// One witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The manifest or backup.
    pub path: PathBuf,
    /// What it knows.
    pub pin: Pin,
    /// When it was made, where it says so.
    pub created_at: Option<Timestamp>,
    /// What a manifest says of its backup; `None` for a backup itself.
    pub described: Option<Described>,
    /// The manifest before it.
    pub previous: Option<Previous>,
}

/// A backup as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The file.
    pub file: BackupFile,
    /// How many receipts it holds.
    pub receipts: u64,
    /// How many decisions it holds.
    pub decisions: u64,
}

/// What should be a witness and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

/// The witnesses that somebody offers for one chain; among them may be those of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnesses {
    chain_id: String,
    all: Vec<Witness>,
    /// Every file that is or should be a manifest, with its digest.
    manifests: Vec<(PathBuf, Hash)>,
    unreadable: Vec<Unreadable>,
}

/// What one witness of the chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged<'w> {
    /// The witness.
    pub witness: &'w Witness,
    /// What it says.
    pub verdict: Verdict,
    /// What stands at its position now.
    pub found: Option<Standing>,
}

/// What all of them say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'w> {
    /// Each witness of the chain.
    pub judged: Vec<Judged<'w>>,
    /// The newest witness of the chain, by position, whatever it says.
    pub newest: Option<&'w Witness>,
    /// How many witnesses are of other chains.
    pub other_chains: usize,
    /// What could not be read.
    pub unreadable: &'w [Unreadable],
    /// Files that are not what was written.
    pub altered: Vec<Altered>,
    /// Position of the chain's last receipt.
    pub head_seq: i64,
    /// The restores that the chain records, where a verdict depends on them.
    restores: Vec<Restore>,
}

impl Judged<'_> {
    /// Whether the witness says itself that its branch was begun by a restore which the
    /// chain does not have.
    pub fn left_by_restore(&self, is_own: impl Fn(&Position) -> bool) -> bool {
        self.verdict == Verdict::Forked && !self.witness.pin.restores.iter().all(is_own)
    }
}

impl Report<'_> {
    /// The newest position whose witness matches; `None` where no witness does.
    pub fn seen_seq(&self) -> Option<i64> {
        let matched = self.judged.iter().filter(|judged| judged.verdict == Verdict::Matched);
        matched.map(|judged| judged.witness.pin.seq).max()
    }

    /// How many witnesses say what `is` asks for.
    pub fn count(&self, is: impl Fn(Verdict) -> bool) -> usize {
        self.judged.iter().filter(|judged| is(judged.verdict)).count()
    }

    /// The chain is that of a backup on which no gateway has run: where it ends as one
    /// of the witnesses does, those beyond its end are later, and nothing was cut off. So
    /// are those of a branch that a restore began: also of an older backup, by mistake.
    pub fn of_backup(mut self) -> Self {
        if self.seen_seq() == Some(self.head_seq) {
            let own = &self.restores;
            let is_own = |at: &Position| own.iter().any(|own| own.at == *at);
            let later = self
                .judged
                .iter_mut()
                .filter(|one| one.verdict == Verdict::Truncated || one.left_by_restore(is_own));
            later.for_each(|one| one.verdict = Verdict::Later);
        }
        self
    }

    /// The whole, of a chain that does or does not verify by itself.
    pub fn overall(&self, broken: bool) -> Overall {
        let verdicts: Vec<Verdict> = self.judged.iter().map(|judged| judged.verdict).collect();
        verdict::overall(broken, &verdicts, !self.altered.is_empty())
    }
}

/// Verifies the whole chain, and judges it by its witnesses, on one view.
pub fn verify<'w>(
    connection: &Connection,
    witnesses: &'w Witnesses,
    observer: &mut dyn Observer,
) -> Result<(Summary, Report<'w>), Error> {
    let view = connection.unchecked_transaction().map_err(Error::cannot("begin to read"))?;
    let summary = database::verify_view(&view, Extent::Whole, observer)?;
    let report = judge_view(&view, witnesses)?;
    view.finish().map_err(Error::cannot("end a read"))?;
    Ok((summary, report))
}

/// What the witnesses say of the chain in a database, on one view of it. To be asked
/// after they were loaded: what they saw must be there by then.
pub fn judge<'w>(connection: &Connection, witnesses: &'w Witnesses) -> Result<Report<'w>, Error> {
    if connection.is_autocommit() {
        let view = connection.unchecked_transaction().map_err(Error::cannot("begin to read"))?;
        let report = judge_view(&view, witnesses)?;
        view.finish().map_err(Error::cannot("end a read"))?;
        return Ok(report);
    }
    judge_view(connection, witnesses)
}

fn judge_view<'w>(connection: &Connection, witnesses: &'w Witnesses) -> Result<Report<'w>, Error> {
    let mut chain = Chain {
        chain_id: witnesses.chain_id.clone(),
        genesis_hash: chain::standing(connection, 1)?.map(|(_, hash)| hash),
        head_seq: chain::last_seq(connection)?,
        restores: Vec::new(),
    };
    let is_own = |witness: &&Witness| witness.pin.is_of(&chain.chain_id, chain.genesis_hash.as_deref());
    let own: Vec<&Witness> = witnesses.all.iter().filter(is_own).collect();
    let mut judged = Vec::with_capacity(own.len());
    for &witness in &own {
        let found = chain::standing(connection, witness.pin.seq)?
            .map(|(receipt_id, receipt_hash)| Standing { receipt_id, receipt_hash });
        let verdict = verdict::judge(&witness.pin, &chain, found.as_ref());
        judged.push(Judged { witness, verdict, found });
    }
    // Finding the restores may mean reading the chain, so only where one could matter.
    if judged.iter().any(|judged| judged.verdict.is_offence()) {
        chain.restores = restores(connection)?;
        for one in &mut judged {
            one.verdict = verdict::judge(&one.witness.pin, &chain, one.found.as_ref());
        }
    }
    Ok(Report {
        judged,
        newest: own.iter().copied().max_by_key(|witness| (witness.pin.seq, witness.created_at)),
        other_chains: witnesses.all.len() - own.len(),
        unreadable: &witnesses.unreadable,
        altered: witnesses.altered_manifests(),
        head_seq: chain.head_seq,
        restores: chain.restores,
    })
}

fn restores(connection: &Connection) -> Result<Vec<Restore>, Error> {
    let found = chain::restores(connection, u32::MAX)?;
    let restore = |found: chain::Recorded| Restore::parse(found.at, &found.resource);
    Ok(found.into_iter().filter_map(restore).collect())
}

impl Witnesses {
    /// The most recent witness with a receipt, of whatever chain; one without a time sorts
    /// before those with one.
    pub fn latest(&self) -> Option<&Witness> {
        let with_receipt = self.all.iter().filter(|witness| witness.pin.seq > 0);
        with_receipt.max_by_key(|witness| (witness.created_at, witness.pin.seq))
    }
}
