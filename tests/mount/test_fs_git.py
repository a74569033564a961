# SPDX-License-Identifier: Apache-2.0
"""git on fs/, unmodified."""

import os

import pytest

from support import kinds
from support.tools import need, run
from support.trees import describe, sample

pytestmark = pytest.mark.kinds(*kinds.ALL)


@pytest.fixture
def git(scratch):
    """git(args..., cwd=...) with nothing of the user's configuration."""
    need("git")
    settings = {"HOME": str(scratch), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org",
                "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org"}

    def call(*argv, cwd, **kwargs):
        return run(["git", "-c", "init.defaultBranch=main", "-c", "core.quotePath=false", *argv],
                   cwd=cwd, env=settings, timeout=120, **kwargs)
    return call


def commit_sample(git, top):
    git("init", "-q", cwd=top)
    sample(top)
    git("add", "-A", cwd=top)
    git("commit", "-q", "-m", "first", cwd=top)


def test_git_init_add_commit(fsdir, git):
    top = fsdir / "repo"
    top.mkdir()
    commit_sample(git, top)
    assert git("log", "--format=%s", cwd=top).out == "first\n"
    assert git("status", "--porcelain", cwd=top).out == ""
    git("fsck", "--strict", cwd=top)


def test_git_init_takes_the_file_system_for_a_good_one(fsdir, git):
    """init probes for x bits, symlinks and case; each wrong answer lands in the configuration."""
    git("init", "-q", "repo", cwd=fsdir)
    config = (fsdir / "repo/.git/config").read_text()
    assert "filemode = true" in config
    assert "symlinks = false" not in config
    assert "ignorecase" not in config


def test_git_status_sees_a_change_of_one_byte(fsdir, git):
    """Same size, same second: only ns times, or the racy check, can tell."""
    top = fsdir / "repo"
    top.mkdir()
    git("init", "-q", cwd=top)
    for n in range(20):
        (top / "a").write_text("text%02d" % n)
        git("add", "a", cwd=top)
        git("commit", "-q", "-m", "c", cwd=top)
        (top / "a").write_text("TEXT%02d" % n)
        assert git("status", "--porcelain", cwd=top).out == " M a\n"


def test_git_status_after_clone_is_clean_and_touches_nothing(fsdir, git, scratch):
    origin = scratch / "origin"
    origin.mkdir()
    commit_sample(git, origin)
    git("clone", "-q", origin, fsdir / "clone", cwd=fsdir)
    top = fsdir / "clone"
    # diff-files doesn't refresh: the stat data in the index must be right as it is.
    assert git("diff-files", "--name-only", cwd=top).out == ""
    assert git("status", "--porcelain", cwd=top).out == ""
    (top / ".git").rename(fsdir / "gone")
    (origin / ".git").rename(scratch / "gone")
    ours, theirs = (describe(x, times=False, modes=False) for x in (top, origin))
    assert ours == {k: v for k, v in theirs.items() if v[0] != "directory" or k in ours}


def test_git_clone_inside_of_fs(fsdir, git):
    """A local clone tries hard links, and has to fall back to copies where they are refused."""
    top = fsdir / "repo"
    top.mkdir()
    commit_sample(git, top)
    git("clone", "-q", "repo", "clone", cwd=fsdir)
    git("clone", "-q", "--bare", "repo", "bare.git", cwd=fsdir)
    for name in ("clone", "bare.git"):
        git("fsck", "--strict", cwd=fsdir / name)
    assert git("status", "--porcelain", cwd=fsdir / "clone").out == ""
    assert git("rev-parse", "HEAD", cwd=fsdir / "clone").out == \
        git("rev-parse", "HEAD", cwd=top).out


def test_git_clone_out_of_fs(fsdir, git, scratch):
    top = fsdir / "repo"
    top.mkdir()
    commit_sample(git, top)
    git("clone", "-q", top, scratch / "clone", cwd=scratch)
    git("fsck", "--strict", cwd=scratch / "clone")
    assert git("status", "--porcelain", cwd=scratch / "clone").out == ""


def test_git_gc_and_fsck(fsdir, git):
    top = fsdir / "repo"
    top.mkdir()
    commit_sample(git, top)
    for n in range(15):
        (top / ("more%d" % n)).write_text("more %d\n" % n * 100)
        git("add", "-A", cwd=top)
        git("commit", "-q", "-m", "more %d" % n, cwd=top)
    git("gc", "-q", "--aggressive", "--prune=now", cwd=top)
    git("fsck", "--full", "--strict", cwd=top)
    assert len(list((top / ".git/objects/pack").glob("*.pack"))) == 1
    assert len(git("rev-list", "HEAD", cwd=top).out.split()) == 16
    assert git("status", "--porcelain", cwd=top).out == ""


def test_git_branch_merge_checkout_stash(fsdir, git):
    top = fsdir / "repo"
    top.mkdir()
    commit_sample(git, top)
    git("checkout", "-q", "-b", "side", cwd=top)
    (top / "side").write_text("side\n")
    git("add", "-A", cwd=top)
    git("commit", "-q", "-m", "side", cwd=top)
    git("checkout", "-q", "main", cwd=top)
    assert not (top / "side").exists()
    (top / "mine").write_text("mine\n")
    git("add", "-A", cwd=top)
    git("commit", "-q", "-m", "mine", cwd=top)
    git("merge", "-q", "-m", "merge", "side", cwd=top)
    assert (top / "side").read_text() == "side\n"
    (top / "mine").write_text("changed\n")
    git("stash", "-q", cwd=top)
    assert (top / "mine").read_text() == "mine\n"
    git("stash", "pop", "-q", cwd=top)
    assert (top / "mine").read_text() == "changed\n"
    git("worktree", "add", "-q", "../tree", "side", cwd=top)
    assert (fsdir / "tree/side").exists()


def test_git_keeps_x_bits_and_links(fsdir, git):
    top = fsdir / "repo"
    top.mkdir()
    git("init", "-q", cwd=top)
    (top / "tool").write_text("#!/bin/sh\n")
    os.chmod(top / "tool", 0o755)
    os.symlink("tool", top / "link")
    git("add", "-A", cwd=top)
    modes = [line.split()[0] for line in git("ls-files", "-s", cwd=top).out.splitlines()]
    assert modes == ["120000", "100755"]


def test_git_clone_survives_its_alarm_timer(fsdir, git, scratch, kind):
    """The progress meter gets SIGALRM all the time; no call may end with EINTR for it."""
    origin = scratch / "origin"
    origin.mkdir()
    git("init", "-q", cwd=origin)
    for n in range(kind.scaled(1500, 400)):
        (origin / ("f%04d" % n)).write_text("%d\n" % n)
    git("add", "-A", cwd=origin)
    git("commit", "-q", "-m", "many", cwd=origin)
    result = git("clone", "--progress", "file://%s" % origin, fsdir / "clone", cwd=fsdir)
    assert "Receiving objects: 100%" in result.err
    git("fsck", "--strict", cwd=fsdir / "clone")
    assert git("status", "--porcelain", cwd=fsdir / "clone").out == ""
