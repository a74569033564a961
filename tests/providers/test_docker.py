# SPDX-License-Identifier: Apache-2.0
"""Containers of a real Docker Engine: life, commands, what happens to them behind our back."""

import contextlib
import os
import threading
import time

import pytest

import test_conform as conform
from driver import Refused
from support import kinds
from support.dockerd import Dockerd, Rootfs, make_busybox
from support.mounts import work_directory
from support.registry import Registry
from support.tools import wait_for
from test_conform import (  # noqa: F401 collected here, with the fixtures below
    test_argv_goes_verbatim, test_binary_output, test_death_by_signal, test_exit_codes,
    test_large_output_arrives_whole, test_many_commands_at_once, test_much_stdin,
    test_one_end_and_nothing_after_it, test_output_comes_while_it_runs,
    test_output_waits_while_nobody_is_there, test_paused_sandbox_survives_a_restart,
    test_paused_time_is_not_counted_by_a_timeout, test_release_lets_the_command_run_on,
    test_release_never_waits_for_what_does_not_come,
    test_running_command_is_attached_again_after_kill, test_same_key_twice_is_refused,
    test_signal_can_be_caught, test_stdin, test_stdin_goes_on_after_a_restart,
    test_stdin_is_empty_unless_asked_for, test_stdin_nobody_reads_blocks_nobody,
    test_stdin_window_holds_the_writer_back, test_stop_and_start_twice_are_success,
    test_streams_are_apart_and_in_order, test_timeout, test_too_long_an_argument_is_refused)

pytestmark = pytest.mark.xdist_group("docker")
ended = conform.ended


@pytest.fixture(scope="module")
def engine():
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine")
    return kinds.DOCKER.engine()


@pytest.fixture
def own_engine():
    """own_engine(**options): an engine of this test's own, to be killed."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Dockerd(work_directory("sbxfs-dockerd-"), **options))


@pytest.fixture
def remote(engine, drive):
    """remote(**options): a provider on the engine."""
    def make(on=None, **options):
        return drive(kind="docker", pairs=["host=" + (on or engine).host], **options)
    return make


@pytest.fixture
def d(remote, engine):
    engine.docker("tag", engine.image("busybox"), "python:3.12")  # what is taken by default
    return remote()


@pytest.fixture
def box(d):
    d.create("k1", name="web")
    return "k1"


def refused(errno, call, *args, **kwargs):
    """The sentence of a call that must be refused."""
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == errno, caught.value
    return caught.value.sentence


def container(d, box):
    return d.ids[box]


# -- life

def test_life_of_a_sandbox(engine, d):
    d.create("k1", name="web", env={"A": "it's"}, labels={"team/x": "y z"})
    found = engine.inspect(container(d, "k1"))
    assert found["Name"] == "/sbxfs-k1" + d.mark
    labels = found["Config"]["Labels"]
    assert labels["org.sbxfs.key"] == "k1" + d.mark and labels["org.sbxfs.name"] == "web"
    assert labels["org.sbxfs.owner"] == "owner0" and labels["team/x"] == "y z"
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert found["HostConfig"]["Privileged"] is False
    assert d.check("k1", 'pwd; hostname; echo "$A $HOME"; id -u') == "/workspace\nweb\nit's /root\n0\n"
    assert d.do("list")["boxes"] == {"k1": "running"}
    d.do("stop", box="k1")
    assert d.state("k1") == "stopped"
    assert "stopped" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("start", box="k1")
    assert d.check("k1", "echo again") == "again\n"
    d.do("pause", box="k1")
    assert d.state("k1") == "paused"
    assert "paused" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("resume", box="k1")
    assert d.check("k1", "echo awake") == "awake\n"
    d.destroy("k1")
    assert container(d, "k1") not in engine.containers()
    d.do("destroy", box="k1")  # what is gone already: success
    assert d.state("k1") == "gone"
    refused("ENODEV", d.exec, "k1", "true")


def test_stop_keeps_files_and_ends_gently(d, box):
    number = d.exec(box, "trap 'echo bye > said; exit 7' TERM; echo on; while :; do sleep 0.05; done")
    d.wait(box, number, bytes=3)
    d.do("stop", box=box)
    assert ended(d.wait(box, number)) == ("code", 7)
    d.do("start", box=box)
    assert d.check(box, "cat said") == "bye\n"


def test_stop_kills_what_ignores_it(d, box):
    number = d.exec(box, "trap '' TERM; echo on; while :; do sleep 1; done")
    d.wait(box, number, bytes=3)
    d.do("stop", box=box)
    assert ended(d.wait(box, number)) == ("signal", 9)


def test_paused_one_can_be_stopped_and_destroyed(d, box):
    d.create("k2")
    for each in (box, "k2"):
        d.do("pause", box=each)
    d.do("stop", box=box)
    assert d.state(box) == "stopped"
    d.destroy("k2")


def test_limits_hold_and_are_told(engine, d):
    d.create("k1", memory=64 << 20, cpu_milli=1500, processes=20)
    host = engine.inspect(container(d, "k1"))["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 64 << 20
    assert host["NanoCpus"] == 1500000000 and host["PidsLimit"] == 20 + 12
    answer = d.do("state", box="k1")
    assert answer["memory"] == 64 << 20 and answer["cpu_milli"] == 1500
    result = d.run("k1", "for i in $(seq 50); do sleep 100 >/dev/null 2>&1 & done; echo never")
    assert b"fork" in result.err or b"can't fork" in result.err


def test_out_of_memory_shows_as_such(d):
    d.create("k1", memory=32 << 20)
    result = d.run("k1", ["sh", "-c", "exec head -c 200000000 /dev/zero | tail -c 190000000 >/dev/null; "
                          "exec sort /dev/zero"], timeout=60)
    assert result.kind in ("signal", "code")
    wait_for(lambda: "out of memory" in d.do("state", box="k1")["why"], 10)
    assert d.state("k1") == "running" and d.check("k1", "echo on") == "on\n"
    for verb, state in (("stop", "stopped"), ("start", "running")):  # the engine remembers it
        d.do(verb, box="k1")
        wait_for(lambda: d.state("k1") == state, 10)
        wait_for(lambda: d.do("state", box="k1")["why"] == "", 10)  # its event may come later


def test_workdir_belongs_to_the_user(engine, d):
    d.create("k1", user="app")
    assert d.check("k1", "pwd; id -un; echo $HOME; touch file && stat -c %U file .") == \
        "/workspace\napp\n/home/app\napp\napp\n"
    d.create("k2", user="1234:50", workdir="/deep/er")
    assert d.check("k2", "pwd; id -u; id -g; touch file && stat -c %u:%g .") == \
        "/deep/er\n1234\n50\n1234:50\n"
    d.create("k3", image=engine.image("busybox", WORKDIR="/home/app", USER="app"))
    assert d.check("k3", "pwd; id -un; id -Gn | tr ' ' '\\n' | sort") == "/home/app\napp\napp\nstaff\n"
    d.create("k4", image=engine.image("busybox", WORKDIR="/"))
    assert d.check("k4", "pwd") == "/workspace\n"


def test_a_command_may_have_its_user(d, box):
    number = d.exec(box, "id -un; echo $HOME", user="app")
    assert d.wait(box, number).out == b"app\n/home/app\n"
    assert "no such user" in refused("EINVAL", d.exec, box, "true", user="nobody-here")


def test_nothing_gains_privileges(d):
    d.create("k1", user="app")
    assert "NoNewPrivs:\t1" in d.check("k1", "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in d.check("k1", "cat /proc/self/status")


def test_readonly(d):
    d.create("k1", readonly=True)
    assert b"Read-only" in d.run("k1", "touch file").err
    assert d.check("k1", "echo works") == "works\n"


def test_net(engine, d, remote):
    d.create("k1", net="none")
    assert d.check("k1", "ls /sys/class/net") == "lo\n"
    refused("EPERM", d.create, "k2", net="host")
    refused("EINVAL", d.create, "k2", net="container:abc")
    allowed = remote(allow="net")
    allowed.create("k3", image="busybox", net="host")
    assert engine.inspect(container(allowed, "k3"))["HostConfig"]["NetworkMode"] == "host"


def test_mounts_only_where_allowed(base, d, remote):
    mounts = [{"host": str(base), "inside": "/data"},
              {"host": str(base), "inside": "/closed", "ro": True}]
    assert "allow=mount" in refused("EPERM", d.create, "k1", mounts=mounts)
    allowed = remote(allow="mount")
    allowed.create("k1", image="busybox", mounts=mounts)
    allowed.check("k1", "echo x > /data/made; ! touch /closed/y 2>/dev/null")
    assert (base / "made").read_text() == "x\n"
    assert "not there" in refused("EINVAL", allowed.create, "k2", image="busybox",
                                  mounts=[{"host": "/not there", "inside": "/x"}])


@pytest.mark.parametrize("settings,errno,words", [
    ({"image": "-x"}, "EINVAL", "image"),
    ({"image": "a b"}, "EINVAL", "image"),
    ({"user": "-x"}, "EINVAL", "user"),
    ({"workdir": "/"}, "EINVAL", "workdir"),
    ({"workdir": "/a/../b"}, "EINVAL", "workdir"),
    ({"runtime": "runsc"}, "EPERM", "allow=runtime"),
    ({"labels": {"org.sbxfs.owner": "x"}}, "EINVAL", "ours"),
    ({"workdir": "/.sbxfs"}, "EINVAL", "not yours"),
    ({"memory": 4096}, "EINVAL", "6M"),
    ({"cpu_milli": 9}, "EINVAL", "0.01"),
])
def test_setting_is_refused_before_anything_is_made(engine, d, settings, errno, words):
    before = engine.containers()
    for check_only in (True, False):
        assert words in refused(errno, d.create, "k9", check_only=check_only, **settings)
    assert engine.containers() == before


def test_unknown_runtime_leaves_nothing(engine, remote):
    d = remote(allow="runtime")
    before = engine.containers()
    assert "nothere" in refused("EINVAL", d.create, "k1", image="busybox", runtime="nothere")
    assert engine.containers() == before


@pytest.mark.parametrize("is_there,words", [(False, "No such file"), (True, "Connection refused")])
def test_socket_of_no_use_is_named(base, drive, is_there, words):
    path = base / "socket"
    if is_there:
        path.write_text("")
    d = drive(kind="docker", pairs=["host=unix://%s" % path])
    sentence = refused("EHOSTUNREACH", d.do, "list")
    assert str(path) in sentence and words in sentence and "port" not in sentence, sentence


def test_socket_that_is_closed_to_us_is_named(engine, drive):
    os.chmod(engine.socket, 0o660)  # as it is
    os.chmod(engine.base, 0o711)
    d = drive(kind="docker", pairs=["host=" + engine.host], user="nobody")
    sentence = refused("EHOSTUNREACH", d.do, "list")
    assert "%s: Permission denied" % engine.socket in sentence, sentence


# -- images

def test_missing_image_says_how_to_get_it(engine, d):
    before = engine.containers()
    sentence = refused("ENOENT", d.create, "k1", image="127.0.0.1:1/nothere:5")
    assert "127.0.0.1:1/nothere:5" in sentence and "docker pull" in sentence
    assert engine.containers() == before


def test_missing_image_is_pulled(base, engine, d):
    root = Rootfs(base / "rootfs.tar")
    make_busybox(root)
    root.file("big", os.urandom(3 << 20))
    root.done()
    with Registry() as registry:
        name = registry.add("tool", base / "rootfs.tar", seconds=5)
        asked = d.ask("create", box="k1", image=name)
        phases = set()
        while asked.empty():
            phases.add(d.do("phase")["phase"])
            time.sleep(0.05)
        d.made.add("k1")
        d.ids["k1"] = d.get(asked)["box_id"]
    assert any(each.startswith("pulling " + name) and "MiB" in each for each in phases), phases
    assert d.check("k1", "ls /big") == "/big\n"


def test_image_without_shell(d, engine):
    d.create("k1", image=engine.image("bare"))
    assert "not found" in refused("ENOENT", d.exec, "k1", "true")
    number = d.exec("k1", ["/sleeper"])
    d.do("signal", box="k1", number=number, signal=15)
    assert ended(d.wait("k1", number)) == ("signal", 15)
    d.do("stop", box="k1")
    d.do("start", box="k1")
    assert d.state("k1") == "running"


# -- behind our back

def test_container_that_is_killed(engine, d, box):
    number = d.exec(box, "sleep 1000")
    engine.docker("kill", container(d, box))
    assert d.wait(box, number).kind == "lost"
    assert d.state(box) == "stopped"
    assert "signal 9" in d.do("state", box=box)["why"]
    d.do("start", box=box)
    assert d.check(box, "echo up") == "up\n"


def test_container_that_is_removed(engine, d, box):
    number = d.exec(box, "sleep 1000")
    engine.docker("rm", "-f", container(d, box))
    assert d.wait(box, number).kind == "lost"
    assert d.state(box) == "gone"
    d.destroy(box)


def test_process_1_can_not_be_ended_from_inside(d, box):
    d.check(box, "kill -9 1; kill -TERM 1; kill -INT 1; true")
    assert d.check(box, "echo still there") == "still there\n"


def test_nobody_inside_passes_for_sbxfs(d, box):
    number = d.exec(box, "sleep 1000")
    assert d.run(box, ["/.sbxfs/init", "join", "/.sbxfs"]).kind == "code"
    d.do("signal", box=box, number=number, signal=15)
    assert ended(d.wait(box, number)) == ("signal", 15)


def test_events_tell_what_others_do(engine, d, box):
    d.check(box, "true")
    wait_for(lambda: d.state(box) == "running")
    for verb, state in (("pause", "paused"), ("unpause", "running"), ("stop", "stopped"),
                        ("start", "running")):
        before = d.do("state", box=box)["changes"]
        engine.docker(verb, container(d, box))
        wait_for(lambda: d.do("state", box=box)["changes"] > before, 10)
        d.wait_state(box, state)


def test_environment_values_are_in_no_argv(d, box):
    secret = "s3cr3t-%d" % os.getpid()
    number = d.exec(box, "echo on; sleep 1000", env={"OTHER": secret + "x"})
    d.wait(box, number, bytes=3)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, "rb") as file:
            assert secret.encode() not in file.read()
    d.do("signal", box=box, number=number, signal=9)


def test_full_disk_inside(engine, remote):
    """Output is kept, if need be in memory; commands see their ENOSPC."""
    d = remote()
    d.create("k1", image=engine.image("busybox"))
    result = d.run("k1", "mount 2>/dev/null; dd if=/dev/zero of=/dev/full bs=1k count=1; echo $?")
    assert result.out.endswith(b"1\n") and b"No space" in result.err


# -- others' containers

def test_adopted_container(engine, d):
    ident = engine.docker("run", "-d", "--name", "theirs" + d.mark, engine.image("busybox"),
                          "sleep", "100000").out.strip()
    try:
        d.do("attach", box="k5", box_id="theirs" + d.mark)
        assert d.state("k5") == "running"
        assert d.check("k5", "pwd; echo hi") == "/workspace\nhi\n"
        number = d.exec("k5", "sleep 1000")
        d.do("signal", box="k5", number=number, signal=9)
        assert ended(d.wait("k5", number)) == ("signal", 9)
        d.do("stop", box="k5")
        d.do("start", box="k5")
        assert d.check("k5", "echo again") == "again\n"
        assert d.do("list")["boxes"] == {}
    finally:
        engine.docker("rm", "-f", ident)


# -- the engine goes away

def test_engine_killed_and_restarted_under_load(own_engine, drive):
    engine = own_engine(live_restore=True)
    d = drive(kind="docker", pairs=["host=" + engine.host])
    d.create("k1", image=engine.image("busybox"))
    number = d.exec("k1", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); "
                          "[ $((i%100)) = 0 ] && sleep 0.1; done; exit 5")
    d.wait("k1", number, bytes=1000)
    engine.kill()
    time.sleep(0.5)
    engine.start()
    result = d.wait("k1", number, timeout=60)
    assert ended(result) == ("code", 5)
    assert result.out == b"".join(b"line %d\n" % i for i in range(3000))
    assert d.check("k1", "echo well") == "well\n"


def test_engine_that_takes_its_containers_along(own_engine, drive):
    engine = own_engine()
    d = drive(kind="docker", pairs=["host=" + engine.host])
    d.create("k1", image=engine.image("busybox"))
    number = d.exec("k1", "sleep 1000")
    engine.kill()
    refused("EHOSTUNREACH", d.state, "k1")
    engine.start()
    assert d.wait("k1", number, timeout=60).kind == "lost"
    d.wait_state("k1", "stopped", 60)
    d.do("start", box="k1")
    assert d.check("k1", "echo up") == "up\n"


def test_exec_while_the_engine_is_away_is_run_once_or_never(own_engine, drive):
    engine = own_engine(live_restore=True)
    d = drive(kind="docker", pairs=["host=" + engine.host])
    d.create("k1", image=engine.image("busybox"))
    d.check("k1", "true")
    stop, outcome = threading.Event(), []

    def run():
        while not stop.is_set():
            try:
                number = d.next("k1")
                d.do("exec", box="k1", number=number,
                     argv=["sh", "-c", "echo %d >> /workspace/ran" % number])
                outcome.append((number, d.wait("k1", number, timeout=60).kind))
            except Refused as problem:
                outcome.append((number, problem.errno))

    def some_more():
        """Some run to their end, as when it is there."""
        before = count()
        wait_for(lambda: count() >= before + 5, 60, what=lambda: "five more of %s" % outcome[-20:])

    def count():
        return sum(what == "code" for _, what in list(outcome))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(2):
            some_more()
            engine.kill()
            engine.start()
        some_more()
    finally:
        stop.set()
        thread.join(90)
    assert not thread.is_alive()
    lines = [int(each) for each in d.check("k1", "cat /workspace/ran").split()]
    assert len(lines) == len(set(lines)), "run twice"
    for number, what in outcome:
        if what == "code":
            assert number in lines
    assert count() > 10
