# SPDX-License-Identifier: Apache-2.0
"""When what was written reaches the sandbox, what happens to what it refuses, and what status says."""

import os
import shutil
import time

import pytest

from support import kinds
from support.control import error_of, error_text
from support.far import wait_clean
from support.tools import run, wait_for

pytestmark = [pytest.mark.kinds(*kinds.CACHED_ONES), pytest.mark.timeout(120)]


def dirty(box):
    status = box.status()
    return int(status["dirty_files"]), int(status["dirty_bytes"])


def test_written_files_are_sent_soon_by_themselves(box):
    backing = box.backing
    for n in range(20):
        (box.fs / ("f%d" % n)).write_text("content %d" % n)
    wait_for(lambda: len(os.listdir(backing)) == 20, 5, 0.01)
    wait_clean(box)
    assert dirty(box) == (0, 0)
    assert all((backing / ("f%d" % n)).read_text() == "content %d" % n for n in range(20))


def test_nothing_half_written_is_ever_seen_inside(box):
    """A file that is made anew is there whole or not at all; no temporary name is left."""
    backing = box.backing
    for n in range(30):
        letter = b"%c" % (97 + n % 26)
        with open(box.fs / "file", "wb", buffering=0) as file:
            for _ in range(10):
                file.write(letter * 20_000)
                if (backing / "file").exists():
                    data = (backing / "file").read_bytes()
                    assert data == data[:1] * 200_000, "%d bytes of %r" % (len(data), set(data))
    wait_clean(box)
    assert (backing / "file").read_bytes() == letter * 200_000
    assert os.listdir(backing) == ["file"]


def test_fsync_returns_when_the_sandbox_has_it(box):
    backing = box.backing
    for n in range(20):
        with open(box.fs / "file", "r+b" if n else "w+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"%05d" % n, 5 * n)
            os.fsync(file.fileno())
            assert (backing / "file").read_bytes() == b"".join(b"%05d" % m for m in range(n + 1))
    (box.fs / "d").mkdir()
    for n in range(5):
        (box.fs / "d" / str(n)).write_text(str(n))
    run(["sync", box.fs])
    assert sorted(os.listdir(backing / "d")) == list("01234")


def test_sync_in_ctl_starts_it(box):
    backing = box.backing
    (box.fs / "file").write_text("content")
    box.ctl("sync")
    wait_for(lambda: (backing / "file").exists() and (backing / "file").read_text() == "content", 3)


def test_mount_option_sync_sends_before_close_returns(fresh_mount, kind):
    mount = fresh_mount(options=("drain=1s", "sync"), kind=kind)
    box = mount.create("web")
    backing = box.backing
    for n in range(20):
        (box.fs / "file").write_text("content %d" % n)
        assert (backing / "file").read_text() == "content %d" % n


def test_temporary_file_never_crosses_the_wire(box):
    """Made, written and deleted within the delay: the sandbox's directory does not change."""
    backing = box.backing
    (box.fs / "kept").write_text("")
    wait_clean(box)
    before = os.stat(backing).st_mtime_ns
    for n in range(20):
        (box.fs / ("temp%d" % n)).write_text("x" * 1000)
        (box.fs / ("temp%d" % n)).unlink()
    wait_clean(box)
    if os.stat(backing).st_mtime_ns != before:  # a busy machine: some lived longer than the delay
        assert os.listdir(backing) == ["kept"]


def test_umount_drains(fresh_mount, kind):
    mount = fresh_mount(options=("drain=20s",), kind=kind)
    box = mount.create("web")
    backing = box.backing
    for n in range(100):
        (box.fs / ("f%d" % n)).write_text("content %d" % n)
    mount.umount()
    assert len(os.listdir(backing)) == 100
    assert (backing / "f99").read_text() == "content 99"
    mount.start()
    assert (mount.box("web").fs / "f5").read_text() == "content 5"


def test_kill_9_right_after_close_loses_nothing(fresh_mount, kind):
    mount = fresh_mount(kind=kind)
    box = mount.create("web")
    backing = box.backing
    expected = {}
    for turn in range(4):
        for n in range(10):
            (box.fs / ("f%d" % n)).write_text("turn %d, %d" % (turn, n) * 1000)
            expected["f%d" % n] = "turn %d, %d" % (turn, n) * 1000
        os.rename(box.fs / "f9", box.fs / ("moved%d" % turn))
        expected["moved%d" % turn] = expected.pop("f9")
        mount.kill9()
        mount.start()
        box = mount.box("web")
        wait_clean(box)
        assert {name: (backing / name).read_text() for name in os.listdir(backing)} == expected
        assert {name: (box.fs / name).read_text() for name in os.listdir(box.fs)} == expected


# -- what the sandbox refuses

@pytest.fixture
def refused(box):
    """A sandbox that has refused one file: its directory went away between the write and the close."""
    backing = box.backing
    (box.fs / "d").mkdir()
    (box.fs / "d/before").write_text("before")
    wait_clean(box)
    descriptor = os.open(box.fs / "d/file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"mine")
    shutil.rmtree(backing / "d")
    assert error_of(os.close, descriptor) in ("ENOENT", None)
    wait_for(lambda: dirty(box)[0] == 1, 10, 0.02, lambda: str(box.status()))
    return box


def test_refused_file_is_named_kept_and_holds_up_no_other(refused):
    wait_for(lambda: "d/file" in error_text(refused), 5, 0.05, lambda: error_text(refused))
    assert not error_text(refused).endswith((":", ": ")), "no reason: %r" % error_text(refused)
    assert error_of(os.rmdir, refused.dir) == "EBUSY"
    assert (refused.fs / "d/file").read_bytes() == b"mine"
    (refused.fs / "other").write_text("other")
    assert (refused.backing / "other").read_text() == "other"


def test_refused_file_is_sent_when_its_directory_is_there_again(refused):
    place = refused.backing
    (place / "d").mkdir()
    os.chown(place / "d", place.stat().st_uid, place.stat().st_gid)
    refused.ctl("sync")
    wait_clean(refused)
    assert refused.ok("cat d/file") == b"mine"


def test_refused_file_can_be_removed_and_commands_run_again(refused):
    assert refused.exec("true").exit.startswith("error")
    run(["rm", "-rf", refused.fs / "d"])
    wait_clean(refused)
    assert refused.ok("ls") == b""
    assert os.listdir(refused.fs) == []


# -- lifecycle

def test_stopped_and_started_sandbox_has_what_was_written(box):
    (box.fs / "before").write_text("before")
    box.ctl("stop")
    box.wait_state("stopped")
    box.ctl("start")
    box.wait_state("running")
    (box.fs / "after").write_text("after")
    assert box.ok("cat before after") == b"beforeafter"


def test_destroy_while_dirty_needs_the_word(box):
    """rmdir is refused while anything waits; destroy always works."""
    box.start("sleep 1000")
    assert error_of(os.rmdir, box.dir) == "EBUSY"
    (box.fs / "file").write_text("x")
    box.destroy()


def test_rename_of_a_sandbox_keeps_its_files(mount, box):
    (box.fs / "file").write_text("content")
    os.rename(box.dir, mount.path / (box.name + "x"))
    other = mount.box(box.name + "x")
    assert (other.fs / "file").read_text() == "content"
    (other.fs / "file").write_text("changed")
    assert other.ok("cat file") == b"changed"
    began = time.monotonic()
    other.destroy()
    assert time.monotonic() - began < 20
