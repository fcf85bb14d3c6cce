"""The present state, gathered from the journal, and from a running daemon what only that knows, into one value.

The terminal, `--json` and the page show the same `StatusReport`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ncaasd.adapters.journal import Journal
from ncaasd.engine.core.documents import text, when
from ncaasd.model import FileRow, FileState, JobRow, JobState, Place, Skipped
from ncaasd.plan.holds import OF_THE_DATA, is_mended
from ncaasd.plan.holds import command as command_of
from ncaasd.show import words

CHECKED_FOR_CHANGES = 2000  # newest submitted jobs whose datasets are compared with their files' present content
ATTENTION_SHOWN = 200
NAMED = 20  # up to this many jobs whose reasons name a file each are shown one by one


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file under way. `name` is its key, `file` the local file that is uploaded, if known. `left` is in seconds; None while
    it isn't known."""

    analysis: str
    name: str
    up: bool
    done: int
    size: int
    rate: float
    file: str = ""

    @property
    def left(self) -> float | None:
        return words.left(self.done, self.size, self.rate)


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that needs a person. `command` is the command for it; empty when only the reason says what to do."""

    kind: str  # held | lost | changed | file | manifest
    analysis: str
    name: str
    why: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class ManifestNote:
    path: str
    problems: tuple[str, ...]  # empty: it is in force
    read_at: float


@dataclass
class AnalysisStatus:
    """One analysis: (files, bytes) by state, jobs by state, and the manifests. Whole files are to be uploaded; `left` has, by
    reason, those that will not be. `skipped`: what is in the trees and is not a file for us."""

    name: str
    files: dict[FileState, tuple[int, int]] = field(default_factory=dict)
    left: dict[str, tuple[int, int]] = field(default_factory=dict)
    jobs: dict[JobState, int] = field(default_factory=dict)
    manifests: list[ManifestNote] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)


@dataclass(frozen=True, slots=True)
class StatusReport:
    """All that `ncaasd status` shows. `pid` is the daemon's, None when it doesn't run."""

    at: float
    root: str
    pid: int | None
    rig: str
    analyses: tuple[AnalysisStatus, ...]
    transfers: tuple[Transfer, ...]
    attention: tuple[Attention, ...]
    troubles: tuple[str, ...]
    watching: Mapping[str, str]  # tree -> how it is watched, and why

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "at": when(self.at),
            "root": self.root,
            "daemon": {"running": self.pid is not None, "pid": self.pid or None},
            "rig": self.rig or None,
            "analyses": [_analysis_document(a) for a in self.analyses],
            "transfers": [
                {
                    "analysis": t.analysis,
                    "name": text(t.name),
                    "file": text(t.file) or None,
                    "direction": "up" if t.up else "down",
                    "done": t.done,
                    "size": t.size,
                    "rate": round(t.rate),
                    "seconds_left": None if t.left is None else round(t.left),
                }
                for t in self.transfers
            ],
            "attention": [
                {
                    "kind": a.kind,
                    "analysis": a.analysis,
                    "name": text(a.name),
                    "why": text(a.why),
                    "command": text(a.command) or None,
                }
                for a in self.attention
            ],
            "troubles": [text(t) for t in self.troubles],
            "watching": dict(self.watching),
        }


def _analysis_document(analysis: AnalysisStatus) -> dict[str, Any]:
    return {
        "name": analysis.name,
        "files": {str(s): {"files": n, "bytes": b} for s, (n, b) in analysis.files.items()},
        "not_uploaded": [{"why": text(why), "files": n, "bytes": b} for why, (n, b) in analysis.left.items()],
        "skipped": {
            "count": analysis.skipped.count,
            "first": [{"what": text(str(s.place)), "why": text(s.reason)} for s in analysis.skipped.first],
        },
        "jobs": {str(s): n for s, n in analysis.jobs.items()},
        "manifests": [
            {"path": text(m.path), "ok": not m.problems, "errors": [text(p) for p in m.problems]}
            for m in analysis.manifests
        ],
    }


def status_report(
    journal: Journal, live: Mapping[str, Any] | None, *, root: str, analyses: Iterable[str], pid: int | None, now: float
) -> StatusReport:
    """`journal` may be a reader; `live` is the daemon's answer to {"do": "live"}, None when there is none.

    `analyses` are the config's; others that the journal knows, which were removed from the config, are not shown.
    """
    found = {name: AnalysisStatus(name) for name in analyses}
    for count in journal.count_files():
        if count.analysis in found:
            found[count.analysis].files[count.state] = (count.files, count.bytes)
    for left in journal.count_left():
        if left.analysis in found:
            status = found[left.analysis]
            status.left[left.why] = (left.files, left.bytes)
            whole, much = status.files.pop(FileState.WHOLE, (0, 0))
            if whole > left.files:
                status.files[FileState.WHOLE] = (whole - left.files, much - left.bytes)
    attention: list[Attention] = []
    for name, status in found.items():
        status.skipped = journal.first_skipped(name, ATTENTION_SHOWN)
        for m in journal.manifests(name):
            status.manifests.append(ManifestNote(m.path, tuple(m.problems.splitlines()), m.read_at))
            if m.problems:
                attention.append(Attention("manifest", name, m.path, m.problems))
        status.jobs = {c.state: c.jobs for c in journal.count_jobs(name, forgotten=False)}
        attention += held_jobs(journal, name)
        attention += changed_since(journal, journal.jobs_with_news(name, CHECKED_FOR_CHANGES))
        attention += [
            Attention("file", name, str(row.place), f"{row.state}: {row.reason}")
            for row in journal.files(name, states=[FileState.HELD, FileState.REFUSED], limit=ATTENTION_SHOWN)
        ]
    live = live or {}
    return StatusReport(
        at=now,
        root=root,
        pid=pid,
        rig=str(live.get("rig", "")),
        analyses=tuple(found.values()),
        transfers=tuple(_transfer(journal, t) for t in live.get("transfers", ())),
        attention=tuple(attention[:ATTENTION_SHOWN]),
        troubles=tuple(live.get("troubles", ())),
        watching={name: _how(mode) for name, mode in live.get("watching", {}).items()},
    )


def _transfer(journal: Journal, t: Mapping[str, Any]) -> Transfer:
    up = t["direction"] == "up"
    rows = journal.files_with_key(t["analysis"], t["name"]) if up else []
    here = next((r for r in rows if r.state not in (FileState.GONE, FileState.REFUSED)), None)
    return Transfer(
        t["analysis"], t["name"], up, t["done"], t["size"], t["rate"], _short(here.place) if here is not None else ""
    )


def _short(place: Place) -> str:
    return f"{place.tree}:{place.path}" if place.tree else place.path


def _how(mode: Mapping[str, str]) -> str:
    return f"{mode['mode']}: {mode['why']}" if mode.get("why") else mode["mode"]


def newest_attempts(jobs: Iterable[JobRow]) -> list[JobRow]:
    """The last attempt of each job, in the order of `jobs`, which are the newest first as the journal returns them."""
    newest: dict[tuple[str, str, str, str], JobRow] = {}
    for job in jobs:
        key = (job.spec.analysis, job.spec.name, job.spec.unit, job.spec.version)
        if key not in newest or job.attempt > newest[key].attempt:
            newest[key] = job
    return list(newest.values())


def known_as(job: JobRow) -> str:
    """A job's name on the command line: its id, or its number here while it has none."""
    return job.job_id or str(job.row)


def title(job: JobRow) -> str:
    """A job's title: its rule's or own name, its unit if that is another name, and the attempt if it isn't the first."""
    spec = job.spec
    name = spec.name if spec.unit in ("", spec.name) else f"{spec.name} {spec.unit}"
    return name + (f" (attempt {job.attempt})" if job.attempt else "")


def held_jobs(journal: Journal, analysis: str) -> list[Attention]:
    """The jobs that wait for a person, with the command for each. Many of one rule that are held for one reason are one line."""
    found = []
    for held in journal.held_jobs(analysis):
        job, count = held.newest, held.jobs
        each = is_mended(job.hold) or job.hold in OF_THE_DATA
        if count == 1 or (each and count <= NAMED):
            for one in [job] if count == 1 else _held_alike(journal, job):
                found.append(Attention("held", analysis, title(one), one.reason, way_on(one)))
            continue
        if is_mended(job.hold):
            found.append(Attention("held", analysis, f"{title(job)} and {count - 1} more like it", job.reason))
            continue
        much = f"{words.count(held.machines, 'machine')}, {words.size(held.bytes)}"
        shown = f"{job.spec.name}: {words.count(count, 'job')} ({much})"
        found.append(Attention("held", analysis, shown, job.reason, command_of(job, all_alike=True)))
    for job in journal.jobs(analysis, unfinished=True, newest=True, states=[JobState.LOST], limit=ATTENTION_SHOWN):
        if not job.forgotten:
            command = f"ncaasd rerun {known_as(job)}"
            found.append(Attention("lost", analysis, title(job), job.reason, command))
    return found


def _held_alike(journal: Journal, job: JobRow) -> list[JobRow]:
    """The jobs of this job's name with the same kind of hold, the newest first."""
    held = journal.jobs(job.spec.analysis, unfinished=True, newest=True, states=[JobState.HELD])
    alike = [j for j in held if (j.spec.name, j.hold) == (job.spec.name, job.hold)]
    return [j for j in alike if not j.forgotten]


def way_on(job: JobRow) -> str:
    """The command that ends a job's hold, with the job's name on the command line; "" when something must be mended instead."""
    return command_of(job, who=known_as(job))


def changed_since(journal: Journal, jobs: Sequence[JobRow]) -> list[Attention]:
    """The jobs whose data has changed since they were submitted: no new job is made of it automatically (F87)."""
    found = []
    for job in jobs:
        if not job.submitted or job.hold:
            continue
        if any(_has_changed(row, d.etag) for d in job.spec.datasets if (row := journal.file_of(d)) is not None):
            why = f"already job {job.job_id} of {words.moment(job.submitted)[:10]}; its data has changed since"
            command = f"ncaasd rerun {known_as(job)}"
            found.append(Attention("changed", job.spec.analysis, title(job), why, command))
    return found


def _has_changed(row: FileRow, etag: str) -> bool:
    """Whether the local file differs from what was at its key when the job was submitted."""
    if not etag or row.state in (FileState.GONE, FileState.REFUSED):
        return False
    return bool(row.stored) and (row.etag != etag or row.state in (FileState.SETTLING, FileState.WHOLE))
