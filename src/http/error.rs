//! The one mapping from errors to what the client sees.
//!
//! Clients get a stable reason and a message; causes are logged once, here.

use serde_json::{Value, json};

use crate::domain::signature::Fault;
use crate::service::Error;
use crate::store::Error as StoreError;
use crate::throttle::Throttle;

use super::message::Response;

/// Seconds after which a client may retry.
const RETRY_AFTER_SECONDS: u64 = 5;

/// While the database fails, every request does.
static UNAVAILABLE: Throttle = Throttle::new(module_path!());

/// The response to a failed request.
pub fn response(error: &Error) -> Response {
    let message = error.to_string();
    match error {
        Error::BadRequest(_) => failure(400, &message),
        Error::Invalid(_) => failure(422, &message),
        Error::Unauthorized => failure(401, &message).with("WWW-Authenticate", "Bearer"),
        Error::Unsigned(fault) => {
            let reason = match fault {
                Fault::Missing => "missing_request_signature",
                Fault::Invalid => "invalid_request_signature",
            };
            failure_of(401, reason_of(401), &message, Some(reason)).with("WWW-Authenticate", "Bearer")
        }
        Error::TooManyRequests { retry_after_seconds, .. } => {
            failure(429, &message).with("Retry-After", retry_after_seconds.to_string())
        }
        Error::Forbidden(_) => failure(403, &message),
        Error::AnotherAgent => failure_of(403, "Forbidden", &message, Some("agent_mismatch")),
        Error::Elsewhere { decision_id } => {
            let mut details = json!({ "reason": "environment_not_allowed" });
            if let Some(id) = decision_id {
                details["decision_id"] = json!(id);
            }
            failure_with(403, "Forbidden", &message, details)
        }
        Error::NotFound(_) => failure(404, &message),
        Error::AlreadyExists(_) => failure_of(409, "AlreadyExists", &message, None),
        Error::Conflict { reason, .. } => failure_of(409, "Conflict", &message, Some(reason)),
        Error::ApprovalStands { status, reason, .. } => {
            failure_with(409, "Conflict", &message, json!({ "status": status, "reason": reason }))
        }
        Error::Busy(_) | Error::Stopping => failure(503, &message),
        Error::NoRoom(_) => failure(507, &message),
        Error::Store(cause) if cause.is_stop() => failure(503, "the gateway is stopping"),
        Error::Store(cause) if cause.is_disk_full() => unavailable(error, "the disk is full", "disk_full"),
        Error::Store(cause) if cause.is_write_refused() => {
            unavailable(error, "the disk is full or refuses to be written to", "disk_full")
        }
        Error::Store(StoreError::Panicked) => internal(error, "the request failed inside the gateway"),
        Error::Store(_) => unavailable(error, "the database failed", "database"),
        Error::Backup { .. } => {
            internal(error, "the backup failed and left nothing behind; the log says why")
        }
        Error::BackupFolder { .. } => internal(error, "the backup folder cannot be read; the log says why"),
        Error::Entropy(_) => internal(error, "the system gave no randomness"),
    }
}

fn unavailable(error: &Error, message: &str, reason: &str) -> Response {
    UNAVAILABLE.error(error);
    failure_of(503, "ServiceUnavailable", &format!("{message}; the request had no effect"), Some(reason))
}

fn internal(error: &Error, message: &str) -> Response {
    log::error!("{error}");
    failure(500, message)
}

/// An error response in the common shape.
pub fn failure(status: u16, message: &str) -> Response {
    failure_of(status, reason_of(status), message, None)
}

/// The body of an error in the common shape, for errors raised before a request is read.
pub fn failure_body(status: u16, message: &str) -> Vec<u8> {
    failure(status, message).body
}

fn failure_of(status: u16, reason: &str, message: &str, detail: Option<&str>) -> Response {
    let details = detail.map_or(Value::Null, |detail| json!({ "reason": detail }));
    failure_with(status, reason, message, details)
}

fn failure_with(status: u16, reason: &str, message: &str, details: Value) -> Response {
    let mut body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status,
    });
    if !details.is_null() {
        body["details"] = details;
    }
    let response = Response::of(status, &body);
    if status == 503 {
        return response.with("Retry-After", RETRY_AFTER_SECONDS.to_string());
    }
    response
}

fn reason_of(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 | 504 => "Timeout",
        409 => "Conflict",
        411 => "LengthRequired",
        413 => "PayloadTooLarge",
        414 => "UriTooLong",
        417 => "ExpectationFailed",
        422 => "Invalid",
        429 => "TooManyRequests",
        431 => "RequestHeaderFieldsTooLarge",
        501 => "NotImplemented",
        503 => "ServiceUnavailable",
        505 => "HttpVersionNotSupported",
        507 => "InsufficientStorage",
        _ => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_shape_is_the_contract_s() {
        let body: serde_json::Value = serde_json::from_slice(&failure_body(503, "why")).expect("JSON");
        assert_eq!(
            body,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "why",
                   "reason": "ServiceUnavailable", "code": 503})
        );
        assert!(failure(503, "why").headers.contains(&("Retry-After", "5".to_owned())));
    }

    #[test]
    fn what_the_gate_refuses_has_a_reason_of_its_own() {
        for status in [400, 408, 413, 414, 417, 431, 501, 503, 504, 505] {
            assert_ne!(reason_of(status), reason_of(500), "{status}");
        }
    }

    #[test]
    fn a_disk_is_called_full_only_where_that_is_known() {
        use rusqlite::ffi;
        for (code, expected) in [
            (ffi::SQLITE_FULL, "the disk is full; "),
            (ffi::SQLITE_IOERR_WRITE, "the disk is full or refuses to be written to; "),
            (ffi::SQLITE_IOERR_READ, "the database failed; "),
        ] {
            let cause = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let answer = response(&Error::Store(StoreError::cannot("commit")(cause)));
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let message = body["message"].as_str().expect("text");
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_store_s_cause_is_not_told_to_the_client() {
        let cause = || StoreError::Corrupt("table secret_name is malformed".to_owned());
        let (folder, source) = (PathBuf::from("secret_name"), crate::backup::Error::Store(cause()));
        let unread = Error::BackupFolder { folder: folder.clone(), source: std::io::Error::other("no") };
        let failed = Error::Backup { folder, source };
        for (error, status) in [(Error::Store(cause()), 503), (failed, 500), (unread, 500)] {
            let answer = response(&error);
            assert_eq!(answer.status, status);
            assert!(!String::from_utf8_lossy(&answer.body).contains("secret_name"));
            assert!(error.to_string().contains("secret_name"), "but to the log: {error}");
        }
    }
}
