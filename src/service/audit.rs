//! Looking at audit events.

use crate::domain::audit::Event;
use crate::store::audit::{self, Filter};

use super::{Error, Gateway, Page, agents};

/// With more than this to leave out, a list is read on a connection of its own: it
/// takes a while, and nobody else should wait for it.
const OFFSET_AT_ONCE_MAX: u32 = 10_000;

/// Events that pass the filter, newest first. The filter may name an agent by its key.
pub fn list(gateway: &Gateway, filter: &Filter, page: Page) -> Result<Vec<Event>, Error> {
    let list = |connection: &rusqlite::Connection| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(connection, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        Ok::<_, Error>(audit::list(connection, &filter, page.limit, page.offset)?)
    };
    if page.offset > OFFSET_AT_ONCE_MAX || filter.conditions() > 1 {
        return gateway.store.read_aside(list);
    }
    gateway.store.read(list)
}
