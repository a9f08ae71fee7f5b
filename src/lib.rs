//! AegisAgent's gateway: decides, records and proves what AI agents may do.

pub mod domain;
