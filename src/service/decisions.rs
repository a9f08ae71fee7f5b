//! Looking at recorded decisions.

use crate::domain::decision::Decision;
use crate::store::decisions::{self, Filter};

use super::{Error, Gateway, Page};

/// Decisions that pass the filter, newest first.
pub fn list(gateway: &Gateway, filter: &Filter, page: Page) -> Result<Vec<Decision>, Error> {
    Ok(gateway.store.read(|connection| decisions::list(connection, filter, page.limit, page.offset))?)
}

/// One decision.
pub fn get(gateway: &Gateway, id: &str) -> Result<Decision, Error> {
    let found = gateway.store.read(|connection| decisions::find(connection, id))?;
    found.ok_or_else(|| Error::NotFound("there is no such decision".to_owned()))
}
