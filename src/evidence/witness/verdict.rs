//! Verdicts of single witnesses, and the overall verdict. Pure: no files, no SQL.

use crate::domain::restore::{Position, Restore};

/// What a witness knows: the history that ends with one receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The chain.
    pub chain_id: String,
    /// Hash of its first receipt; `None` if it was empty.
    pub genesis_hash: Option<String>,
    /// Position of the newest receipt; 0 if there was none.
    pub seq: i64,
    /// Its id.
    pub receipt_id: Option<String>,
    /// Its hash.
    pub receipt_hash: String,
    /// The latest restores in that history.
    pub restores: Vec<Position>,
}

impl Pin {
    /// The newest receipt.
    pub fn position(&self) -> Position {
        Position { seq: self.seq, receipt_hash: self.receipt_hash.clone() }
    }

    /// Whether this belongs to the chain. The id is not covered by any hash; the first receipt
    /// is, and no two chains share it.
    pub fn is_of(&self, chain_id: &str, genesis_hash: Option<&str>) -> bool {
        self.chain_id == chain_id
            || (self.genesis_hash.is_some() && self.genesis_hash.as_deref() == genesis_hash)
    }
}

/// The chain being judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its id.
    pub chain_id: String,
    /// Hash of its first receipt.
    pub genesis_hash: Option<String>,
    /// Position of its last receipt.
    pub head_seq: i64,
    /// The restores that it records.
    pub restores: Vec<Restore>,
}

/// The receipt found at a witness's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub receipt_id: String,
    /// Its hash.
    pub receipt_hash: String,
}

impl Restore {
    /// Whether this restore records leaving exactly this witness's head.
    fn names(&self, pin: &Pin) -> bool {
        self.left.contains(&pin.position())
    }

    /// Whether this restore left the witness's branch, and knew it: the branch does not contain
    /// the restore itself, and ends no later than the newest known head.
    fn covers(&self, pin: &Pin, common: i64) -> bool {
        self.at.seq > common && self.at.seq <= pin.seq && self.known_seq.is_some_and(|known| pin.seq <= known)
    }
}

/// What one witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The chain holds the witnessed history.
    Matched,
    /// The same receipt, or the first one, has a different hash.
    Rewritten,
    /// A different receipt is at the witness's position.
    Forked,
    /// The chain left the witnessed branch through a restore that it records.
    Acknowledged {
        /// Where the restore is recorded.
        restored_at: i64,
    },
    /// The chain ends before the witness's position.
    Truncated,
    /// The witness is newer than the chain, which is that of a backup no gateway has run on.
    Later,
}

impl Verdict {
    /// Whether the chain contradicts the witness.
    pub fn is_offence(self) -> bool {
        match self {
            Verdict::Rewritten | Verdict::Forked | Verdict::Truncated => true,
            Verdict::Matched | Verdict::Acknowledged { .. } | Verdict::Later => false,
        }
    }

    /// Stable name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Matched => "matched",
            Verdict::Rewritten => "rewritten",
            Verdict::Forked => "forked",
            Verdict::Acknowledged { .. } => "acknowledged",
            Verdict::Truncated => "truncated",
            Verdict::Later => "later",
        }
    }
}

/// Judges `chain` against a witness, where `found` is the receipt at the witness's position.
pub fn judge(pin: &Pin, chain: &Chain, found: Option<&Standing>) -> Verdict {
    if let Some(restore) = chain.restores.iter().find(|restore| restore.names(pin)) {
        return Verdict::Acknowledged { restored_at: restore.at.seq };
    }
    if let (Some(pinned), Some(first)) = (&pin.genesis_hash, &chain.genesis_hash)
        && pinned != first
    {
        return Verdict::Rewritten;
    }
    if pin.chain_id != chain.chain_id {
        // The same first receipt under a different chain id: tampered with.
        return Verdict::Rewritten;
    }
    match found {
        _ if pin.seq == 0 => Verdict::Matched,
        Some(found) if found.receipt_hash == pin.receipt_hash => Verdict::Matched,
        Some(found) if pin.receipt_id.as_ref() == Some(&found.receipt_id) => Verdict::Rewritten,
        Some(_) => acknowledged(pin, chain).unwrap_or(Verdict::Forked),
        None if pin.seq > chain.head_seq => acknowledged(pin, chain).unwrap_or(Verdict::Truncated),
        // A gap: the receipt was removed from the middle.
        None => Verdict::Rewritten,
    }
}

fn acknowledged(pin: &Pin, chain: &Chain) -> Option<Verdict> {
    // Hashes are chained: sharing a restore means sharing everything before it.
    let is_common = |restore: &&Restore| pin.restores.contains(&restore.at);
    let common = chain.restores.iter().filter(is_common).map(|restore| restore.at.seq).max().unwrap_or(0);
    let covering = chain.restores.iter().filter(|restore| restore.covers(pin, common));
    covering.map(|restore| Verdict::Acknowledged { restored_at: restore.at.seq }).next()
}

/// The overall verdict of a verification against witnesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// The chain is intact and consistent with every witness of it.
    Verified,
    /// The chain does not verify on its own.
    Broken,
    /// Witnessed receipts were changed.
    Rewritten,
    /// The chain left a witnessed branch without recording a restore.
    Forked,
    /// Witnessed receipts are missing at its end.
    Truncated,
    /// A manifest, or a backup that one describes, has changed since it was written, as far as
    /// was checked.
    Altered,
    /// The chain is intact, but none of the witnesses belongs to it.
    Unwitnessed,
}

impl Overall {
    /// Stable name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Overall::Verified => "verified",
            Overall::Broken => "broken",
            Overall::Rewritten => "rewritten",
            Overall::Forked => "forked",
            Overall::Truncated => "truncated",
            Overall::Altered => "altered",
            Overall::Unwitnessed => "unwitnessed",
        }
    }
}

/// The worst finding: a broken chain, then the verdicts of its witnesses, then altered files.
pub fn overall(broken: bool, verdicts: &[Verdict], altered: bool) -> Overall {
    let has = |verdict| verdicts.contains(&verdict);
    if broken {
        Overall::Broken
    } else if has(Verdict::Rewritten) {
        Overall::Rewritten
    } else if has(Verdict::Forked) {
        Overall::Forked
    } else if has(Verdict::Truncated) {
        Overall::Truncated
    } else if altered {
        Overall::Altered
    } else if verdicts.is_empty() {
        Overall::Unwitnessed
    } else {
        Overall::Verified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(seq: i64, hash: &str) -> Pin {
        Pin {
            chain_id: "c".into(),
            genesis_hash: (seq > 0).then(|| "first".into()),
            seq,
            receipt_id: (seq > 0).then(|| format!("rcpt_{seq}_x")),
            receipt_hash: hash.into(),
            restores: Vec::new(),
        }
    }

    fn chain(head_seq: i64, restores: &[(i64, Option<i64>)]) -> Chain {
        let restore = |&(seq, known_seq): &(i64, Option<i64>)| Restore {
            at: Position { seq, receipt_hash: format!("restore {seq}") },
            known_seq,
            left: Vec::new(),
        };
        Chain {
            chain_id: "c".into(),
            genesis_hash: (head_seq > 0).then(|| "first".into()),
            head_seq,
            restores: restores.iter().map(restore).collect(),
        }
    }

    fn stands(id: &str, hash: &str) -> Option<Standing> {
        Some(Standing { receipt_id: id.into(), receipt_hash: hash.into() })
    }

    #[test]
    fn each_verdict_has_its_case() {
        let by = |restored_at| Verdict::Acknowledged { restored_at };
        let same = || stands("rcpt_5_x", "h");
        let edited = || stands("rcpt_5_x", "other");
        let another = || stands("rcpt_5_y", "other");
        for (what, head, restores, found, expected) in [
            ("grown since", 9, &[][..], same(), Verdict::Matched),
            ("its head", 5, &[], same(), Verdict::Matched),
            ("matched, and restored later", 9, &[(7, Some(9))], same(), Verdict::Matched),
            ("an edited receipt", 9, &[], edited(), Verdict::Rewritten),
            ("a restore excuses no edit", 9, &[(4, Some(9))], edited(), Verdict::Rewritten),
            ("a gap", 9, &[], None, Verdict::Rewritten),
            ("another receipt", 9, &[], another(), Verdict::Forked),
            ("acknowledged", 9, &[(4, Some(5))], another(), by(4)),
            ("at the very first receipt of the branch", 9, &[(5, Some(5))], another(), by(5)),
            ("restored after the witness's position", 9, &[(6, Some(9))], another(), Verdict::Forked),
            ("known no further than before it", 9, &[(4, Some(4))], another(), Verdict::Forked),
            ("nothing known", 9, &[(4, None)], another(), Verdict::Forked),
            ("the second restore covers it", 9, &[(3, Some(4)), (4, Some(8))], another(), by(4)),
            ("cut off", 4, &[], None, Verdict::Truncated),
            ("all cut off", 0, &[], None, Verdict::Truncated),
            ("still shorter than the branch it left", 4, &[(4, Some(5))], None, by(4)),
            ("shorter, and that branch was not known", 4, &[(4, Some(4))], None, Verdict::Truncated),
        ] {
            assert_eq!(judge(&pin(5, "h"), &chain(head, restores), found.as_ref()), expected, "{what}");
        }
    }

    #[test]
    fn another_first_receipt_or_another_id_is_a_rewritten_history() {
        let mut other = chain(9, &[(4, Some(9))]);
        other.genesis_hash = Some("another".into());
        assert_eq!(judge(&pin(5, "h"), &other, stands("rcpt_5_x", "h").as_ref()), Verdict::Rewritten);
        assert!(pin(5, "h").is_of("c", Some("another")), "by its id");
        let mut renamed = chain(9, &[]);
        renamed.chain_id = "d".into();
        assert!(pin(5, "h").is_of("d", Some("first")), "by its first receipt");
        assert_eq!(judge(&pin(5, "h"), &renamed, stands("rcpt_5_x", "h").as_ref()), Verdict::Rewritten);
        assert!(!pin(5, "h").is_of("d", Some("another")));
        assert!(!pin(0, "").is_of("d", None), "two empty chains are two");
    }

    #[test]
    fn a_witness_of_the_empty_chain_always_matches() {
        for head in [0, 9] {
            assert_eq!(judge(&pin(0, ""), &chain(head, &[]), None), Verdict::Matched);
        }
    }

    #[test]
    fn a_restore_that_the_witnessed_branch_holds_itself_acknowledges_nothing() {
        let found = stands("rcpt_5_y", "other");
        let mut later = pin(5, "h");
        later.restores = vec![Position { seq: 3, receipt_hash: "restore 3".into() }];
        assert_eq!(judge(&later, &chain(9, &[(3, Some(9))]), found.as_ref()), Verdict::Forked);
        assert_eq!(
            judge(&later, &chain(9, &[(2, Some(9)), (3, Some(9))]), found.as_ref()),
            Verdict::Forked,
            "nor one before it"
        );
        let acknowledged = Verdict::Acknowledged { restored_at: 4 };
        assert_eq!(judge(&later, &chain(9, &[(3, Some(9)), (4, Some(9))]), found.as_ref()), acknowledged);
        later.restores[0].receipt_hash = "a restore on its own branch".into();
        let acknowledged = Verdict::Acknowledged { restored_at: 3 };
        assert_eq!(judge(&later, &chain(9, &[(3, Some(9))]), found.as_ref()), acknowledged);
    }

    #[test]
    fn the_worst_verdict_names_the_whole() {
        use Verdict::{Forked, Later, Matched, Rewritten, Truncated};
        let acknowledged = Verdict::Acknowledged { restored_at: 1 };
        for (broken, verdicts, altered, expected) in [
            (false, &[Matched, Later, acknowledged][..], false, Overall::Verified),
            (false, &[], false, Overall::Unwitnessed),
            (false, &[Matched], true, Overall::Altered),
            (false, &[], true, Overall::Altered),
            (false, &[Matched, Truncated], true, Overall::Truncated),
            (false, &[Truncated, Forked], false, Overall::Forked),
            (false, &[Forked, Rewritten, Truncated], false, Overall::Rewritten),
            (true, &[Rewritten], true, Overall::Broken),
            (true, &[], false, Overall::Broken),
        ] {
            assert_eq!(overall(broken, verdicts, altered), expected, "{broken} {verdicts:?} {altered}");
        }
    }
}
