# SPDX-License-Identifier: Apache-2.0
"""The file contract, the same for every provider that has files of its own: what is asked."""

import os
import stat
import threading
import time

from box_files import Files, mkdir, set_mode, store, symlink, unlink
from files_support import MTIME, is_as_there, make, own, ssh_section
from support.sshd import Sshd, new_user


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
    got = f.list("many", call_ms=100000)
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
    if f.has_shell and f.runs:
        assert f.driver.check("k1", "cat here; pwd") == "found" + f.workdir() + "\n"


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
    got = f.fetch(paths, to=str(to), stride=8192, call_ms=100000)
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
    if f.has_handles:
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
    if f.big_size:
        os.truncate(big, f.big_size)
    whole = os.path.getsize(big)
    start = time.monotonic()
    assert f.apply(store("big", file=big), timeout=130, call_ms=120000)[0].error == ""
    up = time.monotonic() - start
    handle, st = f.open("big")
    assert st.size == whole
    back = base / "back"
    start = time.monotonic()
    f.do("f_read", 130, handle=handle, size=st.size, offset=0, chunk=16 << 20, to=str(back), call_ms=120000)
    down = time.monotonic() - start
    f.close(handle)
    print("%d MiB: up %.0f MiB/s, down %.0f MiB/s" % (whole >> 20, whole / up / 2**20, whole / down / 2**20))
    with open(big, "rb") as a, open(back, "rb") as b:
        while True:
            block = a.read(1 << 20)
            assert block == b.read(1 << 20)
            if not block:
                break
