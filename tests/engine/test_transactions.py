"""The engine's transactions: what is done last within each is committed with it, and what fails takes back all of it."""

from __future__ import annotations

from contextlib import closing

import pytest
from engine.lab import Lab

from ncaasd.adapters.journal import Journal, open_reader
from ncaasd.engine.core.runtime import Runtime


@pytest.fixture
def runtime(lab: Lab) -> Runtime:
    lab.rig.start()
    assert lab.rig.engine is not None
    return lab.rig.engine.runtime


def committed(journal: Journal, *keys: str) -> list[str | None]:
    """As another connection reads it."""
    with closing(open_reader(journal.path)) as reader:
        return [reader.get_meta(key) for key in keys]


def test_what_is_done_last_is_in_the_same_transaction_and_done_once(runtime: Runtime) -> None:
    journal, seen = runtime.journal, []

    def last() -> None:
        seen.append(journal.get_meta("inner"))
        journal.set_meta("last", "yes")
        assert committed(journal, "inner") == [None]

    runtime.before_commit = last
    with runtime.transaction():
        with runtime.transaction():
            journal.set_meta("inner", "yes")
        assert seen == []
    assert seen == ["yes"]
    assert committed(journal, "inner", "last") == ["yes", "yes"]


@pytest.mark.parametrize("where", ["in the block", "in a nested one", "in what is done last"])
def test_what_fails_takes_all_of_it_back(runtime: Runtime, where: str) -> None:
    journal, lasts = runtime.journal, []

    def last() -> None:
        lasts.append(where)
        journal.set_meta("last", "yes")
        if where == "in what is done last":
            raise ZeroDivisionError

    runtime.before_commit = last
    with pytest.raises(ZeroDivisionError), runtime.transaction():
        journal.set_meta("outer", "yes")
        with runtime.transaction():
            journal.set_meta("inner", "yes")
            if where == "in a nested one":
                raise ZeroDivisionError
        if where == "in the block":
            raise ZeroDivisionError
    assert len(lasts) == (where == "in what is done last")
    assert committed(journal, "outer", "inner", "last") == [None] * 3

    runtime.before_commit = lambda: journal.set_meta("last", "of the next")
    with runtime.transaction():
        journal.set_meta("outer", "yes")
    assert committed(journal, "outer", "last") == ["yes", "of the next"]


def test_notes_are_done_in_such_a_transaction(runtime: Runtime) -> None:
    journal = runtime.journal
    runtime.before_commit = lambda: journal.set_meta("last", journal.get_meta("note") or "")
    runtime.mailbox.tell(lambda: journal.set_meta("note", "told"))
    runtime.mailbox.read(0.0)
    assert committed(journal, "last") == ["told"]
    runtime.mailbox.ask(lambda: journal.set_meta("note", "asked"))
    assert committed(journal, "last") == ["asked"]
