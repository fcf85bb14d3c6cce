"""What the engine's loop is made of: parts, each of which does one thing when that is due, and says when it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Waits:
    """What a pass (`once`) waits for, beside what is under way or due now."""

    settling: bool  # files that are settling
    unended: bool  # jobs that have not ended, and units that may still grow


class Part(Protocol):
    """In the engine thread. Parts say so themselves: `class Uploader(Part)`."""

    def turn(self) -> None:
        """Do what is due. Waits for nothing; opens its own transactions."""

    def due(self) -> float | None:
        """Seconds from now until this part has something to do by itself; 0 or less: now.

        None: there is nothing for which the loop is to be woken. Only a note gives it work; or what it does by itself may wait
        for the next turn, which comes after `LONGEST_WAIT` at the latest.

        Each part measures by the clock that its work needs: wall time where the journal has it, monotonic time where memory does.
        The seconds are computed from that clock as it is now and are never kept, so a jump of the wall clock can at most make one
        wait `LONGEST_WAIT` long: the turn after it notices the jump before any part's turn (F83).
        """

    def busy(self) -> bool:
        """Whether something of it is under way, or to be begun at once, as far as memory tells. What hangs doesn't count."""

    def pending(self, waits: Waits) -> bool:
        """Whether a pass goes on for something that is not under way: it is due in the journal, or to come and one of `waits`.
        What a person must decide, and what can't be reached, is not waited for. Asked when no part is busy."""
        return False
