# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the HTTP services, and how a test starts one.

    with Fake("e2b") as fake:
        run([...], env=fake.environ)
        fake.fault(kind="status", status=429, headers={"Retry-After": "1"}, path="/sandboxes")
        assert fake.journal(path="/files", method="POST")

Each runs as a process of its own, on ports of its own. stop() fails if a request broke the vendor's
contract, unless the test took the problems() itself. By hand: python3 tests/fakes/e2b.py --help.
"""

import base64
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("daytona", "e2b", "opensandbox")


class Entry:
    """A request of the journal."""

    def __init__(self, value):
        self.__dict__.update(value)
        self.body = base64.b64decode(value.get("body", ""))

    def header(self, name, default=None):
        return next((v for n, v in self.headers if n.lower() == name.lower()), default)

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%s %s %s -> %s>" % (self.server, self.method, self.target, self.status)


class Fake:
    """A stand-in that runs. environ: what a client needs; url: its control plane's address."""

    def __init__(self, name, **settings):
        self.name = name
        self.settings = settings
        self.environ = {}
        self.url = None
        self.process = None
        self.base = Path(tempfile.mkdtemp(prefix="sbxfs-fake-"))
        self.log_path = self.base / "log"

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop(check=kind is None)

    def start(self, timeout=60):
        sets = [word for key, value in self.settings.items()
                for word in ("--set", "%s=%s" % (key, json.dumps(value)))]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-B", HERE / (self.name + ".py"), "--stdin", "--base",
                 self.base / "boxes", *sets], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, start_new_session=True)
        lines = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            while (line := lines.get(timeout=timeout)) != "ready":
                if line is None:
                    raise AssertionError("the stand-in has ended:\n" + self.log())
                key, _, value = line.partition("=")
                self.environ[key] = value
        except BaseException:
            self.stop(check=False)
            raise
        self.url = self.environ.pop("FAKE_URL")
        return self

    def _read(self, lines):
        for line in self.process.stdout:
            lines.put(line.decode().rstrip("\n"))
        lines.put(None)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # -- the tests' door

    def _ask(self, what, value=None, method=None):
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request("%s/-/%s" % (self.url, what), data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as reply:
            return json.load(reply)

    def fault(self, **rule):
        """Add a rule of common/faults.py; its number."""
        return self._ask("faults", rule)["number"]

    def faults(self):
        """The rules, with how often each was applied (hits)."""
        return self._ask("faults")

    def clear_faults(self):
        self._ask("faults", method="DELETE")

    def set(self, **settings):
        return self._ask("settings", settings)

    def expire(self, box_id, seconds=0):
        """Let a sandbox's time end so soon."""
        self._ask("expire", {"id": box_id, "s": seconds})

    def mark(self):
        """The number of the last request so far, for journal(since=...)."""
        return max((entry.seq for entry in self.journal()), default=0)

    def journal(self, path="", method="", since=0, server=None):
        """The requests whose target and method match, in order."""
        return [entry for entry in map(Entry, self._ask("journal?since=%d" % since))
                if re.search(path, entry.target) and re.search(method, entry.method)
                and server in (None, entry.server)]

    def problems(self):
        """What broke the vendor's contract since the last call."""
        return self._ask("problems")

    def stop(self, check=True):
        problems = []
        if self.process:
            if check and self.process.poll() is None:
                problems = self.problems()
            early = self.process.poll()
            self.process.stdin.close()
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)
                problems.append("it didn't end by itself")
            self.process.stdout.close()
            if early is not None and check:
                problems.append("it has died with %s:\n%s" % (early, self.log()[-4000:]))
        subprocess.run(["rm", "-rf", "--", self.base], stderr=subprocess.DEVNULL, check=False)
        if self.base.exists():
            subprocess.run(["chmod", "-R", "u+rwX", self.base], check=False)
            shutil.rmtree(self.base, ignore_errors=True)
        assert not problems, "%s stand-in:\n%s" % (self.name, "\n".join(map(str, problems)))


def proxyless():
    """The environment for a client that must not take a proxy to a stand-in."""
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
