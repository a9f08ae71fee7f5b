//! Settings: the only reader of the environment.
//!
//! Read once, checked whole at start; a bad one ends the program before anything
//! is touched, with a line that names the variable, the value and what is expected.
//! A secret's value is never shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::domain::approval::{TTL_SECONDS_DEFAULT, TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use crate::domain::canon::Hash;
use crate::domain::receipt::EMPTY_HEAD;
use crate::store::files;
use crate::store::guard::WalChoice;

/// Shortest admin token that is accepted, in characters.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Longest admin token that is accepted, in characters.
pub const TOKEN_CHARS_MAX: usize = 512;

/// Every setting, checked.
#[derive(Clone)]
pub struct Config {
    /// `AEGIS_BIND_ADDR`: where to listen; port 0 takes any free one.
    pub bind_addr: SocketAddr,
    /// `AEGIS_DB_PATH`: the one database file.
    pub db_path: PathBuf,
    /// `AEGIS_BACKUP_DIR`: where backups are written.
    pub backup_dir: PathBuf,
    /// `AEGIS_ADMIN_TOKEN`, `AEGIS_ADMIN_TOKEN_FILE`, or the file beside the database.
    pub admin_token: AdminToken,
    /// `AEGIS_WORKERS`: how many threads handle requests.
    pub workers: usize,
    /// `AEGIS_MAX_BODY_BYTES`: largest request body.
    pub body_bytes_max: usize,
    /// `AEGIS_AUTH_FAILURES_PER_MINUTE`: requests without a valid token from one address; 0 is
    /// no limit.
    pub auth_failures_per_minute: u32,
    /// `AEGIS_AUTHORIZE_PER_SECOND`: authorizations of one agent; 0 is no limit.
    pub authorize_per_second: u32,
    /// `AEGIS_APPROVAL_TTL_SECS`: how long an approval can be given and used, from the
    /// decision that asked for it.
    pub approval_ttl_seconds: u32,
    /// `RUST_LOG`: what is logged.
    pub log_filter: String,
    /// `AEGIS_WAL_CHOICE`: the operator's answer where the guard cannot decide.
    pub wal_choice: Option<WalChoice>,
    /// `AEGIS_ACCEPT_ROLLBACK`: the hash of the head that the operator goes on from,
    /// although a backup has seen a later one.
    pub accept_rollback: Option<String>,
    /// `AEGIS_PRE_MIGRATION_BACKUP`: whether a backup precedes the change of a schema.
    pub pre_migration_backup: bool,
    /// `NOTIFY_SOCKET`, set by a service manager that waits to be told of readiness.
    pub notify_socket: Option<OsString>,
    /// Variables that look like settings and are none.
    pub unknown: Vec<String>,
}

/// Where the operator's token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// Given by a setting.
    Given(String),
    /// Kept in this file, made at first start.
    Kept(PathBuf),
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    name: &'static str,
    value: String,
    expected: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: expected {}", self.name, self.value, self.expected)
    }
}

impl std::error::Error for ConfigError {}

const NAMES: [&str; 13] = [
    "AEGIS_BIND_ADDR",
    "AEGIS_DB_PATH",
    "AEGIS_BACKUP_DIR",
    "AEGIS_ADMIN_TOKEN",
    "AEGIS_ADMIN_TOKEN_FILE",
    "AEGIS_WORKERS",
    "AEGIS_MAX_BODY_BYTES",
    "AEGIS_AUTH_FAILURES_PER_MINUTE",
    "AEGIS_AUTHORIZE_PER_SECOND",
    "AEGIS_APPROVAL_TTL_SECS",
    "AEGIS_WAL_CHOICE",
    "AEGIS_ACCEPT_ROLLBACK",
    "AEGIS_PRE_MIGRATION_BACKUP",
];

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("AEGIS_") || name == "RUST_LOG" {
                variables.insert(name.to_owned(), value.into_string().or_else(|_| not_utf8(name))?);
            }
        }
        let notify_socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Ok(Config { notify_socket, ..Self::from_variables(&variables)? })
    }

    /// Checks the given variables; an empty value counts as not set.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let get = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let db_path = path("AEGIS_DB_PATH", get("AEGIS_DB_PATH").unwrap_or("db/aegisagent.db"))?;
        let ends_as_folder = db_path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if db_path.file_name().is_none() || db_path.is_dir() || ends_as_folder {
            return Err(bad("AEGIS_DB_PATH", &db_path.to_string_lossy(), "the path of a file"));
        }
        let backup_dir = path("AEGIS_BACKUP_DIR", get("AEGIS_BACKUP_DIR").unwrap_or("backups"))?;
        if !can_be_folder(&backup_dir) {
            let shown = backup_dir.to_string_lossy();
            return Err(bad("AEGIS_BACKUP_DIR", &shown, "the path of a folder, there or to be made"));
        }
        let known = |name: &str| NAMES.contains(&name) || name == "RUST_LOG";
        Ok(Config {
            bind_addr: bind_addr(get("AEGIS_BIND_ADDR").unwrap_or("127.0.0.1:8080"))?,
            backup_dir,
            admin_token: admin_token(get("AEGIS_ADMIN_TOKEN"), get("AEGIS_ADMIN_TOKEN_FILE"), &db_path)?,
            db_path,
            workers: number("AEGIS_WORKERS", get("AEGIS_WORKERS"), 16, 1, 256)?,
            body_bytes_max: number(
                "AEGIS_MAX_BODY_BYTES",
                get("AEGIS_MAX_BODY_BYTES"),
                1 << 20,
                1 << 10,
                1 << 26,
            )?,
            auth_failures_per_minute: rate(
                "AEGIS_AUTH_FAILURES_PER_MINUTE",
                get("AEGIS_AUTH_FAILURES_PER_MINUTE"),
                60,
            )?,
            authorize_per_second: rate("AEGIS_AUTHORIZE_PER_SECOND", get("AEGIS_AUTHORIZE_PER_SECOND"), 0)?,
            approval_ttl_seconds: number(
                "AEGIS_APPROVAL_TTL_SECS",
                get("AEGIS_APPROVAL_TTL_SECS"),
                TTL_SECONDS_DEFAULT,
                TTL_SECONDS_MIN,
                TTL_SECONDS_MAX,
            )?,
            log_filter: log_filter(get("RUST_LOG").unwrap_or("info"))?,
            wal_choice: get("AEGIS_WAL_CHOICE").map(wal_choice).transpose()?,
            accept_rollback: get("AEGIS_ACCEPT_ROLLBACK").map(accept_rollback).transpose()?,
            pre_migration_backup: switch("AEGIS_PRE_MIGRATION_BACKUP", get("AEGIS_PRE_MIGRATION_BACKUP"))?,
            notify_socket: None,
            unknown: variables.keys().filter(|name| !known(name)).cloned().collect(),
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminToken::Given(_) => f.write_str("given"),
            AdminToken::Kept(path) => write!(f, "kept in {}", path.display()),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "AEGIS_BIND_ADDR={}", self.bind_addr)?;
        writeln!(f, "AEGIS_DB_PATH={}", self.db_path.display())?;
        writeln!(f, "AEGIS_BACKUP_DIR={}", self.backup_dir.display())?;
        writeln!(f, "admin token: {:?}", self.admin_token)?;
        writeln!(f, "AEGIS_WORKERS={}", self.workers)?;
        writeln!(f, "AEGIS_MAX_BODY_BYTES={}", self.body_bytes_max)?;
        writeln!(f, "AEGIS_AUTH_FAILURES_PER_MINUTE={}", self.auth_failures_per_minute)?;
        writeln!(f, "AEGIS_AUTHORIZE_PER_SECOND={}", self.authorize_per_second)?;
        writeln!(f, "AEGIS_APPROVAL_TTL_SECS={}", self.approval_ttl_seconds)?;
        if let Some(choice) = self.wal_choice {
            let word = if choice.replay { "replay" } else { "set-aside" };
            writeln!(f, "AEGIS_WAL_CHOICE={word}:{:016x}", choice.log_id)?;
        }
        if let Some(head) = &self.accept_rollback {
            writeln!(f, "AEGIS_ACCEPT_ROLLBACK={head}")?;
        }
        let word = if self.pre_migration_backup { "on" } else { "off" };
        writeln!(f, "AEGIS_PRE_MIGRATION_BACKUP={word}")?;
        write!(f, "RUST_LOG={}", self.log_filter)
    }
}

/// Checks a token's text: what a header can carry and a guess cannot find.
pub fn check_token(token: &str) -> Result<(), String> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token of visible ASCII characters without spaces".to_owned());
    }
    if !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len()) {
        return Err(format!("a token of {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters"));
    }
    if token.starts_with(crate::domain::agent::TOKEN_PREFIX) {
        return Err("a token that does not look like an agent's".to_owned());
    }
    // Configured by mistake, a token of a small scope would become the one that may do all.
    if token.starts_with(crate::domain::operator::TOKEN_PREFIX) {
        return Err("a token that the gateway did not make".to_owned());
    }
    Ok(())
}

/// A token, and what an editor may leave after it.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Reads a token file: one line, its end not part of the token.
pub fn read_token_file(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(files::read_small(path, TOKEN_FILE_BYTES_MAX)?);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn admin_token(given: Option<&str>, file: Option<&str>, db_path: &Path) -> Result<AdminToken, ConfigError> {
    if let Some(token) = given {
        let shown = format!("({} characters)", token.chars().count());
        check_token(token).map_err(|expected| bad("AEGIS_ADMIN_TOKEN", &shown, &expected))?;
        return Ok(AdminToken::Given(token.to_owned()));
    }
    if let Some(file) = file {
        let fail = |expected: String| bad("AEGIS_ADMIN_TOKEN_FILE", file, &expected);
        let token = read_token_file(Path::new(file))
            .map_err(|error| fail(format!("a readable file that holds a token ({error})")))?;
        check_token(&token).map_err(|expected| fail(format!("a file that holds {expected}")))?;
        return Ok(AdminToken::Given(token));
    }
    Ok(AdminToken::Kept(db_path.with_file_name("admin.token")))
}

fn bind_addr(value: &str) -> Result<SocketAddr, ConfigError> {
    let numeric =
        value.strip_prefix("localhost:").map_or_else(|| value.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric
        .parse()
        .map_err(|_| bad("AEGIS_BIND_ADDR", value, "an IP address and a port, such as 127.0.0.1:8080"))
}

fn path(name: &'static str, value: &str) -> Result<PathBuf, ConfigError> {
    // SQLite reads these as something else than a file.
    if value.starts_with("file:") || value.starts_with(':') || value.contains('\0') {
        return Err(bad(name, value, "a plain path"));
    }
    Ok(PathBuf::from(value))
}

/// Whether nothing but folders stands in the way of making it.
fn can_be_folder(path: &Path) -> bool {
    path.ancestors().find(|part| part.exists()).is_none_or(Path::is_dir)
}

/// 0 to a million.
fn rate(name: &'static str, value: Option<&str>, default: u32) -> Result<u32, ConfigError> {
    number(name, value, default, 0, 1_000_000)
}

fn number<N: Copy + FromStr + PartialOrd + fmt::Display>(
    name: &'static str,
    value: Option<&str>,
    default: N,
    min: N,
    max: N,
) -> Result<N, ConfigError> {
    let Some(text) = value else { return Ok(default) };
    let parsed = text.parse().ok().filter(|number| (min..=max).contains(number));
    parsed.ok_or_else(|| bad(name, text, &format!("a whole number from {min} to {max}")))
}

fn log_filter(value: &str) -> Result<String, ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let is_directive = |part: &str| match part.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(part),
    };
    if value.split(',').all(|part| is_directive(part.trim())) {
        return Ok(value.to_owned());
    }
    Err(bad("RUST_LOG", value, "off, error, warn, info, debug or trace, or target=level pairs"))
}

fn wal_choice(value: &str) -> Result<WalChoice, ConfigError> {
    let parsed = value.split_once(':').and_then(|(word, id)| {
        let log_id = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16)?;
        match word {
            "replay" => Some(WalChoice { replay: true, log_id }),
            "set-aside" => Some(WalChoice { replay: false, log_id }),
            _ => None,
        }
    });
    parsed.ok_or_else(|| {
        bad("AEGIS_WAL_CHOICE", value, "replay:ID or set-aside:ID, with the ID that the refusal named")
    })
}

fn accept_rollback(value: &str) -> Result<String, ConfigError> {
    if value != EMPTY_HEAD && Hash::parse(value).is_none() {
        return Err(bad("AEGIS_ACCEPT_ROLLBACK", value, "the hash of the head that the refusal named"));
    }
    Ok(value.to_owned())
}

/// On unless it is turned off.
fn switch(name: &'static str, value: Option<&str>) -> Result<bool, ConfigError> {
    match value {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => Err(bad(name, other, "on or off")),
    }
}

fn bad(name: &'static str, value: &str, expected: &str) -> ConfigError {
    ConfigError { name, value: format!("{value:?}"), expected: expected.to_owned() }
}

/// An error where a setting has such a value; of a variable that is none only the name counts.
fn not_utf8(name: &str) -> Result<String, ConfigError> {
    match NAMES.iter().chain(&["RUST_LOG"]).find(|known| **known == name) {
        Some(name) => Err(bad(name, "(not UTF-8)", "text in UTF-8")),
        None => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Config::from_variables(&pairs.iter().map(own).collect())
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = read(&[]).expect("defaults");
        assert_eq!(config.bind_addr.to_string(), "127.0.0.1:8080");
        assert_eq!(config.db_path, Path::new("db/aegisagent.db"));
        assert_eq!(config.backup_dir, Path::new("backups"));
        assert!(config.admin_token == AdminToken::Kept(PathBuf::from("db/admin.token")));
        assert_eq!(config.body_bytes_max, 1_048_576);
        assert_eq!((config.auth_failures_per_minute, config.authorize_per_second), (60, 0));
        assert_eq!(config.approval_ttl_seconds, 1800);
        assert_eq!(config.log_filter, "info");
    }

    #[test]
    fn a_bad_setting_is_named_with_its_value_and_what_is_expected() {
        for (name, value) in [
            ("AEGIS_BIND_ADDR", "8080"),
            ("AEGIS_BIND_ADDR", "127.0.0.1:99999"),
            ("AEGIS_DB_PATH", ":memory:"),
            ("AEGIS_DB_PATH", "file:x.db"),
            ("AEGIS_DB_PATH", "/"),
            ("AEGIS_BACKUP_DIR", "file:x"),
            ("AEGIS_ADMIN_TOKEN_FILE", "/does/not/exist"),
            ("AEGIS_WORKERS", "0"),
            ("AEGIS_WORKERS", "many"),
            ("AEGIS_MAX_BODY_BYTES", "-1"),
            ("AEGIS_AUTH_FAILURES_PER_MINUTE", "-1"),
            ("AEGIS_AUTHORIZE_PER_SECOND", "1000001"),
            ("AEGIS_APPROVAL_TTL_SECS", "0"),
            ("AEGIS_APPROVAL_TTL_SECS", "2592001"),
            ("AEGIS_APPROVAL_TTL_SECS", "30m"),
            ("RUST_LOG", "loud"),
            ("AEGIS_WAL_CHOICE", "replay"),
            ("AEGIS_ACCEPT_ROLLBACK", "yes"),
            ("AEGIS_PRE_MIGRATION_BACKUP", "no"),
        ] {
            let line = read(&[(name, value)]).expect_err(value).to_string();
            assert!(line.starts_with(name), "{line}");
            assert!(line.contains(value) && line.contains("expected"), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_bad_token_is_refused_and_never_shown() {
        for token in
            ["short", "has a space in the middle", "agent_tok_0123456789abcdef", "aegis_op_0123456789abcdef"]
        {
            let line = read(&[("AEGIS_ADMIN_TOKEN", token)]).expect_err(token).to_string();
            assert!(line.starts_with("AEGIS_ADMIN_TOKEN="), "{line}");
            assert!(!line.contains(token), "{line}");
        }
        let config = read(&[("AEGIS_ADMIN_TOKEN", "a-good-token-of-mine")]).expect("good");
        assert!(!format!("{config} {config:?}").contains("a-good-token"));
    }

    #[test]
    fn a_misspelt_setting_is_noticed() {
        let config = read(&[("AEGIS_BACKUPS_DIR", "x")]).expect("ignored");
        assert_eq!(config.unknown, ["AEGIS_BACKUPS_DIR"]);
    }
}
