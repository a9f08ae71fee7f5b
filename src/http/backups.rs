//! `POST /v1/admin/backup`

use std::time::Duration;

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
    steps_ms: StepsBody,
    receipts: u64,
    head_seq: i64,
    head_hash: &'a str,
    schema_version: u32,
    backup_id: &'a str,
    chain_id: &'a str,
    manifest: &'a str,
}

#[derive(Serialize)]
struct StepsBody {
    copy: u64,
    pages: u64,
    chain: u64,
    digest: u64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a backup and answers when it is whole, checked and synced.
pub(crate) fn create(call: &Call<'_>) -> Result<Response, Error> {
    let body: BackupBody = typed(call.request)?;
    let finished = backups::create(call.gateway, &body.filename)?;
    let (path, manifest) = (finished.path.to_string_lossy(), finished.manifest.to_string_lossy());
    Ok(Response::of(
        200,
        &FinishedBody {
            path: &path,
            size_bytes: finished.size_bytes,
            sha256: finished.sha256.to_string(),
            duration_ms: millis(finished.duration),
            steps_ms: StepsBody {
                copy: millis(finished.steps.copy),
                pages: millis(finished.steps.pages),
                chain: millis(finished.steps.chain),
                digest: millis(finished.steps.digest),
            },
            receipts: finished.chain.receipts,
            head_seq: finished.chain.head_seq.unwrap_or(0),
            head_hash: &finished.chain.head_hash,
            schema_version: finished.schema_version,
            backup_id: &finished.backup_id,
            chain_id: &finished.chain_id,
            manifest: &manifest,
        },
    ))
}
