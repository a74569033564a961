# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of a provider, without a mount."""

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

from fakes import Fake
from support import kinds, mounts
from support.sshd import Sshd
from support.tools import need

sys.path.insert(0, os.path.dirname(__file__))
pytest.register_assert_rewrite("service_cases")
from box_files import Files  # noqa: E402
from driver import Driver  # noqa: E402
from files_support import fake_environ, fake_files, fake_root, ssh_section, until_it_answers  # noqa: E402

FILE_KINDS = ["local-cached", "ssh", "ssh-sftp",  # the last: a host without a shell for us
              "docker-busybox", "docker-bare",  # an image with nothing but one program
              "docker-busybox-shell", "docker-debian-shell",  # without our program in it
              "e2b", "e2b-shell", "opensandbox", "opensandbox-shell", "opensandbox-scripts",
              "daytona", "daytona-shell"]


@pytest.fixture
def drive(base):
    """drive(**options): a provider of this test's own; nothing of it may be left at the end."""
    need("bwrap")
    if not (mounts.build_directory() / "tests/providers/conform").exists():
        pytest.fail("tests/providers/conform is not built", pytrace=False)
    made, count = [], itertools.count()

    def make(**options):
        directory = base / ("d%d" % next(count))
        directory.mkdir()
        directory.chmod(0o711)
        driver = Driver(directory, **options).start()
        made.append(driver)  # one that did not start has nothing to leave
        return driver
    yield make
    for each in reversed(made):
        each.__exit__(None, None, None)


@pytest.fixture
def d(drive):
    """A local provider with nothing allowed."""
    return drive()


@pytest.fixture
def box(d):
    """A running sandbox of `d`."""
    d.create("k1", name="web")
    return "k1"


@pytest.fixture(scope="module")
def servers():
    """One sshd with a shell, one without."""
    made = {}
    directory = mounts.work_directory("sbxfs-sshd-")

    def get(kind):
        if kind not in made:
            config = ["ForceCommand internal-sftp"] if kind == "ssh-sftp" else []
            made[kind] = Sshd(directory / kind, config=config).start()
        return made[kind]
    yield get
    for server in made.values():
        server.stop()
    shutil.rmtree(directory, ignore_errors=True)


def docker_files(drive, image, how="agent"):
    """Files of a container, which its process 1 lets us see as they are."""
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine")
    engine = kinds.DOCKER.engine()
    driver = drive(kind="docker", pairs=["host=" + engine.host, "files=" + how])
    driver.create("k1", image=engine.image(image))
    files = Files(driver, "k1", "/")
    found = engine.inspect(driver.ids["k1"])
    files.real = Path("/proc/%d/root%s" % (found["State"]["Pid"], files.workdir()))
    files.has_ns = (image, how) != ("busybox", "shell")  # its tools know seconds only
    files.has_handles = how != "shell"
    files.runs = image != "bare"
    return files


@pytest.fixture(scope="module")
def e2b_fake():
    """E2B's stand-in."""
    with Fake("e2b") as fake:
        yield fake


@pytest.fixture(scope="module")
def opensandbox_fake():
    """OpenSandbox's stand-in."""
    with Fake("opensandbox") as fake:
        yield fake


@pytest.fixture(scope="module")
def daytona_fake():
    """Daytona's stand-in."""
    with Fake("daytona") as fake:
        yield fake


@pytest.fixture(scope="module")
def scripts_fake():
    """An OpenSandbox deployment that takes no program of ours, nor keeps one on a stream."""
    with Fake("opensandbox") as fake:
        for path, status in (("/files/upload", 403), ("/pty", 404)):
            fake.fault(kind="status", method="POST", path=path, status=status, count=0, body="{}")
        yield fake


@pytest.fixture(params=FILE_KINDS)
def f(request, drive, servers):
    """The files of a running sandbox."""
    if request.param == "local-cached":
        driver = drive(kind="local-cached")
        driver.create("k1")
        return Files(driver, "k1", driver.workspace("k1"))
    kind, _, how = request.param.partition("-")
    if kind in ("e2b", "opensandbox", "daytona"):
        fake = request.getfixturevalue("scripts_fake" if how == "scripts" else kind + "_fake")
        return fake_files(drive, fake, kind, how or "agent")
    if request.param.startswith("docker"):
        return docker_files(drive, *request.param.split("-")[1:])
    driver = drive(kind="ssh", pairs=ssh_section(servers(request.param)))
    driver.create("k1")
    files = Files(driver, "k1", "/")
    files.real = Path(files.workdir())
    files.has_shell = files.has_ns = request.param == "ssh"
    return files


@pytest.fixture
def big(base):
    """300 MiB that don't repeat, in a file of this machine."""
    path = base / "big"
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for i in range(300):
            file.write(i.to_bytes(8, "little") + block[8:])
    return path


@pytest.fixture
def remote(drive, servers):
    """remote(kind, ms): files of a sandbox behind a way of this length, and the way."""
    made = []

    def get(kind="ssh", ms=0, **more):
        server = servers(kind)
        way = server.delay(ms)
        driver = drive(kind="ssh", pairs=ssh_section(server, port=way.port, **more))
        files = Files(driver, "k1", "/")
        made.append((files, way))
        driver.create("k1")
        files.real = Path(files.workdir())
        return files, way
    yield get
    for files, way in made:
        try:
            until_it_answers(lambda: files.driver.destroy("k1"))
        finally:
            way.stop()
