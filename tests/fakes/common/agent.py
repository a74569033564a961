# SPDX-License-Identifier: Apache-2.0
"""Process 1 of a sandbox: starts commands, signals them, and reports their ends.

Its arguments are two descriptors: a SOCK_SEQPACKET socket, and its own text. A request is one JSON
message; `start` comes with the descriptors of a JSON text (argv, env, cwd, uid, gid, session, group,
tty) and of the command's stdin, stdout and stderr. When the socket closes it ends, and with it all
that lives in here.
"""

import array
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import termios

UNIX = socket.socket(fileno=int(sys.argv[1]))
CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC


def receive():
    data, control, _, _ = UNIX.recvmsg(65536, socket.CMSG_SPACE(64), CLOEXEC)
    fds = array.array("i")
    for level, kind, content in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[:len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def say(**message):
    try:
        UNIX.send(json.dumps(message).encode())
    except OSError:
        os._exit(0)


def become(spec, fds, report):
    """In the child: what the command needs, then the command."""
    stage = "set up"
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if spec.get("session"):
            os.setsid()
        elif spec.get("group"):
            os.setpgid(0, 0)
        for number in range(3):
            os.dup2(fds[number], number)
        if spec.get("tty"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.umask(0o022)
        if spec["uid"] is not None:
            os.setgroups([])
            os.setgid(spec["gid"])
            os.setuid(spec["uid"])
        stage = "chdir"
        os.chdir(spec["cwd"])
        stage = "exec"
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(report, json.dumps([stage, error.errno]).encode())
    except ValueError:
        os.write(report, json.dumps([stage, errno.EINVAL]).encode())
    finally:
        os._exit(127)


def start(request, fds, running):
    with open(fds[0], "rb") as file:
        spec = json.load(file)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(spec, fds[1:], theirs)
    os.close(theirs)
    for fd in fds[1:]:
        os.close(fd)
    said = os.read(ours, 4096)  # until the exec closes it
    os.close(ours)
    if said:
        os.waitpid(pid, 0)
        stage, number = json.loads(said)
        say(id=request["id"], stage=stage, errno=number)
        return
    running.add(pid)
    say(id=request["id"], pid=pid)


def send_signal(request):
    try:
        os.kill(request["pid"], request["signal"])
        say(id=request["id"])
    except OSError as error:
        say(id=request["id"], errno=error.errno, stage="kill")


def every(number):
    """A signal to all but us, twice: what was forked meanwhile gets it too."""
    for _ in range(2):
        try:
            os.kill(-1, number)
        except ProcessLookupError:
            return


def reap(running):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in running:
            running.discard(pid)
            say(ended=pid, status=status)


def main():
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.umask(0o022)
    UNIX.set_inheritable(False)
    os.close(int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    UNIX.sendmsg([b'{"hello":1}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [root]))])
    os.close(root)
    running = set()
    while True:
        ready, _, _ = select.select([UNIX, ours], [], [])
        if ours in ready:
            os.read(ours, 4096)
        reap(running)
        if UNIX not in ready:
            continue
        data, fds = receive()
        if not data:
            os._exit(0)
        request = json.loads(data)
        if request["op"] == "start":
            start(request, fds, running)
        elif request["op"] == "kill":
            send_signal(request)
        elif request["op"] == "all":
            every(request["signal"])
            say(id=request["id"])
        reap(running)


main()
