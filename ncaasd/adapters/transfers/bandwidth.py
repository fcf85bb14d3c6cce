"""One budget of bytes per second over everything that is moved, in both directions."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ncaasd.ports import Clock

BURST = 0.25  # seconds of unused budget that may be made up for: at most 2.5% over any 10 s
SLICE = 0.2  # seconds: how long a wait goes on before it looks at the limit and at a wish to stop again
LOOK = 0.1  # seconds for which one answer of `limit` is used


class Paused(Exception):
    """The limit is 0 now: nothing may be moved."""


class Bandwidth:
    """Who wants to move bytes takes a ticket: the bytes that were promised before it must have been allowed first.

    `limit()` gives the bytes per second that are allowed now: None for no limit, 0 for a pause. It is asked again
    and again, so hours and edits of the config take effect within a fraction of a second, also for those who wait.
    """

    def __init__(self, limit: Callable[[], int | None], clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._promised = 0.0  # bytes, by tickets
        self._allowed = 0.0  # bytes, by time
        self._at = clock.monotonic()
        self._rate: int | None = None
        self._look_at = float("-inf")

    @property
    def paused(self) -> bool:
        return self._rate_now() == 0

    def take(self, count: int, give_up: Callable[[], None]) -> None:
        """Return when `count` bytes may be moved. Raises Paused, and what `give_up` raises while it waits."""
        give_up()
        rate = self._rate_now()
        if rate is None:
            return
        with self._lock:
            self._advance(rate)
            ticket = self._promised
            self._promised += count
        try:
            self._wait_for(ticket, give_up)
        except BaseException:
            with self._lock:
                self._promised -= count  # not moved: others may
            raise

    def _wait_for(self, ticket: float, give_up: Callable[[], None]) -> None:
        while True:
            rate = self._rate_now()
            if rate is None:
                return
            if rate == 0:
                raise Paused
            with self._lock:
                self._advance(rate)
                missing = ticket - self._allowed
            if missing < 1:
                return
            self._clock.sleep(min(max(missing / rate, 0.001), SLICE))
            give_up()

    def _advance(self, rate: int) -> None:
        now = self._clock.monotonic()
        allowed = self._allowed + max(0.0, now - self._at) * rate
        # Time in which nobody wanted to move anything is not saved up, but for a moment.
        self._allowed = min(allowed, self._promised + rate * BURST)
        self._at = now

    def _rate_now(self) -> int | None:
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._rate = self._limit()
            self._look_at = now + LOOK
        return self._rate
