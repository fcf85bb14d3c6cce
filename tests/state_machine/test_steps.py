"""Each safety step of submit-once by itself: what goes wrong without it. docs/exactly-once.md lists them, and
tests/mutations.py removes them one at a time to see these tests fail."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.memory_store import Fault, MemoryStore
from state_machine.inline_rig import BUCKET, GROUP, InlineRig, ServerClock, VirtualClock

from ncaasd.engine import commands
from ncaasd.errors import Unreachable
from ncaasd.model import FileState, JobRow, JobState, Phase
from ncaasd.neurocaas.naming import safe_key

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

    def another(self, name: str, more: str = CONFIG) -> InlineRig:
        return InlineRig(name, str(self.base / "root"), str(self.base), self.server, self.clock, more)

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
    commands.apply(setting.rig.journal, "rerun", commands.Selection(ids=("one",)), setting.clock.now())
    setting.until(lambda: len(setting.submits()) == 3, "one more submit")
    assert set(setting.submits().values()) == {1}


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
