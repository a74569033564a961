# SPDX-License-Identifier: Apache-2.0
"""The server's side of a WebSocket."""

import base64
import hashlib
import struct
import threading

from .http import Closed, Reply

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MESSAGE_MAX = 1 << 20


class WebSocket:
    """Messages on a connection that was upgraded. Sending is for any thread, receiving for one."""

    def __init__(self, conn):
        self.conn = conn
        self.lock = threading.Lock()
        self.closed = threading.Event()
        conn.sock.settimeout(None)

    def send(self, data, kind=BINARY):
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, size)
        elif size < 65536:
            head = struct.pack(">BBH", 0x80 | kind, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 127, size)
        with self.lock:
            if self.closed.is_set():
                raise Closed("the websocket is closed")
            self.conn.send(head + data)

    def text(self, text):
        self.send(text.encode(), TEXT)

    def close(self, code=1000, reason=b""):
        """Say so, once."""
        try:
            self.send(struct.pack(">H", code) + reason[:120], CLOSE)
        except Closed:
            pass
        self.closed.set()

    def receive(self):
        """(kind, bytes) of the next message; None at the end. Pings are answered here."""
        message, first = b"", None
        while True:
            try:
                final, kind, data = self._frame()
            except Closed:
                self.closed.set()
                return None
            if kind == PING:
                try:
                    self.send(data, PONG)
                except Closed:
                    self.closed.set()
                    return None
            elif kind == CLOSE:
                self.close(struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1000)
                return None
            elif kind != PONG:
                first = kind if first is None else first
                message += data
                if len(message) > MESSAGE_MAX:
                    self.close(1009)
                    return None
                if final:
                    return first, message

    def _frame(self):
        flags, size = self.conn.exactly(2)
        masked, size = size & 0x80, size & 0x7F
        if size == 126:
            size = struct.unpack(">H", self.conn.exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.conn.exactly(8))[0]
        if size > MESSAGE_MAX or not masked:
            raise Closed("a bad websocket frame")
        mask = self.conn.exactly(4)
        data = self.conn.exactly(size)
        key = (mask * (size // 4 + 1))[:size]
        data = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        return flags & 0x80, flags & 0xF, data

    def drain(self):
        """Take what comes, in a thread of its own, so that pings are answered and the end is seen."""
        def run():
            while self.receive():
                pass
        threading.Thread(target=run, daemon=True).start()


def is_wanted(request):
    return "websocket" in request.headers.get("Upgrade", "").lower()


def offered(request):
    """The subprotocols that the client offers."""
    return [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if word.strip()]


def upgrade(request, talk, protocol=None):
    """The Reply that upgrades; then talk(WebSocket), and the connection ends."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    if not is_wanted(request) or not key or request.headers.get("Sec-WebSocket-Version") != "13":
        return Reply(400, body=b"Bad Request")
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if protocol:
        headers.append(("Sec-WebSocket-Protocol", protocol))

    def run(conn):
        socket = WebSocket(conn)
        try:
            talk(socket)
        except Closed:
            pass
        finally:
            socket.close()
    return Reply(101, headers, upgrade=run)
