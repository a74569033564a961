# SPDX-License-Identifier: Apache-2.0
"""OpenSandbox's stand-in keeps what the service's reference says that clients trip over."""

import json
import socket
import time
from urllib.parse import quote

import pytest

from fakes import Fake
from fakes.client import Client
from support.tools import wait_for

IMAGE = {"image": {"uri": "debian:12"}, "entrypoint": ["tail", "-f", "/dev/null"], "resourceLimits": {}}


@pytest.fixture(scope="module")
def fake():
    with Fake("opensandbox") as each:
        yield each


@pytest.fixture
def api(fake):
    with Client(fake.url + "/v1", {"OPEN-SANDBOX-API-KEY": fake.environ["OPEN_SANDBOX_API_KEY"]}) as client:
        yield client


def execd_of(api, name):
    """Its execd, once that listens."""
    where = api.ask("GET", "/sandboxes/%s/endpoints/44772" % name).json()
    client = Client("http://" + where["endpoint"], where.get("headers", {}))
    client.id = name

    def listens():
        try:
            return client.ask("GET", "/ping")
        except ConnectionRefusedError:
            return None
    assert wait_for(listens, 10, 0.02, "execd to listen").status == 200
    return client


@pytest.fixture(scope="module")
def box(fake):
    """A sandbox's execd; box.id."""
    with Client(fake.url + "/v1", {"OPEN-SANDBOX-API-KEY": fake.environ["OPEN_SANDBOX_API_KEY"]}) as api:
        made = api.ask("POST", "/sandboxes", dict(IMAGE, env={"VALUE": "a/b"})).json()
        with execd_of(api, made["id"]) as client:
            yield client


def events(said):
    assert said.status == 200, said
    assert not said.body.startswith(b"data:")
    return [json.loads(line) for line in said.body.split(b"\n\n") if line]


def run(box, text, **more):
    """Its events, without ping and times."""
    found = events(box.ask("POST", "/command", dict(more, command=text)))
    assert found[0]["type"] == "init" and len(found[0]["text"]) == 32
    return [(each["type"], each.get("text") or each.get("error", {}).get("evalue")) for each in found[1:]
            if each["type"] != "ping"]


def sh(box, text):
    found = run(box, text)
    assert found[-1][0] == "execution_complete", found
    return [each[1] for each in found if each[0] == "stdout"]


def upload(box, metadata, content, names=("metadata", "file")):
    parts = []
    for name, data in (("metadata", json.dumps(metadata).encode()), ("file", content)):
        filename = '; filename="%s"' % name if name in names else ""
        parts.append(b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            name.encode(), filename.encode(), data))
    return box.ask("POST", "/files/upload", b"".join(parts) + b"--X--\r\n", {
        "Content-Type": "multipart/form-data; boundary=X"})


# -- commands

def test_output_comes_by_lines(box):
    found = run(box, r"printf 'a\n\nb\r\nc'; printf '\377\n' >&2")
    assert [each for each in found if each[0] == "stdout"] == [
        ("stdout", "a"), ("stdout", "\n"), ("stdout", "b"), ("stdout", "c")]
    assert ("stderr", "�") in found and found[-1] == ("execution_complete", None)


def test_ends_are_told_apart(box):
    assert run(box, "exit 3") == [("error", "3")]
    assert run(box, "kill -9 $$") == [("error", "-1")]
    assert run(box, "sleep 100", timeout=300) == [("error", "-1")]
    assert run(box, "x" * 140000)[0][1].endswith("argument list too long")


def test_bad_requests_are_no_streams(box):
    for body in ({"command": ""}, {"command": "true", "cwd": "/nonexist"}, {"command": "true", "gid": 1},
                 {"command": "true", "timeout": -1}, b"{"):
        said = box.ask("POST", "/command", body)
        assert said.status == 400 and said.json()["code"] == "INVALID_REQUEST_BODY", body


def test_commands_lead_a_group_and_leave_their_output_behind(box):
    assert sh(box, "kill -0 -$$ && ls /tmp | grep -c stdout")[0].isdigit()


def test_a_dropped_connection_stops_nothing(fake, box):
    with Client(box.url.geturl(), box.headers, timeout=1) as other, pytest.raises(TimeoutError):
        other.ask("POST", "/command", {"command": "echo $$ >/tmp/dropped; sleep 100"})
    wait_for(lambda: sh(box, "cat /tmp/dropped 2>/dev/null; true"), 10, 0.1, "the command to begin")
    assert sh(box, "kill -0 $(cat /tmp/dropped) && echo lives") == ["lives"]
    sh(box, "kill $(cat /tmp/dropped)")


def test_a_background_command_is_asked_for(box):
    found = events(box.ask("POST", "/command", {"command": "printf 'a\\0b\\377'; exit 7", "background": True}))
    assert [each["type"] for each in found] == ["init", "ping", "execution_complete"]
    name = found[0]["text"]
    where = "/command/status/" + name
    wait_for(lambda: not box.ask("GET", where).json()["running"], 10, 0.02, "the command's end")
    assert box.ask("GET", where).json()["exit_code"] == 7
    logs = box.ask("GET", "/command/%s/logs?cursor=1" % name)
    assert logs.body == b"\0b\377" and logs.headers["EXECD-COMMANDS-TAIL-CURSOR"] == "4"
    assert box.ask("DELETE", "/command?id=" + name).status == 500
    assert box.ask("GET", "/command/status/none").status == 404


def frame(data, kind=2):
    """A masked WebSocket frame of less than 126 bytes."""
    return bytes([0x80 | kind, 0x80 | len(data)]) + b"\0\0\0\0" + data


@pytest.mark.parametrize("rtt_ms", [0, 100])
def test_stdin_goes_through_a_websocket(fake, box, rtt_ms):
    name = box.ask("POST", "/pty", {"command": "read line; echo got $line; echo bad >&2; exit 6"}).json()["session_id"]
    fake.set(rtt_ms=rtt_ms)
    began = time.monotonic()
    with socket.create_connection((box.url.hostname, box.url.port), 60) as s, s.makefile("rb") as said:
        s.sendall(("GET %s/pty/%s/ws?pty=0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n" % (
                       box.url.path, name)).encode() + frame(b"\0given\n"))
        assert said.readline().startswith(b"HTTP/1.1 101 ")
        while said.readline() != b"\r\n":
            pass
        frames = []
        while True:
            flags, size = said.read(2)
            frames.append((flags & 15, said.read(size)))
            if flags & 15 == 8:
                break
    assert time.monotonic() - began >= rtt_ms * 2.5 / 1000  # connect, upgrade, and the way back
    fake.set(rtt_ms=0)
    assert json.loads(frames[0][1])["type"] == "connected"
    assert (2, b"\1got given\n") in frames and (2, b"\2bad\n") in frames
    assert json.loads(frames[-2][1]) == {"type": "exit", "exit_code": 6}
    assert box.ask("DELETE", "/pty/" + name).status == 200


# -- files

def test_variables_are_expanded_in_paths(box):
    sh(box, "mkdir -p /tmp/e/a; echo 1 >/tmp/e/ab; echo 2 >/tmp/e/a/b; echo 3 >'/tmp/e/a$1b'")
    read = lambda path: box.ask("GET", "/files/download?path=" + quote(path))  # noqa: E731
    assert read("/tmp/e/a$1b").body == b"1\n"
    assert read("/tmp/e/$VALUE").body == b"2\n"
    assert read("/tmp/e/$NONE").status == 500
    assert list(box.ask("GET", "/files/info?path=/tmp/e/$VALUE").json()) == ["/tmp/e/$VALUE"]


def test_entries_are_lstats_with_octal_digits(fake, box):
    sh(box, "mkdir /tmp/l; cd /tmp/l; echo hi >f; chmod 4755 f; ln -s f link; ln -s nowhere dangling; mkdir d;"
            "ln -s d dlink; mkfifo p")
    found = {each["path"][7:]: each for each in box.ask("GET", "/directories/list?path=/tmp/l").json()}
    assert {name: each["type"] for name, each in found.items()} == {
        "d": "directory", "dangling": "symlink", "dlink": "symlink", "f": "file", "link": "symlink", "p": "other"}
    assert found["f"]["mode"] == 755 and found["f"]["owner"] == "root"
    assert box.ask("GET", "/directories/list?path=/tmp/l/dlink").status == 400
    assert box.ask("GET", "/directories/list?path=/&depth=0").json() == []
    said = box.ask("GET", "/files/info?path=/tmp/l/f&path=/tmp/l/none")
    assert said.status == 404 and said.json()["code"] == "FILE_NOT_FOUND"
    assert box.ask("GET", "/files/info").json() == {}
    assert fake.problems() == ["GET /proxy/44772/files/info: query parameter path is missing"]


def test_deleting_is_not_posix(box):
    sh(box, "mkdir -p /tmp/x/d; cd /tmp/x; echo 1 >f; ln -s nowhere dangling; ln -s d dlink")
    for name, status in (("none", 200), ("dangling", 200), ("d", 500), ("dlink", 500), ("f", 200)):
        assert box.ask("DELETE", "/files?path=/tmp/x/" + name).status == status
    assert sh(box, "ls /tmp/x") == ["d", "dangling", "dlink"]
    assert box.ask("DELETE", "/directories?path=/tmp/x").status == 200
    assert box.ask("DELETE", "/directories?path=/tmp/x").status == 200


def test_mv_refuses_what_exists_and_makes_parents(box):
    sh(box, "mkdir /tmp/mv; cd /tmp/mv; echo 1 >a; echo 2 >b; ln -s nowhere dangling")
    move = lambda source, to: box.ask("POST", "/files/mv", [{"src": source, "dest": to}])  # noqa: E731
    refused = move("/tmp/mv/a", "/tmp/mv/b")
    assert refused.status == 500 and "destination path already exists" in refused.json()["message"]
    assert move("/tmp/mv/dangling", "/tmp/mv/x").status == 404
    assert move("/tmp/mv/a", "/tmp/mv/new/deep/a").status == 200


def test_uploads(fake, box):
    assert upload(box, {"path": "/tmp/up/new"}, b"content").status == 200
    assert sh(box, "stat -c %a /tmp/up/new; chmod 640 /tmp/up/new; ln -s new /tmp/up/link")[0] == "755"
    assert upload(box, {"path": "/tmp/up/link"}, b"through").status == 200
    assert sh(box, "stat -c %a /tmp/up/new; cat /tmp/up/new") == ["640", "through"]
    assert upload(box, {"path": "/tmp/up/bad", "mode": 689}, b"written").status == 500
    assert sh(box, "cat /tmp/up/bad") == ["written"]
    assert upload(box, {"path": "/tmp/x"}, b"", names=["file"]).json()["code"] == "INVALID_FILE_METADATA"
    assert upload(box, {"path": "/tmp/x"}, b"", names=["metadata"]).json()["code"] == "INVALID_FILE_CONTENT"
    assert upload(box, {"path": "/tmp/up/own", "owner": "0"}, b"").status == 500


def test_downloads(box):
    upload(box, {"path": "/tmp/r"}, b"hello world\n")
    upload(box, {"path": "/tmp/empty"}, b"")

    def part(wanted, path="/tmp/r"):
        said = box.ask("GET", "/files/download?path=" + path, headers={"Range": "bytes=" + wanted})
        return said.status, said.headers.get("Content-Range"), said.body
    assert part("6-8") == (206, "bytes 6-8/12", b"wor")
    assert part("12-20") == (416, "bytes */12", b"")
    assert part("0-5", "/tmp/empty")[0] == 200
    assert box.ask("GET", "/files/download?path=/proc/1/status").status == 500
    with Client(box.url.geturl(), box.headers) as other, \
            pytest.raises(ConnectionResetError):
        other.http.request("GET", other.url.path + "/files/download?path=/tmp")
        reply = other.http.getresponse()
        assert reply.status == 200 and reply.length == (1 << 63) - 1
        reply.read(1)


# -- the lifecycle server

def test_validation_is_422_in_fastapis_shape(fake, api):
    for body in ({}, dict(IMAGE, timeout=5), dict(IMAGE, timeout=None), dict(IMAGE, resourceLimits=None),
                 {"image": {"uri": "x"}, "resourceLimits": {}}):
        said = api.ask("POST", "/sandboxes", body)
        assert said.status == 422 and said.json()["detail"][0]["msg"], body
    assert api.ask("GET", "/sandboxes?pageSize=500").status == 422
    assert api.ask("POST", "/sandboxes", dict(IMAGE, metadata={"a": "b c"})).status == 400
    assert api.ask("GET", "/nothing").json() == {"detail": "Not Found"}
    assert api.ask("PUT", "/sandboxes").status == 405
    assert api.ask("GET", "/sandboxes/").status == 307
    assert api.ask("GET", "/sandboxes", headers={"OPEN-SANDBOX-API-KEY": "x"}).json()["code"] == "INVALID_API_KEY"
    fake.problems()


def test_lists_come_in_pages(api):
    more = [api.ask("POST", "/sandboxes", dict(IMAGE, metadata={"page": "yes"})).json()["id"] for _ in range(3)]
    try:
        pages = [api.ask("GET", "/sandboxes?metadata=page%%3Dyes&pageSize=2&page=%d" % page).json()
                 for page in (1, 2)]
        assert [each["id"] for page in pages for each in page["items"]] == more[::-1]
        assert [page["pagination"]["hasNextPage"] for page in pages] == [True, False]
    finally:
        for each in more:
            assert api.ask("DELETE", "/sandboxes/" + each).status == 204


def test_a_frozen_container_answers_when_it_is_thawed(fake, api):
    name = api.ask("POST", "/sandboxes", IMAGE).json()["id"]
    with execd_of(api, name) as box:
        assert api.ask("POST", "/sandboxes/%s/pause" % name).status == 202
        assert api.ask("POST", "/sandboxes/%s/pause" % name).status == 500
        assert api.ask("GET", "/sandboxes/" + name).json()["status"]["state"] == "Paused"
        box.http.request("GET", box.url.path + "/ping", headers=box.headers)
        box.http.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            box.http.sock.recv(1)
        box.http.sock.settimeout(60)
        assert api.ask("POST", "/sandboxes/%s/resume" % name).status == 202
        assert box.http.sock.recv(12) == b"HTTP/1.1 200"
        assert api.ask("POST", "/sandboxes/%s/resume" % name).json()["code"] == "DOCKER::SANDBOX_NOT_PAUSED"
        fake.set(pause=False)
        try:
            assert api.ask("POST", "/sandboxes/%s/pause" % name).status == 400
        finally:
            fake.set(pause=True)
    assert api.ask("DELETE", "/sandboxes/" + name).status == 204
    assert api.ask("DELETE", "/sandboxes/" + name).status == 404


def state_of(api, name, wanted):
    def state():
        return api.ask("GET", "/sandboxes/" + name).json()["status"]["state"]
    wait_for(lambda: state() == wanted, 10, 0.05, lambda: "%s, it is %s" % (wanted, state()))
    return wanted


def test_kubernetes_drops_what_it_pauses():
    with Fake("opensandbox", runtime="kubernetes", pause_ms=600000) as fake, Client(fake.url + "/v1", {
            "OPEN-SANDBOX-API-KEY": fake.environ["OPEN_SANDBOX_API_KEY"]}) as api:
        name = api.ask("POST", "/sandboxes", IMAGE).json()["id"]
        with execd_of(api, name) as box:
            sh(box, "echo kept >/root/kept; echo lost >/tmp/lost")
            api.ask("POST", "/sandboxes/%s/pause" % name)
            assert api.ask("GET", "/sandboxes/" + name).json()["status"]["state"] == "Pausing"
            fake.set(pause_ms=200)
            assert state_of(api, name, "Paused") == "Paused"
            assert api.ask("GET", "/sandboxes/%s/endpoints/44772" % name).status == 404
            with Client(box.url.geturl()) as other, pytest.raises(ConnectionRefusedError):
                other.ask("GET", "/ping")
        api.ask("POST", "/sandboxes/%s/resume" % name)
        assert state_of(api, name, "Running") == "Running"
        with execd_of(api, name) as box:
            assert sh(box, "cat /root/kept; ls /tmp | grep -c lost || true") == ["kept", "0"]


def test_the_sandbox_ends_with_its_main_process(api):
    for entrypoint, state in (["true"], "Terminated"), (["false"], "Failed"):
        made = api.ask("POST", "/sandboxes", dict(IMAGE, entrypoint=entrypoint)).json()
        assert made["status"]["state"] == "Running"
        assert state_of(api, made["id"], state) == state
        assert api.ask("DELETE", "/sandboxes/" + made["id"]).status == 204


def test_an_old_execd_lacks_what_it_lacks(fake, api):
    fake.set(execd="1.0.18", execd_token="secret")
    try:
        name = api.ask("POST", "/sandboxes", IMAGE).json()["id"]
    finally:
        fake.set(execd="1.1.0", execd_token="")
    with execd_of(api, name) as box:
        assert box.headers == {"X-EXECD-ACCESS-TOKEN": "secret"}
        said = box.ask("GET", "/directories/list?path=/&depth=0")
        assert said.status == 404 and said.body == b"404 page not found"
        assert box.ask("GET", "/files/info?path=/none").status == 500
        assert "type" not in box.ask("GET", "/files/info?path=/root").json()["/root"]
        assert box.ask("GET", "/ping", headers={"X-EXECD-ACCESS-TOKEN": "x"}).json().keys() == {"error"}


def test_expiry_takes_the_paused_too(fake, api):
    name = api.ask("POST", "/sandboxes", dict(IMAGE, timeout=60)).json()["id"]
    api.ask("POST", "/sandboxes/%s/pause" % name)
    assert api.ask("POST", "/sandboxes/%s/renew-expiration" % name, {"expiresAt": "2001-01-01T00:00:00Z"}).status == 400
    fake.expire(name)
    wait_for(lambda: api.ask("GET", "/sandboxes/" + name).status == 404, 10, 0.05, "its end")
    assert api.ask("GET", "/sandboxes/" + name).json()["code"] == "DOCKER::SANDBOX_NOT_FOUND"
