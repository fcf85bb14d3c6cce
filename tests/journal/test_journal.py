"""The journal itself: safe settings, migrations, what it refuses, readers beside the writer, copies."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.journal_work import copy_journal, rows_of, work, write_row
from support.spawner import Process, Spawner

import ncaasd
from ncaasd.adapters.journal import Journal, open_journal, open_reader, schema
from ncaasd.adapters.journal.opening import _migrate
from ncaasd.engine.core.crash import VARIABLE
from ncaasd.errors import JournalBroken, JournalError, StateError

MORE = """
    ALTER TABLE event ADD COLUMN weight INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE later (id INTEGER PRIMARY KEY, note TEXT NOT NULL);
    INSERT INTO later SELECT id, text FROM event;
    CREATE INDEX later_note ON later (note);
"""


def schema_of(path: str) -> tuple[int, dict[str, str]]:
    """The version, and every table, index and trigger by its name."""
    with closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return version, dict(db.execute("SELECT name, coalesce(sql, '') FROM sqlite_master"))


# -- settings


def test_F16_wal_and_full_are_in_force(path: str) -> None:
    with closing(open_journal(path)) as journal:
        asked = {name: journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        assert asked == {"journal_mode": "wal", "synchronous": 2}
        assert journal._db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_F16_a_journal_that_cannot_be_in_wal_is_refused() -> None:
    with pytest.raises(JournalError, match=r"cannot be made safe: journal_mode is memory.*local disk"):
        open_journal(":memory:")


def test_F16_a_journal_that_cannot_be_written_is_refused(path: str) -> None:
    open_journal(path).close()
    os.rename(path, path + ".elsewhere")
    os.mkdir(path)
    with pytest.raises(JournalError):
        open_journal(path)


# -- what is in it


def test_transactions_are_whole_or_nothing(path: str) -> None:
    with closing(open_journal(path)) as journal:
        write_row(journal, 0)
        with pytest.raises(ZeroDivisionError), journal.transaction():
            journal.set_meta("last", "1")
            with journal.transaction():  # joins the outer one
                journal.event(1.0, "a", "row 1", "row", "")
            raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError), journal.transaction():
            journal.set_meta("last", "2")
            with journal.transaction():
                raise ZeroDivisionError
        write_row(journal, 3)
    assert rows_of(path) == {0: 1, 3: 1}


@pytest.mark.parametrize(
    "change", ["UPDATE event SET text='other'", "DELETE FROM event", "DELETE FROM event WHERE id=1"]
)
def test_events_are_append_only(path: str, change: str) -> None:
    with closing(open_journal(path)) as journal:
        write_row(journal, 0)
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            journal._db.execute(change)
        write_row(journal, 1)
    assert rows_of(path) == {0: 1, 1: 1}


def test_any_bytes_in_a_name_are_kept(path: str) -> None:
    from ncaasd.model import FileState, Place, Stat

    name = os.fsdecode(b"inputs/\xff\xfe \n'\".tif")
    with closing(open_journal(path)) as journal, journal.transaction():
        journal.see_file(Place("a", "", name), Stat(1, 2, 3, 4), "k", FileState.WHOLE, "", 1.0)
        journal.event(1.0, "a", f"file {name}", "seen", name)
        assert [row.place.path for row in journal.files("a")] == [name]
        assert journal.events()[0].text == "inputs/\\udcff\\udcfe \n'\".tif"


# -- migrations


def points() -> list[tuple[str, int]]:
    """Every crash point of a new journal's migrations ("name:permit"), and the schema's version when killed there."""
    passed: list[str] = []
    found: list[tuple[str, int]] = []

    def crash(name: str) -> None:
        passed.append(name)
        found.append((f"{name}:{passed.count(name)}", passed.count("migration.committed")))

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        _migrate(db, ":memory:", crash)
    return found


def at_version(version: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, str]]:
    """What the schema was when it had so many migrations."""
    if not version:
        return 0, {}
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
    monkeypatch.setattr(schema, "VERSION", version)
    open_journal(str(folder / "old.sqlite")).close()
    monkeypatch.undo()
    return schema_of(str(folder / "old.sqlite"))


def killed(process: Process) -> None:
    assert process.wait(30) == -signal.SIGKILL, process.said()


@pytest.mark.parametrize(("point", "version"), points())
def test_F11_killed_in_a_migration_of_a_new_journal(
    spawner: Spawner, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, version: int
) -> None:
    killed(spawner.call("support.work:journal_opened", path, log=path + ".log", env={VARIABLE: point}))
    assert schema_of(path) == at_version(version, tmp_path, monkeypatch), "one schema or the other"
    if version < schema.VERSION:
        with pytest.raises(StateError, match=r"is only being made|is of an older ncaasd"):
            open_reader(path)
    assert work(path, 3) == 0
    assert rows_of(path) == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_F79_every_schema_that_was_released_is_brought_up_to_date(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    at_version(version, tmp_path, monkeypatch)
    os.rename(tmp_path / "old.sqlite", path)
    assert work(path, 3) == 0
    assert rows_of(path) == {0: 1, 1: 1, 2: 1}
    new = str(tmp_path / "new.sqlite")
    open_journal(new).close()
    assert schema_of(path) == schema_of(new)


@pytest.mark.parametrize("point", [*(f"migration.statement:{n}" for n in range(1, 5)), "migration.before_commit:1"])
def test_F11_killed_in_a_later_migration(spawner: Spawner, path: str, point: str) -> None:
    work(path, 5)
    before = schema_of(path)
    killed(spawner.call("support.work:journal_migrated", path, MORE, log=path + ".log", env={VARIABLE: point}))
    assert schema_of(path) == before, "the old schema, as it was"
    assert len(rows_of(path)) == 5
    after = spawner.call("support.work:journal_migrated", path, MORE, log=path + ".log")
    assert after.wait(30) == 0, after.said()
    version, now = schema_of(path)
    assert version == before[0] + 1 and {"later", "later_note"} <= now.keys()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM later").fetchone() == (5,)


def test_F79_a_newer_schema_is_refused_with_the_version_to_install(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work(path, 5)
    monkeypatch.setattr(ncaasd, "__version__", "7.8.9")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, MORE))
    monkeypatch.setattr(schema, "VERSION", len(schema.MIGRATIONS))
    open_journal(path).close()
    monkeypatch.undo()
    made = schema_of(path)
    for opening in (open_journal, open_reader):
        with pytest.raises(
            StateError, match=r"a newer ncaasd \(schema \d+; this one knows \d+\).*install ncaasd 7\.8\.9"
        ):
            opening(path)
    assert schema_of(path) == made, "and not touched"


def test_an_older_schema_is_not_read_before_it_is_brought_up_to_date(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(path, 2)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, MORE))
    monkeypatch.setattr(schema, "VERSION", len(schema.MIGRATIONS))
    with pytest.raises(StateError, match=r"older ncaasd \(schema \d+\).*brings it up to date"):
        open_reader(path)
    open_journal(path).close()
    with closing(open_reader(path)) as journal:
        assert len(journal.events()) == 2


# -- what is no journal


def _overwrite(path: str, at: int, count: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(os.urandom(count))


DAMAGES: dict[str, Callable[[str], None]] = {
    "no database": lambda path: Path(path).write_bytes(b"Dear journal, today I was a text file.\n" * 100),
    "header": lambda path: _overwrite(path, 0, 100),
    "first page": lambda path: _overwrite(path, 100, 3000),
    "schema": lambda path: _overwrite(path, 4096, 20_000),
    "middle": lambda path: _overwrite(path, os.path.getsize(path) // 8192 * 4096, 40_000),
    "cut off": lambda path: os.truncate(path, os.path.getsize(path) // 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_F18_a_corrupt_journal_is_called_so(path: str, damage: str) -> None:
    work(path, 200)
    DAMAGES[damage](path)
    with pytest.raises(JournalBroken, match=r"corrupt.*move it aside; ncaasd then rebuilds it from what is in S3"):
        open_journal(path)


def test_F18_an_empty_file_is_a_new_journal(path: str) -> None:
    open(path, "w").close()
    assert work(path, 2) == 0


def test_a_wal_that_was_cut_off_loses_what_was_not_committed(path: str) -> None:
    """As a crash of the machine leaves it: the frames after the last whole commit count for nothing."""
    writer = open_journal(path)
    for number in range(20):
        write_row(writer, number)
    wal = Path(path + "-wal").read_bytes()
    shm = Path(path + "-shm")
    main = Path(path).read_bytes()
    writer.close()
    Path(path).write_bytes(main)
    Path(path + "-wal").write_bytes(wal[:-5000])
    shm.unlink(missing_ok=True)
    there = rows_of(path)
    assert set(there.values()) == {1} and 15 <= len(there) < 20 and sorted(there) == list(range(len(there)))


# -- readers


@pytest.fixture
def held(spawner: Spawner, path: str) -> Process:
    """A process that writes the journal right now."""
    ready = path + ".ready"
    process = spawner.call("support.work:journal_held", path, ready, log=path + ".log")
    until = time.monotonic() + 30
    while not os.path.exists(ready):
        assert process.running() and time.monotonic() < until, process.said()
        time.sleep(0.01)
    return process


def test_a_reader_beside_the_writer_sees_what_is_committed(held: Process, path: str) -> None:
    with closing(open_reader(path)) as journal:
        assert journal.get_meta("committed") == "yes"
        with pytest.raises(JournalError), journal.transaction():
            journal.set_meta("committed", "by the reader")
    held.kill()
    with closing(open_reader(path)) as journal:
        assert journal.get_meta("committed") == "yes"


def test_two_writers_do_not_mix(held: Process, path: str) -> None:
    """The lock of the state folder keeps them apart; SQLite's own does too, if ever it doesn't."""
    with closing(open_journal(path)) as journal:
        journal._db.execute("PRAGMA busy_timeout=200")
        with pytest.raises(JournalError, match="locked"), journal.transaction():
            journal.set_meta("committed", "by the other")
        held.kill()
        with journal.transaction():
            journal.set_meta("committed", "by the other")
        assert journal.get_meta("committed") == "by the other"


@pytest.mark.root
@pytest.mark.parametrize("writer", ["at work", "killed", "stopped"])
def test_a_reader_without_the_right_to_write(spawner: Spawner, tmp_path: Path, writer: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user's file: needs root")
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    above = folder
    while above != above.parent and above.stat().st_uid == os.getuid() and above != Path("/"):
        above.chmod(above.stat().st_mode | 0o055)
        above = above.parent
    path = str(folder / "journal.sqlite")
    if writer == "stopped":
        work(path, 3)
        with closing(open_journal(path)) as journal, journal.transaction():
            journal.set_meta("committed", "yes")
        assert not os.path.exists(path + "-wal")
    else:
        ready = str(tmp_path / "ready")
        process = spawner.call("support.work:journal_held", path, ready, log=str(tmp_path / "log"))
        until = time.monotonic() + 30
        while not os.path.exists(ready):
            assert time.monotonic() < until, process.said()
            time.sleep(0.01)
        if writer == "killed":
            process.kill()
    log = tmp_path / "reader"
    log.touch()
    log.chmod(0o666)
    reader = spawner.call("support.work:journal_read_as_nobody", path, log=str(log))
    assert reader.wait(30) == 0, reader.said()
    assert "read: yes" in reader.said()


def test_there_is_no_journal_to_read(path: str) -> None:
    with pytest.raises(StateError, match="there is no journal"):
        open_reader(path)


# -- copies


def test_a_copy_made_beside_the_writer_is_whole(held: Process, path: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.sqlite")
    with closing(open_reader(path)) as journal:
        copy_journal(journal, copy)
    held.kill()
    with closing(open_journal(copy)) as journal:
        assert journal.get_meta("committed") == "yes"
        write_row(journal, 0)
    assert rows_of(copy) == {0: 1}
    with closing(open_journal(path)) as journal:
        assert journal.events() == [], "the copy is another file"


def test_a_copy_is_of_one_moment(path: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.sqlite")
    with closing(open_journal(path)) as journal:
        for number in range(50):
            write_row(journal, number)
        copy_journal(journal, copy)
        for number in range(50, 60):
            write_row(journal, number)
    assert len(rows_of(copy)) == 50
    assert len(rows_of(path)) == 60
    os.replace(copy, path)  # put back
    for end in ("-wal", "-shm"):
        Path(path + end).unlink(missing_ok=True)
    with closing(open_journal(path)) as journal:
        assert isinstance(journal, Journal)
        write_row(journal, 50)
    assert len(rows_of(path)) == 51
