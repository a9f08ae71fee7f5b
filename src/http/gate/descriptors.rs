//! How many connections this process's descriptor limit allows.
//!
//! Running out of descriptors permanently ends `tiny_http`'s accept thread, so the gate always
//! leaves enough free. Invariant: connections, upstreams with both their ends, what workers
//! open to serve them, and lingering refused connections fit alongside the descriptors open at
//! startup and a reserve.

use super::limits::{Limits, SHED_QUEUE};

/// Used if `/proc` cannot be read: the traditional soft limit.
const FALLBACK_LIMIT: usize = 1024;
/// Used if `/proc` cannot be read: what a small server has open.
const FALLBACK_OPEN: usize = 32;
/// Each upstream takes one descriptor here and two in `tiny_http`, which clones the socket.
pub(super) const PER_UPSTREAM: usize = 3;
/// After an answer is cut, `tiny_http` keeps its two until the worker notices; by then the
/// upstream may have been replaced.
const PER_CUT: usize = 2;
/// The gate's own: the spare, and one that each of three blocked `accept` calls (its own and
/// the two lanes') has allocated in advance.
const OWN: usize = 4;

/// The counts a gate actually runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) upstreams: usize,
    pub(super) probe_upstreams: usize,
    pub(super) shed_queue: usize,
}

/// Fits the configured counts into the process's descriptor limit.
pub(super) fn plan(limits: &Limits) -> Plan {
    if !limits.fit_to_descriptors {
        return Plan {
            connections: limits.connections_max,
            upstreams: limits.upstreams,
            probe_upstreams: limits.probe_upstreams,
            shed_queue: SHED_QUEUE,
        };
    }
    fit(limits, soft_limit().unwrap_or(FALLBACK_LIMIT), open_now().unwrap_or(FALLBACK_OPEN))
}

fn fit(limits: &Limits, limit: usize, open: usize) -> Plan {
    let spare = limits.spare_descriptors.min(limit / 8);
    let free = limit.saturating_sub(open + spare + OWN);
    let shed_queue = SHED_QUEUE.min(free / 16).max(1);
    let free = free.saturating_sub(shed_queue);
    // At most a sixth of the rest goes to the probe lane and two thirds to both lanes: even
    // when descriptors are scarce, there should be more connections than upstreams.
    let probe_upstreams = limits.probe_upstreams.min(free / 6 / PER_UPSTREAM).max(1);
    let probes = probe_upstreams * PER_UPSTREAM;
    let room = (free * 2 / 3).saturating_sub(probes);
    let upstreams = (1..=limits.upstreams).rev().find(|&count| cost(limits, count) <= room).unwrap_or(1);
    let free = free.saturating_sub(probes + cost(limits, upstreams));
    Plan { connections: limits.connections_max.min(free).max(1), upstreams, probe_upstreams, shed_queue }
}

/// Descriptors that `upstreams` upstreams take, including the workers that serve them.
fn cost(limits: &Limits, upstreams: usize) -> usize {
    let busy_workers = upstreams.min(limits.workers);
    upstreams * PER_UPSTREAM + busy_workers * (limits.files_per_worker + PER_CUT)
}

fn soft_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::from(u16::MAX)),
        number => number.parse().ok(),
    }
}

fn open_now() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(workers: usize) -> Limits {
        Limits { workers, upstreams: 64.max(4 * workers), ..Limits::default() }
    }

    #[test]
    fn every_plan_fits_the_descriptor_limit_and_leaves_a_reserve() {
        for limit in [48, 64, 128, 256, 1024, 4096, 65_536] {
            for workers in [1, 4, 16, 64, 256] {
                let limits = limits(workers);
                let plan = fit(&limits, limit, 12);
                let lanes = cost(&limits, plan.upstreams) + plan.probe_upstreams * PER_UPSTREAM;
                let all = 12 + OWN + lanes + plan.shed_queue + plan.connections;
                let reserve = limits.spare_descriptors.min(limit / 8);
                assert!(all + reserve <= limit, "{limit}, {workers}: {plan:?} takes {all}");
                assert!(plan.connections >= plan.upstreams, "{limit}, {workers}: {plan:?}");
            }
        }
    }

    #[test]
    fn with_every_connection_taken_each_worker_still_has_its_files() {
        for workers in [16, 32, 64, 256] {
            let plan = fit(&limits(workers), 1024, 30);
            let upstreams = plan.upstreams + plan.probe_upstreams;
            let taken = 30 + OWN + plan.shed_queue + plan.connections + upstreams * PER_UPSTREAM;
            let files = 2 * workers.min(plan.upstreams);
            assert!(taken + files + 32 <= 1024, "{workers}: {plan:?} leaves {}", 1024 - taken);
        }
    }

    #[test]
    fn a_roomy_process_gets_what_is_configured() {
        let plan = fit(&Limits::default(), 20_000, 12);
        assert_eq!((plan.connections, plan.upstreams, plan.probe_upstreams), (1024, 64, 4));
    }
}
