# SPDX-License-Identifier: Apache-2.0
"""The server's side of the Connect protocol with JSON messages, as connect-go speaks it."""

import base64
import binascii
import gzip
import json
import re
import struct

from .gostyle import dumps, is_utf8, utf8
from .http import Reply

STATUS = {"canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504,
          "not_found": 404, "already_exists": 409, "permission_denied": 403,
          "resource_exhausted": 429, "failed_precondition": 400, "aborted": 409,
          "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500,
          "unauthenticated": 401}
STREAM = "application/connect+json"
UNARY = "application/json"
ENVELOPE_MAX = 64 << 20


class ConnectError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message

    def value(self):
        return {"code": self.code, "message": utf8(self.message)}


# -- messages

class Messages:
    """Descriptors: {message: {field: type}}; a type is string bool uint32 int64 bytes map,
    `enum:A,B`, a message's name, or one of these after `*` for a repeated field."""

    def __init__(self, table):
        self.table = table

    def parse(self, name, value, unknown, where=""):
        """The message with its fields in lowerCamelCase; bytes decoded. ConnectError if it is none."""
        if not isinstance(value, dict):
            raise self._bad(where or name, value)
        fields = {self._camel(key): kind for key, kind in self.table[name].items()}
        parsed = {}
        for key, item in value.items():
            camel = self._camel(key)
            if camel not in fields:
                unknown.append("%s has no field %s" % (name, key))
            elif item is not None:
                if camel in parsed:
                    raise self._bad(where + key, item)
                parsed[camel] = self._one(fields[camel], item, unknown, where + camel + ".")
        return parsed

    @staticmethod
    def _camel(name):
        return re.sub(r"_(\w)", lambda match: match[1].upper(), name)

    @staticmethod
    def _bad(where, value):
        return ConnectError("invalid_argument", "unmarshal message: proto: invalid value for %s: %s" % (
            where.rstrip("."), json.dumps(value)[:100]))

    def _one(self, kind, value, unknown, where):
        if kind.startswith("*"):
            if not isinstance(value, list):
                raise self._bad(where, value)
            return [self._one(kind[1:], each, unknown, where) for each in value]
        if kind == "map":
            if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
                raise self._bad(where, value)
            return value
        if kind in self.table:
            return self.parse(kind, value, unknown, where)
        if kind.startswith("enum:"):
            return value if isinstance(value, (str, int)) else self._raise(where, value)
        if kind == "bytes":
            return self._bytes(where, value)
        if kind == "uint32":
            if isinstance(value, str) and value.isdigit():
                value = int(value)
            good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
        elif kind == "bool":
            good = isinstance(value, bool)
        else:
            good = isinstance(value, str) and is_utf8(value)
        return value if good else self._raise(where, value)

    def _raise(self, where, value):
        raise self._bad(where, value)

    def _bytes(self, where, value):
        if not isinstance(value, str):
            raise self._bad(where, value)
        text = value.replace("-", "+").replace("_", "/").rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise self._bad(where, value) from None


def encode(data):
    """bytes in an answer."""
    return base64.b64encode(data).decode()


# -- one message for one

def deadline_ms(request):
    """Connect-Timeout-Ms, or None."""
    text = request.headers.get("Connect-Timeout-Ms")
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,10}", text):
        raise ConnectError("invalid_argument", "protocol error: invalid timeout %r" % text)
    return int(text)


def _check_version(request):
    version = request.headers.get("Connect-Protocol-Version", "1")
    if version != "1":
        raise ConnectError("invalid_argument",
                           'connect-protocol-version must be "1": got "%s"' % version)


def _parse(data):
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConnectError("invalid_argument", "unmarshal message: proto: invalid UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConnectError("invalid_argument", "unmarshal message: proto: syntax error: %s" % error) from None


def error_reply(error):
    return Reply(STATUS[error.code], [("Content-Type", UNARY)], dumps(error.value()))


def wrong_type(kind):
    return Reply(415, [("Accept-Post", kind)])


def unary(request, call):
    """Answer by call(message) -> message."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != UNARY:
        return wrong_type(UNARY)
    try:
        _check_version(request)
        deadline_ms(request)
        data = request.body.read_all(ENVELOPE_MAX)
        if request.headers.get("Content-Encoding", "identity") == "gzip":
            data = gzip.decompress(data)
        if not data:
            raise ConnectError("invalid_argument", "zero-length payload is not a valid JSON object")
        value = call(_parse(data))
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if not is_utf8(body):
            raise ConnectError("internal", "marshal message: string field contains invalid UTF-8")
    except ConnectError as error:
        return error_reply(error)
    headers, body = [("Content-Type", UNARY)], body.encode()
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers.append(("Content-Encoding", "gzip"))
        body = gzip.compress(body, 1)
    return Reply(200, headers, body)


# -- streams

def _exactly(body, size):
    data = b""
    while len(data) < size:
        piece = body.read(size - len(data))
        if not piece:
            break
        data += piece
    return data


def envelopes(request):
    """The messages of a request, as they come."""
    while True:
        head = _exactly(request.body, 5)
        if not head:
            return
        if len(head) < 5:
            raise ConnectError("invalid_argument", "protocol error: incomplete envelope: unexpected EOF")
        flags, size = struct.unpack(">BI", head)
        if size > ENVELOPE_MAX:
            raise ConnectError("resource_exhausted", "message size %d is larger than configured max" % size)
        data = _exactly(request.body, size)
        if len(data) < size:
            raise ConnectError("invalid_argument",
                               "protocol error: promised %d bytes in enveloped message, got %d bytes" %
                               (size, len(data)))
        if flags & 2:
            return
        if flags & 1:
            data = gzip.decompress(data)
        yield _parse(data)


def first_message(request):
    """The one message of a server stream's request."""
    _check_version(request)
    for message in envelopes(request):
        return message
    raise ConnectError("unimplemented", "unary request has zero messages")


def stream(request, events):
    """Answer by what events() yields; ConnectError ends the stream with that error."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != STREAM:
        return wrong_type(STREAM)
    packed = "gzip" in request.headers.get("Connect-Accept-Encoding", "")

    def envelope(flags, value):
        data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        if packed:
            flags, data = flags | 1, gzip.compress(data, 1)
        return struct.pack(">BI", flags, len(data)) + data

    def body():
        source = events()
        try:
            for message in source:
                yield envelope(0, message)
            end = {}
        except ConnectError as error:
            end = {"error": error.value()}
        finally:
            source.close()
        yield envelope(2, end)
    headers = [("Content-Type", STREAM), ("Connect-Accept-Encoding", "gzip")]
    if packed:
        headers.append(("Connect-Content-Encoding", "gzip"))
    return Reply(200, headers, body())
