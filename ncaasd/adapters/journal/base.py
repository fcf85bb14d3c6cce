"""Statements and transactions, the journal's key-value table (meta), and the event log."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ncaasd.errors import JournalBroken, JournalError
from ncaasd.model import Event

KEPT_FROM = "events kept from"  # key in meta: a trigger of the schema allows only older events to be deleted
REBUILD = (
    "move it aside; ncaasd then rebuilds it from what is in S3, and holds what it can't match; or put a backup of it back:"
    " docs/journal.md"
)


def as_ours(error: sqlite3.DatabaseError) -> Exception:
    """An SQLite error as ours: JournalError if it may pass (a full disk, a lock), JournalBroken if it must end the process."""
    name = getattr(error, "sqlite_errorname", "") or ""
    corrupt = name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    text = f"the journal is corrupt: {error}" if corrupt else f"the journal can't be written: {error}"
    if name.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        hint = "free some space on the disk that holds `state:`" if name.startswith("SQLITE_FULL") else ""
        return JournalError(text, hint=hint)
    if name.startswith(("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM")):
        # Nothing was reported as written, and the -shm file is rebuilt from the others (a full disk causes this, too).
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


ENCODING, ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # os.fsdecode gets them at each call


def path_out(path: str) -> bytes:
    return path.encode(ENCODING, ERRORS)


def path_in(path: bytes) -> str:
    return path.decode(ENCODING, ERRORS)


def below(folder: str) -> tuple[bytes, bytes]:
    """The range of the paths below `folder` (which ends in /) in sorted order: its start, and its end, exclusive."""
    return path_out(folder), path_out(folder[:-1] + chr(ord(folder[-1]) + 1))


def only(answer: sqlite3.Cursor) -> Any:
    """The value of a statement that answers with one row of one column; None when there is no row."""
    row = answer.fetchone()
    if row is None:
        return None
    (value,) = row
    return value


def column(answer: sqlite3.Cursor) -> list[Any]:
    """The values of a statement that answers with one column."""
    return [value for (value,) in answer]


@dataclass(frozen=True, slots=True)
class SubmitCount:
    """What a mark in S3 has of a journal: its generation, and how many submits it has begun, the present one included."""

    generation: str
    submits: int


class Base:
    """Reads see the latest commit and the changes of the open transaction."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._depth = 0
        self.path = path
        self._changed: set[int] | None = None  # ids of files; None before the first `take_changed_files`
        self._taken: set[int] = set()  # those that were taken within the open transaction

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
            self._depth = 0
            with translated():
                self._db.execute("COMMIT")
        except BaseException:
            self._depth = 0
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._note_changed(self._taken)  # their rows may have been read before the rollback
            raise
        finally:
            self._taken = set()

    def take_changed_files(self) -> set[int]:
        """The ids of the files whose content, state or key has changed since the last call, not only their retry time.

        Ids are kept from the first call on. Within a transaction, its own changes are among them. After a rollback its ids are
        returned again, also those that were taken before it: the rows that were read then were never committed.
        """
        if not self._changed:
            self._changed = set()
            return set()
        changed, self._changed = self._changed, set()
        if self._depth:
            self._taken |= changed
        return changed

    def _note_changed(self, file_ids: Iterable[int]) -> None:
        if self._changed is not None:
            self._changed.update(file_ids)

    def close(self) -> None:
        self._db.close()

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # Not `with translated()`: this is called several times for each file, and that costs as much as the statement.
        try:
            return self._db.execute(sql, values)
        except UnicodeEncodeError:
            # A reason names a file whose name is no valid text. Reasons are for people, so it is stored escaped.
            with translated():
                return self._db.execute(sql, [shown(v) for v in values])
        except sqlite3.DatabaseError as error:
            ours = as_ours(error)
            if ours is error:
                raise
            raise ours from error

    def _named(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """As `_run`, for rows of several columns: each is read by the columns' names."""
        answer = self._run(sql, *values)
        answer.row_factory = sqlite3.Row
        return answer

    def _many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with translated():
            self._db.executemany(sql, rows)

    # -- meta and events ---------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> str | None:
        value = only(self._run("SELECT value FROM meta WHERE key=?", key))
        return None if value is None else str(value)

    def set_meta(self, key: str, value: str) -> None:
        self._run("INSERT INTO meta VALUES (?,?) ON CONFLICT (key) DO UPDATE SET value=excluded.value", key, value)

    def count_submit(self, analysis: str) -> SubmitCount:
        """Count one more submit of an analysis, which begins now."""
        submits = int(self.get_meta(f"submits:{analysis}") or 0) + 1
        self.set_meta(f"submits:{analysis}", str(submits))
        return SubmitCount(self.get_meta(f"generation:{analysis}") or "", submits)

    def event(self, at: float, analysis: str, subject: str, kind: str, text: str) -> None:
        # Subjects may have a file's name in any bytes; the log is for people, so what isn't valid text is stored escaped.
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
        rows = self._named(
            "SELECT at, analysis, subject, kind, text FROM event WHERE (?1='' OR analysis=?1) AND (?2='' OR subject=?2)"
            " ORDER BY id DESC LIMIT ?3",
            analysis,
            subject,
            limit,
        ).fetchall()
        return [Event(**row) for row in reversed(rows)]

    def drop_events(self, rows: Sequence[int], before: float) -> None:
        """Delete these events, which must all be older than `before` (see adapters/journal/pruning.py)."""
        self.set_meta(KEPT_FROM, repr(before))
        self._many("DELETE FROM event WHERE id=?", ((row,) for row in rows))

    def stored_since(self, analysis: str, at: float) -> list[str]:
        """The subjects of the files that have been stored since `at`, according to the event log."""
        sql = "SELECT subject FROM event WHERE +analysis=? AND kind='stored' AND at>=? ORDER BY id"
        return column(self._run(sql, analysis, at))
