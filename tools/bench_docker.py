# SPDX-License-Identifier: Apache-2.0
"""fs/ and exec of a container beside `docker cp` and `docker exec`.

All on one private engine, whose data lies in the backing. `in` of sbxfs is until fsync of fs/ has returned: the
container has it; `out` is from a fresh mount, the kernel's caches dropped. The workloads of tools/bench ssh are also
run (--loads), beside nothing: compare them with its table for 0 ms.

`bindfs` is the same copy through a FUSE file system that only hands on to a directory beside: what no file system of
this kind gets much below, however little the container costs. Left out where there is no bindfs.
"""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import bench_ssh
import bench_ssh_loads as loads
from bench_common import (MIB, ROOT, Sbxfs, Trouble, context, drop_caches, make_backing, make_tar, program, run, stop_all,
                          timed, write_file)
from bench_local import Bindfs
from bench_ssh import markdown
from bench_ssh_systems import cpu_of

CLIENT = "/usr/bin/docker"
# How many times as fast as docker's own command it is to be.
AIMS = {"file in": 1, "file out": 1, "tree in": 5, "tree out": 5, "exec": 1 / 1.2}
SIZE = {"mib": 256, "files": 2000}


def add_options(parser):
    parser.add_argument("--loads", action="store_true", help="also the workloads of tools/bench ssh, on sbxfs")


class DockerSbxfs(Sbxfs):
    """fs/ of one container."""

    def __init__(self, base, engine, measured):
        self.engine, self.backing, self.container, self.floor = engine, None, None, None
        base = base / self.name
        self.config = base / "config.ini"
        super().__init__(base, measured, ["config=%s" % self.config, "provider=docker"])

    def start(self):
        self.base.mkdir()
        self.config.write_text("[docker]\nhost = %s\nimage = %s\n" % (self.engine.host, self.engine.image("busybox")))
        self.config.chmod(0o600)
        super().start()
        self.container = re.search(r"^id (\S+)", (self.box / "status").read_text(), re.M)[1]
        found = self.engine.inspect(self.container)
        self.exec("pwd")
        where = (self.box / "stdout").read_text().rstrip("\n")
        # Not by /proc/PID/root: git asks where it is, and is told a path of the container.
        self.backing = Path(found["GraphDriver"]["Data"]["MergedDir"] + where)
        self.workdir = where

    def cpu(self):
        return cpu_of(self.process.pid)

    def fresh(self):
        super().fresh()
        self.exec("true")

    def sync(self):
        top = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(top)
        finally:
            os.close(top)


class Docker:
    """The commands of docker, on the same container."""

    def __init__(self, sbxfs):
        self.sbxfs, self.env = sbxfs, dict(os.environ, DOCKER_HOST=sbxfs.engine.host)

    def call(self, *argv):
        run([CLIENT, *argv], env=self.env)

    def inside(self, name):
        return "%s:%s/%s" % (self.sbxfs.container, self.sbxfs.workdir, name)


# -- groups: (sbxfs, docker, inputs, a name that is new) -> {workload: (docker's seconds, ours)}

def same(one, other):
    run(["diff", "-r", "-q", one, other])


def both_ways(what, source, sbxfs, docker, base, new):
    """Once in and once out, by each, in directories of their own."""
    def copy_in():
        run(["cp", "-r", source, sbxfs.dir / (new + "m")])
        sbxfs.sync()
    out, theirs, floor = base / "out", base / "theirs", sbxfs.floor
    by_floor = [None, None]
    by_docker = timed(docker.call, "cp", source, docker.inside(new + "d"))[0]
    by_mount = timed(copy_in)[0]
    same(source, sbxfs.backing / (new + "m"))
    if floor:
        by_floor[0] = timed(run, ["cp", "-r", source, floor.dir / (new + "f")])[0]
        floor.fresh()
        by_floor[1] = timed(run, ["cp", "-r", floor.dir / (new + "f"), out])[0]
        run(["rm", "-rf", out, floor.dir / (new + "f")])
    yield what + " in", by_docker, by_mount, by_floor[0]
    drop_caches()
    by_docker = timed(docker.call, "cp", docker.inside(new + "d"), theirs)[0]
    sbxfs.fresh()
    by_mount = timed(run, ["cp", "-r", sbxfs.dir / (new + "d"), out])[0]
    same(out, theirs)
    yield what + " out", by_docker, by_mount, by_floor[1]
    run(["rm", "-rf", out, theirs, sbxfs.dir / (new + "m"), sbxfs.dir / (new + "d")])
    sbxfs.sync()


def one_file(sbxfs, docker, inputs, new):
    yield from both_ways("file", inputs.big, sbxfs, docker, inputs.base, new)


def tree(sbxfs, docker, inputs, new):
    yield from both_ways("tree", inputs.tree, sbxfs, docker, inputs.base, new)


def commands(sbxfs, docker, inputs, _new):
    for _ in range(inputs.execs):
        by_docker = timed(docker.call, "exec", sbxfs.container, "true")[0]
        yield "exec", by_docker, timed(sbxfs.exec, "true")[0], None


GROUPS = {"file": one_file, "tree": tree, "exec": commands}


class Inputs:
    def __init__(self, base, scale):
        self.base, self.execs = base, max(3, int(20 * scale))
        self.big, self.tree = base / "big", base / "tree"
        write_file(self.big, max(1, int(SIZE["mib"] * scale)) * MIB)
        make_tar(base / "tree.tar", "tree", max(1, int(SIZE["files"] * scale)), 40, (100, 4000))
        run(["tar", "-xf", base / "tree.tar", "-C", base])


# -- tables

def row(workload, figures):
    """`figures`: seconds, docker's, ours and bindfs's (None: it has none)."""
    theirs, ours = (statistics.median(each) for each in list(zip(*figures))[:2])
    floor = [figure[2] for figure in figures if figure[2] is not None]
    ratio, aim = theirs / max(ours, 1e-9), AIMS[workload]
    return [workload, "%.1f" % (theirs * 1000), "%.1f" % (ours * 1000), "%.2f" % ratio,
            "%.2f%s" % (aim, "" if ratio >= aim else " missed"),
            "%.1f" % (statistics.median(floor) * 1000) if floor else "-"]


def table(found):
    return markdown([["ms", "docker", "sbxfs", "times as fast", "aim", "bindfs"],
                     *[row(workload, figures) for workload, figures in found.items()]])


# -- the whole

def dockerd_module():
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from support import dockerd
    except ImportError as error:
        raise Trouble("the tests' engine: %s (apt-get install python3-pytest docker.io)" % error) from error
    return dockerd


def measure(sbxfs, inputs, groups, repetitions):
    found, docker = {}, Docker(sbxfs)
    for repetition in range(repetitions):
        for name in groups:
            for workload, *seconds in GROUPS[name](sbxfs, docker, inputs, "%s%d" % (name, repetition)):
                found.setdefault(workload, []).append(seconds)
            print("  %s %d/%d" % (name, repetition + 1, repetitions), file=sys.stderr)
    return found


def docker(options):
    if os.geteuid() != 0:
        raise Trouble("only root can run an engine")
    groups = [name for name in GROUPS if not options.only or re.search(options.only, name)]
    if not groups:
        raise Trouble("no group matches '%s'; there are %s" % (options.only, ", ".join(GROUPS)))
    measured = program(options.sbxfs)
    base, undo = make_backing(options.backing)
    result = {"context": context(base, options)}
    stops = []
    try:
        (base / "engine").mkdir()
        engine = dockerd_module().Dockerd(base / "engine")
        stops.append(engine)
        engine.start()
        sbxfs = DockerSbxfs(base, engine, measured)
        stops.append(sbxfs)
        sbxfs.start()
        if shutil.which("bindfs"):
            sbxfs.floor = Bindfs(base)
            stops.append(sbxfs.floor)
            sbxfs.floor.start()
        print("kernel %(kernel)s, %(processors)d processors, load %(load).1f, uid %(uid)d, backing %(backing)s, "
              "median of %(repetitions)d" % result["context"])
        found = measure(sbxfs, Inputs(base, options.scale), groups, options.repetitions)
        result["times"] = found
        print("\n" + table(found))
        if options.loads:
            inputs = loads.Inputs(base, options.scale, False)
            inputs.prepare()
            times, _ = bench_ssh.measure([sbxfs], inputs, list(loads.GROUPS), options.repetitions, "docker")
            result["loads"] = times
            print("\n" + bench_ssh.table(times, ["sbxfs"], None))
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    except subprocess.SubprocessError as error:
        raise Trouble(str(error)) from error
    finally:
        signal.alarm(0)
        stop_all(stops, undo)
