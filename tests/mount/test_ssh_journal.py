# SPDX-License-Identifier: Apache-2.0
"""The journal at its limits, over a far way: no room left here for its records, and one large file."""

import errno
import hashlib
import os
import random
import time

import pytest

from support.far import Far, same_trees, wait_clean
from support.tools import run, small_disk, wait_for

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def far(base, fresh_mount):
    made = Far(base, fresh_mount, 40)
    yield made
    made.stop()


# -- a full local disk

def fill_up(path):
    """Take all the room that a file system has."""
    with open(path, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def attempts(top, turn):
    """(what it does, what is there if it was done and not before) of each change of one turn."""
    def write(name):
        descriptor = os.open(top / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(descriptor, b"content")
        finally:
            os.close(descriptor)
    return [(lambda: os.mkdir(top / ("made%d" % turn)), "made%d" % turn),
            (lambda: os.rename(top / ("old%d" % turn), top / ("new%d" % turn)), "new%d" % turn),
            (lambda: os.symlink("old", top / ("link%d" % turn)), "link%d" % turn),
            (lambda: os.unlink(top / ("gone%d" % turn)), "-gone%d" % turn),
            (lambda: write("file%d" % turn), "file%d" % turn)]


def test_full_local_disk_is_enospc_and_nothing_is_half_done(far):
    """Each change is done or refused; what was done is sent; with room again all goes on."""
    mount = far.mount(start=False)
    with small_disk(mount.state, "8m"):
        mount.start()
        box = mount.create("web")
        for turn in range(60):
            (box.fs / ("old%d" % turn)).write_text("old")
            (box.fs / ("gone%d" % turn)).write_text("gone")
        wait_clean(box)
        refused = 0
        for turn in range(60):
            fill_up(mount.state / "ballast")  # what was cached there has made room
            for call, name in attempts(box.fs, turn):
                try:
                    call()
                    is_done = True
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
                    is_done = False
                refused += not is_done
                if name[0] == "-":
                    assert os.path.lexists(box.fs / name[1:]) != is_done
                elif is_done or not name.startswith("file"):  # that one may be there, but empty
                    assert os.path.lexists(box.fs / name) == is_done, name
        assert refused > 50, "the disk was not full: %d refused" % refused
        assert mount.is_alive()
        wait_clean(box)
        same_trees(box, box.backing)
        os.unlink(mount.state / "ballast")
        for call, name in attempts(box.fs, 1000):
            if "file" in name or "made" in name or "link" in name:
                call()
        wait_clean(box)
        same_trees(box, box.backing)
        assert box.ok("cat file1000") == b"content"
        mount.restart()
        same_trees(mount.box("web"), mount.box("web").backing)
        mount.stop()


def test_copies_of_files_make_room_on_a_small_disk(far):
    """What the sandbox has, too, costs nobody an error."""
    mount = far.mount(start=False)
    with small_disk(mount.state, "12m"):
        mount.start()
        box = mount.create("web")
        bytes_8m = random.Random(2).randbytes(8 << 20)
        for name in ("one", "two", "three"):
            (box.fs / name).write_bytes(bytes_8m)
            fsync(box.fs / name)
        for name in ("inside", "inside2"):
            (box.backing / name).write_bytes(bytes_8m)
        box.ok("true")  # from now on they are seen
        for name in ("inside", "one", "inside2", "two", "three"):
            assert (box.fs / name).read_bytes() == bytes_8m
            assert int(box.ok("wc -c < " + name)) == len(bytes_8m)
        os.unlink(box.fs / "two")
        os.mkdir(box.fs / "dir")
        wait_clean(box)
        same_trees(box, box.backing)
        mount.stop()


# -- one large file

SIZE = 192 << 20
MEMORY = 128 << 20  # resident, whatever the size of the file


def memory_of(mount):
    """The most resident bytes that sbxfs has had so far."""
    with open("/proc/%d/status" % mount.process.pid) as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))


def write_large(path):
    """Written, not yet sent; its sha256."""
    dice, digest = random.Random(1), hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for _ in range(SIZE >> 20):
            piece = dice.randbytes(1 << 20)
            digest.update(piece)
            assert file.write(piece) == len(piece)
    return digest.hexdigest()


def sha256_of(path):
    return run(["sha256sum", path], timeout=120).out.split()[0]


def fsync(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_large_file_is_sent_in_bounded_memory(far):
    """As long as bytes move, who waits for it isn't told that the time is over."""
    mount = far.mount()
    box = mount.create("web")
    before = memory_of(mount)
    digest = write_large(box.fs / "large")
    began = time.monotonic()
    fsync(box.fs / "large")
    print("%d MiB, sent %.1f s after they were written; memory %d MiB, before %d" % (
        SIZE >> 20, time.monotonic() - began, memory_of(mount) >> 20, before >> 20))
    assert sha256_of(box.backing / "large") == digest
    assert memory_of(mount) < MEMORY


def test_kill_9_in_the_middle_of_a_large_file(far):
    mount = far.mount()
    box = mount.create("web")
    backing = box.backing
    start = far.way.count()[0]
    digest = write_large(box.fs / "large")
    wait_for(lambda: far.way.count()[0] > start + SIZE // 3, 120, 0.01, "a third to be sent")
    mount.kill9()
    there = os.listdir(backing)
    mount.start()
    box = mount.box("web")
    wait_clean(box, 120)
    assert sha256_of(backing / "large") == digest == sha256_of(box.fs / "large")
    assert there in ([], ["large"]) and os.listdir(backing) == ["large"]
