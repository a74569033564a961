# SPDX-License-Identifier: Apache-2.0
"""envd's filesystem.Filesystem and /files, with all their surprises.

Kept as they are there: everything is done as root, whoever asks; a link's type is its target's and
its target is resolved; one name that is no UTF-8 fails a whole listing; Remove is rm -rf and never
fails for what is absent; Move makes parents; an upload truncates in place and changes the owner.
"""

import json
import os
import stat
import threading
import zlib

from common import connect, content, gostyle, multipart
from common.connect import ConnectError
from common.http import Answer, Closed, Reply

MESSAGES = connect.Messages({
    "Stat": {"path": "string"},
    "ListDir": {"path": "string", "depth": "uint32"},
    "MakeDir": {"path": "string"},
    "Move": {"source": "string", "destination": "string"},
    "Remove": {"path": "string"},
})
XATTR = "user.e2b."


def failure(what, path, error, missing="file not found"):
    """The ConnectError of an OSError."""
    text = gostyle.path_error(what, path, error)
    if isinstance(error, FileNotFoundError):
        return ConnectError("not_found", "%s: %s" % (missing, text))
    return ConnectError("internal", "error getting file info: " + text)


class Files:
    """The files of one sandbox."""

    def __init__(self, envd):
        self.envd = envd

    @property
    def root(self):
        return self.envd.box.sandbox.root

    def call(self, method, request):
        """The Reply of one RPC, None if there is none of that name."""
        calls = {"Stat": self._stat, "ListDir": self._list, "MakeDir": self._make_dir,
                 "Move": self._move, "Remove": self._remove}
        if method not in calls:
            return None

        def call(value):
            unknown = []
            message = MESSAGES.parse(method, value, unknown)
            for text in unknown:
                self.envd.journal.violation(request, text)
            user = self.envd.user(request)
            return calls[method](message, user)
        return connect.unary(request, call)

    def _path(self, message, user, key="path"):
        path = message.get(key, "")
        if "\0" in path:
            raise ConnectError("invalid_argument", "stat: invalid argument")
        return self.envd.resolve(path, user)

    # -- entries

    def entry(self, path, name=None):
        """EntryInfo; OSError when it isn't there."""
        info = self.root.lstat(path)
        found = {"name": os.path.basename(name or path) or "/", "path": path}
        mode, target = info.st_mode, None
        if stat.S_ISLNK(mode):
            try:
                target = self.root.real(path)
                mode = self.root.stat(path).st_mode
            except OSError:
                target, mode = path, 0
        if stat.S_ISREG(mode):
            found["type"] = "FILE_TYPE_FILE"
        elif stat.S_ISDIR(mode):
            found["type"] = "FILE_TYPE_DIRECTORY"
        if self.envd.since("0.2.5"):
            self._more(found, path, info, mode, target)
        return found

    def _more(self, found, path, info, mode, target):
        if info.st_size:
            found["size"] = str(info.st_size)
        if stat.S_IMODE(mode) & 0o777:
            found["mode"] = stat.S_IMODE(mode) & 0o777
        found["permissions"] = gostyle.mode_text(info.st_mode)
        name_of = self.envd.box.sandbox.name_of
        found["owner"], found["group"] = name_of(info.st_uid), name_of(info.st_gid)
        if info.st_mtime_ns:
            found["modifiedTime"] = gostyle.time_proto(info.st_mtime_ns)
        if target is not None:
            found["symlinkTarget"] = target
        elif metadata := self._metadata(path, info):
            found["metadata"] = metadata

    def _metadata(self, path, info):
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            return {}
        try:
            with self.root.handle(path, False) as fd:
                place = "/proc/self/fd/%d" % fd
                return {key[len(XATTR):]: os.getxattr(place, key).decode("utf-8", "replace")
                        for key in os.listxattr(place) if key.startswith(XATTR)}
        except OSError:
            return {}

    # -- the service's calls

    def _stat(self, message, user):
        path = self._path(message, user)
        try:
            return {"entry": self.entry(path)}
        except OSError as error:
            raise failure("lstat", path, error) from None

    def _list(self, message, user):
        path = self._path(message, user)
        depth = message.get("depth", 0) or 1
        if not self.envd.since("0.1.6"):
            depth = 1
        try:
            info = self.root.stat(path)
        except FileNotFoundError as error:
            raise failure("lstat", path, error, "path not found") from None
        except OSError as error:
            if error.errno == 40:  # ELOOP
                raise ConnectError("failed_precondition", "cyclic symlink or chain >255 at \"%s\"" % path) from None
            raise failure("lstat", path, error) from None
        if not stat.S_ISDIR(info.st_mode):
            raise ConnectError("invalid_argument", "path is not a directory: " + path)
        entries = []
        self._walk(path, depth, entries, True)
        return {"entries": entries} if entries else {}

    def _walk(self, path, depth, entries, follow=False):
        try:
            names = self.root.names(path, follow)
        except OSError as error:
            raise ConnectError("internal", "error reading directory: " +
                               gostyle.path_error("open", path, error)) from None
        for name in names:
            whole = path.rstrip("/") + "/" + name
            try:
                found = self.entry(whole)
                is_dir = found.get("permissions", "").startswith("d") or (
                    found.get("type") == "FILE_TYPE_DIRECTORY" and
                    stat.S_ISDIR(self.root.lstat(whole).st_mode))
                entries.append(found)
                if is_dir and depth > 1:
                    self._walk(whole, depth - 1, entries)
                elif is_dir:
                    os.close(self.root.open(whole, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
            except OSError as error:
                raise ConnectError("internal", "error reading directory: " +
                                   gostyle.path_error("open", whole, error)) from None

    def _make_dir(self, message, user):
        path = self._path(message, user)
        try:
            mode = self.root.stat(path).st_mode
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure("stat", path, error) from None
        else:
            if stat.S_ISDIR(mode):
                raise ConnectError("already_exists", "directory already exists: " + path)
            raise ConnectError("invalid_argument", "path already exists but it is not a directory: " + path)
        try:
            self.root.make_dirs(path, 0o755, (user.uid, user.gid))
            return {"entry": self.entry(path)}
        except OSError as error:
            raise ConnectError("internal", "error creating directory: " +
                               gostyle.path_error("mkdir", path, error)) from None

    def _move(self, message, user):
        source, to = self._path(message, user, "source"), self._path(message, user, "destination")
        try:
            self.root.make_dirs(os.path.dirname(to), 0o755, (user.uid, user.gid))
        except OSError as error:
            raise ConnectError("internal", "error ensuring parent directories: " + gostyle.path_error(
                "mkdir", os.path.dirname(to), error)) from None
        try:
            if self._is_real_dir(to):  # Go's os.Rename looks first
                self.root.lstat(source)
                raise FileExistsError(17, "", to)
            self.root.rename(source, to)
            return {"entry": self.entry(to)}
        except FileNotFoundError:
            raise ConnectError("not_found", "source file not found: rename %s %s: "
                               "no such file or directory" % (source, to)) from None
        except OSError as error:
            raise ConnectError("internal", "error renaming: rename %s %s: %s" % (
                source, to, gostyle.error_text(error.errno))) from None

    def _is_real_dir(self, path):
        try:
            return stat.S_ISDIR(self.root.lstat(path).st_mode)
        except OSError:
            return False

    def _remove(self, message, user):
        path = self._path(message, user)
        try:
            self.root.remove_all(path)
        except OSError as error:
            raise ConnectError("internal", "error removing file or directory: " +
                               gostyle.path_error("unlinkat", path, error)) from None
        return {}

    # -- /files

    def http_files(self, request):
        if request.method == "GET":
            return self._download(request)
        if request.method == "POST":
            return self._upload(request)
        return Reply(405)

    def _named(self, request):
        """(user, absolute path) of a /files call."""
        name = request.arg("username", "")
        if not name and not self.envd.since("0.4.0"):
            plain(401, "error looking up user '': username not provided")
        user = self.envd.named(name)
        if user is None:
            plain(401, "error looking up user '%s': user: unknown user %s" % (name, name))
        try:
            return user, self.envd.resolve(request.arg("path", ""), user)
        except ConnectError as error:
            plain(400, error.message)

    def _download(self, request):
        _, path = self._named(request)
        encoding = request.headers.get("Accept-Encoding", "")
        try:
            info = self.root.stat(path)
            if stat.S_ISDIR(info.st_mode):
                plain(400, "path '%s' is a directory" % path)
            fd = self.root.open(path)  # a FIFO blocks here, as it does there
        except FileNotFoundError:
            plain(404, "path '%s' does not exist" % path)
        except OSError as error:
            plain(500, "error opening file '%s': %s" % (path, gostyle.path_error("open", path, error)))
        if os.readlink("/proc/self/fd/%d" % fd).startswith("/proc/"):  # its path may have gone meanwhile
            os.close(fd)
            return Reply(500, [("Content-Type", "text/plain; charset=utf-8")], b"seeker can't seek\n")
        disposition = ("Content-Disposition", "inline; filename=%s" % gostyle.utf8(
            os.path.basename(path)).encode().decode("latin-1").replace("\n", "_").replace("\r", "_"))
        if "gzip" in encoding and "Range" not in request.headers and "identity" not in encoding:
            return Reply(200, [("Content-Encoding", "gzip"), ("Content-Type", content.guess_type(fd)),
                               ("Vary", "Accept-Encoding"), disposition], packed(fd))
        return content.serve(request, fd, [disposition, ("Vary", "Accept-Encoding")])

    def _upload(self, request):
        user, path = self._named(request)
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/octet-stream" and self.envd.since("0.5.7"):
            if not request.arg("path"):
                plain(400, "path is required for octet-stream uploads")
            written = [self._write(request, path, user, unpacked(request))]
        elif kind == "multipart/form-data":
            written = self._upload_parts(request, path, user)
        else:
            plain(400, "error parsing multipart form: request Content-Type isn't multipart/form-data")
        return Reply(200, [("Content-Type", "text/plain; charset=utf-8")], json.dumps(
            [{"name": gostyle.utf8(os.path.basename(each)), "path": gostyle.utf8(each), "type": "file"}
             for each in written]).encode())

    def _upload_parts(self, request, path, user):
        written = []
        try:
            for part in multipart.parts(request):
                if part.name != "file":
                    continue
                target = path if request.arg("path") else self.envd.resolve(part.filename or "", user)
                if target in written:
                    plain(400, "you cannot upload multiple files to the same path '%s'" % target)
                written.append(self._write(request, target, user, iter(part.read, b"")))
        except multipart.Malformed as error:
            plain(400, "error parsing multipart form: %s" % error)
        return written

    def _write(self, request, path, user, pieces):
        """Truncate, take over, write: what an upload that breaks leaves is what came."""
        if self.root.is_dir(path):
            plain(400, "path is a directory: " + path)
        try:
            self.root.make_dirs(os.path.dirname(path), 0o755, (user.uid, user.gid))
            fd = self.root.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            plain(500, "error opening file: " + gostyle.path_error("open", path, error))
        with open(fd, "wb", buffering=0) as file:
            if os.geteuid() == 0:
                os.fchown(fd, user.uid, user.gid)
            self._set_metadata(fd, request)
            try:
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view):]
            except OSError as error:
                if error.errno == 28:
                    plain(507, "not enough disk space available")
                plain(500, "error writing file: " + gostyle.path_error("write", path, error))
        return path

    @staticmethod
    def _set_metadata(fd, request):
        try:
            for key in os.listxattr(fd):
                if key.startswith(XATTR):
                    os.removexattr(fd, key)
            for name, value in request.headers.pairs:
                if name.lower().startswith("x-metadata-"):
                    os.setxattr(fd, XATTR + name[11:].lower(), value.encode())
        except OSError:
            pass  # a file system without them

    def compose(self, request):
        """POST /files/compose: several files into one, whose sources go."""
        value = json.loads(request.body.read_all())
        user = self.envd.named(value.get("username", ""))
        if user is None:
            plain(401, "error looking up user")
        sources = [self.envd.resolve(each, user) for each in value.get("source_paths", [])]
        to = self.envd.resolve(value.get("destination", ""), user)
        if not sources or to in sources:
            plain(400, "destination can't be a source, and there must be sources")
        temporary = to + ".compose-%d" % threading.get_ident()
        try:
            for each in sources:
                if not stat.S_ISREG(self.root.stat(each).st_mode):
                    plain(400, "source is not a regular file: " + each)
            self.root.make_dirs(os.path.dirname(to), 0o755, (user.uid, user.gid))
            with open(self.root.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as file:
                for each in sources:
                    file.write(self.root.read(each, -1))
            self.root.chown(temporary, user.uid, user.gid)
            self.root.rename(temporary, to)
            for each in sources:
                self.root.unlink(each)
            found = self.entry(to)
        except FileNotFoundError as error:
            plain(404, "source file not found: %s" % error.filename)
        except OSError as error:
            plain(500, "error composing files: " + gostyle.error_text(error.errno))
        return Reply(200, [("Content-Type", "application/json")], json.dumps(
            {"name": found["name"], "path": found["path"], "type": "file"}).encode())


def plain(status, message):
    """Raise an error of the endpoints that aren't RPCs."""
    raise Answer(Reply(status, [("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")],
                       gostyle.dumps({"message": message, "code": status})))


def packed(fd):
    """The file as gzip, without a length."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    with open(fd, "rb") as file:
        while data := file.read(1 << 18):
            yield packer.compress(data)
    yield packer.flush()


def unpacked(request):
    """The pieces of a body that may be gzip."""
    if request.headers.get("Content-Encoding", "identity") == "identity":
        return iter(request.body.read, b"")
    return _gunzip(request)


def _gunzip(request):
    unpacker = zlib.decompressobj(31)
    try:
        while data := request.body.read():
            yield unpacker.decompress(data)
    except zlib.error:
        plain(400, "failed to decompress: gzip: invalid header")
    if not unpacker.eof:
        raise Closed("unexpected end of gzip")
