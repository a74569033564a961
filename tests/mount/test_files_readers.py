# SPDX-License-Identifier: Apache-2.0
"""Real readers on control files: each gets exactly what `cat` gets, and ends."""

import hashlib
import mmap
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import uuid

import pytest

from support.tools import end, need, run, wait_for

FILES = ("status", "status.json", "ctl", "error", "stdout", "stderr", "exec/1/cmd", "exec/1/exit",
         "exec/1/status", "exec/1/output", "exec/last/stdout", "../README", "../ctl", "../status")
OUT = b"".join(b"line %d of the output\n" % n for n in range(3000)) + b"\0\xff unterminated"


@pytest.fixture
def done(box):
    """A sandbox whose one exec has ended, with output on both streams, and with an error to read."""
    root = box.mount.path / "status"  # it changes until what an earlier test destroyed is gone
    wait_for(lambda: not {b"destroying", b"gone"} & set(box.mount.read(root).split()), 60,
             what=lambda: box.mount.read(root).decode())
    (box.fs / "out").write_bytes(OUT)
    result = box.exec("cat out; echo problem >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit) == (OUT, b"problem\n", "3")
    try:
        box.ctl("strat")
    except OSError:
        pass
    box.expected = {name: box.read(name) for name in FILES}
    assert box.expected["stdout"] == OUT
    return box


def each(box, tool):
    """tool(path) -> bytes, on every file."""
    for name in FILES:
        got = tool(box.dir / name)
        assert got == box.expected[name], "%s: %d bytes of %d: %r" % (
            name, len(got), len(box.expected[name]), got[:200])


def test_cat(done):
    each(done, lambda path: run(["cat", path]).raw)


def test_cat_of_all_at_once(done):
    paths = [done.dir / name for name in FILES]
    assert run(["cat", *paths]).raw == b"".join(done.expected[name] for name in FILES)


def test_head(done):
    for name in FILES:
        data = done.expected[name]
        assert run(["head", "-n1", done.dir / name]).raw == data[:data.find(b"\n") + 1 or None]
        assert run(["head", "-c7", done.dir / name]).raw == data[:7]


def test_tail(done):
    for name in FILES:
        data = done.expected[name]
        assert run(["tail", "-c", "5", done.dir / name]).raw == data[-5:], name
        last = data.rstrip(b"\n").rfind(b"\n") + 1
        assert run(["tail", "-n1", done.dir / name]).raw == data[last:], name
        assert run(["tail", "-c", "+3", done.dir / name]).raw == data[2:], name


def test_wc(done):
    for name in FILES:
        assert int(run(["wc", "-c", done.dir / name]).out.split()[0]) == len(done.expected[name])
        assert int(run("wc -c < %s" % shlex.quote(str(done.dir / name))).out) \
            == len(done.expected[name])


def test_cp(done, base):
    def cp(path):
        target = base / "copy"
        run(["cp", path, target])
        return target.read_bytes()
    each(done, cp)


def test_cp_a_of_an_exec(done, base):
    run(["cp", "-a", done.dir / "exec/1/output", done.dir / "exec/last", done.dir / "status", base])
    assert (base / "output").stat().st_mtime_ns == (done.dir / "exec/1/output").stat().st_mtime_ns
    assert os.readlink(base / "last") == "1"


def test_tar(done, base):
    archive = base / "a.tar"
    listed = [n for n in FILES if not n.startswith("..") and n != "exec/last/stdout"]
    said = run(["tar", "-cf", archive, *listed], cwd=done.dir)
    assert said.err == "", said
    with tarfile.open(archive) as tar:
        for name in listed:
            assert tar.extractfile(name).read() == done.expected[name], name


def test_tar_of_the_whole_mount_ends(done, base):
    """env and stdin can't be read, and tar says so; all else is in it."""
    said = run(["tar", "-cf", base / "a.tar", "--exclude=env", "--exclude=stdin", "."],
               cwd=done.dir, timeout=120)
    assert "shrank" not in said.err and "padding" not in said.err, said
    with tarfile.open(base / "a.tar") as tar:
        assert tar.extractfile("./exec/1/stdout").read() == OUT
        assert not any(name.endswith(("/wait", "/follow")) for name in tar.getnames())


def test_rsync(done, base):
    need("rsync")
    target = base / "copy"
    command = ["rsync", "-a", "--exclude=env", "--exclude=stdin", "%s/" % done.dir, target]
    run(command, timeout=120)
    assert (target / "exec/1/stdout").read_bytes() == OUT
    assert (target / "status").read_bytes() == done.expected["status"]
    again = run(command[:2] + ["-i"] + command[2:], timeout=120)
    assert again.out == "", "the second moves nothing: %s" % again


def test_grep(done):
    assert run(["grep", "-c", "^state running", done.dir / "status"]).out == "1\n"
    assert run(["grep", "-a", "line 2999 ", done.dir / "stdout"]).out == "line 2999 of the output\n"


def test_grep_r_over_the_whole_mount_ends(done):
    number = done.start("echo a-needle-in-stdout; sleep 1000")
    wait_for(lambda: b"needle" in done.read("stdout"), what="the output")
    said = run(["grep", "-ra", "a-needle-in-stdout", done.mount.path], check=False, timeout=120)
    found = {line.split(":")[0] for line in said.out.splitlines()}
    assert {str(done.dir / n) for n in ("stdout", "exec/%s/stdout" % number,
                                        "exec/%s/output" % number)} <= found
    done.ctl("kill -9 %s" % number)


def test_ripgrep(done):
    need("rg")
    said = run(["rg", "-a", "--no-ignore", "line 2999 ", done.dir], check=False, timeout=120)
    assert str(done.dir / "exec/1/stdout") in said.out
    assert run(["rg", "-a", "^state", done.dir / "status"]).out == "state running\n"


def test_git_hash_object(done, base):
    for name in FILES:
        (base / "copy").write_bytes(done.expected[name])
        assert run(["git", "hash-object", "--no-filters", done.dir / name]).out \
            == run(["git", "hash-object", "--no-filters", base / "copy"]).out, name


def test_git_diff_no_index(done, base):
    (base / "copy").write_bytes(done.expected["status"])
    run(["git", "diff", "--no-index", "--exit-code", base / "copy", done.dir / "status"])


def test_node_read_file(done):
    need("node")
    script = """const fs = require('fs');
        (async () => { for (const path of process.argv.slice(1)) {
            const a = fs.readFileSync(path), b = await fs.promises.readFile(path);
            if (!a.equals(b)) process.exit(1);
            console.log(a.toString('hex')); } })()"""
    out = run(["node", "-e", script, *[done.dir / n for n in FILES]]).out.split("\n")
    assert [bytes.fromhex(line) for line in out[:-1]] == [done.expected[n] for n in FILES]


def test_emacs(done):
    need("emacs")
    script = """(dolist (path command-line-args-left)
        (with-temp-buffer (set-buffer-multibyte nil) (insert-file-contents-literally path)
            (princ (secure-hash 'sha256 (current-buffer))) (princ "\n")))"""
    out = run(["emacs", "--batch", "-Q", "--eval", script, *[done.dir / n for n in FILES]]).out.split()
    assert out == [hashlib.sha256(done.expected[n]).hexdigest() for n in FILES]


def test_emacs_find_file(done):
    need("emacs")
    out = run(["emacs", "--batch", "-Q", "--eval", """(progn (find-file "%s")
        (princ (buffer-string)))""" % (done.dir / "status")]).raw
    assert out == done.expected["status"]


def test_vim_reads(done):
    need("vim")
    run(["vim", "-es", "-u", "NONE", "-i", "NONE", "-n", "-R", done.dir / "status"],
        input="if line('$') != 25 | cquit | endif\nqa!\n", env={"TERM": "dumb"})


def test_python(done):
    each(done, lambda path: path.read_bytes())
    for name in ("status", "ctl", "error"):
        with open(done.dir / name) as file:
            assert "".join(file).encode() == done.expected[name]
    with open(done.dir / "stdout", "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as text:
                assert text[:] == OUT
        except OSError:
            pass  # direct I/O: the kernel may refuse the mapping, never show wrong bytes


def test_dd_of_single_bytes_and_odd_blocks(done):
    for size in (1, 3, 4097):
        for name in ("status", "exec/1/exit", "ctl"):
            got = run(["dd", "bs=%d" % size, "status=none", "if=%s" % (done.dir / name)]).raw
            assert got == done.expected[name]
    got = run(["dd", "bs=1", "skip=5", "count=10", "status=none", "if=%s" % (done.dir / "stdout")])
    assert got.raw == OUT[5:15]


def test_sed_awk_sort_xxd(done):
    assert run(["awk", '$1=="state"{print $2}', done.dir / "status"]).out == "running\n"
    assert run(["sed", "-n", "1p", done.dir / "status"]).out == "state running\n"
    assert sorted(done.expected["status"].splitlines()) == run(
        ["sort", done.dir / "status"], env={"LC_ALL": "C"}).raw.splitlines()
    assert run(["od", "-An", "-c", done.dir / "exec/1/exit"]).out.split() == ["3", "\\n"]


def test_shell_read_loops(done):
    script = 'while read -r key value; do [ "$key" = state ] && echo "$value"; done < %s; true' % (
        shlex.quote(str(done.dir / "status")))
    for shell in ("sh", "bash"):
        assert run([shell, "-c", script]).out == "running\n"
    assert run(["bash", "-c", 'mapfile -t a < "$1"; echo ${#a[@]}', "-",
                done.dir / "status"]).out == "25\n"
    assert run(["bash", "-c", 'echo "$(<"$1")"', "-", done.dir / "exec/1/exit"]).out == "3\n"


def test_less_shows_it(done):
    need("tmux", "less")
    server = "sbxfs-%s" % uuid.uuid4().hex[:8]
    tmux = ["tmux", "-L", server, "-f", "/dev/null"]
    run(tmux + ["new-session", "-d", "-x", "100", "-y", "30", "less -S %s" % (done.dir / "stdout")],
        env={"TERM": "xterm"})
    try:
        def screen():
            return run(tmux + ["capture-pane", "-p"], check=False).out
        wait_for(lambda: "line 0 of the output" in screen() or "may be a binary" in screen(), 10,
                 0.1, screen)
        if "may be a binary" in screen():
            run(tmux + ["send-keys", "y"])
            wait_for(lambda: "line 0 of the output" in screen(), 10, 0.1, screen)
        run(tmux + ["send-keys", "G"])
        wait_for(lambda: "line 2999 of the output" in screen(), 10, 0.1, screen)
    finally:
        run(tmux + ["kill-server"], check=False)


class Tail:
    """tail -f into a file."""

    def __init__(self, base, *paths):
        self.out = base / "tail.out"
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                ["tail", "-n", "+1", "-s", "0.1", "-f", *map(str, paths)], stdout=out,
                stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def wait(self, data, timeout=40):
        wait_for(lambda: data in self.out.read_bytes(), timeout, 0.05,
                 lambda: "%r from tail, not %r" % (data, self.out.read_bytes()[-500:]))


def test_tail_f_of_one_exec(box, base):
    number = box.start("for i in 1 2 3 4 5; do echo tick $i; sleep 0.3; done; echo over")
    with Tail(base, box.dir / "exec" / number / "stdout") as tail:
        tail.wait(b"tick 1\n")
        tail.wait(b"over\n")
        assert tail.out.read_bytes() == b"".join(b"tick %d\n" % n for n in range(1, 6)) + b"over\n"


def test_tail_f_across_execs(box, base):
    """The top-level stdout turns to the next exec, in place: who has read to the end goes on in it."""
    box.ok("echo the first one prints a rather long line of text")
    with Tail(base, box.dir / "stdout") as tail:
        tail.wait(b"line of text\n")
        box.ok("echo second")
        tail.wait(b"second\n")
        box.ok("echo 3rd")
        tail.wait(b"3rd\n")


def test_follow_with_cat(box, base):
    number = box.start("for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.2; done")
    out = run(["cat", box.dir / "exec" / number / "follow"]).out
    assert sorted(out.split()) == ["1", "2", "3", "e1", "e2", "e3"]
    assert run(["cat", box.dir / "follow"]).out == out


def test_many_readers_at_once(done):
    """Forty processes read the same files again and again; nobody sees anything else."""
    script = """
import sys
for _ in range(30):
    for path in sys.argv[2:]:
        with open(path, "rb") as file:
            sys.stdout.buffer.write(file.read()) if _ == int(sys.argv[1]) else file.read()
"""
    names = ("status", "stdout", "exec/1/output", "error")
    expected = b"".join(done.expected[n] for n in names)
    readers = [subprocess.Popen([sys.executable, "-c", script, str(n % 30)] +
                                [str(done.dir / each) for each in names],
                                stdout=subprocess.PIPE) for n in range(12)]
    for reader in readers:
        out, _ = reader.communicate(timeout=120)
        assert reader.returncode == 0 and out == expected


def test_reader_that_stops_early_does_no_harm(done):
    for _ in range(20):
        assert run("head -c1 %s | cat" % shlex.quote(str(done.dir / "stdout"))).raw == OUT[:1]
    process = subprocess.Popen(["cat", str(done.dir / "exec/1/stdout")], stdout=subprocess.PIPE)
    process.stdout.read(10)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    time.sleep(0.05)
    assert done.read("stdout") == OUT
