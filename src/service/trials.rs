//! Trying a draft of a policy on given calls or on recorded decisions. Writes nothing.

use std::collections::HashMap;
use std::sync::TryLockError;

use rusqlite::Connection;

use crate::domain::action::ToolCall;
use crate::domain::agent::{Agent, AgentStatus};
use crate::domain::decision::Facts;
use crate::domain::identifier::normalize;
use crate::domain::json::Json;
use crate::domain::policy::set::Policy;
use crate::domain::policy::trial::{Sets, Trial};
use crate::domain::policy::{Outcome, PolicySet};
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::domain::tool::ToolAction;
use crate::domain::trust::less_trusted;
use crate::store::decisions::{self, Filter, Window};
use crate::store::{agents, tools};

use super::authorize::Request;
use super::policies::{check_key, check_limits, read};
use super::{Error, Gateway};

/// Most decisions that one trial looks at.
pub const DECISIONS_MAX: u32 = 10_000;
/// Most calls of one trial.
pub const CALLS_MAX: usize = 1_000;

/// The draft: in the place of its key's active version, or beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The key that it is meant for.
    pub policy_key: String,
    /// The document.
    pub body: String,
}

/// What the draft is tried on.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// Calls as `/v1/authorize` takes them, each with its agent.
    Calls(Vec<Request>),
    /// The newest recorded decisions.
    Decisions {
        /// At most so many.
        limit: u32,
        /// Not before this time.
        from: Option<Timestamp>,
        /// Not after this time.
        to: Option<Timestamp>,
    },
}

/// One call of the subject, tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// Which call.
    pub which: Which,
    /// What would change.
    pub trial: Trial,
}

/// Which call of the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Its place in the request.
    Index(usize),
    /// The decision that recorded it, and what was decided then.
    Decision(String, Outcome),
}

/// The whole trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What names the policies in force.
    pub policy_version: String,
    /// Everything that was tried, in its order.
    pub tried: Vec<Tried>,
}

/// Tries `draft` on `subject`.
pub fn run(gateway: &Gateway, draft: &Draft, subject: &Subject) -> Result<Report, Error> {
    check_key(&draft.policy_key)?;
    let document = read(&draft.body)?;
    let _turn = match gateway.trying.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(Error::Busy("another trial is running".to_owned())),
    };
    gateway.store.read_aside(|view| {
        let now = gateway.store.policies(view)?;
        let policy = Policy::new(&draft.policy_key, 0, document, draft.body.len());
        let then = now.with(&draft.policy_key, Some(policy));
        check_limits(&then)?;
        let sets = Sets::new(PolicySet::clone(&now), then);
        let tried = Bench { view, sets, registered: HashMap::new() }.try_all(subject)?;
        Ok(Report { policy_version: now.tag().to_owned(), tried })
    })
}

/// One view of the database, and what was looked up in it.
struct Bench<'a> {
    view: &'a Connection,
    sets: Sets,
    registered: HashMap<(String, String), Option<ToolAction>>,
}

impl Bench<'_> {
    fn try_all(&mut self, subject: &Subject) -> Result<Vec<Tried>, Error> {
        match subject {
            Subject::Calls(calls) => {
                calls.iter().enumerate().map(|(index, call)| self.try_call(index, call)).collect()
            }
            Subject::Decisions { limit, from, to } => self.try_decisions(*limit, *from, *to),
        }
    }

    fn try_call(&mut self, index: usize, request: &Request) -> Result<Tried, Error> {
        let name = request.agent.as_deref().unwrap_or("");
        let agent = match agents::find(self.view, name)? {
            Some(agent) => Some(agent),
            None => agents::find_by_key(self.view, name)?,
        };
        let unknown = || Error::BadRequest(format!("calls[{index}]: there is no agent {name:?}"));
        let agent = agent.ok_or_else(unknown)?;
        let environment = request.environment.as_deref().unwrap_or(&agent.environment);
        let trust = less_trusted(&request.source_trust, request.root_trust.as_deref());
        let names = self.look_up(&request.call)?;
        let facts = self.facts(&agent, &names, environment, trust);
        Ok(Tried { which: Which::Index(index), trial: self.sets.compare(&request.call, &facts) })
    }

    fn try_decisions(
        &mut self,
        limit: u32,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<Tried>, Error> {
        let window = Window { limit: limit.min(DECISIONS_MAX), ..Window::default() };
        let listed = decisions::list(self.view, &Filter { from, to, ..Filter::default() }, window)?;
        let mut agents = HashMap::new();
        let mut tried = Vec::with_capacity(listed.decisions.len());
        for decision in listed.decisions {
            if !agents.contains_key(&decision.agent_id) {
                agents.insert(decision.agent_id.clone(), agents::find(self.view, &decision.agent_id)?);
            }
            let agent = agents.get(&decision.agent_id).and_then(Option::as_ref);
            let trial = self.try_decision(&decision, agent)?;
            tried.push(Tried { which: Which::Decision(decision.id, decision.outcome), trial });
        }
        Ok(tried)
    }

    /// As if it were asked today. An agent that was stopped since is taken for active:
    /// else a trial would say of every call of it that nothing changes.
    fn try_decision(&mut self, decision: &Decision, agent: Option<&Agent>) -> Result<Trial, Error> {
        let (Some(agent), false) = (agent, was_stopped(decision)) else { return Ok(Trial::Same) };
        let agent = Agent { status: AgentStatus::Active, ..agent.clone() };
        let call = ToolCall {
            tool: decision.tool.clone(),
            action: decision.action.clone(),
            resource: decision.resource.clone(),
            mutates_state: decision.mutates_state,
            parameters: Json::Null,
        };
        let names = self.look_up(&call)?;
        let facts = self.facts(&agent, &names, &decision.environment, &decision.root_trust_level);
        Ok(self.sets.compare_without_parameters(&call, &facts))
    }

    fn look_up(&mut self, call: &ToolCall) -> Result<(String, String), Error> {
        let names = (normalize(&call.tool), normalize(&call.action));
        if !self.registered.contains_key(&names) {
            let found = tools::find_action(self.view, &names.0, &names.1)?;
            self.registered.insert(names.clone(), found);
        }
        Ok(names)
    }

    fn facts<'f>(
        &'f self,
        agent: &'f Agent,
        names: &'f (String, String),
        environment: &'f str,
        effective_trust: &'f str,
    ) -> Facts<'f> {
        Facts {
            agent,
            registered: self.registered.get(names).and_then(Option::as_ref),
            environment,
            effective_trust,
            tool_key: &names.0,
            action_key: &names.1,
            policies: self.sets.now(),
        }
    }
}

/// Whether it was denied for what its agent was, before any rule was asked.
fn was_stopped(decision: &Decision) -> bool {
    let status = decision.matched_policy_ids.strip_prefix("agent_");
    status.is_some_and(|status| AgentStatus::parse(status).is_some())
}
