"""A client without a library: request ids, nonces, cut connections, claims, exact bytes."""

import datetime
import json

import scenario
from canonical import action_hash, canonical, sha256, signature
from guarding import CUSTOMER, TRUSTED
from people import Operator
from wire import Wire


def nested(agent, call, trust, **more):
    return {"agent": {"id": agent, "environment": "production"}, "tool_call": call,
            "context": {"source_trust": trust, "contains_sensitive_data": False}, **more}


def flat(agent, call, trust, **more):
    return {**call, "source_trust": trust, **more}


def claim(the_hash):
    return json.dumps({"claimed_action_hash": the_hash})


class Agent:
    """One agent and its token."""

    def __init__(self, operator, key, **more):
        self.key = key
        self.wire = Wire(operator.register(key, **more)["agent_token"])

    def ask(self, body, status=200, headers=()):
        text = body if isinstance(body, (str, bytes)) else json.dumps(body)
        answer = self.wire.send("POST", "/v1/authorize", text, headers)
        assert answer.status == status, answer
        return answer if status != 200 else answer.body

    def consume(self, approval_id, body=None):
        return self.wire.send("POST", f"/v1/approvals/{approval_id}/consume", body)


def recorded(operator, the_call):
    """The decisions and the receipts of a call, by its hash."""
    the_hash = action_hash(the_call)
    decisions = operator.send("GET", f"/v1/decisions?action_hash={the_hash}")
    receipts = [it for it in operator.receipts() if it["action_hash"] == the_hash and it["decision_id"]]
    return decisions, receipts


def a_request_that_was_cut_off_is_sent_again_and_counts_once(operator, agent):
    for form in (flat, nested):
        # Cut before anything of the answer is read, and after its first bytes.
        for cut_after in (0, 1, 40):
            the_call = scenario.call("update", f"cut {form.__name__} {cut_after}")
            body = json.dumps(form(agent.key, the_call, CUSTOMER, request_id=the_call["resource"]))
            agent.wire.send_and_cut("/v1/authorize", body, cut_after)
            first, second = agent.ask(body), agent.ask(body)
            decisions, receipts = recorded(operator, the_call)
            assert len(decisions) == len(receipts) == 1, (decisions, receipts)
            assert first["decision_id"] == second["decision_id"] == decisions[0]["id"]
            assert first["approval"] == second["approval"], (first, second)
            assert receipts[0]["decision_id"] == decisions[0]["id"]


def another_call_by_the_same_request_id_is_a_conflict(agent):
    the_call = scenario.call("read", "named")
    agent.ask(flat(agent.key, the_call, TRUSTED, request_id="named"))
    other = {**the_call, "resource": "another"}
    answer = agent.ask(flat(agent.key, other, TRUSTED, request_id="named"), status=409)
    assert answer.reason == "request_id_reused", answer


def a_nonce_counts_once_and_a_timestamp_for_five_minutes(agent):
    def stamped(nonce, seconds):
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        more = {"nonce": nonce, "timestamp": at.isoformat()}
        return nested(agent.key, scenario.call("read", "fresh"), TRUSTED, **more)

    agent.ask(stamped("one", 0))
    assert agent.ask(stamped("one", 0), status=409).reason == "replay_nonce_reused"
    assert agent.ask(stamped("two", -900), status=409).reason == "replay_timestamp_expired"
    agent.ask(stamped("two", -30))


def a_dry_run_is_judged_and_leaves_nothing(operator, agent):
    the_call = scenario.call("update", "dry")
    for form in (flat, nested):
        answer = agent.ask(form(agent.key, the_call, CUSTOMER, dry_run=True))
        assert (answer["decision"], answer["approval"]) == ("require_approval", None), answer
        assert "receipt" not in answer and answer["dry_run"] is True, answer
    assert recorded(operator, the_call) == ([], [])


def a_signature_is_of_the_exact_bytes(operator):
    agent = Agent(operator, "signing-raw", signing_key="correct-horse")
    header = "X-Aegis-Request-Signature"
    # The same JSON in three spellings, each with a signature of its own.
    call = flat(agent.key, scenario.call("read", "signed", note="é"), TRUSTED)
    spellings = [json.dumps(call), json.dumps(call, ensure_ascii=False, indent=2), canonical(call) + "\n"]
    for body in (spelling.encode() for spelling in spellings):
        good = signature("correct-horse", body)
        assert agent.ask(body, headers={header: good})["decision"] == "allow"
        answer = agent.ask(body + b" ", 401, {header: good})
        assert answer.reason == "invalid_request_signature", answer
        assert agent.ask(body, 401).reason == "missing_request_signature"
        broken = agent.ask(b"{", 401, {header: good})
        assert broken.reason == "invalid_request_signature", "before anything is read"


def a_claim_binds_the_use_and_a_wrong_one_burns_nothing(operator, agent):
    the_call = scenario.call("update", "claimed", amount=10)
    approval_id = agent.ask(flat(agent.key, the_call, CUSTOMER))["approval"]["approval_id"]
    pending = agent.consume(approval_id)
    assert (pending.status, pending.reason) == (409, "consume_not_consumable"), pending
    operator.approve(approval_id)
    swapped = action_hash({**the_call, "parameters": {"amount": 1000}})
    answer = agent.consume(approval_id, claim(swapped))
    assert (answer.status, answer.reason) == (409, "consume_hash_mismatch"), answer
    for malformed in ("{", "5", claim(5), claim("sha256:" + action_hash(the_call))):
        assert agent.consume(approval_id, malformed).status == 400, malformed
    assert agent.consume(approval_id, claim(action_hash(the_call))).status == 200
    again = agent.consume(approval_id)
    assert (again.status, again.reason) == (409, "consume_not_consumable"), again


def an_edited_call_is_used_by_its_own_hash(operator, agent):
    the_call = scenario.call("update", "edited raw", amount=1000)
    answer = agent.ask(nested(agent.key, the_call, CUSTOMER, request_id="edited raw"))
    approval_id = answer["approval"]["approval_id"]
    smaller = {**the_call, "parameters": {"amount": 10}}
    edited = operator.edit(approval_id, smaller)
    assert edited["effective_action_hash"] == action_hash(smaller), edited
    assert edited["original_action_hash"] == action_hash(the_call), edited
    operator.approve(approval_id)
    seen = agent.wire.send("GET", f"/v1/approvals/{approval_id}").body
    assert (seen["status"], seen["action_hash"]) == ("APPROVED", action_hash(smaller)), seen
    assert agent.consume(approval_id, claim(action_hash(the_call))).reason == "consume_hash_mismatch"
    used = agent.consume(approval_id, claim(action_hash(smaller)))
    assert used.body["action_hash"] == action_hash(smaller), used
    # Who asks again under the same name is told where its approval stands.
    again = agent.ask(nested(agent.key, the_call, CUSTOMER, request_id="edited raw"))
    assert again["approval"]["approval_id"] == approval_id
    assert again["approval"]["action_hash"] == action_hash(smaller)


def every_golden_text_is_hashed_as_it_is_written_down(agent):
    """As bytes that no encoder has touched, and by this client's own canonical form."""
    for name, text, expected in scenario.golden_parameters():
        assert canonical(json.loads(text)) == expected, name
        head = '{"tool":"crm","action":"read","resource":"r","mutates_state":false,"parameters":'
        answer = agent.ask(head + text + ',"source_trust":"trusted_internal_signed"}')
        whole = ('{"action":"read","mutates_state":false,"parameters":' + expected
                 + ',"resource":"r","tool":"crm"}')
        assert answer["action_hash"] == sha256(whole), name
    for vector in scenario.golden("canonical_action_vectors.json")["vectors"]:
        assert canonical(vector["tool_call"]) == vector["canonical"], vector["name"]


def main():
    operator = Operator()
    operator.prepare()
    agent = Agent(operator, "raw")
    a_request_that_was_cut_off_is_sent_again_and_counts_once(operator, agent)
    another_call_by_the_same_request_id_is_a_conflict(agent)
    a_nonce_counts_once_and_a_timestamp_for_five_minutes(agent)
    a_dry_run_is_judged_and_leaves_nothing(operator, agent)
    a_signature_is_of_the_exact_bytes(operator)
    a_claim_binds_the_use_and_a_wrong_one_burns_nothing(operator, agent)
    an_edited_call_is_used_by_its_own_hash(operator, agent)
    every_golden_text_is_hashed_as_it_is_written_down(agent)
    scenario.the_chain_verifies(operator)


if __name__ == "__main__":
    main()
