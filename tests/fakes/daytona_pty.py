# SPDX-License-Identifier: Apache-2.0
"""The toolbox's terminals, over a WebSocket."""

import base64
import contextlib
import fcntl
import json
import os
import struct
import termios
import threading
import uuid

from common import gostyle, websocket
from common.http import Closed, Reply
from common.sandbox import Gone

EXIT_CONTROL = "X-Daytona-Pty-Exit-Control"
ENVS = "X-Daytona-Pty-Envs~"
JSON = [("Content-Type", "application/json; charset=utf-8")]
INPUT_MAX = 64 << 10


def resize(fd, cols, rows):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class Pty:
    """A shell on a terminal. What it says before somebody listens is kept, a little."""

    def __init__(self, name, value, process, fd):
        self.name, self.value = name, value
        self.process, self.fd = process, fd
        self.lock = threading.Lock()
        self.sockets = []
        self.early = b""
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()

    def _pump(self):
        """Hand on what it says, all of it, then close it."""
        while True:
            try:
                data = os.read(self.fd, 16 << 10)
            except OSError:
                data = b""
            if not data:
                break
            with self.lock:
                sockets = list(self.sockets)
                if not sockets:
                    self.early = (self.early + data)[-65536:]
            for each in sockets:
                try:
                    each.send(data)
                except Closed:
                    pass
        self.process.ended.wait()
        with self.lock:
            fd, self.fd = self.fd, -1
        os.close(fd)

    def write(self, data):
        """OSError when the terminal is gone."""
        with self.lock:
            fd = os.dup(self.fd)
        try:
            while data and not self.process.ended.is_set():
                data = data[os.write(fd, data):]
        finally:
            os.close(fd)

    def resize(self, cols, rows):
        with self.lock:
            if self.fd >= 0:
                resize(self.fd, cols, rows)

    def shown(self):
        return {"id": self.name, "cwd": self.value["cwd"], "envs": self.value.get("envs") or {},
                "cols": self.value["cols"], "rows": self.value["rows"], "active": not self.process.ended.is_set(),
                "lazyStart": False, "createdAt": gostyle.time_nano(0)}


class Ptys:
    """The terminals of one sandbox."""

    def __init__(self, toolbox):
        self.toolbox = toolbox
        self.known = {}
        self.lock = threading.Lock()

    def routes(self):
        one = "/process/pty/{id}"
        found = [("POST", "/process/pty", self.create), ("GET", "/process/pty", self.list),
                 ("GET", one + "/connect", self.connect), ("POST", one + "/resize", self.resize),
                 ("GET", one, self.get), ("DELETE", one, self.delete)]
        if self.toolbox.since("0.197.0"):
            found.insert(0, ("GET", "/process/pty/create-connect", self.create_connect))
        return found

    @staticmethod
    def refuse(status, text):
        return Reply(status, JSON, gostyle.dumps({"error": text}))

    def start(self, value):
        """The Pty, or a Reply that says why not."""
        name = value.get("id") or str(uuid.uuid4())
        value = {**value, "cols": value.get("cols") or 80, "rows": value.get("rows") or 24,
                 "cwd": self.toolbox.resolve(value.get("cwd") or self.toolbox.work_dir)}
        if value["cols"] > 1000 or value["rows"] > 1000:
            return self.refuse(400, "cols and rows must be at most 1000")
        with self.lock:
            if name in self.known and not self.known[name].process.ended.is_set():
                return self.refuse(409, "PTY session with ID '%s' already exists" % name)
            ours, theirs = os.openpty()
            resize(ours, value["cols"], value["rows"])
            try:
                env = {**self.toolbox.env, "TERM": "xterm-256color", **(value.get("envs") or {})}
                process = self.toolbox.box.sandbox.run(
                    ["/bin/bash", "-i", "-l"], theirs, theirs, theirs, env=env, cwd=value["cwd"],
                    user=self.toolbox.user, session=True, tty=True)
            except (OSError, Gone) as error:
                os.close(ours)
                return self.refuse(500, str(error))
            finally:
                os.close(theirs)
            self.known[name] = Pty(name, value, process, ours)
            return self.known[name]

    def create(self, request):
        pty = self.start(self.toolbox.body(request))
        return pty if isinstance(pty, Reply) else Reply(201, JSON, gostyle.dumps({"sessionId": pty.name}))

    def list(self, _request):
        return Reply(200, JSON, gostyle.dumps({"sessions": [each.shown() for each in list(self.known.values())]}))

    def pty(self, name):
        return self.known.get(name)

    def get(self, _request, name):
        pty = self.pty(name)
        return Reply(200, JSON, gostyle.dumps(pty.shown())) if pty else self.refuse(404, "PTY session not found")

    def delete(self, _request, name):
        with self.lock:
            pty = self.known.pop(name, None)
        if not pty:
            return self.refuse(404, "PTY session not found")
        try:
            pty.process.kill(group=True)
        except (OSError, Gone):
            pass
        return Reply(200, JSON, gostyle.dumps({"message": "PTY session deleted"}))

    def resize(self, request, name):
        value = self.toolbox.body(request)
        pty = self.pty(name)
        if not pty:
            return self.refuse(404, "PTY session not found")
        if pty.process.ended.is_set():
            return self.refuse(410, "PTY session has ended")
        pty.value.update(cols=value["cols"], rows=value["rows"])
        pty.resize(value["cols"], value["rows"])
        return Reply(200, JSON, gostyle.dumps(pty.shown()))

    # -- connected

    def connect(self, request, name):
        def talk(socket):
            pty = self.pty(name)
            if pty:
                self.talk(request, socket, pty)
            else:
                socket.text(json.dumps({"type": "control", "status": "error", "error": "PTY session not found"}))
        return websocket.upgrade(request, talk, self.protocol(request))

    def create_connect(self, request):
        value = {"id": request.arg("id"), "cwd": request.arg("cwd"), "cols": int(request.arg("cols") or 80),
                 "rows": int(request.arg("rows") or 24)}
        for word in websocket.offered(request):
            if word.startswith(ENVS):
                text = word[len(ENVS):]
                value["envs"] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        pty = self.start(value)
        if isinstance(pty, Reply):
            return pty
        return websocket.upgrade(request, lambda socket: self.talk(request, socket, pty), self.protocol(request))

    @staticmethod
    def protocol(request):
        offered = websocket.offered(request)
        return EXIT_CONTROL if EXIT_CONTROL in offered else (offered[0] if offered else None)

    def talk(self, request, socket, pty):
        """Until the shell or the client ends."""
        socket.text(json.dumps({"type": "control", "status": "connected"}))
        with pty.lock:  # what comes now comes after it
            early, pty.early = pty.early, b""
            if early:
                socket.send(early)
            pty.sockets.append(socket)
        threading.Thread(target=self._end, args=(request, socket, pty), daemon=True).start()
        try:
            while message := socket.receive():
                with contextlib.suppress(OSError):  # the terminal is gone: _end() says so
                    pty.write(message[1][:INPUT_MAX])
        finally:
            with pty.lock:
                pty.sockets.remove(socket)

    @staticmethod
    def _end(request, socket, pty):
        pty.process.ended.wait()
        pty.pump.join(20)  # its last words
        status = pty.process.status
        code = 137 if status is None else os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        end = {"exitCode": code}
        if code:
            end["exitReason"] = "process exited with code %d" % code
        try:
            if EXIT_CONTROL in websocket.offered(request):
                socket.text(json.dumps({"type": "control", "status": "exited", **end}))
            socket.close(1000 if code == 0 else 1011, json.dumps(end).encode())
        except Closed:
            pass
