//! `/v1/receipts`

use serde_json::{Value, json};

use crate::domain::json::Json;
use crate::domain::time::Timestamp;
use crate::service::Error;
use crate::service::receipts::{self, ChainVerdict};

use super::body::{self, object};
use super::message::Response;
use super::query::Query;
use super::router::Call;

/// `GET /v1/receipts`
pub(crate) fn list(call: &Call<'_>) -> Result<Response, Error> {
    let names = &["order", "before", "cursor", "after", "limit", "offset"];
    let query = Query::parse(&call.request.query, names)?;
    let order = query.parsed("order", "asc or desc", |order| match order {
        "asc" => Some(true),
        "desc" => Some(false),
        _ => None,
    })?;
    let body = receipts::list(call.gateway, &query.keys()?, query.page()?, order.unwrap_or(false))?;
    Ok(Response::json(200, body))
}

/// `GET /v1/receipts/{id}`
pub(crate) fn get(call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::json(200, receipts::get(call.gateway, &call.id)?))
}

/// `GET /v1/receipts/{id}/verify`
pub(crate) fn verify(call: &Call<'_>) -> Result<Response, Error> {
    let verified = receipts::verify_one(call.gateway, &call.id)?;
    let body = json!({
        "receipt_id": verified.receipt_id,
        "verified": verified.verified,
        "receipt_hash": verified.receipt_hash,
        "recomputed_hash": verified.recomputed_hash.to_string(),
        "prev_receipt_hash": verified.prev_receipt_hash,
        "signed": false,
        "signature_verified": null,
        "signer_public_key": null,
        "signer_key_id": null,
    });
    Ok(Response::of(200, &body))
}

/// `GET /v1/receipts/chain-head`
pub(crate) fn chain_head(call: &Call<'_>) -> Result<Response, Error> {
    let head = receipts::chain_head(call.gateway)?.map(|head| {
        json!({
            "receipt_id": head.receipt_id,
            "receipt_hash": head.receipt_hash,
            "prev_receipt_hash": head.prev_receipt_hash,
            "canon_version": head.canon_version,
            "seq": head.seq,
            "ts": head.ts,
        })
    });
    Ok(Response::of(200, &json!({ "head": head })))
}

/// `POST /v1/receipts/verify-chain`: `{"receipts": […]}`, or the bare list as returned by
/// `GET /v1/receipts`.
pub(crate) fn verify_chain(call: &Call<'_>) -> Result<Response, Error> {
    let receipts = match body::json(call.request)? {
        Json::Object(members) => members.into_iter().find(|(name, _)| name == "receipts"),
        Json::Array(receipts) => return Ok(shown(&receipts::verify_chain(&receipts))),
        _ => return Err(Error::BadRequest("the body must be a JSON object or array".to_owned())),
    };
    match receipts {
        Some((_, Json::Array(receipts))) => Ok(shown(&receipts::verify_chain(&receipts))),
        Some(_) => Err(Error::BadRequest("receipts must be an array".to_owned())),
        None => Err(Error::BadRequest("the body does not fit: missing field `receipts`".to_owned())),
    }
}

/// `POST /v1/receipts/verify-range`
pub(crate) fn verify_range(call: &Call<'_>) -> Result<Response, Error> {
    let (from, to) = if call.request.body.is_empty() {
        (None, None)
    } else {
        let body = object(call.request)?;
        (bound(&body, "from")?, bound(&body, "to")?)
    };
    Ok(shown(&receipts::verify_range(call.gateway, from, to)?))
}

fn bound(body: &Json, name: &str) -> Result<Option<Timestamp>, Error> {
    let expected = || Error::BadRequest(format!("{name} must be an RFC 3339 time"));
    match body.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => value.as_str().and_then(Timestamp::parse).map(Some).ok_or_else(expected),
    }
}

fn shown(verdict: &ChainVerdict) -> Response {
    let summary = &verdict.summary;
    let body: Value = json!({
        "verified": summary.is_whole(),
        "count": summary.receipts,
        "error": verdict.error,
        "proven_from": summary.proven_from,
        "head_hash": summary.head_hash,
    });
    Response::of(200, &body)
}
