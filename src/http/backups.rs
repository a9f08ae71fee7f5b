//! `POST /v1/admin/backup` and `/v1/admin/backups`

use std::io::Read;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::fetch::Opened;
use crate::backup::list::{Kind, Listed};
use crate::domain::time::Timestamp;
use crate::service::{Error, backups};

use super::body::typed;
use super::digest::repr_digest;
use super::error;
use super::message::{Reply, Response, Stream};
use super::query::Query;
use super::router::Call;

/// Files up to this size are read in advance, so they are sent whole or not at all.
const HELD_BYTES_MAX: u64 = 1 << 20;

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

/// Takes a backup and responds once it is complete, checked and synced.
pub(crate) fn create(call: &Call<'_>) -> Result<Response, Error> {
    let body: BackupBody = typed(call.request)?;
    let finished = backups::create(call.gateway, call.actor()?, &body.filename)?;
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

#[derive(Serialize)]
struct ListedBody<'a> {
    name: &'a str,
    bytes: u64,
    created_at: Timestamp,
    head: Option<HeadBody<'a>>,
    verified: bool,
    manifest: Option<&'a str>,
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
}

#[derive(Serialize)]
struct HeadBody<'a> {
    seq: i64,
    receipt_hash: &'a str,
}

fn shown(listed: &Listed) -> ListedBody<'_> {
    let head = listed.head.as_ref();
    ListedBody {
        name: &listed.name,
        bytes: listed.bytes,
        created_at: listed.created_at,
        head: head.map(|head| HeadBody { seq: head.seq, receipt_hash: &head.receipt_hash }),
        verified: listed.verified,
        manifest: listed.manifest.as_deref(),
        running: listed.progress.is_some(),
        progress: listed.progress,
    }
}

/// `GET /v1/admin/backups`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let listed = backups::list(call.gateway, Query::parse(&call.request.query, Query::PAGE)?.page()?)?;
    Ok(Response::of(200, &listed.iter().map(shown).collect::<Vec<_>>()))
}

/// `GET /v1/admin/backups/{id}`: a large file is sent on a thread of its own, so that no
/// worker waits for a slow reader.
pub(crate) fn fetch(call: &Call<'_>, reply: Reply) {
    let response = backups::fetch(call.gateway, &call.id).and_then(|opened| fetched(&call.id, opened));
    let response = response.unwrap_or_else(|error| error::response(&error));
    if response.stream.is_none() || call.request.method == "HEAD" {
        return reply.send(response);
    }
    // If no thread can be started, the reply is dropped, which answers 500.
    if let Err(error) = thread::Builder::new().name("fetch".to_owned()).spawn(|| reply.send(response)) {
        log::error!("cannot start a thread to send a backup: {error}");
    }
}

fn fetched(name: &str, opened: Opened) -> Result<Response, Error> {
    let Opened { kind, bytes, sha256, mut content } = opened;
    let response = if bytes <= HELD_BYTES_MAX {
        let mut body = Vec::new();
        content
            .read_to_end(&mut body)
            .map_err(|error| Error::Busy(format!("the backup cannot be read now: {error}")))?;
        Response::json(200, body)
    } else {
        Response::streamed(200, Stream { bytes, reader: Box::new(content) })
    };
    let content_type = match kind {
        Kind::Backup => "application/vnd.sqlite3",
        Kind::Manifest => "application/json",
        Kind::Digest => "text/plain; charset=utf-8",
    };
    let response = response.with("Content-Type", content_type).with("Content-Disposition", attachment(name));
    Ok(match sha256 {
        Some(sha256) => {
            response.with("Repr-Digest", repr_digest(&sha256)).with("X-Content-SHA256", sha256.to_string())
        }
        None => response,
    })
}

/// The name in both forms of RFC 6266: with unsafe characters replaced for old clients, and
/// exact but percent-encoded (RFC 8187).
fn attachment(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let simple: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let encode = |byte: u8| match char::from(byte) {
        c if plain(c) => c.to_string(),
        _ => format!("%{byte:02X}"),
    };
    let encoded: String = name.bytes().map(encode).collect();
    format!("attachment; filename=\"{simple}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_in_a_header_as_ascii() {
        assert_eq!(attachment("a-1.db"), "attachment; filename=\"a-1.db\"; filename*=UTF-8''a-1.db");
        assert_eq!(
            attachment("K\u{f6}ln \"1\";.db"),
            "attachment; filename=\"K_ln__1__.db\"; filename*=UTF-8''K%C3%B6ln%20%221%22%3B.db"
        );
    }
}
