//! Request bodies: JSON, whatever the Content-Type.

use serde::de::DeserializeOwned;

use crate::domain::decode::decode;
use crate::domain::json::{self, Json};
use crate::service::Error;

use super::message::Request;

/// Number of JSON values that every body may have.
const VALUES_MAX: usize = 50_000;
/// A longer body may have one value per this many bytes.
const BYTES_PER_VALUE_MIN: usize = 16;

/// Parses the body as JSON. The limit on values bounds its memory to a few times its length.
pub(crate) fn json(request: &Request) -> Result<Json, Error> {
    let values_max = VALUES_MAX.max(request.body.len() / BYTES_PER_VALUE_MIN);
    json::parse_bounded(&request.body, values_max)
        .map_err(|error| Error::BadRequest(format!("the body is not accepted as JSON: {error}")))
}

/// The body as a JSON object.
pub(crate) fn object(request: &Request) -> Result<Json, Error> {
    members(request).map(Json::Object)
}

/// The members of the body, which must be a JSON object.
pub(crate) fn members(request: &Request) -> Result<Vec<(String, Json)>, Error> {
    match json(request)? {
        Json::Object(members) => Ok(members),
        _ => Err(Error::BadRequest("the body must be a JSON object".to_owned())),
    }
}

/// The body as a typed request.
pub(crate) fn typed<T: DeserializeOwned>(request: &Request) -> Result<T, Error> {
    from_json(&object(request)?)
}

/// A parsed value as a typed request.
pub(crate) fn from_json<T: DeserializeOwned>(value: &Json) -> Result<T, Error> {
    decode(value).map_err(|error| Error::BadRequest(format!("the body does not fit: {error}")))
}

/// Checks that a text has `min` to `max` characters, none of them a control character.
pub(crate) fn checked(name: &str, text: &str, min: usize, max: usize) -> Result<(), Error> {
    let characters = text.chars().count();
    if !(min..=max).contains(&characters) {
        return Err(Error::BadRequest(format!("{name} must have {min} to {max} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::BadRequest(format!("{name} must not have control characters")));
    }
    Ok(())
}

/// Like [`checked`], for an optional text.
pub(crate) fn checked_optional(name: &str, text: Option<&String>, max: usize) -> Result<(), Error> {
    text.map_or(Ok(()), |text| checked(name, text, 0, max))
}
