//! `POST /v1/admin/backup`

use serde::{Deserialize, Serialize};

use crate::service::{Error, backups};

use super::body::typed;
use super::message::Response;
use super::router::Call;

#[derive(Deserialize)]
struct BackupBody {
    filename: String,
}

#[derive(Serialize)]
struct FinishedBody<'a> {
    path: &'a str,
    size_bytes: u64,
    sha256: String,
    duration_ms: u64,
    receipts: u64,
    head_seq: i64,
    head_hash: &'a str,
    schema_version: u32,
}

/// Writes a backup and answers when it is whole, checked and synced.
pub(crate) fn create(call: &Call<'_>) -> Result<Response, Error> {
    let body: BackupBody = typed(call.request)?;
    let finished = backups::create(call.gateway, &body.filename)?;
    let path = finished.path.to_string_lossy();
    Ok(Response::of(
        200,
        &FinishedBody {
            path: &path,
            size_bytes: finished.size_bytes,
            sha256: finished.sha256.to_string(),
            duration_ms: u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX),
            receipts: finished.chain.receipts,
            head_seq: finished.chain.head_seq.unwrap_or(0),
            head_hash: &finished.chain.head_hash,
            schema_version: finished.schema_version,
        },
    ))
}
