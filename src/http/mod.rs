//! HTTP: from bytes on a socket to a service call and back.
//!
//! [`router`] is the table of routes; a handler file a resource decodes, calls the
//! service, and responds. [`error`] is the one map from a service's error to a
//! status. Only [`server`] names `tiny_http`.

mod agents;
mod approvals;
mod audit;
pub mod auth;
mod authorize;
mod backups;
mod body;
mod call_part;
mod decisions;
mod digest;
pub mod error;
pub mod gate;
mod health;
mod lifecycle;
pub mod message;
mod metrics;
mod openapi;
mod operators;
mod policies;
mod query;
mod receipts;
pub mod router;
pub mod server;
mod sockets;
mod stats;
mod tools;
