//! Requests and responses as plain values, independent of sockets.

use std::io::Read;
use std::net::IpAddr;
use std::time::Instant;

use serde::Serialize;

use super::error;

/// A complete request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, as sent.
    pub method: String,
    /// The path, as sent: not decoded, without the query.
    pub path: String,
    /// The query, as sent.
    pub query: String,
    /// The credential of `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// Whether the client framed a body, empty or not.
    pub framed: bool,
    /// The body.
    pub body: Vec<u8>,
    /// The signature in `X-Aegis-Request-Signature`, if that header occurs exactly once.
    pub signature: Option<String>,
    /// The sender's address as the gate saw it; behind a proxy, the proxy's.
    pub peer: Option<IpAddr>,
    /// When it arrived.
    pub received: Instant,
}

/// Sends one response to the client, from any thread. If dropped unsent, for example by a
/// panic, it answers 500.
pub struct Reply {
    send: Option<Box<SendOnce>>,
    by: Option<String>,
}

/// Takes the response and the name of the operator who made the request, if any.
type SendOnce = dyn FnOnce(Response, Option<&str>) + Send;

impl Reply {
    /// Creates a reply that `send` delivers to the client.
    pub fn new(send: impl FnOnce(Response, Option<&str>) + Send + 'static) -> Self {
        Reply { send: Some(Box::new(send)), by: None }
    }

    /// Records whose request it is, for the log.
    pub fn set_operator(&mut self, name: &str) {
        self.by = Some(name.to_owned());
    }

    /// Sends the response.
    pub fn send(mut self, response: Response) {
        self.send_once(response);
    }

    fn send_once(&mut self, response: Response) {
        if let Some(send) = self.send.take() {
            send(response, self.by.as_deref());
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.send.is_some() {
            self.send_once(error::failure(500, "the request failed inside the gateway"));
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("is_open", &self.send.is_some()).field("by", &self.by).finish()
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The body, JSON.
    pub body: Vec<u8>,
    /// Sent instead of the body if it is too large to hold in memory.
    pub stream: Option<Stream>,
    /// Headers besides type and length.
    pub headers: Vec<(&'static str, String)>,
}

/// A body that is read while it is sent.
pub struct Stream {
    /// Its length. The reader yields exactly this many bytes, or fails.
    pub bytes: u64,
    /// Its bytes.
    pub reader: Box<dyn Read + Send>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Response {
    /// A response whose body is read while it is sent.
    pub fn streamed(status: u16, stream: Stream) -> Self {
        Response { status, body: Vec::new(), stream: Some(stream), headers: Vec::new() }
    }

    /// A response whose body is already JSON text.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Response { status, body, stream: None, headers: Vec::new() }
    }

    /// A response with `value` as JSON.
    pub fn of(status: u16, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("responses are maps with string keys");
        Response::json(status, body)
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
