"""Every statement that the engine has the journal execute fails once, or for a while: nothing is submitted that is not
recorded, nothing is lost or doubled, and it goes on by itself where it may (F13, F15).

The whole engine in one thread, on a store in memory; the journal is real. Each ordinal is a run of its own.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes.memory_store import Fault
from state_machine.inline_rig import BUCKET, GROUP
from state_machine.test_steps import Setting

from ncaasd.adapters.journal import open_reader, opening
from ncaasd.errors import JournalBroken, JournalError, StateError
from ncaasd.model import JobState, Phase

WRITES = ("INSERT", "UPDATE", "DELETE", "BEGIN", "COMMIT")
DATA = {"a.tif": b"data of a", "m1/b.tif": b"data of b" * 1000}


def refusal(name: str) -> sqlite3.OperationalError:
    """What SQLite raises, by the name of its code."""
    text = {"SQLITE_FULL": "database or disk is full"}.get(name, "disk I/O error")
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


class FailingDisk:
    """Stands before SQLite: the statements from `first` to `last` fail, counted over all connections of a run."""

    def __init__(self, name: str = "", first: int = 0, last: int = 0, *, only: str = "", applied: bool = False) -> None:
        self.name, self.first, self.last = name, first, last
        self.only = only  # the kind of statement that is counted; all that write
        self.applied = applied  # it failed, and has its effect all the same
        self.count = 0

    def execute(self, run: Callable[[], Any], sql: str) -> Any:
        kind = sql.lstrip()[:6].strip().upper()
        if kind not in ((self.only,) if self.only else WRITES):
            return run()
        self.count += 1
        if not self.first <= self.count <= self.last:
            return run()
        if self.applied:
            run()
        raise refusal(self.name)


class Connection:
    """sqlite3.Connection, as far as the journal uses it."""

    def __init__(self, db: sqlite3.Connection, disk: FailingDisk) -> None:
        self._db, self._disk = db, disk

    def execute(self, sql: str, values: Any = ()) -> Any:
        return self._disk.execute(lambda: self._db.execute(sql, values), sql)

    def executemany(self, sql: str, rows: Any) -> Any:
        return self._disk.execute(lambda: self._db.executemany(sql, rows), sql)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Run:
    """One life of a rig with two recordings, a rule and a one-off job, until all is done."""

    def __init__(self, folder: str, disk: FailingDisk) -> None:
        self.setting = Setting(Path(folder))
        self.disk = disk
        self.restarts = 0
        self.ended = 0
        self.unrecorded: list[str] = []
        for name, body in DATA.items():
            path = self.setting.folder / "inputs" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(body)
        rule = "rules:\n  - {name: all, datasets: '**/*.tif', config: c.yaml}\n"
        (self.setting.folder / "manifest.yaml").write_text(rule)
        self.setting.ask("one", "a.tif")
        is_submit = Fault("put", lambda k: k.endswith("submit.json"), times=None, before=self._recorded)
        self.setting.server.faults.append(is_submit)

    def _recorded(self, key: str) -> None:
        """A submit is on its way: another reader of the journal must find it committed."""
        with closing(open_reader(self.setting.rig.journal_path)) as journal:
            found = [j for j in journal.jobs() if j.submit_key == key]
        if not found or found[0].phase is not Phase.ATTEMPTED or not found[0].body:
            self.unrecorded.append(key)

    def turn(self) -> None:
        """What the daemon does with the journal's errors: make the engine anew, or end (and be started again)."""
        try:
            self.setting.rig.turn()
        except JournalBroken:
            self.ended += 1
            self.setting.rig.kill()
        except JournalError:
            self.restarts += 1
            self.setting.rig.kill()

    def until_done(self) -> None:
        for _ in range(400):
            self.turn()
            self._platform()
            if self._done():
                return
            self.setting.clock.sleep(0.7)
        rig = self.setting.rig
        jobs = [(j.spec.name, j.spec.unit, j.phase, j.state, j.reason, j.next_at) for j in rig.journal.jobs()]
        raise AssertionError(
            f"in vain: {jobs} {[(f.place.path, f.state, f.reason) for f in rig.journal.files(BUCKET)]}"
        )

    def _jobs(self) -> list[Any]:
        if not os.path.exists(self.setting.rig.journal_path):
            return []
        try:
            with closing(open_reader(self.setting.rig.journal_path)) as journal:
                return journal.jobs()
        except (JournalError, StateError):
            return []

    def _platform(self) -> None:
        for job in self._jobs():
            marker = f"{GROUP}/results/job__{BUCKET}_{job.job_id}/process_results/end.txt"
            if job.submit_key in self.setting.server.keys() and marker not in self.setting.server.keys():  # noqa: SIM118
                self.setting.finish(job)

    def _done(self) -> bool:
        jobs = self._jobs()
        return len(jobs) == 3 and all(j.phase is Phase.ENDED and j.state is JobState.DONE for j in jobs)

    def check(self) -> None:
        server = self.setting.server
        assert self.unrecorded == [], "a submit was sent that is not recorded"
        assert sorted(self.setting.submits().values()) == [1, 1, 1], "each job is submitted once"
        for name, body in DATA.items():
            key = f"{GROUP}/inputs/{name}"
            assert (server.body(key), server.created(key)) == (body, 1)
        for job in self._jobs():
            folder = self.setting.folder / "results" / job.results
            assert (folder / "process_results/out.bin").read_bytes() == b"results"
            assert (folder / "job.json").exists()
        with closing(open_reader(self.setting.rig.journal_path)) as journal:
            told = [e.subject for e in journal.events(limit=10_000) if e.kind in ("submitted", "adopted")]
        assert len(told) == len(set(told)) == 3

    def close(self) -> None:
        self.setting.rig.kill()


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FailingDisk], Run]]:
    """Runs a rig to its end on a failing disk, and checks what is left."""
    connect = sqlite3.connect

    def run(disk: FailingDisk) -> Run:
        def connected(path: str, **options: Any) -> Any:
            db = connect(path, **options)
            return db if options.get("uri") else Connection(db, disk)  # readers read

        monkeypatch.setattr(opening.sqlite3, "connect", connected)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
            made = Run(folder, disk)
            try:
                made.until_done()
                made.check()
            finally:
                made.close()
                monkeypatch.undo()
        return made

    yield run


def test_nothing_fails(run_with: Callable[[FailingDisk], Run]) -> None:
    ran = run_with(FailingDisk())
    assert (ran.restarts, ran.ended) == (0, 0)
    assert ran.disk.count > 200


def count_of(run_with: Callable[[FailingDisk], Run], only: str = "") -> int:
    disk = FailingDisk(only=only)
    run_with(disk)
    return disk.count


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SQLITE_FULL", "SQLITE_IOERR_WRITE"])
def test_F13_each_write_fails_once(run_with: Callable[[FailingDisk], Run], name: str) -> None:
    """No space, or the write refused: nothing is taken for written, and it goes on by itself."""
    for ordinal in range(1, count_of(run_with) + 1):
        ran = run_with(FailingDisk(name, ordinal, ordinal))
        assert (ran.restarts, ran.ended) == (1, 0), f"statement {ordinal}"


def test_F13_no_space_for_a_while(run_with: Callable[[FailingDisk], Run]) -> None:
    every = 5 if os.environ.get("NCAASD_LONG") else 17
    for ordinal in range(1, count_of(run_with) + 1, every):
        ran = run_with(FailingDisk("SQLITE_FULL", ordinal, ordinal + 12))
        assert ran.restarts >= 3 and ran.ended == 0, f"from statement {ordinal} on"


@pytest.mark.parametrize("applied", [False, True], ids=["lost", "written all the same"])
def test_F15_each_fsync_fails_once(run_with: Callable[[FailingDisk], Run], applied: bool) -> None:
    """The process ends; started again, it finds the row or doesn't, and either is well."""
    for ordinal in range(1, count_of(run_with, "COMMIT") + 1):
        ran = run_with(FailingDisk("SQLITE_IOERR_FSYNC", ordinal, ordinal, only="COMMIT", applied=applied))
        assert (ran.restarts, ran.ended) == (0, 1), f"commit {ordinal}"
