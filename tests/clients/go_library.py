"""A client as the Go library is: a flat body, one token, numbers by their text.

It takes 200 for a good answer and no other status, and escapes `<`, `>` and `&`.
"""

import flat_library
import scenario
from canonical import canonical, parse_verbatim, python_number, verbatim_number
from flat_library import FlatLibrary
from people import Operator

ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class GoLibrary(FlatLibrary):
    """The client, with `json.Number` for every number that it was given."""

    headers = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}

    @staticmethod
    def number(value):
        return verbatim_number(value) if isinstance(value, str) else python_number(value)

    def encode(self, value):
        text = canonical(value, self.number)
        return "".join(ESCAPED.get(character, character) for character in text)

    def is_good(self, answer):
        return answer.status == 200

    def stop(self, operation, reason=None):
        """Needs an operator's token; a reason goes along if there is one."""
        body = self.encode({"reason": reason}) if reason else ""
        return self.body_of("POST", f"/v1/agents/{self.agent_key}/{operation}", body)


def agrees(value):
    """A number by its text is the gateway's where the text is canonical already."""
    if isinstance(value, str) and type(value) is not str:
        parsed = float(value) if set(value) & set(".eE") else int(value)
        return python_number(parsed) == value
    if isinstance(value, dict):
        return all(agrees(item) for item in value.values())
    return not isinstance(value, list) or all(agrees(item) for item in value)


def an_operator_s_client_stops_an_agent_and_says_why(operator):
    token = operator.register("stopped-by-go")["agent_token"]
    agent, person = GoLibrary("stopped-by-go", token), GoLibrary("stopped-by-go", operator.wire.token)
    assert agent.stop("freeze", "on my own") is None
    frozen = person.stop("freeze", "leaked")
    assert (frozen["action"], frozen["reason_recorded"]) == ("agent_frozen", True), frozen
    call = scenario.call("read", "stopped")
    scenario.refused(agent, call, scenario.TRUSTED, "deny: ")
    unfrozen = person.stop("unfreeze")
    assert (unfrozen["status"], unfrozen["reason_recorded"]) == ("active", False), unfrozen
    assert agent.guarded(call, scenario.TRUSTED, lambda _: "done") == "done"
    assert person.stop("revoke")["status"] == "revoked"
    assert person.stop("unfreeze") is None, "revoked is for good"


def main():
    operator = Operator()
    operator.prepare()
    client = GoLibrary("go", operator.register("go")["agent_token"])
    scenario.run(client, operator)
    scenario.the_golden_calls_have_one_hash(client, parse_verbatim, agrees)
    an_operator_s_client_stops_an_agent_and_says_why(operator)
    flat_library.a_trust_that_is_left_out_is_unknown(client)
    flat_library.an_agent_s_token_opens_its_own_approvals_and_decides_none(GoLibrary, client, operator)
    flat_library.what_is_signed_is_allowed_and_nothing_else(GoLibrary, operator, "signing-go")
    scenario.the_chain_verifies(operator)


if __name__ == "__main__":
    main()
