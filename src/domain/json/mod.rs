//! A strict JSON reader that preserves what canonical form needs.
//!
//! One reader serves every request body and every exported receipt, so what is
//! decoded and what is hashed can never be two readings of the same bytes. It
//! preserves integers digit for digit and rejects what two programs could read
//! differently: duplicate member names (after unescaping), lone surrogates, numbers
//! outside binary64, anything RFC 8259 does not allow. No member name has a special
//! meaning.

mod number;
mod reader;

use std::fmt;

pub use number::{INTEGER_DIGITS_MAX, Number};
pub use reader::{parse, parse_bounded};

/// Maximum nesting depth of arrays and objects.
pub const DEPTH_MAX: usize = 127;

/// A JSON value. Object members are sorted by name, which is canonical order.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, held as its canonical text.
    Number(Number),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: unique names in ascending code point order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The member of this name, if this is an object that has one.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        let found = members.binary_search_by(|(key, _)| key.as_str().cmp(name));
        found.ok().map(|at| &members[at].1)
    }

    /// Removes and returns the member of this name, if this is an object that has one.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        let Json::Object(members) = self else { return None };
        let at = members.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        Some(members.remove(at).1)
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
        }
    }
}

/// Why a text is not valid, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub what: &'static str,
    /// Byte offset from the start of the text.
    pub offset: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for SyntaxError {}
