# SPDX-License-Identifier: Apache-2.0
"""fs/ of an SSH host beside sshfs and rclone mount, and exec beside ssh with a live master.

All go through the same sshd and the same delay, which is checked by the round trip of a byte before anything is
measured. For each delay there are a table of times, with ratios to the better of sshfs's two settings, one of CPU time
of the daemon (of sshfs with its ssh) for small files, and one of exec. `durable` is until the server's directory has it.
"""

import json
import re
import shutil
import signal
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

import bench_ssh_loads as loads
from bench_common import ROOT, Trouble, context, make_backing, program, stop_all, timed
from bench_ssh_loads import GROUPS, MIB_UNITS, SMALL_FILES
from bench_ssh_systems import Host, Master, Rclone, Sshfs, SshSbxfs, TunedSshfs

SYSTEMS = {"sshfs": Sshfs, "sshfs tuned": TunedSshfs, "rclone": Rclone, "sbxfs": SshSbxfs}
DELAYS = (0, 10, 40)
# What the median ratio to the better sshfs is to be at a delay, at small scale; 1 where nothing else is said.
AIMS = {
    0: {"find -ls cold": 5, "grep -r cold": 5},
    40: {"seq read cold": 4, "find -ls cold": 20, "grep -r cold": 40, "cp -r out": 40, "import cold": 30,
         "git status cold": 40, "git status warm": 20},
}


def add_options(parser):
    parser.add_argument("--delay", metavar="MS[,MS...]", default=",".join(map(str, DELAYS)),
                        help="round trips to measure at (default: %(default)s)")
    parser.add_argument("--systems", metavar="NAME[,NAME...]", default=",".join(SYSTEMS),
                        help="what to measure (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="at full scale: some 15 times as much")


# -- the delay

class Echo:
    """A server that gives back each byte, to measure the delay before it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while data := peer.recv(100):
                    peer.sendall(data)

    def close(self):
        self.listener.close()


def round_trip(port, rounds=7):
    """Milliseconds for a byte there and back, the median."""
    took = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(rounds):
            start = time.perf_counter()
            peer.sendall(b"x")
            if peer.recv(1) != b"x":
                raise Trouble("the delay's connection has ended")
            took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


def check_delay(delay, measured):
    """Trouble unless the delay is what was asked for."""
    if not delay <= measured <= delay * 1.25 + 3:
        raise Trouble("the round trip is %.1f ms, not %d ms: the delay doesn't work here" % (measured, delay))


# -- measuring

def measure(systems, inputs, groups, repetitions, label):
    """({workload: {system: [figure, ...]}}, the same of CPU); a figure is milliseconds a unit."""
    times, cpu = {}, {}
    for repetition in range(repetitions):
        for group in groups:
            turn = repetition % len(systems)
            for system in systems[turn:] + systems[:turn]:
                start, new = time.monotonic(), "%s%d" % (group, repetition)
                for step in GROUPS[group](system, inputs, new):
                    figure = step.seconds * 1000 / step.units
                    times.setdefault(step.name, {}).setdefault(system.name, []).append(figure)
                    if step.cpu is not None:
                        cpu.setdefault(step.name, {}).setdefault(system.name, []).append(step.cpu * 1000 / step.units)
                loads.remove(system, new)
                print("  %s %d/%d %s on %s: %.1f s" % (label, repetition + 1, repetitions, group, system.name,
                                                       time.monotonic() - start), file=sys.stderr)
    return times, cpu


def measure_exec(sbxfs, master, rounds):
    """Milliseconds of each round, in turns, of the command `true`."""
    found = {"ssh, live master": [], "sbxfs exec": []}
    for number in range(rounds + 3):  # three to warm up
        for what, call in (("ssh, live master", master.exec), ("sbxfs exec", sbxfs.exec)):
            seconds = timed(call, "true")[0]
            if number >= 3:
                found[what].append(seconds * 1000)
    return found


# -- tables

def medians(by_system):
    return {name: statistics.median(figures) for name, figures in by_system.items()}


def ratio(middle, others):
    """How many times as fast as the best of the others sbxfs is; None if there is nothing to compare."""
    there = [middle[name] for name in others if name in middle]
    return min(there) / max(middle["sbxfs"], 1e-9) if there and "sbxfs" in middle else None


def row(workload, by_system, names, aim):
    middle = medians(by_system)
    to_sshfs, to_rclone = ratio(middle, ("sshfs", "sshfs tuned")), ratio(middle, ("rclone",))
    said = "" if aim is None or to_sshfs is None else "%g%s" % (aim, "" if to_sshfs >= aim else " missed")
    return [workload, "/MiB" if workload in MIB_UNITS else "/op",
            *("%.3f" % middle[name] if name in middle else "-" for name in names),
            "-" if to_sshfs is None else "%.2f" % to_sshfs, said, "-" if to_rclone is None else "%.2f" % to_rclone]


def markdown(rows):
    lines = ["| %s |" % " | ".join(each) for each in rows]
    lines.insert(1, "|%s" % ("---|" * len(rows[0])))
    return "\n".join(lines)


def table(times, names, aims):
    """`aims`: what ratios are to be reached, {} for none."""
    rows = [["ms", "unit", *names, "x sshfs", "aim", "x rclone"]]
    rows += [row(workload, by_system, names, aims.get(workload, 1) if aims is not None else None)
             for workload, by_system in times.items()]
    return markdown(rows)


def cpu_table(cpu, names):
    rows = [["CPU ms of the daemon", "unit", *names, "x sshfs", "aim", "x rclone"]]
    rows += [row(workload, cpu[workload], names, 2) for workload in SMALL_FILES if workload in cpu]
    return markdown(rows) if len(rows) > 1 else ""


def exec_table(found, aim):
    middle = {what: statistics.median(figures) for what, figures in found.items()}
    times = middle["ssh, live master"] / middle["sbxfs exec"]
    rows = [["one command (`true`), ms", "median", "10 %", "90 %", "x ssh", "aim"]]
    for what, figures in found.items():
        tenths = statistics.quantiles(figures, n=10) if len(figures) > 1 else [figures[0]] * 2
        is_ours = what == "sbxfs exec"
        rows.append([what, "%.2f" % middle[what], "%.2f" % tenths[0], "%.2f" % tenths[-1],
                     "%.2f" % times if is_ours else "", ("%g%s" % (aim, "" if times >= aim else " missed"))
                     if is_ours else ""])
    return markdown(rows)


def show(delay, result, names, is_small):
    print("\n## Round trip %d ms (measured %.1f)\n" % (delay, result["round_trip_ms"]))
    if result["times"]:
        print(table(result["times"], names, AIMS.get(delay, {}) if is_small else None))
        said = cpu_table(result["cpu"], names)
        if said:
            print("\n" + said)
    if result["exec"]:
        print("\n" + exec_table(result["exec"], 2 if delay >= 40 else 1))
    sys.stdout.flush()


# -- the whole

def sshd_module():
    """The tests' sshd and delay; they need python3-pytest."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from support import sshd
    except ImportError as error:
        raise Trouble("the tests' sshd: %s (apt-get install python3-pytest openssh-server)" % error) from error
    return sshd


def wanted_systems(text):
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SYSTEMS:
            raise Trouble("no system '%s'; there are %s" % (name, ", ".join(SYSTEMS)))
    for name, tool in (("sshfs", "sshfs"), ("sshfs tuned", "sshfs"), ("rclone", "rclone")):
        if name in names and not shutil.which(tool):
            print("%s is not installed: measuring without it (apt-get install %s)" % (tool, tool), file=sys.stderr)
            names.remove(name)
    return names


def at_delay(delay, names, groups, wants_exec, inputs, options, sshd, measured, base):
    """All that is measured at one delay; everything that it starts has ended when it returns."""
    stops, systems = [], []
    echo = Echo()
    try:
        with sshd_module().DelayProxy(echo.port, delay) as way:
            found = round_trip(way.port)
        check_delay(delay, found)
        way = sshd.delay(delay)
        stops.append(way)
        place = base / ("delay%d" % delay)
        place.mkdir()
        host = Host(place, sshd, way.port)
        for name in names:
            system = SYSTEMS[name](place, host, measured) if name == "sbxfs" else SYSTEMS[name](place, host)
            stops.append(system)
            system.start()
            systems.append(system)
        label = "%d ms" % delay
        times, cpu = measure(systems, inputs, groups, options.repetitions, label)
        execs = {}
        if wants_exec and "sbxfs" in names:
            master = Master(host, place)
            stops.append(master)
            master.start()
            execs = measure_exec(systems[names.index("sbxfs")], master, max(5, int(40 * options.scale)))
        return {"round_trip_ms": found, "times": times, "cpu": cpu, "exec": execs}
    finally:
        stop_all(stops, echo.close)


def ssh(options):
    groups = [name for name in GROUPS if not options.only or re.search(options.only, name)]
    wants_exec = not options.only or re.search(options.only, "exec")
    if not groups and not wants_exec:
        raise Trouble("no group matches '%s'; there are %s and exec" % (options.only, ", ".join(GROUPS)))
    names = wanted_systems(options.systems)
    delays = [int(word) for word in options.delay.split(",")]
    measured = program(options.sbxfs) if "sbxfs" in names else None
    base, undo = make_backing(options.backing)
    result = {"context": context(base, options), "delays": {}}
    stops = []
    try:
        sshd = sshd_module().Sshd(base / "sshd")
        stops.append(sshd)
        sshd.start()
        inputs = loads.Inputs(base, options.scale, options.full)
        inputs.prepare()
        print("kernel %(kernel)s, %(processors)d processors, load %(load).1f, uid %(uid)d, backing %(backing)s, "
              "median of %(repetitions)d" % result["context"])
        print("\nA figure x of 2.00 says that sbxfs took half the time, or CPU time, of the better sshfs, or of rclone.")
        for delay in delays:
            found = at_delay(delay, names, groups, wants_exec, inputs, options, sshd, measured, base)
            result["delays"][str(delay)] = found
            show(delay, found, names, options.scale == 1 and not options.full)
            if options.json:
                Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    finally:
        signal.alarm(0)
        stop_all(stops, undo)
