# SPDX-License-Identifier: Apache-2.0
"""envd's process.Process: commands with streamed output, as envd runs them.

Kept as it is there: no process group of its own; the end waits for all that holds the output open,
until somebody has sent a signal; output without a subscriber is lost; a slow one holds the command
up; a tag is looked for in the first process that has one only.
"""

import fcntl
import os
import queue
import select
import signal
import struct
import termios
import threading
import time

from common import connect, gostyle
from common.connect import ConnectError
from common.sandbox import PATH, Gone, write_all

MESSAGES = connect.Messages({
    "Selector": {"pid": "uint32", "tag": "string"},
    "Config": {"cmd": "string", "args": "*string", "envs": "map", "cwd": "string"},
    "Size": {"cols": "uint32", "rows": "uint32"},
    "PTY": {"size": "Size"},
    "Input": {"stdin": "bytes", "pty": "bytes"},
    "Start": {"process": "Config", "pty": "PTY", "tag": "string", "stdin": "bool"},
    "Connect": {"process": "Selector"},
    "List": {},
    "SendInput": {"process": "Selector", "input": "Input"},
    "CloseStdin": {"process": "Selector"},
    "SendSignal": {"process": "Selector", "signal": "enum"},
    "Update": {"process": "Selector", "pty": "PTY"},
    "KeepAlive": {},
    "InputStart": {"process": "Selector"},
    "InputData": {"input": "Input"},
    "StreamInput": {"start": "InputStart", "data": "InputData", "keepalive": "KeepAlive"},
})
SIGNALS = {"SIGNAL_SIGTERM": 15, "SIGNAL_SIGKILL": 9, 15: 15, 9: 9}
PIECE, PTY_PIECE = 32 << 10, 16 << 10
KEPT_S = 30
LOST = object()  # in a subscriber's queue: the sandbox was paused or killed


class Subscriber:
    """Events on their way to one stream; it is bounded, so that a slow reader holds all up."""

    def __init__(self):
        self.queue = queue.Queue(maxsize=8)
        self.closed = False

    def put(self, event):
        while not self.closed:
            try:
                self.queue.put(event, timeout=0.5)
                return
            except queue.Full:
                continue


class Proc:
    """One started command. The end is the last event that its subscribers get."""

    def __init__(self, config, tag):
        self.config, self.tag = config, tag
        self.lock = threading.Lock()
        self.subscribers = []
        self.process = None
        self.stdin = self.pty = -1
        self.cut = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable: don't wait for output
        self.end = None
        self.ended_at = None

    @property
    def pid(self):
        return self.process.pid

    def subscribe(self):
        new = Subscriber()
        with self.lock:
            if self.end is None:
                self.subscribers.append(new)
            else:
                new.queue.put(self._last())
        return new

    def _last(self):
        """What a subscriber gets last."""
        return {"end": self.end} if self.process.status is not None else LOST

    def unsubscribe(self, who):
        who.closed = True
        with self.lock:
            if who in self.subscribers:
                self.subscribers.remove(who)

    def publish(self, event):
        with self.lock:
            all_now = list(self.subscribers)
        for each in all_now:
            each.put(event)

    def lose(self):
        """The streams end without an end."""
        with self.lock:
            all_now, self.subscribers = self.subscribers, []
        for each in all_now:
            threading.Thread(target=each.put, args=(LOST,), daemon=True).start()

    def stop_waiting(self):
        with self.lock:
            if self.cut >= 0:
                os.eventfd_write(self.cut, 1)

    def pump(self, fd, name, piece):
        """Hand on what comes from `fd`, until its end or the cut."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self.cut, select.POLLIN)
        left = 64 << 10  # what a pipe holds: read when the cut comes
        while left > 0:
            ready = dict(poll.poll())
            is_over = self.cut in ready and self.process.ended.wait(0 if fd in ready else 0.05)
            if fd not in ready:
                if is_over:
                    break
                continue
            try:
                data = os.read(fd, piece)
            except OSError:  # a pty without its other end
                data = b""
            if not data:
                break
            left -= len(data) if is_over else 0
            self.publish({"data": {name: connect.encode(data)}})
        os.close(fd)

    def finish(self, pumps):
        self.process.ended.wait()
        for each in pumps:
            each.join()
        end = end_event(self.process.status)
        with self.lock:
            self.end, self.ended_at = end, time.monotonic()
            all_now, self.subscribers = self.subscribers, []
            fds = self.stdin, self.pty, self.cut
            self.stdin = self.pty = self.cut = -1
        for each in all_now:
            each.put(self._last())
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def end_event(status):
    """The `end` of a process, as Go's os.ProcessState describes it; false and 0 are left out."""
    if status is None:
        return {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        text = "signal: " + {signal.SIGKILL: "killed", signal.SIGTERM: "terminated",
                             signal.SIGINT: "interrupt", signal.SIGSEGV: "segmentation fault",
                             signal.SIGHUP: "hangup", signal.SIGABRT: "aborted",
                             signal.SIGPIPE: "broken pipe"}.get(number, "signal %d" % number)
        text += " (core dumped)" if os.WCOREDUMP(status) else ""
        return {"exitCode": -1, "status": text, "error": text}
    code = os.WEXITSTATUS(status)
    text = "exit status %d" % code
    return {"exitCode": code, "exited": True, "status": text, "error": text} if code else \
        {"exited": True, "status": text}


class Processes:
    """The process service of one sandbox."""

    def __init__(self, envd):
        self.envd = envd
        self.lock = threading.Lock()
        self.all = []

    def lose_streams(self):
        with self.lock:
            now = list(self.all)
        for proc in now:
            proc.lose()

    def forget(self):
        """All processes are gone with the sandbox's memory."""
        with self.lock:
            self.all.clear()

    def call(self, method, request):
        """The Reply of one RPC, None if there is none of that name."""
        if method == "Start":
            return connect.stream(request, lambda: self._start(request))
        if method == "Connect":
            return connect.stream(request, lambda: self._connect(request))
        if method == "StreamInput":
            return connect.stream(request, lambda: self._stream_input(request))
        calls = {"List": self._list, "SendInput": self._send_input, "SendSignal": self._send_signal,
                 "Update": self._update}
        if self.envd.since("0.5.2"):
            calls["CloseStdin"] = self._close_stdin
        if method not in calls:
            return None
        return connect.unary(request, lambda value: calls[method](
            self._parse(request, method, value), request))

    def _parse(self, request, name, value):
        unknown = []
        message = MESSAGES.parse(name, value, unknown)
        for text in unknown:
            self.envd.journal.violation(request, text)
        return message

    # -- starting

    def _start(self, request):
        message = self._parse(request, "Start", connect.first_message(request))
        user = self.envd.user(request)
        timeout = connect.deadline_ms(request)
        if timeout == 0:
            raise ConnectError("deadline_exceeded", "context deadline exceeded")
        proc = self._spawn(message, user)
        me = proc.subscribe()
        self._run(proc)
        yield from self._events(request, proc, me, timeout, kills=True)

    def _spawn(self, message, user):
        """The Proc, started; nothing reads its output yet."""
        config = message.get("process", {})
        box = self.envd.box
        cwd = self.envd.resolve(config.get("cwd") or "", user) if config.get("cwd") else user.home
        if not box.sandbox.root.exists(cwd):
            raise ConnectError("invalid_argument", "cwd '%s' does not exist" % config.get("cwd", cwd))
        env = {"PATH": PATH, "HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        env.update(box.env)
        env.update(config.get("envs", {}))
        argv = ["/bin/sh", "-c", 'exec "$@"', "--", config.get("cmd", ""), *config.get("args", [])]
        proc = Proc({key: config[key] for key in ("cmd", "args", "envs", "cwd") if config.get(key)},
                    message.get("tag"))
        with_stdin = message.get("stdin", True) or not self.envd.since("0.3.0")
        fds, close = self._descriptors(proc, message, with_stdin)
        try:
            proc.process = box.sandbox.run(argv, *fds, env=env, cwd=cwd, user=user,
                                           session=bool("pty" in message), tty="pty" in message)
        except OSError as error:
            for fd in proc.outputs:
                os.close(fd[0])
            code = "invalid_argument" if getattr(error, "stage", "") in ("exec", "chdir") else "internal"
            raise ConnectError(code, "error starting process: fork/exec /bin/sh: " +
                               gostyle.error_text(error.errno)) from None
        except Gone:
            raise ConnectError("unavailable", "the sandbox has ended") from None
        finally:
            for fd in close:
                os.close(fd)
        with self.lock:
            self.all.append(proc)
        return proc

    @staticmethod
    def _descriptors(proc, message, with_stdin):
        """((stdin, stdout, stderr) of the command, what to close once it has them)."""
        if "pty" in message:
            ours, theirs = os.openpty()
            proc.pty = ours
            resize(ours, message["pty"].get("size", {}))
            proc.outputs = [(os.dup(ours), "pty", PTY_PIECE)]
            return (theirs, theirs, theirs), [theirs]
        out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        proc.outputs = [(out[0], "stdout", PIECE), (err[0], "stderr", PIECE)]
        if with_stdin:
            stdin, proc.stdin = os.pipe2(os.O_CLOEXEC)
        else:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return (stdin, out[1], err[1]), [stdin, out[1], err[1]]

    @staticmethod
    def _run(proc):
        pumps = [threading.Thread(target=proc.pump, args=each, daemon=True) for each in proc.outputs]
        for each in pumps:
            each.start()
        threading.Thread(target=proc.finish, args=(pumps,), daemon=True).start()

    # -- streams

    def _connect(self, request):
        message = self._parse(request, "Connect", connect.first_message(request))
        self.envd.user(request)
        proc = self._find(message, ended_too=self.envd.since("0.6.12"))
        me = proc.subscribe()
        yield from self._events(request, proc, me, connect.deadline_ms(request), kills=False)

    def _events(self, request, proc, me, timeout_ms, kills):
        """start, what comes, end."""
        text = request.headers.get("Keepalive-Ping-Interval", "90")
        every = max(1, int(text)) if text.isdigit() else 90
        until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        try:
            yield {"event": {"start": {"pid": proc.pid}}}
            while True:
                left = every if until is None else min(every, until - time.monotonic())
                try:
                    event = me.queue.get(timeout=max(0.001, left))
                except queue.Empty:
                    if until is not None and time.monotonic() >= until:
                        if kills:
                            self._kill(proc, signal.SIGKILL)
                        raise ConnectError("deadline_exceeded", "context deadline exceeded") from None
                    event = {"keepalive": {}}
                if event is LOST:
                    raise ConnectError("unavailable", "the sandbox is not running")
                yield {"event": event}
                if "end" in event:
                    return
        finally:
            proc.unsubscribe(me)

    def _stream_input(self, request):
        proc = None
        for value in connect.envelopes(request):
            message = self._parse(request, "StreamInput", value)
            if "start" in message:
                proc = self._find(message["start"])
            elif "data" in message:
                if proc is None:
                    raise ConnectError("invalid_argument", "the first message must be start")
                self._input(proc, message["data"].get("input", {}))
        yield {}

    # -- single calls

    def _find(self, message, ended_too=False):
        selector = message.get("process", {})
        now = time.monotonic()
        with self.lock:
            self.all = [p for p in self.all if p.ended_at is None or now - p.ended_at < KEPT_S]
            known = [p for p in self.all if ended_too or p.end is None]
        if "pid" in selector:
            for proc in known:
                if proc.pid == selector["pid"]:
                    return proc
            raise ConnectError("not_found", "process with pid %d not found" % selector["pid"])
        tagged = next((p for p in known if p.tag is not None), None)  # the first one only
        if tagged is None or tagged.tag != selector.get("tag"):
            raise ConnectError("not_found", "process with tag %s not found" % selector.get("tag"))
        return tagged

    def _list(self, _message, request):
        self.envd.user(request)
        with self.lock:
            running = [p for p in self.all if p.end is None]
        found = [{"config": p.config, "pid": p.pid, **({"tag": p.tag} if p.tag else {})} for p in running]
        return {"processes": found} if found else {}

    def _send_input(self, message, _request):
        self._input(self._find(message), message.get("input", {}))
        return {}

    @staticmethod
    def _input(proc, given):
        data = given["pty"] if "pty" in given else given.get("stdin", b"")
        with proc.lock:  # its end may close them at any time
            fd = proc.pty if "pty" in given else proc.stdin
            if fd < 0:
                raise ConnectError("failed_precondition", "stdin not enabled or closed")
            fd = os.dup(fd)
        try:
            write_all(fd, data)
        except OSError as error:
            raise ConnectError("internal", "error writing to stdin: write |1: " +
                               gostyle.error_text(error.errno)) from None

    def _close_stdin(self, message, _request):
        proc = self._find(message)
        if proc.pty >= 0:
            raise ConnectError("failed_precondition", "cannot close stdin of a pty; send 0x04 instead")
        with proc.lock:
            fd, proc.stdin = proc.stdin, -1
        if fd >= 0:
            os.close(fd)
        return {}

    def _send_signal(self, message, _request):
        proc = self._find(message)
        number = SIGNALS.get(message.get("signal"))
        if number is None:
            raise ConnectError("unimplemented", "invalid signal: %s" % message.get("signal"))
        self._kill(proc, number)
        return {}

    @staticmethod
    def _kill(proc, number):
        proc.stop_waiting()
        try:
            proc.process.kill(number)
        except (OSError, Gone):
            pass

    def _update(self, message, _request):
        proc = self._find(message)
        with proc.lock:
            if proc.pty < 0:
                raise ConnectError("failed_precondition", "tty not assigned to process")
            resize(proc.pty, message.get("pty", {}).get("size", {}))
        return {}


def resize(fd, size):
    fcntl.ioctl(fd, termios.TIOCSWINSZ,
                struct.pack("HHHH", size.get("rows", 24), size.get("cols", 80), 0, 0))
