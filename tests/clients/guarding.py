"""What every client library does around an action: ask, wait, compare, consume, act.

It never acts on what it does not understand: all else is `Refused`.
"""

import datetime
import time

# The libraries poll every second or two, for five minutes.
POLL_SECONDS = 0.02
POLLS = 3000

TRUSTED = "trusted_internal_signed"
CUSTOMER = "semi_trusted_customer"
EXTERNAL = "untrusted_external"


class Refused(Exception):
    """The action was not carried out, and why."""


class Guard:
    """An action behind the gateway; the libraries differ in the hooks.

    A library has `ask(call, trust)`, which returns an answer or a denial of its own,
    `get_approval(id)` and `consume(id)`, which return a body or None, and `hash_of(call)`.
    """

    def guarded(self, call, trust, perform):
        """Carries out `perform(parameters)`, if the gateway allows it in the end."""
        answer = self.ask(call, trust)
        decision = answer["decision"]
        if decision == "allow":
            return perform(call["parameters"])
        if decision == "redact":
            return self.redacted(call, answer, perform)
        if decision == "require_approval":
            self.wait_and_consume(call, answer["approval"])
            return perform(call["parameters"])
        raise Refused(f"{decision}: {answer['reason']}")

    def redacted(self, call, answer, perform):
        raise Refused("an unknown decision: redact")

    def wait_and_consume(self, call, approval):
        expected = self.hash_of(call)
        if approval["action_hash"] != expected:
            raise Refused("the approval is for another call")
        self.wait(approval["approval_id"], expected)
        consumed = self.consume(approval["approval_id"])
        if consumed is None:
            raise Refused("the approval cannot be used")
        if consumed["action_hash"] != expected:
            raise Refused("another call was approved")

    def wait(self, approval_id, expected):
        for _ in range(POLLS):
            approval = self.get_approval(approval_id)
            if approval is None:
                raise Refused("the approval cannot be seen")
            if approval["status"] == "APPROVED":
                if approval["action_hash"] != expected:
                    raise Refused("the approved call is another one")
                return
            if approval["status"] == "REJECTED":
                raise Refused(f"rejected: {approval['reason']}")
            if approval["status"] == "EXPIRED" or has_passed(approval["expires_at"]):
                raise Refused("expired")
            time.sleep(POLL_SECONDS)
        raise Refused("nobody decided")


def has_passed(instant):
    """Whether a time of RFC 3339 with at most six digits of a second is over."""
    end = datetime.datetime.strptime(instant, "%Y-%m-%dT%H:%M:%S.%fZ")
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) >= end
