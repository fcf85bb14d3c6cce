"""What is asked again and again costs what is under way, not what exists: counted in steps of SQLite's machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.model import Dataset, FileState, JobSpec, JobState, Origin, Phase, Place, Stat, Stored

A = "demo-analysis"
STEP = 10  # SQLite's machine is asked how far it is so often
FEW = (FileState.SETTLING, FileState.WHOLE, FileState.HELD, FileState.REFUSED)
Ask = Callable[[Journal], object]

ASKED: dict[str, Ask] = {
    "what settles": lambda j: list(j.files(A, tree="", states=[FileState.SETTLING])),
    "what is held": lambda j: list(j.files(A, states=[FileState.HELD, FileState.REFUSED], limit=200)),
    "configs": lambda j: list(j.files(A, tree="", under="configs/")),
    "a unit": lambda j: list(j.files(A, tree="", under="inputs/M7/")),
    "uploads that are due": lambda j: j.pending_files(A, 1.0, 256),
    "when an upload is due": lambda j: j.next_upload(A),
    "inputs that wait": lambda j: j.files_waiting(A),
    "what is left here": lambda j: j.count_left(),
    "files of a key": lambda j: j.files_with_key(A, "lab/inputs/3.tif"),
    "jobs that are due": lambda j: j.due_jobs(1.0, 100),
    "when a job is due": lambda j: j.next_due([1, 2]),
    "jobs of a file": lambda j: j.jobs_using(A, "lab/inputs/3.tif"),
    "unfinished jobs": lambda j: j.jobs(unfinished=True),
    "machines of a rule": lambda j: j.machines_per_dataset(A, "all"),
    "machines of a rule that has none": lambda j: j.machines_per_dataset(A, "new"),
    "held jobs": lambda j: j.held_jobs(A),
    "lost jobs": lambda j: j.jobs(A, unfinished=True, newest=True, states=[JobState.LOST], limit=200),
    "jobs whose data changed": lambda j: j.jobs_with_news(A, 50),
    "wake a file's jobs": lambda j: j.wake_jobs_using(A, "lab/inputs/3.tif"),
    "wake what queues": lambda j: j.wake_ready_jobs(A, 10),
    "wake what is open": lambda j: j.wake_open_jobs(A),
    "wake what is unended": lambda j: j.wake_unended_jobs(A),
    "ask for uploads again": lambda j: j.retry_files(A),
    "after a jump of the clock": lambda j: j.forget_appointments(1.0),
}


def filled(path: Path, many: int) -> Journal:
    """`many` files are stored and `many` jobs done; ten files and one job are under way."""
    journal = open_journal(str(path))
    with journal.transaction():
        for number in range(many):
            name = f"{number}.tif"
            key, seen = f"lab/inputs/{name}", Stat(number, number, number, number)
            row = journal.see_file(Place(A, "", f"inputs/{name}"), seen, key, FileState.STORED, "", 1.0)
            journal.file_stored(row, seen, Stored(key, number, "e", 0), 1.0)
            spec = JobSpec(A, "all", name, "", Origin.RULE, "manifest.yaml", (Dataset(name, key, "e"),), "c.yaml")
            job = journal.add_job(spec, 0, 1.0)
            journal.update_job(
                job, phase=Phase.ENDED, state=JobState.DONE, submitted=1.0, job_id=str(10**14 + number), machines=1
            )
        for number in range(10):
            place = Place(A, "", f"inputs/M7/{number}.tif")
            journal.see_file(place, Stat(1, number, 1, 1), f"lab/{place.path}", FEW[number % len(FEW)], "", 1.0)
        spec = JobSpec(
            A, "all", "M7", "", Origin.RULE, "manifest.yaml", (Dataset("M7", "lab/inputs/M7/1.tif"),), "c.yaml"
        )
        journal.add_job(spec, 0, 1.0)
    return journal


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("journals")
    with (
        contextlib.closing(filled(folder / "few", 200)) as few,
        contextlib.closing(filled(folder / "many", 2000)) as many,
    ):
        yield few, many


def steps(journal: Journal, ask: Ask) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    journal._db.set_progress_handler(tick, STEP)
    try:
        with journal.transaction():
            ask(journal)
    finally:
        journal._db.set_progress_handler(None, 0)
    return count * STEP


@pytest.mark.parametrize("what", ASKED)
def test_it_costs_what_is_under_way(journals: tuple[Journal, Journal], what: str) -> None:
    few, many = (steps(journal, ASKED[what]) for journal in journals)
    assert many <= 1.2 * few + 100, f"{few} steps with 200 files and jobs, {many} with 2,000"


def test_a_walk_through_everything_is_noticed(journals: tuple[Journal, Journal]) -> None:
    few, many = (steps(journal, lambda j: j.count_files()) for journal in journals)
    assert many > 5 * few


def test_F103_what_is_gone_is_looked_up_by_size_and_time(tmp_path: Path) -> None:
    """Recordings of one protocol have one size, and all of last year's may be gone."""

    def gone(path: Path, many: int) -> Journal:
        journal = open_journal(str(path))
        with journal.transaction():
            for number in range(many):
                seen = Stat(1000, number * 10**10, 1, number)
                place = Place(A, "", f"inputs/{number}.tif")
                row = journal.see_file(place, seen, f"lab/{place.path}", FileState.STORED, "", 1.0)
                journal.file_stored(row, seen, Stored(f"lab/{place.path}", 1000, "e", number), 1.0)
                journal.set_file(row, FileState.GONE, "", 1.0)
        return journal

    def ask(journal: Journal) -> None:
        found = journal.gone_like(A, Stat(1000, 10**11 + 5, 1, 1), f"{10:016x}", 2 * 10**9)
        assert [(row.place.path, row.crc) for row in found] == [("inputs/10.tif", f"{10:016x}")]
        assert not journal.gone_like(A, Stat(1000, 10**11 + 5, 1, 1), f"{11:016x}", 2 * 10**9)

    with (
        contextlib.closing(gone(tmp_path / "few", 200)) as few,
        contextlib.closing(gone(tmp_path / "many", 2000)) as many,
    ):
        assert steps(many, ask) <= 1.2 * steps(few, ask) + 100
