# SPDX-License-Identifier: Apache-2.0
"""execd's commands: run in a shell, watched through the files that they print into.

Kept as it is there: events are bare JSON lines with a blank line between, no `data:`; output comes
line by line, without its terminators, bytes that are no UTF-8 replaced; the connection is held one
second after the end; a dropped one stops nothing; the files of the output stay in /tmp.
"""

import os
import re
import signal
import threading
import time
import uuid

from common import gostyle
from common.http import Closed, Reply
from common.sandbox import Gone, User

from opensandbox_answers import fail, json_answer

EVENTS = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"),
          ("X-Accel-Buffering", "no")]
POLL_S, PING_S, HELD_S = 0.1, 3, 1
ARGUMENT_MAX = 128 << 10
DUMP = "/tmp/.execd-session-"


def now_ms():
    return int(time.time() * 1000)


def line_of(event):
    return gostyle.dumps({**event, "timestamp": now_ms()}) + b"\n\n"


class Tail:
    """The lines of a file that grows."""

    END = re.compile(rb"\r\n|\n|\r")

    def __init__(self, fd, kind, keeps_empty, keeps_rest):
        self.fd, self.kind = fd, kind
        self.keeps_empty, self.keeps_rest = keeps_empty, keeps_rest
        self.at, self.rest = 0, b""

    def events(self, last=False):
        while data := os.pread(self.fd, 1 << 18, self.at):
            self.at += len(data)
            yield from self._lines(data)
        if last and self.rest and self.keeps_rest:
            yield self._event(self.rest.rstrip(b"\r"))
            self.rest = b""

    def _lines(self, data):
        text, self.rest = self.rest + data, b""
        at = 0
        for match in self.END.finditer(text):
            if match[0] == b"\r" and match.end() == len(text):
                break  # perhaps the first half of CRLF
            line = text[at:match.start()]
            at = match.end()
            if line or self.keeps_empty:
                yield self._event(line or b"\n")
        self.rest = text[at:]

    def _event(self, line):
        return {"type": self.kind, "text": line.decode("utf-8", "replace")}


class Command:
    def __init__(self, text, process):
        self.id = uuid.uuid4().hex
        self.text, self.process = text, process
        self.started, self.finished = time.time_ns(), None
        self.background = False
        self.output = None  # path of a background command's
        self.error = None

    def code(self):
        """(exit code, what went wrong) of the end; -1 for a signal."""
        status = self.process.status
        if status is None:
            return -1, "signal: killed"
        if os.WIFSIGNALED(status):
            name = {9: "killed", 15: "terminated", 2: "interrupt", 11: "segmentation fault",
                    6: "aborted", 1: "hangup", 13: "broken pipe"}.get(os.WTERMSIG(status))
            return -1, "signal: " + (name or str(os.WTERMSIG(status)))
        code = os.WEXITSTATUS(status)
        return code, "exit status %d" % code if code else None


class Commands:
    """Commands and sessions of one execd."""

    def __init__(self, execd):
        self.execd = execd
        self.known = {}
        self.sessions = {}
        self.lock = threading.Lock()

    def routes(self):
        return [("POST", "/command", self.run), ("DELETE", "/command", self.interrupt),
                ("GET", "/command/status/{id}", self.status), ("GET", "/command/{id}/logs", self.logs),
                ("POST", "/session", self.new_session), ("POST", "/session/{id}/run", self.run_in_session),
                ("DELETE", "/session/{id}", self.end_session)]

    # -- starting

    def run(self, request):
        value = self.execd.body(request)
        text = value.get("command") or ""
        if not text.strip():
            fail(400, "INVALID_REQUEST_BODY", "invalid request, validation error Key: 'RunCommandRequest.Command' "
                 "Error:Field validation for 'Command' failed on the 'required' tag")
        if (value.get("timeout") or 0) < 0:
            fail(400, "INVALID_REQUEST_BODY", "invalid request, validation error timeout must be at least 1")
        if value.get("gid") is not None and value.get("uid") is None:
            fail(400, "INVALID_REQUEST_BODY", "invalid request, validation error uid is required when gid is provided")
        cwd = self.cwd(value.get("cwd"))
        shell = "bash" if self.execd.root.exists("/bin/bash") else "sh"
        env = {**self.execd.env, **(value.get("envs") or {})}
        user = None
        if value.get("uid") is not None:
            user = User("", value["uid"], "/")
            user.gid = value.get("gid", value["uid"])
        background = bool(value.get("background"))
        command, tails, error = self.start([shell, "-c", text], text, cwd, env, user, background)
        if error:
            return Reply(200, EVENTS, self.failed(command, error))
        if value.get("timeout"):
            self.limit(command, value["timeout"])
        if background:
            return Reply(200, EVENTS, self.started(command))
        return Reply(200, EVENTS, self.stream(command, tails, command.id))

    def cwd(self, given):
        if not given:
            return "/"
        cwd = self.execd.expand(given)
        if not self.execd.root.is_dir(cwd):
            fail(400, "INVALID_REQUEST_BODY", "invalid request, cwd does not exist or is not a directory: " + given)
        return cwd

    def start(self, argv, text, cwd, env, user, background, merged=False):
        """(Command, its Tails, None or what went wrong)."""
        root, sandbox = self.execd.root, self.execd.box.sandbox
        command = Command(text, None)
        command.background = background
        path = "/tmp/" + command.id
        names = [path + ".output"] if background or merged else [path + ".stdout", path + ".stderr"]
        fds = [root.open(each, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644) for each in names]
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        error = None
        try:
            if max(len(os.fsencode(each)) for each in argv) >= ARGUMENT_MAX:
                raise OSError(7, "")
            command.process = sandbox.run(argv, null, fds[0], fds[-1], env=env, cwd=cwd, user=user, group=True)
        except OSError as failure:
            error = "fork/exec /usr/bin/%s: %s" % (argv[0], gostyle.error_text(failure.errno))
        finally:
            os.close(null)
        if background:
            command.output = names[0]
        with self.lock:
            self.known[command.id] = command
        if error:
            command.error = error
            for fd in fds:
                os.close(fd)
            return command, [], error
        threading.Thread(target=self.watch, args=(command,), daemon=True).start()
        if background:
            os.close(fds[0])
            return command, [], None
        keeps = self.execd.since("1.0.17"), self.execd.since("1.0.5")
        return command, [Tail(fd, kind, *keeps) for fd, kind in zip(fds, ("stdout", "stderr"))], None

    @staticmethod
    def watch(command):
        command.process.ended.wait()
        command.finished = time.time_ns()

    def limit(self, command, timeout_ms):
        def wait():
            if not command.process.ended.wait(timeout_ms / 1000):
                self.kill(command, signal.SIGKILL)
        threading.Thread(target=wait, daemon=True).start()

    def kill(self, command, number):
        try:
            command.process.kill(number, group=self.execd.since("1.0.18"))
        except (OSError, Gone):
            pass

    # -- events

    def failed(self, command, error):
        yield line_of({"type": "init", "text": command.id})
        yield line_of({"type": "error", "error": {"ename": "CommandExecError", "evalue": error,
                                                  "traceback": [error]}})

    def started(self, command):
        yield line_of({"type": "init", "text": command.id})
        yield line_of({"type": "ping", "text": "pong"})
        yield line_of({"type": "execution_complete"})

    def stream(self, command, tails, name):
        began = time.monotonic()
        try:
            yield line_of({"type": "init", "text": name})
            yield line_of({"type": "ping", "text": "pong"})
            pinged = time.monotonic()
            is_over = False
            while not is_over:
                is_over = command.process.ended.wait(POLL_S)
                self.execd.box.wait_thawed()
                for tail in tails:
                    yield b"".join(line_of(event) for event in tail.events(is_over))
                if time.monotonic() - pinged >= PING_S:
                    pinged = time.monotonic()
                    yield line_of({"type": "ping", "text": "pong"})
        finally:
            for tail in tails:
                os.close(tail.fd)
        if command.process.status is None:
            raise Closed("the sandbox has ended")
        code, text = command.code()
        if text:
            yield line_of({"type": "error", "error": {"ename": "CommandExecError", "evalue": str(code),
                                                      "traceback": [text]}})
        else:
            took = int((time.monotonic() - began) * 1000)
            yield line_of({"type": "execution_complete", **({"execution_time": took} if took else {})})
        time.sleep(HELD_S)

    # -- asked afterwards

    def status(self, request, name):
        command = self.known.get(name)
        if command is None:
            fail(404, "INVALID_REQUEST_BODY", "command not found: " + name)
        running = command.process is not None and not command.process.ended.is_set()
        value = {"id": name, "content": command.text, "running": running,
                 "started_at": gostyle.time_nano(command.started)}
        if not running:
            code, text = command.code() if command.process else (-1, command.error)
            value["exit_code"] = code
            if text:
                value["error"] = text
            value["finished_at"] = gostyle.time_nano(command.finished or time.time_ns())
        return json_answer(value)

    def logs(self, request, name):
        self.execd.check_query(request)
        command = self.known.get(name)
        if command is None or not command.background:
            fail(400, "INVALID_REQUEST_BODY", "error getting command output: command not found or not in background: "
                 + name)
        cursor = int(request.arg("cursor") or 0)
        try:
            fd = self.execd.root.open(command.output)
        except OSError as error:
            fail(500, "RUNTIME_ERROR", gostyle.path_error("open", command.output, error))
        try:
            pieces = []
            at = cursor
            while piece := os.pread(fd, 1 << 20, at):
                pieces.append(piece)
                at += len(piece)
        finally:
            os.close(fd)
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8"),
                           ("EXECD-COMMANDS-TAIL-CURSOR", str(at))], b"".join(pieces))

    def interrupt(self, request):
        name = request.arg("id")
        if not name:
            fail(400, "MISSING_QUERY", "missing query parameter 'id'")
        command = self.known.get(name)
        if command is None or command.process is None or command.process.ended.is_set():
            fail(500, "RUNTIME_ERROR", "error interrupting code context. no such command or it is not running: " + name)
        self.kill(command, signal.SIGTERM)
        if not command.process.ended.wait(3):
            self.kill(command, signal.SIGKILL)
            command.process.ended.wait(3)
        return Reply(200)

    # -- sessions

    def new_session(self, request):
        value = self.execd.body(request) if request.headers.get("Content-Length", "0") != "0" else {}
        cwd = self.execd.expand(value["cwd"]) if value.get("cwd") else "/"
        try:
            self.execd.root.make_dirs(cwd)
        except OSError as error:
            fail(500, "RUNTIME_ERROR", "error creating session: " + gostyle.path_error("mkdir", cwd, error))
        name = uuid.uuid4().hex
        self.sessions[name] = {"cwd": cwd, "exports": "", "lock": threading.Lock()}
        return json_answer({"session_id": name})

    def run_in_session(self, request, name):
        value = self.execd.body(request)
        session = self.sessions.get(name)
        if session is None:
            fail(500, "RUNTIME_ERROR", "error running session: session not found")
        text = value.get("command") or ""
        if not text.strip():
            fail(400, "INVALID_REQUEST_BODY", "invalid request, command is required")
        dump, script = DUMP + name, "/tmp/.execd-script-" + uuid.uuid4().hex
        cwd = self.cwd(value["cwd"]) if value.get("cwd") else session["cwd"]
        self.execd.root.write(script, os.fsencode(
            "%s\ntrap '{ pwd; export -p; } >%s' EXIT\n%s\n" % (session["exports"], dump, text)), 0o600)
        command, tails, error = self.start(["bash", "--noprofile", "--norc", script], text, cwd,
                                           self.execd.env, None, False, merged=True)
        if error:
            return Reply(200, EVENTS, self.failed(command, error))
        if value.get("timeout"):
            self.limit(command, value["timeout"])
        return Reply(200, EVENTS, self.session_stream(command, tails, name, session, dump, script))

    def session_stream(self, command, tails, name, session, dump, script):
        for piece in self.stream(command, tails, name):
            if command.process.ended.is_set() and script:
                self.save(session, dump, script)
                script = None
            yield piece

    def save(self, session, dump, script):
        try:
            cwd, _, exports = os.fsdecode(self.execd.root.read(dump)).partition("\n")
            session.update(cwd=cwd, exports=exports)
            self.execd.root.unlink(dump)
            self.execd.root.unlink(script)
        except OSError:
            pass  # the command has replaced its shell

    def end_session(self, _request, name):
        if self.sessions.pop(name, None) is None:
            fail(404, "SESSION_NOT_FOUND", "session not found: " + name)
        return Reply(200)
