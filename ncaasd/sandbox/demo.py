"""`ncaasd demo`: the whole loop on this machine, with the real daemon, a real recording and a real analysis.

The demo acts as the rig's own software: it drops files into the folder, and follows its job by the status file that the
daemon keeps for it. Everything is in one folder, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

import yaml

from ncaasd import subjects
from ncaasd.errors import NcaasdError, UserError
from ncaasd.model import JobState
from ncaasd.sandbox import recorder
from ncaasd.sandbox.home import Sandbox

ANALYSIS = "demo-analysis"
PACE = 0.12  # seconds between two steps of the platform: a demo is short
PATIENCE = 60.0  # seconds from the drop to the results, at most
LOOK_EVERY = 0.1
SHOWN_LINES = 4  # of the table

CONFIG = """\
# What the analysis is told: see ncaasd/sandbox/analysis.py
smoothing_window: 0.5
title: This machine, recorded by ncaasd demo
"""
MANIFEST = """\
rules:
  - name: demo
    datasets: "**/*.csv"
    config: demo.yaml
"""

Echo = Callable[[str], None]


def run_demo(*, keep: str | None = None, seconds: float = 4.0, echo: Echo = print) -> None:
    """Record `seconds` of this machine, have the recording analysed by NeuroCAAS's whole protocol, and show the results.

    `keep`: a new folder for all files, which is kept; None: a temporary one, which is removed, also on Ctrl-C.
    Raises UserError when `keep` can't be used, NcaasdError when the results don't come.
    """
    interrupts = _Interrupts()
    with interrupts.taken(), _folder(keep) as folder:
        _Demo(folder, seconds, echo, interrupts).run()
        if keep is None:
            echo("\nAll of it is removed again; `ncaasd demo --keep DIR` keeps it.")
        else:
            echo(f"\nAll of it stays in {folder}")
    if keep is None:
        echo("Next: `ncaasd sandbox` to try your own analysis, `ncaasd init` to begin for real.")


@contextlib.contextmanager
def _folder(keep: str | None) -> Iterator[str]:
    if keep is not None:
        keep = os.path.abspath(keep)
        if os.path.lexists(keep) and (not os.path.isdir(keep) or os.listdir(keep)):
            raise UserError(f"{keep} is there already, and not an empty folder", hint="name a new one")
        os.makedirs(keep, exist_ok=True)
        yield keep
        return
    folder = tempfile.mkdtemp(prefix="ncaasd-demo-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Interrupts:
    """Ctrl-C and SIGTERM, raised between two steps of the demo only. Python would raise them anywhere, also between the start
    of a thread or process and the `try` that ends it, which would then write into the folder that is being removed. A
    second one is raised at once."""

    def __init__(self) -> None:
        self._came = self._raised = False

    def check(self) -> None:
        """Raises KeyboardInterrupt, once, after a signal has come."""
        if self._came and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _take(self, _number: int, _frame: object) -> None:
        if self._came:
            raise KeyboardInterrupt
        self._came = True


class _Demo:
    def __init__(self, folder: str, seconds: float, echo: Echo, interrupts: _Interrupts) -> None:
        self._folder = folder
        self._seconds = seconds
        self._echo = echo
        self._interrupts = interrupts
        self._began = time.monotonic()
        self._heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()  # (who, what), from other threads
        self._root = os.path.join(folder, "data", ANALYSIS)

    def run(self) -> None:
        recording = _Recording(os.path.join(self._folder, "recording.csv"), self._seconds)
        self._say("demo", f"recording {self._seconds:g} seconds of this machine: processor, memory, disks")
        sandbox = Sandbox(
            os.path.join(self._folder, "neurocaas"),
            analyses=(ANALYSIS,),
            pace=PACE,
            say=lambda line: self._heard.put(("NeuroCAAS", line)),  # from its job manager's threads
        )
        recording.start()
        try:
            with sandbox:
                self._say("NeuroCAAS", f"a sandbox of it is up at {sandbox.server.endpoint} ({sandbox.server.engine})")
                for sentence in sandbox.server.unenforced:
                    self._say("NeuroCAAS", f"does not enforce {sentence}")
                with self._daemon(sandbox) as daemon:
                    self._drop(recording)
                    self._show(self._follow(daemon))
        finally:
            recording.stop()

    # -- the steps

    @contextlib.contextmanager
    def _daemon(self, sandbox: Sandbox) -> Iterator[subprocess.Popen[str]]:
        """`ncaasd run` as a process, as users start it, with a log of JSON lines."""
        path = sandbox.write_config(os.path.join(self._folder, "ncaasd.yaml"), os.path.join(self._folder, "data"))
        with open(path, encoding="utf-8") as file:
            config: dict[str, Any] = yaml.safe_load(file)
        config["watch"]["settle"] = "500ms"
        config["jobs"]["poll"] = {"min": "300ms", "max": "2s"}
        config["log"] = {"format": "json"}
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file, sort_keys=False)
        process = subprocess.Popen(
            [sys.executable, "-m", "ncaasd", "run", "--config", path],
            env={**os.environ, **sandbox.environment()},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is sent to the demo only, which ends the daemon
        )
        assert process.stderr is not None
        listener = threading.Thread(target=self._listen, args=(process.stderr,), name="demo listens", daemon=True)
        listener.start()
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join(2)

    def _listen(self, lines: IO[str]) -> None:
        for line in lines:
            try:
                said = json.loads(line)
                message, subject = said["message"], said.get("subject", "")
            except (ValueError, KeyError, TypeError):
                message, subject = line.rstrip(), ""
            if subject:
                kind, name = subjects.kind_of(subject)
                what = {subjects.JOB: "job", subjects.FILE: name}.get(kind, subject)
                message = f"{what}: {message.partition(f'{subject}: ')[2]}"
            self._heard.put(("ncaasd", message.removeprefix(f"{ANALYSIS}: ")))

    def _drop(self, recording: _Recording) -> None:
        """Put files into folders, as the rig's software and its owner do."""
        with open(os.path.join(self._root, "configs", "demo.yaml"), "w", encoding="utf-8") as file:
            file.write(CONFIG)
        with open(os.path.join(self._root, "manifest.yaml"), "w", encoding="utf-8") as file:
            file.write(MANIFEST)
        self._say("you", f"a config and a rule (every .csv gets a job) are in {self._root}")
        while recording.is_alive():
            self._pass_on(0.1)
        samples = recording.result()
        size = os.path.getsize(recording.path)
        os.replace(recording.path, os.path.join(self._root, "inputs", "recording.csv"))
        self._say("you", f"the recording ({samples} samples, {size} bytes) is dropped into inputs/; now look on")

    def _follow(self, daemon: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for the job's end. Returns its object in the status file."""
        deadline = time.monotonic() + PATIENCE
        path = os.path.join(self._root, "submissions", "status", "demo", "recording.csv.json")
        shown = ""
        while time.monotonic() < deadline:
            self._pass_on(LOOK_EVERY)
            job = _read_status(path)
            if job and job["state"] != shown:
                shown = job["state"]
                if shown == JobState.FETCHING or JobState(shown).ended:  # the daemon logs the others
                    self._say("status", f"{shown}, says {os.path.relpath(path, self._root)}")
                if shown in (JobState.HELD, JobState.LOST) or JobState(shown).ended:
                    self._pass_on(0)
                    if shown == JobState.DONE:
                        return job
                    raise NcaasdError(f"the demo's job is {shown}: {job['reason']}")
            if daemon.poll() is not None:
                self._pass_on(0.5)
                raise NcaasdError(f"the daemon ended by itself, with {daemon.returncode}")
        raise NcaasdError(f"no results came in {PATIENCE:.0f} s")

    def _show(self, job: dict[str, Any]) -> None:
        folder = job["results"]
        self._echo(f"\nThe results, in {os.path.relpath(folder, self._folder)}:")
        tables, pictures = [], []
        for parent, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(parent, name)
                self._echo(f"  {os.path.relpath(path, folder):<42} {os.path.getsize(path):>7} bytes")
                tables += [path] if name.endswith("_summary.csv") else []
                pictures += [path] if name.endswith(".svg") else []
        for path in tables:
            self._echo(f"\nThe first lines of {os.path.basename(path)}:")
            with open(path, encoding="utf-8") as file:
                for _number, line in zip(range(SHOWN_LINES), file, strict=False):
                    self._echo(f"  {line.rstrip()}")
        for path in pictures:
            self._echo(f"\nThe plot: {path}")

    # -- saying

    def _pass_on(self, wait: float) -> None:
        """Print the lines of the other threads; waits `wait` seconds for the first. Raises KeyboardInterrupt after Ctrl-C."""
        self._interrupts.check()
        with contextlib.suppress(queue.Empty):
            self._say(*self._heard.get(timeout=wait) if wait else self._heard.get_nowait())
            while True:
                self._say(*self._heard.get_nowait())

    def _say(self, who: str, what: str) -> None:
        self._interrupts.check()
        self._echo(f"{time.monotonic() - self._began:5.1f} s  {who:<9}  {what}")


class _Recording(threading.Thread):
    """The recording, made in a thread while everything else starts."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(name="demo records", daemon=True)
        self.path = path
        self._seconds = seconds
        self._stopped = threading.Event()
        self._samples = 0
        self._error: Exception | None = None

    def run(self) -> None:
        def sleep(seconds: float) -> None:
            if self._stopped.wait(seconds):
                raise InterruptedError

        try:
            self._samples = recorder.record(self.path, seconds=self._seconds, sleep=sleep)
        except InterruptedError:
            pass
        except OSError as error:
            self._error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(2)

    def result(self) -> int:
        if self._error is not None:
            raise NcaasdError(f"the recording could not be made: {self._error}")
        return self._samples


def _read_status(path: str) -> dict[str, Any] | None:
    """The newest job of a status file; None while there is none. The file is replaced atomically, so it is never incomplete."""
    try:
        with open(path, encoding="utf-8") as file:
            jobs: list[dict[str, Any]] = json.load(file)["jobs"]
    except (OSError, ValueError, KeyError):
        return None
    return jobs[-1] if jobs else None
