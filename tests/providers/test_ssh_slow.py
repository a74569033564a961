# SPDX-License-Identifier: Apache-2.0
"""Hosts whose shell is slow to answer, or does so no more, while their files can be had."""

import os
import time

import pytest

from driver import Refused
from files_support import until_it_answers
from support.sshd import SFTP_SERVER, Sshd
from support.tools import lives, wait_for
from test_ssh_life import boxes, only, refused, section

# What the account does with a command while the file `flag` is there.
WAYS = {
    "slow": 'if rm "$flag" 2>/dev/null; then sleep 7; fi',
    "hangs": 'if [ -e "$flag" ]; then exec sleep 1000; fi',
    "none": 'if [ -e "$flag" ]; then exec %s; fi' % SFTP_SERVER,
}


@pytest.fixture
def flag(base):
    return base / "flag"


@pytest.fixture
def host(base, flag, way):
    program = base / "account"
    program.write_text("#!/bin/sh\nflag='%s'\ncase $SSH_ORIGINAL_COMMAND in *sftp-server) ;; *) %s;; esac\n"
                       'exec sh -c "$SSH_ORIGINAL_COMMAND"\n' % (flag, WAYS[way]))
    program.chmod(0o755)
    with Sshd(base / "sshd", config=["ForceCommand %s" % program], sftp=SFTP_SERVER) as server:
        yield server


@pytest.fixture
def d(host, drive):
    return drive(kind="ssh", pairs=section(host))


def start_sleep(d):
    """Its pid on the host, which is this machine."""
    number = d.exec("k1", "echo $$; exec sleep 583")
    d.wait("k1", number, bytes=2)
    return number, int(d.output("k1", number, 0))


@pytest.mark.parametrize("way", ["slow", "none"])
def test_command_outlives_a_shell_that_does_not_answer(host, d, flag, way):
    d.create("k1", name="web")
    number, pid = start_sleep(d)
    flag.touch()
    host.kill_connections()
    wait_for(lambda: answers(d), 90, 0.1, "the connection")
    time.sleep(3)  # probes of the command come each second
    assert lives(pid) and "%d.out" % number in os.listdir(only(host) / "run")
    flag.unlink(missing_ok=True)
    host.kill_connections()
    wait_for(lambda: answers(d), 90, 0.1, "the connection")
    refused("ETIMEDOUT", d.do, "wait", box="k1", number=number, ms=100)
    d.destroy("k1")
    assert not lives(pid) and boxes(host) == {}


def answers(d):
    try:
        return d.state("k1") == "running"
    except Refused:
        return False


@pytest.mark.parametrize("way", ["slow"])
def test_slow_shell_at_the_first_connection_is_asked_again(host, d, flag, way):
    flag.touch()
    d.create("k1", name="web")
    assert d.check("k1", "echo on") == "on\n"


@pytest.mark.parametrize("way", ["hangs"])
def test_account_that_answers_no_command_has_files(host, d, flag, way):
    flag.touch()
    d.create("k1", name="web")
    assert d.do("list")["boxes"] == {"k1": "running"}
    assert "nothing was started" in refused("EAGAIN", d.exec, "k1", "true")
    d.destroy("k1")
    assert boxes(host) == {}


@pytest.mark.parametrize("way", ["hangs", "none"])
def test_destroy_waits_for_a_shell_where_commands_were_started(host, d, flag, way):
    d.create("k1", name="web")
    _, pid = start_sleep(d)
    d.close()
    flag.touch()
    d.start()
    d.attach("k1")
    assert "may live" in refused("EAGAIN", d.destroy, "k1")
    assert lives(pid) and len(boxes(host)) == 1
    flag.unlink()
    host.kill_connections()
    wait_for(lambda: answers(d), 90, 0.1, "the connection")
    d.destroy("k1")
    assert not lives(pid) and boxes(host) == {}


@pytest.mark.parametrize("way", ["slow"])
def test_frozen_host_is_out_of_reach_for_the_ssh_program(host, drive, way):
    with host.delay() as far:
        d = drive(kind="ssh", pairs=section(host, port=far.port, transport="openssh"))
        d.create("k1", name="web")
        assert d.check("k1", "echo on") == "on\n"
        far.hole()
        errors = set()
        end = time.monotonic() + 25
        while time.monotonic() < end:
            for call in (lambda: d.do("state", box="k1", call_ms=15000),
                         lambda: d.exec("k1", "true", call_ms=15000)):
                with pytest.raises(Refused) as caught:
                    call()
                errors.add(caught.value.errno)
            time.sleep(0.2)
        far.cut()
        far.thaw()
        wait_for(lambda: answers(d), 120, 0.1, "the host")
        assert errors <= {"ETIMEDOUT", "EHOSTUNREACH"}, errors
        until_it_answers(lambda: d.destroy("k1"), 60)
