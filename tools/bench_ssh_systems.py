# SPDX-License-Identifier: Apache-2.0
"""What `tools/bench ssh` compares: the server, the delay before it, and the mounts of one directory of it each."""

import os
import re
import subprocess
import time
from pathlib import Path

from bench_common import Sbxfs, Trouble, drop_caches, end, process_stat, run, session, unmount, wait_until

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(leader):
    """CPU seconds of a session: sshfs forks its ssh twice, so that no tree of processes has them all."""
    total = 0
    for pid in session(leader):
        stat = process_stat(pid)
        if stat:
            total += sum(map(int, stat[11:15]))  # its own, and of the children that it waited for
    return total / TICKS


class Host:
    """The server by one of its ports: an ssh_config that calls it `bench`."""

    def __init__(self, base, sshd, port):
        self.base, self.port, self.user, self.key = base, port, sshd.user, sshd.key
        self.known_hosts = sshd.known_hosts
        self.config = base / "ssh_config"
        self.config.write_text(
            "Host bench\n HostName 127.0.0.1\n Port %d\n User %s\n IdentityFile %s\n IdentitiesOnly yes\n"
            " UserKnownHostsFile %s\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n LogLevel ERROR\n"
            % (port, self.user, self.key, self.known_hosts))


class Served:
    """A directory of the server, mounted by a program in the foreground that leads a session of its own."""

    name = "served"

    def __init__(self, base, host):
        self.host, self.base = host, base / self.name
        self.backing, self.dir, self.log = self.base / "server", self.base / "mnt", self.base / "log"
        self.process = None

    def argv(self):
        raise NotImplementedError

    def start(self):
        for path in (self.base, self.backing, self.dir):
            path.mkdir()
        self._mount()

    def _mount(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self.argv()], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)

        def is_there():
            if self.process.poll() is not None:
                raise Trouble("%s ended: %s" % (self.name, self.log.read_text(errors="replace")[-1000:]))
            return os.path.ismount(self.dir)
        wait_until(is_there, "a mount by " + self.name)
        os.statvfs(self.dir)

    def cpu(self):
        return cpu_of(self.process.pid)

    def fresh(self):
        self.unmount()
        drop_caches()
        self._mount()

    def unmount(self):
        try:
            unmount(self.dir)
        finally:
            end(self.process, 20)

    def stop(self):
        if self.process:
            self.unmount()


class Sshfs(Served):
    """sshfs as Debian packages it, without options."""

    name = "sshfs"
    options = ()

    def argv(self):
        return ["sshfs", "-f", "-F", self.host.config, "bench:%s" % self.backing, self.dir, *self.options]


class TunedSshfs(Sshfs):
    """The options that help it most."""

    name = "sshfs tuned"
    options = ("-o", "cache=yes,kernel_cache,max_conns=4")


class Rclone(Served):
    """rclone mount with all of its cache, each mount with a new one."""

    name = "rclone"
    count = 0

    def argv(self):
        self.count += 1
        return ["rclone", "mount", "--config", os.devnull, "--vfs-cache-mode", "full", "--vfs-fast-fingerprint",
                "--cache-dir", self.base / ("cache%d" % self.count), "--sftp-host", "127.0.0.1", "--sftp-port",
                self.host.port, "--sftp-user", self.host.user, "--sftp-key-file", self.host.key,
                "--sftp-known-hosts-file", self.host.known_hosts, ":sftp:%s" % self.backing, self.dir]

    def unmount(self):
        super().unmount()
        run(["rm", "-rf", self.base / ("cache%d" % self.count)])


class SshSbxfs(Sbxfs):
    """fs/ of one sandbox of the ssh provider."""

    def __init__(self, base, host, program):
        self.host = host
        base = base / self.name
        self.config = base / "config.ini"
        super().__init__(base, program, ["config=%s" % self.config, "provider=bench"])
        self.backing = None

    def start(self):
        self.base.mkdir()
        (self.base / "workspaces").mkdir()
        self.config.write_text(
            "[bench]\nkind = ssh\nhost = 127.0.0.1\nport = %d\nuser = %s\nidentity = %s\nknown_hosts = %s\nbase = %s\n"
            % (self.host.port, self.host.user, self.host.key, self.host.known_hosts, self.base / "workspaces"))
        self.config.chmod(0o600)
        super().start()
        self.exec("pwd")
        self.backing = Path((self.box / "stdout").read_text().rstrip("\n"))

    def cpu(self):
        return cpu_of(self.process.pid)

    def fresh(self):
        super().fresh()
        self.exec("true")  # connected, as the others are once they are mounted

    def sync(self):
        """Everything is on the server."""
        wait_until(lambda: re.search(r"^dirty_files 0$", (self.box / "status").read_text(), re.M), "no dirty file")


class Master:
    """ssh with a live ControlMaster."""

    def __init__(self, host, base):
        self.argv = ["ssh", "-F", str(host.config), "-S", str(base / "master")]
        self.socket = base / "master"
        self.process = None

    def start(self):
        self.process = subprocess.Popen([*self.argv, "-M", "-N", "bench"], stdin=subprocess.DEVNULL,
                                        start_new_session=True)
        wait_until(self.socket.exists, "an ssh master")
        time.sleep(0.1)

    def exec(self, text):
        run([*self.argv, "bench", text])

    def stop(self):
        if self.process:
            self.process.terminate()
            end(self.process, 5)
