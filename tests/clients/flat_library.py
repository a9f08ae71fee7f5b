"""What the TypeScript and the Go library have in common: a flat body, and one token.

The token is whatever the client was made with: an agent's, which asks and sees and uses
that agent's approvals, or an operator's, which decides. A tenant goes with every request.
"""

from canonical import action_hash, signature
from guarding import Guard
from wire import Wire


class FlatLibrary(Guard):
    """The client of one token; a language prints numbers, and accepts statuses, its way."""

    redacts = False
    headers = {}
    number = None

    def __init__(self, agent_key, token, signing_key=None):
        self.agent_key = agent_key
        self.signing_key = signing_key
        self.wire = Wire(token, {**self.headers, "X-Aegis-Tenant-ID": "tenant_1"})

    def encode(self, value):
        """A body in the language's own JSON."""
        raise NotImplementedError

    def is_good(self, answer):
        raise NotImplementedError

    def ask(self, call, trust=None):
        body = {name: call[name] for name in ("tool", "action", "mutates_state", "parameters")}
        if call.get("resource") is not None:
            body["resource"] = call["resource"]
        if trust is not None:
            body["source_trust"] = trust
        encoded = self.encode(body).encode()
        headers = {}
        if self.signing_key:
            headers["X-Aegis-Request-Signature"] = signature(self.signing_key, encoded)
        answer = self.wire.send("POST", "/v1/authorize", encoded, headers)
        if not self.is_good(answer):
            return {"decision": "deny", "reason": f"the gateway answered {answer.status}"}
        assert answer.body["reason"] is None or isinstance(answer.body["reason"], str), answer
        return answer.body

    def hash_of(self, call):
        return action_hash(call, self.number)

    def get_approval(self, approval_id):
        return self.body_of("GET", f"/v1/approvals/{approval_id}")

    def consume(self, approval_id):
        return self.body_of("POST", f"/v1/approvals/{approval_id}/consume", "")

    def decide(self, approval_id, verb, reason=None):
        body = self.encode({"approver_user_id": "alice", "reason": reason})
        return self.body_of("POST", f"/v1/approvals/{approval_id}/{verb}", body)

    def body_of(self, method, path, body=None):
        answer = self.wire.send(method, path, body)
        return answer.body if self.is_good(answer) else None


def an_agent_s_token_opens_its_own_approvals_and_decides_none(library, client, operator):
    """The same methods, by two tokens."""
    call = {"tool": "crm", "action": "update", "resource": "own", "mutates_state": True, "parameters": {}}
    approval = client.ask(call, "semi_trusted_customer")["approval"]
    approval_id = approval["approval_id"]
    assert client.get_approval(approval_id)["status"] == "created"
    for verb in ("approve", "reject"):
        assert client.decide(approval_id, verb) is None, "an agent decides nothing"
    other = library("other", operator.register(f"other {client.agent_key}")["agent_token"])
    assert other.get_approval(approval_id) is None and other.consume(approval_id) is None
    person = library("a person", operator.wire.token)
    decided = person.decide(approval_id, "approve")
    assert decided == {"status": "success", "approval_id": approval_id}, decided
    assert client.consume(approval_id)["action_hash"] == client.hash_of(call)


def a_trust_that_is_left_out_is_unknown(client):
    call = {"tool": "crm", "action": "update", "resource": None, "mutates_state": True, "parameters": {}}
    assert client.ask(call)["decision"] == "deny"
    read = {**call, "action": "read", "mutates_state": False}
    assert client.ask(read)["decision"] == "allow"


def what_is_signed_is_allowed_and_nothing_else(library, operator, key):
    token = operator.register(key, signing_key="correct-horse")["agent_token"]
    read = {"tool": "crm", "action": "read", "mutates_state": False, "parameters": {"a": [1, "<é>"]}}
    for signing_key, decision in (("correct-horse", "allow"), ("wrong", "deny"), (None, "deny")):
        answer = library(key, token, signing_key).ask(read, "trusted_internal_signed")
        assert answer["decision"] == decision, answer
