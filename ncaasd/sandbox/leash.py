"""Run a command that must not outlive whoever started it.

`python leash.py COMMAND...` starts the command in a process group of its own, prints its process id, and waits. When
its own standard input is closed, which the kernel does when the parent is gone, however it went, the group is asked
to end (SIGTERM), and killed when it has not after a few seconds. When the command ends, so does the leash, with its
exit code (128 + the signal's number, as shells do). Standard library only, and run as a file: the interpreter starts
isolated and without site-packages.

A pipe rather than PR_SET_PDEATHSIG: that one is sent when the *thread* that forked ends, and there is none on macOS.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

GRACE = 5.0  # seconds between SIGTERM and SIGKILL


def command_line(command: list[str]) -> list[str]:
    """What to start in order to have `command` on a leash. Its standard input must be a pipe, kept open meanwhile."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), *command]


def main(command: list[str]) -> int:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    told_to_end = False

    def terminated(_number: int, _frame: object) -> None:
        nonlocal told_to_end
        told_to_end = True

    # Handlers, not SIG_IGN: those are reset when the command is executed, an ignored signal would stay ignored.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)  # Ctrl-C goes to the whole terminal; the parent decides
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % child.pid)
    os.close(1)
    while child.poll() is None:
        ready, _, _ = select.select([0, woken], [], [], 10.0)
        if woken in ready:
            os.read(woken, 4096)
        if told_to_end or (0 in ready and not os.read(0, 4096)):
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
    sys.exit(main(sys.argv[1:]))
