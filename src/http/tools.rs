//! `/v1/tools`

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::identifier::normalize;
use crate::domain::tool::{DefaultDecision, Risk, Tool, ToolAction};
use crate::service::{Error, tools};

use super::body::{checked, checked_optional, typed};
use super::message::Response;
use super::query::Query;
use super::router::Call;

const TEXT_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 4096;
const ACTIONS_MAX: usize = 1000;

#[derive(Deserialize)]
struct ToolBody {
    skill_key: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    auth_type: Option<String>,
    owner_team: Option<String>,
    default_risk: Option<String>,
    actions: Vec<ActionBody>,
}

#[derive(Deserialize)]
struct ActionBody {
    action_key: String,
    description: Option<String>,
    risk: String,
    mutates_state: bool,
    approval_required: bool,
    default_decision: String,
    data_access: Option<String>,
}

/// `POST /v1/tools`
pub(crate) fn register(call: &Call<'_>) -> Result<Response, Error> {
    let body: ToolBody = typed(call.request)?;
    let id = tools::register(call.gateway, call.actor()?, tool(body)?)?;
    Ok(Response::of(200, &json!({ "status": "success", "skill_id": id })))
}

fn tool(body: ToolBody) -> Result<Tool, Error> {
    checked("name", &body.name, 0, TEXT_CHARS_MAX)?;
    checked("type", &body.kind, 0, TEXT_CHARS_MAX)?;
    checked_optional("auth_type", body.auth_type.as_ref(), TEXT_CHARS_MAX)?;
    checked_optional("owner_team", body.owner_team.as_ref(), TEXT_CHARS_MAX)?;
    checked_optional("default_risk", body.default_risk.as_ref(), TEXT_CHARS_MAX)?;
    if body.actions.len() > ACTIONS_MAX {
        return Err(Error::BadRequest(format!("actions must have at most {ACTIONS_MAX}")));
    }
    let actions: Vec<ToolAction> = body.actions.into_iter().map(action).collect::<Result<_, _>>()?;
    let mut keys: Vec<&str> = actions.iter().map(|action| action.action_key.as_str()).collect();
    keys.sort_unstable();
    if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::Invalid(format!("the action {:?} is listed twice", pair[0])));
    }
    Ok(Tool {
        id: String::new(),
        skill_key: key("skill_key", &body.skill_key)?,
        name: body.name,
        kind: body.kind,
        auth_type: body.auth_type,
        owner_team: body.owner_team,
        default_risk: body.default_risk,
        actions,
    })
}

fn action(body: ActionBody) -> Result<ToolAction, Error> {
    checked_optional("description", body.description.as_ref(), DESCRIPTION_CHARS_MAX)?;
    checked_optional("data_access", body.data_access.as_ref(), TEXT_CHARS_MAX)?;
    Ok(ToolAction {
        action_key: key("action_key", &body.action_key)?,
        description: body.description,
        risk: Risk::parse(&body.risk)
            .ok_or_else(|| Error::Invalid(format!("risk must be one of {}", Risk::WORDS.join(", "))))?,
        mutates_state: body.mutates_state,
        approval_required: body.approval_required,
        default_decision: DefaultDecision::parse(&body.default_decision).ok_or_else(|| {
            Error::Invalid(format!("default_decision must be one of {}", DefaultDecision::WORDS.join(", ")))
        })?,
        data_access: body.data_access,
    })
}

fn key(name: &str, text: &str) -> Result<String, Error> {
    let normal = normalize(text);
    checked(name, &normal, 1, TEXT_CHARS_MAX)?;
    Ok(normal)
}

#[derive(Serialize)]
struct ShownTool<'a> {
    skill_id: &'a str,
    skill_key: &'a str,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    auth_type: Option<&'a str>,
    owner_team: Option<&'a str>,
    default_risk: Option<&'a str>,
    actions: Vec<ShownAction<'a>>,
}

#[derive(Serialize)]
struct ShownAction<'a> {
    action_key: &'a str,
    description: Option<&'a str>,
    risk: Risk,
    mutates_state: bool,
    approval_required: bool,
    default_decision: DefaultDecision,
    data_access: Option<&'a str>,
}

fn shown(tool: &Tool) -> ShownTool<'_> {
    ShownTool {
        skill_id: &tool.id,
        skill_key: &tool.skill_key,
        name: &tool.name,
        kind: &tool.kind,
        auth_type: tool.auth_type.as_deref(),
        owner_team: tool.owner_team.as_deref(),
        default_risk: tool.default_risk.as_deref(),
        actions: tool.actions.iter().map(shown_action).collect(),
    }
}

fn shown_action(action: &ToolAction) -> ShownAction<'_> {
    ShownAction {
        action_key: &action.action_key,
        description: action.description.as_deref(),
        risk: action.risk,
        mutates_state: action.mutates_state,
        approval_required: action.approval_required,
        default_decision: action.default_decision,
        data_access: action.data_access.as_deref(),
    }
}

/// `GET /v1/tools`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let tools = tools::list(call.gateway, Query::parse(&call.request.query, Query::PAGE)?.page()?)?;
    Ok(Response::of(200, &tools.iter().map(shown).collect::<Vec<_>>()))
}
