//! The tool call that an agent asks about, and the hash that stands for it.

use super::canon::{Hash, ObjectWriter, write};
use super::json::Json;

/// A tool call, exactly as the caller wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Name of the tool.
    pub tool: String,
    /// Name of the action.
    pub action: String,
    /// What it acts upon.
    pub resource: Option<String>,
    /// Whether the caller says that it changes anything.
    pub mutates_state: bool,
    /// The arguments, any JSON value. Secret as far as the gateway is concerned.
    pub parameters: Json,
}

impl ToolCall {
    /// Canonical bytes of exactly the five members that an approval freezes.
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
}

/// The `action_hash`: SHA-256 of the canonical tool call.
pub fn hash(canonical_call: &[u8]) -> Hash {
    Hash::of(canonical_call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::parse;

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
        }
    }
}
