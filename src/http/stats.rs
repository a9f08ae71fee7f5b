//! `/v1/stats`, `/v1/admin/db-stats` and `/v1/version`: statistics and version.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::policy::Outcome;
use crate::service::{Error, stats as service};

use super::message::Response;
use super::router::Call;

/// Identifies the build, if that was set at compile time.
const BUILD_HASH: Option<&str> = option_env!("AEGIS_BUILD_HASH");

/// `GET /v1/stats`
pub(crate) fn stats(call: &Call<'_>) -> Result<Response, Error> {
    let stats = service::stats(call.gateway)?;
    let of = |outcome: Outcome| -> i64 {
        let kinds = stats.decisions.iter().filter(|kind| kind.outcome == outcome.as_str());
        kinds.map(|kind| kind.count).sum()
    };
    let mut levels: BTreeMap<&str, i64> = BTreeMap::new();
    for kind in &stats.decisions {
        *levels.entry(&kind.trust_level).or_default() += kind.count;
    }
    let level = |(level, count)| json!({ "trust_level": level, "count": count });
    let body = json!({
        "total_decisions": stats.decisions.iter().map(|kind| kind.count).sum::<i64>(),
        "decisions_allow": of(Outcome::Allow),
        "decisions_deny": of(Outcome::Deny),
        "decisions_require_approval": of(Outcome::RequireApproval),
        "decisions_redact": of(Outcome::Redact),
        "total_agents": stats.agents,
        "total_receipts": stats.receipts,
        "trust_level_breakdown": levels.into_iter().map(level).collect::<Vec<Value>>(),
    });
    Ok(Response::of(200, &body))
}

/// `GET /v1/admin/db-stats`
pub(crate) fn sizes(call: &Call<'_>) -> Result<Response, Error> {
    let sizes = service::sizes(call.gateway)?;
    let tables = sizes.tables.iter().map(|(table, rows)| json!({ "table": table, "row_count": rows }));
    let tables: Vec<Value> = tables.collect();
    Ok(Response::of(200, &json!({ "size_bytes": sizes.bytes, "tables": tables })))
}

/// `GET /v1/version`
pub(crate) fn version(_call: &Call<'_>) -> Result<Response, Error> {
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build_hash": BUILD_HASH.unwrap_or("unknown"),
        "name": env!("CARGO_PKG_NAME"),
    });
    Ok(Response::of(200, &body))
}
