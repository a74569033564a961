# SPDX-License-Identifier: Apache-2.0
"""The program `conform` as an object: one provider, its sandboxes and their commands.

    with Driver(directory) as d:
        d.create("k1")
        assert d.run("k1", "echo hello").out == b"hello\n"

Everything is asked in threads of the program: ask() returns at once, get() waits. Tests call their sandboxes k1 and the
like; each Driver adds a mark of its own, since ids are unique on the machine: cgroups and processes are known by them.
"""

import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from support import mounts
from support.tools import Failed, identity, wait_for

SANITIZER = re.compile(rb"Sanitizer|runtime error:|Assertion .* failed")


class Refused(Exception):
    """The provider answered with an error."""

    def __init__(self, answer):
        super().__init__("%s: %s" % (answer["errno"], answer["sentence"]))
        self.errno = answer["errno"]
        self.sentence = answer["sentence"]
        self.answer = answer


class Run:
    """How a command ended, and what it printed."""

    def __init__(self, driver, box, number, answer):
        self.kind = answer.get("kind")
        self.value = answer.get("value")
        self.answer = answer
        self.out = driver.output(box, number, 0)
        self.err = driver.output(box, number, 1)
        self.both = driver.output(box, number, "both")

    def __repr__(self):
        return "%s %s\nout: %r\nerr: %r\n%r" % (self.kind, self.value, self.out[-4000:],
                                                self.err[-4000:], self.answer)


class Driver:
    def __init__(self, directory, kind="local", allow="", pairs=(), user=None, env=None, owner="owner0"):
        self.directory = Path(directory)
        self.state_dir = self.directory / "state"
        self.out = self.directory / "out"
        self.kind = kind
        self.allow = allow
        self.pairs = list(pairs)
        self.user = user
        self.env = env
        self.owner = owner
        self.process = None
        self.mark = "z%010d" % random.SystemRandom().randrange(10**10)
        self.numbers = {}
        self.made = set()
        self.ids = {}
        self.exec_ids = {}
        self.logs = []
        for path in (self.state_dir, self.out):
            path.mkdir(exist_ok=True)
            path.chmod(0o711 if os.geteuid() == 0 and not user else 0o700)
            if user:
                entry = identity(user)
                os.chown(path, entry["user"], entry["group"])

    # -- the program

    def start(self):
        build = mounts.build_directory()
        self.logs.append(self.directory / ("log%d" % len(self.logs)))
        environ = dict(os.environ, **(self.env or {}))
        with open(self.logs[-1], "wb") as log:
            self.process = subprocess.Popen(
                [build / "tests/providers/conform", self.kind, self.state_dir, self.out,
                 build / "providers/local", self.owner, self.allow, *self.pairs],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environ,
                cwd="/", **identity(self.user))
        self.waiting = {}
        self.lock = threading.Lock()
        self.count = 0
        ready = queue.Queue()
        self.waiting[0] = ready
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        try:
            answer = ready.get(timeout=60)
        except queue.Empty:
            answer = None
        if answer is None:
            self.kill()
            raise Failed("conform did not start: %s" % self.log())
        return self

    def _read(self, file):
        for line in file:
            answer = json.loads(line)
            with self.lock:
                target = self.waiting.pop(answer["id"])
            target.put(answer)
        with self.lock:
            left = list(self.waiting.values())
            self.waiting = None
        for target in left:
            target.put(None)

    def log(self):
        return "".join(path.read_text(errors="replace") for path in self.logs)

    def kill(self):
        """kill -9, as if sbxfs had crashed."""
        self.process.kill()
        self._gone()

    def close(self):
        """End of input: it lets go of everything and ends."""
        self.process.stdin.close()
        code = self._gone()
        assert code == 0, "conform ended with %s: %s" % (code, self.log()[-8000:])

    def _gone(self):
        try:
            code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise Failed("conform hangs: %s" % self.log())
        self.reader.join(30)
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process = None
        return code

    def ask(self, op, **arguments):
        """Send one request; the queue that gets its answer."""
        target = queue.Queue()
        if "box" in arguments:
            arguments["box"] += self.mark
        with self.lock:
            if self.waiting is None:
                raise Failed("conform died: %s" % self.log()[-8000:])
            self.count += 1
            number = self.count
            self.waiting[number] = target
        self.process.stdin.write(json.dumps(dict(arguments, id=number, op=op)).encode() + b"\n")
        self.process.stdin.flush()
        return target

    def get(self, target, timeout=60):
        try:
            answer = target.get(timeout=timeout)
        except queue.Empty:
            raise Failed("no answer within %s s: %s" % (timeout, self.log()[-8000:]))
        if answer is None:
            raise Failed("conform died: %s" % self.log()[-8000:])
        if answer["r"] < 0:
            raise Refused(answer)
        if "boxes" in answer:
            answer["boxes"] = {box.removesuffix(self.mark): state
                               for box, state in answer["boxes"].items()}
        return answer

    def do(self, op, **arguments):
        if op == "exec_attach":
            key = (arguments["box"], arguments["number"])
            arguments.setdefault("exec_id", self.exec_ids.get(key, str(key[1])))
        answer = self.get(self.ask(op, **arguments), 60 + arguments.get("call_ms", 0) / 1000)
        if op == "exec":
            self.exec_ids[arguments["box"], arguments["number"]] = answer["exec_id"]
        return answer

    # -- sandboxes

    def create(self, box, **settings):
        answer = self.do("create", box=box, **settings)
        if "box_id" in answer:
            self.made.add(box)
            self.ids[box] = answer["box_id"]
        return answer

    def attach(self, box, **settings):
        """By the provider's own id for it."""
        if box in self.ids:
            settings.setdefault("box_id", self.ids[box])
        return self.do("attach", box=box, **settings)

    def destroy(self, box):
        self.do("destroy", box=box)
        self.made.discard(box)

    def state(self, box):
        return self.do("state", box=box)["state"]

    def wait_state(self, box, state, timeout=10):
        return wait_for(lambda: self.state(box) == state, timeout, what="state %s" % state)

    def workspace(self, box):
        return self.state_path(box) / "workspace"

    def state_path(self, box):
        return self.state_dir / (box + self.mark)

    # -- commands

    def next(self, box):
        self.numbers[box] = self.numbers.get(box, 0) + 1
        return self.numbers[box]

    def exec(self, box, command, **options):
        """Start a command: a list, or text for sh -c. Its number."""
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        number = self.next(box)
        self.do("exec", box=box, number=number, argv=argv, **options)
        return number

    def wait(self, box, number, timeout=60, **until):
        """Until it has ended, or bytes=N of stdout or taken=N of stdin were seen."""
        answer = self.get(self.ask("wait", box=box, number=number, ms=int(timeout * 1000), **until),
                          timeout + 10)
        return Run(self, box, number, answer)

    def run(self, box, command, timeout=60, **options):
        number = self.exec(box, command, **options)
        result = self.wait(box, number, timeout)
        self.do("exec_release", box=box, number=number)
        return result

    def check(self, box, command, **options):
        """stdout of a command that must end with 0."""
        result = self.run(box, command, **options)
        assert (result.kind, result.value) == ("code", 0), result
        return result.out.decode()

    def output(self, box, number, which):
        try:
            return (self.out / ("%s.%d.%s" % (box + self.mark, number, which))).read_bytes()
        except FileNotFoundError:
            return b""

    def holders(self, box):
        """Host pids of the sandbox's holder."""
        found, ident = [], (box + self.mark).encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path("/proc/%s/cmdline" % pid).read_bytes().split(b"\0")
                state = Path("/proc/%s/stat" % pid).read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if state not in "ZX" and len(words) > 4 and words[4] == ident and \
                    words[1] in (b"namespace", b"uid", b"tree"):
                found.append(int(pid))
        return found

    # -- the end

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        problems = []
        try:
            if self.process is None:
                self.start()
            for box in sorted(self.made):
                self._destroy(box, problems)
            self.close()
        except Exception as problem:  # noqa: shown below, together with the first
            problems.append(str(problem))
            if self.process is not None:
                self.process.kill()
                self.process.wait(timeout=30)
        problems += self.left_at_last()
        for path in self.logs:
            if SANITIZER.search(path.read_bytes()):
                problems.append(path.read_text(errors="replace")[-8000:])
        if problems and kind is None:
            raise Failed("\n".join(problems))

    def _destroy(self, box, problems):
        try:
            self.do("destroy", box=box)
        except Refused as refused:
            if refused.errno != "ESRCH":
                problems.append("destroy %s: %s" % (box, refused))
                return
            if self.kind.startswith("local") and not self.state_path(box).exists():
                return
            self.attach(box)
            self.do("destroy", box=box)

    def left_at_last(self, seconds=12):
        """What is still there after a while: less than the 20 s after which a lonely holder ends by itself."""
        end = time.monotonic() + seconds
        while (problems := self.left()) and time.monotonic() < end:
            time.sleep(0.05)
        return problems

    def left(self):
        """What of the sandboxes is still there: files, processes, cgroups."""
        problems = []
        processes = mounts.processes_of(self.directory)
        if processes:
            problems.append("processes left: %s" % processes)
        files = [name for name in os.listdir(self.state_dir) if not name.startswith("host-")]
        if files:
            problems.append("files left: %s" % files)
        # os.walk bears with what others remove meanwhile
        groups = [os.path.join(top, name) for top, names, _ in os.walk("/sys/fs/cgroup")
                  if os.path.basename(top) == "sbxfs" for name in names if name.endswith(self.mark)]
        if groups:
            problems.append("cgroups left: %s" % groups)
        return problems


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)
