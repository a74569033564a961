# SPDX-License-Identifier: Apache-2.0
"""An SSH host that dies, freezes or is cut off: every call ends, nothing is lost, control files stay fast."""

import errno
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from support import kinds
from support.control import error_of, error_text, exit_of, wait_output, write_once
from support.far import (AWAY, DEADLINE, SLACK, TROUBLES, Far, all_at_once, attempt, same_trees,
                         wait_clean, wait_works, write_and_close)
from support.mounts import mount_entries
from support.sshd import SFTP_SERVER
from support.tools import Failed, end, run, wait_for

pytestmark = pytest.mark.timeout(400)

FAST = 2.0  # seconds, on a busy machine: what waits for no host, which would take 3 or 10
STILL = 8.0  # likewise where one look has to tell: a machine may stand still for some seconds
GONE = 6.0  # likewise an unmount, which is to take one
ENDING = 5.0  # a call that is under way when it ends


@pytest.fixture
def far(base, fresh_mount):
    made = Far(base, fresh_mount)
    yield made
    made.stop()


@pytest.fixture
def trouble(request):
    return request.param


def each_trouble(function):
    return pytest.mark.parametrize("trouble", TROUBLES)(function)


def is_mounted(mount):
    return any(point == str(mount.path) for _, point, _ in mount_entries())


class Watch(threading.Thread):
    """Looks at control files all the time; remembers how long each look took."""

    def __init__(self, mount, box):
        super().__init__(daemon=True)
        self.mount, self.box = mount, box
        self.took, self.troubles = [], []
        self.is_over = threading.Event()

    def run(self):
        looks = (lambda: self.box.read("status"), lambda: os.listdir(self.mount.path),
                 lambda: os.listdir(self.box.dir), lambda: self.mount.read(self.mount.path / "status"),
                 lambda: [os.lstat(self.box.dir / n) for n in ("ctl", "fs", "stdout")])
        try:
            while not self.is_over.wait(0.02):
                for look in looks:
                    began = time.monotonic()
                    look()
                    self.took.append(time.monotonic() - began)
        except OSError as error:
            self.troubles.append(error)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        wait_for(lambda: len(self.took) > 50 or self.troubles, 10, 0.01)
        self.is_over.set()
        self.join(20)
        assert not self.troubles, self.troubles
        slow = sorted(self.took)[-max(3, len(self.took) // 100):]
        print("control files: %d looks, slowest %.0f ms, 99 %% under %.0f ms" % (
            len(self.took), slow[-1] * 1000, slow[0] * 1000))
        assert slow[0] < FAST and slow[-1] < STILL, slow


def prepare(box):
    """What no cache knows yet: put there behind the mount, after which time has passed."""
    backing = box.backing
    for n in range(8):
        (backing / ("d%d" % n)).mkdir()
        for m in range(4):
            (backing / ("d%d" % n) / ("f%d" % m)).write_text("%d %d\n" % (n, m))
    with open(backing / "big", "wb") as file:
        file.truncate(64 << 20)
    wait_for(lambda: (box.fs / "big").exists() and (box.fs / "d7").exists(), 10, 0.1)
    return backing


def read_first(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(100)


def read_at(path, offset):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, 4096, offset)
    finally:
        os.close(descriptor)


def write_durably(path):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, b"x" * 1000)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@each_trouble
def test_calls_end_within_their_deadline_and_then_at_once(far, trouble):
    """The first ones wait for what may still come; once the breaker is open, nobody does."""
    mount = far.mount()
    box = mount.create("web")
    prepare(box)
    calls = [(read_first, box.fs / "d0/f0"), (os.listdir, box.fs / "d1"), (os.stat, box.fs / "d2/f2"),
             (read_at, box.fs / "big", 40 << 20), (write_durably, box.fs / "new"),
             (os.listdir, box.fs / "d3"), (read_first, box.fs / "d3/f1")]
    far.break_(trouble)
    with Watch(mount, box):
        for call, (took, _, code) in zip(calls, all_at_once(*calls)):
            print("%s: %.2f s, %s" % (call[0].__name__, took, os.strerror(code) if code else "fine"))
        attempt(read_first, box.fs / "d4/f0")  # if the connection was not known to be silent, it is now
        time.sleep(0.5)  # nor does anybody pay for another try to connect
        spans = []
        for call in ((read_first, box.fs / "d5/f0"), (os.listdir, box.fs / "d6"),
                     (read_at, box.fs / "big", 20 << 20)):
            took, value, code = attempt(*call)
            spans.append(took)
            assert took < STILL, "%s took %.1f s with an open breaker" % (call, took)
            assert code in AWAY or code is None, (call, code)
        assert sorted(spans)[1] < FAST, spans
    far.mend()
    wait_works(box)
    for n in range(8):
        assert (box.fs / ("d%d/f1" % n)).read_text() == "%d 1\n" % n
    wait_clean(box)
    assert box.ok("cat d5/f0") == b"5 0\n"


@each_trouble
def test_trouble_in_the_middle_of_a_large_read_and_a_large_write(far, trouble):
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    data = random.Random(1).randbytes(48 << 20)
    (backing / "in").write_bytes(data)
    wait_for(lambda: (box.fs / "in").exists(), 10, 0.1)

    def read_all():
        with open(box.fs / "in", "rb", buffering=0) as file:
            done = b""
            while part := file.read(1 << 20):
                done += part
                time.sleep(0.02)
            return done

    def write_all():
        with open(box.fs / "out", "wb", buffering=0) as file:
            for at in range(0, len(data), 1 << 20):
                file.write(data[at:at + (1 << 20)])
                time.sleep(0.02)
            os.fsync(file.fileno())
    later = threading.Timer(0.4, far.break_, [trouble])
    with Watch(mount, box):
        later.start()
        (_, read, _), _ = all_at_once((read_all,), (write_all,), limit=6 * DEADLINE)
        later.join()
    assert read is None or read == data
    far.mend()
    wait_works(box)
    wait_clean(box, 90)
    assert (box.fs / "in").read_bytes() == data
    # The writer wrote all of it, whatever its fsync was told: it is dirty data, and was sent since.
    written = (box.fs / "out").read_bytes()
    assert data.startswith(written) and (backing / "out").read_bytes() == written


@each_trouble
def test_exec_while_the_host_is_away_runs_once_or_not_at_all(far, trouble):
    mount = far.mount()
    box = mount.create("web")
    box.ok("true")
    backing = box.backing
    far.break_(trouble)
    began = time.monotonic()
    numbers = [box.start("echo %d >>ran" % n) for n in range(3)]
    assert time.monotonic() - began < STILL, "a control write waited for the network"
    with Watch(mount, box):
        time.sleep(3)
    far.mend()
    ends = [box.wait(number, 120) for number in numbers]
    ran = (backing / "ran").read_text().split() if (backing / "ran").exists() else []
    assert len(ran) == len(set(ran)), "twice: %s" % ran
    for n, said in enumerate(ends):
        assert said in ("exit 0", "lost") or said.startswith("error"), said
        if said == "exit 0":
            assert str(n) in ran
    wait_works(box)
    assert box.ok("echo again") == b"again\n"


# -- the end of sbxfs while the host is away

def blocked_readers(box):
    return [subprocess.Popen([sys.executable, "-c", "import sys; open(sys.argv[1]).read(); "
                              "open(sys.argv[1] + 'x')", str(box.fs / ("d%d/f0" % n))],
                             stderr=subprocess.DEVNULL) for n in range(4)]


@each_trouble
@pytest.mark.parametrize("how", ["SIGTERM", "fusermount3 -uz"])
def test_unmount_takes_no_second_while_calls_are_blocked(far, trouble, how):
    mount = far.mount(options=("drain=3s",))
    box = mount.create("web")
    backing = prepare(box)
    held = open(box.fs / "dirty", "w")
    far.break_(trouble)
    written = threading.Event()

    def write():
        held.write("dirty")
        held.flush()
        written.set()
        held.close()
    writer = threading.Thread(target=attempt, args=(write,), daemon=True)
    writer.start()
    readers = blocked_readers(box)
    try:
        assert written.wait(DEADLINE + SLACK), "the write, which needs no answer of the host"
        time.sleep(0.5)
        mount.expected_end = True
        began = time.monotonic()
        if how == "SIGTERM":
            mount.process.send_signal(signal.SIGTERM)
        else:
            run(["fusermount3", "-uz", mount.path], timeout=30)
        wait_for(lambda: not is_mounted(mount), 10, 0.01)
        took = time.monotonic() - began
        assert took < GONE, "the unmount took %.2f s" % took
        if how != "SIGTERM":  # lazily unmounted: those who are in it still wait, to their deadline
            for reader in readers:
                reader.kill()
        began = time.monotonic()
        mount.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # two at once are one
        mount.process.send_signal(signal.SIGTERM)
        mount.wait_end(30)
        print("ended after %.2f s" % (time.monotonic() - began))
        assert time.monotonic() - began < 2 * GONE
    finally:
        for reader in readers:
            end(reader)
        writer.join(20)
    far.mend()
    mount.start()
    wait_clean(mount.box("web"))
    assert (backing / "dirty").read_text() == "dirty"


# -- nothing is lost

def things_to_change(box):
    """Files of all sorts, known here and open; what is done to each once the host is away."""
    top = box.fs
    for name in ("known", "grown", "shrunk"):
        (top / name).write_text("first content of %s\n" % name * 500)
    (top / "patched").write_bytes(bytes(1_000_000))
    (top / "tool").write_text("#!/bin/sh\n")
    (top / "dir").mkdir()
    wait_clean(box)

    def grow(file):
        write_and_close(file, b" and more")

    def patch(file):
        file.seek(500_000)
        write_and_close(file, b"patch")

    def shrink(file):
        with file:
            os.ftruncate(file.fileno(), 100)
    return [(write_and_close, open(top / "dir/new", "wb"), b"n" * 100_000),
            (write_and_close, open(top / "empty", "wb"), b""),
            (write_and_close, open(top / "known", "wb"), b"written over"),
            (grow, open(top / "grown", "ab")), (patch, open(top / "patched", "r+b")),
            (shrink, open(top / "shrunk", "r+b"))]


def count_dirty(box):
    """How many files wait. What a process has just looked at may stay as it was for 250 ms."""
    time.sleep(0.3)
    return wait_for(lambda: int(box.status()["dirty_files"]), 10, 0.05, "anything that waits")


def check_changed(backing, results):
    """What was answered, and what was written, whatever its close was told. A truncate may have been refused."""
    _, _, shrink_code = results[-1]
    for name, expected in (("dir/new", b"n" * 100_000), ("empty", b""), ("known", b"written over"),
                           ("grown", b"first content of grown\n" * 500 + b" and more"),
                           ("patched", bytes(500_000) + b"patch" + bytes(499_995)),
                           ("shrunk", (b"first content of shrunk\n" * 500)[:12000 if shrink_code else 100])):
        found = (backing / name).read_bytes()
        assert found == expected, "%s: %d bytes, %.60r" % (name, len(found), found)


@each_trouble
def test_what_was_written_meanwhile_is_sent_when_the_host_is_back(far, trouble):
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    calls = things_to_change(box)
    far.break_(trouble)
    with Watch(mount, box):
        results = all_at_once(*calls)
        count_dirty(box)
        assert error_of(os.rmdir, box.dir) == "EBUSY"
        assert write_once(box.dir / "ctl", "sync\n") is None
    far.mend()
    wait_works(box)
    wait_clean(box, 90)
    check_changed(backing, results)
    same_trees(box, backing)
    assert box.ok("cat known") == b"written over"


@each_trouble
def test_kill_9_with_dirty_data_then_a_new_mount_sends_it(far, trouble):
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    calls = things_to_change(box)
    far.break_(trouble)
    results = all_at_once(*calls)
    dirty = count_dirty(box)
    mount.kill9()
    mount.start()
    box = mount.box("web")
    wait_for(lambda: int(box.status()["dirty_files"]) == dirty, 10, 0.05, lambda: str(box.status()))
    far.mend()
    wait_clean(box, 60)
    check_changed(backing, results)
    wait_works(box)
    same_trees(box, backing)


@each_trouble
def test_drain_has_an_end_and_the_next_mount_sends_the_rest(far, trouble):
    mount = far.mount(options=("drain=2s",))
    box = mount.create("web")
    backing = box.backing
    calls = things_to_change(box)
    far.break_(trouble)
    results = all_at_once(*calls)
    began = time.monotonic()
    mount.umount()
    assert time.monotonic() - began < 2 + ENDING + SLACK
    mount.start()
    box = mount.box("web")
    assert count_dirty(box) > 0
    far.mend()
    wait_clean(box, 60)
    check_changed(backing, results)


def test_drain_goes_on_when_the_host_is_back(far):
    mount = far.mount(options=("drain=120s",))  # the next try to connect may be half a minute away
    box = mount.create("web")
    backing = box.backing
    calls = things_to_change(box)
    far.break_("killed")
    results = all_at_once(*calls)
    wait_for(lambda: run(["umount", mount.path], check=False).code == 0, 10, 0.1, "the unmount")
    time.sleep(1)
    assert mount.is_alive()
    far.mend()
    mount.wait_end(150)
    check_changed(backing, results)
    mount.start()


def test_second_signal_ends_a_drain_and_loses_nothing(far):
    mount = far.mount(options=("drain=60s",))
    box = mount.create("web")
    backing = box.backing
    calls = things_to_change(box)
    far.break_("hole")
    results = all_at_once(*calls)
    mount.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not os.path.ismount(mount.path), 1 + SLACK, 0.02)
    time.sleep(0.5)
    assert mount.is_alive(), "it drains"
    began = time.monotonic()
    mount.terminate()
    assert time.monotonic() - began < 1 + SLACK
    mount.start()
    box = mount.box("web")
    far.mend()
    wait_clean(box, 60)
    check_changed(backing, results)


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_in_the_middle_of_sending_loses_nothing_that_was_written(far, seed):
    """What close returned for is there, whole, once a new mount has sent it."""
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    dice = random.Random(seed)
    far.way.set_round_trip(20)
    written = {}
    until = time.monotonic() + dice.uniform(0.05, 0.8)
    while time.monotonic() < until:
        name, data = "f%d" % dice.randrange(30), dice.randbytes(dice.choice((10, 5000, 300_000)))
        (box.fs / name).write_bytes(data)
        written[name] = data
    mount.kill9()
    mount.start()
    box = mount.box("web")
    wait_clean(box)
    for name, data in written.items():
        assert (backing / name).read_bytes() == data, name
        assert (box.fs / name).read_bytes() == data, name
    assert sorted(os.listdir(backing)) == sorted(written), "something is left: %s" % os.listdir(backing)


# -- sent once

class Logged(Far):
    """Its SFTP server says what it does."""

    def __init__(self, base, fresh_mount):
        self.log_path = base / "sftp.log"
        super().__init__(base, fresh_mount,
                         sftp="%s -e -l INFO 2>>%s" % (SFTP_SERVER, self.log_path))

    def written(self):
        """How many bytes were written to each file that was opened for that, in their order."""
        found = re.findall(r'^close ".*" bytes read 0 written (\d+)$', self.log_path.read_text(), re.M)
        return [int(count) for count in found]


@pytest.fixture
def logged(base, fresh_mount):
    made = Logged(base, fresh_mount)
    yield made
    made.stop()


SIZES = {"large": 3_000_000, "medium": 300_000}


def written_later(top):
    """Files that are open, and known to be empty: what is written to them later is all that they hold."""
    return {name: open(top / name, "wb") for name in SIZES}


def write_them(files):
    """{name: bytes}"""
    data = {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}
    all_at_once(*[(write_and_close, files[name], content) for name, content in data.items()])
    return data


def check_sent(backing, data):
    assert {name: (backing / name).read_bytes() for name in os.listdir(backing)} == data


def wait_logged(logged, data):
    """A server may close a file, and say so, after its content was seen."""
    wait_for(lambda: all(len(content) in logged.written() for content in data.values()), 10, 0.1,
             lambda: logged.log_path.read_text())


def check_sent_once(logged, backing, data):
    check_sent(backing, data)
    wait_logged(logged, data)
    for name, content in data.items():
        assert logged.written().count(len(content)) == 1, "%s: %s" % (name, logged.log_path.read_text())
    assert sum(n for n in logged.written() if n > 1000) == sum(map(len, data.values())), "also in parts"


@pytest.mark.parametrize("seconds", [1, 13])
def test_frozen_server_that_goes_on_gets_what_is_dirty_once(logged, seconds):
    """On the connection that it had. After 10 s it is sent again: the first time may have been done by then, too."""
    mount = logged.mount()
    box = mount.create("web")
    backing = box.backing
    files = written_later(box.fs)
    began = time.monotonic()
    box.ok("true")
    logged.break_("frozen")
    with Watch(mount, box):
        data = write_them(files)
        count_dirty(box)
        time.sleep(seconds)
    logged.mend()
    wait_works(box)
    is_short = time.monotonic() - began < DEADLINE - 1
    wait_clean(box, 90)
    check_sent(backing, data)
    wait_logged(logged, data)
    for name, content in data.items():
        assert logged.written().count(len(content)) in ((1,) if is_short else (1, 2)), logged.log_path.read_text()


@each_trouble
def test_kill_9_with_dirty_data_then_a_new_mount_sends_it_once(logged, trouble):
    mount = logged.mount()
    box = mount.create("web")
    backing = box.backing
    files = written_later(box.fs)
    box.ok("true")
    logged.break_(trouble)
    data = write_them(files)
    count_dirty(box)
    mount.kill9()
    mount.start()
    logged.mend()
    wait_clean(mount.box("web"), 60)
    check_sent_once(logged, backing, data)


# -- the breaker

class Gate:
    """A way to a server that can be shut: who comes in then is counted, and gets no answer, or a reset."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.is_shut = self.resets = False
        self.lock = threading.Lock()
        self.ways, self.visits = [], []  # [[began, ended or None]] of those that came to a shut gate
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.ways.append(one)
                if self.is_shut:
                    visit = [time.monotonic(), None]
                    self.visits.append(visit)
                    work = (self._ignore, one, visit)
                else:
                    other = socket.create_connection(("127.0.0.1", self.target))
                    self.ways.append(other)
                    threading.Thread(target=self._carry, args=(other, one), daemon=True).start()
                    work = (self._carry, one, other)
            threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    def _ignore(self, one, visit):
        try:
            if self.resets:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                while one.recv(1000):
                    pass
        except OSError:
            pass
        visit[1] = time.monotonic()
        one.close()

    def _carry(self, one, other):
        try:
            while data := one.recv(65536):
                while self.is_shut:
                    time.sleep(0.02)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def shut(self, resets=False):
        """What is under way is held; with `resets` it is cut."""
        with self.lock:
            self.resets, self.is_shut = resets, True
        if resets:
            self.cut()

    def open(self):
        with self.lock:
            self.is_shut = False
        self.cut()

    def cut(self):
        with self.lock:
            for one in self.ways:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self.ways.clear()

    def stop(self):
        self.open()
        self.listener.close()


@pytest.fixture
def gated(far, base):
    """(the gate, a sandbox whose host is behind it)."""
    gate = Gate(far.server.port)
    far.server.learn(gate.port)
    mount = far.mount(start=False)
    (mount.base / "config.ini").unlink()
    kinds.section(mount, "far", far.server, port=gate.port, base=far.server.base / "sandboxes")
    mount.start()
    box = mount.create("web")
    prepare(box)
    yield gate, box
    gate.stop()
    mount.stop()


def fail_at_once(box, seconds):
    """Calls without a pause; how long each took, none of which reached the host."""
    took, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        for call in ((os.listdir, box.fs / "d6"), (read_at, box.fs / "big", 30 << 20)):
            span, _, code = attempt(*call)
            assert code in AWAY, (call, code)
            took.append(span)
    took.sort()
    print("%d calls, median %.2f ms, slowest %.0f ms" % (len(took), took[len(took) // 2] * 1000, took[-1] * 1000))
    return took


def test_silent_host_is_probed_by_one_connection_while_calls_fail_at_once(gated):
    gate, box = gated
    gate.shut()

    def is_open():  # the connection has fallen silent, then the first dial
        attempt(os.listdir, box.fs / "d5")
        return gate.visits and gate.visits[0][1] is not None
    wait_for(is_open, 60, 0.01, "the breaker to open")
    took = fail_at_once(box, 15)
    assert took[len(took) // 2] < 0.5 and took[-1] < STILL, took[-10:]
    visits = sorted((began, ended or float("inf")) for began, ended in gate.visits)
    print("visits: %s" % [(round(a - visits[0][0], 2), round(b - visits[0][0], 2)) for a, b in visits])
    assert 1 <= len(visits) <= 6, visits
    for (earlier, _), (began, _) in zip(visits, visits[1:]):  # each lasts for 10 s; when it ended is seen late
        assert began > earlier + 5, "two at a time: %s" % visits
    gate.open()
    wait_works(box, 60)
    assert (box.fs / "d5/f1").read_text() == "5 1\n"


def test_host_that_resets_connections_is_tried_at_growing_intervals(gated):
    """However many calls want it."""
    gate, box = gated
    gate.shut(resets=True)
    wait_for(lambda: attempt(os.listdir, box.fs / "d5")[2] in AWAY | {errno.ECONNRESET}, 60, 0.01)
    fail_at_once(box, 15)
    began = [round(visit[0] - gate.visits[0][0], 2) for visit in gate.visits]
    print("visits: %s" % began)
    gaps = [later - earlier for earlier, later in zip(began, began[1:])]
    assert len(began) <= 40 and max(gaps) > 1, began  # a reset is tried again some times by each dial
    gate.open()
    wait_works(box, 60)


# -- commands

LINES = 120
COUNT = ("i=0; while [ $i -lt %d ]; do echo line $i; echo error $i >&2; i=$((i+1)); sleep 0.05; done; "
         "exit 7" % LINES)


def check_count(box, number, timeout=120):
    assert box.wait(number, timeout) == "exit 7"
    result = box.result(number)
    assert result.stdout == b"".join(b"line %d\n" % n for n in range(LINES))
    assert result.stderr == b"".join(b"error %d\n" % n for n in range(LINES))


@pytest.mark.parametrize("cut", ["reset", "connections killed", "hole"])
def test_command_goes_on_across_a_cut(far, cut):
    mount = far.mount()
    box = mount.create("web")
    number = box.start(COUNT)
    wait_output(box, number, "line 10\n")
    for _ in range(2):
        if cut == "reset":
            far.way.cut()
        elif cut == "hole":
            far.way.hole()
            time.sleep(2)
            far.way.thaw()
        else:
            far.server.kill_connections()
        time.sleep(0.7)
    check_count(box, number)


def test_command_ends_while_the_host_cannot_be_reached(far):
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    number = box.start("echo before; until [ -e go ]; do sleep 0.05; done; echo after; touch gone; exit 3")
    wait_output(box, number, "before\n")
    far.way.hole()
    far.way.cut()
    (backing / "go").touch()
    wait_for(lambda: (backing / "gone").exists(), 20, 0.05, "the command's end")
    time.sleep(1.5)
    assert exit_of(box, number) == ""
    far.way.thaw()
    assert box.wait(number, 60) == "exit 3"
    assert box.result(number).stdout == b"before\nafter\n"


@pytest.mark.parametrize("how", ["kill -9", "umount"])
def test_sbxfs_restarted_with_live_commands(far, how):
    mount = far.mount()
    box = mount.create("web")
    counting = box.start(COUNT)
    given = box.start("cat; exit 5", stdin="open")
    mount.write(box.dir / "exec" / given / "stdin", b"first\n")
    short = box.start("sleep 0.5; echo short; exit 2")
    wait_output(box, counting, "line 3\n")
    wait_output(box, given, "first\n")
    if how == "umount":
        mount.umount()
    else:
        mount.kill9()
    time.sleep(1)
    mount.start()
    assert box.wait(short) == "exit 2" and box.result(short).stdout == b"short\n"
    mount.write(box.dir / "exec" / given / "stdin", b"second\n")
    box.ctl("eof " + given)
    assert box.wait(given) == "exit 5" and box.result(given).stdout == b"first\nsecond\n"
    check_count(box, counting)


def test_kill_reaches_the_group_after_a_reconnection(far):
    mount = far.mount()
    box = mount.create("web")
    seconds = random.randrange(10**6, 10**7)
    number = box.start("sleep %d & echo started; wait" % seconds)
    wait_output(box, number, "started\n")
    far.way.cut()
    box.kill(number)
    assert box.wait(number, 30) == "signal 9"
    wait_for(lambda: box.ok("ps -eo args | grep '^sleep %d' || true" % seconds) == b"", 10, 0.1, "its group's end")


# -- mounts and sandboxes

def test_sandboxes_come_back_under_their_names(far):
    mount = far.mount()
    for name in ("one", "two", "three"):
        mount.create(name).ok("echo %s >me" % name)
    os.rename(mount.path / "three", mount.path / "four")
    mount.box("two").destroy()
    for restart in (mount.umount, mount.kill9):
        restart()
        mount.start()
        assert mount.sandboxes() == ["four", "one"]
        assert mount.box("one").ok("cat me") == b"one\n"
        assert (mount.box("four").fs / "me").read_text() == "three\n"
    other = far.mount()
    assert other.sandboxes() == [], "another owner's sandboxes are shown"


def test_mount_starts_while_the_host_is_away_and_has_it_later(far):
    mount = far.mount()
    mount.create("web").ok("echo kept >file")
    mount.umount()
    far.break_("killed")
    began = time.monotonic()
    mount.start()
    assert time.monotonic() - began < STILL
    box = mount.box("web")
    assert mount.sandboxes() == ["web"]
    with Watch(mount, box):
        took, _, code = attempt(read_first, box.fs / "file")
        assert code in AWAY and took < DEADLINE + SLACK, (took, code)
    far.mend()
    wait_works(box)
    assert (box.fs / "file").read_text() == "kept\n"


def test_sandbox_that_cannot_be_created_says_why(far):
    mount = far.mount()
    far.break_("killed")
    began = time.monotonic()
    mount.ctl("create web create_timeout=5s")
    assert time.monotonic() - began < STILL
    box = mount.box("web")
    box.wait_state("error", 60)
    assert box.read("error") != b""
    box.destroy()
    far.mend()

    def made():  # the next try of a connection may be some seconds away
        mount.ctl("create again create_timeout=20s")
        again = mount.box("again")
        wait_for(lambda: again.state in ("running", "error"), 60)
        if again.state == "running":
            return True
        again.destroy()
        return False
    wait_for(made, 120, 0.5, "a sandbox on the host that is back")
    mount.box("again").ok("true")


def test_dead_host_slows_no_other(base, fresh_mount):
    far = Far(base, fresh_mount)
    try:
        mount = far.mount(start=False)
        near = far.server.delay(0)
        kinds.section(mount, "near", far.server, port=near.port, base=far.server.base / "near")
        mount.start()
        box, other = mount.create("web"), mount.create("other", provider="near")
        prepare(box)
        far.way.hole()
        threads = [threading.Thread(target=attempt, args=(read_first, box.fs / ("d%d/f0" % n)), daemon=True)
                   for n in range(8)]
        for thread in threads:
            thread.start()
        for n in range(10):
            began = time.monotonic()
            (other.fs / ("f%d" % n)).write_text("%d" % n)
            assert other.ok("cat f%d" % n) == b"%d" % n
            assert time.monotonic() - began < DEADLINE - 1
        far.way.thaw()
        for thread in threads:
            thread.join(30)
    finally:
        far.way.thaw()
        far.stop()
        near.stop()


def test_lost_workspace_is_gone_and_its_name_can_be_removed(far):
    """Only what the host says itself is proof."""
    mount = far.mount()
    box = mount.create("web")
    run(["rm", "-rf", box.backing.parent])
    box.ctl("refresh")
    try:
        box.wait_state(("gone", "error"), 30)
    except Failed:
        raise Failed("state %s" % box.status())
    box.destroy()


# -- conflicts

def test_file_changed_on_the_host_while_it_was_away_is_replaced_and_told(far):
    """Saved anew and in place; the last close wins, and never is one a mixture of both."""
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    before = b"before" * 1000
    expected = {"saved": b"ours" * 500, "patched": before[:300] + b"OUR" + before[303:]}
    for name in expected:
        (box.fs / name).write_bytes(before)
    wait_clean(box)
    with open(box.fs / "saved", "wb", buffering=0) as saved, \
            open(box.fs / "patched", "r+b", buffering=0) as patched:
        assert patched.read() == before
        far.break_("killed")
        write_and_close(saved, expected["saved"])
        os.pwrite(patched.fileno(), b"OUR", 300)
    time.sleep(1.5)  # less is two programs at the same time
    for name in expected:
        (backing / name).write_bytes(b"inside" * 700)
    far.mend()
    wait_works(box)
    wait_clean(box)
    for name, data in expected.items():
        assert (backing / name).read_bytes() == data
        assert (box.fs / name).read_bytes() == data
    assert "while our change waited; ours replaced it" in error_text(box)
