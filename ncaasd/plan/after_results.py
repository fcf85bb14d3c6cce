"""Which inputs may be moved or deleted once a job's results are here. Pure. A file not proved to be elsewhere stays.

NeuroCAAS never gives inputs back, so an object in S3 doesn't count as a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from ncaasd.declare.sections import AfterResults, Delete, Move
from ncaasd.model import Artefact, ArtefactState, FileRow, FileState, JobRow, JobState, Origin, Phase
from ncaasd.plan.settling import unchanged

RUN, LOCAL, REMOTE = "run", "local inputs", "remote inputs"


def steps(settings: AfterResults) -> list[str]:
    """The steps after a job that is done, in order: each waits for those before it."""
    wanted = []
    if settings.run is not None:
        wanted.append(RUN)
    if settings.local_inputs != "keep":
        wanted.append(LOCAL)
    if settings.remote_inputs == "delete":
        wanted.append(REMOTE)
    return wanted


def archive_path(settings: AfterResults, path: str) -> str:
    """Where the copy of `inputs/…` is or will be; "" where there is no archive."""
    policy = settings.local_inputs
    below = path.removeprefix("inputs/")
    if isinstance(policy, Move):
        return policy.move.replace("{path}", below)
    if isinstance(policy, Delete):
        return policy.delete.copy_at.replace("{path}", below)
    return ""


def well_done(job: JobRow) -> bool:
    """Whether a job ended as done, is not forgotten, and was not started elsewhere."""
    ended_well = job.phase is Phase.ENDED and job.verdict is JobState.DONE
    return ended_well and not job.forgotten and job.spec.origin is not Origin.ELSEWHERE


def not_here(artefacts: Sequence[Artefact]) -> str:
    """Why a job's results are not all here; "" when each was fetched and verified."""
    if not artefacts:
        return "nothing of its results was fetched"
    lacking = [a for a in artefacts if a.state is not ArtefactState.FETCHED]
    return f"{len(lacking)} of its results are not here, such as {lacking[0].name}" if lacking else ""


def is_link(row: FileRow) -> str:
    """Why a link stays for good: neither it nor what it leads to is moved or deleted. "" for an ordinary file."""
    return f"it is a symbolic link to {row.link}" if row.link else ""


def linked(link: FileRow | None) -> str:
    """Why a recording stays for as long as `link` leads to it; "" without one."""
    return f"{link.place.path} is a symbolic link to it" if link is not None else ""


def stays(row: FileRow, job: JobRow) -> str:
    """Why a local input stays for good; "" when it may be moved or deleted, as far as the journal knows."""
    if row.place.tree:
        return f"it lies in {row.place.tree}, which is only read"
    if row.link:
        return is_link(row)
    if row.state is not FileState.STORED or row.stored is None or not unchanged(row.stat, row.stored):
        return "it is not, or not any more, what was stored"
    mine = [d.etag for d in job.spec.datasets if d.is_of(row)]
    if mine and mine[0] != row.etag:
        return "the job had another content of it"
    return ""


def needed(using: Sequence[JobRow]) -> str:
    """Which unfinished job still names an input; "" for none."""
    for job in using:
        if job.phase is not Phase.ENDED:
            return f"job {job.job_id or job.spec.name} ({job.spec.unit}) is {job.state} and names it"
    return ""
