# SPDX-License-Identifier: Apache-2.0
"""execd's terminals and pipes over a WebSocket: the one way to a command's stdin.

A session's process starts with the first client, which says by `pty=` what it talks to. Binary
frames: 0x00 stdin, 0x01 stdout, 0x02 stderr (pipes only), 0x03 what came before, after its offset
in eight bytes. There is no frame for the end of stdin. A second client is refused, unless it takes
the session over.
"""

import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
import threading
import uuid

from common import websocket
from common.http import Closed, Reply
from common.sandbox import Gone, write_all

from opensandbox_answers import fail, json_answer

STDIN, STDOUT, STDERR, REPLAY = b"\0", b"\1", b"\2", b"\3"
KEPT = 1 << 20
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL,
           "SIGQUIT": signal.SIGQUIT, "SIGHUP": signal.SIGHUP}


class Session:
    def __init__(self, cwd, command):
        self.id = uuid.uuid4().hex
        self.cwd, self.command = cwd, command
        self.lock = threading.Lock()
        self.process = None
        self.is_pty = False
        self.feed = -1
        self.begun = self.deleted = False
        self.socket = None
        self.kept, self.offset = b"", 0  # the last output, and where it begins

    def said(self, kind, data):
        """Output: kept, and sent to who listens."""
        with self.lock:
            self.kept += data
            if len(self.kept) > KEPT:
                self.offset += len(self.kept) - KEPT
                self.kept = self.kept[-KEPT:]
            socket = self.socket
        if socket:
            try:
                socket.send(kind + data)
            except Closed:
                pass

    def write(self, data):
        """To its stdin. OSError when nobody reads it."""
        with self.lock:
            fd = os.dup(self.feed)
        write_all(fd, data)

    def pump(self, fd, kind):
        while True:
            try:
                data = os.read(fd, 16 << 10)
            except OSError:  # a terminal without its other end
                data = b""
            if not data:
                break
            self.said(kind, data)
        os.close(fd)


class Ptys:
    """The sessions of one execd."""

    def __init__(self, execd):
        self.execd = execd
        self.known = {}

    def routes(self):
        if not self.execd.since("1.0.10"):
            return []
        return [("POST", "/pty", self.create), ("GET", "/pty/{id}", self.get),
                ("DELETE", "/pty/{id}", self.delete), ("GET", "/pty/{id}/ws", self.connect)]

    def create(self, request):
        value = self.execd.body(request) if request.headers.get("Content-Length", "0") != "0" else {}
        cwd = self.execd.expand(value["cwd"]) if value.get("cwd") else "/"
        if not self.execd.root.is_dir(cwd):
            fail(400, "INVALID_REQUEST_BODY", "cwd does not exist: " + cwd)
        session = Session(cwd, value.get("command") if self.execd.since("1.0.19") else None)
        self.known[session.id] = session
        return json_answer({"session_id": session.id}, 201)

    def session(self, name):
        if name not in self.known:
            fail(404, "SESSION_NOT_FOUND", "session not found: " + name)
        return self.known[name]

    def get(self, _request, name):
        session = self.session(name)
        running = session.process is not None and not session.process.ended.is_set()
        return json_answer({"session_id": name, "running": running,
                            "output_offset": session.offset + len(session.kept)})

    def delete(self, _request, name):
        session = self.session(name)
        self.known.pop(name, None)
        with session.lock:
            session.deleted = True
            process = session.process
        if process:
            self.kill(session, signal.SIGKILL)
        return Reply(200)

    @staticmethod
    def kill(session, number):
        try:
            session.process.kill(number, group=True)
        except (OSError, Gone):
            pass

    # -- the process

    def start(self, session, is_pty):
        argv = ["bash", "-c", session.command] if session.command else ["bash"]
        session.is_pty = is_pty
        run = {"env": {**self.execd.env, "TERM": "xterm-256color"}, "cwd": session.cwd, "session": True}
        if is_pty:
            ours, theirs = os.openpty()
            close, outputs = [theirs], [(os.dup(ours), STDOUT)]
            fds, session.feed = (theirs, theirs, theirs), ours
        else:
            stdin, session.feed = os.pipe2(os.O_CLOEXEC)
            out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            close, outputs = [stdin, out[1], err[1]], [(out[0], STDOUT), (err[0], STDERR)]
            fds = (stdin, out[1], err[1])
        try:
            process = self.execd.box.sandbox.run(argv, *fds, tty=is_pty, **run)
        except Gone:
            raise Closed("the sandbox has ended") from None
        finally:
            for fd in close:
                os.close(fd)
        with session.lock:
            session.process = process
            deleted = session.deleted
        if deleted:  # while it was started
            self.kill(session, signal.SIGKILL)
        pumps = [threading.Thread(target=session.pump, args=each, daemon=True) for each in outputs]
        for each in pumps:
            each.start()
        threading.Thread(target=self.end, args=(session, pumps), daemon=True).start()

    @staticmethod
    def end(session, pumps):
        session.process.ended.wait()
        for each in pumps:
            each.join(5)
        with session.lock:
            feed, session.feed = session.feed, -1
        os.close(feed)
        status = session.process.status
        code = -1 if status is None else os.waitstatus_to_exitcode(status)
        socket = session.socket
        if socket:
            try:
                socket.text(json.dumps({"type": "exit", "exit_code": code if code >= 0 else 128 - code}))
                socket.close()
            except Closed:
                pass

    # -- a client

    def connect(self, request, name):
        session = self.session(name)
        with session.lock:
            if session.socket and request.arg("takeover") != "1":
                fail(409, "RUNTIME_ERROR", "session already has a client")
            if session.socket:
                session.socket.close(1001)
        return websocket.upgrade(request, lambda socket: self.talk(request, session, socket))

    def talk(self, request, session, socket):
        try:
            with session.lock:  # what the command says now comes after these
                session.socket = socket
                begun, session.begun = session.begun, True
                since = max(int(request.arg("since") or 0), session.offset)
                old = session.kept[since - session.offset:]
                socket.text(json.dumps({"type": "connected", "session_id": session.id,
                                        "mode": "pipe" if request.arg("pty") == "0" else "pty"}))
                if old:
                    socket.send(REPLAY + struct.pack(">Q", since) + old)
            if not begun:
                self.start(session, request.arg("pty") != "0")
            while message := socket.receive():
                self.take(session, socket, *message)
        except OSError:
            pass  # it could not be started
        finally:
            with session.lock:
                if session.socket is socket:
                    session.socket = None

    def take(self, session, socket, kind, data):
        """One message of the client."""
        if kind == websocket.BINARY:
            if data[:1] == STDIN:
                with contextlib.suppress(OSError):  # it reads no more: its end is told when all that it said is
                    session.write(data[1:])
            return
        try:
            value = json.loads(data)
        except ValueError:
            socket.text(json.dumps({"type": "error", "error": "invalid message"}))
            return
        if value.get("type") == "ping":
            socket.text(json.dumps({"type": "pong"}))
        elif value.get("type") == "resize" and session.is_pty:
            size = struct.pack("HHHH", int(value.get("rows", 24)), int(value.get("cols", 80)), 0, 0)
            with session.lock, contextlib.suppress(OSError):
                fcntl.ioctl(session.feed, termios.TIOCSWINSZ, size)
        elif value.get("type") == "signal" and value.get("signal") in SIGNALS:
            self.kill(session, SIGNALS[value["signal"]])
