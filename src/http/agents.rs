//! `/v1/agents`

use serde::{Deserialize, Serialize};

use crate::domain::agent::{Agent, AgentStatus, Profile, Registration, RiskTier};
use crate::service::{Error, agents};

use super::body::{checked, checked_optional, typed};
use super::message::Response;
use super::query::Query;
use super::router::Call;

const KEY_CHARS_MAX: usize = 128;
const TEXT_CHARS_MAX: usize = 256;
const ENVIRONMENTS_MAX: usize = 64;

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
    if body.signing_key.is_some_and(|key| !key.is_empty()) {
        // Accepting a key whose signatures nobody checks would be worse than none.
        return Err(Error::Invalid("request signatures are not supported yet".to_owned()));
    }
    let risk_tier = RiskTier::parse(&body.risk_tier)
        .ok_or_else(|| Error::Invalid(format!("risk_tier must be one of {}", RiskTier::WORDS.join(", "))))?;
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
        at: call.gateway.now(),
    })
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
    let query = Query::parse(&call.request.query)?;
    let expected = AgentStatus::WORDS.join(", ");
    let status = query.parsed("status", &expected, AgentStatus::parse)?;
    let agents = agents::list(call.gateway, status, query.page()?)?;
    Ok(Response::of(200, &agents.iter().map(shown).collect::<Vec<_>>()))
}

/// `GET /v1/agents/{id}`
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &shown(&agents::get(call.gateway, &call.id)?)))
}
