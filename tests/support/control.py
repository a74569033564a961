# SPDX-License-Identifier: Apache-2.0
"""What the tests of control files share: single writes, their errors, and what was done."""

import errno
import json
import os

from .tools import Failed, wait_for

KEYS = ("state phase since name provider id provider_state reachable image cpu memory disk expires "
        "env exec exec_state exit execs_running dirty_files dirty_bytes unsent generation created "
        "ready_ms last_error").split()
TASK_KEYS = "state exit started ended pid dropped_stdout dropped_stderr name".split()
STATES = ("creating starting running pausing paused resuming stopping stopped destroying gone "
          "error unknown").split()
TASK_FILES = "cmd status exit stdin stdout stderr output ctl".split()
BOX_FILES = "ctl stdin stdout stderr status error env".split()


def errno_name(number):
    """Linux has two names for one number."""
    return errno.errorcode[number].replace("ENOTSUP", "EOPNOTSUPP")


def error_of(function, *args, **kwargs):
    """The errno of the OSError that the call raises, as its name; None if it raises none."""
    try:
        function(*args, **kwargs)
    except OSError as error:
        return errno_name(error.errno)
    return None


def write_once(path, data, flags=os.O_WRONLY):
    """One write(2) and close(2) each: None, or (where it failed, name of the errno)."""
    data = data.encode() if isinstance(data, str) else data
    descriptor = os.open(path, flags)
    failed = None
    try:
        count = os.write(descriptor, data)
        if count != len(data):
            failed = ("short", count)
    except OSError as error:
        failed = ("write", errno_name(error.errno))
    try:
        os.close(descriptor)
    except OSError as error:
        failed = failed or ("close", errno_name(error.errno))
    return failed


def submit(path, data, size=65536):
    """Write to a descriptor and read what it answers."""
    data = data.encode() if isinstance(data, str) else data
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, data)
        return os.read(descriptor, size).decode()
    finally:
        os.close(descriptor)


def tasks(box):
    """The names below exec/, without `last`, in order of creation for numbered ones."""
    names = [n for n in box.mount.do(os.listdir, box.dir / "exec") if n != "last"]
    return sorted(names, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))


def outputs(box):
    """stdout of each exec, in order, after all have ended."""
    found = []
    for name in tasks(box):
        box.wait(name)
        found.append(box.read("exec/%s/stdout" % name).decode("utf-8", "surrogateescape"))
    return found


def error_text(box):
    return box.read("error").decode("utf-8", "surrogateescape").rstrip("\n")


def exit_of(box, number):
    return box.read("exec/%s/exit" % number).decode().rstrip("\n")


def results(path):
    """The lines of a ctl: (number, state, value, command)."""
    with open(path) as file:
        lines = file.read().splitlines()
    found = []
    for line in lines:
        number, state, value, command = (line.split(" ", 3) + [""])[:4]
        found.append((int(number), state, value, command))
    return found


def status_json(box, name="status.json"):
    return json.loads(box.read(name))


def generation(box):
    return int(box.status()["generation"])


def wait_output(box, number, text, file="stdout", timeout=60):
    """Wait until the output of a running exec holds the text."""
    text = text.encode() if isinstance(text, str) else text
    wait_for(lambda: text in box.read("exec/%s/%s" % (number, file)), timeout, 0.005,
             lambda: "%r in %s of exec %s, which is %r" % (text, file, number, box.result(number)))


def wait_exit(box, number, timeout=60):
    box.wait(number, timeout)
    return exit_of(box, number)


def same_for(seconds, look):
    """True if what look() returns stays the same for some time."""
    import time
    before = look()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if look() != before:
            return False
    return True


__all__ = [name for name in dir() if not name.startswith("_")] + ["Failed"]
