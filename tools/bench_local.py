# SPDX-License-Identifier: Apache-2.0
"""`tools/bench local`: fs/ of a local sandbox against a plain directory and bindfs, exec against bwrap."""

import json
import os
import re
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

from bench_common import (MIB, Sbxfs, Trouble, context, create_files, drop_caches, git_env, grep, make_backing,
                          make_repository, make_tar, program, read_file, read_randomly, run, stop_all, timed,
                          unmount, write_file)

# -- the systems

class Native:
    """A plain directory."""

    name = "native"

    def __init__(self, base):
        self.dir = base / "native"

    def start(self):
        self.dir.mkdir()

    def fresh(self):
        drop_caches()

    def stop(self):
        pass


class Bindfs:
    """bindfs as Debian packages it, without options, over a plain directory."""

    name = "bindfs"

    def __init__(self, base):
        self.source, self.dir = base / "bindfs-source", base / "bindfs"

    def start(self):
        self.source.mkdir()
        self.dir.mkdir()
        self.fresh()

    def fresh(self):
        unmount(self.dir)
        drop_caches()
        run(["bindfs", self.source, self.dir])

    def stop(self):
        unmount(self.dir)


# -- the workloads. Each group is run on one system at a time, in an empty directory, and yields (name, seconds, units).

def bulk(system, job):
    size, path = job.size(256) * MIB, system.dir / "big"
    yield "seq write", timed(write_file, path, size)[0], size / MIB
    system.fresh()
    yield "seq read cold", timed(read_file, path)[0], size / MIB
    yield "seq read warm", timed(read_file, path)[0], size / MIB
    system.fresh()
    count = job.size(8000)
    yield "rand read 4k", timed(read_randomly, path, count)[0], count
    path.unlink()


def tree(system, job):
    run(["tar", "-xf", job.tree, "-C", system.dir])
    place, count = system.dir / "tree", job.size(10000)
    # -printf wants the attributes of each file, as ls -l, make and rsync do.
    find = ["find", place, "-printf", "%s %T@ %p\\n"]
    system.fresh()
    yield "find cold", timed(run, find)[0], count
    yield "find warm", timed(run, find)[0], count
    system.fresh()
    yield "ls -lR cold", timed(run, ["ls", "-lR", place])[0], count
    yield "ls -lR warm", timed(run, ["ls", "-lR", place])[0], count
    run(["rm", "-rf", place])


def small(system, job):
    count = job.size(2000)
    yield "create", timed(create_files, system.dir / "new", count)[0], count
    run(["rm", "-rf", system.dir / "new"])
    yield "untar", timed(run, ["tar", "-xf", job.files, "-C", system.dir])[0], count
    system.fresh()
    yield "grep -r cold", timed(grep, system.dir / "files")[0], count
    yield "grep -r warm", timed(grep, system.dir / "files")[0], count
    yield "rm -rf", timed(run, ["rm", "-rf", system.dir / "files"])[0], count


def git(system, job):
    count, clone = job.size(1000), system.dir / "clone"
    env = git_env(job.base)

    def call(*args):
        run(["git", *args], env=env)
    yield "git clone", timed(call, "clone", "-q", "--no-hardlinks", job.repository, clone)[0], count
    time.sleep(1.1)  # git reads what is as new as its index again: not part of this
    call("-C", clone, "status", "--porcelain")
    yield "git status", timed(call, "-C", clone, "status", "--porcelain")[0], count
    system.fresh()
    yield "git status cold", timed(call, "-C", clone, "status", "--porcelain")[0], count
    run(["rm", "-rf", clone])


GROUPS = {"bulk": bulk, "tree": tree, "small": small, "git": git}
MIB_PER_S = ("seq write", "seq read cold", "seq read warm")


class Job:
    """What the workloads work on, made once, and how much of it."""

    def __init__(self, base, scale):
        self.base, self.scale = base, scale
        self.tree, self.files, self.repository = base / "tree.tar", base / "files.tar", base / "repository.git"

    def size(self, full):
        return max(1, int(full * self.scale))

    def prepare(self, groups):
        if "tree" in groups:
            make_tar(self.tree, "tree", self.size(10000), 100)
        if "small" in groups:
            make_tar(self.files, "files", self.size(2000), 40, (1024, 8192))
        if "git" in groups:
            make_repository(self.base, self.repository, self.size(1000))


# -- exec

def bwrap_argv(workspace):
    """bwrap for one command, with what the local provider gives a sandbox."""
    argv = ["bwrap", "--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = "/" + name
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            argv += ["--ro-bind", path, path]
    return argv + ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", str(workspace), "/workspace",
                   "--chdir", "/workspace", "sh", "-c", "true"]


def measure_exec(sbxfs, base, rounds):
    """Milliseconds of each round, in turns: {what: [ms, ...]}."""
    workspace = base / "workspace"
    workspace.mkdir()
    found = {"sh": [], "bwrap": [], "sbxfs exec": []}
    calls = {"sh": lambda: run(["/bin/sh", "-c", "true"]), "bwrap": lambda: run(bwrap_argv(workspace)),
             "sbxfs exec": lambda: sbxfs.exec("true")}
    for number in range(rounds + 3):  # three to warm up
        for what, call in calls.items():
            seconds = timed(call)[0]
            if number >= 3:
                found[what].append(seconds * 1000)
    return found


# -- the whole

def measure(systems, job, groups, repetitions):
    """{workload: {system: [figure, ...]}}; a figure is MiB/s or ms a unit."""
    found = {}
    for repetition in range(repetitions):
        for group in groups:
            turn = repetition % len(systems)
            for system in systems[turn:] + systems[:turn]:
                print("  %d/%d %s on %s" % (repetition + 1, repetitions, group, system.name), file=sys.stderr)
                system.fresh()
                for name, seconds, units in GROUPS[group](system, job):
                    figure = units / seconds if name in MIB_PER_S else seconds * 1000 / units
                    found.setdefault(name, {}).setdefault(system.name, []).append(figure)
    return found


def table(found, systems):
    names = [system.name for system in systems]
    head = ["workload", "unit", *names]
    compared = [name for name in ("native", "bindfs") if name in names and "sbxfs" in names]
    head += ["x " + name for name in compared]
    rows = [head]
    for workload, by_system in found.items():
        is_rate = workload in MIB_PER_S
        medians = {name: statistics.median(figures) for name, figures in by_system.items()}
        row = [workload, "MiB/s" if is_rate else "ms", *("%.0f" % medians[n] if is_rate else "%.4f" % medians[n]
                                                         for n in names)]
        for name in compared:
            ratio = medians["sbxfs"] / medians[name] if is_rate else medians[name] / medians["sbxfs"]
            row.append("%.2f" % ratio)
        rows.append(row)
    lines = ["| %s |" % " | ".join(row) for row in rows]
    lines.insert(1, "|%s" % ("---|" * len(head)))
    return "\n".join(lines)


def exec_table(found):
    lines = ["| one command (`true`), ms | median | 10 % | 90 % | x bwrap |", "|---|---|---|---|---|"]
    bwrap = statistics.median(found["bwrap"])
    for what, figures in found.items():
        tenths = statistics.quantiles(figures, n=10)
        middle = statistics.median(figures)
        lines.append("| %s | %.2f | %.2f | %.2f | %.2f |" % (what, middle, tenths[0], tenths[-1], bwrap / middle))
    return "\n".join(lines)


def local(options):
    groups = [name for name in GROUPS if not options.only or re.search(options.only, name)]
    wants_exec = not options.only or re.search(options.only, "exec")
    if not groups and not wants_exec:
        raise Trouble("no group matches '%s'; there are %s and exec" % (options.only, ", ".join(GROUPS)))
    if not shutil.which("bindfs"):
        print("bindfs is not installed: measuring without it (apt-get install bindfs)", file=sys.stderr)
    measured = program(options.sbxfs)
    base, undo = make_backing(options.backing)
    systems, result = [], {"context": context(base, options)}
    try:
        for system in [Native(base), *([Bindfs(base)] if shutil.which("bindfs") else []), Sbxfs(base, measured)]:
            systems.append(system)
            system.start()
        job = Job(base, options.scale)
        job.prepare(groups)
        result["files"] = measure(systems, job, groups, options.repetitions)
        if wants_exec:
            print("  exec", file=sys.stderr)
            result["exec"] = measure_exec(systems[-1], base, job.size(100))
    finally:
        signal.alarm(0)
        stop_all(systems, undo)
    print("kernel %(kernel)s, %(processors)d processors, load %(load).1f, uid %(uid)d, backing %(backing)s, "
          "median of %(repetitions)d" % result["context"])
    if result["files"]:
        print("\nA figure x of 2.00 says that sbxfs took half the time.\n\n" + table(result["files"], systems))
    if "exec" in result:
        print("\n" + exec_table(result["exec"]))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


