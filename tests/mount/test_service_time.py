# SPDX-License-Identifier: Apache-2.0
"""The idle time-out of sandboxes whose service keeps an end of its own."""

import re
import time
from datetime import datetime

import pytest

from support import kinds
from support.tools import wait_for

SPAN = 2 * 3600


def expiry(entry):
    """Seconds from when it was asked for until the end that it names."""
    end = datetime.fromisoformat(entry.json()["expiresAt"].replace("Z", "+00:00"))
    return end.timestamp() - time.time()


# What a service is told: the request, and whether it says SPAN.
TOLD = {
    "e2b": ("/timeout$", lambda entry: entry.json() == {"timeout": SPAN}),
    "opensandbox": ("/renew-expiration$", lambda entry: SPAN - 60 < expiry(entry) < SPAN + 600),
    "daytona": ("/auto(stop|pause)/", lambda entry: entry.target.endswith("/%d" % (SPAN // 60))),
}

pytestmark = pytest.mark.kinds(*(kind.name for kind in kinds.FAKES))


@pytest.fixture
def box(mount, request):
    """One that has an end: not every service gives one by itself."""
    name = "t%d" % abs(hash(request.node.name))
    mount.ctl("create %s timeout=1h" % name)
    made = mount.box(name)
    made.wait_state("running")
    yield made
    made.destroy()


def told(kind, box, since):
    path, says = TOLD[kind.name]
    asked = kind.server().journal(re.escape(box.status()["id"]) + path, "POST", since=since)
    return [entry for entry in asked if entry.status in range(200, 300) and says(entry)]


def test_written_time_out_reaches_the_service_at_once(box, kind):
    mark = kind.server().mark()
    box.ctl("timeout 2h")
    wait_for(lambda: told(kind, box, mark), 10, 0.05, "the service to be told")
    time.sleep(0.5)
    assert len(told(kind, box, mark)) == 1


def test_written_time_out_is_told_until_it_was_heard(box, kind):
    mark = kind.server().mark()
    kind.server().fault(kind="status", status=503, path=TOLD[kind.name][0], count=3)
    box.ctl("timeout 2h")
    wait_for(lambda: told(kind, box, mark), 90, 0.1, "the service to be told")


@pytest.fixture
def short_plan(kind):
    """The account's plan allows an hour."""
    kind.server().set(timeout_max=3600)
    yield
    kind.server().set(timeout_max=86400)


@pytest.mark.kinds("e2b")  # of the others no limit is known
def test_time_out_that_is_refused_is_said_and_not_told_again(box, kind, short_plan):
    asked = re.escape(box.status()["id"]) + "/timeout$"
    mark = kind.server().mark()
    box.ctl("timeout 2h")
    wait_for(lambda: b"greater than 1 hours" in box.read("error"), 10, 0.1)
    time.sleep(12)  # longer than until what passes is tried again
    heard = kind.server().journal(asked, "POST", since=mark)
    assert [(entry.json(), entry.status) for entry in heard] == [({"timeout": SPAN}, 400)]
    box.ctl("timeout 30m")
    wait_for(lambda: kind.server().journal(asked, "POST", since=mark)[-1].status == 204, 10, 0.1)
