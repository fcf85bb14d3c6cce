"""Opens a journal: sets its pragmas, checks that it is sound and migrates it to this version's schema, or refuses it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

import ncaasd
from ncaasd.adapters.journal import schema
from ncaasd.adapters.journal.base import REBUILD, only, translated
from ncaasd.adapters.journal.journal import Journal
from ncaasd.errors import JournalBroken, JournalError, StateError
from ncaasd.ports import CrashPoint, no_crash


def open_journal(path: str, *, crash: CrashPoint = no_crash) -> Journal:
    """Open for writing, creating or migrating as needed.

    Raises StateError when the schema is newer than this version, JournalError when the pragmas can't be set or the disk is
    full, JournalBroken when the file is not a sound database.
    """
    with translated():
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            _make_safe(db, path)
            _migrate(db, path, crash)
        except BaseException:
            db.close()
            raise
    return Journal(db, path)


def _make_safe(db: sqlite3.Connection, path: str) -> None:
    db.execute("PRAGMA busy_timeout=5000")
    mode = only(db.execute("PRAGMA journal_mode=WAL"))
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    full = only(db.execute("PRAGMA synchronous"))
    if mode != "wal" or full != 2:
        raise JournalError(
            f"the journal {path} cannot be made safe: journal_mode is {mode}, synchronous is {full}",
            hint="put `state:` on a local disk (ext4, xfs, btrfs, zfs), not on a network share",
        )
    found = only(db.execute("PRAGMA quick_check(1)"))
    if found != "ok":
        raise JournalBroken(f"the journal {path} is corrupt: {' '.join(found.split())}", hint=REBUILD)


def read_only(path: str, *, still: bool = False) -> sqlite3.Connection:
    """A read-only connection. `still`: no process writes the journal, so no -shm file is needed beside it."""
    uri = f"file:{_quoted(path)}?mode=ro{'&immutable=1' if still else ''}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5)


def open_reader(path: str) -> Journal:
    """Open for reading beside a running daemon, or when there is none. Raises StateError when there is no journal."""
    if not os.path.exists(path):
        raise StateError(
            f"there is no journal at {path}", hint="has `ncaasd run` or `ncaasd once` ever run with this config?"
        )
    # Reading in WAL mode needs a -shm file, for which the folder must be writable. Without a -wal file nothing is missed.
    still = not os.access(os.path.dirname(path) or ".", os.W_OK) and not os.path.exists(path + "-wal")
    with translated():
        db = read_only(path, still=still)
        try:
            version = _version(db)
            _refuse_newer(db, version, path)
            if version < schema.VERSION:
                what = f"is of an older ncaasd (schema {version})" if version else "is only being made"
                raise StateError(
                    f"the journal {path} {what}", hint="`ncaasd run` or `ncaasd once` brings it up to date"
                )
        except BaseException:
            db.close()
            raise
    return Journal(db, path)


_MADE_BY = "schema made by"  # in meta: the version of ncaasd that brought the journal to its schema


def _migrate(db: sqlite3.Connection, path: str, crash: CrashPoint) -> None:
    version = _version(db)
    _refuse_newer(db, version, path)
    for number in range(version + 1, schema.VERSION + 1):
        # One transaction for each, the version included: a crash leaves the old schema or the new one, nothing between.
        db.execute("BEGIN IMMEDIATE")
        for statement in _statements(schema.MIGRATIONS[number - 1]):
            db.execute(statement)
            crash("migration.statement")
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MADE_BY, ncaasd.__version__))
        db.execute(f"PRAGMA user_version={number}")
        crash("migration.before_commit")
        db.execute("COMMIT")
        crash("migration.committed")


def _version(db: sqlite3.Connection) -> int:
    return int(only(db.execute("PRAGMA user_version")))


def _refuse_newer(db: sqlite3.Connection, version: int, path: str) -> None:
    if version > schema.VERSION:
        made_by = only(db.execute("SELECT value FROM meta WHERE key=?", (_MADE_BY,)))
        raise StateError(
            f"the journal {path} was written by a newer ncaasd (schema {version}; this one knows {schema.VERSION})",
            hint=f"install ncaasd {made_by or 'in that version'} or later; this one would not understand what it did",
        )


def _statements(script: str) -> Iterator[str]:
    """Split a script by SQLite's own rules, which don't split at the semicolons inside a trigger."""
    pending = ""
    for line in script.splitlines():
        if not line.strip() or line.strip().startswith("--"):
            continue
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _quoted(path: str) -> str:
    from urllib.parse import quote

    return quote(os.path.abspath(path))
