# SPDX-License-Identifier: Apache-2.0
"""What every provider must do, tried on `local` through provider.h."""

import contextlib
import os
import random
import signal
import time

import pytest

from driver import Refused
from support.tools import wait_for


# A process that stays, seen to run before the command goes on.
BACKGROUND = "sleep 1000 >/dev/null 2>&1 & until grep -q sleep /proc/$!/comm; do sleep 0.01; done; "


def ended(result):
    return result.kind, result.value


# -- life

def test_created_sandbox_runs(d, box):
    assert d.state(box) == "running"
    assert d.do("list")["boxes"] == {box: "running"}
    assert d.check(box, "pwd; hostname; whoami") == "/workspace\nweb\nsandbox\n"


def test_root_is_the_working_directory(d, box):
    root = d.do("root", box=box)
    assert root["path"] == str(d.workspace(box)) and root["inside"] == "/workspace"
    d.check(box, "echo from inside > file")
    with open(root["path"] + "/file") as file:
        assert file.read() == "from inside\n"
    info = os.stat(root["path"] + "/file")
    assert info.st_uid == root["uid"]


def test_same_key_twice_is_refused(d, box):
    with pytest.raises(Refused) as refused:
        d.do("create", box=box)
    assert refused.value.errno == "EEXIST"
    assert d.check(box, "echo still there") == "still there\n"


def test_stop_ends_everything_and_keeps_files(d, box):
    d.check(box, "echo kept > file; sleep 1000 </dev/null >/dev/null 2>&1 &")
    d.do("stop", box=box)
    assert d.state(box) == "stopped"
    assert d.holders(box) == []
    assert d.do("list")["boxes"] == {box: "stopped"}
    with pytest.raises(Refused) as refused:
        d.exec(box, "true")
    assert refused.value.errno == "EHOSTDOWN" and "stopped" in refused.value.sentence
    d.do("start", box=box)
    assert d.check(box, "cat file; ps -e -o comm= 2>/dev/null | grep -c sleep; true").split()[0] == "kept"
    assert "sleep" not in d.check(box, "cat /proc/[0-9]*/comm 2>/dev/null; true")


def test_stop_and_start_twice_are_success(d, box):
    d.do("start", box=box)
    d.do("stop", box=box)
    d.do("stop", box=box)
    d.do("start", box=box)
    d.do("start", box=box)
    assert d.state(box) == "running"


def test_stop_lets_processes_end_gently(d, box):
    number = d.exec(box, "trap 'echo bye > said; exit 7' TERM; echo on; while :; do sleep 0.05; done")
    d.wait(box, number, bytes=3)
    start = time.monotonic()
    d.do("stop", box=box)
    assert time.monotonic() - start < 4.9  # not the whole grace of 5 s
    assert ended(d.wait(box, number)) == ("code", 7)
    assert (d.workspace(box) / "said").read_text() == "bye\n" if os.geteuid() == 0 else True


def test_stop_kills_what_ignores_it(d, box):
    number = d.exec(box, "trap '' TERM; echo on; while :; do sleep 1; done")
    d.wait(box, number, bytes=3)
    start = time.monotonic()
    d.do("stop", box=box)
    assert 4 < time.monotonic() - start < 20
    assert ended(d.wait(box, number)) == ("signal", 9)
    assert d.holders(box) == []


def test_destroy_leaves_nothing(d, box):
    number = d.exec(box, "trap '' TERM; setsid sleep 1000 & sleep 1000")
    d.check(box, "mkdir -p a/b; touch a/b/c; chmod 0 a/b/c; chmod 0 a/b; chmod 0 a")
    start = time.monotonic()
    d.destroy(box)
    assert time.monotonic() - start < 4.9  # nobody is given the grace of 5 s
    assert d.wait(box, number).kind == "lost"
    assert d.holders(box) == [] and not d.state_path(box).exists()
    d.do("destroy", box=box)  # what is gone already: success
    assert d.state(box) == "gone"
    with pytest.raises(Refused) as refused:
        d.exec(box, "true")
    assert refused.value.errno == "ENODEV"


def test_destroy_of_a_stopped_one(d, box):
    d.do("stop", box=box)
    d.destroy(box)
    assert not d.state_path(box).exists()


def test_pause_really_stops_processes(d, box):
    d.exec(box, "while :; do echo x >> beat; sleep 0.01; done")
    wait_for((d.workspace(box) / "beat").exists)
    d.do("pause", box=box)
    assert d.state(box) == "paused"
    d.do("pause", box=box)
    # A signal finds a process that writes just then; it stands still when that is done. "D": its parent, where
    # vfork() has it wait for a child that was stopped before its execve().
    holder = d.holders(box)[0]

    def stands_still():
        size = os.stat(d.workspace(box) / "beat").st_size
        time.sleep(0.3)
        return states_below(holder) <= {"T", "D"} and os.stat(d.workspace(box) / "beat").st_size == size
    wait_for(stands_still, what=lambda: "all to be stopped: %s" % states_below(holder))
    size = os.stat(d.workspace(box) / "beat").st_size
    time.sleep(0.3)
    assert os.stat(d.workspace(box) / "beat").st_size == size
    with pytest.raises(Refused) as refused:
        d.exec(box, "true")
    assert refused.value.errno == "EHOSTDOWN" and "paused" in refused.value.sentence
    d.do("resume", box=box)
    d.do("resume", box=box)
    wait_for(lambda: os.stat(d.workspace(box) / "beat").st_size > size)
    assert d.check(box, "echo awake") == "awake\n"


def test_paused_time_is_not_counted_by_a_timeout(d, box):
    number = d.exec(box, "sleep 1.2; echo done", timeout_ms=6000)
    d.do("pause", box=box)
    time.sleep(7)
    d.do("resume", box=box)
    result = d.wait(box, number)
    assert ended(result) == ("code", 0) and result.out == b"done\n"


def test_paused_one_can_be_stopped_and_destroyed(d, box):
    number = d.exec(box, "sleep 1000")
    d.do("pause", box=box)
    d.do("stop", box=box)
    assert ended(d.wait(box, number)) == ("signal", 15)
    d.do("start", box=box)
    d.exec(box, "sleep 1000")
    d.do("pause", box=box)
    d.destroy(box)


def test_death_of_the_holder_is_seen(d, box):
    number = d.exec(box, "echo before; sleep 1000")
    d.wait(box, number, bytes=7)
    os.kill(d.holders(box)[0], 9)
    result = d.wait(box, number)
    assert result.kind == "lost" and result.out == b"before\n"
    assert result.answer["end_sentence"] == "the sandbox has ended by itself"
    state = d.do("state", box=box)
    assert state["state"] == "stopped" and state["why"] == "the sandbox has ended by itself"
    wait_for(lambda: d.do("state", box=box)["changes"] == 1)
    d.do("start", box=box)
    assert d.check(box, "echo again") == "again\n"


def test_start_right_after_the_death_of_the_holder(d, box):
    for n in range(10):
        os.kill(d.holders(box)[0], 9)
        wait_for(lambda: d.state(box) == "stopped", every=0)
        d.do("start", box=box)
        assert d.check(box, "echo %d" % n) == "%d\n" % n


def command_lines():
    """(pid, argv) of every process that can be seen."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as file:
                found.append((int(pid), file.read().split("\0")[:-1] or [""]))
        except (OSError, UnicodeDecodeError):
            pass
    return found


def children(pid):
    """{pid: state} of the processes whose parent is `pid`, zombies left out."""
    found = {}
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % each) as file:
                state, parent = file.read().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found[int(each)] = state
    return found


def states_below(pid):
    """The states of all that descends from a process."""
    found = children(pid)
    return set(found.values()).union(*map(states_below, found))


def test_death_during_creation_is_seen_at_once(d):
    """bwrap, or what it makes, is killed at some moment of a creation: nobody waits for its deadline."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    choose = random.Random(seed)
    for n in range(60):
        box, depth = "k%d" % n, choose.choice((1, 2))
        asked = d.ask("create", box=box)
        victims, end = [], time.monotonic() + 2
        while asked.empty() and not victims and time.monotonic() < end:
            victims = [d.process.pid]
            for _ in range(depth):
                victims = [child for each in victims for child in children(each)]
        time.sleep(choose.random() * 0.004)
        for victim in victims:
            try:
                os.kill(victim, 9)
            except ProcessLookupError:
                pass
        start = time.monotonic()
        try:
            d.get(asked)
        except Refused as refused:
            assert refused.errno == "EIO" and "ended before it was ready" in refused.sentence
            assert not d.state_path(box).exists()
            wait_for(lambda: d.holders(box) == [], 5)  # before a lonely one ends by itself
        else:
            d.made.add(box)
            d.destroy(box)
        assert time.monotonic() - start < 20, "%s, depth %d" % (box, depth)  # not until its deadline


def test_death_of_the_program_during_creation_leaves_nothing(d):
    boxes = ["k%d" % n for n in range(40)]
    d.made.update(boxes)
    for n, box in enumerate(boxes):
        d.ask("create", box=box)
        time.sleep(0.0002 * n)
        d.kill()
        d.start()
    for box in d.do("list")["boxes"]:
        d.attach(box)
        d.destroy(box)
    # A holder that was not written down yet ends by itself when nobody has come for 20 s.
    wait_for(lambda: not [pid for pid, argv in command_lines() if d.mark in argv[-1]], 60, every=0.2)


@pytest.mark.parametrize("script,words", [
    ("echo bwrap: no such luck >&2; exit 1", "bwrap: no such luck"),
    ("kill -9 $$", "ended before it was ready (bwrap: signal 9)"),
    ("sleep 1000.{mark} & echo \"{{ \\\"child-pid\\\": $! }}\" >&6; kill -9 $$",
     "ended before it was ready (bwrap: signal 9)"),
    ("exec 2>/dev/null; sh -c 'kill -9 $$' & echo \"{{ \\\"child-pid\\\": $! }}\" >&6; wait $!; exit 137",
     "ended before it was ready"),
])
def test_bwrap_that_fails(drive, base, script, words):
    tools = base / "tools"
    tools.mkdir(mode=0o755)
    d = drive(env={"PATH": "%s:%s" % (tools, os.environ["PATH"])})
    (tools / "bwrap").write_text("#!/bin/sh\n" + script.format(mark=d.mark[1:]))
    (tools / "bwrap").chmod(0o755)
    start = time.monotonic()
    with pytest.raises(Refused) as refused:
        d.create("k1")
    assert refused.value.errno == "EIO" and words in refused.value.sentence
    assert time.monotonic() - start < 20 and not d.state_path("k1").exists()
    wait_for(lambda: not [argv for _, argv in command_lines() if d.mark[1:] in argv[-1]], 5)


def test_many_sandboxes_at_once(d):
    for lap in range(3):
        boxes = ["k%dx%d" % (lap, n) for n in range(40)]
        d.made.update(boxes)
        for each in [d.ask("create", box=box, call_ms=100000) for box in boxes]:
            d.get(each, 120)
        for box in boxes:
            assert d.check(box, "echo %s > mine; cat mine" % box) == "%s\n" % box
        for each in [d.ask("destroy", box=box, call_ms=100000) for box in boxes]:
            d.get(each, 120)
        d.made.difference_update(boxes)
        assert d.do("list")["boxes"] == {}


# -- commands

@pytest.mark.parametrize("code", [0, 1, 2, 127, 255])
def test_exit_codes(d, box, code):
    assert ended(d.run(box, "exit %d" % code)) == ("code", code)


@pytest.mark.parametrize("number", [1, 9, 15, 11])
def test_death_by_signal(d, box, number):
    assert ended(d.run(box, "kill -%d $$" % number)) == ("signal", number)


def test_argv_goes_verbatim(d, box):
    words = ["printf", "[%s]", "a b", "", "$HOME", "'\"\\", "-n", "ünï", "\n", "*"]
    result = d.run(box, words)
    assert result.out == "".join("[%s]" % word for word in words[2:]).encode()


def wait_output(d, box, number, line):
    """Wait until a line is the latest that has come."""
    wait_for(lambda: d.output(box, number, "both").endswith(line.encode() + b"\n"), 20,
             what=lambda: "%s to be the last of %r" % (line, d.output(box, number, "both")))


def test_streams_are_apart_and_in_order(d, box):
    # The order between the two holds for a holder that gets to read in between: each line waits for the last.
    number = d.exec(box, "for i in 1 2 3; do echo out$i; until [ -e out$i ]; do sleep 0.02; done; "
                    "echo err$i >&2; until [ -e err$i ]; do sleep 0.02; done; done")
    for name in ("out1", "err1", "out2", "err2", "out3", "err3"):
        wait_output(d, box, number, name)
        d.check(box, "touch " + name)
    result = d.wait(box, number)
    assert ended(result) == ("code", 0)
    assert result.out == b"out1\nout2\nout3\n" and result.err == b"err1\nerr2\nerr3\n"
    assert result.both == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"


def test_binary_output(d, box):
    result = d.run(box, r"i=0; while [ $i -lt 256 ]; do printf \\$(printf %o $i); i=$((i+1)); done")
    assert result.out == bytes(range(256))


def test_large_output_arrives_whole(d, box):
    result = d.run(box, "head -c 10485760 /dev/urandom | tee copy; echo end >&2", timeout=120)
    assert ended(result) == ("code", 0)
    assert len(result.out) == 10 << 20 and result.err == b"end\n"
    assert d.check(box, "md5sum < copy").split()[0] == __import__("hashlib").md5(result.out).hexdigest()
    assert result.answer["gap0"] == 0 and result.answer["dropped0"] == 0


def test_output_comes_while_it_runs(d, box):
    number = d.exec(box, "echo first; sleep 1000")
    start = time.monotonic()
    assert d.wait(box, number, bytes=6).out == b"first\n"
    assert time.monotonic() - start < 20
    d.do("signal", box=box, number=number, signal=9)
    assert ended(d.wait(box, number)) == ("signal", 9)


def test_environment(d, drive):
    d.create("k2", env={"FROM_CREATE": "a b", "BOTH": "create"})
    result = d.check("k2", "echo $FROM_CREATE,$BOTH,$FROM_EXEC,$HOME,$TERM", env={
        "BOTH": "exec", "FROM_EXEC": "x=y"})
    assert result == "a b,exec,x=y,/home/sandbox,dumb\n"
    d.do("stop", box="k2")
    d.do("start", box="k2")
    assert d.check("k2", "echo [$FROM_CREATE]") == "[]\n"  # values are never on disk
    d.do("stop", box="k2")
    d.do("start", box="k2", env={"FROM_CREATE": "again"})
    assert d.check("k2", "echo [$FROM_CREATE]") == "[again]\n"


def test_environment_values_are_in_no_argv_and_no_file(d):
    secret = "s3cr3t-%d" % os.getpid()
    d.create("k2", env={"TOKEN": secret})
    number = d.exec("k2", "sleep 1000", env={"OTHER": secret + "x"})
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                assert secret.encode() not in file.read()
        except OSError:
            pass
    for base, _, names in os.walk(d.state_dir):
        for name in names:
            if name != "holder.sock":
                with contextlib.suppress(FileNotFoundError), open(os.path.join(base, name), "rb") as file:
                    assert secret.encode() not in file.read()
    d.do("signal", box="k2", number=number, signal=9)


def test_working_directory(d, box):
    d.check(box, "mkdir -p sub/dir")
    assert d.check(box, "pwd", cwd="sub/dir") == "/workspace/sub/dir\n"
    assert d.check(box, "pwd", cwd="/tmp") == "/tmp\n"
    with pytest.raises(Refused) as refused:
        d.exec(box, "pwd", cwd="nowhere")
    assert refused.value.errno == "ENOENT" and "nowhere" in refused.value.sentence


def test_command_that_is_not_there(d, box):
    for argv, code in ((["no-such-program"], "ENOENT"), (["/etc"], "EACCES"), (["/none/x"], "ENOENT")):
        with pytest.raises(Refused) as refused:
            d.exec(box, argv)
        assert refused.value.errno == code and argv[0] in refused.value.sentence
    assert ended(d.run(box, "no-such-program")) == ("code", 127)
    assert d.do("state", box=box)["quiet"] == 1


def test_too_long_an_argument_is_refused(d, box):
    with pytest.raises(Refused) as refused:
        d.exec(box, "true " + "x" * 200000)
    assert refused.value.errno == "E2BIG"
    with pytest.raises(Refused) as refused:
        d.exec(box, ["true"] + ["x" * 100000] * 60)
    assert refused.value.errno == "E2BIG"
    assert d.check(box, ["sh", "-c", "echo $#"] + ["x" * 1000] * 1001) == "1000\n"


def test_other_users_are_refused(d, box):
    with pytest.raises(Refused) as refused:
        d.exec(box, "id", user="root")
    assert refused.value.errno == "EOPNOTSUPP"
    assert d.check(box, "id -un", user="sandbox") == "sandbox\n"


def test_many_commands_at_once(d, box):
    numbers = [d.exec(box, "read x; echo %d; exit %d" % (n, n), stdin=True) for n in range(32)]
    for number in reversed(numbers):
        d.do("write", box=box, number=number, text="go\n", last=True)
    for n, number in enumerate(numbers):
        result = d.wait(box, number)
        assert ended(result) == ("code", n) and result.out == b"%d\n" % n
        d.do("exec_release", box=box, number=number)


def test_one_end_and_nothing_after_it(d, box):
    number = d.exec(box, "(trap '' PIPE; until [ -e go ]; do sleep 0.05; done; echo late; touch said) & echo now")
    result = d.wait(box, number)
    assert result.out == b"now\n"
    d.check(box, "touch go; until [ -e said ]; do sleep 0.05; done")
    time.sleep(0.5)
    result = d.wait(box, number)
    assert result.answer["ends"] == 1 and result.out == b"now\n"


def test_flood_in_the_background_does_not_hold_up_the_end(d, box):
    start = time.monotonic()
    result = d.run(box, "yes & until grep -q yes /proc/$!/comm; do sleep 0.01; done; echo on; exit 4")
    assert ended(result) == ("code", 4) and time.monotonic() - start < 20
    assert d.check(box, "cat /proc/[0-9]*/comm | grep -c yes") == "1\n"  # no SIGPIPE
    d.check(box, "kill $(grep -l yes /proc/[0-9]*/comm | cut -d/ -f3)")


def test_background_process_is_seen_by_the_next_command(d, box):
    d.check(box, BACKGROUND + "echo $! > pid")
    assert d.do("state", box=box)["quiet"] == 0
    assert d.check(box, "cat /proc/$(cat pid)/comm") == "sleep\n"
    d.check(box, "kill $(cat pid)")
    wait_for(lambda: d.do("state", box=box)["quiet"] == 1)


def test_quiet_is_known_with_the_end(d, box):
    assert d.do("state", box=box)["quiet"] == 1
    for _ in range(50):
        number = d.exec(box, "exit 0")
        result = d.wait(box, number)
        assert result.answer["quiet"] == 1
        d.do("exec_release", box=box, number=number)
    number = d.exec(box, ["sleep", "1000"])  # a shell would leave it behind for a moment
    assert d.do("state", box=box)["quiet"] == 0
    d.do("signal", box=box, number=number, signal=9)
    assert d.wait(box, number).answer["quiet"] == 1


# -- stdin

def test_stdin_is_empty_unless_asked_for(d, box):
    assert d.check(box, "cat; readlink /proc/self/fd/0") == "/dev/null\n"


def test_stdin(d, box):
    number = d.exec(box, "cat", stdin=True)
    d.do("write", box=box, number=number, text="one\n")
    assert d.wait(box, number, bytes=4).out == b"one\n"
    d.do("write", box=box, number=number, text="two\n", last=True)
    result = d.wait(box, number)
    assert ended(result) == ("code", 0) and result.out == b"one\ntwo\n"
    with pytest.raises(Refused) as refused:
        d.do("write", box=box, number=number, text="three\n")
    assert refused.value.errno == "EPIPE"


def test_much_stdin(d, box):
    number = d.exec(box, "md5sum; until [ -e go ]; do sleep 0.02; done", stdin=True)
    d.do("write", box=box, number=number, count=20 << 20, last=True, call_ms=120000)
    d.wait(box, number, timeout=120, taken=20 << 20)  # how much is taken is told while it runs
    d.check(box, "touch go")
    result = d.wait(box, number, timeout=120)
    assert result.out.split()[0].decode() == __import__("hashlib").md5(b"x" * (20 << 20)).hexdigest()
    assert result.answer["taken"] == 20 << 20


def test_stdin_window_holds_the_writer_back(d, box):
    number = d.exec(box, "sleep 1000", stdin=True)
    with pytest.raises(Refused) as refused:
        d.do("write", box=box, number=number, count=4 << 20, call_ms=500)
    assert refused.value.errno == "ETIMEDOUT"
    assert d.check(box, "echo others go on") == "others go on\n"
    d.do("signal", box=box, number=number, signal=9)
    d.wait(box, number)


def test_stdin_nobody_reads_blocks_nobody(d, box):
    number = d.exec(box, "exec 0<&-; echo closed; sleep 0.5; echo done", stdin=True)
    d.wait(box, number, bytes=7)
    d.do("write", box=box, number=number, count=4 << 20, last=True)
    result = d.wait(box, number)
    assert ended(result) == ("code", 0) and result.out == b"closed\ndone\n"


# -- signals and time

def test_signal_reaches_the_whole_group(d, box):
    number = d.exec(box, "sleep 1000 & sleep 1000 & echo up; wait")
    d.wait(box, number, bytes=3)
    d.do("signal", box=box, number=number, signal=15)
    assert ended(d.wait(box, number)) == ("signal", 15)
    wait_for(lambda: d.do("state", box=box)["quiet"] == 1)


def test_signal_can_be_caught(d, box):
    number = d.exec(box, "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.05; done")
    d.wait(box, number, bytes=3)
    d.do("signal", box=box, number=number, signal=10)
    result = d.wait(box, number)
    assert ended(result) == ("code", 5) and result.out == b"up\ncaught\n"
    with pytest.raises(Refused) as refused:
        d.do("signal", box=box, number=number, signal=10)
    assert refused.value.errno == "ESRCH"


def test_timeout(d, box):
    start = time.monotonic()
    result = d.run(box, "echo before; sleep 1000", timeout_ms=4000)
    assert result.kind == "timeout" and result.out == b"before\n"
    assert 3.9 < time.monotonic() - start < 30


def test_timeout_kills_what_ignores_term(d, box):
    start = time.monotonic()
    result = d.run(box, "trap '' TERM; (trap '' TERM; sleep 1000) & while :; do sleep 0.1; done",
                   timeout_ms=3000)
    assert result.kind == "timeout"
    assert 7.9 < time.monotonic() - start < 30  # 3 s, and 5 more until it is killed
    wait_for(lambda: d.do("state", box=box)["quiet"] == 1)


def test_timeout_reaches_the_rest_of_the_group(d, box):
    result = d.run(box, "(trap '' TERM; sleep 1000 & wait; sleep 1000) & sleep 1000", timeout_ms=300)
    assert result.kind == "timeout"
    wait_for(lambda: d.do("state", box=box)["quiet"] == 1, timeout=8)


# -- restart of sbxfs

def test_sandbox_outlives_the_program(d, box):
    d.check(box, BACKGROUND + "echo kept > file")
    for end in (d.close, d.kill):
        end()
        d.start()
        assert d.do("list")["boxes"] == {box: "running"}
        d.attach(box)
        assert d.state(box) == "running"
        assert d.check(box, "cat file; cat /proc/[0-9]*/comm | grep sleep") == "kept\nsleep\n"


def test_running_command_is_attached_again_after_kill(d, box):
    number = d.exec(box, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); "
                    "[ $((i % 100)) = 0 ] && sleep 0.02; "
                    "[ $i = 2500 ] && until [ -e go ]; do sleep 0.05; done; done; echo over >&2; exit 9")
    d.wait(box, number, bytes=2000)
    for _ in range(2):
        d.kill()
        time.sleep(0.1)
        d.start()
        d.attach(box)
        d.do("exec_attach", box=box, number=number)
    d.check(box, "touch go")
    result = d.wait(box, number)
    assert ended(result) == ("code", 9)
    assert result.out == b"".join(b"line %d\n" % n for n in range(3000))
    assert result.err == b"over\n" and result.answer["gap0"] == 0


def test_end_is_kept_until_it_was_seen(d, box):
    number = d.exec(box, "read x; echo got $x; exit 3", stdin=True)
    d.do("write", box=box, number=number, text="this\n")
    d.wait(box, number, taken=5)  # until then it is only on its way
    d.kill()
    time.sleep(0.3)
    for _ in range(2):
        d.start()
        d.attach(box)
        d.do("exec_attach", box=box, number=number)
        result = d.wait(box, number)
        assert ended(result) == ("code", 3) and result.out == b"got this\n"
        d.kill()  # before it was released: it comes again
    d.start()
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    d.wait(box, number)
    d.do("exec_release", box=box, number=number)
    with pytest.raises(Refused) as refused:
        d.do("exec_attach", box=box, number=number)
    assert refused.value.errno == "ENOENT"


def test_output_waits_while_nobody_is_there(d, box):
    number = d.exec(box, "sleep 0.3; head -c 30000000 /dev/zero; echo end >&2")
    d.kill()
    time.sleep(2)
    d.start()
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    result = d.wait(box, number, timeout=120)
    assert len(result.out) == 30000000 and result.err == b"end\n" and result.answer["gap0"] == 0


def test_too_much_output_is_dropped_but_not_its_end(d, box):
    number = d.exec(box, "until [ -e go ]; do sleep 0.05; done; "
                    "yes 0123456 | head -c 160000000; echo last; echo over > flag; sleep 1000")
    d.kill()
    (d.workspace(box) / "go").touch()
    wait_for((d.workspace(box) / "flag").exists, timeout=120)
    d.start()
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    result = d.wait(box, number, timeout=120, bytes=160000005)
    assert result.out.endswith(b"0123456\nlast\n")
    assert result.answer["gap0"] > 80000000
    assert len(result.out) + result.answer["gap0"] == 160000005
    assert 64 << 20 <= len(result.out) <= 67 << 20
    d.do("signal", box=box, number=number, signal=9)
    d.wait(box, number)


def test_stdin_goes_on_after_a_restart(d, box):
    number = d.exec(box, "cat", stdin=True)
    d.do("write", box=box, number=number, text="one\n")
    d.wait(box, number, bytes=4)
    d.kill()
    d.start()
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    assert d.wait(box, number, taken=4).answer["taken"] == 4
    d.do("write", box=box, number=number, text="two\n", last=True)
    result = d.wait(box, number)
    assert ended(result) == ("code", 0) and result.out == b"one\ntwo\n"


def test_paused_sandbox_survives_a_restart(d, box):
    number = d.exec(box, "sleep 0.3; echo woken")
    d.do("pause", box=box)
    d.kill()
    d.start()
    d.attach(box)
    d.wait_state(box, "paused")
    d.do("exec_attach", box=box, number=number)
    d.do("resume", box=box)
    assert d.wait(box, number).out == b"woken\n"


def test_frozen_sandbox_survives_many_restarts(d, box):
    holder = d.holders(box)[0]
    os.kill(holder, signal.SIGSTOP)  # as a freezer does it, where there is one
    for _ in range(300):
        d.do("release", box=box)
        d.attach(box)
    os.kill(holder, signal.SIGCONT)
    assert d.check(box, "echo awake") == "awake\n"


def test_holder_that_died_meanwhile(d, box):
    number = d.exec(box, "sleep 1000")
    pid = d.holders(box)[0]
    d.kill()
    os.kill(pid, 9)
    wait_for(lambda: not d.holders(box))
    d.start()
    d.attach(box)
    assert d.state(box) == "stopped"
    with pytest.raises(Refused) as refused:
        d.do("exec_attach", box=box, number=number)
    assert refused.value.errno == "ENOENT"


def test_attach_to_what_is_gone(d, box):
    with pytest.raises(Refused) as refused:
        d.attach("nothere")
    assert refused.value.errno == "ENODEV"
    with pytest.raises(Refused) as refused:
        d.attach("../state/k1")
    assert refused.value.errno == "EINVAL"


def test_release_lets_the_command_run_on(d, box):
    number = d.exec(box, "sleep 0.3; echo on; exit 6")
    d.do("exec_release", box=box, number=number)
    d.do("release", box=box)
    d.attach(box)
    d.do("exec_attach", box=box, number=number)
    result = d.wait(box, number)
    assert ended(result) == ("code", 6) and result.out == b"on\n"


def test_release_never_waits_for_what_does_not_come(d, box):
    for _ in range(300):
        d.do("release", box=box)
        d.attach(box)
    assert d.check(box, "echo still there") == "still there\n"


# -- settings

@pytest.mark.parametrize("settings,code,words", [
    ({"net": "host"}, "EPERM", "allow=net"),
    ({"net": "some"}, "EINVAL", "none or host"),
    ({"isolation": "none"}, "EPERM", "allow=isolation"),
    ({"isolation": "strong"}, "EINVAL", "bwrap or none"),
    ({"user": "root"}, "EOPNOTSUPP", "user"),
    ({"workdir": "relative"}, "EINVAL", "absolute"),
    ({"workdir": "/"}, "EINVAL", "absolute"),
    ({"workdir": "/a/../etc"}, "EINVAL", "absolute"),
    ({"workdir": "/usr/local"}, "EINVAL", "/usr"),
    ({"workdir": "/proc/self"}, "EINVAL", "/proc"),
    ({"workdir": "/tmp"}, "EINVAL", "/tmp"),
    ({"mounts": [{"host": "/etc", "inside": "/x"}]}, "EPERM", "allow=mount"),
])
def test_setting_is_refused_before_anything_is_made(d, settings, code, words):
    for check_only in (True, False):
        with pytest.raises(Refused) as refused:
            d.do("create", box="k9", check_only=check_only, **settings)
        assert refused.value.errno == code and words in refused.value.sentence
    assert not d.state_path("k9").exists()


def test_workdir_and_readonly(d):
    d.create("k2", workdir="/home/sandbox/project")
    assert d.check("k2", "pwd; touch file; ls") == "/home/sandbox/project\nfile\n"
    assert d.do("root", box="k2")["inside"] == "/home/sandbox/project"
    d.create("k3", readonly=True)
    assert "Read-only" in d.run("k3", "touch file").err.decode()


def test_bad_configuration_is_refused(drive):
    if os.geteuid() != 0:
        pytest.skip("uid-range is root's")
    with pytest.raises(Exception, match="uid-range"):
        drive(pairs=["uid-range=5:5"])
