# SPDX-License-Identifier: Apache-2.0
"""A file as an answer, as Go's http.ServeContent gives it: ranges, dates, conditions."""

import email.utils
import os
import re
import stat

from .http import FilePart, Reply


def parse_range(text, size):
    """(first, count) of a Range header; None: ignore it; raises ValueError: 416.

    Several ranges are ignored here, which Go's server may do too.
    """
    if not text.startswith("bytes="):
        raise ValueError("invalid range")
    words = [word.strip() for word in text[6:].split(",")]
    if len(words) > 1:
        return None
    match = re.fullmatch(r"(\d*)-(\d*)", words[0])
    if not match or match[0] == "-":
        raise ValueError("invalid range")
    if not match[1]:
        count = min(int(match[2]), size)
        return size - count, count
    first = int(match[1])
    if first >= size:
        raise ValueError("invalid range: failed to overlap")
    if not match[2]:
        return first, size - first
    last = int(match[2])
    if last < first:
        raise ValueError("invalid range")
    return first, min(last, size - 1) - first + 1


def _unchanged(request, info):
    since = request.headers.get("If-Modified-Since")
    if not since or request.method not in ("GET", "HEAD"):
        return False
    try:
        return int(info.st_mtime) <= email.utils.parsedate_to_datetime(since).timestamp()
    except (TypeError, ValueError):
        return False


def guess_type(fd):
    """Enough of a guess at the content's type."""
    try:
        start = os.pread(fd, 512, 0)
    except OSError:
        return "application/octet-stream"
    texty = all(byte >= 32 or byte in b"\t\n\f\r\x1b" for byte in start)
    return "text/plain; charset=utf-8" if texty else "application/octet-stream"


def serve(request, fd, headers=(), kind=None):
    """A Reply with the file, or its range. It takes the descriptor over."""
    info = os.fstat(fd)
    size = info.st_size
    pairs = list(headers) + [("Accept-Ranges", "bytes"),
                             ("Last-Modified", email.utils.formatdate(int(info.st_mtime), usegmt=True))]
    if _unchanged(request, info):
        os.close(fd)
        return Reply(304, pairs)
    pairs.append(("Content-Type", kind or guess_type(fd)))
    wanted = request.headers.get("Range")
    condition = request.headers.get("If-Range")
    if wanted and condition and condition != dict(pairs)["Last-Modified"]:
        wanted = None
    if not wanted or size == 0:
        return Reply(200, pairs, FilePart(fd, 0, size))
    try:
        part = parse_range(wanted, size)
    except ValueError as error:
        os.close(fd)
        return Reply(416, [("Content-Range", "bytes */%d" % size),
                           ("Content-Type", "text/plain; charset=utf-8")], str(error).encode() + b"\n")
    if part is None:
        return Reply(200, pairs, FilePart(fd, 0, size))
    first, count = part
    pairs.append(("Content-Range", "bytes %d-%d/%d" % (first, first + count - 1, size)))
    return Reply(206, pairs, FilePart(fd, first, count))


def is_seekable(info):
    """What ServeContent can find the size of: /proc says it can, and can't."""
    return stat.S_ISREG(info.st_mode)
