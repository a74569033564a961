# SPDX-License-Identifier: Apache-2.0
"""A sandbox on an SSH host that can be hurt: the server, the way to it, and what mounts it.

    def test_x(far):
        far.break_("frozen")
        ...
        far.mend()
"""

import errno
import os
import threading
import time

from . import kinds
from .sshd import Sshd
from .tools import Failed, wait_for
from .trees import describe

TROUBLES = ("killed", "frozen", "hole")
DEADLINE = 10.0  # seconds without progress (DESIGN.md section 9)
SLACK = 15.0  # for a busy machine, and for connecting before that
AWAY = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EIO}


class Far:
    """One server and one mount on it, or several."""

    def __init__(self, base, fresh_mount, round_trip_ms=0, **server):
        self.base = base
        self.fresh_mount = fresh_mount
        self.server = Sshd(base / "sshd", **server).start()
        self.way = self.server.delay(round_trip_ms)
        self.mounts = []
        self.broken = None

    def mount(self, options=("drain=1s",), start=True, **settings):
        """A mount whose mkdir makes sandboxes there."""
        mount = self.fresh_mount(options=options, start=False)
        settings.setdefault("base", self.server.base / "sandboxes")
        mount.options += kinds.section(mount, "far", self.server, port=self.way.port, **settings)
        mount.kind = kinds.SSH
        self.mounts.append(mount)
        return mount.start() if start else mount

    def break_(self, how):
        """killed: sshd and all that it started; frozen: stopped; hole: nothing comes through."""
        assert self.broken is None
        self.broken = how
        {"killed": self.server.kill, "frozen": self.server.freeze, "hole": self.way.hole}[how]()

    def mend(self):
        how, self.broken = self.broken, None
        if how:
            {"killed": self.server.start, "frozen": self.server.thaw, "hole": self.way.thaw}[how]()

    def stop(self):
        """Mend all; end the mounts, then the server."""
        problems = []
        self.mend()
        for mount in self.mounts:
            try:
                mount.stop()
            except AssertionError as error:
                problems.append(str(error))
        self.way.stop()
        self.server.stop()
        if problems:
            raise Failed("\n".join(problems))


def attempt(function, *args):
    """(seconds, the result or None, the errno or None) of a call on a file."""
    began = time.monotonic()
    try:
        value, code = function(*args), None
    except OSError as error:
        value, code = None, error.errno
    return time.monotonic() - began, value, code


def all_at_once(*calls, limit=DEADLINE + SLACK):
    """Make calls, each in a thread of its own; what attempt() says of each. All must end in time."""
    results = [None] * len(calls)

    def make(at, function, *args):
        results[at] = attempt(function, *args)
    threads = [threading.Thread(target=make, args=(at, *call), daemon=True)
               for at, call in enumerate(calls)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, limit - (time.monotonic() - began)))
    blocked = [call for call, result in zip(calls, results) if result is None]
    if blocked:
        raise Failed("still blocked after %.0f s: %s" % (limit, blocked))
    for call, (_, _, code) in zip(calls, results):
        assert code is None or code in AWAY, "%s: %s" % (call, os.strerror(code))
    return results


def write_and_close(file, data):
    """Whatever close is told: what write took is kept, and sent when it can be."""
    file.write(data)
    file.close()


def wait_clean(box, timeout=60):
    """Wait until nothing is left to be sent. A look at status can be 250 ms old."""
    time.sleep(0.3)
    wait_for(lambda: box.status()["dirty_files"] == "0", timeout, 0.05,
             lambda: "all to be sent: %s" % box.status())


def wait_works(box, timeout=90):
    """Wait until files of the host can be read and written again."""
    def works():
        try:
            path = box.fs / ".works"
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.unlink(path)
            return True
        except OSError as error:
            assert error.errno in AWAY, error
            return False
    wait_for(works, timeout, 0.2, lambda: "the host to be used again: %s" % box.status())


def same_trees(box, backing, times=False):
    """What fs/ shows is what the host has."""
    ours, theirs = describe(box.fs, times=times), describe(backing, times=times)
    for path in ours.keys() | theirs.keys():
        assert ours.get(path) == theirs.get(path), "%r: %r, but on the host %r" % (
            path, ours.get(path), theirs.get(path))
