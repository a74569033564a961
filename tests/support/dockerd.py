# SPDX-License-Identifier: Apache-2.0
"""A real Docker Engine for tests, apart from any that this machine has.

    with Dockerd(directory) as engine:
        engine.image("busybox")         # made when first asked for
        engine.docker("run", "--rm", "busybox", "true")

A Dockerd owns one directory (data, sockets, pid files, log) and one cgroup. Only root can run it.
stop() ends it with its containerd and all containers, unmounts and removes what they leave.

Images: busybox (shell and tools, static), debian (what the suites use of this system: shell, GNU
tools, git, make, gcc, python3), bare (one static program that sleeps: no shell, no library).
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

from .mounts import mounts_below, work_directory
from .tools import Failed, end, run, wait_for

PROGRAM = "/usr/sbin/dockerd"
CLIENT = "/usr/bin/docker"

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1000:\nstaff:x:50:app\nnogroup:x:65534:\n"

# With what they need, these are the image debian.
PACKAGES = ("base-files bash dash coreutils findutils diffutils grep sed mawk tar gzip xz-utils "
            "util-linux procps hostname debianutils make gcc libc6-dev binutils git perl-base "
            "python3 python3-minimal rsync sqlite3 file less patch bsdutils login libc-bin").split()

SLEEPER = r"""
#include <signal.h>
#include <unistd.h>
int main(void) { signal(SIGTERM, SIG_DFL); for (;;) pause(); }
"""


class Rootfs:
    """A root file system as a tar stream."""

    def __init__(self, path):
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: closed by done()
        self.made = set()
        for name, mode in (("tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("sys", 0o555),
                           ("dev", 0o755), ("run", 0o755), ("home", 0o755), ("etc", 0o755)):
            self.directory(name, mode)
        self.directory("home/app", 0o755, 1000)
        self.file("etc/passwd", PASSWD)
        self.file("etc/group", GROUP)

    def _add(self, name, kind, mode, data=None, uid=0, link=""):
        if name in self.made:
            return
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)
        self.made.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, uid, uid, link
        info.size = len(data) if data is not None else 0
        self.tar.addfile(info, io.BytesIO(data) if data is not None else None)

    def directory(self, name, mode=0o755, uid=0):
        self._add(name, tarfile.DIRTYPE, mode, uid=uid)

    def file(self, name, data, mode=0o644):
        self._add(name, tarfile.REGTYPE, mode, data)

    def link(self, name, target):
        self._add(name, tarfile.SYMTYPE, 0o777, link=target)

    def copy(self, path):
        """A file, link or directory of this system, by its own name."""
        name = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))[1:]
        try:
            info = os.lstat(path)
        except OSError:
            return
        if os.path.islink(path):
            self.link(name, os.readlink(path))
        elif os.path.isdir(path):
            self.directory(name, info.st_mode & 0o7777)
        elif os.path.isfile(path):
            self.file(name, Path(path).read_bytes(), info.st_mode & 0o7777)

    def done(self):
        self.tar.close()


def closure(packages):
    """These and all that they depend on, of those that are installed."""
    said = run(["dpkg-query", "-W", "-f",
                "${db:Status-Abbrev}|${Package}|${Provides}|${Pre-Depends},${Depends}\n"]).out
    depends, provided = {}, {}
    for line in said.splitlines():
        state, name, provides, needs = line.split("|", 3)
        if not state.startswith("ii"):
            continue
        words = [each.strip().split(" ")[0].split(":")[0]
                 for each in needs.replace("|", ",").split(",")]
        depends[name] = [each for each in words if each]
        for each in provides.split(","):
            provided.setdefault(each.strip().split(" ")[0], name)
    wanted, todo = set(), list(packages)
    while todo:
        name = todo.pop()
        name = name if name in depends else provided.get(name)
        if name and name not in wanted:
            wanted.add(name)
            todo += depends[name]
    return sorted(wanted)


def make_debian(root):
    for name, target in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"),
                         ("lib64", "usr/lib64")):
        root.link(name, target)
    skipped = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/")
    for name in run(["dpkg-query", "-L", *closure(PACKAGES)]).out.splitlines():
        if name.startswith(("/usr/", "/bin/", "/sbin/", "/lib")) and not name.startswith(skipped):
            root.copy(name)
    for top in ("/etc/alternatives", "/etc/ld.so.conf.d"):
        for name in os.listdir(top):
            root.copy(os.path.join(top, name))
    for name in ("/etc/ld.so.conf", "/etc/ld.so.cache", "/etc/debian_version"):
        root.copy(name)


def make_busybox(root):
    root.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    for name in run(["/bin/busybox", "--list"]).out.split():
        if name != "busybox":
            root.link("bin/" + name, "busybox")


def make_bare(root):
    with contextlib.ExitStack() as stack:
        directory = work_directory("sbxfs-bare-")
        stack.callback(shutil.rmtree, directory, True)
        run(["gcc", "-Os", "-s", "-static", "-x", "c", "-o", directory / "sleeper", "-"],
            input=SLEEPER)
        root.file("sleeper", (directory / "sleeper").read_bytes(), 0o755)


IMAGES = {"busybox": make_busybox, "debian": make_debian, "bare": make_bare}


class Dockerd:
    """One engine. live_restore: containers outlive it."""

    def __init__(self, directory, live_restore=False, options=()):
        self.base = Path(directory)
        self.base.mkdir(exist_ok=True)
        self.socket = self.base / "docker.sock"
        self.host = "unix://%s" % self.socket
        self.log_path = self.base / "log"
        self.cgroup = "sbxfs-test-%d-%d" % (os.getpid(), id(self) % 100000)
        self.options = list(options) + (["--live-restore"] if live_restore else [])
        self.process = None
        self.images = set()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        for name in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.base / name).unlink(missing_ok=True)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "-H", self.host, "--data-root", self.base / "data", "--exec-root",
                 self.base / "exec", "-p", self.base / "docker.pid", "--bridge=none",
                 "--iptables=false", "--ip6tables=false", "--ip-forward=false",
                 "--cgroup-parent=/" + self.cgroup, "--shutdown-timeout=2", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env=dict(os.environ, TMPDIR=str(self.base)))
        wait_for(self.answers, 120, 0.05, what=self.log)
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise Failed("dockerd ended with %s: %s" % (self.process.returncode, self.log()))
        return self.socket.exists() and self.docker("version", check=False).code == 0

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def docker(self, *argv, **kwargs):
        """The client's Result."""
        return run([CLIENT, "-H", self.host, *argv],
                   env={"DOCKER_CONFIG": str(self.base / "client")}, **kwargs)

    def inspect(self, container):
        return json.loads(self.docker("inspect", container).out)[0]

    def containers(self):
        """The ids of all that there are."""
        return self.docker("ps", "-aq", "--no-trunc").out.split()

    def image(self, name, **changes):
        """The image's name; made when it is first asked for. changes: WORKDIR, USER, ENV ... of it."""
        tag = name + "".join("-" + re.sub("[^a-z0-9]+", "-", "x%sx" % value.lower())
                             for value in changes.values())
        if tag not in self.images:
            path = self.base / "rootfs.tar"
            root = Rootfs(path)
            IMAGES[name](root)
            root.done()
            options = [word for key, value in changes.items() for word in ("-c", "%s %s" % (key, value))]
            self.docker("import", *options, path, tag, timeout=240)
            path.unlink()
            self.images.add(tag)
        return tag

    def kill(self):
        """kill -9 of the engine, not of what it runs."""
        self.process.kill()
        self.process.wait(timeout=60)

    def _others(self):
        """Processes of this engine but for itself: containerd, shims, what runs in containers."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                line = Path("/proc/%s/cmdline" % pid).read_bytes()
                groups = Path("/proc/%s/cgroup" % pid).read_text()
                state = Path("/proc/%s/stat" % pid).read_text().rpartition(")")[2].split()[0]
                mine = os.fsencode(str(self.base)) in line and int(pid) != os.getpid() and \
                    b"containerd" in line.split(b"\0")[0]
                if state not in "ZX" and (mine or "/%s/" % self.cgroup in groups + "/"):
                    found.append(int(pid))
        return found

    def stop(self):
        if self.process is None:
            return
        with contextlib.suppress(Failed):
            if self.process.poll() is None:
                found = self.containers()
                if found:
                    self.docker("rm", "-f", "-v", *found, timeout=60, check=False)
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            end(self.process, 30)
        self.process = None
        deadline = time.monotonic() + 60
        while self._others() and time.monotonic() < deadline:
            for pid in self._others():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self._clean()
        if self._others():
            raise Failed("left of the engine: %s" % self._others())

    def _clean(self):
        for point in sorted(mounts_below(self.base), reverse=True):
            run(["umount", "-l", point], check=False)
        for _ in range(100):
            # os.walk bears with what others remove meanwhile; Path.glob doesn't
            groups = [top for top, _, _ in os.walk("/sys/fs/cgroup") if self.cgroup in top.split("/")]
            for path in sorted(groups, key=len, reverse=True):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            if not groups:
                break
            time.sleep(0.1)
        shutil.rmtree(self.base, ignore_errors=True)
