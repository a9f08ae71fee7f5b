//! A gateway in a temporary folder, and a client for it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::domain::canon::Hash;
use aegis_gateway::domain::time::Timestamp;
use aegis_gateway::service;
use aegis_gateway::startup::{self, Options};
use aegis_gateway::store::guard::Guard;

pub const GATEWAY: &str = env!("CARGO_BIN_EXE_aegis-gateway");
pub const VERIFIER: &str = env!("CARGO_BIN_EXE_aegis-verify-receipts");

/// How long a test waits for anything on a busy machine before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take: a backup's depends on the size of the database.
const ANSWER_MAX: Duration = Duration::from_secs(300);

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A folder with `db/` and `backups/`, on which gateways run one after another.
pub struct Home {
    folder: TempDir,
    settings: Vec<(String, String)>,
}

impl Home {
    pub fn new() -> Self {
        Home { folder: TempDir::new().expect("a folder"), settings: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn database(&self) -> PathBuf {
        self.path("db/aegisagent.db")
    }

    /// The gateway's command with a clean environment, a free port, and this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GATEWAY);
        command.args(arguments).current_dir(self.folder.path()).env_clear();
        command.env("AEGIS_BIND_ADDR", "127.0.0.1:0");
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a gateway and waits until it listens.
    pub fn start(&self) -> Gateway {
        let log = self.path("log");
        let file = fs::File::create(&log).expect("a log");
        let child = self.command(&[]).stderr(file).stdin(Stdio::null()).spawn().expect("the gateway runs");
        let mut gateway = Gateway { child, log, address: None, token: String::new() };
        wait_until("the gateway listens", || gateway.look_for_address());
        let kept = fs::read_to_string(self.path("db/admin.token")).unwrap_or_default();
        let given = self
            .settings
            .iter()
            .find(|(name, _)| name == "AEGIS_ADMIN_TOKEN")
            .map(|(_, value)| value.clone());
        gateway.token = given.unwrap_or_else(|| kept.trim().to_owned());
        gateway
    }

    /// Starts a gateway that must refuse to start; returns its exit code and its one line.
    pub fn start_refused(&self) -> (i32, String) {
        let output = self.command(&[]).output().expect("the gateway runs");
        let text = String::from_utf8(output.stderr).expect("text");
        let line = text.lines().filter(|line| line.starts_with("aegis-gateway: ")).collect::<Vec<_>>();
        assert_eq!(line.len(), 1, "one line: {text}");
        (output.status.code().expect("an exit code"), line[0].to_owned())
    }

    /// Every file below `relative` with its content, for before-and-after comparisons.
    pub fn snapshot(&self, relative: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        collect(&self.path(relative), &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.is_file() {
            let content = fs::read(&path).expect("readable");
            found.push((path, content));
        }
    }
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    child: Child,
    log: PathBuf,
    address: Option<SocketAddr>,
    pub token: String,
}

impl Gateway {
    fn look_for_address(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("the gateway ended with {status}: {}", self.log());
        }
        let log = self.log();
        let address = log.split(" listens on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        self.address = address.and_then(|address| address.parse().ok());
        self.address.is_some()
    }

    pub fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits until the log, which is written aside, says this.
    pub fn logs(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.child.wait().expect("ended").code().expect("not killed by the signal")
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// A request by the operator.
    pub fn operator(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.request(method, path, Some(&self.token), body)
    }

    pub fn request(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string);
        try_request(self.address(), method, path, token, body.as_deref()).expect("an answer")
    }

    /// A client of one agent, registered with a tool `t` whose action `read` reads
    /// and whose action `write` mutates.
    pub fn agent(&self, key: &str) -> Agent {
        let tool = json!({"skill_key": "t", "name": "t", "type": "test", "actions": [
            {"action_key": "read", "risk": "low", "mutates_state": false, "approval_required": false, "default_decision": "policy"},
            {"action_key": "write", "risk": "low", "mutates_state": true, "approval_required": false, "default_decision": "policy"},
        ]});
        assert_eq!(self.operator("POST", "/v1/tools", Some(&tool)).status, 200);
        let body = json!({"agent_key": key, "name": key, "environment": "production", "risk_tier": "low"});
        let answer = self.operator("POST", "/v1/agents/register", Some(&body));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let text = |name: &str| answer.body[name].as_str().expect(name).to_owned();
        Agent { address: self.address(), id: text("id"), token: text("agent_token") }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may already have ended.
        if self.child.try_wait().expect("a child").is_none() {
            self.child.kill().expect("killed");
            self.child.wait().expect("ended");
        }
    }
}

/// A client for one agent.
#[derive(Clone)]
pub struct Agent {
    pub address: SocketAddr,
    pub id: String,
    pub token: String,
}

impl Agent {
    pub fn ask(&self, action: &str, source_trust: &str) -> Answer {
        self.try_ask(action, source_trust).expect("an answer")
    }

    /// The same, for when the gateway may die in the meantime.
    pub fn try_ask(&self, action: &str, source_trust: &str) -> std::io::Result<Answer> {
        let body = json!({"tool": "t", "action": action, "resource": "r", "mutates_state": action == "write",
                          "parameters": {"amount": 1.5}, "source_trust": source_trust});
        try_request(self.address, "POST", "/v1/authorize", Some(&self.token), Some(&body.to_string()))
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Value,
    pub raw: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request on its own connection.
pub fn try_request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&str>,
) -> std::io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(token) = token {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    raw_request(address, format!("{head}\r\n{}", body.unwrap_or("")).as_bytes())
}

/// Sends bytes and reads one answer until the server closes.
pub fn raw_request(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(bytes)?;
    read_answer(stream)
}

/// Reads one answer until the server closes.
pub fn read_answer(mut stream: TcpStream) -> std::io::Result<Answer> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let cut_off = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(cut_off)?;
    let headers = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut_off)?;
    let raw = answer[end + 4..].to_vec();
    let length = headers.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    if length.is_some_and(|length| length.parse() != Ok(raw.len())) {
        return Err(cut_off());
    }
    let body = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    Ok(Answer { status, headers, body, raw })
}

/// Runs the verifier.
pub fn verify(arguments: &[&str]) -> Output {
    Command::new(VERIFIER).args(arguments).env_clear().output().expect("the verifier runs")
}

/// Sends bytes and reads everything until the server closes, for cases with no body or with
/// more than one answer.
pub fn raw_bytes(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

/// The answer is an error in the contract's format, with nothing else in it.
pub fn assert_failure(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.body.as_object().expect("an error body");
    let fixed =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status});
    for (name, value) in fixed.as_object().expect("an object") {
        assert_eq!(body.get(name), Some(value), "{name}: {answer:?}");
    }
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer:?}");
    let known = ["kind", "apiVersion", "status", "reason", "code", "message", "details"];
    assert!(body.keys().all(|name| known.contains(&name.as_str())), "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/json"), "{answer:?}");
}

/// Lowercase hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Home {
    /// Runs SQL on the database of a stopped gateway.
    pub fn sql(&self, statements: &str) {
        let database = rusqlite::Connection::open(self.database()).expect("a database");
        database.execute_batch(statements).expect(statements);
    }

    /// Starts a gateway from a shell that has run `prelude`, such as `umask` or `ulimit`.
    pub fn start_after(&self, prelude: &str) -> Gateway {
        let log = self.path("log");
        let file = fs::File::create(&log).expect("a log");
        let plain = self.command(&[]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{prelude}; exec \"$0\""), GATEWAY]).env_clear();
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(self.folder.path()).stderr(file).stdin(Stdio::null());
        let child = shell.spawn().expect("the shell runs");
        let mut gateway = Gateway { child, log, address: None, token: String::new() };
        wait_until("the gateway listens", || gateway.look_for_address());
        gateway.token = fs::read_to_string(self.path("db/admin.token")).expect("a token").trim().to_owned();
        gateway
    }
}

impl Gateway {
    /// Sends a body to `/v1/authorize` unchanged; returns the answer.
    pub fn authorize(&self, token: &str, body: &str) -> Answer {
        try_request(self.address(), "POST", "/v1/authorize", Some(token), Some(body)).expect("an answer")
    }

    /// Registers an agent with additional registration members.
    pub fn register(&self, key: &str, more: &Value) -> Agent {
        let mut body =
            json!({"agent_key": key, "name": key, "environment": "production", "risk_tier": "low"});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = self.operator("POST", "/v1/agents/register", Some(&body));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let text = |name: &str| answer.body[name].as_str().expect(name).to_owned();
        Agent { address: self.address(), id: text("id"), token: text("agent_token") }
    }

    /// Registers one action of a tool.
    pub fn tool(&self, tool: &str, action: &str, more: &Value) {
        let mut described = json!({"action_key": action, "risk": "low", "mutates_state": false,
                                   "approval_required": false, "default_decision": "policy"});
        for (name, value) in more.as_object().expect("an object") {
            described[name] = value.clone();
        }
        let body = json!({"skill_key": tool, "name": tool, "type": "test", "actions": [described]});
        let answer = self.operator("POST", "/v1/tools", Some(&body));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The body of a GET by the operator, which must succeed.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.operator("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// The complete answer to a HEAD.
    pub fn head(&self, path: &str, token: &str) -> Answer {
        let host = self.address();
        let head = format!(
            "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let headers = String::from_utf8(raw_bytes(host, head.as_bytes())).expect("text");
        assert!(headers.ends_with("\r\n\r\n"), "no body: {headers}");
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, headers, body: Value::Null, raw: Vec::new() }
    }

    /// Waits for a signalled process to end; returns its exit code, or -1 if a signal ended it.
    pub fn wait(mut self) -> i32 {
        let mut ended = None;
        wait_until("the gateway ends", || {
            ended = self.child.try_wait().expect("a child");
            ended.is_some()
        });
        ended.and_then(|status| status.code()).unwrap_or(-1)
    }
}

// For tests of the services without HTTP.

impl Home {
    /// The services on the database, and its lock, which must outlive the open store.
    pub fn services(&self) -> (service::Gateway, Guard) {
        let (database, backups) = (self.database(), self.path("backups"));
        let started = startup::start(&Options::new(&database, &backups), &SystemClock).expect("a database");
        let (clock, operator) = (Arc::new(SystemClock), Hash::of(b"configured"));
        (service::Gateway::new(started.store, clock, started.backups, operator), started.guard)
    }
}

// For tests of the database's files.

impl Home {
    /// Sets a setting for gateways started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a setting.
    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(known, _)| known != name);
    }

    /// The database's side file with this suffix.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.path(&format!("db/aegisagent.db{suffix}"))
    }

    /// `snapshot("db")`.
    pub fn database_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.snapshot("db")
    }

    /// Starts a gateway that must refuse to start: exit code 3, exactly one line, and every file
    /// unchanged. Returns the line.
    pub fn refused(&self) -> String {
        let before = self.database_files();
        let (code, text) = self.run_to_end(self.command(&[]));
        assert_eq!(code, Some(3), "{text}");
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        assert!(text.starts_with("aegis-gateway: "), "{text}");
        let after = self.database_files();
        let names =
            |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after), "{text}");
        for ((path, before), (_, after)) in before.iter().zip(&after) {
            assert!(before == after, "{} was changed by: {text}", path.display());
        }
        text.trim_end().to_owned()
    }

    /// Runs a command that must terminate; returns its exit code and standard error.
    pub fn run_to_end(&self, mut command: Command) -> (Option<i32>, String) {
        let log = self.path("refusal");
        let file = fs::File::create(&log).expect("a log");
        let mut child = command.stdin(Stdio::null()).stderr(file).spawn().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("killed");
                panic!("it does not end: {}", fs::read_to_string(&log).expect("a log"));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        };
        (status.code(), fs::read_to_string(&log).expect("a log"))
    }
}

impl Gateway {
    /// Waits for it to end; returns its exit code, or `None` after a signal.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("ended").code()
    }

    /// Takes a backup with this name; returns its path.
    pub fn backup(&self, home: &Home, name: &str) -> PathBuf {
        let answer = self.operator("POST", "/v1/admin/backup", Some(&json!({"filename": name})));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        home.path("backups").join(name)
    }
}

/// The full content of a database: every table's definition and rows. Read from a copy of the
/// file and its log, so that no side file is touched.
pub fn dump(database: &Path) -> String {
    dump_after(database, |_| {})
}

/// The same of a restored database, without the one receipt and the one audit event that record
/// the restore: the content of the backup.
pub fn dump_before_restore(database: &Path) -> String {
    dump_after(database, take_back_restore)
}

fn take_back_restore(connection: &rusqlite::Connection) {
    const SELECT: &str =
        "SELECT seq, event_id, tool, decision_id, prev_receipt_hash FROM receipts ORDER BY seq DESC LIMIT 1";
    type Last = (i64, String, String, Option<String>, String);
    let (seq, id, tool, decision, before): Last = connection
        .query_row(SELECT, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .expect("a receipt");
    assert_eq!((tool.as_str(), decision), ("restore", None), "the newest receipt records the restore");
    let mut triggers =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").expect("a schema");
    let triggers = triggers.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("triggers");
    let triggers = triggers.collect::<Result<Vec<(String, String)>, _>>().expect("triggers");
    for (name, _) in &triggers {
        connection.execute_batch(&format!("DROP TRIGGER {name}")).expect("dropped");
    }
    let delete =
        |sql, value: &dyn rusqlite::ToSql| assert_eq!(connection.execute(sql, [value]), Ok(1), "{sql}");
    delete("DELETE FROM receipts WHERE seq = ?1", &seq);
    delete("DELETE FROM audit_events WHERE event_type = 'restore' AND resource = ?1", &id);
    connection
        .execute("UPDATE chain SET head_seq = ?1, head_hash = ?2", (seq - 1, before))
        .expect("taken back");
    for (_, sql) in &triggers {
        connection.execute_batch(sql).expect("made again");
    }
}

fn dump_after(database: &Path, change: impl FnOnce(&rusqlite::Connection)) -> String {
    use std::fmt::Write as _;
    let folder = TempDir::new().expect("a folder");
    let copy = folder.path().join("copy.db");
    fs::copy(database, &copy).expect("a copy");
    let wal = PathBuf::from(format!("{}-wal", database.display()));
    if wal.exists() {
        fs::copy(wal, folder.path().join("copy.db-wal")).expect("a copy");
    }
    let connection = rusqlite::Connection::open(&copy).expect("it opens");
    change(&connection);
    let mut text = String::new();
    let mut tables = connection
        .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name")
        .expect("a schema");
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("a schema");
    for (name, sql) in tables.collect::<Result<Vec<(String, String)>, _>>().expect("a schema") {
        writeln!(text, "{name}: {sql}").expect("text");
        if !sql.starts_with("CREATE TABLE") {
            continue;
        }
        let mut rows = connection.prepare(&format!("SELECT * FROM \"{name}\"")).expect("a table");
        let columns = rows.column_count();
        let mut rows = rows.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            for column in 0..columns {
                match row.get_ref(column).expect("a value") {
                    rusqlite::types::ValueRef::Text(bytes) => {
                        write!(text, "|{:?}", String::from_utf8_lossy(bytes)).expect("text");
                    }
                    other => write!(text, "|{other:?}").expect("text"),
                }
            }
            text.push('\n');
        }
    }
    text
}

/// The ids of every recorded decision, read as [`dump`] does.
pub fn decision_ids(database: &Path) -> std::collections::BTreeSet<String> {
    let folder = TempDir::new().expect("a folder");
    let copy = folder.path().join("copy.db");
    fs::copy(database, &copy).expect("a copy");
    let wal = PathBuf::from(format!("{}-wal", database.display()));
    if wal.exists() {
        fs::copy(wal, folder.path().join("copy.db-wal")).expect("a copy");
    }
    let connection = rusqlite::Connection::open(&copy).expect("it opens");
    let mut ids = connection.prepare("SELECT id FROM decisions").expect("a table");
    ids.query_map([], |row| row.get(0)).expect("rows").collect::<Result<_, _>>().expect("text")
}

/// Requests `count` decisions; returns their ids.
pub fn decide(agent: &Agent, count: usize) -> Vec<String> {
    let ask = |_| {
        let answer = agent.ask("read", "trusted_internal_signed");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["decision_id"].as_str().expect("a decision's id").to_owned()
    };
    (0..count).map(ask).collect()
}

/// Verifies a database with the command; it must be intact. Returns its number of receipts.
pub fn verified(database: &Path) -> u64 {
    let output = verify(&["--json", database.to_str().expect("text")]);
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    serde_json::from_str::<Value>(&text).expect("JSON")["receipts"].as_u64().expect("a count")
}

/// Compiles the fault injection library; returns its path.
pub fn faults(home: &Home) -> String {
    let library = home.path("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults.c");
    let mut cc = Command::new("cc");
    let cc = cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    assert!(cc.arg("-ldl").status().expect("a C compiler").success());
    library.to_str().expect("text").to_owned()
}

/// A small disk; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    pub fn mount(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).expect("a folder");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output();
        match output {
            Ok(output) if output.status.success() => Some(SmallDisk(at)),
            other => {
                println!("not tested, a disk cannot be mounted here: {other:?}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("mount runs");
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.0).status();
        let unmounted = status.is_ok_and(|status| status.success());
        assert!(unmounted || std::thread::panicking(), "{} is still mounted", self.0.display());
    }
}

/// A clock that is set by hand, in seconds.
#[derive(Debug, Default)]
pub struct Hand(AtomicI64);

impl Hand {
    pub fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0).plus_seconds(self.0.load(Ordering::Relaxed))
    }
}
