"""The desk's promise: who asks is answered after the commit, or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ncaasd.adapters.journal import open_journal, open_reader
from ncaasd.engine.desk import Stopping, ThreadDesk
from ncaasd.errors import JournalError


def test_an_answer_comes_after_the_commit(tmp_path: Path) -> None:
    path = str(tmp_path / "j.sqlite")
    journal = open_journal(path)
    desk = ThreadDesk(journal)
    seen: list[str | None] = []

    def ask() -> None:
        desk.ask(lambda: journal.set_meta("key", "value"))
        reader = open_reader(path)  # sees commits only
        seen.append(reader.get_meta("key"))
        reader.close()

    asker = threading.Thread(target=ask)
    asker.start()
    assert desk.read(5.0) == 1
    asker.join(10)
    assert seen == ["value"]
    journal.close()


def test_who_asked_for_what_could_not_be_committed_does_not_go_on(tmp_path: Path) -> None:
    journal = open_journal(str(tmp_path / "j.sqlite"))
    desk = ThreadDesk(journal)
    outcome: list[str] = []

    def ask() -> None:
        try:
            desk.ask(lambda: journal.set_meta("key", "value"))
            outcome.append("went on")
        except Stopping:
            outcome.append("stopped")

    def no_space() -> None:
        raise JournalError("no space left")

    asker = threading.Thread(target=ask)
    asker.start()
    while desk.read(0.0) == 0 and not outcome:  # both notes in one batch: the second spoils it
        desk.tell(no_space)
        try:
            if desk.read(0.05):
                break
        except JournalError:
            break
    asker.join(10)
    assert outcome in (["stopped"], ["went on"])
    assert (journal.get_meta("key") == "value") == (outcome == ["went on"])
    journal.close()


def test_after_closing_nobody_waits_for_ever(tmp_path: Path) -> None:
    journal = open_journal(str(tmp_path / "j.sqlite"))
    desk = ThreadDesk(journal)
    desk.close()
    with pytest.raises(Stopping):
        desk.ask(lambda: None)
    journal.close()
