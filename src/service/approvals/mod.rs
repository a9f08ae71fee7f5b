//! Approvals: seeing them, deciding them, and using them once.
//!
//! # Invariants
//! - Nobody approves for themselves: an agent can see and use its own approvals, and that
//!   is all; whoever decides has an operator's token.
//! - A change is one transaction with its receipt and its event. So is the record of an
//!   attempt that must not be; what it tried has no other effect.
//! - Every change is bound to the call that is frozen, and that to the decision that asked
//!   for it: where the hashes disagree, nothing is changed and nothing shown.

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

/// So many bytes of calls are in one list at most; the rest are seen one by one.
const LISTED_CALLS_BYTES_MAX: usize = 16 << 20;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// An operator.
    Operator(Actor),
    /// The agent whose token hashes to this.
    Agent(Hash),
}

/// Who decides, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// Who, as the holder of the token says.
    pub user_id: String,
    /// Why.
    pub reason: Option<String>,
    /// The hash of the call that they have seen, where they state it: somebody else may have
    /// put another call in its place since.
    pub claim: Option<Hash>,
}

/// An approval as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// All but the call.
    pub approval: Approval,
    /// Where it stands now.
    pub status: Status,
    /// The frozen call, canonical bytes: for those alone who may decide, and only as long
    /// as it is kept.
    pub tool_call: Option<String>,
}

/// The hashes after an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edited {
    /// Of the call that can be approved now.
    pub effective: Hash,
    /// Of the call that the agent asked for.
    pub original: Hash,
}

/// One approval. An agent sees its own; others' are not found.
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

/// Approvals that wait and can still be decided, newest first. Read aside: each call that
/// is shown is hashed.
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

/// Gives an approval.
pub fn approve(gateway: &Gateway, actor: Actor, id: &str, approver: Approver) -> Result<(), Error> {
    decide(gateway, actor, id, Change::Approve, Status::Approved, approver)
}

/// Refuses an approval.
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
        let call = case.call(tx)?;
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

/// Puts another call in the place of the one that waits; the approval waits on, now for
/// that call.
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

/// Uses an approval, once; returns the hash of the call it is for. With `claim` only if
/// that is the hash; a wrong one leaves the approval as it is.
pub fn consume(gateway: &Gateway, who: Who, id: &str, claim: Option<Hash>) -> Result<Hash, Error> {
    in_transaction(gateway, who, Permission::UseApprovals, id, move |tx, case| {
        let agent = agents::find(tx.connection(), &case.approval.agent_id)?;
        let agent_is_active = agent.is_some_and(|agent| agent.status == AgentStatus::Active);
        if let Some(refused) = case.refused(tx, Change::Consume { claim, agent_is_active })? {
            return Ok(Err(refused));
        }
        let call = case.call(tx)?;
        approvals::set_consumed(tx, &case.approval.id, claim, case.now)?;
        let action_hash = case.approval.action_hash;
        let event_type = EventType::ApprovalConsumed;
        let done = Done { event_type, word: "consumed", call: &call, action_hash, approver: None };
        record::append(tx, &case, &done)?;
        Ok(Ok(action_hash))
    })
}

/// An approval that somebody wants to change, inside the transaction that may do it.
struct Case {
    approval: Approval,
    /// The clock's time, by which the approval's end is judged.
    now: Timestamp,
    /// The time of the receipt: the chain's, which is never before the last one's.
    at: Timestamp,
    who: Who,
    /// Who asks, where that is an agent.
    agent_id: Option<String>,
}

/// Runs `act` on an approval. Its inner error is a refusal that is on record, and
/// committed as such; its outer one leaves nothing behind.
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
    /// Judges a change. What must be on record of a refusal is, when this returns it; one
    /// that leaves no record is an error.
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

    /// Whoever decides has seen the call that waits now, if they say which they have seen.
    fn check_seen(&self, approver: &Approver) -> Result<(), Error> {
        if approver.claim.is_none_or(|claim| claim == self.approval.action_hash) {
            return Ok(());
        }
        Err(Error::Conflict {
            message: "claimed_action_hash is not the hash of the call that waits: look at the approval again"
                .to_owned(),
            reason: "approval_hash_mismatch",
        })
    }

    /// The call that is frozen; there is one as long as anything can be done.
    fn call(&self, tx: &Tx<'_>) -> Result<ToolCall, Error> {
        let text = frozen_call(tx.connection(), &self.approval)?;
        let call = text.and_then(|text| ToolCall::from_canonical(text.as_bytes()));
        call.ok_or_else(|| disagrees(&self.approval, "has no call"))
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

/// The parameters of a call are for who may decide.
fn may_see_calls(actor: &Actor) -> bool {
    actor.require(Permission::Administer).is_ok()
}

/// The id of an agent that may look at its own; one that is set apart or gone may not.
fn id_of(agent: Option<&Agent>) -> Result<String, Error> {
    let admitted = agent.filter(|agent| match agent.status {
        AgentStatus::Active | AgentStatus::Frozen | AgentStatus::Revoked => true,
        AgentStatus::Quarantined | AgentStatus::Deleted => false,
    });
    admitted.map(|agent| agent.id.clone()).ok_or(Error::Unauthorized)
}

/// An approval, of this agent if one is given.
fn find(connection: &Connection, id: &str, agent_id: Option<&str>) -> Result<Approval, Error> {
    let found = approvals::find(connection, id)?;
    let found = found.filter(|approval| agent_id.is_none_or(|agent_id| approval.agent_id == agent_id));
    found.ok_or_else(|| Error::NotFound("there is no such approval".to_owned()))
}

/// The call as it is frozen, which is the call that was hashed. `None` once it is blanked.
fn frozen_call(connection: &Connection, approval: &Approval) -> Result<Option<String>, Error> {
    let call = approvals::find_call(connection, &approval.id)?;
    if call.as_ref().is_some_and(|call| action::hash(call.as_bytes()) != approval.action_hash) {
        return Err(disagrees(approval, "has a call that is not the one that was hashed"));
    }
    Ok(call)
}

fn disagrees(approval: &Approval, what: &str) -> Error {
    Error::Store(StoreError::Corrupt(format!("the approval {} {what}", approval.id)))
}
