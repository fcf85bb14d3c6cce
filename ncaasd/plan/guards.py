"""What keeps a job from being submitted though all it needs is there: the spend guards. Pure.

All counts are in machines: one per dataset, until a job's certificate says that there are more (an ensemble). From then on the
rule's next jobs are expected to have as many. Each analysis is counted by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ncaasd.declare.sections import Jobs
from ncaasd.model import Hold, JobRow, JobState, Origin, Phase
from ncaasd.plan.holds import OF_THE_DATA

BACKLOG_WINDOW = 900.0  # jobs made within a quarter of an hour count as made at once, submitted or not


@dataclass(frozen=True, slots=True)
class Limits:
    """From the config's `jobs`, and the rule's `canary`."""

    max_active: int
    max_per_day: int
    ask_above: int
    stop_after_failures: int
    canary: int = 0

    @classmethod
    def of(cls, jobs: Jobs, canary: int) -> Limits:
        return cls(jobs.max_active, jobs.max_per_day, jobs.ask_above, jobs.stop_after_failures, canary)


@dataclass(frozen=True, slots=True)
class Tally:
    """What the guards count for a rule and its analysis."""

    active: int  # machines that run now, or may: of the whole analysis
    day: int  # machines of jobs submitted in the last 24 h: of the whole analysis
    backlog_jobs: int = 0  # jobs of the rule made at once and not released
    backlog_machines: int = 0
    backlog_bytes: int = 0
    done: int = 0  # jobs of the rule that are done
    under_way: int = 0  # jobs of the rule submitted and not ended
    failures: int = 0  # jobs of the rule that failed, in a row, up to now
    over_budget: str = ""  # why the last job of the rule was refused, when it was for budget
    per_dataset: float = 1.0  # machines that a job of the rule is expected to have for each dataset


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a job isn't submitted now. `asks`: a person must release it; else it goes on by itself."""

    kind: Hold
    reason: str
    asks: bool
    held: bool = True  # False: it merely queues, and shows as ready


Known = tuple[int, int] | None  # (machines, datasets) of the newest job whose machines are known


def newest_known(jobs: Iterable[JobRow]) -> Known:
    """`jobs` in any order; jobs started elsewhere don't count. The journal's `machines_per_dataset` does the same in SQL."""
    known = (j for j in jobs if j.machines and j.spec.origin is not Origin.ELSEWHERE)
    newest = max(known, key=lambda j: j.row, default=None)
    return (newest.machines, newest.total) if newest else None


def per_dataset(of_the_rule: Known, of_the_analysis: Known) -> float:
    """How many machines a job is expected to have for each dataset: as many as the newest known job of its rule, else of its
    analysis; 1 before any is known."""
    known = of_the_rule or of_the_analysis
    return max(1.0, known[0] / max(1, known[1])) if known else 1.0


def expected_machines(datasets: int, each: float) -> int:
    """The machines of a job with so many datasets, while they aren't known yet. `each`: see `per_dataset`."""
    return max(datasets, math.ceil(datasets * each - 1e-9))


def machines_of(job: JobRow, each: float) -> int:
    """What a job counts for: the machines that it is known to have, else those that it is expected to have."""
    return job.machines or expected_machines(job.total, each)


def tally(jobs: Sequence[JobRow], active: int, day: int, now: float, each: float = 1.0) -> Tally:
    """`jobs` are all of one rule, in any order; `each`: see `per_dataset`."""
    fresh = [
        j
        for j in jobs
        if Hold.BACKLOG not in j.released
        and j.hold not in OF_THE_DATA
        and (j.phase is Phase.OPEN or (j.created > now - BACKLOG_WINDOW and not j.rebuilt))
    ]
    # By NeuroCAAS's verdict, not by the fetched results: no other job of the rule may be submitted while results are fetched.
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
        backlog_machines=sum(machines_of(j, each) for j in fresh),
        backlog_bytes=sum(j.size for j in fresh),
        done=sum(j.state is JobState.DONE for j in ended),
        under_way=sum(j.phase not in (Phase.OPEN, Phase.ENDED) and j.verdict in (None, JobState.DONE) for j in jobs),
        failures=failures,
        over_budget=budget,
        per_dataset=each,
    )


def guard(job: JobRow, seen: Tally, limits: Limits) -> Stop | None:
    """The first guard that stops `job`, the lasting ones first; None when it may be submitted now."""
    ruled = job.spec.origin is Origin.RULE
    machines = machines_of(job, seen.per_dataset)
    # A rule that matches more than was meant: a backlog, an edit, a bulk copy (F94).
    if ruled and seen.backlog_machines > limits.ask_above and Hold.BACKLOG not in job.released:
        return Stop(
            Hold.BACKLOG,
            f"rule {job.spec.name} would start {seen.backlog_jobs} jobs on {seen.backlog_machines} machines with"
            f" {seen.backlog_bytes / 1e9:.1f} GB at once, more than jobs.ask_above: {limits.ask_above}",
            asks=True,
        )
    # The platform would refuse the rule's other jobs for the same reason, after one paid validation each.
    if seen.over_budget and Hold.BUDGET not in job.released:
        return Stop(Hold.BUDGET, f"the rule's last job was refused: {seen.over_budget}", asks=True)
    if (
        ruled
        and limits.stop_after_failures
        and seen.failures >= limits.stop_after_failures
        and Hold.FAILURES not in job.released
    ):
        return Stop(Hold.FAILURES, f"the last {seen.failures} jobs of rule {job.spec.name} failed in a row", asks=True)
    # `canary` jobs must be done before the rest (F93). The canaries themselves are submitted.
    if ruled and seen.done < limits.canary and Hold.CANARY not in job.released:
        if seen.failures and not seen.under_way:
            return Stop(Hold.CANARY, f"the first job of rule {job.spec.name} (its canary) failed", asks=True)
        if seen.under_way >= limits.canary - seen.done:
            return Stop(
                Hold.CANARY,
                f"{limits.canary} job(s) of rule {job.spec.name} must be done first: {seen.done} so far",
                asks=False,
            )
    if seen.day + machines > limits.max_per_day and Hold.DAY not in job.released:
        were = "machine was" if seen.day == 1 else "machines were"
        return Stop(
            Hold.DAY,
            f"{seen.day} {were} started in the last 24 h, this job takes {machines} more, and jobs.max_per_day is"
            f" {limits.max_per_day}",
            asks=False,
        )
    # NeuroCAAS rejects jobs above its capacity and never queues them, so the queue is here. A job above the limit runs alone.
    if seen.active and seen.active + machines > limits.max_active:
        run = "machine is" if seen.active == 1 else "machines are"
        return Stop(
            Hold.ACTIVE,
            f"{seen.active} {run} running, this job takes {machines} more, and jobs.max_active is {limits.max_active}",
            asks=False,
            held=False,
        )
    return None
