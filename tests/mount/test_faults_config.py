# SPDX-License-Identifier: Apache-2.0
"""The command line and the INI file: what is wrong is refused at the start, with file, line and reason."""

import os
import subprocess
import time

import pytest

from support.control import write_once
from support.mounts import mount_entries, processes_of, sbxfs_path
from support.tools import end, run, wait_for


# (text of the file, line that is named, what the sentence says)
BAD = [
    ("no section\n", 1, ""),
    ("key = value\n", 1, ""),
    ("[local\n", 1, ""),
    ("[local]\nnonsense\n", 2, ""),
    ("[local]\ncolour = red\n", 2, "colour"),
    ("# note\n\n[local]\nmemory = lots\n", 4, "memory"),
    ("[local]\ncpu = -1\n", 2, "cpu"),
    ("[local]\nmemry = 1G\n", 2, "memory"),
    ("[local]\nallow = everything\n", 2, "everything"),
    ("[local]\nallow = nett\n", 2, "net"),
    ("[local]\ntimeout = soon\n", 2, "timeout"),
    ("[local]\nnet = maybe\n", 1, "net"),
    ("[nosuch]\ncpu = 1\n", 1, "nosuch"),
    ("[mine]\nkind = nosuch\n", None, "nosuch"),
    ("[local]\ncpu = 1\n\n[local]\ncpu = 2\n", 4, "local"),
    ("[local]\ncpu = 1\ncpu = 2\n", 3, "cpu"),
    ("[bad name]\n", 1, "bad name"),
    ("[local]\nworkdir = relative/path\n", None, "workdir"),
]


def config(mount, text, mode=0o600):
    path = mount.base / "config.ini"
    path.write_text(text)
    path.chmod(mode)
    if "config=%s" % path not in mount.options:
        mount.options.append("config=%s" % path)
    return path


def refused(mount, timeout=40):
    """What it says when it refuses to start."""
    process = subprocess.Popen(mount.argv(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, cwd="/", start_new_session=True,
                               env=dict(os.environ, HOME=str(mount.base / "home")))
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        run(["fusermount3", "-uz", mount.path], check=False)
        end(process)
        pytest.fail("it did not refuse to start")
    assert process.returncode > 0, (process.returncode, out)
    assert not any(point == str(mount.path) for _, point, _ in mount_entries())
    return out.decode("utf-8", "replace")


@pytest.mark.parametrize("text,line,word", BAD, ids=[repr(r[0])[:40] for r in BAD])
def test_bad_configuration_names_file_and_line(fresh_mount, text, line, word):
    mount = fresh_mount(start=False)
    path = config(mount, text)
    said = refused(mount)
    assert ("%s:%d" % (path, line) if line else str(path)) in said, said
    assert word in said, said


def test_configuration_that_is_not_there(fresh_mount):
    mount = fresh_mount(start=False)
    mount.options.append("config=%s" % (mount.base / "nothing.ini"))
    assert "nothing.ini" in refused(mount)


def test_configuration_that_is_a_directory(fresh_mount):
    mount = fresh_mount(start=False)
    mount.options.append("config=%s" % mount.base)
    assert str(mount.base) in refused(mount)


def test_secrets_that_others_can_read_are_refused(fresh_mount):
    mount = fresh_mount(start=False)
    for mode in (0o644, 0o640, 0o604):
        path = config(mount, "[local]\nenv.TOKEN = s3cret\n", mode)
        said = refused(mount)
        assert str(path) in said and "s3cret" not in said, said
    config(mount, "[local]\nenv.TOKEN = s3cret\n", 0o600)
    mount.start()
    assert mount.create("web").ok("echo $TOKEN") == b"s3cret\n"


def test_file_without_secrets_may_be_read_by_all(fresh_mount):
    mount = fresh_mount(start=False)
    config(mount, "[local]\nlabel.team = x\n", 0o644)
    mount.start()
    mount.create("web").ok("true")


def test_file_that_others_can_write_is_refused_or_harmless(fresh_mount):
    mount = fresh_mount(start=False)
    config(mount, "[local]\nenv.TOKEN = s3cret\n", 0o666)
    refused(mount)


def test_defaults_of_a_section(fresh_mount):
    mount = fresh_mount(start=False)
    config(mount, "; a comment\n[local]\nenv.A = from the file\ntimeout = 1h\n\n"
           "[second]\nkind = local\nenv.A = other\nworkdir = /srv\n")
    mount.start()
    assert mount.create("web").ok("echo $A; pwd") == b"from the file\n/workspace\n"
    assert mount.create("two", provider="second").ok("echo $A; pwd") == b"other\n/srv\n"
    assert mount.box("two").status()["provider"] == "second"
    assert {"provider local ok", "provider second ok"} <= {
        " ".join(line.split()[:3]) for line in
        mount.read(mount.path / "status").decode().splitlines()}
    mount.ctl("create three env.A=mine")
    mount.box("three").wait_state("running")
    assert mount.box("three").ok("echo $A") == b"mine\n"


def test_provider_option_chooses_the_default(fresh_mount):
    mount = fresh_mount(options=("drain=30s",), start=False)  # what is destroyed has ended by then
    config(mount, "[second]\nkind = local\nenv.A = second\n")
    mount.options.append("provider=second")
    mount.start()
    assert mount.create("web").ok("echo $A") == b"second\n"
    mount.box("web").destroy()
    mount.umount()
    mount.options[-1] = "provider=nosuch"
    assert "nosuch" in refused(mount)


def test_allow_lets_people_ask_for_more(fresh_mount):
    mount = fresh_mount(options=("drain=1s", "allow=net"))
    mount.create("web", net="host").ok("true")
    assert write_once(mount.path / "ctl", "create x isolation=none\n") == ("write", "EPERM")
    two = fresh_mount(start=False)
    config(two, "[local]\nallow = mount\n")
    two.start()
    outside = two.base / "shared"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "f").write_text("of the host\n")
    (outside / "f").chmod(0o644)
    box = two.create("web", **{"mount.1": "%s:/shared:ro" % outside})
    assert box.ok("cat /shared/f") == b"of the host\n"
    assert box.exec("echo x > /shared/g").exit != "0"
    assert write_once(two.path / "ctl", "create x net=host\n") == ("write", "EPERM")


def test_configuration_at_its_usual_place(fresh_mount):
    mount = fresh_mount(start=False)
    place = mount.base / "config" / "sbxfs"  # XDG_CONFIG_HOME of the fixture
    place.mkdir()
    (place / "config.ini").write_text("[local]\nlabel.a = b\nenv.A = usual\n")
    (place / "config.ini").chmod(0o600)
    mount.start()
    assert mount.create("web").ok("echo $A") == b"usual\n"


OPTIONS = [
    ("max-sandboxes=many", "max-sandboxes"), ("max-sandboxes=-1", "max-sandboxes"),
    ("drain=soon", "drain"), ("on-unmount=explode", "on-unmount"), ("allow=all", "allow"),
    ("symlinks=maybe", "symlinks"), ("attr_timeout=x", "attr_timeout"), ("state=", "state"),
    ("no-such-option", "no-such-option"), ("max-sandboxs=3", "max-sandboxs"),
    ("uid-range=abc", "uid-range"), ("umask=999", "umask"),
]


@pytest.mark.parametrize("option,word", OPTIONS, ids=[o for o, _ in OPTIONS])
def test_bad_options_are_refused(fresh_mount, option, word):
    mount = fresh_mount(start=False)
    mount.options.append(option)
    assert word in refused(mount)


def test_bad_mount_points(base):
    (base / "file").write_text("x")
    for arguments in ([], [base / "nothing"], [base / "file"], [base, base, base]):
        said = run([sbxfs_path(), "-f", "-o", "state=%s" % (base / "state"), *arguments],
                   check=False)
        assert said.code > 0 and said.err.strip() != "", said


def test_help_and_version():
    said = run([sbxfs_path(), "--help"])
    assert "MOUNTPOINT" in said.out and "-o" in said.out
    assert "0." in run([sbxfs_path(), "--version"]).out


def test_source_and_mount_options_of_fstab(fresh_mount):
    """mount.fuse3 passes a source, and options of mount(8) that mean nothing here."""
    mount = fresh_mount(start=False)
    argv = mount.argv
    mount.argv = lambda: argv()[:-1] + ["source", argv()[-1]]
    mount.options += ["dev", "suid", "rw", "noauto", "nofail", "_netdev"]
    mount.start()
    mount.create("web").ok("true")


def test_state_directory_that_others_can_write_is_refused(fresh_mount):
    mount = fresh_mount(start=False)
    mount.state.mkdir()
    mount.state.chmod(0o777)
    said = refused(mount)
    assert str(mount.state) in said, said


def test_read_only_mount(fresh_mount):
    mount = fresh_mount()
    mount.create("web").ok("echo kept > f")
    mount.umount()
    mount.options.append("ro")
    mount.start()
    assert (mount.path / "web/fs/f").read_text() == "kept\n"
    for call in (lambda: os.mkdir(mount.path / "new"),
                 lambda: (mount.path / "web/fs/g").write_text("x"),
                 lambda: (mount.path / "web/ctl").write_text("stop\n")):
        with pytest.raises(OSError):
            call()
    mount.umount()
    mount.options.remove("ro")
    mount.start()


def test_foreground_is_an_option(base):
    """Without -f it goes to the background once the mount answers, and says what went wrong before."""
    (base / "mnt").mkdir()
    command = [sbxfs_path(), "-o", "state=%s,drain=1s" % (base / "state"), base / "mnt"]
    try:
        run(command)
        assert "ctl" in os.listdir(base / "mnt")
        again = run(command, check=False)
        assert again.code > 0 and again.err.strip(), again
    finally:
        for _ in range(50):  # busy while anybody looks at the mount
            if "busy" not in run(["fusermount3", "-u", base / "mnt"], check=False).err:
                break
            time.sleep(0.1)
        wait_for(lambda: not processes_of(base), what=lambda: "its end: %s" % processes_of(base))
