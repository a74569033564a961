# SPDX-License-Identifier: Apache-2.0
"""How editors and agents' tools save: in place, by backup, by temp file and rename."""

import os
import stat

import pytest

from support import kinds
from support.tools import need, run

pytestmark = pytest.mark.kinds(*kinds.ALL)


def vim(path, *commands):
    """Ex commands on a file; backups are allowed below /tmp too, which vim leaves out by itself."""
    script = "\n".join(("set nocompatible backupskip=",) + commands + ("wq", ""))
    run(["vim", "-es", "-u", "NONE", "-i", "NONE", path], cwd=path.parent, input=script,
        env={"TERM": "dumb", "HOME": str(path.parent)})


@pytest.mark.parametrize("mode", ["yes", "no", "auto"])
def test_vim_saves(fsdir, mode):
    """backupcopy=yes writes in place, no renames; both keep the mode and leave nothing behind."""
    need("vim")
    path = fsdir / "text"
    path.write_text("one\ntwo\n")
    os.chmod(path, 0o755)
    before = os.stat(path).st_ino
    vim(path, "set backupcopy=%s writebackup nobackup swapfile directory=." % mode,
        "edit!", "%s/two/three/")
    assert path.read_text() == "one\nthree\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755
    if mode == "yes":
        assert os.stat(path).st_ino == before
    assert os.listdir(fsdir) == ["text"]


@pytest.mark.parametrize("mode", ["yes", "no"])
def test_vim_keeps_a_backup(fsdir, mode):
    need("vim")
    path = fsdir / "text"
    path.write_text("old\n")
    vim(path, "set backup backupcopy=%s backupdir=." % mode, "1s/old/new/")
    assert path.read_text() == "new\n"
    assert (fsdir / "text~").read_text() == "old\n"


def test_vim_through_a_symlink_keeps_the_link(fsdir):
    need("vim")
    (fsdir / "text").write_text("old\n")
    os.symlink("text", fsdir / "link")
    vim(fsdir / "link", "set backupcopy=auto", "1s/old/new/")
    assert (fsdir / "link").is_symlink()
    assert (fsdir / "text").read_text() == "new\n"


def test_vim_saves_again_and_again(fsdir):
    """vim warns, and fails with -es, if a file has changed since it read it: times must hold."""
    need("vim")
    path = fsdir / "text"
    path.write_text("0\n")
    vim(path, *("1s/.*/%d/ | write" % n for n in range(1, 30)))
    assert path.read_text() == "29\n"


@pytest.mark.parametrize("by_copying", ["t", "nil"])
def test_emacs_batch_saves(fsdir, by_copying):
    need("emacs")
    path = fsdir / "text"
    path.write_text("one\ntwo\n")
    os.chmod(path, 0o640)
    run(["emacs", "--batch", "-Q", "--eval", """(progn
        (setq backup-by-copying %s
              backup-enable-predicate (lambda (_) t)) ; even below /tmp
        (find-file "%s")
        (goto-char (point-max)) (insert "three\n") (save-buffer)
        (insert "four\n") (save-buffer)
        (unless (verify-visited-file-modtime) (kill-emacs 3)))""" % (by_copying, path)],
        env={"HOME": str(fsdir)})
    assert path.read_text() == "one\ntwo\nthree\nfour\n"
    assert (fsdir / "text~").read_text() == "one\ntwo\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert not [name for name in os.listdir(fsdir) if name.startswith((".#", "#"))]


def test_emacs_locks_and_unlocks_a_file(fsdir):
    """The lock is a dangling symlink with text that is no path; it has to be readable again."""
    need("emacs")
    path = fsdir / "text"
    path.write_text("one\n")
    run(["emacs", "--batch", "-Q", "--eval", """(progn
        (setq create-lockfiles t)
        (find-file "%s") (insert "x")
        (unless (eq (file-locked-p "%s") t) (kill-emacs 3))
        (save-buffer)
        (when (file-locked-p "%s") (kill-emacs 4)))""" % (path, path, path)],
        env={"HOME": str(fsdir)})
    assert path.read_text() == "xone\n"


def test_sed_i(fsdir):
    path = fsdir / "text"
    path.write_text("one\ntwo\n")
    os.chmod(path, 0o751)
    run(["sed", "-i", "s/two/three/", path])
    assert path.read_text() == "one\nthree\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o751
    run(["sed", "-i.bak", "s/three/four/", path])
    assert (fsdir / "text.bak").read_text() == "one\nthree\n"
    assert sorted(os.listdir(fsdir)) == ["text", "text.bak"]


def test_perl_i_and_patch_and_ed(fsdir):
    need("perl", "patch")
    (fsdir / "text").write_text("one\ntwo\n")
    run(["perl", "-pi", "-e", "s/one/1/", "text"], cwd=fsdir)
    run(["patch", "-p0"], cwd=fsdir,
        input="--- text\n+++ text\n@@ -1,2 +1,2 @@\n 1\n-two\n+2\n")
    assert (fsdir / "text").read_text() == "1\n2\n"
    assert os.listdir(fsdir) == ["text"]


def test_atomic_save_by_temp_file_and_rename(fsdir):
    """JetBrains, agents and many libraries: O_EXCL temp name, fsync, chmod, rename, fsync dir."""
    path = fsdir / "text"
    path.write_text("old")
    os.chmod(path, 0o600)
    held = open(path)
    for n in range(50):
        temp = fsdir / (".text.tmp%d" % n)
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, b"new %d" % n)
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)
        os.rename(temp, path)
        directory = os.open(fsdir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
        assert path.read_text() == "new %d" % n
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert held.read() == "old"
    held.close()
    assert os.listdir(fsdir) == ["text"]


def test_save_in_place_with_truncation(fsdir):
    """VS Code and agents' write tools: open with O_TRUNC, write, close; readers stat, then read."""
    path = fsdir / "text"
    for size in (100_000, 10, 0, 5000, 4096, 1):
        with open(path, "w") as file:
            file.write("x" * size)
        assert os.stat(path).st_size == size
        assert path.read_text() == "x" * size


def test_edit_tool_read_check_write(fsdir):
    """An agent's edit tool: read, remember mtime and size, refuse if they changed, write, verify."""
    path = fsdir / "text"
    path.write_text("a\n")
    for n in range(100):
        text = path.read_text()
        seen = os.stat(path)
        assert os.stat(path).st_mtime_ns == seen.st_mtime_ns
        path.write_text(text + "%d\n" % n)
        assert os.stat(path).st_mtime_ns > seen.st_mtime_ns
    assert path.read_text().count("\n") == 101


def test_mktemp_and_named_pipes_of_shells(fsdir):
    out = run("t=$(mktemp -p .) && echo x >> $t && cat < $t && d=$(mktemp -d -p .) && rmdir $d && "
              "rm $t && ls -A | wc -l", cwd=fsdir).out
    assert out.split() == ["x", "0"]


def test_shell_redirections(fsdir):
    run("echo one > a; echo two >> a; cat a a > b; (cat a; echo three) | tee c > d; exec 3<> a; "
        "read x <&3; echo XX >&3; exec 3>&-; cmp c d; set -C; ! (echo no > a) 2>/dev/null", cwd=fsdir)
    assert (fsdir / "a").read_text() == "one\nXX\n\n"
    assert (fsdir / "d").read_text() == "one\ntwo\nthree\n"
