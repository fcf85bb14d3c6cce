"""The decision at the heart of submit-once: what to do, given what is in the bucket. Pure. See docs/exactly-once.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNSURE_AFTER = 24 * 3600.0  # a PUT that may have been sent longer ago than this is a person's to judge


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
    kind: str = ""  # of the hold
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
            "foreign",
            "another submit file has this job's name in S3: another rig or another version of ncaasd put it",
        )
    if rebuilt and "rebuilt" not in released:
        return Decision(
            Step.HOLD,
            "rebuilt",
            "S3 shows no trace of it, and it may have been run and cleaned away: "
            + (doubt or "this rig has submitted jobs that its journal does not know"),
        )
    if attempted and now - attempted > UNSURE_AFTER and "unsure" not in released:
        return Decision(
            Step.HOLD,
            "unsure",
            "its submit file may have been sent more than 24 h ago, and S3 shows neither it nor a job folder",
        )
    return Decision(Step.PUT)
