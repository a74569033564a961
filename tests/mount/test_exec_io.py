# SPDX-License-Identifier: Apache-2.0
"""exec: large and binary output with its cap, stdin, time-outs, kill, and env."""

import os
import subprocess
import sys
import time

import pytest

from support.control import (error_of, error_text, exit_of, status_json, submit, wait_exit,
                             wait_output, write_once)
from support.tools import run, wait_for

MIB = 1 << 20
COUNTER = "i=0; while :; do i=$((i+1)); echo $i >n.new; mv n.new n; sleep 0.02; done"  # never empty
UNTIL_GO = "until [ -e go ]; do sleep 0.02; done; "  # in a command: until there is such a file


def count(box):
    try:
        return int((box.fs / "n").read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def stands_still(box):
    """True if the counter has ended. What it was in the middle of at its end is done first."""
    def stays(seconds):
        before = count(box)
        time.sleep(seconds)
        return count(box) == before
    wait_for(lambda: stays(0.3), what="the counter to end")
    return stays(1.5)  # longer than what was seen may be kept


# -- output

def test_binary_output(box):
    data = bytes(range(256)) * 1000
    (box.fs / "data").write_bytes(data)
    result = box.exec("cat data; cat data >&2")
    assert result.stdout == data and result.stderr == data
    assert len(box.read("exec/1/output")) == 2 * len(data)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65536, MIB, 20 * MIB + 7])
def test_output_of_every_size(box, size):
    result = box.exec("head -c %d /dev/zero | tr '\\0' x" % size)
    assert result.stdout == b"x" * size
    assert status_json(box, "exec/1/status.json")["dropped_stdout"] == "0"


def test_output_beyond_the_cap(box):
    """100 MiB of numbered lines: the head, a marker, the last 1 MiB, and a count of what is gone."""
    lines = 100 * MIB // 10
    number = box.start("seq -f '%%09.0f' 1 %d" % lines)
    seen = []
    while box.read("exec/%s/wait.0" % number) == b"running\n":
        seen.append((os.stat(box.dir / "stdout").st_size, time.monotonic()))
        time.sleep(0.05)
    assert box.wait(number, 200) == "exit 0"
    data = box.read("exec/%s/stdout" % number)
    total = lines * 10
    dropped = int(status_json(box, "exec/%s/status.json" % number)["dropped_stdout"])
    assert len(data) <= 64 * MIB + 4096
    assert len(data) >= 63 * MIB
    cut = 63 * MIB
    assert data[:100] == b"".join(b"%09d\n" % n for n in range(1, 11))
    assert data[:cut - cut % 10][-10:] == b"%09d\n" % (cut // 10)
    assert data.endswith(b"%09d\n" % lines)
    tail = data[-MIB:]
    at = tail.index(b"\n") + 1
    first = int(tail[at:at + 9])
    assert tail[at:] == b"".join(b"%09d\n" % n for n in range(first, lines + 1))
    marker = data[cut:-MIB]
    assert 0 < len(marker) < 4096 and b"%d" % dropped in marker, marker
    assert len(data) - len(marker) + dropped == total
    assert os.stat(box.dir / "exec" / number / "stdout").st_size == len(data)


def test_bytes_once_shown_never_change(box):
    """A handle that was read to its end goes on where it was, at the cap too."""
    number = box.start("seq -f '%%09.0f' 1 %d; sleep 1" % (70 * MIB // 10))
    got = bytearray()
    with open(box.dir / "exec" / number / "stdout", "rb", buffering=0) as file:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            part = file.read(4 * MIB)
            got += part
            if not part:
                if exit_of(box, number):
                    got += file.read()
                    break
                time.sleep(0.01)
    assert got == box.read("exec/%s/stdout" % number)


def test_cap_of_one_stream_leaves_the_other(box):
    result = box.exec("head -c %d /dev/zero; echo err >&2; echo end" % (66 * MIB), wait=200)
    assert result.stderr == b"err\n" and result.stdout.endswith(b"end\n")
    status = status_json(box, "exec/1/status.json")
    assert status["dropped_stderr"] == "0" and int(status["dropped_stdout"]) > 0


def test_endless_output_can_be_killed(box):
    number = box.start("yes")
    wait_for(lambda: os.stat(box.dir / "stdout").st_size > 10 * MIB, 60)
    box.ctl("kill -9 %s" % number)
    assert box.wait(number) == "signal 9"
    assert box.ok("echo next") == b"next\n"


def test_fast_output_of_many(box):
    """Again and again: the holder once forgot the rest, when its socket took all at one stroke."""
    for _ in range(12):
        numbers = [box.start("head -c 5000000 /dev/zero | tr '\\0' %d" % n) for n in range(8)]
        for n, number in enumerate(numbers):
            assert box.wait(number) == "exit 0"
            assert box.read("exec/%s/stdout" % number) == b"%d" % n * 5000000


# -- stdin

def test_stdin_is_empty_by_default(box):
    assert box.exec("cat; echo end").stdout == b"end\n"


def test_stdin_open(box):
    number = box.start("while read -r x; do echo got $x; done; echo end", stdin="open")
    (box.dir / "exec" / number / "stdin").write_text("one\n")
    wait_output(box, number, "got one\n")
    (box.dir / "stdin").write_text("two\n")
    wait_output(box, number, "got two\n")
    assert exit_of(box, number) == ""
    box.ctl("eof")
    assert box.wait(number) == "exit 0"
    assert box.read("stdout") == b"got one\ngot two\nend\n"


def test_closing_stdin_is_no_end_of_it(box):
    number = box.start("cat", stdin="open")
    for n in range(20):
        (box.dir / "exec" / number / "stdin").write_text("%d\n" % n)
    time.sleep(0.3)
    assert exit_of(box, number) == ""
    assert write_once(box.dir / "exec" / number / "ctl", "eof\n") is None
    assert box.wait(number) == "exit 0"
    assert box.read("stdout").decode().split() == [str(n) for n in range(20)]


def test_stdin_of_many_bytes(box):
    data = os.urandom(10 * MIB)
    number = box.start("cat", stdin="open")
    with open(box.dir / "exec" / number / "stdin", "wb") as file:
        file.write(data)
    box.ctl("eof %s" % number)
    assert box.wait(number) == "exit 0"
    assert box.read("exec/%s/stdout" % number) == data


def test_stdin_by_shell_and_pipe(box):
    number = box.start("wc -c", stdin="open")
    run("head -c 100000 /dev/zero > stdin; head -c 50000 /dev/zero | tee -a stdin > /dev/null; "
        "echo eof > ctl", cwd=box.dir)
    assert box.wait(number) == "exit 0" and box.read("stdout") == b"150000\n"


def test_stdin_is_spooled_up_to_64_mib(box):
    """A command that doesn't read: writes are taken until the spool is full, then ENOSPC."""
    number = box.start("sleep 1000", stdin="open")
    descriptor = os.open(box.dir / "exec" / number / "stdin", os.O_WRONLY)
    taken, failed = 0, None
    while failed is None and taken < 80 * MIB:
        failed = error_of(os.write, descriptor, b"x" * 262144)
        taken += 0 if failed else 262144
    os.close(descriptor)
    assert failed == "ENOSPC" and 63 * MIB <= taken <= 65 * MIB
    box.ctl("kill -9")
    assert box.wait(number) == "signal 9"


def test_stdin_after_eof_or_end(box):
    number = box.start("cat", stdin="open")
    box.ctl("eof %s" % number)
    box.wait(number)
    assert write_once(box.dir / "exec" / number / "stdin", b"x")[1] in ("EPIPE", "EBUSY")
    number = box.start("sleep 1000", stdin="open")
    box.ctl("eof")
    box.ctl("eof")
    assert write_once(box.dir / "stdin", b"x")[1] in ("EPIPE", "EBUSY")
    box.ctl("kill -9")
    box.wait(number)


def test_command_that_closes_its_stdin(box):
    number = box.start("exec 0<&-; sleep 0.5; echo end", stdin="open")
    for _ in range(20):
        error_of((box.dir / "exec" / number / "stdin").write_bytes, b"x" * 100000)
    assert box.wait(number) == "exit 0"


def test_python_as_a_subprocess_would_use_it(box):
    """A conversation: write a line, wait for its answer."""
    number = box.start("python3 -uc 'import sys\nfor l in sys.stdin: print(int(l)*2)'", stdin="open")
    with open(box.dir / "exec" / number / "stdin", "w", buffering=1) as file:
        for n in range(20):
            file.write("%d\n" % n)
            wait_output(box, number, "\n%d\n" % (2 * n) if n else "0\n")
    box.ctl("eof")
    assert box.wait(number) == "exit 0"


# -- kill and time-outs

def test_kill_by_each_way(box):
    """Without a shell: dash loses a SIGINT that comes just before it executes its last command."""
    for line, said in (("kill {}", "signal 15"), ("kill -9 {}", "signal 9"),
                       ("kill -INT {}", "signal 2"), ("kill -SIGHUP {}", "signal 1"),
                       ('{{"verb":"kill","exec":{},"signal":"USR1"}}', "signal 10")):
        answer = box.mount.submit(box.dir / "ctl", b'{"verb":"exec","argv":["sleep","1000"]}\n')
        number = answer.decode().strip()
        box.ctl(line.format(number))
        assert box.wait(number) == said, line
        assert exit_of(box, number) == said


def test_kill_without_a_number_is_of_the_latest(box):
    first, second = box.start("sleep 1000"), box.start("sleep 1000")
    box.ctl("kill")
    assert box.wait(second) == "signal 15" and exit_of(box, first) == ""
    box.ctl("kill %s" % first)
    assert box.wait(first) == "signal 15"


def test_kill_by_the_execs_own_ctl(box):
    first, second = box.start("sleep 1000"), box.start("sleep 1000")
    assert write_once(box.dir / "exec" / first / "ctl", "kill\n") is None
    assert box.wait(first) == "signal 15" and exit_of(box, second) == ""
    run("echo kill -9 > exec/%s/ctl" % second, cwd=box.dir)
    assert box.wait(second) == "signal 9"


def test_kill_is_term_then_kill_after_five_seconds(box):
    number = box.start("trap 'echo got term' TERM; echo ready; while :; do sleep 0.1; done")
    wait_output(box, number, "ready")
    began = time.monotonic()
    box.ctl("kill %s" % number)
    assert box.wait(number) == "signal 9"
    assert 4 < time.monotonic() - began < 40
    assert b"got term\n" in box.read("exec/%s/stdout" % number)


def test_a_caught_signal_is_the_commands_affair(box):
    number = box.start("trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    wait_output(box, number, "ready")
    box.ctl("kill %s" % number)
    assert box.wait(number) == "exit 5" and box.read("stdout") == b"ready\ncaught\n"


def test_signal_that_does_not_end_it(box):
    number = box.start("trap 'echo usr1' USR1; echo ready; " + UNTIL_GO + "echo end")
    wait_output(box, number, "ready")
    box.ctl("kill -USR1 %s" % number)
    wait_output(box, number, "usr1")
    (box.fs / "go").touch()
    assert box.wait(number) == "exit 0" and box.read("stdout").endswith(b"end\n")


def test_kill_reaches_the_whole_group(box):
    number = box.start("(%s) & (%s) & wait" % (COUNTER.replace("n.new", "m.new").replace(" n;", " m;"), COUNTER))
    wait_for(lambda: count(box) > 0)
    box.ctl("kill -9 %s" % number)
    box.wait(number)
    assert stands_still(box)


def test_kill_of_a_stopped_process(box):
    number = box.start("echo ready; kill -STOP $$; echo on")
    wait_output(box, number, "ready")  # a CONT that comes before it is started ends it
    time.sleep(0.3)
    assert exit_of(box, number) == ""

    def has_gone_on():  # one that comes before the STOP does nothing
        try:
            box.ctl("kill -CONT %s" % number)
        except ProcessLookupError:
            pass
        return exit_of(box, number)
    wait_for(has_gone_on, 60, 0.2)
    assert box.wait(number) == "exit 0" and box.read("stdout") == b"ready\non\n"


def test_closing_a_file_kills_nothing(box):
    number = box.start(UNTIL_GO + "echo survived")
    for name in ("wait", "follow", "stdout"):
        process = subprocess.Popen(["cat", str(box.dir / "exec" / number / name)],
                                   stdout=subprocess.DEVNULL)
        time.sleep(0.1)
        process.kill()
        process.wait(60)
    (box.fs / "go").touch()
    assert box.wait(number) == "exit 0" and box.read("stdout") == b"survived\n"


def test_timeout(box):
    began = time.monotonic()
    result = box.exec("echo before; sleep 1000; echo after", timeout="4s")
    assert (result.exit, result.stdout) == ("timeout", b"before\n")
    assert 3.8 < time.monotonic() - began < 60
    assert box.read("wait") == b"timeout\n"
    assert error_text(box) == ""


def test_timeout_reaches_the_whole_group_and_the_stubborn(box):
    began = time.monotonic()
    number = box.start("trap '' TERM; (trap '' TERM; %s) & echo up; wait; while :; do sleep 1; done"
                       % COUNTER, timeout="4s")  # for all of it to be there
    assert box.wait(number) == "timeout"
    assert 8 < time.monotonic() - began < 60
    assert stands_still(box) and count(box) > 0
    assert box.read("exec/%s/stdout" % number) == b"up\n"


def test_timeout_that_is_not_reached(box):
    assert box.exec("echo x", timeout="1m").exit == "0"


def test_exec_that_ends_at_the_timeout_is_one_or_the_other(box):
    for _ in range(5):
        assert box.exec("sleep 1", timeout="1s").exit in ("0", "timeout")


# -- env

def test_env_is_for_later_execs(box):
    running = box.start("sleep 0.5; echo \"[$A]\"")
    (box.dir / "env").write_text("A=1\n# note\n\nB=x y=z \"q\"\n")
    assert box.ok('echo "$A|$B"') == b'1|x y=z "q"\n'
    assert box.status()["env"] == "set"
    box.wait(running)
    assert box.read("exec/%s/stdout" % running) == b"[]\n"
    (box.dir / "env").write_text("A=2\n")
    assert box.ok('echo "$A|$B"') == b'2|x y=z "q"\n'
    assert box.ok('echo "$A"', env={"A": "3"}) == b"3\n"
    assert box.ok('echo "$A"') == b"2\n"


def test_env_values_are_nowhere(fresh_mount):
    """Not in a file, log, error or argv, though commands get them. (A creation's may be kept.)"""
    mount = fresh_mount()
    secret = "s3cret%d" % os.getpid()  # beside us the same may be looked for, by a grep with it in its argv
    mount.ctl("create web env.FIRST=%s-one" % secret)
    box = mount.box("web")
    box.wait_state("running")
    (box.dir / "env").write_text("SECOND=%s-two\n" % secret)
    number = box.start('echo "${#FIRST} ${#SECOND} ${#THIRD}"; sleep 1000',
                       env={"THIRD": secret + "-three"})
    wait_output(box, number, "%d %d %d\n" % tuple(len(secret) + len(end) for end in ("-one", "-two", "-three")))

    def found():
        """None if a file went while it was looked for: records are written beside, and renamed."""
        said = run(["grep", "-raE", secret + "-(two|three)", mount.state, mount.log_path], check=False)
        return None if said.code > 1 and "No such file" in said.err else said
    said = wait_for(found, what="a look at all files")
    assert said.code == 1 and said.out == "", said
    assert run(["grep", "-c", "s3cret", mount.log_path], check=False).out.strip() == "0"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as file:
                assert b"%s-" % secret.encode() not in file.read(), pid
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    for name in ("status", "status.json", "ctl", "error", "exec/1/cmd", "exec/1/status", "../status",
                 "../ctl"):
        assert b"s3cret" not in box.read(name), name
    box.ctl("kill -9")
    box.wait(number)


def test_env_is_lost_by_a_restart_and_says_so(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    assert box.status()["env"] == "-"
    (box.dir / "env").write_text("A=1\n")
    assert box.status()["env"] == "set"
    mount.restart()
    assert box.status()["env"] == "lost"
    assert box.ok('echo "[$A]"') == b"[]\n"
    (box.dir / "env").write_text("A=2\n")
    assert box.status()["env"] == "set" and box.ok('echo "[$A]"') == b"[2]\n"


def test_env_of_a_creation_survives_a_restart(fresh_mount):
    mount = fresh_mount()
    mount.ctl("create web env.A=kept")
    box = mount.box("web")
    box.wait_state("running")
    assert box.ok('echo "$A"') == b"kept\n"
    mount.restart()
    assert box.ok('echo "$A"') == b"kept\n"


# -- survival

def test_results_survive_an_unmount(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    (box.fs / "bin").write_bytes(bytes(range(256)) * 300)
    box.exec("cat bin; echo err >&2; exit 9")
    box.exec("kill -9 $$", name="named")
    box.exec("sleep 1000", timeout="1s")
    before = {name: box.read("exec/" + name) for name in (
        "1/stdout", "1/stderr", "1/output", "1/exit", "1/status", "1/cmd", "named/exit", "3/exit",
        "named/status", "last/status", "1/wait", "named/follow")}
    mount.restart()
    assert {name: box.read("exec/" + name) for name in before} == before
    assert before["1/exit"] == b"9\n" and before["named/exit"] == b"signal 9\n"
    assert before["3/exit"] == b"timeout\n"
    assert box.start("true") == "4"


def test_exec_that_runs_over_an_unmount_is_tracked(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    number = box.start("echo one; " + UNTIL_GO + "echo two; exit 7")
    wait_output(box, number, "one")
    mount.restart()
    assert exit_of(box, number) == ""
    (box.fs / "go").touch()
    assert box.wait(number) == "exit 7"
    assert box.read("exec/%s/stdout" % number) == b"one\ntwo\n"


def test_exec_that_ends_while_nothing_is_mounted(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    number = box.start("echo one; sleep 1; echo two; exit 7")
    wait_output(box, number, "one")
    mount.umount()
    time.sleep(2)
    mount.start()
    assert box.wait(number) in ("exit 7", "lost")
    if exit_of(box, number) == "7":
        assert box.read("exec/%s/stdout" % number) == b"one\ntwo\n"


def test_output_goes_on_where_it_was_after_an_unmount(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    number = box.start("for i in $(seq 1 400); do echo line $i; sleep 0.01; done")
    for _ in range(3):
        time.sleep(0.5)
        mount.restart()
    assert box.wait(number, 150) == "exit 0"
    assert box.read("exec/%s/stdout" % number) == b"".join(b"line %d\n" % n for n in range(1, 401))
    assert box.read("exec/%s/output" % number) == box.read("exec/%s/stdout" % number)


def test_stdin_goes_on_after_an_unmount(fresh_mount):
    mount = fresh_mount()
    box = mount.create("web")
    number = box.start("cat", stdin="open")
    (box.dir / "exec" / number / "stdin").write_text("one\n")
    wait_output(box, number, "one")
    mount.restart()
    (box.dir / "exec" / number / "stdin").write_text("two\n")
    box.ctl("eof %s" % number)
    assert box.wait(number) == "exit 0"
    assert box.read("exec/%s/stdout" % number) == b"one\ntwo\n"


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.5])
def test_results_after_kill_9(fresh_mount, delay):
    """What had ended is there; what ran is tracked or lost; no code is made up."""
    mount = fresh_mount()
    box = mount.create("web")
    assert box.exec("echo done; exit 9").exit == "9"
    running = box.start("echo one; sleep 2; echo two; exit 7")
    named = box.start("sleep 1000", name="long")
    time.sleep(delay)
    mount.kill9()
    mount.start()
    assert exit_of(box, "1") == "9" and box.read("exec/1/stdout") == b"done\n"
    said = box.wait(running)
    assert said in ("exit 7", "lost"), said
    if said == "exit 7":
        assert box.read("exec/%s/stdout" % running) == b"one\ntwo\n"
    try:
        box.ctl("kill -9 %s" % named)
    except ProcessLookupError:
        pass  # it is lost already
    assert box.wait(named) in ("signal 9", "lost")
    assert box.ok("echo on") == b"on\n"


def test_submit_from_a_program(box):
    """One open, one write, one read: the number, as agents' tools do it."""
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
os.write(fd, b"exec echo from a program\\n")
print(os.read(fd, 100).decode(), end="")
"""
    out = subprocess.run([sys.executable, "-c", script, str(box.dir / "ctl")],
                         stdout=subprocess.PIPE, timeout=60, check=True).stdout
    assert out == b"1\n"
    assert box.wait("1") == "exit 0"
    assert submit(box.dir / "ctl", "exec true\n") == "2\n"
    assert wait_exit(box, "2") == "0"
