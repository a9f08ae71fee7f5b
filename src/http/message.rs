//! A request and a response as plain values, without a socket.

use std::time::Instant;

use serde::Serialize;

use super::error;

/// A request, read whole.
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
    /// Whether the client stated a body, empty or not.
    pub framed: bool,
    /// The body.
    pub body: Vec<u8>,
    /// Features that a header asks for and that are not there.
    pub signed: bool,
    /// When it came.
    pub received: Instant,
}

/// The way back to the client: one response, sent from whichever thread has it.
/// Dropped unsent, as by a panic, it answers 500.
pub struct Reply(Option<Box<dyn FnOnce(Response) + Send>>);

impl Reply {
    /// A reply that `send` carries to the client.
    pub fn new(send: impl FnOnce(Response) + Send + 'static) -> Self {
        Reply(Some(Box::new(send)))
    }

    /// Answers.
    pub fn send(mut self, response: Response) {
        if let Some(send) = self.0.take() {
            send(response);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(error::failure(500, "the request failed inside the gateway"));
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reply").field(&self.0.is_some()).finish()
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The body, JSON.
    pub body: Vec<u8>,
    /// Headers beside the type and the length.
    pub headers: Vec<(&'static str, String)>,
}

impl Response {
    /// A JSON text that is made already.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Response { status, body, headers: Vec::new() }
    }

    /// A value as JSON.
    pub fn of(status: u16, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("answers are maps with string keys");
        Response::json(status, body)
    }

    /// The same with another header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
