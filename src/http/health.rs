//! The probes: no credential, and no secret in the answer.

use serde_json::json;

use crate::service::{Error, health as service};

use super::message::Response;
use super::router::Call;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /health`
pub(crate) fn health(call: &Call<'_>) -> Result<Response, Error> {
    Ok(match service::readiness(call.gateway) {
        Ok(()) => Response::of(200, &json!({ "status": "healthy", "version": VERSION, "db": "up" })),
        Err(reason) => Response::of(
            503,
            &json!({ "status": "unhealthy", "version": VERSION, "db": "down", "reason": reason }),
        ),
    })
}

/// `GET /readyz`
pub(crate) fn readyz(call: &Call<'_>) -> Result<Response, Error> {
    Ok(match service::readiness(call.gateway) {
        Ok(()) => Response::of(200, &json!({ "status": "ready", "version": VERSION, "db": "up" })),
        Err(reason) => Response::of(503, &json!({ "status": "not ready", "db": "down", "reason": reason })),
    })
}

/// `GET /livez`
pub(crate) fn livez(_call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &json!({ "status": "alive" })))
}

/// `GET /startupz`: the listener opens after the start has finished.
pub(crate) fn startupz(_call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::of(200, &json!({ "status": "started" })))
}
