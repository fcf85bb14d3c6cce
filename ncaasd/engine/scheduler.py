"""APScheduler, which only wakes the engine: it never does the work.

Measured of APScheduler 3: after a backward jump of the clock its jobs stop until the old time comes again, so the engine
has monotonic deadlines of its own, and the jobs are made anew when wall and monotonic time disagree (F83). After a forward
jump its interval trigger walks every missed run, for ten years of seconds by the hour, and nobody can stop it meanwhile:
`Beat` knows none that was missed. Its default grace of 1 s drops jobs after a suspend: unset (F85).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from ncaasd.ports import Clock

JUMP = 30.0  # seconds by which the clocks may drift apart between two looks


class Beat(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Every `seconds`, counted from now: what was missed is over."""

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + self._interval


class Waker:
    def __init__(self, clock: Clock, intervals: Mapping[str, float], wake: Callable[[str], None]) -> None:
        """`wake(name)` is called from a thread of the scheduler's every `intervals[name]` seconds."""
        self._clock = clock
        self._intervals = dict(intervals)
        self._wake = wake
        self._offset = clock.now() - clock.monotonic()
        self._scheduler = self._make()

    def _make(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        for name, seconds in self._intervals.items():
            scheduler.add_job(self._wake, Beat(seconds), args=[name], id=name)
        scheduler.start()
        return scheduler

    def look(self) -> bool:
        """To be called now and then: True when the clock has jumped, and the jobs were made anew."""
        offset = self._clock.now() - self._clock.monotonic()
        if abs(offset - self._offset) < JUMP:
            return False
        self._offset = offset
        self._scheduler.shutdown(wait=False)
        self._scheduler = self._make()
        return True

    def stop(self) -> None:
        self._scheduler.shutdown(wait=False)
