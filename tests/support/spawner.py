"""Starts processes in milliseconds, to be killed: a small process that has imported ncaasd already forks itself.

A daemon takes a second to import what it needs; a test that kills it a hundred times must not wait for that each time.
What is started dies with this process, and so with the test that hangs or is interrupted. One thread only, so that
forking is safe whatever the test's own process does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
PR_SET_PDEATHSIG = 1


class Process:
    """One process that a Spawner started."""

    def __init__(self, spawner: Spawner, pid: int, log: str) -> None:
        self._spawner = spawner
        self._fd = os.pidfd_open(pid)
        self._status: int | None = None
        self.pid = pid
        self.log = log

    def wait(self, timeout: float) -> int | None:
        """The exit code (negative: the signal's number), or None when it still runs after `timeout` seconds."""
        if self._status is None:
            if not select.select([self._fd], [], [], timeout)[0]:
                return None
            self._status = os.waitstatus_to_exitcode(self._spawner.request({"wait": self.pid})["status"])
            os.close(self._fd)
        return self._status

    def running(self) -> bool:
        return self.wait(0.0) is None

    def signal(self, number: int) -> None:
        if self.running():
            signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> int:
        """SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        code = self.wait(30.0)
        assert code is not None, f"process {self.pid} survives SIGKILL"
        return code

    def said(self) -> str:
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()


class Spawner:
    """Use as a context manager."""

    def __enter__(self) -> Spawner:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment["PYTHONPATH"] = os.pathsep.join([ROOT, TESTS])
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.spawner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def request(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def call(self, function: str, *args: Any, log: str, env: Mapping[str, str] | None = None) -> Process:
        """Call `module:function` in a forked process of its own."""
        return self._start({"call": function, "args": args}, log, env)

    def run(self, command: Sequence[str], *, log: str, env: Mapping[str, str] | None = None, files: int = 0) -> Process:
        """Run a command. `files`: how many file descriptors it may open (0: as many as we)."""
        return self._start({"run": list(command), "files": files}, log, env)

    def _start(self, order: dict[str, Any], log: str, env: Mapping[str, str] | None) -> Process:
        pid = self.request(order | {"log": log, "env": dict(env or {})})["pid"]
        return Process(self, pid, log)


def _child(order: Mapping[str, Any], spawner: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != spawner:
        return
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    os.environ.update(order["env"])
    if order.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if "run" in order:
        os.execvpe(order["run"][0], order["run"], os.environ)
    module, _, name = order["call"].partition(":")
    getattr(importlib.import_module(module), name)(*order["args"])


def _main() -> None:
    importlib.import_module("ncaasd.engine.service")
    importlib.import_module("support.work")
    me = os.getpid()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            print(json.dumps({"status": os.waitpid(order["wait"], 0)[1]}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _child(order, me)
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)


if __name__ == "__main__":
    _main()
