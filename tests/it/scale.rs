//! Large databases: generated here, measured by `scripts/bench.sh`.

use std::path::{Path, PathBuf};

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::agent::{Profile, Registration, RiskTier};
use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::policy::{BUILTIN_VERSION, Outcome};
use aegis_gateway::domain::record::Decision;
use aegis_gateway::domain::time::Timestamp;
use aegis_gateway::entropy;
use aegis_gateway::startup::{self, Options};
use aegis_gateway::store::receipts::Entry;
use aegis_gateway::store::{Error, Store, Tx, agents, decisions, receipts};

const AGENTS: usize = 50;
const PER_TRANSACTION: u64 = 20_000;

/// Creates a database at `path` with `count` decisions in a realistic mix, using the gateway's
/// own functions.
pub fn generate(path: &Path, count: u64) {
    let started = startup::start(&Options::new(path, &path.with_file_name("backups")), &SystemClock)
        .expect("a new database");
    let ids = register_agents(&started.store);
    let mut made = 0;
    while made < count {
        let (from, to) = (made, count.min(made + PER_TRANSACTION));
        let ids = ids.clone();
        started
            .store
            .write(move |tx| (from..to).try_for_each(|number| append(tx, &ids, number)))
            .expect("written");
        made = to;
    }
    started.store.close().expect("closed");
    started.guard.release().expect("released");
}

/// Appends the receipt of a restore to the database of a stopped gateway.
pub fn append_restore(path: &Path, resource: &str) {
    let started = startup::start(&Options::new(path, &path.with_file_name("backups")), &SystemClock)
        .expect("a database");
    let resource = resource.to_owned();
    let append = move |tx: &mut Tx<'_>| -> Result<(), Error> {
        let entry = Entry {
            nonce: "00112233",
            agent_id: None,
            user_id: None,
            run_id: None,
            trace_id: None,
            tool: "restore",
            action: "restore",
            resource: Some(&resource),
            source_trust: "trusted_internal_signed",
            decision: "restored",
            approver: None,
            action_hash: None,
            decision_id: None,
            decision_hash: None,
            policy_version: None,
        };
        receipts::append(tx, &entry, SystemClock.now()).map(|_| ())
    };
    started.store.write(append).expect("appended");
    started.store.close().expect("closed");
    started.guard.release().expect("released");
}

fn register_agents(store: &Store) -> Vec<String> {
    let at = SystemClock.now();
    let register = |number: usize| {
        let id = entropy::uuid(at).expect("randomness");
        let registration = Registration {
            agent_key: format!("agent-{number}"),
            name: format!("Agent {number}"),
            environment: "production".into(),
            risk_tier: RiskTier::Low,
            profile: Profile::default(),
            force_approval: false,
            allowed_environments: Vec::new(),
            signing_key: None,
            at,
        };
        let own = id.clone();
        let token = Hash::of(format!("agent_tok_{number:032x}").as_bytes());
        store.write(move |tx| agents::insert(tx, &own, &registration, token)).expect("registered");
        id
    };
    (0..AGENTS).map(register).collect()
}

fn append(tx: &mut Tx<'_>, agents: &[String], number: u64) -> Result<(), Error> {
    let decision = decision(&agents[(number * 7 % AGENTS as u64) as usize], number);
    let (action_hash, decision_hash) = (decision.action_hash.to_string(), decision.hash().to_string());
    let entry = Entry {
        nonce: &format!("{number:016x}"),
        agent_id: Some(&decision.agent_id),
        user_id: None,
        run_id: decision.run_id.as_deref(),
        trace_id: decision.trace_id.as_deref(),
        tool: &decision.tool,
        action: &decision.action,
        resource: decision.resource.as_deref(),
        source_trust: &decision.source_trust,
        decision: decision.outcome.as_str(),
        approver: None,
        action_hash: Some(&action_hash),
        decision_id: Some(&decision.id),
        decision_hash: Some(&decision_hash),
        policy_version: Some(&decision.policy_version),
    };
    let receipt = receipts::append(tx, &entry, decision.created_at)?;
    decisions::insert(tx, receipt.seq, &decision)
}

/// Ten milliseconds apart; nine in ten are allowed, one in a thousand is redacted.
fn decision(agent_id: &str, number: u64) -> Decision {
    let at = Timestamp::from_micros(1_780_000_000_000_000 + i64::try_from(number).expect("small") * 10_000);
    let (outcome, policy) = match number {
        number if number % 1000 == 7 => (Outcome::Redact, "credential_read_redacted"),
        number if number % 20 == 3 => (Outcome::Deny, "untrusted_mutation_denied"),
        _ => (Outcome::Allow, "read_allowed"),
    };
    Decision {
        id: entropy::uuid(at).expect("randomness"),
        agent_id: agent_id.to_owned(),
        user_id: None,
        run_id: Some(format!("run-{}", number / 100)),
        trace_id: Some(format!("trace-{number}")),
        parent_run_id: None,
        tool: ["github", "database", "payments", "mail"][(number % 4) as usize].into(),
        action: ["read", "search", "update"][(number % 3) as usize].into(),
        resource: Some(format!("resource#{}", number % 1000)),
        mutates_state: number % 3 == 2,
        environment: "production".into(),
        source_trust: "trusted_internal_signed".into(),
        root_trust_level: "trusted_internal_signed".into(),
        outcome,
        reason: "the call changes nothing".into(),
        matched_policy_ids: policy.into(),
        policy_version: BUILTIN_VERSION.into(),
        risk_score: 10,
        composite_risk_score: 10,
        request_id: None,
        action_hash: Hash::of(&number.to_le_bytes()),
        latency_ms: 0,
        created_at: at,
    }
}

#[test]
fn a_generated_database_verifies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("generated.db");
    generate(&path, 2_000);
    let output = super::support::verify(&[path.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("2000 receipts and 2000 decisions"));
}

/// For the benchmarks: `AEGIS_GENERATE=PATH:COUNT cargo test --release --test it -- --ignored generate`.
#[test]
#[ignore = "makes as large a database as it is told; used by scripts/bench.sh"]
fn generate_as_told() {
    let told = std::env::var("AEGIS_GENERATE").expect("AEGIS_GENERATE=PATH:COUNT");
    let (path, count) = told.rsplit_once(':').expect("PATH:COUNT");
    generate(&PathBuf::from(path), count.parse().expect("a number"));
}
