//! AegisAgent's gateway: decides, records and proves what AI agents may do.

pub mod backup;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod evidence;
pub mod startup;
pub mod store;
