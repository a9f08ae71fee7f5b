//! The README, command by command: its code blocks are run in order.

use std::fs;
use std::process::Command;

use aegis_gateway::config::{SETTINGS, Setting};

use super::support::{Gateway, Home, VERIFIER, dump, dump_before_restore};

const BACKUP: &str = "backups/pre-migration-2026-06-17.db";

/// The `sh` blocks of the README between two headings.
fn blocks(from: &str, to: &str) -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let start = readme.find(from).expect(from);
    let end = start + readme[start..].find(to).expect(to);
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in readme[start..end].lines() {
        match (&mut open, line.trim()) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), _) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    blocks
}

/// The commands, adapted to this gateway's port and to programs already built.
fn adapted(block: &str, gateway: &Gateway) -> String {
    let verifier = "cargo run --release --bin aegis-verify-receipts --";
    let url = gateway.address().to_string();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/");
    let script = format!("AEGIS_URL=http://{url} AEGIS_VERIFIER={VERIFIER} sh {folder}");
    let block = block.replace("cargo build --release ", "true ");
    block.replace("127.0.0.1:8080", &url).replace(verifier, VERIFIER).replace("sh scripts/", &script)
}

fn run(home: &Home, script: &str) -> String {
    let output =
        Command::new("sh").args(["-euc", script]).current_dir(home.path("")).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{text}\n{errors}");
    text
}

/// Agent activity after the backup, which the restore must undo.
fn go_on(gateway: &Gateway) {
    let agent = gateway.agent("after-the-backup");
    for _ in 0..50 {
        assert_eq!(agent.ask("write", "trusted_internal_signed").status, 200);
    }
}

fn follow_the_readme(end: fn(Gateway), log_is_hot: bool) {
    let home = Home::new();
    assert_eq!(blocks("## Two commands", "## A first decision"), ["cargo run --release\n", "cargo test\n"]);
    let gateway = home.start();

    let first = blocks("## A first decision", "## Back up").join("\n");
    let tour = run(&home, &adapted(&first, &gateway));
    assert!(tour.contains("\"decision\":\"allow\"") && tour.contains("\"decision\":\"deny\""), "{tour}");
    assert!(tour.contains("\"verified\":true"), "{tour}");

    let token = "ADMIN_TOKEN=$(cat db/admin.token)\n";
    let backup = blocks("## Back up", "## Restore").join("\n");
    let answer = run(&home, &format!("{token}{}", adapted(&backup, &gateway)));
    assert!(answer.contains(&format!("\"path\":\"{BACKUP}\"")), "{answer}");
    let saved = dump(&home.path(BACKUP));

    go_on(&gateway);
    end(gateway);
    let log = home.path("db/aegisagent.db-wal");
    assert_eq!(fs::metadata(&log).is_ok_and(|log| log.len() > 0), log_is_hot, "the log is there, or not");

    let restore = blocks("## Restore", "## Verify");
    let [away, into_place, start, confirm] = restore.as_slice() else { panic!("{restore:?}") };
    assert_eq!(start.trim(), "cargo run --release");
    run(&home, &format!("{away}{into_place}"));
    let gateway = home.start();
    assert_eq!(gateway.log().contains("set aside a write-ahead log"), log_is_hot, "{}", gateway.log());
    let confirmed = run(&home, &format!("{token}{}", adapted(confirm, &gateway)));
    for expected in ["\"status\":\"healthy\"", "\"status\":\"ready\"", "coding-agent", "\"verified\":true"] {
        assert!(confirmed.contains(expected), "{expected} in {confirmed}");
    }
    assert!(!confirmed.contains("after-the-backup"), "{confirmed}");

    let verify = blocks("## Verify", "## Approvals").join("\n");
    assert!(run(&home, &adapted(&verify, &gateway)).contains("verified: 3 receipts and 2 decisions"));
    assert_eq!(gateway.stop(), 0);
    assert!(!log.exists(), "a clean stop leaves no log");
    let restored = dump_before_restore(&home.database());
    assert_eq!(
        restored, saved,
        "the restored state is the backup's, exactly, and one receipt of the restore"
    );
}

#[test]
fn the_readme_holds_after_a_clean_stop() {
    follow_the_readme(|gateway| assert_eq!(gateway.stop(), 0), false);
}

#[test]
fn the_readme_holds_after_a_kill() {
    follow_the_readme(Gateway::kill, true);
}

#[test]
fn the_readme_s_approval_is_used_its_policy_tried_put_in_force_and_disabled_and_its_environment_kept() {
    let home = Home::new();
    let gateway = home.start();
    let mut script = blocks("## A first decision", "## Back up");
    script.extend(blocks("## Approvals", "## Endpoints"));
    let said = run(&home, &adapted(&script.join("\n"), &gateway));
    for expected in [
        "\"status\":\"consumed\"",
        "\"counts\":{\"cannot_tell\":0,\"changed\":0,\"examined\":3,\"unchanged\":3}",
        "\"policy_key\":\"house\"",
        "\"status\":\"active\"",
        "\"status\":\"disabled\"",
        "\"version\":2",
        "\"message\":\"the agent may not act in this environment\"",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn the_readme_s_table_names_every_setting_with_its_default_and_no_other() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let rows: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "| Variable | Default | Meaning |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), SETTINGS.len(), "{rows:?}");
    for (row, Setting { name, default, .. }) in rows.iter().zip(SETTINGS) {
        let default = if default.is_empty() { String::new() } else { format!("`{default}` ") };
        assert!(row.starts_with(&format!("| `{name}` | {default}| ")), "{name}: {row}");
    }
}

#[test]
fn the_demo_fills_a_gateway_with_every_kind_of_decision() {
    let home = Home::new();
    let gateway = home.start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo.sh");
    let shown = run(&home, &format!("AEGIS_URL=http://{} sh {script}", gateway.address()));
    for outcome in ["allow", "deny", "require_approval", "redact"] {
        assert!(shown.lines().any(|line| line.starts_with(outcome)), "{outcome} in {shown}");
        let path = format!("/v1/decisions?decision={outcome}");
        assert_ne!(gateway.operator("GET", &path, None).body, serde_json::json!([]), "{outcome}");
    }
    assert_eq!(gateway.operator("POST", "/v1/receipts/verify-range", None).body["verified"], true);
}
