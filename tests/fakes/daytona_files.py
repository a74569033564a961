# SPDX-License-Identifier: Apache-2.0
"""The toolbox's files, with all their surprises.

Kept as they are there: access is checked as the sandbox's own user; stat follows links, and what
dangles is missing from lists; move refuses what exists; a directory is deleted with `recursive`
only, and then with all in it; uploads truncate in place; three generations of error bodies.
"""

import errno
import fnmatch
import os
import re
import stat
import tempfile
import time

from common import content, gostyle, multipart
from common.http import Answer, Reply

JSON = [("Content-Type", "application/json; charset=utf-8")]
BOUNDARY = b"DAYTONA-FILE-BOUNDARY"


class Files:
    """The files of one sandbox."""

    def __init__(self, toolbox):
        self.toolbox = toolbox

    @property
    def root(self):
        return self.toolbox.root

    def routes(self):
        tail = "" if self.toolbox.since("0.178.0") else "/"
        found = [("GET", "/files" + tail, self.list), ("GET", "/files/info", self.info),
                 ("GET", "/files/download", self.download), ("POST", "/files/bulk-upload", self.bulk_upload),
                 ("POST", "/files/upload", self.upload), ("POST", "/files/folder", self.make_folder),
                 ("POST", "/files/move", self.move),
                 ("DELETE", "/files" + ("" if self.toolbox.since("0.189.0") else "/"), self.delete),
                 ("POST", "/files/permissions", self.permissions),
                 ("POST", "/files/bulk-download", self.bulk_download), ("GET", "/files/search", self.search),
                 ("GET", "/files/find", self.find), ("POST", "/files/replace", self.replace)]
        if self.toolbox.since("0.201.0"):
            found.append(("POST", "/files/upload-v2", self.upload_new))
        return found

    # -- errors

    def refuse(self, request, status, message, code=None):
        """An error in this version's form: the status line is all that can be relied on."""
        if (0, 148, 0) <= self.toolbox.version < (0, 201, 0):
            raise Answer(Reply(status))
        value = {"statusCode": status, "message": message, "code": code or {404: "NOT_FOUND", 403: "FORBIDDEN"}.get(
            status, "BAD_REQUEST"), "timestamp": gostyle.time_nano(time.time_ns()), "path": request.path,
            "method": request.method}
        if self.toolbox.since("0.201.0"):
            value["source"] = "DAYTONA_DAEMON"
            value["code"] = {404: "FILE_NOT_FOUND", 403: "FILE_ACCESS_DENIED"}.get(status, value["code"])
        elif (0, 138, 0) <= self.toolbox.version:
            value["statusCode"] = 500
        raise Answer(Reply(status, JSON, gostyle.dumps(value)))

    def failed(self, request, what, path, error, else_status=400):
        """404, 403, or 400 for everything else."""
        status = {errno.ENOENT: 404, errno.EACCES: 403}.get(error.errno, else_status)
        self.refuse(request, status, gostyle.path_error(what, path, error))

    def path(self, request, name="path"):
        text = self.toolbox.arg(request, name)
        if not text:
            self.refuse(request, 400, name + " is required")
        return self.toolbox.resolve(text)

    # -- looking

    def shown(self, name, info, path=None):
        inside = self.toolbox.box.sandbox.inside_id
        ns = info.st_mtime_ns
        fraction = ("%09d" % (ns % 10**9)).rstrip("0")
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ns // 10**9))
        value = {"name": name, "size": info.st_size, "mode": gostyle.mode_text(info.st_mode),
                 "modTime": "%s%s +0000 UTC" % (local, "." + fraction if fraction else ""),
                 "isDir": stat.S_ISDIR(info.st_mode), "owner": str(inside(info.st_uid)),
                 "group": str(inside(info.st_gid)), "permissions": "%04o" % (info.st_mode & 0o777)}
        if self.toolbox.since("0.184.0"):
            value["modifiedAt"] = gostyle.time_nano(ns)
        if path is not None and self.toolbox.since("0.194.0"):
            value["path"] = path
        return value

    def info(self, request):
        path = self.path(request)
        try:
            with self.toolbox.as_user():
                info = self.root.stat(path)
        except OSError as error:
            self.failed(request, "stat", path, error)
        return Reply(200, JSON, gostyle.dumps(self.shown(os.path.basename(path), info)))

    def list(self, request):
        path = self.toolbox.resolve(self.toolbox.arg(request, "path") or ".")
        depth = int(request.arg("depth") or 1) if self.toolbox.since("0.194.0") else 1
        if depth < 1:
            self.refuse(request, 400, "depth must be at least 1")
        found = []
        try:
            with self.toolbox.as_user():
                self.walk(path, path, depth, found)
        except OSError as error:
            self.failed(request, "open", path, error)
        return Reply(200, JSON, gostyle.dumps(found))

    def walk(self, top, path, depth, found):
        for name in self.root.names(path):
            whole = path.rstrip("/") + "/" + name
            try:
                info = self.root.stat(whole)
            except OSError:
                continue  # it dangles, or has gone
            found.append(self.shown(name, info, os.path.relpath(whole, top)))
            try:
                if depth > 1 and stat.S_ISDIR(self.root.lstat(whole).st_mode):
                    self.walk(top, whole, depth - 1, found)
            except OSError:
                continue

    # -- reading

    def download(self, request):
        path = self.path(request)
        try:
            with self.toolbox.as_user():
                if stat.S_ISDIR(self.root.stat(path).st_mode):
                    self.refuse(request, 400, "path must be a file")
                fd = self.root.open(path)
        except PermissionError:
            return Reply(403, [("Content-Type", "text/plain; charset=utf-8")], b"403 Forbidden\n")
        except OSError as error:
            self.failed(request, "open", path, error)
        name = gostyle.utf8(os.path.basename(path)).encode().decode("latin-1").replace("\n", "").replace("\r", "")
        return content.serve(request, fd, [
            ("Content-Description", "File Transfer"), ("Content-Disposition", "attachment; filename=" + name)],
            "application/octet-stream")

    def bulk_download(self, request):
        paths = self.toolbox.body(request).get("paths") or []
        if not paths:
            self.refuse(request, 400, "request body must be {\"paths\": [ ... ]} and non-empty")
        kind = "multipart/form-data; boundary=" + BOUNDARY.decode()
        return Reply(200, [("Content-Type", kind)], self.parts(paths))

    def parts(self, paths):
        for sent in paths:
            path = self.toolbox.resolve(sent)
            try:
                with self.toolbox.as_user():
                    if stat.S_ISDIR(self.root.stat(path).st_mode):
                        raise IsADirectoryError(errno.EISDIR, "")
                    fd = self.root.open(path)
            except OSError as error:
                code, status = {errno.ENOENT: ("FILE_NOT_FOUND", 404), errno.EACCES: ("FILE_ACCESS_DENIED", 403)}.get(
                    error.errno, ("BAD_REQUEST", 400))
                yield self.part_head("error", sent, "application/json") + gostyle.dumps(
                    {"message": gostyle.path_error("open", path, error), "statusCode": status, "code": code}) + b"\r\n"
                continue
            with open(fd, "rb") as file:
                size = os.fstat(fd).st_size
                yield self.part_head("file", sent, "application/octet-stream", size)
                while data := file.read(1 << 18):
                    yield data
            yield b"\r\n"
        yield b"--" + BOUNDARY + b"--\r\n"

    @staticmethod
    def part_head(name, path, kind, size=None):
        quoted = path.replace("\\", "\\\\").replace('"', '\\"')
        text = 'Content-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: %s\r\n' % (
            name, quoted, kind)
        if size is not None:
            text += "Content-Length: %d\r\n" % size
        return b"--" + BOUNDARY + b"\r\n" + os.fsencode(text) + b"\r\n"

    # -- writing

    def put(self, path, pieces, parents=0o755):
        """Truncate and fill, in place. OSError."""
        with self.toolbox.as_user():
            self.root.make_dirs(os.path.dirname(path), parents)
            fd = self.root.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        size = 0
        with open(fd, "wb", buffering=0) as file:
            for piece in pieces:
                view = memoryview(piece)
                size += len(view)
                while view:
                    view = view[file.write(view):]
        return size

    def bulk_upload(self, request):
        paths, done, errors = {}, [], []
        try:
            for part in multipart.parts(request):
                match = re.fullmatch(r"files\[(\d+)\]\.(path|file)", part.name or "")
                if not match:
                    continue
                if match[2] == "path":
                    paths[match[1]] = os.fsdecode(part.read_all()).strip()
                    continue
                path = paths.get(match[1])
                if not path:
                    errors.append("file %s: missing .path metadata" % match[1])
                    continue
                path = self.toolbox.resolve(path)
                try:
                    done.append({"path": path, "bytes": self.put(path, iter(part.read, b""))})
                except OSError as error:
                    errors.append("%s: create: %s" % (path, gostyle.path_error("open", path, error)))
        except multipart.Malformed as error:
            errors.append("reading multipart: %s" % error)
        if errors:
            return Reply(400, JSON, gostyle.dumps({"errors": errors, "files": done or None}))
        return Reply(200, JSON, gostyle.dumps({"files": done}))

    def upload(self, request):
        """The old one: all of it first, then the file."""
        path = self.path(request)
        try:
            for part in multipart.parts(request):
                if part.name != "file":
                    continue
                with tempfile.SpooledTemporaryFile(32 << 20) as spool:
                    while piece := part.read():
                        spool.write(piece)
                    spool.seek(0)
                    self.put(path, iter(lambda: spool.read(1 << 18), b""), 0o750)
                return Reply(200)
        except multipart.Malformed as error:
            self.refuse(request, 400, str(error))
        except OSError as error:
            self.refuse(request, 400, gostyle.path_error("open", path, error))
        self.refuse(request, 400, "http: no such file")

    def upload_new(self, request):
        path = self.path(request)
        pieces = iter(request.body.read, b"")
        try:
            if request.headers.get("Content-Type", "").startswith("multipart/form-data"):
                part = next((each for each in multipart.parts(request) if each.name == "file"), None)
                if part is None:
                    self.refuse(request, 400, "http: no such file")
                pieces = iter(part.read, b"")
            self.put(path, pieces)
        except multipart.Malformed as error:
            self.refuse(request, 400, str(error))
        except OSError as error:
            self.failed(request, "open", path, error)
        return Reply(200, JSON, gostyle.dumps({"name": os.path.basename(path), "path": path, "type": "file"}))

    # -- changing

    def mode(self, request, text, default=None):
        """Octal digits; bits above 0777 are dropped."""
        if not text and default is not None:
            return default
        try:
            return int(text, 8) & 0o777
        except ValueError:
            self.refuse(request, 400, "invalid mode")

    def make_folder(self, request):
        path = self.path(request)
        mode = self.mode(request, self.toolbox.arg(request, "mode"))
        try:
            with self.toolbox.as_user():
                self.root.make_dirs(path, mode)
        except OSError as error:
            self.refuse(request, 400, gostyle.path_error("mkdir", path, error))
        return Reply(201)

    def move(self, request):
        source, to = self.path(request, "source"), self.path(request, "destination")
        try:
            with self.toolbox.as_user():
                self.root.stat(source)
                self.root.stat(os.path.dirname(to))
                if self.root.exists(to):
                    raise Answer(Reply(409) if not self.toolbox.since("0.201.0") else Reply(
                        409, JSON, gostyle.dumps({"statusCode": 409, "code": "CONFLICT", "source": "DAYTONA_DAEMON",
                                                  "message": "destination already exists"})))
                self.root.rename(source, to)
        except OSError as error:
            status = 404 if isinstance(error, FileNotFoundError) else 400
            self.refuse(request, status, "rename %s %s: %s" % (source, to, gostyle.error_text(error.errno)))
        return Reply(200)

    def delete(self, request):
        path = self.path(request)
        try:
            with self.toolbox.as_user():
                info = self.root.stat(path)
                if stat.S_ISDIR(info.st_mode) and request.arg("recursive") != "true":
                    self.refuse(request, 400, "cannot delete directory without recursive flag")
                if request.arg("recursive") == "true":
                    self.root.remove_all(path, (self.toolbox.user.uid, self.toolbox.user.gid))
                else:
                    self.root.unlink(path)
        except OSError as error:
            status = 404 if isinstance(error, FileNotFoundError) else 400
            self.refuse(request, status, gostyle.path_error("remove", path, error))
        return Reply(204)

    def permissions(self, request):
        path = self.path(request)
        owner, group = request.arg("owner"), request.arg("group")
        try:
            with self.toolbox.as_user():
                info = self.root.stat(path)
                if request.arg("mode"):
                    self.root.chmod(path, self.mode(request, request.arg("mode")))
                if owner or group:
                    uid = self.number(request, owner, "passwd") if owner else info.st_uid
                    gid = self.number(request, group, "group") if group else info.st_gid
                    self.root.chown(path, uid, gid, follow=True)
        except OSError as error:
            status = 404 if isinstance(error, FileNotFoundError) else 400
            self.refuse(request, status, gostyle.path_error("chmod", path, error))
        return Reply(200)

    def number(self, request, name, file):
        for line in os.fsdecode(self.root.read("/etc/" + file)).splitlines():
            words = line.split(":")
            if len(words) > 2 and name in (words[0], words[2]):
                return int(words[2])
        if name.isdigit():
            return int(name)
        self.refuse(request, 400, "unknown user or group " + name)

    # -- searching

    def below(self, path):
        """Each (path, name, lstat) below a directory; what can't be read is passed over."""
        try:
            entries = self.root.entries(path)
        except OSError:
            return
        for name, info in entries:
            whole = path.rstrip("/") + "/" + name
            if info:
                yield whole, name, info
                if stat.S_ISDIR(info.st_mode):
                    yield from self.below(whole)

    def search(self, request):
        path, pattern = self.path(request), self.toolbox.arg(request, "pattern")
        if not pattern or not self.root.exists(path):
            self.refuse(request, 400, "path and pattern are required")
        with self.toolbox.as_user():
            found = [whole for whole, name, _ in self.below(path) if fnmatch.fnmatchcase(name, pattern)]
        return Reply(200, JSON, gostyle.dumps({"files": found}))

    def find(self, request):
        path, pattern = self.path(request), self.toolbox.arg(request, "pattern")
        if not pattern or not self.root.exists(path):
            self.refuse(request, 400, "path and pattern are required")
        found = []
        with self.toolbox.as_user():
            for whole, _, info in self.below(path):
                if stat.S_ISREG(info.st_mode):
                    found += self.matches(whole, os.fsencode(pattern))
        return Reply(200, JSON, gostyle.dumps(found))

    def matches(self, path, pattern):
        try:
            text = self.root.read(path)
        except OSError:
            return []
        if b"\0" in text[:512]:
            return []
        return [{"file": path, "line": number, "content": os.fsdecode(line)}
                for number, line in enumerate(text.split(b"\n"), 1) if pattern in line]

    def replace(self, request):
        value = self.toolbox.body(request)
        found = []
        for sent in value.get("files") or []:
            path = self.toolbox.resolve(sent)
            try:
                with self.toolbox.as_user():
                    text = self.root.read(path).replace(os.fsencode(value["pattern"]), os.fsencode(value["newValue"]))
                    self.root.write(path, text)
                found.append({"file": sent, "success": True})
            except OSError as error:
                found.append({"file": sent, "success": False, "error": gostyle.path_error("open", path, error)})
        return Reply(200, JSON, gostyle.dumps(found))
