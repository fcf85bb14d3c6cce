"""What a refusal, a loss and a failure lead to, over hours, with the patience of the real thing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from engine.lab import HOUR, NO_BANDWIDTH, NO_CAPACITY, NOT_FOUND, OVER_BUDGET, Lab

from ncaasd.model import JobState, Phase

DONE, FAILED, HELD, LOST, READY, REFUSED = (
    JobState.DONE, JobState.FAILED, JobState.HELD, JobState.LOST, JobState.READY, JobState.REFUSED,
)  # fmt: skip
MINUTE = 60.0


def submitted(lab: Lab, count: int) -> Callable[[], bool]:
    return lambda: sum(j.phase is Phase.SUBMITTED or j.phase is Phase.ENDED for j in lab.jobs()) >= count


def one_job(lab: Lab) -> None:
    lab.drop_job("one", "a.tif")
    lab.until(submitted(lab, 1), "the submit")


def ends(lab: Lab, attempt: int) -> Callable[[], bool]:
    return lambda: lab.job(attempt=attempt).phase is Phase.ENDED


@pytest.mark.parametrize("certificate", [NO_CAPACITY, NO_BANDWIDTH], ids=["aws", "bandwidth"])
def test_F62_capacity_is_retried_with_new_ids_after_growing_delays_and_then_given_up(
    lab: Lab, certificate: str
) -> None:
    one_job(lab)
    delays = []
    for attempt in range(4):
        lab.until(submitted(lab, attempt + 1), "the submit", step=30, longest=8 * HOUR)
        job = lab.job(attempt=attempt)
        if attempt:
            delays.append(job.submitted - lab.job(attempt=attempt - 1).ended)
        lab.certify(job, certificate)
        lab.until(ends(lab, attempt), "the end", step=30, longest=8 * HOUR)
    lab.pass_time(24 * HOUR, step=300)
    jobs = lab.jobs()
    assert [j.state for j in jobs] == [REFUSED] * 4
    assert len({j.job_id for j in jobs}) == 4
    assert set(lab.submits().values()) == {1}
    assert delays == sorted(delays)
    assert min(delays) > 10 * MINUTE, "never before the platform's own retries are over"


@pytest.mark.parametrize(("capacity", "attempts"), [(0, 1), (1, 2)])
def test_capacity_is_retried_as_often_as_configured(new_lab: Callable[..., Lab], capacity: int, attempts: int) -> None:
    lab = new_lab(jobs={"retry_refused": {"capacity": capacity}})
    one_job(lab)
    for attempt in range(attempts):
        lab.until(submitted(lab, attempt + 1), "the submit", step=30, longest=8 * HOUR)
        lab.certify(lab.job(attempt=attempt), NO_BANDWIDTH)
        lab.until(ends(lab, attempt), "the end", step=30)
    lab.pass_time(24 * HOUR, step=300)
    assert [j.state for j in lab.jobs()] == [REFUSED] * attempts


def test_a_refusal_is_no_refusal_while_the_platform_may_try_again(lab: Lab) -> None:
    one_job(lab)
    lab.certify(lab.job(), NO_CAPACITY)
    lab.pass_time(9 * MINUTE, step=15)
    assert lab.job().state is JobState.STARTING
    assert "NeuroCAAS tries again by itself" in lab.job().reason
    lab.pass_time(2 * MINUTE, step=15)
    assert lab.job().state is REFUSED
    lab.pass_time(20 * MINUTE, step=15)
    assert len(lab.jobs()) == 1, "a retry of the platform's may still come: no attempt of ours beside it"


def test_F61_a_job_that_was_refused_and_is_retried_late_by_the_platform_ends_done(lab: Lab) -> None:
    one_job(lab)
    lab.certify(lab.job(), NO_CAPACITY)
    lab.until(lambda: lab.job().state is REFUSED, "the refusal", step=15)
    lab.pass_time(30 * MINUTE, step=15)
    lab.launch(lab.job())
    lab.until(lambda: lab.job().state is JobState.STARTING, "its start", step=15)
    lab.succeed(lab.job())
    lab.until(ends(lab, 0), "the end", step=15)
    assert [(j.state, j.attempt) for j in lab.jobs()] == [(DONE, 0)]
    assert json.loads(lab.result(lab.job(), "job.json"))["state"] == "done"
    lab.pass_time(12 * HOUR, step=300)
    assert list(lab.submits().values()) == [1]


def test_F60_no_certificate_for_hours_is_said_and_never_submitted_again(lab: Lab) -> None:
    one_job(lab)
    lab.pass_time(14 * MINUTE, step=15)
    assert (lab.job().state, lab.job().reason) == (JobState.SUBMITTED, "waiting for NeuroCAAS to start it")
    lab.pass_time(5 * HOUR, step=60)
    assert lab.job().state is LOST
    assert lab.job().reason.startswith("NeuroCAAS has not answered for 5 h")
    assert len(lab.events("lost")) == 1
    lab.pass_time(44 * HOUR, step=300)
    assert (lab.job().state, lab.job().phase) == (JobState.TIMED_OUT, Phase.ENDED)
    lab.pass_time(24 * HOUR, step=600)
    assert len(lab.jobs()) == 1
    assert list(lab.submits().values()) == [1]


def test_a_lost_job_that_is_found_again_ends_done(lab: Lab) -> None:
    one_job(lab)
    lab.pass_time(5 * HOUR, step=60)
    assert lab.job().state is LOST
    lab.succeed(lab.job())
    lab.until(ends(lab, 0), "the end", step=15)
    assert lab.job().state is DONE


def test_F57_a_silent_death_is_found_and_believed_without_an_end_marker(lab: Lab) -> None:
    one_job(lab)
    lab.certify(lab.job(), "REQUEST START TIME: now\n")
    lab.pass_time(4 * MINUTE, step=15)
    assert lab.job().state is FAILED
    lab.until(ends(lab, 0), "the end", step=60, longest=2 * HOUR)
    assert json.loads(lab.result(lab.job(), "job.json"))["state"] == "failed"


# -- budget ----------------------------------------------------------------------------------------------------------


def refused_over_budget(lab: Lab) -> None:
    """Of three jobs of a rule, the first is refused; one at a time runs."""
    lab.drop_inputs("a.tif", "b.tif", "c.tif")
    lab.drop_rule()
    lab.until(submitted(lab, 1), "the submit")
    lab.certify(next(j for j in lab.jobs() if j.job_id), OVER_BUDGET)
    lab.until(lambda: lab.states().count("held") == 3, "the holds", step=15)


def test_F62_budget_holds_the_job_and_its_siblings_before_they_are_submitted(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"max_active": 1})
    refused_over_budget(lab)
    lab.pass_time(24 * HOUR, step=300)
    held = [j for j in lab.jobs() if j.state is HELD]
    assert sorted(j.attempt for j in held) == [0, 0, 1]
    for job in held:
        assert "over budget: $301.06 of $300 would be used" in job.reason
        assert job.reason.endswith("; `ncaasd release --rule all` lets the rule's jobs go on")
    assert len(lab.submits()) == 1


def test_what_the_budget_holds_is_released_in_bulk(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"max_active": 1})
    refused_over_budget(lab)
    effects = lab.apply("release", rule="all")
    assert sum(e.done for e in effects) == 3
    for count in (2, 3, 4):
        lab.until(submitted(lab, count), "the submit", step=15)
        lab.succeed(next(j for j in lab.jobs() if j.phase is Phase.SUBMITTED and not j.verdict))
    lab.until(lambda: lab.states().count("done") == 3, "the ends", step=15)
    assert len(lab.submits()) == 4


def test_budget_is_retried_when_configured(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"retry_refused": {"budget": 1}})
    one_job(lab)
    lab.certify(lab.job(), OVER_BUDGET)
    lab.until(submitted(lab, 2), "the second submit", step=30, longest=8 * HOUR)
    lab.certify(lab.job(attempt=1), OVER_BUDGET)
    lab.until(lambda: lab.states() == ["refused", "refused", "held"], "the hold", step=30)
    assert "`ncaasd release one` lets it go on" in lab.job(attempt=2).reason
    lab.drop("configs/c.yaml", "fr: 31\n")  # whatever has its job considered once more
    lab.pass_time(10 * MINUTE, step=15)
    assert (lab.states()[-1], len(lab.submits())) == ("held", 2)
    lab.apply("release", ids=("one",))
    lab.until(submitted(lab, 3), "the submit that a person has allowed", step=15)


# -- guards on many jobs at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "rule", "first"),
    [({"max_active": 2}, {}, 2), ({"max_per_day": 3}, {}, 3), ({}, {"canary": 1}, 1), ({}, {}, 5)],
    ids=["max_active", "max_per_day", "canary", "none"],
)
def test_jobs_that_are_ready_together_count_for_one_another(
    new_lab: Callable[..., Lab], settings: dict[str, int], rule: dict[str, int], first: int
) -> None:
    """All five are due in the same turn; a guard must see those that were let through a moment ago."""
    lab = new_lab(jobs=settings)
    lab.drop_inputs(*(f"{n}.tif" for n in range(5)))
    lab.drop_rule(**rule)
    lab.until(submitted(lab, 1), "the submit")
    lab.pass_time(2 * MINUTE, step=5)
    assert len(lab.submits()) == first


def test_F93_a_wrong_config_stops_after_the_failures_at_once(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"max_active": 1, "stop_after_failures": 2})
    lab.drop_inputs(*(f"{n}.tif" for n in range(6)))
    lab.drop_rule()
    for count in (1, 2):
        lab.until(submitted(lab, count), "the submit", step=5)
        lab.certify(next(j for j in lab.jobs() if j.phase is Phase.SUBMITTED and not j.verdict), NOT_FOUND)
    lab.until(lambda: lab.states().count("held") == 4, "the holds", step=15)
    held = [j for j in lab.jobs() if j.state is HELD]
    assert {j.reason for j in held} == {
        "the last 2 jobs of rule all failed in a row; `ncaasd release --rule all` lets the rule's jobs go on"
    }
    assert len(lab.submits()) == 2


@pytest.mark.parametrize(
    ("hold", "command"),
    [("person", "`ncaasd release one` lets it go on"), ("foreign", "`ncaasd rerun {id}` submits it under a new id")],
)
def test_a_hold_names_the_command_that_ends_it(new_lab: Callable[..., Lab], hold: str, command: str) -> None:
    other, lab = new_lab(), new_lab()
    one_job(other)
    if hold == "foreign":
        lab.server.seed(other.job().submit_key, b"somebody else's")
    lab.drop_job("one", "a.tif")
    if hold == "person":
        (lab.folder / "inputs/a.tif").unlink()
        lab.until(lab.jobs, "the job")
        lab.apply("hold", ids=("one",))
        lab.drop_inputs("a.tif")
    lab.pass_time(30)
    job = lab.job()
    assert (job.state, job.hold) == (HELD, hold)
    assert job.reason.endswith(command.format(id=job.job_id))
