"""Copies of the journal, one a day, made while it is written: `backups/journal-2026-11-28.sqlite` beside it.

A copy gets its name once it is whole, checked and durable; a file with another name is no backup. Copies are made over a
connection of their own, which doesn't block writing. docs/journal.md says how one is put back.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta

from ncaasd.adapters.journal.opening import read_only
from ncaasd.errors import DiskFull, JournalBroken, LocalError, NcaasdError
from ncaasd.ports import CrashPoint, no_crash

KEPT = timedelta(days=7)
KEPT_AT_LEAST = 7  # before today: a clock that is wrong for a night, or a month without power, must not remove them all
RECENT = 25 * 3600.0  # seconds
_NAME = re.compile(r"journal-([0-9]{4}-[0-9]{2}-[0-9]{2})\.sqlite")
_PART = re.compile(_NAME.pattern + r"\.[0-9a-f]{8}\.part")
RESTORE = "docs/journal.md says how a backup is put back"


@dataclass(frozen=True, slots=True)
class Backup:
    path: str
    day: date
    made: float  # seconds since the epoch
    size: int  # bytes


def folder_of(journal: str) -> str:
    return os.path.join(os.path.dirname(journal), "backups")


def backups_of(journal: str) -> list[Backup]:
    """The existing backups, the newest first, by the dates in their names. Raises LocalError."""
    found: list[Backup] = []
    try:
        with os.scandir(folder_of(journal)) as entries:
            for entry in entries:
                day = _day_of(entry.name)
                if day is not None and entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append(Backup(entry.path, day, stat.st_mtime, stat.st_size))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LocalError(f"the backups of the journal can't be read: {error}") from error
    return sorted(found, key=lambda b: b.day, reverse=True)


def is_due(journal: str, now: float) -> bool:
    """Whether no backup was made in the last RECENT seconds. One with a later time than `now` + RECENT had a wrong clock."""
    return not any(now - RECENT < b.made < now + RECENT for b in backups_of(journal))


def make_backup(journal: str, day: date, *, keep_free: int, crash: CrashPoint = no_crash) -> Backup:
    """Copy the journal, check both, and remove the backups that are too old, once the copy is there.

    Raises DiskFull, before anything is written, when less than `keep_free` bytes would be left; JournalBroken when the journal or
    the copy is corrupt; LocalError.
    """
    folder = folder_of(journal)
    final = os.path.join(folder, f"journal-{day.isoformat()}.sqlite")
    part = f"{final}.{secrets.token_hex(4)}.part"  # unique: an earlier call that hangs may still write its own
    with _translated():
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _remove_parts(folder)
        try:
            _copy(journal, part, keep_free, crash)
            _check(part)
            _sync(part)
            crash("backup.checked")
            os.replace(part, final)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        _sync(folder)
        crash("backup.named")
        stat = os.stat(final)
        _remove_old(journal, day)
    return Backup(final, day, stat.st_mtime, stat.st_size)


def check_backup(backup: Backup) -> str:
    """Why a backup can't be used; "" when it can."""
    try:
        with _translated():
            _check(backup.path)
    except NcaasdError as error:
        return error.message
    return ""


def _copy(journal: str, part: str, keep_free: int, crash: CrashPoint) -> None:
    with closing(read_only(journal)) as db:
        pages, unused, size = (
            int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
        )
        _check_space(os.path.dirname(part), (pages - unused) * size, keep_free)
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise JournalBroken(f"the journal {journal} is corrupt: {' '.join(found.split())}", hint=RESTORE)
        # SQLite would make it readable by others.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        crash("backup.begun")
        db.execute("VACUUM INTO ?", (part,))
        crash("backup.copied")


def _check_space(folder: str, size: int, keep_free: int) -> None:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < size + keep_free:
        raise DiskFull(
            f"there is no room for a backup of the journal in {folder}: {free / 1e6:,.0f} MB are free, and it needs"
            f" {size / 1e6:,.0f} MB and {keep_free / 1e6:,.0f} MB that are left free",
            hint="free some space on the disk that holds `state:`",
        )


def _check(path: str) -> None:
    with closing(read_only(path, still=True)) as db:
        found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise JournalBroken(f"the backup {path} is corrupt: {' '.join(found.split())}")
        if not db.execute("PRAGMA user_version").fetchone()[0]:
            raise JournalBroken(f"the backup {path} is empty")


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_parts(folder: str) -> None:
    """Remove the partial copies that a killed process left."""
    for name in os.listdir(folder):
        if _PART.fullmatch(name):
            os.unlink(os.path.join(folder, name))


def _remove_old(journal: str, today: date) -> None:
    others = [b for b in backups_of(journal) if b.day != today]
    for old in others[KEPT_AT_LEAST:]:
        if old.day < today - KEPT:
            os.unlink(old.path)


def _day_of(name: str) -> date | None:
    found = _NAME.fullmatch(name)
    with contextlib.suppress(ValueError):
        return date.fromisoformat(found[1]) if found else None
    return None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"the journal can't be backed up: {error}") from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise JournalBroken(f"the journal or its backup is corrupt: {error}", hint=RESTORE) from error
        if name.startswith("SQLITE_FULL"):
            raise DiskFull(
                "the disk became full while the journal was backed up",
                hint="free some space on the disk that holds `state:`",
            ) from error
        raise LocalError(f"the journal can't be backed up: {error}") from error
