# SPDX-License-Identifier: Apache-2.0
"""The toolbox's sessions: a shell that lives, and commands written to its stdin.

Kept as it is there, by the same means: each line of output gets a marker from a loop of `read`, so
that NULs vanish and a last newline is added; `exit` ends the session's shell and the command never
ends; commands wait for one another; input has no end.
"""

import contextlib
import os
import re
import shlex
import signal
import threading
import time
import uuid

from common import gostyle, websocket
from common.http import Closed, Reply
from common.sandbox import Gone, write_all

OUT, ERR = b"\x01\x01\x01", b"\x02\x02\x02"
FRAME_MAX = 1024
JSON = [("Content-Type", "application/json; charset=utf-8")]

# The braces keep the command in the shell itself.
SCRIPT = """
{ __d=%(dir)s
mkfifo "$__d/out" "$__d/err"
( while IFS= read -r l || [ -n "$l" ]; do printf '\\001\\001\\001%%s\\n' "$l"; done <"$__d/out" ) >>"$__d/log" &
__o=$!
( while IFS= read -r l || [ -n "$l" ]; do printf '\\002\\002\\002%%s\\n' "$l"; done <"$__d/err" ) >>"$__d/log" &
__e=$!
{
%(command)s
} %(stdin)s >"$__d/out" 2>"$__d/err"
__c=$?
wait $__o $__e
echo $__c >%(dir)s/code
} 2>/dev/null
"""


class Command:
    """One command. `input`: the daemon's end of its FIFO, held so that it has no end; -1 for none."""

    def __init__(self, text, directory, echo):
        self.id = str(uuid.uuid4())
        self.text, self.echo = text, echo
        self.dir = directory + "/" + self.id
        self.input = -1
        self.lock = threading.Lock()

    def close(self):
        with self.lock:
            fd, self.input = self.input, -1
        if fd >= 0:
            os.close(fd)

    def write(self, data):
        """To its stdin. OSError."""
        with self.lock:
            fd = os.dup(self.input)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


class Session:
    def __init__(self, name, process, feed, directory):
        self.name, self.process, self.feed, self.dir = name, process, feed, directory
        self.commands = {}
        self.lock = threading.Lock()  # one command is written after the other
        self.feed_lock = threading.Lock()

    def is_lost(self):
        """The whole sandbox has ended."""
        return self.process.ended.is_set() and self.process.status is None

    def write(self, data):
        """To the shell's stdin. OSError."""
        with self.feed_lock:
            fd = os.dup(self.feed)
        write_all(fd, data)

    def close(self):
        with self.feed_lock:
            fd, self.feed = self.feed, -1
        if fd >= 0:
            os.close(fd)


class Sessions:
    """The sessions of one sandbox."""

    def __init__(self, toolbox):
        self.toolbox = toolbox
        self.known = {}
        self.lock = threading.Lock()

    def routes(self):
        one, command = "/process/session/{id}", "/process/session/{id}/command/{c}"
        return [("GET", "/process/session/entrypoint", self.entrypoint),
                ("GET", "/process/session/entrypoint/logs", self.entrypoint_logs),
                ("POST", "/process/session", self.create), ("GET", "/process/session", self.list),
                ("GET", one, self.get), ("DELETE", one, self.delete), ("POST", one + "/exec", self.run),
                ("GET", command, self.get_command), ("GET", command + "/logs", self.logs),
                ("POST", command + "/input", self.input)]

    # -- sessions

    def create(self, request):
        name = self.toolbox.body(request).get("sessionId") or ""
        if not name or name == "entrypoint":
            self.toolbox.fail(request, 400, "invalid session id")
        with self.lock:
            if name in self.known:
                self.toolbox.fail(request, 409, "session already exists")
            self.known[name] = self._start(name)
        return Reply(201)

    def _start(self, name):
        directory = "%s/.daytona/sessions/%s" % (self.toolbox.user.home, name)
        with self.toolbox.as_user():
            self.toolbox.root.make_dirs(directory, 0o755)
        stdin, feed = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            process = self.toolbox.box.sandbox.run(["/bin/bash"], stdin, null, null, env=self.toolbox.env,
                                                   cwd=self.toolbox.work_dir, user=self.toolbox.user, group=True)
        except Gone:
            os.close(feed)
            raise Closed("the sandbox has ended") from None
        finally:
            os.close(stdin)
            os.close(null)
        return Session(name, process, feed, directory)

    def session(self, request, name, status=404):
        session = self.known.get(name)
        if session is None:
            self.toolbox.fail(request, status, "session not found")
        return session

    def shown(self, session):
        return {"sessionId": session.name, "commands": [self.shown_command(each)
                                                        for each in list(session.commands.values())]}

    def list(self, _request):
        return Reply(200, JSON, gostyle.dumps([self.shown(each) for each in list(self.known.values())]))

    def get(self, request, name):
        return Reply(200, JSON, gostyle.dumps(self.shown(self.session(request, name))))

    def delete(self, request, name):
        session = self.session(request, name)
        with self.lock:
            self.known.pop(name, None)
        session.close()
        for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            try:
                session.process.kill(number, group=True)
            except (OSError, Gone):
                pass
            if session.process.ended.wait(seconds):
                break
        for command in list(session.commands.values()):
            command.close()
        with contextlib.suppress(OSError):  # what still dies may write there
            self.toolbox.root.remove_all(session.dir)
        return Reply(204)

    # -- commands

    def run(self, request, name):
        value = self.toolbox.body(request)
        session = self.session(request, name, 500)
        text = value.get("command") or ""
        if not text.strip():
            self.toolbox.fail(request, 400, "command cannot be empty")
        is_async = bool(value.get("runAsync") or value.get("async"))
        command = Command(text, session.dir, not value.get("suppressInputEcho"))
        try:
            with self.toolbox.as_user():
                self.toolbox.root.make_dirs(command.dir, 0o755)
                self.toolbox.root.write(command.dir + "/log", b"")
                if is_async:
                    self.toolbox.root.mkfifo(command.dir + "/input")
                    command.input = self.toolbox.root.open(command.dir + "/input", os.O_RDWR)
        except OSError as error:  # the session is removed at this moment
            self.toolbox.fail(request, 500, "failed to create command: " + gostyle.error_text(error.errno))
        script = SCRIPT % {"dir": shlex.quote(command.dir), "command": text,
                           "stdin": '<>"$__d/input"' if is_async else "</dev/null"}
        with session.lock:
            session.commands[command.id] = command
            try:
                if session.process.ended.is_set():
                    raise BrokenPipeError
                session.write(os.fsencode(script))
            except OSError:
                self.toolbox.fail(request, 500, "failed to write command: write |1: broken pipe")
        if is_async:
            return Reply(202, JSON, gostyle.dumps({"cmdId": command.id, "output": None, "stdout": None,
                                                   "stderr": None, "exitCode": None}))
        while self.code(command) is None:
            if session.is_lost() or self.known.get(name) is not session:
                raise Closed("the session has ended")
            time.sleep(0.02)
        return self._sync_answer(request, command)

    def _sync_answer(self, request, command):
        log, value = self.log(command), {"cmdId": command.id, "exitCode": self.code(command)}
        form = self.form(request)
        if form == "plain":
            value.update(output=text_of(merged(log)), stdout=None, stderr=None)
        else:
            value["output"] = text_of(log)
            value.update(stdout=None, stderr=None)
            if form == "json":
                out, err = split(log)
                value.update(stdout=text_of(out), stderr=text_of(err))
        return Reply(200, JSON, gostyle.dumps(value))

    def code(self, command):
        try:
            text = self.toolbox.root.read(command.dir + "/code", 100)
            return int(text) if text.endswith(b"\n") else None
        except (OSError, ValueError, AttributeError):
            return None

    def log(self, command, at=0):
        try:
            fd = self.toolbox.root.open(command.dir + "/log")
        except (OSError, AttributeError):
            return b""
        with open(fd, "rb") as file:
            file.seek(at)
            return file.read()

    def command(self, request, name, number):
        session = self.session(request, name)
        if number not in session.commands:
            self.toolbox.fail(request, 404, "command not found")
        return session.commands[number]

    def shown_command(self, command):
        value, code = {"id": command.id, "command": command.text}, self.code(command)
        return value if code is None else {**value, "exitCode": code}

    def get_command(self, request, name, number):
        return Reply(200, JSON, gostyle.dumps(self.shown_command(self.command(request, name, number))))

    def input(self, request, name, number):
        data = self.toolbox.body(request).get("data") or ""
        command = self.command(request, name, number)
        if self.code(command) is not None:
            command.close()
            self.toolbox.fail(request, 410, "command has already completed")
        data = os.fsencode(data if data.endswith("\n") else data + "\n")
        try:
            if command.echo:
                with open(self.toolbox.root.open(command.dir + "/log", os.O_WRONLY | os.O_APPEND), "wb") as log:
                    log.write(OUT + data)
            command.write(data)
        except OSError as error:
            self.toolbox.fail(request, 500, "failed to write to input pipe: " + gostyle.error_text(error.errno))
        return Reply(204)

    # -- logs

    def form(self, request):
        """json, marked or plain: what the client's headers ask for."""
        version = request.headers.get("X-Daytona-SDK-Version")
        for word in websocket.offered(request):
            if word.startswith("X-Daytona-SDK-Version~"):
                version = word.partition("~")[2]
        if version:
            numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:3])
            return "json" if numbers >= (0, 167, 0) or numbers == (0, 0, 0) else "plain"
        return "marked" if request.headers.get("X-Daytona-Split-Output", "").lower() == "true" else "plain"

    def logs(self, request, name, number):
        session, command = self.session(request, name), self.command(request, name, number)
        form = self.form(request)
        if websocket.is_wanted(request) and request.arg("follow") == "true":
            protocol = next((each for each in websocket.offered(request)
                             if each.startswith("X-Daytona-SDK-Version~")), None)
            return websocket.upgrade(request, lambda socket: self._follow(socket, session, command, form), protocol)
        log = self.log(command)
        if form == "json":
            out, err = split(log)
            return Reply(200, JSON, gostyle.dumps({"output": text_of(log), "stdout": text_of(out),
                                                   "stderr": text_of(err)}))
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8")],
                     log if form == "marked" else merged(log))

    def _follow(self, socket, session, command, form):
        """The log as it grows, in small frames that know nothing of markers; about a second past the end."""
        socket.drain()
        at, ended = 0, None
        while not socket.closed.is_set():
            data = self.log(command, at)
            at += len(data)
            if form == "plain":
                data = merged(data)
            for start in range(0, len(data), FRAME_MAX):
                socket.send(data[start:start + FRAME_MAX])
            if ended is None and self.code(command) is not None:
                ended = time.monotonic()
            if (ended and time.monotonic() - ended >= 1) or session.is_lost():
                return
            time.sleep(0.05)

    # -- the image's own entrypoint

    def entrypoint(self, _request):
        return Reply(200, JSON, gostyle.dumps({"sessionId": "entrypoint", "commands": [
            {"id": "entrypoint_command", "command": "sleep infinity"}]}))

    def entrypoint_logs(self, request):
        if self.form(request) == "json":
            return Reply(200, JSON, gostyle.dumps({"output": "", "stdout": "", "stderr": ""}))
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8")])


def pieces(log):
    """(marker, bytes) of each run; what comes before the first marker is dropped."""
    at = re.finditer(b"\x01\x01\x01|\x02\x02\x02", log)
    marks = [(match.start(), match.end(), match[0]) for match in at]
    for number, (_, start, mark) in enumerate(marks):
        end = marks[number + 1][0] if number + 1 < len(marks) else len(log)
        yield mark, log[start:end]


def split(log):
    """(stdout, stderr)."""
    out, err = bytearray(), bytearray()
    for mark, data in pieces(log):
        (out if mark == OUT else err).extend(data)
    return bytes(out), bytes(err)


def merged(log):
    return b"".join(data for _, data in pieces(log))


def text_of(data):
    return data.decode("utf-8", "replace")
