"""Which events are old enough to be deleted. Runs on a worker, on its own connection, because it reads the whole event log."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

from ncaasd.adapters.journal.base import path_in, translated
from ncaasd.adapters.journal.opening import read_only
from ncaasd.subjects import UNIT, kind_of, of_attempt

_ATTEMPT = re.compile(r" attempt [0-9]+$")


def old_events(path: str, before: float, most: int) -> list[int]:
    """The rows of at most `most` events older than `before` that are not needed any more, the oldest first.

    All events of jobs that have not ended are kept, with those of their earlier attempts, and the last event of each unit, from
    which the engine knows what it has reported of the unit. Raises JournalError.
    """
    with translated(), closing(read_only(path)) as db:
        under_way = {
            (analysis, of_attempt(name, path_in(unit)))
            for analysis, name, unit in db.execute("SELECT analysis, name, unit FROM job WHERE phase<>'ended'")
        }
        found: list[int] = []
        for row, analysis, subject in db.execute(
            "SELECT id, analysis, subject FROM event WHERE at<? ORDER BY id", (before,)
        ):
            if (analysis, _ATTEMPT.sub("", subject)) in under_way:
                continue
            if kind_of(subject)[0] == UNIT and row == _last(db, analysis, subject):
                continue
            found.append(row)
            if len(found) == most:
                break
        return found


def _last(db: sqlite3.Connection, analysis: str, subject: str) -> int:
    sql = "SELECT max(id) FROM event WHERE analysis=? AND subject=?"
    return int(db.execute(sql, (analysis, subject)).fetchone()[0])
