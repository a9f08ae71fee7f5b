//! Approvals: viewing, deciding and using them.
//!
//! # Invariants
//! - Agents cannot approve: an agent can only see and use its own approvals. Deciding one
//!   takes an operator token.
//! - A change, its receipt and its event are one transaction. So is the record of a tamper
//!   attempt, which has no other effect.
//! - Every change is bound to the frozen call, and the call to the decision that required the
//!   approval: if the hashes disagree, nothing is changed or shown.

mod record;

use std::sync::Arc;

use rusqlite::Connection;

use crate::domain::action::{self, ToolCall};
use crate::domain::agent::{Agent, AgentStatus};
use crate::domain::approval::{Approval, Change, Status};
use crate::domain::audit::EventType;
use crate::domain::canon::Hash;
use crate::domain::identifier::normalize;
use crate::domain::operator::Permission;
use crate::domain::time::Timestamp;
use crate::store::approvals::Decided;
use crate::store::{Error as StoreError, Tx, agents, approvals, receipts, tools};

use super::operators::Actor;
use super::{Error, Gateway, Page};
use record::Done;

/// A list stops including calls once they reach this many bytes; the rest can be fetched one
/// by one.
const LISTED_CALLS_BYTES_MAX: usize = 16 << 20;

/// The caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An operator.
    Operator(Actor),
    /// The agent whose token has this hash.
    Agent(Hash),
}

/// Who decides, and what they state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// The approver, as stated by the holder of the token.
    pub user_id: String,
    /// Why.
    pub reason: Option<String>,
    /// The hash of the call they have seen, if they state it: someone else may have edited the
    /// call since.
    pub claim: Option<Hash>,
}

/// An approval as shown to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Everything but the call.
    pub approval: Approval,
    /// Its current status.
    pub status: Status,
    /// The frozen call's canonical text: only for those who may decide, and only while it is
    /// kept.
    pub tool_call: Option<String>,
}

/// The hashes after an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edited {
    /// Of the call that can now be approved.
    pub effective: Hash,
    /// Of the call that the agent requested.
    pub original: Hash,
}

/// One approval. To an agent, other agents' approvals do not exist.
pub fn get(gateway: &Gateway, who: &Who, id: &str) -> Result<Seen, Error> {
    let now = gateway.now();
    gateway.store.read(|connection| {
        let agent_id = match who {
            Who::Operator(_) => None,
            Who::Agent(token) => Some(id_of(agents::find_by_token(connection, *token)?.as_ref())?),
        };
        let approval = find(connection, id, agent_id.as_deref())?;
        let tool_call = if who.may_see_calls() { frozen_call(connection, &approval)? } else { None };
        Ok(Seen { status: approval.status_at(now), approval, tool_call })
    })
}

/// Pending approvals that can still be decided, newest first. Read on a separate connection:
/// the hash of each call is checked.
pub fn list(gateway: &Gateway, actor: &Actor, page: Page) -> Result<Vec<Seen>, Error> {
    let (now, with_calls) = (gateway.now(), may_see_calls(actor));
    gateway.store.read_aside(|view| {
        let mut bytes_left = if with_calls { LISTED_CALLS_BYTES_MAX } else { 0 };
        let waiting = approvals::list_waiting(view, now, page.limit, page.offset)?;
        let in_time = waiting.into_iter().filter(|approval| !approval.has_ended(now));
        let seen = in_time.map(|approval| {
            let tool_call = if bytes_left > 0 { frozen_call(view, &approval)? } else { None };
            bytes_left = bytes_left.saturating_sub(tool_call.as_ref().map_or(0, String::len));
            Ok(Seen { status: approval.status_at(now), approval, tool_call })
        });
        seen.collect()
    })
}

/// Grants an approval.
pub fn approve(gateway: &Gateway, actor: Actor, id: &str, approver: Approver) -> Result<(), Error> {
    decide(gateway, actor, id, Change::Approve, Status::Approved, approver)
}

/// Rejects an approval.
pub fn reject(gateway: &Gateway, actor: Actor, id: &str, approver: Approver) -> Result<(), Error> {
    decide(gateway, actor, id, Change::Reject, Status::Rejected, approver)
}

fn decide(
    gateway: &Gateway,
    actor: Actor,
    id: &str,
    change: Change,
    status: Status,
    approver: Approver,
) -> Result<(), Error> {
    in_transaction(gateway, Who::Operator(actor), Permission::Administer, id, move |tx, case| {
        if let Some(refused) = case.refused(tx, change)? {
            return Ok(Err(refused));
        }
        case.check_seen(&approver)?;
        let call = case.call(tx, "approval_expired")?;
        let (user_id, reason) = (approver.user_id.as_str(), approver.reason.as_deref());
        let decided = Decided { status, approver_user_id: user_id, reason };
        approvals::set_decided(tx, &case.approval.id, &decided, case.now)?;
        let done = Done {
            event_type: EventType::ApprovalDecided,
            word: if status == Status::Approved { "approved" } else { "rejected" },
            call: &call,
            action_hash: case.approval.action_hash,
            approver: Some(&approver),
        };
        record::append(tx, &case, &done).map(Ok)
    })
}

/// Replaces the call of a pending approval, which stays pending for the new call.
pub fn edit(
    gateway: &Gateway,
    actor: Actor,
    id: &str,
    call: ToolCall,
    approver: Approver,
) -> Result<Edited, Error> {
    let canonical = String::from_utf8(call.canonical()).expect("canonical bytes are UTF-8");
    let effective = action::hash(canonical.as_bytes());
    let names = (normalize(&call.tool), normalize(&call.action));
    in_transaction(gateway, Who::Operator(actor), Permission::Administer, id, move |tx, case| {
        if let Some(refused) = case.refused(tx, Change::Edit)? {
            return Ok(Err(refused));
        }
        case.check_seen(&approver)?;
        if tools::known_action(tx, &names)?.is_none() {
            let message = "edited_tool_call: this tool and action are not registered";
            return Err(Error::Invalid(message.to_owned()));
        }
        approvals::set_call(tx, &case.approval.id, &canonical, effective, case.now)?;
        let done = Done {
            event_type: EventType::ApprovalEdited,
            word: "edited",
            call: &call,
            action_hash: effective,
            approver: Some(&approver),
        };
        record::append(tx, &case, &done)?;
        Ok(Ok(Edited { effective, original: case.approval.original_action_hash }))
    })
}

/// Uses an approval, once, and returns the hash of its call. If `claim` is given, it must be
/// that hash; a wrong one leaves the approval unchanged.
pub fn consume(gateway: &Gateway, who: Who, id: &str, claim: Option<Hash>) -> Result<Hash, Error> {
    in_transaction(gateway, who, Permission::UseApprovals, id, move |tx, case| {
        let agent = agents::find(tx.connection(), &case.approval.agent_id)?;
        let agent_is_active = agent.is_some_and(|agent| agent.status == AgentStatus::Active);
        if let Some(refused) = case.refused(tx, Change::Consume { claim, agent_is_active })? {
            return Ok(Err(refused));
        }
        let call = case.call(tx, "consume_not_consumable")?;
        approvals::set_consumed(tx, &case.approval.id, claim, case.now)?;
        let action_hash = case.approval.action_hash;
        let event_type = EventType::ApprovalConsumed;
        let done = Done { event_type, word: "consumed", call: &call, action_hash, approver: None };
        record::append(tx, &case, &done)?;
        Ok(Ok(action_hash))
    })
}

/// An approval to be changed, inside the transaction that does so.
struct Case {
    approval: Approval,
    /// The clock's time, which decides whether the approval has expired.
    now: Timestamp,
    /// The receipt's time: the chain's, which is never before the last receipt's.
    at: Timestamp,
    who: Who,
    /// The caller, if it is an agent.
    agent_id: Option<String>,
}

/// Runs `act` on an approval. Its inner error is a recorded refusal, which is committed; its
/// outer error rolls everything back.
fn in_transaction<T, F>(
    gateway: &Gateway,
    who: Who,
    permission: Permission,
    id: &str,
    act: F,
) -> Result<T, Error>
where
    F: FnOnce(&mut Tx<'_>, Case) -> Result<Result<T, Error>, Error> + Send + 'static,
    T: Send + 'static,
{
    let (clock, id) = (Arc::clone(&gateway.clock), id.to_owned());
    gateway.store.write(move |tx| {
        let now = clock.now();
        let at = receipts::next_time(tx, now);
        let agent_id = match &who {
            Who::Operator(actor) => actor.require_in(tx, permission, now).map(|()| None)?,
            Who::Agent(token) => Some(id_of(agents::known_by_token(tx, *token)?.as_deref())?),
        };
        let approval = find(tx.connection(), &id, agent_id.as_deref())?;
        act(tx, Case { approval, now, at, who, agent_id })
    })?
}

impl Case {
    /// Checks a change. Returns a refusal that must be recorded after recording it; any other
    /// refusal is an error.
    fn refused(&self, tx: &mut Tx<'_>, change: Change) -> Result<Option<Error>, Error> {
        let Err(refusal) = self.approval.check(change, self.now) else { return Ok(None) };
        let error = Error::ApprovalStands {
            message: refusal.message,
            status: self.approval.status_at(self.now),
            reason: refusal.reason,
        };
        let Some(kind) = refusal.tamper else { return Err(error) };
        let claim = match change {
            Change::Consume { claim, .. } => claim,
            Change::Approve | Change::Reject | Change::Edit => None,
        };
        record::append_tamper(tx, self, kind, claim)?;
        Ok(Some(error))
    }

    /// Checks that the call the approver has seen, if they state it, is the current one.
    fn check_seen(&self, approver: &Approver) -> Result<(), Error> {
        if approver.claim.is_none_or(|claim| claim == self.approval.action_hash) {
            return Ok(());
        }
        Err(Error::Conflict {
            message: "claimed_action_hash is not the hash of the pending call; fetch the approval again"
                .to_owned(),
            reason: "approval_hash_mismatch",
        })
    }

    /// The frozen call, which is kept for as long as the approval can change; `gone` is the
    /// reason of the conflict where it is not.
    fn call(&self, tx: &Tx<'_>, gone: &'static str) -> Result<ToolCall, Error> {
        let Some(text) = frozen_call(tx.connection(), &self.approval)? else {
            // Only a clock that was ahead for a while blanks the call of a live approval.
            return Err(Error::Conflict {
                message: "the call of this approval is no longer kept: it had expired by the gateway's clock"
                    .to_owned(),
                reason: gone,
            });
        };
        let call = ToolCall::from_canonical(text.as_bytes());
        call.ok_or_else(|| disagrees(&self.approval, "has a call that cannot be read"))
    }
}

impl Who {
    fn may_see_calls(&self) -> bool {
        match self {
            Who::Operator(actor) => may_see_calls(actor),
            Who::Agent(_) => false,
        }
    }
}

/// Only those who may decide see a call's parameters.
fn may_see_calls(actor: &Actor) -> bool {
    actor.require(Permission::Administer).is_ok()
}

/// The agent's id, if it may see its own approvals; a quarantined or deleted one may not.
fn id_of(agent: Option<&Agent>) -> Result<String, Error> {
    let admitted = agent.filter(|agent| match agent.status {
        AgentStatus::Active | AgentStatus::Frozen | AgentStatus::Revoked => true,
        AgentStatus::Quarantined | AgentStatus::Deleted => false,
    });
    admitted.map(|agent| agent.id.clone()).ok_or(Error::Unauthorized)
}

/// Finds an approval; if an agent is given, only among its own.
fn find(connection: &Connection, id: &str, agent_id: Option<&str>) -> Result<Approval, Error> {
    let found = approvals::find(connection, id)?;
    let found = found.filter(|approval| agent_id.is_none_or(|agent_id| approval.agent_id == agent_id));
    found.ok_or_else(|| Error::NotFound("there is no such approval".to_owned()))
}

/// The frozen call, checked against its hash. `None` once it is blanked.
fn frozen_call(connection: &Connection, approval: &Approval) -> Result<Option<String>, Error> {
    let call = approvals::find_call(connection, &approval.id)?;
    if call.as_ref().is_some_and(|call| action::hash(call.as_bytes()) != approval.action_hash) {
        return Err(disagrees(approval, "has a call that does not match its hash"));
    }
    Ok(call)
}

fn disagrees(approval: &Approval, what: &str) -> Error {
    Error::Store(StoreError::Corrupt(format!("the approval {} {what}", approval.id)))
}
