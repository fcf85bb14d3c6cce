"""One budget of bytes per second over everything that is moved, in both directions."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ncaasd.ports import Clock

BURST = 0.25  # seconds of unused budget that may be used later: at most 2.5% over any 10 s
SLICE = 0.2  # seconds: the longest wait before the limit is read and `give_up` is called again
LOOK = 0.1  # seconds for which one value of `limit` is used


class Paused(Exception):
    """The limit is 0 now: nothing may be moved."""


class Bandwidth:
    """A queue of tickets: a ticket may move its bytes once all bytes promised before it have been allowed.

    `limit()` returns the bytes per second that are allowed now: None for no limit, 0 for a pause. It is called repeatedly,
    so hours and edits of the config take effect within a fraction of a second, also for transfers that wait.
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
        # Budget of idle time is not saved up, beyond BURST seconds.
        self._allowed = min(allowed, self._promised + rate * BURST)
        self._at = now

    def _rate_now(self) -> int | None:
        now = self._clock.monotonic()
        if now >= self._look_at:
            self._rate = self._limit()
            self._look_at = now + LOOK
        return self._rate
