//! Policies: what an operator requires of calls, in addition to the built-in pack.
//!
//! A rule looks at one [`PolicyInput`] and names an outcome. Rules never cancel each
//! other: the most restrictive outcome among those that apply wins, so adding a rule, or
//! a whole document, can only tighten. An `allow` rule takes nothing back: it is named in
//! the decision if the outcome is `allow`, and has no other effect.
//!
//! [`document`] reads rules from JSON, [`matching`] decides whether one applies, [`rules`]
//! finds those that do, [`set`] holds everything in force under one tag, and [`builtin`] is
//! the pack that always is.

pub mod builtin;
pub mod document;
pub mod glob;
pub mod matching;
pub mod rules;
pub mod set;
pub mod trial;

use super::action::ToolCall;
use super::agent::RiskTier;
use super::trust::TrustLevel;
use super::words;

pub use builtin::BUILTIN_VERSION;
pub use set::PolicySet;

/// The language of a document, shown with it.
pub const LANGUAGE: &str = "aegis-rules-1";

/// The key of the built-in pack; no other policy may have it.
pub const BUILTIN_KEY: &str = "builtin";

/// Who approves if no rule names a group.
pub const SECURITY_REVIEWERS: &str = "security-reviewers";

words! {
    /// What may happen, from least to most restrictive.
    Outcome {
        /// The call may run.
        Allow = "allow",
        /// The call may run without the named fields.
        Redact = "redact",
        /// The call may run once a person has approved exactly this call.
        RequireApproval = "require_approval",
        /// The call may not run.
        Deny = "deny",
    }
}

/// What a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The call as the caller wrote it.
    pub call: &'a ToolCall,
    /// Normalised name of the tool.
    pub tool_key: &'a str,
    /// Normalised name of the action.
    pub action_key: &'a str,
    /// The agent's key.
    pub agent_key: &'a str,
    /// Declared by the caller, or registered by the operator.
    pub mutating: bool,
    /// The effective trust.
    pub trust: TrustLevel,
    /// The agent's risk tier.
    pub tier: RiskTier,
    /// Where the call would run.
    pub environment: &'a str,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in its document.
    pub id: String,
    /// The outcome it requires.
    pub effect: Outcome,
    /// When it applies.
    pub when: matching::Conditions,
    /// Human-readable reason.
    pub reason: Option<String>,
    /// Who should approve, for `require_approval`.
    pub approver_group: Option<String>,
    /// What to leave out, for `redact`.
    pub redact_fields: Vec<String>,
}
