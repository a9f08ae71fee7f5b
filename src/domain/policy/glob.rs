//! Globs: `*` matches any run of characters, including none, and `?` exactly one. Nothing
//! else is special and there is no escape: use `?` to match a literal asterisk.
//!
//! # Performance
//! Time is linear in the text, whatever the glob: there is no backtracking for a caller to
//! provoke with a long resource. If `*` is the only wildcard, each literal part between two
//! of them is searched for once, after the previous one (with the standard library's search,
//! also linear). A glob with a `?` is a bit-parallel automaton that advances all states on
//! each character. That is some ten times slower, so it runs only if the text contains the
//! glob's longest literal part.

/// Maximum length of a glob, in characters.
pub const GLOB_CHARS_MAX: usize = 255;

const WORDS: usize = (GLOB_CHARS_MAX + 1) / 64;

/// State `i` is bit `i`: the first `i` symbols have been matched.
type States = [u64; WORDS];

/// A compiled glob. Two are equal if their texts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    kind: Kind,
}

/// What matching a glob costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// No wildcard: one comparison.
    Compared,
    /// Only `*`: one search through the text.
    Searched,
    /// With a `?`: one step per character.
    Walked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// No wildcard.
    Exact,
    /// No wildcard but `*`: the prefix, the parts that must follow in order, and the suffix.
    Parts(String, Vec<String>, String),
    /// With a `?`: a literal that every match contains, and the automaton.
    Automaton(String, Box<Automaton>),
}

impl Glob {
    /// Compiles a glob; `None` if it has more than [`GLOB_CHARS_MAX`] characters.
    pub fn new(text: &str) -> Option<Self> {
        if text.chars().count() > GLOB_CHARS_MAX {
            return None;
        }
        let kind = if text.contains('?') {
            let literal = text.split(['*', '?']).max_by_key(|part| part.len()).unwrap_or("");
            Kind::Automaton(literal.to_owned(), Box::new(Automaton::new(text)))
        } else if let Some((first, rest)) = text.split_once('*') {
            let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
            let between = between.split('*').filter(|part| !part.is_empty());
            Kind::Parts(first.to_owned(), between.map(str::to_owned).collect(), last.to_owned())
        } else {
            Kind::Exact
        };
        Some(Glob { text: text.to_owned(), kind })
    }

    /// Whether it matches all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Exact => self.text == text,
            Kind::Parts(first, between, last) => {
                let Some(rest) = text.strip_prefix(first.as_str()) else { return false };
                let Some(rest) = rest.strip_suffix(last.as_str()) else { return false };
                // Taking the first occurrence is safe: it leaves the most text for the rest.
                between.iter().try_fold(rest, |rest, part| Some(rest.split_once(part.as_str())?.1)).is_some()
            }
            Kind::Automaton(literal, automaton) => text.contains(literal) && automaton.matches(text),
        }
    }

    /// How much work matching it takes.
    pub fn cost(&self) -> Cost {
        match self.kind {
            Kind::Exact => Cost::Compared,
            Kind::Parts(..) => Cost::Searched,
            Kind::Automaton(..) => Cost::Walked,
        }
    }

    /// The only text it matches, if it has no wildcard.
    pub fn exact(&self) -> Option<&str> {
        matches!(self.kind, Kind::Exact).then_some(self.text.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Automaton {
    /// For each literal character, sorted, the states it advances.
    literals: Vec<(char, States)>,
    /// The states that any character advances: at a `?`.
    any: States,
    /// The states that any character leaves active: at a `*`.
    stay: States,
    /// The number of symbols, which is also the accepting state.
    end: usize,
}

impl Automaton {
    fn new(text: &str) -> Self {
        let mut automaton = Automaton { literals: Vec::new(), any: [0; WORDS], stay: [0; WORDS], end: 0 };
        for symbol in text.chars() {
            match symbol {
                '*' => {
                    set(&mut automaton.stay, automaton.end);
                    continue;
                }
                '?' => set(&mut automaton.any, automaton.end),
                literal => automaton.add_literal(literal),
            }
            automaton.end += 1;
        }
        automaton
    }

    fn add_literal(&mut self, literal: char) {
        let at = match self.literals.binary_search_by_key(&literal, |(known, _)| *known) {
            Ok(at) => at,
            Err(at) => {
                self.literals.insert(at, (literal, [0; WORDS]));
                at
            }
        };
        set(&mut self.literals[at].1, self.end);
    }

    fn matches(&self, text: &str) -> bool {
        let mut states = [0; WORDS];
        set(&mut states, 0);
        for c in text.chars() {
            states = self.advance(states, c);
            if states == [0; WORDS] {
                return false;
            }
        }
        states[self.end / 64] >> (self.end % 64) & 1 == 1
    }

    fn advance(&self, states: States, c: char) -> States {
        let found = self.literals.binary_search_by_key(&c, |(literal, _)| *literal);
        let literal = found.map_or([0; WORDS], |at| self.literals[at].1);
        let (mut next, mut carry) = ([0; WORDS], 0);
        for word in 0..WORDS {
            let moving = states[word] & (literal[word] | self.any[word]);
            next[word] = (moving << 1) | carry | (states[word] & self.stay[word]);
            carry = moving >> 63;
        }
        next
    }
}

fn set(states: &mut States, at: usize) {
    states[at / 64] |= 1 << (at % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, text: &str) -> bool {
        Glob::new(glob).expect("short enough").matches(text)
    }

    #[test]
    fn a_glob_matches_the_whole_text_and_nothing_else_is_special() {
        for (glob, yes, no) in [
            ("abc", vec!["abc"], vec!["ab", "abcd", "ABC", ""]),
            ("*", vec!["", "a", "a/b\nc", "\u{1f600}"], vec![]),
            ("**", vec!["", "ab"], vec![]),
            ("?", vec!["a", "\u{1f600}", "*", "?"], vec!["", "ab"]),
            ("a*", vec!["a", "ab"], vec!["", "ba"]),
            ("*a", vec!["a", "ba"], vec!["ab"]),
            ("ab*ba", vec!["abba", "abxba"], vec!["aba", "ab", "abb"]),
            ("*b*", vec!["b", "abc"], vec!["", "ac"]),
            ("a?c*e", vec!["abce", "axcxxe"], vec!["ace", "abc"]),
            ("*a?b*c", vec!["axbc", "aaxbbc", "xxaxbxxc"], vec!["abc", "axb"]),
            ("s3://b?cket/*/x-*", vec!["s3://bucket/a/b/x-", "s3://bocket//x-1"], vec!["s3://bucket/x-"]),
            ("[a-z].{2}\\*", vec!["[a-z].{2}\\", "[a-z].{2}\\x"], vec!["a.xx"]),
            ("caf\u{e9}?", vec!["caf\u{e9}s"], vec!["caf\u{e9}", "cafes"]),
        ] {
            for text in yes {
                assert!(matches(glob, text), "{glob} {text}");
            }
            for text in no {
                assert!(!matches(glob, text), "{glob} {text}");
            }
        }
    }

    /// The definition as code: slow but obvious.
    fn by_definition(glob: &[char], text: &[char]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), _) => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            (Some(('?', rest)), Some((_, more))) => by_definition(rest, more),
            (Some((c, rest)), Some((d, more))) => c == d && by_definition(rest, more),
            (Some(_), None) => false,
        }
    }

    #[test]
    fn every_short_glob_matches_as_its_definition_says() {
        let all = |letters: [char; 4], length: u32| {
            (0..4_usize.pow(length)).map(move |number| {
                let letter = |at: u32| letters[number / 4_usize.pow(at) % 4];
                (0..length).map(letter).collect::<Vec<char>>()
            })
        };
        for length in 0..=4 {
            for pattern in all(['a', 'b', '*', '?'], length) {
                let glob = Glob::new(&pattern.iter().collect::<String>()).expect("short");
                for text in (0..=4).flat_map(|length| all(['a', 'b', 'c', '*'], length)) {
                    let expected = by_definition(&pattern, &text);
                    assert_eq!(
                        glob.matches(&text.iter().collect::<String>()),
                        expected,
                        "{pattern:?} {text:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_longest_glob_uses_every_state() {
        let longest = "?".repeat(GLOB_CHARS_MAX);
        assert!(matches(&longest, &"x".repeat(GLOB_CHARS_MAX)));
        assert!(!matches(&longest, &"x".repeat(GLOB_CHARS_MAX - 1)));
        assert!(!matches(&longest, &"x".repeat(GLOB_CHARS_MAX + 1)));
        let odd = format!("*{}?b", "a".repeat(GLOB_CHARS_MAX - 3));
        assert!(matches(&odd, &format!("{}b", "a".repeat(8000))));
        assert!(!matches(&odd, &"a".repeat(8000)));
        assert_eq!(Glob::new(&"x".repeat(GLOB_CHARS_MAX + 1)), None);
    }
}
