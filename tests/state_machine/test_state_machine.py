"""Planner, journal, adapters and engine together, over a store that loses, delays and duplicates answers.

Invariants after each step: at most one ObjectCreated per submit key, but where a person released a job whose traces were
tidied away; what was submitted was whole and in S3. In the end, with the faults off: everything that was asked for is done,
with the right bytes.

NCAASD_EXAMPLES sets how many examples (300 in CI; the long suite runs 20,000).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time

import pytest
from fakes.memory_store import Fault, MemoryStore
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phase_
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from state_machine.inline_rig import BUCKET, GROUP, InlineRig, ServerClock, VirtualClock

from ncaasd.engine import commands
from ncaasd.errors import Throttled, UserError
from ncaasd.model import FileState, JobRow, JobState, Origin, Phase
from ncaasd.neurocaas.naming import safe_key

EXAMPLES = int(os.environ.get("NCAASD_EXAMPLES", "300"))
STEPS = 40
SETTLE = 2.0
CONFIG = f"""
watch: {{settle: {SETTLE}s, rescan: 1s, min_free: 0}}
jobs: {{poll: {{min: 1s, max: 4s}}, ask_above: 6, max_active: 4, stop_after_failures: 3, max_per_day: 1000}}
"""
FILES = ("a.tif", "b.tif", "m1/c.tif", "m1/d e.tif")
MARK = b"<whole>"
RULE = "rules:\n  - {name: r, datasets: '**/*.tif', config: c.yaml}\n"
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None


def key_of(name: str) -> str:
    return f"{GROUP}/inputs/{safe_key(name)}"


class Platform:
    """NeuroCAAS, as far as a job that simply works or fails: one job for each *version* of a submit file."""

    def __init__(self, server: MemoryStore) -> None:
        self.server = server
        self.answered: set[str] = set()
        self.failing: set[str] = set()

    def step(self, *, fail: bool = False) -> None:
        for key in _keys(self.server):
            if key.endswith("submit.json") and key not in self.answered:
                self.answered.add(key)
                self._run(json.loads(self.server.body(key)), fail)
                return

    def waiting(self) -> bool:
        return any(k.endswith("submit.json") and k not in self.answered for k in _keys(self.server))

    def _run(self, body: dict[str, object], fail: bool) -> None:
        names = body["dataname"]
        assert isinstance(names, list)
        folder = f"{GROUP}/results/job__{BUCKET}_{body['timestamp']}/"
        if fail:
            self.failing.add(str(body["timestamp"]))
        steps = ("Initialization", "Validation", "Environment Setup", "Initialize Processing")
        lines = [f"[Job Manager] STEP {n}/4 ({what}): DONE" for n, what in enumerate(steps, 1)]
        self.server.seed(folder + "logs/certificate.txt", "\n".join(lines).encode())
        for name in names:
            base = name.rpartition("/")[2]
            status = {"status": "FAILED" if fail else "SUCCESS", "reason": 1 if fail else 0, "input": name, "std": {}}
            self.server.seed(f"{folder}logs/DATASET_NAME:{base}_STATUS.txt", json.dumps(status).encode())
            self.server.seed(f"{folder}process_results/{base}.out", b"result of " + base.encode())
        self.server.seed(folder + "process_results/end.txt", b"end of analysis marker")


class ExactlyOnce(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.mkdtemp(prefix="ncaasd-sm-", dir=SHM)
        self.clock = VirtualClock(time.time())
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.platform = Platform(self.server)
        self.folder = os.path.join(self.base, "root", BUCKET)
        for area in ("inputs/m1", "configs", "submissions", "results"):
            os.makedirs(os.path.join(self.folder, area))
        self.rigs = [
            InlineRig(name, os.path.join(self.base, "root"), self.base, self.server, self.clock, CONFIG)
            for name in ("rig-a", "rig-b")
        ]
        self.growing: set[str] = set()
        self.contents: dict[str, bytes] = {}
        self.versions = 0
        self.one_offs: dict[str, tuple[str, ...]] = {}
        self.reruns: list[tuple[str, str]] = []  # each that was asked for: its name and unit
        self.tidied: set[str] = set()  # ids of jobs
        self.let_go: dict[
            str, int
        ] = {}  # submit key -> how often a person said that it may be sent though S3 shows no trace

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def every_submit_is_put_once(self) -> None:
        for key, count in self.server.created_keys().items():
            if key.endswith("submit.json"):
                most = 1 + self.let_go.get(key, 0)
                assert count <= most, f"{key} was created {count} times: that many machines are paid for"

    @invariant()
    def what_was_submitted_is_whole_and_stored(self) -> None:
        for key in _keys(self.server):
            if not key.endswith("submit.json"):
                continue
            body = json.loads(self.server.body(key))
            assert body["configname"] in _keys(self.server)
            for name in body["dataname"]:
                assert name in _keys(self.server), f"{key} names {name}, which is not in S3"
        for key in _keys(self.server):
            if key.startswith(f"{GROUP}/inputs/"):
                assert self.server.body(key).endswith(MARK), f"{key} was stored half-written"

    @invariant()
    def two_submits_are_never_for_one_attempt(self) -> None:
        """Bodies differ in their timestamp only when a person or the platform asked for another attempt."""
        asked: dict[str, int] = {}
        for key in self.server.created_keys():
            if key.endswith("submit.json"):  # also of those that were tidied away
                body = json.loads(self.server.first_body(key))
                asked[json.dumps(body["dataname"])] = asked.get(json.dumps(body["dataname"]), 0) + 1
        for names, count in asked.items():
            jobs = 1 + sum(json.dumps([key_of(d) for d in ds]) == names for ds in self.one_offs.values())
            jobs += sum(json.dumps([key_of(unit)]) == names or name != "r" for name, unit in self.reruns)
            assert count <= jobs, f"{names} was submitted {count} times, asked for at most {jobs} times"

    # -- what people and rigs do -------------------------------------------------------------------------------------

    @initialize(rules=st.booleans())
    def begin(self, rules: bool) -> None:
        self._write("configs/c.yaml", b"fr: 30\n")
        if rules:
            self._write("manifest.yaml", RULE.encode())

    def _write(self, path: str, data: bytes) -> None:
        whole = os.path.join(self.folder, path)
        temporary = os.path.join(self.base, "writing")
        with open(temporary, "wb") as file:
            file.write(data)
        os.rename(temporary, whole)

    @rule(name=st.sampled_from(FILES), size=st.integers(0, 40))
    def record(self, name: str, size: int) -> None:
        self.versions += 1
        self.contents[name] = b"%d:" % self.versions + b"x" * size + MARK
        self.growing.discard(name)
        self._write(f"inputs/{name}", self.contents[name])

    @rule(name=st.sampled_from(FILES))
    def record_slowly(self, name: str) -> None:
        """A writer at work: it never pauses for as long as `settle`."""
        self.versions += 1
        self.contents[name] = b"%d:slow" % self.versions
        self.growing.add(name)
        with open(os.path.join(self.folder, "inputs", name), "wb") as file:
            file.write(self.contents[name])

    @precondition(lambda self: self.growing)
    @rule(data=st.data())
    def finish_recording(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.growing)))
        self._finish(name)

    def _finish(self, name: str) -> None:
        self.growing.discard(name)
        self.contents[name] += MARK
        with open(os.path.join(self.folder, "inputs", name), "ab") as file:
            file.write(MARK)

    @rule(name=st.sampled_from(FILES))
    def delete(self, name: str) -> None:
        if self.contents.pop(name, None) is not None:
            self.growing.discard(name)
            os.unlink(os.path.join(self.folder, "inputs", name))

    @rule(
        name=st.sampled_from(("one", "two")),
        datasets=st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True),
    )
    def ask_for_a_job(self, name: str, datasets: list[str]) -> None:
        """The same manifest dropped again, or another of that name with other datasets."""
        if name in self.one_offs:
            datasets = list(self.one_offs[name])
        self.one_offs[name] = tuple(datasets)
        text = {"jobs": [{"name": name, "datasets": datasets, "config": "c.yaml"}]}
        self._write(f"submissions/{name}.yaml", json.dumps(text).encode())

    @rule(fr=st.integers(1, 3))
    def edit_config(self, fr: int) -> None:
        self._write("configs/c.yaml", b"fr: %d\n" % fr)

    @rule()
    def edit_manifest(self) -> None:
        self._write("manifest.yaml", RULE.replace("config: c.yaml", "config: c.yaml, set: {k: 1}").encode())

    # -- time and turns ----------------------------------------------------------------------------------------------

    def _pass_time(self, seconds: float) -> None:
        for name in sorted(self.growing):
            self.contents[name] += b"."
            with open(os.path.join(self.folder, "inputs", name), "ab") as file:
                file.write(b".")
        self.clock.sleep(seconds)

    @rule(which=st.integers(0, 1), turns=st.integers(1, 12), step=st.sampled_from((0.1, 0.9, 1.5)))
    def run_daemon(self, which: int, turns: int, step: float) -> None:
        rig = self.rigs[which]
        for _ in range(turns):
            if not rig.turn():
                return
            self._pass_time(step)

    @rule(which=st.integers(0, 1), turns=st.integers(1, 12), after=st.integers(0, 40))
    def run_daemon_until_killed(self, which: int, turns: int, after: int) -> None:
        rig = self.rigs[which]
        rig.fuse.left = after
        for _ in range(turns):
            if not rig.turn():
                break
            self._pass_time(1.0)
        rig.fuse.left = None

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        self.rigs[which].kill()

    @rule(fail=st.booleans())
    def the_platform_runs_a_job(self, fail: bool) -> None:
        self.platform.step(fail=fail)

    @rule(hours=st.sampled_from((-87600, -1, 1, 25, 87600)))
    def the_clock_jumps(self, hours: int) -> None:
        self.clock.wall = max(0.0, self.clock.wall + hours * 3600.0)  # no system lets a clock show less than 1970

    # -- faults ------------------------------------------------------------------------------------------------------

    @rule(
        op=st.sampled_from(("put", "find", "list", "read", "get", "*")),
        how=st.sampled_from(("lost", "late", "throttled")),
        skip=st.integers(0, 3),
        late=st.integers(1, 6),
        submits=st.booleans(),
    )
    def a_fault(self, op: str, how: str, skip: int, late: int, submits: bool) -> None:
        where = _is_submit if submits else None
        if how == "lost":
            fault = Fault(op, where, skip=skip, lost=True)
        elif how == "late":
            fault = Fault("put", where, skip=skip, late=late)
        else:
            fault = Fault(op, where, skip=skip, error=Throttled("slow down"))
        self.server.faults.append(fault)

    @rule()
    def tidy_s3(self) -> None:
        """Somebody deletes the submit files and job folders of jobs that are over for all who follow them."""
        for rig in self.rigs:
            rig.fuse.left = None
        known = [{j.job_id: j for j in rig.journal.jobs() if j.job_id} for rig in self.rigs]
        for job_id in known[0].keys() & known[1].keys():
            jobs = [each[job_id] for each in known]
            if all(j.phase is Phase.ENDED and not j.forgotten for j in jobs):
                self.platform.answered.discard(jobs[0].submit_key)
                for key in _keys(self.server):
                    if key == jobs[0].submit_key or f"_{job_id}/" in key:
                        self.server.remove(key)
                self.tidied.add(job_id)

    @rule(which=st.integers(0, 1), restore=st.booleans(), turns=st.integers(15, 30))
    def a_season_passes(self, which: int, restore: bool, turns: int) -> None:
        """Most of what was begun ends; then S3 is tidied, and a journal is lost, or its copy of before put back."""
        for rig in self.rigs:
            rig.fuse.left = None
        if restore:
            self.rigs[which].backup()
        for _ in range(turns):
            for rig in self.rigs:
                rig.turn()
            self.platform.step()
            self._pass_time(1.0)
        self.tidy_s3()
        self.lose_the_journal(which, restore)

    @rule(which=st.integers(0, 1))
    def back_up_the_journal(self, which: int) -> None:
        self.rigs[which].backup()

    @rule(which=st.integers(0, 1), restore=st.booleans())
    def lose_the_journal(self, which: int, restore: bool) -> None:
        self.rigs[which].lose_journal(restore=restore)

    # -- the operator ------------------------------------------------------------------------------------------------

    @rule(
        which=st.integers(0, 1), action=st.sampled_from(("hold", "release")), name=st.sampled_from(("r", "one", "two"))
    )
    def decide(self, which: int, action: str, name: str) -> None:
        rig = self.rigs[which]
        try:
            effects = commands.apply(rig.journal, action, commands.Selection(ids=(name,)), self.clock.now())
        except UserError:
            return
        for effect in effects:
            if action == "release" and effect.done:
                self._lets_go(effect.job)

    def _lets_go(self, job: JobRow) -> None:
        if job.submit_key and job.released & {"rebuilt", "unsure"}:
            self.let_go[job.submit_key] = self.let_go.get(job.submit_key, 0) + 1

    @rule(which=st.integers(0, 1), data=st.data())
    def rerun(self, which: int, data: st.DataObject) -> None:
        rig = self.rigs[which]
        ended = [j for j in rig.journal.jobs() if j.phase is Phase.ENDED]
        if ended:
            job = data.draw(st.sampled_from(ended))
            self._asked_again(job)
            commands.apply(rig.journal, "rerun", commands.Selection(ids=(job.job_id,)), self.clock.now())

    def _asked_again(self, job: JobRow) -> None:
        self.reruns.append((job.spec.name, job.spec.unit))

    # -- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self._run_to_quiescence()
            self._check_the_end()
        finally:
            for rig in self.rigs:
                rig.kill()
            shutil.rmtree(self.base, ignore_errors=True)

    def _run_to_quiescence(self) -> None:
        self.server.faults.clear()
        self.server.flush_late()
        for name in sorted(self.growing):
            self._finish(name)
        for round_ in range(400):
            for rig in self.rigs:
                rig.fuse.left = None
                rig.turn()
                for row in list(rig.journal.files(BUCKET, states=[FileState.HELD])):
                    with rig.journal.transaction():
                        commands.release_file(rig.journal, row, self.clock.now())
                for job in rig.journal.jobs(unfinished=True):
                    if job.state is JobState.LOST and job.job_id in self.tidied:
                        with (
                            rig.journal.transaction()
                        ):  # an old copy knows it as submitted, and it will not be heard of
                            commands.forget(rig.journal, job, self.clock.now())
                    elif job.hold:
                        with rig.journal.transaction():
                            effect = commands.release(rig.journal, job, self.clock.now())
                        if effect.done:
                            self._lets_go(effect.job)
                        if not effect.done and job.hold != "foreign":
                            with rig.journal.transaction():
                                forgotten = commands.forget(rig.journal, job, self.clock.now())
                            if not forgotten.done and job.hold == "replaced":  # as its reason says
                                self._asked_again(job)
                                with rig.journal.transaction():
                                    commands.rerun(rig.journal, job, self.clock.now())
            self.platform.step()
            self._pass_time(1.0 if round_ % 10 else 4000.0)
            if round_ > 30 and round_ % 10 == 0 and self._quiet():
                return

    def _quiet(self) -> bool:
        if self.platform.waiting():
            return False
        for rig in self.rigs:
            assert rig.engine is not None
            if rig.engine.observer.unsettled() or rig.engine.uploader.busy():
                return False
            if any(j.state is not JobState.WAITING for j in rig.journal.jobs(unfinished=True)):
                return False
        return True

    def _check_the_end(self) -> None:
        self.every_submit_is_put_once()
        self.what_was_submitted_is_whole_and_stored()
        for rig in self.rigs:
            rows = {r.place.path: r for r in rig.journal.files(BUCKET)}
            for name, content in self.contents.items():
                row = rows[f"inputs/{name}"]
                assert row.state == "stored", f"{rig.name}: {name} is {row.state}: {row.reason}"
                assert self.server.body(key_of(name)) == content
            for job in rig.journal.jobs():
                if job.forgotten or job.spec.origin is Origin.ELSEWHERE or job.job_id in self.tidied:
                    continue
                attempts = rig.journal.attempts(BUCKET, job.spec.name, job.spec.unit, job.spec.version)
                if job.phase is Phase.ENDED and job.state is JobState.HELD and attempts[-1].row != job.row:
                    continue  # held, and then run again instead
                if all(d.name in self.contents for d in job.spec.datasets):
                    text = f"{rig.name}: {job.spec.name} {job.spec.unit} is {job.state} ({job.reason})"
                    assert job.phase is Phase.ENDED, text
                    assert job.state in (JobState.DONE, JobState.FAILED), text
                    assert (job.state is JobState.FAILED) == (job.job_id in self.platform.failing), text
            if os.path.exists(os.path.join(self.folder, "manifest.yaml")):
                units = {j.spec.unit for j in rig.journal.jobs() if j.spec.name == "r"}
                assert set(self.contents) <= units, f"{rig.name}: the rule made no job for {set(self.contents) - units}"
        self._check_results()

    def _check_results(self) -> None:
        for rig in self.rigs:
            for job in rig.journal.jobs():
                for artefact in rig.journal.artefacts(job.row):
                    assert artefact.state == "fetched", f"{artefact.name}: {artefact.state} {artefact.reason}"
                    if artefact.key not in _keys(self.server) and job.job_id in self.tidied:
                        continue
                    with open(os.path.join(self.folder, "results", artefact.path), "rb") as file:
                        assert file.read() == self.server.body(artefact.key)


def _keys(server: MemoryStore) -> list[str]:
    return server.keys()


def _is_submit(key: str) -> bool:
    return key.endswith("submit.json")


ExactlyOnce.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[p for p in Phase_ if p is not Phase_.shrink or os.environ.get("SHRINK")],
)


@pytest.mark.slow
@pytest.mark.timeout(5400)
class TestExactlyOnce(ExactlyOnce.TestCase):  # type: ignore[misc,name-defined]  # made by Hypothesis
    pass
