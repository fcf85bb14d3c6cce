"""Each safety step of submit-once by itself: what goes wrong without it. docs/exactly-once.md lists them, and
tests/mutations.py removes them one at a time to see these tests fail."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.memory_store import Fault, MemoryStore
from state_machine.inline_rig import BUCKET, GROUP, InlineRig, ServerClock, VirtualClock

from ncaasd.engine import commands
from ncaasd.errors import Busy, LocalError, Unreachable
from ncaasd.model import FileState, JobRow, JobState, Phase
from ncaasd.neurocaas.naming import safe_key

NO_CAPACITY = (
    "[Job Manager] STEP 1/4 (Initialization): DONE\n[Job Manager] STEP 2/4 (Validation): DONE\n"
    "[Job Manager] STEP 3/4 (Environment Setup): DONE\n"
    "[Job Manager] STEP 4/4 (Initialize Processing): AWS ERROR. {'Code': 'InsufficientInstanceCapacity'}\n"
    "[Job Manager] Shutting down job.\n"
)
CONFIG = "watch: {settle: 1s, rescan: 1s, min_free: 0}\njobs: {poll: {min: 1s, max: 4s}}\n"


class Setting:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.clock = VirtualClock(time.time())
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.folder = base / "root" / BUCKET
        for area in ("inputs", "configs", "submissions", "results"):
            (self.folder / area).mkdir(parents=True)
        (self.folder / "configs/c.yaml").write_text("fr: 30\n")
        self.rig = self.another("rig-a")

    def another(self, name: str, more: str = CONFIG, *, host: str = "") -> InlineRig:
        return InlineRig(name, str(self.base / "root"), str(self.base), self.server, self.clock, more, host=host)

    def ask(self, name: str, *datasets: str) -> None:
        for dataset in datasets:
            path = self.folder / "inputs" / dataset
            if not path.exists():
                path.write_bytes(b"data of " + dataset.encode())
        text = {"jobs": [{"name": name, "datasets": list(datasets), "config": "c.yaml"}]}
        (self.folder / f"submissions/{name}.yaml").write_text(json.dumps(text))

    def turns(self, count: int = 12, rig: InlineRig | None = None) -> None:
        for _ in range(count):
            (rig or self.rig).turn()
            self.clock.sleep(0.6)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        for _ in range(60):
            self.rig.turn()
            if condition():
                return
            self.clock.sleep(0.6)
        jobs = [(j.spec.name, j.attempt, j.phase, j.state, j.reason) for j in self.rig.journal.jobs()]
        raise AssertionError(f"in vain for {what}: {jobs}")

    def job(self, attempt: int = 0) -> JobRow:
        return next(j for j in self.rig.journal.jobs() if j.attempt == attempt)

    def submits(self) -> dict[str, int]:
        return {k: n for k, n in self.server.created_keys().items() if k.endswith("submit.json")}

    def run(self, attempt: int = 0) -> None:
        """Submitted, run, ended, fetched."""
        self.until(lambda: submitted(self, attempt), "the submit")
        self.finish(self.job(attempt))
        self.until(lambda: self.job(attempt).phase is Phase.ENDED, "the end")

    def tidy(self, *, marks: bool = False, here: bool = True) -> None:
        """Somebody deletes the submit files and results in S3; perhaps the rig's marks too, and what is `here` of them."""
        for key in [*self.server.keys()]:
            if key.endswith("submit.json") or "/results/" in key or (marks and "/.ncaasd/" in key):
                self.server.remove(key)
        if here:
            shutil.rmtree(self.folder / "results")
            for path in [*self.folder.glob("*.status.json"), *self.folder.glob("submissions/*.status.json")]:
                path.unlink()
            shutil.rmtree(self.folder / "submissions/status", ignore_errors=True)

    def restore(self) -> None:
        self.rig.lose_journal(restore=True)

    def finish(self, job: JobRow) -> None:
        """The platform runs it, well."""
        folder = f"{GROUP}/results/job__{BUCKET}_{job.job_id}/"
        steps = ("Initialization", "Validation", "Environment Setup", "Initialize Processing")
        text = "\n".join(f"[Job Manager] STEP {n}/4 ({w}): DONE" for n, w in enumerate(steps, 1))
        self.server.seed(folder + "logs/certificate.txt", text.encode())
        for dataset in job.spec.datasets:
            base = dataset.key.rpartition("/")[2]
            status = json.dumps({"status": "SUCCESS", "reason": 0, "input": dataset.key, "std": {}})
            self.server.seed(f"{folder}logs/DATASET_NAME:{base}_STATUS.txt", status.encode())
        self.server.seed(folder + "process_results/out.bin", b"results")
        self.server.seed(folder + "process_results/end.txt", b"end of analysis marker")


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    yield made
    made.rig.kill()


def kill_at(setting: Setting, op: str) -> None:
    """The daemon is killed when a submit file has been `op`ed: applied, its answer unread."""

    def killed(_key: str) -> None:
        setting.rig.fuse.left = 0

    setting.server.faults.append(Fault(op, lambda k: k.endswith("submit.json"), before=killed))


def submitted(setting: Setting, attempt: int = 0) -> bool:
    return any(j.attempt == attempt and j.phase is Phase.SUBMITTED for j in setting.rig.journal.jobs())


def test_F03_a_submit_whose_answer_was_lost_is_adopted(setting: Setting) -> None:
    setting.server.faults.append(Fault("put", lambda k: k.endswith("submit.json"), lost=True))
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    assert list(setting.submits().values()) == [1]


def test_F04_a_submit_that_was_answered_and_not_recorded_is_adopted(setting: Setting) -> None:
    kill_at(setting, "put")
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    assert list(setting.submits().values()) == [1]


def test_a_rerun_that_was_cut_short_keeps_its_id(setting: Setting) -> None:
    """Without the committed intent, the next start would find the id taken, and take the next: paid for twice."""
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.finish(setting.job())
    setting.until(lambda: setting.job().phase is Phase.ENDED, "the end")
    commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
    kill_at(setting, "put")
    setting.until(lambda: submitted(setting, 1), "the second submit")
    setting.turns()
    assert sorted(setting.submits().values()) == [1, 1], "one for each attempt that was asked for"


def test_a_late_put_meets_if_none_match(setting: Setting) -> None:
    """A PUT that timed out and arrives after the next one must be refused by the server itself."""
    setting.server.faults.append(Fault("put", lambda k: k.endswith("submit.json"), late=6))
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.server.flush_late()
    setting.turns()
    assert list(setting.submits().values()) == [1]


def test_a_submit_that_may_have_been_sent_long_ago_is_held(setting: Setting) -> None:
    """Without the committed attempt nobody would know that a PUT may have been on its way."""
    down = Fault("put", lambda k: k.endswith("submit.json"), times=None, error=Unreachable("reset"))
    setting.server.faults.append(down)
    setting.ask("one", "a.tif")
    setting.until(lambda: any(j.phase is Phase.ATTEMPTED for j in setting.rig.journal.jobs()), "the attempt")
    setting.rig.kill()
    setting.clock.sleep(25 * 3600.0)
    setting.server.faults.remove(down)
    setting.turns()
    assert setting.job().state is JobState.HELD and setting.job().hold == "unsure"
    assert not setting.submits()
    commands.apply(setting.rig.journal, "release", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: submitted(setting), "the submit, once a person has decided")


def test_F45_another_submit_file_of_our_name_is_held(setting: Setting) -> None:
    setting.ask("one", "a.tif")

    def somebody_else(key: str) -> None:
        setting.server.seed(key, b'{"dataname": "other"}')

    setting.server.faults.append(Fault("put", lambda k: k.endswith("submit.json"), before=somebody_else))
    setting.turns(20)
    assert setting.job().state is JobState.HELD and setting.job().hold == "foreign"
    assert list(setting.submits().values()) == [1]


@pytest.mark.parametrize("ours", [False, True], ids=["nothing-is-there", "ours-is-there"])
def test_F46_after_a_conflict_the_submit_key_is_listed_and_what_is_there_decides(setting: Setting, ours: bool) -> None:
    def conflict() -> Busy:
        if ours:
            setting.server.seed(setting.job().submit_key, setting.job().body)
        return Busy("409")

    setting.server.faults.append(Fault("put", lambda k: k.endswith("submit.json"), error=conflict))
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    assert list(setting.submits().values()) == [1]
    assert [e.kind for e in setting.rig.journal.events(limit=1000)].count("adopted") == ours


@pytest.mark.parametrize("moment", [0, 1], ids=["before-the-intent", "after-it"])
def test_F52_an_input_replaced_in_s3_is_not_submitted(setting: Setting, moment: int) -> None:
    key = f"{GROUP}/inputs/a.tif"

    def replaced(_key: str) -> None:
        setting.server.seed(key, b"other")

    setting.server.faults.append(Fault("find", lambda k: k.endswith("submit.json"), skip=moment, before=replaced))
    setting.ask("one", "a.tif")
    setting.turns(20)
    assert setting.job().state is JobState.HELD and "replaced" in setting.job().reason
    assert not setting.submits()


@pytest.mark.parametrize("intended", [False, True], ids=["before-the-intent", "after-it"])
def test_F52_what_was_replaced_and_put_back_or_put_again_goes_on(setting: Setting, intended: bool) -> None:
    """Before the intent by `rerun`, as its reason says: what is not ours any more is held first. After it by a look at S3."""
    key, ours = f"{GROUP}/inputs/a.tif", b"data of a.tif"

    def replaced(_key: str) -> None:
        setting.server.seed(key, b"other")

    if intended:
        setting.server.faults.append(Fault("find", lambda k: k.endswith("submit.json"), before=replaced))
    else:
        setting.server.faults.append(Fault("put", lambda k: "/configs/c-" in k, before=replaced))
    setting.ask("one", "a.tif")
    setting.turns(20)
    assert setting.job().hold == "replaced" and "`ncaasd rerun" in setting.job().reason
    assert setting.job().phase is (Phase.INTENT if intended else Phase.OPEN)
    if intended:
        setting.server.seed(key, ours)
    else:
        commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
        setting.turns(20)
        assert [f.place.path for f in setting.rig.journal.files(BUCKET, states=[FileState.HELD])] == ["inputs/a.tif"]
        assert setting.server.body(key) == b"other", "nothing is overwritten that nobody has released"
        commands.release_files(setting.rig.journal, ["inputs/a.tif"], setting.clock.now())
    setting.until(lambda: submitted(setting) or setting.clock.sleep(30) is not None, "the submit")
    assert setting.server.body(key) == ours
    assert list(setting.submits().values()) == [1]


def test_F52_an_input_deleted_in_s3_is_put_again_before_the_submit(setting: Setting) -> None:
    key = f"{GROUP}/inputs/a.tif"
    setting.server.faults.append(
        Fault("put", lambda k: "/configs/c-" in k, before=lambda _k: setting.server.remove(key))
    )
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting) or setting.clock.sleep(30) is not None, "the submit")
    assert setting.server.body(key) == b"data of a.tif"


def test_F59_F18_a_new_journal_adopts_what_is_there(setting: Setting) -> None:
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    first = setting.job().job_id
    setting.rig.lose_journal(restore=False)
    setting.until(lambda: submitted(setting), "the adoption")
    assert setting.job().job_id == first and list(setting.submits().values()) == [1]
    assert setting.server.sent("put") < 3 * len(b"data of a.tif") + 5000, "the data is not sent again"


def test_F18_what_left_no_trace_is_held_when_the_rig_is_known(setting: Setting) -> None:
    """The marker: this rig has been here before, so an old job without a trace may have been run and cleaned away."""
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    for key in [*setting.submits()]:
        setting.server.remove(key)
    setting.rig.lose_journal(restore=False)
    setting.turns(20)
    assert setting.job().state is JobState.HELD and setting.job().hold == "rebuilt"
    assert list(setting.submits().values()) == [1]
    setting.ask("two", "b.tif")  # a recording that came later is not held
    setting.until(
        lambda: any(j.spec.name == "two" and j.phase is Phase.SUBMITTED for j in setting.rig.journal.jobs()), "two"
    )


def test_F82_a_rerun_after_the_journal_was_lost_takes_a_new_id(setting: Setting) -> None:
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.finish(setting.job())
    setting.until(lambda: setting.job().phase is Phase.ENDED, "the end")
    for attempt in (1, 2):
        commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
        setting.until(lambda a=attempt: submitted(setting, a), "the rerun")  # type: ignore[misc]  # a bound variable
        setting.finish(setting.job(attempt))
        setting.until(lambda a=attempt: setting.job(a).phase is Phase.ENDED, "its end")  # type: ignore[misc]  # as above
    setting.rig.lose_journal(restore=False)
    setting.until(lambda: any(j.phase is Phase.ENDED for j in setting.rig.journal.jobs()), "the adoption")
    commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: len(setting.submits()) == 4, "one more submit")
    assert set(setting.submits().values()) == {1}


def test_F81_F82_a_rerun_after_an_old_journal_was_restored_takes_a_new_id(setting: Setting) -> None:
    """The journal knows of fewer attempts than S3 shows: none of those is taken again."""
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.finish(setting.job())
    setting.until(lambda: setting.job().phase is Phase.ENDED, "the end")
    setting.rig.backup()
    commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: submitted(setting, 1), "the rerun")
    setting.finish(setting.job(1))
    setting.until(lambda: setting.job(1).phase is Phase.ENDED, "its end")
    setting.rig.lose_journal(restore=True)
    setting.turns(3)  # a rerun that is asked for once the old copy is known for one is new for sure
    commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: len(setting.submits()) == 3, "one more submit")
    assert set(setting.submits().values()) == {1}


# -- F100: a journal that knows less than was done ----------------------------------------------------------------------------


def is_submit(key: str) -> bool:
    return key.endswith("submit.json")


def held_as_rebuilt(setting: Setting, attempt: int = 0) -> bool:
    job = setting.job(attempt)
    return job.state is JobState.HELD and job.hold == "rebuilt"


def test_F100_an_old_copy_of_the_journal_after_s3_was_tidied_is_held(setting: Setting) -> None:
    setting.turns(3)
    setting.rig.backup()
    setting.ask("one", "a.tif")
    setting.run()
    setting.tidy()
    setting.restore()
    setting.turns(20)
    assert held_as_rebuilt(setting) and "`ncaasd release" in setting.job().reason
    assert list(setting.submits().values()) == [1]
    said = [e.text for e in setting.rig.journal.events(limit=1000) if e.kind == "behind"]
    assert len(said) == 1 and "journal: 0 submits, S3: 1" in said[0]
    setting.ask("two", "b.tif")  # what comes later is new for sure
    setting.until(
        lambda: any(j.spec.name == "two" and j.phase is Phase.SUBMITTED for j in setting.rig.journal.jobs()), "two"
    )
    setting.rig.kill()
    setting.ask("three", "c.tif")  # the old copy is known for one, and is none any more
    setting.until(
        lambda: any(j.spec.name == "three" and j.phase is Phase.SUBMITTED for j in setting.rig.journal.jobs()), "it"
    )
    commands.apply(setting.rig.journal, "release", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: sum(setting.submits().values()) == 4, "what a person has released")


@pytest.mark.parametrize(("op", "skip"), [("put", -1), ("find", 1), ("put", 0)], ids=["open", "intended", "attempted"])
def test_F100_what_was_not_submitted_yet_when_the_copy_was_made_is_held(setting: Setting, op: str, skip: int) -> None:
    where = (lambda k: "/inputs/" in k) if skip < 0 else is_submit
    down = Fault(op, where, skip=max(skip, 0), times=None, error=Unreachable("reset"))
    setting.server.faults.append(down)
    setting.ask("one", "a.tif")
    setting.turns(8)
    phases = {("put", -1): Phase.OPEN, ("find", 1): Phase.INTENT, ("put", 0): Phase.ATTEMPTED}
    assert setting.job().phase is phases[op, skip]
    setting.rig.backup()
    setting.server.faults.remove(down)
    setting.until(lambda: submitted(setting) or setting.clock.sleep(30) is not None, "the submit")
    setting.finish(setting.job())
    setting.until(lambda: setting.job().phase is Phase.ENDED, "the end")
    setting.tidy()
    setting.restore()
    setting.turns(20)
    assert held_as_rebuilt(setting)
    assert list(setting.submits().values()) == [1]


@pytest.mark.parametrize("asked", ["before", "after"])
def test_F100_a_rerun_that_an_old_copy_knows_of_is_held(setting: Setting, asked: str) -> None:
    """It was asked for, and the copy was made; or a daemon that was down was asked for it: that can't be told apart."""
    setting.ask("one", "a.tif")
    setting.run()
    again = commands.Selection(ids=("one",))
    if asked == "before":
        commands.apply(setting.rig.journal, "rerun", again, setting.clock.now())
    setting.rig.backup()
    if asked == "after":
        commands.apply(setting.rig.journal, "rerun", again, setting.clock.now())
    setting.run(1)
    setting.tidy()
    setting.restore()
    if asked == "after":
        commands.apply(setting.rig.journal, "rerun", again, setting.clock.now())
    setting.turns(20)
    assert held_as_rebuilt(setting, 1)
    assert list(setting.submits().values()) == [1, 1]
    setting.turns(2)
    commands.apply(setting.rig.journal, "release", again, setting.clock.now())
    setting.until(lambda: sum(setting.submits().values()) == 3, "what a person has released")


def test_F100_a_retry_that_was_made_after_the_copy_is_not_made_again(setting: Setting) -> None:
    """The copy knows the first attempt as submitted, and sees now that it was refused."""
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.rig.backup()
    first = setting.job()
    setting.server.seed(f"{GROUP}/results/job__{BUCKET}_{first.job_id}/logs/certificate.txt", NO_CAPACITY.encode())
    setting.until(lambda: submitted(setting, 1) or setting.clock.sleep(120) is not None, "the second attempt")
    setting.finish(setting.job(1))
    setting.until(lambda: setting.job(1).phase is Phase.ENDED, "its end")
    second = setting.job(1).job_id
    for key in [*setting.server.keys()]:
        if second in key:
            setting.server.remove(key)
    shutil.rmtree(setting.folder / "results")
    (setting.folder / "submissions/one.status.json").unlink()
    setting.restore()
    for _ in range(40):
        setting.rig.turn()
        setting.clock.sleep(120)
    assert held_as_rebuilt(setting, 1)
    assert list(setting.submits().values()) == [1, 1]


@pytest.mark.parametrize("kept", ["results", "status"])
@pytest.mark.parametrize("lost", [False, True], ids=["old-copy", "new-journal"])
def test_F100_files_here_tell_of_jobs_when_s3_shows_nothing(setting: Setting, kept: str, lost: bool) -> None:
    """The bucket was emptied, or is another one: no mark is left."""
    setting.turns(3)
    setting.rig.backup()
    setting.ask("one", "a.tif")
    setting.run()
    setting.turns(2)
    setting.tidy(marks=True, here=False)
    if kept == "results":
        (setting.folder / "submissions/one.status.json").unlink()
    else:
        shutil.rmtree(setting.folder / "results")
    setting.rig.lose_journal(restore=not lost)
    setting.turns(20)
    assert held_as_rebuilt(setting)
    assert list(setting.submits().values()) == [1]
    setting.rig.kill()
    setting.ask("two", "b.tif")  # what files tell was heard: it is no news at the next start
    setting.until(
        lambda: any(j.spec.name == "two" and j.phase is Phase.SUBMITTED for j in setting.rig.journal.jobs()), "two"
    )


def test_F100_a_new_journal_under_another_prefix_is_no_way_round(setting: Setting) -> None:
    """The ids are others then, so S3 shows no trace of them, tidied or not."""
    setting.ask("one", "a.tif")
    setting.run()
    setting.rig.lose_journal(restore=False)
    setting.rig = setting.another("rig-a", f"{CONFIG}upload: {{prefix: other/}}\n")
    setting.turns(20)
    assert held_as_rebuilt(setting)
    assert list(setting.submits().values()) == [1]


def test_F100_results_of_others_and_garbage_are_no_sign(setting: Setting) -> None:
    results = setting.folder / "results"
    texts = {
        "1": '{"submit": null, "submit_file": ""}',  # started elsewhere
        "2": '{"submit": {}, "submit_file": "other/submissions/2-submit.json"}',  # of another group
        "3": "[" * 100_000,
        "4": '{"submit": {"a": 1}, "submit_file": 7}',
        "5": "9" * 10_000,
    }
    for job_id, text in texts.items():
        (results / f"job__{BUCKET}_{job_id}").mkdir()
        (results / f"job__{BUCKET}_{job_id}" / "job.json").write_text(text)
    (results / f"job__{BUCKET}_6").mkdir()
    (results / f"job__{BUCKET}_6" / "job.json").symlink_to("/dev/zero")
    (setting.folder / "submissions/one.status.json").write_text(
        '{"jobs": [7, {"id": [], "submitted": "x"}, {"id": "8"}]}'
    )
    (setting.folder / "manifest.status.json").mkdir()
    os.mkfifo(setting.folder / "submissions/two.status.json")
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    assert setting.rig.journal.get_meta(f"rig:{BUCKET}") == "new"


def test_F100_no_submit_without_its_mark(setting: Setting) -> None:
    """The mark is there before the submit file: an old copy of the journal would not be known for one."""
    down = setting.server.deny("put", lambda k: "/.journals/" in k)
    setting.ask("one", "a.tif")
    setting.turns(20)
    assert not setting.submits() and setting.job().phase is Phase.INTENT
    setting.server.faults.remove(down)
    setting.until(lambda: submitted(setting) or setting.clock.sleep(30) is not None, "the submit")
    ops = [op.key for op in setting.server.ops if op.name == "put" and not op.error]
    assert "/.journals/" in ops[ops.index(setting.job().submit_key) - 1]


def test_F100_only_the_newest_mark_is_left(setting: Setting) -> None:
    def marks() -> list[str]:
        return [k for k in [*setting.server.keys()] if "/.journals/" in k]

    for number, name in enumerate("abc", 1):
        setting.ask(name, f"{name}.tif")
        setting.until(lambda n=number: len(setting.submits()) == n, "the submit")  # type: ignore[misc]  # a bound variable
        setting.turns(2)
        assert [k[-12:] for k in marks()] == [f"{number:012d}"]
    denied = setting.server.deny("delete")
    setting.ask("d", "d.tif")
    setting.until(lambda: len(setting.submits()) == 4, "the submit")
    setting.turns(2)
    assert len(marks()) == 2
    setting.server.faults.remove(denied)
    setting.rig.kill()
    setting.turns(4)
    assert [k[-12:] for k in marks()] == [f"{4:012d}"], "what was left is removed at the next start"


def test_F100_a_kill_while_an_old_copy_is_judged_leaves_it_an_old_copy(setting: Setting) -> None:
    for after in range(14):
        case = Setting(setting.base / str(after))
        case.turns(3)
        case.rig.backup()
        case.ask("one", "a.tif")
        case.run()
        case.tidy()
        case.restore()
        case.rig.fuse.left = after
        case.turns(1)
        case.rig.fuse.left = None
        case.rig.kill()
        case.turns(20)
        assert held_as_rebuilt(case), after
        assert list(case.submits().values()) == [1]
        case.rig.kill()


def test_F100_a_kill_at_any_moment_makes_no_old_copy_of_a_journal(setting: Setting) -> None:
    """Every step of a submit, and of the next start: the journal knows of at least as many as S3 shows."""
    for after in range(40):
        case = Setting(setting.base / str(after))
        case.turns(3)
        case.ask("one", "a.tif")
        case.rig.fuse.left = after
        case.turns(10)
        case.rig.fuse.left = None
        case.rig.kill()
        case.ask("two", "b.tif")
        case.until(lambda c=case: len(c.submits()) == 2, "both")  # type: ignore[misc]  # a bound variable
        kinds = {e.kind for e in case.rig.journal.events(limit=1000)}
        assert not kinds & {"behind", "rebuilt", "held"}, after
        case.rig.kill()


def test_F100_another_journal_of_this_rig_has_worked_meanwhile(setting: Setting) -> None:
    """The disk of this journal was away, its rig went on with a new one: that is the same, S3 tidied or not."""
    setting.ask("one", "a.tif")
    setting.run()
    setting.rig.backup()
    setting.rig.lose_journal(restore=False)
    setting.turns(4)
    setting.ask("two", "b.tif")
    setting.until(lambda: len(setting.submits()) == 2, "the new journal's submit")
    setting.tidy()
    setting.restore()
    setting.turns(20)
    held = [j.spec.name for j in setting.rig.journal.jobs() if j.hold == "rebuilt"]
    assert held == ["two"] and set(setting.submits().values()) == {1}


@pytest.mark.parametrize("packed", [False, True], ids=["of-a-source", "packed"])
def test_F18_what_a_new_journal_finds_late_was_there_before(setting: Setting, tmp_path: Path, packed: bool) -> None:
    """A source's files are met after the root's, and a package is made of what was found: neither is a new recording."""
    source = tmp_path / "acquisition"
    (source / "m7").mkdir(parents=True)
    for name in ("a.tif", "b.tif"):
        (source / "m7" / name).write_bytes(b"frames of " + name.encode())
    rule = "{name: r, datasets: '*.tif', unit: '{animal}', package: zip, source: acq, config: c.yaml}"
    if not packed:
        rule = "{name: r, datasets: 'm7/a.tif', source: acq, config: c.yaml}"
    (setting.folder / "manifest.yaml").write_text(f"rules: [{rule}]\n")
    setting.rig = setting.another("rig-s", f"{CONFIG}sources: {{acq: {source}}}\n")
    setting.run()
    setting.tidy()
    setting.rig.lose_journal(restore=False)
    setting.turns(40)
    assert held_as_rebuilt(setting)
    assert list(setting.submits().values()) == [1]


# -- F100: a rig that the config gives no name -----------------------------------------------------------------------------


@pytest.fixture
def nameless(setting: Setting) -> Setting:
    setting.rig = setting.another("nameless", host="scope-pc")
    return setting


def rig_name(setting: Setting) -> str:
    assert setting.rig.engine is not None
    return setting.rig.engine.runtime.rig


@pytest.mark.parametrize("lost", ["journal", "root-s file"])
def test_F100_a_rig_keeps_its_name_when_its_host_is_renamed(nameless: Setting, lost: str) -> None:
    setting, mark = nameless, nameless.base / "root/.ncaasd-rig"
    setting.ask("one", "a.tif")
    setting.run()
    name = rig_name(setting)
    assert name.startswith("scope-pc-") and f"rig: {name}\n" in mark.read_text()
    setting.tidy()
    setting.rig.host = "new-pc"
    if lost == "journal":
        setting.rig.lose_journal(restore=False)
    else:
        setting.rig.kill()
        mark.unlink()
    setting.turns(20)
    assert rig_name(setting) == name and f"rig: {name}\n" in mark.read_text()
    assert list(setting.submits().values()) == [1]
    if lost == "journal":
        assert held_as_rebuilt(setting)
    else:
        setting.ask("two", "b.tif")
        setting.until(lambda: len(setting.submits()) == 2, "the next job: nothing is held for it")


def test_F100_a_journal_of_before_rigs_had_names_keeps_the_host_s(nameless: Setting) -> None:
    setting = nameless
    setting.turns(3)
    with setting.rig.journal.transaction():  # as an older version left it
        for key in ("rig", f"rigs:{BUCKET}", f"generation:{BUCKET}", f"others:{BUCKET}", f"submits:{BUCKET}"):
            setting.rig.journal._run("DELETE FROM meta WHERE key=?", key)
    (setting.base / "root/.ncaasd-rig").unlink()
    setting.rig.kill()
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    assert rig_name(setting) == "scope-pc"
    setting.rig.host = "new-pc"
    setting.rig.kill()
    setting.turns(3)
    assert rig_name(setting) == "scope-pc"


def test_F100_nothing_is_done_before_a_new_journal_can_ask_the_root(nameless: Setting) -> None:
    setting, mark = nameless, nameless.base / "root/.ncaasd-rig"
    mark.write_text("no name\n")
    setting.ask("one", "a.tif")
    setting.turns(40)
    assert not setting.server.created_keys()
    assert setting.rig.engine is not None
    (context,) = setting.rig.engine.runtime.contexts.values()
    assert ".ncaasd-rig names no rig" in context.paused and "delete the file" in context.paused
    assert mark.read_text() == "no name\n"
    mark.write_text("rig: scope-1\n")
    setting.until(lambda: submitted(setting) or setting.clock.sleep(10) is not None, "the submit")
    assert rig_name(setting) == "scope-1" and not context.paused


def test_F26_F100_nothing_is_written_where_the_root_is_not_mounted(nameless: Setting) -> None:
    setting, root = nameless, nameless.base / "root"
    setting.turns(3)
    name = rig_name(setting)
    setting.rig.kill()
    root.rename(setting.base / "unmounted")
    root.mkdir()
    setting.turns(40)
    assert [p.name for p in root.iterdir()] == [], "its mount point"
    assert rig_name(setting) == name
    root.rmdir()
    (setting.base / "unmounted").rename(root)
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting) or setting.clock.sleep(10) is not None, "the submit")
    assert setting.rig.journal.get_meta(f"rig:{BUCKET}") == "new"


def test_F100_what_an_unmounted_root_would_have_told_is_judged_when_it_is_back(setting: Setting) -> None:
    """S3 was emptied, and the root is away when the old copy starts: its files are asked before anything of it is submitted."""
    setting.turns(3)
    setting.rig.backup()
    setting.ask("one", "a.tif")
    setting.run()
    setting.turns(2)
    setting.tidy(marks=True, here=False)
    setting.restore()
    root = setting.base / "root"
    root.rename(setting.base / "unmounted")
    setting.turns(40)
    (setting.base / "unmounted").rename(root)
    setting.turns(60)
    assert held_as_rebuilt(setting)
    assert list(setting.submits().values()) == [1]


def test_F100_a_root_that_takes_no_file_is_said_once(nameless: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: object, _rig: str) -> str:
        raise LocalError("it is read-only", hint="remount it for writing")

    setting = nameless
    monkeypatch.setattr("ncaasd.adapters.files.rigfile.LocalRigFile.write", refuse)
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    said = [e.text for e in setting.rig.journal.events(limit=1000) if e.kind == "rig"]
    assert len(said) == 1 and "only the state folder knows this rig's name" in said[0]
    name = rig_name(setting)
    setting.rig.kill()
    setting.turns(3)
    assert rig_name(setting) == name


def test_F100_a_journal_of_another_root_is_said_and_the_root_s_name_counts(nameless: Setting) -> None:
    setting, mark = nameless, nameless.base / "root/.ncaasd-rig"
    setting.turns(3)
    setting.rig.kill()
    mark.write_text("rig: rig-b\n")
    setting.ask("one", "a.tif")
    setting.turns(20)
    assert rig_name(setting) == "rig-b" and held_as_rebuilt(setting) and not setting.submits()
    said = [e.text for e in setting.rig.journal.events(limit=1000) if e.kind == "behind"]
    assert len(said) == 1 and "the root is of rig rig-b" in said[0]
    setting.rig.kill()
    setting.ask("two", "b.tif")
    setting.until(lambda: len(setting.submits()) == 1, "it is this root's from now on")
    assert rig_name(setting) == "rig-b"


def test_F100_an_edited_rig_s_name_makes_no_old_copy(setting: Setting) -> None:
    setting.ask("one", "a.tif")
    setting.run()
    state = setting.rig.journal_path
    setting.server.seed(f"{GROUP}/submissions/.ncaasd/.journals/rig-z/{'e' * 16}.000000000009", b"another rig's")
    for name in ("rig-z", "rig-a"):
        setting.rig.kill()
        setting.rig = setting.another(name)
        setting.rig.journal_path = state
        setting.ask(name, f"{name}.tif")
        setting.until(
            lambda n=name: any(j.spec.name == n and j.job_id for j in setting.rig.journal.jobs()), "its submit"
        )  # type: ignore[misc]  # a bound variable
        assert not [e for e in setting.rig.journal.events(limit=1000) if e.kind == "behind"]


def test_F51_an_endpoint_that_ignores_if_none_match_gets_no_submit(setting: Setting) -> None:
    honest = setting.server.put

    def careless(key: str, body: bytes, **options: object) -> object:
        options["only_if_absent"] = False
        return honest(key, body, **options)  # type: ignore[arg-type]  # passed on as they came

    setting.server.put = careless  # type: ignore[method-assign,assignment]  # a server that ignores the header
    setting.ask("one", "a.tif")
    setting.turns(20)
    assert "If-None-Match" in setting.job().reason and not setting.submits()


def test_F86_a_new_version_waits_until_the_job_that_uses_it_has_ended(setting: Setting) -> None:
    setting.ask("one", "a.tif")
    setting.until(lambda: submitted(setting), "the submit")
    key = f"{GROUP}/inputs/a.tif"
    (setting.folder / "inputs/a.tif").write_bytes(b"changed")
    setting.turns(20)
    assert setting.server.body(key) == b"data of a.tif", "the job may still be reading it"
    row = next(r for r in setting.rig.journal.files(BUCKET, under="inputs/"))
    assert row.state is FileState.WHOLE and setting.job().job_id in row.reason
    setting.finish(setting.job())
    setting.until(lambda: setting.server.body(key) == b"changed", "the new version")
    assert len(setting.submits()) == 1, "and no new job (F36)"


def test_F95_what_somebody_else_put_is_never_overwritten(setting: Setting) -> None:
    key = f"{GROUP}/inputs/a.tif"
    setting.server.seed(key, b"another rig's")
    setting.ask("one", "a.tif")
    setting.turns(20)
    row = next(r for r in setting.rig.journal.files(BUCKET, under="inputs/"))
    assert row.state is FileState.HELD and "upload.prefix" in row.reason
    assert setting.server.body(key) == b"another rig's" and not setting.submits()


def test_F77_two_daemons_on_one_folder_submit_once(setting: Setting) -> None:
    other = setting.another("rig-b")
    setting.ask("one", "a.tif")
    for _ in range(20):
        setting.rig.turn()
        other.turn()
        setting.clock.sleep(0.6)
    assert list(setting.submits().values()) == [1]
    assert [j.phase for j in other.journal.jobs()] == [Phase.SUBMITTED] == [j.phase for j in setting.rig.journal.jobs()]
    other.kill()


def test_two_declarations_of_one_job_are_one_job(setting: Setting) -> None:
    """A hand-written submit under a rule's name, of the same data: the ids are equal, so is the job."""
    setting.ask("one", "d e.tif")
    setting.until(lambda: submitted(setting), "the submit")
    submit = {
        "dataname": f"{GROUP}/inputs/{safe_key('d e.tif')}",
        "configname": f"{GROUP}/configs/c.yaml",
        "timestamp": "one",
    }
    (setting.folder / "submissions/mine-submit.json").write_text(json.dumps(submit))
    setting.turns(20)
    second = next(j for j in setting.rig.journal.jobs() if j.spec.declared_in == "submissions/mine-submit.json")
    assert second.state is JobState.HELD and "submissions/one.yaml" in second.reason
    assert list(setting.submits().values()) == [1]


@pytest.mark.parametrize("order", [("a.tif", "b.tif"), ("b.tif", "a.tif")])
def test_F87_the_same_manifest_dropped_again_makes_no_job(setting: Setting, order: tuple[str, ...]) -> None:
    setting.ask("one", "a.tif", "b.tif")
    setting.until(lambda: submitted(setting), "the submit")
    setting.finish(setting.job())
    setting.until(lambda: setting.job().phase is Phase.ENDED, "the end")
    os.unlink(setting.folder / "submissions/one.yaml")
    setting.turns(6)
    setting.ask("one", *order)
    setting.turns(20)
    assert list(setting.submits().values()) == [1]
