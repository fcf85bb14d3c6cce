"""The spend guards count machines: one a dataset, until a job of the rule has told that it has more (F101)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ncaasd.model import Dataset, JobRow, JobSpec, JobState, Origin, Phase
from ncaasd.plan.guards import Limits, Tally, expected_machines, guard, machines_of, newest_known, per_dataset, tally

LIMITS = Limits(max_active=6, max_per_day=12, ask_above=8, stop_after_failures=3)


def job(row: int, *, machines: int = 0, datasets: int = 1, origin: Origin = Origin.RULE, name: str = "dgp") -> JobRow:
    spec = JobSpec(
        "ensemble-dgp", name, f"m{row}.zip", "", origin, "manifest.yaml", (Dataset("x", "k"),) * datasets, "c.yaml"
    )
    return JobRow(
        row=row, spec=spec, attempt=0, job_id="", phase=Phase.OPEN, state=JobState.READY, reason="", hold=None,
        released=frozenset(), created=1000.0, intended=0, attempted=0, submitted=0, ended=0, next_at=0, failures=0,
        submit_key="", config_key="", body=b"", verdict=None, refused_kind="", finished=0, total=datasets, cost=None, seen=0,
        size=10**9, rebuilt=False, forgotten=False, results="", quiet_looks=0, not_before=0, machines=machines,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("of_the_rule", "of_the_analysis", "each"),
    [
        (None, None, 1.0),  # before the first, nobody can know
        ((3, 1), None, 3.0),
        ((3, 1), (5, 1), 3.0),  # the rule's own before the analysis's
        (None, (5, 1), 5.0),
        ((3, 2), None, 1.5),
        ((1, 1), (5, 1), 1.0),
        ((1, 4), None, 1.0),  # never less than one
        ((3, 0), None, 3.0),
    ],
)
def test_F101_what_a_dataset_is_expected_to_take(
    of_the_rule: tuple[int, int] | None, of_the_analysis: tuple[int, int] | None, each: float
) -> None:
    assert per_dataset(of_the_rule, of_the_analysis) == each


@pytest.mark.parametrize(
    ("datasets", "each", "machines"),
    [(1, 1.0, 1), (4, 1.0, 4), (2, 3.0, 6), (1, 1.5, 2), (3, 1.1, 4), (10, 4 / 3, 14), (0, 3.0, 0)],
)
def test_F101_expected_machines_are_whole_and_rather_too_many(datasets: int, each: float, machines: int) -> None:
    assert expected_machines(datasets, each) == machines


def test_F101_what_is_known_of_a_job_counts_before_what_is_expected() -> None:
    assert machines_of(job(1), 3.0) == 3
    assert machines_of(job(1, machines=5), 3.0) == 5
    assert machines_of(job(1, machines=1), 3.0) == 1


def test_F101_the_newest_that_is_known_counts_and_none_of_others() -> None:
    jobs = [job(4), job(2, machines=3), job(1, machines=7), job(3, machines=9, origin=Origin.ELSEWHERE)]
    assert newest_known(jobs) == (3, 1)
    assert newest_known([job(4)]) is None


def test_F101_a_backlog_is_counted_in_machines() -> None:
    waiting = [job(row) for row in range(1, 4)]
    assert guard(waiting[0], tally(waiting, 0, 0, 1000.0), LIMITS) is None
    seen = tally(waiting, 0, 0, 1000.0, 3.0)
    assert (seen.backlog_jobs, seen.backlog_machines) == (3, 9)
    stop = guard(waiting[0], seen, LIMITS)
    assert stop is not None and stop.kind == "backlog"
    assert stop.reason == "rule dgp would start 3 jobs on 9 machines with 3.0 GB at once, more than jobs.ask_above: 8"


@pytest.mark.parametrize(
    ("active", "day", "machines", "each", "kind", "reason"),
    [
        (4, 4, 0, 3.0, "active", "4 machines are running, this job takes 3 more, and jobs.max_active is 6"),
        (1, 1, 6, 1.0, "active", "1 machine is running, this job takes 6 more, and jobs.max_active is 6"),
        (3, 3, 0, 3.0, None, ""),
        (4, 4, 0, 1.0, None, ""),
        (0, 10, 0, 3.0, "day",
         "10 machines were started in the last 24 h, this job takes 3 more, and jobs.max_per_day is 12"),
        (0, 1, 0, 12.0, "day", "1 machine was started in the last 24 h, this job takes 12 more, and jobs.max_per_day is 12"),
        (0, 9, 0, 3.0, None, ""),
        (0, 0, 0, 9.0, None, ""),  # larger than the limit: alone
    ],
)  # fmt: skip
def test_F101_what_a_job_takes_is_counted_in_machines(
    active: int, day: int, machines: int, each: float, kind: str | None, reason: str
) -> None:
    stop = guard(job(1, machines=machines), Tally(active, day, per_dataset=each), LIMITS)
    assert (stop.kind if stop else None, stop.reason if stop else "") == (kind, reason)


def test_a_released_job_goes() -> None:
    released = replace(job(1), released=frozenset({"day"}))
    assert guard(released, Tally(0, 100, per_dataset=3.0), LIMITS) is None
