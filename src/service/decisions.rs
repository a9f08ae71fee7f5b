//! Listing recorded decisions.

use crate::domain::record::Decision;
use crate::store::decisions::{self, Filter, Listed, Window};

use super::{Error, Gateway, Keys, Page, agents};

/// With a larger offset, a list is read on a separate connection: it takes a while, and
/// should not make other requests wait.
const OFFSET_AT_ONCE_MAX: u32 = 10_000;

/// Decisions that match the filter, newest first. The filter may name an agent by its key.
pub fn list(gateway: &Gateway, filter: &Filter, keys: &Keys, page: Page) -> Result<Listed, Error> {
    let list = |connection: &rusqlite::Connection| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(connection, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        let (before, after) = keys.resolve(|id| Ok(decisions::find_seq(connection, id)?))?;
        let window = Window { before, after, limit: page.limit, offset: page.offset };
        Ok(decisions::list(connection, &filter, window)?)
    };
    if page.offset > OFFSET_AT_ONCE_MAX {
        let snapshot = gateway.store.snapshot()?;
        return list(&snapshot);
    }
    gateway.store.read(list)
}

/// One decision.
pub fn get(gateway: &Gateway, id: &str) -> Result<Decision, Error> {
    let found = gateway.store.read(|connection| decisions::find(connection, id))?;
    found.ok_or_else(|| Error::NotFound("there is no such decision".to_owned()))
}
