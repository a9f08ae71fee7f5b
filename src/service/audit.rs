//! Listing audit events.

use crate::domain::audit::Event;
use crate::store::audit::{self, Filter};

use super::{Error, Gateway, Page, agents};

/// Events that match the filter, newest first. The filter may name an agent by its key. Read
/// on a separate connection: two conditions, or a large offset, scan many rows.
pub fn list(gateway: &Gateway, filter: &Filter, page: Page) -> Result<Vec<Event>, Error> {
    gateway.store.read_aside(|view| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(view, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        Ok(audit::list(view, &filter, page.limit, page.offset)?)
    })
}
