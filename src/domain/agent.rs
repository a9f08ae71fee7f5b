//! Agents: who asks.

use super::signature::SigningKey;
use super::time::Timestamp;
use super::words;

/// Every agent's token begins so; no operator's token may.
pub const TOKEN_PREFIX: &str = "agent_tok_";

words! {
    /// How much harm an agent could do; `high` and `critical` need approval for mutations.
    RiskTier {
        /// `low`
        Low = "low",
        /// `medium`
        Medium = "medium",
        /// `high`
        High = "high",
        /// `critical`
        Critical = "critical",
    }
}

words! {
    /// Where an agent stands. Only an active one is ever allowed anything.
    AgentStatus {
        /// May ask.
        Active = "active",
        /// Stopped for now.
        Frozen = "frozen",
        /// Stopped for good.
        Revoked = "revoked",
        /// Set apart for inspection.
        Quarantined = "quarantined",
        /// Gone from the lists; kept because decisions name it.
        Deleted = "deleted",
    }
}

impl AgentStatus {
    /// Whether its token is a credential at all: a frozen or a revoked agent may still ask, and
    /// is denied on record.
    pub fn may_ask(self) -> bool {
        match self {
            AgentStatus::Active | AgentStatus::Frozen | AgentStatus::Revoked => true,
            AgentStatus::Quarantined | AgentStatus::Deleted => false,
        }
    }
}

/// An agent as registered. Its token is not here: the database knows a SHA-256 alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// UUID, made by the gateway.
    pub id: String,
    /// Unique name, chosen by the operator.
    pub agent_key: String,
    /// Display name.
    pub name: String,
    /// Where it runs.
    pub environment: String,
    /// How much harm it could do.
    pub risk_tier: RiskTier,
    /// Where it stands.
    pub status: AgentStatus,
    /// Descriptive fields.
    pub profile: Profile,
    /// Why it was frozen.
    pub frozen_reason: Option<String>,
    /// When it was quarantined.
    pub quarantined_at: Option<String>,
    /// Every allowed call needs an approval.
    pub force_approval: bool,
    /// Environments it may ask for; empty means any.
    pub allowed_environments: Vec<String>,
    /// What its requests are signed with. Never shown.
    pub signing_key: Option<SigningKey>,
    /// When it was registered.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// What describes an agent and decides nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// The team that answers for it.
    pub owner_team: Option<String>,
    /// A person's address.
    pub owner_email: Option<String>,
    /// Agent framework.
    pub framework: Option<String>,
    /// Provider of the model.
    pub model_provider: Option<String>,
    /// Name of the model.
    pub model_name: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
}

/// What a registration brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Unique name, 1 to 128 characters.
    pub agent_key: String,
    /// Display name.
    pub name: String,
    /// Where it runs.
    pub environment: String,
    /// How much harm it could do.
    pub risk_tier: RiskTier,
    /// Descriptive fields.
    pub profile: Profile,
    /// Environments it may ask for; empty means any.
    pub allowed_environments: Vec<String>,
    /// Whether every call of it that is allowed needs an approval.
    pub force_approval: bool,
    /// What its requests will be signed with.
    pub signing_key: Option<SigningKey>,
    /// When it was registered.
    pub at: Timestamp,
}

/// One thing that an operator changes of an agent. Where it stands is not among them: that
/// has a machine of its own, [`Operation`](super::lifecycle::Operation).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are fields of `Agent` and `Profile`")]
pub enum Change {
    Name(String),
    Environment(String),
    RiskTier(RiskTier),
    OwnerTeam(Option<String>),
    OwnerEmail(Option<String>),
    Framework(Option<String>),
    ModelProvider(Option<String>),
    ModelName(Option<String>),
    Purpose(Option<String>),
    ForceApproval(bool),
    SigningKey(Option<SigningKey>),
}

impl Agent {
    /// One for tests: active, of low tier, with nothing special about it.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Agent {
            id: "a".into(),
            agent_key: "k".into(),
            name: "n".into(),
            environment: "production".into(),
            risk_tier: RiskTier::Low,
            status: AgentStatus::Active,
            profile: Profile::default(),
            frozen_reason: None,
            quarantined_at: None,
            force_approval: false,
            allowed_environments: Vec::new(),
            signing_key: None,
            created_at: String::new(),
            updated_at: String::new(),
        }
    }

    /// Whether it may ask about calls in this environment.
    pub fn may_act_in(&self, environment: &str) -> bool {
        let allowed = &self.allowed_environments;
        allowed.is_empty() || allowed.iter().any(|one| one == environment)
    }

    /// Takes a change.
    pub fn change(&mut self, change: Change) {
        let profile = &mut self.profile;
        match change {
            Change::Name(name) => self.name = name,
            Change::Environment(environment) => self.environment = environment,
            Change::RiskTier(tier) => self.risk_tier = tier,
            Change::OwnerTeam(text) => profile.owner_team = text,
            Change::OwnerEmail(text) => profile.owner_email = text,
            Change::Framework(text) => profile.framework = text,
            Change::ModelProvider(text) => profile.model_provider = text,
            Change::ModelName(text) => profile.model_name = text,
            Change::Purpose(text) => profile.purpose = text,
            Change::ForceApproval(force) => self.force_approval = force,
            Change::SigningKey(key) => self.signing_key = key,
        }
    }
}
