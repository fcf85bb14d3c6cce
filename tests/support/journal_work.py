"""Somebody who writes a journal: `python -m support.journal_work PATH ROWS`. Says on standard output what is committed.

Each row is an event, a file and a note, in one transaction. "committed N" is said when the transaction has returned;
what fails for now is tried again, as the engine does; "broken" ends it, as the engine's process ends.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from contextlib import closing

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.errors import JournalBroken, JournalError
from ncaasd.model import FileState, Place, Stat

DONE, BROKEN, GAVE_UP = 0, 3, 4
TRIES = 400
PAUSE = 0.005  # seconds


def copy_journal(journal: Journal, path: str) -> None:
    """A consistent copy of a journal in use, as any program may make one; ncaasd makes its own by adapters/journal/backups."""
    with contextlib.closing(sqlite3.connect(path)) as target:
        journal._db.backup(target)


def write_row(journal: Journal, number: int) -> None:
    with journal.transaction():
        journal.event(time.time(), "a", f"row {number}", "row", "x" * (number * 37 % 700))
        journal.see_file(
            Place("a", "", f"inputs/{number}"), Stat(number, 1, 1, 1), f"k/{number}", FileState.WHOLE, "", 1.0
        )
        journal.set_meta("last", str(number))


def rows_of(path: str) -> dict[int, int]:
    """Row -> how often its event is there; fails when a transaction is there by half, or the file isn't sound."""
    with closing(open_journal(path)) as journal:
        events = [int(e.subject.removeprefix("row ")) for e in journal.events("a", limit=1_000_000)]
        files = [row.stat.size for row in journal.files("a")]
        last = journal.get_meta("last")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(set(events)) == sorted(files)
    assert last == (str(max(files)) if files else None)
    return {number: events.count(number) for number in set(events)}


def work(path: str, rows: int, first: int = 0) -> int:
    with contextlib.ExitStack() as stack:
        return _work(stack, path, first, rows)


def _work(stack: contextlib.ExitStack, path: str, first: int, rows: int) -> int:
    journal: Journal | None = None
    number, left = first, TRIES
    while number < first + rows and left:
        try:
            if journal is None:
                journal = stack.enter_context(closing(open_journal(path)))
            write_row(journal, number)
        except JournalBroken as error:
            _say(f"broken {error}")
            return BROKEN
        except JournalError as error:
            _say(f"failed {error}")
            left -= 1
            time.sleep(PAUSE)
            continue
        _say(f"committed {number}")
        number += 1
    return DONE if left else GAVE_UP


def _say(line: str) -> None:
    os.write(1, (line + "\n").encode())


if __name__ == "__main__":
    sys.exit(work(sys.argv[1], int(sys.argv[2])))
