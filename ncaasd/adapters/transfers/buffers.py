"""Memory for parts, reused: a new 8 MiB buffer for each part would cost more time than its checksum.

Buffers are whole pages: the bytes of a `bytearray` begin 32 bytes into a page, and the kernel takes up to four times as long to
copy a file there (docs/performance.md).
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SMALLEST = 256 << 10  # bytes
KEEP = 80 << 20  # bytes that are kept for reuse


class Buffers:
    """Lends buffers; at most as many exist as were lent at one time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[mmap.mmap] = []

    @contextmanager
    def lend(self, size: int) -> Iterator[memoryview]:
        """`size` bytes to write into, for as long as the context lasts."""
        buffer = self._take(size)
        try:
            yield memoryview(buffer)[:size]
        finally:
            self._give(buffer)

    def _take(self, size: int) -> mmap.mmap:
        with self._lock:
            fitting = [buffer for buffer in self._free if len(buffer) >= size]
            if fitting:
                buffer = min(fitting, key=len)
                self._drop(buffer)
                return buffer
        return mmap.mmap(-1, max(size, SMALLEST), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _drop(self, buffer: mmap.mmap) -> None:
        # By identity: `list.remove` would compare megabytes of content.
        self._free = [other for other in self._free if other is not buffer]

    def _give(self, buffer: mmap.mmap) -> None:
        with self._lock:
            if sum(map(len, self._free)) + len(buffer) <= KEEP:
                self._free.append(buffer)
