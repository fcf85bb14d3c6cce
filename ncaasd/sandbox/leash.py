"""Run a command that must not outlive the process that started it.

`start()` runs this file in a small interpreter (the leash), which starts the command in a process group of its own and waits.
When the leash's standard input is closed, which the kernel does however the parent ends, the group gets SIGTERM, and SIGKILL if
it has not ended after a few seconds. When the command ends, so does the leash, with the command's exit code (128 + the signal's
number, as in shells). Standard library only.

A pipe is used rather than PR_SET_PDEATHSIG, which is sent when the *thread* that forked ends, and doesn't exist on macOS.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Leashed:
    """A command that was started. `pid` is the command's own."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int) -> None:
        self._process = process
        self.pid = pid

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """The exit code, or None when it still runs after `timeout` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def end(self) -> None:
        """Ask the command's process group to end, and wait until it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self.wait(GRACE + 10.0) is None:
            self._process.kill()
            self._process.wait()


def start(command: Sequence[str], *, cwd: str, env: Mapping[str, str], stdout: IO[bytes], stderr: IO[bytes]) -> Leashed:
    """Start `command` on a leash. Raises FileNotFoundError or PermissionError when there is no such command."""
    announced, announce = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), str(announce), *command],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=env,
            pass_fds=[announce],
            start_new_session=True,  # Ctrl-C is sent to the parent only, which then ends the command itself
        )
    finally:
        os.close(announce)
    with open(announced, "rb") as pipe:
        answer = pipe.readline().decode()
    leashed = Leashed(process, int(answer) if answer.strip().isdigit() else 0)
    if not leashed.pid:
        leashed.end()
        raise FileNotFoundError(f"{command[0]} cannot be started: {answer or 'no reason given'}")
    return leashed


def _main(announce: int, command: list[str]) -> int:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        os.write(announce, str(error).encode())
        return 127
    with contextlib.suppress(BrokenPipeError):
        os.write(announce, b"%d\n" % child.pid)
    os.close(announce)
    while child.poll() is None:
        ready, _, _ = select.select([0, woken], [], [], 10.0)
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready and not os.read(0, 4096):
            _end(child)
    code = int(child.returncode)
    return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 60.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2:]))
