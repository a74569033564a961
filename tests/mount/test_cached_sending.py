# SPDX-License-Identifier: Apache-2.0
"""When what was written reaches the sandbox, what happens to what it refuses, and what status says."""

import contextlib
import json
import os
import select
import shutil
import stat
import time

import pytest

from support import kinds
from support.control import error_of, error_text, results
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
    wait_for(lambda: (backing / "file").exists() and (backing / "file").read_text() == "content", 10)


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


def test_renamed_twice_while_somebody_writes(box):
    """What is being written is not sent: after the first rename the sandbox has it by no name.

    Only while the close before it still waits, which is 50 ms: where a busy machine takes longer from there to the
    rename, the sandbox's file is renamed, which is right, too. Then once more.
    """
    backing = box.backing
    rounds, was_nowhere = 0, False
    while not was_nowhere:
        rounds += 1
        assert rounds <= 12, "each time the sandbox had it by its second name"
        (box.fs / "first").write_text("old")
        wait_clean(box)
        (box.fs / "first").write_text("new")
        with open(box.fs / "first", "w") as file:
            file.write("newer")
            file.flush()
            os.rename(box.fs / "first", box.fs / "second")
            wait_for(lambda: "first" not in os.listdir(backing), 10, 0.02, lambda: os.listdir(backing))
            was_nowhere = os.listdir(backing) == []
            os.rename(box.fs / "second", box.fs / "third")
            (box.fs / "marker").write_text("")
            wait_for(lambda: "marker" in os.listdir(backing), 10, 0.02)
        wait_clean(box)
        assert error_text(box) == ""
        assert unsent(box) == []
        assert sorted(os.listdir(backing)) == ["marker", "third"]
        assert (backing / "third").read_text() == "newer"
        (box.fs / "third").unlink()
        (box.fs / "marker").unlink()
        wait_for(lambda: os.listdir(backing) == [], 10, 0.02, lambda: os.listdir(backing))


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

def unsent(box):
    """The lines of `unsent`, each as (path, reason); [] while there is no such file."""
    try:
        text = (box.dir / "unsent").read_text()
    except FileNotFoundError:
        return []
    return [tuple(line.split(": ", 1)) for line in text.splitlines()]


def wait_unsent(box, *paths):
    """A look at status can be 250 ms old."""
    wait_for(lambda: sorted(path for path, _ in unsent(box)) == sorted(paths) and
             box.status()["unsent"] == str(len(paths)), 10, 0.02,
             lambda: "%s: %s" % (unsent(box), box.status()))


def refuse(box, name="file", data=b"mine", directory="d"):
    """Have the sandbox refuse a file: its directory goes away between the write and the close."""
    backing = box.backing  # to find it may take a while
    (box.fs / directory).mkdir(exist_ok=True)
    wait_clean(box)
    descriptor = os.open(box.fs / directory / name, os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, data)
    shutil.rmtree(backing / directory)
    os.close(descriptor)


def bring_back(box, directory="d"):
    place = box.backing
    (place / directory).mkdir()
    os.chown(place / directory, place.stat().st_uid, place.stat().st_gid)


def result_of(box, line):
    """What ctl says about the last command of this text, once it is carried out."""
    def last():
        return [result for result in results(box.dir / "ctl") if result[3].startswith(line)][-1]
    wait_for(lambda: last()[1] != "pending", 60, 0.02, what=line)
    return last()[1]


@pytest.fixture
def refused(box):
    """A sandbox that has refused one file."""
    refuse(box)
    wait_unsent(box, "d/file")
    return box


def test_refused_file_is_named_kept_and_holds_up_no_other(refused):
    (path, reason), = unsent(refused)
    assert path == "d/file" and reason.startswith("No such file or directory"), reason
    assert refused.status()["unsent"] == "1" and dirty(refused) == (0, 0)
    assert json.loads((refused.dir / "status.json").read_text())["unsent"] == "1"
    wait_for(lambda: "d/file" in error_text(refused), 5, 0.05, lambda: error_text(refused))
    assert not error_text(refused).endswith((":", ": ")), "no reason: %r" % error_text(refused)
    assert (refused.fs / "d/file").read_bytes() == b"mine"
    (refused.fs / "other").write_text("other")
    wait_for(lambda: (refused.backing / "other").exists(), 5, 0.02)
    assert (refused.backing / "other").read_text() == "other"


def test_unsent_is_a_file_only_while_there_is_something(box):
    assert "unsent" not in os.listdir(box.dir) and not os.path.lexists(box.dir / "unsent")
    refuse(box)
    wait_unsent(box, "d/file")
    assert "unsent" in os.listdir(box.dir)
    there = os.stat(box.dir / "unsent")
    assert stat.S_IMODE(there.st_mode) == 0o400
    assert there.st_size == len((box.dir / "unsent").read_bytes())
    assert run(["rm", "-f", box.dir / "unsent"], check=False).code != 0, "and we are no tripwire"
    box.ctl("discard d/file")
    assert "unsent" not in os.listdir(box.dir) and not os.path.lexists(box.dir / "unsent")


def test_refusal_wakes_poll_and_raises_generation(box):
    with open(box.dir / "status", "rb", buffering=0) as file:
        generation = int(box.status()["generation"])
        file.read(100_000)
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        refuse(box)
        assert poll.poll(30_000)
        wait_for(lambda: box.status()["unsent"] == "1", 30)
    assert int(box.status()["generation"]) > generation


def test_command_ends_while_something_is_unsent(refused):
    result = refused.exec("touch ran")
    assert result.exit.startswith("error unsent d/file "), result.exit
    for word in ("retry", "discard", "unsent=ignore"):
        assert word in result.exit
    assert not (refused.backing / "ran").exists()
    assert refused.ok("echo there", unsent="ignore") == b"there\n"
    refused.ctl(json.dumps({"verb": "exec", "text": "exit 3", "name": "json", "unsent": "ignore"}))
    assert refused.wait("json") == "exit 3"
    refused.ctl("discard d/file")
    assert refused.ok("ls") == b""


def test_rmdir_is_refused_and_destroy_works(refused):
    assert error_of(os.rmdir, refused.dir) == "EBUSY"
    assert "unsent" in error_text(refused)
    refused.destroy()


def test_retry_sends_it_when_its_directory_is_there_again(refused):
    refused.ctl("retry")
    assert result_of(refused, "retry") == "error"
    assert "d/file" in error_text(refused)
    wait_unsent(refused, "d/file")
    bring_back(refused)
    refused.ctl("sync")
    assert result_of(refused, "sync") == "ok"
    assert not (refused.backing / "d/file").exists(), "sync is not retry"
    refused.ctl("retry")
    assert result_of(refused, "retry") == "ok"
    assert unsent(refused) == [] and dirty(refused) == (0, 0)
    assert refused.ok("cat d/file") == b"mine"


def test_command_behind_retry_sees_it(refused):
    bring_back(refused)
    refused.ctl("retry\nexec name=after cat d/file")
    assert refused.wait("after") == "exit 0"
    assert refused.read("exec/after/stdout") == b"mine"


@pytest.mark.parametrize("said", ["d/file", "fs/d/file", "'d/file'"])
def test_discard_gives_it_up(refused, said):
    refused.ctl("discard %s" % said)
    assert result_of(refused, "discard %s" % said) == "ok"
    assert unsent(refused) == [] and refused.status()["unsent"] == "0"
    wait_for(lambda: not os.path.lexists(refused.fs / "d/file"), 5, 0.1)
    assert refused.ok("ls") == b""
    os.rmdir(refused.dir)


def test_discard_of_what_is_not_unsent(refused):
    for path in ("d/fil", "d/file2", "d", "file", ".", "fs", "/d/file"):
        assert error_of(refused.ctl, "discard " + path) == "ENOENT", path
        assert path in error_text(refused)
    assert error_of(refused.ctl, "discard d/file\ndiscard nothing") == "ENOENT"
    assert len(unsent(refused)) == 1, "an error means that nothing of the write was done"


def test_paths_with_odd_bytes(box):
    names = [b"a b", b"line\nbreak", b"esc\x1b[31m", b"not\xffutf8", b"back\\slash", b"colon: x",
             "schön".encode(), b"-v", b"'quote"]
    (box.fs / "d").mkdir()
    wait_clean(box)
    files = []
    for name in names:
        files.append(os.open(bytes(box.fs) + b"/d/" + name, os.O_WRONLY | os.O_CREAT, 0o644))
        os.write(files[-1], name)
    shutil.rmtree(box.backing / "d")
    for file in files:
        os.close(file)
    # status counts them a moment before the file has their lines
    wait_for(lambda: len(unsent(box)) == len(names) and box.status()["unsent"] == str(len(names)), 10, 0.05,
             lambda: "%s: %s" % (unsent(box), box.status()))
    lines = (box.dir / "unsent").read_bytes().splitlines()
    assert len(lines) == len(names)
    assert all(byte >= 0x20 for line in lines for byte in line)
    shown = [line.rsplit(b": No such file", 1)[0] for line in lines]
    assert sorted(shown) == sorted(b"d/" + name for name in (
        b"a b", rb"line\x0abreak", rb"esc\x1b[31m", rb"not\xffutf8", rb"back\x5cslash", b"colon: x",
        "schön".encode(), b"-v", b"'quote"))
    assert box.exec("true").exit.startswith("error unsent d/")
    for path in shown:
        line = b"discard '" + path.replace(b"'", rb"'\''") + b"'\n"
        (box.dir / "ctl").write_bytes(line)
    assert unsent(box) == []
    assert box.ok("ls") == b""


def test_discard_by_the_bytes_themselves(box):
    refuse(box, "a\\b\tc")
    wait_unsent(box, "d/a\\x5cb\\x09c")
    box.ctl(json.dumps({"verb": "discard", "path": "fs/d/a\\b\tc"}))
    assert unsent(box) == []


def test_several_refusals_one_of_them_a_directory(box):
    """Each is named; one is discarded, the others are retried."""
    backing = box.backing
    for name in "def":
        (box.fs / name).mkdir()
    wait_clean(box)
    with open(box.fs / "d/one", "wb") as one, open(box.fs / "f/three", "wb") as three:
        one.write(b"1")
        three.write(b"3")
        for _ in range(12):
            os.mkdir(box.fs / "e/made")
            if error_of(os.rmdir, backing / "e") is None:
                break  # before it was sent, which is 50 ms later; else once more
            os.rmdir(box.fs / "e/made")
            wait_for(lambda: os.listdir(backing / "e") == [], 10, 0.02, lambda: os.listdir(backing / "e"))
        assert not (backing / "e").exists(), "each time it was sent at once"
        for name in "df":
            shutil.rmtree(backing / name)
    wait_unsent(box, "d/one", "e/made", "f/three")
    result = box.exec("true").exit
    assert result.startswith("error unsent ") and " and 2 more" in result, result
    box.ctl("discard d/one")
    bring_back(box, "e")
    bring_back(box, "f")
    box.ctl("retry")
    assert result_of(box, "retry") == "ok", (box.dir / "ctl").read_text()
    assert unsent(box) == []
    assert box.ok("cat f/three; ls -d e/made") == b"3e/made\n"


@pytest.mark.parametrize("how", ["umount", "kill9"])
def test_unsent_survives_an_unmount_and_a_crash(fresh_mount, kind, how):
    mount = fresh_mount(kind=kind)
    box = mount.create("web")
    refuse(box, "file", b"mine" * 50_000)
    wait_unsent(box, "d/file")
    before = unsent(box)
    getattr(mount, how)()
    mount.start()
    box = mount.box("web")
    assert unsent(box) == before and box.status()["unsent"] == "1"
    assert (box.fs / "d/file").read_bytes() == b"mine" * 50_000
    assert error_of(os.rmdir, box.dir) == "EBUSY"
    assert box.exec("true").exit.startswith("error unsent d/file ")
    bring_back(box)
    box.ctl("retry")
    assert result_of(box, "retry") == "ok"
    assert box.ok("wc -c <d/file").strip() == b"200000"
    mount.restart()
    assert unsent(mount.box("web")) == []


def test_refused_file_can_be_removed_and_commands_run_again(refused):
    run(["rm", "-rf", refused.fs / "d"])
    wait_for(lambda: unsent(refused) == [], 10, 0.05, lambda: str(unsent(refused)))
    assert refused.ok("ls") == b""
    assert os.listdir(refused.fs) == []


def test_refused_file_written_again_goes_with_the_next_close(refused):
    bring_back(refused)
    (refused.fs / "d/file").write_bytes(b"anew")
    assert refused.ok("cat d/file") == b"anew"
    assert unsent(refused) == []


def test_mount_option_sync_tells_the_writer(fresh_mount, kind):
    """With -o sync a refusal is the error of the close, and nothing is unsent without its writer's knowledge."""
    mount = fresh_mount(options=("drain=1s", "sync"), kind=kind)
    box = mount.create("web")
    (box.fs / "d").mkdir()
    assert (box.backing / "d").is_dir()
    os.symlink("x", box.fs / "link")
    assert os.readlink(box.backing / "link") == "x"
    descriptor = os.open(box.fs / "d/file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(descriptor, b"mine")
    shutil.rmtree(box.backing / "d")
    assert error_of(os.close, descriptor) == "ENOENT"
    os.rename(box.fs / "link", box.fs / "link2")
    os.unlink(box.fs / "link2")
    assert not os.path.lexists(box.backing / "link2")


# -- draining

@pytest.mark.needs("paused-files")
def test_what_was_not_drained_goes_with_the_next_mount(fresh_mount, kind):
    mount = fresh_mount(options=("drain=20s",), kind=kind)
    box = mount.create("web")
    backing = box.backing
    box.ctl("pause")
    box.wait_state("paused")
    (box.fs / "made").mkdir()
    (box.fs / "file").write_text("content")
    mount.umount()
    mount.start()
    box = mount.box("web")
    box.ctl("resume")
    box.wait_state("running")
    assert box.ok("cat file; ls -d made") == b"contentmade\n"
    assert (backing / "file").read_text() == "content"


def test_umount_right_after_a_name_drains_it(fresh_mount, kind):
    mount = fresh_mount(options=("drain=20s",), kind=kind)
    box = mount.create("web")
    backing = box.backing
    for n in range(50):
        (box.fs / ("d%d" % n)).mkdir()
    os.symlink("d1", box.fs / "link")
    os.rename(box.fs / "d2", box.fs / "moved")
    mount.umount()
    assert (backing / "d49").is_dir() and (backing / "moved").is_dir()
    assert os.readlink(backing / "link") == "d1"
    mount.start()


def test_sigterm_unmounts_and_drains(fresh_mount, kind):
    mount = fresh_mount(options=("drain=20s",), kind=kind)
    box = mount.create("web")
    backing = box.backing
    for n in range(100):
        (box.fs / ("f%d" % n)).write_text("content %d" % n)
    mount.terminate()
    assert len(os.listdir(backing)) == 100
    assert (backing / "f99").read_text() == "content 99"
    mount.start()


# -- lifecycle

@pytest.mark.needs("stop")
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


# -- conflicts: changed inside while ours waited

NEWS = "changed in the sandbox while our change waited; ours replaced it"


def change_inside(backing, name, data):
    """As a program in the sandbox, beside the mount."""
    owner = backing.stat()
    (backing / ".inside").write_bytes(data)
    os.chown(backing / ".inside", owner.st_uid, owner.st_gid)
    os.rename(backing / ".inside", backing / name)


def let_time_pass():
    """Until what was seen before is to be looked at again; less is two programs at the same time."""
    time.sleep(1.2)


def test_file_changed_inside_while_ours_waited_is_replaced_and_told(box):
    """The last close wins, `error` says so, and nobody ever sees a mixture."""
    before = b"before" * 1000
    expected = {"rewritten": b"our" * 1000, "patched": before[:300] + b"OUR" + before[303:]}
    for name, data in expected.items():
        (box.fs / name).write_bytes(before)
        wait_clean(box)
        with open(box.fs / name, "w+b" if name == "rewritten" else "r+b", buffering=0) as file:
            if name == "rewritten":
                file.write(data)
            else:
                assert file.read() == before
                os.pwrite(file.fileno(), b"OUR", 300)
            let_time_pass()
            change_inside(box.backing, name, b"inside" * 500)
            assert (box.fs / name).read_bytes() == data
            assert os.pread(file.fileno(), 10_000, 0) == data
            assert (box.backing / name).read_bytes() == b"inside" * 500
        wait_for(lambda: (box.backing / name).read_bytes() != b"inside" * 500, 20, 0.01)
        assert (box.backing / name).read_bytes() == data
        assert (box.fs / name).read_bytes() == data
        wait_for(lambda: error_text(box) == "fs/%s: %s" % (name, NEWS), 5, 0.05,
                 lambda: error_text(box))
        wait_for(lambda: box.status()["last_error"] == error_text(box), 5, 0.05)
    assert unsent(box) == []
    assert box.ok("cat rewritten") == expected["rewritten"]


def test_file_removed_inside_while_ours_waited_is_made_anew(box):
    (box.fs / "file").write_bytes(b"before")
    wait_clean(box)
    with open(box.fs / "file", "wb", buffering=0) as file:
        file.write(b"ours")
        let_time_pass()
        (box.backing / "file").unlink()
    wait_for(lambda: (box.backing / "file").exists(), 20, 0.02)
    assert (box.backing / "file").read_bytes() == b"ours"
    wait_for(lambda: "removed in the sandbox while our change waited" in error_text(box), 5, 0.05,
             lambda: error_text(box))


@pytest.mark.parametrize("verb", ("retry", "discard big"))
def test_parts_are_not_patched_into_another_version(box, verb):
    """What of a large file isn't here is gone: people decide."""
    size = 3_000_000
    box.ok("head -c %d /dev/zero | tr '\\0' a >big" % size)
    with open(box.fs / "big", "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"OUR", 1000)
        let_time_pass()
        change_inside(box.backing, "big", b"i" * size)
    wait_unsent(box, "big")
    (_, reason), = unsent(box)
    assert "changed in the sandbox meanwhile" in reason and "retry" in reason, reason
    assert (box.backing / "big").read_bytes() == b"i" * size
    with open(box.fs / "big", "rb", buffering=0) as file:
        assert error_of(os.pread, file.fileno(), 10, size // 2) == "ESTALE"
    box.ctl(verb)
    assert result_of(box, verb) == "ok"
    assert unsent(box) == []
    expected = b"i" * 1000 + (b"OUR" if verb == "retry" else b"iii") + b"i" * (size - 1003)
    assert (box.backing / "big").read_bytes() == expected
    assert box.ok("head -c 1003 big | tail -c 3") == expected[1000:1003]
    assert (box.fs / "big").read_bytes() == expected


def test_conflict_is_met_by_the_next_mount(fresh_mount, kind):
    mount = fresh_mount(options=("drain=1s",), kind=kind)
    box = mount.create("web")
    backing = box.backing
    (box.fs / "file").write_bytes(b"before")
    wait_clean(box)
    with open(box.fs / "file", "wb", buffering=0) as file:
        file.write(b"ours, which waits")
        mount.kill9()
        with contextlib.suppress(OSError):
            file.close()
    change_inside(backing, "file", b"changed inside")
    mount.start()
    box = mount.box("web")
    wait_clean(box)
    assert (backing / "file").read_bytes() == b"ours, which waits"
    wait_for(lambda: error_text(box) == "fs/file: " + NEWS, 5, 0.05, lambda: error_text(box))
