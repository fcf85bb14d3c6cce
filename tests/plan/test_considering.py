"""What an unsubmitted job does next: a row for each thing that keeps it, and which of two that do is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builders import job as any_job

from ncaasd.declare.manifest import Rule
from ncaasd.model import Dataset, FileRow, FileState, Hold, JobRow, JobState, Origin, Place, Stat
from ncaasd.neurocaas.naming import Layout
from ncaasd.plan.configs import ConfigFact
from ncaasd.plan.considering import DatasetFact, Facts, consider, dataset_fact
from ncaasd.plan.grouping import Beside, matcher
from ncaasd.plan.guards import Limits, Stop, Tally
from ncaasd.plan.holds import Again

LAYOUT = Layout("dgp-web", "lab")
READY, WAITING, HELD = JobState.READY, JobState.WAITING, JobState.HELD
CONFIG = ConfigFact(key="lab/configs/c-1.yaml", content=b"fr: 30")
LIMITS = Limits(max_active=2, max_per_day=5, ask_above=9, stop_after_failures=3)


def file(path: str = "inputs/a.tif", state: FileState = FileState.STORED, reason: str = "", size: int = 5) -> FileRow:
    stat = Stat(size, 1, 1, 1)
    return FileRow(1, Place("dgp-web", "", path), stat, state, reason, 0.0, f"lab/{path}", stat, "e", 0.0, 0)


def fact(**changes: Any) -> DatasetFact:
    return DatasetFact(**{"name": "a.tif", "key": "lab/inputs/a.tif", "file": file()} | changes)


def job(**changes: Any) -> JobRow:
    plain = any_job()
    made = replace(plain, state=JobState.WAITING, total=1)
    spec = replace(plain.spec, analysis="dgp-web", unit="a.tif", datasets=(Dataset("a.tif", "lab/inputs/a.tif"),))
    return replace(made, **{"spec": spec} | changes)


def facts(**changes: Any) -> Facts:
    return Facts(
        **{"job": job(), "layout": LAYOUT, "rule": None, "datasets": [fact()], "config": CONFIG, "now": 9.0} | changes
    )


def stop(kind: Hold, *, asks: bool = True, held: bool = True) -> Stop:
    return Stop(kind, "because", asks=asks, held=held)


DOUBT = {"doubt": lambda _job: stop(Hold.COPY)}
BUSY = {"tally": Tally(active=2, day=2), "limits": LIMITS}
FULL = {"tally": Tally(active=0, day=5), "limits": LIMITS}
LACKING = {"beside": Beside(lacking="b.tif can't be taken: a FIFO")}
NOT_WHOLE = {"beside": Beside(unit="M7 to be whole: it waits for DONE in M7")}
TWO_OF_A_NAME = job(
    spec=replace(job().spec, datasets=(Dataset("x/a", "lab/inputs/x/a"), Dataset("y/a", "lab/inputs/y/a")))
)
BY_BASE = matcher(Rule(name="r", datasets=("*",), config="c.yaml", key="base"))
DEEP = job(spec=replace(job().spec, datasets=(Dataset("x/a.tif", "lab/inputs/x/a.tif"),)))

CASES: list[tuple[str, Facts, tuple[JobState, str, Hold | None, Again]]] = [
    ("nothing", facts(), (READY, "everything it needs is in S3", None, Again.CHANGE)),
    ("its retry's time", facts(job=job(not_before=10.0, state=READY, reason="attempt 1 of 3")),
     (READY, "attempt 1 of 3", None, Again.NEVER)),
    ("a person's word", facts(job=job(hold=Hold.COPY, reason="a copy")), (HELD, "a copy", Hold.COPY, Again.NEVER)),
    ("a part that can't be taken", facts(**LACKING), (HELD, "b.tif can't be taken", Hold.PART, Again.CHANGE)),
    ("a part, as before", facts(job=job(hold=Hold.PART), **LACKING), (HELD, "b.tif can't", Hold.PART, Again.CHANGE)),
    ("a part that was mended", facts(job=job(hold=Hold.PART)), (READY, "everything", None, Again.CHANGE)),
    ("a dataset that can't be taken", facts(datasets=[fact(file=file(state=FileState.SKIPPED, reason="a link"))]),
     (HELD, "a.tif can't be taken: a link; or leave it out", Hold.PART, Again.CHANGE)),
    ("two datasets of a name", facts(job=TWO_OF_A_NAME), (HELD, "2 datasets have the base name a", None, Again.SOON)),
    ("a key that its rule doesn't want", facts(job=DEEP, rule=BY_BASE), (HELD, "wants it directly in inputs/", None, Again.SOON)),
    ("the same job", facts(same="x.yaml declares it"), (HELD, ("x.yaml declares it; it is made anew under another name; "
     "`ncaasd forget a.tif` leaves it"), Hold.SAME, Again.NEVER)),
    ("its unit", facts(**NOT_WHOLE), (WAITING, "waits for M7 to be whole: it waits for DONE", None, Again.CHANGE)),
    ("its package", facts(datasets=[fact(file=None, packed=True)]), (WAITING, "its package is not made yet", None, Again.IN_S3)),
    ("a file being written", facts(datasets=[fact(file=file(state=FileState.SETTLING, reason="grows"))]),
     (WAITING, "waits for a.tif (still being written: grows)", None, Again.CHANGE)),
    ("a file to be uploaded", facts(datasets=[fact(file=file(state=FileState.WHOLE))]),
     (WAITING, "waits for a.tif (to be uploaded)", None, Again.CHANGE)),
    ("a refused file", facts(datasets=[fact(file=file(state=FileState.REFUSED, reason="its name"))]),
     (WAITING, "waits for a.tif (refused: its name)", None, Again.CHANGE)),
    ("an empty file", facts(datasets=[fact(file=file(size=0))]), (WAITING, "waits for a.tif (is empty", None, Again.CHANGE)),
    ("a file never seen", facts(datasets=[fact(file=None)]), (WAITING, "a.tif (not in inputs/)", None, Again.IN_S3)),
    ("a file S3 has not", facts(datasets=[fact(file=None, remote=False)]), (WAITING, "nor in S3", None, Again.IN_S3)),
    ("a file of another rig", facts(datasets=[fact(file=None, remote=True)]), (READY, "everything", None, Again.CHANGE)),
    ("another file's bytes", facts(datasets=[fact(file=None, taken_by="b.tif")]),
     (WAITING, "what is in S3 under its name, lab/inputs/a.tif, is of b.tif: rename one", None, Again.IN_S3)),
    ("s3:// data", facts(datasets=[fact(file=None, bypass=True)]), (READY, "everything", None, Again.CHANGE)),
    ("a sibling", facts(beside=Beside(files=(file("inputs/n.txt", FileState.HELD, "foreign"),))),
     (WAITING, "waits for n.txt (held: foreign)", None, Again.CHANGE)),
    ("its config", facts(config=ConfigFact("configs/c.yaml (not here)", ask="k")), (WAITING, "(not here)", None, Again.IN_S3)),
    ("its turn", facts(turn="its turn: job 1"), (WAITING, "waits for its turn: job 1", None, Again.SOON)),
    ("its analysis", facts(blocked="no If-None-Match"), (READY, "no If-None-Match", None, Again.SOON)),
    ("its data", facts(**DOUBT), (HELD, "because; `ncaasd release a.tif` runs it all the same", Hold.COPY, Again.NEVER)),
    ("a queue", facts(**BUSY), (READY, "2 machines are running", None, Again.SOON)),
    ("the day's limit", facts(**FULL), (HELD, "5 machines were started in the last 24 h", None, Again.SOON)),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_keeps_a_job(facts: Facts, expected: tuple[JobState, str, Hold | None, Again]) -> None:
    step = consider(facts)
    state, reason, hold, again = expected
    assert (step.state, step.hold, step.again) == (state, hold, again)
    assert reason in step.reason
    assert step.submit == (reason.startswith("everything"))


ORDER: list[dict[str, Any]] = [  # of two that keep a job, the first is said
    {"job": job(not_before=10.0, reason="later")},
    {"job": job(hold=Hold.PERSON, reason="held by hand")},
    LACKING,
    {"job": TWO_OF_A_NAME},
    {"same": "declared twice"},
    NOT_WHOLE,
    {"datasets": [fact(file=None)]},
    {"blocked": "S3 is another kind"},
    DOUBT,
    BUSY,
]


@pytest.mark.parametrize("number", range(len(ORDER) - 1))
def test_of_two_that_keep_a_job_the_first_is_said(number: int) -> None:
    alone, next_one = ORDER[number], ORDER[number + 1]
    both = next_one | alone
    assert consider(facts(**both)).reason == consider(facts(**alone)).reason
    assert consider(facts(**alone)).reason != consider(facts(**next_one)).reason


def test_at_most_two_things_are_named_and_the_rest_is_counted() -> None:
    waits = [fact(name=name, file=file(state=FileState.WHOLE)) for name in "abcd"]
    assert consider(facts(datasets=waits)).reason == "waits for a (to be uploaded); b (to be uploaded), and 2 more"


@pytest.mark.parametrize(
    ("changes", "keys"),
    [({}, ("k",)), ({"bypass": True}, ()), ({"taken_by": "b"}, ()), ({"packed": True}, ()), ({"remote": False}, ())],
)
def test_s3_is_asked_for_what_may_be_there_and_is_not_known(changes: dict[str, Any], keys: tuple[str, ...]) -> None:
    step = consider(
        facts(datasets=[fact(name="other", key="k", file=None, **changes)], config=ConfigFact("c", ask="c"))
    )
    assert (step.ask_remote, step.ask_config) == (keys, "c")


def test_while_nothing_is_submitted_a_declaration_is_not_judged() -> None:
    """What it would be held for may be of an S3 that is not asked; the reason is the analysis's."""
    assert consider(facts(job=TWO_OF_A_NAME, blocked="closed")).reason == "closed"


def test_just_before_its_submit_the_guards_are_not_asked_again() -> None:
    assert consider(facts(tally=None, limits=LIMITS)).submit


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({}, True),
        ({"datasets": [fact(file=file(state=FileState.WHOLE))]}, False),  # not stored yet
        ({"doubt": lambda _job: stop(Hold.ZEROS)}, False),  # still nothing but zeros
        ({"version": "v"}, False),  # with `rerun_on` what is written anew has a job of its own
    ],
)
def test_what_was_nothing_but_zeros_goes_on_when_it_is_written_anew(changes: dict[str, Any], goes: bool) -> None:
    spec = replace(job().spec, version=changes.pop("version", ""))
    assert consider(facts(job=job(hold=Hold.ZEROS, spec=spec), **changes)).submit == goes


@pytest.mark.parametrize(
    ("dataset", "row", "others", "expected"),
    [
        (Dataset("d", "s3://b/d"), None, [], fact(name="d", key="s3://b/d", file=None, bypass=True)),
        (Dataset("d", "k"), file(), [], fact(name="d", key="k")),
        (Dataset("d", "k"), file(state=FileState.GONE), [], fact(name="d", key="k", file=None, remote=True)),
        (Dataset("d", "k", place=Place("a", "package:r", "d")), None, [], fact(name="d", key="k", file=None, packed=True)),
        (Dataset("d", "k", place=Place("a", "", "inputs/d")), None, [file()],
         fact(name="d", key="k", file=None, taken_by="inputs/a.tif")),
        (Dataset("d", "k"), None, [], fact(name="d", key="k", file=None, remote=True)),
    ],
)  # fmt: skip
def test_what_is_known_of_a_dataset(
    dataset: Dataset, row: FileRow | None, others: list[FileRow], expected: DatasetFact
) -> None:
    assert dataset_fact(dataset, row, lambda: others, lambda: True) == expected


def test_a_job_that_was_asked_for_is_known_by_its_own_name() -> None:
    asked = job(spec=replace(job().spec, origin=Origin.MANIFEST, name="one"))
    assert "`ncaasd release one`" in consider(facts(job=asked, **DOUBT)).reason
