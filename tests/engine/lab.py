"""A rig in one thread over a bucket in memory, with a platform that does what the test says, and time that moves when told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from fakes.memory_store import MemoryStore
from state_machine.inline_rig import BUCKET, GROUP, InlineRig, ServerClock, VirtualClock

from ncaasd.engine import commands
from ncaasd.engine.commands import Effect, Selection
from ncaasd.model import Event, JobRow

SETTINGS = {"watch": {"settle": "1s", "rescan": "1s", "min_free": 0}, "jobs": {"poll": {"min": "15s", "max": "5m"}}}
STEPS = ("Initialization", "Validation", "Environment Setup", "Initialize Processing")
END = b"end of analysis marker"
HOUR = 3600.0


def done(*steps: int) -> str:
    return "".join(f"[Job Manager] STEP {n}/4 ({STEPS[n - 1]}): DONE\n" for n in steps)


NO_CAPACITY = done(1, 2, 3) + (
    "[Job Manager] STEP 4/4 (Initialize Processing): AWS ERROR. {'Code': 'InsufficientInstanceCapacity'}\n"
    "[Job Manager] Shutting down job.\n"
)
NO_BANDWIDTH = done(1, 2, 3) + (
    "        [Internal (acquire_instances)] RESOURCE ERROR: Instance requests greater than pipeline bandwidth.\n"
    "[Job Manager] STEP 4/4 (Initialize Processing): INTERNAL ERROR. Traceback (most recent call last):\n"
    "ValueError: no bandwidth\n[Job Manager] Shutting down job.\n"
)
OVER_BUDGET = done(1) + (
    "        [Internal (get_costmonitoring)] Projected total costs: $301.06. Over budget ($300.0), cancelling job. Contact.\n"
    "[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. Error: Job is not covered by budget.\n"
    "[Job Manager] Shutting down job.\n"
)
NOT_FOUND = done(1) + (
    "        [Internal (check_existence)] INPUT ERROR: S3 Bucket does not contain lab/configs/x.yaml\n"
    "[Job Manager] STEP 2/4 (Validation): INTERNAL ERROR. ValueError: not found\n[Job Manager] Shutting down job.\n"
)
LAUNCHED = done(1, 2, 3, 4) + "JOB MONITOR LOG COMPLETE\n"


class Lab:
    """`settings` are laid over SETTINGS, section by section."""

    def __init__(self, base: Path, **settings: dict[str, Any]) -> None:
        self.clock = VirtualClock(float(int(time.time())))
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.folder = base / "root" / BUCKET
        for area in ("inputs", "configs", "submissions", "results"):
            (self.folder / area).mkdir(parents=True)
        (self.folder / "configs/c.yaml").write_text("fr: 30\n")
        merged = {name: SETTINGS.get(name, {}) | settings.get(name, {}) for name in {*SETTINGS, *settings}}
        self.rig = InlineRig("rig-a", str(base / "root"), str(base), self.server, self.clock, yaml.safe_dump(merged))

    # -- what is wanted

    def drop(self, path: str, body: str | bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body.encode() if isinstance(body, str) else body)

    def drop_inputs(self, *names: str) -> None:
        for name in names:
            self.drop(f"inputs/{name}", f"data of {name}")

    def drop_rule(self, name: str = "all", **more: Any) -> None:
        rule = {"name": name, "datasets": "**/*.tif", "config": "c.yaml", **more}
        self.drop("manifest.yaml", json.dumps({"rules": [rule]}))

    def drop_job(self, name: str, *datasets: str, **more: Any) -> None:
        self.drop_inputs(*(d for d in datasets if not d.startswith("s3://")))
        job = {"name": name, "datasets": list(datasets), "config": "c.yaml", **more}
        self.drop(f"submissions/{name}.yaml", json.dumps({"jobs": [job]}))

    def apply(self, action: str, **selection: Any) -> Sequence[Effect]:
        return commands.apply(self.rig.journal, action, Selection(**selection), self.clock.now())

    # -- time

    def pass_time(self, seconds: float, *, step: float = 1.0) -> None:
        """Let it pass in steps, with a turn or two in each."""
        end = self.clock.mono + seconds
        while self.clock.mono < end:
            self.turn()
            self.clock.sleep(min(step, end - self.clock.mono))
        self.turn()

    def turn(self) -> None:
        for _ in range(4):  # a look, its result, a download, its result
            assert self.rig.turn(), "nobody killed it"

    def until(self, condition: Callable[[], object], what: str, *, step: float = 1.0, longest: float = HOUR) -> None:
        end = self.clock.mono + longest
        while not condition():
            if self.clock.mono > end:
                jobs = [(j.spec.name, j.attempt, j.phase, j.state, j.reason) for j in self.jobs()]
                raise AssertionError(f"in vain for {what}: {jobs}")
            self.turn()
            self.clock.sleep(step)

    # -- what is known

    def jobs(self) -> list[JobRow]:
        """The oldest first."""
        return self.rig.journal.jobs()[::-1]

    def job(self, name: str = "", attempt: int = 0) -> JobRow:
        return next(j for j in self.jobs() if name in ("", j.spec.name, j.spec.unit) and j.attempt == attempt)

    def states(self) -> list[str]:
        return [str(j.state) for j in self.jobs()]

    def submits(self) -> dict[str, int]:
        return {k: n for k, n in self.server.created_keys().items() if k.endswith("submit.json")}

    def events(self, kind: str) -> list[Event]:
        return [e for e in self.rig.journal.events(limit=100_000) if e.kind == kind]

    def result(self, job: JobRow, name: str) -> bytes:
        return (self.folder / "results" / job.results / name).read_bytes()

    # -- the platform

    def put(self, job: JobRow, name: str, body: str | bytes) -> None:
        """Into the job's folder at home."""
        key = f"{GROUP}/results/job__{BUCKET}_{job.job_id}/{name}"
        self.server.seed(key, body.encode() if isinstance(body, str) else body)

    def certify(self, job: JobRow, text: str) -> None:
        self.put(job, "logs/certificate.txt", text)

    def status(self, job: JobRow, dataset: str, status: str, **more: Any) -> None:
        body = {"status": status, "reason": 0, "input": dataset, "std": {}} | more
        self.put(job, f"logs/DATASET_NAME:{dataset}_STATUS.txt", json.dumps(body))

    def launch(self, job: JobRow) -> None:
        self.certify(job, LAUNCHED)
        for dataset in job.spec.datasets:
            self.status(job, dataset.key.rpartition("/")[2], "INITIALIZING")

    def succeed(self, job: JobRow) -> None:
        self.certify(job, LAUNCHED)
        for dataset in job.spec.datasets:
            self.status(job, dataset.key.rpartition("/")[2], "SUCCESS")
        self.put(job, "process_results/out.bin", b"results")
        self.put(job, "process_results/end.txt", END)
