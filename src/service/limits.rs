//! Rate limits: token buckets in memory.
//!
//! A bucket that is full again is equivalent to none and is dropped, so memory is bounded by
//! the number of recently active keys. A restart resets all limits.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

use crate::sync::unpoisoned;

use super::Error;

/// Maximum number of addresses with a bucket of their own; the rest share one.
const ADDRESSES_MAX: usize = 10_000;
/// Number of buckets from which full ones are swept.
const SWEEP_FROM: usize = 1024;
/// Burst size of an agent, in seconds' worth of requests.
const AUTHORIZE_BURST_SECONDS: u32 = 5;

/// The limits of one gateway; by default there are none.
#[derive(Debug, Default)]
pub struct Limits {
    failures: Option<Buckets<Option<IpAddr>>>,
    authorize: Option<Buckets<String>>,
}

impl Limits {
    /// Failed authentications per minute and address, and authorizations per second and
    /// agent; 0 means no limit.
    pub fn new(failures_per_minute: u32, authorize_per_second: u32) -> Self {
        let failures = || Buckets::new(failures_per_minute, 60, ADDRESSES_MAX);
        // One bucket per agent; only operators register agents.
        let burst = authorize_per_second.saturating_mul(AUTHORIZE_BURST_SECONDS);
        let authorize = || Buckets::new(burst, AUTHORIZE_BURST_SECONDS, usize::MAX);
        Limits {
            failures: (failures_per_minute > 0).then(failures),
            authorize: (authorize_per_second > 0).then(authorize),
        }
    }

    /// Counts a failed authentication. Those without an address share one bucket.
    pub fn failed(&self, peer: Option<IpAddr>, now: Instant) -> Result<(), Error> {
        let Some(buckets) = &self.failures else { return Ok(()) };
        buckets.take(peer.map(network), now).map_err(|retry_after_seconds| Error::TooManyRequests {
            message: "too many requests without a valid token from this address",
            retry_after_seconds,
        })
    }

    /// Counts a request of an agent.
    pub fn authorize(&self, agent_id: &str, now: Instant) -> Result<(), Error> {
        let Some(buckets) = &self.authorize else { return Ok(()) };
        buckets.take(agent_id.to_owned(), now).map_err(|retry_after_seconds| Error::TooManyRequests {
            message: "too many requests from this agent",
            retry_after_seconds,
        })
    }
}

/// What counts as one address: for IPv6 the whole /64, which is what one client gets.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// One bucket per key: each holds `capacity` and refills at `per_second`.
#[derive(Debug)]
struct Buckets<K> {
    capacity: f64,
    per_second: f64,
    keys_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    buckets: HashMap<K, Bucket>,
    /// Shared by keys beyond `keys_max`.
    shared: Option<Bucket>,
    sweep_at: usize,
}

/// What was left at a given time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(capacity: u32, seconds: u32, keys_max: usize) -> Self {
        let state = State { buckets: HashMap::new(), shared: None, sweep_at: SWEEP_FROM.min(keys_max) };
        let capacity = f64::from(capacity);
        Buckets { capacity, per_second: capacity / f64::from(seconds), keys_max, state: Mutex::new(state) }
    }

    /// Takes one from the key's bucket, or returns the number of seconds until one is
    /// available.
    fn take(&self, key: K, now: Instant) -> Result<(), u64> {
        let mut state = unpoisoned(&self.state);
        if !state.buckets.contains_key(&key) && state.buckets.len() >= state.sweep_at {
            state.buckets.retain(|_, bucket| self.left(*bucket, now) < self.capacity);
            state.sweep_at = (2 * state.buckets.len()).max(SWEEP_FROM).min(self.keys_max);
        }
        let full = Bucket { left: self.capacity, at: now };
        let is_beyond = state.buckets.len() >= self.keys_max && !state.buckets.contains_key(&key);
        let bucket = if is_beyond {
            state.shared.get_or_insert(full)
        } else {
            state.buckets.entry(key).or_insert(full)
        };
        *bucket = Bucket { left: self.left(*bucket, now), at: now.max(bucket.at) };
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let seconds = ((1.0 - bucket.left) / self.per_second).ceil();
        // A whole number of at most 60; the cast is lossless.
        Err((seconds as u64).max(1))
    }

    /// What a bucket holds now.
    fn left(&self, bucket: Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.per_second).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn retry_after(result: Result<(), Error>) -> Option<u64> {
        match result {
            Ok(()) => None,
            Err(Error::TooManyRequests { retry_after_seconds, .. }) => Some(retry_after_seconds),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_agent_may_burst_for_five_seconds_and_then_goes_on_at_its_rate() {
        let (limits, start) = (Limits::new(0, 2), Instant::now());
        let ask =
            |agent: &str, millis| retry_after(limits.authorize(agent, start + Duration::from_millis(millis)));
        assert!((0..10).all(|_| ask("a", 0).is_none()));
        assert_eq!(ask("a", 0), Some(1));
        assert_eq!(ask("b", 0), None, "another agent has its own bucket");
        assert_eq!(ask("a", 499), Some(1));
        assert_eq!(ask("a", 500), None);
        assert_eq!(ask("a", 501), Some(1));
        assert!((0..10).all(|_| ask("a", 60_000).is_none()), "the bucket refills");
        assert_eq!(ask("a", 60_000), Some(1), "but not beyond its capacity");
        assert_eq!(ask("a", 0), Some(1), "an earlier time gives nothing");
    }

    #[test]
    fn failures_count_for_each_address_and_say_when_to_try_again() {
        let (limits, start) = (Limits::new(3, 0), Instant::now());
        let fail = |ip: &str, seconds| {
            let ip = ip.parse().expect("an address");
            retry_after(limits.failed(Some(ip), start + Duration::from_secs(seconds)))
        };
        assert!((0..3).all(|_| fail("10.0.0.1", 0).is_none()));
        assert_eq!(fail("10.0.0.1", 0), Some(20));
        assert_eq!(fail("::ffff:10.0.0.1", 5), Some(15), "the same address");
        assert_eq!(fail("10.0.0.2", 5), None);
        assert_eq!(fail("10.0.0.1", 20), None);
        assert!((0..3).all(|n| fail(&format!("2001:db8::{n}"), 0).is_none()));
        assert_eq!(fail("2001:db8::ffff", 0), Some(20), "a /64 counts as one client");
        assert_eq!(fail("2001:db8:0:1::1", 0), None);
        assert!((0..3).all(|_| retry_after(limits.failed(None, start)).is_none()));
        assert_eq!(retry_after(limits.failed(None, start)), Some(20));
    }

    #[test]
    fn zero_is_no_limit() {
        let (limits, now) = (Limits::new(0, 0), Instant::now());
        assert!((0..10_000).all(|_| limits.failed(None, now).is_ok() && limits.authorize("a", now).is_ok()));
    }

    #[test]
    fn the_memory_is_bounded_and_strangers_beyond_it_share_a_bucket() {
        let (buckets, start) = (Buckets::new(2, 60, 3000), Instant::now());
        assert!((0..3000).all(|key| buckets.take(key, start).is_ok()));
        assert!((3000..3002).all(|key| buckets.take(key, start).is_ok()));
        assert_eq!(buckets.take(3002, start), Err(30), "the shared bucket is empty");
        assert_eq!(buckets.take(5, start), Ok(()), "a known key has its own bucket");
        let kept = || unpoisoned(&buckets.state).buckets.len();
        assert_eq!(kept(), 3000);
        assert_eq!(buckets.take(4000, start + Duration::from_secs(60)), Ok(()));
        assert_eq!(kept(), 1, "full buckets are dropped");
    }
}
