//! The real gateway over HTTP, the real command, the real scripts.

#![expect(unreachable_pub, reason = "one binary: what its modules share is public among them")]

mod support;

mod runbook;
mod scale;
