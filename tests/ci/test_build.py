# SPDX-License-Identifier: Apache-2.0
"""Every compiler, with warnings as errors, and every unit test and fuzz corpus: by gcc, and under each sanitizer.

The sanitizers' builds are clang's, so its plain one only has to compile.
"""

import os
import re

import pytest

from support import builds

IN_TURN = pytest.mark.xdist_group("ci")  # one after the other: builds, and what needs them

# Known before anything is built where tools/test has configured gcc's build; the same in every build.
UNITS = sorted(builds.unit_tests("gcc"))


@IN_TURN
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("build", builds.wanted())
def test_build(build):
    code, said = builds.make(build)
    assert code == 0, said[-20000:]
    warnings = [w for w in re.findall(r"^.*warning: .*$", said, re.M) if "has no sources" not in w]
    assert not warnings, "\n".join(warnings)


@pytest.mark.timeout(1000)  # each has a limit of its own
@pytest.mark.parametrize("build, unit", [
    pytest.param(build, unit, marks=() if build == "gcc" else IN_TURN)  # gcc's was there before
    for build in builds.wanted() if build != "clang" for unit in UNITS])
def test_unit(build, unit):
    described = builds.unit_tests(build).get(unit)
    assert described, "%s is not in the build %s: did it fail?" % (unit, builds.directory(build))
    env = dict(os.environ, **builds.SANITIZERS, **described["env"])
    slowness = 4 if build in ("asan", "tsan") else 2  # others run beside it
    code, said = builds.run(described["cmd"], described["timeout"] * slowness, env=env)
    assert code == 0, "%s: exit %d\n%s" % (" ".join(described["cmd"]), code, said[-20000:])

