# SPDX-License-Identifier: Apache-2.0
"""What tools/bench's parts share: running, timing, where things lie, and the inputs of workloads."""

import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20


class Trouble(Exception):
    """What ends the run, in a sentence."""


def run(argv, timeout=300, **kwargs):
    """A tool to its end, its output dropped; Trouble if it fails."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=timeout, check=False, **kwargs)
    if done.returncode:
        raise Trouble("%s: exit %d: %s" % (" ".join(map(str, argv)), done.returncode, done.stderr.decode()[-500:]))


def timed(function, *args):
    """(seconds, result) of a call."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def wait_until(is_true, what, limit=30):
    end = time.monotonic() + limit
    while not is_true():
        if time.monotonic() > end:
            raise Trouble("%s: not within %d s" % (what, limit))
        time.sleep(0.01)


def drop_caches():
    if os.geteuid() == 0:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def end(process, grace):
    """Wait for the end of a process; kill it, and all of its session, after `grace` seconds."""
    if process is None:
        return
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        pass
    for pid in session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait(5)


def session(leader):
    """The processes of a session, zombies left out."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        stat = process_stat(pid)
        if stat and int(stat[3]) == leader and stat[0] not in "ZX":
            found.append(int(pid))
    return found


def process_stat(pid):
    """/proc/PID/stat from the state on; None if there is no such process."""
    try:
        text = Path("/proc/%s/stat" % pid).read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2:].split()


def unmount(point):
    """Unmount, by force if it must be; the mount point is free afterwards."""
    if not os.path.ismount(point):
        return
    for argv in (["fusermount3", "-u"], ["umount"], ["fusermount3", "-uz"], ["umount", "-l"]):
        subprocess.run([*argv, str(point)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30,
                       check=False)
        if not os.path.ismount(point):
            return
    raise Trouble("%s can't be unmounted" % point)


# -- sbxfs

class Sbxfs:
    """fs/ of one sandbox: of the local provider, or of what `options` for the mount say."""

    name = "sbxfs"

    def __init__(self, base, program, options=()):
        self.program, self.base, self.options = program, base, options
        self.state, self.point = base / "state", base / "sandboxes"
        self.process = None
        self.box = self.point / "bench"
        self.dir = self.box / "fs"

    def start(self):
        self.point.mkdir()
        self._start()
        self.box.mkdir()
        self._running()

    def _start(self):
        with open(self.base / "sbxfs.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-f", "-o", ",".join(["state=%s" % self.state, "drain=5s", *self.options]), self.point],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

        def is_there():
            if self.process.poll() is not None:
                raise Trouble("sbxfs ended: " + (self.base / "sbxfs.log").read_text()[-1000:])
            return os.path.ismount(self.point)
        wait_until(is_there, "a mount by sbxfs")

    def _running(self):
        def is_running():
            state = re.search(r"^state (\S+)", (self.box / "status").read_text(), re.M)[1]
            if state == "error":
                raise Trouble("the sandbox: " + (self.box / "error").read_text())
            return state == "running"
        wait_until(is_running, "a running sandbox")

    def fresh(self):
        unmount(self.point)
        self.process.wait(30)
        drop_caches()
        self._start()
        self._running()

    def exec(self, text):
        """Run a command; returns once its end was seen."""
        ctl = os.open(self.box / "ctl", os.O_WRONLY)
        try:
            os.write(ctl, b"exec " + text.encode() + b"\n")
        finally:
            os.close(ctl)
        with open(self.box / "wait", "rb", buffering=0) as wait:
            said = wait.read(100)
        if said != b"exit 0\n":
            raise Trouble("exec %s: %r" % (text, said))

    def stop(self):
        try:
            if self.process and self.process.poll() is None and os.path.ismount(self.point):
                (self.box / "ctl").write_text("destroy\n")
                wait_until(lambda: not self.box.exists() and " destroying " not in (self.point / "status").read_text(),
                           "the sandbox to be gone", 15)
        finally:
            unmount(self.point)
            end(self.process, 30)


# -- what several workloads do

def write_file(path, size):
    block = random.Random(1).randbytes(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(block)


def read_file(path):
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


def read_randomly(path, count):
    places = random.Random(2)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        blocks = os.fstat(file.fileno()).st_size // 4096
        for _ in range(count):
            os.pread(file.fileno(), 4096, places.randrange(blocks) * 4096)


def create_files(place, count):
    place.mkdir()
    data = b"x" * 2000
    for number in range(count):
        descriptor = os.open(place / ("f%05d" % number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)


def grep(place):
    # With a pipe its end is seen at once; without one Python looks for it, ever more seldom.
    done = subprocess.run(["grep", "-r", "no such word", str(place)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=300, check=False)
    if done.returncode != 1:
        raise Trouble("grep: exit %d" % done.returncode)


# -- the inputs

def make_tar(path, top, count, per_directory, sizes=(100, 101)):
    """A tar of `count` files below `top`, `per_directory` in each directory, of sizes in range(*sizes)."""
    any_of = random.Random(3)
    text = bytes(any_of.choices(b"abcdefghijklmnopqrstuvwxyz \n", k=max(sizes)))
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            entry = tarfile.TarInfo("%s/d%03d/f%05d" % (top, number // per_directory, number))
            entry.size, entry.mtime = any_of.randrange(*sizes), 1700000000
            tar.addfile(entry, BytesIO(text[:entry.size]))


def git_env(home):
    """For a git that knows no one's configuration and trusts every directory."""
    return dict(os.environ, GIT_CONFIG_NOSYSTEM="1", HOME=str(home), GIT_CONFIG_COUNT="1",
                GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")


def make_repository(base, path, count):
    """A bare repository at `path` with one commit of `count` text files."""
    source = base / "source"
    source.mkdir()
    env = git_env(base)
    run(["git", "init", "-q", source], env=env)
    any_of = random.Random(4)
    for number in range(count):
        place = source / ("d%02d" % (number // 50))
        place.mkdir(exist_ok=True)
        (place / ("f%04d.txt" % number)).write_bytes(any_of.randbytes(any_of.randrange(200, 3000)).hex().encode())
    run(["git", "-C", source, "add", "."], env=env)
    run(["git", "-C", source, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m",
         "all"], env=env)
    run(["git", "clone", "-q", "--bare", source, path], env=env)
    shutil.rmtree(source)


# -- the whole

def make_backing(wanted):
    """(directory, undo): an empty directory that sandboxes under another uid can reach."""
    if wanted:
        path = Path(tempfile.mkdtemp(prefix="sbxfs-bench-", dir=wanted))
    elif os.geteuid() == 0:
        path = Path(tempfile.mkdtemp(prefix="sbxfs-bench-"))
        run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=0711", "tmpfs", path])
    else:
        if shutil.disk_usage("/dev/shm").free < 1 << 30:
            raise Trouble("/dev/shm has less than 1 GiB free: name a directory by --backing")
        path = Path(tempfile.mkdtemp(prefix="sbxfs-bench-", dir="/dev/shm"))
    path.chmod(0o711)

    def undo():
        if os.path.ismount(path):
            run(["umount", "-l", path])
            path.rmdir()
        else:
            shutil.rmtree(path, ignore_errors=True)
    return path, undo


def program(wanted):
    """The sbxfs to measure: a release build unless one is named."""
    if wanted:
        return Path(wanted).resolve()
    build = ROOT / "build-release"
    if not (build / "build.ninja").exists():
        run(["meson", "setup", "--buildtype=release", build, ROOT])
    run(["ninja", "-C", build], 900)
    return build / "fs" / "sbxfs"


def context(path, options):
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", str(path)], capture_output=True, text=True,
                          check=False).stdout.strip()
    return {"kernel": platform.release(), "processors": os.cpu_count(), "load": os.getloadavg()[0], "uid": os.geteuid(),
            "backing": kind, "repetitions": options.repetitions, "scale": options.scale}


def stop_all(systems, undo):
    """Stop each, the last first, then undo(), whatever comes of it."""
    troubles = []
    for stop in [system.stop for system in reversed(systems)] + [undo]:
        try:
            stop()
        except (Trouble, OSError, subprocess.SubprocessError) as error:
            troubles.append(str(error))
    if troubles:
        print("cleaning up: " + "; ".join(troubles), file=sys.stderr)


