"""A client as the Python library is: a nested body, and an `api_key` for all but asking.

It registers when it starts, keeps the token and forgets the id; says of every call that
it mutates; retries what failed on the other side; and hides what is to be redacted.
"""

import json
import time

import scenario
from canonical import action_hash, signature
from guarding import CUSTOMER, TRUSTED, Guard
from people import Operator
from wire import API_KEY, Wire

HEADERS = {
    "User-Agent": "python-requests/2.32.3",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
    "Connection": "keep-alive",
}


class PythonLibrary(Guard):
    """The client of one agent."""

    redacts = True

    def __init__(self, agent_key, api_key=API_KEY, signing_key=None, sleep=time.sleep):
        self.agent_key = agent_key
        self.signing_key = signing_key
        self.sleep = sleep
        self.token = None
        self.wire = Wire(api_key, HEADERS)

    def register(self, risk_tier="high"):
        body = {"agent_key": self.agent_key, "name": self.agent_key, "environment": "production",
                "owner_team": "platform", "risk_tier": risk_tier}
        answer = self.wire.send("POST", "/v1/agents/register", json.dumps(body))
        assert answer.status in (200, 201), answer
        self.token = answer.body["agent_token"]

    def ask(self, call, trust="unknown"):
        """The gateway's answer, or a denial where there is none."""
        if self.token is None:
            self.register()
        body = json.dumps({
            "agent": {"id": self.agent_key, "environment": "production"},
            "tool_call": {**call, "mutates_state": True},
            "context": {"source_trust": trust, "contains_sensitive_data": False},
            "trace": {"run_id": "run_default", "trace_id": "trace_default"},
        })
        headers = {"X-Aegis-Tenant-ID": "tenant_123"}
        if self.signing_key:
            headers["X-Aegis-Request-Signature"] = signature(self.signing_key, body.encode())
        answer = self._retried(
            lambda: self.wire.send("POST", "/v1/authorize", body, headers, self.token)
        )
        if answer.status == 200:
            return answer.body
        reason = f"Gateway error: {answer.status}. Fail-closed."
        return {"decision": "deny", "reason": reason, "approval": None, "matched_policies": []}

    def _retried(self, send):
        """Three more attempts where the other side failed."""
        for seconds in (1, 2, 4):
            answer = send()
            if answer.status not in (500, 502, 503, 504):
                return answer
            self.sleep(seconds)
        return send()

    def hash_of(self, call):
        return action_hash({**call, "mutates_state": True})

    def get_approval(self, approval_id):
        return self._body("GET", f"/v1/approvals/{approval_id}")

    def consume(self, approval_id):
        return self._body("POST", f"/v1/approvals/{approval_id}/consume")

    def _body(self, method, path, body=None, expected=(200,)):
        answer = self.wire.send(method, path, body)
        return answer.body if answer.status in expected else None

    def redacted(self, call, answer, perform):
        hidden = answer["redacted_fields"]
        shown = {name: "[REDACTED]" if name in hidden else value
                 for name, value in call["parameters"].items()}
        return perform(shown)

    def list_all(self):
        """Every list of the library, as it is passed on."""
        paths = ("agents?limit=50&offset=0", "receipts?limit=50&offset=0", "policies",
                 f"decisions?limit=50&offset=0&agent_id={self.agent_key}&decision=allow",
                 "approvals?limit=50&offset=0")
        return {path.split("?")[0]: self._body("GET", f"/v1/{path}") for path in paths}

    def verify_receipt_chain(self, receipts):
        body = json.dumps({"receipts": receipts})
        answer = self.wire.send("POST", "/v1/receipts/verify-chain", body)
        return answer.body if answer.status == 200 else {"verified": False}

    def stop(self, operation):
        """Freezes, unfreezes or revokes this agent, which it knows by its key alone."""
        path = f"/v1/agents/{self.agent_key}/{operation}"
        return self._body("POST", path, expected=(200, 201))

    def protect_tool(self, tool, action, trust):
        """Keyword arguments are the parameters; `resource` is one of them."""
        def decorator(function):
            def protected(**arguments):
                call = {"tool": tool, "action": action, "resource": arguments.get("resource"),
                        "parameters": arguments}
                return self.guarded(call, trust, lambda parameters: function(**parameters))
            return protected
        return decorator


def a_high_risk_agent_is_registered_when_it_first_asks(operator):
    client = PythonLibrary("registered-lazily")
    answer = client.ask(scenario.call("update", "lazily"), TRUSTED)
    assert answer["decision"] == "require_approval", answer
    assert operator.send("GET", "/v1/agents/registered-lazily")["risk_tier"] == "high"


def a_second_process_of_an_agent_ends_the_first_one_s_token():
    first, second = PythonLibrary("twice"), PythonLibrary("twice")
    first.register(risk_tier="low")
    second.register(risk_tier="low")
    call = scenario.call("read", "twice")
    assert first.ask(call, TRUSTED)["reason"] == "Gateway error: 401. Fail-closed."
    assert second.ask(call, TRUSTED)["decision"] == "allow"


def a_decorated_function_runs_once_it_is_approved(client, operator):
    @client.protect_tool("crm", "update", CUSTOMER)
    def update(resource, amount):
        return f"{resource}: {amount}"

    with operator.meanwhile("decorated", lambda person, it: person.approve(it["approval_id"])):
        assert update(resource="decorated", amount=1.5) == "decorated: 1.5"


def an_agent_that_is_stopped_is_refused_until_it_may_act_again(client):
    call = scenario.call("read", "stopped")
    assert client.stop("freeze")["status"] == "frozen"
    scenario.refused(client, call, TRUSTED, "deny: ")
    assert client.stop("unfreeze")["status"] == "active"
    assert client.guarded(call, TRUSTED, lambda _: "done") == "done"


def lists_are_bare_arrays_and_receipts_verify_as_they_are_listed(client):
    lists = client.list_all()
    for path, found in lists.items():
        assert isinstance(found, list) and found, path
    assert all(found["decision"] == "allow" for found in lists["decisions"])
    assert client.verify_receipt_chain(lists["receipts"])["verified"] is True
    lists["receipts"][0]["resource"] = "another"
    assert client.verify_receipt_chain(lists["receipts"])["verified"] is False


def a_runner_s_token_is_enough_for_an_api_key(operator):
    body = {"name": "runs-agents", "scope": "runner"}
    token = operator.send("POST", "/v1/admin/tokens", body, status=201)["token"]
    client = PythonLibrary("run-by-a-runner", api_key=token)
    client.register(risk_tier="low")
    call = scenario.call("update", "run-by-a-runner")
    with operator.meanwhile("run-by-a-runner", lambda person, it: person.approve(it["approval_id"])):
        assert client.guarded(call, CUSTOMER, lambda _: "done") == "done"
    assert client.stop("freeze") is None, "it stops nobody, also not itself"


def what_is_signed_is_allowed_and_nothing_else(operator):
    operator.register("signing-python", signing_key="correct-horse")
    call = scenario.call("read", "signed")
    for key, decision in (("correct-horse", "allow"), ("wrong", "deny"), (None, "deny")):
        client = PythonLibrary("signing-python", signing_key=key)
        client.register(risk_tier="low")
        assert client.ask(call, TRUSTED)["decision"] == decision, key


def main():
    operator = Operator()
    operator.prepare()
    client = PythonLibrary("python")
    client.register(risk_tier="low")
    scenario.run(client, operator)
    scenario.the_golden_calls_have_one_hash(client)
    a_high_risk_agent_is_registered_when_it_first_asks(operator)
    a_second_process_of_an_agent_ends_the_first_one_s_token()
    a_decorated_function_runs_once_it_is_approved(client, operator)
    an_agent_that_is_stopped_is_refused_until_it_may_act_again(client)
    lists_are_bare_arrays_and_receipts_verify_as_they_are_listed(client)
    a_runner_s_token_is_enough_for_an_api_key(operator)
    what_is_signed_is_allowed_and_nothing_else(operator)
    scenario.the_chain_verifies(operator)


if __name__ == "__main__":
    main()
