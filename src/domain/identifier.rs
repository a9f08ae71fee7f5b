//! Names of tools and actions, normalised before they are compared.
//!
//! Registration and lookup both normalise, so `Git%48ub`, ` github ` and `GITHUB`
//! are one tool. The action hash always covers the text as the caller wrote it.

use unicode_normalization::UnicodeNormalization;

/// Percent-decodes once, composes (NFC), trims, and lowercases.
pub fn normalize(text: &str) -> String {
    percent_decode(text, false).map_or_else(|| fold(text), |decoded| fold(&decoded))
}

/// [`normalize`] without percent-decoding. Lowercases each character on its own, so that part
/// of a name folds as it does within the whole (a sigma that ends a glob need not end a
/// word). Composes again afterwards, since some characters have a composed form only in lower
/// case.
fn fold(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.trim().chars().flat_map(char::to_lowercase).nfc().collect()
}

/// Decodes `%XX`, and `+` as a space if `plus_is_space`; `None` if an escape is
/// malformed or the bytes are not UTF-8.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).ok()?
            }
            b'+' if plus_is_space => b' ',
            _ => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tool_has_one_name() {
        for (text, normal) in [
            ("GitHub", "github"),
            (" github\t", "github"),
            ("git%48ub", "github"),
            ("Cafe\u{301}", "caf\u{e9}"),
            ("caf%C3%A9", "caf\u{e9}"),
            ("a%2541", "a%41"),
            ("100%", "100%"),
            ("%ff", "%ff"),
        ] {
            assert_eq!(normalize(text), normal, "{text}");
        }
    }

    #[test]
    fn folding_twice_changes_nothing_more_and_a_part_folds_as_in_the_whole() {
        for text in ["  Payments Service ", "ΑΣΦΑΛΕΙΑ ΑΣ", "J\u{30c}", "100%2541", "İ", "\u{2003}ＡＢ", "ẞ"]
        {
            let once = fold(text);
            assert_eq!(fold(&once), once, "{text}");
        }
        assert!(fold("ΑΣΦΑΛΕΙΑ").starts_with(&fold("ΑΣ")));
    }

    #[test]
    fn a_broken_escape_is_seen() {
        assert_eq!(percent_decode("a%2", false), None);
        assert_eq!(percent_decode("%zz", false), None);
        assert_eq!(percent_decode("a+b%20c", true).as_deref(), Some("a b c"));
        assert_eq!(percent_decode("a+b", false).as_deref(), Some("a+b"));
    }
}
