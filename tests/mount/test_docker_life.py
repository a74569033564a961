# SPDX-License-Identifier: Apache-2.0
"""Containers through a mount: crashes, what the operator sees, what is left."""

import errno
import os
import random
import re
import time

import pytest

from support import kinds
from support.control import error_text
from support.tools import wait_for

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(300),
              pytest.mark.skipif(os.geteuid() != 0, reason="only root can run an engine")]


@pytest.fixture
def engine():
    return kinds.DOCKER.engine()


@pytest.fixture
def mount(fresh_mount, engine):
    """A mount whose default is the engine, with a small image."""
    new = fresh_mount(kind=kinds.DOCKER, start=False)
    (new.base / "config.ini").write_text("[docker]\nhost = %s\nimage = %s\n" % (
        engine.host, engine.image("busybox")))
    return new.start()


def ours(engine, mount):
    """Containers of this mount's owner: names, by their key's label."""
    owner = re.search(r"^id (\w+)$", (mount.state / "owner").read_text(), re.M)[1]
    said = engine.docker("ps", "-a", "--filter", "label=org.sbxfs.owner=" + owner,
                         "--format", '{{.Label "org.sbxfs.name"}}').out
    return sorted(said.split())


def test_a_crash_while_it_is_made_leaves_one_or_none(engine, mount):
    dice = random.Random(os.getpid())
    names = []
    for turn in range(6):
        name = "c%d" % turn
        os.mkdir(mount.path / name)
        names.append(name)
        time.sleep(dice.random() * 0.5)
        mount.kill9()
        mount.start()
    for name in names:
        mount.box(name).wait_state("running", 120)
        assert mount.box(name).ok("echo here") == b"here\n"
    assert ours(engine, mount) == sorted(names)
    for name in names:
        mount.box(name).destroy()
    wait_for(lambda: ours(engine, mount) == [], 60, 0.2, lambda: str(ours(engine, mount)))


def test_a_command_goes_on_without_us(mount):
    box = mount.create("web")
    number = box.start("for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done; exit 4")
    wait_for(lambda: (box.dir / "exec" / number / "stdout").read_bytes(), 10)
    mount.kill9()
    time.sleep(0.5)
    mount.start()
    assert box.wait(number) == "exit 4"
    assert box.result(number).stdout == b"1\n2\n3\n4\n5\n6\n"


def test_what_others_do_shows_at_once(engine, mount):
    box = mount.create("web")
    ident = box.status()["id"]
    for verb, state in (("pause", "paused"), ("unpause", "running"), ("stop", "stopped"),
                        ("start", "running")):
        engine.docker(verb, ident)
        box.wait_state(state)  # it is told: nobody would ask within the time of this test
    engine.docker("kill", ident)
    box.wait_state("stopped")
    assert "signal 9" in error_text(box)
    engine.docker("rm", ident)
    box.wait_state("gone")


def test_one_container_is_one_sandbox_whatever_it_is_called(engine, mount):
    box = mount.create("web")
    ident = box.status()["id"]
    mount.ctl("adopt docker:%s as back" % ident[:12])
    back = mount.box("back")
    back.wait_state("error")
    assert "in this mount already" in error_text(back)
    back.destroy()
    assert box.ok("echo here") == b"here\n"
    mount.ctl("adopt docker:nosuch as none")
    none = mount.box("none")
    none.wait_state("error")
    assert "no container nosuch" in error_text(none)
    none.destroy()
    theirs = engine.docker("run", "-d", engine.image("busybox"), "sleep", "100000").out.strip()
    try:
        mount.ctl("adopt docker:%s as guest" % theirs[:12])
        guest = mount.box("guest")
        guest.wait_state("running")
        assert guest.status()["id"] == theirs
        assert guest.ok("echo hi") == b"hi\n"
    finally:
        engine.docker("rm", "-f", theirs)


def test_out_of_memory_is_an_error_to_see(mount):
    box = mount.create("web", memory="32M")
    assert box.exec("sort /dev/zero").exit in ("signal 9", "137")
    wait_for(lambda: "out of memory" in error_text(box), 10)
    assert box.ok("echo on") == b"on\n"
    box.ctl("stop")
    box.wait_state("stopped")
    assert "ended" not in error_text(box)


def test_the_limit_of_processes_is_the_users_own(mount):
    """What of ours copies files counts as the kernel sees it, but not against what was asked for."""
    box = mount.create("web", processes=4)
    data = os.urandom(40 << 20)
    (box.fs / "big").write_bytes(data)
    mount.run(["sync", box.fs])
    os.utime(box.fs / "big")
    assert (box.fs / "big").read_bytes() == data
    running = [box.start("exec sleep 1000") for _ in range(4)]
    time.sleep(0.3)
    assert all(box.is_running(each) for each in running), [box.result(each) for each in running]
    more = [box.start("exec sleep 1000") for _ in range(14)]
    wait_for(lambda: any(not box.is_running(each) for each in more), 10)


def test_a_user_that_is_not_there_is_named(mount):
    box = mount.create("web", user="nosuch")
    with pytest.raises(OSError) as caught:
        os.listdir(box.fs)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert "unable to find user nosuch" in error_text(box)


def test_an_image_without_shell_says_why_there_are_no_files(engine, fresh_mount):
    new = fresh_mount(kind=kinds.DOCKER, start=False)
    (new.base / "config.ini").write_text("[docker]\nhost = %s\nimage = %s\nfiles = shell\n" % (
        engine.host, engine.image("bare")))
    box = new.start().create("web")
    with pytest.raises(OSError) as caught:
        os.listdir(box.fs)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert "isn't to be used" in error_text(box)


def test_what_one_file_can_not_have_is_no_error_of_the_sandbox(mount):
    box = mount.create("web")
    (box.fs / "x").write_text("1")
    with pytest.raises(OSError) as caught:
        os.setxattr(box.fs / "x", "user.a", b"b")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert error_text(box) == ""


def test_a_variable_meant_for_others_stops_no_mount(fresh_mount):
    for value, words in (("ssh://x@y", "DOCKER_HOST = ssh://x@y"),
                         ("tcp://192.0.2.1:2375", "DOCKER_HOST: docker: plain http")):
        new = fresh_mount(start=False)
        new.env["DOCKER_HOST"] = value
        new.start()
        assert new.create("web").ok("echo on") == b"on\n"
        assert words in new.log(), new.log()
        new.stop()


def test_a_failed_creation_says_why_and_leaves_nothing(engine, mount):
    mount.ctl("create web image=127.0.0.1:1/none:1")
    box = mount.box("web")
    box.wait_state("error")
    assert "docker pull" in error_text(box) and "127.0.0.1:1/none:1" in error_text(box)
    box.destroy()
    assert ours(engine, mount) == []


def test_files_and_commands_see_each_other_whoever_runs_them(mount):
    box = mount.create("web", user="app")
    (box.fs / "made").write_text("outside\n")
    (box.fs / "dir").mkdir()
    assert box.ok("id -un; stat -c %U made dir .; cat made; echo inside >dir/more") == \
        b"app\napp\napp\napp\noutside\n"
    assert (box.fs / "dir/more").read_text() == "inside\n"


def test_engine_that_is_away_shows_as_unreachable(own_engine_mount):
    engine, mount = own_engine_mount
    box = mount.create("web")
    box.ok("true")
    engine.kill()
    wait_for(lambda: box.status()["reachable"] == "no", 60)
    assert (mount.path / "status").read_text()  # what is ours stays fast
    engine.start()
    wait_for(lambda: box.status()["reachable"] == "yes", 60)
    assert box.ok("echo well") == b"well\n"


@pytest.fixture
def own_engine_mount(base, fresh_mount):
    from support.dockerd import Dockerd
    from support.mounts import work_directory
    with Dockerd(work_directory("sbxfs-dockerd-"), live_restore=True) as engine:
        new = fresh_mount(start=False, options=(
            "drain=1s", "provider=docker", "config=%s" % (base / "config.ini")))
        (base / "config.ini").write_text("[docker]\nhost = %s\nimage = %s\n" % (
            engine.host, engine.image("busybox")))
        (base / "config.ini").chmod(0o600)
        new.start()
        yield engine, new
        new.stop()
