"""APScheduler, which only wakes the engine: it never does the work.

Measured of APScheduler 3: after a backward jump of the clock its interval jobs stop until the old time comes again,
and after a forward jump it walks every missed run. So the engine has monotonic deadlines of its own, and the jobs are
made anew when wall and monotonic time disagree (F83). Its default grace of 1 s drops jobs after a suspend: unset (F85).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apscheduler.schedulers.background import BackgroundScheduler

from ncaasd.ports import Clock

JUMP = 30.0  # seconds by which the clocks may drift apart between two looks


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
            scheduler.add_job(self._wake, "interval", seconds=seconds, args=[name], id=name)
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
