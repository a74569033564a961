# SPDX-License-Identifier: Apache-2.0
"""What is refused: for each control file malformed input, its errno, its sentence, and that nothing was done."""

import os
import re

import pytest

from support.control import (error_of, error_text, exit_of, results, submit, tasks, write_once)

DEEP = '{"verb":"exec","text":"x","a":' + "[" * 3000 + "]" * 3000 + "}"

# (line, errno, what the sentence says)
SANDBOX = [
    ("strat", "EINVAL", 'unknown verb "strat"; did you mean "start"'),
    ("STOP", "EINVAL", 'unknown verb "STOP"'),
    ("rm -rf /", "EINVAL", 'unknown verb "rm"'),
    ("\x1b[31mstop", "EINVAL", "unknown verb"),
    ("create x", "EINVAL", '"create" is a command of the root'),
    ("stop now", "EINVAL", "column 6"),
    ("pause; resume", "EINVAL", "unknown verb"),
    ("exec", "EINVAL", "exec needs a command"),
    ("exec cwd=/", "EINVAL", "exec needs a command"),
    ("exec cwd='/tmp ls", "EINVAL", "column 10: unclosed quote"),
    ("exec tmeout=5 -- ls", "EINVAL", 'did you mean "timeout"'),
    ("exec timeout=soon ls", "EINVAL", "time span"),
    ("exec timeout=1s timeout=2s ls", "EINVAL", "given twice"),
    ("exec name=../x ls", "EINVAL", "name"),
    ("exec name=12 ls", "EINVAL", "name"),
    ("exec name=last ls", "EINVAL", "name"),
    ("exec name=.x ls", "EINVAL", "name"),
    ("exec name=%s ls" % ("n" * 64), "EINVAL", "name"),
    ("exec stdin=yes ls", "EINVAL", "open"),
    ("exec unsent=yes ls", "EINVAL", "ignore"),
    ("exec env.1=x ls", "EINVAL", "variable"),
    ("exec env.=x ls", "EINVAL", "variable"),
    ("execv", "EINVAL", "execv needs a program"),
    ("execv 'ls", "EINVAL", "column 7: unclosed quote"),
    ("execv ls \\", "EINVAL", "backslash"),
    ("kill 99", "ENOENT", "99"),
    ("kill nosuch", "ENOENT", "nosuch"),
    ("kill ../..", "ENOENT", ""),
    ("kill -FOO", "EINVAL", "unknown signal"),
    ("kill -0", "EINVAL", "unknown signal"),
    ("kill -65", "EINVAL", "unknown signal"),
    ("kill 1 2", "EINVAL", "nothing more"),
    ("eof 99", "ENOENT", "99"),
    ("timeout", "EINVAL", "time span"),
    ("timeout -5", "EINVAL", "time span"),
    ("timeout 5 parsecs", "EINVAL", "column"),
    ("timeout 99999999999999999999", "EINVAL", "too long"),
    ("label", "EINVAL", "key=value"),
    ("label =x", "EINVAL", "key=value"),
    ("protect maybe", "EINVAL", "on or off"),
    ("discard", "EINVAL", "path"),
    ("discard nothing/here", "ENOENT", ""),
    ("{", "EINVAL", "JSON"),
    ("{}", "EINVAL", '"verb"'),
    ('{"verb":"exec"}', "EINVAL", '"text"'),
    ('{"verb":"exec","text":"ls","txt":"ls"}', "EINVAL", 'unknown key "txt"'),
    ('{"verb":"exec","text":1}', "EINVAL", '"text" must be'),
    ('{"verb":"exec","argv":"ls"}', "EINVAL", '"argv" must be'),
    ('{"verb":"exec","argv":[]}', "EINVAL", '"argv"'),
    ('{"verb":"exec","text":"a","text":"b"}', "EINVAL", '"text" is given twice'),
    ('{"verb":"exec","text":"ls"} ls', "EINVAL", "JSON"),
    ('{"verb":"exec","text":"a\\u0000b"}', "EINVAL", "JSON"),
    ('{"verb":"exec","text":"ls","name":"1"}', "EINVAL", "name"),
    ("[1]", "EINVAL", "unknown verb"),
    (DEEP, "EINVAL", "JSON"),
]


def unchanged(box):
    """What must be the same after something was refused."""
    now = box.status()
    return (tasks(box), now["state"], now["exec"], now["execs_running"], now["env"],
            os.listdir(box.fs), [r for r in results(box.dir / "ctl") if r[1] != "error"])


@pytest.fixture(scope="module")
def quiet(_shared):
    """One sandbox for all rows; none of them may change it."""
    return {}


@pytest.fixture
def box_for_all(mount, quiet):
    if quiet.get("mount") is not mount:
        quiet["mount"], quiet["box"] = mount, mount.create("badinput")
    return quiet["box"]


@pytest.mark.parametrize("line,code,sentence", SANDBOX, ids=[r[0][:40] for r in SANDBOX])
def test_ctl_of_a_sandbox(box_for_all, line, code, sentence):
    box = box_for_all
    before = unchanged(box)
    assert write_once(box.dir / "ctl", line + "\n") == ("write", code)
    said = error_text(box)
    assert sentence in said, said
    assert "\n" not in said and "\x1b" not in said and len(said) <= 1100
    assert box.status()["last_error"] in (said, said[:1024]) or sentence in box.status()["last_error"]
    assert unchanged(box) == before


def test_raw_bytes_in_ctl(box_for_all):
    box = box_for_all
    before = unchanged(box)
    for data, code in ((b"exec a\0b\n", "EINVAL"), (b"\xff\xfe\n", "EINVAL"),
                       (b'{"verb":"exec","text":"\xff"}\n', "EINVAL"), (b"\x00\n", "EINVAL"),
                       (b"# \x00\n", "EINVAL"), (b"exec " + b"x" * (1 << 20) + b"\n", "E2BIG")):
        descriptor = os.open(box.dir / "ctl", os.O_WRONLY)
        try:
            failed = None
            for at in range(0, len(data), 500_000):
                failed = failed or error_of(os.write, descriptor, data[at:at + 500_000])
        finally:
            error_of(os.close, descriptor)
        assert failed == code, data[:20]
        assert re.fullmatch(r"[ -~]*", error_text(box)), error_text(box)
    assert unchanged(box) == before


def test_kill_and_eof_without_any_exec(box):
    for line in ("kill", "eof", "kill -9"):
        assert write_once(box.dir / "ctl", line + "\n") in (
            ("write", "ENOENT"), ("write", "ESRCH")), line
    assert error_text(box)


def test_kill_and_eof_of_an_exec_that_has_ended(box):
    box.ok("true")
    for line in ("kill", "kill 1", "kill -9 1"):
        assert write_once(box.dir / "ctl", line + "\n")[1] in ("ESRCH", "ENOENT", "EBUSY"), line
    assert exit_of(box, "1") == "0"
    assert write_once(box.dir / "exec/1/ctl", "kill\n")[1] in ("ESRCH", "ENOENT", "EBUSY")


TASK = [
    ("stop", "EINVAL", "sandbox's ctl"),
    ("exec ls", "EINVAL", "sandbox's ctl"),
    ("kill 1", "EINVAL", "no exec"),
    ("kill -FOO", "EINVAL", "unknown signal"),
    ("eof now", "EINVAL", "no exec"),
    ("kil", "EINVAL", 'did you mean "kill"'),
    ('{"verb":"kill","exec":1}', "EINVAL", "none is named"),
]


@pytest.mark.parametrize("line,code,sentence", TASK, ids=[r[0] for r in TASK])
def test_ctl_of_an_exec(box, line, code, sentence):
    number = box.start("sleep 1000")
    assert write_once(box.dir / "exec" / number / "ctl", line + "\n") == ("write", code)
    assert sentence in error_text(box)
    assert exit_of(box, number) == ""
    assert write_once(box.dir / "exec" / number / "ctl", "kill -9\n") is None
    assert box.wait(number) == "signal 9"


ROOT = [
    ("create", "EINVAL", "create needs a name"),
    ("create cpu=2", "EINVAL", "create needs a name"),
    ("create .git", "EINVAL", "name"),
    ("create a/b", "EINVAL", "name"),
    ("create ..", "EINVAL", "name"),
    ("create -x", "EINVAL", "name"),
    ("create %s" % ("x" * 64), "EINVAL", "name"),
    ("create ctl", "EINVAL", "ctl"),
    ("create wait", "EINVAL", "wait"),
    ("create README", "EINVAL", "README"),
    ("create bad one", "EINVAL", "column 12"),
    ("create bad cpu", "EINVAL", "column 12"),
    ("create bad cpu=", "EINVAL", "cpu"),
    ("create bad cpu=fast", "EINVAL", "cpu"),
    ("create bad cpu=-1", "EINVAL", "cpu"),
    ("create bad memory=4X", "EINVAL", "memory"),
    ("create bad memory=99999999999999999G", "EINVAL", "memory"),
    ("create bad processes=many", "EINVAL", "processes"),
    ("create bad timeout=soon", "EINVAL", "timeout"),
    ("create bad colour=red", "EINVAL", "colour"),
    ("create bad memry=1G", "EINVAL", "memory"),
    ("create bad cpu=1 cpu=2", "EINVAL", "given twice"),
    ("create bad env.A-B=x", "EINVAL", "variable"),
    ("create bad provider=", "EINVAL", "provider"),
    ("create bad provider=nosuch", ("ENOENT", "EINVAL"), "nosuch"),
    ("create bad net=maybe", ("EINVAL", "EOPNOTSUPP"), "net"),
    ("create bad net=host", "EPERM", "net"),
    ("create bad isolation=none", "EPERM", "isolation"),
    ("create bad isolation=half", ("EINVAL", "EOPNOTSUPP"), "isolation"),
    ("create bad mount.1=/etc:/etc2", "EPERM", "mount"),
    ("create bad mount.1=etc:/etc2", ("EINVAL", "EPERM"), "mount"),
    ("create bad runtime=runsc", ("EPERM", "EOPNOTSUPP"), "runtime"),
    ("create bad host=example.org", ("EOPNOTSUPP", "EPERM"), "host"),
    ("create bad host=-oProxyCommand=x", ("EINVAL",), "host"),
    ("create bad identity=/etc/shadow", ("EOPNOTSUPP", "EPERM"), "identity"),
    ("create bad template=x", "EOPNOTSUPP", "template"),
    ("create bad snapshot=x", "EOPNOTSUPP", "snapshot"),
    ("create bad image='x", "EINVAL", "unclosed quote"),
    ("crate bad", "EINVAL", 'did you mean "create"'),
    ("exec ls", "EINVAL", "sandbox's ctl"),
    ("destroy bad", "EINVAL", "sandbox's ctl"),
    ("adopt", "EINVAL", "PROVIDER:ID"),
    ("adopt local", "EINVAL", "PROVIDER:ID"),
    ("adopt nosuch:x", ("ENOENT", "EINVAL"), "nosuch"),
    ("adopt local:x as .git", "EINVAL", "name"),
    ("refresh all", "EINVAL", "column 9"),
    ('{"verb":"create","name":"bad","cpu":"x"}', "EINVAL", "cpu"),
    ('{"verb":"create","name":"bad","net":"host"}', "EPERM", "net"),
    ('{"verb":"create","cpu":1}', "EINVAL", "name"),
    ('{"verb":"create","name":"bad","env":["A"]}', "EINVAL", '"env" must be'),
]


@pytest.mark.parametrize("line,code,sentence", ROOT, ids=[r[0][:40] for r in ROOT])
def test_ctl_of_the_root(mount, line, code, sentence):
    before = mount.sandboxes()
    failed = write_once(mount.path / "ctl", line + "\n")
    assert failed and failed[0] == "write"
    assert failed[1] in ((code,) if isinstance(code, str) else code)
    assert mount.sandboxes() == before
    last = results(mount.path / "ctl")[-1]
    assert last[1] == "error", last
    assert sentence in last[3] and failed[1] in last[3], last


def test_existing_name(mount, box):
    assert write_once(mount.path / "ctl", "create %s\n" % box.name) == ("write", "EEXIST")
    assert error_of(os.mkdir, box.dir) == "EEXIST"


def test_several_creations_of_which_one_is_bad(mount):
    before = mount.sandboxes()
    for data in ("create m1\ncreate m2 cpu=x\n", "create m1\ncreate m1\n", "create m1\nstrat\n"):
        assert write_once(mount.path / "ctl", data)[0] == "write"
        assert mount.sandboxes() == before, data


ENV = [
    (b"s3cret\n", "KEY=VALUE"), (b"=s3cret\n", "variable"), (b"export A=s3cret\n", "variable"),
    (b"A B=s3cret\n", "variable"), (b"1A=s3cret\n", "variable"), (b"A=s3\0cret\n", "NUL"),
    (b"GOOD=1\ns3cret\n", "KEY=VALUE"), (b"\xff=s3cret\n", "variable"),
]


@pytest.mark.parametrize("data,sentence", ENV, ids=[repr(r[0]) for r in ENV])
def test_env(box, data, sentence):
    assert write_once(box.dir / "env", data) == ("write", "EINVAL")
    said = error_text(box)
    assert sentence in said and "s3cret" not in said and "s3" not in said, said
    assert box.status()["env"] == "-"
    assert box.ok("env | grep -c -e s3 -e GOOD || true") == b"0\n"
    assert "s3cret" not in box.read("status").decode()


def test_env_without_newline(box):
    assert write_once(box.dir / "env", b"s3cret") == ("close", "EINVAL")
    assert "s3cret" not in error_text(box)


def test_env_that_is_too_large(box):
    descriptor = os.open(box.dir / "env", os.O_WRONLY)
    failed = None
    for n in range(300):
        failed = failed or error_of(os.write, descriptor, b"K%d=%s\n" % (n, b"x" * 10_000))
    os.close(descriptor)
    assert failed == "E2BIG"
    box.ok("true")


def test_stdin_that_nobody_reads(box):
    assert error_of(os.open, box.dir / "stdin", os.O_WRONLY) == "ENOENT"  # no command yet
    number = box.start("sleep 1000")
    for path in (box.dir / "stdin", box.dir / "exec" / number / "stdin"):
        assert write_once(path, b"x\n") == ("write", "EBUSY")
        assert error_text(box)
    assert write_once(box.dir / "ctl", "eof\n") == ("write", "EBUSY")
    box.ctl("kill -9")
    box.wait(number)
    assert write_once(box.dir / "exec" / number / "stdin", b"x\n")[1] in ("EBUSY", "EPIPE")


CMD = [b'{"text":"x"', b'{"argv":[]}', b'{"txt":"ls"}', b'{"text":"x","name":"n"}',
       b'{"verb":"stop"}', b'{"text":"a","text":"b"}', b"a\0b", b'{"text":"x","timeout":"soon"}']


@pytest.mark.parametrize("data", CMD, ids=[repr(d) for d in CMD])
def test_cmd(box, data):
    """Nothing runs; the reason is in `error`. Whoever waits is not left waiting for ever."""
    os.mkdir(box.dir / "exec" / "bad")
    failed = write_once(box.dir / "exec/bad/cmd", data)
    said = box.read("exec/bad/wait.1").decode()
    assert failed is not None and failed[1] == "EINVAL" or "error" in said, (failed, said)
    assert error_text(box)
    assert box.read("exec/bad/stdout") == b""
    assert box.status()["execs_running"] == "0"


def test_cmd_that_is_empty(box):
    os.mkdir(box.dir / "exec" / "empty")
    write_once(box.dir / "exec/empty/cmd", b"")
    write_once(box.dir / "exec/empty/cmd", b"\n")
    assert box.status()["execs_running"] == "0"
    assert box.read("exec/empty/stdout") == b""


def test_cmd_by_a_bad_rename(box):
    os.mkdir(box.dir / "exec" / "bad")
    (box.dir / "exec/bad/.tmp").write_bytes(b'{"text":')
    failed = error_of(os.rename, box.dir / "exec/bad/.tmp", box.dir / "exec/bad/cmd")
    assert failed == "EINVAL" or box.read("exec/bad/wait.1").startswith(b"error")
    assert error_text(box)


@pytest.mark.parametrize("name", ["12", "0", "last", ".x", "a b", "-x", "x" * 64, "a."])
def test_names_of_execs(box, name):
    assert error_of(os.mkdir, box.dir / "exec" / name) in ("EINVAL", "EEXIST", "ENAMETOOLONG")
    assert tasks(box) == []


def test_cpu_and_memory_in_every_spelling_that_is_wrong(mount):
    before = mount.sandboxes()
    for value in ("", "1e3", "0x10", "1,5", "1 G", "G", "-1G", "1.2.3G", "1GB1", "1PiBB", "\u0661"):
        failed = write_once(mount.path / "ctl", 'create bad memory="%s"\n' % value)
        assert failed == ("write", "EINVAL"), value
    assert mount.sandboxes() == before


def test_submit_answers_nothing_when_refused(box):
    descriptor = os.open(box.dir / "ctl", os.O_RDWR)
    assert error_of(os.write, descriptor, b"exec echo a\nstrat\n") == "EINVAL"
    assert os.read(descriptor, 100) == b""
    os.close(descriptor)
    assert submit(box.dir / "ctl", "exec true\n") == "1\n"


def test_the_sentence_goes_to_whom_it_concerns(mount, box):
    """What one sandbox refuses is not in another's error file."""
    other = mount.create("%sother" % box.name)
    try:
        write_once(box.dir / "ctl", "strat\n")
        assert error_text(other) == ""
        assert other.status()["last_error"] == "-"
    finally:
        other.destroy()
