#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for E2B: the control plane, and the shared host of all sandboxes' envd.

It prints the variables with which a client comes here. Settings (--set KEY=JSON, or /-/settings):

  generation    both, old (POST /sandboxes only) or new (POST /v2/sandboxes only)
  envd_version  of sandboxes made from now on; what it lacks, they lack
  page_max      the longest page of a list
  timeout_max   of a sandbox, in seconds
  boxes_max     how many may live at once; one more is a 429 without Retry-After
  domain        of sandboxes that run; of paused ones none is told
  late          how many requests to a new or resumed sandbox find it missing (502)
  create_ms, pause_ms    how long these take
"""

import hashlib
import hmac
import json
import random
import secrets
import threading
import time
from urllib.parse import unquote_plus

from common import gostyle
from common.http import Reply, unescape
from common.sandbox import Sandbox, remove_tree
from common.schema import Spec
from common.service import Routes, Service, json_reply, main, refuse

from e2b_envd import Edge, Envd

TEMPLATES = {"base": "rki5dems9wqfm4r03t7g", "code-interpreter-v1": "nlhz8vlwyupq845jsdg9"}
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
OLD_CREATE, NEW_CREATE = "/sandboxes", "/v2/sandboxes"


class Box:
    """One sandbox. state: running or paused; moving: between the two."""

    def __init__(self, service, value, template, secure, timeout):
        self.service = service
        self.id = "i" + "".join(random.choices(ALPHABET, k=19))
        self.template = template
        self.alias = next((name for name, each in TEMPLATES.items() if each == template), None)
        self.metadata = value.get("metadata") or {}
        self.env = dict(value.get("envVars") or {})
        self.auto_pause = bool(value.get("autoPause"))
        self.auto_resume = bool((value.get("autoResume") or {}).get("enabled"))
        self.internet = value.get("allow_internet_access")
        self.network = value.get("network")
        self.mounts = value.get("volumeMounts") or []
        self.envd_version = service.settings["envd_version"]
        self.token = service.token(self.id) if secure else None
        self.started = time.time_ns()
        self.end = time.time() + timeout
        self.state, self.moving = "running", False
        self.late = service.settings["late"]
        self.lock = threading.Lock()  # one change of state at a time
        self.sandbox = Sandbox(service.base / self.id, ("user", 1000, "/home/user"), "e2b",
                               service.snapshots.get(template))
        self.envd = Envd(service, self)
        self.sandbox.start()

    def close(self):
        self.envd.processes.lose_streams()
        self.envd.watchers.close()
        self.sandbox.destroy()

    def pause(self, memory):
        self.envd.processes.lose_streams()
        if memory:
            self.sandbox.pause()
        else:
            self.envd.watchers.close()
            self.sandbox.stop()
            self.envd.processes.forget()
        self.state = "paused"
        self.end = time.time()

    def resume(self):
        if self.sandbox.process is None:
            self.sandbox.start()
        else:
            self.sandbox.resume()
        self.state = "running"

    def domain(self):
        return self.service.settings["domain"]

    def short(self):
        """What create and connect answer."""
        value = {"sandboxID": self.id, "templateID": self.template, "clientID": "6532622b",
                 "envdVersion": self.envd_version, "domain": self.domain(), "trafficAccessToken": None}
        if self.alias:
            value["alias"] = self.alias
        if self.token:
            value["envdAccessToken"] = self.token
        return value

    def listed(self):
        value = {"sandboxID": self.id, "templateID": self.template, "clientID": "6532622b",
                 "startedAt": gostyle.time_nano(self.started),
                 "endAt": gostyle.time_nano(int(self.end * 1e6) * 1000), "cpuCount": 2,
                 "memoryMB": 512, "diskSizeMB": 10240, "metadata": self.metadata, "state": self.state,
                 "envdVersion": self.envd_version, "volumeMounts": self.mounts}
        if self.alias:
            value["alias"] = self.alias
        return value

    def detail(self):
        value = self.listed()
        if self.token:
            value["envdAccessToken"] = self.token
        value["lifecycle"] = {"autoResume": self.auto_resume,
                              "onTimeout": "pause" if self.auto_pause else "kill"}
        if self.internet is not None:
            value["allowInternetAccess"] = self.internet
        if self.network:
            value["network"] = self.network
        if self.state == "running":
            value["domain"] = self.domain()
        return value


class E2b(Service):
    name = "e2b"
    settings = {"generation": "both", "envd_version": "0.6.13", "page_max": 100, "timeout_max": 86400,
                "boxes_max": 200, "domain": None, "late": 0, "create_ms": 0, "pause_ms": 0}

    def __init__(self, port=0, base=None):
        super().__init__(base)
        self.key = "e2b_" + secrets.token_hex(20)
        self.secret = secrets.token_bytes(16)
        self.snapshots = {}  # id -> directory
        self.spec = Spec("e2b_api")
        self.newer = Spec("e2b_newer")
        self.envd_spec = Spec("e2b_envd")
        self.routes = Routes(
            ("POST", OLD_CREATE, self.create), ("POST", NEW_CREATE, self.create),
            ("GET", "/v2/sandboxes", self.list), ("GET", "/sandboxes", self.list_old),
            ("GET", "/sandboxes/metrics", self.all_metrics),
            ("GET", "/sandboxes/{id}", self.get), ("DELETE", "/sandboxes/{id}", self.kill),
            ("POST", "/sandboxes/{id}/pause", self.pause), ("POST", "/sandboxes/{id}/resume", self.resume_old),
            ("POST", "/sandboxes/{id}/connect", self.connect),
            ("POST", "/v2/sandboxes/{id}/connect", self.connect),
            ("POST", "/sandboxes/{id}/timeout", self.set_timeout),
            ("POST", "/sandboxes/{id}/refreshes", self.refresh),
            ("POST", "/sandboxes/{id}/snapshots", self.snapshot),
            ("PUT", "/sandboxes/{id}/network", self.set_network),
            ("GET", "/sandboxes/{id}/metrics", self.metrics),
            ("GET", "/v2/sandboxes/{id}/logs", self.logs), ("GET", "/sandboxes/{id}/logs", self.logs),
            ("DELETE", "/templates/{id}", self.delete_template))
        self.api = self.listen("api", self.with_door(self.handle), port)
        self.edge = self.listen("envd", Edge(self).handle, idle=620)

    def environ(self):
        return {"E2B_API_KEY": self.key, "E2B_API_URL": self.api.url, "E2B_SANDBOX_URL": self.edge.url,
                "FAKE_URL": self.api.url}

    def token(self, box_id):
        """Always the same for a sandbox."""
        return hmac.new(self.secret, box_id.encode(), hashlib.sha256).hexdigest()

    # -- what the edge and envd ask

    def check_envd(self, request):
        """Only the query: envd itself says what is wrong with a body."""
        self.check(request, self.envd_spec, {}, None)

    def running(self, box_id, wake=False):
        """The Box if it takes requests, else None."""
        with self.lock:
            box = self.boxes.get(box_id)
        if box and box.state == "paused" and box.auto_resume and wake:
            with box.lock:
                if box.state == "paused" and self.is_there(box):
                    box.resume()
                    box.end = time.time() + 300
        if box is None or box.state != "running":
            return None
        with self.lock:
            if box.late > 0:
                box.late -= 1
                return None
        return box

    def is_there(self, box):
        """Nobody has killed it while its lock was waited for."""
        with self.lock:
            return self.boxes.get(box.id) is box

    # -- requests

    def handle(self, request):
        if request.path == "/health":
            return Reply(200, body=b"Health check successful")
        if request.headers.get("X-API-Key") != self.key:
            given = request.headers.get("X-API-Key")
            text = "Invalid API key, please visit https://e2b.dev/docs/quickstart/api-key for more " \
                "information.\nCannot get the team for the given API key" if given else \
                "no credentials found: missing API key, please add X-API-Key header"
            fail(401, text)
        generation = self.settings["generation"]
        missing = {"old": (NEW_CREATE, "connect v2"), "new": (OLD_CREATE,), "both": ()}[generation]
        handler, known = self.routes.find(request.method, request.path)
        if request.path.startswith("/v2/") and request.path.endswith("/connect") and generation == "old":
            handler, known = None, False
        if request.method == "POST" and request.path in missing:
            handler, known = None, True
        if handler is None:
            fail(400 if known else 404, "validation error: " + (
                "method not allowed" if known else "no matching operation was found"))
        return handler(request)

    def body(self, request):
        """The JSON of a body, checked; None when there is none."""
        data = request.body.read_all(4 << 20)
        value = None
        if data:
            kind = request.headers.get("Content-Type", "")
            if kind.partition(";")[0].strip() != "application/json":
                fail(400, 'validation error: request body has an error: header Content-Type has '
                     'unexpected value "%s"' % kind)
            try:
                value = json.loads(data)
            except (ValueError, RecursionError) as error:
                fail(400, "validation error: request body has an error: failed to decode request body: "
                     "%s" % error)
        spec = self.newer if self.newer.find(request.method, request.path)[0] else self.spec
        broken = self.check(request, spec, value)
        if broken:
            fail(400, "validation error: request body has an error: doesn't match schema: " + broken[0])
        return value

    def box(self, request, box_id, state=None):
        with self.lock:
            box = self.boxes.get(box_id.partition("-")[0])
        if box is None or state not in (None, box.state):
            fail(404, "Sandbox \"%s\" doesn't exist or you don't have access to it" % box_id)
        return box

    # -- life

    def create(self, request):
        value = self.body(request)
        is_old = request.path == OLD_CREATE
        template = value["templateID"].partition(":")[0].rpartition("/")[2]
        template = TEMPLATES.get(template, template)
        if template not in self.snapshots and template not in TEMPLATES.values():
            fail(404, "template '%s' not found" % value["templateID"])
        timeout = self.check_timeout(value.get("timeout", 15 if is_old else 300))
        with self.lock:
            if len(self.boxes) >= self.settings["boxes_max"]:
                fail(429, "you have reached the maximum number of concurrent E2B sandboxes (%d)" %
                     len(self.boxes))
        self.ended.wait(self.settings["create_ms"] / 1000)
        box = Box(self, value, template, not is_old or bool(value.get("secure")), timeout)
        with self.lock:
            self.boxes[box.id] = box
        return json_reply(box.short(), 201)

    def check_timeout(self, seconds):
        if seconds <= 0:
            fail(400, "Timeout must be greater than 0")
        if seconds > self.settings["timeout_max"]:
            fail(400, "Timeout cannot be greater than %d hours" % (self.settings["timeout_max"] // 3600))
        return seconds

    def get(self, request, box_id):
        self.body(request)
        return json_reply(self.box(request, box_id).detail())

    def kill(self, request, box_id):
        self.body(request)
        self.box(request, box_id)
        with self.lock:
            box = self.boxes.pop(box_id.partition("-")[0], None)
        if box is None:
            self.box(request, box_id)
        with box.lock:
            box.close()
        return Reply(204)

    def pause(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(request, box_id)
        with box.lock:
            self.box(request, box_id)
            if box.state == "paused" or box.moving:
                fail(409, "Error pausing sandbox - sandbox '%s' is already paused" % box.id)
            self.do_pause(box, value.get("memory") is not False)
        return Reply(204)

    def do_pause(self, box, memory):
        box.moving = True
        self.ended.wait(self.settings["pause_ms"] / 1000)
        try:
            box.pause(memory)
        finally:
            box.moving = False

    def connect(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(request, box_id)
        timeout = self.check_timeout(value.get("timeout", 300))
        with box.lock:
            self.box(request, box_id)
            if box.state == "running":
                box.end = max(box.end, time.time() + timeout)
                return json_reply(box.short(), 200)
            if value.get("memory") is False:
                box.sandbox.stop()
                box.envd.processes.forget()
            self.do_resume(box, timeout)
        return json_reply(box.short(), 201)

    def resume_old(self, request, box_id):
        value = self.body(request)
        if value is None:
            fail(400, "validation error: request body has an error: value is required but missing")
        box = self.box(request, box_id)
        timeout = self.check_timeout(value.get("timeout", 15))
        with box.lock:
            self.box(request, box_id)
            if box.state == "running":
                fail(409, "Sandbox %s is already running" % box.id)
            self.do_resume(box, timeout)
        return json_reply(box.short(), 201)

    def do_resume(self, box, timeout):
        box.late = self.settings["late"]
        box.resume()
        box.end = time.time() + timeout

    def set_timeout(self, request, box_id):
        value = self.body(request)
        box = self.box(request, box_id, "running")
        seconds = value["timeout"]
        if seconds:
            self.check_timeout(seconds)
        if box.moving:
            fail(409, "sandbox is pausing")
        box.end = time.time() + seconds
        return Reply(204)

    def refresh(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(request, box_id, "running")
        box.end = max(box.end, time.time() + max(15, value.get("duration", 15)))
        return Reply(204)

    def expire(self, box_id, seconds):
        with self.lock:
            self.boxes[box_id].end = time.time() + seconds

    def tick(self):
        with self.lock:
            late = [box for box in self.boxes.values() if self.is_late(box)]
        for box in late:
            with box.lock:
                if not self.is_there(box) or not self.is_late(box):
                    continue  # it was killed, paused or put off meanwhile
                if box.auto_pause:
                    self.do_pause(box, True)
                    continue
                with self.lock:
                    self.boxes.pop(box.id, None)
                box.close()

    @staticmethod
    def is_late(box):
        return box.state == "running" and box.end <= time.time()

    # -- lists

    def list(self, request):
        self.body(request)
        states = (request.arg("state") or "running,paused").split(",")
        limit = min(int(request.arg("limit") or 100), self.settings["page_max"])
        with self.lock:
            boxes = list(self.boxes.values())
        running = sum(box.state == "running" for box in boxes)
        found = [box for box in boxes if box.state in states and self.is_wanted(request, box)]
        found.sort(key=lambda box: (box.started, box.id), reverse=request.arg("order") != "asc")
        token = request.arg("nextToken")
        if token:  # a place in the order: the sandbox that had it may be gone
            started, _, ident = token.partition("_")
            place = (int(started), ident)
            found = [box for box in found if ((box.started, box.id) > place) == (request.arg("order") == "asc") and
                     (box.started, box.id) != place]
        headers = [("X-Total-Running", str(running))]
        if len(found) > limit:
            headers.append(("X-Next-Token", "%d_%s" % (found[limit - 1].started, found[limit - 1].id)))
        return json_reply([box.listed() for box in found[:limit]], 200, headers)

    @staticmethod
    def is_wanted(request, box):
        """The filter of metadata: decoded once as a query value, once as a whole, once a piece."""
        text = unescape(request.arg("metadata") or "")
        for pair in filter(None, text.split("&")):
            key, equals, value = pair.partition("=")
            if not equals:
                fail(400, "Error parsing metadata: invalid metadata filter")
            if box.metadata.get(unquote_plus(key)) != unquote_plus(value):
                return False
        template = request.arg("template")
        return not template or template in (box.template, box.alias)

    def list_old(self, request):
        self.body(request)
        with self.lock:
            boxes = [box for box in self.boxes.values() if box.state == "running"]
        return json_reply([box.listed() for box in boxes if self.is_wanted(request, box)])

    # -- the rest

    def metric(self, _box):
        now = int(time.time())
        return {"timestamp": gostyle.time_nano(now * 10**9), "timestampUnix": now, "cpuCount": 2,
                "cpuUsedPct": 1.5, "memUsed": 100 << 20, "memTotal": 512 << 20, "memCache": 50 << 20,
                "diskUsed": 1 << 30, "diskTotal": 10 << 30}

    def metrics(self, request, box_id):
        self.body(request)
        return json_reply([self.metric(self.box(request, box_id))])

    def all_metrics(self, request):
        self.body(request)
        ids = (request.arg("sandbox_ids") or "").split(",")
        with self.lock:
            found = {each: self.metric(self.boxes[each]) for each in ids if each in self.boxes}
        return json_reply({"sandboxes": found})

    def logs(self, request, box_id):
        self.body(request)
        self.box(request, box_id)
        return json_reply({"logs": []})

    def set_network(self, request, box_id):
        value = self.body(request)
        self.box(request, box_id).network = value
        return Reply(204)

    def snapshot(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(request, box_id, "running")
        name = "".join(random.choices(ALPHABET, k=20))
        directory = self.base / ("snapshot-" + name)
        with box.lock:
            box.sandbox.pause()
            try:
                box.sandbox.copy_to(directory)
            finally:
                box.sandbox.resume()
        with self.lock:
            self.snapshots[name] = directory
        return json_reply({"snapshotID": name, "names": [value["name"]] if value.get("name") else []}, 201)

    def delete_template(self, _request, template):
        with self.lock:
            directory = self.snapshots.pop(template, None)
        if directory is None:
            fail(404, "template '%s' not found" % template)
        remove_tree(directory)
        return Reply(204)


def fail(status, message):
    refuse(status, {"code": status, "message": message})


if __name__ == "__main__":
    main(E2b)
