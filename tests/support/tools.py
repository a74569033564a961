# SPDX-License-Identifier: Apache-2.0
"""Running programs and waiting, always with a bound.

A client of a stuck FUSE mount survives SIGKILL, so nothing here waits on a pipe or on a process
without a time limit: output goes to files, and a process that cannot be killed is left and named.
"""

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import time

import pytest


class Failed(AssertionError):
    """A tool ended otherwise than the test expects; the text shows all that it said."""


class Result:
    """The end of a program: its exit code (negative for a signal) and what it printed."""

    def __init__(self, argv, code, out, err):
        self.argv = argv
        self.code = code
        self.raw = out
        self.raw_err = err

    @property
    def out(self):
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def err(self):
        return self.raw_err.decode("utf-8", "surrogateescape")

    def __str__(self):
        return "%s -> %s\n--- stdout\n%s\n--- stderr\n%s" % (
            " ".join(str(a) for a in self.argv), self.code, self.out[-8000:], self.err[-8000:])


def end(process, grace=10.0):
    """Kill a process and its group; wait a moment. True if it is gone."""
    for kill in (lambda: os.killpg(process.pid, signal.SIGKILL), process.kill):
        try:
            kill()
        except (ProcessLookupError, PermissionError):
            pass
    try:
        process.wait(timeout=grace)
        return True
    except subprocess.TimeoutExpired:
        return False


def lives(pid):
    """Whether there is such a process; a zombie is none."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def run(argv, cwd=None, timeout=60, env=None, input=None, check=True, user=None, preexec=None):
    """Run a program to its end. With check, any exit code but 0 fails the test.

    `argv` may be a string: it is then given to sh -c. `env` is added to ours.
    """
    if isinstance(argv, str):
        argv = ["sh", "-c", argv]
    argv = [os.fspath(a) for a in argv]
    environ = dict(os.environ, LC_ALL="C.UTF-8")
    environ.update(env or {})
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, \
            tempfile.TemporaryFile() as given:
        if input:
            given.write(input if isinstance(input, bytes) else input.encode())
            given.seek(0)
        process = subprocess.Popen(argv, cwd=cwd, env=environ, stdin=given, stdout=out, stderr=err,
                                   start_new_session=True, preexec_fn=preexec, **identity(user))
        try:
            process.wait(timeout=timeout)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            if process.returncode is None:
                gone = end(process)
        out.seek(0)
        err.seek(0)
        result = Result(argv, process.returncode, out.read(), err.read())
    if late:
        raise Failed("not finished after %s s%s: %s" % (timeout, "" if gone else
                                                       " and beyond SIGKILL", result))
    if check and result.code != 0:
        raise Failed(str(result))
    return result


def identity(user):
    """Popen's arguments for running as `user`; nothing for None."""
    if user is None:
        return {}
    import pwd
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def small_disk(place, size):
    """A tmpfs of so many bytes ("8m") at `place`, which is made here."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=%s,mode=700" % size, "tmpfs", place])
    try:
        yield
    finally:
        run(["umount", "-l", place], check=False)


PATIENCE = 3  # times as long as a machine takes that has nothing else to do


def wait_for(condition, timeout=10.0, every=0.01, what="condition"):
    """Poll until condition() is true and return its value; fail after `timeout` seconds, and more if they are few."""
    if timeout <= 10:
        timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed("not within %s s: %s" % (timeout, what() if callable(what) else what))
        time.sleep(every)


def call_as(user, function, *args, timeout=30):
    """Call a function in a child process under another user and give back its result or exception.

    The FUSE kernel checks all of a caller's uids and gids, so root can't look into a user's mount
    in any other way. Result, and exception, must survive pickling.
    """
    import pwd
    entry = pwd.getpwnam(user)
    with tempfile.TemporaryFile() as answer:
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
                os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
                value = (True, function(*args))
            except BaseException as error:  # noqa: the parent raises it
                value = (False, error)
            try:
                answer.write(pickle.dumps(value))
                answer.flush()
            finally:
                os._exit(0)
        deadline = time.monotonic() + timeout
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.2)
                os.waitpid(pid, os.WNOHANG)
                raise Failed("not finished after %s s as %s: %s%r" % (timeout, user, function, args))
            time.sleep(0.001)
        answer.seek(0)
        ok, value = pickle.loads(answer.read())
    if ok:
        return value
    raise value


def need(*programs):
    """Skip the test, naming what is missing, unless all programs are installed."""
    for program in programs:
        if not shutil.which(program):
            pytest.skip("%s is not installed" % program)
