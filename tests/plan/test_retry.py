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
