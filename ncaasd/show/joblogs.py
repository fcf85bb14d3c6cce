"""A job's fetched logs, in readable form."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ncaasd.adapters.journal import Journal
from ncaasd.engine.core.documents import text
from ncaasd.model import ArtefactState, JobRow
from ncaasd.neurocaas.certificate import Certificate, DatasetStatus, parse_certificate, parse_status, readable_log

LIMIT = 64 * 2**20  # bytes of one log that are read


@dataclass(frozen=True, slots=True)
class JobLogs:
    job: JobRow
    certificate: Certificate | None
    statuses: tuple[DatasetStatus, ...]

    @property
    def complete(self) -> bool:
        """Whether every dataset has ended, so that no more will come."""
        return bool(self.statuses) and all(s.terminal for s in self.statuses)

    def text(self) -> str:
        return readable_log(self.certificate, self.statuses)

    def document(self) -> dict[str, Any]:
        return {
            "job": self.job.job_id or None,
            "state": str(self.job.state),
            "summary": readable_log(self.certificate, ()).splitlines(),
            "datasets": [
                {
                    "name": text(s.basename),
                    "status": s.status,
                    "cpu": s.cpu,
                    "memory": s.memory,
                    "started": s.started,
                    "finished": s.finished,
                    "output": s.text(),
                }
                for s in self.statuses
            ],
        }


def read_logs(journal: Journal, job: JobRow, root: str) -> JobLogs:
    """The job's logs that were fetched. A log that is half-written or missing is left out."""
    certificate, statuses = None, []
    results = os.path.join(root, job.spec.analysis, "results")
    for artefact in journal.artefacts(job.row):
        if not artefact.name.startswith("logs/") or artefact.state is ArtefactState.REFUSED or not artefact.path:
            continue
        data = _read(os.path.join(results, artefact.path))
        if data is None:
            continue
        if artefact.name == "logs/certificate.txt":
            certificate = parse_certificate(data.decode("utf-8", "replace"))
        else:
            status = parse_status(data, artefact.name)
            if status is not None:
                statuses.append(status)
    return JobLogs(job, certificate, tuple(statuses))


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(LIMIT)
        except OSError:
            return None


@dataclass
class Following:
    """What has been shown of a job's logs, so that only new text is shown."""

    summary: set[str] = field(default_factory=set)
    shown: dict[str, str] = field(default_factory=dict)  # dataset -> its text so far
    status: dict[str, str] = field(default_factory=dict)

    def news(self, logs: JobLogs) -> str:
        """The text to print now; empty when nothing is new."""
        lines: list[str] = []
        for line in readable_log(logs.certificate, ()).splitlines():
            said = line.partition(" at ")[0]  # the time and load of a dataset's line change every few seconds
            if said not in self.summary:
                self.summary.add(said)
                lines.append(f"certificate: {line}")
        several = len(logs.statuses) > 1
        for status in logs.statuses:
            name, now = status.basename, status.text()
            before = self.shown.get(name, "")
            fresh = now[len(before) :] if now.startswith(before) else now
            self.shown[name] = now
            lines += [f"{name} | {line}" if several else line for line in fresh.splitlines()]
            if self.status.get(name) != status.status:
                self.status[name] = status.status
                lines.append(f"=== {name}: {status.status} ===")
        return "".join(f"{line}\n" for line in lines)
