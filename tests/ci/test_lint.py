# SPDX-License-Identifier: Apache-2.0
"""What the linters say: clang-format, clang-tidy, shellcheck, and the man page's own formatter."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import builds
from support.builds import ROOT

pytestmark = pytest.mark.xdist_group("ci")  # one after the other: builds, and what needs them


def sources(*suffixes):
    return sorted(str(path.relative_to(ROOT)) for top in ("fs", "providers", "transport", "tests")
                  for path in (ROOT / top).rglob("*") if path.suffix in suffixes)


def test_layout_of_the_text_is_clang_formats():
    code, said = builds.run([ROOT / "tools" / "format", "--check"], 280)
    assert code == 0, said[-20000:]


# A third of what the analyzer may look at in a function by default: it takes a third of the time.
QUIET = "--extra-arg=-Wno-unknown-warning-option"  # the commands are gcc's
ANALYZER = ["--extra-arg=" + arg for arg in ("-Xclang", "-analyzer-config", "-Xclang", "max-nodes=75000")]


def tidy(where, path):
    how = ["--checks=-clang-analyzer-*"] if path.startswith("tests/") else ANALYZER  # what we run, not what runs it
    argv = [*builds.BESIDE, "clang-tidy", "--quiet", "-p", where, QUIET, *how, path]
    done = subprocess.run(argv, cwd=ROOT, timeout=1800, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return "" if done.returncode == 0 else "%s%s" % (done.stdout, done.stderr)


@pytest.mark.xdist_group("tidy")  # beside the others: gcc's build is there before
@pytest.mark.timeout(2100)
@pytest.mark.skipif("clang" not in builds.wanted(), reason="tools/test without a pattern takes its time")
def test_clang_tidy_finds_nothing():
    where = builds.directory("gcc")
    commands = where / "compile_commands.json"
    assert commands.exists(), "%s is not there" % commands
    known = {os.path.relpath(os.path.join(c["directory"], c["file"]), ROOT) for c in json.loads(commands.read_text())}
    paths = [path for path in sources(".c") if path in known]
    missing = [path for path in sources(".c")
               if path not in known and not path.startswith("tests/support/")]  # a test compiles these itself
    assert not missing, "no meson.build lists: " + " ".join(missing)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda path: tidy(where, path), paths))
    assert not any(said), "".join(said)[-30000:]


def scripts():
    found = []
    for path in sorted([*(ROOT / "tools").iterdir(), *(ROOT / ".ci").iterdir()]):
        if path.is_file() and path.read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash")):
            found.append(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("script", scripts())
def test_shellcheck_finds_nothing(script):
    code, said = builds.run(["shellcheck", "--severity=style", script], 280)
    assert code == 0, said


def test_man_page_is_set_without_a_warning():
    code, said = builds.run(["groff", "-man", "-Tutf8", "-ww", "-z", "fs/sbxfs.1"], 280)
    assert code == 0 and not said, said
