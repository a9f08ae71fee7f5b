//! The pack that is always in force, written as the rules it is shown as.
//!
//! What no rule can say stays in [`crate::domain::decision`] and comes before any rule:
//! an agent that is not active and a call that is not registered are denied without
//! asking the rules, and what the operator registered for an action tightens as they do.

use std::sync::{Arc, LazyLock};

use super::Rule;
use super::document;
use super::rules::{NamedRule, Rules};

/// Every version of the pack that was released, oldest first; the last one is in force.
///
/// Whoever changes a rule adds a version in a file of its own, and its digest below. A
/// version that was released never changes: receipts name it, and the answer to a request
/// that comes again is what its rules said.
const RELEASED: &[(&str, &str)] = &[
    // Of no release: with it, the tests have an earlier one.
    #[cfg(test)]
    (
        "builtin-0",
        r#"{"rules":[{"id":"read_redacted","effect":"redact","when":{},"redact_fields":["old"]}]}"#,
    ),
    ("builtin-1", include_str!("builtin-1.json")),
];

const IN_FORCE: (&str, &str) = RELEASED[RELEASED.len() - 1];

/// The version that is in force, named inside the hash of every decision's receipt.
pub const BUILTIN_VERSION: &str = IN_FORCE.0;

/// The pack that is in force, as a document. Of several `require_approval` rules that
/// apply, the last one's group decides.
pub const BODY: &str = IN_FORCE.1;

/// A version of the pack, ready to decide.
#[derive(Debug)]
pub struct Pack {
    /// What names it in receipts.
    pub version: &'static str,
    /// Its rules.
    pub rules: Rules,
}

static PACKS: LazyLock<Vec<Arc<Pack>>> = LazyLock::new(|| {
    let pack = |(version, body): &(&'static str, &str)| {
        let document = document::parse(body).expect("a pack is part of the program, and tested to parse");
        let named = |rule: Rule| NamedRule { name: rule.id.clone(), rule: Arc::new(rule) };
        Arc::new(Pack { version, rules: Rules::new(document.rules.into_iter().map(named).collect()) })
    };
    RELEASED.iter().map(pack).collect()
});

/// Every version that was released, oldest first; the last one is in force.
pub fn released() -> &'static [Arc<Pack>] {
    &PACKS
}

/// The one that is in force.
pub fn in_force() -> &'static Arc<Pack> {
    PACKS.last().expect("a pack was released")
}

/// The one of this version.
pub fn find(version: &str) -> Option<&'static Arc<Pack>> {
    PACKS.iter().find(|pack| pack.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of each version's canonical form. Only ever added to.
    const DIGESTS: &[(&str, &str)] = &[
        ("builtin-0", "1d8a3b26b37ba9076dacbd0cf724e28283fe5588666f15ebc1473c28b390a4a3"),
        ("builtin-1", "ff001109c0e387512b63a021b60ac383116ed8fa763b5276ffa3eb5f4901b802"),
    ];

    #[test]
    fn no_version_of_the_pack_that_was_released_has_changed() {
        let digest = |(version, body): &(&'static str, &str)| {
            (*version, document::parse(body).expect(version).sha256.to_string())
        };
        let found: Vec<(&str, String)> = RELEASED.iter().map(digest).collect();
        let pinned: Vec<(&str, String)> =
            DIGESTS.iter().map(|(version, sha256)| (*version, (*sha256).to_owned())).collect();
        assert_eq!(found, pinned, "a changed pack needs a version of its own");
    }

    #[test]
    fn a_pack_is_found_by_its_version_and_the_last_one_is_in_force() {
        for pack in released() {
            assert!(Arc::ptr_eq(find(pack.version).expect("found"), pack));
        }
        assert_eq!(in_force().version, BUILTIN_VERSION);
        assert!(find("builtin-9999").is_none());
    }
}
