# SPDX-License-Identifier: Apache-2.0
"""Directories and names on fs/: listings while they change, odd names, links."""

import errno
import os
import random
import subprocess
import sys

import pytest

from support import kinds
from support.tools import end, run

pytestmark = pytest.mark.kinds(*kinds.ALL)


def listing_by_descriptor(descriptor):
    return sorted(os.listdir(descriptor))


@pytest.mark.parametrize("name", [b"with space", b"new\nline", b"tab\t", b"back\\slash", b"-rf",
                                  b"\xff\xfe not utf-8", "ünï/☃".encode().replace(b"/", b"-"),
                                  b"'quote\"", b"$(touch x)", b"*", b"...", b" ", b"a" * 255,
                                  b"\x01\x7f", b"ctl", b".sbxfs", b"CON"])
def test_odd_names(fsdir, name):
    path = os.path.join(os.fsencode(fsdir), name)
    with open(path, "wb") as file:
        file.write(name)
    assert os.listdir(os.fsencode(fsdir)) == [name]
    with open(path, "rb") as file:
        assert file.read() == name
    os.rename(path, path[:-1] + b"_")
    os.mkdir(path)
    os.rmdir(path)
    os.symlink(name, path)
    assert os.readlink(path) == name
    os.unlink(path)
    assert os.listdir(os.fsencode(fsdir)) == [name[:-1] + b"_"]


def test_names_differ_by_case_and_normal_form(fsdir):
    names = ["a", "A", "\u00e9", "e\u0301"]
    for name in names:
        (fsdir / name).write_text(name)
    assert sorted(os.listdir(fsdir)) == sorted(names)
    for name in names:
        assert (fsdir / name).read_text() == name


def test_deep_directories(fsdir):
    path = fsdir
    for n in range(100):
        path = path / ("d%d" % n)
        path.mkdir()
    (path / "f").write_text("deep")
    assert (path / "f").read_text() == "deep"
    assert run("find . | wc -l", cwd=fsdir).out.strip() == "102"
    os.rename(fsdir / "d0", fsdir / "moved")
    assert run("find . -name f | xargs cat", cwd=fsdir).out == "deep"


@pytest.mark.needs("long-paths")
def test_path_longer_than_path_max_by_working_directory(fsdir):
    """Relative names reach deeper than PATH_MAX; the server must not depend on a whole path."""
    name = "n" * 200
    program = """
import os, sys
name = "n" * 200
for n in range(40):
    os.mkdir(name)
    os.chdir(name)
open("f", "w").write("very deep")
assert open("f").read() == "very deep"
assert os.listdir(".") == ["f"]
"""
    run([sys.executable, "-c", program], cwd=fsdir)
    run(["rm", "-rf", fsdir / name], timeout=60)
    assert os.listdir(fsdir) == []


def test_directory_of_10000_entries_lists_each_exactly_once(fsdir, kind):
    """... while others come and go: what is there all the time is listed once, nothing twice."""
    top = fsdir / "d"
    top.mkdir()
    fixed = {"fixed%05d" % n for n in range(kind.scaled(10_000))}
    for name in fixed:
        os.close(os.open(top / name, os.O_CREAT | os.O_WRONLY))
    churn = subprocess.Popen([sys.executable, "-c", """
import os, random
dice = random.Random(1)
while True:
    name = "d/churn%d" % dice.randrange(500)
    try:
        if dice.random() < 0.5: os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        elif dice.random() < 0.5: os.unlink(name)
        else: os.rename(name, "d/churn%d" % dice.randrange(500, 1000))
    except FileNotFoundError:
        pass
"""], cwd=fsdir, start_new_session=True)
    try:
        for n in range(8):
            if n % 2:
                names = os.listdir(top)
            else:  # attributes too; ls complains of names that went away in between
                lines = run(["ls", "-lU", top], check=False).out.splitlines()[1:]
                names = [line.split()[-1] for line in lines]
            kept = [name for name in names if name.startswith("fixed")]
            assert len(kept) == len(fixed) and set(kept) == fixed
            # a churn name may be made anew while we read, under the same name, so only most count
            assert len(names) - len(set(names)) < 50
        assert churn.poll() is None
    finally:
        end(churn)


def test_listing_without_changes_has_each_name_once(fsdir, kind):
    count = kind.scaled(3000, 1000)
    for n in range(count):
        os.close(os.open(fsdir / ("f%d" % n), os.O_CREAT | os.O_WRONLY))
    for _ in range(3):
        names = os.listdir(fsdir)
        assert len(names) == count and len(set(names)) == count


def test_new_names_are_listed_and_removed_names_are_not(fsdir):
    dice = random.Random(3)
    there = set()
    for _ in range(300):
        name = "n%d" % dice.randrange(40)
        if name in there:
            (fsdir / name).unlink()
            there.remove(name)
        else:
            (fsdir / name).write_text(name)
            there.add(name)
        assert set(os.listdir(fsdir)) == there


def test_rewinddir_sees_changes(fsdir):
    (fsdir / "a").write_text("")
    descriptor = os.open(fsdir, os.O_RDONLY | os.O_DIRECTORY)
    assert listing_by_descriptor(descriptor) == ["a"]
    (fsdir / "b").write_text("")
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert listing_by_descriptor(descriptor) == ["a", "b"]
    (fsdir / "a").unlink()
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert listing_by_descriptor(descriptor) == ["b"]
    os.close(descriptor)


SEEKDIR = r"""
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
        static char names[5000][64];
        static long places[5000];
        DIR *d = opendir(argc > 1 ? argv[1] : ".");
        struct dirent *e;
        int n = 0;
        for (;;) {
                places[n] = telldir(d);
                e = readdir(d);
                if (!e)
                        break;
                snprintf(names[n++], 64, "%s", e->d_name);
        }
        for (int i = n - 1; i >= 0; i = i > 7 ? i - 7 : i - 1) {
                seekdir(d, places[i]);
                e = readdir(d);
                if (!e || strcmp(e->d_name, names[i])) {
                        printf("at %d: %s, not %s\n", i, e ? e->d_name : "the end", names[i]);
                        return 1;
                }
        }
        printf("%d\n", n);
        return 0;
}
"""


def test_telldir_and_seekdir(fsdir, scratch, kind):
    count = kind.scaled(2500, 1000)
    (scratch / "seekdir.c").write_text(SEEKDIR)
    run(["gcc", "-o", "seekdir", "seekdir.c"], cwd=scratch)
    (fsdir / "d").mkdir()
    for n in range(count):
        os.close(os.open(fsdir / "d" / ("f%d" % n), os.O_CREAT | os.O_WRONLY))
    assert run([scratch / "seekdir", fsdir / "d"]).out == "%d\n" % (count + 2)


def test_d_type_is_right(fsdir):
    (fsdir / "f").write_text("")
    (fsdir / "d").mkdir()
    os.symlink("f", fsdir / "l")
    kinds = {e.name: (e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False),
                      e.is_symlink()) for e in os.scandir(fsdir)}
    assert kinds == {"f": (True, False, False), "d": (False, True, False), "l": (False, False, True)}


# -- links

def test_relative_symlinks(fsdir):
    os.makedirs(fsdir / "a/b")
    (fsdir / "a/f").write_text("content")
    for link, target in (("l1", "a/f"), ("a/b/l2", "../f"), ("a/b/l3", "../../a/f"), ("l4", "l1")):
        os.symlink(target, fsdir / link)
        assert os.readlink(fsdir / link) == target
        assert (fsdir / link).read_text() == "content"
        assert os.lstat(fsdir / link).st_size == len(target)
    for link, target in (("a/l5", "b/../f"), ("l6", "./a/./f"), ("l7", "a//f")):
        os.symlink(target, fsdir / link)  # the text may be tidied, the meaning may not change
        assert (fsdir / link).read_text() == "content"
        assert os.lstat(fsdir / link).st_size == len(os.readlink(fsdir / link))
    (fsdir / "l1").write_text("through the link")
    assert (fsdir / "a/f").read_text() == "through the link"


def test_dangling_symlinks(fsdir):
    os.symlink("nowhere/at/all", fsdir / "l")
    assert os.readlink(fsdir / "l") == "nowhere/at/all"
    assert (fsdir / "l").is_symlink() and not (fsdir / "l").exists()
    os.symlink("made", fsdir / "m")
    (fsdir / "m").write_text("made through the link")
    assert (fsdir / "made").read_text() == "made through the link"


def test_symlinks_are_not_followed_by_unlink_rename_lstat(fsdir):
    (fsdir / "f").write_text("kept")
    os.symlink("f", fsdir / "l")
    os.rename(fsdir / "l", fsdir / "m")
    assert os.readlink(fsdir / "m") == "f"
    (fsdir / "m").unlink()
    assert (fsdir / "f").read_text() == "kept"


def test_symlink_replaced_by_rename_is_seen_at_once(fsdir):
    """`current -> v1` is how deployments switch; no link text may be cached."""
    for n in range(50):
        (fsdir / ("v%d" % n)).write_text("version %d" % n)
        os.symlink("v%d" % n, fsdir / "next")
        os.rename(fsdir / "next", fsdir / "current")
        assert os.readlink(fsdir / "current") == "v%d" % n
        assert (fsdir / "current").read_text() == "version %d" % n


@pytest.mark.mount_only
def test_absolute_symlinks_are_anchored_at_fs(fsdir):
    """As in a chroot: /etc/passwd is fs/etc/passwd, whoever planted the link."""
    os.makedirs(fsdir / "a/b")
    os.symlink("/etc/passwd", fsdir / "a/b/l")
    assert not (fsdir / "a/b/l").exists()
    target = os.readlink(fsdir / "a/b/l")
    assert target == "../../etc/passwd"
    (fsdir / "etc").mkdir()
    (fsdir / "etc/passwd").write_text("the sandbox's")
    assert (fsdir / "a/b/l").read_text() == "the sandbox's"
    os.symlink("/", fsdir / "a/root")
    assert sorted(os.listdir(fsdir / "a/root")) == ["a", "etc"]
    assert os.lstat(fsdir / "a/b/l").st_size == len(target)


@pytest.mark.mount_only
def test_surplus_dots_of_symlinks_stop_at_fs(fsdir):
    os.makedirs(fsdir / "a")
    for n, target in enumerate(("..", "../..", "../../../../../../etc/passwd", "a/../../..",
                                "./../../x")):
        link = fsdir / "a" / ("l%d" % n)
        os.symlink(target, link)
        text = os.readlink(link)
        assert not os.path.isabs(text)
        assert os.path.normpath(os.path.join("a", text)).split("/")[0] != ".."
    os.symlink("..", fsdir / "up")
    assert os.path.realpath(fsdir / "up") == os.path.realpath(fsdir)
    assert sorted(os.listdir(fsdir / "up")) == ["a", "up"]


@pytest.mark.mount_only
def test_links_that_hide_dots_behind_other_links_do_not_lead_out(fsdir, box, mount):
    """`n/..` is no step back where n is a link to `.`: counting names alone lets such a text out.

    With n -> . the text n/../ctl names the sandbox's own control file, and each further piece that
    counts as nothing climbs one directory more, at last out of the mount.
    """
    os.symlink(".", fsdir / "n")
    (mount.base / "canary").write_text("outside")
    name = box.name
    to_root = "n/../fs/n/../.."
    for n, target in enumerate((
            "n/../ctl", "n/../status", "n/n/../../status", to_root + "/README",
            to_root + "/%s/fs/n/../../../canary" % name,
            to_root + "/%s/fs/n/../../../state" % name)):
        link = fsdir / ("l%d" % n)
        os.symlink(target, link)
        assert not os.path.exists(link), "%s is answered as %s" % (target, os.readlink(link))
    (fsdir / "d").mkdir()
    os.symlink("..", fsdir / "d/up")
    for target in ("d/up/../status", "d/up/n/../../README", "d/../d/up/d/up/../status"):
        os.symlink(target, fsdir / "l")
        assert not os.path.exists(fsdir / "l"), target
        os.unlink(fsdir / "l")


@pytest.mark.mount_only
def test_symlink_below_the_working_directory_is_answered_relative(fsdir, request):
    """What the sandbox calls /workspace/x is fs/x."""
    box = request.getfixturevalue("box")
    top = box.ok("pwd").decode().strip()
    box.ok("mkdir -p a/b; echo content > f; ln -s %s/f a/b/l; ln -s %s/a /tmp/x; ln -s %s m" % (
        (top,) * 3))
    assert os.readlink(fsdir / "a/b/l") == "../../f"
    assert (fsdir / "a/b/l").read_text() == "content\n"
    assert sorted(os.listdir(fsdir / "m")) == ["a", "f", "m"]


def test_hard_links_are_right_or_refused(fsdir):
    (fsdir / "f").write_text("content")
    try:
        os.link(fsdir / "f", fsdir / "g")
    except OSError as error:
        assert error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
        assert os.listdir(fsdir) == ["f"]
        return
    assert os.stat(fsdir / "f").st_nlink == 2
    assert os.stat(fsdir / "f").st_ino == os.stat(fsdir / "g").st_ino
    (fsdir / "g").write_text("changed")
    assert (fsdir / "f").read_text() == "changed"
    os.chmod(fsdir / "f", 0o600)
    assert os.stat(fsdir / "g").st_mode & 0o777 == 0o600
    (fsdir / "f").unlink()
    assert (fsdir / "g").read_text() == "changed"
    assert os.stat(fsdir / "g").st_nlink == 1


@pytest.mark.needs("hard-links")
def test_hard_link_and_rename_onto_itself(fsdir):
    """rename(2) of two names of one inode does nothing; mv then removes the old name."""
    (fsdir / "f").write_text("content")
    os.link(fsdir / "f", fsdir / "g")
    os.rename(fsdir / "f", fsdir / "g")
    assert sorted(os.listdir(fsdir)) == ["f", "g"]
