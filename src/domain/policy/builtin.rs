//! The built-in pack, which is always in force, as the rule documents it is shown as.
//!
//! What no rule can express is in [`crate::domain::decision`]: an inactive agent and an
//! unregistered call are denied before any rule is evaluated, and what the operator
//! registered for an action tightens the outcome as rules do.

use std::sync::{Arc, LazyLock};

use super::Rule;
use super::document;
use super::rules::{NamedRule, Rules};

/// Every released version of the pack, oldest first; the last one is in force.
///
/// To change a rule, add a version in a new file, and its digest below. A released version
/// never changes: receipts name it, and a repeated request is answered by the rules of the
/// version that decided it.
const RELEASED: &[(&str, &str)] = &[
    // Never released: gives the tests an earlier version.
    #[cfg(test)]
    (
        "builtin-0",
        r#"{"rules":[{"id":"read_redacted","effect":"redact","when":{},"redact_fields":["old"]}]}"#,
    ),
    ("builtin-1", include_str!("builtin-1.json")),
];

const IN_FORCE: (&str, &str) = RELEASED[RELEASED.len() - 1];

/// The version in force. Every decision's receipt names it, covered by the receipt's hash.
pub const BUILTIN_VERSION: &str = IN_FORCE.0;

/// The pack in force, as a document. If several `require_approval` rules apply, the last one
/// names the group.
pub const BODY: &str = IN_FORCE.1;

/// A parsed version of the pack.
#[derive(Debug)]
pub struct Pack {
    /// Its name in receipts.
    pub version: &'static str,
    /// Its rules.
    pub rules: Rules,
}

static PACKS: LazyLock<Vec<Arc<Pack>>> = LazyLock::new(|| {
    let pack = |(version, body): &(&'static str, &str)| {
        let document = document::parse(body).expect("built-in packs are tested to parse");
        let named = |rule: Rule| NamedRule { name: rule.id.clone(), rule: Arc::new(rule) };
        Arc::new(Pack { version, rules: Rules::new(document.rules.into_iter().map(named).collect()) })
    };
    RELEASED.iter().map(pack).collect()
});

/// Every released version, oldest first; the last one is in force.
pub fn released() -> &'static [Arc<Pack>] {
    &PACKS
}

/// The version in force.
pub fn in_force() -> &'static Arc<Pack> {
    PACKS.last().expect("at least one pack is released")
}

/// The pack of this version.
pub fn find(version: &str) -> Option<&'static Arc<Pack>> {
    PACKS.iter().find(|pack| pack.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of each version's canonical form. Append-only.
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
        assert_eq!(found, pinned, "a changed pack needs a new version");
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
