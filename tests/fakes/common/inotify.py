# SPDX-License-Identifier: Apache-2.0
"""Watching a directory of a sandbox, with the events that Go's fsnotify makes of inotify's."""

import contextlib
import ctypes
import os
import select
import stat
import struct
import threading

from .root import Gone

_libc = ctypes.CDLL(None, use_errno=True)
CREATE, DELETE, MODIFY, MOVED_FROM, MOVED_TO, ATTRIB = 0x100, 0x200, 0x2, 0x40, 0x80, 0x4
DELETE_SELF, IGNORED, ISDIR = 0x400, 0x8000, 0x40000000
ALL = CREATE | DELETE | MODIFY | MOVED_FROM | MOVED_TO | ATTRIB
KINDS = ((CREATE, "CREATE"), (MOVED_TO, "CREATE"), (MODIFY, "WRITE"), (DELETE, "REMOVE"),
         (MOVED_FROM, "RENAME"), (ATTRIB, "CHMOD"))


class Watch:
    """heard(name relative to the directory, kind) from a thread of its own, until close()."""

    def __init__(self, root, path, recursive, heard, on_close=lambda: None):
        self.root, self.path, self.recursive, self.heard = root, path.rstrip("/"), recursive, heard
        self.on_close = on_close
        self.lock = threading.Lock()
        self.fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.stop = os.eventfd(0, os.EFD_CLOEXEC)
        self.names = {}
        self.ended = False
        self._add("")
        threading.Thread(target=self._run, daemon=True).start()

    def _add(self, name):
        """Watch a directory below, and with `recursive` all below it."""
        try:
            with self.root.handle(self.path + "/" + name, flags=os.O_PATH | os.O_DIRECTORY) as fd:
                number = _libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d" % fd, ALL)
            if number < 0:
                return
            self.names[number] = name
            if self.recursive:
                for each, info in self.root.entries(self.path + "/" + name):
                    if info and stat.S_ISDIR(info.st_mode):
                        self._add(os.path.join(name, each))
        except (OSError, Gone):
            pass  # it has gone meanwhile

    def _run(self):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(self.stop, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self.stop in ready:
                break
            with contextlib.suppress(BlockingIOError):
                self._take(os.read(self.fd, 65536))
        os.close(self.fd)
        os.close(self.stop)
        self.on_close()

    def _take(self, data):
        at = 0
        while at < len(data):
            number, mask, _, size = struct.unpack_from("iIII", data, at)
            name = os.fsdecode(data[at + 16:at + 16 + size].split(b"\0")[0])
            at += 16 + size
            above = self.names.get(number)
            if mask & IGNORED:
                self.names.pop(number, None)
            if above is None or not name:
                continue
            name = os.path.join(above, name)
            for bit, kind in KINDS:
                if mask & bit:
                    self.heard(name, kind)
            if self.recursive and mask & ISDIR and mask & (CREATE | MOVED_TO):
                self._add(name)

    def close(self):
        with self.lock:
            if not self.ended:
                self.ended = True
                os.eventfd_write(self.stop, 1)
