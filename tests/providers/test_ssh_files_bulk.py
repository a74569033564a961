# SPDX-License-Identifier: Apache-2.0
"""Many small files at once over ssh: by one tar stream where the host has a tar, and when it hasn't."""

import os
import random
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from box_files import EXCLUSIVE, Files, mkdir, rename, rmdir, set_mode, store, symlink, unlink
from driver import Refused
from files_support import HARD_NAMES, ssh_section
from support.sshd import SFTP_SERVER, Sshd
from support.tools import run, wait_for

BUSYBOX = "/bin/busybox"
T = 1600000000
TAR = """#!/bin/sh
case "$1" in -x*) echo >>%s;; esac
exec /usr/bin/tar "$@"
"""


class Host:
    """A host whose programs are those of `bin` first, then the usual ones; `sh` is one of `shell`'s kind."""

    def __init__(self, base, shell="dash", home=None):
        self.bin = base / "bin"
        self.bin.mkdir()
        self.bin.chmod(0o755)
        self.log = base / "tars"
        if shell == "busybox":
            for name in run([BUSYBOX, "--list"]).out.split():
                (self.bin / name).symlink_to(BUSYBOX)
        else:
            (self.bin / "sh").symlink_to("/bin/" + shell)
            self.program("tar", TAR % self.log)
        program = BUSYBOX + " sh" if shell == "busybox" else "/bin/" + shell
        self.server = Sshd(base / "sshd", sftp=SFTP_SERVER, home=home, config=[
            'ForceCommand PATH=%s:/usr/bin:/bin; export PATH; exec %s -c "$SSH_ORIGINAL_COMMAND"' % (self.bin, program)])
        self.way = None

    def program(self, name, text):
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def tars(self):
        """How often tar was run to unpack something."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def files(self, drive, ms=0, **more):
        self.server.start()
        self.way = self.server.delay(ms)
        driver = drive(kind="ssh", pairs=ssh_section(self.server, port=self.way.port, **more))
        driver.create("k1")
        files = Files(driver, "k1", "/")
        files.real = Path(files.workdir())
        return files

    def stop(self):
        if self.way:
            self.way.stop()
        self.server.stop()


@pytest.fixture
def host_of(base):
    made = []

    def make(shell="dash", **more):
        made.append(Host(base, shell, **more))
        return made[-1]
    yield make
    for each in made:
        each.stop()


@pytest.fixture
def f(host_of, drive):
    """Files of a sandbox on an ordinary host."""
    host = host_of()
    files = host.files(drive)
    files.host = host
    yield files
    files.driver.destroy("k1")


def temporary(f):
    return [path for path in f.real.parent.rglob(".sbxfs-*") if path.name != ".sbxfs-mine"]


def check(f, name, data, mode, mtime, is_exact=True):
    real = os.lstat(f.real / name)
    assert stat.S_ISREG(real.st_mode) and stat.S_IMODE(real.st_mode) == mode, name
    assert (f.real / name).read_bytes() == data, name
    if is_exact:
        assert real.st_mtime_ns == mtime[0] * 10**9 + mtime[1], name
    else:
        assert real.st_mtime_ns // 10**9 == mtime[0], name


def some(count, prefix="f", seed=1):
    """(name, content, mode, mtime) of so many files; a few are too large for the stream."""
    chance = random.Random(seed)
    sizes = [0, 1, 511, 512, 513, 4096, 65536, 256 * 1024, 256 * 1024 + 1, 700 * 1024]
    made = []
    for i in range(count):
        size = sizes[i] if i < len(sizes) else chance.randrange(6000)
        made.append(("%s%d" % (prefix, i), chance.randbytes(size), chance.choice([0o400, 0o644, 0o755, 0o600, 0o4711]),
                     [T + i, chance.randrange(10**9)]))
    return made


# -- what comes of it

@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
@pytest.mark.parametrize("count", [1, 3, 300])
def test_files_are_as_asked(host_of, drive, shell, count):
    host = host_of(shell)
    f = host.files(drive)
    files = some(count, "d/e/f")
    changes = [store(name, data, mode, mtime=mtime) for name, data, mode, mtime in files]
    f.must(mkdir("d", 0o700), mkdir("d/e"))
    results = f.must(*changes)
    for (name, data, mode, mtime), result in zip(files, results):
        check(f, name, data, mode, mtime, shell != "busybox")
        assert result.st.size == len(data) and result.st.bits == mode and result.st.mtime[0] == mtime[0]
        if shell != "busybox":
            assert result.st.mtime[1] == mtime[1] and result.st.ino == os.lstat(f.real / name).st_ino
            assert result.st.ctime == divmod(os.lstat(f.real / name).st_ctime_ns, 10**9)
    assert temporary(f) == []
    if shell != "busybox":
        assert 1 <= host.tars() <= 4
    f.driver.destroy("k1")


def test_a_run_keeps_its_order(f):
    changes = []
    for i in range(40):
        d = "d%d" % i
        changes += [mkdir(d), store(d + "/a", b"first", mtime=[T, 1]), store(d + "/b", b"b", mtime=[T, 2]),
                    rename(d + "/a", d + "/c"), store(d + "/a", b"second", mtime=[T, 3]), unlink(d + "/b"),
                    symlink(d + "/l", "a"), store(d + "/l", b"no link", mtime=[T, 4]), set_mode(d + "/c", 0o640),
                    mkdir(d + "/x"), store(d + "/x/y", b"", mtime=[T, 5]), unlink(d + "/x/y"), rmdir(d + "/x")]
    results = f.must(*changes)
    for i in range(40):
        d = "d%d" % i
        assert sorted(os.listdir(f.real / d)) == ["a", "c", "l"]
        check(f, d + "/a", b"second", 0o644, [T, 3])
        check(f, d + "/c", b"first", 0o640, [T, 1])
        check(f, d + "/l", b"no link", 0o644, [T, 4])
        assert results[i * 13 + 4].st.mtime == (T, 3) and results[i * 13 + 1].st.mtime == (T, 1)
    assert f.host.tars() == 1 and temporary(f) == []


@pytest.mark.parametrize("more", [0, 60])
def test_each_has_its_own_error(f, more):
    (f.real / "dir").mkdir()
    (f.real / "dir/in").mkdir()
    (f.real / "file").write_bytes(b"old")
    os.symlink("/etc/passwd", f.real / "link")
    os.symlink("nowhere", f.real / "dangling")
    changes = [store("new", b"new", mtime=[T, 1]), store("dir/in", b"x", mtime=[T, 2]), store("no/x", b"x", mtime=[T, 3]),
               store("file/x", b"x", mtime=[T, 4]), store("link", b"mine", mtime=[T, 5]),
               store("dangling", b"mine", mtime=[T, 6]), store("x" * 256, b"x", mtime=[T, 7])]
    others = [store("o%d" % i, b"o", mtime=[T, i]) for i in range(more)]
    results = f.apply(*changes, *others)
    assert [each.error for each in results] == ["", "EISDIR", "ENOENT", "ENOTDIR", "", "", "ENAMETOOLONG"] + [""] * more
    for name in ("new", "link", "dangling"):
        assert stat.S_ISREG(os.lstat(f.real / name).st_mode)
    assert (f.real / "link").read_bytes() == b"mine" and Path("/etc/passwd").read_bytes() != b"mine"
    assert temporary(f) == [] and f.host.tars() == 1


@pytest.mark.parametrize("more", [0, 60])
def test_exclusive_fails_on_what_is_there(f, more):
    (f.real / "there").write_bytes(b"old")
    os.symlink("nowhere", f.real / "link")
    results = f.apply(store("there", b"x", mtime=[T, 1], flags=EXCLUSIVE), store("link", b"x", mtime=[T, 1], flags=EXCLUSIVE),
                      store("not", b"x", mtime=[T, 1], flags=EXCLUSIVE),
                      *[store("o%d" % i, b"o", mtime=[T, i]) for i in range(more)])
    assert [each.error for each in results] == ["EEXIST", "EEXIST", ""] + [""] * more
    assert (f.real / "there").read_bytes() == b"old" and os.path.islink(f.real / "link")
    assert temporary(f) == []


def test_names_of_any_bytes(f):
    names = HARD_NAMES + ["a/" + name for name in HARD_NAMES]
    f.must(mkdir("a"))
    for few in [names[:1]] + [names[i:i + 4] for i in range(0, len(names), 4)] + [names]:
        f.must(*[store(name, os.fsencode(name), mtime=[T, 9]) for name in few])
        for name in few:
            check(f, name, os.fsencode(name), 0o644, [T, 9])
    assert set(os.listdir(f.real)) == set(HARD_NAMES) | {"a"}
    assert temporary(f) == []


def test_the_same_name_twice(f):
    f.must(store("a", b"1", mtime=[T, 1]), store("a", b"2", mtime=[T, 2]))
    check(f, "a", b"2", 0o644, [T, 2])
    results = f.must(*[store("a", b"%d" % i, mtime=[T, i]) for i in range(100)])
    check(f, "a", b"99", 0o644, [T, 99])
    assert results[99].st.mtime == (T, 99)


def test_a_write_meanwhile_is_not_taken_for_ours(f):
    ended = threading.Event()

    def overwrite():
        while not ended.is_set():
            for i in range(3):
                (f.real / ("w%d" % i)).write_bytes(b"theirs")
    thread = threading.Thread(target=overwrite)
    thread.start()
    try:
        for i in range(100):
            for result in f.must(*[store("w%d" % i, b"ours..", mtime=[T, 777]) for i in range(3)]):
                assert result.st is None or result.st.mtime[0] == T
    finally:
        ended.set()
        thread.join()


def test_many_calls_at_once(f):
    asked = []
    for i in range(12):
        count = (1, 3, 50)[i % 3]
        asked.append((i, count, f.ask("f_apply", changes=[
            store("c%d_%d" % (i, k), b"%d" % i * 999, mtime=[T + i, k]) for k in range(count)])))
    for i, count, pending in asked:
        answer = f.driver.get(pending)
        assert {each[0] for each in answer["changes"]} == {""}
        for k in range(count):
            check(f, "c%d_%d" % (i, k), b"%d" % i * 999, 0o644, [T + i, k])
    assert temporary(f) == []


@pytest.mark.parametrize("count", [1, 3, 200, 2000])
def test_content_that_can_not_be_read_fails_alone(f, count):
    data = b"x" * 5000
    changes = [store("s%d" % i, data, mtime=[T, i]) for i in range(count)]
    changes[count // 2]["source_error"] = 28
    results = f.apply(*changes)
    assert [i for i, each in enumerate(results) if each.error] == [count // 2]
    assert results[count // 2].error == "ENOSPC"
    assert len(os.listdir(f.real)) == count - 1 and temporary(f) == []
    f.must(store("again", data, mtime=[T, 1]))


# -- the other way

@pytest.fixture
def distant(host_of, drive):
    """Files of a sandbox that is so far that they come by tar."""
    host = host_of()
    host.program("tar", "#!/bin/sh\necho $* >>%s\nexec /usr/bin/tar \"$@\"\n" % host.log)
    files = host.files(drive, ms=25)
    files.host = host
    files.must(mkdir("known"))  # how far it is
    yield files
    files.driver.destroy("k1")


def pulls(f):
    return [line for line in f.host.log.read_text().splitlines() if line.startswith("-cf")]


def test_fetch_of_many(distant):
    f = distant
    files = some(700) + [(name, os.fsencode(name), 0o644, [T, 5]) for name in HARD_NAMES]
    f.must(*[store(name, data, mode, mtime=mtime) for name, data, mode, mtime in files])
    os.link(f.real / "f5", f.real / "hard")
    os.mkfifo(f.real / "fifo")
    os.symlink("f1", f.real / "link")
    (f.real / "dir").mkdir()
    others = {"hard": "", "fifo": "EINVAL", "link": "EINVAL", "dir": "EINVAL", "none": "ENOENT", "f1/x": "ENOTDIR",
              "dir/x": "ENOENT", "f9": "EFBIG"}
    got = f.fetch([name for name, _, _, _ in files if name != "f9"] + list(others), size_max=300 * 1024)
    for name, error in others.items():
        assert got[name].error == error, name
    assert got["hard"].data == files[5][1] and got["f9"].st.size == 700 * 1024
    for name, data, mode, mtime in files:
        if name == "f9":
            continue
        real = os.lstat(f.real / name)
        assert got[name].error == "" and got[name].data == data, name
        assert got[name].st.mtime == tuple(mtime) and got[name].st.bits == mode and got[name].st.ino == real.st_ino
    assert len(pulls(f)) == 2


def test_what_changes_is_not_torn_on_a_long_way(distant):
    f = distant
    names, ended = ["w%d" % i for i in range(20)], threading.Event()
    for name in names:
        (f.real / name).write_bytes(b"a" * 50000)

    def rewrite():
        n = 0
        while not ended.is_set():
            n += 1
            for name in names:
                with open(f.real / name, "r+b") as file:
                    file.write(bytes([97 + n % 26]) * (40000 + n % 7))
                    file.truncate()
    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        for _ in range(10):
            for got in f.fetch(names).values():
                assert got.error in ("", "EAGAIN")
                assert got.error or len(got.data) == got.st.size
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("tar", ["exit 1", "head -c 100000 /dev/zero", "/usr/bin/tar \"$@\" | head -c 30000",
                                 "/usr/bin/tar -c --format=posix --transform=s,^./,../, /etc/passwd"])
def test_a_tar_that_lies_is_not_believed(distant, tar):
    f = distant
    f.host.program("tar", "#!/bin/sh\ncase $1 in --version) echo 'tar (GNU tar) 9';; *) %s;; esac\n" % tar)
    names = ["n%d" % i for i in range(60)]
    f.must(*[store(name, os.fsencode(name) * 500) for name in names])
    got = f.fetch(names)
    assert {name: each.data for name, each in got.items()} == {name: os.fsencode(name) * 500 for name in names}


def test_much_at_once_is_left_to_sftp(distant, base):
    f = distant
    data = os.urandom(1 << 20)
    for i in range(40):
        (f.real / ("m%d" % i)).write_bytes(data)
    got = f.fetch(["m%d" % i for i in range(40)], size_max=1 << 20, to=str(base / "out"), stride=1 << 20)
    assert all(each.error == "" for each in got.values()) and len(got) == 40
    assert (base / "out").read_bytes() == data * 40
    assert f.stat("m1").size == 1 << 20


# -- a host whose tar is of no use

BROKEN = {
    "fails": "exit 1",
    "takes half": "head -c 20000 | /usr/bin/tar -xpof - 2>/dev/null; exit 2",
    "dies": "head -c 20000 | /usr/bin/tar -xpof - 2>/dev/null; kill -9 $$",
    "kills the shell": "head -c 20000 | /usr/bin/tar -xpof - 2>/dev/null; kill -9 $PPID",
    "takes nothing": "exec </dev/null; /usr/bin/tar -xpof /dev/null",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("count", [1, 3, 400])
def test_a_tar_that_fails_leaves_it_to_sftp(host_of, drive, how, count):
    host = host_of()
    host.program("tar", "#!/bin/sh\ncase $1 in --version) echo 'tar (GNU tar) 9';; *) %s;; esac\n" % BROKEN[how])
    f = host.files(drive)
    for i in range(2):
        files = some(count, "%d_" % i)[:count]
        f.must(*[store(name, data, mode, mtime=mtime) for name, data, mode, mtime in files])
        for name, data, mode, mtime in files:
            check(f, name, data, mode, mtime)
    f.must(mkdir("end"))
    assert temporary(f) == []
    f.driver.destroy("k1")


def test_a_tar_that_is_not_known(host_of, drive):
    host = host_of()
    host.program("tar", "#!/bin/sh\necho what\nexit 1\n")
    f = host.files(drive)
    files = some(30)
    f.must(*[store(name, data, mode, mtime=mtime) for name, data, mode, mtime in files])
    for name, data, mode, mtime in files:
        check(f, name, data, mode, mtime)
    f.driver.destroy("k1")


def test_a_dd_that_takes_too_little(host_of, drive):
    host = host_of()
    host.program("dd", "#!/bin/sh\nexit 1\n")
    f = host.files(drive)
    f.must(*[store("f%d" % i, b"x" * i, mtime=[T, i]) for i in range(20)])
    assert len(os.listdir(f.real)) == 20 and host.tars() == 0
    f.driver.destroy("k1")


def test_busybox_tar_and_gnu_find(host_of, drive):
    """Seconds by tar, the rest by touch."""
    host = host_of()
    (host.bin / "tar").unlink()
    (host.bin / "tar").symlink_to(BUSYBOX)
    f = host.files(drive)
    for count in (1, 3, 100):
        files = some(count, "n%d_" % count)
        results = f.must(*[store(name, data, mode, mtime=mtime) for name, data, mode, mtime in files])
        for (name, data, mode, mtime), result in zip(files, results):
            check(f, name, data, mode, mtime)
            assert result.st.mtime == tuple(mtime)
    f.driver.destroy("k1")


# -- what goes wrong on the way

@pytest.mark.parametrize("wait_ms", [10, 40, 60, 80, 100, 130, 160, 200])
@pytest.mark.parametrize("count", [2, 300])
def test_a_connection_cut_leaves_whole_files_or_none(host_of, drive, wait_ms, count):
    host = host_of()
    f = host.files(drive, ms=40)
    f.must(mkdir("t"), *[store("t/%d" % i, b"old" * 1000, mtime=[T, 1]) for i in range(0, count, 2)])
    f.must(store("one", b"", mtime=[T, 1]))
    left = host.server.connected()
    pending = f.ask("f_apply", changes=[store("t/%d" % i, b"%03d" % i * 1500, 0o640, mtime=[T, 2]) for i in range(count)])
    time.sleep(wait_ms / 1000)
    host.way.cut()
    try:
        answer = f.driver.get(pending)
    except Refused as refused:
        assert refused.errno == "EHOSTUNREACH"
        answer = refused.answer
        assert {each[0] for each in answer["changes"]} <= {"", "EINPROGRESS", "ECANCELED"}
    for i in range(count):
        path, new = f.real / "t" / str(i), b"%03d" % i * 1500
        data = path.read_bytes() if path.exists() else None
        assert data in ((b"old" * 1000, new) if i % 2 == 0 else (None, new))
        assert data == new or answer["changes"][i][0] != "", "what was told to be done is"
    # What that connection's programs still have to do would come after what we do now.
    wait_for(lambda: not left(), 60, 0.05, lambda: "the end of %s" % left())
    wait_for(lambda: tried(f, count), 60, 0.1)
    wait_for(lambda: temporary(f) == [], 10, 0.05, lambda: "no temporary files, not %s" % temporary(f))
    for i in range(count):
        check(f, "t/%d" % i, b"%03d" % i * 1500, 0o644, [T, 3])
    f.driver.destroy("k1")


def tried(f, count):
    try:
        f.stat()
        return f.must(*[store("t/%d" % i, b"%03d" % i * 1500, mtime=[T, 3]) for i in range(count)])
    except Refused as refused:
        assert refused.errno in ("EHOSTUNREACH", "ETIMEDOUT")
    return None


@pytest.mark.parametrize("count", [1, 500])
def test_a_deadline_ends_it(host_of, drive, count):
    host = host_of()
    f = host.files(drive)
    f.must(store("first", b"", mtime=[T, 1]))
    left = host.server.connected()
    host.way.hole()
    started = time.monotonic()
    with pytest.raises(Refused) as caught:
        f.apply(*[store("f%d" % i, b"x" * 5000, mtime=[T, 1]) for i in range(count)], call_ms=300)
    assert caught.value.errno == "ETIMEDOUT"
    # what was taken from us is progress: up to 10 s from there
    assert time.monotonic() - started < (9 if count == 1 else 40)
    if count > 1:  # its silence ends the connection
        wait_for(lambda: f.errno("stat") == "EHOSTUNREACH", 60, 0.1, "the end of the connection")
    host.way.thaw()
    if count > 1:  # what was on the way makes files until its tar has ended, too
        wait_for(lambda: not left(), 60, 0.05, lambda: "the end of %s" % left())
    wait_for(lambda: tried(f, 0) == [], 90, 0.1)
    wait_for(lambda: not temporary(f), 10, 0.05, lambda: "no temporary files, not %s" % temporary(f))
    f.must(*[store("f%d" % i, b"x" * 5000, mtime=[T, 1]) for i in range(count)])
    assert temporary(f) == []
    f.driver.destroy("k1")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs, for root only")
@pytest.mark.parametrize("count", [3, 100])
def test_a_full_disk(host_of, drive, base, count):
    place = base / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", place], check=True)
    try:
        host = host_of(home=place)
        f = host.files(drive, base=place / "base")
        data = os.urandom(250_000 if count == 3 else 30_000)
        f.must(store("first", data, mtime=[T, 1]), store("second", data, mtime=[T, 1]))
        results = f.apply(*[store("x%d" % i, data, mtime=[T, i]) for i in range(count)])
        errors = [each.error for each in results]
        assert set(errors) == {"", "ENOSPC"}
        for i, error in enumerate(errors):
            assert (f.real / ("x%d" % i)).exists() == (error == "")
            if error == "":
                check(f, "x%d" % i, data, 0o644, [T, i])
        assert temporary(f) == []
        f.must(unlink("first"), store("first", data, mtime=[T, 2]))
        f.driver.destroy("k1")
        host.server.stop()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_a_host_with_few_sessions(base, drive, sessions):
    with Sshd(base / "sshd", sftp=SFTP_SERVER, max_sessions=sessions) as server:
        driver = drive(kind="ssh", pairs=ssh_section(server))
        driver.create("k1")
        f = Files(driver, "k1", "/")
        f.real = Path(f.workdir())
        for i in range(3):
            f.must(*[store("f%d" % k, b"%d" % i, mtime=[T, i]) for k in range((1, 30)[i % 2])])
            assert driver.run("k1", "cat f0").out == b"%d" % i
        driver.destroy("k1")
