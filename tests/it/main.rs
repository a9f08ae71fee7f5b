//! The real gateway over HTTP, the real command, the real scripts.

mod contract;
mod evidence;
mod process;
mod support;
