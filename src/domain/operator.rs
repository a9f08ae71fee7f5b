//! Operators: the people who run the gateway, and what their tokens may do.

use super::time::Timestamp;
use super::words;

/// Prefix of every operator token that the gateway generates.
pub const TOKEN_PREFIX: &str = "aegis_op_";

/// The name of the configured token; no other token may have it.
pub const CONFIGURED_NAME: &str = "operator";

words! {
    /// What a token is for.
    Scope {
        /// Everything the configured token can do.
        Admin = "admin",
        /// Taking and listing backups, but not fetching them.
        Backup = "backup",
        /// Reading and verifying everything but tokens and the content of backups.
        Read = "read",
        /// For the process that runs agents: registering them, using granted approvals, and
        /// reading. It decides nothing and changes nothing else.
        Runner = "runner",
    }
}

/// What a route requires of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read and verify what is recorded.
    Read,
    /// List agents, tools, decisions and receipts, and verify receipts sent by the caller.
    List,
    /// Register an agent, or give a known one a new token.
    RegisterAgent,
    /// List backups.
    ListBackups,
    /// Take a backup.
    TakeBackup,
    /// See the status of approvals; seeing their parameters requires `Administer`.
    SeeApprovals,
    /// Use a granted approval; granting one requires `Administer`.
    UseApprovals,
    /// Change anything else, list tokens, and fetch backups.
    Administer,
}

impl Permission {
    /// The scopes that grant it; all others are rejected.
    pub fn scopes(self) -> &'static [Scope] {
        match self {
            Permission::Read => &[Scope::Read, Scope::Admin],
            Permission::List => &[Scope::Read, Scope::Runner, Scope::Admin],
            Permission::RegisterAgent => &[Scope::Runner, Scope::Admin],
            Permission::ListBackups => &[Scope::Read, Scope::Backup, Scope::Admin],
            Permission::TakeBackup => &[Scope::Backup, Scope::Admin],
            Permission::SeeApprovals => &[Scope::Read, Scope::Runner, Scope::Admin],
            Permission::UseApprovals => &[Scope::Runner, Scope::Admin],
            Permission::Administer => &[Scope::Admin],
        }
    }

    /// The scopes in words: `read or admin`.
    pub fn scopes_in_words(self) -> String {
        let words: Vec<&str> = self.scopes().iter().map(|scope| scope.as_str()).collect();
        words.join(" or ")
    }
}

impl Scope {
    /// Whether this scope grants the permission.
    pub fn may(self, permission: Permission) -> bool {
        permission.scopes().contains(&self)
    }
}

/// An operator token without its text, which is shown once and stored as a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// UUID; the configured token has none.
    pub id: Option<String>,
    /// Unique name.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Whether it was revoked.
    pub revoked: bool,
}

impl Operator {
    /// The configured token.
    pub fn configured() -> Self {
        let name = CONFIGURED_NAME.to_owned();
        Operator { id: None, name, scope: Scope::Admin, expires_at: None, revoked: false }
    }

    /// Whether the token is valid at this time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A token about to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// UUID.
    pub id: String,
    /// Unique name, 1 to 128 characters.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// When it is created.
    pub created_at: Timestamp,
    /// The name of the token that creates it.
    pub created_by: String,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_may_do_what_is_listed_and_nothing_else() {
        use Permission::{
            Administer, List, ListBackups, Read, RegisterAgent, SeeApprovals, TakeBackup, UseApprovals,
        };
        let all =
            [Read, List, RegisterAgent, SeeApprovals, UseApprovals, ListBackups, TakeBackup, Administer];
        for (scope, may) in [
            (Scope::Admin, all.to_vec()),
            (Scope::Backup, vec![ListBackups, TakeBackup]),
            (Scope::Read, vec![Read, List, ListBackups, SeeApprovals]),
            (Scope::Runner, vec![List, RegisterAgent, SeeApprovals, UseApprovals]),
        ] {
            for permission in all {
                assert_eq!(scope.may(permission), may.contains(&permission), "{scope} {permission:?}");
            }
        }
    }

    #[test]
    fn a_token_ends_at_its_expiry_and_by_its_revocation() {
        let end = Timestamp::from_micros(5);
        let mut token = Operator { expires_at: Some(end), ..Operator::configured() };
        assert!(token.is_live(Timestamp::from_micros(4)));
        assert!(!token.is_live(end));
        token = Operator { revoked: true, ..Operator::configured() };
        assert!(!token.is_live(Timestamp::from_micros(0)));
    }
}
