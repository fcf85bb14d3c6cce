"""`config_name` and `key` of a rule: for workers that open their config by a fixed name, or find data in inputs/ alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from declared_rig import DeclaredRig, FileState
from state_machine.inline_rig import BUCKET, GROUP

from ncaasd.adapters.journal import open_reader
from ncaasd.engine import commands
from ncaasd.model import JobState, Phase
from ncaasd.show.foresight import Foresight, foresee

CONFIGS = f"{GROUP}/configs/"


def config_of(rig: DeclaredRig, body: dict[str, Any]) -> bytes:
    return b"".join(rig.server.get(body["configname"]))


def foreseen(rig: DeclaredRig) -> Foresight:
    journal = open_reader(rig.rig.journal_path)
    try:
        return foresee(rig.rig.config, journal, [BUCKET], rig.clock.now())
    finally:
        journal.close()


def plans(rig: DeclaredRig) -> dict[str, tuple[str, str]]:
    return {j.spec.unit: (j.plan, j.why) for p in foreseen(rig).previews for j in p.jobs}


# -- config_name


@pytest.mark.parametrize(
    ("name", "key"),
    [("content", "c-"), ("keep", "c.yaml"), ("config.yaml", "config.yaml")],
)
def test_a_rule_says_how_its_config_is_called_in_s3(rig: DeclaredRig, name: str, key: str) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({"config_name": name, "set": {"fr": 15}})
    rig.until(rig.submits, "the submit")
    (body,) = rig.submits()
    assert body["configname"].startswith(CONFIGS + key)
    assert yaml.safe_load(config_of(rig, body)) == {"fr": 15}


def test_a_worker_that_opens_config_json_gets_json(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({"config_name": "config.json"})
    rig.until(rig.submits, "the submit")
    (body,) = rig.submits()
    assert (body["configname"], json.loads(config_of(rig, body))) == (CONFIGS + "config.json", {"fr": 30})


@pytest.mark.parametrize("name", ["../x.yaml", "a/b.yaml", "config.yml", "submit.json", "x y.yaml"])
def test_a_name_that_cannot_be_one_is_refused(rig: DeclaredRig, name: str) -> None:
    rig.rules({"config_name": name})
    rig.until(lambda: rig.events("bad manifest"), "what is wrong")
    rig.turns(3)
    assert rig.status("manifest.status.json")["ok"] is False


def two_configs_of_one_name(rig: DeclaredRig) -> None:
    rig.write("configs/d.yaml", "fr: 99\n")
    for name in ("a.tif", "b.tif"):
        rig.write(f"inputs/{name}", name)
    shared = {"config_name": "config.yaml"}
    rig.rules({**shared, "datasets": "a.tif"}, {**shared, "name": "s", "datasets": "b.tif", "config": "d.yaml"})


def test_jobs_with_different_configs_under_one_name_take_turns(rig: DeclaredRig) -> None:
    two_configs_of_one_name(rig)
    rig.until(rig.submits, "the first submit")
    rig.until(lambda: any("its turn: job " in j.reason for j in rig.jobs()), "the wait of the other one")
    rig.turns(40)
    (first,) = rig.submits()
    content = config_of(rig, first)
    (waiting,) = [j for j in rig.jobs() if j.phase is Phase.OPEN]
    assert waiting.state is JobState.WAITING
    plan, why = plans(rig)[waiting.spec.unit]
    assert (plan, why) == ("wait", waiting.reason)
    rig.finish(next(j for j in rig.jobs() if j.phase is Phase.SUBMITTED))
    rig.until(lambda: len(rig.submits()) == 2, "the second one's turn", 120)
    assert first["configname"] == rig.submits()[1]["configname"]
    assert {content, config_of(rig, first)} == {b"fr: 30\n", b"fr: 99\n"}


def test_jobs_with_one_config_under_one_name_run_together(rig: DeclaredRig) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        rig.write(f"inputs/{name}", name)
    rig.rules({"config_name": "keep"})
    rig.until(lambda: rig.submitted(3), "the submits")


def test_the_name_is_kept_for_a_job_over_a_restart(rig: DeclaredRig) -> None:
    rig.write("inputs/a.tif", "a")
    rig.rules({"config_name": "keep"})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.write("configs/c.yaml", "fr: 99\n")
    rig.write("inputs/b.tif", "b")
    rig.restart()
    rig.turns(60)
    (body,) = rig.submits()
    assert config_of(rig, body) == b"fr: 30\n", "a job may be reading it"
    rig.finish(next(j for j in rig.jobs() if j.phase is Phase.SUBMITTED))
    rig.until(lambda: len(rig.submits()) == 2, "the second one's turn", 120)
    assert config_of(rig, body) == b"fr: 99\n"


def test_a_config_that_others_have_put_is_not_overwritten(rig: DeclaredRig) -> None:
    rig.server.seed(CONFIGS + "config.yaml", b"fr: 1  # of another rig\n")
    rig.write("inputs/a.tif", "a")
    rig.rules({"config_name": "config.yaml"})
    rig.until(lambda: rig.jobs() and rig.job().hold == "config", "the hold")
    rig.turns(20)
    assert rig.submits() == [] and b"another rig" in b"".join(rig.server.get(CONFIGS + "config.yaml"))
    (effect,) = commands.apply(rig.rig.journal, "release", commands.Selection(rule="r"), rig.clock.now())
    assert effect.done
    rig.until(rig.submits, "the submit")
    assert config_of(rig, rig.submits()[0]) == b"fr: 30\n"


def test_in_an_encrypted_bucket_each_job_has_its_own_config_too(rig: DeclaredRig) -> None:
    """Two configs of one size, where no ETag tells them apart."""
    rig.server.encrypted = True
    two_configs_of_one_name(rig)
    rig.until(rig.submits, "the first submit")
    content = config_of(rig, rig.submits()[0])
    rig.turns(20)
    rig.finish(next(j for j in rig.jobs() if j.phase is Phase.SUBMITTED))
    rig.until(lambda: len(rig.submits()) == 2, "the second one's turn", 120)
    assert {content, config_of(rig, rig.submits()[1])} == {b"fr: 30\n", b"fr: 99\n"}


def test_a_config_that_others_put_after_the_intent_is_not_overwritten(rig: DeclaredRig) -> None:
    rig.turns(2)
    assert rig.rig.engine is not None

    def after_the_intent(point: str) -> None:
        if point == "submit.intended":
            rig.server.seed(CONFIGS + "config.yaml", b"fr: 1  # of another rig\n")

    rig.rig.engine.runtime.crash = after_the_intent
    rig.write("inputs/a.tif", "a")
    rig.rules({"config_name": "config.yaml"})
    rig.until(lambda: rig.jobs() and rig.job().hold == "config", "the hold")
    rig.turns(20)
    assert rig.submits() == [] and b"another rig" in b"".join(rig.server.get(CONFIGS + "config.yaml"))
    (effect,) = commands.apply(rig.rig.journal, "release", commands.Selection(rule="r"), rig.clock.now())
    assert effect.done
    rig.until(rig.submits, "the submit")
    assert config_of(rig, rig.submits()[0]) == b"fr: 30\n"


def test_a_config_that_jobs_share_does_not_go_up_by_itself(rig: DeclaredRig) -> None:
    rig.write("configs/config.yaml", "fr: 30\n")
    rig.write("inputs/a.tif", "a")
    rig.rules({"config": "config.yaml", "config_name": "keep", "set": {"fr": 15}})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.write("configs/config.yaml", "fr: 31\n")
    rig.turns(20)
    assert yaml.safe_load(config_of(rig, rig.submits()[0])) == {"fr": 15}
    assert "goes up with each job of rule r" in rig.file("configs/config.yaml").reason


# -- key


def test_data_goes_directly_into_inputs_where_a_rule_says_so(rig: DeclaredRig) -> None:
    rig.configure(upload={"prefix": "rig-a/"})
    rig.write("inputs/M7/day 1/a.tif", "a")
    rig.write("inputs/M7/day 1/notes.txt", "n")
    rig.rules({"key": "base"})
    rig.until(rig.submits, "the submit")
    assert rig.submits()[0]["dataname"] == [f"{GROUP}/inputs/a.tif"]
    rig.until(lambda: len(rig.uploaded()) == 2, "both")
    assert rig.uploaded()[0] == "a.tif" and rig.uploaded()[1].startswith("rig-a/M7/day_1-")


def test_two_files_of_one_base_name_never_share_a_job(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/a.tif", "seven")
    rig.write("inputs/M8/a.tif", "eight")
    rig.rules({"key": "base"})
    rig.until(lambda: rig.submitted(1), "the first submit")
    rig.turns(30)
    assert rig.body("a.tif") == b"seven" and len(rig.submits()) == 1
    (waiting,) = [j for j in rig.jobs() if j.phase is Phase.OPEN]
    assert waiting.spec.unit == "M8/a.tif" and "has its name in S3 already" in waiting.reason
    assert plans(rig)["M8/a.tif"][0] == "wait"


def test_what_waits_for_a_refused_neighbour_is_planned_so_before_anything_is_known_of_it(rig: DeclaredRig) -> None:
    rig.turns(3)
    rig.write("inputs/M7/a.tif", "seven")
    rig.write("inputs/M8/a.tif", "eight")
    rig.write("inputs/M8/b.tif", "b")
    rig.rules({"key": "base", "unit": "{animal}", "whole_after": "0s"})
    before = plans(rig)
    assert {unit: plan for unit, (plan, _why) in before.items()} == {
        "M7/a.tif": "submit",
        "M8/a.tif": "wait",
        "M8/b.tif": "wait",
    }
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.turns(30)
    assert len(rig.submits()) == 1
    assert {j.spec.unit: j.reason for j in rig.jobs() if j.phase is Phase.OPEN} == {
        unit: why for unit, (plan, why) in before.items() if plan == "wait"
    }


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_stored_elsewhere_is_stored_again_where_the_rule_wants_it(rig: DeclaredRig, restarted: bool) -> None:
    rig.write("inputs/M7/a.tif", "a")
    rig.until(lambda: rig.state("M7/a.tif") is FileState.STORED, "the upload")
    rig.rules({"key": "base"})
    if restarted:
        rig.restart()
    rig.until(rig.submits, "the submit")
    assert rig.submits()[0]["dataname"] == [f"{GROUP}/inputs/a.tif"]
    assert rig.uploaded() == ["M7/a.tif", "a.tif"]


def test_an_edited_rule_sends_nothing_again_that_its_jobs_had(rig: DeclaredRig) -> None:
    rig.write("inputs/M7/a.tif", "a")
    rig.rules({})
    rig.until(lambda: rig.submitted(1), "the submit")
    rig.run_jobs()
    rig.rules({"key": "base"})
    rig.turns(20)
    assert [u.key for p in foreseen(rig).previews for u in p.uploads] == []
    assert rig.uploaded() == ["M7/a.tif"]
    rig.write("inputs/M7/b.tif", "b")
    rig.until(lambda: len(rig.submits()) == 2, "the new one's job")
    assert rig.uploaded() == ["M7/a.tif", "b.tif"]
    (effect,) = commands.apply(
        rig.rig.journal, "rerun", commands.Selection(ids=(rig.jobs()[0].job_id,)), rig.clock.now()
    )
    assert effect.done
    rig.until(lambda: len(rig.submits()) == 3, "the rerun, of the data where the rule wants it now", 200)
    assert [f"{GROUP}/inputs/a.tif"] in [body["dataname"] for body in rig.submits()]


def test_what_is_planned_goes_where_the_rule_wants_it(rig: DeclaredRig) -> None:
    rig.turns(3)
    rig.write("inputs/M7/a.tif", "a")
    rig.rules({"key": "base", "config_name": "config.yaml"})
    (job,) = foreseen(rig).previews[0].jobs
    rig.until(rig.submits, "the submit")
    assert (job.plan, json.loads(job.body)) == ("submit", rig.submits()[0])


def test_a_package_goes_directly_into_inputs_too(rig: DeclaredRig) -> None:
    rig.record("M7/1/a.tif")
    rig.rules({"source": "share", "unit": "{animal}/{run}", "package": "zip", "key": "base", "whole_after": "0s"})
    rig.until(rig.submits, "the submit")
    assert rig.submits()[0]["dataname"] == [f"{GROUP}/inputs/1.zip"]
