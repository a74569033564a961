# SPDX-License-Identifier: Apache-2.0
"""multipart/form-data, read as it comes: a part's content is never held whole."""

import email.message
import email.policy


HEADERS_MAX = 64 << 10


class Malformed(Exception):
    """The body is no multipart/form-data."""


def _parameters(value):
    """(main value, {parameter: text}) of a header such as Content-Disposition."""
    message = email.message.Message(policy=email.policy.compat32)
    message["Content-Disposition"] = value
    pairs = message.get_params(header="Content-Disposition", unquote=True) or []
    found = {}
    for name, text in pairs[1:]:
        if isinstance(text, tuple):  # RFC 2231
            text = text[2]
        found[name.lower()] = text
    return (pairs[0][0].lower() if pairs else ""), found


def boundary_of(content_type):
    main, parameters = _parameters(content_type or "")
    if main != "multipart/form-data" or not parameters.get("boundary"):
        raise Malformed("request Content-Type isn't multipart/form-data")
    return parameters["boundary"].encode()


class Part:
    """name, filename (None if it has none), headers; read() until b""."""

    def __init__(self, reader, headers):
        self.reader = reader
        self.headers = headers
        _, found = _parameters(headers.get("content-disposition", ""))
        self.name, self.filename = _text(found.get("name")), _text(found.get("filename"))
        self.done = False

    def read(self):
        return b"" if self.done else self.reader.content(self)

    def read_all(self, limit=10 << 20):
        data = bytearray()
        while piece := self.read():
            data += piece
            if len(data) > limit:
                raise Malformed("a part is too large")
        return bytes(data)


def _text(value):
    """Header bytes, which http.py reads as latin-1, are UTF-8 here."""
    return None if value is None else value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


class Reader:
    """The parts of a body, one after the other."""

    def __init__(self, body, boundary):
        self.body = body
        self.mark = b"\r\n--" + boundary
        self.buf = bytearray(b"\r\n")  # so that the first boundary looks like all others
        self.ended = False

    def _fill(self):
        data = self.body.read()
        if not data:
            raise Malformed("unexpected EOF")
        self.buf += data

    def content(self, part):
        """The next piece of a part's content."""
        while True:
            at = self.buf.find(self.mark)
            if at > 0:
                piece = bytes(self.buf[:at])
                del self.buf[:at]
                return piece
            if at == 0:
                part.done = True
                return b""
            keep = len(self.mark) - 1
            if len(self.buf) > keep:
                piece = bytes(self.buf[:-keep])
                del self.buf[:-keep]
                return piece
            self._fill()

    def _skip_to(self, text, limit):
        while True:
            at = self.buf.find(text)
            if at >= 0:
                found = bytes(self.buf[:at])
                del self.buf[:at + len(text)]
                return found
            if len(self.buf) > limit:
                raise Malformed("the headers of a part are too large")
            self._fill()

    def parts(self):
        """Each part in turn; what is left of one is skipped when the next is asked for."""
        while True:
            self._skip_to(self.mark, 16 << 20)
            while len(self.buf) < 2:
                self._fill()
            if self.buf[:2] == b"--":
                return
            self._skip_to(b"\r\n", HEADERS_MAX)
            headers = {}
            while line := self._skip_to(b"\r\n", HEADERS_MAX).decode("latin-1"):
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            part = Part(self, headers)
            yield part
            while part.read():
                pass


def parts(request):
    """The parts of a request; raises Malformed."""
    return Reader(request.body, boundary_of(request.headers.get("Content-Type"))).parts()
