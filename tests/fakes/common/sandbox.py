# SPDX-License-Identifier: Apache-2.0
"""A sandbox that really runs commands: bubblewrap over a directory of its own, agent.py inside.

Its "/" is a directory below the stand-in's, with this machine's /usr in it; a network of its own
without a way out; process ids of its own. By root it has two users, as real services have (root
and one more); by anybody else all ids inside are that one user. Nothing outlives the stand-in: the
agent ends when its socket closes, and everything inside with it.
"""

import array
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from .root import Gone, Root

AGENT = Path(__file__).with_name("agent.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "MKNOD")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/certs", "localtime", "mime.types")
DIRECTORIES = {"tmp": 0o1777, "root": 0o700, "home": 0o755, "etc": 0o755, "var": 0o755, "opt": 0o755,
               "mnt": 0o755, "srv": 0o755, "run": 0o755, "var/tmp": 0o1777, "var/log": 0o755}


class User:
    def __init__(self, name, uid, home):
        self.name, self.uid, self.gid, self.home = name, uid, uid, home


class Process:
    """A command: `pid` as the sandbox has it. ended.wait(), then `status` as waitpid(2) has it.

    status is None when the whole sandbox ended.
    """

    def __init__(self, sandbox, pid):
        self.sandbox, self.pid = sandbox, pid
        self.ended = threading.Event()
        self.status = None

    def kill(self, number=signal.SIGKILL, group=False):
        """OSError when it is gone already."""
        if not self.ended.is_set():
            self.sandbox.ask(op="kill", pid=-self.pid if group else self.pid, signal=int(number))


class Sandbox:
    """directory: where its root is made. user: the one besides root, (name, uid, home)."""

    def __init__(self, directory, user, hostname="sandbox", copy_of=None):
        self.directory = Path(directory)
        self.user = User(*user)
        self.users = {"root": User("root", 0, "/root"), self.user.name: self.user}
        self.hostname = hostname
        self.lock = threading.Lock()
        self.process = None
        self._root = None
        self.is_paused = False
        self._agent = self._listener = None
        self._count = 0
        self._waiting = {}  # of the agent that runs
        if copy_of:
            subprocess.run(["cp", "-a", "--reflink=auto", copy_of, self.directory], check=True)
        else:
            self._furnish()

    # -- its place

    def _furnish(self):
        self.directory.mkdir(mode=0o755, parents=True)
        for name, mode in DIRECTORIES.items():
            (self.directory / name).mkdir()
            (self.directory / name).chmod(mode)
        for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
            if os.path.lexists("/" + name):
                (self.directory / name).symlink_to("usr/" + name)
        for user in self.users.values():
            home = self.directory / user.home.lstrip("/")
            home.mkdir(parents=True, exist_ok=True)
            self._own(home, user)
        etc = self.directory / "etc"
        passwd = ["%s:x:%d:%d::%s:/bin/bash" % (u.name, u.uid, u.gid, u.home)
                  for u in self.users.values()] + ["nobody:x:65534:65534::/nonexistent:/bin/false"]
        groups = ["%s:x:%d:" % (u.name, u.gid) for u in self.users.values()] + ["nogroup:x:65534:"]
        (etc / "passwd").write_text("\n".join(passwd) + "\n")
        (etc / "group").write_text("\n".join(groups) + "\n")
        (etc / "hosts").write_text("127.0.0.1 localhost %s\n" % self.hostname)
        (etc / "hostname").write_text(self.hostname + "\n")

    @staticmethod
    def _own(path, user):
        if os.geteuid() == 0:
            os.chown(path, user.uid, user.gid)

    def inside_id(self, number):
        """A uid or gid of stat(2) out here, as it is inside."""
        if os.geteuid() == 0:
            return number
        return self.user.uid if number == os.geteuid() else 65534

    def name_of(self, number):
        """The owner's name, or the number as text."""
        number = self.inside_id(number)
        return next((u.name for u in self.users.values() if u.uid == number),
                    "nobody" if number == 65534 else str(number))

    def _arguments(self):
        args = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
                "--hostname", self.hostname, "--bind", str(self.directory), "/",
                "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
        for name in ETC:
            args += ["--ro-bind-try", "/etc/" + name, "/etc/" + name]
        if os.geteuid() == 0:
            args += ["--cap-drop", "ALL"]
            for name in CAPS:
                args += ["--cap-add", "CAP_" + name]
        else:
            args += ["--unshare-user", "--uid", str(self.user.uid), "--gid", str(self.user.gid)]
        return args + ["--as-pid-1", "--chdir", "/", "--clearenv", "--setenv", "PATH", PATH, "--",
                       "/usr/bin/python3", "-I", "-S"]

    def copy_to(self, directory):
        """Its files, for another one's copy_of."""
        subprocess.run(["cp", "-a", "--reflink=auto", self.directory, directory], check=True)

    # -- its life

    def start(self):
        """Boot it; returns when commands can start."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = os.open(AGENT, os.O_RDONLY | os.O_CLOEXEC)
        try:
            process = subprocess.Popen([*self._arguments(), "/proc/self/fd/%d" % code, str(theirs.fileno()),
                                        str(code)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       pass_fds=(theirs.fileno(), code), cwd="/", start_new_session=True)
        finally:
            os.close(code)
            theirs.close()
        ours.settimeout(30)
        try:
            data, control, _, _ = ours.recvmsg(4096, socket.CMSG_SPACE(16), 0x40000000)
        except OSError:
            data, control = b"", []
        if not data:
            ours.close()
            process.kill()
            process.wait(10)
            raise Gone("bwrap has failed")
        fds = array.array("i")
        fds.frombytes(control[0][2])
        ours.settimeout(None)
        waiting, running = {}, {}
        with self.lock:
            self.process, self._agent = process, ours
            self._root = Root(fds[0])
            self._waiting = waiting
            self.is_paused = False
            self._listener = threading.Thread(target=self._listen, args=(ours, waiting, running), daemon=True)
            self._listener.start()
        return self

    @property
    def root(self):
        """Its files. Gone while it doesn't run."""
        root = self._root
        if root is None:
            raise Gone("the sandbox doesn't run")
        return root

    def _listen(self, agent, waiting, running):
        """Until that agent's end. It owns the socket; the next one may listen before this is over."""
        while True:
            try:
                data = agent.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            message = json.loads(data)
            with self.lock:
                if "ended" in message:
                    process = running.pop(message["ended"], None)
                    if process:
                        process.status = message["status"]
                        process.ended.set()
                    continue
                if "pid" in message:
                    message["process"] = Process(self, message["pid"])
                    running[message["pid"]] = message["process"]
                asked = waiting.pop(message["id"], None)
            if asked:
                asked.put(message)
        with self.lock:
            agent.close()
            lost, unanswered = list(running.values()), list(waiting.values())
            waiting.clear()
        for process in lost:
            process.ended.set()
        for each in unanswered:
            each.put(None)

    def ask(self, fds=(), **message):
        """One request to the agent, and its answer. Gone; OSError with the errno it reports."""
        answer = queue.SimpleQueue()
        with self.lock:
            if not self._agent:
                raise Gone()
            self._count += 1
            message["id"] = self._count
            self._waiting[self._count] = answer
            try:
                self._agent.sendmsg([json.dumps(message).encode()], [
                    (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
            except OSError:
                self._waiting.pop(self._count, None)
                raise Gone() from None
        got = answer.get(timeout=60)
        if got is None:
            raise Gone()
        if "errno" in got:
            error = OSError(got["errno"], os.strerror(got["errno"]))
            error.stage = got.get("stage")
            raise error
        return got

    def run(self, argv, stdin, stdout, stderr, env=None, cwd="/", user=None, session=False,
            group=False, tty=False):
        """Start a command on these descriptors, which stay the caller's. A Process."""
        user = user or self.users["root"]
        by_root = os.geteuid() == 0
        spec = {"argv": argv, "env": env or {}, "cwd": cwd, "uid": user.uid if by_root else None,
                "gid": user.gid, "session": session, "group": group, "tty": tty}
        fd = os.memfd_create("command")
        try:
            data = json.dumps(spec).encode()
            at = 0
            while at < len(data):
                at += os.write(fd, data[at:])
            os.lseek(fd, 0, os.SEEK_SET)
            return self.ask(op="start", fds=[fd, stdin, stdout, stderr])["process"]
        finally:
            os.close(fd)

    def output(self, argv, **options):
        """Run a command to its end: (status, stdout and stderr together)."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            process = self.run(argv, null, theirs, theirs, **options)
        finally:
            os.close(theirs)
            os.close(null)
        with open(ours, "rb") as file:
            data = file.read()
        process.ended.wait()
        return process.status, data

    def pause(self):
        """Everything in it stands still; nothing is lost."""
        self.ask(op="all", signal=int(signal.SIGSTOP))
        self.is_paused = True

    def resume(self):
        self.is_paused = False
        self.ask(op="all", signal=int(signal.SIGCONT))

    def stop(self):
        """Kill all that runs in it; its files stay."""
        with self.lock:
            agent, self._agent = self._agent, None
            process, self.process = self.process, None
            root, self._root = self._root, None
            listener, self._listener = self._listener, None
            if agent:
                with contextlib.suppress(OSError):
                    agent.shutdown(socket.SHUT_RDWR)
        if listener:
            listener.join(20)  # what ran is known to be lost: its numbers are soon others'
        if process:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        if root:
            root.close()

    def destroy(self):
        self.stop()
        remove_tree(self.directory)


def write_all(fd, data):
    """To a descriptor of the caller's own, which is closed then. OSError."""
    try:
        while data:
            data = data[os.write(fd, data):]
    finally:
        os.close(fd)


def remove_tree(path):
    """rm -rf, whatever modes were left."""
    if subprocess.run(["rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["chmod", "-R", "u+rwX", path], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(path, ignore_errors=True)
