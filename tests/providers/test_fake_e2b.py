# SPDX-License-Identifier: Apache-2.0
"""E2B's stand-in keeps what the service's reference says that clients trip over."""

import base64
import json
import os
import struct
import time

import pytest

from fakes import Fake
from fakes.client import Client
from support.tools import wait_for


@pytest.fixture(scope="module")
def fake():
    with Fake("e2b") as each:
        yield each


@pytest.fixture(scope="module")
def api(fake):
    with Client(fake.environ["E2B_API_URL"], {"X-API-Key": fake.environ["E2B_API_KEY"]}) as client:
        yield client


@pytest.fixture(scope="module")
def box(fake, api):
    """A sandbox's envd; box.id."""
    made = api.ask("POST", "/sandboxes", {"templateID": "base", "timeout": 600, "secure": True}).json()
    headers = {"X-Access-Token": made["envdAccessToken"], "E2b-Sandbox-Id": made["sandboxID"],
               "E2b-Sandbox-Port": "49983"}
    with Client(fake.environ["E2B_SANDBOX_URL"], headers) as client:
        client.id = made["sandboxID"]
        client.made = made
        yield client


def rpc(box, method, message, **headers):
    return box.ask("POST", "/filesystem.Filesystem/" + method, message, headers)


def envelope(message):
    data = json.dumps(message).encode()
    return struct.pack(">BI", 0, len(data)) + data


def events(said):
    found, at = [], 0
    while at < len(said.body):
        flags, size = struct.unpack_from(">BI", said.body, at)
        found.append((flags, json.loads(said.body[at + 5:at + 5 + size])))
        at += 5 + size
    return found


def start(box, argv, user="root", headers=(), **more):
    """(stdout, end or error) of a command."""
    message = {"process": {"cmd": argv[0], "args": argv[1:]}, "stdin": False, **more}
    said = box.ask("POST", "/process.Process/Start", envelope(message), {
        "Content-Type": "application/connect+json", **dict(headers),
        "Authorization": "Basic " + base64.b64encode(user.encode() + b":").decode()})
    assert said.status == 200, said
    all_of_it = events(said)
    assert all_of_it[-1][0] == 2
    if all_of_it[-1][1]:
        return None, all_of_it[-1][1]["error"]
    out = b"".join(base64.b64decode(each["event"]["data"].get("stdout", ""))
                   for _, each in all_of_it[:-1] if "data" in each["event"])
    return out, all_of_it[-2][1]["event"]["end"]


def sh(box, text, **more):
    out, end = start(box, ["sh", "-c", text], **more)
    assert end.get("exitCode", 0) == 0, (out, end)
    return out.decode()


# -- commands

def test_ends_are_told_apart(box):
    assert start(box, ["sh", "-c", "exit 3"])[1] == {
        "exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}
    assert start(box, ["true"])[1] == {"exited": True, "status": "exit status 0"}
    assert start(box, ["sh", "-c", "kill -9 $$"])[1] == {
        "exitCode": -1, "status": "signal: killed", "error": "signal: killed"}
    assert start(box, ["no-such-command"])[1]["exitCode"] == 127


def test_bad_cwd_and_user_end_the_stream(box):
    message = {"process": {"cmd": "true", "cwd": "/nonexist"}, "stdin": False}
    said = box.ask("POST", "/process.Process/Start", envelope(message),
                   {"Content-Type": "application/connect+json"})
    assert events(said) == [(2, {"error": {"code": "invalid_argument",
                                           "message": "cwd '/nonexist' does not exist"}})]
    assert start(box, ["true"], user="nouser")[1] == {
        "code": "unauthenticated", "message": "invalid username: 'nouser'"}


def test_commands_have_no_group_of_their_own(box):
    assert sh(box, "kill -0 -$$ 2>/dev/null || echo none") == "none\n"
    if os.geteuid() == 0:  # others' sandboxes have one user only
        assert sh(box, "id -u") == "0\n"


def test_the_end_waits_for_all_that_holds_the_output(box):
    before = time.monotonic()
    assert sh(box, "sleep 1 & echo x") == "x\n"
    assert time.monotonic() - before >= 0.9


def test_the_time_limit_kills_and_has_no_end(box):
    _, error = start(box, ["sleep", "100"], headers={"Connect-Timeout-Ms": "300"})
    assert error["code"] == "deadline_exceeded"
    wait_for(lambda: "sleep" not in sh(box, "cat /proc/[0-9]*/comm; echo"), 10, 0.1, "sleep to be gone")


def test_wrong_content_types_are_415(box):
    assert box.ask("POST", "/process.Process/Start", {}).status == 415
    said = rpc(box, "Stat", b"{}", **{"Content-Type": "application/connect+json"})
    assert said.status == 415 and said.headers["Accept-Post"] == "application/json"


# -- files

def test_links_show_their_target(box):
    sh(box, "cd /home/user; mkdir l; echo hello >l/a; ln -s a l/rel; ln -s nowhere l/dangling; mkfifo l/fifo;"
            "chmod 4755 l/a")
    found = {each["name"]: each for each in rpc(box, "ListDir", {"path": "/home/user/l"}).json()["entries"]}
    assert found["rel"]["type"] == "FILE_TYPE_FILE"
    assert found["rel"]["symlinkTarget"] == "/home/user/l/a" and found["rel"]["size"] == "1"
    assert found["rel"]["permissions"] == "Lrwxrwxrwx"
    assert "type" not in found["dangling"] and "mode" not in found["dangling"]
    assert found["dangling"]["symlinkTarget"] == "/home/user/l/dangling"
    assert "type" not in found["fifo"] and found["fifo"]["permissions"] == "prw-r--r--"
    assert found["a"]["permissions"] == "urwxr-xr-x" and found["a"]["mode"] == 0o755


def test_one_bad_name_fails_the_listing(box):
    sh(box, r"mkdir /tmp/bad; touch /tmp/bad/$(printf '\377')")
    said = rpc(box, "ListDir", {"path": "/tmp/bad"})
    assert said.status == 500 and "invalid UTF-8" in said.json()["message"]


def test_errors_read_as_gos(box):
    assert rpc(box, "Stat", {"path": "/home/user/nope"}).json() == {
        "code": "not_found", "message": "file not found: lstat /home/user/nope: no such file or directory"}
    sh(box, "touch /tmp/plain")
    said = rpc(box, "Stat", {"path": "/tmp/plain/x"})
    assert said.status == 500 and said.json()["message"].endswith("lstat /tmp/plain/x: not a directory")
    assert rpc(box, "MakeDir", {"path": "/tmp"}).status == 409
    assert rpc(box, "MakeDir", {"path": "/tmp/plain"}).json()["code"] == "invalid_argument"
    assert rpc(box, "Stat", {"path": 7}).json()["code"] == "invalid_argument"


def test_remove_is_rm_rf_and_never_fails(box):
    sh(box, "mkdir -p /tmp/tree/a/b; touch /tmp/tree/a/b/c")
    assert rpc(box, "Remove", {"path": "/tmp/tree"}).json() == {}
    assert rpc(box, "Remove", {"path": "/tmp/tree"}).json() == {}


def test_move_makes_parents_and_refuses_directories(box):
    sh(box, "cd /tmp; mkdir m; echo 1 >m/one; echo 2 >m/two; mkdir m/empty")
    moved = rpc(box, "Move", {"source": "/tmp/m/one", "destination": "/tmp/m/x/y/one"})
    assert moved.json()["entry"]["path"] == "/tmp/m/x/y/one"
    assert rpc(box, "Move", {"source": "/tmp/m/two", "destination": "/tmp/m/x/y/one"}).status == 200
    refused = rpc(box, "Move", {"source": "/tmp/m/x/y/one", "destination": "/tmp/m/empty"})
    assert refused.status == 500 and refused.json()["message"].endswith(": file exists")
    assert rpc(box, "Move", {"source": "/tmp/m/none", "destination": "/tmp/m/made/none"}).status == 404
    assert sh(box, "ls -d /tmp/m/made") == "/tmp/m/made\n"


def test_an_upload_takes_the_file_over_and_keeps_its_mode(box):
    sh(box, "echo old >/tmp/up; chmod 600 /tmp/up")
    said = box.ask("POST", "/files?path=/tmp/up&username=user", b"new", {
        "Content-Type": "application/octet-stream"})
    assert said.json() == [{"name": "up", "path": "/tmp/up", "type": "file"}]
    assert said.headers["Content-Type"].startswith("text/plain")
    assert sh(box, "stat -c '%a %u %g' /tmp/up; cat /tmp/up") == "600 1000 1000\nnew"


def test_an_upload_that_breaks_leaves_what_came(fake, box):
    fake.fault(kind="upload", path="/files", method="POST", at=4)
    with Client(fake.environ["E2B_SANDBOX_URL"], box.headers) as other, pytest.raises(Exception):
        other.ask("POST", "/files?path=/tmp/up&username=user", b"truncated", {
            "Content-Type": "application/octet-stream"})
    assert sh(box, "cat /tmp/up") == "trun"


def test_downloads_have_ranges(box):
    box.ask("POST", "/files?path=/tmp/r", b"hello world\n", {"Content-Type": "application/octet-stream"})

    def part(wanted):
        said = box.ask("GET", "/files?path=/tmp/r", headers={"Range": "bytes=" + wanted})
        return said.status, said.headers.get("Content-Range"), said.body
    assert part("6-") == (206, "bytes 6-11/12", b"world\n")
    assert part("-3") == (206, "bytes 9-11/12", b"ld\n")
    assert part("0-99")[:2] == (206, "bytes 0-11/12")
    assert part("12-")[:2] == (416, "bytes */12")
    assert box.ask("GET", "/files?path=/tmp").json() == {"code": 400, "message": "path '/tmp' is a directory"}
    assert box.ask("GET", "/files?path=/tmp/nope").status == 404
    assert box.ask("PUT", "/files?path=/tmp/r").status == 405
    assert box.ask("GET", "/files?path=/proc/1/comm").status == 500


# -- who may ask

def test_the_edge_wants_both_headers_and_the_token(fake, box):
    url = fake.environ["E2B_SANDBOX_URL"]
    with Client(url) as bare:
        assert bare.ask("GET", "/health", headers={"E2b-Sandbox-Id": box.id}).status == 400
        ids = {"E2b-Sandbox-Id": box.id, "E2b-Sandbox-Port": "49983"}
        assert bare.ask("GET", "/health", headers=ids).status == 204
        assert bare.ask("GET", "/files?path=/etc/passwd", headers=ids).json()["code"] == 401
        other = dict(ids, **{"E2b-Sandbox-Id": "inone"})
        assert bare.ask("GET", "/health", headers=other).status == 502
        assert bare.ask("POST", "/init", headers=ids).status == 404


def test_a_wrong_key_is_401(fake):
    with Client(fake.url, {"X-API-Key": "e2b_wrong"}) as client:
        assert client.ask("GET", "/v2/sandboxes").json()["code"] == 401


# -- the control plane

def test_lists_come_in_pages(fake, api, box):
    more = [api.ask("POST", "/v2/sandboxes", {"templateID": "base", "metadata": {"page": "a b"}}).json()
            ["sandboxID"] for _ in range(3)]
    try:
        fake.set(page_max=2)
        seen, token = [], ""
        while True:
            said = api.ask("GET", "/v2/sandboxes?metadata=page%3Da%252520b" + token)
            seen += [each["sandboxID"] for each in said.json()]
            if "X-Next-Token" not in said.headers:
                break
            token = "&nextToken=" + said.headers["X-Next-Token"]
        assert seen == more[::-1]
    finally:
        fake.set(page_max=100)
        for each in more:
            assert api.ask("DELETE", "/sandboxes/" + each).status == 204
    assert api.ask("DELETE", "/sandboxes/" + more[0]).status == 404


@pytest.mark.parametrize("generation, path", [("old", "/v2/sandboxes"), ("new", "/sandboxes")])
def test_a_generation_that_is_not_there_is_400(fake, api, generation, path):
    fake.set(generation=generation)
    try:
        said = api.ask("POST", path, {"templateID": "base"})
        assert said.status == 400 and said.json()["message"] == "validation error: method not allowed"
    finally:
        fake.set(generation="both")


def test_states_refuse_what_they_must(fake, api):
    made = api.ask("POST", "/sandboxes", {"templateID": "base", "timeout": 60}).json()
    assert "envdAccessToken" not in made  # the old path is not secure unless it is told to be
    path = "/sandboxes/" + made["sandboxID"]
    assert api.ask("POST", path + "/resume", {"timeout": 60}).status == 409
    assert api.ask("POST", path + "/pause", {}).status == 204
    assert api.ask("POST", path + "/pause", {}).status == 409
    assert api.ask("GET", path).json()["state"] == "paused"
    assert api.ask("POST", path + "/timeout", {"timeout": 5}).status == 404
    assert api.ask("POST", path + "/connect", {"timeout": 60}).status == 201
    assert api.ask("POST", path + "/connect", {"timeout": 60}).status == 200
    assert api.ask("POST", path + "/timeout", {"timeout": 0}).status == 204
    wait_for(lambda: api.ask("GET", path).status == 404, 10, 0.05, lambda: api.ask("GET", path))


def test_what_breaks_the_contract_is_told(fake, api):
    assert api.ask("POST", "/sandboxes", {"templateID": "base", "timeout": "1h"}).status == 400
    assert api.ask("POST", "/sandboxes", {"timeout": 60}).status == 400
    assert api.ask("GET", "/v2/sandboxes?limit=1000").status == 400
    assert api.ask("POST", "/sandboxes", {"templateID": "none", "cpu": 2}).status == 404
    told = fake.problems()
    assert len(told) == 4, told
    assert "cpu" in told[3]
