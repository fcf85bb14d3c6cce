"""A hold's reason, `status`, `job` and the commands agree, and nothing is held where nobody sees it."""

from __future__ import annotations

from collections.abc import Callable

from engine.lab import Lab
from state_machine.inline_rig import BUCKET

from ncaasd.model import Hold, JobRow, JobState, Phase
from ncaasd.show.status import held_jobs


def shown(lab: Lab) -> list[tuple[str, str]]:
    return [(a.why, a.command) for a in held_jobs(lab.rig.journal, BUCKET)]


def same_job(lab: Lab) -> JobRow:
    """A rule that made a job of each recording makes one of each session, where that has one recording."""
    lab.drop_inputs("M7/a.tif")
    lab.drop_rule(unit="{animal}", job_per="dataset")
    lab.until(lab.submits, "the submit")
    lab.drop_rule(unit="{animal}", job_per="unit")
    lab.until(lambda: len(lab.jobs()) == 2, "the other job")
    lab.pass_time(60, step=5)
    return lab.job("M7")


def test_a_job_declared_twice_is_held_and_every_place_names_the_command_that_works(lab: Lab) -> None:
    job = same_job(lab)
    assert (job.state, job.hold) == (JobState.HELD, Hold.SAME)
    assert "declares the same job" in job.reason and "`ncaasd forget M7`" in job.reason
    assert shown(lab) == [(job.reason, f"ncaasd forget {job.row}")]
    (effect,) = lab.apply("release", ids=(f"#{job.row}",))
    assert not effect.done and "ncaasd forget" in effect.text
    lab.pass_time(600, step=15)
    assert shown(lab) == [(job.reason, f"ncaasd forget {job.row}")], "it stays in sight until somebody decides"
    (effect,) = lab.apply("forget", ids=(f"#{job.row}",))
    assert effect.done and shown(lab) == []
    assert len(lab.submits()) == 1


def test_a_job_that_is_held_once_more_after_its_release_is_still_in_sight(lab: Lab) -> None:
    lab.drop_inputs("M7/a.tif")
    lab.drop_rule(config="later.yaml")
    lab.until(lab.jobs, "the job")
    for _ in range(2):
        lab.apply("hold", rule="all")
        assert [command for _why, command in shown(lab)] == [f"ncaasd release {lab.job().row}"]
        lab.apply("release", rule="all")
        assert shown(lab) == []


def test_what_a_command_says_of_a_job_that_its_rule_holds_for_a_while(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"max_per_day": 1})
    lab.drop_inputs("a.tif", "b.tif")
    lab.drop_rule()
    lab.until(lambda: "held" in lab.states(), "the guard", step=5)
    job = next(j for j in lab.jobs() if j.phase is Phase.OPEN)
    (effect,) = lab.apply("release", ids=(f"#{job.row}",))
    assert not effect.done and "jobs.max_per_day is 1" in effect.text
