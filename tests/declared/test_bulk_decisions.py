"""Decisions about many jobs: by the parts of their units, with another config; and what a rerun then takes."""

from __future__ import annotations

import json

import pytest
from declared_rig import DeclaredRig, FileState

from ncaasd.engine import commands
from ncaasd.engine.commands import Selection
from ncaasd.engine.service import effects
from ncaasd.errors import UserError

UNIT = {"source": "share", "unit": "{animal}/{date}_{run}", "datasets": "*.tif", "complete_when": "DONE"}


@pytest.fixture
def sessions(rig: DeclaredRig) -> DeclaredRig:
    for unit in ("M7/2024_1", "M7/2025_1", "M77/2024_1"):
        rig.record(f"{unit}/a.tif")
        rig.record(f"{unit}/DONE", "x")
    return rig


@pytest.mark.parametrize(
    ("where", "units"),
    [
        ({"animal": "M7"}, ["M7/2024_1", "M7/2025_1"]),
        ({"animal": "M7", "date": "2024"}, ["M7/2024_1"]),
        ({"date": "2024"}, ["M7/2024_1", "M77/2024_1"]),
        ({"run": "2024"}, []),
        ({"nothing": "M7"}, []),
    ],
)
def test_jobs_are_chosen_by_the_parts_of_their_units(
    sessions: DeclaredRig, where: dict[str, str], units: list[str]
) -> None:
    sessions.rules({**UNIT, "job_per": "unit"})
    sessions.until(lambda: sessions.submitted(3), "the submits")
    found = commands.select(sessions.rig.journal, Selection(where=tuple(where.items())))
    assert sorted(j.spec.unit for j in found) == units


def rerun(rig: DeclaredRig, unit: str, config: str = "") -> None:
    """As the daemon does it."""
    assert rig.rig.engine is not None
    with rig.rig.engine.runtime.transaction():
        (effect,) = effects(rig.rig.engine, "rerun", Selection(ids=(unit,)), config)
    assert effect["done"], effect


def test_a_rerun_with_a_new_config_keeps_it_whatever_the_rule_says(sessions: DeclaredRig) -> None:
    sessions.write("configs/new.yaml", "fr: 60\n")
    sessions.rules({**UNIT, "job_per": "unit"})
    sessions.until(lambda: sessions.submitted(3), "the submits")
    sessions.run_jobs()
    rerun(sessions, "M77/2024_1", "new.yaml")
    sessions.rules({**UNIT, "job_per": "unit", "set": {"fr": 1}})
    sessions.until(lambda: len(sessions.submits()) == 4, "the rerun")
    config = sessions.submits()[3]["configname"]
    assert b"".join(sessions.server.get(config)) == b"fr: 60\n"


def test_a_rerun_takes_what_the_rule_says_now(sessions: DeclaredRig) -> None:
    sessions.rules({**UNIT, "job_per": "unit"})
    sessions.until(lambda: sessions.submitted(3), "the submits")
    sessions.run_jobs()
    sessions.rules({**UNIT, "job_per": "unit", "set": {"fr": 1}})
    sessions.turns(10)
    rerun(sessions, "M77/2024_1")
    sessions.until(lambda: len(sessions.submits()) == 4, "the rerun")
    assert b"fr: 1" in b"".join(sessions.server.get(sessions.submits()[3]["configname"]))


@pytest.mark.parametrize("package", ["none", "zip"])
def test_F92_a_late_file_goes_up_when_released_and_into_the_rerun(sessions: DeclaredRig, package: str) -> None:
    rig = sessions
    rig.rules({**UNIT, "job_per": "unit", "package": package})
    rig.until(lambda: rig.submitted(3), "the submits")
    rig.run_jobs()
    rig.record("M7/2024_1/late.tif")
    rig.until(lambda: rig.state("M7/2024_1/late.tif") is FileState.HELD, "the hold")
    before = rig.uploaded()
    released = commands.release_files(rig.rig.journal, ["M7/2024_1/late.tif"], rig.clock.now())
    assert [r.place.path for r in released] == ["M7/2024_1/late.tif"]
    rig.turns(10)
    assert len(rig.submits()) == 3
    assert set(rig.uploaded()) - set(before) == (set() if package == "zip" else {"M7/2024_1/late.tif"})
    first = rig.body("M7/2024_1.zip") if package == "zip" else b""
    rerun(rig, "M7/2024_1")
    rig.until(lambda: len(rig.submits()) == 4, "the rerun", 200)
    names = [n.removeprefix("lab/inputs/M7/") for n in rig.submits()[3]["dataname"]]
    assert names == (["2024_1.zip"] if package == "zip" else ["2024_1/a.tif", "2024_1/late.tif"])
    assert package == "none" or len(rig.body("M7/2024_1.zip")) > len(first)


@pytest.mark.parametrize("config", ["x.yml", "/etc/x.yaml", "../x.yaml", "s3://b/x.yaml"])
def test_a_config_that_can_not_be_is_refused_before_anything_is_done(sessions: DeclaredRig, config: str) -> None:
    sessions.rules({**UNIT, "job_per": "unit"})
    sessions.until(lambda: sessions.submitted(3), "the submits")
    sessions.run_jobs()
    with pytest.raises(UserError):
        commands.apply(sessions.rig.journal, "rerun", Selection(rule="r"), sessions.clock.now(), config=config)
    assert len(sessions.jobs()) == 3


def test_what_is_known_of_a_unit_is_journaled(sessions: DeclaredRig) -> None:
    sessions.rules({**UNIT, "job_per": "unit"})
    sessions.until(lambda: sessions.submitted(3), "the submits")
    sessions.restart()
    assert json.loads(sessions.job("M77/2024_1").spec.fields) == {"animal": "M77", "date": "2024", "run": "1"}
