# SPDX-License-Identifier: Apache-2.0
"""A mount on a service that misbehaves: every call ends in time, and nothing is lost.

For each service of SERVICES, by the faults of its stand-in (fakes/common/faults.py): on what its API
is asked, and on what goes into the sandbox. E2B meets all of them. What sees most of them first,
transport/http and the volume, is the same for all services; the others meet those that reach code of
their own, which is a third of the time: an answer that is refused, makes no sense or leads elsewhere,
a stream that is cut or of a wrong length, and silence, after which each has its own way to be asked.
"""

import errno
import os
import re
import socket
import threading
import time

import pytest

from fakes import Fake
from support import kinds
from support.control import error_of, error_text, exit_of, wait_exit
from support.far import DEADLINE, SLACK, attempt, wait_clean
from support.tools import Failed, wait_for
from support.trees import describe

pytestmark = pytest.mark.timeout(300)

# A kind of kinds.py, and the server of its stand-in that answers for the insides of sandboxes.
SERVICES = {kinds.E2B: "envd", kinds.DAYTONA: "proxy", kinds.OPENSANDBOX: "execd"}

FAST = 8.0  # seconds: control files, on a busy machine; less than the time-out of what hangs
CONNECTING = {errno.EHOSTUNREACH, errno.EHOSTDOWN}
BREAKER = {errno.EHOSTUNREACH}
NONSENSE = {errno.EPROTO, errno.EIO, errno.EHOSTUNREACH}  # the last: of a stream that ends with it

# name: (the fault, what calls may fail with while it is there). Nobody answers twice in a row: the
# breaker is open then.
FAULTS = {
    "delay": ({"kind": "delay", "ms": 700}, set()),
    "drip": ({"kind": "drip", "step": 4096, "ms": 2}, set()),
    "drop": ({"kind": "drop"}, CONNECTING),
    "reset": ({"kind": "drop", "reset": True}, CONNECTING),
    "cut": ({"kind": "cut", "at": 3}, CONNECTING | NONSENSE),
    "longer": ({"kind": "length", "by": 7}, CONNECTING | NONSENSE),
    "shorter": ({"kind": "length", "by": -1}, CONNECTING | NONSENSE),
    "garbage": ({"kind": "garbage", "body": "SSH-2.0-x\r\n\r\n"}, CONNECTING | NONSENSE),
    "429": ({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}, {errno.EAGAIN}),
    "500": ({"kind": "status", "status": 500, "body": "{\"message\":\"no \\u001b[31m luck\\nstate gone\"}"},
            {errno.EIO}),
    "503": ({"kind": "status", "status": 503}, {errno.EIO} | BREAKER),
    "json": ({"kind": "answer", "body": "{\"id"}, NONSENSE),
    "deep": ({"kind": "answer", "body": "[" * 100000}, NONSENSE),
    "bytes": ({"kind": "answer", "b64": "/////w=="}, NONSENSE),
    "endless": ({"kind": "endless"}, CONNECTING | NONSENSE | {errno.EFBIG, errno.ETIMEDOUT}),
    "hang": ({"kind": "hang"}, {errno.ETIMEDOUT} | BREAKER),
    "elsewhere": ({"kind": "redirect", "to": "ELSEWHERE"}, NONSENSE),
}


def on_services(argument, everything, own):
    """A test's values of `argument` on E2B, and those on the other services."""
    cases = [(kind, value) for kind in SERVICES for value in (everything if kind is kinds.E2B else own)]
    return pytest.mark.parametrize("far, " + argument, cases, indirect=["far"], ids=str)


class Elsewhere(threading.Thread):
    """Another host, which remembers what it is sent."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d{target}" % self.socket.getsockname()[1]
        self.seen = b""

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    self.seen += connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                except OSError:
                    pass

    def stop(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join(5)


class Far:
    """A service of this test's own, a mount on it, and one sandbox there."""

    def __init__(self, kind, fresh_mount):
        self.kind = kind
        self.fake = Fake(kind.name).start()
        self.elsewhere = Elsewhere()
        self.elsewhere.start()
        self.mount = fresh_mount(options=("drain=1s",), start=False)
        self.mount.options += kind.options_on(self.fake, self.mount)
        self.mount.env = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
        self.secrets = [value for name, value in self.fake.environ.items() if name.endswith("_KEY")]
        assert self.secrets
        self.box = self.errors = None

    def start(self):
        self.mount.start()
        self.box = self.mount.create("web")
        return self

    def backing(self):
        return self.kind.backing_on(self.fake, self.box)

    def boxes(self):
        """Sandboxes that the service has."""
        place = self.fake.base / "boxes"
        return sorted(os.listdir(place)) if place.exists() else []

    def hurt(self, name, server, **more):
        fault, errors = FAULTS[name]
        fault = {key: value.replace("ELSEWHERE", self.elsewhere.url) if key == "to" else value
                 for key, value in fault.items()}
        self.errors = errors
        if server == "api" and name == "hang":
            fault["s"] = 12  # the API may take a minute for what is slow there
        self.fake.fault(**dict(fault, server=server, count=0, **more))

    def hits(self):
        return sum(rule["hits"] for rule in self.fake.faults())

    def mend(self):
        self.fake.clear_faults()

    def stop(self):
        self.mend()
        try:
            self.mount.stop()
            for secret in self.secrets:
                assert secret not in self.mount.log()
                assert secret.encode() not in self.elsewhere.seen
            assert b"\r\nAuthorization:" not in self.elsewhere.seen
            assert not re.search(rb"(?i)\r\n(x-access-token|x-api-key|authorization|cookie)",
                                 self.elsewhere.seen)
        finally:
            self.elsewhere.stop()
            self.fake.stop(check=False)


@pytest.fixture
def far(request, fresh_mount):
    """On the service that the test's parameter names."""
    made = Far(request.param, fresh_mount)
    yield made
    made.stop()


@pytest.fixture
def web(far):
    """far with its sandbox; `inside`: the server that answers for its insides."""
    far.start()
    far.inside = SERVICES[far.kind]
    return far


def all_at_once(far, *calls, limit=2 * DEADLINE + SLACK):
    """The errnos of calls that are made at once; each must end in time, as this fault may make it.

    Twice the deadline: the kernel lets some wait for others, and the breaker wants two.
    """
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
    blocked = [call[:2] for call, result in zip(calls, results) if result is None]
    if blocked:
        raise Failed("still blocked after %.0f s: %s" % (limit, blocked))
    for call, (took, _, code) in zip(calls, results):
        assert code is None or code in far.errors | BREAKER, "%s: %s after %.1f s; error: %s" % (
            call[:2], os.strerror(code), took, error_text(far.box))
    return [code for _, _, code in results]


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        return file.read()


def write_durably(path, data):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_sentence(far, text):
    """One line that tells something, nothing that is secret, nothing that a terminal would obey."""
    assert text and len(text) <= 1024, text
    assert all(c.isprintable() for c in text), text
    assert "\\x5c" not in text, text  # no fault says a backslash: it would be escaped twice
    assert not any(secret[:8] in text for secret in far.secrets)


def wait_works(far, timeout=90):
    """Until files can be used again: the breaker asks with a back-off."""
    def works():
        try:
            write_durably(far.box.fs / ".works", b"")
            os.unlink(far.box.fs / ".works")
            return True
        except OSError as error:
            assert error.errno in far.errors | BREAKER | {errno.ETIMEDOUT, errno.EHOSTDOWN}, error
            return False
    wait_for(works, timeout, 0.1, lambda: "the sandbox to be used again: %s" % far.box.status())


def wait_all_sent(far):
    """Nothing was refused, or it was sent again. A look at status can be 250 ms old."""
    wait_for(lambda: far.box.status()["unsent"] == "0", 5, what=lambda: "all to be sent: %s" % far.box.status())


def look_at_controls(far):
    """What needs no service doesn't wait for one."""
    began = time.monotonic()
    far.box.status()
    os.listdir(far.mount.path)
    os.listdir(far.box.dir)
    far.mount.read(far.mount.path / "status")
    assert time.monotonic() - began < FAST


def put_behind(far):
    backing = far.backing()
    (backing / "d").mkdir()
    for n in range(8):
        (backing / "d" / ("f%d" % n)).write_text("%d\n" % n)
    (backing / "big").write_bytes(os.urandom(3 << 20))  # by the service's own download
    return backing


@on_services("fault", FAULTS, ["cut", "longer", "shorter", "hang"])
def test_files_while_the_way_into_the_sandbox_is_hurt(web, fault):
    backing = put_behind(web)
    fs = web.box.fs
    web.hurt(fault, web.inside)
    for _ in range(2):
        codes = all_at_once(web, (os.listdir, fs / "d"), (read_all, fs / "big"), (read_all, fs / "d/f3"),
                            (os.statvfs, fs), (write_durably, fs / "new", b"new\n" * 1000))
        if any(codes):
            check_sentence(web, error_text(web.box))
        look_at_controls(web)
    assert web.hits() > 0
    web.mend()
    wait_works(web)
    if (fs / "new").exists():  # else its creation was told to have failed
        wait_clean(web.box)
        assert (backing / "new").read_bytes() in ([b"new\n" * 1000] if codes[4] is None
                                                  else [b"new\n" * 1000, b""])
    wait_all_sent(web)

    def reads():
        try:
            return (fs / "d/f3").read_text() == "3\n"
        except OSError as error:  # of a request that hung before all was mended
            assert error.errno in web.errors | BREAKER | {errno.ETIMEDOUT}, error
            return False
    wait_for(reads, 20)
    ours, theirs = describe(fs, times=False), describe(backing, times=False)
    assert {name for name in ours if not name.startswith(b".")} >= {b"big", b"d", b"d/f0"}
    for path in ours:
        assert ours[path] == theirs.get(path), path


@on_services("fault", FAULTS, ["cut", "503", "hang"])
def test_what_was_written_before_is_sent_when_it_can_be(web, fault):
    backing = web.backing()
    write_durably(web.box.fs / "file", b"old\n")  # all is connected
    web.hurt(fault, web.inside)
    web.errors = web.errors | {errno.ETIMEDOUT}  # fsync waits while it is tried again
    for n in range(20):
        try:
            (web.box.fs / ("w%d" % n)).write_bytes(b"%d\n" % n * 5000)
        except OSError as error:
            assert error.errno in web.errors | BREAKER, error
            break
    else:
        n = 20
    if all_at_once(web, (write_durably, web.box.fs / "file", b"new\n"))[0] is not None:
        check_sentence(web, error_text(web.box))
    look_at_controls(web)
    web.mend()
    wait_works(web)
    wait_clean(web.box)
    for i in range(n):
        assert (backing / ("w%d" % i)).read_bytes() == b"%d\n" % i * 5000
    wait_all_sent(web)


def ended_within(box, number, seconds):
    """What wait says, or None while it runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        said = box.read("exec/%s/wait.1" % number).decode().rstrip("\n")
        if said != "running":
            return said
    return None


@on_services("fault", FAULTS, ["cut", "json", "hang"])
def test_command_runs_once_or_not_at_all(web, fault):
    backing = web.backing()
    web.hurt(fault, web.inside)
    first = web.box.start("echo x >> ran")
    said = ended_within(web.box, first, 25)
    if not said:  # nobody knows whether it runs: that stays open until somebody does
        wait_for(lambda: "asked again" in error_text(web.box), 10, what=lambda: repr(error_text(web.box)))
    elif said != "exit 0":
        check_sentence(web, said)
    web.mend()
    wait_works(web)
    said = said or web.box.wait(first, 90)
    assert said == "exit 0" or said.startswith(("error ", "lost")), said
    second = web.box.start("echo y >> ran; cat ran")
    wait_exit(web.box, second, 90)
    assert exit_of(web.box, second) == "0"
    ran = (backing / "ran").read_text()
    assert ran in (["x\ny\n"] if said == "exit 0" else ["x\ny\n", "y\n"]), ran
    assert web.box.read("exec/%s/stdout" % second).decode() == ran


@on_services("at", [1, 200, 5000, 70000], [200, 70000])
def test_streams_that_break_again_and_again(web, at):
    """What goes on under way is taken up again; no output is lost or doubled, no command runs twice."""
    web.errors = CONNECTING | NONSENSE | {errno.ETIMEDOUT}
    web.fake.fault(kind="cut", at=at, server=web.inside, count=3)
    number = web.box.start("echo x >> ran; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done")
    data = os.urandom(1 << 20)
    while attempt(write_durably, web.box.fs / "big", data)[2] is not None:
        time.sleep(0.2)
    wait_exit(web.box, number, 120)
    said = exit_of(web.box, number)
    if said == "0":
        out = web.box.read("exec/%s/stdout" % number)
        assert out == b"".join(b"line %d\n" % (n + 1) for n in range(20000))
        assert (web.backing() / "ran").read_text() == "x\n"
    else:
        check_sentence(web, said)
        assert not (web.backing() / "ran").exists() or (web.backing() / "ran").read_text() == "x\n"
    wait_clean(web.box)
    assert (web.backing() / "big").read_bytes() == data


@on_services("fault", FAULTS, ["500", "json", "elsewhere", "hang"])
def test_state_while_the_service_is_hurt(web, fault):
    """No failure is evidence of an end, and the way into the sandbox is another."""
    web.box.ok("true")
    web.hurt(fault, "api")
    web.box.ctl("refresh")
    wait_for(lambda: web.hits() > 0, 60)
    for _ in range(10):
        assert web.box.state in ("running", "unknown"), web.box.status()
        time.sleep(0.1)
    look_at_controls(web)
    write_durably(web.box.fs / "file", b"data\n")
    assert (web.backing() / "file").read_bytes() == b"data\n"
    web.mend()

    def runs():
        web.box.ctl("refresh")
        time.sleep(0.2)
        return web.box.state == "running"
    wait_for(runs, 90, what=lambda: "it to run: %s" % web.box.status())


@on_services("fault", FAULTS, ["500", "bytes", "elsewhere", "hang"])
def test_creation_while_the_service_is_hurt(web, fault):
    """It fails in time with its reason, or is done late; in no case is a sandbox left over."""
    before = web.boxes()
    web.hurt(fault, "api")
    box = web.mount.create("more", wait=False)
    began = time.monotonic()
    wait_for(lambda: box.state in ("running", "error") or time.monotonic() - began > 15, 60)
    if box.state == "error":
        check_sentence(web, error_text(box))
    look_at_controls(web)
    web.mend()
    wait_for(lambda: box.state in ("running", "error"), 90)
    wait_for(lambda: error_of(box.ctl, "destroy") is None, 10)
    wait_for(lambda: not web.mount.exists(box.dir), 60, 0.05)
    wait_for(lambda: web.boxes() == before, 90, 0.1, lambda: "%s besides %s" % (web.boxes(), before))


@pytest.mark.parametrize("far", SERVICES, indirect=True, ids=str)
def test_key_that_is_sent_back_is_not_shown(far):
    """Wherever a service's text is cut."""
    far.start()
    key, = far.secrets
    at = [end - len(key) + 1 for end in (200, 255, 500)]
    answers = [({"status": 400, "body": "y" * n + key}, "text/plain") for n in at]
    answers += [({"status": 400, "body": '{"message":"%s"}' % ("y" * n + key)}, "application/json")
                for n in at]
    answers += [({"status": 307, "headers": {"Location": "http:///" + "y" * (n - 8) + key}}, "")
                for n in at]
    for number, (fault, type_) in enumerate(answers):
        fault.setdefault("headers", {"Content-Type": type_})
        far.fake.fault(kind="status", server="api", method="POST", count=0, **fault)
        box = far.mount.create("b%d" % number, wait=False)
        wait_for(lambda box=box: error_text(box), 60)
        check_sentence(far, error_text(box))
        assert "yyyyyyyy" in error_text(box)
        far.mend()
    assert key[:8] not in far.mount.log()


@pytest.mark.parametrize("far", SERVICES, indirect=True, ids=str)
def test_list_that_is_refused_says_why(far):
    """Also with another provider after it, which answers."""
    far.start()
    ctl = far.mount.path / "ctl"
    far.fake.fault(kind="status", status=401, server="api", method="GET", count=0,
                   body='{"message":"no such key"}')
    far.mount.write(ctl, b"refresh\n")
    wait_for(lambda: b" pending " not in far.mount.read(ctl), 60)
    result = far.mount.read(ctl).decode().splitlines()[-1]
    check_sentence(far, result)
    assert " error - refresh # EACCES: " in result and result.endswith(": no such key"), result


@on_services("fault", ["drop", "503", "hang", "json"], ["503", "json"])
def test_destruction_is_tried_until_it_is_done(web, fault):
    web.box.ok("true")
    web.hurt(fault, "api")
    web.box.ctl("destroy")
    wait_for(lambda: web.hits() > 0, 60)
    look = web.mount.read(web.mount.path / "status").decode()
    assert "web" in look, look
    assert web.boxes()
    web.mend()
    wait_for(lambda: not web.boxes(), 90, 0.1)
    wait_for(lambda: " web " not in web.mount.read(web.mount.path / "status").decode(), 60, 0.1)
    web.mount.create("web")  # the name is free


@pytest.mark.parametrize("server", ["api", "inside"])
@on_services("fault", ["hang", "drop", "endless"], ["hang"])
def test_unmount_and_mount_again_while_it_is_hurt(web, fault, server):
    write_durably(web.box.fs / "file", b"before\n")
    number = web.box.start("echo up; read x; echo $x; cat", stdin="open")
    wait_for(lambda: web.box.read("exec/%s/stdout" % number) == b"up\n", 60)
    web.hurt(fault, web.inside if server == "inside" else "api")
    (web.box.fs / "late").write_bytes(b"late\n")
    began = time.monotonic()
    web.mount.umount(40)
    assert time.monotonic() - began < 10
    web.mount.start()
    look_at_controls(web)
    web.mend()
    wait_works(web)
    wait_clean(web.box)
    assert (web.backing() / "late").read_bytes() == b"late\n"
    web.mount.write(web.box.dir / "exec" / number / "stdin", b"still there\n")
    web.box.ctl("eof " + number)
    wait_exit(web.box, number)
    assert web.box.result(number).stdout == b"up\nstill there\n"
