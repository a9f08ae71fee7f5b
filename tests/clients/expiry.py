"""Approvals that end: nobody decides in time, or who was allowed comes too late.

Run it against a gateway whose approvals end after a second.
"""

import concurrent.futures
import time

import scenario
from go_library import GoLibrary
from guarding import CUSTOMER, has_passed
from people import Operator
from python_library import PythonLibrary
from typescript_library import TypeScriptLibrary


def clients(operator, task):
    """One of each library, for this task alone: their connections are not shared."""
    python = PythonLibrary(f"python {task.__name__}")
    python.register(risk_tier="low")
    yield python
    for library in (TypeScriptLibrary, GoLibrary):
        key = f"{library.__name__} {task.__name__}"
        yield library(key, operator.register(key)["agent_token"])


def who_waits_in_vain_does_not_act(client, operator):
    call = scenario.call("update", f"waits in vain {client.agent_key}")
    scenario.refused(client, call, CUSTOMER, "expired")


def who_comes_too_late_does_not_act(client, operator):
    approval_id = approved(client, operator)
    expires_at = client.get_approval(approval_id)["expires_at"]
    while not has_passed(expires_at):
        time.sleep(0.02)
    assert client.consume(approval_id) is None
    found = client.get_approval(approval_id)
    assert (found["status"], found["consumed"]) == ("APPROVED", False), found
    # What is approved already is not approved again, whenever that is.
    answer = decide(operator, approval_id)
    assert (answer.status, answer.reason) == (409, "approval_already_decided"), answer


def approved(client, operator):
    """An approval that was given in time; on a machine that stood still, not the first."""
    for attempt in range(20):
        call = scenario.call("update", f"too late {client.agent_key} {attempt}")
        approval_id = client.ask(call, CUSTOMER)["approval"]["approval_id"]
        answer = decide(operator, approval_id)
        if answer.status == 200:
            return approval_id
        assert answer.reason == "approval_expired", answer
    raise AssertionError("every approval ended before it was given")


def decide(operator, approval_id):
    path = f"/v1/approvals/{approval_id}/approve"
    return operator.wire.send("POST", path, '{"approver_user_id": "alice"}')


def main():
    operator = Operator()
    operator.prepare()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(task, client, Operator())
            for task in (who_waits_in_vain_does_not_act, who_comes_too_late_does_not_act)
            for client in clients(operator, task)
        ]
        for task in tasks:
            task.result()
    kinds = {it["tool"] for it in operator.receipts() if it["decision"] == "tamper_attempt"}
    assert kinds == {"consume_not_consumable"}, kinds


if __name__ == "__main__":
    main()
