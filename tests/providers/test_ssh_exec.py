# SPDX-License-Identifier: Apache-2.0
"""Commands of ssh sandboxes on a real sshd; dash, bash and busybox are the account's shell, and sh."""

import hashlib
import os
import time

import pytest

import test_conform as conform
from driver import Refused
from files_support import until_it_answers
from support.sshd import SFTP_SERVER, Sshd
from support.tools import lives, run, wait_for
from test_conform import (  # noqa: F401 collected here, with the fixtures below
    test_argv_goes_verbatim, test_binary_output, test_death_by_signal,
    test_exit_codes, test_large_output_arrives_whole, test_many_commands_at_once, test_much_stdin,
    test_one_end_and_nothing_after_it, test_output_comes_while_it_runs, test_output_waits_while_nobody_is_there,
    test_release_lets_the_command_run_on, test_running_command_is_attached_again_after_kill,
    test_signal_can_be_caught, test_stdin, test_stdin_goes_on_after_a_restart, test_stdin_is_empty_unless_asked_for,
    test_stdin_nobody_reads_blocks_nobody, test_stdin_window_holds_the_writer_back,
    test_streams_are_apart_and_in_order, test_timeout, test_too_long_an_argument_is_refused)
from test_ssh_life import only, section

ended = conform.ended


def applets(directory):
    """A directory of busybox's applets, sh among them."""
    directory.mkdir()
    for name in run(["/bin/busybox", "--list"]).out.split():
        (directory / name).symlink_to("/bin/busybox")
    directory.chmod(0o755)
    return directory


def forced(base, shell):
    """Lines of sshd_config that make `shell` the account's, and `sh` there."""
    path = base / "bin"
    if shell == "busybox":
        applets(path)
        program = "/bin/busybox sh"
    else:
        path.mkdir()
        (path / "sh").symlink_to("/bin/" + shell)
        program = "/bin/" + shell
    return ['ForceCommand PATH=%s:/usr/bin:/bin; export PATH; exec %s -c "$SSH_ORIGINAL_COMMAND"' % (path, program)]


@pytest.fixture(params=["dash", "busybox", "bash"])
def shell(request):
    return request.param


@pytest.fixture
def host(base, shell):
    with Sshd(base / "sshd", config=forced(base, shell), sftp=SFTP_SERVER) as server:
        yield server


@pytest.fixture
def d(host, drive):
    return drive(kind="ssh", pairs=section(host))


@pytest.fixture
def box(d):
    d.create("k1", name="web")
    return "k1"


@pytest.fixture
def far(host):
    with host.delay(0) as proxy:
        yield proxy


@pytest.fixture
def distant(host, far, drive):
    """A driver whose connection goes through `far`."""
    d = drive(kind="ssh", pairs=section(host, port=far.port))
    d.create("k1", name="web")
    return d


def numbers_left(host):
    return sorted(os.listdir(only(host) / "run"))


# -- the start

def test_environment_is_the_sandboxs_and_the_execs(d):
    d.create("k2", env={"FROM_CREATE": "a b", "BOTH": "create"})
    env = {"BOTH": "exec", "FROM_EXEC": "x'=\n$y"}
    assert d.check("k2", 'echo "$FROM_CREATE,$BOTH,$FROM_EXEC"; env | grep -c sbxfs_; true', env=env) == \
        "a b,exec,x'=\n$y\n0\n"
    with pytest.raises(Refused) as refused:
        d.exec("k2", "true", env={"not-a-name": "x"})
    assert refused.value.errno == "EINVAL"


def test_environment_values_are_in_no_argv(d, box):
    secret = "s3cr3t-%d" % os.getpid()
    number = d.exec(box, "echo runs; exec sleep 1000", env={"OTHER": secret + "x"})
    d.wait(box, number, bytes=5)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                assert secret.encode() not in file.read()
        except OSError:
            pass
    d.do("signal", box=box, number=number, signal=9)
    d.wait(box, number)


def test_working_directory(host, d, box):
    work = str(only(host) / "work")
    d.check(box, "mkdir -p \"sub/a 'b\"")
    assert d.check(box, "pwd", cwd="sub/a 'b") == work + "/sub/a 'b\n"
    assert d.check(box, "pwd", cwd="/tmp") == "/tmp\n"
    d.check(box, "echo > file")
    for cwd, code in (("nowhere", "ENOENT"), ("file", "ENOTDIR")):
        with pytest.raises(Refused) as refused:
            d.exec(box, "pwd", cwd=cwd)
        assert refused.value.errno == code and cwd in refused.value.sentence


def test_command_that_is_not_there(d, box):
    for argv, code in ((["no-such-program"], "ENOENT"), (["/etc"], "EACCES"), (["/none/x"], "ENOENT")):
        with pytest.raises(Refused) as refused:
            d.exec(box, argv)
        assert refused.value.errno == code and argv[0] in refused.value.sentence
    assert ended(d.run(box, "no-such-program")) == ("code", 127)


def test_other_users_are_refused(host, d, box):
    with pytest.raises(Refused) as refused:
        d.exec(box, "id", user="somebody")
    assert refused.value.errno == "EOPNOTSUPP" and "user=" in refused.value.sentence
    assert ended(d.run(box, "true", user=host.user)) == ("code", 0)


@pytest.mark.parametrize("shell", ["dash"], indirect=True)
def test_user_that_no_section_names(host, drive):
    """Our own name, as the ssh program has it."""
    d = drive(kind="ssh", pairs=section(host, user=None))
    d.create("k1", name="web")
    assert ended(d.run("k1", "true", user=host.user)) == ("code", 0)
    with pytest.raises(Refused) as refused:
        d.exec("k1", "id", user="somebody")
    assert refused.value.errno == "EOPNOTSUPP"
    d.destroy("k1")


def test_codes_that_look_like_signals(d, box):
    for code in (129, 130, 137, 141, 143):
        assert ended(d.run(box, "exit %d" % code)) == ("code", code)


# -- output

def test_output_that_imitates_frames_is_output(d, box):
    text = "\\n0123456789abcdef0123456789abcdef end 7 - - -\\n" * 100 + "\\n\\n"
    result = d.run(box, "printf '%s'; printf '%s' >&2; exit 3" % (text, text))
    assert ended(result) == ("code", 3)
    assert result.out == result.err == text.replace("\\n", "\n").encode()


def test_streams_at_the_edge_of_what_a_report_holds(d, box):
    for out, err in ((65535, 0), (65536, 65536), (65537, 1), (1, 200000)):
        result = d.run(box, "head -c %d /dev/zero; head -c %d /dev/zero >&2" % (out, err))
        assert len(result.out) == out and len(result.err) == err and ended(result) == ("code", 0)


def test_200_mib_of_output(d, box):
    number = d.exec(box, "head -c 209715200 /dev/zero; echo last")
    result = d.wait(box, number, timeout=200)
    assert ended(result) == ("code", 0) and result.out.endswith(b"\0last\n")
    assert result.answer["gap0"] > 0 and len(result.out) + result.answer["gap0"] == 209715205
    assert len(result.out) == (64 << 20) + (1 << 20)


# -- signals

def test_signal_reaches_the_whole_group(d, box):
    number = d.exec(box, "sleep 1000 & (sleep 1000 & wait) & echo up; wait")
    d.wait(box, number, bytes=3)
    d.do("signal", box=box, number=number, signal=15)
    assert ended(d.wait(box, number)) == ("signal", 15)


def test_signal_right_after_the_start(d, box, base):
    """It is told that it runs before setsid has made its group."""
    slow = base / "bin" / "setsid"
    slow.unlink(missing_ok=True)
    slow.write_text('#!/bin/dash\n/bin/sleep 0.1\nexec /usr/bin/setsid "$@"\n')
    slow.chmod(0o755)
    number = d.exec(box, "exec sleep 1000")
    d.do("signal", box=box, number=number, signal=2)
    assert ended(d.wait(box, number)) == ("signal", 2)


@pytest.mark.parametrize("signal", [2, 13])
def test_signals_that_shells_are_silent_about(d, box, signal):
    number = d.exec(box, "echo up; exec sleep 1000")
    d.wait(box, number, bytes=3)
    d.do("signal", box=box, number=number, signal=signal)
    assert ended(d.wait(box, number)) == ("signal", signal)


def test_group_is_reached_after_its_leader_has_gone(d, box):
    number = d.exec(box, "sleep 1000 >/dev/null 2>&1 & echo $! > pid; exec sleep 1000")
    wait_for(lambda: d.run(box, "kill -0 $(cat pid)").value == 0)
    d.do("signal", box=box, number=number, signal=15)
    assert d.wait(box, number).kind == "signal"
    wait_for(lambda: d.run(box, "kill -0 $(cat pid)").value != 0)


def test_timeout_kills_what_ignores_term(d, box):
    start = time.monotonic()
    result = d.run(box, "trap '' TERM; (trap '' TERM; sleep 1000; sleep 1000) & echo $! > pid; "
                   "while :; do sleep 0.1; done", timeout_ms=300)
    assert result.kind == "timeout"
    assert 5 < time.monotonic() - start < 25
    wait_for(lambda: d.run(box, "kill -0 $(cat pid)").value != 0)


def test_timeout_holds_without_us(host, d, box):
    number = d.exec(box, "echo $$ > pid; exec sleep 1000", timeout_ms=1500)
    pid = int(wait_for(lambda: (only(host) / "work/pid").read_text() if (only(host) / "work/pid").exists()
                       else ""))
    d.kill()
    wait_for(lambda: not os.path.exists("/proc/%d" % pid))
    d.start()
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    assert d.wait(box, number).kind == "timeout"


# -- restarts, lost connections

def test_end_is_kept_until_it_was_seen(d, box):
    number = d.exec(box, "read x; echo got $x; sleep 0.3; exit 3", stdin=True)
    d.do("write", box=box, number=number, text="this\n")
    d.wait(box, number, bytes=9)
    for _ in range(2):
        d.kill()
        d.start()
        d.attach(box)
        d.do("exec_attach", box=box, number=number)
        result = d.wait(box, number)
        assert ended(result) == ("code", 3) and result.out == b"got this\n"
    d.do("exec_release", box=box, number=number)
    wait_for(lambda: attached(d, box, number) == "ENOENT")


def attached(d, box, number):
    try:
        d.do("exec_attach", box=box, number=number)
        d.do("exec_release", box=box, number=number)
    except Refused as refused:
        return refused.errno
    return None


def test_cut_connection_changes_nothing(distant, far):
    number = distant.exec("k1", "i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 9")
    distant.wait("k1", number, bytes=500)
    for _ in range(2):
        far.cut()
        time.sleep(0.5)
    result = distant.wait("k1", number, timeout=120)
    assert ended(result) == ("code", 9) and result.answer["gap0"] == 0
    assert result.out == b"".join(b"line %d\n" % n for n in range(600))
    # Where all was there before the last cut, nobody has needed a connection since.
    assert until_it_answers(lambda: distant.check("k1", "echo on"), 60) == "on\n"


def test_cut_connection_with_stdin(distant, far):
    number = distant.exec("k1", "md5sum", stdin=True)
    write = distant.ask("write", box="k1", number=number, count=10 << 20, last=True, call_ms=120000)
    time.sleep(0.2)
    far.cut()
    distant.get(write, timeout=150)
    result = distant.wait("k1", number, timeout=120)
    assert result.out.split()[0].decode() == hashlib.md5(b"x" * (10 << 20)).hexdigest()


def test_sshd_killed_and_started_again(host, d, box):
    number = d.exec(box, "sleep 2; echo survived; exit 4")
    host.kill_connections()
    host.process.kill()
    host.process.wait(timeout=30)
    time.sleep(0.5)
    host.start()
    result = d.wait(box, number, timeout=120)
    assert ended(result) == ("code", 4) and result.out == b"survived\n"


def reach(d, number):
    """Attach to a command of k1 once there is a connection: one that was cut may be asked before that is known."""
    end = time.monotonic() + 60
    while True:
        try:
            return d.do("exec_attach", box="k1", number=number)
        except Refused as refused:
            if refused.errno not in ("EHOSTUNREACH", "ETIMEDOUT") or time.monotonic() > end:
                raise
        time.sleep(0.1)


def test_nothing_is_started_twice(distant, far):
    distant.check("k1", "true")
    far.hole()
    with pytest.raises(Refused) as refused:
        distant.exec("k1", "echo ran >> log", call_ms=500)
    assert refused.value.errno == "ETIMEDOUT"
    number = distant.numbers["k1"]
    far.cut()
    far.thaw()
    try:
        reach(distant, number)
        assert ended(distant.wait("k1", number)) == ("code", 0)
        assert distant.check("k1", "cat log") == "ran\n"
    except Refused as missing:
        assert missing.errno == "ENOENT"
        time.sleep(1)
        assert distant.run("k1", "cat log").value != 0  # and it won't


@pytest.mark.parametrize("shell", ["dash"], indirect=True)
def test_whoever_adopts_a_sandbox_counts_for_itself(host, d, box, drive):
    theirs = d.exec(box, "echo theirs; sleep 100")
    other = drive(kind="ssh", pairs=section(host), owner="owner1")
    other.attach(box, box_id=d.ids[box], with_spec=True)
    ours = other.exec(box, "echo ours; sleep 2; exit 3")
    assert ours == theirs
    other.kill()
    other.start()
    other.attach(box, box_id=d.ids[box], with_spec=True)
    other.do("exec_attach", box=box, number=ours)
    result = other.wait(box, ours)
    assert (ended(result), result.out) == (("code", 3), b"ours\n")
    other.do("exec_release", box=box, number=ours)
    wait_for(lambda: not [name for name in numbers_left(host) if "owner1" in name], what="the end of its files")
    d.wait(box, theirs, bytes=7)
    assert d.output(box, theirs, 0) == b"theirs\n"


# -- leavings, limits

def test_ended_ones_leave_no_files(host, d, box):
    for _ in range(5):
        d.check(box, "echo out")
    d.run(box, "no-such-program")
    with pytest.raises(Refused):
        d.exec(box, ["no-such-program"])
    wait_for(lambda: numbers_left(host) == [], what=lambda: "an empty run directory, not %s" % numbers_left(host))


def test_background_process_is_seen_by_the_next_and_ends_with_the_sandbox(d, box):
    d.check(box, "sleep 1000 >/dev/null 2>&1 & echo $! > pid")
    pid = int(d.check(box, "cat pid; kill -0 $(cat pid)"))
    d.do("stop", box=box)
    wait_for(lambda: not lives(pid))


@pytest.fixture
def only_sftp(base):
    with Sshd(base / "one", config=["ForceCommand internal-sftp"]) as server:
        yield server


@pytest.fixture
def few(base, shell):
    with Sshd(base / "few", config=forced(base, shell), sftp=SFTP_SERVER, max_sessions=4) as server:
        yield server


@pytest.mark.parametrize("shell", ["dash"], indirect=True)
def test_account_without_commands(only_sftp, drive, shell):
    d = drive(kind="ssh", pairs=section(only_sftp))
    d.create("k1", name="web")
    with pytest.raises(Refused) as refused:
        d.exec("k1", "true")
    assert refused.value.errno == "EOPNOTSUPP" and "commands" in refused.value.sentence


@pytest.mark.parametrize("shell", ["dash"], indirect=True)
def test_few_sessions_a_connection_carry_32_commands(few, drive, shell):
    d = drive(kind="ssh", pairs=section(few))
    d.create("k1", name="web")
    conform.test_many_commands_at_once(d, "k1")
