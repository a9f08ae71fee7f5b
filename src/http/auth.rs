//! Who calls: a bearer token becomes a caller.

use crate::domain::agent::TOKEN_PREFIX;
use crate::domain::canon::Hash;
use crate::service::agents;
use crate::service::{Error, Gateway};

use super::message::Request;
use super::router::Access;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular, where that is enough.
    Anyone,
    /// The operator.
    Operator,
    /// The agent whose token hashes to this.
    Agent(Hash),
}

/// Lets the right caller through, before the body is looked at.
pub(crate) fn authenticate(gateway: &Gateway, request: &Request, access: Access) -> Result<Caller, Error> {
    if access == Access::Anyone {
        return Ok(Caller::Anyone);
    }
    let token = request.bearer.as_deref().ok_or(Error::Unauthorized)?;
    let hash = Hash::of(token.as_bytes());
    let caller = if hash.equals_in_constant_time(&gateway.operator) {
        Caller::Operator
    } else if token.starts_with(TOKEN_PREFIX) && agents::find_by_token(gateway, hash)?.is_some() {
        Caller::Agent(hash)
    } else {
        return Err(Error::Unauthorized);
    };
    match (access, caller) {
        (Access::Operator, Caller::Operator) | (Access::Agent, Caller::Agent(_)) => Ok(caller),
        (Access::Operator, _) => Err(Error::Forbidden("this needs the operator's token".to_owned())),
        (Access::Agent, _) => Err(Error::Forbidden("this needs an agent's token".to_owned())),
        (Access::Anyone, _) => Ok(Caller::Anyone),
    }
}

/// The credential of an `Authorization` header; the scheme's case does not matter.
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
