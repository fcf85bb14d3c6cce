"""When to try again, and when to look again. Pure."""

from __future__ import annotations

from ncaasd.model import JobState


def backoff(failures: int, *, first: float, most: float, spread: float) -> float:
    """Seconds to wait after `failures` failures in a row: doubling from `first`, never above `most`.

    `spread` in [0, 1) moves the result within its upper half, so that many waiters don't come back at once.
    """
    full = min(most, first * 2.0 ** min(max(failures - 1, 0), 30))
    return full * (0.5 + 0.5 * spread)


def poll_after(state: JobState, *, age: float, finished: int, least: float, most: float, spread: float) -> float:
    """Seconds until a job's folder is listed again, within [least, most] of the config's `jobs.poll`.

    Fast while it is starting and when part of it has finished, slower as it runs for hours: a tenth of its age, so that
    the news is never older than a tenth of the job.
    """
    if state in (JobState.SUBMITTED, JobState.STARTING, JobState.FETCHING) or finished:
        wanted = least
    elif state is JobState.LOST:
        wanted = most
    else:
        wanted = age / 10
    bounded = min(max(wanted, least), most)
    return min(bounded * (0.9 + 0.2 * spread), most)
