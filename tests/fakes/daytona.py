#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Daytona: the API, and the proxy to the toolbox of each sandbox.

It prints the variables with which a client comes here. Settings (--set KEY=JSON, or /-/settings):

  daemon        version of the toolbox in sandboxes made from now on; what it lacks, they lack
  snapshot_class  class of sandboxes from a snapshot: container (no pause) or linux-vm
  shows_class   a sandbox tells its class
  create_ms, start_ms, stop_ms, pause_ms, build_ms    how long these take
  list_ms       how far the list lags behind
  list_form     items (a page), or array (API before 0.180)
  stale         the answer of create shows the state that it began with
  toolbox_url   where it is told: sandbox, endpoint (/toolbox-proxy-url) or config
  page_max      the longest page of a list
  boxes_max     how many there may be; one more is a 400
  missing       images (a regular expression) that can't be built from
  replay        so many of the next small POSTs through the proxy are carried out twice
"""

import base64
import json
import re
import secrets
import threading
import time
import uuid
from urllib.parse import unquote

from common import gostyle
from common.http import Answer, Reply
from common.identity import drop_groups
from common.sandbox import Sandbox
from common.schema import Spec
from common.service import Routes, Service, json_reply, main

from daytona_toolbox import Proxy, Toolbox

CHANGING = ("creating", "starting", "stopping", "pausing", "resuming", "pending_build",
            "building_snapshot", "archiving", "destroying")
SNAPSHOT = "daytonaio/sandbox:0.6.0"
NEWER = {"kvm", "queueTimeout"}  # known to the clients of 2026, not yet to the description
CREATED_S = 30  # how long create and start wait for `started`


class Box:
    """One sandbox. `history` is what the lagging list is made of: [(time, state)]."""

    def __init__(self, service, value):
        self.service = service
        self.id = str(uuid.uuid4())
        self.name = value.get("name") or self.id
        self.value = value
        self.labels = dict(value.get("labels") or {})
        self.build = value.get("buildInfo")
        self.kind = "container" if self.build else service.settings["snapshot_class"]
        self.created = time.time_ns()
        self.updated = self.created
        self.error = None
        self.daemon = service.settings["daemon"]
        self.stop_after, self.pause_after = self.intervals(value)
        self.archive_after = value.get("autoArchiveInterval", 7 * 1440) or 30 * 1440
        self.delete_after = value.get("autoDeleteInterval", -1)
        self.ttl = value.get("ttlMinutes", 0)
        self.network = {key: value[key] for key in ("networkBlockAll", "networkAllowList", "domainAllowList")
                        if key in value}
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.history = []
        self.state = None
        self.preview, self.signing_key = secrets.token_hex(16), secrets.token_hex(16)
        self.active = time.time()
        self.ended_at = None
        self.sandbox = Sandbox(service.base / self.id, ("daytona", 1000, "/home/daytona"), self.id[:12])
        self.toolbox = Toolbox(service, self)
        self.set_state("pending_build" if self.build else "creating")

    def intervals(self, value):
        """(auto-stop, auto-pause) in minutes, 0 is off."""
        if self.kind == "container":
            return value.get("autoStopInterval", 15), 0
        stop = value.get("autoStopInterval", 0)
        return stop, value.get("autoPauseInterval", 0 if stop else 60)

    def set_state(self, state):
        with self.lock:
            self.state = state
            self.updated = time.time_ns()
            self.history.append((time.time(), state))
            self.changed.notify_all()

    def wait_for(self, states, seconds):
        with self.lock:
            self.changed.wait_for(lambda: self.state in states, seconds)

    def later(self, setting, work, part=1):
        """Do the slow part of a change in its own time, which the setting says."""
        def run():
            if not self.service.takes(setting, part):
                return
            with self.lock:
                if self.state != "destroying" or work == self._destroyed:
                    work()
        threading.Thread(target=run, daemon=True).start()

    # -- changes; the lock is held

    def provision(self):
        if self.build:
            self.later("build_ms", lambda: (
                self.set_state("building_snapshot"), self.later("build_ms", self._built, 0.5)), 0.5)
        else:
            self.later("create_ms", self._boot)

    def _built(self):
        if re.search(self.service.settings["missing"], self.build["dockerfileContent"]):
            self.error = "failed to build image: pull access denied"
            self.set_state("build_failed")
            return
        self.set_state("creating")
        self.later("create_ms", self._boot)

    def _boot(self):
        if self.sandbox.process is None:
            self.sandbox.start()
            self.toolbox = Toolbox(self.service, self)
        elif self.sandbox.is_paused:
            self.sandbox.resume()
        self.active = time.time()
        self.set_state("started")

    def start(self):
        self.set_state("resuming" if self.state == "paused" else "starting")
        self.preview = self.preview if self.sandbox.is_paused else secrets.token_hex(16)
        self.later("start_ms", self._boot)

    def stop(self):
        self.set_state("stopping")
        self.later("stop_ms", self._stopped)

    def _stopped(self):
        self.sandbox.stop()
        if self.delete_after == 0:
            self.destroy()
        else:
            self.set_state("stopped")

    def pause(self):
        self.set_state("pausing")
        self.later("pause_ms", self._paused)

    def _paused(self):
        self.sandbox.pause()
        self.set_state("paused")

    def archive(self):
        self.set_state("archiving")
        self.later("stop_ms", lambda: self.set_state("archived"))

    def destroy(self):
        self.set_state("destroying")
        self.later("stop_ms", self._destroyed)

    def _destroyed(self):
        self.sandbox.destroy()
        self.set_state("destroyed")
        self.ended_at = time.time()

    def close(self):
        self.state = "destroying"
        self.sandbox.destroy()

    # -- shown

    def shown(self, state=None):
        value = self.value
        found = {
            "id": self.id, "organizationId": self.service.organization, "name": self.name,
            "user": value.get("user") or "daytona", "env": value.get("env") or {}, "labels": self.labels,
            "public": bool(value.get("public")), "networkBlockAll": bool(self.network.get("networkBlockAll")),
            "target": value.get("target") or "us", "cpu": value.get("cpu", 1), "gpu": value.get("gpu", 0),
            "memory": value.get("memory", 1), "disk": value.get("disk", 3), "state": state or self.state,
            "desiredState": {"paused": "paused", "pausing": "paused", "stopped": "stopped",
                             "stopping": "stopped", "archived": "archived", "archiving": "archived",
                             "destroyed": "destroyed", "destroying": "destroyed"}.get(self.state, "started"),
            "autoStopInterval": self.stop_after, "autoPauseInterval": self.pause_after,
            "autoArchiveInterval": self.archive_after, "autoDeleteInterval": self.delete_after,
            "daemonVersion": "v" + self.daemon, "runnerId": "runner-1",
            "volumes": value.get("volumes") or [], "recoverable": False, "backupState": "None",
            "createdAt": stamp(self.created), "updatedAt": stamp(self.updated),
            "lastActivityAt": stamp(int(self.active * 1e6) * 1000)}
        if not self.build:
            found["snapshot"] = value.get("snapshot") or SNAPSHOT
        else:
            found["buildInfo"] = {**self.build, "snapshotRef": "daytona-" + self.id[:8], "createdAt": stamp(
                self.created), "updatedAt": stamp(self.created)}
        if self.service.settings["shows_class"]:
            found["sandboxClass"] = self.kind
        if self.error:
            found["errorReason"] = self.error
        if self.service.settings["toolbox_url"] == "sandbox":
            found["toolboxProxyUrl"] = self.service.toolbox_url
        found.update({key: each for key, each in self.network.items() if key != "networkBlockAll"})
        return found

    def state_at(self, moment):
        """What the list says: the state of a while ago, None before it was there and after its end."""
        known = [state for when, state in list(self.history) if when <= moment]  # a change may hold the lock for long
        return known[-1] if known and known[-1] != "destroyed" else None


class Daytona(Service):
    name = "daytona"
    settings = {"daemon": "0.190.0", "snapshot_class": "container", "shows_class": True,
                "create_ms": 200, "start_ms": 200, "stop_ms": 200, "pause_ms": 200, "build_ms": 200, "list_ms": 500, "list_form": "items",
                "stale": True, "toolbox_url": "sandbox", "page_max": 200, "boxes_max": 200,
                "missing": "missing|nonexist|no-such", "replay": 0}

    def __init__(self, port=0, base=None):
        super().__init__(base)
        drop_groups()
        self.key = "dtn_" + secrets.token_hex(32)
        self.organization = str(uuid.uuid4())
        self.spec = Spec("daytona_api")
        self.toolbox_spec = Spec("daytona_toolbox")
        change = self.interval
        self.routes = Routes(
            ("GET", "/config", self.config), ("GET", "/api-keys/current", self.current_key),
            ("POST", "/sandbox", self.create), ("GET", "/sandbox", self.list),
            ("GET", "/sandbox/{s}", self.get), ("DELETE", "/sandbox/{s}", self.delete),
            ("POST", "/sandbox/{s}/start", self.start), ("POST", "/sandbox/{s}/stop", self.stop),
            ("POST", "/sandbox/{s}/pause", self.pause), ("POST", "/sandbox/{s}/archive", self.archive),
            ("POST", "/sandbox/{s}/recover", self.recover), ("PUT", "/sandbox/{s}/labels", self.set_labels),
            ("POST", "/sandbox/{s}/resize", self.resize),
            ("POST", "/sandbox/{s}/autostop/{n}", change("stop_after")),
            ("POST", "/sandbox/{s}/autopause/{n}", change("pause_after")),
            ("POST", "/sandbox/{s}/autoarchive/{n}", change("archive_after")),
            ("POST", "/sandbox/{s}/autodelete/{n}", change("delete_after")),
            ("POST", "/sandbox/{s}/ttl/{n}", change("ttl")),
            ("POST", "/sandbox/{s}/network-settings", self.set_network),
            ("POST", "/sandbox/{s}/last-activity", self.touch),
            ("GET", "/sandbox/{s}/toolbox-proxy-url", self.proxy_url),
            ("GET", "/sandbox/{s}/ports/{p}/preview-url", self.preview_url),
            ("GET", "/sandbox/{s}/build-logs-url", self.build_logs),
            ("GET", "/sandbox/{s}/signing-key", self.signing_key),
            ("GET", "/snapshots", self.list_snapshots), ("GET", "/volumes", lambda request: json_reply([])))
        self.api = self.listen("api", self.with_door(self.handle), port)
        self.proxy = self.listen("proxy", Proxy(self).handle)
        self.toolbox_url = self.proxy.url + "/toolbox"

    def environ(self):
        return {"DAYTONA_API_KEY": self.key, "DAYTONA_API_URL": self.api.url + "/api", "FAKE_URL": self.api.url}

    # -- requests

    def handle(self, request):
        if not request.path.startswith("/api/"):
            return Reply(200, [("Content-Type", "text/html")], b"<!doctype html><title>Daytona</title>\n")
        request.path = request.path[4:]
        if request.path.startswith("/socket.io/"):
            return Reply(404, [("Content-Type", "text/plain")], b"no events here: poll\n")
        if request.path != "/config":
            self.check_key(request)
        handler, _ = self.routes.find(request.method, request.path.rstrip("/") or "/")
        if handler is None:
            fail(request, 404, "Cannot %s /api%s" % (request.method, request.path))
        reply = handler(request)
        reply.headers += [("X-RateLimit-Limit-authenticated", "10000"),
                          ("X-RateLimit-Remaining-authenticated", "9999"), ("X-Daytona-Api-Version", "v0.190.0")]
        return reply

    def check_key(self, request):
        if request.headers.get("Authorization") != "Bearer " + self.key:
            fail(request, 401, "Invalid credentials")

    def body(self, request):
        data = request.body.read_all(4 << 20)
        try:
            value = json.loads(data) if data else None
        except (ValueError, RecursionError) as error:
            fail(request, 400, str(error))
        known = {key: each for key, each in value.items() if key not in NEWER} if isinstance(value, dict) else value
        broken = self.check(request, self.spec, known)
        if broken:
            fail(request, 400, ", ".join(broken))
        return value

    def box(self, request, name):
        """By id, else by name. 404 once it is destroyed."""
        with self.lock:
            box = self.boxes.get(name) or next(
                (each for each in self.boxes.values() if each.name == name and each.ended_at is None), None)
        if box is None or box.ended_at is not None:
            fail(request, 404, "Sandbox with ID or name %s not found" % name)
        return box

    # -- life

    def create(self, request):
        value = self.body(request) or {}
        self.check_create(request, value)
        with self.lock:
            alive = [box for box in self.boxes.values() if box.ended_at is None]
            if len(alive) >= self.settings["boxes_max"]:
                fail(request, 400, "Total CPU limit exceeded. Maximum allowed: %d." % len(alive))
            if value.get("name") and any(box.name == value["name"] and box.state != "destroying" for box in alive):
                fail(request, 409, "Sandbox with name %s already exists" % value["name"])
            box = Box(self, value)
            self.boxes[box.id] = box
        before = box.shown()
        with box.lock:
            box.provision()
        if not box.build:
            box.wait_for(("started", "error"), CREATED_S)
        return json_reply(before if self.settings["stale"] else box.shown())

    def check_create(self, request, value):
        if value.get("snapshot") and value.get("buildInfo"):
            fail(request, 400, "Cannot specify both snapshot and build info")
        sizes = [key for key in ("cpu", "memory", "disk", "gpu", "gpuType") if value.get(key) is not None]
        if sizes and not value.get("buildInfo"):
            fail(request, 400, "Cannot specify Sandbox resources when using a snapshot")
        if value.get("snapshot") not in (None, SNAPSHOT, "default"):
            fail(request, 400, "Snapshot %s not found. Did you add it through the Daytona Dashboard?" % value["snapshot"])
        for key, most in (("cpu", 4), ("memory", 8), ("disk", 10)):
            if (value.get(key) or 0) > most:
                fail(request, 400, "%s request %d exceeds maximum allowed per sandbox (%d)" % (
                    key.capitalize(), value[key], most))
        if value.get("autoStopInterval") and value.get("autoPauseInterval"):
            fail(request, 400, "autoStopInterval and autoPauseInterval are mutually exclusive")
        if value.get("volumes"):
            fail(request, 404, "Volume with ID or name %s not found" % value["volumes"][0].get("volumeId"))

    def get(self, request, name):
        self.body(request)
        return json_reply(self.box(request, name).shown())

    def settled(self, request, box):
        if box.state in CHANGING:
            fail(request, 409, "Sandbox state change in progress")

    def delete(self, request, name):
        self.body(request)
        box = self.box(request, name)
        with box.lock:
            self.settled(request, box)
            box.destroy()
            box.name = "DESTROYED_" + box.name
            return json_reply(box.shown())  # before the change goes on

    def start(self, request, name):
        self.body(request)
        box = self.box(request, name)
        with box.lock:
            if box.state == "started":
                return json_reply(box.shown())
            self.settled(request, box)
            if box.state not in ("stopped", "archived", "paused"):
                fail(request, 400, "Sandbox is not in a valid state to be started")
            box.start()
        box.wait_for(("started", "error"), CREATED_S)
        return json_reply(box.shown())

    def stop(self, request, name):
        self.body(request)
        box = self.box(request, name)
        with box.lock:
            self.settled(request, box)
            if box.state not in ("started", "paused"):
                fail(request, 400, "Sandbox is not started")
            box.stop()
            return json_reply(box.shown())

    def pause(self, request, name):
        self.body(request)
        box = self.box(request, name)
        with box.lock:
            if box.kind not in ("linux-vm", "windows"):
                fail(request, 422, "Pause is not supported for sandboxes of class %s" % box.kind)
            self.settled(request, box)
            if box.state != "started":
                fail(request, 400, "Sandbox is not started")
            box.pause()
            return json_reply(box.shown())

    def archive(self, request, name):
        self.body(request)
        box = self.box(request, name)
        with box.lock:
            self.settled(request, box)
            if box.state != "stopped":
                fail(request, 400, "Sandbox is not stopped")
            if box.delete_after == 0:
                fail(request, 400, "Ephemeral sandboxes cannot be archived")
            box.archive()
            return json_reply(box.shown())

    def recover(self, request, name):
        self.body(request)
        self.box(request, name)
        fail(request, 400, "Sandbox must be in error state to recover")

    def set_labels(self, request, name):
        value = self.body(request)
        box = self.box(request, name)
        box.labels = dict(value["labels"])
        return json_reply({"labels": box.labels})

    def resize(self, request, name):
        value = self.body(request) or {}
        box = self.box(request, name)
        for key, now in (("cpu", 1), ("memory", 1), ("disk", 3)):
            now = box.value.get(key, now)
            new = value.get(key, now)
            if new < now and (key == "disk" or box.state != "stopped"):
                fail(request, 400, "%s can't shrink here" % key)
            if key == "disk" and new != now and box.state != "stopped":
                fail(request, 400, "Disk can only be resized when the sandbox is stopped")
            box.value[key] = new
        return json_reply(box.shown())

    def interval(self, field):
        def change(request, name, minutes):
            self.body(request)
            box = self.box(request, name)
            if not re.fullmatch(r"-?\d+", minutes) or (int(minutes) < 0 and field != "delete_after"):
                fail(request, 400, "Interval must be non-negative")
            if field == "pause_after" and box.kind == "container" and int(minutes):
                fail(request, 422, "Auto-pause is not supported for sandboxes of class container")
            if int(minutes) and {"stop_after": box.pause_after, "pause_after": box.stop_after}.get(field):
                fail(request, 400, "autoStopInterval and autoPauseInterval are mutually exclusive")
            setattr(box, field, int(minutes))
            return json_reply(box.shown())
        return change

    def set_network(self, request, name):
        value = self.body(request) or {}
        box = self.box(request, name)
        box.network = value
        return json_reply(box.shown())

    def touch(self, request, name):
        self.body(request)
        self.box(request, name).active = time.time()
        return Reply(201)

    def expire(self, box_id, seconds):
        """The time since its last activity, so that auto-stop or auto-pause comes so soon."""
        with self.lock:
            box = self.boxes[box_id]
        box.active = time.time() + seconds - (box.stop_after or box.pause_after) * 60

    def tick(self):
        now = time.time()
        with self.lock:
            boxes = list(self.boxes.values())
            for box in boxes:
                if box.ended_at and now - box.ended_at > 120:
                    self.boxes.pop(box.id, None)
        for box in boxes:
            with box.lock:
                if box.state != "started":
                    continue
                idle = now - box.active
                if box.stop_after and idle >= box.stop_after * 60:
                    box.stop()
                elif box.pause_after and idle >= box.pause_after * 60:
                    box.pause()
                elif box.ttl and now - box.created / 1e9 >= box.ttl * 60:
                    box.destroy()

    # -- lists

    def list(self, request):
        self.body(request)
        limit = min(int(request.arg("limit") or 100), self.settings["page_max"])
        moment = time.time() - self.settings["list_ms"] / 1000
        with self.lock:
            boxes = list(self.boxes.values())
        wanted = [value for key, value in request.args() if key == "states"]
        found = []
        for box in boxes:
            state = box.state_at(moment)
            if state and (not wanted or state in wanted) and self.is_wanted(request, box):
                found.append((box, state))
        key = {"name": lambda each: each[0].name}.get(request.arg("sort"), lambda each: each[0].created)
        found.sort(key=key, reverse=request.arg("order") != "asc")
        at = 0
        if request.arg("cursor"):
            at = int(base64.urlsafe_b64decode(request.arg("cursor")))
        items = [box.shown(state) for box, state in found[at:at + limit]]
        if self.settings["list_form"] == "array":
            return json_reply([box.shown(state) for box, state in found])
        more = base64.urlsafe_b64encode(b"%d" % (at + limit)).decode() if len(found) > at + limit else None
        return json_reply({"items": items, "nextCursor": more})

    @staticmethod
    def is_wanted(request, box):
        try:
            labels = json.loads(request.arg("labels") or "{}")
        except ValueError:
            fail(request, 400, "Invalid labels JSON format")
        return all(box.labels.get(key) == value for key, value in labels.items()) and \
            box.id.lower().startswith((request.arg("id") or "").lower()) and \
            box.name.lower().startswith((request.arg("name") or "").lower())

    # -- the rest

    def config(self, request):
        value = {"version": "v0.190.0", "proxyTemplateUrl": self.proxy.url, "defaultSnapshot": SNAPSHOT,
                 "proxyToolboxUrl": self.toolbox_url}
        if self.settings["toolbox_url"] == "endpoint":
            value.pop("proxyToolboxUrl")
        return json_reply(value)

    def current_key(self, _request):
        return json_reply({"name": "stand-in", "permissions": ["write:sandboxes", "delete:sandboxes"]})

    def proxy_url(self, request, name):
        self.box(request, name)
        if self.settings["toolbox_url"] == "config":
            fail(request, 404, "Cannot GET /api%s" % request.path)
        return json_reply({"url": self.toolbox_url})

    def preview_url(self, request, name, port):
        box = self.box(request, name)
        return json_reply({"sandboxId": box.id, "url": "%s/%s-%s" % (self.proxy.url, port, box.id),
                           "token": box.preview})

    def signing_key(self, request, name):
        return json_reply(self.box(request, name).signing_key)

    def build_logs(self, request, name):
        self.box(request, name)
        return json_reply({"url": self.api.url + "/api/build-logs"})

    def list_snapshots(self, request):
        self.body(request)
        item = {"id": self.organization, "name": SNAPSHOT, "general": True, "state": "active", "cpu": 1, "mem": 1,
                "disk": 3, "gpu": 0, "createdAt": stamp(0), "updatedAt": stamp(0), "size": None, "entrypoint": None,
                "errorReason": None, "lastUsedAt": None}
        return json_reply({"items": [item], "total": 1, "page": 1, "totalPages": 1})


def stamp(ns):
    """Milliseconds, as JavaScript's servers print times."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + ".%03dZ" % (ns // 10**6 % 1000)


ERRORS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict",
          422: "Unprocessable Entity"}


def fail(request, status, message):
    raise Answer(Reply(status, [("Content-Type", "application/json; charset=utf-8")], gostyle.dumps(
        {"path": "/api" + unquote(request.path), "timestamp": stamp(time.time_ns()), "statusCode": status,
         "error": ERRORS[status], "message": message})))


if __name__ == "__main__":
    main(Daytona)
