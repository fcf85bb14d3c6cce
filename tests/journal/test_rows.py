"""Rows by name: what is written under a name is read back under it, and what the journal answers says what each number is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.adapters.journal.base import SubmitCount
from ncaasd.adapters.journal.jobs import _columns
from ncaasd.adapters.journal.rows import (
    BegunUpload,
    ConfigAt,
    FileCount,
    InventoryObject,
    JobCount,
    LeftCount,
    ManifestRow,
    PackageRow,
    WantedPackage,
)
from ncaasd.model import (
    EVENTUALLY,
    AfterStep,
    CostNote,
    Dataset,
    FetchProgress,
    FileState,
    Hold,
    JobChange,
    JobRow,
    JobSpec,
    JobState,
    MachinesUsed,
    ObjectInfo,
    Origin,
    Part,
    Phase,
    Place,
    Skipped,
    SkippedThing,
    Stat,
    Stored,
)

A = "demo"
ODD = "m7/\udcff.tif"  # a name that is no text
SEEN = Stat(1, 2, 3, 4)
CHANGE: JobChange = {
    "attempt": 1,
    "job_id": "123456789012345",
    "phase": Phase.SUBMITTED,
    "state": JobState.FETCHING,
    "reason": "a reason",
    "hold": "budget",
    "released": frozenset({"canary", "backlog"}),
    "intended": 2.0,
    "attempted": 3.0,
    "submitted": 4.0,
    "ended": 5.0,
    "next_at": 6.0,
    "not_before": 7.0,
    "failures": 8,
    "submit_key": "a submit key",
    "config_key": "a config key",
    "body": b"\x00{}",
    "verdict": JobState.REFUSED,
    "refused_kind": "capacity",
    "finished": 9,
    "total": 10,
    "cost": CostNote(11.0, 12.0, "13"),
    "seen": 14.0,
    "size": 15,
    "rebuilt": True,
    "forgotten": True,
    "results": "job__demo_1",
    "quiet_looks": 16,
    "config": "other.yaml",
    "overlay": '{"a": 1}',
    "instance_type": "p2.xlarge",
    "resultpath": "s3://b/k",
    "declared_in": f"submissions/{ODD}",
    "fields": '{"animal": "m7"}',
    "machines": 17,
    "machine_verdicts": "18",
    "config_name": "keep",
    "config_etag": "19",
}


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    with closing(open_journal(path)) as made, made.transaction():
        yield made


def add(journal: Journal, unit: str = "m7", name: str = "all", **change: Any) -> int:
    data = (Dataset(unit, "lab/inputs/data", "e", Place(A, "", f"inputs/{unit}")),)
    row = journal.add_job(JobSpec(A, name, unit, "", Origin.RULE, "manifest.yaml", data, "c.yaml"), 0, 1.0)
    journal.update_job(row, **change)
    return row


def add_file(journal: Journal, path: str, seen: Stat = SEEN, key: str = "") -> int:
    return journal.see_file(Place(A, "", path), seen, key or f"lab/{path}", FileState.WHOLE, "", 1.0)


# -- jobs


def test_what_can_be_changed_is_a_column_each(journal: Journal) -> None:
    there = {name for _n, name, *_ in journal._db.execute("PRAGMA table_info(job)")}
    assert JobChange.__annotations__.keys() == CHANGE.keys(), "this table has them all"
    assert _columns(CHANGE).keys() <= there


@pytest.mark.parametrize("name", CHANGE)
def test_what_is_changed_is_read_back_and_nothing_else(journal: Journal, name: str) -> None:
    row, value = add(journal), CHANGE[name]  # type: ignore[literal-required]
    before = journal.job(row)
    assert before is not None
    journal.update_job(row, **{name: value})
    of_row = name in JobRow.__slots__
    expected = replace(before, **({name: value} if of_row else {"spec": replace(before.spec, **{name: value})}))
    assert journal.job(row) == expected != before


def test_all_is_changed_at_once(journal: Journal) -> None:
    row = add(journal, ODD, **CHANGE)
    job = journal.job(row)
    assert job is not None and (job.spec.unit, job.spec.datasets[0].name) == (ODD, ODD)
    assert {name: getattr(job if hasattr(job, name) else job.spec, name) for name in CHANGE} == CHANGE


def test_there_are_no_other_columns_to_change(journal: Journal) -> None:
    row = add(journal)
    for name in ("id", "analysis", "nope", "cost_over"):
        with pytest.raises(ValueError, match=f"no such column of job: .'{name}'"):
            journal.update_job(row, **{name: 1})


def test_no_change_is_none(journal: Journal) -> None:
    row = add(journal)
    before = journal.job(row)
    journal.update_job(row)
    assert journal.job(row) == before


def test_released_and_rebuilt_are_doubted_by_name(journal: Journal) -> None:
    row = add(journal, released=frozenset({"rebuilt", "canary"}))
    journal.doubt_unended_jobs(A)
    job = journal.job(row)
    assert job is not None and (job.rebuilt, job.released) == (True, frozenset({"canary"}))


# -- files


def test_a_file_is_read_back(journal: Journal) -> None:
    """Each column has another value, so none is taken for another."""
    row = journal.see_file(
        Place(A, "tree", ODD), Stat(1, 2, 3, 4), "k", FileState.SETTLING, "", 5.0, link="inputs/\udcfe"
    )
    journal.file_stored(row, Stat(6, 7, 8, 9), Stored("k2", 6, "etag", 0xC), 10.0)
    journal.set_file(row, FileState.HELD, "why", 11.0, retry_at=12.0, failures=13)
    found = journal.file(row)
    assert found is not None and found.place == Place(A, "tree", ODD)
    assert (found.stat, found.stored, found.link) == (Stat(1, 2, 3, 4), Stat(6, 7, 8, 9), "inputs/\udcfe")
    assert (found.state, found.reason, found.since, found.key) == (FileState.HELD, "why", 11.0, "k2")
    assert (found.etag, found.crc, found.retry_at, found.failures, found.ours) == (
        "etag",
        f"{0xC:016x}",
        12.0,
        13,
        True,
    )
    assert [journal.file_at(found.place), *journal.files(A)] == [found, found]
    assert journal.crc_of(row) == found.crc and journal.crc_of(row + 1) == ""


@pytest.mark.parametrize("state", FileState)
def test_each_state_of_a_file_is_read_back(journal: Journal, state: FileState) -> None:
    row = add_file(journal, "inputs/a")
    journal.set_file(row, state, "", 1.0)
    found = journal.file(row)
    assert found is not None and found.state is state and found.stored is None and found.link == ""


PARTS = (Part(1, 5, "e1", 0xA), Part(2, 6, "e2", 0xB))


@pytest.mark.parametrize(
    ("key", "seen", "part_size", "goes_on"),
    [
        ("k", SEEN, 5, True),
        ("other", SEEN, 5, False),
        ("k", SEEN, 6, False),
        ("k", SEEN._replace(size=9), 5, False),
        ("k", SEEN._replace(mtime_ns=9), 5, False),
        ("k", SEEN._replace(ctime_ns=9), 5, False),
        ("k", SEEN._replace(inode=9), 5, False),
    ],
)
def test_an_upload_goes_on_when_it_is_of_this_very_content(
    journal: Journal, key: str, seen: Stat, part_size: int, goes_on: bool
) -> None:
    row = add_file(journal, "inputs/a", key="k")
    assert journal.begin_upload(row, "k", SEEN, 5, 1.0) == BegunUpload(None)
    assert journal.begin_upload(row, "k", SEEN, 5, 1.0) == BegunUpload(None), "begun, without an id"
    journal.upload_created(row, "an id")
    for part in PARTS:
        journal.part_stored(row, part)
    expected = BegunUpload("an id", PARTS) if goes_on else BegunUpload(None)
    assert journal.begin_upload(row, key, seen, part_size, 1.0) == expected
    assert journal.begin_upload(row, key, seen, part_size, 1.0) == expected, "what was begun anew goes on"


# -- what the journal answers


def files(j: Journal) -> None:
    for number, reason in enumerate(["", "why", "why"]):
        row = add_file(j, f"inputs/{number}", SEEN._replace(size=10**number))
        j.put_off_file(row, EVENTUALLY if reason else 0.0, reason)


def skipped(j: Journal) -> None:
    for path in (ODD, "z", "y"):
        j.skip_file(Place(A, "tree", path), "", f"why {path[:1]}", 1.0)


def packages(j: Journal) -> None:
    row = add_file(j, "package")
    j.set_package(row, A, "rule", ODD, "print", built=1.0, retry_at=2.0, failures=3, output="said")


def results(j: Journal) -> None:
    row = add(j)
    for number in range(3):
        j.want_artefact(row, f"{number}", "bucket", f"k{number}", 10**number, "e")
    found = j.artefact_named(row, "1")
    assert found is not None
    j.artefact_done(found.id, "there")


def care(j: Journal) -> None:
    row = add(j)
    for step in ("run", "local"):
        j.want_after_step(row, step)
    j.set_after_step(row, "run", "left", "why", failures=2)


def configs(j: Journal) -> None:
    add(j, "a", job_id="1", config_key="k", config_etag="e1", phase=Phase.SUBMITTED)
    add(j, "b", job_id="2", config_key="k", config_etag="e2", phase=Phase.ENDED)


def submits(j: Journal) -> None:
    j.set_meta(f"generation:{A}", "g")
    j.count_submit(A)


def running(j: Journal) -> None:
    add(j, "a", phase=Phase.SUBMITTED, submitted=100.0, machines=2)
    add(j, "b", phase=Phase.ENDED, submitted=100.0, machines=5, verdict=JobState.DONE)


# name: what is done, what is asked, what is answered
ANSWERS: dict[str, tuple[Callable[[Journal], object], Callable[[Journal], object], object]] = {
    "manifests": (
        lambda j: (j.set_manifest(A, f"z{ODD}", None, "wrong", 1.0), j.set_manifest(A, "b", b"good", "", 2.0)),
        lambda j: j.manifests(A),
        [ManifestRow("b", b"good", "", 2.0), ManifestRow(f"z{ODD}", None, "wrong", 1.0)],
    ),
    "a package": (packages, lambda j: j.package(A, "rule", ODD), PackageRow(1, "print", 2.0, 3, "said")),
    "no package": (packages, lambda j: j.package(A, "rule", "m7"), None),
    "packages": (packages, lambda j: j.packages(A), [WantedPackage("rule", ODD, 1)]),
    "afterwards": (
        care,
        lambda j: j.after_steps(1),
        {"run": AfterStep("left", "why", 2), "local": AfterStep("wanted", "", 0)},
    ),
    "due after steps": (care, lambda j: j.due_after_steps(0.0, 9), [1]),
    "what was fetched": (results, lambda j: j.fetch_progress(1), FetchProgress(1, 3, 10, 111)),
    "nothing to fetch": (add, lambda j: j.fetch_progress(1), FetchProgress(0, 0, 0, 0)),
    "bytes to fetch": (results, lambda j: j.bytes_wanted(1), 101),
    "jobs to fetch": (results, lambda j: j.jobs_to_fetch(), [1]),
    "files": (files, lambda j: j.count_files(), [FileCount(A, FileState.WHOLE, 3, 111)]),
    "what is left": (files, lambda j: j.count_left(), [LeftCount(A, "why", 2, 110)]),
    "the first that is skipped": (
        skipped,
        lambda j: j.first_skipped(A, 1),
        Skipped(3, (SkippedThing(Place(A, "tree", ODD), "why m"),)),
    ),
    "what is skipped": (skipped, lambda j: j.skipped(A, "tree"), {ODD: "why m", "z": "why z", "y": "why y"}),
    "nothing skipped": (add, lambda j: j.first_skipped(A, 1), Skipped(0, ())),
    "what was there": (
        lambda j: j.add_inventory(A, [ObjectInfo("k", 5, "e", 6.0)]),
        lambda j: [j.inventory(A, "k"), j.inventory(A, "l")],
        [InventoryObject(5, "e"), None],
    ),
    "configs": (configs, lambda j: j.configs_at(A, "k"), [ConfigAt("1", "e1", True), ConfigAt("2", "e2", False)]),
    "jobs": (configs, lambda j: j.count_jobs(A), [JobCount(A, JobState.WAITING, 2)]),
    "submits": (submits, lambda j: j.count_submit(A), SubmitCount("g", 2)),
    "machines": (running, lambda j: j.usage(A, 100.0), MachinesUsed(active=2, day=7)),
    "ids": (configs, lambda j: [j.job_ids(A), j.submitted_ids(A)], [{"1", "2"}, {"1", "2"}]),
}


@pytest.mark.parametrize("asked", ANSWERS)
def test_what_the_journal_answers(journal: Journal, asked: str) -> None:
    given, ask, answer = ANSWERS[asked]
    given(journal)
    assert ask(journal) == answer


def test_jobs_that_are_held_for_one_reason(journal: Journal) -> None:
    for unit, size, machines in [("a", 1, 0), ("b", 10, 3), ("c", 100, 2)]:
        newest = add(journal, unit, hold=Hold.BACKLOG, size=size, machines=machines)
    add(journal, "d", released=frozenset({"backlog"}))
    (held,) = journal.held_jobs(A)
    assert held.newest == journal.job(newest)
    assert (held.jobs, held.machines, held.bytes) == (3, 7, 111), "a's are as many as c's, the newest that is known"
