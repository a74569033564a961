# SPDX-License-Identifier: Apache-2.0
"""The way to a service that is far away, for connections that were upgraded.

A request is held up as a whole (http.py); after an upgrade both ends talk as they like. Here each piece arrives
half of a round trip after it was sent, none before another, and any number may be on the way.
"""

import collections
import contextlib
import socket
import threading
import time

PIECE = 256 << 10
ON_THE_WAY = 64 << 20  # bytes each way, however small their pieces are


class Way:
    """Pieces and when they arrive, in the order in which they were sent; an empty one is the end."""

    def __init__(self):
        self.changed = threading.Condition()
        self.pieces = collections.deque()
        self.size = 0

    def put(self, data, seconds):
        at = time.monotonic() + seconds
        with self.changed:
            self.changed.wait_for(lambda: self.size < ON_THE_WAY)
            self.pieces.append((at, data))
            self.size += len(data)
            self.changed.notify_all()

    def get(self):
        """The next piece, once it arrives."""
        with self.changed:
            self.changed.wait_for(lambda: self.pieces)
            at, data = self.pieces.popleft()
        time.sleep(max(0, at - time.monotonic()))
        with self.changed:
            self.size -= len(data)
            self.changed.notify_all()
        return data


def further(sock, rtt):
    """A socket that leads to `sock`'s other end, so much further away: rtt() is in seconds. Takes `sock`."""
    near, relay = socket.socketpair()
    sock.settimeout(None)
    for source, target in ((sock, relay), (relay, sock)):
        way = Way()
        threading.Thread(target=_take, args=(source, way, rtt), daemon=True).start()
        threading.Thread(target=_hand_on, args=(way, source, target), daemon=True).start()
    return near


def _take(source, way, rtt):
    """Put what comes on the way."""
    data = b"more"
    while data:
        try:
            data = source.recv(PIECE)
        except OSError:
            data = b""
        way.put(data, rtt() / 2)


def _hand_on(way, source, target):
    """Let the pieces arrive. Where nobody takes them any more, the sender is told so."""
    is_taken = True
    while data := way.get():
        if is_taken:
            try:
                target.sendall(data)
            except OSError:
                is_taken = False
                with contextlib.suppress(OSError):
                    source.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
