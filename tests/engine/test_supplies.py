"""What a job needs before its submit: datasets and configs here, in S3 only, or in a form that NeuroCAAS can't take."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from engine.lab import HOUR, Lab
from fakes.memory_store import MemoryStore

from ncaasd.errors import Denied, NoSuchBucket
from ncaasd.model import JobState, Phase


def submitted(lab: Lab) -> Callable[[], bool]:
    return lambda: bool(lab.jobs()) and lab.job().phase is Phase.SUBMITTED


def drop_submit(lab: Lab, config: str, data: str = "lab/inputs/a.tif") -> None:
    body = {"dataname": data, "configname": config, "timestamp": "mine-1"}
    lab.drop("submissions/mine-submit.json", json.dumps(body))


def body(lab: Lab) -> dict[str, str]:
    found: dict[str, str] = json.loads(lab.server.body(lab.job().submit_key))
    return found


@pytest.mark.parametrize("folder", ["", "web/"])
def test_a_config_that_only_s3_has_is_read_there(lab: Lab, folder: str) -> None:
    lab.drop_inputs("a.tif")
    lab.server.seed(f"lab/configs/{folder}w.yaml", b"fr: 20\n")
    drop_submit(lab, f"lab/configs/{folder}w.yaml")
    lab.until(submitted(lab), "the submit")
    config = body(lab)["configname"]
    assert config.startswith(f"lab/configs/{folder}w-") and config.endswith(".yaml"), "named by its content"
    assert lab.server.body(config) == b"fr: 20\n"


def test_a_config_that_comes_to_s3_later_is_found(lab: Lab) -> None:
    lab.drop_inputs("a.tif")
    drop_submit(lab, "lab/configs/w.yaml")
    lab.pass_time(60, step=5)
    assert lab.job().reason == "waits for configs/w.yaml (not here, nor in S3)"
    lab.server.seed("lab/configs/w.yaml", b"fr: 20\n")
    lab.until(submitted(lab), "the submit", step=5)


def test_a_config_in_s3_is_judged_like_one_here(lab: Lab) -> None:
    lab.drop_inputs("a.tif")
    lab.server.seed("lab/configs/w.yaml", b"__duration__: '60'\n")
    drop_submit(lab, "lab/configs/w.yaml")
    lab.pass_time(60, step=5)
    assert lab.job().state is JobState.WAITING
    assert "a config that can be used: configs/w.yaml" in lab.job().reason and "__duration__" in lab.job().reason
    assert lab.submits() == {}


def test_a_local_config_is_known_by_the_key_it_went_to(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(upload={"prefix": "rig-a/"})
    lab.drop_inputs("a.tif")
    drop_submit(lab, "lab/configs/rig-a/c.yaml", "lab/inputs/rig-a/a.tif")
    lab.until(submitted(lab), "the submit")
    assert lab.server.body(body(lab)["configname"]) == b"fr: 30\n"


def test_F66_a_unit_with_two_files_of_one_name_is_held_until_the_rule_is_mended(lab: Lab) -> None:
    lab.drop_inputs("m1/left/a.tif", "m1/right/a.tif")
    lab.drop_rule(unit="{animal}", job_per="unit")
    lab.pass_time(60, step=2)
    job = lab.job()
    assert (job.state, job.hold) == (JobState.HELD, None)
    assert "2 datasets have the base name a.tif" in job.reason and "give each a job of its own" in job.reason
    assert lab.submits() == {}
    lab.drop_rule(unit="{animal}", job_per="dataset")
    lab.until(lambda: len(lab.submits()) == 2, "the jobs of the mended rule", step=2)


@pytest.mark.parametrize(("closed", "reason"), [(Denied, "held"), (NoSuchBucket, "waiting")])
def test_another_buckets_refusal_stops_nothing_else(
    lab: Lab, closed: type[Exception], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(MemoryStore):
        def find(self, key: str) -> None:
            raise closed(f"{key} can't be seen")

    lab.turn()
    assert lab.rig.engine is not None
    context = lab.rig.engine.runtime.contexts["caiman-web"]
    home = context.store
    context.store_for = lambda bucket: home if bucket == "caiman-web" else Closed(bucket)
    lab.drop_job("far", "s3://other/d/a.tif", config="s3://other/d/c.yaml")
    lab.drop_job("near", "b.tif")
    lab.until(lambda: len(lab.submits()) == 1, "the other job", step=2)
    lab.pass_time(HOUR, step=60)
    assert str(lab.job("far").state) == reason
    assert not context.paused
