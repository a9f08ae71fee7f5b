//! Reading a rule's conditions.

use super::place::{Place, Refused};
use super::{ITEMS_MAX, NAME_CHARS_MAX};
use crate::domain::agent::RiskTier;
use crate::domain::identifier::normalize;
use crate::domain::json::Json;
use crate::domain::policy::glob::{GLOB_CHARS_MAX, Glob};
use crate::domain::policy::matching::{Conditions, Parameter, at};
use crate::domain::trust::TrustLevel;

const MEMBERS: [&str; 9] = [
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

/// Reads a rule's `when`.
pub(super) fn conditions(value: &Json, place: &Place) -> Result<Conditions, Refused> {
    place.check_members(value, &MEMBERS)?;
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

/// Otherwise a caller could evade a rule on `unknown` by sending an unrecognised word.
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
        let here = place.quoted(name);
        let parameter = Parameter { path: path(name, &here)?, value: value.clone() };
        if found.iter().any(|other| contradict(&parameter, other) || contradict(other, &parameter)) {
            return here.refuse("another path requires a different value in the same place");
        }
        found.push(parameter);
    }
    Ok(found)
}

/// A JSON Pointer (RFC 6901) if it begins with `/`, otherwise the name of a member.
fn path(text: &str, place: &Place) -> Result<Vec<String>, Refused> {
    if text.is_empty() || text.chars().count() > NAME_CHARS_MAX {
        return place.refuse(format!("a path has 1 to {NAME_CHARS_MAX} characters"));
    }
    let Some(pointer) = text.strip_prefix('/') else { return Ok(vec![text.to_owned()]) };
    let step = |step: &str| {
        let plain = step.replace("~0", "").replace("~1", "");
        if plain.contains('~') {
            return place.refuse("in a JSON Pointer, write '~' as ~0 and '/' within a name as ~1");
        }
        Ok(step.replace("~1", "/").replace("~0", "~"))
    };
    pointer.split('/').map(step).collect()
}

/// Whether `outer` lies on the path to `inner` and requires a different value there.
fn contradict(outer: &Parameter, inner: &Parameter) -> bool {
    let below = inner.path.strip_prefix(outer.path.as_slice());
    below.is_some_and(|below| at(&outer.value, below) != Some(&inner.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json;

    fn read(when: &str) -> Result<Conditions, Refused> {
        conditions(&json::parse(when.as_bytes()).expect(when), &Place::document().member("when"))
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
            (r#"{"tool":["a"," A"]}"#, ".tool[1]: duplicate value"),
            (r#"{"mutates_state":"true"}"#, ".mutates_state: expected true or false"),
            (r#"{"mutates_state":null}"#, ".mutates_state: expected true or false"),
            (r#"{"source_trust":"trusted"}"#, ".source_trust: expected one of"),
            (r#"{"source_trust":"Unknown"}"#, ".source_trust: expected one of"),
            (r#"{"source_trust":[]}"#, ".source_trust: expected one value"),
            (r#"{"source_trust":["unknown","unknown"]}"#, ".source_trust[1]: duplicate value"),
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
            let message = read(when).expect_err(when).to_string();
            assert!(message.starts_with(&format!("when{place}")), "{when}: {message}");
        }
    }

    #[test]
    fn what_is_right_is_not_refused() {
        for when in [
            r#"{"parameters":{"/a":{"b":2},"/a/b":2}}"#,
            r#"{"parameters":{"/a":1,"a":1}}"#,
            r#"{"tool":["a","b*"],"source_trust":"unknown","risk_tier":["low"]}"#,
        ] {
            assert!(read(when).is_ok(), "{when}");
        }
    }
}
