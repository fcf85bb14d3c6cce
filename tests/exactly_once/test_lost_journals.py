"""The journal is gone, broken, or an old copy of itself; the submit file is gone from S3: nothing is submitted again
(F18, F80, F81), and `rerun` gets a new id, once (F82)."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from support.rig import BUCKET, GROUP, MIB, Rig, blob

from ncaasd.engine import commands
from ncaasd.model import JobState, Phase

pytestmark = pytest.mark.weed


def lose_journal(rig: Rig) -> None:
    shutil.rmtree(rig.state)


def operate(rig: Rig, action: str, **selection: object) -> None:
    """An operator's decision, while the daemon is down."""
    with rig.writing() as journal:
        effects = commands.apply(journal, action, commands.Selection(**selection), time.time())  # type: ignore[arg-type]
    assert any(effect.done for effect in effects), [effect.text for effect in effects]


def run_until_done(rig: Rig, jobs: int) -> None:
    rig.start(command=False)
    rig.wait_for(rig.live, "the daemon to answer")  # the journal may say "done" before it has even begun
    rig.wait_done(jobs)
    rig.stop()


def test_F18_a_journal_that_is_gone_is_rebuilt_and_nothing_is_submitted_again(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    for number in range(3):
        rig.drop(f"inputs/{number}.bin", blob(10_000 + number, number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 9))
    rig.drop_job("pair", "0.bin", "1.bin")
    run_until_done(rig, 5)
    before = {j.job_id for j in rig.jobs()}
    rig.drop("inputs/old.bin", blob(5_000, 20))  # it was there when the journal was lost, and S3 has no trace of it
    lose_journal(rig)

    rig.start(command=False)
    rig.wait_for(lambda: _states(rig) == {JobState.DONE: 5, JobState.HELD: 1}, "all but one to be found again")
    assert {j.job_id for j in rig.jobs() if j.state is JobState.DONE} == before
    assert len(rig.events("adopted")) == 5 and not rig.events("submitted")
    held = rig.job("old.bin")
    assert (held.hold, held.phase) == ("rebuilt", Phase.INTENT)
    assert held.submit_key not in rig.submits()

    rig.drop("inputs/new.bin", blob(6_000, 21))  # later recordings are new for sure
    rig.wait_for(lambda: _states(rig) == {JobState.DONE: 6, JobState.HELD: 1}, "the new recording's job to be done")
    rig.stop()
    rig.check_inputs()

    operate(rig, "release", ids=("old.bin",))
    run_until_done(rig, 7)
    rig.check(7)


def test_F18_the_journal_is_lost_in_the_middle_of_everything(rig: Rig) -> None:
    """Files half sent, jobs just submitted: what S3 has is adopted; what it lacks is held, and done when released."""
    rig.drop_config()
    rig.drop_rule()
    for number in range(8):
        rig.drop(f"inputs/{number}.bin", blob(10_000 + number, number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 9))
    rig.start("submit.put:4", command=False)
    rig.crashes()
    lose_journal(rig)
    rig.start(command=False)

    def decided() -> bool:
        states = _states(rig)
        return states.get(JobState.DONE, 0) + states.get(JobState.HELD, 0) == 9

    rig.wait_for(decided, "every job to be done or held")
    rig.stop()
    assert _states(rig)[JobState.DONE] >= 4, "those that were submitted"
    operate(rig, "release", rule="all")
    run_until_done(rig, 9)
    rig.check(9)


def test_F18_a_corrupt_journal_is_refused_with_what_to_do(rig: Rig) -> None:
    """tests/journal has more ways of being corrupt."""
    rig.drop_config()
    rig.drop_rule()
    for number in range(5):
        rig.drop(f"inputs/{number}.bin", blob(1_000 + number, number))
    run_until_done(rig, 5)
    size = os.path.getsize(rig.journal_path)
    with open(rig.journal_path, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(os.urandom(40_000))
    before = len(rig.said())
    rig.start()
    assert rig.dies() not in (0, -9)
    said = rig.said()[before:]
    assert "journal" in said and "move it aside" in said
    assert "Traceback" not in said

    os.rename(rig.journal_path, rig.journal_path + ".broken")
    run_until_done(rig, 5)
    rig.check(5)
    assert not rig.events("submitted")


def test_F81_an_old_copy_of_the_journal_adopts_what_s3_has(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_done(1)
    copy = os.path.join(rig.folder, "backup.sqlite")
    with rig.reading() as journal:
        journal.backup(copy)
    for number in range(3):
        rig.drop(f"inputs/later{number}.bin", blob(10_000 + number, 10 + number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 19))
    rig.drop_job("pair", "first.bin", "later1.bin")
    rig.wait_done(6)
    rig.stop()
    ids = {j.job_id for j in rig.jobs()}

    lose_journal(rig)
    os.makedirs(rig.state)
    os.rename(copy, rig.journal_path)
    assert len(rig.jobs()) == 1
    run_until_done(rig, 6)
    rig.check(6)
    assert {j.job_id for j in rig.jobs()} == ids
    assert len(rig.events("adopted")) == 5


def test_F82_a_rerun_gets_a_new_id_once(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    run_until_done(rig, 1)
    operate(rig, "rerun", ids=("a.bin",))
    rig.start("submit.put:1", command=False)  # and it is killed in the middle, too
    rig.crashes()
    run_until_done(rig, 2)
    rig.check(2)
    assert [(j.attempt, j.state) for j in rig.jobs()] == [(0, JobState.DONE), (1, JobState.DONE)]


def test_F82_a_rerun_after_the_journal_was_lost(rig: Rig) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    run_until_done(rig, 1)
    operate(rig, "rerun", ids=("a.bin",))
    run_until_done(rig, 2)
    ids = [j.job_id for j in rig.jobs()]
    lose_journal(rig)
    run_until_done(rig, 1)
    assert [j.job_id for j in rig.jobs()] == ids[-1:], "the latest attempt is the one that is found"
    operate(rig, "rerun", ids=("a.bin",))
    run_until_done(rig, 2)
    new = {j.job_id for j in rig.jobs()} - set(ids)
    assert len(new) == 1
    assert rig.submits() == {f"{GROUP}/submissions/{i}-submit.json": 1 for i in (*ids, *new)}


def test_F80_a_submit_file_deleted_in_s3_is_not_put_again(rig: Rig) -> None:
    """Deleted while its job runs, and after it: by somebody who tidies up."""
    rig.drop_config(__sandbox__={"scenario": "slow-analysis", "seconds": 4})
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_for(lambda: rig.jobs() and rig.job().state is JobState.RUNNING, "the job to run")
    key = rig.job().submit_key
    rig.bench.delete(key.removeprefix(f"{GROUP}/"))
    rig.kill()
    rig.start(command=False)
    rig.wait_done(1)
    rig.kill()
    run_until_done(rig, 1)
    lose_journal(rig)
    rig.bench.delete(key.removeprefix(f"{GROUP}/"))
    run_until_done(rig, 1)
    rig.check(1)


def test_F80_a_submit_file_deleted_before_any_sign_of_life(rig: Rig) -> None:
    """No certificate, no job folder, and the submit file is gone: the journal knows that it was put."""
    rig.drop_config(__sandbox__="no-certificate")
    rig.drop_rule()
    rig.drop("inputs/a.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_for(lambda: rig.jobs() and rig.job().phase is Phase.SUBMITTED, "the submit")
    rig.bench.delete(rig.job().submit_key.removeprefix(f"{GROUP}/"))
    looks = rig.job().next_at
    rig.wait_for(lambda: rig.job().next_at > looks + 1, "some looks at it")
    rig.kill()
    rig.start(command=False)
    rig.wait_for(lambda: rig.job().next_at > looks + 3, "some more looks at it")
    rig.stop()
    assert rig.job().phase is Phase.SUBMITTED
    rig.check_submits(1)
    assert rig.bench.objects(f"results/job__{BUCKET}_{rig.job().job_id}/") == {}


def _states(rig: Rig) -> dict[JobState, int]:
    jobs = rig.jobs()
    states = [
        JobState.RUNNING if j.phase is not Phase.ENDED and j.state is not JobState.HELD else j.state for j in jobs
    ]
    return {state: states.count(state) for state in set(states)}
