# SPDX-License-Identifier: Apache-2.0
"""What the tests of files share."""

import os
import time

from box_files import Files
from driver import Refused

MTIME = [1600000000, 0]  # whole seconds: SFTP has no more
NS = 123456789  # what touch adds to them, where the host has a shell
HARD_NAMES = ["a b", "it's", 'say "hi"', "-rf", "new\nline", "tab\there", "*", "$(x)`y`", "back\\slash", "%s%d",
              "~", "#x", "ümläut", "\udcff\udcfe", " ", "trailing ", "{1..3}", "a;b&c|d", "x" * 255, "\x01\x7f",
              ".sbxfs", ".sbxfs-mine", "[", "=", "!", "\\n"]


def ssh_section(server, port=None, **more):
    """The keys of an INI section that reaches it."""
    keys = dict({"host": server.host, "port": port or server.port, "user": server.user, "identity": server.key,
                 "known_hosts": server.known_hosts, "agent": "no", "ssh_config": "none", "base": server.home / "base"},
                **more)
    return ["%s=%s" % item for item in keys.items()]


def make(f, path, data=b"", mode=0o644):
    """A file as a command inside makes it."""
    real = f.real / path
    real.write_bytes(data)
    real.chmod(mode)
    own(f, real)


def own(f, real):
    if os.geteuid() == 0:
        there = os.stat(f.real)
        os.chown(real, there.st_uid, there.st_gid, follow_symlinks=False)


def is_as_there(f, path, st):
    real = os.lstat(f.real / path)
    assert st.mode == real.st_mode and st.size == real.st_size
    assert st.mtime[0] == real.st_mtime_ns // 10**9
    assert st.mtime[1] in (0, real.st_mtime_ns % 10**9)
    assert st.ino in (0, real.st_ino) and st.nlink in (0, real.st_nlink)


def leftovers(f):
    return [name for _, dirs, files in os.walk(f.real) for name in dirs + files if name.startswith(".sbxfs-")
            and name != ".sbxfs-mine"]


def times(f, path):
    real = os.lstat(f.real / path)
    return divmod(real.st_mtime_ns, 10**9)


def temporary(f):
    return [path for path in f.real.parent.iterdir() if path.name.startswith(".sbxfs-")] + leftovers(f)


def until_it_answers(call, timeout=90):
    end = time.monotonic() + timeout
    while True:
        try:
            return call()
        except Refused as refused:
            assert refused.errno in ("EHOSTUNREACH", "ETIMEDOUT"), refused
            assert time.monotonic() < end, refused
            time.sleep(0.1)


def fake_environ(fake):
    """What a provider is to be started with: nothing goes by a proxy."""
    return dict(fake.environ, no_proxy="127.0.0.1,localhost", NO_PROXY="127.0.0.1,localhost")


def fake_root(fake, ident):
    """Its "/", as it is here."""
    return fake.base / "boxes" / ident


OWN_USERS = {"e2b": "user", "daytona": "daytona"}


def fake_files(drive, fake, kind, how):
    """Files of a stand-in's sandbox: by our program ("agent"), a shell, or short scripts."""
    driver = drive(kind=kind, pairs=["files=" + ("shell" if how == "shell" else "agent")],
                   env=fake_environ(fake))
    # the shell of anybody but root opens what it writes to by its path each time
    user = "root" if how == "shell" else OWN_USERS.get(kind)
    driver.create("k1", **({"user": user} if kind in OWN_USERS else {}))
    files = Files(driver, "k1", "/")
    files.real = fake_root(fake, driver.ids["k1"]) / files.workdir().lstrip("/")
    files.has_handles = how == "agent"
    files.big_size = (2 if how == "scripts" else 48) << 20  # the stand-in is slow, not we
    return files
