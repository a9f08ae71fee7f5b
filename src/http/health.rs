//! The probes: they need no credential and reveal no secret.

use serde_json::json;

use crate::service::health::Unready;
use crate::service::{Error, health as service};

use super::message::Response;
use super::router::Call;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /health`
pub(crate) fn health(call: &Call<'_>) -> Result<Response, Error> {
    Ok(match service::readiness(call.gateway) {
        Ok(()) => Response::of(200, &json!({ "status": "healthy", "version": VERSION, "db": "up" })),
        Err(unready) => {
            let (db, reason) = shown(&unready);
            let body = json!({ "status": "unhealthy", "version": VERSION, "db": db, "reason": reason });
            Response::of(503, &body)
        }
    })
}

/// `GET /readyz`
pub(crate) fn readyz(call: &Call<'_>) -> Result<Response, Error> {
    Ok(match service::readiness(call.gateway) {
        Ok(()) => Response::of(200, &json!({ "status": "ready", "version": VERSION, "db": "up" })),
        Err(unready) => {
            let (db, reason) = shown(&unready);
            Response::of(503, &json!({ "status": "not ready", "db": db, "reason": reason }))
        }
    })
}

/// Whether the database is up, and what is wrong.
fn shown(unready: &Unready) -> (&'static str, &str) {
    match unready {
        Unready::Database(reason) => ("down", reason),
        Unready::Server(reason) => ("up", reason),
    }
}

/// `GET /livez`
pub(crate) fn livez(_call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &json!({ "status": "alive" })))
}

/// `GET /startupz`: always succeeds, since the listener opens only after startup.
pub(crate) fn startupz(_call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &json!({ "status": "started" })))
}
