//! The real gateway over HTTP, the real command, the real scripts.

mod support;

mod crash;
mod guard;
