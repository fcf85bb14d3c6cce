"""Jobs that others started are found, followed and fetched like our own, and never submitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from engine.lab import END, HOUR, LAUNCHED, NO_CAPACITY, OVER_BUDGET, Lab, done
from state_machine.inline_rig import BUCKET, GROUP

from ncaasd.engine import service
from ncaasd.engine.commands import Selection
from ncaasd.errors import UserError
from ncaasd.model import JobRow, JobState, Origin, Phase

REQUEST = "        [Internal (init)] Analysis request with dataset(s): ['lab/inputs/web/x.tif'], config file lab/configs/w.yaml\n"


def of(job_id: str) -> JobRow:
    """Enough of a row for Lab's platform to know where its folder is."""
    lab_row: Any = type("Row", (), {"job_id": job_id})
    return lab_row  # type: ignore[no-any-return]


def start(lab: Lab, job_id: str, certificate: str = REQUEST + LAUNCHED) -> None:
    lab.put(of(job_id), "", "")
    lab.certify(of(job_id), certificate)
    lab.status(of(job_id), "x.tif", "IN PROGRESS")


def end(lab: Lab, job_id: str, status: str = "SUCCESS") -> None:
    lab.status(of(job_id), "x.tif", status)
    lab.put(of(job_id), "process_results/out.bin", b"results")
    lab.put(of(job_id), "process_results/end.txt", END)


def ended(lab: Lab, job_id: str) -> Callable[[], bool]:
    return lambda: any(j.job_id == job_id and j.phase is Phase.ENDED for j in lab.jobs())


@pytest.fixture
def all_lab(new_lab: Callable[..., Lab]) -> Lab:
    return new_lab(results={"fetch": "all"})


def fetch(lab: Lab, *ids: str, every: bool = False) -> list[dict[str, Any]]:
    """What the daemon's socket does."""
    lab.turn()
    engine = lab.rig.engine
    assert engine is not None
    selection = Selection(ids=ids)
    found = service.find_elsewhere(engine, selection, every=every)
    with lab.rig.journal.transaction():
        return service.fetch(engine, selection, found)


def test_with_fetch_mine_nobody_looks(lab: Lab) -> None:
    start(lab, "123")
    lab.pass_time(HOUR, step=30)
    assert lab.jobs() == []
    assert not [op for op in lab.server.ops if op.name == "folders"]


@pytest.mark.parametrize(("status", "state"), [("SUCCESS", JobState.DONE), ("FAILED", JobState.FAILED)])
def test_a_job_of_the_website_is_found_followed_and_fetched(all_lab: Lab, status: str, state: JobState) -> None:
    lab = all_lab
    start(lab, "1612345678")
    lab.until(lab.jobs, "the job", step=5)
    lab.pass_time(30, step=5)
    job = lab.job()
    assert (job.state, job.spec.origin, job.results) == (
        JobState.RUNNING,
        Origin.ELSEWHERE,
        f"job__{BUCKET}_1612345678",
    )
    assert [(d.name, d.key) for d in job.spec.datasets] == [("web/x.tif", "lab/inputs/web/x.tif")]
    assert job.spec.config == "lab/configs/w.yaml"
    end(lab, "1612345678", status)
    lab.until(ended(lab, "1612345678"), "the end", step=15)
    assert lab.job().state is state
    assert lab.result(job, "process_results/out.bin") == b"results"
    document = json.loads(lab.result(job, "job.json"))
    assert (document["id"], document["state"], document["datasets"]) == ("1612345678", str(state), ["web/x.tif"])
    assert document["submit"] is None
    assert lab.submits() == {}


def test_jobs_of_long_ago_keep_their_own_times(all_lab: Lab) -> None:
    start(all_lab, "old")
    end(all_lab, "old")
    began = all_lab.clock.now()
    all_lab.clock.sleep(100 * HOUR)
    all_lab.until(ended(all_lab, "old"), "the end", step=15)
    assert all_lab.job().submitted == began


def test_one_that_never_ended_times_out_at_once(all_lab: Lab) -> None:
    start(all_lab, "old")
    all_lab.clock.sleep(100 * HOUR)
    all_lab.until(ended(all_lab, "old"), "the end", step=15)
    assert all_lab.job().state is JobState.TIMED_OUT


@pytest.mark.parametrize("certificate", [NO_CAPACITY, OVER_BUDGET], ids=["capacity", "budget"])
def test_a_refusal_of_somebody_elses_job_is_only_told(all_lab: Lab, certificate: str) -> None:
    lab = all_lab
    lab.put(of("7"), "logs/certificate.txt", certificate)
    lab.until(ended(lab, "7"), "the end", step=60, longest=5 * HOUR)
    lab.pass_time(24 * HOUR, step=300)
    assert [(j.state, j.attempt) for j in lab.jobs()] == [(JobState.REFUSED, 0)]
    assert lab.submits() == {}


@pytest.mark.parametrize("action", ["rerun", "hold", "release"])
def test_nobody_submits_it_by_accident(all_lab: Lab, action: str) -> None:
    start(all_lab, "7")
    end(all_lab, "7")
    all_lab.until(ended(all_lab, "7"), "the end", step=15)
    effects = all_lab.apply(action, ids=("7",))
    assert [e.done for e in effects] == [False]
    all_lab.pass_time(HOUR, step=60)
    assert len(all_lab.jobs()) == 1
    assert all_lab.submits() == {}


def test_the_results_are_listed_no_more_often_than_the_slowest_poll(all_lab: Lab) -> None:
    all_lab.pass_time(2 * HOUR, step=5)
    listings = [op for op in all_lab.server.ops if op.name == "folders"]
    assert 23 <= len(listings) <= 28, "once in 5 minutes"
    assert {op.key for op in listings} == {f"{GROUP}/results/"}


def test_our_own_jobs_are_not_taken_for_others(all_lab: Lab) -> None:
    lab = all_lab
    lab.drop_job("one", "a.tif")
    lab.until(lambda: any(j.phase is Phase.SUBMITTED for j in lab.jobs()), "the submit")
    lab.succeed(lab.job())
    lab.until(ended(lab, lab.job().job_id), "the end", step=15)
    lab.pass_time(HOUR, step=60)
    assert [j.spec.origin for j in lab.jobs()] == [Origin.MANIFEST]


def test_a_lost_journal_finds_its_own_jobs_twice_and_keeps_one(all_lab: Lab) -> None:
    """The results are listed before the manifest is whole; the job is then declared again, with the id it had."""
    lab = all_lab
    lab.drop_job("one", "a.tif")
    lab.until(lambda: any(j.phase is Phase.SUBMITTED for j in lab.jobs()), "the submit")
    lab.launch(lab.job())
    job_id = lab.job().job_id
    lab.rig.lose_journal(restore=False)
    lab.until(lambda: lab.jobs() and lab.job().spec.origin is Origin.ELSEWHERE, "the job, found", step=0.1)
    lab.until(lambda: [j.spec.origin for j in lab.jobs()] == [Origin.MANIFEST], "the job, declared again")
    lab.succeed(lab.job())
    lab.until(ended(lab, job_id), "the end", step=15)
    assert lab.result(lab.job(), "process_results/out.bin") == b"results"
    assert list(lab.submits().values()) == [1]


def test_names_that_are_no_jobs_of_this_bucket_are_passed_over(all_lab: Lab) -> None:
    for name in ("job__other-bucket_1", "notes", "job__", f"job__{BUCKET}_a b"):
        all_lab.server.seed(f"{GROUP}/results/{name}/logs/certificate.txt", LAUNCHED.encode())
    all_lab.server.seed(f"{GROUP}/results/readme.txt", b"")
    all_lab.pass_time(60, step=5)
    assert all_lab.jobs() == []


def test_a_machine_without_inputs_only_downloads(all_lab: Lab) -> None:
    lab = all_lab
    (lab.folder / "configs/c.yaml").unlink()
    for area in ("inputs", "configs", "submissions"):
        (lab.folder / area).rmdir()
    for job_id in ("1", "2"):
        start(lab, job_id)
        end(lab, job_id)
    lab.until(lambda: lab.states() == ["done", "done"], "both", step=15)
    assert not (lab.folder / "inputs").exists()
    puts = {op.key for op in lab.server.ops if op.name == "put"}
    assert puts <= {f"{GROUP}/submissions/.ncaasd/probe", f"{GROUP}/submissions/.ncaasd/rig-a"}


# -- fetch, asked for by name ----------------------------------------------------------------------------------------


def test_fetch_of_an_id_that_only_s3_knows(lab: Lab) -> None:
    start(lab, "77")
    start(lab, "78")
    end(lab, "77")
    answers = fetch(lab, "77")
    assert [(a["done"], a["job"]["id"]) for a in answers] == [(True, "77")]
    lab.until(ended(lab, "77"), "the end", step=15)
    assert lab.result(lab.job(), "process_results/out.bin") == b"results"
    assert [j.job_id for j in lab.jobs()] == ["77"]


def test_fetch_of_an_id_that_nobody_knows_is_refused(lab: Lab) -> None:
    with pytest.raises(UserError, match="there is no job 99"):
        fetch(lab, "99")


def test_fetch_all_brings_what_there_is(lab: Lab) -> None:
    for job_id in ("1", "2", "3"):
        start(lab, job_id)
        end(lab, job_id)
    assert len(fetch(lab, every=True)) == 3
    lab.until(lambda: lab.states() == ["done"] * 3, "all of them", step=15)


def test_F88_fetch_brings_back_what_was_deleted_here_and_what_came_since(all_lab: Lab) -> None:
    lab = all_lab
    start(lab, "5")
    end(lab, "5")
    lab.until(ended(lab, "5"), "the end", step=15)
    job = lab.job()
    (lab.folder / "results" / job.results / "process_results/out.bin").unlink()
    lab.pass_time(HOUR, step=60)
    assert not (lab.folder / "results" / job.results / "process_results/out.bin").exists(), "not by itself"
    lab.put(of("5"), "process_results/late.bin", b"late")
    assert fetch(lab, "5")[0]["done"]
    lab.pass_time(10)
    assert lab.result(job, "process_results/out.bin") == b"results"
    assert lab.result(job, "process_results/late.bin") == b"late"
    assert lab.job().phase is Phase.ENDED


def test_fetch_corrects_an_end_that_was_not_the_last_word(lab: Lab) -> None:
    lab.drop_job("one", "a.tif")
    lab.until(lambda: any(j.phase is Phase.SUBMITTED for j in lab.jobs()), "the submit")
    lab.certify(lab.job(), done(1))
    lab.clock.sleep(49 * HOUR)
    lab.until(ended(lab, lab.job().job_id), "the end", step=15)
    assert lab.job().state is JobState.TIMED_OUT
    lab.succeed(lab.job())
    fetch(lab, lab.job().job_id)
    lab.pass_time(10)
    assert lab.job().state is JobState.DONE
    assert json.loads(lab.result(lab.job(), "job.json"))["state"] == "done"


def test_fetch_of_a_running_job_says_that_it_comes_by_itself(all_lab: Lab) -> None:
    start(all_lab, "5")
    all_lab.until(lambda: all_lab.states() == ["running"], "the job", step=5)
    answers = fetch(all_lab, "5")
    assert [(a["done"], a["text"]) for a in answers] == [
        (False, "it is running: its results come by themselves when it has ended")
    ]


def test_an_elsewhere_job_with_resultpath_is_followed_where_it_went(all_lab: Lab) -> None:
    lab = all_lab
    bypass = (
        "        [Internal (init)] Full bypass info: {'input': {'bucket': 'lab-data', 'datapath': 'd/x.tif', 'configpath':"
        " 'd/c.yaml'}, 'output': {'bucket': '" + BUCKET + "', 'resultpath': 'lab/results/mine'}}\n"
    )
    request = REQUEST.replace("lab/inputs/web/x.tif", "s3://lab-data/d/x.tif").replace("lab/configs", "s3://lab-data/d")
    lab.certify(of("8"), request + bypass)
    there = f"{GROUP}/results/mine/job__{BUCKET}_8/"
    lab.server.seed(there + "logs/certificate.txt", (request + bypass + LAUNCHED).encode())
    status = json.dumps({"status": "SUCCESS", "reason": 0, "input": "d/x.tif", "std": {}})
    lab.server.seed(there + "logs/DATASET_NAME:x.tif_STATUS.txt", status.encode())
    lab.server.seed(there + "process_results/out.bin", b"there")
    lab.until(lambda: lab.states() == ["running"], "the job", step=5)
    assert replace(lab.job().spec, datasets=()).resultpath == f"s3://{BUCKET}/lab/results/mine"
    lab.until(ended(lab, "8"), "the end", step=30)
    assert lab.job().state is JobState.DONE
    assert lab.result(lab.job(), "process_results/out.bin") == b"there"
