"""All of it together."""

from __future__ import annotations

from ncaasd.adapters.journal.artefacts import Artefacts
from ncaasd.adapters.journal.declared import Declared
from ncaasd.adapters.journal.files import OPEN_FILE, Files
from ncaasd.adapters.journal.jobs import Jobs
from ncaasd.model import EVENTUALLY

LONGEST_DELAY = 6 * 3600.0


class Journal(Files, Declared, Jobs, Artefacts):
    """Rows in, values out."""

    def forget_appointments(self, now: float) -> None:
        """Everything that was put off to a point in time is due now; what waits for an event goes on waiting for it.

        Points in time are wall time, so this is for a clock that has jumped, or may have while we were down.
        """
        self._run("UPDATE job SET next_at=0 WHERE phase<>'ended' AND next_at<?", EVENTUALLY)
        # A retry's delay is kept, as far as it can have been meant.
        self._run(
            "UPDATE job SET not_before=min(not_before, ?) WHERE phase<>'ended' AND phase='open'", now + LONGEST_DELAY
        )
        self._run(f"UPDATE file SET retry_at=0 WHERE {OPEN_FILE} AND state IN ('whole', 'held')")
        self._run("UPDATE artefact SET retry_at=0 WHERE state='wanted'")
