//! The core use case: may this agent make this call?
//!
//! One write transaction checks the agent and its environment, rejects replays, finds
//! repeated requests, loads the facts, decides, and appends the receipt and the approval that
//! may be needed. The answer is sent once all of it is on disk.
//!
//! The rules are evaluated before the transaction, where no other request has to wait, on
//! cached facts. Inside, that verdict is used if everything it is based on is unchanged;
//! otherwise the call is decided again.

mod answer;
mod record;

use std::sync::Arc;
use std::time::Instant;

use crate::domain::action::{self, ToolCall};
use crate::domain::agent::{Agent, AgentStatus};
use crate::domain::canon::Hash;
use crate::domain::decision::{Facts, Verdict, decide};
use crate::domain::identifier::normalize;
use crate::domain::json::Json;
use crate::domain::policy::PolicySet;
use crate::domain::record::Decision;
use crate::domain::signature::Fault;
use crate::domain::time::Timestamp;
use crate::domain::tool::ToolAction;
use crate::domain::trust::less_trusted;
use crate::entropy;
use crate::store::{Basis, Store, Tx, agents, audit, decisions, policies, receipts, tools};

use super::admission::{Admitted, Freshness};
use super::{Error, Gateway};

pub use answer::{Asked, Authorization};

/// An authorization request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The call.
    pub call: ToolCall,
    /// The agent's id or key as stated by the caller; must match the token's agent.
    pub agent: Option<String>,
    /// Where the call would run; defaults to the agent's registered environment.
    pub environment: Option<String>,
    /// The source's trust.
    pub source_trust: String,
    /// The trust of the hop where the request originated.
    pub root_trust: Option<String>,
    /// On whose behalf.
    pub user_id: Option<String>,
    /// The caller's run.
    pub run_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The run that started the caller's run.
    pub parent_run_id: Option<String>,
    /// The caller's idempotency key.
    pub request_id: Option<String>,
    /// What protects it against replay.
    pub freshness: Freshness,
    /// Whether to decide without recording anything.
    pub dry_run: bool,
}

/// Whether an agent may get anything but a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is not active.
    Stopped,
    /// It may not act in the requested environment.
    Elsewhere,
    /// It may get any answer, including that of an earlier request.
    Admitted,
}

/// What a transaction commits: an answer, or a recorded denial that is reported to the caller
/// as an error.
type Recorded = Result<Authorization, Error>;

/// Ids that may be needed, generated before the transaction.
struct Ids {
    decision: String,
    approval: String,
    receipt: String,
}

/// What is prepared before the transaction begins.
struct Prepared {
    /// Its call's parameters are dropped once there is a foreseen verdict.
    request: Request,
    admitted: Admitted,
    canonical_call: Vec<u8>,
    action_hash: Hash,
    /// The normalised names of the tool and the action.
    names: (String, String),
    received: Instant,
    ids: Ids,
    approval_ttl_seconds: u32,
    /// A verdict, and the facts it is based on.
    foreseen: Option<(Basis, Verdict)>,
}

/// Decides `request` for the agent that sent it, and passes the answer to `done` once it is on
/// disk.
pub fn authorize<D>(gateway: &Gateway, admitted: Admitted, request: Request, received: Instant, done: D)
where
    D: FnOnce(Result<Authorization, Error>) + Send + 'static,
{
    let now = gateway.now();
    let mut prepared = match Prepared::new(gateway, admitted, request, received, now) {
        Ok(prepared) => prepared,
        Err(error) => return done(Err(error)),
    };
    let done = move |recorded: Result<Recorded, Error>| done(recorded.flatten());
    if prepared.request.dry_run {
        return done(prepared.answer_dry_run(&gateway.store, now));
    }
    prepared.foresee(&gateway.store);
    gateway.store.write_then(move |tx| prepared.answer(tx, now), done);
}

impl Prepared {
    /// Does everything that needs no transaction.
    fn new(
        gateway: &Gateway,
        admitted: Admitted,
        request: Request,
        received: Instant,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let canonical_call = request.call.canonical();
        Ok(Prepared {
            action_hash: action::hash(&canonical_call),
            canonical_call,
            names: (normalize(&request.call.tool), normalize(&request.call.action)),
            ids: Ids {
                decision: entropy::uuid(now).map_err(Error::Entropy)?,
                approval: entropy::uuid(now).map_err(Error::Entropy)?,
                receipt: entropy::hex::<8>().map_err(Error::Entropy)?,
            },
            admitted,
            request,
            received,
            approval_ttl_seconds: gateway.approval_ttl_seconds,
            foreseen: None,
        })
    }

    /// Decides the call ahead of the transaction, if all the facts are cached.
    fn foresee(&mut self, store: &Store) {
        let Some(basis) = store.basis(self.admitted.token, &self.names) else { return };
        let verdict = self.decide(&basis.agent, Some(&basis.action), &basis.policies);
        self.foreseen = Some((basis, verdict));
        // Parsed parameters take many times the memory of the canonical bytes, and the
        // request may have to wait for the disk.
        self.request.call.parameters = Json::Null;
    }

    /// The foreseen verdict if it is based on these facts, otherwise a new one.
    fn judge(
        &mut self,
        agent: &Agent,
        registered: Option<&ToolAction>,
        policies: &Arc<PolicySet>,
    ) -> Verdict {
        if let Some((basis, verdict)) = self.foreseen.take() {
            if basis.is(agent, registered, policies) {
                return verdict;
            }
            self.request.call = ToolCall::from_canonical(&self.canonical_call)
                .expect("these are the canonical bytes of a call");
        }
        self.decide(agent, registered, policies)
    }

    fn answer(mut self, tx: &mut Tx<'_>, now: Timestamp) -> Result<Recorded, Error> {
        // Looked up again inside the transaction, to see a token or key that was changed, or an
        // agent that was frozen, since the request arrived.
        let agent = agents::known_by_token(tx, self.admitted.token)?.ok_or(Error::Unauthorized)?;
        self.check_agent(&agent)?;
        let standing = self.standing(&agent);
        if standing == Standing::Admitted {
            self.request.freshness.take(tx, &agent, now)?;
            if let Some(prior) = self.find_prior(tx, &agent)? {
                return Authorization::again(tx, prior, now).map(Ok);
            }
        }
        let registered = tools::known_action(tx, &self.names)?;
        let policies = policies::known(tx)?;
        let verdict = self.judge(&agent, registered.as_deref(), &policies);
        let at = receipts::next_time(tx, now);
        let decision = self.record_of(&agent, standing, &verdict, policies.tag(), at);
        let receipt = Some(self.record(tx, &decision)?);
        if standing == Standing::Stopped {
            audit::insert(tx, &record::attempt_event(&agent, &decision)?)?;
        }
        let approval = self.ask_for_approval(tx, &verdict, &decision, now)?;
        let dry_run = Authorization::of(decision, verdict);
        Ok(recorded(standing, Authorization { approval, receipt, dry_run: false, ..dry_run }))
    }

    fn answer_dry_run(&self, store: &Store, now: Timestamp) -> Result<Recorded, Error> {
        let (agent, registered, policies) = store.read(|connection| {
            let agent = agents::find_by_token(connection, self.admitted.token)?.ok_or(Error::Unauthorized)?;
            self.check_agent(&agent)?;
            if self.standing(&agent) == Standing::Admitted {
                self.request.freshness.check(connection, &agent, now)?;
            }
            let registered = tools::find_action(connection, &self.names.0, &self.names.1)?;
            Ok::<_, Error>((agent, registered, store.policies(connection)?))
        })?;
        let standing = self.standing(&agent);
        let verdict = self.decide(&agent, registered.as_ref(), &policies);
        let decision = self.record_of(&agent, standing, &verdict, policies.tag(), now);
        Ok(recorded(standing, Authorization::of(decision, verdict)))
    }

    fn standing(&self, agent: &Agent) -> Standing {
        if agent.status != AgentStatus::Active {
            Standing::Stopped
        } else if !agent.may_act_in(self.environment(agent)) {
            Standing::Elsewhere
        } else {
            Standing::Admitted
        }
    }

    fn check_agent(&self, agent: &Agent) -> Result<(), Error> {
        if !agent.status.may_ask() {
            return Err(Error::Unauthorized);
        }
        if agent.signing_key.is_some() && agent.signing_key != self.admitted.signed_with {
            return Err(Error::Unsigned(Fault::Invalid));
        }
        match &self.request.agent {
            Some(stated) if *stated != agent.agent_key && *stated != agent.id => Err(Error::AnotherAgent),
            _ => Ok(()),
        }
    }

    /// The decision that answered the same request before. Reusing its id for a different
    /// call is a conflict: the earlier answer must not be returned for it.
    fn find_prior(&self, tx: &Tx<'_>, agent: &Agent) -> Result<Option<Decision>, Error> {
        let Some(request_id) = &self.request.request_id else { return Ok(None) };
        let Some(prior) = decisions::find_by_request(tx.connection(), &agent.id, request_id)? else {
            return Ok(None);
        };
        let same = prior.action_hash == self.action_hash
            && prior.source_trust == self.request.source_trust
            && prior.root_trust_level == self.effective_trust()
            && self.request.environment.as_ref().is_none_or(|stated| *stated == prior.environment);
        if same {
            return Ok(Some(prior));
        }
        Err(Error::Conflict {
            message: "this request_id was already used for a different call".to_owned(),
            reason: "request_id_reused",
        })
    }

    fn decide(&self, agent: &Agent, registered: Option<&ToolAction>, policies: &PolicySet) -> Verdict {
        let facts = Facts {
            agent,
            registered,
            environment: self.environment(agent),
            effective_trust: self.effective_trust(),
            tool_key: &self.names.0,
            action_key: &self.names.1,
            policies,
        };
        decide(&self.request.call, &facts)
    }

    fn effective_trust(&self) -> &str {
        less_trusted(&self.request.source_trust, self.request.root_trust.as_deref())
    }

    fn environment<'a>(&'a self, agent: &'a Agent) -> &'a str {
        self.request.environment.as_deref().unwrap_or(&agent.environment)
    }
}

fn recorded(standing: Standing, answer: Authorization) -> Recorded {
    match standing {
        Standing::Admitted | Standing::Stopped => Ok(answer),
        Standing::Elsewhere => {
            Err(Error::Elsewhere { decision_id: (!answer.dry_run).then_some(answer.decision.id) })
        }
    }
}
