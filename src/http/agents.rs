//! `/v1/agents`

use serde::{Deserialize, Serialize};

use crate::domain::agent::{Agent, AgentStatus, Change, Profile, Registration, RiskTier};
use crate::domain::json::Json;
use crate::domain::signature::SigningKey;
use crate::service::{Error, agents, lifecycle};

use super::body::{checked, checked_optional, members, typed};
use super::message::Response;
use super::query::Query;
use super::router::Call;

const KEY_CHARS_MAX: usize = 128;
const TEXT_CHARS_MAX: usize = 256;
const ENVIRONMENTS_MAX: usize = 64;
const SIGNING_KEY_CHARS_MAX: usize = 512;

/// Members of an agent that `PATCH` does not change.
const FIXED_MEMBERS: [&str; 11] = [
    "id",
    "agent_key",
    "agent_token",
    "status",
    "last_seen_at",
    "frozen_reason",
    "quarantined_at",
    "allowed_environments",
    "mtls_cn",
    "created_at",
    "updated_at",
];

#[derive(Deserialize)]
struct RegisterBody {
    agent_key: String,
    name: String,
    environment: String,
    risk_tier: String,
    owner_team: Option<String>,
    owner_email: Option<String>,
    framework: Option<String>,
    model_provider: Option<String>,
    model_name: Option<String>,
    purpose: Option<String>,
    signing_key: Option<String>,
    allowed_environments: Option<Vec<String>>,
    force_approval: Option<bool>,
}

#[derive(Serialize)]
struct RegisteredBody<'a> {
    id: &'a str,
    agent_key: &'a str,
    agent_token: &'a str,
}

/// `POST /v1/agents/register`
pub(crate) fn register(call: &Call<'_>) -> Result<Response, Error> {
    let body: RegisterBody = typed(call.request)?;
    let registered = agents::register(call.gateway, call.actor()?, registration(call, body)?)?;
    let body = RegisteredBody {
        id: &registered.id,
        agent_key: &registered.agent_key,
        agent_token: &registered.agent_token,
    };
    Ok(Response::of(if registered.created { 201 } else { 200 }, &body))
}

fn registration(call: &Call<'_>, body: RegisterBody) -> Result<Registration, Error> {
    checked("agent_key", &body.agent_key, 1, KEY_CHARS_MAX)?;
    checked("name", &body.name, 0, TEXT_CHARS_MAX)?;
    checked("environment", &body.environment, 0, TEXT_CHARS_MAX)?;
    for (name, text) in [
        ("owner_team", &body.owner_team),
        ("owner_email", &body.owner_email),
        ("framework", &body.framework),
        ("model_provider", &body.model_provider),
        ("model_name", &body.model_name),
        ("purpose", &body.purpose),
    ] {
        checked_optional(name, text.as_ref(), TEXT_CHARS_MAX)?;
    }
    let signing_key = body.signing_key.as_deref().map(signing_key).transpose()?;
    let risk_tier = risk_tier(&body.risk_tier)?;
    let allowed_environments = body.allowed_environments.unwrap_or_default();
    if allowed_environments.len() > ENVIRONMENTS_MAX {
        return Err(Error::BadRequest(format!("allowed_environments must have at most {ENVIRONMENTS_MAX}")));
    }
    for environment in &allowed_environments {
        checked("allowed_environments", environment, 1, TEXT_CHARS_MAX)?;
    }
    Ok(Registration {
        agent_key: body.agent_key,
        name: body.name,
        environment: body.environment,
        risk_tier,
        profile: Profile {
            owner_team: body.owner_team,
            owner_email: body.owner_email,
            framework: body.framework,
            model_provider: body.model_provider,
            model_name: body.model_name,
            purpose: body.purpose,
        },
        allowed_environments,
        force_approval: body.force_approval.unwrap_or_default(),
        signing_key,
        at: call.gateway.now(),
    })
}

fn risk_tier(word: &str) -> Result<RiskTier, Error> {
    RiskTier::parse(word)
        .ok_or_else(|| Error::Invalid(format!("risk_tier must be one of {}", RiskTier::WORDS.join(", "))))
}

/// `PATCH /v1/agents/{id}`
pub(crate) fn update(call: &Call<'_>) -> Result<Response, Error> {
    let members = members(call.request)?;
    let changes = members.iter().filter_map(|(name, value)| change(name, value).transpose());
    let changes = changes.collect::<Result<Vec<Change>, Error>>()?;
    Ok(Response::of(200, &shown(&lifecycle::update(call.gateway, call.actor()?, &call.id, changes)?)))
}

/// The change that one body member asks for; `null` clears an optional member. Members of an
/// agent that this route cannot change are rejected, not ignored.
fn change(name: &str, value: &Json) -> Result<Option<Change>, Error> {
    let fit = || Error::BadRequest(format!("the body does not fit: {name}"));
    let text = || -> Result<String, Error> {
        let text = value.as_str().ok_or_else(fit)?;
        checked(name, text, 0, TEXT_CHARS_MAX)?;
        Ok(text.to_owned())
    };
    let optional = || if matches!(value, Json::Null) { Ok(None) } else { text().map(Some) };
    Ok(Some(match name {
        "name" => Change::Name(text()?),
        "environment" => Change::Environment(text()?),
        "risk_tier" => Change::RiskTier(risk_tier(&text()?)?),
        "owner_team" => Change::OwnerTeam(optional()?),
        "owner_email" => Change::OwnerEmail(optional()?),
        "framework" => Change::Framework(optional()?),
        "model_provider" => Change::ModelProvider(optional()?),
        "model_name" => Change::ModelName(optional()?),
        "purpose" => Change::Purpose(optional()?),
        "force_approval" => match value {
            Json::Bool(force) => Change::ForceApproval(*force),
            _ => return Err(fit()),
        },
        "signing_key" => match value {
            Json::Null => Change::SigningKey(None),
            _ => Change::SigningKey(Some(signing_key(value.as_str().ok_or_else(fit)?)?)),
        },
        _ if FIXED_MEMBERS.contains(&name) => {
            return Err(Error::Invalid(format!("{name} cannot be changed by this route")));
        }
        _ => return Ok(None),
    }))
}

/// Rejects an empty key: it may come from an unset variable, and would protect nothing.
fn signing_key(text: &str) -> Result<SigningKey, Error> {
    checked("signing_key", text, 1, SIGNING_KEY_CHARS_MAX)?;
    Ok(SigningKey::new(text.as_bytes()))
}

#[derive(Serialize)]
struct AgentBody<'a> {
    id: &'a str,
    agent_key: &'a str,
    name: &'a str,
    owner_team: Option<&'a str>,
    owner_email: Option<&'a str>,
    environment: &'a str,
    framework: Option<&'a str>,
    model_provider: Option<&'a str>,
    model_name: Option<&'a str>,
    purpose: Option<&'a str>,
    risk_tier: RiskTier,
    status: AgentStatus,
    last_seen_at: Option<&'a str>,
    frozen_reason: Option<&'a str>,
    quarantined_at: Option<&'a str>,
    force_approval: bool,
    allowed_environments: &'a [String],
    mtls_cn: Option<&'a str>,
    created_at: &'a str,
    updated_at: &'a str,
}

fn shown((agent, last_seen_at): &agents::Seen) -> AgentBody<'_> {
    let Agent { profile, .. } = agent;
    AgentBody {
        id: &agent.id,
        agent_key: &agent.agent_key,
        name: &agent.name,
        owner_team: profile.owner_team.as_deref(),
        owner_email: profile.owner_email.as_deref(),
        environment: &agent.environment,
        framework: profile.framework.as_deref(),
        model_provider: profile.model_provider.as_deref(),
        model_name: profile.model_name.as_deref(),
        purpose: profile.purpose.as_deref(),
        risk_tier: agent.risk_tier,
        status: agent.status,
        last_seen_at: last_seen_at.as_deref(),
        frozen_reason: agent.frozen_reason.as_deref(),
        quarantined_at: agent.quarantined_at.as_deref(),
        force_approval: agent.force_approval,
        allowed_environments: &agent.allowed_environments,
        mtls_cn: None,
        created_at: &agent.created_at,
        updated_at: &agent.updated_at,
    }
}

/// `GET /v1/agents`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let query = Query::parse(&call.request.query, &["status", "limit", "offset"])?;
    let expected = AgentStatus::WORDS.join(", ");
    let status = query.parsed("status", &expected, AgentStatus::parse)?;
    let agents = agents::list(call.gateway, status, query.page()?)?;
    Ok(Response::of(200, &agents.iter().map(shown).collect::<Vec<_>>()))
}

/// `GET /v1/agents/{id}`
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &shown(&agents::get(call.gateway, &call.id)?)))
}
