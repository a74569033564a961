# SPDX-License-Identifier: Apache-2.0
"""exec: what runs, where, with what; and how its end is told."""

import json
import os
import re
import select
import threading
import time

import pytest

from support.control import (TASK_KEYS, error_of, error_text, exit_of, status_json, submit, tasks,
                             wait_exit, wait_output, write_once)
from support.tools import wait_for

UNTIL_GO = "until [ -e go ]; do sleep 0.02; done; "  # in a command: until there is such a file


# -- results

def test_streams_and_exit(box):
    result = box.exec("echo out; echo err >&2; exit 2")
    assert (result.stdout, result.stderr, result.exit) == (b"out\n", b"err\n", "2")
    for name, expected in (("stdout", b"out\n"), ("stderr", b"err\n"), ("exit", b"2\n")):
        assert box.read("exec/1/" + name) == expected
        assert box.read("exec/last/" + name) == expected
    assert box.read("stdout") == b"out\n" and box.read("stderr") == b"err\n"
    assert sorted(box.read("exec/1/output").split()) == [b"err", b"out"]
    assert box.read("wait") == b"exit 2\n" == box.read("exec/1/wait")
    assert box.read("wait.5") == b"exit 2\n" == box.read("exec/1/wait.0")


def test_output_is_interleaved_as_it_came(box):
    seen = "until [ -e %s$i ]; do sleep 0.02; done; "  # what comes while nobody reads has no order
    number = box.start("for i in 1 2 3 4 5; do echo o$i; %secho e$i >&2; %sdone" % (seen % "o", seen % "e"))
    for part in ("%s%d" % (stream, n) for n in range(1, 6) for stream in "oe"):
        wait_output(box, number, part + "\n", "output")
        (box.fs / part).touch()
    assert box.wait(number) == "exit 0"
    assert box.read("exec/1/output") == b"".join(b"o%d\ne%d\n" % (n, n) for n in range(1, 6))
    assert box.read("exec/1/follow") == box.read("exec/1/output")


@pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 137, 255])
def test_exit_codes(box, code):
    assert box.exec("exit %d" % code).exit == str(code)


@pytest.mark.parametrize("number", [1, 2, 9, 11, 15])
def test_signals(box, number):
    assert box.exec("kill -%d $$; sleep 10" % number).exit == "signal %d" % number
    assert box.read("wait") == b"signal %d\n" % number
    assert box.read("exec/1/exit") == b"signal %d\n" % number


def test_command_that_is_not_there(box):
    result = box.exec("no-such-command-here")
    assert result.exit == "127" and b"no-such-command-here" in result.stderr
    number = submit(box.dir / "ctl", "execv /no/such/program\n").strip()
    said = wait_exit(box, number)
    assert said == "127" or re.match("error .*", said), said
    assert said != "0"


def test_working_directory_that_is_not_there(box):
    said = box.exec("pwd", cwd="/no/such/directory").exit
    assert said.startswith("error "), said
    assert "/no/such/directory" in said or "No such" in said
    assert box.read("wait").decode().startswith("error ")


def test_exit_is_empty_while_it_runs(box):
    number = box.start("sleep 1000")
    assert box.read("exec/%s/exit" % number) == b"" == box.read("exec/last/exit")
    assert os.stat(box.dir / "exec" / number / "exit").st_size == 0
    assert box.status()["exit"] == "-"
    box.ctl("kill -9")
    assert box.wait(number) == "signal 9"


def test_status_of_an_exec(box):
    began = time.time()
    number = box.start(UNTIL_GO + "sleep 0.3; exit 4", name="work")
    lines = box.read("exec/work/status").decode().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == TASK_KEYS
    running = dict(line.split(" ", 1) for line in lines)
    assert running["state"] in ("queued", "running") and running["exit"] == "-"
    assert running["name"] == "work" and running["ended"] == "-"
    (box.fs / "go").touch()
    box.wait(number)
    ended = dict(line.split(" ", 1) for line in box.read("exec/work/status").decode().splitlines())
    assert (ended["state"], ended["exit"]) == ("ended", "4")
    assert began - 0.1 <= float(ended["started"]) <= float(ended["ended"]) <= time.time() + 0.1
    assert float(ended["ended"]) - float(ended["started"]) >= 0.25
    assert (ended["dropped_stdout"], ended["dropped_stderr"]) == ("0", "0")
    assert list(status_json(box, "exec/work/status.json")) == TASK_KEYS


def test_a_failing_command_is_no_error_of_ours(box):
    box.exec("exit 1")
    assert error_text(box) == "" and box.status()["last_error"] == "-"
    assert b" ok 1 exec" in box.read("ctl")


# -- what runs

def test_text_is_verbatim(box):
    text = "echo \"a  b\" 'c  d' $((1+2)) \\\\ `echo x` | cat; true # cwd=/tmp"
    box.ctl("exec " + text)
    assert wait_exit(box, "1") == "0"
    assert box.read("exec/1/stdout") == b"a  b c  d 3 \\ x\n"
    assert box.read("exec/1/cmd").decode().rstrip("\n").endswith(text)


def test_text_of_any_bytes(box):
    box.ctl(b"exec printf '%s' '\xff\xfe\x01\xc3\xa4'")
    assert wait_exit(box, "1") == "0"
    assert box.read("exec/1/stdout") == b"\xff\xfe\x01\xc3\xa4"


def test_assignments_are_text(box):
    box.ctl("exec FOO=bar sh -c 'echo $FOO'")
    assert wait_exit(box, "1") == "0" and box.read("exec/1/stdout") == b"bar\n"


def test_execv_takes_words(box):
    box.ctl("execv printf '[%s]' 'a  b' \"c\\\"d\" e\\ f '' '$HOME' '*' ';' '|'")
    assert wait_exit(box, "1") == "0"
    assert box.read("exec/1/stdout") == b"[a  b][c\"d][e f][][$HOME][*][;][|]"


def test_environment(box):
    box.ctl("exec env.A=1 env.B='x y' env.C= echo \"[$A][$B][${C-unset}]\"")
    assert wait_exit(box, "1") == "0" and box.read("exec/1/stdout") == b"[1][x y][]\n"
    out = box.ok("env").decode()
    assert "PATH=" in out and "HOME=" in out
    for name in ("SBXFS", "XDG_STATE_HOME", "SSH_AUTH_SOCK", "PYTEST_CURRENT_TEST"):
        assert "%s=" % name not in out, out


def test_working_directory(box):
    box.ok("mkdir -p sub/dir")
    assert box.exec("pwd", cwd="sub/dir").stdout == b"/workspace/sub/dir\n"
    assert box.exec("pwd", cwd="/tmp").stdout == b"/tmp\n"
    assert box.exec("pwd", cwd="'sub'").exit.startswith("error")


def test_long_text(box):
    text = "echo " + "x" * 100_000
    box.ctl("exec " + text)
    assert wait_exit(box, "1") == "0" and box.read("exec/1/stdout") == b"x" * 100_000 + b"\n"


def test_text_that_is_too_long_for_the_system_is_never_a_made_up_code(box):
    """One argument is 128 KiB at most: it runs by another way, or says why not."""
    box.ctl("exec : " + "x" * 300_000 + "\nexec echo after")
    said = wait_exit(box, "1")
    assert said == "0" or said.startswith("error "), said[:100]
    assert wait_exit(box, "2") == "0"


def test_many_arguments(box):
    words = ["w%d" % n for n in range(5000)]
    box.ctl("execv printf '%s\\n' " + " ".join(words))
    assert wait_exit(box, "1") == "0" and box.read("exec/1/stdout").decode().split() == words


# -- waiting

def test_wait_blocks_until_the_end(box):
    number = box.start(UNTIL_GO + "exit 7")
    began = time.monotonic()
    timer = threading.Timer(0.3, (box.fs / "go").touch)
    timer.start()
    assert box.read("wait") == b"exit 7\n"
    assert time.monotonic() - began > 0.3
    timer.join()
    assert exit_of(box, number) == "7"


def test_wait_with_a_bound(box):
    number = box.start("sleep 1000")
    began = time.monotonic()
    assert box.read("wait.1") == b"running\n" == box.read("exec/%s/wait.0" % number)
    assert 0.9 < time.monotonic() - began < 30
    box.ctl("kill -9")
    assert box.read("wait.30") == b"signal 9\n"


def test_wait_without_any_exec(box):
    """There is nothing to wait for: an answer or an error, but no blocking for ever."""
    began = time.monotonic()
    try:
        said = box.read("wait.1")
    except OSError:
        said = b""
    assert said in (b"", b"running\n") or said.startswith(b"error")
    assert time.monotonic() - began < 30
    assert box.read("stdout") == b"" and box.read("stderr") == b""


def test_wait_is_of_the_exec_that_was_the_latest_at_open(box):
    first = box.start("sleep 0.6; exit 1")
    with open(box.dir / "wait", "rb", buffering=0) as file:
        second = box.start("sleep 0.1; exit 2")
        assert file.read() == b"exit 1\n"
    assert box.wait(second) == "exit 2" and box.wait(first) == "exit 1"


def test_wait_and_follow_are_empty_until_the_end_and_seekable(box):
    number = box.start("echo x; " + UNTIL_GO)
    for name in ("wait", "follow"):
        path = box.dir / "exec" / number / name
        assert os.stat(path).st_size == 0
        descriptor = os.open(path, os.O_RDONLY)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        os.close(descriptor)
    (box.fs / "go").touch()
    box.wait(number)
    assert os.stat(box.dir / "exec" / number / "wait").st_size == len("exit 0\n")
    with open(box.dir / "exec" / number / "wait", "rb", buffering=0) as file:
        assert file.read() == b"exit 0\n" and file.read() == b""
        assert file.seek(5) == 5 and file.read() == b"0\n"


def test_many_waiters_all_learn_of_it(box):
    number = box.start("sleep 1; exit 5")
    said = []
    threads = [threading.Thread(target=lambda: said.append(box.read("exec/%s/wait" % number)))
               for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == [b"exit 5\n"] * 50


def test_follow_gives_output_as_it_comes(box):
    number = box.start("echo one; %secho two >&2; rm go; %sprintf three" % (UNTIL_GO, UNTIL_GO))
    with open(box.dir / "exec" / number / "follow", "rb", buffering=0) as file:
        for part in (b"one\n", b"two\n"):
            assert file.read(65536) == part  # the command waits until it was seen
            wait_for(lambda: not (box.fs / "go").exists())
            (box.fs / "go").touch()
        assert file.read(65536) == b"three" and file.read(65536) == b""
    assert exit_of(box, number) == "0", "once follow has ended, the exit can be seen"


def test_follow_starts_at_the_first_byte(box):
    number = box.start("echo first; sleep 0.5; echo last")
    wait_output(box, number, "first")
    assert box.read("exec/%s/follow" % number) == b"first\nlast\n" == box.read("follow")


def test_stdout_is_what_has_come_so_far(box):
    number = box.start("echo one; sleep 1000")
    wait_output(box, number, "one")
    assert box.read("stdout") == b"one\n" == box.read("exec/%s/stdout" % number)
    assert os.stat(box.dir / "stdout").st_size == 4
    box.ctl("kill -9")
    box.wait(number)


def test_handle_of_stdout_sees_it_grow(box):
    number = box.start("for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    with open(box.dir / "exec" / number / "stdout", "rb", buffering=0) as file:
        data = b""
        deadline = time.monotonic() + 60
        while len(data) < 10 and time.monotonic() < deadline:
            data += file.read(100)
            assert os.fstat(file.fileno()).st_size >= len(data)
            time.sleep(0.01)
        assert data == b"1\n2\n3\n4\n5\n"


def test_open_handle_of_the_top_level_stdout_stays_on_its_exec(box):
    first = box.start("echo a1; sleep 0.5; echo a2")
    wait_output(box, first, "a1")
    with open(box.dir / "stdout", "rb", buffering=0) as file:
        assert file.read(2) == b"a1"
        second = box.start("echo bbbbbbbbbbbbbbb; sleep 2")
        wait_output(box, second, "b\n")
        box.wait(first)
        assert file.read(100) == b"\na2\n"
    assert box.read("stdout") == b"bbbbbbbbbbbbbbb\n"


def test_poll_on_wait(box):
    number = box.start(UNTIL_GO + "exit 3")
    with open(box.dir / "exec" / number / "wait", "rb", buffering=0) as file:
        poll = select.poll()
        poll.register(file, select.POLLIN)
        assert poll.poll(100) == []
        (box.fs / "go").touch()
        assert poll.poll(60000) == [(file.fileno(), select.POLLIN)] or poll.poll(0)
        assert file.read() == b"exit 3\n"


def test_poll_on_follow(box):
    number = box.start(UNTIL_GO + "echo x; sleep 0.5")
    with open(box.dir / "exec" / number / "follow", "rb", buffering=0) as file:
        poll = select.poll()
        poll.register(file, select.POLLIN)
        assert poll.poll(100) == []
        (box.fs / "go").touch()
        assert poll.poll(60000)
        assert file.read(10) == b"x\n"
        assert poll.poll(60000)
        assert file.read(10) == b""


# -- several

def test_latest_is_the_last_accepted_everywhere(box):
    first = box.start("sleep 0.5; echo first")
    second = box.start("echo second")
    box.wait(first)
    box.wait(second)
    assert (first, second) == ("1", "2")
    assert box.status()["exec"] == "2"
    assert os.readlink(box.dir / "exec/last") == "2"
    assert box.read("stdout") == b"second\n"


def test_several_run_at_once(box):
    numbers = [box.start(UNTIL_GO + "echo %d" % n) for n in range(10)]
    wait_for(lambda: box.status()["execs_running"] == "10")
    (box.fs / "go").touch()
    for n, number in enumerate(numbers):
        assert box.wait(number) == "exit 0"
        assert box.read("exec/%s/stdout" % number) == b"%d\n" % n


def test_thirty_two_at_once_then_eagain(box):
    box.ctl("\n".join(["exec sleep 1000"] * 31))
    assert write_once(box.dir / "ctl", "exec true\nexec true\n") == ("write", "EAGAIN")
    assert len(tasks(box)) == 31
    box.ctl("exec sleep 1000")
    assert write_once(box.dir / "ctl", "exec true\n") == ("write", "EAGAIN")
    assert "32" in error_text(box)
    assert box.status()["execs_running"] == "32" and len(tasks(box)) == 32
    box.ctl("\n".join("kill -9 %d" % n for n in range(1, 33)))
    for n in range(1, 33):
        assert box.wait(n) == "signal 9"
    box.ok("true")


def test_kept_are_the_last_64(box):
    for n in range(70):
        box.ctl("exec echo %d" % n)
        box.wait(n + 1)
    wait_for(lambda: len(tasks(box)) <= 64)  # the oldest goes just after the end of the last is seen
    names = tasks(box)
    assert len(names) == 64 and names[-1] == "70" and names[0] == "7"
    assert error_of(os.stat, box.dir / "exec/1") == "ENOENT"
    assert box.read("exec/70/stdout") == b"69\n"
    assert box.status()["exec"] == "70"


def test_running_ones_are_kept_whatever_comes(box):
    box.ctl("exec sleep 1000")
    for n in range(70):
        box.ctl("exec true")
        box.wait(n + 2)
    assert tasks(box)[0] == "1" and exit_of(box, "1") == ""
    box.ctl("kill -9 1")
    assert box.wait("1") == "signal 9"


def test_rmdir_of_an_exec(box):
    box.ok("echo x")
    number = box.start("sleep 1000")
    with open(box.dir / "exec/1/stdout", "rb", buffering=0) as file:
        os.rmdir(box.dir / "exec/1")
        assert file.read() == b"x\n", "open handles still read"
    assert tasks(box) == [number]
    assert error_of(os.stat, box.dir / "exec/1/stdout") == "ENOENT"
    assert error_of(os.rmdir, box.dir / "exec" / number) == "EBUSY"
    box.ctl("kill -9")
    box.wait(number)
    os.rmdir(box.dir / "exec" / number)
    assert tasks(box) == []
    assert box.start("true") == "3", "numbers are never given twice"


def test_rm_r_of_an_exec(box):
    from support.tools import run
    box.ok("true")
    box.ok("true")
    run(["rm", "-r", box.dir / "exec/1"])
    assert tasks(box) == ["2"]
    run(["rm", "-rf", box.dir / "exec/2"])
    assert tasks(box) == []
    assert box.ok("echo on") == b"on\n"


def test_what_an_exec_left_running_is_seen_by_the_next(box):
    pid = box.ok("sleep 1000 > /dev/null 2>&1 & echo $!").decode().strip()
    # it is a shell until it has executed sleep
    assert box.ok("kill -0 %s && echo alive; until grep -x sleep /proc/%s/comm; do sleep 0.02; done" % (pid, pid),
                  timeout="40s") == b"alive\nsleep\n"
    assert box.status()["execs_running"] == "0"
    box.ok("kill %s" % pid)
    box.ok("while kill -0 %s 2>/dev/null; do sleep 0.01; done" % pid, timeout="40s")


def test_execs_share_tmp_and_home(box):
    box.ok("echo t > /tmp/f; echo h > ~/f")
    assert box.ok("cat /tmp/f ~/f") == b"t\nh\n"


def test_orphans_are_reaped(box):
    box.ok("for i in $(seq 50); do (sh -c 'sleep 0.05 &' ); done")
    time.sleep(0.5)
    wait_for(lambda: box.ok("grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
                            ) == b"0\n", 10, 0.2)


# -- named ones

def test_named_exec_by_files_alone(box):
    """An agent that can only make directories and write and read files."""
    os.mkdir(box.dir / "exec" / "build")
    assert sorted(os.listdir(box.dir / "exec/build")) == sorted(
        "cmd status exit stdin stdout stderr output ctl".split())
    assert status_json(box, "exec/build/status.json")["state"] == "new"
    assert box.read("exec/build/exit") == b"" and box.read("exec/build/cmd") == b""
    assert box.read("exec/build/wait.0") == b"running\n"
    (box.dir / "exec/build/cmd").write_text("echo building\nexit 3\n")
    assert box.wait("build") == "exit 3"
    assert box.read("exec/build/stdout") == b"building\n" == box.read("stdout")
    assert box.read("exec/build/cmd").rstrip(b"\n") == b"echo building\nexit 3"
    assert status_json(box, "exec/build/status.json")["name"] == "build"
    assert box.status()["exec"] == "build" and os.readlink(box.dir / "exec/last") == "build"


def test_wait_blocks_while_a_named_exec_is_new(box):
    os.mkdir(box.dir / "exec" / "later")
    said = []
    thread = threading.Thread(target=lambda: said.append(box.read("exec/later/wait")))
    thread.start()
    time.sleep(0.3)
    assert said == []
    (box.dir / "exec/later/cmd").write_text("exit 4")
    thread.join(60)
    assert said == [b"exit 4\n"]


def test_cmd_in_several_writes_runs_once_at_the_close(box):
    os.mkdir(box.dir / "exec" / "n")
    with open(box.dir / "exec/n/cmd", "w", buffering=1) as file:
        file.write("echo one\n")
        file.write("echo two\n")
        time.sleep(0.2)
        assert status_json(box, "exec/n/status.json")["state"] == "new"
        file.write("echo three\n")
    assert box.wait("n") == "exit 0"
    assert box.read("exec/n/stdout") == b"one\ntwo\nthree\n"


def test_cmd_is_written_once(box):
    os.mkdir(box.dir / "exec" / "n")
    (box.dir / "exec/n/cmd").write_text("echo once")
    box.wait("n")
    assert error_of(os.open, box.dir / "exec/n/cmd", os.O_WRONLY) == "EBUSY"
    assert error_of(os.open, box.dir / "exec/n/cmd", os.O_RDWR | os.O_TRUNC) == "EBUSY"
    assert box.read("exec/n/cmd").rstrip(b"\n") == b"echo once"


def test_cmd_as_json(box):
    os.mkdir(box.dir / "exec" / "n")
    (box.dir / "exec/n/cmd").write_text(json.dumps({
        "argv": ["sh", "-c", "cat; echo $K; pwd; exit 6"], "env": {"K": "s3cret"}, "cwd": "/tmp",
        "stdin": "given\n", "timeout": "1m"}, indent=2))
    assert box.wait("n") == "exit 6"
    assert box.read("exec/n/stdout") == b"given\ns3cret\n/tmp\n"
    assert b"s3cret" not in box.read("exec/n/cmd")


def test_stdin_before_cmd_is_all_of_it(box):
    os.mkdir(box.dir / "exec" / "n")
    (box.dir / "exec/n/stdin").write_bytes(b"a\0b\xff" * 1000)
    with open(box.dir / "exec/n/stdin", "ab") as file:
        file.write(b"more")
    (box.dir / "exec/n/cmd").write_text("cat")
    assert box.wait("n") == "exit 0"
    assert box.read("exec/n/stdout") == b"a\0b\xff" * 1000 + b"more"


def test_names_are_unique(box):
    os.mkdir(box.dir / "exec" / "n")
    assert error_of(os.mkdir, box.dir / "exec" / "n") == "EEXIST"
    assert write_once(box.dir / "ctl", "exec name=n true\n") == ("write", "EEXIST")
    os.rmdir(box.dir / "exec" / "n")
    assert box.start("true", name="n") == "n"
    assert error_of(os.mkdir, box.dir / "exec" / "n") == "EEXIST"
    box.wait("n")


def test_named_exec_by_ctl(box):
    assert box.start("echo hi", name="job") == "job"
    assert box.wait("job") == "exit 0" and box.read("exec/job/stdout") == b"hi\n"
    assert box.start("true") == "2"


def test_new_ones_do_not_count_as_latest_or_running(box):
    box.ok("echo real")
    os.mkdir(box.dir / "exec" / "new")
    assert box.read("stdout") == b"real\n"
    assert box.status()["exec"] == "1" and box.status()["execs_running"] == "0"
