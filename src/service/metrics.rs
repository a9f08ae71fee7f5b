//! Counters of what this process has answered, for monitoring. They affect nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds; one more bucket has no bound.
pub const BOUNDS_SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// The range of HTTP status codes.
const STATUSES: std::ops::Range<u16> = 100..600;

/// Requests answered since startup. All counters are monotonic.
#[derive(Debug)]
pub struct Requests {
    by_status: Vec<AtomicU64>,
    authorize: Histogram,
}

/// How long answers took.
#[derive(Debug, Default)]
struct Histogram {
    /// Each answer counts in exactly one bucket.
    buckets: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    micros: AtomicU64,
}

/// A reading of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    /// Cumulative number of answers within each bound; the last one counts them all.
    pub within: [u64; BOUNDS_SECONDS.len() + 1],
    /// Total time of all answers, in seconds.
    pub sum_seconds: f64,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            by_status: STATUSES.map(|_| AtomicU64::default()).collect(),
            authorize: Histogram::default(),
        }
    }
}

impl Requests {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let index = status.checked_sub(STATUSES.start).map(usize::from);
        if let Some(count) = index.and_then(|index| self.by_status.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts an authorization's time, from arrival to answer.
    pub fn authorized(&self, took: Duration) {
        self.authorize.add(took);
    }

    /// Number of answers by status; statuses without any are omitted.
    pub fn by_status(&self) -> Vec<(u16, u64)> {
        let counts = self.by_status.iter().map(|count| count.load(Ordering::Relaxed));
        STATUSES.zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// How long authorizations took.
    pub fn authorizations(&self) -> Durations {
        self.authorize.read()
    }
}

impl Histogram {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS_SECONDS.len())].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn read(&self) -> Durations {
        let mut so_far = 0;
        let within = self.buckets.each_ref().map(|bucket| {
            so_far += bucket.load(Ordering::Relaxed);
            so_far
        });
        Durations { within, sum_seconds: self.micros.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_the_last_one_holds_everything() {
        let requests = Requests::default();
        for millis in [0, 1, 2, 3, 30, 60_000] {
            requests.authorized(Duration::from_millis(millis));
        }
        let durations = requests.authorizations();
        assert_eq!(durations.within, [2, 3, 4, 4, 4, 5, 5, 5, 5, 5, 6]);
        assert!((durations.sum_seconds - 60.036).abs() < 1e-9, "{durations:?}");
    }

    #[test]
    fn a_status_that_is_none_counts_nowhere() {
        let requests = Requests::default();
        [0, 99, 600, u16::MAX, 200, 200, 599].into_iter().for_each(|status| requests.answered(status));
        assert_eq!(requests.by_status(), [(200, 2), (599, 1)]);
    }
}
