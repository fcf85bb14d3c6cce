"""The parts of the engine's event loop: each does one thing when it is due, and reports when that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Waits:
    """What a pass (`once`) waits for, beside what is under way or due now."""

    settling: bool  # files that are settling
    unended: bool  # jobs that have not ended, and units that may still grow


class Part(Protocol):
    """Runs in the engine thread. Parts name this class as their base: `class Uploader(Part)`."""

    def turn(self) -> None:
        """Do what is due. Never blocks; opens its own transactions."""

    def due(self) -> float | None:
        """Seconds from now until this part has something to do by itself; 0 or less: now.

        None: the loop need not wake up for this part. Only notes give it work; or its own work may wait for the next turn,
        which comes after `LONGEST_WAIT` at the latest.

        Each part uses the clock of its times: wall time for those in the journal, monotonic time for those in memory. The
        seconds are computed from that clock as it is now and are never kept, so a jump of the wall clock can at most make one
        wait `LONGEST_WAIT` long: the turn after it notices the jump before any part runs (F83).
        """

    def busy(self) -> bool:
        """Whether work of this part is under way or about to begin, as far as memory shows. Work that hangs doesn't count."""

    def pending(self, waits: Waits) -> bool:
        """Whether a pass must go on for work that is not under way: due in the journal, or still to come and named by
        `waits`. A pass doesn't wait for a person's decision, nor for what can't be reached. Called when no part is busy."""
        return False
