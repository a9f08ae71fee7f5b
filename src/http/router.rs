//! The table of routes.
//!
//! Order of checks: path (404), method (405), caller (401, 403), a framed body if the route
//! needs one (411); then the handler.

use crate::domain::identifier::percent_decode;
use crate::domain::operator::Permission;
use crate::service::operators::Actor;
use crate::service::{Error, Gateway};

use super::auth::{self, Caller};
use super::error;
use super::message::{Reply, Request, Response};
use super::{
    agents, approvals, audit, authorize, backups, decisions, health, lifecycle, metrics, openapi, operators,
    policies, receipts, stats, tools,
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No credential.
    Anyone,
    /// An operator's token whose scope has this permission.
    Operator(Permission),
    /// An agent's token.
    Agent,
    /// Either; an agent only for its own approvals.
    AgentOrOperator(Permission),
}

/// The input of a handler.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) request: &'a Request,
    pub(crate) caller: Caller,
    /// The decoded path segment that matched `{id}`.
    pub(crate) id: String,
}

impl Call<'_> {
    /// The calling operator, on a route for operators.
    pub(crate) fn actor(&self) -> Result<Actor, Error> {
        match &self.caller {
            Caller::Operator(actor) => Ok(actor.clone()),
            Caller::Anyone | Caller::Agent(_) => Err(Error::Unauthorized),
        }
    }
}

/// How a route is answered.
#[derive(Clone, Copy)]
enum Handler {
    /// With the handler's return value.
    Now(fn(&Call<'_>) -> Result<Response, Error>),
    /// By the handler itself, later; the worker does not wait for it.
    Later(fn(&Call<'_>, Reply)),
}

/// Whether a route's body may be omitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Needed,
    Optional,
}

struct Route(&'static str, &'static str, Access, Body, Handler);

const ROUTES: &[Route] = {
    use Access::{Agent, AgentOrOperator, Anyone};
    use Body::{Needed, Optional};
    use Handler::{Later, Now};
    const LIST: Access = Access::Operator(Permission::List);
    const REGISTER: Access = Access::Operator(Permission::RegisterAgent);
    const ADMIN: Access = Access::Operator(Permission::Administer);
    const READ: Access = Access::Operator(Permission::Read);
    const BACKUP: Access = Access::Operator(Permission::TakeBackup);
    const BACKUPS: Access = Access::Operator(Permission::ListBackups);
    const APPROVALS: Access = Access::Operator(Permission::SeeApprovals);
    const APPROVAL: Access = AgentOrOperator(Permission::SeeApprovals);
    const CONSUME: Access = AgentOrOperator(Permission::UseApprovals);
    &[
        Route("POST", "/v1/authorize", Agent, Needed, Later(authorize::authorize)),
        Route("POST", "/v1/agents/register", REGISTER, Needed, Now(agents::register)),
        Route("GET", "/v1/agents", LIST, Optional, Now(agents::list)),
        Route("GET", "/v1/agents/{id}", LIST, Optional, Now(agents::get)),
        Route("PATCH", "/v1/agents/{id}", ADMIN, Needed, Now(agents::update)),
        Route("DELETE", "/v1/agents/{id}", ADMIN, Optional, Now(lifecycle::delete)),
        Route("POST", "/v1/agents/{id}/freeze", ADMIN, Optional, Now(lifecycle::freeze)),
        Route("POST", "/v1/agents/{id}/unfreeze", ADMIN, Optional, Now(lifecycle::unfreeze)),
        Route("POST", "/v1/agents/{id}/revoke", ADMIN, Optional, Now(lifecycle::revoke)),
        Route("POST", "/v1/agents/{id}/restore", ADMIN, Optional, Now(lifecycle::restore)),
        Route("POST", "/v1/agents/{id}/rotate-token", ADMIN, Optional, Now(lifecycle::rotate_token)),
        Route("POST", "/v1/tools", ADMIN, Needed, Now(tools::register)),
        Route("GET", "/v1/tools", LIST, Optional, Now(tools::list)),
        Route("GET", "/v1/decisions", LIST, Optional, Now(decisions::list)),
        Route("GET", "/v1/decisions/{id}", LIST, Optional, Now(decisions::get)),
        Route("GET", "/v1/approvals", APPROVALS, Optional, Now(approvals::list)),
        Route("GET", "/v1/approvals/{id}", APPROVAL, Optional, Now(approvals::get)),
        Route("POST", "/v1/approvals/{id}/approve", ADMIN, Needed, Now(approvals::approve)),
        Route("POST", "/v1/approvals/{id}/reject", ADMIN, Needed, Now(approvals::reject)),
        Route("POST", "/v1/approvals/{id}/edit", ADMIN, Needed, Now(approvals::edit)),
        Route("POST", "/v1/approvals/{id}/consume", CONSUME, Optional, Now(approvals::consume)),
        Route("GET", "/v1/receipts", LIST, Optional, Now(receipts::list)),
        Route("GET", "/v1/receipts/chain-head", LIST, Optional, Now(receipts::chain_head)),
        Route("POST", "/v1/receipts/verify-chain", LIST, Needed, Now(receipts::verify_chain)),
        Route("POST", "/v1/receipts/verify-range", READ, Optional, Now(receipts::verify_range)),
        Route("GET", "/v1/receipts/{id}", LIST, Optional, Now(receipts::get)),
        Route("GET", "/v1/receipts/{id}/verify", LIST, Optional, Now(receipts::verify)),
        Route("POST", "/v1/admin/backup", BACKUP, Needed, Now(backups::create)),
        Route("GET", "/v1/admin/backups", BACKUPS, Optional, Now(backups::list)),
        Route("GET", "/v1/admin/backups/{id}", ADMIN, Optional, Later(backups::fetch)),
        Route("GET", "/v1/audit/events", READ, Optional, Now(audit::list)),
        Route("POST", "/v1/admin/tokens", ADMIN, Needed, Now(operators::create)),
        Route("GET", "/v1/admin/tokens", ADMIN, Optional, Now(operators::list)),
        Route("POST", "/v1/admin/tokens/{id}/revoke", ADMIN, Optional, Now(operators::revoke)),
        Route("GET", "/v1/stats", LIST, Optional, Now(stats::stats)),
        Route("GET", "/v1/admin/db-stats", READ, Optional, Now(stats::sizes)),
        Route("GET", "/v1/version", Anyone, Optional, Now(stats::version)),
        Route("GET", "/v1/openapi.json", Anyone, Optional, Now(openapi::document)),
        Route("GET", "/v1/policies", LIST, Optional, Now(policies::list)),
        Route("POST", "/v1/policies", ADMIN, Needed, Now(policies::create)),
        Route("POST", "/v1/policies/test", ADMIN, Needed, Now(policies::test)),
        Route("GET", "/v1/policies/{id}/versions", LIST, Optional, Now(policies::versions)),
        Route("POST", "/v1/policies/{id}/disable", ADMIN, Optional, Now(policies::disable)),
        Route("GET", "/metrics", READ, Optional, Now(metrics::metrics)),
        Route("GET", "/health", Anyone, Optional, Now(health::health)),
        Route("GET", "/readyz", Anyone, Optional, Now(health::readyz)),
        Route("GET", "/livez", Anyone, Optional, Now(health::livez)),
        Route("GET", "/startupz", Anyone, Optional, Now(health::startupz)),
    ]
};

/// Method, path and access of every route, for tests that no route is open by accident.
pub fn table() -> impl Iterator<Item = (&'static str, &'static str, Access)> {
    ROUTES.iter().map(|Route(method, path, access, _, _)| (*method, *path, *access))
}

/// Paths answered on a lane of their own, however busy the other workers are.
pub fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/readyz" | "/livez" | "/startupz")
}

/// Paths whose large answers are sent on threads of their own; the service allows only a few
/// at once.
pub fn is_download(path: &str) -> bool {
    path.starts_with("/v1/admin/backups/")
}

/// Answers a request.
pub fn respond(gateway: &Gateway, request: &Request, mut reply: Reply) {
    match admit(gateway, request, &mut reply) {
        Ok((Handler::Now(handler), call)) => {
            reply.send(handler(&call).unwrap_or_else(|error| error::response(&error)));
        }
        Ok((Handler::Later(handler), call)) => handler(&call, reply),
        Err(Refused::Service(refused)) => reply.send(error::response(&refused)),
        Err(Refused::Method(allowed)) => {
            reply.send(error::failure(405, "this path does not support this method").with("Allow", allowed));
        }
        Err(Refused::NoLength) => reply.send(error::failure(411, "a body with a Content-Length is required")),
    }
}

enum Refused {
    Service(Error),
    Method(String),
    NoLength,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Service(error)
    }
}

fn admit<'a>(
    gateway: &'a Gateway,
    request: &'a Request,
    reply: &mut Reply,
) -> Result<(Handler, Call<'a>), Refused> {
    let (Route(_, _, access, body, handler), id) = route(request)?;
    let caller = auth::authenticate(gateway, request, *access)
        .map_err(|error| auth::refusal(gateway, request, error))?;
    if let Caller::Operator(actor) = &caller {
        reply.set_operator(actor.name());
    }
    auth::authorize(&caller, *access)?;
    if *body == Body::Needed && !request.framed {
        return Err(Refused::NoLength);
    }
    let id = percent_decode(id, false)
        .ok_or_else(|| Error::BadRequest("the path has a malformed escape".to_owned()))?;
    Ok((*handler, Call { gateway, request, caller, id }))
}

/// Finds the route of a request. In the table, literal paths precede those with `{id}`.
fn route(request: &Request) -> Result<(&'static Route, &str), Refused> {
    // HEAD is handled as GET; the server omits the body.
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    let mut allowed: Vec<&str> = Vec::new();
    let mut literal = None;
    for route in ROUTES {
        let Some(id) = matches(route.1, &request.path) else { continue };
        // `/v1/receipts/chain-head` matches only literally, never as a receipt's id.
        if literal.is_some_and(|path| path != route.1) {
            continue;
        }
        if route.0 == method {
            return Ok((route, id));
        }
        if id.is_empty() {
            literal = Some(route.1);
        }
        allowed.push(route.0);
        if route.0 == "GET" {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Error::NotFound("there is no such path".to_owned()).into());
    }
    Err(Refused::Method(allowed.join(", ")))
}

/// Matches a path against a pattern; returns the segment for `{id}`, or an empty string.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut id = "";
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(id),
            (Some("{id}"), Some(segment)) if !segment.is_empty() => id = segment,
            (Some(expected), Some(segment)) if expected == segment => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_segments() {
        assert_eq!(matches("/v1/agents/{id}", "/v1/agents/a%20b"), Some("a%20b"));
        assert_eq!(matches("/v1/agents", "/v1/agents"), Some(""));
        for path in ["/v1/agents/", "/v1/agents/a/b", "/v1/agent", "v1/agents/a", "/v1/agents/a/"] {
            assert_eq!(matches("/v1/agents/{id}", path), None, "{path}");
        }
    }

    #[test]
    fn everything_but_the_probes_the_version_and_the_contract_needs_a_credential() {
        for Route(_, path, access, _, _) in ROUTES {
            let is_open = is_probe(path) || matches!(*path, "/v1/version" | "/v1/openapi.json");
            assert_eq!(*access == Access::Anyone, is_open, "{path}");
        }
    }
}
