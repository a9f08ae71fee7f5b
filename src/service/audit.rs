//! Looking at audit events.

use crate::domain::audit::Event;
use crate::store::audit::{self, Filter};

use super::{Error, Gateway, Page, agents};

/// Events that pass the filter, newest first. The filter may name an agent by its key.
/// Read aside: no index fits two conditions, and a long way to a page is walked.
pub fn list(gateway: &Gateway, filter: &Filter, page: Page) -> Result<Vec<Event>, Error> {
    gateway.store.read_aside(|view| {
        let named = filter.agent_id.as_deref().map(|agent| agents::recorded_id(view, agent));
        let filter = Filter { agent_id: named.transpose()?, ..filter.clone() };
        Ok(audit::list(view, &filter, page.limit, page.offset)?)
    })
}
