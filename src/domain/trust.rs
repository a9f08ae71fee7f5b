//! How far the source of an instruction is trusted.

use std::cmp::Ordering;

/// The six levels of the contract, most trusted first, and below them any other text.
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
    /// Any other text; ranks below `unknown`, so a typing error never trusts.
    Unrecognized,
}

impl TrustLevel {
    /// The level a text names, compared exactly.
    pub fn of(text: &str) -> Self {
        match text {
            "trusted_internal_signed" => TrustLevel::InternalSigned,
            "trusted_internal_unsigned" => TrustLevel::InternalUnsigned,
            "semi_trusted_customer" => TrustLevel::Customer,
            "untrusted_external" => TrustLevel::External,
            "malicious_suspected" => TrustLevel::MaliciousSuspected,
            "unknown" => TrustLevel::Unknown,
            _ => TrustLevel::Unrecognized,
        }
    }

    /// Whether a mutation on this level's word alone is allowed.
    pub fn is_internal(self) -> bool {
        matches!(self, TrustLevel::InternalSigned | TrustLevel::InternalUnsigned)
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

/// The less trusted of two texts: provenance can be tightened along the way, never loosened.
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

    const LEVELS: [&str; 7] = [
        "trusted_internal_signed",
        "trusted_internal_unsigned",
        "semi_trusted_customer",
        "untrusted_external",
        "malicious_suspected",
        "unknown",
        "anything else",
    ];

    #[test]
    fn the_less_trusted_of_two_counts_whichever_comes_first() {
        for (i, a) in LEVELS.iter().enumerate() {
            for (j, b) in LEVELS.iter().enumerate() {
                assert_eq!(less_trusted(a, Some(b)), LEVELS[i.max(j)]);
            }
            assert_eq!(less_trusted(a, None), *a);
        }
    }

    #[test]
    fn a_word_in_another_case_is_not_trusted() {
        assert_eq!(TrustLevel::of("Trusted_Internal_Signed"), TrustLevel::Unrecognized);
    }
}
