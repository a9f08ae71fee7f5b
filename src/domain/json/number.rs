//! Numbers, held and printed as the reference implementation does.

/// Maximum number of digits in an integer: the reference's limit, which is CPython's.
pub const INTEGER_DIGITS_MAX: usize = 4300;

/// A number in canonical text, as the reference prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(pub(super) String);

impl Number {
    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it was written without a fraction or an exponent.
    pub fn is_integer(&self) -> bool {
        !self.0.contains(['.', 'e'])
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Number(value.to_string())
    }
}

/// The shortest digits that read back as `value`, formatted as the reference does:
/// positional for exponents from -4 to 15, otherwise `d.ddde±XX`.
///
/// The digits come from `serde_json`, which breaks ties to even as the reference
/// does; the standard library's `{:e}` breaks some ties the other way.
pub(super) fn float_text(value: f64) -> String {
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

/// Significant digits without leading or trailing zeros, and the decimal exponent of the first.
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
    use super::super::{Json, parse};
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
}
