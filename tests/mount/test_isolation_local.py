# SPDX-License-Identifier: Apache-2.0
"""What a hostile command inside a sandbox of the local provider tries; mounted by root and by a user.

Everything runs inside, by exec; the host only looks. `cell` is one sandbox in a mount of each kind.
"""

import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from support.control import error_of, exit_of, wait_output, write_once
from support.mounts import Mount, process_table, work_directory
from support.tools import call_as, run, wait_for

WHO = ["root", "user"] if os.geteuid() == 0 else ["user"]


class Cell:
    """A sandbox, its mount, and another sandbox beside it."""

    def __init__(self, mount):
        self.mount = mount
        self.box = mount.create("cell")
        self.other = mount.create("other")
        self.dir, self.fs = self.box.dir, self.box.fs

    def sh(self, text, wait=200, **keys):
        """What a command says; some look at every file there is."""
        result = self.box.exec(text, wait, **keys)
        return (result.stdout + result.stderr).decode("utf-8", "replace")

    def refuses(self, text, **keys):
        """The command must fail; prints what it said."""
        result = self.box.exec(text, **keys)
        assert result.exit != "0", "%s\n%r" % (text, result)
        return result

    def python(self, text, **keys):
        return self.box.exec("exec python3 - <<'END'\n%s\nEND\n" % text, **keys)

    def pids(self):
        """Host pids of the sandboxes' processes, the daemon left out."""
        return [pid for pid, name in self.mount.left() if name != "sbxfs"]


@pytest.fixture(scope="module", params=WHO)
def cell(request):
    """Mounted by root, or by an unprivileged user."""
    user = None
    if request.param == "user" and os.geteuid() == 0:
        user = request.getfixturevalue("user")
    path = work_directory("sbxfs-cell-")
    mount = Mount(path / "m", options=("drain=1s", "max-sandboxes=20"), user=user)
    try:
        mount.start()
        mount.who = request.param
        yield Cell(mount)
    finally:
        try:
            mount.stop()
        finally:
            shutil.rmtree(path, ignore_errors=True)


# -- files of the host

def test_root_directory_holds_only_what_is_needed(cell):
    names = set(cell.box.ok("ls -A /").decode().split())
    assert names <= {"bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root",
                     "run", "sbin", "tmp", "usr", "var", "workspace", "opt", "srv", "mnt"}, names
    assert cell.sh("ls -A /root /home /var /mnt /srv /opt /run 2>/dev/null | grep -v : | grep . | wc -l"
                   ).strip() in ("0", "1", "2", "3")


def test_secrets_of_the_host_are_not_there(cell, base):
    marker = base / "marker-of-the-host"
    marker.write_text("host content")
    base.chmod(0o755)
    marker.chmod(0o644)
    for path in ("/etc/shadow", "/etc/sudoers", "/etc/ssh", "/root/.ssh", "/root/.bashrc", str(marker),
                 str(cell.mount.state), str(cell.mount.path), "/var/lib/sbxfs",
                 "/etc/machine-id", "/run/systemd", "/run/dbus", "/var/run/docker.sock",
                 os.path.expanduser("~/.ssh"), os.path.expanduser("~/.gitconfig"), "/sys/kernel",
                 "/sys/fs/cgroup", "/proc/1/root%s" % marker, "/proc/1/cwd%s" % marker):
        result = cell.refuses("cat %s || ls %s" % (path, path))
        assert b"host content" not in result.stdout
    assert cell.sh("find / -name 'marker-of-the-host' 2>/dev/null") == ""


def test_etc_is_an_allow_list(cell):
    names = set(cell.box.ok("ls -A /etc").decode().split())
    assert names <= {"passwd", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives",
                     "ssl", "localtime", "hosts", "resolv.conf", "nsswitch.conf", "pki",
                     "ca-certificates", "crypto-policies", "timezone", "hostname"}, names
    for line in cell.box.ok("cat /etc/passwd").decode().splitlines():
        assert line.split(":")[0] in ("root", "nobody", "sandbox", "user", "sbx", "agent"), line
    with open("/etc/passwd") as file:
        people = {line.split(":")[0] for line in file if 1000 <= int(line.split(":")[2]) < 60000}
    inside = cell.sh("cat /etc/passwd /etc/group")
    assert not [name for name in people if re.search(r"^%s:" % name, inside, re.M)]


def test_system_directories_are_read_only(cell):
    for path in ("/usr/x", "/usr/bin/x", "/bin/x", "/lib/x", "/etc/x", "/etc/passwd", "/x", "/proc/x",
                 "/usr/lib/x"):
        cell.refuses("echo x >> %s" % path)
    cell.refuses("rm -f /usr/bin/env && test ! -e /usr/bin/env")
    cell.refuses("mount -o remount,rw /usr")
    cell.refuses("chmod 777 /usr")


def test_other_sandboxes_are_not_reachable(cell):
    cell.other.ok("echo secret-of-other > marker-of-other; sleep 1000 > /dev/null 2>&1 &")
    assert cell.sh("find / -name marker-of-other 2>/dev/null; grep -rl secret-of-other / "
                   "--include='marker*' 2>/dev/null") == ""
    cell.box.ok("echo mine > /tmp/mine; echo mine > ~/mine; echo mine > /dev/shm/mine || true")
    assert cell.other.exec("cat /tmp/mine ~/mine /dev/shm/mine").stdout == b""


def test_workspaces_of_others_by_path(cell):
    """Even if a sandbox knows where the state is, and by every /proc door there is."""
    state = str(cell.mount.state)
    script = "for p in /proc/[0-9]*; do for d in root cwd fd/3 fd/4 fd/5 fd/6 fd/7; do " \
        "ls $p/$d%s $p/$d/../../.. 2>/dev/null | grep -E 'sandboxes|owner|^lock$|^providers$'; " \
        "done; done; ls %s 2>/dev/null" % (state, state)
    assert cell.sh(script) == ""


# -- processes

def test_only_own_processes_are_seen(cell):
    pids = [int(p) for p in cell.box.ok("ls /proc | grep '^[0-9]'").decode().split()]
    assert len(pids) < 15, pids
    names = cell.sh("cat /proc/[0-9]*/comm 2>/dev/null").split()
    assert not {"sbxfs", "python3", "pytest", "systemd", "init", "bash"} & set(names), names
    for pid in (os.getpid(), cell.mount.pid, os.getppid()):
        cell.refuses("kill -0 %d" % pid if pid not in pids else "false")


def test_process_one_cannot_be_harmed(cell):
    cell.sh("for s in TERM KILL INT HUP STOP SEGV USR1 QUIT ABRT; do kill -$s 1; done")
    for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/auxv", "/proc/1/stack"):
        cell.refuses("head -c1 %s | grep -q ." % path)
    cell.refuses("ls -l /proc/1/fd | grep -q -e '->'")
    cell.refuses("echo x > /proc/1/oom_score_adj; echo x > /proc/1/comm; false")
    assert cell.box.ok("echo alive") == b"alive\n"


def test_ptrace_of_the_holder(cell):
    result = cell.python("""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
    if libc.ptrace(request, 1, None, None) == 0: sys.exit('attached to process 1')
buffer = ctypes.create_string_buffer(16)
class Vec(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
local, remote = Vec(ctypes.addressof(buffer), 16), Vec(0x400000, 16)
if libc.process_vm_readv(1, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0:
    sys.exit('read the memory of process 1')
pidfd = libc.syscall(434, 1, 0)  # pidfd_open, pidfd_getfd
if pidfd >= 0 and libc.syscall(438, pidfd, 0, 0) >= 0: sys.exit('took a descriptor')
""")
    assert result.exit == "0", result


def test_signals_do_not_reach_the_host(cell):
    witness = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: witness.set())
    try:
        cell.sh("kill -USR1 -1; kill -USR1 %d; true" % os.getpid())
        assert not witness.wait(0.3)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cell.mount.is_alive() and cell.box.ok("echo alive") == b"alive\n"


def test_holders_socket_is_not_visible(cell):
    assert cell.sh("cat /proc/net/unix | tail -n +2 | awk '{print $8}' | grep .") == ""
    assert cell.sh("find / -type s 2>/dev/null") == ""


def test_descriptors_of_a_command_are_its_own(cell):
    for line in cell.box.ok("ls -l /proc/self/fd").decode().splitlines()[1:]:
        number = int(re.search(r" (\d+) -> ", line).group(1))
        assert number <= 3, line  # 3 is ls's own directory


# -- privileges

def status_of_self(cell):
    text = cell.box.ok("cat /proc/self/status").decode()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_no_capability_and_no_new_privileges(cell):
    status = status_of_self(cell)
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
        assert int(status[name], 16) == 0, (name, status[name])
    assert status["NoNewPrivs"] == "1"


def test_no_process_has_host_uid_0(cell):
    number = cell.box.start("sleep 1000 & echo on; sleep 1000")
    seen = 0
    try:
        wait_output(cell.box, number, "on")
        for pid in cell.pids():
            try:
                with open("/proc/%d/status" % pid) as file:
                    fields = dict(line.split(":", 1) for line in file)
            except (FileNotFoundError, ProcessLookupError):
                continue  # of a command before, which has ended only now
            assert "0" not in fields["Uid"].split(), (pid, fields["Name"], fields["Uid"])
            assert "0" not in fields["Gid"].split(), (pid, fields["Name"], fields["Gid"])
            assert fields["Groups"].split() in ([], fields["Gid"].split()[:1]) \
                or cell.mount.who == "user", (pid, fields["Groups"])
            seen += 1
        assert seen >= 3
    finally:
        cell.box.ctl("kill -9 %s" % number)
        cell.box.wait(number)


def test_sandboxes_have_different_uids(cell):
    if cell.mount.who != "root":
        return  # a user has one uid
    uids = {}
    for box in (cell.box, cell.other):
        box.ok("echo x > owned")
        uids[box.name] = [line for line in run("stat -c %%u %s/*/*/*/owned %s/*/*/*/*/owned" % (
            cell.mount.state, cell.mount.state), check=False).out.split()]
    assert len(set(uids["other"])) >= 2 and "0" not in uids["other"], uids


def test_set_uid_programs_gain_nothing(cell):
    cell.box.ok("cp /bin/sh mysh; chmod 6755 mysh || true; cp /usr/bin/id myid; chmod u+s myid || true")
    before = cell.box.ok("id -u; id -g")
    assert cell.box.ok("./mysh -c 'id -u; id -g'") == before
    assert cell.sh("./myid").count("euid=0") == 0
    for program in ("su -c id root", "sudo -n id", "mount -t tmpfs x /tmp", "newuidmap 1 0 0 1",
                    "passwd -d root", "chsh -s /bin/sh root"):
        result = cell.refuses(program)
        assert b"uid=0" not in result.stdout
    if os.geteuid() == 0 and cell.mount.who == "root":
        for name in ("mysh", "myid"):
            run(["chmod", "4755", cell.fs / name], check=False)
        assert cell.box.ok("./mysh -c 'id -u; id -g'") == before
        assert b"euid=0" not in cell.box.exec("./myid").stdout


def test_no_user_namespace_within(cell):
    for command in ("unshare -U true", "unshare -r id", "unshare -m true", "unshare -n true",
                    "unshare -p true", "unshare --fork -rp id", "bwrap --ro-bind / / id"):
        cell.refuses(command)
    result = cell.python("""
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x04000000):
    if libc.unshare(flag) == 0: sys.exit('unshare %x' % flag)
""")
    assert result.exit == "0", result


def test_mounts_chroot_and_kernel_settings(cell):
    for command in ("mount -t proc proc /tmp", "mount --bind /usr /tmp", "umount /proc", "chroot . /bin/sh",
                    "echo x > /proc/sys/kernel/hostname", "echo 1 > /proc/sys/vm/drop_caches",
                    "echo c > /proc/sysrq-trigger", "echo x > /proc/sys/kernel/core_pattern",
                    "dmesg", "nsenter -t 1 -m true", "pivot_root . .", "swapon x", "modprobe x",
                    "date -s 2001-01-01", "renice -n -10 $$", "nice -n -5 sh -c '[ $(nice) -lt 0 ]'"):
        cell.refuses(command)


def test_devices(cell):
    names = set(cell.box.ok("ls -A /dev").decode().split())
    assert names <= {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd",
                     "stdin", "stdout", "stderr", "console", "core", "mqueue"}, names
    for command in ("mknod sda b 8 0", "mknod /dev/x c 1 1", "mknod mem c 1 1 && cat mem",
                    "cat /dev/mem", "cat /dev/sda", "cat /dev/kmsg", "head -c1 /dev/fuse"):
        cell.refuses(command)
    cell.box.ok("echo x > /dev/null; head -c4 /dev/urandom | wc -c; head -c4 /dev/zero | wc -c")
    if os.geteuid() == 0 and cell.mount.who == "root":
        error_of(os.mknod, cell.fs / "planted", 0o20666, os.makedev(1, 1))
        cell.refuses("head -c1 planted | grep -q .")
        run(["rm", "-f", cell.fs / "planted"], check=False)


def test_no_terminal_to_push_keys_into(cell):
    cell.refuses("echo x > /dev/tty")
    result = cell.python("""
import fcntl, sys
for fd in (0, 1, 2):
    try: fcntl.ioctl(fd, 0x5412, b'x'); sys.exit('TIOCSTI')
    except OSError: pass
""")
    assert result.exit == "0", result


def test_kernel_interfaces(cell):
    """bpf, perf, keyrings of the host, module loading, kexec: refused or harmless."""
    result = cell.python("""
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
for number in (321, 298, 175, 313, 246, 165, 166, 155, 161, 173, 172, 169, 170):
    if libc.syscall(number, 0, 0, 0, 0, 0, 0) == 0: sys.exit('syscall %d' % number)
""")
    assert result.exit == "0", result


# -- network

def test_network_is_none(cell):
    assert cell.box.ok("tail -n +3 /proc/net/dev | cut -d: -f1").decode().split() in ([], ["lo"])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0sbxfs-test-%d" % os.getpid())
    abstract.listen()
    try:
        result = cell.python("""
import socket, sys
for family, address in ((socket.AF_INET, ('127.0.0.1', %d)), (socket.AF_INET, ('8.8.8.8', 53)),
                        (socket.AF_UNIX, '\\0sbxfs-test-%d')):
    s = socket.socket(family)
    s.settimeout(3)
    try: s.connect(address)
    except OSError: continue
    sys.exit('connected to %%s' %% (address,))
""" % (listener.getsockname()[1], os.getpid()))
        assert result.exit == "0", result
    finally:
        listener.close()
        abstract.close()


def test_loopback_within_works(cell):
    result = cell.python("""
import socket
a = socket.socket(); a.bind(('127.0.0.1', 0)); a.listen()
b = socket.create_connection(a.getsockname(), 3)
print('connected')
""")
    assert result.stdout == b"connected\n", result


def test_raw_sockets_and_interfaces(cell):
    for command in ("ip link set lo down", "ip link add x type dummy", "ping -c1 -W1 8.8.8.8"):
        cell.refuses(command)
    result = cell.python("""
import socket, sys
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW)):
    try: socket.socket(family, kind, 1); sys.exit('raw socket')
    except OSError: pass
""")
    assert result.exit == "0", result


def test_namespaces_are_not_the_hosts(cell):
    own = {name: os.readlink("/proc/self/ns/" + name) for name in
           ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")}
    for line in cell.box.ok("ls -l /proc/self/ns").decode().splitlines()[1:]:
        name, target = line.split()[-3], line.split()[-1]
        if name in own and name != "cgroup":
            assert target != own[name], name


# -- what it does to us

def test_output_to_a_terminal_is_escaped_in_status(cell):
    cell.box.exec("printf 'x'; exit 1", cwd="/tmp/$(printf '\\033[31m')")
    for name in ("status", "error", "ctl", "status.json"):
        text = cell.box.read(name)
        assert b"\x1b" not in text and b"\r" not in text, name
        assert all(c >= 32 or c == 10 for c in text), name


def test_hostile_names_in_fs(cell):
    cell.box.ok(r"""mkdir -p odd && cd odd && touch "$(printf 'a\nb')" "$(printf '\033[31m')" \
        "$(printf '\377\376')" -- -rf "$(head -c 250 /dev/zero | tr '\0' n)" """)
    names = cell.mount.do(os.listdir, os.fsencode(cell.fs / "odd"))
    assert len(names) == 5
    cell.mount.run(["rm", "-rf", cell.fs / "odd"])


def open_and_close(path, flags):
    os.close(os.open(path, flags))


def test_fifo_and_links_do_not_block_or_lead_out(cell):
    cell.box.ok("mkfifo fifo; ln -sf /etc/passwd out; ln -sf ../../../../../../etc/passwd out2; "
                "ln -sf /proc/self/root/etc/shadow out3; mkdir -p d; ln -sfn / d/slash")
    for name in ("out", "out2", "out3", "d/slash/etc/passwd"):
        try:
            data = cell.mount.read(cell.fs / name)
        except OSError:
            continue
        assert b"root:x:0:0" not in data or b"/root:/bin/bash" not in data, name
    began = time.monotonic()
    try:
        cell.mount.do(open_and_close, cell.fs / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        pass
    assert time.monotonic() - began < 25
    cell.box.ok("rm -rf fifo out out2 out3 d")


def test_dumb_flood_of_short_execs(cell):
    for n in range(0, 200, 20):
        numbers = [cell.box.start("true") for _ in range(20)]
        for number in numbers:
            assert cell.box.wait(number) == "exit 0"
    wait_for(lambda: len(cell.pids()) < 12, 20, what=lambda: "few processes: %s" % cell.mount.left())


# -- limits

def has_limits():
    """Whether root can use the memory and pids controllers here (v1, or v2 that delegates them)."""
    for path in ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/cgroup.procs"):
        if os.path.exists(path):
            continue
        try:
            with open("/sys/fs/cgroup/cgroup.controllers") as file:
                if not {"memory", "pids"} <= set(file.read().split()):
                    return False
        except OSError:
            return False
    return True


@pytest.fixture
def limited(fresh_mount):
    """make(**settings) in a mount by root, where cgroups are."""
    if os.geteuid() != 0:
        pytest.skip("limits need cgroups, and those need root here")
    if not has_limits():
        pytest.skip("no memory and pids controllers on this machine")
    mount = fresh_mount()

    def make(**settings):
        return mount.create("limited", **settings)
    make.mount = mount
    return make


def cgroups_of(name):
    return [os.path.join(base, d) for base, directories, _ in os.walk("/sys/fs/cgroup")
            for d in directories if name in d]


@pytest.mark.timeout(280)
def test_fork_bomb(limited):
    box = limited(processes="64")
    beside = limited.mount.create("beside")
    number = box.start("bomb() { bomb | bomb & }; bomb; sleep 1000")
    time.sleep(2)
    began = time.monotonic()
    assert beside.ok("echo beside") == b"beside\n"
    os.listdir(limited.mount.path)
    assert time.monotonic() - began < 60
    assert len([1 for pid, _ in limited.mount.left()]) < 150
    box.ctl("kill -9 %s" % number)
    box.ctl("destroy")
    wait_for(lambda: not limited.mount.exists(box.dir), 60, what=lambda: "its end: %s" % limited.mount.left())
    wait_for(lambda: len(limited.mount.left()) < 10, 60, what=lambda: str(limited.mount.left()))


@pytest.mark.timeout(120)
def test_memory_hog(limited):
    box = limited(memory="64M")
    assert box.status()["memory"] in ("64M", str(64 << 20))
    result = box.exec("python3 -c 'x = bytearray(300 << 20); print(len(x))'", wait=60)
    assert result.exit in ("signal 9", "137", "1") and result.stdout == b"", result
    assert box.state in ("running", "stopped", "error")
    if box.state == "running":
        assert box.ok("echo on") == b"on\n"
    assert limited.mount.is_alive()


def test_memory_of_tmp_and_shm_counts(limited):
    box = limited(memory="64M")
    result = box.exec("head -c 200000000 /dev/zero > /dev/shm/x || head -c 200000000 /dev/zero > /tmp/x",
                      wait=60)
    assert limited.mount.is_alive()
    assert result.exit != "" and box.state in ("running", "stopped", "error")


def test_limits_are_shown_and_none_is_dash(limited):
    box = limited(memory="1G", processes="100")
    assert box.status()["memory"] in ("1G", str(1 << 30))
    plain = limited.mount.create("plain").status()
    assert plain["disk"] == "-" and plain["image"] == "-"


def test_cpu_limit_holds_or_is_refused(fresh_mount):
    mount = fresh_mount()
    failed = write_once(mount.path / "ctl", "create slow cpu=500m\n")
    if failed:
        assert failed == ("write", "EOPNOTSUPP")
        assert mount.sandboxes() == []
        return
    box = mount.box("slow")
    box.wait_state("running")
    out = box.ok("python3 -c 'import time; b=time.time(); c=time.process_time()\n"
                 "while time.time() - b < 3: pass\nprint(time.process_time() - c)'").decode()
    assert float(out) < 2.1, "half of 3 s, not %s" % out


def test_limits_without_cgroups_are_refused(fresh_mount, request):
    """An unprivileged user can't have them here: nothing is made, nobody is deceived."""
    user = request.getfixturevalue("user") if os.geteuid() == 0 else None
    mount = fresh_mount(user=user)
    for setting in ("memory=64M", "processes=64"):
        try:
            mount.ctl("create limited %s" % setting)
        except OSError as error:
            assert error.errno == 95, error
            assert mount.sandboxes() == []
        else:
            box = mount.box("limited")
            box.wait_state("running")
            assert box.status()["memory"] != "-" or setting.startswith("processes")
            box.destroy()


# -- the end

def test_stop_leaves_no_process(cell):
    box = cell.mount.create("stopping")
    before = set(cell.pids())
    box.ok("(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.1; done' &) ; "
           "nohup sleep 1000 > /dev/null 2>&1 & sleep 0.1")
    number = box.start("setsid sleep 1000 & disown 2>/dev/null; trap '' TERM; echo on; sleep 1000")
    wait_output(box, number, "on")  # it was accepted before it was started
    assert set(cell.pids()) != before
    inside = {pid for pid in cell.pids()} - before
    box.ctl("stop")
    box.wait_state("stopped", 60)
    wait_for(lambda: not inside & set(cell.pids()), 20, what=lambda: "no process: %s" % cell.mount.left())
    box.ctl("destroy")
    wait_for(lambda: not cell.mount.exists(box.dir), 60)


def test_destroy_leaves_nothing(cell):
    box = cell.mount.create("leaving")
    file = "leaving-file-%d" % os.getpid()  # others look for theirs
    box.ok("mkdir -p a/b/c; echo x > a/b/c/{0}; chmod 000 a/b/c/{0}; chmod 500 a/b; "
           "chmod 000 a/b/c; echo t > /tmp/{0}; echo h > ~/{0}".format(file))
    identity = box.status()["id"]
    everything = set(cell.pids())
    other = cell.mount.box("other")
    before = set(cgroups_of("sbxfs"))
    box.ctl("destroy")
    wait_for(lambda: not cell.mount.exists(box.dir), 60)
    wait_for(lambda: "leaving" not in cell.mount.read(cell.mount.path / "status").decode(), 60)
    wait_for(lambda: set(cell.pids()) < everything, 20, what=lambda: "its processes' end: %s" % cell.mount.left())
    assert run(["find", cell.mount.state, "/dev/shm", "-name", file], check=False).out == ""
    # What tests beside us have below /tmp is theirs: a look into a mount of theirs would disturb it, or block.
    assert run(["find", "/tmp", "(", "-name", "sbxfs-*", "-o", "-name", "pytest-*", ")", "-prune",
                "-o", "-name", file, "-print"], check=False).out == ""
    assert not [p for p in run(["find", cell.mount.state], check=False).out.split() if identity in p]
    if "PYTEST_XDIST_WORKER" not in os.environ:  # cgroups are the machine's: others have theirs there
        assert len(cgroups_of("sbxfs")) <= len(before)
    assert not [c for c in cgroups_of(identity)]
    assert other.ok("echo on") == b"on\n"


def test_nothing_is_left_after_a_storm(cell):
    """Sandboxes made and destroyed at every stage of their creation."""
    before = len(cell.pids())
    for n in range(12):
        box = cell.mount.create("storm%d" % n, wait=n % 3 == 0)
        if n % 2:
            time.sleep(0.01 * n)
        box.ctl("destroy")
    wait_for(lambda: not [s for s in cell.mount.sandboxes() if s.startswith("storm")], 100)
    wait_for(lambda: len(cell.pids()) <= before, 60, what=lambda: str(cell.mount.left()))


def test_as_another_user_nothing_can_be_seen(cell):
    """The mount is its owner's; without allow_other not even root looks in."""
    if cell.mount.user is None:
        return
    assert error_of(os.listdir, cell.mount.path) == "EACCES"
    assert call_as(cell.mount.user, os.listdir, str(cell.mount.path))


def test_exit_is_not_forged_from_inside(cell):
    """A command writes to every descriptor and socket that it finds; its exit stays what it was."""
    number = cell.box.start("bash -c 'for fd in {3..50}; do echo forged >&$fd; done 2>/dev/null'; "
                            "echo ready; exit 42")
    wait_output(cell.box, number, "ready")
    assert cell.box.wait(number) == "exit 42" and exit_of(cell.box, number) == "42"


def test_no_zombie_daemons_on_the_host(cell):
    for _ in range(10):
        cell.box.ok("true")
    names = [name for pid, parent, name in process_table() if parent == cell.mount.pid]
    assert len(names) < 8, names
