"""Every way a job can go, through the whole of ncaasd on the sandbox: what is said of it, and what is brought back.

All scenarios run at once, one job each, on a platform that is some hundred times as fast as NeuroCAAS; so ncaasd's
patience is as much shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.rig import Bench, Rig, blob

from ncaasd.engine import commands
from ncaasd.engine.service import read_config, run_pass
from ncaasd.model import JobRow, JobState, Phase
from ncaasd.neurocaas.evidence import Patience
from ncaasd.sandbox.scenarios import SCENARIOS

QUICK = Patience(no_certificate=6, silent_start=4, no_dispatch=8, platform_retry=3, quiet=6)
LONGEST = 75.0  # seconds for all scenarios together; half of it here
FASTER = {"slow-certificate": {"delay": 0.05}, "slow-analysis": {"seconds": 1}}
BOTH, FIRST, NONE = ("a.bin", "b.bin"), ("a.bin",), ()
ODD = (
    *BOTH, "with space.txt", "with:colon.txt", "Case.txt", "case.txt", "e\u0301.txt", "\u00e9.txt", "trailing.dot.",
    "CON.txt", "deep/er/file.txt", "quote'\"$.txt", "x" * 250 + ".txt",
)  # fmt: skip
FAILED, DONE, REFUSED, LOST = JobState.FAILED, JobState.DONE, JobState.REFUSED, JobState.LOST

# scenario → the state, what its reason says, and the results that are brought back
LIFE: dict[str, tuple[JobState, str, tuple[str, ...]]] = {
    "normal": (DONE, "all 2 datasets succeeded", BOTH),
    "no-certificate": (LOST, "NeuroCAAS has not answered for", NONE),
    "silent-death": (FAILED, "it failed silently while starting", NONE),
    "rejected-step-1": (FAILED, "the submit file has no dataname", NONE),
    "rejected-step-2": (FAILED, "b.bin is not in S3", NONE),
    "rejected-step-3": (FAILED, "step 3 of 4 (Environment Setup) failed: The environment of this analysis", NONE),
    "rejected-step-4": (FAILED, "step 4 of 4 (Initialize Processing) failed: Waiter SystemStatusOk failed", NONE),
    "over-budget": (REFUSED, "over budget: $1,000,000,001.06 of $1,000,000,000 would be used", NONE),
    "no-capacity": (REFUSED, "no capacity: AWS has no machine of that type to give (InsufficientInsta", NONE),
    "vcpu-limit": (REFUSED, "no capacity: AWS has no machine of that type to give (VcpuLimitExceeded)", NONE),
    "no-bandwidth": (REFUSED, "no capacity: NeuroCAAS says: Instance requests greater than pipeline bandwidth", NONE),
    "aws-error": (FAILED, "step 4 of 4 (Initialize Processing) failed at AWS: Transient AWS", NONE),
    "retry-succeeds": (DONE, "all 2 datasets succeeded", BOTH),
    "one-fails": (FAILED, "1 of 2 datasets failed: b.bin: ValueError: the sandbox was asked to make b.bin", FIRST),
    "all-fail": (FAILED, "2 of 2 datasets failed: a.bin: ValueError: the sandbox was asked", NONE),
    "machine-dies": (FAILED, "the machine of b.bin went down without a verdict", FIRST),
    "machine-stopped": (LOST, "1 of 2 datasets finished, no verdict on b.bin", NONE),
    "never-starts": (LOST, "0 of 2 datasets finished, no verdict on a.bin, b.bin", NONE),
    "no-end-marker": (DONE, "all 2 datasets succeeded", BOTH),
    "early-end": (DONE, "all 2 datasets succeeded", BOTH),
    "legacy-logs": (DONE, "all 2 datasets succeeded", BOTH),
    "legacy-text": (DONE, "all 2 datasets succeeded", BOTH),
    "lower-case": (DONE, "all 2 datasets succeeded", BOTH),
    "lower-case-failed": (FAILED, "1 of 2 datasets failed: b.bin: ValueError", FIRST),
    "out-of-memory": (FAILED, "b.bin: killed, probably because it ran out of memory", FIRST),
    "dead": (FAILED, "b.bin: its machine died", FIRST),
    "late-results": (DONE, "all 2 datasets succeeded", BOTH),
    "racing-workers": (DONE, "all 2 datasets succeeded", BOTH),
    "half-written": (DONE, "all 2 datasets succeeded", BOTH),
    "slow-certificate": (DONE, "all 2 datasets succeeded", BOTH),
    "slow-analysis": (DONE, "all 2 datasets succeeded", BOTH),
    "equal-names": (DONE, "all 2 datasets succeeded", (*BOTH, "summary.txt")),
    "ensemble": (
        DONE,
        "all 3 machines on the dataset succeeded",
        (*FIRST, "results1.zip", "results2.zip", "results3.zip"),
    ),
    "ensemble-one-fails": (FAILED, "3 machines worked on", (*FIRST, "results1.zip", "results2.zip")),
    "odd-names": (DONE, "all 2 datasets succeeded", ODD),
}


def datasets(scenario: str) -> tuple[str, ...]:
    """Of an ensemble it is one, for all its machines."""
    return FIRST if SCENARIOS[scenario].ensemble else BOTH


def play(rig: Rig, stop: Callable[[], bool], *, patience: Patience = QUICK) -> None:
    """One pass in this process, until all jobs have ended or `stop`, which is asked a few times a second."""
    asked = [0.0, False]

    def now_and_then() -> bool:
        if time.monotonic() - asked[0] > 0.3:
            asked[:] = [time.monotonic(), stop()]
        return bool(asked[1])

    with pytest.MonkeyPatch.context() as patch:
        for name, value in rig.bench.sandbox.environment().items():
            patch.setenv(name, value)
        run_pass(read_config(rig.config), wait=True, patience=patience, stop=now_and_then)


def ask_for(rig: Rig, name: str, scenario: str, **parameters: Any) -> None:
    """The config `name` asks the sandbox for a scenario."""
    rig.drop(f"configs/{name}", yaml.safe_dump({"__sandbox__": {"scenario": scenario, **parameters}}))


@dataclass(frozen=True)
class Played:
    rig: Rig
    jobs: dict[str, JobRow]  # the first attempt of each scenario
    events: dict[str, list[str]]  # the kinds, in order

    def folder(self, name: str) -> Path:
        return Path(self.rig.home, "results", self.jobs[name].results)

    def results(self, name: str) -> set[str]:
        """What the journal says was brought back below process_results/, without markers and the config's copy."""
        job = self.jobs[name]
        with self.rig.reading() as journal:
            found = {a.name.removeprefix("process_results/") for a in journal.artefacts(job.row) if a.path}
        config = job.config_key.rpartition("/")[2]
        copies = {
            n for n in found if n.startswith("job__") and n.endswith("config.json")
        }  # one for each of an ensemble
        return {n for n in found if not n.startswith("logs/")} - {"end.txt", "update.txt", config} - copies

    def document(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder(name) / "job.json").read_text())
        return document


@pytest.fixture(scope="module")
def played(shared: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    rig = Rig(shared, str(tmp_path_factory.mktemp("life")), changes={"jobs": {"retry_refused": {"capacity": 0}}})
    for name in SCENARIOS:
        ask_for(rig, f"{name}.yaml", name, **FASTER.get(name, {}))
        for dataset in datasets(name):
            rig.drop(f"inputs/{name}/{dataset}", blob(500, 1))
    jobs = [
        {"name": name, "datasets": [f"{name}/{each}" for each in datasets(name)], "config": f"{name}.yaml"}
        for name in SCENARIOS
    ]
    rig.drop("submissions/all.yaml", yaml.safe_dump({"jobs": jobs}))
    began = time.monotonic()

    def over() -> bool:
        first = [job for job in rig.jobs() if not job.attempt]
        ended = [j for j in first if j.phase is Phase.ENDED or (LIFE[j.spec.name][0] is LOST and j.state is LOST)]
        return len(ended) == len(SCENARIOS) or time.monotonic() - began > LONGEST

    play(rig, over)
    first = {job.spec.name: job for job in rig.jobs() if not job.attempt}
    with rig.reading() as journal:
        subjects = {name: f"job {name} {job.spec.unit}" for name, job in first.items()}
        events = {name: [e.kind for e in journal.events(subject=s)] for name, s in subjects.items()}
    yield Played(rig, first, events)
    rig.close()


def test_the_table_has_every_scenario() -> None:
    assert {name: state for name, (state, _, _) in LIFE.items()} == {s.name: s.state for s in SCENARIOS.values()}


@pytest.mark.parametrize("name", LIFE)
def test_F57_F58_F63_each_scenario_ends_as_the_table_says(played: Played, name: str) -> None:
    state, reason, results = LIFE[name]
    job = played.jobs[name]
    assert (job.state, job.phase) == (state, Phase.SUBMITTED if state is LOST else Phase.ENDED), job.reason
    assert reason in job.reason
    assert state is LOST or played.results(name) == set(results)
    assert (played.folder(name) / "logs" / "certificate.txt").exists() == (name != "no-certificate")
    assert played.events[name].count(str(state)) == 1, "said once"


@pytest.mark.parametrize("name", [name for name, (state, _, _) in LIFE.items() if state is not LOST])
def test_job_json_tells_the_end(played: Played, name: str) -> None:
    job, document = played.jobs[name], played.document(name)
    assert (document["id"], document["state"], document["reason"]) == (job.job_id, str(job.state), job.reason)
    assert document["datasets"] == [f"{name}/{each}" for each in datasets(name)]
    assert document["submit"]["timestamp"] == job.job_id
    assert document["submit"]["dataname"] == [d.key for d in job.spec.datasets]
    assert document["created"] <= document["submitted"] <= document["ended"]


def test_a_lost_job_has_no_job_json(played: Played) -> None:
    for name in (n for n, (state, _, _) in LIFE.items() if state is LOST):
        assert not (played.folder(name) / "job.json").exists()


def test_everything_fetched_has_the_bytes_that_are_in_s3(played: Played) -> None:
    played.rig.check_results()


def test_F60_each_job_was_submitted_once_whatever_became_of_it(played: Played) -> None:
    assert played.rig.submits() == {job.submit_key: 1 for job in played.jobs.values()}


def test_F58_F61_no_end_was_said_before_it_was_one(played: Played) -> None:
    """An end marker after a failure, one put too early, and an AWS error that the platform gets over by itself."""
    for name in ("early-end", "retry-succeeds", "late-results", "half-written", "racing-workers"):
        assert not {"failed", "refused", "lost"} & set(played.events[name]), played.events[name]
    assert "starting" in played.events["retry-succeeds"]


def test_costs_are_read_from_the_certificate(played: Played) -> None:
    cost = played.document("normal")["cost"]
    assert 0 < cost["projected"] < cost["budget_left"]
    refused = played.document("over-budget")["cost"]
    assert (refused["projected"], refused["budget_left"]) == (1_000_000_001.06, None)


def test_the_status_file_has_every_job_with_its_reason(played: Played) -> None:
    shown = {(j["name"], j["attempt"]): j for j in played.rig.statuses()["submissions/all.status.json"]["jobs"]}
    for name, (state, reason, _) in LIFE.items():
        assert shown[name, 0]["state"] == str(state)
        assert reason in shown[name, 0]["reason"]


def test_F62_a_job_over_budget_is_held_for_a_person_with_the_command(played: Played) -> None:
    waiting = [job for job in played.rig.jobs() if job.attempt]
    assert [(j.spec.name, j.state, j.hold, j.job_id) for j in waiting] == [("over-budget", JobState.HELD, "budget", "")]
    assert "would be used; `ncaasd release over-budget` lets it go on" in waiting[0].reason


def test_F101_a_failed_machine_of_an_ensemble_is_said_though_its_word_was_overwritten(played: Played) -> None:
    job, good = played.jobs["ensemble-one-fails"], played.jobs["ensemble"]
    log = json.loads((played.folder("ensemble-one-fails") / "logs" / "DATASET_NAME:a.bin_STATUS.txt").read_text())
    assert log["status"] == "SUCCESS"
    assert job.state is FAILED
    assert (job.total, job.machines, good.machines, good.finished) == (1, 3, 3, 1)
    assert played.jobs["normal"].machines == 2
    # Whether the failure itself was seen, or only that a machine is missing, is a matter of when it was looked at.
    seen = (
        "1 failed: ValueError: the sandbox was asked to make a.bin fail; its status file shows only the last to write"
    )
    missed = "3 machines worked on a.bin, and only 2 of them left a verdict that can be read"
    assert seen in job.reason or missed in job.reason


def test_logs_of_failed_jobs_are_kept_and_say_what_went_wrong(played: Played) -> None:
    for name in ("one-fails", "all-fail", "out-of-memory", "dead", "lower-case-failed"):
        log = json.loads((played.folder(name) / "logs" / "DATASET_NAME:b.bin_STATUS.txt").read_text())
        assert log["status"].lower() not in ("success", "in progress")


# -- one by one ------------------------------------------------------------------------------------------------------


def test_F62_capacity_is_tried_again_with_a_new_id_and_then_succeeds(rig: Rig) -> None:
    ask_for(rig, "c.yaml", "no-bandwidth")
    rig.drop("inputs/a.bin", blob(100, 1))
    rig.drop_job("again", "a.bin", config="c.yaml")
    mended = []

    def stop() -> bool:
        attempts = rig.jobs()
        if len(attempts) == 2 and not mended:
            mended.append(attempts[1])
            ask_for(rig, "c.yaml", "normal")
        return len(attempts) > 2

    play(rig, stop)
    first, second = rig.jobs()
    assert (first.state, second.state) == (REFUSED, DONE)
    assert first.job_id != second.job_id
    assert mended[0].not_before - first.ended >= QUICK.platform_retry
    assert "attempt 1 of 3 after a refusal, in " in mended[0].reason
    assert rig.submits() == {first.submit_key: 1, second.submit_key: 1}


def test_F60_a_lost_job_times_out_and_is_never_submitted_again(new_rig: Callable[..., Rig]) -> None:
    rig = new_rig(changes={"jobs": {"timeout": "12s"}})
    for scenario in ("never-starts", "no-certificate"):
        ask_for(rig, f"{scenario}.yaml", scenario)
        rig.drop(f"inputs/{scenario}.bin", blob(100, 1))
        rig.drop_job(scenario, f"{scenario}.bin", config=f"{scenario}.yaml")
    quick = Patience(no_certificate=3, silent_start=4, no_dispatch=4, platform_retry=3, quiet=3)
    play(rig, lambda: False, patience=quick)
    assert [(job.state, job.phase) for job in rig.jobs()] == [(JobState.TIMED_OUT, Phase.ENDED)] * 2
    assert {len(rig.events(kind)) for kind in ("lost", "timed out")} == {2}
    assert all("no end after 12 s; last it was lost: " in job.reason for job in rig.jobs())
    assert rig.submits() == {job.submit_key: 1 for job in rig.jobs()}
    for job in rig.jobs():
        document = json.loads(Path(rig.home, "results", job.results, "job.json").read_text())
        assert document["state"] == "timed out"


def test_F62_the_siblings_of_a_job_over_budget_are_held_and_released_in_bulk(rig: Rig) -> None:
    ask_for(rig, "config.yaml", "over-budget")
    rig.configure({"jobs": {"max_active": 1, "poll": {"min": "200ms", "max": "1s"}}})
    for number in range(4):
        rig.drop(f"inputs/{number}.bin", blob(100, number))
    rig.drop_rule()
    play(rig, lambda: False)
    jobs = rig.jobs()
    assert sorted((str(j.state), j.attempt) for j in jobs) == [("held", 0)] * 3 + [("held", 1), ("refused", 0)]
    held = [job for job in jobs if job.state is JobState.HELD]
    assert all(job.reason.endswith("; `ncaasd release --rule all` lets the rule's jobs go on") for job in held)
    assert len(rig.submits()) == 1

    ask_for(rig, "config.yaml", "normal")
    rig.configure({})
    with rig.writing() as journal:
        released = commands.apply(journal, "release", commands.Selection(rule="all"), time.time())
    assert [effect.done for effect in released].count(True) == 4
    play(rig, lambda: False)
    assert sorted(str(j.state) for j in rig.jobs()) == ["done"] * 4 + ["refused"]
    assert set(rig.submits().values()) == {1}
    assert len(rig.submits()) == 5


@pytest.mark.parametrize("mode", ["live", "end", "never"])
def test_logs_as_configured_of_failed_jobs_too(new_rig: Callable[..., Rig], mode: str) -> None:
    rig = new_rig(changes={"results": {"logs": mode}})
    ask_for(rig, "good.yaml", "slow-analysis", seconds=2)
    ask_for(rig, "bad.yaml", "all-fail", seconds=2)
    for name in ("good", "bad"):
        rig.drop(f"inputs/{name}.bin", blob(100, 1))
        rig.drop_job(name, f"{name}.bin", config=f"{name}.yaml")
    early = set()

    def stop() -> bool:
        for job in rig.jobs():
            log = Path(rig.home, "results", job.results or "-", "logs", "certificate.txt")
            if job.state is JobState.RUNNING and not job.verdict and log.exists():
                early.add(job.spec.name)
        return False

    play(rig, stop)
    assert early == ({"good", "bad"} if mode == "live" else set()), "while the jobs ran"
    for name, state in (("good", "done"), ("bad", "failed")):
        folder = Path(rig.home, "results", rig.job(name).results)
        logs = {"certificate.txt", f"DATASET_NAME:{name}.bin_STATUS.txt"}
        assert {p.name for p in folder.glob("logs/*")} == (set() if mode == "never" else logs)
        assert json.loads((folder / "job.json").read_text())["state"] == state


def test_F66_datasets_of_one_base_name_are_refused_with_the_reason(rig: Rig) -> None:
    rig.drop_config()
    for mouse in ("m1", "m2"):
        rig.drop(f"inputs/{mouse}/a.bin", blob(100, 1))
    rig.drop_job("two", "m1/a.bin", "m2/a.bin")

    play(rig, lambda: False)
    status = rig.statuses()["submissions/two.status.json"]
    assert not status["ok"]
    assert "m1/a.bin: their results would mix; make it a job of its own" in status["errors"][0]
    assert rig.submits() == {}
