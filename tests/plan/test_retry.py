"""When something is tried again, and when a job is looked at again."""

from __future__ import annotations

import pytest
from builders import NOW, cases

from ncaasd.model import JobState
from ncaasd.plan.retry import LONGEST_RETRY, backoff, poll_after, retry_after, watched_for

HOUR = 3600
RUNNING, STARTING, SUBMITTED, LOST = JobState.RUNNING, JobState.STARTING, JobState.SUBMITTED, JobState.LOST


@pytest.mark.parametrize(
    ("state", "age", "finished", "seconds"),
    [
        (SUBMITTED, 10, 0, 15),
        (SUBMITTED, HOUR, 0, 15),
        (STARTING, 300, 0, 15),
        (RUNNING, 60, 0, 15),
        (RUNNING, 600, 0, 60),
        (RUNNING, 1800, 0, 180),
        (RUNNING, 3600, 0, 300),
        (RUNNING, 40 * HOUR, 0, 300),
        (RUNNING, 40 * HOUR, 1, 15),  # some have finished: the end is near
        (LOST, 3600, 1, 300),
        (LOST, 3600, 0, 300),
        (JobState.FETCHING, 3600, 0, 15),
    ],
)
def test_the_interval_follows_the_job(state: JobState, age: float, finished: int, seconds: float) -> None:
    waits = [
        poll_after(state, age=age, finished=finished, least=15, most=300, spread=spread / 100) for spread in range(100)
    ]
    assert all(15 <= wait <= 300 for wait in waits)
    assert all(0.89 * seconds <= wait <= 1.11 * seconds for wait in waits)
    assert max(waits) - min(waits) > 0.05 * seconds, "many jobs are not looked at together"
    assert len(set(waits)) == 100


def test_the_interval_is_what_the_config_says() -> None:
    assert poll_after(RUNNING, age=9999, finished=0, least=60, most=60, spread=0.7) == 60


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        (0, 5),
        (1, 5),
        (2, 10),
        (3, 20),
        (7, 320),
        (8, 600),
        (31, 600),
        (5000, 600),
    ],  # never above the most, never an overflow
)
def test_waits_double_up_to_the_most(failures: int, seconds: float) -> None:
    assert backoff(failures, first=5, most=600, spread=0.999_999_999) == pytest.approx(seconds)
    assert backoff(failures, first=5, most=600, spread=0.0) == seconds / 2, "within the upper half"


def test_however_many_failures_the_wait_is_a_number() -> None:
    assert backoff(10**6, first=5, most=1e300, spread=0.0) == 5 * 2.0**30 / 2


RETRY = 900.0  # what the platform's own retries take


@pytest.mark.parametrize(
    ("refusals", "ended", "wait"),
    cases(
        ("the first: one and a half times what the platform takes", 1, NOW, 1350.0),
        ("the second: twice that", 2, NOW, 2700.0),
        ("never longer than the longest", 20, NOW, LONGEST_RETRY),
        ("it is counted from the refusal", 1, NOW - 600, 750.0),
        ("when that is over, at once", 1, NOW - 9000, 0.0),
    ),
)
def test_a_refused_job_is_submitted_again(refusals: int, ended: float, wait: float) -> None:
    again = retry_after(refusals, ended=ended, now=NOW, platform_retry=RETRY, spread=1.0)
    assert again - NOW == wait


def test_a_refused_job_never_comes_before_the_platforms_own_retries_are_over() -> None:
    assert retry_after(1, ended=NOW, now=NOW, platform_retry=RETRY, spread=0.0) == NOW + RETRY
    assert retry_after(1, ended=NOW, now=NOW, platform_retry=9 * HOUR, spread=1.0) == NOW + 9 * HOUR


def test_F61_an_end_is_believed_after_six_times_what_the_platforms_retries_take() -> None:
    assert watched_for(RETRY) == 6 * RETRY
