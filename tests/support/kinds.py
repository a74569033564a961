# SPDX-License-Identifier: Apache-2.0
"""The kinds of sandboxes that the tests of fs/ run in: what makes one, and what it can't do.

    pytestmark = pytest.mark.kinds(*kinds.ALL)       each test once in each kind, as test_x[ssh]
    @pytest.mark.kinds("local")                      only there
    @pytest.mark.needs("fifos")                      only where there is such a thing

`share` says how much of the long loops a kind runs: local has the full number, whose volume is the
other one; the kinds of the cached volume share theirs, so that the whole run stays short.
$SBXFS_TEST_KINDS names those of ALL, such as "ssh".
"""

import os
import shutil
from pathlib import Path

from .tools import Failed


class Kind:
    """One kind. `lacks` names what DESIGN.md lets it refuse, with the reason."""

    def __init__(self, name, share=1.0, lacks=()):
        self.name = name
        self.share = share
        self.lacks = dict(lacks)

    def can(self, what):
        assert what in WORDS, what
        return what not in self.lacks

    def scaled(self, count, least=1):
        """A number of rounds, steps or seconds for this kind."""
        return max(least, int(count * self.share))

    def options(self, mount):
        """Mount options with which mkdir makes this kind; may write files below mount.base."""
        return [] if self.name == "local" else ["provider=" + self.name]

    def backing(self, box):
        """The real directory behind fs/: the host's side of a sandbox that is on this machine."""
        # not by "**": what goes away while it is walked through, as another sandbox's files may, is an error
        found = list(box.mount.state.glob("providers/*/%s/workspace" % box.status()["id"]))
        if len(found) != 1:
            raise Failed("%d workspaces of %s" % (len(found), box.name))
        return found[0]

    def stop(self):
        """End what was started for the session."""

    def __repr__(self):
        return self.name


class SshKind(Kind):
    """Workspaces of one test account, by an sshd of this session that is started when it is needed."""

    def __init__(self, name, **kwargs):
        super().__init__(name, **kwargs)
        self.sshd = None
        self.count = 0

    def server(self):
        """The sshd that all tests of this kind share."""
        from .mounts import work_directory
        from .sshd import Sshd
        if self.sshd is None:
            self.sshd = Sshd(work_directory("sbxfs-sshd-")).start()
        return self.sshd

    def options(self, mount):
        server = self.server()
        self.count += 1
        base = server.base / ("base%d" % self.count)
        return section(mount, "host", server, base=base)

    def backing(self, box):
        return box.mount.workspaces / box.status()["id"].split(".")[0] / "work"

    def stop(self):
        if self.sshd is not None:
            try:
                self.sshd.stop()
            finally:
                shutil.rmtree(self.sshd.base, ignore_errors=True)
                self.sshd = None


def section(mount, name, server, port=None, **settings):
    """Mount options for sandboxes on a server; its INI section goes to mount.base/config.ini."""
    keys = dict({"kind": "ssh", "host": server.host, "port": port or server.port, "user": server.user,
                 "identity": server.key, "known_hosts": server.known_hosts, "ssh_config": "none"},
                **settings)
    path = mount.base / "config.ini"
    before = path.read_text() if path.exists() else ""
    if not before:  # mkdir's
        mount.workspaces = Path(keys.get("base") or server.home / ".sbxfs")
    path.write_text("%s[%s]\n%s\n" % (before, name, "".join("%s = %s\n" % each
                                                          for each in keys.items() if each[1])))
    path.chmod(0o600)
    return ["config=%s" % path, "provider=" + name]


class DockerKind(Kind):
    """Containers of one engine of this session, which is started when it is needed."""

    def __init__(self, name, **kwargs):
        super().__init__(name, **kwargs)
        self.dockerd = None
        self.places = {}  # by container

    def engine(self):
        from .dockerd import Dockerd
        from .mounts import work_directory
        if self.dockerd is None:
            self.dockerd = Dockerd(work_directory("sbxfs-dockerd-")).start()
        return self.dockerd

    def options(self, mount):
        path = mount.base / "config.ini"
        before = path.read_text() if path.exists() else ""
        path.write_text("%s[docker]\nhost = %s\nimage = %s\n" % (
            before, self.engine().host, self.engine().image("debian")))
        path.chmod(0o600)
        return ["config=%s" % path, "provider=docker"]

    def backing(self, box):
        """Through process 1 of the container, as the host's root sees it. Asked for once: that is slow."""
        ident = box.status()["id"]
        if ident not in self.places or not self.places[ident].exists():
            found = self.engine().inspect(ident)
            self.places[ident] = Path("/proc/%d/root%s" % (found["State"]["Pid"],
                                                           found["Config"]["WorkingDir"]))
        return self.places[ident]

    def stop(self):
        if self.dockerd is not None:
            try:
                self.dockerd.stop()
            finally:
                self.dockerd = None


class FakeKind(Kind):
    """Sandboxes of one stand-in of this session, which is started when it is needed."""

    def __init__(self, name, home, keys, **kwargs):
        """home: the working directory; keys: of the INI section, by their variables."""
        super().__init__(name, **kwargs)
        self.home, self.keys = home, keys
        self.fake = None

    def server(self):
        """The stand-in that all tests of this kind share."""
        from fakes import Fake
        if self.fake is None:
            self.fake = Fake(self.name).start()
        return self.fake

    def options(self, mount):
        return self.options_on(self.server(), mount)

    def options_on(self, fake, mount):
        """Mount options with which mkdir makes sandboxes of this stand-in."""
        path = mount.base / "config.ini"
        before = path.read_text() if path.exists() else ""
        keys = "".join("%s = %s\n" % (key, fake.environ[name]) for key, name in self.keys.items())
        path.write_text("%s[%s]\n%s" % (before, self.name, keys))
        path.chmod(0o600)
        return ["config=%s" % path, "provider=" + self.name]

    def backing(self, box):
        return self.backing_on(self.server(), box)

    def backing_on(self, fake, box):
        return fake.base / "boxes" / box.status()["id"] / self.home

    def stop(self):
        if self.fake is not None:
            try:
                self.fake.stop()
            finally:
                self.fake = None


WORDS = ("blocks", "fifos", "hard-links", "long-paths", "paused-files", "stop")

REMOTE = {"blocks": "SFTP doesn't tell which parts of a file are holes",
          "fifos": "no provider call makes one",
          "hard-links": "a queued change can't say how many names a file has; -o sync makes them",
          "long-paths": "provider calls name files by whole paths, which end at PATH_MAX"}
FROZEN = dict(REMOTE, **{"paused-files": "what is paused inside can't be asked for files"})
SERVICE = dict(FROZEN, stop="the service has no such state")

LOCAL = Kind("local")
CACHED = Kind("local-cached", share=0.2, lacks=REMOTE)
SSH = SshKind("ssh", share=0.15, lacks=REMOTE)
DOCKER = DockerKind("docker", share=0.15, lacks=FROZEN)
E2B = FakeKind("e2b", "home/user", {"api_key": "E2B_API_KEY", "api_url": "E2B_API_URL",
                                    "sandbox_url": "E2B_SANDBOX_URL"}, share=0.1, lacks=SERVICE)
OPENSANDBOX = FakeKind("opensandbox", "workspace", {
    "domain": "OPEN_SANDBOX_DOMAIN", "api_key": "OPEN_SANDBOX_API_KEY"}, share=0.1, lacks=SERVICE)
DAYTONA = FakeKind("daytona", "home/daytona", {"api_key": "DAYTONA_API_KEY", "api_url": "DAYTONA_API_URL"},
                   share=0.1, lacks=FROZEN)
FAKES = (E2B, OPENSANDBOX, DAYTONA)
KINDS = {kind.name: kind for kind in (LOCAL, CACHED, SSH, DOCKER, *FAKES)}
# Of the suites that all can run. With "ssh", fs/ over a real sshd, and hosts that go away: half an hour.
ALL = tuple(os.environ.get("SBXFS_TEST_KINDS", "local local-cached").split())
CACHED_ONES = tuple(name for name in ALL if name != LOCAL.name)  # those of the cached volume


def chosen(marker, needs):
    """The kinds that a test with these markers runs in; markers may be None."""
    names = marker.args if marker else (LOCAL.name,)
    return [name for name in names if all(KINDS[name].can(word) for word in needs)]


def is_left_out(nodeid):
    """Tests that only a run with the kind ssh takes its time for."""
    return SSH.name not in ALL and ("mount/test_ssh_" in nodeid or
                                    ("test_ssh_exec.py" in nodeid and "dash" not in nodeid))


def stop_all():
    """End what kinds have started for the session."""
    for kind in KINDS.values():
        kind.stop()
