//! HTTP: from bytes on a socket to a service call and back.
//!
//! [`router`] is the table of routes. Each resource has a file of handlers, which decode the
//! request, call the service, and respond. [`error`] is the one mapping from service errors
//! to statuses. Only [`server`] uses `tiny_http`.

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
