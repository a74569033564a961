# SPDX-License-Identifier: Apache-2.0
"""Files over ssh: connections that end, several of them, and hosts that can do less."""

import os
import time
from pathlib import Path

import pytest

from box_files import EXCLUSIVE, Files, link, mkdir, rename, set_mode, set_times, store, symlink
from driver import Refused
from files_support import (MTIME, NS, leftovers, ssh_section, temporary, times,
                           until_it_answers)
from support.sshd import Sshd
from support.tools import wait_for


def test_a_write_of_somebody_else_is_not_taken_for_ours(remote):
    """It comes between our rename and our touch, which would hide it."""
    f, way = remote(ms=60)
    for mtime in ({"mtime": [MTIME[0], NS]}, {"mtime": MTIME}):
        f.must(store("x", b"old"))
        way.set_round_trip(2000)  # so long is the time between, for a machine with much else to do
        pending = f.ask("f_apply", changes=[store("x", b"ours", **mtime), set_mode("x", 0o600)], call_ms=90000)
        wait_for(lambda: (f.real / "x").read_bytes() == b"ours", 60, 0.005, "the rename")
        with open(f.real / "x", "r+b") as file:
            file.write(b"more")
        wrote = os.lstat(f.real / "x").st_mtime_ns
        way.set_round_trip(60)
        assert [each[1] for each in f.driver.get(pending)["changes"]] == [None, None]
        assert os.lstat(f.real / "x").st_mtime_ns == wrote


@pytest.mark.parametrize("wait_ms", [5, 50, 90, 130])
def test_a_connection_cut_in_a_run_leaves_whole_files_or_none(remote, servers, wait_ms):
    f, way = remote(ms=40)
    f.must(mkdir("t"), *[store("t/%d" % i, b"old" * 1000) for i in range(0, 60, 2)])
    left = servers("ssh").connected()
    pending = f.ask("f_apply", changes=[store("t/%d" % i, b"%02d" % i * 1500, 0o640) for i in range(60)]
                    + [mkdir("t/d%d" % i) for i in range(60)])
    time.sleep(wait_ms / 1000)
    way.cut()
    try:
        answer = f.driver.get(pending)
    except Refused as refused:
        assert refused.errno == "EHOSTUNREACH"
        answer = refused.answer
        assert {each[0] for each in answer["changes"]} <= {"", "EINPROGRESS", "ECANCELED"}
    for i in range(60):
        path = f.real / "t" / str(i)
        data = path.read_bytes() if path.exists() else None
        new = b"%02d" % i * 1500
        assert data in ((b"old" * 1000, new) if i % 2 == 0 else (None, new))
        if answer["changes"][i][0] == "":
            assert data == new, "what was told to be done is"
    # The server may have requests of that connection left, which would make names after we removed them.
    wait_for(lambda: not left(), 60, 0.05, lambda: "the end of %s" % left())
    until_it_answers(lambda: f.must(*[store("t/%d" % i, b"%02d" % i * 1500) for i in range(60)]), 60)
    assert temporary(f) == []
    for i in range(60):
        assert (f.real / "t" / str(i)).read_bytes() == b"%02d" % i * 1500


def test_an_open_file_is_stale_when_its_connection_has_gone(remote):
    f, way = remote()
    f.must(store("x", b"text" * 1000))
    handle, _ = f.open("x")
    assert f.read(handle, 4)[0] == b"text"
    way.cut()
    assert f.errno("read", handle, 4) == "ESTALE"
    f.close(handle)
    again = until_it_answers(lambda: f.open("x"), 60)[0]
    assert f.read(again, 4)[0] == b"text"
    f.close(again)


def test_a_host_that_says_nothing_is_given_up(remote):
    f, way = remote()
    f.must(store("x", b"text" * 1000))
    handle, _ = f.open("x")
    way.hole()
    for op, arguments in (("f_stat", {"path": "78"}), ("f_list", {"path": "", "depth": 1, "max": 0}),
                          ("f_read", {"handle": handle, "size": 4, "offset": 0}),
                          ("f_fetch", {"paths": ["78"], "size_max": 9999}),
                          ("f_apply", {"changes": [store("y", b"1")]})):
        start = time.monotonic()
        with pytest.raises(Refused) as caught:
            f.do(op, call_ms=300, **arguments)
        assert caught.value.errno in ("ETIMEDOUT", "EHOSTUNREACH", "ESTALE"), (op, caught.value)
        assert time.monotonic() - start < 9, op  # the connection's silence would end it after 10 s
    f.close(handle)
    way.cut()
    way.thaw()
    assert until_it_answers(lambda: f.stat("x"), 60).size == 4000
    until_it_answers(lambda: f.must(store("z", b"1")), 60)
    assert temporary(f) == []


def test_a_large_file_over_several_connections(remote, big, base):
    f, _ = remote(ms=12)
    f.must(store("big", file=big))
    assert os.path.getsize(f.real / "big") == 300 << 20
    back = base / "back"
    handle, st = f.open("big")
    for chunk in (64 << 20, 2 << 20):
        f.do("f_read", 300, handle=handle, size=st.size, offset=0, chunk=chunk, to=str(back), call_ms=120000)
        with open(big, "rb") as a, open(back, "rb") as b, open(f.real / "big", "rb") as there:
            while True:
                block = a.read(1 << 20)
                assert block == b.read(1 << 20) == there.read(1 << 20)
                if not block:
                    break
        back.unlink()
    pending = [f.ask("f_read", handle=handle, size=2 << 20, offset=i << 21, chunk=1 << 20, to=str(back),
                     call_ms=120000) for i in range(150)]
    for each in pending:
        f.driver.get(each, 150)
    with open(big, "rb") as a, open(back, "rb") as b:
        assert a.read() == b.read()
    f.close(handle)


def test_one_connection_of_several_goes(remote, big, base):
    f, way = remote(ms=12)
    f.must(store("big", file=big))
    handle, st = f.open("big")
    back = base / "back"
    way.set_round_trip(2000)  # all of it takes longer than any machine stands still
    before = way.count()[1]
    pending = f.ask("f_read", handle=handle, size=st.size, offset=0, chunk=8 << 20, to=str(back), call_ms=120000)
    wait_for(lambda: way.count()[1] > before + (1 << 20), 60, 0.02, lambda: "the first MiB, not %d bytes" % (
        way.count()[1] - before))
    way.cut()
    way.set_round_trip(12)
    with pytest.raises(Refused) as caught:
        f.driver.get(pending, 150)
        raise AssertionError("all of it was read before")
    assert caught.value.errno == "ESTALE"
    f.close(handle)


def test_a_server_without_extensions(drive, base):
    denied = "posix-rename,hardlink,statvfs,fstatvfs,fsync,lsetstat,limits,expand-path,copy-data"
    with Sshd(base / "sshd", sftp="internal-sftp -P " + denied) as server:
        driver = drive(kind="ssh", pairs=ssh_section(server))
        driver.create("k1")
        f = Files(driver, "k1", "/")
        f.real = Path(f.workdir())
        f.must(store("x", b"1"), store("x", b"2"), store("y", b"y"), rename("y", "x"), mkdir("d"), mkdir("e"),
               rename("d", "e"), set_times("x", MTIME))
        assert (f.real / "x").read_bytes() == b"y" and set(os.listdir(f.real)) == {"x", "e"}
        assert f.one(link("x", "z")).error == "EOPNOTSUPP"
        assert f.errno("statfs") == "EOPNOTSUPP"
        assert f.one(store("e", b"1")).error == "EISDIR"
        assert f.one(store("x", b"1", flags=EXCLUSIVE)).error == "EEXIST"
        assert temporary(f) == []
        f.must(symlink("l", "x"), set_times("l", [1400000000, NS], atime=[1300000000, 0]))
        assert times(f, "l") == (1400000000, NS) and os.lstat(f.real / "x").st_mtime == MTIME[0]
        driver.destroy("k1")


def test_links_without_a_shell_and_extensions(drive, base):
    with Sshd(base / "sshd", sftp="internal-sftp -P lsetstat", config=["ForceCommand internal-sftp -P lsetstat"]) \
            as server:
        driver = drive(kind="ssh", pairs=ssh_section(server))
        driver.create("k1")
        f = Files(driver, "k1", "/")
        f.real = Path(f.workdir())
        f.must(store("x", b"1", mtime=MTIME), symlink("l", "x"), set_times("l", [1400000000, 0]),
               set_times("x", [1500000000, 0]))
        assert os.lstat(f.real / "x").st_mtime == 1500000000 and os.lstat(f.real / "l").st_mtime > 1600000000
        driver.destroy("k1")


def test_a_directory_that_is_given_as_root(drive, base):
    """Another's directory, where our temporary files have to be beside the files."""
    root = base / "given"
    root.mkdir()
    with Sshd(base / "sshd") as server:
        driver = drive(kind="ssh", pairs=ssh_section(server, root=root))
        driver.create("k1")
        f = Files(driver, "k1", root)
        assert f.workdir() == str(root)
        f.must(mkdir("a"), store("a/x", b"1"), rename("a", "b"), mkdir("a"), store("a/y", b"2"), rename("b/x", "a/x"),
               store("a/x", b"3"), *[store("a/%d" % i, b"%d" % i) for i in range(100)])
        assert (root / "a/x").read_bytes() == b"3" and (root / "a/y").read_bytes() == b"2"
        assert f.one(store("none/x", b"1")).error == "ENOENT"
        assert f.one(store("a", b"1")).error == "EISDIR"
        assert f.one(mkdir("a")).error == "EEXIST" and f.one(mkdir("none/x")).error == "ENOENT"
        assert leftovers(f) == []
        driver.destroy("k1")
        assert len(os.listdir(root)) == 2, "it is not ours"
