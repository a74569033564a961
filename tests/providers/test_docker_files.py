# SPDX-License-Identifier: Apache-2.0
"""Files of containers: whose they are, what happens when their programs die, and where none can run."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from box_files import Files, mkdir, store
from driver import Refused
from files_support import until_it_answers
from support import kinds
from support.tools import wait_for

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture(scope="module")
def engine():
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine")
    return kinds.DOCKER.engine()


@pytest.fixture
def remote(engine, drive):
    """remote(image, how, **settings): the files of a new sandbox."""
    def make(image="busybox", how="agent", **settings):
        driver = drive(kind="docker", pairs=["host=" + engine.host, "files=" + how])
        driver.create("k1", image=engine.image(image), **settings)
        return Files(driver, "k1", "/")
    return make


def inside(engine, f):
    """The container's root, as the host sees it."""
    return Path("/proc/%d/root" % engine.inspect(f.driver.ids["k1"])["State"]["Pid"])


def serving(engine, f, pattern=rb"/init\0files\0"):
    """The processes in the container that serve its files."""
    found = []
    for pid in engine.docker("top", f.driver.ids["k1"], "-eo", "pid").out.split()[1:]:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            if re.search(pattern, Path("/proc/%s/cmdline" % pid).read_bytes()):
                found.append(int(pid))
    return found


def kill(pids):
    """One may have ended because another did."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["agent", "stream", "shell"])
def test_what_is_made_belongs_to_the_user_of_commands(engine, remote, how):
    f = remote(how=how, user="app", workdir="/deep/er")
    assert f.workdir() == "/deep/er"
    f.must(mkdir("d"), store("d/x", b"1"), *[store("d/%d" % i, b"many") for i in range(5)])
    for path in ("d", "d/x", "d/4"):
        st = os.lstat(inside(engine, f) / "deep/er" / path)
        assert (st.st_uid, st.st_gid) == (1000, 1000), path
    assert f.driver.check("k1", "cat d/x; echo 2 >d/x; cat d/x") == "12\n"


@pytest.mark.parametrize("how", ["agent", "stream", "shell"])
def test_a_program_that_died_is_started_again(engine, remote, how):
    f = remote(how=how)
    f.must(store("x", b"text"))
    pattern = rb"/init\0files\0" if how != "shell" else rb"^(/bin/)?sh\0"
    for _ in range(2):
        found = serving(engine, f, pattern)
        assert found
        kill(found)
        until_it_answers(lambda: f.stat("x"))
        until_it_answers(lambda: f.must(store("x", b"text")))
        assert until_it_answers(lambda: f.fetch(["x"]))["x"].data == b"text"


def test_an_agent_starts_at_the_limit_of_processes(engine, remote):
    f = remote(processes=1)
    f.driver.exec("k1", "exec sleep 1000")
    for i in range(3):
        kill(serving(engine, f))
        until_it_answers(lambda: f.stat(""))
        # Another agent takes what is large: that its last one has died may show only now.
        until_it_answers(lambda: f.must(store("x%d" % i, b"many" * 1000000), store("y%d" % i, b"more" * 1000000)))
        assert serving(engine, f)


def test_the_shell_steps_in_where_our_program_is_gone(engine, remote):
    f = remote()
    f.must(store("x", b"text"))
    f.driver.check("k1", "rm /.sbxfs/init")
    kill(serving(engine, f))
    until_it_answers(lambda: f.stat("x"))
    assert until_it_answers(lambda: f.fetch(["x"]))["x"].data == b"text"
    assert serving(engine, f) == []


@pytest.mark.parametrize("how", ["agent", "stream"])
def test_a_killed_agent_leaves_whole_files_or_none(engine, remote, how):
    f = remote(how=how)
    f.must(mkdir("t"), *[store("t/%d" % i, b"old" * 1000) for i in range(0, 400, 2)])
    pending = f.ask("f_apply", changes=[store("t/%d" % i, b"%03d" % i * 1000) for i in range(400)])
    killed = serving(engine, f)
    kill(killed)
    try:
        answer = f.driver.get(pending)
    except Refused as refused:
        assert refused.errno == "EHOSTUNREACH"
        answer = refused.answer
    place = inside(engine, f) / f.workdir()[1:] / "t"
    for i in range(400):
        data = (place / str(i)).read_bytes() if (place / str(i)).exists() else None
        new = b"%03d" % i * 1000
        assert data in ((b"old" * 1000, new) if i % 2 == 0 else (None, new))
        assert answer["changes"][i][0] != "" or data == new, "what was told to be done is"
    until_it_answers(lambda: f.must(*[store("t/%d" % i, b"%03d" % i * 1000) for i in range(400)]))
    # A file that was whole, and killed before it had its name, stays; the volume gives it a name that it finds again.
    unnamed = {path.name for path in place.iterdir() if re.fullmatch(r"\.sbxfs-[0-9a-z]{20}", path.name)}
    assert len(unnamed) <= len(killed)
    assert {path.name for path in place.iterdir()} - unnamed == {str(i) for i in range(400)}
    assert {path for path in f.list("t").entries if path} == {str(i) for i in range(400)}


def is_direct(pid):
    """Its input is no pipe of the engine's."""
    return os.readlink("/proc/%d/fd/0" % pid).startswith("socket:")


@pytest.mark.parametrize("how", ["agent", "stream"])
def test_it_talks_past_the_engine_where_it_may(engine, remote, how):
    f = remote(how=how, user="app")
    f.must(store("x", b"text" * 1000))
    handle, _ = f.open("x")
    found = serving(engine, f)
    assert found
    assert {is_direct(pid) for pid in found} == {how == "agent"}
    f.close(handle)
    f.must(store("y", b"many" * 1000000), store("z", b"more" * 1000000))
    assert {is_direct(pid) for pid in serving(engine, f)} == {how == "agent"}
    assert f.fetch(["x"])["x"].data == b"text" * 1000


def test_a_stopped_container_is_held_by_no_open_file(engine, remote):
    f = remote()
    f.must(store("x", b"text" * 1000))
    handle, _ = f.open("x")
    assert f.read(handle, 4)[0] == b"text"
    f.driver.do("stop", box="k1")
    assert f.errno("read", handle, 4) == "EHOSTDOWN"
    f.driver.do("start", box="k1")
    assert f.errno("read", handle, 4) == "ESTALE"
    f.close(handle)
    again, _ = f.open("x")
    assert f.read(again, 4)[0] == b"text"
    f.close(again)


@pytest.mark.parametrize("how", ["agent", "stream"])
def test_an_open_file_is_stale_when_its_agent_has_died(engine, remote, how):
    f = remote(how=how)
    f.must(store("x", b"text" * 1000))
    handle, _ = f.open("x")
    assert f.read(handle, 4)[0] == b"text"
    kill(serving(engine, f))
    wait_for(lambda: f.errno("read", handle, 4) == "ESTALE", what="a stale file")
    f.close(handle)
    again, _ = until_it_answers(lambda: f.open("x"))
    assert f.read(again, 4)[0] == b"text"
    f.close(again)


def test_files_of_a_container_that_is_down(remote):
    f = remote()
    f.must(store("x", b"text"))
    f.driver.do("pause", box="k1")
    assert f.errno("stat", "x") == "EHOSTDOWN"
    f.driver.do("resume", box="k1")
    assert f.stat("x").size == 4
    f.driver.do("stop", box="k1")
    assert f.errno("fetch", ["x"]) == "EHOSTDOWN"
    f.driver.do("start", box="k1")
    assert f.fetch(["x"])["x"].data == b"text"


@pytest.mark.parametrize("how", ["agent", "shell"])
def test_a_full_disk(engine, drive, how):
    """A container of somebody else's, whose working directory is small."""
    driver = drive(kind="docker", pairs=["host=" + engine.host, "files=" + how])
    name = "full-%s-%s" % (how, driver.mark)
    engine.docker("run", "-d", "--name", name, "--tmpfs", "/small:size=1m,mode=777", "-w", "/small",
                  engine.image("busybox"), "sleep", "1000")
    try:
        driver.do("attach", box="k1", box_id=name)
        f = Files(driver, "k1", "/")
        f.must(store("kept", b"k" * 1000), store("old", b"o" * 1000))
        results = f.apply(store("big", b"x" * (3 << 20)), store("old", b"n" * (2 << 20)),
                          *[store("s%d" % i, b"s" * 100000) for i in range(20)])
        assert [each.error for each in results[:2]] == ["ENOSPC", "ENOSPC"]
        assert {each.error for each in results[2:]} == {"", "ENOSPC"}
        assert f.fetch(["old"])["old"].data == b"o" * 1000, "it is replaced whole or not at all"
        names = set(f.list().entries)
        assert names == {"kept", "old"} | {"s%d" % i for i in range(20) if not results[2 + i].error}
        left = engine.docker("exec", name, "find", "/small", "-name", ".sbxfs-*").out
        assert left == ""
    finally:
        engine.docker("rm", "-f", name)


def test_neither_our_program_nor_a_shell(remote):
    f = remote("bare", "shell")
    with pytest.raises(Refused) as caught:
        f.stat("")
    assert caught.value.errno == "EOPNOTSUPP"
    assert "our program" in caught.value.sentence
    f.driver.do("state", box="k1")  # and it lives on


def test_bad_way_of_files_is_refused(drive, engine):
    with pytest.raises(Exception, match="agent, stream or shell"):
        drive(kind="docker", pairs=["host=" + engine.host, "files=magic"])
