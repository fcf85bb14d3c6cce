"""What runs and what ran is counted in machines: those that a certificate told, else those that are expected (F101)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.keep_journal import FIXTURES

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.model import Dataset, JobSpec, JobState, MachinesUsed, Origin, Phase
from ncaasd.plan.guards import newest_known, per_dataset

A, NOW = "ensemble-dgp", 1_000_000.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(open_journal(str(tmp_path / "journal.db"))) as journal:
        yield journal


def add(
    journal: Journal, name: str, unit: str, *, datasets: int = 1, origin: Origin = Origin.RULE, **fields: object
) -> int:
    data = tuple(Dataset(f"{unit}{n}", f"lab/inputs/{unit}{n}") for n in range(datasets))
    row = journal.add_job(JobSpec(A, name, unit, "", origin, "manifest.yaml", data, "c.yaml"), 0, NOW)
    journal.update_job(row, phase=Phase.SUBMITTED, state=JobState.RUNNING, submitted=NOW, **fields)
    return row


def test_F101_what_runs_counts_in_machines(journal: Journal) -> None:
    with journal.transaction():
        add(journal, "one", "a")
        add(journal, "one", "b", datasets=2)
    assert journal.usage(A, NOW) == MachinesUsed(3, 3)  # nothing is known of any
    with journal.transaction():
        add(journal, "dgp", "c", machines=3)
    assert journal.usage(A, NOW) == MachinesUsed(12, 12)  # the others are expected to be like it
    with journal.transaction():
        add(journal, "one", "d", datasets=2, machines=2)
    assert journal.usage(A, NOW) == MachinesUsed(8, 8)  # until one of their own rule tells
    with journal.transaction():
        add(journal, "dgp", "e", verdict=JobState.DONE)
    assert journal.usage(A, NOW) == MachinesUsed(8, 11)


def test_F101_what_others_started_tells_nothing(journal: Journal) -> None:
    with journal.transaction():
        add(journal, "one", "a")
        add(journal, "100000000000001", "", origin=Origin.ELSEWHERE, machines=9)
    assert journal.usage(A, NOW) == MachinesUsed(1, 1)
    assert journal.machines_per_dataset(A, "one") == 1.0
    assert journal.machines_per_dataset("another-analysis", "one") == 1.0


def test_F101_what_is_held_is_counted_in_machines(journal: Journal) -> None:
    with journal.transaction():
        add(journal, "dgp", "c", machines=3)
        for unit in "xy":
            row = add(journal, "dgp", unit)
            journal.update_job(row, phase=Phase.OPEN, state=JobState.HELD, hold="backlog", submitted=0.0)
    (held,) = journal.held_jobs(A)
    assert (held.jobs, held.machines) == (2, 6)


kinds = st.tuples(st.sampled_from(["r", "s", "t"]), st.integers(0, 4), st.integers(1, 3), st.sampled_from(list(Origin)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(kinds, max_size=8))
def test_F101_plan_expects_what_the_journal_expects(tmp_path: Path, made: list[tuple[str, int, int, Origin]]) -> None:
    """`ncaasd plan` asks the rows, the daemon asks SQLite: they must agree."""
    path = tmp_path / "random.db"
    path.unlink(missing_ok=True)
    with closing(open_journal(str(path))) as journal:
        with journal.transaction():
            for number, (name, machines, datasets, origin) in enumerate(made):
                add(journal, name, str(number), machines=machines, datasets=datasets, origin=origin)
        jobs = journal.jobs(A)
        for name in "rstu":
            of_the_rule = newest_known(j for j in jobs if j.spec.name == name)
            assert journal.machines_per_dataset(A, name) == per_dataset(of_the_rule, newest_known(jobs))


def test_F79_F101_of_an_older_journal_nothing_is_known_and_datasets_count_as_before(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    with closing(sqlite3.connect(path)) as db:
        db.executescript((Path(FIXTURES) / "journal-3.sql").read_text())
        counted = db.execute(
            "SELECT analysis, sum(total) FROM job WHERE phase IN ('intent', 'attempted', 'submitted') AND verdict IS NULL"
            " AND NOT (phase='intent' AND hold<>'') GROUP BY analysis"
        ).fetchall()
        assert counted
    with closing(open_journal(path)) as journal:
        assert {(j.machines, j.machine_verdicts) for j in journal.jobs()} == {(0, "")}
        for analysis, datasets in counted:
            assert journal.usage(analysis, NOW).active == datasets
