//! The WHERE of a list that holds what passes every condition that is given.

use rusqlite::{Params, ToSql, params_from_iter};

/// What passes without a condition.
const EVERYTHING: &str = "1";

/// The conditions, and the values of the statement they stand in.
pub(super) struct Conditions {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    /// Everything passes.
    pub(super) fn new() -> Self {
        Conditions { sql: EVERYTHING.to_owned(), values: Vec::new() }
    }

    /// Adds a condition on the value that its `?` stand for, where there is one.
    pub(super) fn and(&mut self, condition: &str, value: Option<&str>) {
        if let Some(value) = value {
            let place = self.bind(value.to_owned());
            self.sql.push_str(&format!(" AND {}", condition.replace('?', &place)));
        }
    }

    /// Adds a value; returns its place in the statement.
    pub(super) fn bind(&mut self, value: impl ToSql + 'static) -> String {
        self.values.push(Box::new(value));
        format!("?{}", self.values.len())
    }

    /// Whether everything passes.
    pub(super) fn is_empty(&self) -> bool {
        self.sql == EVERYTHING
    }

    /// What must hold.
    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    /// Every value, in the order of their places.
    pub(super) fn values(&self) -> impl Params {
        params_from_iter(self.values.iter().map(|value| &**value))
    }
}
