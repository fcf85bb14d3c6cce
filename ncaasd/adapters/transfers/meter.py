"""Live counters of one transfer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ncaasd.ports import Clock, Pace

WINDOW = 5.0  # seconds over which the rate is taken


class Meter:
    """Bytes that are moved, and how many a second lately. Bytes of a request that failed are taken back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._done = 0
        self._began: float | None = None
        self._recent: deque[tuple[float, int]] = deque()  # (time, bytes)

    @property
    def done(self) -> int:
        return self._done

    def start_at(self, done: int) -> None:
        """What an earlier attempt moved counts as done, not as speed."""
        with self._lock:
            self._done = done

    @contextmanager
    def request(self, size: int, pace: Pace) -> Iterator[Pace]:
        """Count the bytes of one request of `size` bytes as they go; it counts nothing when it fails."""
        counted = 0

        def count(more: int) -> None:
            nonlocal counted
            pace(more)
            counted += more
            self.count(more)

        try:
            yield count
        except BaseException:
            self.count(-counted)
            raise
        self.count(size - counted)  # a body that was sent twice, or a store that doesn't tell

    def count(self, more: int) -> None:
        if not more:
            return
        now = self._clock.monotonic()
        with self._lock:
            self._done += more
            if self._began is None:
                self._began = now
            if self._recent and now - self._recent[-1][0] < WINDOW / 20:
                at, had = self._recent[-1]
                self._recent[-1] = (at, had + more)
            else:
                self._recent.append((now, more))
            self._forget(now)

    def rate(self) -> float:
        """Bytes per second over the last seconds."""
        now = self._clock.monotonic()
        with self._lock:
            self._forget(now)
            if self._began is None:
                return 0.0
            seconds = min(WINDOW, max(now - self._began, WINDOW / 20))
            return max(0.0, sum(more for _, more in self._recent) / seconds)

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - WINDOW:
            self._recent.popleft()
