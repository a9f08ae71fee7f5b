//! Settings: the only code that reads the environment.
//!
//! All settings are read once and checked at startup. An invalid one ends the program before
//! it touches anything, with a line that names the variable, its value and what was expected.
//! Secret values are never shown.

mod settings;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::domain::approval::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use crate::store::files;
use crate::store::guard::WalChoice;

use value::Value;

pub use settings::{SETTINGS, Setting, help};

/// Minimum length of the admin token, in characters.
pub const TOKEN_CHARS_MIN: usize = 16;
/// Maximum length of the admin token, in characters.
pub const TOKEN_CHARS_MAX: usize = 512;

/// Every setting, checked.
#[derive(Clone)]
pub struct Config {
    /// `AEGIS_BIND_ADDR`: where to listen; port 0 picks a free port.
    pub bind_addr: SocketAddr,
    /// `AEGIS_DB_PATH`: the database file.
    pub db_path: PathBuf,
    /// `AEGIS_BACKUP_DIR`: where backups are written.
    pub backup_dir: PathBuf,
    /// `AEGIS_ADMIN_TOKEN`, `AEGIS_ADMIN_TOKEN_FILE`, or the file beside the database.
    pub admin_token: AdminToken,
    /// `AEGIS_WORKERS`: number of threads that handle requests.
    pub workers: usize,
    /// `AEGIS_MAX_BODY_BYTES`: largest request body, in bytes.
    pub body_bytes_max: usize,
    /// `AEGIS_AUTH_FAILURES_PER_MINUTE`: requests without a valid token from one address; 0
    /// means no limit.
    pub auth_failures_per_minute: u32,
    /// `AEGIS_AUTHORIZE_PER_SECOND`: authorizations per agent; 0 means no limit.
    pub authorize_per_second: u32,
    /// `AEGIS_APPROVAL_TTL_SECS`: how long an approval can be granted and used, counted from
    /// the decision that required it.
    pub approval_ttl_seconds: u32,
    /// `RUST_LOG`: what is logged.
    pub log_filter: String,
    /// `AEGIS_WAL_CHOICE`: the operator's answer if the guard cannot decide.
    pub wal_choice: Option<WalChoice>,
    /// `AEGIS_ACCEPT_ROLLBACK`: the hash of the head from which the operator chooses to
    /// continue although a backup has seen a later one.
    pub accept_rollback: Option<String>,
    /// `AEGIS_PRE_MIGRATION_BACKUP`: whether to take a backup before a schema migration.
    pub pre_migration_backup: bool,
    /// `NOTIFY_SOCKET`, set by a service manager that waits for a readiness notification.
    pub notify_socket: Option<OsString>,
    /// Variables that look like settings but are unknown.
    pub unknown: Vec<String>,
}

/// Where the operator's token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// Given by a setting.
    Given(String),
    /// Kept in this file, which is created on first start.
    Kept(PathBuf),
}

/// A setting with an invalid value.
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

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("AEGIS_") || settings::find(name).is_some() {
                variables.insert(name.to_owned(), value.into_string().or_else(|_| not_utf8(name))?);
            }
        }
        let notify_socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Ok(Config { notify_socket, ..Self::from_variables(&variables)? })
    }

    /// Checks the given variables; an empty value counts as unset.
    pub fn from_variables(variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let get = |name| value_of(name, variables);
        let find = |name| Some(get(name)).filter(|value| !value.text.is_empty());
        let db_path = get("AEGIS_DB_PATH").file()?;
        Ok(Config {
            bind_addr: get("AEGIS_BIND_ADDR").address()?,
            backup_dir: get("AEGIS_BACKUP_DIR").folder()?,
            admin_token: admin_token(find("AEGIS_ADMIN_TOKEN"), find("AEGIS_ADMIN_TOKEN_FILE"), &db_path)?,
            db_path,
            workers: get("AEGIS_WORKERS").number(1, 256)?,
            body_bytes_max: get("AEGIS_MAX_BODY_BYTES").number(1 << 10, 1 << 26)?,
            auth_failures_per_minute: get("AEGIS_AUTH_FAILURES_PER_MINUTE").rate()?,
            authorize_per_second: get("AEGIS_AUTHORIZE_PER_SECOND").rate()?,
            approval_ttl_seconds: get("AEGIS_APPROVAL_TTL_SECS").number(TTL_SECONDS_MIN, TTL_SECONDS_MAX)?,
            log_filter: get("RUST_LOG").log_filter()?,
            wal_choice: find("AEGIS_WAL_CHOICE").map(Value::wal_choice).transpose()?,
            accept_rollback: find("AEGIS_ACCEPT_ROLLBACK").map(Value::head).transpose()?,
            pre_migration_backup: get("AEGIS_PRE_MIGRATION_BACKUP").is_on()?,
            notify_socket: None,
            unknown: variables.keys().filter(|name| settings::find(name).is_none()).cloned().collect(),
        })
    }
}

fn value_of<'a>(name: &str, variables: &'a BTreeMap<String, String>) -> Value<'a> {
    let Setting { name, default, .. } =
        settings::find(name).expect("every name read is in the table of settings");
    let given = variables.get(*name).map(String::as_str).filter(|text| !text.is_empty());
    Value { name, text: given.unwrap_or(default) }
}

/// Returns an error if this is a setting. Of other variables only the name is used.
fn not_utf8(name: &str) -> Result<String, ConfigError> {
    match settings::find(name) {
        Some(Setting { name, .. }) => Err(Value { name, text: "(not UTF-8)" }.expected("text in UTF-8")),
        None => Ok(String::new()),
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

/// Checks that a token fits into a header and cannot be guessed.
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
    // A limited token configured here by mistake would gain full rights.
    if token.starts_with(crate::domain::operator::TOKEN_PREFIX) {
        return Err("a token that was not created by the gateway".to_owned());
    }
    Ok(())
}

/// Enough for a token and whatever an editor may append.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Reads a token file: one line, without its line ending.
pub fn read_token_file(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(files::read_small(path, TOKEN_FILE_BYTES_MAX)?);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn admin_token(
    given: Option<Value<'_>>,
    file: Option<Value<'_>>,
    db_path: &Path,
) -> Result<AdminToken, ConfigError> {
    if let Some(Value { name, text }) = given {
        let shown = format!("({} characters)", text.chars().count());
        check_token(text).map_err(|expected| Value { name, text: &shown }.expected(&expected))?;
        return Ok(AdminToken::Given(text.to_owned()));
    }
    if let Some(file) = file {
        let token = read_token_file(Path::new(file.text))
            .map_err(|error| file.expected(&format!("a readable file that holds a token ({error})")))?;
        check_token(&token).map_err(|expected| file.expected(&format!("a file that holds {expected}")))?;
        return Ok(AdminToken::Given(token));
    }
    Ok(AdminToken::Kept(db_path.with_file_name("admin.token")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::approval::TTL_SECONDS_DEFAULT;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Config::from_variables(&pairs.iter().map(own).collect())
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let config = read(&[]).expect("defaults");
        assert!(config.admin_token == AdminToken::Kept(PathBuf::from("db/admin.token")));
        assert_eq!(config.approval_ttl_seconds, TTL_SECONDS_DEFAULT);
        let shown = config.to_string();
        for Setting { name, default, .. } in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            assert!(shown.lines().any(|line| line == format!("{name}={default}")), "{name}: {shown}");
        }
    }

    #[test]
    fn every_setting_is_read() {
        for Setting { name, .. } in SETTINGS {
            let error = read(&[(name, "\0")]).expect_err(name);
            assert_eq!(&error.name, name);
        }
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
