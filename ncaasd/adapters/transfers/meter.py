"""Live counters of one transfer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ncaasd.ports import Clock, Pace

WINDOW = 5.0  # seconds over which the rate is taken


class Meter:
    """Bytes that were moved, and the present rate. The bytes of a request that fails are subtracted again."""

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
        """Count what an earlier attempt moved as done, but not in the rate."""
        with self._lock:
            self._done = done

    @contextmanager
    def request(self, size: int, pace: Pace) -> Iterator[Pace]:
        """Count the bytes of a request of `size` bytes while they are moved, and none if it fails."""
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
        self.count(size - counted)  # a body that was sent twice, or a store that doesn't call the pace

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
