# SPDX-License-Identifier: Apache-2.0
"""Databases, mappings, language runtimes and shared files on fs/."""

import fcntl
import json
import mmap
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from support import kinds
from support.tools import Failed, end, need, run

pytestmark = pytest.mark.kinds(*kinds.ALL)

PYTHON = sys.executable


def children(*programs, timeout=240, cwd=None):
    """Run Python programs at the same time; each has to end with 0."""
    running = [subprocess.Popen([PYTHON, "-c", text], cwd=cwd, start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
               for text in programs]
    deadline = time.monotonic() + timeout
    try:
        for each in running:
            _, err = each.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if each.returncode != 0:
                raise Failed(err.decode())
    finally:
        for each in running:
            if each.poll() is None:
                end(each)


# -- sqlite

WRITER = """
import sqlite3
db = sqlite3.connect("db", timeout=200, isolation_level=None)
for n in range(%d):
    db.execute("begin immediate")
    value, = db.execute("select value from counter").fetchone()
    db.execute("update counter set value = ?", (value + 1,))
    db.execute("insert into rows (who, n) values (?, ?)", (%d, n))
    db.execute("commit")
"""


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite_with_several_processes(fsdir, journal):
    """Locks and the shared -shm mapping of WAL keep three writers apart."""
    db = sqlite3.connect(fsdir / "db")
    assert db.execute("pragma journal_mode=%s" % journal).fetchone() == (journal,)
    db.execute("create table counter (value integer)")
    db.execute("insert into counter values (0)")
    db.execute("create table rows (who integer, n integer)")
    db.commit()
    db.close()
    children(*(WRITER % (40, who) for who in range(3)), cwd=fsdir)
    db = sqlite3.connect(fsdir / "db")
    assert db.execute("select value from counter").fetchone() == (120,)
    assert db.execute("select count(*) from rows").fetchone() == (120,)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


def test_sqlite_rolls_back_after_kill_9(fsdir):
    db = sqlite3.connect(fsdir / "db")
    db.execute("create table t (x blob)")
    db.execute("insert into t values ('kept')")
    db.commit()
    db.close()
    child = subprocess.Popen([PYTHON, "-c", """
import sqlite3, sys, time
db = sqlite3.connect("db")
db.execute("pragma cache_size=1")
db.execute("begin exclusive")
for n in range(300):
    db.execute("insert into t values (randomblob(4000))")
print("in the middle", flush=True)
time.sleep(100)
"""], cwd=fsdir, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"in the middle\n"
    assert (fsdir / "db-journal").exists()
    assert end(child, 60)  # its locks go with it
    child.stdout.close()
    db = sqlite3.connect(fsdir / "db")
    assert db.execute("select * from t").fetchall() == [("kept",)]
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


def test_sqlite3_shell(fsdir):
    need("sqlite3")
    run(["sqlite3", "db"], cwd=fsdir,
        input="create table t(a,b); create index i on t(a);"
              "with recursive n(x) as (select 1 union all select x+1 from n where x<20000) "
              "insert into t select x, hex(randomblob(20)) from n; delete from t where a%3=0; vacuum;")
    out = run(["sqlite3", "db", "select count(*) from t; pragma integrity_check"], cwd=fsdir).out
    assert out == "13334\nok\n"


# -- mappings

def test_mmap_shared_write_is_read_back(fsdir):
    path = fsdir / "mapped"
    path.write_bytes(b"." * 10000)
    with open(path, "r+b") as file:
        with mmap.mmap(file.fileno(), 0) as area:
            area[5000:5005] = b"hello"
            area.flush()
            assert path.read_bytes()[4998:5007] == b"..hello.."
            area[0:5] = b"world"
        assert path.read_bytes()[:6] == b"world."


def test_mmap_is_coherent_with_read_and_write(fsdir):
    path = fsdir / "mapped"
    path.write_bytes(b"." * 8192)
    with open(path, "r+b", buffering=0) as file, open(path, "rb", buffering=0) as other:
        with mmap.mmap(file.fileno(), 0) as area:
            for n in range(200):
                area[4000:4200] = b"%03d " % n * 50
                assert os.pread(other.fileno(), 200, 4000) == b"%03d " % n * 50
                os.pwrite(file.fileno(), b"w%03d" % n, 100)
                assert area[100:104] == b"w%03d" % n


def test_mmap_changes_survive_munmap_and_close(fsdir):
    path = fsdir / "mapped"
    with open(path, "w+b") as file:
        file.truncate(3 * 1024 * 1024)
        area = mmap.mmap(file.fileno(), 0)
    for n in range(0, 3 * 1024 * 1024, 4096):
        area[n:n + 8] = b"%08d" % n
    area.close()
    data = path.read_bytes()
    assert all(data[n:n + 8] == b"%08d" % n for n in range(0, len(data), 4096))


def test_mmap_of_two_processes_is_shared(fsdir):
    (fsdir / "mapped").write_bytes(b"\0" * 4096)
    program = """
import fcntl, mmap, struct
file = open("mapped", "r+b")
area = mmap.mmap(file.fileno(), 0)
for n in range(500):
    fcntl.flock(file, fcntl.LOCK_EX)
    area[0:8] = struct.pack("Q", struct.unpack("Q", area[0:8])[0] + 1)
    fcntl.flock(file, fcntl.LOCK_UN)
"""
    children(program, program, cwd=fsdir)
    assert int.from_bytes((fsdir / "mapped").read_bytes()[:8], "little") == 1000


def test_mmap_private_does_not_write(fsdir):
    path = fsdir / "mapped"
    path.write_bytes(b"." * 4096)
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as area:
            area[0:4] = b"mine"
    assert path.read_bytes() == b"." * 4096


def test_mmap_of_an_unlinked_file(fsdir):
    path = fsdir / "mapped"
    with open(path, "w+b") as file:
        file.write(b"." * 20000)
        file.flush()
        with mmap.mmap(file.fileno(), 0) as area:
            path.unlink()
            area[12345:12350] = b"still"
            area.flush()
            file.seek(12345)
            assert file.read(5) == b"still"


# -- Python, Node

def test_python_venv_copies(fsdir):
    """--copies: a venv's links to the host's interpreter would be re-anchored (DESIGN section 5)."""
    if run([PYTHON, "-c", "import venv"], check=False).code != 0:
        pytest.skip("python3-venv is not installed")
    run([PYTHON, "-m", "venv", "--copies", "--without-pip", "env"], cwd=fsdir, timeout=120)
    python = fsdir / "env/bin/python"
    out = run([python, "-c", "import sys; print(sys.prefix != sys.base_prefix, sys.prefix)"]).out
    assert out == "True %s\n" % (fsdir / "env")
    package = next((fsdir / "env/lib").glob("python3*")) / "site-packages/mine.py"
    package.write_text("x = 42\n")
    for _ in range(2):  # the second run reads what the first has compiled
        assert run([python, "-c", "import mine; print(mine.x)"],
                   env={"PYTHONDONTWRITEBYTECODE": ""}).out == "42\n"
    assert (package.parent / "__pycache__").is_dir()


def test_python_sees_a_changed_module(fsdir):
    """pyc files are valid for one mtime and size."""
    for n in range(3):
        (fsdir / "changing.py").write_text("x = %d\n" % n)
        when = 1_700_000_000 + n
        os.utime(fsdir / "changing.py", (when, when))
        out = run([PYTHON, "-c", "import changing; print(changing.x)"], cwd=fsdir,
                  env={"PYTHONPATH": str(fsdir), "PYTHONDONTWRITEBYTECODE": ""}).out
        assert out == "%d\n" % n


def node(fsdir, text):
    need("node")
    run(["node", "-e", text], cwd=fsdir)


def test_node_read_file_and_write_file(fsdir):
    node(fsdir, """
const fs = require('fs'), assert = require('assert');
for (const size of [0, 1, 4096, 65536, 1000003, 10]) {
    const data = Buffer.alloc(size, 'ab');
    fs.writeFileSync('file', data);
    assert.strictEqual(fs.statSync('file').size, size);
    assert.ok(fs.readFileSync('file').equals(data));
}
fs.appendFileSync('file', 'more');
assert.strictEqual(fs.readFileSync('file', 'utf8').slice(-4), 'more');
""")


def test_node_promises_streams_and_rename_over(fsdir):
    node(fsdir, """
const fs = require('fs'), assert = require('assert'), p = fs.promises;
(async () => {
    await p.mkdir('a/b/c', {recursive: true});
    await p.writeFile('file', 'old');
    for (let n = 0; n < 50; n++) {
        await p.writeFile('file.tmp', 'new ' + n);
        await p.rename('file.tmp', 'file');
        assert.strictEqual(await p.readFile('file', 'utf8'), 'new ' + n);
    }
    await Promise.all([...Array(200).keys()].map(n => p.writeFile('a/b/f' + n, 'x'.repeat(n))));
    const sizes = await Promise.all([...Array(200).keys()].map(n => p.stat('a/b/f' + n)));
    sizes.forEach((s, n) => assert.strictEqual(s.size, n));
    await new Promise((good, bad) => fs.createReadStream('a/b/f199').pipe(
        fs.createWriteStream('copy')).on('finish', good).on('error', bad));
    assert.strictEqual(fs.statSync('copy').size, 199);
    await p.copyFile('copy', 'copy2');
    await p.cp('a', 'z', {recursive: true});
    assert.strictEqual((await p.readdir('z/b')).length, 201);
    await p.rm('a', {recursive: true});
    assert.deepStrictEqual((await p.readdir('.')).sort(), ['copy', 'copy2', 'file', 'z']);
})().catch(e => { console.error(e); process.exit(1); });
""")


def test_npm_installs_a_local_package(fsdir, scratch):
    need("npm")
    (fsdir / "app").mkdir()
    (fsdir / "lib").mkdir()
    (fsdir / "lib/package.json").write_text(json.dumps(
        {"name": "mylib", "version": "1.0.0", "main": "index.js", "bin": {"mytool": "tool.js"}}))
    (fsdir / "lib/index.js").write_text("module.exports = 42;\n")
    (fsdir / "lib/tool.js").write_text("#!/usr/bin/env node\nconsole.log('tool');\n")
    run(["npm", "pack", "--silent", "--offline"], cwd=fsdir / "lib", timeout=120, env={"HOME": str(scratch)})
    (fsdir / "app/package.json").write_text(json.dumps(
        {"name": "app", "version": "1.0.0",
         "dependencies": {"mylib": "file:../lib/mylib-1.0.0.tgz"}}))
    argv = ["npm", "install", "--offline", "--no-audit", "--no-fund", "--cache", scratch / "cache"]
    for _ in range(2):
        run(argv, cwd=fsdir / "app", timeout=120, env={"HOME": str(scratch)})
    out = run(["node", "-e", "console.log(require('mylib'))"], cwd=fsdir / "app").out
    assert out == "42\n"
    assert run([fsdir / "app/node_modules/.bin/mytool"]).out == "tool\n"


def test_npm_installs_a_linked_directory(fsdir, scratch):
    """file: to a directory makes a relative symlink."""
    need("npm")
    (fsdir / "lib").mkdir()
    (fsdir / "lib/package.json").write_text('{"name": "mylib", "version": "1.0.0"}')
    (fsdir / "lib/index.js").write_text("module.exports = 43;\n")
    (fsdir / "package.json").write_text('{"name": "app", "dependencies": {"mylib": "file:lib"}}')
    run(["npm", "install", "--offline", "--no-audit", "--no-fund", "--cache", scratch / "cache"],
        cwd=fsdir, timeout=120, env={"HOME": str(scratch)})
    assert run(["node", "-p", "require('mylib')"], cwd=fsdir).out == "43\n"


# -- one file, several processes

APPEND = """
import os
file = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
for n in range(2000):
    assert os.write(file, b"%s %%05d\\n" %% n) == 8
"""


def test_append_from_two_processes_loses_no_line(fsdir):
    children(APPEND % "A", APPEND % "B", cwd=fsdir)
    lines = (fsdir / "log").read_text().splitlines()
    for who in "AB":
        assert [x for x in lines if x.startswith(who)] == ["%s %05d" % (who, n) for n in range(2000)]
    assert len(lines) == 4000


def test_append_from_two_shells(fsdir):
    run("for w in a b; do (i=0; while [ $i -lt 300 ]; do echo $w $i >> log; i=$((i+1)); done) & "
        "done; wait", cwd=fsdir)
    lines = (fsdir / "log").read_text().splitlines()
    assert sorted(lines) == sorted("%s %d" % (w, i) for w in "ab" for i in range(300))


COUNT = """
import fcntl, os
for n in range(300):
    with open("counter", "r+") as file:
        %s(file, fcntl.LOCK_EX)
        value = int(file.read())
        file.seek(0)
        file.write(str(value + 1))
        file.flush()
"""


@pytest.mark.parametrize("call", ["fcntl.flock", "fcntl.lockf"])
def test_locks_exclude_two_processes(fsdir, call):
    (fsdir / "counter").write_text("0")
    children(COUNT % call, COUNT % call, cwd=fsdir)
    assert (fsdir / "counter").read_text() == "600"


def test_flock_is_refused_while_held_and_freed_by_close(fsdir):
    with open(fsdir / "lock", "w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        busy = run(["flock", "-n", fsdir / "lock", "true"], check=False)
        assert busy.code == 1
    run(["flock", "-n", fsdir / "lock", "true"])


def test_tail_f_sees_lines_as_they_come(fsdir):
    path = fsdir / "log"
    path.write_text("")
    tail = subprocess.Popen(["tail", "-n+1", "-f", path], stdout=subprocess.PIPE)
    try:
        for n in range(5):
            with open(path, "a") as file:
                file.write("line %d\n" % n)
            started = time.monotonic()
            assert tail.stdout.readline() == b"line %d\n" % n
            assert time.monotonic() - started < 30  # tail looks once a second
    finally:
        end(tail)
        tail.stdout.close()
