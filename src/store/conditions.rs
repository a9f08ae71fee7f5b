//! Builds the WHERE clause of a list: the conjunction of its filters.

use rusqlite::{Params, ToSql, params_from_iter};

/// The clause without any condition.
const EVERYTHING: &str = "1";

/// The conditions, and the bound values of the whole statement.
pub(super) struct Conditions {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    /// No condition: everything passes.
    pub(super) fn new() -> Self {
        Conditions { sql: EVERYTHING.to_owned(), values: Vec::new() }
    }

    /// Adds a condition if there is a value; each `?` in it stands for that value.
    pub(super) fn and(&mut self, condition: &str, value: Option<&str>) {
        if let Some(value) = value {
            let placeholder = self.bind(value.to_owned());
            self.sql.push_str(&format!(" AND {}", condition.replace('?', &placeholder)));
        }
    }

    /// Binds a value; returns its placeholder.
    pub(super) fn bind(&mut self, value: impl ToSql + 'static) -> String {
        self.values.push(Box::new(value));
        format!("?{}", self.values.len())
    }

    /// Whether everything passes.
    pub(super) fn is_empty(&self) -> bool {
        self.sql == EVERYTHING
    }

    /// The clause.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// The values, in the order of their placeholders.
    pub(super) fn values(&self) -> impl Params {
        params_from_iter(self.values.iter().map(|value| &**value))
    }
}
