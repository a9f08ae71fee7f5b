//! How far the source of an instruction is trusted.

use std::cmp::Ordering;

/// The six levels of the contract, most trusted first, then any other text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustLevel {
    /// `trusted_internal_signed`
    InternalSigned,
    /// `trusted_internal_unsigned`
    InternalUnsigned,
    /// `semi_trusted_customer`
    Customer,
    /// `untrusted_external`
    External,
    /// `malicious_suspected`
    MaliciousSuspected,
    /// `unknown`
    Unknown,
    /// Any other text; ranks below `unknown`, so a typo never adds trust.
    Unrecognized,
}

impl TrustLevel {
    /// The words of the six levels, most trusted first.
    pub const WORDS: [&str; 6] = [
        "trusted_internal_signed",
        "trusted_internal_unsigned",
        "semi_trusted_customer",
        "untrusted_external",
        "malicious_suspected",
        "unknown",
    ];

    /// The levels, in the order of [`TrustLevel::WORDS`].
    const LEVELS: [TrustLevel; 6] = [
        TrustLevel::InternalSigned,
        TrustLevel::InternalUnsigned,
        TrustLevel::Customer,
        TrustLevel::External,
        TrustLevel::MaliciousSuspected,
        TrustLevel::Unknown,
    ];

    /// The level spelled exactly like this.
    pub fn parse(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|known| *known == word).map(|at| Self::LEVELS[at])
    }

    /// The level of a text sent by a caller.
    pub fn of(text: &str) -> Self {
        Self::parse(text).unwrap_or(TrustLevel::Unrecognized)
    }

    /// What the level adds to the advisory composite score.
    pub fn risk_penalty(self) -> i64 {
        match self {
            TrustLevel::InternalSigned => 0,
            TrustLevel::InternalUnsigned => 5,
            TrustLevel::Customer => 15,
            TrustLevel::External => 30,
            TrustLevel::MaliciousSuspected => 50,
            TrustLevel::Unknown | TrustLevel::Unrecognized => 20,
        }
    }
}

/// The less trusted of two texts: along the way, trust can be reduced, never added.
pub fn less_trusted<'a>(source: &'a str, root: Option<&'a str>) -> &'a str {
    let Some(root) = root else { return source };
    match TrustLevel::of(source).cmp(&TrustLevel::of(root)) {
        Ordering::Less => root,
        Ordering::Equal | Ordering::Greater => source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_trusted_of_two_counts_whichever_comes_first() {
        let texts: Vec<&str> = TrustLevel::WORDS.into_iter().chain(["anything else"]).collect();
        for (i, a) in texts.iter().enumerate() {
            for (j, b) in texts.iter().enumerate() {
                assert_eq!(less_trusted(a, Some(b)), texts[i.max(j)]);
            }
            assert_eq!(less_trusted(a, None), *a);
        }
    }

    #[test]
    fn a_word_in_another_case_is_not_trusted() {
        assert_eq!(TrustLevel::of("Trusted_Internal_Signed"), TrustLevel::Unrecognized);
    }
}
