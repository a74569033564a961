# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of the ssh provider: made, found again, removed; and the ways to a host."""

import concurrent.futures
import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from driver import Refused
from support.sshd import Sshd, fingerprint, make_key, new_user
from support.tools import wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: accounts and mounts")


def section(host, **more):
    """The keys of an INI section that reaches it."""
    keys = {"host": host.host, "port": host.port, "user": host.user, "identity": host.key,
            "known_hosts": host.known_hosts, "agent": "no", "ssh_config": "none",
            "base": host.home / "base"}
    keys.update(more)
    return ["%s=%s" % (key, value) for key, value in keys.items() if value is not None]


@pytest.fixture
def host(base):
    with Sshd(base / "sshd") as server:
        yield server


@pytest.fixture
def remote(host, drive):
    """remote(**keys): a driver whose section reaches `host`; None leaves a key out."""
    def make(env=None, allow="", **keys):
        return drive(kind="ssh", allow=allow, pairs=section(host, **keys), env=env)
    return make


def boxes(host):
    """{key: its directory} of what is below the base."""
    top = host.home / "base"
    return {path.name: path for path in top.iterdir()} if top.exists() else {}


def only(host):
    found = list(boxes(host).values())
    assert len(found) == 1, found
    return found[0]


def refused(errno, call, *args, **kwargs):
    """The sentence of a call that must be refused."""
    with pytest.raises(Refused) as caught:
        call(*args, **kwargs)
    assert caught.value.errno == errno, caught.value
    return caught.value.sentence


# -- life

def test_life_of_a_sandbox(host, remote):
    d = remote()
    d.create("k1", name="web", env={"A": "it's"}, labels={"team/x": "y z"})
    path = only(host)
    assert path.stat().st_mode & 0o7777 == 0o700
    assert (path / "run").stat().st_mode & 0o7777 == 0o700
    assert (path / "env").read_text() == "export A='it'\\''s'\n"
    assert (path / "env").stat().st_mode & 0o7777 == 0o600
    marker = (path / "sandbox").read_text()
    assert "name web\n" in marker and "label.0 team/x=y z\n" in marker
    assert sorted(os.listdir(path)) == ["env", "run", "sandbox", "work"]
    assert d.do("state", box="k1")["raw"] == "workspace" and d.state("k1") == "running"
    assert d.do("list")["boxes"] == {"k1": "running"}
    d.do("stop", box="k1")
    assert d.state("k1") == "stopped" and d.do("list")["boxes"] == {"k1": "stopped"}
    d.do("stop", box="k1")
    d.do("start", box="k1")
    d.do("start", box="k1")
    assert d.do("list")["boxes"] == {"k1": "running"}
    d.do("pause", box="k1")
    assert d.state("k1") == "paused" and (path / "state").read_text() == "paused\n"
    assert "paused" in refused("EBUSY", d.do, "start", box="k1")
    d.do("resume", box="k1")
    assert d.state("k1") == "running" and not (path / "state").exists()
    d.do("destroy", box="k1")
    assert d.state("k1") == "gone" and boxes(host) == {}
    d.do("destroy", box="k1")


def test_create_again_finds_what_a_former_try_made(host, remote):
    d = remote()
    d.create("k1")
    (only(host) / "work/file").write_text("kept")
    d.do("release", box="k1")
    d.create("k1")
    assert (only(host) / "work/file").read_text() == "kept"


def test_sandboxes_survive_a_killed_driver(host, remote):
    d = remote()
    d.create("k1")
    d.do("pause", box="k1")
    d.create("k2")
    d.kill()
    d.start()
    d.attach("k1")
    assert d.state("k1") == "paused"
    d.do("resume", box="k1")
    assert d.do("list")["boxes"] == {"k1": "running", "k2": "running"}
    d.attach("k2", with_spec=True)
    assert d.state("k2") == "running"


def test_hosts_that_users_named_are_known_after_a_restart(host, drive):
    d = drive(kind="ssh", allow="ssh", pairs=["ssh_config=none", "agent=no"])
    assert "host" in refused("EINVAL", d.create, "k1")
    d.create("k1", host=host.host, port=str(host.port), user=host.user, identity=str(host.key),
             known_hosts=str(host.known_hosts), base=str(host.home / "base"))
    d.kill()
    d.start()
    assert d.do("list")["boxes"] == {"k1": "running"}
    d.attach("k1")
    d.destroy("k1")
    d.do("release", box="k1")
    d.close()
    d.start()
    # a list forgets hosts without sandboxes, unless somebody has one in hand just then
    wait_for(lambda: d.do("list")["boxes"] == {} and os.listdir(d.state_dir) == [], 10, 0.1,
             lambda: "no host to be known, not %s" % os.listdir(d.state_dir))


def test_another_section_does_not_take_them_for_its_own(host, remote):
    one = remote()
    one.create("k1")
    other = remote(base=host.home / "other")
    other.mark = one.mark
    sentence = refused("EINVAL", other.do, "attach", box="k1", box_id=one.ids["k1"])
    assert "no host of provider ssh" in sentence


def test_root_is_attached_and_never_removed(host, remote):
    root = host.home / "my project"
    d = remote()
    assert "root" in refused("ENOENT", d.create, "k1", root=str(root))
    assert boxes(host) == {} and not root.exists()
    root.mkdir()
    (root / "file").write_text("mine")
    d.create("k1", root=str(root))
    assert "root %s\n" % root in (only(host) / "sandbox").read_text()
    assert not (only(host) / "work").exists()
    d.kill()
    d.start()
    d.attach("k1")
    assert d.state("k1") == "running"
    d.destroy("k1")
    assert (root / "file").read_text() == "mine" and boxes(host) == {}


def test_a_directory_that_is_missing_is_gone(host, remote):
    d = remote()
    d.create("k1")
    shutil.rmtree(only(host))
    assert d.state("k1") == "gone" and d.do("list")["boxes"] == {}
    d.destroy("k1")
    d.create("k2")
    shutil.rmtree(host.home / "base")
    d.create("k3")
    assert d.state("k2") == "gone" and d.state("k3") == "running"


def sleepers(host):
    """Processes of its sandboxes that sleep for long."""
    found = []
    for pid in host.sessions():
        with contextlib.suppress(OSError):
            if b"\0" + b"1000\0" in open("/proc/%d/cmdline" % pid, "rb").read():
                found.append(pid)
    return found


def states(pids):
    return {open("/proc/%d/stat" % pid).read().rpartition(")")[2].split()[0] for pid in pids}


def wait_states(host, are_fine, what):
    """A signal is there at once; what it does to a process may take until that gets to run."""
    wait_for(lambda: are_fine(states(sleepers(host))), 10, 0.02,
             lambda: "%s, not %s" % (what, states(sleepers(host))))


def start_sleepers(d, host, box="k1"):
    number = d.exec(box, "sleep 1000 & setsid sleep 1000 & trap 'echo bye; exit 7' TERM; echo up; "
                         "while :; do sleep 0.05; done")
    d.wait(box, number, bytes=3)
    wait_for(lambda: len(sleepers(host)) == 2, 10, what="the processes")
    return number


def test_stop_ends_commands_gently(host, remote):
    d = remote()
    d.create("k1")
    number = start_sleepers(d, host)
    start = time.monotonic()
    d.do("stop", box="k1")
    assert time.monotonic() - start < 25
    result = d.wait("k1", number)
    assert (result.kind, result.value, result.out) == ("code", 7, b"up\nbye\n")
    assert sleepers(host) == []
    assert "stopped" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.kill()
    d.start()
    d.attach("k1")
    assert "stopped" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.do("start", box="k1")
    assert d.check("k1", "echo again") == "again\n"


def test_stop_kills_what_does_not_listen(host, remote):
    d = remote()
    d.create("k1")
    number = d.exec("k1", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    d.wait("k1", number, bytes=3)
    start = time.monotonic()
    d.do("stop", box="k1")
    assert 4 < time.monotonic() - start < 25
    assert (d.wait("k1", number).kind, d.wait("k1", number).value) == ("signal", 9)


def test_pause_stops_all_processes_and_resume_goes_on(host, remote):
    d = remote()
    d.create("k1")
    number = start_sleepers(d, host)
    d.do("pause", box="k1")
    wait_states(host, lambda found: found == {"T"}, "all to be stopped")
    assert "paused" in refused("EHOSTDOWN", d.exec, "k1", "true")
    d.kill()
    d.start()
    d.attach("k1")
    assert d.state("k1") == "paused" and states(sleepers(host)) == {"T"}
    d.do("resume", box="k1")
    wait_states(host, lambda found: found and "T" not in found, "all to go on")
    d.do("exec_attach", box="k1", number=number, exec_id="")
    d.do("pause", box="k1")
    d.do("stop", box="k1")
    assert sleepers(host) == []
    result = d.wait("k1", number)
    assert (result.kind, result.value, result.out) == ("code", 7, b"up\nbye\n"), result


def test_destroy_leaves_no_process(host, remote):
    d = remote()
    for box in ("k1", "k2"):
        d.create(box)
    start_sleepers(d, host)
    d.do("pause", box="k1")
    d.destroy("k1")
    assert sleepers(host) == [] and len(boxes(host)) == 1
    assert d.check("k2", "echo lives") == "lives\n"


def test_twenty_at_once(host, remote):
    d = remote()
    names = ["k%d" % i for i in range(20)]
    start = time.monotonic()
    asked = [d.ask("create", box=name) for name in names]
    for name, target in zip(names, asked):
        d.ids[name] = d.get(target)["box_id"]
        d.made.add(name)
    assert time.monotonic() - start < 25
    assert set(d.do("list")["boxes"]) == set(names) and len(boxes(host)) == 20
    for target in [d.ask("destroy", box=name) for name in names]:
        d.get(target)
    assert boxes(host) == {}


# -- what is removed, and what never is

def test_destroy_removes_what_is_hard_to_remove(host, remote):
    outside = host.home / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    d = remote()
    d.create("k1")
    work = only(host) / "work"
    (work / "link").symlink_to(outside)
    (work / "-rf * \n\udcff'").mkdir()
    (work / "-rf * \n\udcff'" / "x").write_text("")
    deep = work
    for _ in range(40):
        deep = deep / ("d" * 20)
        deep.mkdir()
    (deep / "file").write_text("")
    (work / "shut").mkdir()
    (work / "shut" / "file").write_text("")
    (work / "shut").chmod(0)
    d.destroy("k1")
    assert boxes(host) == {} and (outside / "file").read_text() == "precious"


def test_a_workspace_that_became_a_link_is_left_alone(host, remote):
    d = remote()
    d.create("k1")
    path, moved = only(host), host.home / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    (moved / "work/file").write_text("x")
    assert d.state("k1") == "error"
    assert "left alone" in refused("EPERM", d.do, "destroy", box="k1")
    assert (moved / "work/file").exists()
    path.unlink()
    moved.rename(path)
    assert d.state("k1") == "running"


def test_anothers_marker_guards_its_directory(host, remote):
    d = remote()
    d.create("k1")
    d.create("k2")
    one, two = sorted(boxes(host).values())
    saved = (one / "sandbox").read_text()
    shutil.copy(two / "sandbox", one / "sandbox")
    status = d.do("state", box="k1")
    assert (status["state"], status["raw"]) == ("error", "foreign")
    assert "another" in refused("EPERM", d.do, "destroy", box="k1")
    assert d.do("list")["boxes"] == {"k2": "running"}
    (one / "sandbox").write_text("sbxfs record 1\nend 0\n")
    assert d.state("k1") == "error" and d.do("list")["boxes"] == {"k2": "running"}
    refused("EPERM", d.do, "destroy", box="k1")
    (one / "sandbox").unlink()
    assert d.do("state", box="k1")["raw"] == "unmarked"
    assert "no marker" in refused("EPERM", d.do, "destroy", box="k1")
    (one / "sandbox").write_text(saved)
    assert d.state("k1") == "running"


@as_root
@pytest.mark.parametrize("what", ["tmpfs", "bind"])
def test_a_mount_inside_is_not_crossed(host, remote, what):
    d = remote()
    d.create("k1")
    place = only(host) / "work/mnt dir"
    precious = host.home / "precious"
    place.mkdir()
    precious.mkdir()
    if what == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    else:
        subprocess.run(["mount", "--bind", precious, place], check=True)
    try:
        (place / "file").write_text("x")
        assert "mount" in refused("EBUSY", d.do, "destroy", box="k1")
        assert (place / "file").read_text() == "x"
    finally:
        wait_for(lambda: subprocess.run(["umount", place]).returncode == 0, 10, 0.1, "the end of the mount")
    d.destroy("k1")
    assert boxes(host) == {}


def test_what_a_crash_left_half_made_is_swept(host, remote):
    d = remote()
    d.create("k1")
    path = only(host)
    for name, owner in (("half1", "owner0"), ("half2", "another")):
        half = path.parent / name
        shutil.copytree(path, half)
        text = (half / "sandbox").read_text().replace("owner owner0", "owner " + owner)
        (half / "sandbox").unlink()
        (half / "sandbox.half").write_text(checksummed(text.replace("key " + path.name,
                                                                    "key " + name)))
    assert d.do("list")["boxes"] == {"k1": "running"}
    assert sorted(boxes(host)) == sorted([path.name, "half2"])
    # one that is taken up again by its own creation
    (path / "sandbox").rename(path / "sandbox.half")
    assert d.do("state", box="k1")["raw"] == "half" and d.do("list")["boxes"] == {}
    assert path.exists(), "a sandbox of this run was swept"
    d.do("release", box="k1")
    d.create("k1")
    assert d.state("k1") == "running"
    shutil.rmtree(path.parent / "half2")


def checksummed(text):
    """A record's text with the right last line."""
    body, value = text[:text.rindex("end ")], 0xcbf29ce484222325
    for byte in body.encode():
        value = (value ^ byte) * 0x100000001b3 % 2**64
    return "%send %016x\n" % (body, value)


# -- host keys and passwords

def test_a_wrong_host_key_is_refused(host, remote, base):
    other = make_key(base / "other")
    known = base / "known"
    known.write_text("[%s]:%d %s\n" % (host.host, host.port, " ".join(other.split()[:2])))
    d = remote(known_hosts=known)
    assert host.fingerprint() in refused("EPERM", d.create, "k1")
    known.write_text("")
    time.sleep(1.5)  # the back-off
    sentence = refused("EPERM", d.create, "k1")
    assert host.fingerprint() in sentence and "known" in sentence
    assert boxes(host) == {}


def test_a_pinned_host_key(host, remote, base):
    known = base / "known"
    known.write_text("")
    d = remote(known_hosts=known, hostkey=host.fingerprint())
    d.create("k1")
    other = remote(known_hosts=known, hostkey=fingerprint(make_key(base / "other")))
    refused("EPERM", other.create, "k1")


def test_a_key_that_is_not_let_in(host, remote, base):
    make_key(base / "stranger")
    refused("EACCES", remote(identity=base / "stranger").create, "k1")


def start_fails(drive, pairs):
    with pytest.raises(Exception) as caught:
        drive(kind="ssh", pairs=pairs)
    return str(caught.value)


def test_password_files_that_others_can_read_are_refused(host, drive, base):
    file = base / "password"
    assert "password_file" in start_fails(drive, section(host, password_file=file))
    file.write_text("secret\n")
    file.chmod(0o640)
    assert "chmod 600" in start_fails(drive, section(host, password_file=file))
    file.chmod(0o600)
    drive(kind="ssh", pairs=section(host, password_file=file))


@pytest.mark.parametrize("pair", ["host=-oProxyCommand=x", "host=a b", "user=-x", "port=0",
                                  "base=/", "base=../x", "root=~other", "jump=a,-b", "agent=maybe",
                                  "transport=telnet", "connections=9", "hostkey=MD5:x",
                                  "identity=key", "host=$(x)"])
def test_bad_keys_of_a_section_are_refused(drive, pair):
    assert pair.split("=")[0] in start_fails(drive, ["host=h", pair])


@as_root
@pytest.mark.parametrize("way", ["file", "environment"])
def test_password(base, drive, way):
    with new_user(password="pass word") as user, \
            Sshd(base / "sshd", user=user, config=["PasswordAuthentication yes"]) as host:
        file = base / "password"
        file.write_text("pass word\n")
        file.chmod(0o600)
        keys = section(host, identity=None, password_file=file if way == "file" else None,
                       base="~/boxes")
        env = {"SBXFS_SSH_PASSWORD": "pass word"} if way == "environment" else {}
        d = drive(kind="ssh", allow="ssh", pairs=keys, env=env)
        d.create("k1")
        assert d.state("k1") == "running"
        # The password is for that host only: not for one that somebody names.
        with Sshd(base / "other", user=user, config=["PasswordAuthentication yes"]) as other:
            refused("EACCES", d.create, "k2", host="localhost", port=str(other.port), user=user,
                    hostkey=other.fingerprint())
            assert "Failed password" not in other.log()
        d.destroy("k1")
        d.close()
        assert "pass word" not in d.log()
        d.start()


def test_users_may_only_name_what_is_allowed(remote, host):
    d = remote()
    assert "allow=ssh" in refused("EPERM", d.create, "k1", user="daemon", check_only=True)
    assert "-o allow" not in d.do("create", box="k1", check_only=True)["sentence"]


# -- aliases and jumps

def write_config(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def hop(host):
    """Lines of ssh_config by which one gets to it."""
    return ("  HostName %s\n  Port %d\n  User %s\n  IdentityFile \"%s\"\n  IdentitiesOnly yes\n"
            "  UserKnownHostsFile \"%s\"\n  IdentityAgent none\n"
            % (host.host, host.port, host.user, host.key, host.known_hosts))


@pytest.mark.parametrize("transport", ["libssh2", "openssh"])
@pytest.mark.parametrize("way", ["alias", "ProxyJump", "ProxyCommand", "jump"])
def test_ways_of_ssh_config(host, base, drive, way, transport):
    with Sshd(base / "gate") as gate:
        text = "Host box\n" + hop(host)
        if way == "ProxyJump":
            text += "  ProxyJump gate\n"
        if way == "ProxyCommand":
            text += "  ProxyCommand /usr/bin/ssh -F \"%s\" -W [%%h]:%%p gate\n" % (base / "config")
        text += "Host gate\n" + hop(gate)
        config = write_config(base / "config", text)
        pairs = ["host=box", "ssh_config=%s" % config, "base=%s" % (host.home / "base"),
                 "transport=" + transport]
        if way == "jump":
            pairs.append("jump=gate")
        d = drive(kind="ssh", pairs=pairs)
        d.create("k1")
        assert d.state("k1") == "running" and d.do("list")["boxes"] == {"k1": "running"}
        d.destroy("k1")
        used = "Accepted" in gate.log()
        assert used == (way != "alias"), gate.log()
        d.close()
        d.start()


def test_known_hosts_of_ssh_config_with_a_blank(host, base, drive):
    known = base / "known hosts"
    known.write_text(host.known_hosts.read_text())
    text = hop(host).replace(str(host.known_hosts), str(known))
    d = drive(kind="ssh", pairs=["host=box", "ssh_config=%s" % write_config(base / "config", "Host box\n" + text),
                                 "base=%s" % (host.home / "base")])
    d.create("k1")
    d.destroy("k1")


def test_proxies_know_no_secret(host, base, drive):
    seen = base / "seen"
    command = "/usr/bin/env > %s; exec /usr/bin/ssh -F \"%s\" -W [%%h]:%%p gate" % (seen, base / "config")
    config = write_config(base / "config", "Host box\n%s  ProxyCommand %s\nHost gate\n%s"
                          % (hop(host), "/bin/sh -c '%s'" % command, hop(host)))
    d = drive(kind="ssh", pairs=["host=box", "ssh_config=%s" % config, "base=%s" % (host.home / "base")],
              env={"SBXFS_SSH_PASSWORD": "hush1", "SOME_API_KEY": "hush2"})
    d.create("k1")
    assert "PATH=" in seen.read_text() and "hush" not in seen.read_text()
    d.destroy("k1")


@pytest.mark.parametrize("transport", ["libssh2", "openssh"])
def test_jump_is_reached_by_what_the_section_says(host, base, drive, transport):
    """No ~/.ssh and no agent has anything for the gate."""
    with Sshd(base / "gate") as gate:
        gate.authorize((host.base / "key.pub").read_text().strip())
        known = base / "known hosts"
        known.write_text(host.known_hosts.read_text() + gate.known_hosts.read_text())
        d = drive(kind="ssh", pairs=section(
            host, transport=transport, known_hosts=known,
            jump="%s@%s:%d" % (gate.user, gate.host, gate.port)))
        d.create("k1")
        assert d.check("k1", "echo on") == "on\n" and "Accepted" in gate.log()
        d.destroy("k1")
        d.close()
        d.start()


def test_ssh_config_that_is_wrong_says_so(base, drive):
    config = write_config(base / "config", "Nonsense yes\n")
    d = drive(kind="ssh", pairs=["host=box", "ssh_config=%s" % config])
    assert "onsense" in refused("EINVAL", d.create, "k1")


def test_transport_openssh_refuses_what_it_cannot_hold(host, drive, base):
    assert "hostkey" in start_fails(drive, section(host, transport="openssh",
                                                   hostkey=host.fingerprint()))
    known = base / "known"
    known.write_text("")
    d = drive(kind="ssh", pairs=section(host, transport="openssh", known_hosts=known))
    refused("EPERM", d.create, "k1")


def test_transport_openssh_leaves_no_processes(host, remote):
    d = remote(transport="openssh")
    d.create("k1")
    d.do("list")
    d.kill()
    mark = str(host.known_hosts).encode()

    def clients():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = open("/proc/%s/cmdline" % pid, "rb").read()
                if words.startswith(b"ssh\0") and mark in words:
                    found.append(pid)
        return found
    wait_for(lambda: not clients(), 10, 0.05, lambda: "the end of ssh: %s" % clients())
    d.start()


# -- servers that offer less

def test_files_only(base, drive):
    """ForceCommand internal-sftp: life works, there is nothing to run."""
    with Sshd(base / "sshd", config=["ForceCommand internal-sftp"]) as host:
        d = drive(kind="ssh", pairs=section(host))
        d.create("k1", name="web")
        assert d.state("k1") == "running"
        assert d.do("list")["boxes"] == {"k1": "running"}
        refused("EOPNOTSUPP", d.do, "pause", box="k1")
        d.do("stop", box="k1")
        assert d.do("list")["boxes"] == {"k1": "stopped"}
        work = only(host) / "work"
        for i in range(30):
            (work / ("d%d" % i)).mkdir()
            (work / ("d%d" % i) / "f").write_text("x")
        (work / "link").symlink_to("/etc")
        half = work.parent.parent / "half1"
        shutil.copytree(work.parent, half, symlinks=True)
        for each in (work, half / "work"):
            (each / "d1").chmod(0)
        text = (half / "sandbox").read_text().replace("key " + work.parent.name, "key half1")
        (half / "sandbox").unlink()
        (half / "sandbox.half").write_text(checksummed(text))
        assert d.do("list")["boxes"] == {"k1": "stopped"}
        assert len(boxes(host)) == 1
        d.destroy("k1")
        assert boxes(host) == {} and d.state("k1") == "gone"


def test_one_session_a_connection(base, drive):
    with Sshd(base / "sshd", max_sessions=1) as host:
        d = drive(kind="ssh", pairs=section(host))
        d.create("k1")
        assert d.do("list")["boxes"] == {"k1": "running"}
        d.do("pause", box="k1")
        d.destroy("k1")
        assert boxes(host) == {}


def test_no_sftp_is_said(base, drive):
    with Sshd(base / "sshd", sftp=None) as host:
        d = drive(kind="ssh", pairs=section(host))
        assert "SFTP" in refused("EOPNOTSUPP", d.create, "k1")


# -- hosts that go away

def test_host_down_at_create(base, drive):
    host = Sshd(base / "sshd")
    d = drive(kind="ssh", pairs=section(host))
    start = time.monotonic()
    assert refused("EHOSTUNREACH", d.create, "k1").endswith("Connection refused")
    assert time.monotonic() - start < 15
    start = time.monotonic()
    refused("EHOSTUNREACH", d.create, "k1")  # within the back-off
    assert time.monotonic() - start < 15
    with host:
        def created():
            try:
                return bool(d.create("k1"))
            except Refused:
                return False
        wait_for(created, 60, 0.1, "the host")
        d.destroy("k1")


def test_connections_that_break_are_made_again(host, remote):
    d = remote()
    d.create("k1")
    for _ in range(3):
        host.kill_connections()
        wait_for(lambda: answers(d), 60, what="the connection")
    host.kill()
    wait_for(lambda: not answers(d), 60, what="the end of the connection")
    before = d.get(d.ask("create", box="k2", check_only=True))
    assert before["r"] == 0
    host.start()
    wait_for(lambda: answers(d), 60, 0.1, "the host")
    d.destroy("k1")


def answers(d):
    try:
        return d.state("k1") == "running"
    except Refused:
        return False


def test_a_silent_host_holds_nobody_up_for_long(host, remote, drive):
    with host.delay() as far:
        d = remote(port=far.port)
        d.create("k1")
        far.hole()
        spans = []
        for _ in range(3):
            start = time.monotonic()
            refused("ETIMEDOUT", d.do, "state", box="k1", call_ms=500)
            spans.append(time.monotonic() - start)
        # The fastest: a machine may stand still for a moment.
        assert min(spans) < 2.9, spans  # connecting has 3 s of its own
        # Twice silent, and the breaker is open: no call waits.
        end = time.monotonic() + 120
        while True:
            start = time.monotonic()
            with pytest.raises(Refused) as caught:
                d.do("state", box="k1", call_ms=45000)
            took = time.monotonic() - start
            # Silent for 10 s; a client that stood still itself begins to count anew.
            assert took < 40
            if took < 0.1 and caught.value.errno == "EHOSTUNREACH":
                break
            assert start < end
        spans = []
        for _ in range(5):
            start = time.monotonic()
            refused("EHOSTUNREACH", d.do, "state", box="k1")
            spans.append(time.monotonic() - start)
        assert sorted(spans)[2] < 1, spans
        far.thaw()
        wait_for(lambda: answers(d), 120, 0.1, "the host")
        d.destroy("k1")


def test_closing_does_not_wait_for_a_silent_host(host, remote):
    with host.delay() as far:
        d = remote(port=far.port)
        far.hole()
        target = d.ask("create", box="k1", call_ms=500)
        with pytest.raises(Refused):
            d.get(target)
        start = time.monotonic()
        d.close()
        assert time.monotonic() - start < 7  # the dial has 10 s of its own
        far.thaw()
        d.start()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(os.kill, d.process.pid, signal.SIGCONT).result()
