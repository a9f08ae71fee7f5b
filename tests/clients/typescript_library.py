"""A client as the TypeScript library is: a flat body, one token, JavaScript's numbers."""

import json

import flat_library
import scenario
from canonical import canonical, javascript_number
from flat_library import FlatLibrary
from guarding import CUSTOMER
from people import Operator


class TypeScriptLibrary(FlatLibrary):
    """Every status from 200 to 299 is a good one."""

    headers = {
        "User-Agent": "node",
        "Accept": "*/*",
        "Accept-Language": "*",
        "Sec-Fetch-Mode": "cors",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "keep-alive",
    }
    number = staticmethod(javascript_number)

    def encode(self, value):
        # In any order of the members: the gateway sorts them.
        return canonical(value, javascript_number)

    def is_good(self, answer):
        return 200 <= answer.status < 300


def parse(text):
    """As `JSON.parse` does: every number is a double."""
    return json.loads(text, parse_int=float)


def agrees(value):
    """JavaScript leaves out a zero, and a positional form ends elsewhere, for tiny numbers."""
    if isinstance(value, float):
        return value == 0 or abs(value) >= 1e-4 or abs(value) < 1e-9
    if isinstance(value, dict):
        return all(agrees(item) for item in value.values())
    return not isinstance(value, list) or all(agrees(item) for item in value)


def a_number_that_is_printed_another_way_is_not_acted_upon(client, operator):
    """It is approved, and the client sees another hash: closed, not open."""
    for number in (0.00001, 1e-7):
        call = scenario.call("update", f"tiny {number}", amount=number)
        answer = client.ask(call, CUSTOMER)
        operator.approve(answer["approval"]["approval_id"])
        scenario.refused(client, call, CUSTOMER, "another call")


def main():
    operator = Operator()
    operator.prepare()
    client = TypeScriptLibrary("typescript", operator.register("typescript")["agent_token"])
    scenario.run(client, operator)
    scenario.the_golden_calls_have_one_hash(client, parse, agrees)
    a_number_that_is_printed_another_way_is_not_acted_upon(client, operator)
    flat_library.a_trust_that_is_left_out_is_unknown(client)
    flat_library.an_agent_s_token_opens_its_own_approvals_and_decides_none(
        TypeScriptLibrary, client, operator
    )
    flat_library.what_is_signed_is_allowed_and_nothing_else(TypeScriptLibrary, operator, "signing-ts")
    scenario.the_chain_verifies(operator)


if __name__ == "__main__":
    main()
