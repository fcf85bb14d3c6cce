"""What keeps a job from being submitted though all it needs is there: the spend guards. Pure.

All counts are in datasets, because each dataset is one machine. Guards are counted for each analysis by itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ncaasd.model import JobRow, JobState, Origin, Phase

OF_THE_RULE = ("backlog", "budget", "failures", "canary")  # holds that concern all jobs of a rule
# Holds that concern what one job's data is: such a job is not about to start, so it is no part of a backlog.
OF_THE_DATA = ("renamed", "copy", "zeros")
BACKLOG_WINDOW = 900.0  # jobs made within a quarter of an hour count as made at once, submitted or not


@dataclass(frozen=True, slots=True)
class Limits:
    """From the config's `jobs`, and the rule's `canary`."""

    max_active: int
    max_per_day: int
    ask_above: int
    stop_after_failures: int
    canary: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """What is going on for a rule and its analysis."""

    active: int  # datasets that run now, or may: of the whole analysis
    day: int  # datasets submitted in the last 24 h: of the whole analysis
    backlog_jobs: int = 0  # jobs of the rule made at once and not released
    backlog_datasets: int = 0
    backlog_bytes: int = 0
    done: int = 0  # jobs of the rule that are done
    under_way: int = 0  # jobs of the rule submitted and not ended
    failures: int = 0  # jobs of the rule that failed, in a row, up to now
    over_budget: str = ""  # why the last job of the rule was refused, when it was for budget


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a job isn't submitted now. `asks`: a person must release it; else it goes on by itself."""

    kind: str
    reason: str
    asks: bool
    held: bool = True  # False: it merely queues, and shows as ready


def tally(jobs: Sequence[JobRow], active: int, day: int, now: float) -> Tally:
    """`jobs` are all of one rule, in any order."""
    fresh = [
        j
        for j in jobs
        if "backlog" not in j.released
        and j.hold not in OF_THE_DATA
        and (j.phase is Phase.OPEN or (j.created > now - BACKLOG_WINDOW and not j.rebuilt))
    ]
    # By NeuroCAAS's verdict, not by what is fetched: no sibling may slip through while results come.
    ended = sorted((j for j in jobs if j.verdict is not None or j.phase is Phase.ENDED), key=lambda j: j.ended)
    failures = 0
    for job in reversed(ended):
        if (job.verdict or job.state) not in (JobState.FAILED, JobState.TIMED_OUT):
            break
        failures += 1
    last = ended[-1] if ended else None
    budget = last.reason if last and last.verdict is JobState.REFUSED and last.refused_kind == "budget" else ""
    return Tally(
        active=active,
        day=day,
        backlog_jobs=len(fresh),
        backlog_datasets=sum(j.total for j in fresh),
        backlog_bytes=sum(j.size for j in fresh),
        done=sum(j.state is JobState.DONE for j in ended),
        under_way=sum(j.phase not in (Phase.OPEN, Phase.ENDED) and j.verdict in (None, JobState.DONE) for j in jobs),
        failures=failures,
        over_budget=budget,
    )


def way_on(kind: str, job: JobRow) -> str:
    """What a person does about a job that is held, with the command: the end of its reason."""
    who = job.job_id or shlex.quote(job.spec.unit if job.spec.origin is Origin.RULE else job.spec.name)
    rule = shlex.quote(job.spec.name)
    if kind in OF_THE_RULE and job.spec.origin is Origin.RULE:
        return f"`ncaasd release --rule {rule}` lets the rule's jobs go on"
    if kind in ("foreign", "replaced"):
        return f"`ncaasd rerun {who}` submits it under a new id"
    if kind == "unseen":
        return f"`ncaasd release {who}` submits it all the same, if NeuroCAAS may read it"
    if kind in OF_THE_DATA:
        return f"`ncaasd release {who}` runs it all the same (`forget` leaves it)"
    if kind == "same":
        return f"it is made anew under another name; `ncaasd forget {who}` leaves it"
    return f"`ncaasd release {who}` lets it go on"


def guard(job: JobRow, seen: Tally, limits: Limits) -> Stop | None:
    """The first guard that stops `job`, the lasting ones first; None when it may be submitted now."""
    ruled = job.spec.origin is Origin.RULE
    # A rule that matches more than was meant: a backlog, an edit, a bulk copy (F94).
    if ruled and seen.backlog_datasets > limits.ask_above and "backlog" not in job.released:
        return Stop(
            "backlog",
            f"rule {job.spec.name} would start {seen.backlog_jobs} jobs on {seen.backlog_datasets} machines with"
            f" {seen.backlog_bytes / 1e9:.1f} GB at once, more than jobs.ask_above: {limits.ask_above}",
            asks=True,
        )
    # The platform would refuse the siblings for the same reason, one paid validation each.
    if seen.over_budget and "budget" not in job.released:
        return Stop("budget", f"the rule's last job was refused: {seen.over_budget}", asks=True)
    if (
        ruled
        and limits.stop_after_failures
        and seen.failures >= limits.stop_after_failures
        and "failures" not in job.released
    ):
        return Stop("failures", f"the last {seen.failures} jobs of rule {job.spec.name} failed in a row", asks=True)
    # One good job before the rest (F93). The canaries themselves go.
    if ruled and seen.done < limits.canary and "canary" not in job.released:
        if seen.failures and not seen.under_way:
            return Stop("canary", f"the first job of rule {job.spec.name} (its canary) failed", asks=True)
        if seen.under_way >= limits.canary - seen.done:
            return Stop(
                "canary",
                f"{limits.canary} job(s) of rule {job.spec.name} must be done first: {seen.done} so far",
                asks=False,
            )
    if seen.day + job.total > limits.max_per_day and "day" not in job.released:
        return Stop(
            "day",
            f"{seen.day} datasets were submitted in the last 24 h and jobs.max_per_day is {limits.max_per_day}",
            asks=False,
        )
    # NeuroCAAS rejects above its capacity and never queues, so the queue is here. A job larger than the limit goes alone.
    if seen.active and seen.active + job.total > limits.max_active:
        return Stop(
            "active",
            f"{seen.active} datasets are running and jobs.max_active is {limits.max_active}",
            asks=False,
            held=False,
        )
    return None
