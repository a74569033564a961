# SPDX-License-Identifier: Apache-2.0
"""The tree of control files: what is there, in which order, with which modes, sizes and times."""

import os
import re
import stat
import subprocess
import sys
import threading
import time

import pytest

from support.control import BOX_FILES, TASK_FILES, error_of, same_for
from support.mounts import mount_entries
from support.tools import run, wait_for

MODES = {"README": 0o400, "ctl": 0o600, "status": 0o400, "stdin": 0o200, "stdout": 0o400,
         "stderr": 0o400, "error": 0o400, "env": 0o200, "exit": 0o400, "output": 0o400}
UNLISTED = ("wait", "wait.1", "follow", "status.json")


def in_order(path):
    """Names as readdir gives them."""
    with os.scandir(path) as entries:
        return [entry.name for entry in entries]


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def control_files(box):
    """Every control file of the mount's root and of the sandbox that can be read; one exec has run."""
    root = box.mount.path
    paths = [root / "README", root / "ctl", root / "status"]
    paths += [box.dir / n for n in BOX_FILES + list(UNLISTED) if n not in ("stdin", "env")]
    for name in os.listdir(box.dir / "exec"):
        if name != "last":
            paths += [box.dir / "exec" / name / n for n in TASK_FILES + list(UNLISTED)
                      if n != "stdin"]
    return paths


def wait_calm(mount):
    """The root's files change until what an earlier test destroyed is gone."""
    status = mount.path / "status"
    wait_for(lambda: not {b"destroying", b"gone"} & set(mount.read(status).split()), 60,
             what=lambda: mount.read(status).decode())


# -- names

def test_root_lists_ctl_first_and_nothing_else(mount, box):
    names = in_order(mount.path)
    assert names[0] == "ctl"
    assert {"README", "ctl", "status", box.name} <= set(names)
    assert all(re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", n) for n in names)
    assert len(names) == len(set(names))


def test_sandbox_lists_ctl_first_and_all_its_entries(box):
    names = in_order(box.dir)
    assert names[0] == "ctl"
    assert sorted(names) == sorted(BOX_FILES + ["fs", "exec"])


def test_exec_directory_lists_its_files(box):
    box.ok("true")
    assert sorted(in_order(box.dir / "exec")) == ["1", "last"]
    assert sorted(in_order(box.dir / "exec" / "1")) == sorted(TASK_FILES)
    assert os.readlink(box.dir / "exec" / "last") == "1"


def test_kinds_modes_and_owner(mount, box):
    box.ok("true")
    me = (os.geteuid(), os.getegid())
    root = os.lstat(mount.path)
    assert stat.S_ISDIR(root.st_mode) and mode(mount.path) == 0o700
    assert (root.st_uid, root.st_gid) == me
    for name in ("README", "ctl", "status"):
        assert mode(mount.path / name) == MODES[name], name
    for directory in (box.dir, box.fs, box.dir / "exec", box.dir / "exec" / "1"):
        assert stat.S_ISDIR(os.lstat(directory).st_mode)
    for name in BOX_FILES:
        info = os.lstat(box.dir / name)
        assert stat.S_ISREG(info.st_mode) and mode(box.dir / name) == MODES[name], name
        assert (info.st_uid, info.st_gid) == me
    for name in TASK_FILES:
        if name != "cmd":
            assert mode(box.dir / "exec" / "1" / name) == MODES[name], name
    assert stat.S_ISLNK(os.lstat(box.dir / "exec" / "last").st_mode)


def test_unlisted_files_open_but_are_never_listed(box):
    box.ok("true")
    for directory in (box.dir, box.dir / "exec" / "1", box.dir / "exec" / "last"):
        for name in UNLISTED + ("wait.0", "wait.30"):
            with open(directory / name, "rb") as file:
                file.read()
            assert name not in os.listdir(directory)
    for name in ("wait.", "wait.x", "wait.-1", "waitx", "follow.1", "status.jso", "wait.1e3"):
        assert not os.path.lexists(box.dir / name), name


def test_no_unsent_while_nothing_is_refused(box):
    assert not os.path.lexists(box.dir / "unsent")


def test_readme_is_an_agents_way_in(mount):
    text = (mount.path / "README").read_text()
    for word in ("create", "exec", "kill", "destroy", "pause", "resume", "stop", "wait", "wait.",
                 "follow", "status.json", "stdout"):
        assert word in text, word
    assert len(text) < 16384
    assert text == (mount.path / "README").read_text()


@pytest.mark.parametrize("name", [
    ".git", ".Trash", ".Trash-1000", "autorun.inf", ".hidden", "-x", "a-", "a.", "_a", "a b", "ä",
    "events", "providers", "templates", "by-id", "help", "wait", "follow", "x" * 64, "nothing-here"])
def test_names_that_are_not_there_are_enoent(mount, name):
    assert error_of(os.lstat, mount.path / name) == "ENOENT"
    assert error_of(os.open, mount.path / name, os.O_RDONLY) == "ENOENT"


def test_names_beyond_what_the_kernel_takes(mount):
    assert error_of(os.lstat, mount.path / ("x" * 300)) in ("ENOENT", "ENAMETOOLONG")


@pytest.mark.parametrize("name", [
    "events", "providers", "templates", "by-id", "help", "wait", "follow", "-x", "a-", "_a", "a b",
    "x" * 64, ".git"])
def test_reserved_and_impossible_names_are_not_made(mount, name):
    before = mount.sandboxes()
    assert error_of(os.mkdir, mount.path / name) in ("EINVAL", "EPERM", "EEXIST", "ENAMETOOLONG")
    assert mount.sandboxes() == before


@pytest.mark.parametrize("name", ["ctl", "status", "README"])
def test_control_files_are_not_names_for_sandboxes(mount, name):
    assert error_of(os.mkdir, mount.path / name) == "EEXIST"


def test_longest_and_oddest_names_that_are_allowed(mount):
    for name in ("a", "Z9", "x" * 63, "a.b_c-d", "0"):
        box = mount.create(name)
        try:
            assert box.ok("echo hi") == b"hi\n"
        finally:
            box.destroy()


def test_nothing_else_is_made_beside_control_files(mount, box):
    for where in (box.dir, box.dir / "exec"):
        assert error_of(os.symlink, "x", where / "link") in ("EPERM", "EOPNOTSUPP", "ENOSYS")
        assert error_of(os.link, box.dir / "ctl", where / "hard") in (
            "EPERM", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EACCES")
        assert error_of(os.mkfifo, where / "fifo") in ("EPERM", "EOPNOTSUPP", "ENOSYS")
    assert error_of(os.mkdir, box.dir / "sub") in ("EPERM", "EACCES")
    assert error_of(os.symlink, "x", mount.path / "link") in ("EPERM", "EOPNOTSUPP", "ENOSYS")
    for name in ("fs", "exec"):
        assert error_of(os.rmdir, box.dir / name) in ("EPERM", "EACCES", "EBUSY", "ENOTEMPTY")
        assert error_of(os.rename, box.dir / name, box.dir / "other") in (
            "EPERM", "EACCES", "EBUSY", "EINVAL", "EXDEV")
    assert sorted(os.listdir(box.dir)) == sorted(BOX_FILES + ["fs", "exec"])


# -- access

def test_env_and_stdin_are_never_readable_not_even_by_root(box):
    number = box.start("cat", stdin="open")
    (box.dir / "env").write_text("TOKEN=s3cret-of-env\n")
    for path in (box.dir / "env", box.dir / "stdin", box.dir / "exec" / number / "stdin"):
        for flags in (os.O_RDONLY, os.O_RDWR):
            assert error_of(os.open, path, flags) in ("EACCES", "EPERM"), path
        assert os.stat(path).st_size == 0
    box.ctl("eof %s" % number)
    box.wait(number)


def test_what_is_for_reading_is_not_writable_not_even_by_root(mount, box):
    box.ok("true")
    paths = [mount.path / "README", mount.path / "status"]
    paths += [box.dir / n for n in ("status", "error", "stdout", "stderr", "wait", "follow")]
    paths += [box.dir / "exec/1" / n for n in ("status", "exit", "stdout", "stderr", "output")]
    for path in paths:
        for flags in (os.O_WRONLY, os.O_RDWR):
            assert error_of(os.open, path, flags) in ("EACCES", "EPERM", "EROFS"), (path, flags)


def test_mount_is_nosuid_and_nodev_and_names_its_type(mount):
    with open("/proc/self/mountinfo") as file:
        line = next(each for each in file if " %s " % mount.path in each)
    options = line.split()[5].split(",")
    assert "nosuid" in options and "nodev" in options
    assert line.split(" - ")[1].split()[0] == "fuse.sbxfs"
    assert [kind for _, point, kind in mount_entries() if point == str(mount.path)] == ["fuse.sbxfs"]


# -- sizes

def test_size_is_what_a_reader_gets(box):
    wait_calm(box.mount)
    box.ok("echo out; echo err >&2; printf unterminated")
    for path in control_files(box):
        size = os.stat(path).st_size
        with open(path, "rb", buffering=0) as file:
            assert os.fstat(file.fileno()).st_size == size, path
            data = file.read()
            assert len(data) == size, path
            assert os.fstat(file.fileno()).st_size == size, path
            assert file.seek(0) == 0 and file.read() == data, path
        assert os.lstat(path).st_size == size, path


CHECK_SIZES = """
import os, sys, time
end = time.monotonic() + float(sys.argv[1])
rounds = 0
while time.monotonic() < end or rounds <= 50:
    for path in sys.argv[2:]:
        began = time.monotonic()
        size = os.stat(path).st_size
        with open(path, "rb", buffering=0) as file:
            if time.monotonic() - began > 0.1:
                continue  # we were held up for so long: it is no longer one look, for which the size is frozen
            held = os.fstat(file.fileno()).st_size
            data = b""
            while part := file.read(4096):
                data += part
        grows = path.endswith(("out", "err", "output"))
        if not (len(data) >= held >= size if grows else len(data) == size == held):
            sys.exit("%s: stat %d, fstat %d, read %d; %f" % (path, size, held, len(data), time.monotonic() - began))
        rounds += 1
print(rounds)
"""


def test_sizes_hold_for_several_readers_while_everything_changes(box):
    """stat, then read: each process sees one and the same length although status moves on."""
    number = box.start("while :; do echo line; sleep 0.001; done")
    paths = [str(box.dir / n) for n in ("status", "status.json", "ctl", "error", "stdout")]
    paths += [str(box.mount.path / "status"), str(box.dir / "exec" / number / "status")]
    readers = [subprocess.Popen([sys.executable, "-c", CHECK_SIZES, "4"] + paths,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        box.ctl("label n=%f" % time.monotonic())
        if int(box.status()["execs_running"]) < 20:  # more than 32 are refused
            box.start("echo x")
        time.sleep(0.02)
    for reader in readers:
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err.decode()
        assert int(out) > 50
    box.ctl("kill -9 %s" % number)


def test_own_writes_are_seen_at_once_in_spite_of_the_frozen_size(box):
    """A process that looked at ctl, wrote to it, and looks again sees its command."""
    for n in range(20):
        os.stat(box.dir / "ctl")
        os.stat(box.dir / "status")
        box.ctl("label n=%d" % n)
        assert b"label n=%d" % n in box.read("ctl")
        assert os.stat(box.dir / "ctl").st_size == len(box.read("ctl"))


def test_ends_are_seen_at_once_in_spite_of_the_frozen_size(box):
    for n in range(20):
        number = box.start("echo %d; exit %d" % (n, n))
        os.stat(box.dir / "status")
        os.stat(box.dir / "exec" / number / "exit")
        assert box.read("exec/%s/wait" % number) == b"exit %d\n" % n
        assert os.stat(box.dir / "exec" / number / "exit").st_size == len("%d\n" % n)
        assert box.status()["exit"] == str(n)
        assert box.read("stdout") == b"%d\n" % n


def test_open_handle_keeps_its_bytes(box):
    """What a handle of status shows at first it shows to its end; a new open shows the news."""
    with open(box.dir / "status", "rb", buffering=0) as file:
        before = file.read(10)
        box.ok("true")
        while part := file.read(10):
            before += part
    assert before.count(b"\n") == 25 and b"\nexec -\n" in before, before
    assert b"\nexec 1\n" in box.read("status")


# -- inodes and times

def test_inodes_are_distinct_and_stable(box):
    box.ok("true")
    paths = control_files(box) + [box.dir, box.fs, box.dir / "exec", box.dir / "exec/1",
                                  box.dir / "stdin", box.dir / "env", box.mount.path]
    first = [os.lstat(p).st_ino for p in paths]
    assert len(set(first)) == len(first)
    box.ok("true")
    assert [os.lstat(p).st_ino for p in paths] == first
    listed = {}
    for directory in (box.mount.path, box.dir, box.dir / "exec" / "1"):
        with os.scandir(directory) as entries:
            listed.update({entry.path: entry.inode() for entry in entries})
    for path, inode in listed.items():
        assert os.lstat(path).st_ino == inode, path


def test_inodes_are_stable_over_a_restart_and_a_rename(fresh_mount):
    mount = fresh_mount()
    box, other = mount.create("one"), mount.create("two")
    box.ok("echo hello > file")

    def inodes(name):
        top = mount.path / name
        names = ["ctl", "status", "stdout", "exec/1", "exec/1/exit", "fs/file", "fs", "."]
        return [os.lstat(top / n).st_ino for n in names]
    first, second = inodes("one"), os.lstat(other.dir).st_ino
    mount.restart()
    assert inodes("one") == first
    assert os.lstat(other.dir).st_ino == second
    os.rename(mount.path / "one", mount.path / "uno")
    assert inodes("uno") == first


def test_a_new_sandbox_of_the_same_name_has_other_inodes(mount):
    box = mount.create("again")
    first = os.lstat(box.dir / "ctl").st_ino
    os.rmdir(box.dir)
    box = mount.create("again")
    assert os.lstat(box.dir / "ctl").st_ino != first
    box.destroy()


def test_times_are_of_the_last_change_never_now(mount, box):
    wait_calm(mount)
    started = time.time()
    box.ok("echo x")
    ended = time.time()
    for path in control_files(box) + [box.dir / "env", box.dir / "stdin", box.dir, mount.path]:
        assert same_for(0.1, lambda: os.stat(path).st_mtime_ns), path
        assert os.stat(path).st_mtime <= ended + 0.01, path
    for name in ("stdout", "exit", "output"):
        when = os.stat(box.dir / "exec" / "1" / name).st_mtime
        assert started - 0.01 <= when <= ended + 0.01, name
    before = os.stat(box.dir / "status").st_mtime_ns
    box.ok("true")
    assert os.stat(box.dir / "status").st_mtime_ns > before


def test_readers_do_not_change_times(box):
    wait_calm(box.mount)
    box.ok("true")
    paths = control_files(box)
    before = [os.stat(p).st_mtime_ns for p in paths]
    for path in paths:
        with open(path, "rb") as file:
            file.read()
    assert [os.stat(p).st_mtime_ns for p in paths] == before


def test_walking_tools_end(mount, box):
    box.ok("echo x > f; mkdir d; ln -s f d/l")
    for tool in ("ls -lR .", "find . -printf '%p %s %T@\\n'", "du -a .", "find . -type f -size +0",
                 "ls -la --time-style=full-iso */exec/last/"):
        run(tool, cwd=mount.path, timeout=60)


def test_parallel_listing_while_sandboxes_come_and_go(mount):
    stop, problems = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                names = in_order(mount.path)
                if names[0] != "ctl" or len(names) != len(set(names)):
                    problems.append(names)
                for name in names:
                    try:
                        os.lstat(mount.path / name)
                    except FileNotFoundError:
                        pass
            except Exception as error:  # noqa: reported below
                problems.append(error)
    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for n in range(15):
            mount.create("come%d" % n, wait=False)
        for n in range(15):
            mount.box("come%d" % n).destroy()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not problems, problems[:3]
