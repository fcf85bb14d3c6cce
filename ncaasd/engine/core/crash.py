"""Named points at which a test may kill the process, to prove that every restart converges. Armed by an environment variable
only.

NCAASD_TEST_CRASH="submit.put:2" kills the process with SIGKILL when the point `submit.put` is passed the second time.
"""

from __future__ import annotations

import itertools
import os
import signal

from ncaasd.ports import CrashPoint, no_crash

VARIABLE = "NCAASD_TEST_CRASH"

# There are others in the transfers (adapters/transfers), the journal's migrations and backups, and following/afterwards.py.
ENGINE_POINTS = (
    "open.committed",
    "submit.before_intent",
    "submit.intended",
    "submit.counted",
    "submit.marked",
    "submit.attempted",
    "submit.put",
)


def armed() -> CrashPoint:
    """The crash point that the environment names; in production, one that does nothing."""
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return no_crash
    name, _, count = wanted.partition(":")
    passed = itertools.count(1)
    fatal = int(count or 1)

    def crash(point: str) -> None:
        if point == name and next(passed) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
