"""An inline rig with sources and tools, and what tests of declarations ask of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fakes.memory_store import MemoryStore
from state_machine.inline_rig import BUCKET, GROUP, InlineRig, ServerClock, VirtualClock

from ncaasd.model import FileRow, FileState, JobRow, JobState, Phase

INPUTS = f"{GROUP}/inputs/"


class DeclaredRig:
    """Time moves by hand; the platform answers when `run_jobs` is called."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.clock = VirtualClock(time.time())
        self.server = MemoryStore(BUCKET, clock=ServerClock(self.clock))
        self.home = base / "root" / BUCKET
        self.source = base / "session-share"
        self.archive = base / "archive"
        for folder in (self.source, *(self.home / a for a in ("inputs", "configs", "submissions", "results"))):
            folder.mkdir(parents=True)
        self.write("configs/c.yaml", "fr: 30\n")
        self.rig = self._make({})

    def _make(self, changes: dict[str, Any]) -> InlineRig:
        wanted: dict[str, Any] = {
            "watch": {"settle": "1s", "rescan": "1s", "min_free": 0},
            "sources": {"share": str(self.source)},
            "jobs": {"poll": {"min": "1s", "max": "4s"}},
        }
        for key, value in changes.items():
            laid_over = isinstance(value, dict) and key != "sources"
            wanted[key] = {**wanted.get(key, {}), **value} if laid_over else value
        text = yaml.safe_dump(wanted)
        return InlineRig("rig-a", str(self.base / "root"), str(self.base), self.server, self.clock, text)

    def configure(self, **changes: Any) -> None:
        """The config is edited: the daemon goes down and comes up with it, as a reload does."""
        self.rig.kill()
        self.rig = self._make(changes)

    def restart(self) -> None:
        self.rig.kill()

    # -- what people write

    def write(self, path: str, body: str | bytes) -> Path:
        """Below the analysis's folder."""
        return _write(self.home / path, body)

    def record(self, path: str, body: str | bytes = "") -> Path:
        """Below the source."""
        return _write(self.source / path, body or f"recording {path}")

    def rules(self, *rules: dict[str, Any]) -> None:
        made = [{"name": "r", "datasets": "**/*.tif", "config": "c.yaml", **rule} for rule in rules]
        self.write("manifest.yaml", yaml.safe_dump({"rules": made}))

    def ask(self, name: str, *datasets: str, **more: Any) -> None:
        job = {"name": name, "datasets": list(datasets), "config": "c.yaml", **more}
        self.write(f"submissions/{name}.yaml", yaml.safe_dump({"jobs": [job]}))

    # -- time

    def turns(self, count: int = 12) -> None:
        for _ in range(count):
            self.rig.turn()
            self.clock.sleep(0.6)

    def until(self, condition: Callable[[], Any], what: str, turns: int = 80) -> None:
        for _ in range(turns):
            self.rig.turn()
            if condition():
                return
            self.clock.sleep(0.6)
        jobs = [(j.spec.name, j.spec.unit, j.attempt, j.phase, j.state, j.reason) for j in self.jobs()]
        files = [(str(f.place), f.state, f.reason) for f in self.files()]
        raise AssertionError(f"in vain for {what}: {jobs}\n{files}")

    def run_jobs(self, *, well: bool = True) -> None:
        """The platform runs all that was submitted; the results come here."""
        for job in self.jobs():
            if job.phase is Phase.SUBMITTED and job.verdict is None:
                self.finish(job, well=well)
        self.until(lambda: all(j.phase in (Phase.ENDED, Phase.OPEN) for j in self.jobs()), "the ends", 200)

    def finish(self, job: JobRow, *, well: bool = True) -> None:
        folder = f"{GROUP}/results/job__{BUCKET}_{job.job_id}/"
        steps = ("Initialization", "Validation", "Environment Setup", "Initialize Processing")
        text = "\n".join(f"[Job Manager] STEP {n}/4 ({w}): DONE" for n, w in enumerate(steps, 1))
        self.server.seed(folder + "logs/certificate.txt", text.encode())
        for dataset in job.spec.datasets:
            base = dataset.key.rpartition("/")[2]
            status = {"status": "SUCCESS" if well else "FAILED", "reason": 0, "input": dataset.key, "std": {}}
            self.server.seed(f"{folder}logs/DATASET_NAME:{base}_STATUS.txt", json.dumps(status).encode())
        self.server.seed(folder + "process_results/out.bin", b"results")
        self.server.seed(folder + "process_results/end.txt", b"end of analysis marker")

    # -- what came of it

    def jobs(self) -> list[JobRow]:
        return self.rig.journal.jobs()[::-1]

    def job(self, unit: str = "", attempt: int = 0) -> JobRow:
        (found,) = [j for j in self.jobs() if unit in ("", j.spec.unit, j.spec.name) and j.attempt == attempt]
        return found

    def units(self) -> list[str]:
        return sorted(j.spec.unit for j in self.jobs())

    def submitted(self, count: int) -> bool:
        return sum(j.phase is Phase.SUBMITTED for j in self.jobs()) == count

    def done(self, count: int) -> bool:
        return sum(j.phase is Phase.ENDED and j.state is JobState.DONE for j in self.jobs()) == count

    def files(self) -> list[FileRow]:
        return list(self.rig.journal.files(BUCKET))

    def file(self, path: str) -> FileRow:
        (found,) = [f for f in self.files() if f.place.path in (path, f"inputs/{path}")]
        return found

    def state(self, path: str) -> FileState | None:
        return next((f.state for f in self.files() if f.place.path in (path, f"inputs/{path}")), None)

    def uploaded(self) -> list[str]:
        """What is below inputs/ in S3."""
        return sorted(o.key.removeprefix(INPUTS) for o in self.server.list(INPUTS).objects)

    def body(self, path: str) -> bytes:
        return b"".join(self.server.get(INPUTS + path))

    def submits(self) -> list[dict[str, Any]]:
        keys = [k for k in self.server.created_keys() if k.endswith("submit.json")]
        return [json.loads(b"".join(self.server.get(k))) for k in keys]

    def events(self, kind: str) -> list[str]:
        return [e.text for e in self.rig.journal.events(limit=10_000) if e.kind == kind]

    def status(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / path).read_text())
        return found


def _write(path: Path, body: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return path


def python(folder: Path, *code: str) -> list[str]:
    """A tool of a few lines of Python; arguments follow."""
    path = folder / f"tool-{len(list(folder.glob('tool-*')))}.py"
    path.write_text("\n".join(code))
    return [sys.executable, "-I", "-S", str(path)]  # what the environment may print at start is none of its output


def tree(folder: Path) -> dict[str, bytes]:
    found = {}
    for parent, _folders, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


__all__ = ["DeclaredRig", "FileState", "python", "tree"]
