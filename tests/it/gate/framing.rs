//! The pure parsers: what they accept means one thing, also to httparse; what a mutated
//! head does is never a panic.

use aegis_gateway::http::gate::Limits;
use aegis_gateway::http::gate::chunked::ChunkDecoder;
use aegis_gateway::http::gate::framing::{Framing, Head, HeadScan, parse_head};

fn limits() -> Limits {
    Limits::default()
}

fn status(head: &str) -> u16 {
    match parse_head(head.as_bytes(), &limits()) {
        Ok(_) => 200,
        Err(refusal) => refusal.status,
    }
}

#[test]
fn a_request_line_has_exactly_one_reading() {
    for (line, expected) in [
        ("GET / HTTP/1.1", 200),
        ("GET /?a=b HTTP/1.0", 200),
        ("OPTIONS * HTTP/1.1", 200),
        ("M-SEARCH /x HTTP/1.1", 200),
        ("GET http://a/x HTTP/1.1", 200),
        ("GET HTTP://A HTTP/1.1", 200),
        ("GET http://b/x HTTP/1.1", 400),
        ("GET http://u@a/x HTTP/1.1", 400),
        ("GET ftp://a/x HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET x HTTP/1.1", 400),
        ("GET /# HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / ", 400),
        ("GET /", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("G@T / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("PRI * HTTP/2.0", 505),
        ("CONNECT a:1 HTTP/1.1", 501),
        ("GET /\u{e9} HTTP/1.1", 400),
        ("GET /\u{0} HTTP/1.1", 400),
        ("GET /\u{7f} HTTP/1.1", 400),
        ("", 400),
    ] {
        assert_eq!(status(&format!("{line}\r\nHost: a\r\n\r\n")), expected, "{line:?}");
    }
    let long = "x".repeat(9000);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), 414);
}

#[test]
fn a_header_line_has_exactly_one_reading() {
    for (lines, expected) in [
        ("Host: a", 200),
        ("hOsT:a\r\nX:\t b c\t", 200),
        ("Host: a\r\nX:", 200),
        ("Host : a", 400),
        ("Host: a\r\n X: folded", 400),
        (" Host: a", 400),
        ("Host: a\r\nX: b\r\n\tfolded", 400),
        ("Host: a\r\n: b", 400),
        ("Host: a\r\nno colon", 400),
        ("Host: a\r\nX\u{0}: b", 400),
        ("Host: a\r\nX: \u{0}", 400),
        ("Host: a\r\nX: \u{1b}", 400),
        ("Host: a\r\nX: \u{e9}", 400),
        ("Host: a\r\nX: b\rc", 400),
        ("Host: a\nX: b", 400),
    ] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n")), expected, "{lines:?}");
    }
}

#[test]
fn a_host_is_one_and_valid() {
    for (lines, expected) in [
        ("Host: a", 200),
        ("Host: a:80", 200),
        ("Host: [::1]:80", 200),
        ("Host: 127.0.0.1:8080", 200),
        ("X: y", 400),
        ("Host:", 400),
        ("Host: a\r\nHost: a", 400),
        ("Host: a\r\nhost: b", 400),
        ("Host: a b", 400),
        ("Host: a,b@c", 400),
        ("Host: a/b", 400),
        ("Host: a:x", 400),
        ("Host: a:808080", 400),
        ("Host: [::1", 400),
        ("Host: []", 400),
        ("Host: :80", 400),
    ] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n")), expected, "{lines:?}");
    }
    assert_eq!(status("GET / HTTP/1.0\r\nX: y\r\n\r\n"), 200);
}

#[test]
fn a_body_has_exactly_one_framing() {
    for (lines, expected) in [
        ("Content-Length: 0", 200),
        ("Content-Length: 007", 200),
        ("Content-Length: 99999999999999999999999", 413),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 5,5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5.0", 400),
        ("Content-Length:", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\ncontent-length: 6", 400),
        ("Transfer-Encoding: chunked", 200),
        ("Transfer-Encoding: CHUNKED", 200),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: \"chunked\"", 501),
        ("Transfer-Encoding: chunked;q=1", 501),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\u{b}: chunked", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        assert_eq!(status(&head), expected, "{lines:?}");
    }
    assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn keep_alive_follows_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: close", false),
        ("1.1", "Connection: keep-alive, Close", false),
        ("1.1", "Connection: x\r\nConnection: close", false),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n\r\n");
        let head = parse_head(head.as_bytes(), &limits()).expect("good");
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
    }
}

#[test]
fn a_head_is_found_however_it_arrives() {
    let whole = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let length = whole.len() - 3;
    for step in 1..whole.len() {
        let mut scan = HeadScan::default();
        let mut found = None;
        let mut given = 0;
        while found.is_none() {
            given = (given + step).min(whole.len());
            found = scan.advance(&whole[..given], &limits()).expect("a good head");
        }
        assert_eq!(found, Some(length), "in steps of {step}");
    }
}

#[test]
fn a_hopeless_head_is_refused_before_it_ends() {
    for (begun, expected) in [
        (&b"\x16\x03\x01\x02\x00"[..], 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\rX", 400),
        (b"\n", 400),
        (b"\r\n", 400),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET / HTTP/1.1\r\nX: \xff", 400),
    ] {
        let refusal = HeadScan::default().advance(begun, &limits()).expect_err("refused");
        assert_eq!(refusal.status, expected, "{begun:?}");
    }
    let endless = [b'a'; 20_000];
    assert_eq!(HeadScan::default().advance(&endless, &limits()).expect_err("long").status, 414);
    let header = [&b"GET / HTTP/1.1\r\nX: "[..], &endless].concat();
    assert_eq!(HeadScan::default().advance(&header, &limits()).expect_err("long").status, 431);
    let many = format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(101));
    let refusal = HeadScan::default().advance(many.as_bytes(), &limits()).expect_err("many");
    assert_eq!(refusal.status, 431);
}

/// Decodes in pieces of `step`; the body and how much was taken.
fn decode(input: &[u8], step: usize, max: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
    let mut decoder = ChunkDecoder::new(max);
    let (mut body, mut taken) = (Vec::new(), 0);
    for piece in input.chunks(step) {
        taken += decoder.push(piece, &mut body).map_err(|refusal| refusal.status)?;
        if decoder.is_done() {
            return Ok(Some((body, taken)));
        }
    }
    Ok(None)
}

#[test]
fn a_chunked_body_ends_exactly_where_it_says() {
    let input = b"3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nT: v\r\nU:\r\n\r\nGET /next";
    for step in 1..input.len() {
        let (body, taken) = decode(input, step, 100).expect("good").expect("whole");
        assert_eq!(body, b"abc0123456789");
        assert_eq!(&input[taken..], b"GET /next", "in steps of {step}");
    }
    assert_eq!(decode(&input[..20], 1, 100), Ok(None));
}

#[test]
fn a_malformed_chunk_is_refused() {
    for (input, expected) in [
        ("\r\n", 400),
        ("x\r\n", 400),
        ("0x3\r\nabc\r\n", 400),
        ("+3\r\nabc", 400),
        ("-1\r\n", 400),
        (" 3\r\nabc", 400),
        ("3 \r\nabc", 400),
        ("3\nabc", 400),
        ("3\rabc", 400),
        ("3\r\nabcd", 400),
        ("3\r\nabc\n", 400),
        ("3\r\nabc\r\r", 400),
        (";x\r\n", 400),
        ("3;\u{0}\r\n", 400),
        ("123456789\r\n", 400),
        ("000000003\r\nabc", 400),
        ("ffffffff\r\n", 413),
        ("65\r\n", 413),
        ("60\r\n", 200),
        ("0\r\n: v\r\n\r\n", 400),
        ("0\r\nT\r\n\r\n", 400),
        ("0\r\nT: v\n\r\n", 400),
        ("0\r\n T: v\r\n\r\n", 400),
        ("0\r\n\n", 400),
    ] {
        let got = decode(input.as_bytes(), 1, 100).err().unwrap_or(200);
        assert_eq!(got, expected, "{input:?}");
    }
    let endless = format!("3;{}", "x".repeat(5000));
    assert_eq!(decode(endless.as_bytes(), 7, 100), Err(400));
    let trailers = format!("0\r\n{}", "T: v\r\n".repeat(2000));
    assert_eq!(decode(trailers.as_bytes(), 7, 100), Err(400));
}

/// A small reproducible source of numbers (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % limit
    }
}

const SEEDS: [&[u8]; 5] = [
    b"GET /v1/x?a=%20b HTTP/1.1\r\nHost: a.example:80\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n",
    b"GET http://a/b HTTP/1.0\r\nHost: a\r\nX-Peer: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nA:\r\nB:  \t c \t\r\n\r\n",
];
const TOKENS: [&[u8]; 14] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\xff",
    b"Host: b\r\n",
    b"HTTP/1.1",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b",",
    b"/",
];

fn mutate(numbers: &mut Numbers, bytes: &mut Vec<u8>) {
    let at = numbers.below(bytes.len() + 1);
    match numbers.below(4) {
        0 if at < bytes.len() => bytes[at] = u8::try_from(numbers.below(256)).expect("a byte"),
        1 if at < bytes.len() => drop(bytes.remove(at)),
        2 => drop(bytes.splice(at..at, TOKENS[numbers.below(TOKENS.len())].iter().copied())),
        _ => {
            let end = at + numbers.below(bytes.len() - at + 1);
            let copied = bytes[at..end].to_vec();
            let to = numbers.below(bytes.len() + 1);
            drop(bytes.splice(to..to, copied));
        }
    }
}

#[test]
fn what_we_accept_httparse_accepts_and_reads_the_same() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let limits = limits();
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..200_000 {
        let mut bytes = SEEDS[round % SEEDS.len()].to_vec();
        for _ in 0..numbers.below(4) {
            mutate(&mut numbers, &mut bytes);
        }
        let scanned = HeadScan::default().advance(&bytes, &limits);
        let Ok(Some(length)) = scanned else {
            refused += 1;
            continue;
        };
        match parse_head(&bytes[..length], &limits) {
            Ok(head) => {
                accepted += 1;
                agrees(&head, &bytes, length);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 20_000 && refused > 20_000, "{accepted} accepted, {refused} refused");
}

fn agrees(head: &Head<'_>, bytes: &[u8], length: usize) {
    let shown = String::from_utf8_lossy(bytes);
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut oracle = httparse::Request::new(&mut headers);
    let parsed = oracle.parse(bytes).unwrap_or_else(|e| panic!("{e}: {shown:?}"));
    assert_eq!(parsed, httparse::Status::Complete(length), "{shown:?}");
    assert_eq!(oracle.method, Some(head.method), "{shown:?}");
    assert_eq!(oracle.path, Some(head.target), "{shown:?}");
    assert_eq!(oracle.version, Some(head.minor), "{shown:?}");
    assert_eq!(oracle.headers.len(), head.headers.len(), "{shown:?}");
    for (theirs, ours) in oracle.headers.iter().zip(&head.headers) {
        assert_eq!((theirs.name, theirs.value), (ours.name, ours.value.as_bytes()), "{shown:?}");
    }
    let framings = head
        .headers
        .iter()
        .filter(|h| {
            h.name.eq_ignore_ascii_case("content-length") || h.name.eq_ignore_ascii_case("transfer-encoding")
        })
        .count();
    assert_eq!(framings, usize::from(head.framing != Framing::None), "{shown:?}");
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let mut numbers = Numbers(42);
    let limits = limits();
    let chunks = b"3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
    for round in 0..100_000 {
        let mut bytes = if round % 2 == 0 { chunks.to_vec() } else { SEEDS[round % SEEDS.len()].to_vec() };
        for _ in 0..numbers.below(8) {
            mutate(&mut numbers, &mut bytes);
        }
        // Straight into the second stage too, without the scan that guards it.
        drop(parse_head(&bytes, &limits));
        let step = 1 + numbers.below(9);
        if let Ok(Some((body, taken))) = decode(&bytes, step, 64) {
            assert!(body.len() <= 64 && taken <= bytes.len());
            assert_eq!(decode(&bytes, bytes.len(), 64), Ok(Some((body, taken))), "{bytes:?}");
        }
    }
}
