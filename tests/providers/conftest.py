# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of a provider, without a mount."""

import itertools
import os
import sys

import pytest

from support import mounts
from support.tools import need

sys.path.insert(0, os.path.dirname(__file__))
from driver import Driver  # noqa: E402


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
