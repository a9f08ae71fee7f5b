//! The built-in policy pack, as a table of rules.
//!
//! A rule looks at one [`Question`] and names an outcome. Rules never cancel each
//! other: the most restrictive outcome of all that apply is the answer, so adding
//! a rule can only tighten.

use super::action::ToolCall;
use super::agent::RiskTier;
use super::json::Json;
use super::trust::TrustLevel;
use super::words;

/// The version of this pack, named inside the hash of every decision's receipt.
pub const BUILTIN_VERSION: &str = "builtin-1";

words! {
    /// What may happen, in ascending order of restriction.
    Outcome {
        /// The call may run.
        Allow = "allow",
        /// The call may run without the named fields.
        Redact = "redact",
        /// The call may run once a person has approved exactly it.
        RequireApproval = "require_approval",
        /// The call may not run.
        Deny = "deny",
    }
}

/// What a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The call as the caller wrote it.
    pub call: &'a ToolCall,
    /// Normalised name of the tool.
    pub tool_key: &'a str,
    /// Normalised name of the action.
    pub action_key: &'a str,
    /// Declared by the caller, or registered by the operator.
    pub mutating: bool,
    /// The effective trust.
    pub trust: TrustLevel,
    /// The agent's tier.
    pub tier: RiskTier,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable name, recorded with each decision that it took part in.
    pub id: &'static str,
    /// When it applies.
    pub applies: fn(&Question<'_>) -> bool,
    /// What it asks for.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: &'static str,
    /// Who should approve, for `require_approval`.
    pub approver_group: Option<&'static str>,
    /// What to leave out, for `redact`.
    pub redacted_fields: &'static [&'static str],
}

/// What the rules of these ids leave out.
pub fn redacted_fields<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let applied = BUILTIN.iter().filter(|rule| ids.clone().any(|id| id == rule.id));
    applied.flat_map(|rule| rule.redacted_fields).map(|&field| field.to_owned()).collect()
}

/// Who approves where no rule names a group of its own.
pub const SECURITY_REVIEWERS: &str = "security-reviewers";

/// The pack. Of several `require_approval` rules that apply, the last one's group decides.
pub const BUILTIN: &[Rule] = &[
    Rule {
        id: "untrusted_mutation_denied",
        applies: |q| q.mutating && q.trust > TrustLevel::Customer,
        outcome: Outcome::Deny,
        reason: "a mutation on the word of an untrusted source is denied",
        approver_group: None,
        redacted_fields: &[],
    },
    Rule {
        id: "trusted_mutation_allowed",
        applies: |q| q.mutating && q.trust.is_internal(),
        outcome: Outcome::Allow,
        reason: "a mutation on the word of a trusted internal source",
        approver_group: None,
        redacted_fields: &[],
    },
    Rule {
        id: "customer_mutation_needs_approval",
        applies: |q| q.mutating && q.trust == TrustLevel::Customer,
        outcome: Outcome::RequireApproval,
        reason: "a mutation on the word of a customer needs an approval",
        approver_group: Some(SECURITY_REVIEWERS),
        redacted_fields: &[],
    },
    Rule {
        id: "read_allowed",
        applies: |q| !q.mutating,
        outcome: Outcome::Allow,
        reason: "the call changes nothing",
        approver_group: None,
        redacted_fields: &[],
    },
    Rule {
        id: "high_risk_agent_needs_approval",
        applies: |q| q.mutating && q.tier >= RiskTier::High,
        outcome: Outcome::RequireApproval,
        reason: "a mutation by an agent of a high risk tier needs an approval",
        approver_group: Some(SECURITY_REVIEWERS),
        redacted_fields: &[],
    },
    Rule {
        id: "merge_to_main_needs_approval",
        applies: |q| {
            q.tool_key == "github"
                && q.action_key == "merge_pull_request"
                && q.call.parameters.get("base_branch").and_then(Json::as_str) == Some("main")
        },
        outcome: Outcome::RequireApproval,
        reason: "a merge to the main branch needs an approval",
        approver_group: Some("platform-leads"),
        redacted_fields: &[],
    },
    Rule {
        id: "credential_read_redacted",
        applies: |q| q.tool_key == "secrets" && q.action_key == "rotate_credential" && !q.mutating,
        outcome: Outcome::Redact,
        reason: "secret fields are redacted",
        approver_group: None,
        redacted_fields: &["api_key", "password", "secret", "token"],
    },
];
