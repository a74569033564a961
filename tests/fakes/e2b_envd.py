# SPDX-License-Identifier: Apache-2.0
"""envd, the daemon in each E2B sandbox, and the proxy before it: who may ask, and whom."""

import base64
import binascii
import hashlib
import json
import os
import re
import time

from common import gostyle
from common.connect import ConnectError
from common.http import Answer, Reply
from common.root import clean

from e2b_files import Files, plain
from e2b_process import Processes
from e2b_watch import Watchers

PORT = 49983
CONTROL = ("/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw")


def version_of(text):
    return tuple(int(each) for each in re.findall(r"\d+", text)[:3])


def proxy_error(status, box_id, message, **more):
    value = {"sandboxId": box_id, "message": message, "code": status, **more}
    return Reply(status, [("Content-Type", "application/json; charset=utf-8")], json.dumps(value).encode())


class Envd:
    """One sandbox's."""

    def __init__(self, service, box):
        self.journal = service.journal
        self.check = service.check_envd
        self.box = box
        self.version = version_of(box.envd_version)
        self.processes = Processes(self)
        self.files = Files(self)
        self.watchers = Watchers(self)

    def since(self, version):
        """Is it of that version, or newer?"""
        return self.version >= version_of(version)

    # -- users and paths

    def named(self, name):
        """The User, None if there is none; "" is the template's own."""
        users = self.box.sandbox.users
        return users.get(name or ("user" if self.since("0.4.0") else ""))

    def user(self, request):
        """Whom Basic authentication names."""
        text = request.headers.get("Authorization", "")
        name = ""
        if text:
            kind, _, code = text.partition(" ")
            try:
                name = base64.b64decode(code, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                kind = ""
            if kind.lower() != "basic":
                raise ConnectError("unauthenticated", "invalid authorization header")
        user = self.named(name)
        if user is None:
            raise ConnectError("unauthenticated", "invalid username: '%s'" % name)
        return user

    def resolve(self, path, user):
        """An absolute path: ~ is the home, and so is what relative paths begin at."""
        if path == "~" or path.startswith("~/"):
            return clean(user.home + path[1:])
        if path.startswith("~"):
            raise ConnectError("invalid_argument", "cannot expand user-specific home dir")
        if not path.startswith("/"):
            return clean(user.home + "/" + path)
        # `..` is not cleaned away in what it echoes; the kernel resolves it
        return "/" + re.sub("/+", "/", path).strip("/")

    # -- requests

    def handle(self, request):
        if request.path in CONTROL:
            return Reply(404, body=b"404 page not found\n")
        if request.path == "/health":
            return Reply(204, [("Cache-Control", "no-store")])
        if not self._is_allowed(request):
            return Reply(401, [("Content-Type", "application/json")], gostyle.dumps(
                {"code": 401, "message": "unauthorized access, please provide a valid access token or "
                 "method signing if supported"}))
        match = re.fullmatch(r"/(process\.Process|filesystem\.Filesystem)/(\w+)", request.path)
        if match:
            return self._rpc(match[1], match[2], request)
        self.check(request)
        if request.path == "/files":
            return self.files.http_files(request)
        if request.path == "/files/compose" and request.method == "POST" and self.since("0.5.5"):
            return self.files.compose(request)
        if request.path == "/envs" and request.method == "GET":
            return Reply(200, [("Content-Type", "application/json")], gostyle.dumps(self.box.env))
        if request.path == "/metrics" and request.method == "GET":
            return Reply(200, [("Content-Type", "application/json")], gostyle.dumps(self._metrics()))
        return Reply(404, [("Content-Type", "text/plain; charset=utf-8")], b"404 page not found\n")

    def _rpc(self, service, method, request):
        if request.method != "POST":
            return Reply(405, [("Allow", "POST")])
        if service == "process.Process":
            reply = self.processes.call(method, request)
        else:
            reply = self.files.call(method, request) or self.watchers.call(method, request)
        return reply or Reply(404, [("Content-Type", "text/plain; charset=utf-8")], b"404 page not found\n")

    def _is_allowed(self, request):
        token = self.box.token
        if not token:
            return True
        given = request.headers.get("X-Access-Token")
        if given is not None:
            return given == token
        if request.path != "/files" or not request.arg("signature"):
            return False
        operation = "read" if request.method == "GET" else "write"
        text = "%s:%s:%s:%s" % (request.arg("path", ""), operation, request.arg("username", ""), token)
        until = request.arg("signature_expiration")
        if until is not None:
            text += ":" + until
        digest = hashlib.sha256(os.fsencode(text)).digest()
        wanted = "v1_" + base64.b64encode(digest).decode().rstrip("=")
        if request.arg("signature") != wanted:
            return False
        if until is not None and int(until) < time.time():
            plain(401, "signature is already expired")
        return True

    def _metrics(self):
        with self.box.sandbox.root.handle("/") as fd:
            disk = os.statvfs("/proc/self/fd/%d" % fd)
        total = disk.f_blocks * disk.f_frsize
        return {"ts": int(time.time()), "cpu_count": 2, "cpu_used_pct": 1.5, "mem_total": 512 << 20,
                "mem_used": 100 << 20, "mem_cache": 50 << 20, "disk_used": total - disk.f_bfree * disk.f_frsize,
                "disk_total": total}


class Edge:
    """The proxy that all traffic to sandboxes comes through."""

    def __init__(self, service):
        self.service = service

    def handle(self, request):
        box_id, port = self._whom(request)
        if port != PORT:
            if self.service.running(box_id) is None:
                return proxy_error(502, box_id, "The sandbox was not found")
            return proxy_error(502, box_id, "The sandbox is running but port is not open", port=port)
        box = self.service.running(box_id, wake=True)
        if box is None:
            return proxy_error(502, box_id, "The sandbox was not found")
        if box.moving:
            return proxy_error(409, box_id, "The sandbox is still transitioning, please retry")
        return box.envd.handle(request)

    @staticmethod
    def _whom(request):
        """(sandbox, port) by the headers, else by the host's name."""
        box_id, port = request.headers.get("E2b-Sandbox-Id"), request.headers.get("E2b-Sandbox-Port")
        if box_id is not None or port is not None:
            if not box_id or not port or not port.isdigit():
                raise Answer(Reply(400, [("Content-Type", "text/plain; charset=utf-8")],
                                   b"missing header\n"))
            return box_id.partition("-")[0], int(port)
        match = re.match(r"(\d+)-([a-z0-9]+)(?:-[a-z0-9]+)?\.", request.headers.get("Host", ""))
        if not match:
            raise Answer(Reply(400, [("Content-Type", "text/plain; charset=utf-8")], b"invalid host\n"))
        return match[2], int(match[1])
