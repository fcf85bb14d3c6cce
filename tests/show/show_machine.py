"""A config, its folders and a journal as an engine leaves it, for tests of what people see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ncaasd.adapters.journal import Journal, open_journal
from ncaasd.declare.config import Config, load_config
from ncaasd.model import NEVER, CostNote, Dataset, FileState, JobSpec, JobState, Origin, Phase, Place, Stat, Stored
from ncaasd.neurocaas.naming import safe_key

ANALYSIS = "demo-analysis"
NOW = 1_800_000_000.0
ID = "482913377120344"


@dataclass(frozen=True)
class Answer:
    """What one call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Answer]


@dataclass
class Machine:
    """A rig that no daemon runs on: its config, its folders, its journal."""

    folder: Path
    config_path: Path

    @property
    def config(self) -> Config:
        return load_config(self.config_path.read_bytes(), str(self.config_path))

    @property
    def home(self) -> Path:
        return self.folder / "data" / ANALYSIS

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def journal(self) -> Journal:
        self.state.mkdir(exist_ok=True)
        return open_journal(str(self.state / "journal.sqlite"))

    def configure(self, **changes: Any) -> None:
        wanted: dict[str, Any] = {
            "group": "lab",
            "root": str(self.folder / "data"),
            "state": str(self.state),
            "analyses": {ANALYSIS: {}},
            "aws": {"endpoint_url": "http://127.0.0.1:9"},  # where nothing listens
            "watch": {"settle": "100ms", "min_free": "1 MB"},
            "web": "off",
        }
        self.config_path.write_text(json.dumps(wanted | changes))  # JSON is YAML


def stat(size: int = 1000, mtime: float = NOW) -> Stat:
    return Stat(size, int(mtime * 1e9), int(mtime * 1e9), 7)


def spec(name: str = "two-photon", unit: str = "m7/a.tif", **changes: Any) -> JobSpec:
    made = JobSpec(
        analysis=ANALYSIS,
        name=name,
        unit=unit,
        version="",
        origin=Origin.RULE,
        declared_in="manifest.yaml",
        datasets=(Dataset(unit, f"lab/inputs/{unit}", place=Place(ANALYSIS, "", f"inputs/{unit}")),),
        config="caiman.yaml",
    )
    return replace(made, **changes)


def add_file(
    journal: Journal, path: str, state: FileState, *, size: int = 1000, reason: str = "", etag: str = "e" * 32
) -> int:
    """A file below the analysis's folder, in a state; stored ones with an etag."""
    key = f"lab/{safe_key(path)}" if path.startswith(("inputs/", "configs/")) else ""
    with journal.transaction():
        row = journal.see_file(Place(ANALYSIS, "", path), stat(size), key, FileState.WHOLE, "", NOW)
        if state is FileState.STORED:
            journal.file_stored(row, stat(size), Stored(key, size, etag, 1), NOW)
        else:
            journal.set_file(row, state, reason, NOW)
    return row


def add_job(
    journal: Journal, wanted: JobSpec, *, attempt: int = 0, created: float = NOW - 600, size: int = 1000, **fields: Any
) -> int:
    """A job with columns set as the engine sets them."""
    with journal.transaction():
        row = journal.add_job(wanted, attempt, created, size=size)
        journal.update_job(row, **fields)
    return row


def submitted(job_id: str = ID, **fields: Any) -> dict[str, Any]:
    """The columns of a job that NeuroCAAS has."""
    return {
        "job_id": job_id,
        "phase": Phase.SUBMITTED,
        "state": JobState.RUNNING,
        "reason": "0 of 1 dataset finished",
        "submitted": NOW - 500,
        "submit_key": f"lab/submissions/{job_id}-submit.json",
        "config_key": "lab/configs/caiman-1a2b3c4d.yaml",
        "results": f"job__{ANALYSIS}_{job_id}",
        "cost": CostNote(3.072, 296.93),
        **fields,
    }


def done(job_id: str = ID, **fields: Any) -> dict[str, Any]:
    """The columns of a job that is over."""
    return submitted(job_id) | {
        "phase": Phase.ENDED,
        "state": JobState.DONE,
        "verdict": JobState.DONE,
        "reason": "the dataset succeeded",
        "ended": NOW - 100,
        "next_at": NEVER,
        **fields,
    }
