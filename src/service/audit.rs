//! Listing audit events.

use crate::domain::audit::Event;
use crate::store::audit::{self, Filter};

use super::{Error, Gateway, Page, agents};

/// With a larger offset, a list is read on a separate connection: it takes a while, and
/// should not make other requests wait.
const OFFSET_AT_ONCE_MAX: u32 = 10_000;

/// Events that match the filter, newest first. The filter may name an agent by its key.
pub fn list(gateway: &Gateway, filter: &Filter, page: Page) -> Result<Vec<Event>, Error> {
    let list = |connection: &rusqlite::Connection| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(connection, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        Ok::<_, Error>(audit::list(connection, &filter, page.limit, page.offset)?)
    };
    if page.offset > OFFSET_AT_ONCE_MAX || filter.conditions() > 1 {
        let snapshot = gateway.store.snapshot()?;
        return list(&snapshot);
    }
    gateway.store.read(list)
}
