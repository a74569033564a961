# SPDX-License-Identifier: Apache-2.0
"""Large things on fs/: a file of 5 GiB, a tree of 200,000 files, many handles."""

import os
import sys
import threading

import pytest

from support import kinds
from support.tools import run

pytestmark = pytest.mark.kinds(*kinds.ALL)


def test_sparse_file_of_5_gib(fsdir, kind):
    """Offsets beyond 4 GiB arrive whole."""
    path = fsdir / "big"
    size = 5 << 30
    with open(path, "w+b", buffering=0) as file:
        os.ftruncate(file.fileno(), size)
        places = ((1 << 31) - 5, (1 << 32) - 5, (1 << 32) + 50, size - 10)
        for offset in places:
            assert os.pwrite(file.fileno(), b"%010d" % offset, offset) == 10
        os.fsync(file.fileno())
    assert os.stat(path).st_size == size
    if kind.can("blocks"):
        assert os.stat(path).st_blocks * 512 < 10 << 20
    with open(path, "rb", buffering=0) as file:
        for offset in places:
            assert os.pread(file.fileno(), 10, offset) == b"%010d" % offset
        assert os.pread(file.fileno(), 1 << 20, 3 << 30) == bytes(1 << 20)
    path.unlink()


TREE = """
import os
for a in range(20):
    for b in range(100):
        d = "tree/%d/%d" % (a, b)
        os.makedirs(d)
        for c in range(100):
            os.close(os.open("%s/%d" % (d, c), os.O_CREAT | os.O_WRONLY))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.kinds("local")  # a matter of the direct volume's descriptors
def test_tree_of_200000_files(fsdir):
    """No descriptor per file: RLIMIT_NOFILE can't be raised beyond 20,000 on some hosts."""
    run([sys.executable, "-c", TREE], cwd=fsdir, timeout=400)
    assert run("find tree -type f | wc -l", cwd=fsdir, timeout=200).out.strip() == "200000"
    # once more with all nodes known, and attributes of each
    assert run("find tree -type f -size 0 | wc -l", cwd=fsdir, timeout=200).out.strip() == "200000"
    run(["rm", "-rf", "tree"], cwd=fsdir, timeout=400)
    assert os.listdir(fsdir) == []


def test_thousand_open_files_at_once(fsdir, kind):
    files, count = [], kind.scaled(1000, 300)
    try:
        for n in range(count):
            files.append(open(fsdir / ("f%d" % n), "w+b", buffering=0))
            files[-1].write(b"%d" % n)
        for n in range(count):
            os.rename(fsdir / ("f%d" % n), fsdir / ("g%d" % n))
        for n, file in enumerate(files):
            assert os.pread(file.fileno(), 10, 0) == b"%d" % n
    finally:
        for file in files:
            file.close()


def test_parallel_readers_and_writers(fsdir):
    """Eight threads, each with its files; every byte is its own."""
    problems = []

    def work(who):
        try:
            for n in range(60):
                data = bytes([who]) * (n * 997 + 1)
                path = fsdir / ("t%d-%d" % (who, n % 5))
                path.write_bytes(data)
                assert path.read_bytes() == data
                assert os.stat(path).st_size == len(data)
        except BaseException as error:
            problems.append(error)
    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not problems, problems[0]


def test_sequential_64_mib_write_and_read(fsdir, scratch):
    run("dd if=/dev/urandom of=%s/in bs=1M count=64 2>/dev/null; cp %s/in out; cmp %s/in out" % (
        (scratch,) * 3), cwd=fsdir, timeout=120)
    with open(fsdir / "out", "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    run("cmp %s/in out" % scratch, cwd=fsdir, timeout=120)
