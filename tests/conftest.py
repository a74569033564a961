# SPDX-License-Identifier: Apache-2.0
"""What every Python test has: options, the watchdog, mounts, and the checks for what is left.

    pytest tests/mount                     mounts by the user that runs pytest
    pytest --as-user=sbxtest tests/mount   from root: all of it again as an unprivileged user
    pytest --fs-target=plain ...           the tests of fs/ on a plain directory, to check the tests

A test that hangs is interrupted after its time limit (300 s, or @pytest.mark.timeout(SECONDS)); if
it sits in the kernel, the FUSE connections are aborted, which frees it.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from support import kinds, mounts, sshd
from support.mounts import Mount, Settings, work_directory
from support.tools import run, wait_for

TEST_USER = "sbxtest"


def pytest_addoption(parser):
    group = parser.getgroup("sbxfs")
    group.addoption("--sbxfs", metavar="PATH", help="the sbxfs program (default: "
                    "$SBXFS_BUILD/fs/sbxfs, else build/fs/sbxfs)")
    group.addoption("--as-user", metavar="NAME", help="run the whole session as this user; it is "
                    "made if it is not there; only for root")
    group.addoption("--fs-target", metavar="local|plain|DIRECTORY", default=os.environ.get(
        "SBXFS_FS_TARGET", "local"), help="what the tests of fs/ work on")
    group.addoption("--seed", type=int, help="seed of the random walks")
    group.addoption("--steps", type=int, help="length of the random walks")
    group.addoption("--rounds", type=int, help="rounds of the consistency loops")


def pytest_configure(config):
    config.addinivalue_line("markers", "timeout(seconds): time limit of this test")
    config.addinivalue_line("markers", "mount_only: makes sense on a mount only")
    config.addinivalue_line("markers", "kinds(name...): the kinds of sandboxes it runs in")
    config.addinivalue_line("markers", "needs(what...): only in kinds that have this")
    config.addinivalue_line("markers", "slow: takes more than some seconds")
    config.addinivalue_line("markers", "xdist_group(name): one after the other in a parallel run")
    if config.getoption("--sbxfs"):
        Settings.sbxfs = os.path.abspath(config.getoption("--sbxfs"))


# -- the unprivileged user

def _ensure_user(name):
    """Make the user if it is missing; True if it was made here."""
    try:
        pwd.getpwnam(name)
        return False
    except KeyError:
        run(["useradd", "--create-home", "--shell", "/bin/sh", name])
        return True


def _open_fuse():
    """Let users open /dev/fuse; returns the mode to put back, or None."""
    mode = os.stat("/dev/fuse").st_mode & 0o7777
    if mode & 0o006 == 0o006:
        return None
    os.chmod("/dev/fuse", 0o666)
    return mode


class _User:
    """The unprivileged user and its access to /dev/fuse, both undone at the end."""

    def __init__(self, name):
        self.name = name
        self.made = _ensure_user(name)
        self.mode = _open_fuse()

    def undo(self):
        if self.mode is not None:
            os.chmod("/dev/fuse", self.mode)
        if self.made:
            run(["userdel", "--remove", self.name], check=False)


_user = pytest.StashKey()


def pytest_sessionstart(session):
    """The processes of a parallel run share the user: the one that starts them makes it."""
    if os.geteuid() == 0 and not hasattr(session.config, "workerinput"):
        if getattr(session.config.option, "numprocesses", None):
            session.config.stash[_user] = _User(TEST_USER)


def pytest_sessionfinish(session):
    if _user in session.config.stash:
        session.config.stash[_user].undo()


@pytest.fixture(scope="session")
def user(request):
    """The name of an unprivileged user that may mount. Only root can make one."""
    if os.geteuid() != 0:
        pytest.skip("only root can switch to an unprivileged user")
    if hasattr(request.config, "workerinput"):
        yield TEST_USER
        return
    who = _User(TEST_USER)
    yield who.name
    who.undo()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """--as-user: the same command once more, as that user."""
    name = config.getoption("--as-user")
    if not name:
        return None
    if os.geteuid() != 0:
        raise pytest.UsageError("--as-user is for root")
    who = _User(name)
    try:
        arguments = list(config.invocation_params.args)
        if "--as-user" in arguments:
            at = arguments.index("--as-user")
            del arguments[at:at + 2]
        arguments = [a for a in arguments if not str(a).startswith("--as-user=")]
        entry = pwd.getpwnam(name)
        environ = dict(os.environ, HOME=entry.pw_dir, USER=name, LOGNAME=name,
                       PYTHONDONTWRITEBYTECODE="1")
        for key in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            environ.pop(key, None)
        return subprocess.call(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)],
            env=environ, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    finally:
        who.undo()


# -- the watchdog

@pytest.hookimpl(trylast=True, optionalhook=True)
def pytest_xdist_newgateway(gateway):
    """With -v a worker is asked for its version first. While its main thread is at that, the tests
    would get another one, which can't have the watchdog's signal."""
    while gateway.remote_status().numexecuting > 0:
        time.sleep(0.01)
    time.sleep(0.1)


class TimeIsUp(BaseException):
    """Not an Exception, so that no test catches it by chance."""


_late = []  # the item whose time is up


def _interrupt(_signal, _frame):
    _late.append(True)
    raise TimeIsUp("the test has reached its time limit")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    _late.clear()
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else 300
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit)
    last = threading.Timer(limit + 10, mounts.abort_all)  # it sits in the kernel: free it
    last.daemon = True
    last.start()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        last.cancel()
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """pluggy loses an exception that comes while it handles another; being late stays a failure."""
    report = (yield).get_result()
    if _late and report.passed:
        report.outcome = "failed"
        report.longrepr = "the test has reached its time limit, blocked in a call"


# -- mounts

_count = 0


def _need_sbxfs():
    if not mounts.sbxfs_path().exists():
        pytest.fail("%s is not there: build it, or give --sbxfs" % mounts.sbxfs_path(),
                    pytrace=False)


@pytest.fixture
def base():
    """An empty directory that sandboxes under another uid can reach; removed afterwards."""
    path = work_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_generate_tests(metafunc):
    """Tests of fs/ run once in each kind of sandbox that their markers name."""
    if "kind" not in metafunc.fixturenames or \
            metafunc.config.getoption("--fs-target") != "local":
        return
    marker = metafunc.definition.get_closest_marker("kinds")
    needs = [word for m in metafunc.definition.iter_markers("needs") for word in m.args]
    if marker or needs:
        metafunc.parametrize("kind", kinds.chosen(marker, needs), indirect=True)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if kinds.is_left_out(item.nodeid)]
    if left_out and not config.getoption("keyword"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not kinds.is_left_out(item.nodeid)]


@pytest.fixture
def kind(request):
    """The kind of sandbox that this test runs in (support/kinds.py)."""
    return kinds.KINDS[getattr(request, "param", "local")]


@pytest.fixture(scope="session")
def _shared():
    """The holder of the mounts, one for each kind of sandbox, that most tests share."""
    kept = {}
    path = work_directory("sbxfs-shared-")
    yield kept, path
    try:
        for each in kept.values():
            each.stop()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def mount(_shared, kind):
    """One sbxfs for many tests, by the user that runs pytest; a new one if the last has died."""
    _need_sbxfs()
    kept, path = _shared
    now = kept.get(kind)
    if now is not None and not now.is_alive():
        now.dirty_end = now.expected_end = True  # the test in which it died has said so
        kept.pop(kind).stop()
        now = None
    if now is None:
        global _count
        _count += 1
        now = Mount(path / ("%s%d" % (kind, _count)), kind=kind,
                    options=("drain=1s", "max-sandboxes=4096"))
        kept[kind] = now.start()
    return now


@pytest.fixture
def fresh_mount(base):
    """fresh_mount(options=..., user=..., env=..., start=True, kind=...): a mount of this test's own."""
    _need_sbxfs()
    made = []

    def make(options=("drain=1s",), user=None, env=None, start=True, kind=kinds.LOCAL):
        new = Mount(base / str(len(made)), options=options, user=user, env=env, kind=kind)
        made.append(new)
        return new.start() if start else new
    yield make
    problems = []
    for each in reversed(made):
        try:
            each.stop()
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems)


@pytest.fixture
def box(mount):
    """A new running sandbox in the shared mount, destroyed afterwards."""
    global _count
    _count += 1
    new = mount.create("box%d" % _count)
    yield new
    if mount.is_alive():
        new.destroy()


@pytest.fixture(autouse=True)
def _healthy():
    """After each test: no sanitizer report, and no sbxfs that died by itself."""
    yield
    problems = []
    for each in mounts.live:
        report = each.scan()
        if report:
            problems.append("sanitizer report:\n" + report)
        if not each.is_alive() and not each.expected_end:
            each.expected_end = each.dirty_end = True
            problems.append("sbxfs died with %s:\n%s" % (each.process.returncode,
                                                         each.log()[-8000:]))
    assert not problems, "\n".join(problems)


@pytest.fixture(autouse=True, scope="session")
def _nothing_left():
    """At the end: nothing of what this session started is left. Zombies don't count."""
    yield
    for each in list(mounts.live):
        each.stop()
    kinds.stop_all()
    for path in mounts.work_directories:
        assert not mounts.mounts_below(path), "mounts left: %s" % mounts.mounts_below(path)
    # what was killed just now may take a moment to end
    wait_for(lambda: not mounts.leavings(mounts.work_directories), 10, 0.2,
             lambda: "processes left:\n%s" % "\n".join(mounts.leavings(mounts.work_directories)))
    accounts = sshd.left_users()
    assert not accounts, "accounts left: %s" % " ".join(accounts)
