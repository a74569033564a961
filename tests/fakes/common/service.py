# SPDX-License-Identifier: Apache-2.0
"""What every stand-in is: servers, sandboxes, a clock, and the tests' own door below /-/.

    GET    /-/journal?since=N   what was asked (journal.py)      DELETE: forget it
    GET    /-/problems          what was wrong in it, once
    GET    /-/faults            rules (faults.py)                POST: add one; DELETE: none
    GET    /-/settings          what a test may change           POST: an object of some of them
    POST   /-/expire            {"id": ..., "s": N}: the sandbox's end comes in N seconds

That door is on the control plane's port only, and no fault applies to it. A setting of all: rtt_ms,
how far away the service seems to be.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import schema
from .faults import Faults
from .http import Answer, Reply, Server, unescape
from .journal import Journal
from .root import Gone

JSON = [("Content-Type", "application/json")]


def json_reply(value, status=200, headers=()):
    return Reply(status, [*JSON, *headers], json.dumps(value).encode())


class Routes:
    """(method, path with {names}) -> function(request, *values of the names)."""

    def __init__(self, *rows):
        self.rows = []
        for method, template, handler in rows:
            pattern = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(template))
            self.rows.append((method, re.compile(pattern), handler))

    def find(self, method, path):
        """(function of no argument but the request, True), or (None, is the path known)."""
        known = False
        for wanted, pattern, handler in self.rows:
            match = pattern.fullmatch(path)
            if match and wanted == method:
                values = [unescape(each) for each in match.groups()]
                return (lambda request: handler(request, *values)), True
            known = known or bool(match)
        return None, known


class Service:
    """Base of the three. Subclasses give `settings`, `environ()`, `tick()` and their servers."""

    name = "service"
    settings = {}

    def __init__(self, base=None):
        self.made_base = base is None
        self.base = Path(base or tempfile.mkdtemp(prefix="sbxfs-fake-"))
        self.base.mkdir(exist_ok=True)
        self.journal = Journal()
        self.faults = Faults()
        self.settings = {"rtt_ms": 0, **type(self).settings}
        self.lock = threading.RLock()
        self.boxes = {}  # guarded by lock
        self.servers = []
        self.ended = threading.Event()

    # -- servers

    def listen(self, name, handle, port=0, idle=70, is_open=True):
        server = Server(name, handle, self.journal, self.faults, port, idle, is_open,
                        lambda: self.settings["rtt_ms"] / 1000)
        self.servers.append(server)
        return server

    def with_door(self, handle):
        """`handle`, and the tests' door before it."""
        def both(request):
            return self.door(request) if request.path.startswith("/-/") else handle(request)
        return both

    def door(self, request):
        what, method = request.path[3:], request.method
        value = json.loads(request.body.read_all() or b"null")
        if what == "journal":
            if method == "DELETE":
                self.journal.clear()
                return json_reply({})
            shown = self.journal.shown(int(request.arg("since", "0")))
            return json_reply([entry for entry in shown if not entry["target"].startswith("/-/")])
        if what == "problems":
            return json_reply(self.journal.take_problems())
        if what == "faults" and method == "POST":
            try:
                return json_reply({"number": self.faults.add(value)})
            except (KeyError, TypeError, ValueError, re.error) as error:
                return json_reply({"error": str(error)}, 400)
        if what == "faults":
            if method == "DELETE":
                self.faults.clear()
            return json_reply(self.faults.shown())
        if what == "settings":
            unknown = set(value or {}) - set(self.settings)
            if unknown:
                return json_reply({"error": "no setting " + " ".join(unknown)}, 400)
            self.settings.update(value or {})
            return json_reply(self.settings)
        if what == "expire":
            self.expire(value["id"], float(value["s"]))
            return json_reply({})
        return json_reply({"error": "no " + what}, 404)

    # -- checks

    def check(self, request, spec, body, kind="application/json"):
        """Check a request against the vendor's description; sentences of what breaks it.

        kind: the body's type; None leaves the body alone.
        """
        operation, _ = spec.find(request.method, request.path)
        if operation is None:
            return []
        broken, unknown = schema.check_args(operation, request)
        more_broken, more_unknown = schema.check_body(operation, kind, body) if kind else ([], [])
        for text in [*broken, *more_broken, *unknown, *more_unknown]:
            self.journal.violation(request, text)
        return broken + more_broken

    # -- life

    def environ(self):
        """{variable: value} for a client."""
        raise NotImplementedError

    def expire(self, box_id, seconds):
        raise NotImplementedError

    def tick(self):
        """Called ten times a second."""

    def run_clock(self):
        while not self.ended.wait(0.1):
            with contextlib.suppress(Gone):  # somebody else has ended it: the next tick doesn't see it
                self.tick()

    def takes(self, setting, part=1):
        """Let so many milliseconds go by; a change of them counts at once. False: the end has come first."""
        began = time.monotonic()
        while (left := self.settings[setting] * part / 1000 - (time.monotonic() - began)) > 0:
            if self.ended.wait(min(left, 0.05)):
                return False
        return True

    def close(self):
        """End everything; nothing stays."""
        self.ended.set()
        for server in list(self.servers):
            server.stop()
        with self.lock:
            boxes, self.boxes = list(self.boxes.values()), {}
        threads = [threading.Thread(target=box.close) for box in boxes]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))
        if self.made_base:
            shutil.rmtree(self.base, ignore_errors=True)


def refuse(status, value, headers=()):
    """Raise an answer in JSON."""
    raise Answer(json_reply(value, status, headers))


def main(service_class):
    """Run a stand-in by hand or for a test: print a client's environment, then `ready`."""
    parser = argparse.ArgumentParser(description=sys.modules[service_class.__module__].__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="of the control plane (default: any)")
    parser.add_argument("--base", help="directory of the sandboxes (default: a temporary one)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON",
                        help="a setting, as /-/settings shows them")
    parser.add_argument("--stdin", action="store_true", help="end at the end of stdin")
    options = parser.parse_args()
    os.umask(0o022)
    service = service_class(options.port, options.base)
    for each in options.set:
        key, _, value = each.partition("=")
        if key not in service.settings:
            parser.error("no setting " + key)
        service.settings[key] = json.loads(value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.ended.set())
    if options.stdin:
        def follow():
            while sys.stdin.buffer.read1(4096):
                pass
            service.ended.set()
        threading.Thread(target=follow, daemon=True).start()
    for key, value in service.environ().items():
        print("%s=%s" % (key, value))
    print("ready", flush=True)
    try:
        service.run_clock()
    finally:
        service.close()
    os._exit(0)  # threads may sit in a FIFO for ever
