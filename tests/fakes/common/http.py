# SPDX-License-Identifier: Apache-2.0
"""A threaded HTTP/1.1 server: one thread a connection, kept alive, streaming both ways.

A Server hands each Request to one function, which returns a Reply or raises Answer. Whatever a
Fault (faults.py) says is done to the request or to the bytes that leave. Heads are bounded; a body
is read as the handler asks for it, and what it leaves is drained up to 256 KiB, as Go's server does.
"""

import contextlib
import email.utils
import os
import select
import socket
import struct
import threading
import time
import traceback
from urllib.parse import unquote_to_bytes

from .far import further
from .root import Gone

HEAD_MAX = 256 << 10  # the head of a request: long paths are tests' business
DRAIN_MAX = 256 << 10
PIECE = 256 << 10
REASONS = {
    100: "Continue", 101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted",
    204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    415: "Unsupported Media Type", 416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity", 429: "Too Many Requests", 499: "Client Closed Request",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 507: "Insufficient Storage"}


class Closed(Exception):
    """The other end is gone, or what it sends makes no sense: the connection ends."""


class Answer(Exception):
    """Raised by a handler: this reply, now."""

    def __init__(self, reply):
        super().__init__(reply.status)
        self.reply = reply


class FilePart:
    """A body out of an open file: `size` bytes from `offset`. It owns the descriptor."""

    def __init__(self, fd, offset, size):
        self.fd, self.offset, self.size = fd, offset, size

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Reply:
    """status, headers as pairs, and a body: bytes, a FilePart, or an iterator (sent chunked).

    length: a Content-Length to announce whatever the body is. upgrade: called with the connection
    after the head (a WebSocket). close: end the connection afterwards.
    """

    def __init__(self, status=200, headers=(), body=b"", length=None, upgrade=None, close=False):
        self.status = status
        self.headers = list(headers)
        self.body = body
        self.length = length
        self.upgrade = upgrade
        self.close = close

    def done(self):
        """The body's own end, whether it was sent or not."""
        if hasattr(self.body, "close"):
            self.body.close()


class Headers:
    """Header pairs as they came; names compare without case."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.first = {}
        for name, value in pairs:
            self.first.setdefault(name.lower(), value)

    def get(self, name, default=None):
        return self.first.get(name.lower(), default)

    def __contains__(self, name):
        return name.lower() in self.first


class Body:
    """The body of a request, read as it is asked for. `kept` is its beginning, for the journal."""

    KEEP = 64 << 10

    def __init__(self, conn, headers):
        self.conn = conn
        self.chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = headers.get("Content-Length", "0")
        if not length.isdigit():
            raise Closed("Content-Length: " + length)
        self.left = 0 if self.chunked else int(length)
        self.more = self.chunked
        self.wants_continue = headers.get("Expect", "").lower() == "100-continue"
        self.kept = bytearray()
        self.size = 0
        self.cut_at = None  # a fault: the connection breaks after so many bytes

    def read(self, size=PIECE):
        """Up to `size` bytes, b"" at the end."""
        if self.wants_continue:
            self.wants_continue = False
            self.conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.cut_at is not None:
            if self.size >= self.cut_at:
                raise Closed("a fault: cut after %d bytes of the request" % self.size)
            size = min(size, self.cut_at - self.size)
        if self.more and self.left == 0:
            self._next_chunk()
        if self.left == 0:
            return b""
        data = self.conn.read(min(size, self.left))
        self.left -= len(data)
        if self.more and self.left == 0:
            self.conn.line()
        if len(self.kept) < self.KEEP:
            self.kept += data[:self.KEEP - len(self.kept)]
        self.size += len(data)
        return data

    def _next_chunk(self):
        try:
            self.left = int(self.conn.line().split(b";")[0], 16)
        except ValueError:
            raise Closed("a bad chunk") from None
        if self.left == 0:
            self.more = False
            while self.conn.line():
                pass

    def read_all(self, limit=64 << 20):
        """All of it; 400 beyond the limit."""
        pieces = []
        while True:
            data = self.read()
            if not data:
                return b"".join(pieces)
            pieces.append(data)
            if self.size > limit:
                raise Answer(Reply(400, body=b"request body too large", close=True))

    def is_unasked(self):
        """The client still waits for our word before it sends the body."""
        return self.wants_continue and bool(self.left or self.more)

    def is_long(self):
        """Too much is left: as Go's server, say that the connection ends."""
        return not self.more and self.left > DRAIN_MAX

    def drain(self):
        """False when too much is left to read it for nothing."""
        if self.is_unasked():
            return True
        at = self.size
        while self.left or self.more:
            if self.size - at > DRAIN_MAX or (not self.more and self.left > DRAIN_MAX):
                return False
            self.read()
        return True


class Request:
    """One request. `path` and `query` are as they came, percent signs and all."""

    def __init__(self, method, target, headers, body, conn):
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = body
        self.conn = conn
        self.entry = None  # its line in the journal
        self._args = None

    def args(self):
        """The query's (name, value) pairs; bytes that are no UTF-8 come as surrogates."""
        if self._args is None:
            self._args = [tuple(unescape(word.replace("+", " ")) for word in pair.partition("=")[::2])
                          for pair in self.query.split("&") if pair]
        return self._args

    def arg(self, name, default=None):
        """The first value of that name."""
        return next((value for key, value in self.args() if key == name), default)


def unescape(text):
    """Percent-decoded, as a file name of this machine."""
    return os.fsdecode(unquote_to_bytes(text))


class Connection:
    """A socket and what was read ahead of it."""

    def __init__(self, sock, number):
        self.sock = sock
        self.number = number
        self.buf = bytearray()

    def fill(self):
        try:
            data = self.sock.recv(PIECE)
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("closed by the client")
        self.buf += data

    def read(self, size):
        """At least one byte, at most `size`."""
        if not self.buf:
            try:
                data = self.sock.recv(size)
            except OSError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("closed by the client")
            return data
        data = bytes(self.buf[:size])
        del self.buf[:size]
        return data

    def exactly(self, size):
        """So many bytes, for WebSocket frames."""
        while len(self.buf) < size:
            self.fill()
        data = bytes(self.buf[:size])
        del self.buf[:size]
        return data

    def line(self):
        while True:
            at = self.buf.find(b"\r\n")
            if at >= 0:
                line = bytes(self.buf[:at])
                del self.buf[:at + 2]
                return line
            if len(self.buf) > HEAD_MAX:
                raise Closed("an endless line")
            self.fill()

    def request(self):
        """The next request, or None when the client has closed between two."""
        while True:
            at = self.buf.find(b"\r\n\r\n")
            if at >= 0:
                break
            if len(self.buf) > HEAD_MAX:
                raise Closed("an endless head")
            try:
                self.fill()
            except Closed:
                if not self.buf:
                    return None
                raise
        lines = bytes(self.buf[:at]).decode("latin-1").split("\r\n")
        del self.buf[:at + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Closed("no request: " + lines[0][:80])
        pairs = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise Closed("no header: " + line[:80])
            pairs.append((name, value.strip()))
        headers = Headers(pairs)
        return Request(words[0], words[1], headers, Body(self, headers), self)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Closed(str(error)) from None

    def linger(self):
        """The client still sends: let it read our answer before the connection is reset."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(10)
            while self.sock.recv(PIECE):
                pass

    def reset(self):
        """The next close tells the client so by an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def head_of(reply, length):
    """The bytes of a reply's head; length None means chunked, -1 none at all."""
    lines = ["HTTP/1.1 %d %s" % (reply.status, REASONS.get(reply.status, "Status"))]
    lines += ["%s: %s" % pair for pair in reply.headers]
    lines.append("Date: " + email.utils.formatdate(usegmt=True))
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    elif length >= 0:
        lines.append("Content-Length: %d" % length)
    if reply.close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def send_reply(request, reply, fault):
    """All of a reply, through the fault's filter if there is one. Returns the body bytes sent."""
    conn = request.conn
    send = fault.sender(conn) if fault else conn.send
    body, sent = reply.body, 0
    bodyless = request.method == "HEAD" or reply.status in (101, 204, 304)
    if isinstance(body, bytes):
        length = len(body)
    elif isinstance(body, FilePart):
        length = body.size
    else:
        length = None
    if reply.length is not None:
        length = reply.length
    if fault and length is not None:
        length = fault.length(length)
    head = head_of(reply, -1 if bodyless else length)
    if fault:
        fault.send_head(conn, head)
    elif isinstance(body, bytes):
        head += b"" if bodyless else body
        conn.send(head)
        return len(body)
    else:
        conn.send(head)
    if bodyless:
        return 0
    if isinstance(body, bytes):
        send(body)
        return len(body)
    if isinstance(body, FilePart):
        return send_file(conn, body, None if not fault else send)
    for piece in body:
        if piece:
            send(b"%x\r\n%b\r\n" % (len(piece), piece) if length is None else piece)
            sent += len(piece)
    if length is None:
        send(b"0\r\n\r\n")
    return sent


def send_file(conn, part, send=None):
    """The bytes of a FilePart. A file that has shrunk meanwhile ends the connection."""
    left, offset = part.size, part.offset
    while left:
        try:
            if send:
                data = os.pread(part.fd, min(PIECE, left), offset)
                send(data)
                count = len(data)
            else:
                count = os.sendfile(conn.sock.fileno(), part.fd, offset, min(left, 1 << 24))
        except BlockingIOError:
            count = wait_writable(conn)
            continue
        except OSError as error:
            raise Closed(str(error)) from None
        if count == 0:
            raise Closed("the file has shrunk")
        left -= count
        offset += count
    return part.size


def wait_writable(conn):
    """A socket with a time-out is one that doesn't block: wait for room as send() would."""
    poll, seconds = select.poll(), conn.sock.gettimeout()  # select() knows no more than 1024 descriptors
    poll.register(conn.sock, select.POLLOUT)
    if not poll.poll(None if seconds is None else seconds * 1000):
        raise Closed("the client doesn't read")
    return 0


class Server:
    """Listens on 127.0.0.1 and answers by `handle(request) -> Reply`.

    idle: seconds after which a silent connection is closed. name: what the journal calls it. One
    that isn't open has its address, and refuses connections until open(). rtt(): seconds that the
    way here and back takes, once for a new connection and once for each request, and after an
    upgrade as far.py says.
    """

    def __init__(self, name, handle, journal, faults, port=0, idle=70, is_open=True, rtt=lambda: 0):
        self.name, self.handle = name, handle
        self.journal, self.faults = journal, faults
        self.idle, self.rtt = idle, rtt
        self.ended = threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.address = "127.0.0.1:%d" % self.port
        self.url = "http://" + self.address
        self._count = 0
        self.is_open = False
        if is_open:
            self.open()

    def open(self):
        self.is_open = True
        self.listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.ended.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                self.ended.wait(0.05)  # not for good, unless that is the end
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self.idle)
            self._count += 1
            conn = Connection(sock, self._count)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def stop(self):
        self.ended.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # a close alone lets the accept that waits live on
        self.listener.close()

    def _serve(self, conn):
        try:
            self.ended.wait(self.rtt())
            while not self.ended.is_set():
                request = conn.request()
                if request is None:
                    break
                if request.path[:3] != "/-/":
                    self.ended.wait(self.rtt())
                if self.ended.is_set():
                    break  # a connection that was kept doesn't outlive its server
                if not self._one(request):
                    break
        except Closed:
            pass
        finally:
            with contextlib.suppress(OSError):
                conn.sock.close()

    def _one(self, request):
        """Answer one request. False: the connection ends."""
        entry = self.journal.begin(self.name, request)
        request.entry = entry
        fault = self.faults.take(self.name, request, entry)
        reply = None
        try:
            reply = self._reply(request, fault)
            entry["status"] = reply.status
            if fault:
                fault.after(request, reply)
            wants_close = request.headers.get("Connection", "").lower() == "close"
            reply.close = reply.close or wants_close or request.body.is_unasked() or request.body.is_long()
            entry["sent"] = send_reply(request, reply, fault)
            if reply.upgrade:
                if self.rtt() > 0:
                    request.conn.sock = further(request.conn.sock, self.rtt)
                reply.upgrade(request.conn)
                return False
            if not request.body.drain():
                request.conn.linger()
                return False
            return not reply.close
        except Closed as error:
            entry["broken"] = str(error)
            raise
        except Gone as error:  # while a body was made, or after an upgrade
            entry["broken"] = str(error)
            raise Closed(str(error)) from None
        finally:
            if reply:
                reply.done()
            self.journal.end(entry, request)

    def _reply(self, request, fault):
        try:
            if fault:
                instead = fault.before(request, self.ended)
                if instead:
                    return instead
            return self.handle(request)
        except Answer as answer:
            return answer.reply
        except Closed:
            raise
        except Gone as error:  # while it was asked: nobody is there to answer
            raise Closed(str(error)) from None
        except Exception:  # ours: it must be seen, and the client must get an answer
            request.entry["crash"] = traceback.format_exc()
            self.journal.crashed(request.entry["crash"])
            return Reply(500, body=b"the stand-in has failed\n")


def now_ms():
    return int(time.time() * 1000)
