//! Operators: who runs the gateway, and what their tokens may do.

use super::time::Timestamp;
use super::words;

/// Every token that the gateway makes for an operator begins so.
pub const TOKEN_PREFIX: &str = "aegis_op_";

/// The name under which the configured token acts; no other token may have it.
pub const CONFIGURED_NAME: &str = "operator";

words! {
    /// What a token is for.
    Scope {
        /// Everything that the configured token can do.
        Admin = "admin",
        /// Taking backups and listing them; not their content.
        Backup = "backup",
        /// Looking and verifying; neither tokens nor the content of backups.
        Read = "read",
        /// For the process that runs agents: registering them, using what was approved, and
        /// looking; it decides nothing, and changes nothing else.
        Runner = "runner",
    }
}

/// What a route asks of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// To look at what is recorded, and to verify it.
    Read,
    /// To see agents, tools, decisions and receipts, and to have receipts verified that
    /// the caller brings.
    List,
    /// To register an agent, or to give a known one another token.
    RegisterAgent,
    /// To see which backups there are.
    ListBackups,
    /// To take a backup.
    TakeBackup,
    /// To see where approvals stand; their parameters are for who may administer.
    SeeApprovals,
    /// To use an approval that was given. Giving one is for who may administer.
    UseApprovals,
    /// To change anything else, to see who has tokens, and to fetch what backups hold.
    Administer,
}

impl Permission {
    /// The scopes that have it; every other is refused.
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

    /// The same in words: `read or admin`.
    pub fn scopes_in_words(self) -> String {
        let words: Vec<&str> = self.scopes().iter().map(|scope| scope.as_str()).collect();
        words.join(" or ")
    }
}

impl Scope {
    /// Whether a token of this scope may do it.
    pub fn may(self, permission: Permission) -> bool {
        permission.scopes().contains(&self)
    }
}

/// An operator's token, by all but its text: that is shown once and kept as its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// UUID; the configured token has none.
    pub id: Option<String>,
    /// Unique name.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// From when on it is refused.
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

    /// Whether the token opens anything at this time.
    pub fn is_live(&self, now: Timestamp) -> bool {
        !self.revoked && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A token in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// UUID.
    pub id: String,
    /// Unique name, 1 to 128 characters.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// When it is made.
    pub created_at: Timestamp,
    /// The name of the token that made it.
    pub created_by: String,
    /// From when on it is refused.
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
