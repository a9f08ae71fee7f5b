//! `/v1/admin/tokens`

use serde::{Deserialize, Serialize};

use crate::domain::operator::Scope;
use crate::domain::time::Timestamp;
use crate::service::{Error, operators};
use crate::store::operators::Token;

use super::body::{checked, typed};
use super::message::Response;
use super::query::Query;
use super::router::Call;

const NAME_CHARS_MAX: usize = 128;

/// Unknown members are rejected, not ignored: one may be a misspelt `expires_at`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    name: String,
    scope: String,
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct CreatedBody<'a> {
    id: &'a str,
    name: &'a str,
    scope: Scope,
    token: &'a str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// `POST /v1/admin/tokens`
pub(crate) fn create(call: &Call<'_>) -> Result<Response, Error> {
    let body: CreateBody = typed(call.request)?;
    checked("name", &body.name, 1, NAME_CHARS_MAX)?;
    let scope = Scope::parse(&body.scope)
        .ok_or_else(|| Error::Invalid(format!("scope must be one of {}", Scope::WORDS.join(", "))))?;
    let time = |text: String| {
        Timestamp::parse(&text)
            .ok_or_else(|| Error::Invalid("expires_at must be an RFC 3339 time".to_owned()))
    };
    let expires_at = body.expires_at.map(time).transpose()?;
    let made = operators::create(call.gateway, call.actor()?, body.name, scope, expires_at)?;
    let body = CreatedBody {
        id: &made.token.id,
        name: &made.token.name,
        scope,
        token: &made.text,
        created_at: made.token.created_at,
        expires_at,
    };
    Ok(Response::of(201, &body))
}

#[derive(Serialize)]
struct TokenBody<'a> {
    id: &'a str,
    name: &'a str,
    scope: Scope,
    created_at: &'a str,
    created_by: &'a str,
    expires_at: Option<&'a str>,
    revoked_at: Option<&'a str>,
    last_used_at: Option<&'a str>,
}

fn shown(token: &Token) -> TokenBody<'_> {
    TokenBody {
        id: &token.id,
        name: &token.name,
        scope: token.scope,
        created_at: &token.created_at,
        created_by: &token.created_by,
        expires_at: token.expires_at.as_deref(),
        revoked_at: token.revoked_at.as_deref(),
        last_used_at: token.last_used_at.as_deref(),
    }
}

/// `GET /v1/admin/tokens`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let tokens = operators::list(call.gateway, Query::parse(&call.request.query, Query::PAGE)?.page()?)?;
    Ok(Response::of(200, &tokens.iter().map(shown).collect::<Vec<_>>()))
}

/// `POST /v1/admin/tokens/{id}/revoke`
pub(crate) fn revoke(call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &shown(&operators::revoke(call.gateway, call.actor()?, &call.id)?)))
}
