"""What keeps a job from its submit: which guard speaks first, where each limit is, what `release` lets go.

Guards count machines: one a dataset, until a job of the rule has told that it has more (F101).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import NOW, cases, job

from ncaasd.model import JobRow, Origin
from ncaasd.plan.guards import Limits, Tally, expected_machines, guard, machines_of, newest_known, per_dataset, tally

LIMITS = Limits(max_active=6, max_per_day=12, ask_above=8, stop_after_failures=3)


def of(row: int, *, machines: int = 0, datasets: int = 1, origin: Origin = Origin.RULE) -> JobRow:
    return job(f"m{row}.zip", row=row, machines=machines, total=datasets, origin=origin, size=10**9)


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
    assert machines_of(of(1), 3.0) == 3
    assert machines_of(of(1, machines=5), 3.0) == 5
    assert machines_of(of(1, machines=1), 3.0) == 1


def test_F101_the_newest_that_is_known_counts_and_none_of_others() -> None:
    jobs = [of(4), of(2, machines=3), of(1, machines=7), of(3, machines=9, origin=Origin.ELSEWHERE)]
    assert newest_known(jobs) == (3, 1)
    assert newest_known([of(4)]) is None


def test_F101_a_backlog_is_counted_in_machines() -> None:
    waiting = [of(row) for row in range(1, 4)]
    assert guard(waiting[0], tally(waiting, 0, 0, NOW), LIMITS) is None
    seen = tally(waiting, 0, 0, NOW, 3.0)
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
    stop = guard(of(1, machines=machines), Tally(active, day, per_dataset=each), LIMITS)
    assert (stop.kind if stop else None, stop.reason if stop else "") == (kind, reason)


# -- which guard, and where it is

HERE = Limits(max_active=4, max_per_day=10, ask_above=6, stop_after_failures=3)
RULE, MANIFEST, SUBMIT = Origin.RULE, Origin.MANIFEST, Origin.SUBMIT
ASKS, WAITS, QUEUES = (True, True), (False, True), (False, False)  # (asks a person, counts as held)
GOES = (None, None)


def stopped(mine: dict[str, Any], seen: dict[str, Any], limits: dict[str, Any]) -> Any:
    stop = guard(job(**mine), Tally(**({"active": 0, "day": 0} | seen)), replace(HERE, **limits))
    return (stop.kind, (stop.asks, stop.held)) if stop else GOES


def released(*kinds: str) -> dict[str, Any]:
    return {"released": frozenset(kinds)}


@pytest.mark.parametrize(
    ("mine", "seen", "limits", "expected"),
    cases(
        ("nothing stops it", {}, {}, {}, GOES),
        # more than was meant
        ("a backlog of as many as may be", {}, {"backlog_machines": 6}, {}, GOES),
        ("a backlog of one more", {}, {"backlog_machines": 7}, {}, ("backlog", ASKS)),
        ("it counts in machines, not in jobs", {}, {"backlog_jobs": 99, "backlog_machines": 6}, {}, GOES),
        ("a backlog, released", released("backlog"), {"backlog_machines": 7}, {}, GOES),
        ("a backlog, released from something else", released("day"), {"backlog_machines": 7}, {}, ("backlog", ASKS)),
        ("a manifest's job is no backlog", {"origin": MANIFEST}, {"backlog_machines": 7}, {}, GOES),
        ("a submit file's job is no backlog", {"origin": SUBMIT}, {"backlog_machines": 7}, {}, GOES),
        # the budget
        ("the last one was over budget", {}, {"over_budget": "by $3"}, {}, ("budget", ASKS)),
        ("over budget, released", released("budget"), {"over_budget": "by $3"}, {}, GOES),
        ("over budget, released from something else", released("backlog"), {"over_budget": "by $3"}, {}, ("budget", ASKS)),
        ("a manifest's job is over budget, too", {"origin": MANIFEST}, {"over_budget": "by $3"}, {}, ("budget", ASKS)),
        # failures in a row
        ("fewer failures than may be", {}, {"failures": 2}, {}, GOES),
        ("as many failures as may not be", {}, {"failures": 3}, {}, ("failures", ASKS)),
        ("more failures", {}, {"failures": 9}, {}, ("failures", ASKS)),
        ("failures, released", released("failures"), {"failures": 3}, {}, GOES),
        ("failures, released from something else", released("canary"), {"failures": 3}, {}, ("failures", ASKS)),
        ("failures don't matter where the config says 0", {}, {"failures": 9}, {"stop_after_failures": 0}, GOES),
        ("failures, of a manifest's job", {"origin": MANIFEST}, {"failures": 9}, {}, GOES),
        # the canary
        ("no canary is wanted", {}, {"under_way": 5}, {"canary": 0}, GOES),
        ("the canary itself", {}, {}, {"canary": 1}, GOES),
        ("the canary runs", {}, {"under_way": 1}, {"canary": 1}, ("canary", WAITS)),
        ("the second of two canaries", {}, {"under_way": 1}, {"canary": 2}, GOES),
        ("both canaries run", {}, {"under_way": 2}, {"canary": 2}, ("canary", WAITS)),
        ("one of two is done, the other runs", {}, {"done": 1, "under_way": 1}, {"canary": 2}, ("canary", WAITS)),
        ("one of two is done, the other isn't begun", {}, {"done": 1}, {"canary": 2}, GOES),
        ("the canary is done", {}, {"done": 1, "under_way": 3}, {"canary": 1}, GOES),
        ("the canary failed", {}, {"failures": 1}, {"canary": 1}, ("canary", ASKS)),
        ("the canary failed, and was run again", {}, {"failures": 1, "under_way": 1}, {"canary": 1}, ("canary", WAITS)),
        ("one of two failed while the other runs", {}, {"failures": 1, "under_way": 1}, {"canary": 2}, GOES),
        ("one of two is done, the other failed", {}, {"done": 1, "failures": 1}, {"canary": 2}, ("canary", ASKS)),
        ("a failure after the canary was done", {}, {"done": 1, "failures": 1}, {"canary": 1}, GOES),
        ("the canary failed, released", released("canary"), {"failures": 1}, {"canary": 1}, GOES),
        ("the canary runs, released", released("canary"), {"under_way": 1}, {"canary": 1}, GOES),
        ("the canary runs, released from something else", released("day"), {"under_way": 1}, {"canary": 1},
         ("canary", WAITS)),
        ("a manifest's job has no canary", {"origin": MANIFEST}, {"under_way": 1, "failures": 1}, {"canary": 1}, GOES),
        # machines in 24 h
        ("the last machine of the day", {}, {"day": 9}, {}, GOES),
        ("one too many", {}, {"day": 10}, {}, ("day", WAITS)),
        ("too many with all its own", {"total": 3}, {"day": 8}, {}, ("day", WAITS)),
        ("larger than a day's limit, alone", {"total": 11}, {}, {}, ("day", WAITS)),
        ("the day's limit, released", released("day"), {"day": 10}, {}, GOES),
        ("the day's limit, released from something else", released("backlog"), {"day": 10}, {}, ("day", WAITS)),
        ("a manifest's job counts in the day, too", {"origin": MANIFEST}, {"day": 10}, {}, ("day", WAITS)),
        # machines at once
        ("the last free machine", {}, {"active": 3}, {}, GOES),
        ("all are running", {}, {"active": 4}, {}, ("active", QUEUES)),
        ("too many with all its own, at once", {"total": 3}, {"active": 2}, {}, ("active", QUEUES)),
        ("larger than the limit, with nothing running", {"total": 9}, {}, {}, GOES),
        ("larger than the limit, with one running", {"total": 9}, {"active": 1}, {}, ("active", QUEUES)),
        ("no release lets more run at once", released("active", "day"), {"active": 4}, {}, ("active", QUEUES)),
        ("a manifest's job queues, too", {"origin": MANIFEST}, {"active": 4}, {}, ("active", QUEUES)),
    ),
)  # fmt: skip
def test_what_stops_a_job(mine: dict[str, Any], seen: dict[str, Any], limits: dict[str, Any], expected: Any) -> None:
    assert stopped(mine, seen, limits) == expected


ALL_AT_ONCE = {"backlog_machines": 7, "over_budget": "by $3", "failures": 3, "day": 10, "active": 4}


@pytest.mark.parametrize(
    ("kinds", "next_one"),
    [((), "backlog"), (("backlog",), "budget"), (("backlog", "budget"), "failures"),
     (("backlog", "budget", "failures"), "canary"), (("backlog", "budget", "failures", "canary"), "day"),
     (("backlog", "budget", "failures", "canary", "day"), "active")],
)  # fmt: skip
def test_the_lasting_guards_come_first_and_a_release_is_of_one_kind(kinds: tuple[str, ...], next_one: str) -> None:
    assert stopped(released(*kinds), ALL_AT_ONCE, {"canary": 1})[0] == next_one


@pytest.mark.parametrize(
    ("seen", "limits", "reason"),
    cases(
        ("budget", {"over_budget": "over by $3"}, {}, "the rule's last job was refused: over by $3"),
        ("failures", {"failures": 4}, {}, "the last 4 jobs of rule dgp failed in a row"),
        ("the canary failed", {"failures": 1}, {"canary": 1}, "the first job of rule dgp (its canary) failed"),
        ("canaries run", {"under_way": 1, "done": 1}, {"canary": 2}, "2 job(s) of rule dgp must be done first: 1 so far"),
    ),
)  # fmt: skip
def test_what_is_said(seen: dict[str, Any], limits: dict[str, Any], reason: str) -> None:
    stop = guard(job(), Tally(**({"active": 0, "day": 0} | seen)), replace(HERE, **limits))
    assert stop is not None and stop.reason == reason
