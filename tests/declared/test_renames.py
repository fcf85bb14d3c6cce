"""F103: what was analysed and is only renamed is held, not paid for again; what is new, a copy or never paid for goes."""

from __future__ import annotations

import os
import shutil

import pytest
from declared_rig import DeclaredRig, FileState
from state_machine.inline_rig import BUCKET

from ncaasd.adapters.journal import open_reader
from ncaasd.engine import commands
from ncaasd.engine.commands import Selection
from ncaasd.model import JobState, Phase
from ncaasd.show.foresight import foresee

DAYS = {"source": "share", "unit": "{animal}/{date}", "datasets": "*.tif", "complete_when": "DONE"}
FORMS = {
    "one file a job": {"source": "share"},
    "a job of a unit": {**DAYS, "job_per": "unit"},
    "jobs in a unit": DAYS,
    "a zip": {**DAYS, "package": "zip"},
}


def session(rig: DeclaredRig, unit: str, *names: str) -> None:
    for name in names:
        rig.record(f"{unit}/{name}", f"{unit} {name}".ljust(40))
    rig.record(f"{unit}/DONE", "x")


def held(rig: DeclaredRig) -> list[str]:
    return sorted(j.spec.unit for j in rig.jobs() if j.hold == "renamed" and j.state is JobState.HELD)


def planned(rig: DeclaredRig) -> dict[str, tuple[str, str]]:
    journal = open_reader(rig.rig.journal_path)
    try:
        jobs = foresee(rig.rig.config, journal, [BUCKET], rig.clock.now()).previews[0].jobs
    finally:
        journal.close()
    return {j.spec.unit: (j.plan, j.why) for j in jobs}


@pytest.mark.parametrize("form", FORMS)
def test_F103_a_renamed_folder_is_held_and_released_by_a_person(rig: DeclaredRig, form: str) -> None:
    session(rig, "M7/d1", "a.tif", "b.tif")
    rig.rules(FORMS[form])
    jobs = 2 if form in ("one file a job", "jobs in a unit") else 1
    rig.until(lambda: rig.submitted(jobs), "the submits")
    rig.run_jobs()
    os.rename(rig.source / "M7", rig.source / "mouse07")
    before = {
        u: (plan, why) for u, (plan, why) in planned(rig).items() if "mouse07" in u
    }  # before the daemon has seen it
    assert len(before) == jobs and {plan for plan, _why in before.values()} == {"hold"}
    assert all(" renamed, which job " in why for _plan, why in before.values())
    rig.until(lambda: len(held(rig)) == jobs, "the holds")
    rig.turns(20)
    assert len(rig.submits()) == jobs
    first = next(j for j in rig.jobs() if j.hold == "renamed")
    old = first.spec.unit.replace("mouse07", "M7")
    assert f"{first.spec.unit} is {old} renamed, which job {rig.job(old).job_id} has analysed" in first.reason
    assert f"`ncaasd release {first.spec.unit}` runs it all the same" in first.reason
    assert planned(rig)[first.spec.unit][0] == "hold"
    commands.apply(rig.rig.journal, "release", Selection(ids=(first.spec.unit,)), rig.clock.now())
    rig.until(lambda: len(rig.submits()) == jobs + 1, "the submit of what was released")


@pytest.mark.parametrize("ended", [True, False])
def test_F103_a_name_that_the_next_recording_takes_over_is_no_longer_its(rig: DeclaredRig, ended: bool) -> None:
    """Some programs call the newest one `current.tif`, and give it its own name when the next begins."""
    current = rig.record("M7/current.tif", "the first")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(1), "the submit")
    if ended:
        rig.run_jobs()
    os.rename(current, rig.source / "M7/2024-01-02.tif")
    rig.record("M7/current.tif", "another")
    rig.rig.kill()
    assert planned(rig)["M7/2024-01-02.tif"][0] == "hold"  # before the daemon has seen it
    rig.until(lambda: held(rig) == ["M7/2024-01-02.tif"], "the hold")
    rig.turns(20)
    assert planned(rig)["M7/2024-01-02.tif"][0] == "hold"
    assert "M7/2024-01-02.tif is M7/current.tif renamed, which job" in rig.job("M7/2024-01-02.tif").reason
    assert len(rig.submits()) == 1


def test_F103_a_restart_and_other_inodes_change_nothing(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.restart()
    before = rig.source / "M7/d1/a.tif"
    shutil.copy2(before, rig.source / "moved.tif")  # a move to another disk, or a share's other inodes
    before.unlink()
    rig.until(lambda: held(rig) == ["moved.tif"], "the hold")
    assert "was submitted for: " in rig.job("moved.tif").reason  # it is not over yet
    rig.restart()
    rig.turns(20)
    assert len(rig.submits()) == 1


def test_F103_renamed_back_and_again_is_the_same_still(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    for old, new in (("M7", "x"), ("x", "M7"), ("M7", "y"), ("y", "z")):
        os.rename(rig.source / old, rig.source / new)
        wanted = [] if new == "M7" else [f"{new}/d1/a.tif"]
        rig.until(lambda wanted=wanted: held(rig) == wanted, f"{new}")  # type: ignore[misc]  # mypy can't infer a lambda's defaults
        rig.turns()
    assert len(rig.submits()) == 1


def copied(rig: DeclaredRig) -> None:
    shutil.copy2(rig.source / "M7/d1/a.tif", rig.source / "new.tif")


def written_anew(rig: DeclaredRig) -> None:
    (rig.source / "M7/d1/a.tif").unlink()
    rig.record("new.tif", "M7/d1 b.tif".ljust(40))


def changed_then_renamed(rig: DeclaredRig) -> None:
    path = rig.source / "M7/d1/a.tif"
    path.write_bytes(b"another recording".ljust(40))
    os.rename(path, rig.source / "new.tif")


def recorded_like_it(rig: DeclaredRig) -> None:
    """The same size and time to the nanosecond, in place of one that is gone."""
    path = rig.source / "M7/d1/a.tif"
    seen = path.stat()
    path.unlink()
    new = rig.record("new.tif", "other".ljust(40))
    os.utime(new, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.mark.parametrize("what", [copied, written_anew, changed_then_renamed, recorded_like_it])
def test_F103_what_is_no_rename_is_run(rig: DeclaredRig, what: object) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    what(rig)  # type: ignore[operator]  # one of the above
    rig.until(lambda: len(rig.submits()) == 2, "the other submit")
    assert not held(rig)


def test_F103_what_was_renamed_before_its_job_was_submitted_is_run_once(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules({**FORMS["one file a job"], "config": "later.yaml"})
    rig.until(lambda: [j.state for j in rig.jobs()] == [JobState.WAITING], "the job")
    rig.turns()
    os.rename(rig.source / "M7", rig.source / "M8")
    rig.until(lambda: rig.units() == ["M8/d1/a.tif"], "the other name")
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert not held(rig)


def test_F103_an_old_name_that_is_found_gone_just_before_the_submit_counts(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    copied(rig)
    assert rig.rig.engine is not None
    runtime, old = rig.rig.engine.runtime, rig.source / "M7/d1/a.tif"

    def before_the_intent(point: str) -> None:
        if point == "submit.before_intent" and old.exists():
            old.unlink()
            runtime.journal.set_file(rig.file("M7/d1/a.tif").id, FileState.GONE, "", rig.clock.now())

    runtime.crash = before_the_intent
    rig.until(lambda: held(rig) == ["new.tif"], "the hold", 200)
    assert len(rig.submits()) == 1


def test_F103_many_renamed_ones_are_no_backlog_for_what_is_new(rig: DeclaredRig) -> None:
    rig.configure(jobs={"ask_above": 3, "poll": {"min": "1s", "max": "4s"}})
    for n in range(3):
        session(rig, f"M7/d{n}", "a.tif")
    rig.rules(FORMS["one file a job"])
    rig.until(lambda: rig.submitted(3), "the submits")
    rig.run_jobs()
    rig.clock.sleep(1000)  # those are no part of a backlog any more
    os.rename(rig.source / "M7", rig.source / "mouse07")
    rig.until(lambda: len(held(rig)) == 3, "the holds")
    rig.record("new.tif")
    rig.until(lambda: len(rig.submits()) == 4, "the new recording's job")


def test_F103_a_one_off_of_a_renamed_file_with_the_same_config_is_held(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a recording")
    rig.ask("first", "a.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    os.rename(rig.home / "inputs/a.tif", rig.home / "inputs/b.tif")
    rig.write("configs/other.yaml", "fr: 2\n")
    rig.ask("second", "b.tif")
    rig.ask("third", "b.tif", config="other.yaml")
    rig.until(lambda: len(rig.submits()) == 2, "the job with another config")
    rig.turns()
    assert held(rig) == ["b.tif"] and rig.job("second").hold == "renamed"
    assert rig.job("third").phase is Phase.SUBMITTED


def test_F103_a_package_of_a_unit_that_lost_a_file_is_another(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif", "b.tif")
    rig.rules(FORMS["a zip"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    (rig.source / "M8/d1").mkdir(parents=True)
    for name in ("a.tif", "DONE"):
        os.rename(rig.source / "M7/d1" / name, rig.source / "M8/d1" / name)
    rig.record("M8/d1/b.tif", "another b".ljust(40))
    rig.until(lambda: len(rig.submits()) == 2, "the other package's job")


def test_F103_a_sibling_that_came_with_the_rename_makes_it_another_job(rig: DeclaredRig) -> None:
    session(rig, "M7/d1", "a.tif")
    rig.rules(FORMS["a job of a unit"])
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.record("M7/d1/b.tif")
    os.rename(rig.source / "M7", rig.source / "M8")
    rig.until(lambda: len(rig.submits()) == 2, "the job with both")


def test_F103_a_renamed_file_whose_name_in_s3_another_file_has_taken_is_held(rig: DeclaredRig) -> None:
    rig.write("inputs/m7/a.tif", "recorded here")
    rig.record("m7/a.tif", "recorded there")  # it has the same name in S3, and waits for it (F96)
    rig.rules({"name": "here", "canary": 0}, {"name": "there", "source": "share"})
    rig.until(lambda: rig.submitted(1), "the first one's submit")
    rig.run_jobs()
    rig.rules({"name": "elsewhere", "datasets": "x/*.tif"}, {"name": "there", "source": "share"})
    os.rename(rig.home / "inputs/m7/a.tif", rig.home / "inputs/m7/monday.tif")
    rig.until(lambda: len(rig.submits()) == 2, "the second one's submit, under the name that is free")
    rig.rules({"name": "here"}, {"name": "there", "source": "share"})
    rig.until(lambda: held(rig), "the hold")
    rig.turns(20)
    assert (held(rig), len(rig.submits())) == (["m7/monday.tif"], 2)
    plan, why = planned(rig)["m7/monday.tif"]
    assert plan == "hold" and "m7/a.tif renamed" in why
