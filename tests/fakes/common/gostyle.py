# SPDX-License-Identifier: Apache-2.0
"""How programs in Go say things: modes, errors, times, JSON. The daemons of all three are Go."""

import json
import os
import stat
import time

_KINDS = {stat.S_IFDIR: "d", stat.S_IFLNK: "L", stat.S_IFBLK: "D", stat.S_IFCHR: "Dc",
          stat.S_IFIFO: "p", stat.S_IFSOCK: "S"}
_ORDER = "dalTLDpSugct"


def mode_text(mode):
    """Go's FileMode.String() of an st_mode."""
    letters = _KINDS.get(stat.S_IFMT(mode), "")
    letters += "u" if mode & stat.S_ISUID else ""
    letters += "g" if mode & stat.S_ISGID else ""
    letters += "t" if mode & stat.S_ISVTX else ""
    letters = "".join(letter for letter in _ORDER if letter in letters) or "-"
    return letters + "".join(letter if mode >> (8 - at) & 1 else "-"
                             for at, letter in enumerate("rwxrwxrwx"))


def error_text(number):
    """The words that Go has for an errno."""
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def path_error(what, path, error):
    """`open /x: no such file or directory`."""
    return "%s %s: %s" % (what, path, error_text(error.errno))


def time_nano(ns, zone="Z"):
    """RFC 3339 in UTC, with as many digits of a fraction as it needs."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    fraction = ("%09d" % (ns % 10**9)).rstrip("0")
    return text + ("." + fraction if fraction else "") + zone


def time_proto(ns):
    """RFC 3339 as protobuf's JSON has it: 0, 3, 6 or 9 digits."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    fraction = "%09d" % (ns % 10**9)
    for digits in (0, 3, 6, 9):
        if int(fraction[digits:] or "0") == 0:
            break
    return text + ("." + fraction[:digits] if digits else "") + "Z"


def utf8(text):
    """A file name with what is no UTF-8 replaced, as Go's encoder does."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_utf8(text):
    try:
        text.encode("utf-8")
        return True
    except UnicodeEncodeError:
        return False


def dumps(value):
    """encoding/json: < > & escaped, nothing else that UTF-8 can hold."""
    text = utf8(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    for letter in "<>&\u2028\u2029":
        if letter in text:
            text = text.replace(letter, "\\u%04x" % ord(letter))
    return text.encode()
