"""Runs the commands of the config's `tools`: without a shell, each in its own session, so that it can be killed as a whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence

from ncaasd.errors import ToolFailed

TIMEOUT = 6 * 3600.0  # longer than any tool that makes one file of a session should take
OUTPUT_KEPT = 8 * 1024  # bytes, of its end
OUTPUT = "output.txt"
# Environment variables that tools don't get: credentials, those of systemd's service protocol, and our setting for pydantic.
_SECRET = ("AWS_", "NCAASD_")
_OURS = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
        "LISTEN_PID",
        "PYDANTIC_DISABLE_PLUGINS",
    }
)


class LocalTools:
    """`ports.ToolRunner`. `stop` kills the running tools, and no more are started."""

    def __init__(self, base: str, *, timeout: float = TIMEOUT) -> None:
        """base: the folder that working folders are made in."""
        self._base = base
        self._timeout = timeout
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: Sequence[str], *, folder: str | None = None) -> str:
        if folder is not None:
            return self._run(command, folder)
        os.makedirs(self._base, mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._base, ignore_cleanup_errors=True) as own:
            return self._run(command, own)

    def _run(self, command: Sequence[str], folder: str) -> str:
        said = os.path.join(folder, OUTPUT)
        with open(said, "wb") as output:
            process = self._start(command, folder, output.fileno())
            try:
                code = process.wait(self._timeout)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
                with self._lock:
                    self._running.discard(process)
        text = _tail(said)
        if code is None:
            raise ToolFailed(f"{command[0]} took longer than {self._timeout / 3600:g} h and was ended", output=text)
        if code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            last = text.strip().splitlines()[-1][:300] if text.strip() else "it said nothing"
            raise ToolFailed(f"{command[0]} failed ({how}): {last}", output=text)
        return text

    def _start(self, command: Sequence[str], folder: str, output: int) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_SECRET) and k not in _OURS}
        program = shutil.which(command[0])
        if program is None:
            raise ToolFailed(f"{command[0]} is no program here", hint="give its absolute path in the config's `tools`")
        with self._lock:
            if self._stopped:
                raise ToolFailed("ncaasd is stopping")
            try:
                process = subprocess.Popen(
                    [program, *command[1:]],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise ToolFailed(f"{command[0]} can't be started: {why}") from error
            self._running.add(process)
        return process

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, with every process that it started and left running."""
    _kill(process)
    process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT_KEPT))
        return file.read().decode("utf-8", "replace")
