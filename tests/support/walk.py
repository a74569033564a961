# SPDX-License-Identifier: Apache-2.0
"""A seeded random walk of file operations on two directories at once.

Each step does one operation on the directory under test and the same on a plain model, and compares
what the calls returned, or their errno; then the attributes of what it touched, and every hundred
steps the whole trees and all open handles. A step depends on the seed and on earlier steps only, so
a seed that fails, fails again.
"""

import mmap
import os
import random
import stat
import time

from .tools import Failed

UNSUPPORTED = {95, 38}  # EOPNOTSUPP, ENOSYS
PAST = 1_500_000_000 * 10**9
CLOCK_REALTIME_COARSE = 5  # what the kernel dates files by; it can be behind the exact one


class Pair:
    """One open file on both sides."""

    def __init__(self, real, model, flags, name):
        self.both = (real, model)
        self.flags = flags
        self.name = name

    def close(self):
        for descriptor in self.both:
            os.close(descriptor)


class Walk:
    """The two directories, what is open, and what was done."""

    def __init__(self, real, model, seed, hard_links=True, whole_seconds=False):
        self.tops = (os.fsencode(real), os.fsencode(model))
        self.dice = random.Random(seed)
        self.tick = 10**9 if whole_seconds else 1  # what times of the directory under test tell
        self.seed = seed
        self.handles = []
        self.done = []
        self.started = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        self.operations = [
            (self.create, 12), (self.open, 10), (self.close, 7), (self.write, 14), (self.append, 6),
            (self.read, 12), (self.mapped_read, 4), (self.mapped_write, 2), (self.truncate, 5),
            (self.truncate_handle, 4), (self.rename, 12), (self.unlink, 8), (self.mkdir, 6),
            (self.rmdir, 4), (self.symlink, 4), (self.readlink, 3), (self.chmod, 4),
            (self.chmod_handle, 2), (self.utimens, 4), (self.utimens_handle, 2), (self.listing, 6),
            (self.fallocate, 2), (self.punch, 2), (self.copy_range, 4), (self.fsync, 2),
            (self.write_whole, 8), (self.save_by_rename, 5), (self.stat_path, 6)]
        if hard_links:
            self.operations.append((self.link, 3))

    # -- the walk

    def run(self, steps):
        functions = [f for f, _ in self.operations]
        weights = [w for _, w in self.operations]
        try:
            for step in range(steps):
                self.dice.choices(functions, weights)[0]()
                if step % 100 == 99:
                    self.compare_all()
            self.compare_all()
        except AssertionError as error:
            raise Failed("seed %d, step %d: %s\nlast steps:\n%s" % (
                self.seed, len(self.done), error, "\n".join(self.done[-40:]))) from error
        finally:
            while self.handles:
                self.handles.pop().close()

    def note(self, text, *args):
        self.done.append(text % args)

    def both(self, what, call, *arguments, optional=False):
        """call(side, *arguments) on both sides; results, or errnos, must be the same.

        An optional operation may be refused as unsupported; it isn't done on the model then.
        """
        results = []
        for side in (0, 1):
            try:
                results.append(("value", call(side, *arguments)))
            except OSError as error:
                results.append(("errno", error.errno))
            if side == 0 and optional and results[0][0] == "errno" and \
                    results[0][1] in UNSUPPORTED:
                self.note("%s: not supported", what)
                return None
        self.note("%s -> %.100r", what, results[1])
        assert results[0] == results[1], "%s: %.300r, but the model: %.300r" % (
            what, results[0], results[1])
        return results[0][1] if results[0][0] == "value" else None

    # -- choices

    def name(self):
        return b"n%d" % self.dice.randrange(7)

    def path(self, kind=None):
        """A path: often one that is there (of the kind, if given), often a name beside such."""
        chance = self.dice.random()
        if chance < 0.5:
            there = self.there(kind)
            if there:
                return self.dice.choice(there)
        if chance < 0.85:
            parents = [d for d in self.there("directory") if d.count(b"/") < 3] + [b"."]
            return os.path.normpath(os.path.join(self.dice.choice(parents), self.name()))
        return b"/".join(self.name() for _ in range(self.dice.randrange(1, 4)))

    def there(self, kind):
        """What the model has, in an order that depends on the names only."""
        found = []
        for base, directories, files in os.walk(self.tops[1]):
            for name in directories + files:
                path = os.path.join(base, name)
                is_link = os.path.islink(path)
                is_directory = not is_link and name in directories
                if kind is None or (kind == "link" and is_link) or (
                        kind == "directory" and is_directory) or (
                        kind == "file" and not is_link and not is_directory):
                    found.append(os.path.relpath(path, self.tops[1]))
        return sorted(found)

    def data(self):
        size = self.dice.choice((0, 1, 10, 100, 4095, 4096, 4097, 9000, 70_000))
        return self.dice.randbytes(size)

    def offset(self):
        return self.dice.choice((0, 1, 100, 4090, 4096, 10_000, 100_000))

    def at(self, side, path):
        return os.path.join(self.tops[side], path)

    def handle(self):
        return self.dice.choice(self.handles) if self.handles else None

    # -- operations on names

    def create(self):
        self._open(os.O_RDWR | os.O_CREAT | self.dice.choice((0, os.O_EXCL, os.O_TRUNC)),
                   self.dice.choice((0o644, 0o600, 0o755)))

    def open(self):
        self._open(self.dice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)) | self.dice.choice(
            (0, 0, os.O_APPEND, os.O_TRUNC, os.O_NOFOLLOW)), 0)

    def _open(self, flags, mode):
        path = self.path("file")
        opened = []

        def call(side):
            opened.append(os.open(self.at(side, path), flags, mode))
            return True
        try:
            good = self.both("open %r %#x" % (path, flags), call)
        except AssertionError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        if not good:
            return
        if stat.S_ISDIR(os.fstat(opened[1]).st_mode):
            for descriptor in opened:
                os.close(descriptor)
            return
        self.handles.append(Pair(opened[0], opened[1], flags, path))
        if len(self.handles) > 12:
            self.handles.pop(self.dice.randrange(12)).close()
        self.compare_path(path)

    def close(self):
        if self.handles:
            pair = self.handles.pop(self.dice.randrange(len(self.handles)))
            self.note("close %r", pair.name)
            pair.close()

    def write_whole(self):
        path, data = self.path("file"), self.data()

        def call(side):
            with open(self.at(side, path), "wb") as file:
                return file.write(data)
        self.both("write whole %r %d" % (path, len(data)), call)
        self.compare_path(path)

    def save_by_rename(self):
        path, data = self.path("file"), self.data()

        def call(side):
            with open(self.at(side, path) + b".tmp", "xb") as file:
                file.write(data)
            try:
                os.rename(self.at(side, path) + b".tmp", self.at(side, path))
            except OSError:
                os.unlink(self.at(side, path) + b".tmp")
                raise
        self.both("save %r %d" % (path, len(data)), call)
        self.compare_path(path)

    def truncate(self):
        path, size = self.path("file"), self.offset()
        self.both("truncate %r %d" % (path, size),
                  lambda side: os.truncate(self.at(side, path), size))
        self.compare_path(path)

    def rename(self):
        old, new = self.path(), self.path()
        self.both("rename %r %r" % (old, new),
                  lambda side: os.rename(self.at(side, old), self.at(side, new)))
        self.compare_path(old)
        self.compare_path(new)

    def unlink(self):
        path = self.path()
        self.both("unlink %r" % path, lambda side: os.unlink(self.at(side, path)))
        self.compare_path(path)

    def mkdir(self):
        path, mode = self.path(), self.dice.choice((0o755, 0o700))
        self.both("mkdir %r" % path, lambda side: os.mkdir(self.at(side, path), mode))
        self.compare_path(path)

    def rmdir(self):
        path = self.path("directory")
        self.both("rmdir %r" % path, lambda side: os.rmdir(self.at(side, path)))
        self.compare_path(path)

    def symlink(self):
        """Targets without `..`: one that is moved up would be re-anchored on a mount."""
        path, target = self.path(), self.path()
        self.both("symlink %r %r" % (target, path),
                  lambda side: os.symlink(target, self.at(side, path)))
        self.compare_path(path)

    def readlink(self):
        path = self.path("link")
        self.both("readlink %r" % path, lambda side: os.readlink(self.at(side, path)))

    def link(self):
        old, new = self.path("file"), self.path()
        self.both("link %r %r" % (old, new), lambda side: os.link(
            self.at(side, old), self.at(side, new), follow_symlinks=False))
        self.compare_path(old)
        self.compare_path(new)

    def chmod(self):
        path = self.path()
        mode = self.dice.choice((0o744, 0o755, 0o700, 0o777))  # what a user may walk
        self.both("chmod %r %o" % (path, mode), lambda side: os.chmod(self.at(side, path), mode))
        self.compare_path(path)

    def utimens(self):
        path = self.path()
        when = PAST + self.dice.randrange(10**12)
        follow = self.dice.random() < 0.5
        self.both("utimens %r %d" % (path, when), lambda side: os.utime(
            self.at(side, path), ns=(when, when), follow_symlinks=follow))
        self.compare_path(path)

    def listing(self):
        path = self.path("directory") if self.dice.random() < 0.8 else b"."
        self.both("readdir %r" % path, lambda side: sorted(os.listdir(self.at(side, path))))

    def stat_path(self):
        path = self.path()
        self.both("stat %r" % path, lambda side: self.attributes(os.stat(self.at(side, path))))

    # -- operations on handles

    def _on_handle(self, what, call, optional=False):
        pair = self.handle()
        if pair:
            self.both("%s on %r" % (what, pair.name), lambda side: call(pair.both[side]),
                      optional=optional)
            self.compare_handle(pair)

    def write(self):
        data, offset = self.data(), self.offset()
        self._on_handle("pwrite %d at %d" % (len(data), offset),
                        lambda fd: os.pwrite(fd, data, offset))

    def append(self):
        data = self.data()

        def call(fd):
            os.lseek(fd, 0, os.SEEK_END)
            return os.write(fd, data)
        self._on_handle("append %d" % len(data), call)

    def read(self):
        size, offset = self.dice.choice((1, 5000, 200_000)), self.offset()
        self._on_handle("pread %d at %d" % (size, offset), lambda fd: os.pread(fd, size, offset))

    def mapped_read(self):
        def call(fd):
            size = os.fstat(fd).st_size
            if size == 0:
                return b""
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as area:
                return bytes(area)
        self._on_handle("mapped read", call)

    def mapped_write(self):
        data = self.dice.randbytes(50)

        def call(fd):
            size = os.fstat(fd).st_size
            if size < 100:
                return 0
            with mmap.mmap(fd, size) as area:
                area[size // 2:size // 2 + 50] = data
                area.flush()
            return size
        self._on_handle("mapped write", call)

    def truncate_handle(self):
        size = self.offset()
        self._on_handle("ftruncate %d" % size, lambda fd: os.ftruncate(fd, size))

    def chmod_handle(self):
        mode = self.dice.choice((0o644, 0o755, 0o444))
        self._on_handle("fchmod %o" % mode, lambda fd: os.fchmod(fd, mode))

    def utimens_handle(self):
        when = PAST + self.dice.randrange(10**12)
        self._on_handle("futimens %d" % when, lambda fd: os.utime(fd, ns=(when, when)))

    def fallocate(self):
        offset, size = self.offset(), self.dice.choice((1, 5000, 100_000))
        self._on_handle("fallocate %d+%d" % (offset, size),
                        lambda fd: os.posix_fallocate(fd, offset, size))

    def punch(self):
        from ctypes import CDLL, c_long, get_errno
        libc = CDLL(None, use_errno=True)
        offset, size = self.offset(), self.dice.choice((100, 5000, 50_000))

        def call(fd):
            if libc.fallocate(fd, 3, c_long(offset), c_long(size)) != 0:
                raise OSError(get_errno(), "fallocate")
        self._on_handle("punch hole %d+%d" % (offset, size), call, optional=True)

    def copy_range(self):
        source, sink = self.handle(), self.handle()
        size, start, end = self.dice.choice((10, 5000, 60_000)), self.offset(), self.offset()
        if not source or source is sink:
            return

        def call(side):
            done = 0
            while done < size:
                count = os.copy_file_range(source.both[side], sink.both[side], size - done,
                                           offset_src=start + done, offset_dst=end + done)
                if count == 0:
                    break
                done += count
            return done
        self.both("copy %d from %r at %d to %r at %d" % (size, source.name, start, sink.name, end),
                  call)
        self.compare_handle(sink)

    def fsync(self):
        self._on_handle("fsync", os.fsync)

    # -- comparisons

    def attributes(self, info):
        """What must be the same on both sides; a time that was not set is only known to be new."""
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFLNK:
            return ("link", info.st_size, info.st_nlink)
        when = info.st_mtime_ns // self.tick if info.st_mtime_ns < 2 * PAST and \
            info.st_mtime_ns <= PAST + 10**12 else \
            "new" if info.st_mtime_ns >= self.started - 2 * 10**7 - self.tick else "old"
        if kind == stat.S_IFDIR:
            return ("directory", stat.S_IMODE(info.st_mode), when)
        return ("file", stat.S_IMODE(info.st_mode), info.st_size, info.st_nlink, when)

    def compare_path(self, path):
        self.quiet("lstat %r" % path, lambda side: self.attributes(os.lstat(self.at(side, path))))

    def compare_handle(self, pair):
        self.quiet("fstat %r" % pair.name,
                   lambda side: self.attributes(os.fstat(pair.both[side])))

    def quiet(self, what, call):
        self.both(what, call)
        self.done.pop()

    def compare_all(self):
        trees = []
        for side in (0, 1):
            found = {}
            for base, directories, files in os.walk(self.tops[side]):
                for name in directories + files:
                    path = os.path.join(base, name)
                    info = os.lstat(path)
                    content = b""
                    if stat.S_ISREG(info.st_mode):
                        with open(path, "rb") as file:
                            content = file.read()
                    elif stat.S_ISLNK(info.st_mode):
                        content = os.readlink(path)
                    found[os.path.relpath(path, self.tops[side])] = (self.attributes(info), content)
            trees.append(found)
        assert set(trees[0]) == set(trees[1]), "names differ: %r" % (set(trees[0]) ^ set(trees[1]))
        for path, there in trees[0].items():
            assert there == trees[1][path], "%r: %.300r, but the model: %.300r" % (
                path, there, trees[1][path])
        for pair in self.handles:
            self.compare_handle(pair)
            if pair.flags & os.O_ACCMODE != os.O_WRONLY:
                self.quiet("content of handle %r" % pair.name,
                           lambda side, pair=pair: os.pread(pair.both[side], 1 << 21, 0))
