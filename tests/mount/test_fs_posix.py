# SPDX-License-Identifier: Apache-2.0
"""System calls on fs/: what each does, and with which errno it refuses."""

import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from support import kinds
from support.tools import run

pytestmark = pytest.mark.kinds(*kinds.ALL)

SEEK_DATA, SEEK_HOLE = 3, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
CLOCK_REALTIME_COARSE = 5  # what the kernel dates files by; it stands still between ticks
libc = ctypes.CDLL(None, use_errno=True)


def refused(call, *args, **kwargs):
    """The errno of a call that has to fail."""
    with pytest.raises(OSError) as info:
        call(*args, **kwargs)
    return info.value.errno


def fallocate(descriptor, mode, offset, size):
    if libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def renameat2(old, new, flags):
    if libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


# -- open

def test_o_excl_refuses_what_exists(fsdir):
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(fsdir / "f", flags))
    assert refused(os.open, fsdir / "f", flags) == errno.EEXIST
    os.symlink("nowhere", fsdir / "dangling")
    assert refused(os.open, fsdir / "dangling", flags) == errno.EEXIST
    assert not (fsdir / "nowhere").exists()


def test_o_excl_has_one_winner_among_processes(fsdir):
    program = """
import os, sys
won = 0
for n in range(300):
    try:
        os.close(os.open("lock%d" % n, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        won += 1
    except FileExistsError:
        pass
print(won)
"""
    running = [subprocess.Popen([sys.executable, "-c", program], cwd=fsdir, stdout=subprocess.PIPE)
               for _ in range(3)]
    assert sum(int(each.communicate(timeout=240)[0]) for each in running) == 300


def test_o_append_writes_at_the_end_whatever_the_offset(fsdir):
    path = fsdir / "f"
    path.write_bytes(b"start")
    one = os.open(path, os.O_RDWR | os.O_APPEND)
    two = os.open(path, os.O_WRONLY)
    os.lseek(one, 0, os.SEEK_SET)
    os.write(one, b"+one")
    os.pwrite(two, b"S", 0)
    os.ftruncate(two, 7)
    os.write(one, b"+two")
    assert path.read_bytes() == b"Start+o+two"
    os.close(one)
    os.close(two)


def test_o_trunc_empties_for_all_handles(fsdir):
    path = fsdir / "f"
    path.write_bytes(b"x" * 10000)
    with open(path, "rb", buffering=0) as held:
        assert held.read(10) == b"x" * 10
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        assert os.fstat(held.fileno()).st_size == 0
        assert held.read(10) == b""
        path.write_bytes(b"new content")
        held.seek(0)
        assert held.read() == b"new content"


def test_open_errors(fsdir):
    (fsdir / "f").write_text("")
    (fsdir / "d").mkdir()
    os.symlink("loop", fsdir / "loop")
    assert refused(os.open, fsdir / "none", os.O_RDONLY) == errno.ENOENT
    assert refused(os.open, fsdir / "f/x", os.O_RDONLY) == errno.ENOTDIR
    assert refused(os.open, fsdir / "none/x", os.O_RDWR | os.O_CREAT) == errno.ENOENT
    assert refused(os.open, fsdir / "d", os.O_WRONLY) == errno.EISDIR
    assert refused(os.open, fsdir / "loop", os.O_RDONLY) == errno.ELOOP
    assert refused(os.open, fsdir / "f", os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    assert refused(os.open, fsdir / "loop", os.O_RDONLY | os.O_NOFOLLOW) == errno.ELOOP
    assert refused(os.open, fsdir / ("n" * 256), os.O_RDWR | os.O_CREAT) == errno.ENAMETOOLONG
    (fsdir / ("n" * 255)).write_text("longest")
    assert (fsdir / ("n" * 255)).read_text() == "longest"


def test_o_tmpfile_works_or_is_refused_cleanly(fsdir):
    """Refused with one of the errnos that make programs fall back to a name."""
    try:
        descriptor = os.open(fsdir, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        assert error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
    else:
        os.write(descriptor, b"x")
        assert os.pread(descriptor, 1, 0) == b"x"
        os.close(descriptor)
    assert os.listdir(fsdir) == []


def test_create_with_a_mode_that_forbids_writing(fsdir):
    """git and tar create 0444 files and write them through the handle they have."""
    descriptor = os.open(fsdir / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
    os.write(descriptor, b"content")
    os.fchmod(descriptor, 0o400)
    os.write(descriptor, b" more")
    os.close(descriptor)
    assert (fsdir / "f").read_bytes() == b"content more"
    assert stat.S_IMODE(os.stat(fsdir / "f").st_mode) == 0o400


# -- read and write

def test_read_at_and_past_the_end(fsdir):
    path = fsdir / "f"
    path.write_bytes(b"0123456789")
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 5) == b"56789"
        assert os.pread(file.fileno(), 100, 10) == b""
        assert os.pread(file.fileno(), 100, 1 << 40) == b""


def test_write_past_the_end_leaves_zeros(fsdir):
    path = fsdir / "f"
    path.write_bytes(b"start")
    with open(path, "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"end", 100_000)
    data = path.read_bytes()
    assert data == b"start" + bytes(99_995) + b"end"


def test_truncate_down_and_up_leaves_zeros(fsdir):
    path = fsdir / "f"
    for size in (100, 4096, 5000, 70_000):
        path.write_bytes(b"x" * 80_000)
        os.truncate(path, size)
        os.truncate(path, 80_000)
        data = path.read_bytes()
        assert data == b"x" * size + bytes(80_000 - size)


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 131072, 1048576, 1048577, 5_000_000])
def test_write_in_one_call_and_read_back(fsdir, size):
    data = os.urandom(size)
    descriptor = os.open(fsdir / "f", os.O_RDWR | os.O_CREAT)
    assert os.write(descriptor, data) == size
    assert os.fstat(descriptor).st_size == size
    assert os.pread(descriptor, size + 1, 0) == data
    os.close(descriptor)
    assert (fsdir / "f").read_bytes() == data


def test_readv_and_writev(fsdir):
    descriptor = os.open(fsdir / "f", os.O_RDWR | os.O_CREAT)
    assert os.writev(descriptor, [b"a" * 3000, b"b" * 3000, b"c"]) == 6001
    parts = [bytearray(2999), bytearray(3), bytearray(10_000)]
    assert os.preadv(descriptor, parts, 0) == 6001
    assert bytes(parts[1]) == b"abb"
    os.close(descriptor)


def test_fallocate_reserves_and_grows(fsdir):
    descriptor = os.open(fsdir / "f", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"begin")
    os.posix_fallocate(descriptor, 0, 100_000)
    assert os.fstat(descriptor).st_size == 100_000
    assert os.pread(descriptor, 100_000, 0) == b"begin" + bytes(99_995)
    try:
        fallocate(descriptor, FALLOC_KEEP_SIZE, 0, 200_000)
        assert os.fstat(descriptor).st_size == 100_000
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP
    os.close(descriptor)


@pytest.mark.parametrize("mode", [FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE])
def test_fallocate_punches_or_is_refused(fsdir, mode):
    path = fsdir / "f"
    path.write_bytes(b"x" * 50_000)
    with open(path, "r+b", buffering=0) as file:
        file.read()
        try:
            fallocate(file.fileno(), mode, 5000, 20_000)
            expected = b"x" * 5000 + bytes(20_000) + b"x" * 25_000
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP
            expected = b"x" * 50_000
        assert os.pread(file.fileno(), 60_000, 0) == expected
    assert path.read_bytes() == expected


def test_copy_file_range(fsdir):
    data = os.urandom(300_000)
    (fsdir / "from").write_bytes(data)
    (fsdir / "to").write_bytes(b"." * 1000)
    with open(fsdir / "from", "rb") as source, open(fsdir / "to", "r+b") as sink:
        assert sink.read(4) == b"...."  # something in the page cache to be overwritten
        done = 0
        while done < 200_000:
            count = os.copy_file_range(source.fileno(), sink.fileno(), 200_000 - done,
                                       offset_src=1000 + done, offset_dst=500 + done)
            assert count > 0
            done += count
        assert os.fstat(sink.fileno()).st_size == 200_500
    assert (fsdir / "to").read_bytes() == b"." * 500 + data[1000:201_000]


def test_copy_file_range_sees_what_was_just_written(fsdir):
    """Dirty pages of the source must be in the copy."""
    with open(fsdir / "from", "w+b", buffering=0) as source, \
            open(fsdir / "to", "w+b", buffering=0) as sink:
        for n in range(50):
            os.pwrite(source.fileno(), b"%04d" % n * 1000, 0)
            done = 0
            while done < 4000:
                done += os.copy_file_range(source.fileno(), sink.fileno(), 4000 - done,
                                           offset_src=done, offset_dst=done)
            assert os.pread(sink.fileno(), 5000, 0) == b"%04d" % n * 1000


def test_sendfile(fsdir):
    data = os.urandom(200_000)
    (fsdir / "from").write_bytes(data)
    with open(fsdir / "from", "rb") as source, open(fsdir / "to", "wb") as sink:
        done = 0
        while done < len(data):
            done += os.sendfile(sink.fileno(), source.fileno(), done, len(data) - done)
    assert (fsdir / "to").read_bytes() == data


def test_seek_data_and_hole_cover_all_data(fsdir):
    """With or without knowledge of holes: what is called a hole must read as zeros."""
    path = fsdir / "f"
    with open(path, "w+b", buffering=0) as file:
        file.truncate(4 << 20)
        for offset in (0, 1 << 20, 3 << 20):
            os.pwrite(file.fileno(), b"data" * 1024, offset)
        os.fsync(file.fileno())
        at, found = 0, []
        while True:
            try:
                start = os.lseek(file.fileno(), at, SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            end = os.lseek(file.fileno(), start, SEEK_HOLE)
            assert at <= start < end <= 4 << 20
            assert os.pread(file.fileno(), start - at, at).strip(b"\0") == b""
            found.append((start, end))
            at = end
        assert os.pread(file.fileno(), 4 << 20, at).strip(b"\0") == b""
        for offset in (0, 1 << 20, 3 << 20):
            assert any(start <= offset and offset + 4096 <= end for start, end in found)
        assert refused(os.lseek, file.fileno(), 4 << 20, SEEK_DATA) == errno.ENXIO


def test_sparse_copy_by_cp(fsdir):
    with open(fsdir / "f", "wb") as file:
        file.truncate(8 << 20)
        file.seek(3 << 20)
        file.write(b"in the middle")
    run("cp --sparse=always f g && cp --sparse=auto f h && cmp f g && cmp f h", cwd=fsdir)


def test_o_direct_reads_and_writes_right_or_is_refused(fsdir):
    import mmap
    page = mmap.mmap(-1, 8192)
    page[:] = b"d" * 8192
    try:
        descriptor = os.open(fsdir / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError as error:
        assert error.errno == errno.EINVAL
        return
    assert os.writev(descriptor, [page]) == 8192
    os.close(descriptor)
    assert (fsdir / "f").read_bytes() == b"d" * 8192


# -- unlink, rename, handles

def test_unlinked_open_file_stays_readable_and_writable(fsdir):
    path = fsdir / "f"
    with open(path, "w+b", buffering=0) as file:
        file.write(b"before")
        path.unlink()
        assert not path.exists() and os.listdir(fsdir) == []
        file.write(b" after")
        assert os.pread(file.fileno(), 100, 0) == b"before after"
        assert os.fstat(file.fileno()).st_size == 12
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 3)
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(1, 2))
        assert os.pread(file.fileno(), 100, 0) == b"bef"
        path.write_bytes(b"another")
        assert os.pread(file.fileno(), 100, 0) == b"bef"
    assert path.read_bytes() == b"another"
    assert os.listdir(fsdir) == ["f"]


def test_rename_over_open_file_keeps_handle(fsdir):
    (fsdir / "a").write_bytes(b"old a")
    (fsdir / "b").write_bytes(b"old b")
    with open(fsdir / "a", "r+b", buffering=0) as a, open(fsdir / "b", "r+b", buffering=0) as b:
        os.rename(fsdir / "a", fsdir / "b")
        assert b.read() == b"old b" and a.read() == b"old a"
        a.write(b"!")
        b.write(b"?")
        assert (fsdir / "b").read_bytes() == b"old a!"
        assert os.fstat(a.fileno()).st_nlink == 1
        assert os.fstat(b.fileno()).st_nlink == 0
        assert os.fstat(a.fileno()).st_ino == os.stat(fsdir / "b").st_ino
    assert os.listdir(fsdir) == ["b"]


def test_open_handle_follows_renames_of_its_directories(fsdir):
    os.makedirs(fsdir / "a/b")
    with open(fsdir / "a/b/f", "w+b", buffering=0) as file:
        os.rename(fsdir / "a", fsdir / "x")
        os.rename(fsdir / "x/b", fsdir / "b")
        os.rename(fsdir / "b/f", fsdir / "g")
        file.write(b"content")
        os.fchmod(file.fileno(), 0o640)
        assert (fsdir / "g").read_bytes() == b"content"
        assert stat.S_IMODE(os.stat(fsdir / "g").st_mode) == 0o640


def test_rename_rules(fsdir):
    for name in ("d", "e", "full"):
        (fsdir / name).mkdir()
    (fsdir / "full/f").write_text("f")
    (fsdir / "f").write_text("top")
    assert refused(os.rename, fsdir / "d", fsdir / "full") in (errno.ENOTEMPTY, errno.EEXIST)
    assert refused(os.rename, fsdir / "f", fsdir / "d") == errno.EISDIR
    assert refused(os.rename, fsdir / "d", fsdir / "f") == errno.ENOTDIR
    assert refused(os.rename, fsdir / "none", fsdir / "f") == errno.ENOENT
    assert refused(os.rename, fsdir / "full", fsdir / "full/in") == errno.EINVAL
    os.rename(fsdir / "full", fsdir / "d")  # over an empty directory
    assert os.listdir(fsdir / "d") == ["f"]
    os.rename(fsdir / "f", fsdir / "f")
    assert sorted(os.listdir(fsdir)) == ["d", "e", "f"]


def test_rename_flags_work_or_are_refused_with_einval(fsdir):
    (fsdir / "a").write_text("a")
    (fsdir / "b").write_text("b")
    try:
        renameat2(fsdir / "a", fsdir / "b", RENAME_NOREPLACE)
        pytest.fail("RENAME_NOREPLACE has replaced")
    except OSError as error:
        assert error.errno in (errno.EEXIST, errno.EINVAL)
    try:
        renameat2(fsdir / "a", fsdir / "b", RENAME_EXCHANGE)
        assert (fsdir / "a").read_text() == "b" and (fsdir / "b").read_text() == "a"
    except OSError as error:
        assert error.errno == errno.EINVAL
        assert (fsdir / "a").read_text() == "a" and (fsdir / "b").read_text() == "b"
    try:
        renameat2(fsdir / "a", fsdir / "new", RENAME_NOREPLACE)
        assert (fsdir / "new").exists() and not (fsdir / "a").exists()
    except OSError as error:
        assert error.errno == errno.EINVAL


def test_rmdir_and_unlink_errors(fsdir):
    (fsdir / "d").mkdir()
    (fsdir / "d/f").write_text("")
    assert refused(os.rmdir, fsdir / "d") == errno.ENOTEMPTY
    assert refused(os.unlink, fsdir / "d") in (errno.EISDIR, errno.EPERM)
    assert refused(os.rmdir, fsdir / "d/f") == errno.ENOTDIR
    assert refused(os.unlink, fsdir / "none") == errno.ENOENT
    assert refused(os.mkdir, fsdir / "d") == errno.EEXIST
    assert refused(os.mkdir, fsdir / "d/f/x") == errno.ENOTDIR


def test_removed_directory_as_working_directory(fsdir):
    (fsdir / "d").mkdir()
    descriptor = os.open(fsdir / "d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(fsdir / "d")
    assert os.listdir(descriptor) == []
    assert refused(os.open, "f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor) in (
        errno.ENOENT, errno.ESTALE)
    os.close(descriptor)


def test_name_is_free_at_once_for_another_kind(fsdir):
    """File, directory, link in turn under one name: nothing of the last one may stick."""
    path = fsdir / "name"
    for n in range(30):
        path.write_text("file %d" % n)
        assert path.read_text() == "file %d" % n
        path.unlink()
        path.mkdir()
        (path / ("in%d" % n)).write_text("")
        assert os.listdir(path) == ["in%d" % n]
        (path / ("in%d" % n)).unlink()
        path.rmdir()
        os.symlink("target%d" % n, path)
        assert os.readlink(path) == "target%d" % n
        path.unlink()


# -- attributes

def test_mtime_in_ns_stays_ours_after_close(fsdir):
    """cp -p, tar and rsync set times on the open handle, or right after close."""
    for wanted in (1_234_567_890_123_456_789, 1, 4_000_000_000_999_999_999):
        with open(fsdir / "f", "wb") as file:
            file.write(b"x" * 10_000)
            file.flush()
            os.utime(file.fileno(), ns=(wanted, wanted))
            assert os.fstat(file.fileno()).st_mtime_ns == wanted
        assert os.stat(fsdir / "f").st_mtime_ns == wanted
        (fsdir / "f").read_bytes()
        time.sleep(0.01)
        assert os.stat(fsdir / "f").st_mtime_ns == wanted


def test_mtime_moves_with_each_write_and_directory_change(fsdir):
    path = fsdir / "f"
    path.write_text("a")
    for _ in range(20):
        before = os.stat(path).st_mtime_ns
        time.sleep(0.006)  # the host's clock ticks in up to 4 ms
        with open(path, "a") as file:
            file.write("b")
        assert os.stat(path).st_mtime_ns > before
        before = os.stat(fsdir).st_mtime_ns
        time.sleep(0.006)
        (fsdir / "new").write_text("")
        (fsdir / "new").unlink()
        assert os.stat(fsdir).st_mtime_ns > before


def test_mtime_of_what_is_new_stays(fsdir):
    """Also where only its second is told at first: editors and make take another for a change."""
    os.symlink("target", fsdir / "link")
    (fsdir / "directory").mkdir()
    (fsdir / "file").write_text("")
    names = ("link", "directory", "file")
    before = [os.lstat(fsdir / name).st_mtime_ns for name in names]
    time.sleep(1.1)  # what was told is asked for anew
    assert [os.lstat(fsdir / name).st_mtime_ns for name in names] == before
    assert sorted(os.listdir(fsdir)) == sorted(names)
    assert [os.lstat(fsdir / name).st_mtime_ns for name in names] == before


def test_mtime_is_not_in_the_future_and_close_to_now(fsdir):
    before = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    (fsdir / "f").write_text("x")
    after = time.time_ns()
    assert before - 10**8 <= os.stat(fsdir / "f").st_mtime_ns <= after + 10**8


def test_utimens_omit_and_now_and_links(fsdir):
    path = fsdir / "f"
    path.write_text("x")
    os.utime(path, ns=(111, 222))
    run(["touch", "-a", path])
    assert os.stat(path).st_mtime_ns == 222
    before = time.time_ns()
    run(["touch", "-m", path])
    assert before - 5 * 10**9 < os.stat(path).st_mtime_ns < time.time_ns() + 5 * 10**9
    os.symlink("f", fsdir / "l")
    os.utime(fsdir / "l", ns=(333, 444), follow_symlinks=False)
    assert os.lstat(fsdir / "l").st_mtime_ns == 444
    (fsdir / "d").mkdir()
    os.utime(fsdir / "d", ns=(555, 666))
    assert os.stat(fsdir / "d").st_mtime_ns == 666


def test_chmod_and_x_bits(fsdir):
    path = fsdir / "tool"
    path.write_text("#!/bin/sh\necho ran\n")
    for mode in (0o644, 0o755, 0o600, 0o000, 0o777, 0o500):
        os.chmod(path, mode)
        assert stat.S_IMODE(os.stat(path).st_mode) == mode
    os.chmod(path, 0o644)
    assert not os.access(path, os.X_OK)
    with pytest.raises(PermissionError):
        subprocess.run([str(path)])
    os.chmod(path, 0o755)
    assert run([path]).out == "ran\n"


def test_umask_holds_for_files_and_directories(fsdir):
    run("umask 027; touch f; mkdir d; umask 000; touch g; mkdir e", cwd=fsdir)
    modes = [stat.S_IMODE(os.stat(fsdir / n).st_mode) for n in "fdge"]
    assert modes == [0o640, 0o750, 0o666, 0o777]


def test_owner_is_the_mounting_user(fsdir):
    (fsdir / "f").write_text("")
    (fsdir / "d").mkdir()
    os.symlink("f", fsdir / "l")
    for path in (fsdir, fsdir / "f", fsdir / "d", fsdir / "l"):
        info = os.lstat(path)
        assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())


@pytest.mark.mount_only
def test_chown_succeeds_and_changes_nothing(fsdir):
    (fsdir / "f").write_text("x")
    before = os.stat(fsdir / "f")
    for uid, gid in ((os.geteuid(), os.getegid()), (-1, -1)):
        os.chown(fsdir / "f", uid, gid)
    if os.geteuid() == 0:  # the kernel itself refuses others, by default_permissions
        os.chown(fsdir / "f", 1234, 1234)
        os.symlink("f", fsdir / "l")
        os.lchown(fsdir / "l", 1234, 1234)
        run("chown -R 4321:4321 .", cwd=fsdir)
    after = os.stat(fsdir / "f")
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid,
                                                           before.st_mode)


def test_nlink_and_blocks_are_plausible(fsdir):
    (fsdir / "f").write_bytes(b"x" * 100_000)
    os.sync()
    info = os.stat(fsdir / "f")
    assert info.st_nlink == 1
    assert 100_000 <= info.st_blocks * 512 <= 300_000
    assert info.st_blksize >= 512


def test_inode_numbers_are_stable_and_distinct(fsdir):
    for n in range(200):
        (fsdir / ("f%d" % n)).write_text("")
    first = {n: os.stat(fsdir / n).st_ino for n in os.listdir(fsdir)}
    assert len(set(first.values())) == 200
    run("find . -size +1 ; ls -lR >/dev/null", cwd=fsdir)
    assert {n: os.stat(fsdir / n).st_ino for n in os.listdir(fsdir)} == first
    assert {e.name: e.inode() for e in os.scandir(fsdir)} == first


def test_inode_number_follows_a_rename(fsdir):
    (fsdir / "f").write_text("")
    before = os.stat(fsdir / "f").st_ino
    os.rename(fsdir / "f", fsdir / "g")
    assert os.stat(fsdir / "g").st_ino == before


def test_xattr_is_not_supported(fsdir):
    (fsdir / "f").write_text("")
    for call, args in ((os.setxattr, ("user.x", b"1")), (os.getxattr, ("user.x",)),
                       (os.listxattr, ())):
        try:
            call(fsdir / "f", *args)
        except OSError as error:
            # the C library has ENOSYS from the server turned into EOPNOTSUPP by the kernel
            assert error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODATA)
    run(["cp", "-a", fsdir / "f", fsdir / "g"])
    run(["cp", "--preserve=all", fsdir / "f", fsdir / "h"])


@pytest.mark.mount_only
def test_mount_is_nosuid_and_nodev(fsdir):
    flags = os.statvfs(fsdir).f_flag
    assert flags & os.ST_NOSUID and flags & os.ST_NODEV
    run(["cp", "/bin/true", fsdir / "true"])
    os.chmod(fsdir / "true", 0o4755)
    run([fsdir / "true"])


def test_fifo_and_socket_can_be_made_or_are_refused(fsdir):
    for make in (lambda: os.mkfifo(fsdir / "fifo"),
                 lambda: socket.socket(socket.AF_UNIX).bind(os.path.relpath(fsdir / "s"))):
        try:
            make()
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
    for name in os.listdir(fsdir):
        os.lstat(fsdir / name)
        os.unlink(fsdir / name)


@pytest.mark.mount_only
def test_device_nodes_are_refused(fsdir):
    if os.geteuid() != 0:
        pytest.skip("only root could make a device node anywhere")
    assert refused(os.mknod, fsdir / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)) in (
        errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def test_statfs(fsdir):
    info = os.statvfs(fsdir)
    assert info.f_blocks > 0 and info.f_bavail > 0 and info.f_bsize >= 512
    assert info.f_namemax == 255
    (fsdir / "f").write_text("")
    assert os.statvfs(fsdir / "f").f_blocks == info.f_blocks


def test_fsync_of_files_and_directories(fsdir):
    with open(fsdir / "f", "wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    run(["sync", fsdir / "f", fsdir])


def test_access_checks_are_the_kernels(fsdir):
    (fsdir / "f").write_text("x")
    os.chmod(fsdir / "f", 0o000)
    if os.geteuid() == 0:
        assert (fsdir / "f").read_text() == "x"
    else:
        assert refused(os.open, fsdir / "f", os.O_RDONLY) == errno.EACCES
        (fsdir / "d").mkdir()
        os.chmod(fsdir / "d", 0o500)
        assert refused(os.open, fsdir / "d/f", os.O_CREAT | os.O_WRONLY) == errno.EACCES
        os.chmod(fsdir / "d", 0o700)
