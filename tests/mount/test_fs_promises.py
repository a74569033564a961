# SPDX-License-Identifier: Apache-2.0
"""Promises 1 to 3 of consistency: exec sees writes, reads see exec, and close to open.

The loop of test_no_stale_read_... is the main test: several clients in several sandboxes write
through fs/, run a command that looks and then changes things, learn of its end in each of the ways
there are, and look again through fs/. --rounds=N sets their number in all, --seed=N the dice.
"""

import itertools
import mmap
import multiprocessing
import os
import random
import time
import traceback

import pytest

from support import kinds
from support.tools import Failed, wait_for

pytestmark = pytest.mark.kinds(*kinds.ALL)

ROUNDS = 6_000
BOXES = 3
CLIENTS = 2  # of each sandbox


class Client:
    """One client's files in one sandbox, and the kinds of rounds that it does with them."""

    def __init__(self, box, directory, seed):
        self.box = box
        self.name = directory
        self.top = box.fs / directory
        self.dice = random.Random(seed)
        self.top.mkdir()
        self.held = []
        for n in range(4):
            (self.top / ("f%d" % n)).write_bytes(b"")
            self.held.append(os.open(self.top / ("f%d" % n), os.O_RDWR))
        self.ways = itertools.cycle(("wait", "exit", "follow", "wait"))
        self.rounds = (self.whole_file, self.held_handle, self.grow_and_shrink, self.names,
                       self.mapping, self.append, self.attributes, self.rename_over)

    def text(self, big=True):
        """Bytes that were never before in any file."""
        line = b"%016x\n" % self.dice.getrandbits(64)
        return line * self.dice.choice((1, 1, 2, 300, 4000) if big else (1, 2))

    def exec(self, command):
        number = self.box.start("cd %s && { %s; }" % (self.name, command))
        self.box.wait_by(number, next(self.ways))
        result = self.box.result(number)
        assert result.exit == "0", result
        return result.stdout

    def path(self, n):
        return self.top / ("f%d" % n)

    def any(self):
        return self.dice.randrange(4)

    def run(self, rounds):
        for n in range(rounds):
            kind = self.dice.choice(self.rounds)
            try:
                kind()
            except BaseException as error:
                raise Failed("round %d of %s, %s: %s" % (n, self.name, kind.__name__, error))
        for descriptor in self.held:
            os.close(descriptor)

    # -- the rounds

    def whole_file(self):
        n, mine, theirs = self.any(), self.text(), self.text(False)
        self.path(n).write_bytes(mine)
        out = self.exec("cat f%d; printf '%%s' '%s' >f%d" % (n, theirs.decode(), n))
        same(out, mine, "stdout of cat")
        same(self.path(n).read_bytes(), theirs, "the file")
        same(os.pread(self.held[n], 1 << 20, 0), theirs, "the handle")
        same(os.stat(self.path(n)).st_size, len(theirs), "st_size")

    def held_handle(self):
        """In place, by a handle that stays open; the command changes some bytes in the middle."""
        n, mine, theirs = self.any(), self.text() * 2, self.text(False)[:16]
        os.ftruncate(self.held[n], 0)
        os.pwrite(self.held[n], mine, 0)
        out = self.exec("cat f%d; printf %s | dd of=f%d bs=1 seek=9 conv=notrunc 2>/dev/null" % (
            n, theirs.decode(), n))
        same(out, mine, "stdout of cat")
        expected = mine[:9] + theirs + mine[25:]
        same(os.pread(self.held[n], 1 << 20, 0), expected, "the handle")
        same(self.path(n).read_bytes(), expected, "the file")

    def grow_and_shrink(self):
        n, mine = self.any(), self.text()
        self.path(n).write_bytes(mine)
        size = self.dice.choice((0, 1, 5000, 100_000))
        out = self.exec("wc -c <f%d; truncate -s %d f%d" % (n, size, n))
        same(int(out), len(mine), "wc -c")
        same(os.fstat(self.held[n]).st_size, size, "fstat")
        same(os.pread(self.held[n], 1 << 20, 0), (mine + bytes(size))[:size], "the handle")

    def names(self):
        """Made, listed and removed by either side; a name known not to be there can appear."""
        new = "new%d" % self.dice.randrange(10**9)
        (self.top / (new + "-mine")).write_bytes(b"x")
        (self.top / (new + "-old")).write_bytes(b"y")
        (self.top / (new + "-old")).unlink()
        assert not (self.top / (new + "-theirs")).exists()
        before = set(os.listdir(self.top))
        out = self.exec("ls; mkdir %s-dir; echo made >%s-theirs; rm %s-mine" % ((new,) * 3))
        same(set(out.decode().split()), before, "ls inside")
        same((self.top / (new + "-theirs")).read_bytes(), b"made\n", "the new file")
        assert not (self.top / (new + "-mine")).exists(), "a removed name is still there"
        same(set(os.listdir(self.top)), before - {new + "-mine"} | {new + "-dir", new + "-theirs"},
             "the listing")
        (self.top / (new + "-dir")).rmdir()
        (self.top / (new + "-theirs")).unlink()

    def mapping(self):
        n, mine, theirs = self.any(), self.text(), self.text(False)[:16]
        self.path(n).write_bytes(bytes(len(mine)))
        with mmap.mmap(self.held[n], len(mine)) as area:
            area[:] = mine
            area.flush()
            out = self.exec("cat f%d; printf %s | dd of=f%d conv=notrunc 2>/dev/null" % (
                n, theirs.decode(), n))
            same(out, mine, "stdout of cat")
            same(area[:], theirs + mine[16:], "the mapping")
        same(self.path(n).read_bytes(), theirs + mine[16:], "the file")

    def append(self):
        n, first, mine, theirs = self.any(), self.text(), self.text(False), self.text(False)
        self.path(n).write_bytes(first)
        with open(self.path(n), "ab", buffering=0) as file:
            file.write(mine)
            out = self.exec("cat f%d; printf '%%s' '%s' >>f%d" % (n, theirs.decode(), n))
            same(out, first + mine, "stdout of cat")
            file.write(mine)
        same(self.path(n).read_bytes(), first + mine + theirs + mine, "the file")

    def attributes(self):
        n, mode, theirs = self.any(), self.dice.choice((0o600, 0o644, 0o755)), \
            self.dice.choice((0o640, 0o700))
        when, later = self.dice.randrange(10**9), self.dice.randrange(10**9)
        os.chmod(self.path(n), mode)
        os.utime(self.path(n), (when, when))
        out = self.exec("stat -c '%%a %%Y' f%d; chmod %o f%d; touch -d @%d f%d" % (
            n, theirs, n, later, n))
        same(out.decode().split(), ["%o" % mode, "%d" % when], "stat inside")
        info = os.stat(self.path(n))
        same(info.st_mode & 0o7777, theirs, "the mode")
        same(info.st_mtime_ns, later * 10**9, "the time")

    def rename_over(self):
        """Both sides save by temp file and rename; old handles keep what they had."""
        n, mine, theirs = self.any(), self.text(), self.text(False)
        (self.top / "temp").write_bytes(mine)
        os.rename(self.top / "temp", self.path(n))
        with open(self.path(n), "rb", buffering=0) as old:
            out = self.exec("cat f%d; printf '%%s' '%s' >temp2; mv temp2 f%d" % (
                n, theirs.decode(), n))
            same(out, mine, "stdout of cat")
            same(self.path(n).read_bytes(), theirs, "the file")
            same(old.read(), mine, "the handle of what was replaced")
        os.close(self.held[n])
        self.held[n] = os.open(self.path(n), os.O_RDWR)


def same(found, expected, what):
    if found != expected:
        raise AssertionError("stale: %s is %.200r (%s), expected %.200r (%s)" % (
            what, found, size_of(found), expected, size_of(expected)))


def size_of(value):
    return len(value) if hasattr(value, "__len__") else "-"


def in_processes(work, timeout):
    """Run the functions each in a process of its own; the first failure is raised here."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def body(function):
        try:
            function()
            answers.put(None)
        except BaseException:
            answers.put(traceback.format_exc())
    running = [context.Process(target=body, args=(function,), daemon=True) for function in work]
    for process in running:
        process.start()
    try:
        deadline = time.monotonic() + timeout
        for _ in running:
            wait_for(lambda: not answers.empty() or all(not p.is_alive() for p in running),
                     deadline - time.monotonic(), 0.02, "the clients to end")
            if answers.empty():
                raise Failed("a client has ended without a word: %s" % [p.exitcode for p in running])
            problem = answers.get()
            if problem:
                raise Failed(problem)
    finally:
        for process in running:
            process.kill()
            process.join(5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_stale_read_in_rounds_of_write_exec_read(new_box, request, kind):
    rounds = request.config.getoption("--rounds") or kind.scaled(ROUNDS)
    seed = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print("seed %d" % seed)
    each = rounds // (BOXES * CLIENTS) + 1
    boxes = [new_box() for _ in range(BOXES)]
    in_processes([lambda box=box, n=n, at=at: Client(
        box, "client%d" % n, seed * 100 + at * CLIENTS + n).run(each)
        for at, box in enumerate(boxes) for n in range(CLIENTS)], 1700)


def test_exec_sees_a_write_of_another_process(new_box):
    """The order is that of calls on this machine, whoever makes them."""
    box = new_box()
    for n in range(50):
        pid = os.fork()
        if pid == 0:
            with open(box.fs / "f", "w") as file:
                file.write("round %d" % n)
            os._exit(0)
        os.waitpid(pid, 0)
        assert box.ok("cat f") == b"round %d" % n


def test_exec_sees_a_write_whose_handle_is_still_open(new_box):
    box = new_box()
    with open(box.fs / "f", "wb", buffering=0) as file:
        for n in range(50):
            file.write(b"%d\n" % n)
            assert box.ok("tail -n1 f") == b"%d\n" % n


def test_second_exec_sees_what_the_first_did(new_box):
    box = new_box()
    box.ok("echo 0 >f")
    for n in range(30):
        assert box.ok("cat f; echo %d >f" % (n + 1)) == b"%d\n" % n


def test_many_files_made_inside_are_all_there(new_box):
    box = new_box()
    for turn in range(5):
        box.ok("mkdir d%d; i=0; while [ $i -lt 500 ]; do echo $i >d%d/$i; i=$((i+1)); done" % (
            turn, turn))
        names = os.listdir(box.fs / ("d%d" % turn))
        assert len(names) == 500
        assert all((box.fs / ("d%d" % turn) / name).read_text() == name + "\n" for name in names)
        box.ok("rm -r d%d" % turn)
        assert os.listdir(box.fs) == []


def test_directory_times_follow_what_a_command_did(new_box):
    """Python's imports, make and git go by them. What we have changed just before is no excuse."""
    box = new_box()
    (box.fs / "d").mkdir()
    for n in range(5):
        (box.fs / "d" / "mine").write_text(str(n))
        (box.fs / "d" / "mine").unlink()
        before = os.stat(box.fs / "d").st_mtime_ns
        time.sleep(0.02)
        box.ok("touch d/theirs%d" % n)
        assert os.stat(box.fs / "d").st_mtime_ns > before
        (box.fs / "d" / "mine").write_text("")
        box.ok("touch -d @%d d" % (1000 + n))
        assert os.stat(box.fs / "d").st_mtime_ns == (1000 + n) * 10**9


# -- promise 3

def test_change_inside_is_seen_by_a_later_open(new_box):
    """A command that goes on running writes the time into a file; no open reads an old one.

    What is old is judged by the files themselves behind fs/: the command may stand still for long.
    """
    box = new_box()
    behind = getattr(box, "backing", box.fs)
    were = {"now": [], "in-place": []}  # (when it was seen behind fs/, the time that it told)
    number = box.start("while :; do date +%s.%N >new; mv new now; date +%s.%N >in-place; "
                       "sleep 0.05; done")
    wait_for(lambda: (box.fs / "in-place").exists(), 60)
    try:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            for name in ("now", "in-place"):
                text = (behind / name).read_text()
                if text:
                    were[name].append((time.monotonic(), float(text)))
                opened = time.monotonic()
                text = (box.fs / name).read_text()
                if not text and name == "in-place":
                    continue  # truncated, but not written yet
                past = max((told for when, told in were[name] if when < opened - 1.1), default=0)
                assert float(text) >= past, "%s is older than a second by %.2f s" % (
                    name, past - float(text))
            time.sleep(0.013)
    finally:
        box.kill(number)


def test_new_and_removed_names_are_seen_after_a_second(new_box):
    """As above, by names: what was seen behind fs/ a second ago is listed. The last names are
    there, so that one that goes while a listing is made is not the only one."""
    box = new_box()
    behind = getattr(box, "backing", box.fs)
    were, seen = [], []  # (when it was seen behind fs/, the newest name); the newest through fs/
    number = box.start("i=0; while :; do i=$((i+1)); touch t$i; rm -f t$((i-20)); sleep 0.1; done")

    def newest(names):
        return max((int(n[1:]) for n in names if n.startswith("t")), default=0)
    try:
        end = time.monotonic() + 60  # the command may stand still for long
        while len(seen) < 25 or (seen[-1] - seen[0] <= 5 and time.monotonic() < end):
            now = newest(os.listdir(behind))
            were.append((time.monotonic(), now))
            opened = time.monotonic()
            names = os.listdir(box.fs)
            seen.append(newest(names))
            past = max((name for when, name in were if when < opened - 1.1), default=0)
            assert seen[-1] >= past, "t%d is listed, but t%d was there a second ago" % (seen[-1], past)
            for name in names:
                try:
                    os.stat(box.fs / name)
                except FileNotFoundError:
                    pass
            time.sleep(0.1)
        assert seen == sorted(seen) and seen[-1] - seen[0] > 5
    finally:
        box.kill(number)


def test_read_never_mixes_two_versions_of_a_replaced_file(new_box, kind):
    """Each version is one letter, its length told by the letter; replaced by rename inside."""
    box = new_box()
    number = box.start(
        "make() { head -c $2 /dev/zero | tr '\\0' $1 >new; mv new f; }; "
        "while :; do make a 10; make b 70000; make c 4096; make d 200000; done")
    sizes = {b"a": 10, b"b": 70_000, b"c": 4096, b"d": 200_000}
    wait_for(lambda: (box.fs / "f").exists(), 60)
    seen = set()
    wanted = 4 if kind is kinds.LOCAL else 2  # elsewhere there is one look a second
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + (6 if len(seen) >= wanted else 60):
            with open(box.fs / "f", "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                data = b"".join(iter(lambda: file.read(65_536), b""))
            letter = data[:1]
            assert data == letter * sizes.get(letter, -1), "mixed: %d bytes of %s" % (
                len(data), sorted(set(data)))
            assert size == len(data), "fstat said %d, but read gave %d" % (size, len(data))
            seen.add(letter)
        assert len(seen) >= wanted
    finally:
        box.kill(number)


def test_read_of_a_growing_file_is_a_prefix(new_box):
    """Old size with new content, or new size with an old page, would show zeros or a gap."""
    box = new_box()
    number = box.start("i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo line $i; done >>f")
    wait_for(lambda: (box.fs / "f").exists(), 60)
    with open(box.fs / "f", "rb", buffering=0) as held:
        while True:
            was_running = box.is_running(number)
            fresh = (box.fs / "f").read_bytes()
            size = os.fstat(held.fileno()).st_size
            by_handle = os.pread(held.fileno(), size, 0)
            for data in (fresh, by_handle):
                lines = data.split(b"\n")
                assert lines[:-1] == [b"line %d" % (n + 1) for n in range(len(lines) - 1)]
                assert (b"line %d" % len(lines)).startswith(lines[-1])
            if not was_running:
                break
            time.sleep(0.005)
        assert fresh.count(b"\n") == 40_000 and by_handle == fresh
