//! Micro-benchmarks of what every authorization does: `cargo bench`.

use std::sync::OnceLock;

use divan::Bencher;
use divan::counter::BytesCount;
use tempfile::TempDir;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::canon::{self, Hash};
use aegis_gateway::domain::json;
use aegis_gateway::domain::receipt::{FORMAT_VERSION, Receipt};
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
