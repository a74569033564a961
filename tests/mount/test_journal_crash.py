# SPDX-License-Identifier: Apache-2.0
"""kill -9 of sbxfs at random moments: each call that returned is carried out, once.

--seed=N repeats the calls (not the moments), --rounds=N makes it longer: 300 take some minutes.
"""

import os
import random
import threading
import time

import pytest

from support import kinds
from support.far import wait_clean
from support.model import Died, Work, look
from support.tools import Failed

pytestmark = [pytest.mark.kinds(*kinds.CACHED_ONES), pytest.mark.slow]

ROUNDS = 40
SECONDS = 60  # or as many as these allow
LIFE = (0.01, 0.6)  # seconds


def choose_seed(request):
    seed = request.config.getoption("--seed")
    return random.SystemRandom().randrange(10**6) if seed is None else seed


class Lives:
    """One sandbox, and the model of its fs/, over many lives of sbxfs."""

    def __init__(self, mount, seed):
        self.mount = mount
        self.dice = random.Random(seed)
        self.box = mount.create("web")
        self.backing = self.box.backing
        self.work = Work(self.box.fs, seed, self.backing)
        self.counts = {"rounds": 0, "calls": 0, "interrupted": 0, "left waiting": 0, "killed sending": 0}

    def live(self):
        """Random calls until it is killed; sometimes a pause, in which what was done is sent."""
        self.mount.expected_end = self.mount.dirty_end = True
        killer = threading.Timer(self.dice.uniform(*LIFE), self.mount.process.kill)
        killer.start()
        try:
            while self.mount.process.poll() is None:
                self.work.step()
                if self.dice.random() < 0.02:
                    time.sleep(self.dice.uniform(0, 0.15))
        except Died:
            self.counts["interrupted"] += bool(self.work.interrupted)
        finally:
            killer.join()
            self.work.end_life()
            self.mount.kill9()
        self.counts["rounds"] += 1
        self.counts["calls"] = self.work.count

    def start(self):
        self.work.done.append("-- life %d" % (self.counts["rounds"] + 1))
        self.mount.start()
        self.box = self.mount.box("web")

    def die_sending(self):
        """Killed again while a new mount sends what waits."""
        self.start()
        time.sleep(self.dice.uniform(0, 0.3))
        self.mount.kill9()
        self.counts["killed sending"] += 1

    def check(self):
        """All is inside, once, and nothing else; and the mount shows the same."""
        wait_clean(self.box)
        inside, times = look(self.backing)
        self.work.settle(inside)
        self.work.check_times(times)
        status = self.box.status()
        assert status["unsent"] == "0" and "unsent" not in os.listdir(self.box.dir), \
            self.box.read("unsent").decode()
        assert status["dirty_bytes"] == "0"
        shown, times = look(self.box.fs)
        self.work.settle(shown)
        self.work.check_times(times)
        left = [path.name for path in self.mount.state.glob("**/[rxy]-*")]
        assert not left, "in the state directory: %s" % left

    def round(self):
        self.live()
        if self.dice.random() < 0.2:
            self.die_sending()
        self.start()
        if not self.work.interrupted and self.dice.random() < 0.3:
            self.counts["left waiting"] += 1  # the next life begins with what this one left
        else:
            self.check()


def run(request, mount, rounds, seconds):
    seed = choose_seed(request)
    print("seed %d" % seed)
    lives = Lives(mount, seed)
    until = time.monotonic() + seconds
    try:
        while lives.counts["rounds"] < rounds and time.monotonic() < until:
            lives.round()
        if lives.mount.is_alive():
            lives.check()
    except (AssertionError, OSError) as error:
        raise Failed("seed %d, round %d: %s\nlast calls:\n%s" % (
            seed, lives.counts["rounds"], error, "\n".join(lives.work.done[-60:]))) from error
    finally:
        print(", ".join("%d %s" % (count, name) for name, count in lives.counts.items()))


@pytest.mark.timeout(3600)
def test_kill_9_at_any_moment_loses_and_repeats_nothing(fresh_mount, kind, request):
    rounds = request.config.getoption("--rounds")
    run(request, fresh_mount(kind=kind), rounds or ROUNDS, 3600 if rounds else SECONDS)
