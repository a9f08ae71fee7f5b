"""A client that is told to come back: 429 and 503, each with `Retry-After`.

Run it against a gateway that lets an agent ask once a second; `AEGIS_DB_PATH` names its
database, which is moved away for a moment.
"""

import json
import os
import time

import scenario
from guarding import TRUSTED
from people import Operator
from python_library import PythonLibrary
from wire import Wire, honour_retry_after

DATABASE = os.environ["AEGIS_DB_PATH"]


def who_asks_too_often_waits_as_long_as_it_is_told(operator):
    wire = Wire(operator.register("busy")["agent_token"])
    body = json.dumps({**scenario.call("read", "busy"), "source_trust": TRUSTED})
    waited, answered = [], 0

    def sleep(seconds):
        waited.append(seconds)
        time.sleep(seconds)

    while not waited:
        answer = honour_retry_after(lambda: wire.send("POST", "/v1/authorize", body), sleep)
        assert answer.status == 200, answer
        answered += 1
        assert answered < 1000, "there is no limit"
    assert all(1 <= seconds <= 5 for seconds in waited), waited
    decisions = operator.send("GET", "/v1/stats")["decisions_allow"]
    assert decisions == answered, "what was put off left nothing behind"


class MovedAway:
    """While the database is not where it was, nothing is decided; a sleep brings it back."""

    def __init__(self):
        self.waited = []
        os.rename(DATABASE, DATABASE + ".away")

    def sleep(self, seconds):
        self.waited.append(seconds)
        if len(self.waited) == 1:
            os.rename(DATABASE + ".away", DATABASE)


def who_comes_while_nothing_can_be_written_waits_and_is_answered(operator):
    wire = Wire(operator.register("patient")["agent_token"])
    body = json.dumps({**scenario.call("read", "patient"), "source_trust": TRUSTED, "request_id": "once"})
    away = MovedAway()
    answer = honour_retry_after(lambda: wire.send("POST", "/v1/authorize", body), away.sleep)
    assert (answer.status, answer.body["decision"]) == (200, "allow"), answer
    assert away.waited == [5], away.waited


def the_python_library_s_own_retries_end_in_an_answer_or_in_a_denial(operator):
    # Each asks once: neither meets the limit.
    for key, comes_back in (("comes back", True), ("stays away", False)):
        token = operator.register(key)["agent_token"]
        client = PythonLibrary(key)
        client.token = token
        away = MovedAway()
        client.sleep = away.sleep if comes_back else lambda seconds: None
        answer = client.ask(scenario.call("read", key), TRUSTED)
        if comes_back:
            assert (answer["decision"], away.waited) == ("allow", [1]), answer
        else:
            os.rename(DATABASE + ".away", DATABASE)
            assert answer["reason"] == "Gateway error: 503. Fail-closed.", answer


def main():
    operator = Operator()
    operator.prepare()
    who_asks_too_often_waits_as_long_as_it_is_told(operator)
    who_comes_while_nothing_can_be_written_waits_and_is_answered(operator)
    the_python_library_s_own_retries_end_in_an_answer_or_in_a_denial(operator)


if __name__ == "__main__":
    main()
