//! The calls of a trial, with everything their decisions depend on besides the policies.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::Connection;

use crate::domain::action::ToolCall;
use crate::domain::agent::{Agent, AgentStatus};
use crate::domain::decision::Facts;
use crate::domain::identifier::normalize;
use crate::domain::json::Json;
use crate::domain::policy::trial::{Comparison, PolicyPair};
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::domain::tool::ToolAction;
use crate::domain::trust::less_trusted;
use crate::store::decisions::{self, Filter, Window};
use crate::store::{Error as StoreError, agents, tools};

use super::super::Error;
use super::super::authorize::Request;
use super::{DECISIONS_MAX, Sample, Subject};

/// One call of the sample.
pub(super) struct Case {
    /// Which call.
    pub(super) subject: Subject,
    /// `None` if no rule would be evaluated, so that no policy makes a difference.
    asked: Option<Asked>,
}

/// A call and the facts it is decided on.
struct Asked {
    call: ToolCall,
    /// Whether its parameters are known; a recorded call does not keep them.
    is_whole: bool,
    agent: Arc<Agent>,
    environment: String,
    effective_trust: String,
    names: Names,
    registered: Option<Arc<ToolAction>>,
}

/// The normalised names of a tool and an action.
type Names = (String, String);

impl Case {
    /// What the draft would do to it.
    pub(super) fn compare(&self, pair: &PolicyPair) -> Comparison {
        let Some(asked) = &self.asked else { return Comparison::Same };
        let facts = Facts {
            agent: &asked.agent,
            registered: asked.registered.as_deref(),
            environment: &asked.environment,
            effective_trust: &asked.effective_trust,
            tool_key: &asked.names.0,
            action_key: &asked.names.1,
            policies: pair.now(),
        };
        if asked.is_whole {
            pair.compare(&asked.call, &facts)
        } else {
            pair.compare_without_parameters(&asked.call, &facts)
        }
    }
}

/// Reads cases from one snapshot of the database, looking up each agent and action once.
pub(super) struct Loader<'a> {
    view: &'a Connection,
    agents: HashMap<String, Option<Arc<Agent>>>,
    actions: HashMap<Names, Option<Arc<ToolAction>>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(view: &'a Connection) -> Self {
        Loader { view, agents: HashMap::new(), actions: HashMap::new() }
    }

    /// Every call of `sample`, in order.
    pub(super) fn read(mut self, sample: Sample) -> Result<Vec<Case>, Error> {
        match sample {
            Sample::Calls(calls) => {
                calls.into_iter().enumerate().map(|(index, call)| self.given(index, call)).collect()
            }
            Sample::Decisions { limit, from, to } => self.recorded(limit, from, to),
        }
    }

    fn given(&mut self, index: usize, request: Request) -> Result<Case, Error> {
        let name = request.agent.as_deref().unwrap_or("");
        let unknown = || Error::BadRequest(format!("calls[{index}]: there is no agent {name:?}"));
        let agent = self.agent(name, agents::find_by_id_or_key)?.ok_or_else(unknown)?;
        let (names, registered) = self.registered(&request.call)?;
        let trust = less_trusted(&request.source_trust, request.root_trust.as_deref()).to_owned();
        let asked = Asked {
            call: request.call,
            is_whole: true,
            environment: request.environment.unwrap_or_else(|| agent.environment.clone()),
            effective_trust: trust,
            agent,
            names,
            registered,
        };
        Ok(Case { subject: Subject::Index(index), asked: Some(asked) })
    }

    fn recorded(
        &mut self,
        limit: u32,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<Case>, Error> {
        let window = Window { limit: limit.min(DECISIONS_MAX), ..Window::default() };
        let listed = decisions::list(self.view, &Filter { from, to, ..Filter::default() }, window)?;
        listed.decisions.into_iter().map(|decision| self.decided(decision)).collect()
    }

    fn decided(&mut self, decision: Decision) -> Result<Case, Error> {
        let was_stopped = was_stopped(&decision);
        let subject = Subject::Decision(decision.id, decision.outcome);
        let agent = self.agent(&decision.agent_id, find_as_active)?;
        let Some(agent) = agent.filter(|_| !was_stopped) else { return Ok(Case { subject, asked: None }) };
        let call = ToolCall {
            tool: decision.tool,
            action: decision.action,
            resource: decision.resource,
            mutates_state: decision.mutates_state,
            parameters: Json::Null,
        };
        let (names, registered) = self.registered(&call)?;
        let asked = Asked {
            call,
            is_whole: false,
            agent,
            environment: decision.environment,
            effective_trust: decision.root_trust_level,
            names,
            registered,
        };
        Ok(Case { subject, asked: Some(asked) })
    }

    fn agent(
        &mut self,
        name: &str,
        find: fn(&Connection, &str) -> Result<Option<Agent>, StoreError>,
    ) -> Result<Option<Arc<Agent>>, Error> {
        if let Some(known) = self.agents.get(name) {
            return Ok(known.clone());
        }
        let found = find(self.view, name)?.map(Arc::new);
        self.agents.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    fn registered(&mut self, call: &ToolCall) -> Result<(Names, Option<Arc<ToolAction>>), Error> {
        let names = (normalize(&call.tool), normalize(&call.action));
        let registered = match self.actions.entry(names.clone()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => {
                place.insert(tools::find_action(self.view, &names.0, &names.1)?.map(Arc::new)).clone()
            }
        };
        Ok((names, registered))
    }
}

/// Treats an agent that has been stopped since as active: otherwise a trial would report no
/// change for any of its calls.
fn find_as_active(view: &Connection, id: &str) -> Result<Option<Agent>, StoreError> {
    let active = |agent| Agent { status: AgentStatus::Active, ..agent };
    Ok(agents::find(view, id)?.map(active))
}

/// Whether it was denied because of its agent's status, before any rule was evaluated.
fn was_stopped(decision: &Decision) -> bool {
    let status = decision.matched_policy_ids.strip_prefix("agent_");
    status.is_some_and(|status| AgentStatus::parse(status).is_some())
}
