"""The report on one job: its row, datasets, attempts and events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ncaasd.adapters.journal import Journal
from ncaasd.engine.core.documents import job_document, text, when
from ncaasd.model import Dataset, Event, FetchProgress, FileRow, FileState, JobRow, JobState, Phase
from ncaasd.show import words
from ncaasd.show.status import changed_since, known_as, title, way_on
from ncaasd.subjects import of_job

EVENTS = 500


@dataclass(frozen=True, slots=True)
class DatasetLine:
    """One dataset of the job: its key in S3, and its local file's row."""

    name: str
    key: str
    here: FileRow | None  # None: no local file maps to it (bypass, or gone)


@dataclass(frozen=True, slots=True)
class JobReport:
    job: JobRow
    root: str
    at: float
    datasets: tuple[DatasetLine, ...]
    attempts: tuple[JobRow, ...]  # all of them, the oldest first
    events: tuple[Event, ...]
    fetched: FetchProgress
    changed: str  # why a rerun may be wanted

    @property
    def command(self) -> str:
        """The command with which a person can act on the job now; empty when there is none."""
        job, name = self.job, known_as(self.job)
        if job.phase is not Phase.ENDED and job.hold is not None:
            return way_on(job)  # "" when something must be mended, which the job's reason names
        if job.state in (JobState.FAILED, JobState.REFUSED, JobState.TIMED_OUT, JobState.LOST) or self.changed:
            return f"ncaasd rerun {name}"
        return ""

    def facts(self) -> Iterator[tuple[str, str]]:
        """(name, value) of each fact for people, in order."""
        job, document = self.job, job_document(self.job, self.root)
        yield "job", f"{title(job)}, of {job.spec.analysis}"
        yield "id", job.job_id or f"none yet (number {job.row} here)"
        yield "state", f"{job.state}: {job.reason}" if job.reason else str(job.state)
        if self.command:
            yield "to do", self.command
        if self.changed:
            yield "changed", self.changed
        yield from self._times()
        if job.cost is not None:
            over = f", over the budget by {job.cost.over_by}" if job.cost.remaining is None else ""
            left = (
                "" if job.cost.remaining is None else f", {words.dollars(job.cost.remaining)} of the budget left then"
            )
            yield "cost", f"{words.dollars(job.cost.projected)} projected{left}{over}"
        for number, dataset in enumerate(self.datasets):
            yield "datasets" if not number else "", _dataset(dataset)
        if len(self.datasets) > 1 and job.submitted:
            yield "", f"{job.finished} of {len(self.datasets)} finished"
        if job.machines > len(self.datasets):
            yield "machines", f"{job.machines}, more than one on a dataset: they write one status file"
        yield "config", job.spec.config + (f" (as {job.config_key})" if job.config_key else "")
        if job.spec.overlay != "{}":
            yield "set", job.spec.overlay
        if job.spec.instance_type:
            yield "machine", job.spec.instance_type
        yield "declared in", f"{job.spec.analysis}/{job.spec.declared_in}"
        came = self.fetched
        if came.of:
            much = f"{words.size(came.bytes)} of {words.size(came.of_bytes)}"
            yield "fetched", f"{came.files} of {words.count(came.of, 'file')}, {much}"
        if document["results"]:
            yield "results", document["results"]
        others = [f"{known_as(a)} ({a.state})" for a in self.attempts if a.row != job.row]
        if others:
            yield "attempts", ", ".join(others)

    def _times(self) -> Iterator[tuple[str, str]]:
        job = self.job
        yield "declared", f"{words.moment(job.created)} ({words.ago(job.created, self.at)})"
        if job.submitted:
            yield "submitted", f"{words.moment(job.submitted)} ({words.ago(job.submitted, self.at)})"
        if job.ended and (job.state.ended or job.verdict):
            took = f", {words.span(job.ended - job.submitted)} after its submit" if job.submitted else ""
            yield "ended", f"{words.moment(job.ended)}{took}"

    def document(self) -> dict[str, Any]:
        came = self.fetched
        return job_document(self.job, self.root) | {
            "command": self.command or None,
            "changed": self.changed or None,
            "inputs": [
                {
                    "name": text(d.name),
                    "key": text(d.key),
                    "file": text(str(d.here.place)) if d.here else None,
                    "local": str(d.here.state) if d.here else None,
                }
                for d in self.datasets
            ],
            "fetched": {"files": came.files, "of": came.of, "bytes": came.bytes, "of_bytes": came.of_bytes},
            "attempts": [job_document(a, self.root) for a in self.attempts],
            "timeline": [{"at": when(e.at), "kind": e.kind, "text": e.text} for e in self.events],
        }


def _dataset(line: DatasetLine) -> str:
    if line.here is None or line.here.state is FileState.GONE:
        return f"{line.name} ({line.key}, not here)"
    row = line.here
    why = f": {row.reason}" if row.reason else ""
    name = line.name if line.key.endswith(f"/{line.name}") else f"{line.name}, in S3 {line.key}"
    return f"{name} ({words.size(row.stat.size)}, {row.state}{why})"


def job_report(journal: Journal, job: JobRow, root: str, now: float) -> JobReport:
    """`job` is a row of `journal`, which may be a reader; `root` the config's."""
    spec = job.spec
    attempts = journal.attempts(spec.analysis, spec.name, spec.unit, spec.version)
    events: list[Event] = []
    for attempt in [a for a in attempts if a.attempt <= job.attempt]:
        events += journal.events(spec.analysis, of_job(attempt), EVENTS)
    changed = changed_since(journal, [job])
    return JobReport(
        job=job,
        root=root,
        at=now,
        datasets=tuple(DatasetLine(d.name, d.key, _here(journal, spec.analysis, d)) for d in spec.datasets),
        attempts=tuple(attempts),
        events=tuple(sorted(events, key=lambda e: e.at)),
        fetched=journal.fetch_progress(job.row),
        changed=changed[0].why if changed else "",
    )


def _here(journal: Journal, analysis: str, dataset: Dataset) -> FileRow | None:
    """The local file of a dataset; for a job that was started elsewhere, the file that has its key."""
    if dataset.place is not None:
        return journal.file_at(dataset.place)
    return next((r for r in journal.files_with_key(analysis, dataset.key) if dataset.is_of(r)), None)
