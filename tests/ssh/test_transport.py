# SPDX-License-Identifier: Apache-2.0
"""transport/ssh/ against OpenSSH's sshd: tests/ssh/probe.c is the program that is driven here."""

import contextlib
import os
import re
import select
import signal
import subprocess
import time

import pytest

from support import mounts
from support.sshd import MARK, Sshd, fingerprint, make_key, new_user
from support.tools import Failed, end, run, wait_for

MIB = 1 << 20
SANITIZER = mounts.SANITIZER
LIBSSH2_HAS_RSA_SHA2 = False  # until 1.11
LONG = 60000  # ms in which all comes that ever does
AT_ONCE = 5.0  # seconds, on a busy machine: what waits for no server, which is given up after 10


class Probe:
    """A connection. `hello` is what came of it; do() one command."""

    def __init__(self, server, port=None, user=None, known=None, key=None, log=None, **options):
        values = [("host", server.host), ("port", port or server.port),
                  ("user", user or server.user)]
        values += [("known_hosts", path) for path in known or [server.known_hosts]]
        keys = [server.key] if key is None else key
        values += [("identity", path) for path in keys]
        options.setdefault("limit", LONG)
        for name, value in options.items():
            values += [(name, one) for one in (value if isinstance(value, list) else [value])]
        self.log_path = server.base / ("probe-%d" % time.monotonic_ns())
        program = mounts.build_directory() / "tests/ssh/probe"
        with open(self.log_path, "wb") as file:
            self.process = subprocess.Popen([program, *("%s=%s" % pair for pair in values)],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=file, start_new_session=True, bufsize=0)
        self.text = b""
        self.started = time.monotonic()
        self.hello = self._line(90)
        self.took = time.monotonic() - self.started

    def __enter__(self):
        assert self.hello.startswith("ok "), self.hello
        return self

    def __exit__(self, *_):
        self.done()

    def _line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed("the probe said nothing for %s s" % timeout)
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise Failed("the probe ended: %r %s" % (self.text, self.log_path.read_text()))
            self.text += data
        line, _, self.text = self.text.partition(b"\n")
        return line.decode("utf-8", "replace")

    def ask(self, line):
        self.process.stdin.write(line.encode() + b"\n")

    def do(self, line, timeout=90):
        self.ask(line)
        return self._line(timeout)

    def ok(self, line, timeout=90):
        said = self.do(line, timeout)
        assert said.split(" ")[0] == "ok", "%s: %s" % (line, said)
        return said[3:]

    def open(self, command, kind="exec"):
        return int(self.ok("open %s %s" % (kind, command)))

    def run(self, command, wait_ms=LONG):
        """A command to its end: its end and what it printed."""
        number = self.open(command)
        said = self.ok("end %d %d" % (number, wait_ms), wait_ms / 1000 + 30)
        return said, self.ok("out %d" % number)

    def done(self):
        """End it: the seconds that took. Sanitizers must have been content."""
        if self.process.stdin.closed:
            return 0
        try:
            took = 0
            if self.hello.startswith("ok "):
                took = int(self.ok("quit")) / 1e9
            self.process.wait(60)
        finally:
            end(self.process)
            self.process.stdin.close()
            self.process.stdout.close()
        log = self.log_path.read_bytes()
        assert not SANITIZER.search(log), log.decode("utf-8", "replace")
        return took


def refused(server, **options):
    """The sentence of a connection that has to fail: (errno's name, sentence)."""
    probe = Probe(server, **options)
    try:
        assert not probe.hello.startswith("ok"), probe.hello
        return probe.hello.split(" ", 1)
    finally:
        probe.done()


@pytest.fixture
def server(base):
    with Sshd(base / "sshd") as one:
        yield one


@pytest.fixture
def sshd(base):
    """sshd(**options): a server of this test's own."""
    with contextlib.ExitStack() as stack:
        count = 0

        def make(**options):
            nonlocal count
            count += 1
            return stack.enter_context(Sshd(base / ("sshd%d" % count), **options))
        yield make


@pytest.fixture
def account():
    """A user with a password."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a user with a password")
    with new_user(password="correct horse") as name:
        yield name


@pytest.fixture
def agent(base):
    """An ssh-agent: (its socket, add(key), its process)."""
    path = base / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    env = {"SSH_AUTH_SOCK": str(path)}
    wait_for(lambda: run(["ssh-add", "-l"], env=env, check=False).code == 1, 5, what="the agent")

    def add(key):
        run(["ssh-add", "-q", key], env=env)
    yield path, add, process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait(30)


# -- connections and channels

def test_commands_end_with_code_or_signal(server):
    with Probe(server) as p:
        assert p.hello.split(" ", 2)[2].startswith("SSH-2.0-OpenSSH")
        assert p.run("echo out; echo err >&2; exit 3") == ("code 3 4 4", "out|err|")
        assert p.run("true")[0] == "code 0 0 0"
        assert p.run("exit 255")[0] == "code 255 0 0"
        for name in ("KILL", "TERM", "SEGV", "PIPE", "USR1"):
            number = getattr(signal, "SIG" + name)
            assert p.run("kill -%s $$" % name)[0] == "signal %d 0 0" % number
        assert 0 < int(p.ok("trip")) < 10e9
        assert p.ok("error") == ""
        assert p.done() < AT_ONCE


def test_input_goes_in_order_and_ends(server):
    with Probe(server) as p:
        number = p.open("cat; echo end")
        for text in ("one", "two", "three"):
            p.ok("text %d %s" % (number, text))
        p.ok("eof %d" % number)
        assert p.ok("end %d %d" % (number, LONG)) == "code 0 18 0"
        assert p.ok("out %d" % number) == "one|two|three|end|"
        assert p.do("text %d late" % number).startswith("EPIPE")


def test_subsystems(server):
    with Probe(server) as p:
        number = p.open("sftp", "subsystem")
        p.ok("eof %d" % number)
        assert p.ok("end %d %d" % (number, LONG)).startswith("code 0")
        assert p.do("open subsystem nope").startswith("EOPNOTSUPP ")
        assert p.run("true")[0] == "code 0 0 0"


def test_one_hundred_mebibytes_each_way(server):
    with Probe(server) as p:
        assert p.run("head -c %d /dev/zero" % (100 * MIB), 60000)[0] == "code 0 %d 0" % (100 * MIB)
        p.ok("limit 60000")
        number = p.open("sha256sum | head -c 64")
        p.ok("send %d %d" % (number, 100 * MIB), 90)
        p.ok("eof %d" % number)
        assert p.ok("end %d 60000" % number) == "code 0 64 0"
        expected = run("head -c %d /dev/zero | sha256sum" % (100 * MIB)).out.split()[0]
        assert p.ok("out %d" % number) == expected


def test_both_ways_at_once(server):
    with Probe(server) as p:
        p.ok("limit 60000")
        number = p.open("cat")
        p.ok("send %d %d" % (number, 50 * MIB), 90)
        p.ok("eof %d" % number)
        assert p.ok("end %d 60000" % number) == "code 0 %d 0" % (50 * MIB)


def test_keys_are_exchanged_again_on_the_way(sshd):
    server = sshd(config=["RekeyLimit 4M"])
    with Probe(server) as p:
        p.ok("limit 60000")
        assert p.run("head -c %d /dev/zero" % (30 * MIB), 60000)[0] == "code 0 %d 0" % (30 * MIB)
        number = p.open("cat")
        p.ok("send %d %d" % (number, 30 * MIB), 90)
        p.ok("eof %d" % number)
        assert p.ok("end %d 60000" % number) == "code 0 %d 0" % (30 * MIB)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_bulk_does_not_starve_small_pieces(server, direction):
    with server.delay(10) as way, Probe(server, port=way.port) as p:
        p.ok("limit 60000")
        small = p.open("cat")
        if direction == "down":
            bulk = p.open("cat /dev/zero")
        else:
            bulk = p.open("cat >/dev/null")
            p.ask("send %d %d" % (bulk, 60 * MIB))
            p._line(90)  # all but the last MiB is on its way
        spans = []
        for i in range(1, 21):
            p.ok("text %d x" % small)
            spans.append(int(p.ok("reach %d %d %d" % (small, 2 * i, LONG))) / 1e6)
        # Half of them: a machine that stands still for a moment holds up some.
        assert sorted(spans)[10] < 2000, spans
        p.ok("close %d" % bulk)


def test_channels_beyond_the_servers_limit(server):
    with Probe(server) as p:
        numbers = [p.open("cat") for _ in range(10)]
        for _ in range(2):
            assert p.do("open exec cat").startswith("EMFILE "), p.hello
        for i, number in enumerate(numbers):
            p.ok("text %d hello" % number)
            assert p.ok("reach %d 6 %d" % (number, LONG))
        p.ok("eof %d" % numbers[0])
        p.ok("end %d %d" % (numbers[0], LONG))
        p.ok("close %d" % numbers[0])
        wait_for(lambda: p.do("open exec true").startswith("ok"), 10, 0.05)


def test_closing_during_traffic(sshd):
    server = sshd(max_sessions=40)  # it counts one until its program has ended too
    with Probe(server) as p:
        for _ in range(5):
            down = p.open("cat /dev/zero")
            up = p.open("sleep 60")
            p.ok("reach %d %d %d" % (down, 4 * MIB, LONG))
            for _ in range(100):
                p.ok("text %d %s" % (up, "x" * 30000))
            assert int(p.ok("close %d" % down)) < AT_ONCE * 1e9
            assert int(p.ok("close %d" % up)) < AT_ONCE * 1e9
            assert p.run("echo fine")[1] == "fine|"
        p.open("cat /dev/zero")
        assert p.done() < AT_ONCE
    server.kill_connections()


def test_a_command_survives_the_end_of_its_connection(server):
    with Probe(server) as p:
        p.open("exec sleep 77")
    def words(pid):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as file:
                return file.read().split(b"\0")
        except OSError:  # it has gone since
            return []
    wait_for(lambda: [pid for pid in server.sessions() if words(pid)[:2] == [b"sleep", b"77"]], 10, 0.05,
             lambda: "the command, not %s" % [words(pid) for pid in server.sessions()])


# -- host keys

def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_unknown_host_is_refused_with_its_fingerprint(server, base):
    name, sentence = refused(server, known=[base / "none"])
    assert name == "EPERM"
    assert server.fingerprint() in sentence and "is not known" in sentence


def test_changed_host_key_is_refused(server, base):
    other = make_key(base / "other")
    line = server.known_lines()[0].split()[0] + " " + " ".join(other.split()[:2])
    name, sentence = refused(server, known=[write(base / "known", line)])
    assert name == "EPERM" and "has changed" in sentence and server.fingerprint() in sentence


def test_known_key_in_any_of_the_files(server, base):
    other = make_key(base / "other")
    wrong = server.known_lines()[0].split()[0] + " " + " ".join(other.split()[:2])
    known = [base / "missing", write(base / "a", "# nothing", "", wrong), server.known_hosts]
    with Probe(server, known=known) as p:
        assert p.run("true")[0] == "code 0 0 0"


def test_hashed_names(server, base):
    known = write(base / "known", *server.known_lines())
    run(["ssh-keygen", "-H", "-f", known])
    assert known.read_text().startswith("|1|")
    with Probe(server, known=[known]):
        pass
    known = write(base / "known2", *server.known_lines(port=server.port + 1))
    run(["ssh-keygen", "-H", "-f", known])
    assert refused(server, known=[known])[0] == "EPERM"


def test_patterns_and_names_without_port(server, base):
    key = " ".join(server.host_keys["ed25519"].split()[:2])
    for i, (names, is_known) in enumerate([
            ("127.0.0.1", True), ("[127.0.0.1]:*", True), ("*", True), ("127.0.0.?", True),
            ("other,127.*", True), ("*,![127.0.0.1]:*,!127.0.0.1", False), ("127.0.0.2", False),
            ("[127.0.0.1]:1", False), ("127.0.0", False)]):
        known = write(base / ("known%d" % i), "%s %s comment" % (names, key))
        if is_known:
            with Probe(server, known=[known]):
                pass
        else:
            assert refused(server, known=[known])[0] == "EPERM"


def test_alias_is_the_name(server, base):
    key = " ".join(server.host_keys["ed25519"].split()[:2])
    known = write(base / "known", "box.example " + key)
    assert refused(server, known=[known])[0] == "EPERM"
    with Probe(server, known=[known], alias="Box.example"):
        pass
    assert refused(server, alias="box.example")[0] == "EPERM"


def test_revoked_keys_and_authorities(server, base):
    key = " ".join(server.host_keys["ed25519"].split()[:2])
    known = write(base / "known", *server.known_lines(), "@revoked * " + key)
    name, sentence = refused(server, known=[known])
    assert name == "EPERM" and "@revoked" in sentence
    known = write(base / "known", "@cert-authority * " + key)
    assert refused(server, known=[known])[0] == "EPERM"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_the_server_shows_the_key_that_is_known(sshd, base, kind):
    server = sshd(host_keys=("ecdsa", "ed25519"))
    lines = [line for line in server.known_lines() if kind in line]
    with Probe(server, known=[write(base / "known", *lines)]):
        pass


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_pinned_key_of_any_type(sshd, base, kind):
    server = sshd(host_keys=("ecdsa", "ed25519"))
    with Probe(server, known=[base / "none"], hostkey=server.fingerprint(kind)) as p:
        assert p.run("true")[0] == "code 0 0 0"


def test_wrong_pin_is_refused_whatever_is_known(server, base):
    pin = fingerprint(make_key(base / "other"))
    name, sentence = refused(server, hostkey=pin)
    assert name == "EPERM" and pin in sentence and server.fingerprint() in sentence
    assert refused(server, hostkey="SHA256:short")[0] == "EINVAL"
    assert refused(server, hostkey="MD5:00:11")[0] == "EINVAL"


def test_server_with_an_rsa_key_only(sshd):
    server = sshd(host_keys=("rsa",))
    if LIBSSH2_HAS_RSA_SHA2:
        pytest.skip("this libssh2 has rsa-sha2")
    name, sentence = refused(server)
    assert name == "EPROTO" and "RSA" in sentence and "1.11" in sentence


# -- logging in

@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_keys_in_order(server, base, kind, monkeypatch):
    if kind == "ecdsa":  # libssh2 1.10 forgets two numbers of each that it reads, in libcrypto
        monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    good = base / "good"
    server.authorize(make_key(good, kind))
    (base / "good.pub").unlink()
    make_key(base / "bad")
    with Probe(server, key=[base / "missing", base / "bad", good]):
        pass


def test_refused_login_says_what_was_tried(server, base):
    make_key(base / "bad")
    make_key(base / "locked", passphrase="secret")
    write(base / "junk", "no key")
    name, sentence = refused(server, key=[base / "bad", base / "locked", base / "junk"])
    assert name == "EACCES"
    assert re.search(r"bad \(refused\)", sentence) and "takes publickey" in sentence
    assert re.search(r"locked \(encrypted", sentence) and "no private key" in sentence


def test_pem_and_encrypted_pem_keys(server, base):
    for name, passphrase in (("plain", ""), ("locked", "secret")):
        server.authorize(make_key(base / name, "ecdsa", passphrase))
        run(["ssh-keygen", "-q", "-p", "-m", "PEM", "-P", passphrase, "-N", passphrase, "-f",
             base / name])
    with Probe(server, key=[base / "plain"]):
        pass
    name, sentence = refused(server, key=[base / "locked"])
    assert name == "EACCES" and "encrypted" in sentence


def test_rsa_keys_name_what_they_need(server, base):
    server.authorize(make_key(base / "rsa", "rsa"))
    if LIBSSH2_HAS_RSA_SHA2:
        pytest.skip("this libssh2 has rsa-sha2")
    name, sentence = refused(server, key=[base / "rsa"])
    assert name == "EACCES" and "RSA keys need libssh2 1.11" in sentence
    with Probe(server, key=[base / "rsa", server.key]):
        pass


def test_agent(server, base, agent):
    path, add, _ = agent
    locked = base / "locked"
    server.authorize(make_key(locked))
    name, sentence = refused(server, key=[base / "none"], agent=path)
    assert name == "EACCES" and "has no keys" in sentence
    add(locked)
    with Probe(server, key=[base / "none"], agent=path) as p:
        assert p.run("true")[0] == "code 0 0 0"
    name, sentence = refused(server, key=[base / "none"], agent=base / "nothing")
    assert name == "EACCES" and "cannot be reached" in sentence


def test_frozen_agent_ends_by_the_deadline(server, base, agent):
    path, _, process = agent
    process.send_signal(signal.SIGSTOP)
    probe = Probe(server, key=[base / "none"], agent=path, limit=1000)
    assert probe.hello.startswith("ETIMEDOUT") and probe.took < 20
    probe.done()


def test_password(sshd, account):
    server = sshd(user=account, config=["PasswordAuthentication yes", "PubkeyAuthentication no"])
    with Probe(server, password="correct horse") as p:
        assert p.run("id -un")[1] == account + "|"
    name, sentence = refused(server, password="wrong horse")
    assert name == "EACCES" and "password (refused)" in sentence and "horse" not in sentence


def test_keyboard_interactive(sshd, account):
    server = sshd(user=account, config=["UsePAM yes", "KbdInteractiveAuthentication yes",
                                        "PubkeyAuthentication no"])
    with Probe(server, password="correct horse") as p:
        assert p.run("id -un")[1] == account + "|"
    name, sentence = refused(server, password="wrong horse")
    assert name == "EACCES" and "keyboard-interactive (refused)" in sentence


def test_key_and_password_together(sshd, account):
    server = sshd(user=account, config=["PasswordAuthentication yes",
                                        "AuthenticationMethods publickey,password"])
    assert refused(server)[0] == "EACCES"
    with Probe(server, password="correct horse") as p:
        assert p.run("id -un")[1] == account + "|"


def test_too_many_keys_say_so(server, base):
    keys = []
    for i in range(8):
        make_key(base / ("k%d" % i))
        keys.append(base / ("k%d" % i))
    name, sentence = refused(server, key=keys)
    assert name == "EACCES" and "Too many authentication failures" in sentence


# -- the way there

def test_no_such_host_and_no_such_port(server):
    name, sentence = refused(server, port=1)
    assert name == "EHOSTUNREACH" and "refused" in sentence
    server.host = "no-such-host.invalid"
    assert refused(server)[0] == "EHOSTUNREACH"


def test_a_program_as_the_way(server, base):
    proxy = ["/usr/bin/ssh", *server.ssh_options(), "-W", "127.0.0.1:%d" % server.port,
             "%s@127.0.0.1" % server.user]
    with Probe(server, proxy=proxy) as p:
        assert p.run("head -c 20000000 /dev/zero")[0] == "code 0 20000000 0"
        assert p.done() < AT_ONCE
    name, sentence = refused(server, proxy=["/bin/sh", "-c", "echo no way >&2; exit 1"])
    assert name == "EHOSTUNREACH" and "no way" in sentence
    assert refused(server, proxy=["/nonexistent"])[0] == "ENOENT"


# -- servers that die, freeze, or are cut off

@pytest.mark.parametrize("fault", ["kill", "cut"])
def test_a_dead_connection_ends_at_once(server, fault):
    with server.delay(0) as way, Probe(server, port=way.port) as p:
        busy, idle = p.open("cat /dev/zero"), p.open("cat")
        p.ok("reach %d %d %d" % (busy, MIB, LONG))
        server.kill_connections() if fault == "kill" else way.cut()
        for number in (busy, idle):
            assert p.ok("end %d %d" % (number, LONG)).startswith("error EHOSTUNREACH")
        assert p.do("open exec true").startswith("EHOSTUNREACH ")
        assert p.do("text %d x" % idle).startswith("EPIPE")
        assert p.do("error").startswith("EHOSTUNREACH ")
        assert p.done() < AT_ONCE


@pytest.mark.parametrize("fault", ["freeze", "hole"])
@pytest.mark.parametrize("what", ["sending", "opening", "bulk"])
def test_silence_ends_the_connection(server, fault, what):
    with server.delay(10) as way, Probe(server, port=way.port) as p:
        known = time.monotonic()  # whatever is heard last is heard after this
        number = p.open("cat /dev/zero" if what == "bulk" else "cat")
        if what == "bulk":
            p.ok("reach %d %d %d" % (number, MIB, LONG))
        time.sleep(0.2)
        server.freeze() if fault == "freeze" else way.hole()
        start = time.monotonic()
        if what == "sending":
            p.ok("text %d x" % number)
        elif what == "opening":
            p.ok("limit 1000")
            assert p.do("open exec true").startswith("ETIMEDOUT ")
            assert time.monotonic() - start < 8, "the connection's silence ended it, not its own limit"
        if what == "bulk":  # nothing is owed: a keep-alive has to find out
            p.ok("text %d x" % number)
        # A client that stood still itself begins to count anew.
        assert p.ok("end %d %d" % (number, LONG)).startswith("error ETIMEDOUT")
        assert time.monotonic() - known > 9
        assert p.do("open exec true").startswith("EHOSTUNREACH ")
        assert p.done() < AT_ONCE


def test_a_short_silence_is_borne(server):
    with Probe(server) as p:
        number = p.open("cat")
        server.freeze()
        p.ok("text %d hello" % number)
        time.sleep(5)  # the keep-alive is sent after 3 s; after 10 s the connection would be given up
        server.thaw()
        p.ok("reach %d 6 %d" % (number, LONG))
        assert p.ok("error") == ""


def test_the_servers_own_keep_alives_are_answered(sshd):
    server = sshd(config=["ClientAliveInterval 1", "ClientAliveCountMax 6"])
    with Probe(server) as p:
        number = p.open("cat")
        time.sleep(12)  # a client that answers none is given up after 7 s
        p.ok("text %d hello" % number)
        p.ok("reach %d 6 %d" % (number, LONG))


def thread_states(pid):
    states = set()
    for thread in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/stat" % (pid, thread)) as file:
            states.add(file.read().rpartition(")")[2].split()[0])
    return states


def test_a_client_that_was_stopped_lives_on(server):
    with Probe(server) as p:
        number = p.open("cat")
        p.ok("text %d hello" % number)
        p.ok("reach %d 6 %d" % (number, LONG))
        wait_for(lambda: thread_states(p.process.pid) == {"S"}, 10, 0.02, "it to wait for its server")
        p.process.send_signal(signal.SIGSTOP)
        time.sleep(13)
        p.process.send_signal(signal.SIGCONT)
        assert p.run("echo here")[1] == "here|"
        assert p.ok("error") == ""


def test_connecting_ends_by_its_deadline(server):
    server.freeze()
    probe = Probe(server, limit=1000)
    assert probe.hello.startswith("ETIMEDOUT ") and probe.took < 20
    probe.done()
    probe = Probe(server, limit=30000, cancel=500)
    assert probe.hello.startswith("EINTR ") and probe.took < 20
    probe.done()


def test_opening_is_cancelled(server):
    with Probe(server) as p:
        number = p.open("cat")
        server.freeze()
        p.ok("cancel 300")
        start = time.monotonic()
        assert p.do("open exec true").startswith("EINTR ")
        assert time.monotonic() - start < 8, "it was not the order that ended it"
        server.thaw()
        p.ok("text %d hello" % number)
        p.ok("reach %d 6 %d" % (number, LONG))
        assert p.run("true")[0] == "code 0 0 0"


def test_leaving_a_frozen_server_does_not_hang(server):
    with Probe(server) as p:
        number = p.open("cat /dev/zero")
        server.freeze()
        assert int(p.ok("close %d" % number)) < AT_ONCE * 1e9
        assert p.done() < AT_ONCE


def test_marks_of_sessions(server):
    """What the tests rely on: a session's processes are found."""
    with Probe(server) as p:
        assert p.run("echo $%s" % MARK)[1] == "%s|" % server.base
