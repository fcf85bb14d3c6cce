"""What one pass did, and the exit code of `once`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from show_machine import ANALYSIS, NOW, Machine, add_file, add_job, done, spec, submitted

from ncaasd.adapters.journal import Journal
from ncaasd.model import FileState, JobState
from ncaasd.show.cli.running import exit_code
from ncaasd.show.outcome import PassOutcome, pass_outcome

BEGAN = NOW - 200
BEFORE, SINCE = NOW - 300, NOW - 100


def outcome(journal: Journal, *, waited: bool = False, troubles: tuple[str, ...] = ()) -> PassOutcome:
    return pass_outcome(journal, [ANALYSIS], BEGAN, troubles, waited=waited)


FAILED = {"state": JobState.FAILED, "verdict": JobState.FAILED}


@pytest.mark.parametrize(
    ("fields", "code", "waiting_code", "shown"),
    [
        (done(ended=SINCE), 0, 0, True),
        (done(ended=BEFORE), 0, 0, False),
        (done(ended=SINCE, **FAILED), 1, 1, True),
        (done(ended=BEFORE, **FAILED), 0, 0, False),  # said in the pass in which it was
        (done(ended=SINCE, **FAILED, forgotten=True), 0, 0, False),
        (submitted(**FAILED), 1, 1, True),  # its logs are still being fetched
        (done(ended=SINCE, state=JobState.REFUSED), 1, 1, True),
        (done(ended=SINCE, state=JobState.TIMED_OUT), 1, 1, True),
        (submitted(), 0, 0, True),
        (submitted(state=JobState.LOST), 1, 1, True),
        ({"state": JobState.HELD, "hold": "person"}, 1, 1, True),
        ({"state": JobState.WAITING}, 0, 1, True),  # with --wait, nothing more comes of it by itself
    ],
)
def test_jobs(journal: Journal, fields: dict[str, Any], code: int, waiting_code: int, shown: bool) -> None:
    add_job(journal, spec(), created=BEFORE, **fields)
    assert exit_code(outcome(journal)) == code
    assert exit_code(outcome(journal, waited=True)) == waiting_code
    assert bool(outcome(journal).jobs) is shown


@pytest.mark.parametrize(
    ("state", "code"),
    [(FileState.STORED, 0), (FileState.SETTLING, 0), (FileState.HELD, 1), (FileState.REFUSED, 1), (FileState.GONE, 0)],
)
def test_files(journal: Journal, state: FileState, code: int) -> None:
    add_file(journal, "inputs/a.tif", state)
    assert exit_code(outcome(journal)) == code


def test_a_bad_manifest_is_a_mistake(journal: Journal) -> None:
    with journal.transaction():
        journal.set_manifest(ANALYSIS, "manifest.yaml", None, "manifest.yaml:1:1: wrong", NOW)
    add_job(journal, spec(), state=JobState.HELD, hold="person")
    assert exit_code(outcome(journal)) == 2


def test_what_was_in_the_way_goes_before_all(journal: Journal) -> None:
    with journal.transaction():
        journal.set_manifest(ANALYSIS, "manifest.yaml", None, "manifest.yaml:1:1: wrong", NOW)
    assert exit_code(outcome(journal, troubles=("S3 does not answer",))) == 3


def test_what_was_stored_in_the_pass_and_as_json(machine: Machine, journal: Journal) -> None:
    with journal.transaction():
        journal.event(BEFORE, ANALYSIS, "file inputs/a.tif", "stored", "before")
        journal.event(SINCE, ANALYSIS, "file inputs/b.tif", "stored", "now")
    add_job(journal, spec(), **submitted())
    found = outcome(journal, troubles=("no space",))
    assert found.stored == (f"{ANALYSIS}: file inputs/b.tif",)
    document = json.loads(json.dumps(found.document("/data")))
    assert document["jobs"][0]["state"] == "running"
    assert document["troubles"] == ["no space"]
