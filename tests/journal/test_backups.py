"""Copies of the journal, one a day: whole or not there, checked, private, kept for a week, never filling the disk."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from support.journal_work import rows_of, work, write_row
from support.spawner import Spawner

from ncaasd.adapters.journal import backups, open_journal, schema
from ncaasd.adapters.journal.backups import Backup, backups_of, check_backup, is_due, make_backup
from ncaasd.engine.core.crash import VARIABLE
from ncaasd.errors import DiskFull, JournalBroken, LocalError

TODAY = date(2026, 11, 28)
POINTS = ("backup.begun", "backup.copied", "backup.checked", "backup.named")


def made(path: str, day: date = TODAY, **more: int) -> Backup:
    return make_backup(path, day, keep_free=more.get("keep_free", 0))


def names(path: str) -> list[str]:
    """All that is in the folder."""
    return sorted(os.listdir(backups.folder_of(path)))


def test_a_backup_has_all_that_is_committed_and_is_private(path: str) -> None:
    with closing(open_journal(path)) as journal:
        for number in range(30):
            write_row(journal, number)
        with journal.transaction():
            journal.set_meta("last", "not yet")
            backup = made(path)
    assert names(path) == ["journal-2026-11-28.sqlite"] and check_backup(backup) == ""
    assert os.stat(backup.path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(backup.path)).st_mode & 0o777 == 0o700
    assert (backup.day, backup.size) == (TODAY, os.path.getsize(backup.path))
    with closing(sqlite3.connect(backup.path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert len(rows_of(backup.path)) == 30


def test_a_second_backup_of_a_day_takes_the_place_of_the_first(path: str) -> None:
    work(path, 3)
    made(path)
    work(path, 2, first=3)
    backup = made(path)
    assert names(path) == ["journal-2026-11-28.sqlite"] and len(rows_of(backup.path)) == 5


def test_the_journal_is_written_meanwhile(path: str) -> None:
    work(path, 1)
    with closing(open_journal(path)) as journal:
        with journal.transaction():
            for number in range(20_000):
                journal.event(1.0, "b", f"filling {number}", "row", "x" * 800)
        begun, copied = threading.Event(), threading.Event()
        told = {"backup.begun": begun, "backup.copied": copied}

        def passed(name: str) -> None:
            if name in told:
                told[name].set()

        copying = threading.Thread(target=make_backup, args=(path, TODAY), kwargs={"keep_free": 0, "crash": passed})
        copying.start()
        assert begun.wait(10)
        meanwhile = 0
        while not copied.is_set():
            write_row(journal, 1 + meanwhile)
            meanwhile += not copied.is_set()
        copying.join(10)
    assert meanwhile, "nobody waited for it"
    (backup,) = backups_of(path)
    assert check_backup(backup) == ""


KEPT: dict[str, tuple[list[int], list[int]]] = {
    # ages in days of what is there -> of what is kept beside today's
    "each night": ([*range(1, 12)], [*range(1, 8)]),
    "off for a month": ([*range(30, 41)], [*range(30, 37)]),
    "by a clock that is ahead": ([*range(3650, 3661)], [*range(3650, 3657)]),
    "by a clock that was ahead": ([-3650, 1, 2, 3, 8, 9], [-3650, 1, 2, 3, 8, 9]),
    "by a clock that was ahead for long": ([*range(-3660, -3650), 1, 2, 7, 8], [*range(-3660, -3650), 1, 2, 7]),
}


@pytest.mark.parametrize("case", KEPT)
def test_backups_are_kept_for_a_week(path: str, case: str) -> None:
    there, kept = KEPT[case]
    work(path, 1)
    folder = Path(backups.folder_of(path))
    folder.mkdir()
    for age in there:
        (folder / f"journal-{TODAY - timedelta(days=age)}.sqlite").write_bytes(b"as it was")
    made(path)
    assert [b.day for b in backups_of(path)] == sorted(
        (TODAY - timedelta(days=age) for age in [0, *kept]), reverse=True
    )


def test_what_has_another_name_is_left_alone(path: str) -> None:
    work(path, 1)
    others = [
        "journal-2020-01-01.sqlite.keep",
        "my-journal-2020-01-01.sqlite",
        "journal-2020-13-01.sqlite",
        "journal-2020-01-01.sqlite-wal",
        "journal-2020-1-1.sqlite",
        "notes.txt",
    ]
    folder = Path(backups.folder_of(path))
    folder.mkdir()
    for name in others:
        (folder / name).write_bytes(b"somebody's")
    (folder / "journal-2020-02-02.sqlite").mkdir()
    for age in range(1, 20):
        made(path, TODAY - timedelta(days=age))
    assert {*others, "journal-2020-02-02.sqlite"} <= set(names(path))
    assert len(backups_of(path)) <= 20


# -- what goes wrong


def test_nothing_is_written_when_there_is_too_little_room(path: str) -> None:
    work(path, 3)
    old = made(path, TODAY - timedelta(days=20))
    with pytest.raises(DiskFull, match=r"no room for a backup of the journal in .*backups: .* free.*free some space"):
        made(path, keep_free=2**62)
    assert [b.path for b in backups_of(path)] == [old.path] and len(names(path)) == 1, "and none is removed for it"


def test_a_disk_that_takes_no_more_leaves_nothing_behind(path: str) -> None:
    work(path, 300)
    assert os.path.getsize(path) > 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # no file may be larger; SQLite's -shm has 32 KiB
    try:
        with pytest.raises(LocalError, match="journal"):
            made(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(path) == []
    assert len(rows_of(made(path).path)) == 300, "the next one goes well"


@pytest.mark.parametrize("at", [0.3, 0.5, 0.8])
def test_a_corrupt_journal_is_said_and_its_backups_stay(path: str, at: float) -> None:
    work(path, 200)
    old = made(path, TODAY - timedelta(days=20))
    with open(path, "r+b") as file:
        file.seek(int(os.path.getsize(path) * at) // 4096 * 4096)
        file.write(os.urandom(20_000))
    with pytest.raises(JournalBroken, match=r"corrupt.*docs/journal\.md"):
        made(path)
    assert names(path) == [os.path.basename(old.path)] and check_backup(old) == ""


def test_a_fault_of_the_journal_that_its_copy_would_not_have_is_said(path: str) -> None:
    """A list of free pages that are not there: the next writes would go into others."""
    work(path, 200)
    with open(path, "r+b") as file:
        file.seek(36)  # the file format's count of free pages
        file.write((7).to_bytes(4, "big"))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM event").fetchone() == (200,), "what is asked still answers"
    with pytest.raises(JournalBroken, match="corrupt"):
        made(path)
    assert names(path) == []


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "empty": lambda path: os.truncate(path, 0),
    "no database": lambda path: path.write_bytes(b"Dear journal, today I was a text file.\n" * 100),
    "middle": lambda path: path.write_bytes(path.read_bytes()[:20_000] + b"\xff" * 30_000 + path.read_bytes()[50_000:]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_backup_that_cannot_be_used_is_known(path: str, damage: str) -> None:
    work(path, 200)
    backup = made(path)
    DAMAGES[damage](Path(backup.path))
    assert check_backup(backup)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_a_whole_backup_or_none(spawner: Spawner, path: str, point: str) -> None:
    work(path, 50)
    killed = spawner.call("support.work:journal_backed_up", path, log=path + ".log", env={VARIABLE: point})
    assert killed.wait(30) == -signal.SIGKILL, killed.said()
    there = backups_of(path)
    assert len(there) == (point == "backup.named") and not any(check_backup(b) for b in there)
    assert len(names(path)) == 1, "a half one has another name"
    for left in set(names(path)) - {os.path.basename(b.path) for b in there}:  # killed in the midst of its writing
        half = Path(backups.folder_of(path), left)
        half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    again = spawner.call("support.work:journal_backed_up", path, log=path + ".log")
    assert again.wait(30) == 0, again.said()
    (backup,) = backups_of(path)
    assert names(path) == [os.path.basename(backup.path)] and len(rows_of(backup.path)) == 50


HOUR = 3600.0


@pytest.mark.parametrize(
    ("ages", "due"),
    [
        ([], True),
        ([1 * HOUR], False),
        ([24.5 * HOUR], False),  # of last night, and this night's comes
        ([26 * HOUR], True),
        ([26 * HOUR, 2 * HOUR], False),
        ([-3650 * 24 * HOUR], True),  # made by a clock that was ahead
        ([-3650 * 24 * HOUR, HOUR], False),
    ],
)
def test_a_backup_is_due_when_the_last_one_is_older_than_a_day(path: str, ages: list[float], due: bool) -> None:
    work(path, 1)
    now = time.time()
    for number, age in enumerate(ages):
        backup = made(path, TODAY - timedelta(days=number))
        os.utime(backup.path, (now - age, now - age))
    assert is_due(path, now) is due
