# SPDX-License-Identifier: Apache-2.0
"""A tree in memory that notes each call on a mount that has returned.

    work = Work(box.fs, seed=1)
    work.step()                    # one random call, and the same on the model
    work.settle(look(backing)[0])  # fails if this isn't what the model has

A call that the end of sbxfs interrupts raises Died: it may have been carried out or not. settle()
then finds out, and the model goes on from there.
"""

import errno
import os
import random
import stat

from .tools import Failed

DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EIO}
NAMES = 9  # few, so that names are used again
HANDLES = 5
DEPTH = 3
FILE_MAX = 2 << 20


class Died(Exception):
    """sbxfs has ended during a call."""


class File:
    def __init__(self, mode):
        self.data = b""
        self.mode = mode
        self.mtime = None  # ns, where one was set

    def describe(self):
        return ("file", self.mode, self.data)


class Directory:
    def __init__(self, mode):
        self.mode = mode
        self.names = {}

    def describe(self):
        return ("directory", self.mode)


class Link:
    def __init__(self, target):
        self.target = target

    def describe(self):
        return ("link", self.target)


class Handle:
    def __init__(self, descriptor, file, appends):
        self.descriptor = descriptor
        self.file = file
        self.appends = appends


def look_at(path):
    """What is at a path, as describe() of its node says it; None: nothing."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(info.st_mode):
        return ("directory", mode)
    with open(path, "rb") as file:
        return ("file", mode, file.read())


def look(top):
    """{path: what it is} of a real tree, as Work.tree() says it, and {path: mtime} of the files."""
    found, times = {}, {}
    for base, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(base, name)
            inside = os.path.relpath(path, top)
            found[inside] = look_at(path)
            times[inside] = os.lstat(path).st_mtime_ns
    return found, times


def _say(what):
    if what and what[0] == "file":
        return "file %o of %d bytes, %r" % (what[1], len(what[2]), what[2][:24])
    return repr(what)


def differences(found, tree):
    """A line for each path that isn't what the model has."""
    return ["%s: %s, but the model: %s" % (path, _say(found.get(path)), _say(tree.get(path)))
            for path in sorted(found.keys() | tree.keys()) if found.get(path) != tree.get(path)]


class Work:
    """Random calls below `top`. `backing` is its directory inside, which a fsync must have reached."""

    def __init__(self, top, seed, backing=None):
        self.top = str(top)
        self.backing = str(backing) if backing else None
        self.dice = random.Random(seed)
        self.root = Directory(0o755)
        self.handles = []
        self.done = []  # one line each
        self.interrupted = []  # what the call that was under way may have done
        self.count = 0
        self.kinds = [
            (self.create, 14), (self.open, 8), (self.write, 22), (self.append, 8), (self.close, 10),
            (self.truncate, 4), (self.truncate_handle, 3), (self.rename, 12), (self.save, 6),
            (self.unlink, 8), (self.mkdir, 6), (self.rmdir, 4), (self.symlink, 4), (self.chmod, 5),
            (self.utimens, 3), (self.fsync, 2), (self.read_back, 3), (self.drop_tree, 1)]

    # -- the model

    def tree(self):
        found = {}

        def walk(directory, prefix):
            for name, node in directory.names.items():
                found[prefix + name] = node.describe()
                if isinstance(node, Directory):
                    walk(node, prefix + name + "/")
        walk(self.root, "")
        return found

    def settle(self, found):
        """A new mount has this: all that returned, and what was interrupted or not."""
        self.handles.clear()
        wrong = [differences(found, self.tree())]
        while wrong[-1] and self.interrupted:
            undo = self.interrupted.pop(0)()
            wrong.append(differences(found, self.tree()))
            if wrong[-1]:
                undo()
        self.interrupted.clear()
        if wrong[-1]:
            raise Failed("not what returned:\n%s" % "\n-- or:\n".join(
                "\n".join(lines[:20]) for lines in wrong[:2]))

    def check_times(self, times):
        """mtimes that were set, and not changed since."""
        for path, node in self.everything():
            if isinstance(node, File) and node.mtime is not None:
                assert times[path] == node.mtime, "%s: mtime %d, but %d was set" % (
                    path, times[path], node.mtime)

    def everything(self, directory=None, prefix=""):
        for name, node in list((directory or self.root).names.items()):
            yield prefix + name, node
            if isinstance(node, Directory):
                yield from self.everything(node, prefix + name + "/")

    def parent_of(self, path):
        """(directory, name); None if it isn't there."""
        *above, name = path.split("/")
        at = self.root
        for each in above:
            at = at.names.get(each)
            if not isinstance(at, Directory):
                return None, name
        return at, name

    def get(self, path):
        directory, name = self.parent_of(path)
        return directory.names.get(name) if directory else None

    def put(self, path, node):
        """Set or remove a name; returns what makes that undone."""
        directory, name = self.parent_of(path)
        old = directory.names.get(name)

        def set_to(what):
            if what is None:
                directory.names.pop(name, None)
            else:
                directory.names[name] = what
        set_to(node)
        return lambda: set_to(old)

    def change(self, node, **fields):
        old = {name: getattr(node, name) for name in fields}
        for name, value in fields.items():
            setattr(node, name, value)

        def undo():
            for name, value in old.items():
                setattr(node, name, value)
        return undo

    # -- calls

    def call(self, said, real, *arguments, apply=None, partly=()):
        """Make a call, then note it. apply() changes the model and returns what undoes that.

        `partly`: likewise, of what may be done of it when it is interrupted.
        """
        self.count += 1
        self.done.append(said)
        del self.done[:-400]
        try:
            value = real(*arguments)
        except OSError as error:
            if error.errno not in DEAD:
                raise Failed("%s: %s" % (said, os.strerror(error.errno))) from error
            self.done[-1] += " (died)"
            self.interrupted = [apply, *partly] if apply else []
            raise Died() from error
        if apply:
            apply()
        return value

    def at(self, path):
        return self.top + "/" + path

    def step(self):
        self.dice.choices([f for f, _ in self.kinds], [w for _, w in self.kinds])[0]()

    def end_life(self):
        """Close what is open, of a mount that is dead."""
        for handle in self.handles:
            try:
                os.close(handle.descriptor)
            except OSError:
                pass
        self.handles.clear()

    # -- choices

    def some(self, kind):
        found = [path for path, node in self.everything() if isinstance(node, kind)]
        return self.dice.choice(found) if found else None

    def free_name(self):
        """A path that nothing is at, in a directory that is there."""
        parents = [""] + [path + "/" for path, node in self.everything()
                          if isinstance(node, Directory) and path.count("/") < DEPTH - 1]
        path = "%sn%d" % (self.dice.choice(parents), self.dice.randrange(NAMES))
        return None if self.get(path) else path

    def data(self):
        size = self.dice.choice((1, 10, 100, 4096, 5000, 70_000, 300_000))
        return self.dice.randbytes(size)

    # -- what is done

    def open_as(self, said, path, flags, mode, file, apply):
        descriptor = self.call(said, os.open, self.at(path), flags, mode, apply=apply)
        self.handles.append(Handle(descriptor, file, bool(flags & os.O_APPEND)))
        if len(self.handles) > HANDLES:
            self.close()

    def create(self, path=None):
        path = path or self.free_name()
        if not path:
            return None
        mode = self.dice.choice((0o644, 0o600, 0o755))
        file = File(mode)
        self.open_as("create %s %o" % (path, mode), path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode,
                     file, lambda: self.put(path, file))
        return path

    def open(self):
        path = self.some(File)
        if not path:
            return
        file = self.get(path)
        extra = self.dice.choice((0, 0, os.O_TRUNC, os.O_APPEND))
        self.open_as("open %s %#x" % (path, extra), path, os.O_RDWR | extra, 0, file, (
            lambda: self.change(file, data=b"", mtime=None)) if extra & os.O_TRUNC else None)

    def pick(self):
        return self.dice.choice(self.handles) if self.handles else None

    def path_of(self, file):
        """A path of an open file; None if it was removed."""
        return next((path for path, node in self.everything() if node is file), None)

    def write(self):
        handle = self.pick()
        if handle:
            size = len(handle.file.data)
            offset = self.dice.choice((0, size, size, self.dice.randrange(size + 1), size + 5000))
            self.write_at(handle, self.data(), offset)

    def write_at(self, handle, data, offset):
        file = handle.file
        if handle.appends:
            offset = len(file.data)
        if offset + len(data) > FILE_MAX:
            return
        before = file.data

        def first(size):  # bytes of it; the kernel may send it in pieces
            after = before[:offset].ljust(offset, b"\0") + data[:size] + before[offset + size:]
            return lambda: self.change(file, data=after, mtime=None)
        pieces = [size for size in range(len(data)) if size and (offset + size) % 4096 == 0]

        def write():
            if os.pwrite(handle.descriptor, data, offset) < len(data):
                raise OSError(errno.EIO, "the rest of it was refused")
        self.call("write %d at %d of %s" % (len(data), offset, self.path_of(file)), write,
                  apply=first(len(data)), partly=[first(size) for size in pieces])

    def append(self):
        handle = self.pick()
        if handle:
            self.write_at(handle, self.data(), len(handle.file.data))

    def close(self):
        if self.handles:
            handle = self.handles.pop(self.dice.randrange(len(self.handles)))
            self.call("close %s" % self.path_of(handle.file), os.close, handle.descriptor)

    def cut(self, file, said, real, what):
        size = self.dice.choice((0, 1, 4096, len(file.data) // 2, len(file.data) + 100))
        if size == len(file.data):
            return
        self.call("%s to %d" % (said, size), real, what, size, apply=lambda: self.change(
            file, data=file.data[:size].ljust(size, b"\0"), mtime=None))

    def truncate(self):
        path = self.some(File)
        if path:
            self.cut(self.get(path), "truncate %s" % path, os.truncate, self.at(path))

    def truncate_handle(self):
        handle = self.pick()
        if handle:
            self.cut(handle.file, "ftruncate %s" % self.path_of(handle.file), os.ftruncate,
                     handle.descriptor)

    def rename(self):
        old = self.some((File, Directory, Link))
        if not old:
            return
        node = self.get(old)
        new = self.free_name()
        if self.dice.random() < 0.5:
            new = self.some((File, Link)) if not isinstance(node, Directory) else None
        if new and new != old and not new.startswith(old + "/") and \
                (new + "/").count("/") + self.height(node) <= DEPTH + 1:
            self.rename_to(old, new)

    def height(self, node):
        if not isinstance(node, Directory):
            return 0
        return 1 + max([self.height(each) for each in node.names.values()], default=0)

    def rename_to(self, old, new):
        node = self.get(old)

        def apply():
            first = self.put(old, None)
            second = self.put(new, node)

            def undo():
                second()
                first()
            return undo
        self.call("rename %s %s" % (old, new), os.rename, self.at(old), self.at(new), apply=apply)

    def save(self):
        """As editors do: beside it, then over it."""
        path = self.some(File)
        if not path or self.get(path + ".tmp"):
            return
        self.create(path + ".tmp")
        file = self.get(path + ".tmp")
        handle = next(h for h in self.handles if h.file is file) if any(
            h.file is file for h in self.handles) else None
        if handle:
            self.write_at(handle, self.data(), 0)
            if self.dice.random() < 0.8:
                self.handles.remove(handle)
                self.call("close it", os.close, handle.descriptor)
        self.rename_to(path + ".tmp", path)

    def unlink(self, path=None):
        path = path or self.some((File, Link))
        if path:
            self.call("unlink %s" % path, os.unlink, self.at(path), apply=lambda: self.put(path, None))

    def mkdir(self):
        path = self.free_name()
        if path and path.count("/") < DEPTH:
            mode = self.dice.choice((0o755, 0o700))
            self.call("mkdir %s" % path, os.mkdir, self.at(path), mode,
                      apply=lambda: self.put(path, Directory(mode)))

    def rmdir(self, path=None):
        empty = [p for p, node in self.everything() if isinstance(node, Directory) and not node.names]
        path = path or (self.dice.choice(empty) if empty else None)
        if path:
            self.call("rmdir %s" % path, os.rmdir, self.at(path), apply=lambda: self.put(path, None))

    def drop_tree(self):
        """rm -r"""
        top = self.some(Directory)
        if top:
            for path, node in reversed(list(self.everything(self.get(top), top + "/"))):
                if isinstance(node, Directory):
                    self.rmdir(path)
                else:
                    self.unlink(path)
            self.rmdir(top)

    def symlink(self):
        path = self.free_name()
        if path:
            target = "n%d" % self.dice.randrange(NAMES)
            self.call("symlink %s %s" % (target, path), os.symlink, target, self.at(path),
                      apply=lambda: self.put(path, Link(target)))

    def chmod(self):
        path = self.some((File, Directory))
        if path:
            node = self.get(path)
            modes = (0o755, 0o700) if isinstance(node, Directory) else (0o644, 0o600, 0o755, 0o640)
            mode = self.dice.choice(modes)
            self.call("chmod %o %s" % (mode, path), os.chmod, self.at(path), mode,
                      apply=lambda: self.change(node, mode=mode))

    def utimens(self):
        path = self.some(File)
        if path and not any(h.file is self.get(path) for h in self.handles):
            file = self.get(path)
            when = 1_500_000_000 * 10**9 + self.dice.randrange(10**12)
            file.mtime = None  # not known, should it be interrupted
            self.call("utimens %s %d" % (path, when),
                      lambda: os.utime(self.at(path), ns=(when, when)))
            file.mtime = when

    def fsync(self):
        """When it returns, it is inside."""
        handle = self.pick()
        path = handle and self.path_of(handle.file)
        if not path:
            return
        self.call("fsync %s" % path, os.fsync, handle.descriptor)
        if self.backing:
            inside = look_at(os.path.join(self.backing, path))
            assert inside == handle.file.describe(), "%s after its fsync: %s, but the model: %s" % (
                path, _say(inside), _say(handle.file.describe()))

    def read_back(self):
        path = self.some(File)
        if path:
            def read():
                with open(self.at(path), "rb", buffering=0) as file:
                    return file.read()
            data = self.call("read %s" % path, read)
            assert data == self.get(path).data, "%s reads as %s, but the model: %s" % (
                path, _say(("file", 0, data)), _say(self.get(path).describe()))
