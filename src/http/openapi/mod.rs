//! `GET /v1/openapi.json`: the whole HTTP API as OpenAPI 3.1.
//!
//! Written by hand, one file per area, and assembled once. What applies to every operation is
//! added here instead of being repeated: the gate's answers before a route is known, and the
//! answers to requests without the required token.
//!
//! The document is descriptive only. Tests keep it true: they compare it with the table of
//! routes and provoke every answer it names.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::service::Error;

use super::message::Response;
use super::router::Call;

const BASE: &str = include_str!("base.json");

/// The paths and components of each area.
const AREAS: [&str; 10] = [
    include_str!("authorize.json"),
    include_str!("agents.json"),
    include_str!("tools.json"),
    include_str!("decisions.json"),
    include_str!("approvals.json"),
    include_str!("policies.json"),
    include_str!("receipts.json"),
    include_str!("backups.json"),
    include_str!("operators.json"),
    include_str!("about.json"),
];

/// Answers that any request may get: status and name of the response component.
const EVERYWHERE: [(&str, &str); 11] = [
    ("400", "BadRequest"),
    ("408", "Timeout"),
    ("413", "PayloadTooLarge"),
    ("414", "UriTooLong"),
    ("417", "ExpectationFailed"),
    ("431", "HeadersTooLarge"),
    ("500", "InternalError"),
    ("501", "NotImplemented"),
    ("503", "Unavailable"),
    ("504", "AnswerTimeout"),
    ("505", "VersionNotSupported"),
];

/// Answers of every operation that needs a token.
const WITH_TOKEN: [(&str, &str); 3] =
    [("401", "Unauthorized"), ("403", "Forbidden"), ("429", "TooManyRequests")];

/// The answer of every operation that needs a body.
const WITH_BODY: (&str, &str) = ("411", "LengthRequired");

static DOCUMENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| serde_json::to_vec(&assembled()).expect("all its maps have string keys"));

/// `GET /v1/openapi.json`
pub(crate) fn document(_call: &Call<'_>) -> Result<Response, Error> {
    Ok(Response::json(200, DOCUMENT.clone()))
}

fn assembled() -> Value {
    let mut document = parsed(BASE);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for area in AREAS {
        merge(&mut document, parsed(area));
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, item) in paths {
        let members = item.as_object_mut().into_iter().flatten();
        members.filter(|(name, _)| is_method(name)).for_each(|(_, operation)| complete(operation));
    }
    document
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("it is embedded, and tests check that it parses")
}

/// Merges objects recursively; for other values, the latter wins.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Whether a path's member is an operation; it may also be `parameters`.
fn is_method(name: &str) -> bool {
    matches!(name, "get" | "post" | "patch" | "delete")
}

/// Adds what applies to all operations of its kind, without overriding the operation itself.
fn complete(operation: &mut Value) {
    let mut answers = EVERYWHERE.to_vec();
    if operation["security"] != json!([]) {
        answers.extend(WITH_TOKEN);
    }
    if operation["requestBody"]["required"] == true {
        answers.push(WITH_BODY);
    }
    let Some(operation) = operation.as_object_mut() else { return };
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Value::Array(parameters) = parameters {
        parameters.push(reference("parameters", "RequestId"));
    }
    let responses = operation.entry("responses").or_insert_with(|| Map::new().into());
    for (status, name) in answers {
        if responses.get(status).is_none() {
            responses[status] = reference("responses", name);
        }
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::agent::{AgentStatus, RiskTier};
    use crate::domain::approval::Status;
    use crate::domain::audit::EventType;
    use crate::domain::operator::{Permission, Scope};
    use crate::domain::policy::Outcome;
    use crate::domain::tool::{DefaultDecision, Risk};
    use crate::http::error;
    use crate::http::router::{self, Access};

    fn members(value: &Value) -> &Map<String, Value> {
        value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
    }

    fn words(value: &Value) -> Vec<&str> {
        value.as_array().into_iter().flatten().map(|word| word.as_str().expect("a word")).collect()
    }

    /// What routes and document have in common: method, path, and who may use it.
    type Operation = (String, String, BTreeSet<String>);

    fn documented(document: &Value) -> BTreeSet<Operation> {
        let mut found = BTreeSet::new();
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item).iter().filter(|(name, _)| *name != "parameters") {
                let asked = operation["security"].as_array().expect(path).iter().flat_map(members);
                let asked = asked.map(|(scheme, scopes)| format!("{scheme} {}", words(scopes).join(" and ")));
                found.insert((method.to_uppercase(), path.clone(), asked.collect()));
            }
        }
        found
    }

    fn asked(access: Access) -> BTreeSet<String> {
        let scopes = |permission: Permission| {
            permission.scopes().iter().map(|scope| format!("operator {scope}")).collect::<BTreeSet<_>>()
        };
        let agent = "agent ".to_owned();
        match access {
            Access::Anyone => BTreeSet::new(),
            Access::Agent => [agent].into(),
            Access::Operator(permission) => scopes(permission),
            Access::AgentOrOperator(permission) => scopes(permission).into_iter().chain([agent]).collect(),
        }
    }

    #[test]
    fn every_route_and_who_may_use_it_is_in_the_document_and_nothing_else_is() {
        let route = |(method, path, access): (&str, &str, Access)| {
            (method.to_owned(), path.to_owned(), asked(access))
        };
        let routes: BTreeSet<Operation> = router::table().map(route).collect();
        assert_eq!(documented(&assembled()), routes);
    }

    #[test]
    fn it_names_the_version_that_runs() {
        assert_eq!(assembled()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn every_word_of_the_document_is_one_of_the_program_and_the_reverse() {
        let document = assembled();
        for (name, known) in [
            ("AgentStatus", AgentStatus::WORDS),
            ("RiskTier", RiskTier::WORDS),
            ("ApprovalStatus", Status::WORDS),
            ("EventType", EventType::WORDS),
            ("Scope", Scope::WORDS),
            ("Outcome", Outcome::WORDS),
            ("DefaultDecision", DefaultDecision::WORDS),
            ("Risk", Risk::WORDS),
        ] {
            assert_eq!(words(&document["components"]["schemas"][name]["enum"]), known, "{name}");
        }
    }

    #[test]
    fn a_status_has_the_reason_that_a_failure_of_it_gives() {
        let document = assembled();
        let known = words(&document["components"]["schemas"]["Reason"]["enum"]);
        for (name, response) in members(&document["components"]["responses"]) {
            let said = &response["content"]["application/json"]["schema"]["properties"];
            let Some(status) = said["code"]["const"].as_u64() else { continue };
            let failure = error::failure(u16::try_from(status).expect("a status"), "why");
            let failure: Value = serde_json::from_slice(&failure.body).expect("JSON");
            let reason = said["reason"]["const"].as_str().expect(name);
            assert!(known.contains(&reason), "{name}");
            assert!(reason == "AlreadyExists" || failure["reason"] == reason, "{name}: {failure}");
        }
    }

    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_component_is_used_and_every_reference_leads_to_one() {
        let document = assembled();
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        let mut there = BTreeSet::new();
        for (kind, components) in members(&document["components"]) {
            let names = members(components).keys().filter(|_| kind != "securitySchemes");
            there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
        assert_eq!(used, there.iter().map(String::as_str).collect());
    }

    #[test]
    fn no_two_files_say_the_same_thing() {
        let mut said = BTreeSet::new();
        for file in AREAS.into_iter().chain([BASE]).map(parsed) {
            let components = members(&file["components"]).iter();
            let paths = file["paths"].as_object().into_iter().flatten().map(|(path, _)| path.clone());
            let names = components.flat_map(|(kind, components)| {
                members(components).keys().map(move |name| format!("{kind}/{name}"))
            });
            for name in names.chain(paths) {
                assert!(said.insert(name.clone()), "{name} is said twice");
            }
        }
    }
}
