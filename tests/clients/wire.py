"""HTTP as client libraries speak it: one connection that is kept, and a time for an answer.

`AEGIS_URL` names the gateway, and `AEGIS_API_KEY` is its operator's token.
"""

import http.client
import json
import os
import select
import urllib.parse

URL = os.environ["AEGIS_URL"]
API_KEY = os.environ["AEGIS_API_KEY"]

# The libraries wait for five seconds. A machine that is paused meanwhile proves nothing.
TIMEOUT_SECONDS = 60


class Answer:
    """A status, headers and a body that is JSON if it can be."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.raw = response.read()
        try:
            self.body = json.loads(self.raw)
        except ValueError:
            self.body = None

    def __repr__(self):
        return f"{self.status} {self.raw[:2048]!r}"

    @property
    def reason(self):
        """The stable reason of a refusal."""
        return ((self.body or {}).get("details") or {}).get("reason")


class Wire:
    """Requests with the headers of one library."""

    def __init__(self, token, headers=()):
        self.token = token
        self.headers = dict(headers)
        self.host = urllib.parse.urlsplit(URL).netloc
        self._kept = None

    def send(self, method, path, body=None, headers=(), token=None):
        """One request. A body is text or bytes; without one a POST has the length 0."""
        body = body.encode() if isinstance(body, str) else body
        connection = self._connection()
        try:
            connection.request(method, path, body, self._headers(method, headers, token))
            answer = Answer(connection.getresponse())
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if connection.sock is None:  # The gateway closed it, and said so.
            self._kept = None
        return answer

    def send_and_cut(self, path, body, read_bytes=0):
        """Sends a whole request, reads so much of its answer, and cuts the connection."""
        connection = http.client.HTTPConnection(self.host, timeout=TIMEOUT_SECONDS)
        connection.request("POST", path, body.encode(), self._headers("POST", (), None))
        if read_bytes:
            assert connection.sock.recv(read_bytes), "the answer begins"
        connection.close()

    def close(self):
        if self._kept:
            self._kept.close()
        self._kept = None

    def _headers(self, method, more, token):
        fixed = {"Authorization": f"Bearer {token or self.token}"}
        if method == "POST":
            fixed["Content-Type"] = "application/json"
        return {**fixed, **self.headers, **dict(more)}

    def _connection(self):
        """The kept connection, unless the gateway has closed it meanwhile."""
        kept = self._kept
        if kept is None or kept.sock is None or select.select([kept.sock], [], [], 0)[0]:
            self.close()
            self._kept = http.client.HTTPConnection(self.host, timeout=TIMEOUT_SECONDS)
            self._kept.connect()
        return self._kept


def honour_retry_after(send, sleep, attempts=3):
    """Sends until it is neither too often nor too early; waits as long as it is told."""
    for _ in range(attempts):
        answer = send()
        if answer.status not in (429, 503):
            return answer
        sleep(int(answer.headers["Retry-After"]))
    raise AssertionError(f"still refused after {attempts} attempts: {answer}")
