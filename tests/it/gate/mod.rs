//! The gate's promises over real sockets: one test a promise, its name the promise.
//!
//! Most run in front of a small service of slow, panicking and large answers; what
//! needs a process of its own starts this test binary again (see `demo`).

mod demo;
mod descriptors;
mod framing;
mod hostile;
mod limits;
mod relay;
mod service;
mod shutdown;
pub(crate) mod support;
