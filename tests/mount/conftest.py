# SPDX-License-Identifier: Apache-2.0
"""Where the tests of fs/ work: in sandboxes of each kind, or anywhere else.

--fs-target=local (the default): fs/ of a new sandbox for each test, of the kinds (support/kinds.py)
that its markers name. --fs-target=plain: a plain
directory, or --fs-target=/some/directory: below that one, to prove the tests themselves. Tests
marked mount_only hold only on a mount and are left out elsewhere.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from support.mounts import work_directory
from support.plain import PlainBox


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fs-target") == "local":
        return
    left_out = [i for i in items if i.get_closest_marker("mount_only")
                or "mount" in i.fixturenames or "fresh_mount" in i.fixturenames]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [i for i in items if i not in left_out]


@pytest.fixture
def fsdir(request, kind):
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
def new_box(request, kind):
    """new_box(): one more sandbox, or where the target is plain, a directory that passes for one."""
    target = request.config.getoption("--fs-target")
    made = []

    def make():
        if target == "local":
            mount = request.getfixturevalue("mount")
            made.append(mount.create("%s%d" % (make.prefix, len(made))))
        else:
            made.append(PlainBox(work_directory("sbxfs-plain-")))
        return made[-1]
    make.prefix = re.sub("[^A-Za-z0-9]", "", request.node.name)[5:35]
    if target == "local":
        request.getfixturevalue("mount")  # so that it ends after us
    yield make
    for box in made:
        box.destroy()
        if target != "local":
            shutil.rmtree(box.fs, ignore_errors=True)


@pytest.fixture
def scratch(base):
    """A plain directory of the host beside fs/."""
    path = base / "scratch"
    path.mkdir()
    return path
