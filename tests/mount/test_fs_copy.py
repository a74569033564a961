# SPDX-License-Identifier: Apache-2.0
"""Tools that copy, move, find and delete: tar, cp, rsync, mv, find, du, df, ripgrep, rm."""

import os
import shutil

import pytest

from support import kinds
from support.tools import need, run
from support.trees import describe, sample

pytestmark = pytest.mark.kinds(*kinds.ALL)


@pytest.fixture
def tree(scratch):
    return sample(scratch / "tree")


def test_tar_into_fs_keeps_modes_and_ns_times(fsdir, scratch, tree):
    run(["tar", "--format=pax", "-cf", scratch / "a.tar", "-C", scratch, "tree"])
    run(["tar", "-xpf", scratch / "a.tar", "-C", fsdir])
    assert describe(fsdir / "tree") == describe(tree)


def test_tar_out_of_fs_keeps_modes_and_ns_times(fsdir, scratch):
    sample(fsdir / "tree")
    result = run(["tar", "--format=pax", "-cf", scratch / "a.tar", "-C", fsdir, "tree"])
    assert result.err == ""  # no "file changed as we read it", no "shrank"
    (scratch / "out").mkdir()
    run(["tar", "-xpf", scratch / "a.tar", "-C", scratch / "out"])
    assert describe(scratch / "out/tree") == describe(fsdir / "tree")
    names = run(["tar", "-tf", scratch / "a.tar"]).out.splitlines()
    assert len(names) == len(describe(fsdir / "tree")) + 1


def test_tar_compare_finds_no_difference(fsdir, scratch, tree):
    run(["tar", "--format=pax", "-cf", scratch / "a.tar", "-C", scratch, "tree"])
    run(["tar", "-xpf", scratch / "a.tar", "-C", fsdir])
    assert run(["tar", "-df", scratch / "a.tar", "-C", fsdir]).out == ""


def test_tar_over_existing_files(fsdir, scratch, tree):
    run(["tar", "--format=pax", "-cf", scratch / "a.tar", "-C", scratch, "tree"])
    for _ in range(2):
        run(["tar", "-xpf", scratch / "a.tar", "-C", fsdir])
    assert describe(fsdir / "tree") == describe(tree)


def test_cp_a_both_ways(fsdir, scratch, tree):
    run(["cp", "-a", tree, fsdir / "in"])
    assert describe(fsdir / "in") == describe(tree)
    run(["cp", "-a", fsdir / "in", scratch / "out"])
    assert describe(scratch / "out") == describe(tree)
    run(["cp", "-a", fsdir / "in", fsdir / "beside"])
    assert describe(fsdir / "beside") == describe(tree)


def test_cp_follows_the_size_of_a_file_that_just_grew(fsdir, scratch):
    """cp trusts st_size; each copy must be whole."""
    with open(fsdir / "grows", "ab") as file:
        for n in range(50):
            file.write(b"x" * 1000)
            file.flush()
            run(["cp", fsdir / "grows", scratch / "copy"])
            assert os.path.getsize(scratch / "copy") == (n + 1) * 1000


def test_rsync_a_twice_moves_nothing_the_second_time(fsdir, tree):
    need("rsync")
    argv = ["rsync", "-a", "--itemize-changes", "%s/" % tree, "%s/copy/" % fsdir]
    assert run(argv).out.count("\n") > 60
    assert describe(fsdir / "copy") == describe(tree)
    assert run(argv).out == ""


def test_rsync_out_of_fs_twice_moves_nothing_the_second_time(fsdir, scratch):
    need("rsync")
    sample(fsdir / "tree")
    argv = ["rsync", "-a", "--itemize-changes", "%s/tree/" % fsdir, "%s/copy/" % scratch]
    run(argv)
    assert describe(scratch / "copy") == describe(fsdir / "tree")
    assert run(argv).out == ""


def test_rsync_sends_what_changed_and_deletes_what_is_gone(fsdir, tree):
    need("rsync")
    argv = ["rsync", "-a", "--delete", "--itemize-changes", "%s/" % tree, "%s/copy/" % fsdir]
    run(argv)
    (tree / "with space").write_text("changed")
    (tree / "-dash").unlink()
    assert "with space" in run(argv).out
    assert describe(fsdir / "copy") == describe(tree)


def test_rsync_inplace_and_checksum(fsdir, scratch):
    need("rsync")
    (scratch / "big").write_bytes(os.urandom(3_000_000))
    argv = ["rsync", "-aI", "--inplace", "--no-whole-file", scratch / "big", fsdir / "big"]
    run(argv)
    with open(scratch / "big", "r+b") as file:
        file.seek(1_500_000)
        file.write(b"changed")
    run(argv)
    assert (fsdir / "big").read_bytes() == (scratch / "big").read_bytes()
    assert run(["rsync", "-ac", "--itemize-changes", scratch / "big", fsdir / "big"]).out == ""


def test_mv_file_and_directory(fsdir):
    (fsdir / "a").write_text("a")
    run(["mv", "a", "b"], cwd=fsdir)
    assert not (fsdir / "a").exists() and (fsdir / "b").read_text() == "a"
    sample(fsdir / "tree")
    before = describe(fsdir / "tree")
    run(["mv", "tree", "moved"], cwd=fsdir)
    assert describe(fsdir / "moved") == before
    (fsdir / "into").mkdir()
    run(["mv", "moved", "into/"], cwd=fsdir)
    assert describe(fsdir / "into/moved") == before


def test_mv_over_an_existing_file(fsdir):
    (fsdir / "old").write_text("old")
    (fsdir / "new").write_text("new")
    with open(fsdir / "old") as held_old, open(fsdir / "new") as held_new:
        run(["mv", "-f", "new", "old"], cwd=fsdir)
        assert held_old.read() == "old"
        assert held_new.read() == "new"
    assert (fsdir / "old").read_text() == "new"
    assert not (fsdir / "new").exists()


def test_mv_into_fs_and_out_again(fsdir, scratch):
    """Across file systems: mv copies and deletes."""
    sample(scratch / "tree")
    before = describe(scratch / "tree")
    run(["mv", scratch / "tree", fsdir / "tree"])
    assert describe(fsdir / "tree") == before
    run(["mv", fsdir / "tree", scratch / "back"])
    assert describe(scratch / "back") == before
    assert os.listdir(fsdir) == []


def test_find_names_types_sizes_and_times(fsdir, scratch, tree):
    run(["cp", "-a", tree, fsdir / "tree"])
    argv = ["find", "tree", "-printf", "%p %y %m %s %T@ %l\\0"]

    def listing(where):
        # a directory's size is its file system's own
        lines = run(argv, cwd=where).raw.split(b"\0")
        return sorted(line for line in lines if b" d " not in line)
    assert listing(fsdir) == listing(scratch)
    assert run(["find", ".", "-name", "file1*", "-newermt", "2020-01-01"], cwd=fsdir).out.count(
        "file1") == run(["find", ".", "-name", "file1*", "-newermt", "2020-01-01"],
                        cwd=scratch).out.count("file1")


def test_find_counts_on_st_nlink_of_directories(fsdir):
    """find's leaf optimisation goes by nlink: a wrong one makes it miss directories."""
    for a in range(5):
        for b in range(5):
            os.makedirs(fsdir / ("a%d" % a) / ("b%d" % b) / "c")
    assert run("find . -type d | wc -l", cwd=fsdir).out.strip() == "56"
    assert run("find . -noleaf -type d | wc -l", cwd=fsdir).out.strip() == "56"


def test_find_delete(fsdir):
    sample(fsdir / "tree")
    run(["find", fsdir / "tree", "-delete"])
    assert os.listdir(fsdir) == []


def test_du_agrees_with_the_sizes(fsdir):
    (fsdir / "a").write_bytes(os.urandom(1_000_000))
    (fsdir / "d").mkdir()
    (fsdir / "d/b").write_bytes(os.urandom(500_000))
    apparent = int(run(["du", "-sb", "--apparent-size", "d/b", "a"], cwd=fsdir).out.split()[0])
    assert apparent == 500_000
    os.sync()
    disk = int(run(["du", "-sB1", "."], cwd=fsdir).out.split()[0])
    assert 1_400_000 < disk < 2_500_000


def test_df_shows_the_file_system(fsdir):
    total, used, free = (int(x) for x in run(
        ["df", "-B1", "--output=size,used,avail", fsdir]).out.splitlines()[1].split())
    assert total > 10**6 and 0 <= used <= total and 0 < free <= total
    info = os.statvfs(fsdir)
    assert info.f_namemax == 255 and info.f_files > 0


def test_ripgrep_and_grep_agree(fsdir, tree):
    need("rg")
    run(["cp", "-a", tree, fsdir / "tree"])
    for n in range(30):
        (fsdir / "tree" / ("text%d" % n)).write_text("line\nneedle %d\nline\n" % n)
    found = sorted(run(["rg", "-j4", "--no-ignore", "-n", "needle", "tree"],
                       cwd=fsdir).out.splitlines())
    grepped = sorted(run(["grep", "-rnI", "needle", "tree"], cwd=fsdir).out.splitlines())
    assert len(found) == 30 and found == grepped


def test_rm_rf_of_a_subtree(fsdir):
    sample(fsdir / "tree", files=300)
    (fsdir / "kept").write_text("kept")
    run(["rm", "-rf", fsdir / "tree"])
    assert os.listdir(fsdir) == ["kept"]


def test_rm_rf_of_many_files_leaves_none(fsdir, kind):
    """Deleting while reading the directory: readdir offsets must stay good."""
    top = fsdir / "many"
    top.mkdir()
    for n in range(kind.scaled(5000, 1200)):
        (top / ("file%d" % n)).touch()
    run(["rm", "-rf", top])
    assert not top.exists()
    top.mkdir()
    for n in range(kind.scaled(2000, 400)):
        (top / ("file%d" % n)).touch()
    shutil.rmtree(top)
    assert not top.exists()


def test_zip_like_python_archive_round_trip(fsdir, scratch):
    sample(fsdir / "tree")
    archive = shutil.make_archive(str(fsdir / "out"), "gztar", fsdir, "tree")
    shutil.unpack_archive(archive, scratch / "back")
    assert describe(scratch / "back/tree", times=False) == describe(fsdir / "tree", times=False)


def test_dd_with_odd_block_sizes(fsdir):
    data = os.urandom(300_001)
    (fsdir / "in").write_bytes(data)
    run("dd if=in of=out bs=777 2>/dev/null && dd if=in of=out bs=1 count=5000 skip=100 seek=100 "
        "conv=notrunc 2>/dev/null", cwd=fsdir)
    assert (fsdir / "out").read_bytes() == data


def test_install_and_truncate_and_touch(fsdir):
    run("printf hello > a; install -m 755 a b; truncate -s 100 a; touch -d 2001-02-03T04:05:06.789 "
        "a; mkdir -p x/y/z; ln -s x/y l; cp -rL l copied", cwd=fsdir)
    assert os.stat(fsdir / "b").st_mode & 0o7777 == 0o755
    assert os.stat(fsdir / "a").st_size == 100
    assert os.stat(fsdir / "a").st_mtime_ns % 10**9 == 789_000_000
    assert (fsdir / "copied/z").is_dir()
