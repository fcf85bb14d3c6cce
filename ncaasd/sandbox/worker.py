"""One machine that works on one dataset: downloads it, runs the analysis, reports its status, uploads the results.

Formats: NeuroCAAS protocol, docs/neurocaas.md, "What happens after the put".
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from ncaasd.sandbox import leash
from ncaasd.sandbox.certificate_writer import Certificate, legacy_monitor_line, monitor_line
from ncaasd.sandbox.cloud import Cloud, Place
from ncaasd.sandbox.recorder import cpu_load, memory_used
from ncaasd.sandbox.scenarios import Fate, LogFormat, Scenario

_LOG_LIMIT = 1 << 20  # bytes of a dataset's output that its status file keeps
# NeuroCAAS puts names in double quotes into a shell line, where these characters end or change them.
_SHELL = re.compile(r'["$`\\]')


@dataclass
class Worker:
    """One dataset of a job. `logs` is where status files go, `results` where results do."""

    cloud: Cloud
    scenario: Scenario
    fate: Fate
    certificate: Certificate
    data: str  # key
    data_bucket: str
    config: str  # key
    logs: Place
    results: Place
    instance: str
    command: str
    number: int  # of the job's machines, from 1
    through: Callable[[Worker], None]  # called when everything of this dataset is uploaded

    stale: str | None = None  # an old text of the certificate, into which this worker writes its lines
    late: list[tuple[str, bytes]] = field(default_factory=list)  # what is put after the end marker
    verdict: str = ""
    _cpu: str = "0.0 %"
    _started: str = ""
    _log: list[str] = field(default_factory=list)
    _errors: list[str] = field(default_factory=list)  # separate from the log only with the older workers

    @property
    def base(self) -> str:
        return self.data.rpartition("/")[2]

    @property
    def _silent(self) -> bool:
        # A worker that takes the wrong group looks for its status file where there is none, and reports nothing.
        return self.logs.bucket != self.results.bucket or self.logs.prefix != self.results.prefix

    def initialize(self) -> None:
        """Put the status file as the job manager writes it at the dispatch."""
        status = {
            "status": "INITIALIZING",
            "reason": "NONE",
            "stdout": "not given yet",
            "stderr": "not given yet",
            "input": self.data,
            "instance": self.instance,
            "command": self.command,
        }
        self.cloud.put(self.logs, self._status_name, json.dumps(status).encode())

    def run(self) -> None:
        """Run the machine until it is down. Raises Stopping."""
        if self.fate is Fate.NEVER_STARTS:
            return
        self.cloud.pause()
        self._started = _stamp()
        if self.scenario.racing and self.stale is None:
            self.stale = self.certificate.text
        here = os.path.join(self.cloud.settings.folder, self.instance)
        try:
            os.makedirs(os.path.join(here, "results"), mode=0o700)
            self._say("----DOWNLOADING DATA----\n")
            self._tell("IN PROGRESS", certificate="LOGFAIL")
            code = self._work(here)
            if self.fate in (Fate.DIES, Fate.STOPPED):
                return
            self._finish(here, code)
        finally:
            shutil.rmtree(here, ignore_errors=True)

    # -- the work

    def _work(self, here: str) -> int:
        try:
            paths = {part: self._download(os.path.join(here, part), getattr(self, part)) for part in ("data", "config")}
        except (ClientError, OSError) as error:
            self._say(f"fatal error: {error}\n")
            return 1
        paths["results"] = os.path.join(here, "results")
        self._say("----STARTING ANALYSIS----\n")
        code = self._analyse(here, paths)
        self._linger()
        if self.fate is Fate.FAILURE and code == 0:
            code = 1
            self._complain("Traceback (most recent call last):\n")
            self._complain(f"ValueError: the sandbox was asked to make {self.base} fail\n")
        return code

    def _download(self, folder: str, key: str) -> str:
        if _SHELL.search(key):
            raise OSError(f'unexpected end of the file name in "s3://{self.data_bucket}/{key}"')
        os.mkdir(folder)
        path = os.path.join(folder, key.rpartition("/")[2])
        self.cloud.s3.download_file(self.data_bucket, key, path)
        size = os.path.getsize(path)
        self._say("\n")
        self._say(f"{key}  {size} / {size}  (100.00%)\n")
        return path

    def _analyse(self, here: str, paths: dict[str, str]) -> int:
        """Run the command, and report at every tick what it has printed. Returns its exit code; 127 if it cannot be started."""
        command = [_filled(part, paths) for part in self.cloud.settings.analysis]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment["PYTHONUNBUFFERED"] = "1"
        before = list(self._log)
        merged = self.scenario.log_format is LogFormat.STD
        printed, complained = (os.path.join(here, name) for name in ("stdout", "stdout" if merged else "stderr"))

        def tell() -> None:
            self._log = before + _lines(printed)
            self._errors = [] if merged else _lines(complained)
            self._tell("IN PROGRESS")

        with open(printed, "ab") as stdout, open(complained, "ab") as stderr:
            try:
                running = leash.start(command, cwd=here, env=environment, stdout=stdout, stderr=stderr)
            except OSError as error:
                self._say(f"{error}\n")
                return 127
        try:
            code = running.wait(0.0)
            while code is None and self.fate not in (Fate.DIES, Fate.STOPPED):
                self.cloud.sleep(0.0)
                code = running.wait(self.cloud.settings.tick)
                tell()
        finally:
            running.end()
        tell()
        return code or 0

    def _linger(self) -> None:
        """Make the analysis take longer if the scenario wants it."""
        # In an ensemble the last machine is ready first, so that the others overwrite its verdict.
        ahead = max(0, self.scenario.ensemble - self.number)
        end = time.monotonic() + self.scenario.seconds + 3 * ahead * self.cloud.settings.tick
        while (rest := end - time.monotonic()) > 0:
            self.cloud.sleep(min(rest, self.cloud.settings.tick))
            self._tell("IN PROGRESS")

    # -- the end

    def _finish(self, here: str, code: int) -> None:
        if code == 0:
            self._say("----UPLOADING RESULTS----\n")
            self._upload(os.path.join(here, "results"))
        self.verdict = self.scenario.failure if code else self.scenario.success
        self._tell(self.verdict, reason=code, finished=True)
        self.cloud.pause()
        # A copy of the config and update.txt are put for every dataset, also after a failure.
        name = self.config.rpartition("/")[2]
        config = os.path.join(here, "config", name)
        if os.path.exists(config):
            self._put_file(name, config)
        if not self.scenario.early_end:
            self._put_result("update.txt", b"")
        self.through(self)

    def _upload(self, folder: str) -> None:
        found = [
            os.path.relpath(os.path.join(parent, name), folder)
            for parent, _folders, names in os.walk(folder)
            for name in names
        ]
        made = [("summary.txt", f"summary of {self.base}\n".encode())] if self.scenario.equal_names else []
        if self.scenario.odd_names:
            made += [(name, f"the content of {name}\n".encode()) for name in ODD_NAMES]
        found.sort()
        if self.scenario.late_result and found:
            last = found.pop()
            with open(os.path.join(folder, last), "rb") as file:
                self.late.append((last, file.read()))
        for name in found:
            self._put_file(name, os.path.join(folder, name))
        if self.scenario.ensemble:
            packed = f"{folder}.zip"
            with zipfile.ZipFile(packed, "w") as file:
                for name in found:
                    file.write(os.path.join(folder, name), name)
            self._put_file(f"results{self.number}.zip", packed)
        for name, body in made:
            self._put_result(name, body)

    def _put_file(self, name: str, path: str) -> None:
        # As `aws s3 cp` does it: in parts when it is large.
        self.cloud.s3.upload_file(path, self.results.bucket, self.results.key(f"process_results/{name}"))

    def _put_result(self, name: str, body: bytes) -> None:
        self.cloud.put(self.results, f"process_results/{name}", body)

    # -- what it reports

    def _say(self, line: str) -> None:
        self._log.append(line)

    def _complain(self, line: str) -> None:
        (self._log if self.scenario.log_format is LogFormat.STD else self._errors).append(line)

    @property
    def _status_name(self) -> str:
        return f"logs/DATASET_NAME:{self.base}_STATUS.txt"

    def _tell(self, status: str, *, reason: int | None = None, finished: bool = False, certificate: str = "") -> None:
        """Rewrite the status file, and this dataset's line in the certificate."""
        if self._silent:
            return
        self._cpu = f"{cpu_load():.1f} %"
        body = self._status(status, reason=reason, finished=finished)
        if self.scenario.half_written:
            self.cloud.put(self.logs, self._status_name, body[: len(body) // 2])
            self.cloud.pause(0.5)
        self.cloud.put(self.logs, self._status_name, body)
        if self.scenario.log_format is LogFormat.STD:
            last = "" if finished and reason == 0 else "".join(self._log[-1:]).replace("\n", " ").strip()
            line = monitor_line(self.data, certificate or status, finished=finished, command=last, cpu=self._cpu)
        else:
            cpu = self._cpu.split(".")[0]
            line = legacy_monitor_line(self.data, status, finished=finished, command=self._last_command, cpu=cpu)
        self.certificate.replace(self.data, line, seen=self.stale)

    @property
    def _last_command(self) -> str:
        return " ".join(self.cloud.settings.analysis).replace("\n", " ")

    def _status(self, status: str, *, reason: int | None, finished: bool) -> bytes:
        log = self._log
        if self.scenario.log_format is LogFormat.STD:
            values: dict[str, Any] = {
                "instance": self.instance,
                "command": self.command,
                "input": self.data,
                "status": status,
                "reason": reason,
                "memory_usage": f"{memory_used() >> 20} MB",
                "cpu_usage": self._cpu,
                "job_start": self._started,
                "job_finish": _stamp() if finished else "N/A",
                "std": {str(number): line for number, line in enumerate(log)},
            }
            return json.dumps(values, indent=4).encode()

        def written(lines: list[str]) -> str | dict[str, str]:
            text = self.scenario.log_format is LogFormat.LEGACY_TEXT
            return "".join(lines) if text else {str(number): line for number, line in enumerate(lines)}

        values = {
            "status": status,
            "cpu_usage": [self._cpu.split(".")[0]],
            "stdout": written(log),
            "instance": self.instance,
            "reason": [self._last_command],
            "command": self.command,
            "stderr": written(self._errors),
            "input": self.data,
        }
        return json.dumps(values, indent=4).encode()


ODD_NAMES = (
    "with space.txt",
    "with:colon.txt",
    "Case.txt",
    "case.txt",
    "e\u0301.txt",  # é as two characters
    "\u00e9.txt",  # é as one
    "trailing.dot.",
    "CON.txt",
    "deep/er/file.txt",
    "quote'\"$.txt",
    "x" * 250 + ".txt",
)


def _filled(part: str, paths: dict[str, str]) -> str:
    for name, path in paths.items():
        part = part.replace(f"{{{name}}}", path)
    return part


def _lines(path: str) -> list[str]:
    """The lines that were printed, each ending in a newline; of much output only the end."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _LOG_LIMIT))
        return [line + "\n" for line in file.read().decode(errors="replace").split("\n") if line]


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
