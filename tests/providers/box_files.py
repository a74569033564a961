# SPDX-License-Identifier: Apache-2.0
"""The files of a sandbox through the provider contract (providers/files.h), as an object.

    f = Files(driver, "k1", real="/where/it/really/is")
    f.apply(store("a/b", b"text"))
    assert f.fetch(["a/b"])["a/b"].data == b"text"

Paths are text or bytes; text stands for its bytes as in os.fsencode.
"""

import os
import stat
from collections import namedtuple
from pathlib import Path

from driver import Refused

SET_MODE, SET_SIZE, SET_ATIME, SET_MTIME = 1, 2, 4, 8
NOREPLACE = 1
EXCLUSIVE = 1 << 30

Listing = namedtuple("Listing", "entries listed targets order")
Fetched = namedtuple("Fetched", "error st data")
Result = namedtuple("Result", "error st")


class St:
    def __init__(self, values):
        self.__dict__.update(values)
        self.mtime = tuple(values["mtime"])
        self.ctime = tuple(values["ctime"])
        self.type = stat.S_IFMT(self.mode)
        self.bits = stat.S_IMODE(self.mode)

    def key(self):
        return self.size, self.mtime

    def __repr__(self):
        return "St(%o, size %d, mtime %s)" % (self.mode, self.size, self.mtime)


def hexed(path):
    return os.fsencode(path).hex()


def plain(text):
    return os.fsdecode(bytes.fromhex(text))


class Files:
    def __init__(self, driver, box, real):
        self.driver = driver
        self.box = box
        self.real = Path(real)
        self.has_shell = True
        self.has_ns = True  # of times that were set
        self.has_handles = True  # an open file outlives its name
        self.big_size = 0  # of a large file, where 300 MiB take too long
        self.runs = True  # there is a shell for commands

    def ask(self, op, **arguments):
        return self.driver.ask(op, box=self.box, **arguments)

    def do(self, op, timeout=120, **arguments):
        return self.driver.get(self.ask(op, **arguments), timeout)

    def errno(self, op, *arguments, **more):
        """What this operation fails with."""
        try:
            value = getattr(self, op)(*arguments, **more)
        except Refused as refused:
            assert refused.sentence, "no sentence with %s" % refused.errno
            return refused.errno
        return "no error but %r" % (value,)

    # -- asking

    def list(self, path="", depth=1, max=0, skip=(), **more):
        answer = self.do("f_list", path=hexed(path), depth=depth, max=max, skip=[hexed(each) for each in skip],
                         **more)
        order = [plain(each[0]) for each in answer["entries"]]
        return Listing({plain(name): St(st) for name, st, _ in answer["entries"]},
                       {plain(each) for each in answer["listed"]},
                       {plain(name): plain(target) for name, _, target in answer["entries"]
                        if target is not None}, order)

    def stat(self, path=""):
        return St(self.do("f_stat", path=hexed(path))["st"])

    def readlink(self, path):
        return plain(self.do("f_readlink", path=hexed(path))["target"])

    def statfs(self):
        return self.do("f_statfs")

    def workdir(self):
        return plain(self.do("f_workdir")["workdir"])

    # -- content

    def fetch(self, paths, size_max=1 << 20, **more):
        answer = self.do("f_fetch", paths=[hexed(path) for path in paths], size_max=size_max,
                         **more)
        seen = [each[0] for each in answer["files"]]
        assert len(seen) == len(set(seen)), "a file came twice"
        return {paths[index]: Fetched(error, St(st), bytes.fromhex(data))
                for index, error, st, data in answer["files"]}

    def open(self, path):
        answer = self.do("f_open", path=hexed(path))
        return answer["handle"], St(answer["st"])

    def read(self, handle, size, offset=0, **more):
        answer = self.do("f_read", handle=handle, size=size, offset=offset, **more)
        if "to" not in more:
            assert answer["got"] == len(answer["data"]) // 2
        return bytes.fromhex(answer["data"]), St(answer["st"]) if answer["got"] else None

    def close(self, handle):
        self.do("f_close", handle=handle)

    # -- changes

    def apply(self, *changes, timeout=120, **more):
        answer = self.do("f_apply", timeout, changes=list(changes), **more)
        return [Result(error, St(st) if st else None) for error, st in answer["changes"]]

    def one(self, change):
        """The result of one change."""
        return self.apply(change)[0]

    def must(self, *changes):
        results = self.apply(*changes)
        assert not [each for each in results if each.error], \
            [(i, each.error) for i, each in enumerate(results) if each.error]
        return results


def change(kind, path, **more):
    for name in ("to", "temp"):
        if name in more:
            more[name] = hexed(more[name])
    if isinstance(more.get("data"), bytes):
        more["data"] = more["data"].hex()
    for name in ("file",):
        if name in more:
            more[name] = str(more[name])
    if "mtime" in more:
        more["what"] = more.get("what", 0) | SET_MTIME
    if "atime" in more:
        more["what"] = more.get("what", 0) | SET_ATIME
    if "size" in more:
        more["what"] = more.get("what", 0) | SET_SIZE
    return dict(more, kind=kind, path=hexed(path))


def store(path, data=b"", mode=0o644, **more):
    if "file" not in more:
        more["data"] = data
    return change("store", path, mode=mode, **more)


def write(path, data, *extents, **more):
    return change("write", path, data=data, extents=extents, **more)


def mkdir(path, mode=0o755):
    return change("mkdir", path, mode=mode)


def symlink(path, to):
    return change("symlink", path, to=to)


def link(path, to):
    return change("link", path, to=to)


def unlink(path):
    return change("unlink", path)


def rmdir(path):
    return change("rmdir", path)


def rename(path, to, flags=0):
    return change("rename", path, to=to, flags=flags)


def set_mode(path, mode):
    return change("set", path, mode=mode, what=SET_MODE)


def set_size(path, size):
    return change("set", path, size=size)


def set_times(path, mtime, **more):
    return change("set", path, mtime=mtime, **more)
