# SPDX-License-Identifier: Apache-2.0
"""A real sshd for tests, and a proxy that makes the way to it long.

    with Sshd(directory) as server:
        server.run("true")              # by ssh, to see that it works
        with server.delay(40) as far:   # 40 ms there and back; far.port
            far.hole()

An Sshd owns one directory: host keys, `key` (the client's, ed25519), `known_hosts`, `home` (HOME of
the sessions), sshd_config and log. It works for root and for an ordinary user, who can only log in
as itself. stop() ends all that was ever started through it, what left its session included.
"""

import base64
import contextlib
import getpass
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from .tools import Failed, end, lives, run, wait_for

PROGRAM = "/usr/sbin/sshd"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
MARK = "SBXFS_TEST_SSHD"  # in the environment of each session


def free_port():
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def keep_port():
    """A socket that keeps a port of 127.0.0.1 for a server that sets SO_REUSEADDR, as sshd does.

    While nobody listens there, connections are refused; nobody else gets the port meanwhile.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


def make_key(path, kind="ed25519", passphrase="", comment="test"):
    """A new key pair; returns the text of the public one. kind: ed25519, ecdsa, rsa."""
    bits = ["-b", "2048"] if kind == "rsa" else []
    run(["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", comment, "-f", path])
    return Path("%s.pub" % path).read_text().strip()


def fingerprint(public):
    """SHA256:... of a public key's text, as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def host_name(port, host="127.0.0.1"):
    """What known_hosts calls it."""
    return host if port == 22 else "[%s]:%d" % (host, port)


_users = []  # the accounts that new_user() has made


def left_users():
    """Those of them that are still there."""
    here = {entry.pw_name for entry in pwd.getpwall()}
    return [name for name in _users if name in here]


@contextlib.contextmanager
def new_user(password=None):
    """An account that sshd lets in, with a password if one is given. Only root can make it."""
    name = "sbxssh%d" % os.getpid()  # other tests run beside us
    run(["useradd", "--create-home", "--shell", "/bin/sh", name])
    _users.append(name)
    try:
        if password:
            run(["chpasswd"], input="%s:%s\n" % (name, password))
        else:
            run(["usermod", "-p", "*", name])
        yield name
    finally:
        run(["pkill", "-KILL", "-u", name], check=False)
        run(["userdel", "--force", "--remove", name], check=False)


def children():
    """{pid: [pids of its children]}."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open("/proc/%s/stat" % entry) as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
                table.setdefault(parent, []).append(int(entry))
    return table


class Sshd:
    """One sshd.

    user: who logs in (default: who runs the tests). config: further lines of sshd_config, which win
    over the usual ones. host_keys: kinds of the host's keys. sftp: what the subsystem is, None for
    none. max_sessions: None for sshd's own 10. home: HOME of the sessions (default: its `home`).
    """

    def __init__(self, directory, port=0, user=None, config=(), host_keys=("ed25519",),
                 sftp="internal-sftp", max_sessions=None, home=None, program=PROGRAM):
        self.base = Path(directory)
        self.base.mkdir(exist_ok=True)
        self.base.chmod(0o711)
        self.host = "127.0.0.1"
        self.kept = None if port else keep_port()  # until stop(): it may be started again
        self.port = port or self.kept.getsockname()[1]
        self.user = user or getpass.getuser()
        self.extra = list(config)
        self.sftp = sftp
        self.max_sessions = max_sessions
        self.home = Path(home or self.base / "home")
        self.program = program
        self.process = None
        self.key = self.base / "key"
        self.known_hosts = self.base / "known_hosts"
        self.log_path = self.base / "log"
        self.host_keys = {kind: make_key(self.base / ("host_" + kind), kind) for kind in host_keys}
        self.authorized = self.base / "authorized_keys"
        self.authorize(make_key(self.key))
        self._owned_by_user(self.key)
        self.learn()
        if not home:
            self.home.mkdir()
            self._owned_by_user(self.home)

    def _owned_by_user(self, path):
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    # -- keys

    def authorize(self, public, options=""):
        """Let a public key in; `options` as in authorized_keys."""
        with open(self.authorized, "a") as file:
            file.write("%s%s\n" % (options + " " if options else "", public))

    def known_lines(self, port=None, host="127.0.0.1"):
        """Its lines for a known_hosts file."""
        return ["%s %s" % (host_name(port or self.port, host), " ".join(public.split()[:2]))
                for public in self.host_keys.values()]

    def learn(self, port=None):
        """Add it, or the way to it through `port`, to its known_hosts."""
        with open(self.known_hosts, "a") as file:
            file.write("".join(line + "\n" for line in self.known_lines(port)))

    def fingerprint(self, kind="ed25519"):
        return fingerprint(self.host_keys[kind])

    # -- the process

    def config_text(self):
        lines = list(self.extra) + [
            "ListenAddress %s:%d" % (self.host, self.port),
            "PidFile none",
            "AuthorizedKeysFile %s" % self.authorized,
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "UsePAM no",
            "UseDNS no",
            "PrintMotd no",
            "LogLevel VERBOSE",
            "MaxStartups 100",
            "SetEnv HOME=%s %s=%s" % (self.home, MARK, self.base),
        ]
        lines += ["HostKey %s" % (self.base / ("host_" + kind)) for kind in self.host_keys]
        if self.sftp:
            lines.append("Subsystem sftp %s" % self.sftp)
        if self.max_sessions is not None:
            lines.append("MaxSessions %d" % self.max_sessions)
        # a Match block goes to the end of the file: all after it would belong to it
        head = [line for line in lines if not line.startswith(("Match ", " "))]
        tail = [line for line in lines if line.startswith(("Match ", " "))]
        return "\n".join(head + tail) + "\n"

    def start(self, timeout=10):
        """Start it and wait until it lets us in."""
        config = self.base / "sshd_config"
        config.write_text(self.config_text())
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        self.process = subprocess.Popen(
            [self.program, "-D", "-f", config, "-E", self.log_path], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        try:
            wait_for(self._listens_or_dead, timeout, 0.01, lambda: "sshd: " + self.log())
        except BaseException:
            self.stop()
            raise
        return self

    def _listens_or_dead(self):
        if self.process.poll() is not None:
            raise Failed("sshd ended with %s:\n%s" % (self.process.returncode, self.log()))
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as s:
            s.settimeout(5)
            return s.recv(4) == b"SSH-"
        return False

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def tree(self):
        """The pids of sshd and of all its descendants."""
        found, table = [], children()
        todo = [self.process.pid] if self.process and self.process.poll() is None else []
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += table.get(pid, [])
        return found

    def _environments(self):
        """{pid: its environment} of what sshd has started and that lives, wherever it has gone."""
        mark, found = ("%s=%s" % (MARK, self.base)).encode(), {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError), open("/proc/%s/environ" % entry, "rb") as file:
                    words = file.read().split(b"\0")
                    if mark in words:
                        found[int(entry)] = words
        return found

    def sessions(self):
        """The pids of what sshd has started and that lives, wherever it has gone."""
        return list(self._environments())

    def connected(self):
        """A function: the pids of what belongs to the connections that there are now, and still lives."""
        def ways(words):
            return {word for word in words if word.startswith(b"SSH_CONNECTION=")}
        pids = [pid for pid in self.tree() if pid != self.process.pid]
        ours = {way for words in self._environments().values() for way in ways(words)}

        def left():
            programs = [pid for pid, words in self._environments().items() if ours & ways(words)]
            return programs + [pid for pid in pids if pid not in programs and lives(pid)]
        return left

    def _signal(self, pids, number):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def freeze(self):
        """SIGSTOP to all of it: connections stay, nothing answers. The pids."""
        stopped = []
        while more := [pid for pid in self.tree() if pid not in stopped]:  # also what was forked meanwhile
            self._signal(more, signal.SIGSTOP)
            stopped += more
        return stopped

    def thaw(self):
        self._signal(self.tree(), signal.SIGCONT)

    def kill_connections(self):
        """SIGKILL to sshd's processes of the connections; the programs in them live on."""
        listener = self.process.pid
        mine = [pid for pid in self.tree() if pid != listener and _name(pid).startswith("sshd")]
        self._signal(mine, signal.SIGKILL)

    def kill(self):
        """SIGKILL to all of it and what it has started; returns when they are gone."""
        self._signal(self.freeze(), signal.SIGKILL)  # what stands still forks nothing that would be left
        if self.process:
            end(self.process, 30)
        wait_for(self._gone, 10, 0.02, lambda: "the end of %s" % self.sessions())

    def stop(self):
        """End all of it; nothing is left."""
        if not self.process:
            return
        try:
            self.kill()
        finally:
            self.process = None
            if self.kept:
                self.kept.close()

    def _gone(self):
        left = self.sessions()
        self._signal(left, signal.SIGKILL)
        return not left

    # -- using it

    def ssh_options(self, port=None):
        """Options of ssh and sftp that reach it."""
        return ["-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "UserKnownHostsFile=%s" % self.known_hosts, "-o", "IdentityAgent=none",
                "-o", "GlobalKnownHostsFile=/dev/null", "-o", "Port=%d" % (port or self.port)]

    def run(self, command, **kwargs):
        """Run a command by the ssh program."""
        return run(["ssh", *self.ssh_options(), "%s@%s" % (self.user, self.host), command], **kwargs)

    def delay(self, round_trip_ms=0):
        """A DelayProxy before it, which its known_hosts knows."""
        return DelayProxy(self.port, round_trip_ms, learn=self.learn)


def _name(pid):
    try:
        return Path("/proc/%d/comm" % pid).read_text().strip()
    except OSError:
        return ""


_programs = {}  # where delay.c was compiled to, once a session


def _delay_program():
    if "delay" not in _programs:
        directory = tempfile.TemporaryDirectory(prefix="sbxfs-delay-")
        program = Path(directory.name) / "delay"
        compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
        run([compiler, "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-o", program,
             Path(__file__).with_name("delay.c")])
        _programs["delay"] = (program, directory)  # removed when Python ends
    return _programs["delay"][0]


class DelayProxy:
    """A TCP proxy on 127.0.0.1, `port`, that delays all by half of a round trip each way."""

    def __init__(self, target_port, round_trip_ms=0, learn=None):
        self.process = subprocess.Popen(
            [_delay_program(), str(target_port), "%d" % (round_trip_ms * 500)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self.port = int(self.process.stdout.readline().split()[1])
        if learn:
            learn(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _order(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode().split()
        if not answer or answer[0] != "ok":
            raise Failed("delay proxy: %s: %s" % (line, " ".join(answer)))
        return answer[1:]

    def set_round_trip(self, ms):
        self._order("delay %d" % (ms * 500))

    def cut(self, after=None):
        """Reset all connections; new ones work. `after`: when so many more bytes have gone up."""
        self._order("cut" if after is None else "cut %d" % after)

    def hole(self, after=None):
        """Let nothing through any more, either way; new connections hang, too."""
        self._order("hole" if after is None else "hole %d" % after)

    def thaw(self):
        """End of hole: what was held goes on."""
        self._order("thaw")

    def count(self):
        """(bytes sent to the server, bytes sent by it)."""
        up, down = self._order("count")
        return int(up), int(down)

    def stop(self):
        if self.process:
            end(self.process)
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
