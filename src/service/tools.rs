//! The registry of tools.

use crate::domain::tool::Tool;
use crate::entropy;
use crate::store::tools;

use super::{Error, Gateway, Page};

/// Registers a tool, or replaces its fields and the listed actions; effective on
/// the next authorize. Returns the tool's id.
pub fn register(gateway: &Gateway, mut tool: Tool) -> Result<String, Error> {
    let now = gateway.now();
    tool.id = entropy::uuid(now).map_err(Error::Entropy)?;
    gateway.store.write(move |tx| Ok(tools::upsert(tx, &tool, now)?))
}

/// Registered tools with their actions, newest first.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Tool>, Error> {
    gateway.store.read(|connection| Ok(tools::list(connection, page.limit, page.offset)?))
}
