"""Statements and transactions, what everything is told (meta), and the event log."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ncaasd.errors import JournalBroken, JournalError
from ncaasd.model import Event

KEPT_FROM = "events kept from"  # in meta: older events may be deleted, as a trigger of the schema has it
EVENTUALLY = 1e14  # points in time beyond this mean "when something happens"
REBUILD = (
    "move it aside; ncaasd then rebuilds it from what is in S3, and holds what it can't match; or put a backup of it back:"
    " docs/journal.md"
)


def as_ours(error: sqlite3.DatabaseError) -> Exception:
    """An error of SQLite's as ours: what may pass (a full disk, a lock) and what must end the process."""
    name = getattr(error, "sqlite_errorname", "") or ""
    corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    text = f"the journal is corrupt: {error}" if corrupt else f"the journal can't be written: {error}"
    if name.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        hint = "free some space on the disk that holds `state:`" if name.startswith("SQLITE_FULL") else ""
        return JournalError(text, hint=hint)
    if name.startswith(("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM")):
        # Nothing was taken for written; and what is in the -shm file is made anew from the others (a full disk, too).
        return JournalError(text)
    if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
        # A failed fsync may have lost earlier writes; a later success proves nothing (F15).
        return JournalBroken(text, hint=REBUILD if corrupt else "check that disk")
    return error


@contextlib.contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        ours = as_ours(error)
        if ours is error:
            raise
        raise ours from error


def shown(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # what os.fsdecode asks at each call


def path_out(path: str) -> bytes:
    return path.encode(ENCODING, ERRORS)


def path_in(path: bytes) -> str:
    return path.decode(ENCODING, ERRORS)


def below(folder: str) -> tuple[bytes, bytes]:
    """From where to where the paths below `folder` (which ends in /) lie, when sorted."""
    return path_out(folder), path_out(folder[:-1] + chr(ord(folder[-1]) + 1))


class Base:
    """Reads are of the latest commit and of the open transaction."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._depth = 0
        self.path = path
        # Told the id of each file that becomes another, or is in another state: not of appointments.
        self.on_file: Callable[[int], None] = lambda _file_id: None
        # Called within each transaction, last: for what is done once for many rows.
        self.before_commit: Callable[[], None] = lambda: None

    # -- transactions ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit on leaving the outermost block, roll back on any exception."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        with translated():
            self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self.before_commit()
        except BaseException:
            self._depth = 0
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._depth = 0
        try:
            with translated():
                self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()

    def backup(self, path: str) -> None:
        """A consistent copy of the journal as it is now."""
        with contextlib.closing(sqlite3.connect(path)) as target:
            self._db.backup(target)

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # Not `with translated()`: this is called several times for each file, and that costs as much as the statement.
        try:
            return self._db.execute(sql, values)
        except UnicodeEncodeError:
            # A reason that names a file whose name is no text: it is for reading, so it is shown escaped.
            with translated():
                return self._db.execute(sql, [shown(v) for v in values])
        except sqlite3.DatabaseError as error:
            ours = as_ours(error)
            if ours is error:
                raise
            raise ours from error

    def _many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with translated():
            self._db.executemany(sql, rows)

    # -- meta and events ---------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> str | None:
        row = self._run("SELECT value FROM meta WHERE key=?", key).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        self._run("INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", key, value)

    def count_submit(self, analysis: str) -> tuple[str, int]:
        """One more submit of an analysis begins: (this journal's generation, submits with this one)."""
        submits = int(self.get_meta(f"submits:{analysis}") or 0) + 1
        self.set_meta(f"submits:{analysis}", str(submits))
        return self.get_meta(f"generation:{analysis}") or "", submits

    def event(self, at: float, analysis: str, subject: str, kind: str, text: str) -> None:
        # Subjects may hold a file's name in any bytes; the log is for reading, so what isn't text is shown escaped.
        subject, text = (s.encode("utf-8", "backslashreplace").decode() for s in (subject, text))
        self._run(
            "INSERT INTO event (at, analysis, subject, kind, text) VALUES (?,?,?,?,?)",
            at,
            analysis,
            subject,
            kind,
            text,
        )

    def events(self, analysis: str = "", subject: str = "", limit: int = 200) -> list[Event]:
        """The newest `limit` events, oldest first; of one analysis and one subject where given."""
        rows = self._run(
            "SELECT at, analysis, subject, kind, text FROM event WHERE (?1='' OR analysis=?1) AND (?2='' OR subject=?2)"
            " ORDER BY id DESC LIMIT ?3",
            analysis,
            subject,
            limit,
        ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def drop_events(self, rows: Sequence[int], before: float) -> None:
        """Delete these events, which must all be older than `before` (see adapters/journal/pruning.py)."""
        self.set_meta(KEPT_FROM, repr(before))
        self._many("DELETE FROM event WHERE id=?", ((row,) for row in rows))

    def stored_since(self, analysis: str, at: float) -> list[str]:
        """The subjects of the files that came to be in S3 since then, as the event log tells it."""
        rows = self._run(
            "SELECT subject FROM event WHERE +analysis=? AND kind='stored' AND at>=? ORDER BY id", analysis, at
        )
        return [r[0] for r in rows]
