"""Old events go, as far as nothing needs them; nothing else of the event log can be changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.journal.pruning import old_events
from ncaasd.model import JobSpec, Origin

BEFORE = 1000.0
ODD = os.fsdecode(b"m7/\xff.tif")


def spec(name: str, unit: str, analysis: str = "a") -> JobSpec:
    return JobSpec(
        analysis=analysis, name=name, unit=unit, version="", origin=Origin.RULE, declared_in="manifest.yaml", datasets=(),
        config="c.yaml",
    )  # fmt: skip


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    with closing(open_journal(path)) as made:
        with made.transaction():
            for unit, phase, attempt in (
                ("open.tif", "open", 0),
                ("sent.tif", "submitted", 0),
                ("over.tif", "ended", 0),
                ("again.tif", "ended", 0),
                ("again.tif", "open", 1),
                (ODD, "open", 0),
            ):
                made.update_job(made.add_job(spec("r", unit), attempt, 1.0), phase=phase)
        yield made


@pytest.mark.parametrize(
    ("at", "analysis", "subject", "goes"),
    [
        (999.0, "a", "file inputs/x.tif", True),
        (1000.0, "a", "file inputs/x.tif", False),
        (999.0, "", "", True),
        (1.0, "a", "job r open.tif", False),
        (1.0, "b", "job r open.tif", True),  # another analysis's
        (1.0, "a", "job other open.tif", True),
        (1.0, "a", "job r sent.tif", False),
        (1.0, "a", "job r over.tif", True),
        (1.0, "a", "job r again.tif", False),  # an earlier attempt of one that has not ended
        (1.0, "a", "job r again.tif attempt 1", False),
        (1.0, "a", f"job r {ODD}", False),
        (1.0, "a", "job r unknown.tif", True),
        (1.0, "a", "unit r M7/1", False),  # the last word on it
    ],
)
def test_which_events_go(journal: Journal, at: float, analysis: str, subject: str, goes: bool) -> None:
    with journal.transaction():
        journal.event(at, analysis, subject, "kind", "text")
    assert old_events(journal.path, BEFORE, 10) == ([1] if goes else [])


def test_of_a_unit_the_last_event_stays(journal: Journal) -> None:
    with journal.transaction():
        for unit in ("M7/1", "M7/2", "M7/1", "M7/1"):
            journal.event(1.0, "a", f"unit r {unit}", "overdue", "")
        journal.event(BEFORE + 1, "a", "unit r M7/2", "aborted", "")
    assert old_events(journal.path, BEFORE, 10) == [1, 2, 3]


def test_the_oldest_are_found_first_and_so_many_at_a_time(journal: Journal) -> None:
    with journal.transaction():
        for number in range(7):
            journal.event(number, "a", f"file {number}", "seen", "")
    first = old_events(journal.path, BEFORE, 4)
    assert first == [1, 2, 3, 4]
    with journal.transaction():
        journal.drop_events(first, BEFORE)
    assert old_events(journal.path, BEFORE, 4) == [5, 6, 7]
    assert [e.subject for e in journal.events()] == ["file 4", "file 5", "file 6"]


def test_what_is_not_committed_is_not_seen(journal: Journal) -> None:
    with journal.transaction():
        journal.event(1.0, "a", "file x", "seen", "")
        assert old_events(journal.path, BEFORE, 4) == []


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM event",
        "DELETE FROM event WHERE id=2",
        "DELETE FROM event WHERE at>=1000",
        "UPDATE event SET text='other'",
        "UPDATE event SET text='other' WHERE id=1",  # not an old one, either
        "UPDATE event SET at=1 WHERE id=2",
    ],
)
def test_younger_events_can_neither_go_nor_change(journal: Journal, change: str) -> None:
    with journal.transaction():
        for at in (1.0, 1000.0, 2000.0):
            journal.event(at, "a", f"at {at}", "seen", "")
        journal.drop_events([], BEFORE)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        journal._db.execute(change)
    with pytest.raises(sqlite3.IntegrityError, match="append only"), journal.transaction():
        journal.drop_events([1, 3], BEFORE)
    assert [e.at for e in journal.events()] == [1.0, 1000.0, 2000.0]


@pytest.mark.parametrize("kept_from", [None, "", "never", "-1"])
def test_no_event_goes_when_nobody_said_which(journal: Journal, kept_from: str | None) -> None:
    with journal.transaction():
        journal.event(1.0, "a", "file x", "seen", "")
        if kept_from is not None:
            journal.set_meta("events kept from", kept_from)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        journal._db.execute("DELETE FROM event")
