# SPDX-License-Identifier: Apache-2.0
"""execd, the daemon in each OpenSandbox sandbox: who may ask, and how paths are expanded."""

import json
import re
import time

from common.http import Reply
from common.root import clean
from common.sandbox import PATH
from common.service import Routes

from opensandbox_answers import fail, json_answer
from opensandbox_commands import Commands
from opensandbox_files import Files
from opensandbox_pty import Ptys

PORT = 44772
SPECIAL = "*#$@!?-0123456789"


class Execd:
    """One sandbox's."""

    def __init__(self, service, box):
        self.service, self.box = service, box
        self.version = tuple(int(each) for each in re.findall(r"\d+", box.version)[:3])
        self.env = {"PATH": PATH, "HOME": "/root", "HOSTNAME": "sandbox", **box.env}
        commands, files = Commands(self), Files(self)
        self.routes = Routes(
            ("GET", "/ping", lambda request: Reply(200)), ("GET", "/metrics", self.metrics),
            ("POST", "/code", no_jupyter), ("POST", "/code/context", no_jupyter),
            *commands.routes(), *files.routes(), *Ptys(self).routes())

    def since(self, version):
        return self.version >= tuple(int(each) for each in version.split("."))

    @property
    def root(self):
        return self.box.sandbox.root

    def handle(self, request):
        match = re.match(r"/proxy/(\d+)(?=/|$)", request.path)
        if match and int(match[1]) != PORT:
            return Reply(502, body=b"dial tcp 127.0.0.1:%s: connect: connection refused" % match[1].encode())
        if match:
            request.path = request.path[match.end():] or "/"
        if self.box.token and request.headers.get("X-EXECD-ACCESS-TOKEN") != self.box.token:
            return json_answer({"error": "Unauthorized: invalid or missing header X-EXECD-ACCESS-TOKEN"}, 401)
        if "OPEN-SANDBOX-API-KEY" in request.headers:
            self.service.journal.violation(request, "the tenant's API key was given to the sandbox")
        if request.path.startswith("/v1/isolated/"):
            fail(503, "SERVICE_UNAVAILABLE", "isolated sessions are not available")
        handler, _ = self.routes.find(request.method, request.path)
        if handler is None:
            return Reply(404, [("Content-Type", "text/plain")], b"404 page not found")
        return handler(request)

    def body(self, request, limit=64 << 20):
        """The JSON of a body."""
        data = request.body.read_all(limit)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            fail(400, "INVALID_REQUEST_BODY", "error parsing request, MAYBE invalid body format. %s" % error)
        for text in self.service.check(request, self.service.execd_spec, value):
            fail(400, "INVALID_REQUEST_BODY", "error parsing request, MAYBE invalid body format. " + text)
        return value

    def check_query(self, request):
        """The journal tells of what the description doesn't know."""
        self.service.check(request, self.service.execd_spec, {}, None)

    def expand(self, path):
        """An absolute path, with all that execd expands in it. 500 for an unknown variable."""
        if self.since("1.0.12"):
            path = self.expand_variables(path)
            if path == "~" or path.startswith("~/"):
                path = self.env["HOME"] + path[1:]
        return clean(path if path.startswith("/") else "/" + path)

    def expand_variables(self, path):
        """As Go's os.Expand reads the text."""
        out, at = [], 0
        while at < len(path):
            if path[at] != "$" or at + 1 >= len(path):
                out.append(path[at])
                at += 1
                continue
            name, width = shell_name(path[at + 1:])
            if not name and width == 0:
                out.append("$")
            elif name and name not in SPECIAL:
                if name not in self.env:
                    fail(500, "RUNTIME_ERROR", "error expanding path: undefined environment variable: " + name)
                out.append(self.env[name])
            at += 1 + width
        return "".join(out)

    def metrics(self, _request):
        time.sleep(1)
        return json_answer({"cpu_count": 2, "cpu_used_pct": 1.5, "mem_total_mib": 4096, "mem_used_mib": 512,
                            "timestamp": int(time.time() * 1000)})


def shell_name(text):
    """(name, how much of the text it takes) of what follows a `$`."""
    if text[0] == "{":
        if len(text) > 2 and text[1] in SPECIAL and text[2] == "}":
            return text[1], 3
        end = text.find("}")
        if end == 1:
            return "", 2
        return (text[1:end], end + 1) if end > 0 else ("", 1)
    if text[0] in SPECIAL:
        return text[0], 1
    match = re.match(r"[A-Za-z0-9_]*", text)
    return match[0], match.end()


def no_jupyter(_request):
    fail(500, "RUNTIME_ERROR", "error running codes. language: python, jupyter not available")
