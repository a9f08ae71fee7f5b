//! Parses a request head: a pure function from bytes to a request or a refusal.
//!
//! Uses no socket, clock or shared state, and never panics, so it can be fuzzed in isolation.
//! It is stricter than RFC 9112 wherever two parsers could disagree. Invariant: a head
//! accepted here has exactly one meaning, so nothing behind the gate can be tricked into
//! seeing a second request in it. Refused although often tolerated: a bare LF, folded lines,
//! space before the colon, bytes above 0x7E, two framings, two Hosts, lists in
//! Content-Length, any transfer coding but `chunked`.

use super::limits::Limits;
use super::refusal::Refusal;

/// How the request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body was framed, which differs from a body of length 0.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// One header line, its value trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name as sent.
    pub name: &'a str,
    /// The value: visible ASCII, spaces and tabs.
    pub value: &'a str,
}

/// A request head with exactly one meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method, a token.
    pub method: &'a str,
    /// The target as sent.
    pub target: &'a str,
    /// The target in origin form (`/path?query`), or `*`.
    pub origin: &'a str,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// All header lines in order.
    pub headers: Vec<Header<'a>>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants to keep using the connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before its body.
    pub expects_continue: bool,
}

/// Finds the end of a head in bytes that arrive piecemeal. Examines each byte once, and
/// refuses at the first byte or request line that cannot be part of a head.
#[derive(Debug, Default)]
pub struct HeadScan {
    examined: usize,
    line_start: usize,
    lines: usize,
}

impl HeadScan {
    /// Examines what was added to `bytes` since the last call; returns the head's length once
    /// it is complete.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        while self.examined < bytes.len() {
            let at = self.examined;
            if at >= limits.head_bytes_max {
                return Err(self.too_long());
            }
            match bytes[at] {
                b'\n' => {
                    if at == self.line_start || bytes[at - 1] != b'\r' {
                        return Err(Refusal::BARE_LINE_END);
                    }
                    let line = &bytes[self.line_start..at - 1];
                    self.examined = at + 1;
                    if self.end_line(line, limits)? {
                        return Ok(Some(at + 1));
                    }
                    self.line_start = at + 1;
                    continue;
                }
                // A CR is valid only before an LF: refuse once the next byte is something else.
                _ if at > self.line_start && bytes[at - 1] == b'\r' => {
                    return Err(Refusal::BARE_LINE_END);
                }
                b'\r' | b'\t' | 0x20..=0x7e => self.examined = at + 1,
                _ => return Err(Refusal::BYTES),
            }
        }
        Ok(None)
    }

    /// Whether this line ends the head.
    fn end_line(&mut self, line: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        if self.lines == 0 {
            // RFC 9112 section 2.2 lets a server skip an empty line before the request line.
            // Clients that send one are long gone, and refusing is unambiguous.
            request_line(line, limits)?;
        } else if line.is_empty() {
            return Ok(true);
        } else if self.lines > limits.header_lines_max {
            return Err(Refusal::HEADERS);
        }
        self.lines += 1;
        Ok(false)
    }

    fn too_long(&self) -> Refusal {
        if self.lines == 0 { Refusal::TARGET } else { Refusal::HEADERS }
    }
}

/// Parses a whole head, from the request line to the blank line, with nothing after it.
pub fn parse_head<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, Refusal> {
    let mut lines = Lines { rest: bytes };
    let (method, target, minor) = request_line(lines.next_line()?, limits)?;
    let mut headers = Vec::with_capacity(16);
    loop {
        let line = lines.next_line()?;
        if line.is_empty() {
            break;
        }
        if headers.len() == limits.header_lines_max {
            return Err(Refusal::HEADERS);
        }
        headers.push(header_line(line)?);
    }
    if !lines.rest.is_empty() {
        return Err(Refusal::BYTES);
    }
    interpret(method, target, minor, headers)
}

/// The lines of a head, each ended by CR LF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Result<&'a [u8], Refusal> {
        let end = self.rest.iter().position(|&b| b == b'\n').ok_or(Refusal::TRUNCATED)?;
        let (line, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        line.strip_suffix(b"\r\n").ok_or(Refusal::BARE_LINE_END)
    }
}

fn request_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(&'a str, &'a str, u8), Refusal> {
    let mut words = line.split(|&b| b == b' ');
    let (method, target, version) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version), None) => (method, target, version),
        _ => return Err(Refusal::REQUEST_LINE),
    };
    if method.is_empty() || method.len() > METHOD_BYTES_MAX || !method.iter().all(|&b| is_token(b)) {
        return Err(Refusal::REQUEST_LINE);
    }
    if target.is_empty() || !target.iter().all(|&b| is_target(b)) {
        return Err(Refusal::REQUEST_LINE);
    }
    let minor = version_minor(version)?;
    if target.len() > limits.target_bytes_max {
        return Err(Refusal::TARGET);
    }
    Ok((text(method)?, text(target)?, minor))
}

/// Long enough for every registered method.
const METHOD_BYTES_MAX: usize = 32;

fn version_minor(version: &[u8]) -> Result<u8, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::VERSION)
        }
        _ => Err(Refusal::REQUEST_LINE),
    }
}

fn header_line(line: &[u8]) -> Result<Header<'_>, Refusal> {
    let colon = line.iter().position(|&b| b == b':').ok_or(Refusal::HEADER_LINE)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // An empty name, a folded line and a space before the colon all fail here.
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return Err(Refusal::HEADER_LINE);
    }
    if !value.iter().all(|&b| matches!(b, b'\t' | 0x20..=0x7e)) {
        return Err(Refusal::BYTES);
    }
    Ok(Header { name: text(name)?, value: text(value)?.trim_matches([' ', '\t']) })
}

/// Interprets the lines, or refuses if they have no single meaning.
fn interpret<'a>(
    method: &'a str,
    target: &'a str,
    minor: u8,
    headers: Vec<Header<'a>>,
) -> Result<Head<'a>, Refusal> {
    let host = single(&headers, "Host", Refusal::HOST)?;
    if (host.is_none() && minor == 1) || host.is_some_and(|h| !is_host(h)) {
        return Err(Refusal::HOST);
    }
    let origin = origin_form(method, target, host)?;
    let framing = framing(&headers, minor)?;
    let keep_alive = keep_alive(&headers, minor);
    let expects_continue = match single(&headers, "Expect", Refusal::EXPECTATION)? {
        None => false,
        Some(value) if value.eq_ignore_ascii_case("100-continue") => minor == 1,
        Some(_) => return Err(Refusal::EXPECTATION),
    };
    Ok(Head { method, target, origin, minor, headers, framing, keep_alive, expects_continue })
}

fn framing(headers: &[Header<'_>], minor: u8) -> Result<Framing, Refusal> {
    let length = single(headers, "Content-Length", Refusal::FRAMING)?;
    let coding = single(headers, "Transfer-Encoding", Refusal::FRAMING)?;
    match (length, coding) {
        (None, None) => Ok(Framing::None),
        (Some(digits), None) => content_length(digits).map(Framing::Length),
        (Some(_), Some(_)) => Err(Refusal::FRAMING),
        (None, Some(_)) if minor == 0 => Err(Refusal::FRAMING),
        (None, Some(name)) if name.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (None, Some(name)) if name.is_empty() || name.contains(',') => Err(Refusal::FRAMING),
        (None, Some(_)) => Err(Refusal::CODING),
    }
}

/// RFC 9110 section 8.6: only digits. A number that does not fit into `u64` is too large.
fn content_length(digits: &str) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refusal::FRAMING);
    }
    digits.parse().map_err(|_| Refusal::BODY)
}

/// RFC 9112 section 9.3. `close` wins over `keep-alive`.
fn keep_alive(headers: &[Header<'_>], minor: u8) -> bool {
    let says = |token: &str| {
        headers
            .iter()
            .filter(|h| h.name.eq_ignore_ascii_case("Connection"))
            .flat_map(|h| h.value.split(','))
            .any(|t| t.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
    };
    !says("close") && (minor == 1 || says("keep-alive"))
}

/// RFC 9112 section 3.2: a path, an absolute URI naming the same host, or `*` for OPTIONS.
fn origin_form<'a>(method: &str, target: &'a str, host: Option<&str>) -> Result<&'a str, Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::METHOD);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::REQUEST_LINE)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::REQUEST_LINE);
    }
    let path = rest.find('/').unwrap_or(rest.len());
    let authority = &rest[..path];
    // The RFC says the target's authority overrides Host. If they differ, the request can be
    // read in two ways, so it is refused instead.
    if !is_host(authority) || host.is_some_and(|h| !h.eq_ignore_ascii_case(authority)) {
        return Err(Refusal::HOST);
    }
    Ok(if path == rest.len() { "/" } else { &rest[path..] })
}

/// The value of a header that may appear at most once.
fn single<'a>(headers: &[Header<'a>], name: &str, twice: Refusal) -> Result<Option<&'a str>, Refusal> {
    let mut found = headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
    let first = found.next().map(|h| h.value);
    if found.next().is_some() { Err(twice) } else { Ok(first) }
}

/// RFC 3986 `uri-host [ ":" port ]`, checked by character set: no user, no path, not empty.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let bracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let good_name = match bracketed {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
        }
        None => !name.is_empty() && name.bytes().all(is_host_byte),
    };
    good_name && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Visible ASCII except `#`: a request target has no fragment.
fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

/// Converts bytes that the caller has checked to be ASCII.
fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).map_err(|_| Refusal::BYTES)
}
