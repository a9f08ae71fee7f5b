"""The canonical form `aegis-jcs-1`, as clients compute it, and what is hashed in it.

Three languages print numbers in three ways. Each is here as its client library has it:
where it is not the gateway's way, the hashes differ, and the client refuses to act.
"""

import hashlib
import hmac
import json


def canonical(value, number=None):
    """The canonical text of a value. `number` prints what is a number."""
    number = number or python_number
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Verbatim) or isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        names = sorted(value)  # By code point, as Python compares texts.
        members = (canonical(name) + ":" + canonical(value[name], number) for name in names)
        return "{" + ",".join(members) + "}"
    return "[" + ",".join(canonical(item, number) for item in value) + "]"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def action_hash(call, number=None):
    """The hash that an approval is bound to."""
    members = ("tool", "action", "resource", "mutates_state", "parameters")
    return sha256(canonical({name: call.get(name) for name in members}, number))


def signature(key, body):
    """The value of `X-Aegis-Request-Signature` for these very bytes."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def python_number(value):
    """As Python prints it: the reference."""
    return json.dumps(value, allow_nan=False)


def javascript_number(value):
    """As JavaScript prints a double: `1`, `0.00001`, `1e-7`, `1e+21`."""
    value = float(value)
    if value == 0:
        return "0"
    sign, digits, exponent = _digits(value)
    if not -7 <= exponent < 21:
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{exponent:+d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return sign + whole + ("." + fraction if fraction else "")


def _digits(value):
    """Sign, shortest digits, and the decimal exponent of the first of them."""
    mantissa, exponent = f"{abs(value)!r}e0".split("e")[:2]
    whole, _, fraction = mantissa.partition(".")
    if whole == "0":
        stripped = fraction.lstrip("0")
        first = -1 - (len(fraction) - len(stripped))
    else:
        stripped, first = whole + fraction, len(whole) - 1
    return "-" if value < 0 else "", stripped.rstrip("0"), first + int(exponent)


class Verbatim(str):
    """A number by its text, as Go's `json.Number` keeps it."""


def verbatim_number(value):
    return str(value)


def parse_verbatim(text):
    return json.loads(text, parse_int=Verbatim, parse_float=Verbatim)


def verify_receipts(receipts):
    """Recomputes a chain, oldest first; says what is wrong, or nothing.

    Every member but `receipt_hash` is hashed, and each receipt holds the hash before.
    """
    for number, receipt in enumerate(receipts):
        body = {name: value for name, value in receipt.items() if name != "receipt_hash"}
        if sha256(canonical(body)) != receipt["receipt_hash"]:
            return f"receipt {number} is not what was hashed"
        if number and receipt["prev_receipt_hash"] != receipts[number - 1]["receipt_hash"]:
            return f"receipt {number} does not follow the one before"
    return None
