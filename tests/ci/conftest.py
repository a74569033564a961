# SPDX-License-Identifier: Apache-2.0
"""What nested runs have counted is shown before pytest's closing line."""

import pytest

LINES = pytest.StashKey()


@pytest.fixture
def tell(request):
    """tell(line): show a line at the end of the whole run."""
    return request.config.stash.setdefault(LINES, []).append


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("builds and nested runs")
        for line in lines:
            terminalreporter.write_line(line)
