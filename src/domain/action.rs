//! The tool call an agent asks about, and the hash that identifies it.

use super::canon::{Hash, ObjectWriter, write};
use super::json::{Json, parse};

/// A tool call, exactly as the caller wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Name of the tool.
    pub tool: String,
    /// Name of the action.
    pub action: String,
    /// What it acts on.
    pub resource: Option<String>,
    /// Whether the caller declares it a mutation.
    pub mutates_state: bool,
    /// The arguments, any JSON value. The gateway treats them as secret.
    pub parameters: Json,
}

impl ToolCall {
    /// Canonical bytes of exactly the five members an approval freezes.
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let mut object = ObjectWriter::new(&mut out);
        object.string("action", &self.action);
        object.boolean("mutates_state", self.mutates_state);
        write(object.member("parameters"), &self.parameters);
        object.optional("resource", self.resource.as_deref());
        object.string("tool", &self.tool);
        object.end();
        out
    }

    /// Reads what [`ToolCall::canonical`] wrote; `None` for anything else.
    pub fn from_canonical(bytes: &[u8]) -> Option<Self> {
        let value = parse(bytes).ok()?;
        let text = |name| value.get(name).and_then(Json::as_str).map(str::to_owned);
        let resource = match value.get("resource")? {
            Json::Null => None,
            resource => Some(resource.as_str()?.to_owned()),
        };
        let Json::Bool(mutates_state) = value.get("mutates_state")? else { return None };
        let call = ToolCall {
            tool: text("tool")?,
            action: text("action")?,
            resource,
            mutates_state: *mutates_state,
            parameters: value.get("parameters")?.clone(),
        };
        (call.canonical() == bytes).then_some(call)
    }
}

/// The `action_hash`: SHA-256 of the canonical tool call.
pub fn hash(canonical_call: &[u8]) -> Hash {
    Hash::of(canonical_call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_golden_action_has_its_canonical_bytes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/canonical_action_vectors.json");
        let golden = parse(&std::fs::read(path).expect("the golden file")).expect("JSON");
        let Some(Json::Array(vectors)) = golden.get("vectors") else { panic!("no vectors") };
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let call = vector.get("tool_call").expect("a call");
            let text = |name| call.get(name).and_then(Json::as_str).map(str::to_owned);
            let call = ToolCall {
                tool: text("tool").expect("a tool"),
                action: text("action").expect("an action"),
                resource: text("resource"),
                mutates_state: call.get("mutates_state") == Some(&Json::Bool(true)),
                parameters: call.get("parameters").expect("parameters").clone(),
            };
            let expected = vector.get("canonical").and_then(Json::as_str).expect("text");
            assert_eq!(String::from_utf8_lossy(&call.canonical()), expected);
            assert_eq!(ToolCall::from_canonical(expected.as_bytes()), Some(call));
        }
    }

    #[test]
    fn what_was_not_written_as_a_call_is_none() {
        let call = r#"{"action":"a","mutates_state":true,"parameters":{"x":1.0},"resource":null,"tool":"t"}"#;
        assert!(ToolCall::from_canonical(call.as_bytes()).is_some());
        for (part, other) in [
            ("1.0", "1.00"),
            ("null", "7"),
            ("true", "1"),
            (r#""t""#, "null"),
            (r#","tool":"t""#, ""),
            (r#""resource":null,"#, ""),
            (r#"{"action""#, r#"{"a":1,"action""#),
        ] {
            let other = call.replacen(part, other, 1);
            assert_eq!(ToolCall::from_canonical(other.as_bytes()), None, "{other}");
        }
    }
}
