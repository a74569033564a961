# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of OpenSandbox's stand-in: life, commands, time, and a service that misbehaves."""

import json
import time

import pytest

import test_conform as conform
from box_files import Files, mkdir, store, symlink, unlink
from driver import Refused
from fakes import Fake
from fakes.client import Client
from files_support import fake_environ, fake_root
from service_cases import (  # noqa: F401 the tests are collected here
    after_name, are_in_no_file, breaks_but_loses_no_command, hits, is_asked_only, is_connected, is_destroyed,
    is_refused_before_anything_is_made, key_of, nonsense_of, pauses_and_resumes, refused, status_name,
    test_a_question_is_asked_again, test_nonsense_is_no_state, test_nothing_of_ours_stays_behind,
    test_what_others_killed_is_gone)
from support.tools import wait_for
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
    with Fake("opensandbox") as each:
        yield each


@pytest.fixture
def remote(drive, opensandbox_fake):
    """remote(fake): a provider on that stand-in."""
    return lambda on=None, **options: drive(kind="opensandbox", **{
        "env": fake_environ(on or opensandbox_fake), **options})


@pytest.fixture
def d(remote):
    return remote()


@pytest.fixture(params=nonsense_of("opensandbox"), ids=status_name)
def nonsense(request):
    return request.param


def made(fake, mark):
    return [each.json() for each in fake.journal("^/v1/sandboxes$", "POST", since=mark)]


# -- life

def test_life_of_a_sandbox(opensandbox_fake, d):
    mark = opensandbox_fake.mark()
    d.create("k1", name="web", env={"A": "it's"}, labels={"team": "y"})
    (body,) = made(opensandbox_fake, mark)
    assert body["metadata"] == {"sbxfs-key": "k1" + d.mark, "sbxfs-name": "web",
                                "sbxfs-owner": "owner0", "team": "y"}
    assert body["image"] == {"uri": "python:3.12"} and body["env"] == {"A": "it's"}
    assert body["entrypoint"] == ["tail", "-f", "/dev/null"] and body["resourceLimits"] == {}
    assert "timeout" not in body  # no end, where none was asked for
    assert d.check("k1", 'pwd; echo "$A $HOME $USER"; id -un') == "/workspace\nit's /root root\nroot\n"
    assert d.do("list")["boxes"] == {"k1": "running"}
    pauses_and_resumes(d)
    for _ in range(2):  # ROCK's stop and restart are pause and resume
        d.do("stop", box="k1")
        assert d.state("k1") == "paused"
    d.do("start", box="k1")
    assert d.check("k1", "echo awake") == "awake\n"
    is_destroyed(d)


def test_state_tells_what_the_service_says(d):
    d.create("k1", image="debian:12", timeout_s=3600)
    answer = d.do("state", box="k1")
    assert (answer["raw"], answer["image"]) == ("Running", "debian:12")
    assert 3500 < answer["expires"] - time.time() < 3700


def test_state_neither_wakes_nor_renews_nor_asks_the_sandbox(opensandbox_fake, d, box):
    is_connected(d, box)
    d.do("pause", box=box)
    asked = is_asked_only(opensandbox_fake, d, box, "paused")
    assert not [each for each in asked if "endpoints" in each.target]


def test_the_main_process_that_ends(remote, opensandbox_fake):
    d = remote(pairs=["entrypoint=sleep 8"])  # in which it is furnished
    d.create("k1")
    d.wait_state("k1", "stopped", 40)
    assert "CONTAINER_EXITED" in d.do("state", box="k1")["why"]
    refused("EHOSTDOWN", d.exec, "k1", "true")
    d.destroy("k1")


def test_workdir_and_user(remote):
    d = remote()
    d.create("k1", workdir="/deep/er_")
    assert d.check("k1", "pwd; id -un; touch file && stat -c %U file .") == "/deep/er_\nroot\nroot\nroot\n"
    d.create("k2", user="nobody")
    assert d.check("k2", "pwd; id -un; echo $HOME; touch x && stat -c %U x .") == \
        "/workspace\nnobody\n/nonexistent\nnobody\nnobody\n"
    number = d.exec("k1", "id -un", user="nobody")
    assert d.wait("k1", number).out == b"nobody\n"
    assert "no such user" in refused("EINVAL", d.exec, "k1", "true", user="nobody-here")
    d.kill()
    d.start()
    d.attach("k1")
    assert d.check("k1", "pwd") == "/deep/er_\n"


def test_settings_reach_the_service(opensandbox_fake, d):
    mark = opensandbox_fake.mark()
    d.create("k1", image="debian:12", cpu_milli=1500, memory=8 << 30, timeout_s=600)
    d.create("k2", cpu_milli=2000, memory=(1 << 20) + 1, net="none")
    d.create("k3", net="allow:a.example,*.b.example")
    one, two, three = made(opensandbox_fake, mark)
    assert one["image"]["uri"] == "debian:12" and one["timeout"] == 600
    assert one["resourceLimits"] == {"cpu": "1500m", "memory": "8Gi"}
    assert two["resourceLimits"] == {"cpu": "2", "memory": "1025Ki"}
    assert two["networkPolicy"] == {"defaultAction": "deny", "egress": []}
    assert three["networkPolicy"] == {"defaultAction": "deny", "egress": [
        {"action": "allow", "target": "a.example"}, {"action": "allow", "target": "*.b.example"}]}


def test_images_of_the_operator_s_registry(remote, opensandbox_fake):
    d = remote(pairs=["registry=reg.example/hub/", "image_user=me", "image_password=secret-1"])
    mark = opensandbox_fake.mark()
    d.create("k1", image="tools/x:1")
    d.create("k2", image="other.example/x")
    one, two = made(opensandbox_fake, mark)
    assert one["image"] == {"uri": "reg.example/hub/tools/x:1",
                            "auth": {"username": "me", "password": "secret-1"}}
    assert two["image"]["uri"] == "other.example/x"


@pytest.mark.parametrize("settings,errno,words", [
    ({"workdir": "/"}, "EINVAL", "workdir"),
    ({"workdir": "/" + "ü" * 120 + "_" * 100}, "EINVAL", "workdir"),
    ({"user": "a b"}, "EINVAL", "user"),
    ({"net": "host"}, "EINVAL", "net"),
    ({"timeout_s": 59}, "EINVAL", "60"),
    ({"labels": {"sbxfs-owner": "x"}}, "EINVAL", "ours"),
    ({"labels": {"opensandbox.io/x": "x"}}, "EINVAL", "service's"),
    ({"labels": {"team": "y z"}}, "EINVAL", "label"),
])
def test_setting_is_refused_before_anything_is_made(opensandbox_fake, d, settings, errno, words):
    is_refused_before_anything_is_made(opensandbox_fake, d, settings, errno, words)


def test_what_the_service_refuses(d):
    assert "IMAGE_PULL_FAILED" in refused("EIO", d.create, "k9", image="missing:1")
    assert "maximum" in refused("EINVAL", d.create, "k9", timeout_s=10**6)
    assert "Snapshot" in refused("ENOENT", d.create, "k9", snapshot="nothere")


def test_too_many_sandboxes(fake, remote):
    fake.set(boxes_max=0)
    refused("EAGAIN", remote(fake).create, "k1")


def test_list_goes_over_all_pages_and_leaves_out_others(fake, remote):
    d = remote(fake)
    d.create("k1")
    labels = fake.journal("^/v1/sandboxes$", "POST")[-1].json()["metadata"]

    def page(items, has_more):
        fake.fault(kind="answer", method="GET", path="^/v1/sandboxes[?]", body=json.dumps(
            {"items": items, "pagination": {"hasNextPage": has_more}}))
    page([{"id": "x", "metadata": dict(labels, **{"sbxfs-owner": "else"}), "status": {"state": "Running"}}], True)
    page([{"id": "../x", "metadata": labels, "status": {"state": "Running"}},
          {"id": d.ids["k1"], "metadata": labels, "status": {"state": "PAUSED"}}], False)
    assert d.do("list")["boxes"] == {"k1": "paused"}
    assert hits(fake) == 2


@pytest.mark.parametrize("version", ["1.0.9", "1.0.10", "1.0.18", "1.0.19", "1.1.0"])
def test_generations_of_the_daemon(fake, remote, version):
    fake.set(execd=version)
    d = remote(fake)
    d.create("k1", user="nobody")
    assert d.check("k1", "pwd; id -un") == "/workspace\nnobody\n"


@pytest.fixture
def piped(fake, remote):
    """A sandbox whose daemon has no pipes to programs: all goes by commands and uploads."""
    fake.fault(kind="status", status=404, path="/pty$", count=0, body="404 page not found")
    d = remote(fake)
    d.create("k1")
    return d


@pytest.mark.parametrize("test", [
    test_argv_goes_verbatim, test_binary_output, test_large_output_arrives_whole, test_many_commands_at_once,
    test_much_stdin, test_output_comes_while_it_runs, test_stdin, test_streams_are_apart_and_in_order,
    test_timeout, test_running_command_is_attached_again_after_kill], ids=lambda test: test.__name__)
def test_without_pipes(piped, fake, test):
    test(piped, "k1")
    assert fake.journal("/command$", "POST")


def test_files_without_pipes(piped, fake):
    files = Files(piped, "k1", "/")
    files.real = fake_root(fake, piped.ids["k1"]) / "workspace"
    data = bytes(range(256)) * 3000
    files.must(mkdir("d"), store("d/f", data, mode=0o600), symlink("d/l", "f"))
    assert (files.real / "d/f").read_bytes() == data
    (files.real / "d/g").write_bytes(b"theirs")
    piped.do("release", box="k1")
    piped.attach("k1")
    assert files.stat("d/g").size == 6 and files.stat("d/f").size == len(data)
    files.must(unlink("d/f"))
    assert sorted(path.name for path in (files.real / "d").iterdir()) == ["g", "l"]


def test_without_pipes_nothing_stays_behind(piped, fake):
    place = fake_root(fake, piped.ids["k1"]) / ".sbxfs"
    for _ in range(3):
        piped.check("k1", "true")
        # of files, which are warmed, too; what was broken off may take a moment to go
        wait_for(lambda: len(list(place.glob("io-*"))) in (1, 2), 10, what=lambda: str(list(place.glob("io-*"))))
        piped.do("release", box="k1")
        wait_for(lambda: not list(place.glob("io-*")), 10)
        piped.attach("k1")


def test_sandbox_that_comes_late(fake, remote):
    fake.set(create_ms=500, ready_ms=1500)
    d = remote(fake)
    d.create("k1")
    assert d.check("k1", "echo on") == "on\n"


def test_daemon_with_a_token(fake, remote):
    fake.set(execd_token="tok-1234567")
    d = remote(fake)
    d.create("k1")
    assert d.check("k1", "echo on") == "on\n"


def test_by_the_server(fake, remote):
    """Sandboxes are reached by the server's own proxy."""
    d = remote(fake, pairs=["server_proxy=yes"])
    d.create("k1")
    assert d.check("k1", "echo on") == "on\n"
    assert fake.journal("/proxy/")
    assert {each.server for each in fake.journal()} == {"api"}


def test_kubernetes(fake, remote):
    """Pods go with a pause and come back elsewhere; files stay, memory doesn't."""
    fake.set(runtime="kubernetes")
    d = remote(fake)
    d.create("k1")
    number = d.exec("k1", "echo x > kept; sleep 1000")
    wait_for(lambda: d.check("k1", "cat kept 2>/dev/null; true") == "x\n", 10)
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"
    d.do("resume", box="k1")
    assert d.check("k1", "cat kept") == "x\n"
    assert d.wait("k1", number).kind == "lost"


def test_daemon_that_is_elsewhere_is_found(fake, remote):
    """Somebody else has paused and resumed it, so its address is another; nobody tells us."""
    fake.set(runtime="kubernetes")
    d = remote(fake)
    d.create("k1")
    d.check("k1", "echo x > kept")
    target = "/v1/sandboxes/" + d.ids["k1"]
    with Client(fake.url, {"OPEN-SANDBOX-API-KEY": key_of(fake)}) as api:
        def where():
            return api.ask("GET", target + "/endpoints/44772").json().get("endpoint")

        def is_in(state):
            return api.ask("GET", target).json()["status"]["state"] == state
        before = where()
        for verb, state in (("pause", "Paused"), ("resume", "Running")):
            assert api.ask("POST", "%s/%s" % (target, verb)).status in (200, 202)
            wait_for(lambda: is_in(state), 10)
        assert where() != before

    def works():
        try:
            return d.check("k1", "cat kept") == "x\n"
        except Refused as refusal:
            assert refusal.errno in ("EHOSTUNREACH", "EHOSTDOWN", "ETIMEDOUT"), refusal
            return False
    mark = fake.mark()
    wait_for(works, 40)
    asked = fake.journal("/endpoints/", since=mark)
    assert 1 <= len(asked) <= 20  # not by every call


@pytest.mark.parametrize("status,words", [
    (400, "not supported here"), (403, "pause is disabled by policy"), (404, "no such call"),
    (409, "not enabled for this sandbox at creation"), (422, "no"), (501, "no pause here")])
def test_deployment_that_can_not_pause(fake, remote, status, words):
    """It says so in many ways; the sandbox's end stays where it was."""
    d = remote(fake)
    d.create("k1", timeout_s=600)
    fake.fault(kind="status", status=status, method="POST", path="/pause$", count=0,
               body=json.dumps({"code": "X", "message": words}))
    assert words in refused("EOPNOTSUPP", d.do, "pause", box="k1")
    assert d.state("k1") == "running"
    assert d.do("state", box="k1")["expires"] < time.time() + 700
    assert d.check("k1", "echo on") == "on\n"


@pytest.mark.parametrize("status,errno", [(401, "EACCES"), (429, "EAGAIN"), (500, "EIO")])
def test_pause_that_fails_is_not_refused_for_good(fake, remote, status, errno):
    d = remote(fake)
    d.create("k1", timeout_s=600)
    fake.fault(kind="status", status=status, method="POST", path="/pause$", count=0, body="{}")
    refused(errno, d.do, "pause", box="k1")
    assert d.do("state", box="k1")["expires"] < time.time() + 700


def test_pause_amid_another_change(fake, remote):
    d = remote(fake)
    d.create("k1")
    fake.fault(kind="status", status=409, method="POST", path="/pause$", count=2,
               body='{"code": "X", "message": "another change goes on"}')
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"


def test_addresses_of_the_variables(fake, remote):
    """A whole URL with /v1 is what the vendor's clients take, too."""
    environ = dict(fake_environ(fake), OPEN_SANDBOX_DOMAIN=fake.url + "/v1/", OPEN_SANDBOX_PROTOCOL="https")
    d = remote(fake, env=environ)
    d.create("k1")
    assert d.check("k1", "echo on") == "on\n"


# -- time

def test_end_is_put_off_while_it_is_used(fake, remote):
    d = remote(fake)
    d.create("k1", timeout_s=600)
    d.kill()  # when it was put off last isn't known to the next one, which does so at its first use
    fake.expire(d.ids["k1"], 30)
    d.start()
    d.attach("k1", with_spec=True, timeout_s=600)
    mark = fake.mark()
    assert d.do("state", box="k1")["expires"] < time.time() + 60
    assert not fake.journal("/renew-expiration$", "POST", since=mark)
    d.check("k1", "true")
    wait_for(lambda: d.do("state", box="k1")["expires"] > time.time() + 500, 10)
    assert len(fake.journal("/renew-expiration$", "POST", since=mark)) == 1


def test_end_that_comes_destroys(fake, remote):
    d = remote(fake)
    d.create("k1", timeout_s=60)
    number = d.exec("k1", "sleep 1000")
    fake.expire(d.ids["k1"], 0)
    d.wait_state("k1", "gone")
    assert d.wait("k1", number).kind == "lost"
    refused("ENODEV", d.exec, "k1", "true")


def test_pause_puts_the_end_off(fake, remote):
    """Its time goes on while it is paused."""
    d = remote(fake)
    d.create("k1", timeout_s=60)
    d.do("pause", box="k1")
    assert d.do("state", box="k1")["expires"] > time.time() + 86400
    d.do("resume", box="k1")
    assert d.do("state", box="k1")["expires"] < time.time() + 200


# -- misbehaviour

LOST = [{"kind": "drop", "after": True}, {"kind": "cut", "at": 20},
        {"kind": "hang", "after": True, "s": 30}]


@pytest.mark.parametrize("fault", LOST, ids=after_name)
def test_create_whose_answer_is_lost_is_not_sent_twice(fake, remote, fault):
    d = remote(fake)
    mark = fake.mark()
    fake.fault(method="POST", path="^/v1/sandboxes$", **fault)
    d.create("k1", timeout_s=600, call_ms=5000)  # it is found by its key
    assert len(made(fake, mark)) == 1
    assert d.do("list")["boxes"] == {"k1": "running"}
    assert d.check("k1", "echo on") == "on\n"


@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "status", "status": 500}], ids=after_name)
def test_create_that_made_nothing_fails(fake, remote, fault):
    d = remote(fake)
    mark = fake.mark()
    fake.fault(method="POST", path="^/v1/sandboxes$", **fault)
    refused("EIO" if "status" in fault else "EHOSTUNREACH", d.create, "k1")
    assert len(fake.journal("^/v1/sandboxes$", "POST", since=mark)) == 1
    assert d.do("list")["boxes"] == {}


@pytest.mark.parametrize("path", ["/pty$", "/ws"])
@pytest.mark.parametrize("fault", [
    {"kind": "drop"}, {"kind": "drop", "after": True}, {"kind": "answer", "b64": "/////w=="},
    {"kind": "answer", "body": "no session at all"}, {"kind": "status", "status": 503},
], ids=after_name)
def test_stream_that_breaks_loses_no_command(fake, remote, fault, path):
    breaks_but_loses_no_command(fake, remote(fake), path, fault)


@pytest.mark.parametrize("endpoint", ["evil@127.0.0.1:1", "127.0.0.1:1?x=", "/etc", "", "http://x y/"])
def test_address_that_is_none_is_refused(fake, remote, endpoint):
    d = remote(fake)
    d.create("k1")
    d.kill()
    fake.fault(kind="answer", path="/endpoints/", count=0, body='{"endpoint":"%s"}' % endpoint)
    d.start()
    d.attach("k1")
    refused("EPROTO", d.exec, "k1", "true")


def test_keys_are_in_no_file_and_in_no_sandbox(opensandbox_fake, d, box):
    d.check(box, "true")
    key = key_of(opensandbox_fake)
    for each in opensandbox_fake.journal():
        assert each.server == "api" or key not in str(each.headers)
    are_in_no_file(d, key)


def test_program_is_where_only_root_reaches_it(opensandbox_fake, d, box):
    d.check(box, "true")
    assert (fake_root(opensandbox_fake, d.ids[box]) / ".sbxfs/init").stat().st_mode & 0o777 == 0o755
    number = d.exec(box, "exec /.sbxfs/init join /.sbxfs", user="nobody")
    assert d.wait(box, number).value != 0
