//! The table of settings, on which parsing, the help text and the README are based.

/// An environment variable that the gateway reads.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name.
    pub name: &'static str,
    /// The value if the variable is unset or empty; empty if there is no default.
    pub default: &'static str,
    /// A short description.
    pub help: &'static str,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help }
}

/// Every setting, in the order of the README's table.
pub const SETTINGS: &[Setting] = &[
    setting("AEGIS_BIND_ADDR", "127.0.0.1:8080", "address and port to listen on"),
    setting("AEGIS_DB_PATH", "db/aegisagent.db", "the database"),
    setting("AEGIS_BACKUP_DIR", "backups", "where backups are written"),
    setting("AEGIS_ADMIN_TOKEN", "", "the operator's token"),
    setting(
        "AEGIS_ADMIN_TOKEN_FILE",
        "",
        "a file that holds the token; default: admin.token beside the database",
    ),
    setting("AEGIS_WORKERS", "16", "threads that handle requests"),
    setting("AEGIS_MAX_BODY_BYTES", "1048576", "largest request body in bytes"),
    setting("RUST_LOG", "info", "off, error, warn, info, debug, trace, or target=level pairs"),
    setting("AEGIS_APPROVAL_TTL_SECS", "1800", "how long an approval can be granted and used, in seconds"),
    setting(
        "AEGIS_AUTH_FAILURES_PER_MINUTE",
        "60",
        "requests without a valid token per address; 0: no limit",
    ),
    setting("AEGIS_AUTHORIZE_PER_SECOND", "0", "authorizations per agent; 0: no limit"),
    setting("AEGIS_PRE_MIGRATION_BACKUP", "on", "on or off: take a backup before a schema migration"),
    setting(
        "AEGIS_ACCEPT_ROLLBACK",
        "",
        "hash of the head to continue from, or empty, if startup was refused",
    ),
    setting("AEGIS_WAL_CHOICE", "", "replay:ID or set-aside:ID, if startup was refused because of a log"),
];

/// Finds a setting by name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The table as help text: one line per setting, in columns.
pub fn help() -> String {
    let width = |of: fn(&Setting) -> &'static str| SETTINGS.iter().map(|setting| of(setting).len()).max();
    let name_width = width(|setting| setting.name).unwrap_or(0);
    let default_width = width(|setting| setting.default).unwrap_or(0);
    let line = |Setting { name, default, help }: &Setting| {
        format!("  {name:<name_width$}  {default:<default_width$}  {help}\n")
    };
    SETTINGS.iter().map(line).collect()
}
