"""The mailbox's promise: who asks is answered after the commit, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ncaasd.adapters.journal import open_journal, open_reader
from ncaasd.engine.arriving.uploading import JournaledTransfers
from ncaasd.engine.core.mailbox import Stopping, ThreadMailbox
from ncaasd.engine.core.runtime import Runtime
from ncaasd.errors import JournalError
from ncaasd.model import FileState, Part, Place, Stat

MIB = 1 << 20


def test_an_answer_comes_after_the_commit(tmp_path: Path) -> None:
    path = str(tmp_path / "j.sqlite")
    journal = open_journal(path)
    mailbox = ThreadMailbox(journal)
    seen: list[str | None] = []

    def ask() -> None:
        mailbox.ask(lambda: journal.set_meta("key", "value"))
        reader = open_reader(path)  # sees commits only
        seen.append(reader.get_meta("key"))
        reader.close()

    asker = threading.Thread(target=ask)
    asker.start()
    assert mailbox.read(5.0) == 1
    asker.join(10)
    assert seen == ["value"]
    journal.close()


def test_who_asked_for_what_could_not_be_committed_does_not_go_on(tmp_path: Path) -> None:
    journal = open_journal(str(tmp_path / "j.sqlite"))
    mailbox = ThreadMailbox(journal)
    outcome: list[str] = []

    def ask() -> None:
        try:
            mailbox.ask(lambda: journal.set_meta("key", "value"))
            outcome.append("went on")
        except Stopping:
            outcome.append("stopped")

    def no_space() -> None:
        raise JournalError("no space left")

    asker = threading.Thread(target=ask)
    asker.start()
    while mailbox.read(0.0) == 0 and not outcome:  # both notes in one batch: the second spoils it
        mailbox.tell(no_space)
        try:
            if mailbox.read(0.05):
                break
        except JournalError:
            break
    asker.join(10)
    assert outcome in (["stopped"], ["went on"])
    assert (journal.get_meta("key") == "value") == (outcome == ["went on"])
    journal.close()


def test_after_closing_nobody_waits_for_ever(tmp_path: Path) -> None:
    journal = open_journal(str(tmp_path / "j.sqlite"))
    mailbox = ThreadMailbox(journal)
    mailbox.close()
    with pytest.raises(Stopping):
        mailbox.ask(lambda: None)
    journal.close()


def test_F06_a_part_is_committed_before_its_worker_sends_another(tmp_path: Path) -> None:
    """So a kill costs the parts that are in flight, however busy the engine is."""
    path = str(tmp_path / "j.sqlite")
    journal = open_journal(path)
    mailbox = ThreadMailbox(journal)
    stat = Stat(2 * MIB, 1, 1, 1)
    with journal.transaction():
        file_id = journal.see_file(Place("a", "", "inputs/x"), stat, "lab/inputs/x", FileState.WHOLE, "", 0.0)
        journal.begin_upload(file_id, "lab/inputs/x", stat, MIB, 0.0)
        journal.upload_created(file_id, "an-id")
    log = JournaledTransfers(cast(Runtime, SimpleNamespace(mailbox=mailbox, journal=journal)))
    seen: list[int] = []

    def work() -> None:
        log.part_stored(file_id, Part(1, MIB, "0" * 32, 7))
        with contextlib.closing(sqlite3.connect(path)) as reader:  # sees commits only
            seen.append(reader.execute("SELECT count(*) FROM part").fetchone()[0])

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(0.2)
    assert (worker.is_alive(), seen) == (True, [])
    assert mailbox.read(5.0) == 1
    worker.join(10)
    assert seen == [1]
    journal.close()


def test_what_nobody_waits_for_shares_a_commit(tmp_path: Path) -> None:
    """Of several tries on a machine that may be busy, one shows it."""
    journal = open_journal(str(tmp_path / "j.sqlite"))
    mailbox = ThreadMailbox(journal)

    def tell_twice() -> None:
        mailbox.tell(lambda: journal.set_meta("first", ""))
        time.sleep(0.005)
        mailbox.tell(lambda: journal.set_meta("second", ""))

    reads: list[int] = []
    for _ in range(10):
        teller = threading.Thread(target=tell_twice)
        teller.start()
        reads.append(mailbox.read(5.0))
        teller.join()
        while mailbox.read(0.0):
            pass
    assert 2 in reads
    journal.close()
