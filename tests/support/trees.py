# SPDX-License-Identifier: Apache-2.0
"""Directory trees for tests: making some, and describing them for comparison."""

import hashlib
import os
import random
import stat


def describe(top, times=True, modes=True):
    """{relative path: what it is}, for all below `top`: kind, mode, size, mtime and content."""
    top = os.fsencode(top)
    found = {}
    for base, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(base, name)
            found[os.path.relpath(path, top)] = describe_one(path, times, modes)
    return found


def describe_one(path, times=True, modes=True):
    """What one path is, as a tuple that can be compared."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return ("link", os.readlink(path))
    mode = stat.S_IMODE(info.st_mode) if modes else None
    time = info.st_mtime_ns if times else None
    if stat.S_ISDIR(info.st_mode):
        return ("directory", mode, time)
    with open(path, "rb") as file:
        data = file.read()
    assert len(data) == info.st_size, "%r: st_size %d, but %d bytes" % (path, info.st_size,
                                                                        len(data))
    return ("file", mode, info.st_size, time, hashlib.sha256(data).hexdigest())


def sample(top, seed=1, files=60):
    """A small tree of everything common: nested directories, modes, links, ns times, odd names.

    Links are relative and stay inside, so that both sides read them alike.
    """
    dice = random.Random(seed)
    os.makedirs(top, exist_ok=True)
    directories = [str(top)]
    for n in range(10):
        directories.append(os.path.join(dice.choice(directories), "dir%d" % n))
        os.mkdir(directories[-1])
    for n in range(files):
        path = os.path.join(dice.choice(directories), "file%d.txt" % n)
        with open(path, "wb") as file:
            file.write(dice.randbytes(dice.choice((0, 1, 100, 4096, 5000, 70000))))
        os.chmod(path, dice.choice((0o644, 0o600, 0o755, 0o444)))
    for name in ("with space", "new\nline", "ünï", "-dash"):
        with open(os.path.join(top, name), "w") as file:
            file.write(name)
    os.symlink("with space", os.path.join(top, "link"))
    os.symlink("nowhere", os.path.join(top, "dangling"))
    os.symlink("../link", os.path.join(directories[1], "up"))
    when = 1_600_000_000_000_000_000
    for base, below, names in os.walk(top, topdown=False):
        for name in names + below:
            path = os.path.join(base, name)
            when += dice.randrange(1, 10**9)
            os.utime(path, ns=(when, when), follow_symlinks=False)
    return top
