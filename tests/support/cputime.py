"""CPU seconds of some threads of this process: a sandbox's, on the next thread, are not counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def cpu_of(chosen: Callable[[threading.Thread], bool]) -> float:
    """CPU seconds that the running threads which are `chosen` have used so far."""
    total = 0.0
    for thread in threading.enumerate():
        if chosen(thread) and thread.ident is not None:
            total += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return total
