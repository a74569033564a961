# SPDX-License-Identifier: Apache-2.0
"""envd's watching of directories: WatchDir, and the watchers that are asked for their events."""

import itertools
import queue
import stat
import threading
import time

from common import connect
from common.connect import ConnectError
from common.inotify import Watch
from common.root import Gone

MESSAGES = connect.Messages({
    "WatchDir": {"path": "string", "recursive": "bool", "include_entry": "bool",
                 "allow_network_mounts": "bool"},
    "GetWatcherEvents": {"watcher_id": "string"},
    "RemoveWatcher": {"watcher_id": "string"},
})
ENDED = object()


class Watchers:
    """The watchers of one sandbox."""

    def __init__(self, envd):
        self.envd = envd
        self.lock = threading.Lock()
        self.known = {}
        self.numbers = itertools.count(1)
        self.open = set()

    def close(self):
        """All of them end: the sandbox does."""
        with self.lock:
            all_now, self.open = list(self.open), set()
            self.known.clear()
        for each in all_now:
            each.close()

    def call(self, method, request):
        """The Reply of one RPC, None if there is none of that name."""
        if method == "WatchDir":
            return connect.stream(request, lambda: self._watch_dir(request))
        calls = {"CreateWatcher": self._create, "GetWatcherEvents": self._events,
                 "RemoveWatcher": self._remove}
        if method not in calls:
            return None
        return connect.unary(request, lambda value: calls[method](value, request))

    def _parse(self, request, name, value):
        unknown = []
        message = MESSAGES.parse(name, value, unknown)
        for text in unknown:
            self.envd.journal.violation(request, text)
        return message

    def _new(self, message, request, sink, on_close=lambda: None):
        path = self.envd.resolve(message.get("path", ""), self.envd.user(request))
        root = self.envd.box.sandbox.root
        try:
            mode = root.stat(path).st_mode
        except OSError:
            raise ConnectError("not_found", "path not found: stat %s: no such file or directory" % path) from None
        if not stat.S_ISDIR(mode):
            raise ConnectError("invalid_argument", "path %s is not a directory" % path)
        wants_entry = message.get("includeEntry") and self.envd.since("0.6.3")

        def heard(name, kind):
            event = {"name": name, "type": "EVENT_TYPE_" + kind}
            if wants_entry and kind not in ("REMOVE", "RENAME"):
                try:
                    event["entry"] = self.envd.files.entry(path.rstrip("/") + "/" + name)
                except (OSError, Gone):
                    pass
            sink(event)
        watch = Watch(root, path, bool(message.get("recursive")), heard, on_close)
        with self.lock:
            self.open.add(watch)
        return watch

    def _watch_dir(self, request):
        message = self._parse(request, "WatchDir", connect.first_message(request))
        events = queue.Queue()
        watch = self._new(message, request, lambda event: events.put({"filesystem": event}),
                          lambda: events.put(ENDED))
        timeout = connect.deadline_ms(request)
        until = None if timeout is None else time.monotonic() + timeout / 1000
        text = request.headers.get("Keepalive-Ping-Interval", "90")
        every = max(1, int(text)) if text.isdigit() else 90
        try:
            yield {"start": {}}
            while True:
                left = every if until is None else min(every, until - time.monotonic())
                try:
                    event = events.get(timeout=max(0.001, left))
                except queue.Empty:
                    if until is not None and time.monotonic() >= until:
                        raise ConnectError("deadline_exceeded", "context deadline exceeded") from None
                    event = {"keepalive": {}}
                if event is ENDED:
                    raise ConnectError("unavailable", "the sandbox is not running")
                yield event
        finally:
            with self.lock:
                self.open.discard(watch)
            watch.close()

    def _create(self, value, request):
        message = self._parse(request, "WatchDir", value)
        events = queue.Queue()
        watch = self._new(message, request, events.put)
        name = "watcher-%d" % next(self.numbers)
        with self.lock:
            self.known[name] = (watch, events)
        return {"watcherId": name}

    def _events(self, value, request):
        name = self._parse(request, "GetWatcherEvents", value).get("watcherId")
        with self.lock:
            found = self.known.get(name)
        if not found:
            raise ConnectError("not_found", "watcher with id %s not found" % name)
        drained = []
        while True:
            try:
                drained.append(found[1].get_nowait())
            except queue.Empty:
                return {"events": drained} if drained else {}

    def _remove(self, value, request):
        name = self._parse(request, "RemoveWatcher", value).get("watcherId")
        with self.lock:
            found = self.known.pop(name, None)
            if found:
                self.open.discard(found[0])
        if not found:
            raise ConnectError("not_found", "watcher with id %s not found" % name)
        found[0].close()
        return {}
