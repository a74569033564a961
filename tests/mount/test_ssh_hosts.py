# SPDX-License-Identifier: Apache-2.0
"""SSH hosts of all sorts: busybox, files only, old servers, odd names, large things; and who may be reached."""

import contextlib
import os
import pwd
import random
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest

from support import kinds
from support.control import error_of, error_text, same_for
from support.far import Far, same_trees, wait_clean
from support.mounts import process_table, work_directories
from support.sshd import SFTP_SERVER, Sshd, free_port
from support.tools import need, run, wait_for
from support.trees import describe, sample
from support.walk import Walk

BUSYBOX = "/bin/busybox"
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def host(base, fresh_mount):
    """host(**how the Sshd is): a Far, ended in all cases."""
    with contextlib.ExitStack() as ends:
        def make(**server):
            far = Far(base, fresh_mount, **server)
            ends.callback(far.stop)
            return far
        yield make


def works(box, backing=None):
    """Files and commands of a host, in short."""
    sample(box.fs / "tree", files=20)
    assert box.ok("cat tree/'with space'") == b"with space"
    assert int(box.ok("set -- tree/*; echo $#")) == len(os.listdir(box.fs / "tree"))
    box.ok("mkdir made; echo from inside >made/file; chmod 750 made/file; mv tree moved; ln -s made/file l")
    assert (box.fs / "made/file").read_text() == "from inside\n"
    assert stat.S_IMODE(os.stat(box.fs / "made/file").st_mode) == 0o750
    assert (box.fs / "l").read_text() == "from inside\n"
    assert not (box.fs / "tree").exists() and (box.fs / "moved/dangling").is_symlink()
    result = box.exec("echo out; echo err >&2; exit 4")
    assert (result.exit, result.stdout, result.stderr) == ("4", b"out\n", b"err\n")
    assert box.exec("kill -9 $$").exit == "signal 9"
    if backing:
        wait_clean(box)
        same_trees(box, backing)


def commands_work(box, has_groups=True):
    """The life of commands: stdin, environment, time-out, the group's end."""
    number = box.start("cat; printf '%s\\n' \"$GREETING\"; pwd", stdin="open", env={"GREETING": "it's \"so\" $HOME\n2"})
    box.mount.write(box.dir / "exec" / number / "stdin", b"given\0bytes\n")
    box.ctl("eof " + number)
    assert box.wait(number) == "exit 0"
    assert box.result(number).stdout.startswith(b"given\0bytes\nit's \"so\" $HOME\n2\n/")
    began = time.monotonic()
    seconds = random.randrange(10**6, 10**7)
    result = box.exec(("trap '' TERM; echo started; sleep %d & sleep %d" if has_groups else
                       "trap '' TERM; echo started; : %d; exec sleep %d") % (seconds, seconds), timeout=1)
    assert result.exit == "timeout" and result.stdout == b"started\n"
    assert time.monotonic() - began < 25
    wait_for(lambda: not sleepers(seconds), 10, 0.1, "the end of the group")
    big = box.ok("head -c 3000000 /dev/zero; head -c 10 /dev/zero", wait=60)
    assert big == bytes(3_000_010)


def sleepers(seconds):
    """The processes on this machine, the host's among them, that sleep so long."""
    return [pid for pid, _, _ in process_table() if cmdline(pid) == b"sleep\0%d\0" % seconds]


def cmdline(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read()
    except OSError:
        return b""


# -- busybox

@pytest.fixture
def applets(base):
    """A directory with busybox's applets and nothing else."""
    need(BUSYBOX)
    place = base / "applets"
    place.mkdir()
    for name in run([BUSYBOX, "--list"]).out.split():
        (place / name).symlink_to(BUSYBOX)
    return place


def forced(applets, base):
    """sshd_config by which every session is busybox's sh, with nothing but applets in PATH."""
    script = base / "forced"
    script.write_text("#!%s sh\nPATH=%s\nexport PATH\n[ -n \"$SSH_ORIGINAL_COMMAND\" ] || exec sh\n"
                      "exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n" % (BUSYBOX, applets))
    script.chmod(0o755)
    return ["ForceCommand %s" % script]


def test_host_with_nothing_but_busybox(host, applets, base):
    far = host(config=forced(applets, base), sftp=SFTP_SERVER)
    assert "BusyBox" in far.server.run("find --help 2>&1").out
    box = far.mount().create("web")
    works(box, box.backing)
    commands_work(box)


def test_random_walk_on_a_busybox_host(host, applets, base, scratch):
    far = host(config=forced(applets, base), sftp=SFTP_SERVER)
    box = far.mount().create("web")
    seed = random.SystemRandom().randrange(10**6)
    print("seed %d" % seed)
    Walk(box.fs, scratch, seed, hard_links=False, whole_seconds=True).run(500)


def lacking(base, programs):
    """sshd_config by which commands are dash's, and find all programs of this machine but these."""
    place = base / "programs"
    place.mkdir()
    for above in ("/bin", "/usr/bin", "/usr/local/bin"):
        for name in os.listdir(above):
            if name not in programs and not os.path.lexists(place / name):
                (place / name).symlink_to(os.path.join(above, name))
    (place / "sh").unlink()
    (place / "sh").symlink_to("/bin/dash")
    return ["ForceCommand PATH=%s; export PATH; exec /bin/dash -c \"$SSH_ORIGINAL_COMMAND\"" % place]


def test_host_without_setsid(host, base):
    """There are no groups to signal, only what was started itself; a sandbox's end finds the others."""
    far = host(config=lacking(base, ["setsid"]), sftp=SFTP_SERVER)
    assert "no setsid" in far.server.run("command -v setsid || echo no setsid").out
    box = far.mount().create("web")
    works(box, box.backing)
    commands_work(box, has_groups=False)
    seconds = random.randrange(10**6, 10**7)
    number = box.start("sleep %d & exec sleep %d" % (seconds, seconds))
    wait_for(lambda: len(sleepers(seconds)) == 2, 10, 0.05)
    box.kill(number, "TERM")
    assert box.wait(number, 60) == "signal 15"
    assert len(sleepers(seconds)) == 1
    box.destroy()
    wait_for(lambda: not sleepers(seconds), 10, 0.1, "the end of what was left")


def test_host_without_head(host, base):
    """An end then doesn't bring the last output along: it is fetched."""
    far = host(config=lacking(base, ["head"]), sftp=SFTP_SERVER)
    assert "no head" in far.server.run("command -v head || echo no head").out
    box = far.mount().create("web")
    works(box, box.backing)
    for size in (0, 1, 1000, 65536, 65537, 300_000):
        result = box.exec("dd if=/dev/zero bs=%d count=1 2>/dev/null; printf err >&2; exit 3" % max(size, 1)
                          if size else "printf err >&2; exit 3")
        assert (result.exit, result.stdout, result.stderr) == ("3", bytes(size), b"err")
    number = box.start("cat; echo and more", stdin="open")
    box.mount.write(box.dir / "exec" / number / "stdin", b"given\0bytes\n")
    box.ctl("eof " + number)
    assert box.wait(number) == "exit 0" and box.result(number).stdout == b"given\0bytes\nand more\n"


def test_host_with_few_programs(host, base):
    """What makes things fast isn't there: no find, tar, touch, stat, dd, mv, setsid, head."""
    missing = "find tar touch stat dd setsid head fallocate base64 xargs awk sed perl python3 mktemp".split()
    far = host(config=lacking(base, missing), sftp=SFTP_SERVER)
    assert "none" in far.server.run("command -v %s || echo none" % " ".join(missing)).out
    box = far.mount().create("web")
    works(box, box.backing)
    (box.backing / "theirs").write_text("from the host")
    wait_for(lambda: (box.fs / "theirs").exists() and (box.fs / "theirs").read_text() == "from the host", 10, 0.1)


@pytest.fixture
def jail():
    """A root directory for sessions: sshd wants all above it to be root's, and for others to read."""
    place = Path(tempfile.mkdtemp(prefix="sbxfs-jail-", dir="/run"))
    place.chmod(0o755)
    work_directories.append(place)
    yield place
    shutil.rmtree(place)


def fill(place, applets):
    """A static busybox as the only program there."""
    for name in ("bin", "dev", "tmp", "home", "etc"):
        (place / name).mkdir()
    shutil.copy(BUSYBOX, place / "bin/busybox")
    for name in os.listdir(applets):
        if name != "busybox":
            os.symlink("busybox", place / "bin" / name)
    for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
        os.mknod(place / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.chmod(place / "dev" / name, 0o666)
    (place / "etc/passwd").write_text("root:x:0:0::/home:/bin/sh\n")
    return place


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")
def test_chroot_with_busybox_and_without_proc(host, applets, jail):
    fill(jail, applets)
    shell = jail / "bin" / os.path.basename(pwd.getpwuid(0).pw_shell)
    if not shell.exists():  # the account's, as /etc/passwd outside has it
        shell.write_text("#!/bin/sh\nexec /bin/sh \"$@\"\n")
        shell.chmod(0o755)
    far = host(config=["ChrootDirectory %s" % jail], home="/home")
    box = far.mount(base="/home/sandboxes").create("web")
    works(box, jail / box.ok("pwd").decode().strip()[1:])
    commands_work(box)


# -- files only

def test_internal_sftp_only_has_files_but_no_commands(host):
    far = host(config=["ForceCommand internal-sftp"])
    mount = far.mount()
    box = mount.create("web")
    sample(box.fs / "tree", files=20)
    os.rename(box.fs / "tree", box.fs / "moved")
    wait_clean(box)
    found = [path for path in (far.server.base / "sandboxes").glob("*/work") if path.is_dir()]
    assert len(found) == 1
    same_trees(box, found[0])
    (found[0] / "new").write_text("from the host")
    wait_for(lambda: (box.fs / "new").exists() and (box.fs / "new").read_text() == "from the host", 10, 0.1)
    if error_of(box.ctl, "exec true") is None:  # as far as control files know a host may have a shell
        said = box.wait("1", 60)
        assert said.startswith("error") and "commands" in said, said
    shutil.rmtree(box.fs / "moved")
    wait_clean(box)
    mount.umount()
    mount.start()
    assert os.listdir(mount.box("web").fs) == ["new"]
    mount.box("web").destroy()
    wait_for(lambda: not found[0].exists(), 20, 0.05, "the workspace to be gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")
def test_internal_sftp_in_a_chroot(host, jail):
    (jail / "data").mkdir()
    far = host(config=["ChrootDirectory %s" % jail, "ForceCommand internal-sftp"])
    box = far.mount(base="/data/sandboxes").create("web")
    sample(box.fs / "tree", files=20)
    wait_clean(box)
    same_trees(box, next((jail / "data/sandboxes").glob("*/work")))


OLD = ["posix-rename", "fsync", "statvfs", "fstatvfs", "hardlink", "lsetstat", "limits", "copy-data"]


@pytest.mark.parametrize("denied", [["posix-rename"], OLD], ids=["posix-rename", "all"])
@pytest.mark.parametrize("shell", [True, False], ids=["shell", "no shell"])
def test_server_without_openssh_extensions(host, denied, shell, base):
    """Overwriting renames and fsync then go by commands, or by the next best."""
    config = []
    if not shell:
        script = base / "forced"
        script.write_text("#!/bin/sh\ncase $SSH_ORIGINAL_COMMAND in\n*sftp-server*) exec %s -P %s;;\nesac\n"
                          "exit 1\n" % (SFTP_SERVER, ",".join(denied)))
        script.chmod(0o755)
        config = ["ForceCommand %s" % script]
    far = host(sftp="%s -P %s" % (SFTP_SERVER, ",".join(denied)), config=config)
    box = far.mount().create("web")
    sample(box.fs / "tree", files=20)
    for n in range(5):
        (box.fs / "temp").write_text("version %d" % n)
        os.rename(box.fs / "temp", box.fs / "file")
        assert (box.fs / "file").read_text() == "version %d" % n
        with open(box.fs / "file", "a") as file:
            file.write(" more")
            file.flush()
            os.fsync(file.fileno())
    assert os.statvfs(box.fs).f_bsize > 0
    wait_clean(box)
    backing = next((far.server.base / "sandboxes").glob("*/work"))
    same_trees(box, backing)
    assert (backing / "file").read_text() == "version 4 more"
    assert not [name for name in os.listdir(backing) if name not in ("tree", "file")]


def test_server_that_allows_one_channel_a_connection(host):
    far = host(max_sessions=1)
    box = far.mount().create("web")
    works(box, box.backing)
    numbers = [box.start("sleep 0.3; echo %d" % n) for n in range(6)]
    for n, number in enumerate(numbers):
        assert box.wait(number) == "exit 0" and box.result(number).stdout == b"%d\n" % n


def test_account_whose_shell_talks(host):
    """What rc files print is not taken for an answer."""
    far = host()
    for name in (".bashrc", ".profile", ".bash_profile", ".zshrc"):
        (far.server.home / name).write_text("echo Welcome; echo 'You have mail' >&2; alias ls='ls -C'\n")
    box = far.mount().create("web")
    works(box, box.backing)


def test_first_command_changes_a_directory_made_just_before(host):
    """What is told of it meanwhile has the command's time: it is not taken for that of our own change."""
    far = host()
    for n in range(3):
        box = far.mount().create("web%d" % n)
        (box.fs / "d").mkdir()
        (box.fs / "d/mine").write_text("mine")
        (box.fs / "d/mine").unlink()
        before = os.stat(box.fs / "d").st_mtime_ns
        time.sleep(0.02)
        box.ok("touch d/theirs")
        assert os.stat(box.fs / "d").st_mtime_ns > before


# -- names and sizes

@pytest.mark.parametrize("place", ["with space", "it's", 'quo"te', "$(touch x)", "a;b&c", "ünï", "-dash"])
def test_base_with_an_odd_name(host, place):
    far = host()
    above = far.server.base / place
    box = far.mount(base=above / "sandboxes").create("web")
    assert box.backing.is_relative_to(above)
    works(box, box.backing)
    commands_work(box)


ODD = [b"with space", b"new\nline", b"\n", b"tab\t", b"back\\slash", b"-rf", b"\xff\xfe not utf-8", b"'quote\"",
       b"$(touch x)", b"*", b"...", b" ", b"a" * 255, b"\x01\x7f", b"%s%n", b"~", b"#", b"\r", b"\\n", b"a\\0b"]


def test_odd_names_both_ways(host):
    """Made on either side, listed, read, renamed and removed on the other."""
    far = host()
    box = far.mount().create("web")
    backing, top = os.fsencode(box.backing), os.fsencode(box.fs)
    for n, name in enumerate(ODD):
        os.mkdir(os.path.join(top, b"d%d" % n))
        with open(os.path.join(top, b"d%d" % n, name), "wb") as file:
            file.write(b"mine " + name)
        os.makedirs(os.path.join(top, b"dirs", name, name))
    assert box.ok("find . -type f -exec cat {} + | wc -c").split() == [
        b"%d" % sum(len(b"mine " + name) for name in ODD)]
    wait_clean(box)
    for n, name in enumerate(ODD):
        with open(os.path.join(backing, b"d%d" % n, name), "rb") as file:
            assert file.read() == b"mine " + name
        with open(os.path.join(backing, b"d%d" % n, name + b"." if len(name) < 255 else b"b" * 255), "wb") as file:
            file.write(b"theirs " + name)
        os.symlink(name, os.path.join(backing, b"d%d" % n, b"link"))
    box.ok("true")  # its end makes all of it seen
    assert sorted(os.listdir(os.path.join(top, b"dirs"))) == sorted(ODD)
    for n, name in enumerate(ODD):
        there = os.path.join(top, b"d%d" % n)
        other = name + b"." if len(name) < 255 else b"b" * 255
        assert sorted(os.listdir(there)) == sorted([name, other, b"link"])
        with open(os.path.join(there, other), "rb") as file:
            assert file.read() == b"theirs " + name
        assert os.readlink(os.path.join(there, b"link")) == name
        os.rename(os.path.join(there, name), os.path.join(there, b"plain"))
        os.unlink(os.path.join(there, other))
        os.rmdir(os.path.join(top, b"dirs", name, name))
    wait_clean(box)
    same_trees(box, box.backing)
    assert not os.listdir(os.path.join(backing, b"dirs", ODD[1]))


def test_directory_of_100000_files(host):
    far = host()
    box = far.mount().create("web")
    top = box.backing / "many"
    top.mkdir()
    for n in range(100_000):
        os.close(os.open(top / ("file%06d" % n), os.O_CREAT | os.O_WRONLY))
    box.ok("true")
    began = time.monotonic()
    names = os.listdir(box.fs / "many")
    took = time.monotonic() - began
    assert len(names) == 100_000 and set(names) == {"file%06d" % n for n in range(100_000)}
    began = time.monotonic()
    assert run("ls -lU many | wc -l", cwd=box.fs, timeout=100).out.strip() == "100001"
    print("list %.1f s, ls -l %.1f s" % (took, time.monotonic() - began))
    (box.fs / "many/new").write_text("new")
    (box.fs / "many/file000005").unlink()
    assert box.ok("ls many | wc -l; cat many/new", wait=100).split() == [b"100000", b"new"]
    assert box.state == "running"
    for n in range(1000, 2000):
        (box.fs / ("many/file%06d" % n)).unlink()
    assert box.ok("ls many | wc -l; rm -rf many", wait=100).split() == [b"99000"]
    assert os.listdir(box.fs) == [] and not top.exists()


@pytest.mark.timeout(300)
def test_sparse_file_of_5_gib(host):
    """Its end is read and appended to without the rest of it coming along."""
    far = host()
    mount = far.mount()
    box = mount.create("web")
    size, path = 5 << 30, box.backing / "big"
    places = (0, (1 << 31) - 5, (1 << 32) - 5, (1 << 32) + 50, size - 10)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset in places:
            os.pwrite(file.fileno(), b"%010d" % offset, offset)
    box.ok("true")
    ours = box.fs / "big"
    assert os.stat(ours).st_size == size
    before = sum(far.way.count())
    with open(ours, "r+b", buffering=0) as file:
        for offset in places:
            assert os.pread(file.fileno(), 10, offset) == b"%010d" % offset
        os.pwrite(file.fileno(), b"in place", 3 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"appended")
        os.fsync(file.fileno())
    assert os.stat(ours).st_size == size + 8
    carried = sum(far.way.count()) - before
    assert carried < 64 << 20, "%d MiB were carried" % (carried >> 20)
    with open(path, "rb") as file:
        assert os.pread(file.fileno(), 8, 3 << 30) == b"in place"
        assert os.pread(file.fileno(), 18, size - 10) == b"%010dappended" % (size - 10)
    kept = int(run(["du", "-sB1", mount.state]).out.split()[0])
    assert kept < 200 << 20, "%d MiB are kept here" % (kept >> 20)
    os.truncate(ours, 1 << 30)
    os.truncate(ours, size)
    # what it waits for, the file grown again, takes a busy machine a minute
    assert box.ok("stat -c %s big; tail -c 5 big | od -An -tx1", wait=150).split() == \
        [b"%d" % size] + [b"00"] * 5


# -- whose host, and which

def test_root_attaches_a_directory_that_stays(host):
    far = host()
    place = far.server.base / "project"
    sample(place, files=20)
    before = describe(place)
    mount = far.mount(root=place)
    box = mount.create("web")
    assert describe(box.fs) == before
    assert box.ok("pwd") == b"%s\n" % os.fsencode(place)
    box.destroy()
    assert describe(place) == before


def test_wrong_host_key_is_refused_with_its_fingerprint(host, base):
    far = host()
    known = base / "known"
    other = Sshd(base / "other")
    known.write_text("\n".join(other.known_lines(far.way.port)) + "\n")
    mount = far.mount(known_hosts=known)
    mount.ctl("create web create_timeout=20s")
    box = mount.box("web")
    box.wait_state("error", 60)
    assert far.server.fingerprint() in error_text(box), error_text(box)
    box.destroy()
    unknown = far.mount(known_hosts=os.devnull)
    unknown.ctl("create web create_timeout=20s")
    unknown.box("web").wait_state("error", 60)
    unknown.box("web").destroy()
    far.mount(known_hosts=os.devnull, hostkey=far.server.fingerprint()).create("web").ok("true")


def test_key_that_is_not_accepted(host, base):
    far = host()
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", base / "stranger"])
    mount = far.mount(identity=base / "stranger")
    mount.ctl("create web create_timeout=20s")
    box = mount.box("web")
    box.wait_state("error", 60)
    assert "publickey" in error_text(box), error_text(box)


def test_failed_creation_is_not_carried_out_by_a_later_mount(host, base):
    """Whatever has changed meanwhile: somebody has to ask again."""
    far = host()
    known = base / "known"
    known.write_text("\n".join(Sshd(base / "other").known_lines(far.way.port)) + "\n")
    mount = far.mount(known_hosts=known)
    mount.ctl("create web create_timeout=20s")
    mount.box("web").wait_state("error", 60)
    why = error_text(mount.box("web"))
    mount.umount()
    mount.start()
    known.write_bytes(far.server.known_hosts.read_bytes())
    mount.create("other").ok("true")
    mount.umount()
    mount.start()
    mount.box("other").wait_state("running")
    assert mount.box("web").state == "error" and error_text(mount.box("web")) == why
    assert len(list((far.server.base / "sandboxes").glob("*/work"))) == 1


def records(mount):
    """The keys of the sandboxes that a mount knows of, those that are on their way out among them."""
    return os.listdir(mount.state / "sandboxes")


def test_what_was_never_made_can_be_removed(host, base):
    """No host is asked for it, and none that can't be reached is in the way of others."""
    far = host()
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", base / "stranger"])
    mount = far.mount(options=("drain=1s", "allow=ssh", "max-sandboxes=6"))
    mount.create("good").ok("true")
    never = {"typo": "host=nosuch.invalid", "noroot": "root=/nonexistent", "closed": "port=%d" % free_port(),
             "stranger": "identity=%s" % (base / "stranger"), "nobase": "base=/dev/null/sandboxes"}
    for name, what in never.items():
        mount.ctl("create %s create_timeout=10s %s" % (name, what))
    for name in never:
        mount.box(name).wait_state("error", 60)
    os.rmdir(mount.path / "typo")
    os.rmdir(mount.path / "noroot")
    wait_for(lambda: len(records(mount)) == 4, 60, 0.05, "two to be gone")
    mount.umount()
    mount.start()
    os.rmdir(mount.path / "closed")
    os.rmdir(mount.path / "stranger")
    os.rmdir(mount.path / "nobase")
    wait_for(lambda: len(records(mount)) == 1, 60, 0.05, "all but one to be gone")
    assert mount.sandboxes() == ["good"]
    mount.box("good").wait_state("running")
    mount.box("good").ok("true")


def test_hosts_that_no_section_names_need_allow_ssh(host):
    far = host()
    mount = far.mount()
    port = far.way.port
    for line in ("create web host=127.0.0.2", "create web port=%d" % (port + 1), "create web identity=/etc/passwd",
                 "create web root=/etc", "create web jump=other"):
        assert error_of(mount.ctl, line) == "EPERM", line
        assert mount.sandboxes() == []
    assert error_of(mount.ctl, "create web host=-oProxyCommand=x") in ("EINVAL", "EPERM")
    free = far.mount(options=("drain=1s", "allow=ssh"))
    free.ctl("create web host=127.0.0.1 port=%d user=%s identity=%s known_hosts=%s" % (
        port, far.server.user, far.server.key, far.server.known_hosts))
    free.box("web").wait_state("running")
    assert free.box("web").ok("echo hello") == b"hello\n"


def test_destroy_ends_processes_and_leaves_nothing_on_the_host(host):
    far = host()
    mount = far.mount()
    box = mount.create("web")
    sample(box.fs / "tree", files=10)
    box.ok("mkdir -p locked/in; echo x >locked/in/f; chmod 0 locked/in; chmod 500 locked")
    top = box.backing.parent
    seconds = random.randrange(10**6, 10**7)
    box.start("(setsid sleep %d &) ; trap '' TERM HUP; while :; do sleep %d; done" % (seconds, seconds))
    wait_for(lambda: len(sleepers(seconds)) >= 2, 10)
    box.destroy()
    wait_for(lambda: not top.exists(), 20, 0.05, "the workspace to be gone")
    wait_for(lambda: not sleepers(seconds), 10, 0.1, "the end of its processes")


def test_nothing_secret_is_in_argv_on_the_host(host):
    far = host()
    mount = far.mount()
    box = mount.create("web")
    seen, is_over = [], threading.Event()

    def watch():
        while not is_over.is_set():
            seen.extend(pid for pid, _, _ in process_table() if b"s3cr3t" in cmdline(pid))
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for _ in range(5):
            assert box.ok("sleep 0.1; printenv TOKEN", env={"TOKEN": "s3cr3t"}) == b"s3cr3t\n"
        mount.ctl("create other env.TOKEN=s3cr3t")
        mount.box("other").wait_state("running")
        assert mount.box("other").ok("sleep 0.1; echo $TOKEN") == b"s3cr3t\n"
    finally:
        is_over.set()
        thread.join()
    assert not seen


def test_pause_and_resume_stop_the_groups(host):
    far = host()
    box = far.mount().create("web")
    number = box.start("i=0; while :; do i=$((i+1)); echo $i >n; sleep 0.05; done")
    wait_for(lambda: (box.backing / "n").exists(), 10)
    box.ctl("pause")
    box.wait_state("paused")
    path = next((far.server.base / "sandboxes").glob("*/work/n"))
    # a process stands still once it has had its signal, for which it has to get to run
    wait_for(lambda: same_for(0.5, path.read_text), 10, 0.01, "the command to stand still")
    before = path.read_text()
    time.sleep(0.5)
    assert path.read_text() == before
    box.ctl("resume")
    box.wait_state("running")
    wait_for(lambda: path.read_text() not in ("", before), 10, 0.05)
    box.kill(number)
    assert kinds.SSH.backing(box) == path.parent
