"""What a preview says of the time after jobs: what comes back, what goes then, and what must be true before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import LAYOUT, cases, dataset, ended, in_unit, job, package_of, row, sent

from ncaasd.declare.config import Analysis
from ncaasd.model import (
    AfterStep,
    Artefact,
    ArtefactState,
    Dataset,
    FileRow,
    FileState,
    JobRow,
    JobState,
    Origin,
    Place,
)
from ncaasd.plan.afterwards import AT_ITS_END, Due, PlannedFetch, PlannedRemoval, fetches, removals

FILE = row()
WANTED, FETCHED, REFUSED = ArtefactState.WANTED, ArtefactState.FETCHED, ArtefactState.REFUSED


def artefact(state: ArtefactState, size: int = 5) -> Artefact:
    return Artefact(1, 1, "a", "b", "k", size, "e", state, "", "", (), 0.0, 0)


def due(of: JobRow) -> Due:
    return Due(of.spec, of.job_id, of)


PLANNED = Due(job().spec, "777")
RUNS, OVER = due(sent(row=1)), due(ended(row=1))


@pytest.mark.parametrize(
    ("of", "left", "expected"),
    cases(
        ("only planned", PLANNED, [], ("job__caiman-web_777", AT_ITS_END, None, None)),
        ("it runs", RUNS, [], ("job__caiman-web_123", AT_ITS_END, None, None)),
        ("it runs, and has a folder here", due(sent(row=1, results="job__x")), [], ("job__x", AT_ITS_END, None, None)),
        ("some of its results are wanted", RUNS, [artefact(WANTED), artefact(WANTED, 7)],
         ("job__caiman-web_123", "now", 2, 12)),
        ("what is here or can't be kept is not wanted", OVER, [artefact(WANTED), artefact(FETCHED), artefact(REFUSED)],
         ("job__caiman-web_123", "now", 1, 5)),
        ("it runs, and all there is of it is here", RUNS, [artefact(FETCHED)], ("job__caiman-web_123", AT_ITS_END, None, None)),
        ("it has ended, and all is here", OVER, [artefact(FETCHED)], None),
        ("it has ended, and nothing is wanted", OVER, [], None),
    ),
)  # fmt: skip
def test_what_comes_back(of: Due, left: list[Artefact], expected: tuple[Any, ...] | None) -> None:
    want = [] if expected is None else [PlannedFetch(of.spec, of.job_id, *expected)]
    assert fetches([of], {1: left, 2: [artefact(WANTED)]}, LAYOUT) == want


# -- what goes

MOVE = {"local_inputs": {"move": "/archive/{path}"}}
DELETE = {"local_inputs": {"delete": {"copy_at": "/copies/{path}"}}}
REMOTE, TOOL = {"remote_inputs": "delete"}, {"run": "tell"}
RUN_DONE, LEFT = {"run": AfterStep("done", "", 0)}, AfterStep("left", "why", 1)
TO_DO = {
    "run": AfterStep("wanted", "", 0),
    "local inputs": AfterStep("wanted", "", 0),
    "remote inputs": AfterStep("wanted", "", 0),
}


def planned(
    of: Due,
    *settings: dict[str, Any],
    journaled: dict[str, Any] | None = None,
    files: Sequence[FileRow] = (FILE,),
    at: FileRow | None = FILE,
    using: Iterable[JobRow] = (),
    having: Iterable[JobRow] = (),
    link: FileRow | None = None,
) -> list[PlannedRemoval]:
    """Of one job: whose dataset is the file `at`, or is made of `files`."""
    after = {k: v for part in settings for k, v in part.items()}
    return removals(
        [of],
        {1: TO_DO if journaled is None else journaled},
        Analysis.model_validate({"after_results": after}),
        LAYOUT,
        at=lambda _dataset: at,
        files_of=lambda _dataset: files,
        using=lambda _key: using,
        having=lambda _place: having,
        link_to=lambda _row: link,
    )


MOVED = PlannedRemoval("inputs/a.tif", True, 1000, "123", moves=True, copy="/archive/a.tif")
DELETED = PlannedRemoval(
    "inputs/a.tif", True, 1000, "123", copy="/copies/a.tif", condition="when /copies/a.tif has the same bytes"
)
IN_S3 = PlannedRemoval("lab/inputs/a.tif", False, 1000, "123")


def but(removal: PlannedRemoval, **more: Any) -> PlannedRemoval:
    return replace(removal, **more)


AT_END = "when job 123 is done and its results are here"
NAMES_IT = "job 123 (b.tif) is running and names it"
OTHER = sent("b.tif", row=2)


@pytest.mark.parametrize(
    ("of", "settings", "more", "expected"),
    cases(
        ("nothing is written", OVER, [], {}, []),
        ("a tool takes nothing away", OVER, [TOOL], {}, []),
        ("of another's job nothing", due(ended(row=1, origin=Origin.ELSEWHERE)), [MOVE, REMOTE], {}, []),
        ("of another's job nothing, while it runs", due(sent(row=1, origin=Origin.ELSEWHERE)), [MOVE, REMOTE], {}, []),
        # here
        ("moved", OVER, [MOVE], {}, [MOVED]),
        ("moved when it has ended", RUNS, [MOVE], {}, [but(MOVED, condition=AT_END)]),
        ("moved when what is only planned has ended", PLANNED, [MOVE], {},
         [but(MOVED, job_id="777", condition="when job 777 is done and its results are here")]),
        ("moved, of a job that has no id yet", due(job(row=1)), [MOVE], {},
         [but(MOVED, job_id="", condition="when job dgp is done and its results are here")]),
        ("deleted where a copy is", OVER, [DELETE], {}, [DELETED]),
        ("deleted after the tool", OVER, [DELETE, TOOL], {},
         [but(DELETED, condition="after the tool tell; when /copies/a.tif has the same bytes")]),
        ("the tool has been run", OVER, [DELETE, TOOL], {"journaled": TO_DO | RUN_DONE}, [DELETED]),
        ("it was moved", OVER, [MOVE], {"journaled": TO_DO | {"local inputs": AfterStep("done", "", 0)}}, []),
        ("it was given up", OVER, [MOVE], {"journaled": TO_DO | {"local inputs": LEFT}}, []),
        ("it ended before `after_results` was written", OVER, [MOVE], {"journaled": {}}, []),
        ("it failed", due(ended(JobState.FAILED, row=1)), [MOVE, REMOTE], {}, []),
        ("it is gone already", OVER, [MOVE], {"files": [row(state=FileState.GONE)]}, []),
        ("it is not what was stored", OVER, [MOVE], {"files": [row(state=FileState.WHOLE)]},
         [but(MOVED, kept="it is not, or not any more, what was stored")]),
        ("it is not stored yet, and the job runs", RUNS, [MOVE], {"files": [row(state=FileState.WHOLE)]},
         [but(MOVED, condition=AT_END)]),
        ("of a source", OVER, [MOVE], {"files": [row("a.tif", tree="rig1")]},
         [but(MOVED, what="rig1:a.tif", kept="it lies in rig1, which is only read")]),
        ("a link", RUNS, [MOVE], {"files": [row(link="inputs/b.tif")]},
         [but(MOVED, kept="it is a symbolic link to inputs/b.tif")]),
        ("a link leads to it", OVER, [MOVE], {"link": row("inputs/l.tif")},
         [but(MOVED, condition="inputs/l.tif is a symbolic link to it")]),
        ("another job has it", OVER, [MOVE], {"having": [OTHER]}, [but(MOVED, condition=NAMES_IT)]),
        ("the job itself has it", OVER, [MOVE], {"having": [ended(row=1)]}, [MOVED]),
        ("it runs, and so does another", RUNS, [DELETE, TOOL], {"having": [RUNS.row, OTHER]},
         [but(DELETED, condition=f"{AT_END}; after the tool tell; {NAMES_IT}; when /copies/a.tif has the same bytes")]),
        # in S3
        ("deleted in S3", OVER, [REMOTE], {}, [IN_S3]),
        ("deleted in S3 when it has ended", RUNS, [REMOTE], {}, [but(IN_S3, condition=AT_END)]),
        ("deleted in S3 after it was moved here", OVER, [REMOTE, MOVE], {},
         [MOVED, but(IN_S3, condition="after the local inputs")]),
        ("it was moved here, and stays in S3 till then", OVER, [REMOTE, MOVE],
         {"journaled": TO_DO | {"local inputs": AfterStep("done", "", 0)}}, [IN_S3]),
        ("it was deleted in S3", OVER, [REMOTE], {"journaled": TO_DO | {"remote inputs": AfterStep("done", "", 0)}}, []),
        ("another job reads it in S3", OVER, [REMOTE], {"using": [OTHER]}, [but(IN_S3, condition=NAMES_IT)]),
        ("the job itself reads it in S3", RUNS, [REMOTE], {"using": [RUNS.row]}, [but(IN_S3, condition=AT_END)]),
        ("this rig did not put it", OVER, [REMOTE], {"at": row(ours=False)}, [but(IN_S3, kept="this rig did not put it")]),
        ("nothing of it is known", OVER, [REMOTE], {"at": None, "files": ()},
         [but(IN_S3, size=0, kept="this rig did not put it")]),
        ("it is not stored", OVER, [REMOTE], {"at": row(stored=None)}, [but(IN_S3, kept="this rig did not put it")]),
        ("it is to be put", RUNS, [REMOTE], {"at": row(state=FileState.WHOLE)}, [but(IN_S3, condition=AT_END)]),
        ("it was never here, and the job runs", RUNS, [REMOTE], {"at": None, "files": ()},
         [but(IN_S3, size=0, kept="this rig did not put it")]),
        ("it is to be put, and its recordings aren't known", RUNS, [REMOTE], {"files": ()}, [but(IN_S3, condition=AT_END)]),
        ("it was packed: its own size counts", OVER, [REMOTE], {"at": row(size=9), "files": (row(size=3), row(size=4))},
         [but(IN_S3, size=9)]),
        ("it is to be packed", RUNS, [REMOTE], {"at": None, "files": (row(size=3), row("inputs/b.tif", size=4))},
         [but(IN_S3, size=7, condition=AT_END)]),
        ("data of another bucket", due(ended(row=1, datasets=(Dataset("s3://b/k", "s3://b/k"),))), [REMOTE],
         {"at": None, "files": ()}, []),
    ),
)  # fmt: skip
def test_what_goes(
    of: Due, settings: list[dict[str, Any]], more: dict[str, Any], expected: list[PlannedRemoval]
) -> None:
    assert planned(of, *settings, **more) == expected


MEMBERS = [in_unit("a.tif", FileState.WHOLE), in_unit("b.tif", FileState.WHOLE)]
PACKAGE = package_of("M7/1.zip")


def test_the_recordings_of_a_package_go_without_a_checksum_of_their_own() -> None:
    done = ended(unit="M7/1", row=1, datasets=(Dataset("M7/1.zip", PACKAGE.key, "z", PACKAGE.place),))
    made = planned(due(done), MOVE, files=MEMBERS)
    assert [(r.what, r.copy, r.kept) for r in made] == [
        ("inputs/M7/1/a.tif", "/archive/M7/1/a.tif", ""),
        ("inputs/M7/1/b.tif", "/archive/M7/1/b.tif", ""),
    ]


def test_a_package_that_another_job_has_keeps_its_recordings() -> None:
    done = ended(unit="M7/1", row=1, datasets=(Dataset("M7/1.zip", PACKAGE.key, "z", PACKAGE.place),))
    (made,) = removals(
        [due(done)],
        {1: TO_DO},
        Analysis.model_validate({"after_results": MOVE}),
        LAYOUT,
        at=lambda _dataset: None,
        files_of=lambda _dataset: MEMBERS[:1],
        using=lambda _key: (),
        having=lambda place: [OTHER] if place == PACKAGE.place else [],
    )
    assert made.condition == NAMES_IT


@pytest.mark.parametrize(
    ("others", "condition"),
    cases(
        ("the same, as it is planned", [job(row=-1)], ""),
        ("the same, as the journal has it: another attempt", [job(row=5)], "job dgp (a.tif) is ready and names it"),
        ("another unit's, planned", [job("b.tif", row=-1)], "job dgp (b.tif) is ready and names it"),
        ("another rule's, planned", [job(row=-1, name="caiman")], "job caiman (a.tif) is ready and names it"),
        ("another version's, planned", [job(row=-1, version="v")], "job dgp (a.tif) is ready and names it"),
    ),
)
def test_what_is_only_planned_knows_itself_by_its_spec(others: list[JobRow], condition: str) -> None:
    (made,) = planned(PLANNED, REMOTE, using=others)
    assert made.condition == "; ".join(filter(None, ["when job 777 is done and its results are here", condition]))


def test_each_dataset_of_a_job_is_told() -> None:
    two = ended(row=1, datasets=(dataset(FILE), dataset(row("inputs/b.tif"))))
    assert [r.what for r in planned(due(two), REMOTE)] == ["lab/inputs/a.tif", "lab/inputs/b.tif"]


def test_what_two_jobs_would_take_away_is_told_once() -> None:
    made = removals(
        [due(ended(row=1)), due(ended(row=2, job_id="124"))],
        {1: TO_DO, 2: TO_DO},
        Analysis.model_validate({"after_results": MOVE | REMOTE}),
        LAYOUT,
        at=lambda _dataset: FILE,
        files_of=lambda _dataset: [FILE],
        using=lambda _key: (),
        having=lambda _place: (),
    )
    assert [(r.what, r.job_id) for r in made] == [("inputs/a.tif", "123"), ("lab/inputs/a.tif", "123")]


def test_a_datasets_own_place_is_asked_once() -> None:
    asked: list[Place] = []

    def having(place: Place) -> list[JobRow]:
        asked.append(place)
        return []

    removals(
        [OVER],
        {1: TO_DO},
        Analysis.model_validate({"after_results": MOVE}),
        LAYOUT,
        at=lambda _dataset: FILE,
        files_of=lambda _dataset: [FILE],
        using=lambda _key: (),
        having=having,
    )
    assert asked == [FILE.place] == [dataset(FILE).place]


def test_of_a_dataset_without_a_place_only_the_files_place_is_asked() -> None:
    of_old = ended(row=1, datasets=(replace(dataset(FILE), place=None),))
    asked: list[Place | None] = []

    def having(place: Place | None) -> list[JobRow]:
        asked.append(place)
        return []

    removals(
        [due(of_old)],
        {1: TO_DO},
        Analysis.model_validate({"after_results": MOVE}),
        LAYOUT,
        at=lambda _dataset: FILE,
        files_of=lambda _dataset: [FILE],
        using=lambda _key: (),
        having=having,
    )
    assert asked == [FILE.place]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_jobs_that_had_a_recording_the_one_that_takes_it_away_is_told_of(order: int) -> None:
    older = Due(job().spec, "1", ended(row=1, datasets=(dataset(FILE, "older"),)))
    newer = Due(job().spec, "2", ended(row=2, datasets=(dataset(FILE),)))
    (found,) = removals(
        [older, newer][::order],
        {1: TO_DO, 2: TO_DO},
        Analysis.model_validate({"after_results": MOVE}),
        LAYOUT,
        at=lambda _dataset: FILE,
        files_of=lambda _dataset: [FILE],
        using=lambda _key: (),
        having=lambda _place: (),
    )
    assert (found.job_id, found.kept) == ("2", "")
