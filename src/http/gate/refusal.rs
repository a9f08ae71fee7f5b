//! Errors that the gate itself returns, before or instead of the service.
//!
//! Each message is one fixed sentence that reveals nothing about the request or the machine.
//! Every such answer closes its connection, so bytes that follow a refused request are never
//! read as another request.

use std::fmt;

/// A refused request: its status and one sentence for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The message for the client.
    pub message: &'static str,
}

/// Renders the body of an error response (`application/json`) from status and message.
pub type RenderError = fn(status: u16, message: &str) -> Vec<u8>;

macro_rules! refusals {
    ($($name:ident = $status:literal, $message:literal;)*) => {
        impl Refusal {
            $(
                #[doc = $message]
                pub(super) const $name: Refusal = Refusal { status: $status, message: $message };
            )*
        }
    };
}

refusals! {
    REQUEST_LINE = 400, "the request line is malformed";
    HEADER_LINE = 400, "a header line is malformed";
    BARE_LINE_END = 400, "a line does not end in CR LF";
    BYTES = 400, "the request head contains a byte that is not allowed";
    TRUNCATED = 400, "the request ended before it was complete";
    HOST = 400, "the request needs exactly one valid Host header";
    FRAMING = 400, "the body's framing is missing, repeated or ambiguous";
    CHUNK = 400, "the chunked body is malformed";
    HEAD_TIMEOUT = 408, "the request head did not arrive in time";
    BODY_TIMEOUT = 408, "the request body did not arrive in time";
    BODY = 413, "the request body is too large";
    TARGET = 414, "the request target is too long";
    EXPECTATION = 417, "the expectation is not supported";
    HEADERS = 431, "the request headers are too large";
    ANSWER = 500, "the service's answer could not be relayed";
    CODING = 501, "the transfer coding is not supported";
    METHOD = 501, "the method is not supported";
    CONNECTIONS = 503, "too many connections";
    MEMORY = 503, "too much data is in flight";
    UPSTREAM = 503, "the service is busy";
    LOST = 503, "the connection to the service was lost before it answered";
    ANSWER_TIMEOUT = 504, "the service did not answer in time";
    VERSION = 505, "only HTTP/1.0 and HTTP/1.1 are supported";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

impl Refusal {
    /// The whole response, without its body for a HEAD request (RFC 9110 section 9.3.2).
    pub(super) fn answer(&self, render: RenderError, to_head: bool) -> Vec<u8> {
        let body = render(self.status, self.message);
        let retry = if self.status == 503 { "Retry-After: 5\r\n" } else { "" };
        let mut answer = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry}Connection: close\r\n\r\n",
            self.status,
            phrase(self.status),
            body.len(),
        )
        .into_bytes();
        if !to_head {
            answer.extend_from_slice(&body);
        }
        answer
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    }
}
