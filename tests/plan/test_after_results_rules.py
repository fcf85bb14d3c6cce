"""What may be moved or deleted when a job's results are here: what isn't proved to be elsewhere stays."""

from __future__ import annotations

from typing import Any

import pytest
from builders import T, cases, dataset, ended, job, package_of, row, sent

from ncaasd.declare.sections import AfterResults
from ncaasd.model import Artefact, ArtefactState, Dataset, FileRow, FileState, JobRow, JobState, Origin, Phase, Stat
from ncaasd.plan.after_results import archive_path, is_link, linked, needed, not_here, stays, steps, well_done

MOVE = {"local_inputs": {"move": "/archive/{path}"}}
DELETE = {"local_inputs": {"delete": {"copy_at": "/copies/{path}"}}}
REMOTE, TOOL = {"remote_inputs": "delete"}, {"run": "tell"}


def wanted(*parts: dict[str, Any]) -> AfterResults:
    return AfterResults.model_validate({k: v for part in parts for k, v in part.items()})


@pytest.mark.parametrize(
    ("settings", "wanted"),
    cases(
        ("nothing is touched unless it is written", wanted(), []),
        ("a tool", wanted(TOOL), ["run"]),
        ("moved", wanted(MOVE), ["local inputs"]),
        ("deleted", wanted(DELETE), ["local inputs"]),
        ("deleted in S3", wanted(REMOTE), ["remote inputs"]),
        ("all, each after those before it", wanted(REMOTE, DELETE, TOOL), ["run", "local inputs", "remote inputs"]),
    ),
)
def test_what_is_done_and_in_which_order(settings: AfterResults, wanted: list[str]) -> None:
    assert steps(settings) == wanted


@pytest.mark.parametrize(
    ("settings", "path", "copy"),
    cases(
        ("no archive", wanted(), "inputs/M7/a.tif", ""),
        ("S3 is no archive", wanted(REMOTE), "inputs/M7/a.tif", ""),
        ("where it is moved to", wanted(MOVE), "inputs/M7/a.tif", "/archive/M7/a.tif"),
        ("where somebody else's copy is", wanted(DELETE), "inputs/M7/a.tif", "/copies/M7/a.tif"),
        ("only the first inputs/ is ours", wanted(MOVE), "inputs/inputs/a.tif", "/archive/inputs/a.tif"),
        ("a name with braces", wanted(MOVE), "inputs/{path}.tif", "/archive/{path}.tif"),
    ),
)
def test_where_the_copy_is(settings: AfterResults, path: str, copy: str) -> None:
    assert archive_path(settings, path) == copy


@pytest.mark.parametrize(
    ("after", "well"),
    cases(
        ("done", ended(), True),
        ("done, and its results are being fetched", sent(verdict=JobState.DONE, state=JobState.FETCHING), False),
        ("running", sent(), False),
        ("not submitted", job(), False),
        ("failed", ended(JobState.FAILED), False),
        ("timed out", ended(JobState.TIMED_OUT), False),
        ("refused", ended(JobState.REFUSED), False),
        ("shown as done without a verdict", ended(verdict=None), False),
        ("done, and forgotten", ended(forgotten=True), False),
        ("done, of the website or another rig", ended(origin=Origin.ELSEWHERE), False),
        ("done, of a manifest", ended(origin=Origin.MANIFEST), True),
        ("done, of a submit file", ended(origin=Origin.SUBMIT), True),
    ),
)
def test_which_jobs_are_done_and_ours(after: JobRow, well: bool) -> None:
    assert well_done(after) is well


def artefact(name: str, state: ArtefactState) -> Artefact:
    return Artefact(1, 1, name, "b", f"k/{name}", 5, "e", state, "", "", (), 0.0, 0)


FETCHED, WANTED, REFUSED = ArtefactState.FETCHED, ArtefactState.WANTED, ArtefactState.REFUSED


@pytest.mark.parametrize(
    ("found", "why"),
    cases(
        ("all are here", [artefact("a", FETCHED), artefact("b", FETCHED)], ""),
        ("there are none", [], "nothing of its results was fetched"),
        ("one is to come", [artefact("a", FETCHED), artefact("b", WANTED)], "1 of its results are not here, such as b"),
        (
            "one can't be kept",
            [artefact("a", REFUSED), artefact("b", WANTED)],
            "2 of its results are not here, such as a",
        ),
    ),
)
def test_why_results_are_not_all_here(found: list[Artefact], why: str) -> None:
    assert not_here(found) == why


HERE = row()  # stored, as a job was given it
NOT_AS_STORED = "it is not, or not any more, what was stored"
OF_HERE = ended(datasets=(dataset(HERE),))


@pytest.mark.parametrize(
    ("file", "done", "why"),
    cases(
        ("stored, as the job had it", HERE, OF_HERE, ""),
        ("of a source", row("a.tif", tree="rig1"), OF_HERE, "it lies in rig1, which is only read"),
        ("a link", row(link="inputs/b.tif"), OF_HERE, "it is a symbolic link to inputs/b.tif"),
        ("changed, and not settled", row(state=FileState.SETTLING, stored=HERE.stat), OF_HERE, NOT_AS_STORED),
        ("changed, and to be uploaded", row(state=FileState.WHOLE, stored=HERE.stat), OF_HERE, NOT_AS_STORED),
        ("held", row(state=FileState.HELD, stored=HERE.stat), OF_HERE, NOT_AS_STORED),
        ("gone", row(state=FileState.GONE, stored=HERE.stat), OF_HERE, NOT_AS_STORED),
        ("never stored", row(stored=None), OF_HERE, NOT_AS_STORED),
        ("of another size than was stored", row(stored=Stat(999, T, T, 7)), OF_HERE, NOT_AS_STORED),
        ("of another time than was stored", row(stored=Stat(1000, T - 1, T, 7)), OF_HERE, NOT_AS_STORED),
        ("written to with its time set back", row(stored=Stat(1000, T, T - 1, 7)), OF_HERE, NOT_AS_STORED),
        ("of another inode only (a share)", row(stored=Stat(1000, T, T, 8)), OF_HERE, ""),
        ("the job had an earlier content", row(), ended(datasets=(dataset(HERE, "old"),)),
         "the job had another content of it"),
        ("it isn't known what the job had", row(), ended(datasets=(dataset(HERE, ""),)),
         "the job had another content of it"),
        ("another dataset of the job had another content", row(),
         ended(datasets=(dataset(row("inputs/b.tif"), "old"), dataset(HERE))), ""),
        ("the job had its package", row(), ended(datasets=(Dataset("M7/1.zip", "k", "z", package_of("M7/1.zip").place),)), ""),
        ("of an old journal, known by its name", row(),
         ended(datasets=(Dataset("a.tif", HERE.key, "old"),)), "the job had another content of it"),
    ),
)  # fmt: skip
def test_which_recordings_stay(file: FileRow, done: JobRow, why: str) -> None:
    assert stays(file, done) == why


def test_links_stay_and_so_does_what_they_lead_to() -> None:
    assert is_link(HERE) == "" and is_link(row(link="/mnt/a.tif")) == "it is a symbolic link to /mnt/a.tif"
    assert linked(None) == "" and linked(row("inputs/l.tif")) == "inputs/l.tif is a symbolic link to it"


@pytest.mark.parametrize(
    ("using", "why"),
    cases(
        ("nobody", [], ""),
        ("one that has ended", [ended()], ""),
        ("one that failed", [ended(JobState.FAILED)], ""),
        ("one that runs", [ended(), sent(unit="b.tif")], "job 123 (b.tif) is running and names it"),
        ("one whose results are being fetched", [sent(verdict=JobState.DONE, state=JobState.FETCHING)],
         "job 123 (a.tif) is fetching and names it"),
        ("one that may have been sent", [sent(phase=Phase.ATTEMPTED)], "job 123 (a.tif) is running and names it"),
        ("one that has no id yet", [job(state=JobState.WAITING)], "job dgp (a.tif) is waiting and names it"),
        ("one that is held", [job(state=JobState.HELD, hold="day")], "job dgp (a.tif) is held and names it"),
        ("another's", [sent(origin=Origin.ELSEWHERE)], "job 123 (a.tif) is running and names it"),
    ),
)  # fmt: skip
def test_what_an_unfinished_job_names_stays(using: list[JobRow], why: str) -> None:
    assert needed(using) == why
