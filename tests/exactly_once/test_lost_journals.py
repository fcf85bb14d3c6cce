"""The journal is gone, broken, or an old copy of itself; the submit file is gone from S3: nothing is submitted again
(F18, F80, F81), and `rerun` gets a new id, once (F82)."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from support.journal_work import copy_journal
from support.rig import BUCKET, GROUP, MIB, Rig, blob

from ncaasd.adapters.journal.backups import backups_of, check_backup
from ncaasd.engine import commands
from ncaasd.model import JobState, Phase


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
    copy = back_up(rig)
    for number in range(3):
        rig.drop(f"inputs/later{number}.bin", blob(10_000 + number, 10 + number))
    rig.drop("inputs/big.bin", blob(20 * MIB, 19))
    rig.drop_job("pair", "first.bin", "later1.bin")
    rig.wait_done(6)
    rig.stop()
    ids = {j.job_id for j in rig.jobs()}

    put_back(rig, copy)
    assert len(rig.jobs()) == 1
    run_until_done(rig, 6)
    rig.check(6)
    assert {j.job_id for j in rig.jobs()} == ids
    assert len(rig.events("adopted")) == 5


def tidy(rig: Rig) -> None:
    """Somebody deletes the submit files and results of this rig's jobs in S3."""
    for job in rig.own_jobs():
        for key in [job.submit_key, *rig.bench.objects(f"results/job__{BUCKET}_{job.job_id}/")]:
            rig.bench.delete(key.removeprefix(f"{GROUP}/"))


def put_away(rig: Rig) -> None:
    """Results and status files are moved to another disk, so that nothing here tells of jobs."""
    results = os.path.join(rig.home, "results")
    for name in os.listdir(results):
        if name.startswith("job__"):
            shutil.rmtree(os.path.join(results, name))
    for folder in (rig.home, os.path.join(rig.home, "submissions")):
        for name in os.listdir(folder):
            if name.endswith(".status.json"):
                os.unlink(os.path.join(folder, name))
    shutil.rmtree(os.path.join(rig.home, "submissions", "status"), ignore_errors=True)


def back_up(rig: Rig) -> str:
    copy = os.path.join(rig.folder, "backup.sqlite")
    with rig.reading() as journal:
        copy_journal(journal, copy)
    return copy


def put_back(rig: Rig, copy: str) -> None:
    lose_journal(rig)
    os.makedirs(rig.state)
    os.rename(copy, rig.journal_path)


def drop_later(rig: Rig) -> set[str]:
    """Four recordings; their names."""
    names = {f"later{number}.bin" for number in range(4)}
    for number, name in enumerate(sorted(names)):
        rig.drop(f"inputs/{name}", blob(10_000 + number, 10 + number))
    return names


def held_ones(rig: Rig) -> set[str]:
    return {j.spec.unit for j in rig.jobs() if j.state is JobState.HELD and j.hold == "rebuilt"}


def done_with(rig: Rig, unit: str) -> bool:
    return any(j.spec.unit == unit and j.state is JobState.DONE for j in rig.jobs())


@pytest.mark.parametrize("kept", [True, False], ids=["results-kept", "results-put-away"])
@pytest.mark.parametrize("prefix", [None, "other/"], ids=["as-it-was", "prefix-edited"])
def test_F100_an_old_copy_of_the_journal_after_s3_was_tidied(rig: Rig, prefix: str | None, kept: bool) -> None:
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_done(1)
    copy = back_up(rig)
    later = drop_later(rig)
    rig.wait_done(5)
    rig.stop()
    tidy(rig)
    before = rig.submits()
    if not kept:
        put_away(rig)
    put_back(rig, copy)
    if prefix:
        rig.configure({"upload": {"prefix": prefix}})

    rig.start(command=False)
    rig.wait_for(lambda: held_ones(rig) == later, "the four to be held")
    rig.drop("inputs/new.bin", blob(6_000, 21))  # a recording that comes later goes on by itself
    rig.wait_for(lambda: done_with(rig, "new.bin"), "the new one to be done")
    rig.stop()
    assert rig.submits() == before | {rig.job("new.bin").submit_key: 1}
    (said,) = rig.events("behind")
    assert "older than what this rig has submitted (journal: 1 submits, S3: 5)" in said.text
    assert "ncaasd release" in said.text

    rig.start(command=False)  # and it is no old copy any more
    rig.drop("inputs/newer.bin", blob(6_000, 22))
    rig.wait_for(lambda: done_with(rig, "newer.bin"), "the newer one to be done")
    rig.stop()
    assert len(rig.events("behind")) == 1 and held_ones(rig) == later


def test_F100_a_backup_that_the_daemon_made_is_put_back_after_s3_was_tidied(rig: Rig) -> None:
    """As docs/journal.md tells: stop, copy, start; look, and release what is to run again."""
    rig.drop_config()
    rig.drop_rule()
    rig.drop("inputs/first.bin", blob(10_000, 1))
    rig.start(command=False)
    rig.wait_done(1)
    rig.stop()
    rig.process = rig.bench.spawner.call(
        "support.work:daemon_soon", rig.config, log=rig.log, env=rig.bench.sandbox.environment()
    )
    rig.wait_for(lambda: rig.events("backup"), "the backup that the night has missed")
    later = drop_later(rig)
    rig.wait_done(5)
    rig.stop()
    tidy(rig)
    put_away(rig)
    before = rig.submits()

    (backup,) = backups_of(rig.journal_path)
    assert check_backup(backup) == ""
    os.mkdir(os.path.join(rig.state, "aside"))
    for name in os.listdir(rig.state):
        if name.startswith("journal.sqlite"):
            os.rename(os.path.join(rig.state, name), os.path.join(rig.state, "aside", name))
    shutil.copy(backup.path, rig.journal_path)
    assert [j.spec.unit for j in rig.jobs()] == ["first.bin"]

    rig.start(command=False)
    rig.wait_for(lambda: held_ones(rig) == later, "the four to be held")
    rig.drop("inputs/new.bin", blob(6_000, 21))
    rig.wait_for(lambda: done_with(rig, "new.bin"), "the new one to be done")
    rig.stop()
    assert rig.submits() == before | {rig.job("new.bin").submit_key: 1}, "nothing is submitted twice"
    (said,) = rig.events("behind")
    assert "older than what this rig has submitted (journal: 1 submits, S3: 5)" in said.text
    assert [b.path for b in backups_of(rig.journal_path)] == [backup.path], "and it is still there"

    operate(
        rig, "release", ids=("later0.bin",)
    )  # a person knows that its results are lost, and those of the others are not
    rig.start(command=False)
    rig.wait_for(lambda: done_with(rig, "later0.bin"), "the one that was released")
    rig.stop()
    assert held_ones(rig) == later - {"later0.bin"}
    assert sum(rig.submits().values()) == sum(before.values()) + 2


def test_F100_a_new_journal_on_a_host_that_was_renamed(rig: Rig) -> None:
    rig.configure({"rig": None})
    rig.drop_config()
    rig.drop_rule()
    rig.start(host="scope-pc")
    later = drop_later(rig)
    rig.wait_done(4)
    name = (rig.live() or {})["rig"]
    rig.stop()
    assert name.startswith("scope-pc-")
    with open(os.path.join(rig.root, ".ncaasd-rig"), encoding="utf-8") as file:
        assert f"rig: {name}\n" in file.read()
    tidy(rig)
    put_away(rig)
    lose_journal(rig)
    before = rig.submits()
    rig.start(host="new-pc")
    rig.wait_for(lambda: held_ones(rig) == later, "the four to be held")
    assert (rig.live() or {})["rig"] == name
    rig.stop()
    assert rig.submits() == before


def test_F100_a_rig_of_before_it_had_a_name_keeps_its_hosts(rig: Rig) -> None:
    """An older version marked S3 under the host's name, and its journal is lost just when the new version comes."""
    host = f"old-pc-{rig.name}"
    rig.configure({"rig": None})
    rig.bench.put(f"submissions/.ncaasd/{host}", b"rig\n")
    rig.drop_config()
    rig.drop_rule()
    later = drop_later(rig)
    rig.start(host=host)
    rig.wait_for(lambda: held_ones(rig) == later, "the four to be held")
    rig.stop()
    assert not rig.submits()


def test_F100_a_root_without_its_file_gets_the_state_s_name(rig: Rig) -> None:
    """A new disk, or an upgrade; a read-only root is said, and nothing else is made of it."""
    rig.configure({"rig": None})
    path = os.path.join(rig.root, ".ncaasd-rig")
    rig.start(host="scope-pc")
    rig.wait_for(lambda: os.path.exists(path), "the root's file")
    rig.wait_for(lambda: rig.events("opened"), "the opening")
    rig.stop()
    with open(path, encoding="utf-8") as file:
        text = file.read()
    os.unlink(path)
    rig.start(host="new-pc")
    rig.wait_for(lambda: len(rig.events("opened")) == 2, "the second opening")
    rig.stop()
    with open(path, encoding="utf-8") as file:
        assert file.read() == text
    assert not rig.events("behind")
    with open(path, "w", encoding="utf-8") as file:
        file.write("rig: another-rig\n")  # this state is put beside another rig's root
    rig.start(host="new-pc")
    rig.wait_for(lambda: rig.events("behind"), "it to be said")
    rig.wait_for(lambda: len(rig.events("opened")) == 3, "the third opening")
    assert (rig.live() or {})["rig"] == "another-rig"
    rig.stop()
    assert "the root is of rig another-rig" in rig.events("behind")[0].text
    with open(path, encoding="utf-8") as file:
        assert file.read() == "rig: another-rig\n"


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
