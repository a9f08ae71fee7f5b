//! Locations in a document, and the errors that name them.

use std::fmt;

use super::ITEMS_MAX;
use crate::domain::json::Json;

/// Why a document is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where, such as `rules[3].when.source_trust`; empty for the document itself.
    pub place: String,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.what),
            place => write!(f, "{place}: {}", self.what),
        }
    }
}

impl std::error::Error for Refused {}

/// A location in the document.
pub(super) struct Place(String);

impl Place {
    /// The document itself.
    pub(super) fn document() -> Self {
        Place(String::new())
    }

    pub(super) fn member(&self, name: &str) -> Place {
        let dot = if self.0.is_empty() { "" } else { "." };
        Place(format!("{}{dot}{name}", self.0))
    }

    pub(super) fn item(&self, index: usize) -> Place {
        Place(format!("{}[{index}]", self.0))
    }

    /// A member that may have any name, and is therefore quoted.
    pub(super) fn quoted(&self, name: &str) -> Place {
        Place(format!("{}[{name:?}]", self.0))
    }

    pub(super) fn refuse<T>(&self, what: impl Into<String>) -> Result<T, Refused> {
        Err(Refused { place: self.0.clone(), what: what.into() })
    }

    /// Requires an object with no members other than `known`.
    pub(super) fn check_members(&self, value: &Json, known: &[&str]) -> Result<(), Refused> {
        let Json::Object(members) = value else { return self.refuse("expected an object") };
        match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                self.refuse(format!("unknown member {name:?}; known are {}", known.join(", ")))
            }
            None => Ok(()),
        }
    }

    /// A non-blank string of at most `max` characters, without control characters.
    pub(super) fn text(&self, value: &Json, max: usize) -> Result<String, Refused> {
        let text = value.as_str().map_or_else(|| self.refuse("expected a string"), Ok)?;
        if text.trim().is_empty() || text.chars().count() > max || text.chars().any(char::is_control) {
            return self.refuse(format!("expected 1 to {max} characters, and no control characters"));
        }
        Ok(text.to_owned())
    }

    /// One value or an array of distinct values.
    pub(super) fn alternatives<T: PartialEq>(
        &self,
        value: &Json,
        read: impl Fn(&Place, &Json) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let Json::Array(items) = value else { return Ok(vec![read(self, value)?]) };
        if items.is_empty() || items.len() > ITEMS_MAX {
            return self.refuse(format!("expected one value or an array of 1 to {ITEMS_MAX}"));
        }
        let mut found = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let read = read(&self.item(index), item)?;
            if found.contains(&read) {
                return self.item(index).refuse("duplicate value");
            }
            found.push(read);
        }
        Ok(found)
    }
}
