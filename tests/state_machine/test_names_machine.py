"""F96 under kills and lost answers: recordings of one name in S3, in two folders and a third, come, go, change and come back.

Invariants after each step: a job that was just submitted has the bytes of its own file at its key, and so has a job that the
platform runs; each submit file is put once. In the end each name has one of the files that are there, all jobs of it are done,
and those of the others wait and say whose name it is.

NCAASD_EXAMPLES sets how many examples (a tenth of those of the other machine).
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
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from state_machine.inline_rig import BUCKET, InlineRig, ServerClock, VirtualClock
from state_machine.test_state_machine import Platform, _keys

from ncaasd.engine import commands
from ncaasd.model import FileState, JobRow, JobState, Phase, Place
from ncaasd.neurocaas.naming import safe_key

EXAMPLES = int(os.environ.get("NCAASD_EXAMPLES", "400")) // 10
SHM = "/dev/shm" if os.path.isdir("/dev/shm") else None
# What may be there. The last two of the rig's own folder come to one key, and so do all that are called a.tif.
FILES = (
    ("", "a.tif"),
    ("", "日本.tif"),
    ("", "x y.tif"),
    ("", safe_key("x y.tif")),
    ("cam1", "a.tif"),
    ("cam2", "a.tif"),
)
RULES = {"own": "", "one": "cam1", "two": "cam2"}
MARK = b"<whole>"


def tag(tree: str, name: str) -> bytes:
    return f"{tree}:{name}|".encode()


class NamesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.mkdtemp(prefix="ncaasd-names-", dir=SHM)
        self.clock = VirtualClock(time.time())
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.platform = Platform(self.server)
        self.home = os.path.join(self.base, "root", BUCKET)
        self.folders = {"": os.path.join(self.home, "inputs")}
        self.folders |= {name: os.path.join(self.base, name) for name in ("cam1", "cam2")}
        for folder in (
            *self.folders.values(),
            *(os.path.join(self.home, a) for a in ("configs", "submissions", "results")),
        ):
            os.makedirs(folder)
        config = (
            "watch: {settle: 1s, rescan: 1s, min_free: 0}\n"
            "jobs: {poll: {min: 1s, max: 4s}, ask_above: 1000, max_active: 1000, stop_after_failures: 1000}\n"
            f"sources: {{cam1: {self.folders['cam1']}, cam2: {self.folders['cam2']}}}\n"
        )
        for name in ("cam1", "cam2"):  # a folder that is suddenly empty counts as unmounted
            self._write(os.path.join(self.folders[name], "readme.txt"), b"always here")
        self.rig = InlineRig("rig-a", os.path.join(self.base, "root"), self.base, self.server, self.clock, config)
        self._write(os.path.join(self.home, "configs/c.yaml"), b"fr: 30\n")
        rules = [
            {"name": name, "datasets": "**/*.tif", "config": "c.yaml", **({"source": tree} if tree else {})}
            for name, tree in RULES.items()
        ]
        self._write(os.path.join(self.home, "manifest.yaml"), json.dumps({"rules": rules}).encode())
        self.contents: dict[tuple[str, str], bytes] = {}
        self.aside: dict[tuple[str, str], bytes] = {}
        self.versions = 0
        self.seen: set[str] = set()

    def _write(self, path: str, data: bytes) -> None:
        staging = os.path.join(self.base, "writing")
        with open(staging, "wb") as file:
            file.write(data)
        os.rename(staging, path)

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def what_was_just_submitted_has_its_own_data(self) -> None:
        for key in _keys(self.server):
            if key.endswith("submit.json") and key not in self.seen:
                self.seen.add(key)
                self._has_its_own_data(json.loads(self.server.body(key)))

    @invariant()
    def every_submit_is_put_once(self) -> None:
        assert {k: n for k, n in self.server.created_keys().items() if k.endswith("submit.json") and n != 1} == {}

    def _has_its_own_data(self, body: dict[str, object]) -> None:
        job = self.rig.journal.job_by_id(BUCKET, str(body["timestamp"]))
        assert job is not None
        (key,) = body["dataname"]  # type: ignore[misc,attr-defined]  # a list of one
        tree = RULES.get(job.spec.name, "")
        found = self.server.body(key)
        assert found.startswith(tag(tree, job.spec.unit)), f"{job.spec.name} {job.spec.unit} was given {found!r}"
        assert found.endswith(MARK)

    # -- what people do ----------------------------------------------------------------------------------------------

    @rule(which=st.sampled_from(FILES))
    def record(self, which: tuple[str, str]) -> None:
        self.versions += 1
        self.contents[which] = tag(*which) + b"%d" % self.versions + MARK
        self._write(os.path.join(self.folders[which[0]], which[1]), self.contents[which])

    @rule(which=st.sampled_from(FILES))
    def delete(self, which: tuple[str, str]) -> None:
        if self.contents.pop(which, None) is not None:
            os.unlink(os.path.join(self.folders[which[0]], which[1]))

    @rule(which=st.sampled_from(FILES))
    def move_away_or_back(self, which: tuple[str, str]) -> None:
        here = os.path.join(self.folders[which[0]], which[1])
        there = os.path.join(self.base, f"aside-{FILES.index(which)}")
        if which in self.contents:
            self.aside[which] = self.contents.pop(which)
            os.rename(here, there)
        elif which in self.aside:
            self.contents[which] = self.aside.pop(which)
            os.rename(there, here)

    @rule(name=st.sampled_from(("a.tif", "日本.tif")))
    def ask_for_a_job(self, name: str) -> None:
        job = f"job-{('a.tif', '日本.tif').index(name)}"
        text = {"jobs": [{"name": job, "datasets": [name], "config": "c.yaml"}]}
        self._write(os.path.join(self.home, f"submissions/{job}.yaml"), json.dumps(text).encode())

    # -- time, faults ------------------------------------------------------------------------------------------------

    @rule(turns=st.integers(1, 15), step=st.sampled_from((0.1, 0.9, 1.5, 20.0)))
    def run_daemon(self, turns: int, step: float) -> None:
        for _ in range(turns):
            if not self.rig.turn():
                return
            self.what_was_just_submitted_has_its_own_data()
            self.clock.sleep(step)

    @rule(turns=st.integers(1, 12), after=st.integers(0, 40))
    def run_daemon_until_killed(self, turns: int, after: int) -> None:
        self.rig.fuse.left = after
        for _ in range(turns):
            if not self.rig.turn():
                break
            self.clock.sleep(1.0)
        self.rig.fuse.left = None

    @rule()
    def kill(self) -> None:
        self.rig.kill()

    @rule(op=st.sampled_from(("put", "find", "list", "read", "*")), skip=st.integers(0, 3))
    def an_answer_is_lost(self, op: str, skip: int) -> None:
        self.server.faults.append(Fault(op, skip=skip, lost=True))

    @rule(fail=st.booleans())
    def the_platform_runs_a_job(self, fail: bool) -> None:
        self._run_one(fail)

    def _run_one(self, fail: bool = False) -> None:
        waiting = [k for k in _keys(self.server) if k.endswith("submit.json") and k not in self.platform.answered]
        for key in waiting[:1]:
            self._has_its_own_data(json.loads(self.server.body(key)))
        self.platform.step(fail=fail)

    # -- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.server.faults.clear()
            self.rig.fuse.left = None
            for round_ in range(300):
                self.rig.turn()
                self.what_was_just_submitted_has_its_own_data()
                for row in list(self.rig.journal.files(BUCKET, states=[FileState.HELD])):
                    self._release(row.id)
                self._run_one()
                self.clock.sleep(1.0 if round_ % 5 else 40.0)
                if round_ > 40 and round_ % 10 == 0 and self._quiet():
                    break
            self._check_the_end()
        finally:
            self.rig.kill()
            shutil.rmtree(self.base, ignore_errors=True)

    def _release(self, file_id: int) -> None:
        """A put whose answer was lost with the daemon, of a file that was then renamed: only a person can tell."""
        row = self.rig.journal.file(file_id)
        assert row is not None
        with self.rig.journal.transaction():
            commands.release_file(self.rig.journal, row, self.clock.now())

    def _quiet(self) -> bool:
        assert self.rig.engine is not None
        busy = self.rig.engine.observer.unsettled() or self.rig.engine.uploader.busy()
        return not busy and all(j.state is JobState.WAITING for j in self.rig.journal.jobs(unfinished=True))

    def _check_the_end(self) -> None:
        rows = {place: self.rig.journal.file_at(self._place(*place)) for place in self.contents}
        keys: dict[str, list[tuple[str, str]]] = {}
        for place, row in rows.items():
            assert row is not None
            keys.setdefault(row.key, []).append(place)
        for key, places in keys.items():
            stored = [p for p in places if rows[p].state is FileState.STORED]  # type: ignore[union-attr]  # as above
            said = [(p, rows[p].state, rows[p].reason) for p in places]  # type: ignore[union-attr]
            assert len(stored) == 1, f"{key}: {said}"
            assert self.server.body(key) == self.contents[stored[0]]
            for place in places:
                for job in self._jobs_of(*place):
                    if place in stored:
                        assert job.state in (JobState.DONE, JobState.FAILED), (job.spec.unit, job.state, job.reason)
                    elif job.phase is Phase.OPEN:
                        assert job.state is JobState.WAITING and "has its name in S3 already" in job.reason
        for name, tree in RULES.items():
            units = {j.spec.unit for j in self.rig.journal.jobs() if j.spec.name == name}
            assert {n for t, n in self.contents if t == tree} <= units

    def _place(self, tree: str, name: str) -> Place:
        return Place(BUCKET, tree, name if tree else f"inputs/{name}")

    def _jobs_of(self, tree: str, name: str) -> list[JobRow]:
        rules = {n for n, t in RULES.items() if t == tree} | ({"job-0", "job-1"} if not tree else set())
        return [j for j in self.rig.journal.jobs() if j.spec.name in rules and j.spec.unit == name]


NamesMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(5400)
class TestNames(NamesMachine.TestCase):  # type: ignore[misc,name-defined]  # made by Hypothesis
    pass
