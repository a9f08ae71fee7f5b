//! AegisAgent's gateway: decides, records and proves what AI agents may do.

pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod store;
