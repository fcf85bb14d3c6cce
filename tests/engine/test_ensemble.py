"""Jobs that start several machines for one dataset: what is said of them, and what they count for (F101)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from engine.lab import END, HOUR, LAUNCHED, NO_CAPACITY, Lab, done
from state_machine.inline_rig import BUCKET

from ncaasd.adapters.journal import open_reader
from ncaasd.engine.core.documents import job_document
from ncaasd.model import JobRow, JobState, Phase
from ncaasd.show.foresight import foresee
from ncaasd.show.jobs import job_report

MINUTE = 60.0
RELEASE = "`ncaasd release --rule dgp` lets the rule's jobs go on"


def certificate(word: str, machines: int = 3, *, moment: str = "2031-03-05 04:10:11.12", moments: str = "now") -> str:
    """Of an ensemble on one dataset: a line for each machine in the log, and one for the dataset in the monitor section."""
    log = "".join(f"        [Utils] New instance ec2.Instance(id='i-00{n}') created!\n" for n in range(machines)) + (
        f"        [Internal (start_instance)] Created {machines} immutable analysis environments.\n"
    )
    work = "".join(
        f"        [Internal (process_inputs)] Starting analysis {n} with parameter set 0.zip\n"
        for n in range(1, machines + 1)
    )
    return (
        f"DATANAME: lab/inputs/0.zip | STATUS: {word} | TIME: {moments} | LAST COMMAND:  | CPU_USAGE: 9 %\n"
        f"REQUEST START TIME: {moment} (GMT)\n{done(1, 2, 3)}{log}{work}{done(4)}JOB MONITOR LOG COMPLETE\n"
    )


def submitted(lab: Lab) -> list[JobRow]:
    return [j for j in lab.jobs() if j.phase in (Phase.SUBMITTED, Phase.ENDED)]


def a_job(lab: Lab) -> JobRow:
    lab.drop_job("one", "0.zip")
    lab.until(lambda: submitted(lab), "the submit")
    return lab.job()


def says(lab: Lab, word: str, **more: Any) -> None:
    lab.status(lab.job(), "0.zip", word, **more)
    lab.certify(lab.job(), certificate(word))


def end(lab: Lab, *numbers: int) -> JobRow:
    for number in numbers:
        lab.put(lab.job(), f"process_results/results{number}.zip", b"results")
    lab.put(lab.job(), "process_results/end.txt", END)
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=15)
    return lab.job()


def test_F101_a_failed_worker_that_was_overwritten_is_not_done(lab: Lab) -> None:
    a_job(lab)
    says(lab, "IN PROGRESS")
    lab.pass_time(10 * MINUTE, step=30)
    assert lab.job().reason == "0 of 3 machines known to have finished"
    says(lab, "SUCCESS", job_finish="2031-03-05T05:00:00Z")
    job = end(lab, 1, 3)
    assert job.state is JobState.FAILED
    assert job.reason == (
        "3 machines worked on 0.zip, and only 2 of them left a verdict that can be read: they share one status file, which"
        " shows only the last to write. Look at its logs and results"
    )
    assert lab.result(job, "process_results/results3.zip") == b"results"  # what came is fetched all the same
    assert (job.finished, job.total, job.machines) == (0, 1, 3)


@pytest.mark.parametrize("killed", [False, True])
def test_F101_a_failure_that_was_seen_is_the_reason_also_after_a_restart(lab: Lab, killed: bool) -> None:
    a_job(lab)
    says(lab, "FAILED", std={"0": "ValueError: no frames\n"}, job_finish="2031-03-05T04:20:00Z")
    lab.until(lambda: "1 failed" in lab.job().reason, "the look", step=15)
    assert (lab.job().state, lab.job().phase) == (JobState.RUNNING, Phase.SUBMITTED)
    if killed:
        lab.rig.kill()
    says(lab, "IN PROGRESS")
    lab.pass_time(10 * MINUTE, step=30)
    says(lab, "SUCCESS", job_finish="2031-03-05T05:00:00Z")
    job = end(lab, 1, 2, 3)
    assert (job.state, job.reason) == (
        JobState.FAILED,
        "0.zip: 3 machines worked on it, 1 failed: ValueError: no frames; its status file shows only the last to write",
    )


def test_F101_an_ensemble_whose_machines_all_left_their_result_is_done(lab: Lab) -> None:
    a_job(lab)
    says(lab, "SUCCESS", job_finish="2031-03-05T05:00:00Z")
    job = end(lab, 1, 2, 3)
    assert (job.state, job.reason, job.finished) == (JobState.DONE, "all 3 machines on the dataset succeeded", 1)


def test_F101_how_many_machines_a_job_has_is_shown(lab: Lab) -> None:
    a_job(lab)
    assert job_document(lab.job(), "/r")["machines"] is None
    says(lab, "IN PROGRESS")
    lab.pass_time(10 * MINUTE, step=30)
    assert job_document(lab.job(), "/r")["machines"] == 3
    shown = dict(job_report(lab.rig.journal, lab.job(), "/r", lab.clock.now()).facts())
    assert shown["machines"] == "3, more than one on a dataset: they write one status file"


def test_F101_the_platforms_own_retry_is_a_new_count(lab: Lab) -> None:
    a_job(lab)
    says(lab, "FAILED", job_finish="2031-03-05T04:20:00Z")
    lab.until(lambda: "1 failed" in lab.job().reason, "the look", step=15)
    lab.certify(lab.job(), certificate("SUCCESS", moment="2031-03-05 04:30:00.00"))
    lab.status(lab.job(), "0.zip", "SUCCESS", job_finish="2031-03-05T05:00:00Z")
    assert end(lab, 1, 2, 3).state is JobState.DONE


# -- what they count for ---------------------------------------------------------------------------------------------


def first_of_rule(new_lab: Callable[..., Lab], **jobs: Any) -> Lab:
    """A rule's first job runs, on three machines as its certificate has told."""
    lab = new_lab(jobs=jobs)
    lab.drop_inputs("0.zip")
    lab.drop_rule(name="dgp", datasets="**/*.zip")
    lab.until(lambda: submitted(lab), "the submit")
    says(lab, "IN PROGRESS")
    lab.pass_time(6 * MINUTE, step=15)
    assert lab.job().machines == 3
    return lab


def plans(lab: Lab) -> dict[str, str]:
    """What `ncaasd plan` says of each job that isn't submitted, and how many machines it counts."""
    with contextlib.closing(open_reader(lab.rig.journal_path)) as journal:
        seen = foresee(lab.rig.config, journal, [BUCKET], lab.clock.now())
    return {j.spec.unit: f"{j.plan} {j.machines}" for p in seen.previews for j in p.jobs if j.plan != "known"}


@pytest.mark.parametrize(
    ("settings", "states", "reason", "planned"),
    [
        ({"max_active": 5}, ["running", "ready", "ready"],
         "3 machines are running, this job takes 3 more, and jobs.max_active is 5", ["queue 3", "queue 3"]),
        ({"max_active": 6}, ["running", "submitted", "ready"],
         "6 machines are running, this job takes 3 more, and jobs.max_active is 6", ["submit 3", "queue 3"]),
        ({"max_per_day": 5}, ["running", "held", "held"],
         "3 machines were started in the last 24 h, this job takes 3 more, and jobs.max_per_day is 5", ["hold 3", "hold 3"]),
        ({"max_per_day": 8}, ["running", "submitted", "held"],
         "6 machines were started in the last 24 h, this job takes 3 more, and jobs.max_per_day is 8",
         ["submit 3", "hold 3"]),
        ({"ask_above": 5}, ["running", "held", "held"],
         f"rule dgp would start 2 jobs on 6 machines with 0.0 GB at once, more than jobs.ask_above: 5; {RELEASE}",
         ["hold 3", "hold 3"]),
        ({"ask_above": 6}, ["running", "submitted", "submitted"], "", ["submit 3", "submit 3"]),
    ],
)  # fmt: skip
def test_F101_the_machines_of_an_ensemble_count_from_its_rules_second_job_on(
    new_lab: Callable[..., Lab], settings: dict[str, int], states: list[str], reason: str, planned: list[str]
) -> None:
    lab = first_of_rule(new_lab, **settings)
    lab.pass_time(20 * MINUTE, step=30)  # the first is no part of what is made at once any more
    lab.drop_inputs("1.zip", "2.zip")
    assert sorted(plans(lab).values(), reverse=planned[0].startswith("submit")) == planned
    lab.until(lambda: len(lab.jobs()) == 3, "the jobs")
    lab.pass_time(2 * MINUTE, step=5)
    assert sorted(lab.states(), key=states.index) == states
    if reason:
        assert {j.reason for j in lab.jobs() if str(j.state) in ("held", "ready")} == {reason}


def test_F101_a_rule_without_a_job_that_is_known_counts_as_the_analysis_does(new_lab: Callable[..., Lab]) -> None:
    lab = first_of_rule(new_lab, max_active=5)
    lab.drop_job("other", "9.bin")
    lab.until(lambda: len(lab.jobs()) == 2, "the job")
    lab.pass_time(2 * MINUTE, step=5)
    assert lab.job("other").reason == "3 machines are running, this job takes 3 more, and jobs.max_active is 5"


def test_F101_what_ran_counts_in_machines_for_a_day(new_lab: Callable[..., Lab]) -> None:
    lab = first_of_rule(new_lab, max_per_day=5)
    says(lab, "SUCCESS", job_finish="2031-03-05T05:00:00Z")
    end(lab, 1, 2, 3)
    lab.drop_inputs("1.zip")
    lab.until(lambda: len(lab.jobs()) == 2, "the job")
    lab.pass_time(22 * HOUR, step=HOUR / 4)
    assert lab.states() == ["done", "held"]
    lab.pass_time(4 * HOUR, step=HOUR / 4)
    assert [j.phase for j in lab.jobs()] == [Phase.ENDED, Phase.SUBMITTED]


def test_a_refused_job_has_no_machines(lab: Lab) -> None:
    a_job(lab)
    lab.certify(lab.job(), NO_CAPACITY)
    lab.until(lambda: lab.job().state is JobState.REFUSED, "the refusal", step=15)
    assert lab.job().machines == 0


def test_a_certificate_that_counts_nothing_is_as_before(lab: Lab) -> None:
    a_job(lab)
    lab.certify(lab.job(), LAUNCHED)
    lab.succeed(lab.job())
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=15)
    assert (lab.job().state, lab.job().machines, lab.job().machine_verdicts) == (JobState.DONE, 0, "")
