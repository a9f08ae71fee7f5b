//! The process: its settings, files and file modes, signals and log, and its behaviour when
//! the system denies it something.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use aegis_gateway::config::{SETTINGS, Setting};

use crate::support::{
    GATEWAY, Gateway, Home, PATIENCE, VERIFIER, assert_failure, raw_request, try_request, verify, wait_until,
};

const TRUSTED: &str = "trusted_internal_signed";

/// The names in a folder of the home.
fn names(home: &Home, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(home.path(folder)).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn run(home: &Home, arguments: &[&str]) -> Output {
    home.command(arguments).output().expect("the gateway runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The files that a clean stop leaves next to the database.
fn assert_left_clean(home: &Home) {
    let expected = ["admin.token", "aegisagent.db", "aegisagent.db.identity"];
    assert_eq!(names(home, "db"), expected.map(str::to_owned).into());
}

// --- Settings

#[test]
fn a_bad_setting_ends_with_exit_2_and_one_line_and_touches_nothing() {
    let outside = tempfile::TempDir::new().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = outside.path().join(name);
        fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let (short, empty, spaced) =
        (file("short", "short\n"), file("empty", ""), file("spaced", "with a space in the token\n"));
    let plain = file("plain", "x");
    let below_a_file = format!("{plain}/backups");
    let folder = outside.path().to_str().expect("text");
    let long = "x".repeat(513);
    for (name, value, shown) in [
        ("AEGIS_BIND_ADDR", "8080", true),
        ("AEGIS_BIND_ADDR", "127.0.0.1", true),
        ("AEGIS_BIND_ADDR", "127.0.0.1:", true),
        ("AEGIS_BIND_ADDR", "127.0.0.1:65536", true),
        ("AEGIS_BIND_ADDR", "example.org:80", true),
        ("AEGIS_BIND_ADDR", "127.0.0.1:0 ", true),
        ("AEGIS_BIND_ADDR", "http://127.0.0.1:0", true),
        ("AEGIS_DB_PATH", ":memory:", true),
        ("AEGIS_DB_PATH", "file:x.db?mode=memory", true),
        ("AEGIS_DB_PATH", folder, true),
        ("AEGIS_DB_PATH", "..", true),
        ("AEGIS_DB_PATH", "/", true),
        ("AEGIS_DB_PATH", "new/", true),
        ("AEGIS_BACKUP_DIR", "file:x", true),
        ("AEGIS_BACKUP_DIR", &plain, true),
        ("AEGIS_BACKUP_DIR", &below_a_file, true),
        ("AEGIS_ADMIN_TOKEN", "fifteen-charact", false),
        ("AEGIS_ADMIN_TOKEN", &long, false),
        ("AEGIS_ADMIN_TOKEN", "sixteen characters with a space", false),
        ("AEGIS_ADMIN_TOKEN", "sixteen-characters-é", false),
        ("AEGIS_ADMIN_TOKEN", "agent_tok_0123456789abcdef", false),
        ("AEGIS_ADMIN_TOKEN_FILE", "missing", true),
        ("AEGIS_ADMIN_TOKEN_FILE", folder, true),
        ("AEGIS_ADMIN_TOKEN_FILE", &short, true),
        ("AEGIS_ADMIN_TOKEN_FILE", &empty, true),
        ("AEGIS_ADMIN_TOKEN_FILE", &spaced, true),
        ("AEGIS_WORKERS", "0", true),
        ("AEGIS_WORKERS", "513", true),
        ("AEGIS_WORKERS", "-1", true),
        ("AEGIS_WORKERS", "1.5", true),
        ("AEGIS_WORKERS", "many", true),
        ("AEGIS_WORKERS", "99999999999999999999", true),
        ("AEGIS_MAX_BODY_BYTES", "0", true),
        ("AEGIS_MAX_BODY_BYTES", "1MiB", true),
        ("AEGIS_MAX_BODY_BYTES", "99999999999", true),
        ("AEGIS_WAL_CHOICE", "replay", true),
        ("AEGIS_WAL_CHOICE", "replay:xyz", true),
        ("RUST_LOG", "loud", true),
        ("RUST_LOG", "info,,", true),
    ] {
        let home = Home::new().with(name, value);
        for arguments in [&[][..], &["--check-config"], &["healthcheck"]] {
            let output = run(&home, arguments);
            let line = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{name}={value} {arguments:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{name}={value}: {line}");
            assert!(line.contains(name) && line.contains("expected "), "{name}={value}: {line}");
            assert_eq!(line.contains(value), shown, "{name}={value}: {line}");
            assert!(output.stdout.is_empty());
        }
        assert_eq!(names(&home, ""), BTreeSet::new(), "{name}={value}");
    }
}

/// Text that is not UTF-8, as a path may be.
fn not_utf8(start: &str) -> OsString {
    OsString::from_vec([start.as_bytes(), b"\xff"].concat())
}

#[test]
fn a_setting_that_is_not_utf8_ends_with_exit_2_and_one_line_that_names_it() {
    for name in ["AEGIS_DB_PATH", "AEGIS_BACKUP_DIR", "AEGIS_ADMIN_TOKEN", "RUST_LOG"] {
        let home = Home::new();
        let output = home.command(&[]).env(name, not_utf8("x")).output().expect("the gateway runs");
        let line = stderr(&output);
        assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{name}: {line}");
        assert!(line.contains(&format!("{name}=")), "{name}: {line}");
        assert_eq!(names(&home, ""), BTreeSet::new(), "{name}");
    }
    // Not a setting: a misspelt name is not an error.
    let home = Home::new();
    let mut command = home.command(&["--check-config"]);
    let output = command.env("AEGIS_MISSPELT", not_utf8("x")).output().expect("the gateway runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn an_argument_that_is_not_utf8_is_no_option() {
    let home = Home::new();
    let output = home.command(&[]).arg(not_utf8("--check-config")).output().expect("the gateway runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    let (word, option) = (not_utf8("x"), not_utf8("--wal"));
    for arguments in
        [&[&*option, "x".as_ref()], &["--wal".as_ref(), &*word], &["--expect-head".as_ref(), &word]]
    {
        let output = Command::new(VERIFIER).args(arguments).output().expect("the verifier runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    }
}

#[test]
fn the_verifier_takes_paths_that_are_not_utf8() {
    let home = Home::new();
    let gateway = home.start();
    assert_eq!(gateway.agent("a").ask("read", TRUSTED).status, 200);
    gateway.backup(&home, "b.db");
    assert_eq!(gateway.stop(), 0);
    let (database, backups) = (home.path("").join(not_utf8("db")), home.path("").join(not_utf8("backups")));
    fs::rename(home.database(), &database).expect("moved");
    fs::rename(home.path("backups"), &backups).expect("moved");
    let mut verifier = Command::new(VERIFIER);
    let output = verifier.arg(&database).arg("--against").arg(&backups).output().expect("the verifier runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"verified: "), "{output:?}");
    let output = Command::new(VERIFIER).arg(not_utf8("missing")).output().expect("the verifier runs");
    assert_eq!((output.status.code(), stderr(&output).lines().count()), (Some(2), 1), "{output:?}");
}

#[test]
fn check_config_says_what_would_be_used_and_touches_nothing() {
    let token = "a-token-of-the-operator";
    let home = Home::new()
        .with("AEGIS_ADMIN_TOKEN", token)
        .with("AEGIS_DB_PATH", "x/y.db")
        .with("AEGIS_WORKERS", "7");
    let output = run(&home, &["--check-config"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    for part in [
        "AEGIS_BIND_ADDR=127.0.0.1:0",
        "AEGIS_DB_PATH=x/y.db",
        "AEGIS_BACKUP_DIR=backups",
        "AEGIS_WORKERS=7",
        "AEGIS_MAX_BODY_BYTES=1048576",
        "AEGIS_APPROVAL_TTL_SECS=1800",
        "RUST_LOG=info",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(token), "{said}");
    assert_eq!(names(&home, ""), BTreeSet::new());
    // It does not disturb a running gateway.
    let home = Home::new();
    let gateway = home.start();
    let before = names(&home, "db");
    assert_eq!(run(&home, &["--check-config"]).status.code(), Some(0));
    assert_eq!(names(&home, "db"), before);
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn help_and_version_need_nothing_and_unknown_words_are_refused() {
    // Not even valid settings.
    let home = Home::new().with("AEGIS_WORKERS", "rubbish");
    for (argument, part) in
        [("--help", "AEGIS_DB_PATH"), ("-h", "healthcheck"), ("--version", env!("CARGO_PKG_VERSION"))]
    {
        let output = run(&home, &[argument]);
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{argument}");
    }
    let help = String::from_utf8(run(&home, &["--help"]).stdout).expect("text");
    for Setting { name, default, help: meaning } in SETTINGS {
        let is_its = |line: &str| {
            let rest =
                line.trim_start().strip_prefix(name).and_then(|rest| rest.trim_start().strip_prefix(default));
            rest.is_some_and(|rest| rest.trim_start() == *meaning)
        };
        assert!(help.lines().any(is_its), "{name}: {help}");
    }
    for arguments in [&["--hlep"][..], &["--help", "x"], &["healthcheck", "x"], &[""], &["serve"]] {
        let output = run(&home, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{arguments:?}");
    }
    assert_eq!(names(&home, ""), BTreeSet::new());
}

/// The database would be migrated, and a receipt of its restore appended.
#[test]
fn a_bind_address_in_use_is_named_before_anything_is_written() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let home = Home::new();
    fs::create_dir(home.path("db")).expect("a folder");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schema_0007.db");
    fs::copy(golden, home.database()).expect("cp");
    let output = home.command(&[]).env("AEGIS_BIND_ADDR", &address).output().expect("the gateway runs");
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains(&format!("AEGIS_BIND_ADDR={address}")), "{said}");
    assert_eq!(names(&home, ""), BTreeSet::from(["db".to_owned()]));
    assert_eq!(names(&home, "db"), BTreeSet::from(["aegisagent.db".to_owned()]));
    assert!(fs::read(home.database()).expect("readable") == fs::read(golden).expect("readable"));
    assert_eq!(home.start().stop(), 0);
}

#[test]
fn the_settings_do_what_they_say() {
    let home = Home::new()
        .with("AEGIS_DB_PATH", "here/and/there.db")
        .with("AEGIS_BACKUP_DIR", "kept/safe")
        .with("AEGIS_ADMIN_TOKEN", "a-token-of-the-operator")
        .with("AEGIS_MAX_BODY_BYTES", "2048")
        .with("AEGIS_WORKERS", "1")
        .with("AEGIS_MISSPELT", "x")
        .with("RUST_LOG", "warn,aegis_gateway=info");
    let gateway = home.start();
    gateway.logs("AEGIS_MISSPELT");
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
    assert_eq!((answer.status, &answer.body["path"]), (200, &json!("kept/safe/b.db")), "{answer:?}");
    let fits = "x".repeat(2048 - 16);
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": fits})));
    assert_failure(&answer, 400, "BadRequest");
    let too_long = "x".repeat(2048);
    let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": too_long})));
    assert_failure(&answer, 413, "PayloadTooLarge");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(names(&home, "here/and"), ["there.db", "there.db.identity"].map(str::to_owned).into());
}

// --- The operator's token

#[test]
fn the_token_is_made_once_for_its_owner_alone_and_never_shown() {
    let home = Home::new().with("RUST_LOG", "trace");
    let gateway = home.start();
    let token = gateway.token.clone();
    assert!(token.len() >= 43 && token.bytes().all(|byte| byte.is_ascii_graphic()), "{}", token.len());
    assert_eq!(mode(&home.path("db/admin.token")), 0o600);
    assert_eq!(gateway.operator("GET", "/v1/agents", None).status, 200);
    let log = gateway.log();
    assert!(log.contains("admin.token") && !log.contains(&token), "{log}");
    assert_eq!(gateway.stop(), 0);
    let gateway = home.start();
    assert_eq!(gateway.token, token);
    assert_eq!(gateway.operator("GET", "/v1/agents", None).status, 200);
    assert!(!gateway.log().contains(&token));
    assert_eq!(gateway.stop(), 0);
    // If the file is lost, a new token is made and the old one is invalid.
    fs::remove_file(home.path("db/admin.token")).expect("removed");
    let gateway = home.start();
    assert_ne!(gateway.token, token);
    assert_failure(&gateway.request("GET", "/v1/agents", Some(&token), None), 401, "Unauthorized");
    assert_eq!(gateway.operator("GET", "/v1/agents", None).status, 200);
    let other = Home::new().start();
    assert_ne!(other.token, gateway.token);
}

#[test]
fn a_token_that_is_given_is_the_only_one() {
    let given = "a-token-of-the-operator";
    for by_file in [false, true] {
        let home = Home::new();
        assert_eq!(home.start().stop(), 0);
        let made = fs::read_to_string(home.path("db/admin.token")).expect("a token").trim().to_owned();
        let file = home.path("given");
        fs::write(&file, format!("{given}\n")).expect("written");
        let home = if by_file {
            home.with("AEGIS_ADMIN_TOKEN_FILE", file.to_str().expect("text"))
        } else {
            home.with("AEGIS_ADMIN_TOKEN", given)
        };
        let gateway = home.start();
        let status = |token: Option<&str>| gateway.request("GET", "/v1/agents", token, None).status;
        assert_eq!((status(Some(given)), status(Some(&made)), status(None)), (200, 401, 401), "{by_file}");
        assert!(!gateway.log().contains(given));
        assert_eq!(gateway.stop(), 0);
    }
}

#[test]
fn there_is_no_state_without_a_token() {
    for spoilt in
        ["", "\n", "short\n", "   ", "with spaces in the token", "agent_tok_0123456789abcdef0123456789abcdef"]
    {
        let home = Home::new();
        assert_eq!(home.start().stop(), 0);
        fs::write(home.path("db/admin.token"), spoilt).expect("written");
        let (code, line) = home.start_refused();
        assert_eq!(code, 2, "{spoilt:?}: {line}");
        assert!(
            line.contains("admin.token") && (spoilt.trim().is_empty() || !line.contains(spoilt.trim())),
            "{line}"
        );
        assert_left_clean(&home);
        assert_eq!(fs::read_to_string(home.path("db/admin.token")).expect("still there"), spoilt);
    }
    // An empty setting must not become an empty token.
    let home = Home::new().with("AEGIS_ADMIN_TOKEN", "").with("AEGIS_ADMIN_TOKEN_FILE", "");
    let gateway = home.start();
    for header in
        ["", "Authorization: Bearer \r\n", "Authorization: Bearer  \r\n", "Authorization: Bearer\r\n"]
    {
        let request = format!("GET /v1/agents HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        let answer = raw_request(gateway.address(), request.as_bytes()).expect("an answer");
        assert_failure(&answer, 401, "Unauthorized");
    }
}

// --- Files

#[test]
fn every_file_and_folder_is_its_owner_s_alone_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let home = Home::new();
        let gateway = home.start_after(&format!("umask {umask}"));
        assert_eq!(gateway.agent("a").ask("read", TRUSTED).status, 200);
        let answer = gateway.operator("POST", "/v1/admin/backup", Some(&json!({"filename": "b.db"})));
        assert_eq!(answer.status, 200, "{answer:?}");
        for folder in ["db", "backups"] {
            assert_eq!(mode(&home.path(folder)), 0o700, "{umask} {folder}");
            for name in names(&home, folder) {
                let path = home.path(folder).join(&name);
                let expected = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode(&path), expected, "{umask} {folder}/{name}");
            }
        }
        let there = names(&home, "db");
        for name in
            ["aegisagent.db", "aegisagent.db-wal", "aegisagent.db-shm", "admin.token", "aegisagent.db.lock"]
        {
            assert!(there.contains(name), "{name}: {there:?}");
        }
        assert_eq!(gateway.stop(), 0);
        for name in names(&home, "db") {
            assert_eq!(mode(&home.path("db").join(&name)), 0o600, "{umask} {name}");
        }
    }
}

#[test]
fn a_folder_of_somebody_else_where_the_sockets_would_be_stays_as_it_is() {
    let home = Home::new();
    fs::create_dir_all(home.beside(".sockets/notes")).expect("made");
    fs::write(home.beside(".sockets/notes/mine"), "mine").expect("written");
    let gateway = home.start();
    assert_eq!(gateway.agent("a").ask("read", TRUSTED).status, 200);
    gateway.logs("aegisagent.db.sockets: ");
    assert_eq!(gateway.stop(), 0);
    assert_eq!(fs::read(home.beside(".sockets/notes/mine")).expect("still there"), b"mine");
}

#[test]
fn a_second_gateway_on_the_same_database_is_refused_and_the_first_goes_on() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let before = names(&home, "db");
    // Whether or not it would listen on the same address too.
    for address in ["127.0.0.1:0".to_owned(), gateway.address().to_string()] {
        let output = home.command(&[]).env("AEGIS_BIND_ADDR", address).output().expect("the gateway runs");
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(line.contains("another gateway"), "{line}");
    }
    assert_eq!(names(&home, "db"), before);
    assert_eq!(agent.ask("read", TRUSTED).status, 200);
    assert_eq!(run(&home, &["healthcheck"]).status.code(), Some(0));
    assert_eq!(gateway.stop(), 0);
}

// --- Signals

/// A request of which only half the body is sent.
fn half_a_request(gateway: &Gateway, token: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!(
        "POST /v1/authorize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    // Answered, so the gateway is now waiting for the body.
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&body.as_bytes()[..body.len() / 2]).expect("sent");
    stream
}

#[test]
fn a_stop_finishes_what_is_in_flight_and_leaves_nothing_beside_the_database() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        let body =
            json!({"tool": "t", "action": "read", "mutates_state": false, "parameters": {}}).to_string();
        let mut stream = half_a_request(&gateway, &agent.token, &body);
        let idle = TcpStream::connect(gateway.address()).expect("a connection");
        gateway.signal(signal);
        wait_until("it is stopping", || gateway.log().contains("stopping"));
        wait_until("it accepts nothing more", || {
            TcpStream::connect_timeout(&gateway.address(), Duration::from_secs(1)).is_err()
        });
        stream.write_all(&body.as_bytes()[body.len() / 2..]).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"receipt\""), "{answer}");
        assert_eq!(gateway.wait(), 0, "{signal}");
        drop(idle);
        assert_left_clean(&home);
        let output = verify(&["--json", home.database().to_str().expect("text")]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"receipts\":1,"), "{output:?}");
    }
}

#[test]
fn an_idle_gateway_stops_at_once() {
    let home = Home::new();
    let gateway = home.start();
    let begun = Instant::now();
    let idle = TcpStream::connect(gateway.address()).expect("a connection");
    assert_eq!(gateway.stop(), 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(idle);
    assert_left_clean(&home);
}

#[test]
fn a_second_signal_ends_a_stop_that_hangs_and_loses_nothing() {
    for signal in ["TERM", "INT"] {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        assert_eq!(agent.ask("write", TRUSTED).status, 200);
        let stuck = half_a_request(&gateway, &agent.token, "{\"tool\":\"t\"}");
        gateway.signal(signal);
        wait_until("it is stopping", || gateway.log().contains("stopping"));
        let begun = Instant::now();
        gateway.signal(signal);
        assert_ne!(gateway.wait(), 0, "{signal}");
        // A graceful stop would have waited much longer for the stuck client.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(stuck);
        let gateway = home.start();
        assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], 1);
        assert_eq!(gateway.stop(), 0);
        assert_left_clean(&home);
    }
}

#[test]
fn a_stuck_client_cannot_hold_up_a_stop_for_long() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let stuck = half_a_request(&gateway, &agent.token, "{\"tool\":\"t\"}");
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
    drop(stuck);
    assert_left_clean(&home);
}

// --- The log

#[test]
fn every_request_has_one_line_and_no_line_has_a_secret() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    let ask = |method: &str, path: &str, headers: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        raw_request(gateway.address(), request.as_bytes()).expect("an answer")
    };
    let operator = format!("Authorization: Bearer {}\r\n", gateway.token);
    for (method, path, headers, id) in [
        ("GET", "/v1/agents", format!("{operator}X-Request-ID: my-id_1.a\r\n"), Some("my-id_1.a")),
        ("GET", "/v1/decisions?q=hidden-value", format!("{operator}X-Request-ID: q\r\n"), Some("q")),
        ("GET", "/v1/agents/nobody", format!("{operator}X-Request-ID: missing\r\n"), Some("missing")),
        ("GET", "/v1/agents", "X-Request-ID: nobody-is-it\r\n".to_owned(), Some("nobody-is-it")),
        ("DELETE", "/v1/agents", "X-Request-ID: wrong-method\r\n".to_owned(), Some("wrong-method")),
        ("GET", "/livez", "X-Request-ID: probe\r\n".to_owned(), Some("probe")),
        ("GET", "/nothing/%1b[2J", "X-Request-ID: escape\r\n".to_owned(), Some("escape")),
        ("GET", "/v1/agents", format!("{operator}X-Request-ID: a b\r\n"), None),
        ("GET", "/v1/agents", format!("{operator}X-Request-ID: \"><x\r\n"), None),
        ("GET", "/v1/agents", format!("{operator}X-Request-ID: {}\r\n", "x".repeat(65)), None),
        ("GET", "/v1/agents", operator.clone(), None),
    ] {
        let answer = ask(method, path, &headers);
        let given = answer.header("X-Request-ID").expect("an id").to_owned();
        if let Some(id) = id {
            assert_eq!(given, id);
        } else {
            assert!(!headers.contains(&given) && given.len() < 40, "{given}");
        }
        let bare = path.split('?').next().expect("a path");
        let start = format!(" info {method} {bare} {} ", answer.status);
        let by = if headers.starts_with(&operator) { " by operator" } else { "" };
        let is_its = |line: &&str| line.ends_with(&format!(" ms {given}{by}"));
        wait_until("the line is written", || gateway.log().lines().filter(is_its).count() == 1);
        let log = gateway.log();
        let line = log.lines().find(is_its).expect("the line");
        assert!(line.contains(&start), "{line}: {start}");
        let millis = line.split(&start).nth(1).and_then(|rest| rest.split(' ').next());
        assert!(millis.is_some_and(|millis| millis.parse::<f64>().is_ok()), "{line}");
    }
    let log = gateway.log();
    for secret in ["hidden-value", &gateway.token, &agent.token, "\u{1b}"] {
        assert!(!log.contains(secret), "{log}");
    }
    // Two requests without their own id get different ids.
    let id = || ask("GET", "/livez", "").header("X-Request-ID").expect("an id").to_owned();
    assert_ne!(id(), id());
}

#[test]
fn a_refused_request_has_a_line_too() {
    let home = Home::new();
    let gateway = home.start();
    for (request, status) in [
        ("POST /v1/authorize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".to_owned(), 413),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        ("rubbish\r\n\r\n".to_owned(), 400),
    ] {
        let answer = raw_request(gateway.address(), request.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status);
        let has_line = |line: &str| line.contains(&format!(" {status} ")) && !line.contains("xxxx");
        wait_until("the line is written", || gateway.log().lines().any(has_line));
    }
}

// --- Probes

#[test]
fn the_probes_need_no_credential_and_say_what_the_contract_says() {
    let home = Home::new();
    let gateway = home.start();
    let version = env!("CARGO_PKG_VERSION");
    for (path, expected) in [
        ("/health", json!({"status": "healthy", "version": version, "db": "up"})),
        ("/livez", json!({"status": "alive"})),
        ("/startupz", json!({"status": "started"})),
    ] {
        for token in [None, Some("rubbish"), Some(gateway.token.as_str())] {
            let answer = gateway.request("GET", path, token, None);
            assert_eq!((answer.status, &answer.body), (200, &expected), "{path}");
        }
    }
    let ready = gateway.request("GET", "/readyz", None, None);
    assert_eq!(
        (ready.status, &ready.body["status"], &ready.body["db"]),
        (200, &json!("ready"), &json!("up"))
    );
    assert_eq!(run(&home, &["healthcheck"]).status.code(), Some(0));
    assert_eq!(gateway.stop(), 0);
    let output = run(&home, &["healthcheck"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn a_probe_is_answered_while_every_worker_is_busy() {
    let home = Home::new().with("AEGIS_WORKERS", "1");
    let gateway = home.start();
    let agent = gateway.agent("a");
    // Eight clients keep the only worker busy; probes have a separate lane.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(agent.ask("write", TRUSTED).status, 200)));
        }
        for _ in 0..20 {
            assert_eq!(gateway.request("GET", "/livez", None, None).status, 200);
            assert_eq!(gateway.request("GET", "/readyz", None, None).status, 200);
        }
    });
}

/// Limits the gateway to descriptors below `limit`; false if there is no prlimit(1).
fn limit_descriptors(gateway: &Gateway, limit: usize) -> bool {
    let arguments = [format!("--pid={}", gateway.pid()), format!("--nofile={limit}:")];
    Command::new("prlimit").args(arguments).status().is_ok_and(|status| status.success())
}

#[test]
fn a_gateway_whose_workers_cannot_be_reached_is_not_ready_and_says_why() {
    let home = Home::new();
    // So few that there are few connections to the workers; raised right afterwards.
    let gateway = home.start_after("ulimit -S -n 64");
    if !limit_descriptors(&gateway, 1024) {
        return println!("not tested, there is no prlimit here");
    }
    let agent = gateway.agent("a");
    // The workers' server gets no descriptor for another connection.
    assert!(limit_descriptors(&gateway, 4));
    let _one_more = UnixStream::connect(home.beside(".sockets/main")).expect("a connection");
    wait_until("it has none", || gateway.log().contains("Too many open files"));
    assert!(limit_descriptors(&gateway, 1024));
    assert_eq!(agent.ask("read", TRUSTED).status, 200, "those that are there still work");
    assert_eq!(gateway.request("GET", "/readyz", None, None).status, 200);
    // Each is lost when its client does not read the answer, and cannot be replaced.
    wait_until("they are lost", || {
        let mut client = TcpStream::connect(gateway.address()).expect("a connection");
        client.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        drop(client);
        agent.ask("read", TRUSTED).status == 503
    });
    for (path, status) in [("/readyz", "not ready"), ("/health", "unhealthy")] {
        wait_until("it is not ready", || gateway.request("GET", path, None, None).status == 503);
        let body = gateway.request("GET", path, None, None).body;
        assert_eq!((&body["status"], &body["db"]), (&json!(status), &json!("up")), "{body}");
        assert!(body["reason"].as_str().is_some_and(|reason| reason.contains("the workers")), "{body}");
    }
    assert_eq!(gateway.request("GET", "/livez", None, None).status, 200);
    let output = run(&home, &["healthcheck"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    wait_until("it is told again", || gateway.log().matches("cannot be reopened").count() >= 2);
    let told = gateway.log().matches("cannot be reopened").count();
    assert!((2..10).contains(&told), "{told} lines: {}", gateway.log());
    assert_eq!(gateway.stop(), 0);
}

#[test]
fn a_database_that_was_moved_or_replaced_is_not_ready_and_takes_no_decision() {
    for (what, name) in [("database", "db/aegisagent.db"), ("log", "db/aegisagent.db-wal")] {
        let home = Home::new();
        let gateway = home.start();
        let agent = gateway.agent("a");
        assert_eq!(agent.ask("read", TRUSTED).status, 200);
        let (place, aside) = (home.path(name), home.path("db/aside"));
        fs::rename(&place, &aside).expect("moved");
        for replaced in [false, true] {
            if replaced {
                fs::copy(&aside, &place).expect("copied");
            }
            for path in ["/readyz", "/health"] {
                let answer = gateway.request("GET", path, None, None);
                assert_eq!(answer.status, 503, "{what} {answer:?}");
                assert!(
                    answer.body["reason"].as_str().is_some_and(|reason| reason.contains("replaced")),
                    "{answer:?}"
                );
            }
            assert_eq!(gateway.request("GET", "/livez", None, None).status, 200);
            let output = run(&home, &["healthcheck"]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(stderr(&output).contains("not ready"), "{output:?}");
            let answer = agent.ask("read", TRUSTED);
            assert_failure(&answer, 503, "ServiceUnavailable");
            assert_eq!(answer.header("Retry-After"), Some("5"));
        }
        fs::rename(&aside, &place).expect("moved back");
        wait_until("it is ready again", || gateway.request("GET", "/readyz", None, None).status == 200);
        assert_eq!(agent.ask("read", TRUSTED).status, 200, "{what}");
        assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], 2);
        assert_eq!(gateway.stop(), 0);
    }
}

#[test]
fn a_failure_that_goes_on_is_logged_once_a_second_with_a_count() {
    let home = Home::new();
    let gateway = home.start();
    let agent = gateway.agent("a");
    fs::rename(home.database(), home.path("aside")).expect("moved");
    let began = Instant::now();
    for _ in 0..300 {
        assert_eq!(agent.ask("read", TRUSTED).status, 503);
    }
    // Both the writer and the request handler log it.
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("not for ever");
    gateway.logs(" error ");
    let errors = gateway.log().matches(" error ").count();
    assert!((1..=2 * (2 + seconds)).contains(&errors), "{errors} in {seconds} s: {}", gateway.log());
    wait_until("what was counted is told", || {
        assert_eq!(agent.ask("read", TRUSTED).status, 503);
        gateway.log().contains(" more were not logged)")
    });
    gateway.kill();
}

/// A small disk, if the system permits mounting one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, kib: u32) -> Option<Self> {
        fs::create_dir(at).expect("a folder");
        let size = format!("size={kib}k,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(at.to_owned())),
            other => {
                eprintln!("skipped: no small disk can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(&self.0).status().expect("umount runs");
        assert!(gone.success());
    }
}

#[test]
fn a_full_disk_is_told_before_and_while_it_is_full_and_nothing_is_lost() {
    let home = Home::new();
    let Some(disk) = SmallDisk::mount(&home.path("db"), 8 * 1024) else { return };
    let gateway = home.start();
    let agent = gateway.agent("a");
    assert_eq!(agent.ask("write", TRUSTED).status, 200);
    // Nearly full: not ready any more, but still working.
    let filler = home.path("db/filler");
    fs::write(&filler, vec![1; 5 << 20]).expect("written");
    let answer = gateway.request("GET", "/readyz", None, None);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body["reason"].as_str().is_some_and(|reason| reason.contains("free")), "{answer:?}");
    assert_eq!(agent.ask("write", TRUSTED).status, 200);
    // Full.
    let mut rest = fs::File::create(home.path("db/rest")).expect("a file");
    while rest.write_all(&[1; 4096]).is_ok() {}
    let mut acknowledged = 2;
    let refused = (0..2000).map(|_| agent.ask("write", TRUSTED)).find(|answer| {
        acknowledged += u64::from(answer.status == 200);
        answer.status != 200
    });
    let refused = refused.expect("the disk is full");
    assert_failure(&refused, 503, "ServiceUnavailable");
    assert_eq!(refused.body["details"]["reason"], "disk_full", "{refused:?}");
    assert_eq!(gateway.request("GET", "/livez", None, None).status, 200);
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], acknowledged);
    // Space again: it continues by itself.
    fs::remove_file(home.path("db/rest")).expect("removed");
    fs::remove_file(&filler).expect("removed");
    wait_until("it is ready again", || gateway.request("GET", "/readyz", None, None).status == 200);
    assert_eq!(agent.ask("write", TRUSTED).status, 200);
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], acknowledged + 1);
    assert_eq!(gateway.stop(), 0);
    assert_left_clean(&home);
    assert_eq!(verify(&[home.database().to_str().expect("text")]).status.code(), Some(0));
    drop(disk);
}

#[test]
fn a_limit_on_the_size_of_files_fails_a_write_and_not_the_process() {
    let home = Home::new();
    let gateway = home.start_after("ulimit -f 1200");
    let agent = gateway.agent("a");
    let mut acknowledged = 0_u64;
    let resource = "x".repeat(8000);
    let body = json!({"tool": "t", "action": "read", "resource": resource, "mutates_state": false, "parameters": {}}).to_string();
    let refused = (0..500).map(|_| gateway.authorize(&agent.token, &body)).find(|answer| {
        acknowledged += u64::from(answer.status == 200);
        answer.status != 200
    });
    let refused = refused.expect("the limit is reached");
    assert_failure(&refused, 503, "ServiceUnavailable");
    assert!(acknowledged > 0);
    for path in ["/livez", "/startupz"] {
        assert_eq!(gateway.request("GET", path, None, None).status, 200);
    }
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], acknowledged);
    gateway.kill();
    let gateway = home.start();
    assert_eq!(gateway.get("/v1/receipts/chain-head")["head"]["seq"], acknowledged);
    assert_eq!(agent_again(&gateway), 200);
    assert_eq!(gateway.stop(), 0);
    assert_eq!(verify(&[home.database().to_str().expect("text")]).status.code(), Some(0));
}

fn agent_again(gateway: &Gateway) -> u16 {
    gateway.agent("a").ask("read", TRUSTED).status
}

#[test]
fn a_folder_that_cannot_be_made_is_refused_in_one_line() {
    let home = Home::new();
    fs::write(home.path("db"), "a file in the way").expect("written");
    let (code, line) = home.start_refused();
    assert_eq!(code, 3, "{line}");
    assert!(line.contains("db"), "{line}");
    assert_eq!(fs::read(home.path("db")).expect("still there"), b"a file in the way");
}

#[test]
fn a_log_that_cannot_be_written_changes_neither_the_work_nor_the_exit_status() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("the full device");
    let home = Home::new().with("AEGIS_WORKERS", "rubbish");
    let status = home.command(&[]).stderr(full()).status().expect("the gateway runs");
    assert_eq!(status.code(), Some(2));

    let home = Home::new();
    let mut first = home.command(&[]).stderr(full()).spawn().expect("the gateway runs");
    wait_until("it is ready", || run(&home, &["healthcheck"]).status.code() == Some(0));
    let second = home.command(&[]).stderr(full()).status().expect("the gateway runs");
    assert_eq!(second.code(), Some(3));
    let address = fs::read_to_string(home.path("db/aegisagent.db.lock")).expect("an address");
    let token = fs::read_to_string(home.path("db/admin.token")).expect("a token");
    let address = address.trim().parse().expect("an address");
    let answer = try_request(address, "GET", "/v1/agents", Some(token.trim()), None).expect("an answer");
    assert_eq!(answer.status, 200);
    let stopped = Command::new("kill").arg(first.id().to_string()).status().expect("kill runs");
    assert!(stopped.success());
    let mut ended = None;
    wait_until("it ends", || {
        ended = first.try_wait().expect("a child");
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    assert_left_clean(&home);
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_decisions_nor_the_stop() {
    for reads_in_the_end in [true, false] {
        let home = Home::new().with("RUST_LOG", "debug");
        let mut child = home.command(&[]).stderr(Stdio::piped()).spawn().expect("the gateway runs");
        let mut log = child.stderr.take().expect("a pipe");
        wait_until("it is ready", || run(&home, &["healthcheck"]).status.code() == Some(0));
        let address = fs::read_to_string(home.path("db/aegisagent.db.lock")).expect("an address");
        let token = fs::read_to_string(home.path("db/admin.token")).expect("a token");
        let (address, token) = (address.trim().parse().expect("an address"), token.trim());
        let ask =
            |path: &str| try_request(address, "GET", path, Some(token), None).expect("an answer").status;
        // One line per request: more than a pipe and the log's queue hold, 64 KiB each.
        for _ in 0..3000 {
            assert_eq!(ask("/v1/agents"), 200);
        }
        if reads_in_the_end {
            let mut read = String::new();
            let missing = "lines of the log are missing";
            let mut bytes = [0; 1 << 16];
            while !read.contains(missing) {
                let count = log.read(&mut bytes).expect("the log goes on");
                read.push_str(&String::from_utf8_lossy(&bytes[..count]));
                assert!(read.len() < 1 << 20, "no line is missing");
                assert_eq!(ask("/v1/agents"), 200);
            }
            let line = read.lines().find(|line| line.contains(missing)).expect("a line");
            assert!(line.split(' ').next().is_some_and(|count| count.parse::<u32>().is_ok()), "{line}");
            drop(log);
        }
        let stopped = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        assert!(stopped.success());
        let mut ended = None;
        wait_until("it ends", || {
            ended = child.try_wait().expect("a child");
            ended.is_some()
        });
        assert_eq!(ended.and_then(|status| status.code()), Some(0));
        assert_left_clean(&home);
    }
}

#[test]
fn a_gateway_started_by_nohup_outlives_its_terminal() {
    let home = Home::new();
    let mut command = Command::new("sh");
    let script = format!("trap '' HUP; exec {GATEWAY}");
    command.args(["-c", &script]).current_dir(home.path("")).env("AEGIS_BIND_ADDR", "127.0.0.1:0");
    let log = home.path("log");
    command.stderr(fs::File::create(&log).expect("a log")).stdin(Stdio::null());
    let mut child = command.spawn().expect("it runs");
    let signal = |name: &str| {
        let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    };
    let log = || fs::read_to_string(&log).expect("a log");
    wait_until("it listens", || log().contains(" listens on "));
    signal("HUP");
    signal("TERM");
    assert!(child.wait().expect("ended").success());
    assert!(log().contains("stopping on signal 15"), "{}", log());
}
