# SPDX-License-Identifier: Apache-2.0
"""What was asked of a stand-in, and what in it was wrong.

Each request is an entry: seq, server, conn (the connection's number), method, target, headers (as
pairs), body (its first 64 KiB, in base64), body_size, status, sent, ms, and where they apply
`fault`, `broken` (the connection ended), `violations` and `crash`.
"""

import base64
import collections
import sys
import threading
import time

KEPT = 50000


class Journal:
    def __init__(self):
        self.lock = threading.Lock()
        self.entries = collections.deque(maxlen=KEPT)
        self.count = 0
        self.problems = []  # violations and our own failures: a test that ends with any has failed

    def begin(self, server, request):
        entry = {"server": server, "conn": request.conn.number, "method": request.method,
                 "target": request.target, "headers": request.headers.pairs,
                 "start": time.monotonic(), "status": None,
                 "raw": request.body.kept}  # grows while it is read
        with self.lock:
            self.count += 1
            entry["seq"] = self.count
            self.entries.append(entry)
        return entry

    def end(self, entry, request):
        entry["ms"] = round((time.monotonic() - entry["start"]) * 1000, 3)
        entry["body_size"] = request.body.size

    def violation(self, request, text):
        """The request breaks the vendor's contract."""
        request.entry.setdefault("violations", []).append(text)
        self._problem("%s %s: %s" % (request.method, request.target[:300], text))

    def crashed(self, text):
        self._problem("the stand-in has failed:\n" + text)

    def _problem(self, text):
        print(text, file=sys.stderr, flush=True)
        with self.lock:
            if len(self.problems) < 1000:
                self.problems.append(text)

    def shown(self, since=0):
        """The entries after number `since`, for JSON."""
        with self.lock:
            found = [entry for entry in self.entries if entry["seq"] > since]
        return [self._shown(dict(entry)) for entry in found]

    @staticmethod
    def _shown(entry):
        entry.pop("start")
        entry["body"] = base64.b64encode(entry.pop("raw")).decode()
        return entry

    def clear(self):
        with self.lock:
            self.entries.clear()

    def take_problems(self):
        with self.lock:
            taken, self.problems = self.problems, []
        return taken
