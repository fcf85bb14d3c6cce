"""Which files have changed, as the journal tells whoever keeps something of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.declare.manifest import parse_manifest
from ncaasd.engine.arriving.sessions import Sessions
from ncaasd.model import FileRow, FileState, Place, Stat, Stored
from ncaasd.plan import grouping

STAT = Stat(1, 2, 3, 4)
OTHER_STAT = Stat(9, 9, 9, 9)
KEY = "lab/inputs/a.tif"
Change = Callable[[Journal, FileRow], object]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(open_journal(str(tmp_path / "j.sqlite"))) as made:
        yield made


def see(journal: Journal, path: str, *, key: str = KEY, state: FileState = FileState.WHOLE) -> FileRow:
    with journal.transaction():
        file_id = journal.see_file(Place("a", "", f"inputs/{path}"), STAT, key, state, "", 1.0)
    row = journal.file(file_id)
    assert row is not None
    return row


CHANGES: dict[str, Change] = {
    "seen": lambda j, row: j.see_file(row.place, OTHER_STAT, row.key, FileState.SETTLING, "", 2.0),
    "skipped": lambda j, row: j.skip_file(row.place, row.key, "why", 2.0),
    "another state": lambda j, row: j.set_file(row.id, FileState.GONE, "", 2.0),
    "whole": lambda j, row: j.file_whole(row.id, 2.0),
    "stored": lambda j, row: j.file_stored(row.id, row.stat, Stored(row.key, 1, "etag", 7), 2.0),
    "owned": lambda j, row: j.own_file(row.id, 2.0),
    "another key": lambda j, row: j.give_key(row.id, "lab/inputs/other.tif"),
    "takes a key": lambda j, row: j.take_key(row),
    "lost in S3": lambda j, row: j.unstore_file(row.id, 2.0),
}
NO_CHANGES: dict[str, Change] = {
    "put off": lambda j, row: j.put_off_file(row.id, 99.0, "waits"),
    "tried again": lambda j, _row: j.retry_files("a"),
    "its unit tried again": lambda j, _row: j.retry_unit("a", "", "inputs/"),
    "being uploaded": lambda j, row: j.begin_upload(row.id, row.key, row.stat, 1 << 23, 2.0),
    "a job of it woken": lambda j, row: j.wake_jobs_of_file(row),
    "a clock jumped": lambda j, _row: j.forget_appointments(2.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_is_told_once(journal: Journal, change: Change) -> None:
    row, _other = see(journal, "a.tif"), see(journal, "b.tif", key="lab/inputs/b.tif")
    journal.take_changed_files()
    with journal.transaction():
        change(journal, row)
        assert journal.take_changed_files() == {row.id}, "within the transaction too"
    assert journal.take_changed_files() == set()


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES)
def test_an_appointment_is_no_change(journal: Journal, change: Change) -> None:
    row = see(journal, "a.tif")
    journal.take_changed_files()
    with journal.transaction():
        change(journal, row)
    assert journal.take_changed_files() == set()


def test_who_loses_a_key_is_told_too(journal: Journal) -> None:
    before, after = see(journal, "sub/a.tif"), see(journal, "a.tif")
    with journal.transaction():
        journal.file_stored(before.id, before.stat, Stored(KEY, 1, "etag", 7), 2.0)
    journal.take_changed_files()
    with journal.transaction():
        journal.take_key(after)
    assert journal.take_changed_files() == {before.id, after.id}


def test_nothing_is_kept_for_nobody(journal: Journal) -> None:
    """A tool, or a command, never asks."""
    for number in range(5):
        see(journal, f"{number}.tif", key=f"lab/inputs/{number}.tif")
    assert journal._changed is None
    assert journal.take_changed_files() == set()


def test_a_rollback_loses_nothing_that_was_to_be_told(journal: Journal) -> None:
    first, second, third = (see(journal, f"{n}.tif", key=f"lab/inputs/{n}.tif") for n in "abc")
    journal.take_changed_files()
    taken = see(journal, "taken.tif", key="lab/inputs/taken.tif")
    with journal.transaction():
        assert taken.id in journal.take_changed_files(), "and committed: not told again"
    with journal.transaction():
        journal.set_file(first.id, FileState.HELD, "", 2.0)
    with pytest.raises(ZeroDivisionError), journal.transaction():
        journal.set_file(second.id, FileState.HELD, "", 3.0)
        assert journal.take_changed_files() == {first.id, second.id}
        journal.set_file(third.id, FileState.HELD, "", 3.0)
        raise ZeroDivisionError
    assert journal.take_changed_files() == {first.id, second.id, third.id}
    with journal.transaction():
        pass
    assert journal.take_changed_files() == set()


def test_a_book_without_units_lets_nothing_gather(journal: Journal) -> None:
    sessions = Sessions(journal)
    for number in range(5):
        see(journal, f"{number}.tif", key=f"lab/inputs/{number}.tif")
    sessions.turn()
    assert not journal._changed


def test_a_book_follows_a_transaction_and_its_rollback(journal: Journal) -> None:
    matcher = grouping.matcher(
        parse_manifest(
            b"{rules: [{name: r, unit: '{m}', datasets: '*.tif', config: c.yaml}]}",
            "m.yaml",
            standing=True,
            sources=(),
            tools=(),
        ).rules[0]
    )
    row = see(journal, "M7/a.tif")
    sessions = Sessions(journal)

    def state() -> FileState:
        unit = sessions.at("a", matcher, "M7")
        assert unit is not None
        return unit.files["a.tif"].state

    assert state() is FileState.WHOLE
    with pytest.raises(ZeroDivisionError), journal.transaction():
        journal.set_file(row.id, FileState.HELD, "", 2.0)
        assert state() is FileState.HELD
        raise ZeroDivisionError
    assert state() is FileState.WHOLE
