"""The operator's side: who registers tools and agents, and decides what waits."""

import contextlib
import json
import threading
import time

from canonical import action_hash
from wire import API_KEY, Wire

# The tool of every scenario: a read, a mutation, and an export whose password is hidden.
TOOL = {
    "skill_key": "crm",
    "name": "Customers",
    "type": "mcp",
    "actions": [
        {"action_key": name, "risk": "low", "mutates_state": name == "update",
         "approval_required": False, "default_decision": "policy"}
        for name in ("read", "update", "export")
    ],
}
HIDE_PASSWORDS = {
    "rules": [
        {"id": "hide", "effect": "redact", "redact_fields": ["password"],
         "when": {"tool": "crm", "action": "export"}}
    ]
}


class Operator:
    """A person with the full token, and curl."""

    def __init__(self):
        self.wire = Wire(API_KEY)

    def send(self, method, path, body=None, status=200):
        answer = self.wire.send(method, path, None if body is None else json.dumps(body))
        assert answer.status == status, f"{method} {path}: {answer}"
        return answer.body

    def prepare(self):
        self.send("POST", "/v1/tools", TOOL)
        policy = {"policy_key": "hide", "name": "Passwords", "body": json.dumps(HIDE_PASSWORDS)}
        self.send("POST", "/v1/policies", policy, status=201)

    def register(self, key, **more):
        body = {"agent_key": key, "name": key, "environment": "production", "risk_tier": "low"}
        return self.send("POST", "/v1/agents/register", {**body, **more}, status=201)

    def approve(self, approval_id):
        return self._decide(approval_id, "approve", {"reason": "looks right"})

    def reject(self, approval_id, reason):
        return self._decide(approval_id, "reject", {"reason": reason})

    def edit(self, approval_id, call):
        return self._decide(approval_id, "edit", {"edited_tool_call": call})

    def _decide(self, approval_id, verb, body):
        body = {"approver_user_id": "alice", **body}
        return self.send("POST", f"/v1/approvals/{approval_id}/{verb}", body)

    def wait_for(self, resource):
        """The approval that waits for a call on this resource, once it is there.

        Who approves sees the call, and it is the call that is hashed.
        """
        for _ in range(3000):
            for waiting in self.send("GET", "/v1/approvals?limit=200"):
                if waiting["tool_call"]["resource"] == resource:
                    assert waiting["status"] == "created", waiting
                    assert waiting["action_hash"] == action_hash(waiting["tool_call"]), waiting
                    return waiting
            time.sleep(0.01)
        raise AssertionError(f"nothing waits for {resource}")

    @contextlib.contextmanager
    def meanwhile(self, resource, decide):
        """Decides what waits for this resource while the block runs."""
        failures = []
        person = Operator()

        def act():
            try:
                decide(person, person.wait_for(resource))
            except BaseException as error:  # Told to whoever waits for the thread.
                failures.append(error)

        thread = threading.Thread(target=act)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            if failures:
                raise failures[0]

    def receipts(self):
        """The whole chain, oldest first, page by page; each page as it is served."""
        pages = []
        while True:
            page = self.send("GET", f"/v1/receipts?limit=200&offset={sum(map(len, pages))}")
            if not page:
                return [receipt for page in reversed(pages) for receipt in reversed(page)]
            pages.append(page)
