//! Failures that repeat themselves, logged once a second with how many there were: a disk
//! that is full fails every request, and thousands of equal lines a second would hide what
//! else the log says, and fill the disk that it is kept on.
//!
//! Nothing is passed over silently: what differs is logged at once, and what was counted is
//! told with the next failure of the same place.

use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::unpoisoned;

/// How long one text is not repeated.
const EVERY: Duration = Duration::from_secs(1);
/// How many texts are remembered; where there are more within a second, the rest is logged
/// each time.
const TEXTS_MAX: usize = 16;

/// The failures that one place in the code logs.
pub(crate) struct Throttle {
    target: &'static str,
    told: Mutex<Vec<Told>>,
}

struct Told {
    text: String,
    at: Instant,
    /// How many there were since.
    more: u64,
}

impl Throttle {
    /// `target` is the log's, for its filter: `module_path!()`.
    pub(crate) const fn new(target: &'static str) -> Self {
        Throttle { target, told: Mutex::new(Vec::new()) }
    }

    /// Logs a failure, or counts it.
    pub(crate) fn error(&self, failure: impl Display) {
        for line in self.lines(failure.to_string(), Instant::now()) {
            log::error!(target: self.target, "{line}");
        }
    }

    /// What is to be logged now.
    fn lines(&self, text: String, now: Instant) -> Vec<String> {
        let mut told = unpoisoned(&self.told);
        let (mut lines, mut unlogged) = (Vec::new(), 0);
        for one in told.extract_if(.., |one| now.saturating_duration_since(one.at) >= EVERY) {
            if one.text == text {
                unlogged = one.more;
            } else if one.more > 0 {
                lines.push(with_count(&one.text, one.more));
            }
        }
        if let Some(known) = told.iter_mut().find(|one| one.text == text) {
            known.more += 1;
            return lines;
        }
        lines.push(with_count(&text, unlogged));
        if told.len() < TEXTS_MAX {
            told.push(Told { text, at: now, more: 0 });
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
        assert_eq!(unpoisoned(&throttle.told).len(), TEXTS_MAX);
    }
}
