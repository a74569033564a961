# SPDX-License-Identifier: Apache-2.0
"""A registry of images: as much of one as an engine needs to pull.

    with Registry() as registry:
        name = registry.add("tool", "/path/of/rootfs.tar", seconds=2)   # "127.0.0.1:PORT/tool:1"
"""

import hashlib
import http.server
import json
import threading
import time
import zlib
from pathlib import Path

LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        kind, body, seconds = self.server.found.get(self.path, (None, b"", 0))
        known = kind or self.path == "/v2/"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", kind or "application/json")
        self.send_header("Content-Length", str(len(body)))
        if kind:
            self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if not with_body:
            return
        step = max(1, len(body) // 20 + 1)
        for at in range(0, len(body), step):
            self.wfile.write(body[at:at + step])
            time.sleep(seconds / 20)

    def log_message(self, *_):
        pass


class Registry:
    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.found = {}
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def add(self, name, rootfs, seconds=0.0):
        """An image with this one layer, whose sending takes so long."""
        tar = Path(rootfs).read_bytes()
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        layer = packer.compress(tar) + packer.flush()
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": digest(config)},
            "layers": [{"mediaType": LAYER, "size": len(layer), "digest": digest(layer)}]}).encode()
        base = "/v2/%s/" % name
        self.server.found.update({
            base + "manifests/1": (MANIFEST, manifest, 0),
            base + "manifests/" + digest(manifest): (MANIFEST, manifest, 0),
            base + "blobs/" + digest(config): (CONFIG, config, 0),
            base + "blobs/" + digest(layer): (LAYER, layer, seconds)})
        return "127.0.0.1:%d/%s:1" % (self.server.server_port, name)
