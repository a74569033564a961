# SPDX-License-Identifier: Apache-2.0
"""What nested runs have counted is shown before pytest's closing line."""

import pytest


@pytest.fixture
def tell(request):
    """tell(line): show a line at the end of the whole run."""
    return lambda line: request.node.user_properties.append(("tell", line))


def pytest_terminal_summary(terminalreporter):
    reports = [report for each in terminalreporter.stats.values() for report in each
               if getattr(report, "when", None) == "call"]
    lines = [line for report in reports for key, line in report.user_properties if key == "tell"]
    if lines:
        terminalreporter.section("builds and nested runs")
        for line in lines:
            terminalreporter.write_line(line)
