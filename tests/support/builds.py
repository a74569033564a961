# SPDX-License-Identifier: Apache-2.0
"""The builds that tools/test looks at: their names, options, directories, and how to make them."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# name: (compiler, meson options). Every build has its warnings as errors.
BUILDS = {
    "gcc": ("gcc", []),
    "clang": ("clang", []),
    "asan": ("clang", ["-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "tsan": ("clang", ["-Db_sanitize=thread", "-Db_lundef=false"]),
}

# A report ends the program; what a daemon reports goes to its log, which the mount tests read.
SANITIZERS = {
    "ASAN_OPTIONS": "halt_on_error=1:detect_stack_use_after_return=1:abort_on_error=0",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:suppressions=%s" % (ROOT / "tests" / "ci" / "tsan.supp"),
}


# Compilers and linters take what the tests beside them leave of the processors: what waits for time-outs and watches
# for moments isn't held up by them, and what they need is needed anyway.
BESIDE = ("nice", "-n", "19")


def wanted():
    """The builds to make, in order: $SBXFS_TEST_BUILDS, else only gcc's, as `pytest` alone has it."""
    return os.environ.get("SBXFS_TEST_BUILDS", "gcc").split()


def directory(name):
    """Where a build is: gcc's in $SBXFS_TEST_BUILD or ./build, another beside it as DIR-NAME."""
    first = os.environ.get("SBXFS_TEST_BUILD") or os.environ.get("SBXFS_BUILD") or ROOT / "build"
    return Path(first) if name == "gcc" else Path("%s-%s" % (first, name))


def run(argv, timeout, **kwargs):
    """(exit code, all it said)."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout, check=False, cwd=ROOT, **kwargs)
    return done.returncode, done.stdout.decode(errors="replace")


def make(name):
    """Configure and compile one build; (exit code, all it said)."""
    compiler, options = BUILDS[name]
    where, said = directory(name), ""
    if not (where / "build.ninja").exists():
        code, said = run(["meson", "setup", "-Dwerror=true", *options, where, ROOT], 120,
                         env=dict(os.environ, CC=compiler))
        if code:
            return code, said
    code, more = run([*BESIDE, "ninja", "-C", where, "-k", "0", "all", "meson-test-prereq"], 1800)
    return code, said + more


def unit_tests(name):
    """What `meson test` would run in a build: {name: its description}. Empty if it is not configured."""
    path = directory(name) / "meson-info" / "intro-tests.json"
    if not path.exists():
        return {}
    return {each["name"]: each for each in json.loads(path.read_text())}
