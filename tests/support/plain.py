# SPDX-License-Identifier: Apache-2.0
"""A plain directory that looks like a Sandbox, to prove the tests that run commands.

It has what those tests use of support.mounts.Sandbox: fs, start, wait, result, exec, ok, kill.
"""

import os
import subprocess
from pathlib import Path

from .mounts import ExecResult
from .tools import end


class PlainBox:
    def __init__(self, path):
        self.fs = Path(path)
        self.started = []

    def start(self, text):
        self.started.append(subprocess.Popen(
            ["sh", "-c", text], cwd=self.fs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True))
        return str(len(self.started))

    def wait(self, number, timeout=60):
        process = self.started[int(number) - 1]
        if not hasattr(process, "said"):
            process.said = process.communicate(timeout=timeout)
        return "exit %d" % process.returncode

    def wait_by(self, number, how, timeout=60):
        return self.wait(number, timeout)

    def result(self, number):
        self.wait(number)
        process = self.started[int(number) - 1]
        return ExecResult(number, str(process.returncode), *process.said)

    def exec(self, text, wait=60):
        return self.result(self.start(text))

    def ok(self, text, wait=60):
        result = self.exec(text)
        assert result.exit == "0", result
        return result.stdout

    def kill(self, number):
        end(self.started[int(number) - 1])

    def is_running(self, number):
        return self.started[int(number) - 1].poll() is None

    def destroy(self):
        for process in self.started:
            if process.poll() is None:
                end(process)
            for pipe in (process.stdout, process.stderr):
                pipe.close()
        self.started = []
