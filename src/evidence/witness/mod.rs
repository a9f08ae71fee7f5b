//! Witnesses: records of a chain kept elsewhere, and what they say about it now.
//!
//! A chain that was truncated, rewritten or continued from an old copy still verifies on its
//! own; only a witness that saw the lost part can reveal the loss. A backup's manifest is such
//! a witness, and so is a backup. Judging looks up only the receipts at the witnesses'
//! positions; whether the chain between them is intact is up to the verifier.

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
    /// When it was made, if it states that.
    pub created_at: Option<Timestamp>,
    /// What a manifest says about its backup; `None` for a backup itself.
    pub described: Option<Described>,
    /// The previous manifest, if it names one.
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

/// A supposed witness that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub reason: String,
}

/// The witnesses offered for one chain; some may belong to other chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnesses {
    chain_id: String,
    all: Vec<Witness>,
    /// Every file that is, or is supposed to be, a manifest, with its digest.
    manifests: Vec<(PathBuf, Hash)>,
    unreadable: Vec<Unreadable>,
}

/// The judgement of one witness of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged<'w> {
    /// The witness.
    pub witness: &'w Witness,
    /// What it says.
    pub verdict: Verdict,
    /// The receipt at its position now.
    pub found: Option<Standing>,
}

/// The judgement of all witnesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'w> {
    /// Each witness of the chain.
    pub judged: Vec<Judged<'w>>,
    /// The newest witness of the chain by position, whatever its verdict.
    pub newest: Option<&'w Witness>,
    /// How many witnesses belong to other chains.
    pub other_chains: usize,
    /// Supposed witnesses that could not be read.
    pub unreadable: &'w [Unreadable],
    /// Files that have changed since they were written.
    pub altered: Vec<Altered>,
    /// Position of the chain's last receipt.
    pub head_seq: i64,
    /// The restores that the chain records; loaded only if a verdict depends on them.
    restores: Vec<Restore>,
}

impl Judged<'_> {
    /// Whether the witness itself shows that its branch began with a restore that the chain
    /// does not have.
    pub fn left_by_restore(&self, is_own: impl Fn(&Position) -> bool) -> bool {
        self.verdict == Verdict::Forked && !self.witness.pin.restores.iter().all(is_own)
    }
}

impl Report<'_> {
    /// The highest position with a matching witness; `None` if no witness matches.
    pub fn seen_seq(&self) -> Option<i64> {
        let matched = self.judged.iter().filter(|judged| judged.verdict == Verdict::Matched);
        matched.map(|judged| judged.witness.pin.seq).max()
    }

    /// How many verdicts satisfy `is`.
    pub fn count(&self, is: impl Fn(Verdict) -> bool) -> usize {
        self.judged.iter().filter(|judged| is(judged.verdict)).count()
    }

    /// Adjusts the verdicts for a backup on which no gateway has run. If its chain ends at a
    /// matching witness, witnesses beyond its end are merely later, and nothing was truncated.
    /// The same goes for witnesses on a branch begun by a restore, even a mistaken restore of an
    /// older backup.
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

    /// The overall verdict; `broken` if the chain does not verify on its own.
    pub fn overall(&self, broken: bool) -> Overall {
        let verdicts: Vec<Verdict> = self.judged.iter().map(|judged| judged.verdict).collect();
        verdict::overall(broken, &verdicts, !self.altered.is_empty())
    }
}

/// Verifies the whole chain and judges it against its witnesses, on one view.
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

/// Judges the chain in a database against its witnesses, on one view. The view must begin
/// after the witnesses were loaded, so that it includes everything they saw.
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
    // Finding the restores may require reading the whole chain, so only if one could matter.
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
    /// The most recent witness with a receipt, of any chain. Witnesses without a time count as
    /// older than those with one.
    pub fn latest(&self) -> Option<&Witness> {
        let with_receipt = self.all.iter().filter(|witness| witness.pin.seq > 0);
        with_receipt.max_by_key(|witness| (witness.created_at, witness.pin.seq))
    }
}
