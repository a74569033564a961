# SPDX-License-Identifier: Apache-2.0
"""The file contract, the same for every provider that has files of its own."""

import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest

from box_files import (EXCLUSIVE, NOREPLACE, Files, change, link, mkdir, rename, rmdir, set_mode, set_size,
                       set_times, store, symlink, unlink, write)
from driver import Refused
from support import mounts
from support.sshd import Sshd, new_user

KINDS = ["local-cached", "ssh", "ssh-sftp"]  # the last: a host without a shell for us
MTIME = [1600000000, 0]  # whole seconds: SFTP has no more
NS = 123456789  # what touch adds to them, where the host has a shell
HARD_NAMES = ["a b", "it's", 'say "hi"', "-rf", "new\nline", "tab\there", "*", "$(x)`y`", "back\\slash", "%s%d",
              "~", "#x", "ümläut", "\udcff\udcfe", " ", "trailing ", "{1..3}", "a;b&c|d", "x" * 255, "\x01\x7f",
              ".sbxfs", ".sbxfs-mine", "[", "=", "!", "\\n"]


def ssh_section(server, port=None, **more):
    """The keys of an INI section that reaches it."""
    keys = dict({"host": server.host, "port": port or server.port, "user": server.user, "identity": server.key,
                 "known_hosts": server.known_hosts, "agent": "no", "ssh_config": "none", "base": server.home / "base"},
                **more)
    return ["%s=%s" % item for item in keys.items()]


@pytest.fixture(scope="module")
def servers():
    """One sshd with a shell, one without."""
    made = {}
    directory = mounts.work_directory("sbxfs-sshd-")

    def get(kind):
        if kind not in made:
            config = ["ForceCommand internal-sftp"] if kind == "ssh-sftp" else []
            made[kind] = Sshd(directory / kind, config=config).start()
        return made[kind]
    yield get
    for server in made.values():
        server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=KINDS)
def f(request, drive, servers):
    """The files of a running sandbox."""
    if request.param == "local-cached":
        driver = drive(kind="local-cached")
        driver.create("k1")
        return Files(driver, "k1", driver.workspace("k1"))
    driver = drive(kind="ssh", pairs=ssh_section(servers(request.param)))
    driver.create("k1")
    files = Files(driver, "k1", "/")
    files.real = Path(files.workdir())
    files.has_shell = request.param == "ssh"
    return files


@pytest.fixture
def big(base):
    """300 MiB that don't repeat, in a file of this machine."""
    path = base / "big"
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for i in range(300):
            file.write(i.to_bytes(8, "little") + block[8:])
    return path


def make(f, path, data=b"", mode=0o644):
    """A file as a command inside makes it."""
    real = f.real / path
    real.write_bytes(data)
    real.chmod(mode)
    own(f, real)


def own(f, real):
    if os.geteuid() == 0:
        there = os.stat(f.real)
        os.chown(real, there.st_uid, there.st_gid, follow_symlinks=False)


def is_as_there(f, path, st):
    real = os.lstat(f.real / path)
    assert st.mode == real.st_mode and st.size == real.st_size
    assert st.mtime[0] == real.st_mtime_ns // 10**9
    assert st.mtime[1] in (0, real.st_mtime_ns % 10**9)
    assert st.ino in (0, real.st_ino) and st.nlink in (0, real.st_nlink)


def leftovers(f):
    return [name for _, dirs, files in os.walk(f.real) for name in dirs + files if name.startswith(".sbxfs-")
            and name != ".sbxfs-mine"]


# -- asking

def test_list_names_everything_with_its_attributes(f):
    make(f, "file", b"12345")
    (f.real / "dir").mkdir()
    os.symlink("../there", f.real / "link")
    os.mkfifo(f.real / "fifo")
    got = f.list()
    assert set(got.entries) == {"file", "dir", "link", "fifo"} and got.listed == {""}
    for name, st in got.entries.items():
        is_as_there(f, name, st)
    assert got.targets["link"] == "../there" and "file" not in got.targets


def test_list_of_depth_two_has_two_levels(f):
    f.must(mkdir("a"), mkdir("a/b"), mkdir("a/b/c"), store("a/b/c/x"), store("a/y"), mkdir("e"))
    assert set(f.list(depth=1).entries) == {"a", "e"}
    got = f.list(depth=2)
    assert set(got.entries) == {"a", "a/b", "a/y", "e"} and got.listed == {"", "a", "e"}
    got = f.list("a", depth=9)
    assert set(got.entries) == {"b", "b/c", "b/c/x", "y"} and got.listed == {"", "b", "b/c"}
    for name, st in got.entries.items():
        is_as_there(f, "a/" + name, st)


def test_list_skips_directories_by_name(f):
    f.must(mkdir("node_modules"), store("node_modules/x"), mkdir("src"), mkdir("src/node_modules"),
           store("src/node_modules/y"), store("src/z"))
    got = f.list(depth=9, skip=["node_modules", ".git"])
    assert set(got.entries) == {"node_modules", "src", "src/node_modules", "src/z"}
    assert got.listed == {"", "src"}
    assert set(f.list("node_modules", depth=2, skip=["node_modules"]).entries) == {"x"}


def test_list_ends_at_its_limit(f):
    f.must(*[mkdir("d%d" % i) for i in range(10)],
           *[store("d%d/f%d" % (i, k)) for i in range(10) for k in range(30)])
    got = f.list(depth=5, max=100)
    assert 100 <= len(got.entries) <= 200
    for directory in got.listed - {""}:
        assert len([name for name in got.entries if name.startswith(directory + "/")]) == 30


def test_list_of_20000_entries(f):
    (f.real / "many").mkdir()
    own(f, f.real / "many")
    for i in range(20000):  # names of one file: quicker to make
        if i % 5000 == 0:
            (f.real / "many" / ("entry-%05d" % i)).touch()
        else:
            os.link(f.real / "many" / ("entry-%05d" % (i - i % 5000)), f.real / "many" / ("entry-%05d" % i))
    start = time.monotonic()
    got = f.list("many")
    print("20,000 entries: %.2f s" % (time.monotonic() - start))
    assert len(got.entries) == 20000 and got.listed == {""}


def test_list_of_what_is_no_directory(f):
    f.must(store("file"), symlink("link", "dir"), mkdir("dir"))
    assert f.errno("list", "none") == "ENOENT"
    assert f.errno("list", "none/below") == "ENOENT"
    assert f.errno("list", "file") == "ENOTDIR"
    assert f.errno("list", "link") == "ENOTDIR"


def test_list_leaves_out_what_it_may_not_read(drive, base):
    """Through find of an account that isn't root."""
    if os.geteuid() == 0:
        with new_user() as user, Sshd(base / "sshd", user=user) as server:
            list_closed(drive(kind="ssh", pairs=ssh_section(server)))
    else:
        with Sshd(base / "sshd") as server:
            list_closed(drive(kind="ssh", pairs=ssh_section(server)))


def list_closed(driver):
    driver.create("k1")
    f = Files(driver, "k1", "/")
    f.must(mkdir("a"), store("a/x"), mkdir("closed"), set_mode("closed", 0))
    got = f.list(depth=3)
    assert set(got.entries) == {"a", "a/x", "closed"} and got.listed == {"", "a"}
    assert f.errno("list", "closed") == "EACCES"
    assert f.one(store("closed/x")).error == "EACCES"
    assert f.fetch(["closed/x"])["closed/x"].error == "EACCES"
    f.must(set_mode("closed", 0o755))
    driver.destroy("k1")


def test_a_sink_that_refuses_ends_the_listing(f):
    f.must(*[store("f%d" % i) for i in range(50)])
    assert f.errno("list", "", stop_after=10) == "ECANCELED"
    assert len(f.list().entries) == 50


def test_stat(f):
    f.must(mkdir("d"), store("d/x", b"abc", 0o640), symlink("l", "d"))
    for path in ("", "d", "d/x", "l"):
        is_as_there(f, path, f.stat(path))
    assert f.stat("l").type == stat.S_IFLNK
    assert f.errno("stat", "none") == "ENOENT"
    assert f.errno("stat", "none/x") == "ENOENT"
    assert f.errno("stat", "d/x/y") == "ENOTDIR"


def test_readlink(f):
    targets = ["x", "../../etc", "/abs", "a b\nc'd", "\udcff", "t" * 4000]
    f.must(*[symlink("l%d" % i, target) for i, target in enumerate(targets)], store("file"), mkdir("dir"))
    assert [f.readlink("l%d" % i) for i in range(len(targets))] == targets
    listed = f.list().targets
    assert all(listed.get("l%d" % i, target) == target for i, target in enumerate(targets))
    assert f.errno("readlink", "file") == "EINVAL"
    assert f.errno("readlink", "dir") == "EINVAL"
    assert f.errno("readlink", "none") == "ENOENT"


def test_the_same_file_has_the_same_time_everywhere(f):
    result = f.must(store("x", b"abc"), store("y", b"abc", mtime=MTIME))
    handle, opened = f.open("x")
    seen = [result[0].st or f.stat("x"), f.stat("x"), f.list().entries["x"], opened, f.fetch(["x"])["x"].st,
            f.read(handle, 10)[1]]
    f.close(handle)
    assert {st.size for st in seen} == {3}
    assert len({st.mtime[0] for st in seen}) == 1
    assert len({st.mtime[1] for st in seen if st.mtime[1]}) <= 1
    assert f.stat("y").mtime[0] == MTIME[0]


def test_statfs_and_workdir(f):
    got = f.statfs()
    real = os.statvfs(f.real)
    assert got["frsize"] == real.f_frsize and got["blocks"] == real.f_blocks
    assert f.workdir().startswith("/")
    f.must(store("here", b"found"))
    if f.has_shell:
        assert f.driver.check("k1", "cat here; pwd") == "found" + f.workdir() + "\n"


# -- content

def test_fetch(f):
    f.must(mkdir("d"), store("d/a", b"A" * 70000), store("empty"), store("exact", b"e" * 1000),
           store("over", b"o" * 1001), symlink("l", "empty"))
    os.mkfifo(f.real / "fifo")
    got = f.fetch(["d/a", "empty", "d", "none", "l", "fifo", "d/a/b"])
    assert got["d/a"].data == b"A" * 70000 and got["d/a"].error == "" and got["d/a"].st.size == 70000
    is_as_there(f, "d/a", got["d/a"].st)
    assert got["empty"].error == "" and got["empty"].data == b""
    assert [got[path].error for path in ("d", "l", "fifo")] == ["EINVAL"] * 3
    assert got["none"].error == "ENOENT" and got["d/a/b"].error == "ENOTDIR"
    got = f.fetch(["exact", "over"], size_max=1000)
    assert got["exact"].data == b"e" * 1000
    assert got["over"].error == "EFBIG" and got["over"].st.size == 1001
    assert f.fetch([]) == {}


def test_fetch_3000_small_files(f, base):
    contents = [os.urandom(1 + i % 8192) for i in range(3000)]
    (f.real / "t").mkdir()
    own(f, f.real / "t")
    for i, data in enumerate(contents):
        (f.real / "t" / str(i)).write_bytes(data)
    to = base / "fetched"
    paths = ["t/%d" % i for i in range(3000)]
    start = time.monotonic()
    got = f.fetch(paths, to=str(to), stride=8192)
    print("3,000 files: %.2f s" % (time.monotonic() - start))
    assert len(got) == 3000 and not [path for path in paths if got[path].error]
    back = to.read_bytes()
    for i, data in enumerate(contents):
        assert got[paths[i]].st.size == len(data) and back[i * 8192:i * 8192 + len(data)] == data, i


def test_a_file_that_changes_is_never_torn(f):
    """Content of one length under attributes of another would be served as a cut file."""
    stop = threading.Event()
    make(f, "x", b"0" * 1000)

    def change_it():
        n = 0
        while not stop.is_set():
            n += 1
            (f.real / "x").write_bytes(b"%d" % (n % 10) * (1000 + n % 500))
    thread = threading.Thread(target=change_it)
    thread.start()
    try:
        for _ in range(100):
            got = f.fetch(["x"])["x"]
            assert got.error in ("", "EAGAIN")
            assert got.error or got.st.size == len(got.data)
    finally:
        stop.set()
        thread.join()


def test_open_and_read(f):
    data = os.urandom(300000)
    f.must(store("x", data), mkdir("d"), symlink("l", "x"))
    handle, st = f.open("x")
    assert st.size == 300000
    assert f.read(handle, 300000)[0] == data
    assert f.read(handle, 10, 299995)[0] == data[-5:]
    assert f.read(handle, 10, 300000)[0] == b"" and f.read(handle, 10, 1 << 40)[0] == b""
    pending = [f.ask("f_read", handle=handle, size=5000, offset=i * 5000) for i in range(60)]
    for i, each in enumerate(pending):
        assert bytes.fromhex(f.driver.get(each)["data"]) == data[i * 5000:i * 5000 + 5000]
    f.must(unlink("x"))
    assert f.read(handle, 100)[0] == data[:100], "an open file outlives its name"
    f.close(handle)
    assert f.errno("open", "none") == "ENOENT"
    assert f.errno("open", "d") == "EINVAL"
    assert f.errno("open", "l") == "EINVAL"


def test_a_read_tells_the_attributes_of_now(f):
    f.must(store("x", b"before"))
    handle, _ = f.open("x")
    with open(f.real / "x", "ab") as file:
        file.write(b" and after")
    data, st = f.read(handle, 100)
    assert data == b"before and after" and st.size == len(data)
    f.close(handle)


def test_300_mib_there_and_back(f, big, base):
    start = time.monotonic()
    f.must(store("big", file=big))
    up = time.monotonic() - start
    handle, st = f.open("big")
    assert st.size == 300 << 20
    back = base / "back"
    start = time.monotonic()
    f.do("f_read", 300, handle=handle, size=st.size, offset=0, chunk=16 << 20, to=str(back), call_ms=120000)
    down = time.monotonic() - start
    f.close(handle)
    print("300 MiB: up %.0f MiB/s, down %.0f MiB/s" % (300 / up, 300 / down))
    with open(big, "rb") as a, open(back, "rb") as b:
        while True:
            block = a.read(1 << 20)
            assert block == b.read(1 << 20)
            if not block:
                break


# -- changes

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


def times(f, path):
    real = os.lstat(f.real / path)
    return divmod(real.st_mtime_ns, 10**9)


def test_times_have_their_nanoseconds(f):
    """Where the host has a shell; by SFTP alone, seconds."""
    ns = NS if f.has_shell else 0
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
    ns = NS if f.has_shell else 0
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
            assert result.st.mtime == divmod(real.st_mtime_ns, 10**9) and result.st.ino == real.st_ino
            assert result.st.nlink == real.st_nlink


def test_a_write_of_somebody_else_is_not_taken_for_ours(remote):
    """It comes between our rename and our touch, which would hide it."""
    f, _ = remote(ms=60)
    for mtime in ({"mtime": [MTIME[0], NS]}, {"mtime": MTIME}):
        f.must(store("x", b"old"))
        pending = f.ask("f_apply", changes=[store("x", b"ours", **mtime), set_mode("x", 0o600)])
        end = time.monotonic() + 20
        while (f.real / "x").read_bytes() != b"ours":
            assert time.monotonic() < end
        with open(f.real / "x", "r+b") as file:
            file.write(b"more")
        wrote = os.lstat(f.real / "x").st_mtime_ns
        assert [each[1] for each in f.driver.get(pending)["changes"]] == [None, None]
        assert os.lstat(f.real / "x").st_mtime_ns == wrote


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
        thread.join(60)
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


# -- ssh alone

@pytest.fixture
def remote(drive, servers):
    """remote(kind, ms): files of a sandbox behind a way of this length, and the way."""
    made = []

    def get(kind="ssh", ms=0, **more):
        server = servers(kind)
        way = server.delay(ms)
        driver = drive(kind="ssh", pairs=ssh_section(server, port=way.port, **more))
        files = Files(driver, "k1", "/")
        made.append((files, way))
        driver.create("k1")
        files.real = Path(files.workdir())
        return files, way
    yield get
    for files, way in made:
        try:
            until_it_answers(lambda: files.driver.destroy("k1"))
        finally:
            way.stop()


def temporary(f):
    return [path for path in f.real.parent.iterdir() if path.name.startswith(".sbxfs-")] + leftovers(f)


def until_it_answers(call, timeout=20):
    end = time.monotonic() + timeout
    while True:
        try:
            return call()
        except Refused as refused:
            assert refused.errno in ("EHOSTUNREACH", "ETIMEDOUT"), refused
            assert time.monotonic() < end, refused
            time.sleep(0.1)


@pytest.mark.parametrize("wait_ms", [5, 50, 90, 130])
def test_a_connection_cut_in_a_run_leaves_whole_files_or_none(remote, wait_ms):
    f, way = remote(ms=40)
    f.must(mkdir("t"), *[store("t/%d" % i, b"old" * 1000) for i in range(0, 60, 2)])
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
    until_it_answers(lambda: f.must(*[store("t/%d" % i, b"%02d" % i * 1500) for i in range(60)]))
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
    again = until_it_answers(lambda: f.open("x"))[0]
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
        assert time.monotonic() - start < 3, op
    f.close(handle)
    way.cut()
    way.thaw()
    assert until_it_answers(lambda: f.stat("x")).size == 4000
    until_it_answers(lambda: f.must(store("z", b"1")))
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
    pending = [f.ask("f_read", handle=handle, size=2 << 20, offset=i << 21, chunk=1 << 20, to=str(back))
               for i in range(150)]
    for each in pending:
        f.driver.get(each)
    with open(big, "rb") as a, open(back, "rb") as b:
        assert a.read() == b.read()
    f.close(handle)


def test_one_connection_of_several_goes(remote, big, base):
    f, way = remote(ms=12)
    f.must(store("big", file=big))
    handle, st = f.open("big")
    back = base / "back"
    pending = f.ask("f_read", handle=handle, size=st.size, offset=0, chunk=8 << 20, to=str(back), call_ms=60000)
    time.sleep(0.5)
    way.cut()
    with pytest.raises(Refused) as caught:
        f.driver.get(pending)
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
