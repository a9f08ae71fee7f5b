//! Reading a document of rules, strictly.
//!
//! What does not parse, names what is not known, or could never apply is refused, and the
//! refusal says where: a rule that silently does nothing would be a hole that looks like
//! a fence.

use std::collections::HashSet;
use std::fmt;

use super::glob::{GLOB_CHARS_MAX, Glob};
use super::matching::{Conditions, Parameter, at};
use super::{Outcome, Rule};
use crate::domain::agent::RiskTier;
use crate::domain::canon::{self, Hash};
use crate::domain::identifier::normalize;
use crate::domain::json::{self, Json};
use crate::domain::trust::TrustLevel;

/// Bytes of a document.
pub const BYTES_MAX: usize = 512 * 1024;
/// Rules of a document, and of all active ones together.
pub const RULES_MAX: usize = 5_000;
/// Alternatives in one member of `when`, fields of one rule, and parameters of one rule.
const ITEMS_MAX: usize = 100;
/// Characters of a rule's id.
const ID_CHARS_MAX: usize = 64;
/// Characters of a reason.
const REASON_CHARS_MAX: usize = 1024;
/// Characters of a group's or a field's name, and of a path.
const NAME_CHARS_MAX: usize = 256;

const RULE_MEMBERS: [&str; 6] = ["id", "effect", "when", "reason", "approver_group", "redact_fields"];
const WHEN_MEMBERS: [&str; 9] = [
    "agent",
    "tool",
    "action",
    "resource",
    "mutates_state",
    "source_trust",
    "risk_tier",
    "environment",
    "parameters",
];

/// A document that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its rules, in its order.
    pub rules: Vec<Rule>,
    /// SHA-256 of its canonical form.
    pub sha256: Hash,
}

/// Why a document is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where: `rules[3].when.source_trust`; empty for the document itself.
    pub place: String,
    /// What is wrong, and what is expected.
    pub what: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.what),
            place => write!(f, "{place}: {}", self.what),
        }
    }
}

impl std::error::Error for Refused {}

/// Whether `text` may name a rule or a policy: such names are joined by `/` and `,`.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// What [`is_name`] asks for, in words.
pub const NAME_EXPECTED: &str = "expected 1 to 64 of the letters a-z and A-Z, digits, '.', '-' and '_'";

/// Reads a document.
pub fn parse(text: &str) -> Result<Document, Refused> {
    let top = Place(String::new());
    if text.len() > BYTES_MAX {
        return top.refuse(format!("the document has more than {BYTES_MAX} bytes"));
    }
    let value = json::parse(text.as_bytes()).or_else(|error| top.refuse(format!("not JSON: {error}")))?;
    top.check_members(&value, &["rules"])?;
    let sha256 = Hash::of(&canon::to_vec(&value));
    let place = top.member("rules");
    let Some(Json::Array(items)) = value.get("rules") else {
        return place.refuse("expected an array of rules");
    };
    if items.is_empty() || items.len() > RULES_MAX {
        return place.refuse(format!("expected 1 to {RULES_MAX} rules"));
    }
    let rules = items.iter().enumerate().map(|(index, item)| rule(item, &place.item(index)));
    let rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
    let mut ids = HashSet::new();
    match rules.iter().position(|rule| !ids.insert(rule.id.as_str())) {
        Some(index) => place.item(index).member("id").refuse("another rule has this id"),
        None => Ok(Document { rules, sha256 }),
    }
}

/// Where the reader stands.
struct Place(String);

impl Place {
    fn member(&self, name: &str) -> Place {
        let dot = if self.0.is_empty() { "" } else { "." };
        Place(format!("{}{dot}{name}", self.0))
    }

    fn item(&self, index: usize) -> Place {
        Place(format!("{}[{index}]", self.0))
    }

    fn refuse<T>(&self, what: impl Into<String>) -> Result<T, Refused> {
        Err(Refused { place: self.0.clone(), what: what.into() })
    }

    /// The value is an object, and every member of it is known.
    fn check_members(&self, value: &Json, known: &[&str]) -> Result<(), Refused> {
        let Json::Object(members) = value else { return self.refuse("expected an object") };
        match members.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => {
                self.refuse(format!("unknown member {name:?}; known are {}", known.join(", ")))
            }
            None => Ok(()),
        }
    }

    /// A text of 1 to `max` characters, and no control characters.
    fn text(&self, value: &Json, max: usize) -> Result<String, Refused> {
        let text = value.as_str().map_or_else(|| self.refuse("expected a text"), Ok)?;
        if text.trim().is_empty() || text.chars().count() > max || text.chars().any(char::is_control) {
            return self.refuse(format!("expected 1 to {max} characters, and no control characters"));
        }
        Ok(text.to_owned())
    }

    /// One value or several, each of them once.
    fn alternatives<T: PartialEq>(
        &self,
        value: &Json,
        read: impl Fn(&Place, &Json) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let Json::Array(items) = value else { return Ok(vec![read(self, value)?]) };
        if items.is_empty() || items.len() > ITEMS_MAX {
            return self.refuse(format!("expected one value or 1 to {ITEMS_MAX} of them"));
        }
        let mut found = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let read = read(&self.item(index), item)?;
            if found.contains(&read) {
                return self.item(index).refuse("it stands there already");
            }
            found.push(read);
        }
        Ok(found)
    }
}

fn rule(value: &Json, place: &Place) -> Result<Rule, Refused> {
    place.check_members(value, &RULE_MEMBERS)?;
    let needed = |name: &str| {
        let missing = || place.member(name).refuse("it is missing");
        value.get(name).map_or_else(missing, |found| Ok((found, place.member(name))))
    };
    let (id, id_place) = needed("id")?;
    let id = id.as_str().filter(|id| is_name(id)).map_or_else(|| id_place.refuse(NAME_EXPECTED), Ok)?;
    let (effect, effect_place) = needed("effect")?;
    let unknown = || effect_place.refuse(format!("expected one of {}", Outcome::WORDS.join(", ")));
    let effect = effect.as_str().and_then(Outcome::parse).map_or_else(unknown, Ok)?;
    let (when, when_place) = needed("when")?;
    let when = conditions(when, &when_place)?;
    if effect == Outcome::Allow && when.only_untrusted_mutations() {
        return effect_place.refuse("a mutation on the word of an untrusted source is always denied");
    }
    let text = |name: &str, max| value.get(name).map(|found| place.member(name).text(found, max)).transpose();
    Ok(Rule {
        id: id.to_owned(),
        effect,
        when,
        reason: text("reason", REASON_CHARS_MAX)?,
        approver_group: only_with(effect, Outcome::RequireApproval, "approver_group", value, place)
            .and_then(|()| text("approver_group", NAME_CHARS_MAX))?,
        redact_fields: redact_fields(value, effect, place)?,
    })
}

/// A member that another effect would ignore is refused.
fn only_with(
    effect: Outcome,
    needed: Outcome,
    member: &str,
    value: &Json,
    place: &Place,
) -> Result<(), Refused> {
    if value.get(member).is_some() && effect != needed {
        return place.member(member).refuse(format!("only a rule whose effect is {needed} has it"));
    }
    Ok(())
}

fn redact_fields(value: &Json, effect: Outcome, place: &Place) -> Result<Vec<String>, Refused> {
    only_with(effect, Outcome::Redact, "redact_fields", value, place)?;
    let here = place.member("redact_fields");
    match value.get("redact_fields") {
        Some(fields @ Json::Array(_)) => {
            here.alternatives(fields, |place, field| place.text(field, NAME_CHARS_MAX))
        }
        Some(_) => here.refuse("expected an array of names"),
        None if effect == Outcome::Redact => {
            here.refuse("it is missing: a redact rule says what to leave out")
        }
        None => Ok(Vec::new()),
    }
}

fn conditions(value: &Json, place: &Place) -> Result<Conditions, Refused> {
    place.check_members(value, &WHEN_MEMBERS)?;
    let globs = |name: &str, normal: bool| {
        let read = |place: &Place, value: &Json| glob(value, place, normal);
        value.get(name).map(|found| place.member(name).alternatives(found, read)).transpose()
    };
    let levels =
        value.get("source_trust").map(|found| place.member("source_trust").alternatives(found, trust));
    let tiers = value.get("risk_tier").map(|found| place.member("risk_tier").alternatives(found, tier));
    let mutates_state = match value.get("mutates_state") {
        None => None,
        Some(Json::Bool(flag)) => Some(*flag),
        Some(_) => return place.member("mutates_state").refuse("expected true or false"),
    };
    Ok(Conditions {
        agent: globs("agent", false)?,
        tool: globs("tool", true)?,
        action: globs("action", true)?,
        resource: globs("resource", false)?,
        environment: globs("environment", false)?,
        mutates_state,
        source_trust: levels.transpose()?.map(with_unrecognized),
        risk_tier: tiers.transpose()?,
        parameters: match value.get("parameters") {
            Some(found) => parameters(found, &place.member("parameters"))?,
            None => Vec::new(),
        },
    })
}

impl Conditions {
    /// Whether they hold for nothing but what is denied in any case.
    fn only_untrusted_mutations(&self) -> bool {
        let untrusted = |levels: &Vec<TrustLevel>| levels.iter().all(|level| *level > TrustLevel::Customer);
        self.mutates_state == Some(true) && self.source_trust.as_ref().is_some_and(untrusted)
    }
}

fn glob(value: &Json, place: &Place, normal: bool) -> Result<Glob, Refused> {
    let text = value.as_str().map_or_else(|| place.refuse("expected a glob"), Ok)?;
    let text = if normal { normalize(text) } else { text.to_owned() };
    if text.is_empty() {
        return place.refuse("an empty glob matches nothing; leave the member out to match everything");
    }
    let long = || place.refuse(format!("a glob has at most {GLOB_CHARS_MAX} characters"));
    Glob::new(&text).map_or_else(long, Ok)
}

fn trust(place: &Place, value: &Json) -> Result<TrustLevel, Refused> {
    let unknown = || place.refuse(format!("expected one of {}", TrustLevel::WORDS.join(", ")));
    value.as_str().and_then(TrustLevel::parse).map_or_else(unknown, Ok)
}

/// Else a caller could evade a rule on what is unknown by a word that nobody knows.
fn with_unrecognized(mut levels: Vec<TrustLevel>) -> Vec<TrustLevel> {
    if levels.contains(&TrustLevel::Unknown) {
        levels.push(TrustLevel::Unrecognized);
    }
    levels
}

fn tier(place: &Place, value: &Json) -> Result<RiskTier, Refused> {
    let unknown = || place.refuse(format!("expected one of {}", RiskTier::WORDS.join(", ")));
    value.as_str().and_then(RiskTier::parse).map_or_else(unknown, Ok)
}

fn parameters(value: &Json, place: &Place) -> Result<Vec<Parameter>, Refused> {
    let Json::Object(members) = value else { return place.refuse("expected an object of paths and values") };
    if members.is_empty() || members.len() > ITEMS_MAX {
        return place.refuse(format!("expected 1 to {ITEMS_MAX} paths"));
    }
    let mut found: Vec<Parameter> = Vec::with_capacity(members.len());
    for (name, value) in members {
        let here = Place(format!("{}[{name:?}]", place.0));
        let parameter = Parameter { path: path(name, &here)?, value: value.clone() };
        if found.iter().any(|other| contradict(&parameter, other) || contradict(other, &parameter)) {
            return here.refuse("another path asks for something else in the same place");
        }
        found.push(parameter);
    }
    Ok(found)
}

/// A JSON Pointer (RFC 6901) where it begins with `/`, else the name of a member.
fn path(text: &str, place: &Place) -> Result<Vec<String>, Refused> {
    if text.is_empty() || text.chars().count() > NAME_CHARS_MAX {
        return place.refuse(format!("a path has 1 to {NAME_CHARS_MAX} characters"));
    }
    let Some(pointer) = text.strip_prefix('/') else { return Ok(vec![text.to_owned()]) };
    let step = |step: &str| {
        let plain = step.replace("~0", "").replace("~1", "");
        if plain.contains('~') {
            return place.refuse("in a JSON Pointer, '~' is written ~0 and '/' within a name ~1");
        }
        Ok(step.replace("~1", "/").replace("~0", "~"))
    };
    pointer.split('/').map(step).collect()
}

/// Whether `outer` stands on the way to `inner`, and holds something else there.
fn contradict(outer: &Parameter, inner: &Parameter) -> bool {
    let below = inner.path.strip_prefix(outer.path.as_slice());
    below.is_some_and(|below| at(&outer.value, below) != Some(&inner.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    /// A document whose second rule has these members.
    fn second(members: &str) -> String {
        format!(r#"{{"rules":[{{"id":"first","effect":"deny","when":{{}}}},{{{members}}}]}}"#)
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_stands() {
        for (text, place) in [
            ("", "not JSON: "),
            ("{\"rules\":[", "not JSON: "),
            ("{\"rules\":[],\"rules\":[]}", "not JSON: a member name stands twice"),
            ("[]", "expected an object"),
            ("{}", "rules: "),
            (r#"{"rules":{}}"#, "rules: "),
            (r#"{"rules":[]}"#, "rules: "),
            (r#"{"rules":[1]}"#, "rules[0]: "),
            (r#"{"version":1,"rules":[]}"#, "unknown member \"version\""),
        ] {
            let message = refused(text);
            assert!(message.starts_with(place), "{text}: {message}");
        }
        let long = "x".repeat(GLOB_CHARS_MAX + 1);
        for (members, place) in [
            (r#""effect":"deny","when":{}"#.to_owned(), ".id: it is missing"),
            (r#""id":"r","when":{}"#.to_owned(), ".effect: it is missing"),
            (r#""id":"r","effect":"deny""#.to_owned(), ".when: it is missing"),
            (r#""id":"first","effect":"deny","when":{}"#.to_owned(), ".id: another rule"),
            (r#""id":"a,b","effect":"deny","when":{}"#.to_owned(), ".id: "),
            (r#""id":"a/b","effect":"deny","when":{}"#.to_owned(), ".id: "),
            (r#""id":"","effect":"deny","when":{}"#.to_owned(), ".id: "),
            (r#""id":5,"effect":"deny","when":{}"#.to_owned(), ".id: "),
            (format!(r#""id":"{}","effect":"deny","when":{{}}"#, "i".repeat(65)), ".id: "),
            (r#""id":"r","effect":"Deny","when":{}"#.to_owned(), ".effect: expected one of"),
            (r#""id":"r","effect":"quarantine","when":{}"#.to_owned(), ".effect: expected one of"),
            (r#""id":"r","effect":"deny","when":{},"unless":{}"#.to_owned(), ": unknown member \"unless\""),
            (r#""id":"r","effect":"deny","when":[]"#.to_owned(), ".when: expected an object"),
            (r#""id":"r","effect":"deny","when":{},"reason":""#.to_owned() + "\"", ".reason: "),
            (r#""id":"r","effect":"deny","when":{},"reason":"a\nb""#.to_owned(), ".reason: "),
            (r#""id":"r","effect":"deny","when":{},"reason":null"#.to_owned(), ".reason: "),
            (r#""id":"r","effect":"deny","when":{},"approver_group":"g""#.to_owned(), ".approver_group: only"),
            (r#""id":"r","effect":"require_approval","when":{},"approver_group":"""#.to_owned(), ".approver_group: "),
            (r#""id":"r","effect":"deny","when":{},"redact_fields":["f"]"#.to_owned(), ".redact_fields: only"),
            (r#""id":"r","effect":"redact","when":{}"#.to_owned(), ".redact_fields: it is missing"),
            (r#""id":"r","effect":"redact","when":{},"redact_fields":[]"#.to_owned(), ".redact_fields: "),
            (r#""id":"r","effect":"redact","when":{},"redact_fields":"f""#.to_owned(), ".redact_fields: "),
            (r#""id":"r","effect":"redact","when":{},"redact_fields":["f",""]"#.to_owned(), ".redact_fields[1]: "),
            (
                r#""id":"r","effect":"allow","when":{"mutates_state":true,"source_trust":["unknown","untrusted_external"]}"#
                    .to_owned(),
                ".effect: a mutation",
            ),
            (format!(r#""id":"r","effect":"deny","when":{{"tool":"{long}"}}"#), ".when.tool: a glob has"),
        ] {
            let message = refused(&second(&members));
            assert!(message.starts_with(&format!("rules[1]{place}")), "{members}: {message}");
        }
    }

    #[test]
    fn a_condition_that_is_not_understood_or_cannot_hold_is_refused_where_it_stands() {
        for (when, place) in [
            (r#"{"tools":"x"}"#, ": unknown member \"tools\""),
            (r#"{"tool":""}"#, ".tool: an empty glob"),
            (r#"{"tool":" \t"}"#, ".tool: an empty glob"),
            (r#"{"action":"%20"}"#, ".action: an empty glob"),
            (r#"{"agent":""}"#, ".agent: an empty glob"),
            (r#"{"resource":""}"#, ".resource: an empty glob"),
            (r#"{"environment":5}"#, ".environment: expected a glob"),
            (r#"{"agent":null}"#, ".agent: expected a glob"),
            (r#"{"tool":[]}"#, ".tool: expected one value"),
            (r#"{"tool":["a","b",""]}"#, ".tool[2]: an empty glob"),
            (r#"{"tool":["a"," A"]}"#, ".tool[1]: it stands there already"),
            (r#"{"mutates_state":"true"}"#, ".mutates_state: expected true or false"),
            (r#"{"mutates_state":null}"#, ".mutates_state: expected true or false"),
            (r#"{"source_trust":"trusted"}"#, ".source_trust: expected one of"),
            (r#"{"source_trust":"Unknown"}"#, ".source_trust: expected one of"),
            (r#"{"source_trust":[]}"#, ".source_trust: expected one value"),
            (r#"{"source_trust":["unknown","unknown"]}"#, ".source_trust[1]: it stands"),
            (r#"{"risk_tier":"extreme"}"#, ".risk_tier: expected one of"),
            (r#"{"risk_tier":["low",1]}"#, ".risk_tier[1]: expected one of"),
            (r#"{"parameters":[]}"#, ".parameters: expected an object"),
            (r#"{"parameters":{}}"#, ".parameters: expected 1 to"),
            (r#"{"parameters":{"":1}}"#, ".parameters[\"\"]: a path has"),
            (r#"{"parameters":{"/a~2":1}}"#, ".parameters[\"/a~2\"]: in a JSON Pointer"),
            (r#"{"parameters":{"/a~":1}}"#, ".parameters[\"/a~\"]: in a JSON Pointer"),
            (r#"{"parameters":{"/a":1,"a":2}}"#, ".parameters[\"a\"]: another path"),
            (r#"{"parameters":{"/a":1,"/a/b":2}}"#, ".parameters[\"/a/b\"]: another path"),
            (r#"{"parameters":{"/a/b":2,"a":{"b":3}}}"#, ".parameters[\"a\"]: another path"),
        ] {
            let message = refused(&second(&format!(r#""id":"r","effect":"deny","when":{when}"#)));
            assert!(message.starts_with(&format!("rules[1].when{place}")), "{when}: {message}");
        }
    }

    #[test]
    fn what_is_right_is_not_refused() {
        for when in [
            r#"{"parameters":{"/a":{"b":2},"/a/b":2}}"#,
            r#"{"parameters":{"/a":1,"a":1}}"#,
            r#"{"tool":["a","b*"],"source_trust":"unknown","risk_tier":["low"]}"#,
        ] {
            let text = second(&format!(r#""id":"r","effect":"require_approval","when":{when}"#));
            assert_eq!(parse(&text).expect(when).rules.len(), 2);
        }
    }

    #[test]
    fn the_limits_are_where_they_are_said_to_be() {
        let rules = |count: usize| {
            let rule = |number: usize| format!(r#"{{"id":"r{number}","effect":"deny","when":{{}}}}"#);
            format!(r#"{{"rules":[{}]}}"#, (0..count).map(rule).collect::<Vec<_>>().join(","))
        };
        assert_eq!(parse(&rules(RULES_MAX)).expect("as many as may be").rules.len(), RULES_MAX);
        assert!(refused(&rules(RULES_MAX + 1)).starts_with("rules: "));
        let fill = |bytes: usize| {
            let text = rules(1);
            format!("{text}{}", " ".repeat(bytes - text.len()))
        };
        assert!(parse(&fill(BYTES_MAX)).is_ok());
        assert!(refused(&fill(BYTES_MAX + 1)).contains("bytes"));
    }

    #[test]
    fn white_space_and_order_do_not_change_the_canonical_hash() {
        let one = parse(r#"{"rules":[{"id":"r","effect":"deny","when":{}}]}"#).expect("right");
        let other =
            parse("{ \"rules\": [{\"when\":{},\n\"effect\":\"deny\",\"id\":\"r\"}] }").expect("right");
        assert_eq!(one.sha256, other.sha256);
    }
}
