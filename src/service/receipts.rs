//! Listing and verifying the chain.

use std::sync::TryLockError;

use crate::domain::canon::{self, Hash};
use crate::domain::json::Json;
use crate::domain::receipt::GENESIS;
use crate::domain::time::Timestamp;
use crate::evidence::database::{self, Extent};
use crate::evidence::{FirstBreak, Summary, export};
use crate::store::receipts::{self, Head};

use super::{Error, Gateway, Keys, Page};

/// A page of the chain as one JSON array: each receipt as hashed, plus its hash.
pub fn list(gateway: &Gateway, keys: &Keys, page: Page, oldest_first: bool) -> Result<Vec<u8>, Error> {
    let mut out = vec![b'['];
    gateway.store.read(|connection| -> Result<(), Error> {
        let (before, after) =
            keys.resolve(|id| Ok(receipts::find(connection, id, |receipt, _| receipt.seq)?))?;
        let page = receipts::Page { before, after, limit: page.limit, offset: page.offset, oldest_first };
        Ok(receipts::list(connection, page, &mut |receipt, hash| {
            if out.len() > 1 {
                out.push(b',');
            }
            receipt.write_served(&mut out, hash);
        })?)
    })?;
    out.push(b']');
    Ok(out)
}

/// One receipt.
pub fn get(gateway: &Gateway, event_id: &str) -> Result<Vec<u8>, Error> {
    gateway
        .store
        .read(|connection| {
            receipts::find(connection, event_id, |receipt, hash| {
                let mut out = Vec::with_capacity(1024);
                receipt.write_served(&mut out, hash);
                out
            })
        })?
        .ok_or_else(no_such_receipt)
}

/// One receipt, verified on its own and against the previous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub receipt_id: String,
    /// Whether its hash and its link are correct.
    pub verified: bool,
    /// The stored hash.
    pub receipt_hash: String,
    /// The hash recomputed from what is stored.
    pub recomputed_hash: Hash,
    /// The hash of the previous receipt, according to this one.
    pub prev_receipt_hash: String,
}

/// Verifies one stored receipt.
pub fn verify_one(gateway: &Gateway, event_id: &str) -> Result<Verified, Error> {
    gateway.store.read(|connection| {
        let found = receipts::find(connection, event_id, |receipt, hash| {
            let recomputed_hash = receipt.hash(&mut Vec::new());
            let verified = Verified {
                receipt_id: receipt.event_id.to_owned(),
                verified: recomputed_hash.to_hex().as_str() == hash,
                receipt_hash: hash.to_owned(),
                recomputed_hash,
                prev_receipt_hash: receipt.prev_receipt_hash.to_owned(),
            };
            (receipt.seq, verified)
        })?;
        let (seq, mut verified) = found.ok_or_else(no_such_receipt)?;
        let before = receipts::find_at(connection, seq - 1, |_, hash| hash.to_owned())?;
        let expected = if seq == 1 { Some(GENESIS.to_owned()) } else { before };
        verified.verified &= expected.as_deref() == Some(verified.prev_receipt_hash.as_str());
        Ok(verified)
    })
}

/// The newest receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainHead {
    /// Its id.
    pub receipt_id: String,
    /// Its hash.
    pub receipt_hash: String,
    /// The hash of the previous receipt.
    pub prev_receipt_hash: String,
    /// The canonical form it is hashed in.
    pub canon_version: String,
    /// Its position.
    pub seq: i64,
    /// When it was made.
    pub ts: String,
}

/// The newest receipt; `None` while the chain is empty.
pub fn chain_head(gateway: &Gateway) -> Result<Option<ChainHead>, Error> {
    gateway.store.read(|connection| {
        let head = Head::load(connection)?;
        let newest = receipts::find_at(connection, head.seq, |receipt, hash| ChainHead {
            receipt_id: receipt.event_id.to_owned(),
            receipt_hash: hash.to_owned(),
            prev_receipt_hash: receipt.prev_receipt_hash.to_owned(),
            canon_version: canon::VERSION.to_owned(),
            seq: receipt.seq,
            ts: receipt.ts.to_owned(),
        })?;
        Ok(newest)
    })
}

/// The outcome of verifying a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVerdict {
    /// What was checked.
    pub summary: Summary,
    /// The first defect.
    pub error: Option<String>,
}

impl ChainVerdict {
    fn new(summary: Summary, first: FirstBreak) -> Self {
        ChainVerdict { summary, error: first.0.map(|broken| broken.to_string()) }
    }
}

/// Verifies receipts sent by the caller: a whole chain or a slice of one.
pub fn verify_chain(receipts: &[Json]) -> ChainVerdict {
    let mut first = FirstBreak::default();
    let summary = export::verify_values(receipts, &mut first);
    ChainVerdict::new(summary, first)
}

/// Verifies the stored chain, or the part between two instants, both inclusive. Only one runs
/// at a time, since it may take long.
pub fn verify_range(
    gateway: &Gateway,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<ChainVerdict, Error> {
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Error::BadRequest("from is later than to".to_owned()));
    }
    let _turn = match gateway.verifying.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Busy("another verification is running".to_owned()));
        }
    };
    gateway.store.read_long(|view| {
        let extent = match (from, to) {
            (None, None) => Extent::Whole,
            (from, to) => {
                let first = from.map_or(Ok(1), |at| receipts::first_at_or_after(view, at))?;
                let end = to.map(|at| receipts::first_at_or_after(view, at.next())).transpose()?;
                Extent::Part(first, end.map_or(i64::MAX, |end| end - 1))
            }
        };
        let mut first = FirstBreak::default();
        let summary = database::verify_view(view, extent, &mut first)?;
        Ok(ChainVerdict::new(summary, first))
    })
}

fn no_such_receipt() -> Error {
    Error::NotFound("there is no such receipt".to_owned())
}
