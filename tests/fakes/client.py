# SPDX-License-Identifier: Apache-2.0
"""A bare HTTP client, to ask a stand-in what a vendor's client never would."""

import http.client
import json
from urllib.parse import urlsplit


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

    def __init__(self, url, headers=(), timeout=20):
        self.url = urlsplit(url)
        self.headers = dict(headers)
        self.http = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=timeout)

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
        try:
            self.http.request(method, self.url.path + target, body, sent,
                              encode_chunked=hasattr(body, "__next__"))
            reply = self.http.getresponse()
            return Said(reply, reply.read())
        except Exception:
            self.http.close()  # the next question gets a connection of its own
            raise
