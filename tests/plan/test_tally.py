"""What is going on for a rule, as the spend guards count it: each field of `Tally` by the jobs that make it."""

from __future__ import annotations

from typing import Any

import pytest
from builders import NOW, cases, ended, job, sent

from ncaasd.model import JobRow, JobState, Phase
from ncaasd.plan.guards import BACKLOG_WINDOW, Tally, tally

DONE, FAILED, REFUSED, TIMED_OUT = JobState.DONE, JobState.FAILED, JobState.REFUSED, JobState.TIMED_OUT
ONE = {"backlog_jobs": 1, "backlog_machines": 1, "backlog_bytes": 1000}  # what one ordinary open job counts for
JUST_NOW = NOW - BACKLOG_WINDOW + 1


def fetching(verdict: JobState, **more: Any) -> JobRow:
    """NeuroCAAS has said how it ended, and its results are being fetched."""
    return sent(state=JobState.FETCHING, verdict=verdict, **more)


def counted(jobs: list[JobRow], expected: dict[str, Any]) -> None:
    assert tally(jobs, 2, 5, NOW) == Tally(2, 5, **expected)
    assert tally(jobs[::-1], 2, 5, NOW) == Tally(2, 5, **expected), "in any order"


@pytest.mark.parametrize(
    ("jobs", "expected"),
    cases(
        ("no jobs", [], {}),
        ("an open job", [job()], ONE),
        ("two open jobs", [job(), job("b.tif", size=5)],
         {"backlog_jobs": 2, "backlog_machines": 2, "backlog_bytes": 1005}),
        ("an open job of three datasets", [job(total=3)], ONE | {"backlog_machines": 3}),
        ("an open job whose machines are known", [job(machines=4)], ONE | {"backlog_machines": 4}),
        ("an open job of last year", [job(created=NOW - 3e7)], ONE),
        ("an open job that a new journal found", [job(rebuilt=True)], ONE),
        ("released from the backlog", [job(released=frozenset({"backlog"}))], {}),
        ("released from something else", [job(released=frozenset({"day", "budget"}))], ONE),
        ("held for the rule's sake", [job(hold="budget", state=JobState.HELD)], ONE),
        ("held as a part of the backlog", [job(hold="backlog", state=JobState.HELD)], ONE),
        ("held because a part of its unit can't be taken", [job(hold="part", state=JobState.HELD)], ONE),
        ("held as renamed", [job(hold="renamed", state=JobState.HELD)], {}),
        ("held as a copy", [job(hold="copy", state=JobState.HELD)], {}),
        ("held as nothing but zeros", [job(hold="zeros", state=JobState.HELD)], {}),
        ("submitted, made a quarter of an hour ago, less a second", [sent(created=JUST_NOW)], ONE | {"under_way": 1}),
        ("submitted, made a quarter of an hour ago", [sent(created=NOW - 900)], {"under_way": 1}),
        ("submitted, made just now, released", [sent(created=JUST_NOW, released=frozenset({"backlog"}))], {"under_way": 1}),
        ("adopted just now by a new journal", [sent(created=JUST_NOW, rebuilt=True)], {"under_way": 1}),
        ("done, made just now", [ended(created=JUST_NOW)], ONE | {"done": 1}),
        ("failed, made just now", [ended(FAILED, created=JUST_NOW)], ONE | {"failures": 1}),
    ),
)  # fmt: skip
def test_what_counts_as_made_at_once(jobs: list[JobRow], expected: dict[str, Any]) -> None:
    counted(jobs, expected)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    cases(
        ("intended", [sent(phase=Phase.INTENT)], {"under_way": 1}),
        ("attempted", [sent(phase=Phase.ATTEMPTED)], {"under_way": 1}),
        ("submitted", [sent()], {"under_way": 1}),
        ("lost from sight", [sent(state=JobState.LOST)], {"under_way": 1}),
        ("done, and its results come: no sibling slips through meanwhile", [fetching(DONE)], {"under_way": 1}),
        ("done, and its results are here", [ended()], {"done": 1}),
        ("failed, and its results come", [fetching(FAILED)], {"failures": 1}),
        ("timed out, and its results come", [fetching(TIMED_OUT)], {"failures": 1}),
        ("refused, and its log comes", [fetching(REFUSED)], {}),
        ("ended without a verdict of NeuroCAAS", [ended(FAILED, verdict=None)], {"failures": 1}),
        ("NeuroCAAS's verdict goes before the state shown", [ended(DONE, verdict=FAILED)], {"failures": 1, "done": 1}),
    ),
)  # fmt: skip
def test_what_is_under_way_and_what_is_done(jobs: list[JobRow], expected: dict[str, Any]) -> None:
    counted(jobs, expected)


@pytest.mark.parametrize(
    ("ends", "expected"),
    cases(
        ("one failed", [FAILED], {"failures": 1}),
        ("one timed out", [TIMED_OUT], {"failures": 1}),
        ("three in a row", [FAILED, TIMED_OUT, FAILED], {"failures": 3}),
        ("two since the last that was done", [FAILED, DONE, FAILED, FAILED], {"failures": 2, "done": 1}),
        ("none since the last that was done", [FAILED, FAILED, DONE], {"failures": 0, "done": 1}),
        ("a refusal ends the row", [FAILED, FAILED, REFUSED], {}),
        ("failed after a refusal", [REFUSED, FAILED], {"failures": 1}),
    ),
)  # fmt: skip
def test_failures_in_a_row_are_counted_from_the_last_end(ends: list[JobState], expected: dict[str, Any]) -> None:
    counted([ended(end, ended=NOW - 9000 + n) for n, end in enumerate(ends)], expected)


def test_a_job_that_still_runs_ends_no_row_of_failures() -> None:
    counted([ended(FAILED, ended=1.0), sent("b.tif"), ended(FAILED, ended=2.0)], {"failures": 2, "under_way": 1})
    taken_back = sent("b.tif", ended=3.0)  # an end that the platform itself took back
    counted([ended(FAILED, ended=1.0), taken_back], {"failures": 1, "under_way": 1})


BUDGET: dict[str, Any] = {"state": REFUSED, "refused_kind": "budget", "reason": "over budget by $3"}


@pytest.mark.parametrize(
    ("jobs", "why"),
    cases(
        ("refused for budget", [ended(**BUDGET)], "over budget by $3"),
        ("refused for budget, and its log comes", [fetching(REFUSED, **{k: BUDGET[k] for k in ("refused_kind", "reason")})],
         "over budget by $3"),
        ("refused for capacity", [ended(REFUSED, refused_kind="capacity", reason="no machines")], ""),
        ("refused for budget, then one was done", [ended(**BUDGET, ended=1.0), ended(DONE, ended=2.0)], ""),
        ("one was done, then refused for budget", [ended(DONE, ended=1.0), ended(**BUDGET, ended=2.0)], "over budget by $3"),
        ("refused for budget, and another one runs", [ended(**BUDGET), sent("b.tif")], "over budget by $3"),
        ("failed, of a kind that is a refusal's", [ended(FAILED, refused_kind="budget", reason="x")], ""),
        ("the next attempt waits", [ended(**BUDGET), job(attempt=1)], "over budget by $3"),
    ),
)  # fmt: skip
def test_the_budget_counts_as_used_up_while_the_last_end_says_so(jobs: list[JobRow], why: str) -> None:
    assert tally(jobs, 0, 0, NOW).over_budget == tally(jobs[::-1], 0, 0, NOW).over_budget == why


def test_what_a_dataset_is_expected_to_take_counts_in_the_backlog_and_is_handed_on() -> None:
    seen = tally([job(total=2), job(machines=1)], 0, 0, NOW, 3.0)
    assert (seen.backlog_machines, seen.per_dataset) == (7, 3.0)


# -- what a person does about a hold
