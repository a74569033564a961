# SPDX-License-Identifier: Apache-2.0
"""The mount tests again: under the sanitizers, and as a user who is not root."""

import os
import re
import shutil

import pytest

from support import builds
from support.builds import ROOT
from support.mounts import work_directory

pytestmark = pytest.mark.xdist_group("ci")  # one after the other: builds, and what needs them

# What the sanitizers look at, `pytest -k`: what is most entangled, for these runs are several times slower. Not what
# measures memory, nor floods. Of sandboxes on SSH hosts: their life.
SANITIZED = ("((random_walk or hostile or exec_basics or exec_io or lifecycle or faults_crash or faults_blocking"
             " or ctl_writes or conform) and not memory and not two_hundred and not fast_output)"
             " or cached_sending or (fs_git and local-cached) or (test_ssh_life and (life_of or paused))"
             " or (test_docker and (life_of or under_load or removed or attached_again))")

# What the unprivileged user runs: what may depend on who mounts. (The isolation tests mount as both.) SSH goes to the
# user's own account; what hosts and services that go away do is the same for every user.
UNPRIVILEGED = ("((fs_posix or fs_git or fs_build or fs_copy) and not local-cached) or exec_basics or lifecycle"
                " or (faults and not test_ssh_faults and not test_http_faults) or conform")

IS_FULL = set(builds.wanted()) == set(builds.BUILDS)


def nested(tell, what, argv, timeout, env):
    """Run pytest once more; its closing line is told, its output shown if it failed."""
    argv = ["/usr/bin/python3", "-m", "pytest", "-q", "-n", "3", "-p", "no:cacheprovider", *argv]
    code, said = builds.run(argv, timeout, env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **env))
    closing = said.rstrip().rsplit("\n", 1)[-1].strip("= ")
    tell("%-14s %s" % (what, closing))
    assert code == 0, said[-60000:]
    assert re.search(r"[1-9]\d* passed", closing), said[-5000:]


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not IS_FULL, reason="tools/test without a pattern makes the sanitizers' builds")
@pytest.mark.parametrize("build", ["asan", "tsan"])
def test_mount_under_sanitizer(build, tell):
    kinds = "local-cached" if build == "tsan" else "local local-cached"  # most of its threads are the cache's
    nested(tell, "mount, " + build, ["tests/mount", "tests/providers", "-k", SANITIZED], 1780,
           dict(builds.SANITIZERS, SBXFS_BUILD=str(builds.directory(build)), SBXFS_TEST_KINDS=kinds))


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not IS_FULL, reason="only with every build, not with a pattern")
@pytest.mark.skipif(os.geteuid() != 0, reason="the whole run is unprivileged already")
def test_mount_as_a_user(tell):
    # The user may not be able to read where we are: a copy of the tests and of the programs.
    copy = work_directory("sbxfs-user-")
    try:
        copy.chmod(0o755)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        build = builds.directory("gcc")
        for program in ("fs/sbxfs", "providers/local/sbxfs-holder", "tests/providers/conform"):
            (copy / "build" / program).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(build / program, copy / "build" / program)
        nested(tell, "mount, a user", [str(copy / "tests" / "mount"), str(copy / "tests" / "providers"),
                                       "-k", UNPRIVILEGED, "--as-user=sbxtest"], 1780,
               {"SBXFS_BUILD": str(copy / "build")})
    finally:
        shutil.rmtree(copy, ignore_errors=True)
