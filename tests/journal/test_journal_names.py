"""A dataset is a local file: what the journal keeps of it, and what it makes of an older journal (F96, F79)."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ncaasd.adapters.journal import Journal, open_journal, schema
from ncaasd.model import Dataset, FileState, JobSpec, Origin, Phase, Place, Stat, Stored

A = "demo"
KEY = "lab/inputs/_.tif"
STAT = Stat(5, 1, 1, 1)


def older(path: str, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    """A journal as the first release left it."""
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:3])
    monkeypatch.setattr(schema, "VERSION", 3)
    open_journal(path).close()
    monkeypatch.undo()
    return sqlite3.connect(path)


def add_file(db: sqlite3.Connection, tree: str, path: str, key: str, state: str = "stored") -> None:
    db.execute(
        "INSERT INTO file (analysis, tree, path, size, mtime_ns, ctime_ns, inode, state, since, key)"
        " VALUES (?,?,?,1,1,1,1,?,0,?)",
        (A, tree, os.fsencode(path), state, key),
    )


def add_job(db: sqlite3.Connection, name: str, dataset: str, key: str, origin: str = "rule") -> None:
    row = db.execute(
        "INSERT INTO job (analysis, name, unit, attempt, origin, declared_in, config, phase, state, created)"
        " VALUES (?,?,?,0,?,?,'c.yaml','open','waiting',0) RETURNING id",
        (A, name, os.fsencode(dataset), origin, b"manifest.yaml"),
    ).fetchone()[0]
    db.execute("INSERT INTO job_dataset VALUES (?,0,?,?,'')", (row, os.fsencode(dataset), key))


def test_F96_an_older_journals_datasets_are_given_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "journal.sqlite")
    with closing(older(path, monkeypatch)) as db:
        add_file(db, "", "inputs/a b.tif", "lab/inputs/a_b.tif")
        add_job(db, "one", "a b.tif", "lab/inputs/a_b.tif")
        add_file(db, "", "inputs/日本.tif", KEY)  # two names of one key: their own names tell
        add_file(db, "", "inputs/中文.tif", KEY, "refused")
        add_job(db, "japan", "日本.tif", KEY)
        add_job(db, "china", "中文.tif", KEY)
        add_file(db, "share", "x/\udcff.tif", "lab/inputs/x/_.tif")  # one key, one name, two trees: not known
        add_file(db, "", "inputs/x/\udcff.tif", "lab/inputs/x/_.tif", "refused")
        add_job(db, "either", "x/\udcff.tif", "lab/inputs/x/_.tif")
        add_job(db, "never here", "z.tif", "lab/inputs/z.tif")
        add_job(db, "elsewhere", "s3://b/z.tif", "s3://b/z.tif", "manifest")
        db.commit()
    with closing(open_journal(path)) as journal:
        found = {j.spec.name: [d.place for d in j.spec.datasets] for j in journal.jobs()}
    assert found == {
        "one": [Place(A, "", "inputs/a b.tif")],
        "japan": [Place(A, "", "inputs/日本.tif")],
        "china": [Place(A, "", "inputs/中文.tif")],
        "either": [None],
        "never here": [None],
        "elsewhere": [None],
    }


def a_job(journal: Journal, name: str, place: Place, key: str = KEY) -> int:
    datasets = (Dataset(place.path, key, place=place),)
    return journal.add_job(JobSpec(A, name, place.path, "", Origin.RULE, "manifest.yaml", datasets, "c.yaml"), 0, 0.0)


def test_F96_jobs_of_a_file_are_not_those_of_another_one_at_its_key(tmp_path: Path) -> None:
    first, second = Place(A, "camera-1", "\udcff.tif"), Place(A, "camera-2", "\udcff.tif")
    with closing(open_journal(str(tmp_path / "journal.sqlite"))) as journal, journal.transaction():
        ids = [journal.see_file(p, STAT, KEY, FileState.WHOLE, "", 0.0) for p in (first, second)]
        a_job(journal, "r1", first)
        a_job(journal, "r2", second)
        rows = [journal.file(i) for i in ids]
        assert [[j.spec.name for j in journal.jobs_of_file(r)] for r in rows if r] == [["r1"], ["r2"]]
        assert sorted(j.spec.name for j in journal.jobs_using(A, KEY)) == ["r1", "r2"]
        assert [journal.file_of(j.spec.datasets[0]) for j in journal.jobs()] == rows[::-1]


def test_F96_who_takes_a_key_takes_what_was_stored_there(tmp_path: Path) -> None:
    first, second = Place(A, "camera-1", "a.tif"), Place(A, "camera-2", "a.tif")
    with closing(open_journal(str(tmp_path / "journal.sqlite"))) as journal, journal.transaction():
        ids = [journal.see_file(p, STAT, KEY, FileState.WHOLE, "", 0.0) for p in (first, second)]
        journal.file_stored(ids[0], STAT, Stored(KEY, 5, "etag", 1), 0.0)
        row = journal.file(ids[1])
        assert row is not None
        journal.take_key(row)
        before, after = journal.file(ids[0]), journal.file(ids[1])
        assert before is not None and after is not None
        assert (before.stored, before.etag, before.ours) == (None, "", False)
        assert after.ours, "this rig has put what is there: it may be overwritten"


def test_F96_another_key_is_another_key_for_the_jobs_that_are_not_submitted(tmp_path: Path) -> None:
    place = Place(A, "", "inputs/中文.tif")
    with closing(open_journal(str(tmp_path / "journal.sqlite"))) as journal, journal.transaction():
        file = journal.see_file(place, STAT, KEY, FileState.REFUSED, "", 0.0)
        jobs = [a_job(journal, name, place) for name in ("open", "sent")]
        other = a_job(journal, "other", Place(A, "share", "inputs/中文.tif"))
        journal.update_job(jobs[1], phase=Phase.SUBMITTED)
        journal.give_key(file, "lab/inputs/ZhongWen.tif")
        found = {j.spec.name: j.spec.datasets[0].key for j in map(journal.job, [*jobs, other]) if j}
        assert found == {"open": "lab/inputs/ZhongWen.tif", "sent": KEY, "other": KEY}


def test_F96_a_file_that_is_gone_does_not_come_back_by_the_end_of_its_upload(tmp_path: Path) -> None:
    with closing(open_journal(str(tmp_path / "journal.sqlite"))) as journal, journal.transaction():
        file = journal.see_file(Place(A, "", "inputs/a.tif"), STAT, KEY, FileState.WHOLE, "", 0.0)
        journal.set_file(file, FileState.GONE, "", 0.0)
        row = journal.file_stored(file, STAT, Stored(KEY, 5, "etag", 1), 0.0)
        assert row is not None and (row.state, row.stored) == (FileState.GONE, STAT)
