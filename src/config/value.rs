//! Parses the text of a setting.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::domain::canon::Hash;
use crate::domain::receipt::EMPTY_HEAD;
use crate::store::guard::WalChoice;

use super::ConfigError;

/// The text of a setting: the configured one or the default.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) name: &'static str,
    pub(super) text: &'a str,
}

impl Value<'_> {
    /// The error for an invalid value.
    pub(super) fn expected(self, what: &str) -> ConfigError {
        ConfigError { name: self.name, value: format!("{:?}", self.text), expected: what.to_owned() }
    }

    pub(super) fn number<N>(self, min: N, max: N) -> Result<N, ConfigError>
    where
        N: FromStr + PartialOrd + fmt::Display,
    {
        let number = self.text.parse().ok().filter(|number| (&min..=&max).contains(&number));
        number.ok_or_else(|| self.expected(&format!("a whole number from {min} to {max}")))
    }

    /// Events per unit of time, up to a million; 0 means no limit.
    pub(super) fn rate(self) -> Result<u32, ConfigError> {
        self.number(0, 1_000_000)
    }

    pub(super) fn is_on(self) -> Result<bool, ConfigError> {
        match self.text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.expected("on or off")),
        }
    }

    pub(super) fn address(self) -> Result<SocketAddr, ConfigError> {
        let local = self.text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let parsed = local.as_deref().unwrap_or(self.text).parse();
        parsed.map_err(|_| self.expected("an IP address and a port, such as 127.0.0.1:8080"))
    }

    pub(super) fn file(self) -> Result<PathBuf, ConfigError> {
        let path = self.path()?;
        if path.file_name().is_none() || path.is_dir() || self.text.ends_with('/') {
            return Err(self.expected("the path of a file"));
        }
        Ok(path)
    }

    /// A folder, or a path where one can be created.
    pub(super) fn folder(self) -> Result<PathBuf, ConfigError> {
        let path = self.path()?;
        match path.ancestors().find(|part| part.exists()) {
            Some(part) if !part.is_dir() => {
                Err(self.expected("the path of a folder that exists or can be created"))
            }
            _ => Ok(path),
        }
    }

    fn path(self) -> Result<PathBuf, ConfigError> {
        // SQLite would not treat these as file names.
        if self.text.starts_with("file:") || self.text.starts_with(':') || self.text.contains('\0') {
            return Err(self.expected("a plain path"));
        }
        Ok(Path::new(self.text).to_owned())
    }

    pub(super) fn log_filter(self) -> Result<String, ConfigError> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
        let is_directive = |part: &str| match part.split_once('=') {
            Some((target, level)) => !target.is_empty() && is_level(level),
            None => is_level(part),
        };
        if self.text.split(',').all(|part| is_directive(part.trim())) {
            return Ok(self.text.to_owned());
        }
        Err(self.expected("off, error, warn, info, debug or trace, or target=level pairs"))
    }

    pub(super) fn wal_choice(self) -> Result<WalChoice, ConfigError> {
        let choice = self.text.split_once(':').and_then(|(word, id)| {
            let log_id = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16)?;
            match word {
                "replay" => Some(WalChoice { replay: true, log_id }),
                "set-aside" => Some(WalChoice { replay: false, log_id }),
                _ => None,
            }
        });
        choice.ok_or_else(|| self.expected("replay:ID or set-aside:ID, with the ID named in the refusal"))
    }

    pub(super) fn head(self) -> Result<String, ConfigError> {
        if self.text != EMPTY_HEAD && Hash::parse(self.text).is_none() {
            return Err(self.expected("the hash of the head named in the refusal"));
        }
        Ok(self.text.to_owned())
    }
}
