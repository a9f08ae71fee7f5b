//! The pack that is always in force, written as the rules it is shown as.
//!
//! What no rule can say stays in [`crate::domain::decision`] and comes before any rule:
//! an agent that is not active and a call that is not registered are denied without
//! asking the rules, and what the operator registered for an action tightens as they do.

use std::sync::LazyLock;

use super::document::{self, Document};

/// The version of this pack, named inside the hash of every decision's receipt. Whoever
/// changes the pack changes it.
pub const BUILTIN_VERSION: &str = "builtin-1";

/// The pack as a document. Of several `require_approval` rules that apply, the last
/// one's group decides.
pub const BODY: &str = include_str!("builtin.json");

static DOCUMENT: LazyLock<Document> =
    LazyLock::new(|| document::parse(BODY).expect("the pack is part of the program, and tested to parse"));

/// The pack, parsed once.
pub fn document() -> &'static Document {
    &DOCUMENT
}
