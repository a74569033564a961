# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of Daytona's stand-in: life, commands, time, and a service that misbehaves."""

import json
import urllib.request

import pytest

import test_conform as conform
from fakes import Fake
from files_support import fake_environ as environ, fake_root as root_of
from service_cases import (  # noqa: F401 the tests are collected here
    after_name, are_in_no_file, breaks_but_loses_no_command, goes_on_where_it_was_paused, is_asked_only,
    is_connected, is_destroyed, is_listed_by_pages, is_refused_before_anything_is_made, key_of, nonsense_of, refused,
    status_name, test_a_question_is_asked_again, test_nonsense_is_no_state, test_nothing_of_ours_stays_behind,
    test_what_others_killed_is_gone)
from support.tools import wait_for
from test_conform import (  # noqa: F401 collected here, with the fixtures below
    test_argv_goes_verbatim, test_binary_output, test_death_by_signal, test_end_is_kept_until_it_was_seen,
    test_exit_codes, test_large_output_arrives_whole, test_many_commands_at_once, test_much_stdin,
    test_one_end_and_nothing_after_it, test_output_comes_while_it_runs,
    test_output_waits_while_nobody_is_there, test_release_lets_the_command_run_on,
    test_release_never_waits_for_what_does_not_come,
    test_running_command_is_attached_again_after_kill, test_signal_can_be_caught, test_stdin,
    test_stdin_goes_on_after_a_restart, test_stdin_is_empty_unless_asked_for,
    test_stdin_nobody_reads_blocks_nobody, test_stdin_window_holds_the_writer_back,
    test_streams_are_apart_and_in_order, test_timeout, test_too_long_an_argument_is_refused)

ended = conform.ended
MINUTE = 60


@pytest.fixture
def fake():
    with Fake("daytona") as each:
        yield each


@pytest.fixture
def remote(drive, daytona_fake):
    """remote(fake): a provider on that stand-in."""
    return lambda on=None, **options: drive(kind="daytona", env=environ(on or daytona_fake),
                                            **options)


@pytest.fixture
def d(remote):
    return remote()


@pytest.fixture(params=nonsense_of("daytona"), ids=status_name)
def nonsense(request):
    return request.param


def created(fake, since=0):
    """The bodies of creations."""
    return [each.json() for each in fake.journal("^/api/sandbox$", "POST", since=since)]


# -- life

def test_life_of_a_sandbox(daytona_fake, d):
    mark = daytona_fake.mark()
    d.create("k1", name="web", env={"A": "it's"}, labels={"team": "y z"})
    body, = created(daytona_fake, mark)
    assert body["name"] == "sbxfs-k1" + d.mark and body["env"] == {"A": "it's"}
    assert body["autoStopInterval"] == 60 and body["autoDeleteInterval"] == -1
    assert body["labels"] == {"sbxfs-key": "k1" + d.mark, "sbxfs-name": "web",
                              "sbxfs-owner": "owner0", "team": "y z"}
    assert d.check("k1", 'pwd; echo "$A $HOME $USER"; id -un') == \
        "/home/daytona\nit's /home/daytona daytona\ndaytona\n"
    assert wait_for(lambda: d.do("list")["boxes"] == {"k1": "running"}, 10)  # it lags
    d.check("k1", "echo kept > file")
    d.do("stop", box="k1")
    d.do("stop", box="k1")
    assert d.state("k1") == "stopped"
    assert d.do("list")["boxes"] == {"k1": "stopped"}  # its list still says that it runs
    refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("start", box="k1")
    d.do("start", box="k1")
    assert d.check("k1", "cat file") == "kept\n"
    is_destroyed(d)


def test_state_tells_what_the_service_says(d, box):
    answer = d.do("state", box=box)
    assert (answer["raw"], answer["cpu_milli"], answer["memory"], answer["image"]) == \
        ("started", 1000, 1 << 30, "daytonaio/sandbox:0.6.0")


def test_state_neither_wakes_nor_renews(daytona_fake, d, box):
    is_connected(d, box)
    is_asked_only(daytona_fake, d, box, "running")


def test_command_of_what_is_stopped_has_ended(d, box):
    number = d.exec(box, "sleep 1000")
    d.do("stop", box=box)
    assert d.wait(box, number).kind == "lost"


def test_pause_where_the_class_has_it(fake, remote):
    fake.set(snapshot_class="linux-vm")
    d = remote(fake)
    d.create("k1", timeout_s=600)
    asked = [each.target.rpartition("/api/sandbox/")[2].partition("/")[2]
             for each in fake.journal("/auto", "POST")]
    assert asked == ["autostop/0", "autopause/10"]
    number = d.exec("k1", "read x; echo $x", stdin=True)
    d.do("pause", box="k1")
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"
    goes_on_where_it_was_paused(d, number)


def test_pause_where_it_has_not(d, box):
    number = d.exec(box, "sleep 1; echo on")
    assert "stop" in refused("EOPNOTSUPP", d.do, "pause", box=box)
    assert d.wait(box, number).out == b"on\n"


def test_pause_where_the_class_is_not_told(fake, remote):
    """Then the service is asked."""
    fake.set(snapshot_class="linux-vm", shows_class=False)
    d = remote(fake)
    d.create("k1")
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"
    d.do("resume", box="k1")
    assert d.check("k1", "echo on") == "on\n"
    fake.fault(kind="status", status=404, path="/pause$", method="POST",
               body=json.dumps({"statusCode": 404, "message": "Cannot POST /api/sandbox/x/pause"}))
    assert "stop" in refused("EOPNOTSUPP", d.do, "pause", box="k1")
    fake.set(snapshot_class="container")
    d.create("k2")
    mark = fake.mark()
    assert "stop" in refused("EOPNOTSUPP", d.do, "pause", box="k2")
    assert [each.status for each in fake.journal("/pause$", "POST", since=mark)] == [422]
    assert d.state("k2") == "running"


def test_stop_of_what_lives_until_then(fake, remote):
    """Somebody else made it so: its end is what was asked for."""
    d = remote(fake)
    d.create("k1")
    call(fake, d.ids["k1"], "autodelete/0")
    d.do("stop", box="k1")
    assert d.state("k1") == "gone"


def test_start_of_what_was_archived(fake, remote):
    d = remote(fake)
    d.create("k1")
    d.check("k1", "echo kept > file")
    d.do("stop", box="k1")
    call(fake, d.ids["k1"], "archive")
    assert wait_for(lambda: d.do("state", box="k1")["raw"] == "archived", 10)
    assert d.state("k1") == "stopped"
    d.do("start", box="k1")
    assert d.check("k1", "cat file") == "kept\n"


def call(fake, ident, what):
    """As its owner, or its time, does it."""
    request = urllib.request.Request(
        "%s/sandbox/%s/%s" % (fake.environ["DAYTONA_API_URL"], ident, what), b"",
        {"Authorization": "Bearer " + key_of(fake)}, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as reply:
        assert reply.status == 200


def test_workdir_and_user(d):
    d.create("k1", workdir="/home/daytona/deep/er")
    assert d.check("k1", "pwd; id -un; touch file && stat -c %U file .") == \
        "/home/daytona/deep/er\ndaytona\ndaytona\ndaytona\n"
    d.create("k2", user="root", workdir="/it's/$here")
    assert d.check("k2", "pwd; id -un; echo $HOME") == "/it's/$here\nroot\n/root\n"
    assert "no such user" in refused("EINVAL", d.exec, "k1", "true", user="nobody-here")


def test_settings_reach_the_service(daytona_fake, d):
    mark = daytona_fake.mark()
    d.create("k1", image="debian:12", cpu_milli=1500, memory=(1 << 30) + 1, net="none",
             timeout_s=61)
    d.create("k2", net="allow:a.example,10.0.0.0/8,1.2.3.4")
    first, second = created(daytona_fake, mark)
    assert first["buildInfo"] == {"dockerfileContent": "FROM debian:12\n"}
    assert (first["cpu"], first["memory"]) == (2, 2)
    assert first["networkBlockAll"] is True and first["autoStopInterval"] == 2
    assert second["networkAllowList"] == "10.0.0.0/8,1.2.3.4/32"
    assert second["domainAllowList"] == "a.example"
    assert "snapshot" not in second and "buildInfo" not in second
    answer = d.do("state", box="k1")
    assert (answer["cpu_milli"], answer["memory"], answer["image"]) == (2000, 2 << 30, "debian:12")


def test_region_is_the_operator_s(fake, remote):
    remote(fake, pairs=["target=eu"]).create("k1")
    assert created(fake)[0]["target"] == "eu"


@pytest.mark.parametrize("settings,errno,words", [
    ({"cpu_milli": 1000}, "EOPNOTSUPP", "image="),
    ({"memory": 1 << 30}, "EOPNOTSUPP", "image="),
    ({"image": "x\nRUN y"}, "EINVAL", "image"),
    ({"workdir": "/"}, "EINVAL", "workdir"),
    ({"user": "a b"}, "EINVAL", "user"),
    ({"net": "host"}, "EINVAL", "net"),
    ({"net": "deny:10.0.0.0/8"}, "EOPNOTSUPP", "deny"),
    ({"labels": {"sbxfs-owner": "x"}}, "EINVAL", "ours"),
])
def test_setting_is_refused_before_anything_is_made(daytona_fake, d, settings, errno, words):
    is_refused_before_anything_is_made(daytona_fake, d, settings, errno, words)


def test_what_the_service_refuses(daytona_fake, d):
    assert "nothere" in refused("EINVAL", d.create, "k9", snapshot="nothere")
    assert "exceeds" in refused("EDQUOT", d.create, "k9", image="x", cpu_milli=10**6)


def test_image_that_can_t_be_built_leaves_nothing(fake, remote):
    d = remote(fake)
    assert "pull access denied" in refused("EIO", d.create, "k9", image="missing:1")
    assert fake.journal("^/api/sandbox/", "DELETE")
    assert wait_for(lambda: d.do("list")["boxes"] == {}, 10)


def test_too_many_sandboxes(fake, remote):
    fake.set(boxes_max=0)
    refused("EDQUOT", remote(fake).create, "k1")


def test_list_goes_over_all_pages_and_leaves_out_others(fake, remote):
    fake.set(page_max=2, list_ms=0)
    is_listed_by_pages(fake, remote(fake), "^/api/sandbox\\?")


@pytest.mark.parametrize("settings", [
    {"list_form": "array"}, {"toolbox_url": "endpoint"}, {"toolbox_url": "config"},
    {"daemon": "0.113.0"}, {"daemon": "0.155.0"}, {"daemon": "0.201.0"}, {"daemon": "0.0.0-dev"}, {"stale": False},
], ids=lambda each: "%s" % list(each.values())[0])
def test_older_and_newer_variants(fake, remote, settings):
    fake.set(**settings)
    d = remote(fake)
    d.create("k1")
    assert d.check("k1", "pwd; id -un") == "/home/daytona\ndaytona\n"
    assert wait_for(lambda: d.do("list")["boxes"] == {"k1": "running"}, 10)


def test_request_that_goes_twice(fake, remote):
    """The middle boxes repeat small requests, a start of our program among them."""
    fake.set(replay=8)
    d = remote(fake)
    d.create("k1")
    number = d.exec("k1", "echo x >> ran; wc -l < ran")
    assert d.wait("k1", number).out == b"1\n"
    # the second finds the first, and ends
    wait_for(lambda: d.check("k1", "grep -alz '^serve$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l") == "1\n", 20)


# -- time

def test_end_is_put_off_while_it_is_used_only(fake, remote):
    d = remote(fake)
    d.create("k1", timeout_s=MINUTE)
    d.check("k1", "true")
    mark = fake.mark()
    asked = fake.journal("^/toolbox/")
    assert asked and {each.header("X-Daytona-Skip-Last-Activity-Update") for each in asked} == {"true"}
    assert not fake.journal("last-activity", since=mark)


def test_end_that_comes_stops(fake, remote):
    d = remote(fake)
    d.create("k1")
    number = d.exec("k1", "sleep 1000")
    fake.expire(d.ids["k1"])
    d.wait_state("k1", "stopped")
    assert d.wait("k1", number).kind == "lost"
    refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("start", box="k1")
    assert d.check("k1", "echo on") == "on\n"


# -- misbehaviour

@pytest.mark.parametrize("fault", [
    {"kind": "drop", "after": True}, {"kind": "cut", "at": 20}, {"kind": "hang", "after": True, "s": 30},
], ids=after_name)
def test_create_whose_answer_is_lost_is_not_sent_twice(fake, remote, fault):
    d = remote(fake)
    mark = fake.mark()
    fake.fault(method="POST", path="^/api/sandbox$", **fault)
    d.create("k1", call_ms=5000)  # found by its name, which no list must have heard of
    assert len(created(fake, mark)) == 1
    assert d.check("k1", "echo on") == "on\n"


@pytest.mark.parametrize("fault", [
    {"kind": "drop"}, {"kind": "drop", "after": True}, {"kind": "cut", "at": 200},
    {"kind": "answer", "b64": "/////w=="}, {"kind": "answer", "body": "no WebSocket at all"},
    {"kind": "status", "status": 503}, {"kind": "endless"},
], ids=after_name)
@pytest.mark.parametrize("path", ["/process/pty$", "/connect$"])
def test_stream_that_breaks_loses_no_command(fake, remote, path, fault):
    breaks_but_loses_no_command(fake, remote(fake), path, fault)


def test_toolbox_that_is_too_old_has_no_stdin(fake, remote):
    """Commands go by short calls there (test_foreign.py)."""
    d = remote(fake)
    fake.fault(kind="status", status=404, body="404 page not found", path="/process/pty$", count=0)
    d.create("k1")
    assert d.check("k1", "echo on; cat") == "on\n"
    assert "without stdin" in refused("EOPNOTSUPP", d.exec, "k1", "true", stdin=True)


def test_shell_s_own_files_are_in_nobody_s_way(d, box):
    d.check(box, "echo 'echo hello; read x; exit 3' | tee .bashrc .bash_profile > .profile")
    d.do("release", box=box)
    d.attach(box)
    assert d.check(box, "echo on") == "on\n"


def test_program_that_was_removed_is_put_there_again(d, box):
    number = d.exec(box, "rm -rf /tmp/.sbxfs; kill -9 $PPID")
    assert d.wait(box, number).kind == "lost"
    assert d.check(box, "echo on") == "on\n"


def test_key_is_in_no_file(daytona_fake, d, box):
    d.check(box, "true")
    are_in_no_file(d, key_of(daytona_fake))


def test_program_is_its_user_s_own(daytona_fake, d, box):
    d.check(box, "true")
    assert (root_of(daytona_fake, d.ids[box]) / "tmp/.sbxfs/init").stat().st_mode & 0o777 == 0o755
