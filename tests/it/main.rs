//! Integration tests of the real gateway over HTTP, the real command and the real scripts.

#![expect(unreachable_pub, reason = "one binary: what its modules share is public among them")]

mod support;

mod agents_lifecycle;
mod approvals;
mod audit;
mod authorize;
mod backup;
mod backup_list;
mod bench;
mod clients;
mod contract;
mod crash;
mod disk;
mod evidence;
mod evidence_schema;
mod gate;
mod guard;
mod history;
mod holes;
mod hostile_folder;
mod housekeeping;
mod limits;
mod links;
mod load;
mod log_bound;
mod manifest;
mod memory;
mod openapi;
mod operators;
mod policies;
mod process;
mod reads;
mod runbook;
mod scale;
mod scripts;
mod signatures;
mod stats;
mod witness;
