//! The receipt that records that a chain continues from a restored head, or from an earlier
//! one.
//!
//! Startup writes it and the verifier reads it; this module defines it for both. It is a
//! receipt of the tool [`TOOL`] without a decision record, which no agent's call can produce.
//! Its `action` and `decision` are those of a [`Cause`], its `resource` is a [`Departure`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// The receipt's `tool`.
pub const TOOL: &str = "restore";

/// A receipt, identified by its position and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its position; 0 is before the first receipt.
    pub seq: i64,
    /// Its hash; empty at position 0.
    pub receipt_hash: String,
}

/// Why a chain continues from a head that may not be its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A backup was put in the database's place.
    Restore,
    /// The operator accepted the loss of later receipts.
    AcceptedRollback,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 2] = [Cause::Restore, Cause::AcceptedRollback];

    /// The receipt's `action`.
    pub const fn action(self) -> &'static str {
        match self {
            Cause::Restore => "restore",
            Cause::AcceptedRollback => "accept_rollback",
        }
    }

    /// The receipt's `decision`.
    pub const fn decision(self) -> &'static str {
        match self {
            Cause::Restore => "restored",
            Cause::AcceptedRollback => "rollback_accepted",
        }
    }
}

/// The head a chain continued from, and what it left behind. Its text form is
/// `head:SEQ:HASH known:SEQ:HASH|none[ left:SEQ:HASH,...]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Departure {
    /// The head it continued from.
    pub head: Position,
    /// The newest head beyond it that a witness knew.
    pub known: Option<Position>,
    /// Heads of other branches that witnesses knew, none of them beyond `head`.
    pub left: Vec<Position>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.receipt_hash)
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "head:{}", self.head)?;
        match &self.known {
            Some(known) => write!(f, " known:{known}")?,
            None => f.write_str(" known:none")?,
        }
        for (index, left) in self.left.iter().enumerate() {
            write!(f, "{}{left}", if index == 0 { " left:" } else { "," })?;
        }
        Ok(())
    }
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.split_once(':')?;
        Some(Position { seq: seq.parse().ok()?, receipt_hash: hash.to_owned() })
    }
}

impl Departure {
    /// Parses the text that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let head = Position::parse(parts.next()?.strip_prefix("head:")?)?;
        let known = match parts.next()?.strip_prefix("known:")? {
            "none" => None,
            known => Some(Position::parse(known)?),
        };
        let left = match parts.next() {
            Some(left) => {
                left.strip_prefix("left:")?.split(',').map(Position::parse).collect::<Option<_>>()?
            }
            None => Vec::new(),
        };
        parts.next().is_none().then_some(Departure { head, known, left })
    }
}

/// A recorded restore, reduced to what acknowledges that the chain left another branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The receipt that records it: the first one of the new branch.
    pub at: Position,
    /// Position of the newest head beyond the restored one that was known then, if any.
    pub known_seq: Option<i64>,
    /// Heads of other branches that were known then, none of them beyond the restored one.
    pub left: Vec<Position>,
}

impl Restore {
    /// Parses the [`Departure`] in the receipt at `at`; `None` unless that receipt directly
    /// follows the head it names.
    pub fn parse(at: Position, resource: &str) -> Option<Self> {
        let Departure { head, known, left } = Departure::parse(resource)?;
        let known_seq = known.map(|known| known.seq);
        (head.seq == at.seq - 1).then_some(Restore { at, known_seq, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(seq: i64, hash: &str) -> Position {
        Position { seq, receipt_hash: hash.to_owned() }
    }

    #[test]
    fn a_departure_is_read_as_it_was_written() {
        for (departure, text) in [
            (Departure { head: position(0, ""), known: None, left: Vec::new() }, "head:0: known:none"),
            (
                Departure {
                    head: position(4, "aa"),
                    known: Some(position(9, "bb")),
                    left: vec![position(3, "cc"), position(4, "dd")],
                },
                "head:4:aa known:9:bb left:3:cc,4:dd",
            ),
        ] {
            assert_eq!(departure.to_string(), text);
            assert_eq!(Departure::parse(text), Some(departure));
        }
    }

    #[test]
    fn the_resource_of_a_restore_is_read_and_anything_else_acknowledges_nothing() {
        let parsed = |resource| Restore::parse(position(5, "h"), resource).map(|restore| restore.known_seq);
        assert_eq!(parsed("head:4:aa known:9:bb"), Some(Some(9)));
        assert_eq!(parsed("head:4:aa known:none"), Some(None));
        for wrong in [
            "",
            "head:4:aa",
            "head:3:aa known:9:bb",
            "head:5:aa known:9:bb",
            "head:x:aa known:9:bb",
            "head:4:aa known:x:bb",
            "head:4:aa known:9",
            "known:9:bb head:4:aa",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
