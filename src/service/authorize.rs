//! The heart: may this agent make this call?
//!
//! In one write transaction: who asks, and where; is the request fresh, was it asked
//! before, what is known, the decision, its receipt, and the approval that it may need.
//! The answer goes out when all of it is on disk.
//!
//! The rules are looked at before the transaction, where nobody waits for it, by what is
//! known then. Inside, that verdict counts if all that it rests on is still the same;
//! else the call is judged again.

use std::time::Instant;

use serde_json::json;

use crate::domain::action::{self, ToolCall};
use crate::domain::agent::{Agent, AgentStatus};
use crate::domain::approval::{Approval, NewApproval, Status};
use crate::domain::audit::{Event, EventType};
use crate::domain::canon::Hash;
use crate::domain::decision::{Facts, Verdict, decide};
use crate::domain::identifier::normalize;
use crate::domain::policy::{Outcome, PolicySet};
use crate::domain::record::Decision;
use crate::domain::time::Timestamp;
use crate::domain::tool::{Risk, ToolAction};
use crate::domain::trust::less_trusted;
use crate::entropy;
use crate::store::receipts::{Appended, Entry};
use crate::store::{Basis, Store, Tx, agents, approvals, audit, decisions, policies, receipts, tools};

use super::admission::{self, Freshness};
use super::{Error, Gateway};

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The call.
    pub call: ToolCall,
    /// The agent's id or key as the caller states it; must be the token's.
    pub agent: Option<String>,
    /// Where it would run; the agent's registered environment if not given.
    pub environment: Option<String>,
    /// The source's trust.
    pub source_trust: String,
    /// The trust of the hop where the request began.
    pub root_trust: Option<String>,
    /// On whose behalf.
    pub user_id: Option<String>,
    /// The caller's run.
    pub run_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The run that started this run.
    pub parent_run_id: Option<String>,
    /// The caller's name for this request.
    pub request_id: Option<String>,
    /// What tells it from a copy of it.
    pub freshness: Freshness,
    /// Decide and record nothing.
    pub dry_run: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// The decision, recorded unless it was a dry run.
    pub decision: Decision,
    /// Risk of the action as a word.
    pub risk_level: Risk,
    /// What to leave out, for `redact`.
    pub redacted_fields: Vec<String>,
    /// What to wait for, for `require_approval`.
    pub approval: Option<Asked>,
    /// Its receipt; none for a dry run and for the answer to a repeated request.
    pub receipt: Option<Appended>,
    /// Whether nothing was recorded.
    pub dry_run: bool,
    /// Whether it is denied for an environment that the agent may not act in.
    pub is_elsewhere: bool,
}

/// Whether an agent may have more than a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is stopped.
    Stopped,
    /// It asks about an environment that it may not act in.
    Elsewhere,
    /// It may be answered, also from memory.
    Admitted,
}

/// An approval as its decision's answer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// UUID.
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// Hash of the call that is approved: another one once that was edited.
    pub action_hash: Hash,
    /// Who should decide.
    pub approver_group: String,
    /// When it can no longer be approved or used.
    pub expires_at: Timestamp,
}

/// Ids that an answer may need, drawn before the transaction.
struct Ids {
    decision: String,
    approval: String,
    receipt: String,
}

/// What is known before the transaction begins.
struct Prepared {
    request: Request,
    token: Hash,
    canonical_call: Vec<u8>,
    action_hash: Hash,
    /// The normalised names of the tool and the action.
    names: (String, String),
    received: Instant,
    ids: Ids,
    approval_ttl_seconds: u32,
    /// A verdict, and what it rests on.
    foreseen: Option<(Basis, Verdict)>,
}

/// Decides `request` for the agent whose token hashes to `token`, and hands the answer
/// to `done` when it is on disk.
pub fn authorize<D>(gateway: &Gateway, token: Hash, request: Request, received: Instant, done: D)
where
    D: FnOnce(Result<Authorization, Error>) + Send + 'static,
{
    let now = gateway.now();
    let mut prepared = match Prepared::new(gateway, token, request, received, now) {
        Ok(prepared) => prepared,
        Err(error) => return done(Err(error)),
    };
    // Only here is the denial on disk that it follows from.
    let done = move |answer: Result<Authorization, Error>| done(answer.and_then(in_its_environment));
    if prepared.request.dry_run {
        let store = &gateway.store;
        return done(prepared.answer_dry_run(store, now));
    }
    prepared.foresee(&gateway.store);
    gateway.store.write_then(move |tx| prepared.answer(tx, now), done);
}

impl Prepared {
    /// Everything that needs no transaction.
    fn new(
        gateway: &Gateway,
        token: Hash,
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
            token,
            request,
            received,
            approval_ttl_seconds: gateway.approval_ttl_seconds,
            foreseen: None,
        })
    }

    fn foresee(&mut self, store: &Store) {
        let Some(basis) = store.basis(self.token, &self.names) else { return };
        let verdict = self.decide(&basis.agent, Some(&basis.action), &basis.policies);
        self.foreseen = Some((basis, verdict));
    }

    fn answer(mut self, tx: &mut Tx<'_>, now: Timestamp) -> Result<Authorization, Error> {
        // Looked up again inside the transaction: a token that was rotated, or an
        // agent that was frozen since the request came in, counts.
        let agent = agents::known_by_token(tx, self.token)?.ok_or(Error::Unauthorized)?;
        self.check_agent(&agent)?;
        let standing = self.standing(&agent);
        if standing == Standing::Admitted {
            self.request.freshness.take(tx, &agent, now)?;
            if let Some(prior) = self.find_prior(tx, &agent)? {
                return replay(tx, prior, now);
            }
        }
        let registered = tools::known_action(tx, &self.names)?;
        let policies = policies::known(tx)?;
        let verdict = match self.foreseen.take() {
            Some((basis, verdict)) if basis.is(&agent, registered.as_deref(), &policies) => verdict,
            _ => self.decide(&agent, registered.as_deref(), &policies),
        };
        let at = receipts::next_time(tx, now);
        let decision = self.record_of(&agent, &verdict, policies.tag(), at);
        let receipt = append_receipt(tx, &decision, &self.ids.receipt)?;
        decisions::insert(tx, receipt.seq, &decision)?;
        if standing == Standing::Stopped {
            audit::insert(tx, &admission::attempt_event(&agent, &decision)?)?;
        }
        let approval = self.ask_for_approval(tx, &verdict, &decision, now)?;
        let answer = authorization(decision, verdict, approval, Some(receipt));
        Ok(Authorization { is_elsewhere: standing == Standing::Elsewhere, ..answer })
    }

    fn answer_dry_run(&self, store: &Store, now: Timestamp) -> Result<Authorization, Error> {
        let (agent, registered, policies) = store.read(|connection| {
            let agent = agents::find_by_token(connection, self.token)?.ok_or(Error::Unauthorized)?;
            self.check_agent(&agent)?;
            if self.standing(&agent) == Standing::Admitted {
                self.request.freshness.check(connection, &agent, now)?;
            }
            let registered = tools::find_action(connection, &self.names.0, &self.names.1)?;
            Ok::<_, Error>((agent, registered, store.policies(connection)?))
        })?;
        let verdict = self.decide(&agent, registered.as_ref(), &policies);
        let decision = self.record_of(&agent, &verdict, policies.tag(), now);
        let is_elsewhere = self.standing(&agent) == Standing::Elsewhere;
        let answer = authorization(decision, verdict, None, None);
        Ok(Authorization { is_elsewhere, dry_run: true, ..answer })
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
        match &self.request.agent {
            Some(stated) if *stated != agent.agent_key && *stated != agent.id => {
                Err(Error::Forbidden("agent.id is not the agent of this token".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The decision that answered the same request before. The same name for
    /// another call is a conflict: the earlier answer must not serve for it.
    fn find_prior(&self, tx: &Tx<'_>, agent: &Agent) -> Result<Option<Decision>, Error> {
        let Some(request_id) = &self.request.request_id else { return Ok(None) };
        let Some(prior) = decisions::find_by_request(tx.connection(), &agent.id, request_id)? else {
            return Ok(None);
        };
        let same = prior.action_hash == self.action_hash
            && prior.source_trust == self.request.source_trust
            && prior.root_trust_level == self.effective_trust()
            && prior.environment == self.environment(agent);
        if same {
            return Ok(Some(prior));
        }
        Err(Error::Conflict {
            message: "this request_id was used for another call".to_owned(),
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

    fn record_of(&self, agent: &Agent, verdict: &Verdict, tag: &str, at: Timestamp) -> Decision {
        let request = &self.request;
        let call = &request.call;
        Decision {
            id: self.ids.decision.clone(),
            agent_id: agent.id.clone(),
            user_id: request.user_id.clone(),
            run_id: request.run_id.clone(),
            trace_id: request.trace_id.clone(),
            parent_run_id: request.parent_run_id.clone(),
            tool: call.tool.clone(),
            action: call.action.clone(),
            resource: call.resource.clone(),
            mutates_state: verdict.mutating,
            environment: self.environment(agent).to_owned(),
            source_trust: request.source_trust.clone(),
            root_trust_level: self.effective_trust().to_owned(),
            outcome: verdict.outcome,
            reason: verdict.reason.clone(),
            matched_policy_ids: verdict.matched_policies.join(","),
            policy_version: tag.to_owned(),
            risk_score: verdict.risk_score,
            composite_risk_score: verdict.composite_risk_score,
            // An agent that may not act leaves its request's name to be used again.
            request_id: request.request_id.clone().filter(|_| self.standing(agent) == Standing::Admitted),
            action_hash: self.action_hash,
            latency_ms: i64::try_from(self.received.elapsed().as_millis()).unwrap_or(i64::MAX),
            created_at: at,
        }
    }

    fn ask_for_approval(
        &self,
        tx: &Tx<'_>,
        verdict: &Verdict,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<Option<Asked>, Error> {
        let Some(approver_group) = verdict.approver_group.clone() else { return Ok(None) };
        let approval = NewApproval {
            id: self.ids.approval.clone(),
            decision_id: decision.id.clone(),
            agent_id: decision.agent_id.clone(),
            action_hash: self.action_hash,
            tool_call: self.canonical_call.clone(),
            approver_group,
            created_at: now,
            expires_at: now.plus_seconds(self.approval_ttl_seconds.into()),
        };
        approvals::insert(tx, &approval)?;
        audit::insert(tx, &approval_event(&approval, decision)?)?;
        Ok(Some(Asked {
            id: approval.id,
            status: Status::Created,
            action_hash: approval.action_hash,
            approver_group: approval.approver_group,
            expires_at: approval.expires_at,
        }))
    }
}

fn append_receipt(tx: &mut Tx<'_>, decision: &Decision, nonce: &str) -> Result<Appended, Error> {
    let (action_hash, decision_hash) = (decision.action_hash.to_hex(), decision.hash().to_hex());
    let entry = Entry {
        nonce,
        agent_id: Some(&decision.agent_id),
        user_id: decision.user_id.as_deref(),
        run_id: decision.run_id.as_deref(),
        trace_id: decision.trace_id.as_deref(),
        tool: &decision.tool,
        action: &decision.action,
        resource: decision.resource.as_deref(),
        source_trust: &decision.source_trust,
        decision: decision.outcome.as_str(),
        approver: None,
        action_hash: Some(action_hash.as_str()),
        decision_id: Some(&decision.id),
        decision_hash: Some(decision_hash.as_str()),
        policy_version: Some(&decision.policy_version),
    };
    Ok(receipts::append(tx, &entry, decision.created_at)?)
}

/// Names the call by its hash: never by its parameters.
fn approval_event(approval: &NewApproval, decision: &Decision) -> Result<Event, Error> {
    let id = entropy::uuid(decision.created_at).map_err(Error::Entropy)?;
    let details = json!({
        "id": approval.id,
        "action_hash": approval.action_hash.to_string(),
        "approver_group": approval.approver_group,
        "expires_at": approval.expires_at,
    });
    let event = Event::of(decision, id, EventType::ApprovalCreated, &details);
    Ok(Event { approval_id: Some(approval.id.clone()), ..event })
}

/// The earlier answer, with its approval as it stands now. Nothing is written.
fn replay(tx: &Tx<'_>, prior: Decision, now: Timestamp) -> Result<Authorization, Error> {
    let approval = approvals::find_by_decision(tx.connection(), &prior.id)?;
    let approval = approval.map(|approval| asked(approval, now));
    let redacted_fields = match prior.outcome {
        // By the rules that decided, whatever is in force now.
        Outcome::Redact => {
            policies::find_set(tx, &prior.policy_version)?.fields_of(prior.matched_policy_ids.split(','))
        }
        Outcome::Allow | Outcome::RequireApproval | Outcome::Deny => Vec::new(),
    };
    Ok(Authorization {
        risk_level: Risk::of_score(prior.risk_score),
        redacted_fields,
        decision: prior,
        approval,
        receipt: None,
        dry_run: false,
        is_elsewhere: false,
    })
}

fn asked(approval: Approval, now: Timestamp) -> Asked {
    Asked {
        status: approval.status_at(now),
        id: approval.id,
        action_hash: approval.action_hash,
        approver_group: approval.approver_group,
        expires_at: approval.expires_at,
    }
}

/// A denial for the wrong environment is an error to the caller, and on record all the same.
fn in_its_environment(answer: Authorization) -> Result<Authorization, Error> {
    if answer.is_elsewhere {
        return Err(Error::Forbidden("the agent may not act in this environment".to_owned()));
    }
    Ok(answer)
}

fn authorization(
    decision: Decision,
    verdict: Verdict,
    approval: Option<Asked>,
    receipt: Option<Appended>,
) -> Authorization {
    Authorization {
        decision,
        risk_level: verdict.risk_level,
        redacted_fields: verdict.redacted_fields,
        approval,
        receipt,
        dry_run: false,
        is_elsewhere: false,
    }
}
