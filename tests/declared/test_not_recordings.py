"""F102: what lies among recordings and is none gets no job, and is said: junk of storage and systems, half copies, copies,
empty files."""

from __future__ import annotations

import pytest
from declared_rig import DeclaredRig, FileState
from state_machine.inline_rig import BUCKET

from ncaasd.adapters.journal import open_reader
from ncaasd.engine import commands
from ncaasd.engine.commands import Selection
from ncaasd.model import JobState
from ncaasd.plan.gates import EMPTY
from ncaasd.plan.preview import Preview
from ncaasd.show.foresight import foresee


def foreseen(rig: DeclaredRig) -> Preview:
    journal = open_reader(rig.rig.journal_path)
    try:
        return foresee(rig.rig.config, journal, [BUCKET], rig.clock.now()).previews[0]
    finally:
        journal.close()


JUNK = (
    "#recycle/a.tif", "@eaDir/a.tif@SynoEAStream.tif", "M7/@eaDir/b.tif", "@Recycle/a.tif", "$RECYCLE.BIN/S-1-5-21/$RABC12.tif",
    "System Volume Information/a.tif", "lost+found/a.tif", ".Trash-1000/files/a.tif", ".Trashes/501/a.tif",
    ".snapshot/daily/a.tif", ".stversions/a.tif", "._a.tif", "~a.tif", ".a.tif.Ab12Cd",
)  # fmt: skip


@pytest.mark.parametrize("source", [True, False])
def test_F102_folders_of_storage_and_systems_get_no_job_and_are_said(rig: DeclaredRig, source: bool) -> None:
    for path in JUNK:
        rig.record(path) if source else rig.write(f"inputs/{path}", path)
    rig.record("M7/good.tif") if source else rig.write("inputs/M7/good.tif", "good")
    rig.rules({"source": "share"} if source else {})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns()
    assert rig.units() == ["M7/good.tif"] and rig.uploaded() == ["M7/good.tif"]
    (said,) = rig.events("ignored")
    assert "#recycle, $RECYCLE.BIN, @Recycle, @eaDir" in said and "watch.ignore_defaults" in said
    rig.restart()
    rig.turns()
    assert len(rig.events("ignored")) == 1


@pytest.mark.parametrize(
    ("watch", "uploaded"),
    [
        ({"ignore": ["*.log"]}, ["good.tif"]),
        ({"ignore": []}, ["good.tif", "x.log"]),
        ({"ignore": ["*.log"], "ignore_defaults": False}, ["good.tif", "x.tif.part"]),
    ],
)
def test_F102_an_own_list_adds_to_the_built_in_one(
    rig: DeclaredRig, watch: dict[str, object], uploaded: list[str]
) -> None:
    rig.configure(watch=watch)
    for name in ("good.tif", "x.log", "x.tif.part"):
        rig.write(f"inputs/{name}", name)
    rig.until(lambda: len(rig.uploaded()) >= len(uploaded), "the uploads")
    rig.turns()
    assert rig.uploaded() == uploaded


def test_patterns_with_a_slash_keep_what_is_below_from_upload_and_jobs(rig: DeclaredRig) -> None:
    rig.configure(watch={"ignore": ["raw/old", "scratch/*"]})
    for path in ("raw/old/a.tif", "raw/old/b/a.tif", "scratch/a.tif", "scratch/x/a.tif", "raw/new.tif"):
        rig.write(f"inputs/{path}", path)
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns()
    assert (rig.units(), rig.uploaded()) == (["raw/new.tif"], ["raw/new.tif"])


def test_a_pattern_that_is_new_takes_the_open_jobs_of_what_it_means(rig: DeclaredRig) -> None:
    rig.write("inputs/raw/a.tif", "a")
    rig.rules({"config": "later.yaml"})
    rig.until(lambda: rig.units() == ["raw/a.tif"] and rig.state("raw/a.tif") is FileState.STORED, "the job")
    rig.configure(watch={"ignore": ["raw/*"]})
    rig.until(lambda: not rig.jobs(), "nothing to be run")


# -- empty files


def reasons(rig: DeclaredRig) -> dict[str, str]:
    return {j.spec.unit: j.reason for j in rig.jobs()}


def not_uploaded(rig: DeclaredRig) -> list[tuple[str, int]]:
    return [(left.why, left.files) for left in rig.rig.journal.count_left()]


@pytest.mark.parametrize("rerun_on", [[], ["data"]])
def test_F102_an_empty_recording_waits_and_its_content_is_its_first(rig: DeclaredRig, rerun_on: list[str]) -> None:
    path = rig.source / "M7/a.tif"
    rig.record("M7/b.tif")
    path.touch()
    rig.rules({"source": "share", "rerun_on": rerun_on})
    rig.until(lambda: rig.submitted(1), "the other's submit")
    assert [u.what for u in foreseen(rig).uploads if u.kept_back == EMPTY] == ["share:M7/a.tif"]
    rig.turns(20)
    assert rig.units() == ["M7/b.tif"] == rig.uploaded()
    assert not_uploaded(rig) == [(EMPTY, 1)] and rig.events("empty") == [EMPTY]
    rig.restart()
    rig.turns()
    assert rig.events("empty") == [EMPTY]
    path.write_bytes(b"a recording")
    rig.until(lambda: rig.submitted(2), "its submit")
    rig.turns(20)
    assert len(rig.submits()) == 2
    rig.turns()
    assert len(rig.submits()) == 2 and not rig.events("changed") and not not_uploaded(rig)


@pytest.mark.parametrize("form", [{"job_per": "unit"}, {"package": "zip"}])
@pytest.mark.parametrize("gate", [{}, {"complete_when": "DONE"}])
def test_F102_a_units_job_waits_for_what_is_empty_in_it(
    rig: DeclaredRig, form: dict[str, str], gate: dict[str, str]
) -> None:
    rig.record("M7/d1/a.tif")
    for name in ("b.tif", "notes.txt", "DONE"):
        (rig.source / f"M7/d1/{name}").touch()
    rig.rules({"source": "share", "unit": "{animal}/{date}", "datasets": "*.tif", **form, **gate})
    rig.until(lambda: "is empty" in reasons(rig).get("M7/d1", ""), "the job that waits")
    rig.turns(20)
    assert "b.tif" in reasons(rig)["M7/d1"] and not rig.submits() and "M7/d1.zip" not in rig.uploaded()
    planned = foreseen(rig).jobs
    assert [(j.plan, "b.tif" in j.why and "is empty" in j.why) for j in planned] == [("wait", True)]
    rig.restart()
    rig.turns()
    (rig.source / "M7/d1/b.tif").write_bytes(b"a recording")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert not rig.events("changed")


@pytest.mark.parametrize("form", [{"job_per": "unit"}, {"package": "zip"}, {}])
def test_F102_what_marks_a_unit_may_be_empty_also_where_all_is_data(rig: DeclaredRig, form: dict[str, str]) -> None:
    rig.record("M7/d1/a.tif")
    (rig.source / "M7/d1/DONE").touch()
    rig.rules({"source": "share", "unit": "{animal}/{date}", "datasets": "*", "complete_when": "DONE", **form})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns(20)
    assert [len(j.spec.datasets) for j in rig.jobs()] == [1] and not rig.events("held")


def test_F102_a_file_that_is_no_dataset_may_be_empty(rig: DeclaredRig) -> None:
    for name in ("a.tif", "notes.txt"):
        rig.write(f"inputs/{name}", "x" if name == "a.tif" else "")
    rig.rules({})
    rig.until(lambda: rig.submitted(1) and rig.uploaded() == ["a.tif", "notes.txt"], "all of it")


def test_F102_a_one_off_on_an_empty_file_waits(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "")
    rig.ask("one", "a.tif")
    rig.until(lambda: "is empty" in reasons(rig).get("a.tif", ""), "the job that waits")
    rig.turns(20)
    assert not rig.submits()
    rig.write("inputs/a.tif", "a recording")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("a.tif") == b"a recording"


def test_F102_a_recording_that_is_emptied_is_not_put_over_what_is_stored(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a recording")
    rig.rules({"config": "later.yaml"})
    rig.until(lambda: rig.state("a.tif") is FileState.STORED, "the upload")
    rig.write("inputs/a.tif", "")
    rig.until(lambda: rig.events("empty") == [EMPTY], "that it is said")
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.turns(20)
    assert rig.body("a.tif") == b"a recording" and not rig.submits()


# -- copies, and what was never written


def held(rig: DeclaredRig) -> dict[str, str]:
    return {j.spec.unit: j.hold for j in rig.jobs() if j.state is JobState.HELD}


COPIES = (
    "a (conflicted copy 2024-01-02).tif",
    "a (Rig1's conflicted copy 2024-01-02).tif",
    "a (conflicted copy 2024-01-02 120000).tif",
    "a.sync-conflict-20240102-120000-ABCDEFG.tif",
    "a_conflict-20240102-120000.tif",
    "a (SFConflict x@lab.org 2024-01-02-12-00-00).tif",
    "a.Conflict.tif",
    "a [conflicted].tif",
    "M7 (Rig1's conflicted copy 2024-01-02)/b.tif",
)
BESIDE = (
    "a (1).tif",
    "a - Copy.tif",
    "a - Copy (2).tif",
    "Copy of a.tif",
    "a copy.tif",
    "a copy 2.tif",
    "a_conf(1).tif",
)


@pytest.mark.parametrize("name", COPIES)
def test_F102_a_conflict_copy_is_held_and_may_be_released(rig: DeclaredRig, name: str) -> None:
    rig.record(name)
    rig.rules({"source": "share"})
    rig.until(lambda: held(rig) == {name: "copy"}, "the hold")
    rig.turns()
    assert [j.plan for j in foreseen(rig).jobs] == ["hold"]
    assert "conflict copy" in rig.job().reason and "`ncaasd release" in rig.job().reason
    assert len(rig.uploaded()) == 1 and not rig.submits()  # nothing is lost, nothing is paid for
    commands.apply(rig.rig.journal, "release", Selection(ids=(name,)), rig.clock.now())
    rig.until(lambda: rig.submitted(1), "the submit")


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("original", [True, False])
def test_F102_what_may_be_a_copy_is_held_where_its_original_is(rig: DeclaredRig, name: str, original: bool) -> None:
    rig.write(f"inputs/M7/{name}", "one")
    rig.write(f"inputs/M7/{'a' if original else 'b'}.tif", "another")
    rig.rules({})
    rig.until(lambda: rig.submitted(1 if original else 2), "the submits")
    rig.turns()
    assert held(rig) == ({f"M7/{name}": "copy"} if original else {})


def test_F102_copies_of_folders_are_held_too_and_numbered_sessions_are_not(rig: DeclaredRig) -> None:
    made = {"M7/a.tif": "1", "M7 - Copy/a.tif": "2", "M8/a.tif": "3", "M8 (1)/a.tif": "4", "M8 (2)/a.tif": "3"}
    for path, body in made.items():
        rig.write(f"inputs/{path}", body)
    rig.rules({})
    rig.until(lambda: rig.submitted(3), "the submits")
    rig.turns()
    assert held(rig) == {"M7 - Copy/a.tif": "copy", "M8 (2)/a.tif": "copy"}


@pytest.mark.parametrize(("body", "is_copy"), [("same", True), ("else", False)])
def test_F102_a_second_recording_is_a_copy_only_with_the_same_bytes(rig: DeclaredRig, body: str, is_copy: bool) -> None:
    rig.write("inputs/trial.tif", "same")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the first")
    rig.write("inputs/trial 2.tif", body)
    rig.until(lambda: len(rig.jobs()) == 2 and (rig.submitted(2) or held(rig)), "the second")
    assert held(rig) == ({"trial 2.tif": "copy"} if is_copy else {})


@pytest.mark.parametrize("form", [{"job_per": "unit"}, {"package": "zip"}])
def test_F102_a_copy_in_a_unit_holds_its_job_named(rig: DeclaredRig, form: dict[str, str]) -> None:
    rig.record("M7/d1/a.tif")
    rig.record("M7/d1/a.sync-conflict-20240102-120000-ABCDEFG.tif")
    rig.rules({"source": "share", "unit": "{animal}/{date}", "datasets": "*.tif", **form})
    rig.until(lambda: held(rig) == {"M7/d1": "copy"}, "the hold")
    assert "M7/d1/a.sync-conflict-20240102-120000-ABCDEFG.tif" in rig.job().reason
    assert [(j.plan, j.guard) for j in foreseen(rig).jobs] == [("hold", "copy")]


@pytest.mark.parametrize("rerun_on", [[], ["data"]])
def test_F102_a_recording_of_nothing_but_zeros_is_held_until_it_is_written(
    rig: DeclaredRig, rerun_on: list[str]
) -> None:
    path = rig.record("a.tif", b"\0" * 100_003)
    rig.record("b.tif", b"\0" * 100_002 + b"x")
    rig.rules({"source": "share", "rerun_on": rerun_on})
    rig.until(lambda: held(rig) == {"a.tif": "zeros"} and rig.submitted(1), "the hold, and the other's submit")
    rig.turns()
    assert "has nothing but zeros in it, 100003 bytes" in rig.job("a.tif").reason
    assert [j.plan for j in foreseen(rig).jobs if j.spec.unit == "a.tif"] == ["hold"]
    path.write_bytes(b"a recording")
    rig.until(lambda: rig.submitted(2), "its submit")
    rig.turns(20)
    assert len(rig.submits()) == 2
