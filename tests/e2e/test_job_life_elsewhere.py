"""Jobs that were started on the website, or by another rig, on the sandbox: followed and fetched, never submitted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.rig import BUCKET, GROUP, Rig
from test_job_life import play

from ncaasd.model import JobState, Origin, Phase

DATA = b"uploaded on the website"


def start_on_the_website(rig: Rig, job_id: str, **config: Any) -> None:
    """As the website does it: data, config and submit file put by others."""
    bench = rig.bench
    bench.put(f"inputs/web/{job_id}.bin", DATA)
    bench.put(f"configs/web-{job_id}.json", json.dumps({"fr": 30, **config}).encode())
    submit = {
        "dataname": [f"{GROUP}/inputs/web/{job_id}.bin"],
        "configname": f"{GROUP}/configs/web-{job_id}.json",
        "timestamp": job_id,
    }
    bench.put(f"submissions/{job_id}web-submit.json", json.dumps(submit).encode())


def wait_for_folder(rig: Rig, job_id: str) -> None:
    end = time.monotonic() + 20
    while not rig.bench.objects(f"results/job__{BUCKET}_{job_id}/logs/"):
        assert time.monotonic() < end, "the sandbox starts it"
        time.sleep(0.1)


def others(rig: Rig, ids: list[str]) -> Callable[[], bool]:
    return lambda: {j.job_id for j in rig.jobs() if j.phase is Phase.ENDED} >= set(ids)


def command(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ncaasd", *words, "--config", rig.config]
    env = rig.bench.sandbox.environment() | {"COLUMNS": "100", "NO_COLOR": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60, check=False)


def unique(number: int) -> str:
    return f"{int(time.time() * 1000) % 10**12}{number}"


def test_a_machine_that_only_downloads_brings_every_job_of_the_group(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(changes={"results": {"fetch": "all"}})
    good, bad = unique(1), unique(2)
    start_on_the_website(rig, good)
    start_on_the_website(rig, bad, __sandbox__="all-fail")
    before = rig.bench.versions("submissions/")
    for job_id in (good, bad):
        wait_for_folder(rig, job_id)
    play(rig, others(rig, [good, bad]))
    found = {j.job_id: j for j in rig.jobs()}
    assert (found[good].state, found[bad].state) == (JobState.DONE, JobState.FAILED)
    assert found[good].spec.origin is Origin.ELSEWHERE
    assert [d.name for d in found[good].spec.datasets] == [f"web/{good}.bin"]
    folder = Path(rig.home, "results", f"job__{BUCKET}_{good}")
    assert (folder / "process_results" / f"{good}.bin").read_bytes() == DATA
    assert json.loads((folder / "job.json").read_text())["state"] == "done"
    submits = {k: n for k, n in rig.bench.versions("submissions/").items() if k.endswith("submit.json")}
    assert submits == {k: n for k, n in before.items() if k.endswith("submit.json")}, "nothing was submitted"
    assert rig.bench.versions(f"inputs/{rig.name}/") == {}


def test_another_rigs_job_is_fetched_here_too(new_rig: Callable[..., Rig]) -> None:
    one, two = new_rig(), new_rig(changes={"results": {"fetch": "all"}})
    one.drop_config()
    one.drop("inputs/a.bin", DATA)
    one.drop_job("one", "a.bin")
    play(one, lambda: False)
    job_id = one.job().job_id
    play(two, others(two, [job_id]))
    assert Path(two.home, "results", one.job().results, "process_results", "a.bin").read_bytes() == DATA
    assert one.submits() == {one.job().submit_key: 1}


@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "no daemon"])
def test_fetch_by_id_of_a_job_that_only_s3_knows(rig: Rig, daemon: bool) -> None:
    job_id = unique(3)
    start_on_the_website(rig, job_id)
    wait_for_folder(rig, job_id)
    end = time.monotonic() + 20
    while not rig.bench.objects(f"results/job__{BUCKET}_{job_id}/process_results/end.txt"):
        assert time.monotonic() < end
        time.sleep(0.1)
    if daemon:
        rig.start()
        rig.wait_for(rig.live, "the daemon to answer")
    else:
        play(rig, lambda: True)  # there is a journal
    answer = command(rig, "fetch", job_id)
    assert answer.returncode == 0, answer.stderr
    if daemon:
        rig.wait_for(others(rig, [job_id]), "the results")
    assert Path(rig.home, "results", f"job__{BUCKET}_{job_id}", "process_results", f"{job_id}.bin").read_bytes() == DATA
    unknown = command(rig, "fetch", "987654321")
    assert unknown.returncode != 0
    assert "there is no job 987654321" in unknown.stdout + unknown.stderr
