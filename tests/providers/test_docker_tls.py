# SPDX-License-Identifier: Apache-2.0
"""An engine on TCP with TLS: it knows us by a certificate, and we know it."""

import contextlib
import os
import random
import re
import socket

import pytest

from box_files import Files, store
from driver import Refused
from support.dockerd import Dockerd
from support.mounts import work_directory
from support.tools import run

pytestmark = pytest.mark.xdist_group("docker")


def make_key(base, name, authority=None, extension=""):
    """NAME-key.pem and NAME.pem, signed by another such or by itself."""
    key, request, made = (str(base / (name + suffix)) for suffix in ("-key.pem", ".csr", ".pem"))
    subject = ["-subj", "/CN=sbxfs test " + name]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, *subject]
    if authority is None:
        run(["openssl", "req", "-x509", *new, "-days", "2", "-out", made])
        return
    run(["openssl", "req", *new, "-out", request])
    with open(base / (name + ".ext"), "w", encoding="ascii") as file:
        file.write(extension)
    run(["openssl", "x509", "-req", "-in", request, "-CA", base / (authority + ".pem"), "-CAkey",
         base / (authority + "-key.pem"), "-CAcreateserial", "-days", "2", "-extfile", base / (name + ".ext"),
         "-out", made])


def certificates(base, name, authority, client):
    """What DOCKER_CERT_PATH has."""
    place = base / name
    place.mkdir()
    for source, to in ((authority + ".pem", "ca.pem"), (client + ".pem", "cert.pem"), (client + "-key.pem", "key.pem")):
        (place / to).write_bytes((base / source).read_bytes())
    (place / "key.pem").chmod(0o600)
    return place


def free_port():
    """One that the kernel gives to nobody who binds or connects without saying which."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        lowest = int(file.read().split()[0])
    for port in random.SystemRandom().sample(range(min(10000, lowest // 2), lowest), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port below %d is free" % lowest)


class Tls:
    """An engine and who may ask it."""

    def __init__(self, base):
        self.base = base
        for authority in ("ca", "stranger"):
            make_key(base, authority)
        make_key(base, "server", "ca", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        make_key(base, "client", "ca", "extendedKeyUsage=clientAuth\n")
        make_key(base, "other", "stranger", "extendedKeyUsage=clientAuth\n")
        self.right = certificates(base, "right", "ca", "client")
        self.untrusted = certificates(base, "untrusted", "stranger", "client")
        self.unknown = certificates(base, "unknown", "ca", "other")
        self.port = free_port()

    def options(self):
        return ["-H", "tcp://127.0.0.1:%d" % self.port, "--tlsverify", "--tlscacert", self.base / "ca.pem",
                "--tlscert", self.base / "server.pem", "--tlskey", self.base / "server-key.pem"]

    def pairs(self, place):
        return ["host=tcp://127.0.0.1:%d" % self.port, "tls=on", "cert_path=%s" % place]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("only root can run an engine")
    found = Tls(tmp_path_factory.mktemp("tls"))
    with contextlib.ExitStack() as stack:
        found.engine = stack.enter_context(
            Dockerd(work_directory("sbxfs-dockerd-"), options=[str(each) for each in found.options()]))
        yield found


def test_commands_and_files_go_over_tls(tls, drive):
    d = drive(kind="docker", pairs=tls.pairs(tls.right))
    d.create("k1", image=tls.engine.image("busybox"))
    assert d.check("k1", "echo hello; sleep 0.1; echo there") == "hello\nthere\n"
    f = Files(d, "k1", "/")
    large = os.urandom(1 << 20) * 9
    f.must(store("small", b"text"), store("large", large))
    assert d.check("k1", "wc -c <large").strip() == str(len(large))
    handle, st = f.open("large")
    assert st.size == len(large)
    got = f.read(handle, 1 << 20, 5 << 20)[0]
    f.close(handle)
    assert got == large[5 << 20:6 << 20]
    assert f.fetch(["small"])["small"].data == b"text"


@pytest.mark.parametrize("which", ["untrusted", "unknown"])
def test_who_is_not_known_is_not_talked_to(tls, drive, which):
    d = drive(kind="docker", pairs=tls.pairs(getattr(tls, which)))
    with pytest.raises(Refused) as caught:
        d.create("k1", image=tls.engine.image("busybox"))
    assert caught.value.errno == ("EPERM" if which == "untrusted" else "EHOSTUNREACH"), caught.value
    if which == "untrusted":  # it is we who refuse, and can say why
        assert re.search("certificate", str(caught.value)), caught.value
    assert "k1" not in d.ids
