//! A strict JSON reader that keeps what canonical form needs.
//!
//! One reader serves every request body and every exported receipt, so that what
//! is decoded and what is hashed can never be two readings of the same bytes.
//! It keeps integers digit for digit, and it refuses what two programs could
//! read differently: duplicate member names (after unescaping), lone surrogates,
//! numbers outside binary64, anything RFC 8259 does not allow. No member name has
//! a special meaning.

use std::fmt;

/// Deepest nesting of arrays and objects that is accepted.
pub const DEPTH_MAX: usize = 127;
/// Most digits an integer may have: the limit of the reference (CPython's own).
pub const INTEGER_DIGITS_MAX: usize = 4300;

/// A JSON value. Object members stand sorted by name, which is canonical order.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, held as its canonical text.
    Number(Number),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: unique names in ascending code point order.
    Object(Vec<(String, Json)>),
}

/// A number in canonical text, as the reference prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it was written without a fraction and an exponent.
    pub fn is_integer(&self) -> bool {
        !self.0.contains(['.', 'e'])
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Number(value.to_string())
    }
}

impl Json {
    /// The member of an object, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        let found = members.binary_search_by(|(key, _)| key.as_str().cmp(name));
        found.ok().map(|at| &members[at].1)
    }

    /// Takes a member out of an object, if this is an object that has it.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        let Json::Object(members) = self else { return None };
        let at = members.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        Some(members.remove(at).1)
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => None,
        }
    }
}

/// Why a text is not accepted, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub what: &'static str,
    /// Offset in bytes from the start of the text.
    pub offset: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for SyntaxError {}

/// Reads exactly one JSON value that fills `text`, white space aside.
pub fn parse(text: &[u8]) -> Result<Json, SyntaxError> {
    parse_bounded(text, usize::MAX)
}

/// The same with at most `values_max` values, nested ones included: each takes 32 to 64
/// bytes of memory, where two may do in the text.
pub fn parse_bounded(text: &[u8], values_max: usize) -> Result<Json, SyntaxError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| SyntaxError { what: "invalid UTF-8", offset: error.valid_up_to() })?;
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, values_left: values_max };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.at < reader.bytes.len() {
        return Err(reader.error("unexpected data after the value"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
}

impl Reader<'_> {
    fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError { what, offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.peek() != Some(byte) {
            return Err(self.error(what));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Json, SyntaxError> {
        self.skip_space();
        self.values_left = self.values_left.checked_sub(1).ok_or_else(|| self.error("too many values"))?;
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Json::Number(self.number()?)),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            Some(b'n') => self.literal("null", Json::Null),
            Some(_) => Err(self.error("expected a JSON value")),
            None => Err(self.error("unexpected end of the text")),
        }
    }

    fn literal(&mut self, word: &str, value: Json) -> Result<Json, SyntaxError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Json, SyntaxError> {
        self.open(depth)?;
        let mut items = Vec::new();
        if self.closes(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.closes(b']') {
                return Ok(Json::Array(items));
            }
            self.expect(b',', "expected ',' or ']'")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, SyntaxError> {
        self.open(depth)?;
        let mut members = Vec::new();
        if self.closes(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = match self.peek() {
                Some(b'"') => self.string()?,
                _ => return Err(self.error("expected a member name in double quotes")),
            };
            self.skip_space();
            self.expect(b':', "expected ':'")?;
            members.push((name, self.value(depth)?));
            if self.closes(b'}') {
                return self.sorted(members);
            }
            self.expect(b',', "expected ',' or '}'")?;
        }
    }

    fn open(&mut self, depth: usize) -> Result<(), SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nested deeper than 127 levels"));
        }
        self.at += 1;
        Ok(())
    }

    fn closes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let closes = self.peek() == Some(byte);
        self.at += usize::from(closes);
        closes
    }

    /// UTF-8 sorts bytewise as code points do.
    fn sorted(&self, mut members: Vec<(String, Json)>) -> Result<Json, SyntaxError> {
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(self.error("duplicate member name in one object"));
        }
        Ok(Json::Object(members))
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("a control character must be escaped")),
                None => return Err(self.error("unterminated string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("unknown escape")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let unit = self.hex4()?;
        let code = match unit {
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(self.error("lone surrogate"));
                }
                self.at += 2;
                let low = self.hex4()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(self.error("lone surrogate"));
                }
                0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => unit,
        };
        char::from_u32(code).ok_or_else(|| self.error("lone surrogate"))
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let Some(digits) = self.bytes.get(self.at..self.at + 4) else {
            return Err(self.error("expected four hexadecimal digits"));
        };
        let mut unit = 0;
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return Err(self.error("expected four hexadecimal digits"));
            };
            unit = unit * 16 + value;
        }
        self.at += 4;
        Ok(unit)
    }

    fn number(&mut self) -> Result<Number, SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.error("expected a digit")),
        }
        let integer_digits = self.at - start;
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        let token = &self.text[start..self.at];
        if !integer {
            return self.float(token);
        }
        if integer_digits - usize::from(token.starts_with('-')) > INTEGER_DIGITS_MAX {
            return Err(self.error("an integer of more than 4300 digits"));
        }
        Ok(Number(if token == "-0" { "0".to_owned() } else { token.to_owned() }))
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), SyntaxError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("expected a digit"));
        }
        self.digits();
        Ok(())
    }

    fn float(&self, token: &str) -> Result<Number, SyntaxError> {
        let value: f64 = token.parse().map_err(|_| self.error("expected a number"))?;
        if !value.is_finite() {
            return Err(self.error("a number beyond binary64"));
        }
        Ok(Number(float_text(value)))
    }
}

/// The shortest digits that read back as `value`, laid out as the reference does:
/// positional for exponents from -4 to 15, else `d.ddde±XX`.
///
/// The digits come from `serde_json`, which breaks ties to even as the reference
/// does; the standard library's `{:e}` breaks some ties the other way.
fn float_text(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let (digits, exponent) = shortest_digits(value.abs());
    if !(-4..16).contains(&exponent) {
        let point = if digits.len() > 1 { "." } else { "" };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{}{point}{}e{mark}{:02}", &digits[..1], &digits[1..], exponent.abs());
    }
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).expect("an exponent from -4 to -1");
        return format!("{sign}0.{}{digits}", "0".repeat(zeros));
    }
    let whole = usize::try_from(exponent + 1).expect("an exponent from 0 to 15");
    if digits.len() <= whole {
        return format!("{sign}{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

/// Significant digits without zeros at either end, and the decimal exponent of the first.
fn shortest_digits(value: f64) -> (String, i32) {
    let text = serde_json::Number::from_f64(value).expect("finite").to_string();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().expect("serde_json writes a decimal exponent");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return ("0".to_owned(), 0);
    }
    let count = |text: &str| i32::try_from(text.len()).expect("a float has few digits");
    let first = exponent + count(whole) - 1 - (count(&all) - count(digits));
    (digits.trim_end_matches('0').to_owned(), first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> String {
        match parse(text.as_bytes()) {
            Ok(Json::Number(number)) => number.0,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn floats_are_printed_as_the_reference_prints_them() {
        for (input, printed) in [
            ("0.0", "0.0"),
            ("-0.0", "-0.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("0.0001", "0.0001"),
            ("0.00012345", "0.00012345"),
            ("1e-5", "1e-05"),
            ("123456789012345678.0", "1.2345678901234568e+17"),
            ("269104963418610.62", "269104963418610.62"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("5e-324", "5e-324"),
        ] {
            assert_eq!(number(input), printed, "{input}");
        }
    }

    #[test]
    fn integers_keep_every_digit() {
        let long = "9".repeat(INTEGER_DIGITS_MAX);
        assert_eq!(number(&long), long);
        assert_eq!(number(&format!("-{long}")), format!("-{long}"));
        assert!(parse(format!("{long}9").as_bytes()).is_err());
        assert_eq!(number("-0"), "0");
    }

    #[test]
    fn an_error_names_its_place() {
        let error = parse(b"{\"a\": tru}").expect_err("not JSON");
        assert_eq!(error.to_string(), "expected a JSON value at byte 6");
    }
}
