# SPDX-License-Identifier: Apache-2.0
"""What test_e2b, test_daytona and test_opensandbox have in common: whole tests, which they import, and parts of some.

A module that imports the tests has the fixtures `fake` (a stand-in of the test's own), `remote` (remote(fake): a
provider on it), `d` and `nonsense` (a fault; the params are nonsense_of(service)).
"""

import contextlib
import time
from collections import namedtuple

import pytest

from box_files import Files
from driver import Refused
from support.tools import wait_for

# state: what is asked for one sandbox; key: the variable that holds the secret; bridge: what runs in a sandbox for a
# stream of ours; nonsense: what besides NONSENSE is no answer to that question.
Service = namedtuple("Service", "state key bridge nonsense")
SERVICES = {
    "e2b": Service("^/sandboxes/i", "E2B_API_KEY", "join", [
        {"kind": "status", "status": 401, "body": "{\"code\":401,\"message\":\"KEY\"}"},
    ]),
    "daytona": Service("^/api/sandbox/[0-9a-f]{8}", "DAYTONA_API_KEY", "carry", [
        {"kind": "status", "status": 200, "body": "<!doctype html><title>Daytona</title>"},
        {"kind": "status", "status": 404,
         "body": "{\"message\":\"Cannot GET /api/sandbox/x\",\"statusCode\":404}"},
        {"kind": "status", "status": 401, "body": "{\"statusCode\":401,\"message\":\"KEY\"}"},
    ]),
    "opensandbox": Service("^/v1/sandboxes/[0-9a-f-]+$", "OPEN_SANDBOX_API_KEY", "join", [
        {"kind": "answer", "body": "{}"},
        {"kind": "status", "status": 404, "body": "{\"detail\":\"Not Found\"}"},
        {"kind": "status", "status": 401, "body": "{\"code\":\"INVALID_API_KEY\",\"message\":\"KEY\"}"},
    ]),
}

# Faults that pass, and such as make no sense. KEY: the secret, as a service might repeat it.
PASSING = [
    {"kind": "status", "status": 503}, {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "drop"}, {"kind": "drop", "after": True}, {"kind": "cut", "at": 20},
    {"kind": "status", "status": 502}, {"kind": "drip", "step": 40, "ms": 1},
]
NONSENSE = [
    {"kind": "answer", "body": "{"}, {"kind": "answer", "body": "[" * 10000},
    {"kind": "answer", "b64": "/////w=="}, {"kind": "garbage", "body": "SSH-2.0-x\r\n\r\n"},
    {"kind": "endless"}, {"kind": "status", "status": 404, "body": "<html>gone</html>"},
    {"kind": "redirect", "to": "http://127.0.0.1:9/{target}"},
]


def nonsense_of(service):
    return NONSENSE + SERVICES[service].nonsense


def status_name(fault):
    return "%s%s" % (fault["kind"], fault.get("status", ""))


def after_name(fault):
    return "%s%s" % (fault["kind"], fault.get("after", ""))


def key_of(fake):
    return fake.environ[SERVICES[fake.name].key]


def refused(errno, call, *args, **kwargs):
    """The sentence of a call that must be refused."""
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == errno, caught.value
    assert caught.value.sentence
    return caught.value.sentence


def hits(fake):
    return sum(rule["hits"] for rule in fake.faults())


def writes(d, box, number, text):
    """Is it taken now? It isn't while the stream is away."""
    try:
        d.do("write", box=box, number=number, text=text, last=True)
    except Refused as error:
        assert error.errno == "EAGAIN", error
        return False
    return True


# -- tests

def test_what_others_killed_is_gone(fake, remote):
    d = remote(fake)
    d.create("k1")
    number = d.exec("k1", "sleep 1000")
    other = remote(fake)
    other.attach("k1", box_id=d.ids["k1"])
    other.do("destroy", box="k1")
    assert d.wait("k1", number).kind == "lost"
    assert d.state("k1") == "gone"


@pytest.mark.parametrize("fault", PASSING, ids=status_name)
def test_a_question_is_asked_again(fake, remote, fault):
    d = remote(fake)
    d.create("k1")
    fake.fault(method="GET", path=SERVICES[fake.name].state, **fault)
    assert d.state("k1") == "running"
    assert hits(fake) == 1


def test_nonsense_is_no_state(fake, remote, nonsense):
    d = remote(fake)
    d.create("k1")
    fault = dict(nonsense)
    if "body" in fault:
        fault["body"] = fault["body"].replace("KEY", key_of(fake))
    fake.fault(method="GET", path=SERVICES[fake.name].state, count=0, **fault)
    with pytest.raises(Refused) as caught:
        d.state("k1")
    assert caught.value.errno in ("EPROTO", "EIO", "ENOENT", "EACCES", "EHOSTUNREACH", "EPERM")
    assert key_of(fake) not in caught.value.sentence
    fake.clear_faults()
    assert wait_for(lambda: d.state("k1") == "running", 20)
    assert d.check("k1", "echo on") == "on\n"


def test_nothing_of_ours_stays_behind(d, box):
    """What was started for a stream ends with it."""
    d.check(box, "true")
    for _ in range(3):
        d.do("release", box=box)
        d.attach(box)
        d.check(box, "true")
    count = "grep -alz '^%s$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l; true" % SERVICES[d.kind].bridge
    # one for commands; where each stream has one, another for files, which are warmed
    wait_for(lambda: d.check(box, count) == ("2\n" if d.kind == "daytona" else "1\n"), 20,
             what=lambda: "as many as streams: %s" % d.check(box, count))


# -- parts of tests

def pauses_and_resumes(d):
    d.do("pause", box="k1")
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"
    assert d.do("list")["boxes"] == {"k1": "paused"}
    assert "paused" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("resume", box="k1")
    d.do("resume", box="k1")
    assert d.check("k1", "echo awake") == "awake\n"


def is_destroyed(d):
    d.destroy("k1")
    d.do("destroy", box="k1")  # what is gone already: success
    assert d.state("k1") == "gone"
    refused("ENODEV", d.exec, "k1", "true")


def goes_on_where_it_was_paused(d, number):
    """The command reads a line and prints it."""
    assert "paused" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("resume", box="k1")
    wait_for(lambda: writes(d, "k1", number, "still there\n"), 10)
    assert d.wait("k1", number).out == b"still there\n"


def is_connected(d, box):
    """Commands and files are served: nothing more is started for them."""
    d.check(box, "true")
    Files(d, box, "/").stat()  # else the file agent is started behind the first command, some time


def is_quiet(fake, seconds=1.0):
    """Wait until nobody has asked anything for some time."""
    mark = fake.mark()

    def nothing_came():
        nonlocal mark
        time.sleep(seconds)
        came = fake.journal(since=mark)
        mark = max((entry.seq for entry in came), default=mark)
        return not came
    wait_for(nothing_came, 10)


def is_asked_only(fake, d, box, state):
    """Neither its state nor a list wakes or renews it, once it is_connected; the requests for them."""
    is_quiet(fake)  # what broke off with a pause is looked at
    mark = fake.mark()
    for _ in range(3):
        assert d.state(box) == state
        d.do("list")
    asked = fake.journal(since=mark)
    assert asked and {each.method for each in asked} == {"GET"}
    assert {each.server for each in asked} == {"api"}
    return asked


def is_refused_before_anything_is_made(fake, d, settings, errno, words):
    mark = fake.mark()
    for check_only in (True, False):
        assert words in refused(errno, d.create, "k9", check_only=check_only, **settings)
    assert not fake.journal("sandbox", "POST", since=mark)


def is_listed_by_pages(fake, d, path):
    """Five sandboxes, of which a page holds two."""
    for i in range(5):
        d.create("k%d" % i)
    mark = fake.mark()
    assert d.do("list")["boxes"] == {"k%d" % i: "running" for i in range(5)}
    assert len(fake.journal(path, "GET", since=mark)) == 3


def breaks_but_loses_no_command(fake, d, path, fault):
    """The first stream to the holder fails; the command runs once all the same."""
    d.create("k1")
    d.check("k1", "true")
    d.kill()
    fake.fault(path=path, **fault)
    d.start()
    d.attach("k1")
    number = d.exec("k1", "echo x >> ran; wc -l < ran")
    assert d.wait("k1", number).out == b"1\n"


def are_in_no_file(d, *secrets):
    for path in d.directory.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                for secret in secrets:
                    assert secret.encode() not in data
