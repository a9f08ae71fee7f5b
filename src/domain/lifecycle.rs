//! The state machine of an agent's status, in one table.
//!
//! Revocation is permanent: a revoked agent can only be deleted. A deleted agent no longer
//! exists for any caller.

use super::agent::AgentStatus;
use super::audit::EventType;

/// What an operator does to an agent's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Stop it temporarily.
    Freeze,
    /// Let a frozen agent act again.
    Unfreeze,
    /// Stop it permanently.
    Revoke,
    /// Let a quarantined or frozen agent act again.
    Restore,
    /// Remove it from the lists.
    Delete,
}

/// Why an operation does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The agent no longer exists.
    Deleted,
    /// The agent is permanently stopped.
    Revoked,
    /// The operation does not apply to this status.
    NotFrom(AgentStatus),
}

impl Operation {
    /// The status it leads to from `status`; the same one if there is nothing to do.
    pub fn next(self, status: AgentStatus) -> Result<AgentStatus, Refused> {
        use AgentStatus::{Active, Deleted, Frozen, Quarantined, Revoked};
        match (self, status) {
            (_, Deleted) => Err(Refused::Deleted),
            (Operation::Delete, _) => Ok(Deleted),
            (Operation::Revoke, _) => Ok(Revoked),
            (Operation::Freeze | Operation::Unfreeze | Operation::Restore, Revoked) => Err(Refused::Revoked),
            (Operation::Freeze, Active | Frozen | Quarantined) => Ok(Frozen),
            (Operation::Unfreeze, Active | Frozen) | (Operation::Restore, Frozen | Quarantined) => Ok(Active),
            (Operation::Unfreeze, Quarantined) | (Operation::Restore, Active) => {
                Err(Refused::NotFrom(status))
            }
        }
    }

    /// The event that records it; deletion has no event type of its own.
    pub fn event_type(self) -> EventType {
        match self {
            Operation::Freeze => EventType::AgentFrozen,
            Operation::Unfreeze => EventType::AgentUnfrozen,
            Operation::Revoke => EventType::AgentRevoked,
            Operation::Restore => EventType::AgentRestored,
            Operation::Delete => EventType::AdminAction,
        }
    }

    /// The verb, for messages.
    pub fn verb(self) -> &'static str {
        match self {
            Operation::Freeze => "freeze",
            Operation::Unfreeze => "unfreeze",
            Operation::Revoke => "revoke",
            Operation::Restore => "restore",
            Operation::Delete => "delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_leads_where_the_contract_says_and_nowhere_else() {
        use AgentStatus::{Active, Deleted, Frozen, Quarantined, Revoked};
        let statuses = [Active, Frozen, Quarantined, Revoked, Deleted];
        let (gone, over) = (Err(Refused::Deleted), Err(Refused::Revoked));
        let not = |status| Err(Refused::NotFrom(status));
        for (operation, expected) in [
            (Operation::Freeze, [Ok(Frozen), Ok(Frozen), Ok(Frozen), over, gone]),
            (Operation::Unfreeze, [Ok(Active), Ok(Active), not(Quarantined), over, gone]),
            (Operation::Revoke, [Ok(Revoked), Ok(Revoked), Ok(Revoked), Ok(Revoked), gone]),
            (Operation::Restore, [not(Active), Ok(Active), Ok(Active), over, gone]),
            (Operation::Delete, [Ok(Deleted), Ok(Deleted), Ok(Deleted), Ok(Deleted), gone]),
        ] {
            for (status, next) in statuses.into_iter().zip(expected) {
                assert_eq!(operation.next(status), next, "{operation:?} {status}");
            }
        }
    }
}
