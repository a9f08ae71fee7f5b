//! Parses the head of the service's answer, strictly and without I/O.
//!
//! Never guesses where an answer ends. Invariant: an answer accepted here has exactly one
//! length, so its connection is in sync once that many bytes have been read.

use std::ops::Range;

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// Length of the head in bytes, including the blank line.
    pub(super) bytes: usize,
    /// Length of the body that follows on this connection, in bytes.
    pub(super) body: u64,
    /// The Content-Length line to remove, if the status forbids it (204).
    pub(super) cut: Option<Range<usize>>,
}

/// The service sent something the gate cannot relay as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadAnswer;

/// Parses a head at the start of `bytes`; returns `None` while it is incomplete.
pub(super) fn parse_answer(bytes: &[u8], to_head: bool) -> Result<Option<AnswerHead>, BadAnswer> {
    let mut at = 0;
    let mut status = None;
    let mut length: Option<(u64, Range<usize>)> = None;
    loop {
        let Some(end) = bytes[at..].iter().position(|&b| b == b'\n') else {
            return Ok(None);
        };
        let span = at..at + end + 1;
        let line = bytes[span.clone()].strip_suffix(b"\r\n").ok_or(BadAnswer)?;
        at = span.end;
        let Some(status) = status else {
            status = Some(status_line(line)?);
            continue;
        };
        if line.is_empty() {
            let (length, span) = length.ok_or(BadAnswer)?;
            let bodiless = to_head || matches!(status, 204 | 304);
            return Ok(Some(AnswerHead {
                bytes: at,
                body: if bodiless { 0 } else { length },
                cut: (status == 204).then_some(span),
            }));
        }
        let colon = line.iter().position(|&b| b == b':').ok_or(BadAnswer)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"Transfer-Encoding") || value.contains(&b'\r') {
            return Err(BadAnswer);
        }
        if name.eq_ignore_ascii_case(b"Content-Length") {
            if length.is_some() {
                return Err(BadAnswer);
            }
            length = Some((decimal(value)?, span));
        }
    }
}

/// `HTTP/1.1 nnn reason`. Interim answers cannot occur, because Expect is not forwarded.
fn status_line(line: &[u8]) -> Result<u16, BadAnswer> {
    let rest = line.strip_prefix(b"HTTP/1.1 ").ok_or(BadAnswer)?;
    let (code, rest) = rest.split_at_checked(3).ok_or(BadAnswer)?;
    if !matches!(rest.first(), None | Some(b' ')) {
        return Err(BadAnswer);
    }
    let code = u16::try_from(decimal(code)?).map_err(|_| BadAnswer)?;
    if (200..=599).contains(&code) { Ok(code) } else { Err(BadAnswer) }
}

fn decimal(digits: &[u8]) -> Result<u64, BadAnswer> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadAnswer);
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(BadAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_exactly_one_length_is_refused() {
        for bad in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            "garbage\r\n",
        ] {
            assert_eq!(parse_answer(bad.as_bytes(), false), Err(BadAnswer), "{bad:?}");
        }
    }

    #[test]
    fn the_length_of_an_answer_follows_its_status_and_method() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\nbody";
        let parsed = parse_answer(head, false).expect("good").expect("whole");
        assert_eq!((parsed.bytes, parsed.body, parsed.cut), (head.len() - 4, 12, None));
        assert_eq!(parse_answer(head, true).expect("good").expect("whole").body, 0);
        let empty = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        let parsed = parse_answer(empty, false).expect("good").expect("whole");
        assert_eq!(parsed.cut, Some(25..44));
        for cut in 0..empty.len() {
            assert_eq!(parse_answer(&empty[..cut], false), Ok(None), "{cut}");
        }
    }
}
