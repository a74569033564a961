#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for OpenSandbox: the lifecycle server, and an execd for each sandbox.

It prints the variables with which a client comes here. Settings (--set KEY=JSON, or /-/settings):

  runtime       docker (pause freezes; requests hang) or kubernetes (pause drops processes and /tmp)
  execd         version of execd in sandboxes made from now on; what it lacks, they lack
  pause         false: this deployment refuses pause and resume
  execd_token   what execd asks for, told by the endpoint's headers ("": nothing)
  strict        null for an absent field is refused
  timeout_max   of a sandbox, in seconds
  boxes_max     how many may live at once; one more is a 429 with Retry-After
  missing       images (a regular expression) that can't be pulled
  create_ms     how long create blocks; ready_ms: from its answer until execd listens
  pause_ms      how long kubernetes stays Pausing and Resuming
"""

import json
import re
import secrets
import threading
import time
import uuid
from urllib.parse import parse_qsl

from common import gostyle
from common.http import Closed, Headers, Reply, Request
from common.sandbox import Sandbox, remove_tree
from common.schema import Spec
from common.service import Routes, Service, json_reply, main, refuse

from opensandbox_execd import PORT, Execd

LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def stamp(ns=None):
    """Microseconds, as Python's servers print times."""
    ns = time.time_ns() if ns is None else ns
    return gostyle.time_nano(ns - ns % 1000)


class Box:
    """One sandbox. Its execd listens on a port of its own while it runs or is frozen."""

    def __init__(self, service, value, directory):
        self.service = service
        self.id = str(uuid.uuid4())
        self.value = value
        self.env = {key: each for key, each in (value.get("env") or {}).items() if each is not None}
        self.metadata = dict(value.get("metadata") or {})
        self.created = time.time_ns()
        self.end = time.time() + value["timeout"] if value.get("timeout") else None
        self.lock = threading.RLock()
        self.set_state("Running", "CONTAINER_RUNNING", "Sandbox is running.")
        self.token = service.settings["execd_token"]
        self.version = service.settings["execd"]
        self.frozen = False
        self.gone = False
        self.ready_at = 0.0
        self.server = None
        self.sandbox = Sandbox(service.base / self.id, ("root", 0, "/root"), "sandbox", directory)
        self.boot()

    def set_state(self, state, reason, message):
        self.state, self.reason, self.message = state, reason, message
        self.changed = time.time_ns()

    def boot(self):
        """Its main process and execd start."""
        self.sandbox.start()
        self.execd = Execd(self.service, self)
        self.ready_at = time.monotonic() + self.service.settings["ready_ms"] / 1000
        self.server = self.service.listen("execd", self.handle, idle=120, is_open=False)
        self.address = self.server.address  # known before anybody listens there, and after
        entrypoint = self.value.get("entrypoint") or ["tail", "-f", "/dev/null"]
        sandbox = self.sandbox
        null = open("/dev/null", "r+b")  # noqa: SIM115 closed below
        with null:
            try:
                main_process = sandbox.run(entrypoint, null.fileno(), null.fileno(), null.fileno(),
                                           env=self.execd.env, cwd="/")
            except OSError:
                self.died(sandbox, 127 << 8)
                return
        threading.Thread(target=lambda: (main_process.ended.wait(),
                                         self.died(sandbox, main_process.status)), daemon=True).start()

    def listen(self, waits=True):
        """execd's socket opens when its time has come."""
        if self.lock.acquire(blocking=waits):
            try:
                if self.server and not self.server.is_open and time.monotonic() >= self.ready_at:
                    self.server.open()
            finally:
                self.lock.release()

    def handle(self, request):
        self.wait_thawed()
        return self.execd.handle(request)

    def wait_thawed(self):
        """While the container is frozen nothing answers; all goes on when it is thawed."""
        while self.frozen and not self.gone:
            time.sleep(0.05)
        if self.gone or self.sandbox.process is None:
            raise Closed("the container has ended")

    def died(self, sandbox, status):
        """The main process has ended: so does the container."""
        with self.lock:
            if self.gone or sandbox is not self.sandbox or sandbox.process is None or status is None:
                return
            if status == 0:
                self.set_state("Terminated", "CONTAINER_EXITED", "Sandbox container exited with code 0.")
            else:
                code = status >> 8 if status & 127 == 0 else 128 + (status & 127)
                self.set_state("Failed", "CONTAINER_EXITED_ERROR",
                               "Sandbox container exited with code %d." % code)
            self.halt()

    def halt(self):
        """Processes and execd's socket go; files stay."""
        if self.server:
            self.service.servers.remove(self.server)
            self.server.stop()
            self.server = None
        self.sandbox.stop()

    def close(self):
        with self.lock:
            self.gone = True
            self.frozen = False
            self.halt()
            self.sandbox.destroy()

    # -- pause

    def pause(self):
        if self.service.settings["runtime"] == "docker":
            self.sandbox.pause()
            self.frozen = True
            self.set_state("Paused", "CONTAINER_PAUSED", "Sandbox is paused.")
            return
        self.set_state("Pausing", "PAUSING", "Committing the root file system.")
        threading.Thread(target=self._drop, daemon=True).start()

    def _drop(self):
        in_time = self.service.takes("pause_ms")
        with self.lock:
            if self.gone or not in_time:
                return
            self.halt()
            remove_tree(self.sandbox.directory / "tmp")
            (self.sandbox.directory / "tmp").mkdir(exist_ok=True)
            (self.sandbox.directory / "tmp").chmod(0o1777)
            self.set_state("Paused", "PAUSED", "Sandbox is paused.")

    def resume(self):
        if self.service.settings["runtime"] == "docker":
            self.frozen = False
            self.sandbox.resume()
            self.set_state("Running", "CONTAINER_RUNNING", "Sandbox is running.")
            return
        self.set_state("Resuming", "RESUMING", "Starting a pod from the image.")
        threading.Thread(target=self._bring_back, daemon=True).start()

    def _bring_back(self):
        in_time = self.service.takes("pause_ms")
        with self.lock:
            if not self.gone and in_time:
                self.boot()
                self.set_state("Running", "POD_READY", "Sandbox is running.")

    # -- shown

    def status(self):
        return {"state": self.state, "reason": self.reason, "message": self.message,
                "lastTransitionAt": stamp(self.changed)}

    def shown(self):
        value = {"id": self.id, "status": self.status(), "metadata": self.metadata,
                 "createdAt": stamp(self.created), "entrypoint": self.value.get("entrypoint") or
                 ["tail", "-f", "/dev/null"]}
        if self.end:
            value["expiresAt"] = stamp(int(self.end * 1e6) * 1000)
        for key in ("extensions", "platform"):
            if self.value.get(key):
                value[key] = self.value[key]
        return value

    def listed(self):
        value = self.shown()
        if self.value.get("image"):
            value["image"] = {"uri": self.value["image"]["uri"]}
        else:
            value["snapshotId"] = self.value["snapshotId"]
        return value


class OpenSandbox(Service):
    name = "opensandbox"
    settings = {"runtime": "docker", "execd": "1.1.0", "pause": True, "execd_token": "", "strict": True,
                "timeout_max": 86400, "boxes_max": 200, "missing": "missing|nonexist|no-such",
                "create_ms": 0, "ready_ms": 100, "pause_ms": 200}

    def __init__(self, port=0, base=None):
        super().__init__(base)
        self.key = secrets.token_hex(16)
        self.spec = Spec("opensandbox_api")
        self.execd_spec = Spec("opensandbox_execd")
        self.snapshots = {}
        self.routes = Routes(
            ("POST", "/sandboxes", self.create), ("GET", "/sandboxes", self.list),
            ("GET", "/sandboxes/{id}", self.get), ("DELETE", "/sandboxes/{id}", self.delete),
            ("PATCH", "/sandboxes/{id}/metadata", self.patch),
            ("POST", "/sandboxes/{id}/pause", self.pause), ("POST", "/sandboxes/{id}/resume", self.resume),
            ("POST", "/sandboxes/{id}/renew-expiration", self.renew),
            ("GET", "/sandboxes/{id}/endpoints/{port}", self.endpoint),
            ("POST", "/sandboxes/{id}/snapshots", self.snapshot), ("GET", "/snapshots", self.list_snapshots),
            ("GET", "/snapshots/{id}", self.get_snapshot), ("DELETE", "/snapshots/{id}", self.delete_snapshot),
            ("GET", "/sandboxes/{id}/diagnostics/logs", self.logs),
            ("POST", "/metrics/events", lambda request: Reply(204)))
        self.api = self.listen("api", self.with_door(self.handle), port, idle=30)

    def environ(self):
        return {"OPEN_SANDBOX_DOMAIN": self.api.address, "OPEN_SANDBOX_API_KEY": self.key,
                "OPEN_SANDBOX_PROTOCOL": "http", "FAKE_URL": self.api.url}

    # -- requests

    def handle(self, request):
        try:
            reply = self.dispatch(request)
        except Exception as error:
            if hasattr(error, "reply"):
                error.reply.headers.append(("X-Request-ID", self.request_id(request)))
            raise
        reply.headers.append(("X-Request-ID", self.request_id(request)))
        return reply

    @staticmethod
    def request_id(request):
        return request.headers.get("X-Request-ID") or uuid.uuid4().hex

    def dispatch(self, request):
        if request.path == "/health":
            return json_reply({"status": "healthy"})
        path = request.path[3:] if request.path.startswith("/v1/") else request.path
        match = re.fullmatch(r"/sandboxes/([^/]+)/proxy/(\d+)(/.*)?", path)
        if match:
            return self.proxy(request, match[1], int(match[2]), match[3] or "/")
        self.check_key(request)
        if path != "/" and path.endswith("/"):
            where = request.path.rstrip("/") + ("?" + request.query if request.query else "")
            return Reply(307, [("Location", self.api.url + where)])
        request.path = path
        handler, known = self.routes.find(request.method, path)
        if handler is None:
            refuse(405 if known else 404, {"detail": "Method Not Allowed" if known else "Not Found"})
        return handler(request)

    def check_key(self, request):
        given = request.headers.get("OPEN-SANDBOX-API-KEY")
        if given != self.key:
            refuse(401, {"code": "INVALID_API_KEY" if given else "MISSING_API_KEY", "message":
                         "Authentication credentials are " + ("invalid." if given else "missing.")})

    def body(self, request, wants_object=True):
        """The JSON of a body, checked. 422 in FastAPI's shape."""
        data = request.body.read_all(4 << 20)
        value = None
        if data:
            try:
                value = json.loads(data)
            except (ValueError, RecursionError) as error:
                invalid(["body", 0], "JSON decode error", str(error))
        elif wants_object and self.spec.find(request.method, request.path)[0].wants_body:
            invalid(["body"], "Field required", None)
        if isinstance(value, dict) and not self.settings["strict"]:
            value = {key: each for key, each in value.items() if each is not None}
        elif isinstance(value, dict) and None in value.values() and request.method == "POST":
            invalid(["body"], "Value error, null for an absent field", value)
        broken = self.check(request, self.spec, value)
        if broken:
            invalid(["body"], broken[0], value)
        return value

    def box(self, box_id):
        with self.lock:
            box = self.boxes.get(box_id)
        if box is None:
            fail(404, self.code("SANDBOX_NOT_FOUND"), "Sandbox %s not found." % box_id)
        return box

    def code(self, what):
        return ("DOCKER::" if self.settings["runtime"] == "docker" else "KUBERNETES::") + what

    def proxy(self, request, box_id, port, path):
        """The server's own way to a sandbox's port; it needs no key, and has no HEAD."""
        if request.method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            refuse(405, {"detail": "Method Not Allowed"})
        box = self.box(box_id)
        box.listen()
        server = box.server
        if port != PORT or server is None or not server.is_open:
            fail(502, "GENERAL::UNKNOWN_ERROR", "Could not connect to the backend sandbox.")
        query = request.query  # decoded and encoded again: what is no UTF-8 doesn't pass
        for bad in set(re.findall(r"(?:%[89A-Fa-f][0-9A-Fa-f])+", query)):
            raw = bytes.fromhex(bad.replace("%", ""))
            mended = raw.decode("utf-8", "replace").encode()
            query = query.replace(bad, "".join("%%%02X" % byte for byte in mended))
        headers = Headers([pair for pair in request.headers.pairs
                           if pair[0].lower() != "open-sandbox-api-key"])
        inner = Request(request.method, path + ("?" + query if query else ""), headers, request.body,
                        request.conn)
        inner.entry = request.entry
        return box.handle(inner)

    # -- life

    def create(self, request):
        value = self.body(request)
        self.check_create(value)
        with self.lock:
            if len(self.boxes) >= self.settings["boxes_max"]:
                refuse(429, {"code": "POOL::EXHAUSTED", "message": "No sandbox is free."},
                       [("Retry-After", "1")])
        self.ended.wait(self.settings["create_ms"] / 1000)
        uri = (value.get("image") or {}).get("uri", "")
        if re.search(self.settings["missing"], uri):
            fail(500, self.code("SANDBOX_IMAGE_PULL_FAILED"), "Failed to pull image %s: 404 Client Error: "
                 "manifest unknown" % uri)
        directory = self.snapshots[value["snapshotId"]]["directory"] if value.get("snapshotId") else None
        box = Box(self, value, directory)
        shown = box.shown()  # it says Running, even if the main process has died at once
        shown["status"] = {**shown["status"], "state": "Running", "reason": "CONTAINER_RUNNING"}
        with self.lock:
            self.boxes[box.id] = box
        return json_reply(shown, 202)

    def check_create(self, value):
        if bool(value.get("image")) == bool(value.get("snapshotId")):
            invalid(["body"], "Value error, exactly one of image or snapshotId is required", value)
        if value.get("image") and not value.get("entrypoint"):
            invalid(["body"], "Value error, entrypoint must be provided with image", value)
        if value.get("snapshotId"):
            found = self.snapshots.get(value["snapshotId"])
            if found is None:
                fail(404, "SNAPSHOT::NOT_FOUND", "Snapshot not found.")
            if found["state"] != "Ready":
                fail(409, "SNAPSHOT::NOT_READY", "Snapshot is not ready.")
        timeout = value.get("timeout")
        if timeout is not None and timeout < 60:
            invalid(["body", "timeout"], "Input should be greater than or equal to 60", timeout)
        if timeout is not None and timeout > self.settings["timeout_max"]:
            fail(400, "SANDBOX::INVALID_PARAMETER", "Sandbox timeout %d exceeds the maximum of %d seconds." %
                 (timeout, self.settings["timeout_max"]))
        check_labels(value.get("metadata") or {})
        if self.settings["runtime"] == "kubernetes":
            for name, text in (value.get("resourceLimits") or {}).items():
                if not QUANTITY.fullmatch(text) and name != "gpu":
                    fail(400, "KUBERNETES::API_ERROR", "quantities must match the regular expression: " + text)

    def get(self, request, box_id):
        self.body(request)
        return json_reply(self.box(box_id).listed())

    def delete(self, request, box_id):
        self.body(request)
        self.box(box_id)
        with self.lock:
            box = self.boxes.pop(box_id, None)
        if box:
            box.close()
        return Reply(204)

    def list(self, request):
        self.body(request)
        page, size = int(request.arg("page") or 1), int(request.arg("pageSize") or 20)
        if size > 200 or size < 1 or page < 1:
            invalid(["query", "pageSize"], "Input should be less than or equal to 200", str(size))
        wanted = {value.lower() for key, value in request.args() if key == "state"}
        text = request.arg("metadata") or ""
        if any("=" not in pair for pair in filter(None, text.split("&"))):
            fail(400, "SANDBOX::INVALID_METADATA_FORMAT", "Invalid metadata format.")
        labels = dict(parse_qsl(text, keep_blank_values=True))
        with self.lock:
            boxes = sorted(self.boxes.values(), key=lambda box: box.created, reverse=True)
        found = [box for box in boxes if (not wanted or box.state.lower() in wanted) and
                 all(box.metadata.get(key) == value for key, value in labels.items())]
        pages = -(-len(found) // size)
        return json_reply({"items": [box.listed() for box in found[(page - 1) * size:page * size]],
                           "pagination": {"page": page, "pageSize": size, "totalItems": len(found),
                                          "totalPages": pages, "hasNextPage": page < pages}})

    def patch(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(box_id)
        check_labels({key: each or "" for key, each in value.items()})
        for key, each in value.items():
            if each is None:
                box.metadata.pop(key, None)
            else:
                box.metadata[key] = each
        return json_reply(box.listed())

    def pause(self, request, box_id):
        self.body(request)
        box = self.box(box_id)
        if not self.settings["pause"]:
            fail(400, "SANDBOX::API_NOT_SUPPORTED", "This deployment doesn't support pause.")
        with box.lock:
            if box.state == "Paused" and self.settings["runtime"] == "docker":
                fail(500, "DOCKER::SANDBOX_PAUSE_FAILED", "Failed to pause sandbox: 409 Client Error: "
                     "container is already paused")
            if box.state != "Running":
                fail(409, self.code("SANDBOX_NOT_RUNNING"), "Sandbox is not in a running state.")
            box.pause()
        return Reply(202)

    def resume(self, request, box_id):
        self.body(request)
        box = self.box(box_id)
        if not self.settings["pause"]:
            fail(400, "SANDBOX::API_NOT_SUPPORTED", "This deployment doesn't support resume.")
        with box.lock:
            if box.state != "Paused":
                fail(409, "DOCKER::SANDBOX_NOT_PAUSED" if self.settings["runtime"] == "docker" else
                     "KUBERNETES::INVALID_STATE", "Sandbox is not in a paused state.")
            box.resume()
        return Reply(202)

    def renew(self, request, box_id):
        value = self.body(request)
        box = self.box(box_id)
        moment = parse_time(value["expiresAt"])
        if moment is None:
            invalid(["body", "expiresAt"], "Input should be a valid datetime", value["expiresAt"])
        if moment <= time.time():
            fail(400, "SANDBOX::INVALID_EXPIRATION", "New expiration time must be in the future.")
        if box.end is None:
            fail(409, "SANDBOX::NO_EXPIRATION", "Sandbox has no expiration.")
        box.end = moment
        return json_reply({"expiresAt": stamp(int(moment * 1e6) * 1000)})

    def expire(self, box_id, seconds):
        with self.lock:
            self.boxes[box_id].end = time.time() + seconds

    def tick(self):
        with self.lock:
            boxes = list(self.boxes.values())
        for box in boxes:
            box.listen(waits=False)  # the others' sockets don't wait for one that ends
            if box.end is not None and box.end <= time.time():
                with self.lock:
                    is_ours = self.boxes.pop(box.id, None) is box
                if is_ours:
                    threading.Thread(target=box.close, daemon=True).start()

    # -- the way to execd

    def endpoint(self, request, box_id, port):
        self.body(request)
        box = self.box(box_id)
        if not port.isdigit() or not 1 <= int(port) <= 65535:
            fail(400, self.code("INVALID_PORT"), "Port must be between 1 and 65535.")
        proxied = (request.arg("use_server_proxy") or "false").lower() == "true"
        if request.arg("expires"):
            fail(400, "SANDBOX::API_NOT_SUPPORTED", "Signed routes are not supported.")
        if self.settings["runtime"] == "kubernetes" and box.state != "Running":
            fail(404, "KUBERNETES::POD_IP_NOT_AVAILABLE", "Pod IP is not available yet.")
        if proxied:
            where = "%s/v1/sandboxes/%s/proxy/%s" % (self.api.address, box.id, port)
        else:
            where = "%s/proxy/%s" % (box.address, port)
        value = {"endpoint": where}
        if box.token:
            value["headers"] = {"X-EXECD-ACCESS-TOKEN": box.token}
        return json_reply(value)

    # -- the rest

    def snapshot(self, request, box_id):
        value = self.body(request) or {}
        box = self.box(box_id)
        if box.state != "Running":
            fail(409, "SNAPSHOT::INVALID_SOURCE_STATE", "Sandbox is not running.")
        name = str(uuid.uuid4())
        found = {"id": name, "sandboxId": box.id, "name": value.get("name"), "state": "Creating",
                 "created": time.time_ns(), "directory": self.base / ("snapshot-" + name)}
        self.snapshots[name] = found

        def copy():
            box.sandbox.copy_to(found["directory"])
            found["state"] = "Ready"
        threading.Thread(target=copy, daemon=True).start()
        return json_reply(shown_snapshot(found), 202, [("Location", "/v1/snapshots/" + name)])

    def list_snapshots(self, request):
        self.body(request)
        found = [shown_snapshot(each) for each in self.snapshots.values()
                 if request.arg("sandboxId") in (None, each["sandboxId"])]
        return json_reply({"items": found, "pagination": {
            "page": 1, "pageSize": 20, "totalItems": len(found), "totalPages": 1, "hasNextPage": False}})

    def get_snapshot(self, request, name):
        self.body(request)
        if name not in self.snapshots:
            fail(404, "SNAPSHOT::NOT_FOUND", "Snapshot not found.")
        return json_reply(shown_snapshot(self.snapshots[name]))

    def delete_snapshot(self, request, name):
        self.get_snapshot(request, name)
        if self.snapshots[name]["state"] != "Ready":
            fail(409, "SNAPSHOT::IN_USE", "Snapshot is still being created.")
        remove_tree(self.snapshots.pop(name)["directory"])
        return Reply(204)

    def logs(self, request, box_id):
        box = self.box(box_id)
        if request.arg("scope"):
            fail(501, "DIAGNOSTICS_NOT_IMPLEMENTED", "Not implemented.")
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8"), ("Deprecation", "true")],
                     ("%s execd listens on %d\n" % (stamp(box.created), PORT)).encode())


def shown_snapshot(found):
    value = {"id": found["id"], "sandboxId": found["sandboxId"], "createdAt": stamp(found["created"]),
             "status": {"state": found["state"], "reason": "", "message": "",
                        "lastTransitionAt": stamp(found["created"])}}
    if found["name"]:
        value["name"] = found["name"]
    return value


def check_labels(metadata):
    for key, value in metadata.items():
        if key.startswith("opensandbox.io/"):
            fail(400, "SANDBOX::INVALID_METADATA_LABEL", "Metadata key '%s' is reserved." % key)
        if not LABEL_KEY.fullmatch(key) or not LABEL.fullmatch(value or ""):
            fail(400, "SANDBOX::INVALID_METADATA_LABEL", "Metadata '%s=%s' is not a valid label." % (key, value))


def parse_time(text):
    """Seconds since the epoch; None if it is no RFC 3339."""
    from datetime import datetime, timezone
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def invalid(where, message, given):
    refuse(422, {"detail": [{"type": "value_error", "loc": where, "msg": message, "input": given}]})


def fail(status, code, message):
    refuse(status, {"code": code, "message": message})


if __name__ == "__main__":
    main(OpenSandbox)
