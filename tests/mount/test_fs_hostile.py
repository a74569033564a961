# SPDX-License-Identifier: Apache-2.0
"""A hostile process inside against host tools on fs/ (DESIGN section 5).

support/hostile.c changes what paths mean all the time. Meanwhile processes on the host walk, read
and write through fs/, following every link, as any careless tool does. Nothing outside of fs/ may
appear or change, and no call may block. Canaries with secrets lie where a wrong step leads to.
"""

import errno
import os
import random
import stat
import time
from pathlib import Path

import pytest

from support import kinds
from support.mounts import ROOT
from support.tools import run, wait_for
from support.trees import describe
from test_fs_promises import in_processes

pytestmark = pytest.mark.kinds(*(name for name in kinds.ALL if name != "ssh"))  # whose sandbox is the account

SECONDS = int(os.environ.get("SBXFS_TEST_HOSTILE_SECONDS", "20"))
LONGEST = 20.0  # seconds a call may take, on a machine that is very busy: what blocks, blocks for good
SECRET = b"SECRET of the host"
STRANGE = {errno.EIO, errno.ENOTCONN, errno.EPROTO, errno.EFAULT, errno.EBADF}
TREES = ("s_swap", "s_exchange", "s_exchange_link", "s_mid", "s_deep", "s_moved", "s_cwd", "s_links",
         "s_n", "s_swap_away", "s_b", "s_loop")
BELOW = ("s_d0", "s_d1", "s_d0/s_d0", "s_d0/s_d0/s_d0", "s_d1/s_moved", "s_n", "s_d0_away", "s_a",
         "s_a/s_b", ".", "s_updir")  # a `..` of the host's own, behind a link to fs/, leads to the box
LEAVES = ("s_f0", "s_f1", "s_up", "s_new", "s_l0", "s_l3", "s_d0", "s_hardlink", "passwd", "hostname",
          "s_secret")
WRITTEN = ("s_f0", "s_f1", "s_new", "s_c0", "s_c1", "s_c2", "s_secret")
TOP_WRITTEN = ("s_kind", "s_kind_socket", "s_kind_link", "s_file", "s_hard", "s_c0", "s_c1", "s_c2")
TOP = ("s_kind", "s_kind_socket", "s_kind_link", "s_file", "s_hard", "s_l0", "s_l1", "s_l2", "s_l3",
       "s_l4", "s_c0", "s_c1")


class Visitor:
    """A host tool on fs/: each of its calls is timed, and what it sees is judged."""

    def __init__(self, top, seed, forbidden, planted, strange):
        self.top = top
        self.strange = strange
        self.planted = planted
        self.dice = random.Random(seed)
        self.device = os.stat(top).st_dev
        self.forbidden = forbidden
        self.end = time.monotonic() + SECONDS
        self.good = self.refused = 0

    def call(self, function, *args, **kwargs):
        started = time.monotonic()
        try:
            value = function(*args, **kwargs)
            self.good += 1
            return value
        except OSError as error:
            self.refused += 1
            assert error.errno not in self.strange, "%s%r: %s" % (function.__name__, args, error)
            return None
        finally:
            took = time.monotonic() - started
            assert took < LONGEST, "%s%r took %.1f s" % (function.__name__, args, took)

    def written_path(self):
        """Only what ends at a file, or in a canary: were a path to lead out, the host must not be
        harmed by it (a chmod of /etc, say)."""
        if self.dice.random() < 0.2:
            return os.path.join(self.top, self.dice.choice(TOP_WRITTEN))
        return os.path.join(self.top, self.dice.choice(TREES), self.dice.choice(BELOW),
                            self.dice.choice(WRITTEN))

    def path(self):
        if self.dice.random() < 0.15:
            return os.path.join(self.top, self.dice.choice(TOP))
        return os.path.join(self.top, self.dice.choice(TREES), self.dice.choice(BELOW),
                            self.dice.choice(LEAVES))

    def judge_names(self, path, names):
        strange = [n for n in names or () if not n.startswith("s_") and n not in self.planted]
        assert not strange, "%s lists what is outside: %r" % (path, strange[:20])

    def judge_info(self, path, info):
        if info is not None:
            assert info.st_dev == self.device, "%s leads to another file system" % path
            assert info.st_ino not in self.forbidden, "%s leads to %s" % (
                path, self.forbidden[info.st_ino])

    def read(self, path):
        descriptor = self.call(os.open, path, os.O_RDONLY | os.O_NONBLOCK)
        if descriptor is None:
            return
        try:
            info = self.call(os.fstat, descriptor)
            self.judge_info(path, info)
            if info is None:
                return
            if stat.S_ISREG(info.st_mode):
                data = self.call(os.read, descriptor, 65_536)
                data = (data or b"").lstrip(b"\0")  # what truncate made longer
                assert not data or data.startswith(b"inside"), "%s shows %r" % (path, data[:100])
            elif stat.S_ISDIR(info.st_mode):
                self.judge_names(path, self.call(os.listdir, descriptor))
        finally:
            os.close(descriptor)

    # -- the tools

    def reader(self):
        while time.monotonic() < self.end:
            path = self.path()
            self.judge_info(path, self.call(os.stat, path))
            self.call(os.lstat, path)
            self.call(os.readlink, path)
            self.read(path)
            self.judge_names(path, self.call(os.listdir, os.path.dirname(path)))

    def walker(self):
        def walk(path, depth):
            names = self.call(os.listdir, path)
            self.judge_names(path, names)
            self.dice.shuffle(names or [])
            for name in names or ():
                if time.monotonic() > self.end:
                    return
                if name == "hostile":
                    continue
                below = os.path.join(path, name)
                info = self.call(os.stat, below)
                self.judge_info(below, info)
                if info is not None and stat.S_ISDIR(info.st_mode) and depth < 7:
                    walk(below, depth + 1)
                elif info is not None:
                    self.read(below)
        while time.monotonic() < self.end:
            walk(self.top, 0)

    def descriptors(self):
        """Relative to directory handles, as rm, git and find work."""
        while time.monotonic() < self.end:
            directory = self.call(os.open, os.path.dirname(self.path()),
                                  os.O_RDONLY | os.O_DIRECTORY)
            if directory is None:
                continue
            try:
                for name in ("s_f0", "s_d0/s_f0", "s_d0", "..", "../..", "s_up", "s_updir/s_f0"):
                    info = self.call(os.stat, name, dir_fd=directory)
                    if not name.startswith(".."):  # the host's own `..` may lead to the box
                        self.judge_info(name, info)
                self.judge_names("a directory handle", self.call(os.listdir, directory))
            finally:
                os.close(directory)

    def writer(self):
        """Every change there is, with names and bytes that give it away outside."""
        def write(path, flags):
            descriptor = self.call(os.open, path, flags | os.O_NONBLOCK, 0o666)
            if descriptor is not None:
                try:
                    info = self.call(os.fstat, descriptor)
                    self.judge_info(path, info)
                    if info is not None and stat.S_ISREG(info.st_mode):
                        self.call(os.write, descriptor, b"inside, written by the host\n")
                finally:
                    self.call(os.close, descriptor)  # which may tell that it can't be delivered
        changes = (
            lambda p: write(p, os.O_WRONLY | os.O_CREAT),
            lambda p: write(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            lambda p: write(p, os.O_RDWR | os.O_APPEND),
            lambda p: write(os.path.dirname(p) + "/s_new", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
            lambda p: self.call(os.unlink, p),
            lambda p: self.call(os.mkdir, os.path.dirname(p) + "/s_made"),
            lambda p: self.call(os.rmdir, os.path.dirname(p) + "/s_made"),
            lambda p: self.call(os.rename, p, self.written_path()),
            lambda p: self.call(os.chmod, p, self.dice.choice((0o777, 0o755, 0o700))),
            lambda p: self.call(os.utime, p, (1, 1)),
            lambda p: self.call(os.truncate, p, 7),
            lambda p: self.call(os.symlink, "s_f0", os.path.dirname(p) + "/s_new"),
            lambda p: self.call(os.link, p, os.path.dirname(p) + "/s_new"),
            lambda p: self.call(os.mkfifo, os.path.dirname(p) + "/s_new"),
            lambda p: self.call(os.chown, p, os.geteuid(), os.getegid()),
        )
        while time.monotonic() < self.end:
            self.dice.choice(changes)(self.written_path())


def plant(directory):
    """A tree with secrets and with every name that the hostile process and the writer use."""
    for base in (directory, directory / "s_d0", directory / "s_d0/s_d0", directory / "s_a"):
        base.mkdir()
        for name in ("s_f0", "s_f1", "s_secret", "s_up", "passwd", "ctl"):
            (base / name).write_bytes(SECRET)
    return describe(directory)


@pytest.fixture
def hostile(scratch):
    """The compiled program."""
    program = scratch / "hostile"
    run(["gcc", "-O2", "-static", "-D_GNU_SOURCE", "-o", program,
         ROOT / "tests/support/hostile.c"])
    return program


@pytest.mark.mount_only
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_hostile_process_leads_nobody_out_of_fs(new_box, hostile, base, kind):
    # The kernel itself says EIO of an inode that has become another kind, which a cache can see late.
    check_hostile(new_box(), hostile, base, STRANGE if kind is kinds.LOCAL else STRANGE - {errno.EIO})


def check_hostile(box, hostile, base, strange=frozenset(STRANGE)):
    places = [base / "canary"]
    forbidden = {}
    mount = getattr(box, "mount", None)
    if mount:
        places += [mount.base / ("canary-" + box.name)]
        for path in [mount.path, box.dir] + [box.dir / n for n in os.listdir(box.dir) if n != "fs"]:
            forbidden[os.lstat(path).st_ino] = str(path)
    if os.geteuid() == 0:
        places += [Path("/etc/sbxfs-canary-%d" % os.getpid())]
    before = {}
    try:
        for place in places:
            before[place] = plant(place)
        listed = {p: set(os.listdir(p)) for p in {"/", "/etc", "/tmp"} | {p.parent for p in places}
                  if os.access(p, os.R_OK)}
        outside = [str(p) for p in places]
        outside += ["../" * n + p.name for p in places for n in range(1, 8)]
        outside += ["../" * n + "state" for n in range(1, 8)]
        outside += [str(Path(p) / "s_f0") for p in places]

        with open(hostile, "rb") as file:
            (box.fs / "hostile").write_bytes(file.read())
        os.chmod(box.fs / "hostile", 0o755)
        number = box.start("exec ./hostile . " + " ".join(outside))
        # What stands in fs/ by these names is inside: an open with O_CREAT through a link to
        # ../../../state, which leads to fs/state, makes a file there.
        planted = {"hostile", "state"} | {p.name for p in places}
        wait_for(lambda: (box.fs / "s_links").exists() and (box.fs / "s_cwd").exists(), 60,
                 what=lambda: "the hostile process to start: %s" % os.listdir(box.fs))
        visitors = [Visitor(str(box.fs), seed, forbidden, planted, strange) for seed in range(5)]
        tools = [visitors[0].reader, visitors[1].walker, visitors[2].descriptors,
                 visitors[3].writer, visitors[4].writer]
        if mount:
            tools.append(lambda: keep_asking(box))
        in_processes(tools, SECONDS + 3 * LONGEST)
        assert box.is_running(number), "the hostile process has ended too early"
        box.kill(number)
        if mount:
            box.wait(number, 60)
    finally:
        after = {place: describe(place) for place in before}
        for place in places:
            run(["rm", "-rf", place])
    for place in places:
        assert after[place] == before[place], "%s was changed" % place
    for directory, names in listed.items():
        new = set(os.listdir(directory)) - names
        assert not {n for n in new if n.startswith("s_")}, "%s has new names: %r" % (directory, new)


def keep_asking(box):
    """Control files stay fast while all this goes on."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        started = time.monotonic()
        assert box.state == "running"
        os.listdir(box.dir)
        assert time.monotonic() - started < LONGEST
        time.sleep(0.05)


@pytest.mark.mount_only
def test_fifo_planted_inside_blocks_nobody(new_box):
    """A FIFO that looked like a file a moment ago; and whoever opens what is there never waits."""
    box = new_box()
    (box.fs / "f").write_text("inside")
    os.stat(box.fs / "f")
    box.ok("rm f; mkfifo f")
    started = time.monotonic()
    try:
        os.close(os.open(box.fs / "f", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        pass
    assert stat.S_ISFIFO(os.stat(box.fs / "f").st_mode)
    run(["timeout", "30", "ls", "-l", box.fs])
    run(["timeout", "30", "grep", "-r", "-D", "skip", "inside", box.fs], check=False)
    assert time.monotonic() - started < LONGEST


def keep_following(path, end, idle):
    """Whoever follows the link must never reach what is outside."""
    if idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while time.monotonic() < end:
        try:
            os.stat(path)
        except OSError:
            continue
        raise AssertionError("%s leads out of fs/" % path)


def keep_moving(here, there, end, idle):
    if idle:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while time.monotonic() < end:
        for old, new in ((here, there), (there, here)):
            try:
                os.rename(old, new)
            except OSError as error:  # EXDEV: somebody may still be on the way up
                assert error.errno in (errno.EXDEV, errno.ENOENT), error
            time.sleep(0.001)


def keep_busy(end):
    while time.monotonic() < end:
        pass


@pytest.mark.mount_only
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("starved", ["mover", "followers"])
@pytest.mark.parametrize("what", ["link", "directory"])
def test_links_moved_through_the_mount_lead_nobody_out(new_box, what, starved):
    """Host tools move a link, or its directory, to other depths while others follow it.

    The kernel counts `..` from where it believes the link to be, however long it takes to carry out
    a rename, or to walk where a link led: here one side gets next to no processor time.
    """
    box = new_box()
    os.makedirs(box.fs / "a/b/c")
    canary = box.mount.base / ("canary-" + box.name)
    canary.write_bytes(SECRET)
    here, there = box.fs / "d", box.fs / "a/b/c/d"
    if what == "link":  # from fs/ three up is the directory above the mount
        os.symlink("../../../" + canary.name, here)
        paths = [here, there]
    else:
        here.mkdir()
        os.symlink("../../../../" + canary.name, here / "l")
        paths = [here / "l", there / "l"]
    end = time.monotonic() + 6
    idle = starved == "followers"
    work = [lambda p=p: keep_following(p, end, idle) for p in paths * 2]
    work += [lambda: keep_moving(here, there, end, not idle)]
    work += [lambda: keep_busy(end)] * 4
    try:
        in_processes(work, 200)  # the starved ones need long to end, too
    finally:
        canary.unlink()


@pytest.mark.mount_only
def test_link_checked_at_one_depth_is_not_used_at_another(new_box):
    """mv inside takes a directory with a checked link up: the text has to be anchored anew."""
    box = new_box()
    box.ok("mkdir -p a/b/c; ln -s ../../../f a/b/c/l; echo inside >f")
    for _ in range(20):
        assert (box.fs / "a/b/c/l").read_text() == "inside\n"
        box.ok("mv a/b/c c")
        text = os.readlink(box.fs / "c/l")
        assert os.path.normpath(os.path.join("c", text)) == "f"
        assert (box.fs / "c/l").read_text() == "inside\n"
        box.ok("mv c a/b/c")


@pytest.mark.mount_only
def test_directory_handle_kept_over_a_move_does_not_reach_outside(new_box, base):
    """A host tool sits in a directory that is moved and replaced by a link meanwhile."""
    box = new_box()
    before = plant(base / "canary")
    for n in range(30):
        box.ok("mkdir -p d/s_d0; echo inside >d/s_f0")
        directory = os.open(box.fs / "d", os.O_RDONLY | os.O_DIRECTORY)
        os.stat("s_d0", dir_fd=directory)
        box.ok("rm -rf e; mv d e; ln -s %s d" % (base / "canary" if n % 2 else "../../canary"))
        for name in ("s_f0", "s_secret", "s_d0/s_f0"):
            try:
                descriptor = os.open(name, os.O_RDWR, dir_fd=directory)
            except OSError as error:
                assert error.errno in (errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP)
                continue
            assert os.read(descriptor, 100) == b"inside\n"
            os.close(descriptor)
        try:
            os.close(os.open("s_new", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        except OSError:
            pass
        os.close(directory)
        box.ok("rm d")
    assert describe(base / "canary") == before
