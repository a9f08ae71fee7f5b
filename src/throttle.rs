//! Throttles repeated failures to one log line a second, with a count. A full disk fails every
//! request, and thousands of identical lines a second would bury the rest of the log and fill
//! the disk it is stored on.
//!
//! Nothing is dropped silently: a different message is logged at once, and the count of
//! suppressed ones is logged with the next failure at the same place.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::unpoisoned;

/// Minimum time between two lines with the same text.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of texts remembered; if there are more within a second, the rest are logged
/// every time.
const TEXTS_MAX: usize = 16;

/// The failures logged by one place in the code.
pub(crate) struct Throttle {
    target: &'static str,
    recent: Mutex<Vec<Logged>>,
}

struct Logged {
    text: String,
    at: Instant,
    /// Number suppressed since then.
    more: u64,
}

impl Throttle {
    /// `target` is the log target, which filters match: `module_path!()`.
    pub(crate) const fn new(target: &'static str) -> Self {
        Throttle { target, recent: Mutex::new(Vec::new()) }
    }

    /// Logs a failure, or counts it.
    pub(crate) fn error(&self, failure: impl Display) {
        for line in self.lines(failure.to_string(), Instant::now()) {
            log::error!(target: self.target, "{line}");
        }
    }

    /// The lines to log now.
    fn lines(&self, text: String, now: Instant) -> Vec<String> {
        let mut recent = unpoisoned(&self.recent);
        let (mut lines, mut unlogged) = (Vec::new(), 0);
        for one in recent.extract_if(.., |one| now.saturating_duration_since(one.at) >= EVERY) {
            if one.text == text {
                unlogged = one.more;
            } else if one.more > 0 {
                lines.push(with_count(&one.text, one.more));
            }
        }
        if let Some(known) = recent.iter_mut().find(|one| one.text == text) {
            known.more += 1;
            return lines;
        }
        lines.push(with_count(&text, unlogged));
        if recent.len() < TEXTS_MAX {
            recent.push(Logged { text, at: now, more: 0 });
        }
        lines
    }
}

fn with_count(text: &str, more: u64) -> String {
    if more == 0 { text.to_owned() } else { format!("{text} ({more} more were not logged)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_at_once_and_then_once_a_second_with_a_count() {
        let (throttle, start) = (Throttle::new("test"), Instant::now());
        let at = |ms: u64, text: &str| throttle.lines(text.to_owned(), start + Duration::from_millis(ms));
        assert_eq!(at(0, "full"), ["full"]);
        for ms in 1..=999 {
            assert_eq!(at(ms, "full"), [""; 0], "{ms}");
        }
        assert_eq!(at(1000, "full"), ["full (999 more were not logged)"]);
        assert_eq!(at(1001, "full"), [""; 0]);
        assert_eq!(at(9000, "full"), ["full (1 more were not logged)"]);
        assert_eq!(at(99_000, "full"), ["full"]);
    }

    #[test]
    fn another_failure_is_logged_at_once_and_tells_what_was_counted_before() {
        let (throttle, start) = (Throttle::new("test"), Instant::now());
        let at = |ms: u64, text: &str| throttle.lines(text.to_owned(), start + Duration::from_millis(ms));
        assert_eq!((at(0, "full"), at(1, "torn")), (vec!["full".to_owned()], vec!["torn".to_owned()]));
        assert_eq!((at(2, "full"), at(3, "full"), at(4, "torn")), (vec![], vec![], vec![]));
        assert_eq!(
            at(2000, "other"),
            ["full (2 more were not logged)", "torn (1 more were not logged)", "other"]
        );
    }

    #[test]
    fn more_texts_than_are_remembered_are_all_logged() {
        let (throttle, now) = (Throttle::new("test"), Instant::now());
        for round in 0..2 {
            let logged = (0..TEXTS_MAX + 5).filter(|text| !throttle.lines(text.to_string(), now).is_empty());
            assert_eq!(logged.count(), if round == 0 { TEXTS_MAX + 5 } else { 5 });
        }
        assert_eq!(unpoisoned(&throttle.recent).len(), TEXTS_MAX);
    }
}
