//! Renders a request head for the service, without I/O.
//!
//! Never forwards hop-by-hop headers, or the client's own claims about framing or its address.
//! Invariant: the output is HTTP/1.1 with at most one Content-Length, the actual one, and
//! exactly one X-Peer.

use super::framing::{Head, Header};

/// Hop-by-hop headers (RFC 9110 section 7.6.1), framing, and headers only the gate may set.
/// `tiny_http` would act on Connection, TE and Expect, so none of them may reach it.
const NOT_FORWARDED: [&str; 11] = [
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Expect",
    "Content-Length",
    "HTTP2-Settings",
    "X-Peer",
    "X-Gate-Proof",
];

/// Writes the request line and headers; [`end_head`] completes the head.
pub(super) fn begin_head(head: &Head<'_>, peer_line: &str, out: &mut Vec<u8>) {
    out.clear();
    for part in [head.method, " ", head.origin, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for header in head.headers.iter().filter(|h| is_forwarded(h)) {
        for part in [header.name, ": ", header.value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(peer_line.as_bytes());
}

/// Ends the head, adding the length of the body if one was framed.
pub(super) fn end_head(framed: Option<usize>, out: &mut Vec<u8>) {
    if let Some(length) = framed {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(length.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn is_forwarded(header: &Header<'_>) -> bool {
    let proxy = header.name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("Proxy-"));
    !proxy && !NOT_FORWARDED.iter().any(|name| header.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::gate::framing::parse_head;
    use crate::http::gate::limits::Limits;

    fn forwarded(head: &[u8], framed: Option<usize>) -> String {
        let mut out = Vec::new();
        let head = parse_head(head, &Limits::default()).expect("a good head");
        begin_head(&head, "X-Peer: 127.0.0.1:9\r\n", &mut out);
        end_head(framed, &mut out);
        String::from_utf8(out).expect("ascii")
    }

    #[test]
    fn headers_about_the_connection_are_not_passed_on() {
        let head = b"POST http://a/x?y HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\nTe: trailers\r\nproxy-authorization: x\r\nupgrade: h2c\r\nexpect: 100-continue\r\nx-peer: 6.6.6.6:6\r\nContent-Length: 07\r\nA:  b \r\n\r\n";
        assert_eq!(
            forwarded(head, Some(7)),
            "POST /x?y HTTP/1.1\r\nhost: a\r\nA: b\r\nX-Peer: 127.0.0.1:9\r\nContent-Length: 7\r\n\r\n"
        );
    }

    #[test]
    fn no_framed_body_means_no_content_length() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(forwarded(head, None), "POST / HTTP/1.1\r\nHost: a\r\nX-Peer: 127.0.0.1:9\r\n\r\n");
    }
}
