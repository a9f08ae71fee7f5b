//! Client libraries, reproduced as small programs in `tests/clients/`: each does on the wire
//! what an existing library does, and runs against the real gateway.
//!
//! They are Python and use only the standard library; without `python3`, each test prints that
//! it was skipped.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Gateway, Home, decide};

/// Runs a script against a gateway; shows its output if it fails.
fn run(script: &str, home: &Home, gateway: &Gateway) {
    if let Err(error) = Command::new("python3").arg("--version").stdout(Stdio::null()).status() {
        eprintln!("skipped {script}: python3 cannot be run here: {error}");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    // -B: write no bytecode next to the scripts.
    let mut python = Command::new("python3");
    python.arg("-B").arg(path).env("AEGIS_URL", format!("http://{}", gateway.address()));
    python.env("AEGIS_API_KEY", &gateway.token).env("AEGIS_DB_PATH", home.database());
    let output = python.current_dir(home.path("")).stdin(Stdio::null()).output().expect("python3 runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}: {}\n{said}", output.status);
}

fn run_with_defaults(script: &str) {
    let home = Home::new();
    let gateway = home.start();
    run(script, &home, &gateway);
}

#[test]
fn a_client_like_the_python_library_works() {
    run_with_defaults("python_library.py");
}

#[test]
fn a_client_like_the_typescript_library_works() {
    run_with_defaults("typescript_library.py");
}

#[test]
fn a_client_like_the_go_library_works() {
    run_with_defaults("go_library.py");
}

#[test]
fn a_client_without_a_library_works() {
    run_with_defaults("raw_requests.py");
}

#[test]
fn a_client_that_is_told_to_wait_waits_and_is_answered() {
    let home = Home::new().with("AEGIS_AUTHORIZE_PER_SECOND", "1");
    let gateway = home.start();
    run("waiting.py", &home, &gateway);
}

#[test]
fn a_client_that_waits_in_vain_or_comes_too_late_does_not_act() {
    let home = Home::new().with("AEGIS_APPROVAL_TTL_SECS", "1");
    let gateway = home.start();
    run("expiry.py", &home, &gateway);
}

/// The Python library discards the id that a registration returns.
#[test]
fn what_an_agent_did_is_found_by_its_key_too() {
    let home = Home::new();
    let gateway = home.start();
    let (agent, other) = (gateway.agent("a key/1"), gateway.agent("other"));
    // An agent whose key is another agent's id is not mistaken for it.
    let named = gateway.register(&agent.id, &json!({}));
    for (asks, times) in [(&agent, 2), (&other, 1), (&named, 3)] {
        decide(asks, times);
    }
    let count = |path: &str, agent: &str| {
        let found = gateway.get(&format!("/v1/{path}?agent_id={}", agent.replace(' ', "%20")));
        found.as_array().map(Vec::len).unwrap_or_else(|| panic!("{found}"))
    };
    for (name, decisions) in
        [("a key/1", 2), (agent.id.as_str(), 2), ("other", 1), (&named.id, 3), ("nobody", 0)]
    {
        assert_eq!(count("decisions", name), decisions, "{name}");
        assert_eq!(count("audit/events", name), usize::from(decisions > 0), "its registration: {name}");
    }
    assert_eq!(gateway.operator("DELETE", "/v1/agents/other", None).status, 200);
    assert_eq!(count("decisions", "other"), 1, "what was done stays on record");
    let found: Value = gateway.get("/v1/decisions?agent_id=other&decision=allow&limit=1");
    assert_eq!(found[0]["agent_id"], other.id);
}
