# SPDX-License-Identifier: Apache-2.0
"""How shells, editors and programs write to control files, and what each write does: once, or not."""

import io
import os
import re
import shlex
import subprocess
import sys
import threading
import time

import pytest

from support.control import (error_of, error_text, outputs, results, same_for, status_json, submit, tasks,
                             wait_output, write_once)
from support.tools import need, run, wait_for


def shell(box, script, program="bash", **kwargs):
    """A script in the sandbox's directory, as people type it."""
    return run([program, "-c", script], cwd=box.dir, **kwargs)


@pytest.fixture(params=["sh", "bash"])
def sh(request, box):
    def call(script, **kwargs):
        return shell(box, script, request.param, **kwargs)
    return call


# -- shells

def test_redirection(box, sh):
    sh("echo 'exec echo hi' > ctl")
    assert outputs(box) == ["hi\n"]


def test_appending_redirection(box, sh):
    sh("echo 'exec echo one' >> ctl; echo 'exec echo two' >> ctl")
    assert outputs(box) == ["one\n", "two\n"]


def test_tee(box, sh):
    sh("echo 'exec echo hi' | tee ctl; echo 'exec echo ho' | tee -a ctl > /dev/null")
    assert outputs(box) == ["hi\n", "ho\n"]


def test_printf_of_many_lines(box, sh):
    sh("printf 'exec echo a\\n\\n# note\\nexec echo b\\nexec echo c\\n' > ctl")
    assert outputs(box) == ["a\n", "b\n", "c\n"]


def test_unterminated_text(box, sh):
    sh("printf 'exec echo hi' > ctl")
    assert outputs(box) == ["hi\n"]
    sh("printf 'exec echo a\\nexec echo b' > ctl")
    assert outputs(box) == ["hi\n", "a\n", "b\n"]


def test_windows_line_ends(box, sh):
    sh("printf 'exec echo a\\r\\n\\r\\n# x\\r\\nexec echo b\\r\\n' > ctl")
    assert outputs(box) == ["a\n", "b\n"]


def test_here_document(box, sh):
    sh("cat > ctl <<'END'\nexec echo \"it's\" $((1+1))\nexec name=n env.X='a b' echo \"$X\"\nEND\n")
    box.wait("n")
    assert box.read("exec/1/stdout") == b"it's 2\n"
    assert box.read("exec/n/stdout") == b"a b\n"


def test_grouped_commands_share_a_descriptor(box, sh):
    """The fork of a subshell closes its copy: that is no end of the line."""
    sh("{ printf 'exec echo'; (:); printf ' one'; (exit 0); echo ' two'; } > ctl")
    assert outputs(box) == ["one two\n"]


def test_result_by_descriptor(box, sh):
    out = sh("exec 3<>ctl; echo 'exec echo a' >&3; read n <&3; echo $n; "
             "echo 'exec name=b echo b' >&3; read n <&3; echo $n; "
             "printf 'exec echo c\\nexec echo d\\n' >&3; read n <&3; read m <&3; echo $n $m").out
    assert out == "1\nb\n3 4\n"
    assert [box.wait(n) for n in ("1", "b", "3", "4")] == ["exit 0"] * 4


def test_error_is_the_writers_exit_code(box, sh):
    said = sh("echo strat > ctl", check=False)
    assert said.code != 0 and said.err  # "Invalid argument", or dash's "I/O error" for any
    assert error_text(box).endswith('unknown verb "strat"; did you mean "start"?')
    said = sh("printf 'exec echo a\\nstrat\\n' > ctl || echo failed", check=False)
    assert "failed" in said.out


def test_error_of_cat_and_tee_and_cp(box, base):
    (base / "commands").write_text("exec echo a\nstrat\n")
    for tool in ("cat %s > ctl", "cp %s ctl", "tee ctl < %s > /dev/null", "dd status=none of=ctl if=%s"):
        said = shell(box, tool % shlex.quote(str(base / "commands")), check=False)
        assert said.code != 0 and "Invalid argument" in said.err, said
    assert tasks(box) == []
    (base / "commands").write_text("exec echo a\nexec echo b\n")
    shell(box, "cp %s ctl" % shlex.quote(str(base / "commands")))
    assert outputs(box) == ["a\n", "b\n"]


def test_bash_splits_long_output_at_4096(box):
    text = "x" * 20000
    shell(box, "printf 'exec echo %%s\\n' %s > ctl" % text)
    shell(box, "echo 'exec echo %s' > ctl" % text)
    assert outputs(box) == [text + "\n"] * 2


def test_other_shells(box):
    for program in ("dash", "busybox", "ksh", "zsh"):
        if run("command -v %s" % program, check=False).code:
            continue
        argv = [program] + (["sh"] if program == "busybox" else []) + ["-c"]
        run(argv + ["echo 'exec echo hi' > ctl"], cwd=box.dir)
        assert outputs(box)[-1] == "hi\n"


def test_perl_awk_python_node_write(box):
    run(["awk", "BEGIN { print \"exec echo awk\" > \"ctl\"; close(\"ctl\") }"], cwd=box.dir)
    run(["python3", "-c", "open('ctl', 'w').write('exec echo python\\n')"], cwd=box.dir)
    run(["python3", "-c", "import pathlib; pathlib.Path('ctl').write_text('exec echo path')"],
        cwd=box.dir)
    need("perl", "node")
    run(["perl", "-e", "open F, '>', 'ctl'; print F \"exec echo perl\\n\"; close F or die"],
        cwd=box.dir)
    run(["node", "-e", "require('fs').writeFileSync('ctl', 'exec echo node\\n')"], cwd=box.dir)
    run(["node", "-e", "require('fs').appendFileSync('ctl', 'exec echo more\\n')"], cwd=box.dir)
    assert outputs(box) == [n + "\n" for n in ("awk", "python", "path", "perl", "node", "more")]


# -- descriptors

def test_commit_is_at_the_newline_not_at_the_write(box):
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    os.write(descriptor, b"exec ec")
    os.write(descriptor, b"ho one")
    assert tasks(box) == []
    os.write(descriptor, b"\nexec echo two")
    assert tasks(box) == ["1"]
    os.write(descriptor, b"\n")
    assert tasks(box) == ["1", "2"]
    os.close(descriptor)
    assert outputs(box) == ["one\n", "two\n"]


def test_close_reports_the_error_of_an_unterminated_line(box):
    assert write_once(box.dir / "ctl", "strat") == ("close", "EINVAL")
    assert 'did you mean "start"' in error_text(box)


def test_write_reports_the_error_of_a_line(box):
    assert write_once(box.dir / "ctl", "strat\n") == ("write", "EINVAL")


def test_refused_write_does_nothing_of_it(box):
    for data in ("exec echo a\nstrat\n", "strat\nexec echo a\n", "exec echo a\nexec cwd='x\nstop\n",
                 "stop\nexec echo a\n{\n", "exec name=a echo\nexec name=a echo\n"):
        assert write_once(box.dir / "ctl", data) in (("write", "EINVAL"), ("write", "EEXIST")), data
        assert tasks(box) == [] and box.state == "running", data


def test_refused_write_drops_the_rest_that_was_pending(box):
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    os.write(descriptor, b"exec echo a")
    assert error_of(os.write, descriptor, b"\nstrat\n") == "EINVAL"
    os.close(descriptor)
    time.sleep(0.1)
    assert tasks(box) == []


def test_handle_goes_on_after_a_refused_write(box):
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    assert error_of(os.write, descriptor, b"strat\n") == "EINVAL"
    os.write(descriptor, b"exec echo a\n")
    os.close(descriptor)
    assert outputs(box) == ["a\n"]


def test_python_buffer_that_is_refused_and_sent_again(box):
    """io.BufferedWriter keeps what was refused and sends it again at close."""
    file = open(box.dir / "ctl", "w")
    file.write("exec echo a\nstrat\n")
    assert error_of(file.flush) == "EINVAL"
    assert error_of(file.close) == "EINVAL"
    assert tasks(box) == []
    file = io.BufferedWriter(io.FileIO(box.dir / "ctl", "w"), 16)
    file.write(b"exec echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n")
    file.close()
    assert outputs(box) == ["a" * 41 + "\n"]


def test_two_handles_keep_their_lines_apart(box):
    first, second = (os.open(box.dir / "ctl", os.O_WRONLY) for _ in range(2))
    for descriptor, data in ((first, b"exec ec"), (second, b"exec "), (first, b"ho one"),
                             (second, b"echo two\n"), (first, b"\n")):
        os.write(descriptor, data)
    os.close(first)
    os.close(second)
    assert outputs(box) == ["two\n", "one\n"]


def test_offsets_and_truncation_are_ignored(box):
    path = box.dir / "ctl"
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"exec echo a\n", 1 << 40)
    os.lseek(descriptor, 12345, os.SEEK_SET)
    os.write(descriptor, b"exec echo b\n")
    os.pwrite(descriptor, b"exec echo c\n", 0)
    os.close(descriptor)
    assert write_once(path, "exec echo d\n", os.O_WRONLY | os.O_TRUNC | os.O_APPEND) is None
    assert write_once(path, "exec echo e\n", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) is None
    assert outputs(box) == ["a\n", "b\n", "c\n", "d\n", "e\n"]


def test_truncate_chmod_and_utimens_do_nothing(mount, box):
    def is_quiet():
        """Creations and destructions that are under way change the root's files."""
        names = sorted(line.split(" ")[1] for line in (mount.path / "status").read_text().splitlines()
                       if line.startswith("sandbox "))
        return names == mount.sandboxes() and all(r[1] != "pending" for r in results(mount.path / "ctl")) \
            and same_for(0.3, lambda: os.stat(mount.path / "ctl").st_mtime_ns)
    wait_for(is_quiet, 60, what=lambda: (mount.path / "status").read_text())
    for path in (mount.path / "ctl", box.dir / "ctl", box.dir / "env", box.dir / "stdin"):
        before = os.stat(path)
        os.truncate(path, 0)
        os.truncate(path, 100)
        os.chmod(path, 0o777)
        os.utime(path, (1, 1))
        run(["touch", path])
        after = os.stat(path)
        assert after.st_mode == before.st_mode
        assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size), path
    assert tasks(box) == [] and box.state == "running"


def test_fsync_works(box):
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    os.write(descriptor, b"exec echo a\n")
    os.fsync(descriptor)
    os.close(descriptor)
    assert outputs(box) == ["a\n"]


def test_long_line_by_many_writes(box):
    """700,000 bytes of stdin in one JSON line, in pieces of all sizes."""
    line = b'{"verb":"exec","text":"wc -c","stdin":"%s"}\n' % (b"x" * 700_000)
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    at, size = 0, 1
    while at < len(line):
        at += os.write(descriptor, line[at:at + size])
        size = size * 3 % 200_001 + 1
    os.close(descriptor)
    assert outputs(box) == ["700000\n"]


@pytest.mark.parametrize("size", [100, 4096, 131_072, 512 * 1024 - 100, 600_000, 1_000_000])
def test_long_line_by_one_write(box, size):
    line = b'{"verb":"exec","text":"wc -c","stdin":"%s"}\n' % (b"x" * size)
    assert write_once(box.dir / "ctl", line) is None
    assert outputs(box) == ["%d\n" % size]


def test_refused_half_mebibyte_is_refused_whole(box):
    good = b"exec echo a\n"
    data = good * ((512 * 1024 - 10) // len(good)) + b"strat\n"
    assert len(data) <= 512 * 1024
    assert write_once(box.dir / "ctl", data)[0] == "write"
    assert tasks(box) == []


def test_line_beyond_one_mebibyte(box):
    line = b"exec : " + b"x" * (1 << 20) + b"\n"
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    failed = None
    for at in range(0, len(line), 65536):
        failed = failed or error_of(os.write, descriptor, line[at:at + 65536])
    os.close(descriptor)
    assert failed == "E2BIG"
    assert tasks(box) == []
    box.ok("true")


def test_endless_line_takes_no_memory(mount, box):
    """A program that writes without a newline is stopped at the limit."""
    def resident():
        with open("/proc/%d/statm" % mount.pid) as file:
            return int(file.read().split()[1]) * 4096
    before = resident()
    descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
    errors = [error_of(os.write, descriptor, b"x" * 65536) for _ in range(1000)]
    error_of(os.close, descriptor)
    assert "E2BIG" in errors
    assert resident() - before < 64 << 20
    assert tasks(box) == []


def test_nul_is_refused(box):
    assert write_once(box.dir / "ctl", b"exec echo a\0b\n") == ("write", "EINVAL")
    assert "NUL" in error_text(box)


# -- results

def test_read_of_ctl_shows_the_last_32_results(box):
    for n in range(40):
        box.ctl("label n%d=x" % n)
    found = results(box.dir / "ctl")
    assert len(found) == 32
    assert [r[0] for r in found] == list(range(found[0][0], found[0][0] + 32))
    assert [r[3] for r in found] == ["label n%d=x" % n for n in range(8, 40)]
    assert {r[1] for r in found} <= {"ok", "pending"}


def test_results_of_the_root(mount):
    mount.ctl("create shown label.x=y")
    box = mount.box("shown")
    try:
        box.wait_state("running")

        def last():
            return [r for r in results(mount.path / "ctl") if r[3].startswith("create shown")][-1]
        wait_for(lambda: last()[1] != "pending", what=lambda: str(last()))  # told just after it can be seen to run
        assert last()[1:3] == ("ok", "shown")
    finally:
        box.destroy()


def test_pending_until_it_was_carried_out(box):
    number = box.start("trap '' TERM; echo ready; while :; do sleep 0.1; done")
    wait_output(box, number, "ready")  # from here on a stop takes all its grace
    box.ctl("stop")
    last = results(box.dir / "ctl")[-1]
    assert (last[1], last[3]) == ("pending", "stop")
    box.wait_state("stopped")  # which can be seen just before the result
    wait_for(lambda: [r for r in results(box.dir / "ctl") if r[3] == "stop"][-1][1] == "ok", 10)


def test_values_by_descriptor(mount, box):
    assert submit(box.dir / "ctl", "exec true\n") == "1\n"
    assert submit(box.dir / "ctl", "exec true\nexec name=n true\nlabel a=b\n") \
        == "2\nn\n%s\n" % box.name
    assert submit(box.dir / "ctl", '{"verb":"exec","text":"true"}\n') == "4\n"
    assert submit(box.dir / "ctl", "# nothing\n\n") == ""
    assert submit(mount.path / "ctl", "create value1\ncreate value2\n") == "value1\nvalue2\n"
    for name in ("value1", "value2"):
        mount.box(name).wait_state("running")
        mount.box(name).destroy()


def test_descriptor_answers_only_its_own_values(box):
    descriptor = os.open(box.dir / "ctl", os.O_RDWR)
    box.ctl("exec true")
    os.write(descriptor, b"exec true\n")
    box.ctl("exec true")
    assert os.read(descriptor, 100) == b"2\n"
    assert os.read(descriptor, 100) == b""
    os.write(descriptor, b"exec true\n")
    assert os.read(descriptor, 1) == b"4"
    assert os.read(descriptor, 100) == b"\n"
    assert error_of(os.write, descriptor, b"strat\n") == "EINVAL"
    assert os.read(descriptor, 100) == b""
    os.close(descriptor)


def test_values_are_outside_of_the_size(box):
    descriptor = os.open(box.dir / "ctl", os.O_RDWR)
    os.write(descriptor, b"exec true\n")
    box.wait("1")  # or its line changes in between
    assert os.stat(box.dir / "ctl").st_size == len(box.read("ctl"))
    assert os.read(descriptor, 100) == b"1\n"
    os.close(descriptor)


def test_results_hide_secrets(mount, box):
    box.ctl("exec env.TOKEN='s3cret value' env.B=s3cret true")
    box.ctl('{"verb":"exec","text":"true","env":{"TOKEN":"s3cret"},"stdin":"s3cret"}')
    mount.ctl("create hidden env.TOKEN=s3cret")
    try:
        for path in (box.dir / "ctl", mount.path / "ctl", box.dir / "exec/1/cmd",
                     box.dir / "exec/2/cmd", box.dir / "status", box.dir / "error"):
            assert b"s3cret" not in box.read(path), path
        assert b"exec env.TOKEN=*** env.B=*** true\n" in box.read("ctl")
        assert b"create hidden env.TOKEN=***\n" in mount.read(mount.path / "ctl")
    finally:
        mount.box("hidden").wait_state("running")
        mount.box("hidden").destroy()


def test_foreign_text_forges_no_line(box):
    """A result is one line, whatever the command holds."""
    box.ctl('{"verb":"exec","text":"true # \\n99 ok x y\\u001b[31m\\u0085"}')
    box.ctl("exec : \x1b[31m \xc2\x85")
    lines = box.read("ctl").split(b"\n")
    assert len(lines) == 3 and b"99 ok" in lines[0] and b"\\x1b[31m" in lines[1]
    assert b"\x1b" not in lines[1] and lines[2] == b""
    box.wait("1")


# -- editors and savers

def test_temp_file_and_rename(box, sh):
    sh("echo 'exec echo hi' > .new && mv .new ctl")
    assert outputs(box) == ["hi\n"]
    assert ".new" not in os.listdir(box.dir)


def test_temp_file_without_newline(box):
    (box.dir / "x.tmp").write_text("exec echo a\nexec echo b")
    os.rename(box.dir / "x.tmp", box.dir / "ctl")
    assert outputs(box) == ["a\n", "b\n"]


def test_exclusive_temp_names_of_savers(box):
    """O_EXCL, fsync, fchmod, rename, fsync of the directory."""
    for n, name in enumerate((".ctl.tmp1", "ctl.123.tmp", "ctl~", ".#ctl", "4913", "ctl.new")):
        path = box.dir / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, b"exec echo %d\n" % n)
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
        assert path.read_text() == "exec echo %d\n" % n
        assert error_of(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) == "EEXIST"
        os.replace(path, box.dir / "ctl")
        directory = os.open(box.dir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    assert outputs(box) == ["%d\n" % n for n in range(6)]


def test_temp_files_are_small_files_like_others(box):
    path = box.dir / ".scratch"
    with open(path, "w+b") as file:
        file.write(b"x" * 5000)
        file.seek(10)
        file.write(b"yy")
        file.seek(0)
        assert file.read() == b"x" * 10 + b"yy" + b"x" * 4988
        file.truncate(3)
    assert os.stat(path).st_size == 3 and path.read_bytes() == b"xxx"
    os.rename(path, box.dir / ".other")
    assert (box.dir / ".other").read_bytes() == b"xxx"
    os.unlink(box.dir / ".other")
    assert error_of(os.stat, box.dir / ".other") == "ENOENT"
    assert tasks(box) == []


def test_temp_files_do_not_fill_memory(box):
    path = box.dir / ".scratch"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    failed = None
    for _ in range(200):
        failed = failed or error_of(os.write, descriptor, b"x" * (1 << 20))
    os.close(descriptor)
    os.unlink(path)
    assert failed in ("ENOSPC", "EFBIG", "E2BIG")


def test_rename_of_bad_text_is_refused(box):
    (box.dir / ".new").write_text("exec echo a\nstrat\n")
    assert error_of(os.rename, box.dir / ".new", box.dir / "ctl") == "EINVAL"
    assert tasks(box) == []
    assert 'did you mean "start"' in error_text(box)


def test_rename_onto_ctl_leaves_ctl(box):
    inode = os.stat(box.dir / "ctl").st_ino
    (box.dir / ".new").write_text("exec echo a\n")
    os.rename(box.dir / ".new", box.dir / "ctl")
    assert os.stat(box.dir / "ctl").st_ino == inode
    assert b"exec echo a" in box.read("ctl")
    assert outputs(box) == ["a\n"]


def test_renames_of_control_files_are_refused(box):
    for name in ("status", "stdout", "error"):  # what can be written is copied, for editors
        assert error_of(os.rename, box.dir / name, box.dir / ".away") in ("EPERM", "EACCES"), name
    (box.dir / ".new").write_text("x")
    for name in ("status", "stdout", "error", "fs", "exec"):
        assert error_of(os.rename, box.dir / ".new", box.dir / name) in (
            "EPERM", "EACCES", "EISDIR", "EINVAL"), name
    os.unlink(box.dir / ".new")


def test_sed_i_on_ctl(box):
    box.ok("echo first")
    run(["sed", "-n", "-i", "1s/.*/exec echo sed/p", box.dir / "ctl"])
    assert outputs(box) == ["first\n", "sed\n"]


@pytest.mark.parametrize("mode", ["yes", "no", "auto"])
def test_vim_saves_ctl(box, mode):
    need("vim")
    script = "set nocompatible backupcopy=%s writebackup nobackup backupskip=\nedit!\n" \
        "%%d\ncall setline(1, 'exec echo vim')\nwq\n" % mode
    run(["vim", "-es", "-u", "NONE", "-i", "NONE", box.dir / "ctl"], cwd=box.dir, input=script,
        env={"TERM": "dumb", "HOME": str(box.fs)})
    assert outputs(box) == ["vim\n"]
    assert sorted(n for n in os.listdir(box.dir) if n not in ("ctl", "exec", "fs")) \
        == sorted("stdin stdout stderr status error env".split())


def test_emacs_saves_ctl(box):
    need("emacs")
    run(["emacs", "--batch", "-Q", "--eval", """(progn (find-file "%s") (erase-buffer)
        (insert "exec echo emacs\\n") (save-buffer))""" % (box.dir / "ctl")],
        env={"HOME": str(box.fs)})
    assert outputs(box) == ["emacs\n"]


def test_savers_on_env(box, sh):
    sh("echo A=1 > env; echo B=2 >> env; echo C=3 | tee env > /dev/null; "
       "printf 'D=4' > env; echo 'E=5' > .env.tmp; mv .env.tmp env; printf 'F=6\\nG=7\\n' > env")
    assert box.ok("echo $A$B$C$D$E$F$G") == b"1234567\n"


def test_savers_on_cmd(box, sh):
    sh("mkdir exec/a; echo 'echo a' > exec/a/cmd; "
       "mkdir exec/b; echo 'echo b' > exec/b/.cmd.tmp; mv exec/b/.cmd.tmp exec/b/cmd; "
       "mkdir exec/c; printf 'echo %s\\n' c | tee exec/c/cmd > /dev/null; "
       "mkdir exec/d; printf 'echo 1\\necho 2' > exec/d/cmd")
    for name, expected in (("a", b"a\n"), ("b", b"b\n"), ("c", b"c\n"), ("d", b"1\n2\n")):
        assert box.wait(name) == "exit 0"
        assert box.read("exec/%s/stdout" % name) == expected


@pytest.mark.parametrize("mode", ["yes", "no"])
def test_vim_saves_cmd(box, mode):
    need("vim")
    os.mkdir(box.dir / "exec" / "v")
    script = "set nocompatible backupcopy=%s writebackup backupskip=\nedit!\n" \
        "call setline(1, 'echo vim')\nwq\n" % mode
    run(["vim", "-es", "-u", "NONE", "-i", "NONE", box.dir / "exec/v/cmd"], cwd=box.dir,
        input=script, env={"TERM": "dumb", "HOME": str(box.fs)})
    assert box.wait("v") == "exit 0"
    assert box.read("exec/v/stdout") == b"vim\n"


# -- JSON

def test_json_takes_every_option(box):
    number = submit(box.dir / "ctl", '{"verb":"exec","argv":["sh","-c","cat; echo $A; pwd"],'
                    '"timeout":"5m","env":{"A":"1 2"},"stdin":"in\\n","name":"j","cwd":"/tmp"}\n')
    assert number == "j\n"
    assert box.wait("j") == "exit 0"
    assert box.read("exec/j/stdout") == b"in\n1 2\n/tmp\n"


def test_json_of_python_and_node(box):
    import json
    text = "printf '%s' \"$1\"; # \u00e4 \U0001f600 \\ \" ' $x\necho two"
    box.ctl(json.dumps({"verb": "exec", "argv": ["sh", "-c", text, "-", "a\u00e4\nb"]}))
    assert box.wait("1") == "exit 0"
    assert box.read("exec/1/stdout").decode() == "a\u00e4\nbtwo\n"


def test_json_create(mount):
    mount.ctl('{"verb":"create","name":"fromjson","provider":"local","env":{"K":"v"},'
              '"label":{"a":"b"},"timeout":"1h"}')
    box = mount.box("fromjson")
    try:
        box.wait_state("running")
        assert box.ok("echo $K") == b"v\n"
        assert status_json(box)["name"] == "fromjson"
    finally:
        box.destroy()


# -- several at once

def test_many_writers_at_once(box):
    """8 processes, 50 lines each, in several styles: every line is taken once and whole."""
    script = """
import os, sys
who, path = sys.argv[1:]
for n in range(50):
    line = "label w%s-%d=%s" % (who, n, "x" * (n * 7))
    if n % 3 == 0:
        with open(path, "w") as f: f.write(line + "\\n")
    elif n % 3 == 1:
        fd = os.open(path, os.O_WRONLY)
        for c in (line[:9], line[9:], "\\n"):
            os.write(fd, c.encode())
        os.close(fd)
    else:
        fd = os.open(path, os.O_WRONLY); os.write(fd, line.encode()); os.close(fd)
"""
    before = results(box.dir / "ctl")
    first = before[-1][0] if before else 0
    writers = [subprocess.Popen([sys.executable, "-c", script, str(n), str(box.dir / "ctl")])
               for n in range(8)]
    assert [w.wait(120) for w in writers] == [0] * 8
    assert results(box.dir / "ctl")[-1][0] == first + 400
    assert all(re.fullmatch(r"label w\d-\d+=x*(\.\.\.)?", r[3]) for r in results(box.dir / "ctl"))


def test_kill_gets_in_while_others_write(box):
    number = box.start("sleep 1000")
    stop = threading.Event()

    def write():
        while not stop.is_set():
            box.ctl("label a=b")
    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        began = time.monotonic()
        box.ctl("kill -9 %s" % number)
        assert box.wait(number, 60) == "signal 9"
        assert time.monotonic() - began < 30
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
