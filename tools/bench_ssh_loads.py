# SPDX-License-Identifier: Apache-2.0
"""The workloads of `tools/bench ssh`, and what they work on.

A group is run on one system at a time, in a directory that this system has never seen: it is put into the server's
directory behind the mount, or made through the mount. It yields a Step for each thing that it measured.
"""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from bench_common import (MIB, Trouble, create_files, git_env, grep, make_repository, make_tar, read_file,
                          read_randomly, run, timed, write_file)

# PERFORMANCE: what the figures of sshfs and of the prototype were measured with.
SMALL = {"mib": 64, "entries": 2000, "directories": 20, "files": 200, "modules": 60, "creates": 150, "untar": 200,
         "clone": 120, "reads": 150, "parallel reads": 800}
FULL = {"mib": 256, "entries": 10000, "directories": 100, "files": 3000, "modules": 300, "creates": 3000,
        "untar": 3000, "clone": 1000, "reads": 2000, "parallel reads": 8000}
DURABLE_LIMIT = 600  # seconds; rclone starts to send after 5
READERS = 8


@dataclass
class Step:
    """What was measured: a workload's name, seconds for how many units, and the daemon's CPU seconds or None."""

    name: str
    seconds: float
    units: float
    cpu: Optional[float] = None


def step(system, name, units, function, *args):
    before = system.cpu()
    seconds = timed(function, *args)[0]
    return Step(name, seconds, units, system.cpu() - before)


def durable_step(system, name, units, is_there, function, *args):
    """Two steps: until the tools are done, and until the server's directory has it all; the CPU of both is the second's."""
    before, start = system.cpu(), time.perf_counter()
    function(*args)
    seconds = time.perf_counter() - start
    while not is_there():
        if time.perf_counter() - start > DURABLE_LIMIT:
            raise Trouble("%s on %s: not on the server after %d s" % (name, system.name, DURABLE_LIMIT))
        time.sleep(0.005)
    durable = time.perf_counter() - start
    return Step(name, seconds, units), Step(name + " durable", durable, units, system.cpu() - before)


def sizes_below(top):
    """{relative path: size} of all files."""
    found = {}
    for base, _, files in os.walk(top):
        for file in files:
            path = os.path.join(base, file)
            try:
                found[os.path.relpath(path, top)] = os.lstat(path).st_size
            except FileNotFoundError:  # a temporary name
                pass
    return found


def has_all(top, expected):
    """A function that tells whether all of `expected` (see sizes_below) is below `top` by now."""
    def look():
        found = sizes_below(top)
        return all(found.get(path) == size for path, size in expected.items())
    return look


# -- groups: (system, inputs, name of a directory that is new)

def bulk(system, inputs, new):
    size = inputs.size["mib"]
    place = system.backing / new
    place.mkdir()
    write_file(place / "big", size * MIB)
    system.fresh()
    path = system.dir / new / "big"
    yield step(system, "seq read cold", size, read_file, path)
    yield step(system, "seq read warm", size, read_file, path)
    yield from durable_step(system, "seq write", size, has_all(place, {"written": size * MIB}), write_file,
                            system.dir / new / "written", size * MIB)


def read_by_many(path, count):
    """Readers with a handle each, at random places of their own."""
    troubles = []

    def reader(number):
        places = random.Random(number)
        try:
            with open(path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                blocks = os.fstat(file.fileno()).st_size // 4096
                for _ in range(count // READERS):
                    os.pread(file.fileno(), 4096, places.randrange(blocks) * 4096)
        except OSError as error:
            troubles.append(error)
    threads = [threading.Thread(target=reader, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise Trouble("random reads: %s" % troubles[0])


def places(system, inputs, new):
    place = system.backing / new
    place.mkdir()
    for name in ("one", "many"):
        write_file(place / name, inputs.size["mib"] * MIB)
    system.fresh()
    count, by_many = inputs.size["reads"], inputs.size["parallel reads"]
    yield step(system, "rand 4k, 1 reader", count, read_randomly, system.dir / new / "one", count)
    yield step(system, "rand 4k, 8 readers", by_many, read_by_many, system.dir / new / "many", by_many)


def tree(system, inputs, new):
    count = inputs.size["entries"]
    for name in ("find", "ls"):
        (system.backing / (new + name)).mkdir()
        run(["tar", "-xf", inputs.tree, "-C", system.backing / (new + name)])
    system.fresh()
    for name, argv in (("find -ls", ["find", system.dir / (new + "find"), "-ls"]),
                       ("ls -lR", ["ls", "-lR", system.dir / (new + "ls")])):
        yield step(system, name + " cold", count, run, argv)
        yield step(system, name + " warm", count, run, argv)


def small(system, inputs, new):
    count = inputs.size["files"]
    for name in ("grep", "cp"):
        (system.backing / (new + name)).mkdir()
        run(["tar", "-xf", inputs.files, "-C", system.backing / (new + name)])
    system.fresh()
    yield step(system, "grep -r cold", count, grep, system.dir / (new + "grep"))
    yield step(system, "grep -r warm", count, grep, system.dir / (new + "grep"))
    out = inputs.base / "out"
    yield step(system, "cp -r out", count, run, ["cp", "-r", system.dir / (new + "cp"), out])
    if sizes_below(out) != sizes_below(system.backing / (new + "cp")):
        raise Trouble("cp -r out of %s: not what is on the server" % system.name)
    run(["rm", "-rf", out])


def package(system, inputs, new):
    (system.backing / new).mkdir()
    inputs.make_package(system.backing / new / "package")
    system.fresh()
    argv = [sys.executable, "-S", "-c", "import package"]
    env = dict(os.environ, PYTHONPATH=str(system.dir / new), PYTHONDONTWRITEBYTECODE="1")
    for name in ("import cold", "import warm"):
        yield step(system, name, inputs.size["modules"], lambda: run(argv, env=env))


def git(system, inputs, new):
    env, count, there = git_env(inputs.base), inputs.size["clone"], system.backing / (new + "there")

    def call(*args):
        run(["git", *args], env=env, timeout=1200)

    def status(where):
        done = subprocess.run(["git", "-C", str(where), "status", "--porcelain"], env=env, stdout=subprocess.PIPE,
                              timeout=1200, check=True)
        if done.stdout:
            raise Trouble("git status on %s: %r" % (system.name, done.stdout[:300]))
    call("clone", "-q", "--no-hardlinks", inputs.repository, there)
    expected = {path: size for path, size in sizes_below(there).items() if not path.startswith(".git/")}
    expected[".git/index"] = (there / ".git/index").stat().st_size
    time.sleep(1.1)  # git reads what is as new as its index again: not part of this
    status(there)
    system.fresh()
    yield step(system, "git status cold", count, status, system.dir / (new + "there"))
    yield step(system, "git status warm", count, status, system.dir / (new + "there"))
    clone = system.dir / (new + "clone")
    yield from durable_step(system, "git clone", count, has_all(system.backing / (new + "clone"), expected), call,
                            "clone", "-q", "--no-hardlinks", inputs.repository, clone)
    yield step(system, "status after clone", count, status, clone)


def writes(system, inputs, new):
    (system.backing / new).mkdir()
    system.fresh()
    place, count = system.backing / new, inputs.size["creates"]
    made = {"f%05d" % number: 2000 for number in range(count)}
    yield from durable_step(system, "create", count, has_all(place / "made", made), create_files,
                            system.dir / new / "made", count)
    count = inputs.size["untar"]
    yield from durable_step(system, "untar", count, has_all(place, inputs.untarred), run,
                            ["tar", "-xf", inputs.untar, "-C", system.dir / new])
    yield from durable_step(system, "rm -rf", count, lambda: not (place / "untar").exists(), run,
                            ["rm", "-rf", system.dir / new / "untar"])


GROUPS = {"bulk": bulk, "places": places, "tree": tree, "small": small, "package": package, "git": git,
          "writes": writes}
MIB_UNITS = ("seq read cold", "seq read warm", "seq write", "seq write durable")
# What counts as an operation on small files, whose CPU is compared.
SMALL_FILES = ("grep -r cold", "cp -r out", "import cold", "git status cold", "create durable", "untar durable",
               "git clone durable", "rm -rf durable")


class Inputs:
    """What the workloads work on, made once in `base`, and how much of it."""

    def __init__(self, base, scale, is_full):
        self.base = base
        self.size = {name: max(1, int(count * scale)) for name, count in (FULL if is_full else SMALL).items()}
        self.tree, self.files, self.untar = (base / name for name in ("tree.tar", "files.tar", "untar.tar"))
        self.repository = base / "repository.git"
        self.untarred = {}

    def prepare(self):
        size = self.size
        make_tar(self.tree, "tree", size["entries"], max(1, size["entries"] // size["directories"]))
        make_tar(self.files, "files", size["files"], 40, (1024, 8192))
        make_tar(self.untar, "untar", size["untar"], 40, (1024, 8192))
        make_repository(self.base, self.repository, size["clone"])
        run(["tar", "-xf", self.untar, "-C", self.base])
        self.untarred = {"untar/" + path: length for path, length in sizes_below(self.base / "untar").items()}
        run(["rm", "-rf", self.base / "untar"])

    def make_package(self, place):
        """A Python package whose parts, some of them packages themselves, are all imported by it."""
        any_of = random.Random(5)
        place.mkdir()
        lines = []
        for number in range(self.size["modules"]):
            where, name = place, "package"
            if number % 3:
                where, name = place / ("p%d" % (number % 3)), "package.p%d" % (number % 3)
                if not where.exists():
                    where.mkdir()
                    (where / "__init__.py").write_text("")
            (where / ("m%03d.py" % number)).write_text("VALUE = %r\n" % any_of.randbytes(1000).hex())
            lines.append("import %s.m%03d\n" % (name, number))
        (place / "__init__.py").write_text("".join(lines))


def remove(system, new):
    """What a group has left on the server, once nothing is on its way there."""
    top = os.open(system.dir, os.O_RDONLY | os.O_DIRECTORY)
    with contextlib.suppress(OSError):  # not all know fsync of a directory
        os.fsync(top)
    os.close(top)
    for path in Path(system.backing).glob(new + "*"):
        run(["rm", "-rf", path])
