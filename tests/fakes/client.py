# SPDX-License-Identifier: Apache-2.0
"""A bare HTTP client, to ask a stand-in what a vendor's client never would."""

import http.client
import json
import time
from urllib.parse import urlsplit

KEPT_S = 15  # a connection that was silent for longer may be closed at any moment: 30 s is what a server waits at least


class Said:
    """An answer: status, headers (http.client's), body."""

    def __init__(self, reply, body):
        self.status, self.headers, self.body = reply.status, reply.headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%d %r>" % (self.status, self.body[:300])


class Client:
    """One kept-alive connection. A body that isn't bytes is sent as JSON."""

    def __init__(self, url, headers=(), timeout=60):
        self.url = urlsplit(url)
        self.headers = dict(headers)
        self.http = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=timeout)
        self.used = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, method, target, body=None, headers=()):
        """The answer; raises what http.client raises when it breaks off."""
        sent = {**self.headers, **dict(headers)}
        if body is not None and not isinstance(body, bytes) and not hasattr(body, "__next__"):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if time.monotonic() - self.used > KEPT_S:
            self.http.close()
        try:
            self.http.request(method, self.url.path + target, body, sent,
                              encode_chunked=hasattr(body, "__next__"))
            reply = self.http.getresponse()
            said = Said(reply, reply.read())
            self.used = time.monotonic()
            return said
        except Exception:
            self.http.close()  # the next question gets a connection of its own
            raise
