"""What following jobs costs: requests, and when they are sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from engine.lab import HOUR, LAUNCHED, Lab, done
from state_machine.inline_rig import BUCKET, GROUP

from ncaasd.engine.following.looking import LOG_LIMIT, look
from ncaasd.model import JobState, Phase

RUNNING = JobState.RUNNING


def running(lab: Lab, count: int = 1) -> None:
    for number in range(count):
        lab.drop_job(f"job{number}", f"{number}.tif")
    lab.until(lambda: sum(j.phase is Phase.SUBMITTED for j in lab.jobs()) == count, "the submits", step=5)
    for job in lab.jobs():
        lab.launch(job)
        lab.status(job, job.spec.datasets[0].name, "IN PROGRESS")
    lab.until(lambda: set(lab.states()) == {"running"}, "the run", step=15)


def about_jobs(lab: Lab) -> Counter[str]:
    """The requests about job folders since the last time."""
    found = Counter(op.name for op in lab.server.ops if "/results/" in op.key)
    lab.server.ops.clear()
    return found


def test_a_poll_is_one_listing_and_nothing_else_while_nothing_changes(new_lab: Callable[..., Lab]) -> None:
    lab = new_lab(jobs={"poll": {"min": "1m", "max": "1m"}})
    running(lab, 3)
    lab.pass_time(120, step=5)
    about_jobs(lab)
    lab.pass_time(20 * 60, step=5)
    requests = about_jobs(lab)
    assert set(requests) == {"list"}
    assert 3 * 18 <= requests["list"] <= 3 * 20, "one listing an active job and minute"


def test_only_what_has_changed_is_read(lab: Lab) -> None:
    running(lab)
    job = lab.job()
    lab.pass_time(10 * 60, step=15)
    about_jobs(lab)
    lab.status(job, "0.tif", "IN PROGRESS", std={"0": "a line\n"})
    lab.pass_time(10 * 60, step=15)
    assert about_jobs(lab)["read"] == 1
    assert b"a line" in lab.result(job, "logs/DATASET_NAME:0.tif_STATUS.txt")


def test_an_end_marker_is_read_once(lab: Lab) -> None:
    running(lab)
    lab.put(lab.job(), "process_results/end.txt", b"end file.\n")  # a worker's own: it ends nothing
    lab.pass_time(15 * 60, step=15)
    about_jobs(lab)
    lab.pass_time(10 * 60, step=15)
    assert about_jobs(lab)["read"] == 0


def test_an_ended_job_is_not_looked_at_any_more(lab: Lab) -> None:
    running(lab)
    lab.succeed(lab.job())
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=15)
    lab.pass_time(60, step=5)
    about_jobs(lab)
    lab.pass_time(5 * HOUR, step=60)
    assert about_jobs(lab) == {}


def test_many_jobs_are_not_looked_at_together(new_lab: Callable[..., Lab]) -> None:
    """Their appointments spread over the interval, though they were submitted in one go."""
    lab = new_lab(jobs={"max_active": 1000, "max_per_day": 1000, "ask_above": 1000})
    lab.drop("submissions/all.yaml", json.dumps({"jobs": [job_of(n) for n in range(100)]}))
    lab.drop_inputs("a.tif")
    lab.until(lambda: sum(j.phase is Phase.SUBMITTED for j in lab.jobs()) == 100, "the submits")
    spread = iter(range(10_000))
    assert lab.rig.engine is not None
    lab.rig.engine.runtime.spread = lambda: (next(spread) * 0.618) % 1
    for job in lab.jobs():
        lab.launch(job)
    lab.pass_time(40, step=1)
    due = sorted(j.next_at - lab.clock.now() for j in lab.jobs())
    assert due[-1] - due[0] > 1.4
    assert len({round(d, 2) for d in due}) > 30


def job_of(number: int) -> dict[str, object]:
    return {"name": f"job{number}", "datasets": ["a.tif"], "config": "c.yaml"}


def test_F63_a_status_file_read_while_it_is_written_is_read_again(lab: Lab) -> None:
    running(lab)
    lab.put(lab.job(), "logs/DATASET_NAME:0.tif_STATUS.txt", b'{"status": "FAI')
    lab.pass_time(6 * 60, step=15)
    assert lab.job().state is RUNNING
    lab.status(lab.job(), "0.tif", "FAILED", std={"0": "ValueError: no such frame\n"})
    lab.put(lab.job(), "process_results/end.txt", b"end of analysis marker")
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=15)
    assert lab.job().reason == "1 of 1 dataset failed: 0.tif: ValueError: no such frame"


def test_F63_results_that_come_after_the_end_marker_are_fetched(lab: Lab) -> None:
    running(lab)
    lab.succeed(lab.job())
    lab.until(lambda: lab.job().verdict is JobState.DONE, "the verdict", step=5)
    lab.put(lab.job(), "process_results/late.bin", b"late")
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=5)
    assert lab.result(lab.job(), "process_results/late.bin") == b"late"


def test_a_log_that_grew_beyond_reason_does_not_stop_the_watching(lab: Lab) -> None:
    running(lab)
    assert lab.rig.engine is not None
    context = lab.rig.engine.runtime.contexts[BUCKET]
    lab.put(lab.job(), "logs/core.dump", bytes(LOG_LIMIT + 1))
    snapshot = look(lab.job(), context.layout, context.store_for, {}, timeout=1e6)
    assert "logs/core.dump" in {seen.name for seen in snapshot.objects}
    assert "logs/core.dump" not in snapshot.texts
    assert snapshot.evidence.statuses


def test_a_job_folder_of_a_longer_id_is_not_mixed_in(lab: Lab) -> None:
    running(lab)
    other = f"{GROUP}/results/job__{BUCKET}_{lab.job().job_id}9/logs/certificate.txt"
    lab.server.seed(other, (LAUNCHED + "JOB").encode())
    lab.succeed(lab.job())
    lab.until(lambda: lab.job().phase is Phase.ENDED, "the end", step=15)
    assert lab.result(lab.job(), "logs/certificate.txt") == LAUNCHED.encode()


def test_what_a_poll_learns_is_told_in_the_same_turn(lab: Lab) -> None:
    """Within one poll of becoming visible."""
    running(lab)
    lab.certify(lab.job(), done(1, 2))
    lab.status(lab.job(), "0.tif", "FAILED", std={"0": "KeyError: 'x'\n"})
    lab.until(lambda: lab.job().finished == 1, "the look", step=1)
    assert lab.job().reason.startswith("1 of 1 dataset finished, 1 failed")
