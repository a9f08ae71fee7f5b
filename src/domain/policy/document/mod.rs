//! A strict reader of rule documents.
//!
//! A document that does not parse, uses an unknown name, or has a rule that could never
//! apply is rejected, and the error says where: a rule that silently does nothing would be a
//! hole that looks like a fence.

mod place;
mod when;

use std::collections::HashSet;

use super::{Outcome, Rule};
use crate::domain::canon::{self, Hash};
use crate::domain::json::{self, Json};

use place::Place;
use when::conditions;

pub use place::Refused;

/// Maximum size of a document, in bytes.
pub const BYTES_MAX: usize = 512 * 1024;
/// Maximum number of rules in a document, and in all active documents together.
pub const RULES_MAX: usize = 5_000;
/// Maximum number of alternatives in one member of `when`, and of fields and parameters in
/// one rule.
const ITEMS_MAX: usize = 100;
/// Maximum length of a rule's id, in characters.
const ID_CHARS_MAX: usize = 64;
/// Maximum length of a reason, in characters.
const REASON_CHARS_MAX: usize = 1024;
/// Maximum length of a group's or field's name and of a path, in characters.
const NAME_CHARS_MAX: usize = 256;

const RULE_MEMBERS: [&str; 6] = ["id", "effect", "when", "reason", "approver_group", "redact_fields"];

/// A parsed document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its rules, in document order.
    pub rules: Vec<Rule>,
    /// SHA-256 of its canonical form.
    pub sha256: Hash,
}

/// Whether `text` may name a rule or a policy. Such names are joined by `/` and `,`, so they
/// may contain neither.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// What [`is_name`] accepts, in words.
pub const NAME_EXPECTED: &str = "expected 1 to 64 letters a-z or A-Z, digits, '.', '-' or '_'";

/// Reads a document.
pub fn parse(text: &str) -> Result<Document, Refused> {
    let top = Place::document();
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
        Some(index) => place.item(index).member("id").refuse("duplicate rule id"),
        None => Ok(Document { rules, sha256 }),
    }
}

fn rule(value: &Json, place: &Place) -> Result<Rule, Refused> {
    place.check_members(value, &RULE_MEMBERS)?;
    let needed = |name: &str| {
        let missing = || place.member(name).refuse("missing");
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
        return effect_place.refuse("a mutation from an untrusted source is always denied");
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

/// Rejects a member that the rule's effect would ignore.
fn only_with(
    effect: Outcome,
    needed: Outcome,
    member: &str,
    value: &Json,
    place: &Place,
) -> Result<(), Refused> {
    if value.get(member).is_some() && effect != needed {
        return place.member(member).refuse(format!("only allowed with effect {needed}"));
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
            here.refuse("missing: a redact rule must name the fields to leave out")
        }
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::policy::glob::GLOB_CHARS_MAX;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    /// A document whose second rule has exactly these members.
    fn second(members: &str) -> String {
        format!(r#"{{"rules":[{{"id":"first","effect":"deny","when":{{}}}},{{{members}}}]}}"#)
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_stands() {
        for (text, place) in [
            ("", "not JSON: "),
            ("{\"rules\":[", "not JSON: "),
            ("{\"rules\":[],\"rules\":[]}", "not JSON: duplicate member name"),
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
            (r#""effect":"deny","when":{}"#.to_owned(), ".id: missing"),
            (r#""id":"r","when":{}"#.to_owned(), ".effect: missing"),
            (r#""id":"r","effect":"deny""#.to_owned(), ".when: missing"),
            (r#""id":"first","effect":"deny","when":{}"#.to_owned(), ".id: duplicate rule id"),
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
            (r#""id":"r","effect":"redact","when":{}"#.to_owned(), ".redact_fields: missing"),
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
    fn the_limits_are_where_they_are_said_to_be() {
        let rules = |count: usize| {
            let rule = |number: usize| format!(r#"{{"id":"r{number}","effect":"deny","when":{{}}}}"#);
            format!(r#"{{"rules":[{}]}}"#, (0..count).map(rule).collect::<Vec<_>>().join(","))
        };
        assert_eq!(parse(&rules(RULES_MAX)).expect("at the limit").rules.len(), RULES_MAX);
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
        let one = parse(r#"{"rules":[{"id":"r","effect":"deny","when":{}}]}"#).expect("valid");
        let other =
            parse("{ \"rules\": [{\"when\":{},\n\"effect\":\"deny\",\"id\":\"r\"}] }").expect("valid");
        assert_eq!(one.sha256, other.sha256);
    }
}
