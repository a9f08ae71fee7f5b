//! Counts what the gate has done so far, for metrics only.
//!
//! All counts only grow, except those of connections open now.

use std::sync::atomic::{AtomicU64, Ordering};

use super::refusal::Refusal;

/// A snapshot of the gate's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections open now.
    pub open: u64,
    /// Of those, connections with a request in progress: past its head and not yet answered.
    pub busy: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed to make room.
    pub evicted: u64,
    /// Connections refused with 503 on arrival.
    pub shed: u64,
    /// Requests the gate refused with a 4xx.
    pub refused_client: u64,
    /// Requests the gate refused with a 5xx.
    pub refused_server: u64,
    /// Connections to the service that had to be replaced.
    pub upstreams_replaced: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    evicted: AtomicU64,
    shed: AtomicU64,
    refused_client: AtomicU64,
    refused_server: AtomicU64,
}

impl Counters {
    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let count = if refusal.status < 500 { &self.refused_client } else { &self.refused_server };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            refused_client: self.refused_client.load(Ordering::Relaxed),
            refused_server: self.refused_server.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}
