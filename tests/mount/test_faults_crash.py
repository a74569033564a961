# SPDX-License-Identifier: Apache-2.0
"""sbxfs dies, is told to end, or finds another's leavings: nothing is lost, nothing hangs."""

import os
import random
import re
import signal
import stat
import subprocess
import threading
import time

import pytest

from support.control import error_of, exit_of, tasks, wait_output
from support.mounts import Mount, mount_entries, processes_of, sbxfs_path
from support.tools import end, run, small_disk, wait_for


def is_mounted(path):
    return any(point == str(path) for _, point, _ in mount_entries())


class Work(threading.Thread):
    """Makes sandboxes and execs until the mount dies; remembers what it was told."""

    def __init__(self, mount, seed):
        super().__init__(daemon=True)
        self.mount, self.dice = mount, random.Random(seed)
        self.boxes, self.started, self.ended, self.gone = set(), {}, {}, set()
        self.unsure = set()  # names that were being made or destroyed when it died

    def run(self):
        try:
            for n in range(1000):
                self.step(n)
        except (OSError, AssertionError):
            pass

    def step(self, n):
        choice = self.dice.random()
        if choice < 0.2 or not self.boxes:
            name = "b%d" % n
            self.unsure.add(name)
            os.mkdir(self.mount.path / name)
            self.boxes.add(name)
            self.unsure.discard(name)
            return
        box = self.mount.box(self.dice.choice(sorted(self.boxes)))
        if choice < 0.27 and len(self.boxes) > 2:
            self.unsure.add(box.name)
            self.boxes.discard(box.name)
            box.ctl("destroy")
            self.gone.add(box.name)
            self.unsure.discard(box.name)
        elif choice < 0.8:
            code = self.dice.randrange(1, 100)
            number = box.start("echo %d; exit %d" % (code, code))
            self.started[box.name, number] = code
        else:
            for (name, number), code in list(self.started.items())[-3:]:
                if name == box.name and exit_of(box, number):
                    self.ended[name, number] = (exit_of(box, number),
                                                box.read("exec/%s/stdout" % number))


@pytest.mark.timeout(900)
def test_kill_9_at_random_points(fresh_mount, request):
    seed = request.config.getoption("--seed") or random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    mount = fresh_mount(options=("drain=1s", "max-sandboxes=500"))
    for _ in range(6):
        work = Work(mount, dice.random())
        work.start()
        time.sleep(dice.uniform(0.05, 1.5))
        mount.expected_end = mount.dirty_end = True
        mount.process.kill()
        work.join(60)  # before the dead mount is detached: then it would make its directories below that
        assert not work.is_alive()
        mount.kill9()
        mount.start()
        names = set(mount.sandboxes())
        assert work.boxes <= names, "lost: %s" % (work.boxes - names)
        assert not work.gone & names, "back: %s" % (work.gone & names)
        for (name, number), (said, out) in work.ended.items():
            if name in work.boxes:
                box = mount.box(name)
                assert exit_of(box, number) == said, (name, number)
                assert box.read("exec/%s/stdout" % number) == out
        for (name, number), code in work.started.items():
            if name in work.boxes:
                box = mount.box(name)
                assert number in tasks(box), (name, number)
                said = box.wait(number, 120)  # so many are made at a time
                assert said in ("exit %d" % code, "lost") or said.startswith("error"), said
        for name in sorted(names):
            mount.box(name).wait_state(("running", "stopped"), 120)
        for name in sorted(names)[3:]:
            mount.box(name).destroy()
    mount.destroy_all()
    # One that was just being started, and that nobody has called, ends by itself.
    wait_for(lambda: {name for _, name in mount.left()} <= {"sbxfs"}, 120,
             what=lambda: str(mount.left()))


def test_files_survive_kill_9(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    (box.fs / "dir").mkdir()
    for n in range(50):
        (box.fs / "dir" / ("f%d" % n)).write_text("content %d" % n)
    mount.kill9()
    mount.start()
    assert [(box.fs / "dir" / ("f%d" % n)).read_text() for n in range(50)] == [
        "content %d" % n for n in range(50)]
    assert box.ok("ls dir | wc -l") == b"50\n"


def test_sandbox_goes_on_while_sbxfs_is_dead(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    box.start("i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.02; done")
    wait_for(lambda: (box.fs / "n").exists())
    mount.kill9()
    time.sleep(0.5)
    mount.start()
    box.wait_state("running")
    before = (box.fs / "n").read_text()
    wait_for(lambda: (box.fs / "n").read_text() not in ("", before), 10)
    box.ctl("kill -9")


def test_writers_and_waiters_get_an_error_when_it_dies(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    number = box.start("sleep 1000")
    reader = subprocess.Popen(["cat", str(box.dir / "exec" / number / "wait")],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.2)
    mount.process.kill()
    mount.expected_end = mount.dirty_end = True
    mount.process.wait(30)
    assert reader.wait(30) != 0
    reader.communicate()
    assert error_of(os.listdir, box.dir) == "ENOTCONN"


# -- a second mount

def test_second_mount_on_the_same_state_is_refused(fresh_mount):
    mount = fresh_mount()
    mount.create("web")
    other = mount.base / "other"
    other.mkdir()
    said = run([sbxfs_path(), "-f", "-o", "state=%s" % mount.state, other], check=False)
    assert said.code not in (0, -6, -11)
    assert str(mount.path) in said.err, "it names the first: %s" % said
    assert not is_mounted(other)
    assert mount.sandboxes() == ["web"] and mount.box("web").ok("echo on") == b"on\n"


def test_second_mount_on_another_state_works(fresh_mount):
    one, two = fresh_mount(), fresh_mount()
    one.create("web").ok("echo 1 > f")
    two.create("web").ok("echo 2 > f")
    assert (one.path / "web/fs/f").read_text() == "1\n"
    assert (two.path / "web/fs/f").read_text() == "2\n"
    one.box("web").destroy()
    assert two.box("web").ok("cat f") == b"2\n"


def test_the_lock_goes_with_the_process(fresh_mount):
    mount = fresh_mount()
    for _ in range(3):
        mount.kill9()
        mount.start()
    assert mount.sandboxes() == []


# -- ends

def blocked(box, number):
    """Readers that block, and files that are open."""
    readers = [subprocess.Popen(["cat", str(box.dir / "exec" / number / name)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for name in ("wait", "follow", "wait.100") for _ in range(5)]
    files = [open(box.fs / "open", "w"), open(box.dir / "status"), open(box.dir / "ctl", "w")]
    time.sleep(0.3)
    return readers, files


def release(readers, files):
    for process in readers:
        assert end(process, 30), "a reader is stuck"
    for file in files:
        error_of(file.close)


WAYS = ["SIGTERM", "SIGINT", "SIGHUP", "fusermount3 -uz"] + ["umount -l"] * (os.geteuid() == 0)


@pytest.mark.parametrize("how", WAYS)
def test_ends_within_a_second_with_blocked_readers(fresh_mount, how):
    mount = fresh_mount(options=("drain=90s",))
    box = mount.create("web")
    number = box.start("sleep 1000")
    readers, files = blocked(box, number)
    mount.expected_end = True
    began = time.monotonic()
    try:
        if how.startswith("SIG"):
            mount.process.send_signal(getattr(signal, how))
        else:
            run(how.split() + [mount.path])
        wait_for(lambda: not is_mounted(mount.path), 30, 0.005, "the unmount")
        took = time.monotonic() - began
        print("%s: %.0f ms" % (how, took * 1e3))
        assert took < 30  # it is far less, but for a machine that is very busy
        if how.startswith("SIG"):
            mount.wait_end(30)
            for process in readers:
                process.wait(30)
    finally:
        release(readers, files)
    mount.wait_end(40)
    mount.start()
    assert exit_of(box, number) == ""
    box.ctl("kill -9 %s" % number)
    assert box.wait(number) == "signal 9"


def test_exit_code_of_a_clean_end(fresh_mount):
    mount = fresh_mount()
    assert mount.terminate() == 0
    mount.start()
    mount.umount()
    assert mount.process.returncode == 0


def test_second_sigterm_ends_it_within_a_second(fresh_mount):
    mount = fresh_mount(options=("drain=90s", "on-unmount=destroy"))
    box = mount.create("web")
    box.start("trap '' TERM; while :; do sleep 0.1; done")
    mount.expected_end = mount.dirty_end = True
    mount.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not is_mounted(mount.path), 30, 0.005, "the unmount")  # it has seen the first: two are not one
    began = time.monotonic()
    mount.process.send_signal(signal.SIGTERM)
    mount.wait_end(30)
    assert time.monotonic() - began < 30


def test_plain_umount_is_busy_with_open_files(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    with open(box.fs / "f", "w"):
        command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        assert run(command + [mount.path], check=False).code != 0
    assert box.ok("echo on") == b"on\n"


def test_stopped_daemon_hangs_nobody_for_ever(fresh_mount):
    """SIGSTOP, then kill -9: whoever was in the mount gets an error."""
    mount = fresh_mount()
    box = mount.create("web")
    mount.process.send_signal(signal.SIGSTOP)
    reader = subprocess.Popen(["ls", "-l", str(box.dir)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    mount.kill9()
    reader.wait(30)
    mount.start()
    assert mount.sandboxes() == ["web"]


# -- leavings

def test_dead_predecessor_on_the_mount_point(fresh_mount):
    mount = fresh_mount()
    mount.create("web").ok("echo kept > f")
    for _ in range(2):
        mount.expected_end = mount.dirty_end = True
        mount.process.kill()
        mount.process.wait(30)
        assert error_of(os.listdir, mount.path / "web") == "ENOTCONN"
        mount.start()
        assert (mount.path / "web/fs/f").read_text() == "kept\n"
    assert len([1 for _, point, _ in mount_entries() if point == str(mount.path)]) == 1


def test_dead_predecessor_with_a_stuck_user(fresh_mount):
    """Someone still sits in the dead mount: its directory is a cwd, its files are open."""
    mount = fresh_mount()
    box = mount.create("web")
    holder = subprocess.Popen(["sleep", "1000"], cwd=box.fs)
    try:
        mount.expected_end = mount.dirty_end = True
        mount.process.kill()
        mount.process.wait(30)
        mount.start()
        assert box.ok("echo on") == b"on\n"
    finally:
        end(holder)


def test_state_directory_is_private(fresh_mount):
    mount = fresh_mount()
    mount.create("web").ok("echo x")
    for base, directories, files in os.walk(mount.state):
        for name in directories + files:
            path = os.path.join(base, name)
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue  # the name of a record that was being written
            mode = info.st_mode & 0o7777
            if stat.S_ISLNK(info.st_mode) or "/fs/" in path or "workspace" in path:
                continue
            if stat.S_ISDIR(info.st_mode):
                assert mode & 0o066 == 0, "%s: %o" % (path, mode)
            elif os.geteuid() != 0 or info.st_uid == 0:
                assert mode & 0o077 == 0, "%s: %o" % (path, mode)


def test_damaged_record_harms_only_itself(fresh_mount):
    mount = fresh_mount()
    for name in ("good", "bad"):
        mount.create(name).ok("echo %s > f" % name)
    mount.box("bad").ctl("stop")  # nobody could, later
    mount.box("bad").wait_state("stopped")
    mount.umount()
    victims = []
    for path in (mount.state / "sandboxes").iterdir():
        record = path / "record"
        if b"\nname bad\n" in record.read_bytes():  # its checksum may be bad, too
            victims.append(record)
            record.write_bytes(b"\0garbage" * 10)
    assert len(victims) == 1
    mount.start()
    assert mount.box("good").ok("cat f") == b"good\n"
    assert "bad" not in mount.sandboxes() or mount.box("bad").state in ("error", "unknown")
    aside = [p for p in (mount.state / "sandboxes").iterdir() if p.name.endswith(".damaged")]
    assert len(aside) == 1 and (aside[0] / "record").exists(), "kept aside, never deleted"


def test_full_disk_is_an_error_not_a_death(fresh_mount, base):
    """The state directory's file system has no room left."""
    mount = fresh_mount(options=("drain=30s",), start=False)
    with small_disk(mount.state, "4m"):
        mount.start()
        box = mount.create("web")
        error_of((box.fs / "big").write_bytes, b"x" * (8 << 20))
        said = [error_of(box.ctl, "exec echo %s" % ("x" * 1000)) for _ in range(3)]
        assert set(said) <= {None, "ENOSPC", "EIO"}, said
        assert mount.is_alive() and mount.sandboxes() == ["web"]
        os.unlink(box.fs / "big")
        assert wait_for(lambda: error_of(box.ctl, "exec echo again") is None, 10)
        box.destroy()
        mount.umount()
        wait_for(lambda: not processes_of(mount.state), 10)


def test_daemon_leaves_no_process_after_stop(fresh_mount):
    mount = fresh_mount(options=("drain=30s",))  # for which it goes on destroying
    mount.create("a").ok("sleep 1000 > /dev/null 2>&1 &")
    mount.create("b", wait=False)
    mount.destroy_all()
    mount.umount()
    wait_for(lambda: not processes_of(mount.base), 10, what=lambda: str(processes_of(mount.base)))


def test_log_has_no_content_and_no_failure(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    (box.fs / "f").write_text("content-of-a-file")
    box.ok("cat f; true")
    wait_output(box, "1", "content-of-a-file")
    mount.restart()
    assert "content-of-a-file" not in mount.log()
    assert not re.search("error|warning", mount.log(), re.I), mount.log()


def test_mount_object_is_used(base):
    """The fixture's own class refuses what ends before it mounts, with what it said."""
    mount = Mount(base / "m", options=("no-such-option-here",))
    with pytest.raises(AssertionError, match="no-such-option-here"):
        mount.start()
