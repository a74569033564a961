# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of E2B's stand-in: life, commands, time, and a service that misbehaves."""

import socketserver
import threading
import time

import pytest

import test_conform as conform
from driver import Refused
from fakes import Fake
from files_support import fake_environ, fake_root
from service_cases import (  # noqa: F401 the tests are collected here
    after_name, are_in_no_file, breaks_but_loses_no_command, goes_on_where_it_was_paused, hits, is_asked_only,
    is_connected, is_destroyed, is_listed_by_pages, is_refused_before_anything_is_made, key_of, nonsense_of,
    pauses_and_resumes, refused, status_name, test_a_question_is_asked_again, test_nonsense_is_no_state,
    test_nothing_of_ours_stays_behind, test_what_others_killed_is_gone)
from test_conform import (  # noqa: F401 collected here, with the fixtures below
    test_argv_goes_verbatim, test_binary_output, test_death_by_signal, test_end_is_kept_until_it_was_seen,
    test_exit_codes, test_large_output_arrives_whole, test_many_commands_at_once, test_much_stdin,
    test_one_end_and_nothing_after_it, test_output_comes_while_it_runs,
    test_output_waits_while_nobody_is_there, test_paused_sandbox_survives_a_restart,
    test_paused_time_is_not_counted_by_a_timeout, test_release_lets_the_command_run_on,
    test_release_never_waits_for_what_does_not_come,
    test_running_command_is_attached_again_after_kill, test_signal_can_be_caught, test_stdin,
    test_stdin_goes_on_after_a_restart, test_stdin_is_empty_unless_asked_for,
    test_stdin_nobody_reads_blocks_nobody, test_stdin_window_holds_the_writer_back,
    test_streams_are_apart_and_in_order, test_timeout, test_too_long_an_argument_is_refused)

ended = conform.ended


@pytest.fixture
def fake():
    with Fake("e2b") as each:
        yield each


@pytest.fixture
def remote(drive, e2b_fake):
    """remote(fake): a provider on that stand-in."""
    return lambda on=None, **options: drive(kind="e2b", env=fake_environ(on or e2b_fake), **options)


@pytest.fixture
def d(remote):
    return remote()


@pytest.fixture(params=nonsense_of("e2b"), ids=status_name)
def nonsense(request):
    return request.param


# -- life

def test_life_of_a_sandbox(e2b_fake, d):
    mark = e2b_fake.mark()
    d.create("k1", name="web", env={"A": "it's"}, labels={"team": "y z"})
    made = e2b_fake.journal("^/sandboxes$", "POST", since=mark)
    assert len(made) == 1
    body = made[0].json()
    assert body["secure"] is True and body["autoPause"] is True and body["timeout"] == 3600
    assert body["metadata"] == {"sbxfs-key": "k1" + d.mark, "sbxfs-name": "web",
                                "sbxfs-owner": "owner0", "team": "y z"}
    assert d.check("k1", 'pwd; echo "$A $HOME $USER"; id -un') == "/home/user\nit's /home/user user\nuser\n"
    assert d.do("list")["boxes"] == {"k1": "running"}
    pauses_and_resumes(d)
    refused("EOPNOTSUPP", d.do, "stop", box="k1")
    is_destroyed(d)


def test_state_tells_what_the_service_says(d, box):
    answer = d.do("state", box=box)
    assert (answer["raw"], answer["cpu_milli"], answer["memory"], answer["image"]) == \
        ("running", 2000, 512 << 20, "base")
    assert 3500 < answer["expires"] - time.time() < 3700


def test_state_neither_wakes_nor_renews(e2b_fake, d, box):
    is_connected(d, box)
    d.do("pause", box=box)
    is_asked_only(e2b_fake, d, box, "paused")


def test_workdir_and_user(d):
    d.create("k1", workdir="/deep/er")
    assert d.check("k1", "pwd; id -un; touch file && stat -c %U file .") == "/deep/er\nuser\nuser\nuser\n"
    d.create("k2", user="root")
    assert d.check("k2", "pwd; id -un; echo $HOME") == "/root\nroot\n/root\n"
    number = d.exec("k1", "id -un", user="root")
    assert d.wait("k1", number).out == b"root\n"
    assert "no such user" in refused("EINVAL", d.exec, "k1", "true", user="nobody-here")


def test_settings_reach_the_service(e2b_fake, d):
    mark = e2b_fake.mark()
    d.create("k1", template="code-interpreter-v1", net="none", timeout_s=600)
    body = e2b_fake.journal("^/sandboxes$", "POST", since=mark)[0].json()
    assert body["templateID"] == "code-interpreter-v1" and body["allow_internet_access"] is False
    assert body["timeout"] == 600
    d.create("k2", net="allow:a.example,10.0.0.0/8")
    body = e2b_fake.journal("^/sandboxes$", "POST", since=mark)[1].json()
    assert body["network"]["allowOut"] == ["a.example", "10.0.0.0/8"]


@pytest.mark.parametrize("settings,errno,words", [
    ({"cpu_milli": 1000}, "EOPNOTSUPP", "template="),
    ({"memory": 1 << 30}, "EOPNOTSUPP", "template="),
    ({"image": "x"}, "EOPNOTSUPP", "template="),
    ({"workdir": "/"}, "EINVAL", "workdir"),
    ({"user": "a b"}, "EINVAL", "user"),
    ({"net": "host"}, "EINVAL", "net"),
    ({"labels": {"sbxfs-owner": "x"}}, "EINVAL", "ours"),
])
def test_setting_is_refused_before_anything_is_made(e2b_fake, d, settings, errno, words):
    is_refused_before_anything_is_made(e2b_fake, d, settings, errno, words)


def test_what_the_service_refuses(e2b_fake, d):
    assert "nothere" in refused("ENOENT", d.create, "k9", template="nothere")
    assert "hours" in refused("EINVAL", d.create, "k9", timeout_s=10**6)


def test_too_many_sandboxes(fake, remote):
    fake.set(boxes_max=0)
    refused("EDQUOT", remote(fake).create, "k1")


def test_list_goes_over_all_pages_and_leaves_out_others(fake, remote):
    fake.set(page_max=2)
    is_listed_by_pages(fake, remote(fake), "^/v2/sandboxes")


@pytest.mark.parametrize("generation", ["old", "new"])
def test_either_generation_of_the_api(fake, remote, generation):
    fake.set(generation=generation)
    d = remote(fake)
    d.create("k1")
    d.do("pause", box="k1")
    d.do("resume", box="k1")
    assert d.check("k1", "echo on") == "on\n"
    mark = fake.mark()
    d.create("k2")
    assert len(fake.journal("sandboxes$", "POST", since=mark)) == 1  # it is known now


def test_service_without_the_newer_list(fake, remote):
    fake.fault(kind="status", status=404, path="^/v2/sandboxes", method="GET", count=0,
               body='{"code":404,"message":"validation error: no matching operation was found"}')
    d = remote(fake)
    d.create("k1")
    assert d.do("list")["boxes"] == {"k1": "running"}
    d.do("list")
    assert hits(fake) == 1
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"


@pytest.mark.parametrize("version", ["0.2.5", "0.4.1", "0.5.6"])
def test_older_daemons(fake, remote, version):
    fake.set(envd_version=version)
    d = remote(fake)
    d.create("k1")
    assert d.check("k1", "pwd; id -un") == "/home/user\nuser\n"


def test_sandbox_that_comes_late(fake, remote):
    fake.set(late=3)
    d = remote(fake)
    d.create("k1")
    assert d.check("k1", "echo on") == "on\n"
    d.do("pause", box="k1")
    d.do("resume", box="k1")
    assert d.check("k1", "echo on") == "on\n"


# -- time

def test_end_is_put_off_while_it_is_used(fake, remote):
    d = remote(fake)
    d.create("k1", timeout_s=14)
    mark = fake.mark()
    number = d.exec("k1", "sleep 18; echo done")
    result = d.wait("k1", number)
    assert ended(result) == ("code", 0) and result.out == b"done\n"
    assert 1 <= len(fake.journal("/timeout$", "POST", since=mark)) <= 5


def test_end_that_comes_pauses(fake, remote):
    d = remote(fake)
    d.create("k1")
    number = d.exec("k1", "read x; echo $x", stdin=True)
    fake.expire(d.ids["k1"])
    d.wait_state("k1", "paused")
    goes_on_where_it_was_paused(d, number)


# -- changes that meet others

BUSY = {"kind": "status", "status": 409,
        "body": "{\"code\":409,\"message\":\"Error pausing sandbox - another transition\"}"}


@pytest.mark.parametrize("fault", [BUSY, {"kind": "status", "status": 503}, {"kind": "drop", "after": True}],
                         ids=status_name)
def test_pause_is_asked_again(fake, remote, fault):
    d = remote(fake)
    d.create("k1")
    fake.fault(method="POST", path="/pause$", **fault)
    d.do("pause", box="k1")
    assert d.state("k1") == "paused" and hits(fake) == 1


def test_pause_that_is_always_refused_ends(fake, remote):
    d = remote(fake)
    d.create("k1")
    fake.fault(method="POST", path="/pause$", count=0, **BUSY)
    assert "another transition" in refused("EBUSY", d.do, "pause", box="k1")
    assert d.check("k1", "echo on") == "on\n"


def test_resume_is_asked_again(fake, remote):
    d = remote(fake)
    d.create("k1")
    d.do("pause", box="k1")
    fake.fault(method="POST", path="/connect$", count=2, **BUSY)
    d.do("resume", box="k1")
    assert d.check("k1", "echo on") == "on\n" and hits(fake) == 2


# -- where its daemon is

@pytest.fixture
def proxy():
    """Its address, and the hosts that it was asked for; it leads to none."""
    asked = []

    class Refuses(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().split()[1].decode())
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "http://127.0.0.1:%d" % server.server_address[1], asked
        server.shutdown()


def test_domain_that_is_told_later(fake, proxy, drive, remote):
    """A paused one has none: once it runs, it is asked where the service says, and nowhere else."""
    url, asked = proxy
    made = remote(fake)
    made.create("k1")
    made.do("pause", box="k1")
    environ = dict(fake_environ(fake), E2B_DOMAIN="wrong.invalid", https_proxy=url)
    del environ["E2B_SANDBOX_URL"]
    d = drive(kind="e2b", env=environ)
    d.attach("k1", box_id=made.ids["k1"])
    assert d.state("k1") == "paused"
    for domain in ("right.invalid", "moved.invalid"):
        fake.set(domain=domain)
        d.do("resume", box="k1")
        assert d.state("k1") == "running"
        asked.clear()
        with pytest.raises(Refused):
            d.exec("k1", "true")
        assert set(asked) == {"49983-%s.%s:443" % (made.ids["k1"], domain)}


# -- misbehaviour

@pytest.mark.parametrize("fault", [
    {"kind": "drop", "after": True}, {"kind": "cut", "at": 20}, {"kind": "hang", "after": True, "s": 30},
], ids=lambda fault: fault["kind"])
def test_create_whose_answer_is_lost_is_not_sent_twice(fake, remote, fault):
    d = remote(fake)
    mark = fake.mark()
    fake.fault(method="POST", path="^/sandboxes$", **fault)
    d.create("k1", call_ms=5000)  # it is found by its key
    assert len(fake.journal("sandboxes$", "POST", since=mark)) == 1
    assert d.do("list")["boxes"] == {"k1": "running"}
    assert d.check("k1", "echo on") == "on\n"


def test_create_that_made_nothing_fails(fake, remote):
    d = remote(fake)
    fake.fault(kind="status", status=500, method="POST", path="^/sandboxes$",
               body="{\"code\":500,\"message\":\"boom\"}")
    assert "boom" in refused("EIO", d.create, "k1")
    assert d.do("list")["boxes"] == {}


def test_input_goes_by_parts_that_a_pipe_takes(fake, remote):
    """A daemon without the one call for all of it is sent no more than 64 KiB at once."""
    fake.fault(kind="status", status=404, path="/process.Process/StreamInput$", count=0, body="404 page not found")
    d = remote(fake)
    d.create("k1")
    mark = fake.mark()
    number = d.exec("k1", "wc -c", stdin=True)
    d.do("write", box="k1", number=number, count=1 << 20, last=True)
    assert d.wait("k1", number).out == b"1048576\n"
    sent = [int(each.header("Content-Length")) for each in fake.journal("/process.Process/SendInput$", since=mark)]
    assert sum(sent) > 1 << 20 and max(sent) <= (64 << 10) * 4 / 3 + 100  # base64, in JSON


@pytest.mark.parametrize("fault", [
    {"kind": "drop"}, {"kind": "drop", "after": True}, {"kind": "cut", "at": 200},
    {"kind": "answer", "b64": "/////w=="}, {"kind": "answer", "body": "no envelope at all"},
    {"kind": "status", "status": 503}, {"kind": "endless"},
], ids=after_name)
def test_stream_that_breaks_loses_no_command(fake, remote, fault):
    breaks_but_loses_no_command(fake, remote(fake), "/process.Process/Start$", fault)


def test_input_whose_answer_is_lost(fake, remote):
    d = remote(fake)
    d.create("k1")
    d.check("k1", "true")
    fake.fault(kind="drop", after=True, path="/process.Process/SendInput$")
    number = d.exec("k1", "echo x >> ran; wc -l < ran")
    assert d.wait("k1", number).out == b"1\n"
    assert d.check("k1", "cat ran") == "x\n"


def test_key_and_token_are_in_no_file(e2b_fake, d, box):
    d.check(box, "true")
    token = next(each for each in e2b_fake.journal("process.Process")[-1].headers
                 if each[0].lower() == "x-access-token")[1]
    are_in_no_file(d, key_of(e2b_fake), token)


def test_program_is_where_only_root_reaches_it(e2b_fake, d, box):
    d.check(box, "true")
    assert (fake_root(e2b_fake, d.ids[box]) / ".sbxfs/init").stat().st_mode & 0o777 == 0o755
    assert d.run(box, ["/.sbxfs/init", "join", "/.sbxfs"]).value != 0
