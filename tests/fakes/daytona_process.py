# SPDX-License-Identifier: Apache-2.0
"""The toolbox's one-shot commands: POST /process/execute.

Kept as it is there: the text is fed to a shell on its stdin; both streams come in one string that
is no place for bytes; the answer waits for all that holds the output; a time-out loses the output;
a closed connection kills nothing.
"""

import os
import re
import signal
import threading

from common import gostyle
from common.http import Closed, Reply
from common.sandbox import Gone

HOLDERS_S = 30  # how long the answer waits for them once the shell has ended


def exit_code(status):
    """-1 for a signal, as Go says it."""
    if status is None or os.WIFSIGNALED(status):
        return -1
    return os.WEXITSTATUS(status)


class Execute:
    """One-shot commands in one sandbox."""

    def __init__(self, toolbox):
        self.toolbox = toolbox

    def run(self, request):
        value = self.toolbox.body(request)
        text = value.get("command") or ""
        if not text:
            self.toolbox.fail(request, 400, "command is required")
        envs = value.get("envs") or {} if self.toolbox.since("0.167.0") else {}
        for name in envs:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                self.toolbox.fail(request, 400, "invalid environment variable name: " + name)
        timeout = value.get("timeout") or (None if self.toolbox.since("0.155.0") else 360)
        cwd = self.toolbox.resolve(value["cwd"]) if value.get("cwd") else self.toolbox.work_dir
        if not self.toolbox.root.is_dir(cwd):
            return self.answer(-1, b"chdir %b: no such file or directory" % os.fsencode(cwd))
        try:
            process, out = self.start(text, cwd, {**self.toolbox.env, **envs})
        except OSError as error:
            return self.answer(-1, b"chdir %b: %b" % (os.fsencode(cwd), gostyle.error_text(error.errno).encode()))
        output = bytearray()
        reader = threading.Thread(target=self.read, args=(out, output), daemon=True)
        reader.start()
        if not process.ended.wait(timeout):
            try:
                process.kill(signal.SIGKILL, group=True)
            except (OSError, Gone):
                pass
            self.toolbox.fail(request, 408, "command execution timeout")
        reader.join(HOLDERS_S)
        if process.status is None:
            raise Closed("the sandbox has ended")
        return self.answer(exit_code(process.status), bytes(output))

    def answer(self, code, output):
        return Reply(200, [("Content-Type", "application/json; charset=utf-8")], gostyle.dumps(
            {"exitCode": code, "result": output.decode("utf-8", "replace")}))

    @staticmethod
    def read(fd, output):
        with open(fd, "rb", buffering=0) as file:
            while data := file.read(1 << 16):
                output += data

    def start(self, text, cwd, env):
        """(Process, descriptor of its output): the shell reads the text from its stdin."""
        sandbox = self.toolbox.box.sandbox
        shell = next((each for each in ("/bin/zsh", "/bin/bash") if self.toolbox.root.exists(each)), "/bin/sh")
        stdin, feed = os.pipe2(os.O_CLOEXEC)
        out, output = os.pipe2(os.O_CLOEXEC)
        try:
            process = sandbox.run([shell], stdin, output, output, env=env, cwd=cwd, user=self.toolbox.user,
                                  group=True)
        except (OSError, Gone) as error:
            os.close(out)
            os.close(feed)
            if isinstance(error, OSError):
                raise
            raise Closed("the sandbox has ended") from None
        finally:
            os.close(stdin)
            os.close(output)

        def write():
            try:
                with open(feed, "wb") as file:
                    file.write(os.fsencode(text))
            except BrokenPipeError:
                pass  # the shell has ended before it has read all
        threading.Thread(target=write, daemon=True).start()
        return process, out
