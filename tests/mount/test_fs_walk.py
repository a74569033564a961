# SPDX-License-Identifier: Apache-2.0
"""The random walk on fs/ (support/walk.py). --seed=N repeats one, --steps=N makes it longer."""

import errno
import os
import random
import threading

import pytest

from support import kinds
from support.walk import Walk

pytestmark = pytest.mark.kinds(*kinds.ALL)

SEEDS = 3
STEPS = 4000


def takes_hard_links(directory):
    (directory / "probe").write_text("")
    try:
        os.link(directory / "probe", directory / "probe2")
        (directory / "probe2").unlink()
        return True
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
        return False
    finally:
        (directory / "probe").unlink()


def no_conflict_was_told(fsdir):
    """Nobody else has changed anything."""
    error = fsdir.parent / "error"
    if error.exists():  # else it is no mount of ours
        assert error.read_text() == ""


def choose_steps(request, kind):
    return request.config.getoption("--steps") or kind.scaled(STEPS)


def choose_seed(request):
    seed = request.config.getoption("--seed")
    return random.SystemRandom().randrange(10**6) if seed is None else seed


@pytest.mark.parametrize("turn", range(SEEDS))
def test_random_walk_agrees_with_a_plain_directory(fsdir, scratch, request, turn, kind):
    seed = choose_seed(request)
    if turn and request.config.getoption("--seed") is not None:
        pytest.skip("one given seed, one walk")
    print("seed %d" % seed)
    Walk(fsdir, scratch, seed, takes_hard_links(fsdir)).run(choose_steps(request, kind))
    no_conflict_was_told(fsdir)


def test_random_walks_side_by_side(fsdir, scratch, request, kind):
    """Four walks at once in directories of one fs/: each must still agree with its own model."""
    seed = choose_seed(request)
    steps = choose_steps(request, kind) // 8
    print("seed %d" % seed)
    links = takes_hard_links(fsdir)
    problems = []

    def one(n):
        try:
            Walk(fsdir / str(n), scratch / str(n), seed + n, links).run(steps)
        except BaseException as error:
            problems.append(error)
    for n in range(4):
        (fsdir / str(n)).mkdir()
        (scratch / str(n)).mkdir()
    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(250)
    if problems:
        raise problems[0]
    no_conflict_was_told(fsdir)
