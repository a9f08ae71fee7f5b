//! How old a request may be, and how long its nonce is remembered.
//!
//! The two belong together: if a nonce were forgotten while its request's timestamp is still
//! valid, the request could be replayed.

use super::time::Timestamp;

/// How far a request's timestamp may differ from the gateway's clock, in either direction.
pub const TIMESTAMP_SECONDS_MAX: i64 = 300;

/// Minimum time a nonce is remembered. A timestamp ahead of the clock stays valid for up to
/// twice [`TIMESTAMP_SECONDS_MAX`]; the rest allows for clock adjustments.
pub const NONCE_SECONDS: i64 = 900;

const _: () = assert!(NONCE_SECONDS > 2 * TIMESTAMP_SECONDS_MAX);

/// Whether a request with this timestamp is accepted at `now`.
pub fn is_current(timestamp: Timestamp, now: Timestamp) -> bool {
    (now.plus_seconds(-TIMESTAMP_SECONDS_MAX)..=now.plus_seconds(TIMESTAMP_SECONDS_MAX)).contains(&timestamp)
}

/// At `now`, nonces seen before this time may be forgotten.
pub fn forgotten_before(now: Timestamp) -> Timestamp {
    now.plus_seconds(-NONCE_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_counts_for_five_minutes_either_way() {
        let now = Timestamp::from_micros(1_780_000_000_000_000);
        for (micros, current) in [
            (0, true),
            (-300_000_000, true),
            (-300_000_001, false),
            (300_000_000, true),
            (300_000_001, false),
            (i64::MIN / 2, false),
        ] {
            let timestamp = Timestamp::from_micros(now.as_micros() + micros);
            assert_eq!(is_current(timestamp, now), current, "{micros}");
        }
    }

    #[test]
    fn a_nonce_is_remembered_for_as_long_as_its_timestamp_counts() {
        let seen = Timestamp::from_micros(1_780_000_000_000_000);
        let latest = seen.plus_seconds(TIMESTAMP_SECONDS_MAX);
        let mut now = seen;
        while is_current(latest, now) {
            assert!(forgotten_before(now) <= seen, "{now}");
            now = now.plus_seconds(1);
        }
    }
}
