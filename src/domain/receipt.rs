//! Receipts: the links of the chain.
//!
//! A receipt is a flat object of strings, integers and nulls. Its hash covers every
//! member except the hash itself, including the hash of the previous receipt, so the
//! last hash commits to the whole history. What is served is exactly what is hashed,
//! plus `receipt_hash`: both come from the single list of members below.

use super::canon::{self, Hash, ObjectWriter};
use super::json::Json;

/// The version of the member list. A new list gets a higher number; receipts of this one
/// keep verifying.
pub const FORMAT_VERSION: i64 = 1;

/// `prev_receipt_hash` of the first receipt.
pub const GENESIS: &str = "";

/// Stands for the head of an empty chain where a hash is expected.
pub const EMPTY_HEAD: &str = "empty";

/// One receipt, borrowed from wherever it is held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Receipt<'a> {
    /// Position in the chain, starting at 1, without gaps.
    pub seq: i64,
    /// See [`FORMAT_VERSION`].
    pub format_version: i64,
    /// See [`canon::VERSION`].
    pub canon_version: &'a str,
    /// Unique id of the receipt.
    pub event_id: &'a str,
    /// When it was made; never earlier than the previous receipt.
    pub ts: &'a str,
    /// UUID of the agent.
    pub agent_id: Option<&'a str>,
    /// On whose behalf.
    pub user_id: Option<&'a str>,
    /// The caller's run.
    pub run_id: Option<&'a str>,
    /// The caller's trace.
    pub trace_id: Option<&'a str>,
    /// Name of the tool.
    pub tool: &'a str,
    /// Name of the action.
    pub action: &'a str,
    /// What it acts on.
    pub resource: Option<&'a str>,
    /// The source's trust.
    pub source_trust: &'a str,
    /// The outcome.
    pub decision: &'a str,
    /// Who approved, if anyone did.
    pub approver: Option<&'a str>,
    /// SHA-256 of the canonical call.
    pub action_hash: Option<&'a str>,
    /// The decision this receipt is for.
    pub decision_id: Option<&'a str>,
    /// SHA-256 of the whole recorded decision.
    pub decision_hash: Option<&'a str>,
    /// The version of the rules that decided.
    pub policy_version: Option<&'a str>,
    /// `receipt_hash` of the previous receipt, [`GENESIS`] for the first.
    pub prev_receipt_hash: &'a str,
}

impl Receipt<'_> {
    /// The SHA-256 of every member.
    pub fn hash(&self, buffer: &mut Vec<u8>) -> Hash {
        buffer.clear();
        self.write(buffer, None);
        Hash::of(buffer)
    }

    /// Appends the object that clients receive: the hashed members and `receipt_hash`.
    pub fn write_served(&self, out: &mut Vec<u8>, receipt_hash: &str) {
        self.write(out, Some(receipt_hash));
    }

    /// The only list of members, in canonical order.
    fn write(&self, out: &mut Vec<u8>, receipt_hash: Option<&str>) {
        let mut object = ObjectWriter::new(out);
        object.string("action", self.action);
        object.optional("action_hash", self.action_hash);
        object.optional("agent_id", self.agent_id);
        object.optional("approver", self.approver);
        object.string("canon_version", self.canon_version);
        object.string("decision", self.decision);
        object.optional("decision_hash", self.decision_hash);
        object.optional("decision_id", self.decision_id);
        object.string("event_id", self.event_id);
        object.integer("format_version", self.format_version);
        object.optional("policy_version", self.policy_version);
        object.string("prev_receipt_hash", self.prev_receipt_hash);
        if let Some(receipt_hash) = receipt_hash {
            object.string("receipt_hash", receipt_hash);
        }
        object.optional("resource", self.resource);
        object.optional("run_id", self.run_id);
        object.integer("seq", self.seq);
        object.string("source_trust", self.source_trust);
        object.string("tool", self.tool);
        object.optional("trace_id", self.trace_id);
        object.string("ts", self.ts);
        object.optional("user_id", self.user_id);
        object.end();
    }
}

/// The hash of a receipt given as JSON: every member except `receipt_hash` counts,
/// whatever its name, so an export of any version verifies.
pub fn hash_of_json(members: &[(String, Json)]) -> Hash {
    let mut out = Vec::with_capacity(1024);
    let mut object = ObjectWriter::new(&mut out);
    for (name, value) in members.iter().filter(|(name, _)| name != "receipt_hash") {
        canon::write(object.member(name), value);
    }
    object.end();
    Hash::of(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::json::parse;

    fn sample() -> Receipt<'static> {
        Receipt {
            seq: 7,
            format_version: FORMAT_VERSION,
            canon_version: canon::VERSION,
            event_id: "rcpt_7_00",
            ts: "2026-11-23T00:00:00.000000Z",
            agent_id: Some("a"),
            user_id: None,
            run_id: Some("r\u{e9}\n"),
            trace_id: None,
            tool: "t",
            action: "x",
            resource: None,
            source_trust: "unknown",
            decision: "deny",
            approver: None,
            action_hash: None,
            decision_id: None,
            decision_hash: None,
            policy_version: None,
            prev_receipt_hash: GENESIS,
        }
    }

    #[test]
    fn the_served_object_is_the_hashed_one_and_its_hash() {
        let mut buffer = Vec::new();
        let hash = sample().hash(&mut buffer);
        let hashed = buffer.clone();
        let mut served = Vec::new();
        sample().write_served(&mut served, &hash.to_string());
        let Ok(Json::Object(members)) = parse(&served) else { panic!("not an object") };
        assert_eq!(hash_of_json(&members), hash);
        assert_eq!(canon::to_vec(&parse(&hashed).expect("JSON")), hashed, "not canonical");
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "event_id",
            "ts",
            "agent_id",
            "user_id",
            "run_id",
            "trace_id",
            "tool",
            "action",
            "resource",
            "source_trust",
            "decision",
            "approver",
            "action_hash",
            "prev_receipt_hash",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
