//! Decoding columns into domain types. A value the gateway would never have written is an
//! error, never a default: an unreadable status must not become an allow.

use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};

use crate::domain::canon::Hash;
use crate::domain::time::Timestamp;

/// A text decoded by `parse`; `otherwise` is the error message.
pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
    otherwise: &'static str,
) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).ok_or_else(|| Error::FromSqlConversionFailure(column, Type::Text, otherwise.into()))
}

/// A word of an enum.
pub(super) fn word<T>(row: &Row<'_>, column: usize, parse: fn(&str) -> Option<T>) -> Result<T> {
    parsed(row, column, parse, "unknown word")
}

/// A SHA-256.
pub(super) fn hash(row: &Row<'_>, column: usize) -> Result<Hash> {
    parsed(row, column, Hash::parse, "not a hash")
}

/// An instant.
pub(super) fn time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    parsed(row, column, Timestamp::parse, "not a time")
}

/// An instant or NULL.
pub(super) fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>> {
    row.get_ref(column)?.as_str_or_null()?.map(|_| time(row, column)).transpose()
}

/// An instant exactly as the gateway writes it: another spelling would be an edit that no
/// hash reveals.
pub(super) fn exact_time(row: &Row<'_>, column: usize) -> Result<Timestamp> {
    let exact = |text: &str| Timestamp::parse(text).filter(|at| at.to_string() == text);
    parsed(row, column, exact, "not a time as the gateway writes it")
}

/// 0 or 1: another number that reads as true would be an edit that no hash reveals.
pub(super) fn exact_flag(row: &Row<'_>, column: usize) -> Result<bool> {
    match row.get(column)? {
        0_i64 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::FromSqlConversionFailure(column, Type::Integer, "neither 0 nor 1".into())),
    }
}
