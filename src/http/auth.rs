//! Authentication: turns a bearer token into a caller.

use crate::domain::canon::Hash;
use crate::domain::{agent, operator};
use crate::service::operators::{self, Actor};
use crate::service::{Error, Gateway, agents};

use super::message::Request;
use super::router::Access;

/// The caller of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Anyone, on a route that needs no credential.
    Anyone,
    /// An operator.
    Operator(Actor),
    /// The agent whose token hashes to this.
    Agent(Hash),
}

/// Identifies the caller by a live token. Routes that need no token do not look at one.
pub(crate) fn authenticate(gateway: &Gateway, request: &Request, access: Access) -> Result<Caller, Error> {
    if access == Access::Anyone {
        return Ok(Caller::Anyone);
    }
    let token = request.bearer.as_deref().ok_or(Error::Unauthorized)?;
    let hash = Hash::of(token.as_bytes());
    if hash.equals_in_constant_time(&gateway.operator) {
        return Ok(Caller::Operator(Actor::configured()));
    }
    if token.starts_with(operator::TOKEN_PREFIX) {
        let actor = operators::authenticate(gateway, hash)?;
        return actor.map(Caller::Operator).ok_or(Error::Unauthorized);
    }
    if token.starts_with(agent::TOKEN_PREFIX) {
        let agent = agents::find_by_token(gateway, hash)?;
        let admitted = agent.is_some_and(|agent| agent.status.may_ask());
        return if admitted { Ok(Caller::Agent(hash)) } else { Err(Error::Unauthorized) };
    }
    Err(Error::Unauthorized)
}

/// The error for a failed [`authenticate`], which becomes 429 after too many wrong
/// credentials. Valid credentials never get here, so clients that share an address cannot
/// lock each other out.
pub(crate) fn refusal(gateway: &Gateway, request: &Request, error: Error) -> Error {
    match error {
        Error::Unauthorized => {
            let limited = gateway.limits.failed(request.peer, request.received);
            limited.err().unwrap_or(Error::Unauthorized)
        }
        other => other,
    }
}

/// Checks that the caller may use the route.
pub(crate) fn authorize(caller: &Caller, access: Access) -> Result<(), Error> {
    match (access, caller) {
        (Access::Anyone, _) | (Access::Agent | Access::AgentOrOperator(_), Caller::Agent(_)) => Ok(()),
        (Access::Operator(permission) | Access::AgentOrOperator(permission), Caller::Operator(actor)) => {
            actor.require(permission)
        }
        (Access::AgentOrOperator(_), Caller::Anyone) => Err(Error::Unauthorized),
        (Access::Operator(permission), Caller::Agent(_) | Caller::Anyone) => {
            let scopes = permission.scopes_in_words();
            Err(Error::Forbidden(format!("this needs an operator's token of scope {scopes}")))
        }
        (Access::Agent, Caller::Operator(_) | Caller::Anyone) => {
            Err(Error::Forbidden("this needs an agent's token".to_owned()))
        }
    }
}

/// The credential of an `Authorization` header, with the scheme in any case.
pub(crate) fn bearer(header: &str) -> Option<String> {
    let (scheme, credential) = header.trim().split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then(|| credential.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_read_in_any_case_and_nothing_else_is_a_credential() {
        assert_eq!(bearer("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(bearer("bEARER  abc "), Some("abc".to_owned()));
        for header in ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearerabc"] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
