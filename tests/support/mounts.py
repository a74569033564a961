# SPDX-License-Identifier: Apache-2.0
"""A mount of sbxfs and the sandboxes in it, for tests.

    with Mount(directory) as m:
        box = m.create("web")
        result = box.exec("echo hello")
        assert result.stdout == b"hello\n"

A Mount owns one directory: `state/`, the mount point `mnt/`, and `log`. stop() leaves nothing
behind: sandboxes are destroyed, the file system is unmounted (its connection aborted if it is
stuck), and a process that still lives is killed and fails the test.
"""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import kinds
from .tools import Failed, call_as, end, identity, run, wait_for

ROOT = Path(__file__).resolve().parents[2]
SANITIZER = re.compile(
    rb"ERROR: (Address|Leak|Memory)Sanitizer|runtime error:|WARNING: ThreadSanitizer|LeakSanitizer"
    rb"|Assertion .* failed|Sanitizer:DEADLYSIGNAL")
CONNECTIONS = "/sys/fs/fuse/connections"

live = []  # every started Mount, for the checks after each test and at the end
work_directories = []  # every directory that work_directory() has made


class Settings:
    """Where the programs are; conftest sets this from --sbxfs."""

    sbxfs = None


def build_directory():
    return Path(os.environ.get("SBXFS_BUILD", ROOT / "build"))


def sbxfs_path():
    return Path(Settings.sbxfs or build_directory() / "fs" / "sbxfs")


def work_directory(prefix="sbxfs-test-"):
    """A new directory that a sandbox under another uid can reach: all above it has x for others."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=os.environ.get("SBXFS_TEST_TMP", "/tmp")))
    path.chmod(0o711)
    work_directories.append(path)
    return path


def mount_entries():
    """(device number, mount point, type) of each mount that this process sees."""
    entries = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            left, _, right = line.rstrip(b"\n").partition(b" - ")
            words = left.split(b" ")
            point = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), words[4])
            entries.append((words[2].decode(), os.fsdecode(point), right.split(b" ")[0].decode()))
    return entries


def mounts_below(directory):
    """The mount points below the directory."""
    return [point for _, point, _ in mount_entries() if point.startswith("%s/" % directory)]


def process_table():
    """(pid, parent, name) of every process that is not a zombie."""
    table = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid, "rb") as file:
                text = file.read()
        except OSError:
            continue
        name = text[text.index(b"(") + 1:text.rindex(b")")].decode("utf-8", "replace")
        rest = text[text.rindex(b")") + 2:].split()
        if rest[0] not in (b"Z", b"X"):
            table.append((int(pid), int(rest[1]), name))
    return table


def _uses(pid, directory):
    """True if the process works on something below the directory: argv, mounts, or descriptors."""
    needle = os.fsencode(str(directory))
    for name in ("cmdline", "mountinfo"):
        try:
            with open("/proc/%d/%s" % (pid, name), "rb") as file:
                text = file.read()
        except OSError:
            continue
        if name == "mountinfo":  # only what a namespace of its own has bound, not our own mounts
            try:
                if os.readlink("/proc/%d/ns/mnt" % pid) == os.readlink("/proc/self/ns/mnt"):
                    continue
            except OSError:
                continue
            if any(line.split(b" ")[3].startswith(needle) for line in text.splitlines()):
                return True
            continue
        if needle in text:
            return True
    return False


def users_of(directory):
    """What holds a directory: a line for each working directory, root or open file below it."""
    found = []
    for pid, _, name in process_table():
        links = ["cwd", "root"]
        try:
            links += ["fd/" + fd for fd in os.listdir("/proc/%d/fd" % pid)]
        except OSError:
            pass
        for link in links:
            try:
                target = os.readlink("/proc/%d/%s" % (pid, link))
            except OSError:
                continue
            if target == str(directory) or target.startswith("%s/" % directory):
                found.append("%d (%s) %s -> %s" % (pid, name, link, target))
    return found


def processes_of(directory):
    """(pid, name) of what lives in, or serves, the sandboxes whose state is in the directory."""
    table = process_table()
    mine = os.getpid()
    found = {pid: name for pid, _, name in table if pid != mine and _uses(pid, directory)}
    parents = {pid: (parent, name) for pid, parent, name in table}
    for pid in list(found):  # bwrap's monitor is outside of the namespaces
        parent, _ = parents[pid]
        while parent in parents and parents[parent][1] in ("bwrap", "sbxfs-holder"):
            found[parent] = parents[parent][1]
            parent = parents[parent][0]
    return sorted(found.items())


def leavings(directories):
    """What still works below these directories, a line each: for the end of a session.

    By argv, by namespaces, by the environment of what an sshd has started (support/sshd.py), by
    working directories and open files.
    """
    needles = [os.fsencode("%s" % directory) for directory in directories]
    found, mine = [], os.getpid()
    for pid, _, name in process_table():
        said = _traces(pid) if pid != mine else b""
        for needle in needles:
            if needle in said:
                found.append("%d (%s) of %s" % (pid, name, os.fsdecode(needle)))
                break
    return found


def _traces(pid):
    """All the texts by which leavings() tells whose process it is."""
    texts = []
    for name in ("cmdline", "environ", "mountinfo"):
        try:
            with open("/proc/%d/%s" % (pid, name), "rb") as file:
                text = file.read()
            if name == "environ":
                text = b" ".join(e for e in text.split(b"\0") if e.startswith(b"SBXFS_TEST_SSHD="))
            elif name == "mountinfo":
                own = os.readlink("/proc/%d/ns/mnt" % pid) != os.readlink("/proc/self/ns/mnt")
                text = b" ".join(line.split(b" ")[3] for line in text.splitlines()) if own else b""
        except OSError:
            continue
        texts.append(text)
    links = ["cwd", "root"]
    try:
        links += ["fd/" + fd for fd in os.listdir("/proc/%d/fd" % pid)]
    except OSError:
        pass
    for link in links:
        try:
            texts.append(os.fsencode(os.readlink("/proc/%d/%s" % (pid, link))))
        except OSError:
            continue
    return b"\n".join(texts)


# What touches files in a mount; each runs in a child under the mount's user if it has one.

def _read(path):
    with open(path, "rb", buffering=0) as file:
        parts = []
        while True:
            part = file.read(1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)


def _write(path, data, flags):
    descriptor = os.open(path, flags, 0o644)
    try:
        count = os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return count


def _submit(path, data):
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, data)
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


class ExecResult:
    """How a command in a sandbox ended, and all that it printed."""

    def __init__(self, number, exit, stdout, stderr):
        self.number = number
        self.exit = exit
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self):
        return "exec %s: exit %r\nstdout: %r\nstderr: %r" % (
            self.number, self.exit, self.stdout[-4000:], self.stderr[-4000:])


class Sandbox:
    """One directory of a mount."""

    def __init__(self, mount, name):
        self.mount = mount
        self.name = name
        self.dir = mount.path / name
        self.fs = self.dir / "fs"

    @property
    def backing(self):
        """The real directory behind fs/."""
        return self.mount.kind.backing(self)

    def ctl(self, line):
        """One write(2) to ctl, the newline added if it has none; raises what write or close raise."""
        data = line if isinstance(line, bytes) else line.encode()
        if not data.endswith(b"\n"):
            data += b"\n"
        return self.mount.write(self.dir / "ctl", data)

    def read(self, name):
        """All bytes of one of the sandbox's files."""
        return self.mount.read(self.dir / name)

    def status(self):
        """The keys of `status`, as strings."""
        lines = self.read("status").decode().splitlines()
        return dict((line.split(" ", 1) + [""])[:2] for line in lines)

    @property
    def state(self):
        return self.status()["state"]

    def wait_state(self, state, timeout=60):
        """Wait until the sandbox is in the state (or one of several); state error fails at once."""
        wanted = (state,) if isinstance(state, str) else tuple(state)

        def there():
            now = self.state
            if now == "error" and "error" not in wanted:
                raise Failed("%s: state error: %s" % (self.name, self.read("error").decode()))
            return now in wanted
        wait_for(there, timeout, 0.005, lambda: "%s to be %s; it is %s" % (self.name, wanted,
                                                                           self.status()))

    def start(self, text, **keys):
        """Start a command; returns its number or name. Keys as in ctl; env is a dictionary."""
        env = keys.pop("env", {})
        if "\n" in text or any("\n" in str(value) for value in env.values()):
            if keys.get("stdin") == "open":  # in JSON a string is all of it
                keys["stdin"] = True
            line = json.dumps(dict(keys, verb="exec", argv=["sh", "-c", text], env=env))
        else:
            words = ["%s=%s" % (k, shlex.quote(str(v))) for k, v in keys.items()]
            words += ["env.%s=%s" % (k, shlex.quote(str(v))) for k, v in env.items()]
            line = " ".join(["exec"] + words + ["--", text])
        answer = self.mount.submit(self.dir / "ctl", os.fsencode(line) + b"\n").decode()
        if not re.fullmatch(r"[A-Za-z0-9._-]+\n", answer):
            raise Failed("exec answered %r instead of its number" % answer)
        return answer.strip()

    def wait(self, number, timeout=60):
        """Wait for the end of an exec; returns what `wait` says (`exit 0`, `signal 9`, ...)."""
        deadline = time.monotonic() + timeout
        while True:
            left = max(1, min(10, int(deadline - time.monotonic())))
            said = self.read("exec/%s/wait.%d" % (number, left)).decode().rstrip("\n")
            if said != "running":
                return said
            if time.monotonic() > deadline:
                raise Failed("exec %s still runs after %s s: %r" % (
                    number, timeout, self.read("exec/%s/status" % number)))

    def wait_by(self, number, how, timeout=60):
        """Learn of the end in one of the ways there are: wait, exit (polled), or follow."""
        if how == "wait":
            return self.read("exec/%s/wait" % number)
        if how == "follow":
            return self.read("exec/%s/follow" % number)
        return wait_for(lambda: self.read("exec/%s/exit" % number), timeout, 0.0005,
                        "the exit of exec %s" % number)

    def kill(self, number, signal="KILL"):
        """Kill an exec that runs."""
        self.ctl("kill -%s %s" % (signal, number))

    def is_running(self, number):
        return self.read("exec/%s/exit" % number) == b""

    def result(self, number):
        """The result of an exec that has ended."""
        base = "exec/%s/" % number
        return ExecResult(number, self.read(base + "exit").decode().rstrip("\n"),
                          self.read(base + "stdout"), self.read(base + "stderr"))

    def exec(self, text, wait=60, **keys):
        """Run a command to its end; `wait` bounds ours, timeout= is the exec's own key."""
        number = self.start(text, **keys)
        self.wait(number, wait)
        return self.result(number)

    def ok(self, text, wait=60, **keys):
        """Run a command that has to end with 0; returns its stdout."""
        result = self.exec(text, wait, **keys)
        if result.exit != "0":
            raise Failed("%s\n%r" % (text, result))
        return result.stdout

    def destroy(self, timeout=60):
        """Destroy it and wait until its name is gone."""
        try:
            self.ctl("destroy")
        except FileNotFoundError:
            return
        wait_for(lambda: not self.mount.exists(self.dir), timeout, 0.005,
                 "%s is still listed after destroy" % self.name)


class Mount:
    """One sbxfs process, its mount point and state directory."""

    def __init__(self, tmpdir, options=("drain=1s",), user=None, env=None, program=None,
                 kind=kinds.LOCAL):
        self.base = Path(tmpdir)
        self.path = self.base / "mnt"
        self.state = self.base / "state"
        self.log_path = self.base / "log"
        self.options = list(options)
        self.user = user
        self.env = env or {}
        self.program = program
        self.kind = kind
        self.process = None
        self.device = None
        self.expected_end = False
        self.dirty_end = False
        self._scanned = 0
        for directory in (self.base, self.path, self.base / "home", self.base / "config"):
            directory.mkdir(exist_ok=True)
            if user:
                shutil.chown(directory, user)
        self.base.chmod(0o711)
        self.options += kind.options(self)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # -- the process

    def argv(self):
        options = ["state=%s" % self.state] + self.options
        return [str(self.program or sbxfs_path()), "-f", "-o", ",".join(options), str(self.path)]

    def start(self, timeout=30):
        """Start sbxfs and wait until the mount answers."""
        environ = dict(os.environ, HOME=str(self.base / "home"),
                       XDG_CONFIG_HOME=str(self.base / "config"))
        environ.update(self.env)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv(), env=environ, cwd="/", stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True, **identity(self.user))
        self.expected_end = self.dirty_end = False
        if self not in live:
            live.append(self)
        try:
            wait_for(self._mounted_or_dead, timeout, 0.005, lambda: "a mount: " + self.log())
            run(["stat", self.path / "README"], timeout=timeout, user=self.user)
        except BaseException:
            self._force()
            live.remove(self)
            raise
        return self

    def _mounted_or_dead(self):
        if self.process.poll() is not None:
            raise Failed("sbxfs ended with %s before it mounted:\n%s" % (self.process.returncode,
                                                                         self.log()))
        self.device = self._device()
        return self.device is not None and not self._is_dead()

    def _is_dead(self):
        """A predecessor that was killed, which the new one has not detached yet."""
        try:
            os.statvfs(self.path)  # asks the server, where stat may know the answer
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    def _device(self):
        found = [dev for dev, point, kind in mount_entries()
                 if point == str(self.path) and kind.startswith("fuse")]
        return found[-1] if found else None

    @property
    def pid(self):
        return self.process.pid

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def scan(self):
        """What a sanitizer has reported since the last scan; empty if nothing."""
        if not self.log_path.exists():
            return ""
        data = self.log_path.read_bytes()
        new, self._scanned = data[self._scanned:], len(data)
        return data[-20000:].decode("utf-8", "replace") if SANITIZER.search(new) else ""

    def umount(self, timeout=40):
        """Unmount as a user does, then wait until sbxfs has ended."""
        self.expected_end = True
        argv = ["umount"] if os.geteuid() == 0 and not self.user else ["fusermount3", "-u"]
        until = time.monotonic() + 15  # busy while anybody looks at the mount: what runs beside us may
        while True:
            said = run(argv + [self.path], timeout=30, user=self.user, check=False)
            if "busy" not in said.err or time.monotonic() > until:
                break
            time.sleep(0.1)
        if said.code:
            raise Failed("%s\n%s" % (said, "\n".join(users_of(self.path))))
        self.wait_end(timeout)

    def wait_end(self, timeout=40):
        """Wait for the end of the process; returns its exit code."""
        self.expected_end = True
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed("sbxfs still runs %s s after its unmount:\n%s" % (timeout, self.log()))

    def terminate(self, timeout=40):
        """SIGTERM, then wait for the end."""
        self.expected_end = True
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end(timeout)

    def kill9(self):
        """SIGKILL, then detach the dead mount; sandboxes stay as they are."""
        self.expected_end = self.dirty_end = True
        self.process.kill()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self._abort()
            self.process.wait(30)
        self._detach()

    def restart(self, **kwargs):
        """Unmount if it is mounted, then mount again on the same state."""
        if self.is_alive():
            self.umount()
        return self.start(**kwargs)

    def _detach(self):
        for _ in range(4):
            if self._device() is None:
                return
            if os.geteuid() == 0:
                run(["umount", "-l", self.path], timeout=30, check=False)
            else:
                run(["fusermount3", "-uz", self.path], timeout=30, check=False, user=self.user)

    def _abort(self):
        """Abort the kernel's FUSE connection: whoever is blocked in the mount gets an error.

        Where fusectl isn't mounted, umount -f does the same, or else the end of the server.
        """
        if self.device is None or self._device() != self.device:
            return
        try:
            with open("%s/%s/abort" % (CONNECTIONS, self.device.split(":")[1]), "w") as file:
                file.write("1")
            return
        except OSError:
            pass
        if os.geteuid() == 0:
            subprocess.Popen(["umount", "-f", self.path], stderr=subprocess.DEVNULL)
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def _force(self):
        self.expected_end = True
        if self._device() is not None:
            self._abort()
        if self.process is not None and self.process.poll() is None:
            end(self.process)
        self._detach()
        self._kill_left()

    def _kill_left(self):
        left = processes_of(self.state)
        for pid, _ in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        return left

    def left(self):
        """(pid, name) of processes of this mount's sandboxes."""
        return processes_of(self.state)

    def destroy_all(self):
        for name in self.sandboxes():
            Sandbox(self, name).destroy()

    def _wait_destroyed(self, timeout=20):
        """Their names go at once, they a moment later: an unmount waits for that no longer than its drain= says.

        Only for those on this machine, whatever comes of it: others may be out of reach.
        """
        def going():
            lines = self.read(self.path / "status").decode().splitlines()
            return any(re.match(r"sandbox \S+ local(-cached)? destroying ", line) for line in lines)
        until = time.monotonic() + timeout
        while going() and time.monotonic() < until:
            time.sleep(0.02)

    def stop(self):
        """End in all cases and leave nothing; fails if it had to use force or anything was left."""
        if self not in live:
            return
        problem = None
        try:
            if self.is_alive() and self._device() is not None:
                guard = threading.Timer(120, self._abort)
                guard.start()
                try:
                    self.destroy_all()
                    self._wait_destroyed()
                    self.umount()
                except Exception as error:
                    problem = "stop: %s" % error
                finally:
                    guard.cancel()
            elif not self.expected_end:
                problem = "sbxfs ended by itself with %s" % self.process.poll()
            clean = problem is None and not self.dirty_end
            if clean:
                try:
                    wait_for(lambda: not self.left(), 10, 0.05)
                except Failed:
                    problem = "processes left: %s" % self.left()
        finally:
            self._force()
            live.remove(self)
        report = self.scan()
        log = self.log()
        if report:
            raise Failed("sanitizer report:\n" + report)
        if problem:
            raise Failed("%s\n--- log\n%s" % (problem, log[-8000:]))

    # -- files, under the mount's user

    def do(self, function, *args):
        return call_as(self.user, function, *args) if self.user else function(*args)

    def run(self, argv, **kwargs):
        """A tool, as the user whose mount this is."""
        return run(argv, user=self.user, **kwargs)

    def read(self, path):
        return self.do(_read, path)

    def write(self, path, data, flags=os.O_WRONLY):
        return self.do(_write, path, data, flags)

    def submit(self, path, data):
        return self.do(_submit, path, data)

    def exists(self, path):
        try:
            self.do(os.lstat, path)
            return True
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise

    # -- sandboxes

    def sandboxes(self):
        """The names of the sandboxes in the root."""
        return sorted(set(self.do(os.listdir, self.path)) - {"README", "ctl", "status"})

    def box(self, name):
        return Sandbox(self, name)

    def ctl(self, line):
        """One write(2) to the root's ctl."""
        return Sandbox(self, ".").ctl(line)

    def create(self, name, timeout=60, wait=True, **settings):
        """A new sandbox; waits until it runs, unless wait is False."""
        if settings:
            self.ctl(" ".join(["create", name] + ["%s=%s" % (k, shlex.quote(str(v)))
                                                  for k, v in settings.items()]))
        else:
            self.do(os.mkdir, self.path / name)
        box = Sandbox(self, name)
        if wait:
            box.wait_state("running", timeout)
        return box


def abort_all():
    """Abort every live connection: the watchdog's last means against a blocked test."""
    for mount in live:
        mount._abort()
