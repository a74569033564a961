# SPDX-License-Identifier: Apache-2.0
"""Large files go by the upload and the download of the service itself; whole, or not at all."""

import itertools
import os

import pytest

from box_files import EXCLUSIVE, mkdir, store
from files_support import fake_files
from support.tools import wait_for

SIZE = 3 << 20
# What the insides of a sandbox are asked for content by.
UPLOAD = {"e2b": "/files", "daytona": "/files/bulk-upload", "opensandbox": "/files/upload"}
DOWNLOAD = {"e2b": "/files", "daytona": "/files/download", "opensandbox": "/files/download"}
numbers = itertools.count()


@pytest.fixture(params=sorted(UPLOAD))
def fake(request):
    stand_in = request.getfixturevalue(request.param + "_fake")
    yield stand_in
    stand_in.clear_faults()


@pytest.fixture
def f(fake, drive):
    files = fake_files(drive, fake, fake.name, "agent")
    files.must(store("first", b"x"))  # connected
    return files


def content(size=SIZE):
    return os.urandom(1 << 16) * (size >> 16)


def large(path, data, **more):
    """As the volume stores: a temporary name is at hand."""
    return store(path, data, temp=".sbxfs-%020d" % next(numbers), **more)


def uploads(fake, mark):
    return fake.journal(UPLOAD[fake.name] + r"(\?|$)", "POST", since=mark)


def downloads(fake, mark):
    return fake.journal(DOWNLOAD[fake.name] + r"\?", "GET", since=mark)


def left_over(f):
    return [str(path) for path in f.real.rglob(".sbxfs-*")]


def test_stored_by_one_upload(f, fake):
    data, mark = content(), fake.mark()
    f.must(mkdir("a dir"), large("a dir/b+c;d", data, mode=0o640, mtime=[1234567890, 5]))
    assert [entry.status for entry in uploads(fake, mark)] == [200]
    path = f.real / "a dir/b+c;d"
    st = path.stat()
    assert (path.read_bytes(), st.st_mode & 0o7777, int(st.st_mtime)) == (data, 0o640, 1234567890)
    assert st.st_uid == (f.real / "first").stat().st_uid
    assert not left_over(f)


def test_small_files_go_with_the_rest(f, fake):
    mark = fake.mark()
    f.must(large("small", content(1 << 20)), large("big", content()), large("other", b"text"))
    assert len(uploads(fake, mark)) == 1
    assert (f.real / "other").read_bytes() == b"text"


def test_what_is_there_is_replaced_not_written(f):
    f.must(large("file", content()))
    old = open(f.real / "file", "rb")
    with old:
        before, data = old.read(100), content()
        f.must(large("file", data, mode=0o755))
        assert (f.real / "file").read_bytes() == data
        old.seek(0)
        assert old.read(100) == before
    f.must(mkdir("dir"))
    assert f.one(large("dir", content())).error in ("EISDIR", "EEXIST")
    (f.real / "away").write_bytes(b"not this")
    (f.real / "link").symlink_to("away")
    f.must(large("link", content()))
    assert not (f.real / "link").is_symlink() and (f.real / "away").read_bytes() == b"not this"
    assert not left_over(f)


def test_exclusive_is_the_first(f):
    assert f.one(large("new", content(), flags=EXCLUSIVE)).error == ""
    assert f.one(large("new", content(), flags=EXCLUSIVE)).error == "EEXIST"
    assert not left_over(f)


def test_no_directory_is_made_for_it(f):
    result = f.apply(large("no/where/file", content()), store("after", b"x"))
    assert [each.error for each in result] == ["ENOENT", ""]
    assert not (f.real / "no").exists()
    assert (f.real / "after").exists()


def test_odd_names_go_by_the_agent(f, fake):
    data, mark = content(), fake.mark()
    for path in ("$HOME", " blank", "blank ", b"\xff\xfe", "new\nline", "quo\"te", "back\\slash"):
        f.must(large(path, data))
        assert (f.real / os.fsdecode(path)).read_bytes() == data
        handle, _ = f.open(path)
        assert f.read(handle, 1 << 20, 5)[0] == data[5:5 + (1 << 20)]
        f.close(handle)
    assert not uploads(fake, mark) and not downloads(fake, mark)


@pytest.mark.parametrize("fault", [
    {"kind": "status", "status": 403}, {"kind": "status", "status": 500},
    {"kind": "upload", "at": 1 << 20}, {"kind": "drop", "after": True},
    {"kind": "answer", "status": 200, "body": "[]"}], ids=["403", "500", "cut", "lost", "ignored"])
def test_upload_that_fails_is_made_up_for(f, fake, fault):
    """Nothing of it stays, the name is never half a file."""
    data = content()
    fake.fault(**fault, method="POST", path=UPLOAD[fake.name] + r"(\?|$)", count=9)
    f.must(large("file", data))
    assert (f.real / "file").read_bytes() == data
    wait_for(lambda: not left_over(f), 10, what=lambda: "nothing left over: %s" % left_over(f))


def test_after_refusals_nobody_asks_again(f, fake):
    fake.fault(kind="status", status=403, method="POST", path=UPLOAD[fake.name] + r"(\?|$)", count=0)
    mark = fake.mark()
    for n in range(5):
        f.must(large("file%d" % n, content()))
    assert len(uploads(fake, mark)) == 3


def test_read_by_windows(f, fake):
    data = content()
    (f.real / "file").write_bytes(data)
    mark = fake.mark()
    handle, st = f.open("file")
    assert st.size == SIZE
    assert f.read(handle, 1 << 20, 0)[0] == data[:1 << 20]
    assert f.read(handle, 1 << 20, (2 << 20) + 5)[0] == data[(2 << 20) + 5:]
    assert len(downloads(fake, mark)) == 2
    assert f.read(handle, 1000, 77)[0] == data[77:1077]  # the agent's own
    assert f.read(handle, 1 << 20, SIZE)[0] == b""
    assert len(downloads(fake, mark)) == 2
    f.close(handle)


def test_read_in_one_version(f):
    """What takes the name over, or is appended, is never part of it."""
    data, other = content(), content()
    (f.real / "file").write_bytes(data)
    handle, _ = f.open("file")
    assert f.read(handle, 1 << 20, 0)[0] == data[:1 << 20]
    (f.real / "new").write_bytes(other)
    os.utime(f.real / "new", ns=(0, (f.real / "file").stat().st_mtime_ns))
    os.rename(f.real / "new", f.real / "file")
    assert f.read(handle, 1 << 20, 1 << 20)[0] == data[1 << 20:2 << 20]
    os.unlink(f.real / "file")
    assert f.read(handle, 1 << 20, 1 << 20)[0] == data[1 << 20:2 << 20]
    os.mkfifo(f.real / "file")
    assert f.read(handle, 1000, 0)[0] == data[:1000]
    f.close(handle)


@pytest.mark.parametrize("fault", [
    {"kind": "status", "status": 403}, {"kind": "status", "status": 500}, {"kind": "cut", "at": 4000},
    {"kind": "length", "by": -7}, {"kind": "answer", "status": 206, "body": "short"},
    {"kind": "answer", "status": 200, "body": "short"}],
    ids=["403", "500", "cut", "length", "206", "200"])
def test_download_that_fails_is_made_up_for(f, fake, fault):
    data = content()
    (f.real / "file").write_bytes(data)
    handle, _ = f.open("file")
    fake.fault(**fault, method="GET", path=DOWNLOAD[fake.name] + r"\?", count=9)
    assert f.read(handle, 1 << 20, 1 << 20)[0] == data[1 << 20:2 << 20]
    f.close(handle)
