"""Submitting once: a job's id and exact submit file, and what to do, given what is in the bucket. Pure.

See docs/exactly-once.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ncaasd.model import Dataset, Hold, JobRow, JobSpec
from ncaasd.neurocaas.naming import ID_DIGITS, Layout, job_id, safe_key
from ncaasd.neurocaas.submission import SubmitBody

UNSURE_AFTER = 24 * 3600.0  # a person must judge a PUT that may have been sent longer ago than this


class Step(StrEnum):
    ADOPT = "adopt"  # it is submitted: by us before a crash, or before the journal was lost
    PUT = "put"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Found:
    """What the listing of the submit key and of the job's folder showed."""

    submit_etag: str | None  # None: no submit file
    folder: bool


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    kind: Hold | None = None  # HOLD
    reason: str = ""


def decide(
    found: Found,
    *,
    our_etag: str,
    attempted: float,
    rebuilt: bool,
    released: frozenset[str],
    now: float,
    doubt: str = "",
) -> Decision:
    """`our_etag`: the MD5 of the exact body. `attempted`: when a PUT may first have been sent, 0 for never.
    `rebuilt`: the journal is new on a rig that has had one, or was an old copy, so this may have been done already.
    `doubt`: how that was found out, for people.
    """
    if found.submit_etag == our_etag:
        return Decision(Step.ADOPT, reason="its submit file is in S3 already")
    if found.folder:
        return Decision(Step.ADOPT, reason="its job folder is in S3 already")
    if found.submit_etag is not None:
        return Decision(
            Step.HOLD,
            Hold.FOREIGN,
            "another submit file has this job's name in S3: another rig or another version of ncaasd put it",
        )
    if rebuilt and Hold.REBUILT not in released:
        return Decision(
            Step.HOLD,
            Hold.REBUILT,
            "S3 shows no trace of it, and it may have been run and cleaned away: "
            + (doubt or "this rig has submitted jobs that its journal does not know"),
        )
    if attempted and now - attempted > UNSURE_AFTER and Hold.UNSURE not in released:
        return Decision(
            Step.HOLD,
            Hold.UNSURE,
            "its submit file may have been sent more than 24 h ago, and S3 shows neither it nor a job folder",
        )
    return Decision(Step.PUT)


# -- the id and the submit file ------------------------------------------------------------------------------------------


def identity(job: JobRow, layout: Layout, attempt: int) -> str:
    """The job's id, made without a clock or random numbers, so that a new journal computes the same one."""
    return job_id(
        bucket=layout.bucket,
        group=layout.group,
        name=job.spec.name,
        datasets=[d.key for d in job.spec.datasets],
        attempt=attempt,
        checksums=[job.spec.version] if job.spec.version else [],
    )


def body_of(spec: JobSpec, config_key: str, job_id: str) -> SubmitBody:
    return SubmitBody(
        datanames=tuple(d.key for d in spec.datasets),
        configname=config_key,
        timestamp=job_id,
        instance_type=spec.instance_type,
        resultpath=spec.resultpath,
    )


def draft_of(job: JobRow, layout: Layout, config_key: str) -> SubmitBody:
    """What would be submitted, to be checked before the job has an id, and while its config isn't here yet."""
    return body_of(job.spec, config_key or layout.configs + safe_key(job.spec.config), "1" * ID_DIGITS)


def same_job(job: JobRow, other: JobRow) -> str:
    """Why `job` is the same as `other`, another declaration's job with the id that `job` would get; "" when `other` has another
    local file at the same key."""
    mine = {d.key: d.place for d in job.spec.datasets}
    if any(d.place is not None and mine.get(d.key) not in (None, d.place) for d in other.spec.datasets):
        return ""
    return f"{other.spec.declared_in} declares the same job ({other.spec.name} of the same data): rename this one"


def ids_of_others(dataset: Dataset, jobs: Iterable[JobRow]) -> set[str]:
    """The ids of jobs that had another local file at a dataset's key: their results are not this one's (F96). `jobs`: all that
    have a dataset of this key."""
    if dataset.place is None:
        return set()
    places = ((j.job_id, d.place) for j in jobs if j.job_id for d in j.spec.datasets if d.key == dataset.key)
    return {job_id for job_id, place in places if place not in (None, dataset.place)}
