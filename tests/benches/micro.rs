//! Micro-benchmarks of what every authorization does: `cargo bench`.

use std::sync::OnceLock;

use divan::Bencher;
use divan::counter::BytesCount;
use tempfile::TempDir;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::action::ToolCall;
use aegis_gateway::domain::agent::{Agent, AgentStatus, Profile, RiskTier};
use aegis_gateway::domain::canon::{self, Hash};
use aegis_gateway::domain::decision::{Facts, decide};
use aegis_gateway::domain::json;
use aegis_gateway::domain::policy::document;
use aegis_gateway::domain::policy::set::{Policy, PolicySet};
use aegis_gateway::domain::receipt::{FORMAT_VERSION, Receipt};
use aegis_gateway::domain::tool::{DefaultDecision, Risk, ToolAction};
use aegis_gateway::startup::{self, Options, Started};
use aegis_gateway::store::receipts::{self, Entry};
use aegis_gateway::store::{Error, Tx};

const CALL: &[u8] = br#"{"tool":"github","action":"merge_pull_request","resource":"payments#482",
    "mutates_state":true,"parameters":{"base_branch":"main","title":"Caf\u00e9","labels":["a","b"],
    "amount":120.5,"big":123456789012345678901234567890,"nested":{"z":1,"a":null,"m":[true,false]}}}"#;

static STORE: OnceLock<Started> = OnceLock::new();

fn main() {
    // Removed when the benchmarks have run.
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("bench.db");
    STORE.get_or_init(|| {
        startup::start(&Options::new(&path, &path.with_file_name("backups")), &SystemClock)
            .expect("a new database")
    });
    divan::main();
}

#[divan::bench]
fn parse_a_call(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(CALL)).bench(|| json::parse(divan::black_box(CALL)));
}

#[divan::bench]
fn canonical_form_of_a_call(bencher: Bencher<'_, '_>) {
    let call = json::parse(CALL).expect("JSON");
    bencher.counter(BytesCount::of_slice(CALL)).bench(|| canon::to_vec(divan::black_box(&call)));
}

fn receipt<'a>(hash: &'a str) -> Receipt<'a> {
    Receipt {
        seq: 1_000_000,
        format_version: FORMAT_VERSION,
        canon_version: canon::VERSION,
        event_id: "rcpt_1000000_0123456789abcdef",
        ts: "2026-11-23T01:38:08.000007Z",
        agent_id: Some("01a20642-2cc4-77ca-b643-ce2d7a5bed8e"),
        user_id: None,
        run_id: Some("run"),
        trace_id: Some("trace"),
        tool: "github",
        action: "merge_pull_request",
        resource: Some("payments#482"),
        source_trust: "trusted_internal_signed",
        decision: "allow",
        approver: None,
        action_hash: Some(hash),
        decision_id: Some("01a20642-2cd9-71b3-b192-eb2efebc1e43"),
        decision_hash: Some(hash),
        policy_version: Some("builtin-1"),
        prev_receipt_hash: hash,
    }
}

#[divan::bench]
fn hash_of_a_receipt(bencher: Bencher<'_, '_>) {
    let hash = Hash::of(b"").to_string();
    let (receipt, mut buffer) = (receipt(&hash), Vec::new());
    receipt.hash(&mut buffer);
    let bytes = BytesCount::of_slice(&buffer);
    bencher.counter(bytes).bench_local(|| divan::black_box(&receipt).hash(&mut buffer));
}

/// What `hash_of_a_receipt` cannot be faster than.
#[divan::bench]
fn sha256_of_as_many_bytes(bencher: Bencher<'_, '_>) {
    let hash = Hash::of(b"").to_string();
    let mut buffer = Vec::new();
    receipt(&hash).hash(&mut buffer);
    bencher.counter(BytesCount::of_slice(&buffer)).bench_local(|| Hash::of(divan::black_box(&buffer)));
}

fn agent() -> Agent {
    Agent {
        id: "01a20642-2cc4-77ca-b643-ce2d7a5bed8e".into(),
        agent_key: "agent".into(),
        name: "agent".into(),
        environment: "production".into(),
        risk_tier: RiskTier::Low,
        status: AgentStatus::Active,
        profile: Profile::default(),
        frozen_reason: None,
        quarantined_at: None,
        force_approval: false,
        allowed_environments: Vec::new(),
        signing_key: None,
        created_at: String::new(),
        updated_at: String::new(),
    }
}

/// A policy whose rules have these conditions; `#` stands for the rule's number.
fn policies(count: usize, when: &str) -> PolicySet {
    if count == 0 {
        return PolicySet::default();
    }
    let rule = |number: usize| {
        let when = when.replace('#', &number.to_string());
        format!(r#"{{"id":"r{number}","effect":"deny","when":{when}}}"#)
    };
    let rules: Vec<String> = (0..count).map(rule).collect();
    let text = format!(r#"{{"rules":[{}]}}"#, rules.join(","));
    let document = document::parse(&text).expect("a document");
    PolicySet::new(vec![Policy::new("bench", 1, document, text.len())])
}

fn decide_by(bencher: Bencher<'_, '_>, policies: &PolicySet, resource: &str) {
    let json = json::parse(CALL).expect("JSON");
    let call = ToolCall {
        tool: "github".into(),
        action: "merge_pull_request".into(),
        resource: Some(resource.into()),
        mutates_state: true,
        parameters: json.get("parameters").expect("parameters").clone(),
    };
    let agent = agent();
    let action = ToolAction {
        action_key: "merge_pull_request".into(),
        description: None,
        risk: Risk::Low,
        mutates_state: true,
        approval_required: false,
        default_decision: DefaultDecision::Policy,
        data_access: None,
    };
    let facts = Facts {
        agent: &agent,
        registered: Some(&action),
        environment: "production",
        effective_trust: "trusted_internal_signed",
        tool_key: "github",
        action_key: "merge_pull_request",
        policies,
    };
    bencher.bench_local(|| decide(divan::black_box(&call), &facts));
}

/// The usual: each rule names its tool.
#[divan::bench(args = [0, 10, 200, 2000])]
fn decide_with_rules_by_tool(bencher: Bencher<'_, '_>, count: usize) {
    decide_by(bencher, &policies(count, r#"{"tool":"tool-#","resource":"prod/*"}"#), "payments#482");
}

/// No index helps: each rule is a glob on the resource.
#[divan::bench(args = [10, 200, 2000])]
fn decide_with_rules_by_glob(bencher: Bencher<'_, '_>, count: usize) {
    decide_by(bencher, &policies(count, r#"{"resource":"*/prod-#/?*"}"#), "payments#482");
}

/// The worst that an agent can ask: as long as may be, and nearly what each glob looks for.
#[divan::bench(args = ["*aaaaaaaab*#*", "*aaaaaaaa?b*#*"])]
fn decide_a_long_resource_with_2000_globs(bencher: Bencher<'_, '_>, glob: &str) {
    let rules = policies(2000, &format!(r#"{{"resource":"{glob}"}}"#));
    decide_by(bencher, &rules, &"a".repeat(8192));
}

fn append(tx: &mut Tx<'_>) -> Result<(), Error> {
    let entry = Entry {
        nonce: "0123456789abcdef",
        agent_id: None,
        user_id: None,
        run_id: None,
        trace_id: None,
        tool: "t",
        action: "x",
        resource: None,
        source_trust: "unknown",
        decision: "allow",
        approver: None,
        action_hash: None,
        decision_id: None,
        decision_hash: None,
        policy_version: None,
    };
    receipts::append(tx, &entry, SystemClock.now()).map(|_| ())
}

/// One receipt, committed and synced, by so many threads at a time.
#[divan::bench(threads = [1, 8, 32])]
fn write_one_receipt(bencher: Bencher<'_, '_>) {
    let store = &STORE.get().expect("opened by main").store;
    bencher.bench(|| store.write(append));
}
