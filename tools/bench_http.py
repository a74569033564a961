# SPDX-License-Identifier: Apache-2.0
"""fs/ and exec of a sandbox of E2B, Daytona and OpenSandbox beside the vendor's own JavaScript client.

Both work on the same stand-in for the service (tests/fakes), each in a sandbox of its own; the stand-in is as far away
as --delay says, which is checked before anything is measured. `up` of sbxfs is until fsync of fs/ has returned: the
sandbox has it; `listed` and `down` are from a fresh mount, the kernel's caches dropped. The client is one node process,
whose start and connecting isn't counted. `SDK` awaits one call after the other; `SDK, bulk` is its own call for many
files, and where it has none, 16 calls at a time.
"""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench_common import (MIB, ROOT, Sbxfs, Trouble, context, end, make_backing, make_tar, program, run, stop_all, timed,
                          write_file)
from bench_ssh import markdown

SERVICES = ("e2b", "daytona", "opensandbox")
DELAYS = (0, 40)
# How many times as fast as the vendor's client, one call after the other, it is to be.
AIMS = {"files up": 5, "files listed": 5, "files down": 5, "file up": 1, "file down": 1, "exec": 1}
SIZE = {"files": 200, "mib": 64, "execs": 20}


def add_options(parser):
    parser.add_argument("--services", metavar="NAME[,NAME...]", default=",".join(SERVICES),
                        help="(default: %(default)s)")
    parser.add_argument("--delay", metavar="MS[,MS...]", default=",".join(map(str, DELAYS)),
                        help="round trips to measure at (default: %(default)s)")


def of_the_tests():
    """(fakes, support.kinds, support.npm)"""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import fakes
        from support import kinds, npm
    except ImportError as error:
        raise Trouble("the tests' stand-ins: %s (apt-get install python3-pytest)" % error) from error
    return fakes, kinds, npm


class HttpSbxfs(Sbxfs):
    """fs/ of one sandbox of a stand-in."""

    def __init__(self, base, fake, kind, measured):
        self.fake, self.kind, self.backing = fake, kind, None
        super().__init__(base / self.name, measured)

    def start(self):
        self.base.mkdir()
        self.options = self.kind.options_on(self.fake, self)
        super().start()
        ident = re.search(r"^id (\S+)", (self.box / "status").read_text(), re.M)[1]
        self.backing = self.fake.base / "boxes" / ident / self.kind.home
        self.exec("true")

    def fresh(self):
        super().fresh()
        self.exec("true")  # connected, as the client is

    def sync(self):
        top = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(top)
        finally:
            os.close(top)


class Sdk:
    """The vendor's client, and a sandbox that it has made."""

    def __init__(self, base, fake, kind, npm):
        self.base, self.fake, self.kind, self.npm = base / "sdk", fake, kind, npm
        self.process, self.backing = None, None
        self.home = "/" + kind.home

    def start(self):
        self.base.mkdir()
        shutil.copy(ROOT / "tools/bench_http.mjs", self.base)
        # ES modules look beside themselves only.
        (self.base / "node_modules").symlink_to(self.npm.directory() / "node_modules")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.base), "LC_ALL": "C.UTF-8", "NO_PROXY": "127.0.0.1",
               "OPENSANDBOX_DISABLE_METRICS": "1", **self.fake.environ}
        with open(self.base / "log", "wb") as log:
            self.process = subprocess.Popen(
                [self.npm.node(), self.base / "bench_http.mjs", self.kind.name], env=env, cwd=self.base,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        self.backing = self.fake.base / "boxes" / self.ask("create")["id"] / self.kind.home

    def ask(self, what, **words):
        self.process.stdin.write(json.dumps({"do": what, **{key: str(value) if isinstance(value, Path) else value
                                                            for key, value in words.items()}}) + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise Trouble("the client has ended: " + (self.base / "log").read_text()[-1000:])
        answer = json.loads(said)
        if "error" in answer:
            raise Trouble("the client of %s, %s: %s" % (self.kind.name, what, answer["error"]))
        return answer

    def work(self, what, count=None, **words):
        """Its seconds for something; Trouble unless it was about so many files."""
        answer = self.ask(what, **words)
        if count is not None and answer["files"] != count:
            raise Trouble("the client of %s, %s: %d files, not %d" % (self.kind.name, what, answer["files"], count))
        return answer["ms"] / 1000

    def remove(self, name):
        self.ask("exec", command="rm -rf %s/%s" % (self.home, name))

    def stop(self):
        try:
            if self.process and self.process.poll() is None:
                self.process.stdin.close()
        finally:
            end(self.process, 5)


# -- groups: each yields workload, seconds of the client, of it in bulk (None: there is no such thing), ours

def same(one, other):
    run(["diff", "-r", "-q", one, other])


def tree(sbxfs, sdk, inputs, new):
    def up():
        run(["cp", "-r", inputs.tree, sbxfs.dir / new])
        sbxfs.sync()
    count, ways = len(inputs.files), ("each", "bulk")
    far = {way: "%s/%s-%s" % (sdk.home, new, way) for way in ways}
    out = {way: inputs.base / ("out-" + way) for way in (*ways, "sbxfs")}
    theirs = [sdk.work("put", count, **{"from": inputs.tree, "to": far[way], "way": way}) for way in ways]
    yield "files up", *theirs, timed(up)[0]
    for place in (sbxfs.backing / new, *(sdk.backing / Path(far[way]).name for way in ways)):
        same(inputs.tree, place)
    sbxfs.fresh()
    theirs = [sdk.work("list", count, **{"from": far["each"], "way": way}) for way in ways]
    yield "files listed", *theirs, timed(run, ["find", sbxfs.dir / new, "-ls"])[0]
    sbxfs.fresh()
    theirs = [sdk.work("get", count, **{"from": far[way], "to": out[way], "files": inputs.files, "way": way})
              for way in ways]
    yield "files down", *theirs, timed(run, ["cp", "-r", sbxfs.dir / new, out["sbxfs"]])[0]
    for place in out.values():
        same(inputs.tree, place)
    run(["rm", "-rf", *out.values(), sbxfs.dir / new])
    sbxfs.sync()
    sdk.remove(new + "-*")


def one_file(sbxfs, sdk, inputs, new):
    def up():
        run(["cp", inputs.big, sbxfs.dir / new])
        sbxfs.sync()
    out, theirs = inputs.base / "out", inputs.base / "theirs"
    words = {"to": "%s/%s" % (sdk.home, new), "way": "each"}
    yield "file up", sdk.work("put", 1, **{"from": inputs.big}, **words), None, timed(up)[0]
    same(inputs.big, sbxfs.backing / new)
    same(inputs.big, sdk.backing / new)
    sbxfs.fresh()
    by_sdk = sdk.work("get", 1, **{"from": words["to"], "to": theirs, "way": "each"})
    yield "file down", by_sdk, None, timed(run, ["cp", sbxfs.dir / new, out])[0]
    same(inputs.big, out)
    same(inputs.big, theirs)
    run(["rm", "-f", out, theirs, sbxfs.dir / new])
    sbxfs.sync()
    sdk.remove(new)


def commands(sbxfs, sdk, inputs, _new):
    for _ in range(inputs.execs):
        yield "exec", sdk.work("exec", command="true"), None, timed(sbxfs.exec, "true")[0]


GROUPS = {"tree": tree, "file": one_file, "exec": commands}


class Inputs:
    def __init__(self, base, scale):
        self.base, self.execs = base, max(3, int(SIZE["execs"] * scale))
        self.big, self.tree = base / "big", base / "tree"
        write_file(self.big, max(1, int(SIZE["mib"] * scale)) * MIB)
        make_tar(base / "tree.tar", "tree", max(1, int(SIZE["files"] * scale)), 40, (100, 4000))
        run(["tar", "-xf", base / "tree.tar", "-C", base])
        self.files = sorted(str(each.relative_to(self.tree)) for each in self.tree.rglob("*") if each.is_file())


# -- tables

def row(workload, figures):
    """`figures`: seconds of the client, of it in bulk (None: it has none), ours."""
    theirs, bulk, ours = zip(*figures)
    theirs, ours = statistics.median(theirs), max(statistics.median(ours), 1e-9)
    ratio, aim = theirs / ours, AIMS[workload]
    cells = [workload, "%.1f" % (theirs * 1000), "-", "%.1f" % (ours * 1000), "%.2f" % ratio,
             "%d%s" % (aim, "" if ratio >= aim else " missed"), "-"]
    if bulk[0] is not None:
        bulk = statistics.median(bulk)
        cells[2], cells[-1] = "%.1f" % (bulk * 1000), "%.2f" % (bulk / ours)
    return cells


def table(found):
    return markdown([["ms", "SDK", "SDK, bulk", "sbxfs", "times as fast", "aim", "... as in bulk"],
                     *[row(workload, figures) for workload, figures in found.items()]])


# -- the whole

def check_delay(delay, url):
    """Trouble unless connecting to a service and asking it something takes two round trips."""
    def ask():
        try:
            opener.open(url + "/nothing", timeout=20).close()
        except urllib.error.HTTPError as error:
            error.close()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    took = min(timed(ask)[0] for _ in range(3)) * 1000
    if took < 2 * delay:
        raise Trouble("connecting and asking takes %.1f ms: the delay of %d ms doesn't work here" % (took, delay))


def measure(sbxfs, sdk, inputs, groups, repetitions, label):
    found = {}
    for repetition in range(repetitions):
        for name in groups:
            start = time.monotonic()
            for workload, *seconds in GROUPS[name](sbxfs, sdk, inputs, "%s%d" % (name, repetition)):
                found.setdefault(workload, []).append(seconds)
            print("  %s %d/%d %s: %.1f s" % (label, repetition + 1, repetitions, name, time.monotonic() - start),
                  file=sys.stderr)
    return found


def measure_service(service, delay, measured, inputs, groups, repetitions):
    """One stand-in, and on it one mount and one client, for one delay."""
    fakes, kinds, npm = of_the_tests()
    kind, base = kinds.KINDS[service], inputs.base / ("%s-%d" % (service, delay))
    base.mkdir(mode=0o711)
    fake = fakes.Fake(service, rtt_ms=delay)
    stops = []
    try:
        fake.start()
        check_delay(delay, fake.url)
        for system in (HttpSbxfs(base, fake, kind, measured), Sdk(base, fake, kind, npm)):
            stops.append(system)
            system.start()
        return measure(*stops, inputs, groups, repetitions, "%s %d ms" % (service, delay))
    except AssertionError as error:
        raise Trouble(str(error)) from error
    finally:
        # Not its own check: a client that breaks the contract (OpenSandbox's does) is nobody's business here.
        stop_all(stops, lambda: fake.stop(check=False))


def chosen(options):
    """(services, delays, groups)"""
    services = options.services.split(",")
    if not set(services) <= set(SERVICES):
        raise Trouble("no such service in '%s'; there are %s" % (options.services, ", ".join(SERVICES)))
    groups = [name for name in GROUPS if not options.only or re.search(options.only, name)]
    if not groups:
        raise Trouble("no group matches '%s'; there are %s" % (options.only, ", ".join(GROUPS)))
    return services, [int(each) for each in options.delay.split(",")], groups


def http(options):
    services, delays, groups = chosen(options)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    measured = program(options.sbxfs)
    base, undo = make_backing(options.backing)
    before, tempfile.tempdir = tempfile.tempdir, str(base)  # where stand-ins keep their sandboxes
    result = {"context": context(base, options), "services": {}}
    try:
        print("kernel %(kernel)s, %(processors)d processors, load %(load).1f, uid %(uid)d, backing %(backing)s, "
              "median of %(repetitions)d" % result["context"])
        inputs = Inputs(base, options.scale)
        for service in services:
            for delay in delays:
                found = measure_service(service, delay, measured, inputs, groups, options.repetitions)
                result["services"].setdefault(service, {})[delay] = found
                print("\n%s, round trip %d ms, load %.1f\n\n%s" % (service, delay, os.getloadavg()[0], table(found)),
                      flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    except subprocess.SubprocessError as error:
        raise Trouble(str(error)) from error
    finally:
        signal.alarm(0)
        tempfile.tempdir = before
        stop_all([], undo)
