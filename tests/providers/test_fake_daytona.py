# SPDX-License-Identifier: Apache-2.0
"""Daytona's stand-in keeps what the service's reference says that clients trip over."""

import json
import os
import time
from urllib.parse import quote

import pytest

from fakes import Fake
from fakes.client import Client
from support import tools


def api_of(fake):
    return Client(fake.environ["DAYTONA_API_URL"], {"Authorization": "Bearer " + fake.environ["DAYTONA_API_KEY"]})


def made(api, **value):
    """A started sandbox."""
    said = api.ask("POST", "/sandbox", value)
    assert said.status == 200, said
    return wait_for(api, said.json()["id"], "started")


def wait_for(api, name, state):
    seen = []

    def is_so():
        said = api.ask("GET", "/sandbox/" + name)
        seen[:] = ["gone" if said.status == 404 else said.json()["state"], said]
        return seen[0] == state
    tools.wait_for(is_so, 10, 0.02, lambda: "%s stays %s" % (name, seen[0]))
    return seen[1].json()


def toolbox_of(api, box):
    client = Client("%s/%s" % (box["toolboxProxyUrl"], box["id"]),
                    {**api.headers, "X-Daytona-SDK-Version": "0.205.1"})
    client.id = box["id"]
    return client


@pytest.fixture(scope="module")
def fake():
    with Fake("daytona", create_ms=20, start_ms=20, stop_ms=20, pause_ms=20) as each:
        yield each


@pytest.fixture(scope="module")
def api(fake):
    with api_of(fake) as client:
        yield client


@pytest.fixture(scope="module")
def box(api):
    """A sandbox's toolbox, of the last open version; box.id."""
    with toolbox_of(api, made(api)) as client:
        yield client


@pytest.fixture(scope="module")
def new_box(fake, api):
    """One of a newer version."""
    fake.set(daemon="0.205.1")
    with toolbox_of(api, made(api)) as client:
        fake.set(daemon="0.190.0")
        yield client


def execute(box, text, **more):
    return box.ask("POST", "/process/execute", dict(more, command=text))


def sh(box, text):
    said = execute(box, text).json()
    assert said["exitCode"] == 0, said
    return said["result"]


def form(parts):
    """A multipart body and its headers; parts: (name, filename or None, bytes)."""
    body = b"".join(b'--X\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
        name.encode(), b'; filename="%s"' % filename.encode() if filename else b"", data)
        for name, filename, data in parts)
    return body + b"--X--\r\n", {"Content-Type": "multipart/form-data; boundary=X"}


def upload(box, path, data):
    return box.ask("POST", "/files/bulk-upload", *form([("files[0].path", None, path.encode()),
                                                       ("files[0].file", "x", data)]))


def nothing_sleeps(box):
    """What was killed is still seen until it has had its turn to die."""
    tools.wait_for(lambda: sh(box, "pgrep -x sleep || echo none") == "none\n", 10, 0.1, "sleep to be gone")


# -- commands

def test_the_text_is_the_shells_stdin(box):
    assert sh(box, "cat\necho x") == "echo x"
    assert execute(box, "kill -9 $$").json()["exitCode"] == -1
    assert execute(box, "true", cwd="/nonexist").json()["exitCode"] == -1
    assert execute(box, "").status == 400
    assert execute(box, "true", envs={"a-b": "x"}).status == 400


def test_output_is_no_place_for_bytes(box):
    said = execute(box, r"printf 'a\0\377<b'")
    assert said.json()["result"] == "a\0�<b"
    assert b"\\u0000" in said.body and b"\\u003c" in said.body


def test_a_time_out_loses_the_output_and_kills_the_group(box):
    said = execute(box, "sleep 1234 & echo x; sleep 1234", timeout=1)
    assert said.status == 408 and said.json()["code"] == "REQUEST_TIMEOUT"
    nothing_sleeps(box)


def test_the_answer_waits_for_all_that_holds_the_output(box):
    before = time.monotonic()
    assert sh(box, "sleep 1 & echo x") == "x\n"
    assert time.monotonic() - before >= 0.9


def test_a_small_post_may_run_twice(fake, box):
    fake.set(replay=1)
    sh(box, "echo x >>/tmp/twice")
    assert sh(box, "cat /tmp/twice") == "x\nx\n"


# -- sessions

def session(box, name, command, **more):
    headers = more.pop("headers", {})
    return box.ask("POST", "/process/session/%s/exec" % name, dict(more, command=command), headers)


def test_streams_are_told_apart_by_lines(box):
    assert box.ask("POST", "/process/session", {"sessionId": "s1"}).status == 201
    assert box.ask("POST", "/process/session", {"sessionId": "s1"}).status == 409
    said = session(box, "s1", r"sh -c 'printf hi; printf \\0no >&2; exit 3'").json()
    assert said["stdout"] == "hi\n" and said["stderr"] == "no\n" and said["exitCode"] == 3
    assert sorted(said["output"].splitlines()) == ["\1\1\1hi", "\2\2\2no"]
    logs = "/process/session/s1/command/%s/logs" % said["cmdId"]
    assert sorted(box.ask("GET", logs).json()) == ["output", "stderr", "stdout"]
    with Client(box.url.geturl(), {"Authorization": box.headers["Authorization"]}) as bare:
        assert sorted(bare.ask("GET", logs).body.split()) == [b"hi", b"no"]
        assert b"\1\1\1hi\n" in bare.ask("GET", logs, headers={"X-Daytona-Split-Output": "true"}).body


def test_exit_ends_the_session(box):
    box.ask("POST", "/process/session", {"sessionId": "s2"})
    begun = session(box, "s2", "exit 3", runAsync=True)
    assert begun.status == 202
    name = begun.json()["cmdId"]

    def refused():
        said = session(box, "s2", "true", runAsync=True)
        return said if said.status == 500 else None
    assert "broken pipe" in tools.wait_for(refused, 10, 0.02).json()["message"]
    assert "exitCode" not in box.ask("GET", "/process/session/s2/command/" + name).json()
    assert session(box, "none", "true").status == 500
    assert box.ask("GET", "/process/session/none").status == 404
    assert box.ask("DELETE", "/process/session/s2").status == 204


def test_deleting_a_session_kills_what_runs(box):
    box.ask("POST", "/process/session", {"sessionId": "s3"})
    name = session(box, "s3", "echo begun; sleep 4321", runAsync=True).json()["cmdId"]
    tools.wait_for(lambda: box.ask("GET", "/process/session/s3/command/%s/logs" % name).json()["stdout"], 10, 0.02)
    assert box.ask("DELETE", "/process/session/s3").status == 204
    nothing_sleeps(box)


# -- files

def test_stat_follows_links(box):
    sh(box, "mkdir l; cd l; echo hi >a; chmod 4755 a; ln -s a link; ln -s nowhere dangling; mkfifo p")
    where = "/home/daytona/l"
    found = {each["name"]: each for each in box.ask("GET", "/files?path=" + where).json()}
    assert sorted(found) == ["a", "link", "p"]
    assert found["link"]["mode"] == found["a"]["mode"] == "urwxr-xr-x"
    assert found["a"]["permissions"] == "0755" and found["p"]["mode"] == "prw-r--r--"
    assert box.ask("GET", "/files/info?path=%s/dangling" % where).status == 404
    assert box.ask("GET", "/files?path=%s/a" % where).status == 400
    assert box.ask("GET", "/files/?path=" + where).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sandboxes have more than one user")
def test_access_is_the_users_own(box):
    assert box.ask("GET", "/files?path=/root").status == 403
    assert box.ask("GET", "/files/download?path=/root/x").status == 403
    said = upload(box, "/etc/new", b"x")
    assert said.status == 400 and said.json()["errors"][0].endswith("permission denied")
    assert said.json()["files"] is None
    assert box.ask("POST", "/files/folder?path=/no&mode=0755").status == 400
    assert sh(box, "id -un; pwd") == "daytona\n/home/daytona\n"


def test_error_bodies_differ_by_version(box, new_box):
    assert box.ask("GET", "/files/info?path=/none").body == b""
    said = new_box.ask("GET", "/files/info?path=/none").json()
    assert said["code"] == "FILE_NOT_FOUND" and said["source"] == "DAYTONA_DAEMON"
    assert box.ask("GET", "/nothing").body == new_box.ask("GET", "/nothing").body == b"404 page not found"


def test_uploads_truncate_in_place_and_keep_modes(fake, box):
    sh(box, "echo old >u; chmod 600 u; ln -s u ulink")
    assert upload(box, " /home/daytona/ulink ", b"new").json() == {
        "files": [{"path": "/home/daytona/ulink", "bytes": 3}]}
    assert sh(box, "cat u; stat -c %a u") == "new600\n"
    assert upload(box, "/home/daytona", b"").json()["errors"][0].endswith("is a directory")
    assert box.ask("POST", "/files/upload?path=/home/daytona/p1/p2/f", *form([("file", "f", b"f")])).status == 200
    assert sh(box, "stat -c %a p1 p1/p2/f") == "750\n644\n"
    fake.fault(kind="upload", path="bulk-upload", at=100)
    with pytest.raises(Exception):
        upload(box, "/home/daytona/u", b"y" * 1000)
    assert 0 <= int(sh(box, "stat -c %s u")) < 1000


def test_newer_ways_to_write(box, new_box):
    assert box.ask("POST", "/files/upload-v2?path=/tmp/v2", b"raw").status == 404
    assert new_box.ask("POST", "/files/upload-v2?path=/tmp/v2", b"raw").json() == {
        "name": "v2", "path": "/tmp/v2", "type": "file"}
    assert new_box.ask("POST", "/env", {"set": {"NEW": "env"}}).status == 200
    assert sh(new_box, "cat /tmp/v2; echo $NEW") == "rawenv\n"
    assert new_box.ask("GET", "/files?path=/home&depth=2").json()[0]["path"] == "daytona"


def test_moves_and_deletions_refuse(box):
    sh(box, "mkdir -p m/d; cd m; echo 1 >a; echo 2 >b; ln -s nowhere dangling")

    def move(source, to):
        return box.ask("POST", "/files/move?source=/home/daytona/m/%s&destination=/home/daytona/m/%s" % (source, to))
    assert move("a", "b").status == 409 and move("none", "x").status == 404 and move("a", "no/x").status == 404
    assert move("a", "dangling").status == 200
    for path, status in (("d", 400), ("none", 404), ("b", 204), ("d&recursive=true", 204)):
        assert box.ask("DELETE", "/files?path=/home/daytona/m/" + path).status == status
    assert sh(box, "ls m") == "dangling\n"


def test_special_bits_are_dropped(box):
    assert box.ask("POST", "/files/folder?path=/home/daytona/sticky&mode=1755").status == 201
    assert box.ask("POST", "/files/folder?path=/home/daytona/sticky&mode=1755").status == 201
    assert box.ask("POST", "/files/permissions?path=/home/daytona/sticky&mode=4700").status == 200
    assert sh(box, "stat -c %a sticky") == "700\n"
    assert box.ask("POST", "/files/permissions?path=/home/daytona/sticky&mode=0711&owner=nouser").status == 400
    assert sh(box, "stat -c %a sticky") == "711\n"


def test_paths_in_a_query(box):
    sh(box, r"mkdir q; cd q; echo 1 >'a+b'; echo 2 >'a b'; echo 3 >$(printf '\377')")
    where = "/files/download?path=/home/daytona/q/"
    assert box.ask("GET", where + "a+b").body == b"2\n" and box.ask("GET", where + "a%2Bb").body == b"1\n"
    assert box.ask("GET", where + "a;b").status == 400
    assert box.ask("GET", where + "%FF").body == b"3\n"
    assert "�" in [each["name"] for each in box.ask("GET", "/files?path=/home/daytona/q").json()]


def test_ranges(box):
    upload(box, "/tmp/r", b"hello world\n")
    upload(box, "/tmp/empty", b"")

    def part(wanted, path="/tmp/r"):
        said = box.ask("GET", "/files/download?path=" + path, headers={"Range": "bytes=" + wanted})
        return said.status, said.headers.get("Content-Range"), said.body
    assert part("2-5") == (206, "bytes 2-5/12", b"llo ")
    assert part("12-")[:2] == (416, "bytes */12")
    assert part("0-", "/tmp/empty") == (200, None, b"")
    assert box.ask("GET", "/files/download?path=/tmp").status == 400


def test_many_files_in_one_answer(box):
    upload(box, "/tmp/one", b"1")
    said = box.ask("POST", "/files/bulk-download", {"paths": ["/tmp/one", "/tmp/none"]})
    assert said.headers["Content-Type"] == "multipart/form-data; boundary=DAYTONA-FILE-BOUNDARY"
    assert b'name="file"; filename="/tmp/one"' in said.body and b'name="error"; filename="/tmp/none"' in said.body


# -- the API

def test_what_is_outside_the_api_is_the_dashboard(fake, api):
    with Client(fake.url, api.headers) as client:
        said = client.ask("GET", "/sandbox")
        assert said.status == 200 and said.headers["Content-Type"] == "text/html"
    with Client(fake.environ["DAYTONA_API_URL"], {"Authorization": "Bearer x"}) as client:
        assert client.ask("GET", "/sandbox").json()["statusCode"] == 401
        assert client.ask("GET", "/config").status == 200


def test_creation_refuses(fake, api):
    for value in ({"cpu": 2}, {"snapshot": "none"}, {"snapshot": "x", "buildInfo": {"dockerfileContent": "FROM x\n"}},
                  {"autoStopInterval": "1"}, {"buildInfo": {"dockerfileContent": "FROM x\n"}, "memory": 99}):
        assert api.ask("POST", "/sandbox", value).status == 400, value
    assert len(fake.problems()) == 1


def test_lists_lag_and_come_in_pages(fake, api):
    fake.set(list_ms=60000)
    names = [made(api, name="page%d" % number, labels={"page": "yes"})["name"] for number in range(3)]
    where = "/sandbox?labels=" + quote(json.dumps({"page": "yes"}))
    assert api.ask("GET", where).json() == {"items": [], "nextCursor": None}
    fake.set(list_ms=0)
    first = api.ask("GET", where + "&limit=2").json()
    rest = api.ask("GET", where + "&limit=2&cursor=" + first["nextCursor"]).json()
    assert [each["name"] for each in first["items"] + rest["items"]] == names[::-1] and rest["nextCursor"] is None
    assert [each["name"] for each in api.ask("GET", "/sandbox?name=PAGE1").json()["items"]] == ["page1"]
    assert api.ask("POST", "/sandbox", {"name": "page1"}).status == 409
    for name in names:
        assert api.ask("DELETE", "/sandbox/" + name).json()["state"] == "destroying"
    assert made(api, name="page1")["name"] == "page1"  # free at once
    api.ask("DELETE", "/sandbox/page1")


def test_states_refuse_what_they_must(fake, api):
    box = made(api)
    with toolbox_of(api, box) as inside:
        path = "/sandbox/" + box["id"]
        assert api.ask("POST", path + "/pause").status == 422
        fake.set(stop_ms=600000)  # until it is told otherwise
        assert api.ask("POST", path + "/stop").json()["state"] == "stopping"
        assert inside.ask("GET", "/version").status == 502
        assert api.ask("POST", path + "/start").status == 409
        fake.set(stop_ms=20)
        wait_for(api, box["id"], "stopped")
        assert api.ask("POST", path + "/stop").status == 400
        assert "no IP address found" in inside.ask("GET", "/version").json()["message"]
        assert api.ask("POST", path + "/start").json()["state"] == "started"
        assert inside.ask("GET", "/version").json() == {"version": "v0.190.0"}
        api.ask("DELETE", path)
        assert api.ask("GET", path).status == 404 or wait_for(api, box["id"], "gone")
        assert inside.ask("GET", "/version").json()["code"] == "NOT_FOUND"
    with Client("%s/none" % box["toolboxProxyUrl"], api.headers) as nobody:
        assert nobody.ask("GET", "/version").status == 401


def test_polls_that_say_so_keep_nothing_alive(fake, api):
    box = made(api, autoStopInterval=1)
    with toolbox_of(api, box) as inside:
        fake.expire(box["id"], 0.5)
        quiet = {"X-Daytona-Skip-Last-Activity-Update": "true"}
        tools.wait_for(lambda: inside.ask("GET", "/version", headers=quiet).status != 200, 10, 0.02)
        wait_for(api, box["id"], "stopped")
    made_one = made(api, autoDeleteInterval=0)
    api.ask("POST", "/sandbox/%s/stop" % made_one["id"])
    wait_for(api, made_one["id"], "gone")
