# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that don't take our program: the service runs the commands, a shell serves the files."""

import pytest

import test_conform as conform
from driver import Refused
from fakes import Fake
from files_support import fake_environ
from test_conform import (  # noqa: F401 collected here, with the fixtures below
    ended, test_argv_goes_verbatim, test_binary_output, test_exit_codes, test_large_output_arrives_whole,
    test_output_comes_while_it_runs, test_signal_can_be_caught, test_stdin_is_empty_unless_asked_for,
    test_streams_are_apart_and_in_order, test_timeout)

# What the service refuses: the request that brings our program, and such as begin a stream of any.
REFUSED = {
    "e2b": [("/files.*sbxfs", 403)],
    "opensandbox": [("/files/upload", 403)],
    "opensandbox-old": [("/files/upload", 403), ("/pty", 404)],
    "daytona": [("/files/bulk-upload", 403)],
}
POLLED = ("opensandbox-old", "daytona")
NO_STDIN = ("opensandbox", *POLLED)


@pytest.fixture(params=sorted(REFUSED))
def service(request):
    return request.param


@pytest.fixture
def fake(service):
    with Fake(service.partition("-")[0]) as each:
        for path, status in REFUSED[service]:
            each.fault(kind="status", status=status, method="POST", path=path, count=0,
                       body='{"code": %d, "message": "not there"}' % status)
        yield each


@pytest.fixture
def d(fake, service, drive):
    return drive(kind=service.partition("-")[0], env=fake_environ(fake))


@pytest.fixture
def box(fake, d):
    d.create("k1", name="web")
    assert any(rule["hits"] for rule in fake.faults()), "it was not even tried"
    return "k1"


@pytest.mark.parametrize("about", [conform.test_stdin, conform.test_much_stdin])
def test_stdin(d, box, service, about):
    if service not in NO_STDIN:
        about(d, box)
        return
    with pytest.raises(Refused) as refused:  # its calls have no end of input, or none at all
        d.exec(box, "cat", stdin=True)
    assert refused.value.errno == "EOPNOTSUPP" and "without stdin" in refused.value.sentence


def test_many_commands_at_once(d, box):
    numbers = [d.exec(box, "sleep 0.5; echo %d; exit %d" % (n, n)) for n in range(16)]
    for n, number in enumerate(numbers):
        result = d.wait(box, number)
        assert ended(result) == ("code", n) and result.out == b"%d\n" % n


def test_directory_environment_and_group(d, box):
    assert d.check(box, "pwd; echo $A-$B", env={"A": "1", "B": "x y=z'"}, cwd="/tmp") == "/tmp\n1-x y=z'\n"
    assert d.check(box, "ps -o pgid= -p $$ | tr -d ' '; echo $$").split()[0] != "1"
    with pytest.raises(Refused) as refused:
        d.check(box, "true", cwd="/not/there")
    assert refused.value.errno == "ENOENT"


def test_signal_reaches_the_whole_group(d, box):
    number = d.exec(box, "sleep 1000 & echo $!; wait")
    child = d.wait(box, number, bytes=2).out.split()[0].decode()
    d.do("signal", box=box, number=number, signal=9)
    assert ended(d.wait(box, number)) == ("signal", 9)
    assert d.check(box, "while kill -0 %s 2>/dev/null; do sleep 0.05; done; echo gone" % child) == "gone\n"


def test_command_ends_with_us(d, box, service):
    if service in POLLED:
        conform.test_running_command_is_attached_again_after_kill(d, box)
        return
    number = d.exec(box, "echo up; sleep 1000")
    d.wait(box, number, bytes=3)
    d.kill()
    d.start()
    d.attach(box)
    with pytest.raises(Refused) as refused:
        d.do("exec_attach", box=box, number=number)
    assert refused.value.errno == "ENOENT"
    assert d.check(box, "echo goes on") == "goes on\n"
