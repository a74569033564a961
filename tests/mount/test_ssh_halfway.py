# SPDX-License-Identifier: Apache-2.0
"""An SSH host that goes away, or has no room left, half-way through what is being sent.

Afterwards everything is there once and whole, or is named in `unsent`; nothing else is left.
"""

import os
import random
import threading
import time

import pytest

from support.far import AWAY, Far, wait_clean
from support.tools import run, wait_for

pytestmark = pytest.mark.timeout(400)

SIZES = (0, 1, 500, 4096, 9000, 40_000)


@pytest.fixture
def far(base, fresh_mount):
    made = Far(base, fresh_mount, 5)
    yield made
    made.stop()


def begin(far, **settings):
    """A mount and a sandbox whose directory is known here: what is made in it needs no answer."""
    mount = far.mount(**settings)
    box = mount.create("web")
    box.ok("true")
    os.listdir(box.fs)
    return mount, box


def many(seed, count=150):
    """{path: content} of small files in some directories."""
    dice = random.Random(seed)
    return {"d%d/f%d" % (n % 7, n): dice.randbytes(dice.choice(SIZES)) for n in range(count)}


def write_all(top, files):
    """Those that were written: where the host has to be asked first, one may be refused."""
    done = {}
    for path, data in files.items():
        try:
            os.makedirs((top / path).parent, exist_ok=True)
            descriptor = os.open(top / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except OSError as error:
            assert error.errno in AWAY, error
            continue
        with open(descriptor, "wb", buffering=0) as file:
            file.write(data)
        done[path] = data
    return done


def files_below(top):
    """All that is there, hidden temporary names too."""
    return {os.path.relpath(os.path.join(base, name), top):
            open(os.path.join(base, name), "rb").read()
            for base, _, names in os.walk(top) for name in names}


def check(box, files):
    wait_clean(box)
    assert box.status()["unsent"] == "0", box.read("unsent")
    assert files_below(box.backing) == files
    assert files_below(box.fs) == files


def temporaries(directory):
    return [os.path.join(base, name) for base, below, names in os.walk(directory)
            for name in names + below if name.startswith(".sbxfs-")]


# -- a stream of many files

@pytest.mark.parametrize("after", [0, 1000, 20_000, 200_000, 700_000])
def test_connection_cut_in_a_stream_of_files(far, after):
    _, box = begin(far)
    files = many(after)
    far.way.cut(after)
    files = write_all(box.fs, files)
    check(box, files)
    assert box.ok("find . -type f | wc -l").strip() == b"%d" % len(files)
    assert temporaries(far.server.base) == []


@pytest.mark.parametrize("seed", range(4))
def test_sshd_killed_in_a_stream_of_files(far, seed):
    """Its tar, shells and SFTP servers die with it."""
    _, box = begin(far)
    files = many(seed, 300)
    killer = threading.Timer(random.Random(seed).uniform(0.02, 0.5), far.break_, ["killed"])
    killer.start()
    files = write_all(box.fs, files)
    killer.join()
    far.mend()
    check(box, files)


@pytest.mark.parametrize("after", [1000, 20_000, 200_000])
def test_sbxfs_killed_while_the_way_is_cut_in_a_stream(far, after):
    mount, box = begin(far)
    files = many(after)
    far.way.hole(after)
    files = write_all(box.fs, files)
    time.sleep(0.3)
    mount.kill9()
    far.way.thaw()
    mount.start()
    check(mount.box("web"), files)


# -- what was on its way under a temporary name

@pytest.mark.parametrize("again", ["killed", "cut"])
def test_temporary_name_is_removed_from_a_directory_that_stays(far, again):
    """With root= they are beside the files; only what is ours goes."""
    place = far.server.base / "project"
    place.mkdir()
    strangers = [".sbxfs-0123456789abcdefghij", ".sbxfs-zzzzzzzzzzzzzzzzzzzz"]
    for name in strangers:
        (place / name).write_text("somebody else's")
    mount, box = begin(far, root=place)
    data = random.Random(7).randbytes(12 << 20)
    until = far.way.count()[0] + (5 << 20)
    far.way.hole(5 << 20)
    (box.fs / "file").write_bytes(data)
    (box.fs / "dir").mkdir()
    wait_for(lambda: far.way.count()[0] >= until, 60, 0.02, "the file to be half there")
    wait_for(lambda: len(temporaries(place)) > len(strangers), 20, 0.05, "a temporary file")
    if again == "killed":
        mount.kill9()
        far.server.kill_connections()
        far.way.cut()
        far.way.thaw()
        mount.start()
        box = mount.box("web")
    else:
        far.way.cut()
        far.way.thaw()
    wait_clean(box)
    assert (place / "file").read_bytes() == data and (place / "dir").is_dir()
    wait_for(lambda: sorted(os.listdir(place)) == sorted([*strangers, "file", "dir"]), 10, 0.1,
             lambda: "nothing of ours beside: %s" % os.listdir(place))
    assert sorted(os.listdir(box.fs)) == ["dir", "file"], "nobody's temporary names are shown"


# -- no room

def test_disk_full_half_way_inside(far, request):
    """What fits is there whole, the rest is unsent and goes with retry; nothing is half there."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    place = far.server.base / "small"
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs", place])
    request.addfinalizer(lambda: run(["umount", "-l", place], check=False))
    _, box = begin(far, base=place / "sandboxes")
    dice = random.Random(3)
    files = {"f%d" % n: dice.randbytes(40_000) for n in range(150)}
    files = write_all(box.fs, files)
    wait_clean(box)
    status = wait_for(lambda: (lambda s: s if s["unsent"] != "0" else None)(box.status()), 20, 0.3)
    there = files_below(box.backing)
    assert all(files[name] == data for name, data in there.items()), "half a file has its name"
    named = {line.split(": ")[0] for line in box.read("unsent").decode().splitlines()}
    assert len(named) == int(status["unsent"]) and "No space left" in box.read("unsent").decode()
    assert named | there.keys() == files.keys() and not named & there.keys()
    assert files_below(box.fs) == files, "our version is shown"
    run(["mount", "-o", "remount,size=20m", place])
    box.ctl("retry")
    wait_for(lambda: box.status()["unsent"] == "0", 60, 0.3, lambda: str(box.status()))
    check(box, files)
    assert temporaries(place) == []
