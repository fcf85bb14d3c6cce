"""What one pass did: gathered from the journal into one value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ncaasd.adapters.journal import Journal
from ncaasd.engine.core.documents import job_document, text
from ncaasd.model import FileRow, FileState, JobRow, JobState, Phase

_BAD_ENDS = (JobState.FAILED, JobState.REFUSED, JobState.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class PassOutcome:
    """`jobs` are those that were declared or have ended in the pass, or have not ended, the oldest first."""

    stored: tuple[str, ...]  # files that were stored in S3, as `analysis: file inputs/a.tif`
    jobs: tuple[JobRow, ...]
    bad_jobs: tuple[JobRow, ...]  # ended badly in this pass; or are held, or lost
    bad_files: tuple[FileRow, ...]  # held, or refused
    bad_manifests: tuple[tuple[str, str, str], ...]  # (analysis, path, problems)
    troubles: tuple[str, ...]  # S3 or a disk was in the way

    def document(self, root: str) -> dict[str, Any]:
        return {
            "stored": [text(s) for s in self.stored],
            "jobs": [job_document(j, root) for j in self.jobs],
            "bad_files": [
                {"file": text(str(f.place)), "state": str(f.state), "reason": text(f.reason)} for f in self.bad_files
            ],
            "bad_manifests": [
                {"analysis": a, "path": text(p), "errors": text(e).splitlines()} for a, p, e in self.bad_manifests
            ],
            "troubles": [text(t) for t in self.troubles],
        }


def pass_outcome(
    journal: Journal, analyses: Iterable[str], began: float, troubles: tuple[str, ...], *, waited: bool
) -> PassOutcome:
    """`began`: when the pass began, on this machine's clock. `waited`: if true, a job that still waits counts as bad."""
    stored, jobs, files, manifests = [], [], [], []
    for analysis in analyses:
        stored += [f"{analysis}: {subject}" for subject in journal.stored_since(analysis, began)]
        jobs += [j for j in journal.jobs(analysis, newest=True, since=began) if not j.forgotten]
        files += list(journal.files(analysis, states=[FileState.HELD, FileState.REFUSED]))
        manifests += [(analysis, m.path, m.problems) for m in journal.manifests(analysis) if m.problems]
    jobs.sort(key=lambda j: (j.created, j.row))
    return PassOutcome(
        stored=tuple(stored),
        jobs=tuple(jobs),
        bad_jobs=tuple(j for j in jobs if _is_bad(j, began, waited)),
        bad_files=tuple(files),
        bad_manifests=tuple(manifests),
        troubles=troubles,
    )


def _is_bad(job: JobRow, began: float, waited: bool) -> bool:
    if job.state in _BAD_ENDS:
        return job.phase is not Phase.ENDED or job.ended >= began
    return job.state in (JobState.HELD, JobState.LOST) or (waited and job.phase is Phase.OPEN)
