# SPDX-License-Identifier: Apache-2.0
"""execd's files, with all their surprises.

Kept as they are there: variables are expanded in every path; mode is octal digits read as a decimal
number; uploads truncate in place, and only after all of the body has come; mv refuses what exists;
DELETE /directories is rm -rf of anything; a download of a directory breaks off.
"""

import email.utils
import fnmatch
import json
import os
import stat
import tempfile

from common import content, gostyle, multipart
from common.http import Closed, FilePart, Reply

from opensandbox_answers import fail, json_answer, runtime_error

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


def mode_digits(mode):
    """0o755 -> 755"""
    return int("%o" % (mode & 0o777))


def mode_bits(digits):
    """755 -> 0o755; ValueError for an 8 or a 9."""
    return int(str(digits), 8) & 0o777


class Files:
    """The files of one sandbox, through execd."""

    def __init__(self, execd):
        self.execd = execd

    @property
    def root(self):
        root = self.execd.root
        if root is None:
            raise Closed("the container has ended")
        return root

    def routes(self):
        found = [("GET", "/files/info", self.info), ("GET", "/files/search", self.search),
                 ("GET", "/files/download", self.download), ("POST", "/files/upload", self.upload),
                 ("POST", "/files/mv", self.move), ("DELETE", "/files", self.delete),
                 ("POST", "/files/permissions", self.permissions), ("POST", "/files/replace", self.replace),
                 ("POST", "/directories", self.make_directories),
                 ("DELETE", "/directories", self.delete_directories)]
        if self.execd.since("1.0.19"):
            found.append(("GET", "/directories/list", self.list))
        return found

    def path(self, request, name="path"):
        self.execd.check_query(request)
        path = request.arg(name)
        if not path:
            fail(400, "MISSING_QUERY", "missing query parameter '%s'" % name)
        return self.execd.expand(path)

    def paths(self, request):
        """(as sent, expanded) of each path."""
        self.execd.check_query(request)
        return [(value, self.execd.expand(value)) for key, value in request.args() if key == "path"]

    # -- looking

    def shown(self, path, info):
        name_of = self.execd.box.sandbox.name_of
        value = {"path": path, "size": info.st_size,
                 "modified_at": gostyle.time_nano(info.st_mtime_ns),
                 "created_at": gostyle.time_nano(info.st_ctime_ns), "owner": name_of(info.st_uid),
                 "group": name_of(info.st_gid), "mode": mode_digits(info.st_mode)}
        if self.execd.since("1.0.19"):
            value["type"] = KINDS.get(stat.S_IFMT(info.st_mode), "other")
        return value

    def look(self, path):
        return self.root.lstat(path) if self.execd.since("1.0.19") else self.root.stat(path)

    def info(self, request):
        found = {}
        for sent, path in self.paths(request):
            try:
                found[sent] = self.shown(path, self.look(path))
            except FileNotFoundError as error:
                text = "file not found: %s: %s" % (path, gostyle.path_error("lstat", path, error))
                if self.execd.since("1.0.19"):
                    fail(404, "FILE_NOT_FOUND", "file not found. " + text)
                fail(500, "RUNTIME_ERROR", "error accessing file: " + text)
            except OSError as error:
                runtime_error("lstat", path, error)
        return json_answer(found)

    def list(self, request):
        path = self.path(request)
        depth = int(request.arg("depth") or 1)
        try:
            info = self.root.lstat(path)
        except OSError as error:
            runtime_error("lstat", path, error)
        if not stat.S_ISDIR(info.st_mode):
            fail(400, "INVALID_FILE", "path is not a directory: " + path)
        found = []
        self.walk(path, depth, found)
        return json_answer(found)

    def walk(self, path, depth, found):
        if depth < 1:
            return
        try:
            entries = self.root.entries(path)
        except OSError as error:
            fail(500, "RUNTIME_ERROR", "error listing directory: " + gostyle.path_error("open", path, error))
        for name, info in entries:
            whole = path.rstrip("/") + "/" + name
            if info is None:
                fail(500, "RUNTIME_ERROR", "error listing directory: lstat %s: no such file or directory" % whole)
            found.append(self.shown(whole, info))
            if stat.S_ISDIR(info.st_mode):
                self.walk(whole, depth - 1, found)

    def search(self, request):
        path = self.path(request)
        pattern = request.arg("pattern") or "**"
        if not self.root.exists(path):
            fail(404, "FILE_NOT_FOUND", "file not found. stat %s: no such file or directory" % path)
        found = []
        self.search_in(path, pattern, found)
        return json_answer(found)

    def search_in(self, path, pattern, found):
        try:
            entries = self.root.entries(path)
        except OSError as error:
            fail(500, "RUNTIME_ERROR", "error searching files: " + gostyle.path_error("open", path, error))
        for name, info in entries:
            whole = path.rstrip("/") + "/" + name
            if info and stat.S_ISDIR(info.st_mode):
                self.search_in(whole, pattern, found)
            elif info and fnmatch.fnmatchcase(name, pattern):
                found.append(self.shown(whole, info))

    # -- reading

    def download(self, request):
        path = self.path(request)
        lines = request.arg("offset") is not None or request.arg("limit") is not None
        if lines and "Range" in request.headers:
            fail(400, "INVALID_REQUEST_BODY", "Range header can't be combined with offset or limit")
        try:
            fd = self.root.open(path)  # a FIFO blocks here, as it does there
        except OSError as error:
            runtime_error("open", path, error)
        info = os.fstat(fd)
        name = gostyle.utf8(os.path.basename(path)).encode().decode("latin-1").replace("\n", "").replace("\r", "")
        headers = [("Content-Type", "application/octet-stream"), ("Content-Disposition", "attachment; filename=" + name),
                   ("Last-Modified", email.utils.formatdate(int(info.st_mtime), usegmt=True))]
        if stat.S_ISDIR(info.st_mode):
            os.close(fd)
            return Reply(200, headers, broken(request.conn), length=(1 << 63) - 1)
        if os.readlink("/proc/self/fd/%d" % fd).startswith(("/proc/", "/sys/")):  # its path may have gone meanwhile
            os.close(fd)
            fail(500, "RUNTIME_ERROR", "error accessing file: seeker can't seek")
        if lines:
            return self.lines(request, fd, headers)
        wanted = request.headers.get("Range")
        if not wanted or info.st_size == 0:
            return Reply(200, headers, FilePart(fd, 0, info.st_size))
        try:
            first, count = content.parse_range(wanted.partition(",")[0], info.st_size)
        except ValueError:
            os.close(fd)
            return Reply(416, [("Content-Range", "bytes */%d" % info.st_size)])
        headers.append(("Content-Range", "bytes %d-%d/%d" % (first, first + count - 1, info.st_size)))
        return Reply(206, headers, FilePart(fd, first, count))

    @staticmethod
    def lines(request, fd, headers):
        first = int(request.arg("offset") or 1)
        count = int(request.arg("limit") or 1 << 40)
        with open(fd, "rb") as file:
            found = [line for number, line in enumerate(file, 1) if first <= number < first + count]
        return Reply(200, headers, b"".join(found))

    # -- writing

    def upload(self, request):
        """All of the body first; then each pair."""
        metadata, files = [], []
        try:
            for part in multipart.parts(request):
                if part.name == "metadata" and part.filename is not None:
                    metadata.append(part.read_all())
                elif part.name == "file" and part.filename is not None:
                    spool = tempfile.SpooledTemporaryFile(32 << 20)
                    while piece := part.read():
                        spool.write(piece)
                    files.append(spool)
            return self.uploaded(metadata, files)
        except multipart.Malformed as error:
            fail(400, "INVALID_FILE", "error parsing multipart form: %s" % error)
        finally:
            for each in files:
                each.close()

    def uploaded(self, metadata, files):
        if not metadata:
            fail(400, "INVALID_FILE_METADATA", "metadata file is missing")
        if not files:
            fail(400, "INVALID_FILE_CONTENT", "file content is missing")
        if len(metadata) != len(files):
            fail(400, "INVALID_FILE", "metadata and file count mismatch: %d vs %d" % (len(metadata), len(files)))
        for text, spool in zip(metadata, files):
            try:
                value = json.loads(text)
                path = value["path"]
            except (ValueError, KeyError, TypeError):
                fail(400, "INVALID_FILE_METADATA", "invalid metadata format")
            if not isinstance(path, str) or not path:
                fail(400, "INVALID_FILE_METADATA", "metadata path is empty")
            self.put(self.execd.expand(path), value, spool)
        return Reply(200)

    def put(self, path, value, spool):
        try:
            self.root.make_dirs(os.path.dirname(path), 0o755)
            fd = self.root.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o755)
        except OSError as error:
            runtime_error("open", path, error)
        spool.seek(0)
        with open(fd, "wb", buffering=0) as file:
            try:
                while piece := spool.read(1 << 20):
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view):]
                os.fsync(fd)
            except OSError as error:
                runtime_error("write", path, error)
        self.change(self.execd.expand(path), value)  # once more: what a value held is expanded, too

    def change(self, path, value):
        """Mode and owner; links are followed, mode 0 is none."""
        if value.get("mode"):
            try:
                self.root.chmod(path, mode_bits(value["mode"]))
            except ValueError:
                fail(500, "RUNTIME_ERROR", "error changing permissions: strconv.ParseUint: parsing \"%s\": "
                     "invalid syntax" % value["mode"])
            except OSError as error:
                fail(500, "RUNTIME_ERROR", "error changing permissions: " + gostyle.path_error("chmod", path, error))
        if not value.get("owner") and not value.get("group"):
            return
        try:
            now = self.root.stat(path)
            uid, gid = now.st_uid, now.st_gid
            if value.get("owner"):
                uid = self.number(value["owner"], "user")
            if value.get("group"):
                gid = self.number(value["group"], "group")
            self.root.chown(path, uid, gid, follow=True)
        except OSError as error:
            fail(500, "RUNTIME_ERROR", "error changing ownership: " + gostyle.path_error("chown", path, error))

    def number(self, name, kind):
        """By name only."""
        file = "/etc/passwd" if kind == "user" else "/etc/group"
        for line in os.fsdecode(self.root.read(file)).splitlines():
            words = line.split(":")
            if len(words) > 2 and words[0] == name:
                return int(words[2])
        fail(500, "RUNTIME_ERROR", "error changing ownership: %s: unknown %s %s" % (kind, kind, name))

    def move(self, request):
        for each in self.execd.body(request):
            source, to = self.execd.expand(each["src"]), self.execd.expand(each["dest"])
            try:
                self.root.stat(source)
            except OSError as error:
                runtime_error("stat", source, error)
            if self.root.exists(to):
                fail(500, "RUNTIME_ERROR", "error accessing file: destination path already exists: " + to)
            try:
                self.root.make_dirs(os.path.dirname(to), 0o755)
                self.root.rename(source, to)
            except OSError as error:
                fail(500, "RUNTIME_ERROR", "error accessing file: rename %s %s: %s" % (
                    source, to, gostyle.error_text(error.errno)))
        return Reply(200)

    def delete(self, request):
        for _, path in self.paths(request):
            try:
                info = self.root.stat(path)
            except FileNotFoundError:
                continue  # a dangling link, too
            except OSError as error:
                runtime_error("stat", path, error)
            if stat.S_ISDIR(info.st_mode):
                fail(500, "RUNTIME_ERROR", "error accessing file: path is a directory: " + path)
            try:
                self.root.unlink(path)
            except OSError as error:
                runtime_error("remove", path, error)
        return Reply(200)

    def make_directories(self, request):
        for sent, value in self.execd.body(request).items():
            path = self.execd.expand(sent)
            is_new = not self.root.exists(path)
            try:
                self.root.make_dirs(path, 0o755)
            except OSError as error:
                fail(500, "RUNTIME_ERROR", "error creating directory: " + gostyle.path_error("mkdir", path, error))
            if is_new or not self.execd.since("1.0.19"):
                self.change(path, value or {})
        return Reply(200)

    def delete_directories(self, request):
        for _, path in self.paths(request):
            try:
                self.root.remove_all(path)
            except OSError as error:
                fail(500, "RUNTIME_ERROR", "error deleting directory: " + gostyle.path_error("unlinkat", path, error))
        return Reply(200)

    def permissions(self, request):
        for sent, value in self.execd.body(request).items():
            path = self.execd.expand(sent)
            if not self.root.exists(path):
                fail(500, "RUNTIME_ERROR", "error changing permissions: chmod %s: no such file or directory" % path)
            self.change(path, value)
        return Reply(200)

    def replace(self, request):
        found = {}
        for sent, value in self.execd.body(request).items():
            path = self.execd.expand(sent)
            try:
                text = self.root.read(path)
                old = value["old"].encode("utf-8", "surrogateescape")
                found[sent] = {"replacedCount": text.count(old)}
                mode = self.root.stat(path).st_mode & 0o777
                self.root.write(path, text.replace(old, value["new"].encode("utf-8", "surrogateescape")), mode)
            except OSError as error:
                runtime_error("open", path, error)
        return json_answer(found) if request.arg("verbose") == "true" else Reply(200)


def broken(conn):
    """What comes of a directory's content."""
    conn.reset()
    raise Closed("a directory has no content")
    yield b""
