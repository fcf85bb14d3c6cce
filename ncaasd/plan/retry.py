"""When to try again, and when to look again. Pure."""

from __future__ import annotations

from ncaasd.model import JobState

LONGEST_RETRY = 6 * 3600.0


def backoff(failures: int, *, first: float, most: float, spread: float, factor: float = 2.0) -> float:
    """Seconds to wait after `failures` failures in a row: `factor` times as long each time, from `first`, never above `most`.

    `spread` in [0, 1) moves the result within its upper half, so that many waiters don't come back at once.
    """
    full = min(most, first * factor ** min(max(failures - 1, 0), 30))
    return full * (0.5 + 0.5 * spread)


def poll_after(state: JobState, *, age: float, finished: int, least: float, most: float, spread: float) -> float:
    """Seconds until a job's folder is listed again, within [least, most] of the config's `jobs.poll`.

    Fast while it is starting and when part of it has finished, slower as it runs for hours: a tenth of its age, so that
    the news is never older than a tenth of the job. `spread` in [0, 1) moves it by a tenth to either side, within the
    bounds, so that many jobs aren't looked at together.
    """
    if state is JobState.LOST:
        wanted = most
    elif state in (JobState.SUBMITTED, JobState.STARTING, JobState.FETCHING) or finished:
        wanted = least
    else:
        wanted = age / 10
    wanted = min(max(wanted, least), most)
    low, high = max(wanted * 0.9, least), min(wanted * 1.1, most)
    return low + (high - low) * spread


def retry_after(refusals: int, *, ended: float, now: float, platform_retry: float, spread: float) -> float:
    """When (in seconds since the epoch) a refused job is submitted again, after `refusals` refusals in a row.

    A growing delay, never shorter than the platform's own retries take: `platform_retry` seconds. They are over when a
    job counts as ended (see `watched_for`), so the delay is counted from `ended`, the time of the refusal.
    """
    wait = backoff(refusals, first=1.5 * platform_retry, most=LONGEST_RETRY, spread=spread)
    return max(now, ended + max(wait, platform_retry))


def watched_for(platform_retry: float) -> float:
    """Seconds without a change after which a job's end counts although the platform may still take it back. Its retries have
    been seen to come late (F61), so this is six times as long as they take."""
    return 6 * platform_retry
