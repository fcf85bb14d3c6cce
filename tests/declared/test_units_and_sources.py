"""Units and sources: what of a session goes up, when, under which config; what is aborted, overdue, late."""

from __future__ import annotations

import json

import pytest
from declared_rig import DeclaredRig, FileState

from ncaasd.adapters.journal.pruning import old_events

UNIT = {
    "source": "share",
    "unit": "{animal}/{run}",
    "datasets": "*.tif",
    "complete_when": "DONE",
    "abort_when": "ABORTED",
    "overdue": "6h",
}


def session(rig: DeclaredRig, unit: str = "M7/1", *more: str) -> None:
    for name in ("a.tif", "b.tif", "raw.bin", *more):
        rig.record(f"{unit}/{name}")


@pytest.mark.parametrize(("job_per", "units"), [("dataset", ["M7/1/a.tif", "M7/1/b.tif"]), ("unit", ["M7/1"])])
def test_only_what_a_job_needs_goes_up_and_only_when_the_unit_is_whole(
    rig: DeclaredRig, job_per: str, units: list[str]
) -> None:
    session(rig)
    rig.record("elsewhere/x.tif")
    rig.rules({**UNIT, "job_per": job_per})
    rig.turns(20)
    assert (rig.uploaded(), rig.jobs()) == ([], [])
    rig.record("M7/1/DONE", "x")
    rig.until(lambda: rig.submitted(len(units)), "the submits")
    rig.turns(5)
    assert rig.units() == units
    assert rig.uploaded() == ["M7/1/a.tif", "M7/1/b.tif"], "raw.bin, DONE and other folders stay where they are"


def test_one_config_per_animal_with_values_of_the_unit_in_it(rig: DeclaredRig) -> None:
    for animal in ("M7", "M8"):
        session(rig, f"{animal}/1", "DONE")
        rig.write(f"configs/{animal}.json", json.dumps({"fr": 30, "nested": {"who": "", "keep": 1}}))
    rig.rules({**UNIT, "job_per": "unit", "config": "{animal}.json", "set": {"nested": {"who": "{animal}-{run}"}}})
    rig.until(lambda: rig.submitted(2), "the submits")
    found = {}
    for body in rig.submits():
        config = json.loads(b"".join(rig.server.get(body["configname"])))
        found[body["dataname"][0]] = (config, body["configname"].rpartition("/")[2].partition("-")[0])
    assert found == {
        f"lab/inputs/{animal}/1/a.tif": ({"fr": 30, "nested": {"who": f"{animal}-1", "keep": 1}}, animal)
        for animal in ("M7", "M8")
    }


def test_an_aborted_unit_never_goes_up_and_is_shown_as_aborted(rig: DeclaredRig) -> None:
    session(rig, "M7/1", "DONE", "ABORTED")
    rig.rules(UNIT)
    rig.turns(30)
    assert (rig.uploaded(), rig.jobs()) == ([], [])
    assert rig.events("aborted") == ["ABORTED is in M7/1: it is never uploaded, and never submitted"]
    assert rig.status("submissions/status/r/M7/1.json")["unit"]["state"] == "aborted"
    assert "aborted" in rig.file("M7/1/a.tif").reason
    rig.restart()
    rig.turns(20)
    assert len(rig.events("aborted")) == 1, "said once"


def test_an_overdue_unit_is_an_alarm_once_and_goes_on_when_it_is_whole(rig: DeclaredRig) -> None:
    session(rig)
    rig.rules(UNIT)
    rig.turns(20)
    assert rig.status("submissions/status/r/M7/1.json")["unit"] == {
        "name": "M7/1",
        "state": "waiting",
        "reason": "waits for DONE in M7/1",
    }
    assert rig.events("overdue") == []
    rig.clock.sleep(6 * 3600)
    rig.turns(20)
    assert rig.events("overdue") == ["M7/1 is not whole after 6h: it waits for DONE in M7/1"]
    rig.restart()
    rig.turns(20)
    assert len(rig.events("overdue")) == 1
    assert rig.status("submissions/status/r/M7/1.json")["unit"]["state"] == "overdue"
    rig.record("M7/1/DONE", "x")
    rig.until(lambda: rig.submitted(2), "the submits")


def test_what_was_said_of_a_unit_is_known_when_the_event_log_is_pruned(rig: DeclaredRig) -> None:
    session(rig, "M7/1", "DONE", "ABORTED")
    rig.rules(UNIT)
    rig.turns(30)
    journal = rig.rig.journal
    old = old_events(journal.path, rig.clock.now() + 1, 10_000)
    with journal.transaction():
        journal.drop_events(old, rig.clock.now() + 1)
    assert len(old) > 5 and len(rig.events("aborted")) == 1
    rig.restart()
    rig.turns(20)
    assert len(rig.events("aborted")) == 1, "said once"


def test_F92_a_file_that_comes_late_to_a_submitted_unit_is_held_and_said(rig: DeclaredRig) -> None:
    session(rig, "M7/1", "DONE")
    rig.rules({**UNIT, "job_per": "unit"})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.record("M7/1/late.tif")
    rig.until(lambda: rig.state("M7/1/late.tif") is FileState.HELD, "the hold")
    rig.clock.sleep(7200)
    rig.turns(20)
    assert rig.uploaded() == ["M7/1/a.tif", "M7/1/b.tif"]
    assert (len(rig.jobs()), len(rig.events("held"))) == (1, 1)


def test_a_source_that_a_rule_names_later_goes_up_then(rig: DeclaredRig) -> None:
    session(rig, "M7/1", "DONE")
    rig.rules({"datasets": "none/*.x"})
    rig.turns(20)
    assert rig.uploaded() == []
    rig.rules({**UNIT, "job_per": "unit"})
    rig.until(lambda: rig.submitted(1), "the submit")


def test_F34_a_job_that_is_asked_for_before_its_data_is_there_waits_and_says_for_what(rig: DeclaredRig) -> None:
    rig.ask("one", "a.tif", "m7/b.tif")
    rig.write("inputs/a.tif", "a")
    rig.turns(20)
    status = rig.status("submissions/one.status.json")["jobs"][0]
    assert (status["state"], status["reason"]) == ("waiting", "waits for m7/b.tif (not in inputs/)")
    assert rig.submits() == []
    rig.write("inputs/m7/b.tif", "b")
    rig.until(lambda: rig.submitted(1), "the submit")


def test_F35_a_manifest_is_never_half_applied(rig: DeclaredRig) -> None:
    for name in ("a.tif", "b.tif"):
        rig.write(f"inputs/{name}", name)
    rig.rules({"datasets": "a.tif"}, {"name": "s", "datasets": "b.tif", "config": "c.yml"})
    rig.turns(20)
    assert rig.jobs() == [], "its right rule isn't in force either"
    assert rig.status("manifest.status.json")["ok"] is False
    rig.rules({"datasets": "a.tif"}, {"name": "s", "datasets": "b.tif"})
    rig.until(lambda: rig.submitted(2), "the submits")
    assert rig.status("manifest.status.json")["ok"] is True


def test_F78_a_wrong_edit_leaves_the_old_rules_in_force(rig: DeclaredRig) -> None:
    rig.rules({})
    rig.turns(6)
    rig.write("manifest.yaml", "rules: [{name: r, datsets: x}]\n")
    rig.turns(6)
    rig.write("inputs/a.tif", "a")
    rig.until(lambda: rig.submitted(1), "the submit, by the old rule")
    status = rig.status("manifest.status.json")
    assert (status["ok"], "is datasets meant?" in str(status["errors"])) == (False, True)
    rig.restart()
    rig.write("inputs/b.tif", "b")
    rig.until(lambda: rig.submitted(2), "the submit, by the old rule, after a restart")


def test_F36_an_edit_after_the_submit_makes_no_new_job(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.rules({"set": {"fr": 1}, "instance_type": "p3.2xlarge"})
    rig.write("configs/c.yaml", "fr: 99\n")
    rig.configure(upload={"prefix": "new/"})
    rig.turns(30)
    assert (len(rig.jobs()), len(rig.submits())) == (1, 1)


def test_F68_one_wrong_manifest_does_not_stop_another(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.write("submissions/wrong.yaml", "jobs: [{name: x}]")
    rig.ask("right", "a.tif")
    rig.until(lambda: rig.submitted(1), "the submit")
    assert rig.status("submissions/wrong.status.json")["ok"] is False
    assert rig.status("submissions/right.status.json")["jobs"][0]["state"] == "submitted"


@pytest.mark.parametrize(
    ("rerun_on", "change", "jobs"),
    [
        ([], "data", 1),
        (["data"], "data", 2),
        (["data"], "config", 1),
        (["config"], "config", 2),
        (["config"], "data", 1),
        (["data", "config"], "data", 2),
    ],
)
def test_rerun_on_names_what_makes_another_job(rig: DeclaredRig, rerun_on: list[str], change: str, jobs: int) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({"rerun_on": rerun_on})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.write(*{"data": ("inputs/a.tif", "another"), "config": ("configs/c.yaml", "fr: 99\n")}[change])
    rig.turns(40)
    assert len(rig.submits()) == jobs


def test_a_package_is_made_anew_where_rerun_on_names_the_data(rig: DeclaredRig) -> None:
    session(rig, "M7/1", "DONE")
    rig.rules({**UNIT, "package": "zip", "rerun_on": "data"})
    rig.until(lambda: rig.submitted(1), "the submit")
    first = rig.body("M7/1.zip")
    rig.run_jobs()
    rig.record("M7/1/b.tif", "another")
    rig.until(lambda: len(rig.submits()) == 2, "the second job", 200)
    assert rig.body("M7/1.zip") != first


def test_a_version_that_still_waits_is_not_run_beside_the_one_after_it(rig: DeclaredRig) -> None:
    """Both would be run on what is there now, and be paid for."""
    rig.record("a.tif", "one")
    rig.rules({"source": "share", "rerun_on": ["data"], "config": "later.yaml"})
    rig.until(lambda: len(rig.jobs()) == 1, "the job")
    first = rig.job().spec.version
    rig.record("a.tif", "another")
    rig.until(lambda: [j.spec.version for j in rig.jobs()] not in ([], [first]), "the other version")
    rig.write("configs/later.yaml", "fr: 1\n")
    rig.turns(40)
    assert len(rig.submits()) == 1 and rig.job().spec.version != first
    assert "another job has it as it is now" in rig.events("cancelled")[0]
