# SPDX-License-Identifier: Apache-2.0
"""Compilers, linkers, ar and make on fs/."""

import os
import time

import pytest

from support import kinds
from support.tools import need, run

pytestmark = pytest.mark.kinds(*kinds.ALL)

MAIN = """#include <stdio.h>
int answer(void);
int main(void) { printf("%d\\n", answer()); return 0; }
"""
ANSWER = "int answer(void) { return 42; }\n"


@pytest.fixture
def project(fsdir):
    (fsdir / "main.c").write_text(MAIN)
    (fsdir / "answer.c").write_text(ANSWER)
    return fsdir


@pytest.mark.parametrize("linker, program", [("bfd", "ld.bfd"), ("lld", "ld.lld"),
                                             ("mold", "mold")])
def test_gcc_links_and_the_program_runs(project, linker, program):
    """The linkers write in ways of their own: bfd by seeking, lld and mold by shared mappings."""
    need("gcc", program)
    run(["gcc", "-g", "-c", "main.c", "answer.c"], cwd=project)
    for _ in range(2):  # the second time over the first output
        run(["gcc", "-fuse-ld=" + linker, "-o", "program", "main.o", "answer.o"], cwd=project)
        assert os.access(project / "program", os.X_OK)
        assert run([project / "program"]).out == "42\n"
    # what was linked on fs/ is the same, byte for byte, as what is linked elsewhere
    run(["gcc", "-fuse-ld=" + linker, "-shared", "-fPIC", "-o", "lib.so", "answer.c"], cwd=project)
    run(["gcc", "-fuse-ld=" + linker, "-o", "with", "main.c", "./lib.so"], cwd=project)
    assert run(["./with"], cwd=project).out == "42\n"


def test_clang_with_lld(project):
    need("clang", "ld.lld")
    run(["clang", "-fuse-ld=lld", "-o", "program", "main.c", "answer.c"], cwd=project)
    assert run([project / "program"]).out == "42\n"


def test_ar_makes_and_changes_an_archive(project):
    need("gcc", "ar")
    run("gcc -c answer.c main.c && ar rcs lib.a answer.o && ar r lib.a main.o && ar d lib.a main.o "
        "&& ranlib lib.a", cwd=project)
    assert run(["ar", "t", "lib.a"], cwd=project).out == "answer.o\n"
    run(["gcc", "-o", "program", "main.c", "lib.a"], cwd=project)
    assert run([project / "program"]).out == "42\n"


def test_a_compiled_program_runs_at_once_after_each_build(project):
    """No ETXTBSY, and never the old program: a page cache that outlives its file shows here."""
    need("gcc")
    for n in range(10):
        (project / "answer.c").write_text(ANSWER.replace("42", str(n)))
        run(["gcc", "-o", "program", "main.c", "answer.c"], cwd=project)
        assert run([project / "program"]).out == "%d\n" % n


MAKEFILE = """all: out1 out2
out%: in%
\t@echo making $@
\t@cp $< $@
"""


def test_make_rebuilds_exactly_what_is_newer(fsdir):
    need("make")
    (fsdir / "Makefile").write_text(MAKEFILE)
    for n in "12":
        (fsdir / ("in" + n)).write_text(n)
    assert run(["make"], cwd=fsdir).out == "making out1\nmaking out2\n"
    assert "making" not in run(["make"], cwd=fsdir).out
    (fsdir / "in1").write_text("new")
    assert run(["make"], cwd=fsdir).out == "making out1\n"
    assert (fsdir / "out1").read_text() == "new"
    assert "making" not in run(["make"], cwd=fsdir).out


def test_make_compares_within_the_same_second(fsdir):
    """Times a few microseconds apart in one second: newer by ns means rebuild, older means not."""
    need("make")
    (fsdir / "Makefile").write_text(MAKEFILE)
    second = (int(time.time()) - 100) * 10**9
    for n in "12":
        (fsdir / ("in" + n)).write_text(n)
        (fsdir / ("out" + n)).write_text(n)
        os.utime(fsdir / ("in" + n), ns=(second + 500, second + 500))
        os.utime(fsdir / ("out" + n), ns=(second + 501, second + 501))
    assert "making" not in run(["make"], cwd=fsdir).out
    os.utime(fsdir / "in2", ns=(second + 502, second + 502))
    assert run(["make"], cwd=fsdir).out == "making out2\n"


def test_make_parallel_build_of_many_files(fsdir):
    need("make", "gcc")
    for n in range(40):
        (fsdir / ("part%d.c" % n)).write_text("int part%d(void) { return %d; }\n" % (n, n))
    (fsdir / "Makefile").write_text(
        "objects = $(patsubst %.c,%.o,$(wildcard part*.c))\nlib.a: $(objects)\n\tar rcs $@ $^\n"
        "clean:\n\trm -f *.o lib.a\n")
    run(["make", "-j4"], cwd=fsdir, timeout=120)
    assert len(run(["ar", "t", "lib.a"], cwd=fsdir).out.split()) == 40
    assert "up to date" in run(["make", "-j4"], cwd=fsdir).out
    run(["make", "clean"], cwd=fsdir)
    assert not list(fsdir.glob("*.o"))


@pytest.mark.slow
def test_cargo_builds_and_runs_a_package(fsdir, scratch):
    need("cargo")
    if run(["cargo", "--version"], check=False).code != 0:
        pytest.skip("cargo is installed without a toolchain")
    env = {"CARGO_NET_OFFLINE": "true"}
    run(["cargo", "init", "--name", "hello", "--vcs", "none", "project"], cwd=fsdir, env=env)
    top = fsdir / "project"
    assert "Hello, world!" in run(["cargo", "run", "-q"], cwd=top, env=env, timeout=200).out
    again = run(["cargo", "build"], cwd=top, env=env, timeout=200).err
    assert "Compiling" not in again
    (top / "src/main.rs").write_text('fn main() { println!("changed"); }\n')
    assert run(["cargo", "run", "-q"], cwd=top, env=env, timeout=200).out == "changed\n"
