"""The wall-clock schedule, by APScheduler: it posts a note to the engine when a job is due, and never does the work.

Measured with APScheduler 3: after a backward jump of the clock its jobs stop until the old time is reached again, so all are
made anew when wall and monotonic time disagree (F83). After a forward jump its interval trigger steps through every missed
run, for hours if the jump was ten years and the interval seconds, and can't be stopped meanwhile: `Beat` and `Nightly` skip
missed runs. Its default grace of 1 s drops jobs after a suspend: unset (F85). Its thread may end by an error of its own, or
of the system: then too the jobs are made anew, since rescans are what finds everything.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from ncaasd.ports import Clock

log = logging.getLogger("ncaasd")

JUMP = 30.0  # seconds by which the clocks may drift apart between two looks
LATE = 60.0  # seconds by which a beat may be late; after that the scheduler counts as broken
NIGHT = 3  # o'clock, local time
ENDING = 2.0  # seconds that a scheduler's thread may take to end


class Beat(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Every `seconds`, counted from now; missed runs are skipped. The first time after `first` seconds, where given."""

    def __init__(self, seconds: float, *, first: float | None = None) -> None:
        self.longest = max(seconds, first or 0.0)
        self._interval = timedelta(seconds=seconds)
        self._first = self._interval if first is None else timedelta(seconds=first)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + (self._first if previous_fire_time is None else self._interval)


class Nightly(BaseTrigger):  # type: ignore[misc]  # as above
    """Each night, `spread` seconds after 03:00 of this machine's local time; missed nights are skipped."""

    def __init__(self, spread: float) -> None:
        self._spread = timedelta(seconds=spread)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        night = datetime.combine(now.astimezone().date(), time(NIGHT)) + self._spread
        while (at := night.astimezone(UTC)) <= now:  # a night may be repeated, or be an hour shorter
            night += timedelta(days=1)
        return at


@dataclass(frozen=True, slots=True)
class Job:
    when: Beat | Nightly
    note: Callable[[], None]  # done by the engine, in its thread


class Schedule:
    def __init__(self, clock: Clock, jobs: Mapping[str, Job], tell: Callable[[Callable[[], None]], None]) -> None:
        """`tell(note)` is called from a thread of the scheduler's each time that a job is due. It must return at once."""
        self._clock = clock
        self._jobs = dict(jobs)
        self._tell = tell
        self._offset = clock.now() - clock.monotonic()
        self._last: dict[str, float] = {}  # job -> monotonic time of its last post
        self._scheduler = self._make()

    def _make(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        for name, job in self._jobs.items():
            self._last[name] = self._clock.monotonic()
            scheduler.add_job(self._post, job.when, args=[name], id=name)
        scheduler.start()
        return scheduler

    def _post(self, name: str) -> None:
        self._last[name] = self._clock.monotonic()
        self._tell(self._jobs[name].note)

    def look(self) -> bool:
        """To be called regularly: True when the jobs were made anew, because the clock has jumped or the scheduler has
        stopped working. The beats that a stopped scheduler missed are posted now."""
        offset = self._clock.now() - self._clock.monotonic()
        jumped = abs(offset - self._offset) >= JUMP
        missed = [] if jumped else self._missed()
        if not jumped and not missed:
            return False
        self._offset = offset
        _end(self._scheduler)
        self._scheduler = self._make()
        if missed:
            log.warning("the scheduler of rescans had ended: it was started anew")
            for name in missed:
                self._post(name)
        return True

    def _missed(self) -> list[str]:
        """The beats that a scheduler which has stopped working may have missed; none when it works."""
        now = self._clock.monotonic()
        beats = {name: job.when.longest for name, job in self._jobs.items() if isinstance(job.when, Beat)}
        thread = self._scheduler._thread  # there is no public way to ask
        if thread is None or not thread.is_alive():
            return list(beats)
        return [name for name, longest in beats.items() if now - self._last[name] > longest + LATE]

    def stop(self) -> None:
        _end(self._scheduler)


def _end(scheduler: BackgroundScheduler) -> None:
    """Shut a scheduler down, on a thread of its own: APScheduler waits for its own thread, which may hang."""

    def end() -> None:
        with contextlib.suppress(Exception):  # it may be broken
            scheduler.shutdown(wait=False)

    ender = threading.Thread(target=end, name="end-schedule", daemon=True)
    ender.start()
    ender.join(ENDING)
