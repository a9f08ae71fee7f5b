//! The real gateway over HTTP, the real command, the real scripts.

#![expect(unreachable_pub, reason = "one binary: what its modules share is public among them")]

mod support;

mod audit;
mod backup;
mod backup_list;
mod bench;
mod contract;
mod crash;
mod evidence;
mod gate;
mod guard;
mod load;
mod manifest;
mod operators;
mod policies;
mod process;
mod runbook;
mod scale;
