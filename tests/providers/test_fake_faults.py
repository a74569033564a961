# SPDX-License-Identifier: Apache-2.0
"""What a stand-in is told to do wrong, it does; all else goes on."""

import http.client
import random
import socket
import threading
import time

import pytest

from fakes import Fake
from fakes.client import Client
from fakes.common.far import further


@pytest.fixture(scope="module")
def fake():
    with Fake("e2b") as each:
        yield each


@pytest.fixture
def client(fake):
    with Client(fake.url, {"X-API-Key": fake.environ["E2B_API_KEY"]}) as each:
        yield each
    fake.clear_faults()


def listing(client):
    return client.ask("GET", "/v2/sandboxes")


def test_a_rule_hits_as_often_as_it_says(fake, client):
    fake.fault(kind="status", status=429, headers={"Retry-After": "2"}, path="^/v2", skip=1, count=2)
    assert [listing(client).status for _ in range(4)] == [200, 429, 429, 200]
    assert fake.faults()[0]["hits"] == 2 and fake.faults()[0]["spent"]


def test_a_rule_knows_its_method_and_path(fake, client):
    fake.fault(kind="status", status=503, method="DELETE", path="/sandboxes/i", count=0)
    assert listing(client).status == 200
    assert client.ask("DELETE", "/sandboxes/inone").status == 503


def test_answers_of_any_bytes(fake, client):
    fake.fault(kind="answer", body="{\"a\": ", path="/v2")
    assert listing(client).body == b'{"a": '
    fake.fault(kind="redirect", to="http://other.invalid{target}", path="/v2")
    assert listing(client).headers["Location"] == "http://other.invalid/v2/sandboxes"


def test_cut_and_wrong_lengths(fake, client):
    fake.fault(kind="cut", at=1, path="/v2")
    with pytest.raises(http.client.IncompleteRead):
        listing(client)
    client.http.close()
    fake.fault(kind="length", by=5, path="/v2")
    with pytest.raises(http.client.IncompleteRead):
        listing(client)
    client.http.close()
    fake.fault(kind="length", by=-1, path="/v2")
    assert listing(client).body == b"["


@pytest.mark.parametrize("after", [False, True])
def test_a_drop_before_or_after_it_was_carried_out(fake, client, after):
    boxes = len(listing(client).json())
    fake.fault(kind="drop", path="/v2", method="POST", after=after, reset=after)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        client.ask("POST", "/v2/sandboxes", {"templateID": "base"})
    client.http.close()
    assert len(listing(client).json()) == boxes + after


def test_delays_drips_and_silence(fake, client):
    fake.fault(kind="delay", ms=200, path="/v2")
    before = time.monotonic()
    listing(client)
    assert time.monotonic() - before >= 0.2
    fake.fault(kind="drip", step=50, ms=1, path="/health")
    assert client.ask("GET", "/health").body == b"Health check successful"
    fake.fault(kind="hang", path="/v2")
    with Client(fake.url, client.headers, timeout=0.5) as short, pytest.raises(TimeoutError):
        listing(short)


def test_a_service_far_away(fake):
    fake.set(rtt_ms=150)
    try:
        before = time.monotonic()
        with Client(fake.url, {"X-API-Key": fake.environ["E2B_API_KEY"]}) as far:
            listing(far)
            listing(far)
        assert time.monotonic() - before >= 0.45  # connect, and two requests
    finally:
        fake.set(rtt_ms=0)


def test_an_upgraded_connection_is_as_far_away():
    """Each way takes half of the round trip; all comes, in order, however much is on the way."""
    mine, theirs = socket.socketpair()
    near = further(theirs, lambda: 0.2)
    before = time.monotonic()
    mine.sendall(b"x")
    assert near.recv(10) == b"x" and time.monotonic() - before >= 0.1
    near.sendall(b"y")
    assert mine.recv(10) == b"y" and time.monotonic() - before >= 0.2
    data = random.Random(1).randbytes(8 << 20)
    sender = threading.Thread(target=lambda: (near.sendall(data), near.close()))
    sender.start()
    with mine, mine.makefile("rb") as said:
        assert said.read() == data
    sender.join()


def test_endless_bodies_and_garbage(fake, client):
    fake.fault(kind="endless", body="x" * 1000, limit=50000, path="/v2")
    assert len(listing(client).body) == 50000
    fake.fault(kind="garbage", body="SSH-2.0-x\r\n", path="/v2")
    with pytest.raises(http.client.BadStatusLine):
        listing(client)


def test_the_journal_knows_what_was_asked(fake, client):
    mark = fake.mark()
    client.ask("GET", "/sandboxes/inone?x=1", headers={"X-Seen": "yes"})
    entry, = fake.journal("inone", since=mark)
    assert entry.header("x-seen") == "yes" and entry.status == 404
    client.ask("GET", "/health")
    assert [each.conn for each in fake.journal(since=mark)] == [entry.conn] * 2
    assert fake.problems() == ["GET /sandboxes/inone?x=1: query parameter x is not in the description"]
