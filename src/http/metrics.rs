//! `GET /metrics`, in the Prometheus text format (version 0.0.4).
//!
//! Counts of records come from the database and survive restarts; counts of requests start
//! with the process.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::fs;

use crate::service::metrics::{BOUNDS_SECONDS, Durations};
use crate::service::stats::Stats;
use crate::service::{Error, Gateway, Page, backups, stats};
use crate::store::files;

use super::message::Response;
use super::router::Call;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// `GET /metrics`
pub(crate) fn metrics(call: &Call<'_>) -> Result<Response, Error> {
    let mut text = Text(String::new());
    let version = format!("{{version={:?}}}", env!("CARGO_PKG_VERSION"));
    text.family("build_info", "gauge", "Version of the running gateway.", [(version, 1)]);
    recorded(&mut text, &stats::stats(call.gateway)?);
    stored(&mut text, call.gateway)?;
    answered(&mut text, call.gateway);
    Ok(Response::json(200, text.0.into_bytes()).with("Content-Type", CONTENT_TYPE))
}

fn recorded(text: &mut Text, stats: &Stats) {
    let mut outcomes: BTreeMap<&str, i64> = BTreeMap::new();
    for kind in &stats.decisions {
        *outcomes.entry(&kind.outcome).or_default() += kind.count;
    }
    let outcomes = outcomes.into_iter().map(|(outcome, count)| (format!("{{decision={outcome:?}}}"), count));
    text.family("decisions_total", "counter", "Decisions on record.", outcomes);
    text.number("receipts_total", "counter", "Receipts in the chain.", stats.receipts);
    text.number("agents", "gauge", "Agents that are not deleted.", stats.agents);
}

fn stored(text: &mut Text, gateway: &Gateway) -> Result<(), Error> {
    // A missing file has size 0.
    let bytes = |suffix| {
        fs::metadata(files::with_suffix(gateway.store.path(), suffix)).map_or(0, |metadata| metadata.len())
    };
    text.number("database_bytes", "gauge", "Size of the database file.", bytes(""));
    text.number("write_ahead_log_bytes", "gauge", "Size of the write-ahead log.", bytes("-wal"));
    let finished = backups::list(gateway, Page { limit: 2, offset: 0 })?;
    if let Some(newest) = finished.iter().find(|backup| backup.progress.is_none()) {
        let seconds = newest.created_at.as_micros() / 1_000_000;
        let help = "When the newest backup was taken, in seconds since 1970.";
        text.number("last_backup_timestamp_seconds", "gauge", help, seconds);
    }
    Ok(())
}

fn answered(text: &mut Text, gateway: &Gateway) {
    let codes = gateway.requests.by_status();
    let codes = codes.into_iter().map(|(status, count)| (format!("{{code=\"{status}\"}}"), count));
    let help = "Requests answered since startup, excluding those the gate refused.";
    text.family("http_requests_total", "counter", help, codes);
    let help = "Time from the arrival of an authorization request to its answer, which is on disk.";
    text.histogram("authorize_duration_seconds", help, &gateway.requests.authorizations());
}

/// The page being built.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP aegis_{name} {help}"));
        self.line(format_args!("# TYPE aegis_{name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a String takes any text");
    }

    fn number(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help, [(String::new(), value)]);
    }

    /// Adds one number per set of labels.
    fn family<T: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, T)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in values {
            self.line(format_args!("aegis_{name}{labels} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        self.head(name, "histogram", help);
        let bounds = BOUNDS_SECONDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(durations.within) {
            self.line(format_args!("aegis_{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        self.line(format_args!("aegis_{name}_sum {}", durations.sum_seconds));
        self.line(format_args!("aegis_{name}_count {}", durations.within[BOUNDS_SECONDS.len()]));
    }
}
