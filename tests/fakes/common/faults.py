# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on request: rules that a test sets, and what each does to a request.

A rule is a JSON object: `kind`, and when it applies: `method` and `path` (regular expressions,
searched in the method and in the target), `server` (default: any), `skip` (matching requests to
let pass first) and `count` (how many to hit; default 1, 0 for all).

  kind      its keys (default)          what happens
  delay     ms                          the request waits, then goes on as always
  status    status, headers, body       this answer instead; e.g. 429 with Retry-After
  answer    status, headers, body|b64   the same for any bytes: bad JSON, another request's reply
  redirect  to, status (307)            to another place; {target} in `to` is the request's own
  drop      after (false), reset        the connection closes, before or after it was carried out
  hang      after (false), s (600)      no answer comes
  cut       at (0), reset               carried out; the reply's body ends after so many bytes
  length    by                          carried out; Content-Length is off by so much
  drip      step (1), ms (20)           carried out; the reply comes in such small pieces
  endless   status, headers, body, limit  a body that never ends (until `limit` bytes)
  garbage   b64|body                    these bytes, no HTTP at all, then the end
  upload    at                          the connection breaks after so many bytes of the request
"""

import base64
import re
import threading
import time

from .http import Closed, Reply

KINDS = ("delay status answer redirect drop hang cut length drip endless garbage upload").split()


class Rule:
    def __init__(self, number, spec):
        if spec.get("kind") not in KINDS:
            raise ValueError("kind is one of " + " ".join(KINDS))
        self.number = number
        self.spec = spec
        self.method = re.compile(spec.get("method", ""))
        self.path = re.compile(spec.get("path", ""))
        self.skip = int(spec.get("skip", 0))
        self.left = int(spec.get("count", 1)) or float("inf")
        self.hits = 0

    def matches(self, server, request):
        return (self.spec.get("server", server) == server and self.left > 0
                and self.method.search(request.method) and self.path.search(request.target))

    def shown(self):
        return dict(self.spec, number=self.number, hits=self.hits, spent=self.left <= 0)


class Faults:
    """All rules; the first that matches a request is applied to it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rules = []
        self.count = 0

    def add(self, spec):
        with self.lock:
            self.count += 1
            self.rules.append(Rule(self.count, spec))
            return self.count

    def clear(self):
        with self.lock:
            self.rules.clear()

    def shown(self):
        with self.lock:
            return [rule.shown() for rule in self.rules]

    def take(self, server, request, entry):
        """The Fault of this request, or None."""
        if not self.rules or request.path.startswith("/-/"):
            return None
        with self.lock:
            for rule in self.rules:
                if not rule.matches(server, request):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.left -= 1
                rule.hits += 1
                entry["fault"] = dict(rule.spec)
                return Fault(rule.spec)
        return None


def _bytes(spec):
    if "b64" in spec:
        return base64.b64decode(spec["b64"])
    body = spec.get("body", "")
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else repr(body).encode()


class Fault:
    """One rule at work on one request."""

    def __init__(self, spec):
        self.spec = spec
        self.kind = spec["kind"]
        self.left = int(spec.get("at", 0))

    def before(self, request, ended):
        """Before it is carried out: an answer in its place, or None."""
        spec, kind = self.spec, self.kind
        if kind == "delay":
            ended.wait(spec.get("ms", 0) / 1000)
        elif kind in ("status", "answer"):
            headers = list(spec.get("headers", {}).items())
            return Reply(int(spec.get("status", 200)), headers or
                         [("Content-Type", "application/json")], _bytes(spec))
        elif kind == "redirect":
            where = spec["to"].replace("{target}", request.target)
            return Reply(int(spec.get("status", 307)), [("Location", where)])
        elif kind == "endless":
            return Reply(int(spec.get("status", 200)), list(spec.get("headers", {}).items()),
                         self._endless())
        elif kind == "garbage":
            request.conn.send(_bytes(spec))
            raise Closed("a fault: garbage")
        elif kind == "upload":
            request.body.cut_at = self.left
        elif kind in ("drop", "hang") and not spec.get("after"):
            self._silence(request, ended)
        self.ended = ended
        return None

    def after(self, request, _reply):
        """After it was carried out, before anything is sent."""
        if self.kind in ("drop", "hang") and self.spec.get("after"):
            self._silence(request, self.ended)

    def _silence(self, request, ended):
        if self.kind == "hang":
            self._wait_for_close(request, ended)
        elif self.spec.get("reset"):
            request.conn.reset()
        raise Closed("a fault: " + self.kind)

    def _wait_for_close(self, request, ended):
        until = time.monotonic() + float(self.spec.get("s", 600))
        sock = request.conn.sock
        sock.settimeout(0.2)
        while time.monotonic() < until and not ended.is_set():
            try:
                if not sock.recv(65536):
                    return
            except TimeoutError:
                pass
            except OSError:
                return

    def _endless(self):
        body = _bytes(self.spec) or b"x" * 65536
        left = int(self.spec.get("limit", 1 << 40))
        while left > 0:
            yield body
            left -= len(body)

    def length(self, length):
        """What Content-Length says."""
        return max(0, length + int(self.spec["by"])) if self.kind == "length" else length

    def send_head(self, conn, head):
        if self.kind == "drip":
            self._drip(conn, head)
        else:
            conn.send(head)

    def sender(self, conn):
        """What sends the pieces of the body."""
        if self.kind == "drip":
            return lambda data: self._drip(conn, data)
        if self.kind == "cut":
            return lambda data: self._cut(conn, data)
        if self.kind == "length":
            return lambda data: self._short(conn, data)
        return conn.send

    def _drip(self, conn, data):
        step = int(self.spec.get("step", 1))
        for at in range(0, len(data), step):
            conn.send(data[at:at + step])
            time.sleep(self.spec.get("ms", 20) / 1000)

    def _cut(self, conn, data):
        if len(data) <= self.left:
            self.left -= len(data)
            conn.send(data)
            if self.left:
                return
        else:
            conn.send(data[:self.left])
        if self.spec.get("reset"):
            conn.reset()
        raise Closed("a fault: cut")

    def _short(self, conn, data):
        conn.send(data)
        if int(self.spec["by"]) > 0:
            raise Closed("a fault: the body is shorter than announced")
