# SPDX-License-Identifier: Apache-2.0
"""The file contract, the same for every provider that has files of its own: changes, and calls."""

import os
import stat
import threading
import time

from box_files import (EXCLUSIVE, NOREPLACE, change, link, mkdir, rename, rmdir, set_mode,
                       set_size, set_times, store, symlink, unlink, write)
from driver import Refused
from files_support import HARD_NAMES, MTIME, NS, is_as_there, leftovers, make, times


def test_store_makes_a_file_as_asked(f):
    os.umask(0o077)
    result = f.must(store("x", b"text", 0o751, mtime=MTIME))[0]
    os.umask(0o022)
    real = os.lstat(f.real / "x")
    assert (f.real / "x").read_bytes() == b"text"
    assert stat.S_IMODE(real.st_mode) == 0o751 and real.st_mtime == MTIME[0]
    is_as_there(f, "x", result.st)
    owner = os.lstat(f.real)
    assert (real.st_uid, real.st_gid) == (owner.st_uid, owner.st_gid)


def test_store_replaces_in_one_step(f):
    f.must(store("x", b"old", 0o600))
    before = os.lstat(f.real / "x").st_ino
    with open(f.real / "x", "rb") as held:
        f.must(store("x", b"new", 0o644))
        assert held.read() == b"old"
    assert (f.real / "x").read_bytes() == b"new" and os.lstat(f.real / "x").st_ino != before
    f.must(symlink("l", "x"), store("l", b"no link"))
    assert not (f.real / "l").is_symlink() and (f.real / "x").read_bytes() == b"new"


def test_store_with_holes(f):
    f.must(store("x", b"H" + b"." * 99999, extents=[[0, 1]], size=5 << 30))
    st = f.stat("x")
    assert st.size == 5 << 30
    handle, _ = f.open("x")
    assert f.read(handle, 3)[0] == b"H\0\0"
    assert f.read(handle, 3, (5 << 30) - 2)[0] == b"\0\0"
    f.close(handle)
    assert os.lstat(f.real / "x").st_blocks < 1000


def test_store_fails_and_leaves_nothing(f):
    f.must(mkdir("d"), store("d/in"), store("file", b"kept"))
    assert f.one(store("none/x", b"1")).error == "ENOENT"
    assert f.one(store("file/x", b"1")).error == "ENOTDIR"
    assert f.one(store("d", b"1")).error == "EISDIR"
    assert f.one(store("file", b"1", flags=EXCLUSIVE)).error == "EEXIST"
    assert f.one(store("y" * 256, b"1")).error == "ENAMETOOLONG" or not (f.real / ("y" * 256)).exists()
    assert f.one(store("broken", b"1", source_error=5)).error == "EIO"
    assert (f.real / "file").read_bytes() == b"kept"
    assert set(os.listdir(f.real)) == {"d", "file"} and leftovers(f) == []


def test_store_exclusive(f):
    f.must(store("x", b"1", flags=EXCLUSIVE), symlink("dangling", "nowhere"))
    assert f.one(store("dangling", b"2", flags=EXCLUSIVE)).error == "EEXIST"
    assert (f.real / "x").read_bytes() == b"1" and leftovers(f) == []


def test_write_in_place(f):
    f.must(store("x", b"0123456789"))
    inode = os.lstat(f.real / "x").st_ino
    result = f.must(write("x", b"abcdefghijklm", [2, 2], [8, 4], mtime=MTIME))[0]
    assert (f.real / "x").read_bytes() == b"01cd4567ijkl" and os.lstat(f.real / "x").st_ino == inode
    assert result.st.size == 12 and result.st.mtime[0] == MTIME[0]
    f.must(write("x", b"", size=4))
    assert (f.real / "x").read_bytes() == b"01cd"
    f.must(write("x", b"______Z", [6, 1], size=20))
    assert (f.real / "x").read_bytes() == b"01cd\0\0Z" + b"\0" * 13
    assert f.one(write("none", b"1", [0, 1])).error == "ENOENT"
    f.must(mkdir("d"))
    assert f.one(write("d", b"1", [0, 1])).error == "EISDIR"
    assert not (f.real / "none").exists()


def test_write_to_what_is_read_only_by_now(f):
    """It was opened, then chmod came: a write through the open file still counts."""
    f.must(store("x", b"0123", 0o444), write("x", b"AB", [0, 2]))
    assert (f.real / "x").read_bytes() == b"AB23"
    assert f.stat("x").bits == 0o444


def test_mkdir_has_the_mode_whatever_the_umask(f):
    for mode in (0o700, 0o755, 0o777, 0o1777, 0o500):
        path = "d%o" % mode
        result = f.must(mkdir(path, mode))[0]
        assert stat.S_IMODE(os.lstat(f.real / path).st_mode) == mode == result.st.bits
    owner, made = os.lstat(f.real), os.lstat(f.real / "d755")
    assert (made.st_uid, made.st_gid) == (owner.st_uid, owner.st_gid)
    assert f.one(mkdir("d755")).error == "EEXIST"
    f.must(store("file"))
    assert f.one(mkdir("file")).error == "EEXIST"
    assert f.one(mkdir("file/x")).error == "ENOTDIR"
    assert f.one(mkdir("none/x")).error == "ENOENT"


def test_symlink(f):
    result = f.must(symlink("l", "a target/../x"))[0]
    assert os.readlink(f.real / "l") == "a target/../x" and result.st.type == stat.S_IFLNK
    assert os.lstat(f.real / "l").st_uid == os.lstat(f.real).st_uid
    assert f.one(symlink("l", "other")).error == "EEXIST"
    assert f.one(symlink("none/l", "x")).error == "ENOENT"
    f.must(mkdir("d"))
    assert f.one(symlink("d", "x")).error == "EEXIST"
    assert os.readlink(f.real / "l") == "a target/../x" and os.listdir(f.real / "d") == []


def test_link(f):
    f.must(store("x", b"same"), mkdir("d"))
    result = f.must(link("x", "d/y"))[0]
    assert os.path.samefile(f.real / "x", f.real / "d/y") and (not result.st or result.st.nlink in (0, 2))
    assert f.one(link("x", "d/y")).error == "EEXIST"
    assert f.one(link("none", "z")).error == "ENOENT"
    assert f.one(link("x", "none/z")).error == "ENOENT"
    assert f.one(link("d", "e")).error in ("EPERM", "EISDIR")


def test_unlink_and_rmdir(f):
    f.must(store("x"), mkdir("d"), store("d/in"), symlink("l", "d"))
    assert f.one(unlink("d")).error in ("EISDIR", "EPERM")
    assert f.one(rmdir("x")).error == "ENOTDIR"
    assert f.one(rmdir("l")).error == "ENOTDIR"
    assert f.one(rmdir("d")).error == "ENOTEMPTY"
    assert f.one(unlink("none")).error == "ENOENT"
    assert f.one(rmdir("none")).error == "ENOENT"
    assert f.one(unlink("x/y")).error == "ENOTDIR"
    f.must(unlink("l"), unlink("d/in"), rmdir("d"), unlink("x"))
    assert os.listdir(f.real) == []


def test_rename(f):
    f.must(store("a", b"A"), store("b", b"B"), mkdir("d"), mkdir("e"), store("e/in"), mkdir("empty"))
    result = f.must(rename("a", "c"))[0]
    assert (f.real / "c").read_bytes() == b"A" and not (f.real / "a").exists()
    if result.st:
        is_as_there(f, "c", result.st)
    f.must(rename("c", "b"))
    assert (f.real / "b").read_bytes() == b"A"
    f.must(rename("b", "d/b"), rename("d", "moved"), rename("e", "empty"))
    assert (f.real / "moved/b").read_bytes() == b"A" and (f.real / "empty/in").exists()
    f.must(store("x"), mkdir("d2"))
    assert f.one(rename("none", "y")).error == "ENOENT"
    assert f.one(rename("x", "none/y")).error == "ENOENT"
    assert f.one(rename("x", "d2")).error == "EISDIR"
    assert f.one(rename("d2", "x")).error == "ENOTDIR"
    assert f.one(rename("d2", "empty")).error == "ENOTEMPTY"
    assert f.one(rename("d2", "d2/below")).error == "EINVAL"
    assert f.one(rename("x", "x/y")).error == "ENOTDIR"


def test_rename_noreplace(f):
    f.must(store("a", b"A"), store("b", b"B"), mkdir("d"), symlink("l", "nowhere"))
    for to in ("b", "d", "l"):
        assert f.one(rename("a", to, NOREPLACE)).error == "EEXIST", to
    assert f.one(rename("d", "b", NOREPLACE)).error == "EEXIST"
    f.must(rename("a", "new", NOREPLACE), rename("d", "newdir", NOREPLACE), rename("l", "newl", NOREPLACE))
    assert set(os.listdir(f.real)) == {"b", "new", "newdir", "newl"}
    assert (f.real / "b").read_bytes() == b"B" and os.readlink(f.real / "newl") == "nowhere"


def test_set(f):
    f.must(store("x", b"12345", 0o644), mkdir("d"), symlink("l", "x"))
    result = f.must(set_mode("x", 0o400), set_times("x", MTIME, atime=[1500000000, 0]), set_mode("d", 0o711),
                    set_times("d", MTIME))
    real = os.lstat(f.real / "x")
    assert stat.S_IMODE(real.st_mode) == 0o400 and (real.st_mtime, real.st_atime) == (MTIME[0], 1500000000)
    assert not result[0].st or result[0].st.bits == 0o400
    assert result[1].st.mtime[0] == MTIME[0] and (not result[2].st or result[2].st.bits == 0o711)
    assert os.lstat(f.real / "d").st_mtime == MTIME[0]
    f.must(set_times("x", [1700000000, 0]))
    assert os.lstat(f.real / "x").st_atime == 1500000000, "the other time is left alone"
    f.must(set_mode("x", 0o600), set_size("x", 3), set_size("x", 10))
    assert (f.real / "x").read_bytes() == b"123" + b"\0" * 7
    assert f.one(set_mode("none", 0o600)).error == "ENOENT"
    assert f.one(set_size("d", 1)).error == "EISDIR"
    f.must(set_times("l", [1400000000, 0]))
    assert os.lstat(f.real / "l").st_mtime == 1400000000, "a link is not followed"
    assert os.lstat(f.real / "x").st_mtime != 1400000000


def test_times_have_their_nanoseconds(f):
    """Where the host has a shell; by SFTP alone, seconds."""
    ns = NS if f.has_ns else 0
    f.must(mkdir("d"))
    results = f.must(store("a", b"1", mtime=[MTIME[0], NS]), store("d/b", b"1", mtime=[MTIME[0] + 1, NS + 1]),
                     store("-c d'", b"1", mtime=[MTIME[0] + 2, 7]), store("plain", b"1", mtime=MTIME),
                     store("now", b"1"), symlink("l", "a"))
    assert all(each.st for each in results) or not f.has_shell
    assert times(f, "a") == (MTIME[0], ns) and times(f, "d/b") == (MTIME[0] + 1, ns and ns + 1)
    assert times(f, "-c d'") == (MTIME[0] + 2, ns and 7) and times(f, "plain") == (MTIME[0], 0)
    for name, result in zip(("a", "d/b", "-c d'", "plain"), results):
        is_as_there(f, name, result.st)
        assert result.st.mtime == times(f, name)
    results = f.must(write("a", b"2", [0, 1], mtime=[MTIME[0] + 3, NS]), set_times("d", [MTIME[0] + 4, NS]),
                     set_times("plain", [5, NS], atime=[6, NS]), set_times("l", [MTIME[0] + 5, NS]))
    assert times(f, "a") == (MTIME[0] + 3, ns) and times(f, "d") == (MTIME[0] + 4, ns)
    assert times(f, "plain") == (5, ns) and os.lstat(f.real / "plain").st_atime_ns == 6 * 10**9 + ns
    assert times(f, "l") == (MTIME[0] + 5, ns), "a link is not followed"
    assert [each.st.mtime for each in results] == [times(f, path) for path in ("a", "d", "plain", "l")]
    f.must(set_times("", [MTIME[0] + 6, NS]))
    assert times(f, "") == (MTIME[0] + 6, ns)


def test_an_atime_alone_leaves_the_mtime(f):
    f.must(store("x", b"1", mtime=[MTIME[0], NS]))
    before = os.lstat(f.real / "x").st_mtime_ns
    f.must(change("set", "x", atime=[1500000000, NS]))
    real = os.lstat(f.real / "x")
    assert real.st_mtime_ns == before and real.st_atime_ns // 10**9 == 1500000000
    assert f.one(change("set", "none", atime=[1500000000, 0])).error == "ENOENT"


def test_times_go_with_the_file(f):
    """What later changes of the same run did to it."""
    ns = NS if f.has_ns else 0
    first, last = [MTIME[0], NS], [MTIME[0] + 9, NS]
    f.must(mkdir("d"), store("d/in", mtime=first), rename("d", "e"), store("x", b"1", mtime=first), rename("x", "y"),
           store("x", b"22", mtime=last), store("gone", mtime=first), unlink("gone"), store("t", mtime=first),
           link("t", "u"), unlink("t"), store("over", b"1", mtime=first), store("over", b"22"),
           store("twice", mtime=first), set_times("twice", last), store("cut", b"123", mtime=first),
           set_size("cut", 1), store("a", b"a", mtime=first), store("b", b"b", mtime=last), rename("a", "b"))
    assert times(f, "e/in") == times(f, "y") == times(f, "u") == times(f, "b") == (MTIME[0], ns)
    assert times(f, "x") == times(f, "twice") == (MTIME[0] + 9, ns)
    assert times(f, "over")[0] > MTIME[0] + 9 and times(f, "cut")[0] > MTIME[0] + 9
    assert set(os.listdir(f.real)) == {"e", "y", "x", "u", "over", "twice", "cut", "b"}


def test_each_change_says_what_the_file_is_now(f):
    f.must(mkdir("d"), *[store("%d" % i, b"%d" % i) for i in range(5)])
    names = ["0", "r1", "2", "3", "l2", "new", "d2", "link", "d", ""]
    results = f.must(set_mode("0", 0o600), rename("1", "r1"), write("2", b"more", [0, 4]), set_size("3", 100),
                     link("4", "l2"), store("new", b"new", 0o751), mkdir("d2", 0o700), symlink("link", "d"),
                     set_mode("d", 0o711), set_mode("", 0o755))
    for name, result in zip(names, results):
        assert result.st, name
        is_as_there(f, name, result.st)
        if f.has_shell:
            real = os.lstat(f.real / name)
            assert result.st.mtime in (divmod(real.st_mtime_ns, 10**9), (real.st_mtime_ns // 10**9, 0))
            assert (result.st.mtime[1] or not f.has_ns) and result.st.ino == real.st_ino
            assert result.st.nlink == real.st_nlink


def test_an_ordered_run_is_carried_out_in_order(f):
    results = f.apply(mkdir("p"), store("p/x", b"1"), rename("p", "q"), store("q/x", b"2"), rename("q/x", "q/y"),
                      store("p/x", b"3"), mkdir("q"), unlink("q/y"), rmdir("q"), mkdir("q"), symlink("q/l", "t"))
    assert [each.error for each in results] == ["", "", "", "", "", "ENOENT", "EEXIST", "", "", "", ""]
    assert os.listdir(f.real) == ["q"] and os.listdir(f.real / "q") == ["l"]


def test_a_later_change_is_tried_though_one_failed(f):
    results = f.apply(rmdir("none"), store("a", b"1"), store("none/b", b"2"), store("c", b"3"))
    assert [each.error for each in results] == ["ENOENT", "", "ENOENT", ""]
    assert set(os.listdir(f.real)) == {"a", "c"}


def test_a_long_run(f):
    changes = [mkdir("t")]
    for i in range(500):
        changes += [store("t/%d" % i, b"%d" % i * 20, 0o600 + i % 64, mtime=[MTIME[0] + i, 0])]
    changes += [rename("t/%d" % i, "t/r%d" % i) for i in range(0, 500, 2)]
    changes += [unlink("t/%d" % i) for i in range(1, 500, 2)]
    results = f.must(*changes)
    assert all(each.st for each in results[:501])
    assert set(os.listdir(f.real / "t")) == {"r%d" % i for i in range(0, 500, 2)}
    for i in range(0, 500, 2):
        real = os.lstat(f.real / ("t/r%d" % i))
        assert stat.S_IMODE(real.st_mode) == 0o600 + i % 64 and real.st_mtime == MTIME[0] + i
        assert (f.real / ("t/r%d" % i)).read_bytes() == b"%d" % i * 20


def test_names_of_any_bytes(f):
    for name in HARD_NAMES:
        use_name(f, name)


def use_name(f, name):
    f.must(mkdir(name), store(name + "/" + name, b"in"), symlink(name + "/l", name), mkdir(name + "/d"))
    got = f.list(depth=3)
    assert set(got.entries) == {name, name + "/" + name, name + "/l", name + "/d"}
    assert got.listed == {"", name, name + "/d"}
    assert got.targets.get(name + "/l", name) == name and f.readlink(name + "/l") == name
    assert set(f.list(name).entries) == {name, "l", "d"}
    assert f.fetch([name + "/" + name])[name + "/" + name].data == b"in"
    assert f.stat(name + "/" + name).size == 2
    f.must(rename(name + "/" + name, name + "/x"), rename(name + "/x", name + "/" + name),
           set_mode(name + "/" + name, 0o600), write(name + "/" + name, b"IN", [0, 2]), link(name + "/" + name,
                                                                                             name + "/z"))
    assert set(f.list(name, skip=[name]).entries) == {name, "l", "d", "z"}
    f.must(unlink(name + "/" + name), unlink(name + "/l"), unlink(name + "/z"), rmdir(name + "/d"), rmdir(name))
    assert os.listdir(f.real) == []


def test_concurrent_calls(f):
    f.must(*[mkdir("d%d" % i) for i in range(8)])
    faults = []

    def work(i):
        try:
            for n in range(15):
                path = "d%d/f%d" % (i, n)
                data = (b"%d.%d " % (i, n)) * 3000
                f.must(store(path, data))
                assert f.fetch([path])[path].data == data
                assert len(f.list("d%d" % i).entries) == n + 1
                handle, _ = f.open(path)
                assert f.read(handle, 100000)[0] == data
                f.close(handle)
        except Exception as fault:  # noqa: shown by the test's thread
            faults.append(fault)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not faults
    assert len(f.list(depth=2).entries) == 8 + 8 * 15


def test_our_temporary_names_are_in_no_listing(f):
    make(f, ".sbxfs-abcdefghij0123456789", b"half")
    make(f, ".sbxfs-user", b"a user's")
    assert set(f.list().entries) == {".sbxfs-user"}
    os.unlink(f.real / ".sbxfs-abcdefghij0123456789")


def test_a_deadline_ends_a_call(f):
    started = time.monotonic()
    try:
        f.apply(*[store("f%d" % i, b"x" * 1000) for i in range(3000)], call_ms=1)
    except Refused as refused:
        assert refused.errno == "ETIMEDOUT"
    assert time.monotonic() - started < 25  # a second, but for the load


def test_unknown_flags_are_refused(f):
    f.must(store("a"), store("b"))
    assert f.one(rename("a", "b", 2)).error == "EINVAL"
