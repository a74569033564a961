# SPDX-License-Identifier: Apache-2.0
"""Where the tests of fs/ work: in a sandbox of the local provider, or anywhere else.

--fs-target=local (the default): fs/ of a new sandbox for each test. --fs-target=plain: a plain
directory, or --fs-target=/some/directory: below that one, to prove the tests themselves. Tests
marked mount_only hold only on a mount and are left out elsewhere.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from support.mounts import work_directory


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fs-target") == "local":
        return
    left_out = [i for i in items if i.get_closest_marker("mount_only") or "box" in i.fixturenames]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [i for i in items if i not in left_out]


@pytest.fixture
def fsdir(request):
    """The directory that a test of fs/ works in; empty at first."""
    target = request.config.getoption("--fs-target")
    if target == "local":
        yield request.getfixturevalue("box").fs
        return
    if target == "plain":
        path = work_directory("sbxfs-plain-")
    else:
        path = Path(tempfile.mkdtemp(dir=target))
    yield path
    shutil.rmtree(os.fsencode(path), ignore_errors=True)


@pytest.fixture
def scratch(base):
    """A plain directory of the host beside fs/."""
    path = base / "scratch"
    path.mkdir()
    return path
