//! `aegis-jcs-1`: the canonical bytes of a JSON value, and SHA-256 over them.
//!
//! Any two programs write the same bytes for the same value: members sorted by code
//! point, no white space, raw UTF-8, numbers as the reference prints them (see
//! [`crate::domain::json`]). The golden files in `tests/golden` pin the format.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::json::Json;

/// The name of this canonical form, carried by every receipt.
pub const VERSION: &str = "aegis-jcs-1";

/// How much of a file is read at a time for its digest.
const READ_BYTES: usize = 256 << 10;

/// The canonical bytes of `value`.
pub fn to_vec(value: &Json) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value);
    out
}

/// Appends the canonical bytes of `value` to `out`.
pub fn write(out: &mut Vec<u8>, value: &Json) {
    match value {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(true) => out.extend_from_slice(b"true"),
        Json::Bool(false) => out.extend_from_slice(b"false"),
        Json::Number(number) => out.extend_from_slice(number.as_str().as_bytes()),
        Json::String(text) => write_string(out, text),
        Json::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Json::Object(members) => {
            let mut object = ObjectWriter::new(out);
            for (name, member) in members {
                write(object.member(name), member);
            }
            object.end();
        }
    }
}

/// Appends `text` as a canonical JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Nearly every text needs no escape. There is no early exit, so that the compiler can
    // vectorise the scan.
    let escapes = bytes.iter().fold(false, |any, &b| any | (b < 0x20) | (b == b'"') | (b == b'\\'));
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if escapes {
        write_escaped(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

fn write_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x00..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        if short == 0 {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
}

/// Writes an object member by member, without building the value first. The caller must
/// write members in ascending order of name; debug builds check it.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
    /// The last name written; tracked in debug builds only.
    last: String,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        ObjectWriter { out, first: true, last: String::new() }
    }

    /// Writes the name and returns the buffer for the value.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate(name);
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// Like [`ObjectWriter::member`], for a fixed name that needs no escape.
    #[inline]
    fn known(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()), "{name}");
        self.separate(name);
        self.out.reserve(name.len() + 3);
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    #[inline]
    fn separate(&mut self, name: &str) {
        if cfg!(debug_assertions) {
            assert!(self.first || self.last.as_str() < name, "{name} is out of order");
            name.clone_into(&mut self.last);
        }
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    /// A string member.
    pub fn string(&mut self, name: &'static str, value: &str) {
        write_string(self.known(name), value);
    }

    /// A string member, or `null` if absent.
    pub fn optional(&mut self, name: &'static str, value: Option<&str>) {
        match value {
            Some(text) => self.string(name, text),
            None => self.known(name).extend_from_slice(b"null"),
        }
    }

    /// An integer member.
    pub fn integer(&mut self, name: &'static str, value: i64) {
        self.known(name).extend_from_slice(value.to_string().as_bytes());
    }

    /// A boolean member.
    pub fn boolean(&mut self, name: &'static str, value: bool) {
        self.known(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// A SHA-256 digest, shown as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(Sha256::digest(bytes).into())
    }

    /// The digest of everything that `input` yields, and its length in bytes.
    pub fn of_reader(mut input: impl Read) -> io::Result<(Self, u64)> {
        let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok((Hash(digest.finalize().into()), bytes)),
                Ok(count) => {
                    digest.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Wraps an existing digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Hash(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads exactly 64 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Some(Hash(bytes))
    }

    /// Compares in time that does not depend on where the two differ.
    pub fn equals_in_constant_time(&self, other: &Hash) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    /// The 64 digits, without allocating.
    pub fn to_hex(self) -> HexDigest {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        HexDigest(digits)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_hex().as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HexDigest([u8; 64]);

impl HexDigest {
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::parse;

    fn golden(name: &str) -> serde_json::Value {
        let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the golden file");
        serde_json::from_str(&text).expect("JSON")
    }

    fn unhex(text: &str) -> Vec<u8> {
        let value = |digit| hex_value(digit).expect("a hexadecimal digit");
        text.as_bytes().chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
    }

    fn text<'a>(case: &'a serde_json::Value, member: &str) -> &'a str {
        case[member].as_str().expect("a string")
    }

    #[test]
    fn a_file_s_digest_is_that_of_its_bytes_however_they_come() {
        let bytes: Vec<u8> = (0..READ_BYTES + 7).map(|at| (at % 251) as u8).collect();
        let (first, rest) = bytes.split_at(5);
        let (hash, count) = Hash::of_reader(first.chain(rest)).expect("read");
        assert_eq!((hash, count), (Hash::of(&bytes), bytes.len() as u64));
    }

    #[test]
    fn every_corner_case_has_the_golden_bytes_and_hash() {
        let cases = golden("canonical_corner_cases.json");
        let cases = cases["canonical"].as_array().expect("cases");
        assert!(cases.len() >= 82);
        for case in cases {
            let read = parse(&unhex(text(case, "input_hex")));
            let value = read.unwrap_or_else(|error| panic!("{}: {error}", text(case, "name")));
            let bytes = to_vec(&value);
            assert_eq!(String::from_utf8_lossy(&bytes), text(case, "canonical"));
            assert_eq!(Hash::of(&bytes).to_string(), text(case, "sha256"));
        }
    }

    #[test]
    fn every_ambiguous_or_malformed_corner_case_is_refused() {
        let cases = golden("canonical_corner_cases.json");
        let cases = cases["reject"].as_array().expect("cases");
        assert!(cases.len() >= 42);
        for case in cases {
            let read = parse(&unhex(text(case, "input_hex")));
            assert!(read.is_err(), "{} was accepted: {read:?}", text(case, "name"));
        }
    }

    #[test]
    fn canonical_bytes_read_back_as_the_same_value() {
        for case in golden("canonical_corner_cases.json")["canonical"].as_array().expect("cases") {
            let bytes = unhex(text(case, "input_hex"));
            let value = parse(&bytes).expect("valid");
            let again = parse(&to_vec(&value)).expect("canonical bytes are valid JSON");
            assert_eq!(to_vec(&again), to_vec(&value));
        }
    }

    #[test]
    fn a_hash_reads_its_own_text_and_no_other_form() {
        let hash = Hash::of(b"abc");
        let digits = hash.to_string();
        assert_eq!(Hash::parse(&digits), Some(hash));
        for wrong in [&digits[1..], &digits.to_uppercase(), &format!("sha256:{digits}"), ""] {
            assert_eq!(Hash::parse(wrong), None, "{wrong}");
        }
    }
}
