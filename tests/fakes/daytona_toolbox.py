# SPDX-License-Identifier: Apache-2.0
"""The toolbox in each Daytona sandbox, the proxy and the runner before it: who may ask, and whom."""

import base64
import hashlib
import hmac
import json
import os
import re
import time

from common import gostyle
from common.http import Answer, Reply, Request
from common.identity import as_user
from common.root import clean
from common.sandbox import PATH
from common.service import Routes

from daytona_files import Files
from daytona_process import Execute
from daytona_pty import Ptys
from daytona_sessions import Sessions

REPLAY_MAX = 256 << 10
JSON = [("Content-Type", "application/json; charset=utf-8")]


def version_of(text):
    return tuple(int(each) for each in re.findall(r"\d+", text)[:3])


class Proxy:
    """{proxy}/toolbox/{id}/...; a sandbox that isn't started is the runner's or the proxy's to refuse."""

    def __init__(self, service):
        self.service = service

    def handle(self, request):
        match = re.match(r"/toolbox/([^/]+)(/.*)?$", request.path)
        if not match:
            return Reply(404, [("Content-Type", "text/plain")], b"404 page not found")
        with self.service.lock:
            box = self.service.boxes.get(match[1])
        self._check(request, box)
        if box.ended_at is not None or box.state == "destroying":
            # the authorisation is still cached, the container is gone
            return Reply(404, JSON, gostyle.dumps({
                "statusCode": 404, "message": "sandbox container not found: " + box.id, "code": "NOT_FOUND",
                "timestamp": gostyle.time_nano(time.time_ns()), "path": request.path, "method": request.method}))
        if box.state in ("archived", "archiving", "pending_build", "building_snapshot"):
            return Reply(400, JSON, gostyle.dumps({"statusCode": 400, "message": "failed to get runner info",
                                                   "code": "BAD_REQUEST"}))
        if box.state in ("stopped", "paused", "pausing", "error", "build_failed"):
            return Reply(400, JSON, gostyle.dumps({
                "statusCode": 400, "message": "bad request: no IP address found. Is the Sandbox started?",
                "code": "BAD_REQUEST"}))
        if box.state != "started":
            return Reply(502)
        if request.headers.get("X-Daytona-Skip-Last-Activity-Update", "").lower() != "true":
            box.active = time.time()
        request.path = match[2] or "/"
        return self._forward(request, box)

    def _check(self, request, box):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        preview = request.headers.get("X-Daytona-Preview-Token") or request.arg("DAYTONA_SANDBOX_AUTH_KEY")
        if box and (token == self.service.key or (preview and preview == box.preview)):
            return
        if box and self._is_signed(request, box):
            return
        raise Answer(Reply(401, JSON, gostyle.dumps({
            "statusCode": 401, "message": "unauthorized: authentication failed: Bearer token is invalid",
            "code": "UNAUTHORIZED"})))

    def _is_signed(self, request, box):
        path, until, given = (request.arg(key) for key in ("path", "expires", "signature"))
        if not given or not re.fullmatch(r"\d+", until or "") or not request.path.endswith(
                ("/files/download", "/files/upload-v2")):
            return False
        text = "v1:files:%s:%s:%s" % (request.method, path, until)
        digest = hmac.new(box.signing_key.encode(), os.fsencode(text), hashlib.sha256).digest()
        wanted = "v1_" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return given == wanted and (int(until) == 0 or int(until) > time.time())

    def _forward(self, request, box):
        """To the daemon; now and then a small request goes twice."""
        size = request.headers.get("Content-Length")
        twice = False
        with self.service.lock:
            if self.service.settings["replay"] > 0 and request.method == "POST" and size is not None and \
                    int(size) <= REPLAY_MAX:
                self.service.settings["replay"] -= 1
                twice = True
        if not twice:
            return box.toolbox.handle(request)
        data = request.body.read_all()
        first = Request(request.method, request.path + "?" + request.query, request.headers, Again(data), request.conn)
        first.entry = request.entry
        try:
            box.toolbox.handle(first).done()
        except Answer:
            pass
        request.body = Again(data, request.body)
        return box.toolbox.handle(request)


class Again:
    """A body that was read before."""

    def __init__(self, data, real=None):
        self.data, self.real = data, real
        self.size = len(data)
        self.kept = bytearray(data[:1 << 16])

    def read(self, size=1 << 18):
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def read_all(self, _limit=0):
        return self.read(len(self.data))

    def drain(self):
        return True

    def is_unasked(self):
        return False

    def is_long(self):
        return False


class Toolbox:
    """The daemon of one sandbox."""

    def __init__(self, service, box):
        self.service, self.box = service, box
        self.version = version_of(box.daemon)
        name = box.value.get("user") or "daytona"
        self.user = box.sandbox.users.get(name, box.sandbox.users["daytona"])
        self.work_dir = self.user.home
        self.env = {"PATH": PATH, "HOME": self.user.home, "USER": self.user.name, "SHELL": "/bin/bash",
                    "DAYTONA_SANDBOX_ID": box.id, **(box.value.get("env") or {})}
        files, sessions = Files(self), Sessions(self)
        rows = [("GET", "/version", self.say("version", "v" + box.daemon)),
                ("GET", "/work-dir", self.say("dir", self.work_dir)),
                ("GET", "/user-home-dir", self.say("dir", self.user.home)),
                ("POST", "/process/execute", Execute(self).run)]
        if self.since("0.196.0"):
            rows.append(("POST", "/env", self.change_env))
        if self.since("0.201.0"):
            rows.append(("GET", "/system/metrics", self.metrics))
        self.routes = Routes(*rows, *sessions.routes(), *Ptys(self).routes(), *files.routes())

    def since(self, version):
        return self.version == (0, 0, 0) or self.version >= version_of(version)

    @property
    def root(self):
        return self.box.sandbox.root

    def as_user(self):
        """File access as the daemon's own user."""
        return as_user(self.user.uid, self.user.gid)

    def handle(self, request):
        path = request.path
        if path in ("/files/",) and self.since("0.178.0"):
            path = "/files"
        handler, _ = self.routes.find(request.method, path)
        if handler is None and path == "/files":  # older ones know it by its slash only
            return Reply(301 if request.method == "GET" else 307, [
                ("Location", "/toolbox/%s/files/?%s" % (self.box.id, request.query))])
        if handler is None:
            return Reply(404, [("Content-Type", "text/plain")], b"404 page not found")
        if not path.endswith("/create-connect"):  # the description has no WebSockets
            self.service.check(request, self.service.toolbox_spec, {}, None)
        return handler(request)

    def say(self, key, value):
        return lambda request: Reply(200, JSON, gostyle.dumps({key: value}))

    def body(self, request):
        """The JSON of a body."""
        data = request.body.read_all()
        try:
            value = json.loads(data)
            if not isinstance(value, dict):
                raise ValueError("json: cannot unmarshal into Go value")
        except (ValueError, RecursionError) as error:
            self.fail(request, 400, "invalid request body: %s" % error, "INVALID_REQUEST_BODY")
        broken = self.service.check(request, self.service.toolbox_spec, value)
        if broken:
            self.fail(request, 400, "invalid request body: " + broken[0], "INVALID_REQUEST_BODY")
        return value

    def arg(self, request, name):
        """A query value; a raw `;` makes Go drop its pair."""
        if ";" in request.query:
            return ""
        return request.arg(name) or ""

    def resolve(self, path):
        return clean(path if path.startswith("/") else self.work_dir + "/" + path)

    def fail(self, request, status, message, code=None, **more):
        """An error of processes and sessions."""
        code = code or {400: "BAD_REQUEST", 404: "NOT_FOUND", 408: "REQUEST_TIMEOUT", 409: "CONFLICT",
                        410: "GONE", 500: "INTERNAL_SERVER_ERROR"}[status]
        value = {"statusCode": status, "message": message, "code": code, "path": request.path,
                 "timestamp": gostyle.time_nano(time.time_ns()), "method": request.method, **more}
        if self.since("0.201.0"):
            value["source"] = "DAYTONA_DAEMON"
        raise Answer(Reply(status, JSON, gostyle.dumps(value)))

    def change_env(self, request):
        value = self.body(request)
        self.env.update(value.get("set") or {})
        for name in value.get("unset") or []:
            self.env.pop(name, None)
        return Reply(200)

    def metrics(self, _request):
        with self.root.handle("/") as fd:
            disk = os.statvfs("/proc/self/fd/%d" % fd)
        total = disk.f_blocks * disk.f_frsize
        return Reply(200, JSON, gostyle.dumps({
            "cpuCount": 1, "cpuUsedPct": 1.5, "memTotalBytes": 1 << 30, "memUsedBytes": 1 << 28,
            "diskTotalBytes": total, "diskUsedBytes": total - disk.f_bfree * disk.f_frsize,
            "diskFreeBytes": disk.f_bfree * disk.f_frsize}))
