//! The registry of tools: what the operator says about each action.

use super::words;

words! {
    /// Risk of one action.
    Risk {
        /// `low`
        Low = "low",
        /// `medium`
        Medium = "medium",
        /// `high`
        High = "high",
        /// `critical`: always needs an approval.
        Critical = "critical",
    }
}

impl Risk {
    /// The score of the contract, 0 to 100.
    pub fn score(self) -> i64 {
        match self {
            Risk::Low => 10,
            Risk::Medium => 40,
            Risk::High => 75,
            Risk::Critical => 95,
        }
    }

    /// The word for a recorded score.
    pub fn of_score(score: i64) -> Self {
        match score {
            ..40 => Risk::Low,
            40..75 => Risk::Medium,
            75..95 => Risk::High,
            95.. => Risk::Critical,
        }
    }
}

words! {
    /// What the operator registered as the action's default.
    DefaultDecision {
        /// The policies decide.
        Policy = "policy",
        /// No tightening.
        Allow = "allow",
        /// Always denied.
        Deny = "deny",
        /// Never without an approval.
        RequireApproval = "require_approval",
    }
}

/// A tool with the actions of one registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// UUID, made by the gateway.
    pub id: String,
    /// Normalised name: what `tool_call.tool` is compared with.
    pub skill_key: String,
    /// Display name.
    pub name: String,
    /// Kind of tool, free text.
    pub kind: String,
    /// How the tool authenticates, free text.
    pub auth_type: Option<String>,
    /// The team that answers for it.
    pub owner_team: Option<String>,
    /// Free text of the registration.
    pub default_risk: Option<String>,
    /// Its actions.
    pub actions: Vec<ToolAction>,
}

/// One action of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAction {
    /// Normalised name: what `tool_call.action` is compared with.
    pub action_key: String,
    /// Free text.
    pub description: Option<String>,
    /// Risk of one call.
    pub risk: Risk,
    /// Whether it changes anything. A caller can add to this, never take from it.
    pub mutates_state: bool,
    /// Whether every call needs an approval.
    pub approval_required: bool,
    /// The operator's default.
    pub default_decision: DefaultDecision,
    /// Free text.
    pub data_access: Option<String>,
}
