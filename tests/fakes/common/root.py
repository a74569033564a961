# SPDX-License-Identifier: Apache-2.0
"""Files of a sandbox, seen from outside exactly as its own commands see them.

A Root is a descriptor of the sandbox's "/", in its own mount namespace. Each path is resolved by
openat2 with RESOLVE_IN_ROOT, so that absolute links and `..` end where they would inside. Errors
are OSError, or Gone. Paths are absolute; bytes that are no UTF-8 are surrogates, as os.fsdecode makes them.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_IN_ROOT = 0x10


def _error(number, path):
    return OSError(number, os.strerror(number), path)


def clean(path):
    """As Go's path.Clean of an absolute path."""
    return os.path.normpath("/" + path.lstrip("/"))


class Gone(Exception):
    """The sandbox doesn't run, or not any more."""


class Root:
    def __init__(self, fd):
        self.fd = fd
        self.lock = threading.Lock()

    def close(self):
        with self.lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _own(self):
        """A descriptor of it for one call: its number is nobody else's, even if close() comes meanwhile."""
        with self.lock:
            if self.fd < 0:
                raise Gone("the sandbox has ended")
            return os.dup(self.fd)

    def open(self, path, flags=os.O_RDONLY, mode=0):
        """As open(2); a descriptor."""
        raw = os.fsencode(path)
        if b"\0" in raw:
            raise _error(errno.EINVAL, path)
        if not flags & os.O_CREAT:
            mode = 0
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, _IN_ROOT)
        root = self._own()
        try:
            for _ in range(100):
                fd = _libc.syscall(_OPENAT2, root, raw, how, ctypes.c_size_t(len(how)))
                if fd >= 0:
                    return fd
                if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                    break
            raise _error(ctypes.get_errno(), path)
        finally:
            os.close(root)

    @contextlib.contextmanager
    def handle(self, path, follow=True, flags=os.O_PATH):
        """A descriptor for a while; an O_PATH one unless other flags are given."""
        fd = self.open(path, flags | (0 if follow else os.O_NOFOLLOW))
        try:
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def parent(self, path):
        """(descriptor of the directory above, last name)."""
        path = clean(path)
        above, name = os.path.split(path)
        if not name:
            raise _error(errno.EBUSY, path)
        if b"\0" in os.fsencode(name):
            raise _error(errno.EINVAL, path)
        with self.handle(above, flags=os.O_PATH | os.O_DIRECTORY) as fd:
            yield fd, name

    # -- looking

    def stat(self, path):
        with self.handle(path) as fd:
            return os.fstat(fd)

    def lstat(self, path):
        with self.handle(path, follow=False) as fd:
            return os.fstat(fd)

    def exists(self, path, follow=True):
        try:
            with self.handle(path, follow):
                return True
        except OSError:
            return False

    def is_dir(self, path):
        try:
            return stat.S_ISDIR(self.stat(path).st_mode)
        except OSError:
            return False

    def real(self, path):
        """The path without links, as realpath(3) has it."""
        with self.handle(path) as fd:
            return os.readlink("/proc/self/fd/%d" % fd)

    def readlink(self, path):
        with self.parent(path) as (fd, name):
            return os.readlink(name, dir_fd=fd)

    def names(self, path, follow=True):
        """The names in a directory, sorted by their bytes."""
        with self.handle(path, follow, os.O_RDONLY | os.O_DIRECTORY) as fd:
            return sorted(os.listdir(fd), key=os.fsencode)

    def entries(self, path):
        """[(name, lstat)] of a directory; an entry that vanishes meanwhile is None."""
        found = []
        with self.handle(path, flags=os.O_RDONLY | os.O_DIRECTORY) as fd:
            for name in sorted(os.listdir(fd), key=os.fsencode):
                try:
                    found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
                except FileNotFoundError:
                    found.append((name, None))
        return found

    # -- changing

    def mkdir(self, path, mode=0o755):
        with self.parent(path) as (fd, name):
            os.mkdir(name, mode, dir_fd=fd)

    def mkfifo(self, path, mode=0o644):
        with self.parent(path) as (fd, name):
            os.mkfifo(name, mode, dir_fd=fd)

    def make_dirs(self, path, mode=0o755, owner=None):
        """mkdir -p; what it makes belongs to `owner`, (uid, gid). FileExists if a file is there."""
        path, missing = clean(path), []
        while True:
            try:
                mode_now = self.stat(path).st_mode
            except FileNotFoundError:
                missing.append(path)
                path = os.path.dirname(path)
                continue
            if not stat.S_ISDIR(mode_now):
                raise _error(errno.ENOTDIR, path)
            break
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                self.mkdir(each, mode)
            if owner:
                self.chown(each, *owner)

    def rename(self, old, new):
        with self.parent(old) as (old_fd, old_name), self.parent(new) as (new_fd, new_name):
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)

    def unlink(self, path):
        with self.parent(path) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def rmdir(self, path):
        with self.parent(path) as (fd, name):
            os.rmdir(name, dir_fd=fd)

    def remove_all(self, path, owner=None):
        """rm -rf: all of it, no link followed, and no error when it is absent.

        owner: (uid, gid) of who does it, if that isn't root.
        """
        try:
            with self.parent(path) as (fd, name):
                _remove(fd, name, owner if os.geteuid() == 0 else None)
        except FileNotFoundError:
            pass

    def chmod(self, path, mode):
        with self.handle(path) as fd:
            os.chmod("/proc/self/fd/%d" % fd, mode)

    def chown(self, path, uid, gid, follow=False):
        if os.geteuid() != 0:
            return  # every id inside is the same one out here
        with self.handle(path, follow) as fd:
            _chown(fd, uid, gid)

    def write(self, path, data, mode=0o644):
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(fd, "wb") as file:
            file.write(data)

    def read(self, path, limit=1 << 26):
        fd = self.open(path)
        with open(fd, "rb") as file:
            return file.read(limit)


def _chown(fd, uid, gid):
    """fchownat(fd, "", ..., AT_EMPTY_PATH), which Python hasn't: a link's own owner."""
    if _libc.fchownat(fd, b"", uid, gid, 0x1000) < 0:
        raise _error(ctypes.get_errno(), "")


def _remove(dir_fd, name, owner):
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except IsADirectoryError:
        pass
    except PermissionError:  # what unlink(2) of a directory is elsewhere
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise
    # Deeper than Python's recursion goes, a hostile tree may be: rm walks it by descriptors.
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=dir_fd)
        return
    who = {"user": owner[0], "group": owner[1]} if owner else {}
    done = subprocess.run(["rm", "-rf", "--", "/proc/self/fd/%d/%s" % (dir_fd, name)],
                          pass_fds=[dir_fd], stderr=subprocess.PIPE, check=False, **who)
    if done.returncode:
        raise _error(errno.EACCES, name)
