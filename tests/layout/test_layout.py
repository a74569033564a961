# SPDX-License-Identifier: Apache-2.0
"""The layers hold, and the checks that say so can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"


def tool(name, *args):
    """Run one of tools/ with this Python; (exit code, all it said)."""
    done = subprocess.run([sys.executable, ROOT / "tools" / name, *args], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=280, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def tree(tmp_path):
    """A small tree without faults; tree(path, text) adds a file."""
    def add(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SPDX + ("#pragma once\n" if path.endswith(".h") else "") + text)
        return tmp_path
    for header in ("transport/base/buf.h", "transport/http.h", "providers/provider.h",
                   "providers/generic.h", "providers/local/local.h", "providers/acme.h",
                   "transport/base/worker.h", "fs/sandbox/sandbox.h", "fs/volume/volume.h",
                   "fs/control/ctl.h", "fs/tree/tree.h", "fs/mount/mount.h"):
        add(header, "int %s;\n" % header.replace("/", "_").replace(".", "_"))
    return add


def test_every_include_points_downwards():
    code, said = tool("check-includes")
    assert code == 0, said


def test_every_header_compiles_alone():
    code, said = tool("check-headers")
    assert code == 0, said


def test_every_compiler_flag_is_known():
    code, said = tool("check-flags")
    assert code == 0, said


GOOD = {
    "fs/sandbox/a.c": '#include <stdio.h>\n\n#include "transport/base/worker.h"\n#include "providers/provider.h"\n',
    "fs/tree/tree.c": '#include "fs/tree/tree.h"\n\n#include <stdio.h>\n\n#include "fs/volume/volume.h"\n',
    "fs/mount/a.c": '#include <fuse_lowlevel.h>\n\n#include "fs/tree/tree.h"\n',
    "fs/tree/tree_parts.c": '#include "fs/tree/tree.h"\n\n#include <stdio.h>\n',
    "fs/main.c": '#include <fuse_lowlevel.h>\n\n#include "fs/mount/mount.h"\n',
    "providers/registry.c": '#include "providers/local/local.h"\n',
    "providers/acme.c": '#include "providers/acme.h"\n\n#include "transport/http.h"\n',
    "providers/local/a.c": '#include "providers/local/local.h"\n#include "providers/generic.h"\n',
    "transport/base/json.c": "#include <cjson/cJSON.h>\n",
}

BAD = {
    "upwards in fs": ("fs/sandbox/a.c", '#include "fs/volume/volume.h"\n', "fs/sandbox is below fs/volume"),
    "tree to mount": ("fs/tree/a.c", '#include "fs/mount/mount.h"\n', "fs/tree is below fs/mount"),
    "unknown room": ("fs/cellar/a.c", '#include "fs/sandbox/sandbox.h"\n', "no known room"),
    "base upwards": ("transport/base/a.c", '#include "transport/http.h"\n', "includes only itself"),
    "transport upwards": ("transport/a.c", '#include "providers/provider.h"\n', "includes only itself"),
    "providers upwards": ("providers/a.c", '#include "fs/sandbox/sandbox.h"\n', "knows nothing of fs/"),
    "service to service": ("providers/other.c", '#include "providers/local/local.h"\n', "service local"),
    "contract to service": ("providers/quote.c", '#include "providers/acme.h"\n', "service acme"),
    "fs to service": ("fs/volume/a.c", '#include "providers/local/local.h"\n', "only providers/provider.h"),
    "fs to transport": ("fs/volume/a.c", '#include "transport/http.h"\n', "only transport/base/"),
    "fuse in tree": ("fs/tree/a.c", "#include <fuse_lowlevel.h>\n", "FUSE headers"),
    "fuse by name in options": ("fs/options.c", "#include <fuse3/fuse_opt.h>\n", "FUSE headers"),
    "cjson in control": ("fs/control/a.c", "#include <cjson/cJSON.h>\n", "cJSON belongs"),
    "curl in a provider": ("providers/other.c", "#include <curl/curl.h>\n", "libcurl belongs"),
    "relative": ("fs/tree/a.c", '#include "tree.h"\n', "written from the root"),
    "own header late": ("fs/tree/tree.c", '#include <stdio.h>\n#include "fs/tree/tree.h"\n', "comes first"),
    "system after project": ("fs/tree/a.c", '#include "transport/base/worker.h"\n#include <stdio.h>\n',
                             "before the project's"),
    "brackets": ("fs/tree/a.c", "#include <fs/tree/tree.h>\n", "go in quotes"),
    "tests in the program": ("fs/tree/a.c", '#include "tests/unit/check.h"\n', "does not include its tests"),
}


def test_include_check_accepts_what_is_right(tree):
    for path, text in GOOD.items():
        root = tree(path, text)
    code, said = tool("check-includes", root)
    assert code == 0, said


@pytest.mark.parametrize("case", BAD)
def test_include_check_refuses(tree, case):
    path, text, sentence = BAD[case]
    tree("tests/unit/check.h", "")
    root = tree(path, text)
    code, said = tool("check-includes", root)
    assert code == 1
    assert said.count("\n") == 2, "one fault and the count: " + said
    assert said.startswith(path + ":") and sentence in said


def test_include_check_reads_through_comments(tree):
    root = tree("fs/tree/a.c", '/* #include "fs/mount/mount.h"\n#include "tree.h" */\n')
    assert tool("check-includes", root)[0] == 0


def test_include_check_wants_licence_and_pragma(tree, tmp_path):
    tree("fs/tree/a.c", "")
    (tmp_path / "fs/tree/b.h").write_text("int b;\n")
    code, said = tool("check-includes", tmp_path)
    assert code == 1
    assert "SPDX" in said and "#pragma once" in said


def test_include_check_of_nothing_fails(tmp_path):
    assert tool("check-includes", tmp_path)[0] == 1


@pytest.mark.parametrize("text", ["size_t n;\n", "struct a {};\n#include \"fs/none.h\"\n"])
def test_header_check_refuses_what_leans_on_others(tree, text):
    root = tree("fs/tree/a.h", text)
    code, said = tool("check-headers", root)
    assert code == 1
    assert "fs/tree/a.h: does not compile alone with gcc" in said
    assert "fs/tree/a.h: does not compile alone with clang" in said


def test_header_check_refuses_a_second_inclusion(tmp_path):
    header = tmp_path / "fs/a.h"
    header.parent.mkdir()
    header.write_text("struct a { int b; };\n")
    assert tool("check-headers", tmp_path)[0] == 1


@pytest.mark.parametrize("flag", ["-Wshadwo", "-Wno-sign-conversoin", "-Wvla -Wundef"])
def test_flag_check_refuses(tmp_path, flag):
    text = (ROOT / "meson.build").read_text()
    (tmp_path / "meson.build").write_text(text.replace("'-Wvla'", "'%s'" % flag))
    code, said = tool("check-flags", tmp_path)
    assert code == 1
    assert flag in said


def test_flag_check_knows_the_list(tmp_path):
    shutil.copy(ROOT / "meson.build", tmp_path)
    assert tool("check-flags", tmp_path)[0] == 0
    (tmp_path / "meson.build").write_text("project('x', 'c')\n")
    assert tool("check-flags", tmp_path)[0] == 1
