# SPDX-License-Identifier: Apache-2.0
"""How execd words its answers."""

from common import gostyle
from common.http import Answer, Reply


def json_answer(value, status=200):
    return Reply(status, [("Content-Type", "application/json; charset=utf-8")], gostyle.dumps(value))


def fail(status, code, message):
    raise Answer(json_answer({"code": code, "message": message}, status))


def runtime_error(what, path, error):
    """Almost every failure of a file: 500, and Go's text at the end."""
    if isinstance(error, FileNotFoundError):
        fail(404, "FILE_NOT_FOUND", "file not found. %s" % gostyle.path_error(what, path, error))
    fail(500, "RUNTIME_ERROR", "error accessing file: " + gostyle.path_error(what, path, error))
