"""F96: two local files that come to one key in S3, and names that are not of letters and digits. A job is given the bytes of
its own file, or none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from declared_rig import DeclaredRig
from state_machine.inline_rig import BUCKET, GROUP
from test_plan import foreseen, plans

from ncaasd.engine import commands
from ncaasd.model import FileRow, FileState, JobRow, JobState, Phase, Place
from ncaasd.neurocaas.naming import first_safe_key, safe_key

KEY = f"{GROUP}/inputs/m1/a.tif"


def file_at(rig: DeclaredRig, tree: str, path: str) -> FileRow:
    row = rig.rig.journal.file_at(Place(BUCKET, tree, path))
    assert row is not None
    return row


def of_rule(rig: DeclaredRig, name: str) -> JobRow:
    return next(j for j in rig.jobs() if j.spec.name == name)


def both(rig: DeclaredRig) -> None:
    """A recording of the rig's own and one of a share, of one relative path; a rule for each."""
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.record("m1/a.tif", "of the share")
    rig.rules({"name": "own"}, {"name": "shared", "source": "share"})
    rig.until(lambda: rig.submitted(1), "the first one's submit")
    rig.turns(20)


def finish(rig: DeclaredRig) -> None:
    """The platform runs what was submitted until now."""
    for job in rig.jobs():
        if job.phase is Phase.SUBMITTED and job.verdict is None:
            rig.finish(job)


def test_F96_of_two_files_with_one_key_one_goes_up_and_the_other_ones_job_waits(rig: DeclaredRig) -> None:
    both(rig)
    own, shared = file_at(rig, "", "inputs/m1/a.tif"), file_at(rig, "share", "m1/a.tif")
    assert (own.state, shared.state) == (FileState.STORED, FileState.REFUSED)
    assert shared.reason == (
        f"inputs/m1/a.tif has its name in S3 already ({KEY}): rename one of the two; when the other one is renamed or moved"
        " away, this one goes up by itself"
    )
    waits = of_rule(rig, "shared")
    assert (waits.phase, waits.state) == (Phase.OPEN, JobState.WAITING)
    assert "inputs/m1/a.tif has its name in S3 already" in waits.reason
    assert rig.body("m1/a.tif") == b"of inputs"
    assert [s["dataname"] for s in rig.submits()] == [[KEY]]
    said = next(j for j in rig.status("manifest.status.json")["jobs"] if j["name"] == "shared")
    assert said["state"] == "waiting" and "stored" not in said["reason"]


@pytest.mark.parametrize("restarted", [False, True])
def test_F96_when_the_other_one_is_renamed_it_goes_up_once_no_job_reads_the_key(
    rig: DeclaredRig, restarted: bool
) -> None:
    both(rig)
    if restarted:
        rig.restart()
    os.rename(rig.home / "inputs/m1/a.tif", rig.home / "inputs/m1/a-old.txt")
    rig.turns(60)
    shared = file_at(rig, "share", "m1/a.tif")
    assert (shared.state, rig.body("m1/a.tif")) == (FileState.WHOLE, b"of inputs"), "its job may be reading it"
    assert "may still be reading" in shared.reason and "inputs/m1/a.tif had its name in S3" in shared.reason
    assert of_rule(rig, "shared").phase is Phase.OPEN
    if restarted:
        rig.restart()
    finish(rig)
    rig.until(lambda: of_rule(rig, "shared").phase is Phase.SUBMITTED, "the second one's submit", 200)
    assert rig.body("m1/a.tif") == b"of the share"
    assert len({j.job_id for j in rig.jobs()}) == 2
    assert rig.events("held") == []


def test_F96_when_the_second_one_is_renamed_it_goes_up(rig: DeclaredRig) -> None:
    both(rig)
    os.rename(rig.source / "m1/a.tif", rig.source / "m1/a2.tif")
    rig.until(lambda: rig.submitted(2), "its submit")
    assert rig.body("m1/a.tif") == b"of inputs"
    assert rig.body("m1/a2.tif") == b"of the share"
    assert sorted(rig.units()) == ["m1/a.tif", "m1/a2.tif"], "the waiting job went with its file"


def test_F96_whose_key_it_is_comes_back_before_the_other_has_taken_it(rig: DeclaredRig) -> None:
    both(rig)
    os.rename(rig.home / "inputs/m1/a.tif", rig.base / "away")
    rig.until(lambda: file_at(rig, "share", "m1/a.tif").state is not FileState.REFUSED, "the turn of the other one")
    os.rename(rig.base / "away", rig.home / "inputs/m1/a.tif")
    rig.turns(30)
    assert file_at(rig, "share", "m1/a.tif").state is FileState.REFUSED
    assert file_at(rig, "", "inputs/m1/a.tif").state is FileState.WHOLE, "renaming has touched it, so it goes up again"
    finish(rig)
    rig.turns(100)
    assert file_at(rig, "", "inputs/m1/a.tif").state is FileState.STORED
    assert rig.body("m1/a.tif") == b"of inputs"


def test_F96_whose_key_it_was_comes_back_when_the_other_has_it(rig: DeclaredRig) -> None:
    """What the journal had as stored of it isn't in S3 any more: it is not taken for stored."""
    both(rig)
    rig.run_jobs()
    stat = os.stat(rig.home / "inputs/m1/a.tif")
    os.rename(rig.home / "inputs/m1/a.tif", rig.base / "away")
    rig.until(lambda: rig.submitted(1), "the second one's submit", 200)
    os.rename(rig.base / "away", rig.home / "inputs/m1/a.tif")
    assert os.stat(rig.home / "inputs/m1/a.tif").st_mtime_ns == stat.st_mtime_ns
    rig.turns(30)
    assert file_at(rig, "", "inputs/m1/a.tif").state is FileState.REFUSED
    assert file_at(rig, "", "inputs/m1/a.tif").stored is None
    assert rig.body("m1/a.tif") == b"of the share"
    (effect,) = commands.apply(
        rig.rig.journal, "rerun", commands.Selection(ids=(of_rule(rig, "own").job_id,)), rig.clock.now()
    )
    assert effect.done
    rig.run_jobs()
    rig.turns(30)
    again = next(j for j in rig.jobs() if j.spec.name == "own" and j.attempt == 1)
    assert again.phase is Phase.OPEN and "has its name in S3 already" in again.reason


@pytest.mark.parametrize("how", ["manifest", "submit file"])
def test_F96_a_one_off_means_the_file_of_inputs(rig: DeclaredRig, how: str) -> None:
    rig.record("m1/a.tif", "of the share")
    rig.rules({"name": "shared", "source": "share"})
    rig.until(lambda: rig.submitted(1), "the share's submit")
    if how == "manifest":
        rig.ask("mine", "m1/a.tif")
    else:
        submit = {"dataname": KEY, "configname": f"{GROUP}/configs/c.yaml", "timestamp": "mine"}
        rig.write("submissions/mine-submit.json", json.dumps(submit))
    rig.turns(40)
    mine = of_rule(rig, "mine")
    assert (mine.phase, mine.state) == (Phase.OPEN, JobState.WAITING)
    assert "what is in S3 under its name" in mine.reason and "m1/a.tif in source share" in mine.reason
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.turns(40)
    assert "has its name in S3 already" in of_rule(rig, "mine").reason
    rig.run_jobs()
    os.unlink(rig.source / "m1/a.tif")
    rig.until(lambda: of_rule(rig, "mine").phase is Phase.SUBMITTED, "its submit", 200)
    assert rig.body("m1/a.tif") == b"of inputs"


def test_F96_the_open_job_of_a_file_that_is_gone_is_not_given_the_other_ones_bytes(rig: DeclaredRig) -> None:
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.ask("mine", "m1/a.tif", config="later.yaml")
    rig.until(lambda: rig.state("m1/a.tif") is FileState.STORED, "the upload")
    rig.record("m1/a.tif", "of the share")
    rig.rules({"name": "shared", "source": "share"})
    rig.turns(30)
    assert of_rule(rig, "shared").phase is Phase.OPEN
    os.unlink(rig.home / "inputs/m1/a.tif")
    rig.until(lambda: of_rule(rig, "shared").phase is Phase.SUBMITTED, "the second one's submit", 200)
    rig.write("configs/later.yaml", "fr: 1\n")
    finish(rig)
    rig.turns(100)
    mine = of_rule(rig, "mine")
    assert (mine.phase, mine.state) == (Phase.OPEN, JobState.WAITING)
    assert "m1/a.tif in source share" in mine.reason
    os.unlink(rig.source / "m1/a.tif")
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.until(lambda: of_rule(rig, "mine").phase is Phase.SUBMITTED, "its own submit", 200)
    assert rig.body("m1/a.tif") == b"of inputs"


def test_F96_a_job_of_a_file_that_was_cleaned_up_takes_it_from_s3_as_before(rig: DeclaredRig) -> None:
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.ask("mine", "m1/a.tif", config="later.yaml")
    rig.until(lambda: rig.state("m1/a.tif") is FileState.STORED, "the upload")
    os.unlink(rig.home / "inputs/m1/a.tif")
    rig.turns(20)
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.until(lambda: rig.submitted(1), "the submit", 400)


def test_F96_deleting_the_refused_one_cancels_no_job_of_the_other(rig: DeclaredRig) -> None:
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.record("m1/a.tif", "of the share")
    rig.rules({"name": "own", "config": "later.yaml"}, {"name": "shared", "source": "share", "config": "later.yaml"})
    rig.until(lambda: rig.units() == ["m1/a.tif", "m1/a.tif"], "both jobs")
    rig.turns(20)
    os.unlink(rig.source / "m1/a.tif")
    rig.turns(20)
    assert [j.spec.name for j in rig.jobs()] == ["own"]


def test_F96_two_sources_found_by_one_look_give_the_same_one_the_key_each_time(rig: DeclaredRig) -> None:
    other = rig.base / "another-share"
    other.mkdir()
    (other / "a.tif").write_bytes(b"of another")
    rig.record("a.tif", "of the share")
    rig.configure(sources={"share": str(rig.source), "another": str(other)})
    rig.rules({"name": "x", "source": "share"}, {"name": "y", "source": "another"})
    rig.until(lambda: rig.submitted(1), "a submit")
    rig.turns(20)
    assert rig.body("a.tif") == b"of another"
    assert (of_rule(rig, "x").phase, of_rule(rig, "y").phase) == (Phase.OPEN, Phase.SUBMITTED)
    (other / "a.tif").unlink()
    finish(rig)
    rig.until(lambda: of_rule(rig, "x").phase is Phase.SUBMITTED, "the other one's submit", 200)
    assert rig.body("a.tif") == b"of the share"


NAMES = {"日本.tif": b"japan", "中文.tif": b"china", "Größe 3.tif": b"three", "Größe+3.tif": b"plus"}


@pytest.mark.parametrize("how", ["rule", "manifests", "submit files"])
def test_F96_names_of_any_script_are_kept_apart(rig: DeclaredRig, how: str) -> None:
    for name, body in NAMES.items():
        rig.write(f"inputs/{name}", body)
        if how == "manifests":
            rig.ask(f"job{len(body)}{body[0]}", name)
        if how == "submit files":
            stamp = f"1{len(body)}{body[0]}"
            submit = {"dataname": f"{GROUP}/inputs/{name}", "configname": f"{GROUP}/configs/c.yaml", "timestamp": stamp}
            rig.write(f"submissions/{stamp}-submit.json", json.dumps(submit))
    if how == "rule":
        rig.rules({})
    rig.until(lambda: rig.submitted(4), "all submits")
    assert rig.uploaded() == sorted(map(safe_key, NAMES))
    for name, body in NAMES.items():
        assert rig.body(safe_key(name)) == body
    asked = sorted(s["dataname"][0] for s in rig.submits())
    assert asked == sorted(f"{GROUP}/inputs/{safe_key(n)}" for n in NAMES)
    assert sorted(j.spec.datasets[0].name for j in rig.jobs()) == sorted(NAMES)


def test_F96_a_submit_file_may_name_the_key_before_the_file_is_there(rig: DeclaredRig) -> None:
    submit = {
        "dataname": f"{GROUP}/inputs/{safe_key('日本.tif')}",
        "configname": f"{GROUP}/configs/c.yaml",
        "timestamp": "1",
    }
    rig.write("submissions/1-submit.json", json.dumps(submit))
    rig.turns(20)
    rig.write("inputs/日本.tif", "japan")
    rig.until(lambda: rig.submitted(1), "the submit", 200)
    assert rig.job().spec.datasets[0].place == Place(BUCKET, "", "inputs/日本.tif")


def as_the_first_release_left_it(rig: DeclaredRig, stored: str, refused: str) -> None:
    """Both names came to `_.tif`: one is stored there and its job was submitted, the other was refused."""
    key = f"{GROUP}/inputs/_.tif"
    journal = rig.rig.journal
    with journal.transaction():
        for path in (stored, refused):
            row = journal.file_at(Place(BUCKET, "", f"inputs/{path}"))
            assert row is not None
            journal._run("UPDATE file SET key=? WHERE id=?", key, row.id)
            journal._run("UPDATE job_dataset SET key=? WHERE name=?", key, os.fsencode(path))
        text = f"inputs/{stored} maps to the same key in S3 already ({key}): rename one of them"
        journal.set_file(row.id, FileState.REFUSED, text, rig.clock.now())


def test_F96_what_the_first_release_refused_goes_up_under_a_name_of_its_own(rig: DeclaredRig) -> None:
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.write("inputs/日本.tif", "japan")
    rig.write("inputs/中文.tif", "china")
    rig.rules({})
    rig.rig.start()
    rig.until(
        lambda: len(rig.jobs()) == 2 and rig.state("日本.tif") is FileState.WHOLE, "both jobs", 20
    ) if False else None
    for _ in range(40):
        if len(rig.files()) >= 4 and rig.state("中文.tif") is not None:
            break
        rig.rig.turn()
    as_the_first_release_left_it(rig, "日本.tif", "中文.tif")
    rig.restart()
    rig.until(lambda: rig.submitted(2), "both submits", 200)
    assert rig.uploaded() == sorted(["_.tif", safe_key("中文.tif")])
    assert rig.body("_.tif") == b"japan"
    assert rig.body(safe_key("中文.tif")) == b"china"


def test_F96_a_recording_that_comes_to_a_taken_name_has_a_job_that_says_so(rig: DeclaredRig) -> None:
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.rules({"name": "own"}, {"name": "shared", "source": "share"})
    rig.until(lambda: rig.submitted(1), "the first one's submit")
    rig.record("m1/a.tif", "of the share")
    rig.turns(20)
    assert "inputs/m1/a.tif has its name in S3 already" in of_rule(rig, "shared").reason


@pytest.mark.parametrize("newcomer", ["the rig with a lost journal", "another rig"])
def test_F96_what_the_first_release_put_and_submitted_is_recognised_by_a_new_journal(
    rig: DeclaredRig, monkeypatch: pytest.MonkeyPatch, newcomer: str
) -> None:
    """What is stored keeps its key, and so its job its id: it is not paid for again."""
    with monkeypatch.context() as patch:
        patch.setattr("ncaasd.plan.files.safe_key", first_safe_key)
        rig.write("inputs/M 7/日本.tif", "japan")
        rig.rules({})
        rig.until(lambda: rig.submitted(1), "the submit")
        assert rig.uploaded() == ["M_7/_.tif"]
        rig.rig.kill()
    rig.write("inputs/M 7/中文.tif", "china")  # of the same size, and of the same older key
    if newcomer == "another rig":
        rig.rig.name, rig.rig.journal_path = "rig-b", str(rig.base / "rig-b.sqlite")
    else:
        rig.rig.lose_journal(restore=False)
    rig.until(lambda: rig.state("M 7/中文.tif") is FileState.STORED, "the new one's upload", 200)
    rig.turns(100)
    assert rig.uploaded() == sorted(["M_7/_.tif", safe_key("M 7/中文.tif")])
    assert (rig.body("M_7/_.tif"), rig.body(safe_key("M 7/中文.tif"))) == (b"japan", b"china")
    assert [s["dataname"] for s in rig.submits()].count([f"{GROUP}/inputs/M_7/_.tif"]) == 1
    adopted = rig.job("M 7/日本.tif")
    assert adopted.phase is Phase.SUBMITTED
    assert len(rig.submits()) == (1 if rig.job("M 7/中文.tif").hold == "rebuilt" else 2)


def test_F96_of_one_rule_the_second_ones_job_is_not_taken_for_the_first_ones(rig: DeclaredRig) -> None:
    """One is named as the other is mapped, so that both jobs' ids are made of the same words."""
    literal = safe_key("x y.tif")
    rig.write("inputs/x y.tif", "the first")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the first one's submit")
    rig.write(f"inputs/{literal}", "the second")
    rig.turns(20)
    assert "inputs/x y.tif has its name in S3 already" in rig.job(literal).reason
    finish(rig)
    os.unlink(rig.home / "inputs/x y.tif")
    rig.until(lambda: rig.body(literal) == b"the second", "the second one's upload", 200)
    rig.rig.kill()
    (planned,) = [j for p in foreseen(rig).previews for j in p.jobs if j.spec.unit == literal]
    rig.until(lambda: next(j for j in rig.jobs() if j.spec.unit == literal).phase is Phase.SUBMITTED, "its submit", 200)
    second = next(j for j in rig.jobs() if j.spec.unit == literal)
    assert second.job_id != rig.job("x y.tif").job_id
    assert planned.job_id == second.job_id
    assert len(rig.submits()) == 2


def test_F96_what_does_not_go_up_keeps_no_name_from_others(rig: DeclaredRig) -> None:
    rig.record("m1/a.tif", "of the share, which no rule names")
    rig.rules({"name": "own"})
    rig.turns(20)
    assert file_at(rig, "share", "m1/a.tif").reason == "no rule names it"
    rig.write("inputs/m1/a.tif", "of inputs")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("m1/a.tif") == b"of inputs"
    rig.rules({"name": "own"}, {"name": "shared", "source": "share"})
    rig.turns(40)
    assert "inputs/m1/a.tif has its name in S3 already" in of_rule(rig, "shared").reason
    assert rig.body("m1/a.tif") == b"of inputs"


def test_F96_two_cameras_of_which_one_is_not_named(rig: DeclaredRig) -> None:
    other = rig.base / "another-share"
    other.mkdir()
    (other / "a.tif").write_bytes(b"of another, which no rule names")
    rig.record("a.tif", "of the share")
    rig.configure(sources={"share": str(rig.source), "another": str(other)})
    rig.rules({"name": "x", "source": "share"})
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.body("a.tif") == b"of the share"


def test_F96_a_job_that_an_earlier_version_declared_before_its_file_came(rig: DeclaredRig) -> None:
    rig.ask("mine", "d e.tif")
    rig.until(rig.jobs, "the job")
    with rig.rig.journal.transaction():
        rig.rig.journal._run("UPDATE job_dataset SET key=?, tree=NULL, path=NULL", f"{GROUP}/inputs/d_e.tif")
    rig.restart()
    rig.turns(5)
    rig.write("inputs/d e.tif", "recording")
    rig.until(lambda: rig.submitted(1), "the submit", 400)
    assert rig.submits()[0]["dataname"] == [f"{GROUP}/inputs/{safe_key('d e.tif')}"]


CHANGES: dict[str, Any] = {
    "found together": lambda rig: None,
    "the other renamed": lambda rig: os.rename(rig.home / "inputs/m1/a.tif", rig.home / "inputs/m1/b.tif"),
    "the second renamed": lambda rig: os.rename(rig.source / "m1/a.tif", rig.source / "m1/b.tif"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_F96_plan_says_who_has_the_name_as_the_daemon_then_does(rig: DeclaredRig, change: str) -> None:
    if change != "found together":
        both(rig)
        rig.run_jobs()
        rig.rig.kill()
    else:
        rig.write("inputs/m1/a.tif", "of inputs")
        rig.record("m1/a.tif", "of the share")
        rig.rules({"name": "own"}, {"name": "shared", "source": "share"})
    CHANGES[change](rig)
    seen = foreseen(rig)
    planned = {(j.spec.name, j.spec.unit): j.plan for p in seen.previews for j in p.jobs}
    kept = [u.kept_back for p in seen.previews for u in p.uploads if u.kept_back]
    if change == "found together":
        assert planned == {("own", "m1/a.tif"): "submit", ("shared", "m1/a.tif"): "wait"}
        assert len(kept) == 1 and "inputs/m1/a.tif has its name in S3 already" in kept[0]
    else:
        assert kept == []
        assert "submit" in planned.values()
    rig.turns(60)
    submitted = {(j.spec.name, j.spec.unit) for j in rig.jobs() if j.phase is not Phase.OPEN}
    assert {unit for unit, plan in planned.items() if plan in ("submit", "known")} <= submitted


def test_F96_a_package_and_a_file_of_its_name(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/1.zip", "somebody's zip")
    rig.until(lambda: rig.state("M7/1.zip") is FileState.STORED, "the upload")
    rig.record("M7/1/a.tif")
    rig.rules({"source": "share", "unit": "{animal}/{run}", "package": "zip"})
    rig.until(rig.jobs, "its job")
    rig.turns(20)
    assert rig.job().phase is Phase.OPEN and "inputs/M7/1.zip has its name in S3 already" in rig.job().reason
    assert rig.body("M7/1.zip") == b"somebody's zip"
    assert plans(foreseen(rig)) == {"M7/1": "wait"}
    os.unlink(rig.home / "inputs/M7/1.zip")
    rig.until(lambda: rig.submitted(1), "the submit", 200)
    assert rig.body("M7/1.zip").startswith(b"PK")


def test_F96_a_file_of_a_packages_name_goes_up_when_what_that_was_made_of_is_gone(rig: DeclaredRig) -> None:
    rig.record("readme.txt")
    rig.record("M7/1/a.tif")
    rig.rules({"source": "share", "unit": "{animal}/{run}", "package": "zip"})
    rig.until(lambda: rig.submitted(1), "the package's submit")
    rig.write("inputs/M7/1.zip", "somebody's zip")
    rig.turns(20)
    (own,) = [f for f in rig.files() if not f.place.tree and f.place.path.endswith(".zip")]
    assert own.state is FileState.REFUSED and own.reason.startswith("the package M7/1.zip of rule r has its name in S3")
    os.unlink(rig.source / "M7/1/a.tif")
    rig.turns(40)
    assert rig.body("M7/1.zip").startswith(b"PK"), "its job may be reading it"
    finish(rig)
    rig.until(lambda: file_at(rig, "", "inputs/M7/1.zip").state is FileState.STORED, "its upload", 200)
    assert rig.body("M7/1.zip") == b"somebody's zip"


def test_F96_after_results_takes_away_only_the_jobs_own_file(rig: DeclaredRig, tmp_path: Path) -> None:
    """Its object in S3 is the other one's by now."""
    both(rig)
    rig.run_jobs()
    os.rename(rig.home / "inputs/m1/a.tif", rig.base / "away")
    rig.until(lambda: rig.submitted(1), "the second one's submit", 200)
    rig.configure(after_results={"remote_inputs": "delete"})
    with rig.rig.journal.transaction() if rig.rig.engine else _started(rig):
        rig.rig.journal.want_after_step(of_rule(rig, "own").row, "remote inputs")
    rig.turns(20)
    assert rig.body("m1/a.tif") == b"of the share"
    assert any(
        "stays in S3: what is there now is of m1/a.tif in source share" in e for e in rig.events("after results")
    )


def _started(rig: DeclaredRig) -> Any:
    rig.rig.start()
    return rig.rig.journal.transaction()
