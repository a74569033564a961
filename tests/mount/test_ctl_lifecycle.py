# SPDX-License-Identifier: Apache-2.0
"""The life of a sandbox, from mkdir to rmdir, as its directory shows it."""

import os
import select
import signal
import threading
import time

import pytest

from support.control import (KEYS, STATES, error_of, error_text, exit_of, generation, results,
                             same_for, status_json, tasks, wait_exit, wait_output, write_once)
from support.mounts import process_table, processes_of
from support.tools import run, wait_for

COUNTER = "i=0; while :; do i=$((i+1)); echo $i > n; sleep 0.02; done"
UNTIL_GO = "until [ -e go ]; do sleep 0.02; done; "  # in a command: until there is such a file


def count(box):
    """What the counter in the sandbox has reached."""
    try:
        return int((box.fs / "n").read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def start_counter(box):
    number = box.start(COUNTER)
    wait_for(lambda: count(box) > 0, what="the counter to count")
    return number


def counts(box):
    """True if the counter moves."""
    before = count(box)
    try:
        wait_for(lambda: count(box) not in (0, before))
        return True
    except AssertionError:
        return False


def stands_still(box, seconds=0.7):
    """True if the counter doesn't move. What it was in the middle of when it was halted is done first."""
    wait_for(lambda: same_for(0.3, lambda: count(box)), what="the counter to halt")
    return same_for(seconds, lambda: count(box))


# -- creation

def test_mkdir_returns_at_once_and_creates(mount):
    began = time.monotonic()
    os.mkdir(mount.path / "fresh")
    took = time.monotonic() - began
    box = mount.box("fresh")
    assert box.state in ("creating", "starting", "running")
    assert took < 30, took
    box.wait_state("running")
    status = box.status()
    assert status["name"] == "fresh" and status["provider"] == "local" and status["id"] != "-"
    assert int(status["ready_ms"]) < 30000 and abs(float(status["created"]) - time.time()) < 60
    box.destroy()


def test_files_and_exec_wait_for_the_creation(mount):
    """mkdir, then use at once, as a script does."""
    for n in range(5):
        box = mount.create("soon%d" % n, wait=False)
        (box.fs / "file").write_text("%d" % n)
        assert box.ok("cat file") == b"%d" % n
        box.destroy()


def test_create_with_settings(mount):
    mount.ctl("create set timeout=1h env.WORD='a b' label.team=x net=none")
    box = mount.box("set")
    box.wait_state("running")
    assert box.ok('echo "$WORD"') == b"a b\n"
    for path in ("status", "status.json", "ctl", "error"):
        assert b"a b" not in box.read(path), path
    box.destroy()


def test_create_with_workdir(mount):
    mount.ctl("create where workdir=/srv/app")
    box = mount.box("where")
    box.wait_state("running")
    (box.fs / "f").write_text("x")
    assert box.ok("pwd; cat /srv/app/f") == b"/srv/app\nx"
    box.destroy()


def test_working_directory_is_workspace_by_default(box):
    assert box.ok("pwd") == b"/workspace\n"
    (box.fs / "a").write_text("from outside")
    assert box.ok("cat a; echo inside > b") == b"from outside"
    assert (box.fs / "b").read_text() == "inside\n"


def test_two_creations_of_one_name_at_once(mount):
    errors = []

    def create():
        errors.append(error_of(os.mkdir, mount.path / "race"))
    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(map(str, errors)) == ["EEXIST"] * 7 + ["None"]
    mount.box("race").wait_state("running")
    mount.box("race").destroy()


def test_more_than_max_sandboxes(fresh_mount):
    mount = fresh_mount(options=("drain=1s", "max-sandboxes=2"))
    mount.create("a")
    mount.create("b")
    assert error_of(os.mkdir, mount.path / "c") == "EDQUOT"
    assert write_once(mount.path / "ctl", "create c\n") == ("write", "EDQUOT")
    mount.box("a").destroy()
    assert write_once(mount.path / "ctl", "create c\ncreate d\n") == ("write", "EDQUOT")
    assert mount.sandboxes() == ["b"]
    wait_for(lambda: error_of(os.mkdir, mount.path / "c") is None, what="room again")


# -- status

def test_status_has_every_key_in_order(box):
    def check():
        lines = box.read("status").decode().splitlines()
        assert [line.split(" ", 1)[0] for line in lines] == KEYS
        assert all(len(line.split(" ", 1)) == 2 and line.split(" ", 1)[1] for line in lines), lines
    check()
    box.exec("exit 3")
    check()
    status = box.status()
    assert status["state"] in STATES
    assert (status["exec"], status["exec_state"], status["exit"]) == ("1", "ended", "3")
    assert (status["execs_running"], status["dirty_files"], status["unsent"]) == ("0", "0", "0")
    for key in ("since", "created"):
        assert abs(float(status[key]) - time.time()) < 120
        assert len(status[key].split(".")[1]) == 3
    number = box.start("sleep 1000")
    status = box.status()
    assert (status["exec"], status["exec_state"], status["exit"]) == (number, "running", "-") \
        or status["exec_state"] == "queued"
    assert status["execs_running"] == "1"
    check()
    box.ctl("kill -9")
    box.wait(number)


def test_status_json_has_the_same(box):
    box.exec("exit 3")
    as_text, as_json = box.status(), status_json(box)
    assert list(as_json) == KEYS
    assert {k: "-" if v is None else v for k, v in as_json.items()} == as_text
    assert all(v is None or isinstance(v, str) for v in as_json.values())
    task = status_json(box, "exec/1/status.json")
    assert (task["state"], task["exit"]) == ("ended", "3")


def test_status_of_the_root(mount, box):
    box.ok("true")

    def look():
        return (mount.path / "status").read_text().splitlines()

    def shown():
        return sorted(line.split(" ")[1] for line in look() if line.startswith("sandbox "))
    # those that other tests had are shown until they are gone, but have no name any more
    wait_for(lambda: shown() == mount.sandboxes(), 60, what=lambda: "%s, %s" % (shown(), mount.sandboxes()))
    lines = look()
    mine = [line for line in lines if line.startswith("sandbox %s " % box.name)]
    assert mine == ["sandbox %s local running ended %s" % (box.name, box.status()["id"])]
    assert any(line.startswith("provider local ok") for line in lines), lines
    assert {line.split(" ")[0] for line in lines} <= {"sandbox", "provider"}


def test_generation_rises_with_every_change(box):
    seen = [generation(box)]
    for line in ("label a=b", "protect on", "protect off", "exec true", "pause", "resume"):
        box.ctl(line)
        wait_for(lambda: generation(box) > seen[-1], what="generation after " + line)
        seen.append(generation(box))


def test_poll_wakes_on_generation(box):
    wait_for(lambda: same_for(0.3, lambda: generation(box)), 10, what="quiet")
    with open(box.dir / "status", "rb", buffering=0) as file:
        file.read()
        poll = select.poll()
        poll.register(file, select.POLLIN | select.POLLPRI | select.POLLERR)
        poll.poll(0)  # tells the kernel that somebody waits
        file.seek(0)
        file.read()
        assert poll.poll(300) == []
        timer = threading.Timer(0.2, lambda: box.ctl("label a=b"))
        timer.start()
        assert poll.poll(60_000) != []
        timer.join()


def test_last_error_and_error_file(box):
    assert box.read("error") == b"" and box.status()["last_error"] == "-"
    write_once(box.dir / "ctl", "strat\n")
    said = error_text(box)
    assert 'did you mean "start"?' in said
    assert box.status()["last_error"] == said
    box.ok("true")


# -- destruction

def test_rmdir_destroys(mount):
    box = mount.create("gone")
    box.ok("echo x > f; sleep 1000 > /dev/null 2>&1 &")
    os.rmdir(box.dir)
    assert error_of(os.stat, box.dir) == "ENOENT"
    assert "gone" not in os.listdir(mount.path)
    assert error_of(os.rmdir, box.dir) == "ENOENT"


def test_name_is_free_at_once(mount):
    for n in range(6):
        os.mkdir(mount.path / "phoenix")
        (mount.path / "phoenix" / "fs" / ("f%d" % n)).write_text("x")
        assert os.listdir(mount.path / "phoenix" / "fs") == ["f%d" % n]
        os.rmdir(mount.path / "phoenix")


def test_rmdir_is_refused_while_a_command_runs(box):
    number = box.start("sleep 1000")
    assert error_of(os.rmdir, box.dir) == "EBUSY"
    assert box.state == "running" and exit_of(box, number) == ""
    assert error_text(box)
    box.ctl("kill -9")
    box.wait(number)


def test_destroy_works_while_a_command_runs(mount):
    box = mount.create("busy")
    box.start("trap '' TERM; sleep 1000")
    box.ctl("destroy")
    wait_for(lambda: not mount.exists(box.dir), 60, what="the end")


def test_protect(mount):
    box = mount.create("precious")
    box.ctl("protect on")
    assert error_of(os.rmdir, box.dir) == "EPERM"
    assert write_once(box.dir / "ctl", "destroy\n") == ("write", "EPERM")
    assert "protect" in error_text(box)
    assert box.ok("echo still here") == b"still here\n"
    box.ctl("protect off")
    os.rmdir(box.dir)


def test_nothing_is_left_after_destroy(fresh_mount):
    mount = fresh_mount()
    before = sorted(mount.left())
    box = mount.create("tidy")
    status = box.status()
    box.ok("echo unique-content-of-tidy > file; (sleep 1000; :) > /dev/null 2>&1 &")
    box.exec("echo output-of-tidy")
    box.destroy()
    wait_for(lambda: "tidy" not in (mount.path / "status").read_text(), 60, what="the end")
    wait_for(lambda: sorted(mount.left()) == before, 10, what=lambda: str(mount.left()))
    said = run(["grep", "-rlE", "unique-content-of-tidy|output-of-tidy", mount.state], check=False)
    assert said.out == ""
    left = [path for path, _, files in os.walk(mount.state) if status["id"] in path]
    assert left == []


def test_rm_rf_does_not_eat_a_sandbox(mount, box):
    (box.fs / "dir").mkdir()
    (box.fs / "dir" / "file").write_text("precious")
    for command in (["rm", "-rf", box.dir], ["rm", "-rf", "%s/" % box.dir],
                    ["find", box.dir, "-delete"], ["rm", "-r", "-f", box.dir / "ctl", box.dir],
                    ["/usr/bin/python3", "-c", "import shutil, sys; shutil.rmtree(sys.argv[1])",
                     box.dir]):
        assert run(command, check=False).code != 0
        assert (box.fs / "dir" / "file").read_text() == "precious", command
        assert box.state == "running"


def test_rm_rf_of_the_mount(mount, box):
    (box.fs / "file").write_text("precious")
    assert run("rm -rf %s/*" % mount.path, check=False).code != 0
    assert (box.fs / "file").read_text() == "precious"


def test_tripwire_is_of_one_process(box):
    """Another process still removes what it likes below fs/."""
    (box.fs / "dir").mkdir()
    (box.fs / "dir" / "file").write_text("x")
    script = """
import os, sys
assert os.path.isdir("fs/dir")
try: os.unlink("ctl"); sys.exit(1)
except PermissionError: pass
for call in (lambda: os.unlink("fs/dir/file"), lambda: os.rmdir("fs/empty")):
    try: call(); sys.exit(2)
    except PermissionError: pass
"""
    (box.fs / "empty").mkdir()
    run(["/usr/bin/python3", "-c", script], cwd=box.dir)
    run(["rm", "-rf", box.fs / "dir", box.fs / "empty"])
    assert os.listdir(box.fs) == []


def test_control_files_cannot_be_unlinked(mount, box):
    script = """
import os, sys
for path in sys.argv[1:]:
    try: os.unlink(path); sys.exit(path)
    except PermissionError: pass
"""
    box.ok("true")
    names = ["ctl", "status", "stdin", "stdout", "stderr", "error", "env"]
    run(["/usr/bin/python3", "-c", script, *[box.dir / n for n in names], mount.path / "ctl",
         mount.path / "README", mount.path / "status"])
    run(["/usr/bin/python3", "-c", "import os; os.rmdir('1')"], cwd=box.dir / "exec")
    assert tasks(box) == []


# -- names

def test_mv_renames(mount, base):
    box = mount.create("before")
    box.ok("echo kept > f")
    start_counter(box)
    mount.run(["mv", mount.path / "before", mount.path / "after"])
    after = mount.box("after")
    assert error_of(os.stat, box.dir) == "ENOENT"
    assert (after.fs / "f").read_text() == "kept\n"
    assert after.status()["name"] == "after" and counts(after)
    assert after.read("exec/1/exit") == b"0\n"
    after.ctl("kill -9")
    after.destroy()


def test_mv_refusals(mount, box):
    other = mount.create("%sx" % box.name)
    try:
        assert error_of(os.rename, other.dir, box.dir) in ("EEXIST", "ENOTEMPTY")
        for name in (".git", "wait", "a b", "help"):
            assert error_of(os.rename, other.dir, mount.path / name) == "EINVAL", name
        for name in ("ctl", "status", "README"):
            assert error_of(os.rename, other.dir, mount.path / name) is not None, name
        assert error_of(os.rename, other.dir, box.fs / "x") in ("EXDEV", "EPERM", "EINVAL")
        assert error_of(os.rename, other.dir, box.dir / "x") in ("EXDEV", "EPERM", "EINVAL")
        assert error_of(os.rename, box.fs, mount.path / "fs2") in ("EXDEV", "EPERM", "EINVAL", "EBUSY")
        assert {other.name, box.name} <= set(mount.sandboxes())
    finally:
        other.destroy()


def test_open_files_follow_a_rename(mount):
    box = mount.create("from1")
    number = box.start("sleep 1; echo end")
    with open(box.dir / "exec" / number / "wait", "rb", buffering=0) as wait, \
            open(box.fs / "file", "w+") as file:
        os.rename(box.dir, mount.path / "to1")
        file.write("x")
        file.flush()
        assert (mount.path / "to1/fs/file").read_text() == "x"
        assert wait.read() == b"exit 0\n"
    mount.box("to1").destroy()


# -- pause, stop

def test_pause_stops_the_processes_and_resume_goes_on(box):
    start_counter(box)
    box.ctl("pause")
    box.wait_state("paused")
    assert stands_still(box), "it counts while paused"
    assert box.status()["execs_running"] == "1"
    (box.fs / "while-paused").write_text("files are there")
    assert (box.fs / "while-paused").read_text() == "files are there"
    box.ctl("resume")
    box.wait_state("running")
    assert counts(box)
    assert box.ok("cat while-paused") == b"files are there"
    box.ctl("kill -9 1")


def test_exec_while_paused_names_resume(box):
    box.ctl("pause")
    box.wait_state("paused")
    failed = write_once(box.dir / "ctl", "exec true\n")
    assert failed == ("write", "EHOSTDOWN") and "resume" in error_text(box), (failed,
                                                                            error_text(box))
    assert tasks(box) == []
    box.ctl("resume")
    box.wait_state("running")
    box.ok("true")


def test_pause_and_resume_many_times(box):
    start_counter(box)
    for _ in range(10):
        box.ctl("pause\nresume")
    box.wait_state("running")
    wait_for(lambda: all(r[1] != "pending" for r in results(box.dir / "ctl")), 120,
             what=lambda: str(results(box.dir / "ctl")))
    box.wait_state("running")
    assert counts(box)
    box.ctl("kill -9 1")


def test_stop_kills_and_keeps_files(box):
    number = start_counter(box)
    box.ok("echo kept > f; (while :; do sleep 0.1; done) > /dev/null 2>&1 &")
    box.ctl("stop")
    box.wait_state("stopped")
    assert (box.fs / "f").read_text() == "kept\n"
    assert stands_still(box, 0.5)
    said = wait_exit(box, number)
    assert said in ("signal 15", "signal 9", "lost", "143", "137"), said
    assert write_once(box.dir / "ctl", "exec true\n") == ("write", "EHOSTDOWN")
    assert "start" in error_text(box)
    (box.fs / "g").write_text("written while stopped")
    box.ctl("start")
    box.wait_state("running")
    assert box.ok("cat f g") == b"kept\nwritten while stopped"
    assert exit_of(box, number) == said


def test_stop_takes_at_most_its_grace_with_a_stubborn_process(box):
    number = box.start("trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done")
    wait_for(lambda: box.read("stdout"))
    box.ctl("stop")
    box.wait_state("stopped", 60)
    assert wait_exit(box, number) in ("signal 9", "lost")


def test_restart(box):
    number = start_counter(box)
    box.ctl("restart")
    wait_for(lambda: results(box.dir / "ctl")[-1][1] == "ok", 60)
    box.wait_state("running")
    assert wait_exit(box, number) != ""
    assert stands_still(box, 0.3)
    assert box.ok("echo up") == b"up\n"


def test_what_is_already_so_is_success(box):
    for line, state in (("start", "running"), ("resume", "running"), ("pause", "paused"),
                        ("pause", "paused"), ("resume", "running"), ("stop", "stopped"),
                        ("stop", "stopped"), ("start", "running")):
        box.ctl(line)
        wait_for(lambda: results(box.dir / "ctl")[-1][1] != "pending", 60)
        assert results(box.dir / "ctl")[-1][1] == "ok", results(box.dir / "ctl")[-1]
        box.wait_state(state)


def test_verbs_in_one_write_are_carried_out_in_order(box):
    box.ctl("stop\nstart\npause\nresume\nexec echo end")
    assert box.wait("1", 60) == "exit 0" and box.read("exec/1/stdout") == b"end\n"
    box.wait_state("running")


def test_small_verbs(box):
    for line in ("sync", "retry", "refresh", "label a=b", "timeout 1h", "timeout none"):
        box.ctl(line)
        wait_for(lambda: results(box.dir / "ctl")[-1][1] == "ok", 10, what=line)


def test_refresh_and_reload_at_the_root(mount):
    for line in ("refresh", "reload"):
        mount.ctl(line)
        wait_for(lambda: [r for r in results(mount.path / "ctl") if r[3] == line][-1][1] == "ok", 10)


# -- time-outs

def test_idle_timeout_pauses_and_exec_resumes(box):
    number = start_counter(box)
    box.ctl("kill -9 %s" % number)
    box.wait(number)
    box.ok("(%s) > /dev/null 2>&1 &" % COUNTER)
    box.ctl("timeout 1h")
    assert box.status()["expires"] != "-"
    box.ctl("timeout 2s")
    box.wait_state("paused")
    assert stands_still(box, 0.3)
    number = box.start("echo awake; sleep 1000")  # while it runs, the next time-out doesn't begin
    wait_output(box, number, "awake\n")
    assert box.state == "running" and counts(box)
    box.ctl("kill -9 %s" % number)
    box.wait(number)
    box.ctl("timeout none")
    assert box.status()["expires"] == "-"


def test_use_extends_the_timeout(box):
    box.ctl("timeout 10s")
    for n in range(20):
        box.ok("echo %d" % n)
        time.sleep(0.6)
        assert box.state == "running"
    box.ctl("timeout none")


def test_running_command_is_use(box):
    number = box.start(UNTIL_GO + "echo done")
    box.ctl("timeout 1s")
    assert same_for(3, lambda: box.state), "it is paused while a command runs"
    assert box.state == "running"
    (box.fs / "go").touch()
    assert box.wait(number) == "exit 0" and box.read("stdout") == b"done\n"
    box.ctl("timeout none")


def test_timeout_of_a_creation(mount):
    mount.ctl("create short timeout=2s")
    box = mount.box("short")
    box.wait_state(("running", "paused"))
    box.wait_state("paused")
    assert box.status()["ready_ms"] != "-"
    box.destroy()


# -- unmounts

def make(fresh_mount, how):
    mount = fresh_mount(options=("drain=30s", "on-unmount=%s" % how))  # what isn't done by then is not done
    box = mount.create("web")
    box.ok("echo kept > f")
    start_counter(box)
    return mount, box


def test_on_unmount_keep(fresh_mount):
    mount, box = make(fresh_mount, "keep")
    identity = (box.status()["id"], box.status()["created"])
    mount.umount()
    assert processes_of(mount.state), "the sandbox outlives sbxfs"
    mount.start()
    assert box.state == "running"
    assert (box.status()["id"], box.status()["created"]) == identity
    assert counts(box) and (box.fs / "f").read_text() == "kept\n"
    assert exit_of(box, "1") == "0" and exit_of(box, "2") == ""
    assert box.ok("cat f") == b"kept\n"
    box.ctl("kill -9 2")
    assert wait_exit(box, "2") == "signal 9"


def test_on_unmount_pause(fresh_mount):
    mount, box = make(fresh_mount, "pause")
    mount.umount()
    mount.start()
    assert box.state == "paused"
    assert stands_still(box, 0.4)
    box.ctl("resume")
    box.wait_state("running")
    assert counts(box)
    box.ctl("kill -9 2")


def test_on_unmount_destroy(fresh_mount):
    mount, box = make(fresh_mount, "destroy")
    mount.umount()
    wait_for(lambda: not processes_of(mount.state), 10, what="no process")
    mount.start()
    assert mount.sandboxes() == []


def test_names_states_and_protection_survive(fresh_mount):
    mount = fresh_mount()
    for name in ("a", "b", "c"):
        mount.create(name).ok("echo %s > f" % name)
    mount.box("b").ctl("stop")
    mount.box("b").wait_state("stopped")
    mount.box("c").ctl("protect on")
    os.rename(mount.path / "a", mount.path / "renamed")
    mount.restart()
    assert mount.sandboxes() == ["b", "c", "renamed"]
    assert mount.box("b").state == "stopped" and (mount.box("b").fs / "f").read_text() == "b\n"
    assert mount.box("renamed").state == "running"
    assert error_of(os.rmdir, mount.path / "c") == "EPERM"
    mount.box("c").ctl("protect off")
    mount.box("b").ctl("start")
    mount.box("b").wait_state("running")


# -- from outside

def holders(mount):
    """Process 1 of each sandbox of this mount, and what started it."""
    mine = {pid for pid, _ in mount.left()} - {mount.pid}
    return [pid for pid, _, name in process_table() if pid in mine and name != "sbxfs"]


def test_sandbox_killed_from_outside(fresh_mount):
    mount = fresh_mount()
    box = mount.create("victim")
    box.ok("echo kept > f")
    number = start_counter(box)
    for pid in holders(mount):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    box.ctl("refresh")
    wait_for(lambda: box.state in ("stopped", "error"), 60, what=lambda: str(box.status()))
    said = wait_exit(box, number)
    assert said in ("lost", "signal 9") or said.startswith("error"), said
    assert (box.fs / "f").read_text() == "kept\n"
    assert write_once(box.dir / "ctl", "exec true\n")[1] in ("EHOSTDOWN", "EBUSY", "ENODEV")
    box.ctl("start")
    box.wait_state("running")
    assert box.ok("cat f") == b"kept\n"


def test_sandbox_killed_while_nothing_is_mounted(fresh_mount):
    mount = fresh_mount()
    box = mount.create("victim")
    box.ok("echo kept > f")
    start_counter(box)
    mount.umount()
    for pid in holders(mount):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for(lambda: not processes_of(mount.state), 10, what="no process")
    mount.start()
    wait_for(lambda: box.state in ("stopped", "error"), 60, what=lambda: str(box.status()))
    assert wait_exit(box, "2") in ("lost", "signal 9")
    assert exit_of(box, "1") == "0"
    assert (box.fs / "f").read_text() == "kept\n"


def test_adopt_of_nothing(mount):
    failed = write_once(mount.path / "ctl", "adopt local:nosuchid as taken\n")
    if failed is None:  # accepted, and refused when it was carried out
        wait_for(lambda: results(mount.path / "ctl")[-1][1] == "error", 10)
    if "taken" in mount.sandboxes():  # as a creation that failed
        assert mount.box("taken").state == "error" and error_text(mount.box("taken"))
        mount.box("taken").destroy()
        assert "taken" not in mount.sandboxes()


@pytest.mark.parametrize("role", ["hold", "write"])
def test_open_files_of_a_destroyed_sandbox(mount, role):
    box = mount.create("stale%s" % role)
    file = os.open(box.fs / "file", os.O_WRONLY | os.O_CREAT)
    with open(box.dir / "status") as status:
        box.destroy()
        assert error_of(os.stat, box.dir) == "ENOENT"
        if role == "write":
            assert error_of(os.write, file, b"x") in ("ESTALE", None)
        error_of(status.read)
    assert error_of(os.close, file) in ("ESTALE", None)
