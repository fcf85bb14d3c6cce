"""The journal: all tables in one class."""

from __future__ import annotations

from ncaasd.adapters.journal.artefacts import Artefacts
from ncaasd.adapters.journal.declared import Declared
from ncaasd.adapters.journal.files import OPEN_FILE, Files
from ncaasd.adapters.journal.jobs import Jobs
from ncaasd.model import EVENTUALLY

LONGEST_DELAY = 6 * 3600.0


class Journal(Files, Declared, Jobs, Artefacts):
    """One open journal, with the methods of every table."""

    def forget_appointments(self, now: float) -> None:
        """Make everything due that was put off to a point in time; what waits for an event keeps waiting.

        Points in time are wall time: call this when the clock has jumped, or may have jumped while we were down.
        """
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND next_at<?", EVENTUALLY)
        # A retry's delay is kept, up to the longest that is ever set.
        self._run(
            "UPDATE job SET not_before=min(not_before, ?) WHERE phase<>'ended' AND phase='open'", now + LONGEST_DELAY
        )
        self._run(f"UPDATE file SET retry_at=0 WHERE {OPEN_FILE} AND state IN ('whole', 'held')")
        self._run("UPDATE artefact SET retry_at=0 WHERE state='wanted'")
