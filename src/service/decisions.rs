//! Listing recorded decisions.

use crate::domain::record::Decision;
use crate::store::decisions::{self, Filter, Listed, Window};

use super::{Error, Gateway, Keys, Page, agents};

/// Decisions that match the filter, newest first. The filter may name an agent by its key. Read
/// on a separate connection: a filter without an index scans many rows.
pub fn list(gateway: &Gateway, filter: &Filter, keys: &Keys, page: Page) -> Result<Listed, Error> {
    gateway.store.read_aside(|view| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(view, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        let (before, after) = keys.resolve(|id| Ok(decisions::find_seq(view, id)?))?;
        let window = Window { before, after, limit: page.limit, offset: page.offset };
        Ok(decisions::list(view, &filter, window)?)
    })
}

/// One decision.
pub fn get(gateway: &Gateway, id: &str) -> Result<Decision, Error> {
    let found = gateway.store.read(|connection| decisions::find(connection, id))?;
    found.ok_or_else(|| Error::NotFound("there is no such decision".to_owned()))
}
